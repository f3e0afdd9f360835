//! Runs the Dockerfile's images as the containers of a Pod. `tests/containers.sh` builds the images and the base
//! images, then runs these tests.
//!
//! podman runs each container separately, because `podman kube play` supports neither subPath nor postStart. An
//! emptyDir is a directory with the fsGroup. A subPath is resolved when the container is created, as the kubelet
//! does. A hook is an exec. All servers listen on the machine's loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fake_unit::FakeUnit;
use crate::support::git::{GitServer, Repo};
use crate::support::index::IndexServer;
use crate::support::sandbox::Sandbox;

/// podstrap's user in its images.
const OWN: u32 = 65532;
/// A user id as `OpenShift` assigns it to a namespace.
const ARBITRARY: u32 = 1_000_680_000;
const FS_GROUP: u32 = 65532;
const AMPLE: Duration = Duration::from_mins(2);

fn image(name: &str) -> String {
    format!("localhost/podstrap-test/{name}")
}
fn debian() -> String {
    image("python:3.11")
}
fn musl() -> String {
    image("musl:3.11")
}

fn podman<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new("podman").args(args).output().expect("podman is installed")
}

fn ok(output: Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// Numbers the containers' names.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A container before it starts.
struct Container {
    name: String,
    args: Vec<String>,
}

impl Container {
    fn new() -> Self {
        let name = format!("podstrap-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let args = ["--name", &name, "--network=host", "--pull=never"].map(str::to_owned).to_vec();
        Self { name, args }
    }

    /// The restricted Pod Security Standard, and a read-only root file system.
    fn restricted(self, user: u32) -> Self {
        self.arg("--read-only")
            .arg("--read-only-tmpfs=false")
            .arg("--cap-drop=all")
            .arg("--security-opt=no-new-privileges")
            .arg(format!("--user={user}:0"))
            .arg(format!("--group-add={FS_GROUP}"))
    }

    fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }
    fn env(self, name: &str, value: impl AsRef<str>) -> Self {
        self.arg(format!("--env={name}={}", value.as_ref()))
    }
    /// Mounts a volume; mode `ro` makes it read-only.
    fn mount(self, from: &Path, to: &str, mode: &str) -> Self {
        self.arg(format!("--volume={}:{to}:{mode}", from.display()))
    }
    /// Mounts a `subPath`: resolves links in the volume once, now.
    fn sub_path(self, volume: &Path, sub: &str, to: &str) -> Self {
        let real = volume.join(sub).canonicalize().expect("the subPath is there");
        assert!(real.starts_with(volume.canonicalize().unwrap()), "{} is outside the volume", real.display());
        self.mount(&real, to, "ro")
    }

    fn command(&self, how: &str, image: &str, command: &[&str]) -> Vec<String> {
        let mut args = vec!["run".to_owned(), how.to_owned()];
        args.extend_from_slice(&self.args);
        args.push(image.to_owned());
        args.extend(command.iter().map(|word| (*word).to_owned()));
        args
    }

    /// Runs to completion, as an init container.
    fn run(&self, image: &str, command: &[&str]) -> Output {
        podman(self.command("--rm", image, command))
    }
    fn start(&self, image: &str, command: &[&str]) {
        ok(podman(self.command("--detach", image, command)));
    }
    /// Runs a postStart hook.
    fn hook(&self, command: &[&str]) -> Output {
        podman(["exec", &self.name].iter().chain(command))
    }
    fn logs(&self) -> String {
        ok(podman(["logs", &self.name]))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        podman(["rm", "--force", "--time=0", &self.name]);
    }
}

/// The resources of a Pod: the volumes that its containers share, and the servers that they reach.
struct Pod {
    sandbox: Sandbox,
    _repo: Repo,
    git: GitServer,
    index: IndexServer,
    port: u16,
}

impl Pod {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        mode(&sandbox.path(""), 0o755);
        let repo = Repo::new(&sandbox.path("repos/testapp.git"));
        // The article's app, which also checks markupsafe's compiled module: with an environment for
        // another libc markupsafe works without it, and without a message.
        repo.file(
            "python/flask/index.py",
            "import markupsafe._speedups\nfrom flask import Flask\napplication = Flask(__name__)\n\n\
             @application.get('/')\ndef hello():\n    return 'Hello, World!'\n",
        )
        .file("python/requirements.txt", "Flask\n")
        .commit("first");
        let wheels = std::env::var_os("PODSTRAP_TEST_WHEELS").expect("tests/containers.sh runs these tests");
        Self {
            git: GitServer::start(&sandbox.path("repos")),
            index: IndexServer::start(Path::new(&wheels)),
            port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            sandbox,
            _repo: repo,
        }
    }

    /// An emptyDir: every container of the Pod may write to it, with any user.
    fn volume(&self, name: &str) -> PathBuf {
        let volume = self.sandbox.path(name);
        if !volume.exists() {
            fs::create_dir(&volume).unwrap();
            chown(&volume, Some(0), Some(FS_GROUP)).unwrap();
            mode(&volume, 0o2777);
        }
        volume
    }

    /// A `ConfigMap`'s volume, with its links.
    fn config(&self, user: Option<&str>) -> PathBuf {
        let mut config = json!({
            "listeners": {format!("127.0.0.1:{}", self.port): {"pass": "applications/flask"}},
            "applications": {"flask": {
                "type": "python",
                "processes": 1,
                "working_directory": "/app/python",
                "path": "/app/python/flask",
                "home": "/app/python/venv",
                "module": "index",
            }},
        });
        if let Some(user) = user {
            config["applications"]["flask"]["user"] = Value::from(user);
            config["applications"]["flask"]["group"] = Value::from(user);
        }
        self.sandbox.write("config/..1/unit.conf.json", config.to_string());
        self.sandbox.write("config/..1/empty.json", "{}");
        let config = self.sandbox.path("config");
        for (name, target) in
            [("..data", "..1"), ("unit.conf.json", "..data/unit.conf.json"), ("empty.json", "..data/empty.json")]
        {
            symlink(target, config.join(name)).unwrap();
        }
        config
    }

    /// An init container. Variables give the Git server and the index, as a Secret would.
    fn init(&self, user: u32) -> Container {
        let last_words = self.sandbox.write("termination-log", "");
        mode(&last_words, 0o666);
        Container::new()
            .restricted(user)
            .env("PODSTRAP_REPO", self.git.url("testapp.git"))
            .env("PIP_INDEX_URL", self.index.url())
            .mount(&last_words, "/dev/termination-log", "rw")
            .mount(&self.volume("podstrap"), "/podstrap", "rw")
    }
    fn last_words(&self) -> String {
        fs::read_to_string(self.sandbox.path("termination-log")).unwrap()
    }

    /// The app's container: it sees the environment at a different path, with podstrap next to it.
    fn app(&self, user: Option<&str>) -> Container {
        Container::new()
            .sub_path(&self.volume("app"), "python", "/app/python")
            .mount(&self.volume("podstrap"), "/podstrap", "ro")
            .mount(&self.config(user), "/config", "ro")
            .mount(&self.volume("run"), "/run/unit", "rw")
    }

    /// Starts the server, runs the hook and checks the app's answer. With Unit if these tests have one, otherwise
    /// with Python's own server; the hook then configures a fake Unit.
    fn serve(&self, app: Container, image: &str) {
        let hook = |config: &str, more: &[&str]| {
            let config = format!("--config=/config/{config}");
            let command = ["/podstrap/podstrap", "apply", "--control-socket=/run/unit/control.sock", &config];
            let output = app.hook(&[&command, more].concat());
            String::from_utf8_lossy(&output.stderr).into_owned() + &ok(output)
        };
        let probe = format!("--probe=http://127.0.0.1:{}/", self.port);
        if let Some(unit) = Unit::given().filter(|_| image == debian()) {
            let app = Container { name: app.name.clone(), args: app.args.clone() };
            let app = app.mount(&unit.binary, "/unitd", "ro").mount(&unit.modules, "/modules", "ro");
            app.start(
                image,
                &[
                    "/unitd",
                    "--no-daemon",
                    "--control",
                    "unix:/run/unit/control.sock",
                    "--pid",
                    "/run/unit/unit.pid",
                    "--statedir",
                    "/run/unit",
                    "--tmpdir",
                    "/run/unit",
                    "--log",
                    "/dev/stderr",
                    "--modulesdir",
                    "/modules",
                ],
            );
            let said = hook("unit.conf.json", &[&probe]);
            assert!(said.contains("200"), "{said}");
            assert_eq!(self.get(&app), "Hello, World!");
            let log = app.logs();
            assert!(log.contains("podstrap: "), "the container's log lacks the hook's output: {log}");
            std::mem::forget(app);
        } else {
            eprintln!(
                "no Unit for {image}: the app answers under Python's own server, a fake of Unit takes the hook's configuration"
            );
            let server = format!(
                "import sys; sys.path.insert(0, '/app/python/flask')\n\
                 from wsgiref.simple_server import make_server; from index import application\n\
                 make_server('127.0.0.1', {}, application).serve_forever()",
                self.port
            );
            app.start(image, &["/app/python/venv/bin/python", "-B", "-c", &server]);
            assert_eq!(self.get(&app), "Hello, World!");
            let socket = self.volume("run").join("control.sock");
            let fake = FakeUnit::start(&socket);
            mode(&socket, 0o666);
            hook("empty.json", &[]);
            assert_eq!(fake.unknown(), []);
        }
    }

    /// The body of `GET /`, as soon as a server answers.
    fn get(&self, app: &Container) -> String {
        let begin = Instant::now();
        loop {
            match self.try_get() {
                Ok(answer) => return answer.split_once("\r\n\r\n").expect("a body").1.to_owned(),
                Err(error) if begin.elapsed() > AMPLE => panic!("{error}: {}", app.logs()),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    fn try_get(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(AMPLE))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/") { Ok(answer) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// The unitd in `PODSTRAP_TEST_UNITD`, and the module directory that it reports.
struct Unit {
    binary: PathBuf,
    modules: PathBuf,
}

impl Unit {
    fn given() -> Option<Self> {
        let binary = PathBuf::from(std::env::var_os("PODSTRAP_TEST_UNITD")?);
        let help = Command::new(&binary).arg("--help").output().expect("unitd starts");
        let help = String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
        let modules = help.split_once("--modulesdir").and_then(|(_, rest)| rest.split('"').nth(1));
        Some(Self { binary, modules: modules.expect("unitd says where its modules are").into() })
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
#[ignore = "tests/containers.sh builds the images"]
fn the_images_hold_what_they_say() {
    let files = |name: &str| {
        let root = PathBuf::from(ok(podman(["image", "mount", &image(name)])).trim());
        let mut files = BTreeMap::new();
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    dirs.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(&root).unwrap().display().to_string();
                    files.insert(name, metadata.len());
                }
            }
        }
        ok(podman(["image", "unmount", &image(name)]));
        files
    };
    let scratch = files("podstrap:scratch");
    assert_eq!(scratch.keys().collect::<Vec<_>>(), ["bin/podstrap"]);
    assert!(scratch["bin/podstrap"] <= 18_000_000, "{scratch:?}");
    assert_eq!(files("podstrap:uv").keys().collect::<Vec<_>>(), ["bin/podstrap", "bin/uv"]);
    for target in ["scratch", "uv", "python"] {
        let name = image(&format!("podstrap:{target}"));
        let inspected: Value = serde_json::from_str(&ok(podman(["image", "inspect", &name]))).unwrap();
        assert_eq!(inspected[0]["User"], "65532:65532", "{name}");
        assert_eq!(inspected[0]["Labels"]["org.opencontainers.image.title"], "podstrap", "{name}");
        let said = ok(Container::new().restricted(ARBITRARY).run(&name, &["--version"]));
        assert_eq!(said.trim(), concat!("podstrap ", env!("CARGO_PKG_VERSION")));
    }
    let uv = Container::new().restricted(OWN).arg("--entrypoint=/bin/uv");
    assert!(ok(uv.run(&image("podstrap:uv"), &["--version"])).starts_with("uv "));
}

/// The article's Pod: one image builds the environment at one path, another runs it at another path.
#[test]
#[ignore = "tests/containers.sh builds the images"]
fn the_articles_pod() {
    let pod = Pod::new();
    let init = pod.init(OWN).mount(&pod.volume("app"), "/tmp/git", "rw");
    let args = ["init", "--root=/tmp/git", "--venv=python/venv", "--venv-final-path=/app/python/venv"];
    let args = [&args[..], &["--copy-self=/podstrap/podstrap", "Flask"]].concat();
    let said = ok(init.run(&image("podstrap:python"), &args));
    assert!(pod.last_words().contains("published"), "{}: {said}", pod.last_words());
    // Again on the same volume, as after a restart of the node.
    let again = |user| pod.init(user).mount(&pod.volume("app"), "/tmp/git", "rw").run(&image("podstrap:python"), &args);
    ok(again(OWN));
    assert_eq!(again(ARBITRARY).status.code(), Some(5), "podstrap's directory belongs to another user");
    // In the article, Unit and the app run as root.
    pod.serve(pod.app(Some("root")), &debian());
}

/// The recommended Pod: init containers copy podstrap and uv, all other steps run in the app's own image with
/// any user. The first try is killed.
fn recommended(image_of_app: &str, user: u32) {
    let pod = Pod::new();
    ok(pod.init(user).run(&image("podstrap:uv"), &["copy-self", "/podstrap/podstrap"]));
    let args = [
        "/podstrap/podstrap",
        "init",
        "--root=/app",
        "--subdir=.",
        "--venv=python/venv",
        "-r",
        "python/requirements.txt",
    ];
    let init = || pod.init(user).mount(&pod.volume("app"), "/app", "rw");
    let killed = init();
    killed.start(image_of_app, &args);
    let staging = pod.volume("app").join(".podstrap/staging");
    let begin = Instant::now();
    while fs::read_dir(&staging).map_or(0, Iterator::count) == 0 {
        assert!(begin.elapsed() < AMPLE, "{}", killed.logs());
        std::thread::sleep(Duration::from_millis(5));
    }
    ok(podman(["kill", "--signal=KILL", &killed.name]));
    drop(killed);
    assert_ne!(fs::read_dir(&staging).unwrap().count(), 0, "it was killed too late");
    let said = ok(init().run(image_of_app, &args));
    assert!(said.contains("uv "), "uv is next to podstrap: {said}");
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0, "the killed run left files");
    pod.serve(pod.app(None).restricted(user), image_of_app);
}

#[test]
#[ignore = "tests/containers.sh builds the images"]
fn the_recommended_pod() {
    recommended(&debian(), OWN);
}

#[test]
#[ignore = "tests/containers.sh builds the images"]
fn the_recommended_pod_as_an_arbitrary_user() {
    recommended(&debian(), ARBITRARY);
}

#[test]
#[ignore = "tests/containers.sh builds the images"]
fn the_recommended_pod_with_musl() {
    recommended(&musl(), OWN);
}

/// `docker run podstrap:python3.13 up URL`: the work of a Pod in one container, on loopback.
#[test]
#[ignore = "tests/containers.sh builds the images"]
fn up_in_one_container() {
    let pod = Pod::new();
    let scratch = pod.volume("scratch");
    let up = pod.init(OWN).mount(&scratch, "/tmp", "rw").env("HOME", "/tmp");
    pod.config(None);
    let up = up.mount(&pod.sandbox.path("config"), "/config", "ro");
    let said = ok(up.run(
        &image("podstrap:python"),
        &[
            "up",
            "--once",
            "--venv=python/venv",
            "--config=/config/unit.conf.json",
            &pod.git.url("testapp.git"),
            "Flask",
        ],
    ));
    assert!(said.contains("Hello, World!"), "{said}");
}
