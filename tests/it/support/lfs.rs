//! LFS servers: a strict one for tests of the protocol, and giftless, a real one.
//!
//! The strict one follows git-lfs's docs/api: media types, the schema of requests, logins, links with headers, ranges. It
//! answers requests of a [`GitServer`](super::git::GitServer), or runs alone.
//!
//! Without git-lfs or giftless, [`git_lfs`] and [`Giftless::start`] print a line and return `None`; with
//! `PODSTRAP_TEST_REQUIRE_LFS` they fail. `PODSTRAP_TEST_GIFTLESS` is the Python that has giftless.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::http::{Request, Response, Server};

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// The secrets of a link: in its query and in its header.
pub(crate) const IN_QUERY: &str = "s3cret-of-the-query";
pub(crate) const IN_HEADER: &str = "s3cret-of-the-header";

pub(crate) fn oid(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The pointer that git-lfs makes of contents.
pub(crate) fn pointer(contents: &[u8]) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", oid(contents), contents.len())
}

type Change = Box<dyn Fn(&mut Value) + Send>;

#[derive(Default)]
struct State {
    objects: HashMap<String, Vec<u8>>,
    /// The Authorization header that a batch needs.
    login: Option<String>,
    /// The server of the links, if it is another one.
    storage: Option<String>,
    seen: Vec<(String, Option<String>)>,
    ranges: Vec<Option<String>>,
    /// Answers to the next batches and downloads.
    batches: VecDeque<Response>,
    downloads: VecDeque<Response>,
    /// Answers to the next downloads of a part.
    parts: VecDeque<Response>,
    /// Changes of every answer to a batch.
    change: Option<Change>,
    /// After so many bytes, the next downloads break off.
    cuts: VecDeque<usize>,
    /// Downloads wait so long.
    pause: Duration,
}

/// A strict LFS server.
#[derive(Clone, Default)]
pub(crate) struct Lfs(Arc<Mutex<State>>);

impl Lfs {
    /// Alone, on a free port.
    pub(crate) fn serve(&self) -> Server {
        let lfs = self.clone();
        Server::start(move |request| lfs.answer(&request).unwrap_or_else(|| Response::new(404, "no such page")))
    }

    /// Adds contents, and returns their pointer.
    pub(crate) fn add(&self, contents: impl AsRef<[u8]>) -> String {
        let contents = contents.as_ref();
        self.with(|state| drop(state.objects.insert(oid(contents), contents.to_owned())));
        pointer(contents)
    }
    /// Replaces the contents of these contents' name.
    pub(crate) fn replace(&self, contents: &[u8], by: &[u8]) {
        self.with(|state| drop(state.objects.insert(oid(contents), by.to_owned())));
    }
    pub(crate) fn remove(&self, contents: &[u8]) {
        self.with(|state| drop(state.objects.remove(&oid(contents))));
    }
    /// Adds all objects of a clone.
    pub(crate) fn take(&self, clone: &Path) {
        let all = podstrap::walk::walk(&clone.join(".git/lfs/objects")).filter_map(Result::ok);
        for entry in all.filter(|entry| entry.path.is_file()) {
            self.add(std::fs::read(entry.path).expect("git-lfs wrote it"));
        }
    }
    pub(crate) fn require(&self, authorization: &str) {
        self.with(|state| state.login = Some(authorization.to_owned()));
    }
    pub(crate) fn store_at(&self, url: &str) {
        self.with(|state| state.storage = Some(url.to_owned()));
    }
    pub(crate) fn cut(&self, after: &[usize]) {
        self.with(|state| state.cuts = after.iter().copied().collect());
    }
    pub(crate) fn pause(&self, pause: Duration) {
        self.with(|state| state.pause = pause);
    }
    pub(crate) fn next_batch(&self, response: Response) {
        self.with(|state| state.batches.push_back(response));
    }
    pub(crate) fn next_download(&self, response: Response) {
        self.with(|state| state.downloads.push_back(response));
    }
    pub(crate) fn next_part(&self, response: Response) {
        self.with(|state| state.parts.push_back(response));
    }
    pub(crate) fn change(&self, change: impl Fn(&mut Value) + Send + 'static) {
        self.with(|state| state.change = Some(Box::new(change)));
    }
    /// The requests since the last call, as `POST /app.git/info/lfs/objects/batch`, and their logins.
    pub(crate) fn seen(&self) -> Vec<(String, Option<String>)> {
        self.with(|state| std::mem::take(&mut state.seen))
    }
    /// The ranges of all downloads since the last call.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.with(|state| std::mem::take(&mut state.ranges))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().expect("no panic"))
    }

    /// The answer to a request, if it is one of LFS.
    pub(crate) fn answer(&self, request: &Request) -> Option<Response> {
        let is_batch = request.path().ends_with("/objects/batch");
        let object = request.path().strip_prefix("/lfs-objects/").map(str::to_owned);
        if !is_batch && object.is_none() {
            return None;
        }
        let line = format!("{} {}", request.method, request.path());
        let pause = self.with(|state| {
            state.seen.push((line, request.authorization().map(str::to_owned)));
            if is_batch { Duration::ZERO } else { state.pause }
        });
        std::thread::sleep(pause);
        let answer = match object {
            Some(oid) => self.with(|state| download(state, request, &oid)),
            None => self.with(|state| batch(state, request)),
        };
        Some(answer)
    }
}

