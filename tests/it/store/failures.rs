//! Whatever is wrong with a store, there is one warning, and the environment is built.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Bench, warnings};
use crate::support::namespaces::namespaced;
use crate::support::strace::{injected, works};

/// Runs it, and asserts that it warns once and builds.
pub(super) fn warns(bench: &Bench, command: &mut Command, why: &str) {
    let ran = bench.builds(command);
    let warnings = warnings(&ran);
    assert!(warnings.len() == 1 && warnings[0].contains(why), "{why}: {}", ran.raw);
    assert!(warnings[0].ends_with("continuing without the store"), "{}", ran.raw);
}

/// Changes a manifest.
fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

type Damage = fn(&Bench, &Path, &Path);

#[test]
fn the_size_limit_of_a_reader_is_no_damage() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "first"));
    let ran = bench.app.sandbox.run(bench.init("uv", "second").args(["--size-limit", "200k"]));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("--size-limit is 200.0 kB"), "{}", ran.raw);
    bench.restores(&mut bench.init("uv", "third"));
}

#[test]
fn a_damaged_entry_is_replaced() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "first"));
    let damages: [(&str, Damage, &str); 9] = [
        ("a truncated archive", |_, _, archive| truncate(archive, 1000), "it has 1000 bytes instead of"),
        ("an empty one", |_, _, archive| truncate(archive, 0), "it has 0 bytes"),
        ("a flipped bit", |_, _, archive| flip(archive, 5000), "the archive is damaged"),
        ("one at the end", |_, _, archive| flip(archive, usize::MAX), "the archive is damaged"),
        ("no archive", |_, _, archive| fs::remove_file(archive).unwrap(), "it is missing"),
        ("a truncated manifest", |_, manifest, _| truncate(manifest, 200), "the manifest is damaged"),
        (
            "another size",
            |_, manifest, _| edit(manifest, |value| value["archive"]["occupied_bytes"] = 9000.into()),
            "the limit is 9.0 kB",
        ),
        ("another key", |_, manifest, _| edit(manifest, |value| value["key"] = "x".into()), "another environment"),
        (
            "the archive of another environment",
            |bench, manifest, archive| {
                // Both a good manifest and a good archive, but not of this key.
                fs::remove_file(archive).unwrap();
                let own = fs::read(manifest).unwrap();
                bench.builds(&mut bench.init_of("new", "uv", "other"));
                let other = bench.files(".json").into_iter().find(|file| file != manifest).unwrap();
                let value: Value = serde_json::from_slice(&fs::read(&other).unwrap()).unwrap();
                fs::write(manifest, own).unwrap();
                edit(manifest, |own| own["archive"] = value["archive"].clone());
                edit(manifest, |own| own["environment"] = value["environment"].clone());
            },
            "not for these inputs",
        ),
    ];
    for (number, (what, damage, why)) in damages.into_iter().enumerate() {
        let manifest = bench.files(".json").remove(0);
        let archive = bench.files(".tar.zst").remove(0);
        damage(&bench, &manifest, &archive);
        println!("{what}");
        warns(&bench, &mut bench.init("uv", &format!("damaged-{number}")), why);
        bench.restores(&mut bench.init("uv", &format!("repaired-{number}")));
    }
}

fn truncate(file: &Path, length: u64) {
    fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

pub(super) fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 4;
    fs::write(file, bytes).unwrap();
}

#[test]
fn every_flipped_bit_is_found() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "first"));
    let mut rng = fastrand::Rng::with_seed(crate::support::volume::seed());
    let verify = || {
        let mut command = bench.app.sandbox.podstrap();
        bench.app.sandbox.run(command.args(["store", "verify"]).arg(&bench.store))
    };
    assert_eq!(verify().code, Some(0));
    let archive = bench.files(".tar.zst").remove(0);
    let good = fs::read(&archive).unwrap();
    for _ in 0..40 {
        let mut bytes = good.clone();
        bytes[rng.usize(..good.len())] ^= 1 << rng.u8(..8);
        fs::write(&archive, bytes).unwrap();
        let ran = verify();
        assert_eq!(ran.code, Some(5), "{}", ran.raw);
        assert!(ran.stdout.contains("it has another hash"), "{}", ran.stdout);
    }
}

