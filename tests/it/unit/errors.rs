//! The errors for bad configurations, sockets and answers.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use podstrap::config::read_config;
use podstrap::plan::Control;
use podstrap::unit;
use url::Url;

use crate::support::fake_unit::{Behaviour, FakeUnit};
use crate::support::http::{Response, Server};
use crate::support::sandbox::Sandbox;
use crate::support::table::row;
use crate::support::unit::{
    AMPLE, MS, OURS, REFUSED, SHORT, apply, apply_case, client, config_of, failed, process, run, setup, within,
};

#[test]
fn configurations_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("unit")).unwrap();
    sandbox.write("empty.json", "\u{feff} \n\t");
    // As the kubelet mounts a ConfigMap.
    sandbox.write("map/..2026_11/unit.conf", "{}");
    std::os::unix::fs::symlink("..2026_11", sandbox.path("map/..data")).unwrap();
    std::os::unix::fs::symlink("..data/unit.conf", sandbox.path("map/unit.conf")).unwrap();
    let said = |name: &str| row(name, || failed(&sandbox, read_config(&sandbox.path(name))));
    assert_snapshot!(["nowhere/none.json", "map/unit.json", "unit", "empty.json"].map(said).concat(), @r"
    -- nowhere/none.json
    exit 2
    error: cannot read the configuration [TMP]/nowhere/none.json
      because: No such file or directory (os error 2)
    hint: check that the ConfigMap or volume is mounted there in this container
    -- map/unit.json
    exit 2
    error: cannot read the configuration [TMP]/map/unit.json
      because: No such file or directory (os error 2)
    hint: correct the path, or add the key to the ConfigMap: the directory has unit.conf
    -- unit
    exit 2
    error: cannot read the configuration [TMP]/unit
      because: it is a directory
    hint: give the file in it: [TMP]/unit/unit.json; a missing subPath also becomes a directory
    -- empty.json
    exit 2
    error: the configuration [TMP]/empty.json is empty
    hint: check the template or the ConfigMap key; the smallest configuration that Unit accepts is {}
    ");
}

/// The error for a recorded refusal.
pub(super) fn refused(case: &'static str) -> String {
    let sandbox = Sandbox::new();
    let behaviour = Behaviour { like: Some(case), ..Behaviour::default() };
    let fake = FakeUnit::with(&sandbox.path("socket"), behaviour);
    let text = failed(&sandbox, apply_case(&sandbox, case, AMPLE));
    assert_eq!(fake.puts(), 1, "a refusal is final");
    text
}

