//! What is built, from which module, with which flags.

use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// The version of Kubernetes; its module file asks for the same.
pub const KUBERNETES_VERSION: &str = "v1.36.3";

/// A set of binaries that come out of one `go build`.
#[derive(Debug)]
pub struct Part {
    pub name: &'static str,
    /// The files of the module that it is built from: name and text.
    files: &'static [(&'static str, &'static str)],
    /// Package, and the binary's name where the package's own is too vague.
    programs: &'static [(&'static str, Option<&'static str>)],
    pub tags: &'static str,
    pub ldflags: &'static str,
    /// How long a build takes on two cores that nobody else uses, without Go's build cache.
    pub expected: Duration,
}

impl Part {
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.files.iter().copied()
    }

    pub fn packages(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.programs.iter().map(|(package, _)| *package)
    }

    /// Pairs of the name that `go build` gives and the name that we want.
    pub fn binaries(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.programs.iter().map(|(package, wanted)| {
            let built = built_name(package);
            (built, wanted.unwrap_or(built))
        })
    }

    pub fn is_in(&self, folder: &Path) -> bool {
        self.binaries().all(|(_, wanted)| folder.join(wanted).is_file())
    }

    /// The name of the folder of this part in this version.
    pub fn folder(&self) -> String {
        let flags = [self.tags, self.ldflags].into_iter().chain(self.packages());
        let texts = flags.chain(self.files.iter().map(|(_, text)| *text));
        format!("{}-{}", self.name, key(texts))
    }

    /// The name under which the time of its build is remembered.
    pub fn timing(&self) -> String {
        format!("toolchain {}", self.name)
    }
}

/// Sixteen digits that stand for these texts.
pub fn key<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..8])
}

