//! Works below a directory that others can write to, through handles.
//!
//! A [`Dir`] is an open directory. Its methods take the name of one entry, look it up once, in that directory, and
//! never follow a link. Whoever renames or replaces a path above it changes nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::files;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    handle: OwnedFd,
    path: PathBuf,
}

/// Flags of every open: podstrap's children inherit nothing, and no link is followed.
const HERE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);

/// Number of directories that [`Dir::remove`] keeps open.
const DEPTH: usize = 64;

impl Dir {
    /// Opens the directory at a path. Follows links.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let handle = fs::open(path, OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Opens a directory in this one.
    pub(crate) fn dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let handle = fs::openat(&self.handle, name, HERE | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// Creates a directory in this one that only its owner can open.
    pub(crate) fn create_dir(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(fs::mkdirat(&self.handle, name.as_ref(), Mode::from(0o700))?)
    }

    /// Opens a regular file in this directory, for reading.
    pub(crate) fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens a regular file in this directory, for reading and writing. Creates it if it is missing.
    pub(crate) fn file_or_new(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlags::RDWR | OFlags::CREATE)
    }

    fn open_file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let flags = HERE | OFlags::NONBLOCK | OFlags::NOCTTY | flags;
        files::regular(fs::openat(&self.handle, name, flags, Mode::from(0o644))?.into())
    }

    /// Reads a whole regular file in this directory.
    pub(crate) fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> io::Result<Vec<u8>> {
        files::limited(self.file(name)?, limit)
    }

    /// Creates a file in this directory that everybody can read.
    pub(crate) fn write(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create_file(name)?;
        file.write_all(bytes)?;
        // Whatever the umask.
        Ok(fs::fchmod(&file, Mode::from(0o644))?)
    }

    /// Creates an empty file in this directory that only its owner can read.
    pub(crate) fn create_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = HERE | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        Ok(fs::openat(&self.handle, name.as_ref(), flags, Mode::from(0o600))?.into())
    }

    /// The target of a link in this directory; `None` if there is no such entry, or it is no link.
    pub(crate) fn link(&self, name: impl AsRef<OsStr>) -> io::Result<Option<PathBuf>> {
        match fs::readlinkat(&self.handle, name.as_ref(), Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a link in this directory.
    pub(crate) fn create_link(&self, name: impl AsRef<OsStr>, to: &Path) -> io::Result<()> {
        Ok(fs::symlinkat(to, &self.handle, name.as_ref())?)
    }

    /// The entry itself, if there is one. Only here a name may be a path.
    pub(crate) fn entry(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
        let look = || fs::statat(&self.handle, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW);
        // NFS may remember an entry that is gone: the second look asks the server.
        let found = look().or_else(|error| if error == Errno::STALE { look() } else { Err(error) });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a part of a file has no contents on the disk. A file system that cannot tell has none. Here too, a name
    /// may be a path.
    pub(crate) fn has_hole(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let file = self.file(name)?;
        match fs::seek(&file, fs::SeekFrom::Hole(0)) {
            Ok(at) => Ok(at < file.metadata()?.len()),
            Err(Errno::INVAL | Errno::NXIO | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all entries.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.handle)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Moves an entry of this directory to another one.
    pub(crate) fn rename(&self, from: impl AsRef<OsStr>, to: &Self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(fs::renameat(&self.handle, from.as_ref(), &to.handle, name.as_ref())?)
    }

    /// Removes a file or a link.
    pub(crate) fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(fs::unlinkat(&self.handle, name.as_ref(), AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(fs::unlinkat(&self.handle, name.as_ref(), AtFlags::REMOVEDIR)?)
    }

    /// Removes an entry and everything below it, even directories that a package closed for its owner.
    pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let mut left = vec![name.as_ref().to_owned()];
        while let Some(name) = left.pop() {
            // The open directories on the current path, innermost last, each with its remaining entries.
            let mut open: Vec<(OsString, Self, Vec<OsString>)> = Vec::new();
            let mut next = name;
            loop {
                let depth = open.len();
                let parent = open.last().map_or(self, |(_, dir, _)| dir);
                match fs::unlinkat(&parent.handle, &next, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    // Take a deep directory to the top, so that depth costs no handles.
                    Err(Errno::ISDIR | Errno::PERM) if depth >= DEPTH => {
                        let top = random();
                        parent.rename(&next, self, &top)?;
                        left.push(top.into());
                    }
                    Err(Errno::ISDIR | Errno::PERM) => {
                        let dir = parent.dir_to_empty(&next)?;
                        let names = dir.names()?;
                        open.push((next, dir, names));
                    }
                    Err(error) => return Err(error.into()),
                }
                let Some(name) = self.remove_empty(&mut open)? else { break };
                next = name;
            }
        }
        Ok(())
    }

    /// Removes the innermost open directories that are empty. Returns the next entry to remove.
    fn remove_empty(&self, open: &mut Vec<(OsString, Self, Vec<OsString>)>) -> io::Result<Option<OsString>> {
        while let Some((_, _, names)) = open.last_mut() {
            if let Some(name) = names.pop() {
                return Ok(Some(name));
            }
            let Some((name, ..)) = open.pop() else { break };
            let parent = open.last().map_or(self, |(_, dir, _)| dir);
            parent.remove_dir(&name)?;
        }
        Ok(None)
    }

    /// Opens a directory, and gives its owner all permissions.
    fn dir_to_empty(&self, name: &OsStr) -> io::Result<Self> {
        let handle = fs::openat(&self.handle, name, HERE | OFlags::DIRECTORY | OFlags::PATH, Mode::empty())?;
        let mode = fs::fstat(&handle)?.st_mode;
        if mode & 0o700 != 0o700 {
            // chmod of a name would follow a link, and a handle of this kind has no chmod of its own.
            fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::from(mode & 0o777 | 0o700))?;
        }
        self.dir(name)
    }

    pub(crate) fn metadata(&self) -> io::Result<Stat> {
        Ok(fs::fstat(&self.handle)?)
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(&self.handle, Mode::from(mode))?)
    }

    /// Removes the ACL that new entries inherit, if the file system has ACLs (acl(5)).
    pub(crate) fn drop_default_acl(&self) -> io::Result<()> {
        match fs::fremovexattr(&self.handle, "system.posix_acl_default") {
            // File systems without ACLs answer in several ways.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::ROFS) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the write permission of group and others, and the setgid bit of directories, from everything below. A
    /// directory comes before its entries, so nobody can replace them meanwhile.
    pub(crate) fn close_to_others(&self) -> io::Result<()> {
        let mut open = vec![(self.again()?, self.names()?)];
        while let Some((dir, names)) = open.last_mut() {
            let Some(name) = names.pop() else {
                open.pop();
                continue;
            };
            let entry = fs::openat(&dir.handle, &name, HERE | OFlags::PATH, Mode::empty())?;
            let mode = fs::fstat(&entry)?.st_mode;
            let (kind, bits) = (FileType::from_raw_mode(mode), mode & 0o7777);
            let closed = if kind.is_dir() { bits & !0o2022 } else { bits & !0o022 };
            if bits != closed && !kind.is_symlink() {
                fs::chmod(format!("/proc/self/fd/{}", entry.as_raw_fd()), Mode::from(closed))?;
            }
            if kind.is_dir() {
                let inner = dir.dir(&name)?;
                let names = inner.names()?;
                open.push((inner, names));
            }
        }
        Ok(())
    }

    /// Writes the directory's entries to disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.handle)?)
    }

    /// Writes the whole file system to disk.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.handle)?)
    }

    /// Its path when it was opened: for messages, and for programs that need a path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// A second handle of the same directory.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self { handle: self.handle.try_clone()?, path: self.path.clone() })
    }
}

/// A name for a temporary entry, which nobody can guess.
pub(crate) fn random() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; 12];
    // Cannot fail after the system has started (getrandom(2)); then the name is only unlikely.
    if !getrandom(&mut bytes, GetRandomFlags::empty()).is_ok_and(|filled| filled == bytes.len()) {
        bytes.fill_with(|| fastrand::u8(..));
    }
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use std::fs as paths;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn dir() -> (tempfile::TempDir, Dir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        (temporary, dir)
    }

    #[test]
    fn a_link_in_the_place_of_an_entry_is_not_followed() {
        let (temporary, dir) = dir();
        let outside = tempfile::tempdir().unwrap();
        paths::write(outside.path().join("file"), "theirs").unwrap();
        symlink(outside.path(), temporary.path().join("dir")).unwrap();
        symlink(outside.path().join("file"), temporary.path().join("file")).unwrap();
        assert!(dir.dir("dir").is_err());
        assert!(dir.file("file").is_err());
        assert!(dir.file_or_new("file").is_err());
        assert!(dir.write("file", b"ours").is_err());
        dir.remove("dir").unwrap();
        dir.remove("file").unwrap();
        assert_eq!(paths::read(outside.path().join("file")).unwrap(), b"theirs");
    }

    #[test]
    fn a_handle_stays_with_its_directory() {
        let (temporary, dir) = dir();
        dir.create_dir("a").unwrap();
        let inner = dir.dir("a").unwrap();
        paths::rename(temporary.path().join("a"), temporary.path().join("moved")).unwrap();
        paths::create_dir(temporary.path().join("a")).unwrap();
        inner.write("file", b"x").unwrap();
        assert!(temporary.path().join("moved/file").exists());
        assert_eq!(inner.names().unwrap(), ["file"]);
        assert!(inner.entry("none").unwrap().is_none() && inner.entry("file/none").unwrap().is_none());
        assert!(inner.entry("x".repeat(300)).is_err(), "only a missing entry is missing");
    }

    #[test]
    fn deep_and_closed_directories_are_removed() {
        let (temporary, dir) = dir();
        paths::create_dir_all(temporary.path().join("x").join("d/".repeat(1500))).unwrap();
        paths::create_dir_all(temporary.path().join("x/closed/inner")).unwrap();
        for name in ["x/closed/inner", "x/closed"] {
            paths::set_permissions(temporary.path().join(name), paths::Permissions::from_mode(0o000)).unwrap();
        }
        dir.remove("x").unwrap();
        dir.remove("none").unwrap();
        assert!(dir.names().unwrap().is_empty());
    }
}
