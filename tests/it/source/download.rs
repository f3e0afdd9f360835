//! Sources other than repositories: archives and single files from a web server, and local ones.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::support::http::{Request, Response, Server};
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::table::row;

/// A web server that answers every path with one body and records the requests.
struct Web {
    server: Server,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let asked = Arc::<Mutex<Vec<Request>>>::default();
        let seen = Arc::clone(&asked);
        let server = Server::start(move |request| {
            let response = answer(&request);
            seen.lock().unwrap().push(request);
            response
        });
        Self { server, asked }
    }
    fn gives(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::start(move |_| Response::new(200, body.clone()))
    }
    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.server.url())
    }
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn init(sandbox: &Sandbox, repo: &str, flags: &[&str]) -> Ran {
    let mut command = sandbox.podstrap();
    command.args(["init", "--venv=none", "--timeout=20s", "--repo", repo, "--root"]).arg(sandbox.root());
    sandbox.run(command.args(flags))
}

fn works(sandbox: &Sandbox, repo: &str, flags: &[&str]) -> Ran {
    let ran = init(sandbox, repo, flags);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    ran
}

fn error(sandbox: &Sandbox, repo: &str, flags: &[&str], code: i32) -> String {
    let ran = init(sandbox, repo, flags);
    assert_eq!(ran.code, Some(code), "{}", ran.raw);
    ran.error().to_owned()
}

