//! A Git repository: resolves a reference to a commit, fetches its objects, and checks out exactly that commit.
//!
//! A clone is two requests: one for the reference (in version 2 of the protocol; in version 0, and so over SSH, for the
//! list of all references), and one for the pack with a single commit. Over SSH both go to one process on the server,
//! which answers one request and ends. podstrap reads that pack itself ([`receive`]), and writes files while it arrives
//! ([`Early`]). It asks for a commit by its name, so names cannot be confused, and podstrap can ask for a commit that
//! is not a tip, whether or not the server announces support for that.
//!
//! libgit2 fetches into a repository in two cases: for `--keep-git`, and if the server refuses to send that commit,
//! which podstrap then looks up among everything that the server sends. It also reads packs that podstrap does not.
//! podstrap reads a `file://` repository in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::ErrorCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::error::{Error, IoContext, Result};
use crate::plan::{GitSource, GitUrl, Ssh, Submodules};
use crate::retry::{Deadline, retry};
use crate::runtime::blocking;
use crate::signature::{AllowedSigners, Purpose, SignedBy};
use crate::size::Size;
use crate::source::access::auth::Auth;
use crate::source::access::web::Access;
use crate::source::checkout::{self, Begun, CheckedOut, Early, LfsFiles, Submodule};
use crate::source::destination::{Contents, Destination};
use crate::source::keep;
use crate::source::lfs;
use crate::source::objects::transport::{self, Wire};
use crate::source::objects::{Fetched, create, failure, fetch_local, index, open_local, receive};
use crate::source::remote::http::{Listing, Remote};
use crate::source::remote::pktline::{FLUSH, Framer, SECTION, packet, payload};
use crate::source::remote::refs::{Choice, Refs};
use crate::source::remote::ssh::{self, Session};
use crate::source::remote::submodules;
use crate::source::revision::Revision;
use crate::tree::{Written, too_large};

/// The only reference in the list for libgit2.
const WANTED: &str = "refs/podstrap/wanted";
/// The capabilities to use if the server has them: one frame for the pack, the progress and errors; short deltas; and one
/// without which Azure DevOps refuses every request.
const ASKED: [&str; 4] = ["side-band-64k", "ofs-delta", "multi_ack_detailed", "multi_ack"];
/// Limit of nested submodules.
const MAX_NESTING: usize = 16;
/// Packets in the channel to the reader of the pack: at most 2 MiB.
const IN_FLIGHT: usize = 32;

/// A repository with a resolved reference.
#[derive(Debug)]
pub(crate) struct Git {
    source: GitSource,
    access: Access,
    reached: Reached,
    choice: Choice,
    /// Whether the choice is out of date.
    moved: bool,
    /// The signers of whom one must have signed.
    signers: Option<Arc<AllowedSigners>>,
    signer: Option<SignedBy>,
}

/// The transport to the repository, and its references.
#[derive(Debug)]
enum Reached {
    Http(Box<(Remote, Listing)>),
    Ssh(Box<Shell>),
    /// The directory of its objects, and its references.
    File(PathBuf, Refs),
}

/// A repository over SSH, and its server's list of references.
#[derive(Debug)]
struct Shell {
    address: Ssh,
    /// Answers one request.
    session: Option<Session>,
    refs: Refs,
    /// The list in the form of HTTP.
    body: Vec<u8>,
}

impl Shell {
    async fn list(address: &Ssh, access: &Access, deadline: Deadline) -> Result<Self> {
        let keys = Auth::read(&access.auth)?.keys;
        let (session, refs, body) = Box::pin(ssh::list(address, &keys, deadline)).await?;
        Ok(Self { address: address.clone(), session: Some(session), refs, body })
    }
}

/// Where the objects of a pack go.
#[derive(Clone, Copy)]
enum Storage {
    /// podstrap reads the pack itself.
    Pack,
    /// libgit2's repository.
    Repository,
}

/// The objects of a commit, and its files as far as they are written.
type Objects = (Fetched, Option<Begun>);

/// What to fetch: for libgit2, its list of references and the refspecs.
struct Ask {
    listing: Vec<u8>,
    refspecs: Vec<String>,
    depth: u32,
}

