//! Writes the files that an engine reads. No engine reads a requirements file of anybody else.
//!
//! podstrap parses every requirements file, resolves what it includes, and writes the result: one requirement a line,
//! in the grammar that pip and uv parse alike. Options of the files become settings. What podstrap does not understand
//! is an error with its file and line. So no two parsers can disagree about a file, and both engines get the same input.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use url::Url;

use super::file::{self, ParsedLine, RequirementsFile};
use super::line::{Index, Location, Meaning, Requirement, Subject};
use super::policy;
use crate::error::{Error, IoContext, Kind, Result, check_url, refuse_bare_login};
use crate::files;
use crate::plan::remote;
use crate::redact::{self, RemoteUrl, Userinfo};
use crate::retry::Deadline;
use crate::venv::form::Form;
use crate::venv::settings::Settings;

/// Why files outside the tree are out of bounds.
const ALONE: &str = "the repository must not read other files of this container";
const SYNTAX: &str = "write each line as a name with an optional version (Flask==3.1.0), a URL or a path, or as one \
                      option of pip's requirements files";
/// Number of characters of a line in an error.
const SHOWN: usize = 200;
/// Limit of nested files.
const NESTED: usize = 32;
/// The names of the written files start with this.
const NAME: &str = "podstrap-";

/// The file and line of a requirement, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) struct At {
    file: String,
    line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)
    }
}

/// A line of a written file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    meaning: Meaning,
    at: At,
}

/// A written file, by its purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// `requirements`, `constraints`, or the variable that names its origin.
    name: String,
    lines: Vec<Line>,
}

const REQUIREMENTS: usize = 0;
const CONSTRAINTS: usize = 1;

/// All requirements files of an installation, parsed.
#[derive(Debug, Clone)]
pub(in crate::venv) struct Flat {
    parts: Vec<Part>,
    options: Vec<Line>,
    /// A requirement has a hash. pip then requires one for all.
    pub(in crate::venv) hashes: bool,
    /// The first line that requests a build.
    pub(in crate::venv) builds: Option<At>,
}

/// A requirements file on this machine or on a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Local(PathBuf),
    Remote(Url),
}

/// Reads the files of an installation.
struct Reader<'a> {
    settings: &'a Settings,
    tree: Option<&'a Path>,
    deadline: Deadline,
    flat: Flat,
    seen: HashSet<(Place, usize)>,
    /// The number of files that include the current one.
    depth: usize,
}

impl Flat {
    /// Parses the requirements and constraints files, and the files that variables of the engines name.
    ///
    /// # Errors
    /// A line is not understood, a file cannot be read, or a file of `tree` includes a file outside it.
    pub(in crate::venv) async fn read(
        requirements: &[PathBuf],
        constraints: &[PathBuf],
        settings: &Settings,
        tree: Option<&Path>,
        deadline: Deadline,
    ) -> Result<Self> {
        let part = |name: &str| Part { name: name.to_owned(), lines: Vec::new() };
        let parts = vec![part("requirements"), part("constraints")];
        let flat = Self { parts, options: Vec::new(), hashes: false, builds: None };
        let mut reader = Reader { settings, tree, deadline, flat, seen: HashSet::new(), depth: 0 };
        for (files, into) in [(requirements, REQUIREMENTS), (constraints, CONSTRAINTS)] {
            for file in files.iter().filter(|file| Form::of(file) == Form::Requirements) {
                reader.file(Place::named(file)?, into).await?;
            }
        }
        for (variable, word) in settings.files_by_name() {
            let known = reader.flat.parts.iter().position(|part| part.name == variable);
            let into = known.unwrap_or_else(|| {
                reader.flat.parts.push(part(variable));
                reader.flat.parts.len() - 1
            });
            let path = word.strip_prefix("file://").unwrap_or(word);
            let path = tree.map_or_else(|| PathBuf::from(path), |tree| tree.join(path));
            let place =
                if remote(Path::new(word)).is_some() { Place::named(Path::new(word))? } else { Place::Local(path) };
            reader.file(place, into).await?;
        }
        Ok(reader.flat)
    }

