//! Opens, reads, lists and inspects files that others made. podstrap has no other way to do so.
//!
//! A repository, a package or a neighbour on the volume decides what lies at a path: perhaps a named pipe without a
//! writer, or a link to `/dev/zero`. So podstrap opens without waiting, looks at the open file, accepts only regular
//! files, and reads no more than a limit that its caller gives.
//!
//! Not found is not the same as not readable: only `ENOENT` and `ENOTDIR` mean that nothing is at a path. Every other
//! error ends the run. A stale NFS handle is tried once more, because the path may lead to a new one.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
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
    regular(open_any(path)?)
}

/// Opens whatever is at a path for reading, without waiting for it.
fn open_any(path: &Path) -> io::Result<File> {
    // A named pipe without a writer would block, and a device may do anything when it is opened.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    anew(|| File::options().read(true).custom_flags(flags).open(path))
}

/// Opens a regular file to replace its contents. Follows links.
///
/// # Errors
/// As for [`open`]; or the file does not exist.
pub fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let mut file = regular(anew(|| File::options().write(true).custom_flags(flags).open(path))?)?;
    file.set_len(0)?;
    file.write_all(bytes)
}

/// Reads a whole regular file. Follows links.
///
/// # Errors
/// As for [`open`], or the file is larger than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    limited(open(path)?, limit)
}

/// Reads a whole regular file, if there is one.
///
/// # Errors
/// As for [`read`], except for a missing file.
pub fn read_if_there(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    unless_absent(read(path, limit))
}

/// Reads a whole regular file as text.
///
/// # Errors
/// As for [`read`], or the file is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Reads an open file to its end.
///
/// # Errors
/// The file is larger than `limit` bytes, or the system cannot read it.
pub(crate) fn limited(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {}", Size(limit))));
    }
    Ok(bytes)
}

/// Reads a file of the kernel in `/proc`, at most `WRITTEN` bytes. The kernel makes these files, and they are regular.
///
/// # Errors
/// As for [`read`].
pub fn read_proc(path: &Path) -> io::Result<Vec<u8>> {
    read(path, WRITTEN)
}

/// Writes a file that only its owner can read. Replaces an existing one.
///
/// # Errors
/// The system cannot write it.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    unless_absent(std::fs::remove_file(path))?;
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Passes a regular file on.
///
/// # Errors
/// It is something else.
pub(crate) fn regular(file: File) -> io::Result<File> {
    match not_regular(&file.metadata()?) {
        None => Ok(file),
        Some(what) if what == DIRECTORY => Err(io::Error::new(io::ErrorKind::IsADirectory, what)),
        Some(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, what)),
    }
}

const DIRECTORY: &str = "it is a directory";

pub(crate) fn kind_of(meta: &Metadata) -> FileType {
    FileType::from_raw_mode(meta.mode() as RawMode)
}

/// Says what something is instead of a regular file.
pub(crate) fn not_regular(meta: &Metadata) -> Option<&'static str> {
    described(kind_of(meta))
}

/// The same by its type.
pub(crate) fn described(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some(DIRECTORY),
        FileType::Fifo => Some("it is a named pipe"),
        FileType::Socket => Some("it is a socket"),
        FileType::Symlink => Some("it is a symbolic link"),
        _ => Some("it is a device"),
    }
}

/// The metadata of a path. `None`: nothing is there. Follows links.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn metadata(path: &Path) -> Result<Option<Metadata>> {
    look(path, || std::fs::metadata(path))
}

/// As [`entry`], with the error of the system.
pub(crate) fn look_at(path: &Path) -> io::Result<Option<Metadata>> {
    unless_absent(std::fs::symlink_metadata(path))
}

/// The metadata of an entry itself, which may be a link. `None`: nothing is there.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn entry(path: &Path) -> Result<Option<Metadata>> {
    look(path, || std::fs::symlink_metadata(path))
}

/// As [`metadata`]. Nothing is also at a path that podstrap's user must not search, as for a shell that looks for a
/// program on PATH, or for optional settings in another user's home.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn metadata_if_allowed(path: &Path) -> Result<Option<Metadata>> {
    look(path, || match anew(|| std::fs::metadata(path)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Errno::NOENT.into()),
        found => found,
    })
}

/// Whether anything is at a path. Follows links.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn exists(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some())
}

/// Whether a regular file is at a path. Follows links.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn is_file(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some_and(|meta| meta.is_file()))
}

/// Whether a directory is at a path. Follows links.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn is_dir(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some_and(|meta| meta.is_dir()))
}

/// The path without links. `None`: nothing is there.
///
/// # Errors
/// Volume: the system cannot tell.
pub fn real(path: &Path) -> Result<Option<PathBuf>> {
    look(path, || path.canonicalize())
}

/// The names in a directory, sorted; none if it does not exist.
///
/// # Errors
/// Volume: the system cannot list it.
pub fn names(dir: &Path) -> Result<Vec<OsString>> {
    let listed = unless_absent(list(dir)).map_err(|error| unknown(dir, &error))?;
    Ok(listed.unwrap_or_default().into_iter().map(|(name, _)| name).collect())
}

