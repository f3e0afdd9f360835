//! Uploads missing certificates and JavaScript modules, before the configuration that uses them.
//!
//! Unit never overwrites an object (400 "already exists") and never deletes one in use (400 "is used in
//! the configuration"; `nxt_controller_process_cert`, `…_script`). podstrap therefore replaces a
//! certificate in use with a detour. Every listener has a complete certificate at each step:
//!
//! ```text
//! PUT /certificates/NAME.podstrap   the new one; if Unit refuses it, nothing has changed
//! PUT /config                       unchanged, but the listeners use NAME.podstrap
//! DELETE and PUT /certificates/NAME
//! PUT /config                       the original
//! DELETE /certificates/NAME.podstrap
//! ```
//!
//! Unit reads certificates again with each configuration. It restarts no process of an application and
//! loses no connection. If podstrap is killed during the detour, `NAME.podstrap` remains, and the next
//! run completes the detour.
//!
//! Modules cannot use a detour: templates in the configuration call them by name.

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::timeout_at;

use super::chain;
use super::channel::{self, Reply};
use super::deadline::gave_up;
use super::setup::{Part, Setup};
use super::trouble::Trouble;
use super::wait::Answering;
use crate::config::applications::listeners_mut;
use crate::config::dialect;
use crate::error::{Error, Kind, Result};
use crate::retry::Deadline;

/// The suffix of a certificate during the detour.
const DETOUR: &str = ".podstrap";

/// Uploads the missing certificates and modules of the setup, and returns their names.
pub(super) async fn sync(found: &Answering, setup: &Setup, deadline: Deadline) -> Result<Vec<String>, Trouble> {
    let store = Store { found, deadline };
    let mut sent = Vec::new();
    if !setup.certificates.is_empty() {
        let shown = store.get(Shelf::Certificates.path()).await?.unwrap_or_default();
        for part in &setup.certificates {
            if store.certificate(part, &shown).await? {
                sent.push(format!("certificate {}", part.name));
            }
        }
    }
    if !setup.modules.is_empty() {
        let shown = store.get(Shelf::Modules.path()).await?.ok_or_else(|| without_njs(found, &setup.modules[0]))?;
        for part in &setup.modules {
            if store.module(part, &shown).await? {
                sent.push(format!("module {}", part.name));
            }
        }
    }
    Ok(sent)
}

/// Whether Unit shows every certificate and module of the setup.
pub(super) async fn has(found: &Answering, setup: &Setup, deadline: Deadline) -> Result<bool, Trouble> {
    let store = Store { found, deadline };
    if !setup.certificates.is_empty() {
        let shown = store.get(Shelf::Certificates.path()).await?.unwrap_or_default();
        if !setup.certificates.iter().all(|part| shown.get(&part.name).is_some_and(|shown| is(part, shown))) {
            return Ok(false);
        }
    }
    if !setup.modules.is_empty() {
        let shown = store.get(Shelf::Modules.path()).await?.unwrap_or_default();
        return Ok(setup.modules.iter().all(|part| shown.get(&part.name).is_some_and(|shown| says(part, shown))));
    }
    Ok(true)
}

/// Whether Unit shows this bundle. False for an invalid one, which Unit then refuses.
fn is(part: &Part, shown: &Value) -> bool {
    chain::of_pem(&part.bytes).is_some_and(|ours| chain::of_shown(shown).as_ref() == Some(&ours))
}

/// Whether Unit shows this module. Unit shows the text of modules.
fn says(part: &Part, shown: &Value) -> bool {
    shown.as_str().is_some_and(|text| text.as_bytes() == part.bytes)
}

/// The kinds of objects that Unit stores.
#[derive(Debug, Clone, Copy)]
enum Shelf {
    Certificates,
    Modules,
}

impl Shelf {
    fn path(self) -> &'static str {
        match self {
            Self::Certificates => "/certificates",
            Self::Modules => "/js_modules",
        }
    }
    fn object(self, name: &str) -> String {
        format!("{}/{name}", self.path())
    }
}

struct Store<'a> {
    found: &'a Answering,
    deadline: Deadline,
}

