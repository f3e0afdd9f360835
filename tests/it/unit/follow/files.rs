//! Without a Unit: the files, the links, the HTTP server, webhooks, hooks and orders.

use std::fs;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ring::hmac;
use rustix::process::{Pid, Signal, kill_process};

use super::{Remote, Sidecar, eventually, order, releases, request};
use crate::support::http::{Response, Server};
use crate::support::lfs::{Lfs, pointer};
use crate::support::sandbox::Sandbox;
use crate::support::unit::MS;

fn shown(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.root().join("index.py")).unwrap_or_default()
}

fn serves(sandbox: &Sandbox, sidecar: &Sidecar, text: &str) -> Duration {
    eventually(text, || shown(sandbox) == text, || sidecar.log())
}

/// A repository with one commit.
fn one() -> (Sandbox, Remote) {
    let sandbox = Sandbox::new();
    let remote = Remote::new(&sandbox, &[]);
    remote.repo.file("index.py", "one");
    remote.push("one");
    (sandbox, remote)
}

#[test]
fn the_files_follow_and_a_bad_commit_changes_nothing() {
    let sandbox = Sandbox::new();
    let remote = Remote::new(&sandbox, &["1.0"]);
    remote.repo.file("index.py", "one").file("requirements.txt", "dep==1.0\n");
    let one = remote.push("one");
    sandbox.write("termination-log", "");
    let allowed = sandbox.path("allowed");
    let flags = ["--verify", allowed.to_str().unwrap()];
    let sidecar = Sidecar::start(&sandbox, &remote, &flags);
    serves(&sandbox, &sidecar, "one");
    eventually("ready", || sidecar.get("/readyz").0 == 200, || sidecar.log());
    assert_eq!(sidecar.get("/healthz"), (200, "ok\n".to_owned()));
    let text = sidecar.get("/readyz").1;
    assert!(text.starts_with(&format!("serving {one} (refs/heads/main) since 20")), "{text}");
    assert!(sandbox.root().join("venv/bin/python").exists());

    remote.repo.file("index.py", "two");
    let two = remote.push("two");
    serves(&sandbox, &sidecar, "two");
    // A commit whose environment cannot be built, and one without a signature: each is refused once.
    remote.repo.file("index.py", "bad").file("requirements.txt", "dep==9.9\n");
    let bad = remote.push("bad");
    sidecar.says(&format!("{bad} does not serve, step prepare"));
    remote.repo.file("requirements.txt", "dep==1.0\n");
    remote.repo.commit("unsigned");
    let unsigned = remote.repo.rev("HEAD");
    sidecar.says(&format!("{unsigned} does not serve, step prepare"));
    let message = || fs::read_to_string(sandbox.path("termination-log")).unwrap();
    let told = || message().contains(&unsigned) && message().contains("--verify requires a valid SSH signature");
    eventually("the termination message", told, message);
    std::thread::sleep(MS(1000));
    assert_eq!(sidecar.count("does not serve, step"), 2, "{}", sidecar.log());
    assert_eq!(shown(&sandbox), "two");
    let (ready, text) = sidecar.get("/readyz");
    assert!(ready == 200 && text.contains(&two) && text.contains(&format!("refused {unsigned} since ")), "{text}");
    let metrics = sidecar.get("/metrics").1;
    for line in [
        "podstrap_rounds_total{result=\"served\"} 2",
        "podstrap_failures_total{step=\"prepare\"} 2",
        &format!("podstrap_commit_info{{kind=\"serving\",commit=\"{two}\"}} 1"),
        &format!("podstrap_commit_info{{kind=\"refused\",commit=\"{unsigned}\"}} 1"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    // The next good commit is served, and two releases stay.
    remote.repo.file("index.py", "three");
    remote.push("three");
    serves(&sandbox, &sidecar, "three");
    eventually("two releases", || releases(&sandbox.root()) == 2, || sidecar.log());
    let empty = || fs::read_to_string(sandbox.path("termination-log")).unwrap().is_empty();
    eventually("no obstacle", empty, || sidecar.log());
    let (code, took) = sidecar.end();
    assert!(code == Some(0) && took < MS(1000), "{code:?} {took:?}");
}

#[test]
fn a_person_goes_back_and_on() {
    let (sandbox, remote) = one();
    let nobody = order(&sandbox, "rollback", &["--timeout=300ms"]);
    assert!(nobody.code == Some(5) && nobody.raw.contains("no sidecar answered"), "{}", nobody.raw);
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &sidecar, "one");
    let alone = order(&sandbox, "rollback", &[]);
    assert!(alone.code == Some(5) && alone.raw.contains("there is no release before"), "{}", alone.raw);
    remote.repo.file("index.py", "two");
    let two = remote.push("two");
    serves(&sandbox, &sidecar, "two");
    eventually("recorded", || sidecar.get("/readyz").1.contains(&two), || sidecar.log());
    let back = order(&sandbox, "rollback", &[]);
    assert_eq!(back.code, Some(0), "{}", back.raw);
    assert!(
        back.stdout.contains(&format!("refused {two} since ")) && back.stdout.contains("rollback"),
        "{}",
        back.stdout
    );
    assert_eq!(shown(&sandbox), "one");
    // It stays there, also when the sidecar restarts.
    std::thread::sleep(MS(700));
    drop(sidecar);
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    sidecar.says("serves, as before");
    std::thread::sleep(MS(700));
    assert_eq!(shown(&sandbox), "one");
    assert_eq!(order(&sandbox, "resume", &[]).code, Some(0));
    serves(&sandbox, &sidecar, "two");
    assert_eq!(order(&sandbox, "rollback", &[]).code, Some(0));
    assert_eq!(shown(&sandbox), "one");
    remote.repo.file("index.py", "three");
    remote.push("three");
    serves(&sandbox, &sidecar, "three");
}

/// An order that nobody waits for any more is taken back.
#[test]
fn an_order_that_is_interrupted_is_not_obeyed_later() {
    let (sandbox, remote) = one();
    fs::create_dir_all(sandbox.root()).unwrap();
    let mut command = sandbox.podstrap();
    let mut giver = command.args(["rollback", "--timeout=1m", "--root"]).arg(sandbox.root()).spawn().unwrap();
    let note = sandbox.root().join(".podstrap/order");
    eventually("the order", || note.exists(), String::new);
    kill_process(Pid::from_child(&giver), Signal::INT).unwrap();
    assert!(!giver.wait().unwrap().success());
    assert!(!note.exists());
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &sidecar, "one");
    assert_eq!(sidecar.count("rollback"), 0, "{}", sidecar.log());
}

