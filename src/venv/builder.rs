//! Builds an environment: creates it, installs packages, relocates it, verifies it, compiles it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::app::App;
use super::engine::{self, Asked, Engine};
use super::forecast::{self, Forecast};
use super::inputs::Inputs;
use super::python::{self, Python};
use super::record::{Distribution, DistributionOrigin};
use super::relocate::{self, Relocation};
use super::requirements::package;
use super::settings::Settings;
use super::{Toolchain, compile, consistency, fit, installed, leak, origin, repositories, reuse};
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::redact;
use crate::retry::{Deadline, retry};
use crate::runtime::blocking;
use crate::tree;

/// The directories for the build of an environment.
#[derive(Debug, Clone)]
pub struct BuildDirs {
    /// The environment's directory, absolute; it does not exist yet.
    pub venv: PathBuf,
    /// An existing directory on the same file system for temporary files: TMPDIR, netrc, the engine's cache.
    /// The environment may have hard links to its files. Delete it after the build: otherwise changes that
    /// an app makes to its files would appear in the next environment.
    pub scratch: PathBuf,
}

/// A complete environment.
#[derive(Debug)]
pub struct Built {
    /// `3.13.1`, or `3.13` if another Python built it.
    pub python_version: String,
    /// The path of the interpreter that runs it.
    pub python_path: PathBuf,
    /// `uv 0.13.9`, `pip 24.2`
    pub engine: String,
    pub toolchain: Toolchain,
    pub distributions: Vec<Distribution>,
    /// Shows later whether its files were changed.
    pub fingerprint: String,
}

/// The packages of an environment.
struct Checked {
    dists: Arc<Vec<installed::Installed>>,
    archives: Vec<origin::Archive>,
    /// A sentence for each.
    problems: Vec<String>,
}

/// Files that every environment needs (PEP 405).
const ESSENTIAL: [&str; 2] = ["pyvenv.cfg", "bin/python"];

/// An environment under construction, not at its final path.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    toolchain: Toolchain,
    dirs: BuildDirs,
    final_path: PathBuf,
    /// The tree's path in the app's container, for editable projects in it.
    tree_final: Option<PathBuf>,
    /// The public path of the tree: the recorded origin of packages from the tree.
    tree_public: PathBuf,
    python: Python,
    app: App,
    /// Fail instead of warning about incomplete or incompatible packages.
    strict: bool,
    engine: Engine,
    installed: OnceLock<Asked>,
}

impl Builder {
    /// Creates an empty environment at `dirs.venv`, for the Python and the path in `wanted`.
    ///
    /// # Errors
    /// The interpreter or the engine does not run, or is too old.
    pub async fn create(
        mut settings: Settings,
        toolchain: &Toolchain,
        wanted: &plan::Environment,
        tree_public: &Path,
        dirs: BuildDirs,
        deadline: Deadline,
    ) -> Result<Self> {
        let base = &toolchain.python.path;
        let made = python::create(&settings, base, &dirs.venv, &wanted.final_path, &dirs.scratch, deadline);
        let (python, uv) = tokio::join!(made, engine::start_uv(toolchain, &settings, &dirs.scratch, deadline));
        let python = python?;
        let engine = match uv? {
            Some(uv) => uv,
            None => Engine::pip(base, &python)?,
        };
        settings.warn(engine.is_uv());
        let app = App::new(&wanted.target, &python, base, wanted.python_final.as_deref())?;
        if app.is_elsewhere() {
            settings.build_nothing();
        }
        if app.other_python {
            tracing::info!(
                "the environment is for Python {}: the app's image must have this interpreter at {}",
                app.version,
                app.interpreter.display()
            );
        }
        Ok(Self {
            settings,
            toolchain: toolchain.clone(),
            dirs,
            final_path: wanted.final_path.clone(),
            tree_final: wanted.tree_final(),
            tree_public: tree_public.to_owned(),
            python,
            app,
            strict: wanted.strict,
            engine,
            installed: OnceLock::new(),
        })
    }

    /// Installs the packages. Call it at most once. `cwd` is the tree, the base of relative paths in
    /// requirements files.
    pub async fn install(&self, inputs: &Inputs, cwd: Option<&Path>, deadline: Deadline) -> Result<()> {
        let asked = self.ask(inputs, cwd, deadline).await?;
        self.fill(self.installed.get_or_init(|| asked), false, deadline).await
    }

    /// Resolves the packages as [`install`](Self::install) would. Installs nothing.
    pub async fn forecast(&self, inputs: &Inputs, cwd: Option<&Path>, deadline: Deadline) -> Result<Forecast> {
        let asked = self.ask(inputs, cwd, deadline).await?;
        let asked = self.installed.get_or_init(|| asked);
        let plan = async || self.engine.plan(&self.workspace(), asked, deadline).await;
        let planned = retry(deadline, "resolve", plan).await?;
        let packages = forecast::complete(planned, &self.settings, &self.destination(), deadline).await;
        Ok(Forecast {
            final_path: self.final_path.clone(),
            python: self.app.version.clone(),
            engine: self.engine.name.clone(),
            store: None,
            download: packages.iter().map(|planned| planned.bytes).sum(),
            packages,
        })
    }

