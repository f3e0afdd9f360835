//! Provides the environment of one run: creates or adopts it, installs packages, finishes it. Steps that
//! need no file of the tree run in parallel with the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::StatVfsMountFlags;

use super::builder::{BuildDirs, Builder, Built};
use super::forecast::Forecast;
use super::identity::{Identified, Identities};
use super::inputs::{self, DEFAULTS, Inputs};
use super::key::{self, Keyed, Recipe};
use super::record::EnvironmentRecord;
use super::requirements::Requirement;
use super::settings::Settings;
use super::toolchain::{Toolchain, locate};
use super::{leak, reuse};
use crate::confine::Confinement;
use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::plan::{self, Links, Wanted};
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::size::{Size, count};
use crate::store::{Draft, Fetched, Lease, Manifest, Store, ago};
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
    store: Option<Store>,
    /// While this run builds the environment for the store.
    lease: Mutex<Option<Lease>>,
    /// The options that decide the tree: with a commit, they identify it.
    shape: String,
}

/// The state of an environment before the tree is complete.
#[derive(Debug)]
pub enum Begun {
    /// It waits for the tree, or the run needs none.
    Nothing,
    /// Created, without packages.
    Created(Box<Builder>),
    /// All packages are installed. Its key is known when the tree is complete.
    Installed(Box<Builder>, Instant),
    /// Taken from a release or the store.
    Adopted(Box<EnvironmentRecord>),
}

