//! Replaces the pointers in a tree by their contents.
//!
//! Contents that are on this machine, in the release before or in a `file://` repository, are copied. The others come from
//! the LFS server. podstrap asks for all of them before it downloads a byte, so a missing one costs no time. A download
//! that breaks off continues where it ended. All contents have the SHA-256 and the size of their pointer, or the run fails.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, RANGE};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::GitUrl;
use crate::retry::{Deadline, retry};
use crate::runtime::blocking;
use crate::size::{Size, count};
use crate::source::access::pace::Pace;
use crate::source::access::web::{Access, MAX_REDIRECTS, is_ok, shown, text};
use crate::source::destination::Contents;
use crate::source::lfs::batch::{Action, Server, TOGETHER, remember};
use crate::source::lfs::contents::{Filling, copy, fill_empty};
use crate::source::lfs::endpoint::{Config, Endpoint};
use crate::source::lfs::pointer::{Object, Pointer};
use crate::tree::{Written, too_large};

/// The repository, and the place for its contents.
pub(crate) struct Place<'a> {
    pub(crate) home: &'a GitUrl,
    pub(crate) access: &'a Access,
    /// The reference of the commit.
    pub(crate) reference: Option<&'a str>,
    /// The objects of a repository on this machine.
    pub(crate) objects: Option<&'a Path>,
    pub(crate) tree: &'a Path,
    pub(crate) contents: Contents<'a>,
    /// The files that are in the tree, pointers included.
    pub(crate) written: Written,
    /// The limit for all files.
    pub(crate) limit: Size,
}

impl Place<'_> {
    /// Which contents the tree needs.
    fn needs(&self) -> fn(&Object) -> bool {
        match self.contents {
            Contents::Fetch(_) => |_| true,
            Contents::Ask => |object| object.paths.iter().any(|path| is_input(path)),
        }
    }
}

/// Fetches the contents of these pointers. Returns the bytes of all files with them.
pub(crate) async fn fetch(
    files: Vec<(PathBuf, Pointer)>,
    config: &Config,
    place: Place<'_>,
    deadline: Deadline,
) -> Result<u64> {
    let what = format!("cannot fetch the Git LFS contents of {}", place.home);
    let pointers: u64 = files.iter().map(|(_, pointer)| pointer.length).sum();
    let number = files.len();
    let objects = group(files, &what)?;
    let each = |size: fn(u64) -> u64| {
        let of = |object: &Object| size(object.size).saturating_mul(object.paths.len() as u64);
        objects.iter().map(of).fold(0, u64::saturating_add)
    };
    let (bytes, occupied) = (each(|size| size), each(Size::occupied));
    let whole = place.written.bytes.saturating_sub(pointers).saturating_add(occupied);
    if whole > place.limit.0 {
        return Err(too_large(&what, "the files and their Git LFS contents take", whole, place.limit));
    }
    if matches!(place.contents, Contents::Fetch(_)) {
        check_space(&what, place.tree, occupied)?;
    }
    let missing = copy_known(objects, &place, deadline).await?;
    if !missing.is_empty() {
        let endpoint = Endpoint::of(config, place.home, place.objects)?;
        // The commit is not the cause: the server may give them later.
        download(endpoint, missing, &place, deadline).await.map_err(|error| match error.kind() {
            Kind::Source => error.unreachable(),
            _ => error,
        })?;
    }
    tracing::debug!("{} of Git LFS, {}", count(number as u64, "file"), Size(bytes));
    Ok(place.written.bytes.saturating_sub(pointers).saturating_add(bytes))
}

/// Each contents once.
fn group(files: Vec<(PathBuf, Pointer)>, what: &str) -> Result<Vec<Object>> {
    let (mut objects, mut known) = (Vec::<Object>::new(), HashMap::<String, usize>::new());
    for (path, Pointer { oid, size, .. }) in files {
        match known.get(&oid).map(|at| &mut objects[*at]) {
            Some(object) if object.size == size => object.paths.push(path),
            Some(object) => {
                let first = object.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                return Err(Error::source(what)
                    .because(format!("{first} and {} name the same contents with different sizes", path.display()))
                    .hint("correct the pointers: at least one of them is damaged"));
            }
            None => {
                known.insert(oid.clone(), objects.len());
                objects.push(Object { oid, size, paths: vec![path] });
            }
        }
    }
    Ok(objects)
}

