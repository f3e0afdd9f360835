//! Parses one line into its one meaning, and writes a meaning as a line.
//!
//! Sources: pip's "Requirements File Format" and its `req_file.py`; PEP 508 for requirements.

use std::fmt;

/// The meaning of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) enum Meaning {
    Requirement(Requirement),
    /// Another requirements file, or a constraints file.
    Include {
        constraints: bool,
        location: Location,
    },
    /// An editable project: the app imports it from its own directory or clone.
    Editable(Requirement),
    /// A directory, an archive or a page with links to archives.
    FindLinks(Location),
    Index(Index),
    /// Another option of the whole installation.
    Option {
        name: &'static str,
        value: Option<String>,
    },
    /// The parser does not know this line.
    Unknown,
}

/// A line about package indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) enum Index {
    /// `--index-url`: replaces the default index.
    Instead(String),
    /// `--extra-index-url`
    Besides(String),
    /// `--no-index`
    None,
}

/// The path or the URL of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) enum Location {
    Url(String),
    Path {
        /// The written prefix: `file:`, `file://` or nothing.
        scheme: &'static str,
        path: String,
    },
}

/// A requirement with its marker and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) struct Requirement {
    pub(in crate::venv) subject: Subject,
    /// The marker after `;`.
    pub(in crate::venv) marker: Option<String>,
    /// The options behind it and their values, as written: `--hash` and `sha256:ab`. A switch has an empty value.
    pub(in crate::venv) options: Vec<(String, String)>,
    /// The rest of the line, which the parser does not know.
    pub(in crate::venv) rest: Option<String>,
}

/// The source of a requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::venv) enum Subject {
    /// From an index or a --find-links location.
    Name { name: String, extras: Vec<String>, versions: String },
    /// `name @ https://…`, `git+https://…`
    Url { name: Option<String>, url: String },
    /// `./lib[dev]`, `x @ file:///w/x.whl#sha256=ab`
    Path { name: Option<String>, scheme: &'static str, path: String, extras: Option<String>, fragment: Option<String> },
}

/// Options of the whole installation, for [`Meaning::Option`].
/// <https://pip.pypa.io/en/stable/reference/requirements-file-format/#supported-options>
const OPTIONS: &[&str] = &[
    "--pre",
    "--prefer-binary",
    "--no-binary",
    "--only-binary",
    "--trusted-host",
    "--require-hashes",
    "--use-feature",
];

/// Options without a value.
const SWITCHES: &[&str] = &["--pre", "--prefer-binary", "--require-hashes"];

/// Options that belong to one requirement.
const OWN: &[&str] = &["--hash", "--config-settings", "--config-setting", "-C", "--global-option"];

/// File extensions that pip takes for archives.
const ARCHIVES: &[&str] =
    &[".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.lz", ".tlz", ".tar.lzma"];

/// The trap of `NAME @ TARGET` with another target.
const NO_TARGET: (&str, &str) = (
    "pip requires a URL with an absolute path after `NAME @`",
    "write the path alone (./lib), or a URL (NAME @ file:///srv/lib)",
);

impl Meaning {
    /// Parses one of the [`parts`] of a line. `Unknown` if the meaning, written as a line, would not parse to itself.
    pub(super) fn of(text: &str) -> Self {
        let meaning = Self::read(text);
        let written = meaning.to_string();
        let same = meaning != Self::Unknown
            && parts(&written) == [written.as_str()]
            && super::text::without_comment(&written).trim() == written
            && !written.ends_with('\\')
            && !written.contains(['\n', '\r'])
            && Self::read(&written) == meaning;
        if same { meaning } else { Self::Unknown }
    }

    fn read(text: &str) -> Self {
        if !text.starts_with('-') {
            return Requirement::read(text).map_or(Self::Unknown, Self::Requirement);
        }
        for (flags, constraints) in [(["-r", "--requirement"], false), (["-c", "--constraint"], true)] {
            if let Some(location) = value(text, &flags) {
                let location = plain(location).map(Location::read);
                return location.map_or(Self::Unknown, |location| Self::Include { constraints, location });
            }
        }
        if let Some(project) = value(text, &["-e", "--editable"]) {
            return plain(project).and_then(Requirement::editable).map_or(Self::Unknown, Self::Editable);
        }
        if let Some(location) = value(text, &["-f", "--find-links"]) {
            return plain(location).map_or(Self::Unknown, |location| Self::FindLinks(Location::read(location)));
        }
        if let Some(url) = value(text, &["-i", "--index-url"]) {
            return plain(url).map_or(Self::Unknown, |url| Self::Index(Index::Instead(url.to_owned())));
        }
        let (name, rest) = text.split_at(text.find([' ', '\t', '=']).unwrap_or(text.len()));
        let rest = bare(rest.trim_start_matches([' ', '\t', '=']));
        match (name, rest) {
            ("--no-index", Some("")) => Self::Index(Index::None),
            ("--extra-index-url", Some(url)) if !url.is_empty() => Self::Index(Index::Besides(url.to_owned())),
            (_, Some(value)) => match OPTIONS.iter().find(|known| **known == name) {
                Some(name) if value.is_empty() == SWITCHES.contains(name) => {
                    Self::Option { name, value: Some(value.to_owned()).filter(|value| !value.is_empty()) }
                }
                _ => Self::Unknown,
            },
            (_, None) => Self::Unknown,
        }
    }
}

