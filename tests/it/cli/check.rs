//! `podstrap check`: compared with every recorded answer of Unit, and its messages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use insta::assert_snapshot;
use podstrap::check::{Finding, Severity, check};
use podstrap::plan::Tree;
use serde_json::{Value, json};

use crate::support::article::Article;
use crate::support::fake_unit::{Asked, CASES, Case};
use crate::support::sandbox::{Ran, Sandbox};

/// The recorded applications' files at /app, as far as they matter without running them.
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

/// The configuration after a request, if the request changes it: a new one, or the previous one with a
/// changed part.
fn made(case: &Case) -> Option<Vec<u8>> {
    let asked = case.asked.as_ref()?;
    let part = asked.path.strip_prefix("/config")?;
    if asked.method == "PUT" && part.trim_end_matches('/').is_empty() {
        return Some(asked.body.clone());
    }
    let whole = |step: &&Asked| step.method == "PUT" && step.path == "/config";
    let before = case.setup.iter().rev().find(whole)?;
    let mut config: Value = podstrap::config::dialect::to_value(&before.body).ok()?;
    let value = podstrap::config::dialect::to_value(&asked.body).ok()?;
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

/// The cases in which `check` and Unit disagree, with the reasons.
const OTHERWISE: [(&str, &str); 15] = [
    ("put-type-php", "check does not know the image's modules; this Unit has no PHP"),
    ("put-type-ruby", "the same; this Unit has no Ruby"),
    ("put-js-module-without-njs", "this Unit is built without njs: a warning"),
    ("put-listener-tls-missing-cert", "check does not know the uploaded certificates: a warning"),
    ("app-import-error", "the import fails, but check runs nothing"),
    ("app-syntax-error", "the module has a syntax error, but check does not compile it"),
    ("app-raises-at-import", "check runs nothing"),
    ("app-sys-exit-at-import", "check runs nothing"),
    ("app-user-missing", "check does not know the container's users"),
    ("app-group-missing", "check does not know its groups"),
    ("listener-port-in-use", "check does not know which ports are in use"),
    ("listener-address-not-local", "check does not know the container's addresses"),
    ("put-access-log-bad-dir", "a directory outside of the tree"),
    ("app-no-home", "the packages might be those of Unit's own Python: a warning"),
    ("app-lazy-import-error", "with \"spare\": 0 Unit accepts an application that cannot start: an error here"),
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
            // Another Python than the environment's: a Unit with that module accepts it and finds no package.
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
    // Accepted, bad JSON, refused, failed.
    assert_eq!(counts, [37, 25, 33, 21]);
}

#[test]
fn deep_and_long_texts_are_refused_or_read() {
    // Unit's answers to these are recorded, but not the texts: it crashed, and accepted the last one.
    for depth in [100_000, 1_000_000] {
        let findings = check(("[".repeat(depth) + &"]".repeat(depth)).as_bytes(), None).findings;
        assert!(findings[0].refused && findings[0].message.contains("more than 200 levels deep"), "{findings:?}");
    }
    // At the limit, with the stack of a worker thread.
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"share\": \"/x$uri\", \"fallback\": ", "}")] {
        let deep = |levels: usize| open.repeat(levels) + "{\"return\": 200}" + &close.repeat(levels);
        let config = format!("{{\"routes\": [{{\"action\": {}}}]}}", deep(podstrap::config::json::DEPTH - 4));
        let tree = Tree { dir: "/nonexistent".into(), venv: "venv".into(), final_path: Some("/x".into()) };
        let findings = check(config.as_bytes(), Some(&tree)).findings;
        assert!(findings.iter().all(|finding| finding.rule != "json"), "{findings:?}");
        assert_eq!(
            findings.iter().any(|finding| finding.refused),
            close == "]" || open.contains('a') && !open.contains("share")
        );
        podstrap::config::dialect::to_value(config.as_bytes()).unwrap();
    }
    let route = r#"{"match": {"uri": "/a/*"}, "action": {"return": 200}},"#;
    let routes = format!("{{\"listeners\": {{}}, \"routes\": [{}]}}", route.repeat(60_000));
    assert_eq!(check(routes.as_bytes(), None).findings.len(), 0);
}

