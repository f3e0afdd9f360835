//! Git's deltas: an object as copies of parts of another one, and new bytes (gitformat-pack, "Deltified
//! representation").

use Failure::Damaged;

/// Why a delta cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It does not fit its base, or is no delta.
    Damaged,
    /// There is no memory for a result of this size in bytes.
    NoMemory(u64),
}

/// The sizes at the start of a delta in bytes, of its base and of its result; and the instructions.
pub(super) fn sizes(delta: &[u8]) -> Result<(u64, u64, &[u8]), Failure> {
    let mut rest = delta;
    let (base, result) = (number(&mut rest)?, number(&mut rest)?);
    Ok((base, result, rest))
}

/// Applies a delta to its base.
pub(super) fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, Failure> {
    let (of_base, size, mut rest) = sizes(delta)?;
    if of_base != base.len() as u64 {
        return Err(Damaged);
    }
    let size = usize::try_from(size).map_err(|_| Damaged)?;
    let mut made = Vec::new();
    made.try_reserve_exact(size).map_err(|_| Failure::NoMemory(size as u64))?;
    while let Some((code, after)) = rest.split_first() {
        rest = after;
        let part = match code {
            0 => return Err(Damaged),
            1..0x80 => rest.split_off(..usize::from(*code)).ok_or(Damaged)?,
            _ => {
                let start = bytes(code & 0b1111, &mut rest)?;
                let length = match bytes(code >> 4 & 0b111, &mut rest)? {
                    0 => 0x1_0000,
                    length => length,
                };
                base.get(start..start + length).ok_or(Damaged)?
            }
        };
        if made.len() + part.len() > size {
            return Err(Damaged);
        }
        made.extend_from_slice(part);
    }
    if made.len() == size { Ok(made) } else { Err(Damaged) }
}

/// A number of the bytes that `present` names, the lowest first; the others are 0.
fn bytes(present: u8, rest: &mut &[u8]) -> Result<usize, Failure> {
    let mut number = 0;
    for at in 0..4 {
        if present >> at & 1 == 1 {
            number |= usize::from(*rest.split_off_first().ok_or(Damaged)?) << (8 * at);
        }
    }
    Ok(number)
}

/// A number in groups of seven bits, the lowest first.
fn number(rest: &mut &[u8]) -> Result<u64, Failure> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = rest.split_off_first().ok_or(Damaged)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_copies_and_adds() {
        // 10 bytes become 9: copy 3 at 1, add "xy", copy 4 at 6.
        let delta = [10, 9, 0x91, 1, 3, 2, b'x', b'y', 0x91, 6, 4];
        assert_eq!(apply(b"0123456789", &delta).unwrap(), b"123xy6789");
        // A length of 0 means 64 KiB.
        let base = vec![7; 0x1_0000];
        assert_eq!(apply(&base, &[0x80, 0x80, 4, 0x80, 0x80, 4, 0x80]).unwrap(), base);
    }

    #[test]
    fn a_delta_that_does_not_fit_is_refused() {
        for delta in [
            &[][..],
            &[0x80],
            &[9, 1, 1, b'x'],
            &[10, 2, 1, b'x'],
            &[10, 1, 2, b'x', b'y'],
            &[10, 1, 2, b'x'],
            &[10, 1, 0],
            &[10, 2, 0x91, 9, 2],
            &[10, 2, 0x91, 9],
            &[10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert_eq!(apply(b"0123456789", delta), Err(Damaged), "{delta:?}");
        }
    }
}
