//! Git over SSH, against a real sshd. The published tree equals git's checkout, every failed login is explained, and
//! podstrap trusts only known hosts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::git::{Repo, git, listing};
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::sshd::{Cut, Sshd, keygen, relay};

/// A server, a repository on it, and the Secret that a Pod would mount.
struct World {
    sandbox: Sandbox,
    sshd: Sshd,
    repo: Repo,
}

impl World {
    /// `None` if the machine has no sshd.
    fn new() -> Option<Self> {
        Self::with("")
    }

    fn with(config: &str) -> Option<Self> {
        let sandbox = Sandbox::new();
        let sshd = Sshd::start(&sandbox.path("sshd"), config)?;
        let repo = Repo::new(&sandbox.path("repos/it's an app!.git"));
        repo.file("index.py", "application = 1\n")
            .executable("run.sh", "#!/bin/sh\n")
            .link("link", "run.sh")
            .file("sub/deep/file", "deep\n")
            .commit("one");
        let world = Self { sandbox, sshd, repo };
        world.mount("known_hosts", world.sshd.known_hosts());
        Some(world)
    }

    /// Writes a file of the Secret, as Kubernetes mounts it.
    fn mount(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.sandbox.path("auth").join(name);
        let _ = std::fs::remove_file(&path);
        let path = self.sandbox.write(&format!("auth/{name}"), contents);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        path
    }

    /// Creates a key and mounts it under this name.
    fn key(&self, name: &str, args: &[&str]) -> PathBuf {
        let path = self.sandbox.path("keys").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        keygen(&path, args);
        self.mount(name, std::fs::read(&path).unwrap());
        path
    }

    /// The same; the server also authorizes the key.
    fn good_key(&self, name: &str, args: &[&str]) {
        self.sshd.authorize(&self.key(name, args));
    }

    fn url(&self) -> String {
        self.sshd.url(&self.repo.dir).replace(' ', "%20")
    }

    fn init(&self, url: &str, flags: &[&str]) -> Ran {
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--venv", "none", "--link", "app", "--log-level", "debug", "--repo", url, "--root"]);
        command.arg(self.sandbox.root()).args(flags).arg("--auth").arg(self.sandbox.path("auth"));
        self.sandbox.run(&mut command)
    }

    /// Asserts that the published tree equals git's checkout.
    fn clones(&self, url: &str, flags: &[&str]) -> Ran {
        let ran = self.init(url, flags);
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.raw, self.sshd.log());
        assert_eq!(self.published(), self.checked_out("HEAD"), "{}", ran.raw);
        ran
    }

    fn published(&self) -> String {
        listing(&self.sandbox.root().join("app").canonicalize().unwrap())
    }

    fn checked_out(&self, reference: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let script = "umask 022; git clone --quiet -- \"$0\" tree && cd tree && git checkout --quiet \"$1\"";
        let mut shell = Command::new("sh");
        shell.envs(git(dir.path()).get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.args(["-c", script]).arg(&self.repo.dir).arg(reference).current_dir(dir.path());
        assert!(shell.status().unwrap().success());
        listing(&dir.path().join("tree"))
    }

    /// The final error of a failure with exit code 3, with variable parts replaced.
    fn fails(&self, url: &str, flags: &[&str]) -> String {
        let ran = self.init(url, flags);
        assert_eq!(ran.code, Some(3), "{}\n{}", ran.raw, self.sshd.log());
        assert!(!ran.raw.contains("PRIVATE KEY"), "{}", ran.raw);
        self.words(&ran)
    }

    fn words(&self, ran: &Ran) -> String {
        let user = format!(r"\b{}\b", self.sshd.user());
        let rules = [
            (r"\[127\.0\.0\.1\]:\d+", "[HOST]"),
            (r"-p \d+ 127\.0\.0\.1", "-p [PORT] 127.0.0.1"),
            (r"SHA256:[0-9A-Za-z+/]{43}", "[FINGERPRINT]"),
            (r"AAAA[0-9A-Za-z+/=]{40,}", "[KEY]"),
            (&user, "[USER]"),
            (r"after \d tries", "after [N] tries"),
        ];
        let error = ran.text.split_once("error: ").map_or("", |(_, error)| error);
        let error = format!("error: {error}");
        rules.iter().fold(error.trim_end().to_owned(), |text, (pattern, to)| {
            regex::Regex::new(pattern).unwrap().replace_all(&text, *to).into_owned()
        })
    }
}

