//! Why Unit "Failed to apply new configuration": it never says, but most of it can be found out.
//!
//! What is looked at, in this order, and the first that is found is told: a port that is taken; `user`
//! and `group` while Unit may not switch; a user or group that does not exist; a language module whose
//! file is gone; a `home`, `root`, `working_directory` or interpreter's directory that is missing or of
//! another Python; and at last the application itself, imported by the environment's own Python as the
//! application's user, as Unit does it (`import.py`).
//!
//! Ports can be tried from anywhere in the Pod. The rest needs Unit's files, so it is left out when
//! Unit is in another container.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::channel::Peer;
use super::prove;
use crate::command::{Command, Failure};
use crate::retry::Deadline;

/// How long an application may take to be imported, at least and at most.
const IMPORT_LEAST: Duration = Duration::from_secs(3);
const IMPORT_MOST: Duration = Duration::from_secs(30);

/// How much of a traceback is shown.
const TRACEBACK_LINES: usize = 20;

const IMPORT: &str = include_str!("import.py");

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) why: String,
    pub(super) excerpt: Option<String>,
    pub(super) hint: String,
}

/// What is known of the Unit that failed, and where to look.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) proc: PathBuf,
    /// The directory of `passwd` and `group`.
    pub(super) etc: PathBuf,
    /// None over TCP.
    pub(super) peer: Option<Peer>,
    /// Whether its listeners are in this network, and its files are ours.
    pub(super) network: bool,
    pub(super) files: bool,
    /// What `GET /status` says.
    pub(super) status: Value,
    /// The configuration that it has.
    pub(super) before: Value,
}

impl Scene {
    pub(super) fn new(proc: &Path, peer: Option<Peer>, status: Value, before: Value) -> Self {
        // A pid is told within one PID namespace only: another container's is 0, and its network is
        // the Pod's.
        let pid = peer.and_then(|peer| peer.pid).filter(|pid| *pid > 0);
        let shared = |kind: &str| {
            let link = |pid: &str| proc.join(pid).join("ns").join(kind).read_link().ok();
            pid.is_some_and(|pid| link("self").is_some_and(|ours| Some(ours) == link(&pid.to_string())))
        };
        Self {
            proc: proc.to_owned(),
            etc: "/etc".into(),
            peer,
            network: peer.is_some() && (pid.is_none() || shared("net")),
            files: shared("mnt"),
            status,
            before,
        }
    }

    /// Looks for what keeps a configuration, or the part of it at a place, from being applied.
    pub(super) async fn explain(&self, at: &str, wanted: &Value, deadline: Deadline) -> Option<Finding> {
        if let Some(finding) = self.port(at, wanted) {
            return Some(finding);
        }
        let had = prove::of("/config", &self.before);
        // What Unit has is running.
        let apps: Map<_, _> =
            prove::of(at, wanted).into_iter().filter(|(name, app)| had.get(name) != Some(app)).collect();
        for (name, app) in &apps {
            if let Some(finding) = self.users(name, app).or_else(|| self.module(name, app)) {
                return Some(finding);
            }
        }
        if !self.files {
            return None;
        }
        for (name, app) in &apps {
            if let Some(finding) = self.places(name, app) {
                return Some(finding);
            }
        }
        for (name, app) in &apps {
            if let Some(finding) = self.import(name, app, deadline).await {
                return Some(finding);
            }
        }
        None
    }

    /// A new listener whose address cannot be had.
    fn port(&self, at: &str, wanted: &Value) -> Option<Finding> {
        if !self.network {
            return None;
        }
        let listeners = match at {
            "/config" => wanted.get("listeners"),
            "/config/listeners" => Some(wanted),
            _ => None,
        }?;
        let has = self.before.get("listeners");
        listeners.as_object()?.keys().filter(|name| has.is_none_or(|has| has.get(*name).is_none())).find_map(|name| {
            let address = address(name)?;
            let error = TcpListener::bind(address).err()?;
            let why = |what: &str| format!("the listener {name:?} cannot be had: {what}");
            Some(match error.kind() {
                io::ErrorKind::AddrInUse => Finding {
                    why: why(&match owner(&self.proc, address.port()) {
                        Some(owner) => format!("port {} is taken by {owner}", address.port()),
                        None => format!("port {} is taken by another process in this Pod", address.port()),
                    }),
                    hint: "containers of a Pod share its ports: give the listener or the other process another one"
                        .into(),
                    ..Finding::default()
                },
                io::ErrorKind::AddrNotAvailable => Finding {
                    why: why("no network interface here has that address"),
                    hint: format!("listen on \"*:{}\"", address.port()),
                    ..Finding::default()
                },
                // The privilege is that of whoever asks.
                io::ErrorKind::PermissionDenied if self.uid().is_some_and(|uid| uid == ours()) && ours() != 0 => {
                    Finding {
                        why: why(&format!("uid {} may not listen on ports below 1024", ours())),
                        hint: "choose a port from 1024 on; a Service may map 80 to it".into(),
                        ..Finding::default()
                    }
                }
                _ => return None,
            })
        })
    }

