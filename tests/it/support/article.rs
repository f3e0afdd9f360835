//! The article's app, its dependencies, and runs of the binary on it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::git::{GitServer, Repo, listing};
use super::index::{self, IndexServer};
use super::sandbox::{Ran, Sandbox};

/// The article's repository behind a Git server, a package index with Flask, and a volume.
pub(crate) struct Article {
    pub(crate) sandbox: Sandbox,
    pub(crate) repo: Repo,
    pub(crate) git: GitServer,
    pub(crate) index: IndexServer,
}

impl Article {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        let repos = sandbox.path("repos");
        let repo = Repo::new(&repos.join("testapp.git"));
        repo.file(
            "python/flask/index.py",
            "from flask import Flask\napplication = Flask(__name__)\n\n@application.get('/')\ndef hello():\n    return 'Hello, World!'\n",
        )
        .file("python/testapp/index.py", "import redis\n")
        .file("README.md", "testapp\n")
        .commit("first");
        let (git, index) = (GitServer::start(&repos), IndexServer::start(&index::wheelhouse()));
        fs::write(sandbox.path("termination-log"), "").unwrap();
        Self { sandbox, repo, git, index }
    }

    /// `podstrap init` with the flags that all tests share.
    pub(crate) fn init(&self, engine: &str) -> Command {
        self.init_from(&self.git.url("testapp.git"), engine)
    }

    /// The same from another URL, which may contain credentials.
    pub(crate) fn init_from(&self, url: &str, engine: &str) -> Command {
        let mut command = self.sandbox.podstrap();
        command.arg("init").env("PODSTRAP_REPO", url).arg("--root").arg(self.sandbox.root());
        let engine = if engine == "uv" { index::uv().display().to_string() } else { engine.to_owned() };
        command.args(["--engine", &engine]).env("PIP_INDEX_URL", self.index.url());
        command
    }

    pub(crate) fn run(&self, command: &mut Command) -> Ran {
        self.sandbox.run(command)
    }

    pub(crate) fn ok(&self, command: &mut Command) -> Ran {
        let ran = self.run(command);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran
    }

    pub(crate) fn root(&self, name: &str) -> PathBuf {
        self.sandbox.root().join(name)
    }

    pub(crate) fn releases(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root(".podstrap/releases")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    pub(crate) fn manifest(&self) -> Value {
        let [release] = &self.releases()[..] else { panic!("{:?}", self.releases()) };
        serde_json::from_slice(&fs::read(release.join("release.json")).unwrap()).unwrap()
    }

    pub(crate) fn last_words(&self) -> String {
        fs::read_to_string(self.sandbox.path("termination-log")).unwrap()
    }

    /// Asserts that the command fails, leaves the root unchanged and writes the error to the termination message.
    pub(crate) fn refused(&self, command: &mut Command, code: i32) -> String {
        let before = listing(&self.sandbox.root());
        let ran = self.run(command);
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        let shown: Vec<_> = self.last_words().lines().map(str::to_owned).collect();
        assert!(
            !shown.is_empty() && shown.iter().all(|line| ran.raw.contains(line.as_str())),
            "{shown:?}\n{}",
            ran.raw
        );
        let after = listing(&self.sandbox.root());
        let published = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.contains("\".podstrap")).map(str::to_owned).collect()
        };
        assert_eq!(published(&before), published(&after));
        let at = ran.text.find("podstrap: error").or_else(|| ran.text.find("error: ")).unwrap_or(0);
        ran.text[at..].trim_end().to_owned()
    }
}
