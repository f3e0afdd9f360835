//! Git repositories, and a real server for them: git's `http-backend` behind the test server.
//!
//! ```text
//! let repo = Repo::new(&dir.join("app.git")).file("index.py", "…").commit("first");
//! let server = GitServer::start(dir);
//! podstrap init --repo {server.url("app.git")}
//! ```
#![expect(unreachable_pub, clippy::unnecessary_debug_formatting, reason = "for the tests; names need not be UTF-8")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::http::{Request, Response, Server};

/// git without system or user configuration, and with fixed names and dates.
pub fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null());
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "Ada")
            .env(format!("GIT_{role}_EMAIL"), "ada@example.org")
            .env(format!("GIT_{role}_DATE"), "2024-01-02T03:04:05+00:00");
    }
    git
}

/// A repository with a working tree, on branch main.
pub struct Repo {
    pub dir: PathBuf,
}

impl Repo {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("the sandbox is writable");
        let repo = Self { dir: dir.to_owned() };
        repo.git(["init", "--quiet", "--initial-branch=main", "."]);
        repo
    }
    pub fn file(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a name")).expect("the sandbox is writable");
        std::fs::write(path, contents).expect("the sandbox is writable");
        self
    }
    pub fn executable(&self, name: &str, contents: &str) -> &Self {
        self.file(name, contents);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.dir.join(name), mode).expect("the sandbox is writable");
        self
    }
    pub fn link(&self, name: &str, target: impl AsRef<Path>) -> &Self {
        symlink(target, self.dir.join(name)).expect("the sandbox is writable");
        self
    }
    /// Commits all files.
    pub fn commit(&self, message: &str) -> &Self {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "-m", message]);
        self
    }
    /// Runs git in the repository and returns its output.
    pub fn git<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = git(&self.dir).args(args).output().expect("git is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
    /// The commit that a name refers to.
    pub fn rev(&self, name: &str) -> String {
        self.git(["rev-parse", &format!("{name}^{{commit}}")])
    }
}

type Hook = Box<dyn Fn(&Request) -> Option<Response> + Send>;
type Change = Box<dyn Fn(&Request, Response) -> Response + Send>;

#[derive(Default)]
struct Script {
    /// The requests for a pack.
    packs: usize,
    seen: Vec<String>,
    authorizations: Vec<Option<String>>,
    instead: Vec<Hook>,
    change: Vec<Change>,
}

/// Serves all repositories below a directory, read-only.
pub struct GitServer {
    server: Server,
    script: Arc<Mutex<Script>>,
}

impl GitServer {
    pub fn start(dir: &Path) -> Self {
        let script = Arc::<Mutex<Script>>::default();
        Self { server: Server::start(handler(dir, &script)), script }
    }

    /// The same with TLS, for `localhost`; also returns the PEM of its CA.
    pub fn start_tls(dir: &Path) -> (Self, String) {
        let script = Arc::<Mutex<Script>>::default();
        let (server, ca) = Server::start_for_localhost(handler(dir, &script));
        (Self { server, script }, ca)
    }

    pub fn url(&self, repo: &str) -> String {
        format!("{}/{repo}", self.server.url())
    }
    pub fn port(&self) -> u16 {
        self.server.port()
    }
    /// The URL with credentials.
    pub fn url_as(&self, userinfo: &str, repo: &str) -> String {
        self.url(repo).replace("://", &format!("://{userinfo}@"))
    }

    /// The requests so far, as `GET /app.git/info/refs`.
    pub fn seen(&self) -> Vec<String> {
        self.script.lock().expect("no panic").seen.clone()
    }
    /// The number of requests for a pack so far.
    pub fn packs(&self) -> usize {
        self.script.lock().expect("no panic").packs
    }
    /// The Authorization headers of the requests so far.
    pub fn authorizations(&self) -> Vec<Option<String>> {
        self.script.lock().expect("no panic").authorizations.clone()
    }

