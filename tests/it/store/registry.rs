//! A store in a real registry, and in servers that behave like none.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::failures::{flip, warns};
use super::restore::files;
use super::{Bench, venv, warnings};
use crate::support::http::{Request, Response, Server};
use crate::support::kill::kill_all;
use crate::support::packages::sha256;
use crate::support::registry::{Front, LOGIN, Registry};
use crate::support::sandbox::Ran;
use crate::support::sshd::{Cut, relay};

/// Pods that start at once.
const PODS: usize = 8;

fn init(bench: &Bench, store: &str, volume: &str) -> Command {
    let mut command = bench.app.init("uv", "old", &bench.root(volume), None);
    command.args(["--store", store]);
    command
}

/// A Secret with a login for this host, as Kubernetes mounts it.
fn secret(bench: &Bench, name: &str, host: &str, login: (&str, &str)) -> PathBuf {
    let auth = BASE64_STANDARD.encode(format!("{}:{}", login.0, login.1));
    let text = json!({"auths": {host: {"auth": auth}}}).to_string();
    bench.app.sandbox.write(&format!("{name}/.dockerconfigjson"), text);
    bench.app.sandbox.path(name)
}

fn store(bench: &Bench, args: &[&str]) -> Ran {
    let mut command = bench.app.sandbox.podstrap();
    bench.app.sandbox.run(command.arg("store").args(args))
}

#[test]
fn a_second_pod_restores_the_same_files_from_a_private_registry() {
    let bench = Bench::new();
    let Some(registry) = Registry::start_private(&bench.app.sandbox.path("registry")) else { return };
    let ca = bench.app.sandbox.write("ca.pem", registry.ca.as_ref().unwrap());
    let auth = secret(&bench, "login", &registry.host(), LOGIN);
    let with = |volume: &str, auth: &PathBuf| {
        let mut command = init(&bench, &registry.store(), volume);
        command.arg("--ca-file").arg(&ca).arg("--auth").arg(auth);
        command
    };
    let built = bench.builds(&mut with("one", &auth));
    assert!(built.raw.contains("saved ") && warnings(&built).is_empty(), "{}", built.raw);
    let restored = bench.restores(&mut with("two", &auth));
    assert!(warnings(&restored).is_empty(), "{}", restored.raw);
    let [one, two] = ["one", "two"].map(|name| files(&venv(&bench.app.sandbox.path(name))));
    assert_eq!(one, two);
    // An entry that another tool can read.
    let blobs = registry.blobs();
    assert_eq!(zstd::decode_all(&fs::read(&blobs[0]).unwrap()[..]).unwrap().len() % 512, 0);

    let (ca, login) = (ca.to_str().unwrap(), auth.to_str().unwrap());
    let flags = ["--ca-file", ca, "--auth", login];
    let ran = store(&bench, &[&["list", &registry.store()], &flags[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[1].ends_with("unsigned"), "{}", ran.stdout);
    let ran = store(&bench, &[&["list", &registry.store(), "--format", "json"], &flags[..]].concat());
    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(rows[0]["key"], bench.record("one")["environment"]["key"]);
    assert_eq!(rows[0]["used_at"], Value::Null);
    let ran = store(&bench, &[&["verify", &registry.store()], &flags[..]].concat());
    assert!(ran.code == Some(0) && ran.stdout.trim_end().ends_with("ok"), "{}{}", ran.stdout, ran.raw);
    let empty = format!("oci://{}/nothing/here", registry.host());
    let ran = store(&bench, &[&["list", &empty], &flags[..]].concat());
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 1), "{}", ran.raw);
    let ran = store(&bench, &["prune", &registry.store(), "--store-limit", "1Gi"]);
    assert!(ran.code == Some(2) && ran.error().contains("the registry's own rules for retention"), "{}", ran.raw);

    // Other logins.
    let helper = bench.app.sandbox.write("helper/config.json", "{\"credsStore\": \"pass\", \"auths\": {\"HOST\": {}}}");
    fs::write(&helper, fs::read_to_string(&helper).unwrap().replace("HOST", &registry.host())).unwrap();
    for (name, auth, why) in [
        ("wrong", secret(&bench, "wrong", &registry.host(), ("ci", "reg-wr0ng-9")), "401 Unauthorized (UNAUTHORIZED)"),
        ("other", secret(&bench, "other", "other.example", LOGIN), "401 Unauthorized"),
        ("helper", bench.app.sandbox.path("helper"), "a credential helper, which podstrap does not run"),
    ] {
        let mut command = with(&format!("volume-{name}"), &auth);
        warns(&bench, command.args(["--log-level", "debug"]), why);
        let ran = bench.app.sandbox.run(with("only", &auth).arg("--store-only"));
        assert_eq!(ran.code, Some(if name == "helper" { 2 } else { 5 }), "{}", ran.raw);
        assert!(ran.error().contains(why) && ran.error().contains("hint:"), "{}", ran.raw);
        assert!(!ran.raw.contains("wr0ng") && !ran.raw.contains("s3cret"), "{}", ran.raw);
        assert!(
            !ran.raw.contains("the package index") && !ran.raw.contains("installing"),
            "found out early: {}",
            ran.raw
        );
    }
    // The right CA is required, on this host too.
    let mut command = init(&bench, &registry.store(), "distrust");
    warns(&bench, command.arg("--auth").arg(&auth), "invalid peer certificate");
}

