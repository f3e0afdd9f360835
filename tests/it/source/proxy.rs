//! With and around a proxy that requires credentials: which server sees which credentials, and the errors when the
//! proxy refuses.

use crate::support::git::{GitServer, Repo};
use crate::support::http::Response;
use crate::support::proxy::Proxy;
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::table::row;

const LOGIN: &str = "squid:pr0xy p4ss";
/// As in a URL.
const ENCODED: &str = "squid:pr0xy%20p4ss";
/// Parts of all credentials: the proxy's, plain and in Base64, and the server's.
const SECRETS: [&str; 5] = ["p4ss", "c3F1aWQ6", "wr0ng", "t0k3n", "YWRhOnQ"];

struct World {
    sandbox: Sandbox,
    server: GitServer,
    proxy: Proxy,
    tls: bool,
}

impl World {
    fn new(tls: bool) -> Self {
        let sandbox = Sandbox::new();
        Repo::new(&sandbox.path("repos/app.git")).file("index.py", "x\n").commit("one");
        let server = if tls {
            let (server, ca) = GitServer::start_tls(&sandbox.path("repos"));
            sandbox.write("ca.pem", ca);
            server
        } else {
            GitServer::start(&sandbox.path("repos"))
        };
        // The server must never see the proxy's credentials.
        server.instead(|request| {
            request.headers.contains_key("proxy-authorization").then(|| Response::new(500, "the proxy's credentials"))
        });
        let proxy = Proxy::start(LOGIN, &[("git.example.invalid", server.port())]);
        Self { sandbox, server, proxy, tls }
    }

    /// Runs podstrap and asserts that its output contains no secret.
    fn init(&self, url: &str, variables: &[(&str, &str)]) -> Ran {
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--venv", "none", "--link", "app", "--log-level", "debug", "--timeout", "4s"]);
        command.arg("--root").arg(self.sandbox.root()).env("PODSTRAP_REPO", url).envs(variables.iter().copied());
        if self.tls {
            command.env("SSL_CERT_FILE", self.sandbox.path("ca.pem"));
        }
        let ran = self.sandbox.run(&mut command);
        let message = std::fs::read_to_string(self.sandbox.path("termination-log")).unwrap_or_default();
        for secret in SECRETS {
            assert!(!format!("{}{message}", ran.raw).contains(secret), "{secret}: {}", ran.raw);
        }
        ran
    }

    fn variable(&self) -> &'static str {
        if self.tls { "HTTPS_PROXY" } else { "HTTP_PROXY" }
    }

    /// The requests that the proxy saw.
    fn asked(&self) -> Vec<String> {
        self.proxy.seen().iter().map(|seen| seen.request.replace(&self.server.port().to_string(), "PORT")).collect()
    }
}

/// The final error.
fn error(ran: &Ran) -> String {
    let words = ran.text.find("podstrap: error: ").map_or("", |at| &ran.text[at..]);
    words.trim_end().to_owned()
}

#[test]
fn a_proxy_with_credentials_leads_to_the_server() {
    for (tls, asked) in [
        (false, ["POST http://127.0.0.1:PORT/app.git/git-upload-pack"; 2]),
        (true, ["CONNECT localhost:PORT", "CONNECT localhost:PORT"]),
    ] {
        let names =
            if tls { ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] } else { ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] };
        for name in names {
            let world = World::new(tls);
            world.server.require("Basic YWRhOnQwazNu");
            let ran = world.init(&world.server.url_as("ada:t0k3n", "app.git"), &[(name, &world.proxy.url_as(ENCODED))]);
            assert_eq!(ran.code, Some(0), "{name}: {}", ran.raw);
            assert_eq!(world.asked(), asked, "{name}");
            assert_eq!(world.server.seen(), ["POST /app.git/git-upload-pack"; 2]);
            for seen in world.proxy.seen() {
                assert_eq!(seen.authorization.as_deref(), Some("Basic c3F1aWQ6cHIweHkgcDRzcw=="));
                // Through a tunnel the proxy cannot read the server's credentials; without TLS it can.
                let read = seen.bytes.windows(12).any(|bytes| bytes == b"YWRhOnQwazNu");
                assert_eq!(read, !tls, "{}", String::from_utf8_lossy(&seen.bytes));
            }
        }
    }
}

