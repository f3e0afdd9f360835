//! Other users who can write to the root, before and during a run.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::support::article::Article;
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::table::row;

const NEIGHBOUR: u32 = 54331;
const GROUP: u32 = 54398;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can run programs of another user");
    }
    root
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn release(article: &Article) -> PathBuf {
    let mut releases = fs::read_dir(article.root(".podstrap/releases")).unwrap();
    releases.next().unwrap().unwrap().path()
}

fn fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    mkfifoat(CWD, path, Mode::from(0o666)).unwrap();
}

/// What the neighbour does to a published volume.
type Change = fn(&Article);

/// Entries that podstrap's user did not make are refused by name, at once, and stay as they are.
#[test]
fn what_others_made_in_podstraps_directory_is_refused() {
    if !is_root() {
        return;
    }
    let rows: [(&str, Change); 10] = [
        (".podstrap of another user", |article| chown(article.root(".podstrap"), Some(NEIGHBOUR), None).unwrap()),
        ("staging of another user", |article| chown(article.root(".podstrap/staging"), Some(NEIGHBOUR), None).unwrap()),
        ("the lock of another user", |article| chown(article.root(".podstrap/lock"), Some(NEIGHBOUR), None).unwrap()),
        ("a named pipe as lock", |article| fifo(&article.root(".podstrap/lock"))),
        ("a link as lock", |article| {
            fs::remove_file(article.root(".podstrap/lock")).unwrap();
            symlink(article.sandbox.write("victim", ""), article.root(".podstrap/lock")).unwrap();
        }),
        ("a hard link as lock", |article| {
            fs::remove_file(article.root(".podstrap/lock")).unwrap();
            fs::hard_link(article.sandbox.write("victim", ""), article.root(".podstrap/lock")).unwrap();
        }),
        ("a link as release", |article| {
            let release = release(article);
            fs::rename(&release, article.sandbox.path("moved")).unwrap();
            symlink(article.sandbox.path("moved"), release).unwrap();
        }),
        ("a named pipe as record", |article| fifo(&release(article).join("release.json"))),
        ("a named pipe as list", |article| fifo(&release(article).join("files"))),
        ("a link as record", |article| {
            let record = release(article).join("release.json");
            fs::rename(&record, article.sandbox.path("moved.json")).unwrap();
            symlink(article.sandbox.path("moved.json"), record).unwrap();
        }),
    ];
    let told = rows.map(|(name, change)| {
        let article = Article::new();
        article.ok(&mut article.init("auto"));
        change(&article);
        let started = Instant::now();
        let ran = article.run(&mut article.init("auto"));
        assert_eq!(ran.code, Some(5), "{name}: {}", ran.raw);
        let text = ran.text;
        assert!(started.elapsed() < Duration::from_secs(20), "{name}");
        row(name, || text.lines().filter(|line| !line.starts_with("hint: ")).collect::<Vec<_>>().join("\n"))
    });
    insta::assert_snapshot!(told.concat(), @r"
    -- .podstrap of another user
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap
      because: it belongs to user 54331, and podstrap runs as user 0
    -- staging of another user
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/staging
      because: it belongs to user 54331, and podstrap runs as user 0
    -- the lock of another user
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/lock
      because: it belongs to user 54331, and podstrap runs as user 0
    -- a named pipe as lock
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/lock
      because: it is a named pipe
    -- a link as lock
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/lock
      because: it is a symbolic link
    -- a hard link as lock
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/lock
      because: it is a hard link of another file
    -- a link as release
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/releases/[SHORT]-[SHORT]
      because: it is not a directory
    -- a named pipe as record
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/releases/[SHORT]-[SHORT]/release.json
      because: it is a named pipe
    -- a named pipe as list
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/releases/[SHORT]-[SHORT]/files
      because: it is a named pipe
    -- a link as record
    podstrap: error: podstrap does not trust [TMP]/volume/.podstrap/releases/[SHORT]-[SHORT]/release.json
      because: it is a symbolic link
    ");
}

/// Gives [`NEIGHBOUR`] all permissions on everything that is created in a directory (acl(5), `setfacl -d`).
fn default_acl(dir: &Path) -> rustix::io::Result<()> {
    // Tag, permissions and id of: owner, user, group, mask, others.
    let entries = [(1, 7, u32::MAX), (2, 7, NEIGHBOUR), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend([u16::to_le_bytes(tag), u16::to_le_bytes(permissions)].concat());
        value.extend(id.to_le_bytes());
    }
    rustix::fs::setxattr(dir, "system.posix_acl_default", &value, rustix::fs::XattrFlags::empty())
}

/// Modes, ACLs and the setgid bit of the root do not open podstrap's directories.
#[test]
fn nobody_else_can_write_below_podstraps_directory() {
    if !is_root() {
        return;
    }
    for root_mode in [0o2775, 0o2777, 0o777, 0o1777] {
        let article = Article::new();
        let root = article.sandbox.root();
        chown(&root, None, Some(GROUP)).unwrap();
        mode(&root, root_mode);
        if let Err(error) = default_acl(&root) {
            eprintln!("SKIPPED in part: no ACLs here: {error}");
        }
        article.ok(article.init("auto").arg("Flask"));
        // A run of 0.1.0 left the directories open.
        for name in ["", "staging", "releases", "lock"] {
            mode(&article.root(".podstrap").join(name), 0o2777);
        }
        article.repo.file("new.txt", root_mode.to_string()).commit("next");
        article.ok(article.init("auto").arg("Flask"));
        let bits = |name: &str| fs::symlink_metadata(article.root(".podstrap").join(name)).unwrap().mode() & 0o7777;
        assert_eq!([bits(""), bits("staging"), bits("releases"), bits("lock")], [0o755, 0o700, 0o755, 0o600]);
        let open: Vec<_> = podstrap::walk::walk(&article.root(".podstrap"))
            .map(Result::unwrap)
            .filter(|entry| !entry.is_symlink() && entry.metadata().unwrap().mode() & 0o022 != 0)
            .collect();
        assert!(open.is_empty(), "{root_mode:o}: {open:?}");
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, root_mode | 0o1000, "its owner is podstrap's user");
    }
}