    /// Adds requirements that are not in a requirements file.
    ///
    /// # Errors
    /// One is not understood.
    pub(in crate::venv) fn add(&mut self, file: &Path, texts: &[String], settings: &Settings) -> Result<()> {
        for text in texts {
            let at = At { file: file.display().to_string(), line: 0 };
            let found = Requirement::read(text).filter(|found| found.is_plain() && found.options.is_empty());
            let Some(found) = found else { return Err(unclear(Some(&file.display()), text)) };
            let meaning = Meaning::Requirement(expanded(found.common(), settings, &at)?);
            self.parts[REQUIREMENTS].lines.push(Line { meaning, at });
        }
        Ok(())
    }

    /// Applies the options of the files to the settings.
    pub(in crate::venv) fn apply(&self, settings: &mut Settings) {
        let no_index = settings.no_index();
        let mut closed = no_index;
        for Line { meaning, at } in &self.options {
            match meaning {
                Meaning::Index(Index::None) => {
                    closed = true;
                    settings.use_no_index();
                }
                Meaning::Index(_) if closed => tracing::debug!("{at}: ignored because of --no-index"),
                Meaning::Index(Index::Instead(url)) => settings.use_index(url),
                Meaning::Index(Index::Besides(url)) => settings.add_index(url),
                Meaning::FindLinks(Location::Url(url)) if no_index => {
                    tracing::warn!("{at}: ignoring --find-links {}: --no-index forbids downloads", shown(url));
                }
                Meaning::FindLinks(location) => settings.add_links(&[location.to_text()]),
                Meaning::Option { name, value } => settings.use_option(name, value.as_deref().unwrap_or_default()),
                _ => {}
            }
        }
    }

    /// # Errors
    /// A line has no counterpart in uv.
    pub(in crate::venv) fn check_for_uv(&self) -> Result<()> {
        for Line { meaning, at } in self.options.iter().chain(self.parts.iter().flat_map(|part| &part.lines)) {
            let what = match meaning {
                Meaning::Option { name: "--prefer-binary" | "--use-feature", .. } => meaning.to_string(),
                Meaning::Editable(found) if !found.is_local() => format!("-e {}", shown(&found.to_string())),
                Meaning::Requirement(found) | Meaning::Editable(found) => {
                    let vcs = found.url().and_then(|url| url.split_once("://")).map(|(scheme, _)| scheme);
                    let vcs = vcs.filter(|scheme| scheme.contains('+') && !scheme.starts_with("git+"));
                    let own = found.options.iter().find(|(name, _)| name != "--hash").map(|(name, _)| name.as_str());
                    match own.or(vcs) {
                        Some(what) => what.to_owned(),
                        None => continue,
                    }
                }
                _ => continue,
            };
            let error = Error::environment(format!("{at}: uv has no counterpart for {what}"));
            return Err(if matches!(meaning, Meaning::Editable(_)) {
                error
                    .because("uv installs only directories as editable")
                    .hint("remove -e from this line to install it as a package, or use --engine pip")
            } else {
                error.hint("remove it, or use --engine pip, which applies it")
            });
        }
        Ok(())
    }

    pub(in crate::venv) fn requirements(&self) -> impl Iterator<Item = (&Requirement, &At)> {
        let lines = self.parts.iter().flat_map(|part| &part.lines);
        lines.filter_map(|line| match &line.meaning {
            Meaning::Requirement(found) | Meaning::Editable(found) => Some((found, &line.at)),
            _ => None,
        })
    }

    pub(in crate::venv) fn requirements_mut(&mut self) -> impl Iterator<Item = (&mut Requirement, &At)> {
        let lines = self.parts.iter_mut().flat_map(|part| &mut part.lines);
        lines.filter_map(|line| match &mut line.meaning {
            Meaning::Requirement(found) | Meaning::Editable(found) => Some((found, &line.at)),
            _ => None,
        })
    }

