//! One parser for both engines: requirements files mean the same with uv and with pip, and an engine never sees the
//! text of the repository.

use std::fs;

use crate::support::http::{Response, Server};
use crate::support::index::{Behaviour, IndexServer};
use crate::support::inputs::{ENGINES, Place};
use crate::support::packages::project;

#[test]
fn what_pip_reads_uv_gets_as_well() {
    let place = Place::new();
    let (lib, files) = (place.git.url("lib.git"), place.index.url().replace("/simple/", "/files"));
    let (repo, wheels) = (place.sandbox.path("repos/lib.git"), place.sandbox.path("wheels"));
    let filled = |text: &str| {
        let text = text.replace("LIB", &lib).replace("FILES", &files);
        text.replace("REPO", repo.to_str().unwrap()).replace("WHEELS", wheels.to_str().unwrap())
    };
    for (text, packages) in [
        ("delta \\\n    >=1.0\n", &["delta 1.0"][..]),
        ("delta \\\n  == \\\n  1.0 # why\n", &["delta 1.0"]),
        ("delta --only-binary=:all:\n", &["delta 1.0"]),
        ("delta --pre --trusted-host h\n", &["delta 1.0"]),
        ("delta\u{c}beta<2\n", &["beta 1.0", "delta 1.0"]),
        ("delta>=1,\n", &["delta 1.0"]),
        ("--only-binary :all:\ndelta\n", &["delta 1.0"]),
        ("-c pins/c.txt\nbeta\n", &["beta 1.0"]),
        ("-r pins/r.txt\n", &["beta 1.0", "delta 1.0"]),
        // Files that include each other, by ever new paths.
        ("-r pins/../requirements.txt\ndelta\n", &["delta 1.0"]),
        ("git+LIB#egg=lib\n", &["lib 1.0"]),
        ("git+LIB@main#egg=lib&subdirectory=.\n", &["lib 1.0"]),
        ("lib @ git+LIB@main#egg=lib\n", &["lib 1.0"]),
        ("git+file://REPO#egg=lib\n", &["lib 1.0"]),
        ("git+file://REPO@main#egg=lib[]\n", &["lib 1.0"]),
        ("lib @ git+file://REPO\n", &["lib 1.0"]),
        ("delta @ FILES/delta-1.0-py3-none-any.whl;python_version>'3'\n", &["delta 1.0"]),
        ("FILES/delta-1.0-py3-none-any.whl; python_version>'3'\n", &["delta 1.0"]),
        ("FILES/delta-1.0-py3-none-any.whl ;python_version>'3'\n", &["delta 1.0"]),
        ("delta[]\nbeta[ ] <2\n", &["beta 1.0", "delta 1.0"]),
        ("delta[] @ FILES/delta-1.0-py3-none-any.whl\n", &["delta 1.0"]),
        ("delta @ file:WHEELS/delta-1.0-py3-none-any.whl\n", &["delta 1.0"]),
    ] {
        let text = &filled(text);
        place.tree(&[
            ("requirements.txt", text),
            ("pins/c.txt", "beta<2\n"),
            ("pins/r.txt", "-c c.txt\n-r more/r.txt\nbeta\n"),
            ("pins/more/r.txt", "delta\n"),
        ]);
        assert_eq!(place.same(&[]), packages, "{text}");
    }
    // The same as packages of the command line.
    for (text, packages) in [
        ("lib @ git+file://REPO", &["lib 1.0"][..]),
        ("git+file://REPO@main#egg=lib", &["lib 1.0"]),
        ("delta @ FILES/delta-1.0-py3-none-any.whl;python_version>'3'", &["delta 1.0"]),
        ("delta[]", &["delta 1.0"]),
    ] {
        place.tree(&[]);
        assert_eq!(place.same(&[&filled(text)]), packages, "{text}");
    }
    // A path with a space needs no quotes for either engine; an editable one may have them.
    for text in ["-e './my lib'\n", "-e ./my lib\n", "./my lib\n"] {
        place.tree(&[("requirements.txt", text)]);
        place.add("my lib", project("lib", &place.sandbox.path("mark"), ""));
        assert_eq!(place.same(&[]), ["lib 1.0"], "{text}");
    }
}

