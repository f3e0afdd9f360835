//! Real environments, built by both engines from a local index.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use podstrap::cli::{self, Cli};
use podstrap::error::{Error, Kind};
use podstrap::plan::{EngineRequest, Environment, Init, PythonRequest};
use podstrap::retry::Deadline;
use podstrap::venv::{self, BuildDirs, Builder, Built, Inputs, Settings};

use crate::support::index::{Behaviour, IndexServer, uv, wheelhouse};
use crate::support::sandbox::Sandbox;

/// What the flags mean that put the environment there.
fn wanted(venv: &str, final_path: &Path) -> Environment {
    let line = ["podstrap", "init", "--repo", "x", "--root", "/vol", "--venv", venv, "--venv-final-path"];
    let cli = Cli::try_parse(line.iter().map(OsString::from).chain([final_path.into()])).unwrap();
    let cli::Command::Init(args) = cli.command else { panic!("{cli:?}") };
    Init::new(args).unwrap().environment
}

/// A volume to be: everything that the library is given.
struct Bench {
    sandbox: Sandbox,
    vars: BTreeMap<String, String>,
    python: PythonRequest,
    engine: EngineRequest,
    inputs: Inputs,
    limit: Duration,
}

impl Bench {
    fn new(engine: EngineRequest, index: &str) -> Self {
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
    fn packages(mut self, packages: &[&str]) -> Self {
        self.inputs.packages = packages.iter().map(|package| (*package).to_owned()).collect();
        self
    }
    fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.insert(name.to_owned(), value.into());
        self
    }
    fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
    fn requirements(mut self, text: &str) -> Self {
        self.inputs.requirements = vec![self.sandbox.write("tree/requirements.txt", text)];
        self
    }
    fn staging(&self) -> PathBuf {
        self.sandbox.path("staging/venv")
    }
    fn dirs(&self) -> BuildDirs {
        BuildDirs { venv: self.staging(), scratch: self.sandbox.path("scratch") }
    }
    fn final_path(&self) -> PathBuf {
        self.sandbox.path("app/python/venv")
    }
    fn settings(&self) -> Settings {
        Settings::from_env(self.vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    /// Builds it, does `meanwhile` between installing and finishing, and moves it where it belongs.
    fn build_with(&self, meanwhile: impl FnOnce(&Path)) -> Result<Built, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let built = runtime.block_on(async {
            let deadline = Deadline::after(self.limit);
            let settings = self.settings();
            let toolchain = venv::locate(&settings, &self.python, &self.engine, deadline).await?;
            let path = |name| self.sandbox.path(name);
            let started = Instant::now();
            let wanted = wanted("python/venv", &self.final_path());
            let builder = Builder::create(settings, &toolchain, &wanted, &path("app"), self.dirs(), deadline).await?;
            let created = started.elapsed();
            builder.install(&self.inputs, Some(&path("tree")), deadline).await?;
            let installed = started.elapsed();
            meanwhile(&self.staging());
            let built = builder.finish(deadline).await?;
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
    fn build(&self) -> Built {
        self.build_with(|_| ()).unwrap_or_else(|error| panic!("{error}"))
    }
    /// The error's text with what varies replaced.
    fn fails(&self) -> String {
        let error = self.build_with(|_| ()).expect_err("it should fail");
        assert_eq!(error.kind(), Kind::Environment, "{error}");
        self.normal(&error)
    }
    fn normal(&self, error: &Error) -> String {
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
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(self.final_path().join(program)).env_clear().args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
    /// The files' contents and the links' targets by their paths.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        read_tree(&self.final_path())
    }
    fn site(&self) -> PathBuf {
        let lib = self.final_path().join("lib");
        lib.read_dir().unwrap().next().unwrap().unwrap().path().join("site-packages")
    }
}

fn read_tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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

/// An executable script. Another process writes it: a descriptor that a concurrent test's fork
/// inherits would make it "busy".
fn script(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let path = sandbox.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let status = Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
    assert!(status.success());
    path
}

fn engines() -> [EngineRequest; 2] {
    [EngineRequest::UvAt(uv()), EngineRequest::Pip]
}

fn names(built: &Built) -> Vec<String> {
    built.distributions.iter().map(|dist| format!("{} {}", dist.name.to_lowercase(), dist.version)).collect()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn flask_runs_from_its_final_path_with_either_engine() {
    let index = IndexServer::start(&wheelhouse());
    let mut sets = Vec::new();
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["Flask"]);
        let built = bench.build();
        assert!(bench.run("bin/flask", &["--version"]).contains("Flask 3.1"));
        bench.run("bin/python", &["-c", "import flask, markupsafe._speedups"]);
        assert_eq!(
            bench.run("bin/python", &["-c", "import sys; print(sys.prefix)"]).trim(),
            bench.final_path().to_str().unwrap()
        );

        let files = bench.contents();
        let staging = bench.sandbox.path("staging");
        for (name, bytes) in &files {
            assert!(!contains(bytes, staging.to_str().unwrap()), "{} says where it was built", name.display());
        }
        // Bytecode: for every source, never checked against it, as Python itself would write it.
        for (name, bytes) in files.iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "pyc")) {
            assert_eq!(bytes[4..8], [1, 0, 0, 0], "{}", name.display());
        }
        bench.run("bin/python", &["-c", CHECK_BYTECODE]);
        bench.run("bin/python", &["-c", CHECK_RECORDS]);
        sets.push(names(&built));
    }
    assert_eq!(sets[0], sets[1]);
    assert_eq!(
        sets[0],
        [
            "blinker 1.9.0",
            "click 8.1.8",
            "flask 3.1.2",
            "itsdangerous 2.2.0",
            "jinja2 3.1.6",
            "markupsafe 3.0.2",
            "werkzeug 3.1.3"
        ]
    );
}

const CHECK_BYTECODE: &str = "
import glob, importlib.util, marshal, os, site
for source in glob.glob(site.getsitepackages()[0] + '/**/*.py', recursive=True):
    data = open(importlib.util.cache_from_source(source), 'rb').read()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[8:16] == importlib.util.source_hash(open(source, 'rb').read())
    assert marshal.loads(data[16:]).co_filename == source, source
";

const CHECK_RECORDS: &str = "
import base64, hashlib, importlib.metadata
for dist in importlib.metadata.distributions():
    for file in dist.files:
        data = file.read_binary()
        assert file.size in (None, len(data)), file
        if file.hash:
            assert base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode() == file.hash.value, file
";

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["flask"]);
        bench.build();
        let first = bench.contents();
        bench.build();
        let second = bench.contents();
        let differ: Vec<_> = first.keys().filter(|name| second.get(*name) != first.get(*name)).collect();
        assert!(differ.is_empty() && first.len() == second.len(), "{differ:?}");
    }
}

