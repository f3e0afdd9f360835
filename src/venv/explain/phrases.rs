//! The words by which trouble is known: pip's, uv's, a compiler's, the system's. Never podstrap's own.

/// A requirements file names another one that is not there.
pub(super) const NO_FILE: &[&str] = &[
    "Could not open requirements file",
    "Could not open constraint file",
    "failed to read from file",
    "File not found:",
];

/// A line that the engine cannot read.
pub(super) const MALFORMED: &[&str] =
    &["Invalid requirement", "Couldn't parse requirement", "Failed to parse", "Unexpected '", "no such option"];

/// A package's build failed, or what it needs did not come.
pub(super) const BUILD_FAILED: &[&str] = &[
    "Failed building wheel",
    "Failed to build",
    "subprocess-exited-with-error",
    "metadata-generation-failed",
    "The build backend returned an error",
    "Failed to resolve requirements from",
    "Failed to install requirements from",
];

/// A version is for other Pythons.
pub(super) const OTHER_PYTHON: &[&str] = &["requires a different Python", "does not satisfy Python"];

/// No index and no place with archives has it.
pub(super) const NOT_FOUND: &[&str] = &[
    "No matching distribution",
    "was not found in the package registry",
    "was not found in the provided",
    "there is no version of",
    "has no wheels with a matching",
    "no wheels are available",
];

/// Requirements exclude each other.
pub(super) const CONFLICT: &[&str] = &["ResolutionImpossible", "conflicting dependencies", "are unsatisfiable"];

/// An index asks to wait.
pub(super) const THROTTLED: &[&str] = &["429 ", "503 "];

/// A download has another hash.
pub(super) const HASH_MISMATCH: &[&str] = &["DO NOT MATCH THE HASHES", "Hash mismatch"];

/// Something has no hash where all must have one.
pub(super) const HASH_MISSING: &[&str] = &[
    "Hashes are required",
    "Hash-checking is required",
    "all requirements must have a hash",
    "all requirements must have their versions pinned",
    "these requirements were missing hashes",
    "Can't verify hashes for these",
    "Can't verify hashes for requirements",
];

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

/// An archive was damaged on its way; compilers say some of it of a source.
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

/// A lock file cannot be read.
pub(super) const LOCK_MALFORMED: &[&str] =
    &["Failed to parse `uv.lock`", "Failed to parse lockfile", "Failed to parse `pylock"];

/// A lock file lacks a dependency group.
pub(super) const NO_GROUP: &[&str] = &["dependency-groups` table", "dependency group '"];

/// Lines that say nothing of the trouble begin so.
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

/// The packages of Debian and Alpine that bring what builds ask for, by the beginning of its name.
/// Sources: packages.debian.org and pkgs.alpinelinux.org, "search the contents of packages".
pub(super) const BRINGS: &[(&str, &str)] = &[
    ("Python.h", "Python's headers (Debian, Alpine: python3-dev; the python images have them)"),
    ("pyconfig.h", "Python's headers (Debian, Alpine: python3-dev; the python images have them)"),
    ("ffi.h", "libffi (Debian, Alpine: libffi-dev)"),
    ("openssl/", "OpenSSL's headers (Debian: libssl-dev, Alpine: openssl-dev)"),
    ("libpq-fe.h", "libpq (Debian, Alpine: libpq-dev), or take psycopg2-binary or psycopg[binary]"),
    ("pg_config", "libpq (Debian, Alpine: libpq-dev), or take psycopg2-binary or psycopg[binary]"),
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
