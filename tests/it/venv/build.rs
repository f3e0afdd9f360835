//! Real environments, built with both engines from a local index.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use podstrap::plan::{EngineRequest, PythonRequest};
use podstrap::retry::Deadline;
use podstrap::venv::{self, Builder};

use crate::support::environment::{Bench, contains, engines, names, script, wanted};
use crate::support::index::{Behaviour, IndexServer, wheelhouse};
use crate::support::packages::wheel_with;
use crate::support::sandbox::Sandbox;

#[test]
fn flask_runs_from_its_final_path_with_either_engine() {
    let index = IndexServer::start(&wheelhouse());
    let mut sets = Vec::new();
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["Flask"]);
        let built = bench.build();
        assert!(bench.run("bin/flask", &["--version"]).contains("Flask 3.1"));
        bench.run("bin/python", &["-c", "import flask, markupsafe._speedups"]);
        assert_eq!(
            bench.run("bin/python", &["-c", "import sys; print(sys.prefix)"]).trim(),
            bench.final_path().to_str().unwrap()
        );

        let files = bench.contents();
        let staging = bench.sandbox.path("staging");
        for (name, bytes) in &files {
            assert!(!contains(bytes, staging.to_str().unwrap()), "{} contains its build path", name.display());
        }
        // Bytecode: for every source, unchecked, in the format that Python itself writes.
        for (name, bytes) in files.iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "pyc")) {
            assert_eq!(bytes[4..8], [1, 0, 0, 0], "{}", name.display());
        }
        bench.run("bin/python", &["-c", CHECK_BYTECODE]);
        bench.run("bin/python", &["-c", CHECK_RECORDS]);
        sets.push(names(&built));
    }
    assert_eq!(sets[0], sets[1]);
    assert_eq!(
        sets[0],
        [
            "blinker 1.9.0",
            "click 8.1.8",
            "flask 3.1.2",
            "itsdangerous 2.2.0",
            "jinja2 3.1.6",
            "markupsafe 3.0.2",
            "werkzeug 3.1.3"
        ]
    );
}

const CHECK_BYTECODE: &str = "
import glob, importlib.util, marshal, os, site
for source in glob.glob(site.getsitepackages()[0] + '/**/*.py', recursive=True):
    data = open(importlib.util.cache_from_source(source), 'rb').read()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[8:16] == importlib.util.source_hash(open(source, 'rb').read())
    assert marshal.loads(data[16:]).co_filename == source, source
";

const CHECK_RECORDS: &str = "
import base64, hashlib, importlib.metadata
for dist in importlib.metadata.distributions():
    for file in dist.files:
        data = file.read_binary()
        assert file.size in (None, len(data)), file
        if file.hash:
            assert base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode() == file.hash.value, file
";

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["flask"]);
        bench.build();
        let first = bench.contents();
        bench.build();
        let second = bench.contents();
        let differ: Vec<_> = first.keys().filter(|name| second.get(*name) != first.get(*name)).collect();
        assert!(differ.is_empty() && first.len() == second.len(), "{differ:?}");
    }
}

#[test]
fn a_source_distribution_is_built_in_isolation() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["docopt"]);
        assert_eq!(names(&bench.build()), ["docopt 0.6.2"]);
        bench.run("bin/python", &["-c", "import docopt"]);
    }
}

#[test]
fn an_editable_project_points_to_where_the_tree_will_be() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).requirements("-e ./lib\n-c constraints.txt\nflask\n");
        bench.sandbox.write("tree/constraints.txt", "click==8.1.8\n");
        bench.sandbox.write(
            "tree/lib/pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
             [project]\nname = \"mylib\"\nversion = \"1.0\"\n[tool.setuptools]\npackages = [\"mylib\"]\n",
        );
        bench.sandbox.write("tree/lib/mylib/__init__.py", "answer = 42\n");
        bench.build();
        let from = bench.sandbox.path("tree/lib");
        for (name, bytes) in bench.contents() {
            assert!(!contains(&bytes, bench.sandbox.path("tree").to_str().unwrap()), "{}", name.display());
        }
        std::fs::rename(from, bench.sandbox.path("app/lib")).unwrap();
        assert_eq!(bench.run("bin/python", &["-c", "import mylib; print(mylib.answer)"]), "42\n");
        bench.run("bin/python", &["-c", CHECK_RECORDS]);
    }
}

