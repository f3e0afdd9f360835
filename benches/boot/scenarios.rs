//! The tables of the benchmark: what is measured, the contenders, and the goals.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{MODULES, PODSTRAP, UNITD};
use crate::support::git::{GitServer, Repo};
use crate::support::index::{self, IndexServer};
use crate::support::registry::Registry;

pub(super) struct Scenario {
    /// The argument that selects it.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) subject: Subject,
    /// Those of podstrap come last.
    pub(super) contenders: &'static [Contender],
    pub(super) goals: &'static [Goal],
    /// Runs on a disk, once idle and once while another process writes to it.
    pub(super) is_busy: bool,
    pub(super) needs_unit: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) argv: &'static [&'static str],
}

/// The highest ratio of the medians.
pub(super) struct Goal {
    pub(super) contender: &'static str,
    pub(super) against: &'static str,
    pub(super) at_most: f64,
}

pub(super) enum Subject {
    /// A repository with so many files.
    Source(usize),
    /// Flask, and a repository with so many further files.
    Small(usize),
    /// An app with these pinned packages; the name is that of their directory.
    Pinned(&'static str, &'static str),
    /// The same, after another Pod has filled the stores.
    Stored(&'static str, &'static str),
    /// A configuration for Unit.
    Apply,
}

/// The usual one-liner, with `&&` so that a failure is visible.
const RECIPE: Contender = Contender {
    name: "shell recipe",
    argv: &[
        "sh",
        "-c",
        r#"git clone -q "$REPO" "$DIR/app" && cd "$DIR/app" &&
python3 -m venv "$DIR/app/python/venv" && . "$DIR/app/python/venv/bin/activate" &&
pip install -q --index-url "$INDEX" "$INSTALL""#,
    ],
};

/// The fastest script known to us: shallow clone, two steps in parallel, uv, bytecode.
const BY_HAND: Contender = Contender {
    name: "best shell script",
    argv: &[
        "sh",
        "-c",
        r#"git clone -q --depth 1 "$REPO" "$DIR/app" & clone=$!
"$UV" venv -q "$DIR/venv" && wait $clone && cd "$DIR/app" &&
"$UV" pip install -q --python "$DIR/venv/bin/python" --compile-bytecode --index-url "$INDEX" "$INSTALL""#,
    ],
};

/// The same, but Python compiles each module when the app imports it.
const WITHOUT: Contender = Contender {
    name: "the same without bytecode",
    argv: &[
        "sh",
        "-c",
        r#"git clone -q --depth 1 "$REPO" "$DIR/app" & clone=$!
"$UV" venv -q "$DIR/venv" && wait $clone && cd "$DIR/app" &&
"$UV" pip install -q --python "$DIR/venv/bin/python" --index-url "$INDEX" "$INSTALL""#,
    ],
};

