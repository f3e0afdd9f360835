//! Real apps with real packages from the machine's own index: `just python`.
//!
//! `init` builds each app with both engines. Then its own Python, and a real Unit with `PODSTRAP_TEST_UNITD`, serve it
//! where the build path is invisible. The interpreter is the first python3 on PATH;
//! `PODSTRAP_TEST_PYTHONS=/a/python:/b/python` sets others for the test of interpreters. Unit's module is built for
//! `/usr/bin/python3`, or the interpreter in `PODSTRAP_TEST_UNIT_PYTHON`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git::{GitServer, Repo};
use crate::support::index::uv;
use crate::support::namespaces::namespaced;
use crate::support::sandbox::Sandbox;

/// The tree's path in the app's container.
const TREE: &str = "/mnt/app";
const VENV: &str = "/mnt/app/venv";

/// An app: its files, the packages to install, and its answer to `GET /`.
struct Case {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    install: &'static [&'static str],
    /// The arguments of uv that lock the tree first. pip reads no lock and reports that.
    lock: &'static [&'static str],
    answer: &'static str,
    /// A script of the environment, and the start of its output.
    script: (&'static [&'static str], &'static str),
}

const FLASK: Case = Case {
    name: "Flask",
    files: &[
        ("requirements.txt", "Flask\ngunicorn\n"),
        (
            "wsgi.py",
            "from flask import Flask\nimport markupsafe._speedups\napplication = Flask(__name__)\n\
             @application.get('/')\ndef hello(): return 'Hello from Flask'\n",
        ),
    ],
    install: &[],
    lock: &[],
    answer: "Hello from Flask",
    script: (&["gunicorn", "--version"], "gunicorn (version "),
};