#[test]
fn a_login_that_may_only_read_reads() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let login = format!("Basic {}", BASE64_STANDARD.encode("reader:r3ader"));
    let front = Front::start(
        &registry,
        move |request| match (request.authorization(), &*request.method) {
            (Some(given), "GET" | "HEAD") if given == login => None,
            (Some(given), _) if given == login => {
                let body = r#"{"errors": [{"code": "DENIED", "message": "r3ader may not"}]}"#;
                Some(Response::new(403, body))
            }
            _ => Some(Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"registry\"")),
        },
        |_, answer| answer,
    );
    let auth = secret(&bench, "reader", &front.host(), ("reader", "r3ader"));
    let with = |volume: &str| {
        let mut command = init(&bench, &front.store(), volume);
        command.arg("--auth").arg(&auth);
        command
    };
    warns(&bench, &mut with("empty"), "answers 403 Forbidden (DENIED)");
    bench.builds(&mut init(&bench, &registry.store(), "writer"));
    let ran = bench.restores(&mut with("reader"));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
}

#[test]
fn of_many_pods_at_once_few_build() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let pods: Vec<_> = (0..PODS)
        .map(|pod| {
            let mut command = init(&bench, &registry.store(), &format!("pod-{pod}"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let runs: Vec<_> = pods.into_iter().map(|pod| bench.app.sandbox.ran(&pod.wait_with_output().unwrap())).collect();
    for ran in &runs {
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert!(warnings(ran).is_empty(), "{}", ran.raw);
    }
    let built = runs.iter().filter(|ran| !ran.raw.contains("from the store")).count();
    println!("{built} of {PODS} built");
    assert!((1..=2).contains(&built), "{built} built: {runs:#?}");
    assert!(runs.iter().any(|ran| ran.raw.contains("waiting for another podstrap")), "{runs:#?}");
    let ran = store(&bench, &["verify", &registry.store()]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 2), "{}{}", ran.stdout, ran.raw);
}

#[test]
fn a_dead_builder_keeps_nobody_for_long() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let asked = Arc::new(AtomicUsize::new(0));
    let announced = Arc::clone(&asked);
    let front = Front::start(
        &registry,
        move |request| {
            let is_building = request.method == "PUT" && request.path().ends_with(".building");
            announced.fetch_add(usize::from(is_building), Ordering::SeqCst);
            None
        },
        |_, answer| answer,
    );
    let mut command = init(&bench, &front.store(), "victim");
    let mut victim = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    while asked.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the victim announces nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    kill_all(&mut victim);
    let started = Instant::now();
    let ran = bench.builds(&mut init(&bench, &registry.store(), "one"));
    assert!(ran.raw.contains("waiting for another podstrap") && warnings(&ran).is_empty(), "{}", ran.raw);
    assert!(started.elapsed() < Duration::from_secs(45), "{:?}", started.elapsed());
    bench.restores(&mut init(&bench, &registry.store(), "two"));
    // A builder that ends leaves a lease that is over: nobody waits for it.
    bench.builds(init(&bench, &registry.store(), "fresh").arg("--refresh"));
}

#[test]
fn a_failed_build_keeps_nobody() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let mut command = init(&bench, &registry.store(), "fails");
    let ran =
        bench.app.sandbox.run(command.env("PIP_INDEX_URL", "http://127.0.0.1:9/simple/").args(["--timeout", "5s"]));
    assert_ne!(ran.code, Some(0), "{}", ran.raw);
    let again = bench.app.sandbox.run(init(&bench, &registry.store(), "again").args(["--timeout", "1m"]));
    assert!(again.code == Some(0) && !again.raw.contains("waiting"), "{}", again.raw);
}