    fn uid(&self) -> Option<u32> {
        self.peer.map(|peer| peer.uid)
    }

    /// `user` and `group`: whether Unit may switch to them, and whether they exist.
    fn users(&self, name: &str, app: &Value) -> Option<Finding> {
        let asked = |member: &str| app.get(member).and_then(Value::as_str);
        let (user, group) = (asked("user"), asked("group"));
        if let Some(uid) = self.uid().filter(|uid| *uid != 0 && user.or(group).is_some()) {
            return Some(Finding {
                why: format!(
                    "application {name:?} names a user or group, but Unit runs as uid {uid} and cannot switch"
                ),
                hint: format!("take \"user\" and \"group\" out of it: it then runs as uid {uid}; or run Unit as root"),
                ..Finding::default()
            });
        }
        if !self.files {
            return None;
        }
        let missing = |file: &str, who: &str| {
            let there = fs::read_to_string(self.etc.join(file)).ok()?;
            (!there.lines().any(|line| line.split(':').next() == Some(who))).then(|| Finding {
                why: format!(
                    "application {name:?}: there is no {} {who:?} in this container's /etc/{file}",
                    kind(file)
                ),
                hint: format!("name one that the image has, or leave \"{}\" out", kind(file)),
                ..Finding::default()
            })
        };
        user.and_then(|user| missing("passwd", user)).or_else(|| group.and_then(|group| missing("group", group)))
    }

    /// The language module, as Unit knows it.
    fn language(&self, app: &Value) -> Option<(String, &Value)> {
        let kind = app.get("type")?.as_str()?;
        let (language, version) = kind.split_once(' ').unwrap_or((kind, ""));
        let module = self.status.get("modules")?.get(language)?;
        let all = match module {
            Value::Array(all) => &all[..],
            one => std::slice::from_ref(one),
        };
        let fits = |one: &&Value| one["version"].as_str().is_some_and(|has| has.starts_with(version));
        Some((language.to_owned(), all.iter().find(fits)?))
    }

    fn module(&self, name: &str, app: &Value) -> Option<Finding> {
        let (language, module) = self.language(app)?;
        let lib = Path::new(module.get("lib")?.as_str()?);
        (self.files && !lib.exists()).then(|| Finding {
            why: format!(
                "application {name:?}: Unit's module for {language} is gone: {} does not exist",
                lib.display()
            ),
            hint: "is a volume mounted over the image's modules? unitd finds them at its start, and loads them for \
                   each application"
                .into(),
            ..Finding::default()
        })
    }

    /// `X.Y` of the Python that will run the application.
    fn python(&self, app: &Value) -> Option<String> {
        let (language, module) = self.language(app)?;
        let mut numbers = module.get("version")?.as_str()?.split('.');
        (language == "python").then(|| Some(format!("{}.{}", numbers.next()?, numbers.next()?)))?
    }

