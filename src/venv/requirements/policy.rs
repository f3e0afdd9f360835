//! Checks all readings of a line, those of pip and of uv, for forbidden effects.
//!
//! The parser reads a line as pip does. uv may read it differently, and pip may accept more than the parser knows.
//! These checks assume the most dangerous reading. A repository must not read other mounted files, and
//! --only-binary must not build.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::file::{ParsedLine, RequirementsReader};
use super::line::{Location, Meaning, parts};
use super::text::{ENDS_OF_PIP, without_comment};
use crate::error::Result;
use crate::files;

/// Why podstrap does not hand a requirements file of the tree to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) enum Refused {
    /// This line includes a file outside the tree.
    Line(String),
    /// podstrap does not know its encoding.
    Encoding,
    /// It includes files, and pip and uv end its lines differently.
    LineEnds,
}

/// Finds a requirements file of the tree that includes, or may include, a file outside the tree.
///
/// An engine prints the lines that it does not know, so such a line would reveal the file. A variable of the Pod may
/// name such a file: `-c ${PINS}`.
pub(in crate::venv) fn leads_out(
    named: &[PathBuf],
    reader: &mut RequirementsReader<'_>,
    tree: &Path,
) -> Result<Option<(PathBuf, Refused)>> {
    let real = files::real(tree)?;
    let mut left: Vec<PathBuf> = named.iter().filter(|file| file.starts_with(tree)).cloned().collect();
    let mut seen = HashSet::new();
    while let Some(path) = left.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let file = reader.get(&path);
        let refused = |why| Ok(Some((path.strip_prefix(tree).unwrap_or(&path).to_owned(), why)));
        let shown = |line: &str| refused(Refused::Line(line.to_owned()));
        if !file.is_decoded {
            return refused(Refused::Encoding);
        }
        // uv reads on where pip ends a line, so the lines below are not all that it may read.
        if file.written.contains(ENDS_OF_PIP) && inclusions(&without_ends(&file.written)) > 0 {
            return refused(Refused::LineEnds);
        }
        for line in &file.lines {
            // A variable contains an inclusion.
            if inclusions(&reader.expand(&line.unexpanded)) > inclusions(&line.unexpanded) {
                return shown(&line.unexpanded);
            }
            for reading in readings(line) {
                let Some(paths) = included(&reading) else { return shown(&reading) };
                for path in paths.iter().filter(|path| !of_the_pod(path)) {
                    let expanded = reader.expand(path);
                    // Not every engine expands every variable.
                    for path in [path, &expanded] {
                        let target = file.beside(path);
                        let within = |known: PathBuf| real.as_ref().is_some_and(|real| known.starts_with(real));
                        if !stays(&target, tree) || !files::real(&target)?.is_none_or(within) {
                            return shown(&reading);
                        }
                        left.push(target);
                    }
                    if expanded.contains("${") {
                        return shown(&reading);
                    }
                }
            }
        }
    }
    Ok(None)
}

/// Whether uv builds, or may build, a package for this line in spite of `--no-build`. An option for one package
/// overrides `--no-build`, and uv runs the build of an editable project to learn its name.
pub(in crate::venv) fn asks_for_builds(line: &ParsedLine) -> bool {
    let understood = match &line.meaning {
        Meaning::Editable(_) | Meaning::Option { name: "--no-binary", .. } => true,
        // The file at the URL may request builds.
        Meaning::Include { location, .. } => matches!(location, Location::Url(_)),
        _ => false,
    };
    let readings = readings(line).into_iter().chain([line.text.clone()]);
    understood || readings.into_iter().any(|reading| words(&as_words(&reading)).any(is_for_builds))
}

fn is_for_builds(word: &str) -> bool {
    let Some(long) = word.strip_prefix("--") else { return word.starts_with("-e") };
    let name = &long[..long.find(ends_option).unwrap_or(long.len())];
    // pip accepts abbreviated options. `--no-` alone is ambiguous.
    long.starts_with("editable") || name.starts_with("no-b")
}

