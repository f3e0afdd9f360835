//! Builds a complete release from the source and the environment. [`Volume::switch`] publishes it.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::plan::{CopySelf, Init, Wanted};
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::selfcopy;
use crate::signature::SignedBy;
use crate::size::{Size, count};
use crate::source::{self, Contents, Known, Resolved, Revision};
use crate::steps;
use crate::telemetry::Phases;
use crate::tree::{self, Written};
use crate::venv::{self, BuildDirs, EnvironmentRecord, Provided, Provision};
use crate::volume::{
    CopyKey, EnvironmentKey, Key, MANIFEST_VERSION, Manifest, Meter, Release, SourceRecord, Staging, StepsKey, Volume,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A complete release for [`Volume::switch`].
#[derive(Debug)]
pub enum Prepared {
    /// A new release, and the meter that measured the volume during the build.
    Built(Release, Meter),
    /// A release that was already on the volume.
    Found(Release),
    /// No release: the environment is in the store.
    Stored(Box<EnvironmentRecord>),
}

/// Finds the release that the plan describes, or builds it. Does not change the published release.
pub async fn prepare(plan: &Init, volume: &Volume, phases: &Phases, deadline: Deadline) -> Result<Prepared> {
    // With --store-only, the store is the only place that counts.
    let only = plan.environment.store.as_ref().is_some_and(|store| store.only);
    let ready = if only { Vec::new() } else { volume.environments(&plan.target)? };
    let preparation = Preparation::new(plan, volume, ready, phases, deadline).await?;
    if only {
        let stored = preparation.store().await;
        volume.clear().await;
        return Ok(Prepared::Stored(Box::new(stored?)));
    }
    if let Some(revision) = source::pinned(&plan.source)
        && let Some(release) = preparation.find(&revision).await?
    {
        return Ok(Prepared::Found(release));
    }
    let prepared = preparation.ask_remote().await;
    // The downloaded file turned out to be the published one.
    if preparation.staging.get().is_some() && !matches!(prepared, Ok(Prepared::Built(..))) {
        volume.clear().await;
    }
    prepared
}

/// What a run on a new volume would publish.
#[derive(Debug, Serialize)]
pub struct Forecast {
    pub repo: String,
    #[serde(flatten)]
    pub revision: Revision,
    /// Who signed the commit, with --verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<SignedBy>,
    pub files: u64,
    pub bytes: u64,
    /// The public path of the tree. `None` with --store-only.
    pub path: Option<PathBuf>,
    pub environment: Option<venv::Forecast>,
    /// The commands of --run, which did not run.
    pub run: Vec<String>,
}

/// Finds out what [`prepare`] would do on a new volume. `volume` is an empty one for the source's files. Returns also
/// their place on it.
///
/// # Errors
/// Those of [`prepare`], as far as they need no installed package.
pub async fn forecast(
    plan: &Init,
    volume: &Volume,
    phases: &Phases,
    deadline: Deadline,
) -> Result<(Forecast, PathBuf)> {
    let preparation = Preparation::new(plan, volume, Vec::new(), phases, deadline).await?;
    let meter = Meter::new(volume.own().to_owned(), plan.size_limit);
    let forecast = tokio::select! {
        forecast = preparation.forecast(&meter) => forecast,
        error = meter.watch() => Err(error),
    };
    forecast.map_err(|error| match preparation.staging.get() {
        Some(staging) => error.renamed(&staging.tree(), &plan.target.public()),
        None => error,
    })
}

/// The context of all steps.
struct Preparation<'a> {
    plan: &'a Init,
    volume: &'a Volume,
    provision: Provision<'a>,
    /// The environments on the volume, for reuse.
    ready: Vec<(PathBuf, EnvironmentRecord)>,
    /// The published tree.
    earlier: Option<PathBuf>,
    /// Created on first use, so that an unchanged rerun writes nothing.
    staging: OnceCell<Staging>,
    phases: &'a Phases,
    deadline: Deadline,
}

