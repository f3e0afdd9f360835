//! Paths of names: `applications/blog/admin` in a `pass`, `/config/applications/blog` in the control API.
//!
//! In a name, `/` is encoded as `%2F` and `%` as `%25`.

/// Decodes %-escapes: `nxt_decode_uri` (`nxt_string.c`).
pub fn decode_uri(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(if *byte == b'%' {
            let mut digit = || (*bytes.next()? as char).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            *byte
        });
    }
    Some(out)
}

/// Splits a `pass` into at most three names: `nxt_http_pass_segments` (`nxt_http_route.c`).
pub fn of_pass(pass: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts: Vec<_> = pass.split(|byte| *byte == b'/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    parts.into_iter().map(decode_uri).collect()
}

/// Splits a path of the control API into names. The first name of a configuration is `config`.
pub fn of_place(place: &str) -> Option<Vec<String>> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    place.trim_matches('/').split('/').map(|name| decode_uri(name.as_bytes()).map(text)).collect()
}

/// Encodes a name as one segment of a path.
pub fn encoded(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_cut_into_names() {
        for (pass, names) in [
            ("routes", &["routes"][..]),
            ("applications/a%2fb", &["applications", "a/b"]),
            ("applications/a/x%25", &["applications", "a", "x%"]),
        ] {
            let read = of_pass(pass.as_bytes()).unwrap();
            assert_eq!(read, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), "{pass}");
        }
        for bad in ["", "/", "a/", "a//b", "a/b/c/d", "a/%2", "a/%zz"] {
            assert_eq!(of_pass(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_place_is_cut_into_names() {
        for (place, names) in [
            ("/config", &["config"][..]),
            ("/config/applications/", &["config", "applications"]),
            ("/config/applications/a%2Fb", &["config", "applications", "a/b"]),
            ("/config/listeners/*:80", &["config", "listeners", "*:80"]),
        ] {
            assert_eq!(of_place(place).unwrap(), names, "{place}");
        }
        assert_eq!(of_place("/config/%2"), None);
    }

    #[test]
    fn a_name_survives_its_path() {
        for name in ["a", "a/b", "100%", "%2F"] {
            assert_eq!(of_pass(encoded(name).as_bytes()).unwrap(), [name.as_bytes()], "{name}");
        }
    }
}
