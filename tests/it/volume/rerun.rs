//! The second run and later ones: what podstrap keeps, what it rebuilds, and what happens when a remote is
//! unreachable.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::support::article::Article;
use crate::support::git::listing;
use crate::support::http::Response;

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
    assert_eq!(article.git.seen().len(), asked + 1, "a branch needs one request");
    assert_eq!(article.index.requests(), requests);
    assert_eq!(article.releases(), first);
    assert_eq!(fs::metadata(article.root("README.md")).unwrap().ino(), inode);

    // For a full SHA that is already published, podstrap sends no request.
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

    // Back to the previous commit, by its SHA.
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
    assert!(!seen.contains(&article.releases()[0]), "--refresh built no new release");
}

#[test]
fn what_a_killed_run_did_not_prune_goes_with_the_next() {
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    // As after a kill right after the switch.
    let [release] = &article.releases()[..] else { panic!() };
    let old = release.with_file_name("replaced");
    fs::create_dir_all(old.join("tree")).unwrap();
    assert!(article.ok(&mut article.init("auto")).raw.contains("unchanged:"));
    assert!(!old.exists() && release.exists());
}

#[test]
fn what_somebody_has_cleaned_up_is_built_anew() {
    let article = Article::new();
    let sha = article.repo.rev("main");
    let init = || article.ok(article.init("uv").args(["--ref", &sha, "click==8.1.8"])).raw;
    init();
    for gone in ["venv", "", ".."] {
        let [release] = &article.releases()[..] else { panic!("{:?}", article.releases()) };
        fs::remove_dir_all(release.join("tree").join(gone)).unwrap();
        assert!(init().contains("built "), "{gone:?}");
        assert!(article.root("venv/bin/python").exists() && article.root("README.md").exists(), "{gone:?}");
        assert!(init().contains("unchanged:"), "{gone:?}");
    }
}

/// Every entry of the volume with its modification and change times.
fn times(dir: &Path) -> Vec<(String, i64, i64)> {
    let mut open = vec![dir.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push((path.display().to_string(), meta.ctime(), meta.ctime_nsec()));
    }
    all.sort();
    all
}

#[test]
fn a_rerun_of_a_commit_asks_nobody_and_writes_nothing() {
    for link in [None, Some("app")] {
        let article = Article::new();
        let sha = article.repo.rev("main");
        let init = || {
            let mut command = article.init("uv");
            command.args(["--ref", &sha]).args(link.map(|name| format!("--link={name}"))).arg("Flask");
            command
        };
        article.ok(&mut init());
        let (asked, requests, before) = (article.git.seen(), article.index.requests(), times(&article.sandbox.root()));
        std::thread::sleep(Duration::from_millis(20));
        let ran = article.ok(&mut init());
        assert!(ran.raw.contains("unchanged:"), "{}", ran.raw);
        assert_eq!((article.git.seen(), article.index.requests()), (asked, requests));
        assert_eq!(times(&article.sandbox.root()), before);
    }
}

#[test]
fn a_changed_commit_keeps_the_environment() {
    for engine in ["uv", "pip"] {
        let article = Article::new();
        article.repo.file("requirements.txt", "-r deps/base.txt\n").file("deps/base.txt", "Flask\n").commit("deps");
        article.ok(&mut article.init(engine));
        let script = article.root("venv/bin/flask");
        let (inode, requests) = (fs::metadata(&script).unwrap().ino(), article.index.requests());
        let before = listing(&article.root("venv").canonicalize().unwrap());
        let built = article.manifest()["environment"].clone();

        article.repo.file("README.md", "changed\n").commit("second");
        let ran = article.ok(&mut article.init(engine));
        assert!(ran.raw.contains(", reused") && !ran.raw.contains("podstrap: install "), "{}", ran.raw);
        assert_eq!(fs::read_to_string(article.root("README.md")).unwrap(), "changed\n");
        assert_eq!(article.index.requests(), requests, "a request reached the index");
        assert_eq!(fs::metadata(&script).unwrap().ino(), inode, "copied, not linked");
        assert_eq!(listing(&article.root("venv").canonicalize().unwrap()), before);
        assert_eq!(article.manifest()["environment"], built);
        assert_eq!(article.releases().len(), 1);

        // Requirements on the command line need no tree and take another code path.
        let flask = |engine: &str| {
            let mut command = article.init(engine);
            command.args(["--venv", "env", "Flask"]);
            command
        };
        article.ok(&mut flask(engine));
        let requests = article.index.requests();
        article.repo.file("README.md", "once more\n").commit("third");
        article.ok(&mut flask(engine));
        assert_eq!(article.index.requests(), requests);
        assert!(article.root("env/bin/flask").exists());
    }
}

