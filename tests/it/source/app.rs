//! A Secret of a GitHub App (Flux's keys), and a server that answers as GitHub's documentation says: it checks the
//! signature, the issuer and the times of the proof, and its tokens end.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::rsa::KeyPair;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs1KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::support::git::{GitServer, Repo, listing};
use crate::support::http::{Request, Response, Server};
use crate::support::index::uv;
use crate::support::packages::project;
use crate::support::sandbox::{Ran, Sandbox};

/// How long a token lasts on GitHub.
const HOUR: Duration = Duration::from_hours(1);

/// The state of the server.
struct GitHub {
    /// The modulus and exponent of the App's key, in DER.
    public: Vec<u8>,
    /// The tokens that it has given.
    tokens: Mutex<u32>,
    lasts: Mutex<Duration>,
    /// Answers before anything else.
    instead: Mutex<Option<Response>>,
}

impl GitHub {
    fn answer(&self, request: &Request) -> Response {
        if let Some(response) = self.instead.lock().unwrap().clone() {
            return response;
        }
        let says = |status, message: &str| Response::new(status, json!({ "message": message }).to_string());
        assert_eq!(request.headers["accept"], "application/vnd.github+json");
        if (&*request.method, request.path()) != ("POST", "/api/v3/app/installations/42/access_tokens") {
            return says(404, "Not Found");
        }
        let proof = request.authorization().unwrap().strip_prefix("Bearer ").unwrap();
        let (text, signature) = proof.rsplit_once('.').unwrap();
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public);
        if key.verify(text.as_bytes(), &decode(signature)).is_err() {
            return says(401, "A JSON web token could not be decoded");
        }
        let claims: Value = serde_json::from_slice(&decode(text.split_once('.').unwrap().1)).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let (from, to) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert!(from <= now && now < to && to - now <= 600, "{claims}");
        if claims["iss"] != "Iv1.app" {
            return says(404, "Integration not found");
        }
        let mut tokens = self.tokens.lock().unwrap();
        *tokens += 1;
        let ends = humantime::format_rfc3339_seconds(SystemTime::now() + *self.lasts.lock().unwrap()).to_string();
        let permissions = json!({"contents": "read", "metadata": "read"});
        let body = json!({"token": format!("ghs_s3cret{tokens}"), "expires_at": ends, "permissions": permissions});
        Response::new(201, body.to_string())
    }

    /// The header that opens a repository: only the newest token does.
    fn opens(&self) -> String {
        let login = format!("x-access-token:ghs_s3cret{}", self.tokens.lock().unwrap());
        format!("Basic {}", BASE64_STANDARD.encode(login))
    }
}

struct World {
    sandbox: Sandbox,
    repo: Repo,
    git: GitServer,
    hub: Arc<GitHub>,
    api: Server,
    key: String,
}

/// A private key as GitHub generates it: PKCS #1 in PEM.
fn rsa_key(sandbox: &Sandbox, name: &str) -> String {
    rsa_key_of(sandbox, name, "2048", "")
}

fn rsa_key_of(sandbox: &Sandbox, name: &str, bits: &str, passphrase: &str) -> String {
    let path = sandbox.path(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", passphrase, "-t", "rsa", "-b", bits, "-m", "PEM", "-f"]).arg(&path);
    assert!(command.status().unwrap().success());
    fs::read_to_string(path).unwrap()
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let key = rsa_key(&sandbox, "key");
        let der = PrivatePkcs1KeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let public = KeyPair::from_der(der.secret_pkcs1_der()).unwrap().public().as_ref().to_vec();
        let hub =
            Arc::new(GitHub { public, tokens: Mutex::default(), lasts: Mutex::new(HOUR), instead: Mutex::default() });
        let (seen, asked) = (Arc::clone(&hub), Arc::clone(&hub));
        let repo = Repo::new(&sandbox.path("git/app.git"));
        repo.file("index.py", "one").commit("one");
        let git = GitServer::start(&sandbox.path("git"));
        git.instead(move |request| {
            let opens = request.authorization() == Some(&*seen.opens());
            (!opens).then(|| Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"GitHub\""))
        });
        fs::create_dir_all(sandbox.root()).unwrap();
        Self { sandbox, repo, git, hub, api: Server::start(move |request| asked.answer(&request)), key }
    }

    /// A Secret with these changes: a value, or `None` for no such key.
    fn secret(&self, changes: &[(&str, Option<&str>)]) -> PathBuf {
        let dir = self.sandbox.path("app");
        let _ = fs::remove_dir_all(&dir);
        let base = format!("{}/api/v3", self.api.url());
        let usual = [
            ("githubAppID", "Iv1.app\n"),
            ("githubAppInstallationID", "42\n"),
            ("githubAppPrivateKey", &self.key),
            ("githubAppBaseURL", &base),
        ];
        for (name, value) in usual {
            let change = changes.iter().find(|(changed, _)| *changed == name);
            if let Some(value) = change.map_or(Some(value), |(_, value)| *value) {
                self.sandbox.write(&format!("app/{name}"), value);
            }
        }
        dir
    }

    fn init(&self, changes: &[(&str, Option<&str>)]) -> Ran {
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--venv=none", "--timeout=9s", "--log-level=debug", "--repo", &self.git.url("app.git")]);
        command.arg("--root").arg(self.sandbox.root()).arg("--auth").arg(self.secret(changes));
        let ran = self.sandbox.run(&mut command);
        assert!(!ran.raw.contains("s3cret") && !ran.raw.contains("PRIVATE KEY"), "{}", ran.raw);
        ran
    }
}

