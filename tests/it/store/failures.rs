//! Whatever is wrong with a store, there is one warning, and the environment is built.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Bench, warnings};
use crate::support::namespaces::namespaced;
use crate::support::sandbox::Ran;
use crate::support::strace::{injected, works};

/// Runs it, and asserts that it warns once and builds.
pub(super) fn warns(bench: &Bench, command: &mut Command, why: &str) {
    let ran = bench.builds(command);
    let warnings = warnings(&ran);
    assert!(warnings.len() == 1 && warnings[0].contains(why), "{why}: {}", ran.raw);
    assert!(warnings[0].ends_with("continuing without the store"), "{}", ran.raw);
}

/// Changes a manifest, and gives it the right hash.
pub(super) fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    value.as_object_mut().unwrap().shift_remove("sha256");
    let digest = Sha256::digest(value.to_string());
    value["sha256"] = digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")).into();
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

/// Flips of one bit, in each of the two files.
const FLIPS: usize = 100;

#[test]
fn every_flipped_bit_is_found() {
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "first"));
    let mut rng = fastrand::Rng::with_seed(crate::support::volume::seed());
    let verify = || {
        let mut command = bench.app.sandbox.podstrap();
        bench.app.sandbox.run(command.args(["store", "verify"]).arg(&bench.store))
    };
    for suffix in [".tar.zst", ".json"] {
        let file = bench.files(suffix).remove(0);
        let good = fs::read(&file).unwrap();
        for _ in 0..FLIPS {
            let mut bytes = good.clone();
            let (at, bit) = (rng.usize(..good.len()), rng.u8(..8));
            bytes[at] ^= 1 << bit;
            fs::write(&file, bytes).unwrap();
            let ran = verify();
            // Nobody reads an entry of a newer podstrap.
            let is_newer = suffix == ".json" && ran.stdout.trim_end().ends_with("newer");
            let is_named = suffix == ".json" || ran.stdout.contains("it has another hash");
            let is_found = ran.code == Some(5) && is_named;
            assert!(is_found || is_newer, "bit {bit} of byte {at} of {suffix}: {}", ran.stdout);
        }
        fs::write(&file, &good).unwrap();
        assert_eq!(verify().code, Some(0));
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

/// How far a store may fill: pages and inodes of a tmpfs.
#[derive(Debug, Clone, Copy)]
enum Room {
    Pages(u64),
    Inodes(u64),
}

#[test]
fn a_store_that_is_full_at_any_step_is_a_warning() {
    // Until an entry fits: each third page, and each inode.
    let sizes = (0..).map(|n| Room::Pages(1 + 3 * n));
    let inodes = (1..).map(Room::Inodes);
    for rooms in [&mut sizes.into_iter() as &mut dyn Iterator<Item = Room>, &mut inodes.into_iter()] {
        let bench = Bench::new();
        let mut refused = 0;
        for room in rooms {
            match fill(&bench, room) {
                None => return,
                Some(true) => break,
                Some(false) => refused += 1,
            }
            assert!(refused < 200, "{room:?}: nothing fits");
        }
        println!("{refused} stores were too small");
        assert!(refused > 2, "the first store had room enough");
    }
}

/// Builds with a store of this size, then again. Whether the store took the entry; `None` if such tests are skipped.
fn fill(bench: &Bench, room: Room) -> Option<bool> {
    let limit = match room {
        Room::Pages(pages) => format!("size={}k,nr_inodes=1k", pages * 4),
        Room::Inodes(inodes) => format!("size=16m,nr_inodes={inodes}"),
    };
    let (store, place) = (bench.store.display(), bench.app.sandbox.path("full"));
    fs::create_dir_all(&place).unwrap();
    let (init, root) = (bench.init("uv", "volume"), bench.root("volume"));
    let script = format!(
        "mount -t tmpfs -o {limit} none {store} || exit 99
        rm -rf {root} && mkdir {root} && \"$@\" 2>{place}/first || exit 98
        ls {store} >{place}/files && \"$1\" store verify {store} >{place}/entries || exit 97
        rm -rf {root} && mkdir {root} && \"$@\" 2>{place}/second || exit 96",
        place = place.display(),
        root = root.display(),
    );
    let ran = bench.app.sandbox.run(&mut namespaced(&init, &script)?);
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    let (one, files, entries, two) = (read("first"), read("files"), read("entries"), read("second"));
    let what = format!("{limit}: {ran:?}\n{one}\n{files}\n{entries}\n{two}");
    assert_eq!(ran.code, Some(0), "{what}");
    let warns = |log: &str| log.lines().filter(|line| line.contains("warning: ")).count();
    let is_saved = one.contains("saved ");
    // Without an error of the store: whole. With one: nothing but a mark of use.
    let ends: Vec<_> = files.lines().map(|file| file.split_once('.').unwrap().1).collect();
    if is_saved {
        assert!(warns(&one) == 0 && (ends == ["tar.zst", "json"] || ends == ["json", "tar.zst"]), "{what}");
        assert!(entries.contains("ok") && two.contains("from the store") && warns(&two) == 0, "{what}");
    } else {
        assert!(warns(&one) == 1 && one.contains("No space left on device"), "{what}");
        assert!(ends.is_empty() && entries.lines().count() == 1, "{what}");
        assert!(warns(&two) == 1 && !two.contains("from the store"), "{what}");
    }
    Some(is_saved)
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
    let took = published_in(&ran);
    assert!((5.0..11.0).contains(&took), "{}", ran.raw);
}

#[test]
fn a_store_that_trickles_costs_a_bounded_time() {
    if !works() {
        return;
    }
    let bench = Bench::new();
    bench.builds(&mut bench.init("uv", "one"));
    // Each read of the archive takes eleven seconds, and it needs several. strace outlives podstrap.
    let archive = bench.files(".tar.zst").remove(0);
    let more = ["-P", archive.to_str().unwrap()];
    let ran = bench.builds(&mut injected(&bench.init("uv", "two"), "read", "delay_enter=11000000", &more));
    assert_eq!(warnings(&ran).len(), 1, "{}", ran.raw);
    let took = published_in(&ran);
    assert!((19.0..35.0).contains(&took), "{}", ran.raw);
}

/// The seconds of a run, by its own clock.
fn published_in(ran: &Ran) -> f64 {
    let took = ran.raw.split_once("published at ").and_then(|(_, rest)| rest.split_once(" in ")).unwrap().1;
    took.split(' ').next().unwrap().parse().unwrap()
}

/// The user and the group of another Pod.
const OTHER: &str = "23456";
/// An interpreter that everybody may run.
const PATH: &str = "/usr/bin:/bin";

/// Lets other users into the sandbox, if this test may change users.
fn has_users(bench: &Bench) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run podstrap as another user");
        return false;
    }
    open(&bench.app.sandbox.path(""), 0o755);
    fs::create_dir_all(bench.app.sandbox.path("tmp")).unwrap();
    open(&bench.app.sandbox.path("tmp"), 0o1777);
    true
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn by_root(bench: &Bench, branch: &str, volume: &str) -> Command {
    let mut init = bench.init_of(branch, "uv", volume);
    init.env("PATH", PATH);
    init
}

