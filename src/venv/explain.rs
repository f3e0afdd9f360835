//! Turns an engine's last words into what the owner of the Pod can change.
//!
//! Both engines are read by the phrases that they print for the same trouble. Where the phrase hides
//! the cause (an index that answers 401 or 503 is "no matching distribution" to pip) the index is
//! asked itself.

use std::io;
use std::path::Path;

use tokio::time::timeout_at;

use super::interpreter::executable;
use super::settings::Settings;
use crate::error::{Error, said_of_volume, volume_error};
use crate::plan::RESERVED;
use crate::retry::Deadline;

/// How many of the engine's lines an error shows, and how much of each.
const LINES: usize = 12;
const WIDTH: usize = 220;

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
            None => Error::environment(format!("{} failed ({})", self.engine, self.status))
                .hint("the lines above are its own; --log-level debug shows all of them"),
        };
        error.excerpt(excerpt(self.stderr))
    }

    async fn trouble(&self) -> Option<Error> {
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| self.stderr.contains(phrase));
        if let Some(error) = full(&format!("{} could not write all files", self.engine), self.stderr) {
            return Some(error);
        }
        if says(&[
            "DO NOT MATCH THE HASHES",
            "Hash mismatch",
            "hashes are required",
            "all requirements must have their versions pinned",
        ]) {
            return Some(
                Error::environment("a download is not what the requirements' hashes allow").hint(
                    "regenerate the hashes for exactly these versions; if nobody changed them, distrust the index",
                ),
            );
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
        // The network comes before builds: a build's own requirements are fetched as well.
        if let Some(error) = self.network(&says) {
            return Some(error);
        }
        if says(&[
            "Failed building wheel",
            "Failed to build",
            "subprocess-exited-with-error",
            "metadata-generation-failed",
        ]) {
            return Some(self.build());
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
        says(&["ResolutionImpossible", "conflicting dependencies", "are unsatisfiable"]).then(|| {
            Error::environment("the requirements contradict each other")
                .hint("loosen or drop one of the versions that the lines above name")
        })
    }

    fn network(&self, says: &impl Fn(&[&str]) -> bool) -> Option<Error> {
        let reached = says(&[
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
            "unexpected EOF",
            "unexpected end of file",
            "end of file before message length",
            "server error (5",
            "(429 Too Many Requests)",
            "429 Client Error",
            "Server Error",
            "Remote end closed connection",
            "error decoding response body",
        ]);
        let certificate = says(&["CERTIFICATE_VERIFY_FAILED", "invalid peer certificate", "UnknownIssuer"]);
        if !reached && !certificate {
            return None;
        }
        let place = self.url().map_or_else(|| "the package index".to_owned(), str::to_owned);
        if certificate {
            return Some(
                Error::environment(format!("the certificate of {place} is not trusted"))
                    .hint("mount the CA and name it in SSL_CERT_FILE (and PIP_CERT for pip)"),
            );
        }
        Some(
            Error::environment(format!("cannot download from {place}"))
                .hint("check that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL")
                .transient(None),
        )
    }

    fn build(&self) -> Error {
        let name = self
            .between("Failed building wheel for ", "\n")
            .or_else(|| self.between("Failed to build `", "`"))
            .or_else(|| self.between("Building wheel for ", " "))
            .and_then(|name| name.split(" @ ").next())
            .unwrap_or("a requirement")
            .trim();
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
            .hint("pin a version with a wheel, use another image, or supply a wheelhouse (PIP_FIND_LINKS)");
        }
        Error::environment(format!("{name} has no wheel for {} and could not be built", self.platform))
            .hint("pin a version with a wheel, or use an image with what its build asks for")
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
        let requirement = self
            .between("No matching distribution found for ", "\n")
            .or_else(|| self.between("there is no version of ", " and"))
            .or_else(|| self.between("Because ", " was not found"))
            .unwrap_or("a requirement")
            .split(" (from")
            .next()
            .unwrap_or_default()
            .trim();
        let name: String =
            requirement.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
        let normal = name.to_lowercase().replace(['_', '.'], "-");
        for index in self.settings.indexes() {
            if let Some(error) = self.ask_index(index, &normal).await {
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

    /// What an index's refusal means; None if it answers as it should, or says 404.
    async fn ask_index(&self, index: &str, name: &str) -> Option<Error> {
        let mut page = url::Url::parse(index).ok()?;
        page.path_segments_mut().ok()?.pop_if_empty().push(name).push("");
        let mut request = crate::http::client().ok()?.get(page.clone());
        if let Some(login) = page.host_str().and_then(|host| self.settings.login(host)) {
            request = request.basic_auth(&login.username, Some(login.password.reveal()));
        }
        let response = match timeout_at(self.deadline.instant(), request.send()).await {
            Ok(Ok(response)) => response,
            // No time is left to find out more.
            Err(_) => return None,
            Ok(Err(error)) => {
                return Some(
                    Error::environment(format!("cannot reach the package index {index}"))
                        .because(error.without_url())
                        .hint("check the URL, and that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY)")
                        .transient(None),
                );
            }
        };
        let status = response.status();
        let refused = Error::environment(format!("the package index {index} answers {status}"));
        match status.as_u16() {
            401 => Some(refused.hint(
                "put user and password into the index URL (PIP_INDEX_URL, from a Secret), or mount a netrc file (NETRC)",
            )),
            403 => Some(refused.hint("these credentials may not read it: check them, and the index's permissions")),
            429 => {
                let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                Some(refused.transient(after.map(std::time::Duration::from_secs)))
            }
            500..=599 => Some(refused.hint("the index has trouble of its own").transient(None)),
            _ => None,
        }
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
        named.map(|text| &text[..end(text)]).or_else(|| self.settings.indexes().first().copied())
    }
}

/// The error of a child that could not write to the volume. What it may not write or read elsewhere
/// has other causes.
pub(super) fn full(what: &str, stderr: &str) -> Option<Error> {
    let system = said_of_volume(stderr)?;
    let full = matches!(system.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    (full || stderr.contains(&format!("{RESERVED}/staging/"))).then(|| volume_error(what.to_owned(), &system))
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
    fn excerpts_are_short_and_say_what_matters() {
        let long = format!("ERROR: {} end", "1.0, ".repeat(200));
        let text = excerpt(&format!("Using Python 3\n\nfirst\n{long}\n{}", "x\n".repeat(20)));
        assert_eq!(text.lines().count(), LINES);
        let text = excerpt(&long);
        assert!(text.len() < 240 && text.starts_with("ERROR: 1.0") && text.ends_with(" end"), "{text}");
    }
}
