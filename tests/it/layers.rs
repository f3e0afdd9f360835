//! Checks the layers of docs/architecture.md against the `use` lines of the sources: no file imports from a
//! higher layer, and no files import each other, directly or in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// By path of a file in `src`: the files that it imports from.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The sources: module path (`venv::builder`) → file, and the names that a `mod.rs` re-exports.
pub(super) struct Sources {
    files: BTreeMap<String, String>,
    pub(super) texts: BTreeMap<String, String>,
    passed_on: BTreeMap<String, String>,
}

fn source_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The code that is compiled into the binary: no comments, strings, tests or fuzzing.
fn code(text: &str) -> String {
    let text = Regex::new(r#"(?m)//.*$|"(?:[^"\\]|\\.|\\\n)*""#).unwrap().replace_all(text, "");
    let apart = r"(?ms)^#\[cfg\((?:test|fuzzing)\)\]\n(?:[^\n{]*(?:\{[^\n}]*\})?;$|.*?^\})";
    let apart = Regex::new(apart).unwrap();
    apart.replace_all(&text, "").into_owned()
}

/// Expands `a::{b, c::{d, self}}` to `a::b`, `a::c::d`, `a::c`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        return if path.is_empty() { Vec::new() } else { vec![path.trim_end_matches("::self").to_owned()] };
    };
    let inner = &rest[..rest.rfind('}').unwrap()];
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts.iter().flat_map(|part| paths(&format!("{prefix}{}", part.trim()))).collect()
}

impl Sources {
    pub(super) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        source_files(&root, &mut found);
        let (mut files, mut texts) = (BTreeMap::new(), BTreeMap::new());
        for path in found {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let module = name.trim_end_matches(".rs").replace('/', "::");
            let module = module.trim_end_matches("::mod").trim_start_matches("lib").to_owned();
            texts.insert(name.clone(), code(&fs::read_to_string(&path).unwrap()));
            files.insert(module, name);
        }
        let mut sources = Self { files, texts, passed_on: BTreeMap::new() };
        let passing = Regex::new(r"(?s)pub(?:\([a-z:]+\))? use (.*?);").unwrap();
        for (module, file) in sources.files.clone() {
            for found in passing.captures_iter(&sources.texts[&file]) {
                for path in paths(&found[1]) {
                    let from = sources.absolute(&module, &path);
                    let name = path.rsplit("::").next().unwrap();
                    sources.passed_on.insert(join(&module, name), from);
                }
            }
        }
        sources
    }

    /// Converts a path in a module to one from the crate's root.
    fn absolute(&self, module: &str, path: &str) -> String {
        let (mut at, mut path) = (module.to_owned(), path);
        if let Some(rest) = path.strip_prefix("crate::").or_else(|| path.strip_prefix("podstrap::")) {
            return rest.to_owned();
        }
        if let Some(rest) = path.strip_prefix("self::") {
            return join(&at, rest);
        }
        let mut up = false;
        while let Some(rest) = path.strip_prefix("super::") {
            at = at.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned();
            path = rest;
            up = true;
        }
        let first = path.split("::").next().unwrap();
        if up || self.files.contains_key(&join(&at, first)) { join(&at, path) } else { format!("::{path}") }
    }

    /// The file that defines the item of a path.
    fn file(&self, path: &str) -> Option<&String> {
        let mut path = path.to_owned();
        for _ in 0..8 {
            let passed = self.passed_on.iter().find(|(name, _)| {
                path == **name || path.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with("::"))
            });
            let Some((name, from)) = passed else { break };
            path = format!("{from}{}", &path[name.len()..]);
        }
        if path.starts_with("::") {
            return None;
        }
        let mut module = path.as_str();
        loop {
            if let Some(file) = self.files.get(module) {
                return Some(file);
            }
            module = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        }
    }

    fn imports(&self) -> Imports {
        let uses = Regex::new(r"(?sm)^\s*(pub(?:\([a-z:]+\))? )?use (.*?);").unwrap();
        let inline = Regex::new(r"\b(?:crate|podstrap|super|self)(?:::[A-Za-z_0-9]+)+").unwrap();
        let mut imports = Imports::new();
        for (module, file) in &self.files {
            let text = &self.texts[file];
            let rest = uses.replace_all(text, "").into_owned();
            let mut named: Vec<String> = Vec::new();
            for found in uses.captures_iter(text).filter(|found| found.get(1).is_none()) {
                named.extend(paths(&found[2]));
            }
            named.extend(inline.find_iter(&rest).map(|found| found.as_str().to_owned()));
            // A module's own children need no `use`.
            for child in self.files.keys().filter(|child| child.rsplit_once("::").map_or("", |(at, _)| at) == module) {
                let name = child.rsplit("::").next().unwrap();
                let before = |at: usize| rest[..at].chars().next_back().unwrap_or(' ');
                let call = format!("{name}::");
                let mut calls = rest.match_indices(&call).map(|(at, _)| before(at));
                if !name.is_empty() && calls.any(|c| c != ':' && c != '_' && !c.is_alphanumeric()) {
                    named.push(format!("self::{name}"));
                }
            }
            let files = named.iter().filter_map(|path| self.file(&self.absolute(module, path)));
            imports.insert(file.clone(), files.filter(|other| *other != file).cloned().collect());
        }
        imports
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// The layer of each top-level module, from the table in docs/architecture.md; 1 is the lowest.
fn layers() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let table = text.split("<!-- layers").nth(1).unwrap().split("<!-- /layers").next().unwrap();
    let name = Regex::new("`([a-z_]+)`").unwrap();
    let mut layers = BTreeMap::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| ")) {
        let mut cells = row.split(" | ");
        let Ok(number) = cells.next().unwrap().parse() else { continue };
        for module in name.captures_iter(cells.next().unwrap()) {
            assert_eq!(layers.insert(module[1].to_owned(), number), None, "{} is in two layers", &module[1]);
        }
    }
    layers
}

