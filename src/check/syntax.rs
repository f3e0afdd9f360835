//! A text that is not Unit's JSON.

use super::finding::Finding;
use crate::config::json::{Fault, Flaw};
use crate::config::position::{line_and_column, without_bom};

/// What is wrong with the text, and how such a slip is mended.
pub(super) fn flawed(bytes: &[u8], flaw: &Flaw) -> Finding {
    let text = without_bom(bytes);
    let rest = &text[flaw.offset.min(text.len())..];
    let hint = match flaw.fault {
        Fault::Duplicate(first) => {
            let (line, column) = line_and_column(text, first);
            Some(format!("the first one is at {line}:{column}"))
        }
        Fault::TooDeep => Some("Unit itself has no bound, and crashes on a deep text".to_owned()),
        Fault::AfterEnd | Fault::Name | Fault::Value | Fault::CommaOrBrace | Fault::CommaOrBracket
            if rest.starts_with(b"//") || rest.starts_with(b"/*") =>
        {
            Some("the comment does not end: // ends with a line feed, /* with */".to_owned())
        }
        Fault::Value | Fault::Name if rest.starts_with(b"#") => Some("comments begin with // or /*".to_owned()),
        Fault::Value | Fault::Name if rest.starts_with(b"'") => Some("strings stand in double quotes".to_owned()),
        // The first brace is an object's.
        Fault::Name if rest.starts_with(b"{") || rest.starts_with(b"%") => {
            Some("the template was not rendered: the file still has its placeholders".to_owned())
        }
        Fault::Control if rest.starts_with(b"\n") || rest.starts_with(b"\r") => {
            Some("the string does not end on its line: is its closing quote missing?".to_owned())
        }
        Fault::Value | Fault::Name if rest.starts_with(b",") => {
            Some("one trailing comma is fine, and no more".to_owned())
        }
        _ => None,
    };
    let finding = Finding::error("json", flaw.offset, format!("invalid JSON: {}", flaw.fault));
    Finding { refused: true, hint, ..finding }
}
