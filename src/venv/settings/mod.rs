//! The settings of an installation, with the same meaning for both engines.
//!
//! Options of pip's configuration files and podstrap's flags become `PIP_*` variables. pip reads these itself. uv
//! ignores them, so one table translates them. Passwords in index URLs move to a temporary netrc file, together with
//! the logins of mounted files: pip passes its index URLs to child processes as arguments, which every process on
//! the machine can read.

mod credentials;
mod environment;
mod ssh;
mod translate;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::credentials::Netrc;
pub(super) use self::translate::UvCommand;

use self::credentials::Logins;
use self::environment::{PROXIES, Variables};
use super::pipconf;
use crate::command::Command;
use crate::confine::Confinement;
use crate::error::{Error, Kind, Result, check_url, refuse_bare_login};
use crate::files;
use crate::plan::{self, GitUrl};
use crate::redact::{self, RemoteUrl, Userinfo};
use crate::retry::Deadline;
use crate::source;

/// Variables with URLs, separated by white space (`UV_FIND_LINKS`: by commas).
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

/// Variables with a command for SSH.
const SSH_OF_IMAGE: [&str; 2] = ["GIT_SSH_COMMAND", "GIT_SSH"];

/// pip's own variable with the URL of a proxy.
const PIP_PROXY: &str = "PIP_PROXY";

/// The environment variables for children, with URLs without passwords; and the passwords.
#[derive(Clone)]
pub struct Settings {
    vars: Variables,
    logins: Logins,
    /// Files and directories with logins for hosts. podstrap reads them for each attempt.
    auth: Vec<PathBuf>,
    /// The URL of --repo, if it is on the web: a login without a host is for its server.
    home: Option<RemoteUrl>,
    /// `--only-binary`: no package code runs.
    only_binary: bool,
    /// A configuration file of pip that podstrap cannot read, and the cause.
    faulty: Option<(PathBuf, String)>,
    /// The limits of child processes.
    confinement: Option<Arc<Confinement>>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables hold secrets of all kinds.
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    /// The settings in the variables of this process.
    pub fn of_process() -> Self {
        Self::from_env(std::env::vars_os())
    }

    pub fn from_env(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut settings = Self {
            vars: Variables::new(vars),
            logins: Logins::default(),
            auth: Vec::new(),
            home: None,
            only_binary: false,
            faulty: None,
            confinement: None,
        };
        match pipconf::variables(&pipconf::files(|name| settings.get(name))) {
            Ok(found) => {
                for (name, value) in found {
                    let alias = (name == "PIP_TIMEOUT").then_some("PIP_DEFAULT_TIMEOUT");
                    if settings.get(&name).is_none() && alias.is_none_or(|alias| settings.get(alias).is_none()) {
                        settings.vars.set(&name, value);
                    }
                }
            }
            Err(faulty) => settings.faulty = Some(faulty),
        }
        settings.hide_passwords();
        settings
    }

    /// Adds the flags of the plan, and the files and directories with logins.
    #[must_use]
    pub fn with(mut self, supply: &plan::Supply, auth: &[PathBuf]) -> Self {
        for (name, value, said) in [
            ("PIP_NO_INDEX", "1", supply.no_index),
            ("PIP_REQUIRE_HASHES", "1", supply.require_hashes),
            ("UV_REQUIRE_HASHES", "1", supply.require_hashes),
        ] {
            if said {
                self.vars.set(name, value);
            }
        }
        if supply.only_binary {
            self.build_nothing();
        }
        auth.clone_into(&mut self.auth);
        self
    }

    /// Sets the URL of --repo, whose server gets the logins without a host.
    #[must_use]
    pub fn at_home(self, home: Option<RemoteUrl>) -> Self {
        Self { home, ..self }
    }

    /// Reads a requirements file on a server.
    pub(super) async fn fetch(&self, url: RemoteUrl, deadline: Deadline) -> Result<Vec<u8>> {
        let fetched = source::read(url, self.home.clone(), &self.auth, files::WRITTEN, deadline).await;
        fetched.map_err(|error| error.of_kind(Kind::Environment))
    }

