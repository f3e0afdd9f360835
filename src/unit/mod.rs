//! The control API of NGINX Unit and FreeUnit: wait, PUT, read back, explain.
//!
//! ```text
//! wait::wait ── an answer ──▶ PUT /config ── 200 ──▶ GET /config: ours? ──▶ prove ──▶ applied
//!     ▲            the bytes as they are │            │ the listener may be the entrypoint's:
//!     │                                  ▼            ▼ watch it for SETTLE
//!     └──────── the connection was cut, or another daemon or configuration is there
//! ```
//!
//! Certificates and modules go before the configuration (`store`). What Unit has already is not
//! sent. A refusal is put in words (`reply`), with what can be found out here (`diagnose`) and the
//! lines of Unit's log since the PUT (`log`).
//!
//! There is never more than one request of ours at once: bursts have crashed Unit's controller.

mod chain;
mod channel;
mod diagnose;
mod entrypoint;
mod listener;
mod log;
mod probe;
mod prove;
mod reply;
mod setup;
mod sidecar;
mod status;
mod store;
mod wait;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Config, dialect};
use crate::error::{Error, Kind, Result};
use crate::plan::Control;
use crate::retry::Deadline;
use crate::telemetry::Phase;
use listener::Listener;
use log::Log;
use store::Trouble;
use wait::Found;

pub use entrypoint::place;
pub use probe::{first_answer, probe};
pub use setup::{Part, Setup};
pub use sidecar::Sidecar;
pub use status::{Status, status};

/// Where the packages and images put the control socket.
///
/// The Docker images' entrypoint (`pkg/docker/docker-entrypoint.sh`) and the deb packages of
/// nginx.org use the first, those of FreeUnit as well until its deb of 1.36; the RPM packages have
/// a directory of their own, and Alpine uses /run. Each is tried below /run too: /var/run is mostly
/// a link to it, but not in every image.
pub const SOCKETS: [&str; 6] = [
    "/var/run/control.unit.sock",
    "/run/control.unit.sock",
    "/var/run/unit/control.sock",
    "/run/unit/control.sock",
    "/var/run/control.freeunit.sock",
    "/run/control.freeunit.sock",
];

/// How long a Unit that may be the entrypoint's temporary one is watched after it took the
/// configuration.
///
/// Between two steps that a client can see (another configuration, the socket gone) the script
/// sleeps at most 1 s; as much again is for a container that is short of CPU. Where the script
/// could be watched the steps came within 0.12 s, 1.1 s with a sleep. What this cannot see is a
/// script in /docker-entrypoint.d that takes longer without touching the configuration.
pub const SETTLE: Duration = Duration::from_secs(2);

/// The pause between looks while it is watched.
const WATCH: Duration = Duration::from_millis(50);
/// The pause before the configuration is applied again: others get their turn.
const AGAIN: Duration = Duration::from_millis(250);
/// A PUT whose connection is cut this often has crashed Unit rather than met its restart.
const CUTS: u32 = 4;

/// What was proven.
#[derive(Debug)]
pub struct Applied {
    /// Where Unit answered.
    pub control: Control,
    /// `Unit/1.35.0`, from the Server header.
    pub server: String,
    /// What was sent; nothing if Unit had it all.
    pub sent: Vec<String>,
    log: Log,
}

impl Applied {
    /// Adds Unit's log since then to a failure that came after it.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match self.log.since() {
            Some(lines) => error.excerpt(lines).hint(self.log.hint()),
            None => error,
        }
    }
}

/// What a listener answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// At most 64 KiB of it.
    pub body: Vec<u8>,
}

/// Waits for the control socket, PUTs what Unit lacks of the setup, reads it back, and sees that
/// the applications run.
///
/// Without `control` the [`SOCKETS`] are looked at in turn, and the first that answers is used.
///
/// # Errors
/// `UnitUnreachable`: no answer until the deadline, to the wait or to the PUT. `UnitRefused`: Unit
/// says no, the configuration does not stay, or an application has no process.
pub async fn apply(control: Option<&Control>, setup: &Setup, deadline: Deadline) -> Result<Applied> {
    Client::default().apply(control, setup, deadline).await
}

/// [`apply`] with everything it takes from the machine; the default is the machine as it is.
#[derive(Debug, Clone)]
pub struct Client {
    /// What is looked at when no address is given.
    pub sockets: Vec<PathBuf>,
    /// The process file system.
    pub proc: PathBuf,
    /// See [`SETTLE`].
    pub settle: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self { sockets: SOCKETS.map(PathBuf::from).into(), proc: PathBuf::from("/proc"), settle: SETTLE }
    }
}

