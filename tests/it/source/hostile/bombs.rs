//! Small objects that become large or take long.

use std::time::{Duration, Instant};

use git2::{ObjectType, Odb, Oid};

use super::trial::{Trial, blob, tree, tree_bytes, with_git, zlib};
use super::wire::{answer, pack, packed, serves};

#[test]
fn bombs_are_known_by_their_headers() {
    // A hundred thousand million files from eleven trees.
    let trial = Trial::new();
    let levels = |odb: &Odb<'_>, leaf: Oid, mode: &str| {
        let names: Vec<[u8; 1]> = (b'a'..=b'j').map(|name| [name]).collect();
        (0..11)
            .fold((mode.to_owned(), leaf), |(mode, oid), _| {
                let entries: Vec<_> = names.iter().map(|name| (mode.as_str(), &name[..], oid)).collect();
                ("40000".to_owned(), tree(odb, &entries))
            })
            .1
    };
    let url = trial.repository(|odb| levels(odb, blob(odb, b"boom"), "100644"));
    let started = Instant::now();
    trial.refused(&url, &["--ref", "evil"], "the files take");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let ran = trial.init(&url, &["--ref", "evil"]);
    assert!(
        ran.raw.contains("and the limit is 34.4 GB\nhint: if this size is correct, raise --size-limit"),
        "{}",
        ran.raw
    );

    // The same with links, submodules and empty directories.
    for mode in ["120000", "160000", "40000"] {
        let trial = Trial::new();
        let url = trial.repository(|odb| {
            let leaf = if mode == "40000" { tree(odb, &[]) } else { blob(odb, b"boom") };
            levels(odb, leaf, mode)
        });
        trial.refused(&url, &["--ref", "evil"], "the files take");
    }

    // One blob a thousand times, also with libgit2's writer.
    for attributes in [&b""[..], b"* -crlf"] {
        let trial = Trial::new();
        let url = trial.repository(|odb| {
            let big = blob(odb, &vec![0; 1 << 20]);
            let names: Vec<String> = (0..1000).map(|i| format!("f{i:04}")).collect();
            let attributes = blob(odb, attributes);
            let mut entries = vec![("100644", &b".gitattributes"[..], attributes)];
            entries.extend(names.iter().map(|name| ("100644", name.as_bytes(), big)));
            tree(odb, &entries)
        });
        trial.refused(&url, &["--ref", "evil", "--size-limit", "500Mi"], "and the limit is 524.3 MB");
    }

    // One object claims 3 GB, another claims less than it contains.
    for (claim, words) in [("3000000000", "podstrap holds it in memory"), ("2", "because")] {
        let trial = Trial::new();
        let fake = Oid::from_bytes(&[0xab; 20]).unwrap();
        let url = trial.repository(|odb| tree(odb, &[("100644", b"big", fake)]));
        let dir = trial.sandbox.root().join("lost+found/evil.git/objects/ab");
        std::fs::create_dir_all(&dir).unwrap();
        let object = zlib(&[format!("blob {claim}\0").as_bytes(), &[0; 100][..]].concat());
        std::fs::write(dir.join("ab".repeat(19)), object).unwrap();
        trial.refused(&url, &["--ref", "evil"], words);
    }

    // A directory that contains itself, without end.
    let trial = Trial::new();
    let fake = Oid::from_bytes(&[0xcd; 20]).unwrap();
    let url = trial.repository(|odb| tree(odb, &[("40000", b"in", fake)]));
    let dir = trial.sandbox.root().join("lost+found/evil.git/objects/cd");
    std::fs::create_dir_all(&dir).unwrap();
    let inside = tree_bytes(&[("40000", b"in", fake), ("40000", b"jn", fake)]);
    std::fs::write(dir.join("cd".repeat(19)), zlib(&[format!("tree {}\0", inside.len()).as_bytes(), &inside].concat()))
        .unwrap();
    trial.refused(&url, &["--ref", "evil"], "paths longer than");
    println!("bombs: 9");
}

