//! One overall deadline, and tries with growing pauses within it.
//!
//! Only errors marked [`transient`](crate::error::Error::transient) are tried again. The pauses
//! are 0.25 s, 0.5 s, 1 s, 2 s and 4 s, each plus up to as much again in jitter; a server's
//! Retry-After counts where it is longer. After six tries, or at the deadline, the last error is
//! returned with the number of tries and the time they took.

use std::future::Future;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const TRIES: usize = 6;
/// For a limit that no clock can show.
const ENDLESS: Duration = Duration::from_hours(24 * 365 * 100);

/// A point in time that everything in one run must meet.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    limit: Duration,
}

impl Deadline {
    /// Starts now and ends after `limit`.
    pub fn after(limit: Duration) -> Self {
        Self { started: Instant::now(), limit }
    }
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
    pub fn limit(&self) -> Duration {
        self.limit
    }
    /// Time that is left; zero once the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.elapsed())
    }
    pub fn passed(&self) -> bool {
        self.remaining().is_zero()
    }
    /// The same moment as tokio's timers know it.
    pub fn instant(&self) -> tokio::time::Instant {
        let end = self.started.checked_add(self.limit);
        end.unwrap_or_else(|| self.started + ENDLESS).into()
    }
}

/// Calls `attempt` until it succeeds, fails for good, or tries or time run out.
///
/// `what` names the attempt in the log line that announces each further try.
pub async fn retry<T, F>(deadline: Deadline, what: &str, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let started = Instant::now();
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .with_max_times(TRIES - 1)
        .build();
    let mut tries = 0;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tries += 1;
        let Some(transient) = error.retry() else { return Err(error) };
        let pause = pauses.next().map(|pause| pause.max(transient.after.unwrap_or_default()));
        match pause {
            Some(pause) if pause < deadline.remaining() => {
                tracing::warn!("{what}: try {tries} failed, next in {:.1} s: {}", pause.as_secs_f64(), error.summary());
                tokio::time::sleep(pause).await;
            }
            _ => return Err(exhausted(error, tries, started.elapsed(), deadline)),
        }
    }
}

fn exhausted(error: Error, tries: u32, elapsed: Duration, deadline: Deadline) -> Error {
    let plural = if tries == 1 { "try" } else { "tries" };
    error.because(format!(
        "gave up after {tries} {plural} in {:.1} s (--timeout {})",
        elapsed.as_secs_f64(),
        humantime::format_duration(deadline.limit())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
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
        assert_eq!(run(retry(Deadline::after(Duration::from_mins(10)), "x", flaky)).unwrap(), 3);

        calls.set(0);
        let broken = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::source("no"))
        };
        run(retry(Deadline::after(Duration::from_mins(10)), "x", broken)).unwrap_err();
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn giving_up_says_how_often_and_keeps_the_cause() {
        let fails = || async { Err::<(), _>(Error::source("cannot reach it").because("refused").transient(None)) };
        let error = run(retry(Deadline::after(Duration::from_mins(10)), "x", fails)).unwrap_err();
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
        run(retry(Deadline::after(Duration::from_mins(10)), "x", throttled)).unwrap_err();
        assert_eq!(calls.get(), 1);
    }
}