/// The value of an option with one of these names, if the text is such an option.
fn value<'a>(text: &'a str, flags: &[&str]) -> Option<&'a str> {
    flags.iter().filter_map(|flag| text.strip_prefix(flag)).find_map(|rest| {
        // `-rfile` is -r, but `--requirement-file` is not --requirement.
        let long = text.starts_with("--") && rest.starts_with(|c: char| c.is_alphanumeric() || c == '-');
        let value = rest.trim_start_matches([' ', '\t', '=']);
        (!long && !value.is_empty()).then_some(value)
    })
}

/// A value that both engines read the same way.
fn plain(value: &str) -> Option<&str> {
    bare(value).filter(|value| !value.is_empty() && !value.starts_with('-'))
}

/// Removes the quotes around the whole value. `None`: it has other quotes or a backslash.
fn bare(value: &str) -> Option<&str> {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let value = inner.unwrap_or(value);
    (!value.contains(['"', '\'', '\\'])).then_some(value)
}

/// Adds quotes if pip would otherwise end the value at white space.
fn quoted(value: &str) -> String {
    if value.contains(char::is_whitespace) { format!("'{value}'") } else { value.to_owned() }
}

/// Splits a line into its options. The own options of a requirement, also of an editable one, stay with it.
pub(super) fn parts(line: &str) -> Vec<&str> {
    if !line.starts_with('-') {
        return vec![line];
    }
    // The options of an editable requirement end at the first other option.
    let mut editable = value(line, &["-e", "--editable"]).and_then(plain).is_some();
    let own = |rest: &str| OWN.iter().any(|flag| is_flag(rest, flag));
    let starts = line.match_indices(" -").map(|(at, _)| at + 1).filter(|at| {
        editable = editable && own(&line[*at..]);
        !editable
    });
    let starts: Vec<usize> = std::iter::once(0).chain(starts).collect();
    let ends = starts.iter().skip(1).copied().chain([line.len()]);
    starts.iter().zip(ends).map(|(start, end)| line[*start..end].trim()).collect()
}

fn is_flag(text: &str, flag: &str) -> bool {
    text.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with(['=', ' ', '\t']))
}

impl Location {
    fn read(text: &str) -> Self {
        match file_url(text) {
            ("", path) if path.contains("://") => Self::Url(path.to_owned()),
            (scheme, path) => Self::Path { scheme, path: path.to_owned() },
        }
    }

    /// Without quotes and prefix.
    pub(super) fn to_text(&self) -> String {
        let (Self::Url(text) | Self::Path { path: text, .. }) = self;
        text.clone()
    }

    /// The local path.
    pub(in crate::venv) fn path(&self) -> Option<&str> {
        match self {
            Self::Url(_) => None,
            Self::Path { path, .. } => Some(path),
        }
    }
}

/// Splits a text into the `file:` prefix and the path.
fn file_url(text: &str) -> (&'static str, &str) {
    let found = ["file://", "file:"].iter().find_map(|scheme| Some((*scheme, text.strip_prefix(scheme)?)));
    found.unwrap_or(("", text))
}

impl Requirement {
    /// Parses a requirement from a file or the command line.
    pub(in crate::venv) fn read(text: &str) -> Option<Self> {
        let (head, options) = text.split_at(options_start(text).unwrap_or(text.len()));
        let (options, rest) = own_options(options.trim());
        let (head, marker) = split_marker(head.trim());
        let subject = Subject::read(head)?;
        let rest = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
        Some(Self { subject, marker: marker.map(str::to_owned), options, rest })
    }

