//! SIGKILL for Pods that read and write one store at once: no wrong environment, no entry that is not whole, and no
//! store that keeps the next Pod for long.
//!
//! `PODSTRAP_TEST_SEED` chooses victims and times, `PODSTRAP_TEST_KILLS` the number of kills.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;

use super::restore::files;
use super::warnings;
use crate::support::index::{self, IndexServer};
use crate::support::kill::{gone, kill_all, kill_alone};
use crate::support::packages::wheel_with;
use crate::support::registry::Registry;
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::volume::seed;

/// Pods that start at once. Every second one builds and replaces the entry.
const PODS: usize = 4;
/// One kill in this many hits podstrap alone.
const ALONE: usize = 5;
/// A dead builder's lease, a build, and a busy machine.
const BOUND: Duration = Duration::from_secs(45);
/// Files of the package, and the size of each: podstrap saves and restores for a while.
const FILES: usize = 24;
const SIZE: usize = 200 << 10;

#[test]
fn killed_pods_leave_a_whole_store() {
    kills(32);
}

#[test]
#[ignore = "takes minutes: just store"]
fn hundreds_of_killed_pods_leave_a_whole_store() {
    let number = std::env::var("PODSTRAP_TEST_KILLS").map_or(500, |text| text.parse().unwrap());
    let table = kills(number);
    for (place, counts) in &table {
        for moment in [Moment::Builds, Moment::Saves, Moment::Restores] {
            assert!(counts.moments.contains_key(&moment), "{place}: no kill hit {moment:?}");
        }
    }
}

/// What a Pod did when the kill came, by its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Before,
    Waits,
    Restores,
    Builds,
    Saves,
    After,
}

impl Moment {
    const ALL: [Self; 6] = [Self::Before, Self::Waits, Self::Restores, Self::Builds, Self::Saves, Self::After];

    fn of(log: &str) -> Self {
        let is_at = |text: &str| log.contains(text);
        match () {
            () if is_at(" saved ") || is_at("from the store") => Self::After,
            () if is_at(SAVES) => Self::Saves,
            () if is_at("building it") || is_at("debug: venv: ") => Self::Builds,
            () if is_at("waiting for another podstrap") => Self::Waits,
            () if is_at(LOOKS) => Self::Restores,
            () => Self::Before,
        }
    }
}

/// The lines before podstrap saves and before it looks for an entry.
const SAVES: &str = "debug: store: saving";
const LOOKS: &str = "debug: store: looking";

#[derive(Debug, Default)]
struct Counts {
    kills: usize,
    alone: usize,
    moments: BTreeMap<Moment, usize>,
    /// The longest undisturbed run after a round.
    longest: Duration,
}

/// Kills at least so many Pods. Returns what happened with a directory and with a registry.
fn kills(number: usize) -> BTreeMap<&'static str, Counts> {
    // Two of each kind at once, because a run may wait for a dead builder.
    let trials: Vec<_> = (0..4).filter_map(|n| Trial::new(n, n % 2 == 1)).collect();
    let each = number.div_ceil(trials.len());
    let mut table = BTreeMap::<_, Counts>::new();
    std::thread::scope(|scope| {
        let runs: Vec<_> = trials.into_iter().map(|trial| scope.spawn(move || trial.run(each))).collect();
        for run in runs {
            let (place, counts) = run.join().expect("its assertions say why");
            let sum = table.entry(place).or_default();
            sum.kills += counts.kills;
            sum.alone += counts.alone;
            sum.longest = sum.longest.max(counts.longest);
            counts.moments.into_iter().for_each(|(moment, n)| *sum.moments.entry(moment).or_default() += n);
        }
    });
    println!("\nPODSTRAP_TEST_SEED={}", seed());
    let names = Moment::ALL.map(|moment| format!("{moment:?}").to_lowercase());
    println!("| store | kills | of podstrap alone | {} | longest next run |", names.join(" | "));
    println!("|---|---|---|{}---|", "---|".repeat(names.len()));
    for (place, counts) in &table {
        let cells = Moment::ALL.map(|moment| counts.moments.get(&moment).copied().unwrap_or(0).to_string());
        let longest = counts.longest.as_secs_f64();
        println!("| {place} | {} | {} | {} | {longest:.1} s |", counts.kills, counts.alone, cells.join(" | "));
    }
    table
}

