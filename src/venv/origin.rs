//! The origin of each distribution, as the engines report it: pip with `--report`, uv with a lock file
//! (PEP 751) that it writes from its cache, both with `direct_url.json` (PEP 610).

use std::collections::BTreeSet;

use serde_json::Value;

use super::installed::Installed;
use super::pyproject::normal;
use super::record::DistributionOrigin;

/// An archive in an index or a wheelhouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// Normalized.
    pub(super) name: String,
    pub(super) version: String,
    pub(super) url: String,
    hash: Option<String>,
    /// In bytes, if the index says it.
    pub(super) size: Option<u64>,
    /// The engine installed or built this archive. Otherwise it is a candidate, selected by its tags.
    certain: bool,
}

/// Removes the query and the fragment, which may contain a signature or a token.
pub(super) fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// The origin in a `direct_url.json`.
pub(super) fn direct(text: &str) -> Option<DistributionOrigin> {
    let json: Value = serde_json::from_str(text).ok()?;
    // Requirements have the host for pip (`Requirement::common`). uv removes it.
    let url = without_query(json.get("url")?.as_str()?).replacen("file://localhost/", "file:///", 1);
    let commit = json.pointer("/vcs_info/commit_id").and_then(Value::as_str).map(str::to_owned);
    let editable = json.pointer("/dir_info/editable").and_then(Value::as_bool).unwrap_or_default();
    Some(DistributionOrigin { url, hash: hash(json.get("archive_info")), commit, editable })
}

/// The SHA-256 in `archive_info`, from `hashes` or the older `hash`.
fn hash(info: Option<&Value>) -> Option<String> {
    let info = info?;
    let sha256 = info.pointer("/hashes/sha256").and_then(Value::as_str);
    let old = || info.get("hash")?.as_str()?.strip_prefix("sha256=");
    Some(format!("sha256:{}", sha256.or_else(old)?))
}

/// The archives in pip's installation report (version 1).
pub(super) fn pip_report(text: &[u8]) -> Vec<Archive> {
    let Ok(json) = serde_json::from_slice::<Value>(text) else { return Vec::new() };
    let items = json.get("install").and_then(Value::as_array).cloned().unwrap_or_default();
    let archive = |item: &Value| {
        let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str);
        Some(Archive {
            name: normal(text("/metadata/name")?),
            version: text("/metadata/version")?.to_owned(),
            url: text("/download_info/url")?.to_owned(),
            hash: hash(item.pointer("/download_info/archive_info")),
            size: None,
            certain: true,
        })
    };
    items.iter().filter_map(archive).collect()
}

/// The archives in a `pylock.toml` or a `uv.lock`: the source archive and the wheels of each package.
pub(super) fn lock(text: &str) -> Vec<Archive> {
    let Ok(lock) = text.parse::<toml::Table>() else { return Vec::new() };
    let mut archives = Vec::new();
    for package in lock.get("packages").or(lock.get("package")).and_then(toml::Value::as_array).into_iter().flatten() {
        let said = |name: &str| package.get(name).and_then(toml::Value::as_str);
        let (Some(name), Some(version)) = (said("name"), said("version")) else { continue };
        let wheels = package.get("wheels").and_then(toml::Value::as_array).into_iter().flatten();
        for file in wheels.chain(package.get("sdist")) {
            let said = |name: &str| file.get(name).and_then(toml::Value::as_str);
            let Some(url) = said("url").or_else(|| said("path")) else { continue };
            let sha256 = file.get("hashes").and_then(|hashes| hashes.get("sha256")).and_then(toml::Value::as_str);
            let sha256 = sha256.or_else(|| said("hash")?.strip_prefix("sha256:"));
            archives.push(Archive {
                name: normal(name),
                version: version.to_owned(),
                url: url.to_owned(),
                hash: sha256.map(|digits| format!("sha256:{digits}")),
                size: file.get("size").and_then(toml::Value::as_integer).and_then(|size| size.try_into().ok()),
                certain: false,
            });
        }
    }
    archives
}

/// The archive from which a distribution was installed.
pub(super) fn of_archive(dist: &Installed, archives: &[Archive]) -> Option<DistributionOrigin> {
    let name = normal(&dist.name);
    let of_it: Vec<&Archive> =
        archives.iter().filter(|archive| archive.name == name && archive.version == dist.version).collect();
    let own: BTreeSet<&str> = dist.tags.iter().map(String::as_str).collect();
    let common = |archive: &Archive| {
        let tags = tags(&without_query(&archive.url)).unwrap_or_default();
        let common = tags.iter().filter(|tag| own.contains(tag.as_str())).count();
        // Prefer equal tags.
        (common > 0).then_some((tags.len() == common && own.len() == common, common))
    };
    let source = |archive: &&&Archive| tags(&without_query(&archive.url)).is_none();
    // No index accepts a wheel for plain `linux`, so the engine built such a wheel itself. The file names of
    // some wheels in an index differ from their tags; their archive stays unknown.
    let built_here = own.iter().any(|tag| tag.contains("-linux_")) || of_it.iter().all(|archive| source(&archive));
    let found = of_it
        .iter()
        .find(|archive| archive.certain)
        .or_else(|| of_it.iter().filter(|archive| common(archive).is_some()).max_by_key(|archive| common(archive)))
        .or_else(|| of_it.iter().find(source).filter(|_| built_here))?;
    Some(DistributionOrigin { url: without_query(&found.url), hash: found.hash.clone(), commit: None, editable: false })
}

