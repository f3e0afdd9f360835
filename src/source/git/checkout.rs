//! A commit's files. No code of the repository runs, nothing is written through a link of the
//! repository, and names that would leave the tree or pose as Git's own directory are refused.
//!
//! Two writers give the same tree. libgit2's knows attributes and judges names, and takes most of
//! a clone's time: it looks at everything on disk again and again. The plain one writes blobs as
//! they are; it is used when no attribute asks for a conversion and no name needs a second look.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{AttrCheckFlags, AttrValue, Commit, ErrorCode, ObjectType, Odb, Oid, Repository, Tree};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::error::{Error, IoContext, Result, volume_error};
use crate::plan::{GitSource, GitUrl, RESERVED, Submodules};
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::git::refs::Choice;
use crate::source::git::transport::MAX_OBJECT;
use crate::source::git::{Place, failure, submodules};
use crate::source::{Checkout, late, lfs, named, reserved, set_mode, too_large};

/// How many directories a hint names.
const LISTED: usize = 8;
/// The longest path that the kernel takes, the NUL at its end included (`PATH_MAX` in limits.h).
const PATH_MAX: usize = 4096;
/// What the directories on the way to one file may take as objects: a million entries and more.
const MAX_TREES: usize = 64 << 20;
/// Names what a file is recoded to when it is checked out (gitattributes(5)).
const ENCODING: &str = "working-tree-encoding";
/// Makes Git write the object's name into each `$Id$`, which podstrap does not do (gitattributes(5)).
const IDENT: &[u8] = b"ident";
/// Overrides `ident` for every file: libgit2 would expand the first `$Id$` of each.
const NO_IDENT: &str = "* -ident\n";
/// Git, and libgit2, read no larger file of attributes (`ATTR_MAX_FILE_SIZE` in attr.h).
const MAX_ATTRIBUTES: usize = 100 << 20;

/// What was written, and what else belongs to it.
pub(super) struct Written {
    pub(super) checkout: Checkout,
    /// To be fetched from elsewhere; their directories are there, and empty.
    pub(super) submodules: Vec<Submodule>,
}

/// A commit of another repository that the tree names.
pub(super) struct Submodule {
    /// In the tree.
    pub(super) path: PathBuf,
    /// As `.gitmodules` has it.
    pub(super) url: String,
    pub(super) commit: Oid,
}

