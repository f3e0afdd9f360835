//! Unit's log: where it goes, and what was written to it since a moment.
//!
//! unitd opens its log and makes it the standard error of all its processes (`nxt_file_stderr`), so
//! `/proc/<pid>/fd/2` leads to it, whatever its path. In the images that is the container's own
//! output, a pipe, which only `kubectl logs` can read.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::channel::Peer;

/// How much of what was written since is read, and how many lines of it are shown.
const READ: u64 = 256 << 10;
const LINES: usize = 20;

/// The log of one Unit, at a moment.
#[derive(Debug)]
pub(super) enum Log {
    /// A file, and how long it was.
    File { open: PathBuf, shown: PathBuf, from: u64 },
    /// It cannot be read; holds what it is.
    Pipe(&'static str),
    /// Nothing is known: Unit is in another PID namespace, or may not be looked at.
    Unknown,
}

impl Log {
    /// The log of the Unit at the other end of a socket.
    pub(super) fn of(proc: &Path, peer: Option<Peer>) -> Self {
        let Some(pid) = peer.and_then(|peer| peer.pid).filter(|pid| *pid > 0) else { return Self::Unknown };
        let open = proc.join(pid.to_string()).join("fd/2");
        let (Ok(meta), Ok(shown)) = (open.metadata(), open.read_link()) else { return Self::Unknown };
        let kind = meta.file_type();
        if kind.is_file() {
            return Self::File { open, shown, from: meta.len() };
        }
        Self::Pipe(if kind.is_fifo() {
            "a pipe"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a terminal or device"
        })
    }

    /// The last lines written since, without the mere information: Unit's `[info]` and `[notice]`.
    pub(super) fn since(&self) -> Option<String> {
        let Self::File { open, from, .. } = self else { return None };
        let mut file = File::open(open).ok()?;
        let end = file.metadata().ok()?.len();
        // A log that was rotated by truncation is all new.
        let from = if end < *from { 0 } else { (*from).max(end.saturating_sub(READ)) };
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(READ).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let told: Vec<_> = text.lines().filter(|line| !line.contains("[info]") && !line.contains("[notice]")).collect();
        let last = &told[told.len().saturating_sub(LINES)..];
        (!last.is_empty()).then(|| last.join("\n"))
    }

    /// Where to read it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::File { shown, .. } => format!("Unit's log is {}", shown.display()),
            Self::Pipe(what) => {
                format!("Unit's log goes to {what} that podstrap cannot read: `kubectl logs POD -c CONTAINER` shows it")
            }
            Self::Unknown => {
                "Unit gives no reason here, its log does: `kubectl logs POD -c CONTAINER` (with `up`, above), or \
                 /var/log/unit.log (/var/log/freeunit.log) in the container"
                    .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_written_since_is_read() {
        let proc = tempfile::tempdir().unwrap();
        let log = proc.path().join("unit.log");
        std::fs::write(&log, "old\n").unwrap();
        std::fs::create_dir_all(proc.path().join("7/fd")).unwrap();
        symlink(&log, proc.path().join("7/fd/2")).unwrap();
        let peer = |pid| Some(Peer { pid: Some(pid), uid: 0 });
        let found = Log::of(proc.path(), peer(7));
        assert_eq!(found.since(), None);
        std::fs::write(&log, "old\n[info] a\nTraceback\nImportError\n[alert] b\n").unwrap();
        assert_eq!(found.since().unwrap(), "Traceback\nImportError\n[alert] b");
        std::fs::write(&log, "n\n").unwrap();
        assert_eq!(found.since().unwrap(), "n");
        assert!(found.hint().ends_with("unit.log"));
        for nobody in [Log::of(proc.path(), peer(0)), Log::of(proc.path(), peer(9)), Log::of(proc.path(), None)] {
            assert!(matches!(nobody, Log::Unknown), "{nobody:?}");
        }
        symlink("/dev/null", proc.path().join("7/fd/3")).unwrap();
        std::fs::rename(proc.path().join("7/fd/3"), proc.path().join("7/fd/2")).unwrap();
        assert!(matches!(Log::of(proc.path(), peer(7)), Log::Pipe(_)));
    }
}
