//! The client of an OCI registry: the part of the distribution specification that a store needs.
//!
//! The URL of each request decides what it carries: only requests to the registry itself carry a login or a token. A
//! registry that answers 401 names the way to log in: with the login itself, or with a token of a server that it names.
//! That server gets a login only if the files of `--auth` have one for its host.
//!
//! The work runs on a thread of its own, so that a transfer goes on while its caller unpacks or packs.

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Body, Method, Response, StatusCode};
use serde_json::Value;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};
use url::Url;

use super::challenge::{self, Challenge};
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::plan;
use crate::redact::Secret;
use crate::retry::Deadline;
use crate::source::access::auth::{Auth, Login};
use crate::source::access::pace::Pace;
use crate::source::access::web::{self, shown, text};

/// Time limit for a request with a small answer, with its tries.
const PATIENCE: Duration = Duration::from_secs(4);
/// Tries of such a request, and the pause after the first one.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// The most redirects of a download.
const REDIRECTS: usize = 5;
/// The most bytes of an answer with a token, a list or an error.
const TOKEN_SIZE: u64 = 64 << 10;
const LIST_SIZE: u64 = 4 << 20;
const ERROR_SIZE: u64 = 16 << 10;
/// The most pages of a list.
const PAGES: usize = 100;
/// Parts of a transfer that wait, and their size when podstrap makes them.
const WAITING: usize = 16;
const PART: usize = 128 << 10;

/// What a request needs to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Pull,
    Push,
}

/// The client of one repository.
#[derive(Debug)]
pub(super) struct Client {
    at: plan::Registry,
    auth: Vec<PathBuf>,
    web: reqwest::Client,
    base: OnceLock<Url>,
    /// The header that the registry wants, by the rights.
    grants: Mutex<[Option<HeaderValue>; 2]>,
    thread: Handle,
    /// Its drop ends the thread.
    _stop: oneshot::Sender<()>,
}

/// A request with a body that can be sent again.
struct Call<'a> {
    method: Method,
    url: Url,
    rights: Rights,
    accept: &'a str,
    body: Option<(&'a str, Bytes)>,
}

impl Client {
    /// Makes no connection yet.
    ///
    /// # Errors
    /// As [`http::client`].
    pub(super) fn new(at: plan::Registry, auth: Vec<PathBuf>) -> Result<Arc<Self>> {
        let web = http::client_of_registry(at.is_here)?;
        let failed = |error: io::Error| Error::internal("cannot start a thread for the registry").because(error);
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().map_err(failed)?;
        let thread = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || drop(runtime.block_on(stopped));
        thread::Builder::new().name("registry".into()).spawn(run).map_err(failed)?;
        let (base, grants) = (OnceLock::new(), Mutex::default());
        Ok(Arc::new(Self { at, auth, web, base, grants, thread, _stop: stop }))
    }

    /// The text of a manifest; `None` if the registry does not have it.
    pub(super) fn manifest(&self, tag: &str, kind: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let what = format!("cannot read {tag} of {}", self.at);
        self.small(&what, async |deadline| {
            let url = self.url(&format!("manifests/{tag}"), deadline).await?;
            let response = self.get(&what, url, kind, deadline).await?;
            self.found(&what, response, most, deadline).await
        })
    }

    pub(super) fn put_manifest(&self, tag: &str, kind: &str, text: Vec<u8>) -> Result<()> {
        let what = format!("cannot write {tag} of {}", self.at);
        let text = Bytes::from(text);
        self.small(&what, async |deadline| {
            let url = self.url(&format!("manifests/{tag}"), deadline).await?;
            let body = Some((kind, text.clone()));
            let call = Call { method: Method::PUT, url, rights: Rights::Push, accept: "*/*", body };
            let response = self.send(&what, &call, deadline).await?;
            self.expect(&what, response, deadline).await.map(drop)
        })
    }

