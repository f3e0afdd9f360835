//! What a configuration names, looked for in the tree as the app's container will see it. Nothing of
//! the tree is run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::applications::{applications_in, targets_in};
use crate::config::json::{Document, Id, Node};
use crate::config::language::{language, version_matches};
use crate::config::localize::{Mapping, ends_alike};
use crate::plan::{Tree, normal};

use super::Finding;
use super::python::{Binding, Module};
use super::validate::meant;

/// A source file larger than that is not read.
const SOURCE: u64 = 4 << 20;

/// Looks at every application and static share.
pub fn look(document: &Document, tree: &Tree) -> Vec<Finding> {
    let mut look = Look { document, tree, mapping: None, pointer: String::new(), user: None, findings: Vec::new() };
    look.find_place();
    for (name, app) in look.applications() {
        look.pointer = super::pointer(["applications", &name]);
        look.application(app);
    }
    look.pointer.clear();
    look.user = None;
    if let Some(routes) = document.get(document.root(), "routes") {
        look.shares(routes);
    }
    look.findings
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Directory,
    File,
    Nothing,
    /// A link leads to where only the container may have something.
    Unknown,
}

struct Look<'a> {
    document: &'a Document<'a>,
    tree: &'a Tree,
    /// Where the container has the tree.
    mapping: Option<Mapping>,
    /// Of the application that is looked at.
    pointer: String,
    /// As whom it runs, if that is said.
    user: Option<String>,
    findings: Vec<Finding>,
}

/// A member's value with its place.
struct Named {
    text: String,
    at: usize,
    pointer: String,
}

