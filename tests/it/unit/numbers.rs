//! Measures the numbers of docs/unit.md: `just unit-numbers /usr/sbin/unitd`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use podstrap::plan::Control;
use podstrap::retry::Deadline;
use podstrap::unit;

use super::real::{Place, put, unitd};
use crate::support::fake_unit::shown;
use crate::support::namespaces::{first_process, namespaced};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{AMPLE, MS, body_of, client, run, setup, within};

fn count(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Formats times as `median 1.2, most 3.4 ms`.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: &Duration| time.as_secs_f64() * 1000.0;
    let (median, most) = (ms(&times[times.len() / 2]), ms(times.last().unwrap()));
    format!(
        "median {median:.1}, 95 % within {:.1}, most {most:.1} ms (n = {})",
        ms(&times[times.len() * 95 / 100]),
        times.len()
    )
}

/// From a listening socket to the first byte of the first request.
#[test]
#[ignore = "a measurement: run it alone, with --ignored --nocapture"]
fn how_fast_a_socket_is_noticed() {
    let mut times = Vec::new();
    for at in 0..100 {
        let sandbox = Sandbox::new();
        let client = client(&sandbox);
        let (path, control) = (sandbox.path("socket"), Control::Unix(sandbox.path("socket")));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let _ = run(client.apply(Some(&control), &setup("{}"), within(MS(400))));
            });
            // Each round starts at a different point of the pause between two tries.
            std::thread::sleep(Duration::from_micros(50_000 + 370 * at));
            let listener = UnixListener::bind(&path).unwrap();
            let started = Instant::now();
            let mut byte = [0];
            // A connection that only asks for the listener's process sends nothing.
            while listener.accept().unwrap().0.read(&mut byte).unwrap() == 0 {}
            times.push(started.elapsed());
            drop(listener);
            waits.join().unwrap();
        });
    }
    println!("from a socket that listens to the first request: {}", spread(times.clone()));
    times.sort();
    assert!(times[times.len() / 2] < MS(6), "{times:?}");
}

/// Sends GETs until `end` is set, each on a new connection.
fn load(end: &AtomicBool, asked: &AtomicU32, failed: &AtomicU32) {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect("127.0.0.1:8300")?;
        stream.set_read_timeout(Some(AMPLE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hello"))
    };
    while !end.load(Ordering::SeqCst) {
        asked.fetch_add(1, Ordering::SeqCst);
        match ask() {
            Ok(true) => {}
            other => {
                failed.fetch_add(1, Ordering::SeqCst);
                eprintln!("{other:?}");
            }
        }
    }
}

/// Each apply changes a value in the application's environment, so that Unit starts new processes.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn applies_under_load_lose_no_request() {
    let place = Place::new();
    let _unitd = place.started();
    let config =
        |revision: u32| place.app(super::real::HELLO, &format!(" \"environment\": {{\"REVISION\": \"{revision}\"}}"));
    place.apply(config(0)).unwrap();
    let (end, asked, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| load(&end, &asked, &failed));
        }
        for revision in 1..=count("PODSTRAP_TEST_APPLIES", 1000) {
            let started = Instant::now();
            let applied = place.apply(config(revision));
            if applied.is_err() {
                end.store(true, Ordering::SeqCst);
            }
            assert_eq!(applied.unwrap().sent, ["/config"]);
            times.push(started.elapsed());
        }
        end.store(true, Ordering::SeqCst);
    });
    let (asked, failed) = (asked.load(Ordering::SeqCst), failed.load(Ordering::SeqCst));
    println!("applies of an application that is started anew: {}", spread(times));
    println!("{asked} requests meanwhile, {failed} failed");
    assert_eq!(failed, 0);
}

