//! Servers that do not send what podstrap asks for: the error, and how soon it comes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::git::{GitServer, Repo};
use crate::support::http::Response;
use crate::support::source::{fails, fails_within, get_within, git_source};
use crate::support::table::row;

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
    hint: check the host and the port, and whether the Pod's network policy and proxy allow the connection
    ");
    insta::assert_snapshot!(fails_within("http://no-such-host.invalid/app.git", None, Duration::from_millis(200)), @r"
    error: cannot list the references of http://no-such-host.invalid/app.git
      because: dns error
      because: error resolving DNS
      because: failed to lookup address information: Name or service not known
      because: gave up after 1 try in [TIME] (--timeout 200ms)
    hint: check the host and the port, and whether the Pod's network policy and proxy allow the connection
    ");
}

#[test]
fn servers_that_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let page = |status, kind: &str, text: &str| Response::new(status, text).header("Content-Type", kind);
    let denied = || Response::new(401, "HTTP Basic: Access denied.\n");
    let plan = "\u{1b}[31mYour plan does not include this.\r\n\r\nAsk billing.\n";
    let missing = "<html><head><title>Page not found</title></head></html>";
    let line = "ERR Repository is archived";
    let packet = format!("{:04x}{line}", line.len() + 4);
    // The login in the URL, and the answer to every request.
    let rows = [
        ("a login is wanted", "", denied()),
        ("another login is wanted", "user:s3cret", denied()),
        ("forbidden", "", Response::new(403, plan)),
        ("not found", "", page(404, "text/html; charset=utf-8", missing)),
        ("a web page", "", page(200, "text/html", "<html>Sign in</html>")),
        ("plain text", "", page(200, "text/plain", "0123 refs/heads/main\n")),
        ("plain files", "", page(200, "text/plain", &format!("{}\trefs/heads/main\n", "0".repeat(40)))),
        ("no content type", "", Response::new(200, format!("{}\trefs/heads/main\n", "0".repeat(40)))),
        ("Git's own error", "", page(200, "application/x-git-upload-pack-advertisement", &packet)),
    ];
    let mut told = String::new();
    for (name, login, answer) in rows {
        told += &row(name, || {
            let server = GitServer::start(dir.path());
            server.always(answer);
            let text = match login {
                "" => fails(&server.url("app.git"), None),
                login => fails(&server.url_as(login, "app.git"), None),
            };
            // Any other answer may mean that the server does not speak version 2.
            let is_refusal = text.contains("answers 401") || text.contains("answers 403");
            assert_eq!(server.seen().len(), if is_refusal { 1 } else { 2 }, "no second try");
            text
        });
    }
    insta::assert_snapshot!(told, @r#"
    -- a login is wanted
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: if the repository exists, it is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    -- another login is wanted
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: correct the user name or the token in the URL, or renew it if it has expired
    -- forbidden
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 403 Forbidden
      | Your plan does not include this.
      | Ask billing.
    hint: if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    -- not found
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 404 Not Found
      | Page not found
    hint: check the path in the URL; if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    -- a web page
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git is not a Git repository over HTTP: it answers with a web page
    hint: give the address for git clone, which often ends with .git
    -- plain text
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git is not a Git repository over HTTP: it answers with content type "text/plain"
    hint: give the address for git clone, which often ends with .git
    hint: add --file NAME or #sha256=… to download a file or an archive
    -- plain files
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git is a repository served as plain files (Git's dumb HTTP protocol)
    hint: serve it with git http-backend or another Git server: podstrap needs the smart HTTP protocol
    -- no content type
    error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git is a repository served as plain files (Git's dumb HTTP protocol)
    hint: serve it with git http-backend or another Git server: podstrap needs the smart HTTP protocol
    -- Git's own error
    error: cannot list the references of http://[HOST]/app.git
      because: the server says: Repository is archived
    "#);
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
    assert!(!error.unwrap_err().is_unreachable(), "a missing reference");
    server.change(|_, mut response| {
        response.body.truncate(response.body.len() / 2);
        response
    });
    assert!(unreachable(&server.url("app.git")).0, "a list that ends early");
    let gone = GitServer::start(dir.path()).url("app.git");
    assert!(unreachable(&gone).0, "a port without a listener");
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
      because: gave up after 1 try in [TIME] (--timeout 20s): the server asks to wait for 1h, longer than the remaining time
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
    let (url, file) = (|name| server.url(name), |name| format!("file://{}", dir.path().join(name).display()));
    let (short, ones, twos) = (&repo.rev("HEAD")[..10], "1".repeat(40), "2".repeat(40));
    repo.git(["update-ref", &format!("refs/heads/{twos}"), "HEAD"]);
    let rows = [
        ("a misspelt branch", url("app.git"), Some("relaese")),
        ("a shortened commit", url("app.git"), Some(short)),
        ("a branch and a tag", url("app.git"), Some("both")),
        ("a tag of a tree", url("app.git"), Some("tree")),
        ("an unknown commit", url("app.git"), Some(&*ones)),
        ("a branch that is named like a commit", url("app.git"), Some(&*twos)),
        ("a word of the example manifests", url("YOU/app.git"), None),
        ("an empty repository", url("empty.git"), None),
        ("a HEAD without a commit", url("unborn.git"), None),
        ("an empty repository on this machine", file("empty.git"), None),
        ("a HEAD without a commit on this machine", file("unborn.git"), None),
        ("no repository", file("none.git"), None),
    ];
    let said = |url: &str, reference| fails(url, reference).replace(&*dir.path().to_string_lossy(), "[TMP]");
    let told = rows.map(|(name, url, reference)| row(name, || said(&url, reference)));
    insta::assert_snapshot!(told.concat(), @r"
    -- a misspelt branch
    error: http://[HOST]/app.git has no branch or tag relaese
    hint: did you mean release?
    hint: choose one of: [COMMIT], both, main, release, tree
    -- a shortened commit
    error: http://[HOST]/app.git has no branch or tag f7f8b5bfdd
    hint: give all 40 digits of a commit: servers do not look up shortened ones
    -- a branch and a tag
    error: http://[HOST]/app.git has a branch and a tag named both
    hint: choose one with --ref refs/heads/both or --ref refs/tags/both
    -- a tag of a tree
    error: refs/tags/tree of http://[HOST]/app.git points to a tree, not to a commit
    hint: choose a branch, a tag of a commit, or a commit with --ref
    -- an unknown commit
    error: http://[HOST]/app.git has no commit [COMMIT]
    hint: push the commit to a branch or a tag: most servers send only the commits of branches and tags
    -- a branch that is named like a commit
    error: http://[HOST]/app.git has no commit [COMMIT]
    hint: use --ref refs/heads/[COMMIT]: 40 hexadecimal digits mean a commit
    -- a word of the example manifests
    error: cannot list the references of http://[HOST]/YOU/app.git
      because: http://[HOST]/YOU/app.git answers 404 Not Found
    hint: check the path in the URL; if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    hint: replace YOU in the manifest: it is a placeholder of the example
    -- an empty repository
    error: http://[HOST]/empty.git is an empty repository
    hint: push a commit to it first
    -- a HEAD without a commit
    error: HEAD of http://[HOST]/unborn.git names a branch without a commit
    hint: choose a branch with --ref: main
    -- an empty repository on this machine
    error: file://[TMP]/empty.git is an empty repository
    hint: push a commit to it first
    -- a HEAD without a commit on this machine
    error: HEAD of file://[TMP]/unborn.git names a branch without a commit (refs/heads/gone)
    hint: choose a branch with --ref: main
    -- no repository
    error: file://[TMP]/none.git is not a readable Git repository
      because: failed to resolve path '[TMP]/none.git': No such file or directory
    hint: give a repository's directory, or give a path without file:// to copy a directory unchanged
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
      because: podstrap reserves this name in the published directory
    hint: rename .podstrap in the source
    ");
}

#[test]
fn a_server_that_stalls_is_left_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    Repo::new(&dir.path().join("app.git")).file("a", "1").commit("one");
    for command in ["command=ls-refs", "command=fetch"] {
        let server = GitServer::start(dir.path());
        server.instead(move |request| {
            if String::from_utf8_lossy(&request.body).contains(command) {
                std::thread::sleep(Duration::from_secs(3));
            }
            None
        });
        let started = Instant::now();
        let text = fails_within(&server.url("app.git"), None, Duration::from_millis(900));
        assert!(started.elapsed() < Duration::from_secs(2));
        // The length of the pause decides whether there is time for a second try.
        assert!(text.contains("the server stalls: 0 bytes in [TIME]"), "{text}");
        assert!(text.contains("because: gave up after ") && text.contains(" in [TIME] (--timeout 900ms)"), "{text}");
        assert!(
            text.starts_with(if command == "command=ls-refs" { "error: cannot list" } else { "error: cannot fetch" }),
            "{text}"
        );
    }
}

#[test]
fn redirects_that_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let login = GitServer::start(dir.path());
    login.always(Response::new(302, "").header("Location", "/users/sign_in?token=abc"));
    insta::assert_snapshot!(fails(&login.url("app.git"), None), @r"
    error: http://[HOST]/app.git redirects to http://[HOST]/users/sign_in?***
      because: the target is not a Git repository: its address does not end with /info/refs
    hint: give the new address, or credentials if the target is a login page
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
