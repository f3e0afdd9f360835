//! Suspect: a Python application's `home` is not an environment for Unit's Python.

use std::path::Path;

use super::application::NewApp;
use super::directory::{GONE, lacks};
use super::explanation::Explanation;
use super::scene::Scene;
use crate::files;

pub(super) fn unusable(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    let version = app.python(scene)?;
    let home = app.path("home")?;
    let why = |what: &str| format!("application {:?}: its \"home\" {} {what}", app.name, home.display());
    if lacks(home) {
        return Some(match built_without(home) {
            Some(repo) => Explanation::new(
                why(&format!("does not exist: podstrap init found nothing to install in {repo}")),
                "commit a requirements.txt, name the packages in podstrap init, or remove \"home\"",
            ),
            None => Explanation::new(why("is not a directory"), GONE),
        });
    }
    if lacks(&home.join("lib").join(format!("python{version}"))) {
        return Some(Explanation::new(
            why(&format!("has no lib/python{version}, which this Unit needs: {}", made_by(home))),
            "build the environment with the Python of Unit's image: run `podstrap init --python` in an init image \
             with that version",
        ));
    }
    files::exists(&home.join("pyvenv.cfg")).is_ok_and(|there| !there).then(|| {
        Explanation::new(
            why("has no pyvenv.cfg, so it is not a virtual environment"),
            "set \"home\" to the --venv-final-path of `podstrap init`",
        )
    })
}

/// The source of the release around this path, if the release has no environment.
fn built_without(home: &Path) -> Option<String> {
    // Without --link, `.podstrap/current` in the root; with it, the tree lies next to the record.
    let records = home.ancestors().skip(1).flat_map(|dir| [dir.join(".podstrap/current"), dir.join("..")]);
    let record =
        records.map(|dir| dir.join("release.json")).find_map(|path| files::read(&path, files::GENERATED).ok())?;
    let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
    let repo = record.pointer("/source/repo")?.as_str()?;
    record.get("environment")?.is_null().then(|| repo.to_owned())
}

/// Describes the Python versions that the environment has a library of.
fn made_by(home: &Path) -> String {
    let names = files::names(&home.join("lib")).unwrap_or_default();
    let versions: Vec<_> =
        names.iter().filter_map(|name| Some(name.to_string_lossy().strip_prefix("python")?.to_owned())).collect();
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
    use std::fs;

    #[test]
    fn a_home_that_is_wrong() {
        let dir = dir();
        let home = dir.path().join("venv");
        let told = || ask(unusable, &scene(dir.path()), dir.path(), json!({"home": home}));
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv is not a directory

        hint: check that the volume is mounted at this path in Unit's container
        "#);
        let record = dir.path().join(".podstrap/current/release.json");
        fs::create_dir_all(record.parent().unwrap()).unwrap();
        fs::write(&record, r#"{"source": {"repo": "https://host/app.git"}, "environment": null}"#).unwrap();
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv does not exist: podstrap init found nothing to install in https://host/app.git

        hint: commit a requirements.txt, name the packages in podstrap init, or remove "home"
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
