//! A Git repository over HTTP: its list of references, and packs (gitprotocol-http, the smart protocol). Every failure of
//! a server becomes an [`Error`] here.
//!
//! podstrap asks in version 2 for the references that it needs, without the usual discovery. If the server does not answer
//! as expected, podstrap starts again in version 0, which lists all references. It follows a redirect only for this
//! list, as Git does. Later requests go to its target.

use std::fmt;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use url::Url;

use crate::error::{Error, Result};
use crate::redact::RemoteUrl;
use crate::retry::Deadline;
use crate::source::access::pace::Pace;
use crate::source::access::web::{Access, MAX_REDIRECTS, Site, WebReply, is_html, is_ok, misled, shown, text};
use crate::source::remote::answer::{self, MAX_LIST};
use crate::source::remote::refs::{Refs, Unreadable};

/// A repository and its HTTP client. `Display` shows its URL without secrets.
#[derive(Debug)]
pub(crate) struct Remote(Site);

/// The base URL of requests, after redirects.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint(Url);

/// A server's list of references.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) endpoint: Endpoint,
    pub(crate) refs: Refs,
    /// As received. `None`: some references, in version 2.
    pub(crate) body: Option<Vec<u8>>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Remote {
    pub(crate) fn new(url: RemoteUrl, access: Access) -> Result<Self> {
        Ok(Self(Site::new(url, access)?))
    }

    /// Requests the references that `reference` may mean (gitprotocol-v2). `None`: the server does not answer this at this
    /// address.
    pub(crate) async fn ask(&self, reference: Option<&str>, deadline: Deadline) -> Result<Option<Listing>> {
        let what = format!("cannot list the references of {self}");
        let endpoint = Endpoint(self.0.url.url().clone());
        let reply = self.post(&what, &endpoint, Refs::request(reference), true, deadline).await?;
        // These have nothing to do with the version.
        if matches!(reply.response.status().as_u16(), 401 | 403 | 407 | 408 | 429 | 502..=504) {
            return Err(self.0.refused(&what, "repository", &endpoint, reply, deadline).await);
        }
        if !is_ok(&reply.response) || !is_of(&reply.response, "result") {
            return Ok(None);
        }
        let body = self.body(&what, reply.response, deadline).await?;
        Ok(Refs::parse_some(&body).ok().map(|refs| Listing { endpoint, refs, body: None }))
    }

    /// The body of a list.
    async fn body(&self, what: &str, mut response: reqwest::Response, deadline: Deadline) -> Result<Vec<u8>> {
        let (mut body, mut pace) = (Vec::new(), Pace::new(deadline));
        while let Some(chunk) = self.0.chunk(what, &mut response, body.len() as u64, &mut pace).await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_LIST {
                return Err(Error::source(what).because(format!("the list is longer than {MAX_LIST} bytes")));
            }
        }
        Ok(body)
    }

    async fn post(
        &self,
        what: &str,
        endpoint: &Endpoint,
        body: Vec<u8>,
        is_version_2: bool,
        deadline: Deadline,
    ) -> Result<WebReply> {
        let post = |client: &reqwest::Client, url| {
            let request = client
                .post(url)
                .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
                .header(ACCEPT, "application/x-git-upload-pack-result")
                .body(body);
            if is_version_2 { request.header("Git-Protocol", "version=2") } else { request }
        };
        self.0.send(what, endpoint.url("/git-upload-pack", false), post, deadline).await
    }

    /// Requests the references: one request, and one more for each redirect.
    pub(crate) async fn list(&self, deadline: Deadline) -> Result<Listing> {
        let what = format!("cannot list the references of {self}");
        let mut endpoint = Endpoint(self.0.url.url().clone());
        for _ in 0..=MAX_REDIRECTS {
            let url = endpoint.url("/info/refs", true);
            let reply = self.0.send(&what, url, reqwest::Client::get, deadline).await?;
            if let Some(target) = self.0.redirect(&what, &endpoint, &reply.response)? {
                endpoint = endpoint.redirected(&target)?;
                tracing::debug!("{self} redirects to {endpoint}");
                continue;
            }
            let response = self.check(&what, &endpoint, reply, "advertisement", deadline).await?;
            let body = self.body(&what, response, deadline).await?;
            let refs = Refs::parse(&body).map_err(|error| {
                let cut = matches!(error, Unreadable::Truncated);
                let error = Error::source(&what).because(self.0.hide(&error.to_string()));
                if cut { error.transient(None) } else { error }
            })?;
            return Ok(Listing { endpoint, refs, body: Some(body) });
        }
        Err(Error::source(what).because(format!("more than {MAX_REDIRECTS} redirects, the last to {endpoint}")))
    }

    /// Requests a pack and passes the packets of the answer to `packets`, as [`answer::pass_on`] does. Returns
    /// the refusal of the server, if any.
    pub(crate) async fn upload_pack(
        &self,
        what: &str,
        listing: &Listing,
        body: Vec<u8>,
        packets: mpsc::Sender<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let endpoint = &listing.endpoint;
        let reply = self.post(what, endpoint, body, listing.body.is_none(), deadline).await?;
        let mut response = self.check(what, endpoint, reply, "result", deadline).await?;
        let chunk = async |received, pace: &mut Pace| self.0.chunk(what, &mut response, received, pace).await;
        answer::pass_on(what, chunk, |text| self.0.hide(text), &packets, deadline).await
    }

    /// Checks that the response is from a Git server. Any other response becomes an error that shows it.
    async fn check(
        &self,
        what: &str,
        endpoint: &Endpoint,
        reply: WebReply,
        kind: &str,
        deadline: Deadline,
    ) -> Result<reqwest::Response> {
        if !is_ok(&reply.response) {
            return Err(self.0.refused(what, "repository", endpoint, reply, deadline).await);
        }
        if is_of(&reply.response, kind) {
            return Ok(reply.response);
        }
        let content_type = text(reply.response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let html = is_html(&reply.response);
        let mut response = reply.response;
        // A web page says enough by its type.
        let body = if html { None } else { timeout_at(deadline.instant(), response.chunk()).await.ok() };
        if body.and_then(Result::ok).flatten().is_some_and(|chunk| is_dumb(&chunk)) {
            return Err(Error::source(what)
                .because(format!("{endpoint} is a repository served as plain files (Git's dumb HTTP protocol)"))
                .hint("serve it with git http-backend or another Git server: podstrap needs the smart HTTP protocol"));
        }
        let error = Error::source(what).because(format!(
            "{endpoint} is not a Git repository over HTTP: it answers with {}",
            match content_type.as_str() {
                _ if html => "a web page".to_owned(),
                "" => "no content type".to_owned(),
                kind => format!("content type {kind:?}"),
            }
        ));
        let error = error.hint("give the address for git clone, which often ends with .git");
        Err(if html { error } else { error.hint("add --file NAME or #sha256=… to download a file or an archive") })
    }
}

