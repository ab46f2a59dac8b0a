//! Names, labels, annotations and owners of pods.

use std::collections::BTreeMap;

use gastown_api::names::{annotation, label};
use gastown_core::polecat::PodInputs;

use super::prompt_place::Prompt;

/// On a pod: the hash of the spec that it was made from. A Polecat whose spec has another one gets
/// a new budget of attempts.
pub(crate) const ASKED: &str = "gastown.io/asked";

/// The name of the init container.
pub(crate) const GIT_INIT: &str = "git-init";
/// The name of the sidecar.
pub(crate) const GIT_SYNC: &str = "git-sync";
/// The name of the agent's container.
pub(crate) const CLAUDE: &str = "claude";

/// The variable with the work branch.
pub(crate) const WORK_BRANCH: &str = "GASTOWN_WORK_BRANCH";
/// The variable with the longest time of the attempt, in seconds.
pub(crate) const DEADLINE: &str = "GASTOWN_DEADLINE_SECONDS";

/// The labels of a pod and its prompt.
pub(super) fn labels(polecat: &str, inputs: &PodInputs) -> BTreeMap<String, String> {
    let mut labels = label::of_polecat(polecat, &inputs.spec.rig, inputs.spec.bead.as_deref());
    labels.insert(label::ATTEMPT.to_owned(), inputs.attempt.to_string());
    labels
}

/// The labels of a pod: the user's, and ours, which win.
pub(super) fn pod_labels(polecat: &str, inputs: &PodInputs) -> BTreeMap<String, String> {
    let mut all = inputs.spec.pod.labels.clone();
    all.extend(labels(polecat, inputs));
    all
}

/// The annotations of a pod: the user's, and ours, which win. One of the user's that drains a pod
/// would keep its agent from ever starting.
pub(super) fn pod_annotations(inputs: &PodInputs, prompt: &Prompt) -> BTreeMap<String, String> {
    let mut all = inputs.spec.pod.annotations.clone();
    all.retain(|key, _| key != annotation::DRAIN && key != annotation::PROMPT);
    all.insert(ASKED.to_owned(), inputs.spec.hash.clone());
    all.insert(annotation::TRACE_BEGIN.to_owned(), inputs.begin.render());
    if let Prompt::InPod(text) = prompt {
        all.insert(annotation::PROMPT.to_owned(), text.clone());
    }
    all
}
