//! SIGKILL at times spread over a complete `init`. After the kill a reader sees the old state or the new one. A
//! rerun leaves the same files as a run that was never killed.
//!
//! `PODSTRAP_TEST_SEED` chooses the times, `PODSTRAP_TEST_KILLS` the number of kills.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Pid;

use crate::support::kill::{gone, kill_all, kill_alone, pause};
use crate::support::strace::injected;
use crate::support::volume::{App, Before, Known, SETUPS, Setup, copy, names, seed};

/// One kill in this many hits podstrap alone and leaves its children alive, as the kernel does when memory runs
/// out.
const ALONE: usize = 5;
/// If a run ends before its kill, the test repeats it with a shorter wait, at most this many times.
const TRIES: u32 = 20;

#[test]
fn a_killed_init_leaves_the_old_or_the_new_state_and_a_rerun_completes_it() {
    crash(30);
}

#[test]
#[ignore = "takes minutes: just crash"]
fn hundreds_of_killed_inits_leave_the_old_or_the_new_state_and_reruns_complete_them() {
    let kills = std::env::var("PODSTRAP_TEST_KILLS").map_or(400, |text| text.parse().unwrap());
    crash(kills);
}

/// The kills. strace counts the system calls of each thread apart, and those of no child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// Kills before each call of a thread, one after another.
    Each,
    /// Kills before a thread's first, second, fourth … call.
    Powers,
}

/// The system calls with which `init` changes the volume, and their steps in the table in `src/volume`. A kill
/// before a call shows the state after the previous call.
const STEPS: [(&str, Calls); 6] = [
    // Lock: podstrap's directories. Prepare: staging.
    ("mkdir", Calls::Each),
    // Prepare: the environment into the tree, the release into place. Switch: links. Retain: old releases to staging.
    ("rename", Calls::Each),
    // Switch: links, in staging first.
    ("symlink", Calls::Each),
    // Prepare: all files are written, but not necessarily on the disk.
    ("syncfs", Calls::Powers),
    // Prepare and switch: flush the renames to the disk.
    ("fsync", Calls::Each),
    // Lock, prepare and retain: delete files. Switch: remove links of deleted entries.
    ("unlinkat", Calls::Powers),
];
/// The phases that these kills must hit in every setup.
const MET: [Phase; 5] = [Phase::Begin, Phase::Clone, Phase::Write, Phase::Link, Phase::Tidy];
/// More calls than a run ever makes.
const MANY: usize = 100_000;

#[test]
#[ignore = "needs strace, and minutes: just crash"]
fn a_kill_before_each_single_step_of_publishing_is_no_different() {
    let app = App::new();
    let mut table = BTreeMap::new();
    for (number, setup) in SETUPS.iter().enumerate().filter(|(_, setup)| setup.engine == "uv") {
        let trial = Trial::new(&app, number, *setup);
        let mut counts = Counts::default();
        for (call, calls) in STEPS {
            let next = |number: &usize| Some(if calls == Calls::Each { number + 1 } else { number * 2 });
            let numbers = std::iter::successors(Some(1), next).take_while(|number| *number < MANY);
            let kills = numbers.take_while(|number| trial.step(call, calls, *number, &mut counts)).count();
            assert!(kills > 0, "{setup}: no kill before {call}");
            println!("{setup}, {call}: {kills}");
            counts.kills += kills;
        }
        for phase in MET {
            assert!(counts.phases.contains_key(&phase), "{setup}: no kill in {phase:?}: {counts:?}");
        }
        counts.alone = counts.kills;
        table.insert(number, counts);
    }
    print(&table);
}

fn crash(kills: usize) {
    let app = App::new();
    let each = kills.div_ceil(SETUPS.len());
    let (next, table) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(2) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(setup) = SETUPS.get(number) else { return };
                    let counts = Trial::new(&app, number, *setup).kill(each);
                    table.lock().unwrap().insert(number, counts);
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    assert_eq!(table.len(), SETUPS.len());
    print(&table);
}

/// The phase of the run that a kill interrupted, judged by the files on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Nothing in staging yet.
    Begin,
    /// The clone, or the empty environment next to it.
    Clone,
    Install,
    Compile,
    /// The environment is in the tree, and all files are written.
    Write,
    /// The release exists, but is not visible yet.
    Link,
    /// The new state is visible; old files are left.
    Tidy,
    /// No work is left.
    End,
}

impl Phase {
    const ALL: [Self; 8] =
        [Self::Begin, Self::Clone, Self::Install, Self::Compile, Self::Write, Self::Link, Self::Tidy, Self::End];