#[test]
fn a_source_distribution_is_built_in_isolation() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["docopt"]);
        assert_eq!(names(&bench.build()), ["docopt 0.6.2"]);
        bench.run("bin/python", &["-c", "import docopt"]);
    }
}

#[test]
fn an_editable_project_points_to_where_the_tree_will_be() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).requirements("-e ./lib\n-c constraints.txt\nflask\n");
        bench.sandbox.write("tree/constraints.txt", "click==8.1.8\n");
        bench.sandbox.write(
            "tree/lib/pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
             [project]\nname = \"mylib\"\nversion = \"1.0\"\n[tool.setuptools]\npackages = [\"mylib\"]\n",
        );
        bench.sandbox.write("tree/lib/mylib/__init__.py", "answer = 42\n");
        bench.build();
        let from = bench.sandbox.path("tree/lib");
        for (name, bytes) in bench.contents() {
            assert!(!contains(&bytes, bench.sandbox.path("tree").to_str().unwrap()), "{}", name.display());
        }
        std::fs::rename(from, bench.sandbox.path("app/lib")).unwrap();
        assert_eq!(bench.run("bin/python", &["-c", "import mylib; print(mylib.answer)"]), "42\n");
        bench.run("bin/python", &["-c", CHECK_RECORDS]);
    }
}

