//! Why a reconcile or a request failed.

use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};
use kube::{Resource, ResourceExt as _};

/// The error of a reconcile, and of a request to raise or settle an Escalation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("writing the status of {0}")]
    Report(String, #[source] apply::Error),
    #[error("recording the deliveries of {0}")]
    Record(String, #[source] apply::Error),
    #[error("deleting {0}, which was closed a week ago")]
    Delete(String, #[source] apply::Error),
    #[error("{verb} the Escalation of cause {cause}")]
    Escalation {
        verb: &'static str,
        cause: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("annotating the Escalation of cause {0}")]
    Annotate(String, #[source] apply::Error),
    #[error("the Escalation of cause {0} was changed by others at each attempt")]
    Contended(String),
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Report(_, source)
            | Self::Record(_, source)
            | Self::Delete(_, source)
            | Self::Annotate(_, source) => source.class(),
            Self::Escalation { source, .. } => Class::of(source),
            Self::Contended(_) => Class::Conflict,
        }
    }
}

/// `kind namespace/name`, for an error's text.
pub(crate) fn object_name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let kind = K::kind(&()).to_lowercase();
    format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
