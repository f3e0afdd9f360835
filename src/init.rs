//! `podstrap init`: source → venv → publish.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::blocking;
use crate::error::{Error, IoContext, Result};
use crate::plan::{CopySelf, Environment, Init, Source, Wanted};
use crate::publish::{EnvironmentRecord, MANIFEST_VERSION, Manifest, Release, SourceRecord, Staging, Volume};
use crate::selfcopy;
use crate::source::{self, Checkout, Resolved, Revision};
use crate::telemetry::{Phase, PhaseTime};
use crate::tree;
use crate::venv::{self, Builder, Built, Inputs, Settings, Toolchain};

/// What is installed when nothing is named.
const DEFAULT_REQUIREMENTS: &str = "requirements.txt";

/// What a run of `init` left.
#[derive(Debug)]
pub struct Outcome {
    pub release: Release,
    /// Where the tree is found by its public name.
    pub path: PathBuf,
    /// False if the release was there already.
    pub built: bool,
    pub phases: Vec<PhaseTime>,
}

/// Brings the volume to the state that the plan describes.
pub async fn run(plan: &Init) -> Result<Outcome> {
    let volume = Volume::lock(&plan.target.root, plan.deadline).await?;
    volume.check(&plan.target, None)?;
    if let Some(CopySelf::Outside(path)) = &plan.copy_self {
        let path = path.clone();
        blocking(move || selfcopy::copy_to(&path)).await?;
    }
    let settings = Settings::of_process();
    let toolchain = toolchain(plan, &settings).await?;
    // Looked at once, and first: a ConfigMap may change while it is installed from.
    let outside = outside(&plan.environment, &settings)?;
    let run = Run { plan, volume: &volume, settings, toolchain, outside };

    if let Some(revision) = pinned(&plan.source)
        && let Some(outcome) = run.reuse(&revision, Vec::new()).await?
    {
        return Ok(outcome);
    }
    // Nothing to reuse on a new volume: the environment need not wait for the reference.
    let resolved = if volume.is_new() { None } else { Some(run.resolve().await?) };
    if let Some((resolved, phase)) = &resolved
        && let Some(outcome) = run.reuse(&resolved.revision, vec![*phase]).await?
    {
        return Ok(outcome);
    }
    run.build(resolved).await
}

/// What every step of one run needs.
struct Run<'a> {
    plan: &'a Init,
    volume: &'a Volume,
    settings: Settings,
    toolchain: Option<Toolchain>,
    /// Hashes of files outside the tree that decide what is installed.
    outside: Vec<String>,
}

/// A checked out source.
struct Fetched {
    revision: Revision,
    checkout: Checkout,
    phases: Vec<PhaseTime>,
}

/// An environment on its way, and what remains to be installed into it.
struct Begun {
    builder: Builder,
    waiting: bool,
    phases: Vec<PhaseTime>,
}

