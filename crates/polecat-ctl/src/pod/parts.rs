//! What several containers have in common.

use std::collections::BTreeMap;

use gastown_core::polecat::{PodInputs, Snapshot};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::defaults::PodDefaults;
use super::metadata::WORK_BRANCH;
use super::prompt_place::Prompt;
use super::security;

/// The directory for copies of git credentials.
pub(super) const KEYS_DIR: &str = "/gastown/keys";

/// What a pod is built from.
pub(super) struct Build<'a> {
    pub polecat: &'a Snapshot,
    pub inputs: &'a PodInputs,
    pub defaults: &'a PodDefaults,
    pub prompt: &'a Prompt,
}

/// A variable whose value the kubelet does not expand.
pub(super) fn var(name: &str, value: impl AsRef<str>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(literal(value.as_ref())), ..EnvVar::default() }
}

/// A variable with a field of the pod.
fn of_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), api_version: None };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// A text in which the kubelet expands nothing: it would expand `$(NAME)`, and turns a doubled
/// dollar back into one.
pub(super) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// The variables of all three containers.
pub(super) fn common_env(b: &Build) -> Vec<EnvVar> {
    vec![
        var("GT_POLECAT", &b.polecat.name),
        var("GT_RIG", &b.inputs.spec.rig),
        var("GASTOWN_NAMESPACE", &b.polecat.namespace),
        var("GASTOWN_ATTEMPT", b.inputs.attempt.to_string()),
        var("GASTOWN_TARGET_BRANCH", b.inputs.spec.target.as_str()),
        var(WORK_BRANCH, b.inputs.spec.work.as_str()),
    ]
}

/// The variables of the two containers with git credentials.
pub(super) fn git_env(b: &Build) -> Vec<EnvVar> {
    let mut vars = common_env(b);
    vars.extend([
        var("GASTOWN_REPOSITORY", b.inputs.spec.repository.as_str()),
        var("GASTOWN_RESUME", b.inputs.resume.to_string()),
        of_field("GASTOWN_POD_UID", "metadata.uid"),
        var("HOME", "/gastown/private/home"),
        var("TMPDIR", "/gastown/private/tmp"),
        var("GASTOWN_KEYS_DIR", KEYS_DIR),
    ]);
    vars.extend(proxy_env(b));
    vars
}

/// The variables of the proxy.
pub(super) fn proxy_env(b: &Build) -> impl Iterator<Item = EnvVar> {
    b.defaults.proxy.variables().into_iter().map(|(name, value)| var(name, value))
}

/// Resources, as pairs of a name and a quantity.
pub(super) fn resources(
    requests: &[(&str, &str)],
    limits: &[(&str, &str)],
) -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect()
    };
    ResourceRequirements {
        requests: Some(quantities(requests)),
        limits: Some(quantities(limits)),
        ..ResourceRequirements::default()
    }
}

/// What every container has.
pub(super) fn container(name: &str, image: &str, defaults: &PodDefaults) -> Container {
    let ours = image == defaults.git_image || image == defaults.agent_image;
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: defaults.pull_policy.clone().filter(|_| ours),
        security_context: Some(security::container(defaults)),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        // never the log's end: only a record is a record
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}
