//! The one error type: what failed, its causes, an excerpt that shows it, and a hint.
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
//! Errors contain text from servers, packages and child processes. `Display` therefore strips control
//! sequences and hides URL credentials: no printed error contains either.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::redact;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The part that failed. Its exit code is a contract with scripts; docs/cli.md lists the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A defect of podstrap, or a failure of no other kind.
    Internal,
    /// An invalid flag, variable or file of the user. clap uses the same code.
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
    /// Unit has the configuration, but the probed listener failed.
    Probe,
    /// SIGINT or SIGTERM arrived. Holds the signal number.
    Interrupted(i32),
}

impl Kind {
    /// The exit code of the process.
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
            // As a shell reports a process that a signal ended: 130, 143.
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

/// Refuses a URL whose login is not escaped: podstrap would look up a part of a password as a host. Shows only its
/// scheme. `name` is the flag, the variable or the line.
pub(crate) fn refuse_bare_login(kind: Kind, name: &str, url: &str) -> Result<()> {
    let Some(scheme) = redact::bare_login(url) else { return Ok(()) };
    Err(Error::new(kind, format!("{name} {scheme}://*** has an @ behind its host"))
        .because("it seems to contain a login whose special characters are not escaped")
        .hint("write special characters as %XX (%40 for @, %2F for /, %3F for ?, %23 for #, %3A for :)"))
}

/// Refuses an invalid URL. An engine would report it with its login. `name` is the flag, the variable or the line.
pub(crate) fn check_url(kind: Kind, name: &str, url: &str) -> Result<()> {
    let Some(Err(error)) = redact::url_in(url).map(str::parse::<redact::RemoteUrl>) else { return Ok(()) };
    Err(Error::new(kind, format!("{name} {} is not a valid URL", redact::shown(url)))
        .because(error)
        .hint("write https://HOST:PORT/PATH, and special characters of a login as %XX (%22 for \")"))
}

/// Marks a failure that a retry may fix, and when to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transient {
    /// The server's Retry-After, if it sent one.
    pub after: Option<Duration>,
}

/// A failure as the user reads it. Build it with the constructor of its kind:
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

    /// Appends an error and its causes, outermost first. Skips a cause whose text the previous one
    /// contains.
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

    /// Adds lines that show the failure: a configuration line with its caret, the end of a log.
    #[must_use]
    pub fn excerpt(mut self, text: impl Into<String>) -> Self {
        self.0.excerpt = Some(text.into());
        self
    }

    /// Adds a fix that the owner of the Pod can make.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Prefixes the part of the work that failed: `submodule libs/x: cannot …`.
    #[must_use]
    pub fn within(mut self, part: &str) -> Self {
        self.0.what = format!("{part}: {}", self.0.what);
        self
    }

    /// Shows another path in place of one that the user does not know.
    #[must_use]
    pub fn renamed(mut self, from: &Path, to: &Path) -> Self {
        let (from, to) = (from.display().to_string(), to.display().to_string());
        let parts = &mut *self.0;
        let texts = parts.causes.iter_mut().chain(&mut parts.hints).chain(&mut parts.excerpt);
        for text in texts.chain([&mut parts.what]) {
            *text = text.replace(&from, &to);
        }
        self
    }

    /// Marks the failure as temporary: a retry may succeed.
    #[must_use]
    pub fn transient(mut self, after: Option<Duration>) -> Self {
        self.0.transient = Some(Transient { after });
        self
    }

    /// Marks the failure as one of a remote: it was unreachable, or had an internal error. The published
    /// release is still valid.
    #[must_use]
    pub fn unreachable(mut self) -> Self {
        self.0.unreachable = true;
        self
    }

    /// Marks the failure as permanent: podstrap does not retry it.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.transient = None;
        self
    }

    /// The same failure of another part.
    #[must_use]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    pub fn retry(&self) -> Option<Transient> {
        self.0.transient
    }
    /// Whether the failure is [`transient`](Self::transient) or [`unreachable`](Self::unreachable): the
    /// remote may recover.
    pub fn is_unreachable(&self) -> bool {
        self.0.unreachable || self.0.transient.is_some()
    }

    /// The whole text without the leading `error: `, for a failure that does not end the command.
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
    /// One line for the log: what failed and the innermost cause.
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
        // File names may contain line feeds. Indent the rest, so that it cannot pose as a cause or a hint.
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

/// Adds the operation and its path to a failed system call.
pub trait IoContext<T> {
    /// Turns an I/O error on the shared volume into an [`Error`]. Adds a hint for a full or read-only file
    /// system and for missing permissions.
    fn on_volume(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn on_volume(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| volume_error(what(), &error))
    }
}

/// The hint for a process that cannot open more files.
pub const OPEN_FILES: &str = "raise the container's limit of open files (ulimit -n)";

/// The error of a failed operation on the volume, with the hint for its errno.
pub fn volume_error(what: String, error: &std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let hint = match error.kind() {
        K::StorageFull => Some(
            "raise the emptyDir's sizeLimit or the claim's size: the volume has no free space or inodes (df -h, df -i)",
        ),
        K::QuotaExceeded => Some("raise the quota of the volume, or free space on it"),
        K::ReadOnlyFilesystem => Some("mount a writable volume there: an emptyDir or a claim, without readOnly"),
        K::PermissionDenied => Some(
            "set securityContext.fsGroup, or a runAsUser that owns the volume: the container's user cannot write there",
        ),
        _ if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => Some(OPEN_FILES),
        _ => None,
    };
    let made = Error::volume(what).because(std::io::Error::new(error.kind(), error.to_string()));
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// Phrases of libgit2 and child processes for errors of the volume. Source: strerror(3) of glibc and musl.
const SAYINGS: &[(&str, Errno)] = &[
    ("No space left on device", Errno::NOSPC),
    ("Disk quota exceeded", Errno::DQUOT),
    ("Quota exceeded", Errno::DQUOT),
    ("Read-only file system", Errno::ROFS),
    ("Permission denied", Errno::ACCESS),
];

/// The system error that a text of libgit2 or a child process reports.
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