impl Run<'_> {
    async fn resolve(&self) -> Result<(Resolved, PhaseTime)> {
        let shown = shown(&self.plan.source);
        let phase = Phase::start("resolve", &shown);
        let resolved = source::resolve(&self.plan.source, self.plan.deadline).await?;
        let time = phase.done(&format!("{shown}: {}", describe(&resolved.revision)));
        Ok((resolved, time))
    }

    /// The release that these inputs gave before, published.
    async fn reuse(&self, revision: &Revision, mut phases: Vec<PhaseTime>) -> Result<Option<Outcome>> {
        if self.plan.environment.refresh {
            return Ok(None);
        }
        let Some(release) = self.volume.find(&self.key(revision)?, &self.plan.target) else { return Ok(None) };
        let phase = Phase::start("publish", &release.id);
        let switched = self.volume.switch(&release, &self.plan.target)?;
        // Also when nothing changed: a run that was killed after its switch left what it replaced.
        self.volume.prune().await;
        if switched {
            phases.push(phase.done(&format!("{} again", release.id)));
        }
        Ok(Some(Outcome { release, path: self.plan.target.public(), built: false, phases }))
    }

    async fn build(&self, resolved: Option<(Resolved, PhaseTime)>) -> Result<Outcome> {
        let built = self.build_in_staging(resolved).await;
        if built.is_err() {
            self.volume.clear().await;
        }
        built
    }

    async fn build_in_staging(&self, resolved: Option<(Resolved, PhaseTime)>) -> Result<Outcome> {
        let staging = &self.volume.stage()?;
        let (fetched, begun) = tokio::try_join!(self.fetch(resolved, staging), self.begin(staging))?;
        let mut phases = fetched.phases.clone();

        let environment = match self.finish(begun, staging, &mut phases).await? {
            Some(built) => {
                let venv = &self.plan.environment.venv;
                let place = tree::place("--venv", &staging.tree(), venv)?;
                fs::rename(staging.venv(), &place)
                    .on_volume(|| format!("cannot move the environment to {}", place.display()))?;
                Some(self.record(built))
            }
            None => None,
        };
        if let Some(CopySelf::InTree(path)) = &self.plan.copy_self {
            let place = tree::place("--copy-self", &staging.tree(), path)?;
            blocking(move || selfcopy::copy_to(&place)).await?;
        }

        let phase = Phase::start("publish", &self.plan.target.public().display().to_string());
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            key: self.key(&fetched.revision)?,
            podstrap: env!("CARGO_PKG_VERSION").to_owned(),
            built_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            source: SourceRecord {
                repo: shown(&self.plan.source),
                revision: fetched.revision.clone(),
                files: fetched.checkout.files,
                bytes: fetched.checkout.bytes,
            },
            environment,
        };
        let release = self.volume.commit(staging, short(&fetched.revision.commit), manifest).await?;
        self.volume.switch(&release, &self.plan.target)?;
        self.volume.prune().await;
        phases.push(phase.done(&release.id));
        Ok(Outcome { release, path: self.plan.target.public(), built: true, phases })
    }

    async fn fetch(&self, resolved: Option<(Resolved, PhaseTime)>, staging: &Staging) -> Result<Fetched> {
        let (resolved, resolving) = match resolved {
            Some(resolved) => resolved,
            None => self.resolve().await?,
        };
        let scratch = staging.scratch().join("git");
        fs::create_dir(&scratch).on_volume(|| format!("cannot make the directory {}", scratch.display()))?;
        let phase = Phase::start("clone", &shown(&self.plan.source));
        let checkout = resolved.checkout(&staging.tree(), &scratch, self.plan.deadline).await?;
        // The object database counts for the volume's peak size no longer than it must.
        let _ = blocking(move || Ok(fs::remove_dir_all(&scratch))).await;
        self.check_places(&staging.tree())?;
        let fetched = phase.done(&format!(
            "{}: {}, {}",
            short(&resolved.revision.commit),
            count(checkout.files, "file"),
            size(checkout.bytes)
        ));
        Ok(Fetched { revision: resolved.revision, checkout, phases: vec![resolving, fetched] })
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
    async fn begin(&self, staging: &Staging) -> Result<Option<Begun>> {
        if self.plan.environment.wanted != Wanted::Always {
            return Ok(None);
        }
        let mut begun = self.create(staging).await?;
        if !venv::needs_tree(&self.plan.environment) {
            let inputs = self.inputs(None)?;
            begun.phases.push(self.install(&begun.builder, &inputs, None).await?);
            begun.waiting = false;
        }
        Ok(Some(begun))
    }

    async fn create(&self, staging: &Staging) -> Result<Begun> {
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
        let builder = match environment.tree_final() {
            Some(tree) => builder.tree_final(&tree),
            None => builder,
        };
        let time = phase.done(&format!("for {}", environment.final_path.display()));
        Ok(Begun { builder, waiting: true, phases: vec![time] })
    }

    async fn install(&self, builder: &Builder, inputs: &Inputs, tree: Option<&Path>) -> Result<PhaseTime> {
        let names =
            inputs.requirements.iter().map(|file| format!("-r {}", file.file_name().unwrap_or_default().display()));
        let doing = inputs.packages.iter().cloned().chain(names).collect::<Vec<_>>().join(" ");
        let phase = Phase::start("install", &doing);
        builder.install(inputs, tree, self.plan.deadline).await?;
        Ok(phase.done(&doing))
    }

    /// The environment's rest, now that the tree is there.
    async fn finish(
        &self,
        begun: Option<Begun>,
        staging: &Staging,
        phases: &mut Vec<PhaseTime>,
    ) -> Result<Option<Built>> {
        let tree = staging.tree();
        let found = self.plan.environment.takes_default()
            && fs::symlink_metadata(tree.join(DEFAULT_REQUIREMENTS)).is_ok_and(|meta| !meta.is_dir());
        let begun = match begun {
            Some(begun) => begun,
            None if found => self.create(staging).await?,
            None => return Ok(None),
        };
        phases.extend(begun.phases);
        if begun.waiting {
            let mut inputs = self.inputs(Some(&tree))?;
            if found {
                tracing::info!("installing {DEFAULT_REQUIREMENTS}, which is in the tree");
                inputs.requirements.push(tree::file("-r", &tree, Path::new(DEFAULT_REQUIREMENTS))?);
            }
            if !(inputs.packages.is_empty() && inputs.requirements.is_empty()) {
                phases.push(self.install(&begun.builder, &inputs, Some(&tree)).await?);
            }
        }
        let phase = Phase::start("finish", "relocate, compile, verify");
        let built = begun.builder.finish(self.plan.deadline).await?;
        phases.push(phase.done(&format!(
            "{} for Python {}",
            count(built.distributions.len() as u64, "package"),
            built.python_version
        )));
        Ok(Some(built))
    }

    fn inputs(&self, tree: Option<&Path>) -> Result<Inputs> {
        let environment = &self.plan.environment;
        let resolve = |flag: &str, files: &[PathBuf]| -> Result<Vec<PathBuf>> {
            files
                .iter()
                .map(|file| match tree {
                    Some(tree) if file.is_relative() => tree::file(flag, tree, file),
                    _ => fs::metadata(file).map(|_| file.clone()).map_err(|error| unreadable(file, error)),
                })
                .collect()
        };
        Ok(Inputs {
            packages: environment.packages.clone(),
            requirements: resolve("-r", &environment.requirements)?,
            constraints: resolve("-c", &environment.constraints)?,
            refresh: environment.refresh,
        })
    }

    fn record(&self, built: Built) -> EnvironmentRecord {
        EnvironmentRecord {
            venv: self.plan.environment.venv.as_path().to_owned(),
            final_path: self.plan.environment.final_path.clone(),
            python: built.python_version,
            engine: built.engine,
            toolchain: built.toolchain,
            packages: built.distributions,
        }
    }

    /// Hash of all that decides what a release holds. What the tree decides (the contents of the
    /// requirements files in it) is in the commit.
    fn key(&self, revision: &Revision) -> Result<String> {
        #[derive(Serialize)]
        struct Key<'a> {
            manifest: u32,
            repo: String,
            commit: &'a str,
            environment: Option<EnvironmentKey<'a>>,
            copy_self: Option<(&'a Path, &'static str, u64)>,
        }
        #[derive(Serialize)]
        struct EnvironmentKey<'a> {
            /// Without anything to install this is what makes an environment.
            always: bool,
            venv: &'a Path,
            final_path: &'a Path,
            toolchain: Option<&'a Toolchain>,
            packages: &'a [String],
            requirements: &'a [PathBuf],
            constraints: &'a [PathBuf],
            outside: &'a [String],
            settings: Vec<(String, String)>,
        }
        let environment = &self.plan.environment;
        let wanted = (environment.wanted != Wanted::Never).then(|| EnvironmentKey {
            always: environment.wanted == Wanted::Always,
            venv: environment.venv.as_path(),
            final_path: &environment.final_path,
            toolchain: self.toolchain.as_ref(),
            packages: &environment.packages,
            requirements: &environment.requirements,
            constraints: &environment.constraints,
            outside: &self.outside,
            settings: self.settings.decisive(),
        });
        let copy_self = match &self.plan.copy_self {
            Some(CopySelf::InTree(path)) => {
                let size = fs::metadata("/proc/self/exe").map_or(0, |meta| meta.len());
                Some((path.as_path(), env!("CARGO_PKG_VERSION"), size))
            }
            _ => None,
        };
        let key = Key {
            manifest: MANIFEST_VERSION,
            repo: shown(&self.plan.source),
            commit: &revision.commit,
            environment: wanted,
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

/// The revision that a full commit SHA names without asking anybody.
fn pinned(source: &Source) -> Option<Revision> {
    let Source::Git(git) = source else { return None };
    let commit = git.reference.as_ref()?;
    let full = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    full.then(|| Revision { commit: commit.to_ascii_lowercase(), reference: None })
}

/// Hashes of the requirements files outside the tree, of all that they include, and of packages that
/// are files.
fn outside(environment: &Environment, settings: &Settings) -> Result<Vec<String>> {
    let mut digests = Vec::new();
    let files = environment.requirements.iter().chain(&environment.constraints).filter(|file| file.is_absolute());
    for file in files {
        let text = fs::read(file).map_err(|error| unreadable(file, error))?;
        let mut open = includes(file, &text);
        let mut seen = open.clone();
        digests.push(hex(&Sha256::digest(&text)));
        while let Some(file) = open.pop() {
            // Whatever it is that cannot be read, the engine will say.
            let text = fs::read(&file).unwrap_or_default();
            digests.push(hex(&Sha256::digest(&text)));
            let new: Vec<_> = includes(&file, &text).into_iter().filter(|path| !seen.contains(path)).collect();
            seen.extend(new.iter().cloned());
            open.extend(new);
        }
    }
    for file in settings.files() {
        digests.push(hex(&Sha256::digest(fs::read(file).unwrap_or_default())));
    }
    let local = environment.packages.iter().filter_map(|package| fs::read(local_file(package)?).ok());
    digests.extend(local.map(|bytes| hex(&Sha256::digest(&bytes))));
    Ok(digests)
}

/// `/wheels/x.whl`, also as `x @ file:///wheels/x.whl`.
fn local_file(package: &str) -> Option<&Path> {
    let target = package.split_once('@').map_or(package, |(_, target)| target).trim();
    let path = Path::new(target.strip_prefix("file://").unwrap_or(target));
    path.is_absolute().then_some(path)
}

/// The files that a requirements file names.
fn includes(file: &Path, text: &[u8]) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    String::from_utf8_lossy(text).lines().filter_map(|line| Some(directory.join(included(line)?))).collect()
}

