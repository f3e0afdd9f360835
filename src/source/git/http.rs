//! A Git repository behind HTTP: its list of references, and packs (gitprotocol-http, the smart
//! protocol, version 0). Every way in which a server can fail becomes an [`Error`] here.
//!
//! Credentials go to the scheme, host and port that the user named and nowhere else; a redirect is
//! followed for the list of references only, as Git does, and moves what is asked afterwards.

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::error::{Error, Result};
use crate::redact::{RemoteUrl, Secret, Userinfo};
use crate::retry::Deadline;
use crate::source::git::answer::{self, MAX_LIST, Pace};
use crate::source::git::refs::{Refs, Unreadable};

const MAX_REDIRECTS: usize = 10;
/// How much of an error's body is read, how many lines of it are shown, and how many characters
/// of each.
const BODY_READ: usize = 16 << 10;
const BODY_LINES: usize = 4;
const BODY_COLUMNS: usize = 200;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// From this length on a user's name may be a token.
const TOKEN_LENGTH: usize = 20;
/// And a value in the query a secret.
const QUERY_SECRET: usize = 8;

/// Some hosts know a Git client by this prefix; libgit2 and dulwich send it as well.
const USER_AGENT: &str = concat!("git/2.0 (podstrap ", env!("CARGO_PKG_VERSION"), ")");

const CREDENTIALS: &str = "set PODSTRAP_REPO from a Secret, with user:token@ before the host";

/// A repository and the way to it. `Display` shows its URL without secrets.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    client: Client,
    url: RemoteUrl,
    secrets: Vec<Secret>,
}

/// Where requests go, once redirects are known.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: Url,
    userinfo: Option<Userinfo>,
}