impl Store<'_> {
    /// Uploads or replaces one certificate if needed. Returns whether it did.
    async fn certificate(&self, part: &Part, shown: &Value) -> Result<bool, Trouble> {
        let (name, detour) = (part.name.as_str(), format!("{}{DETOUR}", part.name));
        let mut there = shown.get(name).cloned();
        if shown.get(&detour).is_some() {
            // Complete an interrupted detour.
            if there.is_none() {
                self.upload(Shelf::Certificates, name, part).await?;
                there = self.get(&Shelf::Certificates.object(name)).await?;
            }
            self.refer(&detour, name).await?;
            self.delete(Shelf::Certificates, &detour, part).await?;
        }
        let Some(there) = there else {
            self.upload(Shelf::Certificates, name, part).await?;
            return Ok(true);
        };
        if is(part, &there) {
            return Ok(false);
        }
        self.upload(Shelf::Certificates, &detour, part).await?;
        let used = self.refer(name, &detour).await?;
        self.delete(Shelf::Certificates, name, part).await?;
        self.upload(Shelf::Certificates, name, part).await?;
        if used {
            self.refer(&detour, name).await?;
        }
        self.delete(Shelf::Certificates, &detour, part).await?;
        Ok(true)
    }

    async fn module(&self, part: &Part, shown: &Value) -> Result<bool, Trouble> {
        match shown.get(&part.name) {
            Some(there) if says(part, there) => return Ok(false),
            Some(_) => self.delete(Shelf::Modules, &part.name, part).await?,
            None => {}
        }
        self.upload(Shelf::Modules, &part.name, part).await?;
        Ok(true)
    }

    /// Switches all listeners from one certificate to another. Returns whether a listener used the first.
    async fn refer(&self, from: &str, to: &str) -> Result<bool, Trouble> {
        let Some(mut config) = self.get("/config").await? else { return Ok(false) };
        if !renamed(&mut config, from, to) {
            return Ok(false);
        }
        let reply = self.ask(Method::PUT, "/config", Bytes::from(config.to_string())).await?;
        if reply.status != 200 {
            let what = format!("Unit at {} refused another certificate for its listeners", self.found.control);
            return Err(complaint(what, &reply).into());
        }
        Ok(true)
    }

    async fn upload(&self, shelf: Shelf, name: &str, part: &Part) -> Result<(), Trouble> {
        let reply = self.ask(Method::PUT, &shelf.object(name), Bytes::from(part.bytes.clone())).await?;
        if reply.status == 200 {
            return Ok(());
        }
        let error = complaint(format!("Unit at {} refused {}", self.found.control, part.path.display()), &reply);
        Err(match shelf {
            Shelf::Certificates => error.hint(
                "put the certificate, its intermediate certificates, and the private key without a passphrase into one \
                 PEM file",
            ),
            Shelf::Modules => error,
        }
        .into())
    }

    async fn delete(&self, shelf: Shelf, name: &str, part: &Part) -> Result<(), Trouble> {
        let reply = self.ask(Method::DELETE, &shelf.object(name), Bytes::new()).await?;
        if reply.status == 200 {
            return Ok(());
        }
        let what = format!("Unit at {} has a different {name} and refused to delete it", self.found.control);
        Err(complaint(what, &reply)
            .hint(format!(
                "give {} a new name, and use that in the configuration: Unit cannot replace an object in use",
                part.path.display()
            ))
            .into())
    }

    /// None if Unit answers 404.
    async fn get(&self, path: &str) -> Result<Option<Value>, Trouble> {
        let reply = self.ask(Method::GET, path, Bytes::new()).await?;
        match reply.status {
            200 => Ok(dialect::to_value(&reply.body).ok()),
            404 => Ok(None),
            _ => Err(complaint(format!("Unit at {} does not show {path}", self.found.control), &reply).into()),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, Trouble> {
        let sent = channel::send(&self.found.control, method.clone(), path, body);
        match timeout_at(self.deadline.instant(), sent).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => Err(Trouble::Cut(failure.to_string())),
            Err(_) => {
                let what = format!("Unit at {} has not answered {method} {path}", self.found.control);
                Err(Error::new(Kind::UnitUnreachable, what)
                    .because(gave_up(1, self.deadline))
                    .hint("raise --timeout: Unit is applying something else, or an application starts slowly")
                    .into())
            }
        }
    }
}

/// Replaces the name of a certificate in every listener. Returns whether a listener had it.
fn renamed(config: &mut Value, from: &str, to: &str) -> bool {
    let mut any = false;
    for (_, listener) in listeners_mut(config) {
        // One name, or several for SNI.
        let names = match listener.pointer_mut("/tls/certificate") {
            Some(Value::Array(names)) => &mut names[..],
            Some(name) => std::slice::from_mut(name),
            None => continue,
        };
        for name in names.iter_mut().filter(|name| name.as_str() == Some(from)) {
            *name = to.into();
            any = true;
        }
    }
    any
}

/// An error with Unit's own `error` and `detail`, or with the status.
fn complaint(what: String, reply: &Reply) -> Error {
    let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let words: Vec<_> = ["error", "detail"].iter().filter_map(|name| said[*name].as_str()).collect();
    let error = Error::new(Kind::UnitRefused, what);
    match &words[..] {
        [] => error.because(format!("{} answered {}", reply.server, reply.status)),
        words => error.because(words.join(" ")),
    }
}

fn without_njs(found: &Answering, part: &Part) -> Error {
    let what = format!("{} at {} does not support JavaScript modules", found.server, found.control);
    Error::new(Kind::UnitRefused, what)
        .because("it was built without njs")
        .hint(format!("use an image whose `unitd --version` shows --njs, or remove {}", part.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_certificate_is_renamed_wherever_a_listener_names_it() {
        let mut config = json!({"listeners": {
            "*:1": {"pass": "a", "tls": {"certificate": "old"}},
            "*:2": {"tls": {"certificate": ["x", "old"]}},
            "*:3": {"pass": "old"},
        }});
        assert!(renamed(&mut config, "old", "new"));
        assert_eq!(config.to_string().matches("\"new\"").count(), 2);
        assert_eq!(config["listeners"]["*:3"]["pass"], "old");
        assert!(!renamed(&mut config, "old", "new") && !renamed(&mut json!({}), "old", "new"));
    }
}
