//! Logins from URLs and mounted files, for engines and Git.
//!
//! A [`Userinfo`] is never printed.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::{IoContext, Kind, Result};
use crate::files::{self, WRITTEN};
use crate::redact::{self, RemoteUrl, Userinfo};
use crate::source;

/// All known logins.
#[derive(Clone, Default)]
pub(super) struct Logins {
    /// For hosts, from URLs.
    hosts: Vec<(String, Userinfo)>,
    /// For Git repositories, by their URLs.
    repositories: Vec<(String, Userinfo)>,
    /// For hosts, from mounted files.
    mounted: Vec<(String, Userinfo)>,
    /// Hosts with several logins, each in its URL: a netrc file has one login for each host.
    shared: Vec<String>,
}

impl Logins {
    /// Reads the mounted logins, for hosts without a login.
    pub(super) fn log_in(&mut self, auth: &[PathBuf]) -> Result<()> {
        for (host, login) in source::logins(auth)? {
            let mut known = self.hosts.iter().chain(&self.mounted).map(|(known, _)| known).chain(&self.shared);
            if known.any(|known| known.eq_ignore_ascii_case(&host)) {
                continue;
            }
            if plain(&login.username) && plain(login.password.reveal()) {
                self.mounted.push((host, login));
            } else {
                tracing::warn!(
                    "ignoring the login for {host} in --auth for package indexes: its name or password is empty, or \
                     contains white space, a quotation mark or a backslash"
                );
            }
        }
        Ok(())
    }

    /// Finds the hosts with several logins in these URLs (also after `name=`) and in earlier ones.
    pub(super) fn find_shared<'a>(&mut self, urls: impl Iterator<Item = &'a String>) {
        let mut known = self.hosts.clone();
        for url in urls.filter_map(|text| url_in(text)) {
            let (Some(host), Some(login)) = (url.url().host_str(), url.userinfo()) else { continue };
            let other = known.iter().any(|(name, known)| name == host && known != login);
            if other && !self.is_shared(host) {
                self.shared.push(host.to_owned());
            }
            known.push((host.to_owned(), login.clone()));
        }
    }

    /// The URL, with the login that an earlier call moved if its host now has several.
    pub(super) fn with_shared(&self, text: &str) -> String {
        let whole = url_in(text).filter(|url| url.userinfo().is_none()).and_then(|url| {
            let host = url.url().host_str().filter(|host| self.is_shared(host))?;
            let (_, login) = self.hosts.iter().find(|(name, _)| name == host)?;
            let mut whole = url.url().clone();
            whole
                .set_username(&login.username)
                .and_then(|()| whole.set_password(Some(login.password.reveal())))
                .ok()?;
            Some(text.replace(url.url().as_str(), whole.as_str()))
        });
        whole.unwrap_or_else(|| text.to_owned())
    }

    /// Removes the logins that are in URLs.
    pub(super) fn drop_shared(&mut self) {
        let Self { hosts, shared, .. } = self;
        hosts.retain(|(host, _)| !shared.contains(host));
    }

    fn is_shared(&self, host: &str) -> bool {
        self.shared.iter().any(|name| name == host)
    }

    /// Moves the userinfo of a URL (also after `name=` or `name @ `) to the logins. It stays in the URL if a netrc
    /// file cannot express it.
    pub(super) fn without_password(&mut self, text: &str) -> String {
        if redact::bare_login(text).is_some() {
            return text.to_owned();
        }
        let start = text.find("http://").or_else(|| text.find("https://"));
        let Some((before, url)) = start.map(|at| text.split_at(at)) else { return text.to_owned() };
        let (url, after) = url.split_at(url.find(char::is_whitespace).unwrap_or(url.len()));
        let Ok(url) = url.parse::<RemoteUrl>() else { return text.to_owned() };
        // Version control programs do not read the netrc file that an engine reads.
        if before.ends_with('+') {
            let Some(login) = url.userinfo() else { return text.to_owned() };
            if before.ends_with("git+") && !login.password.reveal().is_empty() {
                let entry = (repository(url.url()), login.clone());
                if !self.repositories.iter().any(|(known, _)| *known == entry.0) {
                    self.repositories.push(entry.clone());
                }
                if self.repositories.contains(&entry) {
                    return format!("{before}{}{after}", url.url());
                }
            }
            tracing::warn!(
                "the credentials for {} remain in its URL, which is visible in the arguments of child processes",
                url.url()
            );
            return text.to_owned();
        }
        let (Some(host), Some(login)) = (url.url().host_str(), url.userinfo()) else { return text.to_owned() };
        if self.is_shared(host) {
            return text.to_owned();
        }
        // A netrc file has one login for each host.
        let other = self.hosts.iter().any(|(name, known)| name == host && known != login);
        if other || !plain(&login.username) || !plain(login.password.reveal()) {
            tracing::warn!(
                "the password for {} remains in its URL, which may be visible in the arguments of child processes: {}",
                url.url(),
                if other { "the host has another login" } else { "a netrc file cannot express it" }
            );
            return text.to_owned();
        }
        let entry = (host.to_owned(), login.clone());
        if !self.hosts.contains(&entry) {
            self.hosts.push(entry);
        }
        format!("{before}{}{after}", url.url())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Userinfo> {
        self.hosts.iter().chain(&self.repositories).chain(&self.mounted).map(|(_, login)| login)
    }

    /// The login for a host.
    pub(super) fn of(&self, host: &str) -> Option<&Userinfo> {
        let mut all = self.hosts.iter().chain(&self.mounted);
        all.find(|(name, _)| name.eq_ignore_ascii_case(host)).map(|(_, login)| login)
    }

    /// Variables with the logins for Git, whichever process starts it. They are configuration (git-config(1),
    /// `GIT_CONFIG_COUNT`) after the user's `own` entries.
    ///
    /// A login from a URL is only for its repository. A mounted login is for its host over HTTPS, and for the origins
    /// (scheme, host and port) of `places`, which the user named.
    /// `headers` are those for other places.
    pub(super) fn git_variables(
        &self,
        own: usize,
        places: &[url::Url],
        headers: Vec<(String, String)>,
    ) -> Vec<(String, String)> {
        let host_of = |url: &str| url::Url::parse(url).ok().and_then(|url| Some(url.host_str()?.to_owned()));
        let mounted = self.mounted.iter().filter(|(host, _)| {
            // Git would send both logins.
            !self.repositories.iter().any(|(url, _)| host_of(url).is_some_and(|known| known.eq_ignore_ascii_case(host)))
        });
        let basic = |login: &Userinfo| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password.reveal())))
        };
        let mut entries: Vec<(String, String)> =
            self.repositories.iter().map(|(url, login)| (url.clone(), basic(login))).collect();
        for (place, header) in headers {
            // Git would send both logins.
            let other = self.repositories.iter().any(|(url, _)| url.starts_with(&place));
            if !other && !entries.iter().any(|(known, _)| *known == place) {
                entries.push((place, header));
            }
        }
        for (host, login) in mounted {
            let usual = format!("https://{}/", host.to_lowercase());
            let here = places.iter().filter(|url| url.host_str().is_some_and(|name| name.eq_ignore_ascii_case(host)));
            let here = here.map(|url| format!("{}/", url.origin().ascii_serialization()));
            for place in [usual].into_iter().chain(here) {
                if !entries.iter().any(|(known, _)| *known == place) {
                    entries.push((place, basic(login)));
                }
            }
        }
        if entries.is_empty() {
            return Vec::new();
        }
        let mut vars = vec![("GIT_CONFIG_COUNT".to_owned(), (own + entries.len()).to_string())];
        for (index, (url, header)) in entries.iter().enumerate() {
            let number = own + index;
            vars.push((format!("GIT_CONFIG_KEY_{number}"), format!("http.{url}.extraHeader")));
            vars.push((format!("GIT_CONFIG_VALUE_{number}"), format!("Authorization: {header}")));
        }
        vars
    }

    /// Writes a netrc file for the engines: the entries of the user's `own` file, then the logins.
    pub(super) fn netrc(&self, own: Option<PathBuf>, scratch: &Path) -> Result<Option<Netrc>> {
        // The engines read it, even if podstrap has nothing to add.
        let own = own.map(|file| match files::read_if_there(&file, WRITTEN) {
            // They ignore these.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::IsADirectory) => Ok(None),
            Err(error) => Err(files::unreadable(Kind::Environment, format!("cannot read {}", file.display()), &error)
                .hint("correct the file, or give another one with NETRC")),
            Ok(text) => Ok(text),
        });
        let own = own.transpose()?.flatten().unwrap_or_default();
        if self.hosts.is_empty() && self.mounted.is_empty() {
            return Ok(None);
        }
        let mut text = String::from_utf8_lossy(&own).into_owned();
        // An empty line ends a macro definition. For each host, readers take the last entry.
        text.push_str("\n\n");
        for (host, login) in self.hosts.iter().chain(&self.mounted) {
            text.extend(["machine ", host, " login ", &login.username, " password ", login.password.reveal(), "\n"]);
        }
        if let Some(netrc) = Netrc::in_memory(&text) {
            return Ok(Some(netrc));
        }
        let path = scratch.join(format!("netrc-{:016x}", fastrand::u64(..)));
        files::write_private(&path, text.as_bytes()).on_volume(|| format!("cannot write {}", path.display()))?;
        Ok(Some(Netrc { path, memory: None }))
    }
}