/// Writes the chosen commit's files.
pub(super) fn write(
    repo: &Repository,
    source: &GitSource,
    choice: &Choice,
    place: Place<'_>,
    deadline: Deadline,
) -> Result<Written> {
    let Place { tree, scratch, subdir, limit, lfs_pointers } = place;
    let commit = find(repo, choice, &source.url)?;
    let what = format!("cannot check out {} of {}", commit.id(), source.url);
    let failed = |error: git2::Error| failure(&what, &error).permanent();
    let whole = commit.tree().map_err(failed)?;
    let files = match subdir {
        Some(path) => part(repo, &whole, path, &what)?,
        None => whole.clone(),
    };
    if files.get_name_bytes(RESERVED.as_bytes()).is_some() {
        return Err(reserved(format!("{} has an entry {RESERVED} at its top level", source.url)));
    }
    let objects =
        Objects { repo, odb: repo.odb().map_err(failed)?, what: &what, deadline, pointers: RefCell::default() };
    let mut scan = objects.scan(&files, PATH_MAX - 1 - tree.as_os_str().len(), limit)?;
    // What stands above a part counts for it as well.
    let above = subdir.into_iter().flat_map(|path| path.ancestors().skip(1));
    for directory in above {
        objects.attributes_in(&whole, directory, &mut scan)?;
    }
    match fs::create_dir(tree) {
        // A submodule's directory.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_empty(tree) => {}
        made => made.on_volume(|| format!("cannot create {}", tree.display()))?,
    }
    if scan.plain {
        // Links last: until then no path below `tree` leads through one.
        objects.write(&files, tree, |kind| !matches!(kind, FileKind::Link))?;
        if scan.links > 0 {
            objects.write(&files, tree, |kind| matches!(kind, FileKind::Link))?;
        }
    } else {
        leave_ids(repo)?;
        warn_named(&scan.quoted, "patterns in quotes are not understood, and the files they are for not converted");
        // Attributes above a part are found where they are.
        let beside = subdir.map(|path| (scratch.join("checkout"), path));
        if let Some((beside, path)) = &beside {
            fs::create_dir(beside).on_volume(|| format!("cannot create {}", beside.display()))?;
            write_with_libgit2(repo, &whole, Some(path), beside).map_err(failed)?;
            fs::rename(beside.join(path), tree)
                .and_then(|()| fs::remove_dir_all(beside))
                .on_volume(|| format!("cannot move the checkout to {}", tree.display()))?;
        } else {
            write_with_libgit2(repo, &whole, None, tree).map_err(failed)?;
        }
        if scan.recodes {
            objects.name_recoded(&files, subdir.unwrap_or(Path::new("")))?;
        }
        // A `.git` that is kept does not get it.
        let overriding = overriding(repo);
        fs::remove_file(&overriding).on_volume(|| format!("cannot remove {}", overriding.display()))?;
    }
    warn_named(&scan.ident, "podstrap does not support the Git attribute ident and leaves $Id$ unchanged");
    let checkout = objects.settle(tree, &scan, &commit)?;
    lfs::judge(&what, &objects.pointers.borrow(), lfs_pointers)?;
    let submodules = match scan.submodules {
        0 => Vec::new(),
        _ if source.submodules == Submodules::Off => {
            let found = objects.gitlinks(&files)?;
            let paths: Vec<PathBuf> = found.into_iter().map(|(path, _)| path).collect();
            tracing::warn!("not fetched, as --submodules says: {} empty: {}", stay(paths.len()), named(&paths));
            Vec::new()
        }
        _ => objects.submodules(&whole, &files, subdir, scratch)?,
    };
    Ok(Written { checkout, submodules })
}

/// The directory of the repository that becomes the tree.
fn part<'repo>(repo: &'repo Repository, whole: &Tree<'repo>, path: &Path, what: &str) -> Result<Tree<'repo>> {
    let refused = |why: String| Err(Error::source(what).because(format!("--subdir {}: {why}", path.display())));
    let mut at = whole.clone();
    let mut seen = PathBuf::new();
    for name in path {
        let Some(entry) = at.get_name_bytes(name.as_bytes()) else {
            let names = at.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree));
            let names: Vec<_> = names.map(|entry| String::from_utf8_lossy(entry.name_bytes()).into_owned()).collect();
            let place = if seen.as_os_str().is_empty() { "the repository".into() } else { seen.display().to_string() };
            return refused(format!("there is no {} in {place}", name.display()))
                .map_err(|error| error.hint(format!("the directories in {place}: {}", listed(&names))));
        };
        seen.push(name);
        let kind = FileKind::of(entry.filemode());
        let next = match kind {
            FileKind::Directory => entry
                .to_object(repo)
                .and_then(|object| object.peel_to_tree())
                .map_err(|error| failure(what, &error).permanent())?,
            FileKind::Submodule => {
                return refused(format!("{} is a submodule", seen.display()))
                    .map_err(|error| error.hint("name the submodule's own repository with --repo"));
            }
            FileKind::Link => return refused(format!("{} is a symbolic link", seen.display())),
            FileKind::Regular { .. } => return refused(format!("{} is a file", seen.display())),
        };
        drop(entry);
        at = next;
    }
    Ok(at)
}

/// A few names, and how many more there are.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    format!("{}{more}", names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
}

fn stay(directories: usize) -> &'static str {
    if directories == 1 { "the submodule's directory stays" } else { "the submodules' directories stay" }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Writes the whole of `files`, or the part of it at `subdir`, to the same path below `tree`.
