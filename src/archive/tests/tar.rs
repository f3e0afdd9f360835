//! Tars, built byte by byte, and the rules that all formats share.

use super::made::{Member, Tar, gzip, zip};
use super::*;

#[test]
fn tars_that_mean_harm_are_refused_by_name_and_write_nothing_elsewhere() {
    let dir = Dir::new("hostile-tar");
    let outside = dir.path("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let tar = Tar::default;
    let file = |name: &str| tar().file(name, "x");
    for (archive, words) in [
        (file("/etc/passwd"), r#""/etc/passwd" has an absolute name"#),
        (file("../outside/x"), r#""../outside/x" has `..` in its name"#),
        (file("a/../../outside/x"), "has `..` in its name"),
        (file("a/.."), "has `..` in its name"),
        (tar().directory(".."), "has `..` in its name"),
        (file(""), r#""" has an empty name"#),
        (file("."), r#""." is the name of the archive's top"#),
        (tar().link("./", "x"), "is the name of the archive's top"),
        (tar().pax(&[("path", b"a\0b")]).file("x", ""), r#""a\0b" has a NUL in its name"#),
        (tar().entry(b'L', b"", b"", b"a\0b\0").file("x", ""), r#""a\0b" has a NUL in its name"#),
        (tar().pax(&[("path", b"/abs")]).file("x", ""), r#""/abs" has an absolute name"#),
        (tar().pax(&[("path", &[b'a'; 5000])]).file("x", ""), "has a name that is too long"),
        (tar().pax(&[("path", &[b'a'; 300])]).file("x", ""), "cannot be created: File name too long"),
        (tar().link("a", out).file("a/x", "x"), r#""a/x" needs the directory "a", which is a symbolic link"#),
        (tar().link("a", out).directory("a/b"), r#"needs the directory "a", which is a symbolic link"#),
        (tar().link("a", out).directory("a"), r#""a" needs the directory "a", which is a symbolic link"#),
        (tar().link("a", out).file("./a//x", "x"), r#"needs the directory "a""#),
        (tar().link("a", out).link("a/b", "c"), r#""a/b" needs the directory "a""#),
        (tar().link("a", out).hard("b", "a/x"), r#""b" is a hard link to "a/x", which is not an earlier file"#),
        (tar().link("a", out).file("a", "x"), r#""a" appears twice"#),
        (file("a").link("a", out), r#""a" appears twice"#),
        (tar().directory("a").link("a", out), r#""a" appears twice"#),
        (file("a/x").link("a", out), r#""a" appears twice"#),
        (file("a").file("a", "y"), r#""a" appears twice"#),
        (file("a").file("./a", "y"), r#""./a" appears twice"#),
        (tar().directory("a").file("a", ""), r#""a" appears twice"#),
        (file("a").directory("a"), r#""a" needs the directory "a", which is a file"#),
        (file("a").file("a/b", ""), r#""a/b" needs the directory "a", which is a file"#),
        (tar().hard("a", "/etc/passwd"), r#""a" has an absolute name"#),
        (tar().hard("a", "../outside"), r#""a" has `..` in its name"#),
        (tar().hard("a", "b").file("b", ""), r#""a" is a hard link to "b", which is not an earlier file"#),
        (tar().directory("b").hard("a", "b"), r#"is a hard link to "b", which is not an earlier file"#),
        (tar().link("b", "/etc/passwd").hard("a", "b"), r#"is a hard link to "b", which is not an earlier file"#),
        (tar().hard("a", "."), r#"is a hard link to ".", which is not an earlier file"#),
        (file("a").hard("a", "a"), r#""a" appears twice"#),
        (tar().link("a", ""), r#""a" is a symbolic link to "", which is not a path"#),
        (tar().pax(&[("linkpath", &[b'l'; 4096])]).link("a", "b"), "which is not a path"),
        (tar().entry(b'3', b"dev", b"", b""), r#""dev" is a device"#),
        (tar().entry(b'4', b"dev", b"", b""), r#""dev" is a device"#),
        (tar().entry(b'6', b"pipe", b"", b""), r#""pipe" is a named pipe"#),
        (tar().entry(b'V', b"label", b"", b""), r#""label" has a type that podstrap does not support ('V')"#),
        (tar().entry(b'S', b"holes", b"", b""), r#""holes" is a sparse file"#),
        (tar().pax(&[("GNU.sparse.major", b"1")]).file("holes", "x"), r#""holes" is a sparse file"#),
        (tar().entry(b'5', b"d", b"", b"x"), r#""d" is a directory or a link, and has contents"#),
        (tar().entry(b'2', b"l", b"t", b"x"), r#""l" is a directory or a link, and has contents"#),
        (tar().entry(b'0', b"d/", b"", b"x"), r#""d/" is a directory or a link, and has contents"#),
        (tar().pax(&[("size", b"x")]).file("a", ""), "invalid pax records"),
        (tar().entry(b'x', b"", b"", b"7 a=b").file("a", ""), "invalid pax records"),
        (tar().entry(b'x', b"", b"", b"99 a=b\n").file("a", ""), "invalid pax records"),
        (tar().pax(&[("path", b"a")]), "the entry for the last header is missing"),
        (tar().pax(&[("size", b"1000000")]).file("a", "x"), r#""a" is damaged or incomplete"#),
        (tar().pax(&[("size", b"18446744073709551615")]).file("a", "x"), "the files take"),
    ] {
        let bytes = archive.done();
        for packed in [gzip(&bytes), bytes] {
            let text = cause(dir.unpack(&packed, 0));
            assert!(text.contains(words), "wanted {words}, got {text}");
            assert!(fs::read_dir(&outside).unwrap().next().is_none(), "{words}");
        }
    }
    let text = dir.unpack(&file(".podstrap/x").done(), 0).unwrap_err().to_string();
    assert!(text.contains("a.tar has an entry .podstrap at its top level"), "{text}");
    dir.unpack(&file("a/.podstrap").done(), 0).unwrap();
    let text = dir.unpack(&file("a/.podstrap").done(), 1).unwrap_err().to_string();
    assert!(text.contains("a.tar has an entry .podstrap"), "{text}");
}

#[test]
fn what_is_cut_off_or_changed_is_no_archive() {
    let dir = Dir::new("damaged");
    let whole = Tar::default().file("a", &"x".repeat(3000)).file("b", "y").done();
    // Without both of its blocks of zeros: podstrap does not require the second one.
    for length in 1..whole.len() - 1023 {
        if length % 97 == 0 || length % 512 == 0 {
            cause(dir.unpack(&whole[..length], 0));
        }
    }
    let packed = gzip(&whole);
    for length in 0..packed.len() {
        cause(dir.unpack(&packed[..length], 0));
    }
    for at in 10..packed.len() {
        let mut changed = packed.clone();
        changed[at] ^= 1;
        // A change may lead to the same contents, which nothing can detect.
        if !dir.unpack(&changed, 0).is_ok_and(|done| done == Written { files: 2, bytes: 3001 }) {
            cause(dir.unpack(&changed, 0));
        }
    }
    let mut changed = whole.clone();
    changed[512 * 7] ^= 1;
    assert_eq!(
        cause(dir.unpack(&changed, 0)),
        "\"a\" is damaged or incomplete\n  because: in this entry or after it: invalid header at byte 3584: \
         wrong checksum"
    );
    for rest in [&[0; 4000][..], b"garbage", b"\x1fgarbage", &packed] {
        let mut longer = packed.clone();
        longer.extend(rest);
        assert_eq!(dir.unpack(&longer, 0).unwrap(), Written { files: 2, bytes: 3001 });
    }
    // Two members are one stream.
    let (one, other) = whole.split_at(700);
    dir.unpack(&[gzip(one), gzip(other)].concat(), 0).unwrap();
}

#[test]
fn what_is_no_archive_says_what_it_is() {
    let dir = Dir::new("unknown");
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"hello", "it does not start like a gzip-compressed tar, a tar or a zip"),
        (&[0; 10240], "it does not start like a gzip-compressed tar, a tar or a zip"),
        (b"\xfd7zXZ\0\0\x04", "it is xz-compressed"),
        (b"BZh91AY", "it is bzip2-compressed"),
        (b"\n <!DOCTYPE html>", "it is a page of HTML or XML"),
        (&gzip(b"hello"), "it is compressed, but does not contain a tar"),
        (&gzip(&[b'x'; 2000]), "it is compressed, but does not contain a tar"),
        (&gzip(&[0; 1024]), "it has no entries"),
        (b"PK\x03\x04 and no more", "it is damaged or incomplete"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "it has no entries"),
    ] {
        let text = cause(dir.unpack(bytes, 0));
        assert!(text.contains(words), "wanted {words}, got {text}");
        assert_eq!(is_archive(bytes), bytes.starts_with(b"PK") || bytes.starts_with(b"\x1f"), "{words}");
    }
    assert!(is_archive(&Tar::default().file("a", "x").done()[..FIRST]));
}

#[test]
fn a_bomb_is_stopped_before_it_is_written() {
    let dir = Dir::new("bomb");
    let zeros = vec![0; 8 << 20];
    let limit = Size(1 << 20);
    for bytes in [
        gzip(&Tar::default().entry(b'0', b"zeros", b"", &zeros).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), "")).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.directory(&format!("d{number}"))).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.link(&format!("l{number}"), "x")).done()),
        gzip(
            &(0..9)
                .fold(Tar::default().file("f", &"x".repeat(200_000)), |tar, n| tar.hard(&format!("h{n}"), "f"))
                .done(),
        ),
        gzip(&Tar::default().pax(&[("path", "d/".repeat(1500).as_bytes())]).directory("x").done()),
        zip(&[Member::new(b"zeros", &zeros)]),
    ] {
        let text = cause(dir.unpack_within(&bytes, 0, limit));
        assert!(text.contains("the files take") && text.contains("the limit is 1.1 MB"), "{text}");
        let size = dir.run("du", &["-s", "--apparent-size", "--block-size=1", "tree"]);
        let size: u64 = String::from_utf8(size).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(size <= limit.0 * 2, "{size}");
    }
    // Records that podstrap would have to hold in memory.
    let text = cause(dir.unpack(&gzip(&Tar::default().entry(b'L', b"", b"", &zeros).done()), 0));
    assert!(text.contains("8388608 bytes of records for one entry"), "{text}");
    let late = unpack(&dir.path("archive"), &dir.path("late"), "it", rules(Duration::ZERO));
    assert!(late.unwrap_err().to_string().contains("not done after"));
}

#[test]
fn names_and_times_of_tar_are_read_as_they_are_meant() {
    let dir = Dir::new("names");
    let bytes = Tar::default()
        .records(b'g', &[("comment", b"0123456789")])
        .pax(&[("path", b"new\nline/\xff"), ("mtime", b"1500000000.75"), ("SCHILY.xattr.x", b"\n\0 7 a=b\n")])
        .file("wrong", "pax")
        .entry(b'L', b"././@LongLink", b"", &[&[b'n'; 150][..], b"\0"].concat())
        .entry(b'K', b"././@LongLink", b"", &[&[b't'; 150][..], b"\0"].concat())
        .link("wrong", "wrong")
        .pax(&[("mtime", b"-5")])
        .directory("old/")
        .entry(b'\0', b"v7/", b"", b"")
        .pax(&[("mtime", b"99999999999999")])
        .file("//late"[2..].as_ref(), "")
        .entry(b'7', b"a//./b", b"", b"contiguous")
        .done();
    dir.unpack(&bytes, 0).unwrap();
    let (n, t) = ("n".repeat(150), "t".repeat(150));
    assert_eq!(
        listing(&dir.path("tree")),
        [
            "\"\" 2147483647 directory".to_owned(),
            "\"a\" 2147483647 directory".to_owned(),
            "\"a/b\" 1600000000 false contiguous".to_owned(),
            "\"late\" 2147483647 false ".to_owned(),
            "\"new\\nline\" 2147483647 directory".to_owned(),
            "\"new\\nline/\\xFF\" 1500000000 false pax".to_owned(),
            format!("\"{n}\" 1600000000 -> \"{t}\""),
            "\"old\" 0 directory".to_owned(),
            "\"v7\" 1600000000 directory".to_owned(),
        ]
    );
    // A size in a record, for files larger than a header can declare.
    let mut bytes = Tar::default().pax(&[("size", b"3")]).0;
    bytes.extend(Tar::default().file("f", "").0);
    bytes.extend(b"abc");
    bytes.resize(bytes.len() + 509 + 1024, 0);
    assert_eq!(dir.unpack(&bytes, 0).unwrap(), Written { files: 1, bytes: 3 });
}

#[test]
fn stripping_all_of_it_is_an_error() {
    let dir = Dir::new("strip");
    let bytes =
        Tar::default().directory("app").file("app/a", "x").file("app/b/c", "y").hard("app/b/d", "app/b/c").done();
    assert_eq!(dir.unpack(&bytes, 0).unwrap().files, 3);
    assert_eq!(dir.unpack(&bytes, 1).unwrap().files, 3);
    assert_eq!(dir.unpack(&bytes, 2).unwrap().files, 2);
    let error = dir.unpack(&bytes, 3).unwrap_err().to_string();
    assert_eq!(
        error,
        "error: cannot unpack a.tar\n  because: --strip-components 3 removes all of it\nhint: give a smaller \
         number: its names have fewer parts"
    );
}

#[test]
fn one_directory_around_everything_is_noticed() {
    let dir = Dir::new("top");
    let tar = Tar::default;
    for (number, (archive, wanted)) in [
        (tar().directory("app").file("app/a", "").link("app/b", "a"), Some(("app", 0))),
        (tar().directory("./").file("./app/a", ""), Some(("app", 1))),
        (tar().directory("app"), Some(("app", 0))),
        (tar().file("app/a", "").file("b", ""), None),
        (tar().file("b", "").file("app/a", ""), None),
        (tar().file("app", ""), None),
        (tar().file("app/a", "").file("./app/b", ""), None),
    ]
    .into_iter()
    .enumerate()
    {
        let tree = dir.path(&number.to_string());
        let mut unpacker = Unpacker::new("it", &tree, rules(Duration::from_mins(1)));
        unpacker.begin().unwrap();
        crate::archive::tar::unpack(&archive.done()[..], &mut unpacker).unwrap();
        let top = unpacker.only_directory().map(|(name, at)| (std::str::from_utf8(name).unwrap(), at));
        assert_eq!(top, wanted, "{number}");
    }
}