/// Whether a requirement has a hash. If one has, pip requires one for all.
pub(in crate::venv) fn has_hash(line: &ParsedLine) -> bool {
    match &line.meaning {
        Meaning::Requirement(requirement) | Meaning::Editable(requirement) if requirement.rest.is_none() => {
            requirement.has_hash()
        }
        _ => !line.text.starts_with('-') && line.text.contains(" --hash"),
    }
}

/// All texts that an engine may read in this line. pip joins continued lines. uv ends a comment at the end of its
/// line, and reads a backslash and a line end as white space.
fn readings(line: &ParsedLine) -> Vec<String> {
    let mut readings = vec![line.unexpanded.clone()];
    readings.extend(parts(&line.unexpanded).into_iter().skip_while(|part| *part == line.unexpanded).map(str::to_owned));
    if line.written.len() > 1 {
        let own: Vec<&str> =
            line.written.iter().map(|line| without_comment(line).trim_end_matches('\\').trim()).collect();
        readings.push(own.join(" "));
        readings.extend(own.into_iter().map(str::to_owned));
    }
    // uv continues directly after an option that takes no value.
    let behind = |reading: &String| {
        let flags = ["--no-index", "--require-hashes"];
        let mut rest = reading.as_str();
        while let Some(next) = flags.iter().find_map(|flag| rest.strip_prefix(flag)) {
            rest = next.trim_start();
        }
        (rest.len() < reading.len()).then(|| rest.to_owned())
    };
    let more: Vec<String> = readings.iter().filter_map(behind).collect();
    readings.extend(more);
    readings
}

/// Removes the quotes and backslashes that pip's shell-like splitting removes, in a line of options.
fn as_words(line: &str) -> String {
    if line.starts_with('-') { line.replace(['"', '\'', '\\'], "") } else { line.to_owned() }
}

/// The rest of a line from each word that starts with `-`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let starts = line.match_indices('-').map(|(at, _)| at);
    starts.filter(|at| *at == 0 || line[..*at].ends_with(char::is_whitespace)).map(|at| &line[at..])
}

/// Whether a character ends the name of an option: any white space for uv, ASCII's for pip.
fn ends_option(c: char) -> bool {
    c == '=' || c.is_whitespace()
}

/// A text as one line, without the quotes and backslashes that an engine may remove.
fn without_ends(text: &str) -> String {
    text.replace(['"', '\'', '\\'], "").replace(['\n', '\r'], " ").replace(ENDS_OF_PIP, " ")
}

/// The text after `-r`, `-c` or an abbreviation of their long names.
fn inclusion(word: &str) -> Option<&str> {
    let Some(long) = word.strip_prefix("--") else {
        return word.strip_prefix("-r").or_else(|| word.strip_prefix("-c"));
    };
    let (name, rest) = long.split_at(long.find(ends_option).unwrap_or(long.len()));
    let flags = ["requirement", "constraint"];
    // uv needs no separator after the name.
    let direct = flags.iter().find_map(|flag| long.strip_prefix(flag));
    direct.or_else(|| flags.iter().any(|flag| flag.starts_with(name)).then_some(rest))
}

fn inclusions(line: &str) -> usize {
    words(&as_words(line)).filter_map(inclusion).count()
}

