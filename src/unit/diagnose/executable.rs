//! Suspect: an external application's `executable` is missing or not executable.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::application::NewApp;
use super::directory::GONE;
use super::explanation::Explanation;
use super::scene::Scene;
use crate::files;

pub(super) fn missing(_: &Scene, app: &NewApp) -> Option<Explanation> {
    let file = app.text("executable")?;
    let path = app.path("working_directory").unwrap_or(Path::new("/")).join(file);
    let found = files::metadata(&path).ok()?;
    let runs = found.is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let why = || format!("application {:?}: its \"executable\" {} is not an executable file", app.name, path.display());
    (!runs).then(|| Explanation::new(why(), GONE))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ask, dir, scene};
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;
    use std::fs;

    #[test]
    fn an_executable_that_is_none() {
        let dir = dir();
        let file = dir.path().join("python.so");
        let told = || ask(missing, &scene(dir.path()), dir.path(), json!({"type": "external", "executable": file}));
        assert_snapshot!(told(), @r#"
        application "a": its "executable" [TMP]/python.so is not an executable file

        hint: check that the volume is mounted at this path in Unit's container
        "#);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(told(), "nothing");
    }
}
