//! Asks a package index why an engine did not find a requirement.
//!
//! An index may refuse requests or be down. Engines do not report that.

use std::time::Duration;

use tokio::time::timeout;

use super::failed::Failed;
use super::phrases;
use crate::error::{Error, Result};
use crate::http;
use crate::venv::pyproject::normal;
use crate::venv::requirements::name_of;

pub(super) const LOGIN: &str = "mount a netrc file with the login for its host and give it with --auth, or put user \
    and password into the index URL (PIP_INDEX_URL, from a Secret)";
pub(super) const FORBIDDEN: &str = "check the credentials and their permission to read from the index";

impl Failed<'_> {
    /// The error of a requirement that was not found. Asks the indexes for its name.
    pub(super) async fn not_found(&self) -> Error {
        let requirement = self.sought();
        let name = requirement.0.map(name_of);
        if self.settings.no_index() {
            return Error::environment(format!("cannot find {requirement} in the --find-links locations"))
                .because("--no-index disables the package indexes")
                .hint(format!(
                    "add an archive of the package for {}, and archives of all its dependencies",
                    self.platform
                ));
        }
        if let Some(name) = name {
            for index in self.settings.indexes() {
                if let Err(error) = self.ask_index(index, name).await {
                    return error;
                }
            }
        }
        let error = Error::environment(format!("cannot find {requirement} in the package index"));
        if name.is_some() && name == requirement.0 {
            error.hint("check the name, and for a private index set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL")
        } else {
            error.hint(format!(
                "check the name and the version, and whether the package has an archive for {}",
                self.platform
            ))
        }
    }

    /// The index has a fitting file, but an old pip cannot use the metadata that the index sends for it. pip 23.2 and
    /// newer, and uv, can. `pip.py` avoids this, but not in the pip that installs build requirements.
    pub(super) fn misread_index(&self) -> Option<Error> {
        let (wanted, found) = phrases::OTHER_SPELLING;
        let pair = || {
            let rest = self.stderr.split_once(wanted.0)?.1;
            let (wanted, rest) = rest.split_once(wanted.1)?;
            let found = rest.strip_prefix(found.0)?.split_once(found.1)?.0;
            let sought = normal(name_of(self.sought().0?));
            (sought == normal(wanted) && sought == normal(found)).then_some((wanted, found))
        };
        if let Some((wanted, found)) = pair() {
            return Some(
                Error::environment(format!("{} cannot use the index's metadata of {wanted}", self.engine))
                    .because(format!(
                        "the metadata spells the name {found}, and pip before 23.2 requires the same spelling"
                    ))
                    .hint(format!(
                        "use an image with pip 23.2 or newer, or --engine uv; or write {found} in the requirements, if \
                         {wanted} is one of them"
                    )),
            );
        }
        self.says(phrases::ATTRIBUTE_UNREAD).then(|| {
            Error::environment(format!("{} cannot read a page of the package index", self.engine))
                .because("the page has the attribute dist-info-metadata in JSON, which pip before 23.2 cannot read")
                .hint(
                    "use an image with pip 23.2 or newer, or --engine uv; or an index that sends core-metadata instead \
                     (PEP 714)",
                )
        })
    }

    /// A temporary failure of an index during a build. The pip that installs build requirements does not report
    /// an index page that it could not get. If it saw no version, but the index has some, this was the cause.
    pub(super) async fn hiccup(&self) -> Option<Error> {
        if self.settings.no_index()
            || !self.stderr.contains(phrases::PIP_BUILD_REQUIREMENTS)
            || !self.stderr.contains(phrases::NO_VERSIONS)
        {
            return None;
        }
        let name = name_of(self.sought().0?);
        for index in self.settings.indexes() {
            match self.ask_index(index, name).await {
                Err(error) => return Some(error),
                Ok(true) => {
                    return Some(
                        Error::environment(format!("the package index {index} did not list {name} for a build"))
                            .because("a second request succeeded")
                            .transient(None),
                    );
                }
                Ok(false) => {}
            }
        }
        None
    }

    /// Whether an index has the name.
    ///
    /// # Errors
    /// The index refuses the request, fails, or is unreachable.
    pub(super) async fn ask_index(&self, index: &str, name: &str) -> Result<bool> {
        let Ok(mut page) = url::Url::parse(index) else { return Ok(false) };
        if let Ok(mut path) = page.path_segments_mut() {
            path.pop_if_empty().push(&normal(name)).push("");
        }
        let response = match self.ask(page).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                return Err(Error::environment(format!("cannot reach the package index {index}"))
                    .because(error.without_url())
                    .hint("check the URL, and whether the Pod can reach it: DNS, network policy, proxy (HTTPS_PROXY)")
                    .transient(None));
            }
            None => {
                return Err(Error::environment(format!("the package index {index} does not answer"))
                    .hint("check whether the Pod can reach it: network policy, proxy (HTTPS_PROXY)")
                    .transient(None));
            }
        };
        let status = response.status();
        let refused = Error::environment(format!("the package index {index} answers {status}"));
        match status.as_u16() {
            401 => Err(refused.hint(LOGIN)),
            403 => Err(refused.hint(FORBIDDEN)),
            429 => Err(refused.transient(http::retry_after(&response))),
            _ if http::passing(status) => {
                Err(refused.hint("check the server of the index").transient(http::retry_after(&response)))
            }
            _ => Ok(status.is_success()),
        }
    }

    /// The delay that a server asks for in Retry-After. Engines do not report it, so this asks the server again.
    pub(super) async fn pause(&self) -> Option<Duration> {
        let response = self.ask(url::Url::parse(self.url()?).ok()?).await?.ok()?;
        http::passing(response.status()).then(|| http::retry_after(&response)).flatten()
    }

    /// Sends one request with the login for the host. `None`: no answer in time.
    async fn ask(&self, url: url::Url) -> Option<reqwest::Result<reqwest::Response>> {
        if self.deadline.passed() {
            return None;
        }
        let mut request = http::client().ok()?.get(url.clone());
        if let Some(login) = url.host_str().and_then(|host| self.settings.login(host)) {
            request = request.basic_auth(&login.username, Some(login.password.reveal()));
        }
        timeout(self.deadline.silence().min(self.deadline.remaining()), request.send()).await.ok()
    }
}
