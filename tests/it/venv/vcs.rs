//! Git repositories among the requirements: asked like the one of --repo.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::support::git::Repo;
use crate::support::inputs::{ENGINES, Place};
use crate::support::packages::project;
use crate::support::sandbox::Ran;
use crate::support::sshd::{Sshd, keygen};

/// Runs init of the tree with this requirement.
fn run(place: &Place, engine: &str, line: &str, args: &[&str]) -> Ran {
    place.tree(&[("requirements.txt", &format!("\n{line}\n"))]);
    place.sandbox.run(place.command(engine, args).env("GIT_PASSWORD", "wr0ng-t0ken"))
}

#[test]
fn a_repository_is_refused_with_its_own_address() {
    let place = Place::new();
    place.git.instead(|request| {
        let open =
            request.path().starts_with("/lib.git") || request.authorization() == Some("Basic YWRhOnQwazNuLW9mLWdpdA==");
        (!open).then(|| crate::support::http::Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"Git\""))
    });
    let (open, private) = (place.git.url("lib.git"), place.git.url("private.git"));
    let with_login = place.git.url_as("ada:${GIT_PASSWORD}", "private.git");
    for (line, args, code, says) in [
        (
            format!("lib @ git+{private}"),
            &[][..],
            3,
            &["cannot list the references of http://[HOST]/private.git", "answers 401", "--auth"][..],
        ),
        (
            format!("lib @ git+{with_login}@v1"),
            &[],
            3,
            &["cannot list the references of http://[HOST]/private.git", "answers 401", "the URL"],
        ),
        (
            format!("lib @ git+{open}@v9"),
            &[],
            3,
            &["http://[HOST]/lib.git has no branch or tag v9", "hint: choose one of: main"],
        ),
        (format!("git+{open}@mian#egg=lib"), &[], 3, &["has no branch or tag mian", "did you mean main?"]),
        (
            "lib @ git+http://127.0.0.1:9/x.git".to_owned(),
            &[],
            3,
            &["cannot list the references of http://[HOST]/x.git", "gave up after"],
        ),
        (format!("lib @ git+{open}@{}", "0".repeat(40)), &[], 3, &["http://[HOST]/lib.git", "has no such revision"]),
    ] {
        for engine in ENGINES {
            let ran = run(&place, engine, &line, args);
            assert_eq!(ran.code, Some(code), "{engine} {line}: {}", ran.raw);
            let error = ran.error();
            assert!(
                line.contains("00000") || error.starts_with("requirements.txt, line 2: "),
                "{engine} {line}: {error}"
            );
            assert!(says.iter().all(|word| error.contains(word)), "{engine} {line}: {error}");
            assert!(!ran.raw.contains("wr0ng") && !ran.raw.contains("no wheel"), "{engine} {line}: {}", ran.raw);
        }
    }
    // As an argument, and editable.
    let error = |engine: &str, line: &str, args: &[&str]| run(&place, engine, line, args).error().to_owned();
    for engine in ENGINES {
        let said = error(engine, "", &[&format!("lib @ git+{open}@v9")]);
        assert!(said.starts_with("http://[HOST]/lib.git has no branch or tag v9"), "{engine}: {said}");
    }
    let said = error("pip", &format!("-e git+{open}@v9#egg=lib"), &[]);
    assert!(said.starts_with("requirements.txt, line 2: http://[HOST]/lib.git has no branch or tag v9"), "{said}");
}

#[test]
fn every_kind_of_revision_is_installed_by_both() {
    let place = Place::new();
    let repo = Repo { dir: place.sandbox.path("repos/lib.git") };
    repo.git(["tag", "v1"]);
    repo.git(["branch", "feature/y.git"]);
    let (commit, url) = (repo.rev("main"), place.git.url("lib.git"));
    for revision in
        ["", "@main", "@v1", "@feature/y.git", &format!("@{commit}"), &format!("@{}", &commit[..8]), "@refs/heads/main"]
    {
        place.tree(&[("requirements.txt", &format!("lib @ git+{url}{revision}\n"))]);
        for engine in ENGINES {
            let found = place.installed(engine, &[]);
            assert_eq!(found.packages, ["lib 1.0"], "{engine} {revision}");
            let release = std::fs::read_dir(place.sandbox.path(&format!("volume-{engine}/.podstrap/releases")))
                .unwrap()
                .next()
                .unwrap()
                .unwrap();
            let text = std::fs::read_to_string(release.path().join("release.json")).unwrap();
            assert!(text.contains(&commit), "{engine} {revision}: {text}");
        }
    }
}