/// Each `rollback` goes one release further, as far as they are kept.
#[test]
fn as_many_releases_as_are_kept_can_serve_again() {
    let (sandbox, remote) = one();
    let next = |sidecar: &Sidecar, text: &str| {
        remote.repo.file("index.py", text);
        let commit = remote.push(text);
        serves(&sandbox, sidecar, text);
        eventually("recorded", || sidecar.get("/readyz").1.contains(&commit), || sidecar.log());
    };
    let sidecar = Sidecar::start(&sandbox, &remote, &["--keep-releases=3"]);
    serves(&sandbox, &sidecar, "one");
    next(&sidecar, "two");
    next(&sidecar, "three");
    for text in ["two", "one"] {
        assert_eq!(order(&sandbox, "rollback", &[]).code, Some(0));
        assert_eq!(shown(&sandbox), text);
    }
    let end = order(&sandbox, "rollback", &[]);
    assert!(end.code == Some(5) && end.raw.contains("there is no release before"), "{}", end.raw);
    drop(sidecar);
    let sidecar = Sidecar::start(&sandbox, &remote, &["--keep-releases=1"]);
    sidecar.says("serves, as before");
    next(&sidecar, "four");
    eventually("one release", || releases(&sandbox.root()) == 1, || sidecar.log());
    let end = order(&sandbox, "rollback", &[]);
    assert!(end.code == Some(5) && end.raw.contains("there is no release before"), "{}", end.raw);
}

