//! The one HTTP client for Git, indexes and probes: one policy for TLS roots, proxies and waiting.
//!
//! Roots: the file and directory that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or where the image
//! keeps its own; when it has none at all, the Mozilla roots that are built in. Proxies come from
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.

use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, redirect};

use crate::error::{Error, Result};

/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may stay silent: a clone may take long, but never without a byte.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// A client that follows no redirect by itself: who follows one decides what goes along.
///
/// # Errors
/// `SSL_CERT_FILE` or `SSL_CERT_DIR` names what holds no usable certificate.
pub fn client() -> Result<Client> {
    build(Client::builder())
}

/// The same for a server in this Pod, which no proxy could reach.
///
/// # Errors
/// As [`client`].
pub fn client_without_proxy() -> Result<Client> {
    build(Client::builder().no_proxy())
}

fn build(builder: ClientBuilder) -> Result<Client> {
    // A second call finds the provider installed, which is what was wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder
        .user_agent(concat!("podstrap/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(roots()?)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|error| Error::internal("cannot set up the HTTP client").because(error))
}

fn roots() -> Result<Vec<Certificate>> {
    let found = rustls_native_certs::load_native_certs();
    let asked = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().find(|name| std::env::var_os(name).is_some());
    if let (Some(name), true) = (asked, found.certs.is_empty()) {
        let mut error = Error::usage(format!("{name} gives no usable CA certificate"))
            .hint("name a PEM file that exists, or unset the variable to use the built-in roots");
        for cause in found.errors {
            error = error.because(cause);
        }
        return Err(error);
    }
    let ders: Vec<_> = if found.certs.is_empty() {
        tracing::debug!("no CA certificates in this image: using the built-in Mozilla roots");
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
    } else {
        found.certs
    };
    // A certificate that rustls cannot read could verify nothing.
    Ok(ders.iter().filter_map(|der| Certificate::from_der(der).ok()).collect())
}