#[test]
fn a_long_final_path_gets_scripts_that_still_run() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["flask"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let long = bench.sandbox.path(&format!("{}/venv", "long".repeat(40)));
        runtime.block_on(async {
            let deadline = Deadline::after(bench.limit);
            let wanted = wanted("venv", &long);
            let public = long.parent().unwrap();
            let toolchain = venv::locate(&bench.settings(), &bench.python, &bench.engine, deadline).await.unwrap();
            let builder = Builder::create(bench.settings(), &toolchain, &wanted, public, bench.dirs(), deadline);
            let builder = builder.await.unwrap();
            builder.install(&bench.inputs, None, deadline).await.unwrap();
            builder.finish(deadline).await.unwrap();
        });
        std::fs::create_dir_all(long.parent().unwrap()).unwrap();
        std::fs::rename(bench.staging(), &long).unwrap();
        let output = Command::new(long.join("bin/flask")).arg("--version").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let activated = format!(". '{}/bin/activate' && command -v flask && echo $VIRTUAL_ENV", long.display());
        let output = Command::new("/bin/sh").args(["-c", &activated]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{0}/bin/flask\n{0}\n", long.display()));
    }
}

#[test]
fn a_lost_file_is_installed_again() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["flask"]);
        bench
            .build_with(|staging| {
                let site =
                    staging.join("lib").read_dir().unwrap().next().unwrap().unwrap().path().join("site-packages");
                std::fs::remove_file(site.join("flask/app.py")).unwrap();
                // A cache entry that was cut short (a hardlink in uv's case): the cached file shrinks too.
                std::fs::OpenOptions::new().write(true).open(site.join("click/core.py")).unwrap().set_len(10).unwrap();
            })
            .unwrap();
        assert!(bench.run("bin/flask", &["--version"]).contains("Flask 3.1"));
        // And the next run on this cache is whole as well.
        bench.build();
        bench.run("bin/python", &["-c", CHECK_RECORDS]);
    }
}

#[test]
fn a_password_stays_out_of_arguments_messages_and_the_environment() {
    let behaviour = Behaviour { login: Some(("me", "s3cr3t")), ..Behaviour::default() };
    let index = IndexServer::behaving(&wheelhouse(), behaviour);
    for engine in engines() {
        let bench = Bench::new(engine.clone(), &index.url_with("me", "s3cr3t")).packages(&["docopt"]);
        bench.build();
        for (name, bytes) in bench.contents() {
            assert!(!contains(&bytes, "s3cr3t"), "{}", name.display());
        }
        let left: Vec<_> = bench.sandbox.path("scratch").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("netrc")), "{left:?}");
    }

    // What a child is given, as one that writes it down sees it.
    let index_url = "http://me:s3cr3t@127.0.0.1:9/simple/";
    let spy = Bench::new(EngineRequest::Pip, index_url).packages(&["x @ http://you:t0ken@localhost:9/x.whl"]);
    let seen = spy.sandbox.path("seen");
    let text = format!(
        "#!/bin/sh\necho uv 9.9\n{{ echo \"$@\"; env; }} >> {0}\n[ $1 = --version ] || cat \"$NETRC\" >> {0}.netrc\n",
        seen.display()
    );
    let fake = script(&spy.sandbox, "uv", &text);
    let spy = Bench { engine: EngineRequest::UvAt(fake), ..spy };
    spy.build();
    let text = std::fs::read_to_string(&seen).unwrap();
    assert!(!text.contains("s3cr3t") && !text.contains("t0ken"), "{text}");
    assert!(std::fs::read_to_string(spy.sandbox.path("seen.netrc")).unwrap().contains("login me password s3cr3t"));

    for engine in engines() {
        let bench = Bench::new(engine, index_url).packages(&["flask"]).within(Duration::from_secs(3));
        assert!(!bench.fails().contains("s3cr3t"));
    }
}

