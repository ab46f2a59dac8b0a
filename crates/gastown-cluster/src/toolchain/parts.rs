//! What is built, from which module, with which flags.

use std::path::Path;

/// The version of Kubernetes; its module file asks for the same.
pub const KUBERNETES_VERSION: &str = "v1.36.3";

/// A set of binaries that come out of one `go build`.
pub(super) struct Part {
    pub name: &'static str,
    pub go_mod: &'static str,
    pub go_sum: &'static str,
    /// Package, and the binary's name where the package's own is too vague.
    programs: &'static [(&'static str, Option<&'static str>)],
    pub cgo: bool,
    pub tags: &'static str,
    pub ldflags: &'static str,
}

impl Part {
    pub fn packages(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.programs.iter().map(|(package, _)| *package)
    }

    /// Pairs of the name that `go build` gives and the name that we want.
    pub fn binaries(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.programs.iter().map(|(package, wanted)| {
            let made = made_name(package);
            (made, wanted.unwrap_or(made))
        })
    }

    pub fn is_in(&self, folder: &Path) -> bool {
        self.binaries().all(|(_, wanted)| folder.join(wanted).is_file())
    }
}

/// `go build` names a binary after the last element of its package that is not a major version.
fn made_name(package: &'static str) -> &'static str {
    let mut elements = package.rsplit('/');
    let last = elements.next().unwrap_or(package);
    let is_version = last
        .strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_version { elements.next().unwrap_or(last) } else { last }
}

macro_rules! module {
    ($name:literal, $programs:expr) => {
        Part {
            name: $name,
            go_mod: include_str!(concat!("../../toolchain/", $name, "/go.mod")),
            go_sum: include_str!(concat!("../../toolchain/", $name, "/go.sum")),
            programs: $programs,
            cgo: false,
            tags: "",
            ldflags: "",
        }
    };
}

const KUBERNETES: Part = Part {
    ldflags: "-X k8s.io/component-base/version.gitVersion=v1.36.3",
    ..module!("kubernetes", &[])
};

pub(super) static ETCD: Part = module!("etcd", &[("go.etcd.io/etcd/server/v3", Some("etcd"))]);

pub(super) static CONTROL_PLANE: Part = Part {
    programs: &[
        ("k8s.io/kubernetes/cmd/kube-apiserver", None),
        ("k8s.io/kubernetes/cmd/kube-controller-manager", None),
        ("k8s.io/kubernetes/cmd/kubectl", None),
    ],
    ..KUBERNETES
};

pub(super) static NODE: Part = Part {
    programs: &[
        ("k8s.io/kubernetes/cmd/kube-scheduler", None),
        ("k8s.io/kubernetes/cmd/kubelet", None),
        ("k8s.io/kubernetes/cmd/kube-proxy", None),
    ],
    ..KUBERNETES
};

pub(super) static CONTAINERD: Part = module!(
    "containerd",
    &[
        ("github.com/containerd/containerd/v2/cmd/containerd", None),
        ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", None),
        ("github.com/containerd/containerd/v2/cmd/ctr", None),
    ]
);

pub(super) static RUNC: Part = Part {
    cgo: true,
    tags: "seccomp",
    ..module!("runc", &[("github.com/opencontainers/runc", None)])
};

pub(super) static CNI: Part = module!(
    "cni",
    &[
        ("github.com/containernetworking/plugins/plugins/main/bridge", None),
        ("github.com/containernetworking/plugins/plugins/main/loopback", None),
        ("github.com/containernetworking/plugins/plugins/ipam/host-local", None),
        ("github.com/containernetworking/plugins/plugins/meta/portmap", None),
    ]
);

pub(super) static COREDNS: Part = module!("coredns", &[("github.com/coredns/coredns", None)]);

pub(super) static HELM: Part = module!("helm", &[("helm.sh/helm/v3/cmd/helm", None)]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_named_after_its_package_without_the_major_version() {
        assert_eq!(made_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(
            made_name("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            "containerd-shim-runc-v2"
        );
        assert_eq!(made_name("x/vault"), "vault");
    }

    #[test]
    fn etcd_gets_the_name_that_people_know() {
        assert_eq!(ETCD.binaries().collect::<Vec<_>>(), [("server", "etcd")]);
    }
}