/// A release before it is put together.
struct Parts {
    resolved: Resolved,
    checkout: Written,
    elsewhere: String,
    environment: Option<EnvironmentRecord>,
}

impl<'a> Preparation<'a> {
    async fn new(
        plan: &'a Init,
        volume: &'a Volume,
        ready: Vec<(PathBuf, EnvironmentRecord)>,
        phases: &'a Phases,
        deadline: Deadline,
    ) -> Result<Self> {
        let public = plan.target.public();
        let published = volume.published(&plan.target)?;
        let earlier = published.as_ref().map(|release| volume.tree(release));
        let known = published.map(|release| release.manifest.identities).unwrap_or_default();
        let confinement = volume.confinement();
        let provision =
            Provision::new(&plan.environment, &plan.source, public, known, confinement, phases, deadline).await?;
        Ok(Self { plan, volume, provision, ready, earlier, staging: OnceCell::new(), phases, deadline })
    }

    async fn forecast(&self, meter: &Meter) -> Result<(Forecast, PathBuf)> {
        source::sign_in(&self.plan.source, self.deadline).await?;
        let staging = self.staging()?;
        let (resolved, checkout) = self.fetch(None, staging, Contents::Ask, meter).await?;
        let tree = staging.tree();
        self.provision.elsewhere(tree.clone()).await?;
        let environment = self.provision.forecast(&dirs(staging), &tree, &resolved.revision.commit).await?;
        if environment.is_some() {
            tree::place("--venv", &tree, &self.plan.environment.venv)?;
        } else if self.plan.environment.store.as_ref().is_some_and(|store| store.only) {
            return Err(nothing_to_save());
        }
        let download = environment.as_ref().and_then(|found| found.download).unwrap_or_default();
        if checkout.bytes + download > self.plan.size_limit.0 {
            return Err(Error::volume("the release does not fit into the size limit")
                .because(format!(
                    "{} of files and {} to download; --size-limit is {}",
                    Size(checkout.bytes),
                    Size(download),
                    self.plan.size_limit
                ))
                .hint("raise --size-limit and the emptyDir's sizeLimit, or install less"));
        }
        let forecast = Forecast {
            repo: self.plan.source.to_string(),
            signer: resolved.signer(),
            revision: resolved.revision,
            files: checkout.files,
            bytes: checkout.bytes,
            path: self
                .plan
                .environment
                .store
                .as_ref()
                .is_none_or(|store| !store.only)
                .then(|| self.plan.target.public()),
            environment,
            run: self.plan.environment.commands.iter().map(|command| redact::clean(command)).collect(),
        };
        Ok((forecast, tree))
    }

    async fn ask_remote(&self) -> Result<Prepared> {
        // A new volume has nothing to reuse, so the environment need not wait for the reference.
        let resolved = if self.volume.is_new()? { None } else { Some(self.resolve().await?) };
        if let Some(resolved) = &resolved
            && let Some(release) = self.find(&resolved.revision).await?
        {
            return Ok(Prepared::Found(release));
        }
        let meter = Meter::new(self.volume.own().to_owned(), self.plan.size_limit);
        let release = tokio::select! {
            release = self.build(resolved, &meter) => release,
            error = meter.watch() => Err(error),
        };
        Ok(Prepared::Built(release?, meter))
    }

    /// Provides the environment, which saves it in the store.
    async fn store(&self) -> Result<EnvironmentRecord> {
        let meter = Meter::new(self.volume.own().to_owned(), self.plan.size_limit);
        let staging = self.staging()?;
        let parts = tokio::select! {
            parts = self.parts(None, staging, &meter) => parts?,
            error = meter.watch() => return Err(error),
        };
        meter.look().await?;
        parts.environment.ok_or_else(nothing_to_save)
    }

