//! Phrases in the output of pip, uv, compilers and the system, by the failure that they report. The only phrase
//! of podstrap itself is the one that `pip.py` prints.

/// The text before and after a name.
pub(super) type Marks = (&'static str, &'static str);

/// git ran, for an engine.
pub(super) const OF_GIT: &[&str] =
    &["git fetch", "git clone", "git checkout", "git rev-parse", "Git operation failed", "git version"];

/// git is missing.
pub(super) const NO_GIT: &[&str] = &["Cannot find command 'git'", "Git executable not found"];

/// A Git server wants a login, or another one.
pub(super) const GIT_LOGIN: &[&str] = &[
    "could not read Username",
    "could not read Password",
    "Authentication failed",
    "The requested URL returned error: 401",
    "The requested URL returned error: 403",
    "Permission denied (publickey",
    "Host key verification failed",
    "Repository not found",
];

/// A Git repository has no such revision.
pub(super) const NO_REVISION: &[&str] = &[
    "not our ref",
    "did not match any file(s) known to git",
    "couldn't find remote ref",
    "reference is not a tree",
    "failed to find branch, tag, or commit",
    "bad object",
];

/// The engine cannot parse a line.
pub(super) const MALFORMED: &[&str] =
    &["Invalid requirement", "Couldn't parse requirement", "Failed to parse", "Unexpected '", "no such option"];

/// A package's build failed, or the engine could not install its build requirements.
pub(super) const BUILD_FAILED: &[&str] = &[
    "Failed building wheel",
    "Failed to build",
    "subprocess-exited-with-error",
    "metadata-generation-failed",
    "The build backend returned an error",
    "Failed to resolve requirements from",
    "Failed to install requirements from",
];

/// A package whose build failed.
pub(super) const BUILT: &[Marks] = &[
    ("Failed building wheel for ", "\n"),
    ("Failed to build `", "`"),
    ("Building wheel for ", " "),
    ("Failed to build '", "'"),
];

/// The build backend failed.
pub(super) const BACKEND_FAILED: &str = "The build backend returned an error";

/// A child process of pip failed: a build, or the installation of its requirements.
pub(super) const PIP_CHILD_FAILED: &str = "subprocess-exited-with-error";

/// pip could not install the requirements of a build.
pub(super) const PIP_BUILD_REQUIREMENTS: &str = "to install build dependencies";

/// An engine could not install the requirements of a build: pip, then uv.
pub(super) const BUILD_REQUIREMENTS: &[&str] =
    &[PIP_BUILD_REQUIREMENTS, "Failed to resolve requirements from", "Failed to install requirements from"];

/// With --only-binary: a package that needs a build. The first phrase is that of `pip.py`.
pub(super) const NEEDS_BUILD: &[Marks] = &[
    ("only-binary: ", " would have to be built"),
    ("but attempted to build `", "`"),
    ("Building source distributions for `", "`"),
    ("Wheels are required for `", "`"),
];

/// The same. The name comes before it, in backticks.
pub(super) const MARKED_NO_BUILD: &str = "is marked as `--no-build`";

/// With --only-binary: a package that has no matching wheel.
pub(super) const NO_WHEEL: &[Marks] = &[("Because ", " has no usable wheels"), NOT_FOUND_BY_PIP];

/// With --only-binary: something needs a build. Gives no name.
pub(super) const BUILDS_DISABLED: &str = "Building source distributions is disabled";

/// A version is for other Pythons.
pub(super) const OTHER_PYTHON: &[&str] = &["requires a different Python", "does not satisfy Python"];

/// pip skipped versions that are for other Pythons.
pub(super) const SKIPPED_FOR_PYTHON: &str = "Requires-Python";

/// No index and no --find-links location has it.
pub(super) const NOT_FOUND: &[&str] = &[
    "No matching distribution",
    "was not found in the package registry",
    "was not found in the provided",
    "there is no version of",
    "has no wheels with a matching",
    "no wheels are available",
];

/// The beginning of the phrases for a name that is unknown.
pub(super) const UNKNOWN_NAME: &str = "was not found in the";

/// A requirement that pip did not find.
pub(super) const NOT_FOUND_BY_PIP: Marks = ("No matching distribution found for ", "\n");

/// A requirement that was not found.
pub(super) const SOUGHT: &[Marks] =
    &[NOT_FOUND_BY_PIP, ("there is no version of ", " and"), ("Because ", " was not found")];

