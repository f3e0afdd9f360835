//! `cargo bench --bench boot`: compares podstrap with shell scripts, from process start to exit.
//!
//! In each round every contender runs once, on a fresh directory with empty caches, against a local
//! Git server and a local package index. Ratios compare runs of the same round, so a machine that
//! slows down affects all contenders. `PODSTRAP_BENCH_WRITE=1` writes the tables to
//! docs/performance.md and the picture to docs/timeline.svg; `PODSTRAP_BENCH_ROUNDS` sets the rounds.
//! `-- NAME …` runs only these tables of scenarios.rs; `-- timeline` only draws the picture, `-- scale N` only starts
//! many inits at once (scale.rs), and `-- figures` counts instead of measuring (figures.rs). The directories are in
//! memory (`/dev/shm`), or below `PODSTRAP_BENCH_DIR`.

mod figures;
mod page;
mod scale;
mod scenarios;
#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "the benchmark uses a part of the tests' support")]
mod support;
mod timeline;

use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use page::Table;
use scenarios::{Contender, SCENARIOS, Scenario, Subject};

const PODSTRAP: &str = env!("CARGO_BIN_EXE_podstrap");

/// If set, the benchmark writes its results to the documentation.
const WRITE: &str = "PODSTRAP_BENCH_WRITE";

/// The parent of all directories; `/dev/shm` by default.
const DIR: &str = "PODSTRAP_BENCH_DIR";

/// The most inits that start at once.
const AT_ONCE: usize = 64;

/// Path of a real unitd, and of its modules if it does not know their path.
const UNITD: &str = "PODSTRAP_TEST_UNITD";
const MODULES: &str = "PODSTRAP_TEST_UNITD_MODULES";

/// Runs argv and prints its seconds, the peak of its largest process in KiB, its exit code and its end time. It imports
/// little, because a process inherits the peak of its parent (8 MiB).
const MEASURE: &str = "import posix, sys, time
start = time.perf_counter()
null = [(posix.POSIX_SPAWN_OPEN, 1, '/dev/null', posix.O_WRONLY, 0)]
pid = posix.posix_spawnp(sys.argv[1], sys.argv[1:], posix.environ, file_actions=null)
_, status, usage = posix.wait4(pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss, posix.waitstatus_to_exitcode(status), time.time())";

/// `PATH`, with the directory of the real interpreter first: version managers put a shell script in its place, whose start
/// is longer than some of the measured steps.
static PATH: LazyLock<OsString> = LazyLock::new(|| {
    let code = "import os, sys; print(os.path.dirname(os.path.realpath(sys.executable)))";
    let output = Command::new("python3").args(["-I", "-c", code]).output().expect("python3 is installed");
    let real = PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim());
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(real).chain(std::env::split_paths(&path))).expect("no colon in a directory")
});

struct Sample {
    seconds: f64,
    peak_mib: f64,
    /// Seconds since the epoch.
    ended: f64,
    /// podstrap's phases and their seconds, from its summary.
    phases: String,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match &args[..] {
        [no_daemon, _, control] if no_daemon == "--no-daemon" => return serve(control),
        [write, dir] if write == "--write" => return keep_writing(Path::new(dir)),
        _ => {}
    }
    let is_given = |name: &str| args.iter().any(|arg| arg == name);
    // `cargo test --benches` only checks that it builds and starts.
    if is_given("--test") {
        return;
    }
    let wanted = std::env::var_os(WRITE).is_some();
    if is_given("figures") {
        return figures::run(wanted);
    }
    if is_given("timeline") {
        let picture = timeline::draw();
        write(wanted, "docs/timeline.svg", &picture.svg);
        println!("{}", picture.gaps);
        return assert!(picture.is_complete, "too much of the run belongs to no phase: give this time one");
    }
    if is_given("scale") {
        let most = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(AT_ONCE);
        return scale::run(most, wanted);
    }
    let rounds = std::env::var("PODSTRAP_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let chosen: Vec<_> = SCENARIOS.iter().filter(|scenario| args.is_empty() || is_given(scenario.name)).collect();
    assert!(!chosen.is_empty(), "no table has one of these names: {args:?}");
    let tables = chosen.iter().flat_map(|scenario| run(scenario, rounds));
    // Also now, in case that somebody ends a long benchmark.
    let tables: Vec<Table> = tables.inspect(|table| eprintln!("{}", table.text())).collect();
    println!("{}", page::report(&tables));
    if args.is_empty() {
        let picture = timeline::draw();
        let scale = scale::measure(AT_ONCE);
        write(wanted, "docs/performance.md", &page::page(&tables, &picture, &scale, rounds));
        write(wanted, "docs/timeline.svg", &picture.svg);
        scale.write(wanted);
    }
}

fn write(wanted: bool, name: &str, text: &str) {
    if wanted {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), text).expect("the checkout is writable");
    }
}

