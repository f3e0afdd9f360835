//! Asks an LFS server where contents are (git-lfs, docs/api/batch.md), over HTTP.
//!
//! A repository over SSH has its server's URL and login from `git-lfs-authenticate` (docs/api/authentication.md).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Error, Result};
use crate::plan::Ssh;
use crate::redact::RemoteUrl;
use crate::retry::Deadline;
use crate::source::access::auth::Auth;
use crate::source::access::pace::Pace;
use crate::source::access::web::{Access, MAX_REDIRECTS, Site, WebReply, is_html, is_ok, shown, target};
use crate::source::lfs::endpoint::beside;
use crate::source::lfs::pointer::Object;
use crate::source::remote::ssh;
use crate::tree::few;

/// The most objects of a request, as git-lfs asks.
pub(super) const TOGETHER: usize = 100;
/// The most bytes of an answer: 40 kB for each object.
const ANSWER: usize = 4 << 20;
/// A shorter value of a query or a header is no secret.
const SECRET: usize = 8;
/// Characters of a server's message to show.
const MESSAGE: usize = 300;
const OTHER_SERVER: &str = "correct lfs.url in .lfsconfig, or use --lfs off to publish the pointers";
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// The program of a server that speaks SSH.
const AUTHENTICATE: &str = "git-lfs-authenticate";
/// Headers that describe the connection or the request itself, which podstrap writes.
const OWN: [&str; 8] =
    ["host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "range", "accept-encoding"];

/// An LFS server, and the login for it.
pub(super) struct Server {
    pub(super) site: Site,
    /// The name of the commit's reference on the server, which may decide about access.
    reference: Option<String>,
    /// A server over SSH, and how to log in.
    ssh: Option<(Ssh, Access)>,
    grant: Mutex<Grant>,
}

/// The URL of the API, and the headers for it.
#[derive(Clone)]
struct Grant {
    url: Url,
    headers: HeaderMap,
    ends: Option<Instant>,
}

/// How to download an object.
pub(super) struct Action {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// The request needs podstrap's own login, as any other request to that URL.
    pub(super) is_open: bool,
    ends: Option<Instant>,
}

impl Action {
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

#[derive(Serialize)]
struct Request<'a> {
    operation: &'static str,
    transfers: [&'static str; 1],
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<Named<'a>>,
    objects: Vec<Asked<'a>>,
    hash_algo: &'static str,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Asked<'a> {
    oid: &'a str,
    size: u64,
}

#[derive(Deserialize)]
struct Answer {
    transfer: Option<String>,
    hash_algo: Option<String>,
    objects: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    oid: String,
    #[serde(default)]
    authenticated: Option<bool>,
    #[serde(default)]
    actions: Option<HashMap<String, Link>>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: Option<String>,
}

/// A URL with the headers for it, from a server.
#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    href: String,
    #[serde(default)]
    header: Option<HashMap<String, Option<String>>>,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default)]
    expires_at: Option<String>,
}

impl Link {
    /// When the link ends. A time that podstrap cannot read is none: the server refuses what is over.
    fn ends(&self) -> Option<Instant> {
        let left = match self.expires_in {
            Some(seconds) if seconds != 0 => Duration::from_secs(seconds.try_into().unwrap_or_default()),
            _ => {
                let at = humantime::parse_rfc3339(self.expires_at.as_deref()?).ok()?;
                // Go writes a time that is not set as the year 1.
                at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                at.duration_since(SystemTime::now()).unwrap_or_default()
            }
        };
        Instant::now().checked_add(left)
    }

    fn headers(&self) -> Result<HeaderMap, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.header.iter().flatten().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                return Err("has a header with invalid characters");
            };
            if !OWN.contains(&name.as_str()) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }
}

impl Server {
    /// The server at a URL.
    pub(super) fn web(url: RemoteUrl, access: Access, reference: Option<String>) -> Result<Self> {
        let grant = Grant { url: url.url().clone(), headers: HeaderMap::new(), ends: None };
        let site = Site::verbatim(url, access)?;
        Ok(Self { site, reference, ssh: None, grant: Mutex::new(grant) })
    }

