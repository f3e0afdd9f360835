//! Opens files that others made. podstrap has no other way to open them.
//!
//! A repository, a package or a neighbour on the volume decides what lies at a path: perhaps a named pipe without a
//! writer, or a link to `/dev/zero`. So podstrap opens without waiting, looks at the open file, accepts only regular
//! files, and reads no more than a limit that its caller gives.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::size::Size;

/// Limit of one file that people write: a configuration, a requirements file, a script.
pub const WRITTEN: u64 = 16 << 20;

/// Limit of one file that programs write: a list of files, a lock file, RECORD.
pub const GENERATED: u64 = 256 << 20;

/// Opens a regular file for reading. Follows links.
///
/// # Errors
/// It is not a regular file, or the system cannot open it.
pub fn open(path: &Path) -> io::Result<File> {
    // A named pipe without a writer would block, and a device may do anything when it is opened.
    let flags = i32::from_ne_bytes((OFlags::NONBLOCK | OFlags::NOCTTY).bits().to_ne_bytes());
    regular(File::options().read(true).custom_flags(flags).open(path)?)
}

/// Reads a whole regular file. Follows links.
///
/// # Errors
/// As for [`open`], or the file is larger than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    limited(open(path)?, limit)
}

/// Reads an open file of at most `limit` bytes.
pub(crate) fn limited(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {}", Size(limit))));
    }
    Ok(bytes)
}

/// Reads a whole regular file as text.
///
/// # Errors
/// As for [`read`], or the file is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Passes a regular file on.
///
/// # Errors
/// It is something else.
pub(crate) fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let (error, what) = match kind {
        kind if kind.is_dir() => (io::ErrorKind::IsADirectory, "it is a directory"),
        kind if kind.is_fifo() => (io::ErrorKind::InvalidInput, "it is a named pipe"),
        kind if kind.is_socket() => (io::ErrorKind::InvalidInput, "it is a socket"),
        _ => (io::ErrorKind::InvalidInput, "it is a device"),
    };
    Err(io::Error::new(error, what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mkfifoat(CWD, path("pipe"), Mode::from(0o600)).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        symlink("/dev/tty", path("tty")).unwrap();
        std::fs::write(path("text"), "abc").unwrap();
        symlink("text", path("link")).unwrap();
        let said = |name: &str| read(&path(name), 9).unwrap_err().to_string();
        assert_eq!(said("pipe"), "it is a named pipe");
        assert_eq!(said("zero"), "it is a device");
        assert_eq!(said("."), "it is a directory");
        assert_eq!(read(&path("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open(&path("tty")).is_err());
        assert_eq!(read(&path("link"), 3).unwrap(), b"abc");
        assert_eq!(read(&path("link"), 2).unwrap_err().to_string(), "it is larger than 2 B");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert!(open(&path("socket")).is_err());
    }

    #[test]
    fn text_must_be_utf_8() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), b"\xff").unwrap();
        assert_eq!(read_text(&dir.path().join("x"), 9).unwrap_err().to_string(), "it is not UTF-8 text");
    }
}