/// pip before 23.2 rejects a file whose metadata on the index has the name in another spelling: the spelling of the
/// requirement, and that of the metadata.
pub(super) const OTHER_SPELLING: (Marks, Marks) =
    ((" has inconsistent Name: expected '", "'"), (", but metadata has '", "'"));

/// pip before 23.2 cannot read the metadata attribute in a JSON page of an index (PEP 714).
pub(super) const ATTRIBUTE_UNREAD: &[&str] = &["in split_hash_name_and_value", "in parse_pep658_hash"];

/// pip saw no version at all.
pub(super) const NO_VERSIONS: &str = "(from versions: none)";

/// Requirements exclude each other.
pub(super) const CONFLICT: &[&str] = &["ResolutionImpossible", "conflicting dependencies", "are unsatisfiable"];

/// A server requires a login.
pub(super) const UNAUTHORIZED: &[&str] = &["(401 ", "401 Client Error", "HTTP error 401 "];

/// A server does not permit the login.
pub(super) const FORBIDDEN: &[&str] = &["(403 ", "403 Client Error", "HTTP error 403 "];

/// A server asks to wait.
pub(super) const THROTTLED: &[&str] = &["429 ", "503 "];

/// A download has another hash.
pub(super) const HASH_MISMATCH: &[&str] = &["DO NOT MATCH THE HASHES", "Hash mismatch"];

/// A requirement has no hash although hashes are required.
pub(super) const HASH_MISSING: &[&str] = &[
    "Hashes are required",
    "Hash-checking is required",
    "all requirements must have a hash",
    "all requirements must have their versions pinned",
    "these requirements were missing hashes",
    "Can't verify hashes for these",
    "Can't verify hashes for requirements",
];

/// A line about an attempt that pip repeated. It does not explain the final failure.
pub(super) const PIP_RETRIES: &str = "WARNING: Retrying (";

/// A connection or a request failed.
pub(super) const BROKEN: &[&str] = &[
    "Connection refused",
    "Connection reset",
    "Connection aborted",
    "connection broken",
    "Network is unreachable",
    "No route to host",
    "timed out",
    "network timeout",
    "Timeout was reached",
    "Temporary failure in name resolution",
    "Name or service not known",
    "dns error",
    "error sending request",
    "IncompleteRead",
    "end of file before message length",
    "server error (5",
    "client error (408",
    "client error (425",
    "client error (429",
    "408 Client Error",
    "425 Client Error",
    "429 Client Error",
    "Server Error",
    "Max retries exceeded",
    "Remote end closed connection",
    "error decoding response body",
];

/// An archive was damaged during the download. Compilers print some of these about sources.
pub(super) const DAMAGED: &[&str] = &[
    "unexpected EOF",
    "unexpected end of file",
    "Failed to extract archive",
    "Failed to read from zip file",
    ".whl is invalid.",
    "BadZipFile",
    "Compressed file ended before",
];

/// The certificate of an index is not trusted.
pub(super) const UNTRUSTED: &[&str] = &["CERTIFICATE_VERIFY_FAILED", "invalid peer certificate", "UnknownIssuer"];

/// The project of a uv.lock is for other Pythons.
pub(super) const LOCK_OTHER_PYTHON: &[&str] =
    &["is incompatible with the project's Python requirement", "is incompatible with `requires-python`"];

/// A pylock.toml is for other Pythons.
pub(super) const LOCK_NOT_FOR_PYTHON: &[&str] = &["'s Python requirement: `"];

/// The engine cannot parse a lock file.
pub(super) const LOCK_MALFORMED: &[&str] =
    &["Failed to parse `uv.lock`", "Failed to parse lockfile", "Failed to parse `pylock"];

/// uv cannot parse a TOML file. The file's name follows.
pub(super) const TOML_MALFORMED: &str = "TOML parse error";

/// A lock file lacks an extra.
pub(super) const NO_EXTRA: &[&str] = &["optional-dependencies` table"];

/// A lock file lacks a dependency group.
pub(super) const NO_GROUP: &[&str] = &["dependency-groups` table", "dependency group '"];

/// The kernel killed a process, or refused it memory.
pub(super) const OUT_OF_MEMORY: &[&str] =
    &["SIGKILL", "exit code: -9", "Killed signal", "Cannot allocate memory", "MemoryError"];

