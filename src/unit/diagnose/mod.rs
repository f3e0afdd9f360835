//! Finds the cause of Unit's "Failed to apply new configuration", for which Unit gives no reason.
//!
//! A suspect is a function that checks for one possible cause. podstrap tries suspects in the order of the
//! tables below and reports the first explanation. To add one, write a function
//! `fn(&Scene, &NewApp) -> Option<Explanation>` in a new file, and add it to the right table. A cause that
//! concerns the whole Unit is called in [`explain`], as `port` is. podstrap builds the [`Scene`] after the
//! refusal, so `put.rs` must record a value from before the PUT.
//!
//! podstrap can try ports from any container of the Pod. Most other suspects need Unit's files, so they
//! do not run if Unit is in another container.

mod accounts;
mod application;
mod directory;
mod executable;
mod explanation;
mod home;
mod import;
mod language_module;
mod port;
mod root;
mod scene;
#[cfg(test)]
mod testing;
mod user;

use serde_json::Value;

use crate::config::applications::applications_at;
use crate::retry::Deadline;
use application::NewApp;

pub(super) use explanation::Explanation;
pub(super) use scene::Scene;

/// Checks one application for one cause.
type Suspect = fn(&Scene, &NewApp) -> Option<Explanation>;

/// Suspects that run even without Unit's files.
const WITHOUT_FILES: [Suspect; 3] = [user::cannot_switch, user::missing, language_module::missing];

/// Suspects that need Unit's files. They run if those above find nothing in any application.
const WITH_FILES: [Suspect; 4] = [directory::missing, executable::missing, root::missing, home::unusable];

/// Finds the cause of the failure to apply a configuration, or the part of it at the path `at`.
pub(super) async fn explain(scene: &Scene, at: &str, wanted: &Value, deadline: Deadline) -> Option<Explanation> {
    if let Some(finding) = port::taken(scene, at, wanted) {
        return Some(finding);
    }
    let apps = new_applications(scene, at, wanted);
    let first =
        |suspects: &[Suspect]| apps.iter().find_map(|app| suspects.iter().find_map(|suspect| suspect(scene, app)));
    if let Some(finding) = first(&WITHOUT_FILES) {
        return Some(finding);
    }
    if !scene.files {
        return None;
    }
    if let Some(finding) = first(&WITH_FILES) {
        return Some(finding);
    }
    // Last, because it runs the application's code.
    for app in &apps {
        if let Some(finding) = import::fails(scene, app, deadline).await {
            return Some(finding);
        }
    }
    None
}

/// The applications that Unit does not have yet. Those that it has are running.
fn new_applications<'v>(scene: &Scene, at: &str, wanted: &'v Value) -> Vec<NewApp<'v>> {
    let before = applications_at("/config", &scene.before);
    let wanted = applications_at(at, wanted).into_iter();
    wanted.filter(|app| !before.contains(app)).map(|(name, members)| NewApp { name, members }).collect()
}

#[cfg(test)]
mod tests {
    use super::testing::{app, dir, scene, shown};
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn found(scene: &Scene, at: &str, wanted: &Value) -> Option<Explanation> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(explain(scene, at, wanted, Deadline::after(Duration::from_secs(9))))
    }

    #[test]
    fn suspects_are_asked_in_order_and_only_where_they_can_see() {
        let dir = dir();
        let bad = json!({"user": "ghost", "home": "/no/where", "type": "python"});
        let wanted = json!({"applications": {"a": {"type": "python", "working_directory": "/no/where"}, "b": bad}});
        let why = |scene: &Scene, at: &str, wanted: &Value| shown(found(scene, at, wanted), dir.path());
        let here = scene(dir.path());
        assert!(why(&here, "/config", &wanted).contains("no user \"ghost\""));
        assert!(why(&here, "/config/applications", &wanted["applications"]).contains("no user \"ghost\""));
        assert!(why(&here, "/config/applications/a", &wanted["applications"]["a"]).contains("\"working_directory\""));
        assert_eq!(why(&here, "/config/routes", &json!([])), "nothing");
        // podstrap does not know accounts and directories of another container.
        assert_eq!(why(&Scene { files: false, ..scene(dir.path()) }, "/config", &wanted), "nothing");
        // Applications that Unit already has are running.
        assert_eq!(why(&Scene { before: wanted.clone(), ..scene(dir.path()) }, "/config", &wanted), "nothing");
        assert_eq!(why(&here, "/config", &app(json!({"type": "php"}))), "nothing");
    }
}
