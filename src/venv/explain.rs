//! Turns an engine's last words into what the owner of the Pod can change.
//!
//! Both engines are read by the phrases that they print for the same trouble. Where the phrase hides
//! the cause (an index that answers 401 or 503 is "no matching distribution" to pip) the index is
//! asked itself.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::interpreter::executable;
use super::requirements::name_of;
use super::settings::Settings;
use crate::error::{Error, Result, said_of_volume, volume_error};
use crate::http;
use crate::plan::RESERVED;
use crate::retry::Deadline;

/// How many of the engine's lines an error shows, and how much of each.
const LINES: usize = 12;
const WIDTH: usize = 220;

const LOGIN: &str = "mount a netrc file with the login for its host, and name it with --auth, or put user and \
    password into the index URL (PIP_INDEX_URL, from a Secret)";
const FORBIDDEN: &str = "these credentials may not read it: check them, and the index's permissions";

/// A failed installation.
#[derive(Debug)]
pub(super) struct Failed<'a> {
    /// `uv 0.13.9`, `pip 24.2`
    pub(super) engine: &'a str,
    pub(super) status: String,
    pub(super) stderr: &'a str,
    /// `3.13.1`
    pub(super) python: &'a str,
    /// What a wheel must be for: `cp313 manylinux x86_64`.
    pub(super) platform: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) deadline: Deadline,
}