#[test]
fn a_registry_that_dies_leaves_no_wrong_entry() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let store_url = registry.store();
    let started = Instant::now();
    bench.builds(&mut init(&bench, &store_url, "first"));
    let took = started.elapsed();
    let wanted = files(&venv(&bench.app.sandbox.path("first")));
    let registry = Mutex::new(registry);
    let mut rng = fastrand::Rng::with_seed(crate::support::volume::seed());
    for round in 0..8 {
        // Half of the rounds have an entry to download, the others upload one.
        let uploads = round % 2 == 0;
        if uploads {
            registry.lock().unwrap().clear();
        }
        let mut command = init(&bench, &store_url, &format!("victim-{round}"));
        let pod = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(took.mul_f64(rng.f64() * if uploads { 1.2 } else { 0.6 }));
        registry.lock().unwrap().kill();
        let ran = bench.app.sandbox.ran(&pod.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert!(warnings(&ran).len() <= 1, "{}", ran.raw);
        registry.lock().unwrap().restart();
        let name = format!("after-{round}");
        let ran = bench.run(&mut init(&bench, &store_url, &name));
        assert!(warnings(&ran).is_empty(), "an entry is whole or absent: {}", ran.raw);
        let found = files(&venv(&bench.app.sandbox.path(&name)));
        // A rebuild has other times.
        let same = |name: &PathBuf| wanted[name].0 == found[name].0 && wanted[name].2 == found[name].2;
        assert!(wanted.len() == found.len() && wanted.keys().all(same), "{}", ran.raw);
        let ran = store(&bench, &["verify", &store_url]);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.raw);
    }
}

/// Whether a request is for the manifest of an entry, not for an announcement.
fn is_manifest(request: &Request) -> bool {
    request.method == "GET" && request.path().contains("/manifests/") && !request.path().ends_with(".building")
}

