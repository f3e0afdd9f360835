//! Environment variables: the settings in them, and the variables that children inherit.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::command::{Command, is_home};
use crate::files;
use crate::http;
use crate::redact;

/// Variables that name constraints files and similar files, separated by white space.
const FILES: &[&str] =
    &["PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE"];

/// Variables that name --find-links locations: of pip, separated by white space; of uv, by commas.
const LINKS: [&str; 2] = ["PIP_FIND_LINKS", "UV_FIND_LINKS"];

/// Files of uv and Git in the user's home, each after the variable that overrides its path. podstrap itself reads
/// pip's files.
const IN_HOME: &[(&str, &str)] =
    &[("XDG_CONFIG_HOME", ".config"), ("NETRC", ".netrc"), ("GIT_CONFIG_GLOBAL", ".gitconfig")];

/// Parts of the names of variables that hold secrets or do not affect the installed files.
const INDECISIVE: &[&str] = &["PASSWORD", "TOKEN", "USERNAME", "CACHE", "TIMEOUT", "RETRIES", "CONFIG_FILE"];

/// Variables for the compilers of a build.
const OF_COMPILERS: &[&str] = &[
    "CC",
    "CXX",
    "FC",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "FFLAGS",
    "LDFLAGS",
    "RUSTFLAGS",
    "ARCHFLAGS",
    "MAKEFLAGS",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH",
    "PKG_CONFIG_PATH",
    "CMAKE_ARGS",
    "CMAKE_GENERATOR",
    "SOURCE_DATE_EPOCH",
    "SETUPTOOLS_SCM_PRETEND_VERSION",
];

/// Parts of the names of variables for the transport.
const OF_TRANSPORT: &[&str] = &["CERT", "PROXY"];

/// Variables with the URL of a proxy, for all programs.
pub(super) const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Variables that would make an engine use another Python, project or destination.
const OF_INSTALLERS: &[&str] = &[
    // Another destination, or none.
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_DRY_RUN",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_PYTHON",
    "PIP_REQUIREMENT",
    "PIP_EDITABLE",
    "PIP_GROUP",
    "PIP_REPORT",
    "PIP_LOG",
    "PIP_NO_COMPILE",
    "PIP_COMPILE",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_PREFIX",
    "UV_PROJECT_ENVIRONMENT",
    "UV_CONFIG_FILE",
    "UV_COMPILE_BYTECODE",
    // Other projects, or other parts of a project.
    "UV_PROJECT",
    "UV_WORKING_DIR",
    "UV_WORKING_DIRECTORY",
    "UV_LOCKED",
    "UV_DEV",
    "UV_NO_DEV",
    "UV_NO_GROUP",
    "UV_NO_DEFAULT_GROUPS",
    "UV_NO_EDITABLE",
    "UV_NO_INSTALL_PROJECT",
    "UV_NO_INSTALL_WORKSPACE",
    "UV_NO_INSTALL_LOCAL",
];

/// Whether a variable holds a secret or does not affect the installed files, by its name.
fn is_indecisive(name: &str) -> bool {
    INDECISIVE.iter().any(|word| name.contains(word))
}

