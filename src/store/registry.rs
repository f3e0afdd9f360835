//! A store in an OCI registry.
//!
//! ```text
//! v1-<key>            an image manifest: its config is the manifest of an entry, its one layer the archive
//! v1-<key>.building   a tiny image manifest: somebody builds the entry
//! ```
//!
//! A tag is written last, so that an entry is complete or absent. Content-addressed blobs replace renames. A registry
//! has no exclusive create: of several builders that announce themselves, the one whose tag stays is the builder. Two
//! may build; then both save the same entry.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::entry::{Archive, Draft, Entry, Manifest};
use super::lease::{self, Lease, Seen, Taken};
use super::oci::Client;
use super::transfer;
use super::unusable::Unusable;
use crate::dir::random;
use crate::error::{Error, Result};
use crate::files::WRITTEN;
use crate::plan;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::signature::Signer;

/// The start of every tag, with the version of the layout. Other tags are not podstrap's.
const START: &str = "v1-";
const BUILDING: &str = ".building";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const ENVIRONMENT: &str = "application/vnd.podstrap.environment.v1";
const ENTRY: &str = "application/vnd.podstrap.entry.v1+json";
const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const ANNOUNCEMENT: &str = "application/vnd.podstrap.building.v1";
/// The annotation with the text of a lease.
const LEASE: &str = "org.podstrap.lease";
/// The empty blob of the image specification.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const NOTHING: &[u8] = b"{}";
/// The most bytes of an image manifest.
const IMAGE_SIZE: u64 = 64 << 10;
/// The time between two signs of life of a builder. Each of them is a new manifest in the registry.
const BEAT: Duration = Duration::from_secs(3);
/// How long a builder waits for others that announce themselves: twice as long as its own announcement took, within these
/// limits.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];

/// A repository with entries.
#[derive(Debug)]
pub(super) struct Registry {
    at: plan::Registry,
    auth: Vec<PathBuf>,
    /// Made at first use.
    client: Mutex<Option<Arc<Client>>>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// An image manifest, as far as podstrap reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Registry {
    pub(super) fn new(at: &plan::Registry, auth: &[PathBuf]) -> Self {
        Self { at: at.clone(), auth: auth.to_owned(), client: Mutex::default() }
    }

