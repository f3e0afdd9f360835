//! Only the same inputs have the same key.

use std::fs;
use std::process::Command;

use super::{Bench, warnings};
use crate::support::index::{self, Behaviour, IndexServer};
use crate::support::packages::wheel;

/// `init` of a directory, with the requirements file `requirements.txt` in it.
fn plain(bench: &Bench, volume: &str, flags: &[&str]) -> Command {
    at(bench, volume, "/app/venv", flags)
}

fn at(bench: &Bench, volume: &str, final_path: &str, flags: &[&str]) -> Command {
    let mut command = bench.app.sandbox.podstrap();
    command.args(["init", "--engine"]).arg(index::uv()).arg("--repo").arg(bench.app.sandbox.path("app"));
    command.arg("--root").arg(bench.root(volume)).arg("--store").arg(&bench.store);
    command.args(["--venv-final-path", final_path]).args(flags).env("PIP_INDEX_URL", bench.app.index.url());
    command
}

fn app(bench: &Bench) {
    bench.app.sandbox.write("app/requirements.txt", "-r more.txt\n");
    bench.app.sandbox.write("app/more.txt", "itsdangerous==2.2.0\n");
}

#[test]
fn another_input_has_another_environment() {
    let bench = Bench::new();
    app(&bench);
    bench.builds(&mut plain(&bench, "first", &[]));
    bench.restores(&mut plain(&bench, "same", &[]));
    // Another node has other times, and other files that do not matter.
    bench.app.sandbox.write("app/index.py", "");
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::File::options().write(true).open(bench.app.sandbox.path("app/more.txt")).unwrap().set_modified(old).unwrap();
    bench.restores(&mut plain(&bench, "other-node", &[]));

    bench.builds(&mut plain(&bench, "strict", &["--strict"]));
    bench.builds(&mut at(&bench, "path", "/srv/venv", &[]));
    let second = IndexServer::start(&index::wheelhouse());
    let ran = bench.run(plain(&bench, "index", &[]).env("PIP_INDEX_URL", second.url()));
    assert!(!ran.raw.contains("from the store") && second.requests() > 0, "{}", ran.raw);
    bench.builds(&mut plain(&bench, "python", &["--python-final-path", "/opt/python/bin/python3"]));
    bench.builds(&mut plain(&bench, "flag", &["--only-binary"]));
    bench.app.sandbox.write("app/more.txt", "itsdangerous==2.2.0\nclick==8.1.8\n");
    bench.builds(&mut plain(&bench, "nested", &[]));
    assert_eq!(bench.files(".json").len(), 7, "{:?}", bench.files(".json"));
}

#[test]
fn secrets_are_not_in_the_store_and_not_in_the_key() {
    let behaviour = Behaviour { login: Some(("me", "s3cr3t-of-index")), ..Behaviour::default() };
    let private = IndexServer::behaving(&index::wheelhouse(), behaviour);
    let bench = Bench::new();
    app(&bench);
    let mut command = plain(&bench, "one", &[]);
    let ran = bench.run(command.env("PIP_INDEX_URL", private.url_with("me", "s3cr3t-of-index")));
    assert!(ran.raw.contains("saved"), "{}", ran.raw);
    let manifest = fs::read_to_string(&bench.files(".json")[0]).unwrap();
    assert!(manifest.contains("/simple/"), "{manifest}");
    let archive = zstd::decode_all(&fs::read(&bench.files(".tar.zst")[0]).unwrap()[..]).unwrap();
    for text in [manifest, String::from_utf8_lossy(&archive).into_owned(), ran.raw] {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    // A Pod with another login, or none, reads the entry: access to the store is what counts.
    let mut command = plain(&bench, "two", &[]);
    let ran = bench.run(command.env("PIP_INDEX_URL", private.url_with("you", "another-one")));
    assert!(ran.raw.contains("from the store"), "{}", ran.raw);
}

#[test]
fn what_podstrap_cannot_identify_is_not_in_the_store() {
    let bench = Bench::new();
    app(&bench);
    let outside = bench.app.sandbox.write("outside/pins.txt", "");
    for (text, why) in [
        ("x @ git+https://host.invalid/x.git@main", "has no full commit"),
        ("-r https://host.invalid/r.txt", "is on a server"),
        ("--config-settings a=b", "does not know a line"),
        ("./gone", "is missing"),
    ] {
        bench.app.sandbox.write("app/more.txt", text);
        let ran = bench.app.sandbox.run(&mut plain(&bench, "unknown", &[]));
        assert!(ran.text.contains("not using the store: ") && ran.text.contains(why), "{}", ran.raw);
        let ran = bench.app.sandbox.run(&mut plain(&bench, "unknown", &["--store-only"]));
        assert_ne!(ran.code, Some(0), "{}", ran.raw);
    }
    assert!(bench.files("").is_empty(), "{:?}", bench.files(""));
    // A file elsewhere counts by its contents.
    let flags = ["-c", outside.to_str().unwrap(), "itsdangerous"];
    bench.builds(&mut plain(&bench, "outside", &flags));
    bench.restores(&mut plain(&bench, "outside2", &flags));
    fs::write(&outside, "itsdangerous==2.2.0\n").unwrap();
    bench.builds(&mut plain(&bench, "outside3", &flags));
}

#[test]
fn versions_that_nobody_named_are_resolved_again() {
    let bench = Bench::new();
    let wheels = bench.app.sandbox.path("wheels");
    wheel(&wheels, "own", "1.0", &["dep"]);
    wheel(&wheels, "dep", "1.0", &[]);
    let index = IndexServer::start(&wheels);
    app(&bench);
    let run = |volume: &str, flags: &[&str]| {
        let ran = bench.run(plain(&bench, volume, flags).env("PIP_INDEX_URL", index.url()));
        assert!(warnings(&ran).is_empty(), "{}", ran.raw);
        ran.raw
    };
    // The requirement has a version, but its dependency has none.
    assert!(run("one", &["own==1.0"]).contains("saved"));
    assert_eq!(bench.manifest()["is_fixed"], false);
    wheel(&wheels, "dep", "2.0", &[]);
    let kept = run("two", &["own==1.0"]);
    assert!(kept.contains("from the store") && kept.contains("dep 1.0"), "{kept}");
    let anew = run("three", &["own==1.0", "--store-max-age", "0s"]);
    assert!(anew.contains("older than --store-max-age") && anew.contains("dep 2.0"), "{anew}");
    // The new entry replaces the old one.
    let next = run("four", &["own==1.0"]);
    assert!(next.contains("from the store") && next.contains("dep 2.0"), "{next}");
    // With all versions, age does not count.
    let flags = ["own==1.0", "dep==1.0", "--store-max-age", "0s"];
    assert!(run("five", &flags).contains("saved"));
    let fixed = run("six", &flags);
    assert!(fixed.contains("from the store") && fixed.contains("dep 1.0"), "{fixed}");
    // --refresh builds, and saves what it built.
    wheel(&wheels, "dep", "3.0", &[]);
    let refreshed = run("seven", &["own==1.0", "--refresh"]);
    assert!(refreshed.contains("dep 3.0") && refreshed.contains("saved"), "{refreshed}");
    assert!(run("eight", &["own==1.0"]).contains("dep 3.0"));
}
