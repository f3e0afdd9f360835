//! Parses the syntax inside strings: variables, patterns, keys.
//!
//! Each function behaves as the named function of Unit 1.35, including its oddities: text that Unit
//! accepts is not an error.

/// Whether Unit treats a string as a script or as text with variables: `nxt_is_tstr` (`nxt_tstr.h`).
pub fn is_template(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'`' | b'$'))
}

/// Whether a string is a script, which needs a Unit with njs.
pub fn is_script(text: &[u8]) -> bool {
    text.first() == Some(&b'`')
}

/// The variables of Unit with fixed names (`nxt_http_variables.c`).
pub const VARIABLES: [&str; 17] = [
    "dollar",
    "request_time",
    "method",
    "request_uri",
    "uri",
    "host",
    "remote_addr",
    "time_local",
    "request_line",
    "request_id",
    "status",
    "body_bytes_sent",
    "header_referer",
    "response_header_connection",
    "response_header_content_length",
    "response_header_transfer_encoding",
    "header_user_agent",
];

/// An error in the variables of a string: `nxt_var_test` (`nxt_var.c`).
#[derive(Debug, PartialEq, Eq)]
pub enum Variable {
    Malformed,
    Unknown(String),
}

pub fn variables(text: &[u8]) -> Result<(), Variable> {
    if is_script(text) {
        return Ok(());
    }
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        rest = &rest[at + 1..];
        let braced = rest.first() == Some(&b'{');
        rest = &rest[usize::from(braced)..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'_').count();
        let name = String::from_utf8_lossy(&rest[..length]).into_owned();
        rest = &rest[length..];
        if length == 0 || (braced && rest.first() != Some(&b'}')) {
            return Err(Variable::Malformed);
        }
        rest = &rest[usize::from(braced)..];
        let prefixed = ["response_header_", "header_", "arg_", "cookie_"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .is_some_and(|field| !field.is_empty());
        if !prefixed && !VARIABLES.contains(&name.as_str()) {
            return Err(Variable::Unknown(name));
        }
    }
    Ok(())
}

/// Validates a pattern of `match`: `nxt_conf_vldt_match_pattern`.
///
/// In regular expressions, which PCRE validates, it finds only errors that every engine refuses.
pub fn pattern(text: &[u8]) -> Result<(), &'static str> {
    let body = text.strip_prefix(b"!").unwrap_or(text);
    if let Some(expression) = body.strip_prefix(b"~") {
        return regex(expression);
    }
    if body.windows(2).any(|two| two == b"**") { Err("it has two * in a row") } else { Ok(()) }
}

/// Finds unclosed groups and classes, and a backslash at the end.
fn regex(text: &[u8]) -> Result<(), &'static str> {
    // Leave these to PCRE, because they change the syntax of the rest: quoting, comments, free spacing, verbs.
    if [&b"\\Q"[..], b"(?#", b"(*", b"(?x", b"x)", b"x:"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|w| w == *mark))
    {
        return Ok(());
    }
    let mut depth = 0_u32;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' if at + 1 == text.len() => return Err("the regular expression ends in a backslash"),
            b'\\' => at += 1,
            b'[' => {
                // A ] at the start of a class is one of its characters.
                let negated = usize::from(text.get(at + 1) == Some(&b'^'));
                let mut inner = at + 1 + negated;
                let first = inner;
                loop {
                    match text.get(inner) {
                        None => return Err("the regular expression has a [ without its ]"),
                        Some(b']') if inner > first => break,
                        // [:alpha:] contains brackets. Leave the rest to PCRE.
                        Some(b'[') if matches!(text.get(inner + 1), Some(b':' | b'.' | b'=')) => return Ok(()),
                        Some(b'\\') => inner += 2,
                        Some(_) => inner += 1,
                    }
                }
                at = inner;
            }
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1).ok_or("the regular expression has a ) without its (")?,
            _ => {}
        }
        at += 1;
    }
    if depth == 0 { Ok(()) } else { Err("the regular expression has a ( without its )") }
}

/// The length in bytes of a ticket's key in Base64: `nxt_base64_decode` (`nxt_string.c`).
pub fn base64_length(text: &[u8]) -> Option<usize> {
    let mut pad = (4 - text.len() % 4) % 4;
    if pad > 2 {
        return None;
    }
    let other = text.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')));
    if let Some(at) = other {
        if pad != 0 || !matches!(&text[at..], b"=" | b"==") {
            return None;
        }
        pad = text.len() - at;
    }
    Some(text.len().div_ceil(4) * 3 - pad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_unit() {
        for good in ["", "/www$uri", "${uri}x", "$header_x_y", "$arg_a${cookie_b}", "`js`"] {
            assert_eq!(variables(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["$", "a$1", "${uri", "${}", "$$"] {
            assert_eq!(variables(bad.as_bytes()), Err(Variable::Malformed), "{bad}");
        }
        for (bad, name) in [("$urx", "urx"), ("$header_", "header_"), ("$uri_x", "uri_x")] {
            assert_eq!(variables(bad.as_bytes()), Err(Variable::Unknown(name.into())), "{bad}");
        }
    }

    #[test]
    fn patterns_and_keys() {
        for good in ["", "!", "*x*", "~^/(a|b)[^]/]$", "!~a", "~[[:alpha:]]", "~\\("] {
            assert_eq!(pattern(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["**", "!a**", "~(", "~a)", "~[a", "~a\\", "~[]"] {
            assert!(pattern(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!([64, 65, 66].map(|n| base64_length(&vec![b'A'; n])), [Some(48), None, Some(49)]);
        assert_eq!(base64_length(b"AAA="), Some(2));
        assert_eq!((base64_length(b"A==="), base64_length(b"AA-A")), (None, None));
    }
}