    /// The server of a repository over SSH.
    pub(super) async fn over_ssh(
        ssh: Ssh,
        access: Access,
        reference: Option<String>,
        deadline: Deadline,
    ) -> Result<Self> {
        let grant = authenticate(&ssh, &access, deadline).await?;
        let site = Site::verbatim(RemoteUrl::at(grant.url.clone(), None), access.clone())?;
        remember(&site, &grant.url, &grant.headers);
        Ok(Self { site, reference, ssh: Some((ssh, access)), grant: Mutex::new(grant) })
    }

    /// The URL of the API, and its headers.
    async fn grant(&self, deadline: Deadline) -> Result<Grant> {
        let grant = self.grant.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match &self.ssh {
            Some((ssh, access)) if grant.ends.is_some_and(|ends| ends <= Instant::now()) => {
                let grant = authenticate(ssh, access, deadline).await?;
                remember(&self.site, &grant.url, &grant.headers);
                *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = grant.clone();
                Ok(grant)
            }
            _ => Ok(grant),
        }
    }

    /// Asks for at most [`TOGETHER`] objects, once. Returns their actions in the same order.
    pub(super) async fn ask(&self, objects: &[&Object], deadline: Deadline) -> Result<Vec<Action>> {
        let Grant { url: base, headers, .. } = self.grant(deadline).await?;
        let what = format!("cannot fetch the Git LFS contents of {}", name(objects));
        let request = Request {
            operation: "download",
            transfers: ["basic"],
            reference: self.reference.as_deref().map(|name| Named { name }),
            objects: objects.iter().map(|object| Asked { oid: &object.oid, size: object.size }).collect(),
            hash_algo: "sha256",
        };
        let body = serde_json::to_vec(&request).map_err(|error| Error::internal(&what).because(error))?;
        let mut url = base.clone();
        url.set_path(&format!("{}/objects/batch", base.path().trim_end_matches('/')));
        for _ in 0..=MAX_REDIRECTS {
            let place = shown(&url);
            let post = |client: &reqwest::Client, url: Url| {
                // The server's own headers are for the server alone.
                let own = if url.origin() == base.origin() { headers.clone() } else { HeaderMap::new() };
                client
                    .post(url)
                    .headers(own)
                    .header(ACCEPT, MEDIA_TYPE)
                    .header(CONTENT_TYPE, MEDIA_TYPE)
                    .body(body.clone())
            };
            let reply = if headers.contains_key(AUTHORIZATION) {
                self.site.send_bare(&what, url, post, deadline).await?
            } else {
                self.site.send(&what, url, post, deadline).await?
            };
            if let Some(target) = self.site.redirect(&what, &place, &reply.response)? {
                url = target;
                continue;
            }
            if !is_ok(&reply.response) {
                return Err(self.refused(&what, &place, reply, deadline).await);
            }
            let from = reply.response.url().clone();
            let answer = self.read(&what, &place, reply, deadline).await?;
            return self.actions(&what, &from, objects, answer);
        }
        Err(Error::source(what).because(format!("more than {MAX_REDIRECTS} redirects, the last to {}", shown(&url))))
    }

