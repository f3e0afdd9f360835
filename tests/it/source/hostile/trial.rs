//! A sandbox full of tripwires, and objects that git would not create.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::{ObjectType, Odb, Oid, Repository};

use crate::support::git::{git, listing};
use crate::support::sandbox::{Ran, Sandbox};

/// More time than the slowest case needs in a debug build on a busy machine.
pub(super) const SOON: Duration = Duration::from_mins(1);
/// Limit of the binary's address space in KiB: enough for its threads' stacks and arenas, too small for a bomb.
pub(super) const MEMORY: u32 = 2 << 20;

/// A sandbox with tripwires.
pub(super) struct Trial {
    pub(super) sandbox: Sandbox,
    pub(super) before: String,
}

impl Trial {
    pub(super) fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.write("victim/file", "untouched");
        // Configuration that git and libgit2 would read here, and a program that it would run.
        let evil = format!("{} #", sandbox.path("bin/git").display());
        let config = format!(
            "[filter \"evil\"]\n\tsmudge = {evil}\n\tprocess = {evil}\n\trequired = true\n[core]\n\thooksPath = {}\n\
             \tsshCommand = {evil}\n\tfsmonitor = {evil}\n[protocol]\n\tallow = always\n[submodule]\n\trecurse = true\n",
            sandbox.path("bin").display()
        );
        sandbox.write("home/.gitconfig", config);
        let script = format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\n", sandbox.path("mark").display());
        for program in ["git", "git-lfs", "ssh", "sh", "post-checkout", "evil"] {
            let path = sandbox.write(&format!("bin/{program}"), &script);
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let _ = (sandbox.root(), sandbox.podstrap());
        let before = outside(&sandbox);
        Self { sandbox, before }
    }

    /// Creates a repository whose branch `evil` is a commit of the tree from `make`. Returns its URL.
    pub(super) fn repository(&self, make: impl FnOnce(&Odb<'_>) -> Oid) -> String {
        // Outside the part of the sandbox whose contents are compared.
        let dir = self.sandbox.root().join("lost+found/evil.git");
        let repo = Repository::init_bare(&dir).unwrap();
        let odb = repo.odb().unwrap();
        let tree = make(&odb);
        let commit = commit(&odb, tree);
        repo.reference("refs/heads/evil", commit, true, "").unwrap();
        format!("file://{}", dir.display())
    }

    pub(super) fn init(&self, repo: &str, args: &[&str]) -> Ran {
        // The shell sets the limit, then execs podstrap.
        let binary = self.sandbox.podstrap();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")).arg(binary.get_program());
        command.env_clear().envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", self.sandbox.path("bin")).current_dir(self.sandbox.path(""));
        command.args(["init", "--repo", repo, "--link", "app", "--log-level", "debug", "--root"]);
        command.arg(self.sandbox.root()).args(args);
        for (flag, value) in [("--timeout", "30s"), ("--venv", "none")] {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        let started = Instant::now();
        let ran = self.sandbox.run(&mut command);
        assert!(started.elapsed() < SOON, "{:?}: {}", started.elapsed(), ran.raw);
        self.check(&ran);
        ran
    }

    /// Asserts what must hold after every run.
    pub(super) fn check(&self, ran: &Ran) {
        let mark = std::fs::read_to_string(self.sandbox.path("mark")).unwrap_or_default();
        assert_eq!(mark, "", "a program was started");
        assert_eq!(outside(&self.sandbox), self.before, "something outside the volume changed: {}", ran.raw);
        assert!(ran.raw.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "{:?}", ran.raw);
        assert!(!ran.raw.lines().any(|line| line.starts_with("hint: evil")), "{:?}", ran.raw);
        assert!(!ran.raw.contains("panicked"), "{}", ran.raw);
        assert_eq!(ran.stdout, "");
        let message = std::fs::read(self.sandbox.path("termination-log")).unwrap_or_default();
        assert!(message.len() <= 4096, "Kubernetes takes 4096 bytes");
        let published = self.sandbox.root().join("app");
        match ran.code {
            Some(0) => assert!(published.is_dir()),
            Some(2..=5) => {
                assert!(std::fs::symlink_metadata(&published).is_err(), "podstrap published something");
                assert!(ran.raw.contains("error: "), "{}", ran.raw);
            }
            code => panic!("{code:?}: {}", ran.raw),
        }
    }

    pub(super) fn published(&self) -> String {
        listing(&self.sandbox.root().join("app").canonicalize().unwrap())
    }

    /// Asserts exit code 3 and this text.
    pub(super) fn refused(&self, repo: &str, args: &[&str], words: &str) {
        let ran = self.init(repo, args);
        assert_eq!(ran.code, Some(3), "{}", ran.raw);
        assert!(ran.raw.contains(words), "{words:?} is not in {}", ran.raw);
    }
}

/// Lists the sandbox, except the volume and the termination message.
pub(super) fn outside(sandbox: &Sandbox) -> String {
    let all = listing(&sandbox.path(""));
    let ours = |line: &&str| line.starts_with("\"volume/") || line.starts_with("\"termination-log");
    all.lines().filter(|line| !ours(line)).collect::<Vec<_>>().join("\n")
}

pub(super) fn commit(odb: &Odb<'_>, tree: Oid) -> Oid {
    let text = format!("tree {tree}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nevil\n");
    odb.write(ObjectType::Commit, text.as_bytes()).unwrap()
}

pub(super) fn blob(odb: &Odb<'_>, contents: &[u8]) -> Oid {
    odb.write(ObjectType::Blob, contents).unwrap()
}

/// Writes a tree with these entries, in this order.
pub(super) fn tree(odb: &Odb<'_>, entries: &[(&str, &[u8], Oid)]) -> Oid {
    odb.write(ObjectType::Tree, &tree_bytes(entries)).unwrap()
}

pub(super) fn tree_bytes(entries: &[(&str, &[u8], Oid)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(mode, name, oid)| [mode.as_bytes(), b" ", *name, b"\0", oid.as_bytes()].concat())
        .collect()
}

/// An entry for this mode: a file or a link with the content `evil`, or a directory with a file `x`.
pub(super) fn entry(odb: &Odb<'_>, mode: &str) -> Oid {
    let file = blob(odb, b"evil");
    if mode == "40000" { tree(odb, &[("100644", b"x", file)]) } else { file }
}

/// Lists git's own checkout; `None` if git fails.
pub(super) fn with_git(url: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.envs(git(dir.path()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let script = "umask 022; exec git clone --quiet --branch evil -- \"$0\" tree";
    let done = shell.args(["-c", script, url]).current_dir(dir.path()).output().unwrap();
    done.status.success().then(|| listing(&dir.path().join("tree")))
}

pub(super) type Make = Box<dyn Fn(&Odb<'_>) -> Oid>;

pub(super) fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