fn refuse(status: u16, message: &str) -> Response {
    Response::new(status, json!({"message": message, "request_id": "1"}).to_string()).header("Content-Type", MEDIA_TYPE)
}

/// docs/api/batch.md
fn batch(state: &mut State, request: &Request) -> Response {
    if let Some(response) = state.batches.pop_front() {
        return response;
    }
    // git-lfs adds a charset.
    let header = |name: &str| request.headers.get(name).map(|value| value.split(';').next().unwrap_or_default());
    if request.method != "POST" || header("content-type") != Some(MEDIA_TYPE) {
        return refuse(415, "no request of this API");
    }
    if header("accept") != Some(MEDIA_TYPE) {
        return refuse(406, "the client accepts another media type");
    }
    if state.login.is_some() && state.login.as_deref() != request.authorization() {
        return refuse(401, "Credentials needed").header("LFS-Authenticate", "Basic realm=\"Git LFS\"");
    }
    let Ok(asked) = serde_json::from_slice::<Value>(&request.body) else { return refuse(400, "no JSON") };
    let known = ["operation", "transfers", "ref", "objects", "hash_algo"];
    let objects = asked["objects"].as_array().filter(|objects| (1..=100).contains(&objects.len()));
    let is_valid = asked.as_object().is_some_and(|all| all.keys().all(|key| known.contains(&key.as_str())))
        && asked["operation"] == "download"
        && asked["transfers"].as_array().is_some_and(|kinds| kinds.contains(&json!("basic")))
        && asked["hash_algo"] == "sha256"
        && asked.get("ref").is_none_or(|at| at["name"].as_str().is_some_and(|name| name.starts_with("refs/")));
    let Some(objects) = objects.filter(|_| is_valid) else { return refuse(422, "the request has another schema") };
    let place = header("host").map(|host| format!("http://{host}")).unwrap_or_default();
    let place = state.storage.clone().unwrap_or(place);
    let answers = objects.iter().map(|object| {
        let (Some(oid), Some(size)) = (object["oid"].as_str(), object["size"].as_u64()) else {
            return json!({"oid": "", "error": {"code": 422, "message": "no oid or no size"}});
        };
        if !state.objects.contains_key(oid) {
            return json!({"oid": oid, "size": size, "error": {"code": 404, "message": "Object does not exist"}});
        }
        let link = json!({
            "href": format!("{place}/lfs-objects/{oid}?signature={IN_QUERY}"),
            "header": {"X-Key": IN_HEADER},
            "expires_in": 3600,
        });
        json!({"oid": oid, "size": size, "authenticated": true, "actions": {"download": link}})
    });
    let mut answer = json!({"transfer": "basic", "objects": answers.collect::<Vec<_>>(), "hash_algo": "sha256"});
    if let Some(change) = &state.change {
        change(&mut answer);
    }
    Response::new(200, answer.to_string()).header("Content-Type", MEDIA_TYPE)
}

