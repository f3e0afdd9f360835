//! Draws the picture in the README: the phases of one init, the shell recipe above podstrap.
//!
//! It draws the median of a few runs. The times come from podstrap's JSON log, and from a `date` after
//! each step of the recipe.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::scenarios::{Env, Subject, UV};

const RUNS: usize = 5;

/// The usual one-liner, with a time stamp after each step.
const RECIPE: &str = r#"ended() { echo "$(date +%s.%N) $1" >&2; }
git clone -q "$REPO" "$DIR/app" && ended "git clone" &&
python3 -m venv "$DIR/app/python/venv" && ended "python -m venv" && . "$DIR/app/python/venv/bin/activate" &&
pip install -q --index-url "$INDEX" Flask && ended "pip install""#;

/// A step of a run, in seconds since its start.
struct Step {
    name: String,
    begin: f64,
    end: f64,
}

impl Step {
    fn seconds(&self) -> f64 {
        self.end - self.begin
    }
}

struct Run {
    title: &'static str,
    steps: Vec<Step>,
    seconds: f64,
}

/// Most time of a run that may belong to no phase: a part of the run, and the start and end of the process.
const GAPS: f64 = 0.02;
const PROCESS: f64 = 0.01;

/// The picture, and how much of podstrap's run it explains.
pub(super) struct Timeline {
    pub(super) svg: String,
    /// A sentence about the time that belongs to no phase.
    pub(super) gaps: String,
    pub(super) is_complete: bool,
}

/// Draws both runs.
pub(super) fn draw() -> Timeline {
    let work = super::directory(false);
    let (env, _servers) = Subject::Small(0).prepare(work.path());
    let recipe = median("shell recipe", RUNS, |dir| {
        let argv = ["sh", "-c", RECIPE].map(str::to_owned);
        let (start, end, log) = run(&argv, &env, dir);
        let mut begin = start;
        let steps = log.lines().filter_map(|line| {
            let (time, name) = line.split_once(' ')?;
            let end: f64 = time.parse().ok()?;
            let step = Step { name: name.to_owned(), begin: begin - start, end: end - start };
            begin = end;
            Some(step)
        });
        (steps.collect(), end - start)
    });
    let podstrap = median("podstrap init", RUNS, |dir| {
        let json = ["--log-format", "json"].map(str::to_owned);
        let argv: Vec<_> = UV.argv.iter().map(|arg| (*arg).to_owned()).chain(json).collect();
        let (start, end, log) = run(&argv, &env, dir);
        let steps = log.lines().filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            let time = humantime::parse_rfc3339(event["timestamp"].as_str()?).ok()?;
            let end = seconds(time) - start;
            let name = event["phase"].as_str()?.to_owned();
            Some(Step { name, begin: end - event["seconds"].as_f64()?, end })
        });
        (steps.collect(), end - start)
    });
    let gaps = gaps(&podstrap);
    let lost: f64 = gaps.iter().map(Step::seconds).sum();
    let largest =
        gaps.iter().max_by(|one, other| one.seconds().total_cmp(&other.seconds())).expect("a start and an end");
    Timeline {
        gaps: format!(
            "In the run of the picture, {lost:.3} s of {:.3} s belong to no phase, most of them between {}: {:.3} s.",
            podstrap.seconds,
            largest.name,
            largest.seconds()
        ),
        is_complete: lost <= GAPS * podstrap.seconds + PROCESS,
        svg: svg(&[recipe, podstrap]),
    }
}

/// Returns the run with the median time.
fn median(title: &'static str, runs: usize, mut one: impl FnMut(&Path) -> (Vec<Step>, f64)) -> Run {
    let mut all: Vec<Run> = (0..=runs)
        .map(|_| {
            let dir = tempfile::tempdir().expect("a directory");
            let (steps, seconds) = one(dir.path());
            Run { title, steps, seconds }
        })
        // The first one warms the page cache.
        .skip(1)
        .collect();
    all.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    all.swap_remove(runs / 2)
}

