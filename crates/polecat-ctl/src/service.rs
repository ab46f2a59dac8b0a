//! gRPC. polecat-ctl serves no service of its own; these are the services that it calls.

use std::time::Duration;

use gastown_api::names::reason;
use gastown_core::polecat::{CommentInputs, Snapshot, SubmitInputs, sanitize};
use gastown_escalations::Request;
use gastown_proto::v1::beads_client::BeadsClient;
use gastown_proto::v1::merge_queue_client::MergeQueueClient;
use gastown_proto::v1::{Bead, CommentRequest, GetBeadsRequest, SubmitRequest};
use gastown_runtime::Runtime;
use gastown_runtime::grpc::{self, Remote};
use gastown_runtime::places::Places;
use tokio::time::error::Elapsed;
use tonic::{Code, Status};

use crate::args::Settings;
use crate::error::Error;

/// A request to refinery-ctl or beadstore-ctl is answered, or given up for now, within this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many requests of one kind are made for one rig at a time.
const REQUESTS: usize = 8;

/// The services of the other controllers.
pub(crate) struct Services {
    refinery: Remote,
    beadstore: Remote,
    /// witness-ctl, if there is one.
    witness: Option<Remote>,
    /// Where requests wait, by what they need: the rig's queue, its bead store.
    places: Places,
}

impl Services {
    pub(crate) fn new(runtime: &Runtime, settings: &Settings) -> Self {
        let args = &runtime.args;
        let remote =
            |uri: &str, deadline| Remote::new(uri, &args.tls_dir, &args.token_file, deadline);
        let witness = settings.witness.as_ref();
        Self {
            refinery: remote(&settings.refinery, DEADLINE),
            beadstore: remote(&settings.beadstore, DEADLINE),
            witness: witness.map(|uri| remote(uri, gastown_escalations::DEADLINE)),
            places: Places::new(REQUESTS),
        }
    }

    /// The answer to a request about a rig, unless it takes too long.
    async fn within_deadline<T: Send>(
        &self,
        what: &str,
        rig: &str,
        answer: impl Future<Output = T> + Send,
    ) -> Result<T, Elapsed> {
        let key = format!("{what}/{rig}");
        self.places.call(&key, tokio::time::timeout(DEADLINE, answer)).await
    }

    /// Submits a commit to refinery-ctl; returns the MergeRequest's name. The same again changes
    /// nothing.
    pub(crate) async fn submit(
        &self,
        s: &Snapshot,
        inputs: &SubmitInputs,
    ) -> Result<String, Error> {
        let fail = |reason: &str, message: String| Error::Submit {
            commit: inputs.commit.to_string(),
            reason: reason.to_owned(),
            message,
        };
        let unreachable = |message: String| fail("RefineryUnreachable", message);
        let channel = self.refinery.channel(&inputs.rig).map_err(|e| unreachable(e.to_string()))?;
        let request = SubmitRequest {
            namespace: s.namespace.clone(),
            rig: inputs.rig.clone(),
            polecat: s.name.clone(),
            polecat_uid: s.uid.clone(),
            source_branch: inputs.branch.to_string(),
            commit: inputs.commit.to_string(),
            target_branch: inputs.target.to_string(),
            attempt: inputs.attempt,
            previous: inputs.previous.clone(),
            bead: inputs.bead.clone(),
            priority: u32::from(inputs.priority),
        };
        let answer = grpc::retry(2, || {
            let (mut client, request) = (MergeQueueClient::new(channel.clone()), request.clone());
            async move { client.submit(request).await }
        });
        match self.within_deadline("queue", &inputs.rig, answer).await {
            Err(_) => Err(unreachable(no_answer())),
            Ok(Err(status)) => Err(refusal(&status, &fail)),
            Ok(Ok(answer)) => Ok(answer.into_inner().name),
        }
    }

    /// The bead as the rig's store has it now.
    pub(crate) async fn bead(&self, rig: &str, id: &str) -> Result<Bead, Error> {
        let reason = reason::BEAD_UNAVAILABLE;
        let unavailable = |why: String| Error::Bead {
            reason,
            message: format!("bead {id} cannot be read from beadstore-ctl: {why}"),
        };
        let missing = || Error::Bead {
            reason: reason::BEAD_NOT_FOUND,
            message: format!("the store of rig {rig} has no bead {id}"),
        };
        let channel = self.beadstore.channel(rig).map_err(|e| unavailable(e.to_string()))?;
        let request = GetBeadsRequest { rig: rig.to_owned(), ids: vec![id.to_owned()] };
        let answer = grpc::retry(2, || {
            let (mut client, request) = (BeadsClient::new(channel.clone()), request.clone());
            async move { client.get(request).await }
        });
        match self.within_deadline("beads", rig, answer).await {
            Err(_) => Err(unavailable(no_answer())),
            Ok(Err(status)) if status.code() == Code::NotFound => Err(missing()),
            Ok(Err(status)) => Err(unavailable(store_message(&status))),
            Ok(Ok(answer)) => {
                answer.into_inner().beads.into_iter().find(|bead| bead.id == id).ok_or_else(missing)
            }
        }
    }

    /// Comments on a bead. The same again changes nothing.
    pub(crate) async fn comment(&self, inputs: &CommentInputs) -> Result<(), Error> {
        let fail = |refused: bool, message: String| Error::Comment {
            bead: inputs.bead.clone(),
            refused,
            message,
        };
        let channel =
            self.beadstore.channel(&inputs.rig).map_err(|e| fail(false, e.to_string()))?;
        let request = CommentRequest {
            rig: inputs.rig.clone(),
            id: inputs.bead.clone(),
            author: inputs.author.clone(),
            text: inputs.text.clone(),
        };
        let answer = grpc::retry(2, || {
            let (mut client, request) = (BeadsClient::new(channel.clone()), request.clone());
            async move { client.comment(request).await }
        });
        match self.within_deadline("beads", &inputs.rig, answer).await {
            Err(_) => Err(fail(false, no_answer())),
            Ok(Err(status)) => Err(fail(is_refusal(status.code()), store_message(&status))),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Raises or settles an Escalation at witness-ctl. The same again changes nothing.
    pub(crate) async fn escalate(&self, cause: &str, request: &Request) -> Result<(), Error> {
        let Some(witness) = &self.witness else { return Ok(()) };
        let sent = self.places.call("witness", gastown_escalations::send(witness, request)).await;
        sent.map_err(|message| Error::Escalation {
            cause: cause.to_owned(),
            message: sanitize(&message),
        })
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", DEADLINE.as_secs())
}

/// `Reason: text` where refinery-ctl gives a reason; else why the request did not reach it.
fn refusal(status: &Status, fail: &impl Fn(&str, String) -> Error) -> Error {
    let message = sanitize(status.message());
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument => match message.split_once(':') {
            Some((reason, text)) if is_reason(reason) => fail(reason, text.trim().to_owned()),
            _ => fail("SubmitRefused", message),
        },
        Code::PermissionDenied | Code::Unauthenticated => fail("SubmitForbidden", message),
        code => fail("RefineryUnreachable", format!("{code:?}: {message}")),
    }
}

fn is_reason(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Whether sending a refused request again soon would not help.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// `Reason: text` where beadstore-ctl gives a reason; else why the request did not reach it.
fn store_message(status: &Status) -> String {
    let message = sanitize(status.message());
    match status.code() {
        Code::FailedPrecondition => message,
        code => format!("{code:?}: {message}"),
    }
}
