//! Inputs × engines: both engines install the same files from each input, or the engine that cannot read an input
//! recommends the other.

use std::fs;

use crate::support::index::{self, Behaviour};
use crate::support::inputs::{ENGINES, Place};
use crate::support::packages::{project, sha256};

const APP: &str = r#"
[project]
name = "app"
version = "1.0"
requires-python = ">=3.8"
dependencies = ["alpha"]
[project.optional-dependencies]
web = ["gamma[x]"]
all = ["app[web]"]
[dependency-groups]
test = ["delta"]
dev = [{include-group = "test"}, "beta==1.0"]
"#;

#[test]
fn named_packages_and_requirements_files() {
    let place = Place::new();
    place.tree(&[
        ("requirements.txt", "-r base/more.txt\n-c pins.txt\ngamma[x]==1.0 ; python_version > '3'\n"),
        ("base/more.txt", "alpha  # and what it needs\n"),
        ("pins.txt", "beta<2\n"),
        ("uv.toml", "index-url = \"http://127.0.0.1:9/simple\"\n"),
    ]);
    assert_eq!(place.same(&["alpha", "gamma[x]"]), ["alpha 1.0", "beta 2.0", "delta 1.0", "gamma 1.0"]);
    assert_eq!(place.same(&["alpha", "-c", "pins.txt"]), ["alpha 1.0", "beta 1.0"]);
    let nested = ["alpha 1.0", "beta 1.0", "delta 1.0", "gamma 1.0"];
    assert_eq!(place.same(&["-r", "requirements.txt"]), nested);
    let found = place.installed("pip", &[]);
    assert_eq!(found.packages, nested);
    assert!(found.ran.text.contains("installing requirements.txt from the tree"), "{}", found.ran.text);
}

#[test]
fn hashes_mean_the_same_with_both() {
    let place = Place::new();
    let hash = |file: &str| sha256(&place.sandbox.path("wheels").join(file));
    let alpha = format!("alpha==1.0 --hash={}\n", hash("alpha-1.0-py3-none-any.whl"));
    let beta = format!("beta==1.0 \\\n    --hash={}\n", hash("beta-1.0-py3-none-any.whl"));
    let tree = |text: &str| place.tree(&[("requirements.txt", text), ("more.txt", &beta)]);
    tree(&format!("{alpha}{beta}"));
    assert_eq!(place.same(&["-r", "requirements.txt", "--require-hashes"]), ["alpha 1.0", "beta 1.0"]);
    // With one hash missing, both engines fail, with or without --require-hashes.
    for (text, flags) in [
        (format!("{alpha}beta==1.0\n"), &[][..]),
        (alpha.clone(), &[]),
        ("-r more.txt\ndelta==1.0\n".to_owned(), &[]),
        ("delta==1.0\n".to_owned(), &["--require-hashes"]),
        ("./lib\n".to_owned(), &["--require-hashes"]),
    ] {
        tree(&text);
        place.add("lib", project("lib", &place.sandbox.path("mark"), ""));
        for engine in ENGINES {
            let error = place.refused(engine, &[&["-r", "requirements.txt"], flags].concat());
            assert!(error.starts_with("a requirement has no hash"), "{engine} {text}: {error}");
        }
    }
    tree(&alpha.replace(&hash("alpha-1.0-py3-none-any.whl"), &format!("sha256:{}", "0".repeat(64))));
    for engine in ENGINES {
        let error = place.refused(engine, &["-r", "requirements.txt", "--constraint", "more.txt"]);
        assert!(error.starts_with("a download does not match the hashes of its requirement"), "{engine}: {error}");
    }
}

