//! The address of the served app: the first TCP listener of its configuration.

use reqwest::Url;
use serde_json::Value;

use crate::config::applications::listeners;

/// The address and the object of the first TCP listener.
pub fn listener(config: &Value) -> Option<(&str, &Value)> {
    listeners(config)
        .map(|(address, listener)| (address.as_str(), listener))
        .find(|(address, _)| url_of(address).is_some())
}

/// The URL of a listener on this machine: `*:8300` → `http://127.0.0.1:8300/`. None for a Unix socket.
pub fn url_of(address: &str) -> Option<Url> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host {
        "*" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        "unix" => return None,
        host => host,
    };
    Url::parse(&format!("http://{host}:{port}/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_become_urls() {
        for (address, url) in
            [("*:80", Some("http://127.0.0.1/")), ("[::]:8300", Some("http://[::1]:8300/")), ("unix:/x.sock", None)]
        {
            assert_eq!(url_of(address).as_ref().map(Url::as_str), url, "{address}");
        }
    }
}
