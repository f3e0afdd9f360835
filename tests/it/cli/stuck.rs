//! A system call that does not return: after a signal or the deadline, podstrap ends without it.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::sandbox::{Ran, Sandbox};
use crate::support::strace::{injected, works};

/// Time until the command is in the call.
const BEFORE: Duration = Duration::from_secs(1);

/// Runs a command whose `call` takes a minute. Sends a signal after a while, if there is one.
fn stuck(sandbox: &Sandbox, command: &Command, call: &str, signal: Option<Signal>) -> (Ran, Duration) {
    // The process that starts is podstrap, and strace is its grandchild.
    let mut strace = injected(command, call, "delay_enter=60s", &["--daemonize=grandchild"]);
    let stderr = sandbox.write("stderr", "");
    let mut child = strace.stdout(Stdio::null()).stderr(File::create(&stderr).unwrap()).spawn().unwrap();
    std::thread::sleep(BEFORE);
    let start = Instant::now();
    if let Some(signal) = signal {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    let ended = || fs::read_to_string(&stderr).unwrap().contains("podstrap: error: ");
    while !ended() && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = start.elapsed();
    // strace lets the process go only after the minute.
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
    kill_process(Pid::from_raw(tracer.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    let status = child.wait().unwrap();
    (sandbox.ran(&Output { status, stdout: Vec::new(), stderr: fs::read(stderr).unwrap() }), took)
}

#[test]
fn a_call_that_does_not_return_delays_neither_a_signal_nor_the_deadline() {
    if !works() {
        return;
    }
    let sandbox = Sandbox::new();
    let config = sandbox.write("unit.json", "{}");
    sandbox.write("app/index.py", "");
    let apply = |timeout| {
        let mut command = sandbox.podstrap();
        command.args(["apply", "--timeout", timeout, "--config"]).arg(&config);
        command
            .arg("--control-socket")
            .arg(UnixListener::bind(sandbox.path(timeout)).map(|_| sandbox.path(timeout)).unwrap());
        command
    };
    let init = |timeout| {
        let mut command = sandbox.podstrap();
        command.args(["init", "--timeout", timeout, "--repo"]).arg(sandbox.path("app"));
        command.arg("--root").arg(sandbox.root());
        command
    };
    for (command, call, signal, code) in [
        (init("1m"), "flock", Some(Signal::TERM), 143),
        (init("1m"), "flock", Some(Signal::INT), 130),
        (apply("1m"), "connect", Some(Signal::TERM), 143),
        (init("2s"), "flock", None, 5),
        (apply("2s"), "connect", None, 6),
    ] {
        let (ran, took) = stuck(&sandbox, &command, call, signal);
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        let limit = if signal.is_some() { Duration::from_secs(2) } else { Duration::from_secs(9) };
        assert!(took < limit, "{took:?}: {}", ran.raw);
        if signal.is_none() {
            let because = "the command does not end\n  because: not done after [TIME] (--timeout 2s)";
            assert!(ran.error().starts_with(because), "{}", ran.raw);
        }
    }
}