#[test]
fn a_clone_is_what_git_checks_out_and_takes_one_connection() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    world.clones(&world.url(), &[]);
    assert_eq!(world.sshd.connections(), 1);
    let release = world.sandbox.root().join("app").canonicalize().unwrap().parent().unwrap().join("release.json");
    let release = std::fs::read_to_string(release).unwrap();
    assert!(release.contains(&world.repo.rev("main")) && release.contains("refs/heads/main"), "{release}");

    // Nothing changed, so the list of references is enough.
    let again = world.clones(&world.url(), &[]);
    assert!(again.raw.contains("already published") || world.sshd.connections() == 2, "{}", again.raw);

    // The scp form, relative to the root and to the user's home.
    let dir = world.repo.dir.display().to_string();
    let place = format!("{}@[127.0.0.1:{}]", world.sshd.user(), world.sshd.port());
    world.repo.file("index.py", "application = 2\n").commit("two");
    world.clones(&format!("{place}:{dir}"), &[]);
    world.repo.file("index.py", "application = 3\n").commit("three");
    world.clones(&format!("[{}@127.0.0.1:{}]:{dir}", world.sshd.user(), world.sshd.port()), &[]);
    let error = world.fails(&format!("{place}:no/such/app.git"), &[]);
    assert!(error.contains("'no/such/app.git' does not appear to be a git repository"), "{error}");
}

#[test]
fn a_repository_of_some_size_in_every_depth() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let noise = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..3 << 20).map(|_| random.u8(..)).collect::<Vec<_>>()
    };
    for (i, depth) in ["1", "0", "2"].iter().enumerate() {
        world.repo.file("noise", noise(i as u64)).commit("more");
        world.clones(&world.url(), &["--depth", depth]);
    }
    // A long list of references.
    let tip = world.repo.rev("HEAD");
    let tags: Vec<String> = (0..10_000).map(|i| format!("{tip} refs/tags/v{i}\n")).collect();
    std::fs::write(world.repo.dir.join(".git/packed-refs"), tags.concat()).unwrap();
    let ran = world.clones(&world.url(), &["--ref", "v9999"]);
    assert!(ran.raw.contains("v9999"), "{}", ran.raw);
    let empty = Repo::new(&world.sandbox.path("repos/empty.git"));
    let error = world.fails(&world.sshd.url(&empty.dir), &[]);
    assert!(error.contains("is an empty repository"), "{error}");
}

#[test]
fn every_kind_of_key_in_every_format_opens_the_account() {
    let Some(world) = World::new() else { return };
    for (i, args) in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "3072", "-m", "PEM"],
        &["-t", "ecdsa", "-m", "PEM"],
        &["-t", "rsa", "-m", "PKCS8"],
        &["-t", "ecdsa", "-m", "PKCS8"],
    ]
    .iter()
    .enumerate()
    {
        world.repo.file("index.py", format!("application = {i}\n")).commit("more");
        let name = "ssh-privatekey";
        for old in ["keys/ssh-privatekey", "keys/ssh-privatekey.pub"] {
            let _ = std::fs::remove_file(world.sandbox.path(old));
        }
        world.good_key(name, args);
        let ran = world.clones(&world.url(), &[]);
        assert!(
            ran.raw.contains("takes [TMP]/auth/ssh-privatekey") || ran.text.contains("takes [TMP]"),
            "{}",
            ran.text
        );
        // Line ends as editors and consoles leave them.
        world.repo.file("index.py", format!("application = -{i}\n")).commit("more");
        let pem = std::fs::read_to_string(world.sandbox.path("keys/ssh-privatekey")).unwrap();
        world.mount(name, pem.trim_end().replace('\n', "\r\n"));
        world.clones(&world.url(), &[]);
    }
}

