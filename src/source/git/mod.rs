//! A Git repository: which commit is meant, its objects brought into a scratch repository, and
//! the checkout of exactly that commit.
//!
//! A clone is two requests: the list of references, and one for the pack; over SSH both go to one
//! process on the server, which answers one request and ends. libgit2 never sees the real list but
//! one with a single reference, the wanted object. So names cannot be mistaken, and a commit that is no tip can be asked for whether or not the server announces that
//! it would allow it: it says no by itself, and then everything is fetched and the commit looked up.
//! A `file://` repository is read where it is.

mod answer;
mod checkout;
mod http;
mod keep;
mod known_hosts;
mod pktline;
mod refs;
mod ssh;
mod submodules;
mod transport;

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository, RepositoryInitOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::error::{Error, IoContext, Result, said_of_volume, volume_error};
use crate::plan::{GitSource, GitUrl, Ssh, Submodules};
use crate::retry::{Deadline, retry};
use crate::runtime::blocking;
use crate::size::Size;
use crate::source::auth::Auth;
use crate::source::git::checkout::{Submodule, Written};
use crate::source::git::http::{Listing, Remote};
use crate::source::git::pktline::{Framer, packet, payload};
use crate::source::git::refs::{Choice, Ref, Refs};
use crate::source::git::ssh::Session;
use crate::source::git::transport::{MAX_OBJECT, Wire};
use crate::source::web::Access;
use crate::source::{Checkout, Revision, late, too_large};

/// The one reference that libgit2 is told about.
const WANTED: &str = "refs/podstrap/wanted";
/// How many submodules may stand in each other.
const MAX_NESTING: usize = 16;
/// Packets on their way to libgit2: at most 2 MiB.
const IN_FLIGHT: usize = 32;

/// A repository whose reference has been resolved.
#[derive(Debug)]
pub(super) struct Git {
    source: GitSource,
    access: Access,
    origin: Origin,
    choice: Choice,
    /// The choice is out of date.
    moved: bool,
}

/// Where a checkout goes, and how much of the repository it is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Does not exist yet, or is an empty directory.
    pub(super) tree: &'a Path,
    /// An existing directory on the same file system for what is needed meanwhile.
    pub(super) scratch: &'a Path,
    /// This directory of the repository becomes the tree.
    pub(super) subdir: Option<&'a Path>,
    /// What the files may come to.
    pub(super) limit: Size,
    /// Whether Git LFS pointers may be published as they are.
    pub(super) lfs_pointers: bool,
}

#[derive(Debug)]
enum Origin {
    Http(Box<(Remote, Listing)>),
    Ssh(Box<Shell>),
    /// The directory of its objects, and its references.
    File(PathBuf, Refs),
}

/// A repository behind SSH, and what its server said that it has.
#[derive(Debug)]
struct Shell {
    ssh: Ssh,
    /// Answers one request.
    session: Option<Session>,
    refs: Refs,
    /// As HTTP would have brought it.
    body: Vec<u8>,
}

impl Shell {
    async fn list(ssh: &Ssh, access: &Access, deadline: Deadline) -> Result<Self> {
        let keys = Auth::read(&access.auth)?.keys;
        let (session, refs, body) = Box::pin(ssh.list(&keys, deadline)).await?;
        Ok(Self { ssh: ssh.clone(), session: Some(session), refs, body })
    }
}

/// What libgit2 is to fetch, and from which list of references.
struct Ask {
    listing: Vec<u8>,
    refspecs: Vec<String>,
    depth: u32,
}