    /// Judges by the state of the volume and whether it shows the new release.
    fn of(root: &Path, old: usize, new: bool) -> Self {
        let own = root.join(".podstrap");
        let staged = names(&own.join("staging"));
        let in_staging = |path: &str| staged.iter().any(|dir| own.join("staging").join(dir).join(path).exists());
        let compiled = || {
            staged.iter().any(|dir| {
                let lib = own.join("staging").join(dir).join("venv/lib");
                names(&lib).iter().any(|python| {
                    let site = lib.join(python).join("site-packages");
                    names(&site).iter().any(|package| site.join(package).join("__pycache__").exists())
                })
            })
        };
        let releases = names(&own.join("releases")).len();
        if new {
            return if staged.is_empty() && releases == 1 { Self::End } else { Self::Tidy };
        }
        match () {
            () if releases > old => Self::Link,
            () if in_staging("release/tree/python/venv") => Self::Write,
            () if compiled() => Self::Compile,
            () if in_staging("venv/bin/python") && in_staging("release/tree") && !in_staging("scratch/git") => {
                Self::Install
            }
            () if !staged.is_empty() => Self::Clone,
            () => Self::Begin,
        }
    }
}

/// The change on the volume that a kill waits for.
#[derive(Debug, Clone, Copy)]
enum Event {
    Start,
    Staging,
    Environment,
    Tree,
    Packages,
    EnvironmentInTree,
    Manifest,
    Release,
    /// A top-level link appears or changes.
    Link,
    /// The first of the two switches: the new state is visible.
    Switch,
    OldGone,
}

impl Event {
    const ALL: [Self; 10] = [
        Self::Staging,
        Self::Environment,
        Self::Tree,
        Self::Packages,
        Self::EnvironmentInTree,
        Self::Manifest,
        Self::Release,
        Self::Link,
        Self::Switch,
        Self::OldGone,
    ];

    /// The longest wait between the event and the kill. Publishing takes a few milliseconds at most.
    fn wait(self) -> Duration {
        match self {
            Self::Start => Duration::ZERO,
            Self::Staging | Self::Environment | Self::Tree => Duration::from_millis(80),
            Self::Packages | Self::EnvironmentInTree => Duration::from_millis(40),
            Self::Manifest => Duration::from_millis(4),
            Self::Release | Self::Link => Duration::from_millis(1),
            Self::Switch | Self::OldGone => Duration::from_millis(8),
        }
    }

    fn seen(self, trial: &Trial<'_>) -> bool {
        let own = trial.root.join(".podstrap");
        let in_staging = |path: &str| {
            let staging = own.join("staging");
            names(&staging).iter().any(|dir| fs::symlink_metadata(staging.join(dir).join(path)).is_ok())
        };
        match self {
            Self::Start => true,
            Self::Staging => in_staging(""),
            Self::Environment => in_staging("venv"),
            Self::Tree => in_staging("release/tree"),
            Self::Packages => in_staging("venv/bin/python"),
            Self::EnvironmentInTree => in_staging("release/tree/python/venv"),
            Self::Manifest => in_staging("release/release.json"),
            Self::Release => names(&own.join("releases")).iter().any(|id| !trial.releases.contains(id)),
            Self::Link => match trial.known.setup.link {
                Some(_) => Self::Switch.seen(trial),
                None => fs::symlink_metadata(trial.root.join("only-new.txt")).is_ok(),
            },
            Self::Switch => trial.link(&trial.root) != trial.link(&trial.known.before),
            Self::OldGone => {
                let now = names(&own.join("releases"));
                trial.releases.iter().any(|id| !now.contains(id))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    kills: usize,
    alone: usize,
    late: usize,
    phases: BTreeMap<Phase, usize>,
    seen: BTreeMap<&'static str, usize>,
}

/// A setup and its volume.
struct Trial<'a> {
    app: &'a App,
    known: Known,
    number: usize,
    rng: Rng,
    root: PathBuf,
    /// The releases before the run.
    releases: Vec<OsString>,
}

impl<'a> Trial<'a> {
    fn new(app: &'a App, number: usize, setup: Setup) -> Self {
        let known = Known::new(app, setup);
        Self {
            app,
            number,
            rng: Rng::with_seed(seed() + number as u64),
            root: app.place(setup).join("volume"),
            releases: names(&known.before.join(".podstrap/releases")),
            known,
        }
    }

    /// The target of the link that the run switches.
    fn link(&self, root: &Path) -> Option<PathBuf> {
        fs::read_link(root.join(self.known.setup.link.unwrap_or(".podstrap/current"))).ok()
    }

    fn kill(mut self, times: usize) -> Counts {
        let mut counts = Counts::default();
        for number in 0..times {
            // Half of the kills are spread evenly over the run, the other half follow short steps.
            let (event, wait) = if number % 2 == 0 {
                let instants = times.div_ceil(2);
                #[expect(clippy::cast_precision_loss, reason = "they are hundreds")]
                let part = ((number / 2) as f64 + self.rng.f64()) / instants as f64;
                (Event::Start, self.known.took.mul_f64(part))
            } else {
                // The last event exists only in updates. Each setup starts with a different event.
                let events = &Event::ALL[..Event::ALL.len() - usize::from(self.known.setup.before == Before::Nothing)];
                let event = events[(self.number + number / 2) % events.len()];
                (event, event.wait().mul_f64(self.rng.f64()))
            };
            let alone = self.rng.usize(..ALONE) == 0;
            let what = format!(
                "{}, kill {number}{} {wait:.1?} after {event:?}, PODSTRAP_TEST_SEED={}",
                self.known.setup,
                if alone { " of podstrap alone" } else { "" },
                seed()
            );
            self.one(event, wait, alone, &what, &mut counts);
        }
        counts
    }

    fn one(&self, event: Event, mut wait: Duration, alone: bool, what: &str, counts: &mut Counts) {
        for _ in 0..TRIES {
            copy(&self.known.before, &self.root);
            let mut child = self.start();
            let reached = loop {
                if event.seen(self) {
                    break true;
                }
                if child.try_wait().unwrap().is_some() {
                    break false;
                }
            };
            pause(wait);
            if !reached || child.try_wait().unwrap().is_some() {
                let status = child.wait().unwrap();
                assert!(status.success(), "{what}: {status} without a kill");
                counts.late += 1;
                wait = wait.mul_f64(0.8);
                continue;
            }
            let orphans = if alone {
                kill_alone(&mut child)
            } else {
                kill_all(&mut child);
                vec![]
            };
            self.check(&orphans, what, counts);
            counts.kills += 1;
            counts.alone += usize::from(alone);
            return;
        }
        panic!("{what}: the run was over {TRIES} times");
    }

    /// Kills podstrap before the call with this number. Returns false if the run makes fewer calls.
    fn step(&self, call: &str, calls: Calls, number: usize, counts: &mut Counts) -> bool {
        copy(&self.known.before, &self.root);
        let mut command = self.app.run_of(self.known.setup, &self.root);
        // It has all steps.
        command.env("PODSTRAP_DURABLE", "true");
        // These match by prefix, because libc may use `renameat2` for `rename`.
        let traced = if calls == Calls::Each { format!("/^{call}") } else { call.to_owned() };
        let mut strace = injected(&command, &traced, &format!("signal=SIGKILL:when={number}"), &[]);
        let output = strace.output().expect("strace is installed");
        let what = format!("{}, before {call} {number}", self.known.setup);
        match output.status.signal() {
            Some(9) => self.check(&[], &what, counts),
            _ => assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr)),
        }
        !output.status.success()
    }

