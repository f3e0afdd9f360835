//! Parses Unit's JSON as `nxt_conf_json_parse` (`nxt_conf.c`) does, with positions.
//!
//! Unit allows `//` and `/* */` comments and one trailing comma. In other respects it is stricter than
//! most parsers: names are unique, control characters in strings are escaped, a number has at most 14
//! characters, and a `//` comment ends with a line feed. Strings are bytes, because Unit accepts any.
//! The offset of an error is Unit's. The parser does not recurse, so a deeply nested text is an error, not
//! a stack overflow.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde_json::{Map, Number, Value};

use super::position::without_bom;

/// Most levels of nested arrays and objects.
///
/// Unit has no limit: 1.35 applied 20,000 nested `fallback`s, failed to apply 30,000 and crashed at
/// 50,000. Real configurations have about ten levels. The limit lets code that walks a document recurse.
pub const DEPTH: usize = 200;

/// `NXT_CONF_MAX_NUMBER_LEN`.
const NUMBER_LENGTH: usize = 14;

/// `NXT_INT64_T_MAX`, which is 2^63 in the comparison that Unit makes.
const INT64_MAX: f64 = 9_223_372_036_854_775_808.0;

/// The index of a value in a [`Document`].
pub type Id = usize;

/// A parsed text: its values and their positions.
#[derive(Debug)]
pub struct Document<'a> {
    /// The text without a byte order mark. All offsets start here, as in Unit.
    pub text: &'a [u8],
    nodes: Vec<Placed>,
    root: Id,
    /// The ranges that an excerpt must hide: the values of `environment`.
    pub hidden: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Placed {
    node: Node,
    span: Range<usize>,
}

#[derive(Debug)]
pub enum Node {
    Null,
    Boolean(bool),
    Number(f64),
    /// Usually UTF-8, but Unit does not require it.
    String(Vec<u8>),
    Array(Vec<Id>),
    Object(Vec<Field>),
}

#[derive(Debug)]
pub struct Field {
    pub name: Vec<u8>,
    /// The offset of the opening quote of the name.
    pub at: usize,
    pub value: Id,
}

/// The error in a text that is not Unit's JSON.
#[derive(Debug)]
pub struct Flaw {
    /// In bytes, after a byte order mark: Unit's `offset`.
    pub offset: usize,
    pub fault: Fault,
    /// See [`Document::hidden`].
    pub hidden: Vec<Range<usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Empty,
    AfterEnd,
    Value,
    Name,
    Colon,
    MemberWithoutValue,
    CommaOrBrace,
    CommaOrBracket,
    OpenObject,
    OpenArray,
    OpenString,
    Control,
    Backslash,
    Hex,
    Surrogate,
    /// The offset of the first occurrence.
    Duplicate(usize),
    Fraction,
    LeadingZero,
    Exponent,
    LongNumber,
    NumberRange,
    TooDeep,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the text has no value",
            Self::AfterEnd => "unexpected text after the end of the value",
            Self::Value => {
                "expected a value: an object, an array, a string in double quotes, a number, true, false or null"
            }
            Self::Name => "expected a member name in double quotes, or }",
            Self::Colon => "expected a colon after the member name",
            Self::MemberWithoutValue => "the text ends before the member's value",
            Self::CommaOrBrace => "expected a comma or }",
            Self::CommaOrBracket => "expected a comma or ]",
            Self::OpenObject => "the text ends before the object's }",
            Self::OpenArray => "the text ends before the array's ]",
            Self::OpenString => "the text ends before the string's double quote",
            Self::Control => "a control character in a string must be escaped",
            Self::Backslash => {
                "a backslash in a string must be doubled, or start \\\" \\/ \\b \\f \\n \\r \\t or \\u0041"
            }
            Self::Hex => "\\u needs four hexadecimal digits",
            Self::Surrogate => "\\u encodes half of a surrogate pair",
            Self::Duplicate(_) => "the object already has a member with this name",
            Self::Fraction => "a number's fraction needs a digit",
            Self::LeadingZero => "a number must not have a leading zero",
            Self::Exponent => "a number's exponent needs a digit",
            Self::LongNumber => "a number may have at most 14 characters",
            Self::NumberRange => "the number is out of range",
            Self::TooDeep => return write!(f, "objects and arrays are nested more than {DEPTH} levels deep"),
        })
    }
}

/// Parses a text as Unit does.
pub fn parse(bytes: &[u8]) -> Result<Document<'_>, Flaw> {
    let text = without_bom(bytes);
    let mut parser = Parser { text, at: 0, nodes: Vec::new(), hidden: Vec::new() };
    match parser.document() {
        Ok(root) => Ok(Document { text, nodes: parser.nodes, root, hidden: parser.hidden }),
        Err((offset, fault)) => Err(Flaw { offset, fault, hidden: parser.hidden }),
    }
}