/// Whether an answer is the archive of an entry.
fn is_archive(request: &Request, answer: &Response) -> bool {
    request.method == "GET" && request.path().contains("/blobs/") && answer.body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// Whether an answer is the manifest of an entry, in the registry's config blob.
fn is_config(request: &Request, answer: &Response) -> bool {
    request.method == "GET" && request.path().contains("/blobs/") && answer.body.starts_with(b"{")
}

fn cut(mut answer: Response) -> Response {
    let length = answer.body.len().to_string();
    answer.body.truncate(answer.body.len() / 2);
    answer.header("Content-Length", length)
}

fn shorter(mut answer: Response) -> Response {
    answer.body.truncate(answer.body.len() / 2);
    answer
}

fn flipped(mut answer: Response) -> Response {
    let half = answer.body.len() / 2;
    answer.body[half] ^= 4;
    answer
}

fn longer(mut answer: Response) -> Response {
    answer.body.extend(b"more");
    answer
}

type Change = fn(&Request, Response) -> Response;

#[test]
fn an_answer_that_lies_is_a_warning() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    bench.builds(&mut init(&bench, &registry.store(), "first"));
    let changes: [(&str, Change, &str); 13] = [
        ("manifest cut", |request, answer| if is_manifest(request) { cut(answer) } else { answer }, "broke off after"),
        ("manifest shorter", |request, answer| if is_manifest(request) { shorter(answer) } else { answer }, "EOF"),
        (
            "no manifest",
            |request, answer| if is_manifest(request) { Response::new(200, "<html>") } else { answer },
            "expected value",
        ),
        (
            "another manifest",
            |request, answer| if is_manifest(request) { Response::new(200, "{}") } else { answer },
            "missing field",
        ),
        (
            "a huge one",
            |request, answer| if is_manifest(request) { Response::new(200, vec![b' '; 1 << 20]) } else { answer },
            "more than 65536 bytes",
        ),
        (
            "config flipped",
            |request, answer| if is_config(request, &answer) { flipped(answer) } else { answer },
            "another digest",
        ),
        (
            "config longer",
            |request, answer| if is_config(request, &answer) { longer(answer) } else { answer },
            "has more than",
        ),
        (
            "no config",
            |request, answer| if is_config(request, &answer) { Response::new(404, "") } else { answer },
            "config is missing",
        ),
        (
            "archive cut",
            |request, answer| if is_archive(request, &answer) { cut(answer) } else { answer },
            "broke off after",
        ),
        (
            "archive shorter",
            |request, answer| if is_archive(request, &answer) { shorter(answer) } else { answer },
            "bytes instead of",
        ),
        (
            "archive longer",
            |request, answer| if is_archive(request, &answer) { longer(answer) } else { answer },
            "bytes instead of",
        ),
        (
            "archive flipped",
            |request, answer| if is_archive(request, &answer) { flipped(answer) } else { answer },
            "the archive is damaged",
        ),
        (
            "no archive",
            |request, answer| if is_archive(request, &answer) { Response::new(404, "") } else { answer },
            "it is missing",
        ),
    ];
    for (number, (what, change, why)) in changes.into_iter().enumerate() {
        println!("{what}");
        let front = Front::start(&registry, |_| None, change);
        warns(&bench, &mut init(&bench, &front.store(), &format!("lied-{number}")), why);
        // Whatever it was, the entry in the registry is good.
        bench.restores(&mut init(&bench, &registry.store(), &format!("good-{number}")));
    }
}

#[test]
fn a_registry_that_refuses_is_a_warning() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    bench.builds(&mut init(&bench, &registry.store(), "first"));
    let answers = [
        (Response::new(401, ""), "answers 401 Unauthorized"),
        (Response::new(401, "").header("WWW-Authenticate", "Negotiate"), "answers 401 Unauthorized"),
        (
            Response::new(401, "").header("WWW-Authenticate", "Bearer realm=\"ftp://x\""),
            "names no usable server for tokens",
        ),
        (
            Response::new(401, "").header("WWW-Authenticate", "Bearer realm=\"http://a.example/x\""),
            "does not use HTTPS",
        ),
        (Response::new(403, r#"{"errors": [{"code": "DENIED"}]}"#), "answers 403 Forbidden (DENIED)"),
        (Response::new(404, ""), "answers 404 Not Found"),
        (Response::new(429, "").header("Retry-After", "3600"), "and asks to wait for 3600 s"),
        (Response::new(429, "").header("Retry-After", "1"), "answers 429 Too Many Requests"),
        (Response::new(500, ""), "answers 500"),
        (Response::new(503, "<html>"), "answers 503"),
        (Response::new(302, ""), "names no location"),
        (Response::new(302, "").header("Location", "ftp://127.0.0.1/x"), "the target does not use HTTP"),
        (Response::new(307, "").header("Location", "/v2/again"), "redirects more than 5 times"),
        (Response::new(204, ""), "EOF while parsing"),
        (Response::new(400, "{\"errors\": [{\"code\": \"lower\"}]}"), "answers 400 Bad Request: continuing"),
    ];
    for (number, (answer, why)) in answers.into_iter().enumerate() {
        println!("{why}");
        let front = Front::always(&registry, answer);
        let started = Instant::now();
        warns(&bench, &mut init(&bench, &front.store(), &format!("refused-{number}")), why);
        assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    }
    // A failure that passes is none.
    let left = AtomicUsize::new(2);
    let busy = Front::start(
        &registry,
        move |_| {
            let again = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            again.is_ok().then(|| Response::new(429, "").header("Retry-After", "1"))
        },
        |_, answer| answer,
    );
    let ran = bench.restores(&mut init(&bench, &busy.store(), "busy"));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
    // Nobody listens; nobody answers; half an answer.
    warns(&bench, &mut init(&bench, "oci://127.0.0.1:9/team/envs", "nobody"), "Connection refused");
    for (name, stall, why) in [("hangs", Cut::Hang, "no answer in"), ("stalls", Cut::Stall(20_000), "stalls")] {
        // Each connection but those of the first small requests.
        let port = relay(registry.port(), &[stall; 60]);
        let started = Instant::now();
        let mut command = init(&bench, &format!("oci://127.0.0.1:{port}/team/envs"), name);
        warns(&bench, command.args(["--timeout", "1m"]), why);
        assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    }
}

#[test]
fn a_registry_that_trickles_costs_a_bounded_time() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    bench.builds(&mut init(&bench, &registry.store(), "first"));
    // From the first byte, and in the archive. Ten bytes each tenth of a second would take an hour.
    for (bytes, least, most, why) in [(0, 4, 25, "cannot read v1-"), (20_000, 19, 45, "cannot")] {
        let port = relay(registry.port(), &[Cut::Trickle(bytes); 60]);
        let started = Instant::now();
        let store = format!("oci://127.0.0.1:{port}/team/envs");
        warns(&bench, &mut init(&bench, &store, &format!("after-{bytes}")), why);
        let took = started.elapsed().as_secs();
        assert!((least..most).contains(&took), "after {bytes} bytes: {took} s");
    }
    bench.restores(&mut init(&bench, &registry.store(), "second"));
}

