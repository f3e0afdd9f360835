//! The binary alone: static, and able to run in an otherwise empty image.

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
        eprintln!("SKIPPED: chroot needs root");
        return;
    }
    let repos = sandbox.path("repos");
    Repo::new(&repos.join("app.git")).file("index.py", "1\n").commit("first");
    let (server, ca) = GitServer::start_tls(&repos);
    // A root with the binary, a volume, and the one file that resolves this host's name.
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
    // Without any CA file podstrap uses the built-in roots, which do not include this server's.
    let refused = sandbox.run(&mut init());
    assert_eq!(refused.code, Some(3));
    assert_snapshot!(refused.text, @r"
    podstrap: error: cannot list the references of https://[HOST]/app.git
      because: invalid peer certificate: UnknownIssuer
    hint: for a private CA, mount its certificate as a PEM file, and give this file with --ca-file
    ");

    sandbox.write("image/ca.pem", ca);
    let cloned = sandbox.run(init().env("SSL_CERT_FILE", "/ca.pem"));
    assert_eq!(cloned.code, Some(0), "{}", cloned.raw);
    assert_eq!(fs::read_to_string(sandbox.path("image/vol/index.py")).unwrap(), "1\n");
}

#[test]
fn a_shell_completes_flags_by_the_script() {
    let ask = r#"source <("$0" completions bash); COMP_WORDS=(podstrap init --venv-f); COMP_CWORD=2
        _podstrap podstrap --venv-f init; echo "${COMPREPLY[@]}""#;
    let output = Command::new("bash").args(["-c", ask, env!("CARGO_BIN_EXE_podstrap")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--venv-final-path", "{output:?}");
}
