//! Zips, built byte by byte.

use super::made::{Member, zip};
use super::*;

#[test]
fn zips_that_mean_harm_are_refused_by_name() {
    let dir = Dir::new("hostile-zip");
    let file = |name: &'static [u8]| Member::new(name, b"contents");
    let overlap = {
        let mut bytes = zip(&[file(b"one"), file(b"two")]);
        // The second entry's local header is the first one's.
        let at = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        bytes[at + 42..at + 46].fill(0);
        bytes
    };
    for (bytes, words) in [
        (zip(&[file(b"/etc/passwd")]), r#""/etc/passwd" has an absolute name"#),
        (zip(&[file(b"../x")]), r#""../x" has `..` in its name"#),
        (zip(&[file(b"..\\x").dos()]), r#""../x" has `..` in its name"#),
        (zip(&[file(b"\\x").dos()]), r#""/x" has an absolute name"#),
        (zip(&[file(b"")]), r#""" has an empty name"#),
        (zip(&[file(b"a\0b")]), r#""a\0b" has a NUL in its name"#),
        (zip(&[file(b"b"), file(b"a"), file(b"c"), file(b"a")]), r#""a" appears twice"#),
        (zip(&[file(b"a"), file(b"a")]), r#""a" appears twice"#),
        (zip(&[file(b"a"), file(b"./a")]), r#""./a" appears twice"#),
        (
            zip(&[file(b"a").mode(0o120_777), file(b"a/x")]),
            r#""a/x" needs the directory "a", which is a symbolic link"#,
        ),
        (zip(&[file(b"a").mode(0o010_644)]), r#""a" is not a file, directory or symbolic link (mode 10644)"#),
        (zip(&[file(b"a").mode(0o020_644)]), "is not a file, directory or symbolic link"),
        (zip(&[file(b"a/").mode(0o120_777)]), r#""a/" is a directory, and has contents"#),
        (zip(&[Member::new(b"a/", b"").mode(0o120_777)]), r#""a/" is not a file, directory or symbolic link"#),
        (zip(&[Member::new(b"a", b"").mode(0o120_777)]), r#""a" is a symbolic link to "", which is not a path"#),
        (zip(&[Member::new(b"a", &[b'x'; 5000]).mode(0o120_777)]), "which is not a path"),
        (zip(&[Member { flags: 1, ..file(b"a") }]), r#""a" is encrypted"#),
        (zip(&[Member { crc: 7, ..file(b"a") }]), "\"a\" is damaged or incomplete\n  because: Invalid checksum"),
        (zip(&[Member { size: Some(2), ..file(b"a") }]), r#""a" is damaged or incomplete"#),
        (zip(&[Member { size: Some(200), ..file(b"a") }]), "192 bytes of its contents are missing"),
        (zip(&[Member { size: Some(u32::MAX - 1), ..file(b"a") }]), "the files take 4."),
        (zip(&[Member { method: 12, ..file(b"a") }]), r#""a" is damaged or incomplete"#),
        (overlap, "the contents of two entries overlap"),
    ] {
        let text = cause(dir.unpack(&bytes, 0));
        assert!(text.contains(words), "wanted {words}, got {text}");
    }
    let whole = zip(&[file(b"a"), file(b"b")]);
    for length in 1..whole.len() {
        cause(dir.unpack(&whole[..length], 0));
    }
    let text = dir.unpack(&zip(&[file(b".podstrap/x")]), 0).unwrap_err().to_string();
    assert!(text.contains("a.tar has an entry .podstrap at its top level"), "{text}");
}

#[test]
fn names_modes_and_times_of_zip_are_read_as_they_are_meant() {
    let dir = Dir::new("zip-names");
    let bytes = zip(&[
        Member::new(b"unix-\xff", b"bytes"),
        Member::new(b"caf\x82", b"cp437").dos(),
        Member::new("na\u{ef}ve".as_bytes(), b"utf-8").dos(),
        Member::new(b"one\\two", b"unix"),
        Member::new(b"dos\\two", b"dos").dos(),
        Member::new(b"both/t\\o", b"dos").dos(),
        Member::new(b"run", b"x").mode(0o104_755),
        Member::new(b"link", b"/nowhere").mode(0o120_777),
        Member::new(b"empty/", b"").mode(0o040_700),
        Member::new(b"no-slash", b"").mode(0o040_700),
        Member { method: 0, ..Member::new(b"stored", b"as it is") },
        Member { extra: b"UT\x05\0\x01\0\0\0\x50", ..Member::new(b"extended", b"") },
        Member { extra: b"UT\x05\0\x01\0\0\0\x80", ..Member::new(b"before-1970", b"") },
    ]);
    dir.unpack(&bytes, 0).unwrap();
    let dos = 1_580_702_706;
    let newest = dos;
    assert_eq!(
        listing(&dir.path("tree")),
        [
            format!("\"\" {newest} directory"),
            "\"before-1970\" 0 false ".to_owned(),
            format!("\"both\" {newest} directory"),
            format!("\"both/t\\\\o\" {dos} false dos"),
            format!("\"caf\u{e9}\" {dos} false cp437"),
            format!("\"dos\" {newest} directory"),
            format!("\"dos/two\" {dos} false dos"),
            format!("\"empty\" {dos} directory"),
            "\"extended\" 1342177280 false ".to_owned(),
            format!("\"link\" {dos} -> \"/nowhere\""),
            format!("\"na\u{ef}ve\" {dos} false utf-8"),
            format!("\"no-slash\" {dos} directory"),
            format!("\"one\\\\two\" {dos} false unix"),
            format!("\"run\" {dos} true x"),
            format!("\"stored\" {dos} false as it is"),
            format!("\"unix-\\xFF\" {dos} false bytes"),
        ]
    );
}
