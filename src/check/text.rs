//! The small languages inside of strings: addresses, variables, patterns, keys. Each is read as the
//! function of Unit 1.35 that is named with it, oddities included: what Unit takes is no error.

/// What reads as an address of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(Vec<u8>),
    /// In network order.
    V4([u8; 4], u16),
    V6([u8; 16], u16),
}

/// The longest path of a socket: `sun_path` without its last byte, unix(7).
const SUN_PATH: usize = 107;

/// A listener's, proxy's or server's address: `nxt_sockaddr_parse` (`nxt_sockaddr.c`).
pub fn address(text: &[u8]) -> Option<Address> {
    if text.len() > 6 && text.starts_with(b"unix:") {
        return (text.len() - 5 <= SUN_PATH).then(|| Address::Unix(text[5..].to_owned()));
    }
    if text.first() == Some(&b'[') || two_colons(text) {
        // Without brackets there is no port, which must be there.
        let end = text.strip_prefix(b"[")?.iter().position(|byte| *byte == b']')? + 1;
        let port = port(text[end + 1..].strip_prefix(b":")?)?;
        return Some(Address::V6(ipv6(&text[1..end])?, port));
    }
    let colon = text.iter().position(|byte| *byte == b':')?;
    let host = if &text[..colon] == b"*" { [0; 4] } else { ipv4(&text[..colon])? };
    Some(Address::V4(host, port(&text[colon + 1..])?))
}

fn port(digits: &[u8]) -> Option<u16> {
    integer(digits).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// `nxt_int_parse` (`nxt_parse.c`): digits and nothing else.
fn integer(digits: &[u8]) -> Option<i64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

/// `nxt_inet6_probe`
fn two_colons(text: &[u8]) -> bool {
    text.split(|byte| *byte == b':').count() > 2
}

/// `nxt_inet_addr`: four parts, of which all but the last may be empty; 255.255.255.255 is none.
fn ipv4(text: &[u8]) -> Option<[u8; 4]> {
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'.').collect();
    let mut out = [0; 4];
    if parts.len() != 4 || parts[3].is_empty() {
        return None;
    }
    for (part, octet) in parts.into_iter().zip(&mut out) {
        *octet = if part.is_empty() { 0 } else { integer(part).and_then(|value| u8::try_from(value).ok())? };
    }
    (out != [255; 4]).then_some(out)
}

/// `nxt_inet6_addr`
fn ipv6(text: &[u8]) -> Option<[u8; 16]> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text.strip_prefix(b":").unwrap_or(text);
    let mut groups: Vec<u16> = Vec::new();
    let mut gap = None;
    let (mut nibbles, mut group) = (0, 0_u16);
    // Where a part begins that may be an IPv4 address; not the first one.
    let mut part: Option<&[u8]> = None;
    while let Some((byte, more)) = rest.split_first() {
        match byte {
            b':' if nibbles != 0 => {
                groups.push(group);
                if groups.len() == 8 {
                    return None;
                }
                (nibbles, group, part) = (0, 0, Some(more));
            }
            b':' if gap.is_none() => (gap, part) = (Some(groups.len()), Some(more)),
            b':' => return None,
            b'.' if nibbles != 0 => {
                let [a, b, c, d] = ipv4(part.filter(|_| groups.len() < 7)?)?;
                groups.push(u16::from_be_bytes([a, b]));
                group = u16::from_be_bytes([c, d]);
                break;
            }
            _ => {
                nibbles += 1;
                let digit = (*byte as char).to_digit(16).filter(|_| nibbles <= 4)?;
                group = (group << 4) | u16::try_from(digit).ok()?;
            }
        }
        rest = more;
    }
    if nibbles == 0 && gap.is_none() {
        return None;
    }
    groups.push(group);
    match gap {
        Some(at) if groups.len() < 8 => {
            let zeros = 8 - groups.len();
            groups.splice(at..at, std::iter::repeat_n(0, zeros));
        }
        None if groups.len() == 8 => {}
        _ => return None,
    }
    let mut out = [0; 16];
    for (two, group) in out.chunks_exact_mut(2).zip(groups) {
        two.copy_from_slice(&group.to_be_bytes());
    }
    Some(out)
}