impl Failed<'_> {
    /// The error to show, transient if trying again can help.
    pub(super) async fn explain(&self) -> Error {
        let error = match self.trouble().await {
            Some(error) => error,
            None => Error::environment(format!("{} failed ({})", self.engine, self.status)).hint(
                limit(&self.status, self.stderr)
                    .unwrap_or("the lines above are its own; --log-level debug shows all of them"),
            ),
        };
        error.excerpt(excerpt(self.stderr))
    }

    async fn trouble(&self) -> Option<Error> {
        let says = |phrases: &[&str]| self.says(phrases);
        if let Some(error) = full(&format!("{} could not write all files", self.engine), self.stderr) {
            return Some(error);
        }
        if let Some(error) = self.of_hashes() {
            return Some(error);
        }
        if says(&[
            "Could not open requirements file",
            "Could not open constraint file",
            "failed to read from file",
            "File not found:",
        ]) {
            let file = self.between("No such file or directory: '", "'").or_else(|| self.between("from file `", "`"));
            return Some(
                Error::environment(format!(
                    "a requirements file names {}, which is not there",
                    file.unwrap_or("another one")
                ))
                .hint(
                    "paths after -r and -c are relative to the file that names them; commit the file, or fix the path",
                ),
            );
        }
        if says(&[
            "Invalid requirement",
            "Couldn't parse requirement",
            "Failed to parse",
            "Unexpected '",
            "no such option",
        ]) {
            return Some(
                Error::environment("a requirement is written wrongly")
                    .hint("each line is a name with an optional version (Flask==3.1.0), a URL or a path"),
            );
        }
        if let Some(error) = self.of_lock().or_else(|| self.unbuilt()) {
            return Some(error);
        }
        // The network comes before builds: a build's own requirements are fetched as well. Where
        // nothing more can be opened or started, it is not to blame.
        let starved = limit(&self.status, self.stderr).is_some();
        if let Some(error) = self.network().filter(|_| !starved) {
            let throttled = error.retry().is_some() && says(&["429 ", "503 "]);
            return Some(if throttled { error.transient(self.pause().await) } else { error });
        }
        if says(&[
            "Failed building wheel",
            "Failed to build",
            "subprocess-exited-with-error",
            "metadata-generation-failed",
            "The build backend returned an error",
            "Failed to resolve requirements from",
            "Failed to install requirements from",
        ]) {
            if let Some(error) = self.hiccup().await {
                return Some(error);
            }
            return Some(match self.build_requirement().await {
                Some(error) => error,
                None => self.build(),
            });
        }
        if says(&["requires a different Python", "does not satisfy Python"]) || self.only_for_other_pythons() {
            return Some(
                Error::environment(format!("a requirement does not support Python {}", self.python))
                    .hint("pin a version that does, or use an app image with another Python"),
            );
        }
        if says(&[
            "No matching distribution",
            "was not found in the package registry",
            "was not found in the provided",
            "there is no version of",
            "has no wheels with a matching",
            "no wheels are available",
        ]) {
            return Some(self.not_found().await);
        }
        if says(&["ResolutionImpossible", "conflicting dependencies", "are unsatisfiable"]) {
            return Some(
                Error::environment("the requirements contradict each other")
                    .hint("loosen or drop one of the versions that the lines above name"),
            );
        }
        self.refused()
    }

    /// A file that was not given to whoever asked: a lock file names it, or a requirement.
    fn refused(&self) -> Option<Error> {
        let says = |status: &str| {
            let ways = [format!("({status} "), format!("{status} Client Error"), format!("HTTP error {status} ")];
            ways.iter().any(|way| self.stderr.contains(way))
        };
        let (status, hint) = [("401", LOGIN), ("403", FORBIDDEN)].into_iter().find(|(status, _)| says(status))?;
        let words = if status == "401" { "401 Unauthorized" } else { "403 Forbidden" };
        Some(Error::environment(format!("{} answers {words}", self.url()?)).hint(hint))
    }

    fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.stderr.contains(phrase))
    }

    fn of_hashes(&self) -> Option<Error> {
        if self.says(&["DO NOT MATCH THE HASHES", "Hash mismatch"]) {
            return Some(
                Error::environment("a download is not what the requirements' hashes allow").hint(
                    "regenerate the hashes for exactly these versions; if nobody changed them, distrust the index",
                ),
            );
        }
        if self.says(&[
            "Hashes are required",
            "Hash-checking is required",
            "all requirements must have a hash",
            "all requirements must have their versions pinned",
            "these requirements were missing hashes",
            "Can't verify hashes for these",
            "Can't verify hashes for requirements",
        ]) {
            return Some(
                Error::environment("a requirement is not pinned by a hash, and all must be").hint(
                    "pin all of them, also what they depend on: NAME==VERSION --hash=sha256:…, as pip-compile and uv export \
                     write it; where one line has a hash every line must; a directory or a repository has none",
                ),
            );
        }
        None
    }

    fn network(&self) -> Option<Error> {
        // What pip itself tried again says nothing of the end; for what that was there is another line.
        let told: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with("WARNING: Retrying (")).collect();
        // The last line, as causes follow what they caused.
        let says = |phrases: &[&str]| told.iter().rev().find(|line| phrases.iter().any(|phrase| line.contains(phrase)));
        let broke = says(&[
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
        ]);
        // Damaged on its way, whatever the length said; but compilers say the same of a source.
        let damaged = says(&[
            "unexpected EOF",
            "unexpected end of file",
            "Failed to extract archive",
            "Failed to read from zip file",
            ".whl is invalid.",
            "BadZipFile",
            "Compressed file ended before",
        ])
        .filter(|_| !self.of_backend());
        let certificate = says(&["CERTIFICATE_VERIFY_FAILED", "invalid peer certificate", "UnknownIssuer"]);
        let place = self.url().map_or_else(|| "the package index".to_owned(), str::to_owned);
        if certificate.is_some() {
            return Some(
                Error::environment(format!("the certificate of {place} is not trusted"))
                    .hint("mount the CA and name it with --ca-file"),
            );
        }
        let line = broke.or(damaged)?.trim();
        Some(
            Error::environment(format!("cannot download from {place}"))
                .because(shorten(line.strip_prefix("cause: ").unwrap_or(line)))
                .hint("check that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL")
                .transient(None),
        )
    }

    /// Whether it was a package's own code that failed, not the fetching of what that needs.
    fn of_backend(&self) -> bool {
        self.stderr.contains("The build backend returned an error")
            || self.stderr.contains("subprocess-exited-with-error")
                && !self.stderr.contains("to install build dependencies")
    }

    /// A lock file that does not fit: uv's own words.
    fn of_lock(&self) -> Option<Error> {
        let says = |phrases: &[&str]| self.says(phrases);
        if says(&["is incompatible with the project's Python requirement", "is incompatible with `requires-python`"]) {
            return Some(
                Error::environment(format!("the project of the lock file does not support Python {}", self.python))
                    .hint("use an app image with another Python, or change requires-python and lock again"),
            );
        }
        if says(&["'s Python requirement: `"]) {
            return Some(Error::environment(format!("the lock file is not for Python {}", self.python)).hint(
                "use an app image with a Python that it is for, or lock it for this one as well: \
                     uv pip compile --universal --python-version X.Y",
            ));
        }
        if says(&["Failed to parse `uv.lock`", "Failed to parse lockfile", "Failed to parse `pylock"])
            || self.stderr.contains("TOML parse error") && self.stderr.contains(".lock")
        {
            return Some(
                Error::environment("the lock file cannot be read")
                    .hint("make it anew (uv lock), by a uv that is no newer than the one here"),
            );
        }
        let what = if self.stderr.contains("optional-dependencies` table") {
            "extra"
        } else if says(&["dependency-groups` table", "dependency group '"]) {
            "dependency group"
        } else {
            return None;
        };
        Some(
            Error::environment(format!("a lock file has no such {what}")).hint(format!(
                "name one of the project's own with --{}",
                if what == "extra" { "extra" } else { "group" }
            )),
        )
    }

    /// What would have to be built, where nothing may be.
    fn unbuilt(&self) -> Option<Error> {
        if !self.settings.only_binary() {
            return None;
        }
        let named = self
            .between("only-binary: ", " would have to be built")
            .or_else(|| self.between("but attempted to build `", "`"))
            .or_else(|| self.between("Building source distributions for `", "`"))
            .or_else(|| self.between("Wheels are required for `", "`"))
            .or_else(|| {
                let at = self.stderr.find("is marked as `--no-build`")?;
                self.stderr[..at].rsplit_once('`')?.0.rsplit_once('`').map(|(_, name)| name)
            })
            .or_else(|| self.between("Because ", " has no usable wheels"))
            .or_else(|| self.between("No matching distribution found for ", "\n"))
            .or_else(|| self.stderr.contains("Building source distributions is disabled").then_some("a requirement"))?;
        // A directory instead of a name: its own says most.
        let named = if named.starts_with("file://") { named.rsplit('/').next().unwrap_or(named) } else { named };
        let name = name_of(named);
        let name = if name.is_empty() || named == "a requirement" { named } else { name };
        Some(
            Error::environment(format!(
                "{name} has no wheel for {} and would have to be built, which --only-binary forbids",
                self.platform
            ))
            .hint(
                "pin a version with a wheel; or build one where its code may run (pip wheel), and name the directory \
                 with --find-links",
            ),
        )
        // An index without the name at all says the same.
        .filter(|_| !self.stderr.contains("was not found in the"))
    }

    /// What a build itself requires, and cannot have: pip's isolated environment, and uv's.
    async fn build_requirement(&self) -> Option<Error> {
        let isolated = [
            "to install build dependencies",
            "Failed to resolve requirements from",
            "Failed to install requirements from",
        ];
        if !self.says(&isolated) {
            return None;
        }
        let lacking = self.sought();
        if lacking == "a requirement" {
            return None;
        }
        for index in self.settings.indexes().into_iter().filter(|_| !self.settings.no_index()) {
            if let Err(error) = self.ask_index(index, name_of(lacking)).await {
                return Some(error);
            }
        }
        let package = self.built().unwrap_or("the package");
        Some(
            Error::environment(format!("the build of {package} needs {lacking}, which is not to be had"))
                .because("a build gets an environment of its own, with what its [build-system] requires")
                .hint(format!(
                    "what a build needs comes from the same indexes and --find-links: supply {} there, or a wheel of {package}",
                    name_of(lacking)
                )),
        )
    }

    /// The package whose build failed.
    fn built(&self) -> Option<&str> {
        let named = self
            .between("Failed building wheel for ", "\n")
            .or_else(|| self.between("Failed to build `", "`"))
            .or_else(|| self.between("Building wheel for ", " "))
            .or_else(|| self.between("Failed to build '", "'"))?;
        named.split(" @ ").next().map(str::trim)
    }

    /// Why a package cannot be built here: its name, what a wheel must be for, and what is missing.
    fn build(&self) -> Error {
        let name = self.built().unwrap_or("a requirement");
        let compilers = ["cc", "gcc", "clang", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"];
        let path = self.settings.path();
        let present = compilers.iter().any(|compiler| path.iter().any(|dir| executable(&dir.join(compiler))));
        let asked = ["gcc", "cc", "clang", "c++", "g++"].iter().any(|compiler| {
            [format!("{compiler}' failed: No such"), format!("{compiler}'\n"), format!("{compiler}: not found")]
                .iter()
                .any(|phrase| format!("{}\n", self.stderr).contains(phrase))
        });
        if asked && !present {
            return Error::environment(format!(
                "{name} has no wheel for {} and this image has no C compiler",
                self.platform
            ))
            .hint("pin a version with a wheel, use another image, or supply a wheelhouse (--find-links)");
        }
        if let Some((lacking, package)) = lacking(self.stderr) {
            return Error::environment(format!(
                "{name} has no wheel for {} and its build finds no {lacking}",
                self.platform
            ))
            .hint(format!(
                "pin a version with a wheel, use an image with {package}, or supply a wheelhouse (--find-links)"
            ));
        }
        if let Some(module) = self.between("ModuleNotFoundError: No module named '", "'") {
            return Error::environment(format!(
                "{name} has no wheel for {} and its build imports {module}, which it does not require",
                self.platform
            ))
            .hint(format!(
                "a build sees nothing but what its [build-system] requires: name {module} there, pin a version with a \
                 wheel, or supply a wheelhouse (--find-links)"
            ));
        }
        Error::environment(format!("{name} has no wheel for {} and could not be built", self.platform)).hint(
            limit(&self.status, self.stderr)
                .unwrap_or("pin a version with a wheel, or use an image with what its build asks for"),
        )
    }

    /// pip lists all versions that it left out because of the Python; only the one that was asked for
    /// explains a failure.
    fn only_for_other_pythons(&self) -> bool {
        let asked = self.between("No matching distribution found for ", "\n").and_then(|text| text.split_once("=="));
        match asked {
            Some((_, version)) => {
                let version = version.split([' ', ',', ';']).next().unwrap_or_default();
                self.stderr.contains(&format!(" {version} Requires-Python"))
            }
            None => self.stderr.contains("Requires-Python") && self.stderr.contains("(from versions: none)"),
        }
    }

    /// Asks the indexes about the name: they may have refused, or be down.
    async fn not_found(&self) -> Error {
        let requirement = self.sought();
        let name = name_of(requirement);
        if self.settings.no_index() {
            return Error::environment(format!("cannot find {requirement} in the places of --find-links"))
                .because("no index is asked (--no-index)")
                .hint(format!("put an archive of it there that fits {}, and of all that it requires", self.platform));
        }
        for index in self.settings.indexes() {
            if let Err(error) = self.ask_index(index, name).await {
                return error;
            }
        }
        let error = Error::environment(format!("cannot find {requirement} in the package index"));
        if name.len() == requirement.len() {
            error.hint("check the name; a private index is named by PIP_INDEX_URL or PIP_EXTRA_INDEX_URL")
        } else {
            error.hint(format!("check the name and the version; it must also fit {}", self.platform))
        }
    }

    /// The pip that installs what a build needs does not tell of an index page that it could not get.
    /// If it saw no version of what an index has, that was it.
    async fn hiccup(&self) -> Option<Error> {
        if self.settings.no_index()
            || !self.stderr.contains("to install build dependencies")
            || !self.stderr.contains("(from versions: none)")
        {
            return None;
        }
        let name = name_of(self.sought());
        for index in self.settings.indexes() {
            match self.ask_index(index, name).await {
                Err(error) => return Some(error),
                Ok(true) => {
                    return Some(
                        Error::environment(format!("the package index {index} gave no list of {name} to a build"))
                            .because("it does when it is asked again")
                            .transient(None),
                    );
                }
                Ok(false) => {}
            }
        }
        None
    }

    /// The requirement that was not found.
    fn sought(&self) -> &str {
        self.between("No matching distribution found for ", "\n")
            .or_else(|| self.between("there is no version of ", " and"))
            .or_else(|| self.between("Because ", " was not found"))
            .unwrap_or("a requirement")
            .split(" (from")
            .next()
            .unwrap_or_default()
            .trim()
    }

    /// Whether an index has the name; else what its refusal means.
    async fn ask_index(&self, index: &str, name: &str) -> Result<bool> {
        let normal = name.to_lowercase().replace(['_', '.'], "-");
        let Ok(mut page) = url::Url::parse(index) else { return Ok(false) };
        if let Ok(mut path) = page.path_segments_mut() {
            path.pop_if_empty().push(&normal).push("");
        }
        let response = match self.ask(page).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                return Err(Error::environment(format!("cannot reach the package index {index}"))
                    .because(error.without_url())
                    .hint("check the URL, and that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY)")
                    .transient(None));
            }
            None => {
                return Err(Error::environment(format!("the package index {index} does not answer"))
                    .hint("check that the Pod may reach it: network policy, proxy (HTTPS_PROXY)")
                    .transient(None));
            }
        };
        let status = response.status();
        let refused = Error::environment(format!("the package index {index} answers {status}"));
        match status.as_u16() {
            401 => Err(refused.hint(LOGIN)),
            403 => Err(refused.hint(FORBIDDEN)),
            429 => Err(refused.transient(http::retry_after(&response))),
            _ if http::passing(status) => {
                Err(refused.hint("the index has trouble of its own").transient(http::retry_after(&response)))
            }
            _ => Ok(status.is_success()),
        }
    }

    /// How long a server asks to wait that has just sent the engine away: no engine tells.
    async fn pause(&self) -> Option<Duration> {
        let response = self.ask(url::Url::parse(self.url()?).ok()?).await?.ok()?;
        http::passing(response.status()).then(|| http::retry_after(&response)).flatten()
    }

    /// One request with the login that belongs to the host; None if no answer comes in time.
    async fn ask(&self, url: url::Url) -> Option<reqwest::Result<reqwest::Response>> {
        if self.deadline.passed() {
            return None;
        }
        let mut request = http::client().ok()?.get(url.clone());
        if let Some(login) = url.host_str().and_then(|host| self.settings.login(host)) {
            request = request.basic_auth(&login.username, Some(login.password.reveal()));
        }
        timeout(self.deadline.silence().min(self.deadline.remaining()), request.send()).await.ok()
    }

    /// The text between two marks.
    fn between(&self, before: &str, after: &str) -> Option<&str> {
        let start = self.stderr.find(before)? + before.len();
        let rest = &self.stderr[start..];
        Some(&rest[..rest.find(after).unwrap_or(rest.len())])
    }

    /// The first URL the engine names, else the first index.
    fn url(&self) -> Option<&str> {
        let named = self
            .stderr
            .find("http")
            .map(|at| &self.stderr[at..])
            .filter(|text| text.starts_with("http://") || text.starts_with("https://"));
        let end = |text: &str| text.find([' ', ')', '\n', '`', '\'', '"', ',']).unwrap_or(text.len());
        named.map(|text| text[..end(text)].trim_end_matches(':')).or_else(|| self.settings.indexes().first().copied())
    }
}

