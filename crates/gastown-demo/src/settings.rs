//! Where and how the demo runs.

use std::path::PathBuf;
use std::time::Duration;

/// A user and a password of the git server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password: letters and digits only, since it is a part of a URL.
    pub password: String,
}

/// Where and how the demo runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kubeconfig of the cluster.
    pub kubeconfig: PathBuf,
    /// A namespace of its own; created anew.
    pub namespace: String,
    /// The Rig's name; created anew.
    pub rig: String,
    /// How many polecats work at a time.
    pub max_polecats: i32,
    /// The image of the git server and the Messages API.
    pub servers_image: String,
    /// The image that gates run in.
    pub gate_image: String,
    /// What the git server requires; everybody may read and write without it.
    pub login: Option<Login>,
    /// How long everything may take together.
    pub deadline: Duration,
}
