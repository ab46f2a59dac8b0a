//! Enforcing network policies: kube-router's firewall alone. It keeps rules in the host's iptables and
//! sets of addresses in ipset, which are removed with the bridge.

use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use serde_json::{Value, json};

use super::command::{feed, output, run};
use super::config::{NODE, SERVICE_RANGE};
use super::objects;

/// The program, and the name of its log.
pub const NAME: &str = "kube-router";
/// The user of its kubeconfig.
pub const USER: &str = "system:kube-router";

/// Packets between pods of the bridge pass iptables where this is 1.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// The chain that forwarded packets pass first, once policies are enforced.
const FORWARD: &str = "KUBE-ROUTER-FORWARD";
/// What the names of its chains begin with.
const CHAINS: [&str; 3] = ["KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-"];
/// What the names of its sets begin with.
const SETS: [&str; 2] = ["KUBE-SRC-", "KUBE-DST-"];
/// The set and the chain that are made to find out whether the kernel can.
const PROBE: &str = "gastown-probe";

/// What this kernel lacks, if it cannot enforce policies.
pub async fn lacking() -> Option<String> {
    if !Path::new(BRIDGED).exists() {
        // Where it is a module it is loaded here; a kernel without it fails the next test.
        drop(run("modprobe", &["br_netfilter"]).await);
        if !Path::new(BRIDGED).exists() {
            return Some("the module br_netfilter".to_owned());
        }
    }
    let made = run("ipset", &["create", "-exist", PROBE, "hash:net"]).await;
    let probed = match made {
        Err(error) => Err(error.context("ipset with hash:net")),
        Ok(()) => probe().await.context("iptables with matches of sets and marks"),
    };
    drop(feed("iptables-restore", &["--noflush"], &removed_probe()).await);
    drop(run("ipset", &["destroy", PROBE]).await);
    probed.err().map(|error| format!("{error:#}"))
}

/// Makes a chain with the matches that kube-router uses.
async fn probe() -> Result<()> {
    let rules = format!(
        "*filter\n:{PROBE} - [0:0]\n-A {PROBE} -m physdev --physdev-is-bridged -m comment --comment probe -m set \
         --match-set {PROBE} src -j MARK --set-xmark 0x10000/0x10000\nCOMMIT\n"
    );
    feed("iptables-restore", &["--noflush"], &rules).await
}

fn removed_probe() -> String {
    format!("*filter\n-F {PROBE}\n-X {PROBE}\nCOMMIT\n")
}

/// Has packets between pods pass iptables.
pub fn see_bridged() -> Result<()> {
    std::fs::write(BRIDGED, "1").with_context(|| format!("setting {BRIDGED} to 1"))
}

/// The flags: the firewall alone. Policies of a pod are in place within a moment of its start.
pub fn flags(kubeconfig: &str) -> Vec<String> {
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--hostname-override={NODE}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--run-firewall=true".into(),
        "--run-router=false".into(),
        "--run-service-proxy=false".into(),
        "--enable-cni=false".into(),
        "--health-port=0".into(),
        "--metrics-port=0".into(),
    ]
}

/// Lets the program read what it needs.
pub async fn grant(client: &Client) -> Result<()> {
    objects::apply(client, permissions()).await
}

fn permissions() -> Vec<Value> {
    let read = ["list", "watch"];
    let rules = json!([
        {"apiGroups": [""], "resources": ["services", "endpoints", "pods", "namespaces"], "verbs": read},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": read},
    ]);
    let meta = json!({"name": USER});
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": USER});
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER});
    vec![
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
            "roleRef": role, "subjects": [subject]}),
    ]
}

/// Whether policies are enforced by now.
pub async fn is_at_work() -> bool {
    output("iptables", &["-w", "-S", "FORWARD"]).await.is_ok_and(|rules| rules.contains(FORWARD))
}