#[test]
fn some_hosts_are_asked_without_the_proxy() {
    for (tls, around, through) in [
        (
            false,
            ["127.0.0.1", "127.0.0.0/8", "*", "other.example, 127.0.0.1"],
            ["127.0.0.2", "10.0.0.0/8", "1", "0.0.1", ""],
        ),
        (
            true,
            ["localhost", ".localhost", "*", "other.example,localhost"],
            ["127.0.0.1", "host", "ocalhost", "a.localhost", ""],
        ),
    ] {
        let world = World::new(tls);
        let proxy = world.proxy.url_as(ENCODED);
        let url = world.server.url("app.git");
        for no_proxy in around {
            let ran = world.init(&url, &[(world.variable(), &proxy), ("NO_PROXY", no_proxy)]);
            assert_eq!((ran.code, world.asked()), (Some(0), vec![]), "{no_proxy}: {}", ran.raw);
        }
        for (number, no_proxy) in through.iter().enumerate() {
            let ran = world.init(&url, &[(world.variable(), &proxy), ("no_proxy", no_proxy)]);
            assert_eq!((ran.code, world.asked().len() > number), (Some(0), true), "{no_proxy}: {}", ran.raw);
        }
    }
    // Only the proxy knows this name, so the result shows which way the request took.
    let world = World::new(false);
    let proxy = world.proxy.url_as(ENCODED);
    for (no_proxy, around) in
        [("example.invalid", true), (".invalid", true), ("git.example.invalid", true), ("ample.invalid", false)]
    {
        let before = world.asked().len();
        let ran = world.init("http://git.example.invalid/app.git", &[("HTTP_PROXY", &proxy), ("NO_PROXY", no_proxy)]);
        assert_eq!(
            (ran.code, world.asked().len() > before),
            (Some(if around { 3 } else { 0 }), !around),
            "{}",
            ran.raw
        );
        assert_eq!(ran.raw.contains("dns error"), around, "{}", ran.raw);
    }
}

