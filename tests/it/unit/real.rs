//! `apply` with a real Unit: `PODSTRAP_TEST_UNITD=/usr/sbin/unitd cargo test -- --ignored unit`.
//!
//! unitd needs its Python module (3.11 for the recorded types) and port 8300.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use podstrap::error::Result;
use podstrap::plan::Control;
use podstrap::retry::Deadline;
use podstrap::unit::{self, Applied};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::errors::{as_nobody, refused};
use crate::support::fake_unit::{Asked, Came, Case, ask, shown};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{AMPLE, MS, REFUSED, body_of, run, said, setup};

/// Held by each test, because all use port 8300.
static PORT: Mutex<()> = Mutex::new(());

/// The directories for one unitd after another.
pub(super) struct Place {
    pub(super) sandbox: Sandbox,
    _port: MutexGuard<'static, ()>,
}

/// A running unitd; dropping it ends all its processes.
pub(super) struct Unitd(Child);

impl Place {
    pub(super) fn new() -> Self {
        let port = PORT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sandbox = Sandbox::new();
        // Applications run as the user nobody.
        std::fs::set_permissions(sandbox.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["state", "tmp"] {
            std::fs::create_dir(sandbox.path(name)).unwrap();
        }
        Self { sandbox, _port: port }
    }
    pub(super) fn socket(&self) -> PathBuf {
        self.sandbox.path("socket")
    }
    pub(super) fn control(&self) -> Control {
        Control::Unix(self.socket())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.sandbox.path(""))
            .arg("--control")
            .arg(format!("unix:{}", self.socket().display()))
            .arg("--pid")
            .arg(self.sandbox.path("unit.pid"))
            .arg("--statedir")
            .arg(self.sandbox.path("state"))
            .arg("--tmpdir")
            .arg(self.sandbox.path("tmp"))
            .arg("--log")
            .arg(self.sandbox.path("unit.log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The arguments of unitd, without --no-daemon.
    pub(super) fn arguments(&self) -> Vec<String> {
        self.command(&unitd()).get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Starts unitd in the foreground, as PID 1 of a container would run.
    pub(super) fn start(&self) -> Unitd {
        Unitd(self.command(&unitd()).arg("--no-daemon").process_group(0).spawn().expect("unitd starts"))
    }

    /// Starts unitd and waits until it answers.
    pub(super) fn started(&self) -> Unitd {
        let unitd = self.start();
        self.await_socket();
        assert!(shown(&self.socket()).is_some(), "{}", self.log());
        unitd
    }

    /// Starts unitd again after a kill. While processes of the killed one still hold the socket or the port, it would exit.
    pub(super) fn restarted(&self) -> Unitd {
        let started = Instant::now();
        let lives = || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
                || std::net::TcpStream::connect(("127.0.0.1", 8300)).is_ok()
        };
        while lives() {
            assert!(started.elapsed() < AMPLE, "unitd does not end: {}", self.log());
            std::thread::sleep(MS(2));
        }
        self.started()
    }

    fn await_socket(&self) {
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(started.elapsed() < AMPLE, "unitd does not start: {}", self.log());
            std::thread::sleep(MS(2));
        }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.sandbox.path("unit.log")).unwrap_or_default()
    }

    pub(super) fn apply(&self, config: impl Into<Vec<u8>>) -> Result<Applied> {
        let config = setup(config);
        run(unit::apply(Some(&self.control()), &config, Deadline::after(AMPLE)))
    }

    /// Writes a module and returns the configuration that serves it on port 8300.
    pub(super) fn app(&self, source: &str, more: &str) -> String {
        self.sandbox.write("app/wsgi.py", source);
        let app = self.sandbox.path("app");
        let app = app.display();
        format!(
            "// as in a ConfigMap\n{{\n  \"listeners\": {{\"127.0.0.1:8300\": {{\"pass\": \"applications/app\",}},}},\n  \
             \"applications\": {{\n    /* one */\n    \"app\": {{\n      \"type\": \"python\", \"processes\": 1,\n      \
             \"working_directory\": \"{app}\", \"path\": \"{app}\", \"module\": \"wsgi\",{more}\n    }},\n  }},\n}}\n"
        )
    }
}

pub(super) const HELLO: &str = "def application(environ, start):\n    start('200 OK', [])\n    return [b'hello']\n";

pub(super) fn unitd() -> PathBuf {
    std::env::var_os("PODSTRAP_TEST_UNITD").expect("PODSTRAP_TEST_UNITD names a unitd").into()
}

/// Whether unitd is FreeUnit. The fork's first version follows NGINX Unit's last one.
pub(super) fn is_freeunit() -> bool {
    let output = Command::new(unitd()).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("unit version: 1.")).expect("a version");
    version.split('.').next().unwrap().parse::<u32>().unwrap() > 35
}

