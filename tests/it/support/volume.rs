//! An app in two versions, ways to publish it on a volume, and views of a volume.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::git::{GitServer, Repo};
use super::index::{self, IndexServer};
use super::sandbox::{Ran, Sandbox};

/// One way to run `init`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) engine: &'static str,
    pub(crate) link: Option<&'static str>,
    pub(crate) before: Before,
}

/// The state of the volume before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// No release: it is the first run.
    Nothing,
    /// An older release with other requirements.
    Other,
    /// An older release with the same requirements: `init` reuses its environment.
    Alike,
}

/// Both engines, with and without a link, first run and updates.
pub(crate) const SETUPS: [Setup; 10] = {
    const fn setup(engine: &'static str, link: Option<&'static str>, before: Before) -> Setup {
        Setup { engine, link, before }
    }
    [
        setup("pip", None, Before::Nothing),
        setup("uv", None, Before::Nothing),
        setup("pip", Some("app"), Before::Nothing),
        setup("uv", Some("app"), Before::Nothing),
        setup("pip", None, Before::Other),
        setup("uv", None, Before::Other),
        setup("pip", Some("app"), Before::Other),
        setup("uv", Some("app"), Before::Other),
        setup("uv", None, Before::Alike),
        setup("uv", Some("app"), Before::Alike),
    ]
};

impl std::fmt::Display for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = match self.before {
            Before::Nothing => "first run",
            Before::Other => "update",
            Before::Alike => "update of the app only",
        };
        let link = if self.link.is_some() { " --link" } else { "" };
        write!(f, "{}{link}, {run}", self.engine)
    }
}

/// The app's repository and an index with its requirements. Branches: `old`, `new`, and `alike` (the files of
/// `old` with the requirements of `new`).
pub(crate) struct App {
    pub(crate) sandbox: Sandbox,
    git: GitServer,
    pub(crate) index: IndexServer,
}

impl App {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        let repos = sandbox.path("repos");
        let repo = Repo::new(&repos.join("app.git"));
        repo.file("README.md", "the app\n")
            .file("requirements.txt", "click==8.1.7\nitsdangerous==2.2.0\n")
            .file("only-old.txt", "old\n")
            .file("python/app/__init__.py", "")
            .file("python/app/index.py", "VERSION = 'old'\n")
            .file("python/app/templates/a page.html", "<p>old</p>\n")
            .file("python/app/grüße.txt", "hello\n")
            .file("becomes-a-directory", "a file\n")
            .executable("bin/run", "#!/bin/sh\nexec python3 -m app\n")
            .link("bin/start", "run")
            .link("bin/nowhere", "is-not-there")
            .link("latest", "python/app")
            .commit("old");
        repo.git(["branch", "old"]);
        repo.file("requirements.txt", "click==8.1.8\nitsdangerous==2.2.0\nblinker==1.9.0\n").commit("alike");
        repo.git(["branch", "alike"]);
        fs::remove_file(repo.dir.join("only-old.txt")).expect("the sandbox is writable");
        fs::remove_file(repo.dir.join("becomes-a-directory")).expect("the sandbox is writable");
        repo.file("only-new.txt", "new\n")
            .file("becomes-a-directory/file", "a directory\n")
            .file("python/app/index.py", "VERSION = 'new'\n")
            .commit("new");
        repo.git(["branch", "new"]);
        let (git, index) = (GitServer::start(&repos), IndexServer::start(&index::wheelhouse()));
        Self { sandbox, git, index }
    }

    /// `init` of a branch.
    pub(crate) fn init(&self, engine: &str, branch: &str, root: &Path, link: Option<&str>) -> Command {
        let engine = if engine == "uv" { index::uv().display().to_string() } else { engine.to_owned() };
        let mut command = self.sandbox.podstrap();
        command
            .args(["init", "--ref", branch, "-r", "requirements.txt", "--engine", &engine])
            .args(["--repo", &self.git.url("app.git")])
            .args(["--venv", "python/venv", "--venv-final-path", "/app/python/venv"])
            .arg("--root")
            .arg(root)
            .env("PIP_INDEX_URL", self.index.url());
        if let Some(link) = link {
            command.args(["--link", link]);
        }
        command
    }

    /// The run to disturb.
    pub(crate) fn run_of(&self, setup: Setup, root: &Path) -> Command {
        self.init(setup.engine, "new", root, setup.link)
    }

    /// How often the app was fetched: once for each build.
    pub(crate) fn fetched(&self) -> usize {
        self.git.packs()
    }

    /// The directory of a setup.
    pub(crate) fn place(&self, setup: Setup) -> PathBuf {
        self.sandbox.path(&setup.to_string().replace(", ", "-").replace(' ', ""))
    }

    /// Runs the command and asserts that it succeeds.
    pub(crate) fn ok(&self, command: &mut Command) -> Ran {
        let ran = self.sandbox.run(command);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran
    }

    /// Prepares the volume for that run: files of other programs, and an older release if the setup has one.
    pub(crate) fn prepare(&self, setup: Setup, root: &Path) {
        foreign(root);
        let branch = match setup.before {
            Before::Nothing => return,
            Before::Other => "old",
            Before::Alike => "alike",
        };
        self.ok(&mut self.init(setup.engine, branch, root, setup.link));
    }
}

