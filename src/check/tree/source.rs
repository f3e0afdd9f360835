//! Finds the names that a Python module binds at its top level, without running it.
//!
//! Lines and indentation separate statements, and their first words decide what they bind. This is not a
//! full parser. [`Module::unclear`] marks modules that may have more names.

/// The names of a module.
#[derive(Debug, Default)]
pub struct Module {
    pub names: Vec<(String, Binding)>,
    /// The reason why the module may have more names.
    pub unclear: Option<&'static str>,
}

/// The kind of object that a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Without decorators, with the number of required and of accepted positional parameters.
    Function {
        asynchronous: bool,
        needs: usize,
        takes: usize,
    },
    Class,
    Import,
    /// A number, a string, None, True or False.
    Constant,
    Other,
}

impl Module {
    pub fn read(source: &str) -> Self {
        let mut module = Self::default();
        // The indentation of enclosing functions and classes. Their bindings are local.
        let mut inside: Vec<usize> = Vec::new();
        let mut decorated = false;
        for line in logical_lines(source) {
            while inside.last().is_some_and(|indent| *indent >= line.indent) {
                inside.pop();
            }
            for statement in split(&line.text, ';') {
                let statement = statement.trim();
                if let Some(names) = word(statement, "global") {
                    for name in names.split(',').map(str::trim).filter(|_| !inside.is_empty()) {
                        module.bind(name, Binding::Other);
                    }
                }
                if inside.is_empty() {
                    let scope = module.statement(statement, decorated);
                    decorated = statement.starts_with('@');
                    if scope {
                        inside.push(line.indent);
                        break;
                    }
                }
            }
        }
        module
    }

    /// The binding of a name; `Other` if its bindings differ.
    pub fn get(&self, name: &str) -> Option<Binding> {
        let mut all = self.names.iter().filter(|(bound, _)| bound == name).map(|(_, binding)| *binding);
        let first = all.next()?;
        Some(if all.all(|other| other == first) { first } else { Binding::Other })
    }

    fn bind(&mut self, name: &str, binding: Binding) {
        if is_name(name) {
            self.names.push((name.to_owned(), binding));
        }
    }

    /// Handles one statement. Returns whether it starts a function or class.
    fn statement(&mut self, text: &str, decorated: bool) -> bool {
        for (mark, why) in [
            ("globals(", "it changes globals()"),
            ("exec(", "it calls exec()"),
            ("sys.modules[", "it changes sys.modules"),
            ("vars(", "it changes vars()"),
            ("locals(", "it changes locals()"),
        ] {
            if text.contains(mark) {
                self.unclear = Some(why);
            }
        }
        let asynchronous = word(text, "async");
        let rest = asynchronous.unwrap_or(text);
        if let Some(signature) = word(rest, "def") {
            let (name, parameters) = signature.split_once('(').unwrap_or((signature, ""));
            let binding = if decorated { Binding::Other } else { function(parameters, asynchronous.is_some()) };
            self.bind(name.split('[').next().unwrap_or_default().trim(), binding);
            return true;
        }
        if let Some(name) = word(rest, "class") {
            self.bind(name.split(['(', ':', '[']).next().unwrap_or_default().trim(), Binding::Class);
            return true;
        }
        if let Some(names) = word(text, "import") {
            for name in split(names, ',') {
                let (path, name) = name.split_once(" as ").unwrap_or((name, ""));
                let top = path.trim().split('.').next().unwrap_or_default();
                self.bind(if name.is_empty() { top } else { name.trim() }, Binding::Import);
            }
            return false;
        }
        if let Some((_, names)) = word(text, "from").and_then(|text| text.split_once(" import")) {
            for name in names.trim().trim_matches(['(', ')']).split(',').map(str::trim) {
                if name == "*" {
                    self.unclear = Some("it imports * from another module");
                }
                self.bind(name.split_once(" as ").map_or(name, |(_, name)| name.trim()), Binding::Import);
            }
            return false;
        }
        self.compound(rest);
        false
    }

