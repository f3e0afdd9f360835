//! Suspect: the `root` of a PHP application or of one of its targets does not exist.

use std::path::Path;

use super::application::NewApp;
use super::directory::{GONE, lacks};
use super::explanation::Explanation;
use super::scene::Scene;
use crate::config::applications::entries;

pub(super) fn missing(_: &Scene, app: &NewApp) -> Option<Explanation> {
    let entries = entries(app.members);
    let mut roots = entries.iter().filter_map(|entry| entry.get("root")?.as_str());
    let root = roots.find(|root| lacks(Path::new(root)))?;
    Some(Explanation::new(format!("application {:?}: its \"root\" {root} is not a directory", app.name), GONE))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ask, dir, scene};
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn a_root_that_is_missing() {
        let dir = dir();
        let told = |members| ask(missing, &scene(dir.path()), dir.path(), members);
        let text = told(json!({"type": "php", "root": "/no/where"}));
        assert_snapshot!(text, @r#"
        application "a": its "root" /no/where is not a directory

        hint: check that the volume is mounted at this path in Unit's container
        "#);
        assert_eq!(told(json!({"type": "php", "targets": {"x": {"root": "/no/where"}}})), text);
        assert_eq!(told(json!({"type": "php", "root": "/"})), "nothing");
    }
}
