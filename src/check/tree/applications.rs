//! Checks the paths of each kind of application: directories, scripts, executables.

use std::os::unix::fs::PermissionsExt as _;

use super::files::There;
use super::look::{Look, Named};
use crate::config::json::Id;
use crate::config::language::language;
use crate::files;

impl Look<'_> {
    pub fn application(&mut self, app: Id) {
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
        if files::metadata(&here).is_ok_and(|found| found.is_some_and(|meta| meta.permissions().mode() & 0o111 == 0)) {
            self.error("executable", &executable, format!("{path} is not executable")).hint =
                Some("run chmod +x, and commit the mode".to_owned());
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
            // Other directories may have an index too, or none.
            let index = look.named(entry, "index");
            let name = index.as_ref().map_or("index.php", |index| index.text.as_str());
            let path = format!("{}/{name}", root.text);
            look.expect("php", index.as_ref().unwrap_or(&root), &path, There::File, false);
        });
    }
}
