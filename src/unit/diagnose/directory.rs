//! Suspect: an application's working directory does not exist.

use std::path::Path;

use super::application::NewApp;
use super::explanation::Explanation;
use super::scene::Scene;
use crate::files;

/// The hint for every path that is missing in Unit's container.
pub(super) const GONE: &str = "check that the volume is mounted at this path in Unit's container";

/// Whether a directory is known to be missing.
pub(super) fn lacks(dir: &Path) -> bool {
    files::is_dir(dir).is_ok_and(|there| !there)
}

pub(super) fn missing(_: &Scene, app: &NewApp) -> Option<Explanation> {
    let dir = app.path("working_directory").filter(|dir| lacks(dir))?;
    let why = format!("application {:?}: its \"working_directory\" {} is not a directory", app.name, dir.display());
    Some(Explanation::new(why, GONE))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ask, dir, scene};
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn a_working_directory_that_is_missing() {
        let dir = dir();
        let told = |path: &str| ask(missing, &scene(dir.path()), dir.path(), json!({"working_directory": path}));
        assert_snapshot!(told("/no/where"), @r#"
        application "a": its "working_directory" /no/where is not a directory

        hint: check that the volume is mounted at this path in Unit's container
        "#);
        assert_eq!(told("/"), "nothing");
    }
}