    /// Handles both sides of the colon of `if`, `for`, `with` and similar statements, or an assignment.
    fn compound(&mut self, text: &str) {
        for (at, _) in text.match_indices(":=") {
            let before = text[..at].trim_end();
            let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
            // rfind returns the start of that character.
            let start = before.ceil_char_boundary(start);
            self.bind(&before[start..], Binding::Other);
        }
        let words = ["if", "elif", "else", "for", "while", "try", "except", "finally", "with", "match", "case"];
        let keyword = words.into_iter().find(|keyword| {
            word(text, keyword).is_some()
                || text.strip_prefix(keyword).is_some_and(|rest| rest.trim_start().starts_with([':', '(', '*']))
        });
        let parts = split(text, ':');
        let Some(keyword) = keyword.filter(|_| parts.len() > 1) else { return self.assignment(text) };
        let (head, body) = (parts[0], text[parts[0].len() + 1..].trim());
        match keyword {
            "for" => {
                if let Some((targets, _)) = head["for".len()..].split_once(" in ") {
                    self.targets(targets, Binding::Other);
                }
            }
            "with" => {
                for part in head.split(" as ").skip(1) {
                    self.targets(split(part, ',')[0].trim_end_matches(')'), Binding::Other);
                }
            }
            _ => {}
        }
        if !body.is_empty() {
            self.statement(body, false);
        }
    }

    fn assignment(&mut self, text: &str) {
        let parts = assigned(text);
        let Some((value, targets)) = parts.split_last().filter(|(_, targets)| !targets.is_empty()) else { return };
        let value = value.trim();
        let number = value.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
        let plain = value.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '"' | ' '));
        let constant = plain && (number || value.starts_with('"') || matches!(value, "None" | "True" | "False"));
        for target in targets {
            let name = split(target, ':')[0].trim();
            let binding = if constant && is_name(name) { Binding::Constant } else { Binding::Other };
            self.targets(name, binding);
        }
    }

    /// `a, (b, *c), d[0], e.f` binds a, b and c.
    fn targets(&mut self, text: &str, binding: Binding) {
        let mut left = vec![text];
        while let Some(text) = left.pop() {
            for target in split(text, ',').into_iter().map(|target| target.trim().trim_start_matches('*')) {
                let inner = target.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                match inner.or_else(|| target.strip_prefix('[')?.strip_suffix(']')) {
                    Some(inner) => left.push(inner),
                    None => self.bind(target, binding),
                }
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '_') && text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The text after a keyword.
fn word<'t>(text: &'t str, keyword: &str) -> Option<&'t str> {
    text.strip_prefix(keyword).filter(|rest| rest.starts_with([' ', '\t'])).map(str::trim_start)
}

fn function(parameters: &str, asynchronous: bool) -> Binding {
    let (mut needs, mut takes) = (0, 0_usize);
    let inner = parameters.rsplit_once(')').map_or(parameters, |(inner, _)| inner);
    for parameter in split(inner, ',').into_iter().map(str::trim).filter(|text| !text.is_empty() && *text != "/") {
        if parameter.starts_with('*') {
            takes = usize::MAX;
            break;
        }
        takes += 1;
        needs += usize::from(!parameter.contains('='));
    }
    Binding::Function { asynchronous, needs, takes }
}