/// Fails before a download that the volume has no space for.
fn check_space(what: &str, tree: &Path, needed: u64) -> Result<()> {
    let Ok(stat) = rustix::fs::statvfs(tree) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some file systems do not tell.
    if stat.f_blocks == 0 || needed <= free {
        return Ok(());
    }
    Err(Error::volume(what)
        .because(format!("they take {}, and the volume has {} left", Size(needed), Size(free)))
        .hint("raise the size of the volume, or free space on its node"))
}

/// Fills what is on this machine. Returns the rest.
async fn copy_known(objects: Vec<Object>, place: &Place<'_>, deadline: Deadline) -> Result<Vec<Object>> {
    let (tree, earlier) = (place.tree.to_owned(), place.contents.earlier().map(Path::to_owned));
    blocking(move || {
        let mut missing = Vec::new();
        for object in objects {
            let Some(path) = object.paths.first() else { continue };
            if object.size == 0 {
                fill_empty(&tree, &object)?;
                continue;
            }
            let known = earlier.iter().flat_map(|earlier| object.paths.iter().map(|path| earlier.join(path)));
            let mut is_here = false;
            for from in known {
                is_here = match copy(&from, tree.join(path), &object, deadline) {
                    // The server has it, too.
                    Err(error) if error.kind() == Kind::Source && !deadline.passed() => {
                        tracing::debug!("{}", error.told());
                        false
                    }
                    copied => copied?,
                };
                if is_here {
                    break;
                }
            }
            if is_here { repeat(&object, &tree, deadline)? } else { missing.push(object) }
        }
        Ok(missing)
    })
    .await
}

/// Copies the contents at the first path to the others.
fn repeat(object: &Object, tree: &Path, deadline: Deadline) -> Result<()> {
    let Some((first, others)) = object.paths.split_first() else { return Ok(()) };
    for path in others {
        if !copy(&tree.join(first), tree.join(path), object, deadline)? {
            return Err(Error::volume(format!("cannot copy {} to {}", first.display(), path.display()))
                .because("it changed after it was written"));
        }
    }
    Ok(())
}

async fn download(endpoint: Endpoint, objects: Vec<Object>, place: &Place<'_>, deadline: Deadline) -> Result<()> {
    let (access, reference) = (place.access.clone(), place.reference.map(str::to_owned));
    let server = match endpoint {
        Endpoint::Local(from) => return from_repository(from, objects, place, deadline).await,
        Endpoint::Web(url) => Server::web(url, access, reference)?,
        Endpoint::Ssh(ssh) => {
            let doing = format!("asking {ssh} for its Git LFS server");
            let connect = async || Server::over_ssh(ssh.clone(), access.clone(), reference.clone(), deadline).await;
            retry(deadline, &doing, connect).await?
        }
    };
    let bytes = objects.iter().map(|object| object.size).fold(0, u64::saturating_add);
    tracing::info!("Git LFS: {} of {} from {}", count(objects.len() as u64, "object"), Size(bytes), server.site);
    let transfer = Transfer { server, tree: place.tree, deadline };
    let mut links = transfer.links(&objects).await?;
    let is_needed = place.needs();
    links.retain(|(object, _)| is_needed(object));
    transfer.all(links).await?;
    let tree = place.tree.to_owned();
    blocking(move || {
        objects.iter().filter(|object| is_needed(object)).try_for_each(|object| repeat(object, &tree, deadline))
    })
    .await
}

