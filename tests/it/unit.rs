//! Unit's control API: scenarios with a fake (and a real) Unit, and what podstrap says about each
//! bad one.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod contract;
mod directory;
mod hook;
mod kinds;
mod mutations;
mod numbers;
mod real;
mod sidecar;
mod stored;

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use podstrap::config::{Config, read_config};
use podstrap::error::{Error, Result};
use podstrap::plan::Control;
use podstrap::retry::Deadline;
use podstrap::unit::{self, Applied, Setup};

use crate::support::fake_unit::{Asked, Behaviour, CASES, FakeUnit};
use crate::support::http::{Response, Server};
use crate::support::sandbox::Sandbox;

/// A recorded configuration that Unit applies, and what it shows then.
const OURS: &str = "put-return";

fn body_of(case: &str) -> Vec<u8> {
    let case = CASES.iter().find(|found| found.name == case).expect("a recorded case");
    case.asked.as_ref().expect("with a request").body.clone()
}

fn config_of(case: &str) -> Setup {
    setup(body_of(case))
}

fn setup(bytes: impl Into<Vec<u8>>) -> Setup {
    Config { path: "/cfg/unit.json".into(), bytes: bytes.into() }.into()
}

/// Runs a future on a runtime like the binary's.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn within(time: Duration) -> Deadline {
    Deadline::after(time)
}

const SHORT: Duration = Duration::from_millis(300);
const AMPLE: Duration = Duration::from_secs(20);

/// A client for which this process, where the fake runs, is a Unit that stays.
fn client(sandbox: &Sandbox) -> unit::Client {
    process(sandbox, std::process::id(), "unitd", "unit: main v1.35.0 [unitd --no-daemon]");
    process(sandbox, 1, "pause", "/pause");
    unit::Client { sockets: vec![sandbox.path("socket")], proc: sandbox.path("proc"), settle: Duration::ZERO }
}

fn process(sandbox: &Sandbox, pid: u32, comm: &str, words: &str) {
    sandbox.write(&format!("proc/{pid}/comm"), format!("{comm}\n"));
    sandbox.write(&format!("proc/{pid}/cmdline"), words.replace(' ', "\0"));
}

/// Applies OURS at `<sandbox>/socket`.
fn apply(sandbox: &Sandbox, deadline: Duration) -> Result<Applied> {
    apply_case(sandbox, OURS, deadline)
}

fn apply_case(sandbox: &Sandbox, case: &str, deadline: Duration) -> Result<Applied> {
    let control = Control::Unix(sandbox.path("socket"));
    run(client(sandbox).apply(Some(&control), &config_of(case), within(deadline)))
}

/// The error as printed, with what differs between runs replaced.
fn said(sandbox: &Sandbox, error: &Error) -> String {
    let text = error.to_string().replace(&*sandbox.path("").to_string_lossy(), "[TMP]/");
    let rules = [
        (r"\d+ tr(ies|y) in \d+\.\d s", "[N] tries in [TIME]"),
        (r"127\.0\.0\.1:\d{5}", "[HOST]"),
        (r"pid \d+", "pid [PID]"),
        (r"Unit/1\.\d+\.\d+", "Unit/[VERSION]"),
    ];
    rules.iter().fold(text, |text, (from, to)| regex::Regex::new(from).unwrap().replace_all(&text, *to).into_owned())
}

/// The exit code and the text.
fn failed<T: std::fmt::Debug>(sandbox: &Sandbox, result: Result<T>) -> String {
    let error = result.unwrap_err();
    format!("exit {}\n{}", error.kind().exit_code(), said(sandbox, &error))
}

fn later(time: Duration, what: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        what();
    })
}

const MS: fn(u64) -> Duration = Duration::from_millis;

// ---- what goes well ----

