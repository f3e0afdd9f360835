//! Git attributes (gitattributes(5)): reads the attributes files of a tree, writes the tree with libgit2, which
//! converts line endings, and warns about attributes that podstrap does not support.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use git2::build::CheckoutBuilder;
use git2::{AttrCheckFlags, AttrValue, IndexEntry, IndexTime, Oid, Repository, Tree};

use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::source::checkout::entries::{Entries, Step};
use crate::source::objects::{FileKind, Objects, create, failure};
use crate::tree::{self, few};

/// The name of an attributes file.
pub(super) const FILE: &[u8] = NAME.as_bytes();
const NAME: &str = ".gitattributes";
/// The attribute for the encoding of a checked-out file.
const ENCODING: &str = "working-tree-encoding";
/// The attribute for the name of the object in each `$Id$`, which podstrap does not support.
const IDENT: &[u8] = b"ident";
/// Overrides `ident` for every file: libgit2 would expand the first `$Id$` of each.
const NO_IDENT: &str = "* -ident\n";
/// Git and libgit2 read no larger attributes file (`ATTR_MAX_FILE_SIZE` in attr.h).
const MAX_ATTRIBUTES: u64 = 100 << 20;

/// The relevant attributes of a tree.
#[derive(Default)]
pub(super) struct Attributes {
    /// Whether line endings may need a conversion.
    crlf: bool,
    /// Whether some file has [`ENCODING`].
    recode: bool,
    /// The attributes files that set [`IDENT`].
    ident: Vec<PathBuf>,
    /// The attributes files with quoted patterns.
    quoted: Vec<PathBuf>,
}

impl Attributes {
    /// Whether libgit2 must write the tree.
    pub(super) fn convert(&self) -> bool {
        self.crlf || self.recode
    }

    /// Reads attributes files, each at one of its paths, except those that are too large for Git.
    pub(super) fn read(&mut self, objects: &Objects<'_>, files: &HashMap<Oid, PathBuf>) -> Result<()> {
        let mut wanted = HashSet::new();
        for id in files.keys() {
            if objects.header(*id)?.0 <= MAX_ATTRIBUTES {
                wanted.insert(*id);
            }
        }
        let noted = Mutex::new(&mut *self);
        objects.each(&wanted, |id, text| {
            if let Some(path) = files.get(&id) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).note(text, path);
            }
            Ok(())
        })?;
        self.ident.sort_unstable();
        self.quoted.sort_unstable();
        Ok(())
    }

    /// Reads the attributes file of one directory, if there is one.
    pub(super) fn read_in(&mut self, objects: &Objects<'_>, whole: Oid, directory: &Path) -> Result<()> {
        let path = directory.join(NAME);
        match objects.find(whole, &path)? {
            Some((id, FileKind::Regular { .. })) => self.read(objects, &HashMap::from([(id, path)])),
            _ => Ok(()),
        }
    }

    /// Notes the attributes in `text`. libgit2 converts line endings for `eol` and `crlf`, and for `text` only
    /// with `eol`: its default on Linux is to leave them.
    fn note(&mut self, text: &[u8], path: &Path) {
        let says = |word: &[u8]| text.windows(word.len()).any(|text| text == word);
        self.recode |= says(ENCODING.as_bytes());
        self.crlf |= says(b"crlf");
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if lines.clone().any(|line| line.starts_with(b"\"")) {
            self.quoted.push(path.to_owned());
        }
        if lines.any(asks_for_ident) {
            self.ident.push(path.to_owned());
        }
    }

    /// Warns about the attributes that podstrap does not support.
    pub(super) fn warn(&self) {
        warn(&self.ident, "podstrap does not support the Git attribute ident and leaves $Id$ unchanged");
        if self.convert() {
            warn(
                &self.quoted,
                "podstrap does not support patterns in quotes, and does not convert the files that they match",
            );
        }
    }
}

/// Whether a line sets [`IDENT`] for a pattern or in a macro.
fn asks_for_ident(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).skip(1);
    !line.starts_with(b"#") && words.any(|word| word == IDENT)
}