/// A store, an app for it, and the environment that each Pod must have.
struct Trial {
    sandbox: Sandbox,
    index: IndexServer,
    registry: Option<Registry>,
    rng: Rng,
    counts: Counts,
    wanted: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    /// An undisturbed build.
    took: Duration,
}

/// A Pod that is to die.
struct Victim {
    child: Child,
    log: PathBuf,
    /// The line of the log that it dies after; none: after its start.
    after: Option<&'static str>,
    delay: Duration,
    /// The time of that line.
    since: Option<Instant>,
}

impl Trial {
    /// `None`: there is no registry here.
    fn new(number: u64, in_registry: bool) -> Option<Self> {
        let sandbox = Sandbox::new();
        let registry = if in_registry { Some(Registry::start(&sandbox.path("registry"))?) } else { None };
        let mut rng = Rng::with_seed(seed() + number);
        let texts: Vec<_> = (0..FILES)
            .map(|n| {
                (
                    format!("large/{n}.py"),
                    format!("'''{}'''\n", (0..SIZE).map(|_| rng.alphanumeric()).collect::<String>()),
                )
            })
            .collect();
        let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let wheels = sandbox.path("wheels");
        wheel_with(&wheels, "large", "1.0", &[], &texts);
        sandbox.write("app/requirements.txt", "large==1.0\n");
        let index = IndexServer::start(&wheels);
        let (counts, wanted, took) = (Counts::default(), BTreeMap::new(), Duration::ZERO);
        let mut trial = Self { sandbox, index, registry, rng, counts, wanted, took };
        trial.clear();
        let started = Instant::now();
        trial.undisturbed("first");
        trial.took = started.elapsed();
        trial.wanted = trial.environment("first");
        Some(trial)
    }