/// Puts an archive with one more entry under the right hash.
#[test]
fn an_entry_cannot_write_outside_the_environment() {
    for (name, kind, target) in [
        ("../../../escaped", tar::EntryType::Regular, ""),
        ("/tmp/escaped-from-a-store", tar::EntryType::Regular, ""),
        ("lib/escaped", tar::EntryType::Symlink, "/etc"),
        ("lib/device", tar::EntryType::Char, ""),
    ] {
        let bench = Bench::new();
        bench.builds(&mut bench.init("uv", "first"));
        let archive = bench.files(".tar.zst").remove(0);
        let mut plain = zstd::decode_all(&fs::read(&archive).unwrap()[..]).unwrap();
        plain.truncate(plain.len() - 1024);
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mtime(0);
        header.set_mode(0o644);
        header.set_cksum();
        plain.extend(header.as_bytes());
        plain.extend([0; 1024]);
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        fs::File::create(&archive).unwrap().write_all(&packed).unwrap();
        let hash = crate::support::packages::sha256(&archive).replace("sha256:", "");
        fs::rename(&archive, bench.store.join(format!("v1-{hash}.tar.zst"))).unwrap();
        edit(&bench.files(".json")[0], |value| {
            value["archive"]["sha256"] = hash.into();
            value["archive"]["bytes"] = packed.len().into();
            value["archive"]["occupied_bytes"] = (1 << 30).into();
        });
        warns(&bench, &mut bench.init("uv", "second"), "the archive is damaged");
        assert!(!bench.app.sandbox.path("escaped").exists() && !Path::new("/tmp/escaped-from-a-store").exists());
        bench.restores(&mut bench.init("uv", "third"));
    }
}

#[test]
fn a_store_that_is_missing_or_no_directory_is_a_warning() {
    let bench = Bench::new();
    fs::remove_dir(&bench.store).unwrap();
    warns(&bench, &mut bench.init("uv", "one"), "cannot open the store");
    assert!(!bench.store.exists(), "a directory that is not mounted is not created");
    fs::write(&bench.store, "").unwrap();
    warns(&bench, &mut bench.init("uv", "two"), "cannot open the store");
}

#[test]
fn a_full_or_read_only_store_is_a_warning() {
    let bench = Bench::new();
    let init = bench.init("uv", "full");
    let store = bench.store.display();
    let script = format!("mount -t tmpfs -o size=64k none {store} && \"$@\" && ls {store} | grep -c tmp; true");
    let Some(mut command) = namespaced(&init, &script) else { return };
    warns(&bench, &mut command, "No space left");
    let init = bench.init("uv", "read-only");
    let script = format!("mount -t tmpfs -o ro none {store} && \"$@\"");
    warns(&bench, &mut namespaced(&init, &script).unwrap(), "Read-only file system");
    // It can still be read.
    bench.builds(&mut bench.init("uv", "fills"));
    let init = bench.init("uv", "reads");
    let script = format!("mount --bind {store} {store} && mount -o remount,bind,ro {store} && \"$@\"");
    let ran = bench.restores(&mut namespaced(&init, &script).unwrap());
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);
}

#[test]
fn a_store_that_hangs_is_given_up() {
    if !works() {
        return;
    }
    let bench = Bench::new();
    let init = bench.init("uv", "one");
    // Every access to the directory takes twelve seconds. strace outlives podstrap.
    let more = ["-P", bench.store.to_str().unwrap()];
    let mut command = injected(&init, "open,openat", "delay_enter=12000000", &more);
    let ran = bench.builds(&mut command);
    assert!(warnings(&ran).len() == 1 && ran.raw.contains("not done after 5.0 s"), "{}", ran.raw);
    let took = ran.raw.split_once("published at ").and_then(|(_, rest)| rest.split_once(" in ")).unwrap().1;
    let took: f64 = took.split(' ').next().unwrap().parse().unwrap();
    assert!((5.0..11.0).contains(&took), "{}", ran.raw);
}

/// The user and the group of another Pod.
const OTHER: &str = "23456";
/// An interpreter that everybody may run.
const PATH: &str = "/usr/bin:/bin";

#[test]
fn users_share_a_store_as_its_mode_says() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run podstrap as another user");
        return;
    }
    let bench = Bench::new();
    let open = |path: &Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(&bench.app.sandbox.path(""), 0o755);
    fs::create_dir_all(bench.app.sandbox.path("tmp")).unwrap();
    open(&bench.app.sandbox.path("tmp"), 0o1777);
    let root = |branch: &str, volume: &str| {
        let mut init = bench.init_of(branch, "uv", volume);
        init.env("PATH", PATH);
        init
    };
    let other = |branch: &str, volume: &str| {
        let init = root(branch, volume);
        open(&bench.root(volume), 0o777);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", OTHER, "--regid", OTHER, "--clear-groups"]);
        command.arg(init.get_program()).args(init.get_args()).env_clear();
        command.envs(init.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(bench.app.sandbox.path("tmp"));
        command
    };
    // Readable for all, writable for its owner.
    open(&bench.store, 0o755);
    bench.builds(&mut root("old", "root"));
    bench.restores(&mut other("old", "reader"));
    warns(&bench, &mut other("new", "stranger"), "Permission denied");
    // Everybody may add and replace.
    open(&bench.store, 0o2777);
    bench.builds(&mut other("new", "writer"));
    bench.restores(&mut root("new", "root2"));
    flip(&bench.files(".tar.zst")[0], 3000);
    flip(&bench.files(".tar.zst")[1], 3000);
    warns(&bench, &mut other("old", "repairs"), "the archive is damaged");
    bench.restores(&mut root("old", "root3"));
    // Nobody else may read.
    open(&bench.store, 0o700);
    warns(&bench, &mut other("old", "nobody"), "Permission denied");
}