    /// A small blob; `None` if the registry does not have it.
    pub(super) fn blob(&self, digest: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let what = format!("cannot read a blob of {}", self.at);
        self.small(&what, async |deadline| {
            let url = self.url(&format!("blobs/{digest}"), deadline).await?;
            let response = self.get(&what, url, "*/*", deadline).await?;
            self.found(&what, response, most, deadline).await
        })
    }

    pub(super) fn has_blob(&self, digest: &str) -> Result<bool> {
        let what = format!("cannot find a blob of {}", self.at);
        self.small(&what, async |deadline| {
            let url = self.url(&format!("blobs/{digest}"), deadline).await?;
            let call = Call { method: Method::HEAD, url, rights: Rights::Pull, accept: "*/*", body: None };
            let response = self.send(&what, &call, deadline).await?;
            // Storage elsewhere may have it: the upload finds out.
            Ok(response.status() == StatusCode::OK)
        })
    }

    /// Starts to download a blob. Returns its length, as far as the registry knows it, and its bytes. `None`: the registry
    /// does not have it.
    pub(super) fn download(
        self: &Arc<Self>,
        digest: &str,
        deadline: Deadline,
    ) -> Result<Option<(Option<u64>, Download)>> {
        let what = format!("cannot read an archive of {}", self.at);
        let response = self.small(&what, async |soon| {
            let url = self.url(&format!("blobs/{digest}"), soon).await?;
            let response = self.get(&what, url, "*/*", soon).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            self.expect(&what, response, soon).await.map(Some)
        })?;
        let Some(mut response) = response else { return Ok(None) };
        let length = text(response.headers(), CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let (sender, parts) = mpsc::channel(WAITING);
        self.thread.spawn(async move {
            let mut received = 0;
            while let Some(part) = part(&mut response, &mut received, deadline).await.transpose() {
                let is_last = part.is_err();
                // Fails if nobody reads any more.
                if sender.send(part).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Some((length, Download { _client: Arc::clone(self), parts, part: Bytes::new() })))
    }

    /// Saves a small blob.
    pub(super) fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let what = format!("cannot upload to {}", self.at);
        let bytes = Bytes::copy_from_slice(bytes);
        self.small(&what, async |deadline| {
            let place = self.begin(&what, deadline).await?;
            self.commit(&what, place, digest, bytes.clone(), deadline).await
        })
    }

    /// Starts to upload a blob whose digest and length nobody knows yet.
    pub(super) fn upload(self: &Arc<Self>, deadline: Deadline) -> Result<Upload> {
        let what = format!("cannot upload to {}", self.at);
        let place = self.small(&what, async |soon| self.begin(&what, soon).await)?;
        let (sender, body) = Channel::<Bytes, io::Error>::new(WAITING);
        let grant = self.grant(&place, Rights::Push);
        let request = self.web.patch(place).header(CONTENT_TYPE, "application/octet-stream").body(Body::wrap(body));
        let request = match grant {
            Some(grant) => request.header(AUTHORIZATION, grant),
            None => request,
        };
        let answer = self.thread.spawn(request.send());
        Ok(Upload {
            client: Arc::clone(self),
            sender: Some(sender),
            answer,
            buffer: Vec::with_capacity(PART),
            deadline,
            what,
        })
    }

    /// All tags of the repository.
    pub(super) fn tags(&self) -> Result<Vec<String>> {
        let what = format!("cannot list {}", self.at);
        let mut found = Vec::new();
        let mut next = Some("tags/list?n=1000".to_owned());
        for _ in 0..PAGES {
            let Some(path) = next.take() else { return Ok(found) };
            let page = self.small(&what, async |deadline| {
                let base = self.url("", deadline).await?;
                let url = base.join(&path).ok().filter(|url| url.origin() == base.origin());
                let url = url.ok_or_else(|| Error::volume(&what).because("the registry names an invalid next page"))?;
                let response = self.get(&what, url, "application/json", deadline).await?;
                let link = text(response.headers(), LINK.as_str()).map(str::to_owned);
                Ok((link, self.found(&what, response, LIST_SIZE, deadline).await?))
            })?;
            // A repository without any tag does not exist.
            let (link, Some(body)) = page else { return Ok(found) };
            let list: Value = serde_json::from_slice(&body)
                .map_err(|error| Error::volume(&what).because(format!("the registry's list is invalid: {error}")))?;
            let tags = list["tags"].as_array().into_iter().flatten();
            found.extend(tags.filter_map(|tag| tag.as_str().map(str::to_owned)));
            next = link.and_then(|link| Some(link.split_once('<')?.1.split_once('>')?.0.to_owned()));
        }
        Err(Error::volume(what).because(format!("its list has more than {PAGES} pages")))
    }

    /// Runs a request with a small answer. Tries it again after a failure that may pass.
    fn small<T>(&self, what: &str, attempt: impl AsyncFn(Deadline) -> Result<T>) -> Result<T> {
        let deadline = Deadline::after(PATIENCE);
        self.thread.block_on(async {
            let mut tries = 0;
            loop {
                let error = match attempt(deadline).await {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                };
                tries += 1;
                let pause = error.retry().map(|transient| transient.after.unwrap_or_default().max(PAUSE * tries));
                match pause {
                    Some(pause) if tries < TRIES && pause < deadline.remaining() => {
                        tracing::debug!("{what}: trying again in {:.1} s: {}", pause.as_secs_f64(), error.summary());
                        sleep(pause).await;
                    }
                    _ => return Err(error),
                }
            }
        })
    }

    /// The URL of something in the repository.
    async fn url(&self, path: &str, deadline: Deadline) -> Result<Url> {
        let base = match self.base.get() {
            Some(base) => base.clone(),
            None => self.find_base(deadline).await?,
        };
        base.join(path).map_err(|error| Error::internal("cannot build a URL of the registry").because(error))
    }

    /// Finds out whether the registry speaks TLS: only one on this host may speak HTTP without it.
    async fn find_base(&self, deadline: Deadline) -> Result<Url> {
        let base = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/v2/{}/", self.at.host, self.at.repository))
                .map_err(|error| Error::internal("cannot build the URL of the registry").because(error))
        };
        let mut found = base("https")?;
        if self.at.is_here {
            let asked = timeout_at(deadline.instant(), self.web.get(found.clone()).send()).await;
            if let Ok(Err(error)) = asked
                && error.is_connect()
                && http::distrust(&error).is_none()
            {
                found = base("http")?;
            }
        }
        Ok(self.base.get_or_init(|| found).clone())
    }

    /// Gets something, and follows redirects of the registry. They carry no login to another place.
    async fn get(&self, what: &str, url: Url, accept: &str, deadline: Deadline) -> Result<Response> {
        let mut call = Call { method: Method::GET, url, rights: Rights::Pull, accept, body: None };
        for _ in 0..=REDIRECTS {
            let response = self.send(what, &call, deadline).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            call.url = location(what, &response)?;
        }
        Err(Error::volume(what).because(format!("{} redirects more than {REDIRECTS} times", self.at.host)))
    }

    /// Sends a request, and logs in if the registry wants it.
    async fn send(&self, what: &str, call: &Call<'_>, deadline: Deadline) -> Result<Response> {
        let response = self.send_once(what, call, deadline).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_registry(&call.url) {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = challenges.flat_map(challenge::read).collect();
        let Some(grant) = self.log_in(what, &challenges, call.rights, deadline).await? else { return Ok(response) };
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)[call.rights as usize] = Some(grant);
        self.send_once(what, call, deadline).await
    }

    async fn send_once(&self, what: &str, call: &Call<'_>, deadline: Deadline) -> Result<Response> {
        let mut request = self.web.request(call.method.clone(), call.url.clone()).header(ACCEPT, call.accept);
        if let Some(grant) = self.grant(&call.url, call.rights) {
            request = request.header(AUTHORIZATION, grant);
        }
        if let Some((kind, bytes)) = &call.body {
            request = request.header(CONTENT_TYPE, *kind).body(bytes.clone());
        }
        answer(what, request.send(), deadline).await
    }

    fn is_registry(&self, url: &Url) -> bool {
        self.base.get().is_some_and(|base| base.origin() == url.origin())
    }

    fn grant(&self, url: &Url, rights: Rights) -> Option<HeaderValue> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants[rights as usize].clone().filter(|_| self.is_registry(url))
    }

