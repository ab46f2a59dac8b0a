//! An image on this machine.

use std::path::PathBuf;

use gastown_cluster::oci::Digest;

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The name without registry and tag.
    pub name: String,
    /// The full name, with the tag.
    pub reference: String,
    /// The path of the image layout, a tar.
    pub path: PathBuf,
    /// The path of the list of what is in it, an SPDX document.
    pub sbom: PathBuf,
    /// The digest of its manifest, by which a node knows it.
    pub digest: Digest,
}
