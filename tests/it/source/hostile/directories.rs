//! Local directories, and a test of the tripwires.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use super::trial::{Trial, outside};
use crate::support::sandbox::Sandbox;

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
    // podstrap does not read a sparse file of a terabyte.
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

    // Deeper than the longest path.
    let deep = Sandbox::new();
    let python = "import os\nos.mkdir('app'); os.chdir('app')\nfor i in range(3000): os.mkdir('d'); os.chdir('d')";
    assert!(Command::new("python3").args(["-c", python]).current_dir(deep.path("")).status().unwrap().success());
    let trial = Trial::new();
    trial.refused(&deep.path("app").display().to_string(), &[], "cannot read");
    // The sandbox's own clean-up cannot remove a tree this deep.
    let remove = "import os\nos.chdir('app')\nfor i in range(2999): os.chdir('d')\nfor i in range(3000):\n os.chdir('..')\n try: os.rmdir('d')\n except OSError: pass";
    let _ = Command::new("python3").args(["-c", remove]).current_dir(deep.path("")).status();
    println!("directories: 3");
}

#[test]
fn the_tripwires_work() {
    let trial = Trial::new();
    let ran = Command::new(trial.sandbox.path("bin/git")).arg("x").env("PATH", "/usr/bin:/bin").status().unwrap();
    assert!(ran.success());
    assert!(std::fs::read_to_string(trial.sandbox.path("mark")).unwrap().contains("bin/git x"));
    assert_ne!(outside(&trial.sandbox), trial.before);
}
