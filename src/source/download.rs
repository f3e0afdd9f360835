//! A file on a web server: an archive of the app, or a file for the tree.
//!
//! The revision is the digest of its bytes. A pin (`#sha256=…`) gives it in advance. For a file without a pin,
//! podstrap sends the last validators of the server (`ETag`, `Last-Modified`; RFC 9110, 13.1), so that it does
//! not download an unchanged file again.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT_ENCODING, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::redact::RemoteUrl;
use crate::retry::{Deadline, retry};
use crate::runtime::hex;
use crate::size::Size;
use crate::source::access::pace::Pace;
use crate::source::access::web::{Access, MAX_REDIRECTS, Site, is_html, is_ok, shown, text};
use crate::source::destination::Destination;
use crate::source::file::{self, SingleFile};
use crate::source::revision::{Known, Revision, Validator};
use crate::tree::{Written, too_large};

/// File name of the download until podstrap unpacks it.
const NAME: &str = "download";

/// A file on a server, and its copy here after the download.
#[derive(Debug)]
pub(crate) struct Download {
    source: plan::Download,
    site: Site,
    here: Option<Here>,
    revision: Revision,
}

#[derive(Debug)]
struct Here {
    path: PathBuf,
    sha256: String,
    /// The server's Last-Modified.
    modified: Option<SystemTime>,
    /// Whether its content type is that of a web page.
    html: bool,
    validator: Option<Validator>,
}

impl Download {
    /// Finds the revision on the server: `known` if the file is unchanged. Otherwise downloads the file to
    /// `scratch`. Does neither for a pinned file.
    pub(crate) async fn resolve(
        source: &plan::Download,
        access: &Access,
        known: Option<&Known>,
        scratch: &dyn Fn() -> Result<PathBuf>,
        limit: Size,
        deadline: Deadline,
    ) -> Result<Self> {
        let site = Site::verbatim(source.url.clone(), access.clone())?;
        let mut download = Self { source: source.clone(), site, here: None, revision: Revision::of_file("") };
        match &source.sha256 {
            Some(pin) => download.revision = Revision::of_file(pin),
            None => download.ask(known, scratch, limit, deadline).await?,
        }
        Ok(download)
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.clone()
    }

    /// The validator for the next request.
    pub(crate) fn validator(&self) -> Option<Validator> {
        self.here.as_ref()?.validator.clone()
    }

    /// Makes a tree of the file. Downloads the file first if it is not here yet.
    pub(crate) async fn check_out(&mut self, to: Destination<'_>, deadline: Deadline) -> Result<Written> {
        if self.here.is_none() {
            self.ask(None, &|| Ok(to.scratch.to_owned()), to.limit, deadline).await?;
        }
        let url = self.source.url.clone();
        let here = self.here.as_ref().ok_or_else(|| Error::internal(format!("{url} was not downloaded")))?;
        let last = url.url().path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
        let file = SingleFile {
            path: here.path.clone(),
            shown: url.to_string(),
            name: crate::redact::percent_decode(last),
            modified: here.modified.or_else(|| made_up(&here.sha256)),
            web_page: here.html,
        };
        file::check_out(file, self.source.unpack.clone(), to, deadline).await
    }

    /// Asks the server for the revision. Downloads the file to `scratch` unless it is the known one.
    async fn ask(
        &mut self,
        known: Option<&Known>,
        scratch: &dyn Fn() -> Result<PathBuf>,
        limit: Size,
        deadline: Deadline,
    ) -> Result<()> {
        // A query may be a secret, so podstrap does not store it and cannot tell whether it is the same.
        let known = known.filter(|_| self.source.url.url().query().is_none());
        let doing = format!("downloading {}", self.source.url);
        self.here = retry(deadline, &doing, || self.get(known, scratch, limit, deadline)).await?;
        match (&self.here, known) {
            (Some(here), _) => self.revision = Revision::of_file(&here.sha256),
            (None, Some(known)) => self.revision = known.revision.clone(),
            (None, None) => {}
        }
        Ok(())
    }

    /// One try, including redirects. `None` if the server still has the known version.
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

    /// Writes the body to a file and compares it with the pin.
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
                .because(format!("the file does not match its pin: its SHA-256 is {sha256}, not {pin}"))
                .hint("if its publisher replaced it and you trust the new file, write the new digest after #sha256="));
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

/// Reads a file on a server into memory.
pub(crate) async fn read(url: RemoteUrl, access: Access, limit: u64, deadline: Deadline) -> Result<Vec<u8>> {
    let (doing, what) = (format!("downloading {url}"), format!("cannot download {url}"));
    let site = Site::new(url.clone(), access)?;
    retry(deadline, &doing, async || {
        let mut url = url.url().clone();
        for _ in 0..=MAX_REDIRECTS {
            let place = shown(&url);
            let mut reply = site.send(&what, url, reqwest::Client::get, deadline).await?;
            if let Some(target) = site.redirect(&what, &place, &reply.response)? {
                url = target;
                continue;
            }
            if !is_ok(&reply.response) {
                return Err(site.refused(&what, "file", &place, reply, deadline).await);
            }
            let (mut bytes, mut pace) = (Vec::new(), Pace::new(deadline));
            while let Some(chunk) = site.chunk(&what, &mut reply.response, bytes.len() as u64, &mut pace).await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > limit {
                    let large = format!("the file has more than {}", Size(limit));
                    return Err(Error::source(&what).because(large).hint("give the URL of a requirements file"));
                }
                if deadline.passed() {
                    return Err(pace.stalled(&what));
                }
            }
            return Ok(bytes);
        }
        Err(Error::source(&what).because(format!("more than {MAX_REDIRECTS} redirects, the last to {}", shown(&url))))
    })
    .await
}

/// A time for a file that has none, derived from its digest: caches tell versions of a file apart by it.
fn made_up(sha256: &str) -> Option<SystemTime> {
    let seconds = u64::from_str_radix(sha256.get(..7)?, 16).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
