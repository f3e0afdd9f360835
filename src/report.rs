//! The final report: an error or a summary, on stderr and in the termination message, which
//! `kubectl describe pod` shows.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::Error;
use crate::files;
use crate::init::{How, Outcome};
use crate::redact;
use crate::size::{Size, count};
use crate::telemetry::{self, LogFormat};
use crate::venv::EnvironmentRecord;

/// Limit of a termination message, in bytes; Kubernetes cuts off the rest.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
const TERMINATION_LIMIT: usize = 4096;

/// Prints a failure and writes it to the termination message.
pub fn failure(error: &Error, format: LogFormat, termination_log: Option<&Path>) {
    let text = error.to_string();
    match format {
        LogFormat::Text => {
            telemetry::write(&format!("podstrap: {text}\n"));
        }
        LogFormat::Json => {
            tracing::error!(exit_code = error.kind().exit_code(), "{}", error.told());
        }
    }
    if let Some(path) = termination_log {
        terminate(&format!("podstrap: {text}"), path);
    }
}

/// Logs the summary of `init --store-only`.
pub fn stored(record: &EnvironmentRecord, took: std::time::Duration, termination_log: &Path) {
    let text = format!("{}\nin the store after {:.3} s, nothing published", environment(record), took.as_secs_f64());
    let text = redact::clean(&text);
    for line in text.lines() {
        tracing::info!("{line}");
    }
    terminate(&text, termination_log);
}

fn environment(record: &EnvironmentRecord) -> String {
    let packages: Vec<_> =
        record.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    format!(
        "environment: {} for {}, Python {}, {}{}: {}",
        record.venv.display(),
        record.final_path.display(),
        record.python,
        record.engine,
        record.store.as_ref().map(|store| format!(", from the store ({store})")).unwrap_or_default(),
        if packages.is_empty() { "no packages".to_owned() } else { packages.join(", ") },
    )
}

/// Writes clap's error to the termination message. clap itself prints it to stderr.
pub fn usage(error: &clap::Error, termination_log: &Path) {
    if error.use_stderr() {
        terminate(&redact::clean(&error.to_string()), termination_log);
    }
}

/// Logs the summary of `init` and writes it to the termination message, so that `kubectl describe` shows
/// the commit of a finished init container.
pub fn built(outcome: &Outcome, took: std::time::Duration, termination_log: &Path) {
    let text = summary(outcome, took);
    for line in text.lines() {
        if matches!(outcome.how, How::Stale(_)) { tracing::warn!("{line}") } else { tracing::info!("{line}") }
    }
    terminate(&text, termination_log);
}

fn summary(outcome: &Outcome, took: std::time::Duration) -> String {
    let manifest = &outcome.release.manifest;
    let revision = &manifest.source.revision;
    let (stale, how) = match &outcome.how {
        How::Built(_) => (String::new(), "built"),
        How::Unchanged => (String::new(), "unchanged:"),
        How::Stale(error) => (format!("NOT UP TO DATE, as --stale-ok allows: {}\n", error.told()), "kept"),
    };
    let mut text = format!(
        "{stale}{how} {} of {}",
        revision
            .reference
            .as_deref()
            .map_or_else(|| revision.commit.clone(), |reference| format!("{} ({reference})", revision.commit)),
        manifest.source.repo,
    );
    if let Some(signer) = &manifest.source.signer {
        let _ = write!(text, ", signed by {}", signer.principals);
    }
    if let Some(record) = &manifest.environment {
        let _ = write!(text, "\n{}", environment(record));
    }
    let _ = write!(text, "\npublished at {} in {:.3} s", outcome.path.display(), took.as_secs_f64());
    let phases: Vec<_> =
        outcome.phases.iter().map(|phase| format!("{} {:.3}", phase.phase, phase.took.as_secs_f64())).collect();
    if !phases.is_empty() {
        let _ = write!(text, " ({})", phases.join(", "));
    }
    let _ = write!(text, "; {} of {}", count(manifest.source.files, "file"), Size(manifest.source.bytes));
    if let How::Built(usage) = &outcome.how {
        let _ = write!(text, "; {} on the volume, {} at its peak", usage.now, usage.peak);
    }
    redact::clean(&text)
}

/// The termination message so far: what a sidecar in this container cannot do.
pub fn last_words(termination_log: &Path) -> Option<String> {
    let text = files::read_text(termination_log, TERMINATION_LIMIT as u64).ok()?;
    (!text.trim().is_empty()).then_some(text)
}

/// The termination message of a sidecar: what it cannot do now, in two parts.
#[derive(Debug)]
pub struct LastWords {
    parts: RefCell<[String; 2]>,
    path: PathBuf,
}

impl LastWords {
    pub fn new(path: &Path) -> Rc<Self> {
        Rc::new(Self { parts: RefCell::default(), path: path.to_owned() })
    }

    /// Replaces a part; an empty one is no obstacle.
    pub fn say(&self, part: usize, text: &str) {
        let mut parts = self.parts.borrow_mut();
        if parts[part] != text {
            text.clone_into(&mut parts[part]);
            let all: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
            terminate(&all.join("\n"), &self.path);
        }
    }
}

/// Writes the termination message if its file exists. Only the kubelet creates the file.
pub fn terminate(text: &str, path: &Path) {
    match files::overwrite(path, limited(text).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!("cannot write {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Shortens a text that is too long to its beginning (what failed) and its end (the hint).
fn limited(text: &str) -> String {
    const MARK: &str = "\n…\n";
    if text.len() <= TERMINATION_LIMIT {
        return text.to_owned();
    }
    let half = (TERMINATION_LIMIT - MARK.len()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}{MARK}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_ends_within_the_limit() {
        let text = format!("error: it\n{}\nhint: end", "ä".repeat(5000));
        let short = limited(&text);
        assert!(short.len() <= TERMINATION_LIMIT, "{}", short.len());
        assert!(short.starts_with("error: it") && short.ends_with("hint: end"));
        assert_eq!(limited("short"), "short");
    }
}