#[test]
fn an_app_opens_a_repository_and_its_submodules_with_one_token() {
    let world = World::new();
    let lib = Repo::new(&world.sandbox.path("git/lib.git"));
    lib.file("lib.py", "lib").commit("lib");
    let url = world.git.url("lib.git");
    world.repo.file(".gitmodules", format!("[submodule \"lib\"]\n\tpath = lib\n\turl = {url}\n"));
    world.repo.git(["add", ".gitmodules"]);
    world.repo.git(["update-index", "--add", "--cacheinfo", &format!("160000,{},lib", lib.rev("HEAD"))]);
    world.repo.git(["commit", "--quiet", "-m", "two"]);
    let ran = world.init(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(fs::read_to_string(world.sandbox.root().join("lib/lib.py")).unwrap(), "lib");
    assert_eq!(*world.hub.tokens.lock().unwrap(), 1);
}

#[test]
fn a_requirement_of_the_same_host_has_the_login_too() {
    let world = World::new();
    let lib = Repo::new(&world.sandbox.path("git/lib.git"));
    for (name, text) in project("lib", &world.sandbox.path("mark"), "") {
        lib.file(name, text);
    }
    lib.commit("lib");
    world.repo.file("requirements.txt", format!("lib @ git+{}\n", world.git.url("lib.git"))).commit("two");
    for engine in [uv().to_str().unwrap(), "pip"] {
        let mut command = world.sandbox.podstrap();
        command.args(["init", "--no-index", "--repo", &world.git.url("app.git"), "--root"]).arg(world.sandbox.root());
        command.args(["--engine", engine, "--refresh", "--auth"]).arg(world.secret(&[]));
        let ran = world.sandbox.run(&mut command);
        assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
        let packages = fs::read_dir(world.sandbox.root().join("venv/lib").canonicalize().unwrap()).unwrap();
        let site = packages.flatten().next().unwrap().path().join("site-packages");
        assert!(site.join("lib.py").exists());
        assert!(!listing(&world.sandbox.root()).contains("s3cret"));
    }
}

/// A container that restarts over a pinned release needs no server.
#[test]
fn a_published_commit_needs_no_token() {
    let world = World::new();
    let commit = world.repo.rev("HEAD");
    let init = || {
        let mut command = world.sandbox.podstrap();
        command.args(["init", "--venv=none", "--repo", &world.git.url("app.git"), "--ref", &commit, "--root"]);
        world.sandbox.run(command.arg(world.sandbox.root()).arg("--auth").arg(world.secret(&[])))
    };
    assert_eq!(init().code, Some(0));
    *world.hub.instead.lock().unwrap() = Some(Response::new(502, ""));
    let ran = init();
    assert_eq!((ran.code, *world.hub.tokens.lock().unwrap()), (Some(0), 1), "{}", ran.raw);
}

#[test]
fn a_refusal_is_explained() {
    let world = World::new();
    let says = |message: &str| json!({ "message": message }).to_string();
    let other = rsa_key(&world.sandbox, "other");
    let small = rsa_key_of(&world.sandbox, "small", "1024", "");
    let encrypted = rsa_key_of(&world.sandbox, "encrypted", "2048", "a passphrase");
    // The usual damage of a key in a Secret. No part of it may be shown.
    let body = world.key.lines().nth(1).unwrap().to_owned();
    let line = world.key.replace('\n', "");
    let escaped = world.key.replace('\n', "\\n");
    for damaged in [&line, &escaped, &world.key[..world.key.len() / 2]] {
        let ran = world.init(&[("githubAppPrivateKey", Some(damaged))]);
        assert!(ran.code == Some(2) && ran.raw.contains("githubAppPrivateKey is not a usable key"), "{}", ran.raw);
        let decimal = body.bytes().take(8).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        assert!(!ran.raw.contains(&body) && !ran.raw.contains(&decimal), "{}", ran.raw);
    }
    let late = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(25));
    let soon = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let granted =
        json!({"token": "ghs_s3cret", "expires_at": "2099-01-01T00:00:00Z", "permissions": {"issues": "read"}});
    for (changes, instead, code, wanted) in [
        (&[("githubAppID", None)][..], None, 2, &["has no githubAppID", "as for Flux"][..]),
        (
            &[("githubAppPrivateKey", Some("-----BEGIN RSA PRIVATE KEY-----\n"))],
            None,
            2,
            &["githubAppPrivateKey is not a usable key"],
        ),
        (&[("githubAppPrivateKey", Some(&*small))], None, 2, &["an RSA key with 2048 bits or more"]),
        (&[("githubAppPrivateKey", Some(&*encrypted))], None, 2, &["it is encrypted", "openssl pkey"]),
        (&[("githubAppBaseURL", Some("https://me:s3cret@ghe.example"))], None, 2, &["has a login or a query"]),
        (
            &[("githubAppID", None), ("githubAppInstallationID", None), ("githubAppPrivateKey", None)],
            None,
            2,
            &["has no githubAppID"],
        ),
        (&[("githubAppInstallationID", Some("me/app"))], None, 2, &["githubAppInstallationID is not a number"]),
        (&[("githubAppBaseURL", Some("http://ghe.example"))], None, 2, &["is not an https:// URL"]),
        (
            &[("githubAppID", Some("Iv1.other"))],
            None,
            3,
            &["404", "Integration not found", "check githubAppInstallationID"],
        ),
        (
            &[("githubAppPrivateKey", Some(&*other))],
            None,
            3,
            &["401", "could not be decoded", "check githubAppID and githubAppPrivateKey"],
        ),
        (
            &[],
            Some(Response::new(403, says("This installation has been suspended"))),
            3,
            &["suspended", "unsuspend the installation"],
        ),
        (&[], Some(Response::new(201, granted.to_string())), 3, &["may not read repositories", "Contents"]),
        (
            &[],
            Some(Response::new(401, says("'Issued at' claim ('iat') must be in the past")).header("Date", late)),
            3,
            &["the clock of this node is 2", "behind the server's", "set the clock"],
        ),
        (
            &[],
            Some(
                Response::new(403, says("API rate limit exceeded"))
                    .header("x-ratelimit-remaining", "0")
                    .header("x-ratelimit-reset", soon.to_string()),
            ),
            3,
            &["API rate limit exceeded", "too many requests"],
        ),
        (&[], Some(Response::new(200, "<html>")), 3, &["gets no token", "200"]),
        (&[], Some(Response::new(201, "<html>")), 3, &["not one of GitHub's API", "githubAppBaseURL"]),
        (&[], Some(Response::new(502, "")), 3, &["502", "gets no token"]),
    ] {
        *world.hub.instead.lock().unwrap() = instead;
        let ran = world.init(changes);
        assert_eq!(ran.code, Some(code), "{wanted:?}: {}", ran.raw);
        for text in wanted {
            assert!(ran.error().contains(text), "{text}: {}", ran.raw);
        }
        assert!(!world.sandbox.root().join("index.py").exists());
    }
}