/// What a server said when it was asked which references it has.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) endpoint: Endpoint,
    pub(super) refs: Refs,
    /// As it was received.
    pub(super) body: Vec<u8>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Remote {
    pub(super) fn new(url: RemoteUrl) -> Result<Self> {
        let client = crate::http::client()?;
        let secrets = secrets(&client, &url);
        Ok(Self { client, url, secrets })
    }

    /// Asks for the references: one request, and one more for each redirect.
    pub(super) async fn list(&self, deadline: Deadline) -> Result<Listing> {
        let what = format!("cannot list the references of {self}");
        let mut endpoint = Endpoint { base: self.url.url().clone(), userinfo: self.url.userinfo().cloned() };
        for _ in 0..=MAX_REDIRECTS {
            let request = self.client.get(endpoint.url("/info/refs", true));
            let mut response = self.send(&what, &endpoint, request, deadline).await?;
            if let Some(location) = redirect(&response) {
                endpoint = endpoint.redirected(&response.url().join(&location).map_err(|error| {
                    let target = self.hide(&location);
                    Error::source(&what).because(format!("the server redirects to {target:?}")).because(error)
                })?)?;
                tracing::debug!("{self} redirects to {endpoint}");
                continue;
            }
            self.check(&what, &endpoint, &mut response, "advertisement", deadline).await?;
            let (mut body, mut pace) = (Vec::new(), Pace::new(deadline));
            while let Some(chunk) = self.chunk(&what, &mut response, body.len(), &mut pace).await? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_LIST {
                    return Err(Error::source(what).because(format!("the list is longer than {MAX_LIST} bytes")));
                }
            }
            let refs = Refs::parse(&body).map_err(|error| {
                let cut = matches!(error, Unreadable::Truncated);
                let error = Error::source(&what).because(self.hide(&error.to_string()));
                if cut { error.transient(None) } else { error }
            })?;
            return Ok(Listing { endpoint, refs, body });
        }
        Err(Error::source(what).because(format!("more than {MAX_REDIRECTS} redirects, the last to {endpoint}")))
    }

    /// Sends a request for a pack and hands the packets of the answer to `packets` one by one,
    /// until the answer ends or nobody takes them any more. What the server itself says against
    /// it (`ERR`, sideband 3) comes back as text.
    pub(super) async fn upload_pack(
        &self,
        what: &str,
        endpoint: &Endpoint,
        body: Vec<u8>,
        packets: mpsc::Sender<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let request = self
            .client
            .post(endpoint.url("/git-upload-pack", false))
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .body(body);
        let mut response = self.send(what, endpoint, request, deadline).await?;
        self.check(what, endpoint, &mut response, "result", deadline).await?;
        let chunk = async |received, pace: &mut Pace| self.chunk(what, &mut response, received, pace).await;
        answer::pass_on(what, chunk, |text| self.hide(text), &packets, deadline).await
    }

    async fn send(
        &self,
        what: &str,
        endpoint: &Endpoint,
        request: RequestBuilder,
        deadline: Deadline,
    ) -> Result<Response> {
        let request = request.header(reqwest::header::USER_AGENT, USER_AGENT);
        let request = match &endpoint.userinfo {
            Some(Userinfo { username, password }) => request.basic_auth(username, Some(password.reveal())),
            None => request,
        };
        let pace = Pace::new(deadline);
        match timeout_at(pace.until(), request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(what, error)),
            Err(_) => Err(pace.stalled(what)),
        }
    }

    /// The next part of a body of which `received` bytes are here.
    async fn chunk(
        &self,
        what: &str,
        response: &mut Response,
        received: usize,
        pace: &mut Pace,
    ) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>> {
        match timeout_at(pace.until(), response.chunk()).await {
            Ok(Ok(chunk)) => {
                pace.came(chunk.as_deref().map_or(0, <[u8]>::len));
                Ok(chunk)
            }
            Ok(Err(error)) => {
                let broke = format!("the answer broke off after {received} bytes");
                Err(causes(Error::source(what).because(broke), &error.without_url()).transient(None))
            }
            Err(_) => Err(pace.stalled(what).because(format!("{received} bytes of the answer had come"))),
        }
    }

    /// Whether this is the answer of a Git server; anything else becomes an error that shows it.
    async fn check(
        &self,
        what: &str,
        endpoint: &Endpoint,
        response: &mut Response,
        kind: &str,
        deadline: Deadline,
    ) -> Result<()> {
        let status = response.status();
        tracing::debug!("{} answers {status}", shown(response.url()));
        let content_type = text(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let html = content_type.starts_with("text/html");
        if status == StatusCode::OK {
            if content_type == format!("application/x-git-upload-pack-{kind}") {
                return Ok(());
            }
            let error = Error::source(what).because(format!(
                "{endpoint} is not a Git repository over HTTP: it answers with {}",
                if html { "a web page".to_owned() } else { format!("content type {content_type:?}") }
            ));
            return Err(error.hint("give the address that git clone takes; it often ends with .git"));
        }
        let after = crate::http::retry_after(response);
        let wait = after.map(|after| format!(", and asks to wait for {} s", after.as_secs())).unwrap_or_default();
        let mut error = Error::source(what).because(format!("{endpoint} answers {status}{wait}"));
        let body = self.head_of_body(response, html, deadline).await;
        if !body.is_empty() {
            error = error.excerpt(body);
        }
        let given = self.url.userinfo().is_some();
        let error = match status.as_u16() {
            401 | 403 | 404 if given && endpoint.userinfo.is_none() => {
                error.hint(format!("the credentials were not sent on to another host: name {endpoint} itself"))
            }
            401 if given => error.hint("the user name or the token in the URL is wrong, or has expired"),
            403 if given => error.hint("the token in the URL may not read this repository: check its scope"),
            404 if given => error.hint("check the path in the URL, and that the token may read this repository"),
            401 => error.hint(format!("if the repository exists it is private: {CREDENTIALS}")),
            403 => error.hint(format!("if the repository is private: {CREDENTIALS}")),
            404 => error.hint(format!("check the path in the URL; if the repository is private: {CREDENTIALS}")),
            _ => error,
        };
        Err(if crate::http::passing(status) { error.transient(after) } else { error })
    }

    /// The first lines of an error's body, or a web page's title: what a person wrote to explain it.
    async fn head_of_body(&self, response: &mut Response, html: bool, deadline: Deadline) -> String {
        let mut body = Vec::new();
        let until = deadline.instant().min(Instant::now() + BODY_TIMEOUT);
        while let Ok(Ok(Some(chunk))) = timeout_at(until, response.chunk()).await {
            body.extend_from_slice(&chunk);
            if body.len() >= BODY_READ {
                body.truncate(BODY_READ);
                break;
            }
        }
        let text = self.hide(&String::from_utf8_lossy(&body));
        let text = if html { between(&text, "<title>", "</title>") } else { &text };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(BODY_LINES);
        lines.map(|line| line.chars().take(BODY_COLUMNS).collect()).collect::<Vec<String>>().join("\n")
    }

    /// Foreign text without our secrets, should the server repeat them.
    fn hide(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.reveal(), "***"))
    }
}

