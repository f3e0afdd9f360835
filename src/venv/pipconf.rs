//! Reads pip's configuration files as pip does (Python's `RawConfigParser`). Their options then apply to both engines,
//! and podstrap can check them first.
//!
//! Source: <https://pip.pypa.io/en/stable/topics/configuration/>. An installation uses the sections `[global]` and
//! `[install]` of all files. `[install]` has precedence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::files::{self, WRITTEN};

/// Sections and their options.
type Ini = BTreeMap<String, BTreeMap<String, String>>;

/// The sections that `pip install` uses. Later ones have precedence.
const SECTIONS: [&str; 2] = ["global", "install"];

/// Aliases of an option, each with the name that its variable has here.
const ALIASES: &[(&str, &str)] = &[
    ("default-timeout", "timeout"),
    ("pypi-url", "index-url"),
    ("no-dependencies", "no-deps"),
    ("constraints", "constraint"),
    ("build-constraints", "build-constraint"),
];

/// The paths of the files that may exist. Later ones have precedence. `get` returns the value of a set variable.
pub(super) fn files<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Vec<PathBuf> {
    let home = get("HOME").map(Path::new);
    let own = get("PIP_CONFIG_FILE");
    // "Setting this to os.devnull disables the loading of all configuration files."
    if own == Some("/dev/null") {
        return Vec::new();
    }
    let system = get("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg").split(':').filter(|dir| !dir.is_empty());
    let mut files: Vec<PathBuf> = system.map(|dir| Path::new(dir).join("pip/pip.conf")).collect();
    files.push("/etc/pip.conf".into());
    // If the system cannot tell, reading the file fails.
    if !own.is_some_and(|own| files::exists(Path::new(own)).unwrap_or(true)) {
        files.extend(home.map(|home| home.join(".pip/pip.conf")));
        let user = get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".config")));
        files.extend(user.map(|dir| dir.join("pip/pip.conf")));
    }
    files.extend(own.map(PathBuf::from));
    files
}

/// The options in the files as variables (`PIP_INDEX_URL`), without empty ones.
///
/// # Errors
/// A file is unreadable or invalid: its path and the cause. pip also fails then, and the file may name the index.
pub(super) fn variables(files: &[PathBuf]) -> Result<BTreeMap<String, String>, (PathBuf, String)> {
    let mut merged = Ini::new();
    for file in files {
        let bytes = match files::read_if_there(file, WRITTEN) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => return Err((file.clone(), error.to_string())),
        };
        let ini = std::str::from_utf8(&bytes)
            .map_err(|error| error.to_string())
            .and_then(parse)
            .map_err(|why| (file.clone(), why))?;
        for (section, options) in ini {
            let options = options.into_iter().filter(|(_, value)| !value.is_empty());
            merged.entry(section).or_default().extend(options.map(|(name, value)| (variable(&name), value)));
        }
    }
    Ok(SECTIONS.iter().filter_map(|section| merged.remove(*section)).flatten().collect())
}

fn variable(option: &str) -> String {
    let name = option.to_lowercase().replace('_', "-");
    let name = name.strip_prefix("--").unwrap_or(&name);
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    format!("PIP_{}", name.to_uppercase().replace('-', "_"))
}

/// Parses a file and rejects the same errors as Python's `configparser`. Values keep their line breaks.
fn parse(text: &str) -> Result<Ini, String> {
    let mut ini = Ini::new();
    let mut seen = BTreeSet::new();
    let mut section: Option<String> = None;
    let mut option: Option<String> = None;
    let mut indent = 0;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let number = number + 1;
        let value = line.trim();
        if value.is_empty() || value.starts_with(['#', ';']) {
            continue;
        }
        let deep = line.len() - line.trim_start().len();
        if let (Some(section), Some(option)) = (&section, &option)
            && deep > indent
        {
            let entry = ini.entry(section.clone()).or_default().entry(option.clone()).or_default();
            if !entry.is_empty() {
                entry.push('\n');
            }
            entry.push_str(value);
            continue;
        }
        indent = deep;
        if let Some((name, _)) = value.strip_prefix('[').and_then(|rest| rest.rsplit_once(']'))
            && !name.is_empty()
        {
            if name != "DEFAULT" && !seen.insert((name.to_owned(), None)) {
                return Err(format!("line {number}: duplicate section [{name}]"));
            }
            ini.entry(name.to_owned()).or_default();
            (section, option) = (Some(name.to_owned()), None);
            continue;
        }
        let Some(section) = &section else {
            return Err(format!("line {number} is before the first section: [global] is missing"));
        };
        let Some((name, value)) = value.split_once(['=', ':']) else {
            return Err(format!("line {number} is not NAME = VALUE"));
        };
        let name = name.trim_end().to_lowercase();
        if !seen.insert((section.clone(), Some(name.clone()))) {
            return Err(format!("line {number}: duplicate option {name}"));
        }
        ini.entry(section.clone()).or_default().insert(name.clone(), value.trim().to_owned());
        option = Some(name);
    }
    // The options of [DEFAULT] apply to every section.
    if let Some(defaults) = ini.remove("DEFAULT") {
        for options in ini.values_mut() {
            let own = std::mem::take(options);
            *options = defaults.clone().into_iter().chain(own).collect();
        }
    }
    Ok(ini)
}

