//! `init` as a Pod runs it, from a real Git server and a real index: the resulting volume for each variant of
//! the flags.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::article::Article;
use crate::support::git::listing;
use crate::support::index::{self};

#[test]
fn the_articles_pod() {
    for engine in ["uv", "pip"] {
        let article = Article::new();
        let ran = article.ok(article
            .init(engine)
            .args(["--venv", "python/venv", "--venv-final-path", "/app/python/venv", "--copy-self"])
            .arg(article.sandbox.path("bin/podstrap"))
            .arg("Flask"));

        // The volume of the article: `subPath: python` holds the app and its environment.
        let python = article.root("python");
        assert!(fs::symlink_metadata(&python).unwrap().is_symlink());
        let venv = python.join("venv");
        assert!(fs::symlink_metadata(&venv).unwrap().is_dir(), "not a real directory inside the subPath");
        assert_eq!(fs::read_to_string(article.root("README.md")).unwrap(), "testapp\n");
        assert!(!article.root(".git").exists());

        // The environment works there, and its scripts contain the final path.
        let script = fs::read_to_string(venv.join("bin/flask")).unwrap();
        assert!(script.starts_with("#!/app/python/venv/bin/python"), "{script}");
        let hello = "import index; print(index.application.test_client().get('/').text)";
        let output =
            Command::new(venv.join("bin/python")).args(["-c", hello]).current_dir(python.join("flask")).output();
        let output = output.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, World!\n", "{output:?}");

        // Every user may read all of it, because Unit runs apps as another user.
        for line in listing(&article.sandbox.root()).lines().filter(|line| !line.contains("symlink")) {
            // Nobody else may look at a build, or hold the lock.
            if [".podstrap/staging", ".podstrap/lock"].iter().any(|own| line.contains(&format!("\"{own}\""))) {
                continue;
            }
            assert!(!line.contains(" directory 700") && !line.contains(" 600 "), "{line}");
            assert!(!line.contains(" 666 ") && !line.contains(" directory 777"), "{line}");
        }

        let manifest = article.manifest();
        assert_eq!(manifest["source"]["commit"], article.repo.rev("main"));
        assert_eq!(manifest["source"]["reference"], "refs/heads/main");
        assert_eq!(manifest["environment"]["final_path"], "/app/python/venv");
        let names: Vec<_> = manifest["environment"]["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap().to_lowercase())
            .collect();
        for name in ["flask", "jinja2", "werkzeug", "markupsafe"] {
            assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
        }
        assert!(fs::metadata(article.sandbox.path("bin/podstrap")).unwrap().permissions().mode() & 0o111 == 0o111);

        // The summary is the last line of stderr and the termination message for kubectl describe.
        for text in [&ran.raw, &article.last_words()] {
            assert!(text.contains(&article.repo.rev("main")) && text.contains("Flask 3.1.2"), "{text}");
        }
    }
}

#[test]
fn with_a_link_the_tree_is_at_one_name() {
    let article = Article::new();
    article.ok(article.init("uv").args(["--link", "app", "Flask"]));
    assert_eq!(fs::read_link(article.root("app")).unwrap().iter().next().unwrap(), ".podstrap");
    let script = fs::read_to_string(article.root("app/venv/bin/flask")).unwrap();
    let expected = article.root("app/venv/bin/python");
    assert!(script.starts_with(&format!("#!{}", expected.display())), "{script}");
    let output = Command::new(article.root("app/venv/bin/flask")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("Flask 3.1.2"), "{output:?}");
}

#[test]
fn requirements_files_are_in_the_tree() {
    let article = Article::new();
    article.repo.file("requirements.txt", "-r deps/base.txt\n").file("deps/base.txt", "Flask\n-c pins.txt\n");
    article.repo.file("deps/pins.txt", "click==8.1.8\n").commit("requirements");
    for (flags, engine) in
        [(&["-r", "deps/base.txt"][..], "pip"), (&[], "uv"), (&["-r", "requirements.txt", "-c", "deps/pins.txt"], "uv")]
    {
        article.ok(article.init(engine).args(flags));
        assert!(article.root("venv/bin/flask").exists(), "{flags:?}");
    }
    // Outside the tree, as a ConfigMap would mount it; its contents are part of the inputs.
    let outside = article.sandbox.write("config/r.txt", "-r more.txt  # and more\n");
    let more = article.sandbox.write("config/more.txt", "click\n");
    article.ok(article.init("uv").arg("-r").arg(&outside));
    assert!(!article.root("venv/bin/flask").exists());
    fs::write(&more, "Flask\n").unwrap();
    article.ok(article.init("uv").arg("-r").arg(&outside));
    assert!(article.root("venv/bin/flask").exists());
}

#[test]
fn a_wheelhouse_serves_without_any_index() {
    for engine in ["uv", "pip"] {
        let article = Article::new();
        article.ok(article
            .init(engine)
            .arg("Flask")
            .env_remove("PIP_INDEX_URL")
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", index::wheelhouse()));
        let packages = article.manifest()["environment"]["packages"].to_string();
        // A public index would have a newer version.
        assert!(packages.contains(r#""name":"Flask","version":"3.1.2""#), "{engine}: {packages}");
        assert_eq!(article.index.requests(), 0);
    }
}

#[test]
fn nothing_to_install_makes_no_environment() {
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    assert!(!article.root("venv").exists());
    assert_eq!(article.manifest()["environment"], Value::Null);
    article.ok(article.init("auto").args(["--venv", "venv"]));
    assert!(article.root("venv/bin/python").exists(), "unless asked");
}

#[test]
fn a_local_directory_is_a_source() {
    let article = Article::new();
    let dir = article.sandbox.path("mine");
    fs::create_dir_all(dir.join("__pycache__")).unwrap();
    fs::write(dir.join("index.py"), "1\n").unwrap();
    let init = || {
        let mut command = article.sandbox.podstrap();
        command.arg("init").arg("--repo").arg(&dir).arg("--root").arg(article.sandbox.root());
        command
    };
    article.ok(&mut init());
    assert_eq!(fs::read_to_string(article.root("index.py")).unwrap(), "1\n");
    assert!(!article.root("__pycache__").exists());
    fs::write(dir.join("index.py"), "2\n").unwrap();
    article.ok(&mut init());
    assert_eq!(fs::read_to_string(article.root("index.py")).unwrap(), "2\n");
}

#[test]
fn every_flag_has_a_variable_and_a_misspelt_one_is_named() {
    let article = Article::new();
    let ran = article.ok(article
        .sandbox
        .podstrap()
        .arg("init")
        .env("PODSTRAP_REPO", article.git.url("testapp.git"))
        .env("PODSTRAP_ROOT", article.sandbox.root())
        .env("PODSTRAP_LINK", "app")
        .env("PODSTRAP_PACKAGE", "click blinker")
        .env("PODSTRAP_ENGINE", index::uv())
        .env("PODSTRAP_TIMEOUTT", "1s")
        .env("PODSTRAP_SERVICE_HOST", "10.0.0.1")
        .env("PODSTRAP_LOG_FORMAT", "json")
        .env("PIP_INDEX_URL", article.index.url()));
    assert!(article.root("app/venv/lib").exists());
    let lines: Vec<Value> = ran.raw.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let warning = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    let text = warning["message"].as_str().unwrap();
    assert!(text.contains("PODSTRAP_TIMEOUTT") && text.contains("PODSTRAP_TIMEOUT?"), "{text}");
    assert_eq!(lines.iter().filter(|line| line["level"] == "WARN").count(), 1);
    assert!(lines.iter().any(|line| line["phase"] == "install" && line["seconds"].is_number()), "{}", ran.raw);
}

#[test]
fn an_empty_variable_is_none_and_a_switch_takes_any_boolean() {
    let article = Article::new();
    let init = |refresh: &str| {
        let mut command = article.init("auto");
        for name in ["PODSTRAP_REF", "PODSTRAP_LINK", "PODSTRAP_PYTHON", "PODSTRAP_COPY_SELF", "PODSTRAP_TIMEOUT"] {
            command.env(name, "");
        }
        command.env("PODSTRAP_REFRESH", refresh);
        command
    };
    assert!(article.ok(&mut init("0")).text.contains("built"));
    assert!(article.ok(&mut init("")).text.contains("unchanged"));
    assert!(article.ok(&mut init("1")).text.contains("built"));
}
