//! Random changes to valid configurations of every kind: `check` and a real Unit must agree about the result.

use std::fmt::Write as _;
use std::time::Duration;

use podstrap::check::{Severity, check};
use serde_json::{Value, json};

use super::real::{Place, Unitd};
use crate::support::fake_unit::{Asked, Came, Case, ask};

/// Number of configurations and of texts; `PODSTRAP_TEST_MUTATIONS` overrides it.
const MUTATIONS: usize = 300;

const PATIENCE: Duration = Duration::from_secs(10);

/// A valid configuration, its part to change, and the module of Unit that it needs.
fn bases() -> Vec<(Value, &'static str, &'static str)> {
    // Unit starts no process for it, so the result does not depend on the machine.
    let app = |more: Value| {
        let mut app = json!({"type": "python", "module": "m", "processes": {"spare": 0, "max": 2, "idle_timeout": 5}});
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"listeners": {"127.0.0.1:8300": {"pass": "applications/a"}}, "applications": {"a": app}})
    };
    let other = |kind: &str, more: Value| {
        let mut config = app(json!({}));
        let app = config["applications"]["a"].as_object_mut().unwrap();
        app.remove("module");
        app.extend(more.as_object().unwrap().clone());
        app["type"] = kind.into();
        config
    };
    let isolation = json!({"namespaces": {"credential": true, "pid": true, "network": false, "mount": true, "uname": true, "cgroup": true},
        "uidmap": [{"container": 0, "host": 1000, "size": 1}], "gidmap": [{"container": 0, "host": 1000, "size": 1}],
        "rootfs": "/nonexistent", "automount": {"language_deps": false, "tmpfs": true, "procfs": true}, "new_privs": true,
        "cgroup": {"path": "podstrap-test"}});
    vec![
        (
            app(
                json!({"home": "/app/venv", "path": ["/app", "/lib"], "callable": "application", "factory": true, "prefix": "/x",
            "protocol": "asgi", "threads": 4, "thread_stack_size": 131_072, "user": "nobody", "group": "nogroup",
            "working_directory": "/app", "environment": {"A": "1", "B": "2"}, "stdout": "/dev/null", "stderr": "/dev/null",
            "limits": {"timeout": 10, "requests": 100, "shm": 1_048_576}}),
            ),
            "",
            "python",
        ),
        (
            json!({"listeners": {"127.0.0.1:8300": {"pass": "applications/a/x"}, "[::1]:8300": {"pass": "applications/a/y"}},
            "applications": {"a": {"type": "python 3", "processes": {"spare": 0}, "path": "/app",
                "targets": {"x": {"module": "m", "callable": "c", "factory": false, "prefix": "/p"}, "y": {"module": "n"}}}}}),
            "",
            "python",
        ),
        (app(json!({"isolation": isolation})), "/applications/a/isolation", "python"),
        (
            json!({"listeners": {"127.0.0.1:8300": {"pass": "routes", "backlog": 511}, "127.0.0.1:8301": {"application": "a"}},
            "routes": [{"action": {"pass": "applications/a"}}],
            "applications": {"a": {"type": "external", "executable": "/nonexistent/app", "arguments": ["-x", "y"],
                "processes": {"spare": 0}}}}),
            "",
            "",
        ),
        (
            json!({"listeners": {"127.0.0.1:8300": {"pass": "routes/main", "forwarded": {"client_ip": "X-Forwarded-For", "protocol": "X-Proto",
                "source": ["10.0.0.0/8", "!192.168.0.1-192.168.0.9:80-90", "::1", "[fe80::1]:80"], "recursive": true}},
            "*:8301": {"pass": "upstreams/u", "client_ip": {"source": "unix", "header": "X-Real", "recursive": false}}},
            "routes": {"main": [
                {"match": {"method": ["GET", "!POST"], "scheme": "https", "host": "*.example.org", "source": "127.0.0.1",
                    "destination": "*:8300", "uri": ["/a/*", "~^/b(c|d)$"], "query": "x=%20", "arguments": {"a%20b": "1"},
                    "headers": [{"X-A": "1"}, {"X-B": ["2", "!3"]}], "cookies": {"c": "*"}, "if": "!$arg_x"},
                 "action": {"return": 301, "location": "https://$host$request_uri", "response_headers": {"X-C": "$uri", "X-D": null}}},
                {"action": {"share": ["/www$uri", "/static/"], "index": "i.html", "types": ["image/*", "!text/x"], "chroot": "/www",
                    "follow_symlinks": false, "traverse_mounts": true, "rewrite": "/y",
                    "fallback": {"proxy": "http://127.0.0.1:9000", "rewrite": "${uri}"}}}],
              "other": [{"action": {"pass": "routes/main"}}]},
            "upstreams": {"u": {"servers": {"127.0.0.1:9001": {"weight": 0.5}, "127.0.0.1:9002": {}}}}}),
            "",
            "",
        ),
        (
            json!({"listeners": {}, "access_log": {"path": "/dev/null", "format": {"a": "$remote_addr", "b": "$header_x"}, "if": "$uri"},
            "settings": {"listen_threads": 2, "http": {"header_read_timeout": 10, "body_read_timeout": 10, "send_timeout": 10,
                "idle_timeout": 120, "large_header_buffer_size": 8192, "large_header_buffers": 4, "body_buffer_size": 16384,
                "max_body_size": 1_048_576, "body_temp_path": "/tmp", "discard_unsafe_fields": true, "log_route": true,
                "server_version": false, "chunked_transform": true,
                "websocket": {"read_timeout": 60, "keepalive_interval": 30, "max_frame_size": 1_048_576},
                "static": {"mime_types": {"text/plain": ["txt", "log"], "text/x": "x"}},
                "compression": {"types": ["text/*"], "compressors": [{"encoding": "identity", "level": 1, "min_length": 10}]}}}}),
            "",
            "",
        ),
        (
            json!({"listeners": {"127.0.0.1:8300": {"pass": "routes", "tls": {"certificate": ["c"], "conf_commands": {"MinProtocol": "TLSv1.2"},
            "session": {"cache_size": 10, "timeout": 60, "tickets": ["A".repeat(64), "B".repeat(107) + "="]}}}},
            "routes": [{"action": {"return": 200}}], "access_log": "/dev/null"}),
            "",
            "",
        ),
        (
            other(
                "php",
                json!({"root": "/www", "script": "a.php", "index": "i.php",
            "options": {"file": "/php.ini", "admin": {"memory_limit": "1M"}, "user": {"display_errors": "0"}}}),
            ),
            "",
            "php",
        ),
        (
            other(
                "php",
                json!({"targets": {"x": {"root": "/www", "script": "a.php"}, "y": {"root": "/www", "index": "i.php"}},
            "options": {}}),
            ),
            "",
            "php",
        ),
        (other("perl", json!({"script": "/a.psgi", "threads": 1, "thread_stack_size": 131_072})), "", "perl"),
        (other("ruby", json!({"script": "/a.ru", "threads": 1, "hooks": "/h.rb"})), "", "ruby"),
        (
            other(
                "java",
                json!({"classpath": ["/a"], "webapp": "/w", "options": ["-x"], "unit_jars": "/j", "threads": 1,
            "thread_stack_size": 131_072}),
            ),
            "",
            "java",
        ),
        (
            other(
                "wasm",
                json!({"module": "/m", "request_handler": "a", "malloc_handler": "b", "free_handler": "c",
            "module_init_handler": "d", "access": {"filesystem": ["/"]}}),
            ),
            "",
            "wasm",
        ),
        (
            other("wasm-wasi-component", json!({"component": "/c", "access": {"filesystem": []}})),
            "",
            "wasm-wasi-component",
        ),
    ]
}