/// Applies the same configuration again; podstrap sends nothing.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn how_long_an_apply_of_nothing_takes() {
    let place = Place::new();
    let _unitd = place.started();
    let (changed, same): (Vec<_>, Vec<_>) = (0..200)
        .map(|number| {
            let config = format!(
                "{{\"listeners\": {{\"127.0.0.1:8300\": {{\"pass\": \"routes\"}}}}, \"routes\": [{{\"action\": {{\"return\": {}}}}}]}}",
                200 + number
            );
            let time = || {
                let started = Instant::now();
                let applied = place.apply(config.clone()).unwrap();
                (started.elapsed(), applied.sent.len())
            };
            let (first, again) = (time(), time());
            assert_eq!((first.1, again.1), (1, 0));
            (first.0, again.0)
        })
        .unzip();
    println!("a changed return, applied and read back: {}", spread(changed));
    println!("the same again: {}", spread(same));
}

/// An apply waits while a Unit starts slowly, stops, and another one starts.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_unit_restarted_under_a_waiting_apply() {
    let place = Place::new();
    let unitd = place.started();
    put(&place.socket(), place.app(&format!("import time\ntime.sleep(1)\n{}", super::real::HELLO), ""));
    unitd.terminate();
    // Unit remembers the slow application and answers only after it has started.
    let unitd = place.start();
    std::thread::scope(|scope| {
        let applies = scope.spawn(|| {
            let started = Instant::now();
            place.apply(body_of("put-return")).unwrap();
            started.elapsed()
        });
        std::thread::sleep(MS(400));
        unitd.kill();
        std::thread::sleep(MS(300));
        let started = Instant::now();
        let _next = place.start();
        let took = applies.join().unwrap();
        println!("applied {:?} after the second Unit was started; {took:?} in all", started.elapsed());
        assert!(shown(&place.socket()).unwrap().contains("\"return\": 200"));
    });
}

/// Sets up the image: all files at the paths of the script, and the script as PID 1.
const IMAGE: &str = r#"
set -e
mount -t tmpfs none /run
mount --bind "$S/lib" /var/lib
mount --bind "$S/share" /usr/share
mount --bind "$S/sbin" /usr/sbin
( set +e; "$@" >"$S/hook.log" 2>&1; echo $? >"$S/code.part"; mv "$S/code.part" "$S/code" ) &
exec "$S/docker-entrypoint.sh" unitd --no-daemon --control unix:/var/run/control.unit.sock >"$S/container.log" 2>&1
"#;

/// Starts the image once with a hook. Returns the exit code, the time, and Unit's final configuration.
fn image(script: &Path, hook: &dyn Fn(&Sandbox) -> Command) -> (String, Duration, Option<String>) {
    let sandbox = Sandbox::new();
    sandbox.write(
        "share/unit/welcome/welcome.json",
        "{\"listeners\": {\"127.0.0.1:8301\": {\"pass\": \"routes\"}}, \"routes\": [{\"action\": {\"return\": 418}}]}",
    );
    std::fs::create_dir_all(sandbox.path("lib/unit")).unwrap();
    std::fs::create_dir_all(sandbox.path("unit-tmp")).unwrap();
    let wrapper = format!(
        "#!/bin/sh\nexec {} \"$@\" --pid /var/run/unit.pid --statedir /var/lib/unit --log /run/unit.log --tmpdir {}\n",
        unitd().display(),
        sandbox.path("unit-tmp").display()
    );
    for (name, text) in [("sbin/unitd", wrapper), ("docker-entrypoint.sh", std::fs::read_to_string(script).unwrap())] {
        let path = sandbox.write(name, text);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut hook = hook(&sandbox);
    hook.env("S", sandbox.path("")).env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/bin").current_dir("/");
    let mut command = namespaced(&hook, IMAGE).expect("this needs namespaces");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let first = first_process(&child);
    while !sandbox.path("code").exists() && started.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(MS(2));
    }
    let took = started.elapsed();
    // Wait until the script has ended.
    let comm = || std::fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
    while comm().trim() != "unitd" && started.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(MS(10));
    }
    let socket = PathBuf::from(format!("/proc/{first}/root/run/control.unit.sock"));
    while std::os::unix::net::UnixStream::connect(&socket).is_err() && started.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(MS(10));
    }
    let end = shown(&socket);
    let code = std::fs::read_to_string(sandbox.path("code")).unwrap_or_default();
    let log = std::fs::read_to_string(sandbox.path("hook.log")).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    (format!("{} {log}", code.trim()), took, end)
}