    /// The header that answers a challenge. `None`: there is no login, or no such way.
    async fn log_in(
        &self,
        what: &str,
        challenges: &[Challenge],
        rights: Rights,
        deadline: Deadline,
    ) -> Result<Option<HeaderValue>> {
        let auth = Auth::read(&self.auth)?;
        let base = self.url("", deadline).await?;
        let own = auth.registry(&base, &self.at.repository)?;
        let by = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        match (by("bearer"), by("basic"), own) {
            (Some(bearer), ..) => self.token(what, bearer, &auth, rights, deadline).await.map(Some),
            (None, Some(_), Some(own)) => secret_header(what, &own.login).map(Some),
            (None, ..) => Ok(None),
        }
    }

    /// Gets a token from the server that the registry names.
    async fn token(
        &self,
        what: &str,
        bearer: &Challenge,
        auth: &Auth,
        rights: Rights,
        deadline: Deadline,
    ) -> Result<HeaderValue> {
        let refused = |why: String| Error::volume(what).because(why);
        let (host, base) = (&self.at.host, self.url("", deadline).await?);
        // Without a login of somebody else.
        let realm = bearer.get("realm").and_then(|realm| web::target(&base, realm).ok()?.ok());
        let mut realm = realm.ok_or_else(|| refused(format!("{host} names no usable server for tokens")))?;
        // As for the registry itself.
        if realm.scheme() != "https" && !(self.at.is_here && realm.host_str() == base.host_str()) {
            return Err(refused(format!("the server for tokens that {host} names does not use HTTPS")));
        }
        let server = shown(&realm);
        let own = auth.registry(&base, &self.at.repository)?;
        let login = if realm.origin() == base.origin() { own.clone() } else { auth.registry(&realm, "")? };
        if login.is_none() && own.is_some() {
            return Err(refused(format!("its tokens come from {server}, and --auth has no login for that host"))
                .hint("if you trust that host, add it with its login to the Secret"));
        }
        if let Some(service) = bearer.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let actions = if rights == Rights::Push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", self.at.repository);
        realm.query_pairs_mut().append_pair("scope", &scope);
        let mut request = self.web.get(realm).header(ACCEPT, "application/json");
        if let Some(credential) = &login {
            request = request.header(AUTHORIZATION, secret_header(what, &credential.login)?);
        }
        let mut response = answer(what, request.send(), deadline).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = refused(format!("{server} answers {status} to a request for a token"));
            return Err(if http::passing(status) { error.transient(http::retry_after(&response)) } else { error });
        }
        let body = whole(&mut response, TOKEN_SIZE, deadline).await.map_err(|error| refused(error.to_string()))?;
        // Its errors would quote the token.
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str());
        let token = token.ok_or_else(|| refused(format!("{server} answers without a token")))?;
        secret_header(what, &Login::Bearer(Secret::new(token)))
    }

    /// The body of an answer; `None` for 404.
    async fn found(&self, what: &str, response: Response, most: u64, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let mut response = self.expect(what, response, deadline).await?;
        let body = whole(&mut response, most, deadline).await;
        body.map(Some).map_err(|error| {
            let made = Error::volume(what).because(error.to_string());
            if error.kind() == ErrorKind::InvalidData { made } else { made.transient(None) }
        })
    }

    /// The answer, if it is a success: registries differ in the exact status.
    async fn expect(&self, what: &str, mut response: Response, deadline: Deadline) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let from = response.url().host_str().unwrap_or_default().to_owned();
        let after = http::retry_after(&response);
        let wait = after.map(|after| format!(", and asks to wait for {} s", after.as_secs())).unwrap_or_default();
        let soon = Deadline::after(deadline.remaining().min(Duration::from_secs(1)));
        let body = whole(&mut response, ERROR_SIZE, soon).await.unwrap_or_default();
        let code = code(&body).map(|code| format!(" ({code})")).unwrap_or_default();
        // Distribution's registry may say this if two Pods upload the same bytes at once.
        let is_race = code.contains("DIGEST_INVALID");
        let error = Error::volume(what).because(format!("{from} answers {status}{code}{wait}"));
        let error = match status.as_u16() {
            401 | 403 => error.hint(
                "give --auth a kubernetes.io/dockerconfigjson Secret with a login for this registry that may do this",
            ),
            404 => error.hint("check the name of the repository, and create it if the registry does not"),
            _ => error,
        };
        Err(if http::passing(status) || is_race { error.transient(after) } else { error })
    }

    /// Begins an upload. Returns the URL for its bytes.
    async fn begin(&self, what: &str, deadline: Deadline) -> Result<Url> {
        let url = self.url("blobs/uploads/", deadline).await?;
        let body = Some(("application/octet-stream", Bytes::new()));
        let call = Call { method: Method::POST, url, rights: Rights::Push, accept: "*/*", body };
        let response = self.send(what, &call, deadline).await?;
        location(what, &self.expect(what, response, deadline).await?)
    }

    /// Ends an upload. `bytes` are the last ones.
    async fn commit(&self, what: &str, mut url: Url, digest: &str, bytes: Bytes, deadline: Deadline) -> Result<()> {
        url.query_pairs_mut().append_pair("digest", digest);
        let body = Some(("application/octet-stream", bytes));
        let call = Call { method: Method::PUT, url, rights: Rights::Push, accept: "*/*", body };
        let response = self.send(what, &call, deadline).await?;
        self.expect(what, response, deadline).await.map(drop)
    }
}

