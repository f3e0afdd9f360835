//! One overall deadline, and retries with growing pauses within it.
//!
//! podstrap retries only errors marked [`transient`](crate::error::Error::transient). The pauses last 0.25, 0.5,
//! 1, 2 and 4 seconds, each plus a random part of at most the same length. A longer Retry-After of the server
//! replaces the pause. One that is longer than the remaining time ends the retries. After six tries, or at the
//! deadline, the last error is returned with the number of tries, their duration and the cause of the previous
//! failure.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const TRIES: u32 = 6;
/// How long a server may stay silent before podstrap tries again: six times the interval at which Git's server
/// reports that it is still packing (uploadpack.keepAlive, 5 s).
const SILENCE: Duration = Duration::from_secs(30);
/// The longest silence is the deadline divided by this.
const SILENCES: u32 = 4;
/// Replaces a limit that no clock can represent.
const ENDLESS: Duration = Duration::from_hours(24 * 365 * 100);

/// The time by which a whole run must end.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    limit: Duration,
    flag: &'static str,
    is_patient: bool,
}

impl Deadline {
    /// After a time that `--timeout` sets.
    pub fn after(limit: Duration) -> Self {
        Self::of("--timeout", limit)
    }
    /// After a time that another flag sets.
    pub fn of(flag: &'static str, limit: Duration) -> Self {
        Self { started: Instant::now(), limit, flag, is_patient: true }
    }
    /// The same, without a second try.
    #[must_use]
    pub fn once(self) -> Self {
        Self { is_patient: false, ..self }
    }
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
    pub fn limit(&self) -> Duration {
        self.limit
    }
    /// The flag that sets the limit.
    pub fn flag(&self) -> &'static str {
        self.flag
    }
    /// The flag and the limit: `--timeout 10m`.
    pub fn shown(&self) -> String {
        format!("{} {}", self.flag, humantime::format_duration(self.limit))
    }
    /// The hint for a passed deadline.
    pub(crate) fn slow(&self) -> String {
        format!("raise {}, or find the slow step with --log-level debug", self.flag)
    }
    /// The remaining time; zero after the deadline.
    pub fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.elapsed())
    }
    pub fn passed(&self) -> bool {
        self.remaining().is_zero()
    }
    /// How long a server may stay silent. After a stall there is always time for another try.
    pub fn silence(&self) -> Duration {
        SILENCE.min(self.limit / SILENCES)
    }
    /// The error of file operations that the deadline ended.
    pub(crate) fn late(&self, what: &str) -> Error {
        let (elapsed, limit) = (self.elapsed().as_secs_f64(), self.shown());
        Error::source(what).because(format!("not done after {elapsed:.1} s ({limit})")).hint(self.slow())
    }
    /// The error of a command that does not end although the deadline has passed.
    pub(crate) fn stuck(&self, kind: Kind) -> Error {
        let (elapsed, limit) = (self.elapsed().as_secs_f64(), self.shown());
        Error::new(kind, "the command does not end")
            .because(format!("not done after {elapsed:.1} s ({limit})"))
            .because("a system call or a library does not return")
            .hint("check the volumes that the command uses: one of them may hang")
            .hint(self.slow())
    }
    /// The same moment for tokio's timers.
    pub fn instant(&self) -> tokio::time::Instant {
        let end = self.started.checked_add(self.limit);
        end.unwrap_or_else(|| self.started + ENDLESS).into()
    }
}

/// Calls `attempt` until it succeeds, fails permanently, or tries or time run out.
///
/// `what` names the attempt in the log line of each retry.
pub async fn retry<T>(deadline: Deadline, what: &str, attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    retry_pausing(deadline, what, attempt, tokio::time::sleep).await
}

async fn retry_pausing<T>(
    deadline: Deadline,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T>,
    sleep: impl AsyncFn(Duration),
) -> Result<T> {
    let started = Instant::now();
    let mut tries = Tries { number: 0, before: None };
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tries.number += 1;
        // A permanent error needs no count of tries.
        if !error.is_unreachable() || !deadline.is_patient {
            return Err(error);
        }
        let pause = error
            .retry()
            .and_then(|transient| Some(pause(tries.number, fastrand::f64())?.max(transient.after.unwrap_or_default())));
        match pause {
            Some(pause) if pause < deadline.remaining() => {
                let (number, cause) = (tries.number, error.summary());
                tracing::warn!("{what}: try {number} failed, retrying in {:.1} s: {cause}", pause.as_secs_f64());
                tries.before = Some(error);
                sleep(pause).await;
            }
            _ => return Err(tries.exhausted(error, started.elapsed(), deadline)),
        }
    }
}