impl Unitd {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
    pub(super) fn terminate(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
    /// Kills all processes; only the socket's file is left.
    pub(super) fn kill(mut self) {
        kill_process_group(self.pid(), Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Unitd {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process(self.pid(), Signal::TERM);
            for _ in 0..500 {
                if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                    break;
                }
                std::thread::sleep(MS(10));
            }
        }
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.0.wait();
    }
}

impl Drop for Place {
    /// Ends a daemon that a failed test left.
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.sandbox.path("unit.pid")).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
            std::thread::sleep(MS(200));
        }
    }
}

/// A PUT of another client.
pub(super) fn put(socket: &Path, body: impl Into<Vec<u8>>) {
    let came = ask(socket, &Case::step(&Asked::put_config(body)), AMPLE);
    assert!(matches!(&came, Came::Response(response) if response.status == 200), "{came:?}");
}

fn probe() -> String {
    let url = "http://127.0.0.1:8300/".parse().unwrap();
    String::from_utf8(run(unit::probe(&url, Deadline::after(AMPLE))).unwrap().body).unwrap()
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_return_is_applied_before_unit_even_starts() {
    let place = Place::new();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(MS(200));
            place.start()
        });
        let started = Instant::now();
        let applied = place.apply(body_of("put-return")).unwrap();
        assert!(applied.server.starts_with("Unit/") || applied.server.starts_with("FreeUnit/"), "{}", applied.server);
        println!("applied {:?} after unitd was started", started.elapsed().saturating_sub(MS(200)));
        assert_eq!(probe(), "");
        drop(late.join().unwrap());
    });
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn an_app_with_comments_and_trailing_commas_is_served() {
    let place = Place::new();
    let _unitd = place.start();
    place.apply(place.app(HELLO, " // no home")).unwrap();
    assert_eq!(probe(), "hello");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_unit_that_is_controlled_over_tcp_is_configured_too() {
    let place = Place::new();
    let mut command = Command::new(unitd());
    let socket = format!("unix:{}", place.socket().display());
    for argument in place.command(&unitd()).get_args() {
        command.arg(if argument == socket.as_str() { "127.0.0.1:8301".as_ref() } else { argument });
    }
    let _unitd = Unitd(command.arg("--no-daemon").process_group(0).stderr(Stdio::null()).spawn().unwrap());
    let control = Control::Http("http://127.0.0.1:8301".parse().unwrap());
    let apply = |config: String| run(unit::apply(Some(&control), &setup(config), Deadline::after(AMPLE)));
    assert_eq!(apply(place.app(HELLO, "")).unwrap().sent, ["/config"]);
    assert_eq!(probe(), "hello");
    assert!(apply(place.app(HELLO, "")).unwrap().sent.is_empty());
    let error = apply(place.app(HELLO, "\"modul\": 1")).unwrap_err().to_string();
    assert!(error.contains("Unknown parameter \"modul\""), "{error}");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn every_spelling_is_recognised_when_it_is_read_back() {
    let place = Place::new();
    let _unitd = place.started();
    let config = r#"{
        "listeners": {"127.0.0.1:8300": {"pass": "upstreams\/a"}}, // an escaped slash
        "upstreams": {"a": {"servers": {
            "127.0.0.1:1": {"weight": 0.50}, "127.0.0.1:2": {"weight": 1.0e0}, "127.0.0.1:3": {"weight": 1E+1}
        }}},
        "routes": {"\u00e9\ud83d\ude00 \"\\ \b\f\n\r\t\u0001": [{"match": {"uri": ["", "/é"]}, "action": {"return": 2e2}},],},
        "settings": {"http": {"server_version": false}},
    }"#;
    place.apply(config).unwrap();
    // Applying it again, on top of itself, succeeds too.
    place.apply(config).unwrap();
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn refusals_read_as_with_the_fake() {
    let place = Place::new();
    let _unitd = place.start();
    for case in REFUSED {
        let error = place.apply(body_of(case)).unwrap_err();
        let text = format!("exit 7\n{}", said(&place.sandbox, &error));
        if is_freeunit() {
            // FreeUnit also gives a location for errors for which NGINX Unit gives none.
            let first = |text: &str| text.lines().find(|line| line.contains("because")).map(str::to_owned);
            assert_eq!(first(&text), first(&refused(case)), "{case}");
            assert!(text.lines().any(|line| line.starts_with("  | ") && line.ends_with('^')), "{case}: {text}");
        } else {
            assert_eq!(text, refused(case), "{case}");
        }
    }
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn what_unit_does_not_say_is_found_out() {
    let place = Place::new();
    let _unitd = place.start();
    let nobodys = place.sandbox.path("root-only");
    std::fs::create_dir(&nobodys).unwrap();
    std::fs::set_permissions(&nobodys, std::fs::Permissions::from_mode(0o700)).unwrap();
    let fails = |source: &str, more: &str, why: &str| {
        let error = place.apply(place.app(source, more)).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind().exit_code(), 7);
        assert!(text.contains("because: Failed to apply new") && text.contains(why), "{why}: {text}");
        text
    };
    let text =
        fails("import nosuchpackage\n", "", "cannot be loaded: ModuleNotFoundError: No module named 'nosuchpackage'");
    assert!(text.contains("wsgi.py\", line 1, in <module>"), "{text}");
    fails(HELLO, "\"callable\": \"app\"", "module \"wsgi\" has no \"app\"; its callables: application");
    fails("def make():\n    raise KeyError('DSN')\n", "\"callable\": \"make\", \"factory\": true", "KeyError: 'DSN'");
    fails(HELLO, "\"home\": \"/nonexistent/venv\"", "its \"home\" /nonexistent/venv is not a directory");
    place.sandbox.write("venv/lib/python3.1/x", "");
    let home = format!("\"home\": {:?}", place.sandbox.path("venv"));
    fails(HELLO, &home, "which this Unit needs: it is for Python 3.1");
    fails(HELLO, "\"user\": \"nosuchuser\"", "no user \"nosuchuser\"");
    fails(HELLO, "\"group\": \"nosuchgroup\"", "no group \"nosuchgroup\"");
    // The application runs as another user than podstrap.
    let reads = format!("import os\nos.listdir({nobodys:?})\n{HELLO}");
    fails(&reads, "", "PermissionError");
    let _taken = std::net::TcpListener::bind("127.0.0.1:8300").unwrap();
    let text = place.apply(body_of("put-return")).unwrap_err().to_string();
    assert!(text.contains(&format!("port 8300 is in use by pid {} (", std::process::id())), "{text}");
}

/// With Unit in another PID namespace podstrap still sees its ports, but possibly not its files.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn what_cannot_be_found_out_is_looked_up_in_the_log() {
    let place = Place::new();
    let _unitd = place.start();
    let client = unit::Client { proc: place.sandbox.path("no-proc"), ..unit::Client::default() };
    let broken = setup(place.app("import nosuchpackage\n", ""));
    let error = run(client.apply(Some(&place.control()), &broken, Deadline::after(AMPLE))).unwrap_err();
    assert!(error.to_string().contains("read Unit's log for the reason"), "{error}");
    // The source fails only in Unit's own process, so podstrap's own tries find nothing.
    let source =
        format!("import sys\nif 'unit' in open('/proc/self/comm').read():\n    sys.exit('it is unit')\n{HELLO}");
    let text = place.apply(place.app(&source, "")).unwrap_err().to_string();
    assert!(
        text.contains("  | it is unit\n") && text.contains("unit.log\nhint: run `podstrap check CONFIG --tree DIR`"),
        "{text}"
    );
}

/// Unit does not run as root, so it cannot switch users, and its modules may be missing.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_unit_without_rights_or_modules_is_told() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can start Unit as another user");
        return;
    }
    let place = Place::new();
    let modules = place.sandbox.path("modules");
    std::fs::create_dir(&modules).unwrap();
    for name in ["state", "tmp", "modules", ""] {
        std::os::unix::fs::chown(place.sandbox.path(name), Some(65534), Some(65534)).unwrap();
    }
    let from = std::env::var_os("PODSTRAP_TEST_UNITD_MODULES")
        .map_or_else(|| unitd().parent().and_then(Path::parent).expect("a prefix").join("modules"), PathBuf::from);
    for module in std::fs::read_dir(&from).expect("the modules of Unit: PODSTRAP_TEST_UNITD_MODULES").flatten() {
        std::fs::copy(module.path(), modules.join(module.file_name())).unwrap();
    }
    let mut command = place.command(&unitd());
    command.arg("--no-daemon").arg("--modulesdir").arg(&modules).uid(65534).gid(65534).process_group(0);
    let _unitd = Unitd(command.spawn().unwrap());
    place.apply(place.app(HELLO, "")).unwrap();
    let text = place.apply(place.app(HELLO, "\"user\": \"root\"")).unwrap_err().to_string();
    assert!(text.contains("but Unit runs as uid 65534 and cannot switch"), "{text}");
    std::fs::remove_dir_all(&modules).unwrap();
    let text = place.apply(place.app(HELLO, "\"prefix\": \"/x\"")).unwrap_err().to_string();
    assert!(text.contains("Unit's module for python is missing"), "{text}");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_put_waits_for_another_ones_slow_app() {
    let place = Place::new();
    let _unitd = place.started();
    let slow = place.app(&format!("import time\ntime.sleep(1)\n{HELLO}"), "");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| put(&place.socket(), slow));
        std::thread::sleep(MS(200));
        let started = Instant::now();
        place.apply(body_of("put-return")).unwrap();
        assert!(started.elapsed() > MS(500), "apply did not wait: {:?}", started.elapsed());
        other.join().unwrap();
    });
    assert!(shown(&place.socket()).unwrap().contains("\"return\": 200"));
}