/// The bytes of a blob, while they arrive.
#[derive(Debug)]
pub(super) struct Download {
    /// Its thread receives them.
    _client: Arc<Client>,
    parts: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.part.len());
        buffer[..length].copy_from_slice(&self.part.split_to(length));
        Ok(length)
    }
}

/// An upload, while its bytes are made.
#[derive(Debug)]
pub(super) struct Upload {
    client: Arc<Client>,
    /// `None` after the last byte.
    sender: Option<Sender<Bytes, io::Error>>,
    answer: JoinHandle<reqwest::Result<Response>>,
    buffer: Vec<u8>,
    deadline: Deadline,
    what: String,
}

impl Upload {
    /// Sends the rest, and gives the blob its name.
    pub(super) fn finish(mut self, digest: &str) -> Result<()> {
        // The answer says more than the write.
        let written = self.flush();
        self.sender = None;
        let (client, what, deadline) = (Arc::clone(&self.client), self.what.clone(), self.deadline);
        client.thread.block_on(async {
            let response = self.answered().await?;
            let response = client.expect(&what, response, deadline).await?;
            written.map_err(|error| Error::volume(&what).because(error))?;
            let place = location(&what, &response)?;
            client.commit(&what, place, digest, Bytes::new(), deadline).await
        })
    }