#[test]
fn the_bytes_go_as_they_are_and_are_read_back() {
    let sandbox = Sandbox::new();
    let fake = FakeUnit::start(&sandbox.path("socket"));
    let applied = apply_case(&sandbox, "put-comments", AMPLE).unwrap();
    assert_eq!(applied.server, "Unit/1.35.0");
    assert_eq!(applied.control, Control::Unix(sandbox.path("socket")));
    let asked: Vec<String> = fake.log().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect();
    assert_eq!(asked, ["GET /config", "PUT /config", "GET /config"]);
    assert_eq!(fake.log()[1], Asked::put_config(body_of("put-comments")));
    assert_eq!(fake.unknown(), []);
}

#[test]
fn the_request_is_what_unit_can_read() {
    let sandbox = Sandbox::new();
    let listener = UnixListener::bind(sandbox.path("socket")).unwrap();
    let heads = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut heads = Vec::new();
        for body in ["{\"old\": 1}", "{\"success\": \"\"}", "{}"] {
            let mut buffer = vec![0; 1024];
            let mut count = 0;
            let mut stream = listener.accept().unwrap().0;
            // Whoever only asks for the listener's name says nothing.
            while count == 0 {
                count = stream.read(&mut buffer).unwrap();
                if count == 0 {
                    stream = listener.accept().unwrap().0;
                }
            }
            heads.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
        heads
    });
    let config = setup("{}");
    let control = Control::Unix(sandbox.path("socket"));
    // The last look at the listener finds nobody: that is not what this test is about.
    let _ = run(client(&sandbox).apply(Some(&control), &config, within(MS(500))));
    assert_eq!(
        heads.join().unwrap(),
        [
            "GET /config HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "PUT /config HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}",
            "GET /config HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ]
    );
}

#[test]
fn a_socket_that_appears_later_is_found_at_once() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("run/unit/socket");
    let appears = path.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = later(MS(150), move || {
        std::fs::create_dir_all(appears.parent().unwrap()).unwrap();
        sender.send((FakeUnit::start(&appears), Instant::now())).unwrap();
    });
    run(client(&sandbox).apply(Some(&Control::Unix(path)), &config_of(OURS), within(AMPLE))).unwrap();
    let done = Instant::now();
    thread.join().unwrap();
    let (_fake, appeared) = receiver.recv().unwrap();
    // Three exchanges and a poll of 3 ms; much more than that would be a sleep.
    assert!(done.duration_since(appeared) < MS(200), "{:?}", done.duration_since(appeared));
}

#[test]
fn without_an_address_the_first_socket_that_answers_is_used() {
    let sandbox = Sandbox::new();
    let stale = sandbox.path("stale");
    drop(UnixListener::bind(&stale).unwrap());
    std::fs::create_dir(sandbox.path("directory")).unwrap();
    let _fake = FakeUnit::start(&sandbox.path("live"));
    let sockets = ["absent", "no/directory", "stale", "directory", "live"].map(|name| sandbox.path(name)).to_vec();
    let client = unit::Client { sockets, ..client(&sandbox) };
    let applied = run(client.apply(None, &config_of(OURS), within(AMPLE))).unwrap();
    assert_eq!(applied.control, Control::Unix(sandbox.path("live")));
}

