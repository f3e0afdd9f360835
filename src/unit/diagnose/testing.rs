//! A Unit with its files in a temporary directory, for the tests of the suspects.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::application::NewApp;
use super::explanation::Explanation;
use super::scene::{Scene, ours};
use crate::unit::channel::Peer;

pub(super) fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("python.so"), "").unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    // Applications run as the user of the tests, who can read the interpreter.
    let (uid, gid) = (ours(), rustix::process::getegid().as_raw());
    fs::write(dir.path().join("etc/passwd"), format!("root:x:0:0::/:\nme:x:7:8::/:\nunit:x:{uid}:{gid}::/:\n"))
        .unwrap();
    fs::write(dir.path().join("etc/group"), "root:x:0:\n").unwrap();
    dir
}

pub(super) fn scene(dir: &Path) -> Scene {
    Scene {
        proc: dir.join("proc"),
        etc: dir.join("etc"),
        peer: Some(Peer { pid: Some(1), uid: 0 }),
        network: true,
        files: true,
        status: json!({"modules": {"python": {"version": "3.99.1", "lib": dir.join("python.so")}}}),
        before: json!({"listeners": {}, "applications": {}}),
    }
}

/// A Python application with more members.
pub(super) fn members(more: Value) -> Value {
    let mut app = json!({"type": "python"});
    app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app
}

/// A configuration with one such application.
pub(super) fn app(more: Value) -> Value {
    json!({"applications": {"a": members(more)}})
}

/// The report of one suspect for such an application.
pub(super) fn ask(
    suspect: fn(&Scene, &NewApp) -> Option<Explanation>,
    scene: &Scene,
    dir: &Path,
    more: Value,
) -> String {
    shown(suspect(scene, &NewApp { name: "a".into(), members: &members(more) }), dir)
}

pub(super) fn shown(found: Option<Explanation>, dir: &Path) -> String {
    let Some(found) = found else { return "nothing".into() };
    let text = format!("{}\n{}\nhint: {}", found.why, found.excerpt.unwrap_or_default(), found.hint);
    text.replace(&*dir.to_string_lossy(), "[TMP]")
}