    async fn read(&self, what: &str, place: &str, reply: WebReply, deadline: Deadline) -> Result<Answer> {
        let (mut response, mut body, mut pace) = (reply.response, Vec::new(), Pace::new(deadline));
        let html = is_html(&response);
        while let Some(chunk) = self.site.chunk(what, &mut response, body.len() as u64, &mut pace).await? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER {
                return Err(Error::source(what).because(format!("the answer of {place} is longer than {ANSWER} bytes")));
            }
        }
        serde_json::from_slice(&body).map_err(|error| {
            let kind =
                if html { "a web page".to_owned() } else { format!("no JSON of this API ({})", position(&error)) };
            Error::source(what)
                .because(format!("{place} is not a Git LFS server: it answers with {kind}"))
                .hint(OTHER_SERVER)
        })
    }

    /// Checks that the answer has a link for each object.
    fn actions(&self, what: &str, from: &Url, objects: &[&Object], answer: Answer) -> Result<Vec<Action>> {
        let place = shown(from);
        let refused = |why: String| Error::source(what).because(format!("{place} {why}"));
        if let Some(transfer) = answer.transfer.filter(|transfer| !["", "basic"].contains(&&**transfer)) {
            return Err(refused(format!("answers with the transfer {transfer:?}, and podstrap asked for basic"))
                .hint("enable the transfer basic on the server: podstrap runs no custom transfer agents"));
        }
        if let Some(hash) = answer.hash_algo.filter(|hash| !["", "sha256"].contains(&&**hash)) {
            return Err(refused(format!("answers with the hash {hash:?}, and podstrap supports only sha256")));
        }
        let mut answered: HashMap<String, Answered> =
            answer.objects.into_iter().map(|object| (object.oid.clone(), object)).collect();
        let (mut actions, mut problems) = (Vec::new(), Vec::new());
        for object in objects {
            let Some(found) = answered.remove(&object.oid) else {
                return Err(refused(format!("leaves {} out of its answer", object.oid)));
            };
            let link = found.actions.and_then(|mut actions| actions.remove("download"));
            if let Some(problem) = found.error {
                // Its message may repeat them.
                if let Some((url, headers)) =
                    link.and_then(|link| Some((from.join(&link.href).ok()?, link.headers().ok()?)))
                {
                    remember(&self.site, &url, &headers);
                }
                problems.push((*object, problem));
                continue;
            }
            let Some(link) = link.filter(|link| !link.href.is_empty()) else {
                let message = Some("it has no link to download it".to_owned());
                problems.push((*object, Problem { code: 404, message }));
                continue;
            };
            let url = match target(from, &link.href) {
                Ok(Ok(url)) => url,
                Ok(Err(why)) => return Err(refused(format!("links to a place that podstrap does not ask: {why}"))),
                Err(error) => return Err(refused(format!("links to no URL: {error}"))),
            };
            let headers = link.headers().map_err(|why| refused(format!("gives a link that {why}")))?;
            let is_open = found.authenticated != Some(true) && !headers.contains_key(AUTHORIZATION);
            actions.push(Action { url, headers, is_open, ends: link.ends() });
        }
        if problems.is_empty() { Ok(actions) } else { Err(self.missing(&place, &problems)) }
    }

    /// The error of objects that the server does not give.
    fn missing(&self, place: &str, problems: &[(&Object, Problem)]) -> Error {
        let objects: Vec<&Object> = problems.iter().map(|(object, _)| *object).collect();
        let (first, Problem { code, message }) = &problems[0];
        let message = message.as_deref().filter(|message| !message.is_empty()).map(|message| {
            let message: String = message.chars().take(MESSAGE).collect();
            format!(": {}", self.site.hide(&message))
        });
        let message = message.unwrap_or_default();
        let error = Error::source(format!("cannot fetch the Git LFS contents of {}", name(&objects)))
            .because(format!("{place} answers {code} for {}{message}", first.oid));
        let error = match code {
            404 => error.hint(
                "push the contents to this server from a clone that has them: git lfs push --all REMOTE; if the server is \
                 another one, set lfs.url in .lfsconfig",
            ),
            410 => error.hint("the server has removed the contents: restore them there, or remove the file from the commit"),
            401 | 403 => error.hint("check that the login of --auth may read the contents of this repository"),
            _ => error,
        };
        let error = error.hint("use --lfs off if the app does not need them");
        let passes = |code: u16| StatusCode::from_u16(code).is_ok_and(crate::http::passing);
        if problems.iter().all(|(_, problem)| passes(problem.code) && !is_final(problem.code)) {
            error.transient(None)
        } else {
            error
        }
    }

    /// The error of a whole request.
    async fn refused(&self, what: &str, place: &str, reply: WebReply, deadline: Deadline) -> Error {
        let status = reply.response.status().as_u16();
        // It may have links, which are secrets.
        if reply.response.status().is_success() {
            return Error::source(what)
                .because(format!("{place} is not a Git LFS server: it answers {}", reply.response.status()))
                .hint(OTHER_SERVER);
        }
        let error = self.site.refused(what, "repository", &place, reply, deadline).await;
        let error = match status {
            404 => error.hint("enable Git LFS for the repository on its server, or set lfs.url in .lfsconfig"),
            413 | 422 => error.hint("the server does not accept the list of files: check that lfs.url is its API"),
            501 => error.hint("the server does not support Git LFS: set lfs.url in .lfsconfig to one that does"),
            507 | 509 => error.hint("the server's storage or bandwidth for Git LFS is used up: raise its quota"),
            _ => error,
        };
        let error = error.hint("use --lfs off if the app does not need them");
        if is_final(status) { error.permanent() } else { error }
    }
}

/// Whether a retry does not help after a status that is one of the server's errors: not implemented, and used up
/// (git-lfs, docs/api/batch.md).
fn is_final(status: u16) -> bool {
    matches!(status, 501 | 507 | 509)
}