    /// Why the registry takes no more bytes.
    pub(super) fn failure(mut self, error: io::Error) -> Error {
        self.sender = None;
        let (client, what, deadline) = (Arc::clone(&self.client), self.what.clone(), self.deadline);
        let soon = Deadline::after(deadline.remaining().min(Duration::from_secs(1)));
        self.deadline = soon;
        client.thread.block_on(async {
            match self.answered().await {
                Ok(response) => match client.expect(&what, response, soon).await {
                    Ok(_) => Error::volume(&what).because(error),
                    Err(refused) => refused,
                },
                Err(failed) if !soon.passed() => failed,
                Err(_) => Error::volume(&what).because(error),
            }
        })
    }

    async fn answered(&mut self) -> Result<Response> {
        let what = self.what.clone();
        match timeout_at(self.deadline.instant(), &mut self.answer).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(error))) => Err(web::unreachable(&what, error).of_kind(Kind::Volume)),
            Ok(Err(error)) => Err(Error::internal(what).because(error)),
            Err(_) => Err(Error::volume(what).because("the registry did not answer in time")),
        }
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == PART {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PART)));
        let Some(sender) = &mut self.sender else { return Err(ErrorKind::BrokenPipe.into()) };
        let until = Pace::new(self.deadline).until();
        match self.client.thread.block_on(async { timeout_at(until, sender.send_data(part)).await }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(ErrorKind::BrokenPipe, "the registry takes no more bytes")),
            Err(_) => Err(io::Error::new(ErrorKind::TimedOut, "the registry stalls")),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

