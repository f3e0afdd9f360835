//! Inputs that are not files: a named pipe without a writer, and a link to an endless device.
//!
//! Each of them must end a run at once, with the exit code of the input, and the message must name the path and what it
//! is. An address space of 2 GiB is enough.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, mkfifoat};

use crate::support::index::uv;
use crate::support::sandbox::{Ran, Sandbox};

/// The longest time from the start to the error.
const AT_ONCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Pipe,
    Endless,
}

impl Special {
    fn make(self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match self {
            Self::Pipe => mkfifoat(CWD, path, 0o644.into()).unwrap(),
            Self::Endless => symlink("/dev/zero", path).unwrap(),
        }
    }
    fn shown(self) -> &'static str {
        match self {
            Self::Pipe => "it is a named pipe",
            Self::Endless => "it is a device",
        }
    }
}

/// Runs the command with little memory.
fn run(sandbox: &Sandbox, command: &Command, what: &str) -> Ran {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 2097152; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(sandbox.path("")).process_group(0);
    let start = Instant::now();
    let ran = sandbox.run(&mut limited);
    assert!(start.elapsed() < AT_ONCE, "{what} took {:?}: {}", start.elapsed(), ran.raw);
    ran
}

fn init(sandbox: &Sandbox) -> Command {
    sandbox.write("app/index.py", "");
    init_of(sandbox, &sandbox.path("app"), Path::new("pip"))
}

fn init_of(sandbox: &Sandbox, source: &Path, engine: &Path) -> Command {
    let mut command = sandbox.podstrap();
    command.args(["init", "--timeout", "30s", "--engine"]).arg(engine);
    command.arg("--repo").arg(source).arg("--root").arg(sandbox.root());
    command.env("PIP_CONFIG_FILE", "/dev/null").env("PIP_NO_INDEX", "1");
    command
}

/// The command for an input at a path.
type Make = fn(&Sandbox, &Path) -> Command;

fn with(mut command: Command, args: &[&str], path: &Path) -> Command {
    command.args(args).arg(path);
    command
}

fn with_variable(mut command: Command, name: &str, path: &Path) -> Command {
    command.arg("six").env(name, path);
    command
}

#[test]
fn inputs_that_are_not_files_are_refused_at_once() {
    let inputs: &[(&str, u8, Make)] = &[
        ("config", 2, |sandbox, at| with(sandbox.podstrap(), &["apply", "--config"], at)),
        ("config/unit.json", 2, |sandbox, at| with(sandbox.podstrap(), &["apply", "--config"], at.parent().unwrap())),
        ("config/x.pem", 2, |sandbox, at| with(sandbox.podstrap(), &["apply", "--config"], at.parent().unwrap())),
        ("sidecar", 2, |sandbox, at| with(sandbox.podstrap(), &["sidecar", "--config"], at)),
        ("check", 2, |sandbox, at| with(sandbox.podstrap(), &["check"], at)),
        ("token", 2, |sandbox, at| with(init(sandbox), &["--auth"], at)),
        ("secret/token", 2, |sandbox, at| with(init(sandbox), &["--auth"], at.parent().unwrap())),
        ("secret/password", 2, |sandbox, at| with(init(sandbox), &["--auth"], at.parent().unwrap())),
        ("ca.pem", 2, |sandbox, at| with(init(sandbox), &["--ca-file"], at)),
        ("source", 3, |sandbox, at| init_of(sandbox, at, Path::new("pip"))),
        ("requirements.txt", 4, |sandbox, at| with(init(sandbox), &["-r"], at)),
        ("constraints.txt", 4, |sandbox, at| with(init(sandbox), &["six", "-c"], at)),
        ("pyproject.toml", 4, |sandbox, at| with(init(sandbox), &["-r"], at)),
        ("uv.lock", 4, |sandbox, at| with(init(sandbox), &["-r"], at)),
        ("six-1.0-py3-none-any.whl", 4, |sandbox, at| with(init(sandbox), &[], at)),
        ("links", 4, |sandbox, at| with(init(sandbox), &["six", "--find-links"], at)),
        ("links/six-1.0.tar.gz", 4, |sandbox, at| with(init(sandbox), &["six", "--find-links"], at.parent().unwrap())),
        ("pip.conf", 4, |sandbox, at| with_variable(init(sandbox), "PIP_CONFIG_FILE", at)),
        ("pins.txt", 4, |sandbox, at| with_variable(init(sandbox), "PIP_CONSTRAINT", at)),
        ("netrc", 4, |sandbox, at| with_variable(init(sandbox), "NETRC", at)),
        ("home/.netrc", 4, |sandbox, at| with_variable(init(sandbox), "HOME", at.parent().unwrap())),
        ("xdg/uv/uv.toml", 4, |sandbox, _| with_variable(init(sandbox), "XDG_CONFIG_HOME", &sandbox.path("xdg"))),
    ];
    for (name, code, make) in inputs {
        for special in [Special::Pipe, Special::Endless] {
            let sandbox = Sandbox::new();
            let path = sandbox.path(name);
            special.make(&path);
            let command = make(&sandbox, &path);
            let what = format!("{name}, {special:?}");
            let ran = run(&sandbox, &command, &what);
            assert_eq!(ran.code, Some(i32::from(*code)), "{what}: {}", ran.raw);
            assert!(ran.raw.contains(&path.display().to_string()), "{what}: {}", ran.raw);
            assert!(ran.raw.contains(special.shown()), "{what}: {}", ran.raw);
        }
    }
}

#[test]
fn nothing_that_a_repository_names_is_read_without_an_end() {
    for engine in [Path::new("pip"), &uv()] {
        for (line, at) in [
            ("-r ./x.txt", "x.txt"),
            ("-c ./x.txt", "x.txt"),
            ("-e ./x.txt", "x.txt"),
            ("./x.txt", "x.txt"),
            ("./six-1.0-py3-none-any.whl", "six-1.0-py3-none-any.whl"),
            ("six @ file:///dev/zero", "/dev/zero"),
            ("-f ./x.txt", "x.txt"),
            ("-f ./links\nsix", "links/six-1.0-py3-none-any.whl"),
            ("./lib", "lib/pyproject.toml"),
            ("-e ./lib", "lib/setup.py"),
            ("[project]\nname = 'x'\ndependencies = ['y @ file:///dev/zero']", "/dev/zero"),
            ("[project]\nname = 'x'\ndependencies = ['y']\n[tool.uv.sources]\ny = { path = 'x.whl' }", "x.whl"),
        ] {
            let sandbox = Sandbox::new();
            let file = if line.starts_with('[') { "pyproject.toml" } else { "requirements.txt" };
            sandbox.write(&format!("app/{file}"), line);
            if !at.starts_with('/') {
                Special::Endless.make(&sandbox.path(&format!("app/{at}")));
            }
            let what = format!("{line}, {}", engine.display());
            let ran = run(&sandbox, &init_of(&sandbox, &sandbox.path("app"), engine), &what);
            assert_eq!(ran.code, Some(4), "{what}: {}", ran.raw);
            assert!(ran.raw.contains(at), "{what}: {}", ran.raw);
            let outside = ran.raw.contains("outside the tree");
            assert!(outside || ran.raw.contains(Special::Endless.shown()), "{what}: {}", ran.raw);
        }
    }
}

#[test]
fn a_termination_message_that_is_a_pipe_holds_nothing_up() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("message");
    Special::Pipe.make(&path);
    let mut command = init(&sandbox);
    command.env("PODSTRAP_TERMINATION_LOG", &path);
    let ran = run(&sandbox, &command, "the termination message");
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
}