    fn client(&self) -> Result<Arc<Client>> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        Ok(Arc::clone(client.insert(Client::new(self.at.clone(), self.auth.clone())?)))
    }

    /// The text of an entry's manifest, and its archive; `None` if there is no such entry.
    pub(super) fn manifest(&self, key: &str) -> Result<Option<(Vec<u8>, Layer)>, Unusable> {
        let damaged = |why: String| Unusable::Damaged(Error::volume("the manifest is damaged").because(why));
        let client = self.client()?;
        let Some(text) = client.manifest(&tag(key), IMAGE, IMAGE_SIZE)? else { return Ok(None) };
        let image: Image = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let [layer] =
            <[Descriptor; 1]>::try_from(image.layers).map_err(|_| damaged("it has not one layer".to_owned()))?;
        if image.artifact_type != ENVIRONMENT {
            return Err(damaged("it is no environment of podstrap".to_owned()));
        }
        let config = image.config;
        if config.size > WRITTEN || !is_digest(&config.digest) {
            return Err(damaged("its config has an invalid size or digest".to_owned()));
        }
        let missing = || damaged("its config is missing".to_owned());
        let text = client.blob(&config.digest, config.size)?.ok_or_else(missing)?;
        if digest(&text) != config.digest || text.len() as u64 != config.size {
            return Err(damaged("its config has another digest or size".to_owned()));
        }
        Ok(Some((text, Layer(layer))))
    }

    /// The archive of an entry, while it arrives.
    pub(super) fn archive(&self, archive: &Archive, deadline: Deadline) -> Result<impl Read + use<>, Unusable> {
        let found = self.client()?.download(&named(&archive.sha256), deadline)?;
        let (length, bytes) = found.ok_or_else(|| Unusable::damaged("it is missing"))?;
        match length {
            Some(length) if length != archive.bytes => Err(Unusable::length(length, archive.bytes)),
            _ => Ok(bytes.take(archive.bytes.saturating_add(1))),
        }
    }

    /// Saves an environment as an entry. Replaces an entry of the same key.
    ///
    /// # Errors
    /// Volume: the registry refuses it. Environment: it has files that an archive cannot hold.
    pub(super) fn save(
        &self,
        draft: &Draft,
        venv: &Path,
        signer: Option<&Signer>,
        deadline: Deadline,
    ) -> Result<Manifest> {
        let client = self.client()?;
        let what = format!("cannot save the environment in the store {}", self.at);
        let mut upload = client.upload(deadline)?;
        let archive = match transfer::pack(venv, &mut upload, &what, deadline) {
            Ok(archive) => archive,
            // The store took everything.
            Err(error) if error.kind() != crate::error::Kind::Volume => return Err(error),
            Err(error) => return Err(upload.failure(io::Error::other(error.summary())).within(&what)),
        };
        upload.finish(&named(&archive.sha256)).map_err(|error| error.within(&what))?;
        let manifest = Manifest::new(draft, archive);
        let text = manifest.seal(signer)?;
        let config = Descriptor { media_type: ENTRY.to_owned(), digest: digest(&text), size: text.len() as u64 };
        client.put_blob(&config.digest, &text)?;
        let layer = Layer::of(&manifest.archive).0;
        client.put_manifest(&tag(&draft.key), IMAGE, image(ENVIRONMENT, &config, &layer, &json!({})))?;
        Ok(manifest)
    }

    /// All entries, in the order of their tags.
    ///
    /// # Errors
    /// Volume: the registry refuses or cannot be reached.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let tags = self.client()?.tags()?;
        let keys = tags.iter().filter_map(|tag| tag.strip_prefix(START).filter(|key| is_hash(key)));
        let entry = |key: &str| {
            // It may be gone meanwhile.
            let text = self.manifest(key).map(|found| Some(found?.0)).transpose()?;
            let mut entry = Entry::new(key, text, None);
            entry.bytes += entry.manifest.as_ref().map_or(0, |manifest| manifest.archive.bytes);
            Some(entry)
        };
        Ok(keys.filter_map(entry).collect())
    }

    /// Announces a build, unless another process builds. `before` is what the last call saw.
    ///
    /// # Errors
    /// Volume: the registry refuses it.
    pub(super) fn announce(self: &Arc<Self>, key: &str, before: Option<Seen>) -> Result<Taken> {
        let found = self.announcement(key)?;
        if let Some(text) = found.clone() {
            let seen = Seen::again(text, before);
            if !seen.is_dead() {
                return Ok(Taken::By(seen));
            }
        }
        let client = self.client()?;
        let nothing = digest(NOTHING);
        if !client.has_blob(&nothing)? {
            client.put_blob(&nothing, NOTHING)?;
        }
        // Another process may have been faster.
        if let Some(text) = self.announcement(key)?.filter(|text| found.as_ref() != Some(text)) {
            return Ok(Taken::By(Seen::again(text, None)));
        }
        let (name, since) = (random(), Instant::now());
        self.write(key, &lease::text(&name, 0))?;
        sleep((since.elapsed() * 2).clamp(PAUSES[0], PAUSES[1]));
        let now = self.announcement(key)?.unwrap_or_default();
        if !now.starts_with(name.as_bytes()) {
            return Ok(Taken::By(Seen::again(now, None)));
        }
        let (registry, key) = (Arc::clone(self), key.to_owned());
        let (again, own, tag) = (Arc::clone(self), name.clone(), key.clone());
        let renew = move |count| registry.write(&key, &lease::text(&name, count)).map_err(|error| error.summary());
        let end = move || {
            // Few registries delete a tag. A lease that ended long ago is over at once.
            if again.announcement(&tag).is_ok_and(|now| now.is_some_and(|now| now.starts_with(own.as_bytes()))) {
                let _ = again.write(&tag, &format!("{own} 0000000000 000000000000\n"));
            }
        };
        let failed = |error| Error::internal("cannot start a thread").because(error);
        Lease::hold(BEAT, renew, end).map(Taken::Ours).map_err(failed)
    }

    /// The text of a lease.
    fn announcement(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let text = self.client()?.manifest(&(tag(key) + BUILDING), IMAGE, IMAGE_SIZE)?;
        let lease = |text: Vec<u8>| {
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            value["annotations"][LEASE].as_str().unwrap_or_default().as_bytes().to_vec()
        };
        Ok(text.map(lease))
    }

    fn write(&self, key: &str, lease: &str) -> Result<()> {
        let nothing = Descriptor { media_type: EMPTY.to_owned(), digest: digest(NOTHING), size: NOTHING.len() as u64 };
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let annotations = json!({ LEASE: lease, "org.opencontainers.image.created": time });
        let text = image(ANNOUNCEMENT, &nothing, &nothing, &annotations);
        self.client()?.put_manifest(&(tag(key) + BUILDING), IMAGE, text)
    }
}

/// The layer that an image manifest names.
#[derive(Debug)]
pub(super) struct Layer(Descriptor);

impl Layer {
    fn of(archive: &Archive) -> Self {
        Self(Descriptor { media_type: ARCHIVE.to_owned(), digest: named(&archive.sha256), size: archive.bytes })
    }

    /// Whether it is this archive.
    pub(super) fn is(&self, archive: &Archive) -> Result<(), Unusable> {
        if self.0 == Self::of(archive).0 {
            return Ok(());
        }
        Err(Unusable::Damaged(Error::volume("the manifest is damaged").because("its layer is another archive")))
    }
}

fn tag(key: &str) -> String {
    format!("{START}{key}")
}

fn image(kind: &str, config: &Descriptor, layer: &Descriptor, annotations: &Value) -> Vec<u8> {
    let image = json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind, "config": config,
                       "layers": [layer], "annotations": annotations});
    image.to_string().into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    named(&hex(&Sha256::digest(bytes)))
}

fn named(sha256: &str) -> String {
    format!("sha256:{sha256}")
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hash)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
