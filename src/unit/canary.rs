//! Tries a setup in the Unit that will serve it: a copy of its applications beside those that run, asked over a private
//! socket.
//!
//! A trial that fails leaves Unit as it was: Unit refuses the configuration as a whole, or podstrap puts the former one
//! back.

use std::path::Path;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use reqwest::Url;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::channel::{self, LOCAL, NoReply};
use super::client::Client;
use super::log::Log;
use super::probe::{Failures, may_pass};
use super::prove::running;
use super::setup::Setup;
use super::trouble::Trouble;
use super::wait::Answering;
use super::{put, store};
use crate::config::canary::{self, Trial};
use crate::config::dialect;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::Control;
use crate::retry::Deadline;
use crate::telemetry::Phase;

/// Begins the name of the private socket, in the directory of the control socket. Unit leaves the file of a refused
/// configuration behind, and cannot bind to it again, so each trial has another name.
const SOCKET: &str = "podstrap-canary-";
/// The path with which the trial's listener shows a file of the release.
const RELEASE: &str = "/.podstrap/release.json";
/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at the processes of an application.
const LOOK: Duration = Duration::from_millis(100);
/// Time limit to put the former configuration back.
const BACK: Duration = Duration::from_secs(10);

/// Tries the setup of a release. `probe` is the URL that must not answer with a status of 500 or above, `file` a file of
/// the release, which Unit must see.
///
/// # Errors
/// `UnitRefused`: Unit refuses it. `Probe`: the page does not answer well. `Volume`: Unit does not see the release.
/// `UnitUnreachable`: Unit is gone.
pub(super) async fn try_out(
    client: &Client,
    found: &Answering,
    setup: &Setup,
    probe: Option<&Url>,
    file: &Path,
    deadline: Deadline,
) -> Result<()> {
    let Some(config) = &setup.config else { return Ok(()) };
    let Control::Unix(control) = &found.control else {
        tracing::warn!("the release serves without a trial: Unit's control API is not at a Unix socket");
        return Ok(());
    };
    let phase = Phase::start("canary", &setup.shown());
    let wanted = dialect::to_value(&config.bytes)
        .map_err(|why| Error::new(Kind::UnitRefused, format!("cannot read {}", config.path.display())).because(why))?;
    let current = dialect::to_value(&found.config)
        .map_err(|why| Error::new(Kind::UnitUnreachable, "cannot read the configuration that Unit has").because(why))?;
    let socket = control.with_file_name(format!("{SOCKET}{:08x}.sock", fastrand::u32(..)));
    let listener = format!("unix:{}", socket.display());
    let trial = Trial { listener: &listener, uri: RELEASE, file, port: probe.and_then(Url::port_or_known_default) };
    let (both, probe) = match canary::beside(&current, &wanted, trial) {
        Ok(both) => (both, probe),
        Err(why) => {
            tracing::warn!("the trial starts the applications, but does not ask for --probe: {why}");
            let both = canary::beside(&current, &wanted, Trial { port: None, ..trial });
            (both.map_err(|why| Error::new(Kind::UnitRefused, "cannot try the release").because(why))?, None)
        }
    };
    let log = Log::of(&client.proc, found.peer);
    store::sync(found, setup, deadline).await.map_err(Trouble::error)?;
    let trial = config.clone().derived(both.to_string().into_bytes());
    if let Err(trouble) = put::put(found, &trial, "/config", &log, &client.proc, deadline).await {
        // Unit has already deleted it, or never will.
        let _ = std::fs::remove_file(&socket);
        return Err(trouble.error());
    }
    let asked = async {
        sees(&socket, file, deadline).await?;
        for (name, path) in canary::copies(&wanted) {
            start(found, &socket, &name, &path, deadline).await?;
        }
        match probe {
            Some(url) => ask(&socket, url, deadline).await,
            None => Ok("the applications start".to_owned()),
        }
    };
    match asked.await {
        Ok(answer) => {
            phase.done(&answer);
            Ok(())
        }
        Err(error) => {
            put_back(found, Deadline::after(BACK)).await;
            if !is_same(found, control).await {
                return Err(Error::new(Kind::UnitUnreachable, "Unit ended during the trial").because(error.summary()));
            }
            Err(match log.since() {
                Some(lines) => error.excerpt(lines),
                None => error.hint(log.hint()),
            })
        }
    }
}

/// Whether the Unit that was found still answers.
async fn is_same(found: &Answering, control: &Path) -> bool {
    let pid = found.peer.as_ref().map(|peer| peer.pid);
    channel::peer(control).await.is_ok_and(|peer| Some(peer.pid) == pid)
}

/// Puts the configuration back that Unit had when it was found.
pub(super) async fn put_back(found: &Answering, deadline: Deadline) {
    let sent = channel::send(&found.control, Method::PUT, "/config", found.config.clone());
    if !matches!(timeout_at(deadline.instant(), sent).await, Ok(Ok(reply)) if reply.status == 200) {
        tracing::warn!("cannot put Unit's former configuration back: the next check does it");
    }
}

