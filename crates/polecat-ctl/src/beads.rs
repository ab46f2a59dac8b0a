//! The rig's beads, asked of beadstore-ctl: the text when a pod is made, a comment when a Polecat
//! gives up.

use std::time::Duration;

use gastown_api::Polecat;
use gastown_api::names::reason;
use gastown_core::polecat::{PodInputs, RemarkInputs, tame};
use gastown_proto::v1::beads_client::BeadsClient;
use gastown_proto::v1::{Bead, CommentRequest, GetBeadsRequest};
use gastown_runtime::events::Note;
use gastown_runtime::grpc;
use tonic::{Code, Status};

use crate::act::Error;
use crate::context::Context;

/// A call to beadstore-ctl ends within this time.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no text.
struct Lacks {
    reason: &'static str,
    message: String,
}

/// The bead as the store has it now; nothing where the rig has no store. Who has no other task
/// waits for it, who has goes on without, and an Event says so. A closed bead is not begun again.
pub async fn read(
    cx: &Context,
    polecat: &Polecat,
    inputs: &PodInputs,
) -> Result<Option<Bead>, Error> {
    let rig = &inputs.spec.rig;
    let Some(id) = inputs.spec.bead.as_deref().filter(|_| cx.has_beads(rig)) else {
        return Ok(None);
    };
    let lacks = match get(cx, rig, id).await {
        Ok(bead) if bead.status == "closed" => {
            let why = if bead.close_reason.is_empty() {
                String::new()
            } else {
                format!(" ({})", tame(&bead.close_reason))
            };
            return Err(Error::Bead {
                reason: reason::BEAD_CLOSED,
                message: format!("bead {id} is closed{why}; reopen it to have it begun"),
            });
        }
        Ok(bead) => return Ok(Some(bead)),
        Err(lacks) => lacks,
    };
    if inputs.spec.task.trim().is_empty() {
        return Err(Error::Bead { reason: lacks.reason, message: lacks.message });
    }
    let note = format!(
        "{}; attempt {} goes on with spec.taskDescription alone",
        lacks.message, inputs.attempt
    );
    cx.runtime.events.publish(polecat, Note::warning("Bead", lacks.reason, note));
    Ok(None)
}

async fn get(cx: &Context, rig: &str, id: &str) -> Result<Bead, Lacks> {
    let unavailable = |message: String| Lacks { reason: reason::BEAD_UNAVAILABLE, message };
    let missing = || Lacks {
        reason: reason::BEAD_NOT_FOUND,
        message: format!("the store of rig {rig} has no bead {id}"),
    };
    let channel = cx.beads.channel().map_err(|e| unavailable(e.to_string()))?;
    let request = GetBeadsRequest { rig: rig.to_owned(), ids: vec![id.to_owned()] };
    let call = grpc::retry(2, || {
        let (mut client, request) = (BeadsClient::new(channel.clone()), request.clone());
        async move { client.get(request).await }
    });
    match tokio::time::timeout(DEADLINE, call).await {
        Err(_) => Err(unavailable(format!(
            "bead {id} cannot be read: no answer of beadstore-ctl in time"
        ))),
        Ok(Err(status)) if status.code() == Code::NotFound => Err(missing()),
        Ok(Err(status)) => Err(unavailable(format!("bead {id} cannot be read: {}", said(&status)))),
        Ok(Ok(answer)) => {
            answer.into_inner().beads.into_iter().find(|bead| bead.id == id).ok_or_else(missing)
        }
    }
}

/// Comments; the same again changes nothing.
pub async fn comment(cx: &Context, inputs: &RemarkInputs) -> Result<(), Error> {
    let fail = |refused: bool, message: String| Error::Comment {
        bead: inputs.bead.clone(),
        refused,
        message,
    };
    let channel = cx.beads.channel().map_err(|e| fail(false, e.to_string()))?;
    let request = CommentRequest {
        rig: inputs.rig.clone(),
        id: inputs.bead.clone(),
        author: inputs.author.clone(),
        text: inputs.text.clone(),
    };
    let call = grpc::retry(2, || {
        let (mut client, request) = (BeadsClient::new(channel.clone()), request.clone());
        async move { client.comment(request).await }
    });
    match tokio::time::timeout(DEADLINE, call).await {
        Err(_) => Err(fail(false, "no answer in time".to_owned())),
        Ok(Err(status)) => Err(fail(is_refusal(status.code()), said(&status))),
        Ok(Ok(_)) => Ok(()),
    }
}

/// What asking again soon does not change.
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

/// `Reason: text` where beadstore-ctl gives one; else what kept the call from it.
fn said(status: &Status) -> String {
    let text = tame(status.message());
    match status.code() {
        Code::FailedPrecondition => text,
        code => format!("{code:?}: {text}"),
    }
}