#[test]
fn projects_paths_editables_repositories_and_sources() {
    let place = Place::new();
    let mark = place.sandbox.path("mark");
    let more = "dependencies = [\"alpha\"]\n[project.optional-dependencies]\nweb = [\"delta\"]";
    place.tree(&[
        ("deploy/paths.txt", "./lib\nbeta==1.0\n"),
        ("editable.txt", "-e ./lib\n"),
        ("unnamed.txt", "-e ./old\n"),
        ("vcs.txt", &format!("lib @ git+{}@main\n", place.git.url("lib.git"))),
        ("old/setup.py", "from setuptools import setup\nsetup(name='old', version='1', py_modules=['old'])\n"),
        ("old/old.py", ""),
    ]);
    place.add(".", project("app", &mark, more));
    place.add("lib", project("lib", &mark, ""));
    assert_eq!(place.same(&["."]), ["alpha 1.0", "app 1.0", "beta 2.0"]);
    assert_eq!(place.same(&[".[web]"]), ["alpha 1.0", "app 1.0", "beta 2.0", "delta 1.0"]);
    // Every path is relative to the tree, in whichever file it is.
    assert_eq!(place.same(&["-r", "deploy/paths.txt"]), ["beta 1.0", "lib 1.0"]);
    assert_eq!(place.same(&["-r", "editable.txt"]), ["lib 1.0"]);
    assert_eq!(place.same(&["-r", "vcs.txt"]), ["lib 1.0"]);
    assert_eq!(place.same(&["source"]), ["source 1.0"]);
    assert_eq!(place.same(&["./old"]), ["old 1"]);
    assert!(place.ran().contains("source"));
}

#[test]
fn a_pyproject_gives_its_dependencies_extras_and_groups() {
    let place = Place::new();
    place.tree(&[("pyproject.toml", APP)]);
    assert_eq!(place.same(&["-r", "pyproject.toml"]), ["alpha 1.0", "beta 2.0"]);
    assert_eq!(place.same(&[]), ["alpha 1.0", "beta 2.0"]);
    let all = ["alpha 1.0", "beta 1.0", "delta 1.0", "gamma 1.0"];
    assert_eq!(place.same(&["-r", "pyproject.toml", "--extra", "all", "--group", "dev"]), all);
    let from_variables = ENGINES.map(|engine| {
        let mut command = place.command(engine, &["-r", "pyproject.toml"]);
        place.finish(engine, command.env("PODSTRAP_EXTRA", "web all").env("PODSTRAP_GROUP", "Dev")).packages
    });
    assert!(from_variables.iter().all(|packages| *packages == all), "{from_variables:?}");
    for engine in ENGINES {
        let error = place.refused(engine, &["--extra", "nope"]);
        assert!(error.contains("has no extra nope") && error.ends_with("hint: choose one of: all, web"), "{error}");
        let error = place.refused(engine, &["-r", "pyproject.toml", "--group", "nope"]);
        assert!(error.contains("has no dependency group nope"), "{error}");
        let error = place.refused(engine, &["alpha", "--extra", "web"]);
        assert!(error.contains("none is given") && error.contains("package[extra]"), "{error}");
    }

    // If pip cannot read an input, the error names the alternative.
    let dynamic = "[project]\nname = \"app\"\nversion = \"1\"\ndynamic = [\"dependencies\"]\n";
    place.tree(&[("pyproject.toml", dynamic)]);
    let error = place.refused("pip", &[]);
    assert!(error.contains("as the package `.`, or use uv"), "{error}");
    let sources = format!(
        "[project]\nname = \"app\"\nversion = \"1\"\ndependencies = [\"lib\"]\n[tool.uv.sources]\nlib = {{ git = \"{}\" }}\n",
        place.git.url("lib.git")
    );
    place.tree(&[("pyproject.toml", &sources)]);
    let error = place.refused("pip", &[]);
    assert!(error.contains("gives lib a source in [tool.uv.sources]") && error.contains("--engine uv"), "{error}");
    assert_eq!(place.installed("uv", &[]).packages, ["lib 1.0"]);
    // A file that only configures tools is not an input.
    place.tree(&[("pyproject.toml", "[tool.black]\nline-length = 100\n")]);
    let ran = place.sandbox.run(&mut place.command("pip", &[]));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert!(!place.sandbox.path("volume-pip/venv").exists());
}

