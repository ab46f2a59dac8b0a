//! The bead's text for a new pod's prompt.

use gastown_api::Polecat;
use gastown_api::names::reason;
use gastown_core::polecat::{PodInputs, sanitize};
use gastown_proto::v1::Bead;
use gastown_runtime::events::Note;

use crate::context::Context;
use crate::error::Error;

/// The bead as the store has it now; none where the rig has no store. Where it cannot be read, a
/// Polecat without another task waits for it, and one with a task starts without it and gets an
/// Event. A closed bead is not begun again.
pub(crate) async fn read(
    ctx: &Context,
    polecat: &Polecat,
    inputs: &PodInputs,
) -> Result<Option<Bead>, Error> {
    let rig = &inputs.spec.rig;
    let Some(id) = inputs.spec.bead.as_deref().filter(|_| ctx.has_bead_store(rig)) else {
        return Ok(None);
    };
    match ctx.services.bead(rig, id).await {
        Ok(bead) if bead.status == "closed" => Err(closed(id, &bead)),
        Ok(bead) => Ok(Some(bead)),
        Err(Error::Bead { reason, message }) if !inputs.spec.task.trim().is_empty() => {
            let note = format!(
                "{message}; attempt {} starts with spec.taskDescription alone",
                inputs.attempt
            );
            ctx.runtime.events.publish(polecat, Note::warning("Bead", reason, note));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn closed(id: &str, bead: &Bead) -> Error {
    let why = if bead.close_reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", sanitize(&bead.close_reason))
    };
    Error::Bead {
        reason: reason::BEAD_CLOSED,
        message: format!("bead {id} is closed{why}; reopen it to have it begun"),
    }
}
