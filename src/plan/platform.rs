//! `--target-platform`: the platform tag of a wheel, and its form for each engine.

use crate::error::{Error, Result};

/// A C library. Neither loads a file that was linked against the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Libc {
    Glibc,
    Musl,
}

impl Libc {
    pub fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
        }
    }
}

/// `manylinux_2_28_x86_64`: the C library, its lowest version, and the processor.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    pub libc: Libc,
    /// `(2, 28)` for 2.28.
    pub version: (u32, u32),
    /// As in `uname -m`: `x86_64`, `aarch64`.
    pub machine: String,
}

/// Tags older than PEP 600, with the minor version of glibc 2 for each. Source: PEP 513, 571, 599.
const LEGACY: &[(&str, u32)] = &[("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5)];
/// Minor version of the oldest glibc of any manylinux wheel: manylinux1 on x86, else manylinux2014.
const OLDEST_X86: u32 = 5;
const OLDEST: u32 = 17;
/// Minor versions of glibc that `--python-platform` of uv 0.13 accepts.
const UV_GLIBC: &[u32] = &[40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 28, 17];
/// Processors that it accepts for Linux with either C library.
const UV_MACHINES: &[&str] = &["x86_64", "aarch64"];
/// The musl version for which uv resolves; a target triple contains none.
const UV_MUSL: (u32, u32) = (1, 2);

impl Platform {
    /// Parses the platform tag of a wheel.
    ///
    /// # Errors
    /// The tag is not one for Linux with a known C library.
    pub fn new(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| {
            Error::usage(format!("--target-platform {text} is not a manylinux or musllinux tag")).hint(
                "give the C library and processor of the app's image: manylinux_2_28_x86_64 or manylinux_2_28_aarch64 \
                 for Debian, Ubuntu and similar, musllinux_1_2_x86_64 or musllinux_1_2_aarch64 for Alpine",
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let machine = |text: &str| {
            let good = text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            good.then(|| text.to_owned())
        };
        if let Some((minor, rest)) =
            LEGACY.iter().find_map(|(name, minor)| Some((*minor, text.strip_prefix(name)?.strip_prefix('_')?)))
        {
            return Some(Self { libc: Libc::Glibc, version: (2, minor), machine: machine(rest)? });
        }
        let (libc, rest) = match text.strip_prefix("manylinux_") {
            Some(rest) => (Libc::Glibc, rest),
            None => (Libc::Musl, text.strip_prefix("musllinux_")?),
        };
        let mut parts = rest.splitn(3, '_');
        let version = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let known = match libc {
            Libc::Glibc => version.0 == 2 && version.1 <= 99,
            Libc::Musl => version.0 == 1 && version.1 <= 99,
        };
        Some(Self { libc, version, machine: machine(parts.next()?)? }).filter(|_| known)
    }

    /// All tags of wheels that this platform can run, newest first. An engine may not derive the older
    /// tags from one tag (PEP 600, PEP 656).
    pub fn tags(&self) -> Vec<String> {
        let Self { libc, version: (major, minor), machine } = self;
        let mut tags = Vec::new();
        match libc {
            Libc::Glibc => {
                let x86 = matches!(machine.as_str(), "x86_64" | "i686");
                let oldest = if x86 { OLDEST_X86 } else { OLDEST };
                for minor in (oldest..=*minor).rev() {
                    tags.push(format!("manylinux_{major}_{minor}_{machine}"));
                    let legacy = LEGACY.iter().find(|(_, stands_for)| *stands_for == minor);
                    tags.extend(legacy.map(|(name, _)| format!("{name}_{machine}")));
                }
            }
            Libc::Musl => {
                tags.extend((0..=*minor).rev().map(|minor| format!("musllinux_{major}_{minor}_{machine}")));
            }
        }
        // For wheels that were built by hand, as in a wheelhouse. Only their files show the C library.
        tags.push(format!("linux_{machine}"));
        tags
    }

    /// The value of uv's `--python-platform`: the newest version that uv accepts and that is not newer than
    /// this one. `None` if uv does not support the platform.
    pub fn for_uv(&self) -> Option<String> {
        let machine = UV_MACHINES.iter().find(|machine| **machine == self.machine)?;
        match self.libc {
            Libc::Glibc => {
                let minor = UV_GLIBC.iter().find(|minor| **minor <= self.version.1)?;
                Some(format!("{machine}-manylinux_2_{minor}"))
            }
            Libc::Musl if self.version >= UV_MUSL => Some(format!("{machine}-unknown-linux-musl")),
            Libc::Musl => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = match self.libc {
            Libc::Glibc => "manylinux",
            Libc::Musl => "musllinux",
        };
        write!(f, "{family}_{}_{}_{}", self.version.0, self.version.1, self.machine)
    }
}

/// A platform parses its own text, and its own tag comes first.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Some(platform) = Platform::parse(&String::from_utf8_lossy(data)) else { return };
    let shown = platform.to_string();
    assert_eq!(Platform::parse(&shown).as_ref(), Some(&platform));
    let tags = platform.tags();
    // A version older than the oldest known one has no versioned tag.
    assert!(tags[0] == shown || tags.len() == 1, "{tags:?}");
    assert!(tags.iter().all(|tag| tag.ends_with(&platform.machine)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_all_that_fit() {
        let tags = |text| Platform::new(text).unwrap().tags().join(" ");
        assert_eq!(
            tags("manylinux_2_18_aarch64"),
            "manylinux_2_18_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64 linux_aarch64"
        );
        assert!(tags("manylinux2014_x86_64").ends_with("manylinux_2_5_x86_64 manylinux1_x86_64 linux_x86_64"));
        assert_eq!(tags("musllinux_1_1_x86_64"), "musllinux_1_1_x86_64 musllinux_1_0_x86_64 linux_x86_64");
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "linux_x86_64", "manylinux_2_28", "manylinux_2_x_x86_64", "win_amd64", "musllinux_1_2_", "any"]
        {
            assert!(Platform::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uv_hears_what_is_not_newer() {
        let uv = |text| Platform::new(text).unwrap().for_uv();
        assert_eq!(uv("manylinux_2_30_x86_64").unwrap(), "x86_64-manylinux_2_28");
        assert_eq!(uv("manylinux2014_aarch64").unwrap(), "aarch64-manylinux_2_17");
        assert_eq!(uv("musllinux_1_2_aarch64").unwrap(), "aarch64-unknown-linux-musl");
        assert_eq!(uv("musllinux_1_1_aarch64"), None);
        assert_eq!(uv("manylinux_2_28_s390x"), None);
    }
}