#[test]
fn a_long_final_path_gets_scripts_that_still_run() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["flask"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let long = bench.sandbox.path(&format!("{}/venv", "long".repeat(40)));
        runtime.block_on(async {
            let deadline = Deadline::after(bench.limit);
            let wanted = wanted("venv", &long);
            let public = long.parent().unwrap();
            let toolchain =
                venv::locate(&bench.settings(), &bench.python, &bench.engine, &venv::Identities::default(), deadline)
                    .await
                    .unwrap();
            let builder = Builder::create(bench.settings(), &toolchain, &wanted, public, bench.dirs(), deadline);
            let builder = builder.await.unwrap();
            builder.install(&bench.inputs, None, deadline).await.unwrap();
            builder.finish(None, deadline).await.unwrap();
        });
        std::fs::create_dir_all(long.parent().unwrap()).unwrap();
        std::fs::rename(bench.staging(), &long).unwrap();
        let output = Command::new(long.join("bin/flask")).arg("--version").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let activated = format!(". '{}/bin/activate' && command -v flask && echo $VIRTUAL_ENV", long.display());
        let output = Command::new("/bin/sh").args(["-c", &activated]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{0}/bin/flask\n{0}\n", long.display()));
    }
}

#[test]
fn a_lost_file_is_installed_again() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["flask"]);
        bench
            .build_with(|staging| {
                let site =
                    staging.join("lib").read_dir().unwrap().next().unwrap().unwrap().path().join("site-packages");
                std::fs::remove_file(site.join("flask/app.py")).unwrap();
                // Truncate a cached file as well: uv installs hardlinks to its cache, so the cache entry shrinks too.
                std::fs::OpenOptions::new().write(true).open(site.join("click/core.py")).unwrap().set_len(10).unwrap();
            })
            .unwrap();
        assert!(bench.run("bin/flask", &["--version"]).contains("Flask 3.1"));
        // The next run with this cache is complete as well.
        bench.build();
        bench.run("bin/python", &["-c", CHECK_RECORDS]);
    }
}

#[test]
fn a_password_stays_out_of_arguments_messages_and_the_environment() {
    let behaviour = Behaviour { login: Some(("me", "s3cr3t")), ..Behaviour::default() };
    let index = IndexServer::behaving(&wheelhouse(), behaviour);
    for engine in engines() {
        let bench = Bench::new(engine.clone(), &index.url_with("me", "s3cr3t")).packages(&["docopt"]);
        bench.build();
        for (name, bytes) in bench.contents() {
            assert!(!contains(&bytes, "s3cr3t"), "{}", name.display());
        }
        let left: Vec<_> = bench.sandbox.path("scratch").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("netrc")), "{left:?}");
    }

    // A fake child records its arguments and environment.
    let index_url = "http://me:s3cr3t@127.0.0.1:9/simple/";
    let spy = Bench::new(EngineRequest::Pip, index_url).packages(&["x @ http://you:t0ken@localhost:9/x.whl"]);
    let seen = spy.sandbox.path("seen");
    let text = format!(
        "#!/bin/sh\necho uv 9.9\n{{ echo \"$@\"; env; }} >> {0}\n[ $1 = --version ] || cat \"$NETRC\" >> {0}.netrc\n",
        seen.display()
    );
    let fake = script(&spy.sandbox, "uv", &text);
    let spy = Bench { engine: EngineRequest::UvAt(fake), ..spy };
    spy.build();
    let text = std::fs::read_to_string(&seen).unwrap();
    assert!(!text.contains("s3cr3t") && !text.contains("t0ken"), "{text}");
    assert!(std::fs::read_to_string(spy.sandbox.path("seen.netrc")).unwrap().contains("login me password s3cr3t"));

    for engine in engines() {
        let bench = Bench::new(engine, index_url).packages(&["flask"]).within(Duration::from_secs(3));
        assert!(!bench.fails().contains("s3cr3t"));
    }
}

