//! What was typed, turned into what is meant: absolute paths, checked names, deadlines.
//! No I/O: a plan can be made and tested without a disk or a network.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

pub(crate) mod platform;
mod source;

use crate::check::Tree;
use crate::cli;
use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::size::Size;

pub use platform::{Libc, Platform};
pub use source::{Download, GitSource, GitUrl, Origin, Source, Unpack, is_archive};

/// Where the release's own files live below the root; no repository may use the name.
pub const RESERVED: &str = ".podstrap";

/// Room for a large environment twice over (the old release and the new one), and an end for what
/// unpacks to more.
pub const SIZE_LIMIT: Size = Size(32 << 30);

/// `podstrap init`, understood.
#[derive(Debug)]
pub struct Init {
    pub source: Source,
    pub target: Target,
    pub environment: Environment,
    pub copy_self: Option<CopySelf>,
    pub entrypoint: Option<Entrypoint>,
    /// What podstrap may occupy on the volume, staging included.
    pub size_limit: Size,
    /// What is published is good enough while a remote is out of reach.
    pub stale_ok: bool,
    pub deadline: Deadline,
}

/// Where the tree is published.
#[derive(Debug, Clone)]
pub struct Target {
    /// The shared volume, absolute.
    pub root: PathBuf,
    /// `Some(NAME)`: at `<root>/NAME`; None: its entries in the root itself.
    pub link: Option<String>,
}

impl Target {
    /// The path under which the app finds the tree when it mounts the volume at the same place.
    pub fn public(&self) -> PathBuf {
        match &self.link {
            Some(link) => self.root.join(link),
            None => self.root.clone(),
        }
    }
}

/// The virtual environment that is wanted.
#[derive(Debug, Clone)]
pub struct Environment {
    pub wanted: Wanted,
    /// Its directory in the tree.
    pub venv: TreePath,
    /// Its absolute path in the app's container: what shebangs and metadata will say.
    pub final_path: PathBuf,
    pub python: PythonRequest,
    /// Relative ones are in the tree.
    pub requirements: Vec<PathBuf>,
    /// Relative ones are in the tree.
    pub constraints: Vec<PathBuf>,
    pub packages: Vec<String>,
    /// Of the pyproject.toml and uv.lock files.
    pub extras: Vec<String>,
    pub groups: Vec<String>,
    pub supply: Supply,
    pub engine: EngineRequest,
    pub refresh: bool,
    /// The interpreter's absolute path in the app's image, if it is said.
    pub python_final: Option<PathBuf>,
    /// Whom it is for, where that is said.
    pub target: AppTarget,
    /// An environment that is not as it should be is an error.
    pub strict: bool,
}

/// The Python of the app's image, as far as it is another than the one that builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AppTarget {
    /// 3.13 is (3, 13).
    pub python: Option<(u32, u32)>,
    pub platform: Option<Platform>,
}

/// From where packages may come, and which.
#[derive(Debug, Clone, Default)]
pub struct Supply {
    pub links: Vec<Links>,
    pub no_index: bool,
    /// Nothing is built.
    pub only_binary: bool,
    pub require_hashes: bool,
}

/// A place with archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Links {
    InTree(TreePath),
    /// A directory, an archive or a page on this machine.
    At(PathBuf),
    /// A page with links.
    Url(String),
}

/// Whether there is to be an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `--venv none`.
    Never,
    /// If there is something to install.
    IfNeeded,
    /// `--venv PATH`, or packages or files were named.
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PythonRequest {
    /// python3 on PATH.
    Default,
    Path(PathBuf),
    Version {
        major: u32,
        minor: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineRequest {
    /// uv if there is one, else pip.
    Auto,
    /// The uv beside podstrap, or on PATH.
    Uv,
    UvAt(PathBuf),
    Pip,
}

/// Where `--copy-self` puts the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySelf {
    /// Below the root: it becomes part of the release.
    InTree(TreePath),
    Outside(PathBuf),
}

/// The configuration that the image's own entrypoint is to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoint {
    /// Absolute: the directory that becomes /docker-entrypoint.d.
    pub dir: PathBuf,
    /// Absolute.
    pub config: PathBuf,
    /// Where the tree is that it must be in; None for a file that was named by an absolute path.
    pub below: Option<PathBuf>,
}