/// A sidecar lives longer than a token.
#[test]
fn a_sidecar_renews_its_token() {
    let world = World::new();
    // podstrap gets another one when less than 20 minutes are left.
    *world.hub.lasts.lock().unwrap() = Duration::from_secs(20 * 60 + 2);
    let mut command = world.sandbox.podstrap();
    command.args(["sidecar", "--venv=none", "--period=200ms", "--repo", &world.git.url("app.git"), "--root"]);
    let sidecar = command.arg(world.sandbox.root()).arg("--auth").arg(world.secret(&[])).spawn();
    let _sidecar = Killed(sidecar.unwrap());
    let serves = |text: &str| {
        let started = Instant::now();
        while fs::read_to_string(world.sandbox.root().join("index.py")).unwrap_or_default() != text {
            assert!(started.elapsed() < Duration::from_mins(1), "{text} does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    serves("one");
    let started = Instant::now();
    while *world.hub.tokens.lock().unwrap() < 2 {
        assert!(started.elapsed() < Duration::from_mins(1), "no second token");
        std::thread::sleep(Duration::from_millis(20));
    }
    // While GitHub is down, the token at hand serves.
    *world.hub.instead.lock().unwrap() = Some(Response::new(502, ""));
    std::thread::sleep(Duration::from_secs(3));
    world.repo.file("index.py", "two").commit("two");
    serves("two");
}

/// Ends a child also if the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