/// Writes `files` to `tree` with libgit2. `files` is the part of `whole` at `subdir`, or all of it. `scratch` is
/// a directory on the same file system.
#[expect(clippy::too_many_arguments, reason = "one caller")]
pub(super) fn write(
    repo: &Repository,
    objects: &Objects<'_>,
    whole: Oid,
    files: Oid,
    subdir: Option<&Path>,
    tree: &Path,
    scratch: &Path,
    attributes: &Attributes,
) -> Result<()> {
    let overriding = repo.path().join("info/attributes");
    fs::create_dir_all(overriding.with_file_name(""))
        .and_then(|()| fs::write(&overriding, NO_IDENT))
        .on_volume(|| format!("cannot write {}", overriding.display()))?;
    let failed = |error: git2::Error| objects.failed(&error);
    let all = repo.find_tree(whole).map_err(failed)?;
    if let Some(path) = subdir {
        // At its original path, libgit2 finds the attributes above the part.
        let beside = scratch.join("checkout");
        fs::create_dir(&beside).on_volume(|| format!("cannot create {}", beside.display()))?;
        check_out(repo, &all, Some(path), &beside).map_err(failed)?;
        fs::rename(beside.join(path), tree)
            .and_then(|()| tree::remove(&beside))
            .on_volume(|| format!("cannot move the checkout to {}", tree.display()))?;
    } else {
        check_out(repo, &all, None, tree).map_err(failed)?;
    }
    if attributes.recode {
        name_recoded(repo, objects, files, subdir.unwrap_or(Path::new("")))?;
    }
    // Keep it out of a published `.git`.
    fs::remove_file(&overriding).on_volume(|| format!("cannot remove {}", overriding.display()))
}

/// Writes all of `files`, or the part at `subdir`, to the same path below `tree`.
fn check_out(repo: &Repository, files: &Tree<'_>, subdir: Option<&Path>, tree: &Path) -> Result<(), git2::Error> {
    // libgit2 looks attributes up in the index and in the working directory.
    repo.set_workdir(tree, false)?;
    let mut index = repo.index()?;
    index.read_tree(files)?;
    index.write()?;
    let mut options = CheckoutBuilder::new();
    options.force().update_index(false);
    if let Some(path) = subdir {
        options.disable_pathspec_match(true).path(path);
    }
    repo.checkout_tree(files.as_object(), Some(&mut options))
}

/// Warns about the files that Git would recode. `root` is the part of the repository at `at`.
fn name_recoded(repo: &Repository, objects: &Objects<'_>, root: Oid, at: &Path) -> Result<()> {
    let (mut entries, mut recoded) = (Entries::new(objects, root)?, Vec::new());
    while let Some(step) = entries.next()? {
        match step {
            Step::Entry { kind: FileKind::Regular { .. }, .. } => {
                let path = at.join(&entries.path);
                let value = repo.get_attr_bytes(&path, ENCODING, AttrCheckFlags::INDEX_ONLY);
                if recodes(AttrValue::always_bytes(value.map_err(|error| objects.failed(&error))?)) {
                    recoded.push(entries.path.clone());
                }
            }
            Step::Entry { kind: FileKind::Directory, oid, .. } => entries.enter(oid)?,
            _ => {}
        }
    }
    warn(&recoded, "files with a working-tree-encoding are published in UTF-8, as Git stores them");
    Ok(())
}

/// Looks up attributes of paths. libgit2 reads the attributes files, from a repository with nothing else.
pub(super) struct Lookup(Repository);