impl Look<'_> {
    fn applications(&self) -> Vec<(String, Id)> {
        let apps = applications_in(self.document).iter();
        apps.map(|found| (String::from_utf8_lossy(&found.name).into_owned(), found.value)).collect()
    }

    fn named(&self, id: Id, name: &str) -> Option<Named> {
        let value = self.document.get(id, name)?;
        let text = self.document.string(value)?;
        Some(Named { text, at: self.document.span(value).start, pointer: format!("{}/{name}", self.pointer) })
    }

    fn add(&mut self, named: &Named, finding: Finding) -> &mut Finding {
        self.findings.push(Finding { offset: named.at, pointer: named.pointer.clone(), ..finding });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
    fn error(&mut self, rule: &'static str, named: &Named, message: impl Into<String>) -> &mut Finding {
        self.add(named, Finding::error(rule, named.at, message))
    }
    fn warn(&mut self, rule: &'static str, named: &Named, message: impl Into<String>) -> &mut Finding {
        self.add(named, Finding::warning(rule, named.at, message))
    }

    /// Where the tree is in the container.
    fn find_place(&mut self) {
        if let Some(there) = &self.tree.final_path {
            self.mapping = Some(Mapping::new(there.clone(), self.tree.dir.clone()));
            return;
        }
        let Some(home) = self.applications().into_iter().find_map(|(name, app)| {
            let pointer = super::pointer(["applications", &name, "home"]);
            self.named(app, "home").map(|home| Named { pointer, ..home })
        }) else {
            let root = Named {
                text: String::new(),
                at: self.document.span(self.document.root()).start,
                pointer: String::new(),
            };
            let message = "no application has a \"home\" that says where the tree is: no path is looked up";
            self.warn("tree-place", &root, message).hint =
                Some("say where the app's container has it: --tree-final-path".to_owned());
            return;
        };
        if !ends_alike(Path::new(&home.text), &self.tree.venv) {
            let message =
                format!("\"home\" does not end as --venv {} does: no path is looked up", self.tree.venv.display());
            self.warn("tree-place", &home, message).hint =
                Some("name the environment's directory in the tree, or say where the container has the tree: --tree-final-path".to_owned());
            return;
        }
        self.mapping = Some(Mapping::by_environment(Path::new(&home.text), &self.tree.venv, &self.tree.dir));
    }

    /// A path of the container on this machine; none for what is not in the tree.
    fn here(&self, path: &str) -> Option<PathBuf> {
        self.mapping.as_ref()?.here(&normal(Path::new(path)))
    }

    /// A path as the application sees it from its working directory.
    fn absolute(app_directory: Option<&Named>, path: &str) -> Option<String> {
        if path.starts_with('/') {
            return Some(path.to_owned());
        }
        app_directory.map(|directory| format!("{}/{path}", directory.text))
    }

    /// Looks at a path; what is in the tree and not as it must be gets a finding. Returns where it is
    /// here, if it is there.
    fn expect(&mut self, rule: &'static str, named: &Named, path: &str, wanted: There, fatal: bool) -> Option<PathBuf> {
        let here = self.here(path)?;
        let what = if wanted == There::Directory { "directory" } else { "file" };
        let problem = match at(&here) {
            There::Unknown => return None,
            found if found == wanted => {
                self.readable(named, &here);
                return Some(here);
            }
            There::Nothing => format!("the {what} {path} is not in the tree"),
            There::Directory | There::File => format!("{path} is no {what} in the tree"),
        };
        let hint = near(&here);
        let finding = if fatal { self.error(rule, named, problem) } else { self.warn(rule, named, problem) };
        finding.hint = hint.map(|name| format!("did you mean {name}?"));
        None
    }

    /// Whether everybody may read a file and pass the directories before it, up to the tree.
    fn readable(&mut self, named: &Named, path: &Path) {
        if self.user.as_deref() == Some("root")
            || self.findings.iter().any(|f| f.rule == "permissions" && f.pointer == named.pointer)
        {
            return;
        }
        for part in path.ancestors().take_while(|part| part.starts_with(&self.tree.dir) && *part != self.tree.dir) {
            let Ok(metadata) = fs::metadata(part) else { continue };
            // Reading a directory's names is not needed to pass it.
            let needed = if metadata.is_dir() { 0o001 } else { 0o004 };
            if metadata.permissions().mode() & needed != 0 {
                continue;
            }
            let shown = part.strip_prefix(&self.tree.dir).unwrap_or(part).display().to_string();
            let user = match &self.user {
                Some(user) => format!("the user {user}"),
                None => "the user that Unit runs applications as".to_owned(),
            };
            let mode = metadata.permissions().mode() & 0o777;
            let message = format!("{user} may not be allowed to read {shown} (mode {mode:04o})");
            if self.findings.iter().any(|finding| finding.message == message) {
                return;
            }
            self.warn("permissions", named, message).hint =
                Some("what everybody may read works for any user: chmod o+rX".to_owned());
            return;
        }
    }

    fn application(&mut self, app: Id) {
        self.user = self.document.get(app, "user").and_then(|id| self.document.string(id));
        let Some(kind) = self.named(app, "type") else { return };
        let directory = self.named(app, "working_directory");
        if let Some(directory) = &directory {
            self.expect("working-directory", directory, &directory.text, There::Directory, true);
        }
        match language(&kind.text).0 {
            "python" => self.python(app, &kind, directory.as_ref()),
            "php" => self.php(app),
            "external" | "go" => self.external(app, directory.as_ref()),
            _ => {}
        }
    }

    fn external(&mut self, app: Id, directory: Option<&Named>) {
        let Some(executable) = self.named(app, "executable") else { return };
        let Some(path) = Self::absolute(directory, &executable.text) else { return };
        let Some(here) = self.expect("executable", &executable, &path, There::File, true) else { return };
        if fs::metadata(&here).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0) {
            self.error("executable", &executable, format!("{path} is not executable")).hint =
                Some("chmod +x, and commit the mode".to_owned());
        }
    }

    fn php(&mut self, app: Id) {
        if let Some(options) = self.document.get(app, "options")
            && let Some(file) = self.named(options, "file")
        {
            let file = Named { pointer: format!("{}/options/file", self.pointer), ..file };
            self.expect("php", &file, &file.text, There::File, false);
        }
        self.each_entry(app, |look, entry| {
            let Some(root) = look.named(entry, "root") else { return };
            if look.expect("php", &root, &root.text, There::Directory, true).is_none() {
                return;
            }
            if let Some(script) = look.named(entry, "script") {
                let path = format!("{}/{}", root.text, script.text);
                look.expect("php", &script, &path, There::File, true);
                return;
            }
            // Each directory has an index of its own, or none.
            let index = look.named(entry, "index");
            let name = index.as_ref().map_or("index.php", |index| index.text.as_str());
            let path = format!("{}/{name}", root.text);
            look.expect("php", index.as_ref().unwrap_or(&root), &path, There::File, false);
        });
    }

    /// The application, or each of its targets.
    fn each_entry(&mut self, app: Id, mut each: impl FnMut(&mut Self, Id)) {
        let Some(targets) = targets_in(self.document, app) else { return each(self, app) };
        let outer = self.pointer.clone();
        for target in targets {
            self.pointer = outer.clone() + &super::pointer(["targets", &*String::from_utf8_lossy(&target.name)]);
            each(self, target.value);
        }
        self.pointer = outer;
    }

    fn python(&mut self, app: Id, kind: &Named, directory: Option<&Named>) {
        let mut search = Search::default();
        for path in self.paths(app) {
            match Self::absolute(directory, &path.text).map(|text| (self.here(&text), text)) {
                Some((Some(_), text)) => search.dirs.extend(self.expect("path", &path, &text, There::Directory, false)),
                _ => search.elsewhere = true,
            }
        }
        if let Some(home) = self.named(app, "home") {
            self.home(&home, kind, &mut search);
            self.environment(app);
        } else {
            // The packages of the container's own Python.
            search.elsewhere = true;
            if self.tree.dir.join(&self.tree.venv).is_dir() {
                let message = format!("without \"home\" the environment at {} is not used", self.tree.venv.display());
                self.warn("home", kind, message).hint = Some("name its path in the container as \"home\"".to_owned());
            }
        }
        let protocol = self.named(app, "protocol").map(|protocol| protocol.text);
        self.each_entry(app, |look, entry| look.module(entry, &search, protocol.as_deref(), directory));
    }

    fn paths(&self, app: Id) -> Vec<Named> {
        let Some(id) = self.document.get(app, "path") else { return Vec::new() };
        let Node::Array(values) = self.document.node(id) else { return self.named(app, "path").into_iter().collect() };
        let each = values.iter().enumerate().filter_map(|(index, value)| {
            let pointer = format!("{}/path/{index}", self.pointer);
            Some(Named { text: self.document.string(*value)?, at: self.document.span(*value).start, pointer })
        });
        each.collect()
    }

    /// With a `home` Unit starts Python isolated (`nxt_python.c`), which does not read these.
    fn environment(&mut self, app: Id) {
        let Some(environment) = self.document.get(app, "environment") else { return };
        for found in self.document.members(environment).iter().filter(|found| found.name.starts_with(b"PYTHON")) {
            let name = String::from_utf8_lossy(&found.name).into_owned();
            if !matches!(name.as_str(), "PYTHONPATH" | "PYTHONHOME") {
                continue;
            }
            let place = Named {
                text: String::new(),
                at: found.at,
                pointer: self.pointer.clone() + &super::pointer(["environment", &name]),
            };
            self.warn("environment", &place, format!("Python does not read {name} when \"home\" is given")).hint =
                Some("name the directories in \"path\"".to_owned());
        }
    }

    /// The environment: there, of the right Python, readable.
    fn home(&mut self, home: &Named, kind: &Named, search: &mut Search) {
        let Some(here) = self.here(&home.text) else {
            search.elsewhere = true;
            return;
        };
        match at(&here) {
            There::Directory => {}
            There::Unknown => {
                search.elsewhere = true;
                return;
            }
            There::File | There::Nothing => {
                // A checkout has no environment yet.
                let built = self.tree.dir.join(&self.tree.venv).is_dir();
                let message = format!("there is no environment at {} in the tree", home.text);
                let hint = near(&here).map(|name| format!("did you mean {name}?"));
                if built {
                    let other = format!("there is one at {}", self.tree.venv.display());
                    self.error("home", home, message).hint = hint.or(Some(other));
                } else {
                    let none = "what it would hold is not looked up; `podstrap init` builds it".to_owned();
                    self.warn("home", home, message).hint = hint.or(Some(none));
                }
                search.elsewhere = true;
                return;
            }
        }
        let pyvenv = here.join("pyvenv.cfg");
        let config = read(&pyvenv);
        let libraries = libraries(&here);
        if config.is_some() {
            self.readable(home, &pyvenv);
        } else if !libraries.iter().any(|(_, library)| library.join("os.py").exists()) {
            self.error("home", home, format!("{} is no environment: it has no pyvenv.cfg", home.text)).hint =
                Some("Unit needs it, and lib/pythonX.Y/site-packages".to_owned());
            search.elsewhere = true;
            return;
        }
        let version = config.as_deref().and_then(version).or_else(|| libraries.last().map(|(name, _)| name.clone()));
        let minor = version.as_deref().map(minor_of);
        if libraries.is_empty() {
            self.error("home", home, format!("{} has no lib/pythonX.Y", home.text));
        } else if let Some(minor) = &minor
            && !libraries.iter().any(|(name, _)| name == minor)
        {
            let has: Vec<_> = libraries.iter().map(|(name, _)| format!("lib/python{name}")).collect();
            self.error("home", home, format!("{} is of Python {minor}, but has {}", home.text, has.join(", ")));
        }
        for (_, library) in &libraries {
            let packages = library.join("site-packages");
            // An editable installation is found by a line in such a file.
            search.elsewhere |= files(&packages).iter().any(|name| is_a(name, "pth"));
            if at(&packages) == There::Directory {
                self.readable(home, &packages);
                search.dirs.push(packages);
            }
        }
        if let (Some(version), Some(minor)) = (version, minor) {
            self.type_and_version(kind, &version, &minor);
        }
    }

    /// Whether a Unit that takes `type` can use the environment. Its own Python is not known here:
    /// it must have the environment's X.Y, and may have another patch.
    fn type_and_version(&mut self, kind: &Named, version: &str, minor: &str) {
        let wanted = language(&kind.text).1;
        if version_matches(version, wanted) {
            return;
        }
        if minor_of(wanted) == minor {
            let message = format!("the environment is of Python {version}: Unit must have {wanted} exactly");
            self.warn("type", kind, message).hint = Some(format!("write \"python {minor}\""));
            return;
        }
        let message = format!("the environment is of Python {version}, which \"{}\" does not match", kind.text);
        let cut = if version.starts_with(wanted) { "a version ends at a dot: " } else { "" };
        self.error("type", kind, message).hint = Some(format!(
            "{cut}write \"python {minor}\", and use an image of Unit with it; or build the environment with {wanted}"
        ));
    }

    fn module(&mut self, entry: Id, search: &Search, protocol: Option<&str>, directory: Option<&Named>) {
        let Some(module) = self.named(entry, "module") else { return };
        if search.dirs.is_empty() && search.elsewhere {
            return;
        }
        let Some((dir, file)) = search.module(&module.text) else {
            let message = format!("there is no module {} in \"path\" or the environment", module.text);
            let hint = search.hint(&module.text, self, directory);
            let finding = if search.elsewhere {
                self.warn("module", &module, message)
            } else {
                self.error("module", &module, message)
            };
            finding.hint = hint;
            return;
        };
        self.readable(&module, &file);
        let Some(source) = Some(&file).filter(|file| is_a(&file.to_string_lossy(), "py")).and_then(|file| read(file))
        else {
            return;
        };
        let shown = file.strip_prefix(&dir).unwrap_or(&file).display().to_string();
        let parsed = Module::read(&source);
        let given = self.named(entry, "callable");
        let name = given.as_ref().map_or("application", |given| given.text.as_str());
        let place = given.as_ref().unwrap_or(&module);
        let factory =
            self.document.get(entry, "factory").is_some_and(|id| matches!(self.document.node(id), Node::Boolean(true)));
        match parsed.get(name) {
            None => {
                if let Some(why) = parsed.unclear {
                    self.warn("callable", place, format!("it cannot be told whether {shown} has \"{name}\": {why}"));
                    return;
                }
                let others =
                    parsed.names.iter().filter(|(_, binding)| !matches!(binding, Binding::Import | Binding::Constant));
                let others: BTreeSet<_> = others.map(|(name, _)| name.as_str()).collect();
                let usual = ["application", "app", "wsgi", "asgi", "create_app", "make_app"];
                let hint = usual
                    .into_iter()
                    .find(|usual| others.contains(usual))
                    .or_else(|| meant(name, others.iter().copied()));
                self.error("callable", place, format!("{shown} has no \"{name}\" at its top level")).hint =
                    Some(match hint {
                        Some(other) if other.starts_with("create") || other.starts_with("make") => {
                            format!("it has {other}: \"callable\": \"{other}\", \"factory\": true")
                        }
                        Some(other) => format!("it has {other}: \"callable\": \"{other}\""),
                        None => "\"callable\" is \"application\" unless it is given".to_owned(),
                    });
            }
            Some(Binding::Constant) => {
                self.error("callable", place, format!("\"{name}\" in {shown} is a constant, nothing to call"));
            }
            Some(Binding::Function { asynchronous, needs, takes }) => {
                let message = match protocol {
                    _ if factory && needs > 0 => {
                        Some(format!("\"{name}\" in {shown} needs arguments, and a factory gets none"))
                    }
                    _ if factory => None,
                    _ if takes == 0 => {
                        Some(format!("\"{name}\" in {shown} takes no arguments: it looks like a factory"))
                    }
                    Some("wsgi") if asynchronous => {
                        Some(format!("\"{name}\" in {shown} is async, and \"protocol\" is \"wsgi\""))
                    }
                    Some("asgi") if !asynchronous && needs == 2 && takes == 2 => {
                        Some(format!("\"{name}\" in {shown} looks like WSGI, and \"protocol\" is \"asgi\""))
                    }
                    _ => None,
                };
                let hint =
                    (!factory && takes == 0).then(|| "\"factory\": true calls it for the application".to_owned());
                if let Some(message) = message {
                    self.warn("callable", place, message).hint = hint;
                }
            }
            Some(_) => {}
        }
    }

    /// Directories of static files, wherever they stand in the routes.
    fn shares(&mut self, routes: Id) {
        let mut left = vec![(routes, "/routes".to_owned())];
        while let Some((id, pointer)) = left.pop() {
            match self.document.node(id) {
                Node::Array(values) => {
                    left.extend(values.iter().enumerate().map(|(i, id)| (*id, format!("{pointer}/{i}"))));
                }
                Node::Object(members) => left.extend(members.iter().map(|found| {
                    let name = String::from_utf8_lossy(&found.name);
                    (found.value, format!("{pointer}{}", super::pointer([&*name])))
                })),
                Node::String(_) => self.share(id, pointer),
                _ => {}
            }
        }
    }

    fn share(&mut self, id: Id, pointer: String) {
        let end = pointer.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('/');
        if !pointer.ends_with("/share") && !end.ends_with("/share") {
            return;
        }
        let Some(text) = self.document.string(id) else { return };
        let named = Named { at: self.document.span(id).start, pointer, text };
        // Up to the first variable: the directory that holds everything.
        match named.text.split_once(['$', '`']) {
            None => {
                let wanted = if named.text.ends_with('/') { There::Directory } else { There::File };
                self.expect("share", &named, &named.text, wanted, false);
            }
            Some((fixed, variable)) => {
                // A request's path begins with a slash.
                let path =
                    ["uri", "{uri}", "request_uri", "{request_uri}"].iter().any(|name| variable.starts_with(name));
                let directory = if path { fixed } else { fixed.rfind('/').map_or("", |at| &fixed[..at]) };
                if !directory.is_empty() {
                    self.expect("share", &named, directory, There::Directory, false);
                }
            }
        }
    }
}

