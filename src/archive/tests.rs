//! Compares archives of other tools with what these tools unpack, file by file. Also archives that are made to
//! attack, built here byte by byte.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use ::tar::{EntryType, Header};

use super::*;
use crate::retry::Deadline;
use crate::size::Size;

const LIMIT: Size = Size(64 << 20);

fn rules(limit: Duration) -> Rules {
    Rules { strip: 0, forbidden: Some(".podstrap"), limit: LIMIT, deadline: Deadline::after(limit) }
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("podstrap-archive-{name}-{}", std::process::id()));
        let _ = crate::tree::remove(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn unpack(&self, bytes: &[u8], strip: usize) -> Result<Written> {
        self.unpack_within(bytes, strip, LIMIT)
    }
    /// Unpacks to a new `tree`.
    fn unpack_within(&self, bytes: &[u8], strip: usize, limit: Size) -> Result<Written> {
        let (file, tree) = (self.path("archive"), self.path("tree"));
        fs::write(&file, bytes).unwrap();
        if tree.exists() {
            crate::tree::remove(&tree).unwrap();
        }
        unpack(&file, &tree, "a.tar", Rules { strip, limit, ..rules(Duration::from_mins(1)) })
    }
    /// Runs a program in the directory, in the time zone of the archive's times.
    fn run(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let output = Command::new(program)
            .args(args)
            .current_dir(&self.0)
            .env("TZ", "UTC")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
    fn sh(&self, script: &str) -> Vec<u8> {
        self.run("sh", &["-euc", script])
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = crate::tree::remove(&self.0);
    }
}

/// Each path below, with its kind, the execute bit of its owner, its time and its contents.
fn listing(tree: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in crate::walk::walk(tree) {
        let entry = entry.unwrap();
        let (meta, path) = (entry.metadata().unwrap(), entry.path);
        let what = if meta.is_dir() {
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {:?}", fs::read_link(&path).unwrap())
        } else {
            let contents = fs::read(&path).unwrap();
            format!("{} {}", meta.mode() & 0o100 != 0, contents.escape_ascii())
        };
        lines.push(format!("{:?} {} {what}", path.strip_prefix(tree).unwrap(), meta.mtime()));
    }
    lines.sort();
    lines
}

/// Makes a tree of everything that an archive of an app may contain.
const MAKE: &str = r#"
    mkdir -p src/pkg/deep/er src/empty src/'with space' "src/-rf"
    printf 'print(1)\n' >src/pkg/main.py
    printf '#!/bin/sh\n' >src/run; chmod 755 src/run
    chmod 4711 src/run
    printf x >src/pkg/deep/er/x; chmod 600 src/pkg/deep/er/x
    printf '' >src/nothing
    printf q >"src/-rf/--help"
    printf s >"src/with space/a \"quoted\" 'name'"
    printf u >src/na$(printf '\303\257')ve
    head -c 100000 /dev/urandom >src/random
    long=$(printf '%0120d' 7); mkdir -p "src/$long"; printf l >"src/$long/$long.txt"
    ln -s pkg/main.py src/link
    ln -s /nowhere src/dangling
    ln -s "$long/$long.txt" src/long-link
    ln -s pkg src/to-directory
    find src -exec touch -h -d '2020-02-03 04:05:06 UTC' {} +
    touch -d '2021-02-03 04:05:06 UTC' src/pkg/main.py src/pkg
"#;

#[test]
fn what_tar_packs_is_what_tar_unpacks() {
    let dir = Dir::new("tar");
    dir.sh(MAKE);
    dir.sh(r#"printf n >"src/$(printf 'new\nline')"; printf b >"src/$(printf 'byte\377')"; printf b >'src/back\slash'
        ln src/nothing src/hard; touch -d '2020-02-03 04:05:06 UTC' src; touch -d '1960-01-01 UTC' src/nothing"#);
    for (format, compress) in [("gnu", "gzip"), ("posix", "gzip"), ("posix", "cat"), ("gnu", "cat"), ("oldgnu", "cat")]
    {
        for top in ["src", "./src", "-C src ."] {
            let bytes = dir.sh(&format!("tar cf - --format={format} {top} | {compress}"));
            for strip in [0, 1, 2] {
                dir.sh("chmod -R u+rwX want 2>/dev/null || true; rm -rf want; mkdir want");
                fs::write(dir.path("packed"), &bytes).unwrap();
                dir.sh(&format!(
                    "tar xf packed -C want --strip-components={strip}; touch -d '2020-02-03 04:05:06 UTC' want"
                ));
                let done = dir.unpack(&bytes, strip).unwrap_or_else(|error| panic!("{format} {top} {strip}: {error}"));
                let (mut got, mut want) = (listing(&dir.path("tree")), listing(&dir.path("want")));
                // A time before 1970 becomes 1970.
                for line in &mut want {
                    *line = line.replace(" -315619200 ", " 0 ");
                }
                // The time of the top is that of the archive, if it has one, otherwise the newest in it.
                got.remove(0);
                want.remove(0);
                assert_eq!(got, want, "{format} {compress} {top} {strip}");
                assert_eq!(done.files, got.iter().filter(|line| !line.ends_with(" directory")).count() as u64);
            }
        }
    }
}

#[test]
fn what_git_archives_is_what_it_has() {
    let dir = Dir::new("git");
    dir.sh(MAKE);
    dir.sh("cd src; git init -q .; git add -A; git -c user.name=a -c user.email=a@b commit -q -m x
        mkdir ../want; git archive --format=tar HEAD | tar xf - -C ../want");
    for (format, prefix, strip) in [("tar", "", 0), ("tar.gz", "app-1/", 1), ("zip", "app-1/", 1), ("zip", "", 0)] {
        let bytes = dir.sh(&format!("cd src; git archive --format={format} --prefix={prefix} HEAD"));
        dir.unpack(&bytes, strip).unwrap();
        let (mut got, mut want) = (listing(&dir.path("tree")), listing(&dir.path("want")));
        got.remove(0);
        want.remove(0);
        assert_eq!(got, want, "{format}");
    }
}

/// An archive of Python's zipfile: made on Unix, with the times of DOS; a mode marks links.
const ZIP: &str = r"
import os, sys, zipfile
with zipfile.ZipFile('packed.zip', 'w', zipfile.ZIP_DEFLATED) as packed:
    for at, directories, files in os.walk('src'):
        packed.write(at)
        for name in files + [name for name in directories if os.path.islink(os.path.join(at, name))]:
            path = os.path.join(at, name)
            if os.path.islink(path):
                info = zipfile.ZipInfo(path, (2020, 2, 3, 4, 5, 6))
                info.create_system, info.external_attr = 3, 0o120777 << 16
                packed.writestr(info, os.readlink(path))
            else:
                packed.write(path, compress_type=zipfile.ZIP_STORED if name == 'random' else None)
";

#[test]
fn what_python_and_zip_pack_is_what_unzip_unpacks() {
    let dir = Dir::new("zip");
    dir.sh(MAKE);
    dir.run("python3", &["-c", ZIP]);
    let has = |program: &str| {
        let found = Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        if !found {
            eprintln!("skipped a part: {program} is missing");
        }
        found
    };
    let mut archives = vec!["packed.zip"];
    if has("zip") {
        dir.sh("zip -qry zipped.zip src");
        archives.push("zipped.zip");
    }
    for archive in archives {
        let bytes = fs::read(dir.path(archive)).unwrap();
        dir.unpack(&bytes, 0).unwrap();
        let got = listing(&dir.path("tree"));
        // The original itself, except the times of links and the top of the tree.
        dir.sh("rm -rf want; mkdir want; cp -a src want/src");
        assert_eq!(got[1..], listing(&dir.path("want"))[1..], "{archive}");
        if has("unzip") {
            dir.sh(&format!("rm -rf want; unzip -q {archive} -d want; find want -type l -exec touch -h -d '2020-02-03 04:05:06 UTC' {{}} +"));
            assert_eq!(got[1..], listing(&dir.path("want"))[1..], "{archive}");
        }
    }
}

/// A tar of raw headers.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, name: &[u8], link: &[u8], contents: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, name: &str, contents: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", contents.as_bytes())
    }
    fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), target.as_bytes(), b"")
    }
    fn directory(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), b"", b"")
    }
    fn hard(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name.as_bytes(), to.as_bytes(), b"")
    }
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.records(b'x', records)
    }
    fn records(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (keyword, value) in records {
            let rest = keyword.len() + value.len() + 3;
            let length = (1..9).map(|digits| digits + rest).find(|length| length.to_string().len() + rest == *length);
            bytes.extend(format!("{} {keyword}=", length.unwrap()).into_bytes());
            bytes.extend(*value);
            bytes.push(b'\n');
        }
        self.entry(kind, b"records", b"", &bytes)
    }
    fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// The cause without the hints.
