//! A store of ready environments, with real packages.

mod command;
mod failures;
mod keys;
mod kills;
mod registry;
mod restore;
mod shared;
mod signed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::sandbox::Ran;
use crate::support::volume::App;

/// An app with a store. The index counts its requests.
struct Bench {
    app: App,
    store: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let app = App::new();
        let store = app.sandbox.path("store");
        fs::create_dir(&store).unwrap();
        Self { app, store }
    }

    fn root(&self, name: &str) -> PathBuf {
        let root = self.app.sandbox.path(name);
        fs::create_dir_all(&root).unwrap();
        root
    }

    /// `init` of the branch `old` with the store, to a volume of this name.
    fn init(&self, engine: &str, volume: &str) -> Command {
        self.init_of("old", engine, volume)
    }

    fn init_of(&self, branch: &str, engine: &str, volume: &str) -> Command {
        let mut command = self.app.init(engine, branch, &self.root(volume), None);
        command.arg("--store").arg(&self.store);
        command
    }

    fn run(&self, command: &mut Command) -> Ran {
        self.app.ok(command)
    }

    /// Runs it, and asserts that it builds.
    fn builds(&self, command: &mut Command) -> Ran {
        let before = self.app.index.requests();
        let ran = self.run(command);
        assert!(self.app.index.requests() > before, "{}", ran.raw);
        assert!(!ran.raw.contains("from the store"), "{}", ran.raw);
        ran
    }

    /// Runs it, and asserts that it restores from the store without a request to the index.
    fn restores(&self, command: &mut Command) -> Ran {
        let before = self.app.index.requests();
        let ran = self.run(command);
        assert!(ran.raw.contains("from the store"), "{}", ran.raw);
        assert_eq!(self.app.index.requests(), before, "{}", ran.raw);
        ran
    }

    /// The files of the store with this suffix.
    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(&self.store).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.to_str().unwrap().ends_with(suffix));
        found.sort();
        found
    }

    fn manifest(&self) -> Value {
        let [file] = &self.files(".json")[..] else { panic!("{:?}", self.files("")) };
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    fn record(&self, volume: &str) -> Value {
        let path = self.app.sandbox.path(volume).join(".podstrap/current/release.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

/// The lines of a run that warn.
fn warnings(ran: &Ran) -> Vec<&str> {
    ran.text.lines().filter_map(|line| line.strip_prefix("podstrap: warning: ")).collect()
}

/// The environment of a volume.
fn venv(volume: &Path) -> PathBuf {
    volume.join(".podstrap/current/tree/python/venv")
}
