//! Addresses of repositories over SSH: `ssh://[user@]host[:port]/path`, or `[user@]host:path` as for
//! scp. Splits an address as Git does (`parse_connect_url` in connect.c). Does no I/O.

use std::fmt;

use url::Host;

use crate::error::{Error, Result};
use crate::redact::{RemoteUrl, percent_decode};

/// The port of SSH (RFC 4253, 4.1).
pub const SSH_PORT: u16 = 22;
/// The default user, which every Git host uses.
const USER: &str = "git";

/// A repository over SSH. `Display` shows it as typed, but never a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    pub(crate) user: String,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path for the server: `/srv/app.git`, `~user/app.git`, or relative to the user's home.
    pub(crate) path: String,
    shown: String,
}

impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Ssh {
    /// Parses `ssh://[user@]host[:port]/path`. Ignores a password, because podstrap uses only keys.
    ///
    /// # Errors
    /// The host or the path is missing, or the address contains invalid characters.
    pub fn from_url(url: &RemoteUrl) -> Result<Self> {
        let user = url.userinfo().map(|info| info.username.clone()).filter(|user| !user.is_empty());
        let host = match url.url().host() {
            Some(Host::Domain(name)) => percent_decode(name),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        if url.url().query().or(url.url().fragment()).is_some() {
            return Err(refused(&url.to_string(), "a ? or # in the path must be written as %3F or %23"));
        }
        let path = percent_decode(url.url().path());
        // `/~user/app.git` is relative to that user's home.
        let path = if path.starts_with("/~") { &path[1..] } else { &path };
        let shown = match &user {
            Some(user) => url.to_string().replacen("://", &format!("://{user}@"), 1),
            None => url.to_string(),
        };
        Self::checked(user, host, url.url().port(), path, shown)
    }

    /// Parses `[user@]host:path`. A port or an address with colons needs brackets: `[host:port]:path`,
    /// `user@[::1]:path`. `None` for a text that Git takes for a local path.
    ///
    /// # Errors
    /// The same as for [`from_url`](Self::from_url).
    pub fn from_scp(text: &str) -> Option<Result<Self>> {
        // With a slash before the first colon, it is a local path (`url_is_local_not_ssh`).
        let (before, _) = text.split_once(':')?;
        if before.is_empty() || before.contains('/') || text.contains("://") {
            return None;
        }
        Some(Self::scp(text))
    }

    fn scp(text: &str) -> Result<Self> {
        let bracket = if text.starts_with('[') { Some(0) } else { text.find("@[").map(|at| at + 1) };
        let close = bracket.and_then(|open| Some((open, open + text[open..].find(']')?)));
        let (place, path) = text[close.map_or(0, |(_, close)| close)..].split_once(':').unwrap_or_default();
        // The user may be before or inside the brackets.
        let (before, inner, after) = match close {
            Some((open, close)) => (&text[..open], &text[open + 1..close], place.trim_start_matches(']')),
            None => ("", place, ""),
        };
        let (user, inner) = match (before.strip_suffix('@'), inner.rsplit_once('@')) {
            (Some(user), _) => (Some(user), inner),
            (None, Some((user, inner))) => (Some(user), inner),
            (None, None) => (None, inner),
        };
        // An IPv6 address, which has more than one colon, is not a host with a port.
        let (host, port) = match inner.split_once(':') {
            Some((host, port)) if close.is_some() && !port.contains(':') => {
                (host, Some(port.parse().map_err(|_| refused(text, "the port is not a number up to 65535"))?))
            }
            _ => (inner, None),
        };
        if !after.is_empty() {
            return Err(refused(text, "unexpected text between the brackets and the path"));
        }
        // The text before this @ is more likely a token than a directory.
        let first = path.split('/').next().unwrap_or_default();
        if close.is_none() && (first.contains('@') || user.is_none() && path.contains('@')) {
            return Err(refused(text, "the text between the first colon and the @ looks like a password"));
        }
        if matches!(inner, "https" | "http" | "ssh" | "file" | "ftp") {
            return Err(refused(text, "the slashes after the scheme are missing"));
        }
        if path.contains('?') {
            let text = text.split('?').next().unwrap_or_default();
            return Err(refused(text, "the path contains a question mark; is https:// missing?"));
        }
        let path = if path.starts_with("/~") { &path[1..] } else { path };
        Self::checked(user.map(str::to_owned), host.to_owned(), port, path, text.to_owned())
    }

    fn checked(user: Option<String>, host: String, port: Option<u16>, path: &str, shown: String) -> Result<Self> {
        // ssh does not support a password in the scp form.
        let user = user.unwrap_or_default();
        let (user, secret) = user.split_once(':').unwrap_or((&user, ""));
        let user = if user.is_empty() { USER } else { user }.to_owned();
        let shown = if secret.is_empty() { shown } else { shown.replacen(&format!(":{secret}@"), "@", 1) };
        let odd = |text: &str| text.chars().any(|c| c.is_whitespace() || c.is_control());
        if host.is_empty() {
            return Err(refused(&shown, "the host is missing"));
        }
        if path.is_empty() || path == "/" {
            return Err(refused(&shown, "the path is missing"));
        }
        // A program may take it for a flag.
        if [user.as_str(), host.as_str(), path].iter().any(|part| part.starts_with('-')) {
            return Err(refused(&shown, "a user, host or path cannot start with a hyphen"));
        }
        if odd(&user)
            || odd(&host)
            || user.contains(['/', '@'])
            || host.contains(['/', '@', ','])
            || path.contains(char::is_control)
        {
            return Err(refused(&shown, "it contains characters that are invalid in an address"));
        }
        let host = host.to_lowercase();
        Ok(Self { user, host, port: port.unwrap_or(SSH_PORT), path: path.to_owned(), shown })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The address of another repository for the same user on the same host.
    pub(crate) fn at(&self, path: &str) -> Result<Self> {
        let refused = || refused(&self.shown, "podstrap cannot resolve the relative URL of a submodule against it");
        if let Ok(url) = self.shown.parse::<RemoteUrl>()
            && self.shown.contains("://")
        {
            let mut target = url.url().clone();
            target.set_path(&if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
            return Self::from_url(&RemoteUrl::at(target, url.userinfo().cloned()));
        }
        let (place, _) = self.shown.rsplit_once(':').ok_or_else(refused)?;
        // The path itself may contain a colon.
        let place =
            self.shown.strip_suffix(self.path.as_str()).and_then(|place| place.strip_suffix(':')).unwrap_or(place);
        Self::from_scp(&format!("{place}:{path}")).ok_or_else(refused)?
    }

    /// The host as in `known_hosts`: `host`, or `[host]:port` for a port other than 22.
    pub(crate) fn known_as(&self) -> String {
        if self.port == SSH_PORT { self.host.clone() } else { format!("[{}]:{}", self.host, self.port) }
    }

    /// A program for the repository, for the server's shell. Quotes the path as Git does (`sq_quote_buf` in quote.c).
    pub(crate) fn command(&self, program: &str) -> String {
        let path = self.path.replace('\'', r"'\''").replace('!', r"'\!'");
        format!("{program} '{path}'")
    }
}

fn refused(shown: &str, why: &str) -> Error {
    let shown = shown.rsplit_once('@').map_or_else(|| shown.to_owned(), |(_, place)| format!("***@{place}"));
    Error::usage(format!("--repo {shown} is not a valid SSH address of a repository"))
        .because(why)
        .hint("write ssh://git@host:22/path, or git@host:path, where path is absolute or relative to the user's home")
}

/// An accepted address has a host, a user and a path, none of which looks like a flag. It shows no
/// password, and the command contains only the path.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let said = text.replace(char::is_control, "").contains("s3cretX");
    let from_url =
        |text: &str| Some(Ssh::from_url(&text.parse().ok().filter(|url: &RemoteUrl| url.url().scheme() == "ssh")?));
    for text in [text.to_owned(), format!("me:s3cretX@{text}"), format!("ssh://me:s3cretX@{text}")] {
        match Ssh::from_scp(&text).or_else(|| from_url(&text)) {
            Some(Ok(ssh)) => {
                assert!(!ssh.host.is_empty() && !ssh.user.is_empty() && !ssh.path.is_empty());
                assert!([&ssh.host, &ssh.user, &ssh.path].iter().all(|part| !part.starts_with('-')), "{ssh:?}");
                assert!(!format!("{ssh} {ssh:?}").contains("s3cretX") || said, "{ssh:?}");
                let quoted = ssh.command("git-upload-pack");
                let quoted = quoted.strip_prefix("git-upload-pack '").and_then(|rest| rest.strip_suffix('\''));
                let plain = quoted.map(|path| path.replace(r"'\''", "\0").replace(r"'\!'", "\u{1}"));
                assert!(plain.is_some_and(|path| !path.contains(['\'', '!'])), "{ssh:?}");
            }
            Some(Err(error)) => assert!(!error.to_string().contains("s3cretX") || said, "{error}"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Ssh> {
        Ssh::from_url(&text.parse().unwrap())
    }

    fn parts(ssh: &Ssh) -> (&str, &str, u16, &str) {
        (&ssh.user, &ssh.host, ssh.port, &ssh.path)
    }

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        for (text, wanted) in [
            ("ssh://host/srv/app.git", ("git", "host", 22, "/srv/app.git")),
            ("ssh://me@Host:2222/srv/app.git", ("me", "host", 2222, "/srv/app.git")),
            ("ssh://host/~ada/app.git", ("git", "host", 22, "~ada/app.git")),
            ("ssh://me@[::1]:22/a", ("me", "::1", 22, "/a")),
            ("ssh://:s3cret@host/a", ("git", "host", 22, "/a")),
            ("ssh://host/a%20b%3Fc", ("git", "host", 22, "/a b?c")),
        ] {
            assert_eq!(parts(&url(text).unwrap()), wanted, "{text}");
        }
        for (text, wanted) in [
            ("host:app.git", ("git", "host", 22, "app.git")),
            ("me@host:/srv/app.git", ("me", "host", 22, "/srv/app.git")),
            ("me@host:~ada/app.git", ("me", "host", 22, "~ada/app.git")),
            ("me@host:/~ada/app.git", ("me", "host", 22, "~ada/app.git")),
            ("[::1]:app.git", ("git", "::1", 22, "app.git")),
            ("me@[::1]:app.git", ("me", "::1", 22, "app.git")),
            ("[me@::1]:app.git", ("me", "::1", 22, "app.git")),
            ("[host:2222]:app.git", ("git", "host", 2222, "app.git")),
            ("[me@host:2222]:app.git", ("me", "host", 2222, "app.git")),
            ("@host:app.git", ("git", "host", 22, "app.git")),
            ("[@host]:app.git", ("git", "host", 22, "app.git")),
            ("[:@host]:app.git", ("git", "host", 22, "app.git")),
            ("[:s3cret@host]:app.git", ("git", "host", 22, "app.git")),
            ("me@[host:2222]:/a:b", ("me", "host", 2222, "/a:b")),
            ("host:2222/app.git", ("git", "host", 22, "2222/app.git")),
        ] {
            assert_eq!(parts(&Ssh::from_scp(text).unwrap().unwrap()), wanted, "{text}");
        }
        for text in ["./host:path", "/srv/app.git", "app", ":path", "dir/[::1]:x", "https://host/x"] {
            assert!(Ssh::from_scp(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_or_poses_as_a_flag_is_refused() {
        for text in [
            "ssh://-oProxyCommand=x/a",
            "ssh://host",
            "ssh://host/",
            "ssh:///a",
            "ssh://-l@host/a",
            "ssh://host/a?b",
            "ssh://host/a#b",
        ] {
            url(text).unwrap_err();
        }
        for text in [
            "-oProxyCommand=x:a",
            "host:",
            "-l@host:a",
            "https:/me:to/ken@host/x.git",
            "me:to/ken@host/x.git",
            "https:host/x",
            "host:80/x?token=y",
            "host:-a",
            "a b:c",
            "[host:99999]:a",
            "[host]x:a",
            "@:a",
        ] {
            Ssh::from_scp(text).unwrap().unwrap_err();
        }
        insta::assert_snapshot!(Ssh::from_scp("host:").unwrap().unwrap_err(), @r"
        error: --repo host: is not a valid SSH address of a repository
          because: the path is missing
        hint: write ssh://git@host:22/path, or git@host:path, where path is absolute or relative to the user's home
        ");
    }

    #[test]
    fn it_is_shown_as_it_was_typed_but_for_a_password() {
        for text in ["ssh://me@host:2222/a.git", "ssh://host/a.git"] {
            assert_eq!(url(text).unwrap().to_string(), text);
        }
        assert_eq!(url("ssh://me:s3cret@host/a").unwrap().to_string(), "ssh://me@host/a");
        let ssh = |text: &str| Ssh::from_scp(text).unwrap().unwrap();
        assert_eq!(ssh("me@[::1]:a.git").to_string(), "me@[::1]:a.git");
        assert_eq!(ssh("[:s3cret@host]:a.git").to_string(), "[@host]:a.git");
    }

    #[test]
    fn the_command_names_one_path() {
        let command = |path: &str| Ssh::from_scp(&format!("host:{path}")).unwrap().unwrap().command("git-upload-pack");
        assert_eq!(command("a b;c"), "git-upload-pack 'a b;c'");
        assert_eq!(command("it's!"), r"git-upload-pack 'it'\''s'\!''");
    }

    #[test]
    fn known_hosts_names_the_port_if_it_is_another() {
        let ssh = url("ssh://host:2222/a").unwrap();
        assert_eq!(ssh.known_as(), "[host]:2222");
        assert_eq!(url("ssh://host:22/a").unwrap().known_as(), "host");
    }
}
