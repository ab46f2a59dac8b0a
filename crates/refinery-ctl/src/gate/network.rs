//! The network policy of a Refinery's gates. Pure.

use gastown_api::Refinery;
use gastown_api::names::label;
use gastown_runtime::apply;
use gastown_runtime::network::{self, GIT_PORT};
use gastown_types::digest::short_digest;
use gastown_types::slug;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::labels;
use crate::args::GateSettings;

/// The name of the policy of a Refinery's gates.
pub(crate) fn policy_name(refinery: &Refinery) -> String {
    let name = refinery.name_any();
    format!("gastown-gates-{}-{}", slug(&name, 39), short_digest(&[&name], 8))
}

/// The policy of a Refinery's gates: they reach the candidate's server, the cluster's DNS and what the
/// Refinery allows. `None` where the installation has no policies.
pub(crate) fn policy(refinery: &Refinery, settings: &GateSettings) -> Option<NetworkPolicy> {
    if !settings.network.network_policies {
        return None;
    }
    let mut pods = labels(refinery);
    // A gate is selected by what admission policies keep to us, and by its Refinery.
    pods.remove(label::RIG);
    let metadata = ObjectMeta {
        name: Some(policy_name(refinery)),
        namespace: refinery.namespace(),
        labels: Some(labels(refinery)),
        owner_references: Some(apply::owner(refinery).into_iter().collect()),
        ..ObjectMeta::default()
    };
    let allowed = refinery.spec.gate_template.iter().flat_map(|template| &template.egress);
    let git = network::to_controller(&settings.release, "refinery-ctl", GIT_PORT);
    let egress = settings.network.dns_egress.0.iter().chain([&git]).chain(allowed).cloned();
    let pods = LabelSelector { match_labels: Some(pods), match_expressions: None };
    Some(network::policy(metadata, pods, egress.collect()))
}
