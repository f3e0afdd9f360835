//! Certificates, modules and parts of a configuration, against a control API that stores them as Unit does: it
//! overwrites none, and deletes none in use. `directory` tests the same with a real Unit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use insta::assert_snapshot;
use podstrap::error::Result;
use podstrap::plan::Control;
use podstrap::unit::{Applied, Setup};
use serde_json::{Value, json};

use super::directory::bundle;
use crate::support::http::{Request, Response, Server};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{AMPLE, client, failed, run, within};

#[derive(Default)]
struct Store {
    config: Value,
    /// By path: the answer to a GET.
    kept: BTreeMap<String, Value>,
    log: Vec<String>,
}

impl Store {
    fn answer(&mut self, request: &Request) -> Response {
        let path = request.path().to_owned();
        if request.method != "GET" {
            self.log.push(format!("{} {path}", request.method));
        }
        let (status, body) = self.act(&request.method, &path, &request.body);
        Response::new(status, body.to_string()).header("Server", "Unit/1.35.0")
    }

    fn act(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let refused = |why: &str| (400, json!({ "error": why }));
        if let Some(part) = path.strip_prefix("/config") {
            let Some(place) = self.config.pointer_mut(part) else {
                return (404, json!({"error": "Value doesn't exist."}));
            };
            if method == "PUT" {
                *place = serde_json::from_slice(body).unwrap();
                return (200, json!({"success": "Reconfiguration done."}));
            }
            return (200, place.clone());
        }
        let below = format!("{path}/");
        match method {
            "GET" if ["/certificates", "/js_modules"].contains(&path) => {
                let all = self
                    .kept
                    .iter()
                    .filter_map(|(key, value)| Some((key.strip_prefix(&below)?.to_owned(), value.clone())));
                (200, Value::Object(all.collect()))
            }
            "GET" => self.kept.get(path).map_or((404, Value::Null), |value| (200, value.clone())),
            "PUT" if self.kept.contains_key(path) => refused("Certificate already exists."),
            "PUT" => {
                let text = String::from_utf8(body.to_vec()).unwrap();
                let shown = if path.starts_with("/js_modules/") {
                    Value::String(text)
                } else if text.contains("PRIVATE KEY") {
                    // A comment identifies the bundles of these tests.
                    let since = text.lines().next().unwrap();
                    json!({"chain": [{"validity": {"since": since, "until": "Jan  1 00:00:00 2199 GMT"}}]})
                } else {
                    return refused("Invalid certificate.");
                };
                self.kept.insert(path.to_owned(), shown);
                (200, json!({"success": "x"}))
            }
            "DELETE" if self.config.to_string().contains(&format!("{:?}", path.rsplit('/').next().unwrap())) => {
                refused("Certificate is used in the configuration.")
            }
            _ => self.kept.remove(path).map_or((404, json!({"error": "none"})), |_| (200, json!({"success": "x"}))),
        }
    }
}

struct Fake {
    sandbox: Sandbox,
    server: Server,
    store: Arc<Mutex<Store>>,
}

impl Fake {
    fn new(config: Value) -> Self {
        let store = Arc::new(Mutex::new(Store { config, ..Store::default() }));
        let served = Arc::clone(&store);
        let server = Server::start(move |request| served.lock().unwrap().answer(&request));
        Self { sandbox: Sandbox::new(), server, store }
    }
    fn apply(&self, name: &str, at: &str) -> Result<Applied> {
        let control = Control::Http(self.server.url().parse().unwrap());
        let setup = Setup::read(&self.sandbox.path(name), at)?;
        run(client(&self.sandbox).apply(Some(&control), &setup, within(AMPLE)))
    }
    /// Returns and clears the log of changes.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.store.lock().unwrap().log)
    }
    fn said(&self, result: Result<Applied>) -> String {
        failed(&self.sandbox, result)
    }
}

fn dated(year: i32) -> String {
    format!("Feb  3 00:00:00 {year} GMT\n{}", bundle(year))
}