#[test]
fn a_stale_socket_is_waited_out() {
    let sandbox = Sandbox::new();
    FakeUnit::start(&sandbox.path("socket")).kill();
    let path = sandbox.path("socket");
    let thread = later(MS(100), move || {
        let fake = FakeUnit::start(&path);
        std::thread::sleep(AMPLE.min(MS(1000)));
        drop(fake);
    });
    apply(&sandbox, AMPLE).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_slow_first_answer_is_waited_for() {
    let sandbox = Sandbox::new();
    let behaviour = Behaviour { warm_up: MS(200), ..Behaviour::default() };
    let fake = FakeUnit::with(&sandbox.path("socket"), behaviour);
    apply(&sandbox, AMPLE).unwrap();
    assert_eq!(fake.puts(), 1);
}

#[test]
fn nothing_is_given_to_the_temporary_daemon_of_the_entrypoint() {
    let sandbox = Sandbox::new();
    let me = std::process::id();
    let client = client(&sandbox);
    process(&sandbox, 1, "docker-entrypoi", "/bin/sh /usr/local/bin/docker-entrypoint.sh unitd --no-daemon");
    process(&sandbox, me, "unitd", "/usr/sbin/unitd --control unix:/x");
    let path = sandbox.path("socket");
    let temporary = FakeUnit::start(&path);
    let proc = sandbox.path("proc");
    let thread = std::thread::spawn(move || {
        std::thread::sleep(MS(200));
        let puts = temporary.puts();
        temporary.stop();
        std::thread::sleep(MS(50));
        // This process cannot become PID 1 as exec would make it; the same under `pause`.
        std::fs::write(proc.join("1/comm"), "pause").unwrap();
        std::fs::write(proc.join("1/cmdline"), "/pause").unwrap();
        std::fs::write(proc.join(me.to_string()).join("cmdline"), "unit: main [unitd --no-daemon]").unwrap();
        (puts, FakeUnit::start(&path))
    });
    let control = Control::Unix(sandbox.path("socket"));
    run(client.apply(Some(&control), &config_of(OURS), within(AMPLE))).unwrap();
    let (puts, last) = thread.join().unwrap();
    assert_eq!((puts, last.puts()), (0, 1));
}

#[test]
fn a_daemon_of_another_container_is_watched_and_its_successor_gets_the_configuration_too() {
    let sandbox = Sandbox::new();
    // Nothing is known of the listener.
    let unknown = unit::Client { proc: sandbox.path("empty"), settle: MS(600), ..client(&sandbox) };
    let path = sandbox.path("socket");
    let temporary = FakeUnit::start(&path);
    let thread = std::thread::spawn(move || {
        while temporary.puts() == 0 {
            std::thread::sleep(MS(1));
        }
        std::thread::sleep(MS(60));
        // The entrypoint's own configuration, its stop, and the final daemon with what it kept.
        temporary.replace(&body_of("put-crlf"));
        std::thread::sleep(MS(40));
        temporary.stop();
        std::thread::sleep(MS(100));
        let behaviour = Behaviour { config: Some(body_of("put-empty-object")), ..Behaviour::default() };
        FakeUnit::with(&path, behaviour)
    });
    let started = Instant::now();
    let control = Control::Unix(sandbox.path("socket"));
    run(unknown.apply(Some(&control), &config_of(OURS), within(AMPLE))).unwrap();
    assert!(started.elapsed() > MS(800), "it was not watched: {:?}", started.elapsed());
    let last = thread.join().unwrap();
    assert!(last.puts() >= 1);
    assert!(last.config().unwrap().contains("127.0.0.1:8300"));
}

#[test]
fn a_put_that_was_cut_but_applied_is_not_sent_again() {
    let sandbox = Sandbox::new();
    let behaviour = Behaviour { cut_puts: 1, cut_but_applied: true, ..Behaviour::default() };
    let fake = FakeUnit::with(&sandbox.path("socket"), behaviour);
    apply(&sandbox, AMPLE).unwrap();
    assert_eq!(fake.puts(), 1);
}

#[test]
fn a_put_that_was_cut_is_sent_again() {
    let sandbox = Sandbox::new();
    let fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { cut_puts: 2, ..Behaviour::default() });
    apply(&sandbox, AMPLE).unwrap();
    assert_eq!(fake.puts(), 3);
}

#[test]
fn a_put_that_was_cut_is_sent_again_if_podstrap_cannot_read_it() {
    let sandbox = Sandbox::new();
    let fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { cut_puts: 99, ..Behaviour::default() });
    let config = setup("[".repeat(100_000));
    let control = Control::Unix(sandbox.path("socket"));
    let error = run(client(&sandbox).apply(Some(&control), &config, within(AMPLE))).unwrap_err();
    assert!(error.to_string().contains("cut the connection 4 times"), "{error}");
    assert_eq!(fake.puts(), 4);
}