fn ran(sandbox: &Sandbox, args: &[&str]) -> Ran {
    sandbox.run(sandbox.podstrap().arg("check").args(args))
}

#[test]
fn the_examples_are_fit() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flask");
    let sandbox = Sandbox::new();
    let ran = ran(&sandbox, &[&format!("{examples}/unit.conf.json"), "--tree", examples]);
    assert_eq!(ran.code, Some(0));
    assert_snapshot!(ran.stdout.replace(examples, "EXAMPLE"), @r#"
    EXAMPLE/unit.conf.json:11:21: warning: no environment at /app/venv in the tree [home]
      |             "home": "/app/venv",
      |                     ^
    hint: run `podstrap init` to build it; until then, podstrap does not check its packages
    EXAMPLE/unit.conf.json: 0 errors, 1 warning
    "#);
}

#[test]
fn a_bad_configuration_is_told_line_by_line() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "unit.json",
        r#"{
    "listeners": {
        "*:8300": { "pass": "applications/flsk" },
        "127.0.0.1:8300": { "pas": "routes" },
        "*:{{ .Values.port }}": { "pass": "applications/flask" },
        "localhost:80": { "pass": "applications/flask", "tls": { "certificate": "site" } },
    },
    "applications": {
        "flask": {
            "type": "pyton 3.11",
            "processes": "4",
        },
        "php": {
            "type": "php",
            "root": "/www",
            "limits": { "timeout": 10, "memory": 1 },
            "processes": { "spare": 4 },
            "environment": { "TOKEN": "s3cret", "PORT": 80, "URL": "${DATABASE_URL}" },
        },
    },
    "routes": [
        { "action": { "share": "/www$urj" } },
    ],
}
"#,
    );
    let ran = ran(&sandbox, &["unit.json"]);
    assert_eq!(ran.code, Some(7));
    assert!(!ran.stdout.contains("s3cret"));
    assert_snapshot!(ran.stdout, @r#"
    unit.json:3:29: error: "applications/flsk" does not exist in this configuration [pass]
      |         "*:8300": { "pass": "applications/flsk" },
      |                             ^
    hint: did you mean "applications/flask"?
    unit.json:4:9: error: "127.0.0.1:8300" and "*:8300" overlap [listener-clash]
      |         "127.0.0.1:8300": { "pas": "routes" },
      |         ^
    hint: use different ports: * includes every IPv4 address
    unit.json:4:29: error: a listener has no member "pas" [unknown-member]
      |         "127.0.0.1:8300": { "pas": "routes" },
      |                             ^
    hint: did you mean "pass"?
    unit.json:5:9: error: "*:{{ .Values.port }}" is not a valid address for a listener [address]
      |         "*:{{ .Values.port }}": { "pass": "applications/flask" },
      |         ^
    hint: render the template first: the file still has its placeholders
    unit.json:6:9: error: "localhost:80" is not a valid address for a listener [address]
      |         "localhost:80": { "pass": "applications/flask", "tls": { "certificate": "site" } },
      |         ^
    hint: use *:PORT, IP:PORT, [IPv6]:PORT or unix:PATH; Unit does not accept host names
    unit.json:6:81: warning: Unit refuses this until you upload the certificate "site" [certificate]
      |         "localhost:80": { "pass": "applications/flask", "tls": { "certificate": "site" } },
      |                                                                                 ^
    unit.json:10:21: error: Unit has no module for "pyton 3.11" [type]
      |             "type": "pyton 3.11",
      |                     ^
    hint: did you mean "python"?
    unit.json:16:40: error: "limits" has no member "memory" [unknown-member]
      |             "limits": { "timeout": 10, "memory": 1 },
      |                                        ^
    hint: use one of requests, shm
    unit.json:17:13: error: "spare" (4) must not be more than "max" (1) [range]
      |             "processes": { "spare": 4 },
      |             ^
    hint: set "max"; the default is 1
    unit.json:18:57: error: "PORT" must be a string, but is an integer [wrong-type]
      |             "environment": { "TOKEN": "******", "PORT": 80, "URL": "***************" },
      |                                                         ^
    hint: write it in double quotes
    unit.json:18:68: warning: this looks like an unrendered template [template]
      |             "environment": { "TOKEN": "******", "PORT": 80, "URL": "***************" },
      |                                                                    ^
    hint: Unit supports variables only for requests, not here
    unit.json:22:32: error: Unit has no variable $urj [variable]
      |         { "action": { "share": "/www$urj" } },
      |                                ^
    hint: did you mean $uri?
    unit.json: 10 errors, 2 warnings; use --tree to check paths
    "#);
    assert_snapshot!(ran.text, @r#"
    podstrap: error: unit.json is not valid for Unit: 10 errors, 2 warnings
    hint: read the findings and their lines on stdout
    "#);
    assert_eq!(fs::read_to_string(sandbox.path("termination-log")).ok(), None, "only the kubelet creates this file");
}

#[test]
fn a_thread_stack_is_checked_for_both_processors() {
    let sandbox = Sandbox::new();
    let found = [12288, 16384, 126_976, 131_072, 135_000].map(|size| {
        let config = json!({"listeners": {}, "applications":
            {"a": {"type": "python", "module": "m", "threads": 2, "thread_stack_size": size}}});
        sandbox.write("unit.json", config.to_string());
        let ran = ran(&sandbox, &["unit.json", "--format", "json"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let told = report.as_array().unwrap().iter().map(|finding| {
            format!("{}: {}", finding["severity"].as_str().unwrap(), finding["message"].as_str().unwrap())
        });
        told.collect::<Vec<_>>().join("\n")
    });
    let refused = "error: \"thread_stack_size\" must be a multiple of 4096 and at least 16384";
    let warned = "warning: \"thread_stack_size\" must be at least 131072 on arm64";
    assert_eq!(found, [refused, warned, warned, "", refused]);
}

#[test]
fn bad_json_is_shown_where_it_is() {
    let sandbox = Sandbox::new();
    let mut told = String::new();
    for text in [
        "{\n  \"listeners\": {}\n  \"routes\": []\n}\n",
        "{\"listeners\": {}, \"listeners\": {}}",
        "{} // no line feed",
        "# a comment\n{}",
        "{'listeners': {}}",
        "{\"listeners\": {},,}",
        "{{ template \"unit\" . }}",
        "{\"environment\": {\"TOKEN\": \"s3cret}}\n",
    ] {
        sandbox.write("unit.json", text);
        let ran = ran(&sandbox, &["unit.json"]);
        assert_eq!(ran.code, Some(7), "{text}");
        assert!(!ran.stdout.contains("s3cret"), "{}", ran.stdout);
        told += ran.stdout.rsplit_once("unit.json: ").unwrap().0;
    }
    assert_snapshot!(told, @r#"
    unit.json:3:3: error: invalid JSON: expected a comma or } [json]
      |   "routes": []
      |   ^
    unit.json:1:19: error: invalid JSON: the object already has a member with this name [json]
      | {"listeners": {}, "listeners": {}}
      |                   ^
    hint: remove one of them; the first is at 1:2
    unit.json:1:4: error: invalid JSON: unexpected text after the end of the value [json]
      | {} // no line feed
      |    ^
    hint: end the comment: // with a line feed, /* with */
    unit.json:1:1: error: invalid JSON: expected a value: an object, an array, a string in double quotes, a number, true, false or null [json]
      | # a comment
      | ^
    hint: start comments with // or /*
    unit.json:1:2: error: invalid JSON: expected a member name in double quotes, or } [json]
      | {'listeners': {}}
      |  ^
    hint: put strings in double quotes
    unit.json:1:18: error: invalid JSON: expected a member name in double quotes, or } [json]
      | {"listeners": {},,}
      |                  ^
    hint: use at most one trailing comma
    unit.json:1:2: error: invalid JSON: expected a member name in double quotes, or } [json]
      | {{ template "unit" . }}
      |  ^
    hint: render the template first: the file still has its placeholders
    unit.json:1:36: error: invalid JSON: a control character in a string must be escaped [json]
      | {"environment": {"TOKEN": "********
      |                                    ^
    hint: close the string on its line with a double quote
    "#);
}

#[test]
fn findings_come_as_json() {
    let sandbox = Sandbox::new();
    sandbox.write("unit.json", "{\n  \"listener\": {\"a/b~c\": \"\\u001b[31m\"}\n}\n");
    let ran = ran(&sandbox, &["unit.json", "--format", "json"]);
    assert_eq!(ran.code, Some(7));
    assert_snapshot!(ran.stdout, @r#"
    [
      {
        "file": "unit.json",
        "line": 2,
        "column": 3,
        "pointer": "/listener",
        "severity": "error",
        "refused": true,
        "rule": "unknown-member",
        "message": "the configuration has no member \"listener\"",
        "hint": "did you mean \"listeners\"?"
      }
    ]
    "#);
    let good = sandbox.write("good.json", "{}");
    let ran = sandbox.run(sandbox.podstrap().args(["check", "--format=json"]).arg(good));
    assert_eq!((ran.code, ran.stdout.as_str(), ran.raw.as_str()), (Some(0), "[]\n", ""));
}

#[test]
fn a_directory_is_taken_as_the_entrypoint_takes_it() {
    let sandbox = Sandbox::new();
    let tls = |name: &str| {
        format!(
            "{{\"listeners\": {{\"*:443\": {{\"pass\": \"routes\", \"tls\": {{\"certificate\": \"{name}\"}}}}}}, \"routes\": []}}\n"
        )
    };
    sandbox.write("d/a.json", tls("site"));
    sandbox.write("d/b.json", tls("other"));
    sandbox.write("d/site.pem", "");
    sandbox.write("d/readme.txt", "not JSON");
    let ran = ran(&sandbox, &["d"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert_snapshot!(ran.stdout, @r#"
    d/b.json:1:67: warning: Unit refuses this until you upload the certificate "other" [certificate]
      | {"listeners": {"*:443": {"pass": "routes", "tls": {"certificate": "other"}}}, "routes": []}
      |                                                                   ^
    2 files: 0 errors, 1 warning; use --tree to check paths
    "#);
}

#[test]
fn what_cannot_be_read_is_a_usage_error() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).unwrap();
    sandbox.write("unit.json", "{}");
    sandbox.write("blank.json", " \n");
    let mut told = String::new();
    for args in [
        &["none.json"][..],
        &["empty"],
        &["blank.json"],
        &["unit.json", "--tree", "none"],
        &["unit.json", "--tree", ".", "--venv", "../venv"],
        &["unit.json", "--tree", ".", "--tree-final-path", "app"],
    ] {
        let ran = ran(&sandbox, args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}");
        told += &ran.text;
    }
    assert_snapshot!(told, @r#"
    podstrap: error: cannot read the configuration none.json
      because: No such file or directory (os error 2)
    hint: check that the ConfigMap or volume is mounted there in this container
    podstrap: error: no *.json in empty
    hint: give the configuration file, or a directory with *.json
    podstrap: error: the configuration blank.json is empty
    hint: check the template or the ConfigMap key; the smallest configuration that Unit accepts is {}
    podstrap: error: --tree [TMP]/none is not a directory
    hint: use a published tree or a checkout
    podstrap: error: --venv ../venv is not inside the tree
    hint: give a path relative to --tree, without ..; set the path in the app's container with --tree-final-path
    podstrap: error: --tree-final-path app is not absolute
    hint: give the path in the app's container, such as /app
    "#);
}

/// Checks an application of the tree. `changed` replaces or adds members of a valid one.
fn of_tree(sandbox: &Sandbox, changed: &Value) -> String {
    let mut app = serde_json::json!({
        "type": "python 3.11", "home": "/app/python/venv", "path": "/app/python/flask", "working_directory": "/app/python",
        "module": "index",
    });
    for (name, value) in changed.as_object().unwrap() {
        match value {
            Value::Null => drop(app.as_object_mut().unwrap().remove(name)),
            value => app[name] = value.clone(),
        }
    }
    let config = serde_json::json!({"listeners": {"*:8300": {"pass": "applications/a"}}, "applications": {"a": app}});
    sandbox.write("unit.json", config.to_string());
    let ran = ran(sandbox, &["unit.json", "--tree", "tree", "--venv", "python/venv"]);
    // The quoted line of JSON is too long for the snapshot.
    let lines = ran.stdout.lines().filter(|line| !line.starts_with("  | "));
    lines
        .filter(|line| !line.starts_with("unit.json: "))
        .map(|line| {
            line.split_once("unit.json:1:").map_or(line, |(_, rest)| rest.split_once(": ").unwrap().1).to_owned() + "\n"
        })
        .collect()
}

/// Valid and invalid applications, as changes to a valid one.
const CHANGED: [&str; 26] = [
    "{}",
    r#"{"type": "python"}"#,
    r#"{"type": "python 3.1"}"#,
    r#"{"type": "python 3.12"}"#,
    r#"{"type": "python 3.11.9"}"#,
    r#"{"home": "/app/python/env"}"#,
    r#"{"home": null}"#,
    r#"{"path": "/app/python/flaks"}"#,
    r#"{"path": "flask"}"#,
    r#"{"working_directory": "/app/pyton"}"#,
    r#"{"module": "indx"}"#,
    r#"{"module": "index.py"}"#,
    r#"{"module": "outer"}"#,
    r#"{"module": "outer", "path": ["/elsewhere", "/app/python/flask"]}"#,
    r#"{"module": "ap"}"#,
    r#"{"module": "nc"}"#,
    r#"{"module": "pkg"}"#,
    r#"{"module": "factory"}"#,
    r#"{"module": "factory", "callable": "create_app"}"#,
    r#"{"module": "factory", "callable": "create_app", "factory": true}"#,
    r#"{"module": "std", "factory": true}"#,
    r#"{"module": "std", "protocol": "asgi"}"#,
    r#"{"module": "asgi", "protocol": "wsgi"}"#,
    r#"{"module": "asgi"}"#,
    r#"{"environment": {"PYTHONPATH": "/app/lib"}}"#,
    r#"{"module": null, "targets": {"x": {"module": "index"}, "y/z": {"module": "none"}}}"#,
];

#[test]
fn what_the_tree_lacks_is_found() {
    let sandbox = Sandbox::new();
    app(&sandbox);
    sandbox.write("tree/python/flask/pkg/__init__.py", "from .main import *\n");
    sandbox.write("tree/python/flask/factory.py", "def create_app():\n    return lambda e, s: []\n");
    sandbox.write("tree/python/flask/asgi.py", "async def application(scope, receive, send):\n    pass\n");
    sandbox.write("tree/python/outer.py", "def application(environ, start_response):\n    pass\n");
    let mut told = String::new();
    for changed in CHANGED {
        let changed: Value = serde_json::from_str(changed).unwrap();
        told += &format!("-- {changed}\n{}", of_tree(&sandbox, &changed));
    }
    assert_snapshot!(told, @r#"
    -- {}
    -- {"type":"python"}
    -- {"type":"python 3.1"}
    error: the environment is for Python 3.11.2, which "python 3.1" does not match: 3.1 does not include 3.11 [type]
    hint: use "python 3.11" and a Unit image with Python 3.11, or build the environment with Python 3.1
    -- {"type":"python 3.12"}
    error: the environment is for Python 3.11.2, which "python 3.12" does not match [type]
    hint: use "python 3.11" and a Unit image with Python 3.11, or build the environment with Python 3.12
    -- {"type":"python 3.11.9"}
    warning: the environment is for Python 3.11.2, but "type" needs a Unit with exactly 3.11.9 [type]
    hint: use "python 3.11"
    -- {"home":"/app/python/env"}
    warning: "home" does not end with --venv python/venv, so podstrap checks no paths [tree-place]
    hint: set --venv to the environment's directory in the tree, or --tree-final-path to the tree's path in the container
    -- {"home":null}
    warning: no application has a "home" that locates the tree, so podstrap checks no paths [tree-place]
    hint: set the tree's path in the app's container with --tree-final-path
    warning: without "home", Unit does not use the environment at python/venv [home]
    hint: set "home" to its path in the container
    -- {"path":"/app/python/flaks"}
    warning: the directory /app/python/flaks is not in the tree [path]
    hint: did you mean flask?
    error: no module index in "path" or the environment [module]
    -- {"path":"flask"}
    -- {"working_directory":"/app/pyton"}
    error: the directory /app/pyton is not in the tree [working-directory]
    hint: did you mean python?
    -- {"module":"indx"}
    error: no module indx in "path" or the environment [module]
    hint: did you mean "index"?
    -- {"module":"index.py"}
    error: no module index.py in "path" or the environment [module]
    hint: use the name of the module without .py: "index"
    -- {"module":"outer"}
    error: no module outer in "path" or the environment [module]
    hint: Python does not search working_directory; set "path": "/app/python"
    -- {"module":"outer","path":["/elsewhere","/app/python/flask"]}
    warning: no module outer in "path" or the environment [module]
    hint: Python does not search working_directory; set "path": "/app/python"
    -- {"module":"ap"}
    error: ap.py has no "application" at its top level [callable]
    hint: set "callable": "app"
    -- {"module":"nc"}
    error: "application" in nc.py is a constant, not a callable [callable]
    hint: set "callable" to the name of the application
    -- {"module":"pkg"}
    warning: cannot determine whether pkg/__init__.py has "application": it imports * from another module [callable]
    -- {"module":"factory"}
    error: factory.py has no "application" at its top level [callable]
    hint: set "callable": "create_app", "factory": true
    -- {"module":"factory","callable":"create_app"}
    warning: "create_app" in factory.py takes no arguments: it looks like a factory [callable]
    hint: set "factory": true if it returns the application
    -- {"module":"factory","callable":"create_app","factory":true}
    -- {"module":"std","factory":true}
    warning: "application" in std.py needs arguments, but Unit calls a factory without arguments [callable]
    -- {"module":"std","protocol":"asgi"}
    warning: "application" in std.py looks like WSGI, but "protocol" is "asgi" [callable]
    -- {"module":"asgi","protocol":"wsgi"}
    warning: "application" in asgi.py is async, but "protocol" is "wsgi" [callable]
    -- {"module":"asgi"}
    -- {"environment":{"PYTHONPATH":"/app/lib"}}
    warning: Python ignores PYTHONPATH if "home" is set [environment]
    hint: list the directories in "path"
    -- {"module":null,"targets":{"x":{"module":"index"},"y/z":{"module":"none"}}}
    error: no module none in "path" or the environment [module]
    "#);
}

#[test]
fn what_others_may_not_read_is_a_warning() {
    let sandbox = Sandbox::new();
    app(&sandbox);
    let index = sandbox.path("tree/python/flask/index.py");
    let lock = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // Independent of the tests' umask.
    for name in ["", "flask", "venv", "venv/lib", "venv/lib/python3.11", "venv/lib/python3.11/site-packages"] {
        lock(&sandbox.path("tree/python").join(name), 0o755);
    }
    lock(&sandbox.path("tree/python/venv/pyvenv.cfg"), 0o644);
    lock(&index, 0o640);
    assert_snapshot!(of_tree(&sandbox, &serde_json::json!({"user": "app"})), @r#"
    warning: the user app may be unable to read python/flask/index.py (mode 0640) [permissions]
    hint: make it readable for all users with chmod o+rX
    "#);
    assert_eq!(of_tree(&sandbox, &serde_json::json!({"user": "root"})), "");
    lock(&index, 0o644);
    lock(&sandbox.path("tree/python/flask"), 0o700);
    assert_snapshot!(of_tree(&sandbox, &serde_json::json!({})), @r#"
    warning: the user that Unit runs applications as may be unable to read python/flask (mode 0700) [permissions]
    hint: make it readable for all users with chmod o+rX
    "#);
}

#[test]
fn php_external_and_static_files_are_looked_up() {
    let sandbox = Sandbox::new();
    sandbox.write("tree/www/adminer.php", "<?php\n");
    sandbox.write("tree/bin/serve", "");
    sandbox.write("unit.json", r#"{
  "listeners": {"*:80": {"pass": "routes"}},
  "routes": [{"action": {"share": ["/srv/www$uri", "/srv/static$uri", "/srv/www/none.html"], "fallback": {"pass": "applications/a"}}}],
  "applications": {
    "a": {"type": "php", "root": "/srv/www", "index": "index.php", "options": {"file": "/srv/php.ini"}},
    "b": {"type": "php", "root": "/srv/wwww", "script": "adminer.php"},
    "c": {"type": "php", "targets": {"x": {"root": "/srv/www", "script": "admin.php"}}},
    "d": {"type": "external", "executable": "/srv/bin/serve"},
    "e": {"type": "external", "executable": "bin/server", "working_directory": "/srv"},
    "f": {"type": "external", "executable": "/usr/bin/elsewhere"}
  }
}
"#);
    let ran = ran(&sandbox, &["unit.json", "--tree", "tree", "--tree-final-path", "/srv"]);
    assert_eq!(ran.code, Some(7));
    assert_snapshot!(ran.stdout, @r#"
    unit.json:3:52: warning: the directory /srv/static is not in the tree [share]
      | … "routes": [{"action": {"share": ["/srv/www$uri", "/srv/static$uri", "/srv/www/none.html"], "fallbac…
      |                                                    ^
    unit.json:3:71: warning: the file /srv/www/none.html is not in the tree [share]
      | …n": {"share": ["/srv/www$uri", "/srv/static$uri", "/srv/www/none.html"], "fallback": {"pass": "appli…
      |                                                    ^
    unit.json:5:55: warning: the file /srv/www/index.php is not in the tree [php]
      | …"a": {"type": "php", "root": "/srv/www", "index": "index.php", "options": {"file": "/srv/php.ini"}},
      |                                                    ^
    unit.json:5:88: warning: the file /srv/php.ini is not in the tree [php]
      | …"a": {"type": "php", "root": "/srv/www", "index": "index.php", "options": {"file": "/srv/php.ini"}},
      |                                                                                     ^
    unit.json:6:34: error: the directory /srv/wwww is not in the tree [php]
      |     "b": {"type": "php", "root": "/srv/wwww", "script": "adminer.php"},
      |                                  ^
    hint: did you mean www?
    unit.json:7:74: error: the file /srv/www/admin.php is not in the tree [php]
      |     "c": {"type": "php", "targets": {"x": {"root": "/srv/www", "script": "admin.php"}}},
      |                                                                          ^
    hint: did you mean adminer.php?
    unit.json:8:45: error: /srv/bin/serve is not executable [executable]
      |     "d": {"type": "external", "executable": "/srv/bin/serve"},
      |                                             ^
    hint: run chmod +x, and commit the mode
    unit.json:9:45: error: the file /srv/bin/server is not in the tree [executable]
      |     "e": {"type": "external", "executable": "bin/server", "working_directory": "/srv"},
      |                                             ^
    hint: did you mean serve?
    unit.json: 4 errors, 4 warnings
    "#);
    let unplaced = sandbox.run(sandbox.podstrap().args(["check", "unit.json", "--tree", "tree"]));
    assert_eq!(unplaced.code, Some(0));
    assert_snapshot!(unplaced.stdout, @r#"
    unit.json:1:1: warning: no application has a "home" that locates the tree, so podstrap checks no paths [tree-place]
      | {
      | ^
    hint: set the tree's path in the app's container with --tree-final-path
    unit.json: 0 errors, 1 warning
    "#);
}

#[test]
fn what_init_publishes_fits_its_configuration() {
    let article = Article::new();
    let environment = ["--venv", "python/venv", "--venv-final-path", "/app/python/venv"];
    article.ok(article.init("uv").args(environment).arg("Flask"));
    // The article's own configuration, as recorded: that Unit had no Python 3.5 either.
    let recorded = CASES.iter().find(|case| case.name == "put-article-verbatim").and_then(made).unwrap();
    let recorded = String::from_utf8(recorded).unwrap();
    let check = |text: &str| {
        article.sandbox.write("unit.json", text);
        let mut command = article.sandbox.podstrap();
        command.args(["check", "unit.json", "--venv", "python/venv", "--tree"]).arg(article.sandbox.root());
        article.run(&mut command)
    };
    let ran = check(&recorded.replace("python 3.5", "python"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "unit.json: 0 errors, 0 warnings\n"));
    let ran = check(&recorded);
    assert_eq!(ran.code, Some(7));
    assert!(ran.stdout.contains(", which \"python 3.5\" does not match [type]"), "{}", ran.stdout);
    assert!(article.last_words().starts_with("podstrap: error: unit.json is not valid for Unit: 1 error"));
    let ran = check(&recorded.replace("python 3.5", "python").replace("\"index\"", "\"flask.app\""));
    assert!(ran.stdout.contains("flask/app.py has no \"application\" at its top level"), "{}", ran.stdout);
}
