//! The text of a pointer (git-lfs, docs/spec.md).

use std::path::PathBuf;

/// The greatest length of a pointer in bytes.
pub(crate) const LONGEST: u64 = 1023;
/// The versions that git-lfs reads. The second one is its name before its first release.
const VERSIONS: [&str; 2] = ["https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1"];
/// Number of hexadecimal digits in a SHA-256.
const DIGITS: usize = 64;

/// The name and the size of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// Their SHA-256 in lower-case digits.
    pub(crate) oid: String,
    pub(crate) size: u64,
    /// The length of the pointer itself.
    pub(crate) length: u64,
}

/// Contents, and the paths in the tree that need them.
pub(super) struct Object {
    pub(super) oid: String,
    pub(super) size: u64,
    pub(super) paths: Vec<PathBuf>,
}

/// Parses a file's contents. `None`: it is no pointer. An error: it is one, but podstrap cannot use it.
pub(crate) fn parse(contents: &[u8]) -> Option<Result<Pointer, String>> {
    let length = contents.len() as u64;
    let rest = contents.strip_prefix(b"version ").filter(|_| length <= LONGEST)?;
    let rest = VERSIONS.iter().find_map(|version| rest.strip_prefix(version.as_bytes()))?;
    // Git converts line ends before its filters run, and git-lfs accepts both.
    let rest = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n"))?;
    Some(fields(rest).map(|(oid, size)| Pointer { oid, size, length }))
}

/// The fields after the version: sorted, each once.
fn fields(rest: &[u8]) -> Result<(String, u64), String> {
    let text = std::str::from_utf8(rest).map_err(|_| "it is not UTF-8")?;
    let (mut oid, mut size, mut last) = (None, None, "");
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(' ').ok_or("a line has no value")?;
        if key.starts_with("ext-") {
            return Err(format!("it needs the extension {key} of git-lfs, and podstrap supports no extensions"));
        }
        if key <= last {
            return Err("its keys are not sorted".to_owned());
        }
        match key {
            "oid" => oid = Some(digest(value)?),
            "size" => size = Some(number(value).ok_or("its size is not a number")?),
            _ => return Err(format!("the key {key} is unknown")),
        }
        last = key;
    }
    Ok((oid.ok_or("it has no oid")?, size.ok_or("it has no size")?))
}

fn digest(value: &str) -> Result<String, String> {
    let (kind, digits) = value.split_once(':').ok_or("its oid has no kind")?;
    if kind != "sha256" {
        return Err(format!("its oid is of the kind {kind}, and podstrap supports only sha256"));
    }
    let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
        return Err(format!("its oid does not have {DIGITS} hexadecimal digits in lower case"));
    }
    Ok(digits.to_owned())
}

fn number(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// A pointer names contents, and has the form that git-lfs writes, apart from line ends.
#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let Some(Ok(Pointer { oid, size, length })) = parse(data) else { return };
    assert_eq!(length, data.len() as u64);
    assert!(oid.len() == DIGITS && oid.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let written = format!("version {}\noid sha256:{oid}\nsize {size}\n", VERSIONS[0]);
    let Some(Ok(again)) = parse(written.as_bytes()) else { panic!("{written}") };
    assert_eq!((again.oid, again.size), (oid, size));
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    fn error(rest: &str) -> String {
        parse(format!("version {}\n{rest}", VERSIONS[0]).as_bytes()).unwrap().unwrap_err()
    }

    #[test]
    fn a_pointer_is_read_as_git_lfs_reads_it() {
        for version in VERSIONS {
            for end in ["\n", "\r\n"] {
                let text = format!("version {version}{end}oid sha256:{OID}{end}size 12345{end}");
                let pointer = parse(text.as_bytes()).unwrap().unwrap();
                assert_eq!((pointer.oid.as_str(), pointer.size, pointer.length), (OID, 12345, text.len() as u64));
            }
        }
        let whole = format!("version {}\noid sha256:{OID}\nsize 0", VERSIONS[0]);
        assert_eq!(parse(whole.as_bytes()).unwrap().unwrap().size, 0);
        let long = format!("{whole}\n{}", "\n".repeat(1024));
        for other in
            ["", "version ", "version https://example.org/v1\n", "version https://git-lfs.github.com/spec/v1", &long]
        {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_unusable_pointer_says_why() {
        let oid = format!("oid sha256:{OID}\n");
        for (text, why) in [
            (oid.clone(), "it has no size"),
            ("size 1\n".to_owned(), "it has no oid"),
            (format!("size 1\n{oid}"), "its keys are not sorted"),
            (format!("{oid}{oid}size 1\n"), "its keys are not sorted"),
            (format!("{oid}size -1\n"), "its size is not a number"),
            (format!("{oid}size +1\n"), "its size is not a number"),
            (format!("{oid}size 99999999999999999999\n"), "its size is not a number"),
            (format!("{oid}size\n"), "a line has no value"),
            (format!("{oid}size 1\nx y\n"), "the key x is unknown"),
            (format!("ext-0-foo sha256:{OID}\n{oid}size 1\n"), "the extension ext-0-foo of git-lfs"),
            ("oid sha256:00\nsize 1\n".to_owned(), "64 hexadecimal digits"),
            (oid.to_uppercase().replace("OID SHA256", "oid sha256") + "size 1\n", "64 hexadecimal digits"),
            ("oid sha512:00\nsize 1\n".to_owned(), "of the kind sha512"),
            ("oid 00\nsize 1\n".to_owned(), "its oid has no kind"),
        ] {
            assert!(error(&text).contains(why), "{text}: {}", error(&text));
        }
        let bytes = [b"version ", VERSIONS[0].as_bytes(), b"\noid \xff"].concat();
        assert!(parse(&bytes).unwrap().unwrap_err().contains("UTF-8"));
    }
}
