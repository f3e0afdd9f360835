//! Reads credentials from the files of `--auth`, as Kubernetes mounts them. Their contents decide their kind.
//!
//! | path | credentials |
//! |---|---|
//! | a directory | the keys of a GitHub App ([`app`](super::app)); `username` and `password`, as in a kubernetes.io/basic-auth Secret; private keys and `known_hosts`, as in a kubernetes.io/ssh-auth one; `token`; `netrc` or `.netrc`; `.dockerconfigjson` or `config.json` |
//! | a file | a private key in PEM, a netrc, a `known_hosts`, Docker's configuration; any other file of one word is a token |
//!
//! A login or a token is for the scheme, host and port of the URL that the user gave. A netrc (the format of
//! curl(1), `--netrc`) is for the hosts that it names, and so is Docker's configuration, which only registries use. podstrap reads everything again for each try: a Secret
//! may have been renewed meanwhile.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::redact::{RemoteUrl, Secret, Userinfo};
use crate::source::access::app::{self, App};

/// The largest file, in bytes: Kubernetes' limit for a Secret.
const FILE_MAX: u64 = 1 << 20;
/// The user name for a password without one. Hosts that take a token as a password ignore the name.
const NOBODY: &str = "git";
/// The start of a private key in PEM, of any kind (RFC 7468).
const PEM: &str = "-----BEGIN ";
/// Number of directory entries in a message.
const NAMED: usize = 8;

/// The hint for missing SSH keys.
pub(crate) const GIVE_KEYS: &str = "give --auth the Secret's directory, with ssh-privatekey and known_hosts \
                                    (kubernetes.io/ssh-auth), or the files themselves";

/// The credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Basic(Userinfo),
    /// RFC 6750.
    Bearer(Secret),
}

impl Login {
    /// The value of the header (RFC 9110, 11.6.2).
    pub(crate) fn header(&self) -> String {
        match self {
            Self::Basic(Userinfo { username, password }) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{}", password.reveal())))
            }
            Self::Bearer(token) => format!("Bearer {}", token.reveal()),
        }
    }
}

/// A login and its origin, for messages: `the URL`, `--auth /secrets/git`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) login: Login,
    pub(crate) from: String,
}

/// SSH keys and known hosts, not parsed yet.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) private: Vec<(PathBuf, Secret)>,
    pub(crate) known_hosts: Vec<(PathBuf, Vec<u8>)>,
}

/// The contents of all files.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    login: Option<Credential>,
    netrc: Vec<(Machine, String)>,
    registries: Vec<RegistryLogin>,
    apps: Vec<App>,
    pub(crate) keys: Keys,
}

/// An entry of a netrc. One without a name is for every host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Machine {
    name: Option<String>,
    username: String,
    password: Option<Secret>,
}

/// An entry of Docker's configuration.
#[derive(Debug)]
struct RegistryLogin {
    /// `HOST`, `HOST:PORT`, or with a path behind it.
    place: String,
    login: Usable,
    from: String,
}

/// A login, or why podstrap cannot use it.
type Usable = Result<Userinfo, &'static str>;

