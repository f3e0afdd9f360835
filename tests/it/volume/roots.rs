//! Roots that podstrap cannot use, or only in part.

use std::fs;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;

use crate::support::article::Article;
use crate::support::index::{self};
use crate::support::sandbox::Ran;

#[test]
fn roots_that_cannot_be_used() {
    let article = Article::new();
    let init = |root: &Path| {
        let mut command = article.sandbox.podstrap();
        command.args(["init", "--repo", &article.git.url("testapp.git"), "--root"]).arg(root);
        command
    };
    assert_snapshot!(article.refused(&mut init(&article.sandbox.path("nowhere")), 5), @r"
    podstrap: error: --root [TMP]/nowhere does not exist
    hint: mount the shared volume there (volumeMounts), or give the path where it is mounted
    ");
    assert_snapshot!(article.refused(&mut init(&article.sandbox.write("file", "")), 5), @r"
    podstrap: error: --root [TMP]/file is not a directory
    hint: give the directory where the shared volume is mounted
    ");
    article.ok(&mut article.init("auto"));
    fs::remove_file(article.root("python")).unwrap();
    fs::write(article.root("python"), "mine").unwrap();
    article.repo.file("x", "").commit("second");
    assert_snapshot!(article.refused(&mut article.init("auto"), 5), @r"
    podstrap: error: cannot publish at [TMP]/volume/python: the path exists
      because: podstrap did not create it and will not replace it
    hint: move it, publish under another name with --link NAME, or use a separate volume
    ");
}

/// Runs `script` with the binary in `$1`, the root in `$2` (a private tmpfs with these options) and the
/// repository in `$3`. `None` if the machine does not allow mounts.
fn on_tmpfs(article: &Article, options: &str, script: &str) -> Option<Ran> {
    let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-r", "-m"] };
    let unshare = || {
        let mut command = article.sandbox.podstrap();
        let env: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
        command = Command::new("unshare");
        command.args(namespace).env_clear().envs(env).current_dir(article.sandbox.path(""));
        command
    };
    let mount = format!("mount -t tmpfs -o mode=0755,{options} none \"$2\" || exit 99\n");
    let allowed = unshare()
        .args(["sh", "-c", &mount, "sh", ""])
        .arg(article.sandbox.root())
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("SKIPPED: cannot mount in a private namespace (unshare {})", namespace.join(" "));
        return None;
    }
    let mut command = unshare();
    command
        .args(["sh", "-c", &(mount + script), "sh", env!("CARGO_BIN_EXE_podstrap")])
        .arg(article.sandbox.root())
        .args([article.git.url("testapp.git"), article.index.url(), index::uv().display().to_string()])
        .env("PIP_INDEX_URL", article.index.url());
    Some(article.run(&mut command))
}

#[test]
fn a_root_that_is_read_only() {
    let article = Article::new();
    let script = "mount -o remount,ro \"$2\" && \"$1\" init --repo \"$3\" --root \"$2\"";
    let Some(ran) = on_tmpfs(&article, "size=1m", script) else { return };
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert_snapshot!(ran.text, @r"
    podstrap: error: cannot create the directory [TMP]/volume/.podstrap
      because: Read-only file system (os error 30)
    hint: mount a writable volume there: an emptyDir or a claim, without readOnly
    ");
    // The release that was published before is still there.
    let script = "\"$1\" init --repo \"$3\" --root \"$2\" 2>&1 && mount -o remount,ro \"$2\"\n\
        \"$1\" init --repo \"$3\" --root \"$2\" --ref main; echo \"$? $(cat \"$2/README.md\")\"";
    let Some(ran) = on_tmpfs(&article, "size=1m", script) else { return };
    assert!(ran.stdout.ends_with("\n5 testapp\n"), "{ran:?}");
    assert_snapshot!(ran.text, @r"
    podstrap: error: cannot open [TMP]/volume/.podstrap/lock
      because: Read-only file system (os error 30)
    hint: mount a writable volume there: an emptyDir or a claim, without readOnly
    ");
}

#[test]
fn a_root_that_is_full() {
    let article = Article::new();
    article.repo.git(["checkout", "-q", "-b", "big"]);
    article.repo.file("big.txt", "x".repeat(600_000)).commit("big");
    // A small release, then one that does not fit.
    let run = |size: u32, flags: &str| {
        let script = format!(
            "\"$1\" init --repo \"$3\" --root \"$2\" --ref main 2>&1 || exit 98\n\
             \"$1\" init --repo \"$3\" --root \"$2\" {flags}; code=$?\n\
             echo; cat \"$2/README.md\"; ls \"$2/.podstrap/releases\" \"$2/.podstrap/staging\" | wc -w; exit $code"
        );
        on_tmpfs(&article, &format!("size={size}k"), &script)
    };
    let last_words = |ran: &Ran| {
        let words = &ran.text[ran.text.find("podstrap: error").unwrap_or(0)..];
        words.lines().filter(|line| !line.starts_with("  | ")).collect::<Vec<_>>().join("\n")
    };
    let Some(clone) = run(400, "--ref big --venv none") else { return };
    assert_eq!(clone.code, Some(5), "{}", clone.raw);
    // Files are written side by side: while the large one fills the volume, a small one may be the first that fails.
    let file =
        regex::Regex::new(r"(release/tree/)(?:big\.txt|README\.md|python/flask/index\.py|python/testapp/index\.py)\n")
            .unwrap();
    assert_snapshot!(file.replace(&last_words(&clone), "$1[FILE]\n"), @r"
    podstrap: error: cannot write [TMP]/volume/.podstrap/staging/[RANDOM]/release/tree/[FILE]
      because: No space left on device (os error 28)
    hint: raise the emptyDir's sizeLimit or the claim's size: the volume has no free space or inodes (df -h, df -i)
    ");
    for (engine, size) in [("pip", 1_500), ("\"$5\"", 1_500)] {
        let install = run(size, &format!("--engine {engine} Flask")).unwrap();
        assert_eq!(install.code, Some(5), "{}", install.raw);
        assert!(
            last_words(&install)
                .contains("hint: raise the emptyDir's sizeLimit or the claim's size: the volume has no free space"),
            "{}",
            install.raw
        );
    }
    // Whichever step runs out of space: exit code 5, the old release, and no other files.
    let mut fitted = false;
    for size in (2_000..20_000).step_by(700) {
        let ran = run(size, "--engine pip Flask").unwrap();
        fitted = ran.code == Some(0);
        if fitted {
            break;
        }
        assert_eq!(ran.code, Some(5), "{size}k: {}", ran.raw);
        // One release, and the two headings that ls prints.
        assert!(ran.stdout.ends_with("\ntestapp\n3\n"), "{size}k: {ran:?}");
    }
    assert!(fitted, "20 MB are not enough");
}

/// The name of a file may be too long for the path of a release, but not for the path of its build or of the app.
#[test]
fn a_long_path_is_published_reused_and_deleted() {
    let article = Article::new();
    let root = article.sandbox.root();
    let (build, most) = (root.join(".podstrap/staging/123456789012/release/tree/").as_os_str().len(), 4095);
    let mut name = String::new();
    while build + name.len() + 200 < most {
        name += &format!("{}/", "d".repeat(199));
    }
    // 4 bytes are left in the build; the path of the release is 6 longer.
    name += &"f".repeat(most - build - name.len() - 4);
    article.repo.file(&name, "far").commit("a long path");
    article.ok(&mut article.init("auto"));
    let ran = article.ok(&mut article.init("auto"));
    assert!(ran.raw.contains("unchanged:"), "{}", ran.raw);
    article.repo.git(["rm", "-q", &name]);
    article.repo.commit("short paths");
    article.ok(&mut article.init("auto"));
    assert_eq!(fs::read_dir(root.join(".podstrap/staging")).unwrap().count(), 0);
    assert_eq!(article.releases().len(), 1);
}

#[test]
fn a_volume_without_the_right_to_execute_is_named_before_the_build() {
    let article = Article::new();
    let script = "\"$1\" init --repo \"$3\" --root \"$2\" --engine pip Flask";
    let warns = |options: &str| {
        let ran = on_tmpfs(&article, options, script)?;
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        Some(ran.raw.contains("warning: the volume is mounted noexec: "))
    };
    let Some(warned) = warns("noexec") else { return };
    assert!(warned);
    assert_eq!(warns("exec"), Some(false));
}