impl Document<'_> {
    pub fn root(&self) -> Id {
        self.root
    }
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id].node
    }
    pub fn span(&self, id: Id) -> Range<usize> {
        self.nodes[id].span.clone()
    }
    /// The members of an object; empty for other values.
    pub fn members(&self, id: Id) -> &[Field] {
        if let Node::Object(members) = self.node(id) { members } else { &[] }
    }
    pub fn member(&self, id: Id, name: &str) -> Option<&Field> {
        self.members(id).iter().find(|member| member.name == name.as_bytes())
    }
    pub fn get(&self, id: Id, name: &str) -> Option<Id> {
        self.member(id, name).map(|member| member.value)
    }
    pub fn bytes(&self, id: Id) -> Option<&[u8]> {
        if let Node::String(text) = self.node(id) { Some(text) } else { None }
    }
    pub fn string(&self, id: Id) -> Option<String> {
        self.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Converts a value. Invalid UTF-8 becomes U+FFFD.
    pub fn to_value(&self, id: Id) -> Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self.node(id) {
            Node::Null => Value::Null,
            Node::Boolean(value) => Value::Bool(*value),
            Node::Number(value) => Value::Number(self.number(id, *value)),
            Node::String(bytes) => Value::String(text(bytes)),
            Node::Array(values) => Value::Array(values.iter().map(|id| self.to_value(*id)).collect()),
            Node::Object(members) => {
                Value::Object(members.iter().map(|m| (text(&m.name), self.to_value(m.value))).collect::<Map<_, _>>())
            }
        }
    }

    /// The number from its text, because a float cannot hold all 64-bit integers.
    fn number(&self, id: Id, value: f64) -> Number {
        let text = String::from_utf8_lossy(&self.text[self.span(id)]);
        // Unit accepts -01.
        let digits = text.strip_prefix('-').map(|rest| rest.trim_start_matches('0'));
        let text = match digits {
            Some("") => "0".into(),
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => format!("-{rest}"),
            Some(rest) => format!("-0{rest}"),
            None => text.into_owned(),
        };
        serde_json::from_str(&text).ok().or_else(|| Number::from_f64(value)).unwrap_or_else(|| 0.into())
    }
}

/// An unclosed array or object.
struct Open {
    start: usize,
    holds: Holds,
    /// Its strings are values of `environment`.
    hidden: bool,
}

enum Holds {
    Array(Vec<Id>),
    Object { members: Vec<Field>, seen: HashMap<Vec<u8>, usize>, name: Option<(Vec<u8>, usize)> },
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    nodes: Vec<Placed>,
    hidden: Vec<Range<usize>>,
}

type Fallible<T> = Result<T, (usize, Fault)>;