    fn start(&self) -> Child {
        let mut command = self.app.run_of(self.known.setup, &self.root);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn check(&self, orphans: &[Pid], what: &str, counts: &mut Counts) {
        let state = self.known.seen(&self.root, what);
        let phase = Phase::of(&self.root, self.releases.len(), state == "new");
        *counts.seen.entry(state).or_default() += 1;
        *counts.phases.entry(phase).or_default() += 1;

        let ran = self.app.sandbox.run(&mut self.app.run_of(self.known.setup, &self.root));
        assert_eq!(ran.code, Some(0), "{what}, in {phase:?}: {}", ran.raw);
        assert!(!ran.raw.contains("warning"), "{what}, in {phase:?}: {}", ran.raw);
        assert_eq!(self.known.seen(&self.root, what), "new");
        gone(orphans);
        self.known.assert_complete(&self.root, &format!("{what}, in {phase:?}"));
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.alone += other.alone;
        self.late += other.late;
        for (phase, count) in &other.phases {
            *self.phases.entry(*phase).or_default() += count;
        }
        for (state, count) in &other.seen {
            *self.seen.entry(state).or_default() += count;
        }
    }

    fn row(&self, name: &str) -> String {
        let of_phase = |phase| self.phases.get(phase).copied().unwrap_or_default();
        let of_state = |state| self.seen.get(state).copied().unwrap_or_default();
        let numbers = [self.kills, self.alone].into_iter().chain(Phase::ALL.iter().map(of_phase));
        let numbers = numbers.chain(["nothing", "old", "new"].iter().map(of_state));
        let cells: Vec<_> = numbers.map(|number| number.to_string()).collect();
        format!("| {name} | {} |", cells.join(" | "))
    }
}

/// Prints the table of docs/reliability.md.
fn print(table: &BTreeMap<usize, Counts>) {
    let mut all = Counts::default();
    for counts in table.values() {
        all.add(counts);
    }
    let phases = Phase::ALL.map(|phase| format!("{phase:?}").to_lowercase()).join(" | ");
    println!("\n{} kills, PODSTRAP_TEST_SEED={}", all.kills, seed());
    println!("| | kills | of podstrap alone | {phases} | saw nothing | saw old | saw new |");
    println!("|{}", "---|".repeat(6 + Phase::ALL.len()));
    for (number, counts) in table {
        println!("{}", counts.row(&SETUPS[*number].to_string()));
    }
    println!("{}", all.row("all"));
    println!("{} more runs were over before their kill", all.late);
}