/// `podstrap apply`, understood.
#[derive(Debug)]
pub struct Apply {
    /// A file, or a directory.
    pub config: PathBuf,
    /// `/config` or below: where in Unit's configuration it goes.
    pub path: String,
    /// None: the usual paths are tried in order.
    pub control: Option<Control>,
    pub probe: Option<reqwest::Url>,
    pub deadline: Deadline,
}

/// `podstrap sidecar`, understood.
#[derive(Debug)]
pub struct Sidecar {
    /// A file, or a directory.
    pub config: PathBuf,
    /// None: the usual paths are tried in order.
    pub control: Option<Control>,
    pub probe: Option<reqwest::Url>,
    /// For one apply.
    pub timeout: Duration,
}

/// `podstrap status`, understood.
#[derive(Debug)]
pub struct Status {
    /// None: the usual paths are tried in order.
    pub control: Option<Control>,
    pub json: bool,
    pub deadline: Deadline,
}

/// Unit's control API: a socket's path or a TCP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Unix(PathBuf),
    Http(reqwest::Url),
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

/// `podstrap check`, understood.
#[derive(Debug)]
pub struct Check {
    /// As it was typed: findings begin with it.
    pub config: PathBuf,
    pub tree: Option<Tree>,
    pub format: cli::OutputFormat,
}

/// `podstrap up`, understood.
#[derive(Debug)]
pub struct Up {
    /// None: the built-in example.
    pub source: Option<Source>,
    pub environment: cli::EnvironmentArgs,
    pub config: PathBuf,
    pub once: bool,
    pub deadline: Deadline,
}

/// A relative path that cannot name anything outside the tree: no root, no `..`, not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePath(PathBuf);