#[test]
fn keys_are_tried_in_turn_on_as_many_connections_as_the_server_wants() {
    let Some(world) = World::with("MaxAuthTries 2\n") else { return };
    for (i, kind) in ["rsa", "ed25519", "ecdsa", "ed25519"].iter().enumerate() {
        world.key(&format!("ssh-privatekey-{i}"), &["-t", kind]);
    }
    let error = world.fails(&world.url(), &[]);
    insta::assert_snapshot!(error, @r"
    error: cannot log in to [HOST] as [USER]
      because: [TMP]/auth/ssh-privatekey-0: ssh-rsa [FINGERPRINT] is refused by the server
      because: [TMP]/auth/ssh-privatekey-1: ssh-ed25519 [FINGERPRINT] is refused by the server
      because: [TMP]/auth/ssh-privatekey-2: ecdsa-sha2-nistp256 [FINGERPRINT] is refused by the server
      because: [TMP]/auth/ssh-privatekey-3: ssh-ed25519 [FINGERPRINT] is refused by the server
      because: the server accepts: publickey
    hint: register the public key of a key in --auth (ssh-keygen -y -f KEY prints it) for the user [USER], or as a deploy key of the repository
    ");

    let before = world.sshd.connections();
    world.good_key("ssh-privatekey-9", &["-t", "ed25519"]);
    world.mount("ssh-privatekey-2", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n");
    let ran = world.clones(&world.url(), &[]);
    assert!(ran.text.contains("ssh-privatekey-2: unreadable private key"), "{}", ran.text);
    // The first connection tries two keys and gets no answer to the second. The next tries that one and another.
    assert_eq!(world.sshd.connections() - before, 3, "{}", ran.raw);
}

#[test]
fn a_key_that_does_not_fit_is_named() {
    let sandbox = Sandbox::new();
    let banner = sandbox.write("banner", "Only for friends.\n");
    let Some(world) = World::with(&format!("Banner {}\n", banner.display())) else { return };
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: cannot log in to [HOST] as [USER]
      because: no private key was given
      because: the server accepts: publickey
      | Only for friends.
    hint: give --auth the Secret's directory, with ssh-privatekey and known_hosts (kubernetes.io/ssh-auth), or the files themselves
    ");
    world.key("ssh-privatekey", &["-t", "ed25519"]);
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: cannot log in to [HOST] as [USER]
      because: [TMP]/auth/ssh-privatekey: ssh-ed25519 [FINGERPRINT] is refused by the server
      because: the server accepts: publickey
      | Only for friends.
    hint: register the public key of a key in --auth (ssh-keygen -y -f KEY prints it) for the user [USER], or as a deploy key of the repository
    ");
}

#[test]
fn a_key_with_a_passphrase_is_refused_before_anybody_is_asked() {
    let Some(world) = World::new() else { return };
    for args in [&["-t", "ed25519"][..], &["-t", "rsa", "-m", "PEM"], &["-t", "rsa", "-m", "PKCS8"]] {
        let key = world.sandbox.path("locked");
        let _ = std::fs::remove_file(&key);
        let made = Command::new("ssh-keygen").args(["-q", "-N", "s3cret", "-f"]).arg(&key).args(args).status().unwrap();
        assert!(made.success());
        world.mount("ssh-privatekey", std::fs::read(&key).unwrap());
        insta::allow_duplicates! {
            insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
            error: cannot log in to [HOST] as [USER]
              because: [TMP]/auth/ssh-privatekey: the key has a passphrase, which nobody can type here: store it without one (ssh-keygen -p)
            hint: give an Ed25519, ECDSA or RSA key without a passphrase, in OpenSSH or PEM format, with --auth
            ");
        }
    }
    assert_eq!(world.sshd.connections(), 0);
}

#[test]
fn a_host_that_is_not_known_is_not_trusted() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    world.mount("known_hosts", world.sshd.known_as("example.org", "ed25519"));
    let ran = world.init(&world.url(), &[]);
    insta::assert_snapshot!(world.words(&ran), @r"
    error: [HOST] is unknown, and podstrap always verifies host keys
      because: the host shows ssh-ed25519 [FINGERPRINT]
      because: [TMP]/auth/known_hosts has no key of this host
      | [HOST] ssh-ed25519 [KEY]
    hint: ask the host's administrator over another channel to confirm [FINGERPRINT], then add the line above to the known_hosts file
    ");
    assert_eq!((ran.code, world.sshd.connections()), (Some(3), 1), "podstrap connects once");

    // The error shows the missing line.
    let line = ran.raw.lines().find_map(|line| line.strip_prefix("  | ")).unwrap();
    world.mount("known_hosts", line);
    world.clones(&world.url(), &[]);

    std::fs::remove_file(world.sandbox.path("auth/known_hosts")).unwrap();
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: [HOST] is unknown, and podstrap always verifies host keys
      because: the host shows ssh-ed25519 [FINGERPRINT]
      because: no known_hosts file was given
      | [HOST] ssh-ed25519 [KEY]
    hint: ask the host's administrator over another channel to confirm [FINGERPRINT], then add the line above to a known_hosts file
    hint: give --auth the Secret's directory, with ssh-privatekey and known_hosts (kubernetes.io/ssh-auth), or the files themselves
    ");
    // known_hosts has only another key of the host.
    let world = World::with("HostKeyAlgorithms ssh-ed25519\n").unwrap();
    world.mount("known_hosts", world.sshd.known_as(&format!("[127.0.0.1]:{}", world.sshd.port()), "rsa"));
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: [HOST] is unknown, and podstrap always verifies host keys
      because: the host shows ssh-ed25519 [FINGERPRINT]
      because: known_hosts has only keys of type ssh-rsa for this host
      | [HOST] ssh-ed25519 [KEY]
    hint: ask the host's administrator over another channel to confirm [FINGERPRINT], then add the line above to the known_hosts file
    ");
    let authority = format!("@cert-authority {}", world.sshd.known_as("*", "rsa"));
    world.mount("known_hosts", authority);
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: [HOST] is unknown, and podstrap always verifies host keys
      because: the host shows ssh-ed25519 [FINGERPRINT]
      because: [TMP]/auth/known_hosts has no key of this host
      because: [TMP]/auth/known_hosts:1: @cert-authority is not supported
      | [HOST] ssh-ed25519 [KEY]
    hint: ask the host's administrator over another channel to confirm [FINGERPRINT], then add the line above to the known_hosts file
    ");
}

#[test]
fn a_host_that_shows_another_key_is_not_trusted() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let other = world.sandbox.path("other");
    keygen(&other, &["-t", "ed25519"]);
    let other = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let name = format!("[127.0.0.1]:{}", world.sshd.port());
    world.mount("known_hosts", format!("# ours\n{name} {other}"));
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: the key of [HOST] has changed: this may be an attack
      because: the host shows ssh-ed25519 [FINGERPRINT]
      because: [TMP]/auth/known_hosts:2 has ssh-ed25519 [FINGERPRINT]
      | [HOST] ssh-ed25519 [KEY]
    hint: ask the host's administrator over another channel to confirm [FINGERPRINT], then replace the old line with the one above
    ");
    world.mount(
        "known_hosts",
        format!("{}@revoked * {}", world.sshd.known_hosts(), world.sshd.known_as("", "ed25519").trim()),
    );
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: [HOST] shows a revoked key: somebody else may have it
      because: [TMP]/auth/known_hosts:2 revokes ssh-ed25519 [FINGERPRINT]
    hint: ask the host's administrator what happened, before you connect again
    ");
}

#[test]
fn hosts_are_known_in_every_form() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let port = world.sshd.port();
    let hashed = world.sandbox.write("hashed", world.sshd.known_hosts());
    assert!(Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&hashed).output().unwrap().status.success());
    let hashed = std::fs::read_to_string(hashed).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    let scanned = Command::new("ssh-keyscan").args(["-p", &port.to_string(), "127.0.0.1"]).output().unwrap().stdout;
    for known in [
        hashed.into_bytes(),
        scanned,
        // The server has several keys and shows the known one.
        world.sshd.known_as(&format!("[127.0.0.1]:{port}"), "rsa").into_bytes(),
        world.sshd.known_as(&format!("other,[127.0.0.*]:{port}"), "ecdsa").into_bytes(),
        // As in ssh: the host's key at any port.
        world.sshd.known_as("127.0.0.1", "ed25519").into_bytes(),
    ] {
        world.repo.file("index.py", &known).commit("more");
        world.mount("known_hosts", &known);
        world.clones(&world.url(), &[]);
    }
}

