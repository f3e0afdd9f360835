//! `cargo bench --bench boot`: compares podstrap with shell scripts, from process start to exit.
//!
//! In each round every contender runs once, on a fresh directory with empty caches, against a local
//! Git server and a local package index. Ratios compare runs of the same round, so a machine that
//! slows down affects all contenders. `PODSTRAP_BENCH_WRITE=1` writes the tables to
//! docs/performance.md and the picture to docs/timeline.svg; `-- timeline` only draws the picture,
//! and `-- source` only compares clones. The directories are in memory (`/dev/shm`), or below
//! `PODSTRAP_BENCH_DIR`.

#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "the benchmark uses a part of the tests' support")]
mod support;
mod timeline;

use std::fmt::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::git::{GitServer, Repo};
use support::index::{self, IndexServer};

const PODSTRAP: &str = env!("CARGO_BIN_EXE_podstrap");

/// If set, the benchmark writes its results to the documentation.
const WRITE: &str = "PODSTRAP_BENCH_WRITE";

/// The parent of all directories; `/dev/shm` by default.
const DIR: &str = "PODSTRAP_BENCH_DIR";

/// Path of a real unitd for the `apply` benchmark.
const UNITD: &str = "PODSTRAP_TEST_UNITD";

/// Runs argv and prints its seconds, the peak of its largest process in KiB, its exit code and its end time.
const MEASURE: &str = "import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds, ended = time.perf_counter() - start, time.time()
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code, ended)";

/// The usual one-liner, with `&&` so that a failure is visible.
const RECIPE: &str = r#"git clone -q "$REPO" "$DIR/app" &&
python3 -m venv "$DIR/app/python/venv" && . "$DIR/app/python/venv/bin/activate" &&
pip install -q --index-url "$INDEX" Flask"#;

/// The fastest script known to us: shallow clone, two steps in parallel, uv, bytecode.
const BY_HAND: &str = r#"git clone -q --depth 1 "$REPO" "$DIR/app" & clone=$!
"$UV" venv -q "$DIR/venv" && wait $clone &&
"$UV" pip install -q --python "$DIR/venv/bin/python" --compile-bytecode --index-url "$INDEX" Flask"#;

/// A clone without an environment.
const CLONE: &str = r#"git clone -q --depth 1 "$REPO" "$DIR/app""#;

/// The usual postStart hook.
const LOOP: &str = r#"while [ ! -e "$SOCKET" ]; do sleep 1; done &&
curl -s -X PUT --data-binary @"$CONFIG" --unix-socket "$SOCKET" http://localhost/config"#;

struct Contender {
    name: &'static str,
    argv: Vec<String>,
}

#[derive(Clone, Copy)]
struct Sample {
    seconds: f64,
    peak_mib: f64,
    /// Seconds since the epoch.
    ended: f64,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, no_daemon, _, control] = &args[..]
        && no_daemon == "--no-daemon"
    {
        return serve(control);
    }
    // `cargo test --benches` only checks that it builds and starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    if args.iter().any(|arg| arg == "timeline") {
        return write(std::env::var_os(WRITE).is_some(), "docs/timeline.svg", &init(&mut String::new(), "", 0, 0));
    }
    let rounds = std::env::var("PODSTRAP_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let mut report = String::new();
    for files in [13, 1_201, 4_870, 10_637] {
        source(&mut report, files, rounds);
    }
    if args.iter().any(|arg| arg == "source") {
        return println!("{report}");
    }
    let picture = init(&mut report, "a small app (3 files, Flask)", 0, rounds);
    init(&mut report, "the same app with 1,200 more files", 1_200, rounds);
    apply(&mut report, rounds);
    println!("{report}");
    let wanted = std::env::var_os(WRITE).is_some();
    write(wanted, "docs/performance.md", &page(&report, rounds));
    write(wanted, "docs/timeline.svg", &picture);
}

fn write(wanted: bool, name: &str, text: &str) {
    if wanted {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), text).expect("the checkout is writable");
    }
}

