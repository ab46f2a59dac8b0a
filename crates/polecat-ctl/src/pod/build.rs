//! The pod as a whole.

use gastown_api::names::finalizer;
use gastown_core::polecat::{PodInputs, Snapshot};
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::defaults::PodDefaults;
use super::metadata::{pod_annotations, pod_labels};
use super::parts::Build;
use super::prompt_place::Prompt;
use super::{claude, init, security, sync, volumes};

/// How long a pod that is evicted or deleted may take to save its work, in seconds.
const GRACE_SECONDS: i64 = 600;

/// The pod of an attempt.
pub(crate) fn build(
    polecat: &Snapshot,
    inputs: &PodInputs,
    defaults: &PodDefaults,
    owner: OwnerReference,
    prompt: &Prompt,
) -> Pod {
    let b = Build { polecat, inputs, defaults, prompt };
    Pod {
        metadata: ObjectMeta {
            name: Some(inputs.name.clone()),
            namespace: Some(polecat.namespace.clone()),
            labels: Some(pod_labels(&polecat.name, inputs)),
            annotations: Some(pod_annotations(inputs, prompt)),
            finalizers: Some(vec![finalizer::OUTCOME.to_owned()]),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec(&b)),
        status: None,
    }
}

fn spec(b: &Build) -> PodSpec {
    let settings = &b.inputs.spec.pod;
    let secret = |name: &String| LocalObjectReference { name: name.clone() };
    PodSpec {
        init_containers: Some(vec![init::container(b), sync::container(b)]),
        containers: vec![claude::container(b)],
        volumes: Some(volumes::all(b)),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        // Named, since the sidecar's projected token needs it: without an admission plugin that
        // fills it in, the pod would be refused.
        service_account_name: Some(
            settings.service_account.clone().unwrap_or_else(|| "default".to_owned()),
        ),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(security::pod(b.defaults)),
        image_pull_secrets: (!settings.pull_secrets.is_empty())
            .then(|| settings.pull_secrets.iter().map(secret).collect()),
        node_selector: (!settings.node_selector.is_empty()).then(|| settings.node_selector.clone()),
        tolerations: (!settings.tolerations.is_empty()).then(|| settings.tolerations.clone()),
        affinity: settings.affinity.clone(),
        priority_class_name: settings.priority_class.clone(),
        runtime_class_name: settings.runtime_class.clone(),
        ..PodSpec::default()
    }
}
