//! What the installation decides about pods.

use gastown_runtime::proxy::ProxyArgs;

use super::room::RoomArgs;

/// What pods are made of where their Polecat does not decide it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodDefaults {
    /// The image of `git-init` and `git-sync`.
    pub git_image: String,
    /// The image of `claude` when the Polecat names none.
    pub agent_image: String,
    /// The pull policy of these two; the API server's default when absent.
    pub pull_policy: Option<String>,
    /// Run as user 65532; false where the platform gives the ids (OpenShift).
    pub fixed_ids: bool,
    /// Where the sidecar sends heartbeats.
    pub witness: Option<Witness>,
    /// The proxy to other networks.
    pub proxy: ProxyArgs,
    /// Memory and sizes of volumes.
    pub room: RoomArgs,
}

/// Where the sidecar finds witness-ctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    /// `https://host:port`; the host is a name in its certificate.
    pub endpoint: String,
    /// The certificate of its authority, PEM: the pod may be in any namespace, and a Secret could
    /// not follow it.
    pub ca: String,
}
