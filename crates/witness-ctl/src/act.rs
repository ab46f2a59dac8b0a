//! Carries out what an assessment asks for: a command to the agent's pod.

use gastown_api::Polecat;
use gastown_core::witness::{Assessment, Command};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::context::Context;

/// The message that a nudge sends to the agent.
const NUDGE: &str = "You have been silent for a while. Go on with your task; if you have finished \
                     it, run `gt done`; if you cannot go on, run `gt escalate -s medium` and \
                     describe what you need.";
/// Why a checkpoint is asked for.
const CHECKPOINT: &str = "the agent shows no activity and is about to be restarted";

/// Sends the assessment's command, if it has one, down the stream of pod `pod` (a uid), and
/// publishes an Event about it. A command that cannot be sent now comes again with the next
/// assessment.
pub(crate) fn act(
    polecat: &Polecat,
    pod: &str,
    assessment: &Assessment,
    now: Timestamp,
    ctx: &Context,
) {
    let Some(command) = assessment.command else { return };
    let (text, reason, consequence) = match command {
        Command::Nudge => (NUDGE, "Nudged", "it is nudged"),
        Command::Checkpoint => (CHECKPOINT, "Saving", "its work is saved before a restart"),
    };
    let uid = polecat.uid().unwrap_or_default();
    let sent = ctx.streams.send(now, &uid, pod, command, text);
    tracing::info!(?command, sent, pod, "the agent is wedged");
    if sent {
        ctx.metrics.commanded(&polecat.spec.rig, command);
        let message = format!("{}; {consequence}", assessment.message);
        ctx.runtime.events.publish(polecat, Note::warning("Wedged", reason, message));
    }
}
