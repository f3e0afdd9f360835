//! Reports text that is not Unit's JSON.

use super::finding::Finding;
use crate::config::json::{Fault, Flaw};
use crate::config::position::{line_and_column, without_bom};

/// The finding for an invalid text, with a hint for common mistakes.
pub(super) fn flawed(bytes: &[u8], flaw: &Flaw) -> Finding {
    let text = without_bom(bytes);
    let rest = &text[flaw.offset.min(text.len())..];
    let hint = match flaw.fault {
        Fault::Duplicate(first) => {
            let (line, column) = line_and_column(text, first);
            Some(format!("remove one of them; the first is at {line}:{column}"))
        }
        Fault::TooDeep => Some("reduce the nesting: Unit has no limit, but crashes on a deep text".to_owned()),
        Fault::AfterEnd | Fault::Name | Fault::Value | Fault::CommaOrBrace | Fault::CommaOrBracket
            if rest.starts_with(b"//") || rest.starts_with(b"/*") =>
        {
            Some("end the comment: // with a line feed, /* with */".to_owned())
        }
        Fault::Value | Fault::Name if rest.starts_with(b"#") => Some("start comments with // or /*".to_owned()),
        Fault::Value | Fault::Name if rest.starts_with(b"'") => Some("put strings in double quotes".to_owned()),
        // The first brace of {{ opens an object.
        Fault::Name if rest.starts_with(b"{") || rest.starts_with(b"%") => {
            Some("render the template first: the file still has its placeholders".to_owned())
        }
        Fault::Control if rest.starts_with(b"\n") || rest.starts_with(b"\r") => {
            Some("close the string on its line with a double quote".to_owned())
        }
        Fault::Value | Fault::Name if rest.starts_with(b",") => Some("use at most one trailing comma".to_owned()),
        _ => None,
    };
    let finding = Finding::error("json", flaw.offset, format!("invalid JSON: {}", flaw.fault));
    Finding { refused: true, hint, ..finding }
}