fn unreadable(file: &Path, error: std::io::Error) -> Error {
    Error::environment(format!("cannot read the requirements file {}", file.display()))
        .because(error)
        .hint("absolute paths are read as they are: is the volume or ConfigMap mounted in this container?")
}

/// The file of a `-r FILE` or `-c FILE` line, in all the ways in which pip lets it be written.
fn included(line: &str) -> Option<&str> {
    let comment = line.match_indices('#').find(|(at, _)| line[..*at].ends_with(char::is_whitespace));
    let line = comment.map_or(line, |(at, _)| &line[..at]).trim();
    ["-r", "-c", "--requirement", "--constraint"]
        .iter()
        .filter_map(|flag| line.strip_prefix(flag))
        .map(|rest| rest.trim_start_matches([' ', '\t', '=']).trim_matches(['"', '\'']))
        .find(|rest| !rest.is_empty() && !rest.starts_with('-') && !rest.contains("://"))
}

fn shown(source: &Source) -> String {
    match source {
        Source::Git(git) => git.url.to_string(),
        Source::Dir(dir) => dir.display().to_string(),
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

/// `1 file`, `3 files`
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `3.4 MB`
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let number = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.1} GB", number / 1e9),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_are_found_however_they_are_written() {
        for line in ["-r base.txt", "-rbase.txt", "  --requirement=base.txt", "-c base.txt  # why", "-r 'base.txt'"] {
            assert_eq!(included(line), Some("base.txt"), "{line}");
        }
        for line in ["flask", "--require-hashes", "# -r base.txt", "-r https://host/base.txt", "-r", "--config-x y"] {
            assert_eq!(included(line), None, "{line}");
        }
    }

    #[test]
    fn packages_that_are_files_are_known() {
        for package in ["/w/x.whl", "x @ file:///w/x.whl"] {
            assert_eq!(local_file(package), Some(Path::new("/w/x.whl")), "{package}");
        }
        for package in ["flask", "x @ https://host/x.whl", "./x.whl"] {
            assert_eq!(local_file(package), None, "{package}");
        }
    }
}
