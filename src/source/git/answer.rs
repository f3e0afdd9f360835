//! The answer to a request for a pack, whatever brings it: which packets it has, when it is complete,
//! and when it stalls.

use std::ops::Deref;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::source::SLOW;
use crate::source::git::pktline::{Framer, payload};

/// The longest list of references that is read: about a million of them.
pub(super) const MAX_LIST: usize = 64 << 20;
/// The longest line of progress that is kept.
const MAX_LINE: usize = 16 << 10;
/// Bytes per second below which an answer that completes no packet either is as good as none: a
/// megabyte would take a quarter of an hour.
const SLOWEST: u64 = 1000;

/// Hands the packets of an answer to `packets` one by one, until it ends or nobody takes them any
/// more. What the server itself says against the request (`ERR`, sideband 3) comes back as text.
///
/// `chunk` brings the next bytes, given how many have come, and `hide` takes secrets out of what the
/// server says.
pub(super) async fn pass_on<Bytes: Deref<Target = [u8]>>(
    what: &str,
    mut chunk: impl AsyncFnMut(usize, &mut Pace) -> Result<Option<Bytes>>,
    hide: impl Fn(&str) -> String,
    packets: &mpsc::Sender<Vec<u8>>,
    deadline: Deadline,
) -> Result<Option<String>> {
    let (mut framer, mut received, mut in_pack, mut ended) = (Framer::default(), 0, false, false);
    let (mut reported, mut pace) = (Vec::new(), Pace::new(deadline));
    while let Some(chunk) = chunk(received, &mut pace).await? {
        received += chunk.len();
        framer.push(&chunk);
        while let Some(packet) = framer.next().map_err(|error| Error::source(what).because(error))? {
            match payload(packet) {
                None => ended = in_pack,
                Some([1, ..]) => in_pack = true,
                Some([2, text @ ..]) => {
                    reported.extend_from_slice(text);
                    progress(&mut reported, &hide);
                }
                Some([3, text @ ..] | [b'E', b'R', b'R', b' ', text @ ..]) => {
                    return Ok(Some(hide(String::from_utf8_lossy(text).trim())));
                }
                Some(_) => {}
            }
            if packets.send(packet.to_vec()).await.is_err() {
                return Ok(None);
            }
            // Also an empty packet, by which a server that is still packing shows that it lives;
            // and the time that libgit2 took is not the server's.
            pace.moved();
        }
        // Whether the connection ends with it as well is no matter.
        if ended && framer.is_empty() {
            return Ok(None);
        }
    }
    Err(Error::source(what).because(format!("the answer broke off after {received} bytes")).transient(None))
}

/// Logs the whole lines of what the server reports on its work, as far as they have come.
fn progress(pending: &mut Vec<u8>, hide: impl Fn(&str) -> String) {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
        // A counter that never ends its line is not worth keeping.
        pending.drain(..pending.len().saturating_sub(MAX_LINE));
        return;
    };
    let lines: Vec<u8> = pending.drain(..=end).collect();
    for line in String::from_utf8_lossy(&lines).lines() {
        // A counter overwrites itself with carriage returns: its last state is enough.
        let line = hide(line.trim_end().rsplit('\r').next().unwrap_or_default());
        tracing::debug!("remote: {}", crate::redact::clean(&line));
    }
}

/// Notices an answer that stalls: silence, or so few bytes that it will not end. A try that stalls is
/// worth another one.
pub(super) struct Pace {
    deadline: Deadline,
    since: Instant,
    /// Since then.
    bytes: u64,
}

impl Pace {
    pub(super) fn new(deadline: Deadline) -> Self {
        Self { deadline, since: Instant::now(), bytes: 0 }
    }
    /// Until when more must have come.
    pub(super) fn until(&self) -> Instant {
        (self.since + self.deadline.silence()).min(self.deadline.instant())
    }
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST * self.deadline.silence().as_secs() {
            self.moved();
        }
    }
    pub(super) fn moved(&mut self) {
        *self = Self::new(self.deadline);
    }
    pub(super) fn stalled(&self, what: &str) -> Error {
        let error = Error::source(what);
        if self.deadline.passed() {
            return error.because("the server did not answer in the time that was left").hint(SLOW).transient(None);
        }
        let silence = self.deadline.silence().as_secs_f64();
        error.because(format!("the server stalls: {} bytes in {silence:.1} s", self.bytes)).transient(None)
    }
}