impl TreePath {
    pub fn new(path: &Path) -> Option<Self> {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        (!clean.as_os_str().is_empty()).then_some(Self(clean))
    }
    pub fn as_path(&self) -> &Path {
        &self.0
    }
    /// The first component: the entry that appears at the tree's top level.
    pub fn top(&self) -> &Path {
        self.0.iter().next().map_or(self.as_path(), Path::new)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Init {
    pub fn new(args: cli::InitArgs) -> Result<Self> {
        let target = Target { root: absolute("--root", &args.root)?, link: args.link.map(link_name).transpose()? };
        let environment = Environment::new(&args.environment, &target)?;
        let copy_self = args.copy_self.map(|path| CopySelf::new(&path, &target)).transpose()?;
        let entrypoint = Entrypoint::new(args.entrypoint_dir.as_deref(), args.config.as_deref(), &target)?;
        Ok(Self {
            source: Source::new(&args.repo, args.checkout)?,
            target,
            environment,
            copy_self,
            entrypoint,
            size_limit: args.size_limit,
            stale_ok: args.stale_ok,
            deadline: Deadline::after(args.timeout),
        })
    }
}

impl Environment {
    pub fn new(args: &cli::EnvironmentArgs, target: &Target) -> Result<Self> {
        let asked = args.venv.as_deref().filter(|venv| *venv != "none");
        let parts = !(args.extras.is_empty() && args.groups.is_empty());
        let named = !(args.packages.is_empty() && args.requirements.is_empty()) || parts;
        let wanted = match args.venv.as_deref() {
            Some("none") if named => {
                return Err(Error::usage("--venv none, but packages, requirements files, extras or groups are named")
                    .hint("drop one of the two"));
            }
            Some("none") => Wanted::Never,
            Some(_) => Wanted::Always,
            None if named => Wanted::Always,
            None => Wanted::IfNeeded,
        };
        let venv = TreePath::new(Path::new(asked.unwrap_or("venv"))).ok_or_else(|| {
            Error::usage(format!("--venv {} is not inside the tree", asked.unwrap_or_default())).hint(
                "give a path relative to the repository's top, without ..; where the app sees it is --venv-final-path",
            )
        })?;
        let final_path = match &args.venv_final_path {
            Some(path) if !path.is_absolute() => {
                return Err(Error::usage(format!("--venv-final-path {} is not absolute", path.display()))
                    .hint("give the path that the app's container will see, e.g. /app/python/venv"));
            }
            Some(path) => normal(path),
            None => target.public().join(venv.as_path()),
        };
        if let Some(bad) = args.packages.iter().find(|package| package.starts_with('-')) {
            return Err(
                Error::usage(format!("{bad} is no package")).hint("put podstrap's own flags before the packages")
            );
        }
        for file in args.requirements.iter().chain(&args.constraints) {
            if file.is_relative() && TreePath::new(file).is_none() {
                return Err(Error::usage(format!("{} is not inside the tree", file.display()))
                    .hint("give a path relative to the repository's top, without .., or an absolute one"));
            }
        }
        Ok(Self {
            wanted,
            venv,
            final_path,
            python: PythonRequest::new(args.python.as_deref())?,
            requirements: args.requirements.clone(),
            constraints: args.constraints.clone(),
            packages: args.packages.clone(),
            extras: names("--extra", &args.extras)?,
            groups: names("--group", &args.groups)?,
            supply: Supply {
                links: args.supply.find_links.iter().map(|text| Links::new(text)).collect::<Result<_>>()?,
                no_index: args.supply.no_index,
                only_binary: args.supply.only_binary,
                require_hashes: args.supply.require_hashes,
            },
            engine: EngineRequest::new(&args.engine)?,
            refresh: args.refresh,
            python_final: args.python_final_path.as_deref().map(python_final).transpose()?,
            target: AppTarget {
                python: args.target_python.as_deref().map(target_python).transpose()?,
                platform: args.target_platform.as_deref().map(Platform::new).transpose()?,
            },
            strict: args.strict,
        })
    }
}

fn python_final(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(normal(path));
    }
    Err(Error::usage(format!("--python-final-path {} is not absolute", path.display()))
        .hint("give the interpreter's path in the app's image, e.g. /usr/local/bin/python3.13"))
}

fn target_python(text: &str) -> Result<(u32, u32)> {
    match PythonRequest::new(Some(text)) {
        Ok(PythonRequest::Version { major, minor }) => Ok((major, minor)),
        _ => Err(Error::usage(format!("--target-python {text} is no version"))
            .hint("give major.minor of the app image's Python: 3.13")),
    }
}

impl Environment {
    /// Whether what the tree itself has is to be installed: nothing is named.
    pub fn takes_default(&self) -> bool {
        self.wanted != Wanted::Never && self.packages.is_empty() && self.requirements.is_empty()
    }

    /// Where the app's container has the tree itself, if the final path tells: `/app` for an
    /// environment at `python/venv` that is to be at `/app/python/venv`.
    pub fn tree_final(&self) -> Option<PathBuf> {
        let mut tree = self.final_path.as_path();
        for name in self.venv.as_path().iter().rev() {
            tree = tree.parent().filter(|_| tree.file_name() == Some(name))?;
        }
        Some(tree.to_owned())
    }
}

impl Links {
    fn new(text: &str) -> Result<Self> {
        // Part of a list that pip separates by white space and uv by commas: paths become URLs there.
        if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| *scheme != "file") {
            let plain = !text.contains([' ', '\t', '\n', ',']);
            return match scheme {
                "http" | "https" if plain => Ok(Self::Url(text.to_owned())),
                _ => Err(Error::usage(format!("--find-links {text} is no usable URL"))
                    .hint("give https:// or http://, with %20 for a space and %2C for a comma, or a path")),
            };
        }
        let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
        if path.is_absolute() {
            return Ok(Self::At(normal(path)));
        }
        // The tree itself is a place, too.
        if path.components().all(|part| part == Component::CurDir) && !text.is_empty() {
            return Ok(Self::InTree(TreePath(PathBuf::from("."))));
        }
        TreePath::new(path).map(Self::InTree).ok_or_else(|| {
            Error::usage(format!("--find-links {text} is not inside the tree"))
                .hint("give a path relative to the repository's top, without .., or an absolute one")
        })
    }
}

