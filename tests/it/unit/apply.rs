//! `apply` with a fake Unit: the requests, their times, and the waits.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use podstrap::plan::Control;
use podstrap::unit;

use crate::support::fake_unit::{Asked, Behaviour, FakeUnit};
use crate::support::http::{Response, Server};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{
    AMPLE, MS, OURS, apply, apply_case, body_of, client, config_of, later, process, run, setup, within,
};

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
            // A connection that only asks for the listener's process sends nothing.
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
    // At the end podstrap finds no listener any more; this test does not check that.
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
    // Three exchanges and a poll interval of 3 ms; a much longer time would be a sleep.
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
        // This process cannot become PID 1, as exec would make it; this simulates the same under `pause`.
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
    // The listener's process is unknown.
    let unknown = unit::Client { proc: sandbox.path("empty"), settle: MS(600), ..client(&sandbox) };
    let path = sandbox.path("socket");
    let temporary = FakeUnit::start(&path);
    let thread = std::thread::spawn(move || {
        while temporary.puts() == 0 {
            std::thread::sleep(MS(1));
        }
        std::thread::sleep(MS(60));
        // The entrypoint's own configuration, then its stop, then the final daemon with the kept state.
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
    assert!(started.elapsed() > MS(800), "apply did not watch the listener: {:?}", started.elapsed());
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
fn a_probe_gives_up_on_an_application_that_is_broken() {
    let page = "<!doctype html>\n<title>500 Internal Server Error</title>\n<h1>Oh</h1>";
    let server = Server::start(move |_| Response::new(500, page));
    let started = Instant::now();
    let error = run(unit::probe(&server.url().parse().unwrap(), within(Duration::from_mins(1)))).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(30), "{error}");
    let text = error.to_string();
    assert!(text.contains("answers 500\n  because: 500 Internal Server Error\n  because: "), "{text}");
    assert!(text.contains(" equal answers in a row"), "{text}");
}

#[test]
fn a_probe_keeps_the_beginning_of_a_long_answer() {
    let server = Server::start(|_| Response::new(200, vec![b'x'; 200_000]));
    let answer = run(unit::probe(&server.url().parse().unwrap(), within(AMPLE))).unwrap();
    assert_eq!(answer.body.len(), 64 * 1024);
}
