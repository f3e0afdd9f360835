//! Keeps secrets and control sequences out of all output.
//!
//! [`Secret`] and [`RemoteUrl`] cannot print their secrets. [`clean`] is for text from elsewhere (a
//! server's answer, pip's output): its URLs may contain passwords, and its bytes may move the
//! terminal's cursor.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// A password or token. Neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The secret, only for the request that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The user name and password of a URL. `Debug` shows neither, because the user name may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Userinfo {
    pub username: String,
    pub password: Secret,
}

impl fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL and, in a separate field, its userinfo. `Display`, `Debug` and [`url`](Self::url) never show that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    url: Url,
    userinfo: Option<Userinfo>,
}

impl RemoteUrl {
    pub fn url(&self) -> &Url {
        &self.url
    }
    pub fn userinfo(&self) -> Option<&Userinfo> {
        self.userinfo.as_ref()
    }
    /// Combines a URL that has no userinfo with the userinfo of another URL.
    pub fn at(url: Url, userinfo: Option<Userinfo>) -> Self {
        Self { url, userinfo }
    }
    /// Removes the fragment.
    #[must_use]
    pub fn without_fragment(mut self) -> Self {
        self.url.set_fragment(None);
        self
    }
}

impl FromStr for RemoteUrl {
    type Err = url::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut url = Url::parse(text)?;
        let decode = |part: &str| percent_decode(part);
        let userinfo = (!url.username().is_empty() || url.password().is_some()).then(|| Userinfo {
            username: decode(url.username()),
            password: Secret::new(decode(url.password().unwrap_or_default())),
        });
        // Both calls fail only for URLs that cannot have userinfo.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, userinfo })
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.url.query().is_none() && self.url.fragment().is_none() {
            return self.url.fmt(f);
        }
        // A query may contain a token.
        let mut shown = self.url.clone();
        shown.set_fragment(None);
        if shown.query().is_some() {
            shown.set_query(Some("***"));
        }
        shown.fmt(f)
    }
}

/// The login in the first URL of a text.
pub fn login_in(text: &str) -> Option<Userinfo> {
    let start = text.find("http://").or_else(|| text.find("https://"))?;
    let url = text[start..].split_whitespace().next()?;
    url.parse::<RemoteUrl>().ok()?.userinfo
}

/// A URL without its userinfo and query.
pub fn shown(url: &str) -> String {
    match url.parse::<RemoteUrl>() {
        Ok(parsed) if parsed.url().has_host() || parsed.url().scheme() == "file" => parsed.to_string(),
        _ => shown_line(url),
    }
}

/// A line without the userinfo of its URL. If that is no valid URL up to the last `@`, everything before the `@` may be a
/// password, also white space.
pub fn shown_line(text: &str) -> String {
    let Some(mark) = text.find("://") else { return clean(text) };
    let Some(last) = text.rfind('@').filter(|last| *last > mark) else { return clean(text) };
    let start = start_of_scheme(&text[..mark]);
    let end = text[start..].find(char::is_whitespace).map_or(text.len(), |end| start + end);
    if last < end && text[start..end].parse::<RemoteUrl>().is_ok() {
        return clean(text);
    }
    clean(&format!("{}***{}", &text[..mark + "://".len()], &text[last..]))
}

/// The offset of the scheme at the end of a text.
fn start_of_scheme(text: &str) -> usize {
    let before = text.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "+.-".contains(c));
    before.len()
}

/// The URL in a text, from its scheme on.
pub fn url_in(text: &str) -> Option<&str> {
    Some(&text[start_of_scheme(&text[..text.find("://")?])..])
}

