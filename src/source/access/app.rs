//! Signs in as an installation of a GitHub App, with a Secret in Flux's keys.
//!
//! | key | value |
//! |---|---|
//! | `githubAppID` | the ID or the client ID of the App |
//! | `githubAppInstallationID` | the ID of its installation |
//! | `githubAppPrivateKey` | an RSA key in PEM |
//! | `githubAppBaseURL` | the API, if it is not github.com's: `https://HOST/api/v3` |
//!
//! podstrap signs a JWT with the key and gets a token for an hour ([`grant`](super::grant)), which is then the login for the
//! host.
//! <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>
//! <https://fluxcd.io/flux/components/source/gitrepositories/#github>

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use url::Url;

use crate::error::{Error, Result};
use crate::http;
use crate::redact::{Secret, Userinfo};

/// The keys of the Secret.
pub(super) const ID: &str = "githubAppID";
pub(super) const INSTALLATION: &str = "githubAppInstallationID";
pub(super) const KEY: &str = "githubAppPrivateKey";
pub(super) const BASE: &str = "githubAppBaseURL";
/// The API without `githubAppBaseURL`.
const GITHUB: &str = "https://api.github.com";
/// The user name for a token (GitHub, "Authenticating as a GitHub App installation").
const USER: &str = "x-access-token";
/// A JWT starts before now, because clocks differ, and lasts at most ten minutes (GitHub, "Generating a JSON Web Token").
const EARLIER: Duration = Duration::from_mins(1);
const LASTS: Duration = Duration::from_mins(9);

/// The tokens of this process.
static TOKENS: LazyLock<Mutex<HashMap<App, Token>>> = LazyLock::new(Mutex::default);

/// An App, as its Secret describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct App {
    id: String,
    pub(super) installation: String,
    key: Secret,
    pub(super) base: Url,
    /// `--auth /secrets/app`.
    from: String,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) secret: Secret,
    pub(super) ends: SystemTime,
}

impl Token {
    pub(super) fn left(&self) -> Duration {
        self.ends.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the GitHub App {} of {}", self.id, self.from)
    }
}

impl App {
    /// `None`: the directory has no such key.
    ///
    /// # Errors
    /// Usage: a key is missing or invalid.
    pub(super) fn read(
        dir: &Path,
        from: &str,
        mut value: impl FnMut(&Path) -> Result<Option<String>>,
    ) -> Result<Option<Self>> {
        let [id, installation, key, base] = [ID, INSTALLATION, KEY, BASE].map(|name| value(&dir.join(name)));
        let (id, installation, key, base) = (id?, installation?, key?, base?);
        if [&id, &installation, &key, &base].iter().all(|found| found.is_none()) {
            return Ok(None);
        }
        let need = |name: &str, found: Option<String>| {
            found.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).ok_or_else(|| {
                Error::usage(format!("{from} has no {name}"))
                    .because("the other keys are those of a GitHub App")
                    .hint(format!("give the Secret {ID}, {INSTALLATION} and {KEY}, as for Flux"))
            })
        };
        let base = base.map(|text| text.trim().trim_end_matches('/').to_owned()).filter(|text| !text.is_empty());
        let base = base.unwrap_or_else(|| GITHUB.to_owned());
        let is_plain = |url: &Url| {
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none()
        };
        let is_private = |url: &Url| url.scheme() == "https" || http::is_here(url);
        let parsed = Url::parse(&base).ok().filter(|url| is_private(url) && is_plain(url));
        let app = Self {
            id: need(ID, id)?,
            installation: need(INSTALLATION, installation)?,
            key: Secret::new(need(KEY, key)?),
            base: parsed.ok_or_else(|| {
                Error::usage(format!("{from}: {BASE} is not an https:// URL, or has a login or a query"))
                    .hint("give the API of your GitHub Enterprise Server: https://HOST/api/v3")
            })?,
            from: from.to_owned(),
        };
        if !app.installation.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::usage(format!("{from}: {INSTALLATION} is not a number"))
                .hint("it is the last part of the installation's URL: https://github.com/settings/installations/ID"));
        }
        app.pair()?;
        Ok(Some(app))
    }

    /// The host whose repositories the token opens: `github.com` has its API at `api.github.com`.
    pub(super) fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        host.strip_prefix("api.").unwrap_or(host).to_owned()
    }

    /// The login, if there is a token.
    pub(super) fn login(&self) -> Option<Userinfo> {
        self.token().map(|token| Userinfo { username: USER.to_owned(), password: token.secret })
    }

    pub(super) fn token(&self) -> Option<Token> {
        TOKENS.lock().unwrap_or_else(PoisonError::into_inner).get(self).cloned()
    }

    pub(super) fn keep(&self, token: Token) {
        let mut tokens = TOKENS.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| !token.left().is_zero());
        tokens.insert(self.clone(), token);
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = Userinfo> {
        let line = self.key.reveal().lines().max_by_key(|line| line.len()).map(Secret::new);
        let line = line.map(|password| Userinfo { username: String::new(), password });
        line.into_iter().chain(self.login())
    }

    fn pair(&self) -> Result<KeyPair> {
        let der = PrivateKeyDer::from_pem_slice(self.key.reveal().as_bytes())
            .map_err(|error| http::pem_fault(&error).to_owned());
        let pair = der.and_then(|der| {
            let pair = match &der {
                PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
                PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
                _ => return Err("it is not an RSA key".to_owned()),
            };
            pair.map_err(|error| format!("it is not an RSA key with 2048 bits or more ({error})"))
        });
        pair.map_err(|why| {
            let error = Error::usage(format!("{}: {KEY} is not a usable key", self.from));
            // PKCS #8 says it in the label, PKCS #1 in a header (RFC 7468, RFC 1421).
            if self.key.reveal().contains("ENCRYPTED") {
                return error.because("it is encrypted").hint("decrypt it: openssl pkey -in FILE -out NEW");
            }
            error.because(why).hint("use the .pem file that GitHub generated for the App")
        })
    }

    /// A JSON Web Token (RFC 7519) in the name of the App.
    pub(super) fn proof(&self) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let claims = json!({
            "iat": now.saturating_sub(EARLIER).as_secs(),
            "exp": (now + LASTS).as_secs(),
            "iss": self.id,
        });
        let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims));
        let pair = self.pair()?;
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| Error::internal("cannot sign with the key of the GitHub App"))?;
        Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}
