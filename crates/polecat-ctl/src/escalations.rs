//! Tells witness-ctl that a person is needed, or not any more.

use gastown_api::Severity;
use gastown_core::polecat::{AlarmCall, AlarmInputs, Snapshot, tame};
use gastown_escalations::Request;
use gastown_proto::v1::{RaiseRequest, SettleRequest};

use crate::act::Error;
use crate::context::Context;

/// Tells; the same again changes nothing.
pub async fn tell(cx: &Context, s: &Snapshot, inputs: &AlarmInputs) -> Result<(), Error> {
    let Some(witness) = &cx.escalations else { return Ok(()) };
    let told = gastown_escalations::send(witness, &words(s, inputs)).await;
    told.map_err(|message| Error::Alarm { cause: inputs.cause.clone(), message: tame(&message) })
}

fn words(s: &Snapshot, inputs: &AlarmInputs) -> Request {
    let (namespace, cause) = (s.namespace.clone(), inputs.cause.clone());
    match &inputs.call {
        AlarmCall::Settle { why } => {
            Request::Settle(SettleRequest { namespace, cause, why: why.clone() })
        }
        AlarmCall::Raise { spent, summary, details } => Request::Raise(RaiseRequest {
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
