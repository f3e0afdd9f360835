//! Builds an environment with the library, with either engine.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use podstrap::cli::{self, Cli};
use podstrap::error::{Error, Kind};
use podstrap::plan::{EngineRequest, Environment, Init, PythonRequest};
use podstrap::retry::Deadline;
use podstrap::venv::{self, BuildDirs, Builder, Built, Inputs, Settings};

use super::index::uv;
use super::sandbox::Sandbox;

/// Parses the flags that select the location of the environment.
pub(crate) fn wanted(venv: &str, final_path: &Path) -> Environment {
    let line = ["podstrap", "init", "--repo", "x", "--root", "/vol", "--venv", venv, "--venv-final-path"];
    let cli = Cli::try_parse(line.iter().map(OsString::from).chain([final_path.into()])).unwrap();
    let cli::Command::Init(args) = cli.command else { panic!("{cli:?}") };
    Init::new(args).unwrap().environment
}

/// A future volume: all inputs of the library.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) vars: BTreeMap<String, String>,
    pub(crate) python: PythonRequest,
    pub(crate) engine: EngineRequest,
    pub(crate) inputs: Inputs,
    pub(crate) limit: Duration,
}

impl Bench {
    pub(crate) fn new(engine: EngineRequest, index: &str) -> Self {
        let sandbox = Sandbox::new();
        for dir in ["home", "scratch", "tree", "staging"] {
            std::fs::create_dir(sandbox.path(dir)).unwrap();
        }
        let vars = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("HOME", sandbox.path("home").to_str().unwrap().to_owned()),
            ("PIP_INDEX_URL", index.to_owned()),
        ];
        Self {
            sandbox,
            vars: vars.map(|(name, value)| (name.to_owned(), value)).into(),
            python: PythonRequest::Default,
            engine,
            inputs: Inputs::default(),
            limit: Duration::from_mins(5),
        }
    }
    pub(crate) fn packages(mut self, packages: &[&str]) -> Self {
        self.inputs.packages = packages.iter().map(|package| (*package).to_owned()).collect();
        self
    }
    pub(crate) fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.insert(name.to_owned(), value.into());
        self
    }
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
    pub(crate) fn requirements(mut self, text: &str) -> Self {
        self.inputs.requirements = vec![self.sandbox.write("tree/requirements.txt", text)];
        self
    }
    pub(crate) fn staging(&self) -> PathBuf {
        self.sandbox.path("staging/venv")
    }
    pub(crate) fn dirs(&self) -> BuildDirs {
        BuildDirs { venv: self.staging(), scratch: self.sandbox.path("scratch") }
    }
    pub(crate) fn final_path(&self) -> PathBuf {
        self.sandbox.path("app/python/venv")
    }
    pub(crate) fn settings(&self) -> Settings {
        Settings::from_env(self.vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    /// Builds the environment, runs `meanwhile` between installing and finishing, and moves it to its final place.
    pub(crate) fn build_with(&self, meanwhile: impl FnOnce(&Path)) -> Result<Built, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let built = runtime.block_on(async {
            let deadline = Deadline::after(self.limit);
            let settings = self.settings();
            let toolchain =
                venv::locate(&settings, &self.python, &self.engine, &venv::Identities::default(), deadline).await?;
            let path = |name| self.sandbox.path(name);
            let started = Instant::now();
            let wanted = wanted("python/venv", &self.final_path());
            let builder = Builder::create(settings, &toolchain, &wanted, &path("app"), self.dirs(), deadline).await?;
            let created = started.elapsed();
            builder.install(&self.inputs, Some(&path("tree")), deadline).await?;
            let installed = started.elapsed();
            meanwhile(&self.staging());
            let built = builder.finish(None, deadline).await?;
            eprintln!(
                "{:?}: create {created:.2?}, install {:.2?}, finish {:.2?}",
                built.engine,
                installed.saturating_sub(created),
                started.elapsed().saturating_sub(installed)
            );
            Ok(built)
        })?;
        std::fs::create_dir_all(self.final_path().parent().unwrap()).unwrap();
        let _ = std::fs::remove_dir_all(self.final_path());
        std::fs::rename(self.staging(), self.final_path()).unwrap();
        Ok(built)
    }
    pub(crate) fn build(&self) -> Built {
        self.build_with(|_| ()).unwrap_or_else(|error| panic!("{error}"))
    }
    /// Returns the error's text with variable parts replaced.
    pub(crate) fn fails(&self) -> String {
        let error = self.build_with(|_| ()).expect_err("it should fail");
        assert_eq!(error.kind(), Kind::Environment, "{error}");
        self.normal(&error)
    }
    pub(crate) fn normal(&self, error: &Error) -> String {
        let mut text = error.to_string().replace(self.sandbox.path("").to_str().unwrap(), "[TMP]/");
        for (pattern, to) in [
            (r"127\.0\.0\.1:\d+", "[HOST]"),
            (r"\bcp3\d+ (many|musl)linux \w+", "[PLATFORM]"),
            (r"pip \d[\d.]+", "pip [VERSION]"),
            (r"uv \d[\d.]+", "uv [VERSION]"),
            (r"\d+ (try|tries) in \d+\.\d s", "[N] tries in [TIME]"),
            (r"after \d+\.\d s", "after [TIME]"),
            (r"in \d+(\.\d+)?m?s\b", "in [TIME]"),
            (r"0x[0-9a-f]+", "[ADDRESS]"),
            (r"PATH \(.*\)", "PATH ([PATH])"),
        ] {
            text = regex::Regex::new(pattern).unwrap().replace_all(&text, to).into_owned();
        }
        text
    }
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(self.final_path().join(program)).env_clear().args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
    /// By path: the contents of files and the targets of links.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        read_tree(&self.final_path())
    }
    pub(crate) fn site(&self) -> PathBuf {
        let lib = self.final_path().join("lib");
        lib.read_dir().unwrap().next().unwrap().unwrap().path().join("site-packages")
    }
}

pub(crate) fn read_tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_symlink() {
                files.insert(name, path.read_link().unwrap().into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Writes an executable script. A separate process writes it: if a concurrent test's fork inherited the
/// descriptor, running the script would fail as "busy".
pub(crate) fn script(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let path = sandbox.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let status = Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
    assert!(status.success());
    path
}

pub(crate) fn engines() -> [EngineRequest; 2] {
    [EngineRequest::UvAt(uv()), EngineRequest::Pip]
}

pub(crate) fn names(built: &Built) -> Vec<String> {
    built.distributions.iter().map(|dist| format!("{} {}", dist.name.to_lowercase(), dist.version)).collect()
}

pub(crate) fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}