/// Values to insert anywhere.
fn values() -> Vec<Value> {
    let mut all = vec![
        json!(null),
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!(["x"]),
        json!([1]),
        json!({"a": 1}),
        json!({"a": "b"}),
        json!([{}]),
        json!([["x"]]),
    ];
    all.extend(
        [-2_i64, -1, 0, 1, 2, 254, 999, 1000, 4096, 16384, 65535, 2_147_483, 2_147_484, 2_147_483_647, 2_147_483_648]
            .map(Value::from),
    );
    all.extend([0.5, 1.5, -0.5, 1_000_000.5].map(Value::from));
    all.extend(STRINGS.map(Value::from));
    all
}

const STRINGS: [&str; 60] = [
    "",
    "x",
    "!",
    "*",
    "**",
    "a**b",
    "!*",
    "~",
    "~(",
    "~[a",
    "~a)",
    "!~^/x$",
    "~\\",
    "/",
    "/x",
    "$uri",
    "$",
    "$x",
    "${uri}",
    "${uri",
    "a$arg_b",
    "%",
    "%2",
    "%20",
    "%zz",
    "`x`",
    "routes",
    "routes/main",
    "routes/none",
    "applications/a",
    "applications/a/x",
    "applications/none",
    "applications",
    "upstreams/u",
    "upstreams/",
    "a/b/c/d",
    "http",
    "HTTPS",
    "wsgi",
    "asgi",
    "http://127.0.0.1:80",
    "http://localhost:80",
    "http://[::1]:80",
    "https://x",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "x/8",
    "10.0.0.9-10.0.0.1",
    "*:80",
    "*:80-70",
    "::1",
    "[::1]",
    "unix",
    "identity",
    "AAAA",
    "../x",
    "python",
    "python 3.1",
    "Content-Length",
    "c",
];