impl Auth {
    /// # Errors
    /// A path is unreadable or has no credentials.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut auth = Self::default();
        for path in paths {
            let from = format!("--auth {}", path.display());
            let found = if files::is_dir(path)? { auth.directory(path, &from)? } else { auth.file(path, &from)? };
            if !found {
                return Err(nothing(path, &from));
            }
        }
        if let Some(Credential { login: Login::Bearer(token), from }) = &auth.login
            && (token.reveal().is_empty() || !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Error::usage(format!("{from}: invalid token"))
                .because("it is empty, or contains white space or other special characters")
                .hint("write only the token to the file"));
        }
        Ok(auth)
    }

    /// The credentials for a request to `url`, made on behalf of `site`. `home` is the URL that the user gave;
    /// `site` may be one of its submodules.
    pub(crate) fn of(&self, url: &Url, site: &RemoteUrl, home: Option<&RemoteUrl>) -> Option<Credential> {
        let is_here = |place: &&RemoteUrl| place.url().origin() == url.origin();
        let wanted = home;
        let home = home.filter(is_here);
        let at_home = home.is_some();
        let named = Some(site).filter(is_here).and_then(RemoteUrl::userinfo).or(home.and_then(RemoteUrl::userinfo));
        // Only the URL that the user gave allows a password in clear text, and decides the host of `default`.
        let in_clear = url.scheme() != "https" && wanted.is_none_or(|wanted| wanted.url().scheme() != "http");
        let at_host = wanted.is_some_and(|wanted| wanted.url().host_str() == url.host_str());
        let netrc = || {
            let fits = |machine: &Machine| machine.is_for(url.host_str(), named) && (machine.name.is_some() || at_host);
            let machine = self.netrc.iter().find(|(machine, _)| !in_clear && fits(machine))?;
            let (Machine { username, password, .. }, from) = machine;
            let password = password.clone()?;
            Some(Credential {
                login: Login::Basic(Userinfo { username: username.clone(), password }),
                from: from.clone(),
            })
        };
        // A name without a password is used only if there is no other login.
        let whole = named.filter(|userinfo| !userinfo.password.reveal().is_empty());
        let of_url = |userinfo: &Userinfo| Credential { login: Login::Basic(userinfo.clone()), from: "the URL".into() };
        whole
            .map(of_url)
            .or_else(|| self.login.clone().filter(|_| at_home))
            .or_else(netrc)
            .or_else(|| named.map(of_url))
    }

    /// The GitHub Apps. Each is the login for its host as soon as it has a token.
    pub(crate) fn apps(&self) -> &[App] {
        &self.apps
    }

    /// The login of a netrc for a host that it names, whatever the scheme.
    pub(crate) fn named(&self, url: &Url) -> Option<Credential> {
        let fits = |machine: &Machine| machine.name.is_some() && machine.is_for(url.host_str(), None);
        let (Machine { username, password, .. }, from) = self.netrc.iter().find(|(machine, _)| fits(machine))?;
        let login = Login::Basic(Userinfo { username: username.clone(), password: password.clone()? });
        Some(Credential { login, from: from.clone() })
    }

    /// The login for a registry, or for a server that hands out its tokens. `repository` is empty for the latter.
    ///
    /// # Errors
    /// Usage: Docker's configuration names a login that podstrap cannot use.
    pub(crate) fn registry(&self, url: &Url, repository: &str) -> Result<Option<Credential>> {
        let most_specific = self
            .registries
            .iter()
            .filter_map(|entry| Some((entry.fits(url, repository)?, entry)))
            .rev()
            .max_by_key(|(length, _)| *length);
        match most_specific {
            Some((_, RegistryLogin { login: Ok(login), from, .. })) => {
                Ok(Some(Credential { login: Login::Basic(login.clone()), from: from.clone() }))
            }
            Some((_, RegistryLogin { place, login: Err(why), from })) => {
                Err(Error::usage(format!("{from} has no usable login for {place}")).because((*why).to_owned()).hint(
                    "make the Secret with `kubectl create secret docker-registry`, which saves the user name and the \
                     password",
                ))
            }
            None => Ok(self.named(url)),
        }
    }

    /// The logins of a netrc for the hosts that it names. For each host, the first one applies.
    pub(crate) fn machines(self) -> Vec<(String, Userinfo)> {
        let named = self.netrc.into_iter().filter_map(|(machine, _)| {
            Some((machine.name?, Userinfo { username: machine.username, password: machine.password? }))
        });
        named.collect()
    }

    /// All secrets. A token, and a line of each private key, have no user name.
    pub(crate) fn secrets(self) -> Vec<Userinfo> {
        let alone = |password| Userinfo { username: String::new(), password };
        let login = self.login.iter().map(|credential| match &credential.login {
            Login::Basic(userinfo) => userinfo.clone(),
            Login::Bearer(token) => alone(token.clone()),
        });
        let line = |key: &Secret| key.reveal().lines().max_by_key(|line| line.len()).map(Secret::new);
        let keys = self.keys.private.iter().filter_map(|(_, key)| line(key)).map(alone);
        let registries = self.registries.iter().filter_map(|entry| entry.login.as_ref().ok().cloned());
        let apps = self.apps.iter().flat_map(App::secrets);
        let found: Vec<Userinfo> = login.chain(keys).chain(registries).chain(apps).collect();
        let named = self
            .netrc
            .into_iter()
            .filter_map(|(machine, _)| Some(Userinfo { username: machine.username, password: machine.password? }));
        found.into_iter().chain(named).collect()
    }

    fn directory(&mut self, dir: &Path, from: &str) -> Result<bool> {
        let names = ["username", "password", "token"];
        let [username, password, token] = names.map(|name| {
            let path = dir.join(name);
            if files::exists(&path)? { read(&path, from).map(|bytes| Some(line(&bytes))) } else { Ok(None) }
        });
        let (username, password, token) = (username?, password?, token?);
        let basic = username.is_some() || password.is_some();
        let app = App::read(dir, from, |path| {
            if files::exists(path)? { read(path, from).map(|bytes| Some(line(&bytes))) } else { Ok(None) }
        })?;
        let mut found = basic || token.is_some() || app.is_some();
        if let Some(app) = app {
            if let Some(Userinfo { username, password }) = app.login() {
                let machine = Machine { name: Some(app.host()), username, password: Some(password) };
                self.netrc.push((machine, from.to_owned()));
            }
            self.apps.push(app);
        }
        if basic {
            let username = username.unwrap_or_else(|| NOBODY.to_owned());
            let password = Secret::new(password.unwrap_or_default());
            self.log_in(Login::Basic(Userinfo { username, password }), from);
        }
        if let Some(token) = token {
            self.log_in(Login::Bearer(Secret::new(token)), from);
        }
        for path in entries(dir).map_err(|error| unreadable(dir, from, &error))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if names.contains(&&*name) || name == app::KEY || name.starts_with("..") || !files::is_file(&path)? {
                continue;
            }
            let bytes = read(&path, from)?;
            match &*name {
                "netrc" | ".netrc" => self.netrc(&bytes, &path, from)?,
                ".dockerconfigjson" | "config.json" if self.docker(&bytes, &path, from)? => {}
                "known_hosts" => self.keys.known_hosts.push((path, bytes)),
                _ if is_private_key(&bytes) => self.private_key(path, &bytes),
                _ => continue,
            }
            found = true;
        }
        Ok(found)
    }

    fn file(&mut self, path: &Path, from: &str) -> Result<bool> {
        let bytes = read(path, from)?;
        let text = String::from_utf8_lossy(&bytes);
        let first = text.split_whitespace().next();
        if is_private_key(&bytes) {
            self.private_key(path.to_owned(), &bytes);
        } else if self.docker(&bytes, path, from)? {
        } else if text.lines().any(is_known_host) {
            self.keys.known_hosts.push((path.to_owned(), bytes));
        } else if text.split_whitespace().any(|word| word == "machine" || word == "default") {
            self.netrc(&bytes, path, from)?;
        } else if let (Some(token), 1) = (first, text.split_whitespace().count()) {
            self.log_in(Login::Bearer(Secret::new(token)), from);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Keeps the first login.
    fn log_in(&mut self, login: Login, from: &str) {
        self.login.get_or_insert_with(|| Credential { login, from: from.to_owned() });
    }

    fn private_key(&mut self, path: PathBuf, bytes: &[u8]) {
        self.keys.private.push((path, Secret::new(String::from_utf8_lossy(bytes))));
    }

    /// False: it is no configuration of Docker.
    fn docker(&mut self, bytes: &[u8], path: &Path, from: &str) -> Result<bool> {
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Ok(false);
        }
        let entries = docker(bytes).map_err(|why| {
            Error::usage(format!("{from}: {} is not a valid configuration of Docker", path.display()))
                .because(why)
                .hint("make the Secret with `kubectl create secret docker-registry`")
        })?;
        let Some(entries) = entries else { return Ok(false) };
        let entry = |(place, login)| RegistryLogin { place, login, from: from.to_owned() };
        self.registries.extend(entries.into_iter().map(entry));
        Ok(true)
    }

    fn netrc(&mut self, bytes: &[u8], path: &Path, from: &str) -> Result<()> {
        let machines = netrc(&String::from_utf8_lossy(bytes)).map_err(|why| {
            Error::usage(format!("{from}: {} is not a valid netrc file", path.display()))
                .because(why)
                .hint("write lines such as: machine git.example login NAME password TOKEN")
        })?;
        self.netrc.extend(machines.into_iter().map(|machine| (machine, from.to_owned())));
        Ok(())
    }
}