impl Client {
    /// See [`apply`].
    pub async fn apply(&self, control: Option<&Control>, setup: &Setup, deadline: Deadline) -> Result<Applied> {
        let controls = self.controls(control);
        let mut run = Run { client: self, setup, wanted: Wanted::new(setup), deadline, sent: Vec::new() };
        let mut cuts = 0;
        let mut trouble = None;
        loop {
            let waiting = Phase::start("wait", "for Unit's control API");
            let found = match wait::wait(&controls, &self.proc, deadline).await {
                Ok(found) => found,
                Err(error) => return Err(with(error, trouble)),
            };
            waiting.done(&format!("{} at {}", found.server, found.control));

            let log = Log::of(&self.proc, found.peer);
            let applying = Phase::start("apply", &setup.shown());
            let why = match run.once(&found, &log).await? {
                Once::Applied => {
                    let shown = setup.shown();
                    applying.done(&if run.sent.is_empty() {
                        format!("{shown}: unchanged, Unit has it already (and goes on with the code it has loaded)")
                    } else {
                        format!("{shown}: applied and read back")
                    });
                    return Ok(Applied { control: found.control, server: found.server, sent: run.sent, log });
                }
                Once::Cut(how) => {
                    cuts += 1;
                    if cuts == CUTS {
                        return Err(crashes(&found, setup, &how));
                    }
                    format!("while Unit applied it: {how}")
                }
                Once::Lost(why) if deadline.remaining() <= AGAIN => return Err(lost(&found, setup, &why)),
                Once::Lost(why) => why,
            };
            again(&why, deadline).await;
            trouble = Some(why);
        }
    }

    fn controls(&self, control: Option<&Control>) -> Vec<Control> {
        match control {
            Some(control) => vec![control.clone()],
            None => self.sockets.iter().cloned().map(Control::Unix).collect(),
        }
    }
}

/// One apply, with all its tries.
struct Run<'a> {
    client: &'a Client,
    setup: &'a Setup,
    wanted: Wanted,
    deadline: Deadline,
    /// What was sent, over all tries.
    sent: Vec<String>,
}

/// How one try ended, if Unit did not refuse it.
enum Once {
    Applied,
    /// The connection was cut: what became of the request is unknown.
    Cut(String),
    /// It was taken, but is not there; holds what is there instead.
    Lost(String),
}

impl Run<'_> {
    async fn once(&mut self, found: &Found, log: &Log) -> Result<Once> {
        match store::sync(found, self.setup, self.deadline).await {
            Ok(sent) => self.sent.extend(sent),
            Err(Trouble::Cut(how)) => return Ok(Once::Cut(how)),
            Err(Trouble::Failed(error)) => return Err(error),
        }
        if let Some(config) = &self.setup.config {
            // A PUT that was cut may have been applied all the same; what cannot be compared is sent again.
            let there = match shown(found, &self.setup.at, self.deadline).await {
                Ok(shown) => shown.is_some_and(|shown| self.wanted.is_surely(&shown)),
                Err(how) => return Ok(Once::Cut(how)),
            };
            if !there {
                let proc = &self.client.proc;
                if let Some(how) = put(found, config, &self.setup.at, log, proc, self.deadline).await? {
                    return Ok(Once::Cut(how));
                }
                self.sent.push(self.setup.at.clone());
            }
        }
        if let Err(why) = self.verify(found).await {
            return Ok(Once::Lost(why));
        }
        prove::applications(found, self.setup, &self.wanted, log, self.deadline).await?;
        Ok(Once::Applied)
    }

    /// Reads the configuration back, and watches for a while if the listener may not stay. An
    /// error says what is there instead.
    async fn verify(&self, found: &Found) -> Result<(), String> {
        let deadline = self.deadline;
        let settle = if found.listener == Listener::Final { Duration::ZERO } else { self.client.settle };
        let settled = Instant::now() + settle;
        loop {
            timeout_at(deadline.instant(), check(found, &self.setup.at, &self.wanted))
                .await
                .map_err(|_| "Unit took it, but did not show it until the deadline".to_owned())??;
            let now = Instant::now();
            // What is left of the time is all there is to watch.
            if now >= settled || deadline.remaining() <= WATCH {
                return Ok(());
            }
            sleep(WATCH.min(settled - now)).await;
        }
    }
}

/// Whether the same process still listens and shows our configuration.
async fn check(found: &Found, at: &str, wanted: &Wanted) -> Result<(), String> {
    let reply = match channel::send(&found.control, Method::GET, at, Bytes::new()).await {
        Ok(reply) => reply,
        Err(failure) => return Err(format!("Unit went away after it took it: {failure}")),
    };
    if reply.status != 200 || !wanted.is(&reply.body) {
        return Err("Unit took it, but shows another configuration".into());
    }
    // The listener before the PUT and the one after the answer are the same process: so it was
    // the one in between.
    if let (Control::Unix(path), Some(before)) = (&found.control, found.peer) {
        let after = channel::peer(path).await.map_err(|error| format!("Unit went away after it took it: {error}"))?;
        if after != before {
            return Err("another Unit has taken the place of the one that took it".into());
        }
    }
    Ok(())
}

/// What is at a place of Unit's configuration; None if there is no such place.
async fn shown(found: &Found, at: &str, deadline: Deadline) -> Result<Option<Bytes>, String> {
    if at == "/config" {
        return Ok(Some(found.config.clone()));
    }
    match timeout_at(deadline.instant(), channel::send(&found.control, Method::GET, at, Bytes::new())).await {
        Ok(Ok(reply)) => Ok((reply.status == 200).then_some(reply.body)),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(_) => Ok(None),
    }
}

