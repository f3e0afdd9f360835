//! Sizes in bytes: parsed as Kubernetes quantities, shown in decimal units.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

/// Smallest space of a file, in bytes: a block of ext4 and XFS, a page of tmpfs.
const BLOCK: u64 = 4096;

impl Size {
    /// Bytes that a file, link or directory of this size takes on a volume, including its inode and name:
    /// whole blocks, at least one.
    pub fn occupied(bytes: u64) -> u64 {
        bytes.max(1).div_ceil(BLOCK).saturating_mul(BLOCK)
    }
}

/// The text is not a quantity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size: give a number of bytes, alone or followed by k, M, G, T, Ki, Mi, Gi or Ti (500Mi, 2Gi)")]
pub struct NotASize;

/// The suffixes of a Kubernetes quantity that fit a volume.
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
const SUFFIXES: &[(&str, u64)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let (number, factor) =
            SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor))).ok_or(NotASize)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if number.is_empty() || number == "." || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(NotASize);
        }
        let parse = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>().map_err(|_| NotASize) };
        let part =
            u128::from(parse(fraction)?) * u128::from(factor) / 10_u128.pow(fraction.len().try_into().unwrap_or(0));
        let bytes = u128::from(parse(whole)?) * u128::from(factor) + part;
        bytes.try_into().map(Self).map_err(|_| NotASize)
    }
}

impl fmt::Display for Size {
    /// `3.4 MB`, rounded up, so that a volume of the shown size is large enough.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} B", self.0),
            1_000..=999_900 => (1_000, "kB"),
            999_901..=999_900_000 => (1_000_000, "MB"),
            _ => (1_000_000_000, "GB"),
        };
        let tenths = self.0.div_ceil(unit / 10);
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// `1 file`, `3 files`
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Plain digits parse to their value, and no size overflows.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(size) = text.parse::<Size>() else { return };
    assert_eq!(size.0.to_string().parse(), Ok(size));
    assert!(!size.to_string().is_empty());
    let occupied = Size::occupied(size.0);
    assert!(occupied >= size.0 || size.0 > u64::MAX - BLOCK);
    if let Ok(plain) = text.parse::<u64>() {
        assert_eq!(plain, size.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes_own() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("500Mi", 500 << 20),
            ("2Gi", 2 << 30),
            ("1.5k", 1500),
            ("0.5Gi", 1 << 29),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "Gi", ".", "-1", "1 Gi", "1GB", "2gi", "1e3", "99999999999Ti", "1.2.3", "+1"] {
            assert_eq!(text.parse::<Size>(), Err(NotASize), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal_and_never_too_small() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_901, "1.0 MB"),
            (3_400_000, "3.4 MB"),
            (3_400_001, "3.5 MB"),
            (999_900_001, "1.0 GB"),
            (2_000_000_000, "2.0 GB"),
        ] {
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }
}
