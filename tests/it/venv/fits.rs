//! Environments fit the app's Python, wherever it is, or podstrap reports that they do not.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::index::{
    Behaviour, IndexServer, elsewhere, other_machine, other_python, own_python, uv, wheelhouse,
};
use crate::support::namespaces::namespaced;
use crate::support::packages::wheel_with;
use crate::support::sandbox::{Ran, Sandbox};

/// An app's directory, a volume, and an index with wheels for this platform and others.
struct World {
    sandbox: Sandbox,
    index: IndexServer,
}

impl World {
    fn new() -> Self {
        Self::behaving(Behaviour::default())
    }
    fn behaving(behaviour: Behaviour) -> Self {
        let sandbox = Sandbox::new();
        let packages = sandbox.path("packages");
        fs::create_dir(&packages).unwrap();
        for from in [wheelhouse(), elsewhere()] {
            for entry in from.read_dir().unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, packages.join(path.file_name().unwrap())).unwrap();
            }
        }
        sandbox.write("app/index.py", "");
        let index = IndexServer::behaving(&packages, Behaviour { hashes: true, ..behaviour });
        Self { sandbox, index }
    }
    fn init(&self, engine: &str, args: &[&str]) -> Command {
        let engine = if engine == "uv" { uv().display().to_string() } else { engine.to_owned() };
        let _ = fs::remove_dir_all(self.sandbox.root());
        let mut command = self.sandbox.podstrap();
        command.args(["init", "--engine", &engine, "--repo"]).arg(self.sandbox.path("app"));
        command.arg("--root").arg(self.sandbox.root()).args(args).env("PIP_INDEX_URL", self.index.url());
        command
    }
    fn run(&self, engine: &str, args: &[&str]) -> Ran {
        self.sandbox.run(&mut self.init(engine, args))
    }
    fn ok(&self, engine: &str, args: &[&str]) -> Ran {
        let ran = self.run(engine, args);
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        ran
    }
    /// The error's text; asserts that nothing was published.
    fn fails(&self, engine: &str, args: &[&str]) -> String {
        let ran = self.run(engine, args);
        assert_eq!(ran.code, Some(4), "{}", ran.raw);
        assert!(!self.sandbox.root().join(".podstrap/current").exists() && !self.venv().exists(), "{}", ran.raw);
        ran.error().to_owned()
    }
    fn venv(&self) -> PathBuf {
        self.sandbox.root().join("venv")
    }
    /// The environment's part of release.json.
    fn record(&self) -> Value {
        let release = self.sandbox.root().join(".podstrap/current/release.json");
        serde_json::from_slice::<Value>(&fs::read(release).unwrap()).unwrap()["environment"].clone()
    }
    /// Repacks a wheel for another platform as one for this platform, named `name`. `source` is its only module
    /// besides the compiled one.
    fn disguised(&self, name: &str, from: &str, source: Option<&str>) -> PathBuf {
        let wheel = find(&elsewhere(), from);
        let own = own_python().replace('.', "");
        let to = self.sandbox.path(&format!("{name}-3.0.2-cp{own}-cp{own}-{}.whl", platform()));
        let python = Command::new("python3")
            .args(["-c", DISGUISE, name, source.unwrap_or_default()])
            .args([&wheel, &to])
            .output()
            .unwrap();
        assert!(python.status.success(), "{python:?}");
        to
    }
}

/// This machine's platform tag for wheels.
fn platform() -> String {
    format!("linux_{}", std::env::consts::ARCH)
}