#[test]
fn lock_files_are_installed_by_uv_and_refused_by_pip_with_its_name() {
    let place = Place::new();
    let mark = place.sandbox.path("mark");
    place.tree(&[("pyproject.toml", APP), ("requirements.txt", "delta\n")]);
    // Locked versions stay, whatever the index offers later.
    fs::rename(place.sandbox.path("wheels/beta-2.0-py3-none-any.whl"), place.sandbox.path("later")).unwrap();
    place.uv(&["lock"]);
    place.uv(&["export", "--frozen", "--quiet", "--no-emit-project", "--no-default-groups", "-o", "pylock.toml"]);
    fs::rename(place.sandbox.path("later"), place.sandbox.path("wheels/beta-2.0-py3-none-any.whl")).unwrap();
    let locked = ["alpha 1.0", "beta 1.0"];

    let found = place.installed("uv", &[]);
    assert_eq!(found.packages, locked);
    assert!(found.ran.text.contains("installing uv.lock from the tree"), "{}", found.ran.text);
    assert_eq!(
        place.installed("uv", &["--extra", "web", "--group", "dev"]).packages,
        ["alpha 1.0", "beta 1.0", "delta 1.0", "gamma 1.0"]
    );
    assert_eq!(place.installed("uv", &["-r", "pylock.toml"]).packages, locked);
    assert_eq!(
        place.installed("uv", &["-r", "uv.lock", "-r", "requirements.txt", "gamma"]).packages,
        ["alpha 1.0", "beta 1.0", "delta 1.0", "gamma 1.0"]
    );
    let refreshed = ["-r", "uv.lock", "gamma", "--refresh"];
    assert_eq!(place.installed("uv", &refreshed).packages, ["alpha 1.0", "beta 1.0", "gamma 1.0"]);
    // The same files as pip installs for these versions.
    let exported = place.installed("uv", &[]).files;
    place.tree(&[("requirements.txt", "alpha==1.0\nbeta==1.0\n")]);
    assert_eq!(exported, place.installed("pip", &[]).files);

    place.tree(&[("pyproject.toml", APP), ("requirements.txt", "delta\n")]);
    place.uv(&["lock"]);
    for args in [&[][..], &["-r", "uv.lock"]] {
        let error = place.refused("pip", args);
        assert!(error.starts_with("uv.lock requires uv, but the engine is pip "), "{error}");
        assert!(error.contains("hint: use uv: put its static binary next to podstrap"), "{error}");
        assert!(error.contains("hint: or give another file: -r requirements.txt"), "{error}");
    }
    assert_eq!(place.installed("pip", &["-r", "requirements.txt"]).packages, ["delta 1.0"]);
    let error = place.refused("uv", &["--extra", "nope"]);
    assert!(error.contains("has no extra nope"), "{error}");
    let error = place.refused("uv", &["--no-index", "-f", "."]);
    assert!(error.contains("contains URLs of package files") && error.contains("uv export"), "{error}");

    // A project with a build system is installed as a package, and not as editable.
    place.tree(&[]);
    place.add(".", project("app", &mark, "dependencies = [\"alpha\", \"lib\"]\n[tool.uv.sources]\nlib = {workspace = true}\n[tool.uv.workspace]\nmembers = [\"lib\"]"));
    place.add("lib", project("lib", &mark, ""));
    place.uv(&["lock"]);
    let found = place.installed("uv", &[]);
    assert_eq!(found.packages, ["alpha 1.0", "app 1.0", "beta 2.0", "lib 1.0"]);
    assert!(
        !found.files.keys().any(|name| name.extension().is_some_and(|kind| kind == "pth")),
        "a package is editable"
    );
}

