//! Writes the entries of an archive to a tree, for every format.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::error::{Error, IoContext, Result, volume_error};
use crate::files;
use crate::retry::Deadline;
use crate::size::Size;
use crate::tree::{Written, reserved, set_mode, too_large};

use super::writers::{SMALL, Whole, Writers};

pub(super) const BUFFER: usize = 64 << 10;
/// The most bytes of memory for the names of directories and links, and the targets of links: a million and
/// more. Files need no memory.
const MAX_REMEMBERED: usize = 64 << 20;
/// The approximate memory of each of them besides its bytes.
const OVERHEAD: usize = 96;
/// The longest target of a symbolic link, and the longest path, in bytes, including the final NUL (`PATH_MAX` in
/// limits.h).
pub(super) const PATH_MAX: usize = 4096;
/// Bytes of a name in messages.
const SHOWN: usize = 200;
/// The last second that every file system can store: an ext4 with small inodes ends there.
const LAST: i64 = i32::MAX as i64;

const PLAIN_HINT: &str = "create the archive again from the app's own directory alone: podstrap unpacks only files, \
                          directories and symbolic links, with relative names";
const DAMAGED_HINT: &str = "compare the size and the checksum of the archive with the original's";

/// How to unpack an archive, and its limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Number of leading parts to remove from every name (`--strip-components` of tar). Leaves out entries
    /// without further parts.
    pub(crate) strip: usize,
    /// The name that podstrap reserves: no entry at the top level may have it.
    pub(crate) forbidden: Option<&'static str>,
    /// The largest size of the tree on the volume.
    pub(crate) limit: Size,
    pub(crate) deadline: Deadline,
}

/// The kind of an entry, and its contents.
pub(super) enum Packed<'e> {
    Directory,
    File {
        executable: bool,
        /// The exact size of its contents.
        size: u64,
        contents: &'e mut dyn Read,
    },
    Symlink {
        target: &'e [u8],
    },
    /// The same contents as the earlier file of that name.
    HardLink {
        to: &'e [u8],
    },
}

/// Writes one entry after the other to the tree.
pub(super) struct Unpacker<'a> {
    archive: &'a str,
    tree: &'a Path,
    rules: Rules,
    /// Each with the time in the archive, if there is one. The top of the tree is the empty path.
    directories: BTreeMap<PathBuf, Option<i64>>,
    /// The links to create, with target and time.
    links: BTreeMap<PathBuf, (Vec<u8>, i64)>,
    /// Memory of the two, in bytes.
    remembered: usize,
    /// Space on the volume that the entries occupy.
    occupied: u64,
    newest: i64,
    top: Top,
    done: Written,
    buffer: Vec<u8>,
    /// Writes small files, for an environment.
    writers: Option<Writers>,
    /// Whether the archive is an environment: links stay in it, except for those in `bin`.
    is_environment: bool,
}

/// The common start of all names.
enum Top {
    Nothing,
    /// One directory, which is part number `usize` of each name.
    One(Vec<u8>, usize),
    Several,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(archive: &'a str, tree: &'a Path, rules: Rules) -> Self {
        Self {
            archive,
            tree,
            rules,
            directories: BTreeMap::new(),
            links: BTreeMap::new(),
            remembered: 0,
            occupied: 0,
            newest: 0,
            top: Top::Nothing,
            done: Written::default(),
            buffer: vec![0; BUFFER],
            writers: None,
            is_environment: false,
        }
    }

    /// Unpacks an environment: in several threads, and with the rules for its links.
    pub(super) fn of_environment(self) -> Self {
        Self { writers: Writers::start(), is_environment: true, ..self }
    }

