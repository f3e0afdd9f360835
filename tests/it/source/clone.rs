//! A clone equals git's checkout, for every reference, transport and writer.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use podstrap::plan::Origin;
use podstrap::retry::Deadline;
use podstrap::source::{Contents, Revision};
use podstrap::telemetry::{LogFormat, LogLevel};

use crate::support::git::{GitServer, Repo, git, listing};
use crate::support::http::Response;
use crate::support::source::{LIMIT, cli, clone, fails, get_within, git_source, resolve, run, varied, words};

#[test]
fn a_clone_is_what_git_checks_out() {
    let dir = tempfile::tempdir().unwrap();
    let repo = varied(&dir.path().join("app.git"));
    for i in 0..1200 {
        repo.file(format!("many/{}/{i}.txt", i % 37), format!("file {i}\n"));
    }
    repo.commit("one");
    let server = GitServer::start(dir.path());
    let got = clone(&server.url("app.git"), None).unwrap();
    assert_eq!(got.files(), cli(&server.url("app.git"), "main"));
    assert_eq!(got.revision, Revision { commit: repo.rev("HEAD"), reference: Some("refs/heads/main".into()) });
    assert_eq!(got.checkout.files, 1211);
    assert!(!got.tree().join(".git").exists());
    // One for the reference, one for the pack.
    assert_eq!(server.seen()[..2], ["POST /app.git/git-upload-pack"; 2]);
}

#[test]
fn a_shallow_clone_is_two_requests_and_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a", "1").commit("one").file("a", "2").commit("two").file("a", "3").commit("three");
    for (depth, commits) in [(1, 1), (2, 2), (0, 3)] {
        let server = GitServer::start(dir.path());
        let mut source = git_source(&server.url("app.git"), None, depth);
        let Origin::Git(git_source) = &mut source.origin else { unreachable!() };
        git_source.keep_git = true;
        let got = get_within(&source, Duration::from_mins(1)).unwrap();
        assert_eq!(server.seen(), ["GET /app.git/info/refs", "POST /app.git/git-upload-pack"], "depth {depth}");
        let all = ["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"];
        let objects = git(&got.tree()).args(all).output().unwrap().stdout;
        let objects = String::from_utf8(objects).unwrap();
        assert_eq!(objects.lines().filter(|kind| *kind == "commit").count(), commits, "depth {depth}");
    }
}

/// Azure DevOps refuses other requests (TF401041).
#[test]
fn a_server_that_wants_multi_ack_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let server = GitServer::start(dir.path());
    server.instead(|request| {
        let refused = request.method == "POST" && !String::from_utf8_lossy(&request.body).contains("multi_ack");
        refused.then(|| Response::new(400, "TF401041: The Git protocol sent is not as expected"))
    });
    assert_eq!(clone(&server.url("app.git"), None).unwrap().checkout.files, 1);
}

/// Git takes these commits, and so must podstrap.
#[test]
fn a_committer_without_a_time_is_no_reason_to_refuse_a_commit() {
    for committer in ["A <a@b> 1700000000", "A <a@b>", "A <a@b>  17 +0000", "A 5 <a@b> 17 -07:00 x"] {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::new(&dir.path().join("app.git"));
        repo.file("a", "1").commit("one");
        let tree = repo.git(["rev-parse", "HEAD^{tree}"]);
        let commit = format!("tree {tree}\nauthor {committer}\ncommitter {committer}\n\nx\n");
        std::fs::write(dir.path().join("commit"), commit).unwrap();
        let file = dir.path().join("commit");
        let id = repo.git(["hash-object", "-t", "commit", "-w", "--literally", &file.display().to_string()]);
        repo.git(["update-ref", "refs/heads/odd", &id]);
        let server = GitServer::start(dir.path());
        let got = clone(&server.url("app.git"), Some("odd")).unwrap();
        assert_eq!(got.checkout.files, 1, "{committer}");
    }
}