impl Parser<'_> {
    fn document(&mut self) -> Fallible<Id> {
        self.skip_space();
        if self.at == self.text.len() {
            return Err((0, Fault::Empty));
        }
        let mut open: Vec<Open> = Vec::new();
        loop {
            // A value starts here: a scalar, array or object.
            let mut done = match self.value(&mut open)? {
                Some(id) => Some(id),
                None => self.enter(&mut open)?,
            };
            // Add each complete value to its container, which may then be complete too.
            while let Some(id) = done {
                let Some(holder) = open.last_mut() else {
                    self.skip_space();
                    return if self.at == self.text.len() { Ok(id) } else { Err((self.at, Fault::AfterEnd)) };
                };
                match &mut holder.holds {
                    Holds::Array(values) => values.push(id),
                    Holds::Object { members, name, .. } => {
                        let (name, at) = name.take().unwrap_or_default();
                        members.push(Field { name, at, value: id });
                    }
                }
                done = self.after_value(&mut open)?;
            }
        }
    }

    /// Parses a scalar, or opens an object or array (None).
    fn value(&mut self, open: &mut Vec<Open>) -> Fallible<Option<Id>> {
        let start = self.at;
        let inherited = open.last().is_some_and(|holder| {
            let below = matches!(&holder.holds, Holds::Object { name: Some((name, _)), .. } if name == b"environment");
            holder.hidden || below
        });
        let holds = match self.text[start] {
            b'{' => Holds::Object { members: Vec::new(), seen: HashMap::new(), name: None },
            b'[' => Holds::Array(Vec::new()),
            b'"' => {
                // Hide everything up to the end of the string, or of the text if the string has no end.
                if inherited {
                    self.hidden.push(start + 1..self.text.len());
                }
                let text = self.string()?;
                if let (true, Some(last)) = (inherited, self.hidden.last_mut()) {
                    last.end = self.at - 1;
                }
                return Ok(Some(self.complete(start, Node::String(text))));
            }
            _ => {
                let node = self.literal()?;
                return Ok(Some(self.complete(start, node)));
            }
        };
        if open.len() == DEPTH {
            return Err((start, Fault::TooDeep));
        }
        open.push(Open { start, holds, hidden: inherited });
        Ok(None)
    }

    fn complete(&mut self, start: usize, node: Node) -> Id {
        self.nodes.push(Placed { node, span: start..self.at });
        self.nodes.len() - 1
    }

    /// After an opening bracket or a comma: moves to the next value, or returns the closed container.
    fn enter(&mut self, open: &mut Vec<Open>) -> Fallible<Option<Id>> {
        self.at += 1;
        self.skip_space();
        let next = self.text.get(self.at).copied();
        let Some(holder) = open.last_mut() else { return Ok(None) };
        match &mut holder.holds {
            Holds::Array(_) => match next {
                None => Err((self.at, Fault::OpenArray)),
                Some(b']') => Ok(self.close(open)),
                Some(_) => Ok(None),
            },
            Holds::Object { seen, name, .. } => {
                match next {
                    None => return Err((self.at, Fault::OpenObject)),
                    Some(b'}') => return Ok(self.close(open)),
                    Some(b'"') => {}
                    Some(_) => return Err((self.at, Fault::Name)),
                }
                let at = self.at;
                let text = self.string()?;
                if let Some(first) = seen.insert(text.clone(), at) {
                    return Err((at, Fault::Duplicate(first)));
                }
                *name = Some((text, at));
                self.skip_space();
                match self.text.get(self.at) {
                    None => return Err((self.at, Fault::MemberWithoutValue)),
                    Some(b':') => self.at += 1,
                    Some(_) => return Err((self.at, Fault::Colon)),
                }
                self.skip_space();
                if self.at == self.text.len() {
                    return Err((self.at, Fault::MemberWithoutValue));
                }
                Ok(None)
            }
        }
    }

    /// After a value: moves to the next value of the container, or returns the closed container.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Fallible<Option<Id>> {
        self.skip_space();
        let array = matches!(open.last(), Some(Open { holds: Holds::Array(_), .. }));
        match (self.text.get(self.at), array) {
            (None, true) => Err((self.at, Fault::OpenArray)),
            (None, false) => Err((self.at, Fault::OpenObject)),
            (Some(b','), _) => self.enter(open),
            (Some(b']'), true) | (Some(b'}'), false) => Ok(self.close(open)),
            (Some(_), true) => Err((self.at, Fault::CommaOrBracket)),
            (Some(_), false) => Err((self.at, Fault::CommaOrBrace)),
        }
    }

    fn close(&mut self, open: &mut Vec<Open>) -> Option<Id> {
        self.at += 1;
        let Open { start, holds, .. } = open.pop()?;
        let node = match holds {
            Holds::Array(values) => Node::Array(values),
            Holds::Object { members, .. } => Node::Object(members),
        };
        Some(self.complete(start, node))
    }

    /// Skips white space and comments. Stops at the start of a comment without an end.
    fn skip_space(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            let rest = &self.text[self.at..];
            let length = match byte {
                b' ' | b'\t' | b'\n' | b'\r' => Some(1),
                b'/' if rest.starts_with(b"//") => rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
                b'/' if rest.starts_with(b"/*") => rest[2..].windows(2).position(|two| two == b"*/").map(|at| at + 4),
                _ => None,
            };
            match length {
                Some(length) => self.at += length,
                None => return,
            }
        }
    }

    /// Parses true, false, null or a number.
    fn literal(&mut self) -> Fallible<Node> {
        let rest = &self.text[self.at..];
        for (word, node) in [("true", Node::Boolean(true)), ("false", Node::Boolean(false)), ("null", Node::Null)] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(node);
            }
        }
        let start = self.at;
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        if !digits.first().is_some_and(u8::is_ascii_digit) {
            return Err((start, Fault::Value));
        }
        let value = self.number()?;
        match self.text.get(self.at) {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b'}' | b']' | b'{' | b'[' | b'"' | b'/') => {
                Ok(Node::Number(value))
            }
            Some(_) => Err((start, Fault::Value)),
        }
    }

    fn number(&mut self) -> Fallible<f64> {
        let start = self.at;
        let first = start + usize::from(self.text[start] == b'-');
        let digits = |mut at: usize| {
            while self.text.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let whole = digits(first);
        let mut end = whole;
        if self.text.get(whole) == Some(&b'.') {
            end = digits(whole + 1);
            if end == whole + 1 {
                return Err((first, Fault::Fraction));
            }
        }
        // For a negative number, Unit tests the sign instead of the first digit.
        if whole - first > 1 && self.text[start] == b'0' {
            return Err((first, Fault::LeadingZero));
        }
        if matches!(self.text.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.text.get(end + 1), Some(b'-' | b'+')));
            let from = end + 1 + sign;
            end = digits(from);
            if end == from {
                return Err((start, Fault::Exponent));
            }
        }
        if end - start > NUMBER_LENGTH {
            return Err((start, Fault::LongNumber));
        }
        let text = &self.text[start..end];
        let value: f64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::INFINITY);
        // strtod(3) also reports an underflow.
        let mantissa = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
        let vanished = (value == 0.0 || value.is_subnormal()) && mantissa.clone().any(|b| matches!(b, b'1'..=b'9'));
        if value.abs() > INT64_MAX || vanished {
            return Err((start, Fault::NumberRange));
        }
        self.at = end;
        Ok(value)
    }

    /// Parses from the opening quote to after the closing one.
    fn string(&mut self) -> Fallible<Vec<u8>> {
        let start = self.at + 1;
        let mut at = start;
        let end = loop {
            match self.text.get(at) {
                None => return Err((self.text.len(), Fault::OpenString)),
                Some(b'"') => break at,
                Some(b'\\') => match self.text.get(at + 1) {
                    None => return Err((self.text.len(), Fault::OpenString)),
                    Some(b'"' | b'\\' | b'/' | b'n' | b'r' | b't' | b'b' | b'f') => at += 2,
                    Some(b'u') => {
                        for digit in at + 2..at + 6 {
                            match self.text.get(digit) {
                                None => return Err((self.text.len(), Fault::OpenString)),
                                Some(byte) if byte.is_ascii_hexdigit() => {}
                                Some(_) => return Err((digit, Fault::Hex)),
                            }
                        }
                        at += 6;
                    }
                    Some(_) => return Err((at, Fault::Backslash)),
                },
                Some(byte) if *byte < b' ' => return Err((at, Fault::Control)),
                Some(_) => at += 1,
            }
        };
        self.at = end + 1;
        self.unescape(start, end)
    }

    fn unescape(&self, start: usize, end: usize) -> Fallible<Vec<u8>> {
        let mut out = Vec::with_capacity(end - start);
        let mut at = start;
        while at < end {
            if self.text[at] != b'\\' {
                out.push(self.text[at]);
                at += 1;
                continue;
            }
            let escaped = self.text[at + 1];
            if escaped != b'u' {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'f' => 12,
                    other => other,
                });
                at += 2;
                continue;
            }
            let mut code = self.hex(at + 2);
            let from = at;
            at += 6;
            if (0xd800..=0xdfff).contains(&code) {
                if code > 0xdbff || !self.text[at..end].starts_with(b"\\u") {
                    return Err((from, Fault::Surrogate));
                }
                let low = self.hex(at + 2);
                at += 6;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err((from, Fault::Surrogate));
                }
                code = ((code - 0xd800) << 10) + (low - 0xdc00) + 0x10000;
            }
            let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(out)
    }

    /// The value of four hexadecimal digits, already validated.
    fn hex(&self, at: usize) -> u32 {
        self.text[at..at + 4].iter().fold(0, |sum, byte| (sum << 4) | (*byte as char).to_digit(16).unwrap_or(0))
    }
}

