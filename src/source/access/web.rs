//! HTTP requests for a source. Every failure of a server becomes an [`Error`] here, with the server's own words.
//!
//! The URL of each request decides which credentials it carries: a redirect to another place gets none.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, USER_AGENT};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::error::{Error, Result};
use crate::http::Distrust;
use crate::redact::{RemoteUrl, Secret, Userinfo};
use crate::retry::Deadline;
use crate::source::access::auth::{Auth, Credential, Login};
use crate::source::access::pace::Pace;

/// The most redirects in a row.
pub(crate) const MAX_REDIRECTS: usize = 10;
/// Limits for the excerpt of an error's body: bytes to read, lines, characters per line.
const BODY_READ: usize = 16 << 10;
const BODY_LINES: usize = 4;
const BODY_COLUMNS: usize = 200;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A user's name of at least this length may be a token.
const TOKEN_LENGTH: usize = 20;
/// A value of at least this length in the query may be a secret.
const QUERY_SECRET: usize = 8;

/// Some hosts recognise a Git client by this prefix. libgit2 and dulwich send it as well.
const AGENT: &str = concat!("git/2.0 (podstrap ", env!("CARGO_PKG_VERSION"), ")");

const CREDENTIALS: &str =
    "mount a Secret with username and password, or a file with a token, and give its path with --auth";

/// The credentials for the requests of a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The URL that the user gave: a login without a host is for its server. `None` if it is not on the web.
    pub(crate) home: Option<RemoteUrl>,
    /// See [`Auth::read`].
    pub(crate) auth: Vec<PathBuf>,
    /// A netrc's login for a host that it names may be sent in clear text.
    pub(crate) named_in_clear: bool,
}

/// A URL and its HTTP client. `Display` shows the URL without secrets.
#[derive(Debug)]
pub(crate) struct Site {
    client: Client,
    pub(crate) url: RemoteUrl,
    access: Access,
    /// All secrets that were sent, in every encoding of a request.
    secrets: Mutex<Vec<Secret>>,
}

/// The response of a server, and the credentials of the request.
pub(crate) struct WebReply {
    pub(crate) response: Response,
    credential: Option<Credential>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Site {
    pub(crate) fn new(url: RemoteUrl, access: Access) -> Result<Self> {
        Ok(Self::with(crate::http::client()?, url, access))
    }

    /// A site whose bodies stay as the server sent them, even with a Content-Encoding: a digest covers those
    /// bytes.
    pub(crate) fn verbatim(url: RemoteUrl, access: Access) -> Result<Self> {
        Ok(Self::with(crate::http::client_verbatim()?, url, access))
    }

    fn with(client: Client, url: RemoteUrl, access: Access) -> Self {
        let site = Self { client, access, secrets: Mutex::default(), url };
        for url in [Some(&site.url), site.access.home.as_ref()].into_iter().flatten() {
            let query = url.url().query_pairs().map(|(_, value)| value.into_owned());
            site.remember(query.filter(|value| value.len() >= QUERY_SECRET));
            site.remember(crate::http::proxy(url.url()).iter().flat_map(crate::http::Proxy::secrets));
            if let Some(userinfo) = url.userinfo() {
                site.remember_login(&Login::Basic(userinfo.clone()));
            }
        }
        site
    }

    /// Sends a request to `url`, which may be the target of a redirect, with the credentials for that URL.
    pub(crate) async fn send(
        &self,
        what: &str,
        url: Url,
        with: impl FnOnce(&Client, Url) -> RequestBuilder,
        deadline: Deadline,
    ) -> Result<WebReply> {
        let auth = Auth::read(&self.access.auth)?;
        let credential = auth.of(&url, &self.url, self.access.home.as_ref());
        let credential = credential.or_else(|| auth.named(&url).filter(|_| self.access.named_in_clear));
        self.send_as(what, url, credential, with, deadline).await
    }

    /// Sends a request with the credentials that `with` adds, and no others.
    pub(crate) async fn send_bare(
        &self,
        what: &str,
        url: Url,
        with: impl FnOnce(&Client, Url) -> RequestBuilder,
        deadline: Deadline,
    ) -> Result<WebReply> {
        self.send_as(what, url, None, with, deadline).await
    }

    async fn send_as(
        &self,
        what: &str,
        url: Url,
        credential: Option<Credential>,
        with: impl FnOnce(&Client, Url) -> RequestBuilder,
        deadline: Deadline,
    ) -> Result<WebReply> {
        let request = with(&self.client, url).header(USER_AGENT, AGENT);
        let request = match credential.as_ref().map(|credential| &credential.login) {
            Some(Login::Basic(Userinfo { username, password })) => {
                request.basic_auth(username, Some(password.reveal()))
            }
            Some(Login::Bearer(token)) => request.bearer_auth(token.reveal()),
            None => request,
        };
        if let Some(credential) = &credential {
            self.remember_login(&credential.login);
        }
        let pace = Pace::new(deadline);
        match timeout_at(pace.until(), request.send()).await {
            Ok(Ok(response)) => {
                tracing::debug!("{} answers {}", shown(response.url()), response.status());
                Ok(WebReply { response, credential })
            }
            Ok(Err(error)) => Err(unreachable(what, error)),
            Err(_) => Err(pace.stalled(what)),
        }
    }

    /// The next part of a body, after `received` bytes.
    pub(crate) async fn chunk(
        &self,
        what: &str,
        response: &mut Response,
        received: u64,
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
            Err(_) => Err(pace.stalled(what).because(format!("{received} bytes of the answer had arrived"))),
        }
    }

