//! Explains a failed installation: turns the output of an engine into an error with a hint.
//!
//! [`phrases`] lists the phrases that pip and uv print for each kind of failure. Some phrases hide the cause: if
//! an index answers 401 or 503, pip prints "no matching distribution". podstrap then asks the index itself.

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

/// The hint for a failure that no phrase explains.
pub(super) const READ_OUTPUT: &str = "read its output above, or all of it with --log-level debug";

impl Failed<'_> {
    /// The error to show. It is transient if a retry may help.
    pub(super) async fn explain(&self) -> Error {
        let error = match self.trouble().await {
            Some(error) => error,
            None => Error::environment(format!("{} failed ({})", self.engine, self.status))
                .hint(limit(&self.status, self.stderr).unwrap_or(READ_OUTPUT)),
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
        if let Some(error) = self.of_git() {
            return Some(error);
        }
        if says(phrases::MALFORMED) {
            return Some(
                Error::environment("a requirement has invalid syntax")
                    .hint("write each line as a name with an optional version (Flask==3.1.0), a URL or a path"),
            );
        }
        if let Some(error) = self.of_lock().or_else(|| self.unbuilt()) {
            return Some(error);
        }
        // Check the network before builds: a build also downloads its requirements. But if the container allows
        // no more files or processes, the network is not the cause.
        let starved = limit(&self.status, self.stderr).is_some();
        if let Some(error) = self.network().filter(|_| !starved) {
            let throttled = error.retry().is_some() && says(phrases::THROTTLED);
            return Some(if throttled { error.transient(self.pause().await) } else { error });
        }
        if let Some(error) = self.misread_index() {
            return Some(error);
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
                    .hint("pin a version that supports it, or use an app image with another Python"),
            );
        }
        if says(phrases::NOT_FOUND) {
            return Some(self.not_found().await);
        }
        if says(phrases::CONFLICT) {
            return Some(
                Error::environment("the requirements contradict each other")
                    .hint("loosen or remove one of the versions in the lines above"),
            );
        }
        self.refused()
    }

    /// A server refused a file that a lock file or a requirement names.
    fn refused(&self) -> Option<Error> {
        let refusals =
            [(phrases::UNAUTHORIZED, "401 Unauthorized", LOGIN), (phrases::FORBIDDEN, "403 Forbidden", FORBIDDEN)];
        let (_, status, hint) = refusals.into_iter().find(|(phrases, ..)| self.says(phrases))?;
        Some(Error::environment(format!("{} answers {status}", self.url()?)).hint(hint))
    }

    /// git failed. podstrap asked for the repositories of the requirements before, so this is one that another package
    /// requires, or a commit.
    fn of_git(&self) -> Option<Error> {
        if self.says(phrases::NO_GIT) {
            return Some(
                Error::environment("a package requires a Git repository, and this image has no git")
                    .hint("run podstrap in an image with git, or use a wheel or an archive of that package"),
            );
        }
        if !self.says(phrases::OF_GIT) {
            return None;
        }
        let place = self.url().unwrap_or("a Git repository");
        if self.says(phrases::GIT_LOGIN) {
            return Some(
                Error::source(format!("git cannot read {place}")).because("it is private, or does not exist").hint(
                    "give its login with --auth: a netrc file that names its host, or an SSH key and known_hosts",
                ),
            );
        }
        self.says(phrases::NO_REVISION).then(|| {
            Error::source(format!("{place} has no such revision"))
                .hint("correct the part after @ in the requirement: a branch, a tag or a commit")
        })
    }

    fn of_hashes(&self) -> Option<Error> {
        if self.says(phrases::HASH_MISMATCH) {
            return Some(Error::environment("a download does not match the hashes of its requirement").hint(
                "regenerate the hashes for these exact versions; if nobody changed the versions or the hashes, do not \
                     trust the index",
            ));
        }
        if self.says(phrases::HASH_MISSING) {
            return Some(Error::environment("a requirement has no hash, but every requirement needs one").hint(
                "pin every requirement and dependency as NAME==VERSION --hash=sha256:…, as pip-compile and uv \
                     export write it: if one line has a hash, every line needs one; a directory or a repository cannot \
                     have one",
            ));
        }
        None
    }

    fn network(&self) -> Option<Error> {
        // Ignore attempts that pip repeated: it reports the final failure in another line.
        let told: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with(phrases::PIP_RETRIES)).collect();
        // Take the last line: a cause follows its effect.
        let says = |phrases: &[&str]| told.iter().rev().find(|line| phrases.iter().any(|phrase| line.contains(phrase)));
        let broke = says(phrases::BROKEN);
        // Compilers print the same phrases about sources.
        let damaged = says(phrases::DAMAGED).filter(|_| !self.of_backend());
        let certificate = says(phrases::UNTRUSTED);
        let place = self.url().map_or_else(|| "the package index".to_owned(), str::to_owned);
        if certificate.is_some() {
            return Some(
                Error::environment(format!("the certificate of {place} is not trusted"))
                    .hint("mount the CA's certificate as a PEM file, and give this file with --ca-file"),
            );
        }
        let line = broke.or(damaged)?.trim();
        Some(
            Error::environment(format!("cannot download from {place}"))
                .because(shorten(line.strip_prefix("cause: ").unwrap_or(line)))
                .hint("check whether the Pod can reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL")
                .transient(None),
        )
    }

    /// The error of a lock file that uv cannot use.
    fn of_lock(&self) -> Option<Error> {
        let says = |phrases: &[&str]| self.says(phrases);
        if says(phrases::LOCK_OTHER_PYTHON) {
            return Some(
                Error::environment(format!("the project of the lock file does not support Python {}", self.python))
                    .hint("use an app image with another Python, or change requires-python and lock again"),
            );
        }
        if says(phrases::LOCK_NOT_FOR_PYTHON) {
            return Some(Error::environment(format!("the lock file does not support Python {}", self.python)).hint(
                "use an app image with a Python that it supports, or lock for this Python too: \
                     uv pip compile --universal --python-version X.Y",
            ));
        }
        if says(phrases::LOCK_MALFORMED)
            || self.stderr.contains(phrases::TOML_MALFORMED) && self.stderr.contains(".lock")
        {
            return Some(
                Error::environment("cannot read the lock file")
                    .hint("recreate it (uv lock) with a uv that is not newer than the uv that podstrap runs"),
            );
        }
        let what = if says(phrases::NO_EXTRA) {
            "extra"
        } else if says(phrases::NO_GROUP) {
            "dependency group"
        } else {
            return None;
        };
        Some(Error::environment(format!("a lock file does not have the requested {what}")).hint(format!(
            "correct --{}: give a name that the project defines",
            if what == "extra" { "extra" } else { "group" }
        )))
    }

    /// Whether the requested version is only for other Pythons. pip lists every version that it skipped for this
    /// reason, but only the requested one explains the failure.
    fn only_for_other_pythons(&self) -> bool {
        let asked = self.named(&[phrases::NOT_FOUND_BY_PIP]).and_then(|text| text.split_once("=="));
        match asked {
            Some((_, version)) => {
                let version = version.split([' ', ',', ';']).next().unwrap_or_default();
                self.stderr.contains(&format!(" {version} {}", phrases::SKIPPED_FOR_PYTHON))
            }
            None => self.stderr.contains(phrases::SKIPPED_FOR_PYTHON) && self.stderr.contains(phrases::NO_VERSIONS),
        }
    }
}

