//! Parses socket addresses of listeners, servers and proxies, and the patterns of `match` and `source`.
//!
//! Each function behaves as the named function of Unit 1.35, including its oddities.

use std::net::SocketAddr;

/// The address of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(Vec<u8>),
    /// Octets in network order, and port.
    V4([u8; 4], u16),
    V6([u8; 16], u16),
}

/// Limit of the path of a socket in bytes: `sun_path` without its last byte, unix(7).
const SUN_PATH: usize = 107;

impl Address {
    /// Parses the address of a listener, proxy or server: `nxt_sockaddr_parse` (`nxt_sockaddr.c`).
    pub fn read(text: &[u8]) -> Option<Self> {
        if text.len() > 6 && text.starts_with(b"unix:") {
            return (text.len() - 5 <= SUN_PATH).then(|| Self::Unix(text[5..].to_owned()));
        }
        if text.first() == Some(&b'[') || two_colons(text) {
            // An address without brackets has no port, but the port is required.
            let end = text.strip_prefix(b"[")?.iter().position(|byte| *byte == b']')? + 1;
            let port = port(text[end + 1..].strip_prefix(b":")?)?;
            return Some(Self::V6(ipv6(&text[1..end])?, port));
        }
        let colon = text.iter().position(|byte| *byte == b':')?;
        let host = if &text[..colon] == b"*" { [0; 4] } else { ipv4(&text[..colon])? };
        Some(Self::V4(host, port(&text[colon + 1..])?))
    }

    /// `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        self.socket().map(|socket| socket.port())
    }

    /// The address for bind(2); None for a Unix socket.
    pub fn socket(&self) -> Option<SocketAddr> {
        match *self {
            Self::Unix(_) => None,
            Self::V4(host, port) => Some((host, port).into()),
            Self::V6(host, port) => Some((host, port).into()),
        }
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    integer(digits).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// `nxt_int_parse` (`nxt_parse.c`): only digits.
fn integer(digits: &[u8]) -> Option<i64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

/// `nxt_inet6_probe`
fn two_colons(text: &[u8]) -> bool {
    text.split(|byte| *byte == b':').count() > 2
}

/// `nxt_inet_addr`: four parts; all but the last may be empty. 255.255.255.255 is invalid.
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
    // The rest from the start of the current part, which may be an IPv4 address. None for the first part.
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

/// Validates an address pattern of `match` and `source`: `nxt_http_route_addr_pattern_parse`
/// (`nxt_http_route_addr.c`).
///
/// `Ok(false)` is a meaningless pattern that Unit accepts.
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
            ipv6(host).filter(|_| blocks).ok_or("it is not an IPv6 address")
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
    let parse = |host: &[u8]| ipv4(host).ok_or("it is not an IPv4 address");
    let mut sensible = true;
    if let Some(at) = split(host, b'-') {
        if parse(&host[..at])? > parse(&host[at + 1..])? {
            return Err("the range ends before it begins");
        }
    } else if let Some(at) = split(host, b'/') {
        let bits = prefix(&host[at + 1..], 32)?;
        // Unit turns any text into the address 255.255.255.255, and refuses that only with /32.
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
    integer(digits).filter(|bits| *bits <= most).ok_or("the prefix length after / is invalid")
}

fn port_pattern(ports: Option<&[u8]>) -> Result<(), &'static str> {
    let Some(ports) = ports else { return Ok(()) };
    let Some((_, searched)) = ports.split_last() else { return Err("no port after the colon") };
    let port = |digits: &[u8]| integer(digits).filter(|port| *port <= 65535).ok_or("the port is invalid");
    match searched.iter().position(|byte| *byte == b'-') {
        Some(at) if port(&ports[..at])? > port(&ports[at + 1..])? => Err("the range of ports ends before it begins"),
        Some(_) => Ok(()),
        None => port(ports).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_unit_takes_them() {
        let v6 = |last: u8| std::array::from_fn(|i| if i == 15 { last } else { 0 });
        assert_eq!(Address::read(b"*:80"), Some(Address::V4([0; 4], 80)));
        assert_eq!(Address::read(b"127.0.0.1:080"), Some(Address::V4([127, 0, 0, 1], 80)));
        assert_eq!(Address::read(b"1..2.3:1"), Some(Address::V4([1, 0, 2, 3], 1)));
        assert_eq!(Address::read(b"[::]:80"), Some(Address::V6([0; 16], 80)));
        assert_eq!(Address::read(b"[::1]:80"), Some(Address::V6(v6(1), 80)));
        assert_eq!(Address::read(b"[::ffff:1.2.3.4]:80").map(|a| matches!(a, Address::V6(..))), Some(true));
        assert_eq!(Address::read(b"unix:/x"), Some(Address::Unix(b"/x".to_vec())));
        let socket =
            |text: &[u8]| Address::read(text).and_then(|address| address.socket()).map(|socket| socket.to_string());
        assert_eq!(socket(b"*:80").as_deref(), Some("0.0.0.0:80"));
        assert_eq!(socket(b"[::1]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(socket(b"unix:/x"), None);
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
            assert_eq!(Address::read(bad.as_bytes()), None, "{bad}");
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
}