    /// Reads the inputs.
    async fn ask(&self, inputs: &Inputs, cwd: Option<&Path>, deadline: Deadline) -> Result<Asked> {
        inputs.check()?;
        let since = SystemTime::now();
        let mut flat = self.engine.read(&self.settings, inputs, cwd, deadline).await?;
        let mut inputs = inputs.clone();
        inputs.packages = inputs.packages.iter().map(|text| package(text)).collect::<Result<_>>()?;
        repositories::resolve(&mut flat, &mut inputs.packages, &self.settings, deadline).await?;
        Ok(Asked { inputs, cwd: cwd.map(Path::to_owned), flat, since })
    }

    /// Relocates the environment to its final path, verifies that the files of all records exist, and
    /// compiles the bytecode. `earlier` is an unchanged environment for the same interpreter and path, with bytecode to take.
    pub async fn finish(self, earlier: Option<&Path>, deadline: Deadline) -> Result<Built> {
        let site = &self.python.site;
        let (mut files, mut missing) = self.look().await?;
        if let (Some(first), Some(asked)) = (missing.first(), self.installed.get()) {
            tracing::warn!("the installation is incomplete ({first}): installing again without the cache");
            self.fill(asked, true, deadline).await?;
            (files, missing) = self.look().await?;
        }
        if let Some(lost) = ESSENTIAL.iter().find(|name| !files.contains_key(Path::new(name))) {
            return Err(Error::environment(format!("the installation removed the environment's {lost}"))
                .hint("remove the package whose build deletes this file, or install a wheel of that package"));
        }
        let mut problems: Vec<String> = missing
            .into_iter()
            .map(|problem| format!("{problem}, although its RECORD lists it: the package is faulty"))
            .collect();
        let (dir, place, base) = (self.dirs.venv.clone(), self.destination(), self.toolchain.python.path.clone());
        let own_site = site.clone();
        let app = self.app.clone();
        let files = blocking(move || {
            relocate::relocate(&dir, &files, &own_site, &place)?;
            if relocate::interpreter(&dir, &base, &own_site, &app)? { installed::files(&dir) } else { Ok(files) }
        })
        .await?;
        let files = Arc::new(files);
        // The compiler and the checks need nothing from each other.
        let (compiled, checked) = tokio::join!(self.compile(&files, earlier, deadline), self.check(&files, deadline));
        let Checked { dists, archives, problems: found } = checked?;
        problems.extend(found);
        self.report(problems)?;
        compiled?;
        let mut secrets = self.settings.secrets()?;
        if let Some(asked) = self.installed.get() {
            let packages = asked.inputs.packages.iter().chain(&asked.inputs.find_links);
            secrets.extend(asked.flat.logins().into_iter().chain(packages.filter_map(|text| redact::login_in(text))));
        }
        let dir = self.dirs.venv.clone();
        let tree = self.installed.get().and_then(|asked| Some((asked.cwd.clone()?, asked.since)));
        blocking(move || {
            leak::search(&dir, &secrets, None)?;
            tree.map_or(Ok(()), |(tree, since)| leak::search(&tree, &secrets, Some(since)))
        })
        .await?;
        let dir = self.dirs.venv.clone();
        let fingerprint = blocking(move || reuse::fingerprint(&dir)).await?;
        let distributions = self.distributions(&dists, &archives);
        Ok(Built {
            distributions,
            fingerprint,
            python_version: self.app.version,
            python_path: self.app.interpreter,
            engine: self.engine.name,
            toolchain: self.toolchain,
        })
    }

    /// Reads the installed packages, and checks that the app's Python can use them. Nothing needs the engine's cache
    /// afterwards.
    async fn check(&self, files: &Arc<installed::EnvironmentFiles>, deadline: Deadline) -> Result<Checked> {
        let (dir, site, files) = (self.dirs.venv.clone(), self.app.site.clone(), Arc::clone(files));
        let dists = blocking(move || installed::installed(&dir, &files, &site).map(Arc::new)).await?;
        let python = &self.toolchain.python.path;
        let tools = (&self.settings, self.dirs.scratch.as_path());
        let (fits, archives) = tokio::join!(
            fit::check(&self.dirs.venv, Arc::clone(&dists), &self.app, python, tools, deadline),
            self.archives(&dists, deadline)
        );
        let mut problems = fits?;
        problems.extend(consistency::check(&dists, &self.app));
        let cache = self.dirs.scratch.join(engine::CACHE);
        // Whatever is left is deleted with the scratch directory.
        let _ = blocking(move || Ok(tree::remove(&cache))).await;
        Ok(Checked { dists, archives, problems })
    }

