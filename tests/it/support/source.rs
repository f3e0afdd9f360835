//! Resolves and checks out a source with the library, and checks it out with git for comparison.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use podstrap::error::{Error, Kind};
use podstrap::plan::{GitSource, Origin, Source, Submodules};
use podstrap::retry::Deadline;
use podstrap::size::Size;
use podstrap::source::{self, Contents, Resolved, Revision};
use podstrap::tree::Written;
use tempfile::TempDir;

use super::git::{Repo, git, listing};

pub(crate) const LIMIT: Size = Size(1 << 30);

/// The result of a source.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) dir: TempDir,
    pub(crate) revision: Revision,
    pub(crate) checkout: Written,
}

impl Got {
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }
    pub(crate) fn files(&self) -> String {
        listing(&self.tree())
    }
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn get_within(source: &Source, limit: Duration) -> Result<Got, Error> {
    let dir = tempfile::tempdir().unwrap();
    let (tree, scratch) = (dir.path().join("tree"), dir.path().join("scratch"));
    std::fs::create_dir(&scratch).unwrap();
    let deadline = Deadline::after(limit);
    run(async {
        let mut resolved = resolve(source, LIMIT, deadline).await?;
        let checkout = resolved.checkout(&tree, &scratch, Contents::Fetch(None), LIMIT, deadline).await?;
        Ok(Got { dir, revision: resolved.revision, checkout })
    })
}

pub(crate) async fn resolve(source: &Source, limit: Size, deadline: Deadline) -> Result<Resolved, Error> {
    source::resolve(source, None, &|| panic!("nothing is to be stored yet"), limit, deadline).await
}

pub(crate) fn git_source(url: &str, reference: Option<&str>, depth: u32) -> Source {
    let git = GitSource {
        url: url.parse().unwrap(),
        reference: reference.map(str::to_owned),
        depth,
        submodules: Submodules::Off,
        keep_git: false,
        verify: None,
    };
    Source { origin: Origin::Git(git), lfs_pointers: true, ..Source::directory(PathBuf::new()) }
}

pub(crate) fn clone(url: &str, reference: Option<&str>) -> Result<Got, Error> {
    get_within(&git_source(url, reference, 1), Duration::from_mins(1))
}

/// The message of a failure with exit code 3, with variable parts replaced.
pub(crate) fn fails(url: &str, reference: Option<&str>) -> String {
    fails_within(url, reference, Duration::from_secs(20))
}

pub(crate) fn fails_within(url: &str, reference: Option<&str>, limit: Duration) -> String {
    let error = get_within(&git_source(url, reference, 1), limit).unwrap_err();
    assert_eq!(error.kind(), Kind::Source);
    words(&error)
}

pub(crate) fn words(error: &Error) -> String {
    let rules = [
        (r"127\.0\.0\.1:\d+|localhost:\d+", "[HOST]"),
        (r" \d+\.\d s\b", " [TIME]"),
        (r"\b[0-9a-f]{40}\b", "[COMMIT]"),
    ];
    rules.iter().fold(error.to_string(), |text, (pattern, to)| {
        regex::Regex::new(pattern).unwrap().replace_all(&text, *to).into_owned()
    })
}

/// The git CLI's checkout of a repository.
pub(crate) fn cli(url: &str, reference: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    // git's own modes, whatever the umask of the test.
    let script = "umask 022; git clone --quiet -- \"$0\" tree && cd tree && git checkout --quiet \"$1\"";
    let mut shell = Command::new("sh");
    shell.envs(git(dir.path()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(shell.args(["-c", script, url, reference]).current_dir(dir.path()).status().unwrap().success());
    listing(&dir.path().join("tree"))
}

/// A repository with every kind of entry that Git can store.
pub(crate) fn varied(dir: &Path) -> Repo {
    let repo = Repo::new(dir);
    repo.file("index.py", "application = 1\n")
        .file("empty", "")
        .file("sub/deep/er/file", "deep\n")
        .executable("run.sh", "#!/bin/sh\n")
        .link("relative", "sub/deep")
        .link("absolute", "/etc/passwd")
        .link("dangling", "no/such/file")
        .file(OsStr::from_bytes(b"na\xefve"), "latin-1\n")
        .file(OsStr::from_bytes(b"d\xff/\xfe"), [0_u8, 159, 146, 150])
        .file("with space\nand newline", "x")
        .file(
            "big.bin",
            (0..60_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()).collect::<Vec<_>>(),
        );
    repo
}