/// Containers of a Pod often share their variables.
#[test]
fn variables_for_init_do_not_make_a_sidecar_follow() {
    let sandbox = Sandbox::new();
    let config = sandbox.write("unit.json", "{}");
    fs::create_dir_all(sandbox.root()).unwrap();
    let log = sandbox.path("log");
    let mut command = sandbox.podstrap();
    command.args(["sidecar", "--control-socket=socket", "--config"]).arg(&config);
    command.env("PODSTRAP_REPO", "http://127.0.0.1:9/app.git").env("PODSTRAP_REF", "main");
    command.env("PODSTRAP_ROOT", sandbox.root()).stderr(fs::File::create(&log).unwrap());
    let mut sidecar = command.spawn().unwrap();
    let text = || fs::read_to_string(&log).unwrap();
    eventually("it waits for Unit", || text().contains("waiting for Unit"), text);
    kill_process(Pid::from_child(&sidecar), Signal::TERM).unwrap();
    assert!(sidecar.wait().unwrap().success());
    assert!(!sandbox.root().join(".podstrap").exists(), "{}", text());
    // Nor does a status change the volume that it is asked about.
    let ran = order(&sandbox, "status", &["--control-socket=socket"]);
    assert!(ran.stdout.starts_with("no sidecar follows a branch on "), "{}", ran.raw);
    assert!(!sandbox.root().join(".podstrap").exists());
}

#[test]
fn silent_connections_delay_no_probe() {
    let (sandbox, remote) = one();
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &sidecar, "one");
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", sidecar.port)).unwrap()).collect();
    let started = Instant::now();
    assert_eq!(sidecar.get("/healthz").0, 200);
    // The server gives a silent client 10 s.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(silent);
}

#[test]
fn a_signed_webhook_or_sighup_makes_it_look_at_once() {
    let (sandbox, remote) = one();
    let secret = sandbox.write("secret", "s3cret\n");
    let got = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&got);
    let hook = Server::start(move |request| {
        let mut seen = seen.lock().unwrap();
        seen.push(String::from_utf8_lossy(&request.body).into_owned());
        // The first try fails.
        if seen.len() == 1 { Response::new(503, "") } else { Response::new(200, "") }
    });
    let flags = ["--period=1h", "--webhook-secret", secret.to_str().unwrap(), "--hook-url", &hook.url()];
    let sidecar = Sidecar::start(&sandbox, &remote, &flags);
    serves(&sandbox, &sidecar, "one");
    eventually("the hook", || got.lock().unwrap().len() == 2, || sidecar.log());
    let told: serde_json::Value = serde_json::from_str(&got.lock().unwrap()[1]).unwrap();
    assert_eq!(told["commit"], remote.repo.rev("HEAD"));
    assert_eq!(told["path"], sandbox.root().to_str().unwrap());

    remote.repo.file("index.py", "two");
    remote.push("two");
    let body = "{\"ref\": \"refs/heads/main\"}";
    let post = |header: &str| {
        let text = format!(
            "POST /webhook HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        request(sidecar.port, &text).unwrap().0
    };
    for wrong in ["", "X-Gitlab-Token: s3cre\r\n", "X-Hub-Signature-256: sha256=00\r\n", "X-Hub-Signature: \r\n"] {
        assert_eq!(post(wrong), 401, "{wrong}");
    }
    std::thread::sleep(MS(300));
    assert_eq!(shown(&sandbox), "one");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s3cret"), body.as_bytes());
    let hex = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert_eq!(post(&format!("X-Hub-Signature-256: sha256={hex}\r\n")), 202);
    serves(&sandbox, &sidecar, "two");
    for (wrong, status) in [("GET /webhook", 405), ("POST /metrics", 405), ("GET /", 404)] {
        let text = format!("{wrong} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(request(sidecar.port, &text).unwrap().0, status, "{wrong}");
    }
    assert_eq!(sidecar.count("a webhook without the right secret"), 1, "{}", sidecar.log());
    remote.repo.file("index.py", "three");
    remote.push("three");
    sidecar.signal(Signal::HUP);
    serves(&sandbox, &sidecar, "three");
    // A restart tells the hook again: a kill may have come first.
    let last = || got.lock().unwrap().last().unwrap().clone();
    let three = remote.repo.rev("HEAD");
    eventually("the hook", || last().contains(&three), || sidecar.log());
    got.lock().unwrap().push("restart".to_owned());
    drop(sidecar);
    let sidecar = Sidecar::start(&sandbox, &remote, &flags);
    eventually("the hook", || last().contains(&three), || sidecar.log());
}

#[test]
fn a_remote_that_is_down_changes_nothing_and_is_said_once() {
    let (sandbox, remote) = one();
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &sidecar, "one");
    let down = Arc::new(Mutex::new(true));
    let is_down = Arc::clone(&down);
    remote.git.instead(move |_| is_down.lock().unwrap().then(|| Response::new(503, "")));
    eventually("it is said", || sidecar.get("/readyz").1.contains("cannot see the reference"), || sidecar.log());
    std::thread::sleep(MS(1500));
    assert_eq!((sidecar.count("503"), sidecar.get("/readyz").0), (1, 200), "{}", sidecar.log());
    *down.lock().unwrap() = false;
    remote.repo.file("index.py", "two");
    remote.push("two");
    sidecar.signal(Signal::HUP);
    serves(&sandbox, &sidecar, "two");
    assert!(!sidecar.get("/readyz").1.contains("cannot see"), "{}", sidecar.get("/readyz").1);
}