#[test]
fn configurations_that_unit_refuses() {
    let cases = REFUSED.iter().chain(&["app-import-error"]);
    assert_snapshot!(cases.map(|case| row(case, || refused(case))).collect::<String>(), @r#"
    -- put-bad-json-missing-comma
    exit 7
    error: /cfg/unit.json:3:3: invalid JSON: Either a closing brace (}) or a comma (,) is expected here. Each JSON object must be enclosed in braces and its members must be separated by commas
      |   "routes": []
      |   ^
    -- put-bad-json-utf8-column
    exit 7
    error: /cfg/unit.json:1:75: invalid JSON: Either a closing bracket (]) or a comma (,) is expected here. Each array must be enclosed in brackets and its members must be separated by commas
      | {"listeners":{},"routes":[{"action":{"return":200},"match":{"uri":"/é€"}} "x"]}
      |                                                                           ^
    -- put-bad-json-truncated
    exit 7
    error: /cfg/unit.json:1:41: invalid JSON: Unexpected end of JSON payload. There's a string without a final double quote (")
      | {"listeners":{"127.0.0.1:8300":{"pass":"
      |                                         ^
    -- put-unknown-app-option
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. Unknown parameter "modules".
      because: /cfg/unit.json:1:226
      | …thon", "path": "/app/python/flask", "home": "/app/python/venv", "module": "index", "modules": "x"}}}
      |                                                                                     ^
    hint: use one of callable, factory, prefix, protocol, threads, thread_stack_size, limits, processes, user, group, environment, isolation, stdout, stderr
    -- put-article-verbatim
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The module to run "python 3.5" is not found among the available application modules.
      because: /cfg/unit.json:1:87
      | …ications/flask"}},"applications":{"flask":{"type":"python 3.5","processes":1,"working_directory":"/a…
      |                                                    ^
    hint: this Unit has python 3.11.2; set "type" to a language, alone ("python") or with the first numbers of its version ("python 3", "python 3.11"; 3.1 does not match 3.11), or use another image for another language
    -- put-wrong-type-processes
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The "processes" value must be either an integer number or an object, but not a string.
      because: /cfg/unit.json:1:226
      | …on", "path": "/app/python/flask", "home": "/app/python/venv", "module": "index", "processes": "1"}}}
      |                                                                                   ^
    -- put-pass-missing-app
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. Request "pass" points to invalid location "applications/nope".
      because: /cfg/unit.json:1:33
      | {"listeners":{"127.0.0.1:8300":{"pass":"applications/nope"}},"applications":{}}
      |                                 ^
    hint: set "pass" to a target in this configuration: (none)
    -- put-template-not-rendered
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The listener address "*:{{ .Values.port }}" is invalid.
      because: /cfg/unit.json:1:15
      | {"listeners":{"*:{{ .Values.port }}":{"pass":"routes"}},"routes":[]}
      |               ^
    hint: render the template first: the file still has its placeholders
    -- put-listener-hostname
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Invalid configuration. The listener address "localhost:8300" is invalid.
      because: /cfg/unit.json:1:15
      | {"listeners":{"localhost:8300":{"pass":"routes"}},"routes":[]}
      |               ^
    hint: use "*:PORT", "IP:PORT", "[IPv6]:PORT" or "unix:PATH"; Unit does not accept host names
    -- app-import-error
    exit 7
    error: Unit at unix:[TMP]/socket did not apply /cfg/unit.json
      because: Failed to apply new configuration.
    hint: read Unit's log for the reason: `kubectl logs POD -c CONTAINER` (with `up`, above), or /var/log/unit.log (/var/log/freeunit.log) in the container
    hint: run `podstrap check CONFIG --tree DIR` to find a missing module, callable, "home" or "working_directory"; other usual causes are an error in the module, a missing "path", a "home" for another Python X.Y than Unit's, an unknown "user" or "group", and a port in use
    "#);
}

type Arrange = fn(&Sandbox) -> Option<FakeUnit>;

#[test]
fn sockets_without_an_answer() {
    let long = format!("/tmp/{}", "x".repeat(110));
    // The socket's path, whether waiting can help, and the setup.
    let rows: [(&str, &str, bool, Arrange); 9] = [
        ("never there", "socket", true, |_| None),
        ("in no directory", "run/unit/socket", true, |_| None),
        ("stale", "socket", true, |sandbox| {
            drop(UnixListener::bind(sandbox.path("socket")).unwrap());
            None
        }),
        ("a plain file", "socket", true, |sandbox| {
            sandbox.write("socket", "");
            None
        }),
        ("a directory", "socket", false, |sandbox| {
            std::fs::create_dir(sandbox.path("socket")).unwrap();
            None
        }),
        ("too long a path", &long, false, |_| None),
        ("closed without a byte", "socket", true, |sandbox| {
            Some(FakeUnit::with(&sandbox.path("socket"), Behaviour { closes: true, ..Behaviour::default() }))
        }),
        ("connected, and no answer", "socket", true, |sandbox| {
            Some(FakeUnit::with(&sandbox.path("socket"), Behaviour { warm_up: AMPLE, ..Behaviour::default() }))
        }),
        ("the entrypoint's, without an end", "socket", true, |sandbox| {
            process(sandbox, 1, "docker-entrypoi", "/bin/sh /usr/local/bin/docker-entrypoint.sh unitd --no-daemon");
            Some(FakeUnit::start(&sandbox.path("socket")))
        }),
    ];
    let mut told = String::new();
    for (name, path, helps, arrange) in rows {
        told += &row(name, || {
            let sandbox = Sandbox::new();
            let client = client(&sandbox);
            let _fake = arrange(&sandbox);
            let started = Instant::now();
            let control = Control::Unix(sandbox.path(path));
            let deadline = within(if helps { SHORT } else { AMPLE });
            let text = failed(&sandbox, run(client.apply(Some(&control), &config_of(OURS), deadline)));
            assert!(helps || started.elapsed() < MS(1000), "apply waits although waiting cannot help");
            text.replace(&"x".repeat(110), "[LONG]")
        });
    }
    assert_snapshot!(told, @r"
    -- never there
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: no such file
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: check that unitd runs; if it does, set --control-socket to its --control path, as this container sees it (the socket of another container needs a shared volume)
    -- in no directory
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/run/unit/socket
      because: no directory [TMP]/run
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: check that unitd runs; if it does, set --control-socket to its --control path, as this container sees it (the socket of another container needs a shared volume)
    -- stale
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: no process listens on the socket (stale: its Unit has exited)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: read unitd's log to see why it stopped: `kubectl logs POD -c CONTAINER`
    -- a plain file
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: not a socket
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: check that unitd runs, and that --control-socket matches its --control option
    -- a directory
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: a directory, not a socket
    hint: check that unitd runs; if it does, set --control-socket to its --control path, as this container sees it (the socket of another container needs a shared volume)
    -- too long a path
    exit 6
    error: no answer from Unit's control API at unix:/tmp/[LONG]
      because: the path is longer than 107 bytes, the limit for a socket
    hint: choose a shorter path for unitd's --control option
    -- closed without a byte
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: the connection was closed without an answer
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: read unitd's log to see why it stopped: `kubectl logs POD -c CONTAINER`
    -- connected, and no answer
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: connected, but no answer yet: Unit is starting or applying something else
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: raise --timeout if an application starts slowly; Unit's log names the application
    -- the entrypoint's, without an end
    exit 6
    error: no answer from Unit's control API at unix:[TMP]/socket
      because: the entrypoint's temporary Unit (pid [PID]) answers; the final one has not started
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: raise --timeout: a script or a slow application in /docker-entrypoint.d keeps the entrypoint busy
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
      because: unix:[TMP]/b: no process listens on the socket (stale: its Unit has exited)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
      | unix:[TMP]/a: no such file
      | unix:[TMP]/b: no process listens on the socket (stale: its Unit has exited)
      | unix:[TMP]/run/c: no directory [TMP]/run
    hint: read unitd's log to see why it stopped: `kubectl logs POD -c CONTAINER`
    ");
}

/// The answers of FreeUnit and the kernel to other users need another user: the test runs its own binary again
/// as `nobody`.
#[test]
fn another_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can become another user");
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
      because: the connection was closed without an answer, as FreeUnit does for other users: Unit runs as uid 0, podstrap as uid 65534
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: give both containers the same runAsUser: FreeUnit 1.36 and later answer only root and the user that unitd runs as
    ");
}

pub(super) fn as_nobody(sandbox: &Sandbox) -> String {
    use std::os::unix::process::CommandExt as _;
    // Only root may be able to read the build directory, so nobody runs a copy.
    let copy = sandbox.path("it");
    if !copy.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    }
    let mut command = std::process::Command::new(copy);
    command
        .args(["--exact", "unit::errors::child_of_another_user", "--nocapture"])
        .env("PODSTRAP_TEST_CHILD", sandbox.path("socket"))
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.split("--8<--\n").nth(1).unwrap_or_else(|| panic!("{text} {output:?}"));
    said.replace(&*sandbox.path("").to_string_lossy(), "[TMP]/").trim_end().to_owned()
}

/// The child process of [`another_user`].
#[test]
fn child_of_another_user() {
    let Some(socket) = std::env::var_os("PODSTRAP_TEST_CHILD") else { return };
    let sandbox = Sandbox::new();
    let result = run(unit::apply(Some(&Control::Unix(socket.into())), &config_of(OURS), within(SHORT)));
    println!("--8<--\n{}\n--8<--", failed(&sandbox, result));
}

#[test]
fn puts_without_an_end() {
    // The last column: how often podstrap sends the configuration.
    let rows = [
        ("no answer", Behaviour { put_takes: AMPLE, ..Behaviour::default() }, SHORT, 1),
        ("always cut", Behaviour { cut_puts: 99, ..Behaviour::default() }, AMPLE, 4),
    ];
    let mut told = String::new();
    for (name, behaviour, deadline, puts) in rows {
        told += &row(name, || {
            let sandbox = Sandbox::new();
            let fake = FakeUnit::with(&sandbox.path("socket"), behaviour);
            let text = failed(&sandbox, apply(&sandbox, deadline));
            assert_eq!(fake.puts(), puts);
            text
        });
    }
    assert_snapshot!(told, @r#"
    -- no answer
    exit 6
    error: Unit at unix:[TMP]/socket has not finished applying /cfg/unit.json
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: raise --timeout: Unit answers after it has started every process of every application, one after another
    hint: read Unit's log (`kubectl logs POD -c CONTAINER`): Unit continues, and the log names the application it waits for
    -- always cut
    exit 7
    error: Unit at unix:[TMP]/socket cut the connection 4 times while applying /cfg/unit.json
      because: the connection was closed without an answer
    hint: look for "exited on signal" in Unit's log (`kubectl logs POD -c CONTAINER`), and for OOMKilled in `kubectl describe pod POD`
    "#);
}

#[test]
fn addresses_of_something_else() {
    let answer = |status, body: &str, server: &str| Some(Response::new(status, body).header("Server", server));
    let rows = [
        ("refused", None, SHORT),
        ("not the control API", answer(404, "no such page", "nginx/1.27"), AMPLE),
        ("yes to everything", answer(200, "<h1>Welcome</h1>", "nginx/1.27"), AMPLE),
        // Accepts every request, but never shows the configuration.
        ("a configuration that does not stay", answer(200, "{}", "Unit/1.34.2"), MS(700)),
    ];
    let mut told = String::new();
    for (name, answer, deadline) in rows {
        told += &row(name, || {
            let sandbox = Sandbox::new();
            let (url, _server) = serving(answer.map(|answer| (answer, MS(0))));
            let control = Control::Http(url);
            failed(&sandbox, run(client(&sandbox).apply(Some(&control), &config_of(OURS), within(deadline))))
        });
    }
    assert_snapshot!(told, @r"
    -- refused
    exit 6
    error: no answer from Unit's control API at http://[HOST]
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: check that unitd runs, and that --control-socket matches its --control option
    -- not the control API
    exit 6
    error: no answer from Unit's control API at http://[HOST]
      because: nginx/1.27 answered GET /config with 404: not Unit's control API
    hint: use Unit's control address (unitd's --control option), not a listener of its configuration
    -- yes to everything
    exit 6
    error: no answer from Unit's control API at http://[HOST]
      because: nginx/1.27 answered GET /config without a JSON object: not Unit's control API
    hint: use Unit's control address (unitd's --control option), not a listener of its configuration
    -- a configuration that does not stay
    exit 7
    error: /cfg/unit.json disappeared from Unit at http://[HOST]
      because: Unit accepted the configuration, but shows another one
    hint: look for another program that configures this Unit: a hook, a sidecar, a file in /docker-entrypoint.d
    ");
}

/// The URL of a server that always gives this answer after a delay; with `None`, of a closed port.
fn serving(answer: Option<(Response, Duration)>) -> (Url, Option<Server>) {
    let somebody = answer.is_some();
    let (response, wait) = answer.unwrap_or_else(|| (Response::new(200, ""), MS(0)));
    let server = Server::start(move |_| {
        std::thread::sleep(wait);
        response.clone()
    });
    (server.url().parse().unwrap(), somebody.then_some(server))
}

#[test]
fn an_application_without_a_process() {
    let sandbox = Sandbox::new();
    // Unit restarts a process that exits, so the test simulates a Unit that cannot.
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
    error: /cfg/unit.json is applied, but Unit has no running process of "a"
      because: the process started and exited; Unit starts another only for a request
    hint: read Unit's log for the reason: `kubectl logs POD -c CONTAINER` (with `up`, above), or /var/log/unit.log (/var/log/freeunit.log) in the container
    "#);
}

#[test]
fn an_answer_without_an_end() {
    let sandbox = Sandbox::new();
    let listener = UnixListener::bind(sandbox.path("socket")).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // podstrap first connects without a request, to find the listener's process.
            if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[b' '; 1 << 14]).is_ok() {}
            }
        }
    });
    let text = failed(&sandbox, apply(&sandbox, AMPLE));
    assert!(text.starts_with("exit 6") && text.contains("the answer is longer than 67108864 bytes"), "{text}");
}

#[test]
fn probes_that_fail() {
    let rows = [
        ("an error", Some((Response::new(500, "\n<b>Traceback</b>\nmore"), MS(0)))),
        ("nobody listens", None),
        ("no answer", Some((Response::new(200, ""), MS(1000)))),
    ];
    let sandbox = Sandbox::new();
    let mut told = String::new();
    for (name, answer) in rows {
        told += &row(name, || {
            let (url, _server) = serving(answer);
            failed(&sandbox, run(unit::probe(&url, within(SHORT))))
        });
    }
    assert_snapshot!(told, @r"
    -- an error
    exit 8
    error: the configuration is applied, but http://[HOST]/ answers 500
      because: <b>Traceback</b>
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: read the application's traceback in Unit's log (`kubectl logs POD -c CONTAINER`; with `up`, above)
    -- nobody listens
    exit 8
    error: the configuration is applied, but http://[HOST]/ cannot be reached
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: check that a listener in the configuration has this address and port
    -- no answer
    exit 8
    error: the configuration is applied, but http://[HOST]/ gave no answer
      because: gave up after [N] tries in [TIME] (--timeout 300ms)
    hint: raise --timeout, or read Unit's log: the application is slow or hangs
    ");
}