    /// Writes the files to `scratch`, for their owner alone. Returns the arguments for an engine. Passwords in URLs
    /// move to the settings; variables of the settings name the written files.
    pub(in crate::venv) fn write(&self, scratch: &Path, settings: &mut Settings, is_uv: bool) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for part in &self.parts {
            let path = part.path(scratch);
            let text = part.render(settings, is_uv);
            files::write_private(&path, text.as_bytes()).on_volume(|| format!("cannot write {}", path.display()))?;
            paths.push(path);
        }
        for (part, path) in self.parts.iter().zip(&paths).skip(CONSTRAINTS + 1) {
            settings.use_file(&part.name, path);
        }
        let given = [("-r", REQUIREMENTS), ("-c", CONSTRAINTS)].into_iter();
        let given = given.filter(|(_, part)| !self.parts[*part].lines.is_empty());
        Ok(given.flat_map(|(flag, part)| [flag.into(), paths[part].clone()]).collect())
    }

    /// The logins in the URLs of all lines.
    pub(in crate::venv) fn logins(&self) -> Vec<Userinfo> {
        let lines = self.options.iter().chain(self.parts.iter().flat_map(|part| &part.lines));
        lines.filter_map(|line| redact::login_in(&line.meaning.to_string())).collect()
    }

    /// Whether anything is to be installed.
    pub(in crate::venv) fn is_empty(&self) -> bool {
        self.parts[REQUIREMENTS].lines.is_empty()
    }

    /// The lines that choose wheels or sources.
    pub(in crate::venv) fn formats(&self) -> impl Iterator<Item = String> {
        let meanings = self.parts.iter().flat_map(|part| &part.lines).map(|line| &line.meaning);
        let chosen =
            |meaning: &&Meaning| matches!(meaning, Meaning::Option { name: "--no-binary" | "--only-binary", .. });
        meanings.filter(chosen).map(ToString::to_string)
    }

    /// An engine's output, with the file and line of the user in place of those of a written file.
    pub(in crate::venv) fn locate(&self, output: &str, scratch: &Path) -> String {
        let (mut out, mut rest) = (String::with_capacity(output.len()), output);
        let first = |rest: &str| {
            let place = |part: &'_ Part| Some((rest.find(&part.file())?, part.file().len()));
            self.parts.iter().filter_map(|part| Some((place(part)?, part))).min_by_key(|((found, _), _)| *found)
        };
        while let Some(((found, length), part)) = first(rest) {
            let end = found + length;
            let start = rest[..found].rfind(|c: char| c.is_whitespace() || "`'\"(".contains(c)).map_or(0, |at| at + 1);
            let (before, after) = (&rest[..start], &rest[end..]);
            let (before, after, at) = match part.position(before, after, scratch) {
                Some((before, after, line)) => (before, after, part.lines.get(line).map(|line| line.at.to_string())),
                None => (before, after, None),
            };
            out.push_str(before);
            out.push_str(&at.unwrap_or_else(|| format!("the {}", part.name)));
            rest = after;
        }
        out + rest
    }
}

impl Part {
    fn path(&self, scratch: &Path) -> PathBuf {
        scratch.join(self.file())
    }

    fn file(&self) -> String {
        format!("{NAME}{}.txt", self.name)
    }

