//! Sources at library level: what is checked out is what git checks out, and what goes wrong says
//! what to change.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use podstrap::error::{Error, Kind};
use podstrap::plan::{GitSource, Origin, Source, Submodules};
use podstrap::retry::Deadline;
use podstrap::size::Size;
use podstrap::source::{self, Checkout, Resolved, Revision};
use podstrap::telemetry::{LogFormat, LogLevel};
use tempfile::TempDir;

use crate::support::git::{GitServer, Repo, git, listing};
use crate::support::http::Response;

const LIMIT: Size = Size(1 << 30);

/// What came of a source.
#[derive(Debug)]
struct Got {
    dir: TempDir,
    revision: Revision,
    checkout: Checkout,
}

impl Got {
    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }
    fn files(&self) -> String {
        listing(&self.tree())
    }
    fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch/git-0")
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn get_within(source: &Source, limit: Duration) -> Result<Got, Error> {
    let dir = tempfile::tempdir().unwrap();
    let (tree, scratch) = (dir.path().join("tree"), dir.path().join("scratch"));
    std::fs::create_dir(&scratch).unwrap();
    let deadline = Deadline::after(limit);
    run(async {
        let mut resolved = resolve(source, LIMIT, deadline).await?;
        let checkout = resolved.checkout(&tree, &scratch, LIMIT, deadline).await?;
        Ok(Got { dir, revision: resolved.revision, checkout })
    })
}

async fn resolve(source: &Source, limit: Size, deadline: Deadline) -> Result<Resolved, Error> {
    source::resolve(source, None, &|| panic!("nothing is to be stored yet"), limit, deadline).await
}

fn git_source(url: &str, reference: Option<&str>, depth: u32) -> Source {
    let git = GitSource {
        url: url.parse().unwrap(),
        reference: reference.map(str::to_owned),
        depth,
        submodules: Submodules::Off,
        keep_git: false,
    };
    Source { origin: Origin::Git(git), lfs_pointers: true, ..Source::directory(PathBuf::new()) }
}

fn clone(url: &str, reference: Option<&str>) -> Result<Got, Error> {
    get_within(&git_source(url, reference, 1), Duration::from_mins(1))
}

/// The message of a failure that ends with exit code 3, with what varies replaced.
fn fails(url: &str, reference: Option<&str>) -> String {
    fails_within(url, reference, Duration::from_secs(20))
}

fn fails_within(url: &str, reference: Option<&str>, limit: Duration) -> String {
    let error = get_within(&git_source(url, reference, 1), limit).unwrap_err();
    assert_eq!(error.kind(), Kind::Source);
    words(&error)
}

fn words(error: &Error) -> String {
    let rules = [
        (r"127\.0\.0\.1:\d+|localhost:\d+", "[HOST]"),
        (r" \d+\.\d s\b", " [TIME]"),
        (r"\b[0-9a-f]{40}\b", "[COMMIT]"),
    ];
    rules.iter().fold(error.to_string(), |text, (pattern, to)| {
        regex::Regex::new(pattern).unwrap().replace_all(&text, *to).into_owned()
    })
}

/// What the git CLI checks out of a repository.
fn cli(url: &str, reference: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    // A clone with git's own modes, whatever the umask of the test.
    let script = "umask 022; git clone --quiet -- \"$0\" tree && cd tree && git checkout --quiet \"$1\"";
    let mut shell = Command::new("sh");
    shell.envs(git(dir.path()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(shell.args(["-c", script, url, reference]).current_dir(dir.path()).status().unwrap().success());
    listing(&dir.path().join("tree"))
}

/// A repository with a bit of everything that Git can hold.
fn varied(dir: &Path) -> Repo {
    let repo = Repo::new(dir);
    repo.file("index.py", "application = 1\n")
        .file("empty", "")
        .file("sub/deep/er/file", "deep\n")
        .executable("run.sh", "#!/bin/sh\n")
        .link("relative", "sub/deep")
        .link("absolute", "/etc/passwd")
        .link("dangling", "no/such/file")
        .file(OsStr::from_bytes(b"na\xefve"), "latin-1\n")
        .file(OsStr::from_bytes(b"d\xff/\xfe"), [0_u8, 159, 146, 150])
        .file("with space\nand newline", "x")
        .file(
            "big.bin",
            (0..60_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()).collect::<Vec<_>>(),
        );
    repo
}

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
    assert_eq!(server.seen()[..2], ["GET /app.git/info/refs", "POST /app.git/git-upload-pack"]);
}

#[test]
fn a_shallow_clone_is_two_requests_and_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a", "1").commit("one").file("a", "2").commit("two").file("a", "3").commit("three");
    for (depth, commits) in [(1, 1), (2, 2), (0, 3)] {
        let server = GitServer::start(dir.path());
        let got = get_within(&git_source(&server.url("app.git"), None, depth), Duration::from_mins(1)).unwrap();
        assert_eq!(server.seen(), ["GET /app.git/info/refs", "POST /app.git/git-upload-pack"], "depth {depth}");
        let all = ["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"];
        let objects = git(&got.scratch()).args(all).output().unwrap().stdout;
        let objects = String::from_utf8(objects).unwrap();
        assert_eq!(objects.lines().filter(|kind| *kind == "commit").count(), commits, "depth {depth}");
    }
}

