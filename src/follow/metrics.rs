//! What a sidecar that follows a branch counts, for Prometheus.
//!
//! Names and units: <https://prometheus.io/docs/practices/naming/>.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::state::State;
use crate::unit::Seen;

type Labels = Vec<(&'static str, String)>;

/// The bounds of a step's duration, in seconds: from one request to a long build.
const BOUNDS: [f64; 10] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// The label of what was repaired.
fn of(what: &str) -> Labels {
    vec![("of", what.to_owned())]
}

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    rounds: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    commits: Family<Labels, Gauge>,
    success: Gauge<f64, AtomicU64>,
    unit: Gauge,
    repairs: Family<Labels, Counter>,
    rollbacks: Counter,
    /// The labels of `commits`, to remove them when they change.
    shown: Mutex<Vec<Labels>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let made: fn() -> Histogram = || Histogram::new(BOUNDS);
        let mut all = Self {
            registry: Registry::with_prefix("podstrap"),
            rounds: Family::default(),
            failures: Family::default(),
            durations: Family::new_with_constructor(made),
            commits: Family::default(),
            success: Gauge::default(),
            unit: Gauge::default(),
            repairs: Family::default(),
            rollbacks: Counter::default(),
            shown: Mutex::default(),
        };
        let to = &mut all.registry;
        to.register("rounds", "Looks at the reference, by result", all.rounds.clone());
        to.register("failures", "Failed steps", all.failures.clone());
        let help = "Duration of the steps of a new release";
        to.register_with_unit("step_duration", help, Unit::Seconds, all.durations.clone());
        to.register("commit_info", "The commits that serve and are wanted", all.commits.clone());
        let help = "Time of the last look that found nothing new or ended with a new release that serves";
        to.register_with_unit("last_success_timestamp", help, Unit::Seconds, all.success.clone());
        to.register("unit_up", "Whether Unit's control API answered last time", all.unit.clone());
        to.register(
            "repairs",
            "Configurations that Unit had lost or changed, and damaged releases",
            all.repairs.clone(),
        );
        to.register("rollbacks", "Times that the release before came back", all.rollbacks.clone());
        all
    }

    /// Counts a look: `unchanged`, `served` or `failed`.
    pub(super) fn round(&self, result: &'static str) {
        self.rounds.get_or_create(&vec![("result", result.to_owned())]).inc();
        if result != "failed" {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.success.set(now.as_secs_f64());
        }
    }

    pub(super) fn failed(&self, step: &str) {
        self.failures.get_or_create(&vec![("step", step.to_owned())]).inc();
    }

    pub(super) fn took(&self, step: &str, time: Duration) {
        self.durations.get_or_create(&vec![("step", step.to_owned())]).observe(time.as_secs_f64());
    }

    /// Counts a release that lost files, and is built again.
    pub(super) fn rebuilds(&self) {
        self.repairs.get_or_create(&of("release")).inc();
    }

    pub(super) fn rolled_back(&self) {
        self.rollbacks.inc();
    }

    pub(super) fn saw(&self, seen: Seen) {
        self.unit.set(i64::from(seen.answers));
        let repairs = self.repairs.get_or_create(&of("configuration"));
        repairs.inc_by(seen.repairs.saturating_sub(repairs.get()));
    }

    pub(super) fn show(&self, state: &State) {
        let labels = |kind: &str, commit: &str| vec![("kind", kind.to_owned()), ("commit", commit.to_owned())];
        let mut now: Vec<Labels> = Vec::new();
        now.extend(state.serving.as_ref().map(|serving| labels("serving", &serving.commit)));
        now.extend(state.wanted.as_ref().map(|wanted| labels("wanted", wanted)));
        now.extend(state.refused.as_ref().map(|refused| labels("refused", &refused.commit)));
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.iter().filter(|labels| !now.contains(labels)) {
            self.commits.remove(gone);
        }
        for labels in &now {
            self.commits.get_or_create(labels).set(1);
        }
        *shown = now;
    }

    /// The answer to a scrape.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Refused, Serving};
    use super::*;

    #[test]
    fn what_happened_is_counted() {
        let metrics = Metrics::new();
        metrics.round("served");
        metrics.round("failed");
        metrics.failed("canary");
        metrics.took("prepare", Duration::from_millis(500));
        metrics.saw(Seen { answers: true, repairs: 2 });
        metrics.saw(Seen { answers: true, repairs: 3 });
        metrics.rolled_back();
        let serving = |commit: &str| {
            let (release, since) = ("r".to_owned(), "now".to_owned());
            Some(Serving { release, commit: commit.to_owned(), reference: None, since })
        };
        metrics.show(&State { serving: serving("a"), wanted: Some("b".into()), ..State::default() });
        let refused =
            Refused { commit: "c".into(), step: "canary".into(), why: "x".into(), since: "now".into(), passes: false };
        metrics.show(&State { serving: serving("b"), refused: Some(refused), ..State::default() });
        let text = metrics.text();
        for line in [
            "podstrap_rounds_total{result=\"served\"} 1",
            "podstrap_failures_total{step=\"canary\"} 1",
            "podstrap_step_duration_seconds_bucket{le=\"1.0\",step=\"prepare\"} 1",
            "podstrap_commit_info{kind=\"serving\",commit=\"b\"} 1",
            "podstrap_commit_info{kind=\"refused\",commit=\"c\"} 1",
            "podstrap_unit_up 1",
            "podstrap_repairs_total{of=\"configuration\"} 3",
            "podstrap_rollbacks_total 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("commit=\"a\"") && text.contains("podstrap_last_success_timestamp_seconds 1"), "{text}");
    }
}