/// Whatever in the URL is nobody's business, in every form in which it travels.
fn secrets(client: &Client, url: &RemoteUrl) -> Vec<Secret> {
    let query = url.url().query_pairs().map(|(_, value)| value.into_owned());
    let mut found: Vec<String> = query.filter(|value| value.len() >= QUERY_SECRET).collect();
    if let Some(Userinfo { username, password }) = url.userinfo() {
        found.push(password.reveal().to_owned());
        // A token may stand in the name's place, alone or before a password that is none.
        if password.reveal().is_empty() || username.len() >= TOKEN_LENGTH {
            found.push(username.clone());
        }
        let request = client.get(url.url().clone()).basic_auth(username, Some(password.reveal())).build();
        let header = request.as_ref().ok().and_then(|request| text(request.headers(), AUTHORIZATION.as_str()));
        found.extend(header.and_then(|header| header.strip_prefix("Basic ")).map(str::to_owned));
    }
    let encoded: Vec<String> =
        found.iter().map(|secret| url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()).collect();
    found.into_iter().chain(encoded).filter(|secret| !secret.is_empty()).map(Secret::new).collect()
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.base))
    }
}

impl Endpoint {
    /// A service of the repository; with `?service=` where that tells smart HTTP from dumb.
    fn url(&self, service: &str, query: bool) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{service}", self.base.path().trim_end_matches('/')));
        url.set_fragment(None);
        if query {
            url.query_pairs_mut().append_pair("service", "git-upload-pack");
        }
        url
    }

    /// The repository behind the target of a redirect of its info/refs.
    fn redirected(&self, target: &Url) -> Result<Self> {
        let refused = |why: &str| {
            Error::source(format!("{self} redirects to {}", shown(target)))
                .because(why)
                .hint("give the address to which it moved, or credentials if that is a login page")
        };
        match (self.base.scheme(), target.scheme()) {
            (_, "https") | ("http", "http") => {}
            ("https", "http") => return Err(refused("that would leave HTTPS")),
            _ => return Err(refused("that is not HTTP")),
        }
        let Some(path) = target.path().strip_suffix("/info/refs") else {
            return Err(refused("that is no Git repository: its address would end with /info/refs"));
        };
        let same =
            |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
        let userinfo = self.userinfo.clone().filter(|_| same(&self.base) == same(target));
        let mut base = target.clone();
        base.set_path(path);
        let kept: Vec<_> = target.query_pairs().filter(|(name, _)| name != "service").collect();
        base.set_query(None);
        if !kept.is_empty() {
            base.query_pairs_mut().extend_pairs(kept);
        }
        // A redirect that names credentials gets none sent: they would be somebody else's.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        Ok(Self { base, userinfo })
    }
}