/// Names of extras and groups, as metadata has them.
/// Source: <https://packaging.python.org/en/latest/specifications/name-normalization/#name-format>
fn names(flag: &str, names: &[String]) -> Result<Vec<String>> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = |name: &str| {
        let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        inner && edge(name.chars().next()) && edge(name.chars().next_back())
    };
    match names.iter().find(|name| !good(name)) {
        Some(bad) => {
            Err(Error::usage(format!("{flag} {bad} is no name")).hint("give one name; for several repeat the flag"))
        }
        None => Ok(names.to_vec()),
    }
}

impl PythonRequest {
    fn new(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::Default) };
        if text.contains('/') {
            return Ok(Self::Path(absolute("--python", Path::new(text))?));
        }
        let version = text.strip_prefix("python").unwrap_or(text);
        let parts: Vec<Option<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
        match parts[..] {
            [Some(major), Some(minor)] => Ok(Self::Version { major, minor }),
            _ => Err(Error::usage(format!("--python {text} is neither a path nor a version"))
                .hint("give a path with a slash, or major.minor: 3.13")),
        }
    }
}

impl EngineRequest {
    fn new(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "uv" => Ok(Self::Uv),
            "pip" => Ok(Self::Pip),
            path if path.contains('/') => Ok(Self::UvAt(absolute("--engine", Path::new(path))?)),
            other => Err(Error::usage(format!("--engine {other} is unknown"))
                .hint("give auto, uv, pip, or the path of a uv binary with a slash in it")),
        }
    }
}

impl CopySelf {
    fn new(path: &Path, target: &Target) -> Result<Self> {
        let directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let mut path = absolute("--copy-self", path)?;
        if directory {
            path.push("podstrap");
        }
        let Ok(below) = path.strip_prefix(&target.root) else { return Ok(Self::Outside(path)) };
        let in_tree = match &target.link {
            Some(link) => below.strip_prefix(link).ok(),
            None => Some(below),
        };
        in_tree.and_then(TreePath::new).filter(|path| path.top() != Path::new(RESERVED)).map(Self::InTree).ok_or_else(
            || {
                Error::usage(format!(
                    "--copy-self {}: below the root it must be a file inside the published tree",
                    path.display()
                ))
                .hint(format!(
                    "name a file below {}, or mount another volume for the binary",
                    target.public().display()
                ))
            },
        )
    }
}

impl Entrypoint {
    fn new(dir: Option<&Path>, config: Option<&Path>, target: &Target) -> Result<Option<Self>> {
        match (dir, config) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::usage("--entrypoint-dir without --config")
                .hint("name Unit's configuration: a path in the tree, or an absolute one of a mounted file")),
            (None, Some(_)) => Err(Error::usage("--config without --entrypoint-dir").hint(
                "init leaves the configuration to `podstrap apply`, or to the image's entrypoint: name the directory",
            )),
            (Some(dir), Some(config)) => {
                let dir = absolute("--entrypoint-dir", dir)?;
                if config.is_absolute() {
                    return Ok(Some(Self { dir, config: config.to_owned(), below: None }));
                }
                let path = TreePath::new(config).ok_or_else(|| {
                    Error::usage(format!("--config {} is not inside the tree", config.display()))
                        .hint("give a path relative to the repository's top, without .., or an absolute one")
                })?;
                let config = target.public().join(path.as_path());
                Ok(Some(Self { dir, config, below: Some(target.root.clone()) }))
            }
        }
    }
}

impl Apply {
    pub fn new(args: cli::ApplyArgs) -> Result<Self> {
        Ok(Self {
            config: absolute("--config", &args.config)?,
            path: config_path(&args.path)?,
            control: args.control_socket.as_deref().map(Control::new).transpose()?,
            probe: args.probe.as_deref().map(probe_url).transpose()?,
            deadline: Deadline::after(args.timeout),
        })
    }
}