/// An environment with all packages, before [`Provision::finish`].
#[derive(Debug)]
pub struct Filled {
    keyed: Keyed,
    builder: Box<Builder>,
    /// The start of its build.
    since: Instant,
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
        let store = match &plan.store {
            Some(store) => Some(Store::new(store, &source.auth).await?),
            None => None,
        };
        let shape = serde_json::json!(source.shape()).to_string();
        let lease = Mutex::new(None);
        Ok(Self { plan, tree_public, settings, toolchain, recipe, identities, phases, deadline, store, lease, shape })
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
            if self.store.is_none() && ready.is_empty() || self.plan.refresh {
                return Ok(Begun::Created(self.create(dirs).await?));
            }
            return Ok(Begun::Nothing);
        }
        let inputs = self.inputs(None)?;
        if revision.is_some() || self.store.is_some() {
            let keyed = self.key(&inputs, None, revision.unwrap_or_default()).await?;
            if (revision.is_some() || !keyed.has_revision)
                && let Some(record) = self.find(&keyed, ready, dirs).await?
            {
                return Ok(Begun::Adopted(Box::new(record)));
            }
        }
        let since = Instant::now();
        let builder = self.create(dirs).await?;
        self.install(&builder, &inputs, None).await?;
        Ok(Begun::Installed(builder, since))
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
        let keyed = self.key(&inputs, named, revision).await?;
        let since = Instant::now();
        let builder = match begun {
            Begun::Adopted(record) => return Ok(Provided::Ready(record)),
            Begun::Installed(builder, since) => return Ok(Provided::Filled(Filled { keyed, builder, since })),
            Begun::Nothing if self.plan.wanted != Wanted::Always && !found => {
                if self.plan.wanted == Wanted::IfNeeded {
                    tracing::info!("nothing to install: the top of the tree has no {}", DEFAULTS.join(", "));
                }
                return Ok(Provided::None);
            }
            Begun::Nothing => match self.find(&keyed, ready, dirs).await? {
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
        Ok(Provided::Filled(Filled { keyed, builder, since }))
    }

    /// What an environment on a new volume would take: from the store, or from the package index. `None`: the run needs
    /// no environment. Writes only to `dirs`.
    ///
    /// # Errors
    /// Those of the installation, as far as they need no installed package.
    pub async fn forecast(&self, dirs: &BuildDirs, tree: &Path, revision: &str) -> Result<Option<Forecast>> {
        let named = self.needs_tree().then_some(tree);
        let inputs = self.inputs(named)?;
        let found = self.plan.takes_default() && !inputs.requirements.is_empty();
        if self.plan.wanted != Wanted::Always && !found {
            return Ok(None);
        }
        let keyed = self.key(&inputs, named, revision).await?;
        if let Some(store) = self.store.as_ref().filter(|_| keyed.unknown.is_none() && !self.plan.refresh)
            && let Some(manifest) = store.look(&keyed.key).await?
            && let Some(record) = self.restorable(&manifest, &keyed)
        {
            return Ok(Some(Forecast::of_store(&record, shown(&manifest), manifest.archive.bytes)));
        }
        self.refuse_unknown(&keyed)?;
        let doing = shown_inputs(&inputs);
        let phase = self.phases.start("resolve", &doing);
        let builder = self.build_at(dirs).await?;
        let forecast = builder.forecast(&inputs, Some(tree), self.deadline).await?;
        phase.done(&format!("{doing}: {}", count(forecast.packages.len() as u64, "package")));
        Ok(Some(forecast))
    }

    /// Relocates, compiles and verifies the environment. The tree must still be at the same path.
    pub async fn finish(
        &self,
        filled: Filled,
        dirs: &BuildDirs,
        ready: &[(PathBuf, EnvironmentRecord)],
    ) -> Result<EnvironmentRecord> {
        let phase = self.phases.start("finish", "relocate, compile, verify");
        let earlier = self.earlier(ready).await?;
        let built = filled.builder.finish(earlier.as_deref(), self.deadline).await?;
        phase.done(&format!(
            "{} for Python {}",
            count(built.distributions.len() as u64, "package"),
            built.python_version
        ));
        let record = self.record(built, filled.keyed.key.clone());
        self.save(&record, &filled.keyed, filled.since.elapsed(), dirs).await?;
        Ok(record)
    }

    /// An unchanged environment of a release whose bytecode this one may take.
    async fn earlier(&self, ready: &[(PathBuf, EnvironmentRecord)]) -> Result<Option<PathBuf>> {
        let Some(toolchain) = &self.toolchain else { return Ok(None) };
        let fits = |record: &EnvironmentRecord| self.fits(record) && record.toolchain.python == toolchain.python;
        let Some((dir, record)) = ready.iter().find(|(_, record)| fits(record)) else { return Ok(None) };
        let (dir, record) = (dir.clone(), record.clone());
        blocking(move || Ok(reuse::is_unchanged(&dir, &record).then_some(dir))).await
    }

    /// Takes the environment with this key from a release, or else from the store.
    async fn find(
        &self,
        keyed: &Keyed,
        ready: &[(PathBuf, EnvironmentRecord)],
        dirs: &BuildDirs,
    ) -> Result<Option<EnvironmentRecord>> {
        match self.adopt(&keyed.key, ready, dirs).await? {
            Some(record) => Ok(Some(record)),
            None => self.fetch(keyed, dirs).await,
        }
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
        // A build step could write into a file of the release that serves.
        let may_link = self.plan.commands.is_empty();
        if !blocking(move || reuse::adopt(&from, &to, &fingerprint, may_link)).await? {
            tracing::warn!("{shown} has changed since its build: rebuilding");
            return Ok(None);
        }
        phase.done(&format!("{}, reused", count(record.packages.len() as u64, "package")));
        let venv = self.plan.venv.as_path().to_owned();
        Ok(Some(EnvironmentRecord { venv, store: None, ..record.clone() }))
    }

    /// Restores the environment with this key from the store. `None`: this run must build it.
    async fn fetch(&self, keyed: &Keyed, dirs: &BuildDirs) -> Result<Option<EnvironmentRecord>> {
        let Some(store) = &self.store else { return Ok(None) };
        if let Some(why) = &keyed.unknown {
            tracing::info!("not using the store: {why}, and so podstrap cannot identify this environment");
            return Ok(None);
        }
        if self.plan.refresh {
            return Ok(None);
        }
        let phase = self.phases.start("store", "looking for the environment");
        let manifest = match store.fetch(&keyed.key, &dirs.venv, self.deadline).await? {
            Fetched::Restored(manifest) => manifest,
            Fetched::Missing(lease) => {
                phase.done(if lease.is_some() { "no environment for these inputs: building it" } else { "building" });
                *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
                return Ok(None);
            }
        };
        let venv = dirs.venv.clone();
        let fingerprint = blocking(move || reuse::fingerprint(&venv)).await?;
        let Some(record) = self.restorable(&manifest, keyed) else {
            store.warn(&Error::volume("the store's record of the environment is not for these inputs"));
            let venv = dirs.venv.clone();
            blocking(move || tree::remove(&venv).on_volume(|| format!("cannot remove {}", venv.display()))).await?;
            return Ok(None);
        };
        let from = shown(&manifest);
        phase.done(&format!("{}, from the store: {from}", count(record.packages.len() as u64, "package")));
        let venv = self.plan.venv.as_path().to_owned();
        Ok(Some(EnvironmentRecord { venv, fingerprint, store: Some(from), ..record }))
    }

    /// The record in a manifest of the store, if it is for these inputs.
    fn restorable(&self, manifest: &Manifest, keyed: &Keyed) -> Option<EnvironmentRecord> {
        let record: Option<EnvironmentRecord> = serde_json::from_value(manifest.environment.clone()).ok();
        record.filter(|record| record.key == keyed.key && self.fits(record))
    }

    /// With `--store-only`, an environment without a key has no use.
    fn refuse_unknown(&self, keyed: &Keyed) -> Result<()> {
        let required = self.store.as_ref().is_some_and(Store::is_required);
        let Some(why) = keyed.unknown.as_ref().filter(|_| required) else { return Ok(()) };
        Err(Error::environment("cannot save this environment in a store")
            .because(format!("{why}, and so podstrap cannot identify the environment"))
            .hint("name a full commit or a version for each requirement, and keep its files in the tree"))
    }

    /// Saves a built environment in the store, if there is one.
    ///
    /// # Errors
    /// With `--store-only`, the store could not be written.
    async fn save(&self, record: &EnvironmentRecord, keyed: &Keyed, took: Duration, dirs: &BuildDirs) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        self.refuse_unknown(keyed)?;
        if keyed.unknown.is_some() || !store.is_writable() {
            return Ok(());
        }
        let phase = self.phases.start("store", "saving the environment");
        let failed = |error| Error::internal("cannot serialize the environment's record").because(error);
        let draft = Draft {
            key: keyed.key.clone(),
            inputs: keyed.inputs.clone(),
            environment: serde_json::to_value(record).map_err(failed)?,
            is_fixed: self.plan.supply.require_hashes
                || keyed.pins.decide(record.packages.iter().map(|package| package.name.as_str())),
            took,
        };
        let secrets = self.settings.secrets()?;
        let saved = if leak::is_in(&format!("{}{}", draft.inputs, draft.environment), &secrets)? {
            Err(Error::environment("the inputs of the environment contain a secret of this run"))
        } else {
            store.save(draft, &dirs.venv, self.deadline).await
        };
        // Only now: others wait for the entry.
        drop(self.lease.lock().unwrap_or_else(PoisonError::into_inner).take());
        match saved {
            Ok(manifest) => {
                let (size, files) = (Size(manifest.archive.bytes), count(manifest.archive.files, "file"));
                phase.done(&format!("saved {files} in {size}"));
            }
            Err(error) if store.is_required() => return Err(error),
            Err(error) => store.warn(&error),
        }
        Ok(())
    }

    /// Whether a record is for the plan, as far as it says.
    fn fits(&self, record: &EnvironmentRecord) -> bool {
        record.final_path == self.plan.final_path && record.target == self.plan.target
    }

    /// Computes the key. Reads local projects and wheelhouses for it.
    async fn key(&self, inputs: &Inputs, tree: Option<&Path>, revision: &str) -> Result<Keyed> {
        let (recipe, inputs, tree) = (self.recipe.clone(), inputs.clone(), tree.map(Path::to_owned));
        let (revision, deadline) = (format!("{revision} {}", self.shape), self.deadline);
        blocking(move || recipe.key(&inputs, tree.as_deref(), &revision, deadline)).await
    }

    async fn create(&self, dirs: &BuildDirs) -> Result<Box<Builder>> {
        // The app's container mounts the same volume, usually in the same way.
        if rustix::fs::statvfs(&dirs.scratch).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
            tracing::warn!(
                "the volume is mounted noexec: Python cannot load extension modules from it, and no script of a package \
                 runs; mount it without noexec, or install only packages in pure Python"
            );
        }
        let phase = self.phases.start("venv", &self.plan.venv.to_string());
        let builder = self.build_at(dirs).await?;
        phase.done(&format!("for {}", self.plan.final_path.display()));
        Ok(builder)
    }

    async fn build_at(&self, dirs: &BuildDirs) -> Result<Box<Builder>> {
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
        let made =
            Builder::create(self.settings.clone(), toolchain, plan, &self.tree_public, dirs.clone(), self.deadline);
        Ok(Box::new(made.await?))
    }

    async fn install(&self, builder: &Builder, inputs: &Inputs, tree: Option<&Path>) -> Result<()> {
        let doing = shown_inputs(inputs);
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
            store: None,
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

/// `Flask -r requirements.txt`
fn shown_inputs(inputs: &Inputs) -> String {
    let names = inputs.requirements.iter().map(|file| match plan::remote(file) {
        Some(url) => format!("-r {}", redact::shown(url)),
        None => format!("-r {}", file.file_name().unwrap_or_default().display()),
    });
    inputs.packages.iter().cloned().chain(names).collect::<Vec<_>>().join(" ")
}

/// `3.2 MB, built 5m ago in 4.1 s`
fn shown(manifest: &Manifest) -> String {
    let built = manifest.age().map(|age| format!(", built {}", ago(age))).unwrap_or_default();
    format!("{}{built} in {:.1} s", Size(manifest.archive.bytes), manifest.took().as_secs_f64())
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
