//! One look at one Polecat: gather → decide → act until nothing is left to do → report.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::{condition, reason};
use gastown_api::{Polecat, conditions};
use gastown_core::admission::Slot;
use gastown_core::polecat::{
    AlarmFacts, AlarmInputs, ClaimFacts, Deed, Plan, REMARK_TRIES, Refused, RemarkFacts,
    RemarkInputs, RigFacts, Snapshot, SubmitFacts, View, decide, wants_slot,
};
use gastown_core::retry::request_delay;
use gastown_runtime::events::Note;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};

use crate::act::{Done, Error, act};
use crate::context::Context;
use crate::{claims, gather, report};

/// Deeds of one look: more rounds than any plan needs, so that a mistake of ours cannot spin.
const MAX_ROUNDS: usize = 8;

/// An acknowledged request that the watch does not show after this long is asked for again.
const VISIBLE_SECONDS: i64 = 30;

/// A comment that the store refuses is offered again after this long: its permissions or its branch
/// may have changed.
const REFUSED_COMMENT_SECONDS: i64 = 600;

/// Looks at one Polecat.
pub async fn reconcile(polecat: Arc<Polecat>, cx: Arc<Context>) -> Result<Action, Error> {
    take_seats(&cx);
    for _ in 0..MAX_ROUNDS {
        let Some(polecat) = cx.own_polecats.newest(polecat.clone()) else {
            return Ok(Action::await_change());
        };
        let now = Timestamp::now();
        let s = look(&cx, &polecat, now, true);
        let plan = decide(now, &s);
        if plan.deeds.is_empty() {
            show(&cx, &polecat, &s, &plan.view, now).await?;
            return Ok(again(&s, &plan, now));
        }
        for deed in &plan.deeds {
            carry_out(&cx, &polecat, &s, deed, now).await?;
            match deed {
                // what follows was decided about the object as it was: look again
                Deed::Record { finalizer, .. } if !s.deleting || *finalizer => break,
                // the last finalizer of a deleted object, or its deletion: the watch says what
                // comes of it
                Deed::Record { .. } | Deed::DeletePolecat => return Ok(Action::await_change()),
                _ => {}
            }
        }
    }
    tracing::error!("a plan does not come to its end");
    Ok(Action::requeue(Duration::from_secs(5)))
}

async fn carry_out(
    cx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    deed: &Deed,
    now: Timestamp,
) -> Result<(), Error> {
    tracing::debug!(?deed, "deed");
    match (act(cx, polecat, s, deed).await, deed) {
        (Ok(Done::Submitted(request)), Deed::Submit(inputs)) => cx.remember(&s.uid, |m| {
            m.submit_failures = 0;
            m.submit = SubmitFacts::Acknowledged {
                commit: inputs.commit.clone(),
                request,
                until: after(now, VISIBLE_SECONDS),
            };
        }),
        (Err(Error::Submit { reason, message, .. }), Deed::Submit(inputs)) => {
            cx.remember(&s.uid, |m| {
                m.submit_failures = m.submit_failures.saturating_add(1);
                let until = after(now, request_delay(m.submit_failures));
                m.submit =
                    SubmitFacts::Failed { commit: inputs.commit.clone(), reason, message, until };
            })
        }
        (Err(Error::Refused { message, .. }), _) => {
            refused(cx, s, reason::POD_CREATE_FAILED, &message, now)
        }
        (Err(Error::Bead { reason, message }), _) => refused(cx, s, reason, &message, now),
        (Ok(_), Deed::Comment(inputs)) => cx.remember(&s.uid, |m| {
            m.remark = RemarkFacts::Acknowledged { text: inputs.text.clone() }
        }),
        (Err(error @ Error::Comment { .. }), Deed::Comment(inputs)) => {
            unsaid(cx, s, inputs, &error, now)
        }
        (Ok(_), Deed::Alarm(inputs)) => {
            cx.remember(&s.uid, |m| m.alarm = AlarmFacts::Acknowledged(inputs.call.clone()))
        }
        (Err(error @ Error::Alarm { .. }), Deed::Alarm(inputs)) => {
            untold(cx, s, inputs, &error, now)
        }
        (Ok(_), Deed::Start(_)) => cx.remember(&s.uid, |m| (m.refusals, m.refused) = (0, None)),
        (ended, _) => return ended.map(|_| ()),
    }
    Ok(())
}

/// No pod for now: said in a condition, tried again later.
fn refused(cx: &Context, s: &Snapshot, why: &str, message: &str, now: Timestamp) {
    cx.remember(&s.uid, |m| {
        m.refusals = m.refusals.saturating_add(1);
        // Asking beadstore-ctl again is cheap; a pod that the API server refuses is refused again,
        // most likely.
        let pause = if why == reason::POD_CREATE_FAILED { 2 } else { 1 };
        let until = after(now, pause * request_delay(m.refusals));
        m.refused = Some(Refused {
            reason: why.to_owned(),
            message: gastown_core::polecat::tame(message),
            until,
        });
    });
}