fn write_with_libgit2(
    repo: &Repository,
    files: &Tree<'_>,
    subdir: Option<&Path>,
    tree: &Path,
) -> Result<(), git2::Error> {
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

/// The file of attributes that overrides those of the tree.
fn overriding(repo: &Repository) -> PathBuf {
    repo.path().join("info/attributes")
}

/// Makes libgit2 leave every `$Id$` as it is.
fn leave_ids(repo: &Repository) -> Result<()> {
    let path = overriding(repo);
    let parent = path.parent().unwrap_or(&path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&path, NO_IDENT))
        .on_volume(|| format!("cannot write {}", path.display()))
}

fn find<'repo>(repo: &'repo Repository, choice: &Choice, url: &GitUrl) -> Result<Commit<'repo>> {
    let name = choice.reference.clone().unwrap_or_else(|| choice.commit.to_string());
    let object = repo.find_object(choice.want, None).map_err(|error| {
        if error.code() == ErrorCode::NotFound {
            return Error::source(format!("{url} has no commit {}", choice.want))
                .hint("is it pushed? Only what a branch or a tag leads to can be fetched");
        }
        failure(&format!("cannot read {name} of {url}"), &error).permanent()
    })?;
    object.peel_to_commit().map_err(|_| {
        let kind =
            object.as_tag().and_then(git2::Tag::target_type).or(object.kind()).map_or("nothing", |kind| kind.str());
        Error::source(format!("{name} of {url} leads to a {kind}, not to a commit"))
            .hint("choose a branch, a tag of a commit, or a commit with --ref")
    })
}

/// What there is to write, and how.
#[derive(Default)]
struct Scan {
    /// Entries of distinct directories.
    links: u64,
    submodules: u64,
    /// Whether a conversion is asked for, or a name needs a second look.
    plain: bool,
    /// Whether some attribute file has [`ENCODING`].
    recodes: bool,
    /// The attribute files that ask for [`IDENT`].
    ident: Vec<PathBuf>,
    /// The attribute files with patterns in quotes.
    quoted: Vec<PathBuf>,
}

/// What a directory comes to with everything in it.
#[derive(Clone, Copy, Default)]
struct Total {
    /// On the volume.
    bytes: u64,
    /// Of the longest path below it.
    longest: usize,
}

impl Total {
    fn add(&mut self, name: usize, below: Self) {
        self.bytes = self.bytes.saturating_add(below.bytes);
        let path = if below.longest == 0 { name } else { name + 1 + below.longest };
        self.longest = self.longest.max(path);
    }
}

/// A commit's objects, and what is being done with them.
struct Objects<'a> {
    repo: &'a Repository,
    odb: Odb<'a>,
    what: &'a str,
    deadline: Deadline,
    /// The files that are only pointers to what Git LFS has, as they are found.
    pointers: RefCell<Vec<PathBuf>>,
}

impl<'a> Objects<'a> {
    /// Looks at every object once, however often it is named, and inflates no file: what a bomb
    /// would come to is known at once. `longest` is how long a path may be.
    fn scan(&self, root: &Tree<'a>, longest: usize, limit: Size) -> Result<Scan> {
        let mut scan = Scan { plain: true, ..Scan::default() };
        let mut attributes = HashSet::new();
        let mut known = HashMap::<Oid, Total>::new();
        let mut totals = vec![(root.id(), 0, Total { bytes: Size::occupied(0), longest: 0 })];
        let mut walk = Walk::new(self, root)?;
        while let Some(step) = walk.next()? {
            let (name, total) = match step {
                Step::Entry { name, oid, kind } => {
                    scan.plain &= !dubious(&name);
                    scan.links += u64::from(matches!(kind, FileKind::Link));
                    scan.submodules += u64::from(matches!(kind, FileKind::Submodule));
                    if name == b".gitattributes" && matches!(kind, FileKind::Regular { .. }) && attributes.insert(oid) {
                        scan.attributes(self.attributes(oid)?.as_ref().map_or(&[], git2::OdbObject::data), &walk.path);
                    }
                    let flat = |bytes| Total { bytes, longest: 0 };
                    let total = match kind {
                        FileKind::Directory => {
                            let Some(total) = known.get(&oid) else {
                                walk.enter(oid)?;
                                totals.push((oid, name.len(), flat(Size::occupied(0))));
                                continue;
                            };
                            *total
                        }
                        FileKind::Submodule => flat(Size::occupied(0)),
                        FileKind::Link | FileKind::Regular { .. } => flat(self.measure(oid, &walk.path)?),
                    };
                    (name.len(), total)
                }
                Step::Leave => {
                    let Some((oid, name, total)) = totals.pop() else { break };
                    known.insert(oid, total);
                    (name, total)
                }
            };
            if let Some((.., parent)) = totals.last_mut() {
                parent.add(name, total);
                if parent.bytes > limit.0 {
                    return Err(too_large(self.what, "the files come to", parent.bytes, limit));
                }
                if parent.longest > longest {
                    return Err(self.too_long());
                }
            }
        }
        Ok(scan)
    }

