//! What the user's environment says about installing, read once.
//!
//! Both engines get the same meaning from it. What pip's configuration files and podstrap's own flags
//! say becomes `PIP_*` variables; pip reads these itself, and for uv, which ignores them, one table
//! translates. Passwords in index URLs go into a temporary netrc file first, together with the logins of
//! mounted files: pip hands its index URLs to child processes as arguments, which everyone on the
//! machine can read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustix::fs::{Access, MemfdFlags, memfd_create};

use super::pipconf;
use crate::command::Command;
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::redact::{self, RemoteUrl, Userinfo};
use crate::source;

/// Variables that hold URLs, separated by white space (`UV_FIND_LINKS`: by commas).
const URLS: &[&str] = &[
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
];

/// Variables that name files with versions in them, separated by white space.
const FILES: &[&str] =
    &["PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE"];

/// Variables that name places with archives, separated by white space and by commas.
const LINKS: [&str; 2] = ["PIP_FIND_LINKS", "UV_FIND_LINKS"];

/// In the name of an engine's variable: it is about how something is fetched.
const OF_TRANSPORT: &[&str] = &["CERT", "PROXY"];

/// What uv and Git read in the user's home, and the variable that says where else it is. pip's files are
/// read here.
const IN_HOME: &[(&str, &str)] =
    &[("XDG_CONFIG_HOME", ".config"), ("NETRC", ".netrc"), ("GIT_CONFIG_GLOBAL", ".gitconfig")];

/// In the name of an engine's variable: its value is a secret, or says nothing of what is installed.
const INDECISIVE: &[&str] = &["PASSWORD", "TOKEN", "USERNAME", "CACHE", "TIMEOUT", "RETRIES", "CONFIG_FILE"];

/// pip's variable (or its alias), uv's, and how the value changes. uv's own wins where it is set.
/// Sources: pip's "Configuration", uv's "Environment variables".
const FOR_UV: &[(&str, &str, Form)] = &[
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", Form::Same),
    ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL", Form::Same),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS", Form::Commas),
    ("PIP_CERT", "SSL_CERT_FILE", Form::Same),
    ("PIP_CLIENT_CERT", "SSL_CLIENT_CERT", Form::Same),
    ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST", Form::Same),
    ("PIP_PROXY", "HTTP_PROXY", Form::Same),
    ("PIP_PROXY", "HTTPS_PROXY", Form::Same),
    ("PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT", Form::Same),
    ("PIP_TIMEOUT", "UV_HTTP_TIMEOUT", Form::Same),
    ("PIP_CONSTRAINT", "UV_CONSTRAINT", Form::Same),
    ("PIP_BUILD_CONSTRAINT", "UV_BUILD_CONSTRAINT", Form::Same),
    ("PIP_NO_BUILD_ISOLATION", "UV_NO_BUILD_ISOLATION", Form::SwitchOff("1")),
    ("PIP_PRE", "UV_PRERELEASE", Form::Switch("allow")),
    ("PIP_REQUIRE_HASHES", "UV_REQUIRE_HASHES", Form::Switch("1")),
    ("PIP_RETRIES", "UV_HTTP_RETRIES", Form::Same),
];

/// The same for what uv takes as an argument only: with `uv pip install`, and with `uv sync` for one
/// package and for all.
const UV_ARGUMENTS: &[(&str, &str, Option<OfSync>, Form)] = &[
    ("PIP_NO_BINARY", "--no-binary", Some(("--no-binary-package", "--no-binary")), Form::Each),
    ("PIP_ONLY_BINARY", "--only-binary", Some(("--no-build-package", "--no-build")), Form::Each),
    ("PIP_NO_DEPS", "--no-deps", None, Form::Switch("")),
    ("PIP_NO_INDEX", "--no-index", Some(("--no-index", "--no-index")), Form::Switch("")),
    ("PIP_CONFIG_SETTINGS", "--config-setting", Some(("--config-setting", "--config-setting")), Form::Same),
];

/// What uv is to do: `pip install`, `sync`, `pip compile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Install,
    Sync,
    Compile,
}

/// An argument of `uv sync`: for one value, and for all packages.
type OfSync = (&'static str, &'static str);