/// The packages of Debian and Alpine that bring what builds ask for, by the beginning of its name.
/// Sources: packages.debian.org and pkgs.alpinelinux.org, "search the contents of packages".
const BRINGS: &[(&str, &str)] = &[
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

/// What a build looked for and did not find, and what to have for it.
fn lacking(stderr: &str) -> Option<(String, String)> {
    let line = |mark: &str| stderr.lines().find(|line| line.contains(mark));
    let word = |line: &str, end: &str| {
        let text = &line[..line.find(end)?];
        Some(text[text.rfind([' ', '\'', '"', '`'])? + 1..].to_owned()).filter(|word| !word.is_empty())
    };
    let what = None
        // GCC's words, and Clang's.
        .or_else(|| word(line("fatal error: ").filter(|line| line.contains(": No such file"))?, ": No such file"))
        .or_else(|| {
            let rest = line("fatal error: '")?.split_once("fatal error: '")?.1;
            Some(rest.split('\'').next()?.to_owned()).filter(|name| !name.is_empty())
        })
        .or_else(|| line("pg_config executable not found").map(|_| "pg_config".to_owned()))
        .or_else(|| {
            let found = line("mysql_config: not found").or_else(|| line("Can not find valid pkg-config name"));
            found.filter(|_| stderr.contains("mysql")).map(|_| "mysql_config".to_owned())
        })
        .or_else(|| {
            let marks = [
                "can't find Rust compiler",
                "Rust compiler not found",
                "requires Rust",
                "Cargo, the Rust package manager",
            ];
            marks.iter().find_map(|mark| line(mark)).map(|_| "Rust compiler".to_owned())
        })
        .or_else(|| {
            let marks = ["CMake must be installed", "Could not find CMake", "cmake: not found", "'cmake'"];
            marks.iter().find_map(|mark| line(mark)).map(|_| "CMake".to_owned())
        })
        .or_else(|| {
            let rest = line("was not found in the pkg-config search path")?.split_once("Package ")?.1;
            Some(rest.split([' ', ',']).next()?.trim_matches('\'').to_owned())
        })
        .or_else(|| {
            let rest = line("cannot find -l")?.split_once("cannot find -l")?.1;
            Some(format!("lib{}", rest.split([':', ' ']).next()?))
        })?;
    let known = BRINGS.iter().find(|(name, _)| what.starts_with(name));
    let package =
        known.map_or_else(|| format!("what brings {what} (a -dev package)"), |(_, package)| (*package).to_owned());
    Some((what, package))
}

/// The error of a child that could not write to the volume. What it may not write or read elsewhere
/// has other causes.
pub(super) fn full(what: &str, stderr: &str) -> Option<Error> {
    let system = said_of_volume(stderr)?;
    let full = matches!(system.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    (full || stderr.contains(&format!("{RESERVED}/staging/"))).then(|| volume_error(what.to_owned(), &system))
}

/// The limit of its container that a child met, as a hint. A kill that was not ours is the kernel's.
pub(super) fn limit(status: &str, stderr: &str) -> Option<&'static str> {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| status.contains(phrase) || stderr.contains(phrase));
    if says(&["SIGKILL", "exit code: -9", "Killed signal", "Cannot allocate memory", "MemoryError"]) {
        Some("it was short of memory, most likely: raise the init container's resources.limits.memory")
    } else if says(&["Resource temporarily unavailable", "can't start new thread"]) {
        Some("the container may have no more processes and threads: raise the limit of pids (podPidsLimit, ulimit -u)")
    } else if says(&["Too many open files", "No file descriptors available"]) {
        Some("raise the container's limit of open files (ulimit -n)")
    } else {
        None
    }
}

/// The last lines that say something.
pub(super) fn excerpt(stderr: &str) -> String {
    const NOISE: &[&str] = &[
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
    let lines: Vec<String> = stderr
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !NOISE.iter().any(|noise| line.trim_start().starts_with(noise)))
        .map(shorten)
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// A long line without its middle: pip lists a hundred versions between what matters.
fn shorten(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let head: String = line.chars().take(WIDTH / 2).collect();
    let mut tail: Vec<char> = line.chars().rev().take(WIDTH / 2).collect();
    tail.reverse();
    format!("{head} … {}", tail.into_iter().collect::<String>())
}

/// Requirements files must be there before anything starts.
pub(super) fn missing_file(path: &Path) -> Error {
    Error::environment(format!("the requirements file {} is not there", path.display()))
        .hint("paths are relative to the repository's top; commit the file, or fix -r or -c")
}

/// Whatever an engine prints, a few short lines of it are shown.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let stderr = &*String::from_utf8_lossy(data);
    let shown = excerpt(stderr);
    assert!(
        shown.lines().count() <= LINES && shown.lines().all(|line| line.chars().count() <= WIDTH + 10),
        "{shown:?}"
    );
    // Without an index and without time nobody is asked.
    let settings = &Settings::from_env([("PIP_NO_INDEX".into(), "1".into())]);
    assert!(settings.indexes().is_empty());
    let deadline = Deadline::after(Duration::ZERO);
    let failed =
        Failed { engine: "x", status: "1".into(), stderr, python: "3.13.1", platform: "x", settings, deadline };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let text = runtime.block_on(failed.explain()).to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_may_not_be_written_is_the_volumes_trouble_only_there() {
        let kind = |stderr: &str| full("x", stderr).map(|error| error.kind());
        let denied = |path: &str| format!("PermissionError: [Errno 13] Permission denied: '{path}'");
        assert_eq!(kind(&denied("/app/.podstrap/staging/x/venv/bin")), Some(Kind::Volume));
        assert_eq!(kind(&denied("/etc/pip.conf")), None);
        assert_eq!(kind("OSError: [Errno 28] No space left on device"), Some(Kind::Volume));
    }

    #[test]
    fn the_containers_limits_are_told_from_a_childs_own_failures() {
        let hint = |status, stderr| limit(status, stderr).unwrap_or_default();
        assert!(hint("signal: 9 (SIGKILL)", "Prepared 7 packages").contains("limits.memory"));
        assert!(hint("exit status: 1", "  │ exit code: -9").contains("limits.memory"));
        assert!(hint("exit status: 1", "RuntimeError: can't start new thread").contains("pids"));
        assert!(hint("exit status: 2", "No file descriptors available (os error 24)").contains("open files"));
        assert_eq!(limit("exit status: 1", "ERROR: exit code: 1"), None);
    }

    #[test]
    fn excerpts_are_short_and_say_what_matters() {
        let long = format!("ERROR: {} end", "1.0, ".repeat(200));
        let text = excerpt(&format!("Using Python 3\n\nfirst\n{long}\n{}", "x\n".repeat(20)));
        assert_eq!(text.lines().count(), LINES);
        let text = excerpt(&long);
        assert!(text.len() < 240 && text.starts_with("ERROR: 1.0") && text.ends_with(" end"), "{text}");
    }

    /// What an engine says, and whether an index was at fault that may come back.
    #[test]
    fn trouble_that_passes_is_told_from_what_stays() {
        let passes = [
            "error: Request failed after 1 retry\n  cause: HTTP status server error (503 Service Unavailable) for url",
            "  cause: HTTP status client error (429 Too Many Requests) for url (http://index.invalid/simple/flask/)",
            "  cause: HTTP status client error (408 Request Timeout) for url (http://index.invalid/simple/flask/)",
            "  cause: error sending request for url (http://index.invalid/simple/flask/)\n  cause: dns error",
            "Could not fetch URL http://h/simple/flask/: 500 Server Error: X for url - skipping\n\
             ERROR: No matching distribution found for flask",
            "Could not fetch URL http://h/simple/flask/: connection error: (Caused by NewConnectionError('[Errno 111] \
             Connection refused')) - skipping\nERROR: No matching distribution found for flask",
            "Could not fetch URL http://h/simple/setuptools/: 503 Server Error: X\n\
             × pip subprocess to install build dependencies did not run successfully.\n\
             ERROR: No matching distribution found for setuptools\nerror: subprocess-exited-with-error",
            "error: No solution found\n  cause: Because click==8.1.8 has an invalid package format\n  Failed to read from zip file",
            "error: Failed to download `click==8.1.8`\n  cause: Failed to extract archive: click.whl",
            "ERROR: Wheel 'click' located at /tmp/click.whl is invalid.",
            "pip._vendor.urllib3.exceptions.ProtocolError: ('Connection broken: IncompleteRead(1 bytes read)')",
        ];
        let stays = [
            "ERROR: No matching distribution found for flask",
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProtocolError('Connection aborted.')': /x\n\
             ERROR: No matching distribution found for flask",
            "Could not fetch URL http://h/simple/nosuch/: 404 Client Error: X for url - skipping\n\
             ERROR: No matching distribution found for nosuch",
            "Could not fetch URL http://h/simple/x/: 401 Client Error: X\nERROR: No matching distribution found for x",
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. 500 Server Error",
            "  cause: Hash mismatch for `click==8.1.8`",
            "ERROR: Invalid requirement: 'flask==='",
            "  × No solution found: your requirements are unsatisfiable",
            "error: Failed to build `x`\n  Call to setup.py failed",
            "error: Failed to build `x`\n  cause: The build backend returned an error\nSyntaxError: unexpected EOF while parsing",
            "error: subprocess-exited-with-error\nx.c:9: error: unexpected end of file\nERROR: Failed building wheel for x",
            "  cause: invalid peer certificate: UnknownIssuer: error sending request",
            "No space left on device: error sending request",
            "  cause: Failed to extract archive: x.whl\n  cause: No file descriptors available (os error 24)",
        ];
        let settings = Settings::from_env([]);
        let explain = |stderr: &str| {
            let deadline = Deadline::after(Duration::from_secs(5));
            let (engine, python, platform) = ("pip 24.2", "3.13.1", "cp313 manylinux x86_64");
            let failed = Failed { engine, status: "1".into(), stderr, python, platform, settings: &settings, deadline };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(failed.explain())
        };
        for text in passes {
            let error = explain(text);
            assert!(error.is_unreachable() && error.retry().is_some(), "{text}\n{error}");
        }
        for text in stays {
            let error = explain(text);
            assert!(!error.is_unreachable(), "{text}\n{error}");
        }
    }
}
