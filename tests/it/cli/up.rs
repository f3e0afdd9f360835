//! `podstrap up`: the example and other apps, served with the software of this machine.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use insta::assert_snapshot;

use crate::support::index::{self, IndexServer};
use crate::support::sandbox::{Ran, Sandbox};

/// A sandbox with an app in a directory, and an index to install from.
struct App {
    sandbox: Sandbox,
    index: IndexServer,
    /// A port that nothing listened on a moment ago.
    port: u16,
}

impl App {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let app = Self { sandbox: Sandbox::new(), index: IndexServer::start(&index::wheelhouse()), port };
        app.file("index.py", "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [environ['GREETING'].encode()]\n".replace("environ['GREETING']", "__import__('os').environ['GREETING']"));
        app.config(r#""working_directory": "/srv/app", "path": "/srv/app", "home": "/srv/app/env", "module": "index""#);
        app
    }
    fn file(&self, name: &str, text: impl AsRef<str>) -> PathBuf {
        self.sandbox.write(&format!("app/{name}"), text.as_ref())
    }
    /// Writes a configuration in Unit's dialect, with these members of its only application.
    fn config(&self, members: &str) {
        self.file(
            "unit.conf.json",
            format!(
                "{{ // where it listens\n \"listeners\": {{\"127.0.0.1:{}\": {{\"pass\": \"applications/app\"}},}},\n \"applications\": {{\"app\": {{\
                 \"type\": \"python\", \"user\": \"nobody\", \"environment\": {{\"GREETING\": \"hello from up\"}}, {members}}}}}}}\n",
                self.port
            ),
        );
    }
    /// `podstrap up DIR`, without a unitd on PATH.
    fn up(&self) -> Command {
        let mut command = self.bare();
        command.args(["--venv", "env"]);
        command
    }
    /// The same without an environment.
    fn bare(&self) -> Command {
        let mut command = self.sandbox.podstrap();
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::split_paths(&path).filter(|dir| !dir.join("unitd").exists());
        command
            .args(["up", "--engine"])
            .arg(index::uv())
            .arg(self.sandbox.path("app"))
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("PIP_INDEX_URL", self.index.url());
        command
    }
    fn run(&self, command: &mut Command) -> Ran {
        let ran = self.sandbox.run(command);
        assert_eq!(fs::read_dir(self.sandbox.path("tmp")).unwrap().count(), 0, "the scratch directory is gone");
        ran
    }
    fn refused(&self, command: &mut Command, code: i32) -> String {
        let ran = self.run(command);
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        ran.text[ran.text.find("podstrap: error").unwrap()..].trim_end().to_owned()
    }
}

#[test]
fn an_app_is_served_by_pythons_own_server_and_it_says_so() {
    let app = App::new();
    let ran = app.run(app.up().arg("--once"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "hello from up"), "{}", ran.raw);
    assert!(ran.raw.contains("without Unit's processes, limits, routes or static files"), "{}", ran.raw);
    assert!(ran.raw.contains("\"user\" is ignored on this machine"), "{}", ran.raw);
}

#[test]
fn with_packages_the_environments_python_serves() {
    let app = App::new();
    app.file("requirements.txt", "Flask\n");
    app.file(
        "index.py",
        "import flask\napplication = flask.Flask(__name__)\napplication.route('/')(lambda: flask.__name__)\n",
    );
    let ran = app.run(app.up().arg("--once"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "flask"), "{}", ran.raw);
}

#[test]
fn it_serves_until_it_is_told_to_end() {
    use std::io::{BufRead, BufReader, Read, Write};
    let app = App::new();
    let mut child = app.up().stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = format!("http://127.0.0.1:{}/", app.port);
    assert!(lines.by_ref().any(|line| line.unwrap().contains(&format!("serving at {url}"))));
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello from up"), "{answer}");
    Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(TcpListener::bind(("127.0.0.1", app.port)).is_ok(), "the server is gone");
}

