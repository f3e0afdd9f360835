//! interpreter → environment → installed, relocated, compiled, verified.
//!
//! An environment is built at a path that nobody uses yet. Python's own `venv` makes it, uv or pip
//! fills it, and then it is checked against the records of what was installed, told its last path
//! and compiled. What the user's variables say about indexes comes in through [`Settings`].

mod app;
mod compile;
mod consistency;
mod elf;
mod engine;
mod explain;
mod fit;
mod inputs;
mod interpreter;
mod origin;
mod pipconf;
mod pyproject;
mod recipe;
mod record;
mod relocate;
mod reuse;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use self::inputs::{Inputs, find};
pub use self::recipe::{Recipe, no_links, unreadable};
pub use self::reuse::adopt;
pub use self::settings::Settings;

use self::app::App;
use self::engine::Engine;
use self::relocate::Move;
use crate::command::Failure;
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::redact;
use crate::retry::{Deadline, retry};
use crate::runtime::blocking;
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
    /// `3.13.1`; `3.13` of another Python than the one that built it.
    pub python_version: String,
    /// Where the interpreter is that runs it.
    pub python_path: PathBuf,
    /// `uv 0.13.9`, `pip 24.2`
    pub engine: String,
    pub toolchain: Toolchain,
    pub distributions: Vec<Distribution>,
    /// Tells later whether somebody changed its files.
    pub fingerprint: String,
}

/// An installed distribution, as release.json tells of it:
///
/// ```json
/// {"name": "Flask", "version": "3.1.2", "contents": "sha256:6a1c…",
///  "source": {"url": "https://host/flask-3.1.2-py3-none-any.whl", "hash": "sha256:bf65…"}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Distribution {
    pub name: String,
    pub version: String,
    /// Hash over the paths and hashes of its files, by its RECORD and without what an installer adds:
    /// the same whether uv or pip installed it.
    pub contents: String,
    /// Where it came from, if the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Origin>,
}

/// Where a distribution came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Of an archive, a repository or a directory, without credentials; of what was in the tree, as the app
    /// sees it.
    pub url: String,
    /// `sha256:…` of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// It is read from there whenever the app starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub editable: bool,
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
    app: App,
    strict: bool,
    tree_public: Option<PathBuf>,
    engine: Engine,
    installed: OnceLock<(Inputs, Option<PathBuf>)>,
}