    /// Parses an editable requirement. A plain name is a directory here.
    fn editable(text: &str) -> Option<Self> {
        let found = Self::read(text)?;
        let Subject::Name { name, extras, versions } = &found.subject else { return Some(found) };
        let extras = (!extras.is_empty()).then(|| extras.join(","));
        let path = format!("{name}{versions}");
        Some(Self { subject: Subject::Path { name: None, scheme: "", path, extras, fragment: None }, ..found })
    }

    /// The local path, without extras.
    pub(in crate::venv) fn path(&self) -> Option<&str> {
        match &self.subject {
            Subject::Path { path, .. } => Some(path),
            Subject::Name { .. } | Subject::Url { .. } => None,
        }
    }

    pub(in crate::venv) fn url(&self) -> Option<&str> {
        match &self.subject {
            Subject::Url { url, .. } => Some(url),
            Subject::Name { .. } | Subject::Path { .. } => None,
        }
    }

    pub(in crate::venv) fn set_url(&mut self, new: String) {
        if let Subject::Url { url, .. } = &mut self.subject {
            *url = new;
        }
    }

    /// Whether it is a directory or file on this machine. `git+user@host:path` is a repository.
    pub(super) fn is_local(&self) -> bool {
        self.path().is_some_and(|path| !path.starts_with("git+"))
    }

    /// Whether it is a path relative to the working directory.
    pub(in crate::venv) fn is_relative(&self) -> bool {
        self.path().is_some_and(|path| !path.starts_with('/'))
    }

    pub(in crate::venv) fn has_hash(&self) -> bool {
        self.options.iter().any(|(name, _)| name == "--hash")
    }

    /// Whether both engines parse every part of it as this parser does: no rest, no control character, and the
    /// grammar of PEP 508 for names and versions.
    pub(super) fn is_plain(&self) -> bool {
        let odd = |text: &str| text.chars().any(|c| c.is_control() || c == '\\' || c == '\u{2028}' || c == '\u{2029}');
        let subject = match &self.subject {
            Subject::Name { versions, .. } => is_versions(versions),
            Subject::Url { name, url } => is_named(name.as_deref()) && !url.contains(char::is_whitespace),
            Subject::Path { name, path, extras: found, .. } => {
                is_named(name.as_deref())
                    && !path.contains('#')
                    && found.as_deref().is_none_or(|found| extras(found).is_some())
            }
        };
        subject
            && self.trap().is_none()
            && self.rest.is_none()
            && !odd(&self.to_string())
            && self.marker.as_deref().is_none_or(is_marker)
    }

    /// Why pip and uv read this form differently, and the form to write instead.
    pub(super) fn trap(&self) -> Option<(&'static str, &'static str)> {
        let written = self.subject.to_string();
        match &self.subject {
            // pip requests this URL with its marker.
            Subject::Url { name: None, .. } | Subject::Path { name: None, scheme: "file:" | "file://", .. } => {
                written.match_indices(';').any(|(at, _)| is_marker(&written[at + 1..])).then_some((
                    "a `;` without white space beside it is a part of the URL",
                    "write a space before the `;`",
                ))
            }
            Subject::Path { name: Some(_), scheme, path, .. } if scheme.is_empty() || !path.starts_with('/') => {
                Some(NO_TARGET)
            }
            Subject::Name { versions, .. } if versions.starts_with('@') => Some(NO_TARGET),
            _ => None,
        }
    }

    /// The same requirement as both engines parse it:
    /// - `>=1,` becomes `>=1`.
    /// - pip's `URL#egg=NAME&subdirectory=DIR` becomes `NAME @ URL#subdirectory=DIR`.
    /// - A URL of this machine after `NAME @` gets the form that pip before 24.1 accepts: `file:///srv/x`, and with a
    ///   host `git+file://localhost/srv/x.git`.
    #[must_use]
    pub(super) fn common(mut self) -> Self {
        match &mut self.subject {
            Subject::Name { versions, .. } if versions.ends_with(',') => {
                versions.truncate(versions.trim_end_matches([',', ' ']).len());
            }
            Subject::Path { name: Some(_), scheme, .. } if *scheme == "file:" => *scheme = "file://",
            Subject::Url { name, url } => {
                if let Some((egg, rest)) = without_egg(url) {
                    name.get_or_insert(egg);
                    *url = rest;
                }
                if name.is_some() {
                    *url = url.replacen("+file:///", "+file://localhost/", 1);
                }
            }
            _ => {}
        }
        self
    }
}

