//! `init --dry-run`: what a run would do, without it.

use std::fs;
use std::process::Command;

use podstrap::size::Size;
use serde_json::Value;

use crate::support::article::Article;
use crate::support::index::Behaviour;
use crate::support::inputs::{ENGINES, Place};
use crate::support::packages::{project, wheel, wheel_with};
use crate::support::sandbox::Ran;

/// Runs it, and asserts that it leaves nothing behind.
fn dry(place: &Place, engine: &str, command: &mut Command) -> Ran {
    let temporary = place.sandbox.path("temporary");
    fs::create_dir_all(&temporary).unwrap();
    let ran = place.sandbox.run(command.arg("--dry-run").env("TMPDIR", &temporary));
    for dir in [temporary, place.sandbox.path(&format!("volume-{engine}"))] {
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "{}: {}", dir.display(), ran.raw);
    }
    ran
}

/// What it prints as JSON.
fn forecast(place: &Place, engine: &str, args: &[&str]) -> Value {
    let ran = dry(place, engine, place.command(engine, args).args(["--format", "json"]));
    assert_eq!(ran.code, Some(0), "{engine} {args:?}: {}", ran.raw);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn packages(forecast: &Value) -> Vec<String> {
    let packages = forecast["environment"]["packages"].as_array().unwrap().iter();
    packages.map(|one| format!("{} {}", one["name"].as_str().unwrap(), one["version"].as_str().unwrap())).collect()
}

fn package<'a>(forecast: &'a Value, name: &str) -> &'a Value {
    let packages = forecast["environment"]["packages"].as_array().unwrap();
    packages.iter().find(|package| package["name"] == name).unwrap()
}

#[test]
fn it_says_what_a_run_installs() {
    let place = Place::new();
    place.tree(&[("requirements.txt", "alpha\nsource\n")]);
    for engine in ENGINES {
        let found = forecast(&place, engine, &[]);
        assert_eq!(packages(&found), place.installed(engine, &[]).packages, "{engine}");
        let size = |name: &str| fs::metadata(place.sandbox.path("wheels").join(name)).unwrap().len();
        let (alpha, source) = (package(&found, "alpha"), package(&found, "source"));
        assert_eq!(
            (alpha["builds"].as_bool(), alpha["bytes"].as_u64()),
            (Some(false), Some(size("alpha-1.0-py3-none-any.whl")))
        );
        assert_eq!(
            (source["builds"].as_bool(), source["bytes"].as_u64()),
            (Some(true), Some(size("source-1.0.tar.gz")))
        );
        assert!(source["url"].as_str().unwrap().ends_with("/source-1.0.tar.gz"), "{source}");
        let all: u64 =
            ["alpha", "beta", "source"].iter().map(|name| package(&found, name)["bytes"].as_u64().unwrap()).sum();
        assert_eq!(found["environment"]["download"], all);
        assert_eq!(
            (&found["files"], &found["environment"]["final_path"]),
            (&Value::from(2), &Value::from("/app/venv"))
        );
    }
}

