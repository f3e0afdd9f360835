//! `podstrap init --dry-run`: says what a run on a new volume would do, and fails as it would.
//!
//! The source is fetched as for a release, but to a temporary directory, and the packages are resolved but not installed.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::error::{Error, Result};
use crate::http;
use crate::plan::{Init, Target};
use crate::prepare::{self, Forecast};
use crate::redact;
use crate::runtime::blocking;
use crate::scratch::Scratch;
use crate::size::{Size, count};
use crate::telemetry::Phases;
use crate::unit;
use crate::venv::Planned;
use crate::volume::Volume;

/// Finds out what the plan would do.
///
/// # Errors
/// Those of [`init::run`](crate::init::run), as far as they need no volume and no installed package.
pub async fn run(plan: &Init) -> Result<Forecast> {
    if let Some(file) = &plan.source.ca_file {
        http::trust(file)?;
    }
    tracing::info!("dry run: publishing nothing");
    let scratch = Scratch::new("dry-run")?;
    let target = Target { root: scratch.make("volume")?, durable: false, ..plan.target.clone() };
    let volume = Volume::lock(&target, plan.deadline).await?;
    let phases = Phases::default();
    let (forecast, tree) = Box::pin(prepare::forecast(plan, &volume, &phases, plan.deadline)).await?;
    // A command of --run may write the configuration.
    if let Some(entrypoint) = plan.entrypoint.clone().filter(|_| plan.environment.commands.is_empty()) {
        let public = plan.target.public();
        let place = entrypoint.config.strip_prefix(&public).ok().filter(|_| entrypoint.below.is_some());
        let place = place.map_or_else(|| entrypoint.config.clone(), |place| tree.join(place));
        let below = entrypoint.below.map(|_| tree.clone());
        let read = blocking(move || unit::placeable(&place, below.as_deref()).map(drop));
        read.await.map_err(|error| error.renamed(&tree, &public))?;
    }
    Ok(forecast)
}

impl Forecast {
    /// Prints it to stdout.
    ///
    /// # Errors
    /// Internal: stdout is closed or full.
    pub fn print(&self, json: bool) -> Result<()> {
        let failed = |error| Error::internal("cannot print the result of the dry run").because(error);
        let text = if json {
            serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))? + "\n"
        } else {
            redact::clean(&self.text())
        };
        io::stdout().write_all(text.as_bytes()).map_err(failed)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let reference = self.revision.reference.as_ref().map(|reference| format!(" ({reference})")).unwrap_or_default();
        let signer =
            self.signer.as_ref().map(|signer| format!(", signed by {}", signer.principals)).unwrap_or_default();
        let (files, bytes) = (count(self.files, "file"), Size(self.bytes));
        let _ =
            writeln!(text, "source: {}{reference} of {}{signer}; {files} of {bytes}", self.revision.commit, self.repo);
        match &self.environment {
            None => text.push_str("environment: none\n"),
            Some(found) => {
                let _ = writeln!(
                    text,
                    "environment: {}, Python {}, {}: {}",
                    found.final_path.display(),
                    found.python,
                    found.engine,
                    found.store.as_ref().map_or_else(
                        || count(found.packages.len() as u64, "package"),
                        |store| format!("from the store ({store})")
                    )
                );
                let names =
                    found.packages.iter().map(|package| shown(package).chars().count()).max().unwrap_or_default();
                for package in &found.packages {
                    let about = if found.store.is_some() { String::new() } else { about(package) };
                    let _ = writeln!(text, "{}", format!("  {:names$}  {about}", shown(package)).trim_end());
                }
                let unknown = found.packages.iter().filter(|package| package.bytes.is_none()).count();
                let known =
                    found.download.unwrap_or_else(|| found.packages.iter().filter_map(|package| package.bytes).sum());
                let _ = write!(text, "to download: {}", Size(known));
                if found.download.is_none() {
                    let _ = write!(text, " and {} of unknown size", count(unknown as u64, "package"));
                }
                let built = found.packages.iter().filter(|package| package.builds == Some(true)).count();
                let _ = writeln!(text, "; to build: {}", count(built as u64, "package"));
            }
        }
        for command in &self.run {
            let _ = writeln!(text, "not run: {}", command.replace('\n', "\\n"));
        }
        let _ = match &self.path {
            Some(path) => writeln!(text, "a run would publish at {}", path.display()),
            None => writeln!(text, "a run would save the environment in the store"),
        };
        text
    }
}

/// `flask 3.1.3`
fn shown(package: &Planned) -> String {
    let version = package.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    format!("{}{version}", package.name)
}

/// `wheel, 103.4 kB`
fn about(package: &Planned) -> String {
    let how = match package.builds {
        Some(true) => "to build",
        Some(false) => "wheel",
        None => "unknown file",
    };
    let size = match package.bytes {
        Some(0) => String::new(),
        Some(bytes) => format!(", {}", Size(bytes)),
        None => ", unknown size".to_owned(),
    };
    let from = package.url.as_ref().filter(|_| package.builds == Some(true)).map(|url| format!(" from {url}"));
    format!("{how}{size}{}", from.unwrap_or_default())
}
