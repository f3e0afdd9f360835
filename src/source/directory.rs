//! A directory on this machine, copied unchanged.
//!
//! The copy leaves out everything that belongs to one machine: Git's directory, virtual environments and
//! Python's compiled files. The revision is a digest of the rest, so an unchanged directory has the same
//! revision on every machine, at any time.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::plan::{RESERVED, TreePath, Unpack};
use crate::retry::Deadline;
use crate::runtime::{blocking, hex};
use crate::size::Size;
use crate::source::destination::Destination;
use crate::source::lfs;
use crate::source::revision::{Revision, SHA256};
use crate::tree::{Written, reserved, set_mode, too_large};
use crate::walk::{Entry, walk};

/// Names to leave out at any depth.
const LEFT_OUT: [&str; 2] = [".git", "__pycache__"];
/// The file that marks a virtual environment (PEP 405).
const VENV_MARK: &str = "pyvenv.cfg";
const BUFFER: usize = 256 << 10;

/// A directory, and its digest when it was read.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    revision: Revision,
}

impl Directory {
    pub(crate) async fn resolve(
        path: &Path,
        unpack: &Unpack,
        subdir: Option<&TreePath>,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Self> {
        if *unpack != Unpack::default() {
            return Err(Error::usage(format!("{} is neither an archive nor a file", path.display()))
                .hint("remove --strip-components and --file: they are only for archives and files"));
        }
        let path = match subdir {
            Some(subdir) => crate::tree::directory("--subdir", path, subdir)
                .map_err(|error| error.within(&path.display().to_string()))?,
            None => path.to_owned(),
        };
        let at = path.clone();
        let (commit, _) = blocking(move || digest_within(&at, limit, deadline)).await?;
        Ok(Self { path, revision: Revision { commit, reference: None } })
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.clone()
    }

    /// Copies the directory. `resolve` has already applied `--subdir`.
    pub(crate) async fn check_out(&self, to: Destination<'_>, deadline: Deadline) -> Result<Written> {
        let (path, tree, revision) = (self.path.clone(), to.tree.to_owned(), self.revision.commit.clone());
        let (limit, lfs_pointers) = (to.limit, to.lfs_pointers);
        blocking(move || {
            let copied = copy(&path, &tree, &revision, limit, deadline)?;
            lfs::judge_tree(&path.display().to_string(), &tree, lfs_pointers)?;
            Ok(copied)
        })
        .await
    }
}

/// A digest of a directory's contents, in the form of [`Revision::commit`] (`sha256:…`), and whether the
/// directory has symbolic links. The digest covers a link's target only by name.
pub(crate) fn digest(dir: &Path, deadline: Deadline) -> Result<(String, bool)> {
    // Nothing is written, so nothing is too large.
    digest_within(dir, Size(u64::MAX), deadline)
}

fn digest_within(from: &Path, limit: Size, deadline: Deadline) -> Result<(String, bool)> {
    let (digest, links, _) = Reader::new(from, None, limit, deadline).run()?;
    Ok((digest, links))
}

/// Copies the directory to `tree`, which must not exist yet, and verifies that it still is `revision`.
fn copy(from: &Path, tree: &Path, revision: &str, limit: Size, deadline: Deadline) -> Result<Written> {
    let parent = tree.parent().unwrap_or(tree);
    let target = parent.canonicalize().on_volume(|| format!("cannot find {}", parent.display()))?;
    if target.starts_with(from.canonicalize().map_err(|error| unreadable(from, &error))?) {
        return Err(Error::source(format!(
            "cannot copy {} to {}, which is inside it",
            from.display(),
            parent.display()
        ))
        .hint("choose a --root outside the directory; for `up` and --dry-run, set TMPDIR to one"));
    }
    let (copied, _, done) = Reader::new(from, Some(tree), limit, deadline).run()?;
    if copied != revision {
        return Err(Error::source(format!("{} changed during the copy", from.display()))
            .hint("run podstrap again while nothing writes to the directory"));
    }
    Ok(done)
}

/// Reads a directory once: hashes it, and copies it if `to` is set.
struct Reader<'a> {
    from: &'a Path,
    to: Option<&'a Path>,
    limit: Size,
    deadline: Deadline,
    digest: Sha256,
    done: Written,
    links: bool,
    /// Bytes that the copy occupies.
    occupied: u64,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(from: &'a Path, to: Option<&'a Path>, limit: Size, deadline: Deadline) -> Self {
        let done = Written::default();
        Self {
            from,
            to,
            limit,
            deadline,
            digest: Sha256::new(),
            done,
            links: false,
            occupied: 0,
            buffer: vec![0; BUFFER],
        }
    }

