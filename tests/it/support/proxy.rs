//! A forward proxy (RFC 9110, 7.3.2 and 9.3.6) that requires credentials: CONNECT for https, absolute URLs for
//! http. It resolves names that exist nowhere else and records everything that clients send.
#![expect(unreachable_pub, reason = "for the tests")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;

/// The data received on one connection.
#[derive(Default, Clone)]
pub struct Seen {
    /// `CONNECT host:443` or `GET http://host/path`.
    pub request: String,
    /// The Proxy-Authorization header.
    pub authorization: Option<String>,
    /// All bytes from the client, including those for the tunnel.
    pub bytes: Vec<u8>,
}

/// The running proxy, on a free port of 127.0.0.1; dropping it stops it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    wanted: String,
    names: HashMap<String, u16>,
    seen: Mutex<Vec<Seen>>,
    stop: AtomicBool,
}

impl Proxy {
    /// Starts with the required user and password, and with names that lead to ports of this machine.
    pub fn start(login: &str, names: &[(&str, u16)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::new(Shared {
            wanted: format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(login)),
            names: names.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
            seen: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let address = listener.local_addr().expect("it is bound");
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if serving.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&serving)) else { continue };
                // A client that disconnects ends only its own connection.
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self { address, shared }
    }
    pub fn address(&self) -> String {
        self.address.to_string()
    }
    /// The proxy's URL with credentials.
    pub fn url_as(&self, login: &str) -> String {
        format!("http://{login}@{}", self.address)
    }
    /// The data received so far, by connection.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if client.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let (request, headers) = text.split_once("\r\n").expect("it ends with one");
        let (request, _) = request.rsplit_once(' ').expect("method, target, version");
        let (method, target) = request.split_once(' ').expect("method, target");
        let hop = |line: &&str| line.to_lowercase().starts_with("proxy-");
        let authorization = headers.lines().find_map(|line| {
            line.to_lowercase().starts_with("proxy-authorization:").then(|| line[20..].trim().to_owned())
        });
        let allowed = authorization.as_deref() == Some(&self.wanted);
        let index = {
            let mut seen = self.seen.lock().expect("no panic");
            seen.push(Seen { request: request.to_owned(), authorization, bytes: head.clone() });
            seen.len() - 1
        };
        if !allowed {
            let body = "Cache Access Denied\n";
            return client.write_all(
                format!(
                    "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\
                     Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            );
        }
        let (authority, path) = match target.strip_prefix("http://") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => (target, ""),
        };
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let port = self.names.get(host).copied().or(port.parse().ok()).expect("a port");
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else {
            return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        };
        if method == "CONNECT" {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        } else {
            let kept: Vec<_> = headers.trim_end().lines().filter(|line| !hop(line)).collect();
            server.write_all(format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n", kept.join("\r\n")).as_bytes())?;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut from, mut buffer) = (&client, [0; 4096]);
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    self.seen.lock().expect("no panic")[index].bytes.extend(&buffer[..length]);
                    if (&server).write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Write);
            });
            let copied = std::io::copy(&mut &server, &mut &client);
            let _ = client.shutdown(Shutdown::Both);
            copied.map(drop)
        })
    }
}
