//! The virtual environment: its packages, their origin, and the Python that runs it.

use std::path::{Component, Path, PathBuf};

use super::paths::{TreePath, absolute, normal};
use super::platform::Platform;
use super::store::Store;
use super::target::Target;
use crate::cli;
use crate::error::{Error, Kind, Result, refuse_bare_login};

/// The requested virtual environment.
#[derive(Debug, Clone)]
pub struct Environment {
    pub wanted: Wanted,
    /// Directory in the tree.
    pub venv: TreePath,
    /// Absolute path in the app's container, as shebangs and metadata will name it.
    pub final_path: PathBuf,
    /// Whether the user gave `final_path`; else it follows from the target.
    pub final_path_named: bool,
    pub python: PythonRequest,
    /// Relative paths are in the tree. For URLs see [`remote`].
    pub requirements: Vec<PathBuf>,
    /// The same.
    pub constraints: Vec<PathBuf>,
    pub packages: Vec<String>,
    /// Extras of the pyproject.toml and uv.lock files.
    pub extras: Vec<String>,
    pub groups: Vec<String>,
    pub supply: Supply,
    pub engine: EngineRequest,
    pub refresh: bool,
    /// Absolute path of the interpreter in the app's image, if given.
    pub python_final: Option<PathBuf>,
    /// The Python and platform of the app's image, if given.
    pub target: AppTarget,
    /// Fail instead of warning about incomplete or incompatible packages.
    pub strict: bool,
    /// Where ready environments are.
    pub store: Option<Store>,
    /// Build steps in the complete tree, for `/bin/sh`.
    pub commands: Vec<String>,
}

/// The Python of the app's image, where it differs from the one that builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AppTarget {
    /// `(3, 13)` for 3.13.
    pub python: Option<(u32, u32)>,
    pub platform: Option<Platform>,
}

/// Where packages may come from, and which ones.
#[derive(Debug, Clone, Default)]
pub struct Supply {
    pub links: Vec<Links>,
    pub no_index: bool,
    /// Install only wheels.
    pub only_binary: bool,
    pub require_hashes: bool,
}

/// A place to find packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Links {
    InTree(TreePath),
    /// A directory, an archive or a page on this machine.
    At(PathBuf),
    /// A page with links.
    Url(String),
}

/// Whether to create an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `--venv none`.
    Never,
    /// Only if there is something to install.
    IfNeeded,
    /// `--venv PATH`, or the user named packages or files.
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PythonRequest {
    /// `python3` on PATH.
    Default,
    Path(PathBuf),
    Version {
        major: u32,
        minor: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineRequest {
    /// uv if podstrap finds one, else pip.
    Auto,
    /// The uv next to podstrap's binary, or on PATH.
    Uv,
    UvAt(PathBuf),
    Pip,
}

impl Environment {
    pub fn new(args: &cli::EnvironmentArgs, target: &Target) -> Result<Self> {
        let asked = args.venv.as_deref().filter(|venv| *venv != "none");
        let parts = !(args.extras.is_empty() && args.groups.is_empty());
        let named = !(args.packages.is_empty() && args.requirements.is_empty()) || parts;
        let wanted = match args.venv.as_deref() {
            Some("none") if named => {
                return Err(Error::usage("--venv none conflicts with packages, requirements files, extras or groups")
                    .hint("remove --venv none, or remove the packages, -r, --extra and --group"));
            }
            Some("none") => Wanted::Never,
            Some(_) => Wanted::Always,
            None if named => Wanted::Always,
            None => Wanted::IfNeeded,
        };
        let venv = TreePath::new(Path::new(asked.unwrap_or("venv"))).ok_or_else(|| {
            Error::usage(format!("--venv {} is not inside the tree", asked.unwrap_or_default())).hint(
                "give a path relative to the top of the repository, without ..; set the path in the app's container \
                 with --venv-final-path",
            )
        })?;
        let final_path = match &args.venv_final_path {
            Some(path) if !path.is_absolute() => {
                return Err(Error::usage(format!("--venv-final-path {} is not absolute", path.display()))
                    .hint("give the path in the app's container, such as /app/python/venv"));
            }
            Some(path) => normal(path),
            None => target.public().join(venv.as_path()),
        };
        if let Some(bad) = args.packages.iter().find(|package| package.starts_with('-')) {
            return Err(Error::usage(format!("{bad} is not a package")).hint("put flags before the packages"));
        }
        for package in &args.packages {
            refuse_bare_login(Kind::Usage, "the package", package)?;
        }
        for file in args.requirements.iter().chain(&args.constraints) {
            if let Some(url) = remote(file) {
                refuse_bare_login(Kind::Usage, "-r or -c", url)?;
                let form = url.split(['?', '#']).next().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
                if form == "uv.lock" || form == "pyproject.toml" || form.starts_with("pylock.") {
                    return Err(Error::usage(format!("podstrap does not read {form} from a URL"))
                        .hint("commit the file, or give the URL of a requirements file"));
                }
            } else if file.is_relative() && TreePath::new(file).is_none() {
                return Err(Error::usage(format!("{} is not inside the tree", file.display()))
                    .hint("give a path relative to the top of the repository, without .., or an absolute path"));
            }
        }
        if args.commands.iter().any(|command| command.trim().is_empty()) {
            return Err(Error::usage("--run has no command").hint("give the command, or remove --run"));
        }
        Ok(Self {
            commands: args.commands.clone(),
            wanted,
            venv,
            final_path,
            final_path_named: args.venv_final_path.is_some(),
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
            store: Store::new(&args.store)?,
        })
    }
}

/// The URL of a file for `-r` or `-c`, if it is on a web server.
pub fn remote(file: &Path) -> Option<&str> {
    file.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://"))
}

/// Whether a file for `-r` or `-c` is in the tree.
pub fn is_in_tree(file: &Path) -> bool {
    file.is_relative() && remote(file).is_none()
}

fn python_final(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(normal(path));
    }
    Err(Error::usage(format!("--python-final-path {} is not absolute", path.display()))
        .hint("give the path of the interpreter in the app's image, such as /usr/local/bin/python3.13"))
}

fn target_python(text: &str) -> Result<(u32, u32)> {
    match PythonRequest::new(Some(text)) {
        Ok(PythonRequest::Version { major, minor }) => Ok((major, minor)),
        _ => Err(Error::usage(format!("--target-python {text} is not a version"))
            .hint("give major.minor of the Python in the app's image, such as 3.13")),
    }
}

impl Environment {
    /// The same environment for a tree that is published at another target.
    #[must_use]
    pub fn published_at(self, target: &Target) -> Self {
        let final_path =
            if self.final_path_named { self.final_path } else { target.public().join(self.venv.as_path()) };
        Self { final_path, ..self }
    }

    /// Whether to install the requirements that the tree itself contains, because the user named none.
    pub fn takes_default(&self) -> bool {
        self.wanted != Wanted::Never && self.packages.is_empty() && self.requirements.is_empty()
    }

    /// Path of the tree in the app's container, if the final path reveals it: `/app` for an environment
    /// at `python/venv` whose final path is `/app/python/venv`.
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
        // pip separates such lists by white space and uv by commas, so a URL must contain neither.
        refuse_bare_login(Kind::Usage, "--find-links", text)?;
        if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| *scheme != "file") {
            let plain = !text.contains([' ', '\t', '\n', ',']);
            return match scheme {
                "http" | "https" if plain => Ok(Self::Url(text.to_owned())),
                _ => Err(Error::usage(format!("--find-links {text} is not a valid URL"))
                    .hint("give https:// or http://, with %20 for a space and %2C for a comma, or a path")),
            };
        }
        let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
        if path.is_absolute() {
            return Ok(Self::At(normal(path)));
        }
        // `.` is the tree itself.
        if path.components().all(|part| part == Component::CurDir) && !text.is_empty() {
            return Ok(Self::InTree(TreePath::top_itself()));
        }
        TreePath::new(path).map(Self::InTree).ok_or_else(|| {
            Error::usage(format!("--find-links {text} is not inside the tree"))
                .hint("give a path relative to the top of the repository, without .., or an absolute path")
        })
    }
}

