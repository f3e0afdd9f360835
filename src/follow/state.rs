//! What a sidecar remembers on the volume, and shows to people.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, Result};
use crate::files::{self, GENERATED};
use crate::plan::RESERVED;
use crate::redact;
use crate::volume::{Notes, Release};

/// The name of the note.
pub const STATE: &str = "follow.json";
/// The steps that fail after a release has served.
pub const WATCH: &str = "watch";
pub const ROLLBACK: &str = "rollback";

/// The releases that serve, and the commit that does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub serving: Option<Serving>,
    /// The IDs of the releases before, newest first.
    pub former: Vec<String>,
    /// The ID of the last release that passed its watch.
    pub proven: Option<String>,
    /// The commit of the reference at the last look.
    pub wanted: Option<String>,
    pub refused: Option<Refused>,
    /// Why the last look failed; `None` if it did not.
    pub look: Option<String>,
}

/// The release that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    pub release: String,
    pub commit: String,
    pub reference: Option<String>,
    /// RFC 3339, in seconds.
    pub since: String,
}

/// A commit that does not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub commit: String,
    /// The step that failed, or `rollback`.
    pub step: String,
    /// The error, in one line.
    pub why: String,
    /// RFC 3339, in seconds.
    pub since: String,
    /// Whether the cause may pass by itself.
    pub passes: bool,
}

impl Refused {
    /// Whether it served before it was refused.
    pub fn has_served(&self) -> bool {
        [WATCH, ROLLBACK].contains(&self.step.as_str())
    }
}

impl Serving {
    pub fn new(release: &Release) -> Self {
        let revision = &release.manifest.source.revision;
        Self {
            release: release.id.clone(),
            commit: revision.commit.clone(),
            reference: revision.reference.clone(),
            since: now(),
        }
    }
}

impl Serving {
    /// How long it serves.
    pub fn age(&self) -> Duration {
        let since = humantime::parse_rfc3339(&self.since).unwrap_or_else(|_| SystemTime::now());
        SystemTime::now().duration_since(since).unwrap_or_default()
    }
}

/// The state of the sidecar that follows on this volume, if there is one, for `podstrap status`. It may run in another
/// container, and without permission to write.
///
/// # Errors
/// Volume: the state is unreadable.
pub fn status(root: &Path) -> Result<Option<State>> {
    let path = root.join(RESERVED).join(STATE);
    let text = files::read_if_there(&path, GENERATED).on_volume(|| format!("cannot read {}", path.display()))?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

impl State {
    /// The state of an earlier sidecar; a new one if there is none that this version can read.
    ///
    /// # Errors
    /// The note is unreadable, or another user made it.
    pub fn read(notes: &Notes) -> Result<Option<Self>> {
        Ok(notes.read(STATE)?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    pub fn write(&self, notes: &Notes) -> Result<()> {
        notes.write(STATE, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// Lines for people.
    pub fn text(&self) -> String {
        let mut text = match &self.serving {
            Some(serving) => {
                format!("serving {} since {}\n", shown(&serving.commit, serving.reference.as_ref()), serving.since)
            }
            None => "serving nothing yet\n".to_owned(),
        };
        match &self.refused {
            Some(refused) => text.push_str(&format!(
                "refused {} since {}, in the step {}: {}\n",
                refused.commit, refused.since, refused.step, refused.why
            )),
            None => {
                if let Some(wanted) = self.wanted.as_ref()
                    && self.serving.as_ref().is_none_or(|serving| serving.commit != *wanted)
                {
                    text.push_str(&format!("preparing {wanted}\n"));
                }
            }
        }
        if let Some(why) = &self.look {
            text.push_str(&format!("cannot see the reference: {why}\n"));
        }
        redact::clean(&text)
    }
}

/// `COMMIT (REFERENCE)`.
pub fn shown(commit: &str, reference: Option<&String>) -> String {
    reference.map_or_else(|| commit.to_owned(), |reference| format!("{commit} ({reference})"))
}

/// The time, in RFC 3339.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
