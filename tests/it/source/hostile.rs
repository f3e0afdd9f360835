//! Repositories, servers and directories that mean harm. Each is tried with the binary in a sandbox
//! full of tripwires, and ends as git itself would end it, or with a documented exit code and words
//! that say why: soon, in little memory, with nothing outside the volume touched, no program
//! started, and nothing on stderr that a terminal or a log's reader could take for something else.
//!
//! The repositories are made of raw objects, because git refuses to make most of them.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use git2::{ObjectType, Odb, Oid, Repository};
use sha1::{Digest, Sha1};

use crate::support::git::{GitServer, git, listing};
use crate::support::http::Response;
use crate::support::sandbox::{Ran, Sandbox};

/// Longer than the slowest of them takes in a debug build on a busy machine.
const SOON: Duration = Duration::from_mins(1);
/// Address space for the binary, in KiB: its threads' stacks and arenas, and no bomb.
const MEMORY: u32 = 2 << 20;

/// A sandbox with tripwires.
struct Trial {
    sandbox: Sandbox,
    before: String,
}

impl Trial {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.write("victim/file", "untouched");
        // What git and libgit2 would read here, and what it would run.
        let evil = format!("{} #", sandbox.path("bin/git").display());
        let config = format!(
            "[filter \"evil\"]\n\tsmudge = {evil}\n\tprocess = {evil}\n\trequired = true\n[core]\n\thooksPath = {}\n\
             \tsshCommand = {evil}\n\tfsmonitor = {evil}\n[protocol]\n\tallow = always\n[submodule]\n\trecurse = true\n",
            sandbox.path("bin").display()
        );
        sandbox.write("home/.gitconfig", config);
        let script = format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\n", sandbox.path("mark").display());
        for program in ["git", "git-lfs", "ssh", "sh", "post-checkout", "evil"] {
            let path = sandbox.write(&format!("bin/{program}"), &script);
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let _ = (sandbox.root(), sandbox.podstrap());
        let before = outside(&sandbox);
        Self { sandbox, before }
    }

