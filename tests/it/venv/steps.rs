//! `--run`: the user's commands in the complete tree, before it is published.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git::Repo;
use crate::support::index::{IndexServer, uv};
use crate::support::packages::{project, wheel_with};
use crate::support::sandbox::{Ran, Sandbox};

/// An app with one package, which has a console script.
struct App {
    sandbox: Sandbox,
    repo: Repo,
    index: IndexServer,
}

impl App {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let wheels = sandbox.path("wheels");
        let tooling = "import sys\ndef main():\n    print('tool', sys.prefix)\n";
        let entry = "[console_scripts]\ntool = tooling:main\n";
        wheel_with(&wheels, "tool", "1.0", &[], &[("tooling.py", tooling), ("INFO/entry_points.txt", entry)]);
        let repo = Repo::new(&sandbox.path("app.git"));
        repo.file("app.py", "answer = 42\n").file("requirements.txt", "tool==1.0\n").commit("one");
        fs::create_dir_all(sandbox.root()).unwrap();
        Self { index: IndexServer::start(&wheels), sandbox, repo }
    }

    fn command(&self, commands: &[&str]) -> Command {
        let mut command = self.sandbox.podstrap();
        command.arg("init").arg("--repo").arg(self.sandbox.path("app.git")).arg("--root").arg(self.sandbox.root());
        command.arg("--engine").arg(uv()).env("PIP_INDEX_URL", self.index.url());
        command.args(commands.iter().flat_map(|command| ["--run", command]));
        command
    }

    fn init(&self, commands: &[&str]) -> Ran {
        self.sandbox.run(&mut self.command(commands))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox.root().join(name)).unwrap()
    }

    /// What no failed run may change.
    fn published(&self) -> PathBuf {
        self.sandbox.root().join("app.py").canonicalize().unwrap()
    }
}

