//! Asks the index itself: it may have refused, or be down, and no engine says so.

use std::time::Duration;

use tokio::time::timeout;

use super::failed::Failed;
use crate::error::{Error, Result};
use crate::http;
use crate::venv::requirements::name_of;

pub(super) const LOGIN: &str = "mount a netrc file with the login for its host, and name it with --auth, or put user and \
    password into the index URL (PIP_INDEX_URL, from a Secret)";
pub(super) const FORBIDDEN: &str = "these credentials may not read it: check them, and the index's permissions";

impl Failed<'_> {
    /// Asks the indexes about the name: they may have refused, or be down.
    pub(super) async fn not_found(&self) -> Error {
        let requirement = self.sought();
        let name = name_of(requirement);
        if self.settings.no_index() {
            return Error::environment(format!("cannot find {requirement} in the places of --find-links"))
                .because("no index is asked (--no-index)")
                .hint(format!("put an archive of it there that fits {}, and of all that it requires", self.platform));
        }
        for index in self.settings.indexes() {
            if let Err(error) = self.ask_index(index, name).await {
                return error;
            }
        }
        let error = Error::environment(format!("cannot find {requirement} in the package index"));
        if name.len() == requirement.len() {
            error.hint("check the name; a private index is named by PIP_INDEX_URL or PIP_EXTRA_INDEX_URL")
        } else {
            error.hint(format!("check the name and the version; it must also fit {}", self.platform))
        }
    }

    /// The pip that installs what a build needs does not tell of an index page that it could not get.
    /// If it saw no version of what an index has, that was it.
    pub(super) async fn hiccup(&self) -> Option<Error> {
        if self.settings.no_index()
            || !self.stderr.contains("to install build dependencies")
            || !self.stderr.contains("(from versions: none)")
        {
            return None;
        }
        let name = name_of(self.sought());
        for index in self.settings.indexes() {
            match self.ask_index(index, name).await {
                Err(error) => return Some(error),
                Ok(true) => {
                    return Some(
                        Error::environment(format!("the package index {index} gave no list of {name} to a build"))
                            .because("it does when it is asked again")
                            .transient(None),
                    );
                }
                Ok(false) => {}
            }
        }
        None
    }

    /// Whether an index has the name; else what its refusal means.
    pub(super) async fn ask_index(&self, index: &str, name: &str) -> Result<bool> {
        let normal = name.to_lowercase().replace(['_', '.'], "-");
        let Ok(mut page) = url::Url::parse(index) else { return Ok(false) };
        if let Ok(mut path) = page.path_segments_mut() {
            path.pop_if_empty().push(&normal).push("");
        }
        let response = match self.ask(page).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                return Err(Error::environment(format!("cannot reach the package index {index}"))
                    .because(error.without_url())
                    .hint("check the URL, and that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY)")
                    .transient(None));
            }
            None => {
                return Err(Error::environment(format!("the package index {index} does not answer"))
                    .hint("check that the Pod may reach it: network policy, proxy (HTTPS_PROXY)")
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
                Err(refused.hint("the index has trouble of its own").transient(http::retry_after(&response)))
            }
            _ => Ok(status.is_success()),
        }
    }

    /// How long a server asks to wait that has just sent the engine away: no engine tells.
    pub(super) async fn pause(&self) -> Option<Duration> {
        let response = self.ask(url::Url::parse(self.url()?).ok()?).await?.ok()?;
        http::passing(response.status()).then(|| http::retry_after(&response)).flatten()
    }

    /// One request with the login that belongs to the host; None if no answer comes in time.
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