/// Starts Unit's own script, named by `PODSTRAP_TEST_ENTRYPOINT`, this many times, each time with a hook that
/// starts at the same moment.
#[test]
#[ignore = "needs a real unitd and the image's docker-entrypoint.sh: set PODSTRAP_TEST_UNITD and PODSTRAP_TEST_ENTRYPOINT"]
fn the_entrypoint_is_never_fallen_for() {
    let Some(script) = std::env::var_os("PODSTRAP_TEST_ENTRYPOINT").filter(|path| !path.is_empty()).map(PathBuf::from)
    else {
        println!("SKIPPED: PODSTRAP_TEST_ENTRYPOINT does not name pkg/docker/docker-entrypoint.sh of Unit's source");
        return;
    };
    let config =
        "{\"listeners\": {\"127.0.0.1:8300\": {\"pass\": \"routes\"}}, \"routes\": [{\"action\": {\"return\": 204}}]}";
    let _port = Place::new();
    let podstrap = |sandbox: &Sandbox| {
        let config = sandbox.write("unit.json", config);
        let mut command = sandbox.podstrap();
        command.args(["apply", "--log-level=debug", "--timeout=50s", "--config"]).arg(config);
        command
    };
    let mut times = Vec::new();
    for round in 0..count("PODSTRAP_TEST_ROUNDS", 100) {
        let (said, took, end) = image(&script, &podstrap);
        assert!(said.starts_with('0'), "{round}: {said}");
        let end = end.unwrap_or_else(|| panic!("{round}: Unit does not answer: {said}"));
        assert!(end.contains("204") && !end.contains("418"), "{round}: {said}\n{end}");
        times.push(took);
    }
    println!(
        "podstrap apply: {} of {} kept; start of the container to the hook's end: {}",
        times.len(),
        times.len(),
        spread(times.clone())
    );

    // The usual hook with curl.
    let curl = |sandbox: &Sandbox| {
        let config = sandbox.write("unit.json", config);
        let put = "until curl -sf -X PUT --data-binary @\"$1\" --unix-socket /var/run/control.unit.sock http://localhost/config; do sleep 0.01; done";
        let mut command = Command::new("sh");
        command.args(["-c", put, "sh"]).arg(config);
        command
    };
    let rounds = count("PODSTRAP_TEST_ROUNDS", 100).div_ceil(5);
    let kept = (0..rounds).filter(|_| image(&script, &curl).2.is_some_and(|end| end.contains("204"))).count();
    println!("a loop of curl that ends with the first 200: {kept} of {rounds} kept");
}

/// A PUT during another one, and a Unit that is killed during one.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn puts_that_meet_others_and_kills_that_meet_puts() {
    let (mut behind, mut killed) = (Vec::new(), Vec::new());
    for at in 0..10 {
        let place = Place::new();
        let unitd = place.started();
        let slow = place.app(&format!("import time\ntime.sleep(0.5)\n{}", super::real::HELLO), "");
        std::thread::scope(|scope| {
            scope.spawn(|| put(&place.socket(), slow.clone()));
            std::thread::sleep(MS(100));
            let started = Instant::now();
            place.apply(body_of("put-return")).unwrap();
            behind.push(started.elapsed());
        });
        std::thread::scope(|scope| {
            let applies =
                scope.spawn(|| run(unit::apply(Some(&place.control()), &setup(slow.clone()), Deadline::after(AMPLE))));
            std::thread::sleep(MS(20 + 50 * at));
            unitd.kill();
            // The next Unit refuses to start while a process of the previous one has the socket.
            std::thread::sleep(MS(50));
            let started = Instant::now();
            let _next = place.start();
            applies.join().unwrap().unwrap();
            killed.push(started.elapsed());
            assert!(shown(&place.socket()).unwrap().contains("applications/app"));
        });
    }
    println!("an apply behind another's PUT of an app that takes 0.5 s, from 0.1 s after that: {}", spread(behind));
    println!(
        "Unit killed 20–470 ms into an apply of that app, from the next Unit's start to applied: {}",
        spread(killed)
    );
}
