//! Commits and tags with signatures that Git and ssh-keygen made.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::git::{GitServer, Repo, git};
use crate::support::sandbox::{Ran, Sandbox};

/// A repository with a server, and two keys.
struct World {
    sandbox: Sandbox,
    repo: Repo,
    server: GitServer,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let repo = Repo::new(&sandbox.path("repos/app.git"));
        repo.git(["config", "gpg.format", "ssh"]);
        let server = GitServer::start(&sandbox.path("repos"));
        Self { sandbox, repo, server }
    }

    /// Makes a key pair. Returns the private key and the text of the public one.
    fn key(&self, name: &str, kind: &str) -> (PathBuf, String) {
        let file = self.sandbox.path(name);
        let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-t", kind, "-f"]).arg(&file).status().unwrap();
        assert!(made.success());
        let public = fs::read_to_string(file.with_extension("pub")).unwrap();
        (file, public.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned())
    }

    /// Commits, signed with a key if there is one. Returns the commit.
    fn commit(&self, text: &str, key: Option<&PathBuf>) -> String {
        self.repo.file("index.py", text).git(["add", "--all"]);
        match key {
            Some(key) => {
                self.repo.git(["config", "user.signingkey", key.to_str().unwrap()]);
                self.repo.git(["commit", "--quiet", "-S", "-m", text])
            }
            None => self.repo.git(["commit", "--quiet", "-m", text]),
        };
        self.repo.rev("HEAD")
    }

    fn allow(&self, lines: &str) -> PathBuf {
        self.sandbox.write("allowed", lines)
    }

    fn init(&self, reference: &str, more: &[&str]) -> Ran {
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--venv", "none", "--repo", &self.server.url("app.git"), "--ref", reference]);
        command.arg("--verify").arg(self.sandbox.path("allowed")).args(more).arg("--root");
        self.sandbox.run(command.arg(self.sandbox.root()))
    }

    fn refused(&self, reference: &str, why: &str) {
        let before = fs::read_link(self.sandbox.root().join("index.py")).ok();
        let ran = self.init(reference, &[]);
        assert_eq!(ran.code, Some(3), "{why}: {}", ran.raw);
        assert!(ran.raw.contains("--verify requires a valid SSH signature") && ran.raw.contains(why), "{}", ran.raw);
        assert_eq!(fs::read_link(self.sandbox.root().join("index.py")).ok(), before, "{why}");
    }
}

#[test]
fn only_commits_of_allowed_signers_are_published() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let world = World::new();
        let ((dev, public), (other, other_public)) = (world.key("dev", kind), world.key("other", "ed25519"));
        world.allow(&format!("# team\ndev@example.org namespaces=\"git\" {public}\n"));
        let unsigned = world.commit("unsigned\n", None);
        world.refused("main", &format!("commit {unsigned}: it is not signed"));
        let good = world.commit("good\n", Some(&dev));
        let ran = world.init("main", &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert!(ran.raw.contains(", signed by dev@example.org"), "{}", ran.raw);
        let release = fs::read_to_string(world.sandbox.root().join(".podstrap/current/release.json")).unwrap();
        assert!(
            release.contains("\"principals\": \"dev@example.org\"")
                || release.contains("\"principals\":\"dev@example.org\""),
            "{release}"
        );
        let bad = world.commit("bad\n", Some(&other));
        world.refused("main", "allowed does not have its key");
        // By its hash, and also the whole repository.
        let ran = world.init(&good, &["--keep-git"]);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        world.refused(&bad, "allowed does not have its key");
        // The release of a signer whose key is not valid any more at the time of the commit is not used again.
        world.allow(&format!("dev@example.org valid-before=\"20200101\" {public}\n"));
        world.refused(&good, "is not valid at this time");
        // Nor that of a signer who is not allowed any more.
        world.allow(&format!("other@example.org {other_public}\n"));
        world.refused(&good, "allowed does not have its key");
        assert_eq!(world.init(&bad, &[]).code, Some(0));
    }
}

#[test]
fn the_tag_that_is_named_may_have_the_signature() {
    let world = World::new();
    let (dev, public) = world.key("dev", "ed25519");
    world.allow(&format!("dev@example.org {public}\n"));
    world.commit("one\n", None);
    world.repo.git(["config", "user.signingkey", dev.to_str().unwrap()]);
    world.repo.git(["tag", "-s", "-m", "first\n-----BEGIN SSH SIGNATURE-----\n", "v1"]);
    world.repo.git(["tag", "-a", "-m", "no signature", "v2"]);
    world.refused("v2", "tag v2: it is not signed");
    world.refused("main", "it is not signed");
    // Another name for a signed tag.
    world.repo.git(["update-ref", "refs/tags/v3", "refs/tags/v1"]);
    let other = "tag v1: its signature does not count for another name";
    world.refused("v3", other);
    // A tag of a tag, and a branch that leads to one: Git makes no such branch, but a server may.
    world.repo.git(["tag", "-a", "-m", "nested", "v4", "v1"]);
    world.refused("v4", other);
    let tag = world.repo.git(["rev-parse", "refs/tags/v1"]);
    fs::write(world.sandbox.path("repos/app.git/.git/refs/heads/old"), format!("{tag}\n")).unwrap();
    world.refused("old", other);
    assert_eq!(world.init("v1", &[]).code, Some(0));
    // Also on a volume that has the commit already.
    world.refused("v2", "tag v2: it is not signed");
    world.refused("old", other);
    assert_eq!(world.init(&tag, &[]).code, Some(0), "by its hash");
}