/// A new directory for a benchmark.
fn directory() -> tempfile::TempDir {
    let parent = std::env::var_os(DIR).map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    tempfile::tempdir_in(parent).expect("a writable directory")
}

fn shell(script: &str) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]
}

/// Compares clones of a repository with so many files, each the start of a module of Python's library.
fn source(report: &mut String, files: usize, rounds: usize) {
    const LIBRARY: &str = "import pathlib, sysconfig
for path in sorted(pathlib.Path(sysconfig.get_path('stdlib')).rglob('*.py')):
    if 'site-packages' not in path.parts and 'dist-packages' not in path.parts:
        print(path)";
    let modules = Command::new("python3").args(["-c", LIBRARY]).output().expect("python3 is installed").stdout;
    let modules = String::from_utf8(modules).expect("its paths are UTF-8");
    let modules: Vec<&str> = modules.lines().collect();
    let work = directory();
    let repos = work.path().join("repos");
    let repo = Repo::new(&repos.join("app.git"));
    // Otherwise the commit starts another gc in the background.
    repo.git(["config", "gc.auto", "0"]);
    for n in 0..files {
        let text = std::fs::read(modules[n % modules.len()]).expect("it is readable");
        let text = String::from_utf8_lossy(&text).chars().take(6_000).collect::<String>();
        repo.file(format!("app/{:03}/m{n}.py", n / 40), format!("# {n}\n{text}"));
    }
    repo.commit("all").git(["gc", "--quiet"]);
    let server = GitServer::start(&repos);
    let podstrap = [PODSTRAP, "init", "--repo", "$REPO", "--root", "$DIR", "--venv", "none"];
    let contenders = [
        Contender { name: "git clone --depth 1", argv: shell(CLONE) },
        Contender { name: "podstrap init --venv none", argv: podstrap.map(str::to_owned).to_vec() },
    ];
    let samples = compare(&contenders, rounds, work.path(), &[("REPO", server.url("app.git"))]);
    table(report, &format!("## source only: {files} files"), &contenders, &samples);
}

/// Runs each contender in each round, in a new directory, with these variables.
fn compare(contenders: &[Contender], rounds: usize, work: &Path, env: &[(&str, String)]) -> Vec<Vec<Sample>> {
    rounds_of(contenders, rounds, |contender| {
        let dir = tempfile::tempdir_in(work).expect("a directory");
        let place = |path: &Path| path.display().to_string();
        let mut env = env.to_vec();
        env.extend(["DIR", "HOME", "TMPDIR"].map(|name| (name, place(dir.path()))));
        env.push(("UV_CACHE_DIR", place(&dir.path().join(".cache"))));
        let value = |arg: &str| {
            let name = arg.strip_prefix('$')?;
            Some(env.iter().find(|(known, _)| *known == name)?.1.clone())
        };
        let argv = contender.argv.iter().map(|arg| value(arg).unwrap_or_else(|| arg.clone()));
        measure(argv, &env.iter().map(|(name, value)| (*name, Path::new(value))).collect::<Vec<_>>())
    })
}

/// Runs one benchmark of `init` and returns the picture of one run.
fn init(report: &mut String, title: &str, files: usize, rounds: usize) -> String {
    let work = directory();
    let repos = work.path().join("repos");
    let repo = Repo::new(&repos.join("app.git"));
    repo.file("python/flask/index.py", "from flask import Flask\napplication = Flask(__name__)\n");
    repo.file("python/testapp/index.py", "def application(environ, start_response): ...\n").file("README.md", "app\n");
    for n in 0..files {
        repo.file(format!("data/{:02}/{n}.txt", n % 40), format!("{n}: {}\n", "some text ".repeat(n % 400)));
    }
    repo.commit("all").git(["gc", "--quiet"]);
    let (server, packages, uv) = (GitServer::start(&repos), IndexServer::start(&index::wheelhouse()), index::uv());
    let podstrap = |engine: String| {
        let args = ["init", "--repo", "$REPO", "--root", "$DIR", "--venv", "python/venv", "--engine", &engine, "Flask"];
        [vec![PODSTRAP.to_owned()], args.map(str::to_owned).to_vec()].concat()
    };
    let contenders = [
        Contender { name: "shell recipe", argv: shell(RECIPE) },
        Contender { name: "best shell script", argv: shell(BY_HAND) },
        Contender { name: "podstrap init, uv", argv: podstrap(uv.display().to_string()) },
        Contender { name: "podstrap init, pip", argv: podstrap("pip".into()) },
    ];
    let env = [
        ("REPO", server.url("app.git")),
        ("UV", uv.display().to_string()),
        ("INDEX", packages.url()),
        ("PIP_INDEX_URL", packages.url()),
    ];
    let samples = compare(&contenders, rounds, work.path(), &env);
    if rounds > 0 {
        table(report, &format!("## init: {title}"), &contenders, &samples);
    }
    timeline::draw(&contenders[2].argv, &env.into_iter().filter(|(name, _)| *name != "UV").collect())
}