const DISGUISE: &str = "
import base64, hashlib, sys, zipfile
name, source, old, new = sys.argv[1:]
rows = []
with zipfile.ZipFile(old) as a, zipfile.ZipFile(new, 'w') as b:
    def put(path, data):
        b.writestr(path, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
        rows.append('%s,sha256=%s,%d' % (path, digest, len(data)))
    for item in a.namelist():
        data = a.read(item)
        path = item.replace('MarkupSafe-', name + '-').replace('markupsafe/', name.lower() + '/')
        if path.endswith('/'):
            pass
        elif path.endswith('RECORD'):
            record = path
        elif path.endswith('METADATA'):
            put(path, data.replace(b'Name: MarkupSafe', b'Name: ' + name.encode()))
        elif source and path.endswith('__init__.py'):
            put(path, source.encode())
        elif not source or not path.endswith('.py'):
            put(path, data)
    b.writestr(record, '\\n'.join(rows + [record + ',,']) + '\\n')
";

/// The file in a directory whose name contains all of these parts.
fn find(dir: &Path, parts: &str) -> PathBuf {
    let parts: Vec<&str> = parts.split(' ').collect();
    let mut files = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| parts.iter().all(|part| path.to_str().unwrap().contains(part))).unwrap()
}

/// The paths below a directory, relative to it.
fn below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                dirs.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

const ENGINES: [&str; 2] = ["uv", "pip"];

#[test]
fn wheels_for_another_python_and_platform_are_installed_where_it_looks() {
    let world = World::new();
    let other = other_python();
    let mut seen = Vec::new();
    for engine in ENGINES {
        let target = ["--target-python", other, "--target-platform", "musllinux_1_2_aarch64"];
        let ran = world.ok(engine, &[&target[..], &["--venv-final-path", "/app/venv", "flask"]].concat());
        assert!(ran.text.contains(&format!("cannot compile for Python {other}")), "{}", ran.raw);
        let venv = world.venv();
        let files = below(&venv);
        let digits = other.replace('.', "");
        let module =
            format!("lib/python{other}/site-packages/markupsafe/_speedups.cpython-{digits}-aarch64-linux-musl.so");
        assert!(files.contains(&module), "{files:?}");
        assert!(!files.iter().any(|file| file.contains("__pycache__") || file.contains(&own_python())), "{files:?}");
        let link = |name: &str| fs::read_link(venv.join("bin").join(name)).unwrap();
        assert_eq!(link("python"), Path::new(&format!("/usr/local/bin/python{other}")));
        assert_eq!(link("python3"), Path::new("python"));
        assert_eq!(link(&format!("python{other}")), Path::new("python"));
        assert!(fs::read_to_string(venv.join("bin/flask")).unwrap().starts_with("#!/app/venv/bin/python"));
        let config = fs::read_to_string(venv.join("pyvenv.cfg")).unwrap();
        assert!(
            config.starts_with("home = /usr/local/bin\n") && config.contains(&format!("version = {other}\n")),
            "{config}"
        );
        // Every file in RECORD exists.
        let site = venv.join(format!("lib/python{other}/site-packages"));
        for info in
            site.read_dir().unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some())
        {
            for line in fs::read_to_string(info.join("RECORD")).unwrap_or_default().lines() {
                assert!(site.join(line.split(',').next().unwrap()).exists(), "{line}");
            }
        }
        let record = world.record();
        assert_eq!(record["python"], other);
        seen.push((
            record["packages"].clone(),
            files.into_iter().filter(|file| !file.contains("REQUESTED")).collect::<Vec<_>>(),
        ));
    }
    assert_eq!(seen[0].0, seen[1].0, "the engines installed different archives");
    assert_eq!(seen[0].1, seen[1].1);
}

#[test]
fn another_platform_of_the_same_python_gets_its_wheels_and_bytecode() {
    let world = World::new();
    for engine in ENGINES {
        world.ok(engine, &["--target-platform", "musllinux_1_2_x86_64", "markupsafe"]);
        let files = below(&world.venv());
        assert!(files.iter().any(|file| file.ends_with("-linux-musl.so")), "{files:?}");
        assert!(files.iter().any(|file| file.contains("__pycache__")), "{files:?}");
    }
    // A platform includes all older tags.
    for engine in ENGINES {
        world.ok(
            engine,
            &["--target-python", other_python(), "--target-platform", "manylinux_2_28_x86_64", "markupsafe"],
        );
        assert!(below(&world.venv()).iter().any(|file| file.ends_with("x86_64-linux-gnu.so")));
    }
}