    fn place(&self) -> &'static str {
        if self.registry.is_some() { "registry" } else { "directory" }
    }

    fn store(&self) -> String {
        let directory = || self.sandbox.path("store").display().to_string();
        self.registry.as_ref().map_or_else(directory, Registry::store)
    }

    /// An empty store.
    fn clear(&mut self) {
        if let Some(registry) = &mut self.registry {
            return registry.clear();
        }
        let _ = fs::remove_dir_all(self.sandbox.path("store"));
        fs::create_dir(self.sandbox.path("store")).unwrap();
    }

    fn init(&self, volume: &str) -> Command {
        let root = self.sandbox.path(volume);
        fs::create_dir_all(&root).unwrap();
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--venv-final-path", "/app/venv", "--log-level", "debug", "--store", &self.store()]);
        command.arg("--engine").arg(index::uv()).arg("--repo").arg(self.sandbox.path("app"));
        command.arg("--root").arg(root).env("PIP_INDEX_URL", self.index.url());
        command
    }

    /// The environment of a volume, by mode and contents: a rebuild has other times.
    fn environment(&self, volume: &str) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let venv = self.sandbox.path(volume).join(".podstrap/current/tree/venv");
        files(&venv).into_iter().map(|(name, (mode, _, contents))| (name, (mode, contents))).collect()
    }

    fn undisturbed(&self, volume: &str) -> Ran {
        let ran = self.sandbox.run(&mut self.init(volume));
        assert!(ran.code == Some(0) && warnings(&ran).is_empty(), "{}: {}", self.place(), ran.raw);
        ran
    }

    /// Asserts that each entry is whole. Returns their number.
    fn entries(&self, what: &str) -> usize {
        let mut command = self.sandbox.podstrap();
        let ran = self.sandbox.run(command.args(["store", "verify", &self.store()]));
        assert_eq!(ran.code, Some(0), "{what}: {}{}", ran.stdout, ran.raw);
        ran.stdout.lines().count() - 1
    }

    fn run(mut self, number: usize) -> (&'static str, Counts) {
        for round in 0.. {
            if self.counts.kills >= number {
                break;
            }
            self.round(round);
        }
        if self.registry.is_none() {
            self.leftovers();
        }
        (self.place(), self.counts)
    }

    fn round(&mut self, round: usize) {
        let what = format!("{}, round {round}, PODSTRAP_TEST_SEED={}", self.place(), seed());
        if self.rng.bool() {
            self.clear();
        }
        let mut pods: Vec<_> = (0..PODS).map(|pod| self.victim(&format!("{round}-{pod}"), pod % 2 == 0)).collect();
        let mut orphans = Vec::new();
        while !pods.is_empty() {
            pods.retain_mut(|pod| self.lives(pod, &mut orphans, &what));
            std::thread::sleep(Duration::from_millis(1));
        }
        gone(&orphans);
        self.entries(&what);
        let started = Instant::now();
        let next = format!("{round}-next");
        let ran = self.undisturbed(&next);
        let took = started.elapsed();
        assert!(took < BOUND, "{what}: the next run took {took:?}: {}", ran.raw);
        self.counts.longest = self.counts.longest.max(took);
        assert_eq!(self.entries(&what), 1, "{what}");
        let pods = (0..PODS).map(|pod| format!("{round}-{pod}")).chain([next]);
        for volume in pods {
            let root = self.sandbox.path(&volume);
            // A killed Pod may have published nothing.
            if root.join(".podstrap/current").exists() {
                self.assert_right(&volume, &what);
            }
            fs::remove_dir_all(root).unwrap();
        }
    }

    fn assert_right(&self, volume: &str, what: &str) {
        let found = self.environment(volume);
        let names = self.wanted.keys().chain(found.keys());
        let differ: Vec<_> = names.filter(|name| self.wanted.get(*name) != found.get(*name)).collect();
        assert!(differ.is_empty(), "{what}, {volume}: {differ:?}");
    }

    fn victim(&mut self, volume: &str, writes: bool) -> Victim {
        let log = self.sandbox.path(&format!("{volume}.log"));
        let mut command = self.init(volume);
        if writes {
            command.arg("--refresh");
        }
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let after = if self.rng.bool() { None } else { Some(if writes { SAVES } else { LOOKS }) };
        // Several Pods at once take longer than one.
        let longest = if after.is_some() { self.took / 2 } else { self.took * 3 };
        let delay = longest.mul_f64(self.rng.f64());
        Victim { child: command.spawn().unwrap(), log, after, delay, since: None }
    }

    /// Kills the Pod when its time has come. False: it has ended.
    fn lives(&mut self, pod: &mut Victim, orphans: &mut Vec<rustix::process::Pid>, what: &str) -> bool {
        let log = fs::read_to_string(&pod.log).unwrap();
        if let Some(status) = pod.child.try_wait().unwrap() {
            assert!(status.success(), "{what}: {log}");
            return false;
        }
        if pod.since.is_none() && pod.after.is_none_or(|line| log.contains(line)) {
            pod.since = Some(Instant::now());
        }
        if pod.since.is_none_or(|since| since.elapsed() < pod.delay) {
            return true;
        }
        self.counts.kills += 1;
        if self.rng.usize(..ALONE) == 0 {
            self.counts.alone += 1;
            orphans.extend(kill_alone(&mut pod.child));
        } else {
            kill_all(&mut pod.child);
        }
        let log = fs::read_to_string(&pod.log).unwrap();
        *self.counts.moments.entry(Moment::of(&log)).or_default() += 1;
        false
    }

    /// Killed Pods leave files, and a later save deletes them when they are old.
    fn leftovers(&self) {
        let store = self.sandbox.path("store");
        let names = || crate::support::volume::names(&store);
        let old = SystemTime::now() - Duration::from_hours(2);
        for name in names() {
            fs::File::options().write(true).open(store.join(name)).unwrap().set_modified(old).unwrap();
        }
        let ran = self.sandbox.run(self.init("last").arg("--refresh"));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        let mut left: Vec<_> = names().into_iter().map(|name| name.into_string().unwrap()).collect();
        // The replaced archive is no leftover before it is old.
        left.retain(|name| !name.ends_with(".tar.zst"));
        let is_entry = |name: &String| Path::new(name).extension().is_some_and(|end| end == "json" || end == "used");
        assert!(left.iter().all(is_entry), "{left:?}");
    }
}