impl Sidecar {
    pub fn new(args: cli::SidecarArgs) -> Result<Self> {
        Ok(Self {
            config: absolute("--config", &args.config)?,
            control: args.control_socket.as_deref().map(Control::new).transpose()?,
            probe: args.probe.as_deref().map(probe_url).transpose()?,
            timeout: args.timeout,
        })
    }
}

impl Status {
    pub fn new(args: cli::StatusArgs) -> Result<Self> {
        Ok(Self {
            control: args.control_socket.as_deref().map(Control::new).transpose()?,
            json: args.format == cli::OutputFormat::Json,
            deadline: Deadline::after(args.timeout),
        })
    }
}

impl Control {
    fn new(text: &str) -> Result<Self> {
        let unusable = |why: &str| {
            Error::usage(format!("--control-socket {text}: {why}"))
                .hint("give a path, unix:PATH as unitd's --control takes it, or http://HOST:PORT")
        };
        if text.starts_with("http://") {
            let url = reqwest::Url::parse(text).map_err(|error| unusable(&error.to_string()))?;
            return Ok(Self::Http(url));
        }
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).unwrap_or(text);
        if path.is_empty() || text.starts_with("https://") {
            return Err(unusable("neither a socket's path nor an http:// address"));
        }
        Ok(Self::Unix(absolute("--control-socket", Path::new(path))?))
    }
}

/// A place in Unit's configuration, without a slash at its end.
fn config_path(text: &str) -> Result<String> {
    let path = text.trim_end_matches('/');
    let unusable = |why: &str| {
        Err(Error::usage(format!("--path {text}: {why}"))
            .hint("give /config, or a part of it: /config/applications/app; a / inside of a name is %2F"))
    };
    if path != "/config" && !path.starts_with("/config/") {
        return unusable("Unit's configuration begins at /config");
    }
    // What a request line can hold; Unit takes 1,024 bytes with its headers.
    if path.len() > 900 || !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)) {
        return unusable("it cannot stand in a request");
    }
    Ok(path.to_owned())
}

fn probe_url(text: &str) -> Result<reqwest::Url> {
    let url = reqwest::Url::parse(text).map_err(|error| {
        Error::usage(format!("--probe {text} is no URL"))
            .because(error)
            .hint("give the listener's full address: http://127.0.0.1:8300/")
    })?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(Error::usage(format!("--probe {text}: {other}:// is not HTTP"))
            .hint("give the listener's full address: http://127.0.0.1:8300/")),
    }
}

impl Check {
    pub fn new(args: cli::CheckArgs) -> Result<Self> {
        let tree = args.tree.map(|dir| {
            let venv = TreePath::new(&args.venv).ok_or_else(|| {
                Error::usage(format!("--venv {} is not inside the tree", args.venv.display())).hint(
                    "give a path relative to --tree, without ..; where the app sees the tree is --tree-final-path",
                )
            })?;
            if let Some(path) = args.tree_final_path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(Error::usage(format!("--tree-final-path {} is not absolute", path.display()))
                    .hint("give the path that the app's container will see, e.g. /app"));
            }
            Ok(Tree {
                dir: absolute("--tree", &dir)?,
                venv: venv.as_path().to_owned(),
                final_path: args.tree_final_path.as_deref().map(normal),
            })
        });
        Ok(Self { config: args.config, tree: tree.transpose()?, format: args.format })
    }
}

impl Up {
    pub fn new(args: cli::UpArgs) -> Result<Self> {
        let source = args.source.as_deref().map(|text| Source::new(text, args.checkout)).transpose()?;
        Ok(Self {
            source,
            environment: args.environment,
            config: args.config.unwrap_or_else(|| PathBuf::from("unit.conf.json")),
            once: args.once,
            deadline: Deadline::after(args.timeout),
        })
    }
}

fn link_name(name: String) -> Result<String> {
    one_name("--link", name, "give one name without a slash, which becomes a link in the root")
}