/// Takes the name of `egg=NAME` out of the fragment of a URL.
fn without_egg(url: &str) -> Option<(String, String)> {
    let (place, fragment) = url.split_once('#')?;
    let (eggs, rest): (Vec<&str>, Vec<&str>) = fragment.split('&').partition(|part| part.starts_with("egg="));
    let egg = eggs.first()?.strip_prefix("egg=").filter(|egg| is_named(Some(egg)))?;
    let url = if rest.is_empty() { place.to_owned() } else { format!("{place}#{}", rest.join("&")) };
    Some((without_empty_extras(egg).to_owned(), url))
}

/// `name`, `name[extra,extra]`, or nothing.
fn is_named(text: Option<&str>) -> bool {
    let Some(text) = text else { return true };
    let rest = &text[name_of(text).len()..];
    let inside = rest.trim_start().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && (rest.is_empty() || inside.and_then(extras).is_some())
}

/// The names between the brackets of `[extra, extra]`. `None`: it is no list of names. `[]` is an empty one.
fn extras(inside: &str) -> Option<Vec<&str>> {
    if inside.trim().is_empty() {
        return Some(Vec::new());
    }
    let is_name = |extra: &&str| !extra.is_empty() && name_of(extra).len() == extra.len();
    let names: Vec<&str> = inside.split(',').map(str::trim).collect();
    names.iter().all(is_name).then_some(names)
}

/// A list of versions as in PEP 440: `>=1,<2`, `(==1.*)`, `===any`.
fn is_versions(text: &str) -> bool {
    let text = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(text);
    text.split(',').map(str::trim).all(|one| {
        let version = one.trim_start_matches(['<', '>', '=', '~', '!']);
        let operator = &one[..one.len() - version.len()];
        let version = version.trim_start();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._*+!-".contains(c);
        match operator {
            "===" => !version.is_empty() && version.chars().all(|c| c.is_ascii_graphic() && !";)#\"'".contains(c)),
            "==" | "!=" | ">=" | "<=" | "~=" | ">" | "<" => !version.is_empty() && version.chars().all(plain),
            _ => one.is_empty(),
        }
    })
}

/// The names in markers ("Dependency specifiers" of the packaging standards), and their older forms.
const MARKERS: &[&str] = &[
    "python_version",
    "python_full_version",
    "os_name",
    "sys_platform",
    "platform_release",
    "platform_system",
    "platform_version",
    "platform_machine",
    "platform_python_implementation",
    "implementation_name",
    "implementation_version",
    "extra",
    "os.name",
    "sys.platform",
    "platform.version",
    "platform.machine",
    "platform.python_implementation",
    "python_implementation",
];

/// Whether a text is a marker: comparisons with `and`, `or` and parentheses.
fn is_marker(text: &str) -> bool {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '\'' => rest[1..].find(first).map(|end| end + 2),
            '(' | ')' => Some(1),
            '<' | '>' | '=' | '!' | '~' => rest.find(|c: char| !"<>=!~".contains(c)),
            _ => rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).or(Some(rest.len())),
        };
        let Some(end) = end.filter(|end| *end > 0) else { return false };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    let value = |word: &&str| word.starts_with(['"', '\'']) || MARKERS.contains(word);
    let operator = |word: &&str| ["<=", "<", "!=", "==", ">=", ">", "~=", "===", "in"].contains(word);
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        while words.get(at) == Some(&"(") {
            (depth, at) = (depth + 1, at + 1);
        }
        let negated = usize::from(words.get(at + 1) == Some(&"not") && words.get(at + 2) == Some(&"in"));
        let compared = words.get(at).is_some_and(value)
            && words.get(at + 1 + negated).is_some_and(operator)
            && words.get(at + 2 + negated).is_some_and(value);
        if !compared {
            return false;
        }
        at += 3 + negated;
        while words.get(at) == Some(&")") {
            let Some(less) = depth.checked_sub(1) else { return false };
            (depth, at) = (less, at + 1);
        }
        match words.get(at) {
            None => return depth == 0,
            Some(&"and" | &"or") => at += 1,
            Some(_) => return false,
        }
    }
}

/// The offset of a requirement's own options.
fn options_start(text: &str) -> Option<usize> {
    text.match_indices('-').map(|(at, _)| at).find(|at| *at > 0 && text[..*at].ends_with([' ', '\t']))
}