/// An engine, or the build of a project, would read the file behind the link and show or install its text.
#[test]
fn links_of_a_project_that_lead_out_of_the_tree_are_refused() {
    let place = Place::new();
    let outside = place.sandbox.write("outside/pyproject.toml", "s3cret of the Pod\n");
    let workspace = "[project]\nname = \"top\"\nversion = \"1\"\n[tool.uv.workspace]\nmembers = [\"m/*\"]\n";
    let rows = [
        ("requirements.txt", "./p\n", "p/pyproject.toml", "p/pyproject.toml"),
        ("requirements.txt", "-e ./p\n", "p/setup.cfg", "p/setup.cfg"),
        ("requirements.txt", "./p\n", "p/module.py", "p/module.py"),
        ("requirements.txt", "./p/x.whl\n", "p/x.whl", "p/x.whl"),
        ("pyproject.toml", workspace, "m/q/pyproject.toml", "m/q/pyproject.toml"),
    ];
    for (name, text, link, shown) in rows {
        place.tree(&[(name, text), ("p/keep", ""), ("m/q/keep", "")]);
        std::os::unix::fs::symlink(&outside, place.sandbox.path("tree").join(link)).unwrap();
        for engine in ENGINES {
            let error = place.refused(engine, &[]);
            assert!(error.starts_with(&format!("{shown} is a link to a file outside the tree")), "{engine}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
    // A directory of the tree that is a link, and links that stay in the tree.
    place.tree(&[("requirements.txt", "./d\n")]);
    std::os::unix::fs::symlink(outside.parent().unwrap(), place.sandbox.path("tree/d")).unwrap();
    for engine in ENGINES {
        let error = place.refused(engine, &[]);
        assert!(error.starts_with("d is a link to a file outside the tree"), "{engine}: {error}");
    }
    place.tree(&[("requirements.txt", "./lib\n")]);
    place.add("lib", project("lib", &place.sandbox.path("mark"), ""));
    std::os::unix::fs::symlink("lib.py", place.sandbox.path("tree/lib/same.py")).unwrap();
    assert_eq!(place.same(&[]), ["lib 1.0"]);
}

#[test]
fn what_podstrap_does_not_understand_is_refused_by_name() {
    let place = Place::new();
    let outside = place.sandbox.write("outside", "s3cret of the Pod\n");
    let out = outside.to_str().unwrap();
    for (text, starts) in [
        (format!("six --hash=sha256:00 -r {out}\n"), "requirements.txt, line 1: a requirement has invalid syntax"),
        (format!("delta\nsix #x\\\n-r {out}\n"), "cannot find six"),
        (format!("\nsix \\\n-r {out}\n"), "requirements.txt, line 2: a requirement has invalid syntax"),
        (format!("-r {out}\n"), "requirements.txt, line 1 includes a file outside the tree: -r "),
        (format!("-c{out}\n"), "requirements.txt, line 1 includes a file outside the tree: -c"),
        (format!("-r file://{out}\n"), "requirements.txt, line 1 includes a file outside the tree"),
        (format!("--requi={out}\n"), "requirements.txt, line 1: a requirement has invalid syntax"),
        (format!("--no-index-r {out}\n"), "requirements.txt, line 1: a requirement has invalid syntax"),
        (format!("six\u{2028}-r {out}\n"), "requirements.txt, line 2 includes a file outside the tree"),
        (format!("-r more/../../../{out}\n"), "requirements.txt, line 1 includes a file outside the tree"),
        (format!("-c ${{PINS}} -r {out}\n"), "requirements.txt, line 1 includes a file outside the tree"),
        ("-r ${SECRET_FILE}\n".to_owned(), "requirements.txt, line 1 includes a file outside the tree"),
        ("-r gone.txt\n".to_owned(), "requirements.txt, line 1 includes gone.txt, which cannot be read"),
        ("flask ==3 nonsense!\n".to_owned(), "requirements.txt, line 1: a requirement has invalid syntax: flask"),
        ("--index-url\n".to_owned(), "requirements.txt, line 1: a requirement has invalid syntax"),
        ("# coding: koi8-r\nalpha\n".to_owned(), "cannot read requirements.txt"),
        ("-r more/r0.txt\n".to_owned(), "more/r32.txt is nested in more than 32 requirements files"),
    ] {
        place.tree(&[("requirements.txt", &text), ("more/x", "")]);
        for number in 0..40 {
            place.sandbox.write(&format!("tree/more/r{number}.txt"), format!("-r r{}.txt\n", number + 1));
        }
        for engine in ENGINES {
            let mut command = place.command(engine, &["--log-level", "debug"]);
            let pins = place.sandbox.write("pins", "");
            let ran = place.sandbox.run(command.env("PINS", pins).env("SECRET_FILE", out));
            assert_eq!(ran.code, Some(4), "{engine} {text}: {}", ran.raw);
            assert!(ran.error().starts_with(starts), "{engine} {text}: {}", ran.error());
            assert!(!ran.raw.contains("s3cret"), "{engine} {text}: {}", ran.raw);
        }
    }
    // In a file and as a package of the command line. The error says what to write instead.
    let space = "a `;` without white space beside it is a part of the URL\nhint: write a space before the `;`";
    let target =
        "pip requires a URL with an absolute path after `NAME @`\nhint: write the path alone (./lib), or a URL";
    for (line, says) in [
        ("http://127.0.0.1:9/x.whl;python_version>'3'", space),
        ("http://127.0.0.1:9/x.whl;python_version > '3'", space),
        ("file:///x.whl;python_version>'3'", space),
        ("lp @ ./lib", target),
        ("lp @ lib", target),
        ("lp @ file:./lib", target),
        ("alpha[x,]", "hint: write each line as a name with an optional version"),
        ("alpha @ git+http://127.0.0.1:9/x.git@v1;b", "hint: write each line as a name with an optional version"),
    ] {
        place.tree(&[("requirements.txt", &format!("\n{line}\n")), ("lib/pyproject.toml", "")]);
        for engine in ENGINES {
            for (args, starts) in [(&[][..], "requirements.txt, line 2: "), (&[line], "")] {
                let error = place.refused(engine, args);
                let shown = line.replace("127.0.0.1:9", "[HOST]");
                let starts = format!("{starts}a requirement has invalid syntax: {shown}\n");
                assert!(error.starts_with(&starts) && error.contains(says), "{engine} {line}: {error}");
            }
        }
    }
    // The engine's own errors name the file and line of the repository.
    for line in ["alpha ; nope == 'x'", "alpha==1..2", "./gone", "alpha[x]==nope==2"] {
        place.tree(&[("requirements.txt", "# one\n-r more.txt\n"), ("more.txt", &format!("\n\n{line}\n"))]);
        for engine in ENGINES {
            let error = place.refused(engine, &[]);
            assert!(!error.contains("podstrap-"), "{engine} {line}: {error}");
            assert!(
                error.contains("more.txt, line 3") || ["alpha==1..2", "./gone"].contains(&line),
                "{engine} {line}: {error}"
            );
        }
    }
}

#[test]
fn what_uv_cannot_apply_names_the_line_and_pip() {
    let place = Place::new();
    let lib = place.git.url("lib.git");
    for (text, packages) in [
        ("\n-e git+LIB@main#egg=lib\n", &["lib 1.0"][..]),
        ("\n-e git+file://REPO#egg=lib\n", &["lib 1.0"]),
        ("\n--prefer-binary\ndelta\n", &["delta 1.0"]),
        ("\ndelta --config-settings=a=b\n", &["delta 1.0"]),
    ] {
        let repo = place.sandbox.path("repos/lib.git").display().to_string();
        place.tree(&[("requirements.txt", &text.replace("LIB", &lib).replace("REPO", &repo))]);
        let error = place.refused("uv", &[]);
        assert!(error.starts_with("requirements.txt, line 2: uv has no counterpart for "), "{error}");
        assert!(error.contains("use --engine pip"), "{error}");
        assert_eq!(place.installed("pip", &[]).packages, packages, "{text}");
    }
}

#[test]
fn files_on_servers_are_fetched_and_held_to_the_rules_of_the_repository() {
    let place = Place::new();
    let outside = place.sandbox.write("outside", "s3cret of the Pod\n");
    let file_url = format!("-r file://{}\n", outside.display());
    let server = Server::start(move |request| match request.path() {
        "/c.txt" => Response::new(200, "beta<2\n"),
        "/r.txt" => Response::new(200, "alpha\n-c sub/c.txt\n"),
        "/sub/c.txt" => Response::new(200, "-c ../c.txt\n"),
        "/moved.txt" => Response::new(302, "").header("Location", "/c.txt"),
        "/file.txt" => Response::new(200, file_url.clone()),
        "/long.txt" => Response::new(200, vec![b'#'; 17 << 20]),
        _ => Response::new(404, ""),
    });
    let at = |path: &str| format!("{}{path}", server.url());
    place.tree(&[("requirements.txt", "alpha\n"), ("remote.txt", &format!("-r {}\n", at("/r.txt")))]);
    let pinned = ["alpha 1.0", "beta 1.0"];
    assert_eq!(place.same(&["-c", &at("/c.txt"), "-r", "requirements.txt"]), pinned);
    assert_eq!(place.same(&["-c", &at("/moved.txt"), "alpha"]), pinned);
    assert_eq!(place.same(&["-r", &at("/r.txt")]), pinned);
    assert_eq!(place.same(&["-r", "remote.txt"]), pinned);
    for engine in ENGINES {
        let mut command = place.command(engine, &["alpha"]);
        assert_eq!(place.finish(engine, command.env("PIP_CONSTRAINT", at("/c.txt"))).packages, pinned);
        for (path, says) in [
            ("/file.txt", "/file.txt, line 1 includes a file outside the tree"),
            ("/gone.txt", "cannot download http://[HOST]/gone.txt"),
            ("/long.txt", "cannot download http://[HOST]/long.txt\n  because: the file has more than 16.8 MB"),
        ] {
            let error = place.refused(engine, &["-r", &at(path)]);
            assert!(error.contains(says) && !error.contains("s3cret"), "{engine}: {error}");
        }
    }
}

#[test]
fn indexes_of_files_mean_the_same() {
    let place = Place::new();
    let url = place.index.url();
    place.tree(&[
        ("instead.txt", &format!("--index-url {url}\ndelta\n")),
        ("besides.txt", &format!("--extra-index-url {url}\ndelta\n")),
        ("links.txt", &format!("-f {}\n-f ./w\ndelta\n", url.replace("/simple/", "/simple/delta/"))),
        ("w/x", ""),
        ("none.txt", "--no-index\n-f w\nbeta\n"),
        ("home.txt", "--trusted-host 127.0.0.1\ndelta\n"),
    ]);
    fs::copy(
        place.sandbox.path("wheels/beta-1.0-py3-none-any.whl"),
        place.sandbox.path("tree/w/beta-1.0-py3-none-any.whl"),
    )
    .unwrap();
    let nowhere = "http://127.0.0.1:9/simple";
    for engine in ENGINES {
        for (file, index) in [("instead.txt", nowhere), ("home.txt", &*url)] {
            let mut command = place.command(engine, &["-r", file]);
            assert_eq!(
                place.finish(engine, command.env("PIP_INDEX_URL", index)).packages,
                ["delta 1.0"],
                "{engine} {file}"
            );
        }
    }
    assert_eq!(place.same(&["-r", "besides.txt"]), ["delta 1.0"]);
    assert_eq!(place.same(&["-r", "none.txt"]), ["beta 1.0"]);
    // The flag forbids every download that the repository asks for.
    let before = place.index.requests();
    for engine in ENGINES {
        for file in ["links.txt", "besides.txt", "instead.txt"] {
            let error = place.refused(engine, &["--no-index", "-r", file]);
            assert!(error.starts_with("cannot find delta in the --find-links locations"), "{engine} {file}: {error}");
        }
    }
    assert_eq!(place.index.requests(), before);
}

#[test]
fn two_logins_for_one_host_are_both_used() {
    let place = Place::new();
    let [one, other] = ["alpha", "gamma"].map(|name| {
        let dir = place.sandbox.path(&format!("of-{name}"));
        fs::create_dir(&dir).unwrap();
        for file in fs::read_dir(place.sandbox.path("wheels")).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with(name)
                || name == "alpha" && file.file_name().to_string_lossy().starts_with("beta")
            {
                fs::copy(file.path(), dir.join(file.file_name())).unwrap();
            }
        }
        dir
    });
    let one = IndexServer::behaving(&one, Behaviour { login: Some(("ann", "of-one")), ..Behaviour::default() });
    let other = IndexServer::behaving(&other, Behaviour { login: Some(("bob", "of-other")), ..Behaviour::default() });
    place.tree(&[
        ("requirements.txt", "alpha\ngamma\n"),
        (
            "own.txt",
            "--extra-index-url http://bob:${INDEX_PASSWORD}@OTHER\nalpha\ngamma\n"
                .replace("http://bob:${INDEX_PASSWORD}@OTHER", &other.url_with("bob", "${INDEX_PASSWORD}"))
                .as_str(),
        ),
    ]);
    for engine in ENGINES {
        let mut command = place.command(engine, &["-r", "requirements.txt"]);
        command
            .env("PIP_INDEX_URL", one.url_with("ann", "of-one"))
            .env("PIP_EXTRA_INDEX_URL", other.url_with("bob", "of-other"));
        let found = place.finish(engine, &mut command);
        assert_eq!(found.packages, ["alpha 1.0", "beta 2.0", "gamma 1.0"], "{engine}");
        let mut command = place.command(engine, &["-r", "own.txt"]);
        command.env("PIP_INDEX_URL", one.url_with("ann", "of-one")).env("INDEX_PASSWORD", "of-other");
        let found = place.finish(engine, &mut command);
        assert_eq!(found.packages, ["alpha 1.0", "beta 2.0", "gamma 1.0"], "{engine}");
        for (name, bytes) in &found.files {
            assert!(!String::from_utf8_lossy(bytes).contains("of-other"), "{engine}: {}", name.display());
        }
    }
}

#[test]
fn no_published_file_has_a_login() {
    let place = Place::new();
    place.git.require("Basic YWRhOnQwazNuLW9mLWdpdA==");
    let lib = place.git.url_as("${GIT_USER}:${GIT_PASSWORD}", "lib.git");
    for (text, engines) in [
        (format!("lib @ git+{lib}@main\n"), &ENGINES[..]),
        (format!("git+{lib}@main#egg=lib\n"), &ENGINES),
        (format!("-e git+{lib}@main#egg=lib\n"), &["pip"]),
    ] {
        place.tree(&[("requirements.txt", &text)]);
        for engine in engines {
            let mut command = place.command(engine, &["--log-level", "debug"]);
            let found = place.finish(engine, command.env("GIT_USER", "ada").env("GIT_PASSWORD", "t0k3n-of-git"));
            assert_eq!(found.packages, ["lib 1.0"], "{engine} {text}");
            for (name, bytes) in
                crate::support::environment::read_tree(&place.sandbox.path(&format!("volume-{engine}")))
            {
                let bytes = String::from_utf8_lossy(&bytes);
                assert!(!bytes.contains("t0k3n-of-git"), "{engine} {text}: {}", name.display());
            }
            assert!(!found.ran.raw.contains("t0k3n-of-git"), "{}", found.ran.raw);
        }
    }
    // The build of a package may read what its engine may read.
    let setup = "import os\nfrom setuptools import setup\nopen('FILE', 'w').write(repr(open(os.environ['NETRC']).read()))\nsetup(name='old', version='1', py_modules=['old'])\n";
    let secret = place.sandbox.write("secret/netrc", "machine h.example login bob password p4ss-of-index\n");
    for (file, line, named) in [("old.py", "./old", "/old."), ("seen.txt", "-e ./old", "old/seen.txt")] {
        place.tree(&[("old/setup.py", &setup.replace("FILE", file)), ("old/old.py", ""), ("requirements.txt", line)]);
        for engine in ENGINES {
            let error = place.refused(engine, &["--auth", secret.to_str().unwrap()]);
            let first = error.lines().next().unwrap();
            assert!(
                first.contains(named) && first.ends_with(" contains a login or token of this run"),
                "{engine}: {error}"
            );
            assert!(!error.contains("p4ss"), "{error}");
        }
    }
}
