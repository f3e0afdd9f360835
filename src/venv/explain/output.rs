//! The output of a child process: an excerpt of it, and the limits that the child reached.

use std::io;

use super::phrases;
use crate::error::{Error, OPEN_FILES, said_of_volume, volume_error};
use crate::plan::RESERVED;

/// The number of lines that an error shows, and the length of each in characters.
pub(super) const LINES: usize = 12;
pub(super) const WIDTH: usize = 220;

/// The error of a child that could not write to the volume: no space, or a refusal in the staging directory.
/// A refusal on another path has other causes.
pub(in crate::venv) fn full(what: &str, stderr: &str) -> Option<Error> {
    let system = said_of_volume(stderr)?;
    let full = matches!(system.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    (full || stderr.contains(&format!("{RESERVED}/staging/"))).then(|| volume_error(what.to_owned(), &system))
}

/// The hint for a limit of the container that a child reached. podstrap did not kill it, so the kernel did.
pub(in crate::venv) fn limit(status: &str, stderr: &str) -> Option<&'static str> {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| status.contains(phrase) || stderr.contains(phrase));
    if says(phrases::OUT_OF_MEMORY) {
        Some("raise the init container's resources.limits.memory: the process probably ran out of memory")
    } else if says(phrases::OUT_OF_PROCESSES) {
        Some("raise the container's limit of processes and threads (podPidsLimit, ulimit -u)")
    } else if says(phrases::OUT_OF_FILES) {
        Some(OPEN_FILES)
    } else {
        None
    }
}

/// The last lines that help to explain a failure.
pub(in crate::venv) fn excerpt(stderr: &str) -> String {
    let lines: Vec<String> = stderr
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !phrases::NOISE.iter().any(|noise| line.trim_start().starts_with(noise)))
        .map(shorten)
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Removes the middle of a long line: pip lists a hundred versions between the important parts.
pub(super) fn shorten(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let head: String = line.chars().take(WIDTH / 2).collect();
    let mut tail: Vec<char> = line.chars().rev().take(WIDTH / 2).collect();
    tail.reverse();
    format!("{head} … {}", tail.into_iter().collect::<String>())
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
        assert!(hint("exit status: 1", "RuntimeError: can't start new thread").contains("podPidsLimit"));
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
}
