//! Entries with signatures, made and verified by podstrap and by ssh-keygen.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Bench, warnings};

/// Makes a key pair. Returns the private key and the text of the public one.
fn key(bench: &Bench, name: &str, kind: &str) -> (PathBuf, String) {
    let file = bench.app.sandbox.path(name);
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-t", kind, "-f"]).arg(&file).status().unwrap();
    assert!(made.success());
    let public = fs::read_to_string(file.with_extension("pub")).unwrap();
    (file, public.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned())
}

#[test]
fn only_entries_of_allowed_signers_are_used() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let bench = Bench::new();
        let (ci, public) = key(&bench, "ci", kind);
        let (_, other) = key(&bench, "other", "ed25519");
        let allow = |line: String| bench.app.sandbox.write("allowed", line);
        let allowed = allow(format!("ci@example.org namespaces=\"podstrap\" {public}\n"));
        let verifying = |volume: &str| {
            let mut command = bench.init("uv", volume);
            command.arg("--store-verify").arg(&allowed);
            command
        };
        let refuses = |volume: &str, why: &str| {
            let ran = bench.builds(&mut verifying(volume));
            let warnings = warnings(&ran);
            assert!(warnings.len() == 1 && warnings[0].contains(why), "{why}: {}", ran.raw);
            assert!(!ran.raw.contains("saved"), "who does not sign does not replace entries: {}", ran.raw);
        };
        bench.builds(&mut bench.init("uv", "unsigned"));
        refuses("a", "it has no signature");
        bench.files("").iter().for_each(|file| fs::remove_file(file).unwrap());
        bench.builds(bench.init("uv", "signed").arg("--store-sign").arg(&ci));
        let ran = bench.restores(&mut verifying("b"));
        assert!(warnings(&ran).is_empty(), "{}", ran.raw);
        // Without --store-verify, a signature does not matter.
        bench.restores(&mut bench.init("uv", "c"));

        allow(format!("ci@example.org {other}\n"));
        refuses("d", "does not have its key");
        allow(format!("ci@example.org valid-before=\"20200101\" {public}\n"));
        refuses("e", "is not valid at this time");
        allow(format!("ci@example.org {public}\n"));
        let manifest = bench.files(".json").remove(0);
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("\"is_fixed\": true", "\"is_fixed\": false")).unwrap();
        refuses("f", "its signature is not valid");
        fs::write(&manifest, text).unwrap();
        fs::OpenOptions::new().write(true).open(&bench.files(".tar.zst")[0]).unwrap().set_len(1000).unwrap();
        refuses("g", "it has 1000 bytes instead of");
        assert!(manifest.exists(), "who does not sign does not delete entries");
    }
}

#[test]
fn whoever_signs_replaces_an_entry_without_its_signature() {
    let bench = Bench::new();
    let (ci, _) = key(&bench, "ci", "ed25519");
    let (next, _) = key(&bench, "next", "ed25519");
    bench.builds(&mut bench.init("uv", "unsigned"));
    let mut last = String::new();
    for key in [&ci, &next] {
        let sign = |volume: &str| {
            let mut command = bench.init("uv", volume);
            command.args(["--store-only", "--store-sign"]).arg(key);
            command
        };
        bench.builds(&mut sign("one"));
        let signature = bench.manifest()["signature"].as_str().unwrap().to_owned();
        assert_ne!(signature, last);
        last = signature;
        bench.restores(&mut sign("two"));
    }
}

#[test]
fn ssh_keygen_verifies_what_podstrap_signs() {
    let bench = Bench::new();
    let (ci, public) = key(&bench, "ci", "ed25519");
    bench.builds(bench.init("uv", "signed").arg("--store-sign").arg(&ci));
    let mut value: Value = serde_json::from_slice(&fs::read(&bench.files(".json")[0]).unwrap()).unwrap();
    let signature = value.as_object_mut().unwrap().shift_remove("signature").unwrap();
    let signature = bench.app.sandbox.write("signature", signature.as_str().unwrap());
    let allowed = bench.app.sandbox.write("allowed", format!("ci {public}\n"));
    let text = bench.app.sandbox.write("text", value.to_string());
    let verified = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", "podstrap", "-I", "ci", "-f"])
        .arg(&allowed)
        .arg("-s")
        .arg(&signature)
        .stdin(Stdio::from(fs::File::open(&text).unwrap()))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");

    // And the other way round.
    let signed = Command::new("ssh-keygen").args(["-Y", "sign", "-n", "podstrap", "-f"]).arg(&ci).arg(&text).output();
    assert!(signed.unwrap().status.success());
    value["signature"] = fs::read_to_string(text.with_extension("sig")).unwrap().into();
    fs::write(&bench.files(".json")[0], value.to_string()).unwrap();
    bench.restores(bench.init("uv", "two").arg("--store-verify").arg(&allowed));
}

#[test]
fn unusable_keys_are_errors_before_anything_else() {
    let bench = Bench::new();
    let (ci, _) = key(&bench, "ci", "ed25519");
    let locked = bench.app.sandbox.path("locked");
    let made = Command::new("ssh-keygen").args(["-q", "-N", "secret", "-t", "ed25519", "-f"]).arg(&locked).status();
    assert!(made.unwrap().success());
    let nobody = bench.app.sandbox.write("nobody", "# nobody\n");
    for (flag, file, why) in [
        ("--store-sign", &bench.app.sandbox.path("gone"), "cannot use the key of --store-sign"),
        ("--store-sign", &locked, "has a passphrase"),
        ("--store-sign", &nobody, "it is no private key"),
        ("--store-verify", &bench.app.sandbox.path("gone"), "cannot use the file of --store-verify"),
        ("--store-verify", &nobody, "it has no keys"),
        ("--store-verify", &ci, "line 1"),
    ] {
        let ran = bench.app.sandbox.run(bench.init("uv", "one").arg(flag).arg(file));
        assert_eq!(ran.code, Some(2), "{flag} {}: {}", file.display(), ran.raw);
        assert!(ran.error().contains(why), "{}", ran.raw);
        assert!(!ran.raw.contains("PRIVATE"), "{}", ran.raw);
    }
}