fn top(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn no_file_imports_from_a_higher_layer() {
    let (imports, layers) = (Sources::read().imports(), layers());
    let modules: BTreeSet<_> = imports.keys().map(|file| top(file).to_owned()).collect();
    assert_eq!(modules, layers.keys().cloned().collect(), "every top-level module is in one layer");
    for (file, others) in &imports {
        for other in others.iter().filter(|other| top(other) != top(file)) {
            let (own, its) = (layers[top(file)], layers[top(other)]);
            assert!(its < own, "{file} (layer {own}) imports from {other} (layer {its})");
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut left = Sources::read().imports();
    // A file that imports none of the remaining files is in no circle.
    while let Some(free) = left
        .iter()
        .find(|(_, others)| !others.iter().any(|other| left.contains_key(other)))
        .map(|(file, _)| file.clone())
    {
        left.remove(&free);
    }
    // A file that none of the remaining files imports is in no circle.
    while let Some(free) = left.keys().find(|file| !left.values().any(|others| others.contains(*file))).cloned() {
        left.remove(&free);
    }
    let among = |others: &BTreeSet<String>| {
        others.iter().filter(|other| left.contains_key(*other)).cloned().collect::<Vec<_>>().join(", ")
    };
    let circle: Vec<_> = left.iter().map(|(file, others)| format!("{file}: {}", among(others))).collect();
    assert!(circle.is_empty(), "files import each other in a circle:\n{}", circle.join("\n"));
}

#[test]
fn the_reader_of_use_lines_sees_every_form() {
    assert_eq!(paths("a::{b, c::{d, self}, e as f}"), ["a::b", "a::c::d", "a::c", "a::e"]);
    assert_eq!(code("a \"use b;\" // use c;\n#[cfg(test)]\nmod tests {\n    use d;\n}\nuse e;"), "a  \n\nuse e;");
    let sources = Sources::read();
    // Re-exported by two files, defined in a third.
    assert_eq!(sources.file("plan::Ssh").unwrap(), "plan/ssh.rs");
    assert_eq!(sources.file("error::Error").unwrap(), "error.rs");
    let imports = sources.imports();
    assert!(imports["main.rs"].contains("cli.rs") && imports["main.rs"].contains("lib.rs"), "{:?}", imports["main.rs"]);
    assert!(imports["prepare.rs"].contains("volume/release.rs"), "{:?}", imports["prepare.rs"]);
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 200);
}
