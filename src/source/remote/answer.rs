//! The answer to a request for a pack, over any transport: its packets, its end and its stalls.

use std::ops::Deref;

use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::source::access::pace::Pace;
use crate::source::remote::pktline::{Framer, payload};

/// The longest list of references, in bytes: about a million references.
pub(crate) const MAX_LIST: usize = 64 << 20;
/// The longest line of progress in memory, in bytes.
const MAX_LINE: usize = 16 << 10;

/// Passes the packets of an answer to `packets` one by one, until the answer ends or the receiver is gone.
/// Returns the refusal of the server (`ERR`, sideband 3), if any.
///
/// `chunk` returns the next bytes, given the number of bytes so far. `hide` removes secrets from the server's
/// text.
pub(crate) async fn pass_on<Bytes: Deref<Target = [u8]>>(
    what: &str,
    mut chunk: impl AsyncFnMut(u64, &mut Pace) -> Result<Option<Bytes>>,
    hide: impl Fn(&str) -> String,
    packets: &mpsc::Sender<Vec<u8>>,
    deadline: Deadline,
) -> Result<Option<String>> {
    let (mut framer, mut received, mut in_pack, mut ended) = (Framer::default(), 0_u64, false, false);
    let (mut reported, mut pace) = (Vec::new(), Pace::new(deadline));
    while let Some(chunk) = chunk(received, &mut pace).await? {
        received += chunk.len() as u64;
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
            // Also after an empty packet, which a server sends while it is still packing. This excludes the time
            // that the reader of the pack took.
            pace.moved();
        }
        // The connection itself may stay open.
        if ended && framer.is_empty() {
            return Ok(None);
        }
    }
    Err(Error::source(what).because(format!("the answer broke off after {received} bytes")).transient(None))
}

/// Logs the complete lines of the server's progress.
fn progress(pending: &mut Vec<u8>, hide: impl Fn(&str) -> String) {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
        // Drop the start of a counter that never ends its line.
        pending.drain(..pending.len().saturating_sub(MAX_LINE));
        return;
    };
    let lines: Vec<u8> = pending.drain(..=end).collect();
    for line in String::from_utf8_lossy(&lines).lines() {
        // A counter overwrites itself with carriage returns. Log only its last state.
        let line = hide(line.trim_end().rsplit('\r').next().unwrap_or_default());
        tracing::debug!("remote: {}", crate::redact::clean(&line));
    }
}
