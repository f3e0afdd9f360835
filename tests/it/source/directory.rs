//! Local directories as sources.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use podstrap::error::{Error, Kind};
use podstrap::plan::Source;
use podstrap::retry::Deadline;
use podstrap::source::Contents;

use crate::support::source::{Got, LIMIT, cli, get_within, resolve, run, varied};

fn directory(path: &Path) -> Result<Got, Error> {
    get_within(&Source::directory(path.to_owned()), Duration::from_mins(1))
}

#[test]
fn a_directory_is_copied_without_what_belongs_to_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app");
    let repo = varied(&app);
    repo.commit("one");
    let plain = directory(&app).unwrap();
    assert_eq!(plain.files(), cli(&format!("file://{}", app.display()), "main"));
    assert!(plain.revision.commit.starts_with("sha256:") && plain.revision.commit.len() == 71);
    assert_eq!(plain.revision.reference, None);

    repo.file("venv/pyvenv.cfg", "home = /usr\n").file("venv/bin/python", "").file("sub/__pycache__/x.pyc", "");
    std::fs::set_permissions(app.join("index.py"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let fifo = Command::new("mkfifo").arg(app.join("fifo")).status().unwrap();
    assert!(fifo.success());
    let again = directory(&app).unwrap();
    assert_eq!((again.files(), &again.revision), (plain.files(), &plain.revision));

    std::fs::set_permissions(app.join("index.py"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let executable = directory(&app).unwrap();
    assert_ne!(executable.revision, plain.revision);
    symlink("elsewhere", app.join("new-link")).unwrap();
    assert_ne!(directory(&app).unwrap().revision, executable.revision);
}

#[test]
fn directories_that_cannot_be_copied() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |path: &Path| {
        let error = directory(path).unwrap_err();
        assert_eq!(error.kind(), Kind::Source);
        error.to_string().replace(&*dir.path().to_string_lossy(), "[TMP]")
    };
    insta::assert_snapshot!(fails(&dir.path().join("none")), @r"
    error: cannot read [TMP]/none
      because: No such file or directory (os error 2)
    hint: give a directory that exists in this container, or a URL
    ");
    insta::assert_snapshot!(fails(Path::new("/dev/null")), @r"
    error: /dev/null is not a directory
      because: it is a device
    hint: give the directory of the app
    ");
    std::fs::create_dir_all(dir.path().join("app/.podstrap")).unwrap();
    insta::assert_snapshot!(fails(&dir.path().join("app")), @r"
    error: [TMP]/app has an entry .podstrap
      because: podstrap reserves this name in the published directory
    hint: rename .podstrap in the source
    ");

    let app = dir.path().join("outer");
    std::fs::create_dir_all(app.join("root/scratch")).unwrap();
    let deadline = Deadline::after(Duration::from_secs(10));
    let (tree, scratch) = (app.join("root/tree"), app.join("root/scratch"));
    let source = Source::directory(app);
    let error = run(async {
        resolve(&source, LIMIT, deadline).await?.checkout(&tree, &scratch, Contents::Fetch(None), LIMIT, deadline).await
    })
    .unwrap_err();
    insta::assert_snapshot!(error.to_string().replace(&*dir.path().to_string_lossy(), "[TMP]"), @r"
    error: cannot copy [TMP]/outer to [TMP]/outer/root, which is inside it
    hint: choose a --root outside the directory; for `up` and --dry-run, set TMPDIR to one
    ");
}

#[test]
fn a_directory_that_changes_meanwhile_is_no_revision() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app");
    std::fs::create_dir_all(&app).unwrap();
    std::fs::write(app.join("a"), "1").unwrap();
    let deadline = Deadline::after(Duration::from_secs(10));
    let mut resolved = run(resolve(&Source::directory(app.clone()), LIMIT, deadline)).unwrap();
    std::fs::write(app.join("a"), "2").unwrap();
    let error = run(resolved.checkout(&dir.path().join("tree"), dir.path(), Contents::Fetch(None), LIMIT, deadline))
        .unwrap_err();
    assert!(error.to_string().contains("changed during the copy"), "{error}");
}