/// The entries of a directory with their types, sorted by name. Follows no link below it.
///
/// # Errors
/// The system cannot list it.
pub fn list(dir: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    Ok(list_open(dir)?.1)
}

/// The same, and a handle of the directory.
///
/// # Errors
/// As for [`list`].
pub(crate) fn list_open(dir: &Path) -> io::Result<(OwnedFd, Vec<(OsString, FileType)>)> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let (opened, handle) = anew(|| {
        let opened = rustix::fs::open(dir, flags, Mode::empty())?;
        let handle = opened.try_clone()?;
        Ok((opened, handle))
    })?;
    let mut entries = Vec::new();
    // std's reader panics if the directory cannot be closed.
    for entry in Dir::new(opened)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(&std::fs::symlink_metadata(dir.join(name))?),
            kind => kind,
        };
        entries.push((name.to_owned(), kind));
    }
    entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok((handle, entries))
}

/// The error of an input that cannot be read. It has the kind of the input if that is missing, forbidden or not a
/// file, and of the volume if the storage fails.
pub fn unreadable(kind: Kind, what: impl Into<String>, error: &io::Error) -> Error {
    Error::new(if is_of_file(error) { kind } else { Kind::Volume }, what).because(copy(error))
}

/// Whether an error is about the file at a path: it is missing, forbidden, or no file or program. Any other error is
/// about the system or the storage, and may pass.
pub(crate) fn is_of_file(error: &io::Error) -> bool {
    error.raw_os_error().is_none_or(|code| {
        [
            Errno::NOENT,
            Errno::NOTDIR,
            Errno::ACCESS,
            Errno::PERM,
            Errno::LOOP,
            Errno::NAMETOOLONG,
            Errno::ISDIR,
            Errno::NXIO,
            Errno::NOEXEC,
        ]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
    })
}

/// Passes a result on; `None` for the two errors that mean that nothing is there.
///
/// # Errors
/// Every other error.
pub fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn look<T>(path: &Path, found: impl Fn() -> io::Result<T>) -> Result<Option<T>> {
    unless_absent(anew(found)).map_err(|error| unknown(path, &error))
}

fn unknown(path: &Path, error: &io::Error) -> Error {
    Error::volume(format!("cannot inspect {}", path.display())).because(copy(error)).hint(match error.kind() {
        io::ErrorKind::PermissionDenied => "let podstrap's user search the directories of this path",
        _ => "check the storage behind this path: podstrap does not treat an unreadable file as a missing one",
    })
}

/// Calls again for a stale NFS handle.
fn anew<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match call() {
        Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => call(),
        result => result,
    }
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
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
        assert!(overwrite(&path("pipe"), b"x").is_err());
        overwrite(&path("link"), b"x").unwrap();
        assert_eq!(read(&path("text"), 9).unwrap(), b"x");
    }

    #[test]
    fn only_a_missing_path_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        symlink("loop", path("loop")).unwrap();
        assert!(is_file(&path("file")).unwrap() && is_dir(dir.path()).unwrap());
        assert!(!exists(&path("none")).unwrap() && !exists(&path("file/below")).unwrap());
        assert!(entry(&path("loop")).unwrap().is_some());
        for error in [exists(&path("loop")), exists(&path(&"x".repeat(300))), is_dir(&path("loop/below"))] {
            assert_eq!(error.unwrap_err().kind(), Kind::Volume);
        }
        assert_eq!(names(dir.path()).unwrap(), ["file", "loop"]);
        assert!(names(&path("none")).unwrap().is_empty() && names(&path("loop")).is_err());
        assert_eq!(read_if_there(&path("none"), 9).unwrap(), None);
    }

    #[test]
    fn a_stale_handle_is_tried_once_more() {
        let tries = std::cell::Cell::new(0);
        let call = |errno: Errno, failures: u32| {
            tries.set(0);
            anew(|| {
                tries.set(tries.get() + 1);
                if tries.get() > failures { Ok(()) } else { Err(errno.into()) }
            })
        };
        assert!(call(Errno::STALE, 1).is_ok() && call(Errno::STALE, 2).is_err());
        assert_eq!(tries.get(), 2);
        assert!(call(Errno::IO, 1).is_err());
        assert_eq!(tries.get(), 1);
    }

    #[test]
    fn the_kind_of_an_unreadable_input_depends_on_the_cause() {
        let kind = |errno: Errno| unreadable(Kind::Usage, "x", &errno.into()).kind();
        assert_eq!([Errno::NOENT, Errno::ACCESS].map(kind), [Kind::Usage; 2]);
        assert_eq!([Errno::IO, Errno::STALE, Errno::DQUOT, Errno::NOLCK].map(kind), [Kind::Volume; 4]);
    }

    #[test]
    fn text_must_be_utf_8() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), b"\xff").unwrap();
        assert_eq!(read_text(&dir.path().join("x"), 9).unwrap_err().to_string(), "it is not UTF-8 text");
    }
}
