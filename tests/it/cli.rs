//! The binary as a Pod runs it: `init` from a real Git server and a real index, what it leaves, what
//! a rerun does, what it says when it fails.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::git::{GitServer, Repo, listing};
use crate::support::http::Response;
use crate::support::index::{self, Behaviour, IndexServer};
use crate::support::sandbox::{Ran, Sandbox};

/// The article's repository behind a Git server, an index with Flask, and a volume.
struct Article {
    sandbox: Sandbox,
    repo: Repo,
    git: GitServer,
    index: IndexServer,
}

impl Article {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let repos = sandbox.path("repos");
        let repo = Repo::new(&repos.join("testapp.git"));
        repo.file(
            "python/flask/index.py",
            "from flask import Flask\napplication = Flask(__name__)\n\n@application.get('/')\ndef hello():\n    return 'Hello, World!'\n",
        )
        .file("python/testapp/index.py", "import redis\n")
        .file("README.md", "testapp\n")
        .commit("first");
        let (git, index) = (GitServer::start(&repos), IndexServer::start(&index::wheelhouse()));
        fs::write(sandbox.path("termination-log"), "").unwrap();
        Self { sandbox, repo, git, index }
    }

    /// `podstrap init` as far as every test has it.
    fn init(&self, engine: &str) -> Command {
        self.init_from(&self.git.url("testapp.git"), engine)
    }

    /// The same from another URL, which may hold credentials.
    fn init_from(&self, url: &str, engine: &str) -> Command {
        let mut command = self.sandbox.podstrap();
        command.arg("init").env("PODSTRAP_REPO", url).arg("--root").arg(self.sandbox.root());
        let engine = if engine == "uv" { index::uv().display().to_string() } else { engine.to_owned() };
        command.args(["--engine", &engine]).env("PIP_INDEX_URL", self.index.url());
        command
    }

    fn run(&self, command: &mut Command) -> Ran {
        self.sandbox.run(command)
    }

    fn ok(&self, command: &mut Command) -> Ran {
        let ran = self.run(command);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran
    }

    fn root(&self, name: &str) -> PathBuf {
        self.sandbox.root().join(name)
    }

    fn releases(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root(".podstrap/releases")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn manifest(&self) -> Value {
        let [release] = &self.releases()[..] else { panic!("{:?}", self.releases()) };
        serde_json::from_slice(&fs::read(release.join("release.json")).unwrap()).unwrap()
    }

    fn last_words(&self) -> String {
        fs::read_to_string(self.sandbox.path("termination-log")).unwrap()
    }
}

