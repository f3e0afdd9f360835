//! Hostile packs and servers.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use git2::{ObjectType, Oid};

use super::trial::Trial;
use super::wire::{advertisement, answer, pack, packed, packet, serves, sideband, simple, varint};
use crate::support::git::GitServer;
use crate::support::http::Response;

#[test]
fn packs_that_are_damaged_lie_or_explode() {
    let (tip, objects) = simple();
    let good = pack(3, &objects);
    let trial = Trial::new();
    let ran = trial.init(&serves(tip, answer(&good)).url("x.git"), &["--ref", "evil"]);
    assert_eq!(ran.code, Some(0), "the good one: {}", ran.raw);
    let published = trial.published();

    let with = |count: u32, more: Vec<u8>| pack(count, &[objects.clone(), vec![more]].concat());
    let file = Oid::hash_object(ObjectType::Blob, b"hello\n").unwrap();
    // Copies the base's six bytes: a result of 16 MB would need a base of that size (gitformat-pack).
    let delta = |result: u64, ops: &[u8]| {
        let data = [&varint(6)[..], &varint(result), ops].concat();
        packed(7, data.len() as u64, Some(file), &data)
    };
    let mut flipped = good.clone();
    flipped[30] ^= 0x55;
    let mut no_trailer = good.clone();
    no_trailer.truncate(good.len() - 20);
    let wrong_trailer = [&no_trailer[..], &[0; 20]].concat();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("bad zlib", answer(&flipped)),
        ("no trailer", answer(&no_trailer)),
        ("a wrong trailer", answer(&wrong_trailer)),
        ("no pack", answer(b"evil")),
        ("nothing", packet(b"NAK\n")),
        ("an empty body", Vec::new()),
        ("a pack of another version", answer(&[&b"PACK\0\0\0\x63"[..], &good[8..]].concat())),
        ("without what was asked for", answer(&pack(1, &objects[2..]))),
        ("a commit without its tree", answer(&pack(1, &objects[..1]))),
        ("an object of type 0", answer(&with(4, packed(0, 4, None, b"evil")))),
        ("an object of type 5", answer(&with(4, packed(5, 4, None, b"evil")))),
        ("more in it than it says", answer(&with(4, packed(3, 2, None, b"evil")))),
        ("less in it than it says", answer(&with(4, packed(3, 4_000_000_000, None, b"evil")))),
        ("a size of 2^63", answer(&with(4, packed(3, 1 << 63, None, b"evil")))),
        ("4 thousand million objects", answer(&pack(u32::MAX, &objects))),
        ("16 million objects", answer(&pack(1 << 24, &objects))),
        ("fewer objects than it says", answer(&pack(4, &objects))),
        ("the same object twice", answer(&with(4, objects[2].clone()))),
        ("a thin pack", answer(&with(4, packed(7, 4, Some(Oid::from_bytes(&[3; 20]).unwrap()), b"\x06\x06\x90\x06")))),
        ("a delta to 4 GB", answer(&with(4, delta(4 << 30, &[0x90, 6])))),
        ("a delta to 2^60", answer(&with(4, delta(1 << 60, &[0x90, 6])))),
        ("a delta beyond its base", answer(&with(4, delta(600, &[0xb1, 200, 88, 2])))),
        ("a delta with a reserved operation", answer(&with(4, delta(6, &[0])))),
        ("a delta cut short", answer(&with(4, delta(6, &[0x90])))),
        ("trailing garbage", answer(&[&good[..], b"evil".repeat(100).as_slice()].concat())),
        ("packets of a bad length", [packet(b"NAK\n"), b"0003".to_vec()].concat()),
        ("packets that are too long", [packet(b"NAK\n"), b"ffff".to_vec(), vec![1; 70_000]].concat()),
        ("packets with a sign", [packet(b"NAK\n"), b"-001".to_vec()].concat()),
        ("an unknown band", [packet(b"NAK\n"), sideband(7, &good), b"0000".to_vec()].concat()),
        (
            "endless shallow lines",
            [format!("0034shallow {}", "1".repeat(40)).repeat(1_400_000).into_bytes(), answer(&good)].concat(),
        ),
        (
            "70 MB of progress",
            [packet(b"NAK\n"), sideband(2, &vec![b'\r'; 70 << 20]), sideband(1, &good), b"0000".to_vec()].concat(),
        ),
        ("an error with control characters", packet(b"ERR \x1b]0;evil\x07\nhint: evil\r\n")),
        (
            "progress with control characters",
            [packet(b"NAK\n"), sideband(2, b"\x1b[2Jevil\nhint: evil\n\xff\n"), packet(b"\x03fatal \x1b[31m")].concat(),
        ),
    ];
    let (mut refused, tried) = (0, bodies.len());
    for (name, body) in bodies {
        let trial = Trial::new();
        // podstrap retries a damaged pack; one try is enough here.
        let ran = trial.init(&serves(tip, body).url("x.git"), &["--ref", "evil", "--timeout", "1s"]);
        if ran.code == Some(0) {
            // The damage is outside the requested objects, and podstrap does not read it.
            assert_eq!(trial.published(), published, "{name}");
        } else {
            assert_eq!(ran.code, Some(3), "{name}: {}", ran.raw);
            refused += 1;
        }
    }

    // podstrap stops at the limit.
    let junk: Vec<u8> = (0..1_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let big = pack(4, &[objects.clone(), vec![packed(3, junk.len() as u64, None, &junk)]].concat());
    let trial = Trial::new();
    let server = serves(tip, answer(&big));
    trial.refused(
        &server.url("x.git"),
        &["--ref", "evil", "--size-limit", "1Mi"],
        "the pack alone takes 1.1 MB or more, and the limit is 1.1 MB",
    );
    // The first one was in version 2, which this server does not speak.
    assert_eq!(server.seen().len(), 3, "no second try");
    println!("packs: {}, of which {} refused", tried + 2, refused + 1);
    assert!(refused >= 28, "{refused}");
}

