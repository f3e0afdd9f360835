//! The errors of `init`: an exit code for each phase, and a hint.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::support::article::Article;
use crate::support::http::Response;

#[test]
fn paths_in_the_tree_that_cannot_be_used() {
    let article = Article::new();
    article.repo.link("outside", "/etc").link("passwd.txt", "/etc/passwd").file("taken/x", "").commit("links");
    assert_snapshot!(article.refused(article.init("auto").args(["--venv", "../venv"]), 2), @r"
    podstrap: error: --venv ../venv is not inside the tree
    hint: give a path relative to the top of the repository, without ..; set the path in the app's container with --venv-final-path
    ");
    assert_snapshot!(article.refused(article.init("auto").args(["--venv", "outside/venv"]), 2), @r"
    podstrap: error: --venv outside/venv: outside is a symbolic link in the repository
    hint: give --venv a path whose parents are real directories
    ");
    assert_snapshot!(article.refused(article.init("auto").args(["--venv", "taken"]), 2), @r"
    podstrap: error: --venv taken: the repository has an entry of that name
    hint: give --venv a path that the repository does not use
    ");
    assert_snapshot!(article.refused(article.init("auto").args(["-r", "passwd.txt"]), 4), @r"
    podstrap: error: -r passwd.txt points outside the tree
      because: it is a symbolic link of the repository, or goes through one
    hint: commit the file itself, or give its absolute path
    ");
    assert_snapshot!(article.refused(article.init("auto").args(["-r", "reqs.txt"]), 4), @r"
    podstrap: error: -r reqs.txt: cannot be read in the tree
      because: No such file or directory (os error 2)
    hint: give a path relative to the repository's top; the tree has README.md, outside, passwd.txt, python, taken
    ");
    let dangling = article.repo.link("requirements.txt", "nowhere.txt").commit("dangling").rev("main");
    assert_snapshot!(article.refused(article.init("auto").args(["--ref", &dangling]), 4), @r"
    podstrap: error: -r requirements.txt: cannot be read in the tree
      because: No such file or directory (os error 2)
    hint: give a path relative to the repository's top; the tree has README.md, outside, passwd.txt, python, requirements.txt, taken
    ");
    assert_snapshot!(article.refused(article.init("auto").args(["-r", "/no/such.txt"]), 4), @r"
    podstrap: error: cannot read the requirements file /no/such.txt
      because: No such file or directory (os error 2)
    hint: check that the volume or ConfigMap with this absolute path is mounted in this container
    ");
}

#[test]
fn failures_of_each_phase_have_their_code() {
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    assert_snapshot!(article.refused(article.init("auto").args(["--ref", "nope"]), 3), @r"
    podstrap: error: http://[HOST]/testapp.git has no branch or tag nope
    hint: choose one of: main
    ");
    let pathless = article.sandbox.path("bin");
    assert_snapshot!(article.refused(article.init("pip").args(["--python", "3.99", "Flask"]).env("PATH", pathless), 4), @r"
    podstrap: error: found no Python 3.99
      because: looked for python3.99, python3, python in PATH ([TMP]/bin)
    hint: run podstrap in an image with this Python, ideally the app's own, or give an interpreter's path with --python
    ");
    assert_snapshot!(article.refused(article.init("uv").arg("no-such-package-at-all"), 4), @r"
    podstrap: error: cannot find no-such-package-at-all in the package index
      | error: No solution found when resolving dependencies
      |   cause: Because no-such-package-at-all was not found in the package registry and you require no-such-package-at-all, we can conclude that your requirements are unsatisfiable.
    hint: check the name, and for a private index set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL
    ");
    assert_snapshot!(article.refused(article.init("auto").args(["--timeout", "soon"]), 2), @r"
    error: invalid value 'soon' for '--timeout <DURATION>': expected number at 0

    For more information, try '--help'.
    ");
    let held = fs::File::options().write(true).open(article.root(".podstrap/lock")).unwrap();
    held.lock().unwrap();
    assert_snapshot!(article.refused(article.init("auto").args(["--timeout", "200ms"]), 5), @r"
    podstrap: error: [TMP]/volume/.podstrap/lock stayed locked
      because: waited [TIME] (--timeout 200ms) for another podstrap to finish
    hint: raise --timeout, or read the other init's log to see why it takes so long
    ");
    drop(held);
    article.git.always(Response::new(403, "you may not\n"));
    assert_snapshot!(article.refused(&mut article.init("auto"), 3), @r"
    podstrap: error: cannot list the references of http://[HOST]/testapp.git
      because: http://[HOST]/testapp.git answers 403 Forbidden
      | you may not
    hint: if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    ");
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
    assert_snapshot!(article.refused(&mut at_once(dir.to_str().unwrap()), 3), @r"
    podstrap: error: cannot copy [TMP]/mine
      because: not done after [TIME] (--timeout 1us)
    hint: raise --timeout, or find the slow step with --log-level debug
    ");
    let file = format!("file://{}", article.sandbox.path("repos/testapp.git").display());
    assert_snapshot!(article.refused(&mut at_once(&file), 3), @r"
    podstrap: error: cannot check out [COMMIT] of file://[TMP]/repos/testapp.git
      because: not done after [TIME] (--timeout 1us)
    hint: raise --timeout, or find the slow step with --log-level debug
    ");
    // An interpreter that hangs when podstrap asks for its version, and when it creates the environment.
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
        let text = article.refused(&mut command, 4);
        match seconds {
            "1s" => assert_snapshot!(text, @r"
            podstrap: error: --python [TMP]/hangs is not a usable interpreter
              because: cannot get its version: [TMP]/hangs was killed at the deadline, after [TIME] (--timeout 1s)
            hint: run podstrap in an image with this Python, ideally the app's own, or give an interpreter's path with --python
            "),
            _ => assert_snapshot!(text, @r"
            podstrap: error: cannot create a virtual environment with [TMP]/hangs
              because: [TMP]/hangs was killed at the deadline, after [TIME] (--timeout 2s)
              | thinking
            hint: raise --timeout, or find the slow step with --log-level debug
            "),
        }
    }
}
