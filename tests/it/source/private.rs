//! `--auth`: mounted credentials open the repository, and podstrap sends them to no other host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::support::git::{GitServer, Repo, listing};
use crate::support::http::Response;
use crate::support::index::{self, IndexServer};
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::table::row;

/// A sandbox with a repository `app.git`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    Repo::new(&sandbox.path("git/app.git")).file("index.py", "1").commit("one");
    sandbox
}

/// A Secret as the kubelet mounts it: links into a directory that is replaced as a whole.
fn secret(sandbox: &Sandbox, name: &str, entries: &[(&str, &str)]) -> PathBuf {
    let dir = sandbox.path(name);
    for (key, value) in entries {
        sandbox.write(&format!("{name}/..2026_11_24/{key}"), value);
    }
    symlink("..2026_11_24", dir.join("..data")).unwrap();
    for (key, _) in entries {
        symlink(format!("..data/{key}"), dir.join(key)).unwrap();
    }
    dir
}

fn init(sandbox: &Sandbox, url: &str, flags: &[&str]) -> Ran {
    let root = sandbox.root();
    let mut command = sandbox.podstrap();
    command.args(["init", "--venv=none", "--timeout=20s", "--log-level=debug", "--repo", url, "--root"]).arg(root);
    let ran = sandbox.run(command.args(flags));
    assert!(!ran.raw.contains("s3cret") && !ran.raw.contains("czNjcmV0"), "{}", ran.raw);
    ran
}

/// Asserts that the files that podstrap writes contain no secret.
fn nothing_left(sandbox: &Sandbox) {
    for dir in [sandbox.root(), sandbox.path("tmp")] {
        let all = listing(&dir);
        assert!(!all.contains("s3cret") && !all.contains("czNjcmV0"), "{all}");
    }
    let words = fs::read_to_string(sandbox.path("termination-log")).unwrap_or_default();
    assert!(!words.contains("s3cret"), "{words}");
}

#[test]
fn each_shape_of_a_secret_logs_in() {
    // me:s3cret, git:s3cret
    let (me, git) = ("Basic bWU6czNjcmV0", "Basic Z2l0OnMzY3JldA==");
    for (name, entries, wanted) in [
        ("basic", &[("username", "me\n"), ("password", "s3cret\n")][..], me),
        ("password", &[("password", "s3cret")], git),
        ("token", &[("token", "s3cret\n")], "Bearer s3cret"),
        ("netrc", &[("netrc", "machine LOCALHOST login me password s3cret\n")], me),
        ("dotted", &[(".netrc", "default login me password \"s3cret\"\n")], me),
    ] {
        let sandbox = sandbox();
        let (server, ca) = GitServer::start_tls(&sandbox.path("git"));
        server.require(wanted);
        let (dir, ca) = (secret(&sandbox, name, entries), sandbox.write("ca.pem", ca));
        let auth = format!("--auth={}", dir.display());
        let ran = init(&sandbox, &server.url("app.git"), &[&auth, &format!("--ca-file={}", ca.display())]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.raw);
        nothing_left(&sandbox);
        let file = dir.join(entries[entries.len() - 1].0);
        if entries.len() == 1 && name != "password" {
            // The path of the file itself works too.
            let auth = format!("--auth={}", file.display());
            let ran = init(&sandbox, &server.url("app.git"), &[&auth, &format!("--ca-file={}", ca.display())]);
            assert_eq!(ran.code, Some(0), "{name}: {}", ran.raw);
        }
    }
}

