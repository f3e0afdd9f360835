//! The binary as a Pod runs it: `init` from a real Git server and a real index, what it leaves, what
//! a rerun does, what it says when it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::article::Article;
use crate::support::git::listing;
use crate::support::http::Response;
use crate::support::index::{self, Behaviour, IndexServer};
use crate::support::sandbox::{Ran, Sandbox};

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
    article.ok(article.init("auto").args(["--venv", "venv"]));
    assert!(article.root("venv/bin/python").exists(), "unless asked");
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
fn a_copy_goes_through_no_link_of_the_repository() {
    use std::os::unix::fs::symlink;
    // The name that a copy has until it is whole ends with the process's id: a shell knows it in time.
    let article = Article::new();
    let victim = article.sandbox.write("victim", "mine");
    let dir = article.sandbox.path("mine");
    fs::create_dir_all(&dir).unwrap();
    symlink(&victim, dir.join("LINK")).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        r#"mv "$1/LINK" "$1/podstrap.$$"; exec "$2" init --repo "$1" --root "$3" --copy-self "$3/podstrap""#,
        "sh",
    ]);
    command.arg(&dir).arg(env!("CARGO_BIN_EXE_podstrap")).arg(article.sandbox.root());
    article.ok(&mut command);
    assert_eq!(fs::read_to_string(victim).unwrap(), "mine");
    assert!(article.root("podstrap").is_file());
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
        text.lines().filter(|line| !line.contains("\".podstrap")).map(str::to_owned).collect()
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
    podstrap: error: [TMP]/volume/python is in the way
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
    let dangling = article.repo.link("requirements.txt", "nowhere.txt").commit("dangling").rev("main");
    assert_snapshot!(refused(&article, article.init("auto").args(["--ref", &dangling]), 4), @r"
    podstrap: error: -r requirements.txt: cannot be read in the tree
      because: No such file or directory (os error 2)
    hint: paths are relative to the repository's top; the tree has README.md, outside, passwd.txt, python, requirements.txt, taken
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
    hint: run podstrap in an image that has it, best the app's own, or give --python the path of an interpreter
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
    podstrap: error: [TMP]/volume/.podstrap/lock stayed locked
      because: waited [TIME] (--timeout 200ms) for another podstrap to finish
    hint: look at the other container's log, or raise --timeout
    ");
    drop(held);
    article.git.always(Response::new(403, "you may not\n"));
    assert_snapshot!(refused(&article, &mut article.init("auto"), 3), @r"
    podstrap: error: cannot list the references of http://[HOST]/testapp.git
      because: http://[HOST]/testapp.git answers 403 Forbidden
      | you may not
    hint: if the repository is private: mount a Secret with username and password, or a file with a token, and name it with --auth
    ");
}

#[test]
fn a_signal_is_heard_while_leftovers_are_cleared() {
    use std::time::{Duration, Instant};
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    for dir in 0..40 {
        let dir = article.root(&format!(".podstrap/staging/killed/{dir}"));
        fs::create_dir_all(&dir).unwrap();
        (0..500).for_each(|file| fs::write(dir.join(file.to_string()), "").unwrap());
    }
    let left = || fs::read_dir(article.root(".podstrap/staging/killed")).map_or(0, Iterator::count);
    let child = article.init("auto").stderr(std::process::Stdio::piped()).spawn().unwrap();
    while left() == 40 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Instant::now();
    Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    let ran = article.sandbox.ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(143), "{}", ran.raw);
    assert!(sent.elapsed() < Duration::from_millis(500), "{:?}", sent.elapsed());
    assert!(left() > 0, "it is left to the next run");
    assert_eq!(article.ok(&mut article.init("auto")).code, Some(0));
    assert_eq!(fs::read_dir(article.root(".podstrap/staging")).unwrap().count(), 0);
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

#[test]
fn nothing_printed_shows_a_secret() {
    let article = Article::new();
    let help =
        article.run(article.sandbox.podstrap().args(["init", "--help"]).env("PODSTRAP_REPO", "https://u:s3cret@h/"));
    assert!(help.stdout.contains("[env: PODSTRAP_REPO]"), "{}", help.stdout);
    let package = format!("click @ {}", article.index.url_with("ada", "s3cret").replace("/simple/", "/no.whl"));
    for format in ["text", "json"] {
        let flags = ["--log-format", format, "--log-level", "debug", "--timeout", "20s", package.as_str()];
        let ran = article.run(article.init("pip").args(flags));
        assert!(!ran.raw.contains("s3cret") && ran.raw.contains("***@"), "{format}: {}", ran.raw);
    }
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

/// Runs `script` where `$1` is the binary, `$2` the root (a tmpfs with these options that nobody else
/// sees) and `$3` the repository. None where the machine does not allow mounts.
fn on_tmpfs(article: &Article, options: &str, script: &str) -> Option<Ran> {
    let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-r", "-m"] };
    let unshare = || {
        let mut command = article.sandbox.podstrap();
        let env: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
        command = Command::new("unshare");
        command.args(namespace).env_clear().envs(env).current_dir(article.sandbox.path(""));
        command
    };
    let mount = format!("mount -t tmpfs -o mode=0755,{options} none \"$2\" || exit 99\n");
    let allowed = unshare()
        .args(["sh", "-c", &mount, "sh", ""])
        .arg(article.sandbox.root())
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("SKIPPED: no mount in a namespace of its own here (unshare {})", namespace.join(" "));
        return None;
    }
    let mut command = unshare();
    command
        .args(["sh", "-c", &(mount + script), "sh", env!("CARGO_BIN_EXE_podstrap")])
        .arg(article.sandbox.root())
        .args([article.git.url("testapp.git"), article.index.url(), index::uv().display().to_string()])
        .env("PIP_INDEX_URL", article.index.url());
    Some(article.run(&mut command))
}

#[test]
fn a_root_that_is_read_only() {
    let article = Article::new();
    let script = "mount -o remount,ro \"$2\" && \"$1\" init --repo \"$3\" --root \"$2\"";
    let Some(ran) = on_tmpfs(&article, "size=1m", script) else { return };
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert_snapshot!(ran.text, @r"
    podstrap: error: cannot make the directory [TMP]/volume/.podstrap
      because: Read-only file system (os error 30)
    hint: that must be on a writable volume: mount an emptyDir or a claim there, without readOnly
    ");
    // What was published before is still there.
    let script = "\"$1\" init --repo \"$3\" --root \"$2\" 2>&1 && mount -o remount,ro \"$2\"\n\
        \"$1\" init --repo \"$3\" --root \"$2\" --ref main; echo \"$? $(cat \"$2/README.md\")\"";
    let Some(ran) = on_tmpfs(&article, "size=1m", script) else { return };
    assert!(ran.stdout.ends_with("\n5 testapp\n"), "{ran:?}");
    assert_snapshot!(ran.text, @r"
    podstrap: error: cannot open [TMP]/volume/.podstrap/lock
      because: Read-only file system (os error 30)
    hint: that must be on a writable volume: mount an emptyDir or a claim there, without readOnly
    ");
}

#[test]
fn a_root_that_is_full() {
    let article = Article::new();
    article.repo.git(["checkout", "-q", "-b", "big"]);
    article.repo.file("big.txt", "x".repeat(600_000)).commit("big");
    // A small release, then one for which there is no room.
    let run = |size: u32, flags: &str| {
        let script = format!(
            "\"$1\" init --repo \"$3\" --root \"$2\" --ref main 2>&1 || exit 98\n\
             \"$1\" init --repo \"$3\" --root \"$2\" {flags}; code=$?\n\
             echo; cat \"$2/README.md\"; ls \"$2/.podstrap/releases\" \"$2/.podstrap/staging\" | wc -w; exit $code"
        );
        on_tmpfs(&article, &format!("size={size}k"), &script)
    };
    let last_words = |ran: &Ran| {
        let words = &ran.text[ran.text.find("podstrap: error").unwrap_or(0)..];
        words.lines().filter(|line| !line.starts_with("  | ")).collect::<Vec<_>>().join("\n")
    };
    let Some(clone) = run(400, "--ref big --venv none") else { return };
    assert_eq!(clone.code, Some(5), "{}", clone.raw);
    assert_snapshot!(last_words(&clone), @r"
    podstrap: error: cannot write [TMP]/volume/.podstrap/staging/[RANDOM]/release/tree/big.txt
      because: No space left on device (os error 28)
    hint: the volume is full, of bytes or of files (df -h, df -i): raise the emptyDir's sizeLimit or the claim's size
    ");
    for (engine, size) in [("pip", 1_500), ("\"$5\"", 1_500)] {
        let install = run(size, &format!("--engine {engine} Flask")).unwrap();
        assert_eq!(install.code, Some(5), "{}", install.raw);
        assert!(last_words(&install).contains("hint: the volume is full"), "{}", install.raw);
    }
    // Whatever it is that finds no room: the volume's code, the old release, and nothing besides.
    let mut fitted = false;
    for size in (2_000..20_000).step_by(700) {
        let ran = run(size, "--engine pip Flask").unwrap();
        fitted = ran.code == Some(0);
        if fitted {
            break;
        }
        assert_eq!(ran.code, Some(5), "{size}k: {}", ran.raw);
        // One release, and the two names that ls puts above what it lists.
        assert!(ran.stdout.ends_with("\ntestapp\n3\n"), "{size}k: {ran:?}");
    }
    assert!(fitted, "20 MB are enough");
}

#[test]
fn time_outs_of_what_needs_no_server() {
    let article = Article::new();
    let dir = article.sandbox.path("mine");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("index.py"), "1\n").unwrap();
    let at_once = |repo: &str| {
        let mut command = article.sandbox.podstrap();
        command.args(["init", "--venv", "none", "--timeout", "1us", "--repo", repo, "--root"]);
        command.arg(article.sandbox.root());
        command
    };
    assert_snapshot!(refused(&article, &mut at_once(dir.to_str().unwrap()), 3), @r"
    podstrap: error: cannot copy [TMP]/mine
      because: not done after [TIME] (--timeout 1us)
    hint: raise --timeout, or find out what is slow with --log-level debug
    ");
    let file = format!("file://{}", article.sandbox.path("repos/testapp.git").display());
    assert_snapshot!(refused(&article, &mut at_once(&file), 3), @r"
    podstrap: error: cannot check out [COMMIT] of file://[TMP]/repos/testapp.git
      because: not done after [TIME] (--timeout 1us)
    hint: raise --timeout, or find out what is slow with --log-level debug
    ");
    // An interpreter that hangs, when it is asked for its version and when it is to make the environment.
    let script = |name: &str, text: String| {
        let path = article.sandbox.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let hangs = script("hangs", "#!/bin/sh\necho 'thinking' >&2\nexec sleep 60\n".to_owned());
    let answers = script("answers", format!("#!/bin/sh\necho 3 13\necho {}\n", hangs.display()));
    for (python, seconds) in [(hangs, "1s"), (answers, "2s")] {
        let mut command = article.init("pip");
        command.args(["--timeout", seconds, "Flask", "--python"]).arg(python);
        let text = refused(&article, &mut command, 4);
        match seconds {
            "1s" => assert_snapshot!(text, @r"
            podstrap: error: --python [TMP]/hangs is no usable interpreter
              because: cannot ask it for its version: [TMP]/hangs was ended at the deadline, after [TIME] (--timeout 1s)
            hint: run podstrap in an image that has it, best the app's own, or give --python the path of an interpreter
            "),
            _ => assert_snapshot!(text, @r"
            podstrap: error: cannot create a virtual environment with [TMP]/hangs
              because: [TMP]/hangs was ended at the deadline, after [TIME] (--timeout 2s)
              | thinking
            hint: raise --timeout, or find out what is slow with --log-level debug
            "),
        }
    }
}

#[test]
fn the_help_names_variables_and_does_not_show_what_they_hold() {
    let sandbox = Sandbox::new();
    for command in ["init", "up"] {
        let ran = sandbox
            .run(sandbox.podstrap().args([command, "--help"]).env("PODSTRAP_REPO", "https://u:s3cr3t@host/a.git"));
        assert!(ran.stdout.contains("PODSTRAP_REPO]"), "{}", ran.stdout);
        assert!(!ran.stdout.contains("s3cr3t"), "{}", ran.stdout);
    }
}

#[test]
fn a_shell_completes_flags_by_the_script() {
    let ask = r#"source <("$0" completions bash); COMP_WORDS=(podstrap init --venv-f); COMP_CWORD=2
        _podstrap podstrap --venv-f init; echo "${COMPREPLY[@]}""#;
    let output = Command::new("bash").args(["-c", ask, env!("CARGO_BIN_EXE_podstrap")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--venv-final-path", "{output:?}");
}
