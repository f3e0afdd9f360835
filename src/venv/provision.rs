//! Provides the environment of one run: creates or adopts it, installs packages, finishes it. Steps that
//! need no file of the tree run in parallel with the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::StatVfsMountFlags;

use super::builder::{BuildDirs, Builder, Built};
use super::identity::{Identified, Identities};
use super::inputs::{self, DEFAULTS, Inputs};
use super::key::{self, Recipe};
use super::record::EnvironmentRecord;
use super::requirements::Requirement;
use super::reuse;
use super::settings::Settings;
use super::toolchain::{Toolchain, locate};
use crate::confine::Confinement;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::{self, Links, Wanted};
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::size::count;
use crate::telemetry::Phases;
use crate::tree;

/// The inputs and the context for the environment of one run.
#[derive(Debug)]
pub struct Provision<'a> {
    plan: &'a plan::Environment,
    /// The public path of the tree.
    tree_public: PathBuf,
    settings: Settings,
    /// `None` if it was not found and nothing has needed it yet.
    toolchain: Option<Toolchain>,
    recipe: Recipe,
    identities: Identities,
    phases: &'a Phases,
    deadline: Deadline,
}

/// The state of an environment before the tree is complete.
#[derive(Debug)]
pub enum Begun {
    /// It waits for the tree, or the run needs none.
    Nothing,
    /// Created, without packages.
    Created(Box<Builder>),
    /// All packages are installed. Its key is known when the tree is complete.
    Installed(Box<Builder>),
    /// Taken from a release.
    Adopted(Box<EnvironmentRecord>),
}

/// An environment with all packages, before [`Provision::finish`].
#[derive(Debug)]
pub struct Filled {
    key: String,
    builder: Box<Builder>,
}

/// The state of an environment after the tree is complete.
#[derive(Debug)]
pub enum Provided {
    /// The run needs no environment.
    None,
    /// Complete.
    Ready(Box<EnvironmentRecord>),
    /// It still needs [`Provision::finish`].
    Filled(Filled),
}

impl<'a> Provision<'a> {
    /// Reads everything outside the tree that determines the environment. Installs nothing. `known` are files
    /// that an earlier run has identified.
    ///
    /// # Errors
    /// A given file cannot be read, or a required interpreter or engine is missing.
    pub async fn new(
        plan: &'a plan::Environment,
        source: &plan::Source,
        tree_public: PathBuf,
        known: Vec<Identified>,
        confinement: Option<Arc<Confinement>>,
        phases: &'a Phases,
        deadline: Deadline,
    ) -> Result<Self> {
        let settings = Settings::of_process().with(&plan.supply, &source.auth).at_home(source.home());
        let settings = settings.confined(confinement);
        let identities = Identities::new(known);
        let toolchain = toolchain(plan, &settings, &identities, deadline).await?;
        let recipe = {
            let (plan, public, settings) = (plan.clone(), tree_public.clone(), settings.clone());
            let (toolchain, identities) = (toolchain.clone(), identities.clone());
            // It reads places with archives.
            blocking(move || Recipe::new(&plan, &public, &settings, toolchain.as_ref(), &identities, deadline)).await?
        };
        Ok(Self { plan, tree_public, settings, toolchain, recipe, identities, phases, deadline })
    }

    /// The files that were read to know what they are: the next run need not read them again.
    pub fn identities(&self) -> Vec<Identified> {
        self.identities.needed()
    }

    /// Hash of the inputs of the environment that are known without the tree. Together with the source's
    /// revision, it determines a release.
    pub fn digest(&self) -> String {
        self.recipe.digest()
    }

    /// Hash of the files outside a tree that the requirements in it refer to.
    pub async fn elsewhere(&self, tree: PathBuf) -> Result<String> {
        let tree = self.needs_tree().then_some(tree);
        let (inputs, recipe, deadline) = (self.inputs(tree.as_deref())?, self.recipe.clone(), self.deadline);
        blocking(move || recipe.elsewhere(&inputs, tree.as_deref(), deadline)).await
    }

    /// Starts the environment, as far as possible without the tree. `ready` lists environments to adopt,
    /// with their directories; `revision` is the source's revision, if already known.
    pub async fn begin(
        &self,
        dirs: &BuildDirs,
        ready: &[(PathBuf, EnvironmentRecord)],
        revision: Option<&str>,
    ) -> Result<Begun> {
        if self.plan.wanted != Wanted::Always {
            return Ok(Begun::Nothing);
        }
        if self.needs_tree() {
            // The tree may show that an existing environment matches.
            if ready.is_empty() || self.plan.refresh {
                return Ok(Begun::Created(self.create(dirs).await?));
            }
            return Ok(Begun::Nothing);
        }
        let inputs = self.inputs(None)?;
        if let Some(revision) = revision {
            let key = self.key(&inputs, None, revision).await?;
            if let Some(record) = self.adopt(&key, ready, dirs).await? {
                return Ok(Begun::Adopted(Box::new(record)));
            }
        }
        let builder = self.create(dirs).await?;
        self.install(&builder, &inputs, None).await?;
        Ok(Begun::Installed(builder))
    }