/// Copies contents of a repository on this machine, where git-lfs keeps them.
async fn from_repository(from: PathBuf, objects: Vec<Object>, place: &Place<'_>, deadline: Deadline) -> Result<()> {
    let (tree, is_needed) = (place.tree.to_owned(), place.needs());
    blocking(move || {
        for object in objects {
            let Some(path) = object.paths.first() else { continue };
            let name = from.join(&object.oid[..2]).join(&object.oid[2..4]).join(&object.oid);
            if !is_needed(&object) {
                if files::metadata_if_allowed(&name)?.is_some_and(|meta| meta.len() == object.size) {
                    continue;
                }
            } else if copy(&name, tree.join(path), &object, deadline)? {
                repeat(&object, &tree, deadline)?;
                continue;
            }
            return Err(Error::source(format!("cannot find the Git LFS contents of {}", path.display()))
                .because(format!("{} is missing or has other contents", name.display()))
                .hint("run git lfs fetch in the repository, or set lfs.url in .lfsconfig to the URL of an LFS server")
                .hint("use --lfs off if the app does not need them"));
        }
        Ok(())
    })
    .await
}

/// Whether the contents at a path may decide an installation, so that a dry run needs them.
fn is_input(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["whl", "txt", "in", "toml", "lock", "cfg", "py"].iter().any(|input| extension.eq_ignore_ascii_case(input))
}

const STORAGE: &str = "check the storage of the LFS server: podstrap followed its link as it is";

/// Downloads of a server.
struct Transfer<'a> {
    server: Server,
    tree: &'a Path,
    deadline: Deadline,
}

/// Downloads that wait, with their links.
type Queue<'o> = Mutex<VecDeque<(&'o Object, Action)>>;

