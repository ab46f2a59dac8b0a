//! Content addresses.

use std::fmt;
use std::str::FromStr as _;

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, MediaType};
use sha2::Digest as _;

/// A content address, `sha256:` and 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The address of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&sha2::Sha256::digest(bytes))
    }

    pub(super) fn from_hash(hash: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }

    /// The address in a manifest.
    pub(super) fn of_descriptor(descriptor: &Descriptor) -> Self {
        Self(descriptor.digest().to_string())
    }

    /// The address as written in manifests.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the content in an image layout.
    pub(super) fn blob(&self) -> String {
        format!("blobs/{}", self.0.replace(':', "/"))
    }

    /// A reference to the content, for a manifest.
    pub(super) fn descriptor(&self, media_type: MediaType, size: u64) -> Result<Descriptor> {
        let digest = oci_spec::image::Digest::from_str(&self.0)
            .with_context(|| format!("{self} is not a digest"))?;
        Ok(Descriptor::new(media_type, size, digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
