//! Resolves the source of an app to a revision, and writes its files to a tree.
//!
//! | file | source |
//! |---|---|
//! | git | a Git repository: over HTTP, over SSH, or on this machine |
//! | download | a file on a web server |
//! | file | a file on this machine |
//! | directory | a directory on this machine |
//!
//! Each has `resolve`, which finds the revision, `revision`, which returns it, and `check_out`, which writes the
//! files to a `Destination`. To add a kind of source, write such a file, and add a variant to
//! [`plan::Origin`](crate::plan::Origin) and to `Found`. These directories support them; each uses only those
//! before it:
//!
//! | directory | purpose |
//! |---|---|
//! | access | requests to servers: credentials, stalls, HTTP |
//! | remote | a Git server's references and packs |
//! | lfs | the contents of Git LFS |
//! | objects | libgit2, which stores the objects |
//! | checkout, keep | a commit's files; a `.git` next to them |

pub(crate) mod access;
mod checkout;
mod destination;
mod directory;
mod download;
mod file;
mod git;
mod keep;
mod lfs;
mod objects;
mod remote;
mod revision;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::plan::{GitSource, GitUrl, Origin, Source, Submodules, TreePath};
use crate::redact::{RemoteUrl, Userinfo};
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::signature::{AllowedSigners, Purpose, SignedBy};
use crate::size::Size;
use crate::tree::Written;

use access::auth::{Auth, Keys};
use access::grant;
use access::web::Access;
use destination::Destination;
use directory::Directory;
use download::Download;
use file::LocalFile;
use git::Git;

pub use destination::Contents;
pub(crate) use directory::digest;
pub use revision::{Known, Revision, Validator};

/// The logins for hosts in the files of `--auth`, for other requests to these hosts. Excludes the login for the
/// repository's own host: the URL of a request decides who may see that one.
///
/// # Errors
/// A file is unreadable or has no credentials.
pub(crate) fn logins(paths: &[PathBuf]) -> Result<Vec<(String, Userinfo)>> {
    Ok(Auth::read(paths)?.machines())
}

/// All secrets in the files of `--auth`.
///
/// # Errors
/// As for [`logins`].
pub(crate) fn secrets(paths: &[PathBuf]) -> Result<Vec<Userinfo>> {
    Ok(Auth::read(paths)?.secrets())
}

/// Reads a file on a server, with the logins of `auth`. `home` is the URL of --repo.
///
/// # Errors
/// The server refuses it or is unreachable, or the file is larger than `limit` bytes.
pub(crate) async fn read(
    url: RemoteUrl,
    home: Option<RemoteUrl>,
    auth: &[PathBuf],
    limit: u64,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let access = Access { home, auth: auth.to_owned(), named_in_clear: true };
    download::read(url, access, limit, deadline).await
}

/// Finds a revision of a Git repository other than that of --repo, whose URL is `home`.
pub(crate) async fn revision_of(
    url: GitUrl,
    reference: Option<String>,
    home: Option<RemoteUrl>,
    auth: &[PathBuf],
    deadline: Deadline,
) -> Result<Revision> {
    let access = Access { home, auth: auth.to_owned(), named_in_clear: true };
    let git = GitSource { url, reference, depth: 1, submodules: Submodules::Off, keep_git: false, verify: None };
    Ok(Git::resolve(&git, &access, deadline).await?.revision())
}

/// The Authorization header for a Git repository.
pub(crate) fn header(url: &RemoteUrl, home: Option<&RemoteUrl>, auth: &[PathBuf]) -> Result<Option<String>> {
    Ok(Auth::read(auth)?.of(url.url(), url, home).map(|credential| credential.login.header()))
}

/// The SSH keys and known hosts in the files of `--auth`.
pub(crate) fn keys(auth: &[PathBuf]) -> Result<Keys> {
    Ok(Auth::read(auth)?.keys)
}

/// A source whose revision is known, ready to be checked out.
#[derive(Debug)]
pub struct Resolved {
    pub revision: Revision,
    subdir: Option<TreePath>,
    lfs_pointers: bool,
    found: Found,
}

/// A resolved source.
#[derive(Debug)]
enum Found {
    Git(Box<Git>),
    Download(Box<Download>),
    Directory(Directory),
    File(LocalFile),
}

/// The revision that the user gives in full: a commit or a pinned file. Contacts no server.
pub fn pinned(source: &Source) -> Option<Revision> {
    match &source.origin {
        Origin::Git(git) => {
            let commit = git.reference.as_ref()?;
            let full = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            full.then(|| Revision { commit: commit.to_ascii_lowercase(), reference: None })
        }
        Origin::Download(download) => Some(Revision::of_file(download.sha256.as_ref()?)),
        Origin::Local(..) => None,
    }
}

/// Whether somebody must have signed the commit.
pub fn is_verified(source: &Source) -> bool {
    matches!(&source.origin, Origin::Git(git) if git.verify.is_some())
}

