//! A failing network: with random, reproducible faults, and with each single fault that has a rule.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::chaos::{Chaos, Dice, Fault, Wait};
use crate::support::git::{GitServer, Repo, listing};
use crate::support::http::{Response, Server};
use crate::support::index::{self, IndexServer};
use crate::support::sandbox::Sandbox;

/// Long enough for a few stalls, each of which may cost a quarter of it.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The time after the deadline in which a run must clear its staging. It needs much less, but test machines are
/// busy. The report shows the actual time.
const GRACE: Duration = Duration::from_secs(3);
/// Parallel runs: they mostly wait.
const AT_ONCE: usize = 5;
const ENGINES: [&str; 2] = ["uv", "pip"];

/// Working servers, an app of two commits, and its expected tree.
struct World {
    sandbox: Sandbox,
    old: String,
    git: GitServer,
    index: IndexServer,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    NoFault,
    Despite,
    Failed,
}

struct Report {
    outcome: Outcome,
    faults: BTreeMap<Fault, usize>,
    requests: usize,
    took: Duration,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let repos = sandbox.path("repos");
        let repo = Repo::new(&repos.join("app.git"));
        repo.file("index.py", "old\n").file("gone.py", "\n").commit("old");
        let old = repo.rev("main");
        // Random data, so that the pack is large enough to cut.
        let noise: Vec<u8> = (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        repo.file("index.py", "new\n").file("noise.bin", noise);
        std::fs::remove_file(repo.dir.join("gone.py")).unwrap();
        repo.commit("new");
        Self { sandbox, old, git: GitServer::start(&repos), index: IndexServer::start(&index::wheelhouse()) }
    }

    /// Runs through these ports. `build` adds `docopt`, which is built from source with setuptools.
    fn init(run: &Sandbox, engine: &str, git: u16, index: u16, build: bool) -> Command {
        let mut command = run.podstrap();
        let engine = if engine == "uv" { index::uv().display().to_string() } else { engine.to_owned() };
        command
            .args(["init", "--link", "app", "--venv-final-path", "/app/venv", "--engine", &engine])
            .args(["--timeout", &humantime::format_duration(TIMEOUT).to_string(), "--root"])
            .arg(run.root())
            .env("PODSTRAP_REPO", format!("http://127.0.0.1:{git}/app.git"))
            .env("PIP_INDEX_URL", format!("http://127.0.0.1:{index}/simple/"))
            .args(["click==8.1.8", "itsdangerous==2.2.0"]);
        if build {
            command.arg("docopt==0.6.2");
        }
        command
    }

    fn ports(&self) -> (u16, u16) {
        (self.git.port(), self.index.port())
    }

    /// The published tree after a run without faults.
    fn expected(&self, engine: &str, build: bool) -> String {
        let run = Sandbox::new();
        let (git, index) = self.ports();
        let ran = run.run(&mut Self::init(&run, engine, git, index, build));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        published(&run).expect("a release")
    }