/// The URL in a text, also after `name=`.
fn url_in(text: &str) -> Option<RemoteUrl> {
    text.find("http").and_then(|at| text[at..].parse().ok())
}

/// Whether a netrc file can express this word without quotes: its readers disagree about quotes.
fn plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('#') && word.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"".contains(&b))
}

/// The URL for Git: without query, fragment, and `@REVISION` at the end of the path.
fn repository(url: &url::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().rsplit_once('@').map_or(url.path(), |(path, _)| path).to_owned();
    url.set_path(&path);
    url.into()
}

/// A temporary netrc file. Dropping it removes the file.
#[derive(Debug)]
pub(in crate::venv) struct Netrc {
    pub(in crate::venv) path: PathBuf,
    memory: Option<File>,
}

impl Netrc {
    /// Creates the file in memory, with its path in /proc. A kill then leaves no file.
    fn in_memory(text: &str) -> Option<Self> {
        let mut memory = File::from(memfd_create("netrc", MemfdFlags::CLOEXEC).ok()?);
        memory.set_permissions(Permissions::from_mode(0o600)).and_then(|()| memory.write_all(text.as_bytes())).ok()?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()));
        // With the /proc of another PID namespace, this path is a file of another process.
        let shown = files::read_proc(&path).is_ok_and(|read| read == text.as_bytes());
        shown.then_some(Self { path, memory: Some(memory) })
    }
}

impl Drop for Netrc {
    fn drop(&mut self) {
        if self.memory.is_none() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