/// Starts a slow apply, runs `what` on the Unit during it, and starts another Unit. The new Unit must have the
/// configuration in the end.
fn amid_the_put(what: fn(Unitd)) {
    let place = Place::new();
    let unitd = place.started();
    let slow = place.app(&format!("import time\ntime.sleep(1)\n{HELLO}"), "");
    std::thread::scope(|scope| {
        let applies = scope.spawn(|| place.apply(slow));
        std::thread::sleep(MS(400));
        what(unitd);
        std::thread::sleep(MS(100));
        let _next = place.start();
        applies.join().unwrap().unwrap();
        assert_eq!(probe(), "hello");
    });
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_unit_killed_amid_the_put_is_replaced() {
    amid_the_put(Unitd::kill);
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_unit_stopped_amid_the_put_is_replaced() {
    amid_the_put(Unitd::terminate);
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn the_slow_start_of_a_remembered_app_is_waited_for() {
    let place = Place::new();
    let unitd = place.started();
    put(&place.socket(), place.app(&format!("import time\ntime.sleep(1)\n{HELLO}"), ""));
    unitd.terminate();
    let _next = place.start();
    place.apply(body_of("put-return")).unwrap();
    assert!(shown(&place.socket()).unwrap().contains("\"return\": 200"));
}

/// The steps of the images' entrypoint with other paths: a daemon, another program's configuration, a stop, and an
/// exec.
const ENTRYPOINT: &str = r#"#!/bin/sh
set -e
daemon="$1"; shift
"$daemon" "$@"
while [ ! -S "$SOCKET" ]; do sleep 0.01; done
sleep "$BUSY"
while [ ! -e "$GO" ]; do sleep 0.01; done
kill -TERM "$(cat "$PID")"
while [ -S "$SOCKET" ]; do sleep 0.01; done
sleep 0.2
exec "$daemon" --no-daemon "$@"
"#;

fn entrypoint(place: &Place, busy: &str) -> Unitd {
    let script = place.sandbox.write("docker-entrypoint.sh", ENTRYPOINT);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = place.command(&unitd());
    let mut command = Command::new(script);
    command
        .arg(unitd())
        .args(arguments.get_args())
        .env("SOCKET", place.socket())
        .env("PID", place.sandbox.path("unit.pid"))
        .env("GO", place.sandbox.path("go"))
        .env("BUSY", busy)
        .process_group(0);
    Unitd(command.spawn().unwrap())
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn the_entrypoints_daemon_gets_nothing() {
    let place = Place::new();
    let _unitd = entrypoint(&place, "0.5");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            place.await_socket();
            std::thread::sleep(MS(300));
            assert!(
                shown(&place.socket()).unwrap().contains("\"listeners\": {}"),
                "the temporary Unit got the configuration"
            );
            put(&place.socket(), body_of("put-crlf"));
            place.sandbox.write("go", "");
        });
        let started = Instant::now();
        place.apply(place.app(HELLO, "")).unwrap();
        assert!(started.elapsed() > MS(700), "{:?}", started.elapsed());
        println!("applied after {:?}", started.elapsed());
    });
    assert_eq!(probe(), "hello");
}