fn read(sandbox: &Sandbox, path: &str) -> String {
    fs::read_to_string(sandbox.root().join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A gzip'd tar of `app-1.0/` with an app.
fn tarball(sandbox: &Sandbox, text: &str) -> Vec<u8> {
    packed(sandbox, text, "app.tar.gz")
}

/// The same under any name. tar itself makes it, and chooses the compression by the name.
fn packed(sandbox: &Sandbox, text: &str, name: &str) -> Vec<u8> {
    sandbox.write("made/app-1.0/index.py", text);
    sandbox.write("made/app-1.0/web/static/style.css", "body {}");
    let status = Command::new("tar")
        .args(["-caf", name, "--mtime=2020-01-02 03:04:05Z", "--sort=name", "-C", "made", "app-1.0"])
        .current_dir(sandbox.path(""))
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(sandbox.path(name)).unwrap()
}

/// The names of tars, by their compression.
const NAMES: [(&str, &[u8]); 9] = [
    ("a.tgz", b"\x1f\x8b"),
    ("a.tar", b"app-1.0/"),
    ("a.tar.bz2", b"BZh"),
    ("a.tbz2", b"BZh"),
    ("a.tar.xz", b"\xfd7zXZ"),
    ("a.txz", b"\xfd7zXZ"),
    ("a.tar.zst", b"\x28\xb5\x2f\xfd"),
    ("a.tzst", b"\x28\xb5\x2f\xfd"),
    ("A.TAR.XZ", b"app-1.0/"),
];

#[test]
fn the_contents_decide_how_to_unpack() {
    let sandbox = Sandbox::new();
    let check = |repo: &str, name: &str| {
        works(&sandbox, repo, &["--strip-components=1"]);
        assert_eq!(read(&sandbox, "index.py"), name, "{repo}");
        assert_eq!(read(&sandbox, "web/static/style.css"), "body {}", "{repo}");
    };
    for (name, first) in NAMES {
        let bytes = packed(&sandbox, name, name);
        assert!(bytes.starts_with(first), "tar made another format of {name}");
        let web = Web::gives(bytes.clone());
        // Without a pin, the name tells the archive from a repository.
        check(&web.url(name), name);
        let other = format!("other {name}");
        packed(&sandbox, &other, name);
        check(&format!("file://{}", sandbox.path(name).display()), &other);
        // With one, it needs no name, and another one does no harm.
        let web = Web::gives(packed(&sandbox, &format!("pinned {name}"), name));
        let digest = sha256(&fs::read(sandbox.path(name)).unwrap());
        for path in ["download?id=1", "", "app.tar.gz", "app.zip", "notes.txt", "app.7z"] {
            check(&format!("{}#sha256={digest}", web.url(path)), &format!("pinned {name}"));
        }
        // Locally, too.
        fs::rename(sandbox.path(name), sandbox.path("renamed.tar.gz")).unwrap();
        check(sandbox.path("renamed.tar.gz").to_str().unwrap(), &format!("pinned {name}"));
        // The file itself, on request.
        works(&sandbox, &web.url(name), &["--file=app.bin"]);
        assert_eq!(sha256(&fs::read(sandbox.root().join("app.bin")).unwrap()), digest);
    }
}

#[test]
fn an_archive_that_podstrap_does_not_unpack_is_no_single_file() {
    let sandbox = Sandbox::new();
    let compressed = |program: &str| {
        let path = sandbox.write("notes", "no tar\n");
        let output = Command::new(program).arg("-c").arg(path).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{program}");
        output.stdout
    };
    let mut told = String::new();
    for (name, bytes) in [
        ("notes.gz", compressed("gzip")),
        ("notes.bz2", compressed("bzip2")),
        ("notes.xz", compressed("xz")),
        ("notes.zst", compressed("zstd")),
        ("app.7z", b"7z\xbc\xaf\x27\x1c\0\x04".to_vec()),
        ("app.rar", b"Rar!\x1a\x07\x01\0".to_vec()),
        ("app.tar.lz", b"LZIP\x01".to_vec()),
        ("app.tar.Z", b"\x1f\x9d\x90".to_vec()),
        ("app.tar.lzma", b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0".to_vec()),
        ("app.tar.lz4", b"\x04\x22\x4d\x18".to_vec()),
        ("app.tar.lzo", b"\x89LZO\0\r\n\x1a\n".to_vec()),
        ("app.cpio", b"070701".to_vec()),
        ("app.tar.br", b"\x0b\x02\x80text\x03".to_vec()),
        ("app.tlz", b"neither".to_vec()),
    ] {
        let local = sandbox.path(name);
        fs::write(&local, &bytes).unwrap();
        let web = Web::gives(bytes.clone());
        let pinned = format!("{}#sha256={}", web.url(name), sha256(&bytes));
        let text = error(&sandbox, &pinned, &[], 3);
        let here = error(&sandbox, local.to_str().unwrap(), &[], 3);
        assert_eq!(here.replace("[TMP]", "http://[HOST]"), text);
        if !name.starts_with("notes") {
            // By its name alone, it is an archive.
            assert_eq!(error(&sandbox, &web.url(name), &[], 3), text);
        }
        told += &format!("-- {name}\n{text}\n");
        // The contents decide, also without a name.
        if name != "app.tar.br" && name != "app.tlz" {
            let unnamed = format!("{}#sha256={}", web.url("download?id=1"), sha256(&bytes));
            assert_eq!(error(&sandbox, &unnamed, &[], 3).replace("/download?***", &format!("/{name}")), text);
        }
        works(&sandbox, &pinned, &["--file=as-it-is"]);
        assert_eq!(fs::read(sandbox.root().join("as-it-is")).unwrap(), bytes, "{name}");
    }
    insta::assert_snapshot!(told, @r#"
    -- notes.gz
    cannot unpack http://[HOST]/notes.gz
      because: it is gzip-compressed, but does not contain a tar
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- notes.bz2
    cannot unpack http://[HOST]/notes.bz2
      because: it is bzip2-compressed, but does not contain a tar
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- notes.xz
    cannot unpack http://[HOST]/notes.xz
      because: it is xz-compressed, but does not contain a tar
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- notes.zst
    cannot unpack http://[HOST]/notes.zst
      because: it is zstd-compressed, but does not contain a tar
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.7z
    cannot unpack http://[HOST]/app.7z
      because: it is a 7z archive, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.rar
    cannot unpack http://[HOST]/app.rar
      because: it is a RAR archive, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tar.lz
    cannot unpack http://[HOST]/app.tar.lz
      because: it is compressed with lzip, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tar.Z
    cannot unpack http://[HOST]/app.tar.Z
      because: it is compressed with compress, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tar.lzma
    cannot unpack http://[HOST]/app.tar.lzma
      because: it is compressed with lzma, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tar.lz4
    cannot unpack http://[HOST]/app.tar.lz4
      because: it is compressed with lz4, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tar.lzo
    cannot unpack http://[HOST]/app.tar.lzo
      because: it is compressed with lzop, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.cpio
    cannot unpack http://[HOST]/app.cpio
      because: it is a cpio archive, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tar.br
    cannot unpack http://[HOST]/app.tar.br
      because: its name says that it is compressed with brotli, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    -- app.tlz
    cannot unpack http://[HOST]/app.tlz
      because: its name says that it is compressed with lzma, which podstrap does not unpack
    hint: give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with --file NAME
    "#);
}

#[test]
fn an_archive_becomes_the_tree() {
    let sandbox = Sandbox::new();
    let web = Web::gives(tarball(&sandbox, "one"));
    works(&sandbox, &web.url("app.tar.gz"), &[]);
    assert_eq!(read(&sandbox, "app-1.0/index.py"), "one");
    works(&sandbox, &web.url("app.tar.gz"), &["--strip-components=1"]);
    assert_eq!(read(&sandbox, "index.py"), "one");
    assert!(!sandbox.root().join("app-1.0").exists());
    let modified = fs::metadata(sandbox.root().join("index.py")).unwrap().modified().unwrap();
    assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245));
    works(&sandbox, &web.url("app.tar.gz"), &["--strip-components=1", "--subdir=web/static"]);
    assert_eq!(read(&sandbox, "style.css"), "body {}");
    assert!(!sandbox.root().join("index.py").exists());
    // The end of the URL does not show the format.
    let pinned =
        format!("{}#sha256={}", web.url("tarball/main"), sha256(&fs::read(sandbox.path("app.tar.gz")).unwrap()));
    works(&sandbox, &pinned, &["--strip-components=1"]);
    assert_eq!(read(&sandbox, "index.py"), "one");
}

#[test]
fn a_single_file_is_published_under_its_name() {
    let sandbox = Sandbox::new();
    let php = "<?php echo 'Adminer';";
    let web = Web::start(move |_| {
        Response::new(200, php)
            .header("Content-Type", "text/html")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    });
    works(&sandbox, &web.url("releases/adminer-4.7.2.php"), &["--file=adminer.php"]);
    assert_eq!(read(&sandbox, "adminer.php"), php);
    let meta = fs::metadata(sandbox.root().join("adminer.php")).unwrap();
    assert_eq!(meta.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
    let pinned = format!("{}#sha256={}", web.url("a%20b.php"), sha256(php.as_bytes()));
    // HTML may also be a login page.
    assert!(error(&sandbox, &pinned, &[], 3).contains("is not an archive"));
    let plain = Web::gives(php);
    works(&sandbox, &format!("{}#sha256={}", plain.url("a%20b.php"), sha256(php.as_bytes())), &[]);
    assert_eq!(read(&sandbox, "a b.php"), php);
}

#[test]
fn a_pinned_file_is_asked_for_once_and_must_be_the_one() {
    let sandbox = Sandbox::new();
    let body = tarball(&sandbox, "one");
    let web = Web::gives(body.clone());
    let url = format!("{}#sha256={}", web.url("app.tar.gz"), sha256(&body));
    works(&sandbox, &url, &[]);
    let ran = works(&sandbox, &url, &[]);
    assert!(ran.raw.contains("unchanged"), "{}", ran.raw);
    assert_eq!(web.asked(), 1);

    let other = format!("{}#sha256={}", web.url("app.tar.gz"), "0".repeat(64));
    let text = error(&sandbox, &other, &[], 3).replace(&sha256(&body), "[DIGEST]");
    insta::assert_snapshot!(text, @"
    cannot download http://[HOST]/app.tar.gz
      because: the file does not match its pin: its SHA-256 is [DIGEST], not 0000000000000000000000000000000000000000000000000000000000000000
    hint: if its publisher replaced it and you trust the new file, write the new digest after #sha256=
    ");
    assert_eq!(read(&sandbox, "app-1.0/index.py"), "one");
}

#[test]
fn an_unpinned_file_comes_again_only_when_it_changed() {
    let sandbox = Sandbox::new();
    let body = Arc::new(Mutex::new(("\"1\"", tarball(&sandbox, "one"))));
    let current = Arc::clone(&body);
    let web = Web::start(move |request| {
        let (tag, body) = current.lock().unwrap().clone();
        if request.headers.get("if-none-match").is_some_and(|known| known == tag) {
            return Response::new(304, "");
        }
        Response::new(200, body).header("ETag", tag)
    });
    let url = web.url("app.tar.gz");
    works(&sandbox, &url, &[]);
    let before = crate::support::git::listing(&sandbox.root());
    let ran = works(&sandbox, &url, &[]);
    assert!(ran.raw.contains("unchanged"), "{}", ran.raw);
    assert_eq!(crate::support::git::listing(&sandbox.root()), before);
    assert_eq!(web.asked(), 2);
    // podstrap needs the archive again, although the server has nothing new.
    works(&sandbox, &url, &["--strip-components=1"]);
    assert_eq!(read(&sandbox, "index.py"), "one");
    *body.lock().unwrap() = ("\"2\"", tarball(&sandbox, "two"));
    works(&sandbox, &url, &[]);
    assert_eq!(read(&sandbox, "app-1.0/index.py"), "two");

    // Without a validator podstrap compares the bytes.
    let web = Web::gives(tarball(&sandbox, "three"));
    works(&sandbox, &web.url("app.tar.gz"), &[]);
    let ran = works(&sandbox, &web.url("app.tar.gz"), &[]);
    assert!(ran.raw.contains("unchanged"), "{}", ran.raw);
    let staging = fs::read_dir(sandbox.root().join(".podstrap/staging")).unwrap();
    assert_eq!(staging.count(), 0);
}

#[test]
fn redirects_are_followed_and_take_no_credentials_along() {
    let sandbox = Sandbox::new();
    let body = tarball(&sandbox, "one");
    let store = Web::gives(body);
    let target = store.url("signed/file?signature=s3cretsignature");
    let web = Web::start(move |_| Response::new(302, "").header("Location", target.clone()));
    let token = sandbox.write("token", "s3cret");
    let flags = [&*format!("--auth={}", token.display()), "--log-level=debug"];
    let ran = works(&sandbox, &web.url("app.tar.gz"), &flags);
    assert!(!ran.raw.contains("s3cret"), "{}", ran.raw);
    assert_eq!(web.asked.lock().unwrap()[0].authorization(), Some("Bearer s3cret"));
    assert_eq!(store.asked.lock().unwrap()[0].authorization(), None);
}

#[test]
fn a_body_that_breaks_off_is_tried_again_and_one_that_is_packed_stays_so() {
    let sandbox = Sandbox::new();
    let body = tarball(&sandbox, "one");
    let (length, first) = (body.len(), Mutex::new(true));
    let digest = sha256(&body);
    let web = Web::start(move |_| {
        let broken = std::mem::take(&mut *first.lock().unwrap());
        let sent = if broken { body[..length / 2].to_vec() } else { body.clone() };
        // Some servers send a tarball with this header.
        Response::new(200, sent).header("Content-Length", length.to_string()).header("Content-Encoding", "gzip")
    });
    works(&sandbox, &format!("{}#sha256={digest}", web.url("app.tar.gz")), &[]);
    assert_eq!((read(&sandbox, "app-1.0/index.py").as_str(), web.asked()), ("one", 2));
}

#[test]
fn what_is_no_archive_says_so() {
    let sandbox = Sandbox::new();
    let page = Response::new(200, "<html>Log in</html>").header("Content-Type", "text/html; charset=utf-8");
    let archive = || Response::new(200, tarball(&sandbox, "x"));
    let bytes = packed(&sandbox, "x", "a.tar.xz");
    let cut = || Response::new(200, &bytes[..bytes.len() - 20]);
    let rows = [
        ("a web page", page, "app.tar.gz", &[][..]),
        ("plain text", Response::new(200, "plain text"), "app.zip", &[]),
        ("cut off", cut(), "app.tar.xz", &[]),
        ("nothing there", Response::new(404, "Not Found: no such release\n"), "app.zip", &[]),
        ("an archive without that directory", archive(), "a.tgz", &["--subdir=app-1.0/none"]),
        ("a file in it", archive(), "a.tgz", &["--subdir=app-1.0/index.py"]),
        ("no repository", archive(), "app", &[]),
        ("too large", Response::new(200, vec![b'x'; 3 << 20]), "big", &["--file=big", "--size-limit=1Mi"]),
    ];
    let mut told = String::new();
    for (name, answer, path, flags) in rows {
        told += &row(name, || {
            let web = Web::start(move |_| answer.clone());
            let text = error(&sandbox, &web.url(path), flags, 3);
            assert_eq!(fs::read_dir(sandbox.root().join(".podstrap/staging")).unwrap().count(), 0);
            text
        });
    }
    insta::assert_snapshot!(told, @r#"
    -- a web page
    http://[HOST]/app.tar.gz is not an archive
      because: the server answers with a web page
    hint: check the URL and whether it requires a login, or publish the file itself with --file NAME
    -- plain text
    http://[HOST]/app.zip is not an archive
      because: it does not start like a tar, a tar compressed with gzip, bzip2, xz or zstd, or a zip
    hint: check the URL and whether it requires a login, or publish the file itself with --file NAME
    -- cut off
    cannot unpack http://[HOST]/app.tar.xz
      because: "app-1.0/web/static/style.css" is damaged or incomplete
      because: in this entry or after it: unexpected end of the compressed data
    hint: compare the size and the checksum of the archive with the original's
    -- nothing there
    cannot download http://[HOST]/app.zip
      because: http://[HOST]/app.zip answers 404 Not Found
      | Not Found: no such release
    hint: check the path in the URL; if the file is private: mount a Secret with username and password, or a file with a token, and give its path with --auth
    -- an archive without that directory
    http://[HOST]/a.tgz: --subdir app-1.0/none: there is no app-1.0/none
    hint: give a path relative to the repository's top; app-1.0 has index.py, web
    -- a file in it
    http://[HOST]/a.tgz: --subdir app-1.0/index.py: app-1.0/index.py is a file
    -- no repository
    cannot list the references of http://[HOST]/app
      because: http://[HOST]/app is not a Git repository over HTTP: it answers with no content type
    hint: give the address for git clone, which often ends with .git
    hint: add --file NAME or #sha256=… to download a file or an archive
    -- too large
    cannot download http://[HOST]/big
      because: the file has 3.2 MB or more, and the limit is 1.1 MB
    hint: if this size is correct, raise --size-limit and the size of the volume
    "#);
}

#[test]
fn local_archives_and_files_are_sources_too() {
    let sandbox = Sandbox::new();
    tarball(&sandbox, "one");
    let archive = sandbox.path("app.tar.gz");
    works(&sandbox, archive.to_str().unwrap(), &["--strip-components=1"]);
    assert_eq!(read(&sandbox, "index.py"), "one");
    works(&sandbox, &format!("file://{}", archive.display()), &["--strip-components=1", "--subdir=web"]);
    assert_eq!(read(&sandbox, "static/style.css"), "body {}");
    let mut file = fs::File::create(sandbox.path("wsgi.py")).unwrap();
    file.write_all(b"application = 1\n").unwrap();
    works(&sandbox, sandbox.path("wsgi.py").to_str().unwrap(), &[]);
    assert_eq!(read(&sandbox, "wsgi.py"), "application = 1\n");
    works(&sandbox, sandbox.path("made").to_str().unwrap(), &["--subdir=app-1.0/web"]);
    assert_eq!(read(&sandbox, "static/style.css"), "body {}");
    std::os::unix::fs::symlink("/etc", sandbox.path("made/out")).unwrap();
    insta::assert_snapshot!(error(&sandbox, sandbox.path("made").to_str().unwrap(), &["--subdir=out"], 3), @"[TMP]/made: --subdir out: out is a symbolic link");
    insta::assert_snapshot!(error(&sandbox, sandbox.path("made").to_str().unwrap(), &["--file=x"], 2), @"
    [TMP]/made is neither an archive nor a file
    hint: remove --strip-components and --file: they are only for archives and files
    ");
}

#[test]
fn pointers_of_git_lfs_are_no_files_wherever_they_come_from() {
    let sandbox = Sandbox::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    sandbox.write("made/app-1.0/models/a.bin", pointer);
    let web = Web::gives(tarball(&sandbox, "one"));
    let single = Web::gives(pointer);
    let made = sandbox.path("made");
    for (repo, flags) in [
        (web.url("app.tar.gz"), &[][..]),
        (single.url("a.bin"), &["--file=a.bin"]),
        (made.display().to_string(), &["--subdir=app-1.0"]),
    ] {
        let text = error(&sandbox, &repo, flags, 3);
        assert!(text.contains("1 file is only a Git LFS pointer") && text.contains("a.bin"), "{text}");
        works(&sandbox, &repo, &[flags, &["--lfs=off"]].concat());
    }
}

#[test]
fn a_single_file_without_a_date_has_the_same_one_in_every_replica() {
    let modified = |body: &'static str| {
        let sandbox = Sandbox::new();
        works(&sandbox, &Web::gives(body).url("a"), &["--file=a"]);
        fs::metadata(sandbox.root().join("a")).unwrap().modified().unwrap()
    };
    assert_eq!(modified("one"), modified("one"));
    assert_ne!(modified("one"), modified("two"));
}
