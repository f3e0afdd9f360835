//! The errors of an environment, with both engines.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use podstrap::error::Kind;
use podstrap::plan::{EngineRequest, PythonRequest};
use podstrap::retry::Deadline;
use podstrap::venv::{self};

use crate::support::environment::{Bench, engines, script};
use crate::support::http::{Response, Server};
use crate::support::index::{Behaviour, IndexServer, wheelhouse};
use crate::support::packages::wheel_with;
use crate::support::table::row;

#[test]
fn no_python() {
    let bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/").var("PATH", "/nowhere");
    insta::assert_snapshot!(bench.fails(), @r"
    error: found no Python
      because: looked for python3, python in PATH ([PATH])
    hint: run podstrap in an image with this Python, ideally the app's own, or give an interpreter's path with --python
    ");
    // A shim that does not work is not a usable Python either.
    let bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/");
    script(&bench.sandbox, "shims/python3", "#!/bin/sh\necho 'shim: python3: command not found' >&2\nexit 127\n");
    let path = bench.sandbox.path("shims").to_str().unwrap().to_owned();
    let bench = bench.var("PATH", path);
    insta::assert_snapshot!(bench.fails(), @r"
    error: found no Python
      because: looked for python3, python in PATH ([PATH])
      | [TMP]/shims/python3: does not run (exit status: 127): shim: python3: command not found
    hint: run podstrap in an image with this Python, ideally the app's own, or give an interpreter's path with --python
    ");
}

#[test]
fn another_version() {
    let mut bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = Deadline::after(bench.limit);
    let found = runtime
        .block_on(venv::locate(&bench.settings(), &bench.python, &bench.engine, &venv::Identities::default(), deadline))
        .unwrap();
    std::fs::create_dir(bench.sandbox.path("bin")).unwrap();
    symlink(found.python.path, bench.sandbox.path("bin/python3")).unwrap();
    bench = Bench { python: PythonRequest::Version { major: 3, minor: 99 }, ..bench };
    let path = bench.sandbox.path("bin").to_str().unwrap().to_owned();
    let bench = bench.var("PATH", path);
    let text =
        regex::Regex::new(r"is Python 3\.\d+").unwrap().replace_all(&bench.fails(), "is Python 3.N").into_owned();
    insta::assert_snapshot!(text, @r"
    error: found no Python 3.99
      because: looked for python3.99, python3, python in PATH ([PATH])
      | [TMP]/bin/python3 is Python 3.N
    hint: run podstrap in an image with this Python, ideally the app's own, or give an interpreter's path with --python
    ");
}

#[test]
fn a_python_that_is_too_old() {
    let mut bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/");
    let old = script(&bench.sandbox, "python", "#!/bin/sh\necho 3 5\necho /bin/sh\n");
    bench.python = PythonRequest::Path(old);
    let text = bench.fails();
    let path = Path::new("/bin/sh").canonicalize().unwrap();
    insta::assert_snapshot!(text.replace(path.to_str().unwrap(), "[PYTHON]"), @r"
    error: [PYTHON] is Python 3.5, which is too old
      because: podstrap needs Python 3.8 or newer
    hint: use an app image with a newer Python (and Unit's module for it), or another interpreter with --python
    ");
    // With a real old Python, if the machine has one.
    let versions = std::env::home_dir().unwrap().join(".pyenv/versions");
    let real = |minor: &str| {
        let mut dirs = versions.read_dir().ok()?.flatten().map(|entry| entry.path());
        dirs.find(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(minor)))
    };
    for minor in ["2.7.", "3.6.", "3.7."] {
        let Some(dir) = real(minor) else {
            eprintln!("SKIPPED: no Python {minor}x here");
            continue;
        };
        bench.python = PythonRequest::Path(dir.join("bin/python"));
        let text = bench.fails();
        assert!(text.contains(&format!("is Python {minor}")[..minor.len() + 9]) && text.contains("too old"), "{text}");
    }
}

/// A table of each row's result with both engines.
fn with_both(rows: &[(&str, &dyn Fn(EngineRequest) -> Bench)]) -> String {
    let each = rows.iter().flat_map(|(name, bench)| {
        ["uv", "pip"]
            .into_iter()
            .zip(engines())
            .map(move |(engine, request)| row(&format!("{name}, {engine}"), || bench(request).fails()))
    });
    each.collect()
}

#[test]
fn requirements_that_no_package_meets() {
    let index = IndexServer::start(&wheelhouse());
    let url = index.url();
    let of = |packages: &'static [&str]| {
        let url = &url;
        move |engine| Bench::new(engine, url).packages(packages)
    };
    insta::assert_snapshot!(with_both(&[
        ("no such name", &of(&["no-such-thing"])),
        ("no such version", &of(&["flask==99"])),
        ("a conflict", &of(&["flask==3.1.2", "click==8.1.7", "click==8.1.8"])),
    ]), @r"
    -- no such name, uv
    error: cannot find no-such-thing in the package index
      | error: No solution found when resolving dependencies
      |   cause: Because no-such-thing was not found in the package registry and you require no-such-thing, we can conclude that your requirements are unsatisfiable.
    hint: check the name, and for a private index set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL
    -- no such name, pip
    error: cannot find no-such-thing in the package index
      | ERROR: Could not find a version that satisfies the requirement no-such-thing (from versions: none)
      | ERROR: No matching distribution found for no-such-thing
    hint: check the name, and for a private index set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL
    -- no such version, uv
    error: cannot find flask==99 in the package index
      | error: No solution found when resolving dependencies
      |   cause: Because there is no version of flask==99 and you require flask==99, we can conclude that your requirements are unsatisfiable.
    hint: check the name and the version, and whether the package has an archive for [PLATFORM]
    -- no such version, pip
    error: cannot find flask==99 in the package index
      | ERROR: Could not find a version that satisfies the requirement flask==99 (from versions: 3.1.2)
      | ERROR: No matching distribution found for flask==99
    hint: check the name and the version, and whether the package has an archive for [PLATFORM]
    -- a conflict, uv
    error: the requirements contradict each other
      | error: No solution found when resolving dependencies
      |   cause: Because you require click==8.1.7 and click==8.1.8, we can conclude that your requirements are unsatisfiable.
    hint: loosen or remove one of the versions in the lines above
    -- a conflict, pip
    error: the requirements contradict each other
      | ERROR: Cannot install click==8.1.7 and click==8.1.8 because these package versions have conflicting dependencies.
    hint: loosen or remove one of the versions in the lines above
    ");
}

/// Needs the pip of Debian 12.
#[test]
fn an_old_pip_installs_from_an_index_with_metadata() {
    let python = Path::new("/usr/bin/python3");
    let output = std::process::Command::new(python).args(["-m", "pip", "--version"]).output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if !["pip 22.3", "pip 23.0", "pip 23.1"].iter().any(|old| version.starts_with(old)) {
        eprintln!("SKIPPED: /usr/bin/python3 has no pip 22.3 to 23.1: {version}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wheel = std::fs::read(wheel_with(dir.path(), "Flask_X", "1.0", &[], &[])).unwrap();
    let server = Server::start(move |request| {
        let file = "Flask_X-1.0-py3-none-any.whl";
        let page =
            |attribute| format!("<!DOCTYPE html><html><body><a href=\"/{file}\" {attribute}>{file}</a></body></html>");
        let html = |attribute| Response::new(200, page(attribute)).header("Content-Type", "text/html");
        match request.path() {
            "/old/flask-x/" => html("data-dist-info-metadata=\"true\""),
            "/new/flask-x/" => html("data-core-metadata=\"true\""),
            "/none/flask-x/" => html(""),
            "/json/flask-x/" => Response::new(
                200,
                format!(
                    "{{\"meta\": {{\"api-version\": \"1.0\"}}, \"name\": \"flask-x\", \"files\": [{{\"filename\": \"{file}\", \
                     \"url\": \"/{file}\", \"hashes\": {{}}, \"dist-info-metadata\": {{\"sha256\": \"00\"}}}}]}}"
                ),
            )
            .header("Content-Type", "application/vnd.pypi.simple.v1+json"),
            "/Flask_X-1.0-py3-none-any.whl" => Response::new(200, wheel.clone()),
            "/Flask_X-1.0-py3-none-any.whl.metadata" => {
                Response::new(200, "Metadata-Version: 2.1\nName: Flask_X\nVersion: 1.0\n")
            }
            _ => Response::new(404, ""),
        }
    });
    let bench = |page: &str| {
        let bench = Bench::new(EngineRequest::Pip, &format!("{}/{page}", server.url())).packages(&["flask-x"]);
        Bench { python: PythonRequest::Path(python.to_owned()), ..bench }
    };
    for page in ["old", "new", "none", "json"] {
        let built = bench(page).build();
        assert_eq!(built.distributions.len(), 1, "{page}");
    }
}

#[test]
fn a_name_that_sounds_like_trouble_is_only_a_name() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        let text = Bench::new(engine, &index.url()).packages(&["async-timeout==99"]).fails();
        assert!(text.starts_with("error: cannot find async-timeout"), "{text}");
    }
}

#[test]
fn no_wheel_and_no_compiler() {
    let index = IndexServer::start(&wheelhouse());
    let texts = engines().map(|engine| {
        let bench = Bench::new(engine, &index.url()).packages(&["./fast"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deadline = Deadline::after(bench.limit);
        let found =
            runtime.block_on(venv::locate(&bench.settings(), &bench.python, &bench.engine, &venv::Identities::default(), deadline)).unwrap();
        std::fs::create_dir(bench.sandbox.path("bin")).unwrap();
        symlink(found.python.path, bench.sandbox.path("bin/python3")).unwrap();
        bench.sandbox.write(
            "tree/fast/setup.py",
            "from setuptools import setup, Extension\nsetup(name='fast', version='1', ext_modules=[Extension('fast', ['fast.c'])])\n",
        );
        bench.sandbox.write("tree/fast/fast.c", "");
        let path = bench.sandbox.path("bin").to_str().unwrap().to_owned();
        let text = bench.var("PATH", path).fails();
        // The excerpt is the output of the build.
        text.lines().filter(|line| !line.starts_with("  | ")).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(texts[0].replace("uv", "pip"), texts[1]);
    insta::assert_snapshot!(texts[1], @r"
    error: fast has no wheel for [PLATFORM] and this image has no C compiler
    hint: pin a version with a wheel, use another image, or supply a wheelhouse (--find-links)
    ");
}

#[test]
fn requirements_files_that_cannot_be_read() {
    let nowhere = "http://127.0.0.1:9/";
    insta::assert_snapshot!(with_both(&[
        ("missing", &|engine| {
            let mut bench = Bench::new(engine, nowhere);
            bench.inputs.requirements = vec![bench.sandbox.path("tree/requirements.txt")];
            bench
        }),
        ("includes a missing one", &|engine| Bench::new(engine, nowhere).requirements("-r base/more.txt\n")),
        ("written wrongly", &|engine| Bench::new(engine, nowhere).requirements("flask ==3 nonsense!\n")),
    ]), @r"
    -- missing, uv
    error: the requirements file [TMP]/tree/requirements.txt does not exist
    hint: commit the file, or correct -r or -c: paths are relative to the top of the repository
    -- missing, pip
    error: the requirements file [TMP]/tree/requirements.txt does not exist
    hint: commit the file, or correct -r or -c: paths are relative to the top of the repository
    -- includes a missing one, uv
    error: requirements.txt, line 1 includes base/more.txt, which cannot be read
      because: No such file or directory (os error 2)
    hint: commit the file, or correct its path after -r or -c, which is relative to the including file
    -- includes a missing one, pip
    error: requirements.txt, line 1 includes base/more.txt, which cannot be read
      because: No such file or directory (os error 2)
    hint: commit the file, or correct its path after -r or -c, which is relative to the including file
    -- written wrongly, uv
    error: requirements.txt, line 1: a requirement has invalid syntax: flask ==3 nonsense!
    hint: write each line as a name with an optional version (Flask==3.1.0), a URL or a path, or as one option of pip's requirements files
    -- written wrongly, pip
    error: requirements.txt, line 1: a requirement has invalid syntax: flask ==3 nonsense!
    hint: write each line as a name with an optional version (Flask==3.1.0), a URL or a path, or as one option of pip's requirements files
    ");
}

#[test]
fn an_index_that_cannot_be_reached() {
    let [with_uv, with_pip] = engines().map(|engine| {
        let bench = Bench::new(engine, "http://127.0.0.1:9/simple").packages(&["flask"]).within(Duration::from_mins(1));
        bench.var("PIP_RETRIES", "0").fails()
    });
    insta::assert_snapshot!(with_uv, @r"
    error: cannot download from http://[HOST]/simple/flask/
      because: Connection refused (os error 111)
      because: gave up after [N] tries in [TIME] (--timeout 1m)
      | error: Failed to fetch: http://[HOST]/simple/flask/
      |   cause: error sending request for url (http://[HOST]/simple/flask/)
      |   cause: client error (Connect)
      |   cause: tcp connect error
      |   cause: Connection refused (os error 111)
    hint: check whether the Pod can reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: cannot download from http://[HOST]/simple/flask/
      because: Could not fetch URL http://[HOST]/simple/flask/: connection error: HTTPConnectionPool(host='127.0.0.1', p …  object at [ADDRESS]>: Failed to establish a new connection: [Errno 111] Connection refused')) - skipping
      because: gave up after [N] tries in [TIME] (--timeout 1m)
      | Could not fetch URL http://[HOST]/simple/flask/: connection error: HTTPConnectionPool(host='127.0.0.1', p …  object at [ADDRESS]>: Failed to establish a new connection: [Errno 111] Connection refused')) - skipping
      | ERROR: Could not find a version that satisfies the requirement flask (from versions: none)
      | ERROR: No matching distribution found for flask
    hint: check whether the Pod can reach it: DNS, network policy, proxy (HTTPS_PROXY), PIP_INDEX_URL
    ");
}

#[test]
fn an_index_that_wants_a_login() {
    let behaviour = Behaviour { login: Some(("me", "s3cr3t")), ..Behaviour::default() };
    let index = IndexServer::behaving(&wheelhouse(), behaviour);
    let [with_uv, with_pip] =
        engines().map(|engine| Bench::new(engine, &index.url_with("me", "wrong")).packages(&["flask"]).fails());
    insta::assert_snapshot!(with_uv, @r"
    error: the package index http://[HOST]/simple/ answers 401 Unauthorized
      | error: No solution found when resolving dependencies
      |   cause: Because flask was not found in the package registry and you require flask, we can conclude that your requirements are unsatisfiable.
    hint: mount a netrc file with the login for its host and give it with --auth, or put user and password into the index URL (PIP_INDEX_URL, from a Secret)
    ");
    insta::assert_snapshot!(with_pip, @r"
    error: the package index http://[HOST]/simple/ answers 401 Unauthorized
      | Could not fetch URL http://[HOST]/simple/flask/: 401 Client Error: X for url: http://[HOST]/simple/flask/ - skipping
      | ERROR: Could not find a version that satisfies the requirement flask (from versions: none)
      | ERROR: No matching distribution found for flask
    hint: mount a netrc file with the login for its host and give it with --auth, or put user and password into the index URL (PIP_INDEX_URL, from a Secret)
    ");
}

#[test]
fn a_requirement_for_another_python() {
    let texts = engines().map(|engine| {
        let bench = Bench::new(engine, "http://127.0.0.1:9/").packages(&["./next"]).var("PIP_NO_INDEX", "1");
        bench.sandbox.write(
            "tree/next/pyproject.toml",
            "[project]\nname = \"next\"\nversion = \"1\"\nrequires-python = \">=3.99\"\n",
        );
        let bench = bench.var("PIP_FIND_LINKS", wheelhouse().to_str().unwrap());
        let text = regex::Regex::new(r"3\.\d+\.\d+").unwrap().replace_all(&bench.fails(), "3.N").into_owned();
        text.lines().filter(|line| !line.starts_with("  | ")).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(texts[0], texts[1]);
    insta::assert_snapshot!(texts[0], @r"
    error: a requirement does not support Python 3.N
    hint: pin a version that supports it, or use an app image with another Python
    ");
}

#[test]
fn a_hash_that_does_not_match() {
    let index = IndexServer::start(&wheelhouse());
    let line = format!("itsdangerous==2.2.0 --hash=sha256:{}\n", "0".repeat(64));
    let texts = engines().map(|engine| Bench::new(engine, &index.url()).requirements(&line).fails());
    for text in texts {
        assert!(text.starts_with("error: a download does not match the hashes of its requirement\n"), "{text}");
    }
}

#[test]
fn a_full_volume_is_the_volumes_failure() {
    let mut bench = Bench::new(EngineRequest::Pip, "http://127.0.0.1:9/").packages(&["flask"]);
    let full = "#!/bin/sh\n[ $1 = --version ] && { echo uv 9.9; exit; }\n\
        echo 'error: failed to write: No space left on device (os error 28)' >&2\nexit 2\n";
    bench.engine = EngineRequest::UvAt(script(&bench.sandbox, "uv", full));
    let error = bench.build_with(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Volume);
    insta::assert_snapshot!(bench.normal(&error), @r"
    error: uv [VERSION] could not write all files
      because: No space left on device (os error 28)
      | error: failed to write: No space left on device (os error 28)
    hint: raise the emptyDir's sizeLimit or the claim's size: the volume has no free space or inodes (df -h, df -i)
    ");
}

#[test]
fn no_time_left() {
    let index = IndexServer::start(&wheelhouse());
    let mut bench = Bench::new(EngineRequest::Pip, &index.url()).packages(&["flask"]).within(Duration::from_secs(3));
    let slow = script(
        &bench.sandbox,
        "uv",
        "#!/bin/sh\n[ $1 = --version ] && { echo uv 9.9; exit; }\necho 'still at it' >&2\nsleep 60\n",
    );
    bench.engine = EngineRequest::UvAt(slow);
    insta::assert_snapshot!(bench.fails(), @r"
    error: uv [VERSION] did not finish the installation
      because: [TMP]/uv was killed at the deadline, after [TIME] (--timeout 3s)
      because: gave up after [N] tries in [TIME] (--timeout 3s)
      | still at it
    hint: raise --timeout, or find the slow step with --log-level debug
    ");
}

#[test]
fn an_index_that_stalls_when_it_is_asked_again_costs_no_more_than_the_time_out() {
    let stalls = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!("http://{}/simple", stalls.local_addr().unwrap());
    let mut bench = Bench::new(EngineRequest::Pip, &index).packages(&["flask"]).within(Duration::from_secs(2));
    let says = "#!/bin/sh\n[ $1 = --version ] && { echo uv 9.9; exit; }\n\
        echo 'Because flask was not found in the package registry' >&2\nexit 1\n";
    bench.engine = EngineRequest::UvAt(script(&bench.sandbox, "uv", says));
    let started = Instant::now();
    let text = bench.fails();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(text.starts_with("error: the package index") && text.contains("does not answer"), "{text}");
    assert!(text.contains("gave up after"), "{text}");
}

#[test]
fn a_uv_that_does_not_run() {
    let index = IndexServer::start(&wheelhouse());
    let mut bench = Bench::new(EngineRequest::Auto, &index.url()).packages(&["itsdangerous"]);
    let broken = script(&bench.sandbox, "bin/uv", "#!/nonexistent/loader\n");
    let path = format!("{}:{}", bench.sandbox.path("bin").display(), bench.vars["PATH"]);
    bench = bench.var("PATH", path);
    assert!(bench.build().engine.starts_with("pip "));
    bench.engine = EngineRequest::UvAt(broken);
    insta::assert_snapshot!(bench.fails(), @r"
    error: cannot run the uv at [TMP]/bin/uv
      because: cannot start [TMP]/bin/uv
      because: No such file or directory (os error 2)
    hint: use the static (musl) build of uv for this processor, or --engine pip
    ");
}

/// A wheel must not replace the interpreter or the activation scripts: podstrap and the app run them.
#[test]
fn a_package_that_replaces_a_file_of_the_environment() {
    let script = "#!python\nprint('mine')\n";
    let entry = |name: &str| format!("[console_scripts]\n{name} = evil:version\n");
    let (python, python3, activate) = (entry("python"), entry("python3.99"), entry("activate"));
    let rows: [(&str, &str, &str); 6] = [
        ("INFO/entry_points.txt", &python, "bin/python"),
        ("INFO/entry_points.txt", &python3, "bin/python3.99"),
        ("INFO/entry_points.txt", &activate, "bin/activate"),
        ("DATA/scripts/python", script, "bin/python"),
        ("DATA/data/bin/python3", script, "bin/python3"),
        ("DATA/data/pyvenv.cfg", "home = /nowhere\n", "pyvenv.cfg"),
    ];
    for (file, text, replaced) in rows {
        for engine in engines() {
            let mut bench = Bench::new(engine, "http://127.0.0.1:9/").packages(&["evil"]);
            wheel_with(&bench.sandbox.path("wheels"), "evil", "1.0", &[], &[(file, text)]);
            let wheels = bench.sandbox.path("wheels").to_str().unwrap().to_owned();
            bench = bench.var("PIP_FIND_LINKS", wheels).var("PIP_NO_INDEX", "1");
            let error = bench.fails();
            let ours = error.contains(&format!("evil 1.0 replaces {replaced} of the environment"));
            // uv refuses some of these itself.
            assert!(ours || error.contains("evil") && error.contains("| "), "{file} {replaced}: {error}");
        }
    }
}

/// uv does not apply `NO_PROXY=*` to an address.
#[test]
fn no_proxy_for_all_hosts_counts_for_addresses_too() {
    let index = IndexServer::start(&wheelhouse());
    for engine in engines() {
        for name in ["NO_PROXY", "no_proxy"] {
            let bench = Bench::new(engine.clone(), &index.url()).packages(&["click==8.1.8"]);
            let bench = bench.var("HTTP_PROXY", "http://127.0.0.1:9").var("http_proxy", "http://127.0.0.1:9");
            bench.var(name, "localhost, *").build();
        }
    }
}