/// A clone without an environment.
const CLONE: Contender =
    Contender { name: "git clone --depth 1", argv: &["sh", "-c", r#"git clone -q --depth 1 "$REPO" "$DIR/app""#] };

/// podstrap with an engine.
const fn init(engine: &'static str) -> [&'static str; 11] {
    [PODSTRAP, "init", "--repo", "$REPO", "--root", "$DIR", "--venv", "python/venv", "--engine", engine, "$INSTALL"]
}
pub(super) const UV: Contender = Contender { name: "podstrap init, uv", argv: &init("$UV") };
const PIP: Contender = Contender { name: "podstrap init, pip", argv: &init("pip") };
const NO_VENV: Contender = Contender {
    name: "podstrap init --venv none",
    argv: &[PODSTRAP, "init", "--repo", "$REPO", "--root", "$DIR", "--venv", "none"],
};

/// The best shell script, then Unit as in its image, curl, and the first page.
const SERVE_BY_HAND: Contender = Contender {
    name: "best shell script, then Unit and curl",
    argv: &[
        "timeout",
        "60",
        "sh",
        "-c",
        r#"git clone -q --depth 1 "$REPO" "$DIR/app" & clone=$!
"$UV" venv -q "$DIR/venv" && wait $clone && cd "$DIR/app" &&
"$UV" pip install -q --python "$DIR/venv/bin/python" --compile-bytecode --index-url "$INDEX" "$INSTALL" &&
sed "s|VENV|$DIR/venv|; s|TREE|$DIR/app|; s|PORT|$PORT|" unit.json >"$DIR/unit.json" &&
{ "$UNITD" --no-daemon $MODULES --control "unix:$DIR/control.sock" --pid "$DIR/unit.pid" --statedir "$DIR" --tmpdir "$DIR" \
  --log "$DIR/unit.log" 2>"$DIR/unit.err" & } &&
until curl -fs -o "$DIR/answer" -X PUT --data-binary @"$DIR/unit.json" --unix-socket "$DIR/control.sock" http://localhost/config
do sleep 0.01; done &&
until curl -fs -o "$DIR/page" "http://127.0.0.1:$PORT/"; do sleep 0.01; done"#,
    ],
};

/// podstrap does both.
const SERVE: Contender = Contender {
    name: "podstrap init, then Unit and podstrap apply",
    argv: &[
        "sh",
        "-c",
        r#""$BINARY" init --repo "$REPO" --root "$DIR" --link app --venv venv --engine "$UV" "$INSTALL" &&
sed "s|VENV|$DIR/app/venv|; s|TREE|$DIR/app|; s|PORT|$PORT|" "$DIR/app/unit.json" >"$DIR/unit.json" &&
{ "$UNITD" --no-daemon $MODULES --control "unix:$DIR/control.sock" --pid "$DIR/unit.pid" --statedir "$DIR" --tmpdir "$DIR" \
  --log "$DIR/unit.log" 2>"$DIR/unit.err" & } &&
"$BINARY" apply --control-socket "unix:$DIR/control.sock" --config "$DIR/unit.json" --probe "http://127.0.0.1:$PORT/""#,
    ],
};

/// The best shell script, with a cache that has everything.
const WARM: Contender = Contender {
    name: "best shell script, warm cache",
    argv: &[
        "sh",
        "-c",
        r#"git clone -q --depth 1 "$REPO" "$DIR/app" & clone=$!
export UV_CACHE_DIR="$WARM" && "$UV" venv -q "$DIR/venv" && wait $clone && cd "$DIR/app" &&
"$UV" pip install -q --python "$DIR/venv/bin/python" --compile-bytecode --index-url "$INDEX" "$INSTALL""#,
    ],
};
/// The least that a restored environment can cost.
const FLOOR: Contender = Contender { name: "tar --zstd -x", argv: &["tar", "--zstd", "-xf", "$ARCHIVE", "-C", "$DIR"] };
/// podstrap with an environment that several Pods can share.
pub(super) const SHARED: [&str; 13] = [
    PODSTRAP,
    "init",
    "--repo",
    "$REPO",
    "--root",
    "$DIR",
    "--venv",
    "python/venv",
    "--venv-final-path",
    "/app/python/venv",
    "--engine",
    "$UV",
    "$INSTALL",
];
/// The same with a store.
const fn restore(store: &'static str) -> [&'static str; 15] {
    let mut argv = ["--store"; SHARED.len() + 2];
    let mut n = 0;
    while n < SHARED.len() {
        argv[n] = SHARED[n];
        n += 1;
    }
    argv[SHARED.len() + 1] = store;
    argv
}
const DIRECTORY: Contender = Contender { name: "podstrap init, directory", argv: &restore("$STORE") };
const REGISTRY: Contender = Contender { name: "podstrap init, registry", argv: &restore("$OCI") };

/// Fills the stores, the cache and the archive.
const FILL: &str = r#"set -e
for store in "$STORE" "$OCI"; do
  "$BINARY" init --repo "$REPO" --root "$WORK/root" --venv python/venv --venv-final-path /app/python/venv --engine "$UV"     --store "$store" --store-only "$INSTALL"
done
"$BINARY" init --repo "$REPO" --root "$WORK/made" --venv python/venv --venv-final-path /app/python/venv --engine "$UV"   --store "$STORE" "$INSTALL"
tar --zstd -cf "$ARCHIVE" -C "$WORK/made/python/venv" .
export UV_CACHE_DIR="$WARM"
"$UV" venv -q "$WORK/venv"
"$UV" pip install -q --python "$WORK/venv/bin/python" --index-url "$INDEX" -r "$WORK/repos/app.git/requirements.txt"
rm -rf "$WORK/venv" "$WORK/made"
"#;

/// The usual postStart hook.
const LOOP: Contender = Contender {
    name: "shell loop",
    argv: &[
        "sh",
        "-c",
        r#"while [ ! -e "$SOCKET" ]; do sleep 1; done &&
curl -s -X PUT --data-binary @"$CONFIG" --unix-socket "$SOCKET" http://localhost/config"#,
    ],
};
const APPLY: Contender = Contender { name: "podstrap apply", argv: &[PODSTRAP, "apply"] };

const fn goal(contender: Contender, against: Contender, at_most: f64) -> Goal {
    Goal { contender: contender.name, against: against.name, at_most }
}

const fn source(title: &'static str, files: usize, goals: &'static [Goal]) -> Scenario {
    Scenario { name: "source", title, subject: Subject::Source(files), contenders: &[CLONE, NO_VENV], goals, ..INIT }
}

/// The usual contenders.
const INIT: Scenario = Scenario {
    name: "small",
    title: "",
    subject: Subject::Small(0),
    contenders: &[RECIPE, BY_HAND, UV, PIP],
    goals: &[],
    is_busy: false,
    needs_unit: false,
};

const WEB: Subject = Subject::Pinned("web", include_str!("web.txt"));
const SCIENCE: Subject = Subject::Pinned("science", include_str!("science.txt"));

pub(super) const SCENARIOS: &[Scenario] = &[
    source("source only: 13 files", 13, &[goal(NO_VENV, CLONE, 0.6)]),
    source("source only: 1,201 files", 1_201, &[goal(NO_VENV, CLONE, 0.5)]),
    source("source only: 4,870 files", 4_870, &[goal(NO_VENV, CLONE, 0.5)]),
    source("source only: 10,637 files", 10_637, &[goal(NO_VENV, CLONE, 0.5)]),
    Scenario {
        title: "init: a small app (3 files, Flask)",
        goals: &[goal(UV, RECIPE, 0.08), goal(UV, BY_HAND, 0.6), goal(PIP, RECIPE, 0.5)],
        ..INIT
    },
    Scenario { title: "init: the same app with 1,200 more files", subject: Subject::Small(1_200), ..INIT },
    Scenario {
        name: "web",
        title: "init: a web app with 81 packages",
        subject: WEB,
        contenders: &[RECIPE, WITHOUT, BY_HAND, UV, PIP],
        goals: &[goal(UV, RECIPE, 0.2), goal(UV, WITHOUT, 1.0), goal(UV, BY_HAND, 0.8), goal(PIP, RECIPE, 0.5)],
        ..INIT
    },
    Scenario {
        name: "science",
        title: "init: a scientific app (numpy, pandas, scikit-learn, scipy, matplotlib)",
        subject: SCIENCE,
        goals: &[goal(UV, BY_HAND, 0.8), goal(PIP, RECIPE, 0.5)],
        ..INIT
    },
    Scenario {
        name: "store",
        title: "store: the web app in the second Pod",
        subject: Subject::Stored("web", include_str!("web.txt")),
        contenders: &[FLOOR, WARM, DIRECTORY, REGISTRY],
        goals: &[goal(DIRECTORY, WARM, 0.2), goal(DIRECTORY, FLOOR, 1.3), goal(REGISTRY, FLOOR, 1.6)],
        ..INIT
    },
    Scenario {
        name: "busy",
        title: "init: the web app on a disk",
        subject: WEB,
        contenders: &[BY_HAND, UV],
        is_busy: true,
        ..INIT
    },
    Scenario {
        name: "serve",
        title: "serve: the web app, from the start of init to its first page",
        subject: WEB,
        contenders: &[SERVE_BY_HAND, SERVE],
        goals: &[goal(SERVE, SERVE_BY_HAND, 0.7)],
        needs_unit: true,
        ..INIT
    },
    Scenario {
        name: "apply",
        title: "apply: from the start of Unit to the configuration applied",
        subject: Subject::Apply,
        contenders: &[LOOP, APPLY],
        ..INIT
    },
];

/// The web app's page needs most of its packages.
const WSGI: &str = "\
import alembic, boto3, bs4, celery, cryptography.fernet, django, fastapi, httpx, lxml.etree, marshmallow, psycopg
import prometheus_client, pydantic_settings, redis, requests, rest_framework, sentry_sdk, structlog, yaml
import flask_login, flask_sqlalchemy
from flask import Flask
application = Flask(__name__)
@application.get('/')
def home(): return 'Hello from the web app'
";

const CONFIG: &str = r#"{
  "listeners": {"127.0.0.1:PORT": {"pass": "applications/app"}},
  "applications": {"app": {"type": "python", "path": "TREE", "home": "VENV", "module": "wsgi"}}
}
"#;

/// The variables of all contenders.
pub(super) type Env = Vec<(&'static str, String)>;

impl Subject {
    /// Creates the repository and starts the servers.
    pub(super) fn prepare(&self, work: &Path) -> (Env, (GitServer, Option<IndexServer>, Option<Registry>)) {
        let repos = work.join("repos");
        let repo = Repo::new(&repos.join("app.git"));
        // Otherwise the commit starts another gc in the background.
        repo.git(["config", "gc.auto", "0"]);
        let (mut install, mut wheels) = ("Flask", None);
        match *self {
            Self::Source(files) => modules(&repo, files),
            Self::Small(files) => {
                repo.file("python/flask/index.py", "from flask import Flask\napplication = Flask(__name__)\n");
                repo.file("python/testapp/index.py", "def application(environ, start_response): ...\n");
                repo.file("README.md", "app\n");
                for n in 0..files {
                    let text = "some text ".repeat(n % 400);
                    repo.file(format!("data/{:02}/{n}.txt", n % 40), format!("{n}: {text}\n"));
                }
                wheels = Some(index::wheelhouse());
            }
            Self::Pinned(name, pins) | Self::Stored(name, pins) => {
                repo.file("requirements.txt", pins).file("wsgi.py", WSGI).file("unit.json", CONFIG);
                (install, wheels) = ("-rrequirements.txt", Some(wheelhouse(name, pins)));
            }
            Self::Apply => {}
        }
        repo.commit("all").git(["gc", "--quiet"]);
        let (git, packages) = (GitServer::start(&repos), wheels.map(|dir| IndexServer::start(&dir)));
        let mut env: Env = vec![("REPO", git.url("app.git")), ("INSTALL", install.to_owned())];
        if let Some(packages) = &packages {
            let url = packages.url();
            env.extend([("INDEX", url.clone()), ("PIP_INDEX_URL", url), ("UV", index::uv().display().to_string())]);
        }
        if let Ok(unitd) = std::env::var(UNITD) {
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").port();
            let modules = std::env::var(MODULES).map_or_else(|_| String::new(), |dir| format!("--modulesdir {dir}"));
            env.extend([
                ("UNITD", unitd),
                ("MODULES", modules),
                ("PORT", port.to_string()),
                ("BINARY", PODSTRAP.into()),
            ]);
        }
        let registry = matches!(self, Self::Stored(..)).then(|| fill(work, &mut env));
        (env, (git, packages, registry))
    }
}

/// Starts a registry, and does what an earlier Pod did.
fn fill(work: &Path, env: &mut Env) -> Registry {
    let registry =
        Registry::start(&work.join("registry")).expect("docker-registry is installed (Debian: docker-registry)");
    let place = |name: &str| work.join(name).display().to_string();
    for name in ["store", "root", "made"] {
        std::fs::create_dir(work.join(name)).expect("the directory is writable");
    }
    env.extend([("STORE", place("store")), ("WARM", place("warm")), ("ARCHIVE", place("venv.tar.zst"))]);
    env.extend([("OCI", registry.store()), ("WORK", work.display().to_string()), ("BINARY", PODSTRAP.into())]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", FILL])
        .env_clear()
        .env("PATH", &*crate::PATH)
        .env("HOME", work)
        .envs(env.iter().map(|(name, value)| (name, value)));
    assert!(shell.status().expect("a shell").success(), "{FILL}");
    registry
}

/// A directory with the wheels of these pinned requirements. pip downloads them once.
fn wheelhouse(name: &str, pins: &str) -> PathBuf {
    index::once(&format!("{name}-{}", index::own_python()), pins, |dir| {
        let list = dir.join("requirements.txt");
        std::fs::write(&list, pins).expect("the target directory is writable");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]);
        assert!(pip.arg(dir).arg("-r").arg(list).status().expect("python3 starts").success(), "{pip:?}");
    })
}

/// Adds so many files, each the start of a module of Python's library.
fn modules(repo: &Repo, files: usize) {
    const LIBRARY: &str = "import pathlib, sysconfig
for path in sorted(pathlib.Path(sysconfig.get_path('stdlib')).rglob('*.py')):
    if 'site-packages' not in path.parts and 'dist-packages' not in path.parts:
        print(path)";
    let modules = Command::new("python3").args(["-c", LIBRARY]).output().expect("python3 is installed").stdout;
    let modules = String::from_utf8(modules).expect("its paths are UTF-8");
    let modules: Vec<&str> = modules.lines().collect();
    for n in 0..files {
        let text = std::fs::read(modules[n % modules.len()]).expect("it is readable");
        let text = String::from_utf8_lossy(&text).chars().take(6_000).collect::<String>();
        repo.file(format!("app/{:03}/m{n}.py", n / 40), format!("# {n}\n{text}"));
    }
}