#[test]
fn a_commit_that_is_no_tip_is_fetched_from_a_server_that_gives_it_and_from_one_that_does_not() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let first = world.repo.rev("HEAD");
    world.repo.file("index.py", "application = 2\n").commit("two");
    let second = world.repo.rev("HEAD");
    world.repo.file("index.py", "application = 3\n").commit("three");
    let ran = world.init(&world.url(), &["--ref", &first]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(ran.raw.contains("does not send single commits") && world.sshd.connections() == 2, "{}", ran.raw);
    assert_eq!(world.published(), world.checked_out(&first));
    world.repo.git(["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let ran = world.init(&world.url(), &["--ref", &second]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(!ran.raw.contains("does not send single commits") && world.sshd.connections() == 3, "{}", ran.raw);
    assert_eq!(world.published(), world.checked_out(&second));
}

#[test]
fn the_servers_own_words_are_shown() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let missing = world.sshd.url(Path::new("/no/such/app.git"));
    let before = world.sshd.connections();
    insta::assert_snapshot!(world.fails(&missing, &[]), @r"
    error: cannot list the references of ssh://***@[HOST]/no/such/app.git
      because: git-upload-pack ended with exit status 128
      | fatal: '/no/such/app.git' does not appear to be a git repository
    hint: check the path, and whether the key can read this repository
    ");
    assert_eq!(world.sshd.connections() - before, 1, "podstrap connects once");
}

#[test]
fn an_account_that_runs_no_git_says_what_it_says() {
    let Some(world) = World::with("ForceCommand echo 'Welcome to the shell that is none.'; echo 'ask the admin' >&2\n")
    else {
        return;
    };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    insta::assert_snapshot!(world.fails(&world.url(), &[]), @r"
    error: cannot list the references of ssh://***@[HOST][TMP]/repos/it's%20an%20app!.git
      because: the server's answer does not follow Git's protocol
      | Welcome to the shell that is none.
      | ask the admin
    hint: give the address for git clone, including the user
    ");
}

#[test]
fn what_does_not_speak_ssh_is_named() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let http = crate::support::http::Server::start(|_| crate::support::http::Response::new(200, "x".repeat(3000)));
    let error = world.fails(&world.sshd.url_at(http.port(), &world.repo.dir), &["--timeout", "3s"]);
    insta::assert_snapshot!(error, @r"
    error: cannot log in to [HOST] as [USER]
      because: the server closed the connection
      because: gave up after [N] tries in [TIME] (--timeout 3s)
    hint: check that an SSH server listens on that port
    ");
}

#[test]
fn silence_and_refusals_are_tried_again_and_told() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let started = Instant::now();
    let hang = relay(world.sshd.port(), &[Cut::Hang; 9]);
    let error = world.fails(&world.sshd.url_at(hang, &world.repo.dir), &["--timeout", "4s"]);
    // The pauses decide which try the deadline cuts.
    for part in ["error: cannot log in to [HOST] as [USER]", "no answer to SSH's handshake in [TIME]", "(--timeout 4s)"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(8));
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = world.fails(&world.sshd.url_at(unused, &world.repo.dir), &["--timeout", "2s"]);
    insta::assert_snapshot!(error, @r"
    error: cannot log in to [HOST] as [USER]
      because: cannot connect to [HOST]
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 2s)
    hint: check the host and the port, and whether the Pod's network policy allows the connection
    ");
    let error = world.fails("ssh://git@no-such-host.invalid/app.git", &["--timeout", "2s"]);
    assert!(error.contains("no-such-host.invalid has no address") && error.contains("tries in"), "{error}");
}

#[test]
fn a_connection_that_breaks_anywhere_is_made_again() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let mut random = fastrand::Rng::with_seed(1);
    world.repo.file("noise", (0..2 << 20).map(|_| random.u8(..)).collect::<Vec<_>>()).commit("more");
    // Before the greeting, during the handshake, and in the pack.
    let cuts = [Cut::Close, Cut::After(1000), Cut::After(300_000), Cut::Stall(300_000)];
    let port = relay(world.sshd.port(), &cuts);
    world.mount("known_hosts", world.sshd.known_at(port));
    let url = world.sshd.url_at(port, &world.repo.dir).replace(' ', "%20");
    let ran = world.clones(&url, &["--timeout", "12s"]);
    let said = ["try 1 failed", "try 2 failed", "the answer broke off after", "of the answer had arrived"];
    let missing: Vec<_> = said.iter().filter(|words| ran.raw.matches(**words).count() == 0).collect();
    assert!(missing.is_empty(), "{missing:?}: {}", ran.raw);
    assert_eq!(world.sshd.connections(), 4);
}

#[test]
fn a_list_after_which_nothing_is_asked_ends_in_peace() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("statuses");
    let command = format!("eval \"$SSH_ORIGINAL_COMMAND\"; echo $? >>{}", file.display());
    let Some(world) = World::with(&format!("ForceCommand {command}\n")) else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    for _ in 0..3 {
        world.clones(&world.url(), &[]);
    }
    let started = Instant::now();
    let statuses = || std::fs::read_to_string(&file).unwrap();
    while statuses().lines().count() < 3 && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // git-upload-pack exits with 128 if the client disconnects without a goodbye.
    assert_eq!(statuses(), "0\n0\n0\n", "{}", world.sshd.log());
}

#[test]
fn submodules_come_from_beside_the_repository_with_the_same_keys() {
    let Some(world) = World::new() else { return };
    world.good_key("ssh-privatekey", &["-t", "ed25519"]);
    let lib = Repo::new(&world.repo.dir.with_file_name("lib.git"));
    lib.file("lib.py", "1").commit("one");
    world.repo.git(["config", "-f", ".gitmodules", "submodule.lib.path", "lib"]);
    world.repo.git(["config", "-f", ".gitmodules", "submodule.lib.url", "../lib.git"]);
    world.repo.git(["add", ".gitmodules"]);
    world.repo.git(["update-index", "--add", "--cacheinfo", &format!("160000,{},lib", lib.rev("HEAD"))]);
    world.repo.git(["commit", "--quiet", "-m", "lib"]);
    let ran = world.init(&world.url(), &[]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.raw, world.sshd.log());
    assert!(world.published().contains("\"lib/lib.py\" 644 \"1\""), "{}", world.published());
}
