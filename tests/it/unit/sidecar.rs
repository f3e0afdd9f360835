//! The sidecar as a process: with a fake Unit, and through a Pod's life with a real one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::directory::{bundle, get};
use super::real::{HELLO, Place, put};
use crate::support::fake_unit::{Behaviour, FakeUnit, shown};
use crate::support::namespaces::{first_process, namespaced};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{AMPLE, MS, body_of};

struct Sidecar<'a> {
    sandbox: &'a Sandbox,
    child: Child,
}

impl<'a> Sidecar<'a> {
    fn start(sandbox: &'a Sandbox, config: &str) -> Self {
        let mut command = sandbox.podstrap();
        command.args(["sidecar", "--control-socket=socket", "--config", config, "--timeout=10s"]);
        let log = fs::File::create(sandbox.path("sidecar.log")).unwrap();
        Self { sandbox, child: command.stderr(log).stdin(Stdio::null()).spawn().unwrap() }
    }
    fn log(&self) -> String {
        fs::read_to_string(self.sandbox.path("sidecar.log")).unwrap()
    }
    fn says(&self, what: &str) {
        eventually(&format!("{what:?}"), || self.log().contains(what), || self.log());
    }
    /// CPU time so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let words: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // utime and stime, in hundredths of a second (USER_HZ).
        (words[11].parse::<f64>().unwrap() + words[12].parse::<f64>().unwrap()) / 100.0
    }
    /// Ends the sidecar as Kubernetes does. Returns the exit code, the time and the log.
    fn end(mut self) -> (Option<i32>, Duration, String) {
        let started = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, started.elapsed(), self.log())
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually(what: &str, mut is: impl FnMut() -> bool, or: impl Fn() -> String) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < AMPLE, "it does not come: {what}: {}", or());
        std::thread::sleep(MS(20));
    }
}

