//! Who may ask for a look at the reference: the Git server, with a secret that both know.
//!
//! | server | header |
//! |---|---|
//! | GitHub | `X-Hub-Signature-256: sha256=HEX`, HMAC-SHA256 of the body |
//! | Gitea, Forgejo | the same, and `X-Gitea-Signature: HEX` |
//! | Bitbucket | `X-Hub-Signature: sha256=HEX` |
//! | GitLab | `X-Gitlab-Token: SECRET` |
//!
//! The body itself does not matter: the sidecar asks the Git server what is true.
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>,
//! <https://docs.gitea.com/usage/webhooks>,
//! <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/>,
//! <https://docs.gitlab.com/user/project/integrations/webhooks/>

use hyper::HeaderMap;
use ring::hmac;

/// The headers with a signature of the body.
const SIGNATURES: [&str; 3] = ["x-hub-signature-256", "x-gitea-signature", "x-hub-signature"];
/// The header with the secret itself.
const TOKEN: &str = "x-gitlab-token";

/// A webhook whose body arrives.
pub(super) struct Signed {
    key: hmac::Key,
    body: hmac::Context,
}

impl Signed {
    pub(super) fn new(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { body: hmac::Context::with_key(&key), key }
    }

    pub(super) fn update(&mut self, chunk: &[u8]) {
        self.body.update(chunk);
    }

    /// Whether one of the headers proves the secret.
    pub(super) fn proves(self, headers: &HeaderMap, secret: &[u8]) -> bool {
        let tag = self.body.sign();
        // Equal only if the values are. An attacker cannot choose what is compared, so its time says nothing.
        let equal =
            |one: &[u8], other: &[u8]| hmac::sign(&self.key, one).as_ref() == hmac::sign(&self.key, other).as_ref();
        let signatures = SIGNATURES.iter().filter_map(|name| headers.get(*name)).filter_map(|value| {
            let text = value.to_str().ok()?;
            unhex(text.strip_prefix("sha256=").unwrap_or(text))
        });
        let mut proofs = signatures.map(|signature| equal(&signature, tag.as_ref()));
        proofs.any(|proof| proof) || headers.get(TOKEN).is_some_and(|token| equal(token.as_bytes(), secret))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_proved(name: &'static str, value: &str, body: &[u8]) -> bool {
        let mut signed = Signed::new(b"It's a Secret to Everybody");
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        body.chunks(3).for_each(|chunk| signed.update(chunk));
        signed.proves(&headers, b"It's a Secret to Everybody")
    }

    /// The example of GitHub's documentation.
    #[test]
    fn the_servers_prove_themselves() {
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signed = format!("sha256={hex}");
        for (name, value) in [
            ("x-hub-signature-256", signed.as_str()),
            ("x-hub-signature", &signed),
            ("x-gitea-signature", hex),
            ("x-gitlab-token", "It's a Secret to Everybody"),
        ] {
            assert!(is_proved(name, value, b"Hello, World!"), "{name}");
            assert!(!is_proved(name, &value.replace(['7', 's'], "8"), b"Hello, World!"), "{name}");
        }
        assert!(!is_proved("x-hub-signature-256", &signed, b"Hello, World?"));
        for value in ["", "sha256=", "sha256=7", "sha1=757107ea", "sha256=ä", "It's a Secret to Everybody"] {
            assert!(!is_proved("x-hub-signature-256", value, b"Hello, World!"), "{value}");
        }
        assert!(!is_proved("authorization", &signed, b"Hello, World!"));
    }
}