/// All texts that pip or uv may read as the path after `-r` or `-c`, anywhere in a line. For pip, a path ends at white
/// space; for uv, at the end of the line or at a `#`. pip also accepts abbreviated options. `None`: the line includes
/// a file in a way that this function cannot read.
fn included(line: &str) -> Option<Vec<String>> {
    if !line.starts_with('-') {
        // Options after a requirement.
        let paths: Option<Vec<_>> = words(line).filter(|word| inclusion(word).is_some()).map(included).collect();
        return paths.map(|paths| paths.concat());
    }
    // With quotes, pip may split words differently, except with quotes around one whole path.
    let bare = as_words(line);
    let mut paths = Vec::new();
    for rest in words(&bare).filter_map(inclusion) {
        // pip keeps white space that is not ASCII in the path.
        let of_pip = rest.trim_start_matches([' ', '\t', '=']);
        let rest = rest.trim_start_matches(ends_option);
        let (scheme, behind) = rest.split_once(':').unwrap_or_default();
        match scheme.to_lowercase().as_str() {
            "http" | "https" if behind.starts_with("//") => {}
            // A file URL is absolute, whatever follows.
            "file" => return None,
            _ => {
                let first = rest.split_whitespace().next().unwrap_or_default();
                let short = rest.split('#').next().unwrap_or_default().trim_end();
                paths.extend([rest, first, short, of_pip].map(str::to_owned));
            }
        }
    }
    paths.retain(|path| !path.is_empty());
    let quoted = ['"', '\''].iter().any(|quote| {
        let parts: Vec<&str> = line.split(*quote).collect();
        matches!(parts[..], [_, path, ""] if paths.first().is_some_and(|first| first == path))
    });
    (paths.is_empty() || bare == line || quoted).then_some(paths)
}

/// Whether no component of a path leaves `tree`, without following links.
fn stays(path: &Path, tree: &Path) -> bool {
    let mut depth = 0_usize;
    path.strip_prefix(tree).is_ok_and(|below| {
        below.components().all(|part| match part {
            Component::ParentDir => {
                let inside = depth > 0;
                depth = depth.saturating_sub(1);
                inside
            }
            Component::CurDir => true,
            _ => {
                depth += 1;
                true
            }
        })
    })
}

/// Whether a path is one variable whose name is for versions. Other variables may name secrets.
fn of_the_pod(path: &str) -> bool {
    let name = path.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && ["PINS", "CONSTRAINT", "REQUIREMENT"].iter().any(|word| name.contains(word))
    })
}

