//! Credentials reach only the programs that need them: they appear in no process's arguments, message or file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::article::Article;
use crate::support::git::{GitServer, Repo};
use crate::support::index::{self, Behaviour, IndexServer};
use crate::support::sandbox::Sandbox;

/// A build backend (PEP 517) without dependencies.
const BACKEND: &str = r#"
import os, zipfile

def build_wheel(directory, settings=None, metadata=None):
    name = "lib-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("lib.py", "")
        wheel.writestr("lib-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lib\nVersion: 1.0\n")
        wheel.writestr("lib-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("lib-1.0.dist-info/RECORD", "")
    return name
"#;

const PROJECT: &str = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
    [project]\nname = \"lib\"\nversion = \"1.0\"\n";

const GIT_LOGIN: &str = "ada:t0k3n-of-git";
const GIT_BASIC: &str = "YWRhOnQwazNuLW9mLWdpdA==";
const INDEX_LOGIN: (&str, &str) = ("bob", "p4ss-of-index");

/// Parts of the credentials, plain and encoded.
const SECRETS: &[&str] = &["t0k3n-of-git", "p4ss-of-index", "YWRhOnQwazNu"];

/// The command lines of all processes whose environment contains the mark.
fn command_lines(mark: &str, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read =
            |name: &str| fs::read(entry.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if read("environ").is_ok_and(|environment| environment.contains(mark)) {
            into.extend(read("cmdline").map(|line| line.replace('\0', " ")));
        }
    }
}

/// The files below a directory that contain a secret.
fn holding(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.extend(holding(&path));
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            let hit = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            found.extend(SECRETS.iter().any(hit).then(|| path.display().to_string()));
        }
    }
    found
}

#[test]
fn credentials_reach_git_and_the_index_and_show_nowhere() {
    for engine in ["pip", "uv"] {
        let sandbox = Sandbox::new();
        let repos = sandbox.path("repos");
        Repo::new(&repos.join("app.git")).file("index.py", "import lib\n").commit("first");
        Repo::new(&repos.join("lib.git")).file("pyproject.toml", PROJECT).file("backend.py", BACKEND).commit("first");
        let git = GitServer::start(&repos);
        git.require(&format!("Basic {GIT_BASIC}"));
        let login = Behaviour { login: Some(INDEX_LOGIN), ..Behaviour::default() };
        let index = IndexServer::behaving(&index::wheelhouse(), login);

        // Records the arguments of git, even of a process too short for the watch.
        let calls = sandbox.write("calls", "");
        let shim = sandbox.write(
            "bin/git",
            format!("#!/bin/sh\necho \"$@\" >>{}\nPATH=${{PATH#*:}} exec git \"$@\"\n", calls.display()),
        );
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", shim.parent().unwrap().display(), std::env::var("PATH").unwrap());

        let mut command = sandbox.podstrap();
        let engine_path = if engine == "uv" { index::uv() } else { "pip".into() };
        command.args(["init", "--log-level", "debug", "--engine"]).arg(engine_path).arg("--root").arg(sandbox.root());
        command
            .env("PATH", path)
            .env("PODSTRAP_REPO", git.url_as(GIT_LOGIN, "app.git"))
            .env("PODSTRAP_PACKAGE", format!("git+{}@main click", git.url_as(GIT_LOGIN, "lib.git")))
            .env("PIP_INDEX_URL", index.url_with(INDEX_LOGIN.0, INDEX_LOGIN.1));
        let mark = format!("TMPDIR={}", sandbox.path("").display());

        let done = AtomicBool::new(false);
        let (ran, mut seen) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while !done.load(Ordering::SeqCst) {
                    command_lines(&mark, &mut seen);
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen
            });
            let ran = sandbox.run(&mut command);
            done.store(true, Ordering::SeqCst);
            (ran, watch.join().unwrap())
        });
        assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
        assert!(sandbox.root().join("venv/lib").exists());
        // Proves that the shim records the calls.
        let called = fs::read_to_string(&calls).unwrap();
        assert!(called.contains("/lib.git"), "{engine}: {called}");
        assert!(seen.iter().any(|line| line.contains(engine) && line.contains("/lib.git@")), "{engine}: {seen:?}");

        seen.extend([called, ran.raw.clone(), ran.stdout]);
        for secret in SECRETS {
            let shown: Vec<_> = seen.iter().filter(|text| text.contains(secret)).collect();
            assert!(shown.is_empty(), "{engine}: {secret} shows in {shown:?}");
        }
        for dir in ["volume", "tmp", "home"].map(|name| sandbox.path(name)).iter().filter(|dir| dir.exists()) {
            assert_eq!(holding(dir), [""; 0], "{engine}");
        }
    }
}