/// Checks that Unit sees the file of the release.
async fn sees(socket: &Path, file: &Path, deadline: Deadline) -> Result<()> {
    let failed = |why: String| {
        Error::volume("Unit does not see the release").because(format!("{}: {why}", file.display())).hint(
            "mount the whole volume, without subPath, at the same path in the containers of Unit and podstrap, and \
             let Unit's user read it",
        )
    };
    let own = files::read(file, files::GENERATED).map_err(|error| failed(error.to_string()))?;
    match timeout_at(deadline.instant(), channel::get(socket, LOCAL, RELEASE)).await {
        Ok(Ok(reply)) if reply.status == 200 && reply.body == own.as_slice() => Ok(()),
        Ok(Ok(reply)) if reply.status == 200 => Err(failed("Unit has another file at this path".to_owned())),
        Ok(Ok(reply)) => Err(failed(format!("Unit answers {}", reply.status))),
        Ok(Err(NoReply::Connect(error))) => {
            Err(Error::new(Kind::UnitRefused, format!("cannot connect to {}", socket.display()))
                .because("it is the listener of the trial, which Unit has created")
                .because(error)
                .hint("mount the directory of the control socket at the same path in both containers"))
        }
        Ok(Err(other)) => {
            Err(Error::new(Kind::UnitUnreachable, "lost the connection to Unit").because(other.to_string()))
        }
        Err(_) => Err(failed("Unit gives no answer".to_owned())),
    }
}

/// Starts an application of the trial with a request, whose answer does not matter.
async fn start(found: &Answering, socket: &Path, name: &str, path: &str, deadline: Deadline) -> Result<()> {
    let failed = |why: &str| {
        let shown = canary::original(name);
        Err(Error::new(Kind::UnitRefused, format!("the application {shown:?} does not start")).because(why))
    };
    let started = async {
        while !runs(found, name).await {
            sleep(LOOK).await;
        }
    };
    let answer = async {
        match channel::get(socket, LOCAL, path).await {
            // Unit's answer if there is no process, or the application's own one.
            Ok(reply) if reply.status == 503 => runs(found, name).await,
            _ => true,
        }
    };
    tokio::select! {
        () = tokio::time::sleep_until(deadline.instant()) => failed("no process before the deadline"),
        () = started => Ok(()),
        is_up = answer => if is_up { Ok(()) } else { failed("Unit answers 503") },
    }
}

/// Whether an application has a process.
async fn runs(found: &Answering, name: &str) -> bool {
    let status = channel::send(&found.control, Method::GET, "/status", Bytes::new()).await;
    let running = status.ok().and_then(|status| running(&status.body));
    running.is_some_and(|running| running.get(name).is_some_and(|count| *count > 0))
}

/// Asks for the page of `url` over the socket, until it answers well or equally badly several times.
async fn ask(socket: &Path, url: &Url, deadline: Deadline) -> Result<String> {
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let failed = |why: String| {
        Error::new(Kind::Probe, format!("the new release does not answer {target} in its trial"))
            .because(why)
            .hint("read the application's traceback in Unit's log (`kubectl logs POD -c CONTAINER`)")
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or(LOCAL).to_owned(),
    };
    let mut failures = Failures::default();
    loop {
        let started = Instant::now();
        let (why, passes) = match timeout_at(deadline.instant(), channel::get(socket, &host, &target)).await {
            Ok(Ok(reply)) if reply.status < 500 => {
                let took = started.elapsed().as_millis();
                return Ok(format!("{target} answers {} in {took} ms", reply.status));
            }
            Ok(Ok(reply)) => (format!("it answers {}", reply.status), may_pass(reply.status)),
            Ok(Err(failure)) => (failure.to_string(), false),
            Err(_) => return Err(failed("no answer before the deadline".to_owned())),
        };
        if failures.add((!passes).then(|| why.clone())) || deadline.remaining() <= PAUSE {
            return Err(failed(why));
        }
        sleep(PAUSE).await;
    }
}

/// The strings of a configuration, without those of a trial.
pub(super) fn serving(config: &Value) -> Vec<String> {
    let parts = config.as_object().into_iter().flatten().map(|(_, part)| part);
    let mut values: Vec<&Value> = Vec::new();
    for part in parts {
        match part {
            Value::Object(members) => {
                values.extend(members.iter().filter(|(name, _)| !canary::is_of_trial(name)).map(|(_, member)| member));
            }
            other => values.push(other),
        }
    }
    let mut found = Vec::new();
    while let Some(value) = values.pop() {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(inner) => values.extend(inner),
            Value::Object(inner) => values.extend(inner.values()),
            _ => {}
        }
    }
    found
}
