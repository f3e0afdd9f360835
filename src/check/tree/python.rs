//! Checks a Python application: `path`, environment, modules and callables.

use std::collections::BTreeSet;

use super::files::{There, at, is_a, read};
use super::look::{Look, Named};
use super::search::Search;
use super::source::{Binding, Module};
use crate::check::finding::pointer;
use crate::check::spelling::meant;
use crate::config::json::{Id, Node};

impl Look<'_> {
    pub fn python(&mut self, app: Id, kind: &Named, directory: Option<&Named>) {
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
            // Modules may come from the packages of the container's own Python.
            search.elsewhere = true;
            if at(&self.tree.dir.join(&self.tree.venv)) == There::Directory {
                let message =
                    format!("without \"home\", Unit does not use the environment at {}", self.tree.venv.display());
                self.warn("home", kind, message).hint = Some("set \"home\" to its path in the container".to_owned());
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

    /// Warns of variables without effect: with a `home`, Unit starts Python isolated (`nxt_python.c`).
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
                pointer: self.pointer.clone() + &pointer(["environment", &name]),
            };
            self.warn("environment", &place, format!("Python ignores {name} if \"home\" is set")).hint =
                Some("list the directories in \"path\"".to_owned());
        }
    }

    fn module(&mut self, entry: Id, search: &Search, protocol: Option<&str>, directory: Option<&Named>) {
        let Some(module) = self.named(entry, "module") else { return };
        if search.dirs.is_empty() && search.elsewhere {
            return;
        }
        let Some((dir, file)) = search.module(&module.text) else {
            let message = format!("no module {} in \"path\" or the environment", module.text);
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
                    self.warn("callable", place, format!("cannot determine whether {shown} has \"{name}\": {why}"));
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
                            format!("set \"callable\": \"{other}\", \"factory\": true")
                        }
                        Some(other) => format!("set \"callable\": \"{other}\""),
                        None => "set \"callable\"; the default is \"application\"".to_owned(),
                    });
            }
            Some(Binding::Constant) => {
                let message = format!("\"{name}\" in {shown} is a constant, not a callable");
                self.error("callable", place, message).hint =
                    Some("set \"callable\" to the name of the application".to_owned());
            }
            Some(Binding::Function { asynchronous, needs, takes }) => {
                let message = match protocol {
                    _ if factory && needs > 0 => Some(format!(
                        "\"{name}\" in {shown} needs arguments, but Unit calls a factory without arguments"
                    )),
                    _ if factory => None,
                    _ if takes == 0 => {
                        Some(format!("\"{name}\" in {shown} takes no arguments: it looks like a factory"))
                    }
                    Some("wsgi") if asynchronous => {
                        Some(format!("\"{name}\" in {shown} is async, but \"protocol\" is \"wsgi\""))
                    }
                    Some("asgi") if !asynchronous && needs == 2 && takes == 2 => {
                        Some(format!("\"{name}\" in {shown} looks like WSGI, but \"protocol\" is \"asgi\""))
                    }
                    _ => None,
                };
                let hint =
                    (!factory && takes == 0).then(|| "set \"factory\": true if it returns the application".to_owned());
                if let Some(message) = message {
                    self.warn("callable", place, message).hint = hint;
                }
            }
            Some(_) => {}
        }
    }
}