#[test]
fn a_refused_upload_is_a_warning() {
    let bench = Bench::new();
    let Some(mut registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    for (number, (method, part, answer, why)) in [
        ("POST", "/uploads/", Response::new(405, ""), "answers 405"),
        ("PATCH", "/uploads/", Response::new(413, ""), "answers 413"),
        ("PATCH", "/uploads/", Response::new(202, ""), "names no location"),
        ("PUT", "/uploads/", Response::new(400, r#"{"errors": [{"code": "DIGEST_INVALID"}]}"#), "DIGEST_INVALID"),
        ("PUT", "/manifests/", Response::new(404, ""), "answers 404"),
    ]
    .into_iter()
    .enumerate()
    {
        println!("{method} {why}");
        let front = Front::start(
            &registry,
            move |request| (request.method == method && request.path().contains(part)).then(|| answer.clone()),
            |_, answer| answer,
        );
        warns(&bench, &mut init(&bench, &front.store(), &format!("refused-{number}")), why);
        let ran = store(&bench, &["list", &registry.store()]);
        assert_eq!(ran.stdout.lines().count(), 1, "no entry appears: {}", ran.stdout);
        registry.clear();
    }
}

#[test]
fn redirects_carry_no_login_to_another_host() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    bench.builds(&mut init(&bench, &registry.store(), "first"));
    // As registries send downloads to object storage.
    let storage = Front::start(&registry, |_| None, |_, answer| answer);
    let elsewhere = storage.server.url();
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", LOGIN.0, LOGIN.1)));
    let front = Front::start(
        &registry,
        move |request| {
            if request.authorization() != Some(&login) {
                return Some(Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"registry\""));
            }
            let is_blob = request.method == "GET" && request.path().contains("/blobs/");
            is_blob.then(|| Response::new(307, "").header("Location", format!("{elsewhere}{}?sig=x", request.target)))
        },
        |_, answer| answer,
    );
    let auth = secret(&bench, "login", &front.host(), LOGIN);
    let ran = bench.restores(init(&bench, &front.store(), "two").arg("--auth").arg(&auth));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
    let (home, away) = (front.requests(), storage.requests());
    assert!(home.iter().any(|(_, login)| login.is_some()), "{home:?}");
    assert!(away.len() == 2 && away.iter().all(|(_, login)| login.is_none()), "{away:?}");
}

/// Answers 401 with the server for its tokens, which accept a token that this server made.
fn with_tokens(registry: &Registry, realm: String, uses: usize) -> (Front, Arc<Mutex<Vec<String>>>) {
    let (tokens, left) = (Arc::new(Mutex::new(Vec::<String>::new())), Mutex::new((String::new(), 0)));
    let known = Arc::clone(&tokens);
    let front = Front::start(
        registry,
        move |request| {
            let given = request.authorization().unwrap_or_default().to_owned();
            let mut left = left.lock().unwrap();
            if left.0 != given {
                *left = (given.clone(), uses);
            }
            let scope = if matches!(&*request.method, "GET" | "HEAD") { "pull" } else { "pull,push" };
            // The token of the request that began the upload.
            let is_upload = request.method == "PATCH";
            let is_good = known.lock().unwrap().iter().any(|token| {
                given == format!("Bearer {token}") && (token.ends_with("pull,push") || token.ends_with(scope))
            });
            if is_good && (left.1 > 0 || is_upload) {
                left.1 -= usize::from(!is_upload);
                return None;
            }
            let challenge = format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:x:pull\"");
            Some(Response::new(401, "{}").header("WWW-Authenticate", challenge))
        },
        |_, answer| answer,
    );
    (front, tokens)
}