    /// `--no-index` in a requirements file.
    pub(super) fn use_no_index(&mut self) {
        self.vars.set("PIP_NO_INDEX", "1");
    }
    /// `--index-url` in a requirements file. Replaces all indexes, as with pip.
    pub(super) fn use_index(&mut self, url: &str) {
        self.vars.set("PIP_INDEX_URL", url);
        self.vars.remove("PIP_EXTRA_INDEX_URL");
        self.hide_passwords();
    }
    /// `--extra-index-url` in a requirements file.
    pub(super) fn add_index(&mut self, url: &str) {
        self.append("PIP_EXTRA_INDEX_URL", url);
        self.hide_passwords();
    }
    /// Another option in a requirements file.
    pub(super) fn use_option(&mut self, name: &str, value: &str) {
        match name {
            "--pre" => self.vars.set("PIP_PRE", "1"),
            "--prefer-binary" => self.vars.set("PIP_PREFER_BINARY", "1"),
            "--require-hashes" => {
                self.vars.set("PIP_REQUIRE_HASHES", "1");
                self.vars.set("UV_REQUIRE_HASHES", "1");
            }
            "--trusted-host" => {
                self.append("PIP_TRUSTED_HOST", value);
                if self.get("UV_INSECURE_HOST").is_some() {
                    self.append("UV_INSECURE_HOST", value);
                }
            }
            "--use-feature" => self.append("PIP_USE_FEATURE", value),
            _ => {}
        }
    }
    /// Replaces the files that a variable names.
    pub(super) fn use_file(&mut self, variable: &str, path: &Path) {
        self.vars.set(variable, path);
    }

    fn append(&mut self, name: &str, value: &str) {
        let known = self.get(name).map(|known| format!("{known} "));
        self.vars.set(name, known.unwrap_or_default() + value);
    }

    /// Permits only wheels.
    pub(super) fn build_nothing(&mut self) {
        self.vars.set("PIP_ONLY_BINARY", ":all:");
        for name in ["PIP_NO_BINARY", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE"] {
            self.vars.remove(name);
        }
        self.only_binary = true;
    }

    /// Adds --find-links locations: absolute paths and URLs.
    pub(super) fn add_links(&mut self, places: &[String]) {
        let known = self.get("PIP_FIND_LINKS").map(str::to_owned);
        let url = |place: &String| {
            if !Path::new(place).is_absolute() {
                return place.clone();
            }
            // Variables separate their values by white space and commas, so a path with these becomes a URL.
            url::Url::from_file_path(place).map_or(place.clone(), |url| String::from(url).replace(',', "%2C"))
        };
        let all: Vec<String> = known.into_iter().chain(places.iter().map(url)).collect();
        if !all.is_empty() {
            self.vars.set("PIP_FIND_LINKS", all.join(" "));
        }
        // uv ignores PIP_FIND_LINKS if this variable is set.
        if let Some(own) = self.get("UV_FIND_LINKS") {
            let all: Vec<String> = [own.to_owned()].into_iter().chain(places.iter().map(url)).collect();
            self.vars.set("UV_FIND_LINKS", all.join(","));
        }
        self.hide_passwords();
    }

    /// # Errors
    /// podstrap cannot read a configuration file of pip, which may name a private index. Or a URL has a login that is
    /// not escaped.
    pub(super) fn check(&self) -> Result<()> {
        for name in URLS.iter().chain(&PROXIES).chain([&PIP_PROXY]) {
            for url in self.get(name).unwrap_or_default().split(|c: char| c.is_whitespace() || c == ',') {
                refuse_bare_login(Kind::Usage, name, url)?;
                if URLS.contains(name) {
                    check_url(Kind::Usage, name, url)?;
                }
                // An engine would show it with its error.
                let is_path = url.starts_with(['/', '.']) && !url.starts_with("//");
                if URLS.contains(name) && url.contains('@') && !url.contains("://") && !is_path {
                    return Err(Error::usage(format!("{name} has a login, but no scheme"))
                        .hint("write https:// or http:// before it"));
                }
            }
        }
        let Some((file, why)) = &self.faulty else { return Ok(()) };
        Err(Error::environment(format!("cannot read pip's configuration file {}", file.display()))
            .because(why.clone())
            .hint("correct the file, or give another one with PIP_CONFIG_FILE (/dev/null for none)"))
    }