/// A new directory for a benchmark; `on_disk`: not in memory by default.
fn directory(on_disk: bool) -> tempfile::TempDir {
    let default = if on_disk { env!("CARGO_TARGET_TMPDIR") } else { "/dev/shm" };
    let parent = std::env::var_os(DIR).map_or_else(|| PathBuf::from(default), PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("a writable directory");
    open_to_unit(dir.path());
    dir
}

/// Unit's applications run as another user.
fn open_to_unit(dir: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir, mode).expect("a directory of ours");
}

/// Runs all contenders of a scenario, and returns its tables: none if it cannot run here.
fn run(scenario: &'static Scenario, rounds: usize) -> Vec<Table> {
    let unitd = std::env::var_os(UNITD);
    if scenario.needs_unit && unitd.is_none() {
        eprintln!("{}: LEFT OUT, because {UNITD} is not set", scenario.title);
        return Vec::new();
    }
    let loads: &[bool] = if scenario.is_busy { &[false, true] } else { &[false] };
    let runs: Vec<_> = loads.iter().flat_map(|busy| scenario.contenders.iter().map(move |one| (one, *busy))).collect();
    let work = directory(scenario.is_busy);
    let mut writer = None;
    let mut samples = if matches!(scenario.subject, Subject::Apply) {
        rounds_of(scenario, &runs, rounds, |(one, _), round| apply(one, rounds, round))
    } else {
        let (env, _servers) = scenario.subject.prepare(work.path());
        rounds_of(scenario, &runs, rounds, |(one, busy), _| {
            writer = writer.take().filter(|_| busy).or_else(|| busy.then(|| Writer::start(work.path())));
            once(one, work.path(), &env)
        })
    };
    let under = |busy| match (scenario.is_busy, busy) {
        (false, _) => scenario.title.to_owned(),
        (_, false) => format!("{}, otherwise idle", scenario.title),
        (_, true) => format!("{}, while another process writes {RATE} MB/s to it", scenario.title),
    };
    let width = scenario.contenders.len();
    let tables = loads.iter().map(|busy| {
        let own = samples.iter_mut().map(|round| round.drain(..width).collect()).collect();
        Table { scenario, title: under(*busy), is_busy: *busy, rounds: own }
    });
    tables.collect()
}

