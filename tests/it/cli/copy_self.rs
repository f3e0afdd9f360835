//! Copies of the binary, with `copy-self` and with `init --copy-self`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::support::article::Article;
use crate::support::sandbox::Sandbox;

const PODSTRAP: &str = env!("CARGO_BIN_EXE_podstrap");

#[test]
fn copy_self_copies_the_binary_and_a_static_uv_beside_it() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("image")).unwrap();
    let (podstrap, uv) = (sandbox.path("image/podstrap"), sandbox.path("image/uv"));
    fs::copy(PODSTRAP, &podstrap).unwrap();
    // Any static binary will do: podstrap itself stands in for uv.
    fs::copy(PODSTRAP, &uv).unwrap();
    let run = |to: &str| {
        let output = Command::new(&podstrap).arg("copy-self").arg(sandbox.path(to)).env_clear().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    run("bin/");
    for name in ["podstrap", "uv"] {
        let copy = sandbox.path("bin").join(name);
        assert!(Command::new(copy).arg("--version").output().unwrap().status.success());
    }
    // A second run changes nothing, also under another name.
    let before = fs::metadata(sandbox.path("bin/podstrap")).unwrap().ino();
    run("bin/podstrap");
    assert_eq!(fs::metadata(sandbox.path("bin/podstrap")).unwrap().ino(), before);

    // A dynamically linked binary would not run in another image.
    fs::copy("/bin/sh", &uv).unwrap();
    let text = run("other/");
    assert!(text.contains("dynamically linked"), "{text}");
    assert!(!sandbox.path("other/uv").exists());
}

#[test]
fn a_copy_below_the_root_is_in_the_release() {
    let article = Article::new();
    article.ok(article.init("auto").arg("--copy-self").arg(article.root("bin/podstrap")));
    let output = Command::new(article.root("bin/podstrap")).arg("--version").output().unwrap();
    assert!(output.status.success());
    let [release] = &article.releases()[..] else { panic!() };
    assert!(release.join("tree/bin/podstrap").is_file());
}

#[test]
fn a_copy_goes_through_no_link_of_the_repository() {
    use std::os::unix::fs::symlink;
    // An unfinished copy has a name that ends with the process's id. A shell knows the id before it execs.
    let article = Article::new();
    let victim = article.sandbox.write("victim", "mine");
    let dir = article.sandbox.path("mine");
    fs::create_dir_all(&dir).unwrap();
    symlink(&victim, dir.join("LINK")).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        r#"mv "$1/LINK" "$1/podstrap.$$"; exec "$2" init --repo "$1" --root "$3" --copy-self "$3/podstrap""#,
        "sh",
    ]);
    command.arg(&dir).arg(PODSTRAP).arg(article.sandbox.root());
    article.ok(&mut command);
    assert_eq!(fs::read_to_string(victim).unwrap(), "mine");
    assert!(article.root("podstrap").is_file());
}

#[test]
fn what_is_made_for_a_copy_is_for_everybody() {
    let article = Article::new();
    let command = format!("umask 077; exec \"$@\" --copy-self {}", article.root("new/bin/podstrap").display());
    let podstrap = article.sandbox.podstrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &command, "sh"]).arg(podstrap.get_program()).args(["init", "--venv", "env/venv"]);
    shell.arg("--root").arg(article.sandbox.root()).env("PODSTRAP_REPO", article.git.url("testapp.git"));
    article.ok(&mut shell);
    let outside = article.sandbox.path("a/b/podstrap");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(podstrap.get_program()).arg("copy-self").arg(&outside);
    article.ok(&mut shell);
    for path in [article.root("new/bin"), article.root("env/venv"), article.root("env"), article.sandbox.path("a/b")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755, "{}", path.display());
    }
}

#[test]
fn a_copy_takes_the_place_of_files_only() {
    let sandbox = Sandbox::new();
    let pipe = sandbox.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let ran = sandbox.run(sandbox.podstrap().arg("copy-self").arg(&pipe));
    assert_eq!(ran.code, Some(5), "{}", ran.raw);
    assert!(ran.raw.contains("it is a named pipe"), "{}", ran.raw);
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
}