/// A pattern of addresses in `match` and `source`: `nxt_http_route_addr_pattern_parse`
/// (`nxt_http_route_addr.c`). The error says what is wrong; `Ok(false)` is what Unit takes although
/// it makes no sense.
pub fn address_pattern(text: &[u8]) -> Result<bool, &'static str> {
    let text = text.strip_prefix(b"!").unwrap_or(text);
    if text == b"unix" {
        return Ok(true);
    }
    if text.len() < 2 {
        return Err("it is too short");
    }
    if let Some(ports) = text.strip_prefix(b"*:") {
        return port_pattern(Some(ports)).map(|()| true);
    }
    let split = |text: &'_ [u8], mark: u8| text.iter().position(|byte| *byte == mark);
    if two_colons(text) {
        let (host, ports) = match text.strip_prefix(b"[") {
            Some(inner) => {
                let end =
                    inner.windows(2).rposition(|two| two == b"]:").ok_or("an IPv6 address in brackets needs a port")?;
                (&inner[..end], Some(&inner[end + 2..]))
            }
            None => (text, None),
        };
        let parse = |host: &[u8]| {
            let blocks = host.split(|byte| *byte == b':').all(|block| block.len() <= 4);
            ipv6(host).filter(|_| blocks).ok_or("it is no IPv6 address")
        };
        if let Some(at) = split(host, b'-') {
            if parse(&host[..at])? > parse(&host[at + 1..])? {
                return Err("the range ends before it begins");
            }
        } else if let Some(at) = split(host, b'/') {
            prefix(&host[at + 1..], 128)?;
            parse(&host[..at])?;
        } else {
            parse(host)?;
        }
        return port_pattern(ports).map(|()| true);
    }
    let (host, ports) = match split(text, b':') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let parse = |host: &[u8]| ipv4(host).ok_or("it is no IPv4 address");
    let mut sensible = true;
    if let Some(at) = split(host, b'-') {
        if parse(&host[..at])? > parse(&host[at + 1..])? {
            return Err("the range ends before it begins");
        }
    } else if let Some(at) = split(host, b'/') {
        let bits = prefix(&host[at + 1..], 32)?;
        // Any text becomes the address 255.255.255.255, which only /32 tells from others.
        match parse(&host[..at]) {
            Err(what) if bits == 32 => return Err(what),
            Err(_) => sensible = false,
            Ok(_) => {}
        }
    } else {
        parse(host)?;
    }
    port_pattern(ports).map(|()| sensible)
}

fn prefix(digits: &[u8], most: i64) -> Result<i64, &'static str> {
    integer(digits).filter(|bits| *bits <= most).ok_or("the prefix length behind / is wrong")
}

fn port_pattern(ports: Option<&[u8]>) -> Result<(), &'static str> {
    let Some(ports) = ports else { return Ok(()) };
    let Some((_, searched)) = ports.split_last() else { return Err("there is no port behind the colon") };
    let port = |digits: &[u8]| integer(digits).filter(|port| *port <= 65535).ok_or("the port is wrong");
    match searched.iter().position(|byte| *byte == b'-') {
        Some(at) if port(&ports[..at])? > port(&ports[at + 1..])? => Err("the range of ports ends before it begins"),
        Some(_) => Ok(()),
        None => port(ports).map(drop),
    }
}

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

/// %-escapes: `nxt_decode_uri` (`nxt_string.c`).
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

