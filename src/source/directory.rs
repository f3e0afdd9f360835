//! A directory of this machine, copied as it stands.
//!
//! Left out is what belongs to one machine: Git's directory, virtual environments and Python's
//! compiled files. The revision is a digest of everything else, so an unchanged directory is the
//! same revision wherever and whenever it is read.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};
use crate::plan::RESERVED;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::size::Size;
use crate::source::{Checkout, SHA256, late, reserved, set_mode, too_large};

/// Names that are left out wherever they stand.
const LEFT_OUT: [&str; 2] = [".git", "__pycache__"];
/// What makes a directory a virtual environment (PEP 405).
const VENV_MARK: &str = "pyvenv.cfg";
const BUFFER: usize = 256 << 10;

/// The digest of the directory's contents: `sha256:…`; and whether it has symbolic links, whose targets
/// are in it only by name.
pub(super) fn digest(from: &Path, limit: Size, deadline: Deadline) -> Result<(String, bool)> {
    let (digest, links, _) = Walk::new(from, None, limit, deadline).run()?;
    Ok((digest, links))
}

/// The digest of a file, as a revision.
pub(super) fn digest_of_file(path: &Path, deadline: Deadline) -> Result<String> {
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        let length = file.read(&mut buffer).map_err(|error| unreadable(path, &error))?;
        if length == 0 {
            return Ok(format!("{SHA256}{}", hex(&digest.finalize())));
        }
        digest.update(&buffer[..length]);
        if deadline.passed() {
            return Err(late(&format!("cannot read {}", path.display()), deadline));
        }
    }
}

/// What is in a directory.
pub(super) fn count(dir: &Path) -> io::Result<Checkout> {
    let (mut done, mut open) = (Checkout::default(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(entry.path());
            } else {
                done.add(Checkout { files: 1, bytes: if meta.is_file() { meta.len() } else { 0 } });
            }
        }
    }
    Ok(done)
}

/// Copies the directory to `tree`, which does not exist yet, and checks that it still is `revision`.
pub(super) fn copy(from: &Path, tree: &Path, revision: &str, limit: Size, deadline: Deadline) -> Result<Checkout> {
    let real = |path: &Path| path.canonicalize().on_volume(|| format!("cannot find {}", path.display()));
    let target = real(tree.parent().unwrap_or(tree))?;
    if target.starts_with(from.canonicalize().map_err(|error| unreadable(from, &error))?) {
        return Err(Error::source(format!("{} contains the root to which it is copied", from.display()))
            .hint("choose a --root outside of the directory"));
    }
    let (copied, _, done) = Walk::new(from, Some(tree), limit, deadline).run()?;
    if copied != revision {
        return Err(Error::source(format!("{} changed while it was copied", from.display())).hint("try again"));
    }
    Ok(done)
}

struct Walk<'a> {
    from: &'a Path,
    to: Option<&'a Path>,
    limit: Size,
    deadline: Deadline,
    digest: Sha256,
    done: Checkout,
    links: bool,
    /// What the copy occupies.
    occupied: u64,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(from: &'a Path, to: Option<&'a Path>, limit: Size, deadline: Deadline) -> Self {
        let done = Checkout::default();
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

    fn run(mut self) -> Result<(String, bool, Checkout)> {
        let meta = fs::metadata(self.from).map_err(|error| {
            unreadable(self.from, &error).hint("give a directory that this container can see, or a URL")
        })?;
        if !meta.is_dir() {
            return Err(Error::source(format!("{} is not a directory", self.from.display()))
                .hint("give the directory that holds the app"));
        }
        if fs::symlink_metadata(self.from.join(RESERVED)).is_ok() {
            return Err(reserved(format!("{} has an entry {RESERVED}", self.from.display())));
        }
        // Not by recursion: directories can be nested more deeply than the stack is.
        let mut open = vec![(PathBuf::new(), self.directory(Path::new(""))?)];
        while let Some((at, entries)) = open.last_mut() {
            let Some((name, kind)) = entries.next() else {
                open.pop();
                continue;
            };
            let at = at.join(name);
            if self.entry(&at, kind)? {
                let entries = self.directory(&at)?;
                open.push((at, entries));
            }
        }
        Ok((format!("{SHA256}{}", hex(&self.digest.finalize())), self.links, self.done))
    }

    /// Makes the directory, and returns what is in it, in the order of the names.
    fn directory(&mut self, at: &Path) -> Result<std::vec::IntoIter<(OsString, FileType)>> {
        if self.deadline.passed() {
            return Err(late(&format!("cannot copy {}", self.from.display()), self.deadline));
        }
        self.count(0)?;
        let path = self.from.join(at);
        if let Some(to) = self.to {
            let to = to.join(at);
            fs::create_dir(&to)
                .and_then(|()| set_mode(&to, 0o755))
                .on_volume(|| format!("cannot create {}", to.display()))?;
        }
        let entries = fs::read_dir(&path).and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)))).collect()
        });
        let mut entries: Vec<_> = entries.map_err(|error| unreadable(&path, &error))?;
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries.into_iter())
    }

    /// Copies one entry; true for a directory whose own entries come next.
    fn entry(&mut self, at: &Path, kind: FileType) -> Result<bool> {
        let path = self.from.join(at);
        if LEFT_OUT.iter().any(|left_out| at.file_name() == Some(OsStr::new(left_out)))
            || (kind.is_dir() && path.join(VENV_MARK).exists())
        {
            tracing::debug!("left out: {}", shown(at));
        } else if kind.is_dir() {
            self.record(b'd', at, 0);
            return Ok(true);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| unreadable(&path, &error))?;
            self.link(at, &target)?;
        } else if kind.is_file() {
            self.file(at)?;
        } else {
            tracing::warn!("left out, as it is no file: {}", shown(at));
        }
        Ok(false)
    }

    /// Counts what the copy of an entry will occupy, before it is read.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.occupied = self.occupied.saturating_add(Size::occupied(bytes));
        if self.occupied > self.limit.0 {
            let what = format!("cannot copy {}", self.from.display());
            return Err(too_large(&what, "the files come to", self.occupied, self.limit));
        }
        Ok(())
    }

    /// What comes before an entry's contents, with lengths, so that no two trees look alike.
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
        let mut file = File::open(&path).map_err(|error| read(&error))?;
        let meta = file.metadata().map_err(|error| read(&error))?;
        let executable = meta.permissions().mode() & 0o100 != 0;
        // Holes count: the copy has none.
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
                return Err(late(&format!("cannot copy {}", self.from.display()), self.deadline));
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

/// A name for a line of the log.
fn shown(path: &Path) -> String {
    crate::redact::clean(&path.display().to_string()).replace('\n', " ")
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::source(format!("cannot read {}", path.display())).because(io::Error::new(error.kind(), error.to_string()))
}