/// Where Python looks for modules.
#[derive(Default)]
struct Search {
    dirs: Vec<PathBuf>,
    /// It looks at places as well that cannot be seen here.
    elsewhere: bool,
}

impl Search {
    /// The directory that has a module, and its file.
    fn module(&self, name: &str) -> Option<(PathBuf, PathBuf)> {
        let relative: PathBuf = Some(name).filter(|name| !name.contains('/'))?.split('.').collect();
        self.dirs.iter().find_map(|dir| Some((dir.clone(), module_in(dir, &relative)?)))
    }

    fn hint(&self, name: &str, look: &Look, directory: Option<&Named>) -> Option<String> {
        if let Some(stem) = name.strip_suffix(".py") {
            return Some(format!("a module's name has no .py: \"{}\"", stem.replace('/', ".")));
        }
        if name.contains('/') {
            return Some(format!("a module in a package is named with dots: \"{}\"", name.replace('/', ".")));
        }
        let relative: PathBuf = name.split('.').collect();
        let beside =
            directory.filter(|dir| look.here(&dir.text).is_some_and(|dir| module_in(&dir, &relative).is_some()));
        if let Some(directory) = beside {
            return Some(format!("Python does not look into working_directory: \"path\": \"{}\"", directory.text));
        }
        let names: Vec<_> = self.dirs.iter().flat_map(|dir| files(dir)).collect();
        let stems = names.iter().map(|name| name.strip_suffix(".py").unwrap_or(name));
        meant(name, stems).map(|meant| format!("did you mean \"{meant}\"?"))
    }
}