/// Validates names of extras and groups.
/// Source: <https://packaging.python.org/en/latest/specifications/name-normalization/#name-format>
fn names(flag: &str, names: &[String]) -> Result<Vec<String>> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = |name: &str| {
        let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        inner && edge(name.chars().next()) && edge(name.chars().next_back())
    };
    match names.iter().find(|name| !good(name)) {
        Some(bad) => {
            Err(Error::usage(format!("{flag} {bad} is not a valid name"))
                .hint("give one name; repeat the flag for more"))
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
                .hint("give a path with a slash, or major.minor such as 3.13")),
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
            other => Err(Error::usage(format!("unknown --engine {other}"))
                .hint("give auto, uv, pip, or the path of a uv binary with a slash in it")),
        }
    }
}

/// Links stay in the tree, are absolute, or are URLs that fit into a list.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
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
    let _ = (PythonRequest::new(Some(text)), EngineRequest::new(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::init::tests::{plan, refusal};

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
    fn an_environment_is_wanted_when_something_is_named() {
        assert_eq!(plan(&[]).environment.wanted, Wanted::IfNeeded);
        assert_eq!(plan(&["--venv", "none"]).environment.wanted, Wanted::Never);
        assert_eq!(plan(&["--venv", "v"]).environment.wanted, Wanted::Always);
        assert_eq!(plan(&["-r", "r.txt"]).environment.wanted, Wanted::Always);
        assert!(refusal(&["--venv", "none", "Flask"]).contains("--venv none"));
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for venv in ["../venv", "/venv", "a/../../b", ".", "", ".podstrap", ".podstrap/venv"] {
            assert!(refusal(&["--venv", venv]).contains("is not inside the tree"), "{venv}");
        }
        assert!(refusal(&["-r", "../r.txt"]).contains("is not inside the tree"));
        assert_eq!(plan(&["-r", "/config/r.txt"]).environment.requirements, [Path::new("/config/r.txt")]);
    }

    #[test]
    fn places_with_archives_are_in_the_tree_or_named_outright() {
        let links = |text: &str| plan(&["--find-links", text]).environment.supply.links[0].clone();
        assert_eq!(links("./wheels/"), Links::InTree(TreePath::new(Path::new("wheels")).unwrap()));
        assert_eq!(links("."), Links::InTree(TreePath::top_itself()));
        assert_eq!(links("/mnt/../w"), Links::At("/w".into()));
        assert_eq!(links("file:///w"), Links::At("/w".into()));
        assert_eq!(links("https://host/w"), Links::Url("https://host/w".into()));
        assert!(refusal(&["-f", "../w"]).contains("is not inside the tree"));
        assert!(refusal(&["-f", "ftp://host/w"]).contains("is not a valid URL"));
        assert!(refusal(&["--extra", "a,b"]).contains("--extra a,b is not a valid name"));
        assert!(refusal(&["--group", "_x"]).contains("not a valid name"));
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
}
