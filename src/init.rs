//! `podstrap init`: source → venv → publish.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};
use crate::http;
use crate::plan::{CopySelf, Init, Links, Wanted};
use crate::publish::{EnvironmentRecord, MANIFEST_VERSION, Manifest, Release, SourceRecord, Staging, Volume};
use crate::runtime::{blocking, hex};
use crate::selfcopy;
use crate::size::{Size, count};
use crate::source::{self, Checkout, Known, Resolved, Revision, Validator};
use crate::telemetry::{Phase, PhaseTime};
use crate::tree;
use crate::usage::{Meter, Usage};
use crate::venv::{self, Builder, Built, Inputs, Recipe, Settings, Toolchain};

/// What a run of `init` left.
#[derive(Debug)]
pub struct Outcome {
    pub release: Release,
    /// Where the tree is found by its public name.
    pub path: PathBuf,
    pub how: How,
    pub phases: Vec<PhaseTime>,
}

/// How a release came to be shown.
#[derive(Debug)]
pub enum How {
    /// It was built, and this was on the volume.
    Built(Usage),
    /// It was there already.
    Unchanged,
    /// It is the last that could be had: a remote is out of reach (`--stale-ok`).
    Stale(Error),
}

/// Brings the volume to the state that the plan describes.
pub async fn run(plan: &Init) -> Result<Outcome> {
    if let Some(file) = &plan.source.ca_file {
        http::trust(file)?;
    }
    let volume = Volume::lock(&plan.target.root, plan.deadline).await?;
    volume.check(&plan.target, None)?;
    if let Some(CopySelf::Outside(path)) = &plan.copy_self {
        let path = path.clone();
        blocking(move || selfcopy::copy_to(&path)).await?;
    }
    let settings = Settings::of_process().with(&plan.environment.supply, &plan.source.auth);
    let toolchain = toolchain(plan, &settings).await?;
    let recipe = Recipe::new(&plan.environment, &settings, toolchain.as_ref(), plan.deadline)?;
    let run = Run { plan, volume: &volume, settings, toolchain, recipe, staging: OnceCell::new() };
    match run.update().await {
        Err(error) if plan.stale_ok && error.is_unreachable() => run.stale(error),
        result => result,
    }
}

/// What every step of one run needs.
struct Run<'a> {
    plan: &'a Init,
    volume: &'a Volume,
    settings: Settings,
    toolchain: Option<Toolchain>,
    recipe: Recipe,
    /// Made when there is something to put there: an unchanged rerun writes nothing.
    staging: OnceCell<Staging>,
}

/// A checked out source.
struct Fetched {
    revision: Revision,
    validator: Option<Validator>,
    checkout: Checkout,
    phases: Vec<PhaseTime>,
}

/// A release that only needs to be shown.
struct Staged {
    manifest: Manifest,
    phases: Vec<PhaseTime>,
}

/// How far an environment came without the tree.
enum Begun {
    Nothing,
    Created(Builder),
    Installed(Builder),
    /// A release had it.
    Adopted(EnvironmentRecord),
}

