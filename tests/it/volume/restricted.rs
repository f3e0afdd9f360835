//! A restricted Pod: an unknown user id, no home, no capabilities, a read-only root file system, and a volume
//! that belongs to the fsGroup.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git::{GitServer, Repo};
use crate::support::index::{self, IndexServer};
use crate::support::namespaces::namespaced;
use crate::support::sandbox::{Ran, Sandbox};

/// Ids without a user or a group.
const USER: u32 = 54321;
const OTHER: u32 = 54322;
const READER: u32 = 54323;
const FS_GROUP: u32 = 54399;

/// Makes everything read-only except the volume and TMPDIR, and puts the binaries where any user can run them.
/// Then runs its arguments as the user id `$RUN_AS`.
const RESTRICT: &str = r#"
set -e
mount --bind "$PODSTRAP" "$BASE/podstrap"
mount --bind "$UV" "$BASE/uv"
mount --bind "$BASE/volume" "$BASE/volume"
mount --bind "$BASE/tmp" "$BASE/tmp"
while read -r _ at _; do
  case $at in
    "$BASE/volume"|"$BASE/tmp") ;;
    *) mount -o remount,bind,ro "$at" 2>/dev/null || true ;;
  esac
done </proc/mounts
for dir in / /tmp /var/tmp /dev/shm /home "$HOME" "$BASE"; do
  if touch "$dir/probe" 2>/dev/null; then echo "$dir can be written to" >&2; exit 97; fi
done
shift
exec setpriv --reuid "$RUN_AS" --regid 0 --groups "$FS_GROUP" --no-new-privs --inh-caps=-all --bounding-set=-all \
  env $ENV sh -c "umask $UMASK"'; exec "$@"' sh "$BASE/podstrap" "$@"
"#;

struct Pod {
    sandbox: Sandbox,
    repo: Repo,
    git: GitServer,
    index: IndexServer,
}

