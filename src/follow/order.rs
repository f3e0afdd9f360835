//! `podstrap rollback` and `resume`: notes to the sidecar, which obeys with its next check.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::state::State;
use crate::error::{Error, Result};
use crate::plan;
use crate::retry::Deadline;
use crate::volume::Notes;

const ORDER: &str = "order";
const ANSWER: &str = "answer";
/// Between two looks for the answer.
const PAUSE: Duration = Duration::from_millis(100);

/// What a person asks of the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Serve the release before, until a newer commit.
    Rollback,
    /// Forget why a commit was refused.
    Resume,
}

/// The sidecar's answer: the reason if it could not obey.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    failed: Option<String>,
}

impl Order {
    /// The order that waits, for the sidecar.
    ///
    /// # Errors
    /// The note is unreadable, or another user made it.
    pub(super) fn waiting(notes: &Notes) -> Result<Option<Self>> {
        let Some(text) = notes.read(ORDER)? else { return Ok(None) };
        // First, so that a restart does not obey it twice.
        notes.remove(ORDER)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Tells the person how it went.
    pub(super) fn answer(notes: &Notes, failed: Option<String>) -> Result<()> {
        let answer = serde_json::to_vec(&Answer { failed }).unwrap_or_default();
        notes.write(ANSWER, &answer)
    }
}

/// Gives the order, and waits for the sidecar. Returns the state afterwards.
///
/// # Errors
/// The sidecar cannot obey, or none does before the deadline.
pub async fn give(plan: &plan::Order, order: Order) -> Result<String> {
    let (notes, deadline) = (Notes::open(&plan.root)?, plan.deadline);
    notes.remove(ANSWER)?;
    notes.write(ORDER, &serde_json::to_vec(&order).unwrap_or_default())?;
    // An order that nobody waits for must not stay: also after Ctrl-C.
    let _given = Given(&notes);
    let text = loop {
        if let Some(text) = notes.read(ANSWER)? {
            break text;
        }
        if deadline.remaining() <= PAUSE {
            let is_taken = !notes.remove(ORDER)?;
            return Err(if is_taken { unfinished(plan, deadline) } else { nobody(plan, deadline) });
        }
        sleep(PAUSE).await;
    };
    notes.remove(ANSWER)?;
    let answer: Option<Answer> = serde_json::from_slice(&text).ok();
    match answer.and_then(|answer| answer.failed) {
        Some(why) => Err(Error::volume("the sidecar could not do it").because(why)),
        None => Ok(State::read(&notes)?.unwrap_or_default().text()),
    }
}

/// Takes the order back when it is dropped.
struct Given<'a>(&'a Notes);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let _ = self.0.remove(ORDER);
    }
}

fn unfinished(plan: &plan::Order, deadline: Deadline) -> Error {
    Error::volume(format!("the sidecar on {} has begun, and not finished", plan.root.display()))
        .because(format!("gave up after {:.1?}", deadline.elapsed()))
        .hint("it goes on: `podstrap status --root DIR` shows the result; or raise --timeout")
}

fn nobody(plan: &plan::Order, deadline: Deadline) -> Error {
    Error::volume(format!("no sidecar answered on {}", plan.root.display()))
        .because(format!("gave up after {:.1?}", deadline.elapsed()))
        .hint(
            "run this in the container of `podstrap sidecar --repo`, with its --root: `kubectl exec POD -c CONTAINER`",
        )
}
