//! Gets a token for an installation of a GitHub App, and renews it before its end: requests read their logins again and
//! again, so this comes first.
//! <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use reqwest::header::DATE;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout_at;

use super::app::{App, BASE, ID, INSTALLATION, KEY, Token};
use super::pace::Pace;
use super::web::unreachable;
use crate::error::{Error, Result};
use crate::http;
use crate::redact::Secret;
use crate::retry::{Deadline, retry};

/// A token has this time left, or podstrap gets another one: longer than a build takes.
const LEFT: Duration = Duration::from_mins(20);
/// A difference of clocks to name.
const SKEW: Duration = Duration::from_secs(30);
/// Most bytes of an answer to read.
const ANSWER: usize = 64 << 10;

/// What GitHub answers.
#[derive(Deserialize)]
struct Granted {
    token: String,
    /// RFC 3339.
    expires_at: String,
    #[serde(default)]
    permissions: HashMap<String, String>,
}

/// Gets a token for each App, unless its last one is still good for a while.
///
/// # Errors
/// Source: GitHub gives no token.
pub(crate) async fn sign_in(apps: &[App], deadline: Deadline) -> Result<()> {
    for app in apps {
        let left = app.token().map(|token| token.left()).unwrap_or_default();
        if left >= LEFT {
            continue;
        }
        // The one at hand serves while GitHub is down.
        let deadline = if left.is_zero() { deadline } else { deadline.once() };
        match retry(deadline, &format!("{app} asks for a token"), async || token(app, deadline).await).await {
            Ok(token) => app.keep(token),
            Err(error) if error.is_unreachable() && !left.is_zero() => tracing::warn!("{}", error.told()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn token(app: &App, deadline: Deadline) -> Result<Token> {
    let what = format!("{app} gets no token");
    let base = app.base.as_str().trim_end_matches('/');
    let url = format!("{base}/app/installations/{}/access_tokens", app.installation);
    let request = http::client_for(&app.base)?
        .post(&url)
        .bearer_auth(app.proof()?)
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28");
    let pace = Pace::new(deadline);
    let response = match timeout_at(pace.until(), request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(unreachable(&what, error)),
        Err(_) => return Err(pace.stalled(&what)),
    };
    if response.status() != StatusCode::CREATED {
        return Err(refused(app, &what, response, pace).await);
    }
    let text = body(response, pace).await;
    let granted: Granted = serde_json::from_str(&text).map_err(|_| {
        Error::source(&what)
            .because("the answer is not one of GitHub's API")
            .hint(format!("correct {BASE}: https://HOST/api/v3"))
    })?;
    match granted.permissions.get("contents").map(String::as_str) {
        Some("read" | "write") => {}
        _ => {
            return Err(Error::source(format!("{app} may not read repositories"))
                .because("its installation does not have the permission \"Contents\"")
                .hint(
                    "give the App the repository permission Contents: Read-only, and accept it for the installation",
                ));
        }
    }
    let ends = humantime::parse_rfc3339(&granted.expires_at).unwrap_or_else(|_| SystemTime::now() + LEFT);
    tracing::debug!("{app} has a token until {}", granted.expires_at);
    Ok(Token { secret: Secret::new(granted.token), ends })
}

/// Explains a refusal.
async fn refused(app: &App, what: &str, response: Response, pace: Pace) -> Error {
    let (status, after) = (response.status(), wait(&response));
    let skew = skew(&response);
    let text = body(response, pace).await;
    let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let said = said["message"].as_str().unwrap_or_default().to_owned();
    let error = Error::source(what).because(format!("{} answers {status}", app.base.host_str().unwrap_or_default()));
    let error = if said.is_empty() { error } else { error.because(said.clone()) };
    match status.as_u16() {
        401 => match skew {
            Some(skew) => error.because(skew).hint("set the clock of the node: a proof is valid for ten minutes"),
            None => error.hint(format!("check {ID} and {KEY}: the key must be one of this App")),
        },
        403 | 429 if after.is_some() => error.because("too many requests").transient(after).unreachable(),
        403 if said.contains("suspended") => error.hint("unsuspend the installation in the settings of its owner"),
        404 => error.hint(format!("check {INSTALLATION}: the App must be installed where the repository is")),
        500.. => error.transient(after).unreachable(),
        _ => error.hint("read GitHub's message above"),
    }
}

/// How long a rate limit lasts: `Retry-After`, or the time at which the limit ends (GitHub, "Rate limits").
fn wait(response: &Response) -> Option<Duration> {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let reset = || {
        let ends = header("x-ratelimit-reset").filter(|_| header("x-ratelimit-remaining") == Some("0"))?;
        let ends = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(ends.parse().ok()?))?;
        Some(ends.duration_since(SystemTime::now()).unwrap_or_default())
    };
    http::retry_after(response).or_else(reset)
}

/// The difference between the server's clock and this one, if it is large.
fn skew(response: &Response) -> Option<String> {
    let theirs = httpdate::parse_http_date(response.headers().get(DATE)?.to_str().ok()?).ok()?;
    let now = SystemTime::now();
    let (by, which) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let shown = humantime::format_duration(Duration::from_secs(by.as_secs()));
    (by >= SKEW).then(|| format!("the clock of this node is {shown} {which} the server's"))
}

/// The beginning of a body; empty if it does not come.
async fn body(mut response: Response, pace: Pace) -> String {
    let mut text = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout_at(pace.until(), response.chunk()).await {
        text.extend_from_slice(&chunk[..chunk.len().min(ANSWER - text.len())]);
        if text.len() == ANSWER {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