    /// Directories that the application names.
    fn places(&self, name: &str, app: &Value) -> Option<Finding> {
        let told = |why: String, hint: &str| Some(Finding { why, hint: hint.into(), excerpt: None });
        let gone = "is the volume mounted in this container, at this path? Paths are those of Unit's container";
        if let Some(dir) = app.get("working_directory").and_then(Value::as_str)
            && !Path::new(dir).is_dir()
        {
            return told(format!("application {name:?}: its \"working_directory\" {dir} is no directory"), gone);
        }
        if let Some(file) = app.get("executable").and_then(Value::as_str) {
            let dir = app.get("working_directory").and_then(Value::as_str).unwrap_or("/");
            let path = Path::new(dir).join(file);
            let is = path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            return if is {
                None
            } else {
                told(format!("application {name:?}: its \"executable\" {} is no executable file", path.display()), gone)
            };
        }
        // PHP's, of the application or of each of its targets.
        let targets = app.get("targets").and_then(Value::as_object);
        let roots = targets.into_iter().flat_map(|targets| targets.values()).chain([app]);
        for root in roots.filter_map(|holder| holder.get("root")?.as_str()) {
            if !Path::new(root).is_dir() {
                return told(format!("application {name:?}: its \"root\" {root} is no directory"), gone);
            }
        }
        let version = self.python(app)?;
        let home = Path::new(app.get("home")?.as_str()?);
        let shown = home.display();
        if !home.is_dir() {
            return told(format!("application {name:?}: its \"home\" {shown} is no directory"), gone);
        }
        let lib = home.join("lib").join(format!("python{version}"));
        if !lib.is_dir() {
            let mut others: Vec<_> = fs::read_dir(home.join("lib"))
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().strip_prefix("python")?.to_owned()))
                .collect();
            others.sort();
            let made = match &others[..] {
                [] => "it is no virtual environment".to_owned(),
                all => format!("it was made by Python {}", all.join(" and ")),
            };
            return told(
                format!(
                    "application {name:?}: its \"home\" {shown} has no lib/python{version}, which this Unit needs: {made}"
                ),
                "build the environment with the Python of Unit's image: `podstrap init --python`, in an init image with that version",
            );
        }
        if !home.join("pyvenv.cfg").exists() {
            return told(
                format!(
                    "application {name:?}: its \"home\" {shown} has no pyvenv.cfg, so it is no virtual environment"
                ),
                "name the directory that `podstrap init --venv-final-path` built",
            );
        }
        None
    }

    /// Loads a Python application as Unit would.
    async fn import(&self, name: &str, app: &Value, deadline: Deadline) -> Option<Finding> {
        let version = self.python(app)?;
        let home = app.get("home").and_then(Value::as_str).map(Path::new);
        let own = home.map(|home| home.join("bin/python")).filter(|path| path.exists());
        // A venv without an interpreter of its own is enough for Unit.
        let site = home.filter(|_| own.is_none()).map(|home| home.join(format!("lib/python{version}/site-packages")));
        let Some(python) = own.or_else(|| interpreter(&version)) else {
            tracing::debug!("no Python {version} here to import {name:?} with");
            return None;
        };
        let time = deadline.remaining().clamp(IMPORT_LEAST, IMPORT_MOST);
        let mut command = Command::new(&python).args(["-I", "-B", "-c", IMPORT]).stdin(job(app, site).to_string());
        for (name, value) in app.get("environment").and_then(Value::as_object).into_iter().flatten() {
            command = command.env(name, value.as_str().unwrap_or_default());
        }
        if ours() == 0 {
            // Never as root what Unit would not run as root.
            let (uid, gid) = self.runs_as(app)?;
            command = command.user(uid, gid);
        }
        match command.run(Deadline::after(time)).await {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let lines: Vec<_> = output.stderr.lines().collect();
                let last = (*lines.last()?).to_owned();
                let traceback =
                    (lines.len() > 1).then(|| lines[lines.len().saturating_sub(TRACEBACK_LINES)..].join("\n"));
                Some(Finding {
                    why: format!("application {name:?} cannot be loaded: {last}"),
                    hint: hint(&last, app),
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

    /// The user that Unit runs an application as: its own unless it is root, else the one that is
    /// named, the one of unitd's `--user`, or the one it is built with: `unit` in the images, else `nobody`.
    fn runs_as(&self, app: &Value) -> Option<(u32, u32)> {
        let uid = self.uid()?;
        let text = fs::read_to_string(self.etc.join("passwd")).unwrap_or_default();
        let users: HashMap<_, _> = text.lines().filter_map(user).collect();
        if uid != 0 {
            return Some(users.values().find(|(known, _)| *known == uid).copied().unwrap_or((uid, uid)));
        }
        let named = app.get("user").and_then(Value::as_str).map(str::to_owned).or_else(|| self.option("--user"));
        let (uid, own) = *match named {
            Some(name) => users.get(name.as_str()),
            None => users.get("unit").or_else(|| users.get("nobody")),
        }?;
        let groups = fs::read_to_string(self.etc.join("group")).unwrap_or_default();
        let group = app.get("group").and_then(Value::as_str);
        let gid = group.and_then(|name| {
            groups.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
        });
        Some((uid, gid.unwrap_or(own)))
    }

    /// An option of the running unitd, whose title keeps its command line.
    fn option(&self, name: &str) -> Option<String> {
        let pid = self.peer?.pid?.to_string();
        let title = fs::read(self.proc.join(pid).join("cmdline")).ok()?;
        let title = String::from_utf8_lossy(&title).replace(['\0', ']'], " ");
        let mut words = title.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).map(str::to_owned)
    }
}

fn kind(file: &str) -> &'static str {
    if file == "group" { "group" } else { "user" }
}

/// `name:x:uid:gid:…`
fn user(line: &str) -> Option<(&str, (u32, u32))> {
    let mut parts = line.split(':');
    let (name, uid, gid) = (parts.next()?, parts.nth(1)?, parts.next()?);
    Some((name, (uid.parse().ok()?, gid.parse().ok()?)))
}

fn ours() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// `*:80`, `1.2.3.4:80`, `[::1]:80`; none for a Unix socket.
fn address(listener: &str) -> Option<SocketAddr> {
    match listener.strip_prefix('*') {
        Some(port) => format!("0.0.0.0{port}").parse().ok(),
        None => listener.parse().ok(),
    }
}

/// Who listens on a port, if that can be seen: `pid 7 (nginx)`. /proc/net/tcp names the socket by its
/// inode: `sl local_address rem_address st … uid timeout inode`, state 0A for one that listens.
fn owner(proc: &Path, port: u16) -> Option<String> {
    let tables = ["net/tcp", "net/tcp6"].map(|name| fs::read_to_string(proc.join(name)).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let listens = words.get(3) == Some(&"0A") && words.get(1)?.ends_with(&format!(":{port:04X}"));
        listens.then(|| words.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    fs::read_dir(proc).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))?;
        let mut open = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        open.any(|fd| fd.path().read_link().is_ok_and(|link| link == Path::new(&inode))).then(|| {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("pid {name} ({})", comm.trim())
        })
    })
}

