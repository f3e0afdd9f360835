//! Requests a page from the listener.
//!
//! An accepted configuration may still fail: with `spare: 0`, Unit starts an application only for its
//! first request.

use std::time::Duration;

use reqwest::{Client, Url};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::deadline::gave_up;
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::retry::Deadline;
use crate::telemetry::Phase;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Number of equal failures in a row, and their duration, after which the application is broken: it would answer the same
/// until the deadline.
const BROKEN: u32 = 5;
const BROKEN_TIME: Duration = Duration::from_secs(5);
/// Bytes of an answer to keep.
const BODY: usize = 64 * 1024;

/// The answer of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// At most the first 64 KiB.
    pub body: Vec<u8>,
}

/// GETs `url` until its status is below 500 or the deadline passes. Does not follow redirects.
pub async fn probe(url: &Url, deadline: Deadline) -> Result<Answer> {
    ask_until(|answer| answer.status < 500, url, deadline).await
}

/// GETs `url` once.
///
/// # Errors
/// `Probe`: no answer within the time, or one with status 500 or above.
pub async fn glance(url: &Url, within: Duration) -> Result<()> {
    let client = http::client_without_proxy()?;
    match timeout(within, ask(&client, url)).await {
        Ok(Ok(answer)) if answer.status < 500 => Ok(()),
        Ok(last) => Err(failed(url, Some(last))),
        Err(_) => Err(failed(url, None)),
    }
}

/// GETs `url` until it answers, with any status, or the deadline passes.
pub async fn first_answer(url: &Url, deadline: Deadline) -> Result<Answer> {
    ask_until(|_| true, url, deadline).await
}

async fn ask_until(good: fn(&Answer) -> bool, url: &Url, deadline: Deadline) -> Result<Answer> {
    let phase = Phase::start("probe", url.as_str());
    let client = http::client_without_proxy()?;
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    let mut last: Option<reqwest::Result<Answer>> = None;
    let mut failures = Failures::default();
    loop {
        tries += 1;
        match timeout_at(deadline.instant(), ask(&client, url)).await {
            Ok(Ok(answer)) if good(&answer) => {
                let first = first_line(&answer.body);
                phase.done(&format!(
                    "{url} answers {}{}",
                    answer.status,
                    first.map(|line| format!(": {line}")).unwrap_or_default()
                ));
                return Ok(answer);
            }
            Ok(outcome) => {
                let lasting = outcome.as_ref().ok().filter(|answer| !may_pass(answer.status));
                let is_broken = failures.add(lasting.cloned());
                last = Some(outcome);
                if is_broken {
                    return Err(failed(url, last).because(format!("{} equal answers in a row", failures.count)));
                }
            }
            // The deadline ended this try. Keep the result of an earlier one.
            Err(_) => {}
        }
        if deadline.remaining() <= pause {
            return Err(failed(url, last).because(gave_up(tries, deadline)));
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Whether an application that answers with this status may answer well a little later: 502, 503 and 504 say so, and others
/// are rare.
pub(super) fn may_pass(status: u16) -> bool {
    status != 500
}

/// Equal failures in a row.
#[derive(Debug)]
pub(super) struct Failures<T> {
    last: Option<T>,
    count: u32,
    since: Instant,
}

impl<T> Default for Failures<T> {
    fn default() -> Self {
        Self { last: None, count: 0, since: Instant::now() }
    }
}

impl<T: PartialEq> Failures<T> {
    /// Adds a failure; `None` for one that may pass. Whether the application is broken.
    pub(super) fn add(&mut self, failure: Option<T>) -> bool {
        if failure.is_none() || failure != self.last {
            (self.count, self.since) = (0, Instant::now());
        }
        self.count += 1;
        self.last = failure;
        self.last.is_some() && self.count >= BROKEN && self.since.elapsed() >= BROKEN_TIME
    }
}

async fn ask(client: &Client, url: &Url) -> reqwest::Result<Answer> {
    let mut response = client.get(url.clone()).send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = BODY - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == BODY {
            break;
        }
    }
    Ok(Answer { status, body })
}

fn failed(url: &Url, last: Option<reqwest::Result<Answer>>) -> Error {
    let error = |what| Error::new(Kind::Probe, format!("the configuration is applied, but {url} {what}"));
    match last {
        Some(Ok(answer)) => error(format!("answers {}", answer.status))
            .because(first_line(&answer.body).unwrap_or_else(|| "(an empty body)".into()))
            .hint("read the application's traceback in Unit's log (`kubectl logs POD -c CONTAINER`; with `up`, above)"),
        Some(Err(cause)) => error("cannot be reached".into())
            .because(innermost(&cause))
            .hint("check that a listener in the configuration has this address and port"),
        None => {
            error("gave no answer".into()).hint("raise --timeout, or read Unit's log: the application is slow or hangs")
        }
    }
}

/// The title of a page, or the first line that is not blank: at most 200 characters of it.
fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let title = text.split_once("<title>").and_then(|(_, rest)| Some(rest.split_once("</title>")?.0.trim()));
    let line = title.or_else(|| text.lines().map(str::trim).find(|line| !line.is_empty()))?;
    Some(line.lines().next()?.chars().take(200).collect())
}

/// The innermost cause. The outer layers only say that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}