impl Git {
    pub(crate) async fn resolve(source: &GitSource, access: &Access, deadline: Deadline) -> Result<Self> {
        // Must precede every other use of libgit2.
        transport::set_up().map_err(|error| Error::internal("cannot set up libgit2").because(error.message()))?;
        let signers = match source.verify.clone() {
            Some(file) => Some(Arc::new(blocking(move || AllowedSigners::read(&file, Purpose::Git)).await?)),
            None => None,
        };
        let url = source.url.to_string();
        let listing = format!("listing the references of {url}");
        let (reached, choice) = match &source.url {
            GitUrl::Url(at) if at.url().scheme() == "file" => {
                let path = at.url().to_file_path().map_err(|()| {
                    Error::source(format!("{url} is not a path on this machine")).hint("write file:///absolute/path")
                })?;
                let name = url.clone();
                let (refs, objects) = blocking(move || open_local(&path, &name)).await?;
                let choice = refs.choose(source.reference.as_deref(), &url)?;
                (Reached::File(objects, refs), choice)
            }
            GitUrl::Url(at) => {
                let remote = Remote::new(at.clone(), access.clone())?;
                // A kept repository needs all references.
                let mut asks = !source.keep_git;
                let (listing, choice) = retry(deadline, &listing, async || {
                    if std::mem::take(&mut asks)
                        && let Some(listing) = remote.ask(source.reference.as_deref(), deadline).await?
                        && let Ok(choice) = listing.refs.choose(source.reference.as_deref(), &url)
                    {
                        return Ok((listing, choice));
                    }
                    let listing = remote.list(deadline).await?;
                    let choice = listing.refs.choose(source.reference.as_deref(), &url)?;
                    Ok((listing, choice))
                })
                .await?;
                (Reached::Http(Box::new((remote, listing))), choice)
            }
            GitUrl::Ssh(address) => {
                let shell = retry(deadline, &listing, || Shell::list(address, access, deadline)).await?;
                let choice = shell.refs.choose(source.reference.as_deref(), &url)?;
                (Reached::Ssh(Box::new(shell)), choice)
            }
        };
        Ok(Self {
            source: source.clone(),
            access: access.clone(),
            reached,
            choice,
            moved: false,
            signers,
            signer: None,
        })
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision { commit: self.choice.commit.to_string(), reference: self.choice.reference.clone() }
    }

    /// Who signed what was checked out, if somebody had to.
    pub(crate) fn signer(&self) -> Option<&SignedBy> {
        self.signer.as_ref()
    }

    /// Checks out the chosen commit. The reference may move meanwhile: afterwards [`revision`](Self::revision)
    /// is the one that was checked out.
    pub(crate) async fn check_out(&mut self, to: Destination<'_>, deadline: Deadline) -> Result<Written> {
        self.check_out_nested(to, 0, deadline).await
    }

    /// Like [`check_out`](Self::check_out), `nesting` submodules below the user's repository.
    async fn check_out_nested(&mut self, to: Destination<'_>, nesting: usize, deadline: Deadline) -> Result<Written> {
        // One repository for each level: a submodule that is written no longer needs its repository.
        let repository = to.scratch.join(format!("git-{nesting}"));
        let (fetched, begun) = self.fetch_objects(&repository, to, deadline).await?;
        let mut done = self.write(fetched, begun, to, deadline).await?;
        self.signer = done.signer.take();
        if let Some(LfsFiles { files, config }) = done.lfs.take().filter(|lfs| !lfs.files.is_empty()) {
            let place = lfs::Place {
                home: &self.source.url,
                access: &self.access,
                reference: self.choice.reference.as_deref().filter(|name| name.starts_with("refs/")),
                objects: match &self.reached {
                    Reached::File(objects, _) => Some(objects),
                    _ => None,
                },
                tree: to.tree,
                contents: to.contents,
                written: done.written,
                limit: to.limit,
            };
            done.written.bytes = Box::pin(lfs::fetch(files, &config, place, deadline)).await?;
        }
        if !done.submodules.is_empty() {
            let left = Size(to.limit.0.saturating_sub(done.written.bytes));
            let below = self.submodules(&done.submodules, Destination { limit: left, ..to }, nesting, deadline).await?;
            done.written.add(below);
        }
        if self.source.keep_git && nesting == 0 {
            let (source, choice, tree) = (self.source.clone(), self.choice.clone(), to.tree.to_owned());
            let refs = match &self.reached {
                Reached::Http(http) => http.1.refs.clone(),
                Reached::Ssh(shell) => shell.refs.clone(),
                Reached::File(_, refs) => refs.clone(),
            };
            blocking(move || keep::keep(&repository, &source, &choice, &refs, &tree)).await?;
        }
        Ok(done.written)
    }