/// The excerpt of any output is a few short lines.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let stderr = &*String::from_utf8_lossy(data);
    let shown = excerpt(stderr);
    assert!(
        shown.lines().count() <= output::LINES && shown.lines().all(|line| line.chars().count() <= output::WIDTH + 10),
        "{shown:?}"
    );
    // No index and no time: the explanation sends no request.
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

    fn explain(stderr: &str) -> Error {
        let settings = &Settings::from_env([]);
        let deadline = Deadline::after(Duration::from_secs(5));
        let (engine, python, platform) = ("pip 24.2", "3.13.1", "cp313 manylinux x86_64");
        let failed =
            Failed { engine, status: "1".into(), stderr, python, platform, elsewhere: false, settings, deadline };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(failed.explain())
    }

    /// Outputs of pip 23.0.1, 22.3.1 and 23.1, with which a build installs its requirements.
    #[test]
    fn an_old_pip_that_cannot_use_the_pages_metadata_is_named() {
        let spelling = |found: &str| {
            format!(
                "Discarding http://h/flask-1.0-py3-none-any.whl (from http://h/simple/flask/): Requested flask-x from \
                 http://h/flask-1.0-py3-none-any.whl has inconsistent Name: expected 'flask-x', but metadata has \
                 '{found}'\nERROR: Could not find a version that satisfies the requirement flask-x (from versions: 1.0)\n\
                 ERROR: No matching distribution found for flask-x"
            )
        };
        let (hash, attribute) = ("line 76, in split_hash_name_and_value\n", "line 77, in parse_pep658_hash\n");
        for (stderr, what) in [
            (&*spelling("Flask_X"), "cannot use the index's metadata of flask-x"),
            (&*spelling("other"), "cannot find flask-x"),
            (hash, "cannot read a page of the package index"),
            (attribute, "cannot read a page of the package index"),
        ] {
            let (told, is_old) = (explain(stderr).to_string(), !what.contains("find"));
            assert!(
                is_old == told.contains("pip 24.2 cannot")
                    && is_old == told.contains("hint: use an image with pip 23.2"),
                "{told}"
            );
            assert!(told.contains(what), "{told}");
        }
    }

    /// Outputs of engines, by whether the failure of an index is temporary.
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