/// For any bytes: positions lie within the text, and those of values within their containers.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = without_bom(data);
    let document = match parse(data) {
        Ok(document) => document,
        Err(flaw) => {
            assert!(flaw.offset <= text.len() && flaw.hidden.iter().all(|range| range.end <= text.len()), "{flaw:?}");
            let (line, column) = super::position::line_and_column(text, flaw.offset);
            assert!(line >= 1 && column >= 1 && line <= text.len() + 1, "{flaw:?}");
            return;
        }
    };
    let root = document.span(document.root());
    for (id, placed) in document.nodes.iter().enumerate() {
        assert!(placed.span.start < placed.span.end && placed.span.end <= text.len(), "{placed:?}");
        assert!(root.start <= placed.span.start && placed.span.end <= root.end, "{placed:?}");
        let span = document.span(id);
        match &placed.node {
            Node::Array(values) => {
                assert!(values.iter().all(|id| {
                    let inner = document.span(*id);
                    span.start < inner.start && inner.end < span.end
                }));
            }
            Node::Object(members) => {
                assert!(members.iter().all(|m| span.start < m.at && document.span(m.value).end < span.end));
                assert!(members.iter().all(|m| text[m.at] == b'"'));
            }
            _ => {}
        }
        // Parsing only the text of a value gives the same value.
        if id < 64 {
            let again = parse(&text[span]).expect("a value is a text");
            assert_eq!(again.to_value(again.root()), document.to_value(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(text: &str) -> (usize, Fault) {
        let flaw = parse(text.as_bytes()).map(|document| document.to_value(document.root())).unwrap_err();
        (flaw.offset, flaw.fault)
    }

    #[test]
    fn flaws_stand_where_unit_sees_them() {
        assert_eq!(flaw("  "), (0, Fault::Empty));
        assert_eq!(flaw("{} x"), (3, Fault::AfterEnd));
        // An unfinished comment is not a comment.
        assert_eq!(flaw("{} // x"), (3, Fault::AfterEnd));
        assert_eq!(flaw("{} /* x"), (3, Fault::AfterEnd));
        assert_eq!(flaw("{\"a\": 1"), (7, Fault::OpenObject));
        assert_eq!(flaw("[1"), (2, Fault::OpenArray));
        assert_eq!(flaw("[1 2]"), (3, Fault::CommaOrBracket));
        assert_eq!(flaw("{\"a\":1 \"b\":2}"), (7, Fault::CommaOrBrace));
        assert_eq!(flaw("{\"a\":1,\"a\":2}"), (7, Fault::Duplicate(1)));
        assert_eq!(flaw("{\"a\"}"), (4, Fault::Colon));
        assert_eq!(flaw("{\"a\":"), (5, Fault::MemberWithoutValue));
        assert_eq!(flaw("{\"a\":1,,}"), (7, Fault::Name));
        assert_eq!(flaw("[,]"), (1, Fault::Value));
        assert_eq!(flaw("[\"\t\"]"), (2, Fault::Control));
        assert_eq!(flaw("[\"\\x\"]"), (2, Fault::Backslash));
        assert_eq!(flaw("[\"\\u00g0\"]"), (6, Fault::Hex));
        assert_eq!(flaw("[\"a\\ud800\"]"), (3, Fault::Surrogate));
        assert_eq!(flaw("[\"a\\ud800\\u0041\"]"), (3, Fault::Surrogate));
        assert_eq!(flaw("[\"abc"), (5, Fault::OpenString));
        assert_eq!(flaw("[tru]"), (1, Fault::Value));
        assert_eq!(flaw("[truex]"), (5, Fault::CommaOrBracket));
        assert_eq!(flaw("[1x]"), (1, Fault::Value));
        assert_eq!(flaw("[01]"), (1, Fault::LeadingZero));
        assert_eq!(flaw("[-.5]"), (1, Fault::Value));
        assert_eq!(flaw("[1.]"), (1, Fault::Fraction));
        assert_eq!(flaw("[1e]"), (1, Fault::Exponent));
        assert_eq!(flaw("[123456789012345]"), (1, Fault::LongNumber));
        assert_eq!(flaw("[1e19]"), (1, Fault::NumberRange));
        assert_eq!(flaw("[1e-400]"), (1, Fault::NumberRange));
        assert_eq!(flaw(&"[".repeat(100_000)), (DEPTH, Fault::TooDeep));
    }

    #[test]
    fn what_unit_takes_is_read() {
        let read = |text: &str| {
            let document = parse(text.as_bytes()).unwrap();
            document.to_value(document.root()).to_string()
        };
        assert_eq!(read("{\"a\":[1,2,],/* x **/\"b\":\"\\ud83d\\ude00\\/\"}// e\n"), "{\"a\":[1,2],\"b\":\"😀/\"}");
        assert_eq!(read("[-01, -00, -0.5, 2e2, 0e0, 0.0]"), "[-1,0,-0.5,200.0,0.0,0.0]");
        assert_eq!(read(&format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH))).len(), 2 * DEPTH);
    }

    #[test]
    fn values_of_environment_are_hidden() {
        let text = "{\"environment\": {\"A\": \"s3cret\", \"B\": [\"x\"]}, \"path\": \"y\"}";
        let shown: Vec<_> = parse(text.as_bytes()).unwrap().hidden.into_iter().map(|range| &text[range]).collect();
        assert_eq!(shown, ["s3cret", "x"]);
        let broken = "{\"environment\": {\"A\": \"s3cret\n\"";
        let flaw = parse(broken.as_bytes()).unwrap_err();
        assert_eq!((flaw.fault, &broken[flaw.hidden[0].clone()]), (Fault::Control, "s3cret\n\""));
    }
}