#[test]
fn an_address_that_is_none_keeps_its_secret() {
    let sandbox = Sandbox::new();
    let broken = ["https://ada:s3c/ret@host/x.git", "https://ada:s3c#ret@host/x.git", "ada:s3c?ret@host/x.git"];
    for url in broken.into_iter().chain(["https:/ada:s3c/ret@host/x.git"]) {
        let ran = sandbox.run(sandbox.podstrap().args(["init", "--root", "root"]).env("PODSTRAP_REPO", url));
        assert_eq!(ran.code, Some(2), "{}", ran.raw);
        assert!(!ran.raw.contains("s3c") && !ran.raw.contains("ret@"), "{}", ran.raw);
    }
}

#[test]
fn json_is_as_clean_as_text() {
    let article = Article::new();
    let url = format!("http://ada:s3cret@{}/no\u{1b}[31m.whl", article.index.url().split('/').nth(2).unwrap());
    let ran = article.run(article.init("uv").args(["--log-format", "json", "--log-level", "debug"]).arg(url));
    assert_eq!(ran.code, Some(4), "{}", ran.raw);
    assert!(!ran.raw.contains("s3cret") && !ran.raw.contains("u001b"), "{}", ran.raw);
    for line in ran.raw.lines() {
        let line: Value = serde_json::from_str(line).expect(line);
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[test]
fn secrets_are_nowhere() {
    let article = Article::new();
    article.git.require("Basic YWRhOnMzY3JldA==");
    let private = IndexServer::behaving(
        &index::wheelhouse(),
        Behaviour { login: Some(("joe", "pa55word")), ..Behaviour::default() },
    );
    for engine in ["uv", "pip"] {
        let ran = article.ok(article
            .init_from(&article.git.url_as("ada:s3cret", "testapp.git"), engine)
            .args(["--log-level", "debug", "--refresh", "Flask"])
            .env("PIP_INDEX_URL", private.url_with("joe", "pa55word")));
        let output = Command::new("grep")
            .args(["-rlE", "s3cret|pa55word"])
            .arg(article.sandbox.root())
            .arg(article.sandbox.path("tmp"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{engine}");
        for text in [&ran.raw, &article.last_words()] {
            assert!(!text.contains("s3cret") && !text.contains("pa55word"), "{engine}: {text}");
        }
    }
}

#[test]
fn nothing_printed_shows_a_secret() {
    let article = Article::new();
    let package = format!("click @ {}", article.index.url_with("ada", "s3cret").replace("/simple/", "/no.whl"));
    for format in ["text", "json"] {
        let flags = ["--log-format", format, "--log-level", "debug", "--timeout", "20s", package.as_str()];
        let ran = article.run(article.init("pip").args(flags));
        assert!(!ran.raw.contains("s3cret") && ran.raw.contains("***@"), "{format}: {}", ran.raw);
    }
}

#[test]
fn the_help_names_variables_and_does_not_show_what_they_hold() {
    let sandbox = Sandbox::new();
    for command in ["init", "up"] {
        let mut help = sandbox.podstrap();
        help.args([command, "--help"]).env("PODSTRAP_REPO", "https://ada:s3cret@host/x.git");
        let ran = sandbox.run(help.env("PODSTRAP_PACKAGE", "git+https://ada:s3cret@host/x.git"));
        let words = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("[env: PODSTRAP_REPO]"), "{command}: {}", ran.stdout);
        assert!(!ran.stdout.contains("s3cret"), "{command}: {}", ran.stdout);
    }
}

/// Arguments, variables, exit code.
type Case<'a> = (Vec<String>, &'a [(&'a str, &'a str)], i32);

/// Special characters in a login would end its URL's authority: podstrap would ask for a part of the password in DNS.
#[test]
fn a_login_without_a_scheme_is_refused_and_not_shown() {
    let sandbox = Sandbox::new();
    let tree = sandbox.write("tree/requirements.txt", "alpha\n").parent().unwrap().to_owned();
    for value in ["me:pA5sword@127.0.0.1:9/simple", "//me:pA5sword@127.0.0.1:9/simple", "http:me:pA5sword@127.0.0.1/s"]
    {
        for name in ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL"] {
            let mut command = sandbox.podstrap();
            command.args(["init", "--timeout", "20s", "--log-level", "debug", "--repo"]).arg(&tree);
            let ran = sandbox.run(command.arg("--root").arg(sandbox.root()).env(name, value));
            assert_eq!(ran.code, Some(2), "{name} {value}: {}", ran.raw);
            assert!(ran.error().contains(&format!("{name} has a login, but no scheme")), "{}", ran.raw);
            assert!(!ran.raw.contains("pA5s"), "{}", ran.raw);
        }
    }
}

#[test]
fn a_login_that_is_not_escaped_is_refused_and_not_shown() {
    let sandbox = Sandbox::new();
    let tree = sandbox.write("tree/requirements.txt", "alpha\n").parent().unwrap().display().to_string();
    sandbox.write("tree/own.txt", "alpha @ https://user:pA5s/w0rd@h0st.example/x.whl\n");
    sandbox.write("tree/index.txt", "-i https://user:${SECRET}@h0st.example/simple\n");
    let repo = |url: &str| vec!["--repo".to_owned(), url.to_owned()];
    let with = |more: &[&str]| [&["--repo", &*tree], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let cases: Vec<Case<'_>> = vec![
        (repo("http://user:12#pA5s@h0st/a.git"), &[], 2),
        (repo("http://pA5s/w0rd@h0st/a.git"), &[], 2),
        (repo("http://user:p@pA5s/w@h0st/a.git"), &[], 2),
        (repo("ssh://git:pA5s/x@h0st/a.git"), &[], 2),
        (repo("http://127.0.0.1:9/a.git"), &[("HTTP_PROXY", "http://user:p@pA5s/w@h0st:1")], 2),
        (repo("http://127.0.0.1:9/a.git"), &[("all_proxy", "http://user:pA5s/w@h0st:1")], 2),
        (with(&["alpha"]), &[("PIP_INDEX_URL", "http://user:12#pA5s@h0st/simple")], 2),
        (with(&["alpha"]), &[("PIP_EXTRA_INDEX_URL", "http://pA5s/w0rd@h0st/simple")], 2),
        (with(&["alpha"]), &[("UV_INDEX", "corp=http://user:pA5s?w0rd@h0st/simple")], 2),
        (with(&["alpha"]), &[("PIP_PROXY", "http://user:pA5s/w@h0st:1")], 2),
        (with(&["alpha @ git+https://user:pA5s/w@h0st/x.git@v1"]), &[], 2),
        (with(&["alpha", "--find-links", "https://user:pA5s/w@h0st/w/"]), &[], 2),
        (with(&["-c", "https://user:pA5s/w@h0st/c.txt"]), &[], 2),
        (with(&["-r", "own.txt"]), &[], 4),
        (with(&["-r", "index.txt"]), &[("SECRET", "12#pA5s")], 4),
    ];
    for (args, vars, code) in cases {
        let mut command = sandbox.podstrap();
        command.args(["init", "--timeout", "20s", "--log-level", "debug", "--root"]).arg(sandbox.root()).args(&args);
        let ran = sandbox.run(command.envs(vars.iter().copied()));
        assert_eq!(ran.code, Some(code), "{args:?} {vars:?}: {}", ran.raw);
        assert!(ran.error().contains("://*** has an @ behind its host"), "{args:?} {vars:?}: {}", ran.raw);
        assert!(ran.error().contains("hint: write special characters as %XX"), "{}", ran.raw);
        let said = std::fs::read_to_string(sandbox.path("termination-log")).unwrap_or_default() + &ran.raw;
        for part in ["pA5s", "w0rd", "h0st", "w@"] {
            assert!(!said.contains(part), "{args:?} {vars:?}: {said}");
        }
    }
}

/// The engines print an invalid URL in their errors, in quotes of their own.
#[test]
fn an_invalid_index_url_is_refused_and_its_login_is_not_shown() {
    let sandbox = Sandbox::new();
    let tree = sandbox.write("tree/requirements.txt", "alpha\n").parent().unwrap().to_owned();
    let names = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "UV_INDEX_URL"];
    let lines =
        ["--index-url URL", "--extra-index-url=URL", "-i 'URL'", "--index-url ${INDEX}", "-i ${INDEX}", "-f URL"];
    for url in [
        "https://us3r:pA5s\"w0rd@host:notaport/simple",
        "https://us3r:pA5s'w0rd@host:notaport/simple",
        "https://us3r:pA5s`w0rd<x>@host:notaport/simple",
        "https://us3r:pA5sw0rd@host:notaport/simple",
        "https://us3r:pA5s w0rd@host:notaport/simple",
        "https://us3r:pA5s\"w0rd@[host/simple",
        "https://us3r:pA5s\\w0rd@host:notaport/simple",
    ] {
        let check = |name: &str, code: i32, starts: &str| {
            for engine in ["auto", "pip"] {
                let mut command = sandbox.podstrap();
                command
                    .args(["init", "--timeout", "20s", "--log-level", "debug", "--engine", engine, "--repo"])
                    .arg(&tree);
                let ran = sandbox.run(command.arg("--root").arg(sandbox.root()).env(name, url));
                assert_eq!(ran.code, Some(code), "{name} {url}: {}", ran.raw);
                assert!(ran.error().starts_with(starts) && ran.error().contains("hint: "), "{name} {url}: {}", ran.raw);
                let said = std::fs::read_to_string(sandbox.path("termination-log")).unwrap_or_default() + &ran.raw;
                for part in ["us3r", "pA5s", "w0rd"] {
                    assert!(!said.contains(part), "{name} {url}: {said}");
                }
            }
        };
        for line in lines {
            sandbox.write("tree/requirements.txt", format!("{}\nalpha\n", line.replace("URL", url)));
            check("INDEX", 4, "requirements.txt, line 1: ");
        }
        sandbox.write("tree/requirements.txt", "alpha\n");
        // White space separates the URLs of a variable.
        for name in names.iter().filter(|_| !url.contains(' ')) {
            check(name, 2, &format!("{name} https://***@"));
        }
    }
}