/// Whether the URL is that of a wheel.
pub(super) fn is_wheel(url: &str) -> bool {
    tags(&without_query(url)).is_some()
}

/// The tags in the name of a wheel ("Binary distribution format"). `None` for other files.
fn tags(url: &str) -> Option<BTreeSet<String>> {
    let mut parts = url.rsplit('/').next()?.strip_suffix(".whl")?.rsplit('-');
    let (platforms, abis, pythons) = (parts.next()?, parts.next()?, parts.next()?);
    let mut tags = BTreeSet::new();
    for python in pythons.split('.') {
        for abi in abis.split('.') {
            tags.extend(platforms.split('.').map(|platform| format!("{python}-{abi}-{platform}")));
        }
    }
    Some(tags)
}

/// An origin has no query, and any input parses without a panic.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let origins = direct(&text).into_iter();
    for archive in lock(&text).into_iter().chain(pip_report(data)) {
        let _ = tags(&archive.url);
        assert_eq!(normal(&archive.name), archive.name);
    }
    for origin in origins {
        assert!(!origin.url.contains(['?', '#']));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist(name: &str, tags: &[&str]) -> Installed {
        Installed {
            name: name.into(),
            version: "1.0".into(),
            requires: Vec::new(),
            requires_python: None,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            files: Vec::new(),
            direct_url: None,
        }
    }

    #[test]
    fn the_archive_is_the_one_with_the_same_tags() {
        let lock = r#"
            [[packages]]
            name = "my-app"
            version = "1.0"
            sdist = { url = "https://h/my_app-1.0.tar.gz", hashes = { sha256 = "00" } }
            wheels = [
                { url = "https://h/my_app-1.0-cp313-cp313-manylinux2014_x86_64.manylinux_2_17_x86_64.whl?token=1", hashes = { sha256 = "11" } },
                { url = "https://h/my_app-1.0-py2.py3-none-any.whl", hashes = { sha256 = "22" } },
            ]"#;
        let archives = super::lock(lock);
        let hash = |tags: &[&str]| of_archive(&dist("My_App", tags), &archives).unwrap().hash.unwrap();
        assert_eq!(hash(&["py3-none-any", "py2-none-any"]), "sha256:22");
        assert_eq!(hash(&["cp313-cp313-manylinux_2_17_x86_64", "cp313-cp313-manylinux2014_x86_64"]), "sha256:11");
        assert_eq!(hash(&["cp313-cp313-linux_x86_64"]), "sha256:00");
        // The file name has more tags than the wheel; it has other tags.
        assert_eq!(hash(&["py3-none-any"]), "sha256:22");
        assert_eq!(of_archive(&dist("my-app", &["py3-none-manylinux1_x86_64"]), &archives), None);
        assert_eq!(of_archive(&dist("other", &[]), &archives), None);
        let wheel = dist("my.app", &["cp313-cp313-manylinux_2_17_x86_64", "cp313-cp313-manylinux2014_x86_64"]);
        assert!(!of_archive(&wheel, &archives).unwrap().url.contains("token"));
    }

    #[test]
    fn pip_reports_what_it_installed() {
        let report = r#"{"version": "1", "install": [{"metadata": {"name": "x", "version": "1.0"}, "download_info":
            {"url": "file:///w/x-1.0.tar.gz", "archive_info": {"hash": "sha256=ab", "hashes": {"sha256": "ab"}}}}]}"#;
        let origin = of_archive(&dist("X", &["py3-none-any"]), &pip_report(report.as_bytes())).unwrap();
        assert_eq!((origin.url.as_str(), origin.hash.as_deref()), ("file:///w/x-1.0.tar.gz", Some("sha256:ab")));
    }

    #[test]
    fn a_direct_url_tells_commit_and_kind() {
        let git = direct(r#"{"url": "https://h/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}"#).unwrap();
        assert_eq!((git.commit.as_deref(), git.editable), (Some("abc"), false));
        assert!(direct(r#"{"url": "file:///app/x", "dir_info": {"editable": true}}"#).unwrap().editable);
        assert_eq!(direct(r#"{"url": "file://localhost/srv/x.git"}"#).unwrap().url, "file:///srv/x.git");
        assert_eq!(direct("{}"), None);
    }
}
