//! OCI images without an engine: an image layout as one tar, as `ctr images import` and `kind load
//! image-archive` read it.
//!
//! The same input gives the same bytes: entries are sorted, times are zero, owners are given and
//! never taken from the disk. So the digest of an image changes only with its content, and a node or
//! a registry that has the digest needs no copy.

mod blob;
mod digest;
mod files;
mod image;
mod layer;
mod layout;

pub use digest::Digest;
pub use files::FileEntry;
pub use image::ImageBuilder;
pub use layer::{Layer, Owner};
pub use layout::{BlobRef, Layout, identify};