/// Runs a contender. Returns start and end in seconds since the epoch, and stderr.
fn run(argv: &[String], env: &Env, dir: &Path) -> (f64, f64, String) {
    let expanded = argv.iter().map(|arg| match arg.strip_prefix('$') {
        Some("DIR") => dir.display().to_string(),
        Some(name) => env.iter().find(|(known, _)| *known == name).map_or(arg, |(_, value)| value).clone(),
        None => arg.clone(),
    });
    let argv: Vec<_> = expanded.collect();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env_clear().env("PATH", &*crate::PATH);
    for name in ["DIR", "HOME", "TMPDIR"] {
        command.env(name, dir);
    }
    let start = seconds(SystemTime::now());
    let output = command.envs(env.iter().map(|(name, value)| (name, value))).output().expect("it starts");
    let end = seconds(SystemTime::now());
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    (start, end, log)
}

/// The times of a run that belong to no phase.
fn gaps(run: &Run) -> Vec<Step> {
    let mut steps: Vec<_> = run.steps.iter().collect();
    steps.sort_by(|one, other| one.begin.total_cmp(&other.begin));
    let (mut gaps, mut end, mut last) = (Vec::new(), 0.0, "the start");
    let whole = Step { name: "the end".to_owned(), begin: run.seconds, end: run.seconds };
    for step in steps.into_iter().chain([&whole]) {
        if step.begin >= end {
            gaps.push(Step { name: format!("{last} and {}", step.name), begin: end, end: step.begin });
        }
        if step.end > end {
            (end, last) = (step.end, &step.name);
        }
    }
    gaps
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

const WIDTH: f64 = 820.0;
const LEFT: f64 = 12.0;
const LANE: f64 = 26.0;

/// Draws all runs on one scale; steps that overlap get separate lanes. Colours fit a light and a dark page.
fn svg(runs: &[Run]) -> String {
    let longest = runs.iter().map(|run| run.seconds).fold(0.0, f64::max);
    let scale = (WIDTH - 2.0 * LEFT) / longest;
    let (mut body, mut y) = (String::new(), 8.0);
    for run in runs {
        y += 18.0;
        let _ = writeln!(body, r#"<text class="t" x="{LEFT}" y="{y:.0}">{}: {:.2} s</text>"#, run.title, run.seconds);
        y += 8.0;
        let mut lanes: Vec<f64> = Vec::new();
        let mut steps: Vec<&Step> = run.steps.iter().collect();
        steps.sort_by(|one, other| one.begin.total_cmp(&other.begin));
        for step in steps {
            let free = lanes.iter().position(|end| *end <= step.begin + 0.001);
            let lane = free.unwrap_or_else(|| {
                lanes.push(0.0);
                lanes.len() - 1
            });
            lanes[lane] = step.end;
            #[expect(clippy::cast_precision_loss, reason = "a handful of lanes")]
            let top = y + LANE * lane as f64;
            let (x, width) = (LEFT + step.begin * scale, ((step.seconds()) * scale).max(1.0));
            let name = format!("{} {:.2} s", step.name, step.seconds());
            let _ = writeln!(
                body,
                r#"<g><title>{name}</title><rect class="{}" x="{x:.1}" y="{top:.0}" width="{width:.1}" height="{:.0}" rx="3"/>"#,
                step.name.split(' ').next_back().unwrap_or_default(),
                LANE - 5.0,
            );
            // 7 is the approximate width of a letter; a label that does not fit is only in the title.
            #[expect(clippy::cast_precision_loss, reason = "a short text")]
            if width > 7.0 * name.len() as f64 {
                let _ = writeln!(body, r#"<text class="s" x="{:.1}" y="{:.0}">{name}</text>"#, x + 6.0, top + 15.0);
            }
            body.push_str("</g>\n");
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of lanes")]
        {
            y += LANE * lanes.len() as f64 + 6.0;
        }
    }
    let style = "text{font:13px system-ui,sans-serif}.t{fill:#57606a;font-weight:600}.s{fill:#fff}\
        rect{fill:#6e7781}.clone,.fetch,.resolve{fill:#0969da}.venv{fill:#8250df}.install{fill:#bc4c00}\
        .finish{fill:#1a7f37}.publish{fill:#bf3989}\
        @media(prefers-color-scheme:dark){.t{fill:#9da7b1}}";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {y:.0}\" role=\"img\" \
         aria-label=\"The phases of one init on a time line, the shell recipe above podstrap\">\n\
         <desc>podstrap {}</desc>\n<style>{style}</style>\n{body}</svg>\n",
        super::page::commit(),
    )
}