    /// Warns about variables that podstrap or the engine ignores.
    pub(super) fn warn(&self, engine_is_uv: bool) {
        translate::warn(&self.vars, engine_is_uv);
    }

    /// Whether builds are forbidden.
    pub(super) fn only_binary(&self) -> bool {
        self.only_binary
    }
    /// uv's own variables for packages without wheels, as lines of a requirements file: `uv pip compile` ignores them.
    pub(super) fn uv_formats(&self) -> impl Iterator<Item = String> {
        let all = self.get("UV_NO_BINARY").filter(|value| translate::is_true(value)).map(|_| ":all:");
        let some = self.get("UV_NO_BINARY_PACKAGE").into_iter().flat_map(str::split_whitespace);
        all.into_iter().chain(some).map(|name| format!("--no-binary {name}"))
    }
    /// Whether package indexes are disabled.
    pub(super) fn no_index(&self) -> bool {
        self.get("PIP_NO_INDEX").is_some_and(translate::is_true)
    }

    /// Reads the mounted logins, for hosts without a login.
    pub(super) fn log_in(&mut self) -> Result<()> {
        self.logins.log_in(&self.auth)
    }

    /// Removes the passwords from the URLs in variables. If one host has several logins, they stay: the variables of a
    /// process are private.
    fn hide_passwords(&mut self) {
        let separator = |name: &str| if name == "UV_FIND_LINKS" { "," } else { " " };
        let split = |name: &str, value: &str| -> Vec<String> {
            let words = value.split(|c: char| if name == "UV_FIND_LINKS" { c == ',' } else { c.is_whitespace() });
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let all: Vec<(&str, Vec<String>)> =
            URLS.iter().filter_map(|name| Some((*name, split(name, self.get(name)?)))).collect();
        self.logins.find_shared(all.iter().flat_map(|(_, urls)| urls));
        let all = all
            .into_iter()
            .map(|(name, urls)| (name, urls.iter().map(|url| self.logins.with_shared(url)).collect::<Vec<_>>()));
        let all: Vec<_> = all.collect();
        self.logins.drop_shared();
        for (name, urls) in all {
            let urls: Vec<String> = urls.iter().map(|url| self.without_password(url)).collect();
            self.vars.set(name, urls.join(separator(name)));
        }
    }

    /// Moves the userinfo of a URL (also after `name=` or `name @ `) to the logins. It stays in the URL if a netrc
    /// file cannot express it.
    pub(super) fn without_password(&mut self, text: &str) -> String {
        self.logins.without_password(text)
    }

    /// The variables that may determine the installed files, without secrets: a part of an environment's key. Files
    /// that variables name are not included: the key has their contents.
    pub(super) fn decisive(&self) -> Vec<(String, String)> {
        let strictly = self.only_binary.then(|| ("only binary".to_owned(), "strictly".to_owned()));
        self.vars.decisive().into_iter().chain(strictly).collect()
    }

    /// Expands `${NAME}` in the text of a requirements file, as both engines do. Leaves unset variables and those
    /// with secrets.
    pub(super) fn expand(&self, text: &str) -> String {
        self.vars.expand(text)
    }

    /// Expands every set `${NAME}`, also those with secrets.
    pub(super) fn expand_all(&self, text: &str) -> String {
        self.vars.expand_all(text)
    }

    /// The constraints files and similar files that variables name.
    #[cfg(test)]
    pub(super) fn files(&self) -> Vec<&str> {
        self.files_by_name().into_iter().map(|(_, file)| file).collect()
    }

    /// The same files, each with its variable.
    pub(super) fn files_by_name(&self) -> Vec<(&'static str, &str)> {
        self.vars.files_by_name()
    }

    /// The --find-links locations that variables name, each with its variable.
    pub(super) fn links_by_name(&self) -> Vec<(&'static str, &str)> {
        self.vars.links_by_name()
    }

    /// The configuration files that uv may read. Options of pip's files are variables.
    pub(super) fn configuration(&self) -> Vec<PathBuf> {
        self.vars.configuration()
    }

    /// The value of a variable that is set, not empty, and valid text.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name)
    }

