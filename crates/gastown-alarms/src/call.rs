//! One word to the witness.

use std::time::Duration;

use gastown_proto::v1::witness_client::WitnessClient;
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use gastown_runtime::grpc::{self, Remote};

/// A word is told, or given up for now, within this time.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// A person is needed.
    Raise(RaiseRequest),
    /// Not any more.
    Settle(SettleRequest),
}

/// Tells it; the same again changes nothing there. The error says why the witness did not take it.
pub async fn call(witness: &Remote, what: &Call) -> Result<(), String> {
    let channel = witness.channel().map_err(|e| e.to_string())?;
    let told = grpc::retry(2, || {
        let mut client = WitnessClient::new(channel.clone());
        async move {
            match what {
                Call::Raise(request) => client.raise(request.clone()).await.map(|_| ()),
                Call::Settle(request) => client.settle(request.clone()).await.map(|_| ()),
            }
        }
    });
    match tokio::time::timeout(DEADLINE, told).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
