//! The network policy of agents' pods: a Rig and a namespace in, object out.

use std::net::IpAddr;
use std::str::FromStr;

use gastown_api::Rig;
use gastown_api::names::label;
use gastown_runtime::apply;
use gastown_runtime::network::{self, EgressRules, GRPC_PORT, NetworkArgs};
use gastown_types::digest::short_digest;
use gastown_types::is_label_value;
use gastown_types::slug;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

/// Addresses of the node and of the cloud's metadata servers, which no installation lets agents reach.
const METADATA: [&str; 4] =
    ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"];

/// The labels of the policies, so that only they are watched. They prove nothing.
pub(crate) const SELECTOR: &str =
    "app.kubernetes.io/component=agents,app.kubernetes.io/managed-by=polecat-ctl";

/// The flags of the network policies of agents' pods.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub struct AgentNetworkArgs {
    /// The flags that gates have too.
    #[command(flatten)]
    pub common: NetworkArgs,
    /// Ranges of addresses that agents do not reach: comma-separated, such as those of pods, Services,
    /// nodes and the API server. Those of metadata servers are never reached
    #[arg(long, env = "GASTOWN_AGENT_EXCEPT", value_delimiter = ',')]
    pub agent_except: Vec<Range>,
    /// What agents reach besides: a NetworkPolicy's egress rules, as JSON
    #[arg(long, env = "GASTOWN_AGENT_EGRESS", default_value = "[]")]
    pub agent_egress: EgressRules,
}

/// A range of addresses, such as 10.0.0.0/8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    text: String,
    is_v4: bool,
}

/// A text that is not a range of addresses.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a range of addresses such as 10.0.0.0/8 or fc00::/7")]
pub struct NotARange(String);

impl FromStr for Range {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.trim().split_once('/');
        let read = |(address, bits): (&str, &str)| {
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            // A range with everything would leave nothing to reach.
            (1..=if address.is_ipv4() { 32 } else { 128 }).contains(&bits).then_some(address)
        };
        let address = parts.and_then(read).ok_or_else(|| NotARange(text.to_owned()))?;
        Ok(Self { text: text.trim().to_owned(), is_v4: address.is_ipv4() })
    }
}

/// The name of the policy of a rig's agents.
pub(crate) fn policy_name(rig: &str) -> String {
    format!("gastown-agents-{}-{}", slug(rig, 39), short_digest(&[rig], 8))
}

/// The policy of agents' pods in a namespace, owned by a rig whose Polecats are there: they reach the
/// cluster's DNS, witness-ctl, other networks over TCP, and what the installation allows. It selects the
/// agents of all rigs, which have the same rules. `release` is the release's namespace. `None` where the
/// installation has no policies.
pub(crate) fn policy(
    rig: &Rig,
    namespace: &str,
    release: &str,
    args: &AgentNetworkArgs,
) -> Option<NetworkPolicy> {
    if !args.common.network_policies {
        return None;
    }
    let name = rig.name_any();
    let metadata = ObjectMeta {
        name: Some(policy_name(&name)),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(&name)),
        owner_references: Some(owner(rig)),
        ..ObjectMeta::default()
    };
    let agents = LabelSelectorRequirement {
        key: label::POLECAT.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    let pods = LabelSelector { match_labels: None, match_expressions: Some(vec![agents]) };
    let ours =
        [network::to_controller(release, "witness-ctl", GRPC_PORT), elsewhere(&args.agent_except)];
    let dns = args.common.dns_egress.0.iter().cloned();
    let egress = dns.chain(ours).chain(args.agent_egress.0.iter().cloned());
    Some(network::policy(metadata, pods, egress.collect()))
}

fn labels(rig: &str) -> std::collections::BTreeMap<String, String> {
    let all = [
        ("app.kubernetes.io/component", Some("agents")),
        (label::MANAGED_BY, Some("polecat-ctl")),
        (label::RIG, is_label_value(rig).then_some(rig)),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
}

/// The rig as controller. It does not wait for the policy's deletion, which would need a permission.
fn owner(rig: &Rig) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    let owner = apply::owner(rig).ok().map(|mut owner| {
        owner.block_owner_deletion = None;
        owner
    });
    owner.into_iter().collect()
}

