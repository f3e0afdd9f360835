//! A scratch directory, runs of the binary in it, and its output with variable parts replaced.

use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

/// The directory of one test. Paths below it appear as `[TMP]` in [`Ran::text`].
pub struct Sandbox {
    dir: TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    /// stderr, unchanged.
    pub raw: String,
    /// stderr with paths, ports, durations and hashes replaced, for snapshots.
    pub text: String,
}

impl Ran {
    /// The final error, without its prefix and earlier log lines.
    pub fn error(&self) -> &str {
        self.text.split_once("podstrap: error: ").map_or("", |(_, error)| error.trim_end())
    }
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// The shared volume.
    pub fn root(&self) -> PathBuf {
        let root = self.path("volume");
        std::fs::create_dir_all(&root).expect("the sandbox is writable");
        root
    }
    /// Writes a file, creates its parents and returns its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a name")).expect("the sandbox is writable");
        std::fs::write(&path, contents).expect("the sandbox is writable");
        path
    }

    /// The binary. Its environment contains only PATH and the sandbox's HOME, TMPDIR and termination message
    /// file.
    pub fn podstrap(&self) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podstrap"));
        std::fs::create_dir_all(self.path("tmp")).expect("the sandbox is writable");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("PODSTRAP_TERMINATION_LOG", self.path("termination-log"))
            .current_dir(self.dir.path());
        command
    }

    /// Runs the command until it exits.
    pub fn run(&self, command: &mut std::process::Command) -> Ran {
        self.ran(&command.output().expect("the binary starts"))
    }

    pub fn ran(&self, output: &Output) -> Ran {
        let raw = String::from_utf8_lossy(&output.stderr).into_owned();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            text: normalize(&raw, self.dir.path()),
            raw,
        }
    }
}

/// Replaces the parts that differ between runs.
fn normalize(text: &str, dir: &Path) -> String {
    let text = text.replace(&*dir.to_string_lossy(), "[TMP]");
    let rules = [
        (r"127\.0\.0\.1:\d+|localhost:\d+", "[HOST]"),
        (r"\b[0-9a-f]{40}\b", "[COMMIT]"),
        (r"\b[0-9a-f]{12}\b", "[SHORT]"),
        (r"staging/[0-9a-z]+", "staging/[RANDOM]"),
        (r"podstrap-up-[0-9A-Za-z]+", "podstrap-up-[RANDOM]"),
        (r" +\d+\.\d+ ?s\b", " [TIME]"),
    ];
    rules.iter().fold(text, |text, (pattern, to)| {
        regex::Regex::new(pattern).expect("a valid pattern").replace_all(&text, *to).into_owned()
    })
}
