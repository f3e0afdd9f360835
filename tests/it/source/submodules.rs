//! Submodules: the same result as `git clone --recurse-submodules`, and no more.

use std::fs;
use std::path::Path;

use crate::support::git::{GitServer, Repo, git, listing};
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::table::row;

/// Adds `url` at `path` as a submodule at the current commit of the repository `at`.
fn add(repo: &Repo, path: &str, url: &str, at: &Repo) {
    let name = format!("submodule.{path}");
    repo.git(["config", "-f", ".gitmodules", &format!("{name}.path"), path]);
    repo.git(["config", "-f", ".gitmodules", &format!("{name}.url"), url]);
    repo.git(["add", ".gitmodules"]);
    repo.git(["update-index", "--add", "--cacheinfo", &format!("160000,{},{path}", at.rev("HEAD"))]);
    repo.git(["commit", "--quiet", "-m", path]);
}

/// A repository with one commit and one file.
fn repo(sandbox: &Sandbox, name: &str, file: &str) -> Repo {
    let repo = Repo::new(&sandbox.path("git").join(name));
    repo.file(file, "1").commit("one");
    repo
}

/// `app.git` contains `libs/lib`, which contains `deep`. Their branches are ahead of the named commits.
fn nested(sandbox: &Sandbox) -> Repo {
    let deep = Repo::new(&sandbox.path("git/deep.git"));
    deep.file("deep.py", "deep").executable("run", "#!/bin/sh\n").commit("one");
    let lib = Repo::new(&sandbox.path("git/group/lib.git"));
    lib.file("lib.py", "lib").link("link", "lib.py").commit("one");
    add(&lib, "deep", "../../deep.git", &deep);
    let app = Repo::new(&sandbox.path("git/app.git"));
    app.file("index.py", "1").file("libs/own.py", "2").commit("one");
    add(&app, "libs/lib", "../group/lib.git", &lib);
    // The branches advance, so the named commits are no tips any more.
    deep.file("deep.py", "later").commit("two");
    lib.file("lib.py", "later").commit("two");
    app
}

fn init(sandbox: &Sandbox, url: &str, flags: &[&str]) -> Ran {
    let mut command = sandbox.podstrap();
    command.args(["init", "--venv=none", "--timeout=20s", "--link=app", "--repo", url, "--root"]).arg(sandbox.root());
    sandbox.run(command.args(flags))
}

fn error(sandbox: &Sandbox, url: &str, flags: &[&str]) -> String {
    let ran = init(sandbox, url, flags);
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    ran.error().to_owned()
}

fn published(sandbox: &Sandbox) -> String {
    listing(&fs::canonicalize(sandbox.root().join("app")).unwrap())
}

/// Lists git's own checkout.
fn cloned(sandbox: &Sandbox, url: &str, flags: &[&str]) -> String {
    let to = sandbox.path("cloned");
    let _ = fs::remove_dir_all(&to);
    let output = git(Path::new("/"))
        .args(["-c", "protocol.file.allow=always", "-c", "core.autocrlf=false", "clone", "--quiet"])
        .args(flags)
        .arg(url)
        .arg(&to)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // In git's checkout, a submodule's .git is a file.
    let is_git = |line: &&str| !line.contains(".git\" 644 \"gitdir:");
    listing(&to).lines().filter(is_git).collect::<Vec<_>>().join("\n")
}