fn redirect(response: &Response) -> Option<String> {
    let status = response.status().as_u16();
    matches!(status, 301 | 302 | 303 | 307 | 308)
        .then(|| text(response.headers(), LOCATION.as_str()).map(str::to_owned))
        .flatten()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A URL without what may be secret in it.
fn shown(url: &Url) -> String {
    url.as_str().parse::<RemoteUrl>().map_or_else(|_| "a URL".to_owned(), |url| url.to_string())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
}

/// A request that got no answer: no such host, refused, reset, an unknown CA.
fn unreachable(what: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let made = causes(Error::source(what), &error);
    let text = chain(&error).pop().unwrap_or_default();
    if text.contains("invalid peer certificate") {
        return if text.contains("UnknownIssuer") {
            made.hint("for a CA of your own, mount its certificate as a PEM file and name that file in SSL_CERT_FILE")
        } else {
            made
        };
    }
    let made = if error.is_connect() {
        made.hint("check the host and the port, and whether the Pod's network policy and proxy let it out")
    } else {
        made
    };
    made.transient(None)
}

/// Every cause but reqwest's and hyper's wrapping, which says nothing to a user.
fn causes(made: Error, error: &reqwest::Error) -> Error {
    let wrapping =
        ["error sending request", "client error (", "error decoding response body", "request or response body"];
    let told = |text: &String| !wrapping.iter().any(|wrapping| text.starts_with(wrapping));
    chain(error).into_iter().filter(told).fold(made, Error::because)
}

fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// Wherever a redirect leads, it is HTTP, never from HTTPS to less, and credentials stay where they
/// were meant for.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(location) = std::str::from_utf8(data) else { return };
    for start in ["https://user:s3cret@host/a.git", "http://user:s3cret@host:8080/a.git?x=1"] {
        let Ok(named) = start.parse::<RemoteUrl>() else { unreachable!("it is a URL") };
        let start = Endpoint { base: named.url().clone(), userinfo: named.userinfo().cloned() };
        let Ok(target) = start.url("/info/refs", true).join(location) else { continue };
        if target.as_str().contains("s3cret") {
            continue;
        }
        match start.redirected(&target) {
            Ok(moved) => {
                let origin = |url: &Url| url.origin();
                assert!(
                    moved.base.scheme() == "https" || start.base.scheme() == "http" && moved.base.scheme() == "http"
                );
                assert!(moved.userinfo.is_none() || origin(&moved.base) == origin(&start.base));
                assert!(moved.base.username().is_empty() && moved.base.password().is_none());
                assert!(!moved.to_string().contains("s3cret"));
                moved.url("/git-upload-pack", false);
            }
            Err(error) => assert!(!error.to_string().contains("s3cret"), "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_moves_the_repository_and_takes_credentials_to_the_same_place_only() {
        let named: RemoteUrl = "https://user:s3cret@host/a.git".parse().unwrap();
        let start = Endpoint { base: named.url().clone(), userinfo: named.userinfo().cloned() };
        let to = |target: &str| {
            let moved = start.redirected(&Url::parse(target).unwrap()).map_err(|error| error.to_string())?;
            Ok::<_, String>((moved.base.to_string(), moved.userinfo.is_some()))
        };
        assert_eq!(to("https://host:443/b/info/refs?service=git-upload-pack"), Ok(("https://host/b".into(), true)));
        assert_eq!(to("https://host:8443/b/info/refs?x=1"), Ok(("https://host:8443/b?x=1".into(), false)));
        assert_eq!(to("https://me:pw@other/b/info/refs"), Ok(("https://other/b".into(), false)));
        assert!(to("http://host/a.git/info/refs").unwrap_err().contains("that would leave HTTPS"));
        assert!(to("file:///a.git/info/refs").unwrap_err().contains("that is not HTTP"));
    }

    #[test]
    fn a_service_is_below_the_path_and_keeps_the_query() {
        let endpoint = Endpoint { base: Url::parse("https://host/a.git/?token=x#y").unwrap(), userinfo: None };
        assert_eq!(
            endpoint.url("/info/refs", true).as_str(),
            "https://host/a.git/info/refs?token=x&service=git-upload-pack"
        );
        assert_eq!(endpoint.url("/git-upload-pack", false).as_str(), "https://host/a.git/git-upload-pack?token=x");
        assert_eq!(endpoint.to_string(), "https://host/a.git/?***");
    }
}