#[test]
fn requires_python_is_about_the_apps_python() {
    let world = World::new();
    let exactly = |version: &str| format!("=={version}.*");
    let wheels = world.sandbox.path("local");
    for (version, python) in [("1.0", own_python()), ("2.0", other_python().to_owned())] {
        let info =
            format!("Metadata-Version: 2.1\nName: picky\nVersion: {version}\nRequires-Python: {}\n", exactly(&python));
        wheel_with(&wheels, "picky", version, &[], &[("INFO/METADATA", &info)]);
    }
    // uv reads it from an index only.
    let args = ["--no-index", "--find-links", wheels.to_str().unwrap(), "picky"];
    for (target, version) in [(None, "1.0"), (Some(other_python()), "2.0")] {
        let target = target.map(|target| ["--target-python", target]).into_iter().flatten();
        let ran = world.ok("pip", &args.into_iter().chain(target).collect::<Vec<_>>());
        assert!(ran.raw.contains(&format!("picky {version}")), "{version}: {}", ran.raw);
    }
}

#[test]
fn for_elsewhere_nothing_is_built() {
    let world = World::new();
    for engine in ENGINES {
        let error = world.fails(engine, &["--target-python", other_python(), "docopt"]);
        let words = "and would have to be built, which --only-binary forbids\n";
        let hint =
            "hint: run podstrap in the app's own image to build it: another Python or platform implies --only-binary";
        assert!(error.starts_with("docopt has no wheel for cp3") && error.contains(words), "{error}");
        assert!(error.ends_with(hint), "{error}");
        // The same Python is no other target.
        world.ok(engine, &["--target-python", &own_python(), "docopt"]);
    }
    let error = world.fails("uv", &["--target-platform", "manylinux_2_28_s390x", "markupsafe"]);
    assert_eq!(error, "uv cannot install for manylinux_2_28_s390x\nhint: use --engine pip");
}

#[test]
fn what_the_app_cannot_load_is_told() {
    let world = World::new();
    let own = own_python().replace('.', "");
    let musl = world.disguised("MarkupSafe", &format!("cp{own}-cp{own} musllinux x86_64"), None);
    let other = other_machine();
    let needy = Some("from needy import _speedups\n");
    let processor = world.disguised("needy", &format!("cp{own}-cp{own} manylinux {other}"), needy);
    let reraised =
        "try:\n    from . import _speedups\nexcept ImportError as e:\n    raise ImportError('broken') from e\n";
    let raising = world.disguised("raising", &format!("cp{own}-cp{own} musllinux x86_64"), Some(reraised));
    for engine in ENGINES {
        let ran = world.ok(engine, &[musl.to_str().unwrap()]);
        let words = format!(
            "warning: MarkupSafe 3.0.2 works without its compiled module: lib/python{}/site-packages/markupsafe/_speedups.cpython-{own}-x86_64-linux-musl.so \
             is for cp{own} x86_64 musl; the app has cp{own} {} glibc\n",
            own_python(),
            std::env::consts::ARCH
        );
        assert!(ran.text.contains(&words), "{}", ran.raw);
        let error = world.fails(engine, &["--strict", musl.to_str().unwrap()]);
        assert!(
            error.starts_with("the installed packages have problems, which --strict forbids\n  because: MarkupSafe"),
            "{error}"
        );
        let error = world.fails(engine, &[processor.to_str().unwrap()]);
        assert!(
            error.starts_with("the app's Python cannot load some installed packages\n  because: needy 3.0.2: lib/"),
            "{error}"
        );
        assert!(error.contains(&format!("is for cp{own} {other} glibc; the app has")), "{error}");
        assert!(error.contains("--target-platform"), "{error}");
        let error = world.fails(engine, &[raising.to_str().unwrap()]);
        assert!(error.contains("because: raising 3.0.2: lib/"), "{error}");
    }
}

