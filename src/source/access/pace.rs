//! Detects an answer that stalls, for every protocol.

use tokio::time::Instant;

use crate::error::Error;
use crate::retry::Deadline;

/// The lowest speed, in bytes per second, of an answer that completes no packet. Below it, a megabyte would take
/// a quarter of an hour.
const SLOWEST: u64 = 1000;

/// Detects an answer that stalls: silence, or so few bytes that it will not end. A retry may help.
pub(crate) struct Pace {
    deadline: Deadline,
    since: Instant,
    /// Received since then.
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self { deadline, since: Instant::now(), bytes: 0 }
    }
    /// The time by which more bytes must arrive.
    pub(crate) fn until(&self) -> Instant {
        (self.since + self.deadline.silence()).min(self.deadline.instant())
    }
    pub(crate) fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST * self.deadline.silence().as_secs() {
            self.moved();
        }
    }
    pub(crate) fn moved(&mut self) {
        *self = Self::new(self.deadline);
    }
    pub(crate) fn stalled(&self, what: &str) -> Error {
        let error = Error::source(what);
        if self.deadline.passed() {
            return error
                .because("the server did not answer in the remaining time")
                .hint(self.deadline.slow())
                .transient(None);
        }
        let silence = self.deadline.silence().as_secs_f64();
        error.because(format!("the server stalls: {} bytes in {silence:.1} s", self.bytes)).transient(None)
    }
}
