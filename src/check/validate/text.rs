//! The small languages inside of strings: variables, patterns, keys. Each is read as the function of
//! Unit 1.35 that is named with it, oddities included: what Unit takes is no error.

/// Whether a string is taken for one with variables or a script: `nxt_is_tstr` (`nxt_tstr.h`).
pub fn is_template(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'`' | b'$'))
}

/// Whether it is a script, which needs a Unit with njs.
pub fn is_script(text: &[u8]) -> bool {
    text.first() == Some(&b'`')
}

/// The variables that Unit has by themselves (`nxt_http_variables.c`).
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

/// What is wrong with a string's variables: `nxt_var_test` (`nxt_var.c`).
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

/// What is wrong with a pattern of `match`: `nxt_conf_vldt_match_pattern`. A regular expression is
/// PCRE's matter; here only what no engine takes is found.
pub fn pattern(text: &[u8]) -> Result<(), &'static str> {
    let body = text.strip_prefix(b"!").unwrap_or(text);
    if let Some(expression) = body.strip_prefix(b"~") {
        return regex(expression);
    }
    if body.windows(2).any(|two| two == b"**") { Err("it has two * in a row") } else { Ok(()) }
}

/// Groups and classes that are not closed, and a backslash at the end.
fn regex(text: &[u8]) -> Result<(), &'static str> {
    // What changes the reading of all the rest is left to PCRE: quoting, comments, free spacing, verbs.
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
                // A bracket at the very beginning of a class is one of its characters.
                let negated = usize::from(text.get(at + 1) == Some(&b'^'));
                let mut inner = at + 1 + negated;
                let first = inner;
                loop {
                    match text.get(inner) {
                        None => return Err("the regular expression has a [ without its ]"),
                        Some(b']') if inner > first => break,
                        // [:alpha:] and \] hold brackets of their own.
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

/// How many bytes a ticket's key has: `nxt_base64_decode` (`nxt_string.c`).
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