/// Where an answer is wrong. The error itself may show a secret of it.
fn position(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// The paths of the first objects.
fn name(objects: &[&Object]) -> String {
    let paths: Vec<_> = objects.iter().filter_map(|object| object.paths.first().cloned()).collect();
    few(&paths)
}

/// Hides the secrets of a link in the text of servers.
pub(super) fn remember(site: &Site, url: &Url, headers: &HeaderMap) {
    let query = url.query_pairs().map(|(_, value)| value.into_owned());
    let values = headers.values().filter_map(|value| value.to_str().ok());
    // Also without the kind of a login.
    let words = values.flat_map(|value| [value, value.split_once(' ').map_or("", |(_, rest)| rest)]).map(str::to_owned);
    site.remember(query.chain(words).filter(|text| text.len() >= SECRET));
}

/// Asks the host of a repository over SSH for the URL of the API and a login.
async fn authenticate(ssh: &Ssh, access: &Access, deadline: Deadline) -> Result<Grant> {
    const SET: &str = "set lfs.url in .lfsconfig to the https:// URL of an LFS server, or use --lfs off";
    let what = format!("cannot find the Git LFS server of {ssh}");
    let keys = Auth::read(&access.auth)?.keys;
    let output =
        Box::pin(ssh::output(ssh, &keys, AUTHENTICATE, "download", &what, deadline)).await.map_err(|error| {
            let pure =
                "podstrap asks with git-lfs-authenticate; it does not support git-lfs-transfer (LFS over SSH alone)";
            if error.retry().is_some() { error } else { error.hint(pure).hint(SET) }
        })?;
    let refused = |why: String| Error::source(&what).because(format!("the answer of {AUTHENTICATE} {why}")).hint(SET);
    let link: Link = serde_json::from_slice(&output)
        .map_err(|error| refused(format!("is no JSON of its API ({})", position(&error))))?;
    let url = if link.href.is_empty() {
        let url = Url::parse(&format!("https://{}/{}", ssh.host, ssh.path.trim_start_matches('/')));
        beside(&url.map_err(|error| refused(format!("has no URL, and the address gives none: {error}")))?)
    } else {
        let url: RemoteUrl = link.href.parse().map_err(|error| refused(format!("has an invalid URL: {error}")))?;
        url.url().clone()
    };
    // The login would be readable on the way.
    if url.scheme() != "https" && !(url.scheme() == "http" && crate::http::is_here(&url)) {
        return Err(refused(format!("has a URL with {}: instead of https:", url.scheme())));
    }
    tracing::debug!("{ssh} has its Git LFS server at {}", shown(&url));
    Ok(Grant { url, headers: link.headers().map_err(|why| refused(why.to_owned()))?, ends: link.ends() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_ends_after_its_seconds_or_at_its_time() {
        let left = |text: &str| {
            let link: Link = serde_json::from_str(text).unwrap();
            link.ends().map(|ends| ends.saturating_duration_since(Instant::now()).as_secs())
        };
        assert_eq!(left(r#"{"href":"x"}"#), None);
        assert!(matches!(left(r#"{"expires_in":100,"expires_at":"2001-01-01T00:00:00Z"}"#), Some(99 | 100)));
        assert_eq!(left(r#"{"expires_in":-5}"#), Some(0));
        assert_eq!(left(r#"{"expires_at":"2001-01-01T00:00:00Z"}"#), Some(0));
        assert!(left(r#"{"expires_at":"2999-01-01T00:00:00.5Z"}"#) > Some(1_000_000));
        // Not set, or not in UTC.
        assert_eq!(left(r#"{"expires_in":0,"expires_at":"0001-01-01T00:00:00Z"}"#), None);
        assert_eq!(left(r#"{"expires_at":"soon"}"#), None);
    }

    #[test]
    fn headers_of_a_link_are_sent_except_those_of_the_connection() {
        let link: Link = serde_json::from_str(
            r#"{"href":"x","header":{"Authorization":"Bearer s3cret","X-Amz-Date":"1","Host":"other","Range":"bytes=1-"}}"#,
        )
        .unwrap();
        let headers = link.headers().unwrap();
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-amz-date"]);
        assert!(!format!("{headers:?}").contains("s3cret"));
        let link: Link = serde_json::from_str(r#"{"header":{"a b":"c"}}"#).unwrap();
        assert!(link.headers().is_err());
    }
}