/// A comment that was not taken is no failure of anything else.
fn unsaid(cx: &Context, s: &Snapshot, inputs: &RemarkInputs, error: &Error, now: Timestamp) {
    let refused = matches!(error, Error::Comment { refused: true, .. });
    tracing::warn!(error = error as &dyn std::error::Error, refused, "not told to the bead");
    cx.remember(&s.uid, |m| {
        let before = match &m.remark {
            RemarkFacts::Failed { text, tries, .. } if *text == inputs.text => *tries,
            _ => 0,
        };
        let tries = before.saturating_add(1).max(if refused { REMARK_TRIES } else { 1 });
        let until =
            after(now, if refused { REFUSED_COMMENT_SECONDS } else { request_delay(tries) });
        m.remark = RemarkFacts::Failed { text: inputs.text.clone(), tries, until };
    });
}

/// An alarm that was not taken is no failure of anything else.
fn untold(cx: &Context, s: &Snapshot, inputs: &AlarmInputs, error: &Error, now: Timestamp) {
    tracing::warn!(error = error as &dyn std::error::Error, "not told to the witness");
    cx.remember(&s.uid, |m| {
        let before = match &m.alarm {
            AlarmFacts::Failed { call, tries, .. } if *call == inputs.call => *tries,
            _ => 0,
        };
        let tries = before.saturating_add(1);
        m.alarm = AlarmFacts::Failed {
            call: inputs.call.clone(),
            tries,
            until: after(now, request_delay(tries)),
        };
    });
}

fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

/// The facts, and the rig's answer when a slot is wanted and may be asked for.
fn look(cx: &Context, polecat: &Polecat, now: Timestamp, ask: bool) -> Snapshot {
    let uid = polecat.uid().unwrap_or_default();
    let pods = cx.pods(&uid);
    let requests = cx.requests_of.of(&uid, &cx.requests);
    let rig = cx.rig(&polecat.spec.rig);
    let memory = cx.recall(&uid);
    let pods: Vec<_> = pods.iter().map(AsRef::as_ref).collect();
    let requests: Vec<_> = requests.iter().map(AsRef::as_ref).collect();
    let mut s = gather::snapshot(polecat, rig.as_deref(), &pods, &requests, memory.submit);
    (s.refused, s.remark, s.alarm) = (memory.refused, memory.remark, memory.alarm);
    s.witness = cx.witness.is_some();
    (s.claim, s.bead_store) = (claims::facts(cx, polecat), cx.has_beads(&polecat.spec.rig));
    let wants = wants_slot(now, &s);
    let live = s.live(now).next().is_some();
    let woken = cx.seats.observe(&polecat.spec.rig, &uid, live, wants.clone());
    cx.wake(&woken);
    if let (true, Some(me), Some(rig), RigFacts::Present { .. }) = (ask, wants, rig, &s.rig) {
        let cap = usize::try_from(rig.spec.settings.max_polecats).unwrap_or(0);
        s.slot = cx.seats.ask(&polecat.spec.rig, cap, &me);
    }
    s
}

/// Before the first slot of a term is given, everybody who holds or wants one is known.
fn take_seats(cx: &Context) {
    let term = cx.runtime.leadership.held();
    let mut seated = cx.seated.lock();
    if term.is_none() || *seated == term {
        return;
    }
    cx.seats.clear();
    let now = Timestamp::now();
    for polecat in cx.polecats.state() {
        if let Some(polecat) = cx.own_polecats.newest(polecat) {
            look(cx, &polecat, now, false);
        }
    }
    *seated = term;
}

/// Applies the status where it differs, and tells a changed reason once.
async fn show(
    cx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    view: &View,
    now: Timestamp,
) -> Result<(), Error> {
    let status = report::status(polecat, s, view, &cx.images.agent, now);
    let api: Api<Polecat> = Api::namespaced(cx.runtime.client.clone(), &s.namespace);
    match report::OWNER.applied(&api, polecat, &status).await {
        Ok(Some(written)) => {
            cx.own_polecats.record(written);
            tell(cx, polecat, view);
            Ok(())
        }
        Ok(None) => Ok(()),
        // deleted meanwhile
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn tell(cx: &Context, polecat: &Polecat, view: &View) {
    let Some(told) = &view.told else { return };
    let before =
        polecat.status.as_ref().and_then(|st| conditions::find(&st.conditions, condition::READY));
    if before.is_some_and(|c| c.reason == told.reason) {
        return;
    }
    let note = if told.warning { Note::warning } else { Note::normal };
    cx.runtime
        .events
        .publish(polecat, note(condition::READY, told.reason.clone(), told.note.clone()));
}

fn again(s: &Snapshot, plan: &Plan, now: Timestamp) -> Action {
    let most = match s.slot {
        // a freed slot wakes the first in line; this is for a call that was lost
        Slot::AtCapacity { .. } => Duration::from_secs(60),
        // a released claim wakes who waits for it; this is for one whose holder's last pod has just
        // ended
        _ if matches!(
            s.claim,
            ClaimFacts::HeldBy { .. } | ClaimFacts::ToLand { .. } | ClaimFacts::Unknown(_)
        ) =>
        {
            Duration::from_secs(60)
        }
        _ => Duration::from_secs(600),
    };
    match plan.wake {
        Some(wake) => {
            let left = wake.duration_since(now).unsigned_abs();
            // whole seconds are compared: a moment later, not a moment earlier
            Action::requeue(left.min(most) + Duration::from_millis(50))
        }
        None => Action::requeue(gastown_runtime::jittered(most)),
    }
}