/// docs/api/basic-transfers.md
fn download(state: &mut State, request: &Request, oid: &str) -> Response {
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    let range = header("range").map(str::to_owned);
    state.ranges.push(range.clone());
    if let Some(response) = state.downloads.pop_front() {
        return response;
    }
    if range.is_some()
        && let Some(response) = state.parts.pop_front()
    {
        return response;
    }
    if request.method != "GET" || !request.query().contains(IN_QUERY) || header("x-key") != Some(IN_HEADER) {
        return refuse(403, "the link has other secrets");
    }
    let Some(contents) = state.objects.get(oid) else { return refuse(404, "no such object") };
    let start = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let mut response = match start {
        Some(start) if start >= contents.len() => return refuse(416, "behind the end"),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", contents.len() - 1, contents.len());
            Response::new(206, &contents[start..]).header("Content-Range", range)
        }
        None => Response::new(200, contents.clone()),
    };
    if let Some(after) = state.cuts.pop_front() {
        response = response.clone().header("Content-Length", response.body.len().to_string());
        response.body.truncate(after);
    }
    response
}

fn skip(what: &str) {
    assert!(std::env::var_os("PODSTRAP_TEST_REQUIRE_LFS").is_none(), "no {what}");
    eprintln!("SKIPPED: no {what}");
}

/// A global configuration of Git with the filter of git-lfs.
pub(crate) fn git_lfs(dir: &Path) -> Option<PathBuf> {
    let config = dir.join("gitconfig");
    let mut install = super::git::git(Path::new("/"));
    install.env("GIT_CONFIG_GLOBAL", &config).args(["lfs", "install", "--skip-repo"]);
    if install.output().expect("git is installed").status.success() {
        return Some(config);
    }
    skip("git-lfs (Debian: git-lfs)");
    None
}

/// giftless with JWTs as logins.
pub(crate) struct Giftless {
    child: Child,
    dir: PathBuf,
    port: u16,
    python: PathBuf,
}

const KEY: &str = "giftless-s3cret-0123456789-0123456789";

impl Giftless {
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let Some(python) = std::env::var_os("PODSTRAP_TEST_GIFTLESS").map(PathBuf::from) else {
            skip("giftless (PODSTRAP_TEST_GIFTLESS)");
            return None;
        };
        std::fs::create_dir_all(dir.join("storage")).expect("the sandbox is writable");
        let jwt = format!("factory: giftless.auth.jwt:factory, options: {{algorithm: HS256, private_key: {KEY}}}");
        let storage = dir.join("storage");
        let config = format!(
            "AUTH_PROVIDERS: [{{{jwt}}}]\nPRE_AUTHORIZED_ACTION_PROVIDER: {{{jwt}}}\nLEGACY_ENDPOINTS: false\n\
             TRANSFER_ADAPTERS: {{basic: {{factory: giftless.transfer.basic_streaming:factory, options: {{\
             storage_class: giftless.storage.local_storage:LocalStorage, storage_options: {{path: {}}}}}}}}}\n",
            storage.display()
        );
        std::fs::write(dir.join("giftless.yaml"), config).expect("the sandbox is writable");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let log = std::fs::File::create(dir.join("giftless.log")).expect("the sandbox is writable");
        let mut command = Command::new(&python);
        command.args(["-m", "flask", "--app", "giftless.wsgi_entrypoint:app", "run", "--port", &port.to_string()]);
        command.env("GIFTLESS_CONFIG_FILE", dir.join("giftless.yaml")).current_dir(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("PODSTRAP_TEST_GIFTLESS is a Python");
        let mut giftless = Self { child, dir: dir.to_owned(), port, python };
        let until = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let has_ended = giftless.child.try_wait().expect("its own child").is_some();
            assert!(!has_ended && Instant::now() < until, "giftless does not start: {}", giftless.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(giftless)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("giftless.log")).unwrap_or_default()
    }
    /// Its URL for a repository.
    pub(crate) fn url(&self, repo: &str) -> String {
        format!("http://127.0.0.1:{}/org/{repo}/info/lfs", self.port)
    }
    /// A netrc with a login for it.
    pub(crate) fn netrc(&self) -> String {
        let code = "import jwt, sys, time; print(jwt.encode({'sub': 'ci', 'exp': int(time.time()) + 600, \
                    'scopes': 'obj:org/*/*:read,write'}, sys.argv[1], 'HS256'))";
        let output = Command::new(&self.python).args(["-c", code, KEY]).output().expect("it runs giftless");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        format!("machine 127.0.0.1 login _jwt password {}\n", String::from_utf8_lossy(&output.stdout).trim())
    }
}

impl Drop for Giftless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
