//! `just scale N`: 1, 2, 4, … N inits at once, without a store and with one that they share.
//!
//! Each init has its own volume and its own caches. Prints a section of docs/performance.md; `PODSTRAP_BENCH_WRITE=1`
//! writes it there, and its picture to docs/scale.svg.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::page;
use super::scenarios::{Env, SHARED, Subject};
use crate::support::index::IndexServer;
use crate::support::registry::Registry;

/// The section's heading. The section is the last one of the page.
const HEADING: &str = "## scale: many inits at once";
const PICTURE: &str = "docs/scale.svg";
const ROUNDS: usize = 3;
/// The number of inits that the goals are about.
const GOAL: usize = 32;

/// Starts N processes, each with its own directory, and prints their wall time and their CPU time with all children.
const LAUNCH: &str = "import os, sys, time
count, work, *argv = sys.argv[1:]
start, cpu, codes = time.perf_counter(), 0, []
for place in (f'{work}/{n}' for n in range(int(count))):
    os.makedirs(f'{place}/root')
    log = [(os.POSIX_SPAWN_OPEN, 2, f'{place}/log', os.O_WRONLY | os.O_CREAT, 0o644)]
    names = ['HOME', 'TMPDIR']
    env = os.environ | dict.fromkeys(names, place) | {'UV_CACHE_DIR': f'{place}/cache'}
    os.posix_spawn(argv[0], [arg.replace('$DIR', f'{place}/root') for arg in argv], env, file_actions=log)
for _ in range(int(count)):
    _, status, usage = os.wait4(-1, 0)
    cpu += usage.ru_utime + usage.ru_stime
    codes.append(status)
print(time.perf_counter() - start, cpu, sum(code != 0 for code in codes))";

/// What the inits share before they start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Nothing,
    /// An empty store, in a directory or a registry.
    Empty(bool),
    Full(bool),
}

const KINDS: [(Shared, &str); 5] = [
    (Shared::Nothing, "no store"),
    (Shared::Empty(false), "empty directory"),
    (Shared::Empty(true), "empty registry"),
    (Shared::Full(false), "full directory"),
    (Shared::Full(true), "full registry"),
];

#[derive(Clone, Copy)]
struct Sample {
    /// Bodies of the index's answers.
    bytes: f64,
    /// Of all inits and their children.
    cpu: f64,
    wall: f64,
    /// Inits that did not restore.
    built: f64,
}

/// What a table shows, and the text of a value.
type Measure = (&'static str, fn(&Sample) -> f64, fn(f64) -> String);

/// Medians by the number of inits, for each kind.
struct Results {
    numbers: Vec<usize>,
    samples: Vec<[Sample; KINDS.len()]>,
}

/// The section with its picture.
pub(super) struct Scale {
    pub(super) text: String,
    svg: String,
}

/// Measures, prints, and writes if wanted.
pub(super) fn run(most: usize, wanted: bool) {
    let scale = measure(most);
    println!("{}", scale.text);
    if wanted {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        let page = std::fs::read_to_string(path).expect("the page is there");
        let others = page.split(HEADING).next().unwrap_or_default().trim_end();
        super::write(true, "docs/performance.md", &format!("{others}\n\n{}", scale.text));
        scale.write(true);
    }
}

impl Scale {
    pub(super) fn write(&self, wanted: bool) {
        super::write(wanted, PICTURE, &self.svg);
    }
}

pub(super) fn measure(most: usize) -> Scale {
    let work = super::directory(false);
    let (env, (_git, index, _)) = Subject::Small(0).prepare(work.path());
    let registry = Registry::start(&work.path().join("registry"));
    let registry = registry.expect("docker-registry is installed (Debian: docker-registry)");
    let place = Place { work: work.path(), env, index: index.expect("the app has packages"), registry };
    for (shared, _) in KINDS {
        place.fill(shared);
        // Warms the page cache.
        place.once(1, shared);
    }
    let numbers: Vec<usize> = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n <= most).collect();
    let samples = numbers.iter().map(|number| {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|round| {
                eprintln!("scale: {number} at once, round {} of {ROUNDS}", round + 1);
                KINDS.map(|(shared, _)| place.once(*number, shared))
            })
            .collect();
        std::array::from_fn(|kind| {
            let median = |value: fn(&Sample) -> f64| {
                let mut values: Vec<f64> = rounds.iter().map(|round| value(&round[kind])).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            Sample {
                bytes: median(|one| one.bytes),
                cpu: median(|one| one.cpu),
                wall: median(|one| one.wall),
                built: median(|one| one.built),
            }
        })
    });
    let results = Results { samples: samples.collect(), numbers };
    Scale { text: results.text(), svg: results.svg() }
}

struct Place<'a> {
    work: &'a Path,
    env: Env,
    index: IndexServer,
    registry: Registry,
}

