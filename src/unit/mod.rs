//! The control API of NGINX Unit and FreeUnit: wait, PUT, read back, explain.
//!
//! ```text
//! wait::wait ── an answer ──▶ PUT /config ── 200 ──▶ GET /config: ours? ──▶ applied
//!     ▲            the bytes as they are │            │ the listener may be the entrypoint's:
//!     │                                  ▼            ▼ watch it for SETTLE
//!     └──────── the connection was cut, or another daemon or configuration is there
//! ```
//!
//! There is never more than one request of ours at once: bursts have crashed Unit's controller.

mod channel;
pub mod dialect;
pub mod json;
mod listener;
mod probe;
mod reply;
mod wait;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, Kind, Result};
use crate::plan::Control;
use crate::retry::Deadline;
use crate::telemetry::Phase;
use listener::Listener;
use wait::Found;

pub use probe::{first_answer, probe};
pub(crate) use reply::caret;

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

/// A configuration and the name that messages give it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, for `file:line:column`.
    pub path: PathBuf,
    /// Sent verbatim.
    pub bytes: Vec<u8>,
}

/// What was proven.
#[derive(Debug)]
pub struct Applied {
    /// Where Unit answered.
    pub control: Control,
    /// `Unit/1.35.0`, from the Server header.
    pub server: String,
}

/// What a listener answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// At most 64 KiB of it.
    pub body: Vec<u8>,
}

