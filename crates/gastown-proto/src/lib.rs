//! gRPC code generated from `proto/`. Only this file is written by hand.

/// Package `gastown.v1`.
#[allow(missing_docs, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("gastown.v1");

    /// What gRPC reflection serves: the encoded `FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