const TLS: &str = "{\"listeners\": {\"*:1\": {\"pass\": \"routes\", \"tls\": {\"certificate\": [\"site\"]}}}}";

#[test]
fn certificates_go_first_and_one_in_use_takes_the_detour() {
    let fake = Fake::new(json!({}));
    fake.sandbox.write("d/site.pem", dated(2001));
    fake.sandbox.write("d/unit.json", TLS);
    fake.apply("d", "/config").unwrap();
    assert_eq!(fake.log(), ["PUT /certificates/site", "PUT /config"]);
    assert!(fake.apply("d", "/config").unwrap().sent.is_empty());
    assert_eq!(fake.log(), Vec::<String>::new());
    fake.sandbox.write("d/site.pem", dated(2002));
    assert_eq!(fake.apply("d", "/config").unwrap().sent, ["certificate site"]);
    assert_eq!(
        fake.log(),
        [
            "PUT /certificates/site.podstrap",
            "PUT /config",
            "DELETE /certificates/site",
            "PUT /certificates/site",
            "PUT /config",
            "DELETE /certificates/site.podstrap",
        ]
    );
    assert_eq!(fake.store.lock().unwrap().config, serde_json::from_str::<Value>(TLS).unwrap());
    // podstrap refuses an invalid certificate before it changes anything.
    fake.sandbox.write("d/site.pem", "no PEM");
    assert_snapshot!(fake.said(fake.apply("d", "/config")), @r"
    exit 7
    error: Unit at http://[HOST] refused [TMP]/d/site.pem
      because: Invalid certificate.
    hint: put the certificate, its intermediate certificates, and the private key without a passphrase into one PEM file
    ");
    assert_eq!(fake.log(), ["PUT /certificates/site.podstrap"]);
}

#[test]
fn a_module_is_exchanged_only_while_nobody_uses_it() {
    let fake = Fake::new(json!({}));
    fake.sandbox.write("d/m.js", "export default {}");
    fake.apply("d", "/config").unwrap();
    assert_eq!(fake.log(), ["PUT /js_modules/m"]);
    fake.apply("d", "/config").unwrap();
    assert_eq!(fake.log(), Vec::<String>::new());
    fake.sandbox.write("d/m.js", "export default {a: 1}");
    fake.apply("d", "/config").unwrap();
    assert_eq!(fake.log(), ["DELETE /js_modules/m", "PUT /js_modules/m"]);
    fake.store.lock().unwrap().config = json!({"settings": {"js_module": "m"}});
    fake.sandbox.write("d/m.js", "export default {a: 2}");
    assert_snapshot!(fake.said(fake.apply("d", "/config")), @r"
    exit 7
    error: Unit at http://[HOST] has a different m and refused to delete it
      because: Certificate is used in the configuration.
    hint: give [TMP]/d/m.js a new name, and use that in the configuration: Unit cannot replace an object in use
    ");
}

#[test]
fn a_part_goes_to_its_place() {
    let fake = Fake::new(json!({"applications": {"a": {"type": "php", "processes": {"spare": 0}}}}));
    fake.sandbox.write("a.json", "{\"processes\": {\"spare\": 0}, \"type\": \"php\"}");
    assert!(fake.apply("a.json", "/config/applications/a").unwrap().sent.is_empty());
    fake.sandbox.write("a.json", "{\"type\": \"ruby\", \"processes\": {\"spare\": 0}}");
    assert_eq!(fake.apply("a.json", "/config/applications/a").unwrap().sent, ["/config/applications/a"]);
    assert_eq!(fake.log(), ["PUT /config/applications/a"]);
    assert_snapshot!(fake.said(fake.apply("a.json", "/config/nowhere/a")), @r"
    exit 7
    error: Unit at http://[HOST] did not apply [TMP]/a.json
      because: Value doesn't exist.
    hint: apply the whole configuration first: Unit's configuration has no parent object for /config/nowhere/a yet
    ");
}
