//! The published part of a repository: directories, a `.git`, times, and LFS pointers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::support::git::{GitServer, Repo, git, listing};
use crate::support::sandbox::{Ran, Sandbox};

fn init(sandbox: &Sandbox, url: &str, flags: &[&str]) -> Ran {
    let mut command = sandbox.podstrap();
    command.args(["init", "--venv=none", "--timeout=20s", "--link=app", "--repo", url, "--root"]).arg(sandbox.root());
    sandbox.run(command.args(flags))
}

fn works(sandbox: &Sandbox, url: &str, flags: &[&str]) -> Ran {
    let ran = init(sandbox, url, flags);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    ran
}

fn error(sandbox: &Sandbox, url: &str, flags: &[&str]) -> String {
    let ran = init(sandbox, url, flags);
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    ran.error().to_owned()
}

fn tree(sandbox: &Sandbox) -> PathBuf {
    fs::canonicalize(sandbox.root().join("app")).unwrap()
}

/// Runs git in the published tree and returns its output.
fn asked(sandbox: &Sandbox, args: &[&str]) -> String {
    let output = git(&tree(sandbox)).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn cloned(sandbox: &Sandbox, url: &str) -> PathBuf {
    let to = sandbox.path("cloned");
    let _ = fs::remove_dir_all(&to);
    assert!(git(Path::new("/")).args(["clone", "--quiet", url]).arg(&to).status().unwrap().success());
    to
}

#[test]
fn a_part_of_a_repository_is_what_git_has_there() {
    let sandbox = Sandbox::new();
    let repo = Repo::new(&sandbox.path("git/app.git"));
    repo.file("top.py", "0").file("web/app/index.py", "1").executable("web/app/run", "#!/bin/sh\n");
    repo.link("web/app/up", "../../top.py").file("web/other.py", "2").commit("one");
    let server = GitServer::start(&sandbox.path("git"));
    works(&sandbox, &server.url("app.git"), &["--subdir=web/app/"]);
    assert_eq!(listing(&tree(&sandbox)), listing(&cloned(&sandbox, &server.url("app.git")).join("web/app")));

    // Attributes above the part apply to it.
    repo.file(".gitattributes", "*.txt text eol=crlf\n").file("web/app/a.txt", "one\ntwo\n").commit("two");
    works(&sandbox, &server.url("app.git"), &["--subdir", "web/app"]);
    assert_eq!(listing(&tree(&sandbox)), listing(&cloned(&sandbox, &server.url("app.git")).join("web/app")));
    assert_eq!(fs::read(tree(&sandbox).join("a.txt")).unwrap(), b"one\r\ntwo\r\n");

    // Another part of the same commit, then the whole.
    works(&sandbox, &server.url("app.git"), &["--subdir=web"]);
    assert!(tree(&sandbox).join("other.py").exists());
    works(&sandbox, &server.url("app.git"), &[]);
    assert!(tree(&sandbox).join("top.py").exists());
    let fails = |path: &str| error(&sandbox, &server.url("app.git"), &["--subdir", path]);
    insta::assert_snapshot!(fails("web/none"), @"
    cannot check out [COMMIT] of http://[HOST]/app.git
      because: --subdir web/none: there is no none in web
    hint: choose a directory in web: app
    ");
    insta::assert_snapshot!(fails("top.py"), @"
    cannot check out [COMMIT] of http://[HOST]/app.git
      because: --subdir top.py: top.py is a file
    ");
    insta::assert_snapshot!(fails("web/app/up"), @"
    cannot check out [COMMIT] of http://[HOST]/app.git
      because: --subdir web/app/up: web/app/up is a symbolic link
    ");
}

#[test]
fn a_git_that_is_kept_is_one_that_git_can_use() {
    let sandbox = Sandbox::new();
    let repo = Repo::new(&sandbox.path("git/app.git"));
    repo.file("a", "1").commit("one").git(["tag", "-a", "v1", "-m", "release"]);
    repo.file("a", "2").executable("run", "x").link("link", "a").commit("two");
    repo.git(["branch", "other"]);
    repo.file("a", "3").commit("three");
    let server = GitServer::start(&sandbox.path("git"));
    let url = server.url_as("me:s3cret", "app.git");
    works(&sandbox, &url, &["--keep-git"]);
    assert_eq!(asked(&sandbox, &["status", "--porcelain", "--branch"]), "## main...origin/main");
    assert_eq!(asked(&sandbox, &["log", "--format=%s"]), "three");
    assert_eq!(asked(&sandbox, &["remote", "get-url", "origin"]), server.url("app.git"));
    assert_eq!(asked(&sandbox, &["fsck", "--strict"]), "");
    assert_eq!(asked(&sandbox, &["rev-parse", "--is-shallow-repository"]), "true");
    assert!(!listing(&tree(&sandbox).join(".git")).contains("s3cret"));

    works(&sandbox, &url, &["--keep-git", "--depth=2"]);
    assert_eq!(asked(&sandbox, &["log", "--format=%s"]), "three\ntwo");
    works(&sandbox, &url, &["--keep-git", "--depth=0"]);
    assert_eq!(asked(&sandbox, &["log", "--format=%s"]), "three\ntwo\none");
    assert_eq!(asked(&sandbox, &["describe"]), format!("v1-2-g{}", &repo.rev("HEAD")[..7]));
    assert_eq!(
        asked(&sandbox, &["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main\nrefs/remotes/origin/main\nrefs/remotes/origin/other\nrefs/tags/v1"
    );
    assert_eq!(asked(&sandbox, &["fsck", "--strict"]), "");
    // git can pull from there.
    repo.file("a", "4").commit("four");
    asked(&sandbox, &["pull", "--quiet"]);
    assert_eq!(asked(&sandbox, &["log", "-1", "--format=%s"]), "four");

    works(&sandbox, &url, &["--keep-git", "--ref=v1"]);
    assert_eq!(asked(&sandbox, &["describe", "--exact-match"]), "v1");
    works(&sandbox, &url, &["--keep-git", "--ref", &repo.rev("other")]);
    assert_eq!(asked(&sandbox, &["rev-parse", "HEAD"]), repo.rev("other"));
    assert_eq!(asked(&sandbox, &["status", "--porcelain"]), "");
    let local = format!("file://{}", repo.dir.display());
    works(&sandbox, &local, &["--keep-git", "--ref=other"]);
    assert_eq!(asked(&sandbox, &["log", "--format=%s"]), "two\none");
    assert_eq!(asked(&sandbox, &["status", "--porcelain"]), "");
    // No `.git` without the flag, and none from the previous release.
    works(&sandbox, &url, &[]);
    assert!(!tree(&sandbox).join(".git").exists());
}

#[test]
fn files_have_the_commits_time_wherever_they_are_written() {
    let sandbox = Sandbox::new();
    let repo = Repo::new(&sandbox.path("git/app.git"));
    repo.file("a", "1").file("dir/b", "2").link("link", "a").file("c.txt", "one\n").commit("one");
    let server = GitServer::start(&sandbox.path("git"));
    let times = || {
        ["a", "dir/b", "link", "dir", "."].map(|name| {
            let meta = fs::symlink_metadata(tree(&sandbox).join(name)).unwrap();
            (meta.mtime(), meta.mtime_nsec())
        })
    };
    // 2024-01-02T03:04:05Z
    let commit = (1_704_164_645, 0);
    works(&sandbox, &server.url("app.git"), &[]);
    assert_eq!(times(), [commit; 5]);
    repo.file(".gitattributes", "*.txt eol=crlf\n").commit("two");
    works(&sandbox, &server.url("app.git"), &[]);
    assert_eq!(times(), [commit; 5]);
}

#[test]
fn without_git_lfs_pointers_stay_what_they_are() {
    let sandbox = Sandbox::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    for (name, attributes, is_lfs) in [
        ("plain.git", "", false),
        ("lfs.git", "*.bin filter=lfs -text\n", true),
        ("eol.git", "*.txt eol=crlf\n", false),
        ("both.git", "*.bin filter=lfs\n*.txt eol=crlf\n", true),
    ] {
        let repo = Repo::new(&sandbox.path(&format!("git/{name}")));
        repo.file(".gitattributes", attributes).file("models/a.bin", pointer).file("b.txt", "x\n").commit("one");
        let server = GitServer::start(&sandbox.path("git"));
        if is_lfs {
            let text = error(&sandbox, &server.url(name), &[]);
            assert!(text.contains("the Git LFS pointer models/a.bin is unusable"), "{text}");
            assert!(!sandbox.root().join("app").exists());
        } else {
            let ran = works(&sandbox, &server.url(name), &[]);
            let warning = "pointers without the attribute filter=lfs stay pointers: models/a.bin";
            assert!(ran.raw.contains(warning), "{}", ran.raw);
        }
        let ran = works(&sandbox, &server.url(name), &["--lfs=off"]);
        assert!(ran.raw.contains("warning: 1 file is only a Git LFS pointer: models/a.bin"), "{}", ran.raw);
        assert_eq!(fs::read_to_string(tree(&sandbox).join("models/a.bin")).unwrap(), pointer);
        fs::remove_dir_all(sandbox.root()).unwrap();
    }
}
