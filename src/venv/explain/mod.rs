//! Turns an engine's last words into what the owner of the Pod can change.
//!
//! Both engines are read by the phrases that they print for the same trouble. Where the phrase hides
//! the cause (an index that answers 401 or 503 is "no matching distribution" to pip) the index is
//! asked itself.

mod build;
mod failed;
mod index;
mod output;
mod phrases;

pub(super) use self::failed::Failed;
pub(super) use self::output::{excerpt, full, limit};

use self::index::{FORBIDDEN, LOGIN};
use self::output::shorten;
use crate::error::Error;

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
        if says(phrases::NO_FILE) {
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
        if says(phrases::MALFORMED) {
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
            let throttled = error.retry().is_some() && says(phrases::THROTTLED);
            return Some(if throttled { error.transient(self.pause().await) } else { error });
        }
        if says(phrases::BUILD_FAILED) {
            if let Some(error) = self.hiccup().await {
                return Some(error);
            }
            return Some(match self.build_requirement().await {
                Some(error) => error,
                None => self.build(),
            });
        }
        if says(phrases::OTHER_PYTHON) || self.only_for_other_pythons() {
            return Some(
                Error::environment(format!("a requirement does not support Python {}", self.python))
                    .hint("pin a version that does, or use an app image with another Python"),
            );
        }
        if says(phrases::NOT_FOUND) {
            return Some(self.not_found().await);
        }
        if says(phrases::CONFLICT) {
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

    fn of_hashes(&self) -> Option<Error> {
        if self.says(phrases::HASH_MISMATCH) {
            return Some(
                Error::environment("a download is not what the requirements' hashes allow").hint(
                    "regenerate the hashes for exactly these versions; if nobody changed them, distrust the index",
                ),
            );
        }
        if self.says(phrases::HASH_MISSING) {
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
        let broke = says(phrases::BROKEN);
        // Damaged on its way, whatever the length said; but compilers say the same of a source.
        let damaged = says(phrases::DAMAGED).filter(|_| !self.of_backend());
        let certificate = says(phrases::UNTRUSTED);
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

    /// A lock file that does not fit: uv's own words.
    fn of_lock(&self) -> Option<Error> {
        let says = |phrases: &[&str]| self.says(phrases);
        if says(phrases::LOCK_OTHER_PYTHON) {
            return Some(
                Error::environment(format!("the project of the lock file does not support Python {}", self.python))
                    .hint("use an app image with another Python, or change requires-python and lock again"),
            );
        }
        if says(phrases::LOCK_NOT_FOR_PYTHON) {
            return Some(Error::environment(format!("the lock file is not for Python {}", self.python)).hint(
                "use an app image with a Python that it is for, or lock it for this one as well: \
                     uv pip compile --universal --python-version X.Y",
            ));
        }
        if says(phrases::LOCK_MALFORMED) || self.stderr.contains("TOML parse error") && self.stderr.contains(".lock") {
            return Some(
                Error::environment("the lock file cannot be read")
                    .hint("make it anew (uv lock), by a uv that is no newer than the one here"),
            );
        }
        let what = if self.stderr.contains("optional-dependencies` table") {
            "extra"
        } else if says(phrases::NO_GROUP) {
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
}

/// Whatever an engine prints, a few short lines of it are shown.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let stderr = &*String::from_utf8_lossy(data);
    let shown = excerpt(stderr);
    assert!(
        shown.lines().count() <= output::LINES && shown.lines().all(|line| line.chars().count() <= output::WIDTH + 10),
        "{shown:?}"
    );
    // Without an index and without time nobody is asked.
    let settings = &crate::venv::settings::Settings::from_env([("PIP_NO_INDEX".into(), "1".into())]);
    assert!(settings.indexes().is_empty());
    let deadline = crate::retry::Deadline::after(std::time::Duration::ZERO);
    let failed = Failed {
        engine: "x",
        status: "1".into(),
        stderr,
        python: "3.13.1",
        platform: "x",
        elsewhere: false,
        settings,
        deadline,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let text = runtime.block_on(failed.explain()).to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Deadline;
    use crate::venv::settings::Settings;
    use std::time::Duration;

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
            let failed = Failed {
                engine,
                status: "1".into(),
                stderr,
                python,
                platform,
                elsewhere: false,
                settings: &settings,
                deadline,
            };
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
