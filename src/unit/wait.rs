//! Waits for a control API that answers, and records the obstacles.
//!
//! A socket file proves nothing. A killed unitd leaves it behind, a starting unitd creates it before it
//! answers, and so does the entrypoint's temporary unitd before the final one. Each check therefore
//! connects, asks the kernel for the listening process, and requires an answer to `GET /config`. Unit
//! answers that at once even while it applies something, but not while it starts the applications of its
//! saved state.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::channel::{self, NoReply, Peer, Reply};
use super::deadline::gave_up;
use super::listener::{Listener, judge};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::Control;
use crate::retry::Deadline;
use crate::telemetry;

/// The pause between two checks: Unit starts in about 20 ms, and a check costs one connect.
const PAUSE: Duration = Duration::from_millis(3);
/// A check that the deadline ends before this time gives no new information.
const LOOK: Duration = Duration::from_millis(50);

/// A control API that has just answered.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) control: Control,
    /// None over TCP.
    pub(super) peer: Option<Peer>,
    pub(super) listener: Listener,
    pub(super) server: String,
    /// The body of `GET /config`.
    pub(super) config: Bytes,
}

/// The reason why a control address does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    Absent,
    /// Holds the missing directory.
    NoDirectory(PathBuf),
    /// No process listens on the socket.
    Stale,
    /// The path is a file or device.
    NotASocket,
    Directory,
    /// Holds the reason: `the socket has mode 0600 and belongs to uid 0 …`.
    Forbidden(String),
    PathTooLong,
    /// Connected, but no answer yet.
    Busy,
    /// The connection ended without an answer. Holds the details.
    Dying(String),
    /// The same, and Unit runs as another user.
    Shut {
        peer: u32,
    },
    /// Holds the pid of the entrypoint's temporary daemon.
    Temporary(i32),
    /// The server is not Unit's control API. Holds the details.
    Foreign(String),
    Other(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no such file"),
            Self::NoDirectory(path) => write!(f, "no directory {}", path.display()),
            Self::Stale => f.write_str("no process listens on the socket (stale: its Unit has exited)"),
            Self::NotASocket => f.write_str("not a socket"),
            Self::Directory => f.write_str("a directory, not a socket"),
            Self::Forbidden(what) => write!(f, "permission denied: {what}, and podstrap runs as uid {}", uid()),
            Self::PathTooLong => f.write_str("the path is longer than 107 bytes, the limit for a socket"),
            Self::Busy => f.write_str("connected, but no answer yet: Unit is starting or applying something else"),
            Self::Shut { peer } => write!(
                f,
                "the connection was closed without an answer, as FreeUnit does for other users: Unit runs as uid \
                 {peer}, podstrap as uid {}",
                uid()
            ),
            Self::Temporary(pid) => {
                write!(f, "the entrypoint's temporary Unit (pid {pid}) answers; the final one has not started")
            }
            Self::Dying(what) | Self::Foreign(what) | Self::Other(what) => f.write_str(what),
        }
    }
}

impl Obstacle {
    /// Whether waiting cannot help.
    fn permanent(&self) -> bool {
        matches!(self, Self::Directory | Self::PathTooLong | Self::Foreign(_))
    }

    /// Whether waiting alone usually helps.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::Absent | Self::NoDirectory(_) | Self::Stale | Self::Busy | Self::Dying(_) | Self::Temporary(_)
        )
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Absent | Self::NoDirectory(_) | Self::Directory => {
                "check that unitd runs; if it does, set --control-socket to its --control path, as this container \
                 sees it (the socket of another container needs a shared volume)"
            }
            Self::Stale | Self::Dying(_) => "read unitd's log to see why it stopped: `kubectl logs POD -c CONTAINER`",
            Self::Forbidden(_) => {
                "run podstrap as the socket's owner, or start unitd with --control-mode 0660 and a \
                 --control-group that podstrap's user is in (Unit 1.32 and later)"
            }
            Self::PathTooLong => "choose a shorter path for unitd's --control option",
            Self::Busy => "raise --timeout if an application starts slowly; Unit's log names the application",
            Self::Shut { .. } => {
                "give both containers the same runAsUser: FreeUnit 1.36 and later answer only root and the user that \
                 unitd runs as"
            }
            Self::Temporary(_) => {
                "raise --timeout: a script or a slow application in /docker-entrypoint.d keeps the entrypoint busy"
            }
            Self::Foreign(_) => {
                "use Unit's control address (unitd's --control option), not a listener of its configuration"
            }
            Self::NotASocket | Self::Other(_) => {
                "check that unitd runs, and that --control-socket matches its --control option"
            }
        }
    }

    /// The progress towards an answer: of several sockets, the error explains the one with the most.
    fn rank(&self) -> u8 {
        match self {
            Self::NoDirectory(_) => 0,
            Self::Absent => 1,
            Self::Other(_) | Self::Directory | Self::PathTooLong | Self::NotASocket => 2,
            Self::Stale => 3,
            Self::Forbidden(_) | Self::Foreign(_) => 4,
            Self::Dying(_) | Self::Shut { .. } => 5,
            Self::Temporary(_) | Self::Busy => 6,
        }
    }
}

/// Checks the addresses in turn until one answers, none ever can, or the deadline passes.
pub(super) async fn wait(controls: &[Control], proc: &Path, deadline: Deadline) -> Result<Answering> {
    search(controls, proc, PAUSE, deadline).await.map_err(|(seen, tries)| unreachable(controls, &seen, tries, deadline))
}

