//! The settings of an installation, with the same meaning for both engines.
//!
//! Options of pip's configuration files and podstrap's flags become `PIP_*` variables. pip reads these itself. uv
//! ignores them, so one table translates them. Passwords in index URLs move to a temporary netrc file, together with
//! the logins of mounted files: pip passes its index URLs to child processes as arguments, which every process on
//! the machine can read.

mod credentials;
mod environment;
mod translate;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::credentials::Netrc;
pub(super) use self::translate::UvCommand;

use self::credentials::Logins;
use self::environment::Variables;
use super::pipconf;
use crate::command::Command;
use crate::confine::Confinement;
use crate::error::{Error, Result};
use crate::plan;
use crate::redact::Userinfo;

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

/// The environment variables for children, with URLs without passwords; and the passwords.
#[derive(Clone)]
pub struct Settings {
    vars: Variables,
    logins: Logins,
    /// Files and directories with logins for hosts. podstrap reads them for each attempt.
    auth: Vec<PathBuf>,
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
    /// podstrap cannot read a configuration file of pip, which may name a private index.
    pub(super) fn check(&self) -> Result<()> {
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
    /// Whether package indexes are disabled.
    pub(super) fn no_index(&self) -> bool {
        self.get("PIP_NO_INDEX").is_some_and(translate::is_true)
    }

    /// Reads the mounted logins, for hosts without a login.
    pub(super) fn log_in(&mut self) -> Result<()> {
        self.logins.log_in(&self.auth)
    }

    /// Removes the passwords from the URLs in variables.
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
                self.vars.set(name, words.join(&separator.to_string()));
            }
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

    /// The constraints files and similar files that variables name.
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

    /// The login for a host.
    pub(super) fn login(&self, host: &str) -> Option<&Userinfo> {
        self.logins.of(host)
    }

    /// Limits the files that child processes may use.
    #[must_use]
    pub fn confined(self, confinement: Option<Arc<Confinement>>) -> Self {
        Self { confinement, ..self }
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

    /// Variables with the logins for Git, whichever process starts it.
    pub(super) fn git_variables(&self, places: &[url::Url]) -> Vec<(String, String)> {
        let own = self.get("GIT_CONFIG_COUNT").and_then(|count| count.parse().ok()).unwrap_or_default();
        self.logins.git_variables(own, places)
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
        ];
        assert_eq!(vars.git_variables(&[]), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_a_netrc_cannot_hold_stays_in_the_url() {
        let url = "https://me:two%20words@index.example/simple";
        assert_eq!(settings(&[("PIP_INDEX_URL", url)]).get("PIP_INDEX_URL"), Some(url));
    }
}
