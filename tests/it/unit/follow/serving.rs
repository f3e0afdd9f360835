//! With a real Unit under constant load: every answer names the commit of its code, of a module that is imported late, of
//! its files and of its configuration, and they must agree.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use super::super::real::Place;
use super::{Remote, Sidecar, eventually, order, releases, request};
use crate::support::fake_unit::shown;
use crate::support::sandbox::Sandbox;
use crate::support::unit::MS;

/// The application: `NAME` is the commit's name, `FAIL` what a broken one does.
const APP: &str = r#"import os, pathlib, time
import dep
HERE = pathlib.Path(__file__).parent
STARTED = time.monotonic()
FAIL
def application(environ, start):
    if ANSWER:
        start("500 Broken", [])
        return [b"broken"]
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    import late
    files = (HERE / "files.txt").read_text()
    start("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(["NAME", late.NAME, files, os.environ["CONFIG"], dep.version]).encode()]
"#;

/// Kills Unit's main process: the parent of the parent.
const FATAL: &str = r#"import signal
parent = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text()
os.kill(int(parent.rpartition(")")[2].split()[1]), signal.SIGKILL)
time.sleep(9)
"#;

/// How long a new release is watched.
const WATCH: Duration = Duration::from_secs(4);

/// How a commit is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    Import,
    Dependency,
    Probe,
    Later,
    Configuration,
    Home,
    Unsigned,
    /// Ends Unit when it is imported.
    Fatal,
}

impl Broken {
    /// Without `Fatal`.
    const ALL: [Self; 7] =
        [Self::Import, Self::Dependency, Self::Probe, Self::Later, Self::Configuration, Self::Home, Self::Unsigned];

    /// The step that refuses it.
    fn step(self) -> &'static str {
        match self {
            Self::Dependency | Self::Unsigned => "prepare",
            Self::Configuration | Self::Home => "check",
            Self::Import | Self::Probe | Self::Fatal => "canary",
            Self::Later => "watch",
        }
    }
}

/// The version of `dep` that a commit requires.
fn dep(pushed: usize) -> &'static str {
    if pushed % 4 < 2 { "1.0" } else { "2.0" }
}

