//! Splits a file's bytes into lines as pip does: encoding, line ends, continued lines, comments.

/// A logical line, and its lines in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    /// The number of its first line, from 1.
    pub(super) number: usize,
    /// Joined and without comment. Not empty.
    pub(super) text: String,
    /// One line, or several that backslashes join.
    pub(super) written: Vec<String>,
}

/// Decodes the text as pip does (`auto_decode`). `None`: the file declares an encoding that may give ASCII bytes
/// another meaning.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => None,
        [0xff, 0xfe, rest @ ..] => Some(wide(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Some(wide(rest, u16::from_be_bytes)),
        [0xef, 0xbb, 0xbf, rest @ ..] => Some(narrow(rest)),
        _ => names_ascii(bytes).then(|| narrow(bytes)),
    }
}

/// Decodes UTF-8. Other bytes become one character each.
pub(super) fn narrow(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Whether the coding comments (PEP 263) declare only supersets of ASCII.
fn names_ascii(bytes: &[u8]) -> bool {
    const KINDS: &[&str] =
        &["utf-8", "utf8", "ascii", "us-ascii", "latin", "iso-8859", "iso8859", "cp125", "windows-125"];
    let comments = bytes.split(|byte| *byte == b'\n').take(2).filter(|line| line.starts_with(b"#"));
    let mut names = comments.map(|line| String::from_utf8_lossy(line).to_lowercase().replace('_', "-"));
    names.all(|line| {
        let names = line.split("coding").skip(1).filter_map(|rest| rest.strip_prefix([':', '=']));
        names.map(str::trim_start).all(|name| KINDS.iter().any(|kind| name.starts_with(kind)))
    })
}

/// Characters that end a line for pip (Python's `str.splitlines`) and not for uv.
const ENDS_OF_PIP: [char; 8] = ['\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];

/// The logical lines: continued lines joined, without comments (pip's `preprocess`).
pub(super) fn logical_lines(text: &str) -> Vec<Logical> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n").replace(ENDS_OF_PIP, "\n");
    let mut lines = Vec::new();
    let mut joined = String::new();
    let mut written: Vec<String> = Vec::new();
    let mut end = |joined: &mut String, written: &mut Vec<String>, last: usize| {
        let (text, written) = (std::mem::take(joined), std::mem::take(written));
        let text = without_comment(&text).trim().to_owned();
        if !text.is_empty() {
            lines.push(Logical { number: last + 1 - written.len(), text, written });
        }
    };
    let mut last = 0;
    for (index, line) in text.lines().enumerate() {
        last = index + 1;
        written.push(line.to_owned());
        // A comment line does not continue, and ends a continued line.
        let comment = line.trim_start().starts_with('#');
        if line.ends_with('\\') && !comment {
            joined.push_str(line.trim_matches('\\'));
            continue;
        }
        joined.push_str(if comment { " " } else { "" });
        joined.push_str(line);
        end(&mut joined, &mut written, last);
    }
    end(&mut joined, &mut written, last);
    lines
}

/// Removes the comment: from a `#` at the beginning or after white space.
pub(super) fn without_comment(line: &str) -> &str {
    let mut marks = line.match_indices('#').map(|(at, _)| at);
    let comment = marks.find(|at| *at == 0 || line[..*at].ends_with(char::is_whitespace));
    comment.map_or(line, |at| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        logical_lines(text).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_joined_and_lose_their_comments() {
        let text = "# all\nflask==3 \\\n  --hash=sha256:ab  # why\n\nx @ https://host/x#egg=x\n-r b.txt\\\n";
        assert_eq!(texts(text), ["flask==3   --hash=sha256:ab", "x @ https://host/x#egg=x", "-r b.txt"]);
        let numbers: Vec<_> = logical_lines(text).iter().map(|line| (line.number, line.written.len())).collect();
        assert_eq!(numbers, [(2, 2), (5, 1), (6, 1)]);
    }

    #[test]
    fn lines_end_where_python_ends_them() {
        for (text, lines) in [
            ("a\rb\r\nc", &["a", "b", "c"][..]),
            ("a\u{c}-r b\u{2028}c\u{85}d", &["a", "-r b", "c", "d"]),
            ("# why \\\n-r b", &["-r b"]),
            ("a #x\\\n-r b", &["a"]),
            ("\\-r b \\\n", &["-r b"]),
            ("a\\\n # b\nc", &["a", "c"]),
            ("\\\n", &[]),
        ] {
            assert_eq!(texts(text), lines, "{text:?}");
        }
    }

    #[test]
    fn bytes_are_decoded_as_pip_decodes_them() {
        let wide = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        for (bytes, text) in [
            (b"a".to_vec(), Some("a")),
            ("\u{feff}-r b".into(), Some("-r b")),
            (wide("\u{feff}-r b", u16::to_le_bytes), Some("-r b")),
            (wide("\u{feff}-r b", u16::to_be_bytes), Some("-r b")),
            (b"\xff\xfe\0\0a\0\0\0".to_vec(), None),
            (b"\xe4=1".to_vec(), Some("\u{e4}=1")),
            ("# coding: utf-7 or utf-8\n+AC0-r +AC8-secret".into(), None),
            ("# Encoding: latin_1\n# on encoding\na".into(), Some("# Encoding: latin_1\n# on encoding\na")),
        ] {
            assert_eq!(decode(&bytes).as_deref(), text, "{bytes:?}");
        }
    }
}