#[test]
fn the_articles_pod() {
    for engine in ["uv", "pip"] {
        let article = Article::new();
        let ran = article.ok(article
            .init(engine)
            .args(["--venv", "python/venv", "--venv-final-path", "/app/python/venv", "--copy-self"])
            .arg(article.sandbox.path("bin/podstrap"))
            .arg("Flask"));

        // The volume, as the article has it: `subPath: python` holds the app and its environment.
        let python = article.root("python");
        assert!(fs::symlink_metadata(&python).unwrap().is_symlink());
        let venv = python.join("venv");
        assert!(fs::symlink_metadata(&venv).unwrap().is_dir(), "a real directory inside the subPath");
        assert_eq!(fs::read_to_string(article.root("README.md")).unwrap(), "testapp\n");
        assert!(!article.root(".git").exists());

        // It works from there, and its words are for the final path.
        let script = fs::read_to_string(venv.join("bin/flask")).unwrap();
        assert!(script.starts_with("#!/app/python/venv/bin/python"), "{script}");
        let hello = "import index; print(index.application.test_client().get('/').text)";
        let output =
            Command::new(venv.join("bin/python")).args(["-c", hello]).current_dir(python.join("flask")).output();
        let output = output.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, World!\n", "{output:?}");

        // Everybody may read all of it: Unit runs apps as another user.
        for line in listing(&article.sandbox.root()).lines().filter(|line| !line.contains("symlink")) {
            assert!(!line.contains(" directory 700") && !line.contains(" 600 "), "{line}");
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

        // The last words are the summary, on stderr and for kubectl describe.
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
fn a_rerun_builds_nothing_and_a_push_builds_beside() {
    let article = Article::new();
    let init = || {
        let mut command = article.init("uv");
        command.arg("Flask");
        command
    };
    article.ok(&mut init());
    let first = article.releases();
    let (asked, requests) = (article.git.seen().len(), article.index.requests());
    let inode = fs::metadata(article.root("README.md")).unwrap().ino();

    let ran = article.ok(&mut init());
    assert!(ran.raw.contains("unchanged:"), "{}", ran.raw);
    assert_eq!(article.git.seen().len(), asked + 1, "a branch costs one request");
    assert_eq!(article.index.requests(), requests);
    assert_eq!(article.releases(), first);
    assert_eq!(fs::metadata(article.root("README.md")).unwrap().ino(), inode);

    // A full SHA that is here asks nobody.
    let sha = article.repo.rev("main");
    article.ok(init().args(["--ref", &sha]));
    assert_eq!(article.git.seen().len(), asked + 1);
    assert_eq!(article.releases(), first);

    article.repo.file("README.md", "changed\n").file("new.txt", "").commit("second");
    article.ok(&mut init());
    assert_eq!(fs::read_to_string(article.root("README.md")).unwrap(), "changed\n");
    assert!(article.root("new.txt").exists());
    assert_eq!(article.releases().len(), 1);
    assert_ne!(article.releases(), first);

    // And back to the commit before, by its name.
    article.ok(init().args(["--ref", &sha]));
    assert_eq!(fs::read_to_string(article.root("README.md")).unwrap(), "testapp\n");
    assert!(fs::symlink_metadata(article.root("new.txt")).is_err());
}

#[test]
fn other_inputs_are_another_release() {
    let article = Article::new();
    let mut seen = vec![];
    for flags in [&["Flask"][..], &["Flask", "click"], &["--venv-final-path", "/app/venv", "Flask"]] {
        article.ok(article.init("uv").args(flags));
        let releases = article.releases();
        assert_eq!(releases.len(), 1);
        assert!(!seen.contains(&releases[0]), "{flags:?}");
        seen.push(releases[0].clone());
    }
    article.ok(article.init("pip").arg("Flask"));
    assert!(!seen.contains(&article.releases()[0]), "another engine");
    seen.push(article.releases()[0].clone());
    article.ok(article.init("pip").args(["--refresh", "Flask"]));
    assert!(!seen.contains(&article.releases()[0]), "a new one though nothing changed");
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
    // Outside the tree, as a ConfigMap would bring it; its contents count.
    let outside = article.sandbox.write("config/r.txt", "click\n");
    article.ok(article.init("uv").arg("-r").arg(&outside));
    assert!(!article.root("venv/bin/flask").exists());
    fs::write(&outside, "Flask\n").unwrap();
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
        // A newer one is in every public index.
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
    article.ok(article.init("auto").args(["--venv", "env"]));
    assert!(article.root("env/bin/python").exists(), "unless asked");
}

#[test]
fn a_copy_below_the_root_is_in_the_release() {
    let article = Article::new();
    article.ok(article.init("auto").arg("--copy-self").arg(article.root("bin/podstrap")));
    let output = Command::new(article.root("bin/podstrap")).arg("--version").output().unwrap();
    assert!(output.status.success());
    let [release] = &article.releases()[..] else { panic!() };
    assert!(release.join("tree/bin/podstrap").is_file());
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
fn an_address_that_is_none_keeps_its_secret() {
    let sandbox = Sandbox::new();
    let broken = ["https://ada:s3c/ret@host/x.git", "https://ada:s3c#ret@host/x.git", "ada:s3c?ret@host/x.git"];
    for url in broken.into_iter().chain(["https:/ada:s3c/ret@host/x.git"]) {
        let ran = sandbox.run(sandbox.podstrap().args(["init", "--root", "root"]).env("PODSTRAP_REPO", url));
        assert_eq!(ran.code, Some(2), "{}", ran.raw);
        assert!(!ran.raw.contains("s3c") && !ran.raw.contains("ret@"), "{}", ran.raw);
    }
    for command in ["init", "up"] {
        let mut help = sandbox.podstrap();
        help.args([command, "--help"]).env("PODSTRAP_REPO", "https://ada:s3cret@host/x.git");
        let ran = sandbox.run(help.env("PODSTRAP_PACKAGE", "git+https://ada:s3cret@host/x.git"));
        assert!(ran.stdout.contains("PODSTRAP_REPO") && !ran.stdout.contains("s3cret"), "{}", ran.stdout);
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
fn what_is_made_for_a_copy_is_for_everybody() {
    let article = Article::new();
    let command = format!("umask 077; exec \"$@\" --copy-self {}", article.root("new/bin/podstrap").display());
    let podstrap = article.sandbox.podstrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &command, "sh"]).arg(podstrap.get_program()).args(["init", "--venv", "env/venv"]);
    shell.arg("--root").arg(article.sandbox.root()).env("PODSTRAP_REPO", article.git.url("testapp.git"));
    article.ok(&mut shell);
    let outside = article.sandbox.path("a/b/podstrap");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(podstrap.get_program()).arg("copy-self").arg(&outside);
    article.ok(&mut shell);
    for path in [article.root("new/bin"), article.root("env/venv"), article.root("env"), article.sandbox.path("a/b")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755, "{}", path.display());
    }
}

#[test]
fn a_copy_takes_the_place_of_files_only() {
    let sandbox = Sandbox::new();
    let pipe = sandbox.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let ran = sandbox.run(sandbox.podstrap().arg("copy-self").arg(&pipe));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("it is a device, a socket or a pipe"), "{}", ran.raw);
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
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

/// Fails, publishes nothing, loses nothing, and leaves its words in the termination message.
fn refused(article: &Article, command: &mut Command, code: i32) -> String {
    let before = listing(&article.sandbox.root());
    let ran = article.run(command);
    assert_eq!(ran.code, Some(code), "{}", ran.raw);
    let shown: Vec<_> = article.last_words().lines().map(str::to_owned).collect();
    assert!(!shown.is_empty() && shown.iter().all(|line| ran.raw.contains(line.as_str())), "{shown:?}\n{}", ran.raw);
    let after = listing(&article.sandbox.root());
    let published = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.contains(".podstrap/cache") && !line.contains("\".podstrap"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(published(&before), published(&after));
    let at = ran.text.find("podstrap: error").or_else(|| ran.text.find("error: ")).unwrap_or(0);
    ran.text[at..].trim_end().to_owned()
}

#[test]
fn roots_that_cannot_be_used() {
    let article = Article::new();
    let init = |root: &Path| {
        let mut command = article.sandbox.podstrap();
        command.args(["init", "--repo", &article.git.url("testapp.git"), "--root"]).arg(root);
        command
    };
    assert_snapshot!(refused(&article, &mut init(&article.sandbox.path("nowhere")), 5), @r"
    podstrap: error: --root [TMP]/nowhere does not exist
    hint: mount the shared volume there (volumeMounts), or name the path where it is mounted
    ");
    assert_snapshot!(refused(&article, &mut init(&article.sandbox.write("file", "")), 5), @r"
    podstrap: error: --root [TMP]/file is not a directory
    hint: name the directory where the shared volume is mounted
    ");
    article.ok(&mut article.init("auto"));
    fs::remove_file(article.root("python")).unwrap();
    fs::write(article.root("python"), "mine").unwrap();
    article.repo.file("x", "").commit("second");
    assert_snapshot!(refused(&article, &mut article.init("auto"), 5), @r"
    podstrap: error: [TMP]/root/python is in the way
      because: podstrap did not make it, so it stays as it is
    hint: move it away, publish under another name with --link NAME, or give podstrap a volume of its own
    ");
}

#[test]
fn paths_in_the_tree_that_cannot_be_used() {
    let article = Article::new();
    article.repo.link("outside", "/etc").link("passwd.txt", "/etc/passwd").file("taken/x", "").commit("links");
    assert_snapshot!(refused(&article, article.init("auto").args(["--venv", "../venv"]), 2), @r"
    podstrap: error: --venv ../venv is not inside the tree
    hint: give a path relative to the repository's top, without ..; where the app sees it is --venv-final-path
    ");
    assert_snapshot!(refused(&article, article.init("auto").args(["--venv", "outside/venv"]), 2), @r"
    podstrap: error: --venv outside/venv: outside is a symbolic link in the repository
    hint: name a path for --venv whose parents are real directories
    ");
    assert_snapshot!(refused(&article, article.init("auto").args(["--venv", "taken"]), 2), @r"
    podstrap: error: --venv taken: the repository has an entry of that name
    hint: give --venv a path that the repository does not use
    ");
    assert_snapshot!(refused(&article, article.init("auto").args(["-r", "passwd.txt"]), 4), @r"
    podstrap: error: -r passwd.txt leads out of the tree
      because: it is, or goes through, a symbolic link of the repository
    hint: commit the file itself, or name it by an absolute path
    ");
    assert_snapshot!(refused(&article, article.init("auto").args(["-r", "reqs.txt"]), 4), @r"
    podstrap: error: -r reqs.txt: cannot be read in the tree
      because: No such file or directory (os error 2)
    hint: paths are relative to the repository's top; the tree has README.md, outside, passwd.txt, python, taken
    ");
    assert_snapshot!(refused(&article, article.init("auto").args(["-r", "/no/such.txt"]), 4), @r"
    podstrap: error: cannot read the requirements file /no/such.txt
      because: No such file or directory (os error 2)
    hint: absolute paths are read as they are: is the volume or ConfigMap mounted in this container?
    ");
}

#[test]
fn failures_of_each_phase_have_their_code() {
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    assert_snapshot!(refused(&article, article.init("auto").args(["--ref", "nope"]), 3), @r"
    podstrap: error: http://[HOST]/testapp.git has no branch or tag nope
    hint: there are: main
    ");
    let pathless = article.sandbox.path("bin");
    assert_snapshot!(refused(&article, article.init("pip").args(["--python", "3.99", "Flask"]).env("PATH", pathless), 4), @r"
    podstrap: error: found no Python 3.99
      because: looked for python3.99, python3, python in PATH ([TMP]/bin)
    hint: run podstrap init in an image that has Python, best the app's own, or name an interpreter with --python
    ");
    assert_snapshot!(refused(&article, article.init("uv").arg("no-such-package-at-all"), 4), @r"
    podstrap: error: cannot find no-such-package-at-all in the package index
      | error: No solution found when resolving dependencies
      |   cause: Because no-such-package-at-all was not found in the package registry and you require no-such-package-at-all, we can conclude that your requirements are unsatisfiable.
    hint: check the name; a private index is named by PIP_INDEX_URL or PIP_EXTRA_INDEX_URL
    ");
    assert_snapshot!(refused(&article, article.init("auto").args(["--timeout", "soon"]), 2), @r"
    error: invalid value 'soon' for '--timeout <DURATION>': expected number at 0

    For more information, try '--help'.
    ");
    let held = fs::File::options().write(true).open(article.root(".podstrap/lock")).unwrap();
    held.lock().unwrap();
    assert_snapshot!(refused(&article, article.init("auto").args(["--timeout", "200ms"]), 5), @r"
    podstrap: error: [TMP]/root/.podstrap/lock stayed locked
      because: waited [TIME] (--timeout 200ms) for another podstrap to finish
    hint: look at the other container's log, or raise --timeout
    ");
    drop(held);
    article.git.always(Response::new(403, "you may not\n"));
    assert_snapshot!(refused(&article, &mut article.init("auto"), 3), @r"
    podstrap: error: cannot list the references of http://[HOST]/testapp.git
      because: http://[HOST]/testapp.git answers 403 Forbidden
      | you may not
    hint: if the repository is private: set PODSTRAP_REPO from a Secret, with user:token@ before the host
    ");
}

#[test]
fn a_signal_ends_it_and_is_its_exit_code() {
    use std::time::{Duration, Instant};
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let article = Article::new();
        article.git.instead(|_| {
            std::thread::sleep(Duration::from_secs(3));
            None
        });
        let child = article.init("auto").stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let sent = Instant::now();
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        let ran = article.sandbox.ran(&child.wait_with_output().unwrap());
        assert!(sent.elapsed() < Duration::from_secs(1));
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
    }
}