/// Whether a response has the content type of the smart protocol.
fn is_of(response: &reqwest::Response, kind: &str) -> bool {
    let found = text(response.headers(), CONTENT_TYPE.as_str());
    found.and_then(|found| found.strip_prefix("application/x-git-upload-pack-")) == Some(kind)
}

/// Whether a body is the file `info/refs` of a repository: object name, tab, reference (gitrepository-layout(5)).
fn is_dumb(body: &[u8]) -> bool {
    let digits = body.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    matches!(digits, 40 | 64) && body[digits..].starts_with(b"\trefs/")
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl Endpoint {
    /// The URL of a service; `query` adds `?service=`, which selects smart HTTP.
    fn url(&self, service: &str, query: bool) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{service}", self.0.path().trim_end_matches('/')));
        url.set_fragment(None);
        if query {
            url.query_pairs_mut().append_pair("service", "git-upload-pack");
        }
        url
    }

    /// The repository to which a redirect of its info/refs leads.
    fn redirected(&self, target: &Url) -> Result<Self> {
        let Some(path) = target.path().strip_suffix("/info/refs") else {
            return Err(misled(
                self,
                target,
                "the target is not a Git repository: its address does not end with /info/refs",
            ));
        };
        let mut base = target.clone();
        base.set_path(path);
        let kept: Vec<_> = target.query_pairs().filter(|(name, _)| name != "service").collect();
        base.set_query(None);
        if !kept.is_empty() {
            base.query_pairs_mut().extend_pairs(kept);
        }
        Ok(Self(base))
    }
}

/// Every redirect leads to HTTP, never from HTTPS to plain HTTP, and carries no credentials.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(location) = std::str::from_utf8(data) else { return };
    for start in ["https://host/a.git", "http://host:8080/a.git?x=1"] {
        let start = Endpoint(Url::parse(start).expect("it is a URL"));
        let from = start.url("/info/refs", true);
        let Ok(Ok(target)) = crate::source::access::web::target(&from, location) else { continue };
        assert!(target.scheme() == "https" || from.scheme() == "http" && target.scheme() == "http");
        assert!(target.username().is_empty() && target.password().is_none());
        if let Ok(moved) = start.redirected(&target) {
            assert_eq!(moved.0.origin(), target.origin());
            moved.url("/git-upload-pack", false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::access::web::target;

    #[test]
    fn a_redirect_moves_the_repository() {
        let start = Endpoint(Url::parse("https://host/a.git").unwrap());
        let from = start.url("/info/refs", true);
        let to = |location: &str| match target(&from, location).unwrap() {
            Ok(target) => start.redirected(&target).map(|moved| moved.0.to_string()).map_err(|error| error.to_string()),
            Err(why) => Err(why.to_owned()),
        };
        assert_eq!(to("/b/info/refs?service=git-upload-pack"), Ok("https://host/b".into()));
        assert_eq!(to("https://host:8443/b/info/refs?x=1"), Ok("https://host:8443/b?x=1".into()));
        assert_eq!(to("https://me:pw@other/b/info/refs"), Ok("https://other/b".into()));
        assert!(to("http://host/a.git/info/refs").unwrap_err().contains("the target does not use HTTPS"));
        assert!(to("file:///a.git/info/refs").unwrap_err().contains("the target does not use HTTP"));
        assert!(to("https://host/login").unwrap_err().contains("the target is not a Git repository"));
    }

    #[test]
    fn a_service_is_below_the_path_and_keeps_the_query() {
        let endpoint = Endpoint(Url::parse("https://host/a.git/?token=x#y").unwrap());
        assert_eq!(
            endpoint.url("/info/refs", true).as_str(),
            "https://host/a.git/info/refs?token=x&service=git-upload-pack"
        );
        assert_eq!(endpoint.url("/git-upload-pack", false).as_str(), "https://host/a.git/git-upload-pack?token=x");
        assert_eq!(endpoint.to_string(), "https://host/a.git/?***");
    }
}
