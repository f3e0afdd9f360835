//! `podstrap check`: held to every recorded answer of Unit, and its words.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use podstrap::check::{Finding, Severity, Tree, check};
use serde_json::Value;

use crate::support::fake_unit::{Asked, CASES, Case};
use crate::support::sandbox::{Ran, Sandbox};

/// What the recorded applications had at /app, as far as it can be seen without running it.
fn app(sandbox: &Sandbox) -> Tree {
    let module = |name: &str, source: &str| sandbox.write(&format!("tree/python/flask/{name}.py"), source);
    let flask =
        "from flask import Flask\n\nNAME = Flask(__name__)\n\n@NAME.route('/')\ndef hello():\n    return 'Hello'\n";
    module("index", &flask.replace("NAME", "application"));
    module("ap", &flask.replace("NAME", "app"));
    module("slow", &format!("import time\ntime.sleep(1)\n{}", flask.replace("NAME", "application")));
    module("std", "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n");
    module("nc", "application = 5\n");
    module("imp", "import nosuchpackage\ndef application(environ, start_response):\n    pass\n");
    module("rai", "raise RuntimeError('x')\ndef application(environ, start_response):\n    pass\n");
    module("sye", "import sys\nsys.exit(3)\ndef application(environ, start_response):\n    pass\n");
    module("syn", "def application(environ, start_response):\n    return [\n");
    sandbox.write("tree/python/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.2\n");
    fs::create_dir_all(sandbox.path("tree/python/venv/lib/python3.11/site-packages/flask")).unwrap();
    Tree { dir: sandbox.path("tree"), venv: PathBuf::from("python/venv"), final_path: Some("/app".into()) }
}

fn errors(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.severity == Severity::Error)
}

/// The configuration that a request makes, where it makes one: the whole, or a part of the one
/// before.
fn made(case: &Case) -> Option<Vec<u8>> {
    let asked = case.asked.as_ref()?;
    let part = asked.path.strip_prefix("/config")?;
    if asked.method == "PUT" && part.trim_end_matches('/').is_empty() {
        return Some(asked.body.clone());
    }
    let whole = |step: &&Asked| step.method == "PUT" && step.path == "/config";
    let before = case.setup.iter().rev().find(whole)?;
    let mut config: Value = podstrap::unit::dialect::to_value(&before.body).ok()?;
    let value = podstrap::unit::dialect::to_value(&asked.body).ok()?;
    match asked.method.as_str() {
        "PUT" => {
            let (parent, name) = part.rsplit_once('/')?;
            match config.pointer_mut(parent)? {
                Value::Object(members) => drop(members.insert(name.to_owned(), value)),
                Value::Array(values) => *values.get_mut(name.parse::<usize>().ok()?)? = value,
                _ => return None,
            }
        }
        "POST" => config.pointer_mut(part)?.as_array_mut()?.push(value),
        _ => return None,
    }
    Some(config.to_string().into_bytes())
}

/// Where the verdicts differ, and why they must.
const OTHERWISE: [(&str, &str); 15] = [
    ("put-type-php", "which modules an image has is not known: this one has no PHP"),
    ("put-type-ruby", "the same: this one has no Ruby"),
    ("put-js-module-without-njs", "this Unit is built without njs: a warning"),
    ("put-listener-tls-missing-cert", "what is uploaded is not known: a warning"),
    ("app-import-error", "the module does not import; nothing is run"),
    ("app-syntax-error", "the module is no Python; it is not compiled"),
    ("app-raises-at-import", "nothing is run"),
    ("app-sys-exit-at-import", "nothing is run"),
    ("app-user-missing", "the users of the container are not known"),
    ("app-group-missing", "its groups neither"),
    ("listener-port-in-use", "what else listens there is not known"),
    ("listener-address-not-local", "the container's addresses are not known"),
    ("put-access-log-bad-dir", "a directory outside of the tree"),
    ("app-no-home", "the packages might be those of Unit's own Python: a warning"),
    ("app-lazy-import-error", "with \"spare\": 0 Unit takes an application that cannot start: an error here"),
];

#[test]
fn check_agrees_with_every_recorded_answer() {
    let sandbox = Sandbox::new();
    let tree = app(&sandbox);
    let (mut differ, mut excused, mut counts) = (Vec::new(), Vec::new(), [0; 4]);
    for case in CASES.iter() {
        let (Some(config), Some(response)) = (made(case), &case.response) else { continue };
        let reply: Value = serde_json::from_str(&response.body).unwrap_or_default();
        let findings = check(&config, Some(&tree)).findings;
        let refused = findings.iter().any(|finding| finding.refused);
        let failed = errors(&findings).next().is_some();
        let offset = reply.pointer("/location/offset").and_then(Value::as_u64);
        let (kind, agrees) = match (response.status, offset) {
            (200, _) => (0, !failed),
            (400, Some(offset)) => {
                let json = findings.first().filter(|finding| finding.rule == "json");
                (1, json.is_some_and(|finding| finding.offset as u64 == offset))
            }
            // Another Python than the environment's: a Unit that has it takes this and finds no package.
            (400, None) => (2, refused || errors(&findings).any(|finding| finding.rule == "type")),
            (500, _) => (3, failed && !refused),
            _ => continue,
        };
        counts[kind] += 1;
        if OTHERWISE.iter().any(|(name, _)| *name == case.name) {
            assert!(!agrees, "{} agrees after all", case.name);
            excused.push(case.name.as_str());
        } else if !agrees {
            differ.push(format!("{}: {} {}\n{findings:#?}", case.name, response.status, response.body));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let named: Vec<_> = OTHERWISE.iter().map(|(name, _)| *name).filter(|name| !excused.contains(name)).collect();
    assert!(named.is_empty(), "no such cases: {named:?}");
    // Taken, bad JSON, refused, failed.
    assert_eq!(counts, [37, 25, 33, 21]);
}