impl Git {
    pub(super) async fn resolve(source: &GitSource, access: &Access, deadline: Deadline) -> Result<Self> {
        // Before anything else of libgit2 is touched.
        transport::set_up().map_err(|error| Error::internal("cannot set up libgit2").because(error.message()))?;
        let url = source.url.to_string();
        let listing = format!("listing the references of {url}");
        let (origin, choice) = match &source.url {
            GitUrl::Url(at) if at.url().scheme() == "file" => {
                let path = at.url().to_file_path().map_err(|()| {
                    Error::source(format!("{url} names no path on this machine")).hint("write file:///absolute/path")
                })?;
                let name = url.clone();
                let (refs, objects) = blocking(move || open_local(&path, &name)).await?;
                let choice = refs.choose(source.reference.as_deref(), &url)?;
                (Origin::File(objects, refs), choice)
            }
            GitUrl::Url(at) => {
                let remote = Remote::new(at.clone(), access.clone())?;
                let listing = retry(deadline, &listing, || remote.list(deadline)).await?;
                let choice = listing.refs.choose(source.reference.as_deref(), &url)?;
                (Origin::Http(Box::new((remote, listing))), choice)
            }
            GitUrl::Ssh(ssh) => {
                let shell = retry(deadline, &listing, || Shell::list(ssh, access, deadline)).await?;
                let choice = shell.refs.choose(source.reference.as_deref(), &url)?;
                (Origin::Ssh(Box::new(shell)), choice)
            }
        };
        Ok(Self { source: source.clone(), access: access.clone(), origin, choice, moved: false })
    }

    pub(super) fn revision(&self) -> Revision {
        Revision { commit: self.choice.commit.to_string(), reference: self.choice.reference.clone() }
    }

    /// The reference may move meanwhile: what [`revision`](Self::revision) says afterwards is what was
    /// checked out.
    pub(super) async fn checkout(&mut self, place: Place<'_>, deadline: Deadline) -> Result<Checkout> {
        self.check_out(place, 0, deadline).await
    }

    /// The same `nesting` submodules below what the user named.
    async fn check_out(&mut self, place: Place<'_>, nesting: usize, deadline: Deadline) -> Result<Checkout> {
        // One repository for each depth: what is written needs its own no more.
        let repository = place.scratch.join(format!("git-{nesting}"));
        self.fetch_objects(&repository, place.limit, deadline).await?;
        let mut written = self.write(&repository, place, deadline).await?;
        if !written.submodules.is_empty() {
            let left = Size(place.limit.0.saturating_sub(written.checkout.bytes));
            let below = self.submodules(&written.submodules, Place { limit: left, ..place }, nesting, deadline).await?;
            written.checkout.add(below);
        }
        if self.source.keep_git && nesting == 0 {
            let (source, choice, tree) = (self.source.clone(), self.choice.clone(), place.tree.to_owned());
            let refs = match &self.origin {
                Origin::Http(http) => http.1.refs.clone(),
                Origin::Ssh(shell) => shell.refs.clone(),
                Origin::File(_, refs) => refs.clone(),
            };
            blocking(move || keep::keep(&repository, &source, &choice, &refs, &tree)).await?;
        }
        Ok(written.checkout)
    }

    /// Brings the chosen commit's objects into a new repository.
    async fn fetch_objects(&mut self, repository: &Path, limit: Size, deadline: Deadline) -> Result<()> {
        let repository = repository.to_owned();
        match &self.origin {
            Origin::Http(_) | Origin::Ssh(_) => {
                let doing = format!("fetching from {}", self.source.url);
                retry(deadline, &doing, async || self.fetch(&repository, limit, deadline).await).await
            }
            Origin::File(objects, _) if self.source.keep_git => {
                let (from, doing) = (objects.with_file_name(""), self.what());
                let specs = keep::refspecs(self.choice.reference.as_deref());
                blocking(move || keep::fetch_local(&from, &repository, &specs, limit, deadline, &doing)).await
            }
            Origin::File(objects, _) => {
                let objects = objects.clone();
                blocking(move || {
                    create(&repository)?;
                    let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
                    std::fs::write(repository.join("objects/info/alternates"), line)
                        .on_volume(|| format!("cannot write to {}", repository.display()))
                })
                .await
            }
        }
    }

