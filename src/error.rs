//! The one error type: what failed, the block that shows it, why, and what to change.
//!
//! Every failure that reaches a user is an [`Error`]. Its [`Kind`] decides the exit code, and its
//! `Display` is the text for stderr and for the termination message:
//!
//! ```text
//! error: cannot fetch "main" of https://git.example/app.git
//!   because: the server answered 403 Forbidden: "access denied"
//! hint: …
//! ```
//!
//! Text from servers, packages and child processes ends up in errors, so `Display` is the place
//! where control sequences are stripped and URL credentials are hidden: nothing printed through
//! this type can carry either.

use std::fmt;
use std::time::Duration;

use rustix::io::Errno;

use crate::redact;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a failure is about. The numbers are a contract with scripts: README.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A defect of podstrap itself, or a failure that fits nowhere else.
    Internal,
    /// A flag, variable or file named by the user cannot be used. (2 is also clap's code.)
    Usage,
    /// The repository, the reference or the checkout.
    Source,
    /// The interpreter, the virtual environment or the installation.
    Environment,
    /// The shared volume: missing, read-only, full, occupied, locked.
    Volume,
    /// Unit's control socket never gave a usable answer.
    UnitUnreachable,
    /// Unit answered and refused the configuration, or failed to apply it.
    UnitRefused,
    /// The configuration is applied, but the probed listener did not answer well.
    Probe,
    /// SIGINT or SIGTERM arrived; holds the signal's number.
    Interrupted(i32),
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Source => 3,
            Self::Environment => 4,
            Self::Volume => 5,
            Self::UnitUnreachable => 6,
            Self::UnitRefused => 7,
            Self::Probe => 8,
            // What a shell reports for a process that the signal ended: 130, 143.
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

/// Whether trying the same thing again can help, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transient {
    /// What the server asked for (Retry-After), if it did.
    pub after: Option<Duration>,
}

/// A failure as its user will read it. Build it from the constructor of its kind:
/// `Error::source("cannot …").because(cause).hint("…")`.
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    what: String,
    excerpt: Option<String>,
    causes: Vec<String>,
    hints: Vec<String>,
    transient: Option<Transient>,
    unreachable: bool,
}

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            what: what.into(),
            excerpt: None,
            causes: Vec::new(),
            hints: Vec::new(),
            transient: None,
            unreachable: false,
        }))
    }

    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what)
    }
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }
    pub fn source(what: impl Into<String>) -> Self {
        Self::new(Kind::Source, what)
    }
    pub fn environment(what: impl Into<String>) -> Self {
        Self::new(Kind::Environment, what)
    }
    pub fn volume(what: impl Into<String>) -> Self {
        Self::new(Kind::Volume, what)
    }

    /// Appends an error and everything that caused it, outermost first. A link whose text the one
    /// before already holds is left out.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error>>) -> Self {
        let cause = cause.into();
        let mut link: Option<&dyn std::error::Error> = Some(cause.as_ref());
        while let Some(error) = link {
            let text = error.to_string();
            if !self.0.causes.last().is_some_and(|last| last.contains(&text)) {
                self.0.causes.push(text);
            }
            link = error.source();
        }
        self
    }

    /// Several lines that show the failure: a config line with its caret, the end of a log.
    #[must_use]
    pub fn excerpt(mut self, text: impl Into<String>) -> Self {
        self.0.excerpt = Some(text.into());
        self
    }

    /// What the owner of the Pod can change.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Names the part of the work that failed: `submodule libs/x: cannot …`.
    #[must_use]
    pub fn within(mut self, part: &str) -> Self {
        self.0.what = format!("{part}: {}", self.0.what);
        self
    }

    /// Marks the failure as one that may pass by itself.
    #[must_use]
    pub fn transient(mut self, after: Option<Duration>) -> Self {
        self.0.transient = Some(Transient { after });
        self
    }

    /// Marks the failure as one of a remote that could not be reached, or had trouble of its own: it
    /// says nothing against what is on the volume.
    #[must_use]
    pub fn unreachable(mut self) -> Self {
        self.0.unreachable = true;
        self
    }

    /// Marks the failure as final: no further try.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.transient = None;
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    pub fn retry(&self) -> Option<Transient> {
        self.0.transient
    }
    /// Whether a remote was at fault that may come back: what [`transient`](Self::transient) and
    /// [`unreachable`](Self::unreachable) say.
    pub fn is_unreachable(&self) -> bool {
        self.0.unreachable || self.0.transient.is_some()
    }

    /// All of it but the leading `error: `, for a failure that is not the end.
    pub fn told(&self) -> String {
        self.to_string().trim_start_matches("error: ").to_owned()
    }

    pub fn what(&self) -> &str {
        &self.0.what
    }
    /// The innermost cause, in one line.
    pub(crate) fn cause(&self) -> Option<String> {
        self.0.causes.last().map(|cause| redact::clean(cause).replace('\n', " "))
    }
    /// One line for a retry's log: what failed and its innermost cause.
    pub fn summary(&self) -> String {
        let text = match self.0.causes.last() {
            Some(cause) => format!("{}: {cause}", self.0.what),
            None => self.0.what.clone(),
        };
        redact::clean(&text).replace('\n', " ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0;
        // A line of its own could pose as one of ours: file names may hold line feeds.
        let mut text = format!("error: {}", parts.what.replace('\n', "\n    "));
        for cause in &parts.causes {
            text.push_str("\n  because: ");
            text.push_str(&cause.trim_end().replace('\n', "\n    "));
        }
        if let Some(excerpt) = &parts.excerpt {
            for line in excerpt.trim_end().lines() {
                text.push_str("\n  | ");
                text.push_str(line);
            }
        }
        for hint in &parts.hints {
            text.push_str("\nhint: ");
            text.push_str(&hint.replace('\n', "\n    "));
        }
        f.write_str(&redact::clean(&text))
    }
}