/// Updates the files of a volume as the kubelet does.
fn flip(volume: &Path, state: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(volume.join(state)).unwrap();
    for (name, text) in files {
        fs::write(volume.join(state).join(name), text).unwrap();
        let _ = symlink(Path::new("..data").join(name), volume.join(name));
    }
    symlink(state, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[test]
fn what_unit_loses_is_applied_again_and_sigterm_is_a_good_end() {
    let sandbox = Sandbox::new();
    sandbox.write("unit.json", body_of("put-return"));
    let sidecar = Sidecar::start(&sandbox, "unit.json");
    // Without a Unit the sidecar keeps waiting.
    sidecar.says("waiting for Unit: unix:");
    let fake = FakeUnit::start(&sandbox.path("socket"));
    sidecar.says("applied and read back");
    // Another program configures Unit.
    fake.replace(&body_of("put-empty-object"));
    sidecar.says("another program changed Unit's configuration; applying");
    eventually("ours", || sidecar.log().matches("applied and read back").count() == 2, || sidecar.log());
    // Unit's container restarts.
    fake.stop();
    let fake = FakeUnit::start(&sandbox.path("socket"));
    sidecar.says("Unit restarted and has another configuration; applying");
    eventually("ours", || fake.config().unwrap().contains("\"return\": 200"), || sidecar.log());
    assert_eq!(fake.puts(), 1);
    let (code, took, log) = sidecar.end();
    assert!(code == Some(0) && took < MS(1000), "{code:?} {took:?} {log}");
    assert_eq!(log.matches("waiting for Unit: ").count(), 1 + log.matches("nobody listens").count(), "{log}");
}

#[test]
fn a_refused_configuration_is_logged_once_and_the_old_one_stays() {
    let sandbox = Sandbox::new();
    sandbox.write("unit.json", body_of("put-return"));
    let fake = FakeUnit::with(&sandbox.path("socket"), Behaviour::default());
    let sidecar = Sidecar::start(&sandbox, "unit.json");
    sidecar.says("applied and read back");
    sandbox.write("unit.json", body_of("put-unknown-app-option"));
    sidecar.says("Unknown parameter");
    std::thread::sleep(MS(3500));
    assert_eq!(sidecar.log().matches("Unknown parameter").count(), 1, "{}", sidecar.log());
    assert_eq!(fake.puts(), 2);
    sandbox.write("unit.json", body_of("put-return"));
    sidecar.says("unit.json has changed");
    assert!(fake.config().unwrap().contains("\"return\": 200"));
}

/// A probe in the sidecar's container (`kubectl describe pod`) says why Unit has no configuration.
#[test]
fn a_probe_tells_why_a_configuration_is_refused_from_the_start() {
    let sandbox = Sandbox::new();
    sandbox.write("unit.json", body_of("put-unknown-app-option"));
    sandbox.write("termination-log", "");
    let _fake = FakeUnit::with(&sandbox.path("socket"), Behaviour::default());
    let sidecar = Sidecar::start(&sandbox, "unit.json");
    sidecar.says("Unknown parameter");
    let probe = || sandbox.run(sandbox.podstrap().args(["status", "--control-socket=socket"]));
    for _ in 0..2 {
        let ran = probe();
        assert_eq!(ran.code, Some(8), "{}", ran.raw);
        assert!(ran.raw.contains("serves nothing: its configuration has no listener"), "{}", ran.raw);
        assert_eq!(ran.raw.matches("Unknown parameter").count(), 1, "{}", ran.raw);
    }
    sandbox.write("unit.json", body_of("put-return"));
    sidecar.says("applied and read back");
    let message = || fs::read_to_string(sandbox.path("termination-log")).unwrap();
    eventually("no obstacle", || message().is_empty(), message);
}

#[test]
fn what_time_does_not_help_is_said_with_what_to_change() {
    let sandbox = Sandbox::new();
    sandbox.write("unit.json", "{}");
    fs::create_dir(sandbox.path("socket")).unwrap();
    let sidecar = Sidecar::start(&sandbox, "unit.json");
    sidecar.says("a directory, not a socket");
    sidecar.says("hint: check that unitd runs");
    std::thread::sleep(MS(500));
    assert_eq!(sidecar.log().matches("waiting for Unit").count(), 1, "{}", sidecar.log());
}

/// In its own container the sidecar is PID 1, and the kernel does not report the listener's process.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn in_a_container_of_its_own() {
    let place = Place::new();
    place.sandbox.write("unit.json", body_of("put-return"));
    let mut command = place.sandbox.podstrap();
    command.args(["sidecar", "--control-socket=socket", "--config=unit.json"]);
    let Some(mut command) = namespaced(&command, "exec \"$@\"") else { return };
    let log = fs::File::create(place.sandbox.path("sidecar.log")).unwrap();
    let child = command.stderr(log).stdin(Stdio::null()).spawn().unwrap();
    let first = first_process(&child);
    let sidecar = Sidecar { sandbox: &place.sandbox, child };
    sidecar.says("waiting for Unit");
    let unitd = place.start();
    sidecar.says("applied and read back");
    unitd.kill();
    fs::remove_dir_all(place.sandbox.path("state")).unwrap();
    fs::create_dir(place.sandbox.path("state")).unwrap();
    let _unitd = place.start();
    sidecar.says("Unit restarted");
    let applied = || shown(&place.socket()).is_some_and(|text| text.contains("\"return\": 200"));
    eventually("ours", applied, || sidecar.log());
    let mut sidecar = sidecar;
    let started = Instant::now();
    kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    assert_eq!(sidecar.child.wait().unwrap().code(), Some(0), "{}", sidecar.log());
    assert!(started.elapsed() < MS(1000), "{:?}", started.elapsed());
}

/// The case of two users in k8s/sidecar/pod.yaml. The socket gets the group of its directory, which has the setgid
/// bit, like an emptyDir with fsGroup. The sidecar is another user of that group.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn another_user_of_the_sockets_group_is_enough() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can become another user");
        return;
    }
    let place = Place::new();
    let dir = place.sandbox.path("run");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, None, Some(65532)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2775)).unwrap();
    let socket = dir.join("control.sock");
    let mut unitd = std::process::Command::new(super::real::unitd());
    let arguments = place.arguments();
    let ours = format!("unix:{}", place.socket().display());
    let theirs = format!("unix:{}", socket.display());
    unitd.args(arguments.iter().map(|word| if *word == ours { &theirs } else { word }));
    let unitd = unitd.args(["--no-daemon", "--control-mode", "0660"]).stderr(Stdio::null()).spawn().unwrap();
    // Reuses the sidecar's way to end a process.
    let unitd = Sidecar { sandbox: &place.sandbox, child: unitd };

    place.sandbox.write("unit.json", body_of("put-return"));
    let copy = place.sandbox.path("podstrap");
    fs::copy(env!("CARGO_BIN_EXE_podstrap"), &copy).unwrap();
    let mut command = std::process::Command::new(copy);
    command.args(["sidecar", "--config=unit.json", "--control-socket"]).arg(&socket);
    command.current_dir(place.sandbox.path("")).uid(65532).gid(65532).stdin(Stdio::null());
    command.stderr(fs::File::create(place.sandbox.path("sidecar.log")).unwrap());
    let sidecar = Sidecar { sandbox: &place.sandbox, child: command.spawn().unwrap() };
    // FreeUnit answers no other user; the sidecar reports it.
    sidecar.says(if super::real::is_freeunit() {
        "give both containers the same runAsUser"
    } else {
        "applied and read back"
    });
    assert_eq!(sidecar.end().0, Some(0));
    assert_eq!(unitd.end().0, Some(0));
}

