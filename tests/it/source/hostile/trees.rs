//! Hostile names, modes, links and configuration in a repository.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use git2::{ObjectType, Odb, Oid};

use super::trial::{Make, Trial, blob, entry, tree, with_git};

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

#[test]
fn strange_names_and_modes_are_what_git_makes_of_them() {
    let mut cases: Vec<(String, Make)> = Vec::new();
    // Unusual names that are valid.
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
    // Unsorted, and names that differ only in case: valid on Linux.
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
        (
            "a link without a target",
            "cannot be created",
            Box::new(|odb| tree(odb, &[("120000", b"a", blob(odb, b""))])),
        ),
        (
            "a link to a name that is too long",
            "cannot be created",
            Box::new(|odb| tree(odb, &[("120000", b"a", blob(odb, &[b'x'; 5000]))])),
        ),
        ("a NUL in a link", "cannot be created", Box::new(|odb| tree(odb, &[("120000", b"a", blob(odb, b"x\0y"))]))),
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
            "is missing",
            Box::new(|odb| tree(odb, &[("100644", b"a", Oid::from_bytes(&[7; 20]).unwrap())])),
        ),
        (
            "a directory that is missing",
            "is missing",
            Box::new(|odb| tree(odb, &[("40000", b"a", Oid::from_bytes(&[7; 20]).unwrap())])),
        ),
        ("a tree that is missing", "is missing", Box::new(|_| Oid::from_bytes(&[7; 20]).unwrap())),
        ("a tree that is a blob", "because", Box::new(|odb| blob(odb, b"evil"))),
        (
            "a tree of junk",
            "because",
            Box::new(|odb| odb.write(ObjectType::Tree, b"100644 evil without an end").unwrap()),
        ),
        ("a mode of junk", "because", Box::new(|odb| tree(odb, &[("99x", b"a", blob(odb, b""))]))),
        (
            "podstrap's own name",
            "podstrap reserves this name",
            Box::new(|odb| tree(odb, &[("40000", b".podstrap", entry(odb, "40000"))])),
        ),
        (
            "podstrap's own name as a link",
            "podstrap reserves this name",
            Box::new(|odb| tree(odb, &[("120000", b".podstrap", entry(odb, "120000"))])),
        ),
        (
            "10,000 directories in each other",
            "paths longer than",
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
        ([&python[..], &["venv", "-r", "requirements.txt"]].concat(), 4, "requirements.txt points outside the tree"),
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

    // A link and a directory with the same name, in both orders, with both writers.
    for attributes in [&b""[..], b"* -crlf"] {
        for link_first in [true, false] {
            let trial = Trial::new();
            let victim = trial.sandbox.path("victim");
            let url = trial.repository(|odb| {
                let link = ("120000", &b"a"[..], blob(odb, victim.as_os_str().as_bytes()));
                let below = tree(odb, &[("100644", b"file", blob(odb, b"text"))]);
                let below = ("40000", &b"a"[..], below);
                let (one, two) = if link_first { (link, below) } else { (below, link) };
                tree(odb, &[("100644", b".gitattributes", blob(odb, attributes)), one, two])
            });
            // git and libgit2 keep one of the two; Trial checks that nothing leaves the volume.
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
            // podstrap needs the URL only if the path is the commit's submodule. Then it refuses the URL.
            let ran = trial.init(&repo, &["--ref", "evil", "--timeout", "2s"]);
            assert_eq!(ran.code, Some(if path == "module" { 3 } else { 0 }), "{}", ran.raw);
            let ran = trial.init(&repo, &["--ref", "evil", "--submodules", "off"]);
            assert_eq!(ran.code, Some(0), "{}", ran.raw);
            assert_eq!(trial.published(), with_git(&repo).unwrap());
            tried += 2;
        }
    }
    // Both writers: `crlf` selects libgit2's.
    for attributes in [
        "* filter=evil\n",
        "* filter=evil -crlf\n",
        "* filter=lfs diff=evil merge=evil\n",
        "[attr]evil -crlf\n* evil text eol=lf\n",
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
