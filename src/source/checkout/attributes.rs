//! Git attributes: what a tree's files of attributes ask for, libgit2's writer, which converts line
//! endings for them, and a warning for each attribute that podstrap does not support (gitattributes(5)).

use std::fs;
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{AttrCheckFlags, AttrValue, Oid, Repository, Tree};

use crate::error::{IoContext, Result};
use crate::source::checkout::entries::{Entries, FileKind, Objects, Step};
use crate::tree::few;

/// The name of a file of attributes.
pub(super) const FILE: &[u8] = b".gitattributes";
/// Names what a file is recoded to when it is checked out.
const ENCODING: &str = "working-tree-encoding";
/// Makes Git write the object's name into each `$Id$`, which podstrap does not do.
const IDENT: &[u8] = b"ident";
/// Overrides `ident` for every file: libgit2 would expand the first `$Id$` of each.
const NO_IDENT: &str = "* -ident\n";
/// Git, and libgit2, read no larger file of attributes (`ATTR_MAX_FILE_SIZE` in attr.h).
const MAX_ATTRIBUTES: usize = 100 << 20;

/// What the files of attributes of a tree ask for.
#[derive(Default)]
pub(super) struct Attributes {
    /// Whether line endings may have to be converted.
    crlf: bool,
    /// Whether some file has [`ENCODING`].
    recode: bool,
    /// The files that ask for [`IDENT`].
    ident: Vec<PathBuf>,
    /// The files with patterns in quotes.
    quoted: Vec<PathBuf>,
}

impl Attributes {
    /// Whether libgit2 has to write the tree.
    pub(super) fn convert(&self) -> bool {
        self.crlf || self.recode
    }

    /// Notes what the file at `path` asks for, if it counts.
    pub(super) fn read(&mut self, objects: &Objects<'_>, oid: Oid, path: &Path) -> Result<()> {
        let (size, _) = objects.odb.read_header(oid).map_err(|error| objects.failed(&error))?;
        if size <= MAX_ATTRIBUTES {
            self.note(objects.read(oid)?.data(), path);
        }
        Ok(())
    }

    /// Notes what the file of one directory asks for, if it has one.
    pub(super) fn read_in(&mut self, objects: &Objects<'_>, whole: &Tree<'_>, directory: &Path) -> Result<()> {
        let path = directory.join(".gitattributes");
        match whole.get_path(&path) {
            Ok(entry) if matches!(FileKind::of(entry.filemode()), FileKind::Regular { .. }) => {
                self.read(objects, entry.id(), &path)
            }
            _ => Ok(()),
        }
    }

    /// libgit2 converts line endings (eol, crlf, and text only if eol says so: on Linux its own
    /// choice is to leave them).
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

    /// Warns of what podstrap does not do.
    pub(super) fn warn(&self) {
        warn(&self.ident, "podstrap does not support the Git attribute ident and leaves $Id$ unchanged");
        if self.convert() {
            warn(&self.quoted, "patterns in quotes are not understood, and the files they are for not converted");
        }
    }
}

/// Whether a line sets [`IDENT`] for a pattern, or in a macro.
fn asks_for_ident(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).skip(1);
    !line.starts_with(b"#") && words.any(|word| word == IDENT)
}

/// Writes `files` to `tree` with libgit2. They are the part of `whole` at `subdir`, or all of it;
/// `scratch` is a directory on the same file system.
pub(super) fn write<'a>(
    objects: &Objects<'a>,
    whole: &Tree<'a>,
    files: &Tree<'a>,
    subdir: Option<&Path>,
    tree: &Path,
    scratch: &Path,
    attributes: &Attributes,
) -> Result<()> {
    let overriding = objects.repo.path().join("info/attributes");
    fs::create_dir_all(overriding.with_file_name(""))
        .and_then(|()| fs::write(&overriding, NO_IDENT))
        .on_volume(|| format!("cannot write {}", overriding.display()))?;
    let failed = |error: git2::Error| objects.failed(&error);
    if let Some(path) = subdir {
        // Attributes above a part are found where they are.
        let beside = scratch.join("checkout");
        fs::create_dir(&beside).on_volume(|| format!("cannot create {}", beside.display()))?;
        check_out(objects.repo, whole, Some(path), &beside).map_err(failed)?;
        fs::rename(beside.join(path), tree)
            .and_then(|()| fs::remove_dir_all(&beside))
            .on_volume(|| format!("cannot move the checkout to {}", tree.display()))?;
    } else {
        check_out(objects.repo, whole, None, tree).map_err(failed)?;
    }
    if attributes.recode {
        name_recoded(objects, files, subdir.unwrap_or(Path::new("")))?;
    }
    // A `.git` that is kept does not get it.
    fs::remove_file(&overriding).on_volume(|| format!("cannot remove {}", overriding.display()))
}

/// Writes the whole of `files`, or the part of it at `subdir`, to the same path below `tree`.
fn check_out(repo: &Repository, files: &Tree<'_>, subdir: Option<&Path>, tree: &Path) -> Result<(), git2::Error> {
    // Attributes are looked up in the index and in the working directory.
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

/// Names the files that Git would recode. `root` is the part of the repository at `at`.
fn name_recoded<'a>(objects: &Objects<'a>, root: &Tree<'a>, at: &Path) -> Result<()> {
    let (mut entries, mut recoded) = (Entries::new(objects, root)?, Vec::new());
    while let Some(step) = entries.next()? {
        match step {
            Step::Entry { kind: FileKind::Regular { .. }, .. } => {
                let path = at.join(&entries.path);
                let value = objects.repo.get_attr_bytes(&path, ENCODING, AttrCheckFlags::INDEX_ONLY);
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

/// Whether it is an encoding other than UTF-8, which Git knows by two names, in any case (utf8.c,
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