/// The known options, and the text from the first unknown one on.
fn own_options(text: &str) -> (Vec<(String, String)>, &str) {
    let mut options = Vec::new();
    let mut rest = text;
    while let Some(flag) = OWN.iter().chain(OPTIONS).find(|flag| is_flag(rest, flag)) {
        let after = &rest[flag.len()..];
        if SWITCHES.contains(flag) {
            if after.starts_with('=') {
                break;
            }
            options.push(((*flag).to_owned(), String::new()));
            rest = after.trim_start();
            continue;
        }
        let after = after.strip_prefix('=').unwrap_or_else(|| after.trim_start_matches([' ', '\t']));
        let (value, next) = after.split_at(after.find([' ', '\t']).unwrap_or(after.len()));
        if value.is_empty() || value.contains(['"', '\'', '\\']) {
            break;
        }
        options.push(((*flag).to_owned(), value.to_owned()));
        rest = next.trim_start();
    }
    (options, rest)
}

/// Splits at the `;` before the marker: at the first one, but in a URL without `NAME @` only at one with white space
/// beside it. Source: pip's `parse_req_from_line`.
fn split_marker(text: &str) -> (&str, Option<&str>) {
    let url = target(text).len() == text.len() && is_url(text);
    let mut marks = text.match_indices(';').map(|(at, _)| at);
    let beside =
        |at: usize| text[..at].ends_with(char::is_whitespace) || text[at + 1..].starts_with(char::is_whitespace);
    match marks.find(|at| !url || beside(*at)) {
        Some(at) => (text[..at].trim_end(), Some(text[at + 1..].trim()).filter(|marker| !marker.is_empty())),
        None => (text, None),
    }
}

fn is_url(text: &str) -> bool {
    let scheme = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    text.starts_with("file:") || text.split_once("://").is_some_and(|(before, _)| scheme(before))
}

/// The target in `name[extras] @ target`. A path may also contain an `@`.
fn target(requirement: &str) -> &str {
    let name =
        |text: &str| text.chars().all(|c| c.is_alphanumeric() || " \t-_.,[]".contains(c)) && !text.starts_with('.');
    match requirement.split_once('@') {
        Some((before, target)) if name(before) => target.trim(),
        _ => requirement,
    }
}

impl Subject {
    /// Parses a requirement without marker and options.
    fn read(text: &str) -> Option<Self> {
        let target = target(text);
        let name = text.strip_suffix(target).map(|before| before.trim_end().trim_end_matches('@').trim_end());
        let name = name.filter(|name| !name.is_empty()).map(|name| without_empty_extras(name).to_owned());
        let (scheme, location) = file_url(target);
        let archive = ARCHIVES.iter().any(|suffix| target.ends_with(suffix));
        let remote = scheme.is_empty() && target.contains("://");
        if remote && !target.starts_with('/') {
            return Some(Self::Url { name, url: target.to_owned() });
        }
        if !scheme.is_empty() || target.starts_with(['/', '.']) || target.contains('/') || archive {
            let (location, fragment) = match location.split_once('#') {
                Some((location, fragment)) => (location, Some(fragment.to_owned())),
                None => (location, None),
            };
            let (path, extras) = split_extras(location);
            let (path, extras) = (path.to_owned(), extras.map(str::to_owned));
            return Some(Self::Path { name, scheme, path, extras, fragment });
        }
        let name = name_of(text);
        if name.is_empty() {
            return None;
        }
        let rest = text[name.len()..].trim();
        let inside = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (extras, versions) = match inside.and_then(|(inside, rest)| Some((extras(inside)?, rest.trim()))) {
            Some((extras, rest)) => (extras.into_iter().map(str::to_owned).collect(), rest),
            None => (Vec::new(), rest),
        };
        Some(Self::Name { name: name.to_owned(), extras, versions: versions.to_owned() })
    }
}

/// Splits a path and the extras in brackets after it. `[]` names none.
fn split_extras(path: &str) -> (&str, Option<&str>) {
    let found = path.strip_suffix(']').and_then(|path| path.rsplit_once('['));
    found.map_or((path, None), |(path, extras)| (path, Some(extras).filter(|extras| !extras.trim().is_empty())))
}

/// `x` for `x[]`.
fn without_empty_extras(name: &str) -> &str {
    match split_extras(name) {
        (name, None) => name.trim_end(),
        _ => name,
    }
}

/// The name at the start of a requirement.
pub(in crate::venv) fn name_of(requirement: &str) -> &str {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    &requirement[..end.unwrap_or(requirement.len())]
}