#[test]
fn a_configuration_that_is_not_there_is_a_mistake() {
    let sandbox = Sandbox::new();
    let mut sidecar = Sidecar::start(&sandbox, "nowhere.json");
    assert_eq!(sidecar.child.wait().unwrap().code(), Some(2));
    assert!(sidecar.log().contains("cannot read the configuration"), "{}", sidecar.log());
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_pods_life() {
    let place = Place::new();
    let volume = place.sandbox.path("config");
    let config = |status: u16| {
        format!(
            r#"{{"listeners": {{"127.0.0.1:8300": {{"pass": "routes", "tls": {{"certificate": "site"}}}}}},
            "routes": [{{"action": {{"return": {status}}}}}], }}"#
        )
    };
    let pem = bundle(2001);
    flip(&volume, "..1", &[("unit.json", &config(201)), ("site.pem", &pem)]);
    let sidecar = Sidecar::start(&place.sandbox, "config");
    sidecar.says("waiting for Unit: ");
    let status = |wanted: u64| {
        let is = || {
            UnixStream::connect(place.socket()).is_ok()
                && shown(&place.socket()).is_some_and(|text| text.contains(&format!("\"return\": {wanted}")))
        };
        let started = Instant::now();
        eventually(&format!("{wanted}"), is, || sidecar.log());
        started.elapsed()
    };

    let unitd = place.start();
    println!("a Unit that starts is configured in {:?}", status(201));
    put(&place.socket(), "{}");
    println!("drift is undone in {:?}", status(201));
    flip(&volume, "..2", &[("unit.json", &config(202)), ("site.pem", &pem)]);
    println!("a changed ConfigMap is applied in {:?}", status(202));
    flip(&volume, "..3", &[("unit.json", &config(202)), ("site.pem", &bundle(2002))]);
    let renewed = || get(&place, "/certificates/site/chain/0/validity/since") == "Feb  3 00:00:00 2002 GMT";
    let started = Instant::now();
    eventually("the renewed certificate", renewed, || sidecar.log());
    println!("a renewed certificate is taken in {:?}", started.elapsed());

    // After a refused configuration the old one keeps serving, also in a Unit that starts without any.
    flip(&volume, "..4", &[("unit.json", "{\"listeners\": {\"*\": {}}}")]);
    sidecar.says("did not apply");
    status(202);
    unitd.kill();
    fs::remove_dir_all(place.sandbox.path("state")).unwrap();
    fs::create_dir(place.sandbox.path("state")).unwrap();
    let _unitd = place.start();
    println!("a Unit that was killed is configured in {:?}", status(202));
    std::thread::sleep(MS(4000));
    assert_eq!(sidecar.log().matches("did not apply").count(), 1, "{}", sidecar.log());

    let before = sidecar.cpu();
    std::thread::sleep(Duration::from_secs(20));
    println!("idle: {:.2} s of CPU in 20 s", sidecar.cpu() - before);
    assert!(sidecar.cpu() - before < 0.2);
    let (code, took, log) = sidecar.end();
    println!("ended in {took:?}\n{log}");
    assert!(code == Some(0) && took < MS(1000), "{code:?} {took:?}");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn the_status_of_a_unit() {
    let place = Place::new();
    let status = |more: &[&str]| {
        let mut command = place.sandbox.podstrap();
        command.args(["status", "--control-socket=socket"]).args(more);
        let ran = place.sandbox.run(&mut command);
        (ran.code, ran.stdout, ran.raw)
    };
    let started = Instant::now();
    assert_eq!(status(&[]).0, Some(6));
    assert!(started.elapsed() < MS(1500));
    let _unitd = place.started();
    place.apply(place.app(HELLO, "")).unwrap();
    let started = Instant::now();
    let (code, text, err) = status(&[]);
    println!("{:?}\n{text}", started.elapsed());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(text.contains("\n127.0.0.1:8300  applications/app\n"), "{text}");
    assert!(text.contains("\napp          python  1        0         1     0\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&status(&["--format=json"]).1).unwrap();
    assert_eq!(json["applications"]["app"]["well"], true);
}