    /// Creates the tree.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.directory(b"", Path::new(""), None)
    }

    /// The failed operation, for errors.
    pub(super) fn what(&self) -> String {
        format!("cannot unpack {}", self.archive)
    }

    /// Writes the entry, or stores it for later if it is a link. `mtime` is in seconds since 1970.
    pub(super) fn add(&mut self, name: &[u8], mtime: i64, entry: Packed<'_>) -> Result<()> {
        self.in_time()?;
        let Some(path) = self.path(name, name)? else { return Ok(()) };
        let mtime = mtime.clamp(0, LAST);
        if path.as_os_str().is_empty() {
            return match entry {
                Packed::Directory => self.directory(name, &path, Some(mtime)),
                _ => Err(self.refused(name, "is the name of the archive's top, but not a directory")),
            };
        }
        if matches!(self.top, Top::Nothing | Top::One(..)) {
            self.top_of(name, matches!(entry, Packed::Directory));
        }
        if let Some(name) = self.rules.forbidden.filter(|name| path.starts_with(name)) {
            return Err(reserved(format!("{} has an entry {name} at its top level", self.archive)));
        }
        self.parents(name, &path)?;
        self.newest = self.newest.max(mtime);
        match entry {
            Packed::Directory => self.directory(name, &path, Some(mtime)),
            Packed::File { executable, size, contents } if size <= SMALL && self.writers.is_some() => {
                self.write_later(name, &path, size, contents, executable, mtime)
            }
            Packed::File { executable, size, contents } => {
                let mut file = self.create(name, &path, size)?;
                self.copy(name, &path, size, contents, &mut file)?;
                self.settle(&path, &file, executable, mtime)
            }
            Packed::HardLink { .. } if self.is_environment => Err(self.refused(name, "is a hard link")),
            Packed::HardLink { to } => self.hard_link(name, &path, to, mtime),
            Packed::Symlink { target } => self.link(name, path, target, mtime),
        }
    }

    /// The only directory at the top, and the part of a name that it is.
    pub(super) fn only_directory(&self) -> Option<(&[u8], usize)> {
        match &self.top {
            Top::One(name, at) => Some((name, *at)),
            _ => None,
        }
    }

    /// Creates the links, sets all times, and returns the count.
    pub(super) fn finish(mut self) -> Result<Written> {
        if self.done.files == 0 && self.links.is_empty() && self.directories.len() == 1 {
            let error = Error::source(self.what());
            return Err(if self.rules.strip == 0 {
                error.because("it has no entries")
            } else {
                error
                    .because(format!("--strip-components {} removes all of it", self.rules.strip))
                    .hint("give a smaller number: its names have fewer parts")
            });
        }
        if let (0, Some((top, at))) = (self.rules.strip, self.only_directory()) {
            let top = crate::redact::clean(&String::from_utf8_lossy(top)).replace('\n', " ");
            tracing::info!("everything is in the directory {top}: use --strip-components {} to remove it", at + 1);
        }
        if let Some(writers) = self.writers.take() {
            writers.finish().map_err(|failed| self.unwritten_later(failed))?;
        }
        for (path, (target, mtime)) in std::mem::take(&mut self.links) {
            self.in_time()?;
            let full = self.tree.join(&path);
            symlink(OsStr::from_bytes(&target), &full)
                .map_err(|error| self.unwritten(path.as_os_str().as_bytes(), &path, &error))?;
            set_mtime(&full, mtime).on_volume(|| format!("cannot set the time of {}", full.display()))?;
            self.done.files += 1;
        }
        for (path, mtime) in &self.directories {
            self.in_time()?;
            let full = self.tree.join(path);
            set_mtime(&full, mtime.unwrap_or(self.newest))
                .on_volume(|| format!("cannot set the time of {}", full.display()))?;
        }
        Ok(self.done)
    }

    /// The path of a name in the tree; `None` if it has too few parts.
    fn path(&self, entry: &[u8], name: &[u8]) -> Result<Option<PathBuf>> {
        if name.is_empty() {
            return Err(self.refused(entry, "has an empty name"));
        }
        if name.contains(&0) {
            return Err(self.refused(entry, "has a NUL in its name"));
        }
        if name.starts_with(b"/") {
            return Err(self.refused(entry, "has an absolute name"));
        }
        if parts(name).any(|part| part == b"..") {
            return Err(self.refused(entry, "has `..` in its name, which points outside the archive"));
        }
        if self.rules.strip > 0 && parts(name).nth(self.rules.strip).is_none() {
            return Ok(None);
        }
        let path: PathBuf =
            parts(name).skip(self.rules.strip).filter(|part| *part != b".").map(OsStr::from_bytes).collect();
        if self.tree.as_os_str().len() + 1 + path.as_os_str().len() >= PATH_MAX {
            return Err(
                self.refused(entry, format!("has a name that is too long: a path has {PATH_MAX} bytes at most"))
            );
        }
        Ok(Some(path))
    }

    /// Notes whether everything is in one directory.
    fn top_of(&mut self, name: &[u8], directory: bool) {
        let mut named = parts(name).enumerate().filter(|(_, part)| *part != b".");
        let Some((at, part)) = named.next() else { return };
        let alone = !directory && named.next().is_none();
        self.top = match &self.top {
            Top::Nothing if !alone => Top::One(part.to_owned(), at),
            Top::One(top, known) if !alone && top == part && *known == at => return,
            _ => Top::Several,
        };
    }

    /// Creates the missing parents of the entry.
    fn parents(&mut self, name: &[u8], path: &Path) -> Result<()> {
        let Some(parent) = path.parent().filter(|parent| !self.directories.contains_key(*parent)) else {
            return Ok(());
        };
        let mut at = PathBuf::new();
        for part in parent {
            at.push(part);
            self.directory(name, &at, None)?;
        }
        Ok(())
    }

    fn directory(&mut self, name: &[u8], path: &Path, mtime: Option<i64>) -> Result<()> {
        if let Some(known) = self.directories.get_mut(path) {
            *known = mtime.or(*known);
            return Ok(());
        }
        if self.links.contains_key(path) {
            return Err(self.no_directory(name, path, "symbolic link"));
        }
        self.count(0)?;
        self.remember(name, path.as_os_str().len())?;
        let full = self.tree.join(path);
        match fs::create_dir(&full).and_then(|()| set_mode(&full, 0o755)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.as_os_str().is_empty() => {
                return Err(self.no_directory(name, path, "file"));
            }
            Err(error) => return Err(self.unwritten(name, path, &error)),
        }
        self.directories.insert(path.to_owned(), mtime);
        Ok(())
    }

    fn no_directory(&self, name: &[u8], path: &Path, kind: &str) -> Error {
        let path = shown(path.as_os_str().as_bytes());
        self.refused(name, format!("needs the directory {path}, which is a {kind} of the archive"))
    }

    /// Creates a file for `size` bytes.
    fn create(&mut self, name: &[u8], path: &Path, size: u64) -> Result<File> {
        self.free(name, path)?;
        self.count(size)?;
        File::create_new(self.tree.join(path)).map_err(|error| self.unwritten(name, path, &error))
    }

    /// Fails if an earlier entry has that path.
    fn free(&self, name: &[u8], path: &Path) -> Result<()> {
        let there = files::unless_absent(fs::symlink_metadata(self.tree.join(path)))
            .map_err(|error| self.unwritten(name, path, &error))?;
        if self.links.contains_key(path) || there.is_some() {
            return Err(self.twice(name));
        }
        Ok(())
    }

    pub(super) fn twice(&self, name: &[u8]) -> Error {
        self.refused(name, "appears twice")
    }

    /// Writes a file of exactly `size` bytes.
    fn copy(&mut self, name: &[u8], path: &Path, size: u64, from: &mut dyn Read, to: &mut File) -> Result<()> {
        let mut left = size;
        loop {
            self.in_time()?;
            let length = match from.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(name, &error)),
            };
            let Some(chunk) = self.buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
            left = left
                .checked_sub(length as u64)
                .ok_or_else(|| self.damaged(name, &"it has more contents than the archive declares"))?;
            to.write_all(chunk).map_err(|error| self.unwritten(name, path, &error))?;
        }
        if left > 0 {
            return Err(self.damaged(name, &format!("{left} bytes of its contents are missing")));
        }
        Ok(())
    }

    /// Reads a small file, and leaves it to the writers.
    fn write_later(
        &mut self,
        name: &[u8],
        path: &Path,
        size: u64,
        from: &mut dyn Read,
        executable: bool,
        mtime: i64,
    ) -> Result<()> {
        if self.links.contains_key(path) {
            return Err(self.twice(name));
        }
        self.count(size)?;
        let mut contents = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        from.take(size + 1).read_to_end(&mut contents).map_err(|error| self.damaged(name, &error))?;
        if contents.len() as u64 != size {
            return Err(self.damaged(name, &"it has not as many bytes as the archive declares"));
        }
        self.done.files += 1;
        self.done.bytes += size;
        let file = Whole { path: self.tree.join(path), contents, mode: if executable { 0o755 } else { 0o644 }, mtime };
        let added = self.writers.as_mut().map_or(Ok(()), |writers| writers.add(file));
        added.map_err(|failed| self.unwritten_later(failed))
    }

    fn unwritten_later(&self, (path, error): (PathBuf, io::Error)) -> Error {
        let path = path.strip_prefix(self.tree).unwrap_or(&path);
        self.unwritten(path.as_os_str().as_bytes(), path, &error)
    }

    /// Sets the mode and the time of a written file.
    fn settle(&mut self, path: &Path, file: &File, executable: bool, mtime: i64) -> Result<()> {
        let full = self.tree.join(path);
        let mode = fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 });
        let length = file
            .set_permissions(mode)
            .and_then(|()| set_mtime(&full, mtime))
            .and_then(|()| file.metadata())
            .on_volume(|| format!("cannot set the mode and time of {}", full.display()))?
            .len();
        self.done.files += 1;
        self.done.bytes += length;
        Ok(())
    }

    /// Writes a copy: a change of one of the two files must not change the other.
    fn hard_link(&mut self, name: &[u8], path: &Path, to: &[u8], mtime: i64) -> Result<()> {
        let refused = |unpacker: &Self| {
            unpacker
                .refused(name, format!("is a hard link to {}, which is not an earlier file of the archive", shown(to)))
        };
        // Links do not exist yet, so an earlier entry wrote the file that is found.
        let earlier = self.path(name, to)?.filter(|earlier| !earlier.as_os_str().is_empty());
        let full = self.tree.join(earlier.ok_or_else(|| refused(self))?);
        let meta = files::entry(&full)?.filter(fs::Metadata::is_file).ok_or_else(|| refused(self))?;
        let mut from = files::open(&full).on_volume(|| format!("cannot read {}", full.display()))?;
        let mut file = self.create(name, path, meta.len())?;
        self.copy(name, path, meta.len(), &mut from, &mut file)?;
        self.settle(path, &file, meta.permissions().mode() & 0o100 != 0, mtime)
    }

    fn link(&mut self, name: &[u8], path: PathBuf, target: &[u8], mtime: i64) -> Result<()> {
        if target.is_empty() || target.contains(&0) || target.len() >= PATH_MAX {
            return Err(self.refused(name, format!("is a symbolic link to {}, which is not a path", shown(target))));
        }
        if self.is_environment && !stays_inside(&path, target) {
            return Err(self.refused(name, format!("is a symbolic link out of the environment: {}", shown(target))));
        }
        self.free(name, &path)?;
        self.count(target.len() as u64)?;
        self.remember(name, path.as_os_str().len() + target.len())?;
        self.links.insert(path, (target.to_owned(), mtime));
        Ok(())
    }

    /// Adds the space that an entry will occupy, before it is written.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.occupied = self.occupied.saturating_add(Size::occupied(bytes));
        if self.occupied > self.rules.limit.0 {
            return Err(too_large(&self.what(), "the files take", self.occupied, self.rules.limit));
        }
        Ok(())
    }

    fn remember(&mut self, name: &[u8], bytes: usize) -> Result<()> {
        self.remembered += bytes + OVERHEAD;
        if self.remembered > MAX_REMEMBERED {
            let most = Size(MAX_REMEMBERED as u64);
            return Err(
                self.refused(name, format!("is one entry too many: names of directories and links fill {most}"))
            );
        }
        Ok(())
    }

    pub(super) fn in_time(&self) -> Result<()> {
        if self.rules.deadline.passed() { Err(self.rules.deadline.late(&self.what())) } else { Ok(()) }
    }

    /// The error of an entry that podstrap refuses.
    pub(super) fn refused(&self, name: &[u8], why: impl Display) -> Error {
        Error::source(self.what()).because(format!("{} {why}", shown(name))).hint(PLAIN_HINT)
    }

    /// The error of a damaged archive, at this entry.
    pub(super) fn damaged(&self, name: &[u8], why: &dyn Display) -> Error {
        Error::source(self.what())
            .because(format!("{} is damaged or incomplete", shown(name)))
            .because(why.to_string())
            .hint(DAMAGED_HINT)
    }

    /// The error of a damaged archive, at an unknown entry.
    pub(super) fn damaged_somewhere(&self, why: &dyn Display) -> Error {
        Error::source(self.what()).because("it is damaged or incomplete").because(why.to_string()).hint(DAMAGED_HINT)
    }

    fn unwritten(&self, name: &[u8], path: &Path, error: &io::Error) -> Error {
        match error.kind() {
            // On a file system that treats two names as one.
            ErrorKind::AlreadyExists => self.twice(name),
            ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
                Error::source(self.what()).because(format!("{} cannot be created: {error}", shown(name)))
            }
            _ => volume_error(format!("cannot write {}", self.tree.join(path).display()), error),
        }
    }
}

/// Whether an environment may have this link. Those in `bin` lead to the interpreter, which is elsewhere.
pub(super) fn stays_inside(link: &Path, target: &[u8]) -> bool {
    if link.parent() == Some(Path::new("bin")) {
        return true;
    }
    let mut depth = link.components().count() - 1;
    !target.starts_with(b"/")
        && parts(target).all(|part| match part {
            b".." => {
                let inside = depth > 0;
                depth = depth.saturating_sub(1);
                inside
            }
            part => {
                depth += usize::from(part != b".");
                true
            }
        })
}

/// The parts of a name, as tar counts them: `.` is a part, and several slashes are one.
fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// A name for a message: one line of limited length.
fn shown(name: &[u8]) -> String {
    match name.get(..SHOWN) {
        Some(start) => format!("{:?}…", String::from_utf8_lossy(start)),
        None => format!("{:?}", String::from_utf8_lossy(name)),
    }
}

/// Sets the time of the entry itself, even if it is a link.
fn set_mtime(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A comment in one line, for the log. `git archive` writes the commit there.
pub(super) fn one_line(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(SHOWN).collect();
    crate::redact::clean(&text).replace('\n', " ")
}