    /// Fetches the chosen commit's objects, and may begin to write its files. If libgit2 stores the objects, it does so in
    /// a new repository.
    async fn fetch_objects(&mut self, repository: &Path, to: Destination<'_>, deadline: Deadline) -> Result<Objects> {
        let (repository, limit) = (repository.to_owned(), to.limit);
        let fetched = match &self.reached {
            Reached::Http(_) | Reached::Ssh(_) => {
                let doing = format!("fetching from {}", self.source.url);
                return retry(deadline, &doing, async || self.fetch(&repository, to, deadline).await).await;
            }
            Reached::File(objects, _) if self.source.keep_git => {
                let (from, doing) = (objects.with_file_name(""), self.what());
                let specs = keep::refspecs(self.choice.reference.as_deref());
                blocking(move || {
                    fetch_local(&from, &repository, &specs, limit, deadline, &doing)?;
                    Ok(Fetched::Repository(repository))
                })
                .await
            }
            Reached::File(objects, _) => {
                let objects = objects.clone();
                blocking(move || {
                    create(&repository)?;
                    let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
                    std::fs::write(repository.join("objects/info/alternates"), line)
                        .on_volume(|| format!("cannot write to {}", repository.display()))?;
                    Ok(Fetched::Repository(repository))
                })
                .await
            }
        };
        Ok((fetched?, None))
    }

    /// Writes the chosen commit's files.
    async fn write(
        &self,
        fetched: Fetched,
        begun: Option<Begun>,
        to: Destination<'_>,
        deadline: Deadline,
    ) -> Result<CheckedOut> {
        let doing = format!("cannot check out {} of {}", self.choice.commit, self.source.url);
        let (choice, source, signers) = (self.choice.clone(), self.source.clone(), self.signers.clone());
        let (tree, scratch) = (to.tree.to_owned(), to.scratch.to_owned());
        let (subdir, limit, lfs_pointers) = (to.subdir.cloned(), to.limit, to.lfs_pointers);
        // This part writes only pointers.
        let contents = Contents::Ask;
        let written = blocking(move || {
            // The pack and the files are on the volume at the same time.
            let limit = Size(limit.0.saturating_sub(fetched.occupied()?));
            let to =
                Destination { tree: &tree, scratch: &scratch, subdir: subdir.as_ref(), limit, lfs_pointers, contents };
            checkout::write(&fetched, begun, signers.as_deref(), &source, &choice, to, deadline)
        });
        // Nothing can stop libgit2's writer, or an attribute pattern that is made to run for ever. They end with
        // the process.
        timeout_at(deadline.instant(), written).await.unwrap_or_else(|_| Err(deadline.late(&doing)))
    }