    /// Answers a request with the hook's response, if it returns one.
    pub fn instead(&self, hook: impl Fn(&Request) -> Option<Response> + Send + 'static) -> &Self {
        self.script.lock().expect("no panic").instead.push(Box::new(hook));
        self
    }
    /// Changes git's answers.
    pub fn change(&self, change: impl Fn(&Request, Response) -> Response + Send + 'static) -> &Self {
        self.script.lock().expect("no panic").change.push(Box::new(change));
        self
    }
    /// Answers the first `times` requests with this response.
    pub fn first(&self, times: usize, response: Response) -> &Self {
        let left = Mutex::new(times);
        self.instead(move |_| {
            let mut left = left.lock().expect("no panic");
            let answer = (*left > 0).then(|| response.clone());
            *left = left.saturating_sub(1);
            answer
        })
    }
    /// Answers every request with this response.
    pub fn always(&self, response: Response) -> &Self {
        self.first(usize::MAX, response)
    }
    /// Answers 401 to requests without this header (`Basic …`).
    pub fn require(&self, authorization: &str) -> &Self {
        let wanted = authorization.to_owned();
        self.instead(move |request| {
            (request.authorization() != Some(&wanted)).then(|| {
                Response::new(401, "HTTP Basic: Access denied.\n").header("WWW-Authenticate", "Basic realm=\"Git\"")
            })
        })
    }
    /// Cuts the first pack in the middle: the connection closes with bytes missing.
    pub fn truncate_first_pack(&self) -> &Self {
        let done = Mutex::new(false);
        self.change(move |request, mut response| {
            let mut done = done.lock().expect("no panic");
            if request.method == "POST" && !*done {
                *done = true;
                response = response.clone().header("Content-Length", response.body.len().to_string());
                response.body.truncate(response.body.len() / 2);
            }
            response
        })
    }
}

fn handler(dir: &Path, script: &Arc<Mutex<Script>>) -> impl Fn(Request) -> Response + Send + Sync + 'static {
    let (dir, script) = (dir.to_owned(), Arc::clone(script));
    move |request| {
        let instead = {
            let mut script = script.lock().expect("no panic");
            script.packs += usize::from(request.body.windows(5).any(|bytes| bytes == b"want "));
            script.seen.push(format!("{} {}", request.method, request.path()));
            script.authorizations.push(request.authorization().map(str::to_owned));
            script.instead.iter().find_map(|hook| hook(&request))
        };
        let response = instead.unwrap_or_else(|| backend(&dir, &request));
        let script = script.lock().expect("no panic");
        script.change.iter().fold(response, |response, change| change(&request, response))
    }
}

/// One CGI exchange with `git http-backend` (RFC 3875).
fn backend(dir: &Path, request: &Request) -> Response {
    let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
    let child = git(dir)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", dir)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", request.path())
        .env("QUERY_STRING", request.query())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    // After a client's timeout its test may have ended, and the directory may be gone.
    let Ok(mut child) = child else { return Response::new(500, "") };
    let mut stdin = child.stdin.take().expect("piped");
    // git may reject a request before it reads all of it.
    let _ = stdin.write_all(&request.body);
    drop(stdin);
    let output = child.wait_with_output().expect("a child of ours").stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut response = Response::new(200, output.get(end + 4..).unwrap_or_default());
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name == "Status" {
            response.status = value[..3].parse().expect("a status");
        } else {
            response = response.header(name, value);
        }
    }
    response
}

/// Lists every path below `dir` with type, mode, and contents or target. Equal trees give equal listings.
pub fn listing(dir: &Path) -> String {
    let mut paths = vec![dir.to_owned()];
    let mut out = Vec::new();
    while let Some(path) = paths.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("it was listed");
        let name = path.strip_prefix(dir).expect("below dir");
        let mut line = format!("{name:?}");
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path());
            paths.extend(entries.filter(|path| !path.ends_with(".git")));
            write!(line, " directory {:o}", meta.permissions().mode() & 0o7777).expect("a string");
        } else if meta.is_symlink() {
            write!(line, " -> {:?}", std::fs::read_link(&path).expect("a link")).expect("a string");
        } else {
            let contents = std::fs::read(&path).expect("readable");
            let text = String::from_utf8_lossy(&contents).into_owned();
            write!(line, " {:o} {text:?}", meta.permissions().mode() & 0o7777).expect("a string");
        }
        out.push(line);
    }
    out.sort();
    out.join("\n")
}
