//! Where a rule holds.

use std::fmt;

use gastown_api::rbac::{self, Controller, Grant};

/// Where a table of rules holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Everywhere,
    Release,
    Configured,
}

impl Place {
    pub(super) const ALL: [Self; 3] = [Self::Everywhere, Self::Release, Self::Configured];

    pub(super) fn grants(self, controller: Controller) -> &'static [Grant] {
        match self {
            Self::Everywhere => rbac::cluster_grants(controller),
            Self::Release => rbac::namespace_grants(controller),
            Self::Configured => rbac::secret_grants(controller),
        }
    }

    /// Whether a request in this namespace is one of it; `release` is the controller's own namespace.
    pub(super) fn is_of(self, namespace: Option<&str>, release: &str) -> bool {
        let in_release = namespace == Some(release);
        match self {
            Self::Everywhere => true,
            Self::Release => in_release,
            Self::Configured => namespace.is_some() && !in_release,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everywhere => "which its ClusterRole allows",
            Self::Release => "which its Role allows in the release namespace",
            Self::Configured => "which it may in a configured namespace",
        })
    }
}