    /// The target of a redirect, if the response is one. `from` is the server that sent it.
    pub(crate) fn redirect(&self, what: &str, from: &dyn fmt::Display, response: &Response) -> Result<Option<Url>> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = text(response.headers(), LOCATION.as_str()) else { return Ok(None) };
        match target(response.url(), location) {
            Ok(Ok(target)) => Ok(Some(target)),
            Ok(Err(why)) => {
                let target = response.url().join(location).unwrap_or_else(|_| response.url().clone());
                Err(misled(from, &target, why))
            }
            Err(error) => {
                let location = self.hide(location.split('?').next().unwrap_or_default());
                Err(Error::source(what).because(format!("the server redirects to {location:?}")).because(error))
            }
        }
    }

    /// The error for a response other than 200. `place` is the server that sent it, `thing` the requested
    /// object.
    pub(crate) async fn refused(
        &self,
        what: &str,
        thing: &str,
        place: &dyn fmt::Display,
        reply: WebReply,
        deadline: Deadline,
    ) -> Error {
        let WebReply { mut response, credential } = reply;
        let status = response.status();
        let error = self.answers(what, place, &mut response, deadline).await;
        let given = self.url.userinfo().is_some() || !self.access.auth.is_empty();
        let bearer = credential.as_ref().is_some_and(|credential| matches!(credential.login, Login::Bearer(_)));
        let error = match (status.as_u16(), credential) {
            (401 | 403 | 404, None) if given => error.hint(format!(
                "put the login for {place} into a netrc file and give it with --auth: podstrap sends other logins \
                 only to the host of --repo"
            )),
            (401, Some(from)) => {
                error.hint(format!("correct the user name or the token in {from}, or renew it if it has expired"))
            }
            (403, Some(from)) => {
                error.hint(format!("check the scope of the token in {from}: it cannot read this {thing}"))
            }
            (404, Some(_)) => {
                error.hint(format!("check the path in the URL, and that the token can read this {thing}"))
            }
            (401, None) => error.hint(format!("if the {thing} exists, it is private: {CREDENTIALS}")),
            (403, None) => error.hint(format!("if the {thing} is private: {CREDENTIALS}")),
            (404, None) => error.hint(format!("check the path in the URL; if the {thing} is private: {CREDENTIALS}")),
            _ => error,
        };
        if bearer && matches!(status.as_u16(), 401 | 403) {
            error.hint("mount the token as password, next to a username: some hosts accept a token only as a password")
        } else {
            error
        }
    }

    /// The error for a response other than 200, without a hint about credentials.
    pub(crate) async fn answers(
        &self,
        what: &str,
        place: &dyn fmt::Display,
        response: &mut Response,
        deadline: Deadline,
    ) -> Error {
        let status = response.status();
        let after = crate::http::retry_after(response);
        let wait = after.map(|after| format!(", and asks to wait for {} s", after.as_secs())).unwrap_or_default();
        // In a tunnel, only the server can answer.
        let proxy = crate::http::proxy(response.url()).filter(|_| response.url().scheme() == "http");
        if let (407, Some(proxy)) = (status.as_u16(), &proxy) {
            return proxy.refused(what, response.url());
        }
        let through = proxy.map_or_else(String::new, |proxy| format!(", through the proxy {proxy},"));
        let error = Error::source(what).because(format!("{place}{through} answers {status}{wait}"));
        let body = self.head_of_body(response, deadline).await;
        let error = if body.is_empty() { error } else { error.excerpt(body) };
        if crate::http::passing(status) { error.transient(after) } else { error }
    }

    /// The first lines of an error's body, or the title of a web page: text that explains the error.
    async fn head_of_body(&self, response: &mut Response, deadline: Deadline) -> String {
        let html = is_html(response);
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

    /// Removes podstrap's secrets from the text of a server, in case it repeats them.
    pub(crate) fn hide(&self, text: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.reveal(), "***"))
    }

    fn remember_login(&self, login: &Login) {
        match login {
            Login::Basic(Userinfo { username, password }) => {
                // The name may be a token, without a password or with a placeholder for one.
                let name = (password.reveal().is_empty() || username.len() >= TOKEN_LENGTH).then(|| username.clone());
                let header = BASE64_STANDARD.encode(format!("{username}:{}", password.reveal()));
                self.remember([password.reveal().to_owned(), header].into_iter().chain(name));
            }
            Login::Bearer(token) => self.remember([token.reveal().to_owned()]),
        }
    }

    /// Hides these texts in every later [`hide`](Self::hide).
    pub(crate) fn remember(&self, found: impl IntoIterator<Item = String>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in found {
            let encoded = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            for secret in [secret, encoded].map(Secret::new) {
                if !secret.reveal().is_empty() && !secrets.contains(&secret) {
                    secrets.push(secret);
                }
            }
        }
    }
}

