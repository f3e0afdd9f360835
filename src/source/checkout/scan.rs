//! Measures a tree before any of it is written: its size, and the writer that it needs.

use std::collections::HashMap;
use std::path::Path;

use git2::{ObjectType, Oid};

use crate::error::{Error, Result};
use crate::size::Size;
use crate::source::checkout::attributes::{self, Attributes};
use crate::source::checkout::entries::{Entries, Step, too_long};
use crate::source::objects::{FileKind, MAX_OBJECT, Objects};
use crate::tree::too_large;

/// The properties of a tree that decide how to write it.
#[derive(Default)]
pub(super) struct Scan {
    /// The space that it will occupy.
    pub(super) bytes: u64,
    /// Counted once for each distinct directory, like `submodules`.
    pub(super) links: u64,
    pub(super) submodules: u64,
    /// Whether libgit2 must validate a name.
    dubious: bool,
    pub(super) attributes: Attributes,
}

impl Scan {
    /// Whether the plain writer can write the tree.
    pub(super) fn plain(&self) -> bool {
        !self.dubious && !self.attributes.convert()
    }
}

/// The size of a directory with all its contents.
#[derive(Clone, Copy, Default)]
struct Total {
    /// Space on the volume.
    bytes: u64,
    /// Length of the longest path below it.
    longest: usize,
}

impl Total {
    fn add(&mut self, name: usize, below: Self) {
        self.bytes = self.bytes.saturating_add(below.bytes);
        let path = if below.longest == 0 { name } else { name + 1 + below.longest };
        self.longest = self.longest.max(path);
    }
}

/// Inspects every object once, however many entries refer to it, and inflates no file: it detects a bomb at
/// once. `longest` is the limit for the length of a path.
pub(super) fn scan(objects: &Objects<'_>, root: Oid, longest: usize, limit: Size) -> Result<Scan> {
    let (mut scan, mut found) = (Scan::default(), HashMap::new());
    let mut known = HashMap::<Oid, Total>::new();
    let mut totals = vec![(root, 0, Total { bytes: Size::occupied(0), longest: 0 })];
    let mut entries = Entries::new(objects, root)?;
    while let Some(step) = entries.next()? {
        let (name, total) = match step {
            Step::Entry { name, oid, kind } => {
                scan.dubious |= dubious(&name);
                scan.links += u64::from(matches!(kind, FileKind::Link));
                scan.submodules += u64::from(matches!(kind, FileKind::Submodule));
                if name == attributes::FILE && matches!(kind, FileKind::Regular { .. }) {
                    found.entry(oid).or_insert_with(|| entries.path.clone());
                }
                let flat = |bytes| Total { bytes, longest: 0 };
                let total = match kind {
                    FileKind::Directory => {
                        let Some(total) = known.get(&oid) else {
                            entries.enter(oid)?;
                            totals.push((oid, name.len(), flat(Size::occupied(0))));
                            continue;
                        };
                        *total
                    }
                    FileKind::Submodule => flat(Size::occupied(0)),
                    FileKind::Link | FileKind::Regular { .. } => flat(measure(objects, oid, &entries.path)?),
                };
                (name.len(), total)
            }
            Step::Leave => {
                let Some((oid, name, total)) = totals.pop() else { break };
                known.insert(oid, total);
                scan.bytes = total.bytes;
                (name, total)
            }
        };
        if let Some((.., parent)) = totals.last_mut() {
            parent.add(name, total);
            if parent.bytes > limit.0 {
                return Err(too_large(objects.what, "the files take", parent.bytes, limit));
            }
            if parent.longest > longest {
                return Err(too_long(objects.what));
            }
        }
    }
    scan.attributes.read(objects, &found)?;
    Ok(scan)
}

/// The space that a file or a link will occupy.
fn measure(objects: &Objects<'_>, oid: Oid, path: &Path) -> Result<u64> {
    let (size, kind) = objects.header(oid)?;
    if kind != ObjectType::Blob {
        return Err(Error::source(objects.what).because(format!("{} is a {kind}, not a file", path.display())));
    }
    if size > MAX_OBJECT as u64 {
        let (size, most) = (Size(size), Size(MAX_OBJECT as u64));
        return Err(Error::source(objects.what)
            .because(format!(
                "{} has {size}; the limit for a file of a repository is {most}, because podstrap holds it in memory",
                path.display()
            ))
            .hint("keep data of that size out of the repository, and mount or download it"));
    }
    Ok(Size::occupied(size))
}

/// Whether libgit2 must validate the name: it might be `.git` to some file system, by case, by code points that
/// HFS+ ignores, or by NTFS's trailing characters, streams and short names. Not so `.gitignore` and similar
/// names.
pub(super) fn dubious(name: &[u8]) -> bool {
    let ascii: Vec<u8> = name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase).collect();
    let poses = ascii
        .strip_prefix(b".git")
        .is_some_and(|rest| !rest.first().is_some_and(|next| next.is_ascii_alphanumeric() || b"-_".contains(next)));
    poses || ascii.starts_with(b"git~") || name.contains(&b'\\')
}

/// libgit2, which protects other file systems as well, accepts every name that podstrap does not leave to it.
#[cfg(fuzzing)]
pub fn fuzz(name: &[u8]) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::PathBuf;

    use git2::Repository;

    thread_local! {
        static REPOSITORY: (PathBuf, Repository, Oid) = {
            let path = std::env::temp_dir().join(format!("podstrap-fuzz-{}", std::process::id()));
            crate::source::objects::create(&path).expect("the temporary directory is writable");
            let repo = Repository::open_bare(&path).expect("it was just made");
            let blob = repo.blob(b"").expect("the temporary directory is writable");
            (path, repo, blob)
        };
    }
    // `Entries` refuses these, and a tree cannot contain a NUL.
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) || dubious(name) {
        return;
    }
    // libgit2 mistakes U+0347 for a G, because it compares only the lowest byte.
    if String::from_utf8_lossy(name)
        .chars()
        .any(|c| !c.is_ascii() && u32::from(c).to_le_bytes()[0].is_ascii_alphabetic())
    {
        return;
    }
    REPOSITORY.with(|(_, repo, blob)| {
        let mut builder = repo.treebuilder(None).expect("an empty tree");
        let added = builder.insert(OsStr::from_bytes(name), *blob, 0o100_644).map(|_| ());
        assert!(added.is_ok(), "{} {:?}", name.escape_ascii(), added.err());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_pose_as_gits_directory_are_left_to_libgit2() {
        let dubious_names: [&[u8]; 9] =
            [b".git", b".GiT", b".git.", b".git ", b".git:x", b"git~1", b"GIT~2x", b".g\xe2\x80\x8cit", b"a\\b"];
        for name in dubious_names {
            assert!(dubious(name), "{}", String::from_utf8_lossy(name));
        }
        for name in [".gitignore", ".github", ".git-blame-ignore-revs", "git", "...", "na\u{ef}ve", "x.git"] {
            assert!(!dubious(name.as_bytes()), "{name}");
        }
    }
}
