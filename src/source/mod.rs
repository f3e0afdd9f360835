//! Where an app comes from → a tree: which revision is meant, and its files.

mod archive;
mod auth;
mod directory;
mod download;
mod git;
mod lfs;
mod web;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Error, IoContext, Result};
use crate::plan::{Origin, RESERVED, Source, TreePath, Unpack};
use crate::redact::Userinfo;
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::size::Size;

/// How many paths a message names.
const NAMED: usize = 3;
/// What a digest begins with as a revision.
const SHA256: &str = "sha256:";

/// The logins for hosts that `--auth` files have, for whoever else asks these hosts. A login that is for
/// the repository's own host is not among them: who may see that is decided by its URL.
///
/// # Errors
/// A file that cannot be read, or that holds nothing to log in with.
pub(crate) fn logins(paths: &[PathBuf]) -> Result<Vec<(String, Userinfo)>> {
    Ok(auth::Auth::read(paths)?.machines())
}

/// What the source is right now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// 40 hexadecimal digits of a commit, or `sha256:…` over a file or a local directory's contents.
    pub commit: String,
    /// The full name of the reference (`refs/heads/main`; `HEAD` where the remote does not tell
    /// which branch that is); none for a bare commit, a file or a directory.
    pub reference: Option<String>,
}

/// What a server says of a file's version (RFC 9110, 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validator {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// What was there when the source was asked the last time.
#[derive(Debug, Clone)]
pub struct Known {
    pub revision: Revision,
    pub validator: Validator,
}

/// A source whose revision is known, ready to be checked out.
#[derive(Debug)]
pub struct Resolved {
    pub revision: Revision,
    subdir: Option<TreePath>,
    lfs_pointers: bool,
    origin: From,
}

#[derive(Debug)]
enum From {
    Git(Box<git::Git>),
    Directory(PathBuf),
    Download(Box<download::Download>, Unpack),
    File(PathBuf, Unpack),
}

/// What a checkout wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkout {
    /// Files and symlinks.
    pub files: u64,
    /// The files' contents.
    pub bytes: u64,
}