#[test]
fn bytecode_of_unchanged_files_is_taken_from_the_release_before() {
    let counts = regex::Regex::new(r"bytecode of (\d+) files(?:, (\d+) of them)?").unwrap();
    for engine in ["uv", "pip"] {
        let article = Article::new();
        let init = |packages: &[&str], more: &[&str]| {
            let mut command = article.init(engine);
            article.ok(command.args(["--log-level", "debug"]).args(more).args(packages)).raw
        };
        let taken = |raw: &str| {
            let found = counts.captures(raw).unwrap_or_else(|| panic!("{raw}"));
            let count = |at| found.get(at).map_or(0, |text| text.as_str().parse::<usize>().unwrap());
            (count(1), count(2))
        };
        let bytecode = || {
            let site =
                article.root("venv/lib").read_dir().unwrap().next().unwrap().unwrap().path().join("site-packages");
            let mut files: Vec<_> =
                fs::read_dir(site.join("click/__pycache__")).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            files
        };
        let (all, none) = taken(&init(&["click==8.1.8"], &[]));
        assert!(all > 10 && none == 0, "{engine}: {all} {none}");
        let before: Vec<_> = bytecode().iter().map(|file| fs::read(file).unwrap()).collect();
        let (more, kept) = taken(&init(&["click==8.1.8", "docopt"], &[]));
        assert!(more > all && kept == all, "{engine}: {more} {kept} {all}");
        assert_eq!(bytecode().iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>(), before);
        // Other contents, a changed environment, and another path.
        assert!(taken(&init(&["Flask"], &[])).1 > 10, "click is a part of Flask");
        fs::write(&bytecode()[0], "x").unwrap();
        assert_eq!(taken(&init(&["click==8.1.8"], &[])).1, 0, "somebody has changed the environment");
        assert_eq!(taken(&init(&["click==8.1.8", "docopt"], &["--venv-final-path", "/other/venv"])).1, 0);
    }
}

