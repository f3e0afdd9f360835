//! Git LFS: the same tree as git with git-lfs makes, and the errors of its servers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::json;

use crate::support::git::{GitServer, Repo, git, listing};
use crate::support::http::{Response, Server};
use crate::support::lfs::{Giftless, IN_HEADER, IN_QUERY, Lfs, git_lfs, oid, pointer};
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::sshd::{Sshd, keygen};

const ATTRIBUTES: &str = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
/// 2024-01-02T03:04:05Z, as in every commit.
const COMMITTED: i64 = 1_704_164_645;

/// Bytes that do not compress.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (u32::try_from(at).unwrap().wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// A server of repositories that also has their LFS objects.
struct World {
    sandbox: Sandbox,
    git: GitServer,
    lfs: Lfs,
}

impl World {
    fn new() -> Self {
        let (sandbox, lfs) = (Sandbox::new(), Lfs::default());
        fs::create_dir(sandbox.path("git")).unwrap();
        let git = GitServer::start(&sandbox.path("git"));
        let answers = lfs.clone();
        git.instead(move |request| answers.answer(request));
        Self { sandbox, git, lfs }
    }

    /// `app.git` with these contents in LFS, and a file without.
    fn app(&self, contents: &[(&str, &[u8])]) -> Repo {
        let repo = Repo::new(&self.sandbox.path("git/app.git"));
        repo.file(".gitattributes", ATTRIBUTES).file("index.py", "1\n");
        for (path, contents) in contents {
            repo.file(path, self.lfs.add(contents));
        }
        repo.commit("one");
        repo
    }

    fn url(&self) -> String {
        self.git.url("app.git")
    }
    fn works(&self, flags: &[&str]) -> Ran {
        self.works_with(&self.url(), flags)
    }
    fn works_with(&self, url: &str, flags: &[&str]) -> Ran {
        let ran = init(&self.sandbox, url, flags);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran
    }
    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.sandbox.root().join("app").join(path)).unwrap()
    }
    /// The error of a run that publishes and leaves nothing.
    fn fails(&self, code: i32, flags: &[&str]) -> String {
        let ran = init(&self.sandbox, &self.url(), flags);
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        assert!(!self.sandbox.root().join("app").exists(), "something is published");
        let staging = self.sandbox.root().join(".podstrap/staging");
        let left = fs::read_dir(&staging).map_or(0, Iterator::count);
        assert_eq!(left, 0, "files are left in {}", staging.display());
        for secret in [IN_QUERY, IN_HEADER] {
            assert!(!ran.raw.contains(secret), "{}", ran.raw);
        }
        ran.error().to_owned()
    }
    /// How often each object was asked for, and downloaded.
    fn requests(&self) -> (usize, usize) {
        let seen = self.lfs.seen();
        let batches = seen.iter().filter(|(line, _)| line.starts_with("POST ")).count();
        (batches, seen.len() - batches)
    }
}

fn init(sandbox: &Sandbox, url: &str, flags: &[&str]) -> Ran {
    sandbox.run(&mut command(sandbox, url, flags))
}

fn command(sandbox: &Sandbox, url: &str, flags: &[&str]) -> std::process::Command {
    let mut command = sandbox.podstrap();
    command.args(["init", "--venv=none", "--link=app", "--log-level=debug", "--repo", url, "--root"]);
    command.env("PODSTRAP_TIMEOUT", "20s").arg(sandbox.root()).args(flags);
    command
}

fn tree(sandbox: &Sandbox) -> PathBuf {
    fs::canonicalize(sandbox.root().join("app")).unwrap()
}