/// The up to three parts of a `pass`: `nxt_http_pass_segments` (`nxt_http_route.c`).
pub fn segments(pass: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts: Vec<_> = pass.split(|byte| *byte == b'/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    parts.into_iter().map(decode_uri).collect()
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

/// A language and what is asked of its version, as `nxt_app_lang_module` (`nxt_application.c`) takes
/// `type` apart: at the first space, or the first digit.
pub fn language(kind: &str) -> (&str, &str) {
    match kind.find(|c: char| c == ' ' || c.is_ascii_digit()) {
        Some(at) if kind[at..].starts_with(' ') => (&kind[..at], &kind[at + 1..]),
        Some(at) => (&kind[..at], &kind[at..]),
        None => (kind, ""),
    }
}

/// Whether a module's version is one that is asked for: `nxt_strvers_match` (`nxt_string.c`). It
/// begins so, and at a boundary: 3.1 does not match 3.11.
pub fn version_matches(version: &str, wanted: &str) -> bool {
    let Some(rest) = version.strip_prefix(wanted) else { return false };
    match (wanted.chars().last(), rest.chars().next()) {
        (None, _) | (_, None) => true,
        (Some(last), Some(next)) => last.is_ascii_digit() != next.is_ascii_digit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_unit_takes_them() {
        let v6 = |last: u8| std::array::from_fn(|i| if i == 15 { last } else { 0 });
        assert_eq!(address(b"*:80"), Some(Address::V4([0; 4], 80)));
        assert_eq!(address(b"127.0.0.1:080"), Some(Address::V4([127, 0, 0, 1], 80)));
        assert_eq!(address(b"1..2.3:1"), Some(Address::V4([1, 0, 2, 3], 1)));
        assert_eq!(address(b"[::]:80"), Some(Address::V6([0; 16], 80)));
        assert_eq!(address(b"[::1]:80"), Some(Address::V6(v6(1), 80)));
        assert_eq!(address(b"[::ffff:1.2.3.4]:80").map(|a| matches!(a, Address::V6(..))), Some(true));
        assert_eq!(address(b"unix:/x"), Some(Address::Unix(b"/x".to_vec())));
        for bad in [
            "",
            "80",
            "*",
            "*:",
            "*:0",
            "*:65536",
            "*:80x",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[:::1]:80",
            "[1:2]:80",
            "localhost:80",
            "256.0.0.1:80",
            "1.2.3:80",
            "1.2.3.:80",
            "255.255.255.255:80",
            "unix:",
            "unix:/",
            ":80",
            "[1.2.3.4]:80",
            "[12345::]:80",
            "[::g]:80",
            "[1:2:3:4:5:6:7:8:9]:80",
            "[1:2:3:4:5:6:7::8]:80",
        ] {
            assert_eq!(address(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn patterns_of_addresses() {
        for good in [
            "unix",
            "!unix",
            "*:80",
            "*:80-90",
            "10.0.0.0/8",
            "10.0.0.1-10.0.0.9:80",
            "::1",
            "[::1]:80",
            "fe80::/10",
            "!127.0.0.1",
            "0.0.0.0/0",
        ] {
            assert_eq!(address_pattern(good.as_bytes()), Ok(true), "{good}");
        }
        assert_eq!(address_pattern(b"garbage/8"), Ok(false));
        for bad in
            ["", "x", "*:", "*:9-8", "10.0.0.0/33", "localhost", "garbage/32", "10.0.0.9-10.0.0.1", "[::1]", "::1/129"]
        {
            assert!(address_pattern(bad.as_bytes()).is_err(), "{bad}");
        }
    }

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
    fn patterns_segments_and_keys() {
        for good in ["", "!", "*x*", "~^/(a|b)[^]/]$", "!~a", "~[[:alpha:]]", "~\\("] {
            assert_eq!(pattern(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["**", "!a**", "~(", "~a)", "~[a", "~a\\", "~[]"] {
            assert!(pattern(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(segments(b"applications/a%2fb").unwrap()[1], b"a/b");
        assert!(
            ["", "/", "a/", "a//b", "a/b/c/d", "a/%2", "a/%zz"].iter().all(|bad| segments(bad.as_bytes()).is_none())
        );
        assert_eq!([64, 65, 66].map(|n| base64_length(&vec![b'A'; n])), [Some(48), None, Some(49)]);
        assert_eq!(base64_length(b"AAA="), Some(2));
        assert_eq!((base64_length(b"A==="), base64_length(b"AA-A")), (None, None));
    }

    #[test]
    fn a_version_matches_at_a_boundary() {
        for wanted in ["", "3", "3.", "3.11", "3.11.2"] {
            assert!(version_matches("3.11.2", wanted), "{wanted}");
        }
        for wanted in ["3.1", "3.12", " 3", "3.11.20", "x"] {
            assert!(!version_matches("3.11.2", wanted), "{wanted}");
        }
        assert_eq!(
            (language("python 3.1"), language("python3"), language("go")),
            (("python", "3.1"), ("python", "3"), ("go", ""))
        );
    }
}