#[test]
fn line_endings_are_converted_as_the_attributes_say() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file(".gitattributes", "*.bat text eol=crlf\n*.sh text eol=lf\n-first text eol=crlf\n* text=auto\n")
        .file("-first", "before .gitattributes\n")
        .file("sub/.gitattributes", "*.txt text eol=crlf\n")
        .file("sub/a.txt", "one\ntwo\n")
        .file("a.txt", "one\ntwo\n")
        .file("a.bat", "one\r\ntwo\r\n")
        .file("a.sh", "one\ntwo\n")
        .executable("run.bat", "one\ntwo\n")
        .commit("one");
    let server = GitServer::start(dir.path());
    let got = clone(&server.url("app.git"), None).unwrap();
    assert_eq!(got.files(), cli(&server.url("app.git"), "main"));
    assert!(got.files().contains(r#""sub/a.txt" 644 "one\r\ntwo\r\n""#), "{}", got.files());
}

#[test]
fn every_way_to_name_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a", "1").commit("one");
    repo.git(["tag", "light"]);
    repo.git(["tag", "-a", "-m", "annotated", "v1"]);
    repo.git(["tag", "-a", "-m", "a tag of a tag", "v1-again", "v1"]);
    let first = repo.rev("HEAD");
    repo.file("a", "2").commit("two");
    let middle = repo.rev("HEAD");
    repo.file("a", "3").commit("three");
    repo.git(["checkout", "--quiet", "-b", "feature/x"]);
    repo.file("a", "x").commit("x");
    repo.git(["branch", "--quiet", "-m", "main", "trünk"]);
    repo.git(["checkout", "--quiet", "trünk"]);
    let head = repo.rev("HEAD");
    let server = GitServer::start(dir.path());
    let file = format!("file://{}", dir.path().join("app.git").display());
    for url in [server.url("app.git"), file] {
        for (name, commit, full) in [
            (None, &head, Some("refs/heads/trünk")),
            (Some("feature/x"), &repo.rev("feature/x"), Some("refs/heads/feature/x")),
            (Some("light"), &first, Some("refs/tags/light")),
            (Some("v1"), &first, Some("refs/tags/v1")),
            (Some("refs/tags/v1-again"), &first, Some("refs/tags/v1-again")),
            (Some("refs/heads/trünk"), &head, Some("refs/heads/trünk")),
            (Some(head.as_str()), &head, None),
            (Some(first.as_str()), &first, None),
            (Some(middle.as_str()), &middle, None),
        ] {
            let got = clone(&url, name).unwrap();
            assert_eq!(got.revision, Revision { commit: commit.clone(), reference: full.map(str::to_owned) });
            assert_eq!(got.files(), cli(&url, commit), "{url} {name:?}");
        }
    }
}

#[test]
fn a_commit_that_is_no_tip_is_asked_for_and_otherwise_looked_up_in_everything() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a", "1").commit("one");
    let first = repo.rev("HEAD");
    repo.file("a", "2").commit("two");
    let server = GitServer::start(dir.path());
    assert_eq!(clone(&server.url("app.git"), Some(&first)).unwrap().revision.commit, first);
    assert_eq!(server.seen().len(), 2, "this server allows it");

    // A server that sends only tips, like Git before 2.14 and some hosts today.
    let wanted = first.clone();
    let server = GitServer::start(dir.path());
    server.instead(move |request| {
        let body = String::from_utf8_lossy(&request.body);
        let line = format!("ERR upload-pack: not our ref {wanted}");
        body.contains(&format!("want {wanted}")).then(|| {
            Response::new(200, format!("{:04x}{line}", line.len() + 4))
                .header("Content-Type", "application/x-git-upload-pack-result")
        })
    });
    assert_eq!(clone(&server.url("app.git"), Some(&first)).unwrap().files(), cli(&server.url("app.git"), &first));
    insta::assert_snapshot!(fails(&server.url("app.git"), Some(&"1".repeat(40))), @r"
    error: http://[HOST]/app.git has no commit [COMMIT]
    hint: push the commit to a branch or a tag: most servers send only the commits of branches and tags
    ");
}