/// A name that an entry at the top can have.
fn one_name(flag: &str, name: String, hint: &str) -> Result<String> {
    let good = TreePath::new(Path::new(&name))
        .is_some_and(|path| path.as_path() == path.top() && path.as_path().as_os_str() == name.as_str());
    if good && name != RESERVED {
        return Ok(name);
    }
    Err(Error::usage(format!("{flag} {name} is no usable name")).hint(format!("{hint}; {RESERVED} is podstrap's own")))
}

/// An absolute path without `.` and `..`; relative ones start at the working directory.
fn absolute(flag: &str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map(|path| normal(&path))
        .map_err(|error| Error::usage(format!("{flag} {}: no usable path", path.display())).because(error))
}

/// Removes `.` and resolves `..` by name.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// What is accepted says no more than it should: a path in the tree stays there, a link is one name,
/// an address reads the same when it is shown, and no refusal shows a password.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(path) = TreePath::new(Path::new(text)) {
        assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))), "{path}");
        assert!(path.as_path().starts_with(path.top()));
        assert_eq!(TreePath::new(path.as_path()), Some(path));
    }
    if let Ok(name) = link_name(text.to_owned()) {
        assert!(!name.contains('/') && name != ".." && name != "." && name != RESERVED && !name.is_empty());
    }
    if text.starts_with('/')
        && let Ok(path) = absolute("--x", Path::new(text))
    {
        assert!(path.is_absolute() && !path.components().any(|part| part == Component::ParentDir), "{path:?}");
    }
    if let Ok(control) = Control::new(text) {
        assert_eq!(Control::new(&control.to_string()).ok().map(|again| again.to_string()), Some(control.to_string()));
    }
    match Links::new(text) {
        Ok(Links::InTree(path)) => {
            assert!(
                !path.as_path().components().any(|part| matches!(part, Component::ParentDir | Component::RootDir)),
                "{path}"
            );
        }
        Ok(Links::At(path)) => assert!(path.is_absolute(), "{path:?}"),
        Ok(Links::Url(url)) => assert!(!url.contains([' ', ',']), "{url}"),
        Err(_) => {}
    }
    let _ = (PythonRequest::new(Some(text)), EngineRequest::new(text), probe_url(text));
    source::fuzz(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, InitArgs};

    fn args(flags: &[&str]) -> InitArgs {
        let line = ["podstrap", "init", "--repo", "https://host/app.git", "--root", "/vol"];
        let cli = Cli::try_parse(line.iter().chain(flags).map(Into::into)).unwrap();
        let Command::Init(args) = cli.command else { panic!("{cli:?}") };
        args
    }

    fn plan(flags: &[&str]) -> Init {
        Init::new(args(flags)).unwrap()
    }

    fn refusal(flags: &[&str]) -> String {
        Init::new(args(flags)).unwrap_err().to_string()
    }

    #[test]
    fn the_environment_is_where_it_is_published_unless_told() {
        assert_eq!(plan(&["Flask"]).environment.final_path, Path::new("/vol/venv"));
        assert_eq!(plan(&["--link", "app", "Flask"]).environment.final_path, Path::new("/vol/app/venv"));
        let moved = plan(&["--venv", "python/venv", "--venv-final-path", "/app/python/venv"]).environment;
        assert_eq!(
            (moved.final_path.as_path(), moved.tree_final()),
            (Path::new("/app/python/venv"), Some("/app".into()))
        );
        assert_eq!(plan(&["--venv", "python/venv", "--venv-final-path", "/venv"]).environment.tree_final(), None);
    }

    #[test]
    fn the_size_limit_has_one_default() {
        assert_eq!(plan(&[]).size_limit, SIZE_LIMIT);
        assert_eq!(plan(&["--size-limit", "500Mi"]).size_limit, Size(500 << 20));
    }

    #[test]
    fn an_environment_is_wanted_when_something_is_named() {
        assert_eq!(plan(&[]).environment.wanted, Wanted::IfNeeded);
        assert_eq!(plan(&["--venv", "none"]).environment.wanted, Wanted::Never);
        assert_eq!(plan(&["--venv", "v"]).environment.wanted, Wanted::Always);
        assert_eq!(plan(&["-r", "r.txt"]).environment.wanted, Wanted::Always);
        assert!(refusal(&["--venv", "none", "Flask"]).contains("--venv none"));
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for venv in ["../venv", "/venv", "a/../../b", ".", ""] {
            assert!(refusal(&["--venv", venv]).contains("is not inside the tree"), "{venv}");
        }
        assert!(refusal(&["-r", "../r.txt"]).contains("is not inside the tree"));
        assert_eq!(plan(&["-r", "/config/r.txt"]).environment.requirements, [Path::new("/config/r.txt")]);
    }

    #[test]
    fn places_with_archives_are_in_the_tree_or_named_outright() {
        let links = |text: &str| plan(&["--find-links", text]).environment.supply.links[0].clone();
        assert_eq!(links("./wheels/"), Links::InTree(TreePath("wheels".into())));
        assert_eq!(links("."), Links::InTree(TreePath(".".into())));
        assert_eq!(links("/mnt/../w"), Links::At("/w".into()));
        assert_eq!(links("file:///w"), Links::At("/w".into()));
        assert_eq!(links("https://host/w"), Links::Url("https://host/w".into()));
        assert!(refusal(&["-f", "../w"]).contains("is not inside the tree"));
        assert!(refusal(&["-f", "ftp://host/w"]).contains("no usable URL"));
        assert!(refusal(&["--extra", "a,b"]).contains("--extra a,b is no name"));
        assert!(refusal(&["--group", "_x"]).contains("no name"));
    }

    #[test]
    fn a_copy_below_the_root_is_part_of_the_release() {
        let in_tree = |path: &str| Some(CopySelf::InTree(TreePath::new(Path::new(path)).unwrap()));
        assert_eq!(plan(&["--copy-self", "/vol/bin/podstrap"]).copy_self, in_tree("bin/podstrap"));
        assert_eq!(plan(&["--copy-self", "/vol/bin/"]).copy_self, in_tree("bin/podstrap"));
        assert_eq!(plan(&["--link", "a", "--copy-self", "/vol/a/podstrap"]).copy_self, in_tree("podstrap"));
        assert_eq!(plan(&["--copy-self", "/x/podstrap"]).copy_self, Some(CopySelf::Outside("/x/podstrap".into())));
        for flags in [&["--link", "a", "--copy-self", "/vol/podstrap"][..], &["--copy-self", "/vol/.podstrap/x"]] {
            assert!(refusal(flags).contains("inside the published tree"), "{flags:?}");
        }
    }

    #[test]
    fn links_are_checked() {
        for link in ["a/b", "a/", "a/.", "..", ".", "", ".podstrap", "/a"] {
            assert!(refusal(&["--link", link]).contains("no usable name"), "{link}");
        }
    }

    #[test]
    fn pythons_and_engines_are_told_apart() {
        assert_eq!(plan(&["--python", "3.13"]).environment.python, PythonRequest::Version { major: 3, minor: 13 });
        assert_eq!(
            plan(&["--python", "/usr/bin/python3"]).environment.python,
            PythonRequest::Path("/usr/bin/python3".into())
        );
        assert!(refusal(&["--python", "three"]).contains("neither a path nor a version"));
        assert_eq!(plan(&["--engine", "/opt/uv"]).environment.engine, EngineRequest::UvAt("/opt/uv".into()));
        assert!(refusal(&["--engine", "conda"]).contains("conda"));
    }

    #[test]
    fn control_addresses_take_the_forms_of_unitd() {
        for text in ["/run/x.sock", "unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(Control::new(text).unwrap(), Control::Unix("/run/x.sock".into()), "{text}");
        }
        assert_eq!(Control::new("http://127.0.0.1:8080").unwrap().to_string(), "http://127.0.0.1:8080");
        assert_eq!(config_path("/config/").unwrap(), "/config");
        assert_eq!(config_path("/config/listeners/*:80").unwrap(), "/config/listeners/*:80");
        assert!(
            config_path("/status").is_err() && config_path("/configx").is_err() && config_path("/config/a b").is_err()
        );
        assert!(Control::new("unix:").is_err() && Control::new("https://x").is_err());
    }
}
