//! A run leaves no process behind, however it ends and whatever its children do to survive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podstrap::plan::Target;
use podstrap::retry::Deadline;
use podstrap::volume::Volume;

use crate::support::article::Article;
use crate::support::git::{GitServer, Repo};
use crate::support::index;
use crate::support::namespaces::{first_process, namespaced};
use crate::support::sandbox::{Ran, Sandbox};

/// A build backend (PEP 517) that leaves processes that are hard to end: a daemon in its own session, without its
/// parent and with signals ignored, and orphans that have exited. `HANG=build` makes the backend ignore signals
/// and never finish, `HANG=no` makes it fail, and `HANG=compile` builds a package that takes long to compile.
const BACKEND: &str = r#"
import os, signal, sys, time, zipfile

def orphan(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)
    os.wait()

def daemon():
    for number in (0, 1, 2):  # else pip and uv wait for its end
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    open(os.path.join(os.environ["MARK"], "daemon"), "w").close()
    time.sleep(600)
    os._exit(0)

def build_wheel(directory, settings=None, metadata=None):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(5):
        orphan(lambda: os._exit(0))
    orphan(daemon)
    while not os.path.exists(os.path.join(os.environ["MARK"], "daemon")):
        time.sleep(0.01)
    hang = os.environ.get("HANG")
    if hang == "build":
        time.sleep(600)
    if hang == "no":
        sys.exit("no wheel today")
    name = "stubborn-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("stubborn/__init__.py", "")
        for number in range(20 if hang == "compile" else 0):
            wheel.writestr("stubborn/module%d.py" % number, "a = 1\n" * 200_000)
        wheel.writestr("stubborn-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: stubborn\nVersion: 1.0\n")
        wheel.writestr("stubborn-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("stubborn-1.0.dist-info/RECORD", "")
    return name
"#;

const PROJECT: &str = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
    [project]\nname = \"stubborn\"\nversion = \"1.0\"\n";

/// A phrase of the compiler's script, which is an argument of the process.
const COMPILES: &str = "depend on time stamps";

/// An app with a requirement that [`BACKEND`] builds.
struct App {
    sandbox: Sandbox,
    git: GitServer,
}

impl App {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let repo = Repo::new(&sandbox.path("repos/app.git"));
        repo.file("requirements.txt", "./stubborn\n")
            .file("stubborn/pyproject.toml", PROJECT)
            .file("stubborn/backend.py", BACKEND)
            .commit("first");
        let git = GitServer::start(&sandbox.path("repos"));
        Self { sandbox, git }
    }

    /// `podstrap init`, marked for [`App::left`].
    fn init(&self, engine: &str) -> Command {
        let engine = if engine == "uv" { index::uv() } else { PathBuf::from(engine) };
        let mut command = self.sandbox.podstrap();
        command.arg("init").args(["--repo", &self.git.url("app.git"), "--engine"]).arg(engine);
        command.arg("--root").arg(self.sandbox.root());
        command.env("MARK", self.sandbox.path(""));
        command
    }

    /// Starts the command with stderr in a file.
    fn start(&self, command: &mut Command) -> Child {
        let _ = fs::remove_file(self.sandbox.path("daemon"));
        let log = fs::File::create(self.sandbox.path("stderr")).unwrap();
        command.stdin(Stdio::null()).stderr(log).spawn().unwrap()
    }
    fn log(&self) -> String {
        fs::read_to_string(self.sandbox.path("stderr")).unwrap()
    }
    fn run(&self, command: &mut Command) -> Ran {
        let _ = fs::remove_file(self.sandbox.path("daemon"));
        self.sandbox.run(command)
    }

    /// The running processes of this test whose arguments contain the text: id and arguments.
    fn running(&self, text: &str) -> Vec<(i32, String)> {
        let mark = format!("MARK={}\0", self.sandbox.path("").display());
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            String::from_utf8_lossy(&environment).contains(&mark).then_some(())?;
            let arguments = fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&arguments).replace('\0', " ")))
        });
        processes.filter(|(_, arguments)| arguments.contains(text)).collect()
    }

    fn until(&self, what: &str, child: &mut Child, reached: &dyn Fn() -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !reached() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "{what} was never seen ({ended:?}): {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn assert_nothing_is_left(&self, when: &str) {
        for _ in 0..2 {
            assert_eq!(self.running(""), [], "left {when}");
            // A process within execve(2) has no environment for a moment.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn kill(signal: &str, pid: i32) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
}

impl Drop for App {
    /// Kills the processes of a failed test; they would keep its output open.
    fn drop(&mut self) {
        for (pid, _) in self.running("") {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
    }
}

/// The zombies among a process's children.
fn zombies(pid: i32) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let stats = list.split_whitespace().filter_map(|child| fs::read_to_string(format!("/proc/{child}/stat")).ok());
    stats.filter(|stat| stat.contains(") Z ")).collect()
}

fn script(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let path = sandbox.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// An interpreter that hangs when podstrap creates the environment, with a child in another session.
fn hanging_python(sandbox: &Sandbox) -> PathBuf {
    let hangs = "#!/bin/sh\ntrap '' TERM INT\nsetsid sleep 600 &\nsetsid sleep 601 >/dev/null 2>&1 &\nsleep 602\n";
    let hangs = script(sandbox, "hangs", hangs);
    script(sandbox, "answers", &format!("#!/bin/sh\necho 3 13\necho {}\n", hangs.display()))
}

/// Sends the signal when `reached`, to podstrap as an ordinary process and as PID 1 of a namespace. podstrap must
/// end everything within a second, with the signal's exit code.
fn ends_by_signal(phase: &str, app: &App, command: &dyn Fn() -> Command, reached: &dyn Fn() -> bool) {
    let first = namespaced(&command(), "exec \"$@\"");
    for (mut command, first) in first.into_iter().map(|command| (command, true)).chain([(command(), false)]) {
        let (signal, code) = if first { ("INT", 130) } else { ("TERM", 143) };
        let what = format!("{phase}, PID 1: {first}");
        let mut child = app.start(&mut command);
        app.until(&what, &mut child, reached);
        let pid = if first { first_process(&child) } else { child.id().cast_signed() };
        // podstrap reaps orphans while the build still runs.
        let soon = Instant::now() + Duration::from_secs(1);
        while !zombies(pid).is_empty() {
            assert!(Instant::now() < soon, "{what}: zombies stay: {:?}", zombies(pid));
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Instant::now();
        kill(signal, pid);
        let status = child.wait().unwrap();
        let took = sent.elapsed();
        assert_eq!(status.code(), Some(code), "{what}: {}", app.log());
        assert!(took < Duration::from_secs(1), "{what} took {took:?}");
        app.assert_nothing_is_left(&what);
    }
}

#[test]
fn a_signal_ends_the_clone() {
    let app = App::new();
    app.git.instead(|_| {
        std::thread::sleep(Duration::from_secs(3));
        None
    });
    let clone = || {
        let mut command = app.init("pip");
        command.args(["--venv", "none"]);
        command
    };
    // One request each time: podstrap sends nothing more while it waits for the answer.
    let seen = std::cell::Cell::new(0);
    let asked = || {
        let before = seen.replace(app.git.seen().len());
        seen.get() > before
    };
    ends_by_signal("clone", &app, &clone, &asked);
}

#[test]
fn a_signal_ends_the_making_of_the_environment() {
    let app = App::new();
    let python = hanging_python(&app.sandbox);
    let venv = || {
        let mut command = app.init("pip");
        command.arg("--python").arg(&python);
        command
    };
    ends_by_signal("venv", &app, &venv, &|| app.running("sleep 60").len() == 3);
}

#[test]
fn a_signal_ends_a_build_that_does_not_want_to() {
    for engine in ["pip", "uv"] {
        let app = App::new();
        let install = || {
            let mut command = app.init(engine);
            command.env("HANG", "build");
            command
        };
        ends_by_signal(engine, &app, &install, &|| app.sandbox.path("daemon").exists());
    }
}

#[test]
fn a_signal_ends_the_compiler() {
    let app = App::new();
    let compile = || {
        let mut command = app.init("uv");
        command.env("HANG", "compile");
        command
    };
    ends_by_signal("compile", &app, &compile, &|| !app.running(COMPILES).is_empty());
}

#[test]
fn a_signal_ends_the_waiting_for_the_lock() {
    let app = App::new();
    let target = Target { root: app.sandbox.root(), link: None, durable: false };
    let held = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let held = held.block_on(Volume::lock(&target, Deadline::after(Duration::from_secs(9)))).unwrap();
    ends_by_signal("lock", &app, &|| app.init("uv"), &|| app.log().contains("waiting for another podstrap"));
    drop(held);
}

#[test]
fn what_a_build_left_behind_ends_with_it() {
    for engine in ["pip", "uv"] {
        let app = App::new();
        let ran = app.run(&mut app.init(engine));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert!(app.sandbox.path("daemon").exists());
        app.assert_nothing_is_left("after success");

        let ran = app.run(app.init(engine).env("HANG", "no").arg("--refresh"));
        assert_eq!(ran.code, Some(4), "{}", ran.raw);
        assert!(app.sandbox.path("daemon").exists());
        app.assert_nothing_is_left("after a failure");

        let ran = app.run(app.init(engine).env("HANG", "build").args(["--refresh", "--timeout", "5s"]));
        assert_eq!(ran.code, Some(4), "{}", ran.raw);
        assert!(app.sandbox.path("daemon").exists());
        app.assert_nothing_is_left("after the deadline");
    }
}

#[test]
fn what_an_engine_left_behind_does_not_hold_the_run_up() {
    let app = App::new();
    // The sleep inherits podstrap's pipe.
    let uv = format!("#!/bin/sh\nsetsid sleep 605 &\nexec {} \"$@\"\n", index::uv().display());
    let uv = script(&app.sandbox, "uv", &uv);
    let started = Instant::now();
    let ran = app.run(app.init(uv.to_str().unwrap()).args(["--timeout", "60s"]));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
    app.assert_nothing_is_left("after success");
}

#[test]
fn processes_that_were_there_before_are_left_alone() {
    let app = App::new();
    let init = app.init("pip");
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 603 & exec \"$@\"", "sh"]).arg(init.get_program()).args(init.get_args());
    shell.env_clear().envs(init.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = app.run(shell.current_dir(app.sandbox.path("")).stdout(Stdio::null()).stderr(Stdio::null()));
    let left: Vec<_> = app.running("").into_iter().map(|(_, arguments)| arguments).collect();
    assert_eq!((ran.code, left), (Some(0), vec!["sleep 603 ".to_owned()]));
}

#[test]
fn without_a_proc_of_its_own_it_works_as_well() {
    // The outer /proc, where ids mean other processes; then no /proc at all.
    for hide in ["umount -l /proc", "umount -l /proc; mount -t tmpfs none /proc"] {
        let app = App::new();
        let Some(mut command) = namespaced(&app.init("pip"), &format!("{hide}; \"$@\"; exit $?")) else { return };
        command.env("HANG", "no");
        let ran = app.run(&mut command);
        assert_eq!(ran.code, Some(4), "{}", ran.raw);
        assert!(ran.raw.contains("no wheel today"), "{}", ran.raw);
    }
}

#[test]
fn up_ends_what_its_build_and_its_app_started() {
    let app = App::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // The app leaves the same processes as the build.
    app.sandbox.write("served/requirements.txt", "./stubborn\n");
    app.sandbox.write("served/stubborn/pyproject.toml", PROJECT);
    app.sandbox.write("served/stubborn/backend.py", BACKEND);
    app.sandbox.write(
        "served/index.py",
        "import os, sys\nsys.path.insert(0, 'stubborn')\nimport backend\n\
         def sleep():\n    os.execlp('sleep', 'sleep', '604')\n\
         backend.orphan(sleep)\nbackend.orphan(lambda: os._exit(0))\n\
         def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n",
    );
    app.sandbox.write(
        "served/unit.conf.json",
        format!(
            r#"{{"listeners": {{"127.0.0.1:{port}": {{"pass": "applications/app"}}}}, "applications": {{"app":
            {{"type": "python", "path": "/srv/app", "working_directory": "/srv/app", "home": "/srv/app/venv",
            "module": "index"}}}}}}"#
        ),
    );
    let mut up = app.sandbox.podstrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::split_paths(&path).filter(|dir| !dir.join("unitd").exists());
    up.env("PATH", std::env::join_paths(path).unwrap()).env("MARK", app.sandbox.path(""));
    up.args(["up", "--engine", "pip"]).arg(app.sandbox.path("served"));

    let mut child = app.start(&mut up);
    app.until("the server", &mut child, &|| app.log().contains("serving at"));
    let mut names: Vec<_> =
        app.running("").into_iter().map(|(_, arguments)| arguments.split_once(' ').unwrap().0.to_owned()).collect();
    names.sort_by_key(|name| name.rsplit('/').next().map(str::to_owned));
    let names: Vec<_> = names.iter().map(|name| Path::new(name).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["podstrap", "python", "sleep"], "the build left processes: {:?}", app.running(""));
    assert_eq!(zombies(child.id().cast_signed()), [""; 0]);
    kill("TERM", child.id().cast_signed());
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", app.log());
    app.assert_nothing_is_left("after up");
}