/// Measures from the start of Unit, at a time between two checks of the loop, to the applied configuration.
fn apply(report: &mut String, rounds: usize) {
    let contenders = [
        Contender { name: "shell loop", argv: vec!["sh".into(), "-c".into(), LOOP.into()] },
        Contender { name: "podstrap apply", argv: vec![PODSTRAP.into(), "apply".into()] },
    ];
    let mut round = 0;
    let samples = rounds_of(&contenders, rounds, |contender| {
        let dir = tempfile::tempdir().expect("a directory");
        let (socket, config) = (dir.path().join("control.unit.sock"), dir.path().join("unit.conf.json"));
        std::fs::write(&config, r#"{"listeners": {}, "applications": {}}"#).expect("writable");
        // Spread evenly over the one second of the loop.
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let late = Duration::from_secs_f64(0.1 + (round / contenders.len() % rounds) as f64 / rounds as f64);
        round += 1;
        let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let start = (start + late).as_secs_f64();
        let mut unit = start_unit(dir.path(), &socket, late);
        let mut sample = measure(
            contender.argv.iter().cloned(),
            &[
                ("SOCKET", &socket),
                ("CONFIG", &config),
                ("PODSTRAP_CONTROL_SOCKET", &socket),
                ("PODSTRAP_CONFIG", &config),
            ],
        );
        sample.seconds = sample.ended - start;
        // SIGTERM, because Unit's processes would outlive a SIGKILL.
        Command::new("kill").arg(unit.id().to_string()).status().expect("kill is installed");
        unit.wait().expect("a child of ours");
        sample
    });
    let unit = if std::env::var_os(UNITD).is_some() { "a real unitd" } else { "a stand-in for Unit" };
    table(report, &format!("## apply: from the start of {unit} to the configuration applied"), &contenders, &samples);
}

/// Starts Unit on this socket after a delay: the real one if configured, otherwise this program as `serve`.
fn start_unit(dir: &Path, socket: &Path, late: Duration) -> std::process::Child {
    let control = format!("unix:{}", socket.display());
    let (program, args) = match std::env::var_os(UNITD) {
        Some(unitd) => {
            let place = |name: &str| dir.join(name).into_os_string();
            let args =
                [("--pid", place("pid")), ("--statedir", place("")), ("--tmpdir", place("")), ("--log", place("log"))];
            (PathBuf::from(unitd), args.into_iter().flat_map(|(name, value)| [name.into(), value]).collect())
        }
        None => (std::env::current_exe().expect("we run"), Vec::<std::ffi::OsString>::new()),
    };
    Command::new("sh")
        .args(["-c", "sleep \"$0\"; exec \"$@\"", &late.as_secs_f64().to_string()])
        .arg(program)
        .args(["--no-daemon", "--control", &control])
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// A minimal Unit for both contenders: its configuration is empty, and every PUT succeeds.
fn serve(control: &str) {
    use std::io::{Read, Write};
    let listener = UnixListener::bind(control.trim_start_matches("unix:")).expect("a free path");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let mut head = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut head) else { continue };
        let put = head[..read].starts_with(b"PUT");
        let body =
            if put { r#"{"success": "Reconfiguration done."}"# } else { r#"{"listeners": {}, "applications": {}}"# };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nServer: Unit/1.35.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes());
    }
}

fn rounds_of(contenders: &[Contender], rounds: usize, mut run: impl FnMut(&Contender) -> Sample) -> Vec<Vec<Sample>> {
    // The first round warms the page cache and does not count.
    (0..=rounds).map(|_| contenders.iter().map(&mut run).collect()).skip(1).collect()
}

fn measure(argv: impl Iterator<Item = String>, env: &[(&str, &Path)]) -> Sample {
    let output = Command::new("python3")
        .args(["-c", MEASURE])
        .args(argv)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .envs(env.iter().copied())
        .output()
        .expect("python3 is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [seconds, kib, code, ended] = numbers[..] else { panic!("{text}{}", String::from_utf8_lossy(&output.stderr)) };
    assert!(code == 0.0, "{}", String::from_utf8_lossy(&output.stderr));
    Sample { seconds, peak_mib: kib / 1024.0, ended }
}

fn table(report: &mut String, title: &str, contenders: &[Contender], rounds: &[Vec<Sample>]) {
    let column = |index: usize, value: fn(&Sample) -> f64| -> Vec<f64> {
        rounds.iter().map(|round| value(&round[index])).collect()
    };
    let others = contenders.iter().position(|c| c.name.starts_with("podstrap")).expect("podstrap takes part");
    let _ = write!(report, "{title}\n\n| | seconds: min, median, max | peak of the largest process, MiB |");
    for contender in &contenders[..others] {
        let _ = write!(report, " ratio to {} |", contender.name);
    }
    let _ = writeln!(report, "\n|---|---|---|{}", "---|".repeat(others));
    for (index, contender) in contenders.iter().enumerate() {
        let [low, middle, high] = spread(column(index, |sample| sample.seconds));
        let [_, peak, _] = spread(column(index, |sample| sample.peak_mib));
        let _ = write!(report, "| {} | {low:.3}, **{middle:.3}**, {high:.3} | {peak:.0} |", contender.name);
        for other in 0..others {
            if index < others {
                report.push_str(" |");
                continue;
            }
            let ratios = rounds.iter().map(|round| round[index].seconds / round[other].seconds).collect();
            let [low, middle, high] = spread(ratios);
            let _ = write!(report, " {low:.2}, **{middle:.2}**, {high:.2} |");
        }
        report.push('\n');
    }
    report.push('\n');
}

/// Returns minimum, median and maximum.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// Returns the text of docs/performance.md.
fn page(report: &str, rounds: usize) -> String {
    let version = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect("it ran before");
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "# Performance\n\n    PODSTRAP_BENCH_WRITE=1 PODSTRAP_TEST_UNITD=/usr/sbin/unitd cargo bench --bench boot\n\n\
         This command writes this page. Without `PODSTRAP_TEST_UNITD`, the last table uses a stand-in for Unit.\n\n\
         | contender | commands |\n|---|---|\n\
         | shell recipe | `git clone`, `python3 -m venv` and `pip install`, one after the other |\n\
         | best shell script | a shallow clone and `uv venv` at the same time, then `uv pip install --compile-bytecode` |\n\
         | git clone --depth 1 | only that, compared with `podstrap init --venv none`, which also publishes |\n\
         | shell loop | `while [ ! -e SOCKET ]; do sleep 1; done`, then `curl -X PUT` |\n\n\
         Each table has {rounds} rounds after a warm-up. In each round, every contender runs once on a fresh directory \
         with\nempty caches. A Git server (`git http-backend`) and a package index run on the same machine. Ratios compare \
         runs of the\nsame round; below 1, podstrap is faster. Absolute times are from one machine with {cores} cores and all \
         files in memory,\npodstrap {}, {}, {}, {}.\n\n{}\n",
        version(Path::new("git"), &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short=12", "HEAD"]),
        version(Path::new("git"), &["--version"]),
        version(Path::new("python3"), &["--version"]),
        version(&index::uv(), &["--version"]),
        report.trim_end(),
    )
}
