//! Tars, built byte by byte, and the rules that all formats share.

use super::made::{COMPRESSIONS, Compression, Member, Tar, bzip2, gzip, xz, zip, zstd};
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
        let packed = COMPRESSIONS.map(|compression| (compression.pack)(&bytes));
        for packed in packed.into_iter().chain([bytes]) {
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
    let mut changed = whole.clone();
    changed[512 * 7] ^= 1;
    assert_eq!(
        cause(dir.unpack(&changed, 0)),
        "\"a\" is damaged or incomplete\n  because: in this entry or after it: invalid header at byte 3584: \
         wrong checksum"
    );
}

#[test]
fn compressed_tars_are_as_tar_reads_them() {
    let dir = Dir::new("compressed");
    let whole = Tar::default().file("a", &"x".repeat(3000)).file("b", "y").done();
    let done = Written { files: 2, bytes: 3001 };
    for Compression { shown, pack, garbage, zeros } in COMPRESSIONS {
        let packed = pack(&whole);
        assert_eq!(dir.unpack(&packed, 0).unwrap(), done, "{shown}");
        for length in 0..packed.len() {
            let text = cause(dir.unpack(&packed[..length], 0));
            assert!(length < 10 || text.contains("unexpected end of the compressed data"), "{shown} {length}: {text}");
        }
        // gzip has no checksum of its first bytes.
        for at in if shown.starts_with("gzip") { 10 } else { 0 }..packed.len() {
            let mut changed = packed.clone();
            changed[at] ^= 1;
            // A change may lead to the same contents, which nothing can detect.
            if !dir.unpack(&changed, 0).is_ok_and(|read| read == done) {
                cause(dir.unpack(&changed, 0));
            }
        }
        // Consecutive members are one stream, also if the second one is not needed.
        let (one, other) = whole.split_at(700);
        assert_eq!(dir.unpack(&[pack(one), pack(other)].concat(), 0).unwrap(), done, "{shown}");
        assert_eq!(
            dir.unpack(&[pack(one), pack(b""), pack(other), pack(&whole)].concat(), 0).unwrap(),
            done,
            "{shown}"
        );
        let cut = packed.len() - 1;
        cause(dir.unpack(&[&packed[..], &packed[..cut]].concat(), 0));
        for (rest, error) in [(&[0; 4000][..], zeros), (b"garbage", garbage), (&packed[1..], garbage)] {
            let read = dir.unpack(&[&packed, rest].concat(), 0);
            match error {
                None => assert_eq!(read.unwrap(), done, "{shown}"),
                Some(error) => {
                    let text = cause(read);
                    assert!(text.contains("is damaged or incomplete") && text.contains(error), "{shown}: {text}");
                }
            }
        }
    }
    // The padding of xz has a multiple of four bytes. A member of gzip may be cut off after its first byte.
    let packed = xz(&whole);
    let text = cause(dir.unpack(&[&packed, &[0; 3][..]].concat(), 0));
    assert!(text.contains("stream padding size not multiple of 4"), "{text}");
    dir.unpack(&[&gzip(&whole), &b"\x1fgarbage"[..]].concat(), 0).unwrap();
    // pzstd starts with a skippable frame.
    let skipped = [b"\x50\x2a\x4d\x18\x04\0\0\0size", &zstd(&whole)[..]].concat();
    assert_eq!(dir.unpack(&skipped, 0).unwrap(), done);
}

