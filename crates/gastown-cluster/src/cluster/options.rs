//! What a cluster may be asked to be.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Receives progress lines.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The nodes of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nodes {
    /// One node, this machine: containerd, kubelet, kube-proxy, cluster DNS. Needs root.
    #[default]
    Kubelet,
    /// This many nodes that are objects alone: pods are Running at once, and run until they are drained
    /// or their status is written. No container ever starts.
    Kwok(u16),
    /// No node: a control plane alone, where pods stay Pending.
    None,
}

/// The cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's folder; it must be missing, empty, or a cluster's.
    pub dir: PathBuf,
    /// Its nodes.
    pub nodes: Nodes,
}

impl Options {
    /// A cluster with a node in the user's cache folder.
    pub fn standard() -> Result<Self> {
        Ok(Self { dir: default_dir()?, nodes: Nodes::default() })
    }
}

/// The folder of a cluster without a name.
pub fn default_dir() -> Result<PathBuf> {
    Ok(gastown_toolchain::cache::dir()?.join("cluster"))
}
