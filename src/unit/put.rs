//! Sends the configuration and explains a refusal.

use std::path::Path;

use hyper::Method;
use hyper::body::Bytes;
use tokio::time::timeout_at;

use super::deadline::gave_up;
use super::log::Log;
use super::trouble::Trouble;
use super::wait::Answering;
use super::{channel, diagnose, reply};
use crate::config::{Config, dialect};
use crate::error::{Error, Kind};
use crate::retry::Deadline;

/// PUTs the unchanged bytes of the configuration to the path `at`.
pub(super) async fn put(
    found: &Answering,
    config: &Config,
    at: &str,
    log: &Log,
    proc: &Path,
    deadline: Deadline,
) -> Result<(), Trouble> {
    let body = Bytes::from(config.bytes.clone());
    // Unit answers after the applications have started, so the deadline is the only limit.
    let Ok(sent) = timeout_at(deadline.instant(), channel::send(&found.control, Method::PUT, at, body)).await else {
        return Err(no_answer(found, config, deadline).into());
    };
    match sent {
        Ok(reply) if reply.status == 200 => Ok(()),
        Ok(reply) => Err(refused(found, config, at, &reply, log, proc, deadline).await.into()),
        Err(failure) => Err(Trouble::Cut(failure.to_string())),
    }
}

/// Collects the reasons of a refusal from Unit, its log and this machine.
async fn refused(
    found: &Answering,
    config: &Config,
    at: &str,
    reply: &channel::Reply,
    log: &Log,
    proc: &Path,
    deadline: Deadline,
) -> Error {
    let mut about = reply::About { at: at.to_owned(), log: log.hint(), lines: log.since(), ..reply::About::default() };
    let untold = reply::is_untold(reply);
    if untold || reply::asks_for_modules(reply) {
        let status = channel::send(&found.control, Method::GET, "/status", Bytes::new());
        if let Ok(Ok(status)) = timeout_at(deadline.instant(), status).await {
            about.modules = reply::modules(&status.body);
            if let (true, Ok(wanted)) = (untold, dialect::to_value(&config.bytes)) {
                let value = |bytes| dialect::to_value(bytes).unwrap_or_default();
                let scene = diagnose::Scene::new(proc, found.peer, value(&status.body), value(&found.config));
                about.explanation = diagnose::explain(&scene, at, &wanted, deadline).await;
            }
        }
    }
    reply::refused(config, &found.control.to_string(), reply, &about)
}

fn no_answer(found: &Answering, config: &Config, deadline: Deadline) -> Error {
    let what = format!("Unit at {} has not finished applying {}", found.control, config.path.display());
    Error::new(Kind::UnitUnreachable, what)
        .because(gave_up(1, deadline))
        .hint(
            "raise --timeout: Unit answers after it has started every process of every application, one after \
             another",
        )
        .hint(
            "read Unit's log (`kubectl logs POD -c CONTAINER`): Unit continues, and the log names the application \
             it waits for",
        )
}
