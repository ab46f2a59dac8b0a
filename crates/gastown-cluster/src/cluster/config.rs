//! The configuration files of a node, and its addresses. Pure.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The node's name.
pub const NODE: &str = "gastown";
/// The bridge that pods are plugged into.
pub const BRIDGE: &str = "gastown0";
/// The bridge's address, which is the node's. All ranges are of 198.18.0.0/15, which RFC 2544 keeps
/// off the internet.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The addresses of pods.
pub const POD_RANGE: &str = "198.18.0.0/24";
/// The addresses of Services.
pub const SERVICE_RANGE: &str = "198.19.0.0/24";
/// The first address of the Service range: the API server's, inside the cluster.
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The cluster's name server.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
/// The image of a pod's sandbox.
pub const PAUSE_IMAGE: &str = "ghcr.io/gastown-operator/pause:1";
/// Our own table in the packet filter.
pub const TABLE: &str = "gastown";

/// The folders of one cluster.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The cluster's folder.
    pub dir: PathBuf,
    /// The folder of the binaries.
    pub bin: PathBuf,
}

impl Paths {
    /// Certificates, keys and the kubeconfigs of the parts.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// containerd's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    fn shown(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// containerd's configuration, format 3. `snapshotter` is `overlayfs`, or `native` where overlays
/// cannot be stacked; `runc` is the path of that program.
pub fn containerd(paths: &Paths, snapshotter: &str, runc: &Path) -> String {
    let (root, state, net, socket) =
        (paths.shown("containerd"), paths.shown("state"), paths.shown("cni"), paths.socket());
    let bin = paths.bin.display();
    format!(
        r#"version = 3
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{socket}"

[plugins."io.containerd.nri.v1.nri"]
disable = true

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE a lower score than our own cannot be set, and every sandbox would fail.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{bin}"]
conf_dir = "{net}"
"#,
        socket = socket.display(),
        runc = runc.display()
    )
}

/// The pod network: every pod on the bridge, an address of the pod range, the node as gateway.
pub fn network(paths: &Paths) -> String {
    let bridge = json!({
        "type": "bridge", "bridge": BRIDGE, "isGateway": true, "hairpinMode": true,
        "ipam": {
            "type": "host-local", "dataDir": paths.shown("addresses"),
            "ranges": [[{"subnet": POD_RANGE, "gateway": NODE_ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    // Beside an address of its own a pod would have a link-local one of IPv6, for which no network policy
    // is enforced.
    let no_ipv6 = json!({"type": "tuning", "sysctl": {"net.ipv6.conf.IFNAME.disable_ipv6": "1"}});
    let ports =
        json!({"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}});
    pretty(&json!({"cniVersion": "1.0.0", "name": TABLE, "plugins": [bridge, no_ipv6, ports]}))
}

/// The kubelet's configuration. Images cannot be pulled again, so none is ever collected.
pub fn kubelet(paths: &Paths, resolv_conf: &Path) -> String {
    let pki = |name: &str| paths.pki().join(name).display().to_string();
    pretty(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": pki("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet-serving.crt"),
        "tlsPrivateKeyFile": pki("kubelet-serving.key"),
        "containerRuntimeEndpoint": format!("unix://{}", paths.socket().display()),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        // kube-proxy works with nftables; nobody needs the kubelet's chains of iptables.
        "makeIPTablesUtilChains": false,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": resolv_conf,
        "podLogsDir": paths.shown("pod-logs"),
        "volumePluginDir": paths.shown("volume-plugins"),
        "maxPods": 110,
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%", "imagefs.inodesFree": "1%",
        },
    }))
}

/// kube-proxy's configuration. Everything through a Service is masqueraded: an answer from the same
/// bridge then comes back through the node, whatever the host's setting for filtering bridged packets.
pub fn proxy(paths: &Paths, health_port: u16, metrics_port: u16) -> String {
    pretty(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": NODE,
        "clusterCIDR": POD_RANGE,
        "clientConnection": {"kubeconfig": paths.pki().join("kube-proxy.kubeconfig")},
        "healthzBindAddress": format!("127.0.0.1:{health_port}"),
        "metricsBindAddress": format!("127.0.0.1:{metrics_port}"),
        "nodePortAddresses": [format!("{NODE_ADDRESS}/32")],
        "nftables": {"masqueradeAll": true, "syncPeriod": "30s", "minSyncPeriod": "100ms"},
        // Zero leaves the host's own settings alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }))
}

/// The rules that let pods reach what lies outside, under the host's address.
pub fn outward() -> String {
    format!(
        "table ip {TABLE} {{\n  chain outward {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
         ip saddr {POD_RANGE} ip daddr != 198.18.0.0/15 masquerade\n  }}\n}}\n"
    )
}

/// The file with the name servers of the host for pods and CoreDNS: the usual one, unless it names a
/// stub on loopback, which a pod cannot reach; systemd-resolved keeps the real ones elsewhere.
pub fn resolv_conf(read: impl Fn(&Path) -> Option<String>) -> PathBuf {
    let usual = PathBuf::from("/etc/resolv.conf");
    let resolved = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let on_loopback = read(&usual).is_some_and(|text| name_servers(&text).is_empty());
    if on_loopback && read(&resolved).is_some_and(|text| !name_servers(&text).is_empty()) {
        resolved
    } else {
        usual
    }
}

/// The name servers of a `resolv.conf` that a pod can reach.
pub fn name_servers(resolv_conf: &str) -> Vec<String> {
    let words = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = words
        .map(str::trim)
        .filter_map(|word| word.split('%').next()?.parse::<std::net::IpAddr>().ok());
    servers.filter(|server| !server.is_loopback()).map(|server| server.to_string()).collect()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Paths {
        Paths { dir: "/d".into(), bin: "/b".into() }
    }

    #[test]
    fn containerd_runs_the_machines_runc_without_lowering_scores() {
        let text = containerd(&paths(), "overlayfs", Path::new("/usr/sbin/runc"));
        assert!(text.contains("BinaryName = \"/usr/sbin/runc\""));
        assert!(text.contains("restrict_oom_score_adj = true"));
        assert!(text.contains("address = \"/d/containerd.sock\""));
    }

    #[test]
    fn the_kubelet_listens_on_the_bridge_alone_and_trusts_the_api_server_alone() {
        let config: Value =
            serde_json::from_str(&kubelet(&paths(), Path::new("/etc/resolv.conf"))).unwrap();
        assert_eq!(config["address"], "198.18.0.1");
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(config["authorization"]["mode"], "Webhook");
    }

    #[test]
    fn a_stub_resolver_is_passed_over_for_the_real_one() {
        let stub = |path: &Path| {
            Some(
                if path.starts_with("/etc") {
                    "nameserver 127.0.0.53\n"
                } else {
                    "nameserver 192.0.2.1\n"
                }
                .to_owned(),
            )
        };
        assert_eq!(resolv_conf(stub), Path::new("/run/systemd/resolve/resolv.conf"));
        let plain =
            |path: &Path| path.starts_with("/etc").then(|| "nameserver 192.0.2.7\n".to_owned());
        assert_eq!(resolv_conf(plain), Path::new("/etc/resolv.conf"));
    }

    #[test]
    fn name_servers_are_those_that_pods_reach() {
        let text = "# x\nsearch a\nnameserver 127.0.0.1\n nameserver 192.0.2.1 \nnameserver fe80::1%eth0\nnameserver nonsense\n";
        assert_eq!(name_servers(text), ["192.0.2.1", "fe80::1"]);
    }
}