    /// Continues with the complete tree, until all packages are installed.
    pub async fn install_all(
        &self,
        begun: Begun,
        dirs: &BuildDirs,
        ready: &[(PathBuf, EnvironmentRecord)],
        tree: &Path,
        revision: &str,
    ) -> Result<Provided> {
        let named = self.needs_tree().then_some(tree);
        let inputs = self.inputs(named)?;
        let found = self.plan.takes_default() && !inputs.requirements.is_empty();
        let key = self.key(&inputs, named, revision).await?;
        let builder = match begun {
            Begun::Adopted(record) => return Ok(Provided::Ready(record)),
            Begun::Installed(builder) => return Ok(Provided::Filled(Filled { key, builder })),
            Begun::Nothing if self.plan.wanted != Wanted::Always && !found => {
                if self.plan.wanted == Wanted::IfNeeded {
                    tracing::info!("nothing to install: the top of the tree has no {}", DEFAULTS.join(", "));
                }
                return Ok(Provided::None);
            }
            Begun::Nothing => match self.adopt(&key, ready, dirs).await? {
                Some(record) => return Ok(Provided::Ready(Box::new(record))),
                None => self.create(dirs).await?,
            },
            Begun::Created(builder) => builder,
        };
        if found {
            let file = inputs.requirements.first().and_then(|file| file.file_name()).unwrap_or_default();
            tracing::info!("installing {} from the tree", file.display());
        }
        if !inputs.is_empty() || !inputs.extras.is_empty() || !inputs.groups.is_empty() {
            self.install(&builder, &inputs, Some(tree)).await?;
        }
        Ok(Provided::Filled(Filled { key, builder }))
    }

    /// Relocates, compiles and verifies the environment. The tree must still be at the same path.
    pub async fn finish(&self, filled: Filled) -> Result<EnvironmentRecord> {
        let phase = self.phases.start("finish", "relocate, compile, verify");
        let built = filled.builder.finish(self.deadline).await?;
        phase.done(&format!(
            "{} for Python {}",
            count(built.distributions.len() as u64, "package"),
            built.python_version
        ));
        Ok(self.record(built, filled.key))
    }

    /// Takes the environment with this key from a release that has it.
    async fn adopt(
        &self,
        key: &str,
        ready: &[(PathBuf, EnvironmentRecord)],
        dirs: &BuildDirs,
    ) -> Result<Option<EnvironmentRecord>> {
        let Some((from, record)) = ready.iter().find(|(_, record)| record.key == key && !self.plan.refresh) else {
            return Ok(None);
        };
        let shown = from.display().to_string();
        let phase = self.phases.start("venv", &format!("from {shown}"));
        let (from, to, fingerprint) = (from.clone(), dirs.venv.clone(), record.fingerprint.clone());
        if !blocking(move || reuse::adopt(&from, &to, &fingerprint)).await? {
            tracing::warn!("{shown} has changed since its build: rebuilding");
            return Ok(None);
        }
        phase.done(&format!("{}, reused", count(record.packages.len() as u64, "package")));
        Ok(Some(EnvironmentRecord { venv: self.plan.venv.as_path().to_owned(), ..record.clone() }))
    }

    /// Computes the key. Reads local projects and wheelhouses for it.
    async fn key(&self, inputs: &Inputs, tree: Option<&Path>, revision: &str) -> Result<String> {
        let (recipe, inputs, tree) = (self.recipe.clone(), inputs.clone(), tree.map(Path::to_owned));
        let (revision, deadline) = (revision.to_owned(), self.deadline);
        blocking(move || recipe.key(&inputs, tree.as_deref(), &revision, deadline)).await
    }

