//! Verifies that the applications run: Unit may accept a configuration whose applications exit.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::{sleep, timeout_at};

use super::channel;
use super::expected::Expected;
use super::log::Log;
use super::setup::Setup;
use super::wait::Answering;
use crate::config::applications::applications_at;
use crate::error::{Error, Kind, Result};
use crate::retry::Deadline;

/// Unit answers a PUT after the processes have started. A missing process has therefore exited, and Unit
/// starts another only for a request.
const PAUSE: Duration = Duration::from_millis(100);
const LOOKS: u32 = 5;

/// Requires a process of every application that Unit starts without a request.
pub(super) async fn applications(
    found: &Answering,
    setup: &Setup,
    wanted: &Expected,
    log: &Log,
    deadline: Deadline,
) -> Result<()> {
    let applications = wanted.value().map(|config| applications_at(&setup.at, config)).unwrap_or_default();
    let wanted: Vec<_> = applications.iter().filter(|(_, app)| is_kept_running(app)).map(|(name, _)| name).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut missing = Vec::new();
    for look in 0..LOOKS {
        if look > 0 {
            sleep(PAUSE.min(deadline.remaining())).await;
        }
        let status = channel::send(&found.control, Method::GET, "/status", Bytes::new());
        let Ok(Ok(status)) = timeout_at(deadline.instant(), status).await else {
            tracing::warn!("no status from Unit: podstrap cannot verify that the applications run");
            return Ok(());
        };
        // Unit shows them since 1.29.
        let Some(running) = running(&status.body) else {
            tracing::debug!("{} does not show its applications' processes", found.server);
            return Ok(());
        };
        missing = wanted.iter().filter(|name| running.get(**name).is_none_or(|count| *count == 0)).collect();
        if missing.is_empty() {
            return Ok(());
        }
    }
    let names = missing.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let error = Error::new(
        Kind::UnitRefused,
        format!("{} is applied, but Unit has no running process of {names}", setup.shown()),
    )
    .because("the process started and exited; Unit starts another only for a request")
    .hint(log.hint());
    Err(match log.since() {
        Some(lines) => error.excerpt(lines),
        None => error,
    })
}

/// Whether Unit starts a process before the first request.
///
/// `processes` is a number (default 1) or an object. Its `spare` is the number of idle processes
/// (default 0).
pub(super) fn is_kept_running(app: &Value) -> bool {
    match app.get("processes") {
        Some(Value::Object(limits)) => limits.get("spare").and_then(Value::as_f64).is_some_and(|spare| spare > 0.0),
        _ => true,
    }
}

/// The running processes of each application, from `GET /status`.
pub(super) fn running(status: &[u8]) -> Option<std::collections::HashMap<String, u64>> {
    let status: Value = serde_json::from_slice(status).ok()?;
    let one = |(name, app): (&String, &Value)| {
        (name.clone(), app.pointer("/processes/running").and_then(Value::as_u64).unwrap_or_default())
    };
    Some(status.get("applications")?.as_object()?.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_to_run_is_told_from_what_waits_for_a_request() {
        assert!(is_kept_running(&json!({})) && is_kept_running(&json!({"processes": 4})));
        assert!(is_kept_running(&json!({"processes": {"max": 4, "spare": 1}})));
        assert!(!is_kept_running(&json!({"processes": {"max": 4}})));
        assert!(!is_kept_running(&json!({"processes": {"spare": 0}})));
    }

    #[test]
    fn processes_are_counted() {
        let status = br#"{"applications": {"a": {"processes": {"running": 2}}, "b": {}}}"#;
        let running = running(status).unwrap();
        assert_eq!((running["a"], running["b"]), (2, 0));
        assert_eq!(super::running(b"{}"), None);
    }
}