#[test]
fn a_renewed_secret_counts_at_the_next_try() {
    let sandbox = sandbox();
    let server = GitServer::start(&sandbox.path("git"));
    let token = sandbox.write("token", "s3cret-old");
    let renewed = token.clone();
    server.instead(move |request| {
        if request.authorization() == Some("Bearer s3cret-new") {
            return None;
        }
        fs::write(&renewed, "s3cret-new").unwrap();
        Some(Response::new(503, "starting"))
    });
    let ran = init(&sandbox, &server.url("app.git"), &[&format!("--auth={}", token.display())]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let sent = server.authorizations();
    assert_eq!(sent[..2], [Some("Bearer s3cret-old".to_owned()), Some("Bearer s3cret-new".to_owned())]);
}

#[test]
fn a_login_stays_with_the_host_that_was_named() {
    let sandbox = sandbox();
    let server = GitServer::start(&sandbox.path("git"));
    let far = GitServer::start(&sandbox.path("git"));
    let moved = server.url("app.git/info/refs?service=git-upload-pack");
    far.always(Response::new(302, "").header("Location", moved));
    let token = sandbox.write("token", "s3cret");
    let auth = format!("--auth={}", token.display());
    let ran = init(&sandbox, &far.url("far.git"), &[&auth]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(far.authorizations(), [Some("Bearer s3cret".to_owned()), Some("Bearer s3cret".to_owned())]);
    assert!(server.authorizations().iter().all(Option::is_none), "{:?}", server.authorizations());
}

#[test]
fn what_cannot_log_in_says_why() {
    let sandbox = sandbox();
    let server = GitServer::start(&sandbox.path("git"));
    server.require("Basic bWU6czNjcmV0");
    let secret = |name: &str, entries: &[(&str, &str)]| secret(&sandbox, name, entries);
    let file = |name: &str, text: &str| sandbox.write(name, text);
    let rows = [
        ("a wrong password", "--auth", Some(secret("wrong", &[("username", "me"), ("password", "wrong")])), 3),
        ("a wrong token", "--auth", Some(file("token", "wrong")), 3),
        ("another host's netrc", "--auth", Some(file("netrc", "machine other.example login me password s3cret")), 3),
        ("nothing", "", None, 3),
        ("a file that is not there", "--auth", Some(sandbox.path("none")), 2),
        ("a Secret of other keys", "--auth", Some(secret("useless", &[("user", "me"), ("pass", "wrong")])), 2),
        ("no netrc", "--auth", Some(file("broken", "machine x login y password two words")), 2),
        ("no certificate", "--ca-file", Some(file("ca.pem", "no certificate")), 2),
    ];
    let mut told = String::new();
    for (name, flag, path, code) in rows {
        told += &row(name, || {
            let mut command = sandbox.podstrap();
            command.args(["init", "--venv=none", "--repo", &server.url("app.git"), "--root"]).arg(sandbox.root());
            let ran = sandbox.run(command.args(path.map(|path| format!("{flag}={}", path.display()))));
            assert_eq!(ran.code, Some(code), "{}", ran.raw);
            ran.error().to_owned()
        });
    }
    insta::assert_snapshot!(told, @r"
    -- a wrong password
    cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: correct the user name or the token in --auth [TMP]/wrong, or renew it if it has expired
    -- a wrong token
    cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: correct the user name or the token in --auth [TMP]/token, or renew it if it has expired
    hint: mount the token as password, next to a username: some hosts accept a token only as a password
    -- another host's netrc
    cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: put the login for http://[HOST]/app.git into a netrc file and give it with --auth: podstrap sends other logins only to the host of --repo
    -- nothing
    cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git answers 401 Unauthorized
      | HTTP Basic: Access denied.
    hint: if the repository exists, it is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    -- a file that is not there
    --auth [TMP]/none: cannot read [TMP]/none
      because: No such file or directory (os error 2)
    hint: mount the Secret there in this container (volumeMounts)
    -- a Secret of other keys
    --auth [TMP]/useless has no credentials
      because: it has pass, user
    hint: give a directory with one of: username and password; ssh-privatekey and known_hosts; token; netrc; .dockerconfigjson
    -- no netrc
    --auth [TMP]/broken: [TMP]/broken is not a valid netrc file
      because: a word is neither a keyword nor a value; quote a password with spaces
    hint: write lines such as: machine git.example login NAME password TOKEN
    -- no certificate
    --ca-file [TMP]/ca.pem has no usable CA certificate
    hint: give a file with certificates in PEM: -----BEGIN CERTIFICATE-----
    ");
}

#[test]
fn a_ca_file_is_for_everything_and_besides_the_usual_ones() {
    for engine in ["uv", "pip"] {
        let sandbox = sandbox();
        let (server, git_ca) = GitServer::start_tls(&sandbox.path("git"));
        let (index, index_ca) = IndexServer::start_tls(&index::wheelhouse());
        // The default CAs include only the index's.
        let usual = sandbox.write("usual.pem", index_ca);
        let ca = sandbox.write("ca.pem", git_ca);
        let engine = if engine == "uv" { index::uv().display().to_string() } else { engine.to_owned() };
        let init = |flags: &[&str]| {
            let mut command = sandbox.podstrap();
            command.args(["init", "--timeout=30s", "--repo", &server.url("app.git"), "--root"]).arg(sandbox.root());
            command.args(["--engine", &engine, "Flask"]).env("PIP_INDEX_URL", index.url()).env("SSL_CERT_FILE", &usual);
            command.args(flags);
            command
        };
        let ran = sandbox.run(&mut init(&[]));
        assert!(ran.code == Some(3) && ran.raw.contains("--ca-file"), "{}", ran.raw);
        let ca_file = format!("--ca-file={}", ca.display());
        let ran = sandbox.run(&mut init(&[&ca_file]));
        assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
        // pip's own setting removes no CA.
        let ran = sandbox.run(init(&[&ca_file, "--refresh"]).env("PIP_CERT", &ca));
        assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let sandbox = sandbox();
    let pipe = sandbox.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for flag in ["--auth", "--ca-file"] {
        let ran = init(&sandbox, "http://127.0.0.1:9/app.git", &[&format!("{flag}={}", pipe.display())]);
        assert!(ran.code == Some(2) && ran.raw.contains(flag), "{}", ran.raw);
    }
}