    /// A repository whose branch `evil` is a commit of the tree that `make` makes.
    fn repository(&self, make: impl FnOnce(&Odb<'_>) -> Oid) -> String {
        // Not below the sandbox, whose contents are compared.
        let dir = self.sandbox.root().join("lost+found/evil.git");
        let repo = Repository::init_bare(&dir).unwrap();
        let odb = repo.odb().unwrap();
        let tree = make(&odb);
        let commit = commit(&odb, tree);
        repo.reference("refs/heads/evil", commit, true, "").unwrap();
        format!("file://{}", dir.display())
    }

    fn init(&self, repo: &str, args: &[&str]) -> Ran {
        // The shell sets the limit and is gone.
        let binary = self.sandbox.podstrap();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")).arg(binary.get_program());
        command.env_clear().envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", self.sandbox.path("bin")).current_dir(self.sandbox.path(""));
        command.args(["init", "--repo", repo, "--link", "app", "--log-level", "debug", "--root"]);
        command.arg(self.sandbox.root()).args(args);
        for (flag, value) in [("--timeout", "30s"), ("--venv", "none")] {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        let started = Instant::now();
        let ran = self.sandbox.run(&mut command);
        assert!(started.elapsed() < SOON, "{:?}: {}", started.elapsed(), ran.raw);
        self.check(&ran);
        ran
    }

    /// What holds whatever happened.
    fn check(&self, ran: &Ran) {
        let mark = std::fs::read_to_string(self.sandbox.path("mark")).unwrap_or_default();
        assert_eq!(mark, "", "a program was started");
        assert_eq!(outside(&self.sandbox), self.before, "something outside the volume changed: {}", ran.raw);
        assert!(ran.raw.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "{:?}", ran.raw);
        assert!(!ran.raw.lines().any(|line| line.starts_with("hint: evil")), "{:?}", ran.raw);
        assert!(!ran.raw.contains("panicked"), "{}", ran.raw);
        assert_eq!(ran.stdout, "");
        let message = std::fs::read(self.sandbox.path("termination-log")).unwrap_or_default();
        assert!(message.len() <= 4096, "Kubernetes takes 4096 bytes");
        let published = self.sandbox.root().join("app");
        match ran.code {
            Some(0) => assert!(published.is_dir()),
            Some(2..=5) => {
                assert!(std::fs::symlink_metadata(&published).is_err(), "nothing is published");
                assert!(ran.raw.contains("error: "), "{}", ran.raw);
            }
            code => panic!("{code:?}: {}", ran.raw),
        }
    }

    fn published(&self) -> String {
        listing(&self.sandbox.root().join("app").canonicalize().unwrap())
    }

    /// Ends with exit code 3 and these words.
    fn refused(&self, repo: &str, args: &[&str], words: &str) {
        let ran = self.init(repo, args);
        assert_eq!(ran.code, Some(3), "{}", ran.raw);
        assert!(ran.raw.contains(words), "{words:?} is not in {}", ran.raw);
    }
}

/// All of the sandbox but the volume and the last words.
fn outside(sandbox: &Sandbox) -> String {
    let all = listing(&sandbox.path(""));
    let ours = |line: &&str| line.starts_with("\"volume/") || line.starts_with("\"termination-log");
    all.lines().filter(|line| !ours(line)).collect::<Vec<_>>().join("\n")
}

fn commit(odb: &Odb<'_>, tree: Oid) -> Oid {
    let text = format!("tree {tree}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nevil\n");
    odb.write(ObjectType::Commit, text.as_bytes()).unwrap()
}

fn blob(odb: &Odb<'_>, contents: &[u8]) -> Oid {
    odb.write(ObjectType::Blob, contents).unwrap()
}

/// A tree of these entries, in this order.
fn tree(odb: &Odb<'_>, entries: &[(&str, &[u8], Oid)]) -> Oid {
    odb.write(ObjectType::Tree, &tree_bytes(entries)).unwrap()
}

fn tree_bytes(entries: &[(&str, &[u8], Oid)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(mode, name, oid)| [mode.as_bytes(), b" ", *name, b"\0", oid.as_bytes()].concat())
        .collect()
}

/// One entry of this mode: a file and a link have `evil` in them, a directory a file `x`.
fn entry(odb: &Odb<'_>, mode: &str) -> Oid {
    let file = blob(odb, b"evil");
    if mode == "40000" { tree(odb, &[("100644", b"x", file)]) } else { file }
}

/// What git itself checks out, if it does.
fn with_git(url: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.envs(git(dir.path()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let script = "umask 022; exec git clone --quiet --branch evil -- \"$0\" tree";
    let done = shell.args(["-c", script, url]).current_dir(dir.path()).output().unwrap();
    done.status.success().then(|| listing(&dir.path().join("tree")))
}

#[test]
fn names_that_are_none_or_pose_as_gits_directory_are_refused_wherever_they_stand() {
    let names: [&[u8]; 27] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"../x",
        b"/etc/x",
        b"a/../../x",
        b".git/config",
        b".git",
        b".GIT",
        b".gIt",
        b"git~1",
        b"GIT~1",
        b".git.",
        b".git ",
        b".git. .",
        b".git::$INDEX_ALLOCATION",
        b".git:x",
        b".git\\config",
        b".g\xe2\x80\x8cit",
        b".git\xe2\x80\x8d",
        b"\xef\xbb\xbf.git",
        b".\xe2\x80\xaegit",
        b".G\xe2\x80\x8fIT",
        b".git\\",
        b".git...",
    ];
    let mut tried = 0;
    for name in names {
        for mode in ["100644", "40000", "120000"] {
            for nested in [false, true] {
                let trial = Trial::new();
                let url = trial.repository(|odb| {
                    let top = tree(odb, &[(mode, name, entry(odb, mode))]);
                    if nested { tree(odb, &[("40000", b"sub", top)]) } else { top }
                });
                let ran = trial.init(&url, &["--ref", "evil"]);
                assert_eq!(ran.code, Some(3), "{mode} {}: {}", name.escape_ascii(), ran.raw);
                tried += 1;
            }
        }
    }
    println!("hostile names: {tried}");
}

type Make = Box<dyn Fn(&Odb<'_>) -> Oid>;

#[test]
fn strange_names_and_modes_are_what_git_makes_of_them() {
    let mut cases: Vec<(String, Make)> = Vec::new();
    // Names that are unpleasant and good.
    let long = vec![b'n'; 255];
    let names: Vec<&[u8]> = vec![
        b"CON",
        b"aux.txt",
        b"NUL",
        b"COM1",
        b"con .",
        b"name.",
        b"name ",
        b"a:b",
        b"..\\x",
        b"a\\..\\..\\x",
        b"...",
        b"-rf",
        b"--upload-pack=evil",
        b"$(evil)",
        b"`evil`",
        b"a;evil",
        b"a\nhint: evil",
        b"\x1b[2J\x1b]0;evil\x07",
        b"\r\x08\x7f",
        b"na\xefve\xff",
        b"\xe2\x80\xaeevil",
        b"*",
        b"?",
        b"~",
        b"%n%s",
        b"{}",
        b".podstraP",
        b"index.lock",
        b".gitmodule",
        b"git",
        &long,
    ];
    for name in names {
        for mode in ["100644", "40000", "120000"] {
            let owned = name.to_owned();
            let make: Make = Box::new(move |odb| tree(odb, &[(mode, &owned, entry(odb, mode))]));
            cases.push((format!("{mode} {}", name.escape_ascii()), make));
        }
    }
    // Modes that git does not write.
    for mode in ["100664", "104755", "106777", "100000", "100111", "120777", "120000", "040000", "040755", "160000"] {
        let kind = if mode.starts_with("04") { "40000" } else { mode };
        let make: Make = Box::new(move |odb| tree(odb, &[(mode, b"entry", entry(odb, kind))]));
        cases.push((format!("mode {mode}"), make));
    }
    for mode in ["0", "060644", "020644", "010644", "140644"] {
        let make: Make = Box::new(move |odb| tree(odb, &[(mode, b"entry", entry(odb, "160000"))]));
        cases.push((format!("mode {mode}"), make));
    }
    // Unsorted, and alike but for case: good on Linux.
    cases.push((
        "wrong order".into(),
        Box::new(|odb| tree(odb, &[("100644", b"z", blob(odb, b"1")), ("100644", b"a", blob(odb, b"2"))])),
    ));
    cases.push((
        "case".into(),
        Box::new(|odb| {
            tree(
                odb,
                &[
                    ("100644", b"A", blob(odb, b"1")),
                    ("100644", b"a", blob(odb, b"2")),
                    ("40000", b"b", entry(odb, "40000")),
                ],
            )
        }),
    ));
    let tried = cases.len();
    let mut git_refuses = Vec::new();
    for (name, make) in cases {
        let trial = Trial::new();
        let url = trial.repository(make);
        let ran = trial.init(&url, &["--ref", "evil"]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.raw);
        match with_git(&url) {
            Some(git) => assert_eq!(trial.published(), git, "{name}"),
            None => git_refuses.push(name),
        }
    }
    println!("strange names and modes: {tried}; git itself fails on {}: {git_refuses:?}", git_refuses.len());
    assert!(git_refuses.len() < 20, "{git_refuses:?}");
}

#[test]
fn trees_that_cannot_be_files_are_refused() {
    let cases: Vec<(&str, &str, Make)> = vec![
        ("a name of 256 bytes", "too long", Box::new(|odb| tree(odb, &[("100644", &[b'n'; 256], blob(odb, b""))]))),
        ("a link without a target", "cannot be made", Box::new(|odb| tree(odb, &[("120000", b"a", blob(odb, b""))]))),
        (
            "a link to a name that is too long",
            "cannot be made",
            Box::new(|odb| tree(odb, &[("120000", b"a", blob(odb, &[b'x'; 5000]))])),
        ),
        ("a NUL in a link", "cannot be made", Box::new(|odb| tree(odb, &[("120000", b"a", blob(odb, b"x\0y"))]))),
        (
            "two files of one name",
            "two entries are named",
            Box::new(|odb| tree(odb, &[("100644", b"a", blob(odb, b"1")), ("100644", b"a", blob(odb, b"2"))])),
        ),
        (
            "a file and a directory of one name",
            "two entries are named",
            Box::new(|odb| tree(odb, &[("100644", b"a", blob(odb, b"1")), ("40000", b"a", entry(odb, "40000"))])),
        ),
        (
            "a file that is a directory",
            "not a file",
            Box::new(|odb| tree(odb, &[("100644", b"a", entry(odb, "40000"))])),
        ),
        ("a directory that is a file", "because", Box::new(|odb| tree(odb, &[("40000", b"a", blob(odb, b"evil"))]))),
        (
            "a file that is missing",
            "not found",
            Box::new(|odb| tree(odb, &[("100644", b"a", Oid::from_bytes(&[7; 20]).unwrap())])),
        ),
        (
            "a directory that is missing",
            "not found",
            Box::new(|odb| tree(odb, &[("40000", b"a", Oid::from_bytes(&[7; 20]).unwrap())])),
        ),
        ("a tree that is missing", "not found", Box::new(|_| Oid::from_bytes(&[7; 20]).unwrap())),
        ("a tree that is a blob", "because", Box::new(|odb| blob(odb, b"evil"))),
        (
            "a tree of junk",
            "because",
            Box::new(|odb| odb.write(ObjectType::Tree, b"100644 evil without an end").unwrap()),
        ),
        ("a mode of junk", "because", Box::new(|odb| tree(odb, &[("99x", b"a", blob(odb, b""))]))),
        (
            "podstrap's own name",
            "podstrap's own",
            Box::new(|odb| tree(odb, &[("40000", b".podstrap", entry(odb, "40000"))])),
        ),
        (
            "podstrap's own name as a link",
            "podstrap's own",
            Box::new(|odb| tree(odb, &[("120000", b".podstrap", entry(odb, "120000"))])),
        ),
        (
            "10,000 directories in each other",
            "paths that are longer",
            Box::new(|odb| (0..10_000).fold(entry(odb, "40000"), |inner, _| tree(odb, &[("40000", b"d", inner)]))),
        ),
    ];
    println!("trees that are none: {}", cases.len());
    for (name, words, make) in cases {
        let trial = Trial::new();
        let url = trial.repository(make);
        let ran = trial.init(&url, &["--ref", "evil"]);
        assert_eq!(ran.code, Some(3), "{name}: {}", ran.raw);
        assert!(ran.raw.contains(words), "{name}: {}", ran.raw);
    }
}

#[test]
fn links_are_published_and_nothing_is_written_or_read_through_them() {
    let trial = Trial::new();
    let victim = trial.sandbox.path("victim");
    let target = victim.as_os_str().as_bytes();
    let links = |odb: &Odb<'_>, attributes: &[u8]| {
        tree(
            odb,
            &[
                ("100644", b".gitattributes", blob(odb, attributes)),
                ("120000", b"out", blob(odb, target)),
                ("120000", b"requirements.txt", blob(odb, &[target, b"/file"].concat())),
                ("120000", b"self", blob(odb, b"self")),
                ("120000", b"up", blob(odb, b"../../../../../victim")),
            ],
        )
    };
    let url = trial.repository(|odb| links(odb, b""));
    let mut tried = 0;
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap().stdout;
    let python = String::from_utf8(python).unwrap();
    let python = ["--python", python.trim(), "--engine", "pip", "--venv"];
    for (args, code, words) in [
        ([&python[..], &["out/venv"]].concat(), 2, "out is a symbolic link in the repository"),
        ([&python[..], &["up/venv"]].concat(), 2, "up is a symbolic link in the repository"),
        ([&python[..], &["self/venv"]].concat(), 2, "self is a symbolic link in the repository"),
        ([&python[..], &["venv", "-r", "requirements.txt"]].concat(), 4, "requirements.txt leads out of the tree"),
        (vec!["--copy-self", "volume/app/out/podstrap"], 2, "out is a symbolic link in the repository"),
        (vec!["--copy-self", "volume/app/out"], 2, "the repository has an entry of that name"),
    ] {
        let ran = trial.init(&url, &[&["--ref", "evil"], &args[..]].concat());
        assert_eq!(ran.code, Some(code), "{}", ran.raw);
        assert!(ran.raw.contains(words), "{}", ran.raw);
        tried += 1;
    }
    let ran = trial.init(&url, &["--ref", "evil"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(trial.published(), with_git(&url).unwrap());
    tried += 1;

    // A link, and below its name a file, in both orders, by both writers.
    for attributes in [&b""[..], b"* ident"] {
        for link_first in [true, false] {
            let trial = Trial::new();
            let victim = trial.sandbox.path("victim");
            let url = trial.repository(|odb| {
                let link = ("120000", &b"a"[..], blob(odb, victim.as_os_str().as_bytes()));
                let below = tree(odb, &[("100644", b"file", blob(odb, b"$Id$ $Id$"))]);
                let below = ("40000", &b"a"[..], below);
                let (one, two) = if link_first { (link, below) } else { (below, link) };
                tree(odb, &[("100644", b".gitattributes", blob(odb, attributes)), one, two])
            });
            // git and libgit2 take one of the two; what counts is what Trial checks.
            trial.init(&url, &["--ref", "evil"]);
            tried += 1;
        }
    }
    println!("links: {tried}");
}

#[test]
fn nothing_that_a_repository_configures_is_fetched_or_run() {
    let mut tried = 0;
    let modules =
        ["ext::evil", "file:///etc", "-u./evil", "../../evil", "ssh://-oProxyCommand=evil/x", "https://127.0.0.1:1/x"];
    for url in modules {
        for path in ["module", "-u./x", "../module", ".git/modules", "/etc/module"] {
            let trial = Trial::new();
            let repo = trial.repository(|odb| {
                let text = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n\tupdate = !evil\n");
                let commit = Oid::from_bytes(&[9; 20]).unwrap();
                tree(odb, &[("100644", b".gitmodules", blob(odb, text.as_bytes())), ("160000", b"module", commit)])
            });
            // Only where the path is the commit's does the URL matter, and then it is refused.
            let ran = trial.init(&repo, &["--ref", "evil", "--timeout", "2s"]);
            assert_eq!(ran.code, Some(if path == "module" { 3 } else { 0 }), "{}", ran.raw);
            let ran = trial.init(&repo, &["--ref", "evil", "--submodules", "off"]);
            assert_eq!(ran.code, Some(0), "{}", ran.raw);
            assert_eq!(trial.published(), with_git(&repo).unwrap());
            tried += 2;
        }
    }
    // Both writers: `ident` calls for libgit2's.
    for attributes in [
        "* filter=evil\n",
        "* filter=evil ident\n",
        "* filter=lfs diff=evil merge=evil\n",
        "[attr]evil ident\n* evil text eol=lf\n",
    ] {
        let trial = Trial::new();
        let repo = trial.repository(|odb| {
            let hook = blob(odb, b"#!/bin/sh\nevil\n");
            let hooks = tree(odb, &[("100755", b"post-checkout", hook)]);
            tree(
                odb,
                &[
                    ("100644", b".gitattributes", blob(odb, attributes.as_bytes())),
                    ("100644", b"file", blob(odb, b"text\n")),
                    ("40000", b"hooks", hooks),
                ],
            )
        });
        let config = trial.sandbox.root().join("lost+found/evil.git/config");
        let mut file = std::fs::OpenOptions::new().append(true).open(config).unwrap();
        let evil = trial.sandbox.path("bin/evil");
        writeln!(
            file,
            "[filter \"evil\"]\nsmudge = {0}\nprocess = {0}\n[core]\nhooksPath = {0}\nsshCommand = {0}",
            evil.display()
        )
        .unwrap();
        let ran = trial.init(&repo, &["--ref", "evil"]);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert_eq!(trial.published(), with_git(&repo).unwrap());
        tried += 1;
    }
    println!("configurations: {tried}");
}

#[test]
fn bombs_are_known_by_their_headers() {
    // A hundred thousand million files out of eleven trees.
    let trial = Trial::new();
    let levels = |odb: &Odb<'_>, leaf: Oid, mode: &str| {
        let names: Vec<[u8; 1]> = (b'a'..=b'j').map(|name| [name]).collect();
        (0..11)
            .fold((mode.to_owned(), leaf), |(mode, oid), _| {
                let entries: Vec<_> = names.iter().map(|name| (mode.as_str(), &name[..], oid)).collect();
                ("40000".to_owned(), tree(odb, &entries))
            })
            .1
    };
    let url = trial.repository(|odb| levels(odb, blob(odb, b"boom"), "100644"));
    let started = Instant::now();
    trial.refused(&url, &["--ref", "evil"], "the files come to");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let ran = trial.init(&url, &["--ref", "evil"]);
    assert!(
        ran.raw.contains("and the limit is 34.4 GB\nhint: if that is what it should be, raise --size-limit"),
        "{}",
        ran.raw
    );

    // The same of links, of empty directories, and of submodules.
    for mode in ["120000", "160000", "40000"] {
        let trial = Trial::new();
        let url = trial.repository(|odb| {
            let leaf = if mode == "40000" { tree(odb, &[]) } else { blob(odb, b"boom") };
            levels(odb, leaf, mode)
        });
        trial.refused(&url, &["--ref", "evil"], "the files come to");
    }

    // One blob, a thousand times, and by libgit2's writer.
    for attributes in [&b""[..], b"* ident"] {
        let trial = Trial::new();
        let url = trial.repository(|odb| {
            let big = blob(odb, &vec![0; 1 << 20]);
            let names: Vec<String> = (0..1000).map(|i| format!("f{i:04}")).collect();
            let attributes = blob(odb, attributes);
            let mut entries = vec![("100644", &b".gitattributes"[..], attributes)];
            entries.extend(names.iter().map(|name| ("100644", name.as_bytes(), big)));
            tree(odb, &entries)
        });
        trial.refused(&url, &["--ref", "evil", "--size-limit", "500Mi"], "and the limit is 524.3 MB");
    }

    // An object that says it has 3 GB, and one that says less than it has.
    for (claim, words) in [("3000000000", "is held in memory"), ("2", "because")] {
        let trial = Trial::new();
        let fake = Oid::from_bytes(&[0xab; 20]).unwrap();
        let url = trial.repository(|odb| tree(odb, &[("100644", b"big", fake)]));
        let dir = trial.sandbox.root().join("lost+found/evil.git/objects/ab");
        std::fs::create_dir_all(&dir).unwrap();
        let object = zlib(&[format!("blob {claim}\0").as_bytes(), &[0; 100][..]].concat());
        std::fs::write(dir.join("ab".repeat(19)), object).unwrap();
        trial.refused(&url, &["--ref", "evil"], words);
    }

    // A directory that is in itself, without end.
    let trial = Trial::new();
    let fake = Oid::from_bytes(&[0xcd; 20]).unwrap();
    let url = trial.repository(|odb| tree(odb, &[("40000", b"in", fake)]));
    let dir = trial.sandbox.root().join("lost+found/evil.git/objects/cd");
    std::fs::create_dir_all(&dir).unwrap();
    let inside = tree_bytes(&[("40000", b"in", fake), ("40000", b"jn", fake)]);
    std::fs::write(dir.join("cd".repeat(19)), zlib(&[format!("tree {}\0", inside.len()).as_bytes(), &inside].concat()))
        .unwrap();
    trial.refused(&url, &["--ref", "evil"], "paths that are longer");
    println!("bombs: 9");
}

#[test]
fn the_limit_is_for_what_the_files_occupy() {
    let trial = Trial::new();
    // 2 small files, 1 link, 2 directories, and a file of 1221 blocks; much more than the scratch takes.
    let url = trial.repository(|odb| {
        let inner =
            tree(odb, &[("100644", b"empty", blob(odb, b"")), ("100644", b"two", blob(odb, &vec![1; 5_000_000]))]);
        tree(
            odb,
            &[("40000", b"dir", inner), ("100644", b"file", blob(odb, b"1")), ("120000", b"link", blob(odb, b"x"))],
        )
    });
    let blocks = 5 + 1221;
    let enough = (blocks * 4096).to_string();
    trial.refused(
        &url,
        &["--ref", "evil", "--size-limit", &(blocks * 4096 - 1).to_string()],
        "the files come to 5.1 MB or more",
    );
    let ran = trial.init(&url, &["--ref", "evil", "--size-limit", &enough]);
    assert!(!ran.raw.contains("the files come to"), "{}", ran.raw);
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A pack that says it has `count` objects, with whatever bytes behind.
fn pack(count: u32, objects: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
    pack.extend(objects.concat());
    let hash = Sha1::digest(&pack);
    pack.extend(hash);
    pack
}

/// One object of a pack: its type (gitformat-pack: 1 commit, 2 tree, 3 blob, 7 delta against `base`),
/// the size that it claims, and its data.
fn packed(kind: u8, size: u64, base: Option<Oid>, data: &[u8]) -> Vec<u8> {
    let (mut rest, mut byte) = (size >> 4, kind << 4 | low(size, 15));
    let mut out = Vec::new();
    while rest > 0 {
        out.push(byte | 0x80);
        (byte, rest) = (low(rest, 0x7f), rest >> 7);
    }
    out.push(byte);
    out.extend(base.iter().flat_map(|oid| oid.as_bytes().to_vec()));
    out.extend(zlib(data));
    out
}

/// The lowest bits.
fn low(number: u64, mask: u8) -> u8 {
    number.to_le_bytes()[0] & mask
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push(low(number, 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(low(number, 0x7f));
    out
}

fn packet(payload: &[u8]) -> Vec<u8> {
    [format!("{:04x}", payload.len() + 4).as_bytes(), payload].concat()
}

fn sideband(band: u8, bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(65_000).flat_map(|chunk| packet(&[&[band], chunk].concat())).collect()
}

fn advertisement(refs: &[(Oid, &[u8])]) -> Vec<u8> {
    let mut body = [packet(b"# service=git-upload-pack\n"), b"0000".to_vec()].concat();
    for (i, (oid, name)) in refs.iter().enumerate() {
        let capabilities = if i == 0 { "\0side-band-64k ofs-delta" } else { "" };
        body.extend(packet(&[oid.to_string().as_bytes(), b" ", name, capabilities.as_bytes(), b"\n"].concat()));
    }
    body.extend(b"0000");
    body
}

/// A server that advertises `evil` and answers any request for a pack with this body.
fn serves(tip: Oid, answer: Vec<u8>) -> GitServer {
    let server = GitServer::start(Path::new("/"));
    server.instead(move |request| {
        Some(if request.method == "GET" {
            Response::new(200, advertisement(&[(tip, b"refs/heads/evil")]))
                .header("Content-Type", "application/x-git-upload-pack-advertisement")
        } else {
            Response::new(200, answer.clone()).header("Content-Type", "application/x-git-upload-pack-result")
        })
    });
    server
}

fn answer(pack: &[u8]) -> Vec<u8> {
    [packet(b"NAK\n"), sideband(1, pack), b"0000".to_vec()].concat()
}

/// A commit with a tree of one file, as objects of a pack.
fn simple() -> (Oid, Vec<Vec<u8>>) {
    let file = b"hello\n";
    let entries = tree_bytes(&[("100644", b"file", Oid::hash_object(ObjectType::Blob, file).unwrap())]);
    let tree = Oid::hash_object(ObjectType::Tree, &entries).unwrap();
    let text = format!("tree {tree}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nevil\n");
    let commit = Oid::hash_object(ObjectType::Commit, text.as_bytes()).unwrap();
    let objects = vec![
        packed(1, text.len() as u64, None, text.as_bytes()),
        packed(2, entries.len() as u64, None, &entries),
        packed(3, file.len() as u64, None, file),
    ];
    (commit, objects)
}

#[test]
fn packs_that_are_damaged_lie_or_explode() {
    let (tip, objects) = simple();
    let good = pack(3, &objects);
    let trial = Trial::new();
    let ran = trial.init(&serves(tip, answer(&good)).url("x.git"), &["--ref", "evil"]);
    assert_eq!(ran.code, Some(0), "the good one: {}", ran.raw);
    let published = trial.published();

    let with = |count: u32, more: Vec<u8>| pack(count, &[objects.clone(), vec![more]].concat());
    let file = Oid::hash_object(ObjectType::Blob, b"hello\n").unwrap();
    // Copies the base's six bytes: 16 MB of result would take a base of that size (gitformat-pack).
    let delta = |result: u64, ops: &[u8]| {
        let data = [&varint(6)[..], &varint(result), ops].concat();
        packed(7, data.len() as u64, Some(file), &data)
    };
    let mut flipped = good.clone();
    flipped[30] ^= 0x55;
    let mut no_trailer = good.clone();
    no_trailer.truncate(good.len() - 20);
    let wrong_trailer = [&no_trailer[..], &[0; 20]].concat();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("bad zlib", answer(&flipped)),
        ("no trailer", answer(&no_trailer)),
        ("a wrong trailer", answer(&wrong_trailer)),
        ("no pack", answer(b"evil")),
        ("nothing", packet(b"NAK\n")),
        ("an empty body", Vec::new()),
        ("a pack of another version", answer(&[&b"PACK\0\0\0\x63"[..], &good[8..]].concat())),
        ("without what was asked for", answer(&pack(1, &objects[2..]))),
        ("a commit without its tree", answer(&pack(1, &objects[..1]))),
        ("an object of type 0", answer(&with(4, packed(0, 4, None, b"evil")))),
        ("an object of type 5", answer(&with(4, packed(5, 4, None, b"evil")))),
        ("more in it than it says", answer(&with(4, packed(3, 2, None, b"evil")))),
        ("less in it than it says", answer(&with(4, packed(3, 4_000_000_000, None, b"evil")))),
        ("a size of 2^63", answer(&with(4, packed(3, 1 << 63, None, b"evil")))),
        ("4 thousand million objects", answer(&pack(u32::MAX, &objects))),
        ("16 million objects", answer(&pack(1 << 24, &objects))),
        ("fewer objects than it says", answer(&pack(4, &objects))),
        ("the same object twice", answer(&with(4, objects[2].clone()))),
        ("a thin pack", answer(&with(4, packed(7, 4, Some(Oid::from_bytes(&[3; 20]).unwrap()), b"\x06\x06\x90\x06")))),
        ("a delta to 4 GB", answer(&with(4, delta(4 << 30, &[0x90, 6])))),
        ("a delta to 2^60", answer(&with(4, delta(1 << 60, &[0x90, 6])))),
        ("a delta beyond its base", answer(&with(4, delta(600, &[0xb1, 200, 88, 2])))),
        ("a delta with a reserved operation", answer(&with(4, delta(6, &[0])))),
        ("a delta cut short", answer(&with(4, delta(6, &[0x90])))),
        ("trailing garbage", answer(&[&good[..], b"evil".repeat(100).as_slice()].concat())),
        ("packets of a bad length", [packet(b"NAK\n"), b"0003".to_vec()].concat()),
        ("packets that are too long", [packet(b"NAK\n"), b"ffff".to_vec(), vec![1; 70_000]].concat()),
        ("packets with a sign", [packet(b"NAK\n"), b"-001".to_vec()].concat()),
        ("an unknown band", [packet(b"NAK\n"), sideband(7, &good), b"0000".to_vec()].concat()),
        (
            "endless shallow lines",
            [format!("0034shallow {}", "1".repeat(40)).repeat(1_400_000).into_bytes(), answer(&good)].concat(),
        ),
        (
            "70 MB of progress",
            [packet(b"NAK\n"), sideband(2, &vec![b'\r'; 70 << 20]), sideband(1, &good), b"0000".to_vec()].concat(),
        ),
        ("an error with control characters", packet(b"ERR \x1b]0;evil\x07\nhint: evil\r\n")),
        (
            "progress with control characters",
            [packet(b"NAK\n"), sideband(2, b"\x1b[2Jevil\nhint: evil\n\xff\n"), packet(b"\x03fatal \x1b[31m")].concat(),
        ),
    ];
    let (mut refused, tried) = (0, bodies.len());
    for (name, body) in bodies {
        let trial = Trial::new();
        // Damage may be repaired by another try: one is enough here.
        let ran = trial.init(&serves(tip, body).url("x.git"), &["--ref", "evil", "--timeout", "1s"]);
        if ran.code == Some(0) {
            // Something beside what was asked for is wrong, and nothing reads it.
            assert_eq!(trial.published(), published, "{name}");
        } else {
            assert_eq!(ran.code, Some(3), "{name}: {}", ran.raw);
            refused += 1;
        }
    }

    // More bytes than the limit are not taken in.
    let junk: Vec<u8> = (0..1_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let big = pack(4, &[objects.clone(), vec![packed(3, junk.len() as u64, None, &junk)]].concat());
    let trial = Trial::new();
    let server = serves(tip, answer(&big));
    trial.refused(
        &server.url("x.git"),
        &["--ref", "evil", "--size-limit", "1Mi"],
        "the pack alone comes to 1.1 MB or more, and the limit is 1.1 MB",
    );
    assert_eq!(server.seen().len(), 2, "no second try");
    println!("packs: {}, of which {} refused", tried + 2, refused + 1);
    assert!(refused >= 28, "{refused}");
}

#[test]
fn a_delta_bomb_takes_no_more_memory_than_one_object_may() {
    let (tip, objects) = simple();
    // A base of 16 MB of zeros, and a delta that copies it 64 times: 1 GB out of 20 kB.
    let base = vec![0; 0xff_ffff];
    let id = Oid::hash_object(ObjectType::Blob, &base).unwrap();
    let result = 64 * base.len() as u64;
    let data = [varint(base.len() as u64), varint(result), [0xf0, 0xff, 0xff, 0xff].repeat(64)].concat();
    let bomb = vec![packed(3, base.len() as u64, None, &base), packed(7, data.len() as u64, Some(id), &data)];
    let pack = pack(5, &[objects, bomb].concat());
    assert!(pack.len() < 100_000, "{}", pack.len());
    let trial = Trial::new();
    trial.refused(&serves(tip, answer(&pack)).url("x.git"), &["--ref", "evil"], "an object takes more than 536.9 MB");
}

#[test]
fn servers_that_mean_harm() {
    let (tip, objects) = simple();
    let good = answer(&pack(3, &objects));
    let listed =
        |body: Vec<u8>| Response::new(200, body).header("Content-Type", "application/x-git-upload-pack-advertisement");
    let long = [&b"refs/heads/"[..], &b"x".repeat(65_000)].concat();
    let many: Vec<u8> = {
        let line = packet(format!("{tip} refs/heads/{}\n", "y".repeat(200)).as_bytes());
        let start = advertisement(&[(tip, b"refs/heads/evil")]);
        [&start[..start.len() - 4], &line.repeat((70 << 20) / line.len())].concat()
    };
    let endless = many[..1 << 20].to_vec();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let location = |to: &str| Response::new(302, "").header("Location", to);
    let cases: Vec<(&str, Response, &str)> = vec![
        (
            "only names that no repository can have",
            listed(advertisement(&[
                (tip, b"refs/heads/../../x"),
                (tip, b"refs/heads/\x1b[2J"),
                (tip, b"refs/heads/a\nhint: evil"),
                (tip, &long),
            ])),
            "empty repository",
        ),
        ("a list that is too long", listed(many), "the list is longer than"),
        ("a list without an end", listed(endless), "breaks off"),
        ("a gzip bomb", listed(gzip(&vec![0; 70 << 20])).header("Content-Encoding", "gzip"), "the list is longer than"),
        ("gzip that is none", listed(b"evil".to_vec()).header("Content-Encoding", "gzip"), "because"),
        (
            "a gzip bomb as an error",
            Response::new(403, gzip(&vec![b'x'; 70 << 20])).header("Content-Encoding", "gzip"),
            "403",
        ),
        ("a length of packets that is none", listed(b"zzzz".to_vec()), "protocol"),
        ("a redirect to a file", location("file:///etc/passwd"), "that is not HTTP"),
        ("a redirect to a file that looks right", location("file:///etc/info/refs"), "that is not HTTP"),
        (
            "a redirect to the cloud's metadata",
            location("http://169.254.169.254/latest/meta-data/iam"),
            "that is no Git repository",
        ),
        ("a redirect to nowhere", location("http://[evil"), "the server redirects to"),
        ("a redirect with control characters", location("http://x/\u{9b}2J"), "because"),
        ("a redirect to itself", location("info/refs"), "more than 10 redirects"),
        ("an error with control characters", Response::new(403, "\u{1b}]0;evil\u{7}\r\nhint: evil\r\n"), "403"),
        ("a status that is none", Response::new(999, "evil"), "999"),
        ("a longer body than was promised", listed(b"0000".to_vec()).header("Content-Length", "5"), "because"),
        ("a shorter one", listed(b"0000".to_vec()).header("Content-Length", "2"), "because"),
        ("a header without an end", listed(Vec::new()).header("X-Evil", "x".repeat(1 << 20)), "because"),
    ];
    let tried = cases.len();
    for (name, response, words) in cases {
        let server = GitServer::start(Path::new("/"));
        server.always(response);
        let trial = Trial::new();
        let url = server.url_as("user:s3cret", "x.git");
        let ran = trial.init(&url, &["--ref", "nothing", "--timeout", "2s"]);
        assert_eq!(ran.code, Some(3), "{name}: {}", ran.raw);
        assert!(ran.raw.contains(words), "{name}: {}", ran.raw);
        assert!(!ran.raw.contains("s3cret"), "{name}: {}", ran.raw);
    }
    // A name that means harm beside a good one is as good as not there.
    let server = serves(tip, good);
    let trial = Trial::new();
    let ran = trial.init(&server.url("x.git"), &["--ref", "evil"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    println!("servers: {}", tried + 1);
}

#[test]
fn directories_that_mean_harm() {
    let trial = Trial::new();
    let from = trial.sandbox.root().join("lost+found/app");
    std::fs::create_dir_all(&from).unwrap();
    std::fs::write(from.join("file"), "1").unwrap();
    symlink(".", from.join("loop")).unwrap();
    symlink("loop/loop/loop", from.join("again")).unwrap();
    symlink(trial.sandbox.path("victim"), from.join("out")).unwrap();
    std::fs::write(from.join(OsStr::from_bytes(b"\x1b[2J\nhint: evil")), "").unwrap();
    assert!(Command::new("mkfifo").arg(from.join("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    // A file with a hole of a terabyte is not read.
    let sparse = from.join("sparse");
    let file = std::fs::File::create(&sparse).unwrap();
    let outside_root = Sandbox::new();
    file.set_len(1 << 40).unwrap();
    let source = outside_root.path("app");
    std::fs::rename(&from, &source).unwrap();
    let text = source.display().to_string();
    let started = Instant::now();
    trial.refused(&text, &["--size-limit", "1Gi"], "and the limit is 1.1 GB");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    std::fs::remove_file(source.join("sparse")).unwrap();
    let ran = trial.init(&text, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let copied = trial.published();
    assert!(copied.contains("\"loop\" -> \".\"") && !copied.contains("fifo") && !copied.contains("socket"), "{copied}");

    // Deeper than a path can say.
    let deep = Sandbox::new();
    let python = "import os\nos.mkdir('app'); os.chdir('app')\nfor i in range(3000): os.mkdir('d'); os.chdir('d')";
    assert!(Command::new("python3").args(["-c", python]).current_dir(deep.path("")).status().unwrap().success());
    let trial = Trial::new();
    trial.refused(&deep.path("app").display().to_string(), &[], "cannot read");
    // Its own clean-up would not get to the end of it.
    let remove = "import os\nos.chdir('app')\nfor i in range(2999): os.chdir('d')\nfor i in range(3000):\n os.chdir('..')\n try: os.rmdir('d')\n except OSError: pass";
    let _ = Command::new("python3").args(["-c", remove]).current_dir(deep.path("")).status();
    println!("directories: 3");
}

#[test]
fn a_pattern_of_attributes_cannot_hold_up_a_clone() {
    let trial = Trial::new();
    // A pattern that takes a matcher without memory exponential time, for libgit2's writer.
    let url = trial.repository(|odb| {
        let pattern = format!("{}b ident\n", "*a".repeat(60));
        let name = vec![b'a'; 200];
        tree(
            odb,
            &[("100644", b".gitattributes", blob(odb, pattern.as_bytes())), ("100644", &name, blob(odb, b"$Id$"))],
        )
    });
    let ran = trial.init(&url, &["--ref", "evil", "--timeout", "10s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(trial.published(), with_git(&url).unwrap());
}

#[test]
fn the_tripwires_work() {
    let trial = Trial::new();
    let ran = Command::new(trial.sandbox.path("bin/git")).arg("x").env("PATH", "/usr/bin:/bin").status().unwrap();
    assert!(ran.success());
    assert!(std::fs::read_to_string(trial.sandbox.path("mark")).unwrap().contains("bin/git x"));
    assert_ne!(outside(&trial.sandbox), trial.before);
}