    /// What a file or a link will occupy.
    fn measure(&self, oid: Oid, path: &Path) -> Result<u64> {
        let (size, kind) = self.odb.read_header(oid).map_err(|error| self.failed(&error))?;
        if kind != ObjectType::Blob {
            return Err(Error::source(self.what).because(format!("{} is a {kind}, not a file", path.display())));
        }
        if size > MAX_OBJECT {
            let (size, most) = (Size(size as u64), Size(MAX_OBJECT as u64));
            return Err(Error::source(self.what)
                .because(format!(
                    "{} has {size}, and a file of a repository may have {most} at most: it is held in memory",
                    path.display()
                ))
                .hint("keep data of that size out of the repository, and mount or download it"));
        }
        Ok(Size::occupied(size as u64))
    }

    /// Writes the entries of the kinds that `wanted` says.
    fn write(&self, root: &Tree<'a>, tree: &Path, wanted: impl Fn(&FileKind) -> bool) -> Result<()> {
        let mut walk = Walk::new(self, root)?;
        while let Some(step) = walk.next()? {
            let Step::Entry { oid, kind, .. } = step else { continue };
            if wanted(&kind) {
                self.write_one(oid, &kind, tree, &walk.path)?;
            }
            if matches!(kind, FileKind::Directory) {
                walk.enter(oid)?;
            }
        }
        Ok(())
    }

    fn write_one(&self, oid: Oid, kind: &FileKind, tree: &Path, name: &Path) -> Result<()> {
        let path = &tree.join(name);
        let written = match kind {
            FileKind::Directory | FileKind::Submodule => fs::create_dir(path).and_then(|()| set_mode(path, 0o755)),
            FileKind::Link => symlink(OsStr::from_bytes(self.read(oid)?.data()), path),
            FileKind::Regular { executable } => {
                let blob = self.read(oid)?;
                if lfs::is_pointer(blob.data()) {
                    self.pointers.borrow_mut().push(name.to_owned());
                }
                File::create_new(path).and_then(|mut file| {
                    file.write_all(blob.data())?;
                    // Others are settled by what they are not.
                    if *executable { file.set_permissions(fs::Permissions::from_mode(0o755)) } else { Ok(()) }
                })
            }
        };
        written.map_err(|error| match (error.kind(), kind) {
            // The directory is new: only the repository itself can have put something there.
            (ErrorKind::AlreadyExists, _) => {
                Error::source(self.what).because(format!("two entries are named {}", path.display()))
            }
            // An empty target, one with a NUL in it, a name or a target that is too long.
            (ErrorKind::InvalidInput | ErrorKind::InvalidFilename, _) | (ErrorKind::NotFound, FileKind::Link) => {
                Error::source(self.what).because(format!("{} cannot be made: {error}", path.display()))
            }
            _ => volume_error(format!("cannot write {}", path.display()), &error),
        })
    }

