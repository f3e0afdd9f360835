//! Applies a setup: wait, PUT, read back, prove.
//!
//! ```text
//! wait ── an answer ──▶ PUT /config ── 200 ──▶ GET /config: ours? ──▶ prove ──▶ applied
//!   ▲            the unchanged bytes │            │ the listener may be the entrypoint's:
//!   │                                ▼            ▼ watch it for SETTLE
//!   └──────── the connection was cut, or Unit has another process or configuration
//! ```
//!
//! podstrap uploads certificates and modules before it sends the configuration. It does not resend
//! unchanged objects.

use std::time::Duration;

use tokio::time::sleep;

use super::client::Client;
use super::expected::Expected;
use super::log::Log;
use super::probe::probe;
use super::setup::Setup;
use super::trouble::Trouble;
use super::wait::{Answering, wait};
use super::{prove, put, readback, store};
use crate::error::{Error, Kind, Result};
use crate::plan::{self, Control};
use crate::retry::Deadline;
use crate::telemetry::Phase;

/// The pause before another try, so that other clients can finish.
const AGAIN: Duration = Duration::from_millis(250);
/// After this many cut connections, assume that the PUT crashes Unit. A restart cuts only one.
const CUTS: u32 = 4;

/// A setup that Unit has and runs.
#[derive(Debug)]
pub struct Applied {
    /// The address that answered.
    pub control: Control,
    /// `Unit/1.35.0`, from the Server header.
    pub server: String,
    /// The uploaded objects and the path of the configuration. Empty if Unit had everything.
    pub sent: Vec<String>,
    log: Log,
}

impl Applied {
    /// Adds Unit's log since the apply to a later failure.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match self.log.since() {
            Some(lines) => error.excerpt(lines).hint(self.log.hint()),
            None => error,
        }
    }
}

/// Runs `podstrap apply`: reads the configuration, applies it, and probes the listener.
///
/// # Errors
/// `Usage`: a file cannot be read. `Probe`: the listener does not answer well. Otherwise as for [`apply`].
pub async fn run(plan: plan::Apply) -> Result<()> {
    let setup = Setup::read(&plan.config, &plan.path)?;
    let applied = apply(plan.control.as_ref(), &setup, plan.deadline).await?;
    tracing::info!("{} at {} has {}", applied.server, applied.control, setup.shown());
    if let Some(url) = &plan.probe {
        probe(url, plan.deadline).await.map_err(|error| applied.explain(error))?;
    }
    Ok(())
}

/// Waits for the control socket, PUTs the missing parts of the setup, reads them back, and verifies
/// that the applications run.
///
/// Without `control`, tries the [`SOCKETS`](super::SOCKETS) in turn and uses the first that answers.
///
/// # Errors
/// `UnitUnreachable`: no answer before the deadline, to the wait or to the PUT. `UnitRefused`: Unit
/// refuses the configuration or does not keep it, or an application has no process.
pub async fn apply(control: Option<&Control>, setup: &Setup, deadline: Deadline) -> Result<Applied> {
    Client::default().apply(control, setup, deadline).await
}

impl Client {
    /// See [`apply`].
    pub async fn apply(&self, control: Option<&Control>, setup: &Setup, deadline: Deadline) -> Result<Applied> {
        let controls = self.controls(control);
        let mut attempts =
            Attempts { client: self, setup, wanted: Expected::new(setup), deadline, sent: Vec::new(), cuts: 0 };
        let mut setback = None;
        loop {
            let waiting = Phase::start("wait", "for Unit's control API");
            let found = wait(&controls, &self.proc, deadline).await.map_err(|error| after(error, setback))?;
            waiting.done(&format!("{} at {}", found.server, found.control));

            let log = Log::of(&self.proc, found.peer);
            let applying = Phase::start("apply", &setup.shown());
            match attempts.one(&found, &log).await {
                Ok(()) => {
                    applying.done(&attempts.result());
                    return Ok(Applied { control: found.control, server: found.server, sent: attempts.sent, log });
                }
                Err(why) => {
                    let why = attempts.may_go_on(why, &found)?;
                    tracing::warn!("{why}; applying it again");
                    sleep(AGAIN.min(deadline.remaining())).await;
                    setback = Some(why);
                }
            }
        }
    }
}

/// The state of one apply, over all its tries.
struct Attempts<'a> {
    client: &'a Client,
    setup: &'a Setup,
    wanted: Expected,
    deadline: Deadline,
    /// See [`Applied::sent`].
    sent: Vec<String>,
    /// The number of cut connections.
    cuts: u32,
}

/// The reason why a try failed.
enum Setback {
    Trouble(Trouble),
    /// Unit accepted the configuration but does not have it. Holds the reason.
    Lost(String),
}

impl From<Trouble> for Setback {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Self::Trouble(error.into())
    }
}

impl Attempts<'_> {
    async fn one(&mut self, found: &Answering, log: &Log) -> Result<(), Setback> {
        let (at, deadline) = (&self.setup.at, self.deadline);
        self.sent.extend(store::sync(found, self.setup, deadline).await?);
        // Unit may have applied a PUT whose connection was cut. Resend a configuration that cannot be compared.
        if let Some(config) = &self.setup.config
            && !readback::is_there(found, at, &self.wanted, deadline).await?
        {
            put::put(found, config, at, log, &self.client.proc, deadline).await?;
            self.sent.push(at.clone());
        }
        readback::stays(found, at, &self.wanted, self.client.settle, deadline).await.map_err(Setback::Lost)?;
        prove::applications(found, self.setup, &self.wanted, log, deadline).await?;
        Ok(())
    }

    /// The reason of the setback, if another try may help; else an error.
    fn may_go_on(&mut self, setback: Setback, found: &Answering) -> Result<String> {
        match setback {
            Setback::Trouble(Trouble::Failed(error)) => Err(error),
            Setback::Trouble(Trouble::Cut(how)) => {
                self.cuts += 1;
                if self.cuts == CUTS {
                    Err(crashes(found, self.setup, &how))
                } else {
                    Ok(format!("while Unit applied it: {how}"))
                }
            }
            Setback::Lost(why) if self.deadline.remaining() <= AGAIN => Err(lost(found, self.setup, &why)),
            Setback::Lost(why) => Ok(why),
        }
    }

    fn result(&self) -> String {
        let shown = self.setup.shown();
        if self.sent.is_empty() {
            format!("{shown}: unchanged, so not sent again; Unit keeps the code that it has loaded")
        } else {
            format!("{shown}: applied and read back")
        }
    }
}

/// Adds the earlier setback to a failure.
fn after(error: Error, setback: Option<String>) -> Error {
    match setback {
        Some(why) => error.because(format!("before that, {why}")),
        None => error,
    }
}

fn crashes(found: &Answering, setup: &Setup, how: &str) -> Error {
    let what = format!("Unit at {} cut the connection {CUTS} times while applying", found.control);
    Error::new(Kind::UnitRefused, format!("{what} {}", setup.shown())).because(how).hint(
        "look for \"exited on signal\" in Unit's log (`kubectl logs POD -c CONTAINER`), and for OOMKilled in \
             `kubectl describe pod POD`",
    )
}

fn lost(found: &Answering, setup: &Setup, why: &str) -> Error {
    let what = format!("{} disappeared from Unit at {}", setup.shown(), found.control);
    Error::new(Kind::UnitRefused, what)
        .because(why)
        .hint("look for another program that configures this Unit: a hook, a sidecar, a file in /docker-entrypoint.d")
}