/// Files of the tree, and flags.
type Case<'a> = (Vec<(&'a str, &'a str)>, &'a [&'a str]);

/// The number of failures that come from an engine.
const OF_ENGINE: usize = 10;

#[test]
fn it_fails_as_a_run_fails() {
    let place = Place::new();
    wheel_with(&place.sandbox.path("wheels"), "heavy", "1.0", &[], &[("heavy.txt", &"x".repeat(500_000))]);
    let requirements = |text: &'static str| vec![("requirements.txt", text)];
    let cases: &[Case<'_>] = &[
        (requirements("no-such-package\n"), &[]),
        (requirements("alpha==9\n"), &[]),
        (requirements("alpha\nbeta<1\n"), &[]),
        (requirements("alpha==1.0\n"), &["--require-hashes"]),
        (requirements("alpha==1.0 --hash=sha256:0000\n"), &[]),
        (requirements("source\n"), &["--only-binary"]),
        (requirements("source\n"), &["--target-platform", "musllinux_1_2_aarch64", "--target-python", "3.13"]),
        (requirements("alpha\n"), &["./lib", "-r", "requirements.txt", "--only-binary"]),
        (requirements("-r more.txt\n"), &[]),
        (requirements("alpha ==\n"), &[]),
        (requirements("alpha\n"), &["-r", "other.txt"]),
        (requirements("alpha\n"), &["--venv", "index.py"]),
        (requirements("alpha\n"), &["--python", "3.99"]),
        (requirements("alpha\n"), &["--find-links", "wheels"]),
        (requirements("alpha\n"), &["--subdir", "nowhere"]),
        (requirements("alpha\n"), &["--no-index"]),
        (requirements("alpha\n"), &["--extra", "x"]),
        (requirements("alpha\n"), &["--config", "unit.json", "--entrypoint-dir", "/nonexistent"]),
        (requirements("heavy\n"), &["--size-limit", "400k"]),
        (vec![("venv/x", ""), ("requirements.txt", "alpha\n")], &[]),
        (vec![("poetry.lock", "")], &[]),
        (vec![("pyproject.toml", "[project")], &[]),
        (vec![("requirements.txt", "alpha\n"), (".podstrap/x", "")], &[]),
    ];
    for engine in ENGINES {
        // The last ones fail before an engine runs.
        let of_engine = if engine == "uv" { cases.len() } else { OF_ENGINE };
        for (files, args) in &cases[..of_engine] {
            place.tree(files);
            place.add("lib", project("inner", &place.sandbox.path("mark"), ""));
            let ran = dry(&place, engine, &mut place.command(engine, args));
            let real = place.sandbox.run(&mut place.command(engine, args));
            assert_ne!(real.code, Some(0), "{engine} {files:?} {args:?}: {}", real.raw);
            assert_eq!(ran.code, real.code, "{engine} {files:?} {args:?}:\n{}\n{}", ran.raw, real.raw);
            let summary = |ran: &Ran| ran.error().lines().next().unwrap_or_default().replace("temporary/", "");
            let without_place = |text: String| text.split(['/', '.']).next().unwrap().to_owned();
            // uv says before the download which package has no wheel; another part of the volume is too large.
            if !args.iter().any(|arg| ["--only-binary", "--size-limit"].contains(arg)) {
                assert_eq!(without_place(summary(&ran)), without_place(summary(&real)), "{engine} {files:?} {args:?}");
            }
            // The user knows no path of a dry run.
            let shown = ran.error();
            assert!(!shown.contains("podstrap-dry-run"), "{engine} {files:?} {args:?}: {shown}");
            assert_eq!(ran.stdout, "");
        }
    }
}

#[test]
fn it_resolves_the_reference_with_the_real_logins() {
    let article = Article::new();
    let revision = article.repo.rev("main");
    // me:s3cret-of-git
    article.git.require("Basic bWU6czNjcmV0LW9mLWdpdA==");
    let dry = |command: &mut Command| article.run(command.args(["--dry-run", "--venv", "none"]));
    let ran = dry(&mut article.init("auto"));
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    let url = article.git.url_as("me:s3cret-of-git", "testapp.git");
    let ran = dry(&mut article.init_from(&url, "auto"));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(
        ran.stdout.contains(&format!("source: {revision}")) && ran.stdout.contains("environment: none"),
        "{}",
        ran.stdout
    );
    assert!(!ran.raw.contains("s3cret") && !ran.stdout.contains("s3cret"), "{} {}", ran.raw, ran.stdout);
    let ran = dry(article.init_from(&url, "auto").args(["--ref", "nope"]));
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    assert!(article.releases().is_empty() && !article.root(".podstrap").exists());
}

#[test]
fn without_a_root_the_path_is_that_of_the_examples() {
    let place = Place::new();
    let tree = place.tree(&[("requirements.txt", "beta\n")]);
    let mut command = place.sandbox.podstrap();
    command.arg("init").arg("--dry-run").arg("--repo").arg(tree).arg("--engine").arg(&place.uv);
    command.args(["--run", "make static"]).env("PIP_INDEX_URL", place.index.url());
    let ran = place.sandbox.run(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let size = Size(fs::metadata(place.sandbox.path("wheels/beta-2.0-py3-none-any.whl")).unwrap().len());
    for line in [
        ": 1 package\n".to_owned(),
        format!("  beta 2.0  wheel, {size}\nto download: {size}; to build: 0 packages\n"),
        "not run: make static\na run would publish at /app\n".to_owned(),
    ] {
        assert!(ran.stdout.contains(&line), "{line}\n{}", ran.stdout);
    }
    // What nobody can read is no success.
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let status = command.status().unwrap();
    assert_eq!(status.code(), Some(1));
    let ran = place.sandbox.run(place.sandbox.podstrap().args(["init", "--repo", "x"]));
    assert!(ran.code == Some(2) && ran.raw.contains("--root"), "{}", ran.raw);
}

#[test]
fn a_private_index_gets_its_login_and_shows_none() {
    let login = Some(("bob", "p4ss-of-index"));
    let place = Place::behaving(Behaviour { login, ..Behaviour::default() });
    place.tree(&[("requirements.txt", "alpha\n")]);
    let url = place.index.url_with("bob", "p4ss-of-index");
    for engine in ENGINES {
        let ran = dry(&place, engine, place.command(engine, &["--format", "json"]).env("PIP_INDEX_URL", &url));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(found["environment"]["download"].as_u64() > Some(0), "{}", ran.stdout);
        assert!(!ran.stdout.contains("p4ss") && !ran.raw.contains("p4ss"), "{}", ran.stdout);
    }
}

#[test]
fn locks_wheelhouses_and_projects_are_understood() {
    let place = Place::new();
    let locked = "[project]\nname = 'app'\nversion = '1'\nrequires-python = '>=3.9'\ndependencies = ['alpha', 'source']\n\
                   [tool.uv]\npackage = false\n";
    place.tree(&[("pyproject.toml", locked)]);
    place.uv(&["lock"]);
    let found = forecast(&place, "uv", &[]);
    assert_eq!(packages(&found), ["alpha 1.0", "beta 2.0", "source 1.0"]);
    assert_eq!(package(&found, "source")["builds"], true);
    assert!(found["environment"]["download"].as_u64() > Some(0), "{found}");
    // With a wheelhouse in the tree, nothing is downloaded from an index; its path is the public one.
    place.tree(&[("requirements.txt", "beta\n")]);
    fs::create_dir(place.sandbox.path("tree/wheels")).unwrap();
    let wheel = "beta-1.0-py3-none-any.whl";
    fs::copy(place.sandbox.path("wheels").join(wheel), place.sandbox.path("tree/wheels").join(wheel)).unwrap();
    for engine in ENGINES {
        let found = forecast(&place, engine, &["--no-index", "--find-links", "wheels"]);
        let beta = package(&found, "beta");
        assert_eq!(beta["version"], "1.0");
        assert_eq!(beta["url"], format!("file:///app/wheels/{wheel}"), "{engine}");
    }
    // A directory and a repository.
    place.tree(&[]);
    place.add("lib", project("inner", &place.sandbox.path("mark"), ""));
    let repository = format!("lib @ git+{}", place.git.url("lib.git"));
    for engine in ENGINES {
        let ran = dry(&place, engine, place.command(engine, &["./lib", &repository]).args(["--format", "json"]));
        assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        let (inner, lib) = (package(&found, "inner"), package(&found, "lib"));
        assert_eq!((&inner["builds"], &lib["builds"]), (&Value::from(true), &Value::from(true)), "{found}");
        assert_eq!((&inner["bytes"], &lib["bytes"]), (&Value::from(0), &Value::Null), "{found}");
        assert_eq!(found["environment"]["download"], Value::Null);
    }
}

#[test]
fn requests_for_builds_count() {
    let place = Place::new();
    wheel(&place.sandbox.path("wheels"), "source", "1.0", &[]);
    place.tree(&[("requirements.txt", "source\n"), ("build.txt", "--no-binary source\nsource\n")]);
    for engine in ENGINES {
        assert_eq!(package(&forecast(&place, engine, &[]), "source")["builds"], false, "{engine}");
        assert_eq!(package(&forecast(&place, engine, &["-r", "build.txt"]), "source")["builds"], true, "{engine}");
    }
    let mut command = place.command("uv", &["--format", "json"]);
    let ran = dry(&place, "uv", command.env("UV_NO_BINARY_PACKAGE", "source"));
    assert!(ran.code == Some(0) && ran.stdout.contains("\"builds\": true"), "{} {}", ran.raw, ran.stdout);
}

#[test]
fn the_temporary_directory_may_be_anywhere_but_in_the_source() {
    let place = Place::new();
    let tree = place.tree(&[("requirements.txt", "beta\n")]);
    let here = place.sandbox.path("here");
    fs::create_dir(&here).unwrap();
    let run = |tmpdir: &str| {
        let mut command = place.command("uv", &["--dry-run"]);
        place.sandbox.run(command.current_dir(&here).env("TMPDIR", tmpdir))
    };
    for tmpdir in ["", "."] {
        let ran = run(tmpdir);
        assert_eq!(ran.code, Some(0), "{tmpdir:?}: {}", ran.raw);
        assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
    }
    let ran = run("nowhere");
    assert!(ran.code == Some(5) && ran.raw.contains("set TMPDIR") && !here.join("nowhere").exists(), "{}", ran.raw);
    let ran = run(tree.to_str().unwrap());
    assert!(ran.code == Some(3) && ran.raw.contains("set TMPDIR"), "{}", ran.raw);
}

#[test]
fn nothing_of_the_commands_is_certain() {
    let place = Place::new();
    place.tree(&[("requirements.txt", "beta\n")]);
    let config = ["--entrypoint-dir", "/nonexistent", "--config", "unit.json"];
    let ran = dry(&place, "uv", &mut place.command("uv", &config));
    assert!(ran.code == Some(2) && ran.error().contains("/volume-uv/unit.json"), "{}", ran.raw);
    // A command may write it. A login in a command is shown nowhere.
    let command = ["--run", "curl https://me:s3cret@host/unit.json\n> unit.json"];
    let mut run = place.command("uv", &[&config[..], &command[..]].concat());
    let ran = dry(&place, "uv", &mut run);
    assert!(
        ran.code == Some(0) && ran.stdout.contains("not run: curl https://***@host/unit.json\\n>"),
        "{}",
        ran.stdout
    );
    let found = forecast(&place, "uv", &command);
    assert!(!found.to_string().contains("s3cret"), "{found}");
}

#[test]
fn an_environment_in_the_store_is_found_there() {
    let place = Place::new();
    place.tree(&[("requirements.txt", "alpha\n")]);
    let store = place.sandbox.path("store");
    fs::create_dir(&store).unwrap();
    let args = ["--store", store.to_str().unwrap()];
    let before = forecast(&place, "uv", &args);
    assert_eq!(before["environment"]["store"], Value::Null);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    let installed = place.installed("uv", &args);
    let requests = place.index.requests();
    let found = forecast(&place, "uv", &args);
    let found_only = dry(&place, "uv", place.command("uv", &args).arg("--store-only"));
    assert!(found_only.stdout.contains("would save the environment in the store"), "{}", found_only.stdout);
    assert_eq!(packages(&found), installed.packages);
    assert!(found["environment"]["store"].as_str().unwrap().contains("built"), "{found}");
    assert_eq!(place.index.requests(), requests, "the store is enough");
}
