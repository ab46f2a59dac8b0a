//! The record of what was started, so that a later process can stop it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::options::Nodes;
use crate::control_plane::identity::Identity;

/// The record of one cluster, `state.json` in its folder. Written before and after each step that
/// `down` must undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// The boot that pids and start times belong to.
    pub boot: String,
    /// Its nodes.
    pub nodes: Nodes,
    /// The folder of the binaries.
    pub bin: PathBuf,
    /// The API server's address.
    pub server: String,
    /// Its processes, in the order of starting.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Host paths that did not exist before and are removed with the cluster.
    #[serde(default)]
    pub created: Vec<PathBuf>,
    /// Kernel settings as they were before.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Whether everything was started.
    #[serde(default)]
    pub complete: bool,
}

/// A process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program's name, which is its log's too.
    pub name: String,
    /// Its pid and start time.
    #[serde(flatten)]
    pub identity: Identity,
}

/// A kernel setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its file under /proc/sys.
    pub path: PathBuf,
    /// Its value, as read.
    pub value: String,
}

impl State {
    /// Reads a cluster's record, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(dir);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is not the record of a cluster", path.display()))
    }

    /// Replaces the record in one step.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir);
        let new = dir.join("state.json.new");
        let written = std::fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&new, &path));
        written.with_context(|| format!("writing {}", path.display()))
    }

    /// The process of that name, if it still runs in this boot.
    pub fn running(&self, name: &str) -> Option<Identity> {
        let process = self.processes.iter().find(|p| p.name == name)?;
        (self.boot == boot_id() && process.identity.is_alive()).then_some(process.identity)
    }

    /// Names of processes that should run and do not.
    pub fn missing(&self) -> Vec<&str> {
        self.processes
            .iter()
            .map(|p| p.name.as_str())
            .filter(|name| self.running(name).is_none())
            .collect()
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }
}

/// Names this boot of the machine: start times count from it.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot: &str) -> State {
        let me = Identity::of(std::process::id()).unwrap();
        State {
            boot: boot.into(),
            nodes: Nodes::Kubelet,
            bin: "/b".into(),
            server: "https://198.18.0.1:1".into(),
            processes: vec![
                Process { name: "me".into(), identity: me },
                Process {
                    name: "other".into(),
                    identity: Identity { started: me.started + 1, ..me },
                },
            ],
            created: vec!["/var/lib/cni".into()],
            settings: vec![Setting {
                path: "/proc/sys/net/ipv4/ip_forward".into(),
                value: "0\n".into(),
            }],
            complete: true,
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), None);
        state("b").write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), Some(state("b")));
    }

    #[test]
    fn a_torn_or_foreign_record_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"boot\": \"x\"}", "[]"] {
            std::fs::write(dir.path().join("state.json"), text).unwrap();
            assert!(State::read(dir.path()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pid_counts_only_with_its_start_time_and_boot() {
        let now = state(&boot_id());
        assert!(now.running("me").is_some());
        assert_eq!(now.missing(), ["other"]);
        assert_eq!(state("another boot").missing(), ["me", "other"]);
    }
}
