//! `podstrap init`: prepare a release, switch to it, delete the old ones.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::http;
use crate::plan::{CopySelf, Init, Wanted};
use crate::prepare::{Prepared, prepare};
use crate::runtime::blocking;
use crate::selfcopy;
use crate::source;
use crate::telemetry::{PhaseTime, Phases};
use crate::venv::EnvironmentRecord;
use crate::volume::{Release, Usage, Volume};

/// Number of old releases to keep besides the published ones.
const PREVIOUS: usize = 0;

/// The result of `init`.
#[derive(Debug)]
pub enum Done {
    Published(Box<Outcome>),
    /// With `--store-only`: the environment is in the store.
    Stored(Box<EnvironmentRecord>),
}

/// A published release.
#[derive(Debug)]
pub struct Outcome {
    pub release: Release,
    /// The public path of the tree.
    pub path: PathBuf,
    pub how: How,
    pub phases: Vec<PhaseTime>,
}

/// How `init` got the published release.
#[derive(Debug)]
pub enum How {
    /// podstrap built it, with this usage of the volume.
    Built(Usage),
    /// It was already on the volume.
    Unchanged,
    /// podstrap kept it, because a remote is unreachable (`--stale-ok`).
    Stale(Error),
}

/// Brings the volume to the state that the plan describes.
pub async fn run(plan: &Init) -> Result<Done> {
    if let Some(file) = &plan.source.ca_file {
        http::trust(file)?;
    }
    let volume = Volume::lock(&plan.target, plan.deadline).await?;
    volume.check(&plan.target, None)?;
    if let Some(CopySelf::Outside(path)) = &plan.copy_self {
        let path = path.clone();
        blocking(move || selfcopy::copy_to(&path)).await?;
    }
    let phases = Phases::default();
    let prepared = match Box::pin(prepare(plan, &volume, &phases, plan.deadline)).await {
        Err(error) if plan.stale_ok && error.is_unreachable() => {
            let kept = stale(plan, &volume, error).await?;
            volume.vouch(&kept.release).await?;
            return Ok(Done::Published(Box::new(kept)));
        }
        prepared => prepared?,
    };
    let (release, meter) = match prepared {
        Prepared::Built(release, meter) => (release, Some(meter)),
        Prepared::Found(release) => {
            volume.vouch(&release).await?;
            (release, None)
        }
        Prepared::Stored(record) => return Ok(Done::Stored(record)),
    };
    let phase = phases.start("publish", &plan.target.public().display().to_string());
    let switched = volume.switch(&release, &plan.target)?;
    // Even if nothing changed: a run that was killed after its switch left old releases.
    volume.retain(PREVIOUS, &[]).await;
    if switched {
        phase.done(&release.id);
    }
    let how = match meter {
        Some(meter) => How::Built(meter.usage().await?),
        None => How::Unchanged,
    };
    let (path, phases) = (plan.target.public(), phases.times());
    Ok(Done::Published(Box::new(Outcome { release, path, how, phases })))
}

/// Keeps the published release if it has the same repository and paths.
async fn stale(plan: &Init, volume: &Volume, error: Error) -> Result<Outcome> {
    let wanted = &plan.environment;
    let fits = |release: &Release| {
        let environment = release.manifest.environment.as_ref();
        release.manifest.source.repo == plan.source.to_string()
            && release.manifest.source.shape == plan.source.shape()
            && environment.is_none_or(|record| {
                record.final_path == wanted.final_path
                    && record.target == wanted.target
                    && wanted.python_final.as_ref().is_none_or(|path| *path == record.python_path)
                    && record.venv == wanted.venv.as_path()
            })
            && (environment.is_some() || wanted.wanted != Wanted::Always)
    };
    let release = match volume.published(&plan.target)? {
        Some(release)
            if fits(&release)
                && source::is_trusted(&plan.source, release.manifest.source.signer.as_ref()).await?
                && volume.is_whole(&release)? =>
        {
            release
        }
        _ => {
            return Err(error.hint(
                "restore the connection: --stale-ok found no complete release of this repository for these paths",
            ));
        }
    };
    Ok(Outcome { release, path: plan.target.public(), how: How::Stale(error), phases: Vec::new() })
}
