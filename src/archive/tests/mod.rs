//! Compares archives of other tools with the files that these tools unpack, one by one.

mod made;
mod tar;
mod zip;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    for (format, compress) in [
        ("gnu", "gzip"),
        ("posix", "gzip"),
        ("gnu", "bzip2"),
        ("posix", "xz"),
        ("gnu", "xz --check=sha256 --x86 --lzma2=preset=9"),
        ("posix", "zstd"),
        ("gnu", "zstd -19 --long"),
        ("posix", "cat"),
        ("gnu", "cat"),
        ("oldgnu", "cat"),
    ] {
        for top in ["src", "./src", "-C src ."] {
            let bytes = dir.sh(&format!("tar cf plain --format={format} {top}; {compress} <plain"));
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

/// The cause without the hints.
fn cause(result: Result<Written>) -> String {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (crate::error::Kind::Source, None), "{error}");
    let text = error.to_string();
    let text = text.strip_prefix("error: cannot unpack a.tar\n  because: ").unwrap_or(&text);
    text.split("\nhint: ").next().unwrap().to_owned()
}
