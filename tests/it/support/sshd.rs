//! A real OpenSSH server on this machine, for the user that runs the tests.
//!
//! Each connection starts a separate sshd (`sshd -i`), so a test does not have to guess a free port. Without
//! sshd, [`Sshd::start`] prints a line and returns `None`; with `PODSTRAP_TEST_REQUIRE_SSHD` it fails.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Debian's path; sshd must be started by its absolute path.
const SSHD: &str = "/usr/sbin/sshd";

pub struct Sshd {
    dir: PathBuf,
    user: String,
    port: u16,
    connections: Arc<AtomicUsize>,
}

/// Faults of a connection on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// No data in either direction.
    Hang,
    /// Closed at once.
    Close,
    /// Reset after this many bytes from the server.
    After(usize),
    /// No more data after this many bytes from the server.
    Stall(usize),
    /// After this many bytes from the server, ten bytes each tenth of a second.
    Trickle(usize),
}

impl Sshd {
    /// Starts with host keys of several types in `dir` and no authorized key. `config` is appended to the
    /// server's configuration.
    pub fn start(dir: &Path, config: &str) -> Option<Self> {
        if !Path::new(SSHD).exists() {
            assert!(std::env::var_os("PODSTRAP_TEST_REQUIRE_SSHD").is_none(), "no {SSHD}");
            eprintln!("SKIPPED: no {SSHD} (Debian: openssh-server)");
            return None;
        }
        std::fs::create_dir_all(dir).expect("the sandbox is writable");
        // The privilege separation directory of root's sshd; other users' does not need it.
        let _ = std::fs::create_dir_all("/run/sshd");
        let user = Command::new("id").arg("-un").output().expect("id is everywhere").stdout;
        let user = String::from_utf8_lossy(&user).trim().to_owned();
        let mut text = String::new();
        for kind in ["ed25519", "ecdsa", "rsa"] {
            let key = dir.join(format!("host_{kind}"));
            keygen(&key, &["-t", kind]);
            text.push_str(&format!("HostKey {}\n", key.display()));
        }
        text.push_str(&format!("AuthorizedKeysFile {}\n", dir.join("authorized_keys").display()));
        text.push_str("StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n");
        text.push_str("PermitRootLogin yes\nPidFile none\nPrintMotd no\nPrintLastLog no\n");
        text.push_str(config);
        let file = dir.join("sshd_config");
        std::fs::write(&file, text).expect("the sandbox is writable");
        std::fs::write(dir.join("authorized_keys"), "").expect("the sandbox is writable");

        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let log = dir.join("sshd.log");
        let port = serve(move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            let log = std::fs::File::options().create(true).append(true).open(&log)?;
            let mut sshd = Command::new(SSHD);
            sshd.args(["-i", "-e", "-f"]).arg(&file).stdin(OwnedFd::from(stream.try_clone()?));
            sshd.stdout(OwnedFd::from(stream)).stderr(log).spawn()?.wait()?;
            Ok(())
        });
        Some(Self { dir: dir.to_owned(), user, port, connections })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn user(&self) -> &str {
        &self.user
    }
    pub fn url(&self, repo: &Path) -> String {
        self.url_at(self.port, repo)
    }
    /// The URL through another port.
    pub fn url_at(&self, port: u16, repo: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{port}{}", self.user, repo.display())
    }
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
    /// The log of sshd.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("sshd.log")).unwrap_or_default()
    }

    /// Authorizes this private key.
    pub fn authorize(&self, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).expect("keygen writes it");
        let mut file = std::fs::File::options().append(true).open(self.dir.join("authorized_keys"));
        file.as_mut().expect("it was made").write_all(public.as_bytes()).expect("the sandbox is writable");
    }

    /// A `known_hosts` line for one of the host keys, with this name.
    pub fn known_as(&self, name: &str, kind: &str) -> String {
        let key = std::fs::read_to_string(self.dir.join(format!("host_{kind}.pub"))).expect("it was made");
        format!("{name} {key}")
    }
    /// The same, with the server's own name at this port.
    pub fn known_at(&self, port: u16) -> String {
        self.known_as(&format!("[127.0.0.1]:{port}"), "ed25519")
    }
    pub fn known_hosts(&self) -> String {
        self.known_at(self.port)
    }
}

/// Creates a private key without a passphrase, and its public half next to it.
pub fn keygen(path: &Path, args: &[&str]) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("openssh-client comes with the server");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Forwards a port to another one. The first connections meet these faults, later ones none.
pub fn relay(upstream: u16, cuts: &[Cut]) -> u16 {
    let cuts = Mutex::new(cuts.iter().rev().copied().collect::<Vec<_>>());
    serve(move |mut client| {
        let cut = cuts.lock().expect("no panic").pop();
        let mut left = match cut {
            Some(Cut::Close) => return Ok(()),
            Some(Cut::Hang) => {
                while client.read(&mut [0; 512])? > 0 {}
                return Ok(());
            }
            Some(Cut::After(bytes) | Cut::Stall(bytes) | Cut::Trickle(bytes)) => bytes,
            None => usize::MAX,
        };
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = [0; 4096];
        loop {
            let read = server.read(&mut buffer)?;
            if read == 0 {
                return client.shutdown(Shutdown::Both);
            }
            let part = read.min(left);
            client.write_all(&buffer[..part])?;
            left -= part;
            if left == 0 && matches!(cut, Some(Cut::Trickle(_))) {
                for few in buffer[part..read].chunks(10) {
                    std::thread::sleep(Duration::from_millis(100));
                    client.write_all(few)?;
                }
                continue;
            }
            if left == 0 && matches!(cut, Some(Cut::Stall(_))) {
                while client.peek(&mut [0; 1])? > 0 {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            if left == 0 {
                rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
                client.shutdown(Shutdown::Both)?;
                return server.shutdown(Shutdown::Both);
            }
        }
    })
}

/// Handles each connection to a free port. It listens until the process ends.
fn serve(handle: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            // A client that disconnects ends only its own connection.
            std::thread::spawn(move || handle(stream));
        }
    });
    port
}