    fn run(mut self) -> Result<(String, bool, Written)> {
        let meta = fs::metadata(self.from).map_err(|error| {
            unreadable(self.from, &error).hint("give a directory that exists in this container, or a URL")
        })?;
        if !meta.is_dir() {
            return Err(Error::source(format!("{} is not a directory", self.from.display()))
                .because(files::not_regular(&meta).unwrap_or("it is a file"))
                .hint("give the directory of the app"));
        }
        if files::entry(&self.from.join(RESERVED))?.is_some() {
            return Err(reserved(format!("{} has an entry {RESERVED}", self.from.display())));
        }
        let mut entries = walk(self.from);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| unreadable(&error.path, &error.error))?;
            if is_left_out(&entry)? {
                tracing::debug!("left out: {}", shown(&entry.name));
                entries.leave_out();
            } else if entry.is_dir() {
                self.directory(&entry)?;
            } else if entry.is_symlink() {
                let target = fs::read_link(&entry.path).map_err(|error| unreadable(&entry.path, &error))?;
                self.link(&entry.name, &target)?;
            } else if entry.is_file() {
                self.file(&entry.name)?;
            } else {
                tracing::warn!("left out, because it is not a regular file: {}", shown(&entry.name));
            }
        }
        Ok((format!("{SHA256}{}", hex(&self.digest.finalize())), self.links, self.done))
    }

    fn directory(&mut self, entry: &Entry) -> Result<()> {
        if self.deadline.passed() {
            return Err(self.deadline.late(&format!("cannot copy {}", self.from.display())));
        }
        if !entry.is_root() {
            self.record(b'd', &entry.name, 0);
        }
        self.count(0)?;
        let Some(to) = self.to.map(|to| to.join(&entry.name)) else { return Ok(()) };
        fs::create_dir(&to).and_then(|()| set_mode(&to, 0o755)).on_volume(|| format!("cannot create {}", to.display()))
    }

    /// Adds the space that the copy of an entry will occupy, before the entry is read.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.occupied = self.occupied.saturating_add(Size::occupied(bytes));
        if self.occupied > self.limit.0 {
            let what = format!("cannot copy {}", self.from.display());
            return Err(too_large(&what, "the files take", self.occupied, self.limit));
        }
        Ok(())
    }

    /// Hashes an entry's kind, name and length, before its contents. With the lengths, different trees have
    /// different encodings.
    fn record(&mut self, kind: u8, at: &Path, length: u64) {
        let name = at.as_os_str().as_bytes();
        self.digest.update([kind]);
        self.digest.update((name.len() as u64).to_be_bytes());
        self.digest.update(name);
        self.digest.update(length.to_be_bytes());
    }

    fn link(&mut self, at: &Path, target: &Path) -> Result<()> {
        let bytes = OsStr::as_bytes(target.as_os_str());
        self.count(bytes.len() as u64)?;
        self.record(b'l', at, bytes.len() as u64);
        self.digest.update(bytes);
        self.links = true;
        self.done.files += 1;
        match self.to.map(|to| to.join(at)) {
            Some(to) => symlink(target, &to).on_volume(|| format!("cannot create {}", to.display())),
            None => Ok(()),
        }
    }

    fn file(&mut self, at: &Path) -> Result<()> {
        let path = self.from.join(at);
        let read = |error: &io::Error| unreadable(&path, error);
        let mut file = files::open(&path).map_err(|error| read(&error))?;
        let meta = file.metadata().map_err(|error| read(&error))?;
        let executable = meta.permissions().mode() & 0o100 != 0;
        // Include holes: the copy has none.
        self.count(meta.len())?;
        self.record(if executable { b'x' } else { b'f' }, at, meta.len());
        let to: Option<PathBuf> = self.to.map(|to| to.join(at));
        let volume =
            |error: &io::Error, to: &Path| crate::error::volume_error(format!("cannot write {}", to.display()), error);
        let mut copy = match &to {
            Some(to) => Some((File::create_new(to).map_err(|error| volume(&error, to))?, to)),
            None => None,
        };
        loop {
            let length = file.read(&mut self.buffer).map_err(|error| read(&error))?;
            let Some(chunk) = self.buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
            self.digest.update(chunk);
            self.done.bytes += length as u64;
            if let Some((copy, to)) = &mut copy {
                copy.write_all(chunk).map_err(|error| volume(&error, to))?;
            }
            if self.deadline.passed() {
                return Err(self.deadline.late(&format!("cannot copy {}", self.from.display())));
            }
        }
        self.done.files += 1;
        match copy {
            Some((copy, to)) => copy
                .set_permissions(fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
                .and_then(|()| meta.modified())
                .and_then(|modified| copy.set_modified(modified))
                .map_err(|error| volume(&error, to)),
            None => Ok(()),
        }
    }
}

/// Whether the entry belongs to this machine alone.
fn is_left_out(entry: &Entry) -> Result<bool> {
    let is_venv = || {
        let mark = entry.path.join(VENV_MARK);
        let found = files::unless_absent(fs::metadata(&mark)).map_err(|error| unreadable(&mark, &error))?;
        Ok(found.is_some())
    };
    let named = || LEFT_OUT.iter().any(|name| entry.name.file_name() == Some(OsStr::new(name)));
    Ok(!entry.is_root() && (named() || entry.is_dir() && is_venv()?))
}

/// A name for the log.
fn shown(path: &Path) -> String {
    crate::redact::clean(&path.display().to_string()).replace('\n', " ")
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    files::unreadable(Kind::Source, format!("cannot read {}", path.display()), error)
}