/// Whether a URL seems to contain a login whose special characters are not escaped: everything before its last `@`
/// would then be a secret, and its host a part of the secret. `None` if it does not, else its scheme.
///
/// The authority of a URL ends at the first `/`, `?` or `#`. An `@` behind it is
/// - in a query or a fragment: part of a login. There, `%40` means the same.
/// - behind an authority that is none, because its port is not a number (`user:pass/word@host`): part of a login.
/// - in a path with another `/` behind the `@` (`to/ken@host/app.git`): part of a login, except for a scope
///   (`host.example/@scope/x`) and the revision of a repository (`git+https://host.example/x@feature/y`,
///   `git+http://host/x.git@feature/y`).
/// - at the end of a path (`host/x.git@v1`, `host/x@1.2.tar.gz`): a revision or a version, except before a port
///   (`user:p@ss/word@host:3128`).
pub fn bare_login(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.rsplit(|c: char| !(c.is_ascii_alphanumeric() || "+.-".contains(c))).next()?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = tail.split(['?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let found = tail[path.len()..].contains('@')
        || !is_place(host) && tail.contains('@')
        || path.rsplit_once('@').is_some_and(|(before, after)| {
            let public = host.contains('.') || host.starts_with('[');
            let last = before.rsplit('/').next().unwrap_or_default();
            let revision = scheme.contains('+') && (public || last.strip_suffix(".git").is_some());
            let scope = public && last.is_empty();
            let port = after.rsplit_once(':').is_some_and(|(_, port)| is_port(port));
            if after.contains('/') { !(revision || scope) } else { port && !revision }
        });
    found.then_some(scheme)
}

/// Whether it is a host, with or without a port.
fn is_place(text: &str) -> bool {
    text.starts_with('[') || text.split_once(':').is_none_or(|(_, port)| port.is_empty() || is_port(port))
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decodes the `%` escapes of a part of a URL.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = hex {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Makes foreign text safe to print. Removes terminal sequences and control characters, except line
/// feeds and tabs, and hides the userinfo of `scheme://user:password@`. Cleaned text stays the same when cleaned again:
/// hidden userinfo of a URL in the path of another URL may show that the other one contains a login, too.
pub fn clean(text: &str) -> String {
    let mut text = strip_controls(text);
    loop {
        // Ends, because each change leaves fewer `://` without a `***@` behind it, or fewer `@`.
        let hidden = hide_userinfo(&text);
        if hidden == text {
            return hidden;
        }
        text = hidden;
    }
}

fn strip_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: parameters, then one final byte (ECMA-48, 5.4).
                Some('[') => {
                    for c in chars.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&c) {
                            break;
                        }
                    }
                }
                // OSC, DCS, SOS, PM and APC end with BEL or ESC \.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\n' | '\t' => out.push(c),
            c if is_hidden(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Whether a terminal obeys a character instead of showing it: a control character, or a bidirectional override, which
/// can disguise text.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn hide_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        // A URL in a text ends at white space, because a password may contain a quote; its authority at a slash, question
        // mark or hash. A password may contain an unescaped @, so use the last one.
        let whole = tail.find(char::is_whitespace).unwrap_or(tail.len());
        let scheme = head
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || "+.-:/".contains(c)))
            .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
        let end = match bare_login(&rest[scheme..at + 3 + whole]) {
            Some(_) => whole,
            None => tail[..whole].find(['/', '?', '#']).unwrap_or(whole),
        };
        match tail[..end].rfind('@') {
            // Every Git host uses the user `git` for SSH, so it is not a secret.
            Some(3) if tail.starts_with("git@") => {
                out.push_str("git@");
                rest = &tail[4..];
            }
            Some(at) => {
                out.push_str("***@");
                rest = &tail[at + 1..];
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

/// Cleaned text has no control characters and no password, and stays the same when cleaned again.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let cleaned = clean(&text);
    assert!(!cleaned.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{cleaned:?}");
    assert_eq!(clean(&cleaned), cleaned);
    // Text before, in and after a password. White space ends a URL in a text.
    let mut parts = text.splitn(3, '|');
    let mut part = || parts.next().unwrap_or_default();
    let (before, after) = (part(), part());
    let within: String = part().chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let cleaned = clean(&format!("{before} https://me:s3cr{within}t@host/{after}"));
    let plain = |text: &str| !text.contains('\u{1b}') && !text.contains("://");
    if ![&clean(before), &within, &clean(after)].iter().any(|text| text.contains("s3cr"))
        && plain(before)
        && plain(&within)
    {
        assert!(!cleaned.contains("s3cr"), "{cleaned:?}");
    }
    if let Ok(url) = text.parse::<RemoteUrl>() {
        let again: RemoteUrl = url.url().as_str().parse().expect("it was one");
        // The `url` crate loses the host of file://host/c:/ when it parses it again.
        assert!(again.userinfo().is_none() && (again.url() == url.url() || url.url().scheme() == "file"), "{url}");
        for secret in url.userinfo().iter().flat_map(|info| [info.username.as_str(), info.password.reveal()]) {
            let shown = format!("{url} {url:?}");
            // Skip short secrets and those that the rest of the URL contains as well.
            let elsewhere = format!("{} {:?}", url.url(), url.url());
            assert!(secret.len() <= 8 || !shown.contains(secret) || elsewhere.contains(secret), "{shown}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_url_never_prints_its_secrets() {
        let remote: RemoteUrl = "https://u%40x:p%3Aw@host:8443/a.git?token=abc".parse().unwrap();
        let shown = format!("{remote} {remote:?} {}", remote.url());
        assert!(!shown.contains("p%3Aw") && !shown.contains("p:w"), "{shown}");
        assert!(!shown.contains("u@x") && !shown.contains("u%40x"), "{shown}");
        assert_eq!(remote.to_string(), "https://host:8443/a.git?***");
        let userinfo = remote.userinfo().unwrap();
        assert_eq!((userinfo.username.as_str(), userinfo.password.reveal()), ("u@x", "p:w"));
    }

    #[test]
    fn clean_hides_userinfo_and_escapes() {
        assert_eq!(
            clean("Looking at https://me:to@ken@host/simple, \u{1b}]0;title\u{7}ok\u{1b}[1m!\r\n"),
            "Looking at https://***@host/simple, ok!\n"
        );
        assert_eq!(clean("git+ssh://git@host/x and a@b"), "git+ssh://git@host/x and a@b");
        assert_eq!(
            clean("ssh://git:pw@host/x ssh://gitx@host ssh://git@x@host"),
            "ssh://***@host/x ssh://***@host ssh://***@host"
        );
    }

    #[test]
    fn cleaned_text_stays_the_same() {
        for text in [
            "x://.gb/q:/%40x:3://@host:8886/a.s://.gbc",
            "git+http://h/c://x.git@y/z",
            "a://b/c://d/e://f@g/h@i:1/j",
            "a://b.c/@d/e://f@g",
        ] {
            let cleaned = clean(text);
            assert_eq!(clean(&cleaned), cleaned, "{text}");
        }
        assert_eq!(clean("https://host.example/@scope/x"), "https://host.example/@scope/x");
    }

    #[test]
    fn a_password_with_a_bare_slash_is_hidden_and_a_path_with_an_at_is_not() {
        for url in [
            "https://me:to/ken@host/x",
            "https://me:to?ken@host/x",
            "https://me:to#k/en@host/x",
            "https://me:a:1/x@host/x",
        ] {
            assert_eq!(clean(url), "https://***@host/x");
        }
        for url in [
            "https://me:to\"k'e`n<x>@host/x",
            "https://me:to\"k/en@host/x",
            "https://to\"ken@host/x",
            "https://me:to\"ken@host:port/x",
        ] {
            assert_eq!(clean(url), format!("https://***@{}", url.rsplit('@').next().unwrap()));
        }
        for url in
            ["https://host:8443/x@v1", "https://host.example/@scope/x", "https://[::1]/x@v1", "https://host: a@b"]
        {
            assert_eq!(clean(url), url);
        }
    }

    #[test]
    fn a_line_shows_no_password_of_an_invalid_url() {
        for (text, wanted) in [
            ("--index-url https://u:p\"w@host:port/simple", "--index-url https://***@host:port/simple"),
            ("-i 'https://u:p w@host:port/simple'", "-i 'https://***@host:port/simple'"),
            ("-i https://to ken@host/simple", "-i https://***@host/simple"),
            ("a:b://u:p w@host", "a:b://***@host"),
            ("x @ https://u:pw@host/x.git@v1;b", "x @ https://***@host/x.git@v1;b"),
            ("x @ git+https://host/x.git@v1;b", "x @ git+https://host/x.git@v1;b"),
            ("file:///srv/a@b", "file:///srv/a@b"),
            ("a@b.example says https://host:port/x", "a@b.example says https://host:port/x"),
        ] {
            assert_eq!(shown_line(text), wanted);
        }
        assert_eq!(shown("https://to ken@host/simple"), "https://host/simple");
        assert_eq!(shown("https://u:p\"w@host:port/simple"), "https://***@host:port/simple");
        assert_eq!(url_in("corp=https://host/x"), Some("https://host/x"));
    }

    #[test]
    fn a_login_that_is_not_escaped_is_told_from_an_at_in_a_path() {
        for url in [
            "http://user:12#34@H/a.git",
            "http://s3cr/et@H/a.git",
            "http://user:p@ss/w@H:1",
            "http://user:p@ss/w@H/a.git",
            "https://user:pass/word@host.example/a",
            "https://user:pass?word@host.example",
            "https://tok?en@host.example/a.git",
            "https://tok#en@host.example/a.git",
            "https://first.last:12/34@host.example/a.git",
            "git+https://user:pass/word@host/x.git@v1",
            "git+https://s3cr/et@host.example/x.git",
            "git+https://user:12#34@host/x.git@v1#egg=x",
            "ssh://git:pa/ss@host/x.git",
            "https://host.example/x?by=me@host",
            "https://[::1]/a?b@c",
        ] {
            assert!(bare_login(url).is_some(), "{url}");
            let shown = clean(url);
            assert!(
                !["12", "34", "s3cr", "et@", "pass", "word", "w@", "tok", "en@"]
                    .iter()
                    .any(|part| shown.contains(part)),
                "{shown}"
            );
        }
        for url in [
            "https://host/a.git",
            "https://user:p%40ss@host/a.git",
            "https://user:p@ss@host/a.git",
            "https://host/pkg@1.2.tar.gz",
            "https://host:8443/pkg@1.2.tar.gz#sha256=ab",
            "https://user:pw@host/x.git@v1.0",
            "git+https://host/x.git@v1.0",
            "git+https://github.com/org/x@feature/y#egg=x",
            "git+http://gitea:3000/org/x.git@feature/y",
            "git+ssh://git@host/x.git@v1",
            "git+ssh://git@host.example:2222/x.git@v1#subdirectory=a",
            "https://registry.example/@scope/x/-/x-1.tgz",
            "https://[::1]:8443/x@v1",
            "git@host:path",
            "git@host:a@b",
            "name @ https://host/x.whl",
            "./lib@2",
            "file:///srv/a@b.git",
        ] {
            assert_eq!(bare_login(url), None, "{url}");
        }
        assert_eq!(bare_login("x @ git+https://a:b/c@host/x"), Some("git+https"));
    }
}
