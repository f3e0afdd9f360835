//! With a real Unit: a directory in the format of the image's entrypoint, parts of a configuration, and
//! certificates that change under load.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use podstrap::error::Result;
use podstrap::retry::Deadline;
use podstrap::unit::{self, Applied, Setup};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use super::real::{HELLO, Place, put};
use crate::support::fake_unit::{Asked, Came, Case, ask};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{AMPLE, failed, run, said};

/// A self-signed certificate with its key, valid from February of this year.
pub(super) fn bundle(since: i32) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(since, 2, 3);
    params.not_after = rcgen::date_time_ymd(2199, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

/// A client that trusts every certificate and follows no redirect.
pub(super) fn browser() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    builder.tls_danger_accept_invalid_certs(true).tls_info(true).build().unwrap()
}

pub(super) fn get(place: &Place, path: &str) -> Value {
    let asked = Asked { method: "GET".into(), path: path.into(), body: Vec::new() };
    match ask(&place.socket(), &Case::step(&asked), AMPLE) {
        Came::Response(response) => serde_json::from_str(&response.body).unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn apply(place: &Place, name: &str, at: &str) -> Result<Applied> {
    let setup = Setup::read(&place.sandbox.path(name), at)?;
    run(unit::apply(Some(&place.control()), &setup, Deadline::after(AMPLE)))
}

const TLS: &str = r#"{"listeners": {"127.0.0.1:8300": {"pass": "routes", "tls": {"certificate": "site"}}},
    "routes": [{"action": {"return": 204}},]} /* Unit's own words */
"#;

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_directory_is_applied_and_nothing_is_sent_twice() {
    let place = Place::new();
    let _unitd = place.started();
    place.sandbox.write("d/site.pem", bundle(2024));
    place.sandbox.write("d/1.json", "this is not JSON, and is never sent");
    place.sandbox.write("d/unit.json", TLS);
    assert_eq!(apply(&place, "d", "/config").unwrap().sent, ["certificate site", "/config"]);
    assert_eq!(get(&place, "/certificates/site/chain/0/validity/since"), "Feb  3 00:00:00 2024 GMT");
    assert_eq!(apply(&place, "d", "/config").unwrap().sent, Vec::<String>::new());
    // podstrap undoes drift, and sends nothing else.
    put(&place.socket(), "{}");
    assert_eq!(apply(&place, "d", "/config").unwrap().sent, ["/config"]);
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_certificate_in_use_is_exchanged_and_no_connection_fails() {
    let place = Place::new();
    let _unitd = place.started();
    place.sandbox.write("d/unit.json", TLS);
    place.sandbox.write("d/site.pem", bundle(2001));
    apply(&place, "d", "/config").unwrap();
    let (end, asked, bad) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !end.load(Ordering::SeqCst) {
                    // A new client makes a new handshake for each request.
                    let client = browser();
                    let answer = run(async { client.get("https://127.0.0.1:8300/").send().await });
                    asked.fetch_add(1, Ordering::SeqCst);
                    if !answer.is_ok_and(|answer| answer.status() == 204) {
                        bad.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for year in 2002..2022 {
            place.sandbox.write("d/site.pem", bundle(year));
            assert_eq!(apply(&place, "d", "/config").unwrap().sent, ["certificate site"]);
            let since = get(&place, "/certificates/site/chain/0/validity/since");
            assert_eq!(since, format!("Feb  3 00:00:00 {year} GMT"));
        }
        end.store(true, Ordering::SeqCst);
    });
    println!("20 exchanges, {} handshakes, {} failed", asked.load(Ordering::SeqCst), bad.load(Ordering::SeqCst));
    assert_eq!(bad.load(Ordering::SeqCst), 0);
    assert!(asked.load(Ordering::SeqCst) > 20);
    assert_eq!(get(&place, "/certificates").as_object().unwrap().len(), 1);
    // The listener uses the last certificate.
    let answer = run(async { browser().get("https://127.0.0.1:8300/").send().await }).unwrap();
    let shown = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec();
    let file = std::fs::read(place.sandbox.path("d/site.pem")).unwrap();
    assert_eq!(shown, CertificateDer::from_pem_slice(&file).unwrap().as_ref());
    assert_eq!(get(&place, "/config/listeners/127.0.0.1:8300/tls/certificate"), "site");
}

/// After a kill at any step, the next apply finishes the work.
#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn an_exchange_that_was_cut_short_is_brought_to_its_end() {
    let place = Place::new();
    let _unitd = place.started();
    let (old, new) = (bundle(2001), bundle(2002));
    let send = |method: &str, path: &str, body: &str| {
        let asked = Asked { method: method.into(), path: path.into(), body: body.into() };
        let came = ask(&place.socket(), &Case::step(&asked), AMPLE);
        assert!(matches!(&came, Came::Response(response) if response.status == 200), "{method} {path} {came:?}");
    };
    let named = |name: &str| TLS.replace("\"site\"", &format!("{name:?}"));
    for steps in 1..=5 {
        place.sandbox.write("d/unit.json", TLS);
        place.sandbox.write("d/site.pem", &old);
        apply(&place, "d", "/config").unwrap();
        let all: [&dyn Fn(); 5] = [
            &|| send("PUT", "/certificates/site.podstrap", &new),
            &|| send("PUT", "/config", &named("site.podstrap")),
            &|| send("DELETE", "/certificates/site", ""),
            &|| send("PUT", "/certificates/site", &new),
            &|| send("PUT", "/config", TLS),
        ];
        all[..steps].iter().for_each(|step| step());
        place.sandbox.write("d/site.pem", &new);
        apply(&place, "d", "/config").unwrap();
        assert_eq!(get(&place, "/certificates/site/chain/0/validity/since"), "Feb  3 00:00:00 2002 GMT", "{steps}");
        assert_eq!(get(&place, "/certificates").as_object().unwrap().len(), 1, "{steps}");
        assert_eq!(get(&place, "/config/listeners/127.0.0.1:8300/tls/certificate"), "site");
    }
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn bad_certificates_and_modules_are_refused_with_their_names() {
    let place = Place::new();
    let _unitd = place.started();
    place.sandbox.write("d/unit.json", TLS);
    place.sandbox.write("d/site.pem", bundle(2001));
    apply(&place, "d", "/config").unwrap();
    place.sandbox.write("d/site.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    insta::assert_snapshot!(failed(&place.sandbox, apply(&place, "d", "/config")), @r"
    exit 7
    error: Unit at unix:[TMP]/socket refused [TMP]/d/site.pem
      because: Invalid certificate.
    hint: put the certificate, its intermediate certificates, and the private key without a passphrase into one PEM file
    ");
    // The old certificate stays in use.
    assert_eq!(get(&place, "/certificates/site/chain/0/validity/since"), "Feb  3 00:00:00 2001 GMT");
    place.sandbox.write("e/m.js", "export default {}");
    let error = apply(&place, "e", "/config").unwrap_err();
    insta::assert_snapshot!(said(&place.sandbox, &error), @r"
    error: Unit/[VERSION] at unix:[TMP]/socket does not support JavaScript modules
      because: it was built without njs
    hint: use an image whose `unitd --version` shows --njs, or remove [TMP]/e/m.js
    ");
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_part_of_the_configuration_is_applied() {
    let place = Place::new();
    let _unitd = place.started();
    place.apply(place.app(HELLO, "")).unwrap();
    let app = place.sandbox.path("app");
    let part = format!(
        "{{\"type\": \"python\", \"path\": \"{}\", \"module\": \"wsgi\", /* one */ \"processes\": {{\"spare\": 1,}},}}",
        app.display()
    );
    place.sandbox.write("part.json", &part);
    let at = "/config/applications/app";
    assert_eq!(apply(&place, "part.json", at).unwrap().sent, [at]);
    assert_eq!(get(&place, at)["processes"]["spare"], 1);
    assert_eq!(apply(&place, "part.json", at).unwrap().sent, Vec::<String>::new());
    let error = apply(&place, "part.json", "/config/nowhere/app").unwrap_err();
    insta::assert_snapshot!(said(&place.sandbox, &error), @r#"
    error: Unit at unix:[TMP]/socket did not apply [TMP]/part.json
      because: Value doesn't exist.
    hint: apply the whole configuration first: Unit's configuration has no parent object for /config/nowhere/app yet
    "#);
}

/// Without a hook: `init` writes the files that the image's entrypoint reads.
#[test]
fn init_puts_the_configuration_where_the_entrypoint_looks() {
    let sandbox = Sandbox::new();
    sandbox.write("repo/deploy/unit.json", "{\"listeners\": {},} // as it is\n");
    std::fs::create_dir(sandbox.path("d")).unwrap();
    let init = |more: &[&str]| {
        let mut command = sandbox.podstrap();
        command.arg("init").arg("--repo").arg(sandbox.path("repo")).arg("--root").arg(sandbox.root()).args(more);
        sandbox.run(&mut command)
    };
    let ran = init(&["--entrypoint-dir=d", "--config=deploy/unit.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(std::fs::read_to_string(sandbox.path("d/config.json")).unwrap(), "{\"listeners\": {},} // as it is\n");
    // Again, with a mounted configuration.
    let mounted = sandbox.write("mounted.json", "{}");
    let ran = init(&["--entrypoint-dir=d", "--config", mounted.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(std::fs::read(sandbox.path("d/config.json")).unwrap(), b"{}");
    // The directory contains no other file. Errors are reported.
    assert_eq!(std::fs::read_dir(sandbox.path("d")).unwrap().count(), 1);
    insta::assert_snapshot!(init(&["--entrypoint-dir=no", "--config=deploy/unit.json"]).text.lines().skip_while(|line| !line.contains("error:")).collect::<Vec<_>>().join("\n"), @r"
    podstrap: error: cannot write [TMP]/no/config.json
      because: No such file or directory (os error 2)
    hint: mount an emptyDir there, and the same one at /docker-entrypoint.d in Unit's container
    ");
    let ran = init(&["--config=deploy/unit.json"]);
    assert!(ran.code == Some(2) && ran.text.contains("--config needs --entrypoint-dir"), "{}", ran.raw);
    std::os::unix::fs::symlink("/etc/passwd", sandbox.path("repo/link.json")).unwrap();
    let ran = init(&["--entrypoint-dir=d", "--config=link.json"]);
    assert!(ran.code == Some(2), "{}", ran.raw);
    assert_eq!(std::fs::read(sandbox.path("d/config.json")).unwrap(), b"{}");
}