/// Runs each contender in each round, and shows the progress.
fn rounds_of(
    scenario: &Scenario,
    runs: &[(&'static Contender, bool)],
    rounds: usize,
    mut run: impl FnMut((&'static Contender, bool), usize) -> Sample,
) -> Vec<Vec<Sample>> {
    let (started, all, mut done) = (Instant::now(), runs.len() * (rounds + 1), 0_u32);
    let mut one = |round, (contender, busy): (&'static Contender, bool)| {
        let left = started.elapsed() / done.max(1) * u32::try_from(all).unwrap_or(u32::MAX).saturating_sub(done);
        let left = if done == 0 { String::new() } else { format!(", about {} s left", left.as_secs()) };
        let load = if busy { ", busy disk" } else { "" };
        eprintln!(
            "{}: round {round} of {rounds}: {}{load} ({done} of {all} runs done{left})",
            scenario.title, contender.name
        );
        done += 1;
        run((contender, busy), round)
    };
    // The first round warms the page cache and does not count.
    let all = (0..=rounds).map(|round| runs.iter().map(|run| one(round, *run)).collect());
    all.skip(1).collect()
}

/// Runs a contender in a new directory, which is deleted after its clock has stopped.
fn once(contender: &Contender, work: &Path, env: &[(&str, String)]) -> Sample {
    let dir = tempfile::tempdir_in(work).expect("a directory");
    open_to_unit(dir.path());
    let place = |path: &Path| path.display().to_string();
    let mut env = env.to_vec();
    env.extend(["DIR", "HOME", "TMPDIR"].map(|name| (name, place(dir.path()))));
    env.push(("UV_CACHE_DIR", place(&dir.path().join(".cache"))));
    let value = |arg: &str| {
        let name = arg.strip_prefix('$')?;
        Some(env.iter().find(|(known, _)| *known == name)?.1.clone())
    };
    let argv = contender.argv.iter().map(|arg| value(arg).unwrap_or_else(|| (*arg).to_owned()));
    let _unit = Daemon(dir.path().join("unit.pid"));
    measure(argv, &env.iter().map(|(name, value)| (*name, Path::new(value))).collect::<Vec<_>>())
}

/// The Unit that a contender may have started, by its file with the process ID; dropping it ends it.
struct Daemon(PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let Ok(pid) = std::fs::read_to_string(&self.0) else { return };
        end(pid.trim());
        // Unit deletes the file when it ends.
        for _ in 0..1000 {
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("Unit does not end: process {}", pid.trim());
    }
}

/// Ends a process with SIGTERM, because Unit's processes would outlive a SIGKILL.
fn end(pid: &str) {
    Command::new("kill").arg(pid).status().expect("kill is installed");
}

/// Measures from the start of Unit, at a time between two checks of the loop, to the applied configuration.
fn apply(contender: &Contender, rounds: usize, round: usize) -> Sample {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, config) = (dir.path().join("control.unit.sock"), dir.path().join("unit.conf.json"));
    std::fs::write(&config, r#"{"listeners": {}, "applications": {}}"#).expect("writable");
    // Spread evenly over the one second of the loop.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let late = Duration::from_secs_f64(0.1 + (round % rounds.max(1)) as f64 / rounds.max(1) as f64);
    let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let start = (start + late).as_secs_f64();
    let mut unit = start_unit(dir.path(), &socket, late);
    let env =
        [("SOCKET", &*socket), ("CONFIG", &config), ("PODSTRAP_CONTROL_SOCKET", &socket), ("PODSTRAP_CONFIG", &config)];
    let mut sample = measure(contender.argv.iter().map(|arg| (*arg).to_owned()), &env);
    sample.seconds = sample.ended - start;
    end(&unit.id().to_string());
    unit.wait().expect("a child of ours");
    sample
}

/// Starts Unit on this socket after a delay: the real one if configured, otherwise this program as `serve`.
fn start_unit(dir: &Path, socket: &Path, late: Duration) -> Child {
    let control = format!("unix:{}", socket.display());
    let (program, args) = match std::env::var_os(UNITD) {
        Some(unitd) => {
            let place = |name: &str| dir.join(name).into_os_string();
            let args =
                [("--pid", place("pid")), ("--statedir", place("")), ("--tmpdir", place("")), ("--log", place("log"))];
            (PathBuf::from(unitd), args.into_iter().flat_map(|(name, value)| [name.into(), value]).collect())
        }
        None => (std::env::current_exe().expect("we run"), Vec::<OsString>::new()),
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

/// What the other process of `busy` writes, in MB/s.
const RATE: usize = 200;
/// Time until the disk is busy.
const UNTIL_BUSY: Duration = Duration::from_secs(2);

/// A process that writes to the disk of a directory until it is dropped.
struct Writer(Child);

impl Writer {
    fn start(dir: &Path) -> Self {
        let exe = std::env::current_exe().expect("we run");
        let child = Command::new(exe).arg("--write").arg(dir).spawn().expect("we run");
        std::thread::sleep(UNTIL_BUSY);
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // The next run is to find an idle disk.
        Command::new("sync").status().expect("sync is installed");
    }
}

/// Writes to a file that starts anew after ten seconds, and syncs it once a second.
fn keep_writing(dir: &Path) {
    use std::io::{Seek, Write};
    let file = dir.join("written");
    let mut file = std::fs::File::create(file).expect("writable");
    let megabyte = vec![b'x'; 1_000_000];
    for second in 0.. {
        if second % 10 == 0 {
            file.rewind().expect("a file");
        }
        let start = Instant::now();
        for tenth in 1..=10 {
            (0..RATE / 10).for_each(|_| file.write_all(&megabyte).expect("space on the disk"));
            std::thread::sleep(Duration::from_millis(100 * tenth).saturating_sub(start.elapsed()));
        }
        file.sync_data().expect("a disk");
    }
}

fn measure(argv: impl Iterator<Item = String>, env: &[(&str, &Path)]) -> Sample {
    let output = Command::new("python3")
        .args(["-I", "-S", "-c", MEASURE])
        .args(argv)
        .env_clear()
        .env("PATH", &*PATH)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .envs(env.iter().copied())
        .output()
        .expect("python3 is installed");
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [seconds, kib, code, ended] = numbers[..] else { panic!("{text}{log}") };
    assert!(code == 0.0, "{log}");
    let summary = log.lines().find(|line| line.starts_with("podstrap: published at "));
    let phases = summary.and_then(|line| line.split_once(" (")?.1.split(')').next()).unwrap_or_default().to_owned();
    Sample { seconds, peak_mib: kib / 1024.0, ended, phases }
}