#[test]
fn what_cannot_be_served_is_explained() {
    let app = App::new();
    let held = TcpListener::bind(("127.0.0.1", app.port)).unwrap();
    assert_snapshot!(app.refused(&mut app.up(), 2), @r"
    podstrap: error: cannot serve at http://[HOST]/
      because: Address already in use (os error 98)
    hint: stop the program that listens there, or use another port in the configuration
    ");
    drop(held);
    app.config(r#""protocol": "asgi", "module": "index""#);
    assert_snapshot!(app.refused(&mut app.up(), 2), @r#"
    podstrap: error: only Unit can serve this: application "app" speaks ASGI
    hint: put unitd on PATH and run `podstrap up` again
    "#);
    app.file("broken.py", "def application(environ, start_response):\n    raise ValueError('not today')\n");
    app.config(r#""path": "/srv/app", "home": "/srv/app/env", "module": "broken""#);
    assert_snapshot!(app.refused(app.up().arg("--once"), 8), @r"
    podstrap: error: the app answers 500 at http://[HOST]/
    hint: read the output of the app above, such as a traceback
    ");
    app.config(r#""module": "nowhere""#);
    assert_snapshot!(app.refused(&mut app.up(), 8), @r"
    podstrap: error: Python's WSGI server ended unexpectedly
      because: exit status: 1
    hint: read its output above; usual causes are a failed import, a port in use, or an ASGI app without unitd
    ");
    app.config(r#""module": "index", "home": "/srv/app/env""#);
    assert_snapshot!(app.refused(&mut app.bare(), 2), @r#"
    podstrap: error: the configuration's "home" does not exist: [TMP]/tmp/podstrap-up-[RANDOM]/volume/.podstrap/releases/[SHORT]-[SHORT]/tree/venv
    hint: give packages or a requirements file to build an environment, set its path with --venv, or remove "home": Unit cannot start the application like this
    "#);
    app.file("unit.conf.json", "{");
    assert_snapshot!(app.refused(&mut app.bare(), 2), @"
    podstrap: error: unit.conf.json is not valid JSON for Unit
      because: line 1, column 2: the text ends before the object's }
    hint: correct the JSON; Unit also allows comments and one trailing comma
    ");
    fs::remove_file(app.sandbox.path("app/unit.conf.json")).unwrap();
    assert_snapshot!(app.refused(&mut app.up(), 2), @r"
    podstrap: error: the app has no unit.conf.json
    hint: add Unit's configuration as unit.conf.json, or give another file with --config: a path in the app's tree or an absolute path
    ");
}

#[test]
fn an_asgi_app_is_refused_at_once_even_if_its_protocol_is_not_named() {
    let app = App::new();
    for asgi in [
        "async def application(scope, receive, send):\n    pass\n",
        "class App:\n    async def __call__(self, scope, receive, send):\n        pass\napplication = App()\n",
    ] {
        app.file("index.py", asgi);
        let ran = app.run(app.up().arg("--once"));
        assert_eq!(ran.code, Some(8), "{}", ran.raw);
        assert!(ran.raw.contains("index.application is an ASGI application, which only Unit can serve"), "{}", ran.raw);
    }
}

#[test]
fn a_missing_configuration_is_known_before_anything_is_installed() {
    let app = App::new();
    app.file("requirements.txt", "Flask\n");
    let text = app.refused(app.up().args(["--config", "deploy/unit.json"]), 2);
    assert!(text.contains("the app has no deploy/unit.json"), "{text}");
    assert_eq!(app.index.requests(), 0);
}

#[test]
#[ignore = "needs a real unitd with its Python module: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn with_unitd_on_path_the_real_one_serves() {
    let unitd = PathBuf::from(std::env::var_os("PODSTRAP_TEST_UNITD").expect("PODSTRAP_TEST_UNITD names a unitd"));
    let app = App::new();
    let mut path = vec![unitd.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let ran = app.run(app.up().arg("--once").env("PATH", std::env::join_paths(path).unwrap()));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "hello from up"), "{}", ran.raw);
    assert!(ran.raw.contains("serving with unitd"), "{}", ran.raw);
}
