//! Tells witness-ctl that a person is needed, or not any more.

use std::time::Duration;

use gastown_core::polecat::{AlarmCall, AlarmInputs, Snapshot, tame};
use gastown_proto::v1::witness_client::WitnessClient;
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use gastown_runtime::grpc;
use tonic::Status;

use crate::act::Error;
use crate::context::Context;

/// A call to witness-ctl ends within this time.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Tells; the same again changes nothing.
pub async fn tell(cx: &Context, s: &Snapshot, inputs: &AlarmInputs) -> Result<(), Error> {
    let fail = |message: String| Error::Alarm { cause: inputs.cause.clone(), message };
    let Some(witness) = &cx.alarms else { return Ok(()) };
    let channel = witness.channel().map_err(|e| fail(e.to_string()))?;
    let call = grpc::retry(2, || {
        let mut client = WitnessClient::new(channel.clone());
        async move {
            match &inputs.call {
                AlarmCall::Raise { spent, summary, details } => client.raise(raise(s, inputs, *spent, summary, details)).await.map(|_| ()),
                AlarmCall::Settle { why } => {
                    let (namespace, cause) = (s.namespace.clone(), inputs.cause.clone());
                    client.settle(SettleRequest { namespace, cause, why: why.clone() }).await.map(|_| ())
                }
            }
        }
    });
    let said = |status: Status| fail(format!("{:?}: {}", status.code(), tame(status.message())));
    tokio::time::timeout(DEADLINE, call).await.map_err(|_| fail("no answer in time".to_owned()))?.map_err(said)
}

fn raise(s: &Snapshot, inputs: &AlarmInputs, spent: bool, summary: &str, details: &str) -> RaiseRequest {
    RaiseRequest {
        namespace: s.namespace.clone(),
        rig: inputs.rig.clone(),
        severity: if spent { "high" } else { "medium" }.to_owned(),
        cause: inputs.cause.clone(),
        summary: summary.to_owned(),
        details: details.to_owned(),
        source: "polecat-ctl".to_owned(),
        related_kind: "Polecat".to_owned(),
        related_namespace: s.namespace.clone(),
        related_name: s.name.clone(),
    }
}
