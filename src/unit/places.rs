//! Where a name or a string stands in a configuration: Unit's `detail` names it, and not its place.

use jsonc_parser::{CollectOptions, ParseOptions, ast};

use super::dialect;

/// The places where a member has this name, or a string is this one: offsets of bytes after a byte
/// order mark. None in what cannot be read.
pub(super) fn of(bytes: &[u8], wanted: &str) -> Vec<usize> {
    let mut found = Vec::new();
    // It may take more than Unit does: what Unit refuses for its form, it gives a place itself.
    if let Ok(text) = std::str::from_utf8(dialect::without_bom(bytes))
        && let Ok(parsed) = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default())
        && let Some(value) = &parsed.value
    {
        collect(value, wanted, &mut found);
    }
    found
}

fn collect(value: &ast::Value, wanted: &str, found: &mut Vec<usize>) {
    match value {
        ast::Value::StringLit(text) if text.value == wanted => found.push(text.range.start),
        ast::Value::Array(array) => array.elements.iter().for_each(|one| collect(one, wanted, found)),
        ast::Value::Object(object) => {
            for property in &object.properties {
                if property.name.as_str() == wanted {
                    found.push(property.range.start);
                }
                collect(&property.value, wanted, found);
            }
        }
        _ => {}
    }
}

/// A place is within the text, and begins a string or a word.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = dialect::without_bom(data);
    assert!(of(data, "a").into_iter().all(|at| matches!(text.get(at), Some(b'"' | b'\'' | b'a'))), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

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