    /// A volume with an older release.
    fn older(&self, engine: &str) -> PathBuf {
        let volume = self.sandbox.path(&format!("older-{engine}"));
        let run = Sandbox::new();
        let (git, index) = self.ports();
        let ran = run.run(Self::init(&run, engine, git, index, false).args(["--ref", &self.old]));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        copy(&run.root(), &volume);
        volume
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

fn published(run: &Sandbox) -> Option<String> {
    Some(listing(&run.root().join("app").canonicalize().ok()?))
}

/// Runs every seed: it must succeed, or fail properly and then succeed.
fn many(engine: &str, seeds: std::ops::Range<u64>) {
    let seeds: Vec<u64> = match std::env::var("PODSTRAP_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("PODSTRAP_TEST_SEED is a number")],
        Err(_) => seeds.collect(),
    };
    let world = World::new();
    let older = world.older(engine);
    let expected = [false, true].map(|build| world.expected(engine, build));
    let (queue, reports) = (Mutex::new(seeds.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().unwrap().next().copied() else { return };
                    let report = one(&world, engine, seed, &older, &expected);
                    let (outcome, faults) = (report.outcome, report.faults.values().sum::<usize>());
                    eprintln!("{engine}, seed {seed}: {outcome:?}, {faults} faults, {:.1?}", report.took);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let reports = reports.into_inner().unwrap();
    assert_eq!(reports.len(), seeds.len(), "a run panicked");
    eprintln!("{}", table(engine, &reports));
    let faults: usize = reports.iter().flat_map(|report| report.faults.values()).sum();
    assert!(seeds.len() == 1 || faults >= seeds.len(), "{faults} faults show nothing");
}

fn one(world: &World, engine: &str, seed: u64, older: &Path, expected: &[String; 2]) -> Report {
    // Four rates; with and without an older release; with and without a build from source.
    let (update, build) = (seed % 2 == 1, seed % 8 >= 6);
    #[expect(clippy::cast_precision_loss, reason = "0 to 3")]
    let probability = 0.05 + 0.1 * (seed / 2 % 4) as f64;
    let run = Sandbox::new();
    if update {
        copy(older, &run.root());
    }
    let before = published(&run);
    assert_eq!(before.is_some(), update);
    let dice = |half| Dice { seed: seed * 2 + half, probability, budget: 3 };
    let (git, index) = world.ports();
    let (git_chaos, index_chaos) = (Chaos::start(git, dice(0)), Chaos::start(index, dice(1)));

    let started = Instant::now();
    let mut command = World::init(&run, engine, git_chaos.port(), index_chaos.port(), build);
    // Short stall limits of the engines: with their defaults, many runs would take their full time.
    let ran = run.run(command.env("PIP_TIMEOUT", "2").env("UV_HTTP_TIMEOUT", "2"));
    let took = started.elapsed();
    let mut faults = git_chaos.faults();
    for (fault, number) in index_chaos.faults() {
        *faults.entry(fault).or_default() += number;
    }
    let requests = git_chaos.connections() + index_chaos.connections();
    let say =
        |what: &str| format!("{engine}, PODSTRAP_TEST_SEED={seed}: {what} after {took:.1?}\n{faults:?}\n{}", ran.raw);
    let after = published(&run);
    let outcome = if ran.code == Some(0) {
        assert!(after.as_ref() == Some(&expected[usize::from(build)]), "{}", say("another tree than without faults"));
        if faults.is_empty() { Outcome::NoFault } else { Outcome::Despite }
    } else {
        assert!(matches!(ran.code, Some(3 | 4)), "{}", say(&format!("exit code {:?}", ran.code)));
        assert!(took < TIMEOUT + GRACE, "{}", say("too late"));
        // A failure after the last request reports no tries.
        let told = regex::Regex::new(
            r"because: (gave up after \d+ (try|tries) in|.* was killed at the deadline, after) \d+\.\d s \(--timeout 40s\)",
        );
        assert!(told.unwrap().is_match(&ran.raw), "{}", say("does not tell of its tries"));
        assert!(after == before, "{}", say("not what was published before"));
        Outcome::Failed
    };
    assert!(!ran.raw.contains("panicked"), "{}", say("a panic"));
    if outcome == Outcome::Failed {
        let again = run.run(&mut World::init(&run, engine, git, index, build));
        assert_eq!(again.code, Some(0), "{}\nand then, without faults: {}", say("failed"), again.raw);
        assert!(published(&run).as_ref() == Some(&expected[usize::from(build)]), "{}", say("another tree"));
    }
    let left: Vec<_> = run.root().join(".podstrap/staging").read_dir().unwrap().collect();
    assert!(left.is_empty(), "{}", say(&format!("{left:?} stays in the staging directory")));
    Report { outcome, faults, requests, took }
}

fn table(engine: &str, reports: &[Report]) -> String {
    let count = |outcome| reports.iter().filter(|report| report.outcome == outcome).count();
    let slowest = reports.iter().map(|report| report.took).max().unwrap_or_default();
    let mut faults: BTreeMap<Fault, usize> = BTreeMap::new();
    for (fault, number) in reports.iter().flat_map(|report| &report.faults) {
        *faults.entry(*fault).or_default() += number;
    }
    let mut text = format!(
        "{engine}: {} runs, {} requests, {} faults: {} right despite faults, {} right without any, {} failed properly \
         and were right when run again; the slowest took {:.1} s\n",
        reports.len(),
        reports.iter().map(|report| report.requests).sum::<usize>(),
        faults.values().sum::<usize>(),
        count(Outcome::Despite),
        count(Outcome::NoFault),
        count(Outcome::Failed),
        slowest.as_secs_f64(),
    );
    let over = reports.iter().filter_map(|report| report.took.checked_sub(TIMEOUT)).max();
    if let Some(over) = over {
        writeln!(text, "  the latest ended {:.1} s after its time-out", over.as_secs_f64()).unwrap();
    }
    for (fault, number) in faults {
        writeln!(text, "  {number:5} {fault:?}").unwrap();
    }
    text
}

#[test]
fn a_network_that_fails_at_random() {
    for engine in ENGINES {
        // A few seeds that take only seconds.
        many(engine, 16..22);
    }
}

#[test]
#[ignore = "takes minutes: just network"]
fn a_network_that_fails_at_random_many_times_with_uv() {
    many("uv", 0..100);
}

#[test]
#[ignore = "takes minutes: just network"]
fn a_network_that_fails_at_random_many_times_with_pip() {
    many("pip", 0..100);
}

/// Runs with exactly these faults on the way to Git and to the index; the run must succeed.
fn survives(engine: &str, git: &[(&'static str, Fault)], index: &[(&'static str, Fault)]) {
    let (world, run) = (World::new(), Sandbox::new());
    let ports = world.ports();
    let expected = world.expected(engine, true);
    let (git, index) = (Chaos::scripted(ports.0, git), Chaos::scripted(ports.1, index));
    let ran = run.run(&mut World::init(&run, engine, git.port(), index.port(), true));
    assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
    assert_eq!((git.left(), index.left()), (vec![], vec![]), "{engine}: {}", ran.raw);
    assert!(published(&run).as_ref() == Some(&expected), "{engine}: another tree than without faults");
}

#[test]
fn what_breaks_off_is_fetched_again() {
    for engine in ENGINES {
        survives(
            engine,
            &[("git-upload-pack", Fault::ResetInBody), ("git-upload-pack", Fault::Cut), ("info/refs", Fault::Refuse)],
            &[
                ("/files/click", Fault::Cut),
                ("/files/click", Fault::CutUnnoticed),
                ("/files/docopt", Fault::ResetInBody),
            ],
        );
    }
}

#[test]
fn an_index_that_is_down_for_two_requests() {
    let down = Fault::Status(503, None);
    for engine in ENGINES {
        // pip's own subprocess requests setuptools for the build.
        survives(engine, &[], &[("/simple/click/", down), ("/simple/click/", down)]);
        survives(engine, &[], &[("/simple/setuptools/", down), ("/simple/setuptools/", down)]);
    }
}

#[test]
fn a_stall_costs_a_part_of_the_time_only() {
    for engine in ENGINES {
        survives(engine, &[("git-upload-pack", Fault::Stall)], &[("/simple/click/", Fault::Stall)]);
    }
}

#[test]
fn a_date_to_retry_after_is_waited_for() {
    let later = Fault::Status(503, Some(Wait::Date(3)));
    let started = Instant::now();
    survives("uv", &[("git-upload-pack", later)], &[]);
    // A date has no fractions of a second.
    assert!(started.elapsed() > Duration::from_secs(2));
}

#[test]
fn an_index_that_wants_more_time_than_there_is_is_not_waited_for() {
    for engine in ENGINES {
        let (world, run) = (World::new(), Sandbox::new());
        let index = Server::start(|_| Response::new(429, "").header("Retry-After", "3600"));
        let started = Instant::now();
        let ran = run.run(&mut World::init(&run, engine, world.ports().0, index.port(), false));
        assert_eq!(ran.code, Some(4), "{engine}: {}", ran.raw);
        assert!(
            ran.raw.contains("the server asks to wait for 1h, longer than the remaining time"),
            "{engine}: {}",
            ran.raw
        );
        assert!(started.elapsed() < TIMEOUT, "{engine}: {}", ran.raw);
    }
}

#[test]
fn a_host_without_an_address_is_looked_up_again_and_explained() {
    let run = Sandbox::new();
    let mut command = run.podstrap();
    command.args(["init", "--repo", "https://no-such-host.invalid/app.git", "--timeout", "3s", "--root"]);
    let ran = run.run(command.arg(run.root()));
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    let tries = regex::Regex::new(r"gave up after [2-9] tries in \d\.\d s \(--timeout 3s\)").unwrap();
    assert!(tries.is_match(&ran.raw) && ran.raw.contains("because: dns error"), "{}", ran.raw);
}

#[test]
fn a_refusal_is_asked_for_once() {
    // After 404, podstrap tries version 0.
    for (status, requests) in [(401, 1), (403, 1), (404, 2)] {
        let (world, run) = (World::new(), Sandbox::new());
        world.git.always(Response::new(status, "no"));
        let mut command = run.podstrap();
        command.args(["init", "--venv", "none", "--repo", &world.git.url("app.git"), "--root"]);
        let ran = run.run(command.arg(run.root()));
        assert_eq!((ran.code, world.git.seen().len()), (Some(3), requests), "{}", ran.raw);
        assert!(!ran.raw.contains("gave up after"), "{}", ran.raw);
    }
}

#[test]
fn a_branch_that_moves_between_list_and_fetch_is_looked_up_again() {
    let (world, run) = (World::new(), Sandbox::new());
    let dir = world.sandbox.path("repos/app.git");
    let moved = Mutex::new(false);
    world.git.instead(move |request| {
        let mut moved = moved.lock().expect("no panic");
        if request.headers.contains_key("git-protocol") {
            // In version 2, this server would send the old commit.
            return Some(Response::new(404, "not here"));
        }
        if request.method == "POST" && !*moved {
            *moved = true;
            let repo = Repo { dir: dir.clone() };
            // The old commit is no tip any more, and the server sends only tips.
            repo.file("index.py", "moved\n").git(["commit", "--quiet", "--all", "--amend", "-m", "moved"]);
        }
        None
    });
    let (git, index) = world.ports();
    let ran = run.run(&mut World::init(&run, "uv", git, index, false));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(std::fs::read_to_string(run.root().join("app/index.py")).unwrap(), "moved\n");
    assert!(ran.raw.contains("not our ref"), "it never moved: {}", ran.raw);
    let tip = Repo { dir: world.sandbox.path("repos/app.git") }.rev("main");
    let release = run.root().join("app").canonicalize().unwrap().parent().unwrap().join("release.json");
    assert!(std::fs::read_to_string(release).unwrap().contains(&tip), "the release names another commit");
}