/// A release of another user is not used, and the next run removes it.
#[test]
fn a_release_of_another_user_is_built_anew() {
    if !is_root() {
        return;
    }
    let article = Article::new();
    article.ok(&mut article.init("auto"));
    let old = release(&article);
    chown(&old, Some(NEIGHBOUR), None).unwrap();
    let ran = article.ok(&mut article.init("auto"));
    assert!(ran.raw.contains(&format!("{} ignored: it belongs to user {NEIGHBOUR}", old.display())), "{}", ran.raw);
    assert!(ran.raw.contains("podstrap: built "), "{}", ran.raw);
    assert_eq!(fs::metadata(release(&article)).unwrap().uid(), 0);
}

/// At each mount, the kubelet gives the group of an fsGroup all permissions (`pkg/volume/volume_linux.go`).
#[test]
fn permissions_for_the_group_go_again_and_cost_no_build() {
    if !is_root() {
        return;
    }
    let article = Article::new();
    let root = article.sandbox.root();
    article.ok(article.init("auto").arg("Flask"));
    let group = "find \"$0\" ! -type l -exec chmod g+rwX {} + && find \"$0\" -type d -exec chmod g+s {} +";
    assert!(Command::new("sh").args(["-c", group]).arg(&root).status().unwrap().success());
    let ran = article.ok(article.init("auto").arg("Flask"));
    assert!(ran.raw.contains("unchanged:"), "{}", ran.raw);
    for entry in podstrap::walk::walk(&article.root(".podstrap")).map(Result::unwrap).filter(|e| !e.is_symlink()) {
        let mode = entry.metadata().unwrap().mode();
        assert_eq!(mode & 0o022, 0, "{entry:?}");
        assert!(!entry.is_dir() || mode & 0o2000 == 0, "{entry:?}");
    }
    // As after a kill in the middle: the release's own directory is closed, and a file in it is not.
    let release = release(&article);
    mode(&release, 0o2755);
    mode(&release.join("tree/README.md"), 0o664);
    article.ok(article.init("auto").arg("Flask"));
    let bits = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!([bits(&release), bits(&release.join("tree/README.md"))], [0o755, 0o644]);
    article.repo.file("new.txt", "").commit("next");
    let ran = article.ok(article.init("auto").arg("Flask"));
    assert!(ran.raw.contains("reused"), "the environment is the same: {}", ran.raw);
}

