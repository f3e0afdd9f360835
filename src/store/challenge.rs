//! The challenges of a server that wants a login (RFC 9110, 11.6.1).

/// A way to log in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// Parses `Bearer realm="…",service="…", Basic realm="…"`.
pub(super) fn read(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        let Some(value) = value else {
            found.push(Challenge { scheme: word.to_owned(), parameters: Vec::new() });
            rest = after;
            continue;
        };
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            quoted_value(quoted)
        } else {
            let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
            (value[..end].to_owned(), &value[end..])
        };
        if let Some(challenge) = found.last_mut() {
            challenge.parameters.push((word.to_owned(), value));
        }
        rest = after;
    }
}

/// The value up to the closing quotation mark, and the rest behind it.
fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// Whatever a server sends, the parts are parts of it.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for challenge in read(&text) {
        assert!(!challenge.scheme.is_empty() && text.contains(&challenge.scheme));
        assert!(challenge.parameters.iter().all(|(name, value)| text.contains(name) && value.len() <= text.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let read = |text: &str| -> Vec<String> {
            let shown = |challenge: Challenge| {
                let parameters = challenge.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
                challenge.scheme + &parameters.collect::<String>()
            };
            super::read(text).into_iter().map(shown).collect()
        };
        for (text, wanted) in [
            ("Basic realm=\"a b\"", &["Basic realm=a b"][..]),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"r, s\",scope=\"repository:a:pull,push\"",
                &["Bearer realm=https://auth.example/token service=r, s scope=repository:a:pull,push"],
            ),
            ("Negotiate, bearer realm = x , error=\"a\\\"b\"", &["Negotiate", "bearer realm=x error=a\"b"]),
            ("Basic realm=\"a\", Bearer realm=\"b\"", &["Basic realm=a", "Bearer realm=b"]),
            ("realm=\"x\"", &[]),
            ("Bearer realm=\"open", &["Bearer realm=open"]),
            ("", &[]),
            (" ,, = ", &[]),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
    }
}