/// The contents may come later than the commit.
#[test]
fn a_commit_whose_contents_are_not_there_yet_is_tried_again() {
    let (sandbox, remote) = one();
    let lfs = Lfs::default();
    let answers = lfs.clone();
    remote.git.instead(move |request| answers.answer(request));
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &sidecar, "one");
    remote
        .repo
        .file(".gitattributes", "*.bin filter=lfs\n")
        .file("a.bin", pointer(b"contents"))
        .file("index.py", "two");
    let two = remote.push("two");
    sidecar.says(&format!("{two} does not serve, step prepare"));
    assert_eq!(shown(&sandbox), "one");
    lfs.add(b"contents");
    serves(&sandbox, &sidecar, "two");
    assert_eq!(fs::read(sandbox.root().join("a.bin")).unwrap(), b"contents");
}

#[test]
fn two_sidecars_on_one_volume_are_refused() {
    let (sandbox, remote) = one();
    let first = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &first, "one");
    let mut second = Sidecar::start(&sandbox, &remote, &[]);
    assert_eq!(second.child.wait().unwrap().code(), Some(5));
    second.says("another sidecar follows a branch on this volume");
}

#[test]
fn a_release_that_lost_files_is_built_again_once() {
    let sandbox = Sandbox::new();
    let remote = Remote::new(&sandbox, &[]);
    remote.repo.file("index.py", "one").file("lib/a.py", "a");
    remote.push("one");
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    serves(&sandbox, &sidecar, "one");
    let file = sandbox.root().join("lib/a.py");
    let lose = || fs::remove_file(file.canonicalize().unwrap()).unwrap();
    lose();
    eventually("the file", || file.exists(), || sidecar.log());
    eventually("counted", || sidecar.metric("podstrap_repairs_total{of=\"release\"}") == 1, || sidecar.log());
    // The damaged release is none to go back to.
    let alone = order(&sandbox, "rollback", &[]);
    assert!(alone.code == Some(5) && alone.raw.contains("there is no release before"), "{}", alone.raw);
    // An app that deletes its own files would do it for ever.
    lose();
    std::thread::sleep(MS(1000));
    assert!(!file.exists(), "{}", sidecar.log());
    remote.repo.file("index.py", "two");
    remote.push("two");
    serves(&sandbox, &sidecar, "two");
    eventually("the file", || file.exists(), || sidecar.log());
}

