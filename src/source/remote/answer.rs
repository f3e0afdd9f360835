//! The answer to a request for a pack, whatever brings it: which packets it has, when it is complete,
//! and when it stalls.

use std::ops::Deref;

use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::source::access::pace::Pace;
use crate::source::remote::pktline::{Framer, payload};

/// The longest list of references that is read: about a million of them.
pub(crate) const MAX_LIST: usize = 64 << 20;
/// The longest line of progress that is kept.
const MAX_LINE: usize = 16 << 10;
/// Hands the packets of an answer to `packets` one by one, until it ends or nobody takes them any
/// more. What the server itself says against the request (`ERR`, sideband 3) comes back as text.
///
/// `chunk` brings the next bytes, given how many have come, and `hide` takes secrets out of what the
/// server says.
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