#[test]
fn a_proxy_that_refuses_is_named_and_asked_once() {
    let mut told = String::new();
    for tls in [false, true] {
        let world = World::new(tls);
        let url = world.server.url("app.git");
        for login in ["squid:wr0ng", ""] {
            let proxy = world.proxy.url_as(login).replace("//@", "//");
            let before = world.asked().len();
            let ran = world.init(&url, &[(world.variable(), &proxy)]);
            assert_eq!((ran.code, world.asked().len()), (Some(3), before + 1), "{}", ran.raw);
            assert!(ran.raw.contains(&format!("the proxy {} ", world.proxy.address())), "{}", ran.raw);
            let login = if login.is_empty() { "without a login".to_owned() } else { format!("with {login}") };
            told += &row(&format!("{} {login}", world.variable()), || error(&ran));
        }
        assert_eq!(world.server.seen(), [""; 0]);
    }
    insta::assert_snapshot!(told, @r"
    -- HTTP_PROXY with squid:wr0ng
    podstrap: error: cannot list the references of http://[HOST]/app.git
      because: the proxy [HOST] answers 407 Proxy Authentication Required
    hint: correct the user or the password in HTTP_PROXY
    -- HTTP_PROXY without a login
    podstrap: error: cannot list the references of http://[HOST]/app.git
      because: the proxy [HOST] answers 407 Proxy Authentication Required
    hint: set HTTP_PROXY from a Secret, with user:password@ before the proxy's host
    -- HTTPS_PROXY with squid:wr0ng
    podstrap: error: cannot list the references of https://[HOST]/app.git
      because: the proxy [HOST] answers 407 Proxy Authentication Required
    hint: correct the user or the password in HTTPS_PROXY
    -- HTTPS_PROXY without a login
    podstrap: error: cannot list the references of https://[HOST]/app.git
      because: the proxy [HOST] answers 407 Proxy Authentication Required
    hint: set HTTPS_PROXY from a Secret, with user:password@ before the proxy's host
    ");
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let tries = regex::Regex::new(r"after \d+ tries in").unwrap();
    let mut told = String::new();
    for tls in [false, true] {
        let world = World::new(tls);
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = format!("http://{ENCODED}@{closed}");
        let ran = world.init(&world.server.url("app.git"), &[(world.variable(), &proxy)]);
        assert_eq!(ran.code, Some(3), "{}", ran.raw);
        assert!(ran.raw.contains(&format!("through the proxy {closed}")), "{}", ran.raw);
        // A proxy that cannot reach the server.
        let gone = format!("{}://127.0.0.1:{}/app.git", if tls { "https" } else { "http" }, closed.port());
        let through = world.init(&gone, &[(world.variable(), &world.proxy.url_as(ENCODED))]);
        assert_eq!(through.code, Some(3), "{}", through.raw);
        assert!(through.raw.contains(&format!("the proxy {}", world.proxy.address())), "{}", through.raw);
        let text = |ran| tries.replace(&error(ran), "after [N] tries in").into_owned();
        told += &row(&format!("{}: nobody there", world.variable()), || text(&ran));
        told += &row(&format!("{}: it does not get through", world.variable()), || text(&through));
    }
    insta::assert_snapshot!(told, @r"
    -- HTTP_PROXY: nobody there
    podstrap: error: cannot list the references of http://[HOST]/app.git
      because: through the proxy [HOST]
      because: tcp connect error
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 4s)
    hint: check the address of the proxy, or add the server to NO_PROXY if it needs no proxy
    -- HTTP_PROXY: it does not get through
    podstrap: error: cannot list the references of http://[HOST]/app.git
      because: http://[HOST]/app.git, through the proxy [HOST], answers 502 Bad Gateway
      because: gave up after [N] tries in [TIME] (--timeout 4s)
    -- HTTPS_PROXY: nobody there
    podstrap: error: cannot list the references of https://[HOST]/app.git
      because: through the proxy [HOST]
      because: tunnel error: failed to create underlying connection
      because: tcp connect error
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 4s)
    hint: check the address of the proxy, or add the server to NO_PROXY if it needs no proxy
    -- HTTPS_PROXY: it does not get through
    podstrap: error: cannot list the references of https://[HOST]/app.git
      because: through the proxy [HOST]
      because: tunnel error: unsuccessful
      because: gave up after [N] tries in [TIME] (--timeout 4s)
    hint: check the address of the proxy, or add the server to NO_PROXY if it needs no proxy
    ");
}

#[test]
fn a_proxy_that_cannot_be_one_is_an_error() {
    let world = World::new(false);
    for (proxy, says) in [
        ("http://squid:p4ss#x@host:3128", " http://*** has an @ behind its host\n"),
        ("socks5://squid:p4ss@host:1080", " has no usable proxy\n"),
        ("http://", " has no usable proxy\n"),
        ("http://squid:p4ss@ho st", " has no usable proxy\n"),
    ] {
        for name in ["HTTP_PROXY", "https_proxy", "ALL_PROXY"] {
            let ran = world.init(&world.server.url("app.git"), &[(name, proxy)]);
            assert_eq!(ran.code, Some(2), "{proxy}: {}", ran.raw);
            assert!(ran.raw.contains(&format!("error: {name}{says}")), "{}", ran.raw);
        }
    }
    // No proxy, or one that podstrap does not use.
    let proxy = world.proxy.url_as(ENCODED);
    for variables in [
        &[("HTTP_PROXY", ""), ("ALL_PROXY", "")][..],
        &[("HTTP_PROXY", "socks5://host"), ("NO_PROXY", "*")],
        &[("HTTP_PROXY", &proxy), ("https_proxy", &proxy), ("ALL_PROXY", "socks5://host")],
    ] {
        let ran = world.init(&world.server.url("app.git"), variables);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
    }
}