#[test]
fn a_wheelhouse_serves_without_an_index() {
    let place = Place::new();
    place.tree(&[("requirements.txt", "alpha\nsource\n")]);
    let wheels = place.sandbox.path("tree/my wheels, all");
    fs::create_dir(&wheels).unwrap();
    for file in ["alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl", "source-1.0.tar.gz"] {
        fs::copy(place.sandbox.path("wheels").join(file), wheels.join(file)).unwrap();
    }
    let all = ["alpha 1.0", "beta 1.0", "source 1.0"];
    let outside = place.sandbox.path("wheels");
    assert_eq!(place.same(&["-r", "requirements.txt", "--no-index", "-f", "./my wheels, all"]), all);
    let with = place.same(&["alpha", "--no-index", "--find-links", outside.to_str().unwrap()]);
    assert_eq!(with, ["alpha 1.0", "beta 2.0"]);
    fs::write(wheels.join("pip.conf"), format!("[install]\nno-index = yes\nfind-links = {}\n", outside.display()))
        .unwrap();
    for engine in ENGINES {
        let mut command = place.command(engine, &["beta"]);
        command.env("PIP_CONFIG_FILE", wheels.join("pip.conf"));
        assert_eq!(place.finish(engine, &mut command).packages, ["beta 2.0"]);
        let error = place.refused(engine, &["gamma", "--no-index", "-f", "my wheels, all"]);
        assert!(error.starts_with("cannot find gamma in the --find-links locations\n"), "{error}");
    }
    for engine in ENGINES {
        let error = place.refused(engine, &["beta", "-f", "/nowhere"]);
        assert!(error.starts_with("cannot read the --find-links location /nowhere"), "{error}");
    }
    assert_eq!(place.index.requests(), 0, "a request reached the index");
    // Without --no-index both the index and the directory are used.
    assert_eq!(place.same(&["alpha", "delta", "-f", "my wheels, all"]), ["alpha 1.0", "beta 2.0", "delta 1.0"]);
}

#[test]
fn with_only_binary_no_code_of_a_package_runs() {
    let place = Place::new();
    let mark = place.sandbox.path("mark");
    place.tree(&[
        ("editable.txt", "-e ./lib\n"),
        ("unnamed.txt", "-e ./old\n"),
        ("vcs.txt", &format!("lib @ git+{}@main\n", place.git.url("lib.git"))),
        ("url.txt", &format!("source @ {}\n", place.index.url().replace("/simple/", "/files/source-1.0.tar.gz"))),
        ("insists.txt", "--no-binary source\nsource\n"),
        (
            "old/setup.py",
            &format!("open({mark:?}, 'a').write('old')\nfrom setuptools import setup\nsetup(name='old')\n"),
        ),
    ]);
    place.add("lib", project("lib", &mark, ""));
    let cases: &[(&[&str], &str)] = &[
        (&["source"], "source"),
        (&["./lib"], "lib"),
        (&["./old"], "old"),
        (&["-r", "vcs.txt"], "lib"),
        (&["-r", "url.txt"], "source"),
    ];
    for (args, name) in cases {
        for engine in ENGINES {
            // The user's PIP_NO_BINARY has no effect.
            let mut command = place.command(engine, &[args, &["--only-binary"][..]].concat());
            let ran = place.sandbox.run(command.env("PIP_NO_BINARY", "source"));
            assert_eq!(ran.code, Some(4), "{engine} {args:?}: {}", ran.raw);
            assert!(
                ran.error().contains("would have to be built, which --only-binary forbids"),
                "{engine} {args:?}: {}",
                ran.error()
            );
            // uv does not run a setup.py to learn its name.
            let unnamed = engine == "uv" && *name == "old";
            assert!(unnamed || ran.error().contains(name), "{engine} {args:?}: {}", ran.error());
            assert_eq!(place.ran(), "", "{engine} {args:?}");
        }
    }
    // uv would build packages if a file or a setting demands it, and build an editable to learn its name.
    place.sandbox.write("home/.config/uv/uv.toml", "no-binary-package = [\"source\"]\n");
    for engine in ENGINES {
        for file in ["insists.txt", "editable.txt", "unnamed.txt"] {
            for flags in [&["--only-binary"][..], &["--target-python", "3.9"]] {
                let error = place.refused(engine, &[&["-r", file], flags].concat());
                assert!(
                    error.starts_with(&format!("{file}, line 1 requests builds, which --only-binary forbids")),
                    "{engine} {file} {flags:?}: {error}"
                );
                assert_eq!(place.ran(), "", "{engine} {file} {flags:?}");
            }
        }
        let command = &mut place.command(engine, &["source", "--only-binary"]);
        let ran = place.sandbox.run(command.env("UV_NO_BINARY_PACKAGE", "source"));
        assert_eq!((ran.code, &*place.ran()), (Some(4), ""), "{engine}: {}", ran.raw);
    }
    fs::remove_file(place.sandbox.path("home/.config/uv/uv.toml")).unwrap();
    for engine in ENGINES {
        let command = &mut place.command(engine, &["source", "--only-binary"]);
        let ran = place.sandbox.run(command.env("UV_NO_BINARY_PACKAGE", "source").env("UV_NO_BINARY", "1"));
        assert_eq!((ran.code, &*place.ran()), (Some(4), ""), "{engine}: {}", ran.raw);
    }
    // The mark does work; and wheels are accepted.
    for engine in ENGINES {
        place.installed(engine, &["-r", "editable.txt"]);
        assert!(place.ran().contains("lib"), "{engine}");
    }
    assert_eq!(place.same(&["alpha", "--only-binary"]), ["alpha 1.0", "beta 2.0"]);

    place.tree(&[]);
    place.add(".", project("app", &mark, "dependencies = [\"alpha\"]"));
    place.uv(&["lock"]);
    place.ran();
    let error = place.refused("uv", &["--only-binary"]);
    assert!(
        error.starts_with("app has no wheel: its source in [TMP]/volume-uv/") && error.contains("package = false"),
        "{error}"
    );
    place.tree(&[("pyproject.toml", &APP.replace("\"alpha\"", "\"source\""))]);
    place.uv(&["lock"]);
    place.ran();
    let error = place.refused("uv", &["--only-binary"]);
    assert!(error.starts_with("source has no wheel for"), "{error}");
    place.tree(&[("pyproject.toml", APP)]);
    place.uv(&["lock"]);
    assert_eq!(place.installed("uv", &["--only-binary"]).packages, ["alpha 1.0", "beta 1.0"]);
    let lock =
        "lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"lib\"\ndirectory = {path = \"lib\"}\n";
    place.sandbox.write("tree/pylock.toml", lock);
    place.add("lib", project("lib", &mark, ""));
    let error = place.refused("uv", &["-r", "pylock.toml", "--only-binary"]);
    assert!(error.starts_with("lib has no wheel: ") && place.ran().is_empty(), "{error}");
    place.sandbox.write("tree/uv.toml", "no-binary-package = [\"alpha\"]\n");
    let error = place.refused("uv", &["--only-binary"]);
    assert!(error.contains("uv.toml requests builds"), "{error}");
    assert_eq!(place.ran(), "");
}

