//! podstrap boots interpreted apps in Pods. This file runs one command until it ends or a signal arrives.
//!
//! The data flows source → venv → volume → unit. See `docs/architecture.md`.

mod archive;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod confine;
mod dir;
mod dry_run;
pub mod error;
pub mod files;
mod follow;
mod formats;
pub mod http;
pub mod init;
pub mod plan;
pub mod prepare;
mod reap;
pub mod redact;
pub mod report;
pub mod retry;
mod runtime;
mod scratch;
pub mod selfcopy;
mod signature;
pub mod size;
pub mod source;
pub mod steps;
mod store;
pub mod telemetry;
pub mod tree;
pub mod unit;
pub mod up;
pub mod venv;
pub mod volume;
pub mod walk;

use std::io::{self, Write};
use std::rc::Rc;

use cli::{Cli, Command};
use error::{Kind, Result};
use runtime::{Signals, Watched, blocking};

/// Runs one command to its end, or to the first SIGTERM or SIGINT.
///
/// # Errors
/// The error of the command, [`Kind::Interrupted`], or an error that names the deadline.
pub fn run(cli: Cli) -> Result<()> {
    for wrong in cli::misspelt(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        let meant = wrong.meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        tracing::warn!("unknown variable {} ignored{meant}", wrong.name);
    }
    reap::begin();
    let result = runtime::watched(|watched| command(cli, watched));
    reap::end();
    result
}

async fn command(cli: Cli, watched: Watched) -> Result<()> {
    let mut signals = Signals::listen()?;
    match cli.command {
        Command::Init(args) if args.dry_run => {
            let json = args.format == cli::OutputFormat::Json;
            let plan = plan::Init::new(args)?;
            watched.until(plan.deadline, Kind::Volume);
            let forecast = signals.unless_one(Box::pin(dry_run::run(&plan))).await?;
            forecast.print(json)?;
        }
        Command::Init(args) => {
            let plan = plan::Init::new(args)?;
            watched.until(plan.deadline, Kind::Volume);
            let outcome = match signals.unless_one(Box::pin(init::run(&plan))).await? {
                init::Done::Published(outcome) => outcome,
                init::Done::Stored(record) => {
                    report::stored(&record, plan.deadline.elapsed(), &cli.global.termination_log);
                    return Ok(());
                }
            };
            if let Some(entrypoint) = plan.entrypoint.clone() {
                let place = move || unit::place(&entrypoint.config, entrypoint.below.as_deref(), &entrypoint.dir);
                let path = blocking(place).await?;
                tracing::info!("{} is ready for the image's entrypoint", path.display());
            }
            report::built(&outcome, plan.deadline.elapsed(), &cli.global.termination_log);
        }
        Command::Apply(args) => {
            // Kubernetes drops the output of a hook, so also write to the container's log.
            if let Some(log) = unit::container_log() {
                telemetry::also(log);
            }
            let plan = plan::Apply::new(args)?;
            watched.until(plan.deadline, Kind::UnitUnreachable);
            signals.unless_one(unit::run(plan)).await?;
        }
        Command::Sidecar(args) => {
            let plan = plan::Keep::new(args)?;
            let words = report::LastWords::new(&cli.global.termination_log);
            let told = |part| {
                let words = Rc::clone(&words);
                Box::new(move |text: &str| words.say(part, text))
            };
            let keep = async {
                match plan {
                    plan::Keep::Configuration(plan) => unit::Sidecar::new(&plan, told(0)).keep().await,
                    plan::Keep::Repository(plan) => {
                        let unit = plan.unit.as_ref().map(|unit| unit::Sidecar::new(unit, told(0)));
                        follow::run(*plan, unit, told(1)).await
                    }
                }
            };
            match signals.unless_one(Box::pin(keep)).await {
                // Kubernetes ends a sidecar with a signal, so this is a success.
                Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => tracing::info!("{}", error.told()),
                other => other?,
            }
        }
        Command::Status(args) => {
            let plan = plan::Status::new(args)?;
            watched.until(plan.deadline, Kind::UnitUnreachable);
            let follows = plan.root.as_deref().map(follow::status).transpose()?.flatten();
            match (&follows, &plan.root) {
                (Some(state), _) if !plan.json => print!("{}", state.text()),
                (None, Some(root)) if !plan.json => println!("no sidecar follows a branch on {}", root.display()),
                _ => {}
            }
            let status = signals.unless_one(unit::status(plan.control.as_ref(), plan.deadline)).await?;
            print!("{}", if plan.json { status.json(follows.as_ref()) } else { status.text() });
            // In the sidecar's container, a probe learns from its message why Unit has no configuration.
            status.well().map_err(|error| match report::last_words(&cli.global.termination_log) {
                Some(text) => error.excerpt(text),
                None => error,
            })?;
        }
        Command::Rollback(args) => order(&args, follow::Order::Rollback, &mut signals, &watched).await?,
        Command::Resume(args) => order(&args, follow::Order::Resume, &mut signals, &watched).await?,
        Command::CopySelf(args) => {
            let copy = blocking(move || selfcopy::copy_to(&args.path));
            for path in signals.unless_one(copy).await? {
                tracing::info!("copied {}", path.display());
            }
        }
        Command::Check(args) => {
            let plan = plan::Check::new(args)?;
            signals.unless_one(blocking(move || check::run(&plan))).await?;
        }
        Command::Store(args) => {
            let plan = plan::Shelves::new(args)?;
            let (text, result) = signals.unless_one(blocking(move || store::run(&plan))).await?;
            // Ignore a reader that closes the pipe early.
            drop(io::stdout().write_all(text.as_bytes()));
            result?;
        }
        Command::Up(args) => {
            watched.is_server();
            up::run(plan::Up::new(args)?, signals).await?;
        }
        // Ignore a reader that closes the pipe early.
        Command::Completions(args) => drop(io::stdout().write_all(&cli::completions(args.shell))),
    }
    Ok(())
}

/// Gives the sidecar an order, and prints its state afterwards.
async fn order(args: &cli::OrderArgs, order: follow::Order, signals: &mut Signals, watched: &Watched) -> Result<()> {
    let plan = plan::Order::new(args)?;
    watched.until(plan.deadline, Kind::Volume);
    print!("{}", signals.unless_one(follow::give(&plan, order)).await?);
    Ok(())
}

/// The parsers and the properties that must hold for any input. `fuzz/` calls them.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::archive::fuzz as archive;
    pub use crate::check::fuzzing::*;
    pub use crate::config::fuzzing::*;
    pub use crate::plan::platform::fuzz as platform;
    pub use crate::plan::{fuzz as plan, ssh_address};
    pub use crate::redact::fuzz as redact;
    pub use crate::signature::fuzz as allowed_signers;
    pub use crate::size::fuzz as size;
    pub use crate::source::fuzzing::*;
    pub use crate::store::fuzzing::*;
    pub use crate::unit::fuzzing::*;
    pub use crate::up::fuzzing::*;
    pub use crate::venv::fuzzing::*;
    pub use crate::volume::fuzz as manifest;
}