    async fn create(&self, dirs: &BuildDirs) -> Result<Box<Builder>> {
        let plan = self.plan;
        let found;
        let toolchain = if let Some(toolchain) = &self.toolchain {
            toolchain
        } else {
            // The first search failed, but nothing needed the interpreter then. Now report the error.
            let (python, engine) = (&plan.python, &plan.engine);
            found = locate(&self.settings, python, engine, &self.identities, self.deadline).await?;
            &found
        };
        // The app's container mounts the same volume, usually in the same way.
        if rustix::fs::statvfs(&dirs.scratch).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
            tracing::warn!(
                "the volume is mounted noexec: Python cannot load extension modules from it, and no script of a package \
                 runs; mount it without noexec, or install only packages in pure Python"
            );
        }
        let phase = self.phases.start("venv", &plan.venv.to_string());
        let made =
            Builder::create(self.settings.clone(), toolchain, plan, &self.tree_public, dirs.clone(), self.deadline);
        let builder = Box::new(made.await?);
        phase.done(&format!("for {}", plan.final_path.display()));
        Ok(builder)
    }

    async fn install(&self, builder: &Builder, inputs: &Inputs, tree: Option<&Path>) -> Result<()> {
        let names = inputs.requirements.iter().map(|file| match plan::remote(file) {
            Some(url) => format!("-r {}", redact::shown(url)),
            None => format!("-r {}", file.file_name().unwrap_or_default().display()),
        });
        let doing = inputs.packages.iter().cloned().chain(names).collect::<Vec<_>>().join(" ");
        let phase = self.phases.start("install", &doing);
        builder.install(inputs, tree, self.deadline).await?;
        phase.done(&doing);
        Ok(())
    }

    /// The inputs of the installation. Needs `tree` if any of them is in the tree.
    fn inputs(&self, tree: Option<&Path>) -> Result<Inputs> {
        let plan = self.plan;
        let resolve = |flag: &str, files: &[PathBuf]| -> Result<Vec<PathBuf>> {
            files
                .iter()
                .map(|file| match tree {
                    _ if plan::remote(file).is_some() => Ok(file.clone()),
                    Some(tree) if file.is_relative() => tree::file(flag, tree, file),
                    _ => files::open(file).map(|_| file.clone()).map_err(|error| key::unreadable(file, &error)),
                })
                .collect()
        };
        let mut requirements = resolve("-r", &plan.requirements)?;
        if let Some(tree) = tree.filter(|_| plan.takes_default()) {
            requirements.extend(inputs::find(tree)?);
        }
        let mut find_links = Vec::new();
        for links in &plan.supply.links {
            find_links.push(match (links, tree) {
                (Links::Url(url), _) => url.clone(),
                (Links::At(path), _) => {
                    // uv would fail, and pip would continue without it.
                    fs::metadata(path).map_err(|error| key::no_links(path, &error))?;
                    path.display().to_string()
                }
                (Links::InTree(path), Some(tree)) => {
                    tree::file("--find-links", tree, path.as_path())?.display().to_string()
                }
                (Links::InTree(path), None) => return Err(Error::internal(format!("--find-links {path} has no tree"))),
            });
        }
        Ok(Inputs {
            packages: plan.packages.clone(),
            requirements,
            constraints: resolve("-c", &plan.constraints)?,
            extras: plan.extras.clone(),
            groups: plan.groups.clone(),
            find_links,
            refresh: plan.refresh,
        })
    }

    fn record(&self, built: Built, key: String) -> EnvironmentRecord {
        EnvironmentRecord {
            key,
            fingerprint: built.fingerprint,
            venv: self.plan.venv.as_path().to_owned(),
            final_path: self.plan.final_path.clone(),
            python: built.python_version,
            python_path: built.python_path,
            engine: built.engine,
            toolchain: built.toolchain,
            target: self.plan.target.clone(),
            packages: built.distributions,
        }
    }

    /// Whether the installation must wait for the checkout, because it needs a file or path in the tree.
    fn needs_tree(&self) -> bool {
        let plan = self.plan;
        let unnamed = plan.packages.is_empty() && plan.requirements.is_empty();
        unnamed
            || plan.supply.links.iter().any(|links| matches!(links, Links::InTree(_)))
            || plan.requirements.iter().chain(&plan.constraints).any(|file| plan::is_in_tree(file))
            || plan.packages.iter().filter_map(|package| Requirement::read(package)).any(|found| found.is_relative())
    }
}

/// Finds the interpreter and the engine. If the run may need no environment, a missing one is not an error yet.
async fn toolchain(
    plan: &plan::Environment,
    settings: &Settings,
    identities: &Identities,
    deadline: Deadline,
) -> Result<Option<Toolchain>> {
    if plan.wanted == Wanted::Never {
        return Ok(None);
    }
    match locate(settings, &plan.python, &plan.engine, identities, deadline).await {
        Ok(toolchain) => Ok(Some(toolchain)),
        // An unreadable interpreter is not a missing one.
        Err(error) if plan.wanted == Wanted::Always || error.kind() == Kind::Volume => Err(error),
        Err(error) => {
            tracing::debug!("cannot build an environment: {}", error.summary());
            Ok(None)
        }
    }
}
