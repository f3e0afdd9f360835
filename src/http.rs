//! The HTTP client for Git, indexes, registries and probes: one policy for TLS roots, proxies and time-outs.
//!
//! The roots are those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, or else the image's own. An image without any gets
//! the built-in Mozilla roots. `--ca-file` adds to the roots. Proxies come from `HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY` and `NO_PROXY`.

use std::io;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode, redirect};
use url::{Host, Url};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, OtherError};

use crate::error::{Error, Kind, Result, refuse_bare_login};
use crate::files::{self, WRITTEN};

/// The certificates of [`trust`].
static EXTRA: RwLock<Vec<CertificateDer<'static>>> = RwLock::new(Vec::new());

/// Characters per line of PEM (RFC 7468, 2).
const PEM_LINE: usize = 64;

/// Time-out of a TCP and TLS handshake. Linux resends a lost SYN after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay silent, unless a deadline is shorter.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// A client that follows no redirect: its caller decides which credentials go to the new URL.
///
/// # Errors
/// `SSL_CERT_FILE` or `SSL_CERT_DIR` has no usable certificate, or a proxy variable no usable proxy.
pub fn client() -> Result<Client> {
    through_proxies(Client::builder())
}

/// Like [`client`], but leaves response bodies compressed as the server sent them.
///
/// # Errors
/// As [`client`].
pub fn client_verbatim() -> Result<Client> {
    through_proxies(Client::builder().no_gzip())
}

/// Like [`client`], but asks a server on this host without a proxy.
///
/// # Errors
/// As [`client`].
pub fn client_for(url: &Url) -> Result<Client> {
    if is_here(url) { client_without_proxy() } else { client() }
}

/// Whether the server of a URL is on this host.
pub fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Like [`client_verbatim`], but an answer may take any time, as after a long upload: the caller limits each request. A
/// server on this host is asked without a proxy.
///
/// # Errors
/// As [`client`].
pub fn client_of_registry(is_here: bool) -> Result<Client> {
    let builder = Client::builder().no_gzip();
    if is_here { patient(builder.no_proxy()) } else { patient(proxied(builder)?) }
}

fn through_proxies(builder: ClientBuilder) -> Result<Client> {
    build(proxied(builder)?)
}

fn proxied(builder: ClientBuilder) -> Result<ClientBuilder> {
    if proxies().is_none() {
        return Ok(builder.no_proxy());
    }
    check_proxies()?;
    Ok(builder)
}

/// Like [`client`], but without a proxy: for a server in this Pod, which no proxy can reach.
///
/// # Errors
/// As [`client`], except for proxies.
pub fn client_without_proxy() -> Result<Client> {
    build(Client::builder().no_proxy())
}

fn build(builder: ClientBuilder) -> Result<Client> {
    patient(builder.read_timeout(READ_TIMEOUT))
}

fn patient(builder: ClientBuilder) -> Result<Client> {
    // Fails if a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder
        .user_agent(concat!("podstrap/", env!("CARGO_PKG_VERSION")))
        // Skip certificates that rustls cannot read: they cannot verify anything.
        .tls_certs_only(roots()?.iter().filter_map(|der| Certificate::from_der(der).ok()))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|error| Error::internal("cannot set up the HTTP client").because(error))
}

/// The proxies of the environment, as reqwest reads them. `None` if `NO_PROXY` has a `*`, which reqwest does not
/// apply to addresses.
fn proxies() -> Option<Matcher> {
    let exceptions = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    (!excludes_all(&exceptions)).then(Matcher::from_env)
}

/// Whether a value of `NO_PROXY` turns all proxies off.
pub fn excludes_all(exceptions: &str) -> bool {
    exceptions.split(',').any(|host| host.trim() == "*")
}

/// Rejects unusable proxy variables. reqwest ignores a variable that it cannot read, so the request would bypass
/// the proxy. Or it takes the start of a password as the host.
fn check_proxies() -> Result<()> {
    let set = |names: [&'static str; 2]| {
        let value = names.iter().find_map(|name| Some((*name, std::env::var_os(name)?)));
        value.filter(|(_, value)| !value.is_empty())
    };
    let mut asked = vec![set(["HTTPS_PROXY", "https_proxy"]), set(["HTTP_PROXY", "http_proxy"])];
    if asked.contains(&None) {
        asked.push(set(["ALL_PROXY", "all_proxy"]));
    }
    for (name, value) in asked.into_iter().flatten() {
        refuse_bare_login(Kind::Usage, name, &value.to_string_lossy())?;
        if !usable(&value.to_string_lossy()) {
            return Err(Error::usage(format!("{name} has no usable proxy"))
                .because("it is not a URL like http://host:port or http://user:password@host:port")
                .hint(
                    "write special characters in the password as %XX (%23 for #, %40 for @); SOCKS is not supported",
                ));
        }
    }
    Ok(())
}

