//! interpreter → environment → installed, relocated, compiled, verified.
//!
//! An environment is built at a path that nobody uses yet. Python's own `venv` makes it, uv or pip
//! fills it, and then it is checked against the records of what was installed, told its last path
//! and compiled. What the user's variables say about indexes comes in through [`Settings`].

mod compile;
mod engine;
mod explain;
mod inputs;
mod interpreter;
mod pipconf;
mod pyproject;
mod recipe;
mod record;
mod relocate;
mod reuse;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use self::inputs::{Inputs, find};
pub use self::recipe::{Recipe, no_links, unreadable};
pub use self::reuse::adopt;
pub use self::settings::Settings;

use self::engine::Engine;
use self::relocate::Move;
use crate::blocking;
use crate::command::Failure;
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::retry::{Deadline, retry};
use crate::tree;

/// What an environment is built with, as far as it is known without starting anything: enough to
/// tell whether a kept environment still fits. Serialized into the release's key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Toolchain {
    pub python: Stamp,
    /// The uv binary, or none for pip, which belongs to the interpreter.
    pub uv: Option<Stamp>,
    /// uv was asked for: if it does not run, pip is no substitute.
    pub uv_required: bool,
}

impl Toolchain {
    /// The pips that the interpreter may find, by the names of their records: `pip-24.2.dist-info`. Where
    /// uv is there they do not matter.
    fn pips(&self) -> Vec<String> {
        let prefix = self.python.path.parent().and_then(Path::parent).filter(|_| self.uv.is_none());
        let entries = |dir: PathBuf| {
            let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
            names.filter_map(|entry| entry.file_name().into_string().ok())
        };
        let mut pips = Vec::new();
        for lib in prefix.into_iter().flat_map(|prefix| [prefix.join("lib"), prefix.join("local/lib")]) {
            for python in entries(lib.clone()).filter(|name| name.starts_with("python3")) {
                for packages in ["site-packages", "dist-packages"] {
                    let here = entries(lib.join(&python).join(packages));
                    pips.extend(here.filter(|name| name.starts_with("pip-") && name.ends_with("-info")));
                }
            }
        }
        pips.sort();
        pips
    }
}

/// A file as it is recognized without being read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
}

/// An environment as it was built.
#[derive(Debug)]
pub struct Built {
    /// `3.13.1`
    pub python_version: String,
    /// `uv 0.13.9`, `pip 24.2`
    pub engine: String,
    pub toolchain: Toolchain,
    pub distributions: Vec<Distribution>,
    /// Tells later whether somebody changed its files.
    pub fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Distribution {
    pub name: String,
    pub version: String,
}

/// Finds the interpreter and the engine without starting either where that can be avoided.
pub async fn locate(
    settings: &Settings,
    python: &plan::PythonRequest,
    engine: &plan::EngineRequest,
    deadline: Deadline,
) -> Result<Toolchain> {
    settings.check()?;
    let python = interpreter::locate(python, settings, deadline).await?;
    let uv = engine::locate_uv(engine, settings)?;
    let uv_asked = matches!(engine, plan::EngineRequest::Uv | plan::EngineRequest::UvAt(_));
    Ok(Toolchain { python, uv, uv_required: uv_asked })
}

/// Without these it is none (PEP 405).
const ESSENTIAL: [&str; 2] = ["pyvenv.cfg", "bin/python"];

/// An environment under construction at a path that is not its last.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    toolchain: Toolchain,
    dir: PathBuf,
    final_path: PathBuf,
    tree_final: Option<PathBuf>,
    scratch: PathBuf,
    python: Python,
    engine: Engine,
    installed: OnceLock<(Inputs, Option<PathBuf>)>,
}

/// What the interpreter says of itself.
#[derive(Debug)]
struct Python {
    version: String,
    /// What a wheel must be for: `cp313 manylinux x86_64`.
    platform: String,
    /// Where `pip` can be imported from, and its version.
    pip: Option<(PathBuf, String)>,
    /// site-packages as a path in the environment.
    site: PathBuf,
}

impl Builder {
    /// Creates an empty environment at `dir` (absolute, not existing yet), which is to be used at
    /// `final_path`. `scratch` is an existing directory on the same file system for what is
    /// needed meanwhile: TMPDIR, netrc, the engine's cache, whose files are linked into the environment
    /// and must not outlive its building, or what an app does to its files would be in the next one.
    pub async fn create(
        settings: Settings,
        toolchain: &Toolchain,
        dir: &Path,
        final_path: &Path,
        scratch: &Path,
        deadline: Deadline,
    ) -> Result<Self> {
        let made = create(&settings, &toolchain.python.path, dir, final_path, scratch, deadline);
        let (python, uv) = tokio::join!(made, engine::start_uv(toolchain, &settings, scratch, deadline));
        let python = python?;
        let engine = match uv? {
            Some(uv) => uv,
            None => Engine::pip(&toolchain.python.path, &python)?,
        };
        settings.warn(engine.is_uv());
        Ok(Self {
            settings,
            toolchain: toolchain.clone(),
            dir: dir.to_owned(),
            final_path: final_path.to_owned(),
            tree_final: None,
            scratch: scratch.to_owned(),
            python,
            engine,
            installed: OnceLock::new(),
        })
    }