impl Checkout {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// The revision that the user names in full, without asking anybody: a commit, or a pinned file.
pub fn pinned(source: &Source) -> Option<Revision> {
    let commit = match &source.origin {
        Origin::Git(git) => {
            let commit = git.reference.as_ref()?;
            let full = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            full.then(|| commit.to_ascii_lowercase())?
        }
        Origin::Download(download) => format!("{SHA256}{}", download.sha256.as_ref()?),
        Origin::Local(..) => return None,
    };
    Some(Revision { commit, reference: None })
}

/// Finds out which revision is meant. One request for Git over HTTP; a directory is read once, up to
/// `limit`; a file that is not `known` comes to the directory that `scratch` makes.
pub async fn resolve(
    source: &Source,
    known: Option<&Known>,
    scratch: &dyn Fn() -> Result<PathBuf>,
    limit: Size,
    deadline: Deadline,
) -> Result<Resolved> {
    let subdir = source.subdir.clone();
    let mut access = web::Access { home: None, auth: source.auth.clone() };
    // Also where nothing is asked for that needs them: what is named wrongly is named wrongly.
    auth::Auth::read(&source.auth)?;
    let (revision, origin) = match &source.origin {
        Origin::Git(source) => {
            access.home = source.url.web().cloned();
            let git = git::Git::resolve(source, &access, deadline).await?;
            (git.revision(), From::Git(Box::new(git)))
        }
        Origin::Download(source) => {
            access.home = Some(source.url.clone());
            let mut download = download::Download::new(source, &access)?;
            let revision = match &source.sha256 {
                Some(pin) => Revision { commit: format!("{SHA256}{pin}"), reference: None },
                None => download.resolve(known, scratch, limit, deadline).await?,
            };
            (revision, From::Download(Box::new(download), source.unpack.clone()))
        }
        Origin::Local(path, unpack) if path.is_file() => {
            let from = path.clone();
            let commit = blocking(move || directory::digest_of_file(&from, deadline)).await?;
            (Revision { commit, reference: None }, From::File(path.clone(), unpack.clone()))
        }
        Origin::Local(path, unpack) => {
            if *unpack != Unpack::default() {
                return Err(Error::usage(format!("{} is no archive and no file", path.display()))
                    .hint("--strip-components and --file are for these"));
            }
            let from = match &subdir {
                Some(subdir) => crate::tree::directory("--subdir", path, subdir)
                    .map_err(|error| error.within(&path.display().to_string()))?,
                None => path.clone(),
            };
            let at = from.clone();
            let (commit, _) = blocking(move || directory::digest(&at, limit, deadline)).await?;
            (Revision { commit, reference: None }, From::Directory(from))
        }
    };
    Ok(Resolved { revision, subdir, lfs_pointers: source.lfs_pointers, origin })
}

impl Resolved {
    /// Writes the revision's files to `tree`, which must not exist yet. `scratch` is an existing
    /// empty directory on the same file system for what the checkout needs meanwhile (the object
    /// database, an archive); the caller removes it. What would unpack to more than `limit` is refused.
    ///
    /// A reference that moves meanwhile is looked up once more: `revision` is then the new one.
    pub async fn checkout(&mut self, tree: &Path, scratch: &Path, limit: Size, deadline: Deadline) -> Result<Checkout> {
        let (subdir, lfs_pointers) = (self.subdir.as_ref().map(TreePath::as_path), self.lfs_pointers);
        let (path, unpack, file) = match &mut self.origin {
            From::Git(git) => {
                let checkout = git.checkout(git::Place { tree, scratch, subdir, limit, lfs_pointers }, deadline).await;
                self.revision = git.revision();
                return checkout;
            }
            From::Directory(path) => {
                let (path, tree, commit) = (path.clone(), tree.to_owned(), self.revision.commit.clone());
                return blocking(move || {
                    let copied = directory::copy(&path, &tree, &commit, limit, deadline)?;
                    judge_pointers(&path.display().to_string(), &tree, lfs_pointers)?;
                    Ok(copied)
                })
                .await;
            }
            From::Download(download, unpack) => {
                let url = download.url().clone();
                let here = download.fetch(scratch, limit, deadline).await?;
                self.revision.commit = format!("{SHA256}{}", here.sha256);
                let last = url.url().path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
                let file = SingleFile {
                    shown: url.to_string(),
                    name: crate::redact::percent_decode(last),
                    modified: here.modified.or_else(|| made_up(&here.sha256)),
                    web_page: here.html,
                };
                (here.path.clone(), unpack.clone(), file)
            }
            From::File(path, unpack) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let modified = fs::metadata(&*path).and_then(|meta| meta.modified()).ok();
                let file = SingleFile { shown: path.display().to_string(), name, modified, web_page: false };
                (path.clone(), unpack.clone(), file)
            }
        };
        let (tree, scratch, subdir) = (tree.to_owned(), scratch.to_owned(), self.subdir.clone());
        blocking(move || {
            let unpacked = unpack_to(&path, &unpack, &file, &tree, &scratch, subdir.as_ref(), limit, deadline)?;
            judge_pointers(&file.shown, &tree, lfs_pointers)?;
            Ok(unpacked)
        })
        .await
    }

    /// What to ask with the next time.
    pub fn validator(&self) -> Option<Validator> {
        match &self.origin {
            From::Download(download, _) => download.validator(),
            _ => None,
        }
    }
}

/// Looks for pointers of Git LFS where they could not be seen on the way.
fn judge_pointers(source: &str, tree: &Path, allowed: bool) -> Result<()> {
    let pointers = lfs::find(tree).on_volume(|| format!("cannot look at {}", tree.display()))?;
    lfs::judge(&format!("{source} is not complete"), &pointers, allowed)
}