impl Machine {
    fn is_for(&self, host: Option<&str>, named: Option<&Userinfo>) -> bool {
        // The last entry may be for all hosts (ftp(1), `default`).
        self.name.as_deref().is_none_or(|name| host.is_some_and(|host| name.eq_ignore_ascii_case(host)))
            && self.password.is_some()
            && named.is_none_or(|userinfo| userinfo.username.is_empty() || userinfo.username == self.username)
    }
}

/// The names of Docker Hub: in its configuration, of its registry, and of the server for its tokens.
const HUB: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io"];

impl RegistryLogin {
    /// The length of the entry's path, if the entry is for this place. As Docker does, ignores the scheme and the path of
    /// an API; as the kubelet does, takes another path as the start of the repository.
    fn fits(&self, url: &Url, repository: &str) -> Option<usize> {
        let place = self.place.split_once("://").map_or(&*self.place, |(_, place)| place);
        let (host, path) = place.split_once('/').unwrap_or((place, ""));
        let own = Url::parse(&format!("{}://{host}/", url.scheme())).ok()?;
        let name = |url: &Url| {
            let host = url.host_str().unwrap_or_default().to_owned();
            if HUB.contains(&&*host) { HUB[0].to_owned() } else { host }
        };
        let path = path.trim_end_matches('/');
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let below = || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let same = name(&own) == name(url) && own.port_or_known_default() == url.port_or_known_default();
        (same && (path.is_empty() || below())).then_some(path.len())
    }
}