impl Pod {
    /// `None` without root: only root can become other users.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can run podstrap as other users");
            return None;
        }
        let sandbox = Sandbox::new();
        let repo = Repo::new(&sandbox.path("repos/app.git"));
        repo.file("index.py", "import click\n").commit("first");
        let git = GitServer::start(&sandbox.path("repos"));
        let root = sandbox.root();
        chown(&root, Some(0), Some(FS_GROUP)).unwrap();
        mode(&root, 0o2775);
        fs::create_dir(sandbox.path("tmp")).unwrap();
        mode(&sandbox.path("tmp"), 0o1777);
        mode(&sandbox.path(""), 0o755);
        for file in ["podstrap", "uv"] {
            sandbox.write(file, "");
        }
        Some(Self { sandbox, repo, git, index: IndexServer::start(&index::wheelhouse()) })
    }

    /// `podstrap init` as that user. `env` contains the changes to the environment, as arguments of env(1).
    fn init(&self, user: u32, engine: &str, umask: &str, env: &str, packages: &[&str]) -> Option<Ran> {
        let mut command = self.sandbox.podstrap();
        command.arg("init").args(["--repo", &self.git.url("app.git"), "--root"]).arg(self.sandbox.root());
        let uv = self.sandbox.path("uv");
        command.arg("--engine").arg(if engine == "uv" { uv.as_path() } else { Path::new("pip") });
        command.args(packages);
        // PATH with an interpreter that every user may run.
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("PIP_INDEX_URL", self.index.url());
        command.env("BASE", self.sandbox.root().parent().unwrap()).env("UMASK", umask).env("ENV", env);
        command.env("PODSTRAP", env!("CARGO_BIN_EXE_podstrap")).env("UV", index::uv());
        command.env("RUN_AS", user.to_string()).env("FS_GROUP", FS_GROUP.to_string());
        Some(self.sandbox.run(&mut namespaced(&command, RESTRICT)?))
    }

    /// A listing of the published app by a user without any permissions of its own.
    fn read(&self) -> String {
        let python = self.sandbox.root().join("venv/bin/python");
        let output = Command::new("setpriv")
            .args(["--reuid", &READER.to_string(), "--regid", &READER.to_string(), "--clear-groups"])
            .arg(python)
            .args(["-B", "-c", "import index; print(index.click.__file__)"])
            .current_dir(self.sandbox.root())
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn own(&self, name: &str) -> PathBuf {
        self.sandbox.root().join(".podstrap").join(name)
    }
    fn releases(&self) -> Vec<PathBuf> {
        fs::read_dir(self.own("releases")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
    fn staged(&self) -> Vec<String> {
        let entries = fs::read_dir(self.own("staging")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_unknown_user_of_the_group_builds_and_everybody_reads() {
    for (engine, umask, env) in [("pip", "077", "-u HOME"), ("uv", "027", "HOME=/"), ("uv", "077", "-u HOME")] {
        let Some(pod) = Pod::new() else { return };
        let what = format!("{engine}, umask {umask}, {env}");
        let Some(ran) = pod.init(USER, engine, umask, env, &["click==8.1.7"]) else { return };
        assert_eq!(ran.code, Some(0), "{what}: {}", ran.raw);
        assert!(pod.read().contains("/venv/lib/"), "{what}");
        let [first] = &pod.releases()[..] else { panic!("{what}: {:?}", pod.releases()) };
        assert_eq!(fs::metadata(first).unwrap().uid(), USER);
        assert_eq!(fs::read_dir(pod.sandbox.path("tmp")).unwrap().count(), 0, "{what}");

        let ran = pod.init(USER, engine, umask, env, &["click==8.1.7"]).unwrap();
        assert!(ran.code == Some(0) && ran.raw.contains("unchanged:"), "{what}: {}", ran.raw);

        // podstrap trusts no directory that another user can change, not even one of the group.
        let ran = pod.init(OTHER, engine, umask, env, &["click==8.1.8"]).unwrap();
        assert_eq!(ran.code, Some(5), "{what}: {}", ran.raw);
        let own = pod.sandbox.root().join(".podstrap");
        let refusal = format!(
            "podstrap does not trust {}\n  because: it belongs to user {USER}, and podstrap runs as user {OTHER}\n",
            own.display()
        );
        assert!(ran.raw.contains(&refusal), "{what}: {}", ran.raw);
        pod.repo.file("new.txt", "").commit("second");
        let ran = pod.init(USER, engine, umask, env, &["click==8.1.8"]).unwrap();
        assert_eq!(ran.code, Some(0), "{what}: {}", ran.raw);
        assert!(pod.read().contains("/venv/lib/") && pod.sandbox.root().join("new.txt").exists(), "{what}");
        assert_eq!((pod.releases().len(), pod.staged().len()), (1, 0), "{what}");
    }
}

#[test]
fn staging_is_cleared_whatever_modes_a_package_gave_it() {
    let Some(pod) = Pod::new() else { return };
    let init = |user| pod.init(user, "pip", "022", "-u HOME", &[]);
    let Some(ran) = init(USER) else { return };
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    // As after a kill: a directory of the same user, and one of another user.
    for (name, owner) in [("own", USER), ("anothers", OTHER)] {
        let dir = pod.own("staging").join(name);
        for inner in ["", "closed", "closed/deep", "shut", "shut/deep"] {
            fs::create_dir(dir.join(inner)).unwrap();
            fs::write(dir.join(inner).join("file"), "").unwrap();
        }
        for (inner, bits) in [("shut/deep", 0), ("shut", 0), ("closed/deep", 0o555), ("closed", 0o555), ("", 0o755)] {
            chown(dir.join(inner), Some(owner), None).unwrap();
            mode(&dir.join(inner), bits);
        }
    }
    let ran = init(USER).unwrap();
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(pod.staged(), ["anothers"]);
}

/// Otherwise packages would come from another index than the configured one.
#[test]
fn what_is_configured_in_a_home_that_cannot_be_written_counts() {
    let Some(pod) = Pod::new() else { return };
    let config = pod.sandbox.path("home/.config/pip");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("pip.conf"), "[install]\nno-index = true\n").unwrap();
    for dir in config.ancestors().take_while(|dir| *dir != pod.sandbox.path("")) {
        mode(dir, 0o755);
    }
    let Some(ran) = pod.init(USER, "pip", "022", "-u PIP_PROXY", &["click==8.1.8"]) else { return };
    assert_eq!(ran.code, Some(4), "{}", ran.raw);
    assert!(ran.raw.contains("cannot find click==8.1.8"), "{}", ran.raw);
}
