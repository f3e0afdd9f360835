//! Where a name or a string stands in a configuration: Unit's `detail` names it, and not its place.

use super::json::{self, Kind};

/// The places where a member has this name, or a string is this one: offsets of bytes after a byte
/// order mark, in the order of the text. None in what cannot be read.
pub(super) fn of(bytes: &[u8], wanted: &str) -> Vec<usize> {
    let mut found = Vec::new();
    // What Unit refuses for its form, it gives a place itself.
    let Ok(document) = json::parse(bytes) else { return found };
    let mut open = vec![document.root()];
    while let Some(id) = open.pop() {
        match document.kind(id) {
            Kind::String(text) if text == wanted.as_bytes() => found.push(document.span(id).start),
            Kind::Array(elements) => open.extend(elements),
            Kind::Object(members) => {
                found.extend(members.iter().filter(|member| member.name == wanted.as_bytes()).map(|member| member.at));
                open.extend(members.iter().map(|member| member.value));
            }
            _ => {}
        }
    }
    found.sort_unstable();
    found
}

/// A place is within the text, and begins a string or a word.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    use super::dialect;
    let text = dialect::without_bom(data);
    assert!(of(data, "a").into_iter().all(|at| matches!(text.get(at), Some(b'"' | b'\'' | b'a'))), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::dialect;

    #[test]
    fn names_and_strings_are_found() {
        let text = "\u{feff}{ \"a\": [\"b\", {\"b\": \"\\u0061\"}] /* \"b\" */ }".as_bytes();
        let words = |wanted| {
            let text = dialect::without_bom(text);
            of(text, wanted).into_iter().map(|at| std::str::from_utf8(&text[at..at + 3]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(words("a"), ["\"a\"", "\"\\u"]);
        assert_eq!(words("b"), ["\"b\"", "\"b\""]);
        assert!(of(b"{", "a").is_empty() && of("[".repeat(100_000).as_bytes(), "a").is_empty());
    }
}