    fn render(&self, settings: &mut Settings, is_uv: bool) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let written = match &line.meaning {
                // Only pip splits this line like a shell.
                Meaning::Editable(found) if !is_uv => match found.path().filter(|path| path.contains(' ')) {
                    Some(path) => line.meaning.to_string().replacen(path, &format!("'{path}'"), 1),
                    None => line.meaning.to_string(),
                },
                meaning => meaning.to_string(),
            };
            writeln!(text, "{}", settings.without_password(&written)).expect("a string");
        }
        text
    }

    /// The text before and after a mention of the file, and the index of the line that it means. pip prints
    /// `line 1 of FILE` and `-r FILE (line 1)`; uv `FILE` at position 0, `FILE` at line 1, and `FILE:1:7`.
    fn position<'t>(&self, before: &'t str, after: &'t str, scratch: &Path) -> Option<(&'t str, &'t str, usize)> {
        let number = |text: &'t str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            Some((text[..end].parse::<usize>().ok()?, &text[end..]))
        };
        if let Some(head) = before.strip_suffix(" of ")
            && let Some((at, digits)) = head.rsplit_once("line ").map(|(head, digits)| (head.len(), digits))
            && let Ok(line) = digits.parse::<usize>()
        {
            return Some((&before[..at], after, line.checked_sub(1)?));
        }
        let (before, after) = match (before.strip_suffix('`'), after.strip_prefix('`')) {
            (Some(before), Some(after)) => (before, after),
            _ => (before, after),
        };
        if let Some((line, after)) = after.strip_prefix(" (line ").or(after.strip_prefix(" at line ")).and_then(number)
        {
            let before = before.strip_suffix("-r ").or(before.strip_suffix("-c ")).unwrap_or(before);
            return Some((before, after.strip_prefix(')').unwrap_or(after), line.checked_sub(1)?));
        }
        if let Some((offset, after)) = after.strip_prefix(" at position ").and_then(number) {
            let text = files::read_text(&self.path(scratch), files::GENERATED).ok()?;
            return Some((before, after, text.get(..offset)?.matches('\n').count()));
        }
        let (line, after) = after.strip_prefix(':').and_then(number)?;
        let after = after.strip_prefix(':').and_then(number).map_or(after, |(_, after)| after);
        Some((before, after, line.checked_sub(1)?))
    }
}

impl Place {
    fn named(file: &Path) -> Result<Self> {
        let Some(url) = remote(file) else { return Ok(Self::Local(file.to_owned())) };
        Self::url(url)
    }

    fn url(text: &str) -> Result<Self> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        url.map(Self::Remote).ok_or_else(|| {
            Error::environment(format!("cannot read the requirements file {}", shown(text)))
                .because("it is not a URL with http:// or https://")
                .hint("give a path, or a URL of a web server")
        })
    }
}