/// Parses the configuration of Docker: places and their logins. `None`: it is another JSON file.
fn docker(bytes: &[u8]) -> Result<Option<Vec<(String, Usable)>>, String> {
    const HELPER: &str = "it names a credential helper, which podstrap does not run";
    // Its errors have a line and a column, and no text of the file.
    let config: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let [logins, helpers] = ["auths", "credHelpers"].map(|name| config.get(name).and_then(Value::as_object));
    let has_helper = config.get("credsStore").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if logins.is_none() && helpers.is_none() && !has_helper {
        return Ok(None);
    }
    let mut found: Vec<_> = helpers.into_iter().flatten().map(|(place, _)| (place.clone(), Err(HELPER))).collect();
    for (place, entry) in logins.into_iter().flatten() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let pair = || {
            let decoded = BASE64_STANDARD.decode(text("auth")?.trim()).ok()?;
            let (username, password) = String::from_utf8(decoded).ok()?.split_once(':').map(|(name, password)| {
                // Docker fills the password with zeros.
                (name.to_owned(), password.trim_end_matches('\0').to_owned())
            })?;
            Some(Userinfo { username, password: Secret::new(password) })
        };
        let written =
            || Some(Userinfo { username: text("username")?.to_owned(), password: Secret::new(text("password")?) });
        let login = if text("identitytoken").is_some() || text("registrytoken").is_some() {
            Err("it is an identity token or a registry token, and podstrap needs a user name and a password")
        } else if let Some(login) = written().or_else(pair) {
            Ok(login)
        } else if text("auth").is_some() {
            Err("its `auth` is not NAME:PASSWORD in base64")
        } else if has_helper {
            Err(HELPER)
        } else {
            Err("it has neither `auth` nor `username` and `password`")
        };
        found.push((place.clone(), login));
    }
    Ok(Some(found))
}

/// Parses a netrc: words, quoted or not. A macro ends at an empty line. `#` starts a comment where a keyword
/// could be.
fn netrc(text: &str) -> Result<Vec<Machine>, String> {
    let mut machines: Vec<Machine> = Vec::new();
    let mut rest = text;
    while let Some(keyword) = word(&mut rest)? {
        match &*keyword {
            comment if comment.starts_with('#') => {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            }
            "macdef" => rest = rest.split_once("\n\n").map_or("", |(_, rest)| rest),
            "default" => machines.push(Machine::default()),
            "machine" | "login" | "user" | "password" | "account" => {
                let value = word(&mut rest)?.ok_or_else(|| format!("{keyword} has no value"))?;
                match (&*keyword, machines.last_mut()) {
                    ("machine", _) => machines.push(Machine { name: Some(value), ..Machine::default() }),
                    ("login" | "user", Some(machine)) => machine.username = value,
                    ("password", Some(machine)) => machine.password = Some(Secret::new(value)),
                    (_, Some(_)) => {}
                    (_, None) => return Err(format!("{keyword} comes before the first machine")),
                }
            }
            // Do not show the word: it may be a part of a password.
            _ => return Err("a word is neither a keyword nor a value; quote a password with spaces".to_owned()),
        }
    }
    Ok(machines)
}