    /// The commits of other repositories that a tree names, with their places.
    fn gitlinks(&self, root: &Tree<'a>) -> Result<Vec<(PathBuf, Oid)>> {
        let (mut walk, mut found) = (Walk::new(self, root)?, Vec::new());
        while let Some(step) = walk.next()? {
            match step {
                Step::Entry { kind: FileKind::Submodule, oid, .. } => found.push((walk.path.clone(), oid)),
                Step::Entry { kind: FileKind::Directory, oid, .. } => walk.enter(oid)?,
                _ => {}
            }
        }
        Ok(found)
    }

    /// The same with where they come from. `whole` has the file that says so, `files` is its part at
    /// `subdir`.
    fn submodules(
        &self,
        whole: &Tree<'a>,
        files: &Tree<'a>,
        subdir: Option<&Path>,
        scratch: &Path,
    ) -> Result<Vec<Submodule>> {
        let entry = whole.get_name_bytes(submodules::FILE.as_bytes());
        let entry = entry.filter(|entry| matches!(FileKind::of(entry.filemode()), FileKind::Regular { .. }));
        let known = match entry {
            Some(entry) => submodules::read(self.read(entry.id())?.data(), scratch)?,
            None => Vec::new(),
        };
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for (path, commit) in self.gitlinks(files)? {
            let place = subdir.unwrap_or(Path::new("")).join(&path);
            match known.iter().find(|entry| entry.path == place) {
                Some(entry) => found.push(Submodule { path, url: entry.url.clone(), commit }),
                None => unknown.push(path),
            }
        }
        if !unknown.is_empty() {
            // As git clone --recurse-submodules leaves what is not active.
            let file = submodules::FILE;
            tracing::warn!("not to be fetched by {file}, {} empty: {}", stay(unknown.len()), named(&unknown));
        }
        Ok(found)
    }

    /// Notes what the attributes ask for that stand in one directory.
    fn attributes_in(&self, whole: &Tree<'a>, directory: &Path, scan: &mut Scan) -> Result<()> {
        let path = directory.join(".gitattributes");
        match whole.get_path(&path) {
            Ok(entry) if matches!(FileKind::of(entry.filemode()), FileKind::Regular { .. }) => {
                scan.attributes(self.attributes(entry.id())?.as_ref().map_or(&[], git2::OdbObject::data), &path);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Names the files that Git would recode. `root` is the part of the repository at `at`.
    fn name_recoded(&self, root: &Tree<'a>, at: &Path) -> Result<()> {
        let (mut walk, mut recoded) = (Walk::new(self, root)?, Vec::new());
        while let Some(step) = walk.next()? {
            match step {
                Step::Entry { kind: FileKind::Regular { .. }, .. } => {
                    let value = self.repo.get_attr_bytes(&at.join(&walk.path), ENCODING, AttrCheckFlags::INDEX_ONLY);
                    if recodes(AttrValue::always_bytes(value.map_err(|error| self.failed(&error))?)) {
                        recoded.push(walk.path.clone());
                    }
                }
                Step::Entry { kind: FileKind::Directory, oid, .. } => walk.enter(oid)?,
                _ => {}
            }
        }
        warn_named(&recoded, "files with a working-tree-encoding are published in UTF-8, as Git stores them");
        Ok(())
    }

    /// A file of attributes, if it counts.
    fn attributes(&self, oid: Oid) -> Result<Option<git2::OdbObject<'_>>> {
        let (size, _) = self.odb.read_header(oid).map_err(|error| self.failed(&error))?;
        (size <= MAX_ATTRIBUTES).then(|| self.read(oid)).transpose()
    }

    fn read(&self, oid: Oid) -> Result<git2::OdbObject<'_>> {
        self.odb.read(oid).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &git2::Error) -> Error {
        failure(self.what, error).permanent()
    }

    fn too_long(&self) -> Error {
        Error::source(self.what)
            .because(format!("it has paths that are longer than the {PATH_MAX} bytes of the kernel's limit"))
            .hint("nest its directories less deeply")
    }
}

impl Scan {
    /// libgit2 converts line endings (eol, crlf, and text only if eol says so: on Linux its own
    /// choice is to leave them), gitattributes(5).
    fn attributes(&mut self, text: &[u8], path: &Path) {
        let says = |word: &[u8]| text.windows(word.len()).any(|text| text == word);
        self.recodes |= says(ENCODING.as_bytes());
        self.plain &= !says(b"crlf") && !self.recodes;
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if lines.clone().any(|line| line.starts_with(b"\"")) {
            self.quoted.push(path.to_owned());
        }
        if lines.any(asks_for_ident) {
            self.ident.push(path.to_owned());
        }
    }
}

/// Whether a line sets [`IDENT`] for a pattern, or in a macro.
fn asks_for_ident(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).skip(1);
    !line.starts_with(b"#") && words.any(|word| word == IDENT)
}