/// A time for a file that has none: always the same for the same contents, and another for others, as
/// caches tell versions of a file by it.
fn made_up(sha256: &str) -> Option<SystemTime> {
    let seconds = u64::from_str_radix(sha256.get(..7)?, 16).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A file that may be all there is.
struct SingleFile {
    /// In messages.
    shown: String,
    /// What it is called where it comes from.
    name: String,
    modified: Option<SystemTime>,
    /// Whether a server says that it is one.
    web_page: bool,
}

/// Makes a tree of an archive, or of a single file.
#[expect(clippy::too_many_arguments, reason = "a plain sequence of what is read, how, and where to")]
fn unpack_to(
    path: &Path,
    unpack: &Unpack,
    file: &SingleFile,
    tree: &Path,
    scratch: &Path,
    subdir: Option<&TreePath>,
    limit: Size,
    deadline: Deadline,
) -> Result<Checkout> {
    let mut head = Vec::new();
    let unreadable = |error: std::io::Error| Error::source(format!("cannot read {}", file.shown)).because(error);
    fs::File::open(path)
        .and_then(|file| file.take(archive::FIRST as u64).read_to_end(&mut head))
        .map_err(unreadable)?;
    let archive = unpack.file.is_none() && archive::is_archive(&head);
    if archive {
        let Some(subdir) = subdir else {
            return archive::unpack(path, tree, unpack.strip, &file.shown, limit, deadline);
        };
        // All of it: what is wanted is known only when it is there.
        let whole = scratch.join("unpacked");
        archive::unpack(path, &whole, unpack.strip, &file.shown, limit, deadline)?;
        let part = crate::tree::directory("--subdir", &whole, subdir).map_err(|error| error.within(&file.shown))?;
        if fs::symlink_metadata(part.join(RESERVED)).is_ok() {
            return Err(reserved(format!("{} of {} has an entry {RESERVED}", subdir, file.shown)));
        }
        fs::rename(&part, tree).on_volume(|| format!("cannot move the files to {}", tree.display()))?;
        return directory::count(tree).on_volume(|| format!("cannot look at {}", tree.display()));
    }
    let named = unpack.file.as_deref();
    let name = named.unwrap_or(&file.name);
    let known_as_archive = crate::plan::is_archive(Path::new(&file.name));
    if named.is_none() && (known_as_archive || file.web_page || subdir.is_some() || unpack.strip > 0) {
        let is = if file.web_page {
            "the server answers with a web page"
        } else {
            "it is neither a tar, gzip'd or not, nor a zip"
        };
        return Err(Error::source(format!("{} is no archive", file.shown))
            .because(is)
            .hint("check the URL, and whether it asks for a login; to publish it as it is: --file NAME"));
    }
    if TreePath::new(Path::new(name)).is_none_or(|path| path.as_path() != Path::new(name)) || name == RESERVED {
        return Err(Error::source(format!("{} has no name that a file can have", file.shown))
            .hint("give it one with --file NAME"));
    }
    let to = tree.join(name);
    let written = || {
        fs::create_dir(tree)?;
        set_mode(tree, 0o755)?;
        let bytes = fs::copy(path, &to)?;
        set_mode(&to, 0o644)?;
        if let Some(modified) = file.modified {
            fs::File::open(&to)?.set_modified(modified)?;
        }
        Ok(Checkout { files: 1, bytes })
    };
    written().on_volume(|| format!("cannot write {}", to.display()))
}

/// More than there may be on the volume; `what` failed as `things` (`the files come to`) so many
/// bytes or more.
fn too_large(what: &str, things: &str, bytes: u64, limit: Size) -> Error {
    Error::source(what)
        .because(format!("{things} {} or more, and the limit is {limit}", Size(bytes)))
        .hint("if that is what it should be, raise --size-limit, and the volume's size with it")
}

/// What a repository or directory gets that uses podstrap's own name.
fn reserved(what: String) -> Error {
    Error::source(what)
        .because("the name is podstrap's own in the directory that it publishes")
        .hint(format!("rename {RESERVED} in the source"))
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A few of the paths, for one line.
fn named(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let more = if paths.len() > NAMED { format!(" and {} more", paths.len() - NAMED) } else { String::new() };
    format!("{}{more}", crate::redact::clean(&names.join(", ")).replace('\n', " "))
}

/// A digest of a directory's contents, as [`Revision::commit`] has it: `sha256:…`; and whether it has
/// symbolic links, whose targets are in it only by name.
pub(crate) fn digest(dir: &Path, deadline: Deadline) -> Result<(String, bool)> {
    // It is only read.
    directory::digest(dir, Size(u64::MAX), deadline)
}

/// What to do about the deadline.
const SLOW: &str = "raise --timeout, or find out what is slow with --log-level debug";

/// The deadline has passed in the middle of work on files.
fn late(what: &str, deadline: Deadline) -> Error {
    let (elapsed, limit) = (deadline.elapsed().as_secs_f64(), humantime::format_duration(deadline.limit()));
    Error::source(what).because(format!("not done after {elapsed:.1} s (--timeout {limit})")).hint(SLOW)
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::archive::fuzz as archive;
    pub use super::auth::fuzz as auth;
    pub use super::git::fuzzing::*;
}
