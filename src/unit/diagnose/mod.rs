//! Why Unit "Failed to apply new configuration": it never says, but most of it can be found out.
//!
//! Each suspect has a file, and is asked in the order of the tables below; the first explanation is
//! reported. To add a suspect, write a function `fn(&Scene, &NewApp) -> Option<Explanation>` in a file of its
//! own, and put it into the table that fits.
//!
//! Ports can be tried from anywhere in the Pod. The rest needs Unit's files, so it is left out when
//! Unit is in another container.

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

/// Looks at one application.
type Suspect = fn(&Scene, &NewApp) -> Option<Explanation>;

/// Asked also when Unit's files cannot be seen.
const WITHOUT_FILES: [Suspect; 3] = [user::cannot_switch, user::missing, language_module::missing];

/// Asked when Unit's files are ours, and the ones above have found nothing in any application.
const WITH_FILES: [Suspect; 4] = [directory::missing, executable::missing, root::missing, home::unusable];

/// Looks for what keeps a configuration, or the part of it at a place, from being applied.
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
    // The last: it runs the application's code.
    for app in &apps {
        if let Some(finding) = import::fails(scene, app, deadline).await {
            return Some(finding);
        }
    }
    None
}

/// The applications that Unit does not have: what it has is running.
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
        // In another container neither accounts nor directories are known.
        assert_eq!(why(&Scene { files: false, ..scene(dir.path()) }, "/config", &wanted), "nothing");
        // What Unit has is running.
        assert_eq!(why(&Scene { before: wanted.clone(), ..scene(dir.path()) }, "/config", &wanted), "nothing");
        assert_eq!(why(&here, "/config", &app(json!({"type": "php"}))), "nothing");
    }
}