fn usable(value: &str) -> bool {
    let any = hyper::Uri::from_static("http://host/");
    let Some(proxy) = Matcher::builder().all(value).build().intercept(&any) else { return false };
    let Some(authority) = proxy.uri().authority() else { return false };
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let behind = rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@'));
    !behind
        && matches!(proxy.uri().scheme_str(), Some("http" | "https"))
        && !authority.host().is_empty()
        && (authority.port_u16().is_some() || authority.as_str() == authority.host())
        && proxy.basic_auth().is_some() == value.contains('@')
}

/// The proxy for a URL. `Display` shows its host and port.
pub struct Proxy(Intercept);

/// Finds the proxy for a request of [`client`] to the URL.
pub fn proxy(url: &Url) -> Option<Proxy> {
    proxies()?.intercept(&url.as_str().parse().ok()?).map(Proxy)
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.uri().authority().map_or("", |authority| authority.as_str()))
    }
}

impl Proxy {
    /// The strings that must not be printed: the password, and the value of the header.
    pub fn secrets(&self) -> Vec<String> {
        let header = self.0.basic_auth().and_then(|header| header.to_str().ok()?.strip_prefix("Basic "));
        let login = header.and_then(|header| BASE64_STANDARD.decode(header).ok());
        let login = login.map(|login| String::from_utf8_lossy(&login).into_owned());
        // The user name may be a token.
        let secret = login.as_deref().and_then(|login| login.split_once(':'));
        let secret = secret.map(|(user, password)| if password.is_empty() { user } else { password });
        header.into_iter().chain(secret).filter(|secret| !secret.is_empty()).map(str::to_owned).collect()
    }

    /// The error of a proxy that rejects or requires credentials.
    pub fn refused(&self, what: &str, url: &Url) -> Error {
        let name = if url.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let hint = match self.0.basic_auth() {
            Some(_) => format!("correct the user or the password in {name}"),
            None => format!("set {name} from a Secret, with user:password@ before the proxy's host"),
        };
        Error::source(what).because(format!("the proxy {self} answers 407 Proxy Authentication Required")).hint(hint)
    }
}

/// Why a server's certificate is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// No trusted root signed it.
    UnknownIssuer,
    /// It is a CA's certificate, not a server's.
    CaCertificate,
    /// It is expired, for another name, revoked, or malformed.
    Other,
}

/// The reason, if a request failed because of the server's certificate.
pub fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<Distrust> {
    let Some(rustls::Error::InvalidCertificate(why)) = links(error).find_map(|link| link.downcast_ref()) else {
        return None;
    };
    Some(match why {
        CertificateError::UnknownIssuer => Distrust::UnknownIssuer,
        CertificateError::Other(OtherError(other))
            if matches!(other.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
        {
            Distrust::CaCertificate
        }
        _ => Distrust::Other,
    })
}

/// Whether a request failed because the proxy requires a login before it opens a tunnel.
pub fn is_proxy_login(error: &reqwest::Error) -> bool {
    // hyper-util does not export the type.
    links(error).last().is_some_and(|link| link.to_string().ends_with("proxy authorization required"))
}

/// The causes of a failed request, outermost first, without the wrappers of reqwest and hyper-util.
pub fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let wraps = |link: &&(dyn std::error::Error + 'static)| {
        link.is::<reqwest::Error>() || link.is::<hyper_util::client::legacy::Error>()
    };
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |link| link.source())
        .filter(move |link| !wraps(link))
}

/// The error and all its causes. Includes the error that an [`io::Error`] wraps, which its `source` skips.
fn links<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |link| match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
        None => link.source(),
    })
}

/// Whether a retry may succeed after this status: time-outs, throttling and all server errors.
pub fn passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500..=599)
}

/// The server's Retry-After, in seconds or as a date (RFC 9110, 10.2.3).
pub fn retry_after(response: &Response) -> Option<Duration> {
    pause(response.headers().get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

fn pause(text: &str, now: SystemTime) -> Option<Duration> {
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    // A past date means no wait.
    seconds.or_else(|| Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()))
}

/// Why a text is no PEM. The error itself may show the text, which may be a private key.
pub fn pem_fault(error: &rustls::pki_types::pem::Error) -> &'static str {
    use rustls::pki_types::pem::Error as Fault;
    match error {
        Fault::MissingSectionEnd { .. } => "a section has no END line of its own",
        Fault::IllegalSectionStart { .. } => "a BEGIN line is incomplete",
        Fault::Base64Decode(_) => "a section is not in base64",
        Fault::NoItemsFound => "it has no section of the right kind",
        _ => "it is not in PEM",
    }
}