/// The file of a module, or its directory if it is a package without a file of its own.
fn module_in(dir: &Path, relative: &Path) -> Option<PathBuf> {
    let base = dir.join(relative);
    let init = base.join("__init__.py");
    let source = base.with_file_name(format!("{}.py", base.file_name()?.to_string_lossy()));
    if init.is_file() {
        return Some(init);
    }
    if source.is_file() {
        return Some(source);
    }
    // Compiled: foo.cpython-311-x86_64-linux-gnu.so, foo.abi3.so, foo.pyc.
    let stem = format!("{}.", base.file_name()?.to_string_lossy());
    let parent = base.parent()?;
    let compiled =
        files(parent).into_iter().find(|name| name.starts_with(&stem) && (is_a(name, "so") || is_a(name, "pyc")));
    compiled.map(|name| parent.join(name)).or_else(|| base.is_dir().then_some(base))
}

/// The text of a file that is not too large; pipes and the like are not opened.
fn read(file: &Path) -> Option<String> {
    let small = fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= SOURCE);
    let bytes = if small { fs::read(file).ok()? } else { return None };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn at(path: &Path) -> There {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => There::Directory,
        Ok(_) => There::File,
        Err(_) => {
            let leads_out = |part: &Path| fs::read_link(part).is_ok_and(|to| to.is_absolute() && !part.exists());
            if path.ancestors().any(leads_out) { There::Unknown } else { There::Nothing }
        }
    }
}

fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The names in a directory, in order.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A name beside a missing one that it may have been meant for.
fn near(path: &Path) -> Option<String> {
    let names = files(path.parent()?);
    meant(&path.file_name()?.to_string_lossy(), names.iter().map(String::as_str)).map(str::to_owned)
}

/// `lib/pythonX.Y`, each with its X.Y.
fn libraries(home: &Path) -> Vec<(String, PathBuf)> {
    let lib = home.join("lib");
    let version = |name: &String| name.strip_prefix("python").filter(|rest| rest.contains('.')).map(str::to_owned);
    files(&lib).iter().filter_map(|name| Some((version(name)?, lib.join(name)))).collect()
}

/// `version = 3.11.2` as venv writes it, `version_info = 3.11.2` as uv and virtualenv do.
fn version(pyvenv: &str) -> Option<String> {
    pyvenv.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let digits: Vec<_> =
            value.trim().split('.').take_while(|part| part.chars().all(|c| c.is_ascii_digit())).collect();
        (matches!(name.trim(), "version" | "version_info") && digits.len() > 1).then(|| digits.join("."))
    })
}

fn minor_of(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}