/// Variables that make pip install something else, and that uv has no word for.
const PIP_ALONE: &[&str] = &[
    "PIP_ABI",
    "PIP_BUILD_OPTION",
    "PIP_GLOBAL_OPTION",
    "PIP_IGNORE_REQUIRES_PYTHON",
    "PIP_IMPLEMENTATION",
    "PIP_INSTALL_OPTION",
    "PIP_PLATFORM",
    "PIP_PREFER_BINARY",
    "PIP_PYTHON_VERSION",
    "PIP_UPLOADED_PRIOR_TO",
    "PIP_USE_FEATURE",
];

/// Variables that would install something else, or elsewhere, than a podstrap's environment: no engine
/// gets them.
const UNHEEDED: &[&str] = &[
    "PIP_DRY_RUN",
    "PIP_EDITABLE",
    "PIP_GROUP",
    "PIP_PREFIX",
    "PIP_REQUIREMENT",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
];

#[derive(Clone, Copy)]
enum Form {
    /// As it is.
    Same,
    /// White space becomes commas.
    Commas,
    /// pip's true becomes this; its false nothing.
    Switch(&'static str),
    /// The other way round: pip takes the variable of a `--no-` option for the option's opposite.
    /// <https://github.com/pypa/pip/issues/5735>
    SwitchOff(&'static str),
    /// One argument for each word.
    Each,
}

/// Whether a variable's name says that its value is a secret, or decides nothing.
fn is_indecisive(name: &str) -> bool {
    INDECISIVE.iter().any(|word| name.contains(word))
}

/// The environment variables that children inherit, URLs without passwords, and the passwords.
#[derive(Clone)]
pub struct Settings {
    vars: BTreeMap<OsString, OsString>,
    logins: Vec<(String, Userinfo)>,
    /// Of Git repositories, by their URLs.
    repositories: Vec<(String, Userinfo)>,
    /// Files and directories with logins for hosts, read anew for each try.
    auth: Vec<PathBuf>,
    /// What they held.
    mounted: Vec<(String, Userinfo)>,
    /// No code of a package is to run.
    only_binary: bool,
    /// pip's configuration file that cannot be read, and why.
    faulty: Option<(PathBuf, String)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables hold secrets of all kinds.
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self::from_env(std::env::vars_os())
    }

    pub fn from_env(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut settings = Self {
            vars: vars.into_iter().collect(),
            logins: Vec::new(),
            repositories: Vec::new(),
            auth: Vec::new(),
            mounted: Vec::new(),
            only_binary: false,
            faulty: None,
        };
        match pipconf::variables(&pipconf::files(|name| settings.get(name))) {
            Ok(found) => {
                for (name, value) in found {
                    let alias = (name == "PIP_TIMEOUT").then_some("PIP_DEFAULT_TIMEOUT");
                    if settings.get(&name).is_none() && alias.is_none_or(|alias| settings.get(alias).is_none()) {
                        settings.vars.insert(name.into(), value.into());
                    }
                }
            }
            Err(faulty) => settings.faulty = Some(faulty),
        }
        settings.hide_passwords();
        settings
    }

    /// The same with what the plan says of installing, and where logins for hosts are.
    #[must_use]
    pub fn with(mut self, supply: &plan::Supply, auth: &[PathBuf]) -> Self {
        for (name, value, said) in [
            ("PIP_NO_INDEX", "1", supply.no_index),
            ("PIP_REQUIRE_HASHES", "1", supply.require_hashes),
            ("UV_REQUIRE_HASHES", "1", supply.require_hashes),
        ] {
            if said {
                self.vars.insert(name.into(), value.into());
            }
        }
        if supply.only_binary {
            self.build_nothing();
        }
        auth.clone_into(&mut self.auth);
        self
    }

    /// Only wheels are installed from here on.
    pub(super) fn build_nothing(&mut self) {
        self.vars.insert("PIP_ONLY_BINARY".into(), ":all:".into());
        for name in ["PIP_NO_BINARY", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE"] {
            self.vars.remove(OsStr::new(name));
        }
        self.only_binary = true;
    }

    /// Adds places with archives to those that are named already: absolute paths and URLs.
    pub(super) fn add_links(&mut self, places: &[String]) {
        let known = self.get("PIP_FIND_LINKS").map(str::to_owned);
        let url = |place: &String| {
            if !Path::new(place).is_absolute() {
                return place.clone();
            }
            // It may have white space or a comma in it, which separate what variables list.
            url::Url::from_file_path(place).map_or(place.clone(), |url| String::from(url).replace(',', "%2C"))
        };
        let all: Vec<String> = known.into_iter().chain(places.iter().map(url)).collect();
        if !all.is_empty() {
            self.vars.insert("PIP_FIND_LINKS".into(), all.join(" ").into());
        }
        // It would take the other's place.
        if let Some(own) = self.get("UV_FIND_LINKS") {
            let all: Vec<String> = [own.to_owned()].into_iter().chain(places.iter().map(url)).collect();
            self.vars.insert("UV_FIND_LINKS".into(), all.join(",").into());
        }
        self.hide_passwords();
    }

    /// # Errors
    /// A configuration file of pip's cannot be read: it may name a private index.
    pub(super) fn check(&self) -> Result<()> {
        let Some((file, why)) = &self.faulty else { return Ok(()) };
        Err(Error::environment(format!("cannot read pip's configuration {}", file.display()))
            .because(why.clone())
            .hint("correct it, or name another with PIP_CONFIG_FILE (/dev/null for none)"))
    }

    /// Says which variables do not count, or not with this engine.
    pub(super) fn warn(&self, engine_is_uv: bool) {
        for name in UNHEEDED.iter().filter(|name| self.get(name).is_some_and(|value| !is_false(value))) {
            tracing::warn!("{name} does not count: podstrap's own flags say what is installed, and where");
        }
        for name in PIP_ALONE.iter().filter(|name| engine_is_uv && self.get(name).is_some_and(|value| !is_false(value)))
        {
            tracing::warn!("{name} does not count: uv has nothing like it (--engine pip heeds it)");
        }
    }

    /// Whether nothing may be built.
    pub(super) fn only_binary(&self) -> bool {
        self.only_binary
    }
    /// Whether no index is to be asked.
    pub(super) fn no_index(&self) -> bool {
        self.get("PIP_NO_INDEX").is_some_and(is_true)
    }

    /// Reads the logins of the mounted files, for hosts that have none yet.
    pub(super) fn log_in(&mut self) -> Result<()> {
        for (host, login) in source::logins(&self.auth)? {
            if self.logins.iter().chain(&self.mounted).any(|(known, _)| known.eq_ignore_ascii_case(&host)) {
                continue;
            }
            if plain(&login.username) && plain(login.password.reveal()) {
                self.mounted.push((host, login));
            } else {
                tracing::warn!(
                    "the login for {host} in --auth is none for package indexes: the name or the password has white \
                     space, a quotation mark or a backslash in it, or is empty"
                );
            }
        }
        Ok(())
    }

    /// Takes the passwords out of the URLs that variables hold.
    fn hide_passwords(&mut self) {
        for name in URLS {
            if let Some(value) = self.get(name) {
                let separator = if *name == "UV_FIND_LINKS" { ',' } else { ' ' };
                let value = value.to_owned();
                let words: Vec<String> = value
                    .split(|c: char| if separator == ',' { c == ',' } else { c.is_whitespace() })
                    .filter(|word| !word.is_empty())
                    .map(|word| self.without_password(word))
                    .collect();
                self.vars.insert(name.into(), words.join(&separator.to_string()).into());
            }
        }
    }

    /// Moves the userinfo of a URL (also behind `name=` or `name @ `) to the netrc. What that file
    /// cannot say stays where it is.
    pub(super) fn without_password(&mut self, text: &str) -> String {
        let start = text.find("http://").or_else(|| text.find("https://"));
        let Some((before, url)) = start.map(|at| text.split_at(at)) else { return text.to_owned() };
        let (url, after) = url.split_at(url.find(char::is_whitespace).unwrap_or(url.len()));
        let Ok(url) = url.parse::<RemoteUrl>() else { return text.to_owned() };
        // Git and its kin read no netrc that an engine could name to them.
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
            tracing::warn!("the credentials for {} stay in its URL, which child processes show", url.url());
            return text.to_owned();
        }
        let (Some(host), Some(login)) = (url.url().host_str(), url.userinfo()) else { return text.to_owned() };
        // netrc knows one login for a host.
        let other = self.logins.iter().any(|(name, known)| name == host && known != login);
        if other || !plain(&login.username) || !plain(login.password.reveal()) {
            tracing::warn!(
                "the password for {} stays in its URL, which child processes may show: {}",
                url.url(),
                if other { "another one is set for the same host" } else { "a netrc file cannot hold it" }
            );
            return text.to_owned();
        }
        let entry = (host.to_owned(), login.clone());
        if !self.logins.contains(&entry) {
            self.logins.push(entry);
        }
        format!("{before}{}{after}", url.url())
    }

