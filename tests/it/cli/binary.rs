//! The binary by itself: static, and at home in an image that has nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use insta::assert_snapshot;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::support::git::{GitServer, Repo};
use crate::support::sandbox::Sandbox;

const PODSTRAP: &str = env!("CARGO_BIN_EXE_podstrap");

#[test]
fn it_needs_no_dynamic_loader() {
    let bytes = fs::read(PODSTRAP).unwrap();
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes).unwrap();
    let endian = header.endian().unwrap();
    for segment in header.program_headers(endian, &*bytes).unwrap() {
        assert_ne!(segment.p_type(endian), object::elf::PT_INTERP);
    }
}

#[test]
fn in_an_empty_root_it_clones_over_https() {
    let sandbox = Sandbox::new();
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("skipped: chroot needs root");
        return;
    }
    let repos = sandbox.path("repos");
    Repo::new(&repos.join("app.git")).file("index.py", "1\n").commit("first");
    let (server, ca) = GitServer::start_tls(&repos);
    // A root with the binary, a volume, and the one file that names this host.
    for dir in ["image/vol", "image/etc", "image/tmp"] {
        fs::create_dir_all(sandbox.path(dir)).unwrap();
    }
    sandbox.write("image/etc/hosts", "127.0.0.1 localhost\n");
    fs::copy(PODSTRAP, sandbox.path("image/podstrap")).unwrap();
    let init = || {
        let mut command = Command::new("chroot");
        command.arg(sandbox.path("image")).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["/podstrap", "init", "--root", "/vol", "--timeout", "20s", "--repo"]).arg(server.url("app.git"));
        command
    };
    // No CA at all: the built-in roots are used, and they do not know this server's.
    let refused = sandbox.run(&mut init());
    assert_eq!(refused.code, Some(3));
    assert_snapshot!(refused.text, @r"
    podstrap: error: cannot list the references of https://[HOST]/app.git
      because: invalid peer certificate: UnknownIssuer
    hint: for a CA of your own, mount its certificate as a PEM file and name that file with --ca-file
    ");

    sandbox.write("image/ca.pem", ca);
    let cloned = sandbox.run(init().env("SSL_CERT_FILE", "/ca.pem"));
    assert_eq!(cloned.code, Some(0), "{}", cloned.raw);
    assert_eq!(fs::read_to_string(sandbox.path("image/vol/index.py")).unwrap(), "1\n");
}

#[test]
fn copy_self_copies_the_binary_and_a_static_uv_beside_it() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("image")).unwrap();
    let (podstrap, uv) = (sandbox.path("image/podstrap"), sandbox.path("image/uv"));
    fs::copy(PODSTRAP, &podstrap).unwrap();
    // Static is static: the binary itself stands in for a uv.
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
    // The same again changes nothing; under another name as well.
    let before = fs::metadata(sandbox.path("bin/podstrap")).unwrap().ino();
    run("bin/podstrap");
    assert_eq!(fs::metadata(sandbox.path("bin/podstrap")).unwrap().ino(), before);

    // One that needs a loader would not run in another image.
    fs::copy("/bin/sh", &uv).unwrap();
    let text = run("other/");
    assert!(text.contains("dynamically linked"), "{text}");
    assert!(!sandbox.path("other/uv").exists());
}