/// Whether it is an encoding other than UTF-8, which Git knows by two names, in any case (utf8.c,
/// `same_utf_encoding`).
fn recodes(value: AttrValue<'_>) -> bool {
    let AttrValue::Bytes(name) = value else { return false };
    ![&b"utf-8"[..], b"utf8"].iter().any(|utf8| name.eq_ignore_ascii_case(utf8))
}

/// Goes through a commit's entries, a directory before what is in it. Its memory is that of the
/// directories on the way to where it is.
struct Walk<'a, 'o> {
    objects: &'o Objects<'a>,
    /// Each with its size as an object, and its next entry.
    open: Vec<(Tree<'a>, usize, usize)>,
    /// Of the last entry, in the tree.
    path: PathBuf,
    /// Whether that entry was not entered: the next one takes its place in the path.
    beside: bool,
}

enum Step {
    Entry {
        name: Vec<u8>,
        oid: Oid,
        kind: FileKind,
    },
    /// All of a directory has been seen.
    Leave,
}

impl<'a, 'o> Walk<'a, 'o> {
    fn new(objects: &'o Objects<'a>, root: &Tree<'a>) -> Result<Self> {
        let mut walk = Self { objects, open: Vec::new(), path: PathBuf::new(), beside: false };
        walk.enter(root.id())?;
        Ok(walk)
    }

    fn next(&mut self) -> Result<Option<Step>> {
        let Objects { what, deadline, .. } = *self.objects;
        if deadline.passed() {
            return Err(late(what, deadline));
        }
        if std::mem::take(&mut self.beside) {
            self.path.pop();
        }
        let Some((tree, _, next)) = self.open.last_mut() else { return Ok(None) };
        let Some(entry) = tree.get(*next) else {
            self.open.pop();
            self.path.pop();
            return Ok(Some(Step::Leave));
        };
        *next += 1;
        let name = entry.name_bytes();
        // libgit2 would take a name with a slash for a path.
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            let name = String::from_utf8_lossy(name);
            return Err(Error::source(what).because(format!("an entry is named {name:?}, which is no name")));
        }
        self.path.push(OsStr::from_bytes(name));
        self.beside = true;
        Ok(Some(Step::Entry { name: name.to_owned(), oid: entry.id(), kind: FileKind::of(entry.filemode_raw()) }))
    }

    /// Goes on in the directory that was the last entry.
    fn enter(&mut self, oid: Oid) -> Result<()> {
        let objects = self.objects;
        // As deep as nothing can be written, before the limit of anything else is reached.
        if self.path.as_os_str().len() > PATH_MAX {
            return Err(objects.too_long());
        }
        let (size, _) = objects.odb.read_header(oid).map_err(|error| objects.failed(&error))?;
        if self.open.iter().fold(size, |sum, (_, size, _)| sum.saturating_add(*size)) > MAX_TREES {
            return Err(Error::source(objects.what)
                .because(format!("its directories have more entries than fit into {}", Size(MAX_TREES as u64)))
                .hint("spread the files over more directories"));
        }
        let tree = objects.repo.find_tree(oid).map_err(|error| objects.failed(&error))?;
        self.open.push((tree, size, 0));
        self.beside = false;
        Ok(())
    }
}