#[test]
fn an_index_that_recovers_is_waited_for() {
    for engine in engines() {
        let index = IndexServer::behaving(&wheelhouse(), Behaviour { unavailable: 3, ..Behaviour::default() });
        let bench = Bench::new(engine, &index.url()).packages(&["itsdangerous"]);
        assert_eq!(names(&bench.build()), ["itsdangerous 2.2.0"]);
        assert!(index.requests() > 3);
    }
}

#[test]
fn a_strict_umask_is_not_published() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["itsdangerous"]);
        bench
            .build_with(|staging| {
                let script = staging.join("bin/activate");
                std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o600)).unwrap();
                std::fs::set_permissions(staging, std::fs::Permissions::from_mode(0o700)).unwrap();
            })
            .unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(bench.final_path()), mode(bench.final_path().join("bin/activate"))), (0o755, 0o644));
        assert_eq!(mode(bench.site().join("itsdangerous/__pycache__")), 0o755);
        for entry in bench.site().join("itsdangerous/__pycache__").read_dir().unwrap() {
            assert_eq!(mode(entry.unwrap().path()), 0o644);
        }
    }
}

#[test]
fn test_suites_of_packages_get_no_bytecode_and_still_work() {
    let sandbox = Sandbox::new();
    let more = [
        ("kit/__init__.py", ""),
        ("kit/testing.py", ""),
        ("kit/tests/__init__.py", ""),
        ("kit/tests/test_a.py", "A = 1"),
    ];
    wheel_with(&sandbox.path("wheels"), "suite", "1", &[], &more);
    let index = IndexServer::start(&sandbox.path("wheels"));
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["suite"]);
        bench.build();
        let compiled = |dir: &str| bench.site().join(dir).join("__pycache__").read_dir().map_or(0, Iterator::count);
        assert_eq!((compiled("kit"), compiled("kit/tests")), (2, 1));
        assert_eq!(bench.run("bin/python", &["-Bc", "import kit.tests.test_a; print(kit.tests.test_a.A)"]).trim(), "1");
    }
}

#[test]
fn uv_settings_of_the_tree_do_not_count() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let bench = Bench::new(engine, &index.url()).packages(&["itsdangerous"]);
        bench.sandbox.write("tree/uv.toml", "index-url = \"http://127.0.0.1:9/simple\"\n");
        bench.build();
    }
}

/// The other interpreters and pips of a machine:
/// `PODSTRAP_TEST_PYTHONS=/a/python:/b/python cargo test -- --ignored every_interpreter`.
#[test]
#[ignore = "needs PODSTRAP_TEST_PYTHONS"]
fn every_interpreter_builds_the_same() {
    let index = IndexServer::start(&wheelhouse());
    for python in std::env::split_paths(&std::env::var_os("PODSTRAP_TEST_PYTHONS").unwrap()) {
        for engine in engines() {
            let mut bench = Bench::new(engine, &index.url()).packages(&["docopt", "itsdangerous"]);
            bench.python = PythonRequest::Path(python.clone());
            let built = bench.build();
            eprintln!("{}: Python {}", python.display(), built.python_version);
            assert_eq!(names(&built), ["docopt 0.6.2", "itsdangerous 2.2.0"]);
            bench.run("bin/python", &["-c", "import docopt, itsdangerous"]);
            bench.run("bin/python", &["-c", CHECK_BYTECODE]);
            bench.run("bin/python", &["-c", CHECK_RECORDS]);
        }
    }
}