/// Splits at a mark outside brackets. The text has no strings.
fn split(text: &str, mark: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            c if c == mark && depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Splits at the = of assignments.
fn assigned(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut from = 0;
    for part in split(text, '=') {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        let end = start + part.len();
        let comparison = part.ends_with(['=', '<', '>', '!', ':', '+', '-', '*', '/', '%', '&', '|', '^', '@'])
            || text[end..].starts_with("==")
            || (part.is_empty() && start > 0);
        if !comparison || end == text.len() {
            parts.push(&text[from..end]);
            from = (end + 1).min(text.len());
        }
    }
    parts
}

struct LogicalLine {
    indent: usize,
    text: String,
}

/// Puts each statement on one line: replaces strings by `""`, removes comments, joins lines in brackets.
fn logical_lines(source: &str) -> Vec<LogicalLine> {
    let mut lines = Vec::new();
    let mut line = LogicalLine { indent: 0, text: String::new() };
    let mut depth = 0_i32;
    let mut fresh = true;
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if fresh && matches!(c, ' ' | '\t') {
            line.indent += if c == '\t' { 8 } else { 1 };
            rest = &rest[1..];
            continue;
        }
        fresh = false;
        match c {
            '"' | '\'' => {
                rest = behind_string(rest);
                line.text.push_str("\"\"");
                continue;
            }
            '#' => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '\\' if rest[1..].starts_with('\n') || rest[1..].starts_with("\r\n") => {
                rest = &rest[rest.find('\n').unwrap_or(0) + 1..];
                line.text.push(' ');
                continue;
            }
            '\n' if depth > 0 => line.text.push(' '),
            '\n' => {
                if !line.text.trim().is_empty() {
                    lines.push(LogicalLine { indent: line.indent, text: std::mem::take(&mut line.text) });
                }
                line = LogicalLine { indent: 0, text: String::new() };
                fresh = true;
            }
            '(' | '[' | '{' => {
                depth += 1;
                line.text.push(c);
            }
            ')' | ']' | '}' => {
                depth = (depth - 1).max(0);
                line.text.push(c);
            }
            '\r' => {}
            c => line.text.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    if !line.text.trim().is_empty() {
        lines.push(line);
    }
    lines
}

/// The text after a string. A string without triple quotes ends with its line at the latest.
fn behind_string(text: &str) -> &str {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let long = text.starts_with(&triple);
    let end: &str = if long { &triple } else { quote };
    let mut at = end.len();
    while at < text.len() {
        let rest = &text[at..];
        if let Some(behind) = rest.strip_prefix(end) {
            return behind;
        }
        if !long && rest.starts_with('\n') {
            return rest;
        }
        let escaped = usize::from(rest.starts_with('\\') && rest.len() > 1);
        at += escaped;
        at += text[at..].chars().next().map_or(1, char::len_utf8);
    }
    ""
}

/// For any source: all names are valid.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    assert!(Module::read(&source).names.iter().all(|(name, _)| is_name(name)));
    // A simple binding at the end is always found, unless a string or bracket is still open.
    if !source.contains(['"', '\'', '(', '[', '{', '\\']) {
        assert!(Module::read(&format!("{source}\n\ndef last(a, b):\n  pass\n")).get("last").is_some(), "{source:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        Module::read(source).names.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn bindings_at_the_top_level_are_found() {
        let source = r#"
"""application = in a string"""
import os.path, sys as system
from x import (a as b,
               c)  # application
from . import d
if True:
    e = f = 1
else: g = {"application": 1}
h: int = 2; i, (j, k) = 1, (2, 3)
for l in range(3): pass
with open("x") as m, open("y") as n:
    o = m == n
try:
    import p
except ImportError:
    p = None
@decorated
def q(application=1):
    application = 2
class r(object):
    application = 3
async def s(scope, receive, send): ...
t \
    = lambda application: 1
if (u := 1): pass
x.application = 1
application[0] = 1
v += 1
w <= 1
"#;
        let expected = [
            "os", "system", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "p", "q", "r",
            "s", "t", "u",
        ];
        let found = names(source);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_bound_is_told() {
        let module = Module::read(
            "a = 5\nb = 'x'\nc = f()\nd = None\ndef d(): pass\ndef e(x, y=1, *, z): pass\nasync def g(): pass\n",
        );
        assert_eq!(module.get("a"), Some(Binding::Constant));
        assert_eq!(module.get("b"), Some(Binding::Constant));
        assert_eq!(module.get("c"), Some(Binding::Other));
        assert_eq!(module.get("d"), Some(Binding::Other));
        assert_eq!(module.get("e"), Some(Binding::Function { asynchronous: false, needs: 1, takes: usize::MAX }));
        assert_eq!(module.get("g"), Some(Binding::Function { asynchronous: true, needs: 0, takes: 0 }));
        assert_eq!(module.get("x"), None);
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        assert!(Module::read("from x import *\n").unclear.is_some());
        assert!(Module::read("globals()['application'] = 1\n").unclear.is_some());
        assert_eq!(names("def f():\n  global application\n  application = 1\n"), ["f", "application"]);
        assert_eq!(Module::read("def f():\n  application = 1\n").get("application"), None);
    }
}