/// Writes a line that both engines read with this meaning. `Unknown` is empty.
impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requirement(requirement) => write!(f, "{requirement}"),
            Self::Include { constraints, location } => {
                write!(f, "{} {location}", if *constraints { "-c" } else { "-r" })
            }
            Self::Editable(requirement) => write!(f, "-e {requirement}"),
            Self::FindLinks(location) => write!(f, "--find-links {location}"),
            Self::Index(Index::Instead(url)) => write!(f, "--index-url {}", quoted(url)),
            Self::Index(Index::Besides(url)) => write!(f, "--extra-index-url {}", quoted(url)),
            Self::Index(Index::None) => f.write_str("--no-index"),
            Self::Option { name, value: None } => f.write_str(name),
            Self::Option { name, value: Some(value) } => write!(f, "{name} {}", quoted(value)),
            Self::Unknown => Ok(()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&quoted(url)),
            Self::Path { scheme, path } => f.write_str(&quoted(&format!("{scheme}{path}"))),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        if let Some(marker) = &self.marker {
            write!(f, " ; {marker}")?;
        }
        for (name, value) in &self.options {
            if value.is_empty() {
                write!(f, " {name}")?;
                continue;
            }
            // uv accepts only `=` or white space after the name. pip accepts no `=` after `-C`.
            write!(f, " {name}{}{value}", if name.starts_with("--") { '=' } else { ' ' })?;
        }
        self.rest.as_ref().map_or(Ok(()), |rest| write!(f, " {rest}"))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |name: &Option<String>| name.as_ref().map(|name| format!("{name} @ ")).unwrap_or_default();
        match self {
            Self::Name { name, extras, versions } => {
                f.write_str(name)?;
                if !extras.is_empty() {
                    write!(f, "[{}]", extras.join(","))?;
                }
                let apart = versions.starts_with(|c: char| !"<>=!~(@".contains(c));
                write!(f, "{}{versions}", if apart { " " } else { "" })
            }
            Self::Url { name, url } => write!(f, "{}{url}", named(name)),
            Self::Path { name, scheme, path, extras, fragment } => {
                write!(f, "{}{scheme}{path}", named(name))?;
                extras.as_ref().map_or(Ok(()), |extras| write!(f, "[{extras}]"))?;
                fragment.as_ref().map_or(Ok(()), |fragment| write!(f, "#{fragment}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(scheme: &'static str, path: &str) -> Location {
        Location::Path { scheme, path: path.into() }
    }

    #[test]
    fn included_files_are_found_however_they_are_written() {
        for line in
            ["-r base.txt", "-rbase.txt", "--requirement=base.txt", "-r 'base.txt'", "-r=base.txt", "-r\tbase.txt"]
        {
            let include = Meaning::Include { constraints: false, location: path("", "base.txt") };
            assert_eq!(Meaning::of(line), include, "{line}");
        }
        for (line, constraints, location) in [
            ("-c base.txt", true, path("", "base.txt")),
            ("--constraint \"my base.txt\"", true, path("", "my base.txt")),
            ("-r file:///w/base.txt", false, path("file://", "/w/base.txt")),
            ("-r https://host/base.txt", false, Location::Url("https://host/base.txt".into())),
        ] {
            assert_eq!(Meaning::of(line), Meaning::Include { constraints, location }, "{line}");
        }
    }

    #[test]
    fn options_are_known_or_unknown() {
        for (line, meaning) in [
            ("--require-hashes", Meaning::Option { name: "--require-hashes", value: None }),
            ("--pre", Meaning::Option { name: "--pre", value: None }),
            ("--no-binary=:all:", Meaning::Option { name: "--no-binary", value: Some(":all:".into()) }),
            ("--trusted-host h", Meaning::Option { name: "--trusted-host", value: Some("h".into()) }),
            ("--index-url https://h/simple", Meaning::Index(Index::Instead("https://h/simple".into()))),
            ("-ihttps://h/simple", Meaning::Index(Index::Instead("https://h/simple".into()))),
            ("-i https://h/simple", Meaning::Index(Index::Instead("https://h/simple".into()))),
            ("--extra-index-url https://h", Meaning::Index(Index::Besides("https://h".into()))),
            ("--no-index", Meaning::Index(Index::None)),
            ("-f ./w", Meaning::FindLinks(path("", "./w"))),
            ("--find-links=file:///w", Meaning::FindLinks(path("file://", "/w"))),
            ("--find-links https://h/w", Meaning::FindLinks(Location::Url("https://h/w".into()))),
        ] {
            assert_eq!(Meaning::of(line), meaning, "{line}");
        }
        for line in [
            "--config-settings x",
            "-r",
            "--requirements x",
            "--global-option=y",
            "--requi=x",
            "--no-index-r x",
            "-r a'b'",
            "-r \"a",
            "-r a\\ b",
            "--pre=yes",
            "--no-binary",
            "\"-r\" x",
        ] {
            assert_eq!(Meaning::of(line), Meaning::Unknown, "{line}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for (requirement, path) in [
            ("/w/x.whl", "/w/x.whl"),
            ("x @ file:///w/x.whl", "/w/x.whl"),
            ("x @ file:///w/x.whl#sha256=ab", "/w/x.whl"),
            ("./lib[dev,test]", "./lib"),
            ("./lib ; python_version > '3'", "./lib"),
            ("./lib; python_version > '3'", "./lib"),
            (".", "."),
            (".[dev]", "."),
            ("../x --config-settings a=b", "../x"),
            ("../x --global-option=\"a b\" --hash=sha256:ab", "../x"),
            ("x-1.0-py3-none-any.whl", "x-1.0-py3-none-any.whl"),
            ("./lib@2", "./lib@2"),
            ("libs/x", "libs/x"),
            ("x @ file:./x", "./x"),
            ("file:x", "x"),
        ] {
            let Meaning::Requirement(found) = Meaning::of(requirement) else { panic!("{requirement}") };
            assert_eq!((found.path(), found.is_relative()), (Some(path), !path.starts_with('/')), "{requirement}");
        }
        for requirement in
            ["flask", "flask[async]>=3 ; python_version > '3'", "x @ https://host/x.whl", "git+https://host/x@main"]
        {
            let Meaning::Requirement(found) = Meaning::of(requirement) else { panic!("{requirement}") };
            assert_eq!(found.path(), None, "{requirement}");
        }
        for (line, path) in
            [("-e lib", "lib"), ("-e lib[dev]", "lib"), ("--editable=./lib --config-settings a=b", "./lib")]
        {
            let Meaning::Editable(found) = Meaning::of(line) else { panic!("{line}") };
            assert_eq!(found.path(), Some(path), "{line}");
        }
    }

    #[test]
    fn a_requirement_has_all_its_parts() {
        let text =
            "Flask[async, dotenv] >=3,<4 ; python_version > '3' --hash=sha256:ab --hash sha256:cd -C k=v --odd x";
        let Meaning::Requirement(found) = Meaning::of(text) else { panic!("{text}") };
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let subject = Subject::Name {
            name: "Flask".into(),
            extras: vec!["async".into(), "dotenv".into()],
            versions: ">=3,<4".into(),
        };
        let options = vec![own("--hash", "sha256:ab"), own("--hash", "sha256:cd"), own("-C", "k=v")];
        let marker = Some("python_version > '3'".into());
        assert_eq!(found, Requirement { subject, marker, options, rest: Some("--odd x".into()) });
        assert!(found.has_hash());
    }

    #[test]
    fn a_marker_begins_where_pip_begins_it() {
        for (text, subject, marker) in [
            (
                "x[a] @ git+https://h/x.git@v1#egg=x ; os_name=='a'",
                "x[a] @ git+https://h/x.git@v1#egg=x",
                "os_name=='a'",
            ),
            ("x @ https://h/x.whl;os_name=='a'", "x @ https://h/x.whl", "os_name=='a'"),
            ("x @ file:///x.whl;os_name=='a'", "x @ file:///x.whl", "os_name=='a'"),
            ("x@https://h/x.whl;os_name=='a'", "x @ https://h/x.whl", "os_name=='a'"),
            ("https://h/x.whl; os_name=='a'", "https://h/x.whl", "os_name=='a'"),
            ("https://h/x.whl ;os_name=='a'", "https://h/x.whl", "os_name=='a'"),
            ("git+https://h/x.git@v1;b#egg=x ; os_name=='a'", "git+https://h/x.git@v1;b#egg=x", "os_name=='a'"),
            ("https://h/a;b/x.whl", "https://h/a;b/x.whl", ""),
            ("https://h/x.whl;os_name=='a'", "https://h/x.whl;os_name=='a'", ""),
            ("file:///x.whl;os_name=='a'", "file:///x.whl;os_name=='a'", ""),
            ("./x.whl;os_name=='a'", "./x.whl", "os_name=='a'"),
            ("x;os_name=='a://b'", "x", "os_name=='a://b'"),
        ] {
            let Meaning::Requirement(found) = Meaning::of(text) else { panic!("{text}") };
            let read = (found.subject.to_string(), found.marker.unwrap_or_default());
            assert_eq!(read, (subject.to_owned(), marker.to_owned()), "{text}");
        }
    }

    #[test]
    fn empty_extras_are_none() {
        for (text, written) in [
            ("x[]", "x"),
            ("x [ ] >=1", "x>=1"),
            ("x[] @ https://h/x.whl", "x @ https://h/x.whl"),
            ("git+https://h/x#egg=x[]", "x @ git+https://h/x"),
            ("./lib[]", "./lib"),
            ("./lib[a, b]", "./lib[a, b]"),
        ] {
            let found = Requirement::read(text).unwrap();
            assert!(found.is_plain(), "{text}");
            assert_eq!(found.common().to_string(), written, "{text}");
        }
    }

    #[test]
    fn only_what_both_engines_parse_alike_is_plain() {
        for (text, plain) in [
            ("a", true),
            ("a[b, c] >=1, <2.0a1 ; python_version > '3' --hash=sha256:ab", true),
            ("a (==1.*,!=1.2)", true),
            ("a===weird_version", true),
            ("a>=1,", true),
            ("x @ https://h/x.whl", true),
            ("x[y] @ git+https://h/x.git@v1#subdirectory=b", true),
            ("./my lib", true),
            ("a --only-binary=:all: --pre", true),
            ("flask ==3 nonsense!", false),
            ("a==1 2", false),
            ("a==${V}", false),
            ("a ; b == 'c'", false),
            ("a ; os_name == 'c' # d", false),
            ("a;(os_name=='b' and (extra not in \"c\")) or sys.platform in 'x y'", true),
            ("a ; (os_name=='b'", false),
            ("a ; os_name=='b')", false),
            ("a ; os_name", false),
            ("a ; os_name=='b' and", false),
            ("a ; os_name=='b", false),
            ("a ; os_name=='b' $", false),
            ("a -r /etc/passwd", false),
            ("a --hash=sha256:ab -r x", false),
            ("a\u{2028}-r x", false),
            ("a#b", false),
            ("a @ https://h/x y", false),
            ("a b @ https://h/x", false),
            ("x[a,]", false),
            ("x[a,] @ https://h/x", false),
            ("./x[a,]", false),
            ("https://h/a;b/x.whl", true),
            ("https://h/x.whl;os_name=='b'", false),
            ("https://h/x.whl;os_name == 'b'", false),
            ("file:///x.whl;os_name=='b'", false),
            ("x @ https://h/x.whl;os_name=='b'", true),
            ("x @ git+https://h/x.git@v1;b", false),
            ("x @ ./lib", false),
            ("x @ lib", false),
            ("x @ x.whl", false),
            ("x @ /w/lib", false),
            ("x @ file:./lib", false),
            ("x @ file:/w/lib", true),
            ("x @ file:///w/lib", true),
            ("file:./lib", true),
            ("=1", false),
        ] {
            let found = Requirement::read(text).is_some_and(|found| found.is_plain());
            assert_eq!(found, plain, "{text}");
        }
    }

    #[test]
    fn both_engines_get_a_form_that_they_accept() {
        for (text, wanted) in [
            ("git+https://h/x.git@v1#egg=x&subdirectory=b", "x @ git+https://h/x.git@v1#subdirectory=b"),
            ("git+https://h/x.git#egg=x[y]", "x[y] @ git+https://h/x.git"),
            ("x @ git+https://h/x.git#egg=z&subdirectory=b", "x @ git+https://h/x.git#subdirectory=b"),
            ("https://h/x.zip#sha256=ab&egg=x", "x @ https://h/x.zip#sha256=ab"),
            ("https://h/x.zip#egg=x==1", "https://h/x.zip#egg=x==1"),
            ("https://h/x.zip#subdirectory=b", "https://h/x.zip#subdirectory=b"),
            ("git+file:///w/x.git@v1#egg=x", "x @ git+file://localhost/w/x.git@v1"),
            ("x[y] @ git+file:///w/x.git", "x[y] @ git+file://localhost/w/x.git"),
            ("git+file:///w/x.git", "git+file:///w/x.git"),
            ("x @ file:/w/x.whl", "x @ file:///w/x.whl"),
            ("file:/w/x.whl", "file:/w/x.whl"),
            ("./x", "./x"),
            ("x>=1,", "x>=1"),
        ] {
            assert_eq!(Requirement::read(text).unwrap().common().to_string(), wanted);
        }
    }

    #[test]
    fn a_line_with_several_options_has_several_meanings() {
        assert_eq!(parts("--no-index --find-links ./w"), ["--no-index", "--find-links ./w"]);
        assert_eq!(parts("-e ./x --config-settings a=b --pre"), ["-e ./x --config-settings a=b", "--pre"]);
        assert_eq!(parts("flask --hash=x -r y"), ["flask --hash=x -r y"]);
    }
}