/// What the interpreter says of itself.
#[derive(Debug)]
struct Python {
    version: String,
    /// 3.13 is (3, 13).
    number: (u32, u32),
    /// `cpython-313-x86_64-linux-gnu`
    soabi: String,
    free_threaded: bool,
    /// Below: what markers ask for. `3.13.1rc1`
    full_version: String,
    /// `cpython`
    implementation: String,
    implementation_version: String,
    machine: String,
    release: String,
    kernel: String,
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
        let app = App::new(&plan::AppTarget::default(), &python, &toolchain.python.path, None)?;
        settings.warn(engine.is_uv());
        Ok(Self {
            settings,
            toolchain: toolchain.clone(),
            dir: dir.to_owned(),
            final_path: final_path.to_owned(),
            tree_final: None,
            scratch: scratch.to_owned(),
            python,
            app,
            strict: false,
            tree_public: None,
            engine,
            installed: OnceLock::new(),
        })
    }

    /// Says for whom it is: another Python or platform than the one that builds it, and where that Python's
    /// interpreter is. `strict`: what is not as it should be is an error.
    ///
    /// # Errors
    /// No environment can be made for that.
    pub fn target(mut self, target: &plan::AppTarget, interpreter: Option<&Path>, strict: bool) -> Result<Self> {
        self.app = App::new(target, &self.python, &self.toolchain.python.path, interpreter)?;
        self.strict = strict;
        if self.app.is_elsewhere() {
            self.settings.build_nothing();
        }
        if self.app.other_python {
            tracing::info!(
                "for Python {}, whose interpreter is expected at {}",
                self.app.version,
                self.app.interpreter.display()
            );
        }
        Ok(self)
    }

    /// Says where the tree is published: what is installed from it tells that it came from there.
    #[must_use]
    pub fn tree_public(mut self, path: &Path) -> Self {
        self.tree_public = Some(path.to_owned());
        self
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
        let mut problems: Vec<String> = missing
            .into_iter()
            .map(|problem| format!("{problem}, though its RECORD names it: the package itself is faulty"))
            .collect();
        let (dir, place, base) = (self.dir.clone(), self.destination(), self.toolchain.python.path.clone());
        let own_site = site.clone();
        let app = self.app.clone();
        let files = blocking(move || {
            relocate::relocate(&dir, &files, &own_site, &place)?;
            if relocate::interpreter(&dir, &base, &own_site, &app)? { record::walk(&dir) } else { Ok(files) }
        })
        .await?;
        let site = &self.app.site;
        let (dir, own_site) = (self.dir.clone(), site.clone());
        let (files, dists) = blocking(move || {
            let dists = record::installed(&dir, &files, &own_site)?;
            Ok((files, Arc::new(dists)))
        })
        .await?;
        let python = &self.toolchain.python.path;
        let tools = (&self.settings, self.scratch.as_path());
        problems.extend(fit::check(&self.dir, Arc::clone(&dists), &self.app, python, tools, deadline).await?);
        problems.extend(consistency::check(&dists, &self.app));
        self.report(problems)?;
        let job = compile::Job {
            python: &self.toolchain.python.path,
            root: &self.dir,
            final_path: &self.final_path,
            scratch: &self.scratch,
        };
        if self.app.other_python {
            tracing::warn!(
                "no bytecode: Python {} cannot compile for Python {}, so every start of the app compiles what it imports, \
                 unless it may write; run podstrap with Python {} to have it compiled",
                self.python.version,
                self.app.version,
                self.app.version
            );
        } else {
            let compiled = compile::compile(job, &files, site, &self.settings, deadline).await?;
            tracing::debug!("compiled {compiled} files");
        }
        let dir = self.dir.clone();
        let fingerprint = blocking(move || reuse::fingerprint(&dir)).await?;
        let distributions = self.distributions(&dists, deadline).await;
        Ok(Built {
            distributions,
            fingerprint,
            python_version: self.app.version,
            python_path: self.app.interpreter,
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
        let base = &self.toolchain.python.path;
        engine::Place { settings: &self.settings, dir: &self.dir, scratch: &self.scratch, base, app: &self.app }
    }

    /// What is not as it should be: warnings, or with `--strict` an error.
    fn report(&self, problems: Vec<String>) -> Result<()> {
        if self.strict && !problems.is_empty() {
            let error = Error::environment("what was installed is not as it should be, and --strict is given")
                .hint("correct the requirements, or publish it with these warnings: without --strict");
            return Err(match &problems[..] {
                [one] => error.because(one.as_str()),
                _ => error.excerpt(problems.join("\n")),
            });
        }
        for problem in problems {
            tracing::warn!("{problem}");
        }
        Ok(())
    }

    /// What release.json tells of what is installed. Where it came from is asked of the engine; that it does
    /// not tell harms nobody.
    async fn distributions(&self, dists: &[record::Installed], deadline: Deadline) -> Vec<Distribution> {
        let asked = self.installed.get();
        let archives = match asked {
            Some((inputs, cwd)) if !dists.is_empty() => {
                self.engine.archives(&self.place(), inputs, cwd.as_deref(), dists, deadline).await
            }
            _ => Vec::new(),
        };
        let destination = self.destination();
        let describe = |dist: &record::Installed| {
            let direct = dist.direct_url.as_deref().and_then(origin::direct);
            let source = direct.or_else(|| origin::of_archive(dist, &archives)).map(|origin| {
                let url = redact::clean(&destination.rewrite(&origin.url));
                Origin { url, ..origin }
            });
            Distribution {
                name: dist.name.clone(),
                version: dist.version.clone(),
                contents: dist.contents(&self.app.site),
                source,
            }
        };
        dists.iter().map(describe).collect()
    }

    fn destination(&self) -> relocate::Destination {
        let mut moves = vec![Move { from: self.dir.clone(), to: self.final_path.clone() }];
        let tree = self.installed.get().and_then(|(_, cwd)| cwd.clone());
        if let (Some(from), Some(to)) = (tree.clone(), self.tree_final.clone()) {
            moves.push(Move { from, to });
        }
        let told = self.tree_final.clone().or_else(|| self.tree_public.clone());
        let told = tree.map(|from| Move { to: told.unwrap_or_else(|| from.clone()), from });
        relocate::Destination { moves, told, scratch: self.scratch.clone() }
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
            let known = |name: &str| said(name).unwrap_or_default().to_owned();
            return Ok(Python {
                version: version.to_owned(),
                number,
                soabi: known("soabi"),
                free_threaded: said("free_threaded") == Some("1"),
                full_version: known("full_version"),
                implementation: known("implementation"),
                implementation_version: known("implementation_version"),
                machine: known("machine"),
                release: known("release"),
                kernel: known("kernel"),
                pip: said("pip").zip(said("pip_version")).map(|(place, version)| (place.into(), version.to_owned())),
                site: known("site").into(),
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
    pub use super::elf::fuzz as elf;
    pub use super::explain::fuzz as explain;
    pub use super::origin::fuzz as origin;
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