    /// Writes the chosen commit's files.
    async fn write(&self, repository: &Path, place: Place<'_>, deadline: Deadline) -> Result<Written> {
        let doing = format!("cannot check out {} of {}", self.choice.commit, self.source.url);
        let (repository, choice, source) = (repository.to_owned(), self.choice.clone(), self.source.clone());
        let (tree, scratch) = (place.tree.to_owned(), place.scratch.to_owned());
        let (subdir, limit, lfs_pointers) = (place.subdir.map(Path::to_owned), place.limit, place.lfs_pointers);
        let written = blocking(move || {
            // The pack and the files are on the volume at the same time.
            let packs = repository.join("objects/pack");
            let packed: u64 = std::fs::read_dir(packs)
                .into_iter()
                .flatten()
                .filter_map(|file| Some(Size::occupied(file.ok()?.metadata().ok()?.len())))
                .sum();
            let limit = Size(limit.0.saturating_sub(packed));
            let repo =
                Repository::open_bare(&repository).map_err(|error| failure("cannot read the objects", &error))?;
            let place = Place { tree: &tree, scratch: &scratch, subdir: subdir.as_deref(), limit, lfs_pointers };
            checkout::write(&repo, &source, &choice, place, deadline)
        });
        // libgit2's own writer, and a pattern of attributes that is made to take for ever, cannot be
        // stopped; they end with the process.
        timeout_at(deadline.instant(), written).await.unwrap_or_else(|_| Err(late(&doing, deadline)))
    }

    /// Checks out the commits that the tree names of other repositories.
    async fn submodules(
        &self,
        found: &[Submodule],
        place: Place<'_>,
        nesting: usize,
        deadline: Deadline,
    ) -> Result<Checkout> {
        let mut done = Checkout::default();
        if nesting == MAX_NESTING {
            return Err(Error::source(format!(
                "the submodules of {} are nested more deeply than {MAX_NESTING}",
                self.source.url
            ))
            .hint("does one contain itself? --submodules shallow fetches only those of the repository itself"));
        }
        for submodule in found {
            let named = format!("submodule {}", submodule.path.display());
            let error = |error: Error| {
                let error = error.within(&named);
                // Once is enough.
                let outermost = nesting == 0;
                if outermost {
                    error.hint("--submodules off leaves the directories of submodules empty")
                } else {
                    error
                }
            };
            let source = GitSource {
                url: submodules::address(&submodule.url, &self.source.url).map_err(error)?,
                reference: Some(submodule.commit.to_string()),
                submodules: if self.source.submodules == Submodules::Shallow {
                    Submodules::Off
                } else {
                    self.source.submodules
                },
                keep_git: false,
                ..self.source.clone()
            };
            tracing::info!("{named}: {} of {}", submodule.commit, source.url);
            let tree = place.tree.join(&submodule.path);
            let mut git = Box::pin(Self::resolve(&source, &self.access, deadline)).await.map_err(error)?;
            let limit = Size(place.limit.0.saturating_sub(done.bytes));
            let part = Place { tree: &tree, subdir: None, limit, ..place };
            done.add(Box::pin(git.check_out(part, nesting + 1, deadline)).await.map_err(error)?);
        }
        Ok(done)
    }

    /// One try: a fresh repository, and the wanted commit in it.
    async fn fetch(&mut self, repository: &Path, limit: Size, deadline: Deadline) -> Result<()> {
        self.renew(deadline).await?;
        // A whole repository is what git clone would make of it.
        let whole = self.source.keep_git && self.source.depth == 0;
        let Some((refs, _)) = self.listed() else { return Ok(()) };
        let wanted = Ask {
            listing: single(self.choice.want, &refs.capabilities),
            refspecs: vec![format!("+{WANTED}:{WANTED}")],
            depth: if has(&refs.capabilities, "shallow") { self.source.depth } else { 0 },
        };
        let ask = if whole { self.everything() } else { wanted };
        let Some(refusal) = self.download(ask, repository, limit, deadline).await? else {
            return Ok(());
        };
        if whole || self.choice.advertised {
            let error = self.refused(&refusal);
            // The reference moved since it was listed, or one of several servers lags behind.
            self.moved = refusal.contains("not our ref");
            return Err(if self.moved { error.transient(None) } else { error });
        }
        tracing::info!("the server gives no single commits ({refusal}): fetching everything");
        self.renew(deadline).await?;
        match self.download(self.everything(), repository, limit, deadline).await? {
            Some(refusal) => Err(self.refused(&refusal)),
            None => Ok(()),
        }
    }

    /// Lists and chooses again, if the choice is out of date, or what listed cannot be asked any more.
    async fn renew(&mut self, deadline: Deadline) -> Result<()> {
        let refs = match &mut self.origin {
            Origin::Http(http) if self.moved => {
                http.1 = http.0.list(deadline).await?;
                &http.1.refs
            }
            Origin::Ssh(shell) if self.moved || shell.session.as_ref().is_none_or(Session::is_over) => {
                **shell = Shell::list(&shell.ssh, &self.access, deadline).await?;
                &shell.refs
            }
            _ => return Ok(()),
        };
        self.choice = refs.choose(self.source.reference.as_deref(), &self.source.url)?;
        self.moved = false;
        Ok(())
    }