/// `go build` names a binary after the last element of its package that is not a major version.
fn built_name(package: &'static str) -> &'static str {
    let mut elements = package.rsplit('/');
    let last = elements.next().unwrap_or(package);
    let is_version = last
        .strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_version { elements.next().unwrap_or(last) } else { last }
}

macro_rules! files {
    ($module:literal: $($name:literal),*) => {
        &[$(($name, include_str!(concat!("../modules/", $module, "/", $name)))),*]
    };
}

const KUBERNETES: Part = Part {
    name: "kubernetes",
    files: files!("kubernetes": "go.mod", "go.sum"),
    programs: &[],
    tags: "",
    ldflags: "-X k8s.io/component-base/version.gitVersion=v1.36.3",
    expected: Duration::ZERO,
};

pub static ETCD: Part = Part {
    name: "etcd",
    files: files!("etcd": "go.mod", "go.sum"),
    programs: &[("go.etcd.io/etcd/server/v3", Some("etcd"))],
    tags: "",
    ldflags: "",
    expected: Duration::from_secs(21),
};

pub static CONTROL_PLANE: Part = Part {
    name: "control-plane",
    programs: &[
        ("k8s.io/kubernetes/cmd/kube-apiserver", None),
        ("k8s.io/kubernetes/cmd/kube-controller-manager", None),
        ("k8s.io/kubernetes/cmd/kubectl", None),
    ],
    expected: Duration::from_secs(250),
    ..KUBERNETES
};

pub static SCHEDULER: Part = Part {
    name: "scheduler",
    programs: &[("k8s.io/kubernetes/cmd/kube-scheduler", None)],
    expected: Duration::from_secs(10),
    ..KUBERNETES
};

/// Nodes and pods without machines.
pub static KWOK: Part = Part {
    name: "kwok",
    files: files!("kwok": "go.mod", "go.sum"),
    programs: &[("sigs.k8s.io/kwok/cmd/kwok", None)],
    tags: "",
    ldflags: "",
    expected: Duration::from_secs(62),
};

pub static NODE: Part = Part {
    name: "node",
    programs: &[
        ("k8s.io/kubernetes/cmd/kubelet", None),
        ("k8s.io/kubernetes/cmd/kube-proxy", None),
    ],
    expected: Duration::from_secs(22),
    ..KUBERNETES
};

pub static CONTAINERD: Part = Part {
    name: "containerd",
    files: files!("containerd": "go.mod", "go.sum"),
    programs: &[
        ("github.com/containerd/containerd/v2/cmd/containerd", None),
        ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", None),
        ("github.com/containerd/containerd/v2/cmd/ctr", None),
    ],
    // The snapshotters that no cluster of ours uses.
    tags: "no_btrfs,no_devmapper,no_zfs",
    ldflags: "",
    expected: Duration::from_mins(1),
};

pub static CNI: Part = Part {
    name: "cni",
    files: files!("cni": "go.mod", "go.sum"),
    programs: &[
        ("github.com/containernetworking/plugins/plugins/main/bridge", None),
        ("github.com/containernetworking/plugins/plugins/main/loopback", None),
        ("github.com/containernetworking/plugins/plugins/ipam/host-local", None),
        ("github.com/containernetworking/plugins/plugins/meta/portmap", None),
        ("github.com/containernetworking/plugins/plugins/meta/tuning", None),
    ],
    tags: "",
    ldflags: "",
    expected: Duration::from_secs(5),
};

/// Enforces network policies.
pub static KUBE_ROUTER: Part = Part {
    name: "kube-router",
    files: files!("kube-router": "go.mod", "go.sum"),
    programs: &[("github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", None)],
    tags: "",
    ldflags: "",
    expected: Duration::from_secs(80),
};

/// With the plugins of the cluster's Corefile alone: with all of them it is the largest build after
/// Kubernetes.
pub static COREDNS: Part = Part {
    name: "coredns",
    files: files!("coredns": "go.mod", "go.sum", "main.go"),
    programs: &[("gastown.local/toolchain/coredns", None)],
    tags: "",
    ldflags: "",
    expected: Duration::from_secs(75),
};

/// Jaeger 2, which is an OpenTelemetry collector with a store of traces. Its module has no page: what is
/// used is its API.
pub static JAEGER: Part = Part {
    name: "jaeger",
    files: files!("jaeger": "go.mod", "go.sum"),
    programs: &[("github.com/jaegertracing/jaeger/cmd/jaeger", None)],
    tags: "",
    ldflags: "",
    expected: Duration::from_mins(6),
};

pub static HELM: Part = Part {
    name: "helm",
    files: files!("helm": "go.mod", "go.sum"),
    programs: &[("helm.sh/helm/v3/cmd/helm", None)],
    tags: "",
    ldflags: "",
    expected: Duration::from_secs(70),
};

/// Every part.
#[cfg(test)]
pub static ALL: [&Part; 11] = [
    &ETCD,
    &CONTROL_PLANE,
    &SCHEDULER,
    &KWOK,
    &NODE,
    &CONTAINERD,
    &CNI,
    &COREDNS,
    &KUBE_ROUTER,
    &HELM,
    &JAEGER,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn go_mod(part: &Part) -> &'static str {
        part.files().find(|(name, _)| *name == "go.mod").unwrap().1
    }

    #[test]
    fn a_binary_is_named_after_its_package_without_the_major_version() {
        assert_eq!(built_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(
            built_name("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            "containerd-shim-runc-v2"
        );
        assert_eq!(built_name("x/vault"), "vault");
    }

    #[test]
    fn etcd_gets_the_name_that_people_know() {
        assert_eq!(ETCD.binaries().collect::<Vec<_>>(), [("server", "etcd")]);
    }

    #[test]
    fn a_changed_version_has_another_folder() {
        let changed = Part { files: &[("go.mod", "x")], ..KUBERNETES };
        let tagged = Part { tags: "seccomp", ..KUBERNETES };
        let folders = [KUBERNETES.folder(), changed.folder(), tagged.folder()];
        assert_eq!(folders.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert!(folders.iter().all(|f| f.starts_with("kubernetes-") && f.len() == 27));
    }

    #[test]
    fn the_version_is_the_one_that_the_module_file_asks_for() {
        assert!(
            go_mod(&CONTROL_PLANE).contains(&format!("k8s.io/kubernetes {KUBERNETES_VERSION}"))
        );
    }

    #[test]
    fn every_package_is_of_its_module_file() {
        for part in ALL {
            for package in part.packages() {
                assert!(
                    go_mod(part).contains(package),
                    "{package} is not in {}'s go.mod",
                    part.name
                );
            }
        }
    }
}