/// Adds the CAs of a PEM file to the roots of every later client.
///
/// # Errors
/// The file is unreadable or has no certificate.
pub fn trust(file: &Path) -> Result<()> {
    const PEM: &str = "give a file with certificates in PEM: -----BEGIN CERTIFICATE-----";
    let shown = file.display();
    let bytes = files::read(file, WRITTEN)
        .map_err(|error| files::unreadable(Kind::Usage, format!("cannot read --ca-file {shown}"), &error).hint(PEM))?;
    let (certs, errors): (Vec<_>, Vec<_>) = CertificateDer::pem_slice_iter(&bytes).partition(Result::is_ok);
    let certs: Vec<_> = certs.into_iter().filter_map(Result::ok).collect();
    if certs.is_empty() {
        let error = Error::usage(format!("--ca-file {shown} has no usable CA certificate")).hint(PEM);
        let faults = errors.iter().filter_map(|error| error.as_ref().err());
        return Err(faults.map(pem_fault).fold(error, Error::because));
    }
    *EXTRA.write().unwrap_or_else(PoisonError::into_inner) = certs;
    Ok(())
}

/// All roots in PEM, for child processes. `None` if [`trust`] added none: children then find the roots
/// themselves.
///
/// # Errors
/// As [`client`].
pub fn bundle() -> Result<Option<String>> {
    if EXTRA.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    for certificate in roots()? {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = BASE64_STANDARD.encode(&certificate);
        for start in (0..base64.len()).step_by(PEM_LINE) {
            text.push_str(&base64[start..base64.len().min(start + PEM_LINE)]);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(Some(text))
}

fn roots() -> Result<Vec<CertificateDer<'static>>> {
    // rustls_native_certs opens it itself.
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        let what = || format!("cannot read SSL_CERT_FILE {}", Path::new(&file).display());
        files::unless_absent(files::open(Path::new(&file)))
            .map_err(|error| files::unreadable(Kind::Usage, what(), &error).hint("set it to an existing PEM file"))?;
    }
    let asked = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().find(|name| std::env::var_os(name).is_some());
    // The image's file has all of its certificates. Its directory has each of them once more, in two files.
    let bundle = if asked.is_none() { openssl_probe::probe().cert_file } else { None };
    let mut found = rustls_native_certs::CertificateResult::default();
    if let Some(bundle) = bundle {
        found = rustls_native_certs::load_certs_from_paths(Some(&bundle), None);
    }
    if found.certs.is_empty() {
        found = rustls_native_certs::load_native_certs();
    }
    if let (Some(name), true) = (asked, found.certs.is_empty()) {
        let mut error = Error::usage(format!("{name} has no usable CA certificate"))
            .hint("set it to an existing PEM file, or unset it to use the default roots");
        for cause in found.errors {
            error = match cause.kind {
                rustls_native_certs::ErrorKind::Pem(fault) => error.because(pem_fault(&fault)),
                _ => error.because(cause),
            };
        }
        return Err(error);
    }
    let mut ders = if found.certs.is_empty() {
        tracing::debug!("no CA certificates in this image: using the built-in Mozilla roots");
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
    } else {
        found.certs
    };
    ders.extend(EXTRA.read().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    Ok(ders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_asks_to_wait_in_seconds_or_until_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:30 GMT").unwrap();
        let seconds = |text| pause(text, now).map(|pause| pause.as_secs());
        for (text, wanted) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(seconds(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_known_by_the_type_of_the_cause() {
        let other = |error: webpki::Error| CertificateError::Other(OtherError(std::sync::Arc::new(error)));
        for (why, wanted) in [
            (CertificateError::UnknownIssuer, Distrust::UnknownIssuer),
            (other(webpki::Error::CaUsedAsEndEntity), Distrust::CaCertificate),
            (other(webpki::Error::BadDer), Distrust::Other),
            (CertificateError::Expired, Distrust::Other),
        ] {
            // As the connector wraps it.
            let error = io::Error::other(rustls::Error::InvalidCertificate(why.clone()));
            assert_eq!(distrust(&io::Error::other(error)), Some(wanted), "{why:?}");
        }
        assert_eq!(distrust(&io::Error::other("invalid peer certificate: UnknownIssuer")), None);
        assert_eq!(distrust(&rustls::Error::HandshakeNotComplete), None);
    }

    #[test]
    fn a_proxy_is_told_from_what_only_looks_like_one() {
        for value in
            ["http://host:3128", "host:3128", "host", "http://[::1]:3128/", "https://user:p%40ss@host", "u@host:1"]
        {
            assert!(usable(value), "{value}");
        }
        for value in [
            "http://user:pa#ss@host:3128",
            "http://user:12#ss@host:3128",
            "http://user:pa/ss@host",
            "http://user:pa@ss@host",
            "http://user:p@ss/w@host",
            "user:p@ss/w@host:1",
            "http://user:pa?ss@host",
            "http://host:port",
            "http://host:99999",
            "http://",
            "http://:3128",
            "socks5://host:1080",
            "ftp://host",
            "http://a b",
        ] {
            assert!(!usable(value), "{value}");
        }
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let all = (100..600).filter(|status| passing(StatusCode::from_u16(*status).unwrap()));
        assert_eq!(all.filter(|status| *status < 500).collect::<Vec<_>>(), [408, 425, 429]);
        assert!([500, 502, 503, 504, 521].into_iter().all(|status| passing(StatusCode::from_u16(status).unwrap())));
    }
}
