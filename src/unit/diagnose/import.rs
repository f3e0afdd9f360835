//! Suspect: the import of a Python application fails.
//!
//! podstrap imports the application as Unit does (`import.py`), with the environment's own Python and as
//! the application's user. This is the last suspect, because it runs the application's code.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::accounts::runs_as;
use super::application::NewApp;
use super::explanation::Explanation;
use super::scene::{Scene, ours};
use crate::command::{Command, Failure};
use crate::config::applications::entries;
use crate::files;
use crate::retry::Deadline;

/// Lower and upper bound of the time limit for an import.
const IMPORT_LEAST: Duration = Duration::from_secs(3);
const IMPORT_MOST: Duration = Duration::from_secs(30);

/// Most lines of a traceback to show.
const TRACEBACK_LINES: usize = 20;

const IMPORT: &str = include_str!("import.py");

/// The cause of a failed import, from the exit codes of `import.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    NoCallable,
    NoModule,
    Forbidden,
    /// The application raised an exception, or its result is not callable.
    Raised,
}

impl Cause {
    fn of(code: Option<i32>) -> Self {
        match code {
            Some(91) => Self::NoCallable,
            Some(92) => Self::NoModule,
            Some(93) => Self::Forbidden,
            _ => Self::Raised,
        }
    }

    fn hint(self, app: &NewApp) -> &'static str {
        match (self, app.members.get("path"), app.members.get("home")) {
            (Self::NoModule, None, _) => "set \"path\" to the directory of the application's own modules",
            (Self::NoModule, _, None) => {
                "set \"home\": Unit searches it for packages, and \"path\" for the application's own modules"
            }
            (Self::NoModule, ..) => {
                "add the package to the requirements: Unit searches \"home\" for packages, and \"path\" for the \
                 application's own modules"
            }
            (Self::NoCallable, ..) => "set \"callable\" to the right name",
            (Self::Forbidden, ..) => {
                "make it readable for the application's \"user\": Unit runs the application as that user, not as \
                 unitd's"
            }
            (Self::Raised, ..) => "correct the application: it fails to load with any server",
        }
    }
}

/// Loads a Python application as Unit does, and explains a failure.
pub(super) async fn fails(scene: &Scene, app: &NewApp<'_>, deadline: Deadline) -> Option<Explanation> {
    let version = app.python(scene)?;
    let name = &app.name;
    let home = app.path("home");
    let own = home.map(|home| home.join("bin/python")).filter(|path| files::exists(path).unwrap_or_default());
    // Unit also accepts an environment without its own interpreter.
    let site = home.filter(|_| own.is_none()).map(|home| home.join(format!("lib/python{version}/site-packages")));
    let Some(python) = own.or_else(|| interpreter(&version)) else {
        tracing::debug!("no Python {version} found to import {name:?}");
        return None;
    };
    let time = deadline.remaining().clamp(IMPORT_LEAST, IMPORT_MOST);
    let mut command = Command::new(&python).args(["-I", "-B", "-c", IMPORT]).stdin(job(app, site).to_string());
    for (name, value) in app.members.get("environment").and_then(Value::as_object).into_iter().flatten() {
        command = command.env(name, value.as_str().unwrap_or_default());
    }
    if ours() == 0 {
        // Do not run code as root that Unit does not run as root.
        let (uid, gid) = runs_as(scene, app)?;
        command = command.user(uid, gid);
    }
    match command.run(Deadline::after(time)).await {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let lines: Vec<_> = output.stderr.lines().collect();
            let last = (*lines.last()?).to_owned();
            let traceback = (lines.len() > 1).then(|| lines[lines.len().saturating_sub(TRACEBACK_LINES)..].join("\n"));
            Some(Explanation {
                why: format!("application {name:?} cannot be loaded: {last}"),
                hint: Cause::of(output.status.code()).hint(app).to_owned(),
                excerpt: traceback,
            })
        }
        Err(Failure::Deadline { .. }) => {
            tracing::debug!("importing {name:?} takes longer than {time:?}");
            None
        }
        Err(error) => {
            tracing::debug!("cannot import {name:?} with {}: {error}", python.display());
            None
        }
    }
}

/// Finds a Python of this version: first in the directories of the images, then on PATH.
fn interpreter(version: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(format!("python{version}"))).find(|path| files::exists(path).unwrap_or_default())
}