#[test]
fn tokens_are_fetched_where_the_registry_says() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", LOGIN.0, LOGIN.1)));
    let made = Arc::new(Mutex::new(Arc::new(Mutex::new(Vec::new()))));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (to, log) = (Arc::clone(&made), Arc::clone(&asked));
    let server = Server::start(move |request| {
        log.lock().unwrap().push((request.query().to_owned(), request.authorization().map(str::to_owned)));
        if request.authorization() != Some(&login) {
            return Response::new(401, "{\"details\": \"reg-s3cret-9\"}");
        }
        let scope = request.query().rsplit("%3A").next().unwrap_or_default().replace("%2C", ",");
        let token = format!("t0ken.{}.{scope}", to.lock().unwrap().lock().unwrap().len());
        let tokens = Arc::clone(&to.lock().unwrap());
        tokens.lock().unwrap().push(token.clone());
        Response::new(200, json!({ "access_token": token, "expires_in": 60 }).to_string())
    });
    // Each token is good for a few requests only.
    let (front, tokens) = with_tokens(&registry, format!("{}/token", server.url()), 3);
    *made.lock().unwrap() = tokens;
    let realm = format!("127.0.0.1:{}", server.port());
    let auth = secret(&bench, "login", &realm, LOGIN);
    let with = |volume: &str, auth: &PathBuf| {
        let mut command = init(&bench, &front.store(), volume);
        command.args(["--log-level", "debug", "--auth"]).arg(auth);
        command
    };
    let ran = bench.builds(&mut with("one", &auth));
    assert!(ran.raw.contains("saved ") && warnings(&ran).is_empty(), "{}", ran.raw);
    assert!(!ran.raw.contains("t0ken") && !ran.raw.contains("s3cret"), "{}", ran.raw);
    let ran = bench.restores(&mut with("two", &auth));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
    let questions = asked.lock().unwrap().clone();
    let is = |actions: &str| format!("service=the+registry&scope=repository%3Ateam%2Fenvs%3A{actions}");
    assert!(questions.iter().any(|(query, _)| *query == is("pull")), "{questions:?}");
    assert!(questions.iter().any(|(query, _)| *query == is("pull%2Cpush")), "{questions:?}");
    // The registry gets tokens only, and never the login.
    let seen = front.requests();
    assert!(seen.iter().all(|(_, login)| login.as_ref().is_none_or(|login| login.starts_with("Bearer "))), "{seen:?}");

    // A login for the registry is none for another host that hands out tokens.
    asked.lock().unwrap().clear();
    let auth = secret(&bench, "only-registry", &front.host(), LOGIN);
    warns(&bench, &mut with("three", &auth), "--auth has no login for that host");
    let questions = asked.lock().unwrap().clone();
    assert!(questions.is_empty(), "{questions:?}");
    // Without any login, podstrap asks as anybody may.
    let ran = bench.builds(&mut init(&bench, &front.store(), "four"));
    assert!(warnings(&ran).len() == 1 && ran.raw.contains("401 Unauthorized to a request for a token"), "{}", ran.raw);
    assert!(!ran.raw.contains("s3cret"), "{}", ran.raw);
    let questions = asked.lock().unwrap().clone();
    assert!(!questions.is_empty() && questions.iter().all(|(_, login)| login.is_none()), "{questions:?}");
}