#[test]
fn a_build_that_went_on_without_its_compiler_is_told() {
    let world = World::new();
    let setup = "from setuptools import setup, Extension\nsetup(name='speedy', version='1', packages=['speedy'],\n\
        package_data={'speedy': ['*.c']}, ext_modules=[Extension('speedy._fast', ['speedy/_fast.c'], optional=True)])\n";
    world.sandbox.write("app/speedy/setup.py", setup);
    world.sandbox.write("app/speedy/speedy/_fast.c", "#error no\n");
    world.sandbox.write(
        "app/speedy/speedy/__init__.py",
        "try:\n    from speedy._fast import f\nexcept ImportError:\n    f = None\n",
    );
    for engine in ENGINES {
        let ran = world.ok(engine, &["./speedy"]);
        assert!(
            ran.text.contains("warning: speedy 1 was built without its compiled module speedy._fast"),
            "{}",
            ran.raw
        );
        world.fails(engine, &["--strict", "./speedy"]);
    }
}

#[test]
fn what_is_required_and_not_there_is_told() {
    let world = World::new();
    for engine in ENGINES {
        let ran = world.sandbox.run(world.init(engine, &["flask"]).env("PIP_NO_DEPS", "1"));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert!(
            ran.text.contains("warning: Flask 3.1.2 requires werkzeug>=3.1.0, which is not installed\n"),
            "{}",
            ran.raw
        );
        // A Python that includes importlib.metadata does not need the package.
        assert!(!ran.text.contains("importlib"), "{}", ran.raw);
        let ran = world.sandbox.run(world.init(engine, &["--strict", "flask"]).env("PIP_NO_DEPS", "1"));
        assert_eq!(ran.code, Some(4), "{}", ran.raw);
        assert!(
            ran.error().contains("| Flask 3.1.2 requires werkzeug>=3.1.0, which is not installed\n"),
            "{}",
            ran.raw
        );
        world.ok(engine, &["--strict", "flask"]);
    }
    world.sandbox.write(
        "app/wants/pyproject.toml",
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n[project]\nname = 'wants'\nversion = '1'\n\
         dependencies = ['click<8.1', 'docopt ; python_version < \"3\"', 'blinker[x] ; extra == \"y\"']\n[tool.setuptools]\npackages = []\n",
    );
    for engine in ENGINES {
        let ran = world.sandbox.run(world.init(engine, &["./wants", "click==8.1.8"]).env("PIP_NO_DEPS", "1"));
        let warnings: Vec<_> = ran.text.lines().filter(|line| line.contains("warning: ")).collect();
        assert_eq!(warnings, ["podstrap: warning: wants 1 requires click<8.1, but 8.1.8 is installed"], "{}", ran.raw);
    }
}

#[test]
fn the_record_says_where_everything_came_from() {
    let world = World::behaving(Behaviour { login: Some(("me", "s3cr3t")), ..Behaviour::default() });
    world.sandbox.write(
        "app/lib/pyproject.toml",
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n[project]\nname = 'mylib'\nversion = '1'\n\
         [tool.setuptools]\npackages = []\n",
    );
    let mut seen = Vec::new();
    for engine in ENGINES {
        let mut command = world.init(engine, &["markupsafe", "docopt", "./lib"]);
        let ran = world.sandbox.run(command.env("PIP_INDEX_URL", world.index.url_with("me", "s3cr3t")));
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        let packages = world.record()["packages"].clone();
        assert!(!packages.to_string().contains("s3cr3t"), "{packages}");
        seen.push(packages);
    }
    assert_eq!(seen[0], seen[1]);
    let of = |name: &str| {
        let packages = seen[0].as_array().unwrap();
        packages.iter().find(|dist| dist["name"].as_str().unwrap().eq_ignore_ascii_case(name)).unwrap().clone()
    };
    let url = |name: &str| of(name)["source"]["url"].as_str().unwrap().to_owned();
    assert!(url("docopt").ends_with("/files/docopt-0.6.2.tar.gz"), "{}", url("docopt"));
    assert!(url("markupsafe").contains("/files/MarkupSafe-3.0.2-cp"), "{}", url("markupsafe"));
    // The path as the app sees it, not the build path.
    assert_eq!(url("mylib"), format!("file://{}/lib", world.sandbox.root().display()));
    let contents = of("markupsafe")["contents"].as_str().unwrap().to_owned();
    assert!(contents.starts_with("sha256:") && contents != of("docopt")["contents"].as_str().unwrap());
}