#[test]
fn an_archive_that_needs_too_much_memory_is_refused() {
    let dir = Dir::new("memory");
    let whole = Tar::default().file("a", "x").done();
    let xz = |exponent: u8| {
        let mut bytes = xz(&whole);
        // The header of the first block: its length, its flags, LZMA2, the length of the properties, the dictionary.
        let end = 12 + usize::from(bytes[12] + 1) * 4 - 4;
        assert_eq!(bytes[14..16], [0x21, 1]);
        bytes[16] = exponent;
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_le_bytes());
        bytes
    };
    let zstd = |exponent: u8| {
        let mut bytes = zstd(&whole);
        assert_eq!(bytes[4] & 0b0010_0000, 0, "it has a window");
        bytes[5] = (exponent - 10) << 3;
        bytes
    };
    // 128 MiB.
    for bytes in [xz(30), zstd(27)] {
        assert_eq!(dir.unpack(&bytes, 0).unwrap(), Written { files: 1, bytes: 1 });
    }
    // 192 MiB, 4 GiB, 256 MiB, and zstd's maximum.
    for (bytes, words) in [
        (xz(31), "it needs a dictionary of more than 128 MiB of memory\nhint: compress it with xz -9"),
        (xz(40), "it needs a dictionary of more than 128 MiB of memory\nhint: compress it with xz -9"),
        (zstd(28), "it needs a window of more than 128 MiB of memory\nhint: compress it without --long"),
        (zstd(41), "it needs a window of more than 128 MiB of memory\nhint: compress it without --long"),
        // Not only at the start.
        ([xz(20), xz(40)].concat(), "a dictionary of more than 128 MiB"),
        ([zstd(20), zstd(28)].concat(), "a window of more than 128 MiB"),
    ] {
        let text = dir.unpack(&bytes, 0).unwrap_err().to_string();
        assert!(text.contains(words), "wanted {words}, got {text}");
    }
}

#[test]
fn what_is_no_archive_says_what_it_is() {
    let dir = Dir::new("unknown");
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"hello", "it does not start like a tar, a tar compressed with gzip, bzip2, xz or zstd, or a zip"),
        (&[0; 10240], "it does not start like a tar"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "it is a 7z archive, which podstrap does not unpack"),
        (b"\x04\x22\x4d\x18", "it is compressed with lz4, which podstrap does not unpack"),
        (b"\n <!DOCTYPE html>", "it is a page of HTML or XML"),
        (b"\xfd7zXZ\0\0\x04", "it is damaged or incomplete"),
        (b"BZh91AY", "it is damaged or incomplete"),
        (b"PK\x03\x04 and no more", "it is damaged or incomplete"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "it has no entries"),
    ] {
        let text = cause(dir.unpack(bytes, 0));
        assert!(text.contains(words), "wanted {words}, got {text}");
    }
    for Compression { shown, pack, .. } in COMPRESSIONS {
        for bytes in [&b""[..], b"hello", &[b'x'; 2000], &zip(&[Member::new(b"a", b"x")])] {
            let text = dir.unpack(&pack(bytes), 0).unwrap_err().to_string();
            let words = format!("because: it is {shown}, but does not contain a tar\nhint: give a .tar.gz, .tar.bz2");
            assert!(text.contains(&words), "{text}");
        }
        assert!(cause(dir.unpack(&pack(&[0; 1024]), 0)).contains("it has no entries"), "{shown}");
        // A wrong byte, wherever it is, is no reason to say that there is no tar.
        let good = pack(
            &Tar::default().entry(b'0', b"a", b"", &fastrand::Rng::with_seed(7).choose_multiple(0..=255u8, 256)).done(),
        );
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let Err(error) = dir.unpack(&bad, 0) else { continue };
            assert!(!error.to_string().contains("does not contain a tar"), "{shown} at {at}: {error}");
        }
    }
}

#[test]
fn a_bomb_is_stopped_before_it_is_written() {
    let dir = Dir::new("bomb");
    let zeros = vec![0; 8 << 20];
    let limit = Size(1 << 20);
    for bytes in [
        gzip(&Tar::default().entry(b'0', b"zeros", b"", &zeros).done()),
        bzip2(&Tar::default().entry(b'0', b"zeros", b"", &zeros).done()),
        xz(&Tar::default().entry(b'0', b"zeros", b"", &zeros).done()),
        zstd(&Tar::default().entry(b'0', b"zeros", b"", &zeros).done()),
        gzip(&(0..4000).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), "")).done()),
        xz(&(0..4000).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), "")).done()),
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
        crate::archive::tar::unpack(&archive.done()[..], "a tar", &mut unpacker).unwrap();
        let top = unpacker.only_directory().map(|(name, at)| (std::str::from_utf8(name).unwrap(), at));
        assert_eq!(top, wanted, "{number}");
    }
}