#[test]
fn signed_entries_are_used_and_others_are_not() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let key = bench.app.sandbox.path("ci-key");
    crate::support::sshd::keygen(&key, &["-t", "ed25519"]);
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let allowed = bench.app.sandbox.write("allowed", format!("ci@example.org namespaces=\"podstrap\" {public}"));
    let verifying = |volume: &str| {
        let mut command = init(&bench, &registry.store(), volume);
        command.arg("--store-verify").arg(&allowed);
        command
    };
    bench.builds(&mut init(&bench, &registry.store(), "unsigned"));
    let ran = bench.builds(&mut verifying("refuses"));
    assert!(warnings(&ran).len() == 1 && ran.raw.contains("it has no signature"), "{}", ran.raw);
    // CI replaces it.
    let ran = bench.app.ok(init(&bench, &registry.store(), "ci").args(["--store-only", "--store-sign"]).arg(&key));
    assert!(ran.raw.contains("nothing published"), "{}", ran.raw);
    let ran = bench.restores(&mut verifying("accepts"));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
    let ran = store(&bench, &["verify", &registry.store(), "--store-verify", allowed.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.raw);
}

#[test]
fn every_flipped_bit_is_found() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    bench.builds(&mut init(&bench, &registry.store(), "first"));
    // The archive, the manifest of the entry, and the registry's manifest. The others announced the build.
    let all = registry.blobs();
    let names = [&all[0], &all[1]].map(|blob| sha256(blob));
    let is_image = |text: String| names.iter().all(|name| text.contains(name));
    let image = all.iter().find(|blob| is_image(String::from_utf8_lossy(&fs::read(blob).unwrap()).into_owned()));
    let image = image.unwrap().clone();
    let blobs = [all[0].clone(), all[1].clone(), image];
    let mut rng = fastrand::Rng::with_seed(crate::support::volume::seed());
    let verify = || store(&bench, &["verify", &registry.store()]);
    for blob in &blobs {
        let good = fs::read(blob).unwrap();
        for _ in 0..12 {
            let mut bytes = good.clone();
            let at = rng.usize(..good.len());
            bytes[at] ^= 1 << rng.u8(..8);
            let says_the_same = serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| {
                serde_json::from_slice::<Value>(&good).is_ok_and(|good| relevant(&good) == relevant(&value))
            });
            fs::write(blob, &bytes).unwrap();
            let ran = verify();
            assert!(ran.code == Some(5) || says_the_same, "byte {at} of {}: {}", blob.display(), ran.stdout);
        }
        fs::write(blob, &good).unwrap();
    }
    assert_eq!(verify().code, Some(0));
    flip(&blobs[0], 3000);
    warns(&bench, &mut init(&bench, &registry.store(), "damaged"), "the archive is damaged");
    bench.restores(&mut init(&bench, &registry.store(), "repaired"));
}

/// The members of a registry's manifest that decide what a reader gets.
fn relevant(manifest: &Value) -> Value {
    json!([manifest["artifactType"], manifest["config"]["digest"], manifest["config"]["size"], manifest["layers"]])
}

#[test]
fn a_killed_pod_leaves_no_wrong_entry() {
    let bench = Bench::new();
    let Some(mut registry) = Registry::start(&bench.app.sandbox.path("registry")) else { return };
    let started = Instant::now();
    bench.builds(&mut init(&bench, &registry.store(), "first"));
    let took = started.elapsed();
    let mut rng = fastrand::Rng::with_seed(crate::support::volume::seed());
    for round in 0..4 {
        registry.clear();
        let mut command = init(&bench, &registry.store(), &format!("victim-{round}"));
        let mut victim = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took.mul_f64(0.5 + rng.f64() / 2.0));
        kill_all(&mut victim);
        let ran = bench.run(&mut init(&bench, &registry.store(), &format!("after-{round}")));
        assert!(warnings(&ran).is_empty(), "{}", ran.raw);
        assert_eq!(store(&bench, &["verify", &registry.store()]).code, Some(0));
    }
}
