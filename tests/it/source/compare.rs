//! Compares the published tree with git's own checkout, file by file: names, types, modes, contents and link
//! targets.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::git::{GitServer, Repo, git, listing};
use crate::support::sandbox::{Ran, Sandbox};

struct World {
    sandbox: Sandbox,
    server: GitServer,
    repo: Repo,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let repo = Repo::new(&sandbox.path("repos/app.git"));
        let server = GitServer::start(&sandbox.path("repos"));
        Self { sandbox, server, repo }
    }

    /// Lists podstrap's published tree, and returns its run.
    fn published(&self, args: &[&str]) -> (String, Ran) {
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--venv", "none", "--link", "app", "--log-level", "debug", "--repo"]);
        command.arg(self.server.url("app.git")).args(args).arg("--root").arg(self.sandbox.root());
        let ran = self.sandbox.run(&mut command);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        (listing(&self.sandbox.root().join("app").canonicalize().unwrap()), ran)
    }

    /// Lists git's own clone, with git's modes.
    fn cloned(&self) -> String {
        let mut shell = Command::new("sh");
        shell.envs(git(Path::new("/")).get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.args(["-euc", "umask 022; rm -rf clone; exec git clone --quiet -- \"$0\" clone"]);
        assert!(shell.arg(self.server.url("app.git")).current_dir(self.sandbox.path("")).status().unwrap().success());
        listing(&self.sandbox.path("clone"))
    }

    fn same(&self) -> Ran {
        self.same_but(|_| false)
    }

    /// Compares the listings, except for some lines, and shows only the lines that differ.
    fn same_but(&self, except: impl Fn(&str) -> bool) -> Ran {
        let (got, ran) = self.published(&[]);
        let rest = |text: &str| text.lines().filter(|line| !except(line)).map(str::to_owned).collect::<Vec<_>>();
        let (got, wanted) = (rest(&got), rest(&self.cloned()));
        let differ: Vec<_> = got.iter().zip(&wanted).filter(|(got, wanted)| got != wanted).take(9).collect();
        assert!(got == wanted, "{differ:#?}, {} and {} lines", got.len(), wanted.len());
        ran
    }
}