/// Removes the chains and the sets.
pub async fn remove() -> Result<()> {
    if let Some(script) = removal(&saved().await) {
        feed("iptables-restore", &["--noflush"], &script).await?;
    }
    for set in sets().await {
        run("ipset", &["destroy", &set]).await?;
    }
    Ok(())
}

/// The chains and the sets that exist.
pub async fn leftovers() -> Vec<String> {
    let saved = saved().await;
    let chains = chains(&saved).map(|chain| format!("iptables chain {chain}"));
    let sets = sets().await.into_iter().map(|set| format!("ipset {set}"));
    chains.chain(sets).collect()
}

/// The filter table; empty where the machine has no iptables.
async fn saved() -> String {
    output("iptables-save", &["-t", "filter"]).await.unwrap_or_default()
}

async fn sets() -> Vec<String> {
    let listed = output("ipset", &["list", "-name"]).await.unwrap_or_default();
    let ours = |name: &&str| SETS.iter().any(|prefix| name.starts_with(prefix));
    listed.lines().filter(ours).map(str::to_owned).collect()
}

fn is_ours(chain: &str) -> bool {
    CHAINS.iter().any(|prefix| chain.starts_with(prefix))
}

/// The chains of a saved table that are kube-router's.
fn chains(saved: &str) -> impl Iterator<Item = &str> {
    let names = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    names.filter(|name| is_ours(name))
}

/// What removes kube-router's chains from a saved table, and the rules of others that lead to them.
fn removal(saved: &str) -> Option<String> {
    let ours: Vec<&str> = chains(saved).collect();
    if ours.is_empty() {
        return None;
    }
    let leads_there = |rule: &&str| {
        let chain = rule.split(' ').next().unwrap_or_default();
        let target = rule.rsplit_once(" -j ").map_or("", |(_, target)| target.trim());
        !is_ours(chain) && is_ours(target)
    };
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A ")).filter(leads_there);
    let rules = rules.map(|rule| format!("-D {rule}\n"));
    let flushed = ours.iter().map(|chain| format!("-F {chain}\n"));
    let gone = ours.iter().map(|chain| format!("-X {chain}\n"));
    let lines: String = rules.chain(flushed).chain(gone).collect();
    Some(format!("*filter\n{lines}COMMIT\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated by iptables-save
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-ABC - [0:0]
-A FORWARD -m comment --comment \"kube-router netpol - TEMCG2JMHZYE7H7T\" -j KUBE-ROUTER-FORWARD
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -m comment --comment \"not -j KUBE-ROUTER-FORWARD\" -j RETURN
-A KUBE-ROUTER-FORWARD -s 198.18.0.2/32 -j KUBE-POD-FW-ABC
COMMIT
";

    #[test]
    fn only_the_chains_of_the_enforcer_go_with_what_leads_to_them() {
        let expected = "*filter
-D FORWARD -m comment --comment \"kube-router netpol - TEMCG2JMHZYE7H7T\" -j KUBE-ROUTER-FORWARD
-F KUBE-ROUTER-FORWARD
-F KUBE-POD-FW-ABC
-X KUBE-ROUTER-FORWARD
-X KUBE-POD-FW-ABC
COMMIT
";
        assert_eq!(removal(SAVED).as_deref(), Some(expected));
        assert_eq!(removal("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"), None);
        assert_eq!(removal(""), None);
    }

    #[test]
    fn only_the_firewall_runs() {
        let flags = flags("/x/kubeconfig");
        let off = flags.iter().filter(|flag| flag.ends_with("=false")).count();
        assert_eq!(off, 3, "{flags:?}");
        assert!(flags.contains(&"--run-firewall=true".to_owned()));
    }

    #[test]
    fn it_reads_and_writes_nothing_at_the_api_server() {
        let rules = permissions()[0]["rules"].clone();
        let verbs =
            rules.as_array().unwrap().iter().flat_map(|rule| rule["verbs"].as_array().unwrap());
        assert!(
            verbs.map(|verb| verb.as_str().unwrap()).all(|v| ["get", "list", "watch"].contains(&v))
        );
    }
}
