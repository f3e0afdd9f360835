//! The shared volume: a reader's view before, during and after a switch of the release.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podstrap::error::{Kind, Result};
use podstrap::plan::{SIZE_LIMIT, Shape, Target};
use podstrap::retry::Deadline;
use podstrap::source::Revision;
use podstrap::volume::{MANIFEST_VERSION, Manifest, Meter, Release, SourceRecord, Volume};

use crate::support::sandbox::Sandbox;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn lock(root: &Path) -> Volume {
    wait(Volume::lock(&target(root.to_owned(), None), Deadline::after(Duration::from_secs(10)))).unwrap()
}

fn manifest(key: &str) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        key: format!("{key:0<64}"),
        podstrap: "test".into(),
        built_at: "2026-01-01T00:00:00Z".into(),
        source: SourceRecord {
            signer: None,
            repo: "https://host/app.git".into(),
            revision: Revision { commit: key.repeat(40), reference: None },
            shape: Shape::default(),
            validator: None,
            files: 1,
            bytes: 1,
        },
        environment: None,
        elsewhere: String::new(),
        entries: 0,
        identities: Vec::new(),
    }
}

/// Builds a release with these files, each with the content `key`.
fn commit(volume: &Volume, key: &str, files: &[&str], manifest: Manifest) -> Result<Release> {
    let staging = volume.stage()?;
    for file in files {
        let path = staging.tree().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, key).unwrap();
    }
    let meter = Meter::new(volume.own().to_owned(), SIZE_LIMIT);
    let entries = wait(volume.settle(&staging, &meter))?;
    wait(volume.commit(&staging, key, Manifest { entries, ..manifest }))
}

/// Builds and shows a release, and deletes the releases that it replaces.
fn publish(volume: &Volume, target: &Target, key: &str, files: &[&str]) -> Result<Release> {
    let release = commit(volume, key, files, manifest(key))?;
    volume.switch(&release, target)?;
    wait(volume.retain(0, &[]));
    Ok(release)
}