/// The input of `import.py`.
fn job(app: &NewApp, site: Option<PathBuf>) -> Value {
    let path = match app.members.get("path") {
        Some(Value::Array(all)) => all.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    let target = |one: &Value| {
        json!({
            "module": one["module"],
            "callable": one.get("callable").and_then(Value::as_str).unwrap_or("application"),
            "factory": one.get("factory").and_then(Value::as_bool).unwrap_or_default(),
        })
    };
    let targets: Vec<_> = entries(app.members).into_iter().map(target).collect();
    json!({ "chdir": app.members["working_directory"], "path": path, "site": site, "targets": targets })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, members, scene, shown};
    use super::*;
    use insta::assert_snapshot;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    /// Uses the Python of this machine instead of Unit's.
    #[test]
    fn an_application_that_cannot_be_loaded() {
        let found = std::process::Command::new("python3")
            .args(["-c", "import sys; print(sys.executable); print('%d.%d.0' % sys.version_info[:2])"])
            .output()
            .unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        let (python, version) = found.trim().split_once('\n').unwrap();
        let dir = dir();
        // Runs as nobody, who cannot read a directory of root with mode 0700.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = dir.path().join("venv");
        let minor = version.trim_end_matches(".0");
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::create_dir_all(home.join(format!("lib/python{minor}/site-packages"))).unwrap();
        fs::write(home.join("pyvenv.cfg"), format!("home = {}\n", Path::new(python).parent().unwrap().display()))
            .unwrap();
        std::os::unix::fs::symlink(python, home.join("bin/python")).unwrap();
        fs::create_dir(dir.path().join("app")).unwrap();
        let scene = Scene {
            status: json!({"modules": {"python": {"version": version, "lib": dir.path().join("python.so")}}}),
            ..scene(dir.path())
        };
        let load = |source: &str, more: Value| {
            fs::write(dir.path().join("app/wsgi.py"), source).unwrap();
            let mut all = json!({"home": home, "path": dir.path().join("app"), "module": "wsgi"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let app = NewApp { name: "a".into(), members: &members(all) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let found = runtime.block_on(fails(&scene, &app, Deadline::after(Duration::from_secs(9))));
            // Some versions of Python underline parts of a line.
            let text = shown(found, dir.path());
            text.lines().filter(|line| !line.trim_matches([' ', '^', '~']).is_empty()).collect::<Vec<_>>().join("\n")
        };
        assert_snapshot!(load("import os\nimport nosuchpackage\n", json!({})), @r#"
        application "a" cannot be loaded: ModuleNotFoundError: No module named 'nosuchpackage'
        Traceback (most recent call last):
          File "[TMP]/app/wsgi.py", line 2, in <module>
            import nosuchpackage
        ModuleNotFoundError: No module named 'nosuchpackage'
        hint: add the package to the requirements: Unit searches "home" for packages, and "path" for the application's own modules
        "#);
        assert_snapshot!(load("def app(environ, start): pass\n", json!({})), @r#"
        application "a" cannot be loaded: module "wsgi" has no "application"; its callables: app
        hint: set "callable" to the right name
        "#);
        assert_snapshot!(load("def make():\n    raise ValueError('no DSN')\n", json!({"callable": "make", "factory": true})), @r#"
        application "a" cannot be loaded: ValueError: no DSN
        Traceback (most recent call last):
          File "[TMP]/app/wsgi.py", line 2, in make
            raise ValueError('no DSN')
        ValueError: no DSN
        hint: correct the application: it fails to load with any server
        "#);
        assert_snapshot!(load("application = 1\n", json!({})), @r#"
        application "a" cannot be loaded: "application" in module "wsgi" is not callable: it is of type int
        hint: correct the application: it fails to load with any server
        "#);
        // The import works here, so the cause is something else.
        let reads = "import os\nos.environ['DSN']\nassert os.getcwd() == os.path.dirname(__file__)\ndef application(*_): pass\n";
        let more = json!({"environment": {"DSN": "x"}, "working_directory": dir.path().join("app")});
        assert_eq!(load(reads, more), "nothing");
        assert!(load(reads, json!({})).contains("KeyError: 'DSN'"));
    }
}