/// The next word, if any. In double quotes it may contain any character, with `\` before `"` and `\`.
fn word(rest: &mut &str) -> Result<Option<String>, String> {
    let text = rest.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        *rest = &text[end..];
        return Ok((end > 0).then(|| text[..end].to_owned()));
    };
    let mut word = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &quoted[at + 1..];
                return Ok(Some(word));
            }
            '\\' => word.extend(chars.next().map(|(_, c)| match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c => c,
            })),
            c => word.push(c),
        }
    }
    Err("a quotation mark is missing".to_owned())
}

fn is_private_key(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.trim_start().starts_with(PEM) && text.contains("PRIVATE KEY-----")
}

/// Whether the line is one of a `known_hosts`: hosts, type of the key, the key in base64 (sshd(8)).
fn is_known_host(line: &str) -> bool {
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('@'));
    let kind = |word: &str| word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.starts_with("sk-");
    words.next().is_some() && words.next().is_some_and(kind) && words.next().is_some()
}

/// The value of a file, without the line feed that `echo` appends.
fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches(['\r', '\n']).to_owned()
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // podstrap tries several keys in the order of their names.
    Ok(files::list(dir)?.into_iter().map(|(name, _)| dir.join(name)).collect())
}

const GIVE_SECRET: &str = "give the directory of a mounted Secret, or one of its files";

fn read(path: &Path, from: &str) -> Result<Vec<u8>> {
    let bytes = files::read(path, FILE_MAX).map_err(|error| unreadable(path, from, &error))?;
    // Without the byte order mark that editors on Windows write.
    Ok(bytes.strip_prefix("\u{feff}".as_bytes()).map(<[u8]>::to_vec).unwrap_or(bytes))
}

fn unreadable(path: &Path, from: &str, error: &io::Error) -> Error {
    let made = files::unreadable(Kind::Usage, format!("{from}: cannot read {}", path.display()), error);
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge | io::ErrorKind::IsADirectory => {
            made.hint(GIVE_SECRET)
        }
        io::ErrorKind::NotFound => made.hint("mount the Secret there in this container (volumeMounts)"),
        io::ErrorKind::PermissionDenied => made.hint(format!(
            "set the Pod's fsGroup, or the Secret volume's defaultMode: podstrap runs as uid {}",
            rustix::process::geteuid().as_raw()
        )),
        _ => made,
    }
}

fn nothing(path: &Path, from: &str) -> Error {
    let mut names: Vec<String> = entries(path)
        .unwrap_or_default()
        .iter()
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .filter(|name| !name.starts_with(".."))
        .collect();
    names.truncate(NAMED);
    let holds = match (files::is_dir(path).unwrap_or_default(), names.is_empty()) {
        (true, true) => "the directory is empty".to_owned(),
        (true, false) => format!("it has {}", names.join(", ")),
        (false, _) => {
            "it is neither a token, a netrc, a private key, a known_hosts nor a configuration of Docker".to_owned()
        }
    };
    Error::usage(format!("{from} has no credentials"))
        .because(holds)
        .hint("give a directory with one of: username and password; ssh-privatekey and known_hosts; token; netrc; .dockerconfigjson")
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.from)
    }
}