#[test]
fn line_endings_are_converted_as_the_attributes_say() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file(
        ".gitattributes",
        "*.bat text eol=crlf\n*.sh text eol=lf\n-first text eol=crlf\n*.c ident\n* text=auto\n",
    )
    .file("-first", "before .gitattributes\n")
    .file("sub/.gitattributes", "*.txt text eol=crlf\n")
    .file("sub/a.txt", "one\ntwo\n")
    .file("a.txt", "one\ntwo\n")
    .file("a.bat", "one\r\ntwo\r\n")
    .file("a.sh", "one\ntwo\n")
    .file("a.c", "/* $Id$ */\n")
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

    // A server that gives tips only, as Git itself did before 2.14 and some hosts still do.
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
    hint: is it pushed? Only what a branch or a tag leads to can be fetched
    ");
}

#[test]
fn modes_do_not_depend_on_the_umask_nor_the_tree_on_who_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    varied(&dir.path().join("plain.git")).commit("one");
    // The word is enough for libgit2 to be asked to write.
    varied(&dir.path().join("attributes.git")).file(".gitattributes", "# no ident\n").commit("one");
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

/// A run of [`in_a_child`], for what is set for a whole process.
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
    hint: for a CA of your own, mount its certificate as a PEM file and name that file with --ca-file
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
    error: SSL_CERT_FILE gives no usable CA certificate
      because: failed to read PEM from file: No such file or directory (os error 2) at '/no/such/ca.pem'
    hint: name a PEM file that exists, or unset the variable to use the built-in roots
    ");
}