    /// Says where the tree that `install` works in will be, for projects in it that are installed
    /// editable.
    #[must_use]
    pub fn tree_final(mut self, path: &Path) -> Self {
        self.tree_final = Some(path.to_owned());
        self
    }

    /// Installs into it, once. `cwd` is the tree, which relative paths in requirements files refer
    /// to.
    pub async fn install(&self, inputs: &Inputs, cwd: Option<&Path>, deadline: Deadline) -> Result<()> {
        inputs.check()?;
        let _ = self.installed.set((inputs.clone(), cwd.map(Path::to_owned)));
        self.fill(inputs, cwd, false, deadline).await
    }

    /// Makes it right for its final path, compiles the bytecode and verifies that every file the
    /// records name is there.
    pub async fn finish(self, deadline: Deadline) -> Result<Built> {
        let site = &self.python.site;
        let (mut files, mut missing) = self.look().await?;
        if let (Some(first), Some((inputs, cwd))) = (missing.first(), self.installed.get()) {
            tracing::warn!("the installation is incomplete ({first}): installing once more, past the cache");
            self.fill(inputs, cwd.as_deref(), true, deadline).await?;
            (files, missing) = self.look().await?;
        }
        if let Some(lost) = ESSENTIAL.iter().find(|name| !files.contains_key(Path::new(name))) {
            return Err(Error::environment(format!("the installation removed the environment's {lost}"))
                .hint("a package's build did that: install it as a wheel, or leave it out"));
        }
        for problem in &missing {
            tracing::warn!("{problem}, though its RECORD names it: the package itself is faulty");
        }
        let (dir, own_site, moves) = (self.dir.clone(), site.clone(), self.moves());
        let files = blocking(move || relocate::relocate(&dir, &files, &own_site, &moves).map(|()| files)).await?;
        let job = compile::Job {
            python: &self.toolchain.python.path,
            root: &self.dir,
            final_path: &self.final_path,
            scratch: &self.scratch,
        };
        let compiled = compile::compile(job, &files, site, &self.settings, deadline).await?;
        tracing::debug!("compiled {compiled} files");
        let (dir, own_site) = (self.dir.clone(), site.clone());
        let known = move || Ok((record::distributions(&dir, &files, &own_site)?, reuse::fingerprint(&dir)?));
        let (distributions, fingerprint) = blocking(known).await?;
        Ok(Built {
            distributions,
            fingerprint,
            python_version: self.python.version,
            engine: self.engine.name,
            toolchain: self.toolchain,
        })
    }

    /// The files that are there, and what of them is missing.
    async fn look(&self) -> Result<(record::Files, Vec<String>)> {
        let (dir, site) = (self.dir.clone(), self.python.site.clone());
        blocking(move || {
            let files = record::walk(&dir)?;
            let missing = record::missing(&dir, &files, &site);
            Ok((files, missing))
        })
        .await
    }

    /// Installs, tried again while the trouble may pass. `anew`: over what is there, and with nothing
    /// from the cache.
    async fn fill(&self, inputs: &Inputs, cwd: Option<&Path>, anew: bool, deadline: Deadline) -> Result<()> {
        let mut empty = !anew;
        retry(deadline, "install", async || {
            // No engine says what a failed try left, and uv takes it for installed.
            if !std::mem::take(&mut empty) {
                // Time ran out because of the tries before.
                let late = |error: Error| if deadline.passed() { error.unreachable() } else { error };
                self.empty(deadline).await.map_err(late)?;
            }
            self.engine.install(&self.place(), inputs, cwd, anew, deadline).await
        })
        .await
    }

    async fn empty(&self, deadline: Deadline) -> Result<()> {
        let dir = self.dir.clone();
        blocking(move || tree::remove(&dir).on_volume(|| format!("cannot remove {}", dir.display()))).await?;
        let python = &self.toolchain.python.path;
        create(&self.settings, python, &self.dir, &self.final_path, &self.scratch, deadline).await?;
        Ok(())
    }

    fn place(&self) -> engine::Place<'_> {
        engine::Place { settings: &self.settings, dir: &self.dir, scratch: &self.scratch, python: &self.python }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = vec![Move { from: self.dir.clone(), to: self.final_path.clone() }];
        let tree = self.installed.get().and_then(|(_, cwd)| cwd.clone());
        if let (Some(from), Some(to)) = (tree, self.tree_final.clone()) {
            moves.push(Move { from, to });
        }
        moves
    }
}