#[test]
fn pip_conf_means_the_same_to_both() {
    let place = Place::new();
    place.tree(&[("requirements.txt", "alpha\n"), ("pins.txt", "beta<2\n")]);
    let url = place.index.url();
    place.sandbox.write(
        "home/.config/pip/pip.conf",
        format!(
            "[global]\nindex-url = http://127.0.0.1:9/simple\n[install]\nindex_url = {url}\nconstraint = pins.txt\n"
        ),
    );
    for engine in ENGINES {
        let with = |name: &str, value: &str| {
            let mut command = place.command(engine, &[]);
            command.env_remove("PIP_INDEX_URL").env(name, value);
            command
        };
        assert_eq!(place.finish(engine, &mut with("X", "")).packages, ["alpha 1.0", "beta 1.0"], "{engine}");
        // A variable overrides a file.
        let mut command = with("PIP_CONSTRAINT", place.sandbox.write("none.txt", "").to_str().unwrap());
        assert_eq!(place.finish(engine, &mut command).packages, ["alpha 1.0", "beta 2.0"], "{engine}");
        // podstrap reports settings that cannot apply to its environments.
        let warned = place.finish(engine, with("PIP_TARGET", "/elsewhere").env("PIP_PREFER_BINARY", "1")).ran;
        assert!(warned.text.contains("ignoring PIP_TARGET:"), "{}", warned.text);
        assert_eq!(warned.text.contains("ignoring PIP_PREFER_BINARY: uv has"), engine == "uv", "{}", warned.text);
        place.sandbox.write("broken.conf", "index-url = x\n");
        let mut command = with("PIP_CONFIG_FILE", place.sandbox.path("broken.conf").to_str().unwrap());
        let ran = place.sandbox.run(&mut command);
        assert!(
            ran.error().starts_with("cannot read pip's configuration file [TMP]/broken.conf\n  because: line 1"),
            "{engine}: {}",
            ran.error()
        );
    }
}

