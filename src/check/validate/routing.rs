//! Validates listeners, routes, and the targets of `pass`.

use super::placeholders::unrendered;
use super::walk::{PathStep, Validator, lossy};
use crate::check::finding::Finding;
use crate::check::schema::{self, OBJECT, Table};
use crate::check::spelling::meant;
use crate::config::address::Address;
use crate::config::applications::{destinations, leads_somewhere, listeners_in};
use crate::config::json::{Field, Id};
use crate::config::segments;

impl Validator<'_> {
    pub fn listener(&mut self, found: &Field) {
        self.address("listener", found.at, &found.name);
        if !self.is(&self.subject(), found.value, OBJECT) {
            return;
        }
        self.object(found.value, &schema::LISTENER);
        let has = |name: &str| self.document.get(found.value, name).is_some();
        if !has("pass") && !has("application") && !self.misspelt(found.value, "pass") {
            // Unit accepts it, fails to apply it, and gives no reason.
            self.add(Finding::error("missing-member", found.at, "a listener must have \"pass\"")).hint =
                Some(self.targets_hint(""));
        }
    }

    /// Finds two listeners on one port. Unit cannot open the second.
    pub fn listeners_clash(&mut self) {
        let addresses: Vec<_> =
            listeners_in(self.document).iter().filter_map(|found| Some((found, Address::read(&found.name)?))).collect();
        for (index, (found, address)) in addresses.iter().enumerate() {
            let Some((other, _)) = addresses[..index].iter().find(|(_, other)| clash(address, other)) else { continue };
            let message = format!("\"{}\" and \"{}\" overlap", lossy(&found.name), lossy(&other.name));
            self.path
                .extend(["listeners".into(), lossy(&found.name)].map(|name: String| PathStep { name, at: found.at }));
            let hint = match address {
                Address::Unix(_) => "use different paths",
                Address::V4(..) => "use different ports: * includes every IPv4 address",
                Address::V6(..) => "use different ports: [::] includes every IPv6 address",
            };
            self.add(Finding::error("listener-clash", found.at, message)).hint = Some(hint.to_owned());
            self.path.clear();
        }
    }

    pub fn route(&mut self, id: Id) {
        if self.is("a route", id, OBJECT) {
            self.object(id, &schema::ROUTE);
        }
    }

    pub fn action(&mut self, id: Id) {
        let kinds: [(&str, &Table); 4] = [
            ("pass", &schema::PASS_ACTION),
            ("return", &schema::RETURN_ACTION),
            ("share", &schema::SHARE_ACTION),
            ("proxy", &schema::PROXY_ACTION),
        ];
        let found: Vec<_> = kinds.iter().filter(|(name, _)| self.document.get(id, name).is_some()).collect();
        match found[..] {
            [(_, table)] => self.object(id, table),
            [] => {
                let members = self.document.members(id);
                let names = kinds.iter().map(|(name, _)| *name);
                let near = members.iter().find_map(|found| meant(&lossy(&found.name), names.clone()));
                self.refuse(
                    "missing-member",
                    self.here(),
                    "an action must have \"pass\", \"return\", \"share\" or \"proxy\"",
                )
                .hint = near.map(|name| format!("did you mean \"{name}\"?"));
            }
            _ => {
                let names: Vec<_> = found.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.refuse(
                    "conflict",
                    self.here(),
                    format!("an action must have only one of {}", names.join(" and ")),
                );
            }
        }
    }

    pub fn pass(&mut self, id: Id) {
        let pass = self.bytes(id);
        let shown = lossy(pass);
        let Some(names) = segments::of_pass(pass) else {
            let message = format!("\"{shown}\" is not a target for \"pass\"");
            self.refuse("pass", self.start(id), message).hint = Some(self.targets_hint(&shown));
            return;
        };
        if !leads_somewhere(self.document, &names) {
            let message = format!("\"{shown}\" does not exist in this configuration");
            self.refuse("pass", self.start(id), message).hint = Some(self.targets_hint(&shown));
        }
    }

    /// A hint with the most similar target, or all targets.
    pub fn targets_hint(&self, pass: &str) -> String {
        if unrendered(pass, true) {
            return "render the template first: the file still has its placeholders".to_owned();
        }
        let all = destinations(self.document);
        match meant(pass, all.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if all.is_empty() => "add an application, upstream or route: this configuration has none".to_owned(),
            None => format!("use one of {}", all.join(", ")),
        }
    }
}

/// Whether two listeners conflict, so that Unit cannot open the second.
///
/// `*` is every address of IPv4. Unit sets `IPV6_V6ONLY`, so `[::]` and `*` do not conflict.
fn clash(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::V4(a, port), Address::V4(b, other)) => port == other && (a == b || *a == [0; 4] || *b == [0; 4]),
        (Address::V6(a, port), Address::V6(b, other)) => port == other && (a == b || *a == [0; 16] || *b == [0; 16]),
        _ => false,
    }
}
