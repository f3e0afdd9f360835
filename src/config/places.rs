//! Finds names, strings and JSON Pointers in a configuration: Unit's `detail` has names but no positions.

use super::json::{self, Node};

/// The offsets of members with this name and of strings with this content.
///
/// In bytes after a byte order mark, in the order of the text. Empty if the text is invalid.
pub fn of(bytes: &[u8], wanted: &str) -> Vec<usize> {
    let mut found = Vec::new();
    // For invalid JSON, Unit reports the position itself.
    let Ok(document) = json::parse(bytes) else { return found };
    let mut open = vec![document.root()];
    while let Some(id) = open.pop() {
        match document.node(id) {
            Node::String(text) if text == wanted.as_bytes() => found.push(document.span(id).start),
            Node::Array(elements) => open.extend(elements),
            Node::Object(members) => {
                found.extend(members.iter().filter(|member| member.name == wanted.as_bytes()).map(|member| member.at));
                open.extend(members.iter().map(|member| member.value));
            }
            _ => {}
        }
    }
    found.sort_unstable();
    found
}

/// The offset of the value at a JSON Pointer (RFC 6901).
///
/// If the value has a member with the quoted name, returns the offset of that member, which the message
/// is then about. None for the root itself.
pub fn at(bytes: &[u8], pointer: &str, quoted: Option<&str>) -> Option<usize> {
    let document = json::parse(bytes).ok()?;
    let mut id = document.root();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        id = match document.node(id) {
            Node::Array(elements) => *elements.get(part.parse::<usize>().ok()?)?,
            _ => document.get(id, &part)?,
        };
    }
    let member = quoted.and_then(|name| document.member(id, name)).map(|member| member.at);
    member.or_else(|| (id != document.root()).then(|| document.span(id).start))
}

/// For any input: a position lies within the text, at the start of a string or word.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = super::position::without_bom(data);
    let (pointer, _) = data.split_at(data.iter().position(|byte| *byte == b'{').unwrap_or(0));
    let pointed = at(data, &String::from_utf8_lossy(pointer), Some("a"));
    assert!(pointed.is_none_or(|at| at < text.len()), "{text:?}");
    assert!(of(data, "a").into_iter().all(|at| matches!(text.get(at), Some(b'"' | b'\'' | b'a'))), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::position::without_bom;

    #[test]
    fn pointers_lead_to_values_and_to_what_is_wrong_in_them() {
        let text = br#"{"a": {"x/y": [1, {"bad": 2}]}, "b~": 3.5}"#;
        let found = |pointer, quoted| at(text, pointer, quoted).map(|at| &text[at..at + 3]);
        assert_eq!(found("/a/x~1y/1", None), Some(&b"{\"b"[..]));
        assert_eq!(found("/a/x~1y/1", Some("bad")), Some(&b"\"ba"[..]));
        assert_eq!(found("/b~0", Some("bad")), Some(&b"3.5"[..]));
        assert_eq!((found("", None), found("/no", None), found("/a/x~1y/9", None)), (None, None, None));
        assert_eq!(found("", Some("a")), Some(&b"\"a\""[..]));
    }

    #[test]
    fn names_and_strings_are_found() {
        let text = "\u{feff}{ \"a\": [\"b\", {\"b\": \"\\u0061\"}] /* \"b\" */ }".as_bytes();
        let words = |wanted| {
            let text = without_bom(text);
            of(text, wanted).into_iter().map(|at| std::str::from_utf8(&text[at..at + 3]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(words("a"), ["\"a\"", "\"\\u"]);
        assert_eq!(words("b"), ["\"b\"", "\"b\""]);
        assert!(of(b"{", "a").is_empty() && of("[".repeat(100_000).as_bytes(), "a").is_empty());
    }
}
