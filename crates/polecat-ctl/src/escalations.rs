//! The request to witness-ctl for a Polecat's Escalation.
//!
//! `gastown_core::polecat` decides when a Polecat needs a person, and not this file: a deletion
//! waits until the Escalation is settled, so the request is an action of the plan.

use gastown_api::Severity;
use gastown_core::polecat::{EscalationInputs, EscalationRequest, Snapshot};
use gastown_escalations::Request;
use gastown_proto::v1::{RaiseRequest, SettleRequest};

/// The request as it is sent. Pure.
pub(crate) fn request(s: &Snapshot, inputs: &EscalationInputs) -> Request {
    let (namespace, cause) = (s.namespace.clone(), inputs.cause.clone());
    match &inputs.request {
        EscalationRequest::Settle { why } => {
            let (rig, why) = (inputs.rig.clone(), why.clone());
            Request::Settle(SettleRequest { namespace, cause, why, rig })
        }
        EscalationRequest::Raise { spent, summary, details } => Request::Raise(RaiseRequest {
            related_namespace: namespace.clone(),
            namespace,
            rig: inputs.rig.clone(),
            severity: if *spent { Severity::High } else { Severity::Medium }.as_str().to_owned(),
            cause,
            summary: summary.clone(),
            details: details.clone(),
            source: "polecat-ctl".to_owned(),
            related_kind: "Polecat".to_owned(),
            related_name: s.name.clone(),
        }),
    }
}