/// The target of a redirect by `from`, without credentials, or the reason not to follow it.
pub(crate) fn target(from: &Url, location: &str) -> Result<Result<Url, &'static str>, url::ParseError> {
    let mut target = from.join(location)?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Ok(Err("the target does not use HTTPS")),
        _ => return Ok(Err("the target does not use HTTP")),
    }
    // Credentials in the target would be those of somebody else.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    Ok(Ok(target))
}

/// The error of a redirect that podstrap does not follow.
pub(crate) fn misled(from: &dyn fmt::Display, target: &Url, why: &str) -> Error {
    Error::source(format!("{from} redirects to {}", shown(target)))
        .because(why)
        .hint("give the new address, or credentials if the target is a login page")
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(crate) fn is_html(response: &Response) -> bool {
    text(response.headers(), CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"))
}

pub(crate) fn is_ok(response: &Response) -> bool {
    response.status() == StatusCode::OK
}

/// A URL without possible secrets.
pub(crate) fn shown(url: &Url) -> String {
    url.as_str().parse::<RemoteUrl>().map_or_else(|_| "a URL".to_owned(), |url| url.to_string())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
}

/// The error of a request without a response: unknown host, refused, reset, unknown CA.
pub(crate) fn unreachable(what: &str, error: reqwest::Error) -> Error {
    let url = error.url().cloned();
    let proxy = url.as_ref().and_then(crate::http::proxy);
    let error = error.without_url();
    if let (Some(url), Some(proxy)) = (&url, &proxy)
        && crate::http::is_proxy_login(&error)
    {
        return proxy.refused(what, url);
    }
    let made = match &proxy {
        Some(proxy) => Error::source(what).because(format!("through the proxy {proxy}")),
        None => Error::source(what),
    };
    let made = causes(made, &error);
    match crate::http::distrust(&error) {
        Some(Distrust::CaCertificate) => {
            return made.hint(
                "replace the server's certificate with one that the CA signed: the server sends the CA's own \
                 certificate",
            );
        }
        Some(Distrust::UnknownIssuer) => {
            return made
                .hint("for a private CA, mount its certificate as a PEM file, and give this file with --ca-file");
        }
        Some(Distrust::Other) => return made,
        None => {}
    }
    let made = if error.is_connect() && proxy.is_some() {
        made.hint("check the address of the proxy, or add the server to NO_PROXY if it needs no proxy")
    } else if error.is_connect() {
        made.hint("check the host and the port, and whether the Pod's network policy and proxy allow the connection")
    } else {
        made
    };
    made.transient(None)
}

/// Adds every cause, without the wrappers of the HTTP client, which tell a user nothing.
fn causes(made: Error, error: &reqwest::Error) -> Error {
    crate::http::causes(error).map(ToString::to_string).fold(made, Error::because)
}
