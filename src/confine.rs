//! Keeps child processes from the files that others put on the volume.
//!
//! pip, uv and Python work with paths. If another user can rename podstrap's directory in the root, that user can put
//! a program of his own at such a path, and podstrap would run it as its own user, which may be root. Landlock
//! (Linux 5.19 or later, no privileges needed; landlock(7)) decides by the file, not by the path: below the root,
//! children may use podstrap's staging directory and what belongs to podstrap's user or to root. Nothing changes
//! elsewhere.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError,
};
use rustix::fs::OFlags;

use crate::dir::Dir;
use crate::files;

/// The rules for children.
#[derive(Debug)]
pub struct Confinement(RulesetCreated);

impl Confinement {
    /// Below `root`, allows only `staging` and the entries of `user` and root, apart from `without`. `None`: the
    /// kernel has no Landlock, or an old one.
    pub(crate) fn new(root: &Dir, staging: &Dir, without: &str, user: u32) -> Option<Self> {
        match rules(root, staging, without, user) {
            Ok(rules) => Some(Self(rules)),
            Err(error) => {
                tracing::debug!("cannot confine child processes: {error}");
                None
            }
        }
    }

    /// Runs `start` on a thread of its own. The processes that it starts are confined.
    pub(crate) fn start<T: Send>(&self, start: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let rules = self.0.try_clone()?;
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                rules.restrict_self().map_err(io::Error::other)?;
                let _runtime = runtime.enter();
                start()
            })?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts a child failed")))
        })
    }
}

/// Whether the kernel can confine child processes.
pub fn is_available() -> bool {
    empty().is_ok()
}

/// The rights that the rules limit. Listing, creating and deleting stay free.
fn all() -> BitFlags<AccessFs> {
    AccessFs::Execute | AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::Refer
}

/// Rules that allow nothing.
fn empty() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        // Without the right to rename between directories (`Refer`), the kernel forbids all such renames.
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all() & !BitFlags::from(AccessFs::Truncate))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Truncate)?
        .create()
}

fn rules(root: &Dir, staging: &Dir, without: &str, user: u32) -> Result<RulesetCreated, RulesetError> {
    let all = all();
    let mut rules = empty()?.add_rule(PathBeneath::new(staging.handle(), all))?;
    let real = root.path().canonicalize().unwrap_or_else(|_| root.path().to_owned());
    let mut below = real.as_path();
    while let (Some(parent), Some(name)) = (below.parent(), below.file_name()) {
        rules = beside(rules, parent, all, |entry, _| entry != Path::new(name))?;
        below = parent;
    }
    beside(rules, &real, all, |entry, meta| entry != Path::new(without) && [0, user].contains(&meta.uid()))
}

/// Allows the entries of a directory that pass. Leaves out those that cannot be opened.
fn beside(
    mut rules: RulesetCreated,
    dir: &Path,
    all: BitFlags<AccessFs>,
    passes: impl Fn(&Path, &fs::Metadata) -> bool,
) -> Result<RulesetCreated, RulesetError> {
    let flags = i32::from_ne_bytes((OFlags::PATH | OFlags::NOFOLLOW).bits().to_ne_bytes());
    for name in files::names(dir).unwrap_or_default() {
        let opened: io::Result<File> = File::options().read(true).custom_flags(flags).open(dir.join(&name));
        let Ok(file) = opened else { continue };
        let Ok(meta) = file.metadata() else { continue };
        // A link leads to a file with a rule of its own.
        if meta.is_symlink() || !passes(Path::new(&name), &meta) {
            continue;
        }
        let access = if meta.is_dir() { all } else { all & !BitFlags::from(AccessFs::Refer) };
        rules = rules.add_rule(PathBeneath::new(file.as_fd(), access))?;
    }
    Ok(rules)
}
