//! The network policies of the pods that a controller makes: their flags, and what those of agents
//! and gates have in common.
//!
//! A policy allows what it lists, and nothing else in either direction. Policies add up: who wants to
//! allow more in a namespace writes another one there that selects the same pods.

use std::str::FromStr;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};

use crate::apply;

/// The port of a controller's gRPC server in the chart.
pub const GRPC_PORT: i32 = 9443;
/// The port of refinery-ctl's git endpoint in the chart.
pub const GIT_PORT: i32 = 9418;

/// The flags of the network policies.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub struct NetworkArgs {
    /// Write a NetworkPolicy for the pods that this controller makes, and start none without it
    #[arg(long, env = "GASTOWN_NETWORK_POLICIES")]
    pub network_policies: bool,
    /// How these pods reach the cluster's DNS: a NetworkPolicy's egress rules, as JSON
    #[arg(long, env = "GASTOWN_DNS_EGRESS", default_value = "[]")]
    pub dns_egress: EgressRules,
}

/// Egress rules of a NetworkPolicy, as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EgressRules(pub Vec<NetworkPolicyEgressRule>);

impl FromStr for EgressRules {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An empty variable is an unset one.
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map(Self)
    }
}

/// The policy of the pods that `pods` selects: they reach what `egress` lists, and nobody reaches
/// them.
pub fn policy(
    metadata: ObjectMeta,
    pods: LabelSelector,
    egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    let spec = NetworkPolicySpec {
        pod_selector: Some(pods),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        egress: Some(egress),
        ingress: Some(Vec::new()),
    };
    NetworkPolicy { metadata, spec: Some(spec) }
}

/// Allows a port of a controller of the release in `namespace`.
pub fn to_controller(namespace: &str, name: &str, port: i32) -> NetworkPolicyEgressRule {
    let with = |key: &str, value: &str| LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        match_expressions: None,
    };
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(with("kubernetes.io/metadata.name", namespace)),
        pod_selector: Some(with("app.kubernetes.io/name", name)),
        ip_block: None,
    };
    let port = NetworkPolicyPort {
        protocol: Some("TCP".to_owned()),
        port: Some(IntOrString::Int(port)),
        end_port: None,
    };
    NetworkPolicyEgressRule { ports: Some(vec![port]), to: Some(vec![peer]) }
}

/// Brings a policy to what is wanted: applies it where `present`, from the cache, differs, and deletes
/// it where none is wanted. Returns whether something was written.
pub async fn ensure(
    client: Client,
    manager: &str,
    present: Option<&NetworkPolicy>,
    wanted: Option<&NetworkPolicy>,
) -> Result<bool, apply::Error> {
    let api = |policy: &NetworkPolicy| -> Api<NetworkPolicy> {
        Api::namespaced(client.clone(), &policy.namespace().unwrap_or_default())
    };
    match (present, wanted) {
        (_, Some(wanted)) => apply::child(&api(wanted), manager, present, wanted).await,
        (Some(present), None) => {
            apply::delete(&api(present), present).await?;
            Ok(true)
        }
        (None, None) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_json_and_an_empty_variable_has_none() {
        let rules: EgressRules =
            r#"[{"ports": [{"protocol": "UDP", "port": 53}]}]"#.parse().unwrap();
        let port = rules.0[0].ports.as_ref().unwrap()[0].port.clone();
        assert_eq!(port, Some(IntOrString::Int(53)));
        assert_eq!(" ".parse::<EgressRules>().unwrap(), EgressRules::default());
        assert!("{}".parse::<EgressRules>().is_err());
    }

    #[test]
    fn a_policy_is_about_both_directions_and_lets_nobody_in() {
        let rule = to_controller("gastown-system", "witness-ctl", GRPC_PORT);
        let spec =
            policy(ObjectMeta::default(), LabelSelector::default(), vec![rule]).spec.unwrap();
        assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
        assert_eq!((spec.ingress.unwrap().len(), spec.egress.unwrap().len()), (0, 1));
    }
}