    /// What may decide which files an installation gives, without secrets: a part of an environment's key. What
    /// variables name is left out, which counts by its contents.
    pub(super) fn decisive(&self) -> Vec<(String, String)> {
        let names = self.vars.keys().filter_map(|name| name.to_str());
        names
            .filter(|name| name.starts_with("PIP_") || name.starts_with("UV_"))
            .filter(|name| !is_indecisive(name) && !OF_TRANSPORT.iter().any(|word| name.contains(word)))
            .filter(|name| !FILES.contains(name) && !LINKS.contains(name))
            .filter_map(|name| Some((name.to_owned(), redact::clean(self.get(name)?))))
            .chain(self.only_binary.then(|| ("only binary".to_owned(), "strictly".to_owned())))
            .collect()
    }

    /// A requirements file's text as both engines read it: `${NAME}` is that variable, if it is set. Not
    /// those that hold secrets.
    pub(super) fn expand(&self, text: &str) -> String {
        let value = |name: &str| self.get(name).filter(|_| !is_indecisive(name));
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some((before, tail)) = rest.split_once("${") {
            out.push_str(before);
            if let Some((value, after)) = tail.split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
                out.push_str(value);
                rest = after;
            } else {
                out.push_str("${");
                rest = tail;
            }
        }
        out + rest
    }

    /// The files with versions in them that variables name.
    pub(super) fn files(&self) -> Vec<&str> {
        self.files_by_name().into_iter().map(|(_, file)| file).collect()
    }

    /// The same, each with its variable.
    pub(super) fn files_by_name(&self) -> Vec<(&'static str, &str)> {
        let words = |name: &'static str| self.get(name).into_iter().flat_map(str::split_whitespace);
        FILES.iter().flat_map(|name| words(name).map(|word| (*name, word))).collect()
    }

    /// The configuration files that uv may read; pip's are variables by now. Source: uv's "Configuration
    /// files".
    pub(super) fn configuration(&self) -> Vec<PathBuf> {
        let home = self.get("HOME").map(Path::new);
        let user = self.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".config")));
        let system = self.get("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg").split(':').map(PathBuf::from);
        let mut files: Vec<PathBuf> =
            system.chain(user).map(|dir| dir.join("uv/uv.toml")).chain([PathBuf::from("/etc/uv/uv.toml")]).collect();
        files.retain(|file| file.is_file());
        files
    }

    /// The directories, files and pages in which variables look for archives, each with its variable.
    pub(super) fn links_by_name(&self) -> Vec<(&'static str, &str)> {
        let [pip, uv] = LINKS;
        let of_pip = self.get(pip).into_iter().flat_map(str::split_whitespace);
        let of_uv = self.get(uv).into_iter().flat_map(|value| value.split(','));
        of_pip.map(|place| (pip, place)).chain(of_uv.map(|place| (uv, place))).collect()
    }

    /// A variable that is set, not empty, and text.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// PATH's directories, absolute ones only: what a relative one means depends on who asks.
    pub(super) fn path(&self) -> Vec<PathBuf> {
        let path = self.vars.get(OsStr::new("PATH")).map(OsString::as_os_str).unwrap_or_default();
        std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect()
    }

    /// The package indexes that variables name, without passwords.
    pub(super) fn indexes(&self) -> Vec<&str> {
        ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"]
            .iter()
            .filter_map(|name| self.get(name))
            .flat_map(str::split_whitespace)
            .map(|word| word.find("http").map_or(word, |at| &word[at..]))
            .collect()
    }

    /// The login that belongs to a URL's host.
    pub(super) fn login(&self, host: &str) -> Option<&Userinfo> {
        let mut all = self.logins.iter().chain(&self.mounted);
        all.find(|(name, _)| name.eq_ignore_ascii_case(host)).map(|(_, login)| login)
    }

    /// A command that inherits these variables and keeps its temporary files in `scratch`.
    pub(super) fn command(&self, program: &Path, scratch: &Path) -> Command {
        let command = Command::new(program).inherit(self.vars.clone()).env("TMPDIR", scratch);
        // An arbitrary user id has no home: `/` or nothing, or not its own.
        let home = self.vars.get(OsStr::new("HOME")).map(PathBuf::from).filter(|home| {
            home.is_absolute() && home != Path::new("/") && rustix::fs::access(home, Access::WRITE_OK).is_ok()
        });
        if home.is_some() {
            return command;
        }
        self.in_home().into_iter().fold(command.env("HOME", scratch), |command, (name, path)| command.env(name, path))
    }

    /// Variables that name what is in the user's home, for those who get another one to write to: a
    /// private index in its pip.conf must not become the public one.
    fn in_home(&self) -> Vec<(&'static str, PathBuf)> {
        let home = self.get("HOME").map(Path::new).filter(|home| home.is_absolute());
        let named = IN_HOME.iter().filter(|(name, _)| self.get(name).is_none());
        named.filter_map(|(name, file)| Some((*name, home?.join(file)))).filter(|(_, path)| path.exists()).collect()
    }

    /// Variables for uv that say what pip's say.
    pub(super) fn uv_variables(&self) -> Vec<(&'static str, String)> {
        let mut vars = Vec::new();
        for (pip, uv, form) in FOR_UV {
            let named_otherwise = *uv == "UV_DEFAULT_INDEX" && self.get("UV_INDEX_URL").is_some()
                || *uv == "UV_EXTRA_INDEX_URL" && self.get("UV_INDEX").is_some()
                || uv.ends_with("_PROXY")
                    && (self.get(&uv.to_lowercase()).is_some() || self.get("ALL_PROXY").is_some());
            if let (Some(value), None, false) = (self.get(pip), self.get(uv), named_otherwise) {
                vars.extend(form.apply(value).into_iter().map(|value| (*uv, value)));
            }
        }
        // pip takes the best version of all indexes; uv would stop at the first that has the name.
        if self.get("UV_INDEX_STRATEGY").is_none() {
            vars.push(("UV_INDEX_STRATEGY", "unsafe-best-match".to_owned()));
        }
        vars
    }

    /// Arguments for uv that say what pip's variables say.
    pub(super) fn uv_arguments(&self, of: Of) -> Vec<String> {
        let sync = of == Of::Sync;
        let mut args = Vec::new();
        if self.only_binary {
            args.push("--no-build".to_owned());
            // uv builds what is editable all the same; of a lock file nothing is.
            args.extend((of == Of::Install).then(|| "--no-editable".to_owned()));
        }
        for (pip, flag, of_sync, form) in UV_ARGUMENTS {
            // Twice they are refused.
            let said = self.only_binary && pip.ends_with("_BINARY") || of == Of::Compile && *pip == "PIP_NO_DEPS";
            for value in self.get(pip).filter(|_| !said).map(|value| form.apply(value)).unwrap_or_default() {
                let (flag, value) = match (sync, of_sync) {
                    (false, _) => (*flag, value),
                    (true, None) => continue,
                    (true, Some((_, all))) if value == ":all:" => (*all, String::new()),
                    (true, Some(_)) if value == ":none:" => continue,
                    (true, Some((one, _))) => (*one, value),
                };
                args.push(flag.to_owned());
                args.extend(Some(value).filter(|value| !value.is_empty()));
            }
        }
        args
    }

    /// Variables that log Git in, whoever starts it: what they say is configuration (git-config(1),
    /// `GIT_CONFIG_COUNT`), after the user's own. A login in a URL is for its repository alone; a mounted
    /// one for its host by HTTPS, and for the `places` (scheme, host and port) that the user named.
    pub(super) fn git_variables(&self, places: &[url::Url]) -> Vec<(String, String)> {
        let host_of = |url: &str| url::Url::parse(url).ok().and_then(|url| Some(url.host_str()?.to_owned()));
        let mounted = self.mounted.iter().filter(|(host, _)| {
            // Git would send both.
            !self.repositories.iter().any(|(url, _)| host_of(url).is_some_and(|known| known.eq_ignore_ascii_case(host)))
        });
        let mut entries: Vec<(String, &Userinfo)> =
            self.repositories.iter().map(|(url, login)| (url.clone(), login)).collect();
        for (host, login) in mounted {
            let usual = format!("https://{}/", host.to_lowercase());
            let here = places.iter().filter(|url| url.host_str().is_some_and(|name| name.eq_ignore_ascii_case(host)));
            let here = here.map(|url| format!("{}/", url.origin().ascii_serialization()));
            for place in [usual].into_iter().chain(here) {
                if !entries.iter().any(|(known, _)| *known == place) {
                    entries.push((place, login));
                }
            }
        }
        if entries.is_empty() {
            return Vec::new();
        }
        let own: usize = self.get("GIT_CONFIG_COUNT").and_then(|count| count.parse().ok()).unwrap_or_default();
        let mut vars = vec![("GIT_CONFIG_COUNT".to_owned(), (own + entries.len()).to_string())];
        for (index, (url, login)) in entries.iter().enumerate() {
            let number = own + index;
            let login = BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password.reveal()));
            vars.push((format!("GIT_CONFIG_KEY_{number}"), format!("http.{url}.extraHeader")));
            vars.push((format!("GIT_CONFIG_VALUE_{number}"), format!("Authorization: Basic {login}")));
        }
        vars
    }

    /// Writes the passwords for the engines to read, after what the user's own netrc says.
    pub(super) fn netrc(&self, scratch: &Path) -> Result<Option<Netrc>> {
        if self.logins.is_empty() && self.mounted.is_empty() {
            return Ok(None);
        }
        let own = match (self.get("NETRC"), self.get("HOME")) {
            (Some(file), _) => Some(PathBuf::from(file)),
            (None, home) => home.map(|home| Path::new(home).join(".netrc")),
        };
        let mut text = own.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        // An empty line ends a macro definition; the last entry for a host counts.
        text.push_str("\n\n");
        for (host, login) in self.logins.iter().chain(&self.mounted) {
            text.extend(["machine ", host, " login ", &login.username, " password ", login.password.reveal(), "\n"]);
        }
        if let Some(netrc) = Netrc::in_memory(&text) {
            return Ok(Some(netrc));
        }
        let path = scratch.join(format!("netrc-{:016x}", fastrand::u64(..)));
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .on_volume(|| format!("cannot write {}", path.display()))?;
        Ok(Some(Netrc { path, memory: None }))
    }
}

