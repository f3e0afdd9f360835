//! What one Pod builds, another one restores.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Bench, venv, warnings};

/// Every file of an environment with its mode, time and contents.
pub(super) fn files(venv: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    podstrap::walk::walk(venv)
        .map(Result::unwrap)
        .filter(|entry| !entry.is_root())
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            let contents = match () {
                () if meta.is_symlink() => fs::read_link(&entry.path).unwrap().into_os_string().into_encoded_bytes(),
                () if meta.is_file() => fs::read(&entry.path).unwrap(),
                () => Vec::new(),
            };
            (entry.name, (meta.mode(), meta.mtime(), contents))
        })
        .collect()
}

#[test]
fn a_second_pod_restores_the_same_files() {
    for engine in ["uv", "pip"] {
        let bench = Bench::new();
        let built = bench.builds(&mut bench.init(engine, "one"));
        assert!(built.text.contains("saved "), "{}", built.raw);
        assert!(warnings(&built).is_empty(), "{}", built.raw);
        let restored = bench.restores(&mut bench.init(engine, "two"));
        assert!(warnings(&restored).is_empty(), "{}", restored.raw);
        let [one, two] = ["one", "two"].map(|name| files(&venv(&bench.app.sandbox.path(name))));
        assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
        let differ: Vec<_> = one.keys().filter(|name| one[*name] != two[*name]).collect();
        assert!(differ.is_empty(), "{differ:?}");
        assert!(one.keys().any(|name| name.extension().is_some_and(|kind| kind == "pyc")));
        // No file is shared: an app cannot change the environment of another.
        assert!(podstrap::walk::walk(&venv(&bench.app.sandbox.path("two"))).all(|entry| {
            let meta = entry.unwrap().metadata().unwrap();
            meta.is_dir() || meta.nlink() == 1
        }));

        let [first, second] = ["one", "two"].map(|name| bench.record(name)["environment"].clone());
        for same in ["key", "packages", "python", "engine", "final_path", "venv", "toolchain"] {
            assert_eq!(first[same], second[same], "{same}");
        }
        assert_eq!(first.get("store"), None);
        assert!(second["store"].as_str().unwrap().contains("built"), "{second}");
        // An unchanged rerun trusts the restored environment, and a new commit links it.
        let again = bench.run(&mut bench.init(engine, "two"));
        assert!(again.raw.contains("unchanged"), "{}", again.raw);
        let python = Command::new(venv(&bench.app.sandbox.path("two")).join("bin/python"))
            .args(["-c", "import click, itsdangerous; print(click.__version__)"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&python.stdout).trim(), "8.1.7", "{python:?}");
    }
}

#[test]
fn a_new_commit_links_a_restored_environment() {
    let bench = Bench::new();
    bench.builds(&mut bench.init_of("alike", "uv", "one"));
    bench.restores(&mut bench.init_of("alike", "uv", "two"));
    let ran = bench.run(&mut bench.init_of("new", "uv", "two"));
    assert!(ran.raw.contains("reused") && warnings(&ran).is_empty(), "{}", ran.raw);
    assert_eq!(bench.record("two")["environment"].get("store"), None);
}

#[test]
fn a_manifest_says_what_is_in_it() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("pip", "one"));
    let manifest = bench.manifest();
    assert_eq!(manifest["key"], bench.record("one")["environment"]["key"]);
    assert_eq!(manifest["podstrap"], env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest["inputs"]["decisive"]["final_path"], "/app/python/venv");
    assert_eq!(manifest["environment"]["packages"][0]["name"], "click");
    let [archive] = &bench.files(".tar.zst")[..] else { panic!("{:?}", bench.files("")) };
    assert_eq!(manifest["archive"]["bytes"], archive.metadata().unwrap().len());
    assert!(archive.to_str().unwrap().contains(manifest["archive"]["sha256"].as_str().unwrap()));
    // The two packages need nothing else, and both have a version.
    assert_eq!(manifest["is_fixed"], true);
    assert_eq!(bench.files("").len(), 2, "{:?}", bench.files(""));
}
