//! As a postStart hook, podstrap also writes its messages to the container's log.

use std::fs::File;

use crate::support::namespaces::namespaced;
use crate::support::sandbox::Sandbox;

/// Runs the hook from PID 1, which is a script of that name. Returns the hook's output and the container's log.
fn hook(first: &str) -> Option<(String, String)> {
    let sandbox = Sandbox::new();
    let script =
        format!("printf '%s\\n' '#!/bin/sh' '\"$@\" 2>hook; :' >{first} && chmod +x {first} && exec ./{first} \"$@\"");
    let mut podstrap = sandbox.podstrap();
    podstrap.args(["apply", "--config=unit.json", "--timeout=200ms", "--control-socket=none/unitd"]);
    sandbox.write("unit.json", "{}");
    let mut command = namespaced(&podstrap, &script)?;
    let log = sandbox.path("container.log");
    command.stdout(File::create(&log).unwrap());
    command.status().unwrap();
    let read = |name| std::fs::read_to_string(sandbox.path(name)).unwrap();
    Some((read("hook"), read("container.log")))
}

#[test]
fn a_hook_speaks_into_the_log_of_its_container() {
    let Some((hook, log)) = hook("docker-entrypoint.sh") else { return };
    assert!(hook.contains("no answer from Unit's control API"), "{hook}");
    assert_eq!(log, hook, "the log differs from the hook's output");
}

#[test]
fn another_ones_output_is_left_alone() {
    let Some((hook, log)) = hook("start.sh") else { return };
    assert!(hook.contains("no answer from Unit's control API"), "{hook}");
    assert_eq!(log, "");
}