#[test]
fn an_index_that_recovers_is_waited_for() {
    for engine in engines() {
        let index = IndexServer::behaving(&wheelhouse(), Behaviour { unavailable: 3, ..Behaviour::default() });
        let bench = Bench::new(engine, &index.url()).packages(&["itsdangerous"]);
        assert_eq!(names(&bench.build()), ["itsdangerous 2.2.0"]);
        assert!(index.requests() > 3);
    }
}

#[test]
fn a_strict_umask_is_not_published() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["itsdangerous"]);
        bench
            .build_with(|staging| {
                let script = staging.join("bin/activate");
                std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o600)).unwrap();
                std::fs::set_permissions(staging, std::fs::Permissions::from_mode(0o700)).unwrap();
            })
            .unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(bench.final_path()), mode(bench.final_path().join("bin/activate"))), (0o755, 0o644));
        assert_eq!(mode(bench.site().join("itsdangerous/__pycache__")), 0o755);
        for entry in bench.site().join("itsdangerous/__pycache__").read_dir().unwrap() {
            assert_eq!(mode(entry.unwrap().path()), 0o644);
        }
    }
}

#[test]
fn uv_settings_of_the_tree_do_not_count() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["itsdangerous"]);
        bench.sandbox.write("tree/uv.toml", "index-url = \"http://127.0.0.1:9/simple\"\n");
        bench.build();
    }
}

// What goes wrong, as its reader sees it.