impl Transfer<'_> {
    /// Asks for all objects.
    async fn links<'o>(&self, objects: &'o [Object]) -> Result<VecDeque<(&'o Object, Action)>> {
        let mut queue = VecDeque::new();
        for objects in objects.chunks(TOGETHER) {
            let objects: Vec<&Object> = objects.iter().collect();
            let doing = format!("asking {} for contents", self.server.site);
            let ask = async || self.server.ask(&objects, self.deadline).await;
            let actions = retry(self.deadline, &doing, ask).await?;
            queue.extend(objects.into_iter().zip(actions));
        }
        Ok(queue)
    }

    async fn all(&self, links: VecDeque<(&Object, Action)>) -> Result<()> {
        let queue = Mutex::new(links);
        let work = || self.work(&queue);
        // As many as git-lfs has (`lfs.concurrenttransfers`), which servers are made for.
        tokio::try_join!(work(), work(), work(), work(), work(), work(), work(), work())?;
        Ok(())
    }

    async fn work(&self, queue: &Queue<'_>) -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((object, action)) = next else { return Ok(()) };
            Box::pin(self.object(object, action)).await?;
        }
    }

    /// Downloads an object to its first path. A try after a failure has a new link, and continues.
    async fn object(&self, object: &Object, action: Action) -> Result<()> {
        let Some(path) = object.paths.first() else { return Ok(()) };
        let (mut filling, mut first) = (Filling::start(self.tree.join(path))?, Some(action));
        let doing = format!("downloading the contents of {}", path.display());
        retry(self.deadline, &doing, async || {
            let Some(action) = first.take().filter(|action| !action.is_over()) else {
                return self.attempt(object, &self.renew(object).await?, &mut filling).await;
            };
            // Another link may lead to a better copy, and this one may be over although the server did not say when.
            self.attempt(object, &action, &mut filling).await.map_err(|error| match error.kind() {
                Kind::Source => {
                    let after = error.retry().and_then(|transient| transient.after);
                    error.transient(after)
                }
                _ => error,
            })
        })
        .await?;
        filling.finish()
    }

    async fn renew(&self, object: &Object) -> Result<Action> {
        let mut actions = self.server.ask(&[object], self.deadline).await?;
        actions.pop().ok_or_else(|| Error::internal("no link for an object"))
    }

    async fn attempt(&self, object: &Object, action: &Action, filling: &mut Filling) -> Result<()> {
        let path = object.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        let what = format!("cannot download the Git LFS contents of {path} ({})", object.oid);
        let before = filling.received;
        if before < object.size {
            let response = self.request(&what, action, filling).await?;
            let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
            if let Err(error) = self.receive(&what, object, response, filling).await {
                // A server may send less of the rest than podstrap asked for.
                if is_part && (before + 1..object.size).contains(&filling.received) {
                    return Err(error.transient(None));
                }
                if error.retry().is_none() {
                    filling.empty()?;
                }
                return Err(error);
            }
        }
        let sha256 = filling.sha256();
        if sha256 == object.oid {
            return Ok(());
        }
        filling.empty()?;
        let error = Error::source(what).because(format!("the contents have the SHA-256 {sha256}"));
        // One of two parts may have been of something else.
        if before > 0 {
            return Err(error.transient(None));
        }
        Err(error.hint("check the object on the LFS server: its contents are not those of its name"))
    }

    /// Requests the rest of an object. Empties the file if the server sends the whole object.
    async fn request(&self, what: &str, action: &Action, filling: &mut Filling) -> Result<Response> {
        let site = &self.server.site;
        let received = filling.received;
        let mut url = action.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let place = shown(&url);
            let get = |client: &reqwest::Client, url: url::Url| {
                // The link's headers are for its own server.
                let own = if url.origin() == action.url.origin() { action.headers.clone() } else { HeaderMap::new() };
                let request = client.get(url).headers(own).header(ACCEPT_ENCODING, "identity");
                if received > 0 { request.header(RANGE, format!("bytes={received}-")) } else { request }
            };
            let mut reply = if action.is_open {
                site.send(what, url, get, self.deadline).await?
            } else {
                site.send_bare(what, url, get, self.deadline).await?
            };
            if !reply.response.status().is_success() {
                // A server may repeat them.
                remember(site, &action.url, &action.headers);
            }
            if let Some(target) = site.redirect(what, &place, &reply.response)? {
                // The target may be a link with a signature, too.
                remember(site, &target, &HeaderMap::new());
                url = target;
                continue;
            }
            match reply.response.status() {
                StatusCode::PARTIAL_CONTENT if received > 0 && continues(&reply.response, received) => {
                    return Ok(reply.response);
                }
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if received > 0 => {
                    filling.empty()?;
                    let error = Error::source(what).because(format!("{place} does not continue at byte {received}"));
                    return Err(error.transient(None));
                }
                _ if is_ok(&reply.response) => {
                    filling.empty()?;
                    return Ok(reply.response);
                }
                status if status.is_success() => {
                    return Err(Error::source(what)
                        .because(format!("{place} answers {status} to a request for all of it"))
                        .hint(STORAGE));
                }
                _ if action.is_open => {
                    return Err(site.refused(what, "object", &place, reply, self.deadline).await);
                }
                _ => {
                    let error = site.answers(what, &place, &mut reply.response, self.deadline).await;
                    return Err(error.hint(STORAGE));
                }
            }
        }
        Err(Error::source(what).because(format!("more than {MAX_REDIRECTS} redirects, the last to {}", shown(&url))))
    }

    async fn receive(&self, what: &str, object: &Object, mut response: Response, filling: &mut Filling) -> Result<()> {
        let wrong = |bytes: u64, more: &str| {
            Error::source(what)
                .because(format!("the server sends {bytes} bytes{more}, and the pointer says {}", object.size))
                .hint("check the object on the LFS server: its contents are not those of its name")
        };
        let mut pace = Pace::new(self.deadline);
        while let Some(chunk) = self.server.site.chunk(what, &mut response, filling.received, &mut pace).await? {
            let received = filling.received + chunk.len() as u64;
            if received > object.size {
                return Err(wrong(received, " or more"));
            }
            filling.add(&chunk)?;
            if self.deadline.passed() {
                return Err(pace.stalled(what));
            }
        }
        if filling.received < object.size {
            return Err(wrong(filling.received, ""));
        }
        Ok(())
    }
}

/// Whether a part of an object starts at this byte (RFC 9110, 14.4).
fn continues(response: &Response, at: u64) -> bool {
    let range = text(response.headers(), CONTENT_RANGE.as_str()).and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(start, _)| start.parse() == Ok(at))
}
