//! docs/performance.md: the goals, and a table for each scenario.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::Sample;
use super::scale::Scale;
use super::scenarios::{Goal, Scenario};
use super::timeline::Timeline;
use crate::support::index;

/// The results of a scenario.
pub(super) struct Table {
    pub(super) scenario: &'static Scenario,
    pub(super) title: String,
    /// Another process wrote to the disk; the table before is the same without.
    pub(super) is_busy: bool,
    pub(super) rounds: Vec<Vec<Sample>>,
}

impl Table {
    fn position(&self, contender: &str) -> usize {
        let found = self.scenario.contenders.iter().position(|known| known.name == contender);
        found.expect("a contender of this table")
    }

    /// The number of contenders before those of podstrap.
    fn others(&self) -> usize {
        let ours = self.scenario.contenders.iter().position(|one| one.name.starts_with("podstrap"));
        ours.expect("podstrap takes part")
    }

    /// Minimum, median and maximum.
    fn spread(&self, value: impl Fn(&[Sample]) -> f64) -> [f64; 3] {
        let mut values: Vec<f64> = self.rounds.iter().map(|round| value(round)).collect();
        values.sort_by(f64::total_cmp);
        [values[0], values[values.len() / 2], values[values.len() - 1]]
    }

    fn ratio(&self, contender: usize, against: usize) -> [f64; 3] {
        self.spread(|round| round[contender].seconds / round[against].seconds)
    }

    fn peak(&self, contender: usize) -> f64 {
        self.spread(|round| round[contender].peak_mib)[1]
    }

    /// The duration and the phases of the run with the median duration.
    fn median_run(&self, contender: usize) -> &Sample {
        let mut runs: Vec<_> = self.rounds.iter().map(|round| &round[contender]).collect();
        runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        runs[runs.len() / 2]
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let (contenders, others) = (self.scenario.contenders, self.others());
        let _ = write!(out, "## {}\n\n| | seconds: min, median, max |", self.title);
        for contender in &contenders[..others] {
            let _ = write!(out, " ratio to {} |", contender.name);
        }
        let last = contenders[others - 1].name;
        let _ = writeln!(out, " peak of the largest process, MiB | ratio to {last} |");
        let _ = writeln!(out, "|---|---|{}---|---|", "---|".repeat(others));
        for (index, contender) in contenders.iter().enumerate() {
            let [low, middle, high] = self.spread(|round| round[index].seconds);
            let _ = write!(out, "| {} | {low:.3}, **{middle:.3}**, {high:.3} |", contender.name);
            for other in 0..others {
                if index < others {
                    out.push_str(" |");
                    continue;
                }
                let [low, middle, high] = self.ratio(index, other);
                let _ = write!(out, " {low:.2}, **{middle:.2}**, {high:.2} |");
            }
            let peak = self.peak(index);
            let ratio = if index < others { String::new() } else { format!(" {:.2}", peak / self.peak(others - 1)) };
            let _ = writeln!(out, " {peak:.0} |{ratio} |");
        }
        out
    }
}

/// Most memory, as a ratio to the best shell script or to `git clone`.
const PEAK: f64 = 1.0;
/// How much the ratio of a busy disk may exceed that of an idle one.
const BUSY: f64 = 1.0;

/// The tables, and the goals above them.
pub(super) fn report(tables: &[Table]) -> String {
    let mut goals =
        "## Goals\n\n| table | contender | against | ratio, at most | measured | |\n|---|---|---|---|---|---|\n"
            .to_owned();
    let mut missed = String::new();
    let mut goal = |table: &Table, contender: &str, against: &str, at_most: f64, measured: f64| {
        let verdict = if measured <= at_most { "met" } else { "**missed**" };
        let _ =
            writeln!(goals, "| {} | {contender} | {against} | {at_most:.2} | {measured:.2} | {verdict} |", table.title);
        measured <= at_most
    };
    for (index, table) in tables.iter().enumerate() {
        for &Goal { contender, against, at_most } in table.scenario.goals {
            let own = table.position(contender);
            if !goal(table, contender, against, at_most, table.ratio(own, table.position(against))[1]) {
                let Sample { seconds, phases, .. } = table.median_run(own);
                let _ = writeln!(missed, "- {}: {contender}, {seconds:.3} s: {phases}.", table.title);
            }
        }
        let (own, other) = (table.others(), table.others() - 1);
        let names = table.scenario.contenders;
        if table.is_busy {
            let [idle, busy] = [&tables[index - 1], table].map(|table| table.ratio(own, other)[1]);
            goal(table, names[own].name, "the same on the idle disk", BUSY, busy / idle);
        }
        // The other tables have no peak of git or uv.
        if table.scenario.name != "apply" {
            let against = format!("peak of {}", names[other].name);
            goal(table, names[own].name, &against, PEAK, table.peak(own) / table.peak(other));
        }
    }
    if !missed.is_empty() {
        let _ =
            write!(goals, "\nWhere the time goes if a goal is missed, in the median run (phases overlap):\n\n{missed}");
    }
    goals.push('\n');
    for table in tables {
        goals.push_str(&table.text());
        goals.push('\n');
    }
    goals
}

/// The first line that a program prints in the checkout.
fn first_line(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
}

/// The measured commit.
pub(super) fn commit() -> String {
    first_line(Path::new("git"), &["rev-parse", "--short=12", "HEAD"])
}

/// Returns the text of docs/performance.md.
pub(super) fn page(tables: &[Table], picture: &Timeline, scale: &Scale, rounds: usize) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "# Performance\n\n    PODSTRAP_TEST_UNITD=/usr/sbin/unitd just bench\n\n\
         This command writes this page. Without `PODSTRAP_TEST_UNITD`, it leaves out the table `serve`, and `apply` uses \
         a stand-in\nfor Unit.\n\n\
         | contender | commands |\n|---|---|\n\
         | shell recipe | `git clone`, `python3 -m venv` and `pip install`, one after the other |\n\
         | best shell script | a shallow clone and `uv venv` at the same time, then `uv pip install --compile-bytecode` |\n\
         | best shell script, warm cache | the same, with a cache of uv that has all wheels |\n\
         | tar --zstd -x | only the archive of the same environment, with its bytecode |\n\
         | git clone --depth 1 | only that, compared with `podstrap init --venv none`, which also publishes |\n\
         | shell loop | `while [ ! -e SOCKET ]; do sleep 1; done`, then `curl -X PUT` |\n\n\
         Each table has {rounds} rounds after a warm-up. In each round, every contender runs once on a fresh directory \
         with\nempty caches. A Git server (`git http-backend`) and a package index run on the same machine. Ratios compare \
         runs of the\nsame round; below 1, podstrap is faster. Absolute times are from one machine with {cores} cores and \
         all files in memory,\nexcept where the title names a disk; podstrap {}, {}, {}, {}.\n\nHash of the measured code: \
         `{}`. {}\n\n{}\n\n{}",
        commit(),
        first_line(Path::new("git"), &["--version"]),
        first_line(Path::new("python3"), &["--version"]),
        first_line(&index::uv(), &["--version"]),
        first_line(Path::new("tests/performance.sh"), &["--hash"]),
        picture.gaps,
        report(tables).trim_end(),
        scale.text,
    )
}
