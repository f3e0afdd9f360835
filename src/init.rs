//! `podstrap init`: prepare a release, show it, drop what it replaces.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::http;
use crate::plan::{CopySelf, Init, Wanted};
use crate::prepare::{Prepared, prepare};
use crate::runtime::blocking;
use crate::selfcopy;
use crate::telemetry::{PhaseTime, Phases};
use crate::volume::{Release, Usage, Volume};

/// Releases kept besides those that a link shows.
const PREVIOUS: usize = 0;

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
    let phases = Phases::default();
    let prepared = match prepare(plan, &volume, &phases, plan.deadline).await {
        Err(error) if plan.stale_ok && error.is_unreachable() => return stale(plan, &volume, error),
        prepared => prepared?,
    };
    let release = prepared.release();
    let phase = phases.start("publish", &plan.target.public().display().to_string());
    let switched = volume.switch(release, &plan.target)?;
    // Also when nothing changed: a run that was killed after its switch left what it replaced.
    volume.retain(PREVIOUS).await;
    if switched {
        phase.done(&release.id);
    }
    let (release, how) = match prepared {
        Prepared::Built(release, meter) => (release, How::Built(meter.usage().await?)),
        Prepared::Found(release) => (release, How::Unchanged),
    };
    Ok(Outcome { release, path: plan.target.public(), how, phases: phases.times() })
}

/// Leaves what is published as it is, if it is of the same repository and for the same place.
fn stale(plan: &Init, volume: &Volume, error: Error) -> Result<Outcome> {
    let wanted = &plan.environment;
    let published = volume.published(&plan.target).filter(|release| {
        let environment = release.manifest.environment.as_ref();
        volume.is_whole(release)
            && release.manifest.source.repo == plan.source.to_string()
            && release.manifest.source.shape == plan.source.shape()
            && environment.is_none_or(|record| {
                record.final_path == wanted.final_path
                    && record.target == wanted.target
                    && wanted.python_final.as_ref().is_none_or(|path| *path == record.python_path)
                    && record.venv == wanted.venv.as_path()
            })
            && (environment.is_some() || wanted.wanted != Wanted::Always)
    });
    let Some(release) = published else {
        return Err(error.hint("--stale-ok has nothing to keep: nothing that fits is published yet"));
    };
    Ok(Outcome { release, path: plan.target.public(), how: How::Stale(error), phases: Vec::new() })
}