fn entries(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn target(root: PathBuf, link: Option<&str>) -> Target {
    Target { root, link: link.map(str::to_owned), durable: false }
}

#[test]
fn entries_appear_in_the_root_and_old_ones_go() {
    let sandbox = Sandbox::new();
    let target = target(sandbox.root(), None);
    fs::create_dir(target.root.join("lost+found")).unwrap();
    fs::write(target.root.join("notes"), "mine").unwrap();
    let volume = lock(&target.root);

    publish(&volume, &target, "a", &["python/index.py", "old.txt"]).unwrap();
    assert_eq!(entries(&target.root), [".podstrap", "lost+found", "notes", "old.txt", "python"]);
    assert_eq!(fs::read_to_string(target.root.join("python/index.py")).unwrap(), "a");

    publish(&volume, &target, "b", &["python/index.py", "new.txt"]).unwrap();
    assert_eq!(entries(&target.root), [".podstrap", "lost+found", "new.txt", "notes", "python"]);
    assert_eq!(fs::read_to_string(target.root.join("python/index.py")).unwrap(), "b");
    assert_eq!(fs::read_to_string(target.root.join("notes")).unwrap(), "mine");
    assert_eq!(entries(&target.root.join(".podstrap/releases")).len(), 1, "the old release is still there");
    assert!(entries(&target.root.join(".podstrap/staging")).is_empty());
}

#[test]
fn the_volume_may_be_mounted_elsewhere() {
    for link in [None, Some("app")] {
        let sandbox = Sandbox::new();
        let target = target(sandbox.root(), link);
        publish(&lock(&target.root), &target, "a", &["python/index.py"]).unwrap();
        let moved = sandbox.path("elsewhere");
        fs::rename(&target.root, &moved).unwrap();
        let seen = moved.join(link.unwrap_or_default()).join("python/index.py");
        assert_eq!(fs::read_to_string(seen).unwrap(), "a");
    }
}

#[test]
fn links_and_entries_share_a_root_without_losing_releases() {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let volume = lock(&root);
    publish(&volume, &target(root.clone(), None), "a", &["index.py"]).unwrap();
    publish(&volume, &target(root.clone(), Some("one")), "b", &["index.py"]).unwrap();
    publish(&volume, &target(root.clone(), Some("two")), "c", &["index.py"]).unwrap();
    publish(&volume, &target(root.clone(), Some("one")), "d", &["index.py"]).unwrap();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!([read("index.py"), read("one/index.py"), read("two/index.py")], ["a", "d", "c"]);
    assert_eq!(entries(&root.join(".podstrap/releases")).len(), 3);
}

/// Five releases, whose build times follow their keys. The links `one` and `two` show `b` and `e`; no link shows
/// the others. There is also an incomplete release.
fn five(root: &Path) -> Volume {
    let volume = lock(root);
    // Neither the order on the disk nor the order of creation matters.
    for (key, day) in [("c", 3), ("e", 5), ("a", 1), ("d", 4), ("b", 2)] {
        let built_at = format!("2026-01-0{day}T00:00:00Z");
        let release = commit(&volume, key, &["index.py"], Manifest { built_at, ..manifest(key) }).unwrap();
        if let Some(link) = match key {
            "b" => Some("one"),
            "e" => Some("two"),
            _ => None,
        } {
            volume.switch(&release, &target(root.to_owned(), Some(link))).unwrap();
        }
    }
    fs::create_dir_all(root.join(".podstrap/releases/incomplete/tree")).unwrap();
    volume
}

/// The keys of all releases.
fn keys(root: &Path) -> String {
    let releases = entries(&root.join(".podstrap/releases"));
    releases.iter().map(|id| id.split('-').next().unwrap()).collect()
}

#[test]
fn retain_keeps_shown_releases_and_the_newest_of_the_others() {
    for (previous, left) in [(0, "be"), (1, "bde"), (2, "bcde"), (3, "abcde"), (9, "abcde")] {
        let sandbox = Sandbox::new();
        let root = sandbox.root();
        let volume = five(&root);
        wait(volume.retain(previous, &[]));
        assert_eq!(keys(&root), left, "retain({previous})");
        let read = |link: &str| fs::read_to_string(root.join(link).join("index.py")).unwrap();
        assert_eq!([read("one"), read("two")], ["b", "e"], "retain({previous})");
        assert_eq!(entries(&root.join(".podstrap/staging")), [""; 0], "retain({previous})");
    }
}

#[test]
fn a_retained_release_can_be_shown_again_and_then_the_other_is_retained() {
    let sandbox = Sandbox::new();
    let target = target(sandbox.root(), Some("two"));
    let volume = five(&target.root);
    wait(volume.retain(1, &[]));
    let previous = volume.find(&manifest("d").key, &target).unwrap().unwrap();
    assert!(volume.switch(&previous, &target).unwrap());
    wait(volume.retain(1, &[]));
    assert_eq!(keys(&target.root), "bde");
    assert_eq!(fs::read_to_string(target.root.join("two/index.py")).unwrap(), "d");
    // Once no link shows `b`, it is older than `e`.
    fs::remove_file(target.root.join("one")).unwrap();
    wait(volume.retain(1, &[]));
    assert_eq!(keys(&target.root), "de");
}

#[test]
fn what_podstrap_did_not_make_stays_and_nothing_is_published() {
    for (link, foreign) in [(None, "index.py"), (Some("app"), "app")] {
        let sandbox = Sandbox::new();
        let target = target(sandbox.root(), link);
        fs::write(target.root.join(foreign), "mine").unwrap();
        let error = publish(&lock(&target.root), &target, "a", &["index.py", "other.py"]).unwrap_err();
        assert_eq!(error.kind(), Kind::Volume);
        assert!(error.to_string().contains("the path exists"), "{error}");
        assert_eq!(fs::read_to_string(target.root.join(foreign)).unwrap(), "mine");
        assert_eq!(entries(&target.root), [".podstrap", foreign]);
    }
}

#[test]
fn a_release_is_found_by_its_key_and_a_second_with_the_same_gets_its_own_id() {
    let sandbox = Sandbox::new();
    let target = target(sandbox.root(), Some("app"));
    let volume = lock(&target.root);
    assert!(volume.is_new().unwrap());
    let first = publish(&volume, &target, "a", &["index.py"]).unwrap();
    assert!(!volume.is_new().unwrap());
    assert_eq!(volume.find(&manifest("a").key, &target).unwrap().unwrap().id, first.id);
    assert!(volume.find(&manifest("b").key, &target).unwrap().is_none());
    let second = publish(&volume, &target, "a", &["index.py"]).unwrap();
    assert_ne!(first.id, second.id);
    assert!(!volume.switch(&second, &target).unwrap(), "the release is already visible");
}

#[test]
fn a_release_without_a_readable_manifest_is_not_taken() {
    let sandbox = Sandbox::new();
    let target = target(sandbox.root(), None);
    let volume = lock(&target.root);
    let release = publish(&volume, &target, "a", &["index.py"]).unwrap();
    let json = target.root.join(".podstrap/releases").join(&release.id).join("release.json");
    fs::write(&json, "{").unwrap();
    assert!(volume.find(&manifest("a").key, &target).unwrap().is_none());
}

#[test]
fn nothing_is_cleared_through_a_link() {
    let sandbox = Sandbox::new();
    let victim = sandbox.write("victim/kept/file", "").parent().unwrap().parent().unwrap().to_owned();
    for name in [".podstrap", ".podstrap/staging", ".podstrap/releases"] {
        let root = sandbox.root();
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&victim, root.join(name)).unwrap();
        let error = wait(Volume::lock(&target(root.clone(), None), Deadline::after(Duration::from_secs(1))))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("does not trust {}\n  because: it is not a", root.join(name).display())),
            "{error}"
        );
        assert_eq!(entries(&victim), ["kept"]);
        fs::remove_file(root.join(name)).unwrap();
    }
}

#[test]
fn staging_left_by_a_killed_run_is_cleared() {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let volume = lock(&root);
    let staging = volume.stage().unwrap();
    fs::create_dir_all(staging.tree()).unwrap();
    drop(volume);
    assert_eq!(entries(&root.join(".podstrap/staging")).len(), 1);
    drop(lock(&root));
    assert!(entries(&root.join(".podstrap/staging")).is_empty());
}

#[test]
fn a_held_lock_is_waited_for_and_the_time_out_says_so() {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let held = lock(&root);
    let error =
        wait(Volume::lock(&target(root.clone(), None), Deadline::after(Duration::from_millis(80)))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("stayed locked") && text.contains("--timeout 80ms"), "{text}");
    let waiter = {
        let root = root.clone();
        std::thread::spawn(move || drop(lock(&root)))
    };
    std::thread::sleep(Duration::from_millis(100));
    drop(held);
    waiter.join().unwrap();
}