    /// What the remote said that it has, as it was understood and as it was received.
    fn listed(&self) -> Option<(&Refs, &[u8])> {
        match &self.origin {
            Origin::Http(http) => Some((&http.1.refs, &http.1.body)),
            Origin::Ssh(shell) => Some((&shell.refs, &shell.body)),
            Origin::File(..) => None,
        }
    }

    fn everything(&self) -> Ask {
        Ask {
            listing: self.listed().map(|(_, body)| without_shallow(body)).unwrap_or_default(),
            refspecs: keep::refspecs(self.choice.reference.as_deref()),
            depth: 0,
        }
    }

    /// libgit2 on a blocking thread, the network on this one, a channel in between. Comes back with
    /// what the server says against the request, if it does.
    async fn download(
        &mut self,
        ask: Ask,
        repository: &Path,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let what = self.what();
        let (request, requested) = oneshot::channel();
        let (send, packets) = mpsc::channel(IN_FLIGHT);
        let (repository, doing) = (repository.to_owned(), what.clone());
        let libgit2 = blocking(move || {
            create(&repository)?;
            let wire = Wire { listing: ask.listing, request, packets };
            transport::download(&repository, wire, &ask.refspecs, ask.depth, limit, deadline).map_err(|error| {
                match error.code() {
                    ErrorCode::User if deadline.passed() => late(&doing, deadline).unreachable(),
                    ErrorCode::User => too_large(&doing, "the pack alone comes to", limit.0, limit),
                    _ => failure(&doing, &error),
                }
            })
        });
        let network = async {
            // libgit2 may give up before it asks for anything, and says why.
            let Ok(body) = requested.await else { return Ok(None) };
            match &mut self.origin {
                Origin::Http(http) => http.0.upload_pack(&what, &http.1.endpoint, body, send, deadline).await,
                Origin::Ssh(shell) => match shell.session.take() {
                    Some(session) => Box::pin(session.upload_pack(&what, body, send, deadline)).await,
                    None => Err(Error::internal("nobody is there to ask for a pack")),
                },
                Origin::File(..) => Ok(None),
            }
        };
        let (network, libgit2) = tokio::join!(network, libgit2);
        match network? {
            Some(refusal) => Ok(Some(refusal)),
            None => libgit2.map(|()| None),
        }
    }

    fn what(&self) -> String {
        let name = self.choice.reference.clone().unwrap_or_else(|| self.choice.commit.to_string());
        format!("cannot fetch {name} of {}", self.source.url)
    }

    fn refused(&self, says: &str) -> Error {
        Error::source(self.what()).because(format!("the server says: {says}"))
    }
}

/// A list with one reference (gitprotocol-http, "Smart Server Response").
fn single(want: git2::Oid, capabilities: &str) -> Vec<u8> {
    let capabilities: Vec<&str> = capabilities.split(' ').filter(|word| !word.starts_with("symref=")).collect();
    let line = format!("{want} {WANTED}\0{}\n", capabilities.join(" "));
    [packet(b"# service=git-upload-pack\n"), b"0000".to_vec(), packet(line.as_bytes()), b"0000".to_vec()].concat()
}

/// A list without what it says of history that is cut off, which libgit2 does not read there.
fn without_shallow(body: &[u8]) -> Vec<u8> {
    let (mut framer, mut out) = (Framer::default(), Vec::with_capacity(body.len()));
    framer.push(body);
    // It was read before.
    while let Ok(Some(packet)) = framer.next() {
        if !payload(packet).is_some_and(|line| line.starts_with(b"shallow ")) {
            out.extend_from_slice(packet);
        }
    }
    out
}

fn has(capabilities: &str, name: &str) -> bool {
    capabilities.split(' ').any(|word| word == name)
}