/// A parsed file, written again, parses to the same result. Names and values have no surrounding white space.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(ini) = parse(&String::from_utf8_lossy(data)) else { return };
    let mut again = String::new();
    for (section, options) in &ini {
        again += &format!("[{section}]\n");
        for (name, value) in options {
            assert_eq!(name.to_lowercase(), *name);
            assert!(value.trim() == value, "{value:?}");
            again += &format!("{name} = {}\n", value.replace('\n', "\n  "));
            assert!(!variable(name).contains('-'));
        }
    }
    // Skip names that would not parse again as names: empty, or starting like a section or a comment.
    let plain = ini
        .values()
        .flat_map(BTreeMap::keys)
        .all(|name| !name.is_empty() && !name.starts_with(['[', '#', ';']) && name.trim() == name);
    let lines = ini.values().flat_map(BTreeMap::values).all(|value| !value.contains("\n\n") && !value.contains('\r'));
    let names = ini.keys().all(|name| !name.contains(['\r', ']']));
    if plain && lines && names {
        assert_eq!(parse(&again).as_ref(), Ok(&ini), "{again:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_sections_count_as_pip_counts_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = [
            write(
                "a",
                "# ours\n[install]\nPRE = yes\ntimeout: 5\n[global]\nindex_url = https://a/simple # not a comment\n",
            ),
            dir.path().join("none"),
            write(
                "b",
                "[global]\n--pre = no\nindex-url=https://b/simple\nextra-index-url =\n    https://c/simple\n\n    ; why\n    https://d/simple\ncert=\n[download]\nno-index = 1\n",
            ),
        ];
        let found = variables(&files).unwrap();
        let expected = [
            ("PIP_EXTRA_INDEX_URL", "https://c/simple\nhttps://d/simple"),
            ("PIP_INDEX_URL", "https://b/simple"),
            ("PIP_PRE", "yes"),
            ("PIP_TIMEOUT", "5"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        for (text, why) in [
            ("index-url = x", "line 1 is before the first section"),
            ("[global]\nindex-url", "line 2 is not NAME = VALUE"),
            ("[global]\na=1\n[global]", "line 3: duplicate section [global]"),
            ("[global]\na=1\nA=2", "line 3: duplicate option a"),
        ] {
            let error = variables(&[write("c", text)]).unwrap_err();
            assert!(error.1.contains(why), "{error:?}");
        }
    }

    #[test]
    fn a_file_of_ones_own_takes_the_users_place() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let of = |vars: &[(&'static str, &'static str)]| {
            let vars = vars.to_vec();
            files(move |name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
        };
        assert_eq!(
            of(&[("HOME", "/h"), ("PIP_CONFIG_FILE", "/gone")]),
            ["/etc/xdg/pip/pip.conf", "/etc/pip.conf", "/h/.pip/pip.conf", "/h/.config/pip/pip.conf", "/gone"]
                .map(PathBuf::from)
        );
        assert_eq!(of(&[("HOME", "/h"), ("PIP_CONFIG_FILE", "/dev/null")]), [""; 0].map(PathBuf::from));
        std::fs::write(&own, "").unwrap();
        let text: &'static str = own.to_str().unwrap().to_owned().leak();
        let found = of(&[("HOME", "/h"), ("PIP_CONFIG_FILE", text), ("XDG_CONFIG_DIRS", "/a:/b")]);
        assert_eq!(
            found,
            [Path::new("/a/pip/pip.conf"), Path::new("/b/pip/pip.conf"), Path::new("/etc/pip.conf"), &own]
        );
    }
}