#[test]
fn the_login_of_the_repository_opens_its_neighbours() {
    let place = Place::new();
    place.git.require("Basic YWRhOnQwazNuLW9mLWdpdA==");
    let app = Repo::new(&place.sandbox.path("repos/app.git"));
    let line = format!("lib @ git+{}@main\n", place.git.url("lib.git"));
    app.file("requirements.txt", line).commit("first");
    place.sandbox.write("auth/username", "ada");
    let auth = place.sandbox.write("auth/password", "t0k3n-of-git").parent().unwrap().to_owned();
    place.tree(&[]);
    for engine in ENGINES {
        let mut command = place.command(engine, &["--auth", auth.to_str().unwrap()]);
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let tree = place.sandbox.path("tree").into_os_string();
        let args = args.into_iter().map(|arg| if arg == tree { place.git.url("app.git").into() } else { arg });
        let mut again = place.sandbox.podstrap();
        again.args(args).env("PIP_INDEX_URL", place.index.url());
        command = again;
        assert_eq!(place.finish(engine, &mut command).packages, ["lib 1.0"], "{engine}");
    }
}

#[test]
fn a_program_that_is_missing_is_named() {
    let place = Place::new();
    let bin = place.sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let which = |name: &str| {
        let output =
            std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        assert_eq!(name, "python3");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    symlink(which("python3"), bin.join("python3")).unwrap();
    for (line, program) in
        [("lib @ git+http://127.0.0.1:9/x.git", "git"), ("lib @ git+ssh://git@127.0.0.1:9/x.git", "ssh")]
    {
        place.tree(&[("requirements.txt", line)]);
        for engine in ENGINES {
            let ran = place.sandbox.run(place.command(engine, &[]).env("PATH", &bin));
            assert_eq!(ran.code, Some(4), "{}", ran.raw);
            let starts = format!("requirements.txt, line 1: this image has no {program}, which git+");
            assert!(ran.error().starts_with(&starts), "{engine}: {}", ran.error());
            assert!(ran.error().contains("Docker's python images have it"), "{}", ran.error());
        }
        std::fs::write(bin.join("git"), "").unwrap();
        std::fs::set_permissions(bin.join("git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn ssh_keys_of_auth_open_repositories() {
    let place = Place::new();
    let Some(sshd) = Sshd::start(&place.sandbox.path("sshd"), "") else { return };
    std::fs::create_dir(place.sandbox.path("key dir")).unwrap();
    let key = place.sandbox.path("key dir/ssh-privatekey");
    keygen(&key, &["-t", "ed25519"]);
    sshd.authorize(&key);
    place.sandbox.write("key dir/known_hosts", sshd.known_hosts());
    // As in a mounted Secret with fsGroup.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o440)).unwrap();
    let url = sshd.url(&place.sandbox.path("repos/lib.git"));
    let auth = place.sandbox.path("key dir");
    place.add("x", project("x", &place.sandbox.path("mark"), ""));
    for engine in ENGINES {
        let ran = run(&place, engine, &format!("lib @ git+{url}@main"), &["--auth", auth.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{engine}: {}", ran.raw);
        let ran = run(&place, engine, &format!("lib @ git+{url}@main"), &[]);
        assert_eq!(ran.code, Some(3), "{engine}: {}", ran.raw);
        assert!(ran.error().starts_with("requirements.txt, line 2: "), "{}", ran.error());
        assert!(
            ran.error().contains("hint: give --auth the Secret's directory, with ssh-privatekey and known_hosts"),
            "{}",
            ran.error()
        );
        let ran = run(&place, engine, &format!("lib @ git+{url}@v9"), &["--auth", auth.to_str().unwrap()]);
        assert!(ran.error().contains("has no branch or tag v9"), "{}", ran.error());
    }
    let ran = run(&place, "pip", &format!("-e git+{url}@main#egg=lib"), &["--auth", auth.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
}