impl Reader<'_> {
    async fn file(&mut self, place: Place, into: usize) -> Result<()> {
        self.file_of(place, into, None).await
    }

    /// `named_in` is the line that includes the file.
    async fn file_of(&mut self, place: Place, into: usize, named_in: Option<&At>) -> Result<()> {
        // A path through `x/..` would be new each time.
        let known = match &place {
            Place::Local(path) => Place::Local(files::real(path)?.unwrap_or_else(|| path.clone())),
            Place::Remote(_) => place.clone(),
        };
        if !self.seen.insert((known, into)) {
            return Ok(());
        }
        let name = self.name(&place);
        if self.depth > NESTED {
            return Err(Error::environment(format!("{name} is nested in more than {NESTED} requirements files"))
                .hint("include it from the first file"));
        }
        let (path, bytes) = match &place {
            Place::Local(path) => (path.clone(), file::contents(path).map_err(|error| unread(&name, named_in, error))?),
            Place::Remote(url) => {
                let url = url.as_str().parse::<RemoteUrl>().map_err(|error| unread(&name, named_in, error))?;
                let bytes = self.settings.fetch(url, self.deadline).await?;
                (PathBuf::from(name.clone()), bytes)
            }
        };
        let file = RequirementsFile::of(&path, Form::Requirements, &bytes, self.settings);
        if !file.is_decoded {
            return Err(Error::environment(format!("cannot read {name}"))
                .because("its coding comment names an encoding that podstrap does not read")
                .hint("save it as UTF-8, and remove the coding comment"));
        }
        let mut last = 0;
        for line in &file.lines {
            let at = At { file: name.clone(), line: line.number };
            if self.flat.builds.is_none() && policy::asks_for_builds(line) {
                self.flat.builds = Some(at.clone());
            }
            self.flat.hashes |= policy::has_hash(line);
            let first = std::mem::replace(&mut last, line.number) != line.number;
            Box::pin(self.line(&place, line, at, into, first)).await?;
        }
        Ok(())
    }

    async fn line(&mut self, place: &Place, line: &ParsedLine, at: At, into: usize, first: bool) -> Result<()> {
        let meaning = match &line.meaning {
            Meaning::Include { constraints, location } => {
                let target = self.target(place, line, location, &at)?;
                // pip installs the requirements that a constraints file includes with -r.
                let into = match (into, constraints) {
                    (REQUIREMENTS, true) => CONSTRAINTS,
                    (CONSTRAINTS, false) => REQUIREMENTS,
                    (into, _) => into,
                };
                self.depth += 1;
                self.file_of(target, into, Some(&at)).await?;
                self.depth -= 1;
                return Ok(());
            }
            Meaning::Requirement(found) if found.is_plain() => {
                let mut found = found.clone();
                found.options.retain(|(name, value)| match name.as_str() {
                    "--hash" | "--config-settings" | "--config-setting" | "-C" | "--global-option" => true,
                    // pip applies these to the whole installation.
                    "--no-binary" | "--only-binary" => {
                        let meaning = Meaning::of(&format!("{name} {value}"));
                        self.flat.parts[into].lines.push(Line { meaning, at: at.clone() });
                        false
                    }
                    _ => {
                        tracing::warn!("{at}: ignoring {name} behind a requirement, as pip does");
                        false
                    }
                });
                Meaning::Requirement(expanded(found.common(), self.settings, &at)?)
            }
            Meaning::Editable(found) if found.is_plain() => {
                Meaning::Editable(expanded(found.clone(), self.settings, &at)?)
            }
            Meaning::Option { name: "--no-binary" | "--only-binary", .. } => {
                self.flat.parts[of_options(into)].lines.push(Line { meaning: line.meaning.clone(), at });
                return Ok(());
            }
            Meaning::Option { .. } | Meaning::Index(Index::None) => {
                self.flat.options.push(Line { meaning: line.meaning.clone(), at });
                return Ok(());
            }
            Meaning::Index(Index::Instead(url)) => {
                let meaning = Meaning::Index(Index::Instead(index(url, self.settings, &at)?));
                self.flat.options.push(Line { meaning, at });
                return Ok(());
            }
            Meaning::Index(Index::Besides(url)) => {
                let meaning = Meaning::Index(Index::Besides(index(url, self.settings, &at)?));
                self.flat.options.push(Line { meaning, at });
                return Ok(());
            }
            Meaning::FindLinks(location) => {
                let location = match location {
                    Location::Url(url) => Location::Url(index(url, self.settings, &at)?),
                    Location::Path { path, .. } => {
                        let beside = match place {
                            Place::Local(file) => file.parent().map(|dir| dir.join(path)),
                            Place::Remote(_) => None,
                        };
                        let beside = match beside {
                            Some(path) if files::exists(&path)? => Some(path),
                            _ => None,
                        };
                        let in_tree = self.tree.map_or_else(|| PathBuf::from(path), |tree| tree.join(path));
                        let path = beside.unwrap_or(in_tree).display().to_string();
                        Location::Path { scheme: "", path }
                    }
                };
                self.flat.options.push(Line { meaning: Meaning::FindLinks(location), at });
                return Ok(());
            }
            _ => {
                let text = if first { &line.unexpanded } else { &line.text };
                return Err(unclear(Some(&at), text));
            }
        };
        self.flat.parts[into].lines.push(Line { meaning, at });
        Ok(())
    }

    /// The file that a line includes.
    fn target(&self, place: &Place, line: &ParsedLine, location: &Location, at: &At) -> Result<Place> {
        let outside = || {
            let what = format!("{at} includes a file outside the tree: {}", shown_line(&line.unexpanded));
            Error::environment(what).because(ALONE).hint(
                "give that file with -r or -c, or write -c ${PINS} in the repository and set PINS in the Pod (the name \
                 must contain PINS, CONSTRAINT or REQUIREMENT)",
            )
        };
        let expand = |text: &str| self.settings.expand(text);
        match (place, location) {
            (_, Location::Url(url)) => Place::url(&whole(url, self.settings, at)?),
            (Place::Local(file), Location::Path { path, .. }) => {
                let target = file.parent().unwrap_or(Path::new("/")).join(path);
                match self.tree.filter(|tree| file.starts_with(tree)) {
                    Some(tree) if !policy::may_include(line, path, &target, tree, expand)? => Err(outside()),
                    _ => Ok(Place::Local(target)),
                }
            }
            (Place::Remote(url), Location::Path { scheme: "", path }) => {
                let nowhere = Path::new("/nonexistent");
                if policy::may_include(line, path, Path::new(path), nowhere, expand)? {
                    return Ok(Place::Local(path.into()));
                }
                let target = url.join(path).map_err(|error| unclear(Some(at), &line.unexpanded).because(error))?;
                Place::url(target.as_str())
            }
            (Place::Remote(_), Location::Path { .. }) => Err(outside()),
        }
    }

    /// The name of a file in messages.
    fn name(&self, place: &Place) -> String {
        match place {
            Place::Local(path) => {
                let in_tree = self.tree.and_then(|tree| path.strip_prefix(tree).ok());
                in_tree.unwrap_or(path).display().to_string()
            }
            Place::Remote(url) => shown(url.as_str()),
        }
    }
}