#[test]
fn changed_requirements_are_another_environment_wherever_they_are_written() {
    let article = Article::new();
    article
        .repo
        .file("requirements.txt", "-r deps/base.txt\n./lib\n")
        .file("deps/base.txt", "click\n-c pins.txt\n")
        .file("deps/pins.txt", "click==8.1.8\n")
        .file(
            "lib/pyproject.toml",
            "[build-system]\nrequires = ['setuptools']\n[project]\nname = 'lib'\nversion = '1'\n",
        )
        .file("lib/lib.py", "answer = 1\n")
        .commit("first");
    article.ok(&mut article.init("uv"));
    let mut key = article.manifest()["environment"]["key"].clone();
    for (file, text) in [
        ("deps/pins.txt", "click==8.1.7\n"),
        ("deps/base.txt", "click\nblinker\n-c pins.txt\n"),
        ("lib/lib.py", "answer = 2\n"),
    ] {
        article.repo.file(file, text).commit(file);
        article.ok(&mut article.init("uv"));
        let new = article.manifest()["environment"]["key"].clone();
        assert_ne!(key, new, "{file}");
        key = new;
    }
    let output = std::process::Command::new(article.root("venv/bin/python"))
        .args(["-c", "import lib, blinker, importlib.metadata as m; print(lib.answer, m.version('click'))"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 8.1.7\n", "{output:?}");
    article.ok(&mut article.init("pip"));
    assert_ne!(key, article.manifest()["environment"]["key"], "another engine");
}

/// The commit is the same, but a `ConfigMap` or a variable that its requirements refer to has changed.
#[test]
fn what_requirements_in_the_tree_name_elsewhere_counts_for_every_rerun() {
    for engine in ["uv", "pip"] {
        let article = Article::new();
        let pins = |name: &str, text: &str| {
            let path = article.sandbox.path(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, two) = (pins("one.txt", "click==8.1.8\n"), pins("two.txt", "click==8.1.7\n"));
        article.repo.file("requirements.txt", "click\n-c ${PINS}\n").commit("deps");
        let sha = article.repo.rev("main");
        let init = |pins: &Path| article.ok(article.init(engine).args(["--ref", &sha]).env("PINS", pins)).raw;
        let click = || article.manifest()["environment"]["packages"][0]["version"].clone();
        init(&one);
        assert_eq!(click(), "8.1.8");
        assert!(init(&one).contains("unchanged:"));

        assert!(init(&two).contains("built "), "another variable");
        assert_eq!(click(), "8.1.7");
        pins("two.txt", "click<9\n");
        let (changed, again) = (init(&two), init(&two));
        assert!(changed.contains("built ") && again.contains("unchanged:"), "{changed}\n{again}");
        assert_eq!(click(), "8.1.8");
    }
}

#[test]
fn a_variable_in_a_requirements_file_counts_though_the_commit_is_the_same() {
    let article = Article::new();
    article.repo.file("requirements.txt", "click==${CLICK}\n").commit("deps");
    let sha = article.repo.rev("main");
    let click = |version: &str| {
        // uv expands variables only in URLs and paths.
        let ran = article.ok(article.init("pip").args(["--ref", &sha]).env("CLICK", version));
        (article.manifest()["environment"]["packages"][0]["version"].clone(), ran.raw.contains("unchanged:"))
    };
    assert_eq!(click("8.1.7"), ("8.1.7".into(), false));
    assert_eq!(click("8.1.8"), ("8.1.8".into(), false));
    assert_eq!(click("8.1.8"), ("8.1.8".into(), true));
}

#[test]
fn a_root_in_a_published_release_is_refused() {
    let article = Article::new();
    article.ok(&mut article.init("uv"));
    let before = listing(&article.sandbox.root());
    // As a user may name it: through the entry's link.
    let mut command = article.sandbox.podstrap();
    command.args(["init", "--repo", &article.git.url("testapp.git"), "--root"]).arg(article.root("python"));
    let ran = article.run(&mut command);
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("is inside a tree that podstrap published"), "{}", ran.raw);
    assert_eq!(listing(&article.sandbox.root()), before);
}

#[test]
fn an_environment_that_an_app_has_changed_is_not_kept() {
    let article = Article::new();
    article.repo.file("requirements.txt", "Flask\n").commit("deps");
    article.ok(&mut article.init("uv"));
    std::thread::sleep(Duration::from_millis(20));
    let flask = fs::read_dir(article.root("venv/lib")).unwrap().next().unwrap().unwrap().path();
    fs::write(flask.join("site-packages/flask/evil.py"), "").unwrap();
    article.repo.file("README.md", "changed\n").commit("second");
    let ran = article.ok(&mut article.init("uv"));
    assert!(ran.raw.contains("has changed since its build: rebuilding"), "{}", ran.raw);
    assert!(!flask.join("site-packages/flask/evil.py").exists());
}

#[test]
fn what_was_lost_from_a_release_is_built_anew() {
    let article = Article::new();
    article.repo.file("requirements.txt", "click==8.1.8\n").commit("deps");
    article.ok(&mut article.init("uv"));
    let whole = listing(&article.root("python").canonicalize().unwrap());
    let lib = fs::read_dir(article.root("venv/lib")).unwrap().next().unwrap().unwrap().path();
    for lost in [lib.join("site-packages/click/core.py"), article.root("python/flask/index.py")] {
        fs::remove_file(&lost).unwrap();
        let ran = article.ok(&mut article.init("uv"));
        assert!(ran.raw.contains("is missing from the release: rebuilding"), "{}", ran.raw);
        assert!(lost.exists(), "{}", lost.display());
        assert_eq!(listing(&article.root("python").canonicalize().unwrap()), whole);
        assert_eq!(article.releases().len(), 1);
    }
    // An app may add or change files.
    fs::write(article.root("python/app.db"), "data").unwrap();
    assert!(article.ok(&mut article.init("uv")).raw.contains("unchanged:"));
    assert_eq!(fs::read_to_string(article.root("python/app.db")).unwrap(), "data");
}

#[test]
fn a_dead_remote_leaves_what_is_published_if_that_is_wanted() {
    let article = Article::new();
    article.repo.file("requirements.txt", "click==8.1.8\n").commit("deps");
    article.ok(&mut article.init("uv"));
    let before = listing(&article.sandbox.root());
    let stale = || {
        let mut command = article.init("uv");
        command.args(["--stale-ok", "--timeout", "8s"]);
        command
    };

    // The index is down, and the new commit needs a package from it.
    article.repo.file("requirements.txt", "click==8.1.7\n").commit("newer");
    let ran = article.ok(stale().env("PIP_INDEX_URL", "http://127.0.0.1:9/simple/"));
    assert!(
        ran.raw.contains("warning: NOT UP TO DATE, as --stale-ok allows: ") && ran.raw.contains("kept "),
        "{}",
        ran.raw
    );
    assert!(article.last_words().starts_with("NOT UP TO DATE"), "{}", article.last_words());
    assert_eq!(listing(&article.sandbox.root()), before);

    // Then the repository fails as well: 503, refused, and silent.
    article.git.always(Response::new(503, "closed for today"));
    let ran = article.ok(&mut stale());
    assert!(ran.raw.contains("answers 503") && ran.raw.contains("kept "), "{}", ran.raw);
    assert_eq!(listing(&article.sandbox.root()), before);

    // Without the flag it is an error; so it is for another repository or another location.
    assert_eq!(article.run(article.init("uv").args(["--timeout", "2s"])).code, Some(3));
    for flags in [&["--venv-final-path", "/elsewhere"][..], &["--link", "app"]] {
        let ran = article.run(stale().args(flags));
        assert_eq!(ran.code, Some(3), "{}", ran.raw);
        assert!(ran.raw.contains("--stale-ok found no complete release"), "{}", ran.raw);
    }
    assert_eq!(listing(&article.sandbox.root()), before);
}

#[test]
fn what_is_wrong_for_good_is_an_error_even_if_stale_is_fine() {
    let article = Article::new();
    article.repo.file("requirements.txt", "click==8.1.8\n").commit("deps");
    article.ok(&mut article.init("uv"));
    let stale = || {
        let mut command = article.init("uv");
        command.arg("--stale-ok");
        command
    };
    assert_eq!(article.run(stale().args(["--ref", "nobody-has-it"])).code, Some(3));
    article.repo.file("requirements.txt", "click==99\n").commit("no such version");
    assert_eq!(article.run(&mut stale()).code, Some(4));
    article.git.require("Basic nobody");
    let ran = article.run(&mut stale());
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    assert!(ran.raw.contains("401"), "{}", ran.raw);
}

#[test]
fn the_peak_is_told_and_limited() {
    let article = Article::new();
    article.repo.file("large.bin", vec![7; 3 << 20]).commit("large");
    let ran = article.ok(&mut article.init("uv"));
    assert!(ran.raw.contains(" on the volume, ") && ran.raw.contains(" at its peak"), "{}", ran.raw);
    assert!(article.last_words().contains(" at its peak"), "{}", article.last_words());

    // The limit has no room for both releases.
    article.repo.file("README.md", "changed\n").commit("second");
    let before = listing(&article.sandbox.root());
    let ran = article.run(article.init("uv").args(["--size-limit", "5Mi"]));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("--size-limit is 5.3 MB") && ran.raw.contains("hint: raise --size-limit"), "{}", ran.raw);
    assert_eq!(listing(&article.sandbox.root()), before);
    article.ok(article.init("uv").args(["--size-limit", "20Mi"]));
}

#[test]
fn a_limit_ends_an_installation_that_outgrows_it() {
    let article = Article::new();
    let ran = article.run(article.init("pip").args(["--size-limit", "2Mi", "Flask"]));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("exceeds the size limit"), "{}", ran.raw);
    assert!(fs::read_dir(article.root(".podstrap/staging")).unwrap().next().is_none());
}

#[test]
fn links_and_entries_do_not_take_each_others_names() {
    let article = Article::new();
    article.repo.file("app/index.py", "").commit("an entry called app");
    article.ok(&mut article.init("uv"));
    let before = listing(&article.sandbox.root());
    let ran = article.run(article.init("uv").args(["--link", "app"]));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("the tree that is published without --link"), "{}", ran.raw);
    assert_eq!(listing(&article.sandbox.root()), before);

    let article = Article::new();
    article.repo.file("app/index.py", "").commit("an entry called app");
    article.ok(article.init("uv").args(["--link", "app"]));
    let before = listing(&article.sandbox.root());
    let ran = article.run(&mut article.init("uv"));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("a tree that is published with --link"), "{}", ran.raw);
    assert_eq!(listing(&article.sandbox.root()), before);
}