/// Whether a published tree has what --verify requires: its signer is still in the file.
///
/// # Errors
/// Usage: the file cannot be used.
pub async fn is_trusted(source: &Source, signer: Option<&SignedBy>) -> Result<bool> {
    let Origin::Git(GitSource { verify: Some(file), .. }) = &source.origin else { return Ok(true) };
    let (file, signer) = (file.clone(), signer.cloned());
    blocking(move || {
        let signers = AllowedSigners::read(&file, Purpose::Git)?;
        Ok(signer.is_some_and(|signer| signers.allow(&signer)))
    })
    .await
}

/// Gets what the logins of `--auth` need before they are used. Reports unusable ones even if no request needs them.
///
/// # Errors
/// Usage: a file is unreadable or has no credentials. Source: a server gives no token.
pub async fn sign_in(source: &Source, deadline: Deadline) -> Result<()> {
    grant::sign_in(Auth::read(&source.auth)?.apps(), deadline).await
}

/// Finds the revision. Sends one request for Git over HTTP, and reads a directory once, up to `limit`. Downloads
/// a file that is not `known` to the directory that `scratch` creates.
pub async fn resolve(
    source: &Source,
    known: Option<&Known>,
    scratch: &dyn Fn() -> Result<PathBuf>,
    limit: Size,
    deadline: Deadline,
) -> Result<Resolved> {
    sign_in(source, deadline).await?;
    let access = |home| Access { home, auth: source.auth.clone(), named_in_clear: false };
    let subdir = source.subdir.clone();
    let found = match &source.origin {
        Origin::Git(git) => {
            let resolved = Git::resolve(git, &access(git.url.web().cloned()), deadline).await;
            Found::Git(Box::new(resolved.map_err(|error| example(error, source))?))
        }
        Origin::Download(file) => {
            let access = access(Some(file.url.clone()));
            Found::Download(Box::new(Download::resolve(file, &access, known, scratch, limit, deadline).await?))
        }
        Origin::Local(path, unpack) if files::is_file(path)? => {
            Found::File(LocalFile::resolve(path, unpack, deadline).await?)
        }
        Origin::Local(path, unpack) => {
            Found::Directory(Directory::resolve(path, unpack, subdir.as_ref(), limit, deadline).await?)
        }
    };
    Ok(Resolved { revision: found.revision(), subdir, lfs_pointers: source.lfs_pointers, found })
}

/// Words of podstrap's example manifests that users replace.
const EXAMPLES: [&str; 3] = ["YOU", "FULL_SHA", "0123456789abcdef0123456789abcdef01234567"];

/// Adds a hint if the address or the reference still has a word of an example manifest.
fn example(error: Error, source: &Source) -> Error {
    let reference = match &source.origin {
        Origin::Git(git) => git.reference.as_deref(),
        _ => None,
    };
    let repo = source.to_string();
    match repo.split('/').chain(reference).find(|word| EXAMPLES.contains(word)) {
        Some(word) => error.hint(format!("replace {word} in the manifest: it is a placeholder of the example")),
        None => error,
    }
}

impl Found {
    fn revision(&self) -> Revision {
        match self {
            Self::Git(git) => git.revision(),
            Self::Download(download) => download.revision(),
            Self::Directory(directory) => directory.revision(),
            Self::File(file) => file.revision(),
        }
    }
}

impl Resolved {
    /// Writes the revision's files to `tree`, which must not exist yet. `scratch` is an existing empty directory
    /// on the same file system for temporary files (the object database, an archive); the caller removes it.
    /// Refuses to write more than `limit`. `contents` says where those of Git LFS come from.
    ///
    /// If the reference moves meanwhile, podstrap resolves it once more, and `revision` is the new one.
    pub async fn checkout(
        &mut self,
        tree: &Path,
        scratch: &Path,
        contents: Contents<'_>,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Written> {
        let (subdir, lfs_pointers) = (self.subdir.as_ref(), self.lfs_pointers);
        let to = Destination { tree, scratch, subdir, limit, lfs_pointers, contents };
        let written = match &mut self.found {
            Found::Git(git) => git.check_out(to, deadline).await,
            Found::Download(download) => download.check_out(to, deadline).await,
            Found::Directory(directory) => directory.check_out(to, deadline).await,
            Found::File(file) => file.check_out(to, deadline).await,
        };
        self.revision = self.found.revision();
        written
    }

    /// Who signed the commit that was checked out, with --verify.
    pub fn signer(&self) -> Option<SignedBy> {
        match &self.found {
            Found::Git(git) => git.signer().cloned(),
            _ => None,
        }
    }

    /// The validator for the next request.
    pub fn validator(&self) -> Option<Validator> {
        match &self.found {
            Found::Download(download) => download.validator(),
            _ => None,
        }
    }
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::access::auth::fuzz as auth;
    pub use super::checkout::fuzz as entry_names;
    pub use super::lfs::fuzz as lfs;
    pub use super::objects::fuzz as pack;
    pub use super::remote::http::fuzz as redirects;
    pub use super::remote::pktline::fuzz as pktline;
    pub use super::remote::refs::fuzz as references;
    pub use super::remote::ssh::{known_hosts, private_key};
    pub use super::remote::submodules::fuzz as submodules;
}