/// The pause after the first `tries` tries; `None` after the last one. `jitter` is from 0 to 1.
fn pause(tries: u32, jitter: f64) -> Option<Duration> {
    let pause = FIRST_PAUSE * 2_u32.pow(tries.checked_sub(1)?);
    (tries < TRIES).then(|| pause + pause.mul_f64(jitter))
}

struct Tries {
    number: u32,
    /// The error of the previous try.
    before: Option<Error>,
}

impl Tries {
    fn exhausted(self, error: Error, elapsed: Duration, deadline: Deadline) -> Error {
        let asked = error.retry().and_then(|transient| transient.after);
        let error = match self.before {
            // A try that the deadline ended has no cause yet.
            Some(before) if deadline.passed() || error.retry().is_none() => {
                let cause = before.cause().filter(|_| before.what() == error.what());
                let cause = cause.unwrap_or_else(|| before.summary());
                error.because(format!("the previous try failed: {cause}"))
            }
            _ => error,
        };
        let wait = asked.filter(|pause| *pause >= deadline.remaining()).map_or_else(String::new, |pause| {
            let seconds = Duration::from_secs(pause.as_secs());
            format!(
                ": the server asks to wait for {}, longer than the remaining time",
                humantime::format_duration(seconds)
            )
        });
        error.because(format!(
            "gave up after {} {} in {:.1} s ({}){wait}",
            self.number,
            if self.number == 1 { "try" } else { "tries" },
            elapsed.as_secs_f64(),
            deadline.shown()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Retries for at most ten minutes, without the pauses.
    fn run<T>(attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(retry_pausing(Deadline::after(Duration::from_mins(10)), "x", attempt, async |_| ()))
    }

    #[test]
    fn pauses_double_and_jitter_at_most_doubles_each() {
        let pauses =
            |jitter| -> Vec<_> { (1..=7).map(|tries| pause(tries, jitter).map(|pause| pause.as_millis())).collect() };
        assert_eq!(pauses(0.0), [Some(250), Some(500), Some(1000), Some(2000), Some(4000), None, None]);
        assert_eq!(pauses(1.0), [Some(500), Some(1000), Some(2000), Some(4000), Some(8000), None, None]);
    }

    #[test]
    fn a_limit_beyond_all_clocks_is_none() {
        let deadline = Deadline::after(Duration::MAX);
        assert!(deadline.instant() > tokio::time::Instant::now() && !deadline.passed());
    }

    #[test]
    fn transient_failures_are_tried_again_and_permanent_ones_are_not() {
        let calls = Cell::new(0);
        let flaky = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(Error::source("no").transient(None)) } else { Ok(calls.get()) }
        };
        assert_eq!(run(flaky).unwrap(), 3);

        calls.set(0);
        let broken = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::source("no"))
        };
        run(broken).unwrap_err();
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn giving_up_says_how_often_and_keeps_the_cause() {
        let fails = || async { Err::<(), _>(Error::source("cannot reach it").because("refused").transient(None)) };
        let error = run(fails).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("refused") && text.contains("gave up after 6 tries"), "{text}");
    }

    #[test]
    fn a_limit_beyond_the_clocks_end_is_no_defect() {
        assert!(Deadline::after(Duration::MAX).instant() > Deadline::after(Duration::from_hours(1)).instant());
    }

    #[test]
    fn a_retry_after_beyond_the_deadline_is_not_waited_for() {
        let calls = Cell::new(0);
        let throttled = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::source("429").transient(Some(Duration::from_hours(1))))
        };
        let error = run(throttled).unwrap_err();
        assert_eq!(calls.get(), 1);
        assert!(
            error.to_string().contains("the server asks to wait for 1h, longer than the remaining time"),
            "{error}"
        );
    }

    #[test]
    fn a_try_that_the_deadline_ends_tells_of_the_one_before() {
        let calls = Cell::new(0);
        let ended = || async {
            calls.set(calls.get() + 1);
            let error = Error::source("cannot fetch it");
            Err::<(), _>(if calls.get() < 2 {
                error.because("refused").transient(None)
            } else {
                error.because("no time left").unreachable()
            })
        };
        let text = run(ended).unwrap_err().to_string();
        assert!(text.contains("because: no time left"), "{text}");
        assert!(text.contains("the previous try failed: refused"), "{text}");
        assert!(text.contains("gave up after 2 tries"), "{text}");
    }

    #[test]
    fn silence_costs_no_more_than_a_quarter_of_the_deadline() {
        let silence = |seconds| Deadline::after(Duration::from_secs(seconds)).silence().as_millis();
        assert_eq!([silence(2), silence(600)], [500, 30_000]);
    }
}