fn by_other(bench: &Bench, branch: &str, volume: &str) -> Command {
    let init = by_root(bench, branch, volume);
    open(&bench.root(volume), 0o777);
    as_other(bench, &init)
}

fn as_other(bench: &Bench, command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    other.args(["--reuid", OTHER, "--regid", OTHER, "--clear-groups"]);
    other.arg(command.get_program()).args(command.get_args()).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.current_dir(bench.app.sandbox.path("tmp"));
    other
}

#[test]
fn users_share_a_store_as_its_mode_says() {
    let bench = Bench::new();
    if !has_users(&bench) {
        return;
    }
    let root = |branch: &str, volume: &str| by_root(&bench, branch, volume);
    let other = |branch: &str, volume: &str| by_other(&bench, branch, volume);
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

#[test]
fn leftovers_of_another_user_in_a_sticky_directory_keep_nobody() {
    let bench = Bench::new();
    if !has_users(&bench) {
        return;
    }
    open(&bench.store, 0o1777);
    bench.builds(&mut by_root(&bench, "old", "root"));
    let lease = bench.files(".json")[0].with_extension("lease");
    bench.files("").iter().for_each(|file| fs::remove_file(file).unwrap());
    let old = SystemTime::now() - Duration::from_hours(2);
    let leave = |path: &Path, text: &str, owner: u32| {
        fs::write(path, text).unwrap();
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    };
    let file = |name: &str| bench.store.join(name.replace("HASH", &"ab".repeat(32)));
    let (stranger, own): (u32, u32) = (34567, OTHER.parse().unwrap());
    let theirs = [file("v1-a.tmp"), file("v1-HASH.tar.zst"), file("v1-HASH.used"), lease];
    for path in &theirs {
        leave(path, "name 0000000000 000000000012\n", stranger);
    }
    let ours = [file("v1-b.tmp"), file("v1-z.tmp")];
    for path in &ours {
        leave(path, "", own);
    }
    // Only the owner of the dead lease may delete it.
    warns(&bench, &mut by_other(&bench, "old", "first"), "Operation not permitted");
    assert!(theirs.iter().all(|path| path.exists()) && !ours.iter().any(|path| path.exists()), "{:?}", bench.files(""));
    let ran = bench.restores(&mut by_other(&bench, "old", "second"));
    assert!(warnings(&ran).is_empty(), "{}", ran.raw);

    // A damaged entry of another user stays, and nothing is left beside it.
    let (manifest, archive) = (bench.files(".json").remove(0), bench.manifest()["archive"]["sha256"].clone());
    let archive = bench.store.join(format!("v1-{}.tar.zst", archive.as_str().unwrap()));
    for path in [&manifest, &archive] {
        std::os::unix::fs::chown(path, Some(stranger), Some(stranger)).unwrap();
    }
    flip(&archive, 3000);
    let before = bench.files("");
    warns(&bench, &mut by_other(&bench, "old", "third"), "the archive is damaged");
    assert_eq!(bench.files(""), before);

    // The same for the command: it deletes its own files, and names one that it cannot delete.
    for path in &ours {
        leave(path, "", own);
    }
    let mut prune = bench.app.sandbox.podstrap();
    prune.args(["store", "prune", "--store-limit", "1Gi"]).arg(&bench.store);
    let ran = bench.app.sandbox.run(&mut as_other(&bench, &prune));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.error().contains("cannot delete") && ran.error().contains("hint: "), "{}", ran.raw);
    assert!(theirs.iter().all(|path| path.exists()) && !ours.iter().any(|path| path.exists()), "{:?}", bench.files(""));
    let ran = bench.app.sandbox.run(&mut prune);
    assert!(ran.code == Some(0) && !theirs.iter().any(|path| path.exists()), "{:?}", bench.files(""));
}