#[test]
fn a_signature_counts_only_as_git_made_it() {
    let world = World::new();
    let (dev, public) = world.key("dev", "ed25519");
    let good = world.commit("good\n", Some(&dev));
    let refused = |lines: &str, why: &str| {
        world.allow(lines);
        world.refused("main", why);
    };
    refused(&format!("dev valid-before=\"20000101\" {public}\n"), "not valid at this time");
    refused(&format!("dev valid-after=\"21000101\" {public}\n"), "not valid at this time");
    world.allow(&format!("dev {public}\n"));
    // The same signature over another text, then one that is not SSH's.
    let text = world.repo.git(["cat-file", "commit", &good]);
    for (from, to, why) in [
        ("\n\ngood", "\n\nevil", "signature"),
        ("BEGIN SSH SIGNATURE", "BEGIN PGP SIGNATURE", "it has an OpenPGP signature, which podstrap does not support"),
        ("BEGIN SSH SIGNATURE", "BEGIN SIGNED MESSAGE", "it has an X.509 signature, which podstrap does not support"),
        ("gpgsig ", "gpgsig x\ngpgsig ", "it has several signatures"),
        ("gpgsig ", "gpgsig-sha256 ", "it is not signed"),
    ] {
        let forged = format!("{}\n", text.replace(from, to));
        let file = world.sandbox.write("forged", &forged);
        let id = world.repo.git(["hash-object", "-t", "commit", "-w", "--literally", file.to_str().unwrap()]);
        world.repo.git(["update-ref", "refs/heads/forged", &id]);
        world.refused("forged", why);
    }
    let ran = world.init("main", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
}

#[test]
fn files_that_allow_nobody_are_usage_errors() {
    let world = World::new();
    let (_, public) = world.key("dev", "ed25519");
    world.commit("one\n", None);
    for (lines, why) in [
        (String::new(), "it has no keys"),
        ("dev ssh-ed25519 AAAA\n".to_owned(), "line 1: "),
        (format!("dev namespaces=\"podstrap\" {public}\n"), "keys for other namespaces"),
        (format!("dev cert-authority {public}\n"), "only certificate authorities"),
    ] {
        world.allow(&lines);
        let ran = world.init("main", &[]);
        assert_eq!(ran.code, Some(2), "{}", ran.raw);
        assert!(ran.raw.contains("cannot use the file of --verify") && ran.raw.contains(why), "{}", ran.raw);
    }
    fs::remove_file(world.sandbox.path("allowed")).unwrap();
    assert_eq!(world.init("main", &[]).code, Some(2));
    let mut command = world.sandbox.podstrap();
    command.args(["init", "--repo", "https://example.org/a.zip", "--verify", "/x", "--root"]);
    let ran = world.sandbox.run(command.arg(world.sandbox.root()));
    assert!(ran.code == Some(2) && ran.raw.contains("--verify cannot be used with"), "{}", ran.raw);
}

/// podstrap may refuse a line that ssh-keygen takes, but must not allow a key that it does not.
#[test]
fn no_line_allows_a_key_that_git_does_not() {
    let world = World::new();
    let (dev, public) = world.key("dev", "ed25519");
    world.commit("one\n", Some(&dev));
    let usual = [
        "dev KEY",
        "dev@example.org,other KEY a comment",
        "* namespaces=\"git\" KEY",
        "dev NAMESPACES=\"g?t,file\",valid-after=\"20200101\",valid-before=\"20990101000000Z\" KEY",
        "\"dev\" valid-after=\"202001010000\" KEY",
    ];
    let unusual = [
        "dev namespaces=git KEY",
        "dev namespaces=\"git KEY",
        "dev namespaces=\"git\",namespaces=\"git\" KEY",
        "dev namespaces=\"!git,*\" KEY",
        "dev namespaces=\"file\" KEY",
        "dev namespaces=\"git\" valid-after=\"20200101\" KEY",
        "dev valid-before=\"20200101\",valid-before=\"20300101\" KEY",
        "dev valid-after=\"20300101\",valid-before=\"20200101\" KEY",
        "dev valid-after=\"20200101\",valid-before=\"20200101\" KEY",
        "dev valid-before=\"20300101ZZ\" KEY",
        "dev valid-before=20300101 KEY",
        "dev valid-after=\"20250101\" KEY",
        "dev cert-authority KEY",
        "dev verify-required KEY",
        "dev namespaces=\"git\", KEY",
        "dev ,namespaces=\"git\" KEY",
        "!dev KEY",
        "*,!* KEY",
        "dev,!dev KEY",
        "dev, KEY",
        "d\"ev\" KEY",
        "\"\" KEY",
        "KEY",
    ];
    for (line, is_usual) in usual.map(|line| (line, true)).into_iter().chain(unusual.map(|line| (line, false))) {
        let allowed = world.allow(&format!("{}\n", line.replace("KEY", &public)));
        let signers = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
        let by_git = git(&world.repo.dir).args(["-c", &signers, "verify-commit", "HEAD"]).output().unwrap();
        let _ = fs::remove_dir_all(world.sandbox.root());
        fs::create_dir_all(world.sandbox.root()).unwrap();
        let ran = world.init("main", &[]);
        let (takes, said) = (by_git.status.success(), String::from_utf8_lossy(&by_git.stderr));
        assert!(takes || ran.code != Some(0), "{line}: git refuses it: {said}");
        assert!(!is_usual || (takes && ran.code == Some(0)), "{line}: {said}{}", ran.raw);
        println!("{line}: git {takes}, podstrap {:?}", ran.code);
    }
}