/// Whether a netrc can hold it: its readers disagree about quoting.
fn plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('#') && word.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"".contains(&b))
}

/// pip's idea of a truth, and of the opposite (Python's `strtobool`).
fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "y", "t", "on"].contains(&value.to_lowercase().as_str())
}
fn is_false(value: &str) -> bool {
    ["0", "false", "no", "n", "f", "off"].contains(&value.to_lowercase().as_str())
}

/// The URL that Git gets: without `@REVISION` at the path's end, query and fragment.
fn repository(url: &url::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().rsplit_once('@').map_or(url.path(), |(path, _)| path).to_owned();
    url.set_path(&path);
    url.into()
}

impl Form {
    fn apply(self, value: &str) -> Vec<String> {
        match self {
            Self::Same => vec![value.to_owned()],
            Self::Commas => vec![value.split_whitespace().collect::<Vec<_>>().join(",")],
            Self::Each => value
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            Self::Switch(on) => is_true(value).then(|| on.to_owned()).into_iter().collect(),
            Self::SwitchOff(on) => is_false(value).then(|| on.to_owned()).into_iter().collect(),
        }
    }
}

/// A netrc file that goes when its reader is done.
#[derive(Debug)]
pub(super) struct Netrc {
    pub(super) path: PathBuf,
    memory: Option<File>,
}