/// A build backend without dependencies.
const BACKEND: &str = r#"import pathlib, zipfile
def build_editable(to, config=None, metadata=None):
    here, info = pathlib.Path(__file__).parent, "mylib-1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(to, "mylib-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("mylib.pth", f"{here}\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mylib\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = ["mylib.pth", *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD"))]
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
    return "mylib-1.0-py3-none-any.whl"
"#;

#[test]
fn an_editable_project_does_not_serve_in_unit() {
    let sandbox = Sandbox::new();
    let remote = Remote::new(&sandbox, &[]);
    let pyproject = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
                     [project]\nname = \"mylib\"\nversion = \"1.0\"\n";
    remote.repo.file("requirements.txt", "-e ./lib\n").file("lib/pyproject.toml", pyproject);
    remote.repo.file("lib/backend.py", BACKEND).file("lib/mylib.py", "").file("unit.json", "{\"listeners\": {}}");
    let commit = remote.push("one");
    let sidecar = Sidecar::start(&sandbox, &remote, &["--config=unit.json"]);
    sidecar.says(&format!("{commit} does not serve, step check: the release has the editable project mylib"));
    assert_eq!(sidecar.get("/readyz").0, 503);
    drop(sidecar);
    // Without a Unit, nothing names a release.
    let sidecar = Sidecar::start(&sandbox, &remote, &[]);
    eventually("the files", || sandbox.root().join("lib/mylib.py").exists(), || sidecar.log());
}

/// A thousand Pods with the default period, for the Git server: a hundred that look ten times as often.
#[test]
#[ignore = "takes a minute: just follow"]
fn a_fleet_asks_the_git_server_little() {
    const PODS: usize = 100;
    const PERIOD: u64 = 3;
    let sandboxes: Vec<_> = (0..PODS).map(|_| Sandbox::new()).collect();
    let remote = Remote::new(&sandboxes[0], &[]);
    remote.repo.file("index.py", "one");
    remote.push("one");
    let counts = Arc::<Mutex<(u32, u32)>>::default();
    let seen = Arc::clone(&counts);
    remote.git.change(move |request, response| {
        let mut seen = seen.lock().unwrap();
        seen.0 += 1;
        seen.1 += u32::try_from(request.body.len() + response.body.len()).unwrap();
        response
    });
    let flags = [format!("--period={PERIOD}s"), "--venv=none".to_owned()];
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let fleet: Vec<_> = sandboxes.iter().map(|sandbox| Sidecar::start(sandbox, &remote, &flags)).collect();
    let all = |text: &str| {
        let wait = |(sandbox, sidecar)| serves(sandbox, sidecar, text);
        sandboxes.iter().zip(&fleet).map(wait).max().unwrap()
    };
    all("one");
    let looks =
        || fleet.iter().map(|sidecar| sidecar.metric("podstrap_rounds_total{result=\"unchanged\"}")).sum::<u32>();
    std::thread::sleep(Duration::from_secs(2 * PERIOD));
    let now = || (looks(), *counts.lock().unwrap());
    let (before, start) = (now(), Instant::now());
    std::thread::sleep(Duration::from_secs(20));
    let (after, took) = (now(), start.elapsed().as_secs_f64());
    let looks = f64::from(after.0 - before.0);
    let (requests, bytes) = (f64::from(after.1.0 - before.1.0), f64::from(after.1.1 - before.1.1));
    println!(
        "{PODS} Pods with a period of {PERIOD} s: {:.1} looks, {:.1} requests and {:.0} bytes of bodies a second; a look: \
         {:.2} requests, {:.0} bytes",
        looks / took,
        requests / took,
        bytes / took,
        requests / looks,
        bytes / looks,
    );
    remote.repo.file("index.py", "two");
    remote.push("two");
    println!("a push was on all volumes after {:.1?}", all("two"));
    assert!(looks > 0.0 && requests < looks * 1.5, "{requests} requests for {looks} looks");
}