/// Other networks, over TCP: remotes, models, packages. UDP is left out, and with it DNS servers of
/// others.
fn elsewhere(except: &[Range]) -> NetworkPolicyEgressRule {
    let metadata = METADATA.iter().filter_map(|range| range.parse().ok());
    let except: Vec<Range> = metadata.chain(except.iter().cloned()).collect();
    let peer = |cidr: &str, is_v4: bool| {
        let mut texts: Vec<String> =
            except.iter().filter(|r| r.is_v4 == is_v4).map(|r| r.text.clone()).collect();
        texts.sort();
        texts.dedup();
        NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr: cidr.to_owned(), except: Some(texts) }),
            ..NetworkPolicyPeer::default()
        }
    };
    let tcp =
        NetworkPolicyPort { protocol: Some("TCP".to_owned()), ..NetworkPolicyPort::default() };
    NetworkPolicyEgressRule {
        ports: Some(vec![tcp]),
        to: Some(vec![peer("0.0.0.0/0", true), peer("::/0", false)]),
    }
}

#[cfg(test)]
mod tests {
    use gastown_api::RigSpec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rig(name: &str) -> Rig {
        let mut rig = Rig::new(name, RigSpec::default());
        rig.metadata.uid = Some("uid-rig".into());
        rig
    }

    fn args() -> AgentNetworkArgs {
        AgentNetworkArgs {
            common: NetworkArgs {
                network_policies: true,
                dns_egress: r#"[{"ports": [{"protocol": "UDP", "port": 53}]}]"#.parse().unwrap(),
            },
            agent_except: ["10.0.0.0/8", "fc00::/7"].map(|r| r.parse().unwrap()).into(),
            agent_egress: r#"[{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}]"#.parse().unwrap(),
        }
    }

    #[test]
    fn agents_reach_dns_the_witness_and_other_networks_and_nothing_of_the_cluster() {
        let made = policy(&rig("web"), "team", "gastown-system", &args()).unwrap().spec.unwrap();
        assert_eq!(
            serde_json::to_value(made).unwrap(),
            json!({
                "podSelector": {"matchExpressions": [{"key": "gastown.io/polecat", "operator": "Exists"}]},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [],
                "egress": [
                    {"ports": [{"protocol": "UDP", "port": 53}]},
                    {
                        "ports": [{"protocol": "TCP", "port": 9443}],
                        "to": [{
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gastown-system"}},
                            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "witness-ctl"}},
                        }],
                    },
                    {
                        "ports": [{"protocol": "TCP"}],
                        "to": [
                            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.0.0/16"]}},
                            {"ipBlock": {"cidr": "::/0", "except": [
                                "fc00::/7", "fd00:ec2::254/128", "fd20:ce::254/128", "fe80::/10",
                            ]}},
                        ],
                    },
                    {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]},
                ],
            })
        );
    }

    #[test]
    fn the_rig_owns_the_policy_and_does_not_wait_for_it() {
        let made = policy(&rig("web"), "team", "gastown-system", &args()).unwrap().metadata;
        let owner = &made.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Rig", "uid-rig"));
        assert_eq!(owner.block_owner_deletion, None);
        assert_eq!(made.labels.unwrap()[label::RIG], "web");
    }

    #[test]
    fn rigs_whose_names_are_alike_have_policies_of_their_own() {
        assert_ne!(policy_name("web.a"), policy_name("web-a"));
        let long = policy_name(&"a".repeat(253));
        assert!(long.len() <= 63, "{long}");
    }

    #[test]
    fn there_is_no_policy_where_the_installation_has_none() {
        let without = AgentNetworkArgs { common: NetworkArgs::default(), ..args() };
        assert_eq!(policy(&rig("web"), "team", "gastown-system", &without), None);
    }

    #[test]
    fn the_range_of_everything_and_what_is_not_a_range_are_refused() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/33", "0.0.0.0/0", "::/0", "fc00::/129", "a/8", "10.0.0.0/-1"]
        {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
        assert!(METADATA.iter().all(|range| range.parse::<Range>().is_ok()));
    }

    proptest! {
        #[test]
        fn any_text_is_a_range_or_refused(text in any::<String>()) {
            let _ = text.parse::<Range>();
        }

        #[test]
        fn an_address_with_bits_is_a_range(address in any::<IpAddr>(), bits in 1_u8..=32) {
            let range: Range = format!("{address}/{bits}").parse().unwrap();
            prop_assert_eq!(range.is_v4, address.is_ipv4());
        }
    }
}