impl Netrc {
    /// Where /proc shows it to children: then a kill leaves nothing of it.
    fn in_memory(text: &str) -> Option<Self> {
        let mut memory = File::from(memfd_create("netrc", MemfdFlags::CLOEXEC).ok()?);
        memory.set_permissions(Permissions::from_mode(0o600)).and_then(|()| memory.write_all(text.as_bytes())).ok()?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()));
        // In a PID namespace with the /proc of another it is somebody else's.
        let shown = std::fs::read(&path).is_ok_and(|read| read == text.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Settings {
        // Not what this machine's pip is told.
        let vars = [("PIP_CONFIG_FILE", "/dev/null")].iter().chain(vars);
        Settings::from_env(vars.map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn pip_variables_mean_the_same_to_uv() {
        let vars = settings(&[
            ("PIP_INDEX_URL", "https://index.example/simple"),
            ("PIP_EXTRA_INDEX_URL", "https://a.example/simple\nhttps://b.example/simple"),
            ("PIP_FIND_LINKS", "/one /two"),
            ("PIP_NO_INDEX", "0"),
            ("PIP_PRE", "Yes"),
            ("PIP_CERT", "/ca.pem"),
            ("PIP_NO_BINARY", ":all:, numpy"),
            ("UV_HTTP_TIMEOUT", "5"),
            ("PIP_TIMEOUT", "60"),
        ]);
        assert_eq!(
            vars.uv_variables(),
            [
                ("UV_DEFAULT_INDEX", "https://index.example/simple"),
                ("UV_EXTRA_INDEX_URL", "https://a.example/simple https://b.example/simple"),
                ("UV_FIND_LINKS", "/one,/two"),
                ("SSL_CERT_FILE", "/ca.pem"),
                ("UV_PRERELEASE", "allow"),
                ("UV_INDEX_STRATEGY", "unsafe-best-match"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
        );
        assert_eq!(vars.uv_arguments(Of::Install), ["--no-binary", ":all:", "--no-binary", "numpy"]);
    }

    #[test]
    fn passwords_move_from_urls_to_a_private_netrc() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        std::fs::write(&own, "machine other login a password b").unwrap();
        let vars = settings(&[
            ("PIP_INDEX_URL", "https://me:s3cr%21t@index.example/simple"),
            ("UV_INDEX", "corp=https://you:t0ken@corp.example/simple"),
            ("NETRC", own.to_str().unwrap()),
        ]);
        assert_eq!(vars.get("PIP_INDEX_URL"), Some("https://index.example/simple"));
        assert_eq!(vars.indexes(), ["https://index.example/simple", "https://corp.example/simple"]);
        let netrc = vars.netrc(dir.path()).unwrap().unwrap();
        assert_eq!(
            std::fs::read_to_string(&netrc.path).unwrap(),
            "machine other login a password b\n\nmachine index.example login me password s3cr!t\n\
             machine corp.example login you password t0ken\n"
        );
        assert_eq!(std::fs::metadata(&netrc.path).unwrap().permissions().mode() & 0o777, 0o600);
        let path = netrc.path.clone();
        drop(netrc);
        assert!(!std::fs::read_to_string(path).is_ok_and(|text| text.contains("password")));
    }

    #[test]
    fn a_key_holds_what_decides_and_no_secret() {
        let vars = settings(&[
            ("PIP_INDEX_URL", "https://me:two%20words@index.example/simple"),
            ("UV_INDEX_CORP_PASSWORD", "s3cret"),
            ("PIP_TIMEOUT", "5"),
            ("PIP_PRE", "1"),
            ("PIP_CONSTRAINT", "/a.txt /b.txt"),
            ("PATH", "/bin"),
        ]);
        let names: Vec<_> = vars.decisive().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["PIP_INDEX_URL", "PIP_PRE"]);
        assert!(!format!("{:?}", vars.decisive()).contains("two"));
        assert_eq!(vars.files(), ["/a.txt", "/b.txt"]);
    }

    #[test]
    fn mounted_logins_are_for_their_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("netrc");
        let text = "machine index.example login a password s3cr3t machine git.example login b password t0ken \
                    machine odd.example login c password \"two words\" default login d password e";
        std::fs::write(&file, text).unwrap();
        let url = "https://me:own@index.example/simple";
        let mut vars = settings(&[("PIP_INDEX_URL", url)]).with(&plan::Supply::default(), &[file]);
        vars.log_in().unwrap();
        // What stands in a URL comes first; what a netrc cannot hold, and what is for no host, is left out.
        let netrc = std::fs::read_to_string(&vars.netrc(dir.path()).unwrap().unwrap().path).unwrap();
        assert_eq!(
            netrc.trim_start(),
            "machine index.example login me password own\nmachine git.example login b password t0ken\n"
        );
        let places = ["http://git.example:8080/x.git", "http://other.example/x.git", "https://git.example/y.git"]
            .map(|place| place.parse().unwrap());
        let git = vars.git_variables(&places);
        let keys: Vec<_> = git.iter().filter(|(name, _)| name.contains("KEY")).map(|(_, key)| key.as_str()).collect();
        assert_eq!(keys, ["http.https://git.example/.extraHeader", "http.http://git.example:8080/.extraHeader"]);
        assert!(!format!("{:?}", vars.decisive()).contains("t0ken"));
    }

    #[test]
    fn flags_say_what_variables_say() {
        let supply = plan::Supply { no_index: true, only_binary: true, require_hashes: true, links: Vec::new() };
        let mut vars = settings(&[("PIP_NO_BINARY", "numpy"), ("PIP_FIND_LINKS", "/one")]).with(&supply, &[]);
        vars.add_links(&["/my wheels, all".to_owned(), "https://me:s3cr3t@host/w".to_owned()]);
        assert_eq!(vars.get("PIP_FIND_LINKS"), Some("/one file:///my%20wheels%2C%20all https://host/w"));
        assert_eq!(vars.uv_arguments(Of::Install), ["--no-build", "--no-editable", "--no-index"]);
        assert_eq!(vars.uv_arguments(Of::Sync), ["--no-build", "--no-index"]);
        assert_eq!((vars.get("PIP_REQUIRE_HASHES"), vars.get("UV_REQUIRE_HASHES")), (Some("1"), Some("1")));
        let vars = settings(&[("PIP_NO_BUILD_ISOLATION", "0"), ("PIP_ONLY_BINARY", "a,b"), ("PIP_NO_DEPS", "1")]);
        assert!(vars.uv_variables().contains(&("UV_NO_BUILD_ISOLATION", "1".to_owned())));
        assert_eq!(vars.uv_arguments(Of::Install), ["--only-binary", "a", "--only-binary", "b", "--no-deps"]);
        assert_eq!(vars.uv_arguments(Of::Sync), ["--no-build-package", "a", "--no-build-package", "b"]);
    }

    #[test]
    fn a_home_that_cannot_be_written_is_still_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".config")).unwrap();
        for name in [".netrc", ".gitconfig"] {
            std::fs::write(home.path().join(name), "").unwrap();
        }
        let vars = settings(&[("HOME", home.path().to_str().unwrap()), ("NETRC", "/own")]);
        let at = |name| home.path().join(name);
        assert_eq!(vars.in_home(), [("XDG_CONFIG_HOME", at(".config")), ("GIT_CONFIG_GLOBAL", at(".gitconfig"))]);
        for home in [&[][..], &[("HOME", "")], &[("HOME", "here")], &[("HOME", "/nowhere")]] {
            assert_eq!(settings(home).in_home(), []);
        }
    }

    #[test]
    fn variables_in_a_text_are_known_but_for_secrets() {
        let vars = settings(&[("V", "1.2"), ("PIP_TOKEN", "s3cret"), ("EMPTY", "")]);
        let text = "a==${V}\nhttps://${PIP_TOKEN}@host ${EMPTY} ${NO} $V ${V";
        assert_eq!(vars.expand(text), text.replace("==${V}", "==1.2"));
    }

    #[test]
    fn passwords_of_git_urls_become_gits_configuration() {
        let mut vars = settings(&[("GIT_CONFIG_COUNT", "1")]);
        let moved = [
            "x @ git+https://me:t0k%40n@host/a.git@v1#subdirectory=b",
            "git+https://you:other@host/b.git",
            "git+https://token@host/c.git",
            "git+https://me:changed@host/a.git",
        ]
        .map(|package| vars.without_password(package));
        assert_eq!(
            moved,
            [
                "x @ git+https://host/a.git@v1#subdirectory=b",
                "git+https://host/b.git",
                "git+https://token@host/c.git",
                "git+https://me:changed@host/a.git",
            ]
        );
        let expected = [
            ("GIT_CONFIG_COUNT", "3"),
            ("GIT_CONFIG_KEY_1", "http.https://host/a.git.extraHeader"),
            ("GIT_CONFIG_VALUE_1", "Authorization: Basic bWU6dDBrQG4="),
            ("GIT_CONFIG_KEY_2", "http.https://host/b.git.extraHeader"),
            ("GIT_CONFIG_VALUE_2", "Authorization: Basic eW91Om90aGVy"),
        ];
        assert_eq!(vars.git_variables(&[]), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_a_netrc_cannot_hold_stays_in_the_url() {
        let url = "https://me:two%20words@index.example/simple";
        assert_eq!(settings(&[("PIP_INDEX_URL", url)]).get("PIP_INDEX_URL"), Some(url));
    }
}
