//! `podstrap store`, `--store-limit` and `--store-only`.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::failures::edit;
use super::{Bench, warnings};

#[test]
fn a_store_is_filled_without_publishing_anything() {
    let bench = Bench::new();
    let ran = bench.builds(bench.init("uv", "ci").arg("--store-only"));
    assert!(ran.raw.contains("saved") && ran.raw.contains("nothing published"), "{}", ran.raw);
    let volume = bench.app.sandbox.path("ci");
    let left: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".podstrap"]);
    assert_eq!(fs::read_dir(volume.join(".podstrap/staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(volume.join(".podstrap/releases")).unwrap().count(), 0);
    // Again: the entry is there, and good.
    bench.restores(bench.init("uv", "ci").arg("--store-only"));
    bench.restores(&mut bench.init("uv", "pod"));

    fs::remove_dir_all(&bench.store).unwrap();
    let ran = bench.app.sandbox.run(bench.init("uv", "ci").arg("--store-only"));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.error().contains("cannot open the store"), "{}", ran.raw);
    assert!(!ran.raw.contains("podstrap: install "), "it fails before the build: {}", ran.raw);
}

#[test]
fn an_entry_of_a_newer_podstrap_is_left_alone() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "one"));
    let (manifest, archive) = (bench.files(".json").remove(0), bench.files(".tar.zst").remove(0));
    let newer = fs::read_to_string(&manifest).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&manifest, &newer).unwrap();
    let ran = bench.builds(&mut bench.init("uv", "two"));
    assert!(warnings(&ran).len() == 1 && ran.raw.contains("it has format 2"), "{}", ran.raw);
    let ran = bench.app.sandbox.run(bench.init("uv", "only").arg("--store-only"));
    assert!(ran.code == Some(5) && ran.error().contains("a newer podstrap saved"), "{}", ran.raw);
    let run = |args: &[&str]| {
        let mut command = bench.app.sandbox.podstrap();
        bench.app.sandbox.run(command.arg("store").args(args).arg(&bench.store))
    };
    for file in bench.files("") {
        let time = SystemTime::now() - Duration::from_hours(9);
        fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    }
    assert_eq!(run(&["prune", "--store-limit", "0"]).stdout, "");
    for action in ["list", "verify"] {
        let ran = run(&[action]);
        assert!(ran.code == Some(0) && ran.stdout.trim_end().ends_with("newer"), "{}{}", ran.stdout, ran.raw);
    }
    assert!(fs::read_to_string(&manifest).unwrap() == newer && archive.exists());
}

#[test]
fn a_list_says_what_is_wrong_with_an_entry() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "one"));
    let manifest = bench.files(".json").remove(0);
    let run = |action: &str| {
        let mut command = bench.app.sandbox.podstrap();
        bench.app.sandbox.run(command.args(["store", action]).arg(&bench.store))
    };
    fs::rename(&manifest, bench.store.join("aside")).unwrap();
    fs::create_dir(&manifest).unwrap();
    for (action, code) in [("list", 0), ("verify", 5)] {
        let ran = run(action);
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        assert!(ran.stdout.contains("cannot read"), "{}", ran.stdout);
    }
    fs::remove_dir(&manifest).unwrap();
    fs::write(&manifest, "{").unwrap();
    assert!(run("list").stdout.contains("the manifest is damaged: EOF"), "{}", run("list").stdout);
    fs::rename(bench.store.join("aside"), &manifest).unwrap();
    let archive = bench.files(".tar.zst").remove(0);
    fs::OpenOptions::new().append(true).open(&archive).unwrap().set_len(2000).unwrap();
    assert!(run("verify").stdout.contains("it has 2000 bytes instead of"), "{}", run("verify").stdout);
}

#[test]
fn a_list_has_no_control_characters() {
    const EVIL: &str = "\u{1b}[31m\u{9b}2J\u{7f}\r\u{7}\u{202e}3.11\nforged";
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "one"));
    bench.builds(&mut bench.init_of("new", "uv", "two"));
    let [one, two] = &bench.files(".json")[..] else { panic!("{:?}", bench.files("")) };
    edit(one, |value| value["environment"]["python"] = EVIL.into());
    edit(two, |value| value["is_fixed"] = EVIL.into());
    for name in ["v1-EVIL.json", "v1-EVIL.tar.zst", "v1-EVIL.tmp", "EVIL"] {
        fs::write(bench.store.join(name.replace("EVIL", EVIL)), "{}").unwrap();
    }
    for (args, code) in [(&["list"][..], 0), (&["list", "--format", "json"], 0), (&["verify"], 5)] {
        let mut command = bench.app.sandbox.podstrap();
        let ran = bench.app.sandbox.run(command.arg("store").args(args).arg(&bench.store));
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        let is_bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.stdout.contains(is_bad) && !ran.raw.contains(is_bad), "{args:?}: {:?}", ran.stdout);
        assert!(!ran.stdout.lines().any(|line| line.starts_with("forged")), "{}", ran.stdout);
        assert!(ran.stdout.contains("3.11"), "the entries are listed: {}", ran.stdout);
        if args.len() == 3 {
            let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
            let pythons: Vec<_> =
                rows.as_array().unwrap().iter().map(|row| &row["manifest"]["environment"]["python"]).collect();
            assert!(pythons.contains(&&EVIL.into()), "the same text: {rows}");
        }
    }
}