/// A login for indexes and repositories, as Kubernetes mounts it.
#[test]
fn mounted_logins_open_indexes_and_repositories() {
    let mut place = Place::behaving(Behaviour { login: Some(("bob", "p4ss-of-index")), ..Behaviour::default() });
    place.git.require("Basic Ym9iOnA0c3Mtb2YtaW5kZXg=");
    place.tree(&[("requirements.txt", &format!("alpha\nlib @ git+{}@main\n", place.git.url("lib.git")))]);
    let secret = place.sandbox.write("secret/netrc", "machine 127.0.0.1 login bob password p4ss-of-index\n");
    let auth = secret.parent().unwrap().to_str().unwrap();

    // Records the arguments of git and uv.
    let calls = place.sandbox.write("calls", "");
    let uv = index::uv();
    for (name, real) in [("git", "PATH=${PATH#*:}; exec git"), ("uv", &format!("exec {}", uv.display()))] {
        let shim = format!("#!/bin/sh\necho {name} \"$@\" >>{}\n{real} \"$@\"\n", calls.display());
        let path = place.sandbox.write(&format!("bin/{name}"), shim);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    place.uv = place.sandbox.path("bin/uv");
    let path = format!("{}:{}", place.sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    for engine in ENGINES {
        for conf in [false, true] {
            let mut command = place.command(engine, &["--auth", auth, "--log-level", "debug"]);
            command.env("PATH", &path);
            if conf {
                place
                    .sandbox
                    .write("home/.config/pip/pip.conf", format!("[global]\nindex-url = {}\n", place.index.url()));
                command.env_remove("PIP_INDEX_URL");
            }
            let found = place.finish(engine, &mut command);
            assert_eq!(found.packages, ["alpha 1.0", "beta 2.0", "lib 1.0"]);
            let called = fs::read_to_string(&calls).unwrap();
            assert!(called.contains("/lib.git") && (engine != "uv" || called.contains("uv pip install")), "{called}");
            for text in [&called, &found.ran.raw] {
                assert!(!text.contains("p4ss-of-index") && !text.contains("Ym9iOnA0c3M"), "{engine}: {text}");
            }
            let holds = found.files.values().any(|bytes| String::from_utf8_lossy(bytes).contains("p4ss-of-index"));
            assert!(!holds, "{engine}");
        }
        let left: Vec<_> =
            fs::read_dir(place.sandbox.path("tmp")).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");

        // Without the login, or with a wrong one, the index answers 401.
        fs::remove_file(place.sandbox.path("home/.config/pip/pip.conf")).unwrap();
        let wrong = place.sandbox.write("wrong/netrc", "machine 127.0.0.1 login bob password no\n");
        for args in [&["alpha"][..], &["alpha", "--auth", wrong.to_str().unwrap()]] {
            let error = place.refused(engine, args);
            assert!(error.starts_with("the package index http://[HOST]/simple/ answers 401"), "{engine}: {error}");
            assert!(error.contains("give it with --auth"), "{error}");
        }
    }

    place.tree(&[("pyproject.toml", APP)]);
    place.uv(&["lock"]);
    assert_eq!(place.installed("uv", &["--auth", auth]).packages, ["alpha 1.0", "beta 1.0"]);
    let error = place.refused("uv", &["--auth", place.sandbox.path("wrong").to_str().unwrap()]);
    assert!(error.contains("answers 401 Unauthorized") && error.contains("give it with --auth"), "{error}");
}

#[test]
fn what_only_other_tools_read_names_their_export() {
    let place = Place::new();
    place.tree(&[("poetry.lock", ""), ("pyproject.toml", "[tool.poetry.dependencies]\nalpha = \"*\"\n")]);
    for engine in ENGINES {
        insta::allow_duplicates! {
            insta::assert_snapshot!(place.refused(engine, &[]), @r"
            the tree lists requirements only in poetry.lock, which neither pip nor uv reads
            hint: commit the output of `poetry export -f requirements.txt -o requirements.txt` (`poetry self add poetry-plugin-export` adds the command)
            hint: or build no environment: --venv none
            ");
        }
    }
    place.tree(&[("Pipfile.lock", "{}"), ("Pipfile", "")]);
    let error = place.refused("pip", &["-r", "Pipfile.lock"]);
    assert!(error.contains("pipenv requirements > requirements.txt"), "{error}");
    // With --venv none the inputs do not matter.
    let ran = place.sandbox.run(&mut place.command("pip", &["--venv", "none"]));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
}

#[test]
fn a_build_that_lacks_something_names_it() {
    let place = Place::new();
    for (setup, said) in [
        (
            "print('x.c:1:10: fatal error: Python.h: No such file or directory', file=sys.stderr); sys.exit(1)",
            "finds no Python.h",
        ),
        ("print('Error: pg_config executable not found.', file=sys.stderr); sys.exit(1)", "finds no pg_config"),
        ("print(\"x.c:1:10: fatal error: 'ffi.h' file not found\", file=sys.stderr); sys.exit(1)", "finds no ffi.h"),
        ("import numpy", "imports numpy, which its [build-system] does not list"),
    ] {
        place.tree(&[("old/setup.py", &format!("import sys\n{setup}\n"))]);
        for engine in ENGINES {
            let error = place.refused(engine, &["./old"]);
            let first = error.lines().next().unwrap();
            assert!(
                first.contains("has no wheel for cp3") && first.ends_with(&format!("its build {said}")),
                "{engine}: {error}"
            );
            assert!(error.contains("hint: "), "{error}");
        }
    }
    // A build requirement that does not exist.
    place.tree(&[(
        "old/pyproject.toml",
        "[build-system]\nrequires = [\"no-such-backend>=1\"]\nbuild-backend = \"x\"\n",
    )]);
    for engine in ENGINES {
        let error = place.refused(engine, &["./old"]);
        assert!(error.contains("requires no-such-backend"), "{engine}: {error}");
    }
}

/// The tree's files, flags, and whether podstrap reuses the previous step's environment.
type Step<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], bool);

#[test]
fn whatever_is_read_decides_whether_an_environment_is_kept() {
    let place = Place::new();
    let kept = |args: &[&str]| {
        // Runs again on the existing volume.
        let root = place.sandbox.path("volume-uv");
        let saved = place.sandbox.path("saved");
        let _ = fs::rename(&root, &saved);
        let mut command = place.command("uv", args);
        if saved.exists() {
            fs::remove_dir(&root).unwrap();
            fs::rename(&saved, &root).unwrap();
        }
        let ran = place.sandbox.run(&mut command);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran.text.contains(", reused") || !ran.text.contains("finish")
    };
    let steps: &[Step] = &[
        (&[("pyproject.toml", APP)], &[], false),
        (&[("pyproject.toml", APP), ("new.py", "")], &[], true),
        (&[("pyproject.toml", APP), ("new.py", "1")], &["--extra", "web"], false),
        (&[("pyproject.toml", APP), ("new.py", "1")], &["--group", "dev"], false),
        (&[("pyproject.toml", APP), ("w/x", "")], &["-f", "w"], false),
        (&[("pyproject.toml", APP), ("w/x", ""), ("y", "")], &["-f", "w"], true),
        (&[("pyproject.toml", APP), ("w/x", "1"), ("y", "")], &["-f", "w"], false),
        (&[("pyproject.toml", APP)], &["--only-binary"], false),
    ];
    for (files, args, keeps) in steps {
        place.tree(files);
        assert_eq!(kept(args), *keeps, "{args:?} with {:?}", files.last());
    }
    // podstrap compares a lock that refers to nothing in the tree by its contents.
    place.uv(&["lock"]);
    assert!(!kept(&[]));
    place.sandbox.write("tree/other.py", "");
    assert!(kept(&[]));
}