#[test]
fn a_signal_is_heard_while_leftovers_are_cleared() {
    use std::time::{Duration, Instant};
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    for dir in 0..40 {
        let dir = article.root(&format!(".podstrap/staging/killed/{dir}"));
        fs::create_dir_all(&dir).unwrap();
        (0..500).for_each(|file| fs::write(dir.join(file.to_string()), "").unwrap());
    }
    let left = || fs::read_dir(article.root(".podstrap/staging/killed")).map_or(0, Iterator::count);
    let child = article.init("auto").stderr(std::process::Stdio::piped()).spawn().unwrap();
    while left() == 40 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Instant::now();
    Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    let ran = article.sandbox.ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(143), "{}", ran.raw);
    assert!(sent.elapsed() < Duration::from_millis(500), "{:?}", sent.elapsed());
    assert!(left() > 0, "no file is left for the next run");
    assert_eq!(article.ok(&mut article.init("auto")).code, Some(0));
    assert_eq!(fs::read_dir(article.root(".podstrap/staging")).unwrap().count(), 0);
}

#[test]
fn a_signal_ends_it_and_is_its_exit_code() {
    use std::time::{Duration, Instant};
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let article = Article::new();
        article.git.instead(|_| {
            std::thread::sleep(Duration::from_secs(3));
            None
        });
        let child = article.init("auto").stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let sent = Instant::now();
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        let ran = article.sandbox.ran(&child.wait_with_output().unwrap());
        assert!(sent.elapsed() < Duration::from_secs(1));
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
    }
}
