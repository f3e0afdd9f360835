//! Tells another program which release serves: a POST with JSON. Only the newest release matters: the caller drops an earlier
//! `send`.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::http;
use crate::plan;

use super::state::Serving;

/// Tries, and the pause after the first; each further pause is twice as long.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);
/// Time limit of one request.
const LIMIT: Duration = Duration::from_secs(10);

/// The body: `{"repo", "commit", "reference", "release", "path", "since"}`.
pub(super) fn body(init: &plan::Init, serving: &Serving) -> Value {
    json!({
        "repo": init.source.to_string(),
        "commit": serving.commit,
        "reference": serving.reference,
        "release": serving.release,
        "path": init.target.public(),
        "since": serving.since,
    })
}

/// Sends the body until the server takes it, or gives up with a warning.
pub(super) async fn send(url: Url, body: Value) {
    let (text, mut pause) = (body.to_string(), PAUSE);
    for number in 1..=TRIES {
        let why = match http::client_for(&url) {
            Ok(client) => {
                let request = client.post(url.clone()).timeout(LIMIT).header("content-type", "application/json");
                match request.body(text.clone()).send().await {
                    Ok(answer) if answer.status().is_success() => return,
                    Ok(answer) => format!("it answered {}", answer.status()),
                    Err(error) => crate::redact::clean(&format!("{:#}", error.without_url())),
                }
            }
            Err(error) => error.told(),
        };
        if number == TRIES {
            let host = url.host_str().unwrap_or_default();
            tracing::warn!(
                "--hook-url on {host} did not take the release {} after {TRIES} tries: {why}",
                body["release"]
            );
            return;
        }
        sleep(pause).await;
        pause *= 2;
    }
}