#[test]
fn entries_are_listed_and_verified() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "one"));
    bench.builds(&mut bench.init_of("new", "uv", "two"));
    fs::write(bench.store.join("notes.txt"), "not podstrap's").unwrap();
    let run = |args: &[&str]| {
        let mut command = bench.app.sandbox.podstrap();
        bench.app.sandbox.run(command.arg("store").args(args).env("PODSTRAP_STORE", &bench.store))
    };
    let ran = run(&["list"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), "KEY PYTHON PACKAGES SIZE BUILT USED STATE");
    assert_eq!(lines.len(), 3, "{}", ran.stdout);
    assert!(lines[1..].iter().all(|line| line.ends_with("unsigned") && line.contains("kB")), "{}", ran.stdout);
    let rows: Value = serde_json::from_str(&run(&["list", "--format", "json"]).stdout).unwrap();
    let key = &bench.record("one")["environment"]["key"];
    assert!(rows.as_array().unwrap().iter().any(|row| row["key"] == *key && row["manifest"]["key"] == *key), "{rows}");

    assert!(run(&["verify"]).stdout.lines().skip(1).all(|line| line.ends_with("ok")));
    let archive = bench.files(".tar.zst").remove(0);
    fs::write(&archive, "x").unwrap();
    let ran = run(&["verify"]);
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.error().contains("1 environment of"), "{}", ran.raw);
    assert_eq!(run(&["prune"]).code, Some(2));
    assert_eq!(run(&["list", "/nowhere"]).code, Some(5));
}

#[test]
fn the_least_recently_used_entries_are_deleted_first() {
    let bench = Bench::new();
    for (branch, volume) in [("old", "one"), ("new", "two")] {
        bench.builds(&mut bench.init_of(branch, "uv", volume));
    }
    bench.builds(&mut bench.init("pip", "three"));
    let keys =
        ["one", "two", "three"].map(|name| bench.record(name)["environment"]["key"].as_str().unwrap().to_owned());
    let manifest = |key: &str| bench.store.join(format!("v1-{key}.json"));
    let set = |file: &std::path::Path, hours: u64| {
        let time = SystemTime::now() - Duration::from_hours(hours);
        fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    };
    let prune = |limit: &str| {
        let mut command = bench.app.sandbox.podstrap();
        let ran = bench.app.sandbox.run(command.args(["store", "prune", "--store-limit", limit]).arg(&bench.store));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran.stdout
    };
    // All are in use, or were a moment ago.
    assert_eq!(prune("0"), "");
    for (key, hours) in keys.iter().zip([30, 20, 10]) {
        set(&manifest(key), hours);
    }
    // Somebody reads the oldest one.
    bench.restores(&mut bench.init("uv", "reader"));
    let sizes: u64 = bench.files("").iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(prune(&(sizes - 1).to_string()), format!("deleted {}\n", &keys[1][..12]));
    assert_eq!(keys.each_ref().map(|key| manifest(key).exists()), [true, false, true]);
    assert_eq!(bench.files(".tar.zst").len(), 2);
    // The rest is in use or fits.
    assert_eq!(prune("0"), format!("deleted {}\n", &keys[2][..12]));
    assert!(manifest(&keys[0]).exists());

    // A build does the same. It deletes leftovers, and no files of others.
    set(&manifest(&keys[0]), 30);
    bench.files(".used").iter().for_each(|file| set(file, 20));
    let hash = "ab".repeat(32);
    for name in ["v1-left.tmp", "v1-HASH.tar.zst", "v1-HASH.lease", "v1-HASH.used", "v1-notes.lease", "notes.txt"] {
        set(&bench.app.sandbox.write(&format!("store/{}", name.replace("HASH", &hash)), "x"), 2);
    }
    fs::write(bench.store.join("v1-running.tmp"), "x").unwrap();
    let ran = bench.builds(bench.init_of("new", "pip", "four").args(["--store-limit", "1"]));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
    let mut left: Vec<_> =
        bench.files("").iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    left.retain(|name| ![".tar.zst", ".json"].iter().any(|end| name.ends_with(end)));
    assert_eq!(left, ["notes.txt", "v1-notes.lease", "v1-running.tmp"]);
    assert_eq!((bench.files(".json").len(), bench.files(".tar.zst").len()), (1, 1), "its own entry stays");
}