struct World {
    place: Place,
    remote: Remote,
    pushed: usize,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let remote = Remote::new(&place.sandbox, &["1.0", "2.0"]);
        fs::create_dir_all(place.sandbox.root()).unwrap();
        Self { place, remote, pushed: 0 }
    }
    fn sandbox(&self) -> &Sandbox {
        &self.place.sandbox
    }

    /// Pushes another commit. Returns its name, its version of `dep`, and its hash.
    fn push(&mut self, broken: Option<Broken>) -> (String, String) {
        self.pushed += 1;
        let name = format!("v{}", self.pushed);
        let dep = dep(self.pushed);
        let fail = match broken {
            Some(Broken::Import) => "import nosuchmodule",
            Some(Broken::Fatal) => FATAL,
            _ => "",
        };
        let answer = match broken {
            Some(Broken::Probe) => "True",
            Some(Broken::Later) => "time.monotonic() - STARTED > 1.5",
            _ => "False",
        };
        let repo = &self.remote.repo;
        repo.file(
            "wsgi.py",
            APP.replace("NAME\", late", &format!("{name}\", late")).replace("FAIL", fail).replace("ANSWER", answer),
        )
        .file("late.py", format!("NAME = {name:?}\n"))
        .file("files.txt", &name)
        .file("static/name.txt", &name);
        let required = if broken == Some(Broken::Dependency) { "9.9" } else { dep };
        repo.file("requirements.txt", format!("dep=={required}\n"));
        let root = self.sandbox().root();
        let venv = if broken == Some(Broken::Home) { "nowhere" } else { "venv" };
        let more = match broken {
            Some(Broken::Configuration) => ", \"modul\": 1",
            // Unit's default user may not end Unit.
            Some(Broken::Fatal) => ", \"user\": \"root\"",
            _ => "",
        };
        let root = root.display();
        repo.file(
            "unit.json",
            format!(
                "{{\"listeners\": {{\"127.0.0.1:8300\": {{\"pass\": \"routes\"}}}},
                \"routes\": [{{\"match\": {{\"uri\": \"/static/*\"}}, \"action\": {{\"share\": \"{root}$uri\"}}}},
                    {{\"action\": {{\"pass\": \"applications/app\"}}}}],
                \"applications\": {{\"app\": {{\"type\": \"python\", \"processes\": 2, \"module\": \"wsgi\",
                    \"path\": \"{root}\", \"working_directory\": \"{root}\", \"home\": \"{root}/{venv}\",
                    \"environment\": {{\"CONFIG\": \"{name}\"}}{more}}}}}}}"
            ),
        );
        if broken == Some(Broken::Unsigned) {
            repo.commit(&name);
        } else {
            self.remote.push(&name);
        }
        (format!("{name} {name} {name} {name} {dep}"), repo.rev("HEAD"))
    }

    fn follow(&self, flags: &[&str]) -> Sidecar {
        let allowed = self.sandbox().path("allowed");
        let is_mounted = flags.iter().any(|flag| flag.starts_with("--config"));
        let watch = format!("--watch={}s", WATCH.as_secs());
        let mut all = vec![if is_mounted { "--canary=on" } else { "--config=unit.json" }];
        all.extend([
            "--control-socket=socket",
            "--probe=http://127.0.0.1:8300/",
            &watch,
            "--timeout=30s",
            "--verify",
            allowed.to_str().unwrap(),
        ]);
        all.extend(flags);
        Sidecar::start(self.sandbox(), &self.remote, &all)
    }

    /// Mounts the configuration of the last commit. Returns its text, and the flag that names it.
    fn mounted(&self) -> (String, String) {
        let text = self.remote.repo.git(["show", "HEAD:unit.json"]);
        let mounted = self.sandbox().write("mounted/unit.json", &text);
        (text, format!("--config={}", mounted.display()))
    }

    fn serves(&self, sidecar: &Sidecar, answer: &str) -> Duration {
        eventually(answer, || get("/").is_some_and(|got| got.1 == answer), || sidecar.log() + &self.place.log())
    }
}

fn get(path: &str) -> Option<(u16, String)> {
    // HTTP/1.0, so that Unit sends no chunks.
    request(8300, &format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n"))
}

/// Ends the load even if the work panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Asks all the time until `over`.
struct Load {
    over: AtomicBool,
    /// Answers by status; 0 is none.
    counts: Mutex<BTreeMap<u16, usize>>,
    wrong: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

impl Load {
    fn new() -> Self {
        Self {
            over: AtomicBool::new(false),
            counts: Mutex::default(),
            wrong: Mutex::default(),
            slowest: Mutex::default(),
        }
    }

    fn ask(&self, path: &str) {
        while !self.over.load(Ordering::SeqCst) {
            let started = Instant::now();
            let (status, text) = get(path).unwrap_or_default();
            let took = started.elapsed();
            *self.counts.lock().unwrap().entry(status).or_default() += 1;
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = took.max(*slowest);
            let names: Vec<_> = text.split(' ').take(4).collect();
            if ![200, 500].contains(&status) {
                println!(
                    "{} {path}: {status} {text:?} after {took:?}",
                    humantime::format_rfc3339_millis(std::time::SystemTime::now())
                );
            }
            let number = names[0].trim_start_matches('v').parse().unwrap_or(0);
            if status == 200 && (names.iter().any(|name| *name != names[0]) || !text.ends_with(dep(number))) {
                self.wrong.lock().unwrap().push(text);
            }
            drop(slowest);
            std::thread::sleep(MS(5));
        }
    }

    /// Runs `work` under load. Returns the number of good answers.
    fn during(work: impl FnOnce(&Self)) -> (usize, BTreeMap<u16, usize>) {
        let load = Self::new();
        std::thread::scope(|scope| {
            for path in ["/", "/", "/", "/slow"] {
                let load = &load;
                scope.spawn(move || load.ask(path));
            }
            let _end = End(&load.over);
            work(&load);
        });
        let wrong = load.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "mixed: {wrong:?}");
        let counts = load.counts.lock().unwrap().clone();
        println!("answers by status: {counts:?}, the slowest after {:?}", load.slowest.lock().unwrap());
        (counts.get(&200).copied().unwrap_or_default(), counts)
    }
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn no_request_is_lost_and_no_broken_commit_serves() {
    follow(
        12,
        &[Broken::Import, Broken::Dependency, Broken::Probe, Broken::Configuration, Broken::Home, Broken::Unsigned],
    );
}

#[test]
#[ignore = "takes minutes: just follow"]
fn hundreds_of_pushes() {
    let pushes = std::env::var("PODSTRAP_TEST_PUSHES").map_or(200, |text| text.parse().unwrap());
    let all: Vec<_> = (0..pushes * 30 / 200).map(|number| Broken::ALL[number % Broken::ALL.len()]).collect();
    follow(pushes, &all);
}

/// Pushes good commits and these broken ones between them, under load.
fn follow(good: usize, broken: &[Broken]) {
    let mut world = World::new();
    let (first, _) = world.push(None);
    let sidecar = world.follow(&[]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &first);
    let (mut times, mut refused) = (Vec::new(), BTreeMap::<Broken, usize>::new());
    let mut late = 0;
    let (served, counts) = Load::during(|_| {
        let (mut broken, all) = (broken.iter(), broken.len());
        for number in 0..good {
            let (answer, _) = world.push(None);
            times.push(world.serves(&sidecar, &answer));
            // Evenly between the good ones.
            for kind in broken.by_ref().take((number + 1) * all / good - number * all / good) {
                // Only a release that passed its watch comes back.
                if *kind == Broken::Later {
                    std::thread::sleep(WATCH + MS(500));
                }
                let (_, commit) = world.push(Some(*kind));
                sidecar.says(&format!("{commit} does not serve, step {}", kind.step()));
                *refused.entry(*kind).or_default() += 1;
                late += usize::from(*kind == Broken::Later);
                world.serves(&sidecar, &answer);
            }
        }
        assert!(broken.next().is_none());
    });
    times.sort();
    let part = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{good} pushes, served after {:?} (median), {:?} (95 %); refused {refused:?}", part(50), part(95));
    let failed: usize = counts.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum();
    // An app that breaks after its trial answers 500 until it is given up.
    if late == 0 {
        assert_eq!(failed, 0, "{counts:?}\n{}", world.place.log());
    } else {
        assert!(counts.keys().all(|status| [200, 500].contains(status)), "{counts:?}\n{}", world.place.log());
    }
    assert!(served > good, "{counts:?}");
    let few = || releases(&world.sandbox().root()) <= 2;
    eventually("few releases", few, || sidecar.log());
    let repairs =
        ["configuration", "release"].map(|of| sidecar.metric(&format!("podstrap_repairs_total{{of=\"{of}\"}}")));
    assert_eq!(repairs, [0, 0], "{}", sidecar.log());
    assert_eq!(sidecar.end().0, Some(0));
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_release_that_breaks_later_is_given_up_and_a_person_can_go_back() {
    let mut world = World::new();
    let (one, _) = world.push(None);
    let sidecar = world.follow(&[]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &one);
    let (_, commit) = world.push(Some(Broken::Later));
    sidecar.says(&format!("{commit} does not serve, step watch"));
    world.serves(&sidecar, &one);
    std::thread::sleep(MS(1500));
    world.serves(&sidecar, &one);
    assert_eq!(sidecar.metric("podstrap_rollbacks_total"), 1);
    let (two, _) = world.push(None);
    world.serves(&sidecar, &two);
    assert_eq!(get("/static/name.txt").unwrap().1, "v3");
    let ran = order(world.sandbox(), "rollback", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    world.serves(&sidecar, &one);
    assert_eq!(get("/static/name.txt").unwrap().1, "v1");
    let status = order(world.sandbox(), "status", &["--control-socket=socket"]);
    assert!(status.code == Some(0) && status.stdout.contains("in the step rollback"), "{}", status.raw);
    assert_eq!(order(world.sandbox(), "resume", &[]).code, Some(0));
    world.serves(&sidecar, &two);
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn with_a_mounted_configuration_a_return_lasts_until_a_newer_commit() {
    let mut world = World::new();
    let (one, _) = world.push(None);
    let (text, flag) = world.mounted();
    let sidecar = world.follow(&[&flag]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &one);
    // The mounted configuration has the name of the first commit.
    let mounted_for = |answer: &str| {
        let words: Vec<_> = answer.split(' ').collect();
        [words[0], words[1], words[2], "v1", words[4]].join(" ")
    };
    let two = world.push(None).0;
    world.serves(&sidecar, &mounted_for(&two));
    let ran = order(world.sandbox(), "rollback", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    world.serves(&sidecar, &one);
    // Neither another configuration nor a restart brings the commit back.
    world.sandbox().write("mounted/unit.json", text.replace("\"processes\": 2", "\"processes\": 1"));
    sidecar.says("has changed");
    std::thread::sleep(MS(1000));
    drop(sidecar);
    let sidecar = world.follow(&[&flag]);
    sidecar.says("serves, as before");
    std::thread::sleep(MS(1500));
    world.serves(&sidecar, &one);
    assert_eq!(sidecar.metric("podstrap_rounds_total{result=\"served\"}"), 0, "{}", sidecar.log());
    let three = world.push(None).0;
    world.serves(&sidecar, &mounted_for(&three));
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_mounted_configuration_that_is_unreadable_changes_nothing() {
    let mut world = World::new();
    let (one, _) = world.push(None);
    let (text, flag) = world.mounted();
    let sidecar = world.follow(&[&flag]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &one);
    let two = world.push(None).0.replacen("v2 v2 v2 v2", "v2 v2 v2 v1", 1);
    world.serves(&sidecar, &two);
    world.sandbox().write("mounted/unit.json", "{");
    let ran = order(world.sandbox(), "rollback", &[]);
    assert!(ran.code == Some(5) && ran.raw.contains("the sidecar could not do it"), "{}", ran.raw);
    assert!(ran.raw.contains("mounted/unit.json"), "{}", ran.raw);
    world.serves(&sidecar, &two);
    // Nor does a restart; and afterwards, the configuration names the release as before.
    drop(sidecar);
    let sidecar = world.follow(&[&flag]);
    sidecar.says("Unit keeps what it has");
    std::thread::sleep(MS(1500));
    world.serves(&sidecar, &two);
    world.sandbox().write("mounted/unit.json", text.replace("\"CONFIG\": \"v1\"", "\"CONFIG\": \"v2\""));
    world.serves(&sidecar, &two.replacen(" v1 ", " v2 ", 1));
    assert!(shown(&world.place.socket()).unwrap().contains("/.podstrap/releases/"));
    assert_eq!(order(world.sandbox(), "rollback", &[]).code, Some(0));
    world.serves(&sidecar, &one.replacen("v1 v1 v1 v1", "v1 v1 v1 v2", 1));
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn without_a_trial_the_release_before_comes_back() {
    let mut world = World::new();
    let (mut answer, _) = world.push(None);
    let sidecar = world.follow(&["--canary=off"]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &answer);
    for (kind, step) in [(Broken::Later, "watch"), (Broken::Import, "apply"), (Broken::Probe, "probe")] {
        let (_, commit) = world.push(Some(kind));
        sidecar.says(&format!("{commit} does not serve, step {step}"));
        world.serves(&sidecar, &answer);
        (answer, _) = world.push(None);
        world.serves(&sidecar, &answer);
    }
}

/// A watch that fails brings the last release back that passed its own; a person goes back by one.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_release_that_was_replaced_early_comes_back_only_for_a_person() {
    let mut world = World::new();
    let (one, _) = world.push(None);
    let sidecar = world.follow(&[]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &one);
    let (two, _) = world.push(None);
    world.serves(&sidecar, &two);
    let (_, commit) = world.push(Some(Broken::Later));
    sidecar.says(&format!("{commit} does not serve, step watch"));
    world.serves(&sidecar, &one);
    let (four, _) = world.push(None);
    world.serves(&sidecar, &four);
    let (five, commit) = world.push(None);
    world.serves(&sidecar, &five);
    eventually("recorded", || sidecar.get("/readyz").1.contains(&commit), || sidecar.log());
    assert_eq!(order(world.sandbox(), "rollback", &[]).code, Some(0));
    world.serves(&sidecar, &four);
    assert_eq!(order(world.sandbox(), "rollback", &[]).code, Some(0));
    world.serves(&sidecar, &one);
}

/// Somebody else may have ended Unit, so a commit in whose trial Unit ends is tried once more, and never again.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_commit_that_ends_unit_is_tried_twice() {
    let mut world = World::new();
    let (one, _) = world.push(None);
    let sidecar = world.follow(&[]);
    let mut unitd = world.place.started();
    world.serves(&sidecar, &one);
    let (_, commit) = world.push(Some(Broken::Fatal));
    for _ in 0..2 {
        eventually("Unit ends", || unitd.has_ended(), || sidecar.log());
        drop(unitd);
        unitd = world.place.restarted();
    }
    world.serves(&sidecar, &one);
    std::thread::sleep(MS(3000));
    assert!(!unitd.has_ended(), "{}", sidecar.log());
    assert_eq!(sidecar.count(&format!("{commit} does not serve, step canary")), 2, "{}", sidecar.log());
    let (two, _) = world.push(None);
    world.serves(&sidecar, &two);
}

/// A kill during the watch does not end it.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_release_that_has_not_proved_itself_is_watched_after_a_kill_too() {
    let mut world = World::new();
    let (one, _) = world.push(None);
    let mut sidecar = world.follow(&[]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &one);
    let (broken, commit) = world.push(Some(Broken::Later));
    world.serves(&sidecar, &broken);
    sidecar.signal(Signal::KILL);
    sidecar.child.wait().unwrap();
    let sidecar = world.follow(&[]);
    sidecar.says(&format!("{commit} does not serve, step watch"));
    world.serves(&sidecar, &one);
}

/// The sidecar and Unit are killed at random times.
fn kills(of_sidecar: usize, of_unit: usize) {
    let mut rng = Rng::with_seed(1);
    let mut world = World::new();
    let (mut answer, _) = world.push(None);
    let mut sidecar = world.follow(&[]);
    let mut unitd = Some(world.place.started());
    world.serves(&sidecar, &answer);
    for number in 0..of_sidecar {
        (answer, _) = world.push(None);
        std::thread::sleep(Duration::from_millis(rng.u64(0..1500)));
        sidecar.signal(Signal::KILL);
        sidecar.child.wait().unwrap();
        // What serves goes on.
        let (status, text) = get("/").unwrap();
        let names: Vec<_> = text.split(' ').take(4).collect();
        assert!(status == 200 && names.iter().all(|name| *name == names[0]), "kill {number}: {status} {text}");
        sidecar = world.follow(&[]);
        if number % (of_sidecar / of_unit).max(1) == 0 {
            std::thread::sleep(Duration::from_millis(rng.u64(0..800)));
            unitd.take().unwrap().kill();
            if rng.bool() {
                fs::remove_dir_all(world.sandbox().path("state")).unwrap();
                fs::create_dir(world.sandbox().path("state")).unwrap();
            }
            unitd = Some(world.place.restarted());
        }
        let took = world.serves(&sidecar, &answer);
        println!("kill {number}: served after {took:?}");
    }
    eventually("few releases", || releases(&world.sandbox().root()) <= 3, || sidecar.log());
    let config = shown(&world.place.socket()).unwrap();
    assert!(!config.contains("@podstrap"), "{config}");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_killed_sidecar_and_a_killed_unit_go_on() {
    kills(6, 3);
}

#[test]
#[ignore = "takes minutes: just follow"]
fn hundreds_of_kills() {
    let kills_wanted = std::env::var("PODSTRAP_TEST_KILLS").map_or(200, |text| text.parse().unwrap());
    kills(kills_wanted, kills_wanted.div_ceil(4));
}

/// A sidecar that only looks uses no more memory and no more files with time.
#[test]
#[ignore = "takes minutes: just follow"]
fn thousands_of_idle_rounds() {
    let rounds = std::env::var("PODSTRAP_TEST_ROUNDS").map_or(10_000, |text| text.parse().unwrap());
    let mut world = World::new();
    let (answer, _) = world.push(None);
    let sidecar = world.follow(&["--period=1ms"]);
    let _unitd = world.place.started();
    world.serves(&sidecar, &answer);
    let proc = format!("/proc/{}", sidecar.child.id());
    let look = || {
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
        let words: Vec<f64> =
            stat.rsplit(") ").next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
        let done = sidecar.metric("podstrap_rounds_total{result=\"unchanged\"}");
        // utime and stime, in hundredths of a second; the first word is a letter.
        (done, memory, fs::read_dir(format!("{proc}/fd")).unwrap().count(), (words[10] + words[11]) / 100.0)
    };
    let wait = |wanted: u32| {
        while look().0 < wanted {
            std::thread::sleep(MS(100));
        }
    };
    wait(rounds / 10);
    let early = look();
    wait(rounds);
    let late = look();
    println!(
        "after {early:?}\nafter {late:?}\nCPU per round: {:.2} ms",
        (late.3 - early.3) * 1000.0 / f64::from(late.0 - early.0)
    );
    let number = |text: &str| text.split(' ').next().unwrap().parse::<f64>().unwrap();
    assert!(number(&late.1) < number(&early.1) * 1.1 && late.2 <= early.2 + 2, "{early:?} {late:?}");
}