/// The kernel refused a new process or thread.
pub(super) const OUT_OF_PROCESSES: &[&str] = &["Resource temporarily unavailable", "can't start new thread"];

/// The kernel refused a new file descriptor.
pub(super) const OUT_OF_FILES: &[&str] = &["Too many open files", "No file descriptors available"];

/// Commands that a build starts to compile C or C++.
pub(super) const COMPILERS: &[&str] = &["gcc", "cc", "clang", "c++", "g++"];

/// A command is missing. Each follows its name.
pub(super) const NO_COMMAND: &[&str] = &["' failed: No such", "'\n", ": not found"];

/// A build imports a module that is not installed.
pub(super) const NO_MODULE: &[Marks] = &[("ModuleNotFoundError: No module named '", "'")];

/// A header is missing: GCC prints its name between these.
pub(super) const NO_HEADER_GCC: Marks = ("fatal error: ", ": No such file");

/// A header is missing: Clang prints its name between these.
pub(super) const NO_HEADER_CLANG: Marks = ("fatal error: '", "'");

/// The linker does not find a library. Its name follows.
pub(super) const NO_LIBRARY: &str = "cannot find -l";

/// pkg-config does not know a package.
pub(super) const NO_PKG_CONFIG: &str = "was not found in the pkg-config search path";

/// psycopg2 does not find libpq.
pub(super) const NO_PG_CONFIG: &str = "pg_config executable not found";

/// mysqlclient does not find `MySQL`'s library.
pub(super) const NO_MYSQL: &[&str] = &["mysql_config: not found", "Can not find valid pkg-config name"];

/// A build does not find Rust.
pub(super) const NO_RUST: &[&str] =
    &["can't find Rust compiler", "Rust compiler not found", "requires Rust", "Cargo, the Rust package manager"];

/// A build does not find `CMake`.
pub(super) const NO_CMAKE: &[&str] =
    &["CMake must be installed", "Could not find CMake", "cmake: not found", "'cmake'"];

/// The beginnings of lines that do not help to explain a failure.
pub(super) const NOISE: &[&str] = &[
    "Using Python ",
    "Resolved ",
    "note: This error originates",
    "note: This is an issue with the package",
    "[end of output]",
    "[notice]",
    "hint: See above",
    "hint: Build failures usually",
    "ERROR: ResolutionImpossible",
];

/// The packages of Debian and Alpine with a header, a program or a library, by the beginning of its name.
/// Sources: packages.debian.org and pkgs.alpinelinux.org, "search the contents of packages".
pub(super) const BRINGS: &[(&str, &str)] = &[
    ("Python.h", "Python's headers (Debian, Alpine: python3-dev; the python images have them)"),
    ("pyconfig.h", "Python's headers (Debian, Alpine: python3-dev; the python images have them)"),
    ("ffi.h", "libffi (Debian, Alpine: libffi-dev)"),
    ("openssl/", "OpenSSL's headers (Debian: libssl-dev, Alpine: openssl-dev)"),
    ("libpq-fe.h", "libpq (Debian, Alpine: libpq-dev), or use psycopg2-binary or psycopg[binary]"),
    ("pg_config", "libpq (Debian, Alpine: libpq-dev), or use psycopg2-binary or psycopg[binary]"),
    ("mysql", "MySQL's client library (Debian: default-libmysqlclient-dev and pkg-config, Alpine: mariadb-dev)"),
    ("libxml/", "libxml2 (Debian, Alpine: libxml2-dev)"),
    ("libxslt/", "libxslt (Debian: libxslt1-dev, Alpine: libxslt-dev)"),
    ("zlib.h", "zlib (Debian: zlib1g-dev, Alpine: zlib-dev)"),
    ("jpeglib.h", "libjpeg (Debian: libjpeg-dev, Alpine: jpeg-dev)"),
    ("ldap.h", "OpenLDAP (Debian: libldap2-dev, Alpine: openldap-dev)"),
    ("lber.h", "OpenLDAP (Debian: libldap2-dev, Alpine: openldap-dev)"),
    ("sasl/", "SASL (Debian: libsasl2-dev, Alpine: cyrus-sasl-dev)"),
    ("yaml.h", "libyaml (Debian: libyaml-dev, Alpine: yaml-dev)"),
    ("Rust", "a Rust compiler (rustc and cargo)"),
    ("CMake", "CMake (Debian, Alpine: cmake)"),
];