impl std::error::Error for Error {}

/// Adds what was being done, and to what, to a failed system call.
pub trait IoContext<T> {
    /// Turns an I/O error on the shared volume into an [`Error`]; a full or read-only file system
    /// and missing rights bring their own hints.
    fn on_volume(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn on_volume(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| volume_error(what(), &error))
    }
}

/// A failed write below the root, with the hint that fits its errno.
pub fn volume_error(what: String, error: &std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let hint = match error.kind() {
        K::StorageFull => Some(
            "the volume is full, of bytes or of files (df -h, df -i): raise the emptyDir's sizeLimit or the claim's size",
        ),
        K::QuotaExceeded => Some("the volume's quota is used up: raise it, or free space"),
        K::ReadOnlyFilesystem => {
            Some("that must be on a writable volume: mount an emptyDir or a claim there, without readOnly")
        }
        K::PermissionDenied => Some(
            "the container's user may not write there: set securityContext.fsGroup, or a runAsUser that owns the volume",
        ),
        _ if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            Some("raise the container's limit of open files (ulimit -n)")
        }
        _ => None,
    };
    let made = Error::volume(what).because(std::io::Error::new(error.kind(), error.to_string()));
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// What libgit2 and children say when the volume is at fault (strerror(3) of glibc and of musl).
const SAYINGS: &[(&str, Errno)] = &[
    ("No space left on device", Errno::NOSPC),
    ("Disk quota exceeded", Errno::DQUOT),
    ("Quota exceeded", Errno::DQUOT),
    ("Read-only file system", Errno::ROFS),
    ("Permission denied", Errno::ACCESS),
];

/// The system's error that such words tell of.
pub fn said_of_volume(words: &str) -> Option<std::io::Error> {
    SAYINGS.iter().find(|(saying, _)| words.contains(saying)).map(|(_, errno)| (*errno).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_what_why_shown_hint() {
        let error = Error::source("cannot fetch x")
            .because(std::io::Error::other("403"))
            .excerpt("line one\nline two\n")
            .hint("look there");
        assert_eq!(
            error.to_string(),
            "error: cannot fetch x\n  because: 403\n  | line one\n  | line two\nhint: look there"
        );
    }

    #[test]
    fn a_file_name_cannot_pose_as_a_line_of_ours() {
        let error = Error::volume("a\nhint: run this is in the way").hint("there is b\nhint: or that");
        assert_eq!(error.to_string().matches("\nhint: ").count(), 1);
    }

    #[test]
    fn foreign_text_cannot_carry_escapes_or_credentials() {
        let error = Error::source("cannot fetch https://u:p4ss@host/x").because("\u{1b}[31mred\u{7}\r\nnext");
        let text = error.to_string();
        assert!(!text.contains("p4ss") && !text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
    }

    #[test]
    fn signals_exit_as_a_shell_would_say() {
        assert_eq!(Kind::Interrupted(2).exit_code(), 130);
        assert_eq!(Kind::Interrupted(15).exit_code(), 143);
    }
}
