//! The configurations of examples/configs: each is readable, and Unit behaves as the example describes.

use std::path::{Path, PathBuf};

use podstrap::config::dialect;
use podstrap::retry::Deadline;
use podstrap::unit::{self, Setup};

use super::directory::{browser, bundle};
use super::real::Place;
use crate::support::unit::{AMPLE, run, said};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs")
}

#[test]
fn every_example_is_unit_s_json() {
    let files = std::fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path());
    let mut count = 0;
    for file in files.filter(|path| path.is_dir() || path.extension().is_some_and(|ending| ending == "json")) {
        let config = Setup::read(&file, "/config").unwrap().config.unwrap();
        let value = dialect::to_value(&config.bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(value["listeners"]["*:8300"].is_object(), "{}", file.display());
        count += 1;
    }
    assert_eq!(count, 10);
}

const INDEX: &str = r#"
import os
def application(environ, start):
    start('200 OK', [('Content-Type', 'text/plain')])
    return [f"wsgi {os.environ.get('GREETING', '-')} {environ.get('SCRIPT_NAME', '')} {environ['PATH_INFO']}".encode()]
"#;
const ASGI: &str = r#"
async def app(scope, receive, send):
    if scope['type'] != 'http':
        return
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': f"asgi {scope.get('root_path', '')} {scope['path']}".encode()})
"#;
const FACTORY: &str = "import index\ndef create_app():\n    return index.application\n";

/// An app's container with the files that the examples need.
fn place() -> Place {
    let place = Place::new();
    for (name, text) in [("index.py", INDEX), ("asgi.py", ASGI), ("factory.py", FACTORY), ("static/a.txt", "a file")] {
        place.sandbox.write(&format!("app/{name}"), text);
    }
    let python = std::env::var("PODSTRAP_TEST_UNIT_PYTHON").unwrap_or_else(|_| "python3.11".into());
    let mut venv = std::process::Command::new(&python);
    venv.args(["-m", "venv", "--without-pip"]).arg(place.sandbox.path("app/venv"));
    assert!(venv.status().unwrap_or_else(|error| panic!("{python}, as Unit's module: {error}")).success());
    place
}

/// Applies an example with this test's paths and address.
fn apply(place: &Place, name: &str) -> podstrap::error::Result<Vec<String>> {
    let read = Setup::read(&examples().join(name), "/config").unwrap();
    let text = String::from_utf8(read.config.unwrap().bytes).unwrap();
    let app = place.sandbox.path("app");
    let text = text.replace("\"/app", &format!("\"{}", app.display())).replace("*:8300", "127.0.0.1:8300");
    place.sandbox.write("config/unit.json", text);
    let setup = Setup::read(&place.sandbox.path("config"), "/config").unwrap();
    run(unit::apply(Some(&place.control()), &setup, Deadline::after(AMPLE))).map(|applied| applied.sent)
}

fn ask(path: &str) -> (u16, String) {
    run(async {
        let answer = browser().get(format!("http://127.0.0.1:8300{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn python_of_every_kind_is_served() {
    let place = place();
    let _unitd = place.started();
    let served = |name: &str, asked: &[(&str, u16, &str)]| {
        apply(&place, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (path, status, body) in asked {
            assert_eq!(ask(path), (*status, (*body).to_owned()), "{name} {path}");
        }
    };
    served("wsgi.json", &[("/x", 200, "wsgi -  /x")]);
    served("asgi.json", &[("/x", 200, "asgi  /x")]);
    served("factory.json", &[("/x", 200, "wsgi -  /x")]);
    served("several.json", &[("/api/x", 200, "asgi /api /api/x"), ("/x", 200, "wsgi -  /x")]);
    served("environment.json", &[("/x", 200, "wsgi hello  /x")]);
    served("static.json", &[("/a.txt", 200, "a file"), ("/x", 200, "wsgi -  /x")]);
    served("routes.json", &[("/healthz", 204, ""), ("/old/x", 301, ""), ("/x", 200, "wsgi -  /x")]);
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn other_kinds_are_taken_or_refused_with_the_reason() {
    let place = place();
    let _unitd = place.started();
    // Unit accepts it without a process; only a request shows whether its executable serves.
    apply(&place, "external.json").unwrap();
    // This Unit may lack PHP; then podstrap reports it.
    let php = apply(&place, "php.json");
    if let Err(error) = &php {
        let text = said(&place.sandbox, error);
        assert!(
            text.contains("The module to run \"php\" is not found") && text.contains("this Unit has python"),
            "{text}"
        );
    }
    println!("php: {}", if php.is_ok() { "accepted" } else { "refused: this Unit has no module for it" });
    place.sandbox.write("config/site.pem", bundle(2024));
    assert_eq!(apply(&place, "tls").unwrap(), ["certificate site", "/config"]);
    let answer = run(async { browser().get("https://127.0.0.1:8300/").send().await }).unwrap();
    assert_eq!(answer.status(), 204);
}
