//! Packs and answers of a Git server, byte by byte.

use std::path::Path;

use git2::{ObjectType, Oid};
use sha1::{Digest, Sha1};

use super::trial::{tree_bytes, zlib};
use crate::support::git::GitServer;
use crate::support::http::Response;

/// A pack that claims `count` objects, followed by these bytes.
pub(super) fn pack(count: u32, objects: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
    pack.extend(objects.concat());
    let hash = Sha1::digest(&pack);
    pack.extend(hash);
    pack
}

/// An object in a pack: its type (gitformat-pack: 1 commit, 2 tree, 3 blob, 7 delta against `base`), its claimed
/// size, and its data.
pub(super) fn packed(kind: u8, size: u64, base: Option<Oid>, data: &[u8]) -> Vec<u8> {
    let (mut rest, mut byte) = (size >> 4, kind << 4 | low(size, 15));
    let mut out = Vec::new();
    while rest > 0 {
        out.push(byte | 0x80);
        (byte, rest) = (low(rest, 0x7f), rest >> 7);
    }
    out.push(byte);
    out.extend(base.iter().flat_map(|oid| oid.as_bytes().to_vec()));
    out.extend(zlib(data));
    out
}

/// The lowest bits of a number.
pub(super) fn low(number: u64, mask: u8) -> u8 {
    number.to_le_bytes()[0] & mask
}

pub(super) fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push(low(number, 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(low(number, 0x7f));
    out
}

pub(super) fn packet(payload: &[u8]) -> Vec<u8> {
    [format!("{:04x}", payload.len() + 4).as_bytes(), payload].concat()
}

pub(super) fn sideband(band: u8, bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(65_000).flat_map(|chunk| packet(&[&[band], chunk].concat())).collect()
}

pub(super) fn advertisement(refs: &[(Oid, &[u8])]) -> Vec<u8> {
    let mut body = [packet(b"# service=git-upload-pack\n"), b"0000".to_vec()].concat();
    for (i, (oid, name)) in refs.iter().enumerate() {
        let capabilities = if i == 0 { "\0side-band-64k ofs-delta" } else { "" };
        body.extend(packet(&[oid.to_string().as_bytes(), b" ", name, capabilities.as_bytes(), b"\n"].concat()));
    }
    body.extend(b"0000");
    body
}

/// A server that advertises `evil` and answers every request for a pack with this body.
pub(super) fn serves(tip: Oid, answer: Vec<u8>) -> GitServer {
    let server = GitServer::start(Path::new("/"));
    server.instead(move |request| {
        Some(if request.method == "GET" {
            Response::new(200, advertisement(&[(tip, b"refs/heads/evil")]))
                .header("Content-Type", "application/x-git-upload-pack-advertisement")
        } else {
            Response::new(200, answer.clone()).header("Content-Type", "application/x-git-upload-pack-result")
        })
    });
    server
}

pub(super) fn answer(pack: &[u8]) -> Vec<u8> {
    [packet(b"NAK\n"), sideband(1, pack), b"0000".to_vec()].concat()
}

/// A commit with a tree of one file, as packed objects.
pub(super) fn simple() -> (Oid, Vec<Vec<u8>>) {
    let file = b"hello\n";
    let entries = tree_bytes(&[("100644", b"file", Oid::hash_object(ObjectType::Blob, file).unwrap())]);
    let tree = Oid::hash_object(ObjectType::Tree, &entries).unwrap();
    let text = format!("tree {tree}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nevil\n");
    let commit = Oid::hash_object(ObjectType::Commit, text.as_bytes()).unwrap();
    let objects = vec![
        packed(1, text.len() as u64, None, text.as_bytes()),
        packed(2, entries.len() as u64, None, &entries),
        packed(3, file.len() as u64, None, file),
    ];
    (commit, objects)
}
