//! A file from a web server: an archive of the app, or a file of it.
//!
//! The revision is the digest of its bytes. One that is pinned (`#sha256=…`) is known beforehand; any
//! other is asked for again with what the server said of its version (`ETag`, `Last-Modified`; RFC 9110,
//! 13.1), so that one that did not change need not come again.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use reqwest::header::{ACCEPT_ENCODING, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::redact::RemoteUrl;
use crate::retry::{Deadline, retry};
use crate::runtime::hex;
use crate::size::Size;
use crate::source::web::{Access, MAX_REDIRECTS, Pace, Site, is_html, is_ok, shown, text};
use crate::source::{Known, Revision, SHA256, Validator, too_large};

/// Where the file is kept until it is unpacked.
const NAME: &str = "download";

/// A file on a server, and the file here once it has come.
#[derive(Debug)]
pub(super) struct Download {
    source: plan::Download,
    site: Site,
    here: Option<Here>,
}

#[derive(Debug)]
pub(super) struct Here {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    /// When the server says it was made.
    pub(super) modified: Option<SystemTime>,
    /// A web page, as the server says.
    pub(super) html: bool,
    pub(super) validator: Option<Validator>,
}

impl Download {
    pub(super) fn new(source: &plan::Download, access: &Access) -> Result<Self> {
        Ok(Self { source: source.clone(), site: Site::verbatim(source.url.clone(), access.clone())?, here: None })
    }

    /// Which revision the server has. It is the known one, or else the file comes to `scratch`.
    pub(super) async fn resolve(
        &mut self,
        known: Option<&Known>,
        scratch: &dyn Fn() -> Result<PathBuf>,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Revision> {
        // A query can be a secret, and is not kept: nobody could say that it is still the same.
        let known = known.filter(|_| self.source.url.url().query().is_none());
        let doing = format!("downloading {}", self.source.url);
        self.here = retry(deadline, &doing, || self.get(known, scratch, limit, deadline)).await?;
        match (&self.here, known) {
            (None, Some(known)) => Ok(known.revision.clone()),
            _ => Ok(Revision { commit: format!("{SHA256}{}", self.file()?.sha256), reference: None }),
        }
    }

    /// The file, which comes now if it has not.
    pub(super) async fn fetch(&mut self, scratch: &Path, limit: Size, deadline: Deadline) -> Result<&Here> {
        if self.here.is_none() {
            self.resolve(None, &|| Ok(scratch.to_owned()), limit, deadline).await?;
        }
        self.file()
    }

    pub(super) fn url(&self) -> &RemoteUrl {
        &self.source.url
    }

    /// What to ask with the next time.
    pub(super) fn validator(&self) -> Option<Validator> {
        self.here.as_ref()?.validator.clone()
    }

    fn file(&self) -> Result<&Here> {
        self.here.as_ref().ok_or_else(|| Error::internal(format!("{} was not downloaded", self.source.url)))
    }

    /// One try, redirects included. None: the server still has what is known.
    async fn get(
        &self,
        known: Option<&Known>,
        scratch: &dyn Fn() -> Result<PathBuf>,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Option<Here>> {
        let what = format!("cannot download {}", self.source.url);
        let mut url = self.source.url.url().clone();
        for _ in 0..=MAX_REDIRECTS {
            let place = shown(&url);
            let get = |client: &reqwest::Client, url| {
                let request = client.get(url).header(ACCEPT_ENCODING, "identity");
                let validator = known.map(|known| &known.validator);
                match validator {
                    Some(Validator { etag: Some(tag), .. }) => request.header(IF_NONE_MATCH, tag),
                    Some(Validator { last_modified: Some(date), .. }) => request.header(IF_MODIFIED_SINCE, date),
                    _ => request,
                }
            };
            let reply = self.site.send(&what, url, get, deadline).await?;
            if known.is_some() && reply.response.status() == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            if let Some(target) = self.site.redirect(&what, &place, &reply.response)? {
                tracing::debug!("{place} redirects to {}", shown(&target));
                url = target;
                continue;
            }
            if !is_ok(&reply.response) {
                return Err(self.site.refused(&what, "file", &place, reply, deadline).await);
            }
            return self.store(&what, reply.response, &scratch()?, limit, deadline).await.map(Some);
        }
        Err(Error::source(what).because(format!("more than {MAX_REDIRECTS} redirects, the last to {}", shown(&url))))
    }

    /// Writes the body to a file, and compares it with its pin.
    async fn store(
        &self,
        what: &str,
        mut response: Response,
        scratch: &Path,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Here> {
        if let Some(length) = response.content_length().filter(|length| *length > limit.0) {
            return Err(too_large(what, "the file has", length, limit));
        }
        let path = scratch.join(NAME);
        let volume = || format!("cannot write {}", path.display());
        let mut file = File::create(&path).on_volume(volume)?;
        let (mut digest, mut received, mut pace) = (Sha256::new(), 0, Pace::new(deadline));
        while let Some(chunk) = self.site.chunk(what, &mut response, received, &mut pace).await? {
            received += chunk.len() as u64;
            if received > limit.0 {
                return Err(too_large(what, "the file has", received, limit));
            }
            digest.update(&*chunk);
            file.write_all(&chunk).on_volume(volume)?;
            if deadline.passed() {
                return Err(pace.stalled(what));
            }
        }
        let sha256 = hex(&digest.finalize());
        if let Some(pin) = self.source.sha256.as_ref().filter(|pin| **pin != sha256) {
            return Err(Error::source(what)
                .because(format!("it is another file than the pinned one: its SHA-256 is {sha256}, not {pin}"))
                .hint("if its publisher has replaced it and it can be trusted, write the new digest behind #sha256="));
        }
        let header = |name: &str| text(response.headers(), name).map(str::to_owned);
        let (etag, last_modified) = (header(ETAG.as_str()), header(LAST_MODIFIED.as_str()));
        let modified = last_modified.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
        let html = is_html(&response);
        let validator = Validator { etag, last_modified };
        let validator = (validator != Validator::default()).then_some(validator);
        Ok(Here { path, sha256, modified, html, validator })
    }
}
