//! Converts a configuration to a value, and compares two values.
//!
//! Unit keeps the notation of numbers (`2e2` stays `2e2`), so podstrap compares by value.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::json;
use super::position::{line_and_column, without_bom};

/// Parses a configuration as Unit does. The error has line, column and cause.
///
/// Unlike Unit, refuses text that is not UTF-8, because a `Value` cannot hold it.
pub fn to_value(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(without_bom(bytes)).map_err(|error| error.to_string())?;
    match json::parse(bytes) {
        Ok(document) => Ok(document.to_value(document.root())),
        Err(flaw) => {
            let (line, column) = line_and_column(without_bom(bytes), flaw.offset);
            Err(format!("line {line}, column {column}: {}", flaw.fault))
        }
    }
}

/// Whether two values have the same meaning. Ignores the order of members and the notation of numbers.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    // Compare two integers exactly. `2e2` and `200.0` are floats.
    a == b || (a.is_f64() != b.is_f64() && a.as_f64().partial_cmp(&b.as_f64()) == Some(Ordering::Equal))
}

/// For any input: plain JSON parses as in `serde_json` unless Unit is stricter, and a printed value parses
/// to the same value.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    json::fuzz(data);
    if let Ok(plain) = serde_json::from_slice::<Value>(data) {
        match json::parse(data) {
            Ok(document) => assert!(same(&document.to_value(document.root()), &plain), "{plain:?}"),
            Err(flaw) => {
                use json::Fault::{Duplicate, LongNumber, NumberRange};
                assert!(matches!(flaw.fault, Duplicate(_) | LongNumber | NumberRange), "{flaw:?}");
            }
        }
    }
    if let Ok(read) = to_value(data) {
        // serde_json may print more digits than Unit accepts, and parses at most 127 levels.
        let text = read.to_string();
        if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() < 128 {
            let again: Value = serde_json::from_str(&text).expect("it is JSON");
            assert!(same(&again, &read), "{again:?} {read:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_unit_accepts_is_read() {
        let text = "\u{feff}// head\r\n{\"a\": [1, 2,], /* x */ \"b\": {\"c\": \"/é\\u0041\",},}\r\n";
        assert_eq!(to_value(text.as_bytes()).unwrap(), json!({"a": [1, 2], "b": {"c": "/éA"}}));
    }

    #[test]
    fn what_unit_refuses_is_not() {
        for text in ["", " \n", "# x\n{}", "{'a':1}", "{a:1}", "{\"a\":1,,}", "{\"a\":1 \"b\":2}", "{\"a\":+1}", "{} x"]
        {
            assert!(to_value(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_by_value_and_members_without_order() {
        let same_text = |a: &str, b: &str| same(&to_value(a.as_bytes()).unwrap(), &to_value(b.as_bytes()).unwrap());
        assert!(same_text("-0", "0") && same_text("-0.0", "0"));
        assert!(same_text("{\"a\":2e2,\"b\":[1.0]}", "{\"b\":[1],\"a\":200}"));
        assert!(!same_text("{\"a\":[1,2]}", "{\"a\":[2,1]}"));
        assert!(!same_text("{\"a\":\"1\"}", "{\"a\":1}"));
        assert!(!same_text("{\"a\":1}", "{\"a\":1,\"b\":null}"));
    }

    #[test]
    fn a_deep_text_is_refused_and_does_not_end_the_process() {
        assert!(to_value("[".repeat(100_000).as_bytes()).is_err());
    }
}