const NAMES: [&str; 24] = [
    "",
    "x",
    "pass",
    "Pass",
    "type",
    "module",
    "targets",
    "path",
    "share",
    "return",
    "proxy",
    "certificate",
    "source",
    "servers",
    "a=b",
    "a%",
    "Content-Length",
    "*:8302",
    "127.0.0.1",
    "[::1]:8303",
    "localhost:80",
    "*:0",
    "1.2.3.4:99999",
    "weight",
];

/// A JSON value. An object keeps the order of its members and may repeat a name.
#[derive(Clone)]
enum Tree {
    Leaf(Value),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(all) => Self::Array(all.iter().map(Self::of).collect()),
            Value::Object(all) => {
                Self::Object(all.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
            other => Self::Leaf(other.clone()),
        }
    }
    fn text(&self, out: &mut String) {
        let quoted = |name: &String| Value::from(name.as_str()).to_string();
        match self {
            Self::Leaf(value) => out.push_str(&value.to_string()),
            Self::Array(all) => {
                out.push('[');
                for (index, one) in all.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    one.text(out);
                }
                out.push(']');
            }
            Self::Object(all) => {
                out.push('{');
                for (index, (name, one)) in all.iter().enumerate() {
                    let _ = write!(out, "{}{}: ", if index > 0 { ", " } else { "" }, quoted(name));
                    one.text(out);
                }
                out.push('}');
            }
        }
    }
    fn at(&mut self, pointer: &str) -> &mut Self {
        pointer.split('/').skip(1).fold(self, |tree, name| match tree {
            Self::Object(all) => all.iter_mut().find(|(known, _)| known == name).map(|(_, tree)| tree).unwrap(),
            _ => panic!("no object at {name}"),
        })
    }
    /// The number of values in it, itself included.
    fn size(&self) -> usize {
        1 + match self {
            Self::Leaf(_) => 0,
            Self::Array(all) => all.iter().map(Self::size).sum(),
            Self::Object(all) => all.iter().map(|(_, one)| one.size()).sum(),
        }
    }
    /// The value with this number, in the order of the text.
    fn nth(&mut self, mut number: usize) -> &mut Self {
        if number == 0 {
            return self;
        }
        number -= 1;
        let inner: Vec<&mut Self> = match self {
            Self::Leaf(_) => panic!("too large a number"),
            Self::Array(all) => all.iter_mut().collect(),
            Self::Object(all) => all.iter_mut().map(|(_, one)| one).collect(),
        };
        for one in inner {
            let size = one.size();
            if number < size {
                return one.nth(number);
            }
            number -= size;
        }
        panic!("too large a number")
    }
    /// Makes one small random change.
    fn mutate(&mut self, rng: &mut fastrand::Rng) {
        let number = rng.usize(..self.size());
        let any = |rng: &mut fastrand::Rng| Self::of(&values()[rng.usize(..values().len())]);
        match self.nth(number) {
            Self::Object(all) if !all.is_empty() && rng.u8(..6) > 0 => {
                let index = rng.usize(..all.len());
                match rng.u8(..5) {
                    0 => drop(all.remove(index)),
                    1 => {
                        let name = &mut all[index].0;
                        let at = name
                            .char_indices()
                            .map(|(at, _)| at)
                            .nth(rng.usize(..=name.chars().count().saturating_sub(1)))
                            .unwrap_or(0);
                        if rng.bool() && !name.is_empty() {
                            name.remove(at);
                        } else {
                            name.insert(at, 'e');
                        }
                    }
                    2 => all[index].0 = NAMES[rng.usize(..NAMES.len())].into(),
                    3 => {
                        let again = all[index].clone();
                        all.push(again);
                    }
                    _ => all.push((NAMES[rng.usize(..NAMES.len())].into(), any(rng))),
                }
            }
            Self::Array(all) if rng.bool() => all.push(any(rng)),
            other => *other = any(rng),
        }
    }
}

