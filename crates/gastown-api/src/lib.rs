//! Custom resource types of `gastown.gastown.io/v1alpha1`: what a person may write, what `kubectl
//! get` shows.
//!
//! The schema that the API server enforces is made from these types ([`crds`]); its rules are CEL,
//! so that there is no webhook to run or to lose. The Rust types are as lenient as they can be:
//! durations, URLs and branches are strings here, read by `gastown-types` and [`duration`] where
//! they are used, so that an object stored before a rule existed can still be read. There is no
//! Kubernetes client in the crate's dependencies.

// Clippy takes the columns of one `#[kube]` for repetitions of each other.
#![allow(clippy::duplicated_attributes)]

pub mod admission;
mod bead_store;
pub mod conditions;
mod convoy;
mod crd;
pub mod duration;
mod escalation;
#[cfg(test)]
mod fixtures;
mod gate_run;
mod merge_request;
pub mod names;
mod pod;
mod polecat;
mod polecat_pod;
mod polecat_status;
mod polecat_template;
pub mod rbac;
mod refinery;
mod rig;
mod schema;
pub mod schema_number;
mod shared;
mod values;
mod witness;

pub use bead_store::{
    BeadBackend, BeadGit, BeadHttp, BeadStore, BeadStorePhase, BeadStoreSpec, BeadStoreStatus,
    BeadStoreTemplate, WritePolicy,
};
pub use convoy::{
    Convoy, ConvoyBead, ConvoyBeadPhase, ConvoyPhase, ConvoySpec, ConvoyStatus, FailurePolicy,
};
pub use crd::crds;
pub use escalation::{
    Acknowledgement, Closing, Delivery, DeliveryState, Escalation, EscalationPhase, EscalationSpec,
    EscalationStatus, RelatedObject, Severity,
};
pub use gate_run::{
    GateRun, GateRunMember, GateRunPhase, GateRunPurpose, GateRunSpec, GateRunStatus,
};
pub use merge_request::{
    MergeAttempt, MergePhase, MergeRequest, MergeRequestSpec, MergeRequestStatus, PolecatReference,
    Rejection,
};
pub use pod::{PodVolume, ProjectedSource, ProjectedVolume};
pub use polecat::{
    AgentConfig, AgentKind, Budget, DesiredState, ExecutionMode, ModelProvider, Polecat,
    PolecatSpec, Provider,
};
pub use polecat_pod::{KubernetesSpec, PolecatPod, StrictHostKeyChecking};
pub use polecat_status::{Activity, Outcome, PolecatPhase, PolecatStatus, SavedWork, Usage};
pub use polecat_template::{AgentTemplate, KubernetesTemplate, PolecatTemplate};
pub use refinery::{
    GateTemplate, MergesSummary, Refinery, RefineryPhase, RefinerySpec, RefineryStatus,
    RefineryTemplate,
};
pub use rig::{PolecatCounts, Rig, RigPhase, RigSettings, RigSpec, RigStatus};
pub use shared::{CaConfigMapRef, JsonObject, ObjectName, SecretKeyRef};
pub use witness::{
    Channel, EmailChannel, MailTls, PolecatsSummary, Route, WebhookChannel, Witness, WitnessPhase,
    WitnessSpec, WitnessStatus, WitnessTemplate,
};