/// Where the images have the Python that Unit's module is built for, and PATH.
fn interpreter(version: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(format!("python{version}"))).find(|path| path.exists())
}

/// What `import.py` is to do.
fn job(app: &Value, site: Option<PathBuf>) -> Value {
    let path = match app.get("path") {
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
    let targets: Vec<_> = match app.get("targets").and_then(Value::as_object) {
        Some(targets) => targets.values().map(target).collect(),
        None => vec![target(app)],
    };
    json!({ "chdir": app["working_directory"], "path": path, "site": site, "targets": targets })
}

/// What to change, by the last line of what Python said.
fn hint(last: &str, app: &Value) -> String {
    if last.starts_with("ModuleNotFoundError") {
        let place = match (app.get("path"), app.get("home")) {
            (None, _) => "\"path\" is missing: it is where the application's own modules are",
            (_, None) => {
                "a package is looked for in \"home\", which is missing here, and the application's own modules in \"path\""
            }
            _ => {
                "a package must be in \"home\": is it in the requirements? The application's own modules are looked for in \"path\""
            }
        };
        return place.into();
    }
    if last.starts_with("module \"") {
        return "name it as \"callable\"".into();
    }
    if last.starts_with("PermissionError") {
        return "the application runs as its \"user\", not as unitd's: that user must be able to read it".into();
    }
    "the application fails when it is loaded, with any server".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn scene(dir: &Path) -> Scene {
        Scene {
            proc: dir.join("proc"),
            etc: dir.join("etc"),
            peer: Some(Peer { pid: Some(1), uid: 0 }),
            network: true,
            files: true,
            status: json!({"modules": {"python": {"version": "3.99.1", "lib": dir.join("python.so")}}}),
            before: json!({"listeners": {}, "applications": {}}),
        }
    }

    fn told(scene: &Scene, dir: &Path, wanted: Value) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(scene.explain("/config", &wanted, Deadline::after(Duration::from_secs(9))));
        let Some(found) = found else { return "nothing".into() };
        let text = format!("{}\n{}\nhint: {}", found.why, found.excerpt.unwrap_or_default(), found.hint);
        text.replace(&*dir.to_string_lossy(), "[TMP]")
    }

    fn app(more: Value) -> Value {
        let mut app = json!({"type": "python"});
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"applications": {"a": app}})
    }

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("python.so"), "").unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        // Applications run as whoever runs the tests, who can read the interpreter.
        let (uid, gid) = (ours(), rustix::process::getegid().as_raw());
        fs::write(dir.path().join("etc/passwd"), format!("root:x:0:0::/:\nme:x:7:8::/:\nunit:x:{uid}:{gid}::/:\n"))
            .unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\n").unwrap();
        dir
    }

    #[test]
    fn a_port_that_is_taken() {
        let dir = dir();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = taken.local_addr().unwrap().to_string();
        let real = Scene { proc: "/proc".into(), ..scene(dir.path()) };
        let wanted = json!({"listeners": {&name: {"pass": "routes"}}});
        let text =
            told(&real, dir.path(), wanted.clone()).replace(&taken.local_addr().unwrap().port().to_string(), "[PORT]");
        let text = text.replace(&std::process::id().to_string(), "[PID]");
        let comm = text[text.find('(').unwrap()..=text.find(')').unwrap()].to_owned();
        assert_snapshot!(text.replace(&comm, "(…)"), @r#"
        the listener "127.0.0.1:[PORT]" cannot be had: port [PORT] is taken by pid [PID] (…)

        hint: containers of a Pod share its ports: give the listener or the other process another one
        "#);
        // It is Unit's own.
        let own = Scene { before: wanted.clone(), ..scene(dir.path()) };
        assert_eq!(told(&own, dir.path(), wanted.clone()), "nothing");
        let elsewhere = Scene { network: false, ..scene(dir.path()) };
        assert_eq!(told(&elsewhere, dir.path(), wanted), "nothing");
    }

    #[test]
    fn an_address_of_another_machine() {
        let dir = dir();
        assert_snapshot!(told(&scene(dir.path()), dir.path(), json!({"listeners": {"192.0.2.1:8300": {}}})), @r#"
        the listener "192.0.2.1:8300" cannot be had: no network interface here has that address

        hint: listen on "*:8300"
        "#);
    }

    #[test]
    fn a_user_that_unit_cannot_become() {
        let dir = dir();
        let scene = Scene { peer: Some(Peer { pid: Some(1), uid: 999 }), ..scene(dir.path()) };
        assert_snapshot!(told(&scene, dir.path(), app(json!({"user": "me"}))), @r#"
        application "a" names a user or group, but Unit runs as uid 999 and cannot switch

        hint: take "user" and "group" out of it: it then runs as uid 999; or run Unit as root
        "#);
    }

    #[test]
    fn a_user_or_group_that_is_missing() {
        let dir = dir();
        assert_snapshot!(told(&scene(dir.path()), dir.path(), app(json!({"user": "ghost"}))), @r#"
        application "a": there is no user "ghost" in this container's /etc/passwd

        hint: name one that the image has, or leave "user" out
        "#);
        assert_snapshot!(told(&scene(dir.path()), dir.path(), app(json!({"user": "me", "group": "me"}))), @r#"
        application "a": there is no group "me" in this container's /etc/group

        hint: name one that the image has, or leave "group" out
        "#);
    }

    #[test]
    fn a_module_whose_file_is_gone() {
        let dir = dir();
        fs::remove_file(dir.path().join("python.so")).unwrap();
        assert_snapshot!(told(&scene(dir.path()), dir.path(), app(json!({}))), @r#"
        application "a": Unit's module for python is gone: [TMP]/python.so does not exist

        hint: is a volume mounted over the image's modules? unitd finds them at its start, and loads them for each application
        "#);
    }

    #[test]
    fn a_home_that_is_wrong() {
        let dir = dir();
        let home = dir.path().join("venv");
        let told = || told(&scene(dir.path()), dir.path(), app(json!({"home": home})));
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv is no directory

        hint: is the volume mounted in this container, at this path? Paths are those of Unit's container
        "#);
        fs::create_dir_all(home.join("lib/python3.12")).unwrap();
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv has no lib/python3.99, which this Unit needs: it was made by Python 3.12

        hint: build the environment with the Python of Unit's image: `podstrap init --python`, in an init image with that version
        "#);
        fs::create_dir_all(home.join("lib/python3.99")).unwrap();
        assert_snapshot!(told(), @r#"
        application "a": its "home" [TMP]/venv has no pyvenv.cfg, so it is no virtual environment

        hint: name the directory that `podstrap init --venv-final-path` built
        "#);
        assert_snapshot!(super::tests::told(&scene(dir.path()), dir.path(), app(json!({"working_directory": "/no/where"}))), @r#"
        application "a": its "working_directory" /no/where is no directory

        hint: is the volume mounted in this container, at this path? Paths are those of Unit's container
        "#);
        let root = |php| super::tests::told(&scene(dir.path()), dir.path(), app(php));
        let told = root(json!({"type": "php", "root": "/no/where"}));
        assert_snapshot!(told, @r#"
        application "a": its "root" /no/where is no directory

        hint: is the volume mounted in this container, at this path? Paths are those of Unit's container
        "#);
        assert_eq!(root(json!({"targets": {"x": {"root": "/no/where"}}})), told);
    }

    /// With the Python of this machine in the place of Unit's.
    #[test]
    fn an_application_that_cannot_be_loaded() {
        let found = std::process::Command::new("python3")
            .args(["-c", "import sys; print(sys.executable); print('%d.%d.0' % sys.version_info[:2])"])
            .output()
            .unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        let (python, version) = found.trim().split_once('\n').unwrap();
        let dir = dir();
        // As nobody: what is in a directory of root's alone cannot be read.
        let open =
            |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        open(dir.path());
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
            // Where Python ends a line is its version's matter: it may underline.
            let text = told(&scene, dir.path(), app(all));
            text.lines().filter(|line| !line.trim_matches([' ', '^', '~']).is_empty()).collect::<Vec<_>>().join("\n")
        };
        assert_snapshot!(load("import os\nimport nosuchpackage\n", json!({})), @r#"
        application "a" cannot be loaded: ModuleNotFoundError: No module named 'nosuchpackage'
        Traceback (most recent call last):
          File "[TMP]/app/wsgi.py", line 2, in <module>
            import nosuchpackage
        ModuleNotFoundError: No module named 'nosuchpackage'
        hint: a package must be in "home": is it in the requirements? The application's own modules are looked for in "path"
        "#);
        assert_snapshot!(load("def app(environ, start): pass\n", json!({})), @r#"
        application "a" cannot be loaded: module "wsgi" has no "application"; what can be called in it: app
        hint: name it as "callable"
        "#);
        assert_snapshot!(load("def make():\n    raise ValueError('no DSN')\n", json!({"callable": "make", "factory": true})), @r#"
        application "a" cannot be loaded: ValueError: no DSN
        Traceback (most recent call last):
          File "[TMP]/app/wsgi.py", line 2, in make
            raise ValueError('no DSN')
        ValueError: no DSN
        hint: the application fails when it is loaded, with any server
        "#);
        assert_snapshot!(load("application = 1\n", json!({})), @r#"
        application "a" cannot be loaded: "application" in module "wsgi" cannot be called: it is of type int
        hint: the application fails when it is loaded, with any server
        "#);
        // What Unit would do, done here, works: so it is something else.
        let reads = "import os\nos.environ['DSN']\nassert os.getcwd() == os.path.dirname(__file__)\ndef application(*_): pass\n";
        let more = json!({"environment": {"DSN": "x"}, "working_directory": dir.path().join("app")});
        assert_eq!(load(reads, more), "nothing");
        assert!(load(reads, json!({})).contains("KeyError: 'DSN'"));
    }

    #[test]
    fn an_executable_that_is_none() {
        let dir = dir();
        let app = app(json!({"type": "external", "executable": dir.path().join("python.so")}));
        assert_snapshot!(told(&scene(dir.path()), dir.path(), app.clone()), @r#"
        application "a": its "executable" [TMP]/python.so is no executable file

        hint: is the volume mounted in this container, at this path? Paths are those of Unit's container
        "#);
        fs::set_permissions(dir.path().join("python.so"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(told(&scene(dir.path()), dir.path(), app), "nothing");
    }

    #[test]
    fn addresses_of_listeners() {
        assert_eq!(address("*:80").unwrap().to_string(), "0.0.0.0:80");
        assert_eq!(address("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(address("unix:/x"), None);
    }

    #[test]
    fn an_application_runs_as_its_user() {
        let dir = dir();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\nme:x:7:8::/:\nnobody:x:65534:65534::/:\n").unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\nus:x:9:me\n").unwrap();
        let root = scene(dir.path());
        assert_eq!(root.runs_as(&json!({})), Some((65534, 65534)));
        assert_eq!(root.runs_as(&json!({"user": "me"})), Some((7, 8)));
        assert_eq!(root.runs_as(&json!({"user": "me", "group": "us"})), Some((7, 9)));
        assert_eq!(root.runs_as(&json!({"user": "ghost"})), None);
        let other = |uid| Scene { peer: Some(Peer { pid: Some(1), uid }), ..scene(dir.path()) }.runs_as(&json!({}));
        assert_eq!((other(7), other(12345)), (Some((7, 8)), Some((12345, 12345))));
    }

    #[test]
    fn the_user_is_the_one_of_the_option() {
        let dir = dir();
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/cmdline"), "unit: main v1.35.0 [unitd --no-daemon --user me]\0").unwrap();
        assert_eq!(scene(dir.path()).option("--user").as_deref(), Some("me"));
        assert_eq!(scene(dir.path()).option("--group"), None);
    }
}