#[test]
fn servers_that_are_not_there() {
    let gone = {
        let server = GitServer::start(Path::new("/"));
        server.url("app.git")
    };
    insta::assert_snapshot!(fails_within(&gone, None, Duration::from_millis(200)), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: tcp connect error
      because: Connection refused (os error 111)
      because: gave up after 1 try in [TIME] (--timeout 200ms)
    hint: check the host and the port, and whether the Pod's network policy and proxy let it out
    ");
    insta::assert_snapshot!(fails_within("http://no-such-host.invalid/app.git", None, Duration::from_millis(200)), @r"
    error: cannot list the references of http://no-such-host.invalid/app.git
      because: dns error
      because: error resolving DNS
      because: failed to lookup address information: Name or service not known
      because: gave up after 1 try in [TIME] (--timeout 200ms)
    hint: check the host and the port, and whether the Pod's network policy and proxy let it out
    ");
}

#[test]
fn servers_that_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let answers = |response: Response| {
        let server = GitServer::start(dir.path());
        server.always(response);
        server
    };
    let server = answers(Response::new(401, "HTTP Basic: Access denied.\n"));
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: if the repository exists it is private: mount a Secret with username and password, or a file with a token, and name it with --auth
    ");
    insta::assert_snapshot!(fails(&server.url_as("user:s3cret", "app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: the user name or the token in the URL is wrong, or has expired
    ");
    assert_eq!(server.seen().len(), 2, "no second try");
    let server = answers(Response::new(403, "\u{1b}[31mYour plan does not include this.\r\n\r\nAsk billing.\n"));
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 403 Forbidden
      | Your plan does not include this.
      | Ask billing.
    hint: if the repository is private: mount a Secret with username and password, or a file with a token, and name it with --auth
    ");
    let server = answers(
        Response::new(404, "<html><head><title>Page not found</title></head></html>")
            .header("Content-Type", "text/html; charset=utf-8"),
    );
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 404 Not Found
      | Page not found
    hint: check the path in the URL; if the repository is private: mount a Secret with username and password, or a file with a token, and name it with --auth
    ");
    let server = answers(Response::new(200, "<html>Sign in</html>").header("Content-Type", "text/html"));
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git is not a Git repository over HTTP: it answers with a web page
    hint: give the address that git clone takes; it often ends with .git
    ");
    let server = answers(Response::new(200, "0123 refs/heads/main\n").header("Content-Type", "text/plain"));
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r#"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git is not a Git repository over HTTP: it answers with content type "text/plain"
    hint: give the address that git clone takes; it often ends with .git
    hint: for a file or an archive that is to be downloaded: --file NAME, or #sha256=…
    "#);
    let line = "ERR Repository is archived";
    let body = format!("{:04x}{line}", line.len() + 4);
    let server =
        answers(Response::new(200, body).header("Content-Type", "application/x-git-upload-pack-advertisement"));
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: the server says: Repository is archived
    ");
}

#[test]
fn a_remote_out_of_reach_is_told_from_one_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let unreachable = |url: &str| {
        let error = get_within(&git_source(url, None, 1), Duration::from_secs(1)).unwrap_err();
        (error.is_unreachable(), error.to_string())
    };
    for status in [200, 401, 403, 404, 408, 410, 425, 429, 500, 502, 503, 504, 521] {
        let server = GitServer::start(dir.path());
        server.always(Response::new(status, "no"));
        let (told, text) = unreachable(&server.url("app.git"));
        assert_eq!(told, [408, 425, 429].contains(&status) || status >= 500, "{status}: {text}");
    }
    let server = GitServer::start(dir.path());
    let error = get_within(&git_source(&server.url("app.git"), Some("no-such-branch"), 1), Duration::from_secs(20));
    assert!(!error.unwrap_err().is_unreachable(), "a reference that is not there");
    server.change(|_, mut response| {
        response.body.truncate(response.body.len() / 2);
        response
    });
    assert!(unreachable(&server.url("app.git")).0, "a list that ends early");
    let gone = GitServer::start(dir.path()).url("app.git");
    assert!(unreachable(&gone).0, "a port where nobody listens");
    assert!(unreachable("http://no-such-host.invalid/app.git").0, "a name without an address");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/app.git", silent.local_addr().unwrap());
    assert!(unreachable(&url).0, "a server that says nothing");
}

#[test]
fn a_server_that_throttles_for_longer_than_there_is_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = GitServer::start(dir.path());
    server.always(Response::new(429, "slow down").header("Retry-After", "3600"));
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 429 Too Many Requests, and asks to wait for 3600 s
      because: gave up after 1 try in [TIME] (--timeout 20s): the server asks to wait for 1h, longer than the time left
      | slow down
    ");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn repositories_without_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("empty.git"));
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file("a", "1").commit("one");
    repo.git(["branch", "release"]);
    repo.git(["branch", "both"]);
    repo.git(["tag", "both"]);
    repo.git(["tag", "tree", "HEAD^{tree}"]);
    let unborn = Repo::new(&dir.path().join("unborn.git"));
    unborn.file("a", "1").commit("one");
    unborn.git(["symbolic-ref", "HEAD", "refs/heads/gone"]);
    let server = GitServer::start(dir.path());
    let url = server.url("app.git");
    insta::assert_snapshot!(fails(&url, Some("relaese")), @r"
    error: http://[HOST]/app.git has no branch or tag relaese
    hint: did you mean release?
    hint: there are: both, main, release, tree
    ");
    insta::assert_snapshot!(fails(&url, Some(&repo.rev("HEAD")[..10])), @r"
    error: http://[HOST]/app.git has no branch or tag f7f8b5bfdd
    hint: for a commit give all 40 digits of its name: a server does not look up shortened ones
    ");
    insta::assert_snapshot!(fails(&url, Some("both")), @r"
    error: http://[HOST]/app.git has a branch and a tag named both
    hint: say which with --ref refs/heads/both or --ref refs/tags/both
    ");
    insta::assert_snapshot!(fails(&url, Some("tree")), @r"
    error: refs/tags/tree of http://[HOST]/app.git leads to a tree, not to a commit
    hint: choose a branch, a tag of a commit, or a commit with --ref
    ");
    insta::assert_snapshot!(fails(&url, Some(&"1".repeat(40))), @r"
    error: http://[HOST]/app.git has no commit [COMMIT]
    hint: is it pushed? Only what a branch or a tag leads to can be fetched
    ");
    insta::assert_snapshot!(fails(&server.url("empty.git"), None), @r"
    error: http://[HOST]/empty.git is an empty repository
    hint: push a commit to it first
    ");
    insta::assert_snapshot!(fails(&server.url("unborn.git"), None), @r"
    error: HEAD of http://[HOST]/unborn.git names a branch without a commit
    hint: choose a branch with --ref: main
    ");
    let file = |name: &str| {
        fails(&format!("file://{}", dir.path().join(name).display()), None)
            .replace(&*dir.path().to_string_lossy(), "[TMP]")
    };
    insta::assert_snapshot!(file("empty.git"), @r"
    error: file://[TMP]/empty.git is an empty repository
    hint: push a commit to it first
    ");
    insta::assert_snapshot!(file("unborn.git"), @r"
    error: HEAD of file://[TMP]/unborn.git names a branch without a commit (refs/heads/gone)
    hint: choose a branch with --ref: main
    ");
    insta::assert_snapshot!(file("none.git"), @r"
    error: file://[TMP]/none.git is no Git repository that can be read
      because: failed to resolve path '[TMP]/none.git': No such file or directory
    hint: give a repository's directory; to copy a directory as it is, give its path without file://
    ");
}

#[test]
fn podstraps_own_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(&dir.path().join("app.git"));
    repo.file(".podstrap/x", "1").commit("one");
    let server = GitServer::start(dir.path());
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: http://[HOST]/app.git has an entry .podstrap at its top level
      because: the name is podstrap's own in the directory that it publishes
    hint: rename .podstrap in the source
    ");
}

#[test]
fn a_server_that_stalls_is_left_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    for method in ["GET", "POST"] {
        let server = GitServer::start(dir.path());
        server.instead(move |request| {
            if request.method == method {
                std::thread::sleep(Duration::from_secs(3));
            }
            None
        });
        let started = Instant::now();
        let text = fails_within(&server.url("app.git"), None, Duration::from_millis(900));
        assert!(started.elapsed() < Duration::from_secs(2));
        // The pause between two tries decides whether there is time for a second.
        assert!(text.contains("the server stalls: 0 bytes in [TIME]"), "{text}");
        assert!(text.contains("because: gave up after ") && text.contains(" in [TIME] (--timeout 900ms)"), "{text}");
        assert!(text.starts_with(if method == "GET" { "error: cannot list" } else { "error: cannot fetch" }), "{text}");
    }
}

#[test]
fn a_checkout_that_is_dropped_leaves_no_thread_behind() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let server = GitServer::start(dir.path());
    server.instead(|request| {
        if request.method == "POST" {
            std::thread::sleep(Duration::from_secs(5));
        }
        None
    });
    let started = Instant::now();
    let deadline = Deadline::after(Duration::from_mins(1));
    let (tree, source) = (dir.path().join("tree"), git_source(&server.url("app.git"), None, 1));
    run(async {
        let mut resolved = resolve(&source, LIMIT, deadline).await.unwrap();
        let checkout = resolved.checkout(&tree, dir.path(), LIMIT, deadline);
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

    // To the same host they go along, to another they do not.
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
    hint: no credentials were sent to http://[HOST]/app.git: a login is for the host that --repo names, a netrc for those in it
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
fn redirects_that_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let login = GitServer::start(dir.path());
    login.always(Response::new(302, "").header("Location", "/users/sign_in?token=abc"));
    insta::assert_snapshot!(fails(&login.url("app.git"), None), @r"
    error: http://[HOST]/app.git redirects to http://[HOST]/users/sign_in?***
      because: that is no Git repository: its address would end with /info/refs
    hint: give the address to which it moved, or credentials if that is a login page
    ");
    let circle = GitServer::start(dir.path());
    circle.always(Response::new(302, "").header("Location", "/app.git/info/refs"));
    insta::assert_snapshot!(fails(&circle.url("app.git"), None), @r"
    error: cannot list the references of http://[HOST]/app.git
      because: more than 10 redirects, the last to http://[HOST]/app.git
    ");
}

#[test]
fn what_the_server_says_while_it_packs_is_the_error() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    let server = GitServer::start(dir.path());
    server.change(|request, response| {
        if request.method == "GET" {
            return response;
        }
        let text = "\u{3}aborting due to possible repository corruption on the remote side.\n";
        let body = format!("0008NAK\n{:04x}{text}", text.len() + 4);
        Response::new(200, body).header("Content-Type", "application/x-git-upload-pack-result")
    });
    insta::assert_snapshot!(fails(&server.url("app.git"), None), @r"
    error: cannot fetch refs/heads/main of http://[HOST]/app.git
      because: the server says: aborting due to possible repository corruption on the remote side.
    ");
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
        "not fetched, as --submodules says: the submodule's directory stays empty: lib/module",
        "1 file is only a Git LFS pointer: a.bin",
        "remote: Total 5",
    ] {
        assert!(log.contains(line), "{log}");
    }
}

fn directory(path: &Path) -> Result<Got, Error> {
    get_within(&Source::directory(path.to_owned()), Duration::from_mins(1))
}

#[test]
fn a_directory_is_copied_without_what_belongs_to_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app");
    let repo = varied(&app);
    repo.commit("one");
    let plain = directory(&app).unwrap();
    assert_eq!(plain.files(), cli(&format!("file://{}", app.display()), "main"));
    assert!(plain.revision.commit.starts_with("sha256:") && plain.revision.commit.len() == 71);
    assert_eq!(plain.revision.reference, None);

    repo.file("venv/pyvenv.cfg", "home = /usr\n").file("venv/bin/python", "").file("sub/__pycache__/x.pyc", "");
    std::fs::set_permissions(app.join("index.py"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let fifo = Command::new("mkfifo").arg(app.join("fifo")).status().unwrap();
    assert!(fifo.success());
    let again = directory(&app).unwrap();
    assert_eq!((again.files(), &again.revision), (plain.files(), &plain.revision));

    std::fs::set_permissions(app.join("index.py"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let executable = directory(&app).unwrap();
    assert_ne!(executable.revision, plain.revision);
    symlink("elsewhere", app.join("new-link")).unwrap();
    assert_ne!(directory(&app).unwrap().revision, executable.revision);
}

#[test]
fn directories_that_cannot_be_copied() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |path: &Path| {
        let error = directory(path).unwrap_err();
        assert_eq!(error.kind(), Kind::Source);
        error.to_string().replace(&*dir.path().to_string_lossy(), "[TMP]")
    };
    insta::assert_snapshot!(fails(&dir.path().join("none")), @r"
    error: cannot read [TMP]/none
      because: No such file or directory (os error 2)
    hint: give a directory that this container can see, or a URL
    ");
    insta::assert_snapshot!(fails(Path::new("/dev/null")), @r"
    error: /dev/null is not a directory
    hint: give the directory that holds the app
    ");
    std::fs::create_dir_all(dir.path().join("app/.podstrap")).unwrap();
    insta::assert_snapshot!(fails(&dir.path().join("app")), @r"
    error: [TMP]/app has an entry .podstrap
      because: the name is podstrap's own in the directory that it publishes
    hint: rename .podstrap in the source
    ");

    let app = dir.path().join("outer");
    std::fs::create_dir_all(app.join("root/scratch")).unwrap();
    let deadline = Deadline::after(Duration::from_secs(10));
    let (tree, scratch) = (app.join("root/tree"), app.join("root/scratch"));
    let source = Source::directory(app);
    let error =
        run(async { resolve(&source, LIMIT, deadline).await?.checkout(&tree, &scratch, LIMIT, deadline).await })
            .unwrap_err();
    insta::assert_snapshot!(error.to_string().replace(&*dir.path().to_string_lossy(), "[TMP]"), @r"
    error: [TMP]/outer contains the root to which it is copied
    hint: choose a --root outside of the directory
    ");
}

#[test]
fn a_directory_that_changes_meanwhile_is_no_revision() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app");
    std::fs::create_dir_all(&app).unwrap();
    std::fs::write(app.join("a"), "1").unwrap();
    let deadline = Deadline::after(Duration::from_secs(10));
    let mut resolved = run(resolve(&Source::directory(app.clone()), LIMIT, deadline)).unwrap();
    std::fs::write(app.join("a"), "2").unwrap();
    let error = run(resolved.checkout(&dir.path().join("tree"), dir.path(), LIMIT, deadline)).unwrap_err();
    assert!(error.to_string().contains("changed while it was copied"), "{error}");
}
