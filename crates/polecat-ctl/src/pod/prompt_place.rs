//! Where the agent's prompt is.

use k8s_openapi::api::core::v1::ConfigMap;

/// The prompt, where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    /// In an annotation of the pod.
    InPod(String),
    /// In a ConfigMap with the pod's name.
    InConfigMap(Box<ConfigMap>),
}
