//! A directory of this machine, copied as it stands.
//!
//! Left out is what belongs to one machine: Git's directory, virtual environments and Python's
//! compiled files. The revision is a digest of everything else, so an unchanged directory is the
//! same revision wherever and whenever it is read.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};
use crate::plan::RESERVED;
use crate::retry::Deadline;
use crate::source::checkout::{reserved, set_mode};
use crate::source::{Checkout, late};

/// Names that are left out wherever they stand.
const LEFT_OUT: [&str; 2] = [".git", "__pycache__"];
/// What makes a directory a virtual environment (PEP 405).
const VENV_MARK: &str = "pyvenv.cfg";
const BUFFER: usize = 256 << 10;

/// The digest of the directory's contents: `sha256:…`.
pub(super) fn digest(from: &Path, deadline: Deadline) -> Result<String> {
    Ok(Walk::new(from, None, deadline).run()?.0)
}

/// Copies the directory to `tree`, which does not exist yet, and checks that it still is `revision`.
pub(super) fn copy(from: &Path, tree: &Path, revision: &str, deadline: Deadline) -> Result<Checkout> {
    let real = |path: &Path| path.canonicalize().on_volume(|| format!("cannot find {}", path.display()));
    let target = real(tree.parent().unwrap_or(tree))?;
    if target.starts_with(from.canonicalize().map_err(|error| unreadable(from, &error))?) {
        return Err(Error::source(format!("{} contains the root to which it is copied", from.display()))
            .hint("choose a --root outside of the directory"));
    }
    let (copied, done) = Walk::new(from, Some(tree), deadline).run()?;
    if copied != revision {
        return Err(Error::source(format!("{} changed while it was copied", from.display())).hint("try again"));
    }
    Ok(done)
}

struct Walk<'a> {
    from: &'a Path,
    to: Option<&'a Path>,
    deadline: Deadline,
    digest: Sha256,
    done: Checkout,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(from: &'a Path, to: Option<&'a Path>, deadline: Deadline) -> Self {
        let done = Checkout { files: 0, bytes: 0 };
        Self { from, to, deadline, digest: Sha256::new(), done, buffer: vec![0; BUFFER] }
    }

    fn run(mut self) -> Result<(String, Checkout)> {
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
        self.directory(Path::new(""))?;
        let mut digest = "sha256:".to_owned();
        for byte in self.digest.finalize() {
            // Writing to a String does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Ok((digest, self.done))
    }

    fn directory(&mut self, at: &Path) -> Result<()> {
        if self.deadline.passed() {
            return Err(late(&format!("cannot copy {}", self.from.display()), self.deadline));
        }
        let path = self.from.join(at);
        if let Some(to) = self.to {
            let to = to.join(at);
            fs::create_dir(&to)
                .and_then(|()| set_mode(&to, 0o755))
                .on_volume(|| format!("cannot create {}", to.display()))?;
        }
        let mut entries = fs::read_dir(&path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| unreadable(&path, &error))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (name, at) = (entry.file_name(), at.join(entry.file_name()));
            let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
            if LEFT_OUT.iter().any(|left_out| name == *left_out)
                || (kind.is_dir() && entry.path().join(VENV_MARK).exists())
            {
                tracing::debug!("left out: {}", at.display());
            } else if kind.is_dir() {
                self.record(b'd', &at, 0);
                self.directory(&at)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(|error| unreadable(&entry.path(), &error))?;
                self.link(&at, &target)?;
            } else if kind.is_file() {
                self.file(&at)?;
            } else {
                tracing::warn!("left out, as it is no file: {}", at.display());
            }
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
        self.record(b'l', at, bytes.len() as u64);
        self.digest.update(bytes);
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
                .map_err(|error| volume(&error, to)),
            None => Ok(()),
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::source(format!("cannot read {}", path.display())).because(io::Error::new(error.kind(), error.to_string()))
}