/// As from another container: the listener's process is unknown.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_daemon_of_another_container_is_seen_through() {
    let place = Place::new();
    let _unitd = entrypoint(&place, "0");
    let client = unit::Client { proc: place.sandbox.path("no-proc"), ..unit::Client::default() };
    let config = setup(place.app(HELLO, ""));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            place.await_socket();
            let started = Instant::now();
            while !shown(&place.socket()).unwrap().contains("applications/app") {
                assert!(started.elapsed() < AMPLE, "not applied to the temporary Unit");
                std::thread::sleep(MS(5));
            }
            // The temporary Unit has the configuration. Let the entrypoint continue.
            put(&place.socket(), body_of("put-crlf"));
            place.sandbox.write("go", "");
        });
        let started = Instant::now();
        run(client.apply(Some(&place.control()), &config, Deadline::after(AMPLE))).unwrap();
        println!("applied after {:?}", started.elapsed());
    });
    assert_eq!(probe(), "hello");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn another_user_is_refused_by_the_kernel() {
    let place = Place::new();
    let _unitd = place.started();
    let text = as_nobody(&place.sandbox);
    assert!(text.contains("permission denied: the socket has mode 0600 and belongs to uid 0"), "{text}");
}

/// Measures the usual case.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_running_unit_is_configured_without_a_pause() {
    let place = Place::new();
    let _unitd = place.started();
    let started = Instant::now();
    place.apply(body_of("put-return")).unwrap();
    println!("applied in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(1));
}