#[test]
fn commands_run_in_the_complete_tree_with_the_environment() {
    let app = App::new();
    let commands = [
        "tool > out.txt",
        "python -c 'import app, tooling; print(app.answer, file=open(\"answer.txt\", \"w\"))'",
        "pwd > where.txt; ln -s \"$PWD/app.py\" link; mkdir -p static && cp app.py static/",
        "env | grep -v \"$TMPDIR\" > variables.txt; test -w \"$HOME\"; test -w \"$TMPDIR\"",
    ];
    let ran = app.sandbox.run(app.command(&commands).env("HOME", "/").env("SETTING", "a b"));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    let root = app.sandbox.root();
    let public = root.to_str().unwrap();
    // The build path has become the final one.
    assert_eq!(app.read("out.txt"), format!("tool {public}/venv\n"));
    assert_eq!(app.read("where.txt"), format!("{public}\n"));
    assert_eq!(
        fs::read_link(root.join("link").canonicalize().unwrap().with_file_name("link")).unwrap(),
        root.join("app.py")
    );
    assert_eq!((app.read("answer.txt"), app.read("static/app.py")), ("42\n".into(), "answer = 42\n".into()));
    let mode = fs::metadata(root.join("out.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(!root.join("app.py").canonicalize().unwrap().with_file_name("__pycache__").exists());
    let variables = app.read("variables.txt");
    assert!(variables.contains("SETTING=a b\n"), "{variables}");
    for hidden in ["PODSTRAP_", "PIP_INDEX_URL", "HOSTNAME"] {
        assert!(!variables.contains(hidden), "{hidden}: {variables}");
    }
}

#[test]
fn what_the_commands_see_decides_whether_they_run_again() {
    let app = App::new();
    let mark = app.sandbox.path("mark");
    let command = format!("echo x >> {}", mark.display());
    let runs = |ran: Ran| {
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        fs::read_to_string(&mark).unwrap().lines().count()
    };
    assert_eq!(runs(app.init(&[&command])), 1);
    assert_eq!(runs(app.init(&[&command])), 1);
    // Each container has another host name; podstrap's own variables do not count.
    assert_eq!(
        runs(app.sandbox.run(app.command(&[&command]).env("HOSTNAME", "x").env("PODSTRAP_LOG_LEVEL", "debug"))),
        1
    );
    assert_eq!(runs(app.sandbox.run(app.command(&[&command]).env("SETTING", "x"))), 2);
    assert_eq!(runs(app.init(&[&command, &command])), 4);
    app.repo.file("app.py", "answer = 43\n").commit("two");
    assert_eq!(runs(app.init(&[&command, &command])), 6);
}

#[test]
fn a_command_that_fails_publishes_nothing() {
    let app = App::new();
    assert_eq!(app.init(&[]).code, Some(0));
    let before = app.published();
    for (command, code, says) in [
        ("echo first; echo the reason >&2; exit 3", 4, &["failed", "exit status: 3", "first\n", "the reason\n"][..]),
        ("nosuchprogram", 4, &["exit status: 127", "nosuchprogram", "needs a program that this image"]),
        ("if", 4, &["failed", "hint:"]),
        ("kill -9 $$", 4, &["signal: 9", "memory limit"]),
        ("touch venv/bin/extra", 4, &["changed the environment: venv/bin/extra", "name packages"]),
        (
            "for file in venv/lib/*/site-packages/tooling.py; do printf x >> $file; done",
            4,
            &["changed the environment: venv/lib/", "tooling.py"],
        ),
        ("mv venv env; ln -s env venv", 4, &["changed the environment: venv"]),
        ("rm -r venv", 4, &["changed the environment: venv"]),
        ("mkfifo pipe", 4, &["left pipe, which is no file"]),
        ("printf '\\377%s' \"$PWD\" > cache.bin", 4, &["cache.bin refers to its build path"]),
        ("echo \"$TMPDIR\" > place.txt", 4, &["place.txt refers to its build path"]),
        ("echo \"in $PWD... $PWD/app.py\" > place.txt", 4, &["place.txt refers to its build path"]),
        ("ln -s \"$TMPDIR\" place", 4, &["place refers to its build path"]),
        ("rm -r ../tree", 4, &["changed the directory above the tree: tree"]),
        ("mv ../tree ../other; mkdir ../tree", 4, &["changed the directory above the tree: other"]),
        ("rm -r ../tree; ln -s /tmp ../tree", 4, &["replaced the tree"]),
        ("mkdir ../files", 4, &["changed the directory above the tree: files"]),
        ("mkdir -p .podstrap/x", 4, &["made .podstrap at the top of the tree"]),
        (" ", 2, &["--run has no command"]),
    ] {
        let ran = app.init(&["echo before", command]);
        assert_eq!(ran.code, Some(code), "{command}: {}", ran.raw);
        for text in says {
            assert!(ran.raw.contains(text), "{command}: {text}: {}", ran.raw);
        }
        assert_eq!(app.published(), before, "{command}");
    }
    // Nor may a login of the run be found there, or in the error.
    let secret = app.sandbox.write("secrets/token", "s3cret-token-0123456789");
    let auth = secret.parent().unwrap();
    // Also with an old modification time.
    let copies = ["true", "touch -d 2020-01-01 leaked"].map(|then| format!("cp {} leaked; {then}", secret.display()));
    for command in copies.into_iter().chain([format!("cat {}; false", secret.display())]) {
        let ran = app.sandbox.run(app.command(&[&command]).arg("--auth").arg(auth));
        assert!(ran.code == Some(4) && ran.raw.contains(" a login"), "{}", ran.raw);
        assert!(!ran.raw.contains("s3cret"), "{}", ran.raw);
        assert_eq!(app.published(), before);
    }
    // The environment of the release that serves is not shared with the commands.
    let module = before.with_file_name("venv");
    let site =
        fs::read_dir(module.join("lib")).unwrap().next().unwrap().unwrap().path().join("site-packages/tooling.py");
    assert!(fs::read_to_string(site).unwrap().ends_with("sys.prefix)\n"));
    let ran = app.sandbox.run(app.command(&["true"]).args(["--store-only", "--store"]).arg(app.sandbox.path("store")));
    assert!(ran.code == Some(2) && ran.raw.contains("--store-only conflicts with --run"), "{}", ran.raw);
}

#[test]
fn the_limits_of_init_hold_for_commands() {
    let app = App::new();
    let leaves = "sleep 987654 & setsid sleep 987655 & echo done";
    assert_eq!(app.init(&[leaves]).code, Some(0));
    assert!(!lives("987654") && !lives("987655"));
    let ran = app.sandbox.run(app.command(&["sleep 987656"]).arg("--timeout=3s"));
    assert!(ran.code == Some(4) && ran.raw.contains("killed at the deadline"), "{}", ran.raw);
    assert!(!lives("987656"));
    let ran = app.sandbox.run(app.command(&["head -c 50000000 /dev/zero > big; sleep 5"]).arg("--size-limit=20Mi"));
    assert!(ran.code == Some(5) && ran.raw.contains("exceeds the size limit"), "{}", ran.raw);
    assert!(!app.sandbox.root().join("big").exists());
}

/// Whether a process has this argument.
fn lives(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

/// As for the files of the source.
#[test]
fn every_user_can_read_what_a_command_wrote() {
    let app = App::new();
    let commands = [
        "umask 077; mkdir private; echo x > private/file; chmod 4711 private/file; echo x > none; chmod 000 none app.py",
    ];
    let ran = app.init(&commands);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    for (name, mode) in [("private", 0o755), ("private/file", 0o755), ("none", 0o644), ("app.py", 0o644)] {
        let found = fs::metadata(app.sandbox.root().join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
}

#[test]
fn the_path_of_the_app_is_the_one_that_the_flags_say() {
    let app = App::new();
    // A command sees the root without links.
    let link = app.sandbox.path("link");
    std::os::unix::fs::symlink(app.sandbox.root(), &link).unwrap();
    let mut command = app.command(&["pwd > where.txt"]);
    assert_eq!(app.sandbox.run(command.arg("--root").arg(&link)).code, Some(2), "given twice");
    let mut command = app.sandbox.podstrap();
    command.arg("init").arg("--repo").arg(app.sandbox.path("app.git")).arg("--root").arg(&link);
    command.args(["--venv=none", "--run", "pwd > where.txt"]);
    let ran = app.sandbox.run(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(app.read("where.txt"), format!("{}\n", link.display()));
    let ran = app.sandbox.run(app.command(&["pwd > where.txt"]).arg("--venv-final-path=/srv/shop/venv"));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(app.read("where.txt"), "/srv/shop\n");
}

#[test]
fn an_editable_project_is_refused() {
    let app = App::new();
    for (name, text) in project("lib", &app.sandbox.path("mark"), "") {
        app.repo.file(format!("lib/{name}"), text);
    }
    app.repo.file("requirements.txt", "-e ./lib\n").commit("two");
    let ran = app.init(&["true"]);
    assert!(ran.code == Some(2) && ran.raw.contains("--run does not go with the editable project lib"), "{}", ran.raw);
}

#[test]
fn an_app_without_an_environment_has_commands_too() {
    let app = App::new();
    let ran = app.sandbox.run(app.command(&["cat app.py > copy.txt"]).arg("--venv=none"));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(app.read("copy.txt"), "answer = 42\n");
    assert!(!Path::new(&app.sandbox.root().join("venv")).exists());
}

/// As for each flag; but one variable is one command.
#[test]
fn a_variable_names_one_command() {
    let app = App::new();
    let ran = app.sandbox.run(app.command(&[]).env("PODSTRAP_RUN", "echo one two > words.txt"));
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(app.read("words.txt"), "one two\n");
}