/// Sends the configuration. What comes back, if it is not an error, says how the connection was cut.
async fn put(
    found: &Found,
    config: &Config,
    at: &str,
    log: &Log,
    proc: &Path,
    deadline: Deadline,
) -> Result<Option<String>> {
    let body = Bytes::from(config.bytes.clone());
    // Unit answers when the applications have started, so the deadline is the only limit.
    let Ok(sent) = timeout_at(deadline.instant(), channel::send(&found.control, Method::PUT, at, body)).await else {
        return Err(no_answer(found, config, deadline));
    };
    let reply = match sent {
        Ok(reply) if reply.status == 200 => return Ok(None),
        Ok(reply) => reply,
        Err(failure) => return Ok(Some(failure.to_string())),
    };
    let mut about = reply::About { at: at.to_owned(), ..reply::About::default() };
    about.log = log.hint();
    about.lines = log.since();
    let untold = reply::is_untold(&reply);
    if untold || reply::asks_for_modules(&reply) {
        let status = channel::send(&found.control, Method::GET, "/status", Bytes::new());
        if let Ok(Ok(status)) = timeout_at(deadline.instant(), status).await {
            about.modules = reply::modules(&status.body);
            if let (true, Ok(wanted)) = (untold, dialect::to_value(&config.bytes)) {
                let value = |bytes| dialect::to_value(bytes).unwrap_or_default();
                let scene = diagnose::Scene::new(proc, found.peer, value(&status.body), value(&found.config));
                about.finding = diagnose::explain(&scene, at, &wanted, deadline).await;
            }
        }
    }
    Err(reply::refused(config, &found.control.to_string(), &reply, &about))
}

/// The configuration as it will be recognised.
struct Wanted(Option<Value>);

impl Wanted {
    fn new(setup: &Setup) -> Self {
        let Some(config) = &setup.config else { return Self(None) };
        let value = dialect::to_value(&config.bytes);
        if let Err(error) = &value {
            tracing::debug!("{}: podstrap cannot read it, Unit may: {error}", config.path.display());
        }
        Self(value.ok())
    }
    /// Whether `shown` is it, beyond doubt.
    fn is_surely(&self, shown: &[u8]) -> bool {
        let same = |wanted| dialect::to_value(shown).is_ok_and(|shown| dialect::same(wanted, &shown));
        self.0.as_ref().is_some_and(same)
    }
    /// Whether `shown` is it; what podstrap cannot read counts as such.
    fn is(&self, shown: &[u8]) -> bool {
        let Some(wanted) = &self.0 else { return true };
        match dialect::to_value(shown) {
            Ok(shown) => dialect::same(wanted, &shown),
            Err(error) => {
                tracing::debug!("podstrap cannot read the configuration that Unit shows: {error}");
                true
            }
        }
    }
}

async fn again(why: &str, deadline: Deadline) {
    tracing::warn!("{why}; applying it again");
    sleep(AGAIN.min(deadline.remaining())).await;
}

fn with(error: Error, trouble: Option<String>) -> Error {
    match trouble {
        Some(trouble) => error.because(format!("before that, {trouble}")),
        None => error,
    }
}

fn no_answer(found: &Found, config: &Config, deadline: Deadline) -> Error {
    let what = format!("Unit at {} has not finished applying {}", found.control, config.path.display());
    Error::new(Kind::UnitUnreachable, what)
        .because(gave_up(1, deadline))
        .hint("it answers when every process of every application has started, one after another: raise --timeout")
        .hint("it goes on with it: its log (`kubectl logs POD -c CONTAINER`) names the application it waits for")
}

fn crashes(found: &Found, setup: &Setup, how: &str) -> Error {
    let what = format!("Unit at {} cut the connection {CUTS} times while applying", found.control);
    Error::new(Kind::UnitRefused, format!("{what} {}", setup.shown()))
        .because(how)
        .hint("look for \"exited on signal\" in Unit's log (`kubectl logs POD -c CONTAINER`), and for OOMKilled")
}

fn lost(found: &Found, setup: &Setup, why: &str) -> Error {
    let what = format!("{} does not stay in Unit at {}", setup.shown(), found.control);
    Error::new(Kind::UnitRefused, what)
        .because(why)
        .hint("does something else configure this Unit: another hook or sidecar, a file in /docker-entrypoint.d?")
}

fn gave_up(tries: u32, deadline: Deadline) -> String {
    let plural = if tries == 1 { "try" } else { "tries" };
    let limit = humantime::format_duration(deadline.limit());
    format!("gave up after {tries} {plural} in {:.1} s (--timeout {limit})", deadline.elapsed().as_secs_f64())
}

/// The log of this container, for a hook whose own output goes nowhere: the standard output of PID 1,
/// if that is Unit or the image's entrypoint, and is not ours anyway.
pub fn container_log() -> Option<std::fs::File> {
    listener::output(Path::new("/proc"))
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::chain::fuzz as chain;
    pub use super::reply::fuzz as replies;
}