/// The variables that children inherit.
#[derive(Clone)]
pub(super) struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    pub(super) fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(vars.into_iter().collect())
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(OsStr::new(name));
    }

    /// The value of a variable that is set, not empty, and valid text.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// The absolute directories in PATH. A relative one depends on the process that resolves it.
    pub(super) fn path(&self) -> Vec<PathBuf> {
        let path = self.0.get(OsStr::new("PATH")).map(OsString::as_os_str).unwrap_or_default();
        std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect()
    }

    /// The variables that may determine the installed files, without secrets: a part of an environment's key. Files
    /// that variables name are not included: the key has their contents.
    pub(super) fn decisive(&self) -> Vec<(String, String)> {
        let names = self.0.keys().filter_map(|name| name.to_str());
        names
            .filter(|name| name.starts_with("PIP_") || name.starts_with("UV_") || OF_COMPILERS.contains(name))
            .filter(|name| !is_indecisive(name) && !OF_TRANSPORT.iter().any(|word| name.contains(word)))
            .filter(|name| !FILES.contains(name) && !LINKS.contains(name))
            .filter_map(|name| Some((name.to_owned(), redact::clean(self.get(name)?))))
            .collect()
    }

    /// Expands `${NAME}` in the text of a requirements file, as both engines do. Leaves unset variables and those
    /// with secrets.
    pub(super) fn expand(&self, text: &str) -> String {
        self.expand_if(text, |name| !is_indecisive(name))
    }

    /// Expands every `${NAME}` that is set.
    pub(super) fn expand_all(&self, text: &str) -> String {
        self.expand_if(text, |_| true)
    }

    fn expand_if(&self, text: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        let value = |name: &str| self.get(name).filter(|_| is_wanted(name));
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

    /// The constraints files and similar files that variables name, each with its variable.
    pub(super) fn files_by_name(&self) -> Vec<(&'static str, &str)> {
        let words = |name: &'static str| self.get(name).into_iter().flat_map(str::split_whitespace);
        FILES.iter().flat_map(|name| words(name).map(|word| (*name, word))).collect()
    }

    /// The --find-links locations that variables name, each with its variable.
    pub(super) fn links_by_name(&self) -> Vec<(&'static str, &str)> {
        let [pip, uv] = LINKS;
        let of_pip = self.get(pip).into_iter().flat_map(str::split_whitespace);
        let of_uv = self.get(uv).into_iter().flat_map(|value| value.split(','));
        of_pip.map(|place| (pip, place)).chain(of_uv.map(|place| (uv, place))).collect()
    }

    /// The configuration files that uv may read. Options of pip's files are variables. Source: uv's "Configuration
    /// files".
    pub(super) fn configuration(&self) -> Vec<PathBuf> {
        let home = self.get("HOME").map(Path::new);
        let user = self.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".config")));
        let system = self.get("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg").split(':').map(PathBuf::from);
        let mut found: Vec<PathBuf> =
            system.chain(user).map(|dir| dir.join("uv/uv.toml")).chain([PathBuf::from("/etc/uv/uv.toml")]).collect();
        // uv skips what it may not read, and reports what it cannot read.
        found.retain(|file| files::metadata_if_allowed(file).map_or(true, |found| found.is_some()));
        found
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

    /// A command that inherits these variables and keeps its temporary files in `scratch`.
    pub(super) fn command(&self, program: &Path, scratch: &Path) -> Command {
        let command = Command::new(program).inherit(self.for_children()).env("TMPDIR", scratch);
        if self.0.get(OsStr::new("HOME")).is_some_and(|home| is_home(Path::new(home))) {
            return command;
        }
        self.in_home().into_iter().fold(command.env("HOME", scratch), |command, (name, path)| command.env(name, path))
    }

    fn for_children(&self) -> impl Iterator<Item = (OsString, OsString)> {
        // uv does not apply `*` to addresses such as 127.0.0.1, so podstrap hands over the result.
        let direct = ["NO_PROXY", "no_proxy"].iter().find_map(|name| self.get(name)).is_some_and(http::excludes_all);
        let drops = move |name: &str| OF_INSTALLERS.contains(&name) || direct && PROXIES.contains(&name);
        let pass = self.0.iter().filter(move |(name, _)| name.to_str().is_none_or(|name| !drops(name)));
        pass.map(|(name, value)| (name.clone(), value.clone()))
    }

    /// Variables that name the files in the user's home, for children that get another home. Without them, a child
    /// would ignore a private index in these files and use the public one.
    fn in_home(&self) -> Vec<(&'static str, PathBuf)> {
        let home = self.get("HOME").map(Path::new).filter(|home| home.is_absolute());
        let named = IN_HOME.iter().filter(|(name, _)| self.get(name).is_none());
        named
            .filter_map(|(name, file)| Some((*name, home?.join(file))))
            // The child reports a file that cannot be read.
            .filter(|(_, path)| files::metadata_if_allowed(path).map_or(true, |found| found.is_some()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(vars: &[(&str, &str)]) -> Variables {
        Variables::new(vars.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn children_get_no_variable_that_installs_something_else() {
        let vars =
            variables(&[("PIP_TARGET", "/x"), ("UV_PYTHON", "/x"), ("PIP_INDEX_URL", "https://h"), ("PATH", "/bin")]);
        let names: Vec<_> = vars.for_children().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "PIP_INDEX_URL"]);
    }

    #[test]
    fn a_home_that_cannot_be_written_is_still_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".config")).unwrap();
        for name in [".netrc", ".gitconfig"] {
            std::fs::write(home.path().join(name), "").unwrap();
        }
        let vars = variables(&[("HOME", home.path().to_str().unwrap()), ("NETRC", "/own")]);
        let at = |name| home.path().join(name);
        assert_eq!(vars.in_home(), [("XDG_CONFIG_HOME", at(".config")), ("GIT_CONFIG_GLOBAL", at(".gitconfig"))]);
        for home in [&[][..], &[("HOME", "")], &[("HOME", "here")], &[("HOME", "/nowhere")]] {
            assert_eq!(variables(home).in_home(), []);
        }
    }

    #[test]
    fn variables_in_a_text_are_known_but_for_secrets() {
        let vars = variables(&[("V", "1.2"), ("PIP_TOKEN", "s3cret"), ("EMPTY", "")]);
        let text = "a==${V}\nhttps://${PIP_TOKEN}@host ${EMPTY} ${NO} $V ${V";
        assert_eq!(vars.expand(text), text.replace("==${V}", "==1.2"));
    }
}