#[test]
fn an_editable_project_whose_place_is_not_known_is_refused() {
    let world = World::new();
    world.sandbox.write("app/requirements.txt", "-e ./lib\n");
    world.sandbox.write(
        "app/lib/pyproject.toml",
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n[project]\nname = 'mylib'\nversion = '1'\n\
         [tool.setuptools]\npackages = ['mylib']\n",
    );
    world.sandbox.write("app/lib/mylib/__init__.py", "");
    for engine in ENGINES {
        let error = world.fails(engine, &["--venv", "python/venv", "--venv-final-path", "/srv/env"]);
        assert!(error.contains("refers to the tree, whose path in the app's container is unknown\n"), "{error}");
        assert!(error.contains("podstrap cannot derive the tree's path from the final path /srv/env"), "{error}");
        world.ok(engine, &["--venv", "python/venv", "--venv-final-path", "/srv/python/venv"]);
        let record = world.record();
        assert_eq!(record["packages"][0]["source"]["url"], "file:///srv/lib");
        assert_eq!(record["packages"][0]["source"]["editable"], true);
        for file in below(&world.sandbox.root().join("python/venv")) {
            let bytes = fs::read(world.sandbox.root().join("python/venv").join(&file)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(".podstrap/staging"), "{file}");
        }
    }
}

#[test]
fn its_python_starts_where_the_apps_image_has_it() {
    let world = World::new();
    let prefix = Command::new("python3").args(["-c", "import sys; print(sys.base_prefix)"]).output().unwrap();
    let prefix = String::from_utf8(prefix.stdout).unwrap().trim().to_owned();
    let there = world.sandbox.path("image");
    fs::create_dir(&there).unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).unwrap();
    let python = there.join("bin").join(format!("python{}", own_python()));
    for engine in ENGINES {
        world.ok(engine, &["--python-final-path", python.to_str().unwrap(), "flask"]);
        assert_eq!(fs::read_link(world.venv().join("bin/python")).unwrap(), python);
        assert_eq!(world.record()["python_path"], python.to_str().unwrap());
        let mut command = Command::new(world.venv().join("bin/flask"));
        command.arg("--version");
        // Move the interpreter to another path, and hide the original one unless it is the system's.
        let hide = if prefix == "/usr" { String::new() } else { format!("mount -t tmpfs none {prefix} && ") };
        let script = format!("mount --bind {prefix} {0} && {hide}\"$@\"", there.display());
        let Some(mut command) = namespaced(&command, &script) else { return };
        let output = command.env("PATH", "/usr/bin:/bin").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("Flask 3.1.2"), "{output:?}");
    }
}

#[test]
fn a_path_too_long_for_a_first_line_is_told() {
    let world = World::new();
    let long = format!("/{}/venv", "long".repeat(40));
    for engine in ENGINES {
        let ran = world.ok(engine, &["--venv-final-path", &long, "flask"]);
        assert!(
            ran.text.contains(
                "warning: the app's image needs /bin/sh for bin/flask, because the interpreter's path is too long"
            ),
            "{}",
            ran.raw
        );
    }
}