/// The known states of a setup, before and after an undisturbed run.
pub(crate) struct Known {
    pub(crate) setup: Setup,
    /// A volume in the state before the run, to copy from.
    pub(crate) before: PathBuf,
    /// A volume after the undisturbed run.
    pub(crate) after: PathBuf,
    /// A reader's view before and after it.
    pub(crate) old: Tree,
    pub(crate) new: Tree,
    pub(crate) complete: Tree,
    pub(crate) took: Duration,
}

impl Known {
    pub(crate) fn new(app: &App, setup: Setup) -> Self {
        let path = |name: &str| app.place(setup).join(name);
        let (before, after) = (path("before"), path("after"));
        app.prepare(setup, &before);
        copy(&before, &after);
        let start = Instant::now();
        app.ok(&mut app.run_of(setup, &after));
        let took = start.elapsed();
        let (old, new, complete) = (view(&before), view(&after), everything(&after));
        assert_ne!(old, new);
        Self { setup, before, after, old, new, complete, took }
    }

    /// Returns the state that a reader sees: `nothing`, `old` or `new`.
    ///
    /// # Panics
    /// A reader sees another state.
    pub(crate) fn seen(&self, root: &Path, what: &str) -> &'static str {
        let seen = view(root);
        match () {
            () if seen == self.new => "new",
            () if seen == self.old && self.setup.before != Before::Nothing => "old",
            () if seen == self.old => "nothing",
            () => panic!("{what}: a reader sees neither the old state nor the new:\n{}", difference(&self.new, &seen)),
        }
    }

    /// Asserts that the volume equals the one after the undisturbed run.
    pub(crate) fn assert_complete(&self, root: &Path, what: &str) {
        let found = everything(root);
        assert!(found == self.complete, "{what}:\n{}", difference(&self.complete, &found));
    }
}

/// Writes files of other programs to the volume.
fn foreign(root: &Path) {
    let write = || {
        fs::create_dir_all(root.join("lost+found"))?;
        fs::write(root.join("lost+found/#12"), "found")?;
        fs::set_permissions(root.join("lost+found"), fs::Permissions::from_mode(0o755))?;
        fs::write(root.join("users-file"), "mine")?;
        symlink("elsewhere", root.join("users-link"))
    };
    write().expect("the sandbox is writable");
}

/// By path below a directory: type, mode and a digest of the contents, or the target of a link.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// Every file of a volume, except the build times of its release, and the boot that it depends on.
pub(crate) fn everything(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, Path::new(""), &mut tree);
    let releases = Path::new(".podstrap/releases");
    tree.retain(|path, _| !(path.ends_with("boot") && path.parent().and_then(Path::parent) == Some(releases)));
    tree
}

/// A reader's view: the volume without podstrap's own directory, with links followed. A dangling link shows
/// nothing.
pub(crate) fn view(root: &Path) -> Tree {
    let mut tree = Tree::new();
    for name in names(root).into_iter().filter(|name| name != ".podstrap") {
        let path = root.join(&name);
        let ours = fs::read_link(&path).is_ok_and(|to| to.starts_with(".podstrap"));
        if !ours {
            walk(&path, Path::new(&name), &mut tree);
        } else if let Ok(path) = fs::canonicalize(&path) {
            walk(&path, Path::new(&name), &mut tree);
        }
    }
    tree
}

/// A readable difference; empty if the trees are equal.
pub(crate) fn difference(wanted: &Tree, found: &Tree) -> String {
    let mut text = String::new();
    for path in wanted.keys().chain(found.keys().filter(|path| !wanted.contains_key(*path))) {
        let what = |tree: &Tree| tree.get(path).cloned().unwrap_or_else(|| "not there".to_owned());
        if wanted.get(path) != found.get(path) {
            writeln!(text, "{}: {} instead of {}", path.display(), what(found), what(wanted)).expect("a string");
        }
    }
    text
}

fn walk(path: &Path, name: &Path, tree: &mut Tree) {
    let meta = fs::symlink_metadata(path).expect("no process changes the volume");
    let mode = meta.permissions().mode() & 0o7777;
    let what = if meta.is_dir() {
        for entry in names(path) {
            walk(&path.join(&entry), &name.join(&entry), tree);
        }
        format!("directory {mode:o}")
    } else if meta.is_symlink() {
        format!("-> {}", fs::read_link(path).expect("a link").display())
    } else {
        let mut contents = fs::read(path).expect("readable");
        let release = path.parent().and_then(Path::parent).is_some_and(|dir| dir.ends_with(".podstrap/releases"));
        if release && path.ends_with("release.json") {
            let mut manifest: serde_json::Value = serde_json::from_slice(&contents).expect("release.json is JSON");
            // The build time, and the times of its files.
            manifest["built_at"].take();
            manifest["environment"]["fingerprint"].take();
            contents = manifest.to_string().into_bytes();
        }
        let digest = Sha256::digest(&contents);
        format!("file {mode:o}, {} bytes, {:02x?}", contents.len(), &digest[..8])
    };
    tree.insert(name.to_owned(), what);
}

/// The names in a directory; empty if it does not exist.
pub(crate) fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("readable").file_name()).collect()
}

/// Copies a volume with its modes and links.
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp starts");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

/// The seed of all random numbers: `PODSTRAP_TEST_SEED`, or 1.
pub(crate) fn seed() -> u64 {
    std::env::var("PODSTRAP_TEST_SEED").map_or(1, |text| text.parse().expect("PODSTRAP_TEST_SEED is a number"))
}