#[test]
fn no_python() {
    let bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/").var("PATH", "/nowhere");
    insta::assert_snapshot!(bench.fails(), @r"
    error: found no Python
      because: looked for python3, python in PATH ([PATH])
    hint: run podstrap in an image that has it, best the app's own, or give --python the path of an interpreter
    ");
    // A shim that does not run is no Python either.
    let bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/");
    script(&bench.sandbox, "shims/python3", "#!/bin/sh\necho 'shim: python3: command not found' >&2\nexit 127\n");
    let path = bench.sandbox.path("shims").to_str().unwrap().to_owned();
    let bench = bench.var("PATH", path);
    insta::assert_snapshot!(bench.fails(), @r"
    error: found no Python
      because: looked for python3, python in PATH ([PATH])
      | [TMP]/shims/python3: does not run (exit status: 127): shim: python3: command not found
    hint: run podstrap in an image that has it, best the app's own, or give --python the path of an interpreter
    ");
}

#[test]
fn another_version() {
    let mut bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = Deadline::after(bench.limit);
    let found = runtime.block_on(venv::locate(&bench.settings(), &bench.python, &bench.engine, deadline)).unwrap();
    std::fs::create_dir(bench.sandbox.path("bin")).unwrap();
    symlink(found.python.path, bench.sandbox.path("bin/python3")).unwrap();
    bench = Bench { python: PythonRequest::Version { major: 3, minor: 99 }, ..bench };
    let path = bench.sandbox.path("bin").to_str().unwrap().to_owned();
    let bench = bench.var("PATH", path);
    let text =
        regex::Regex::new(r"is Python 3\.\d+").unwrap().replace_all(&bench.fails(), "is Python 3.N").into_owned();
    insta::assert_snapshot!(text, @r"
    error: found no Python 3.99
      because: looked for python3.99, python3, python in PATH ([PATH])
      | [TMP]/bin/python3 is Python 3.N
    hint: run podstrap in an image that has it, best the app's own, or give --python the path of an interpreter
    ");
}

#[test]
fn a_python_that_is_too_old() {
    let mut bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/");
    let old = script(&bench.sandbox, "python", "#!/bin/sh\necho 3 5\necho /bin/sh\n");
    bench.python = PythonRequest::Path(old);
    let text = bench.fails();
    let path = Path::new("/bin/sh").canonicalize().unwrap();
    insta::assert_snapshot!(text.replace(path.to_str().unwrap(), "[PYTHON]"), @r"
    error: [PYTHON] is Python 3.5, which is too old
      because: podstrap needs Python 3.8 or newer
    hint: use an app image with a newer Python (and Unit's module for it), or name another interpreter with --python
    ");
    // The real thing, where there is one.
    let versions = std::env::home_dir().unwrap().join(".pyenv/versions");
    let real = |minor: &str| {
        let mut dirs = versions.read_dir().ok()?.flatten().map(|entry| entry.path());
        dirs.find(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(minor)))
    };
    for minor in ["2.7.", "3.6.", "3.7."] {
        let Some(dir) = real(minor) else {
            eprintln!("SKIPPED: no Python {minor}x here");
            continue;
        };
        bench.python = PythonRequest::Path(dir.join("bin/python"));
        let text = bench.fails();
        assert!(text.contains(&format!("is Python {minor}")[..minor.len() + 9]) && text.contains("too old"), "{text}");
    }
}

#[test]
fn a_requirement_that_does_not_exist() {
    let index = IndexServer::start(&wheelhouse());
    let [with_uv, with_pip] =
        engines().map(|engine| Bench::new(engine, &index.url()).packages(&["no-such-thing"]).fails());
    insta::assert_snapshot!(with_uv, @r"
    error: cannot find no-such-thing in the package index
      | error: No solution found when resolving dependencies
      |   cause: Because no-such-thing was not found in the package registry and you require no-such-thing, we can conclude that your requirements are unsatisfiable.
    hint: check the name; a private index is named by PIP_INDEX_URL or PIP_EXTRA_INDEX_URL
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: cannot find no-such-thing in the package index
      | ERROR: Could not find a version that satisfies the requirement no-such-thing (from versions: none)
      | ERROR: No matching distribution found for no-such-thing
    hint: check the name; a private index is named by PIP_INDEX_URL or PIP_EXTRA_INDEX_URL
    ");
}

#[test]
fn a_version_that_does_not_exist() {
    let index = IndexServer::start(&wheelhouse());
    let [with_uv, with_pip] = engines().map(|engine| Bench::new(engine, &index.url()).packages(&["flask==99"]).fails());
    insta::assert_snapshot!(with_uv, @r"
    error: cannot find flask==99 in the package index
      | error: No solution found when resolving dependencies
      |   cause: Because there is no version of flask==99 and you require flask==99, we can conclude that your requirements are unsatisfiable.
    hint: check the name and the version; it must also fit [PLATFORM]
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: cannot find flask==99 in the package index
      | ERROR: Could not find a version that satisfies the requirement flask==99 (from versions: 3.1.2)
      | ERROR: No matching distribution found for flask==99
    hint: check the name and the version; it must also fit [PLATFORM]
    ");
}

#[test]
fn a_name_that_sounds_like_trouble_is_only_a_name() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let text = Bench::new(engine, &index.url()).packages(&["async-timeout==99"]).fails();
        assert!(text.starts_with("error: cannot find async-timeout"), "{text}");
    }
}

#[test]
fn a_conflict() {
    let index = IndexServer::start(&wheelhouse());
    let [with_uv, with_pip] = engines().map(|engine| {
        Bench::new(engine, &index.url()).packages(&["flask==3.1.2", "click==8.1.7", "click==8.1.8"]).fails()
    });
    insta::assert_snapshot!(with_uv, @r"
    error: the requirements contradict each other
      | error: No solution found when resolving dependencies
      |   cause: Because you require click==8.1.7 and click==8.1.8, we can conclude that your requirements are unsatisfiable.
    hint: loosen or drop one of the versions that the lines above name
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: the requirements contradict each other
      | ERROR: Cannot install click==8.1.7 and click==8.1.8 because these package versions have conflicting dependencies.
    hint: loosen or drop one of the versions that the lines above name
    ");
}

#[test]
fn no_wheel_and_no_compiler() {
    let index = IndexServer::start(&wheelhouse());
    let texts = engines().map(|engine| {
        let bench = Bench::new(engine, &index.url()).packages(&["./fast"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deadline = Deadline::after(bench.limit);
        let found =
            runtime.block_on(venv::locate(&bench.settings(), &bench.python, &bench.engine, deadline)).unwrap();
        std::fs::create_dir(bench.sandbox.path("bin")).unwrap();
        symlink(found.python.path, bench.sandbox.path("bin/python3")).unwrap();
        bench.sandbox.write(
            "tree/fast/setup.py",
            "from setuptools import setup, Extension\nsetup(name='fast', version='1', ext_modules=[Extension('fast', ['fast.c'])])\n",
        );
        bench.sandbox.write("tree/fast/fast.c", "");
        let path = bench.sandbox.path("bin").to_str().unwrap().to_owned();
        let text = bench.var("PATH", path).fails();
        // The excerpt is the build's own talk.
        text.lines().filter(|line| !line.starts_with("  | ")).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(texts[0].replace("uv", "pip"), texts[1]);
    insta::assert_snapshot!(texts[1], @r"
    error: fast has no wheel for [PLATFORM] and this image has no C compiler
    hint: pin a version with a wheel, use another image, or supply a wheelhouse (--find-links)
    ");
}

#[test]
fn a_requirements_file_that_is_missing() {
    let [with_uv, with_pip] = engines().map(|engine| {
        let mut bench = Bench::new(engine, "http://127.0.0.1:9/");
        bench.inputs.requirements = vec![bench.sandbox.path("tree/requirements.txt")];
        bench.fails()
    });
    assert_eq!(with_uv, with_pip);
    insta::assert_snapshot!(with_pip, @r"
    error: the requirements file [TMP]/tree/requirements.txt is not there
    hint: paths are relative to the repository's top; commit the file, or fix -r or -c
    ");
    let [with_uv, with_pip] =
        engines().map(|engine| Bench::new(engine, "http://127.0.0.1:9/").requirements("-r base/more.txt\n").fails());
    insta::assert_snapshot!(with_uv, @r"
    error: a requirements file names [TMP]/tree/base/more.txt, which is not there
      | error: Error parsing included file in `requirements.txt` at position 0
      |   cause: failed to read from file `[TMP]/tree/base/more.txt`: No such file or directory (os error 2)
    hint: paths after -r and -c are relative to the file that names them; commit the file, or fix the path
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: a requirements file names [TMP]/tree/base/more.txt, which is not there
      | ERROR: Could not open requirements file: [Errno 2] No such file or directory: '[TMP]/tree/base/more.txt'
    hint: paths after -r and -c are relative to the file that names them; commit the file, or fix the path
    ");
}

#[test]
fn a_requirement_that_is_written_wrongly() {
    let [with_uv, with_pip] =
        engines().map(|engine| Bench::new(engine, "http://127.0.0.1:9/").requirements("flask ==3 nonsense!\n").fails());
    insta::assert_snapshot!(with_uv, @r"
    error: a requirement is written wrongly
      | error: Couldn't parse requirement in `requirements.txt` at position 0
      |   cause: Trailing `nonsense!` is not allowed
      |          flask ==3 nonsense!
      |                ^^^^^^^^^^^^^
    hint: each line is a name with an optional version (Flask==3.1.0), a URL or a path
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: a requirement is written wrongly
      | ERROR: Invalid requirement: 'flask ==3 nonsense!' (from line 1 of [TMP]/tree/requirements.txt)
    hint: each line is a name with an optional version (Flask==3.1.0), a URL or a path
    ");
}

#[test]
fn an_index_that_cannot_be_reached() {
    let [with_uv, with_pip] = engines().map(|engine| {
        let bench = Bench::new(engine, "http://127.0.0.1:9/simple").packages(&["flask"]).within(Duration::from_mins(1));
        bench.var("PIP_RETRIES", "0").fails()
    });
    insta::assert_snapshot!(with_uv, @r"
    error: cannot download from http://[HOST]/simple/flask/
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 1m)
      | error: Failed to fetch: http://[HOST]/simple/flask/
      |   cause: error sending request for url (http://[HOST]/simple/flask/)
      |   cause: client error (Connect)
      |   cause: tcp connect error
      |   cause: Connection refused (os error 111)
    hint: check that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: cannot download from http://[HOST]/simple/flask/
      because: Could not fetch URL http://[HOST]/simple/flask/: connection error: HTTPConnectionPool(host='127.0.0.1', p …  object at [ADDRESS]>: Failed to establish a new connection: [Errno 111] Connection refused')) - skipping
      because: gave up after [N] tries in [TIME] (--timeout 1m)
      | Could not fetch URL http://[HOST]/simple/flask/: connection error: HTTPConnectionPool(host='127.0.0.1', p …  object at [ADDRESS]>: Failed to establish a new connection: [Errno 111] Connection refused')) - skipping
      | ERROR: Could not find a version that satisfies the requirement flask (from versions: none)
      | ERROR: No matching distribution found for flask
    hint: check that the Pod may reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL
    ");
}

#[test]
fn an_index_that_wants_a_login() {
    let behaviour = Behaviour { login: Some(("me", "s3cr3t")), ..Behaviour::default() };
    let index = IndexServer::behaving(&wheelhouse(), behaviour);
    let [with_uv, with_pip] =
        engines().map(|engine| Bench::new(engine, &index.url_with("me", "wrong")).packages(&["flask"]).fails());
    insta::assert_snapshot!(with_uv, @r"
    error: the package index http://[HOST]/simple/ answers 401 Unauthorized
      | error: No solution found when resolving dependencies
      |   cause: Because flask was not found in the package registry and you require flask, we can conclude that your requirements are unsatisfiable.
    hint: mount a netrc file with the login for its host, and name it with --auth, or put user and password into the index URL (PIP_INDEX_URL, from a Secret)
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: the package index http://[HOST]/simple/ answers 401 Unauthorized
      | Could not fetch URL http://[HOST]/simple/flask/: 401 Client Error: X for url: http://[HOST]/simple/flask/ - skipping
      | ERROR: Could not find a version that satisfies the requirement flask (from versions: none)
      | ERROR: No matching distribution found for flask
    hint: mount a netrc file with the login for its host, and name it with --auth, or put user and password into the index URL (PIP_INDEX_URL, from a Secret)
    ");
}

#[test]
fn a_requirement_for_another_python() {
    let texts = engines().map(|engine| {
        let bench = Bench::new(engine, "http://127.0.0.1:9/").packages(&["./next"]).var("PIP_NO_INDEX", "1");
        bench.sandbox.write(
            "tree/next/pyproject.toml",
            "[project]\nname = \"next\"\nversion = \"1\"\nrequires-python = \">=3.99\"\n",
        );
        let bench = bench.var("PIP_FIND_LINKS", wheelhouse().to_str().unwrap());
        let text = regex::Regex::new(r"3\.\d+\.\d+").unwrap().replace_all(&bench.fails(), "3.N").into_owned();
        text.lines().filter(|line| !line.starts_with("  | ")).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(texts[0], texts[1]);
    insta::assert_snapshot!(texts[0], @r"
    error: a requirement does not support Python 3.N
    hint: pin a version that does, or use an app image with another Python
    ");
}

#[test]
fn a_hash_that_does_not_match() {
    let index = IndexServer::start(&wheelhouse());
    let line = format!("itsdangerous==2.2.0 --hash=sha256:{}\n", "0".repeat(64));
    let texts = engines().map(|engine| Bench::new(engine, &index.url()).requirements(&line).fails());
    for text in texts {
        assert!(text.starts_with("error: a download is not what the requirements' hashes allow\n"), "{text}");
    }
}

#[test]
fn a_full_volume_is_the_volumes_failure() {
    let mut bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/").packages(&["flask"]);
    let full = "#!/bin/sh\n[ $1 = --version ] && { echo uv 9.9; exit; }\n\
        echo 'error: failed to write: No space left on device (os error 28)' >&2\nexit 2\n";
    bench.engine = EngineRequest::UvAt(script(&bench.sandbox, "uv", full));
    let error = bench.build_with(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Volume);
    insta::assert_snapshot!(bench.normal(&error), @r"
    error: uv [VERSION] could not write all files
      because: No space left on device (os error 28)
      | error: failed to write: No space left on device (os error 28)
    hint: the volume is full, of bytes or of files (df -h, df -i): raise the emptyDir's sizeLimit or the claim's size
    ");
}

#[test]
fn no_time_left() {
    let index = IndexServer::start(&wheelhouse());
    let mut bench = Bench::new(EngineRequest::Pip, &index.url()).packages(&["flask"]).within(Duration::from_secs(3));
    let slow = script(
        &bench.sandbox,
        "uv",
        "#!/bin/sh\n[ $1 = --version ] && { echo uv 9.9; exit; }\necho 'still at it' >&2\nsleep 60\n",
    );
    bench.engine = EngineRequest::UvAt(slow);
    insta::assert_snapshot!(bench.fails(), @r"
    error: uv [VERSION] did not finish the installation
      because: [TMP]/uv was ended at the deadline, after [TIME] (--timeout 3s)
      because: gave up after [N] tries in [TIME] (--timeout 3s)
      | still at it
    hint: raise --timeout, or find out what is slow with --log-level debug
    ");
}

#[test]
fn an_index_that_stalls_when_it_is_asked_again_costs_no_more_than_the_time_out() {
    let stalls = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!("http://{}/simple", stalls.local_addr().unwrap());
    let mut bench = Bench::new(EngineRequest::Pip, &index).packages(&["flask"]).within(Duration::from_secs(2));
    let says = "#!/bin/sh\n[ $1 = --version ] && { echo uv 9.9; exit; }\n\
        echo 'Because flask was not found in the package registry' >&2\nexit 1\n";
    bench.engine = EngineRequest::UvAt(script(&bench.sandbox, "uv", says));
    let started = Instant::now();
    let text = bench.fails();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(text.starts_with("error: the package index") && text.contains("does not answer"), "{text}");
    assert!(text.contains("gave up after"), "{text}");
}

#[test]
fn a_uv_that_does_not_run() {
    let index = IndexServer::start(&wheelhouse());
    let mut bench = Bench::new(EngineRequest::Auto, &index.url()).packages(&["itsdangerous"]);
    let broken = script(&bench.sandbox, "bin/uv", "#!/nonexistent/loader\n");
    let path = format!("{}:{}", bench.sandbox.path("bin").display(), bench.vars["PATH"]);
    bench = bench.var("PATH", path);
    assert!(bench.build().engine.starts_with("pip "));
    bench.engine = EngineRequest::UvAt(broken);
    insta::assert_snapshot!(bench.fails(), @r"
    error: the uv at [TMP]/bin/uv does not run
      because: cannot start [TMP]/bin/uv
      because: No such file or directory (os error 2)
    hint: use the static (musl) build of uv for this processor, or --engine pip
    ");
}

/// Every other interpreter and pip that a machine has:
/// `PODSTRAP_TEST_PYTHONS=/a/python:/b/python cargo test -- --ignored every_interpreter`.
#[test]
#[ignore = "needs PODSTRAP_TEST_PYTHONS"]
fn every_interpreter_builds_the_same() {
    let index = IndexServer::start(&wheelhouse());
    for python in std::env::split_paths(&std::env::var_os("PODSTRAP_TEST_PYTHONS").unwrap()) {
        for engine in engines() {
            let mut bench = Bench::new(engine, &index.url()).packages(&["docopt", "itsdangerous"]);
            bench.python = PythonRequest::Path(python.clone());
            let built = bench.build();
            eprintln!("{}: Python {}", python.display(), built.python_version);
            assert_eq!(names(&built), ["docopt 0.6.2", "itsdangerous 2.2.0"]);
            bench.run("bin/python", &["-c", "import docopt, itsdangerous"]);
            bench.run("bin/python", &["-c", CHECK_BYTECODE]);
            bench.run("bin/python", &["-c", CHECK_RECORDS]);
        }
    }
}
