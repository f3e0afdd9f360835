//! A requirements file: its lines with their meanings, and all files that it includes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::line::{self, Meaning};
use super::text;
use crate::files;
use crate::venv::form::Form;
use crate::venv::settings::Settings;

/// Largest requirements or lock file, in bytes. A lock of a thousand packages has one or two megabytes.
const LARGEST: u64 = 64 << 20;

/// A file that `-r` or `-c` may name. Only a requirements file has `lines`; the others have their text.
#[derive(Debug)]
pub(in crate::venv) struct RequirementsFile {
    pub(in crate::venv) path: PathBuf,
    pub(in crate::venv) form: Form,
    /// The decoded text.
    pub(in crate::venv) written: String,
    /// The text with expanded variables.
    pub(in crate::venv) text: String,
    /// Why it could not be read. Then it has no text.
    pub(in crate::venv) unread: Option<io::Error>,
    /// Every engine decodes it to the same text.
    pub(in crate::venv) is_decoded: bool,
    pub(in crate::venv) lines: Vec<ParsedLine>,
}

/// A logical line, or one of several options in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) struct ParsedLine {
    /// The number of its first line in the file, from 1.
    pub(in crate::venv) number: usize,
    /// As pip reads it: joined, without comment, with expanded variables.
    pub(in crate::venv) text: String,
    /// The same before the expansion of variables.
    pub(super) unexpanded: String,
    pub(in crate::venv) meaning: Meaning,
}

impl RequirementsFile {
    /// Reads a file.
    fn read(path: &Path, settings: &Settings) -> Self {
        let form = Form::of(path);
        let (bytes, unread) = match contents(path) {
            Ok(bytes) => (bytes, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Self { unread, ..Self::of(path, form, &bytes, settings) }
    }

    /// Parses the contents of a file.
    pub(super) fn of(path: &Path, form: Form, bytes: &[u8], settings: &Settings) -> Self {
        let unread = None;
        let decoded = text::decode(bytes);
        let is_decoded = decoded.is_some();
        let written = decoded.unwrap_or_else(|| text::narrow(bytes));
        let text = settings.expand(&written);
        let lines = match form {
            Form::Requirements => lines(&written, |text| settings.expand(text)),
            Form::Pyproject | Form::Pylock | Form::UvLock => Vec::new(),
        };
        Self { path: path.to_owned(), form, written, text, unread, is_decoded, lines }
    }

    /// The target of a path in this file.
    pub(in crate::venv) fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }
}

/// Reads a whole file.
///
/// # Errors
/// It is not a regular file, is too large, or cannot be read.
pub(in crate::venv) fn contents(path: &Path) -> io::Result<Vec<u8>> {
    files::read(path, LARGEST)
}

/// Parses the lines of a text. `expand` replaces variables.
pub(super) fn lines(text: &str, expand: impl Fn(&str) -> String) -> Vec<ParsedLine> {
    let mut lines = Vec::new();
    for logical in text::logical_lines(text) {
        // A variable with several lines does not add lines.
        let expanded = expand(&logical.text).replace(['\n', '\r'], " ").trim().to_owned();
        let parts = line::parts(&expanded);
        for part in &parts {
            lines.push(ParsedLine {
                number: logical.number,
                text: (*part).to_owned(),
                unexpanded: logical.text.clone(),
                meaning: Meaning::of(part),
            });
        }
    }
    lines
}

/// Reads requirements files, each file once.
pub(in crate::venv) struct RequirementsReader<'a> {
    settings: &'a Settings,
    known: BTreeMap<PathBuf, Rc<RequirementsFile>>,
}

impl<'a> RequirementsReader<'a> {
    pub(in crate::venv) fn new(settings: &'a Settings) -> Self {
        Self { settings, known: BTreeMap::new() }
    }

    pub(in crate::venv) fn get(&mut self, path: &Path) -> Rc<RequirementsFile> {
        if let Some(file) = self.known.get(path) {
            return Rc::clone(file);
        }
        let file = Rc::new(RequirementsFile::read(path, self.settings));
        self.known.insert(path.to_owned(), Rc::clone(&file));
        file
    }
}

impl ParsedLine {
    /// The parts of its line before the expansion of variables.
    pub(super) fn unexpanded_parts(&self) -> Vec<String> {
        line::parts(&self.unexpanded).into_iter().map(str::to_owned).collect()
    }

    /// The line as text for another file.
    #[cfg(any(test, fuzzing))]
    pub(super) fn render(&self) -> String {
        match &self.meaning {
            // A trailing backslash would join the next line.
            Meaning::Unknown if self.text.ends_with('\\') => format!("{} #", self.text),
            Meaning::Unknown => self.text.clone(),
            meaning => meaning.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_knows_where_it_was_written() {
        let read = lines("# x\n\n-r a.txt --pre\nflask \\\n  --hash=x\n${V}", |text| text.replace("${V}", "six"));
        let found: Vec<_> = read.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(found, [(3, "-r a.txt"), (3, "--pre"), (4, "flask   --hash=x"), (6, "six")]);
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(contents(Path::new("/dev/zero")).is_err());
        assert!(contents(dir.path()).is_err());
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(contents(&fifo).is_err());
    }
}