/// The policy sees every inclusion and every editable project that the parser finds.
#[cfg(any(test, fuzzing))]
pub(super) fn holds(line: &ParsedLine) {
    let found: Vec<Option<Vec<String>>> = readings(line).iter().map(|reading| included(reading)).collect();
    if let Meaning::Include { location, .. } = &line.meaning {
        let path = location.path().filter(|path| !path.is_empty());
        let seen = |path: &str| found.iter().flatten().flatten().any(|known| known.ends_with(path));
        assert!(found.contains(&None) || path.is_none_or(seen), "{line:?}");
    }
    if matches!(line.meaning, Meaning::Editable(_)) {
        assert!(asks_for_builds(line));
    }
    assert!(readings(line).contains(&line.unexpanded), "{line:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venv::settings::Settings;
    use std::fs;

    #[test]
    fn a_repository_leads_to_no_file_outside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("r")).unwrap();
        fs::write(dir.path().join("secret"), "s3cret").unwrap();
        fs::write(tree.join("r/more.txt"), "a").unwrap();
        std::os::unix::fs::symlink("../secret", tree.join("link.txt")).unwrap();
        let secret = dir.path().join("secret").display().to_string();
        let vars = [
            ("PINS", secret.as_str()),
            ("NETRC", &secret),
            ("MY_TOKEN", &secret),
            ("DIR", dir.path().to_str().unwrap()),
            ("MORE", "-r x"),
        ];
        let settings = Settings::from_env(vars.map(|(name, value)| (name.into(), value.into())));
        let out = |text: &dyn AsRef<[u8]>| {
            let file = tree.join("requirements.txt");
            fs::write(&file, text).unwrap();
            leads_out(&[file], &mut RequirementsReader::new(&settings), &tree).unwrap().is_some()
        };
        for text in [
            "-r r/more.txt",
            "-c ./r/../r/more.txt",
            "-r gone.txt",
            "-c ${PINS}",
            "-r https://host/x.txt",
            "a==1",
            "-e ./r",
            "\"-r\" x",
            "-r 'r/more.txt'",
            "# Encoding: latin_1\n# on encoding\na",
            "a==1 \\\n  --hash=sha256:ab \\\n  --hash=sha256:cd # -r /etc/passwd",
            "--no-index --find-links ./r",
            "a\u{c}\nb\u{2028}c",
        ] {
            assert!(!out(&text), "{text}");
        }
        for text in [
            format!("-r {secret}"),
            format!("-c{secret}"),
            format!("--requi={secret}"),
            format!("--constraint \"{secret}\""),
            format!("-r file://{secret}"),
            format!("-r FILE://localhost{secret}"),
            format!("a\n--pre -r \\\n{secret}"),
            "-r ../secret".into(),
            "-r r/../../secret".into(),
            "-r link.txt".into(),
            "-r ${NETRC}".into(),
            "-r ${MY_TOKEN}".into(),
            "-r ${DIR}/secret".into(),
            "-r ../secret-that-is-not-there".into(),
            format!("# why \\\n-r {secret}"),
            format!("\u{feff}-r {secret}"),
            format!("a\u{c}-r {secret}"),
            format!("a\r-r {secret}"),
            format!("\\-r {secret} \\\n"),
            format!("-r r/more.txt -c {secret}"),
            "-r x y/../../secret".into(),
            "-r \"x -y/../../secret\" --x=/../tree/q".into(),
            "-r \"link.txt\" --pre".into(),
            "-r ${GOOGLE_APPLICATION_CREDENTIALS}".into(),
            "-r odd${NOT_SET}.txt".into(),
            "# coding: utf-7 or utf-8\n+AC0-r +AC8-secret".into(),
            // Only uv reads these as inclusions.
            format!("six --hash=sha256:00 -r {secret}"),
            format!("six #x\\\n-r {secret}"),
            format!("six --config-settings a=b -c {secret}"),
            format!("--requirement\\\n{secret}"),
            format!("--no-index-r {secret}"),
            format!("--require-hashes--no-index--constraint {secret}"),
            "-r link.txt#x".into(),
            "-r http:x/../../secret".into(),
            "--pre ${MORE}".into(),
            format!("--requirement\u{a0}{secret}"),
            format!("six --hash=sha256:00 --constraint\u{2003}{secret}"),
            format!("-r\u{2028}{secret}"),
            format!("-r\u{c}{secret}"),
            format!("--requirement\u{b}{secret}"),
            format!("-c \u{85} {secret}"),
            format!("-r\u{c}\\\n{secret}"),
            format!("six\u{1c}--no-index-r {secret}"),
            format!("--constraint{secret}"),
        ] {
            assert!(out(&text), "{text}");
        }
        let wide: Vec<u8> = format!("\u{feff}-r {secret}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(out(&wide));
    }

    #[test]
    fn what_asks_for_builds_is_seen() {
        for (text, asks) in [
            ("-e ./x", true),
            ("--editable=x", true),
            ("--editable./x", true),
            ("--no-binary :all:", true),
            ("--no-bin=x", true),
            ("-r https://h/x.txt", true),
            ("-c http://h/x.txt", true),
            ("six --hash=sha256:ab -e ./x", true),
            ("six #\\\n-e ./x", true),
            ("--no-index-e ./x", true),
            ("-r x.txt", false),
            ("-r file:///x.txt", false),
            ("--only-binary :all:", false),
            ("--extra-index-url https://h/e", false),
            ("six-extra", false),
            ("--no-index", false),
            ("https://h/x-1.0.tar.gz", false),
        ] {
            assert_eq!(super::super::file::lines(text, str::to_owned).iter().any(asks_for_builds), asks, "{text}");
        }
    }

    #[test]
    fn a_hash_is_a_requirements_own() {
        for (text, has) in [
            ("a==1 --hash=sha256:ab", true),
            ("a==1 \\\n --hash sha256:ab", true),
            ("a==1 --odd --hash=sha256:ab", true),
            ("-r x --hash=y", false),
            ("a==1 # --hash=x", false),
        ] {
            assert_eq!(super::super::file::lines(text, str::to_owned).iter().any(has_hash), has, "{text}");
        }
    }
}