/// Unit's verdict: accepted (also if it failed to apply), refused, refused as JSON at an offset, or
/// crashed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Refused,
    Json(u64),
    Crashed,
}

struct Unit {
    place: Option<(Place, Unitd)>,
}

impl Unit {
    fn put(&mut self, path: &str, body: impl Into<Vec<u8>>) -> (Verdict, String) {
        let (place, _) = self.place.get_or_insert_with(|| {
            let place = Place::new();
            let unitd = place.started();
            (place, unitd)
        });
        let asked = Asked { method: "PUT".into(), path: path.into(), body: body.into() };
        match ask(&place.socket(), &Case::step(&asked), PATIENCE) {
            Came::Response(response) if response.status == 400 => {
                let reply: Value = serde_json::from_str(&response.body).unwrap_or_default();
                let offset = reply.pointer("/location/offset").and_then(Value::as_u64);
                (offset.map_or(Verdict::Refused, Verdict::Json), response.body)
            }
            Came::Response(response) => (Verdict::Taken, response.body),
            Came::Nothing => {
                self.place = None;
                (Verdict::Crashed, String::new())
            }
            // Unit refuses at once. Silence means that it accepted, and that an application does not start.
            Came::Silence => {
                self.place = None;
                (Verdict::Taken, String::new())
            }
        }
    }

    fn modules(&mut self) -> Vec<String> {
        self.put("/config", "{}");
        let (place, _) = self.place.as_ref().unwrap();
        let asked = Asked { method: "GET".into(), path: "/status/modules".into(), body: Vec::new() };
        let Came::Response(response) = ask(&place.socket(), &Case::step(&asked), Duration::from_secs(30)) else {
            panic!()
        };
        let modules: Value = serde_json::from_str(&response.body).unwrap();
        modules.as_object().unwrap().keys().cloned().collect()
    }

    fn with_certificate(&mut self) {
        if self.place.is_some() {
            return;
        }
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let bundle = made.cert.pem() + &made.signing_key.serialize_pem();
        assert_eq!(self.put("/certificates/c", bundle).0, Verdict::Taken);
    }
}

