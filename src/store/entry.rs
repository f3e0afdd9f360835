//! The manifest of an entry: JSON with everything that a reader needs to know before it unpacks the archive.
//!
//! The signature covers the JSON of all other members, without white space and in their order. The digest covers the
//! same without itself: a directory may damage a manifest as well as an archive.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::unusable::Unusable;
use crate::error::{Error, Result};
use crate::runtime::hex;
use crate::signature::{AllowedSigners, Signer};

/// The version of this format.
const FORMAT: u32 = 1;
/// The members with the signature and with the digest.
const SIGNATURE: &str = "signature";
const DIGEST: &str = "sha256";
/// How far the clocks of two nodes may differ.
const SKEW: Duration = Duration::from_hours(1);

/// The manifest of an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The key of the environment.
    pub(crate) key: String,
    /// Version of the podstrap that built it.
    pub(crate) podstrap: String,
    /// Build time in RFC 3339, UTC.
    pub(crate) built_at: String,
    /// Duration of the build, in milliseconds.
    pub(crate) build_ms: u64,
    /// Whether the inputs name every version: the entry does not age.
    pub(crate) is_fixed: bool,
    pub(crate) archive: Archive,
    /// The inputs of the key, without secrets.
    pub(crate) inputs: Value,
    /// The environment's record, as in release.json.
    pub(crate) environment: Value,
}

/// A built environment to save.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) key: String,
    /// The inputs of the key, without secrets.
    pub(crate) inputs: Value,
    /// The record of the environment.
    pub(crate) environment: Value,
    /// Whether the inputs name every version, so that the entry does not age.
    pub(crate) is_fixed: bool,
    pub(crate) took: Duration,
}

/// The archive with the environment's files: a tar, compressed with zstd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archive {
    /// SHA-256 of the file, in hexadecimal digits.
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// The contents of all files together.
    pub(crate) unpacked_bytes: u64,
    /// The space on a volume.
    pub(crate) occupied_bytes: u64,
}

impl Manifest {
    pub(super) fn new(draft: &Draft, archive: Archive) -> Self {
        Self {
            format: FORMAT,
            key: draft.key.clone(),
            podstrap: env!("CARGO_PKG_VERSION").to_owned(),
            built_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            build_ms: draft.took.as_millis().try_into().unwrap_or(u64::MAX),
            is_fixed: draft.is_fixed,
            archive,
            inputs: draft.inputs.clone(),
            environment: draft.environment.clone(),
        }
    }

    /// Time since the build. `None`: it was built in the future, or never.
    pub(crate) fn age(&self) -> Option<Duration> {
        let built = humantime::parse_rfc3339(&self.built_at).ok()?;
        match SystemTime::now().duration_since(built) {
            Ok(age) => Some(age),
            Err(ahead) => (ahead.duration() <= SKEW).then_some(Duration::ZERO),
        }
    }

    /// Duration of the build.
    pub(crate) fn took(&self) -> Duration {
        Duration::from_millis(self.build_ms)
    }

    /// The text of the file.
    pub(super) fn seal(&self, signer: Option<&Signer>) -> Result<Vec<u8>> {
        let failed = |error| Error::internal("cannot write the manifest of an entry").because(error);
        let mut value = serde_json::to_value(self).map_err(failed)?;
        value[DIGEST] = digest(&value).into();
        if let Some(signer) = signer {
            let signature = signer.sign(value.to_string().as_bytes())?;
            value[SIGNATURE] = signature.into();
        }
        serde_json::to_vec_pretty(&value).map_err(failed)
    }
}

/// An entry, as a list shows it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The manifest, or why podstrap cannot use the entry.
    pub(super) manifest: Result<Manifest, String>,
    /// A newer podstrap saved it.
    pub(super) is_newer: bool,
    pub(super) is_signed: bool,
    /// Of all its files.
    pub(super) bytes: u64,
    /// `None`: nobody knows.
    pub(super) used: Option<SystemTime>,
}

impl Entry {
    /// From the text of its manifest. Its archive has `bytes`.
    pub(super) fn new(key: &str, text: Result<Vec<u8>, Unusable>, used: Option<SystemTime>) -> Self {
        let is_signed = text.as_ref().is_ok_and(|text| is_signed(text));
        let bytes = text.as_ref().map_or(0, |text| text.len() as u64);
        let manifest = text.and_then(|text| open(&text, key, None));
        let is_newer = matches!(manifest, Err(Unusable::Newer(_)));
        let manifest = manifest.map_err(|why| why.error().summary());
        Self { key: key.to_owned(), manifest, is_newer, is_signed, bytes, used }
    }
}

