//! `cargo bench --bench boot -- figures`: counts what podstrap's own process does in fixed runs, and compares it with
//! `figures.json`. The counts do not depend on the speed or the load of the machine.
//!
//! valgrind counts instructions, and strace counts system calls and bytes of files; neither counts the work of child
//! processes. The command fails if a figure rises by more than its tolerance. `PODSTRAP_BENCH_WRITE=1` writes the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::support::git::{GitServer, Repo};
use crate::support::index::{self, IndexServer};
use crate::support::packages::wheel_with;

const FILE: &str = "benches/boot/figures.json";

/// Files of the run `source`, and the highest number of stat and getdents calls for each.
const FILES: u32 = 1_200;
const LOOKUPS: u64 = 3;

/// A fixed run of `init`.
struct Run {
    name: &'static str,
    repo: &'static str,
    reference: &'static str,
    /// The reference of an earlier run on the same volume.
    before: Option<&'static str>,
    more: &'static [&'static str],
}

const RUNS: [Run; 4] = [
    Run { name: "source", repo: "files.git", reference: "main", before: None, more: &["--venv", "none"] },
    Run { name: "app", repo: "app.git", reference: "main", before: None, more: &["-r", "requirements.txt"] },
    Run { name: "again", repo: "app.git", reference: "main", before: Some("main"), more: &["-r", "requirements.txt"] },
    Run { name: "update", repo: "app.git", reference: "next", before: Some("main"), more: &["-r", "requirements.txt"] },
];

/// What to count in a trace of system calls.
struct Figure {
    name: &'static str,
    /// System calls, with spaces between them.
    calls: &'static str,
    unit: Unit,
    /// The tolerance in per cent. On an idle and on a busy machine, instructions differed by up to 2 %, because podstrap
    /// measures disk usage every 100 ms. The other counts differed by up to 0.1 %.
    percent: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// By callgrind.
    Instructions,
    Calls,
    /// Calls that succeed.
    Successes,
    /// Not of pipes and sockets, whose bytes depend on time.
    BytesOfFiles,
    /// The stat and getdents calls of the largest measurement of disk usage.
    Measurement,
}

const fn figure(name: &'static str, unit: Unit, percent: f64, calls: &'static str) -> Figure {
    Figure { name, calls, unit, percent }
}

const FIGURES: [Figure; 10] = [
    figure("instructions", Unit::Instructions, 3.0, ""),
    figure("programs", Unit::Successes, 0.0, "execve execveat"),
    figure("stat", Unit::Calls, 1.0, "stat lstat fstat newfstatat statx"),
    figure("getdents", Unit::Calls, 1.0, "getdents64"),
    figure(MEASUREMENT, Unit::Measurement, 1.0, ""),
    figure("open", Unit::Calls, 1.0, "open openat openat2 creat"),
    figure("change", Unit::Calls, 1.0, CHANGE),
    figure("sync", Unit::Calls, 0.0, "fsync fdatasync sync_file_range syncfs sync"),
    figure("bytes read", Unit::BytesOfFiles, 1.0, "read pread64 readv preadv preadv2"),
    figure("bytes written", Unit::BytesOfFiles, 1.0, WRITE),
];

const WRITE: &str = "write pwrite64 writev pwritev pwritev2 copy_file_range sendfile";
/// Calls that change names, modes, sizes or times.
const CHANGE: &str = "mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat \
                      chmod fchmod fchmodat fchmodat2 chown fchown fchownat utimensat ftruncate";

/// The first call of each thread.
const START: &str = "set_robust_list";
/// The first file that a measurement of disk usage looks at. Each measurement has its own thread. Their number depends
/// on time, so their calls count apart.
const MEASURED: &str = "/.podstrap\"";
const MEASUREMENT: &str = "measurement";
/// The measurements of the whole tree in a run shorter than the pause between two: after the checkout. Later ones know
/// its usage.
const MEASUREMENTS: u64 = 1;

/// How often a run is counted if a figure rose: disturbances only add to a figure, so the lowest count is right. A
/// measurement that falls into a step sees more files, and does so in about every second run.
const TRIES: usize = 12;

type Counts = BTreeMap<&'static str, u64>;