#[test]
fn a_control_address_can_be_tcp() {
    let server = Server::start(|request| {
        let body = if request.method == "PUT" { "{\"success\": \"x\"}" } else { "{\"listeners\": {}}" };
        assert_eq!(request.path(), "/config");
        Response::new(200, body).header("Server", "Unit/1.34.2")
    });
    let config = setup("{\"listeners\": {},}");
    let control = Control::Http(server.url().parse().unwrap());
    let applied = run(unit::apply(Some(&control), &config, within(AMPLE))).unwrap();
    assert_eq!(applied.server, "Unit/1.34.2");
}

#[test]
fn a_probe_waits_until_the_listener_is_well() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(move |_| {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        if first { Response::new(503, "soon") } else { Response::new(404, "who?") }
    });
    let url = server.url().parse().unwrap();
    let answer = run(unit::probe(&url, within(AMPLE))).unwrap();
    assert_eq!((answer.status, answer.body), (404, b"who?".to_vec()));
}

#[test]
fn a_probe_keeps_the_beginning_of_a_long_answer() {
    let server = Server::start(|_| Response::new(200, vec![b'x'; 200_000]));
    let answer = run(unit::probe(&server.url().parse().unwrap(), within(AMPLE))).unwrap();
    assert_eq!(answer.body.len(), 64 * 1024);
}

// ---- what podstrap says about bad input ----

fn read(sandbox: &Sandbox, path: &Path) -> String {
    failed(sandbox, read_config(path))
}

#[test]
fn config_missing() {
    let sandbox = Sandbox::new();
    assert_snapshot!(read(&sandbox, &sandbox.path("unit.json")), @r"
    exit 2
    error: cannot read the configuration [TMP]/unit.json
      because: No such file or directory (os error 2)
    hint: is the ConfigMap or volume mounted there, in this container?
    ");
}

#[test]
fn config_a_directory() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("unit")).unwrap();
    assert_snapshot!(read(&sandbox, &sandbox.path("unit")), @r"
    exit 2
    error: cannot read the configuration [TMP]/unit
      because: it is a directory
    hint: name the file in it: [TMP]/unit/unit.json; a missing subPath also becomes a directory
    ");
}

#[test]
fn config_empty() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("unit.json", "\u{feff} \n\t");
    assert_snapshot!(read(&sandbox, &path), @r"
    exit 2
    error: the configuration [TMP]/unit.json is empty
    hint: the least that Unit accepts is {}; has a template or a ConfigMap key come out empty?
    ");
}

/// What is said about a recorded refusal.
fn refused(case: &'static str) -> String {
    let sandbox = Sandbox::new();
    let behaviour = Behaviour { like: Some(case), ..Behaviour::default() };
    let fake = FakeUnit::with(&sandbox.path("socket"), behaviour);
    let text = failed(&sandbox, apply_case(&sandbox, case, AMPLE));
    assert_eq!(fake.puts(), 1, "a refusal is final");
    text
}