/// A new bare repository in place of whatever a failed try left there.
pub(super) fn create(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path).on_volume(|| format!("cannot remove {}", path.display()))?;
    }
    let what = format!("cannot create a scratch repository in {}", path.display());
    let made = (|| {
        let mut options = RepositoryInitOptions::new();
        let mut config = Repository::init_opts(path, options.bare(true).external_template(false))?.config()?;
        for (name, value) in [
            // What makes a name dangerous elsewhere is refused here as well.
            ("core.protectHFS", true),
            ("core.protectNTFS", true),
            ("core.symlinks", true),
            ("core.fileMode", true),
            ("core.autocrlf", false),
        ] {
            config.set_bool(name, value)?;
        }
        Ok(())
    })();
    made.map_err(|error| failure(&what, &error))
}

/// The references of a repository on this machine, and where its objects are.
fn open_local(path: &Path, url: &str) -> Result<(Refs, PathBuf)> {
    let read = || {
        let repo = Repository::open(path)?;
        let mut refs = Refs::default();
        for reference in repo.references()? {
            let reference = reference?;
            // One that leads nowhere is as good as none.
            let (Ok(name), Some(oid)) = (reference.name(), reference.resolve().ok().and_then(|direct| direct.target()))
            else {
                continue;
            };
            let peeled =
                repo.find_tag(oid).ok().and_then(|tag| Some(tag.into_object().peel(git2::ObjectType::Any).ok()?.id()));
            refs.all.push(Ref { name: name.to_owned(), oid, peeled });
        }
        let shallow = std::fs::read_to_string(repo.commondir().join("shallow")).unwrap_or_default();
        refs.shallow = shallow.lines().filter_map(|line| git2::Oid::from_str(line).ok()).collect();
        let head = repo.find_reference("HEAD")?;
        refs.head = head.symbolic_target().ok().flatten().map(str::to_owned);
        if let Some(oid) = head.resolve().ok().and_then(|direct| direct.target()) {
            refs.all.insert(0, Ref { name: "HEAD".to_owned(), oid, peeled: None });
        }
        Ok((refs, repo.commondir().join("objects")))
    };
    read().map_err(|error: git2::Error| {
        Error::source(format!("{url} is no Git repository that can be read"))
            .because(error.message())
            .hint("give a repository's directory; to copy a directory as it is, give its path without file://")
    })
}

/// libgit2's words for a failure. What the volume caused is told by the text that libgit2 takes
/// from the system; a pack that arrived damaged may arrive whole the next time.
pub(super) fn failure(what: &str, error: &git2::Error) -> Error {
    let message = error.message();
    if let Some(system) = said_of_volume(message) {
        return volume_error(format!("{what}: {message}"), &system);
    }
    let made = Error::source(what).because(message);
    match error.class() {
        git2::ErrorClass::NoMemory => {
            made.because(format!("an object takes more than {}", Size(MAX_OBJECT as u64))).hint(
                "git clone and git repack make no deltas of such files: repack the repository, or keep them out of it",
            )
        }
        git2::ErrorClass::Net | git2::ErrorClass::Indexer | git2::ErrorClass::Zlib => made.transient(None),
        _ => made,
    }
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::checkout::fuzz as entry_names;
    pub use super::http::fuzz as redirects;
    pub use super::known_hosts::fuzz as known_hosts;
    pub use super::pktline::fuzz as pktline;
    pub use super::refs::fuzz as references;
    pub use super::ssh::fuzz as private_key;
    pub use super::submodules::fuzz as submodules;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use git2::ErrorClass;

    #[test]
    fn what_the_volume_caused_is_an_error_of_the_volume() {
        let error = |class, message: &str| {
            failure("cannot fetch x", &git2::Error::new(ErrorCode::GenericError, class, message))
        };
        let full = error(ErrorClass::Os, "cannot extend packfile '/x': No space left on device");
        assert_eq!((full.kind(), full.retry()), (Kind::Volume, None));
        assert!(full.to_string().contains("hint: the volume is full"), "{full}");
        assert_eq!(error(ErrorClass::Os, "failed to open '/x': Read-only file system").kind(), Kind::Volume);
        let damaged = error(ErrorClass::Indexer, "unexpected end of pack");
        assert!(damaged.kind() == Kind::Source && damaged.retry().is_some());
        assert_eq!(error(ErrorClass::Object, "no such object").retry(), None);
    }
}