/// The file for options of a file: uv does not read them in constraints.
fn of_options(into: usize) -> usize {
    if into == CONSTRAINTS { REQUIREMENTS } else { into }
}

/// The same requirement with the values of all variables in its URL.
fn expanded(mut requirement: Requirement, settings: &Settings, at: &At) -> Result<Requirement> {
    if let Subject::Url { url, .. } = &mut requirement.subject {
        *url = whole(url, settings, at)?;
    }
    Ok(requirement)
}

/// The same for the URL of an index or of --find-links.
fn index(url: &str, settings: &Settings, at: &At) -> Result<String> {
    let whole = whole(url, settings, at)?;
    check_url(Kind::Environment, &format!("{at}:"), &whole)?;
    Ok(whole)
}

/// A URL with the values of all variables, also of those with secrets.
fn whole(url: &str, settings: &Settings, at: &At) -> Result<String> {
    let whole = settings.expand_all(url);
    if whole.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::environment(format!(
            "{at}: a variable in the URL {} has white space in its value",
            shown(url)
        ))
        .hint("correct the variable: remove a line feed at its end, and write special characters as %XX"));
    }
    refuse_bare_login(Kind::Environment, &format!("{at}:"), &whole)?;
    Ok(whole)
}

fn shown(url: &str) -> String {
    brief(&redact::shown(url))
}

fn shown_line(text: &str) -> String {
    brief(&redact::shown_line(text))
}

fn brief(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A package of the command line as both engines parse it.
///
/// # Errors
/// It is not understood.
pub(in crate::venv) fn package(text: &str) -> Result<String> {
    let found = Requirement::read(text).filter(|found| found.is_plain() && found.options.is_empty());
    Ok(found.ok_or_else(|| unclear(None, text))?.common().to_string())
}

/// The error of a line, or of a package of the command line, that podstrap does not understand.
fn unclear(at: Option<&dyn fmt::Display>, text: &str) -> Error {
    let place = at.map(|at| format!("{at}: ")).unwrap_or_default();
    let error = Error::environment(format!("{place}a requirement has invalid syntax: {}", shown_line(text)));
    match Requirement::read(text).and_then(|found| found.trap()) {
        Some((why, instead)) => error.because(why).hint(instead),
        None => error.hint(SYNTAX),
    }
}

/// The error of a file that cannot be read.
fn unread(name: &str, named_in: Option<&At>, error: impl Into<Box<dyn std::error::Error>>) -> Error {
    let what = match named_in {
        Some(at) => format!("{at} includes {name}, which cannot be read"),
        None => format!("cannot read the requirements file {name}"),
    };
    Error::environment(what)
        .because(error)
        .hint("commit the file, or correct its path after -r or -c, which is relative to the including file")
}