/// Waits for the control socket, PUTs the configuration and reads it back.
///
/// Without `control` the [`SOCKETS`] are looked at in turn, and the first that answers is used.
///
/// # Errors
/// `UnitUnreachable`: no answer until the deadline, to the wait or to the PUT. `UnitRefused`: Unit
/// says no, or the configuration does not stay.
pub async fn apply(control: Option<&Control>, config: &Config, deadline: Deadline) -> Result<Applied> {
    Client::default().apply(control, config, deadline).await
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
    pub async fn apply(&self, control: Option<&Control>, config: &Config, deadline: Deadline) -> Result<Applied> {
        let controls = match control {
            Some(control) => vec![control.clone()],
            None => self.sockets.iter().cloned().map(Control::Unix).collect(),
        };
        let wanted = Wanted::new(config);
        let mut cuts = 0;
        let mut trouble = None;
        loop {
            let waiting = Phase::start("wait", "for Unit's control API");
            let found = match wait::wait(&controls, &self.proc, deadline).await {
                Ok(found) => found,
                Err(error) => return Err(with(error, trouble)),
            };
            waiting.done(&format!("{} at {}", found.server, found.control));

            let applying = Phase::start("apply", &config.path.display().to_string());
            // A cut PUT may have been applied all the same; where that cannot be seen it is sent again.
            if cuts == 0 || wanted.0.is_none() || !wanted.is(&found.config) {
                match put(&found, config, deadline).await? {
                    Put::Done => {}
                    Put::Cut(how) => {
                        cuts += 1;
                        if cuts == CUTS {
                            return Err(crashes(&found, config, &how));
                        }
                        let why = format!("while Unit applied it: {how}");
                        again(&why, deadline).await;
                        trouble = Some(why);
                        continue;
                    }
                }
            }
            match self.verify(&found, &wanted, deadline).await {
                Ok(()) => {
                    applying.done(&format!("{} is applied and read back", config.path.display()));
                    return Ok(Applied { control: found.control, server: found.server });
                }
                Err(why) if deadline.remaining() <= AGAIN => return Err(lost(&found, config, &why)),
                Err(why) => {
                    again(&why, deadline).await;
                    trouble = Some(why);
                }
            }
        }
    }

    /// Reads the configuration back, and watches for a while if the listener may not stay. An
    /// error says what is there instead.
    async fn verify(&self, found: &Found, wanted: &Wanted, deadline: Deadline) -> Result<(), String> {
        let settled = Instant::now() + if found.listener == Listener::Final { Duration::ZERO } else { self.settle };
        loop {
            timeout_at(deadline.instant(), check(found, wanted))
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
async fn check(found: &Found, wanted: &Wanted) -> Result<(), String> {
    let reply = match channel::send(&found.control, Method::GET, "/config", Bytes::new()).await {
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

/// How a PUT ended, if Unit did not refuse it.
enum Put {
    Done,
    /// What became of it is unknown.
    Cut(String),
}

async fn put(found: &Found, config: &Config, deadline: Deadline) -> Result<Put> {
    let body = Bytes::from(config.bytes.clone());
    // Unit answers when the applications have started, so the deadline is the only limit.
    let Ok(sent) = timeout_at(deadline.instant(), channel::send(&found.control, Method::PUT, "/config", body)).await
    else {
        return Err(no_answer(found, config, deadline));
    };
    match sent {
        Ok(reply) if reply.status == 200 => Ok(Put::Done),
        Ok(reply) => {
            let mut about = reply::About { modules: Vec::new(), uid: found.peer.map(|peer| peer.uid) };
            if reply::asks_for_modules(&reply) {
                let status = channel::send(&found.control, Method::GET, "/status", Bytes::new());
                if let Ok(Ok(status)) = timeout_at(deadline.instant(), status).await {
                    about.modules = reply::modules(&status.body);
                }
            }
            Err(reply::refused(config, &found.control.to_string(), &reply, &about))
        }
        Err(failure) => Ok(Put::Cut(failure.to_string())),
    }
}

/// The configuration as it will be recognised.
struct Wanted(Option<Value>);

impl Wanted {
    fn new(config: &Config) -> Self {
        let value = dialect::to_value(&config.bytes);
        if let Err(error) = &value {
            tracing::debug!("{}: podstrap cannot read it, Unit may: {error}", config.path.display());
        }
        Self(value.ok())
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

fn crashes(found: &Found, config: &Config, how: &str) -> Error {
    let what = format!("Unit at {} cut the connection {CUTS} times while applying", found.control);
    Error::new(Kind::UnitRefused, format!("{what} {}", config.path.display()))
        .because(how)
        .hint("look for \"exited on signal\" in Unit's log (`kubectl logs POD -c CONTAINER`), and for OOMKilled")
}

fn lost(found: &Found, config: &Config, why: &str) -> Error {
    let what = format!("{} does not stay in Unit at {}", config.path.display(), found.control);
    Error::new(Kind::UnitRefused, what)
        .because(why)
        .hint("does something else configure this Unit: another hook or sidecar, a file in /docker-entrypoint.d?")
}

fn gave_up(tries: u32, deadline: Deadline) -> String {
    let plural = if tries == 1 { "try" } else { "tries" };
    let limit = humantime::format_duration(deadline.limit());
    format!("gave up after {tries} {plural} in {:.1} s (--timeout {limit})", deadline.elapsed().as_secs_f64())
}

/// Reads the configuration file; a missing, empty or unreadable one is a usage error.
pub fn read_config(path: &Path) -> Result<Config> {
    use std::io::ErrorKind as K;
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let made = Error::usage(format!("cannot read the configuration {shown}"));
        match error.kind() {
            K::NotFound => made.because(error).hint("is the ConfigMap or volume mounted there, in this container?"),
            K::IsADirectory => made.because("it is a directory").hint(format!(
                "name the file in it: {}; a missing subPath also becomes a directory",
                path.join("unit.json").display()
            )),
            K::PermissionDenied => made.because(error).hint(format!(
                "podstrap runs as uid {}: give the file to it, or widen the volume's defaultMode",
                rustix::process::geteuid().as_raw()
            )),
            _ => made.because(error),
        }
    })?;
    if dialect::without_bom(&bytes).trim_ascii().is_empty() {
        return Err(Error::usage(format!("the configuration {shown} is empty"))
            .hint("the least that Unit accepts is {}; has a template or a ConfigMap key come out empty?"));
    }
    Ok(Config { path: path.to_owned(), bytes })
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::dialect::fuzz as dialect;
    pub use super::reply::fuzz as replies;
}
