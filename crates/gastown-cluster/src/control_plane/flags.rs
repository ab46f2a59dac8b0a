//! The command lines of the control plane, for a plane of a test and for a cluster alike. Pure.

use std::path::{Path, PathBuf};

/// Where a control plane lives and what it answers to.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Folder of the certificates and the kubeconfig.
    pub pki: PathBuf,
    /// etcd's folder.
    pub data: PathBuf,
    /// The address that the API server binds and advertises.
    pub address: String,
    /// The API server's port.
    pub port: u16,
    /// etcd's port, on loopback.
    pub etcd_port: u16,
    /// The range of Service addresses.
    pub services: String,
    /// What differs when nodes run pods.
    pub kind: Kind,
}

/// What the control plane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tests without nodes: no service-account admission, since nothing mounts a token, and few
    /// controllers.
    Plane,
    /// A cluster as people know it.
    Cluster,
    /// A cluster with nodes that are objects alone; nobody reaches it from another machine.
    FakeNodes,
}

/// The controllers of a plane: owners' children are collected, namespaces go away, Jobs make pods.
const PLANE_CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,job-controller,ttl-after-finished-controller";

impl Layout {
    /// The URL that clients use.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    fn pem(&self, name: &str) -> String {
        shown(&self.pki.join(name))
    }
}

/// etcd, which syncs nothing to disk: nobody mourns this data.
pub fn etcd(layout: &Layout) -> Vec<String> {
    let clients = format!("http://127.0.0.1:{}", layout.etcd_port);
    vec![
        format!("--data-dir={}", shown(&layout.data)),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        "--listen-peer-urls=http://127.0.0.1:0".into(),
        "--unsafe-no-fsync=true".into(),
        "--log-level=warn".into(),
    ]
}

/// The API server, with the defaults of an ordinary cluster: RBAC, audiences of the issuer, all
/// default admission.
pub fn apiserver(layout: &Layout) -> Vec<String> {
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", layout.etcd_port),
        format!("--bind-address={}", layout.address),
        format!("--advertise-address={}", layout.address),
        format!("--secure-port={}", layout.port),
        format!("--tls-cert-file={}", layout.pem("apiserver.crt")),
        format!("--tls-private-key-file={}", layout.pem("apiserver.key")),
        format!("--client-ca-file={}", layout.pem("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", layout.pem("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", layout.pem("service-accounts.key")),
        format!("--service-cluster-ip-range={}", layout.services),
        "--allow-privileged=true".into(),
        // What a crowd costs the server can be looked at where one is measured.
        format!("--profiling={}", layout.kind == Kind::FakeNodes),
    ];
    match layout.kind {
        Kind::Plane => flags.extend([
            "--authorization-mode=RBAC".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
            // Nobody reaches this server through a Service.
            "--endpoint-reconciler-type=none".into(),
        ]),
        Kind::Cluster => flags.extend([
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--kubelet-certificate-authority={}", layout.pem("ca.crt")),
            format!("--kubelet-client-certificate={}", layout.pem("admin.crt")),
            format!("--kubelet-client-key={}", layout.pem("admin.key")),
        ]),
        Kind::FakeNodes => flags
            .extend(["--authorization-mode=RBAC".into(), "--endpoint-reconciler-type=none".into()]),
    }
    flags
}

/// The controller manager; it needs no port, since nobody asks it.
pub fn controller_manager(layout: &Layout) -> Vec<String> {
    let kubeconfig = layout.pem("admin.kubeconfig");
    let mut flags = vec![
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--use-service-account-credentials=false".into(),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
        "--profiling=false".into(),
    ];
    match layout.kind {
        Kind::Plane => flags.push(format!("--controllers={PLANE_CONTROLLERS}")),
        Kind::Cluster | Kind::FakeNodes => flags.extend([
            format!("--root-ca-file={}", layout.pem("ca.crt")),
            format!("--service-account-private-key-file={}", layout.pem("service-accounts.key")),
        ]),
    }
    flags
}

/// The scheduler, which needs no port either. Its own limit of 50 requests a second would be what a
/// crowd of pods waits for.
pub fn scheduler(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", shown(kubeconfig)),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ]
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kind: Kind) -> Layout {
        Layout {
            pki: "/d/pki".into(),
            data: "/d/etcd".into(),
            address: "198.18.0.1".into(),
            port: 6443,
            etcd_port: 2379,
            services: "198.19.0.0/24".into(),
            kind,
        }
    }

    #[test]
    fn both_kinds_refuse_what_rbac_does_not_allow() {
        for kind in [Kind::Plane, Kind::Cluster, Kind::FakeNodes] {
            let flags = apiserver(&layout(kind));
            let mode = flags.iter().find(|f| f.starts_with("--authorization-mode=")).unwrap();
            assert!(mode.contains("RBAC") && !mode.contains("AlwaysAllow"), "{mode}");
        }
    }

    #[test]
    fn only_a_plane_does_without_service_account_admission() {
        let disables = |kind| {
            apiserver(&layout(kind)).iter().any(|f| f.starts_with("--disable-admission-plugins"))
        };
        assert!(disables(Kind::Plane));
        assert!(!disables(Kind::Cluster) && !disables(Kind::FakeNodes));
    }

    #[test]
    fn an_address_is_bound_and_advertised_and_no_other() {
        let flags = apiserver(&layout(Kind::Cluster));
        assert!(flags.contains(&"--bind-address=198.18.0.1".to_owned()));
        assert!(!flags.iter().any(|f| f.contains("0.0.0.0")));
        assert_eq!(layout(Kind::Cluster).server(), "https://198.18.0.1:6443");
    }
}