    /// The absolute directories in PATH. A relative one depends on the process that resolves it.
    pub(super) fn path(&self) -> Vec<PathBuf> {
        self.vars.path()
    }

    /// The package indexes that variables name, without passwords.
    pub(super) fn indexes(&self) -> Vec<&str> {
        self.vars.indexes()
    }

    /// All secrets that these settings know: of URLs, proxies and mounted files.
    ///
    /// # Errors
    /// A file of `--auth` is unreadable.
    pub(super) fn secrets(&self) -> Result<Vec<Userinfo>> {
        let values = URLS.iter().chain(&PROXIES).chain([&PIP_PROXY]).filter_map(|name| self.get(name));
        let urls = values.flat_map(|value| value.split(|c: char| c.is_whitespace() || c == ','));
        let of_urls = urls.filter_map(redact::login_in);
        let home = self.home.iter().filter_map(|home| home.userinfo().cloned());
        Ok(self.logins.all().cloned().chain(of_urls).chain(home).chain(source::secrets(&self.auth)?).collect())
    }

    /// The login for a host.
    pub(super) fn login(&self, host: &str) -> Option<&Userinfo> {
        self.logins.of(host)
    }

    /// Limits the files that child processes may use.
    #[must_use]
    pub fn confined(self, confinement: Option<Arc<Confinement>>) -> Self {
        Self { confinement, ..self }
    }

    /// Adds a hint to the failure of a child process that may come from its limits.
    pub(super) fn explain_confinement(&self, error: Error) -> Error {
        if self.confinement.is_none() || !error.to_string().contains("Permission denied") {
            return error;
        }
        error.hint(
            "if the file lies on the volume: change its owner to podstrap's user or root; podstrap keeps child processes \
             from other users' files there",
        )
    }

    /// A command that inherits these variables and keeps its temporary files in `scratch`.
    pub(super) fn command(&self, program: &Path, scratch: &Path) -> Command {
        self.vars.command(program, scratch).confine(self.confinement.clone())
    }

    /// pip's settings as variables for uv.
    pub(super) fn uv_variables(&self) -> Vec<(&'static str, String)> {
        translate::variables(&self.vars)
    }

    /// pip's settings as arguments for uv.
    pub(super) fn uv_arguments(&self, of: UvCommand) -> Vec<String> {
        translate::arguments(&self.vars, self.only_binary, of)
    }