#[test]
fn bad_json() {
    assert_snapshot!(refused("put-bad-json-missing-comma"), @r#"
    exit 7
    error: /cfg/unit.json:3:3: invalid JSON: Either a closing brace (}) or a comma (,) is expected here. Each JSON object must be enclosed in braces and its members must be separated by commas
      |   "routes": []
      |   ^
    "#);
    assert_snapshot!(refused("put-bad-json-utf8-column"), @r#"
    exit 7
    error: /cfg/unit.json:1:75: invalid JSON: Either a closing bracket (]) or a comma (,) is expected here. Each array must be enclosed in brackets and its members must be separated by commas
      | {"listeners":{},"routes":[{"action":{"return":200},"match":{"uri":"/é€"}} "x"]}
      |                                                                           ^
    "#);
    assert_snapshot!(refused("put-bad-json-truncated"), @r#"
    exit 7
    error: /cfg/unit.json:1:41: invalid JSON: Unexpected end of JSON payload. There's a string without a final double quote (")
      | {"listeners":{"127.0.0.1:8300":{"pass":"
      |                                         ^
    "#);
}

#[test]
fn unknown_member() {
    assert_snapshot!(refused("put-unknown-app-option"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. Unknown parameter "modules".
      because: /cfg/unit.json:1:226
      | …thon", "path": "/app/python/flask", "home": "/app/python/venv", "module": "index", "modules": "x"}}}
      |                                                                                     ^
    hint: check the name's spelling and the object it stands in, and that this Unit's version has it
    "#);
}

#[test]
fn missing_module() {
    assert_snapshot!(refused("put-article-verbatim"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The module to run "python 3.5" is not found among the available application modules.
      because: /cfg/unit.json:1:87
      | …ications/flask"}},"applications":{"flask":{"type":"python 3.5","processes":1,"working_directory":"/a…
      |                                                    ^
    hint: this Unit has python 3.11.2; "type" is a language, alone ("python") or with the beginning of a version that ends at a dot ("python 3", "python 3.11"); another language needs another image
    "#);
}

#[test]
fn wrong_type() {
    assert_snapshot!(refused("put-wrong-type-processes"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The "processes" value must be either an integer number or an object, but not a string.
      because: /cfg/unit.json:1:226
      | …on", "path": "/app/python/flask", "home": "/app/python/venv", "module": "index", "processes": "1"}}}
      |                                                                                   ^
    "#);
}

#[test]
fn pass_to_nowhere() {
    assert_snapshot!(refused("put-pass-missing-app"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. Request "pass" points to invalid location "applications/nope".
      because: /cfg/unit.json:1:33
      | {"listeners":{"127.0.0.1:8300":{"pass":"applications/nope"}},"applications":{}}
      |                                 ^
    hint: this configuration defines nothing for "pass" to name
    "#);
}

#[test]
fn listener_that_is_none() {
    assert_snapshot!(refused("put-template-not-rendered"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The listener address "*:{{ .Values.port }}" is invalid.
      because: /cfg/unit.json:1:15
      | {"listeners":{"*:{{ .Values.port }}":{"pass":"routes"}},"routes":[]}
      |               ^
    hint: the template was not rendered: the file still has its placeholders
    "#);
    assert_snapshot!(refused("put-listener-hostname"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The listener address "localhost:8300" is invalid.
      because: /cfg/unit.json:1:15
      | {"listeners":{"localhost:8300":{"pass":"routes"}},"routes":[]}
      |               ^
    hint: give "*:PORT", "IP:PORT", "[IPv6]:PORT" or "unix:PATH"; host names are not accepted
    "#);
}

#[test]
fn app_that_fails_to_start() {
    assert_snapshot!(refused("app-import-error"), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Failed to apply new configuration.
    hint: Unit gives no reason here, its log does: `kubectl logs POD -c CONTAINER` (with `up`, above), or /var/log/unit.log (/var/log/freeunit.log) in the container
    hint: the usual ones: the module cannot be imported or has no such callable; "home", "path" or "working_directory" does not exist; "home" was made by another Python X.Y than Unit's; an unknown "user" or "group"; the listener's port is in use
    "#);
}

#[test]
fn socket_never_there() {
    let sandbox = Sandbox::new();
    assert_snapshot!(failed(&sandbox, apply(&sandbox, SHORT)), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: no such file
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: does unitd run, and is this the path of its --control option as this container sees it? Another container's socket must be shared through a volume; another path is named by --control-socket
    ");
}

#[test]
fn socket_in_no_directory() {
    let sandbox = Sandbox::new();
    let control = Control::Unix(sandbox.path("run/unit/socket"));
    let result = run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(SHORT)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/run/unit/socket
      because: no directory [TMP]/run
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: does unitd run, and is this the path of its --control option as this container sees it? Another container's socket must be shared through a volume; another path is named by --control-socket
    ");
}

#[test]
fn no_usual_socket() {
    let sandbox = Sandbox::new();
    drop(UnixListener::bind(sandbox.path("b")).unwrap());
    let sockets = ["a", "b", "run/c"].map(|name| sandbox.path(name)).to_vec();
    let client = unit::Client { sockets, ..client(&sandbox) };
    assert_snapshot!(failed(&sandbox, run(client.apply(None, &config_of(OURS), within(SHORT)))), @r"
    exit 6
    error: no answer from Unit's control API at any of the usual sockets
      because: unix:[TMP]/b: nobody listens on the socket (stale: its Unit is gone)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
      | unix:[TMP]/a: no such file
      | unix:[TMP]/b: nobody listens on the socket (stale: its Unit is gone)
      | unix:[TMP]/run/c: no directory [TMP]/run
    hint: does unitd run? Its log and `kubectl logs` say why it stopped
    ");
}

#[test]
fn socket_stale() {
    let sandbox = Sandbox::new();
    drop(UnixListener::bind(sandbox.path("socket")).unwrap());
    assert_snapshot!(failed(&sandbox, apply(&sandbox, SHORT)), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: nobody listens on the socket (stale: its Unit is gone)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: does unitd run? Its log and `kubectl logs` say why it stopped
    ");
}

#[test]
fn socket_a_plain_file() {
    let sandbox = Sandbox::new();
    sandbox.write("socket", "");
    assert_snapshot!(failed(&sandbox, apply(&sandbox, SHORT)), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: not a socket
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: does unitd run? Its log and `kubectl logs` say why it stopped
    ");
}

#[test]
fn socket_a_directory() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("socket")).unwrap();
    let started = Instant::now();
    assert_snapshot!(failed(&sandbox, apply(&sandbox, AMPLE)), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: a directory, not a socket
    hint: does unitd run, and is this the path of its --control option as this container sees it? Another container's socket must be shared through a volume; another path is named by --control-socket
    ");
    assert!(started.elapsed() < MS(1000), "it cannot get better, so nothing is waited for");
}

#[test]
fn socket_path_too_long() {
    let sandbox = Sandbox::new();
    let control = Control::Unix(PathBuf::from("/tmp").join("x".repeat(110)));
    let result = run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(AMPLE)));
    assert_snapshot!(failed(&sandbox, result).replace(&"x".repeat(110), "[LONG]"), @r"
    exit 6
    error: no answer from Unit's control API at unix:/tmp/[LONG]
      because: the path is longer than the 107 bytes a socket's may have
    hint: choose a shorter path for unitd's --control option
    ");
}

/// The answers of FreeUnit to other users, and the kernel's, need another user: this test's own
/// binary, run again as `nobody`.
#[test]
fn another_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let sandbox = Sandbox::new();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.path(""), open).unwrap();
    let listener = UnixListener::bind(sandbox.path("socket")).unwrap();
    std::fs::set_permissions(sandbox.path("socket"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_snapshot!(as_nobody(&sandbox), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: permission denied: the socket has mode 0600 and belongs to uid 0 gid 0, and podstrap runs as uid 65534
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: run podstrap as the socket's owner, or start unitd with --control-mode 0660 and a --control-group that podstrap's user is in (Unit 1.32 and later)
    ");
    drop(listener);
    std::fs::remove_file(sandbox.path("socket")).unwrap();
    let _fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { closes: true, ..Behaviour::default() });
    std::fs::set_permissions(sandbox.path("socket"), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_snapshot!(as_nobody(&sandbox), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: the connection was closed without an answer, as FreeUnit does to other users: it runs as uid 0, podstrap as uid 65534
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: FreeUnit 1.36 and later answer only root and the user that unitd runs as: give both containers the same runAsUser
    ");
}

fn as_nobody(sandbox: &Sandbox) -> String {
    use std::os::unix::process::CommandExt as _;
    // The build directory may be root's own: nobody runs a copy.
    let copy = sandbox.path("it");
    if !copy.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    }
    let mut command = std::process::Command::new(copy);
    command
        .args(["--exact", "unit::child_of_another_user", "--nocapture"])
        .env("PODSTRAP_TEST_CHILD", sandbox.path("socket"))
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.split("--8<--\n").nth(1).unwrap_or_else(|| panic!("{text} {output:?}"));
    said.replace(&*sandbox.path("").to_string_lossy(), "[TMP]/").trim_end().to_owned()
}

/// The other half of [`another_user`].
#[test]
fn child_of_another_user() {
    let Some(socket) = std::env::var_os("PODSTRAP_TEST_CHILD") else { return };
    let sandbox = Sandbox::new();
    let result = run(unit::apply(Some(&Control::Unix(socket.into())), &config_of(OURS), within(SHORT)));
    println!("--8<--\n{}\n--8<--", failed(&sandbox, result));
}

#[test]
fn closed_without_a_byte() {
    let sandbox = Sandbox::new();
    let _fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { closes: true, ..Behaviour::default() });
    assert_snapshot!(failed(&sandbox, apply(&sandbox, SHORT)), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: the connection was closed without an answer
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: does unitd run? Its log and `kubectl logs` say why it stopped
    ");
}

#[test]
fn no_answer_to_the_wait() {
    let sandbox = Sandbox::new();
    let _fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { warm_up: AMPLE, ..Behaviour::default() });
    assert_snapshot!(failed(&sandbox, apply(&sandbox, SHORT)), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: connected, but no answer yet: Unit still starts, or applies something else
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: an application that takes long to start holds Unit up: raise --timeout; Unit's log names the application
    ");
}

#[test]
fn no_answer_to_the_put() {
    let sandbox = Sandbox::new();
    let fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { put_takes: AMPLE, ..Behaviour::default() });
    assert_snapshot!(failed(&sandbox, apply(&sandbox, SHORT)), @r"
    exit 6
    error: Unit at unix:[TMP]/socket has not finished applying /cfg/unit.json
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: it answers when every process of every application has started, one after another: raise --timeout
    hint: it goes on with it: its log (`kubectl logs POD -c CONTAINER`) names the application it waits for
    ");
    assert_eq!(fake.puts(), 1);
}

#[test]
fn the_entrypoint_never_ends() {
    let sandbox = Sandbox::new();
    let _fake = FakeUnit::start(&sandbox.path("socket"));
    let client = client(&sandbox);
    process(&sandbox, 1, "docker-entrypoi", "/bin/sh /usr/local/bin/docker-entrypoint.sh unitd --no-daemon");
    let control = Control::Unix(sandbox.path("socket"));
    let result = run(client.apply(Some(&control), &config_of(OURS), within(SHORT)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: the entrypoint's temporary Unit (pid [PID]) answers, the final one has not started
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: a script or a slow application in /docker-entrypoint.d keeps the entrypoint busy: raise --timeout
    ");
}

#[test]
fn a_put_that_is_always_cut() {
    let sandbox = Sandbox::new();
    let fake = FakeUnit::with(&sandbox.path("socket"), Behaviour { cut_puts: 99, ..Behaviour::default() });
    assert_snapshot!(failed(&sandbox, apply(&sandbox, AMPLE)), @r#"
    exit 7
    error: Unit at unix:[TMP]/socket cut the connection 4 times while applying /cfg/unit.json
      because: the connection was closed without an answer
    hint: look for "exited on signal" in Unit's log (`kubectl logs POD -c CONTAINER`), and for OOMKilled
    "#);
    assert_eq!(fake.puts(), 4);
}

#[test]
fn a_configuration_that_does_not_stay() {
    let sandbox = Sandbox::new();
    // It takes everything and shows nothing of it.
    let server = Server::start(|_| Response::new(200, "{}").header("Server", "Unit/1.34.2"));
    let control = Control::Http(server.url().parse().unwrap());
    let result = run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(MS(700))));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 7
    error: /cfg/unit.json does not stay in Unit at http://[HOST]
      because: Unit took it, but shows another configuration
    hint: does something else configure this Unit: another hook or sidecar, a file in /docker-entrypoint.d?
    ");
}

#[test]
fn an_application_without_a_process() {
    let sandbox = Sandbox::new();
    // Unit starts a process anew that ends, so this takes a Unit that cannot.
    let server = Server::start(|request| {
        let body = match (request.method.as_str(), request.path()) {
            ("PUT", _) => "{\"success\": \"x\"}",
            (_, "/status") => "{\"applications\": {\"a\": {\"processes\": {\"running\": 0}}}}",
            _ => "{\"applications\": {\"a\": {\"type\": \"php\"}, \"b\": {\"processes\": {\"spare\": 0}}}}",
        };
        Response::new(200, body).header("Server", "Unit/1.34.2")
    });
    let control = Control::Http(server.url().parse().unwrap());
    let wanted = setup("{\"applications\": {\"a\": {\"type\": \"php\"}, \"b\": {\"processes\": {\"spare\": 0}}}}");
    let result = run(client(&sandbox).apply(Some(&control), &wanted, within(AMPLE)));
    assert_snapshot!(failed(&sandbox, result), @r#"
    exit 7
    error: /cfg/unit.json is applied, but "a" has no running process
      because: it started and ended again: Unit starts the next when a request comes in
    hint: Unit gives no reason here, its log does: `kubectl logs POD -c CONTAINER` (with `up`, above), or /var/log/unit.log (/var/log/freeunit.log) in the container
    "#);
}

#[test]
fn tcp_refused() {
    let sandbox = Sandbox::new();
    let port = Server::start(|_| Response::new(200, "")).port();
    let control = Control::Http(format!("http://127.0.0.1:{port}").parse().unwrap());
    let result = run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(SHORT)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 6
    error: no answer from Unit's control API at http://[HOST]
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: check --control-socket against unitd's --control option
    ");
}

#[test]
fn tcp_not_the_control_api() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| Response::new(404, "no such page").header("Server", "nginx/1.27"));
    let control = Control::Http(server.url().parse().unwrap());
    let result = run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(AMPLE)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 6
    error: no answer from Unit's control API at http://[HOST]
      because: nginx/1.27 answered GET /config with 404: no control API of Unit
    hint: name Unit's control address (unitd's --control option), not a listener of its configuration
    ");
}

#[test]
fn tcp_that_says_yes_to_everything() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| Response::new(200, "<h1>Welcome</h1>").header("Server", "nginx/1.27"));
    let control = Control::Http(server.url().parse().unwrap());
    let result = run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(AMPLE)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 6
    error: no answer from Unit's control API at http://[HOST]
      because: nginx/1.27 answered GET /config with no JSON object: no control API of Unit
    hint: name Unit's control address (unitd's --control option), not a listener of its configuration
    ");
}

#[test]
fn an_answer_without_an_end() {
    let sandbox = Sandbox::new();
    let listener = UnixListener::bind(sandbox.path("socket")).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who listens is asked first, without a request.
            if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[b' '; 1 << 14]).is_ok() {}
            }
        }
    });
    let text = failed(&sandbox, apply(&sandbox, AMPLE));
    assert!(text.starts_with("exit 6") && text.contains("its answer is longer than 67108864 bytes"), "{text}");
}

#[test]
fn probe_500() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| Response::new(500, "\n<b>Traceback</b>\nmore"));
    let result = run(unit::probe(&server.url().parse().unwrap(), within(SHORT)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 8
    error: the configuration is applied, but http://[HOST]/ answers 500
      because: <b>Traceback</b>
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: the application fails when it is asked: its traceback is in Unit's log (`kubectl logs POD -c CONTAINER`; with `up`, above)
    ");
}

#[test]
fn probe_refused() {
    let sandbox = Sandbox::new();
    let port = Server::start(|_| Response::new(200, "")).port();
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    assert_snapshot!(failed(&sandbox, run(unit::probe(&url, within(SHORT)))), @r"
    exit 8
    error: the configuration is applied, but http://[HOST]/ cannot be reached
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: does a listener of the configuration have this address and port?
    ");
}

#[test]
fn probe_without_an_answer() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| {
        std::thread::sleep(MS(1000));
        Response::new(200, "")
    });
    let result = run(unit::probe(&server.url().parse().unwrap(), within(SHORT)));
    assert_snapshot!(failed(&sandbox, result), @r"
    exit 8
    error: the configuration is applied, but http://[HOST]/ gave no answer
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: the application takes longer than that, or hangs: raise --timeout, or look into Unit's log
    ");
}