const CASES: &[Case] = &[
    FLASK,
    Case {
        name: "Django, with psycopg, redis, celery",
        files: &[("requirements.txt", DJANGO), ("wsgi.py", include_str!("../../fixtures/real/django_app.py"))],
        install: &[],
        lock: &[],
        answer: "psycopg binary, redis, celery and 3 models",
        script: (&["celery", "--version"], "5."),
    },
    Case {
        name: "numpy, pandas, scikit-learn",
        files: &[
            ("requirements.txt", "numpy\npandas\nscikit-learn\n"),
            (
                "wsgi.py",
                "import numpy, pandas\nfrom sklearn.linear_model import LinearRegression\n\
                 frame = pandas.DataFrame({'x': numpy.arange(10.0), 'y': 3 * numpy.arange(10.0) + 1})\n\
                 model = LinearRegression().fit(frame[['x']], frame['y'])\n\
                 def application(environ, start):\n    \
                     start('200 OK', [('Content-Type', 'text/plain')])\n    \
                     return [f'slope {model.coef_[0]:.1f}'.encode()]\n",
            ),
        ],
        install: &[],
        lock: &[],
        answer: "slope 3.0",
        script: (&["f2py", "-v"], ""),
    },
    Case {
        name: "compiled here (markupsafe, psutil)",
        files: &[
            ("requirements.txt", "--no-binary markupsafe\n--no-binary psutil\nmarkupsafe\npsutil\n"),
            (
                "wsgi.py",
                "import markupsafe._speedups, psutil\ndef application(environ, start):\n    \
                     start('200 OK', [('Content-Type', 'text/plain')])\n    \
                     return [f'compiled, process {psutil.Process().status()}'.encode()]\n",
            ),
        ],
        install: &[],
        lock: &[],
        answer: "compiled, process running",
        script: (&["python", "-c", "print(1)"], "1"),
    },
    Case {
        name: "source distributions only (docopt)",
        files: &[(
            "wsgi.py",
            "import docopt\ndef application(environ, start):\n    \
                 start('200 OK', [('Content-Type', 'text/plain')])\n    \
                 return [str(docopt.docopt('usage: x [--fast]', ['--fast'])['--fast']).encode()]\n",
        )],
        install: &["docopt"],
        lock: &[],
        answer: "True",
        script: (&["python", "-c", "print(1)"], "1"),
    },
    Case {
        name: "editable",
        files: &[
            ("requirements.txt", "-e ./lib\n"),
            ("lib/pyproject.toml", LIBRARY),
            ("lib/src/library/__init__.py", LIBRARY_INIT),
            ("lib/src/library/cli.py", LIBRARY_CLI),
            ("wsgi.py", LIBRARY_APP),
        ],
        install: &[],
        lock: &[],
        answer: "library 42 is below /mnt/app/lib/src",
        script: (&["library"], "the library"),
    },
    Case {
        name: "a project, not editable",
        files: &[
            ("lib/pyproject.toml", LIBRARY),
            ("lib/src/library/__init__.py", LIBRARY_INIT),
            ("lib/src/library/cli.py", LIBRARY_CLI),
            ("wsgi.py", LIBRARY_APP),
        ],
        install: &["./lib"],
        lock: &[],
        answer: "library 42 is below /mnt/app/venv",
        script: (&["library"], "the library"),
    },
    Case {
        name: "pyproject.toml, an extra and a group",
        files: &[("pyproject.toml", PROJECT), ("wsgi.py", PROJECT_APP)],
        install: &["--extra", "fast", "--group", "web", "-r", "pyproject.toml"],
        lock: &[],
        answer: "Hello {\"fast\":true}",
        script: (&["gunicorn", "--version"], "gunicorn (version "),
    },
    Case {
        name: "uv.lock, an extra and a group",
        files: &[("pyproject.toml", PROJECT), ("wsgi.py", PROJECT_APP)],
        install: &["--extra", "fast", "--group", "web", "-r", "uv.lock"],
        lock: &["lock"],
        answer: "Hello {\"fast\":true}",
        script: (&["gunicorn", "--version"], "gunicorn (version "),
    },
    Case {
        name: "pylock.toml",
        files: &[("requirements.in", "Flask\norjson\ngunicorn\n"), ("wsgi.py", PROJECT_APP)],
        install: &[],
        lock: &["pip", "compile", "--universal", "--python-version", "3.9", "requirements.in", "-o", "pylock.toml"],
        answer: "Hello {\"fast\":true}",
        script: (&["gunicorn", "--version"], "gunicorn (version "),
    },
    Case {
        name: "VCS",
        files: &[("wsgi.py", LIBRARY_APP)],
        install: &["library @ git+[GIT]library"],
        lock: &[],
        answer: "library 42 is below /mnt/app/venv",
        script: (&["library"], "the library"),
    },
];

/// The packages of a web app that has grown for years: about 60 distributions.
const DJANGO: &str = "\
Django
djangorestframework
django-filter
django-cors-headers
django-environ
django-redis
django-storages[s3]
django-celery-beat
drf-spectacular
psycopg[binary]
redis[hiredis]
celery
gunicorn
whitenoise
sentry-sdk
requests
httpx
pydantic
pillow
cryptography
PyJWT
lxml
openpyxl
orjson
structlog
";