#[test]
fn submodules_are_what_git_makes_of_them() {
    let sandbox = Sandbox::new();
    nested(&sandbox);
    let server = GitServer::start(&sandbox.path("git"));
    for (flag, ours) in [
        ("--submodules=recursive", &["--recurse-submodules"][..]),
        ("--depth=0", &["--recurse-submodules"]),
        ("--submodules=off", &[]),
    ] {
        let ran = init(&sandbox, &server.url("app.git"), &[flag]);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert_eq!(published(&sandbox), cloned(&sandbox, &server.url("app.git"), ours), "{flag}");
    }
    assert_eq!(init(&sandbox, &server.url("app.git"), &["--submodules=shallow"]).code, Some(0));
    let shown = published(&sandbox);
    assert!(shown.contains("\"libs/lib/lib.py\" 644 \"lib\"") && !shown.contains("deep.py"), "{shown}");
    // A part of the tree that contains submodules.
    let ran = init(&sandbox, &server.url("app.git"), &["--subdir=libs"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let shown = published(&sandbox);
    assert!(shown.contains("\"lib/deep/deep.py\" 644 \"deep\"") && shown.contains("\"own.py\""), "{shown}");
    // From this machine.
    let url = format!("file://{}", sandbox.path("git/app.git").display());
    assert_eq!(init(&sandbox, &url, &[]).code, Some(0));
    assert_eq!(published(&sandbox), cloned(&sandbox, &url, &["--recurse-submodules"]));
}

#[test]
fn a_server_that_gives_no_single_commits_does_not_matter() {
    let sandbox = Sandbox::new();
    nested(&sandbox);
    let server = GitServer::start(&sandbox.path("git"));
    for repo in ["deep.git", "group/lib.git"] {
        let git = sandbox.path("git").join(repo);
        for allow in ["allowTipSHA1InWant", "allowReachableSHA1InWant", "allowAnySHA1InWant"] {
            Repo { dir: git.clone() }.git(["config", &format!("uploadpack.{allow}"), "false"]);
        }
    }
    let ran = init(&sandbox, &server.url("app.git"), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(published(&sandbox), cloned(&sandbox, &server.url("app.git"), &["--recurse-submodules"]));
}

#[test]
fn credentials_are_by_host() {
    let sandbox = Sandbox::new();
    let lib = repo(&sandbox, "lib.git", "lib.py");
    let here = GitServer::start(&sandbox.path("git"));
    // Another port of the same host is another place; a netrc distinguishes only hosts.
    let there = GitServer::start(&sandbox.path("git"));
    let app = repo(&sandbox, "app.git", "index.py");
    add(&app, "near", "../lib.git", &lib);
    add(&app, "far", &there.url("lib.git"), &lib);
    let token = sandbox.write("token", "s3cret");
    let auth = format!("--auth={}", token.display());
    let ran = init(&sandbox, &here.url("app.git"), &[&auth]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(here.authorizations().iter().all(|sent| sent.as_deref() == Some("Bearer s3cret")));
    assert!(there.authorizations().iter().all(Option::is_none), "{:?}", there.authorizations());
    let netrc = sandbox.write("netrc", "machine 127.0.0.1 login me password s3cret");
    let ran = init(&sandbox, &here.url("app.git"), &[&format!("--auth={}", netrc.display()), "--refresh"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(there.authorizations().last().unwrap().as_deref(), Some("Basic bWU6czNjcmV0"));
    // Credentials in the repository's URL are also only for its own server.
    assert_eq!(init(&sandbox, &here.url_as("me:s3cret", "app.git"), &["--depth=2", "--refresh"]).code, Some(0));
    assert_eq!(here.authorizations().last().unwrap().as_deref(), Some("Basic bWU6czNjcmV0"));
    assert_eq!(there.authorizations().last().unwrap().as_deref(), None);
}

#[test]
fn submodules_that_cannot_be_had_say_why() {
    let sandbox = Sandbox::new();
    let lib = repo(&sandbox, "lib.git", "lib.py");
    let other = repo(&sandbox, "other.git", "other.py");
    let server = GitServer::start(&sandbox.path("git"));
    let file = format!("file://{}", sandbox.path("git/lib.git").display());
    let rows = [
        ("a repository that is gone", "gone.git", "../none.git", &lib),
        ("a program", "program.git", "ext::sh -c id% >/tmp/x", &lib),
        ("a repository on this machine", "local.git", &file, &lib),
        ("an option", "option.git", "--upload-pack=id", &lib),
        ("another commit", "lost.git", "../lib.git", &other),
    ];
    let told = rows.map(|(name, app, url, at)| {
        row(name, || {
            add(&repo(&sandbox, app, "index.py"), "lib", url, at);
            error(&sandbox, &server.url(app), &[])
        })
    });
    insta::assert_snapshot!(told.concat(), @r#"
    -- a repository that is gone
    submodule lib: cannot list the references of http://[HOST]/none.git
      because: http://[HOST]/none.git answers 404 Not Found
    hint: check the path in the URL; if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    hint: use --submodules off to leave the directories of submodules empty
    -- a program
    submodule lib: .gitmodules names "ext::sh -c id% >/tmp/x"
      because: it is not the URL of a server
    hint: use a URL with https://, http:// or ssh://, or one relative to the repository's own (../other.git)
    hint: use --submodules off to leave the directories of submodules empty
    -- a repository on this machine
    submodule lib: .gitmodules names "file://[TMP]/git/lib.git"
      because: it is not the URL of a server
    hint: use a URL with https://, http:// or ssh://, or one relative to the repository's own (../other.git)
    hint: use --submodules off to leave the directories of submodules empty
    -- an option
    submodule lib: .gitmodules names "--upload-pack=id"
      because: it is not the URL of a server
    hint: use a URL with https://, http:// or ssh://, or one relative to the repository's own (../other.git)
    hint: use --submodules off to leave the directories of submodules empty
    -- another commit
    submodule lib: http://[HOST]/lib.git has no commit [COMMIT]
    hint: push the commit to a branch or a tag: most servers send only the commits of branches and tags
    hint: use --submodules off to leave the directories of submodules empty
    "#);

    // Without a URL in .gitmodules the submodule stays empty, as with git.
    let app = repo(&sandbox, "stray.git", "index.py");
    app.git(["update-index", "--add", "--cacheinfo", &format!("160000,{},stray", lib.rev("HEAD"))]);
    app.git(["commit", "--quiet", "-m", "two"]);
    let ran = init(&sandbox, &server.url("stray.git"), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(
        ran.raw.contains("leaving the submodule's directory empty, because .gitmodules has no usable entry: stray"),
        "{}",
        ran.raw
    );
}

#[test]
fn a_repository_that_contains_itself_ends() {
    let sandbox = Sandbox::new();
    let app = repo(&sandbox, "app.git", "index.py");
    for _ in 0..20 {
        add(&app, "self", "../app.git", &app);
    }
    let server = GitServer::start(&sandbox.path("git"));
    let text = error(&sandbox, &server.url("app.git"), &[]);
    assert!(text.contains("are nested more than 16 levels deep") && text.contains("--submodules shallow"), "{text}");
    assert_eq!(init(&sandbox, &server.url("app.git"), &["--submodules=shallow"]).code, Some(0));
}