/// Waits for the head of an answer.
async fn answer(
    what: &str,
    request: impl Future<Output = reqwest::Result<Response>>,
    deadline: Deadline,
) -> Result<Response> {
    let volume = Kind::Volume;
    match timeout_at(deadline.instant(), request).await {
        Ok(Ok(response)) => {
            tracing::debug!("{} answers {}", shown(response.url()), response.status());
            Ok(response)
        }
        Ok(Err(error)) => Err(web::unreachable(what, error).of_kind(volume)),
        Err(_) => Err(Error::volume(what).because(format!("no answer in {:.1} s", deadline.limit().as_secs_f64()))),
    }
}

/// The next part of a body.
async fn part(response: &mut Response, received: &mut u64, deadline: Deadline) -> io::Result<Option<Bytes>> {
    match timeout_at(Pace::new(deadline).until(), response.chunk()).await {
        Ok(Ok(part)) => {
            *received += part.as_ref().map_or(0, |part| part.len() as u64);
            Ok(part)
        }
        Ok(Err(error)) => {
            let error = error.without_url();
            let cause = http::causes(&error).last().map(ToString::to_string).unwrap_or_default();
            Err(io::Error::other(format!("the answer broke off after {received} bytes: {cause}")))
        }
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("the registry stalls after {received} bytes of the answer"),
        )),
    }
}

/// A small body.
async fn whole(response: &mut Response, most: u64, deadline: Deadline) -> io::Result<Vec<u8>> {
    let (mut body, mut received) = (Vec::new(), 0);
    while let Some(part) = part(response, &mut received, deadline).await? {
        if received > most {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("the answer has more than {most} bytes")));
        }
        if deadline.passed() {
            return Err(io::Error::new(ErrorKind::TimedOut, "the answer takes too long"));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// The URL that an answer names.
fn location(what: &str, response: &Response) -> Result<Url> {
    let from = response.url();
    let refused = |why: &str| Error::volume(what).because(format!("{} {why}", from.host_str().unwrap_or_default()));
    let place = text(response.headers(), LOCATION.as_str()).ok_or_else(|| refused("names no location"))?;
    match web::target(from, place) {
        Ok(Ok(target)) => Ok(target),
        Ok(Err(why)) => Err(refused("names another location").because(why)),
        Err(error) => Err(refused("names an invalid location").because(error)),
    }
}

fn secret_header(what: &str, login: &Login) -> Result<HeaderValue> {
    let invalid = |_| Error::volume(what).because("the login or the token has characters that no header may have");
    let mut value = HeaderValue::try_from(login.header()).map_err(invalid)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The code in the body of an error. The rest may repeat secrets.
fn code(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = body.get("errors")?.get(0)?.get("code")?.as_str()?;
    (code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_an_error_is_shown() {
        let of = |text: &str| code(text.as_bytes());
        assert_eq!(of(r#"{"errors": [{"code": "DENIED", "message": "token s3cret"}]}"#).as_deref(), Some("DENIED"));
        for text in ["", "{}", r#"{"errors": []}"#, r#"{"errors": [{"code": "s3cret"}]}"#, "<html>"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