/// Reads the text of a manifest. With a `verifier`, it must have a valid signature.
///
/// # Errors
/// It is no manifest, is one of another key or of a newer podstrap, or has no valid signature.
pub(super) fn open(text: &[u8], key: &str, verifier: Option<&AllowedSigners>) -> Result<Manifest, Unusable> {
    let invalid = |why: String| Unusable::Damaged(Error::volume("the manifest is damaged").because(why));
    let mut value: Value = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
    let members = value.as_object_mut().ok_or_else(|| invalid("it is no object".to_owned()))?;
    let signature = members.shift_remove(SIGNATURE);
    if let Some(format) = members.get("format").and_then(Value::as_u64).filter(|format| *format > FORMAT.into()) {
        let why = format!("it has format {format}, and this podstrap reads format {FORMAT}");
        return Err(Unusable::Newer(Error::volume("a newer podstrap saved this environment").because(why)));
    }
    if let Some(verifier) = verifier {
        let signature = signature.as_ref().and_then(Value::as_str);
        let signature = signature
            .ok_or_else(|| Error::volume("it has no signature, which --store-verify and --store-sign require"))
            .map_err(Unusable::Damaged)?;
        // The same bytes as the signer's: parsing keeps the order, and JSON has one shortest form for these values.
        let verified = verifier.verify(value.to_string().as_bytes(), signature, SystemTime::now());
        let invalid = |why| Unusable::Damaged(Error::volume("its signature is not valid").because(why));
        verified.map_err(invalid)?;
    }
    let named = value.as_object_mut().and_then(|members| members.shift_remove(DIGEST));
    if named != Some(digest(&value).into()) {
        return Err(invalid("it has another hash".to_owned()));
    }
    // From the verified value, never from the text.
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(invalid(format!("it has format {}", manifest.format)));
    }
    if manifest.key != key {
        return Err(invalid("it belongs to another environment".to_owned()));
    }
    let hash = &manifest.archive.sha256;
    if hash.len() != 64 || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(invalid("its archive has an invalid hash".to_owned()));
    }
    Ok(manifest)
}

/// The hash of the JSON without white space.
fn digest(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string()))
}

/// The start of a key, for messages.
pub(crate) fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

/// Whether the text has a signature, valid or not.
fn is_signed(text: &[u8]) -> bool {
    serde_json::from_slice::<Value>(text).is_ok_and(|value| value.get(SIGNATURE).is_some())
}

/// Whatever the text, the manifest names its archive by a hash, and survives a round trip.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(mut value) = serde_json::from_slice::<Value>(data) else { return };
    let Some(members) = value.as_object_mut() else { return };
    members.shift_remove(SIGNATURE);
    members.shift_remove(DIGEST);
    value[DIGEST] = digest(&value).into();
    let Ok(manifest) = open(value.to_string().as_bytes(), "key", None) else { return };
    assert!(manifest.archive.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let again = open(&manifest.seal(None).expect("a manifest is JSON"), "key", None).expect("it was just written");
    assert_eq!(format!("{again:?}"), format!("{manifest:?}"));
    let _ = manifest.age();
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn manifest() -> Manifest {
        let draft = Draft {
            key: "key".to_owned(),
            inputs: json!({"index": "https://host/simple", "umlaut": "ä\u{1}\"", "b": 1, "a": [true, null]}),
            environment: json!({"venv": "venv"}),
            is_fixed: false,
            took: Duration::from_millis(1500),
        };
        let archive =
            Archive { sha256: "ab".repeat(32), bytes: u64::MAX, files: 1, unpacked_bytes: 1, occupied_bytes: 4096 };
        Manifest::new(&draft, archive)
    }

    #[test]
    fn a_manifest_survives_a_round_trip() {
        let text = manifest().seal(None).unwrap();
        let again = open(&text, "key", None).unwrap();
        assert_eq!(format!("{again:?}"), format!("{:?}", manifest().clone_at(&again.built_at)));
        assert!(again.age().unwrap() < Duration::from_mins(1));
        assert_eq!(again.took(), Duration::from_millis(1500));
    }

    impl Manifest {
        fn clone_at(&self, built_at: &str) -> Self {
            Self { built_at: built_at.to_owned(), ..self.clone() }
        }
    }

    /// The same with the right hash.
    fn sealed(text: &str) -> String {
        let mut value: Value = serde_json::from_str(text).unwrap();
        value.as_object_mut().unwrap().shift_remove(DIGEST);
        value[DIGEST] = digest(&value).into();
        value.to_string()
    }

    #[test]
    fn other_texts_are_refused() {
        let good = String::from_utf8(manifest().seal(None).unwrap()).unwrap();
        let hash = "ab".repeat(32);
        for (text, why) in [
            (good.replace("\"format\": 1", "\"format\": 2"), "a newer podstrap"),
            (sealed(&good.replace("\"format\": 1", "\"format\": 0")), "format 0"),
            (sealed(&good.replace(&hash, "../../etc/passwd")), "invalid hash"),
            (sealed(&good.replace(&hash, &"AB".repeat(32))), "invalid hash"),
            (sealed(&good.replace("\"key\": \"key\"", "\"key\": \"other\"")), "another environment"),
            (good.replace("\"venv\": \"venv\"", "\"venv\": \"wenv\""), "it has another hash"),
            (good.replace("\"sha256\": \"", "\"sha256\": \"0"), "it has another hash"),
            (good[..good.len() / 2].to_owned(), "EOF"),
            ("[]".to_owned(), "no object"),
            ("{}".to_owned(), "it has another hash"),
            (sealed("{}"), "missing field"),
        ] {
            let error = open(text.as_bytes(), "key", None).unwrap_err().error().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_entry_of_the_future_has_no_age() {
        let at = |time: SystemTime| manifest().clone_at(&humantime::format_rfc3339_seconds(time).to_string()).age();
        assert_eq!(at(SystemTime::now() + Duration::from_mins(5)), Some(Duration::ZERO));
        assert_eq!(at(SystemTime::now() + Duration::from_hours(48)), None);
        assert!(at(SystemTime::UNIX_EPOCH).unwrap() > Duration::from_hours(9000));
        assert_eq!(manifest().clone_at("yesterday").age(), None);
    }
}
