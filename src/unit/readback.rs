//! Reads the configuration back, and watches that it stays.

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

/// The time to watch a configuration in a Unit that may be the entrypoint's temporary one.
///
/// Between two visible steps (another configuration, a missing socket), the script sleeps at most 1 s.
/// The other second is for a container that is short of CPU. In measurements, the steps came within
/// 0.12 s, or 1.1 s with a sleep. Limit: a script in /docker-entrypoint.d that runs longer and does not
/// change the configuration.
pub const SETTLE: Duration = Duration::from_secs(2);

/// The pause between two reads while watching.
const WATCH: Duration = Duration::from_millis(50);

/// Whether Unit provably has the configuration already.
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

/// Reads the configuration back, and watches it for `settle` if the listener may be temporary.
///
/// # Errors
/// Unit is gone, was replaced, or shows another configuration. The text says which.
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
            .map_err(|_| "Unit accepted the configuration, but did not show it before the deadline".to_owned())??;
        let now = Instant::now();
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
        Err(failure) => return Err(format!("Unit exited after it accepted the configuration: {failure}")),
    };
    let shown = if reply.status == 200 { wanted.is(&reply.body) } else { Err(format!("answers {}", reply.status)) };
    shown.map_err(|what| format!("Unit accepted the configuration, but {what}"))?;
    // If the same process listens before the PUT and after the answer, it also received the PUT.
    if let (Control::Unix(path), Some(before)) = (&found.control, found.peer) {
        let after = channel::peer(path)
            .await
            .map_err(|error| format!("Unit exited after it accepted the configuration: {error}"))?;
        if after != before {
            return Err("another Unit replaced the one that accepted the configuration".into());
        }
    }
    Ok(())
}
