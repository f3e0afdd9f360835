//! Compares certificate chains by the validity times of their certificates.
//!
//! Unit shows these times (`GET /certificates/NAME`), but no fingerprint. Two chains are equal if they
//! have the same length and the same times, to the second. A renewed certificate starts at another second.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

/// `(since, until)` of each certificate, in the order of the chain.
///
/// The format is that of OpenSSL's `ASN1_TIME_print`, which Unit uses: `Sep 18 19:46:19 2018 GMT`.
pub(super) type Validities = Vec<(String, String)>;

/// The validities in a PEM bundle; None if one of its certificates is invalid.
pub(super) fn of_pem(pem: &[u8]) -> Option<Validities> {
    let all: Option<Validities> = CertificateDer::pem_slice_iter(pem).map(|der| validity(der.ok()?.as_ref())).collect();
    all.filter(|all| !all.is_empty())
}

/// The validities in an object of `GET /certificates`.
pub(super) fn of_shown(shown: &Value) -> Option<Validities> {
    let text = |one: &Value, name| one["validity"][name].as_str().map(str::to_owned);
    shown["chain"].as_array()?.iter().map(|one| Some((text(one, "since")?, text(one, "until")?))).collect()
}

/// The validity of one certificate in DER (RFC 5280, 4.1):
/// `Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, validity { since, until }, …`.
fn validity(der: &[u8]) -> Option<(String, String)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (mut tbs, _) = inside(inside(der, SEQUENCE)?.0, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        tbs = element(tbs)?.2;
    }
    for _ in ["serial", "algorithm", "issuer"] {
        tbs = element(tbs)?.2;
    }
    let (times, _) = inside(tbs, SEQUENCE)?;
    let (tag, since, rest) = element(times)?;
    let since = time(tag, since)?;
    let (tag, until, _) = element(rest)?;
    Some((since, time(tag, until)?))
}

/// The contents of an element with this tag, and the rest after it.
fn inside(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, contents, rest) = element(der)?;
    (tag == wanted).then_some((contents, rest))
}

/// Splits off one element: tag, contents, and the rest (X.690, 8.1).
///
/// The tag is one byte. The length is one byte or, after `0x80 + n`, n bytes.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, mut der) = der.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, rest) = der.split_at_checked(usize::from(first & 0x7f))?;
        // No certificate needs a length of more than four bytes.
        length = (!digits.is_empty() && digits.len() <= 4)
            .then(|| digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)))?;
        der = rest;
    }
    let (contents, rest) = der.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// `UTCTime` (`YYMMDDHHMMSSZ`, years from 1950) and `GeneralizedTime` (`YYYYMMDDHHMMSSZ`).
fn time(tag: u8, digits: &[u8]) -> Option<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let digits = digits.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let text = std::str::from_utf8(digits).ok()?;
    let (year, rest) = match (tag, text.len()) {
        (0x17, 12) => {
            let year: u32 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (0x18, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let month = MONTHS.get(rest[..2].parse::<usize>().ok()?.checked_sub(1)?)?;
    let day: u32 = rest[2..4].parse().ok()?;
    Some(format!("{month} {day:2} {}:{}:{} {year} GMT", &rest[4..6], &rest[6..8], &rest[8..10]))
}

/// For any input: parsing ends, and the result has Unit's format.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    of_pem(data);
    if let Some((since, until)) = validity(data) {
        assert!(since.ends_with(" GMT") && until.ends_with(" GMT"), "{since} {until}");
    }
    if let Some((_, contents, rest)) = element(data) {
        assert!(contents.len() + rest.len() + 2 <= data.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_written_as_openssl_does() {
        assert_eq!(time(0x17, b"180918194619Z").as_deref(), Some("Sep 18 19:46:19 2018 GMT"));
        assert_eq!(time(0x17, b"750101000000Z").as_deref(), Some("Jan  1 00:00:00 1975 GMT"));
        assert_eq!(time(0x18, b"40960101000000Z").as_deref(), Some("Jan  1 00:00:00 4096 GMT"));
        for (tag, bad) in [(0x17, "180918194619"), (0x17, "181318194619Z"), (0x18, "180918194619Z"), (4, "x")] {
            assert_eq!(time(tag, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_chain_is_told_from_its_successor() {
        let made = |year| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
            params.not_before = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let (old, new) = (made(2024), made(2025));
        let shown = of_pem(old.as_bytes()).unwrap();
        assert_eq!(shown[0].0, "Jan  1 00:00:00 2024 GMT");
        assert_ne!(of_pem(new.as_bytes()).unwrap(), shown);
        assert_eq!(of_pem((old + &new).as_bytes()).unwrap().len(), 2);
        assert_eq!(of_pem(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(of_pem(b""), None);
        let unit = json!({"key": "x", "chain": [{"validity": {"since": "a", "until": "b"}}]});
        assert_eq!(of_shown(&unit).unwrap(), [("a".to_owned(), "b".to_owned())]);
        assert_eq!(of_shown(&json!({"chain": [{}]})), None);
    }
}