impl Place<'_> {
    /// The store of a run, as the flag takes it: a new one if it is to be empty.
    fn store(&self, shared: Shared, name: &str) -> Option<String> {
        let (in_registry, name) = match shared {
            Shared::Nothing => return None,
            Shared::Empty(in_registry) => (in_registry, name),
            Shared::Full(in_registry) => (in_registry, "full"),
        };
        if in_registry {
            return Some(format!("oci://{}/scale/{name}", self.registry.host()));
        }
        let dir = self.work.join("stores").join(name);
        std::fs::create_dir_all(&dir).expect("the directory is writable");
        Some(dir.display().to_string())
    }

    fn fill(&self, shared: Shared) {
        if matches!(shared, Shared::Full(_)) {
            self.launch(1, self.store(shared, ""));
        }
    }

    fn once(&self, number: usize, shared: Shared) -> Sample {
        let before = self.index.bytes();
        let (wall, cpu, built) = self.launch(number, self.store(shared, &format!("new-{}", fastrand::u32(..))));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (bytes, built) = ((self.index.bytes() - before) as f64, built as f64);
        Sample { bytes, cpu, wall, built }
    }

    /// Runs so many inits at once. Returns the wall time, the CPU time and how many of them built.
    fn launch(&self, number: usize, store: Option<String>) -> (f64, f64, usize) {
        let dir = tempfile::tempdir_in(self.work).expect("a directory");
        let own = |arg: &str| {
            let known = self.env.iter().find(|(name, _)| arg.strip_prefix('$') == Some(*name));
            known.map_or_else(|| arg.to_owned(), |(_, value)| value.clone())
        };
        let store = store.map(|store| format!("--store={store}"));
        let mut python = Command::new("python3");
        python.args(["-I", "-S", "-c", LAUNCH, &number.to_string()]).arg(dir.path());
        python.args(SHARED.iter().map(|arg| own(arg))).args(store).env_clear();
        python.env("PATH", &*crate::PATH);
        python.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").envs(self.env.iter().map(|(name, value)| (name, value)));
        let output = python.output().expect("python3 is installed");
        let logs = (0..number).map(|n| std::fs::read_to_string(dir.path().join(format!("{n}/log"))));
        let logs: Vec<String> = logs.map(Result::unwrap_or_default).collect();
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [wall, cpu, failed] = numbers[..] else { panic!("{}", String::from_utf8_lossy(&output.stderr)) };
        // An init that gives up its store would only look slow.
        let is_good = failed == 0.0 && logs.iter().all(|log| !log.contains("warning"));
        assert!(is_good, "{}", logs.join("\n"));
        (wall, cpu, logs.iter().filter(|log| !log.contains("from the store")).count())
    }
}

impl Results {
    fn of(&self, number: usize, shared: Shared) -> Option<&Sample> {
        let row = self.numbers.iter().position(|known| *known == number)?;
        Some(&self.samples[row][KINDS.iter().position(|(known, _)| *known == shared)?])
    }

    /// One init without a store.
    fn one(&self) -> &Sample {
        self.of(1, Shared::Nothing).expect("it is measured first")
    }

    fn text(&self) -> String {
        let most = self.numbers.last().expect("one is the first");
        let one = self.one();
        let mut out = format!(
            "{HEADING}\n\n    just scale {most}\n\n\
             ![CPU time and wall time of many inits at once, with and without a store](scale.svg)\n\n\
             The inits start in the same moment. Each has its own volume and empty caches, and installs the small app \
             (3 files, Flask)\nwith uv. They share two cores with the Git server, the index and the registry \
             (docker-registry). Medians of {ROUNDS} rounds;\nCPU time is user and system time of all inits and their \
             children. podstrap {}.\n\n\
             | goal for {GOAL} inits at once | at most | measured | |\n|---|---|---|---|\n",
            page::commit()
        );
        for (shared, name) in KINDS {
            let Some(sample) = self.of(GOAL, shared) else { continue };
            let (what, at_most, ratio) = match shared {
                Shared::Nothing => continue,
                Shared::Empty(_) => ("bytes from the index, as a ratio to one init", 2.0, sample.bytes / one.bytes),
                Shared::Full(_) => ("CPU time, as a ratio to one build without a store", 8.0, sample.cpu / one.cpu),
            };
            let verdict = if ratio <= at_most { "met" } else { "**missed**" };
            let _ = writeln!(out, "| {name}: {what} | {at_most:.1} | {ratio:.2} | {verdict} |");
        }
        let measures: [Measure; 4] = [
            ("CPU time, s", |sample| sample.cpu, |value| format!("{value:.2}")),
            ("wall time, s", |sample| sample.wall, |value| format!("{value:.2}")),
            ("from the index, MB", |sample| sample.bytes / 1e6, |value| format!("{value:.2}")),
            ("inits that build", |sample| sample.built, |value| format!("{value:.0}")),
        ];
        for (title, value, shown) in measures {
            let names: Vec<_> = KINDS.iter().map(|(_, name)| *name).collect();
            let _ = writeln!(out, "\n| {title} | {} |\n|---|{}", names.join(" | "), "---|".repeat(KINDS.len()));
            for (number, samples) in self.numbers.iter().zip(&self.samples) {
                let cells: Vec<_> = samples.iter().map(|sample| shown(value(sample))).collect();
                let _ = writeln!(out, "| {number} | {} |", cells.join(" | "));
            }
        }
        out
    }