    async fn resolve(&self) -> Result<Resolved> {
        let shown = self.plan.source.to_string();
        let phase = self.phases.start("resolve", &shown);
        let published = self.volume.published(&self.plan.target)?.map(|release| release.manifest.source);
        let known = published
            .filter(|source| source.repo == shown)
            .and_then(|source| Some(Known { revision: source.revision, validator: source.validator? }));
        let scratch = || Ok(self.staging()?.scratch());
        let limit = self.plan.size_limit;
        let resolved = source::resolve(&self.plan.source, known.as_ref(), &scratch, limit, self.deadline).await?;
        phase.done(&format!("{shown}: {}", describe(&resolved.revision)));
        Ok(resolved)
    }

    /// The release that an earlier run built from the same inputs.
    async fn find(&self, revision: &Revision) -> Result<Option<Release>> {
        if self.plan.environment.refresh {
            return Ok(None);
        }
        let Some(mut release) = self.volume.find(&self.key(revision)?, &self.plan.target)? else { return Ok(None) };
        // The signature of a tag counts for its name only.
        let found = &release.manifest.source;
        if source::is_verified(&self.plan.source)
            && (found.revision.reference != revision.reference
                || !source::is_trusted(&self.plan.source, found.signer.as_ref()).await?)
        {
            return Ok(None);
        }
        let elsewhere = self.provision.elsewhere(self.volume.tree(&release)).await;
        if elsewhere.ok().as_ref() != Some(&release.manifest.elsewhere) {
            tracing::info!("the requirements refer to files outside the tree, and these have changed");
            return Ok(None);
        }
        // Another reference may lead to the same commit.
        release.manifest.source.revision = revision.clone();
        Ok(Some(release))
    }