const PROJECT: &str = "\
[project]
name = \"site\"
version = \"1\"
requires-python = \">=3.8\"
dependencies = [\"Flask\"]
[project.optional-dependencies]
fast = [\"orjson\"]
[dependency-groups]
web = [\"gunicorn\"]
dev = [\"pytest\"]
";

const PROJECT_APP: &str = "\
import flask, importlib.util, orjson
application = flask.Flask(__name__)
assert importlib.util.find_spec('pytest') is None
@application.get('/')
def hello(): return 'Hello ' + orjson.dumps({'fast': True}).decode()
";

const LIBRARY: &str = "\
[build-system]
requires = [\"setuptools>=64\"]
build-backend = \"setuptools.build_meta\"
[project]
name = \"library\"
version = \"1.0\"
dependencies = [\"itsdangerous\"]
scripts = {library = \"library.cli:main\"}
";

const LIBRARY_INIT: &str = "answer = 42\n";
const LIBRARY_CLI: &str = "def main(): print('the library')\n";

const LIBRARY_APP: &str = "\
import itsdangerous, library, os
place = os.path.commonpath([library.__file__, '/mnt/app/venv' if '/venv/' in library.__file__ else '/mnt/app/lib/src'])
def application(environ, start):
    start('200 OK', [('Content-Type', 'text/plain')])
    return [f'library {library.answer} is below {place}'.encode()]
";

/// Sends one request to the app in `wsgi.py`, as a server would.
const SERVE: &str = "
import importlib, sys, wsgiref.util, wsgiref.validate
assert sys.prefix == '/mnt/app/venv', sys.prefix
sys.path.insert(0, '/mnt/app')
environ, said = {}, []
wsgiref.util.setup_testing_defaults(environ)
application = importlib.import_module('wsgi').application
answer = wsgiref.validate.validator(application)(environ, lambda status, headers, *_: said.append(status))
print(said[0], b''.join(answer).decode())
answer.close()
";

/// Checks that every file in every RECORD exists and matches.
const RECORDS: &str = "
import base64, hashlib, importlib.metadata, site
for dist in importlib.metadata.distributions(path=site.getsitepackages()):
    for file in dist.files or []:
        data = open(str(file.locate()), 'rb').read()
        hash = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
        assert not file.hash or file.hash.value == hash, '%s: %s is not as its RECORD says' % (dist.metadata['Name'], file)
";

/// The app's container: the volume at the app's path, and no trace of the build path. Runs `"$@"` without
/// environment variables.
const CONTAINER: &str = "mount -t tmpfs none /mnt && mkdir /mnt/app && mount --bind \"$VOLUME\" /mnt/app && \
     mount -t tmpfs none \"$BUILT\" && cd / && exec env -i \"$@\"";

/// Runs Unit in it: `sh -c UNIT sh UNITD MODULES PODSTRAP PORT`.
const UNIT: &str = "
mkdir /mnt/state /mnt/tmp
$1 --no-daemon --control unix:/mnt/control.sock --pid /mnt/pid --log /mnt/log --statedir /mnt/state --tmpdir /mnt/tmp $2 &
$3 apply --control-socket /mnt/control.sock --config /mnt/app/unit.conf.json --probe http://127.0.0.1:$4/ &&
    /mnt/app/venv/bin/python -c \"import urllib.request; print('served:', urllib.request.urlopen('http://127.0.0.1:$4/').read().decode())\" ||
    { cat /mnt/log; exit 1; }
";

/// The parts that all runs share: the sandbox and the paths in its volume.
struct Bench {
    sandbox: Sandbox,
    root: PathBuf,
    port: u16,
    git: GitServer,
}

impl Bench {
    fn new(case: &Case) -> Self {
        let sandbox = Sandbox::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for (name, text) in case.files {
            sandbox.write(&format!("repo/{name}"), text);
        }
        if !case.lock.is_empty() {
            let output = Command::new(uv())
                .args(case.lock)
                .env("UV_PYTHON_DOWNLOADS", "never")
                .current_dir(sandbox.path("repo"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let config = serde_json::json!({
            "listeners": {format!("127.0.0.1:{port}"): {"pass": "applications/app"}},
            "applications": {"app": {
                "type": "python", "home": VENV, "path": TREE, "working_directory": TREE, "module": "wsgi",
            }},
        });
        sandbox.write("repo/unit.conf.json", config.to_string());
        let root = sandbox.root();
        Repo::new(&sandbox.path("git/library"))
            .file("pyproject.toml", LIBRARY)
            .file("src/library/__init__.py", LIBRARY_INIT)
            .file("src/library/cli.py", LIBRARY_CLI)
            .commit("library");
        let git = GitServer::start(&sandbox.path("git"));
        Self { sandbox, root, port, git }
    }

    /// `init` with the index settings of this machine.
    fn init(&self, case: &Case, engine: &Path, python: Option<&Path>) -> Command {
        let mut command = self.sandbox.podstrap();
        command.arg("init").arg("--repo").arg(self.sandbox.path("repo")).arg("--root").arg(&self.root);
        command.args(["--venv-final-path", VENV]).arg("--engine").arg(engine);
        if let Some(python) = python {
            command.arg("--python").arg(python);
        }
        command.args(case.install.iter().map(|word| word.replace("[GIT]", &self.git.url(""))));
        let ours = |name: &str| ["PIP_", "SSL_CERT_"].iter().any(|prefix| name.starts_with(prefix));
        command.envs(std::env::vars().filter(|(name, _)| ours(name)));
        command
    }

    /// Runs a command in the app's container; the error is its output.
    fn contained(&self, command: &[&str]) -> Result<String, String> {
        let mut inner = Command::new(command[0]);
        inner.args(&command[1..]).env("PATH", std::env::var_os("PATH").unwrap());
        inner.env("VOLUME", &self.root).env("BUILT", self.sandbox.path(""));
        let Some(mut outer) = namespaced(&inner, CONTAINER) else { return Err("it needs namespaces".to_owned()) };
        let output = outer.output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if output.status.success() { Ok(text) } else { Err(format!("{}: {text}", command.join(" "))) }
    }

    /// The installed packages by the release's record: name → version and, except for local builds, contents.
    fn installed(&self) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.root.join(".podstrap/current/release.json")).unwrap();
        let release: serde_json::Value = serde_json::from_str(&text).unwrap();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let known = |package: &serde_json::Value| {
            let url = word(&package["source"]["url"]);
            // uv reports no url for packages whose name in the index differs from their tag.
            let built = !url.is_empty() && Path::new(&url).extension().is_none_or(|kind| kind != "whl");
            let contents = if built { "built".to_owned() } else { word(&package["contents"]) };
            (word(&package["name"]), format!("{} {contents}", word(&package["version"])))
        };
        release["environment"]["packages"].as_array().unwrap().iter().map(known).collect()
    }

    /// Serves the environment and checks the answers.
    fn serve(&self, case: &Case, unit: bool) -> Result<(), String> {
        let python = format!("{VENV}/bin/python");
        let wants = |said: &str, what: &str| {
            if said.contains(what) { Ok(()) } else { Err(format!("{what:?} is not in {said:?}")) }
        };
        wants(&self.contained(&[&python, "-B", "-W", "ignore", "-c", SERVE])?, &format!("200 OK {}", case.answer))?;
        self.contained(&[&python, "-B", "-c", RECORDS])?;
        let (words, begin) = case.script;
        let program = format!("{VENV}/bin/{}", words[0]);
        wants(&self.contained(&[&[program.as_str()], &words[1..]].concat())?, begin)?;
        if unit {
            let modules =
                std::env::var("PODSTRAP_TEST_UNITD_MODULES").map_or(String::new(), |dir| format!("--modulesdir {dir}"));
            let unitd = std::env::var("PODSTRAP_TEST_UNITD").unwrap();
            let port = self.port.to_string();
            let words = ["/bin/sh", "-c", UNIT, "sh", &unitd, &modules, env!("CARGO_BIN_EXE_podstrap"), &port];
            wants(&self.contained(&words)?, &format!("served: {}\n", case.answer))?;
        }
        Ok(())
    }
}

/// pip and uv.
fn engines() -> [(&'static str, PathBuf); 2] {
    [("pip", "pip".into()), ("uv", uv())]
}

fn unit_python() -> PathBuf {
    std::env::var_os("PODSTRAP_TEST_UNIT_PYTHON").map_or("/usr/bin/python3".into(), PathBuf::from)
}

/// One row of the table, run with each engine.
struct Run<'a> {
    case: &'a Case,
    /// The interpreter for the build; otherwise python3 on PATH, or the one of Unit's module.
    python: Option<PathBuf>,
    /// Version and path of another interpreter that serves the app.
    target: Option<(String, PathBuf)>,
}

/// Builds and serves each app with both engines, prints the table, and fails if one fails.
fn run(runs: &[Run]) {
    let unit = std::env::var_os("PODSTRAP_TEST_UNITD").is_some();
    if !unit {
        eprintln!("SKIPPED: Unit does not serve, because PODSTRAP_TEST_UNITD is not set");
    }
    let mut table = "\n| app | Python | engine | distributions | served by |\n|---|---|---|---|---|\n".to_owned();
    let mut failures = String::new();
    for Run { case, python, target } in runs {
        let mut sets = Vec::new();
        let name = case.name;
        for (label, engine) in engines() {
            let bench = Bench::new(case);
            let python = python.clone().or(unit.then(unit_python));
            let mut init = bench.init(case, &engine, python.as_deref());
            if let Some((version, path)) = target {
                init.args(["--target-python", version, "--python-final-path"]).arg(path);
            }
            let ran = bench.sandbox.run(&mut init);
            let unit = unit && target.is_none() && python.as_deref() == Some(&*unit_python());
            if !case.lock.is_empty() && label == "pip" {
                let row = format!("| {name} | | {label} | refused: it names uv | |\n");
                if ran.error().contains("requires uv, but the engine is pip") {
                    table.push_str(&row);
                } else {
                    writeln!(failures, "{name}, {label}: {}", ran.raw).unwrap();
                }
                continue;
            }
            let outcome = match ran.code {
                Some(0) => bench.serve(case, unit).map(|()| bench.installed()),
                code => Err(format!("init: {code:?}: {}", ran.raw)),
            };
            let shown = python.map_or("python3".to_owned(), |path| path.display().to_string());
            let shown = target.as_ref().map_or(shown.clone(), |(version, _)| format!("{shown}, for {version}"));
            let served = if unit { "itself, Unit" } else { "itself" };
            let row = match &outcome {
                Ok(set) => format!("| {name} | {shown} | {label} | {} | {served} |\n", set.len()),
                Err(_) => format!("| {name} | {shown} | {label} | FAILED | |\n"),
            };
            eprint!("{row}");
            table.push_str(&row);
            match outcome {
                Ok(set) => sets.push(set),
                Err(why) => writeln!(failures, "{name}, {label}, {shown}: {why}").unwrap(),
            }
        }
        if let [pip, uv] = &*sets
            && pip != uv
        {
            let differ: Vec<_> = pip.iter().chain(uv).filter(|(name, _)| pip.get(*name) != uv.get(*name)).collect();
            writeln!(failures, "{name}: pip and uv differ: {differ:?}").unwrap();
        }
    }
    eprintln!("{table}");
    assert!(failures.is_empty(), "{failures}");
}

#[test]
#[ignore = "fetches real packages: `just python`"]
fn apps_run_from_their_final_path() {
    let wanted = std::env::var("PODSTRAP_TEST_APP").unwrap_or_default();
    let wanted: Vec<_> = CASES.iter().filter(|case| case.name.contains(&wanted)).collect();
    assert!(!wanted.is_empty(), "no app's name contains this");
    run(&wanted.into_iter().map(|case| Run { case, python: None, target: None }).collect::<Vec<_>>());
}

fn interpreters() -> Vec<PathBuf> {
    let list = std::env::var_os("PODSTRAP_TEST_PYTHONS").unwrap_or_default();
    let list: Vec<_> = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    if list.is_empty() {
        eprintln!("SKIPPED: PODSTRAP_TEST_PYTHONS names no interpreters");
    }
    list
}

/// Flask, in a version that the interpreter supports.
#[test]
#[ignore = "fetches real packages: `just python`"]
fn flask_runs_with_every_interpreter() {
    let runs: Vec<_> =
        interpreters().into_iter().map(|python| Run { case: &FLASK, python: Some(python), target: None }).collect();
    run(&runs);
}

/// The first interpreter builds, each of the others serves.
#[test]
#[ignore = "fetches real packages: `just python`"]
fn flask_is_built_for_another_python() {
    let all = interpreters();
    let runs: Vec<_> = all
        .iter()
        .skip(1)
        .map(|other| {
            let question = "import sys; print('%d.%d' % sys.version_info[:2])";
            let output = Command::new(other).args(["-c", question]).output().unwrap();
            let version = String::from_utf8(output.stdout).unwrap().trim().to_owned();
            Run { case: &FLASK, python: Some(all[0].clone()), target: Some((version, other.clone())) }
        })
        .collect();
    run(&runs);
}