#[test]
fn modes_do_not_depend_on_the_umask_nor_the_tree_on_who_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    varied(&dir.path().join("plain.git")).commit("one");
    // The word in a comment is enough to select libgit2's writer.
    varied(&dir.path().join("attributes.git")).file(".gitattributes", "# no crlf\n").commit("one");
    let server = GitServer::start(dir.path());
    for (repo, umask) in
        [("plain.git", "0077"), ("plain.git", "0000"), ("attributes.git", "0077"), ("attributes.git", "0000")]
    {
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let out = dir.path().join(format!("{repo}-{umask}"));
        let output = child("sh", &["-c", &script], &server.url(repo)).env("TEST_OUT", &out).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(listing(&out), cli(&server.url(repo), "main"), "{repo}, umask {umask}");
    }
}

/// Runs [`in_a_child`], for settings of a whole process.
fn child(program: &str, args: &[&str], url: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "source::clone::in_a_child", "--ignored", "--nocapture"])
        .env("TEST_URL", url);
    command
}

#[test]
#[ignore = "started by other tests, with an environment of their own"]
fn in_a_child() {
    podstrap::telemetry::init(LogFormat::Text, LogLevel::Debug);
    match clone(&std::env::var("TEST_URL").unwrap(), None) {
        Ok(got) => {
            if let Some(out) = std::env::var_os("TEST_OUT") {
                std::fs::rename(got.tree(), out).unwrap();
            }
            println!("cloned {}", got.revision.commit);
        }
        Err(error) => println!("exit {}\n{}\nend", error.kind().exit_code(), words(&error)),
    }
}

#[test]
fn the_machines_git_configuration_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a.txt", "one\ntwo\n").commit("one");
    let server = GitServer::start(dir.path());
    let config =
        "[core]\nautocrlf = true\n[url \"http://127.0.0.1:1/\"]\ninsteadOf = http://\ninsteadOf = podstrap://\n";
    std::fs::write(dir.path().join(".gitconfig"), config).unwrap();
    let out = dir.path().join("out");
    let output =
        child("env", &[], &server.url("app.git")).env("HOME", dir.path()).env("TEST_OUT", &out).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(out.join("a.txt")).unwrap(), "one\ntwo\n");
}

#[test]
fn a_ca_of_ones_own_is_named_by_ssl_cert_file() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a", "1").commit("one");
    let (server, pem) = GitServer::start_tls(dir.path());
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let url = server.url("app.git");
    insta::assert_snapshot!(fails(&url, None), @r"
    error: cannot list the references of https://[HOST]/app.git
      because: invalid peer certificate: UnknownIssuer
    hint: for a private CA, mount its certificate as a PEM file, and give this file with --ca-file
    ");

    let with = |file: &Path| {
        let output = child("env", &[], &url).env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(with(&ca).contains(&format!("cloned {}", repo.rev("HEAD"))));
    let text = with(Path::new("/no/such/ca.pem"));
    let text = text.split_once("exit ").unwrap().1.split_once("\nend").unwrap().0;
    insta::assert_snapshot!(text, @r"
    2
    error: SSL_CERT_FILE has no usable CA certificate
      because: failed to read PEM from file: No such file or directory (os error 2) at '/no/such/ca.pem'
    hint: set it to an existing PEM file, or unset it to use the default roots
    ");
}

#[test]
fn a_checkout_that_is_dropped_leaves_no_thread_behind() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let server = GitServer::start(dir.path());
    server.instead(|request| {
        if request.body.windows(13).any(|bytes| bytes == b"command=fetch") {
            std::thread::sleep(Duration::from_secs(5));
        }
        None
    });
    let started = Instant::now();
    let deadline = Deadline::after(Duration::from_mins(1));
    let (tree, source) = (dir.path().join("tree"), git_source(&server.url("app.git"), None, 1));
    run(async {
        let mut resolved = resolve(&source, LIMIT, deadline).await.unwrap();
        let checkout = resolved.checkout(&tree, dir.path(), Contents::Fetch(None), LIMIT, deadline);
        tokio::time::timeout(Duration::from_millis(300), checkout).await.unwrap_err();
    });
    assert!(started.elapsed() < Duration::from_secs(4), "the runtime waits for its threads");
}

#[test]
fn a_flaky_server_gets_more_tries() {
    let dir = tempfile::tempdir().unwrap();
    let repo = varied(&dir.path().join("app.git"));
    repo.commit("one");
    let server = GitServer::start(dir.path());
    let cut = Response::new(200, "001e# service")
        .header("Content-Type", "application/x-git-upload-pack-advertisement")
        .header("Content-Length", "5000");
    server.first(2, Response::new(503, "back soon")).first(1, cut).truncate_first_pack();
    let got = clone(&server.url("app.git"), None).unwrap();
    assert_eq!(got.files(), cli(&server.url("app.git"), "main"));
    assert_eq!(server.seen().iter().filter(|line| line.starts_with("POST")).count(), 4, "two of ours, two of git's");
}

#[test]
fn a_retry_after_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let server = GitServer::start(dir.path());
    server.first(1, Response::new(503, "back soon").header("Retry-After", "2"));
    let started = Instant::now();
    clone(&server.url("app.git"), None).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
}

