//! The programs that a cluster on this machine is made of: found, built once or fetched once, and
//! kept in the user's cache folder.
//!
//! Each part is built from its public Go module with the files of `modules/<module>`, which are
//! compiled into this library. What is built lies under a digest of those files, so a changed
//! version never meets old binaries and a fresh checkout finds what another one built.
//!
//! Everything here blocks, prints its progress to standard error and depends on little: `cargo
//! xtask` builds the parts while cargo still compiles the crates that use them.

mod build;
pub mod cache;
mod claude_code;
mod grafana;
pub mod host;
mod npm;
mod parts;
mod prometheus;
mod tail;
pub mod timings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use claude_code::{
    CLAUDE_CODE_VERSION, NpmPackage, claude_code, claude_code_package, has_claude_code,
};
pub use grafana::grafana_types;
use parts::{
    CNI, CONTAINERD, CONTROL_PLANE, COREDNS, ETCD, HELM, JAEGER, KUBE_ROUTER, KWOK, NODE, Part,
    SCHEDULER,
};
pub use prometheus::{has_prometheus, prometheus};
pub use tail::tail;

/// The version that the Kubernetes binaries report, and that nodes show.
pub use parts::KUBERNETES_VERSION;

/// Programs that are needed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// helm.
    Helm,
    /// jaeger.
    Jaeger,
    /// etcd, kube-apiserver, kube-controller-manager and kubectl.
    ControlPlane,
    /// The control plane's, the scheduler and kwok.
    FakeNodes,
    /// The control plane's, the scheduler, kubelet, kube-proxy, containerd with its shim and
    /// client, the CNI plugins, CoreDNS and kube-router.
    Node,
}

/// A part that has to be built, and how long that is likely to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The part's name.
    pub name: &'static str,
    /// How long it took the last time, or takes on two cores.
    pub expected: std::time::Duration,
}

impl Programs {
    fn parts(self) -> Vec<&'static Part> {
        match self {
            Self::Helm => vec![&HELM],
            Self::Jaeger => vec![&JAEGER],
            Self::ControlPlane => vec![&CONTROL_PLANE, &ETCD],
            Self::FakeNodes => vec![&CONTROL_PLANE, &SCHEDULER, &ETCD, &KWOK],
            Self::Node => vec![
                &CONTROL_PLANE,
                &SCHEDULER,
                &NODE,
                &CONTAINERD,
                &COREDNS,
                &KUBE_ROUTER,
                &ETCD,
                &CNI,
            ],
        }
    }

    /// The folder of somebody else's programs that serve as well.
    fn elsewhere(self) -> Option<PathBuf> {
        match self {
            Self::Helm => host::find("helm").and_then(|helm| Some(helm.parent()?.to_owned())),
            Self::ControlPlane => {
                let assets = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
                self.parts().iter().all(|part| part.is_in(&assets)).then_some(assets)
            }
            Self::FakeNodes | Self::Node | Self::Jaeger => None,
        }
    }

    /// The parts that have to be built before [`Programs::provide`] returns.
    pub fn missing(self) -> Result<Vec<Missing>> {
        if self.elsewhere().is_some() {
            return Ok(Vec::new());
        }
        let root = root()?;
        let parts = self.parts().into_iter();
        let missing = parts.filter(|part| !part.is_in(&root.join(part.folder())));
        let expected = |part: &Part| timings::last(&part.timing()).unwrap_or(part.expected);
        Ok(missing.map(|part| Missing { name: part.name, expected: expected(part) }).collect())
    }

    /// Builds what is missing and returns the folder that holds all of them.
    pub fn provide(self) -> Result<PathBuf> {
        if let Some(folder) = self.elsewhere() {
            return Ok(folder);
        }
        let (root, parts) = (root()?, self.parts());
        let folders: Vec<String> = parts.iter().map(|part| part.folder()).collect();
        let all = root.join(format!("bin-{}", parts::key(folders.iter().map(String::as_str))));
        for (part, folder) in parts.iter().zip(&folders) {
            let folder = root.join(folder);
            build::ensure(part, &folder)?;
            part.binaries().try_for_each(|(_, name)| link(&folder.join(name), &all.join(name)))?;
        }
        Ok(all)
    }
}

/// The helm program: the one on the search path, or ours.
pub fn helm() -> Result<PathBuf> {
    Ok(Programs::Helm.provide()?.join("helm"))
}

/// The folder that all parts are built in, one folder a part and version.
fn root() -> Result<PathBuf> {
    Ok(cache::dir()?.join("toolchain"))
}

/// Gives a program a second name, unless it has it.
fn link(from: &Path, to: &Path) -> Result<()> {
    let shown = || format!("linking {} to {}", to.display(), from.display());
    std::fs::create_dir_all(to.parent().unwrap_or(to)).with_context(shown)?;
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.with_context(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_the_programs_of_a_control_plane() {
        let names = |programs: Programs| -> Vec<&str> {
            programs.parts().into_iter().flat_map(Part::binaries).map(|(_, name)| name).collect()
        };
        for nodes in [names(Programs::Node), names(Programs::FakeNodes)] {
            let has = |name| nodes.contains(name);
            assert!(names(Programs::ControlPlane).iter().all(has), "{nodes:?}");
        }
    }

    #[test]
    fn a_program_is_linked_once() {
        let dir = tempfile::tempdir().unwrap();
        let (program, second) = (dir.path().join("a"), dir.path().join("bin/a"));
        std::fs::write(&program, "x").unwrap();
        link(&program, &second).unwrap();
        link(&program, &second).unwrap();
        assert_eq!(std::fs::read(second).unwrap(), b"x");
        assert!(link(&dir.path().join("none"), &dir.path().join("bin/none")).is_err());
    }
}