#[test]
fn a_delta_bomb_takes_no_more_memory_than_one_object_may() {
    let (tip, objects) = simple();
    // A base of 16 MB of zeros, and a delta that copies it 64 times: 1 GB from less than 200 kB.
    let base = vec![0; 0xff_ffff];
    let id = Oid::hash_object(ObjectType::Blob, &base).unwrap();
    let result = 64 * base.len() as u64;
    let data = [varint(base.len() as u64), varint(result), [0xf0, 0xff, 0xff, 0xff].repeat(64)].concat();
    let bomb = vec![packed(3, base.len() as u64, None, &base), packed(7, data.len() as u64, Some(id), &data)];
    let pack = pack(5, &[objects, bomb].concat());
    assert!(pack.len() < 200_000, "{}", pack.len());
    let trial = Trial::new();
    trial.refused(&serves(tip, answer(&pack)).url("x.git"), &["--ref", "evil"], "an object takes more than 536.9 MB");
}

#[test]
fn servers_that_mean_harm() {
    let (tip, objects) = simple();
    let good = answer(&pack(3, &objects));
    let listed =
        |body: Vec<u8>| Response::new(200, body).header("Content-Type", "application/x-git-upload-pack-advertisement");
    let long = [&b"refs/heads/"[..], &b"x".repeat(65_000)].concat();
    let many: Vec<u8> = {
        let line = packet(format!("{tip} refs/heads/{}\n", "y".repeat(200)).as_bytes());
        let start = advertisement(&[(tip, b"refs/heads/evil")]);
        [&start[..start.len() - 4], &line.repeat((70 << 20) / line.len())].concat()
    };
    let endless = many[..1 << 20].to_vec();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let location = |to: &str| Response::new(302, "").header("Location", to);
    let cases: Vec<(&str, Response, &str)> = vec![
        (
            "only names that no repository can have",
            listed(advertisement(&[
                (tip, b"refs/heads/../../x"),
                (tip, b"refs/heads/\x1b[2J"),
                (tip, b"refs/heads/a\nhint: evil"),
                (tip, &long),
            ])),
            "empty repository",
        ),
        ("a list that is too long", listed(many), "the list is longer than"),
        ("a list without an end", listed(endless), "the list of references is incomplete"),
        ("a gzip bomb", listed(gzip(&vec![0; 70 << 20])).header("Content-Encoding", "gzip"), "the list is longer than"),
        ("gzip that is none", listed(b"evil".to_vec()).header("Content-Encoding", "gzip"), "because"),
        (
            "a gzip bomb as an error",
            Response::new(403, gzip(&vec![b'x'; 70 << 20])).header("Content-Encoding", "gzip"),
            "403",
        ),
        ("a length of packets that is none", listed(b"zzzz".to_vec()), "protocol"),
        ("a redirect to a file", location("file:///etc/passwd"), "the target does not use HTTP"),
        ("a redirect to a file that looks right", location("file:///etc/info/refs"), "the target does not use HTTP"),
        (
            "a redirect to the cloud's metadata",
            location("http://169.254.169.254/latest/meta-data/iam"),
            "the target is not a Git repository",
        ),
        ("a redirect to nowhere", location("http://[evil"), "the server redirects to"),
        ("a redirect with control characters", location("http://x/\u{9b}2J"), "because"),
        ("a redirect to itself", location("info/refs"), "more than 10 redirects"),
        ("an error with control characters", Response::new(403, "\u{1b}]0;evil\u{7}\r\nhint: evil\r\n"), "403"),
        ("a status that is none", Response::new(999, "evil"), "999"),
        ("a longer body than was promised", listed(b"0000".to_vec()).header("Content-Length", "5"), "because"),
        ("a shorter one", listed(b"0000".to_vec()).header("Content-Length", "2"), "because"),
        ("a header without an end", listed(Vec::new()).header("X-Evil", "x".repeat(1 << 20)), "because"),
    ];
    let tried = cases.len();
    for (name, response, words) in cases {
        let server = GitServer::start(Path::new("/"));
        server.always(response);
        let trial = Trial::new();
        let url = server.url_as("user:s3cret", "x.git");
        let ran = trial.init(&url, &["--ref", "nothing", "--timeout", "2s"]);
        assert_eq!(ran.code, Some(3), "{name}: {}", ran.raw);
        assert!(ran.raw.contains(words), "{name}: {}", ran.raw);
        assert!(!ran.raw.contains("s3cret"), "{name}: {}", ran.raw);
    }
    // podstrap ignores a hostile name next to a good one.
    let server = serves(tip, good);
    let trial = Trial::new();
    let ran = trial.init(&server.url("x.git"), &["--ref", "evil"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    println!("servers: {}", tried + 1);
}