/// Every directory names the next one again and again, while files are written as they arrive.
#[test]
fn a_bomb_of_directories_is_not_written_as_it_arrives() {
    let name = |kind, contents: &[u8]| Oid::hash_object(kind, contents).unwrap();
    let (repeats, large) = ("directories that repeat too often", "larger than the limit");
    for (levels, width, ended) in [(31, 2, repeats), (2, 250, repeats), (1, 6_000, large)] {
        let mut bytes = tree_bytes(&[("100644", b"f", name(ObjectType::Blob, b"boom"))]);
        let mut objects = vec![packed(3, 4, None, b"boom"), packed(2, bytes.len() as u64, None, &bytes)];
        let names: Vec<String> = (0..width).map(|number| format!("d{number:05}")).collect();
        for _ in 0..levels {
            let at = name(ObjectType::Tree, &bytes);
            let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_bytes(), at)).collect();
            bytes = tree_bytes(&entries);
            objects.push(packed(2, bytes.len() as u64, None, &bytes));
        }
        let root = name(ObjectType::Tree, &bytes);
        let text = format!("tree {root}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nevil\n");
        objects.push(packed(1, text.len() as u64, None, text.as_bytes()));
        objects.reverse();
        let pack = pack(u32::try_from(objects.len()).unwrap(), &objects);
        let server = serves(name(ObjectType::Commit, text.as_bytes()), answer(&pack));
        let trial = Trial::new();
        let started = Instant::now();
        let ran = trial.init(&server.url("evil.git"), &["--ref", "evil", "--size-limit", "10Mi"]);
        // Generous: a busy machine makes and deletes thousands of directories in seconds.
        assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
        assert_eq!(ran.code, Some(3), "{}", ran.raw);
        for words in [&format!("no file is written before the whole commit is here: {ended}"), "the files take"] {
            assert!(ran.raw.contains(words), "{words:?} is not in {}", ran.raw);
        }
        let staging = std::fs::read_dir(trial.sandbox.root().join(".podstrap/staging")).unwrap();
        assert_eq!(staging.count(), 0, "{levels} levels");
    }
}

#[test]
fn the_limit_is_for_what_the_files_occupy() {
    let trial = Trial::new();
    // 2 small files, 1 link, 2 directories, and a file of 1221 blocks; the scratch space needs much more.
    let url = trial.repository(|odb| {
        let inner =
            tree(odb, &[("100644", b"empty", blob(odb, b"")), ("100644", b"two", blob(odb, &vec![1; 5_000_000]))]);
        tree(
            odb,
            &[("40000", b"dir", inner), ("100644", b"file", blob(odb, b"1")), ("120000", b"link", blob(odb, b"x"))],
        )
    });
    let blocks = 5 + 1221;
    let enough = (blocks * 4096).to_string();
    trial.refused(
        &url,
        &["--ref", "evil", "--size-limit", &(blocks * 4096 - 1).to_string()],
        "the files take 5.1 MB or more",
    );
    let ran = trial.init(&url, &["--ref", "evil", "--size-limit", &enough]);
    assert!(!ran.raw.contains("the files take"), "{}", ran.raw);
}

#[test]
fn a_pattern_of_attributes_cannot_hold_up_a_clone() {
    let trial = Trial::new();
    // A pattern that takes a naive matcher exponential time, for libgit2's writer.
    let url = trial.repository(|odb| {
        let pattern = format!("{}b -crlf\n", "*a".repeat(60));
        let name = vec![b'a'; 200];
        tree(
            odb,
            &[("100644", b".gitattributes", blob(odb, pattern.as_bytes())), ("100644", &name, blob(odb, b"text"))],
        )
    });
    let ran = trial.init(&url, &["--ref", "evil", "--timeout", "10s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.raw);
    assert_eq!(trial.published(), with_git(&url).unwrap());
}