    /// Draws CPU time and wall time over the number of inits. Both axes are logarithmic.
    fn svg(&self) -> String {
        let mut body = String::new();
        self.panel(&mut body, 0.0, "CPU time", |sample| sample.cpu);
        self.panel(&mut body, WIDTH / 2.0, "wall time", |sample| sample.wall);
        for (kind, (_, name)) in KINDS.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a handful of kinds")]
            let x = LEFT + kind as f64 * (WIDTH - LEFT) / KINDS.len() as f64;
            let y = HEIGHT - 8.0;
            let _ = writeln!(
                body,
                r#"<circle class="k{kind}" cx="{x:.0}" cy="{:.0}" r="5"/><text x="{:.0}" y="{y:.0}">{name}</text>"#,
                y - 4.0,
                x + 10.0
            );
        }
        let style = "text{font:13px system-ui,sans-serif;fill:#57606a}.t{font-weight:600}.e{text-anchor:end}\
            .m{text-anchor:middle}path{fill:none;stroke-width:2}.grid{stroke:#8c959f;stroke-width:.5}\
            .k0{fill:#6e7781;stroke:#6e7781}.k1{fill:#bc4c00;stroke:#bc4c00}.k2{fill:#8250df;stroke:#8250df}\
            .k3{fill:#1a7f37;stroke:#1a7f37}.k4{fill:#0969da;stroke:#0969da}path.k0,path.k1,path.k2,path.k3,\
            path.k4{fill:none}@media(prefers-color-scheme:dark){text{fill:#9da7b1}}";
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {HEIGHT:.0}\" role=\"img\" \
             aria-label=\"CPU time and wall time of many inits at once, with and without a store\">\n\
             <desc>podstrap {}</desc>\n<style>{style}</style>\n{body}</svg>\n",
            page::commit(),
        )
    }

    fn panel(&self, body: &mut String, left: f64, title: &str, value: fn(&Sample) -> f64) {
        let all = || self.samples.iter().flatten().map(value);
        // Whole powers of ten.
        let low = all().fold(f64::INFINITY, f64::min).log10().floor();
        let high = all().fold(0.0, f64::max).log10().ceil();
        let (bottom, top) = (HEIGHT - 56.0, 34.0);
        let (start, end) = (left + LEFT + 30.0, left + WIDTH / 2.0 - LEFT);
        #[expect(clippy::cast_precision_loss, reason = "a handful of numbers")]
        let x = |row: usize| start + row as f64 * (end - start) / (self.numbers.len().max(2) - 1) as f64;
        let y = |seconds: f64| bottom - (seconds.log10() - low) / (high - low) * (bottom - top);
        let _ = writeln!(body, r#"<text class="t" x="{start:.0}" y="20">{title}, s</text>"#);
        let mut power = low;
        while power <= high {
            let (at, seconds) = (y(10_f64.powf(power)), 10_f64.powf(power));
            let _ = writeln!(body, r#"<path class="grid" d="M{start:.0} {at:.1}H{end:.0}"/>"#);
            let _ = writeln!(body, r#"<text class="e" x="{:.0}" y="{:.1}">{seconds}</text>"#, start - 8.0, at + 4.0);
            power += 1.0;
        }
        for (row, number) in self.numbers.iter().enumerate() {
            let _ = writeln!(body, r#"<text class="m" x="{:.1}" y="{:.0}">{number}</text>"#, x(row), bottom + 20.0);
        }
        for (kind, (_, name)) in KINDS.iter().enumerate() {
            let points = self.samples.iter().enumerate();
            let points: Vec<_> = points.map(|(row, samples)| (x(row), value(&samples[kind]))).collect();
            let line: Vec<_> = points.iter().map(|(x, value)| format!("{x:.1} {:.1}", y(*value))).collect();
            let _ = writeln!(body, r#"<path class="k{kind}" d="M{}"/>"#, line.join("L"));
            for ((at, value), number) in points.iter().zip(&self.numbers) {
                let _ = writeln!(
                    body,
                    r#"<circle class="k{kind}" cx="{at:.1}" cy="{:.1}" r="3"><title>{title}, {name}, {number}: {value:.2} s</title></circle>"#,
                    y(*value)
                );
            }
        }
    }
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 12.0;