#[test]
fn credentials_go_to_the_named_host_and_into_no_message() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let server = GitServer::start(dir.path());
    // user:s3cret%
    server.require("Basic dXNlcjpzM2NyZXQl");
    let url = server.url_as("user:s3cret%25", "app.git");
    clone(&url, None).unwrap();

    // Credentials follow a redirect to the same host, but not to another one.
    let front = GitServer::start(dir.path());
    let to = server.url("app.git");
    front.instead(move |request| {
        let tail = request.target.split_once("/far.git").map(|(_, tail)| tail)?;
        Some(Response::new(302, "").header("Location", format!("{to}{tail}")))
    });
    front.instead(|request| {
        let tail = request.target.split_once("/near.git").map(|(_, tail)| tail)?;
        Some(Response::new(301, "").header("Location", format!("/app.git{tail}")))
    });
    clone(&front.url_as("user:s3cret%25", "near.git"), None).unwrap();
    assert!(front.authorizations().iter().all(Option::is_some));
    assert_eq!(front.seen().last().unwrap(), "POST /app.git/git-upload-pack");
    let text = fails(&front.url_as("user:s3cret%25", "far.git"), None);
    insta::assert_snapshot!(text, @"
    error: cannot list the references of http://[HOST]/far.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: put the login for http://[HOST]/app.git into a netrc file and give it with --auth: podstrap sends other logins only to the host of --repo
    ");
    assert_eq!(server.authorizations().last().unwrap(), &None);

    let echo = GitServer::start(dir.path());
    echo.always(Response::new(403, "user:s3cret% or s3cret%25 or dXNlcjpzM2NyZXQl may not"));
    let source = git_source(&echo.url_as("user:s3cret%25", "app.git"), None, 1);
    let error = get_within(&source, Duration::from_secs(5)).unwrap_err();
    for text in [error.to_string(), error.summary(), format!("{error:?}"), format!("{source:?}")] {
        assert!(!text.contains("s3cret") && !text.contains("dXNlcjpzM2NyZXQl"), "{text}");
    }
}

#[test]
fn submodules_and_lfs_pointers_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    repo.file(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n").file("a.bin", pointer).commit("one");
    let module = format!("160000,{},lib/module", repo.rev("HEAD"));
    repo.git(["update-index", "--add", "--cacheinfo", &module]);
    repo.git(["commit", "--quiet", "-m", "two"]);
    let server = GitServer::start(dir.path());
    let got = clone(&server.url("app.git"), None).unwrap();
    assert_eq!(got.files(), cli(&server.url("app.git"), "main"));
    assert!(got.tree().join("lib/module").is_dir());
    let output = child("env", &[], &server.url("app.git")).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    for line in [
        "--submodules off leaves the submodule's directory empty: lib/module",
        "1 file is only a Git LFS pointer: a.bin",
        "remote: Total 5",
    ] {
        assert!(log.contains(line), "{log}");
    }
}