    /// Variables with the logins for Git, whichever process starts it. Writes SSH keys to `scratch`.
    ///
    /// # Errors
    /// A file of `--auth` is unreadable.
    pub(super) fn git_variables(&self, places: &[url::Url], scratch: &Path) -> Result<Vec<(String, String)>> {
        let own = self.get("GIT_CONFIG_COUNT").and_then(|count| count.parse().ok()).unwrap_or_default();
        let mut headers = Vec::new();
        for place in places.iter().filter_map(|place| place.as_str().parse::<RemoteUrl>().ok()) {
            let at_home = self.home.as_ref().is_some_and(|home| home.url().origin() == place.url().origin());
            if let Some(header) = source::header(&place, self.home.as_ref(), &self.auth)?.filter(|_| at_home) {
                headers.push((format!("{}/", place.url().origin().ascii_serialization()), header));
            }
        }
        let mut vars = self.logins.git_variables(own, places, headers);
        if self.get("GIT_TERMINAL_PROMPT").is_none() {
            vars.push(("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()));
        }
        if SSH_OF_IMAGE.iter().all(|name| self.get(name).is_none())
            && let Some(command) = ssh::command(&self.auth, scratch)?
        {
            vars.push(("GIT_SSH_COMMAND".to_owned(), command));
        }
        Ok(vars)
    }

    /// Finds a revision of a Git repository, as for --repo.
    pub(super) async fn revision(
        &self,
        url: GitUrl,
        reference: Option<String>,
        deadline: Deadline,
    ) -> Result<source::Revision> {
        source::revision_of(url, reference, self.home.clone(), &self.auth, deadline).await
    }

    /// Whether the image gives Git logins or other addresses that podstrap does not know.
    pub(super) fn git_has_own_logins(&self, ssh: bool) -> Result<bool> {
        let home = self.get("HOME").map(Path::new).filter(|home| home.is_absolute());
        let in_home = |names: &[&str]| -> Result<bool> {
            for path in home.into_iter().flat_map(|home| names.iter().map(|name| home.join(name))) {
                if files::metadata_if_allowed(&path)?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let configured = ["GIT_CONFIG_COUNT", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"].iter();
        if configured.chain(&["GIT_ASKPASS"]).any(|name| self.get(name).is_some())
            || in_home(&[".gitconfig", ".config/git", ".git-credentials"])?
        {
            return Ok(true);
        }
        if ssh {
            let own = SSH_OF_IMAGE.iter().chain(&["SSH_AUTH_SOCK"]).any(|name| self.get(name).is_some());
            return Ok((own || in_home(&[".ssh"])?) && source::keys(&self.auth)?.private.is_empty());
        }
        in_home(&[".netrc"])
    }

    /// Writes a netrc file for the engines: the user's entries, then the logins.
    pub(super) fn netrc(&self, scratch: &Path) -> Result<Option<Netrc>> {
        let own = match (self.get("NETRC"), self.get("HOME")) {
            (Some(file), _) => Some(PathBuf::from(file)),
            (None, home) => home.map(|home| Path::new(home).join(".netrc")),
        };
        self.logins.netrc(own, scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Settings {
        // Ignore the configuration of this machine's pip.
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
        assert_eq!(vars.uv_arguments(UvCommand::Install), ["--no-binary", ":all:", "--no-binary", "numpy"]);
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
        // A login in a URL has precedence. A login that a netrc file cannot express, and `default`, are not used.
        let netrc = std::fs::read_to_string(&vars.netrc(dir.path()).unwrap().unwrap().path).unwrap();
        assert_eq!(
            netrc.trim_start(),
            "machine index.example login me password own\nmachine git.example login b password t0ken\n"
        );
        let places = ["http://git.example:8080/x.git", "http://other.example/x.git", "https://git.example/y.git"]
            .map(|place| place.parse().unwrap());
        let git = vars.git_variables(&places, dir.path()).unwrap();
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
        assert_eq!(vars.uv_arguments(UvCommand::Install), ["--no-build", "--no-editable", "--no-index"]);
        assert_eq!(vars.uv_arguments(UvCommand::Sync), ["--no-build", "--no-index"]);
        assert_eq!((vars.get("PIP_REQUIRE_HASHES"), vars.get("UV_REQUIRE_HASHES")), (Some("1"), Some("1")));
        let vars = settings(&[("PIP_NO_BUILD_ISOLATION", "0"), ("PIP_ONLY_BINARY", "a,b"), ("PIP_NO_DEPS", "1")]);
        assert!(vars.uv_variables().contains(&("UV_NO_BUILD_ISOLATION", "1".to_owned())));
        assert_eq!(vars.uv_arguments(UvCommand::Install), ["--only-binary", "a", "--only-binary", "b", "--no-deps"]);
        assert_eq!(vars.uv_arguments(UvCommand::Sync), ["--no-build-package", "a", "--no-build-package", "b"]);
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
            ("GIT_TERMINAL_PROMPT", "0"),
        ];
        assert_eq!(
            vars.git_variables(&[], Path::new("/x")).unwrap(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_a_netrc_cannot_hold_stays_in_the_url() {
        let url = "https://me:two%20words@index.example/simple";
        assert_eq!(settings(&[("PIP_INDEX_URL", url)]).get("PIP_INDEX_URL"), Some(url));
    }
}
