//! The configuration is read back: Unit shows it, and goes on showing it.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::channel;
use super::expected::Expected;
use super::listener::Listener;
use super::trouble::Trouble;
use super::wait::Answering;
use crate::plan::Control;
use crate::retry::Deadline;

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

/// Whether Unit has the configuration already, beyond doubt.
pub(super) async fn is_there(
    found: &Answering,
    at: &str,
    wanted: &Expected,
    deadline: Deadline,
) -> Result<bool, Trouble> {
    if at == "/config" {
        return Ok(wanted.is_surely(&found.config));
    }
    match timeout_at(deadline.instant(), channel::send(&found.control, Method::GET, at, Bytes::new())).await {
        Ok(Ok(reply)) => Ok(reply.status == 200 && wanted.is_surely(&reply.body)),
        Ok(Err(failure)) => Err(Trouble::Cut(failure.to_string())),
        Err(_) => Ok(false),
    }
}

/// Reads the configuration back, and watches for `settle` if the listener may not stay. An error says
/// what is there instead.
pub(super) async fn stays(
    found: &Answering,
    at: &str,
    wanted: &Expected,
    settle: Duration,
    deadline: Deadline,
) -> Result<(), String> {
    let settle = if found.listener == Listener::Final { Duration::ZERO } else { settle };
    let settled = Instant::now() + settle;
    loop {
        timeout_at(deadline.instant(), is_shown(found, at, wanted))
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

/// Whether the same process still listens and shows our configuration.
async fn is_shown(found: &Answering, at: &str, wanted: &Expected) -> Result<(), String> {
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