/// Creates a commit on main from a `git fast-import` stream.
fn import(repo: &Repo, stream: &[u8]) {
    let mut child = git(&repo.dir).args(["fast-import", "--quiet", "--force"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stream).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn twenty_thousand_files() {
    let world = World::new();
    let mut stream = "commit refs/heads/main\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\n".to_owned();
    for number in 0..20_000 {
        let mode = if number % 9 == 0 { "100755" } else { "100644" };
        let contents = format!("file {number}\n").repeat(number % 7);
        let (dir, sub) = (number % 101, number % 13);
        write!(stream, "M {mode} inline d{dir}/s{sub}/f{number}.py\ndata {}\n{contents}\n", contents.len()).unwrap();
        if number % 500 == 0 {
            write!(stream, "M 120000 inline links/l{number}\ndata 9\n../d0/s{sub:02}\n").unwrap();
        }
    }
    import(&world.repo, stream.as_bytes());
    let ran = world.same();
    assert!(ran.raw.contains("20040 files") || ran.raw.contains("20,040 files"), "{}", ran.raw);
}

#[test]
fn names_of_every_kind() {
    let world = World::new();
    let repo = &world.repo;
    for name in [
        "--help",
        "-rf",
        "-",
        "--",
        "-c core.pager=x",
        " leading",
        "trailing ",
        "two\nlines",
        "tab\there",
        "quo\"te",
        "apo'strophe",
        "back\\slash",
        "$HOME",
        "`id`",
        "*",
        "?",
        "[a]",
        "!x",
        "#x",
        "~",
        "~root",
        "%41",
        "a:b",
        "a|b",
        ".hidden",
        "...",
        "..a",
        "CON",
        "nul.txt",
        "COM1",
        "e\u{301}",
        "\u{e9}",
        "\u{202e}rtl",
        "\u{1f40d}",
        "\u{1}\u{7f}",
    ] {
        repo.file(name, name);
        repo.file(Path::new("dir").join(name).join(name), name);
    }
    for bytes in [&b"\xff"[..], b"na\xefve", b"\xc3", b"\xed\xa0\x80", b"a\xf0\x9f"] {
        repo.file(OsStr::from_bytes(bytes), bytes);
        repo.file(Path::new("dir").join(OsStr::from_bytes(bytes)).join("x"), bytes);
    }
    repo.file("n".repeat(255), "longest").file("d/".repeat(200) + "deep", "deep").file("case/README", "1");
    repo.file("case/readme", "2").executable("run me", "#!/bin/sh\n").file("crlf.txt", "a\r\nb\r\n");
    repo.link("dangling", "no/such").link("absolute", "/etc/passwd").link("to-directory", "dir").link("up", "../../..");
    repo.link("itself", "itself").link("bytes", OsStr::from_bytes(b"na\xefve")).link("spaces", " a  b ");
    repo.link("long", "l".repeat(4000));
    repo.commit("one");
    world.same();
}

#[test]
fn attributes_do_what_they_do_for_git() {
    let world = World::new();
    let repo = &world.repo;
    // Stores the texts unchanged.
    repo.git(["config", "core.autocrlf", "false"]);
    let texts: [(&str, &[u8]); 9] = [
        ("lf", b"one\ntwo\n"),
        ("crlf", b"one\r\ntwo\r\n"),
        ("mixed", b"one\r\ntwo\n"),
        ("cr", b"one\rtwo\nthree\n"),
        ("none", b"no end of a line"),
        ("nul", b"one\n\0two\n"),
        ("control", b"\x01\x02\x03\x04one\n"),
        ("utf16", b"\xff\xfeo\0n\0e\0\n\0"),
        ("id", b"$Id$\n$Id: old $\n"),
    ];
    let kinds = [
        "text",
        "-text",
        "text=auto",
        "eol=crlf",
        "eol=lf",
        "text eol=crlf",
        "text=auto eol=crlf",
        "-text eol=crlf",
        "crlf",
        "-crlf",
        "crlf=input",
        "-ident",
        "binary",
        "mine",
        "mine -text",
        "!eol",
        "filter=none",
        "export-ignore",
        "export-subst",
        "text eol=nonsense",
        "diff=python merge=union whitespace=fix",
    ];
    let mut top = "[attr]mine text eol=crlf\n# a comment\n\n\"quoted name.txt\" eol=crlf\n".to_owned();
    top.push_str(
        "/anchored.txt eol=crlf\ndir/**/deep.txt eol=crlf\n*.[ch] eol=crlf\nonly/ eol=crlf\nCase.TXT eol=crlf\n",
    );
    for (number, kind) in kinds.iter().enumerate() {
        writeln!(top, "*.k{number} {kind}").unwrap();
        for (name, text) in texts {
            repo.file(format!("{name}.k{number}"), text).file(format!("sub/{name}.k{number}"), text);
        }
    }
    for path in [
        "quoted name.txt",
        "anchored.txt",
        "sub/anchored.txt",
        "dir/deep.txt",
        "dir/a/b/deep.txt",
        "a.c",
        "sub/a.h",
        "only/a",
        "case.txt",
        "Case.TXT",
        "$Format:%H$.txt",
    ] {
        repo.file(path, "one\n$Format:%H$\n");
    }
    repo.file(".gitattributes", top);
    // Overrides, and a macro where Git ignores macros.
    repo.file(
        "sub/.gitattributes",
        "*.k3 -text\n*.k1 text eol=crlf\n[attr]theirs eol=crlf\n*.k18 theirs\n*.k13 !eol\n",
    );
    repo.file("linked/real", "* eol=crlf\n").file("linked/a.txt", "one\n").link("linked/.gitattributes", "real");
    repo.file("end/.gitattributes", "*.txt eol=crlf").file("end/a.txt", "one\n");
    repo.file("crlf/.gitattributes", "*.txt eol=crlf\r\n").file("crlf/a.txt", "one\n");
    // Stores all files unchanged, whatever the attributes say.
    let add =
        "find . -name .git -prune -o \\( -type f -o -type l \\) -print | sed 's/^..//' | while IFS= read -r path; do
        if [ -L \"$path\" ]; then mode=120000; id=$(readlink -n -- \"$path\" | git hash-object -w --stdin)
        else mode=100644; id=$(git hash-object -w --no-filters -- \"$path\"); fi
        printf '%s %s 0\\t%s\\n' $mode $id \"$path\"; done | git update-index --index-info";
    let mut shell = Command::new("sh");
    shell.envs(git(&repo.dir).get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(shell.args(["-euc", add]).current_dir(&repo.dir).status().unwrap().success());
    repo.git(["commit", "--quiet", "-m", "one"]);
    let ran = world.same_but(|line| line.contains("quoted name"));
    let words = "podstrap does not support patterns in quotes, and does not convert the files that they match: .gitattributes\n";
    assert!(ran.raw.contains(words), "{}", ran.raw);
}

#[test]
fn what_git_would_recode_is_named() {
    let world = World::new();
    let attributes = "[attr]wide text working-tree-encoding=UTF-16LE-BOM\n*.ps1 wide\n*.reg working-tree-encoding=UTF-16\n\
        *.u8 working-tree-encoding=UTF-8\n*.txt eol=crlf\n";
    world.repo.file("a.txt", "one\n").file("b.u8", "two\n").file("index.py", "").commit("before");
    world.repo.file(".gitattributes", attributes);
    let utf16: Vec<u8> = "\u{feff}caf\u{e9}\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    world.repo.file("run.ps1", &utf16).file("sub/x.reg", &utf16).commit("one");
    let (got, ran) = world.published(&[]);
    assert!(
        got.contains("\"run.ps1\" 644 \"caf\u{e9}\\n\"") || got.contains("\"run.ps1\" 644 \"caf\u{e9}\\r\\n\""),
        "{got}"
    );
    assert!(
        ran.raw.contains(
            "files with a working-tree-encoding are published in UTF-8, as Git stores them: run.ps1, sub/x.reg\n"
        ),
        "{}",
        ran.raw
    );
    // All other files equal git's.
    world.same_but(|line| line.contains("run.ps1") || line.contains("x.reg"));
}

#[test]
fn ids_stay_as_they_are_and_a_warning_names_the_attribute() {
    let world = World::new();
    world.repo.file("a.txt", "$Id$\n").file("sub/index.py", "").file("sub/.gitattributes", "*.c -ident\n");
    // With the plain writer and with libgit2's.
    for (attributes, text, flags) in [
        ("*.txt ident\n", r"$Id$\n", &[][..]),
        ("[attr]mine eol=crlf ident\n*.txt mine\n", r"$Id$\r\n", &["--keep-git"]),
    ] {
        world.repo.file(".gitattributes", attributes).commit("one");
        let (got, ran) = world.published(flags);
        assert!(got.contains(&format!("\"a.txt\" 644 \"{text}\"")), "{got}");
        let words = "podstrap does not support the Git attribute ident and leaves $Id$ unchanged: .gitattributes\n";
        assert_eq!(ran.raw.matches(words).count(), 1, "{}", ran.raw);
    }
    let git = world.sandbox.root().join("app/.git");
    assert!(git.join("config").exists() && !git.join("info/attributes").exists());
}

#[test]
fn ten_thousand_references() {
    let world = World::new();
    world.repo.file("index.py", "old\n").commit("old");
    let old = world.repo.rev("HEAD");
    world.repo.file("index.py", "new\n").commit("new");
    let new = world.repo.rev("HEAD");
    let mut updates = String::new();
    for number in 0..5_000 {
        writeln!(updates, "create refs/heads/feature/{number} {old}\ncreate refs/tags/v{number} {old}").unwrap();
    }
    writeln!(updates, "create refs/heads/wanted {new}").unwrap();
    let mut child = git(&world.repo.dir).args(["update-ref", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(updates.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    world.repo.git(["pack-refs", "--all"]);
    let (got, ran) = world.published(&["--ref", "wanted"]);
    assert!(got.contains("\"new\\n\""), "{got}");
    assert_eq!(world.server.seen(), ["POST /app.git/git-upload-pack"; 2], "{}", ran.raw);
    // A second run only asks for the commit.
    world.published(&["--ref", "wanted"]);
    assert_eq!(world.server.seen().len(), 3);
}