/// Makes the empty environment and hears what the interpreter is, by one start of it.
async fn create(
    settings: &Settings,
    python: &Path,
    dir: &Path,
    final_path: &Path,
    scratch: &Path,
    deadline: Deadline,
) -> Result<Python> {
    let what = || format!("cannot create a virtual environment with {}", python.display());
    let output = settings
        .command(python, scratch)
        .args(interpreter::BARE)
        .args(["-c", include_str!("environment.py")])
        .arg(dir)
        .arg(final_path)
        .run(deadline)
        .await
        .map_err(|failure| child_error(&what(), failure))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if let Some(version) = said("version") {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
        let number = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        interpreter::refuse_old(python, version, number)?;
        if said("missing").is_some() {
            return Err(Error::environment(what()).because("its standard library has no venv module").hint(
                "install the rest of it (Debian, Ubuntu: python3-venv), or use an image with a complete Python",
            ));
        }
        if output.status.success() && said("created").is_some() {
            let (major, minor) = number;
            let soabi = said("soabi").unwrap_or_default();
            let arch = said("platform").and_then(|platform| platform.split_once('-')).map_or("", |(_, arch)| arch);
            let libc = if soabi.ends_with("musl") { "musllinux" } else { "manylinux" };
            return Ok(Python {
                version: version.to_owned(),
                platform: format!("cp{major}{minor} {libc} {arch}"),
                pip: said("pip").zip(said("pip_version")).map(|(place, version)| (place.into(), version.to_owned())),
                site: format!("lib/python{major}.{minor}/site-packages").into(),
            });
        }
    }
    if let Some(error) = explain::full(&what(), &output.stderr) {
        return Err(error.excerpt(explain::excerpt(&output.stderr)));
    }
    Err(Error::environment(what()).because(output.status.to_string()).excerpt(explain::excerpt(&output.stderr)).hint(
        explain::limit(&output.status.to_string(), &output.stderr)
            .unwrap_or("run the same interpreter by hand: python3 -m venv --without-pip DIR"),
    ))
}

/// A child that gave no output: not started, or ended at the deadline.
fn child_error(what: &str, failure: Failure) -> Error {
    let excerpt = match &failure {
        Failure::Deadline { stderr, .. } => explain::excerpt(stderr),
        _ => String::new(),
    };
    let hint = match &failure {
        Failure::Deadline { .. } => Some("raise --timeout, or find out what is slow with --log-level debug"),
        Failure::Start { source, .. } | Failure::Read { source, .. } => explain::limit("", &source.to_string()),
    };
    let mut error = Error::environment(what).because(failure);
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    if excerpt.is_empty() { error } else { error.excerpt(excerpt) }
}

/// Whether installing these must wait for the checkout, because a file or path in the tree is
/// named.
pub fn needs_tree(plan: &plan::Environment) -> bool {
    let unnamed = plan.packages.is_empty() && plan.requirements.is_empty();
    unnamed
        || plan.supply.links.iter().any(|links| matches!(links, plan::Links::InTree(_)))
        || plan.requirements.iter().chain(&plan.constraints).any(|file| file.is_relative())
        || plan.packages.iter().any(|package| is_local_path(package))
}

/// What pip takes for an archive by its name.
const ARCHIVES: &[&str] =
    &[".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.lz", ".tlz", ".tar.lzma"];

/// What follows the `@` of `name[extras] @ target`; a path may have one, too.
fn target(requirement: &str) -> &str {
    let name =
        |text: &str| text.chars().all(|c| c.is_alphanumeric() || " \t-_.,[]".contains(c)) && !text.starts_with('.');
    match requirement.split_once('@') {
        Some((before, target)) if name(before) => target.trim(),
        _ => requirement,
    }
}

/// Whether pip would look for it in the working directory.
fn is_local_path(package: &str) -> bool {
    let target = target(package);
    if let Some(path) = target.strip_prefix("file:") {
        return !path.starts_with('/');
    }
    if target.starts_with('/') || target.contains("://") {
        return false;
    }
    let archive = ARCHIVES.iter().any(|suffix| target.ends_with(suffix));
    target.starts_with('.') || target.starts_with("-e") || target.contains('/') || archive
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::explain::fuzz as explain;
    pub use super::pipconf::fuzz as pipconf;
    pub use super::pyproject::fuzz as pyproject;
    pub use super::recipe::fuzz as requirements;
    pub use super::record::fuzz as record;
    pub use super::relocate::fuzz as relocate;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_are_told_from_names() {
        for path in [".", ".[dev]", "./x", "../x", "libs/x", "x-1.0-py3-none-any.whl", "x @ file:./x", "file:x"] {
            assert!(is_local_path(path), "{path}");
        }
        for name in
            ["Flask", "flask[async]==3.1.*", "x @ https://host/x.whl", "git+https://host/x", "/abs/x", "file:///abs/x"]
        {
            assert!(!is_local_path(name), "{name}");
        }
    }
}
