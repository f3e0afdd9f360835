//! A tree with inputs, a package index, a Git repository, and `init` of the tree with either engine.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::git::{GitServer, Repo};
use super::index::{self, Behaviour, IndexServer};
use super::packages::{project, sdist, wheel};
use super::sandbox::{Ran, Sandbox};

/// Packages, an index that serves them, Git repositories, and a tree.
pub(crate) struct Place {
    pub(crate) sandbox: Sandbox,
    pub(crate) index: IndexServer,
    pub(crate) git: GitServer,
    pub(crate) uv: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::behaving(Behaviour::default())
    }

    pub(crate) fn behaving(behaviour: Behaviour) -> Self {
        let sandbox = Sandbox::new();
        let wheels = sandbox.path("wheels");
        wheel(&wheels, "alpha", "1.0", &["beta>=1"]);
        wheel(&wheels, "beta", "1.0", &[]);
        wheel(&wheels, "beta", "2.0", &[]);
        wheel(&wheels, "gamma", "1.0", &["delta ; extra == 'x'"]);
        wheel(&wheels, "delta", "1.0", &[]);
        sdist(&wheels, "source", &sandbox.path("mark"));
        for entry in fs::read_dir(index::wheelhouse()).unwrap().flatten() {
            if ["setuptools-", "wheel-"].iter().any(|name| entry.file_name().to_string_lossy().starts_with(name)) {
                fs::copy(entry.path(), wheels.join(entry.file_name())).unwrap();
            }
        }
        let repos = sandbox.path("repos");
        let repo = Repo::new(&repos.join("lib.git"));
        for (file, text) in project("lib", &sandbox.path("mark"), "") {
            repo.file(file, text);
        }
        repo.commit("first");
        let (index, git) = (IndexServer::behaving(&wheels, behaviour), GitServer::start(&repos));
        Self { sandbox, index, git, uv: index::uv() }
    }

    /// Replaces the tree's files.
    pub(crate) fn tree(&self, files: &[(&str, &str)]) -> PathBuf {
        let tree = self.sandbox.path("tree");
        let _ = fs::remove_dir_all(&tree);
        self.sandbox.write("tree/index.py", "");
        for (name, text) in files {
            self.sandbox.write(&format!("tree/{name}"), text);
        }
        tree
    }
    pub(crate) fn add(&self, dir: &str, files: Vec<(String, String)>) {
        for (name, text) in files {
            self.sandbox.write(&format!("tree/{dir}/{name}"), text);
        }
    }
    /// Runs uv in the tree, to create its lock.
    pub(crate) fn uv(&self, args: &[&str]) {
        let output = Command::new(index::uv())
            .args(args)
            .current_dir(self.sandbox.path("tree"))
            .env("UV_CACHE_DIR", self.sandbox.path("uv-cache"))
            .env("UV_DEFAULT_INDEX", self.index.url_with("bob", "p4ss-of-index"))
            .env("UV_PYTHON_DOWNLOADS", "never")
            .output()
            .unwrap();
        assert!(output.status.success(), "uv {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn command(&self, engine: &str, args: &[&str]) -> Command {
        let root = self.sandbox.path(&format!("volume-{engine}"));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        let engine = if engine == "uv" { self.uv.display().to_string() } else { engine.to_owned() };
        let mut command = self.sandbox.podstrap();
        command
            .args(["init", "--venv-final-path", "/app/venv", "--timeout", "2m", "--engine", &engine, "--repo"])
            .arg(self.sandbox.path("tree"))
            .arg("--root")
            .arg(root)
            .args(args)
            .env("PIP_INDEX_URL", self.index.url());
        command
    }

    pub(crate) fn installed(&self, engine: &str, args: &[&str]) -> Installed {
        self.finish(engine, &mut self.command(engine, args))
    }
    pub(crate) fn finish(&self, engine: &str, command: &mut Command) -> Installed {
        let ran = self.sandbox.run(command);
        assert_eq!(ran.code, Some(0), "{engine}: {command:?}\n{}", ran.raw);
        let root = self.sandbox.path(&format!("volume-{engine}"));
        let releases = fs::read_dir(root.join(".podstrap/releases")).unwrap().next().unwrap().unwrap().path();
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(releases.join("release.json")).unwrap()).unwrap();
        let packages = manifest["environment"]["packages"].as_array().unwrap().iter();
        let packages = packages
            .map(|package| {
                format!("{} {}", package["name"].as_str().unwrap().to_lowercase(), package["version"].as_str().unwrap())
            })
            .collect();
        let mut files = BTreeMap::new();
        collect(&root.join("venv"), Path::new(""), &mut files);
        // No file contains the build path.
        for (name, bytes) in &files {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains(".podstrap/staging"), "{engine} {command:?}: {}", name.display());
        }
        files.retain(|name, _| !OF_ENGINE.iter().any(|of_engine| name.ends_with(of_engine)));
        Installed { ran, packages, files }
    }

    pub(crate) fn refused(&self, engine: &str, args: &[&str]) -> String {
        let ran = self.sandbox.run(&mut self.command(engine, args));
        assert_eq!(ran.code, Some(4), "{engine} {args:?}: {}", ran.raw);
        ran.error().to_owned()
    }

    /// Asserts that both engines install the same files, and returns the packages.
    pub(crate) fn same(&self, args: &[&str]) -> Vec<String> {
        let [uv, pip] = ENGINES.map(|engine| self.installed(engine, args));
        assert_eq!(uv.packages, pip.packages, "{args:?}");
        let differ: Vec<_> = uv
            .files
            .keys()
            .chain(pip.files.keys())
            .filter(|name| uv.files.get(*name) != pip.files.get(*name))
            .collect();
        assert!(differ.is_empty(), "{args:?}: {differ:?}");
        assert!(uv.files.keys().any(|name| name.ends_with("METADATA")), "{args:?}: nothing to compare");
        uv.packages
    }

    /// Returns and clears the record of package code that ran.
    pub(crate) fn ran(&self) -> String {
        let text = fs::read_to_string(self.sandbox.path("mark")).unwrap_or_default();
        let _ = fs::remove_file(self.sandbox.path("mark"));
        text
    }
}

/// The result of an installation.
pub(crate) struct Installed {
    pub(crate) ran: Ran,
    pub(crate) packages: Vec<String>,
    /// The files of the environment by path, except [`OF_ENGINE`].
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
}

pub(crate) const ENGINES: [&str; 2] = ["uv", "pip"];

/// Files in which an installer describes itself.
pub(crate) const OF_ENGINE: &[&str] =
    &["INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"];

pub(crate) fn collect(dir: &Path, name: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if path.is_symlink() {
            files.insert(name, fs::read_link(path).unwrap().into_os_string().into_encoded_bytes());
        } else if path.is_dir() {
            collect(&path, &name, files);
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
}
