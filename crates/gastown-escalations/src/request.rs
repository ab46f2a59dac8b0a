//! One request to witness-ctl.

use std::time::Duration;

use gastown_proto::v1::witness_client::WitnessClient;
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use gastown_runtime::grpc::{self, Remote};

/// How long one request may take; after that it counts as not accepted.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What witness-ctl is asked to do with an Escalation.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Open it, or raise it once more: a person is needed.
    Raise(RaiseRequest),
    /// Close it: its cause is gone.
    Settle(SettleRequest),
}

impl Request {
    /// The rig that it is about.
    pub(crate) fn rig(&self) -> &str {
        match self {
            Self::Raise(request) => &request.rig,
            Self::Settle(request) => &request.rig,
        }
    }
}

/// Sends a request to witness-ctl and waits for the answer; sending it again changes nothing there.
/// The error is the reason why witness-ctl did not accept it.
pub async fn send(witness: &Remote, request: &Request) -> Result<(), String> {
    let channel = witness.channel(request.rig()).map_err(|e| e.to_string())?;
    let answer = grpc::retry(2, || {
        let mut client = WitnessClient::new(channel.clone());
        async move {
            match request {
                Request::Raise(request) => client.raise(request.clone()).await.map(|_| ()),
                Request::Settle(request) => client.settle(request.clone()).await.map(|_| ()),
            }
        }
    });
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}
