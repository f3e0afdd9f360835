//! What is left of a run's processes: nothing, however it ends and whatever they do to stay.

use crate::support::namespaces::{first_process, namespaced};
use crate::support::sandbox::Sandbox;

#[test]
fn a_script_is_pid_1_of_its_namespace() {
    let sandbox = Sandbox::new();
    let Some(mut command) = namespaced(&sandbox.podstrap(), "echo $$; read line; exec \"$@\" --version") else {
        return;
    };
    let child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert!(first_process(&child) > 1);
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("1\npodstrap "), "{output:?}");
}