impl Lookup {
    /// For `paths` of the commit `whole`, each in the directory `subdir`.
    pub(super) fn of<'p>(
        objects: &Objects<'_>,
        whole: Oid,
        subdir: Option<&Path>,
        paths: impl Iterator<Item = &'p PathBuf>,
        scratch: &Path,
    ) -> Result<Self> {
        let top = subdir.unwrap_or(Path::new(""));
        let directories: BTreeSet<PathBuf> =
            paths.flat_map(|path| top.join(path).ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>()).collect();
        let mut files = Vec::new();
        for directory in directories {
            let path = directory.join(NAME);
            if let Some((id, FileKind::Regular { .. })) = objects.find(whole, &path)?
                && objects.header(id)?.0 <= MAX_ATTRIBUTES
            {
                files.push((path, objects.read(id)?.to_vec()));
            }
        }
        Self::new(&files, &scratch.join("attributes"))
    }

    /// For these attributes files. `dir` is a path for the repository.
    fn new(files: &[(PathBuf, Vec<u8>)], dir: &Path) -> Result<Self> {
        if files::exists(dir)? {
            tree::remove(dir).on_volume(|| format!("cannot remove {}", dir.display()))?;
        }
        create(dir)?;
        let fill = || {
            let repo = Repository::open_bare(dir)?;
            let mut index = repo.index()?;
            for (path, text) in files {
                let path = path.as_os_str().as_bytes().to_owned();
                let none = IndexTime::new(0, 0);
                let id = repo.blob(text)?;
                let (mode, file_size) = (0o100_644, u32::try_from(text.len()).unwrap_or(u32::MAX));
                let (dev, ino, uid, gid, flags, flags_extended) = (0, 0, 0, 0, 0, 0);
                index.add(&IndexEntry {
                    ctime: none,
                    mtime: none,
                    dev,
                    ino,
                    mode,
                    uid,
                    gid,
                    file_size,
                    id,
                    flags,
                    flags_extended,
                    path,
                })?;
            }
            index.write()?;
            Ok(repo)
        };
        fill().map(Self).map_err(|error: git2::Error| failed(&error))
    }

    /// Whether a path has an attribute with this value.
    pub(super) fn has(&self, path: &Path, name: &str, wanted: &str) -> Result<bool> {
        let value = self.0.get_attr_bytes(path, name, AttrCheckFlags::INDEX_ONLY).map_err(|error| failed(&error))?;
        Ok(AttrValue::always_bytes(value) == AttrValue::Bytes(wanted.as_bytes()))
    }
}

fn failed(error: &git2::Error) -> Error {
    failure("cannot read the Git attributes of the repository", error).permanent()
}

/// The patterns of `lfs.fetchinclude` and `lfs.fetchexclude`, which are those of gitignore(5): a pattern without a slash
/// matches at any depth, and a directory matches everything in it.
pub(super) struct Patterns {
    /// None: nothing is left out.
    lookup: Option<Lookup>,
    includes: bool,
}

impl Patterns {
    const INCLUDE: &str = "include";
    const EXCLUDE: &str = "exclude";

    pub(super) fn new(include: &[String], exclude: &[String], scratch: &Path) -> Result<Self> {
        let mut text = String::new();
        for (patterns, name) in [(include, Self::INCLUDE), (exclude, Self::EXCLUDE)] {
            for pattern in patterns {
                let pattern = pattern.trim_end_matches('/').replace(char::is_whitespace, "?");
                let pattern = if pattern.contains('/') { pattern } else { format!("**/{pattern}") };
                let pattern = pattern.trim_start_matches('/');
                text += &format!("/{pattern} {name}=yes\n/{pattern}/** {name}=yes\n");
            }
        }
        let files = [(PathBuf::from(NAME), text.into_bytes())];
        let is_empty = include.is_empty() && exclude.is_empty();
        let lookup = if is_empty { None } else { Some(Lookup::new(&files, &scratch.join("patterns"))?) };
        Ok(Self { lookup, includes: !include.is_empty() })
    }

    pub(super) fn allow(&self, path: &Path) -> Result<bool> {
        let Some(lookup) = &self.lookup else { return Ok(true) };
        let included = !self.includes || lookup.has(path, Self::INCLUDE, "yes")?;
        Ok(included && !lookup.has(path, Self::EXCLUDE, "yes")?)
    }
}

/// Whether the value is an encoding other than UTF-8. Git accepts two names for UTF-8, in any case (utf8.c,
/// `same_utf_encoding`).
fn recodes(value: AttrValue<'_>) -> bool {
    let AttrValue::Bytes(name) = value else { return false };
    ![&b"utf-8"[..], b"utf8"].iter().any(|utf8| name.eq_ignore_ascii_case(utf8))
}

fn warn(paths: &[PathBuf], what: &str) {
    if !paths.is_empty() {
        tracing::warn!("{what}: {}", few(paths));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_set_ident_are_told_from_those_that_do_not() {
        for (line, asks) in [
            ("*.c ident", true),
            ("* text=auto\tident eol=lf", true),
            ("[attr]mine text ident", true),
            ("*.c -ident", false),
            ("*.c !ident", false),
            ("*.c ident=x", false),
            ("# *.c ident", false),
            ("ident text", false),
            ("", false),
        ] {
            assert_eq!(asks_for_ident(line.as_bytes()), asks, "{line}");
        }
    }
}