/// Lists the checkout of git with git-lfs, or a part of it.
fn cloned(sandbox: &Sandbox, config: &Path, url: &str, part: &str) -> String {
    let to = sandbox.path("cloned");
    let _ = fs::remove_dir_all(&to);
    let mut clone = git(Path::new("/"));
    // git-lfs reads logins from here.
    clone.env("GIT_CONFIG_GLOBAL", config).env("HOME", sandbox.path("home"));
    let output = clone.args(["clone", "--quiet", "--recurse-submodules", url]).arg(&to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let is_git = |line: &&str| !line.contains(".git\" 644 \"gitdir:");
    listing(&to.join(part)).lines().filter(is_git).collect::<Vec<_>>().join("\n")
}

/// Asserts that the published tree is git's checkout.
fn is_clone(sandbox: &Sandbox, config: &Path, url: &str, part: &str) {
    let (published, cloned) = (listing(&tree(sandbox)), cloned(sandbox, config, url, part));
    let (ours, gits): (Vec<&str>, Vec<&str>) = (published.lines().collect(), cloned.lines().collect());
    let only = |lines: &[&str], others: &[&str]| {
        let lines = lines.iter().filter(|line| !others.contains(line));
        lines.map(|line| line.chars().take(200).collect::<String>()).collect::<Vec<_>>()
    };
    assert_eq!((only(&ours, &gits), only(&gits, &ours)), (vec![], vec![]), "podstrap's files, and git's");
}

/// A repository whose files git-lfs itself turned into pointers.
fn varied(dir: &Path, config: &Path) -> Repo {
    let repo = Repo::new(dir);
    for (name, value) in [
        ("filter.lfs.clean", "git-lfs clean -- %f"),
        ("filter.lfs.smudge", "git-lfs smudge --skip -- %f"),
        ("filter.lfs.required", "true"),
    ] {
        repo.git(["config", name, value]);
    }
    assert!(config.exists());
    repo.file(".gitattributes", "[attr]big filter=lfs diff=lfs merge=lfs -text\n*.bin big\nsome[[:space:]]name big\n")
        .file("index.py", "1\n")
        .file("models/a.bin", noise(1, 300_000))
        .file("models/.gitattributes", "*.txt filter=lfs\nplain.bin -filter\n")
        .file("models/text.txt", "one\ntwo\r\nthree\n")
        .file("models/plain.bin", "not in LFS\n")
        .file("same/as.bin", noise(1, 300_000))
        .file("empty.bin", "")
        .file("some name", noise(2, 500))
        .executable("run.bin", "#!/bin/sh\n")
        .link("link.bin", "models/a.bin")
        .file("docs/pointer.md", pointer(b"an example"))
        .commit("one");
    repo
}

#[test]
fn the_tree_is_what_git_with_git_lfs_checks_out() {
    let world = World::new();
    let Some(config) = git_lfs(&world.sandbox.path("")) else { return };
    let repo = varied(&world.sandbox.path("git/app.git"), &config);
    world.lfs.take(&repo.dir);
    let check = |flags: &[&str], part: &str| {
        let ran = world.works(flags);
        is_clone(&world.sandbox, &config, &world.url(), part);
        for entry in podstrap::walk::walk(&tree(&world.sandbox)).map(Result::unwrap) {
            let time = entry.metadata().unwrap().mtime();
            assert_eq!(time, COMMITTED, "{}", entry.path.display());
        }
        assert!(!ran.raw.contains(IN_QUERY) && !ran.raw.contains(IN_HEADER), "{}", ran.raw);
        ran
    };
    let ran = check(&[], "");
    assert_eq!(world.read("models/a.bin"), noise(1, 300_000));
    let left = "as with git, Git LFS pointers without the attribute filter=lfs stay pointers: docs/pointer.md";
    assert!(ran.raw.contains(left), "{}", ran.raw);
    check(&["--subdir=models"], "models");
    // A tree that libgit2 writes, whose pointers have other line ends.
    repo.file("eol.txt", "one\ntwo\n")
        .file("models/.gitattributes", "*.txt filter=lfs text eol=crlf\nplain.bin -filter\n");
    repo.file(".gitattributes", "*.txt text eol=crlf\n*.bin filter=lfs diff=lfs merge=lfs\n").commit("two");
    world.lfs.take(&repo.dir);
    check(&[], "");
    assert_eq!(world.read("eol.txt"), b"one\r\ntwo\r\n");
    check(&["--subdir=models"], "models");
    // A repository that leaves some contents out.
    for patterns in ["[lfs]\nfetchexclude = same, /run.bin", "[lfs]\nfetchinclude = *.txt,same/\nfetchexclude=x y"] {
        repo.file(".lfsconfig", patterns).commit("three");
        let ran = check(&[], "");
        assert!(ran.raw.contains(".lfsconfig leaves Git LFS pointers without contents: "), "{}", ran.raw);
    }
    // Git itself finds nothing to change in a tree with a .git.
    repo.git(["rm", "--quiet", ".lfsconfig"]);
    repo.commit("four");
    world.works(&["--keep-git"]);
    let mut status = git(&tree(&world.sandbox));
    let output = status.env("GIT_CONFIG_GLOBAL", &config).args(["status", "--porcelain"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_real_server_gives_the_contents_to_those_with_a_login() {
    let world = World::new();
    let Some(config) = git_lfs(&world.sandbox.path("")) else { return };
    let Some(giftless) = Giftless::start(&world.sandbox.path("giftless")) else { return };
    let netrc = world.sandbox.write("home/.netrc", giftless.netrc());
    fs::set_permissions(&netrc, fs::Permissions::from_mode(0o600)).unwrap();
    let repo = varied(&world.sandbox.path("git/app.git"), &config);
    repo.file(".lfsconfig", format!("[lfs]\n\turl = {}\n", giftless.url("app.git"))).commit("two");
    let text = world.fails(3, &[]);
    assert!(text.contains("answers 401") && text.contains("hint: "), "{text}");

    let mut push = git(&repo.dir);
    push.env("GIT_CONFIG_GLOBAL", &config).env("HOME", world.sandbox.path("home"));
    // giftless fails if two uploads make its directory at once.
    push.args(["-c", "lfs.concurrenttransfers=1"]);
    // Nobody has the contents of the pointer that the attributes leave alone.
    push.args(["-c", "lfs.allowincompletepush=true", "lfs", "push", "--all", &world.url()]);
    let output = push.output().unwrap();
    assert!(output.status.success(), "{output:?} {}", giftless.log());
    let auth = format!("--auth={}", netrc.display());
    let ran = world.works(&[&auth]);
    is_clone(&world.sandbox, &config, &world.url(), "");
    let word = giftless.netrc().split_whitespace().last().unwrap()[..30].to_owned();
    assert!(!ran.raw.contains(&word) && !ran.raw.contains("jwt=ey"), "{}", ran.raw);

    fs::remove_dir_all(world.sandbox.root()).unwrap();
    repo.file("new.bin", "that the server does not have\n").commit("three");
    let text = world.fails(3, &[&auth]);
    assert!(text.contains("Git LFS contents of new.bin") && text.contains("answers 404"), "{text}");
}

#[test]
fn a_login_goes_to_its_own_host_only() {
    let world = World::new();
    let login = format!("Basic {}", BASE64_STANDARD.encode("ci:s3cret"));
    world.git.require(&login);
    world.lfs.require(&login);
    world.app(&[("a.bin", b"contents")]);
    world.sandbox.write("auth/username", "ci");
    world.sandbox.write("auth/password", "s3cret");
    let auth = format!("--auth={}", world.sandbox.path("auth").display());
    world.works(&[&auth]);
    assert_eq!(world.read("a.bin"), b"contents");
    let seen = world.lfs.seen();
    assert_eq!(seen[0], ("POST /app.git/info/lfs/objects/batch".to_owned(), Some(login.clone())));
    // The link has its own secrets.
    assert_eq!(seen[1], (format!("GET /lfs-objects/{}", oid(b"contents")), None));
    assert_eq!(seen.len(), 2);

    // Another host gets no login for the batch, and none for a link without `authenticated`.
    let (other, storage) = (Lfs::default(), Lfs::default());
    other.add(b"contents");
    storage.add(b"contents");
    let (server, place) = (other.serve(), storage.serve());
    other.store_at(&place.url());
    other.change(|answer| drop(answer["objects"][0].as_object_mut().unwrap().remove("authenticated")));
    let repo = Repo { dir: world.sandbox.path("git/app.git") };
    repo.file(".lfsconfig", format!("[lfs]\nurl = {}/lfs\n", server.url())).commit("two");
    fs::remove_dir_all(world.sandbox.root()).unwrap();
    world.works(&[&auth]);
    assert_eq!(world.read("a.bin"), b"contents");
    assert_eq!(other.seen(), [("POST /lfs/objects/batch".to_owned(), None)]);
    assert_eq!(storage.seen(), [(format!("GET /lfs-objects/{}", oid(b"contents")), None)]);
    assert!(world.lfs.seen().is_empty());

    // One that wants a login says so, and a netrc has it.
    other.require(&format!("Basic {}", BASE64_STANDARD.encode("me:other-s3cret")));
    fs::remove_dir_all(world.sandbox.root()).unwrap();
    let text = world.fails(3, &[&auth]);
    assert!(text.contains("answers 401") && text.contains("put the login for"), "{text}");
    let netrc = world.sandbox.write("netrc", "machine 127.0.0.1 login me password other-s3cret\n");
    let ran = world.works(&[&auth, &format!("--auth={}", netrc.display())]);
    assert!(!ran.raw.contains("s3cret"), "{}", ran.raw);
}

#[test]
fn a_download_that_breaks_off_continues_where_it_ended() {
    let world = World::new();
    let contents = noise(3, 200_000);
    world.app(&[("a.bin", &contents), ("b.bin", &contents)]);
    world.lfs.cut(&[70_000, 50_000, 0]);
    world.works(&[]);
    assert_eq!((world.read("a.bin"), world.read("b.bin")), (contents.clone(), contents.clone()));
    let range = |from: usize| Some(format!("bytes={from}-"));
    assert_eq!(world.lfs.ranges(), [None, range(70_000), range(120_000), range(120_000)]);
    // Each try had a new link.
    assert_eq!(world.requests(), (4, 4));

    // A server that does not know ranges sends everything again, and one that confuses them is asked again.
    for second in [
        Response::new(200, contents.clone()),
        Response::new(206, "?").header("Content-Range", "bytes 5-6/7"),
        Response::new(416, ""),
        Response::new(503, "later"),
        Response::new(206, noise(4, 130_000)).header("Content-Range", "bytes 70000-199999/200000"),
    ] {
        fs::remove_dir_all(world.sandbox.root()).unwrap();
        world.lfs.next_download(Response::new(200, &contents[..70_000]).header("Content-Length", "200000"));
        world.lfs.next_download(second.clone());
        world.works(&[]);
        assert_eq!(world.read("a.bin"), contents, "{}", second.status);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one message for each fault")]
fn what_a_server_does_wrong_is_named_and_nothing_is_published() {
    let world = World::new();
    let contents = noise(5, 1000);
    world.app(&[("models/a.bin", &contents)]);
    let oid = oid(&contents);
    let mut told = String::new();
    let tries = regex::Regex::new(r"after \d tries").unwrap();
    let mut fails = |name: &str| {
        let text = world.fails(3, &["--timeout=3s"]).replace(&oid, "[OID]");
        let text = tries.replace(&text, "after [N] tries").into_owned();
        told += &format!("-- {name}\n{text}\n");
        world.lfs.change(|_| ());
    };
    world.lfs.replace(&contents, &noise(6, 1000));
    fails("other contents");
    world.lfs.replace(&contents, &noise(6, 999));
    fails("shorter");
    world.lfs.replace(&contents, &noise(6, 1001));
    fails("longer");
    world.lfs.remove(&contents);
    fails("missing");
    world.lfs.add(&contents);
    for (code, message) in [(410, "gone for ever"), (422, "no such size"), (403, "")] {
        let name = format!("an object is refused: {code}");
        world.lfs.change(move |answer| {
            let object = answer["objects"][0].as_object_mut().unwrap();
            object.remove("actions");
            object.insert("error".to_owned(), json!({"code": code, "message": message}));
        });
        fails(&name);
    }
    for (name, key, value) in [
        ("another transfer", "transfer", json!("multipart")),
        ("another hash", "hash_algo", json!("sha512")),
        ("no objects", "objects", json!([])),
        ("no list", "objects", json!({})),
    ] {
        world.lfs.change(move |answer| answer[key] = value.clone());
        fails(name);
    }
    for (name, link) in [
        ("no link", json!({})),
        ("a link to nothing", json!({"download": {"href": "file:///etc/passwd"}})),
        ("a link that is none", json!({"download": {"href": "http://"}})),
        ("an invalid header", json!({"download": {"href": "http://host/", "header": {"a b": IN_HEADER}}})),
    ] {
        world.lfs.change(move |answer| answer["objects"][0]["actions"] = link.clone());
        fails(name);
    }
    for status in [400, 401, 403, 404, 413, 422, 501, 507, 509] {
        world.lfs.next_batch(Response::new(status, "the reason"));
        fails(&format!("the request is refused: {status}"));
    }
    world.lfs.next_batch(Response::new(200, "<title>Sign in</title>").header("Content-Type", "text/html"));
    fails("a web page");
    world.lfs.next_batch(Response::new(200, "[]"));
    fails("other JSON");
    world.lfs.next_batch(Response::new(302, "").header("Location", "ftp://host/"));
    fails("a redirect elsewhere");
    for _ in 0..2 {
        world.lfs.next_download(Response::new(403, format!("bad signature {IN_QUERY} and {IN_HEADER}")));
    }
    fails("the storage refuses");
    for _ in 0..2 {
        world.lfs.next_download(Response::new(404, ""));
    }
    fails("the storage has nothing");
    for _ in 0..2 {
        world.lfs.next_download(Response::new(203, "what podstrap asked for"));
    }
    fails("another success");
    // A signed link of another server, which repeats it.
    let signed = Server::start(|request| Response::new(403, format!("bad signature: {}", request.query())));
    for _ in 0..2 {
        let place = format!("{}/x?signature=s3cret-of-storage", signed.url());
        world.lfs.next_download(Response::new(302, "").header("Location", place));
    }
    fails("the storage behind it refuses");
    assert!(!told.contains("s3cret"), "{told}");
    // A refusal that passes is tried again, until the deadline ends a try or a pause.
    world.lfs.change(|answer| answer["objects"][0]["error"] = json!({"code": 429, "message": "too often"}));
    let text = world.fails(3, &["--timeout=3s"]);
    assert!(text.contains("answers 429 for") && text.contains("gave up after"), "{text}");
    world.lfs.change(|_| ());
    insta::assert_snapshot!(told, @r#"
    -- other contents
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: the contents have the SHA-256 000d541e1d76285027b8af87cc53478a171d0bc8be59ce532f78e00e334d8563
    hint: check the object on the LFS server: its contents are not those of its name
    -- shorter
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: the server sends 999 bytes, and the pointer says 1000
    hint: check the object on the LFS server: its contents are not those of its name
    -- longer
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: the server sends 1001 bytes or more, and the pointer says 1000
    hint: check the object on the LFS server: its contents are not those of its name
    -- missing
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 404 for [OID]: Object does not exist
    hint: push the contents to this server from a clone that has them: git lfs push --all REMOTE; if the server is another one, set lfs.url in .lfsconfig
    hint: use --lfs off if the app does not need them
    -- an object is refused: 410
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 410 for [OID]: gone for ever
    hint: the server has removed the contents: restore them there, or remove the file from the commit
    hint: use --lfs off if the app does not need them
    -- an object is refused: 422
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 422 for [OID]: no such size
    hint: use --lfs off if the app does not need them
    -- an object is refused: 403
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 403 for [OID]
    hint: check that the login of --auth may read the contents of this repository
    hint: use --lfs off if the app does not need them
    -- another transfer
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers with the transfer "multipart", and podstrap asked for basic
    hint: enable the transfer basic on the server: podstrap runs no custom transfer agents
    -- another hash
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers with the hash "sha512", and podstrap supports only sha256
    -- no objects
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch leaves [OID] out of its answer
    -- no list
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch is not a Git LFS server: it answers with no JSON of this API (line 1, column 30)
    hint: correct lfs.url in .lfsconfig, or use --lfs off to publish the pointers
    -- no link
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 404 for [OID]: it has no link to download it
    hint: push the contents to this server from a clone that has them: git lfs push --all REMOTE; if the server is another one, set lfs.url in .lfsconfig
    hint: use --lfs off if the app does not need them
    -- a link to nothing
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch links to a place that podstrap does not ask: the target does not use HTTP
    -- a link that is none
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch links to no URL: empty host
    -- an invalid header
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch gives a link that has a header with invalid characters
    -- the request is refused: 400
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 400 Bad Request
      | the reason
    hint: use --lfs off if the app does not need them
    -- the request is refused: 401
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 401 Unauthorized
      | the reason
    hint: if the repository exists, it is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    hint: use --lfs off if the app does not need them
    -- the request is refused: 403
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 403 Forbidden
      | the reason
    hint: if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    hint: use --lfs off if the app does not need them
    -- the request is refused: 404
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 404 Not Found
      | the reason
    hint: check the path in the URL; if the repository is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    hint: enable Git LFS for the repository on its server, or set lfs.url in .lfsconfig
    hint: use --lfs off if the app does not need them
    -- the request is refused: 413
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 413 Payload Too Large
      | the reason
    hint: the server does not accept the list of files: check that lfs.url is its API
    hint: use --lfs off if the app does not need them
    -- the request is refused: 422
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 422 Unprocessable Entity
      | the reason
    hint: the server does not accept the list of files: check that lfs.url is its API
    hint: use --lfs off if the app does not need them
    -- the request is refused: 501
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 501 Not Implemented
      | the reason
    hint: the server does not support Git LFS: set lfs.url in .lfsconfig to one that does
    hint: use --lfs off if the app does not need them
    -- the request is refused: 507
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 507 Insufficient Storage
      | the reason
    hint: the server's storage or bandwidth for Git LFS is used up: raise its quota
    hint: use --lfs off if the app does not need them
    -- the request is refused: 509
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch answers 509 <unknown status code>
      | the reason
    hint: the server's storage or bandwidth for Git LFS is used up: raise its quota
    hint: use --lfs off if the app does not need them
    -- a web page
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch is not a Git LFS server: it answers with a web page
    hint: correct lfs.url in .lfsconfig, or use --lfs off to publish the pointers
    -- other JSON
    cannot fetch the Git LFS contents of models/a.bin
      because: http://[HOST]/app.git/info/lfs/objects/batch is not a Git LFS server: it answers with no JSON of this API (line 1, column 2)
    hint: correct lfs.url in .lfsconfig, or use --lfs off to publish the pointers
    -- a redirect elsewhere
    http://[HOST]/app.git/info/lfs/objects/batch redirects to ftp://host/
      because: the target does not use HTTP
    hint: give the new address, or credentials if the target is a login page
    -- the storage refuses
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: http://[HOST]/lfs-objects/[OID]?*** answers 403 Forbidden
      | bad signature *** and ***
    hint: check the storage of the LFS server: podstrap followed its link as it is
    -- the storage has nothing
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: http://[HOST]/lfs-objects/[OID]?*** answers 404 Not Found
    hint: check the storage of the LFS server: podstrap followed its link as it is
    -- another success
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: http://[HOST]/lfs-objects/[OID]?*** answers 203 Non Authoritative Information to a request for all of it
    hint: check the storage of the LFS server: podstrap followed its link as it is
    -- the storage behind it refuses
    cannot download the Git LFS contents of models/a.bin ([OID])
      because: http://[HOST]/x?*** answers 403 Forbidden
      | bad signature: signature=***
    hint: check the storage of the LFS server: podstrap followed its link as it is
    "#);
    world.works(&[]);
    assert_eq!(world.read("models/a.bin"), contents);
}

#[test]
fn what_passes_is_tried_again() {
    let world = World::new();
    world.app(&[("a.bin", b"contents")]);
    let again = |name: &str| {
        world.works(&[]);
        assert_eq!(world.read("a.bin"), b"contents", "{name}");
        fs::remove_dir_all(world.sandbox.root()).unwrap();
        world.requests()
    };
    world.lfs.next_batch(Response::new(429, "").header("Retry-After", "1"));
    world.lfs.next_batch(Response::new(502, ""));
    world.lfs.next_download(Response::new(500, ""));
    assert_eq!(again("errors"), (4, 2));
    // Another link may be better, whatever was wrong with the first one.
    for response in [Response::new(403, "expired"), Response::new(200, "CONTENTS"), Response::new(200, "short")] {
        world.lfs.next_download(response);
        assert_eq!(again("a bad link"), (2, 2));
    }
    // A part may be smaller than asked for.
    world.lfs.cut(&[3]);
    world.lfs.next_part(Response::new(206, "te").header("Content-Range", "bytes 3-4/8"));
    assert_eq!(again("a small part"), (3, 3));
    // A link that is over before its turn is renewed; a redirect is followed without the link's secrets.
    world.lfs.change(|answer| answer["objects"][0]["actions"]["download"]["expires_in"] = json!(-1));
    assert_eq!(again("a link that is over"), (2, 1));
    world.lfs.change(|_| ());
    let place = world.lfs.serve();
    world.lfs.next_batch(Response::new(307, "").header("Location", format!("{}/moved/objects/batch", place.url())));
    assert_eq!(again("a server that moved"), (2, 1));
    let bare = Server::start(|request| {
        let has_secret = request.headers.contains_key("x-key") || request.authorization().is_some();
        Response::new(if has_secret { 400 } else { 200 }, "contents")
    });
    world.lfs.next_download(Response::new(302, "").header("Location", format!("{}/x", bare.url())));
    assert_eq!(again("storage that moved"), (1, 1));
}

#[test]
fn the_sizes_are_counted_before_a_byte_is_asked_for() {
    let world = World::new();
    let repo = world.app(&[]);
    let large =
        |size: u64| format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {size}\n", oid(b""));
    repo.file("a.bin", large(3_000_000_000)).file("b.bin", large(3_000_000_000)).commit("two");
    insta::assert_snapshot!(world.fails(3, &["--size-limit=5G"]), @"
    cannot fetch the Git LFS contents of http://[HOST]/app.git
      because: the files and their Git LFS contents take 6.1 GB or more, and the limit is 5.0 GB
    hint: if this size is correct, raise --size-limit and the size of the volume
    ");
    // An absurd size does not overflow, and nothing fits.
    repo.file("a.bin", large(u64::MAX)).file("b.bin", "").commit("three");
    let text = world.fails(3, &[]);
    assert!(text.contains("--size-limit"), "{text}");
    repo.file("a.bin", large(1 << 60)).commit("four");
    let text = world.fails(5, &["--size-limit=9999999Ti"]);
    assert!(text.contains("and the volume has"), "{text}");
    assert_eq!(world.requests(), (0, 0));
}

#[test]
fn a_new_commit_downloads_only_new_contents() {
    let world = World::new();
    let repo = world.app(&[("models/a.bin", b"one"), ("b.bin", b"two")]);
    world.works(&[]);
    assert_eq!(world.requests(), (1, 2));
    let old = tree(&world.sandbox).join("models/a.bin");
    repo.file("index.py", "2\n").file("b.bin", world.lfs.add(b"three")).commit("two");
    // The running app keeps the old tree open.
    let kept = fs::File::open(&old).unwrap();
    world.works(&[]);
    assert_eq!((world.read("models/a.bin"), world.read("b.bin")), (b"one".to_vec(), b"three".to_vec()));
    assert_eq!(world.requests(), (1, 1));
    assert_ne!(kept.metadata().unwrap().ino(), fs::metadata(tree(&world.sandbox).join("models/a.bin")).unwrap().ino());
    repo.file("index.py", "3\n").commit("three");
    world.works(&[]);
    assert_eq!(world.requests(), (0, 0));
    // A file that the app has changed is not taken.
    fs::write(tree(&world.sandbox).join("models/a.bin"), b"ONE").unwrap();
    repo.file("index.py", "4\n").commit("four");
    world.works(&[]);
    assert_eq!(world.read("models/a.bin"), b"one");
    let time = fs::metadata(tree(&world.sandbox).join("models/a.bin")).unwrap().mtime();
    assert_eq!((world.requests(), time), ((1, 1), COMMITTED));
    // On and off are two releases.
    world.works(&["--lfs=off"]);
    assert_eq!(world.read("models/a.bin"), pointer(b"one").as_bytes());
    world.works(&[]);
    assert_eq!(world.read("models/a.bin"), b"one");
}

#[test]
fn many_objects_take_a_request_for_each_hundred() {
    let world = World::new();
    let repo = world.app(&[]);
    for number in 0..250 {
        repo.file(format!("{number}.bin"), world.lfs.add(format!("contents {number}")));
    }
    repo.commit("two");
    world.works(&[]);
    assert_eq!(world.requests(), (3, 250));
    assert_eq!(world.read("249.bin"), b"contents 249");
}

#[test]
fn submodules_have_their_own_server() {
    let world = World::new();
    let (other, lib) = (Lfs::default(), Repo::new(&world.sandbox.path("git/lib.git")));
    let server = other.serve();
    lib.file(".gitattributes", ATTRIBUTES).file(".lfsconfig", format!("[lfs]\nurl={}/lib\n", server.url()));
    lib.file("deep/b.bin", other.add(b"of the library")).commit("one");
    let app = world.app(&[("a.bin", b"of the app")]);
    for (name, value) in [("path", "lib"), ("url", "../lib.git")] {
        app.git(["config", "-f", ".gitmodules", &format!("submodule.lib.{name}"), value]);
    }
    app.git(["add", ".gitmodules"]);
    app.git(["update-index", "--add", "--cacheinfo", &format!("160000,{},lib", lib.rev("HEAD"))]);
    app.git(["commit", "--quiet", "-m", "lib"]);
    world.works(&[]);
    assert_eq!(
        (world.read("a.bin"), world.read("lib/deep/b.bin")),
        (b"of the app".to_vec(), b"of the library".to_vec())
    );
    assert_eq!((world.requests(), other.seen().len()), ((1, 1), 2));
    if let Some(config) = git_lfs(&world.sandbox.path("")) {
        is_clone(&world.sandbox, &config, &world.url(), "");
    }
    world.requests();
    other.seen();
    app.file("index.py", "2\n");
    app.git(["add", "index.py"]);
    app.git(["commit", "--quiet", "-m", "two"]);
    world.works(&[]);
    assert_eq!((world.requests(), other.seen().len()), ((0, 0), 0));
    fs::remove_dir_all(world.sandbox.root()).unwrap();
    other.remove(b"of the library");
    let text = world.fails(3, &[]);
    assert!(text.contains("submodule lib: cannot fetch the Git LFS contents of deep/b.bin"), "{text}");
}

#[test]
fn a_configuration_that_podstrap_cannot_use_is_named() {
    let world = World::new();
    let repo = world.app(&[("a.bin", b"contents")]);
    let mut told = String::new();
    for config in [
        "[lfs\nurl",
        &format!("[lfs]\nurl = {}\n", "x".repeat(1 << 20)),
        "[include]\npath = /etc/passwd",
        "[lfs]\nurl = file:///srv/lfs",
        "[lfs]\nurl = ext::sh -c id",
        "[lfs]\nurl = \"https://me:pa#s3cret@host/x\"",
        "[remote \"origin\"]\nlfsurl = /srv/lfs",
    ] {
        repo.file(".lfsconfig", config).commit("config");
        let shown: String = config.chars().take(60).collect();
        told += &format!("-- {}\n{}\n", shown.escape_debug(), world.fails(3, &[]));
    }
    repo.git(["rm", "--quiet", ".lfsconfig"]);
    repo.link(".lfsconfig", "/etc/passwd").commit("link");
    told += &format!("-- a link\n{}\n", world.fails(3, &[]));
    repo.git(["rm", "--quiet", ".lfsconfig"]);
    for pointer in [
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_owned(),
        pointer(b"contents").replace("oid", "ext-0-foo sha256:00\noid"),
        pointer(b"x").replace("size 1", "size 0"),
    ] {
        repo.file("a.bin", &pointer).commit("pointer");
        told += &format!("-- {}\n{}\n", pointer.escape_debug(), world.fails(3, &[]));
    }
    repo.file("a.bin", pointer(b"contents"))
        .file("b.bin", pointer(b"contents").replace("size 8", "size 9"))
        .commit("two");
    told += &format!("-- two sizes\n{}\n", world.fails(3, &[]));
    insta::assert_snapshot!(told, @r#"
    -- [lfs\nurl
    cannot read .lfsconfig of the repository
      because: failed to parse config file: missing ']' in section header (in [TMP]/volume/.podstrap/staging/[RANDOM]/scratch/source/config-of-repository:1)
    -- [lfs]\nurl = xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
    cannot read .lfsconfig of the repository
      because: it has 1048589 bytes, and the limit is 1048576
    -- [include]\npath = /etc/passwd
    cannot read .lfsconfig of the repository
      because: it includes other files, which Git does not allow there
    -- [lfs]\nurl = file:///srv/lfs
    .lfsconfig names "file:///srv/lfs" as lfs.url
      because: podstrap does not support LFS servers in directories (file://)
    hint: use a URL with https:// or ssh:// as lfs.url, or --lfs off to publish the pointers
    -- [lfs]\nurl = ext::sh -c id
    .lfsconfig names "ext::sh -c id" as lfs.url
      because: it is not the URL of a server
    hint: use a URL with https:// or ssh:// as lfs.url, or --lfs off to publish the pointers
    -- [lfs]\nurl = \"https://me:pa#s3cret@host/x\"
    .lfsconfig names https://*** has an @ behind its host
      because: it seems to contain a login whose special characters are not escaped
    hint: write special characters as %XX (%40 for @, %2F for /, %3F for ?, %23 for #, %3A for :)
    -- [remote \"origin\"]\nlfsurl = /srv/lfs
    .lfsconfig names "/srv/lfs" as lfs.url
      because: it is not the URL of a server
    hint: use a URL with https:// or ssh:// as lfs.url, or --lfs off to publish the pointers
    -- a link
    cannot check out [COMMIT] of http://[HOST]/app.git
      because: .lfsconfig of the repository is not a regular file
    hint: commit the file itself
    -- version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n
    cannot check out [COMMIT] of http://[HOST]/app.git
      because: the Git LFS pointer a.bin is unusable: its oid does not have 64 hexadecimal digits in lower case
    hint: commit the file again with git lfs, or use --lfs off to publish the pointer
    -- version https://git-lfs.github.com/spec/v1\next-0-foo sha256:00\noid sha256:d1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8\nsize 8\n
    cannot check out [COMMIT] of http://[HOST]/app.git
      because: the Git LFS pointer a.bin is unusable: it needs the extension ext-0-foo of git-lfs, and podstrap supports no extensions
    hint: commit the file again with git lfs, or use --lfs off to publish the pointer
    -- version https://git-lfs.github.com/spec/v1\noid sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\nsize 0\n
    the Git LFS pointer a.bin is damaged
      because: it names contents without a byte, but not the SHA-256 of these
    -- two sizes
    cannot fetch the Git LFS contents of http://[HOST]/app.git
      because: a.bin and b.bin name the same contents with different sizes
    hint: correct the pointers: at least one of them is damaged
    "#);
    assert_eq!(world.requests(), (0, 0));
    // Keys that name programs mean nothing.
    repo.file(
        ".lfsconfig",
        "[lfs]\nstandalonetransferagent = evil\n[lfs \"customtransfer.evil\"]\npath = /bin/false\n",
    );
    repo.file("b.bin", "").commit("agents");
    world.works(&[]);
    assert_eq!(world.read("a.bin"), b"contents");
    insta::assert_snapshot!(world.fails_now(2, &["--allow-lfs-pointers"]), @"
    --allow-lfs-pointers (PODSTRAP_ALLOW_LFS_POINTERS) has another name now
    hint: write --lfs off, or set PODSTRAP_LFS=off
    ");
}

impl World {
    /// The error of a run beside a published release.
    fn fails_now(&self, code: i32, flags: &[&str]) -> String {
        let ran = init(&self.sandbox, &self.url(), flags);
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        ran.error().to_owned()
    }
}

#[test]
fn a_repository_on_this_machine_has_its_objects_beside_it() {
    let world = World::new();
    let repo = world.app(&[("a.bin", b"contents")]);
    let url = format!("file://{}", repo.dir.display());
    let ran = init(&world.sandbox, &url, &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.raw);
    insta::assert_snapshot!(ran.error(), @"
    cannot find the Git LFS contents of a.bin
      because: [TMP]/git/app.git/.git/lfs/objects/d1/b2/d1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8 is missing or has other contents
    hint: run git lfs fetch in the repository, or set lfs.url in .lfsconfig to the URL of an LFS server
    hint: use --lfs off if the app does not need them
    ");
    let oid = oid(b"contents");
    let at = repo.dir.join(".git/lfs/objects").join(&oid[..2]).join(&oid[2..4]).join(&oid);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(&at, "other!!!").unwrap();
    assert_eq!(init(&world.sandbox, &url, &[]).code, Some(3));
    fs::write(&at, "contents").unwrap();
    world.works_with(&url, &[]);
    assert_eq!(world.read("a.bin"), b"contents");
    assert_eq!(world.requests(), (0, 0));
}

#[test]
fn a_killed_run_leaves_nothing_that_the_next_one_takes() {
    let world = World::new();
    let contents = noise(7, 400_000);
    let repo = world.app(&[("a.bin", &contents)]);
    let alone = world.lfs.serve();
    repo.file(".lfsconfig", format!("[lfs]\nurl={}/x\n", alone.url())).commit("two");
    // The first part arrives, then the rest is late.
    world.lfs.cut(&[100_000]);
    world.lfs.pause(Duration::from_millis(400));
    let mut child = command(&world.sandbox, &world.url(), &[]).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(15);
    let mut downloads = 0;
    while downloads < 2 {
        assert!(Instant::now() < until, "no second download");
        std::thread::sleep(Duration::from_millis(20));
        downloads += world.lfs.seen().iter().filter(|(line, _)| line.starts_with("GET ")).count();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!world.sandbox.root().join("app").exists());
    world.lfs.pause(Duration::ZERO);
    // Its last request is still on its way.
    std::thread::sleep(Duration::from_secs(1));
    world.lfs.ranges();
    world.works(&[]);
    assert_eq!(world.read("a.bin"), contents);
    assert_eq!(world.lfs.ranges(), [None], "the rest of a killed run is not trusted");
}

#[test]
fn a_host_over_ssh_names_its_server_and_gives_a_login() {
    let world = World::new();
    let programs = world.sandbox.path("programs");
    let path = format!("SetEnv PATH={}:/usr/bin:/bin\n", programs.display());
    let Some(sshd) = Sshd::start(&world.sandbox.path("sshd"), &path) else { return };
    let repo = world.app(&[("a.bin", b"contents")]);
    world.sandbox.write("auth/known_hosts", sshd.known_hosts());
    keygen(&world.sandbox.path("key"), &["-t", "ed25519"]);
    sshd.authorize(&world.sandbox.path("key"));
    fs::copy(world.sandbox.path("key"), world.sandbox.path("auth/ssh-privatekey")).unwrap();
    let auth = format!("--auth={}", world.sandbox.path("auth").display());
    let url = sshd.url(&repo.dir);
    let fails = || {
        let ran = init(&world.sandbox, &url, &[&auth]);
        assert_eq!(ran.code, Some(3), "{}", ran.raw);
        assert!(!ran.raw.contains("s3cret"), "{}", ran.raw);
        regex::Regex::new(r"ssh://[^@ ]*@").unwrap().replace_all(ran.error(), "ssh://[USER]@").into_owned()
    };
    let answers = |text: &str| {
        let script = format!("#!/bin/sh\n[ \"$1 $2\" = \"{} download\" ] || exit 9\n{text}\n", repo.dir.display());
        let path = world.sandbox.write("programs/git-lfs-authenticate", script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let mut told = format!("-- no program\n{}\n", fails());
    for (name, text) in [
        ("a refusal", "echo 'no LFS for you' >&2; exit 1"),
        ("no JSON", "echo hello"),
        ("another scheme", r#"echo '{"href": "ftp://host/x"}'"#),
    ] {
        answers(text);
        told += &format!("-- {name}\n{}\n", fails());
    }
    insta::assert_snapshot!(told, @"
    -- no program
    cannot find the Git LFS server of ssh://[USER]@[HOST][TMP]/git/app.git
      because: the server has no git-lfs-authenticate on its PATH
      | bash: line 1: git-lfs-authenticate: command not found
    hint: podstrap asks with git-lfs-authenticate; it does not support git-lfs-transfer (LFS over SSH alone)
    hint: set lfs.url in .lfsconfig to the https:// URL of an LFS server, or use --lfs off
    -- a refusal
    cannot find the Git LFS server of ssh://[USER]@[HOST][TMP]/git/app.git
      because: git-lfs-authenticate ended with exit status 1
      | no LFS for you
    hint: check the path, and whether the key can read this repository
    hint: podstrap asks with git-lfs-authenticate; it does not support git-lfs-transfer (LFS over SSH alone)
    hint: set lfs.url in .lfsconfig to the https:// URL of an LFS server, or use --lfs off
    -- no JSON
    cannot find the Git LFS server of ssh://[USER]@[HOST][TMP]/git/app.git
      because: the answer of git-lfs-authenticate is no JSON of its API (line 1, column 1)
    hint: set lfs.url in .lfsconfig to the https:// URL of an LFS server, or use --lfs off
    -- another scheme
    cannot find the Git LFS server of ssh://[USER]@[HOST][TMP]/git/app.git
      because: the answer of git-lfs-authenticate has a URL with ftp: instead of https:
    hint: set lfs.url in .lfsconfig to the https:// URL of an LFS server, or use --lfs off
    ");
    world.lfs.require("RemoteAuth ssh-s3cret");
    let link = json!({
        "href": format!("{}/info/lfs", world.url()),
        "header": {"Authorization": "RemoteAuth ssh-s3cret"},
        "expires_in": 600,
    });
    answers(&format!("echo '{link}'"));
    let ran = world.works_with(&url, &[&auth]);
    assert_eq!(world.read("a.bin"), b"contents");
    assert!(!ran.raw.contains("s3cret"), "{}", ran.raw);
}

#[test]
fn a_dry_run_asks_for_the_contents_and_downloads_none() {
    let world = World::new();
    world.app(&[("a.bin", &noise(1, 500_000)), ("b.bin", &noise(2, 700_000))]);
    let ran = world.works(&["--dry-run", "--format=json"]);
    assert_eq!(world.requests(), (1, 0));
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["bytes"], 500_000 + 700_000 + ATTRIBUTES.len() + "1\n".len());
    assert!(!world.sandbox.root().join(".podstrap").exists());
    // The size and a missing object are known before.
    let error = world.fails(3, &["--dry-run", "--size-limit=1M"]);
    assert!(error.contains("Git LFS contents take"), "{error}");
    // A wheel decides the installation.
    let wheels = world.sandbox.path("wheels");
    let wheel = fs::read(crate::support::packages::wheel(&wheels, "alpha", "1.0", &[])).unwrap();
    let repo = Repo::new(&world.sandbox.path("git/app.git"));
    repo.file(".gitattributes", format!("{ATTRIBUTES}*.whl filter=lfs -text\n"));
    repo.file("requirements.txt", "./alpha-1.0-py3-none-any.whl\n");
    repo.file("alpha-1.0-py3-none-any.whl", world.lfs.add(&wheel)).commit("wheel");
    world.requests();
    let mut command = world.sandbox.podstrap();
    command.args(["init", "--dry-run", "--no-index", "--engine"]).arg(crate::support::index::uv());
    let ran = world.sandbox.run(command.arg("--repo").arg(world.url()));
    assert!(ran.code == Some(0) && ran.stdout.contains("  alpha  wheel"), "{} {}", ran.raw, ran.stdout);
    assert_eq!(world.requests(), (1, 1));
    repo.file("c.bin", pointer(b"nobody has it")).commit("two");
    let [dry, real] = [&["--dry-run"][..], &[]].map(|flags| world.fails(3, flags));
    assert_eq!(dry, real);
}
