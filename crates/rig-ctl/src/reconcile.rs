//! One Rig, from what is known of it to its status: gather, decide, act, report.

use std::sync::Arc;

use gastown_api::Rig;
use gastown_core::rig::{self, Plan};
use gastown_runtime::controller::{Action, resync};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Error;
use crate::{act, gather, report};

/// Looks at one Rig and does what it needs now. A refused write is shown in the status before it is
/// an error.
pub(crate) async fn reconcile(rig: Arc<Rig>, ctx: Arc<Context>) -> Result<Action, Error> {
    let snapshot = gather::snapshot(&rig, &ctx); // client
    let plan = rig::decide(&snapshot); // pure
    tracing::debug!(?plan, "decided");
    let acted = act::act(&rig, &snapshot, &plan, &ctx).await; // client
    // The Rig is gone, or goes when others have removed their finalizers.
    if matches!(plan, Plan::RemoveFinalizer | Plan::Nothing) && acted.is_ok() {
        return Ok(Action::await_change());
    }
    let rig = ctx.own.newest(rig.clone()).unwrap_or(rig);
    let refused = acted.as_ref().err().map(Error::refusal);
    let assessment = rig::assess(&snapshot, &plan, refused.as_deref()); // pure
    let status = report::status(&rig, &snapshot, &assessment, Timestamp::now()); // pure
    let reported = report::publish(&rig, &status, &assessment, &ctx).await; // client
    acted?;
    Ok(reported?.map_or_else(resync, Action::requeue))
}