    /// Checks out the tree's submodules.
    async fn submodules(
        &self,
        found: &[Submodule],
        to: Destination<'_>,
        nesting: usize,
        deadline: Deadline,
    ) -> Result<Written> {
        let mut done = Written::default();
        if nesting == MAX_NESTING {
            return Err(Error::source(format!(
                "the submodules of {} are nested more than {MAX_NESTING} levels deep",
                self.source.url
            ))
            .hint("check whether one contains itself, or fetch only the direct ones with --submodules shallow"));
        }
        for submodule in found {
            let named = format!("submodule {}", submodule.path.display());
            let error = |error: Error| {
                let error = error.within(&named);
                // Give the hint only once.
                let outermost = nesting == 0;
                if outermost {
                    error.hint("use --submodules off to leave the directories of submodules empty")
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
                // The signed commit names this one.
                verify: None,
                ..self.source.clone()
            };
            tracing::info!("{named}: {} of {}", submodule.commit, source.url);
            let tree = to.tree.join(&submodule.path);
            let mut git = Box::pin(Self::resolve(&source, &self.access, deadline)).await.map_err(error)?;
            let limit = Size(to.limit.0.saturating_sub(done.bytes));
            let earlier = to.contents.earlier().map(|earlier| earlier.join(&submodule.path));
            let contents = match to.contents {
                Contents::Fetch(_) => Contents::Fetch(earlier.as_deref()),
                Contents::Ask => Contents::Ask,
            };
            let part = Destination { tree: &tree, subdir: None, limit, contents, ..to };
            done.add(Box::pin(git.check_out_nested(part, nesting + 1, deadline)).await.map_err(error)?);
        }
        Ok(done)
    }

    /// One try to fetch the wanted commit.
    async fn fetch(&mut self, repository: &Path, destination: Destination<'_>, deadline: Deadline) -> Result<Objects> {
        self.renew(deadline).await?;
        // Like `git clone`, keep the whole repository.
        let whole = self.source.keep_git && self.source.depth == 0;
        let (ask, to) = if whole { (self.everything(), Storage::Repository) } else { self.wanted() };
        let refusal = match self.download(ask, to, repository, destination, deadline).await? {
            Ok(fetched) => return Ok(fetched),
            Err(refusal) => refusal,
        };
        if self.is_version_2() {
            tracing::debug!("the server refuses ({refusal}): starting again in version 0");
            self.moved = true;
            return Box::pin(self.fetch(repository, destination, deadline)).await;
        }
        if whole || self.choice.advertised {
            let error = self.refused(&refusal);
            // The reference moved since it was listed, or one of several servers lags behind.
            self.moved = refusal.contains("not our ref");
            return Err(if self.moved { error.transient(None) } else { error });
        }
        tracing::info!("the server does not send single commits ({refusal}): fetching everything");
        self.renew(deadline).await?;
        let fetched = self.download(self.everything(), Storage::Repository, repository, destination, deadline).await?;
        fetched.map_err(|refusal| self.refused(&refusal))
    }

    /// The request for the wanted commit. podstrap reads the pack itself, unless the repository is kept.
    fn wanted(&self) -> (Ask, Storage) {
        let capabilities = self.listed().map(|(refs, _)| refs.capabilities.as_str()).unwrap_or_default();
        // Without a .git nobody sees the history.
        let depth = if self.source.keep_git { self.source.depth } else { 1 };
        let depth = if self.is_version_2() || has(capabilities, "shallow") { depth } else { 0 };
        let ask = Ask {
            listing: single(self.choice.want, capabilities),
            refspecs: vec![format!("+{WANTED}:{WANTED}")],
            depth,
        };
        (ask, if self.source.keep_git { Storage::Repository } else { Storage::Pack })
    }

    /// Lists and chooses again if the choice is out of date or the SSH session is over.
    async fn renew(&mut self, deadline: Deadline) -> Result<()> {
        let refs = match &mut self.reached {
            Reached::Http(http) if self.moved => {
                http.1 = http.0.list(deadline).await?;
                &http.1.refs
            }
            Reached::Ssh(shell) if self.moved || shell.session.as_ref().is_none_or(Session::is_over) => {
                **shell = Shell::list(&shell.address, &self.access, deadline).await?;
                &shell.refs
            }
            _ => return Ok(()),
        };
        self.choice = refs.choose(self.source.reference.as_deref(), &self.source.url)?;
        self.moved = false;
        Ok(())
    }

    /// Whether the list has only the references that were asked for.
    fn is_version_2(&self) -> bool {
        matches!(&self.reached, Reached::Http(http) if http.1.body.is_none())
    }

    /// The remote's list of references, parsed and as received.
    fn listed(&self) -> Option<(&Refs, &[u8])> {
        match &self.reached {
            Reached::Http(http) => Some((&http.1.refs, http.1.body.as_deref().unwrap_or_default())),
            Reached::Ssh(shell) => Some((&shell.refs, &shell.body)),
            Reached::File(..) => None,
        }
    }

    fn everything(&self) -> Ask {
        Ask {
            listing: self.listed().map(|(_, body)| without_shallow(body)).unwrap_or_default(),
            refspecs: keep::refspecs(self.choice.reference.as_deref()),
            depth: 0,
        }
    }

    /// Fetches a pack. Its reader runs on a blocking thread, the network on this one, with a channel between them.
    /// Returns the refusal of the server, if any.
    async fn download(
        &mut self,
        ask: Ask,
        to: Storage,
        repository: &Path,
        destination: Destination<'_>,
        deadline: Deadline,
    ) -> Result<Result<Objects, String>> {
        let (what, limit) = (self.what(), destination.limit);
        let mut early = Early::new(self.choice.want, destination, deadline);
        let (request, requested) = oneshot::channel();
        let (send, packets) = mpsc::channel(IN_FLIGHT);
        let (repository, doing) = (repository.to_owned(), what.clone());
        let plain = self.request(ask.depth);
        let path = repository.with_extension("pack");
        let (pack, to_index, told) = (path.clone(), repository.clone(), what.clone());
        let reader = blocking(move || match to {
            Storage::Pack => {
                // Fails if the network task is gone. The packets end then.
                let _ = request.send(plain);
                let pack = receive(packets, &path, limit, deadline, &doing, &mut early)?;
                Ok(pack.map(|pack| (Fetched::Pack(Box::new(pack), repository), early.begun())))
            }
            Storage::Repository => {
                create(&repository)?;
                let wire = Wire { listing: ask.listing, request, packets };
                transport::download(&repository, wire, &ask.refspecs, ask.depth, limit, deadline).map_err(|error| {
                    match error.code() {
                        ErrorCode::User if deadline.passed() => deadline.late(&doing).unreachable(),
                        ErrorCode::User => too_large(&doing, "the pack alone takes", limit.0, limit),
                        _ => failure(&doing, &error),
                    }
                })?;
                Ok(Some((Fetched::Repository(repository), None)))
            }
        });
        let network = async {
            // The reader may fail before it sends a request. Its result then has the error.
            let Ok(body) = requested.await else { return Ok(None) };
            match &mut self.reached {
                Reached::Http(http) => http.0.upload_pack(&what, &http.1, body, send, deadline).await,
                Reached::Ssh(shell) => match shell.session.take() {
                    Some(session) => Box::pin(session.upload_pack(&what, body, send, deadline)).await,
                    None => Err(Error::internal("no SSH session to request a pack from")),
                },
                Reached::File(..) => Ok(None),
            }
        };
        let (network, fetched) = tokio::join!(network, reader);
        match network {
            Ok(None) => {}
            Ok(Some(refusal)) => return Ok(Err(refusal)),
            Err(error) => {
                // It deletes the files.
                let delete = move || {
                    drop(fetched);
                    Ok(())
                };
                let _ = blocking(delete).await;
                return Err(error);
            }
        }
        if let Some(fetched) = fetched? {
            return Ok(Ok(fetched));
        }
        tracing::debug!("libgit2 reads the pack");
        let indexed = blocking(move || {
            index(&pack, &to_index, deadline, &told)?;
            Ok((Fetched::Repository(to_index), None))
        });
        indexed.await.map(Ok)
    }

    /// The request for the wanted object (gitprotocol-pack, "upload-request"; gitprotocol-v2, "fetch").
    fn request(&self, depth: u32) -> Vec<u8> {
        if self.is_version_2() {
            let (want, deepen) = (format!("want {}\n", self.choice.want), format!("deepen {depth}\n"));
            let lines = ["ofs-delta\n", &want, &deepen, "done\n"].map(|line| packet(line.as_bytes()));
            return [&packet(b"command=fetch\n"), SECTION, &lines.concat(), FLUSH].concat();
        }
        let capabilities = self.listed().map(|(refs, _)| refs.capabilities.as_str()).unwrap_or_default();
        let asked: Vec<&str> = ASKED.iter().copied().filter(|name| has(capabilities, name)).collect();
        let want = packet(format!("want {} {}\n", self.choice.want, asked.join(" ")).as_bytes());
        let deepen = if depth > 0 { packet(format!("deepen {depth}\n").as_bytes()) } else { Vec::new() };
        [want, deepen, FLUSH.to_vec(), packet(b"done\n")].concat()
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

/// The list without its lines about shallow commits, which libgit2 does not read there.
fn without_shallow(body: &[u8]) -> Vec<u8> {
    let (mut framer, mut out) = (Framer::default(), Vec::with_capacity(body.len()));
    framer.push(body);
    // The list was parsed before, so it has no errors.
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