/// The same with longer pauses, for the sidecar.
///
/// # Errors
/// The obstacle, with a hint if waiting does not help.
pub(super) async fn wait_slowly(
    controls: &[Control],
    proc: &Path,
    pause: Duration,
    deadline: Deadline,
) -> Result<Answering, String> {
    search(controls, proc, pause, deadline).await.map_err(|(seen, _)| {
        let (control, obstacle) = farthest(controls, &seen);
        // A starting Unit needs no hint.
        let hint = if obstacle.passes() { String::new() } else { format!("\nhint: {}", obstacle.hint()) };
        format!("{control}: {obstacle}{hint}")
    })
}

/// Checks the addresses. Fails with the obstacle of each address and the number of checks.
async fn search(
    controls: &[Control],
    proc: &Path,
    pause: Duration,
    deadline: Deadline,
) -> Result<Answering, (Vec<Obstacle>, u32)> {
    let mut tries = 0;
    let mut seen: Vec<Obstacle> = Vec::new();
    loop {
        tries += 1;
        let mut now = Vec::with_capacity(controls.len());
        for (at, control) in controls.iter().enumerate() {
            let started = Instant::now();
            match timeout_at(deadline.instant(), look(control, proc)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(obstacle)) => now.push(obstacle),
                Err(_) => now.push(match seen.get(at) {
                    Some(before) if started.elapsed() < LOOK => before.clone(),
                    _ => Obstacle::Busy,
                }),
            }
        }
        if now != seen {
            let (control, obstacle) = farthest(controls, &now);
            telemetry::progress(&format!("wait: {control}: {obstacle}"));
            tracing::debug!("{control}: {obstacle}");
            seen = now;
        }
        if deadline.remaining() <= pause || seen.iter().all(Obstacle::permanent) {
            return Err((seen, tries));
        }
        sleep(pause).await;
    }
}

fn farthest<'a>(controls: &'a [Control], seen: &'a [Obstacle]) -> (&'a Control, &'a Obstacle) {
    // max_by_key returns the last of equals, so reverse to get the first.
    controls.iter().zip(seen).rev().max_by_key(|(_, obstacle)| obstacle.rank()).expect("at least one address")
}

fn unreachable(controls: &[Control], seen: &[Obstacle], tries: u32, deadline: Deadline) -> Error {
    let (control, obstacle) = farthest(controls, seen);
    let error = if let [only] = controls {
        Error::new(Kind::UnitUnreachable, format!("no answer from Unit's control API at {only}"))
            .because(obstacle.to_string())
    } else {
        let list = controls.iter().zip(seen).map(|(control, obstacle)| format!("{control}: {obstacle}\n"));
        Error::new(Kind::UnitUnreachable, "no answer from Unit's control API at any of the usual sockets")
            .because(format!("{control}: {obstacle}"))
            .excerpt(list.collect::<String>())
    };
    let error = if obstacle.permanent() { error } else { error.because(gave_up(tries, deadline)) };
    error.hint(obstacle.hint())
}

/// Checks one address once.
async fn look(control: &Control, proc: &Path) -> Result<Answering, Obstacle> {
    let (peer, listener) = match control {
        Control::Unix(path) => {
            let peer = channel::peer(path).await.map_err(|error| classify(path, &error))?;
            (Some(peer), judge(proc, peer.pid))
        }
        // The entrypoint's daemon listens only on a Unix socket.
        Control::Http(_) => (None, Listener::Final),
    };
    if listener == Listener::Temporary {
        return Err(Obstacle::Temporary(peer.and_then(|peer| peer.pid).unwrap_or_default()));
    }
    let Reply { status, server, body } = match channel::send(control, Method::GET, "/config", Bytes::new()).await {
        Ok(reply) => reply,
        Err(NoReply::Connect(error)) => match control {
            Control::Unix(path) => return Err(classify(path, &error)),
            Control::Http(_) => return Err(Obstacle::Other(error.to_string())),
        },
        Err(failure @ NoReply::Cut(_)) => match peer {
            Some(peer) if uid() != 0 && uid() != peer.uid => return Err(Obstacle::Shut { peer: peer.uid }),
            _ => return Err(Obstacle::Dying(failure.to_string())),
        },
        Err(failure) => return Err(Obstacle::Foreign(failure.to_string())),
    };
    // Unit always answers this with 200.
    if status != 200 {
        return Err(Obstacle::Foreign(format!("{server} answered GET /config with {status}: not Unit's control API")));
    }
    // Require an object, because another server may answer 200 to every request.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Obstacle::Foreign(format!(
            "{server} answered GET /config without a JSON object: not Unit's control API"
        )));
    }
    Ok(Answering { control: control.clone(), peer, listener, server, config: body })
}

/// Classifies a failed connect. connect(2) reports "refused" for a directory and a plain file too, not
/// only for a stale socket.
fn classify(path: &Path, error: &io::Error) -> Obstacle {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotFound => match path.ancestors().skip(1).filter(|dir| files::exists(dir).is_ok_and(|there| !there)).last()
        {
            Some(dir) => Obstacle::NoDirectory(dir.to_owned()),
            None => Obstacle::Absent,
        },
        K::ConnectionRefused => match path.metadata() {
            Ok(meta) if meta.is_dir() => Obstacle::Directory,
            Ok(meta) if !meta.file_type().is_socket() => Obstacle::NotASocket,
            _ => Obstacle::Stale,
        },
        K::PermissionDenied => Obstacle::Forbidden(match path.metadata() {
            Ok(meta) => format!(
                "the socket has mode {:04o} and belongs to uid {} gid {}",
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid()
            ),
            Err(_) => "its directory is not searchable".into(),
        }),
        // The backlog is full.
        K::WouldBlock => Obstacle::Busy,
        K::InvalidInput => Obstacle::PathTooLong,
        _ => Obstacle::Other(error.to_string()),
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