/// Counts all runs, and prints the counts beside the kept figures.
///
/// # Panics
/// A figure rose too much.
pub(super) fn run(write: bool) {
    if !cfg!(target_arch = "x86_64") {
        return eprintln!("figures: LEFT OUT, because {FILE} is for x86-64");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let kept: Value =
        std::fs::read_to_string(&path).map_or(Value::Null, |text| serde_json::from_str(&text).expect(FILE));
    let world = World::new();
    let (mut now, mut too_high) = (Map::new(), Vec::new());
    println!("{:<8} {:<13} {:>12} {:>12} {:>9} {:>9}", "run", "figure", "kept", "now", "change", "tolerance");
    for run in &RUNS {
        let before = |figure: &Figure| kept[run.name][figure.name].as_u64().unwrap_or_default();
        let rise = |figure: &Figure, count| percent(before(figure), count);
        let is_too_high = |figure: &Figure, count| rise(figure, count) > figure.percent;
        let mut counts = world.count(run);
        for _ in 1..TRIES {
            if write || FIGURES.iter().any(|figure| is_too_high(figure, counts[figure.name])) {
                let again = world.count(run);
                for (name, count) in &mut counts {
                    *count = again[name].min(*count);
                }
            }
        }
        for figure in &FIGURES {
            let count = counts[figure.name];
            let verdict = if is_too_high(figure, count) { "  TOO HIGH" } else { "" };
            let Figure { name, percent, .. } = figure;
            let (before, rise) = (before(figure), rise(figure, count));
            let change = if before == 0 { String::new() } else { format!("{rise:+.1} %") };
            println!("{:<8} {name:<13} {before:>12} {count:>12} {change:>9} {percent:>7} %{verdict}", run.name);
            if is_too_high(figure, count) {
                too_high.push(format!("{} {name}", run.name));
            }
        }
        let row = FIGURES.iter().map(|figure| (figure.name.to_owned(), Value::from(counts[figure.name])));
        now.insert(run.name.to_owned(), Value::Object(row.collect()));
    }
    let count = |figure: &str| now["source"][figure].as_u64().unwrap_or_default();
    let lookups = count("stat") + count("getdents") + MEASUREMENTS * count(MEASUREMENT);
    println!("source: {lookups} stat and getdents calls for {FILES} files, of at most {LOOKUPS} a file");
    if write {
        let text = serde_json::to_string_pretty(&now).expect("numbers") + "\n";
        std::fs::write(path, text).expect("the checkout is writable");
    } else {
        assert!(too_high.is_empty(), "{} rose: see CONTRIBUTING.md, \"Speed\"", too_high.join(", "));
    }
    assert!(lookups < LOOKUPS * u64::from(FILES), "podstrap looks at each file too often");
}

/// The repositories and servers of all runs.
struct World {
    dir: tempfile::TempDir,
    git: GitServer,
    packages: IndexServer,
    path: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let repos = dir.path().join("repos");
        let files = Repo::new(&repos.join("files.git"));
        for n in 0..FILES {
            files.file(format!("app/{:02}/m{n}.py", n / 40), text(n));
        }
        let app = Repo::new(&repos.join("app.git"));
        app.file("requirements.txt", "one\ntwo\n");
        for n in 0..100 {
            app.file(format!("app/m{n}.py"), text(n));
        }
        for repo in [&files, &app] {
            // The same pack on every machine.
            repo.git(["config", "pack.threads", "1"]);
            repo.git(["config", "gc.auto", "0"]);
            repo.commit("first");
        }
        app.git(["switch", "--quiet", "--create", "next"]);
        app.file("app/m0.py", "# changed\n").commit("second");
        for repo in [&files, &app] {
            repo.git(["gc", "--quiet"]);
        }
        let wheels = dir.path().join("wheels");
        for (name, requires) in [("one", &["three"][..]), ("two", &[]), ("three", &[])] {
            let modules: Vec<_> = (0..60).map(|n| (format!("{name}_{n}/__init__.py"), text(n))).collect();
            let mut more: Vec<_> = modules.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let scripts = format!("[console_scripts]\n{name} = {name}:main\n");
            more.push(("INFO/entry_points.txt", &scripts));
            wheel_with(&wheels, name, "1.0", requires, &more);
        }
        // podstrap hashes this file instead of uv, whose size would hide the rest.
        let uv = dir.path().join("bin/uv");
        std::fs::create_dir_all(dir.path().join("bin")).expect("writable");
        std::fs::write(&uv, format!("#!/bin/sh\nexec {} \"$@\"\n", index::uv().display())).expect("writable");
        std::fs::set_permissions(&uv, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("writable");
        let path = format!("{}/bin:/usr/bin:/bin", dir.path().display());
        let (git, packages) = (GitServer::start(&repos), IndexServer::start(&wheels));
        Self { dir, git, packages, path }
    }

    fn count(&self, run: &Run) -> Counts {
        let log = self.dir.path().join("log");
        let valgrind =
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--child-silent-after-fork=yes"];
        let valgrind = valgrind.map(str::to_owned).into_iter().chain([format!("--log-file={}", log.display())]);
        self.run(run, &valgrind.collect::<Vec<_>>());
        let text = std::fs::read_to_string(&log).expect("valgrind writes it");
        let instructions = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
        let instructions = instructions.expect("callgrind's total");

        // An older strace does not know all of them.
        let names = FIGURES.iter().flat_map(|figure| figure.calls.split_whitespace());
        let calls: Vec<_> = names.map(|call| format!("?{call}")).collect();
        let strace = ["strace", "-f", "--detach-on=execve", "-qq", "-y", "-s", "0", "-e"];
        let mut strace: Vec<_> = strace.map(str::to_owned).to_vec();
        strace.extend([format!("trace={START},{}", calls.join(",")), "-o".to_owned(), log.display().to_string()]);
        self.run(run, &strace);
        let (calls, measurement) = calls_of(&std::fs::read_to_string(&log).expect("strace writes it"));
        FIGURES.iter().map(|figure| (figure.name, figure.count(&calls, instructions, measurement))).collect()
    }

    /// Runs it below another program, on a new volume in the state of the run before.
    fn run(&self, run: &Run, below: &[String]) {
        let dir = tempfile::tempdir_in(self.dir.path()).expect("a directory");
        std::fs::create_dir(dir.path().join("volume")).expect("a new directory");
        if let Some(reference) = run.before {
            self.init(run, reference, dir.path(), &[]);
        }
        self.init(run, run.reference, dir.path(), below);
    }

    fn init(&self, run: &Run, reference: &str, home: &Path, below: &[String]) {
        let words = below.iter().map(String::as_str).chain([super::PODSTRAP, "init", "--ref", reference]);
        let words: Vec<_> = words.chain(run.more.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["--engine", "uv", "--repo", &self.git.url(run.repo)])
            .arg("--root")
            .arg(home.join("volume"));
        command.env_clear().env("PATH", &self.path).env("PIP_INDEX_URL", self.packages.url());
        command.env("PIP_CONFIG_FILE", "/dev/null");
        command.env("HOME", home).env("TMPDIR", home);
        let output = command.output().expect("valgrind and strace are installed");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Some text that Git can compress, but not to nothing.
fn text(seed: u32) -> String {
    let mut number = seed;
    (0..100 + seed % 100).fold(format!("# {seed}\n"), |mut text, line| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let _ = writeln!(text, "value_{line} = {}", number >> 16);
        text
    })
}

/// A system call in a trace.
struct Call {
    name: String,
    /// The first argument is a descriptor of a file.
    on_file: bool,
    /// `None` for a program that strace left when it started.
    result: Option<i64>,
}

impl Figure {
    fn count(&self, calls: &[Call], instructions: u64, measurement: u64) -> u64 {
        let calls = calls.iter().filter(|call| self.calls.split(' ').any(|name| name == call.name));
        match self.unit {
            Unit::Instructions => instructions,
            Unit::Measurement => measurement,
            Unit::Calls => calls.count() as u64,
            Unit::Successes => calls.filter(|call| call.result.is_none_or(|result| result >= 0)).count() as u64,
            Unit::BytesOfFiles => {
                calls.filter(|call| call.on_file).filter_map(|call| u64::try_from(call.result?).ok()).sum()
            }
        }
    }
}

/// The rise from one count to another.
#[expect(clippy::cast_precision_loss, reason = "the counts are far below 2^52")]
fn percent(before: u64, now: u64) -> f64 {
    (now as f64 - before as f64) / before.max(1) as f64 * 100.0
}

/// The calls in a trace of strace without those of measurements, and the lookups of the largest measurement.
fn calls_of(trace: &str) -> (Vec<Call>, u64) {
    let (mut begun, mut calls) = (BTreeMap::new(), Vec::new());
    let (mut measuring, mut largest) = (BTreeMap::new(), 0);
    for line in trace.lines() {
        // `12 read(5</a/file>, ""..., 9) = 3`, or two lines: `12 read(5</a/file>, <unfinished ...>` and then
        // `12 <... read resumed>""..., 9) = 3`.
        let (thread, text) = line.split_once(' ').unwrap_or_default();
        let text = text.trim_start();
        if let Some(first) = text.strip_suffix("<unfinished ...>") {
            begun.insert(thread, first);
            continue;
        }
        let rest = text.strip_prefix("<... ").and_then(|text| Some(text.split_once("resumed>")?.1));
        let text =
            rest.map_or_else(|| text.to_owned(), |rest| format!("{}{rest}", begun.remove(thread).unwrap_or_default()));
        let Some((name, arguments)) = text.split_once('(') else { continue };
        if name == START {
            measuring.remove(thread);
        } else if name.contains("stat") && arguments.contains(MEASURED) {
            measuring.insert(thread, 0);
        }
        // The number of threads, which podstrap reads there, depends on time.
        if arguments.contains("/proc/") {
            continue;
        }
        if let Some(lookups) = measuring.get_mut(thread) {
            *lookups += u64::from(name.contains("stat") || name == "getdents64");
            largest = largest.max(*lookups);
            continue;
        }
        let result = text.rsplit_once(" = ").and_then(|(_, result)| result.split(' ').next()?.parse().ok());
        calls.push(Call { name: name.to_owned(), on_file: is_file(arguments), result });
    }
    // Calls without an end: programs that started.
    let begun = begun.into_values().filter_map(|text: &str| Some(text.split_once('(')?.0.to_owned()));
    calls.extend(begun.map(|name| Call { name, on_file: false, result: None }));
    (calls, largest)
}

/// Whether the first argument is a descriptor of a file on a disk: `5</a/file>`.
fn is_file(arguments: &str) -> bool {
    let path = arguments.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('<');
    path.is_some_and(|path| path.starts_with('/') && !path.starts_with("/dev/") && !path.starts_with("/sys/"))
}
