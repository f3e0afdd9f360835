//! Unit's log: its location, and the lines since a given moment.
//!
//! unitd makes its log the standard error of all its processes (`nxt_file_stderr`), so
//! `/proc/<pid>/fd/2` leads to it, whatever its path. In the images, the log is the container's output,
//! a pipe that only `kubectl logs` can read.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::channel::Peer;
use crate::files;

/// Limits: bytes to read, and lines to show.
const READ: u64 = 256 << 10;
const LINES: usize = 20;

/// The log of one Unit at a given moment.
#[derive(Debug)]
pub(super) enum Log {
    /// A file, and its length in bytes.
    File { open: PathBuf, shown: PathBuf, from: u64 },
    /// An unreadable log. Holds its type.
    Pipe(&'static str),
    /// Unit is in another PID namespace, or podstrap may not inspect it.
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

    /// The last lines since then, without Unit's `[info]` and `[notice]`.
    pub(super) fn since(&self) -> Option<String> {
        let Self::File { open, from, .. } = self else { return None };
        let mut file = files::open(open).ok()?;
        let end = file.metadata().ok()?.len();
        // The log was truncated by a rotation: all of it is new.
        let from = if end < *from { 0 } else { (*from).max(end.saturating_sub(READ)) };
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(READ).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let told: Vec<_> = text.lines().filter(|line| !line.contains("[info]") && !line.contains("[notice]")).collect();
        let last = &told[told.len().saturating_sub(LINES)..];
        (!last.is_empty()).then(|| last.join("\n"))
    }

    /// A hint for reading the log.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::File { shown, .. } => format!("read Unit's log at {}", shown.display()),
            Self::Pipe(what) => {
                format!(
                    "read Unit's log with `kubectl logs POD -c CONTAINER`: it goes to {what} that podstrap cannot read"
                )
            }
            Self::Unknown => "read Unit's log for the reason: `kubectl logs POD -c CONTAINER` (with `up`, above), or \
                 /var/log/unit.log (/var/log/freeunit.log) in the container"
                .into(),
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
