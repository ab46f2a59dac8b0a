//! The pod of an attempt: facts in, object out. `docs/contracts.md` has the table of volumes and
//! variables.

mod claude;
mod init;
pub mod prompt;
mod security;
mod sync;
mod volumes;

use std::collections::BTreeMap;

use gastown_api::names::{annotation, finalizer, label};
use gastown_core::polecat::{PodInputs, Snapshot};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, LocalObjectReference, Pod, PodSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// On a pod: the hash of the spec that it was made from. A later spec differs, and re-arms.
pub const ASKED: &str = "gastown.io/asked";

/// The init container.
pub const GIT_INIT: &str = "git-init";
/// The sidecar.
pub const GIT_SYNC: &str = "git-sync";
/// The agent's container.
pub const CLAUDE: &str = "claude";

/// How long a pod that is evicted or deleted may take to save its work, in seconds.
const GRACE_SECONDS: i64 = 600;

/// What the installation decides about pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Of `git-init` and `git-sync`.
    pub git: String,
    /// Of `claude` when the Polecat names none.
    pub agent: String,
    /// When these two are pulled; the API server's default when absent.
    pub pull: Option<String>,
    /// Run as 65532; false where the platform gives the ids (OpenShift).
    pub fixed_ids: bool,
    /// Who is told what agents do.
    pub witness: Option<Witness>,
}

/// Where the sidecar finds witness-ctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// `https://host:port`; the host is a name in its certificate.
    pub endpoint: String,
    /// The certificate of its authority, PEM: the pod may be in any namespace, and a Secret could
    /// not follow it.
    pub ca: String,
}

/// What a builder looks at.
struct Build<'a> {
    polecat: &'a Snapshot,
    inputs: &'a PodInputs,
    images: &'a Images,
}

/// The pod.
pub fn build(
    polecat: &Snapshot,
    inputs: &PodInputs,
    images: &Images,
    owner: OwnerReference,
) -> Pod {
    let b = Build { polecat, inputs, images };
    let settings = &inputs.spec.pod;
    Pod {
        metadata: ObjectMeta {
            name: Some(inputs.name.clone()),
            namespace: Some(polecat.namespace.clone()),
            labels: Some(labels(polecat, inputs)),
            annotations: Some(BTreeMap::from([(ASKED.to_owned(), inputs.spec.hash.clone())])),
            finalizers: Some(vec![finalizer::OUTCOME.to_owned()]),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            init_containers: Some(vec![init::container(&b), sync::container(&b)]),
            containers: vec![claude::container(&b)],
            volumes: Some(volumes::all(&b)),
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            // Said, since the sidecar's projected token is of it: without an admission that fills
            // it in the pod would be refused.
            service_account_name: Some("default".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(security::pod(images)),
            image_pull_secrets: (!settings.pull_secrets.is_empty()).then(|| {
                settings
                    .pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect()
            }),
            node_selector: (!settings.node_selector.is_empty())
                .then(|| settings.node_selector.clone()),
            tolerations: (!settings.tolerations.is_empty()).then(|| settings.tolerations.clone()),
            affinity: settings.affinity.clone(),
            priority_class_name: settings.priority_class.clone(),
            runtime_class_name: settings.runtime_class.clone(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn labels(polecat: &Snapshot, inputs: &PodInputs) -> BTreeMap<String, String> {
    let mut labels = wanted_labels(&polecat.name, &inputs.spec.rig, inputs.spec.bead.as_deref());
    labels.insert(label::ATTEMPT.to_owned(), inputs.attempt.to_string());
    labels
}

/// The labels that a Polecat and its pods carry; what is no label value is left out.
pub fn wanted_labels(polecat: &str, rig: &str, bead: Option<&str>) -> BTreeMap<String, String> {
    [(label::POLECAT, Some(polecat)), (label::RIG, Some(rig)), (label::BEAD, bead)]
        .into_iter()
        .filter_map(|(key, value)| {
            value.filter(|v| is_label_value(v)).map(|v| (key.to_owned(), v.to_owned()))
        })
        .collect()
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A variable. The kubelet would expand `$(NAME)` in it; doubled dollars are what it turns back
/// into one.
fn var(name: &str, value: impl AsRef<str>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(literal(value.as_ref())), ..EnvVar::default() }
}

fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// The variables that all three containers have.
fn common(b: &Build) -> Vec<EnvVar> {
    vec![
        var("GT_POLECAT", &b.polecat.name),
        var("GT_RIG", &b.inputs.spec.rig),
        var("GASTOWN_NAMESPACE", &b.polecat.namespace),
        var("GASTOWN_ATTEMPT", b.inputs.attempt.to_string()),
        var("GASTOWN_TARGET_BRANCH", b.inputs.spec.target.as_str()),
        var("GASTOWN_WORK_BRANCH", b.inputs.spec.work.as_str()),
    ]
}

/// The variables that the two containers with git credentials have besides.
fn carrying(b: &Build) -> Vec<EnvVar> {
    let mut vars = common(b);
    vars.extend([
        var("GASTOWN_REPOSITORY", b.inputs.spec.repository.as_str()),
        var("GASTOWN_RESUME", b.inputs.resume.to_string()),
        var("HOME", "/gastown/private/home"),
        var("TMPDIR", "/gastown/private/tmp"),
    ]);
    vars
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect()
}

fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(quantities(requests)),
        limits: Some(quantities(limits)),
        ..ResourceRequirements::default()
    }
}

/// What every container has.
fn container(name: &str, image: &str, images: &Images) -> Container {
    let ours = image == images.git || image == images.agent;
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: images.pull.clone().filter(|_| ours),
        security_context: Some(security::container(images)),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        // never the log's end: a record is a record, or there is none
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

/// The value of `gastown.io/drain` on a pod.
pub fn drain(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(annotation::DRAIN)
}

#[cfg(test)]
mod tests;
