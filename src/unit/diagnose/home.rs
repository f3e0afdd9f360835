//! Suspect: a Python application's `home` is not an environment for Unit's Python.

use std::fs;
use std::path::Path;

use super::application::NewApp;
use super::directory::GONE;
use super::explanation::Explanation;
use super::scene::Scene;

pub(super) fn unusable(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    let version = app.python(scene)?;
    let home = app.path("home")?;
    let why = |what: &str| format!("application {:?}: its \"home\" {} {what}", app.name, home.display());
    if !home.is_dir() {
        return Some(Explanation::new(why("is not a directory"), GONE));
    }
    if !home.join("lib").join(format!("python{version}")).is_dir() {
        return Some(Explanation::new(
            why(&format!("has no lib/python{version}, which this Unit needs: {}", made_by(home))),
            "build the environment with the Python of Unit's image: run `podstrap init --python` in an init image \
             with that version",
        ));
    }
    (!home.join("pyvenv.cfg").exists()).then(|| {
        Explanation::new(
            why("has no pyvenv.cfg, so it is not a virtual environment"),
            "set \"home\" to the --venv-final-path of `podstrap init`",
        )
    })
}

/// Describes the Python versions that the environment has a library of.
fn made_by(home: &Path) -> String {
    let mut versions: Vec<_> = fs::read_dir(home.join("lib"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().strip_prefix("python")?.to_owned()))
        .collect();
    versions.sort();
    match &versions[..] {
        [] => "it is not a virtual environment".to_owned(),
        all => format!("it is for Python {}", all.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ask, dir, scene};
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn a_home_that_is_wrong() {
        let dir = dir();
        let home = dir.path().join("venv");
        let told = || ask(unusable, &scene(dir.path()), dir.path(), json!({"home": home}));
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv is not a directory

        hint: check that the volume is mounted at this path in Unit's container
        "#);
        fs::create_dir_all(home.join("lib/python3.12")).unwrap();
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv has no lib/python3.99, which this Unit needs: it is for Python 3.12

        hint: build the environment with the Python of Unit's image: run `podstrap init --python` in an init image with that version
        "#);
        fs::create_dir_all(home.join("lib/python3.99")).unwrap();
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv has no pyvenv.cfg, so it is not a virtual environment

        hint: set "home" to the --venv-final-path of `podstrap init`
        "#);
        fs::write(home.join("pyvenv.cfg"), "").unwrap();
        assert_eq!(told(), "nothing");
    }
}