fn cause(result: Result<Written>) -> String {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (crate::error::Kind::Source, None), "{error}");
    let text = error.to_string();
    let text = text.strip_prefix("error: cannot unpack a.tar\n  because: ").unwrap_or(&text);
    text.split("\nhint: ").next().unwrap().to_owned()
}

#[test]
fn tars_that_mean_harm_are_refused_by_name_and_write_nothing_elsewhere() {
    let dir = Dir::new("hostile-tar");
    let outside = dir.path("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let tar = Tar::default;
    let file = |name: &str| tar().file(name, "x");
    for (archive, words) in [
        (file("/etc/passwd"), r#""/etc/passwd" has an absolute name"#),
        (file("../outside/x"), r#""../outside/x" has `..` in its name"#),
        (file("a/../../outside/x"), "has `..` in its name"),
        (file("a/.."), "has `..` in its name"),
        (tar().directory(".."), "has `..` in its name"),
        (file(""), r#""" has an empty name"#),
        (file("."), r#""." is the name of the archive's top"#),
        (tar().link("./", "x"), "is the name of the archive's top"),
        (tar().pax(&[("path", b"a\0b")]).file("x", ""), r#""a\0b" has a NUL in its name"#),
        (tar().entry(b'L', b"", b"", b"a\0b\0").file("x", ""), r#""a\0b" has a NUL in its name"#),
        (tar().pax(&[("path", b"/abs")]).file("x", ""), r#""/abs" has an absolute name"#),
        (tar().pax(&[("path", &[b'a'; 5000])]).file("x", ""), "has a name that is too long"),
        (tar().pax(&[("path", &[b'a'; 300])]).file("x", ""), "cannot be created: File name too long"),
        (tar().link("a", out).file("a/x", "x"), r#""a/x" needs the directory "a", which is a symbolic link"#),
        (tar().link("a", out).directory("a/b"), r#"needs the directory "a", which is a symbolic link"#),
        (tar().link("a", out).directory("a"), r#""a" needs the directory "a", which is a symbolic link"#),
        (tar().link("a", out).file("./a//x", "x"), r#"needs the directory "a""#),
        (tar().link("a", out).link("a/b", "c"), r#""a/b" needs the directory "a""#),
        (tar().link("a", out).hard("b", "a/x"), r#""b" is a hard link to "a/x", which is not an earlier file"#),
        (tar().link("a", out).file("a", "x"), r#""a" appears twice"#),
        (file("a").link("a", out), r#""a" appears twice"#),
        (tar().directory("a").link("a", out), r#""a" appears twice"#),
        (file("a/x").link("a", out), r#""a" appears twice"#),
        (file("a").file("a", "y"), r#""a" appears twice"#),
        (file("a").file("./a", "y"), r#""./a" appears twice"#),
        (tar().directory("a").file("a", ""), r#""a" appears twice"#),
        (file("a").directory("a"), r#""a" needs the directory "a", which is a file"#),
        (file("a").file("a/b", ""), r#""a/b" needs the directory "a", which is a file"#),
        (tar().hard("a", "/etc/passwd"), r#""a" has an absolute name"#),
        (tar().hard("a", "../outside"), r#""a" has `..` in its name"#),
        (tar().hard("a", "b").file("b", ""), r#""a" is a hard link to "b", which is not an earlier file"#),
        (tar().directory("b").hard("a", "b"), r#"is a hard link to "b", which is not an earlier file"#),
        (tar().link("b", "/etc/passwd").hard("a", "b"), r#"is a hard link to "b", which is not an earlier file"#),
        (tar().hard("a", "."), r#"is a hard link to ".", which is not an earlier file"#),
        (file("a").hard("a", "a"), r#""a" appears twice"#),
        (tar().link("a", ""), r#""a" is a symbolic link to "", which is not a path"#),
        (tar().pax(&[("linkpath", &[b'l'; 4096])]).link("a", "b"), "which is not a path"),
        (tar().entry(b'3', b"dev", b"", b""), r#""dev" is a device"#),
        (tar().entry(b'4', b"dev", b"", b""), r#""dev" is a device"#),
        (tar().entry(b'6', b"pipe", b"", b""), r#""pipe" is a named pipe"#),
        (tar().entry(b'V', b"label", b"", b""), r#""label" has a type that podstrap does not support ('V')"#),
        (tar().entry(b'S', b"holes", b"", b""), r#""holes" is a sparse file"#),
        (tar().pax(&[("GNU.sparse.major", b"1")]).file("holes", "x"), r#""holes" is a sparse file"#),
        (tar().entry(b'5', b"d", b"", b"x"), r#""d" is a directory or a link, and has contents"#),
        (tar().entry(b'2', b"l", b"t", b"x"), r#""l" is a directory or a link, and has contents"#),
        (tar().entry(b'0', b"d/", b"", b"x"), r#""d/" is a directory or a link, and has contents"#),
        (tar().pax(&[("size", b"x")]).file("a", ""), "invalid pax records"),
        (tar().entry(b'x', b"", b"", b"7 a=b").file("a", ""), "invalid pax records"),
        (tar().entry(b'x', b"", b"", b"99 a=b\n").file("a", ""), "invalid pax records"),
        (tar().pax(&[("path", b"a")]), "the entry for the last header is missing"),
        (tar().pax(&[("size", b"1000000")]).file("a", "x"), r#""a" is damaged or incomplete"#),
        (tar().pax(&[("size", b"18446744073709551615")]).file("a", "x"), "the files take"),
    ] {
        let bytes = archive.done();
        for packed in [gzip(&bytes), bytes] {
            let text = cause(dir.unpack(&packed, 0));
            assert!(text.contains(words), "wanted {words}, got {text}");
            assert!(fs::read_dir(&outside).unwrap().next().is_none(), "{words}");
        }
    }
    let text = dir.unpack(&file(".podstrap/x").done(), 0).unwrap_err().to_string();
    assert!(text.contains("a.tar has an entry .podstrap at its top level"), "{text}");
    dir.unpack(&file("a/.podstrap").done(), 0).unwrap();
    let text = dir.unpack(&file("a/.podstrap").done(), 1).unwrap_err().to_string();
    assert!(text.contains("a.tar has an entry .podstrap"), "{text}");
}

#[test]
fn what_is_cut_off_or_changed_is_no_archive() {
    let dir = Dir::new("damaged");
    let whole = Tar::default().file("a", &"x".repeat(3000)).file("b", "y").done();
    // Without both of its blocks of zeros: podstrap does not require the second one.
    for length in 1..whole.len() - 1023 {
        if length % 97 == 0 || length % 512 == 0 {
            cause(dir.unpack(&whole[..length], 0));
        }
    }
    let packed = gzip(&whole);
    for length in 0..packed.len() {
        cause(dir.unpack(&packed[..length], 0));
    }
    for at in 10..packed.len() {
        let mut changed = packed.clone();
        changed[at] ^= 1;
        // A change may lead to the same contents, which nothing can detect.
        if !dir.unpack(&changed, 0).is_ok_and(|done| done == Written { files: 2, bytes: 3001 }) {
            cause(dir.unpack(&changed, 0));
        }
    }
    let mut changed = whole.clone();
    changed[512 * 7] ^= 1;
    assert_eq!(
        cause(dir.unpack(&changed, 0)),
        "\"a\" is damaged or incomplete\n  because: in this entry or after it: invalid header at byte 3584: \
         wrong checksum"
    );
    for rest in [&[0; 4000][..], b"garbage", b"\x1fgarbage", &packed] {
        let mut longer = packed.clone();
        longer.extend(rest);
        assert_eq!(dir.unpack(&longer, 0).unwrap(), Written { files: 2, bytes: 3001 });
    }
    // Two members are one stream.
    let (one, other) = whole.split_at(700);
    dir.unpack(&[gzip(one), gzip(other)].concat(), 0).unwrap();
}

#[test]
fn what_is_no_archive_says_what_it_is() {
    let dir = Dir::new("unknown");
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"hello", "it does not start like a gzip-compressed tar, a tar or a zip"),
        (&[0; 10240], "it does not start like a gzip-compressed tar, a tar or a zip"),
        (b"\xfd7zXZ\0\0\x04", "it is xz-compressed"),
        (b"BZh91AY", "it is bzip2-compressed"),
        (b"\n <!DOCTYPE html>", "it is a page of HTML or XML"),
        (&gzip(b"hello"), "it is gzip-compressed, but does not contain a tar"),
        (&gzip(&[b'x'; 2000]), "it is gzip-compressed, but does not contain a tar"),
        (&gzip(&[0; 1024]), "it has no entries"),
        (b"PK\x03\x04 and no more", "it is damaged or incomplete"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "it has no entries"),
    ] {
        let text = cause(dir.unpack(bytes, 0));
        assert!(text.contains(words), "wanted {words}, got {text}");
        assert_eq!(is_archive(bytes), bytes.starts_with(b"PK") || bytes.starts_with(b"\x1f"), "{words}");
    }
    assert!(is_archive(&Tar::default().file("a", "x").done()[..FIRST]));
}

#[test]
fn a_bomb_is_stopped_before_it_is_written() {
    let dir = Dir::new("bomb");
    let zeros = vec![0; 8 << 20];
    let limit = Size(1 << 20);
    for bytes in [
        gzip(&Tar::default().entry(b'0', b"zeros", b"", &zeros).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), "")).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.directory(&format!("d{number}"))).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.link(&format!("l{number}"), "x")).done()),
        gzip(
            &(0..9)
                .fold(Tar::default().file("f", &"x".repeat(200_000)), |tar, n| tar.hard(&format!("h{n}"), "f"))
                .done(),
        ),
        gzip(&Tar::default().pax(&[("path", "d/".repeat(1500).as_bytes())]).directory("x").done()),
        zip(&[Member::new(b"zeros", &zeros)]),
    ] {
        let text = cause(dir.unpack_within(&bytes, 0, limit));
        assert!(text.contains("the files take") && text.contains("the limit is 1.1 MB"), "{text}");
        let size = dir.run("du", &["-s", "--apparent-size", "--block-size=1", "tree"]);
        let size: u64 = String::from_utf8(size).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(size <= limit.0 * 2, "{size}");
    }
    // Records that podstrap would have to hold in memory.
    let text = cause(dir.unpack(&gzip(&Tar::default().entry(b'L', b"", b"", &zeros).done()), 0));
    assert!(text.contains("8388608 bytes of records for one entry"), "{text}");
    let late = unpack(&dir.path("archive"), &dir.path("late"), "it", rules(Duration::ZERO));
    assert!(late.unwrap_err().to_string().contains("not done after"));
}

#[test]
fn names_and_times_of_tar_are_read_as_they_are_meant() {
    let dir = Dir::new("names");
    let bytes = Tar::default()
        .records(b'g', &[("comment", b"0123456789")])
        .pax(&[("path", b"new\nline/\xff"), ("mtime", b"1500000000.75"), ("SCHILY.xattr.x", b"\n\0 7 a=b\n")])
        .file("wrong", "pax")
        .entry(b'L', b"././@LongLink", b"", &[&[b'n'; 150][..], b"\0"].concat())
        .entry(b'K', b"././@LongLink", b"", &[&[b't'; 150][..], b"\0"].concat())
        .link("wrong", "wrong")
        .pax(&[("mtime", b"-5")])
        .directory("old/")
        .entry(b'\0', b"v7/", b"", b"")
        .pax(&[("mtime", b"99999999999999")])
        .file("//late"[2..].as_ref(), "")
        .entry(b'7', b"a//./b", b"", b"contiguous")
        .done();
    dir.unpack(&bytes, 0).unwrap();
    let (n, t) = ("n".repeat(150), "t".repeat(150));
    assert_eq!(
        listing(&dir.path("tree")),
        [
            "\"\" 2147483647 directory".to_owned(),
            "\"a\" 2147483647 directory".to_owned(),
            "\"a/b\" 1600000000 false contiguous".to_owned(),
            "\"late\" 2147483647 false ".to_owned(),
            "\"new\\nline\" 2147483647 directory".to_owned(),
            "\"new\\nline/\\xFF\" 1500000000 false pax".to_owned(),
            format!("\"{n}\" 1600000000 -> \"{t}\""),
            "\"old\" 0 directory".to_owned(),
            "\"v7\" 1600000000 directory".to_owned(),
        ]
    );
    // A size in a record, for files larger than a header can declare.
    let mut bytes = Tar::default().pax(&[("size", b"3")]).0;
    bytes.extend(Tar::default().file("f", "").0);
    bytes.extend(b"abc");
    bytes.resize(bytes.len() + 509 + 1024, 0);
    assert_eq!(dir.unpack(&bytes, 0).unwrap(), Written { files: 1, bytes: 3 });
}

#[test]
fn stripping_all_of_it_is_an_error() {
    let dir = Dir::new("strip");
    let bytes =
        Tar::default().directory("app").file("app/a", "x").file("app/b/c", "y").hard("app/b/d", "app/b/c").done();
    assert_eq!(dir.unpack(&bytes, 0).unwrap().files, 3);
    assert_eq!(dir.unpack(&bytes, 1).unwrap().files, 3);
    assert_eq!(dir.unpack(&bytes, 2).unwrap().files, 2);
    let error = dir.unpack(&bytes, 3).unwrap_err().to_string();
    assert_eq!(
        error,
        "error: cannot unpack a.tar\n  because: --strip-components 3 removes all of it\nhint: give a smaller \
         number: its names have fewer parts"
    );
}

#[test]
fn one_directory_around_everything_is_noticed() {
    let dir = Dir::new("top");
    let tar = Tar::default;
    for (number, (archive, wanted)) in [
        (tar().directory("app").file("app/a", "").link("app/b", "a"), Some(("app", 0))),
        (tar().directory("./").file("./app/a", ""), Some(("app", 1))),
        (tar().directory("app"), Some(("app", 0))),
        (tar().file("app/a", "").file("b", ""), None),
        (tar().file("b", "").file("app/a", ""), None),
        (tar().file("app", ""), None),
        (tar().file("app/a", "").file("./app/b", ""), None),
    ]
    .into_iter()
    .enumerate()
    {
        let tree = dir.path(&number.to_string());
        let mut unpacker = Unpacker::new("it", &tree, rules(Duration::from_mins(1)));
        unpacker.begin().unwrap();
        super::tar::unpack(&archive.done()[..], &mut unpacker).unwrap();
        let top = unpacker.only_directory().map(|(name, at)| (std::str::from_utf8(name).unwrap(), at));
        assert_eq!(top, wanted, "{number}");
    }
}

/// An entry of a zip, as its headers describe it.
#[derive(Clone)]
struct Member<'a> {
    name: &'a [u8],
    contents: &'a [u8],
    system: u8,
    mode: u32,
    flags: u16,
    /// The declared size, if it is another one.
    size: Option<u32>,
    crc: u32,
    method: u16,
    extra: &'a [u8],
}

impl<'a> Member<'a> {
    fn new(name: &'a [u8], contents: &'a [u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(contents);
        let (system, mode) = (3, 0o100_644);
        Self { name, contents, system, mode, flags: 0, size: None, crc: crc.sum(), method: 8, extra: b"" }
    }
    fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
    fn dos(self) -> Self {
        Self { system: 0, ..self }
    }
}

fn zip(members: &[Member<'_>]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(member.contents).unwrap();
        let packed = if member.method == 0 { member.contents.to_owned() } else { packed.finish().unwrap() };
        let mut common = Vec::new();
        // 2020-02-03 04:05:06.
        for word in [20, member.flags, member.method, 4 << 11 | 5 << 5 | 3, 40 << 9 | 2 << 5 | 3] {
            common.extend(word.to_le_bytes());
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        for number in [member.crc, length(&packed), member.size.unwrap_or(length(member.contents))] {
            common.extend(number.to_le_bytes());
        }
        let at = length(&bytes);
        for number in [length(member.name), length(member.extra)] {
            common.extend(u16::try_from(number).unwrap().to_le_bytes());
        }
        bytes.extend([&b"PK\x03\x04"[..], &common, member.name, member.extra, &packed].concat());
        directory.extend([&b"PK\x01\x02"[..], &[20, member.system], &common, &[0; 6]].concat());
        directory.extend((member.mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend([member.name, member.extra].concat());
    }
    let (start, count) = (u32::try_from(bytes.len()).unwrap(), u16::try_from(members.len()).unwrap().to_le_bytes());
    let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
    bytes.extend(directory);
    bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &length, &start.to_le_bytes(), &[0, 0]].concat());
    bytes
}

#[test]
fn zips_that_mean_harm_are_refused_by_name() {
    let dir = Dir::new("hostile-zip");
    let file = |name: &'static [u8]| Member::new(name, b"contents");
    let overlap = {
        let mut bytes = zip(&[file(b"one"), file(b"two")]);
        // The second entry's local header is the first one's.
        let at = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        bytes[at + 42..at + 46].fill(0);
        bytes
    };
    for (bytes, words) in [
        (zip(&[file(b"/etc/passwd")]), r#""/etc/passwd" has an absolute name"#),
        (zip(&[file(b"../x")]), r#""../x" has `..` in its name"#),
        (zip(&[file(b"..\\x").dos()]), r#""../x" has `..` in its name"#),
        (zip(&[file(b"\\x").dos()]), r#""/x" has an absolute name"#),
        (zip(&[file(b"")]), r#""" has an empty name"#),
        (zip(&[file(b"a\0b")]), r#""a\0b" has a NUL in its name"#),
        (zip(&[file(b"b"), file(b"a"), file(b"c"), file(b"a")]), r#""a" appears twice"#),
        (zip(&[file(b"a"), file(b"a")]), r#""a" appears twice"#),
        (zip(&[file(b"a"), file(b"./a")]), r#""./a" appears twice"#),
        (
            zip(&[file(b"a").mode(0o120_777), file(b"a/x")]),
            r#""a/x" needs the directory "a", which is a symbolic link"#,
        ),
        (zip(&[file(b"a").mode(0o010_644)]), r#""a" is not a file, directory or symbolic link (mode 10644)"#),
        (zip(&[file(b"a").mode(0o020_644)]), "is not a file, directory or symbolic link"),
        (zip(&[file(b"a/").mode(0o120_777)]), r#""a/" is a directory, and has contents"#),
        (zip(&[Member::new(b"a/", b"").mode(0o120_777)]), r#""a/" is not a file, directory or symbolic link"#),
        (zip(&[Member::new(b"a", b"").mode(0o120_777)]), r#""a" is a symbolic link to "", which is not a path"#),
        (zip(&[Member::new(b"a", &[b'x'; 5000]).mode(0o120_777)]), "which is not a path"),
        (zip(&[Member { flags: 1, ..file(b"a") }]), r#""a" is encrypted"#),
        (zip(&[Member { crc: 7, ..file(b"a") }]), "\"a\" is damaged or incomplete\n  because: Invalid checksum"),
        (zip(&[Member { size: Some(2), ..file(b"a") }]), r#""a" is damaged or incomplete"#),
        (zip(&[Member { size: Some(200), ..file(b"a") }]), "192 bytes of its contents are missing"),
        (zip(&[Member { size: Some(u32::MAX - 1), ..file(b"a") }]), "the files take 4."),
        (zip(&[Member { method: 12, ..file(b"a") }]), r#""a" is damaged or incomplete"#),
        (overlap, "the contents of two entries overlap"),
    ] {
        let text = cause(dir.unpack(&bytes, 0));
        assert!(text.contains(words), "wanted {words}, got {text}");
    }
    let whole = zip(&[file(b"a"), file(b"b")]);
    for length in 1..whole.len() {
        cause(dir.unpack(&whole[..length], 0));
    }
    let text = dir.unpack(&zip(&[file(b".podstrap/x")]), 0).unwrap_err().to_string();
    assert!(text.contains("a.tar has an entry .podstrap at its top level"), "{text}");
}

#[test]
fn names_modes_and_times_of_zip_are_read_as_they_are_meant() {
    let dir = Dir::new("zip-names");
    let bytes = zip(&[
        Member::new(b"unix-\xff", b"bytes"),
        Member::new(b"caf\x82", b"cp437").dos(),
        Member::new("na\u{ef}ve".as_bytes(), b"utf-8").dos(),
        Member::new(b"one\\two", b"unix"),
        Member::new(b"dos\\two", b"dos").dos(),
        Member::new(b"both/t\\o", b"dos").dos(),
        Member::new(b"run", b"x").mode(0o104_755),
        Member::new(b"link", b"/nowhere").mode(0o120_777),
        Member::new(b"empty/", b"").mode(0o040_700),
        Member::new(b"no-slash", b"").mode(0o040_700),
        Member { method: 0, ..Member::new(b"stored", b"as it is") },
        Member { extra: b"UT\x05\0\x01\0\0\0\x50", ..Member::new(b"extended", b"") },
        Member { extra: b"UT\x05\0\x01\0\0\0\x80", ..Member::new(b"before-1970", b"") },
    ]);
    dir.unpack(&bytes, 0).unwrap();
    let dos = 1_580_702_706;
    let newest = dos;
    assert_eq!(
        listing(&dir.path("tree")),
        [
            format!("\"\" {newest} directory"),
            "\"before-1970\" 0 false ".to_owned(),
            format!("\"both\" {newest} directory"),
            format!("\"both/t\\\\o\" {dos} false dos"),
            format!("\"caf\u{e9}\" {dos} false cp437"),
            format!("\"dos\" {newest} directory"),
            format!("\"dos/two\" {dos} false dos"),
            format!("\"empty\" {dos} directory"),
            "\"extended\" 1342177280 false ".to_owned(),
            format!("\"link\" {dos} -> \"/nowhere\""),
            format!("\"na\u{ef}ve\" {dos} false utf-8"),
            format!("\"no-slash\" {dos} directory"),
            format!("\"one\\\\two\" {dos} false unix"),
            format!("\"run\" {dos} true x"),
            format!("\"stored\" {dos} false as it is"),
            format!("\"unix-\\xFF\" {dos} false bytes"),
        ]
    );
}
