//! The span of a Convoy, exported when its last bead is done.

use gastown_api::names::annotation;
use gastown_api::{Convoy, ConvoyPhase, ConvoyStatus};
use gastown_trace::{self as trace, Context as SpanContext, ConvoyFacts, Life};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::context::Context;

/// Where the span of a Convoy belongs.
pub(crate) fn place(convoy: &Convoy) -> trace::Convoy {
    let creator = convoy.annotations().get(annotation::TRACEPARENT).map(String::as_str);
    trace::Convoy::of(&convoy.uid().unwrap_or_default(), creator)
}

/// Exports the span of a Convoy that is complete. Must be called after that was written.
pub(crate) fn export(convoy: &Convoy, status: &ConvoyStatus, ctx: &Context) {
    let uid = convoy.uid().unwrap_or_default();
    if status.phase != Some(ConvoyPhase::Complete) {
        return;
    }
    ctx.lives.export(&uid, Timestamp::now(), || {
        let facts = facts(convoy, status, lives(convoy, ctx));
        facts.map(|facts| place(convoy).span(&facts)).into_iter().collect()
    });
}

/// What is known of a Convoy that is complete. Pure.
fn facts(convoy: &Convoy, status: &ConvoyStatus, lives: Vec<SpanContext>) -> Option<ConvoyFacts> {
    let failed = &status.failed_beads;
    Some(ConvoyFacts {
        namespace: convoy.namespace().unwrap_or_default(),
        name: convoy.name_any(),
        created: convoy.creation_timestamp()?.0,
        ended: status.completed_at.as_ref()?.0,
        beads: u32::try_from(convoy.spec.tracked_beads.len()).unwrap_or(u32::MAX),
        phase: status.phase.map(|phase| format!("{phase:?}")).unwrap_or_default(),
        failure: (!failed.is_empty()).then(|| format!("set aside: {}", failed.join(", "))),
        lives,
    })
}

/// The lives of the Polecats of its beads that still exist.
fn lives(convoy: &Convoy, ctx: &Context) -> Vec<SpanContext> {
    let (rig, namespace) = (convoy.spec.rig_ref.as_deref(), convoy.namespace());
    let beads = convoy.spec.tracked_beads.iter().take(trace::Convoy::MAX_LIVES);
    let polecats = beads.flat_map(|bead| ctx.polecats(rig, bead));
    let own = polecats.filter(|polecat| polecat.namespace() == namespace);
    own.map(|polecat| {
        let creator = polecat.annotations().get(annotation::TRACEPARENT).map(String::as_str);
        Life::of(&polecat.uid().unwrap_or_default(), creator).root()
    })
    .collect()
}