/// For any input, no message shows a password. A parsed netrc, written again, has the same entries.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(why) = netrc(&format!("machine a login b password s3cretX {text}")) {
        assert!(!why.contains("s3cretX") || text.contains("s3cretX"), "{why}");
    }
    if let Err(why) = docker(format!("{{\"auths\": {{\"a\": {{\"password\": \"s3cretX\"}}}}, {text}").as_bytes()) {
        assert!(!why.contains("s3cretX") || text.contains("s3cretX"), "{why}");
    }
    if let Ok(Some(entries)) = docker(data) {
        let url = Url::parse("https://registry.example/").expect("a URL");
        for (place, login) in entries {
            let _ = RegistryLogin { place, login, from: String::new() }.fits(&url, "team/envs");
        }
    }
    let Ok(machines) = netrc(&text) else { return };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut again = String::new();
    for machine in &machines {
        again += &machine.name.as_ref().map_or("default".to_owned(), |name| format!("machine {}", quoted(name)));
        again += &format!(" login {}", quoted(&machine.username));
        if let Some(password) = &machine.password {
            again += &format!(" password {}", quoted(password.reveal()));
        }
        again.push('\n');
    }
    assert_eq!(netrc(&again).as_ref(), Ok(&machines), "{again}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(text: &str) -> Vec<(Option<String>, String, String)> {
        let of = |machine: Machine| {
            let password = machine.password.map(|password| password.reveal().to_owned());
            (machine.name, machine.username, password.unwrap_or_default())
        };
        netrc(text).unwrap().into_iter().map(of).collect()
    }

    #[test]
    fn a_netrc_is_read_as_its_other_readers_do() {
        let text = "# ours\nmachine a.example login me password to#ken\n\
            machine b.example\n\tlogin \"a b\"\n\tpassword \"x \\\" \\\\ y\"\n\
            macdef init\ncd /\nmachine no login no\n\nmachine c.example account z user u password p default login d password e";
        let entry = |name: Option<&str>, username: &str, password: &str| {
            (name.map(str::to_owned), username.to_owned(), password.to_owned())
        };
        assert_eq!(
            machines(text),
            [
                entry(Some("a.example"), "me", "to#ken"),
                entry(Some("b.example"), "a b", "x \" \\ y"),
                entry(Some("c.example"), "u", "p"),
                entry(None, "d", "e"),
            ]
        );
        for (text, why) in [
            ("machine", "machine has no value"),
            ("login x", "before the first machine"),
            ("machine a login b password two words", "quote a password with spaces"),
            ("machine a password \"x", "quotation mark"),
        ] {
            let error = netrc(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("two"), "{error}");
        }
    }

    fn from(dir: &Path, files: &[(&str, &str)]) -> Result<Auth> {
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::create_dir(dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Auth::read(&[dir.to_owned()])
    }

    fn sent(auth: &Auth, url: &str, home: &str) -> Option<String> {
        let home = home.parse().unwrap();
        let credential = auth.of(&Url::parse(url).unwrap(), &home, Some(&home))?;
        assert!(!format!("{credential:?} {credential} {auth:?}").contains("s3cret"));
        Some(match credential.login {
            Login::Basic(Userinfo { username, password }) => format!("{username}:{}", password.reveal()),
            Login::Bearer(token) => format!("bearer {}", token.reveal()),
        })
    }

    #[test]
    fn a_login_is_for_the_place_that_was_named_and_a_netrc_for_its_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let home = "https://git.example/app.git";
        let basic = from(dir.path(), &[("username", "me\n"), ("password", "s3cret\r\n")]).unwrap();
        assert_eq!(sent(&basic, home, home).as_deref(), Some("me:s3cret"));
        for other in ["https://git.example:444/app.git", "http://git.example/app.git", "https://other.example/app.git"]
        {
            assert_eq!(sent(&basic, other, home), None, "{other}");
        }
        // A login in the URL comes first; a name without a password does not.
        assert_eq!(sent(&basic, home, "https://you:s3cret2@git.example/app.git").as_deref(), Some("you:s3cret2"));
        assert_eq!(sent(&basic, home, "https://you@git.example/app.git").as_deref(), Some("me:s3cret"));
        assert_eq!(sent(&Auth::default(), home, "https://s3cret@git.example/app.git").as_deref(), Some("s3cret:"));

        let password = from(dir.path(), &[("password", "s3cret")]).unwrap();
        assert_eq!(sent(&password, home, home).as_deref(), Some("git:s3cret"));
        let token = from(dir.path(), &[("token", "s3cret\n")]).unwrap();
        assert_eq!(sent(&token, home, home).as_deref(), Some("bearer s3cret"));

        let text = "machine GIT.example login a password s3cret1 machine other.example login b password s3cret2";
        let netrc = from(dir.path(), &[("netrc", text), ("..data", "")]).unwrap();
        assert_eq!(sent(&netrc, home, home).as_deref(), Some("a:s3cret1"));
        assert_eq!(sent(&netrc, "https://other.example/x", home).as_deref(), Some("b:s3cret2"));
        assert_eq!(sent(&netrc, "https://third.example/x", home), None);
        // A password is sent in clear text only if the user's URL allows it, and `default` is for one host.
        assert_eq!(sent(&netrc, "http://other.example/x", home), None);
        assert_eq!(sent(&netrc, "http://other.example/x", "http://git.example/").as_deref(), Some("b:s3cret2"));
        let default = from(dir.path(), &[("netrc", "\u{feff}default login a password s3cret1")]).unwrap();
        assert_eq!(sent(&default, "https://git.example:444/x", home).as_deref(), Some("a:s3cret1"));
        assert_eq!(sent(&default, "https://other.example/x", home), None);
    }

    #[test]
    fn a_login_of_docker_is_for_the_registry_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"auths": {
            "registry.example": {"auth": "bWU6czNjcmV0OjE="},
            "https://registry.example:5000/v2/": {"username": "you", "password": "s3cret2"},
            "registry.example/team": {"auth": "dGVhbTpzM2NyZXQz"},
            "https://index.docker.io/v1/": {"auth": "aHViOnMzY3JldDQ="},
            "azure.example": {"auth": "MDA6", "identitytoken": "s3cret5"},
            "empty.example": {}, "odd.example": {"auth": "s3cret6"}},
            "credHelpers": {"gcr.example": "gcloud"}}"#;
        for name in [".dockerconfigjson", "config.json"] {
            let auth = from(dir.path(), &[(name, config), ("other.json", "{}")]).unwrap();
            let login = |url: &str, repository: &str| {
                let found = auth.registry(&Url::parse(url).unwrap(), repository);
                assert!(!format!("{found:?} {auth:?}").contains("s3cret"));
                found.map_err(|error| error.to_string()).map(|found| match found.map(|found| found.login) {
                    Some(Login::Basic(Userinfo { username, password })) => format!("{username}:{}", password.reveal()),
                    other => format!("{other:?}"),
                })
            };
            for (url, repository, wanted) in [
                ("https://registry.example/v2/", "envs", "me:s3cret:1"),
                ("https://registry.example:443/v2/", "teams/envs", "me:s3cret:1"),
                ("https://REGISTRY.example/v2/", "team/envs", "team:s3cret3"),
                ("https://registry.example:5000/v2/", "team", "you:s3cret2"),
                ("https://registry.example:5001/v2/", "envs", "None"),
                ("https://sub.registry.example/v2/", "envs", "None"),
                ("https://registry-1.docker.io/v2/", "me/envs", "hub:s3cret4"),
                ("https://auth.docker.io/token", "", "hub:s3cret4"),
            ] {
                assert_eq!(login(url, repository).as_deref(), Ok(wanted), "{url} {repository}");
            }
            for (host, why) in [
                ("azure", "identity token"),
                ("gcr", "credential helper"),
                ("empty", "neither `auth`"),
                ("odd", "in base64"),
            ] {
                let error = login(&format!("https://{host}.example/"), "envs").unwrap_err();
                assert!(error.contains(why) && error.contains("hint:"), "{error}");
            }
            assert_eq!(auth.secrets().len(), 4);
        }
        let stored =
            from(dir.path(), &[("config.json", r#"{"auths": {"a.example": {}}, "credsStore": "pass"}"#)]).unwrap();
        let error = stored.registry(&Url::parse("https://a.example/").unwrap(), "").unwrap_err().to_string();
        assert!(error.contains("credential helper"), "{error}");
        let error = from(dir.path(), &[(".dockerconfigjson", "{\"auths\": s3cret}")]).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn files_are_known_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            let path = dir.path().join("file");
            std::fs::write(&path, text).unwrap();
            Auth::read(&[path])
        };
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
        assert_eq!(write(key).unwrap().keys.private.len(), 1);
        assert_eq!(write("# the default machine\n[host]:22 ssh-ed25519 AAAA\n").unwrap().keys.known_hosts.len(), 1);
        assert_eq!(write("machine a login b password c").unwrap().netrc.len(), 1);
        assert!(write("ghp_s3cret\n").unwrap().login.is_some());
        assert_eq!(write("{\"auths\":{\"a\":{}}}").unwrap().registries.len(), 1);
        assert!(write("tok\u{e9}n").unwrap_err().to_string().contains("invalid token"));
        for useless in ["", "two words", "\n"] {
            let error = write(useless).unwrap_err().to_string();
            assert!(error.contains("has no credentials"), "{error}");
        }
        let keys = from(dir.path(), &[("ssh-privatekey", key), ("id_other", key), ("known_hosts", "x"), ("y", "z")]);
        let keys = keys.unwrap().keys;
        assert_eq!((keys.private.len(), keys.known_hosts.len()), (2, 1));
        let error = from(dir.path(), &[("user", "x"), ("pass", "y")]).unwrap_err().to_string();
        assert!(error.contains("it has pass, user"), "{error}");
        let error = Auth::read(&[dir.path().join("no")]).unwrap_err().to_string();
        assert!(error.contains("hint: mount the Secret there"), "{error}");
    }
}