/// A link of another user is replaced, even if it leads to the right place: he could change it later.
#[test]
fn links_that_a_neighbour_made_before_become_podstraps_own() {
    if !is_root() {
        return;
    }
    for link in [None, Some("app")] {
        let article = Article::new();
        let mut command = article.init("auto");
        command.args(link.map(|name| format!("--link={name}")));
        article.ok(&mut command);
        let name = article.root(link.unwrap_or("README.md"));
        std::os::unix::fs::lchown(&name, Some(NEIGHBOUR), None).unwrap();
        let mut command = article.init("auto");
        command.args(link.map(|name| format!("--link={name}")));
        article.ok(&mut command);
        assert_eq!(fs::symlink_metadata(&name).unwrap().uid(), 0, "{link:?}");
    }
}

/// Tries to put its own program in the place of the environment's Python, and its own links in the place of files that
/// podstrap writes. `$1`: the root, `$2`: a directory for marks, `$3`: a file of root.
const ATTACK: &str = include_str!("neighbour.py");

struct Attack(Child);

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attack(sandbox: &Sandbox, marks: &Path, victim: &Path) -> Attack {
    let child = Command::new("setpriv")
        .args(["--reuid", &NEIGHBOUR.to_string(), "--regid", &NEIGHBOUR.to_string(), "--groups", &GROUP.to_string()])
        .args(["/usr/bin/python3", "-c", ATTACK])
        .arg(sandbox.root())
        .args([marks, victim])
        .stdin(Stdio::null())
        .spawn();
    Attack(child.expect("setpriv and python3 start"))
}

/// Runs init again and again while a member of the root's group attacks it. `owner` owns the root.
fn race(owner: u32, time: Duration) {
    let article = Article::new();
    let (root, marks) = (article.sandbox.root(), article.sandbox.path("marks"));
    mode(&article.sandbox.path(""), 0o755);
    fs::create_dir(&marks).unwrap();
    mode(&marks, 0o1777);
    let victim = article.sandbox.write("victim", "untouched");
    chown(&root, Some(owner), Some(GROUP)).unwrap();
    mode(&root, 0o2775);
    article.ok(&mut article.init("auto"));
    let attack = attack(&article.sandbox, &marks, &victim);
    let (started, mut runs) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let engine = if runs.len() % 2 == 0 { "uv" } else { "pip" };
        // Another environment each time.
        let mut command = article.init(engine);
        command.args(["--refresh", "--timeout", "60s", "Flask"]);
        let Ran { code, raw, .. } = article.run(&mut command);
        assert!(matches!(code, Some(0 | 2..=5)), "{raw}");
        runs.push(code);
    }
    drop(attack);
    let ran = fs::read_to_string(marks.join("ran")).unwrap_or_default();
    let rounds = fs::read_to_string(marks.join("rounds")).unwrap_or_default().len();
    let renamed = marks.join("renamed").exists();
    println!("root of user {owner}: {} runs, {rounds} rounds of attack, renamed: {renamed}, {runs:?}", runs.len());
    assert!(!ran.lines().any(|user| user == "0"), "podstrap's user ran the neighbour's program");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(rounds > 10, "the neighbour was there");
    assert_eq!(renamed, owner != 0, "the sticky bit of a root that is podstrap's own");
    if owner == 0 {
        assert!(runs.iter().all(|code| *code == Some(0)), "{runs:?}");
    }
}

fn race_both(time: Duration) {
    if !is_root() {
        return;
    }
    race(0, time);
    // Only the kernel can keep children from the files of the root's owner.
    if podstrap::confine::is_available() {
        race(NEIGHBOUR, time);
    } else {
        eprintln!("SKIPPED in part: the kernel has no Landlock");
    }
}

#[test]
fn a_neighbour_does_not_become_podstraps_user() {
    race_both(Duration::from_secs(5));
}

#[test]
#[ignore = "takes minutes: just neighbours"]
fn a_neighbour_does_not_become_podstraps_user_in_minutes() {
    let seconds = std::env::var("PODSTRAP_TEST_SECONDS").map_or(180, |text| text.parse().unwrap());
    race_both(Duration::from_secs(seconds));
}