    /// Lists the files, and the problems with files of the records.
    async fn look(&self) -> Result<(installed::EnvironmentFiles, Vec<String>)> {
        let (dir, site) = (self.dirs.venv.clone(), self.python.site.clone());
        blocking(move || {
            let files = installed::files(&dir)?;
            // Before anything runs in the environment.
            if let Some((path, package)) = installed::replaced(&dir, &files, &site)? {
                let path = path.display();
                return Err(Error::environment(format!("{package} replaces {path} of the environment"))
                    .because("the wheel has a script or a data file with this name")
                    .hint(format!("remove {package}, or ask its authors to rename the file")));
            }
            let missing = installed::missing(&dir, &files, &site)?;
            Ok((files, missing))
        })
        .await
    }

    /// Installs, and retries temporary failures. `anew` reinstalls everything without the cache.
    async fn fill(&self, asked: &Asked, anew: bool, deadline: Deadline) -> Result<()> {
        let mut empty = !anew;
        retry(deadline, "install", async || {
            // A failed try may leave files that uv takes for installed packages.
            if !std::mem::take(&mut empty) {
                // The earlier tries used up the time.
                let late = |error: Error| if deadline.passed() { error.unreachable() } else { error };
                self.empty(deadline).await.map_err(late)?;
            }
            self.engine.install(&self.workspace(), asked, anew, deadline).await
        })
        .await
        .map_err(|error| self.settings.explain_confinement(error))
    }

    async fn empty(&self, deadline: Deadline) -> Result<()> {
        let dir = self.dirs.venv.clone();
        blocking(move || tree::remove(&dir).on_volume(|| format!("cannot remove {}", dir.display()))).await?;
        let python = &self.toolchain.python.path;
        python::create(&self.settings, python, &self.dirs.venv, &self.final_path, &self.dirs.scratch, deadline).await?;
        Ok(())
    }

    fn workspace(&self) -> engine::Workspace<'_> {
        let base = &self.toolchain.python.path;
        engine::Workspace {
            settings: &self.settings,
            dir: &self.dirs.venv,
            scratch: &self.dirs.scratch,
            base,
            app: &self.app,
        }
    }

    /// Logs the problems as warnings, or fails with `--strict`.
    fn report(&self, problems: Vec<String>) -> Result<()> {
        if self.strict && !problems.is_empty() {
            let error = Error::environment("the installed packages have problems, which --strict forbids")
                .hint("correct the requirements, or remove --strict to publish with these warnings");
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

    async fn compile(
        &self,
        files: &installed::EnvironmentFiles,
        earlier: Option<&Path>,
        deadline: Deadline,
    ) -> Result<()> {
        if self.app.other_python {
            tracing::warn!(
                "no bytecode: Python {} cannot compile for Python {}; run podstrap with Python {}, or every start of \
                 an app without write access compiles its imports",
                self.python.version,
                self.app.version,
                self.app.version
            );
            return Ok(());
        }
        let job = compile::Job {
            python: &self.toolchain.python.path,
            root: &self.dirs.venv,
            final_path: &self.final_path,
            scratch: &self.dirs.scratch,
            earlier,
        };
        compile::compile(job, files, &self.app.site, &self.settings, deadline).await
    }

    /// The archives of the installed packages. Asks the engine, and continues without an unknown one.
    async fn archives(&self, dists: &[installed::Installed], deadline: Deadline) -> Vec<origin::Archive> {
        match self.installed.get() {
            Some(asked) if !dists.is_empty() => self.engine.archives(&self.workspace(), asked, dists, deadline).await,
            _ => Vec::new(),
        }
    }

    /// The installed packages for release.json.
    fn distributions(&self, dists: &[installed::Installed], archives: &[origin::Archive]) -> Vec<Distribution> {
        let destination = self.destination();
        let describe = |dist: &installed::Installed| {
            let direct = dist.direct_url.as_deref().and_then(origin::direct);
            let source = direct.or_else(|| origin::of_archive(dist, archives)).map(|origin| {
                let url = redact::clean(&destination.rewrite(&origin.url));
                DistributionOrigin { url, ..origin }
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
        let mut moves = vec![Relocation { from: self.dirs.venv.clone(), to: self.final_path.clone() }];
        let tree = self.installed.get().and_then(|asked| asked.cwd.clone());
        if let (Some(from), Some(to)) = (tree.clone(), self.tree_final.clone()) {
            moves.push(Relocation { from, to });
        }
        let told = self.tree_final.as_ref().unwrap_or(&self.tree_public);
        let told = tree.map(|from| Relocation { from, to: told.clone() });
        relocate::Destination { moves, told, scratch: self.dirs.scratch.clone() }
    }
}