fn number() -> usize {
    std::env::var("PODSTRAP_TEST_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS)
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn check_says_what_a_real_unit_says() {
    let mut unit = Unit { place: None };
    let modules = unit.modules();
    unit.place = None;
    let bases: Vec<_> =
        bases().into_iter().filter(|(_, _, module)| module.is_empty() || modules.iter().any(|m| m == module)).collect();
    let (mut taken, mut refused, mut crashed, mut depends, mut differ) = (0, 0, 0, 0, Vec::new());
    for (base, _, _) in &bases {
        unit.with_certificate();
        let (verdict, words) = unit.put("/config", base.to_string());
        assert_eq!(verdict, Verdict::Taken, "{base} {words}");
        let errors: Vec<_> =
            check(base.to_string().as_bytes(), None).findings.into_iter().filter(|f| f.refused).collect();
        assert!(errors.is_empty(), "{base} {errors:#?}");
    }
    for seed in 0..number() as u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (base, part, _) = &bases[rng.usize(..bases.len())];
        let mut tree = Tree::of(base);
        for _ in 0..=rng.usize(..2) {
            tree.at(part).mutate(&mut rng);
        }
        let mut text = String::new();
        tree.text(&mut text);
        unit.with_certificate();
        let (verdict, words) = unit.put("/config", text.as_str());
        let findings = check(text.as_bytes(), None).findings;
        let refuses = findings.iter().any(|finding| finding.refused);
        // Uploads and build options: Unit may refuse where check only warns.
        let warned = findings.iter().any(|finding| matches!(finding.rule, "certificate" | "script" | "build"));
        // check does not know the modules of Unit or their versions.
        let module = words.contains("The module to run");
        // A rule of FreeUnit that NGINX Unit does not have.
        let module = module || words.contains("an absolute path other than");
        match (&verdict, refuses) {
            (Verdict::Taken, false) => taken += 1,
            (Verdict::Refused | Verdict::Json(_), true) => refused += 1,
            (Verdict::Crashed, true) => crashed += 1,
            (Verdict::Refused, false) if warned || module => depends += 1,
            _ => differ.push(format!("{seed}: {verdict:?} {words}\n{text}\n{findings:#?}")),
        }
    }
    println!(
        "{taken} taken by both, {refused} refused by both, {crashed} crash Unit and are refused, {depends} depend on its build"
    );
    println!("{} differ", differ.len());
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn check_reads_text_as_a_real_unit_does() {
    let mut unit = Unit { place: None };
    let bytes: &[u8] = b"{}[],:\"\\/*#'\n\r\t 0123456789-+.eEtfnu\x00\x01\x7f\x80\xc3\xa9\xef\xbb\xbf\x0c";
    let text = "{\"listeners\": {\"127.0.0.1:8300\": {\"pass\": \"routes\"}}, // one\n /* two */ \"routes\": [{\"match\": {\"uri\": \
                [\"/\\u00e9\\ud83d\\ude00\\n\", \"é\"]}, \"action\": {\"return\": 2e2,}}, {\"action\": {\"return\": 404.0}}],}\n// end\n";
    let (mut taken, mut refused, mut differ) = (0, 0, Vec::new());
    for seed in 0..number() as u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut mutated = text.as_bytes().to_vec();
        for _ in 0..=rng.usize(..2) {
            let at = rng.usize(..mutated.len());
            match rng.u8(..10) {
                0 => mutated.truncate(at.max(1)),
                1..4 => drop(mutated.remove(at)),
                4..7 => mutated.insert(at, bytes[rng.usize(..bytes.len())]),
                _ => mutated[at] = bytes[rng.usize(..bytes.len())],
            }
        }
        let (verdict, words) = unit.put("/config", mutated.as_slice());
        let findings = check(&mutated, None).findings;
        let json = findings.first().filter(|finding| finding.rule == "json").map(|finding| finding.offset as u64);
        let ours = match json {
            Some(offset) => Verdict::Json(offset),
            None if findings.iter().any(|finding| finding.refused) => Verdict::Refused,
            None => Verdict::Taken,
        };
        if ours != verdict {
            differ.push(format!("{seed}: {verdict:?} {words}\n{}\n{findings:#?}", String::from_utf8_lossy(&mutated)));
        } else if ours == Verdict::Taken {
            taken += 1;
        } else {
            refused += 1;
        }
    }
    println!("{taken} taken by both, {refused} refused by both at the same place, {} differ", differ.len());
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}

/// Members that take a string in a language, with valid strings and their alphabet.
const LANGUAGES: [(&str, &[&str], &str); 8] = [
    (
        "listener",
        &["127.0.0.1:8300", "*:8300", "[::1]:8300", "[1:2:3:4:5:6:7:8]:8300", "[::ffff:1.2.3.4]:8300"],
        "0189.:[]*af-",
    ),
    ("server", &["127.0.0.1:8300", "*:8300", "[::1]:8300", "[fe80::1:2]:80", "unix:/a"], "0189.:[]*afunix/"),
    (
        "source",
        &["10.0.0.0/8", "10.0.0.1-10.0.0.9:80-90", "!*:80", "[::1]:80-81", "fe80::1/64", "::1-::5", "unix"],
        "0189.:[]*af-/!u",
    ),
    ("pass", &["routes/a", "applications/a", "applications/a/t", "upstreams/u", "routes/a%2fb"], "routesaplicnu/%2f"),
    ("share", &["/www$uri", "${host}$uri", "$header_a$arg_b", "$response_header_x", "$cookie_c"], "/${}_uriahosteg1"),
    ("uri", &["/a*b*", "!*", "~^/a$", "~[^a]b", "~(a|b)+", "~a{1,2}", "/%20a"], "a*!~[]()^$|\\%20-{},?+"),
    ("number", &["1", "-1", "1.5", "2e2", "1e-3", "100000", "0.0"], "0123459.-+eE"),
    ("ticket", &["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"], "A=+/-_"),
];

fn placed(language: &str, text: &str) -> String {
    let quoted = Value::from(text).to_string();
    let route = |inner: String| format!("{{\"listeners\": {{}}, \"routes\": [{{{inner}}}]}}");
    match language {
        "listener" => format!("{{\"listeners\": {{{quoted}: {{\"pass\": \"routes\"}}}}, \"routes\": []}}"),
        "server" => format!("{{\"listeners\": {{}}, \"upstreams\": {{\"u\": {{\"servers\": {{{quoted}: {{}}}}}}}}}}"),
        "source" => route(format!("\"match\": {{\"source\": {quoted}}}, \"action\": {{\"return\": 200}}")),
        "pass" => format!(
            "{{\"listeners\": {{}}, \"routes\": {{\"a\": [{{\"action\": {{\"pass\": {quoted}}}}}], \"a/b\": []}}, \"upstreams\": \
             {{\"u\": {{\"servers\": {{\"127.0.0.1:1\": {{}}}}}}}}, \"applications\": {{\"a\": {{\"type\": \"python\", \"processes\": \
             {{\"spare\": 0}}, \"targets\": {{\"t\": {{\"module\": \"m\"}}}}}}}}}}"
        ),
        "share" => route(format!("\"action\": {{\"share\": {quoted}}}")),
        "uri" => route(format!("\"match\": {{\"uri\": {quoted}}}, \"action\": {{\"return\": 200}}")),
        "number" => format!(
            "{{\"listeners\": {{}}, \"upstreams\": {{\"u\": {{\"servers\": {{\"127.0.0.1:1\": {{\"weight\": {text}}}}}}}}}}}"
        ),
        "ticket" => format!(
            "{{\"listeners\": {{\"127.0.0.1:8300\": {{\"pass\": \"routes\", \"tls\": {{\"certificate\": \"c\", \"session\": {{\"tickets\": \
             {quoted}}}}}}}}}, \"routes\": []}}"
        ),
        _ => unreachable!(),
    }
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn check_reads_strings_as_a_real_unit_does() {
    let mut unit = Unit { place: None };
    let (mut taken, mut refused, mut regex, mut differ) = (0, 0, 0, Vec::new());
    for seed in 0..number() as u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (language, good, alphabet) = LANGUAGES[rng.usize(..LANGUAGES.len())];
        let alphabet: Vec<char> = alphabet.chars().collect();
        let mut text: Vec<char> = good[rng.usize(..good.len())].chars().collect();
        for _ in 0..=rng.usize(..3) {
            let at = rng.usize(..text.len().max(1));
            let new = alphabet[rng.usize(..alphabet.len())];
            match rng.u8(..4) {
                0 if !text.is_empty() => drop(text.splice(at..=at, [])),
                1 if !text.is_empty() => text[at] = new,
                2 => text.truncate(at),
                _ => text.insert(at.min(text.len()), new),
            }
        }
        let text: String = text.into_iter().collect();
        unit.with_certificate();
        let config = placed(language, &text);
        let (verdict, words) = unit.put("/config", config.as_str());
        let findings = check(config.as_bytes(), None).findings;
        match (&verdict, findings.iter().any(|finding| finding.refused)) {
            (Verdict::Taken, false) => taken += 1,
            (Verdict::Refused | Verdict::Json(_), true) => refused += 1,
            // Only PCRE knows all of its syntax.
            (Verdict::Refused, false) if words.contains("regular expression") => regex += 1,
            _ => differ.push(format!("{seed}: {language} {text:?} {verdict:?} {words}\n{findings:#?}")),
        }
    }
    println!(
        "{taken} taken by both, {refused} refused by both, {regex} regular expressions refused by Unit alone, {} differ",
        differ.len()
    );
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn what_a_real_unit_fails_on_is_an_error() {
    let listeners = |names: &[&str]| {
        let all: Vec<_> = names.iter().map(|name| format!("\"{name}\": {{\"pass\": \"routes\"}}")).collect();
        format!("{{\"listeners\": {{{}}}, \"routes\": []}}", all.join(", "))
    };
    let mut unit = Unit { place: None };
    for (config, fails) in [
        (listeners(&["*:8300", "127.0.0.1:8300"]), true),
        (listeners(&["*:8300", "0.0.0.0:8300"]), true),
        (listeners(&["127.0.0.1:8300", "127.0.0.1:08300"]), true),
        (listeners(&["[::]:8300", "[::1]:8300"]), true),
        (listeners(&["*:8300", "[::]:8300"]), false),
        ("{\"listeners\": {\"127.0.0.1:8300\": {}}}".to_owned(), true),
    ] {
        let (verdict, words) = unit.put("/config", config.as_str());
        let findings = check(config.as_bytes(), None).findings;
        assert_eq!(verdict, Verdict::Taken, "{config} {words}");
        assert_eq!(words.contains("Failed to apply"), fails, "{config} {words}");
        assert_eq!(!findings.is_empty(), fails, "{config} {findings:#?}");
        assert!(
            findings.iter().all(|finding| finding.severity == Severity::Error && !finding.refused),
            "{findings:#?}"
        );
    }
    let crashes =
        "{\"settings\": {\"http\": {\"compression\": {\"compressors\": {\"a\": {\"encoding\": \"identity\"}}}}}}";
    assert_eq!(unit.put("/config", crashes).0, Verdict::Crashed);
    assert!(check(crashes.as_bytes(), None).findings[0].refused);
}