impl Run<'_> {
    /// Brings the volume up to date: by what is there, or by a build.
    async fn update(&self) -> Result<Outcome> {
        if let Some(revision) = source::pinned(&self.plan.source)
            && let Some(outcome) = self.reuse(&revision, Vec::new()).await?
        {
            return Ok(outcome);
        }
        let updated = self.update_from_remote().await;
        // Of a file that came, and turned out to be the one that is published.
        if self.staging.get().is_some() {
            self.volume.clear().await;
        }
        updated
    }

    async fn update_from_remote(&self) -> Result<Outcome> {
        // Nothing to reuse on a new volume: the environment need not wait for the reference.
        let resolved = if self.volume.is_new() { None } else { Some(self.resolve().await?) };
        if let Some((resolved, phase)) = &resolved
            && let Some(outcome) = self.reuse(&resolved.revision, vec![*phase]).await?
        {
            return Ok(outcome);
        }
        self.build(resolved).await
    }

    /// Leaves what is published as it is, if it is of the same repository and for the same place.
    fn stale(&self, error: Error) -> Result<Outcome> {
        let published = self.volume.published(&self.plan.target).filter(|release| {
            let environment = release.manifest.environment.as_ref();
            self.volume.is_whole(release)
                && release.manifest.source.repo == self.plan.source.to_string()
                && release.manifest.source.shape == self.plan.source.shape()
                && environment.is_none_or(|record| {
                    record.final_path == self.plan.environment.final_path
                        && record.target == self.plan.environment.target
                        && self.plan.environment.python_final.as_ref().is_none_or(|path| *path == record.python_path)
                        && record.venv == self.plan.environment.venv.as_path()
                })
                && (environment.is_some() || self.plan.environment.wanted != Wanted::Always)
        });
        let Some(release) = published else {
            return Err(error.hint("--stale-ok has nothing to keep: nothing that fits is published yet"));
        };
        Ok(Outcome { release, path: self.plan.target.public(), how: How::Stale(error), phases: Vec::new() })
    }

    async fn resolve(&self) -> Result<(Resolved, PhaseTime)> {
        let shown = self.plan.source.to_string();
        let phase = Phase::start("resolve", &shown);
        let published = self.volume.published(&self.plan.target).map(|release| release.manifest.source);
        let known = published
            .filter(|source| source.repo == shown)
            .and_then(|source| Some(Known { revision: source.revision, validator: source.validator? }));
        let scratch = || Ok(self.staging()?.scratch());
        let (limit, deadline) = (self.plan.size_limit, self.plan.deadline);
        let resolved = source::resolve(&self.plan.source, known.as_ref(), &scratch, limit, deadline).await?;
        let time = phase.done(&format!("{shown}: {}", describe(&resolved.revision)));
        Ok((resolved, time))
    }

    /// The release that these inputs gave before, published.
    async fn reuse(&self, revision: &Revision, mut phases: Vec<PhaseTime>) -> Result<Option<Outcome>> {
        if self.plan.environment.refresh {
            return Ok(None);
        }
        let Some(mut release) = self.volume.find(&self.key(revision)?, &self.plan.target) else { return Ok(None) };
        let elsewhere = self.elsewhere(self.volume.tree(&release)).await;
        if elsewhere.ok().as_ref() != Some(&release.manifest.elsewhere) {
            tracing::info!("what the requirements name outside of the tree has changed");
            return Ok(None);
        }
        // Another name may have led to the same commit.
        release.manifest.source.revision = revision.clone();
        let phase = Phase::start("publish", &release.id);
        let switched = self.volume.switch(&release, &self.plan.target)?;
        // Also when nothing changed: a run that was killed after its switch left what it replaced.
        self.volume.prune().await;
        if switched {
            phases.push(phase.done(&format!("{} again", release.id)));
        }
        Ok(Some(Outcome { release, path: self.plan.target.public(), how: How::Unchanged, phases }))
    }

    async fn build(&self, resolved: Option<(Resolved, PhaseTime)>) -> Result<Outcome> {
        let meter = Meter::new(self.volume.own().to_owned(), self.plan.size_limit);
        let staged = tokio::select! {
            staged = self.stage(resolved, &meter) => staged,
            error = meter.watch() => Err(error),
        };
        self.publish(staged?, &meter).await
    }

    fn staging(&self) -> Result<&Staging> {
        if self.staging.get().is_none() {
            let _ = self.staging.set(self.volume.stage()?);
        }
        self.staging.get().ok_or_else(|| Error::internal("there is no staging directory"))
    }

    /// Source and environment, complete, beside what is published.
    async fn stage(&self, resolved: Option<(Resolved, PhaseTime)>, meter: &Meter) -> Result<Staged> {
        let staging = self.staging()?;
        let revision = resolved.as_ref().map(|(resolved, _)| resolved.revision.clone());
        let (fetched, (begun, begun_phases)) =
            tokio::try_join!(self.fetch(resolved, staging, meter), self.begin(staging, revision.as_ref()))?;
        let mut phases = [fetched.phases, begun_phases].concat();

        // Before anything of it is installed: it may change meanwhile.
        let elsewhere = self.elsewhere(staging.tree()).await?;
        let environment = self.finish(begun, staging, &fetched.revision, meter, &mut phases).await?;
        if environment.is_some() {
            let place = tree::place("--venv", &staging.tree(), &self.plan.environment.venv)?;
            fs::rename(staging.venv(), &place)
                .on_volume(|| format!("cannot move the environment to {}", place.display()))?;
        }
        if let Some(CopySelf::InTree(path)) = &self.plan.copy_self {
            let place = tree::place("--copy-self", &staging.tree(), path)?;
            blocking(move || selfcopy::copy_to(&place)).await?;
        }
        meter.look().await?;
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            key: self.key(&fetched.revision)?,
            podstrap: env!("CARGO_PKG_VERSION").to_owned(),
            built_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            source: SourceRecord {
                repo: self.plan.source.to_string(),
                revision: fetched.revision,
                shape: self.plan.source.shape(),
                validator: fetched.validator,
                files: fetched.checkout.files,
                bytes: fetched.checkout.bytes,
            },
            environment,
            elsewhere,
        };
        Ok(Staged { manifest, phases })
    }

    async fn publish(&self, staged: Staged, meter: &Meter) -> Result<Outcome> {
        let Staged { manifest, mut phases } = staged;
        let phase = Phase::start("publish", &self.plan.target.public().display().to_string());
        let name = short(&manifest.source.revision.commit).to_owned();
        let release = self.volume.commit(self.staging()?, &name, manifest).await?;
        self.volume.switch(&release, &self.plan.target)?;
        self.volume.prune().await;
        phases.push(phase.done(&release.id));
        let usage = meter.usage().await?;
        Ok(Outcome { release, path: self.plan.target.public(), how: How::Built(usage), phases })
    }

    async fn fetch(
        &self,
        resolved: Option<(Resolved, PhaseTime)>,
        staging: &Staging,
        meter: &Meter,
    ) -> Result<Fetched> {
        let (mut resolved, resolving) = match resolved {
            Some(resolved) => resolved,
            None => self.resolve().await?,
        };
        let scratch = staging.scratch().join("source");
        fs::create_dir(&scratch).on_volume(|| format!("cannot make the directory {}", scratch.display()))?;
        let phase = Phase::start("fetch", &self.plan.source.to_string());
        let checkout = resolved.checkout(&staging.tree(), &scratch, self.plan.size_limit, self.plan.deadline).await?;
        meter.look().await?;
        // The object database counts for the volume's peak size no longer than it must.
        let _ = blocking(move || Ok(fs::remove_dir_all(&scratch))).await;
        self.check_places(&staging.tree())?;
        let fetched = phase.done(&format!(
            "{}: {}, {}",
            short(&resolved.revision.commit),
            count(checkout.files, "file"),
            Size(checkout.bytes)
        ));
        Ok(Fetched {
            validator: resolved.validator(),
            revision: resolved.revision,
            checkout,
            phases: vec![resolving, fetched],
        })
    }

    /// Refuses a tree that has no place for what is to be put where, before work is spent on that.
    fn check_places(&self, tree: &Path) -> Result<()> {
        self.volume.check(&self.plan.target, Some(tree))?;
        if self.plan.environment.wanted == Wanted::Always {
            tree::place("--venv", tree, &self.plan.environment.venv)?;
        }
        if let Some(CopySelf::InTree(path)) = &self.plan.copy_self {
            tree::place("--copy-self", tree, path)?;
        }
        Ok(())
    }

    /// Starts the environment beside the clone, as far as it does not need the tree.
    async fn begin(&self, staging: &Staging, revision: Option<&Revision>) -> Result<(Begun, Vec<PhaseTime>)> {
        let mut phases = Vec::new();
        if self.plan.environment.wanted != Wanted::Always {
            return Ok((Begun::Nothing, phases));
        }
        if venv::needs_tree(&self.plan.environment) {
            // It may be one that is here: the tree will tell.
            if !self.volume.has_environments() || self.plan.environment.refresh {
                return Ok((Begun::Created(self.create(staging, &mut phases).await?), phases));
            }
            return Ok((Begun::Nothing, phases));
        }
        let inputs = self.inputs(None)?;
        if let Some(revision) = revision
            && let Some(record) =
                self.adopt(&self.environment_key(&inputs, None, revision).await?, staging, &mut phases).await?
        {
            return Ok((Begun::Adopted(record), phases));
        }
        let builder = self.create(staging, &mut phases).await?;
        self.install(&builder, &inputs, None, &mut phases).await?;
        Ok((Begun::Installed(builder), phases))
    }

    /// The environment with this key, out of a release that has it.
    async fn adopt(
        &self,
        key: &str,
        staging: &Staging,
        phases: &mut Vec<PhaseTime>,
    ) -> Result<Option<EnvironmentRecord>> {
        if self.plan.environment.refresh {
            return Ok(None);
        }
        let Some((from, record)) = self.volume.environment(key, &self.plan.target) else { return Ok(None) };
        let phase = Phase::start("venv", &format!("from {}", from.display()));
        let (to, fingerprint) = (staging.venv(), record.fingerprint.clone());
        let shown = from.display().to_string();
        if !blocking(move || venv::adopt(&from, &to, &fingerprint)).await? {
            tracing::warn!("{shown} was changed after it was built: building it anew");
            return Ok(None);
        }
        phases.push(phase.done(&format!("{}, as it was", count(record.packages.len() as u64, "package"))));
        Ok(Some(EnvironmentRecord { venv: self.plan.environment.venv.as_path().to_owned(), ..record }))
    }

    /// Local projects and wheelhouses are read for it.
    async fn environment_key(&self, inputs: &Inputs, tree: Option<&Path>, revision: &Revision) -> Result<String> {
        let (recipe, inputs, tree) = (self.recipe.clone(), inputs.clone(), tree.map(Path::to_owned));
        let (commit, deadline) = (revision.commit.clone(), self.plan.deadline);
        blocking(move || Ok(recipe.key(&inputs, tree.as_deref(), &commit, deadline))).await
    }

    async fn create(&self, staging: &Staging, phases: &mut Vec<PhaseTime>) -> Result<Builder> {
        let environment = &self.plan.environment;
        let found;
        let toolchain = if let Some(toolchain) = &self.toolchain {
            toolchain
        } else {
            // It was not needed before, and was not found: this time the error counts.
            found = venv::locate(&self.settings, &environment.python, &environment.engine, self.plan.deadline).await?;
            &found
        };
        let phase = Phase::start("venv", &environment.venv.to_string());
        let builder = Builder::create(
            self.settings.clone(),
            toolchain,
            &staging.venv(),
            &environment.final_path,
            &staging.scratch(),
            self.plan.deadline,
        )
        .await?;
        let builder = builder
            .target(&environment.target, environment.python_final.as_deref(), environment.strict)?
            .tree_public(&self.plan.target.public());
        let builder = match environment.tree_final() {
            Some(tree) => builder.tree_final(&tree),
            None => builder,
        };
        phases.push(phase.done(&format!("for {}", environment.final_path.display())));
        Ok(builder)
    }

    async fn install(
        &self,
        builder: &Builder,
        inputs: &Inputs,
        tree: Option<&Path>,
        phases: &mut Vec<PhaseTime>,
    ) -> Result<()> {
        let names =
            inputs.requirements.iter().map(|file| format!("-r {}", file.file_name().unwrap_or_default().display()));
        let doing = inputs.packages.iter().cloned().chain(names).collect::<Vec<_>>().join(" ");
        let phase = Phase::start("install", &doing);
        builder.install(inputs, tree, self.plan.deadline).await?;
        phases.push(phase.done(&doing));
        Ok(())
    }

    /// The environment's rest, now that the tree is there. It is in staging then, if there is one.
    async fn finish(
        &self,
        begun: Begun,
        staging: &Staging,
        revision: &Revision,
        meter: &Meter,
        phases: &mut Vec<PhaseTime>,
    ) -> Result<Option<EnvironmentRecord>> {
        let tree = staging.tree();
        let needs_tree = venv::needs_tree(&self.plan.environment);
        let inputs = self.inputs(needs_tree.then_some(tree.as_path()))?;
        let found = self.plan.environment.takes_default() && !inputs.requirements.is_empty();
        let key = self.environment_key(&inputs, needs_tree.then_some(tree.as_path()), revision).await?;
        let builder = match begun {
            Begun::Adopted(record) => return Ok(Some(record)),
            Begun::Nothing if self.plan.environment.wanted != Wanted::Always && !found => return Ok(None),
            Begun::Installed(builder) => builder,
            begun => {
                let builder = match begun {
                    Begun::Created(builder) => builder,
                    _ => match self.adopt(&key, staging, phases).await? {
                        Some(record) => return Ok(Some(record)),
                        None => self.create(staging, phases).await?,
                    },
                };
                if found {
                    let file = inputs.requirements.first().and_then(|file| file.file_name()).unwrap_or_default();
                    tracing::info!("installing {}, which is in the tree", file.display());
                }
                if !inputs.is_empty() || !inputs.extras.is_empty() || !inputs.groups.is_empty() {
                    self.install(&builder, &inputs, Some(&tree), phases).await?;
                }
                builder
            }
        };
        // With the engine's cache, it is the most that there will be.
        meter.look().await?;
        let phase = Phase::start("finish", "relocate, compile, verify");
        let built = builder.finish(self.plan.deadline).await?;
        phases.push(phase.done(&format!(
            "{} for Python {}",
            count(built.distributions.len() as u64, "package"),
            built.python_version
        )));
        Ok(Some(self.record(built, key)))
    }

    /// What the requirements in a tree lead to outside of it.
    async fn elsewhere(&self, tree: PathBuf) -> Result<String> {
        let tree = venv::needs_tree(&self.plan.environment).then_some(tree);
        let (inputs, recipe, deadline) = (self.inputs(tree.as_deref())?, self.recipe.clone(), self.plan.deadline);
        blocking(move || Ok(recipe.elsewhere(&inputs, tree.as_deref(), deadline))).await
    }

    /// What is to be installed; `tree` is needed if something in it is.
    fn inputs(&self, tree: Option<&Path>) -> Result<Inputs> {
        let environment = &self.plan.environment;
        let resolve = |flag: &str, files: &[PathBuf]| -> Result<Vec<PathBuf>> {
            files
                .iter()
                .map(|file| match tree {
                    Some(tree) if file.is_relative() => tree::file(flag, tree, file),
                    _ => fs::metadata(file).map(|_| file.clone()).map_err(|error| venv::unreadable(file, error)),
                })
                .collect()
        };
        let mut requirements = resolve("-r", &environment.requirements)?;
        if let Some(tree) = tree.filter(|_| environment.takes_default()) {
            requirements.extend(venv::find(tree)?);
        }
        let mut find_links = Vec::new();
        for links in &environment.supply.links {
            find_links.push(match (links, tree) {
                (Links::Url(url), _) => url.clone(),
                (Links::At(path), _) => {
                    // uv fails, pip goes on without it.
                    fs::metadata(path).map_err(|error| venv::no_links(path, error))?;
                    path.display().to_string()
                }
                (Links::InTree(path), Some(tree)) => {
                    tree::file("--find-links", tree, path.as_path())?.display().to_string()
                }
                (Links::InTree(path), None) => return Err(Error::internal(format!("--find-links {path} has no tree"))),
            });
        }
        Ok(Inputs {
            packages: environment.packages.clone(),
            requirements,
            constraints: resolve("-c", &environment.constraints)?,
            extras: environment.extras.clone(),
            groups: environment.groups.clone(),
            find_links,
            refresh: environment.refresh,
        })
    }

    fn record(&self, built: Built, key: String) -> EnvironmentRecord {
        EnvironmentRecord {
            key,
            fingerprint: built.fingerprint,
            venv: self.plan.environment.venv.as_path().to_owned(),
            final_path: self.plan.environment.final_path.clone(),
            python: built.python_version,
            python_path: built.python_path,
            engine: built.engine,
            toolchain: built.toolchain,
            target: self.plan.environment.target.clone(),
            packages: built.distributions,
        }
    }

    /// Hash of all that decides what a release holds. What the tree decides (the contents of the
    /// requirements files in it) is in the commit; what these lead to, in `Manifest::elsewhere`.
    fn key(&self, revision: &Revision) -> Result<String> {
        #[derive(Serialize)]
        struct Key<'a> {
            manifest: u32,
            repo: String,
            shape: Vec<String>,
            commit: &'a str,
            /// Of a tree whose `.git` names it.
            reference: Option<&'a str>,
            environment: Option<(bool, &'a Path, String)>,
            copy_self: Option<(&'a Path, &'static str, Vec<u64>)>,
        }
        let environment = &self.plan.environment;
        let always = environment.wanted == Wanted::Always;
        let copy_self = match &self.plan.copy_self {
            Some(CopySelf::InTree(path)) => Some((path.as_path(), env!("CARGO_PKG_VERSION"), selfcopy::sizes())),
            _ => None,
        };
        let key = Key {
            manifest: MANIFEST_VERSION,
            repo: self.plan.source.to_string(),
            shape: self.plan.source.shape(),
            commit: &revision.commit,
            reference: revision.reference.as_deref().filter(|_| self.plan.source.keeps_git()),
            // Without anything to install it is the wish that makes an environment.
            environment: (environment.wanted != Wanted::Never)
                .then(|| (always, environment.venv.as_path(), self.recipe.digest())),
            copy_self,
        };
        let text = serde_json::to_vec(&key).map_err(|error| Error::internal("cannot make the key").because(error))?;
        Ok(hex(&Sha256::digest(text)))
    }
}

/// The interpreter and the engine. Where no environment may be needed, a missing one is no error yet.
async fn toolchain(plan: &Init, settings: &Settings) -> Result<Option<Toolchain>> {
    let environment = &plan.environment;
    if environment.wanted == Wanted::Never {
        return Ok(None);
    }
    match venv::locate(settings, &environment.python, &environment.engine, plan.deadline).await {
        Ok(toolchain) => Ok(Some(toolchain)),
        Err(error) if environment.wanted == Wanted::Always => Err(error),
        Err(error) => {
            tracing::debug!("no environment possible: {}", error.summary());
            Ok(None)
        }
    }
}

/// `main is 1a2b3c4d5e6f`.
fn describe(revision: &Revision) -> String {
    match &revision.reference {
        Some(reference) => {
            let name = reference.strip_prefix("refs/heads/").or_else(|| reference.strip_prefix("refs/tags/"));
            format!("{} is {}", name.unwrap_or(reference), short(&revision.commit))
        }
        None => short(&revision.commit).to_owned(),
    }
}

/// Twelve digits of a commit or of a directory's hash.
fn short(commit: &str) -> &str {
    let digits = commit.strip_prefix("sha256:").unwrap_or(commit);
    digits.get(..12).unwrap_or(digits)
}