enum FileKind {
    Directory,
    /// Stays an empty directory.
    Submodule,
    Link,
    Regular {
        executable: bool,
    },
}

impl FileKind {
    /// Of a mode as a tree has it, as Git takes it: what is nothing else is a submodule (cache.h,
    /// `canon_mode`).
    fn of(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Link,
            0o100_000 => Self::Regular { executable: mode & 0o100 != 0 },
            _ => Self::Submodule,
        }
    }
}

/// Names about which libgit2 is to decide: whatever might be `.git` to some file system, by case, by code points that HFS+ ignores, or by NTFS's trailing characters, streams
/// and short names. `.gitignore` and its like are not among them.
fn dubious(name: &[u8]) -> bool {
    let ascii: Vec<u8> = name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase).collect();
    let poses = ascii
        .strip_prefix(b".git")
        .is_some_and(|rest| !rest.first().is_some_and(|next| next.is_ascii_alphanumeric() || b"-_".contains(next)));
    poses || ascii.starts_with(b"git~") || name.contains(&b'\\')
}

impl Objects<'_> {
    /// Gives everything the mode that Git has for it, whatever the umask made of it, and the commit's
    /// time: wherever it is written, the tree is the same. Counts.
    fn settle(&self, tree: &Path, scan: &Scan, commit: &Commit<'_>) -> Result<Checkout> {
        let mut done = Checkout::default();
        let mut directories = vec![tree.to_owned()];
        let time = Timespec { tv_sec: commit.time().seconds(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        while let Some(directory) = directories.pop() {
            if self.deadline.passed() {
                return Err(late(&format!("cannot finish {}", tree.display()), self.deadline));
            }
            let volume = || format!("cannot finish {}", directory.display());
            let stamp = |path: &Path| {
                utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from).on_volume(volume)
            };
            set_mode(&directory, 0o755).on_volume(volume)?;
            stamp(&directory)?;
            for entry in fs::read_dir(&directory).on_volume(volume)? {
                let entry = entry.on_volume(volume)?;
                let kind = entry.file_type().on_volume(volume)?;
                if kind.is_dir() {
                    directories.push(entry.path());
                    continue;
                }
                done.files += 1;
                stamp(&entry.path())?;
                if kind.is_symlink() {
                    continue;
                }
                let meta = entry.metadata().on_volume(volume)?;
                done.bytes += meta.len();
                let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
                if meta.permissions().mode() & 0o7777 != mode {
                    set_mode(&entry.path(), mode).on_volume(volume)?;
                }
                // The plain writer has looked at them already.
                if !scan.plain
                    && meta.len() <= lfs::LONGEST
                    && lfs::is_pointer(&fs::read(entry.path()).on_volume(volume)?)
                {
                    self.pointers.borrow_mut().extend(entry.path().strip_prefix(tree).map(Path::to_owned));
                }
            }
        }
        Ok(done)
    }
}

fn warn_named(paths: &[PathBuf], what: &str) {
    if !paths.is_empty() {
        tracing::warn!("{what}: {}", named(paths));
    }
}

/// What is not left to libgit2 is one name that libgit2, asked to protect other file systems as well,
/// has nothing against.
#[cfg(fuzzing)]
pub fn fuzz(name: &[u8]) {
    thread_local! {
        static REPOSITORY: (PathBuf, Repository, Oid) = {
            let path = std::env::temp_dir().join(format!("podstrap-fuzz-{}", std::process::id()));
            crate::source::git::create(&path).expect("the temporary directory is writable");
            let repo = Repository::open_bare(&path).expect("it was just made");
            let blob = repo.blob(b"").expect("the temporary directory is writable");
            (path, repo, blob)
        };
    }
    // Walk refuses these, and a tree cannot hold a NUL.
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) || dubious(name) {
        return;
    }
    // libgit2 takes U+0347 for a G, as it looks at the lowest byte only.
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