    /// Builds a release next to the published one.
    async fn build(&self, resolved: Option<Resolved>, meter: &Meter) -> Result<Release> {
        let staging = self.staging()?;
        let Parts { resolved, checkout, elsewhere, environment } = self.parts(resolved, staging, meter).await?;
        let (tree, commit) = (staging.tree(), &resolved.revision.commit);
        if environment.is_some() {
            let place = tree::place("--venv", &tree, &self.plan.environment.venv)?;
            fs::rename(staging.venv(), &place)
                .on_volume(|| format!("cannot move the environment to {}", place.display()))?;
        }
        if !self.plan.environment.commands.is_empty() {
            let place = steps::Place {
                tree: tree.clone(),
                public: self.plan.environment.tree_final().unwrap_or_else(|| self.plan.target.public()),
                secrets: source::secrets(&self.plan.source.auth)?,
                scratch: staging.scratch().join("run"),
                environment: environment.clone(),
                confinement: self.volume.confinement(),
            };
            steps::run(&self.plan.environment.commands, place, self.phases, self.deadline).await?;
        }
        if let Some(CopySelf::InTree(path)) = &self.plan.copy_self {
            let place = tree::place("--copy-self", &tree, path)?;
            blocking(move || selfcopy::copy_to(&place)).await?;
        }
        let phase = self.phases.start("release", &tree.display().to_string());
        let name = short(commit).to_owned();
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            key: self.key(&resolved.revision)?,
            podstrap: VERSION.to_owned(),
            built_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            source: SourceRecord {
                repo: self.plan.source.to_string(),
                validator: resolved.validator(),
                signer: resolved.signer(),
                revision: resolved.revision,
                shape: self.plan.source.shape(),
                files: checkout.files,
                bytes: checkout.bytes,
            },
            environment,
            elsewhere,
            entries: self.volume.settle(staging, meter).await?,
            identities: self.provision.identities(),
        };
        let release = self.volume.commit(staging, &name, manifest).await?;
        phase.done(&release.id);
        Ok(release)
    }

    /// Provides the tree and the environment, side by side.
    async fn parts(&self, resolved: Option<Resolved>, staging: &Staging, meter: &Meter) -> Result<Parts> {
        // The environment may need a login before the source has asked for one.
        source::sign_in(&self.plan.source, self.deadline).await?;
        let dirs = dirs(staging);
        let commit = resolved.as_ref().map(|resolved| resolved.revision.commit.clone());
        let ((resolved, checkout), begun) = tokio::try_join!(
            self.fetch(resolved, staging, Contents::Fetch(self.earlier.as_deref()), meter),
            self.provision.begin(&dirs, &self.ready, commit.as_deref())
        )?;
        let (tree, commit) = (staging.tree(), &resolved.revision.commit);

        // Hash the files before the installation, because they may change meanwhile.
        let elsewhere = self.provision.elsewhere(tree.clone()).await?;
        let provided = self.provision.install_all(begun, &dirs, &self.ready, &tree, commit).await?;
        let environment = match provided {
            Provided::None => None,
            Provided::Ready(record) => Some(*record),
            Provided::Filled(filled) => {
                // Usage may peak here, with the engine's cache.
                meter.look().await?;
                Some(self.provision.finish(filled, &dirs, &self.ready).await?)
            }
        };
        Ok(Parts { resolved, checkout, elsewhere, environment })
    }

    fn staging(&self) -> Result<&Staging> {
        if self.staging.get().is_none() {
            let _ = self.staging.set(self.volume.stage()?);
        }
        self.staging.get().ok_or_else(|| Error::internal("no staging directory"))
    }

    async fn fetch(
        &self,
        resolved: Option<Resolved>,
        staging: &Staging,
        contents: Contents<'_>,
        meter: &Meter,
    ) -> Result<(Resolved, Written)> {
        let mut resolved = match resolved {
            Some(resolved) => resolved,
            None => self.resolve().await?,
        };
        let scratch = staging.scratch().join("source");
        fs::create_dir(&scratch).on_volume(|| format!("cannot create the directory {}", scratch.display()))?;
        let phase = self.phases.start("fetch", &self.plan.source.to_string());
        let limit = self.plan.size_limit;
        let checkout = resolved.checkout(&staging.tree(), &scratch, contents, limit, self.deadline).await?;
        if !files::names(&scratch)?.is_empty() {
            // Usage may peak here. Delete libgit2's repository or the download now.
            meter.look().await?;
            let _ = blocking(move || Ok(tree::remove(&scratch))).await;
        }
        self.check_places(&staging.tree())?;
        phase.done(&format!(
            "{}: {}, {}",
            short(&resolved.revision.commit),
            count(checkout.files, "file"),
            Size(checkout.bytes)
        ));
        Ok((resolved, checkout))
    }

    /// Fails early if the tree conflicts with the volume, the environment or the copied binary.
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

    /// Hash of everything that determines a release. The commit covers the requirements files in the tree;
    /// `Manifest::elsewhere` covers the files outside it that they refer to.
    fn key(&self, revision: &Revision) -> Result<String> {
        let environment = &self.plan.environment;
        let in_tree = match &self.plan.copy_self {
            Some(CopySelf::InTree(path)) => Some(path.as_path()),
            _ => None,
        };
        let key = Key {
            version: MANIFEST_VERSION,
            repo: self.plan.source.to_string(),
            shape: self.plan.source.shape(),
            commit: &revision.commit,
            reference: revision.reference.as_deref().filter(|_| self.plan.source.keeps_git()),
            environment: (environment.wanted != Wanted::Never).then(|| EnvironmentKey {
                always: environment.wanted == Wanted::Always,
                venv: environment.venv.as_path(),
                digest: self.provision.digest(),
            }),
            copy_self: in_tree.map(|path| CopyKey { path, podstrap: VERSION, sizes: selfcopy::sizes() }),
            steps: (!environment.commands.is_empty()).then(|| StepsKey {
                commands: &environment.commands,
                variables: steps::digest(&steps::variables(std::env::vars_os())),
            }),
        };
        key.hash()
    }
}

fn nothing_to_save() -> Error {
    Error::environment("--store-only has nothing to save: there is nothing to install")
        .hint("name packages or a requirements file")
}

fn dirs(staging: &Staging) -> BuildDirs {
    BuildDirs { venv: staging.venv(), scratch: staging.scratch() }
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

/// The first twelve digits of a commit or of a hash.
fn short(commit: &str) -> &str {
    let digits = commit.strip_prefix("sha256:").unwrap_or(commit);
    digits.get(..12).unwrap_or(digits)
}
