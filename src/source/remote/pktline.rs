//! Git's framing: a length of four hexadecimal digits, which includes these digits, then the payload
//! (gitprotocol-common, "pkt-line Format"). `0000` is a flush. In version 2, `0001` ends a section.

/// The longest packet, in bytes, including its length.
const LONGEST: usize = 65_520;

/// The bytes are not packets.
#[derive(Debug, thiserror::Error)]
#[error("the answer does not follow Git's protocol")]
pub(crate) struct Malformed;

/// Splits a stream of bytes, given piece by piece, into complete packets.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    bytes: Vec<u8>,
    /// The start of the next packet.
    at: usize,
}

impl Framer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next packet as sent, including its length; `None` while it is incomplete.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let rest = &self.bytes[self.at..];
        let Some(digits) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let length = match length {
            Some(0 | 1) => 4,
            Some(length @ 4..=LONGEST) => length,
            _ => return Err(Malformed),
        };
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.at;
        self.at += length;
        Ok(Some(&self.bytes[start..self.at]))
    }

    /// Whether all pushed bytes have been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// A packet's payload; `None` for a flush.
pub(crate) fn payload(packet: &[u8]) -> Option<&[u8]> {
    (packet != b"0000").then(|| packet.get(4..).unwrap_or_default())
}

/// Ends a section of a message in version 2 (gitprotocol-v2, "Packet-Line Framing").
pub(crate) const SECTION: &[u8] = b"0001";
/// Ends a message or a list.
pub(crate) const FLUSH: &[u8] = b"0000";

/// A packet with `payload`, which must be far shorter than the limit.
pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("{:04x}", payload.len() + 4).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// The packets do not depend on how the bytes are split, and they contain the bytes in order.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let cut = |size: usize| {
        let (mut framer, mut got) = (Framer::default(), Vec::new());
        for piece in bytes.chunks(size.max(1)) {
            framer.push(piece);
            loop {
                match framer.next() {
                    Ok(Some(packet)) => got.push(packet.to_vec()),
                    Ok(None) => break,
                    Err(Malformed) => return (got, true),
                }
            }
        }
        assert_eq!(framer.is_empty(), got.concat().len() == bytes.len());
        (got, false)
    };
    let whole = cut(bytes.len());
    assert_eq!(whole, cut(usize::from(*size)));
    assert!(bytes.starts_with(&whole.0.concat()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_whole_however_the_bytes_arrive() {
        let sent = [packet(b"one\n"), b"0000".to_vec(), packet(b"")].concat();
        for size in 1..=sent.len() {
            let (mut framer, mut got) = (Framer::default(), Vec::new());
            for piece in sent.chunks(size) {
                framer.push(piece);
                while let Some(packet) = framer.next().unwrap() {
                    got.push(packet.to_vec());
                }
            }
            assert!(framer.is_empty());
            assert_eq!(got, [b"0008one\n".to_vec(), b"0000".to_vec(), b"0004".to_vec()]);
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for bad in ["<htm", "+004", "0002", "fff1"] {
            let mut framer = Framer::default();
            framer.push(bad.as_bytes());
            framer.next().unwrap_err();
        }
    }
}
