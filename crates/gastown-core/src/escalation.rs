//! When an Escalation is delivered along which routes, becomes more severe, closes and is deleted.
//!
//! What has happened to an Escalation is in its [`EscalationState`], an annotation. Its status is
//! made from that, so a lost status loses nothing that decides.

use gastown_api::{DeliveryState, EscalationPhase, Severity};
use gastown_types::digest::short_digest;
use gastown_types::{slug, text};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// An Escalation that nobody has acknowledged for this long becomes one severity more severe.
pub const STALE_AFTER: SignedDuration = SignedDuration::from_hours(4);
/// How many times an Escalation becomes more severe at most.
pub const STALE_RAISES: usize = 2;
/// How many attempts one route gets at one severity.
pub const MAX_ATTEMPTS: u32 = 10;
/// How many messages one route carries in [`RATE_WINDOW`]; further ones wait.
pub const RATE_LIMIT: usize = 20;
/// See [`RATE_LIMIT`].
pub const RATE_WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// What an Escalation is about may be missing for this long after it was raised: whoever raises it
/// may know of the object before the API server shows it to others.
pub const MISSING_FOR: SignedDuration = SignedDuration::from_mins(1);
/// A closed Escalation is deleted after this long.
pub const RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The longest text that the state keeps, in characters.
const MAX_TEXT: usize = 512;
/// The longest part of a name that is made from the cause, in bytes.
const MAX_SLUG: usize = 100;

/// The name of the Escalation of a cause: the first one, or the one that follows the closed
/// Escalation with uid `previous`.
pub fn name(cause: &str, previous: Option<&str>) -> String {
    let digest = short_digest(&[cause, previous.unwrap_or_default()], 12);
    let slug = slug(cause, MAX_SLUG);
    format!("{}-{digest}", if slug.is_empty() { "escalation" } else { &slug })
}

/// How one delivery attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side has accepted the message.
    Sent,
    /// The other side has not accepted the message.
    Failed {
        /// The error, for the Escalation's status.
        why: String,
        /// How long the other side asks to wait before the next attempt.
        after: Option<SignedDuration>,
    },
}

/// The delivery along one route, as its last attempt left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// The route's name.
    pub route: String,
    /// The severity that was sent.
    pub severity: Severity,
    /// Whether the message was accepted, will be tried again, or has failed for good.
    pub state: DeliveryState,
    /// How many attempts were made at this severity.
    pub attempts: u32,
    /// When the last attempt was made.
    pub last: Timestamp,
    /// When the next attempt is due; only while the state is Pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The error of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The end of the problem, as reported by whoever raised it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// When it was reported.
    pub at: Timestamp,
    /// Why the problem is over.
    pub why: String,
}

/// What has happened to an Escalation: the content of annotation
/// [`gastown_api::names::annotation::ESCALATION_STATE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscalationState {
    /// How many times it was raised.
    #[serde(default)]
    pub raises: u32,
    /// When it was raised last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Timestamp>,
    /// When its severity rose because nobody had acknowledged it for [`STALE_AFTER`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<Timestamp>,
    /// Set once its problem is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// When this controller first saw that a person had closed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// The deliveries, at most one for each route.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "told")]
    pub deliveries: Vec<DeliveryRecord>,
}

impl EscalationState {
    /// Reads the annotation. One that is absent or that a person has broken counts as empty: at
    /// worst something is delivered twice.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    }

    /// The annotation's text.
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Counts one more raise.
    #[must_use]
    pub fn raise(mut self, now: Timestamp) -> Self {
        self.raises = self.raises.saturating_add(1);
        self.raised = Some(now);
        self
    }

    /// Records that the problem is over. The first record stays.
    #[must_use]
    pub fn settle(mut self, now: Timestamp, why: &str) -> Self {
        if self.settled.is_none() {
            self.settled = Some(Settled { at: now, why: text::line(why, MAX_TEXT) });
        }
        self
    }

    /// Records how a delivery attempt ended, and when the next one is due.
    #[must_use]
    pub fn record(mut self, attempt: &Attempt, now: Timestamp, outcome: &Outcome) -> Self {
        let (state, next, why) = match outcome {
            Outcome::Sent => (DeliveryState::Sent, None, None),
            Outcome::Failed { why, .. } if attempt.number >= MAX_ATTEMPTS => {
                (DeliveryState::Failed, None, Some(text::line(why, MAX_TEXT)))
            }
            Outcome::Failed { why, after } => {
                let delay = SignedDuration::from_secs(crate::retry::respawn_delay(attempt.number));
                let delay =
                    after.map_or(delay, |a| delay.max(a.min(SignedDuration::from_hours(1))));
                (DeliveryState::Pending, Some(add(now, delay)), Some(text::line(why, MAX_TEXT)))
            }
        };
        let delivery = DeliveryRecord {
            route: attempt.route.clone(),
            severity: attempt.severity,
            state,
            attempts: attempt.number,
            last: now,
            next,
            why,
        };
        match self.deliveries.iter_mut().find(|d| d.route == attempt.route) {
            Some(place) => *place = delivery,
            None => self.deliveries.push(delivery),
        }
        self
    }
}

/// The latest possible time where the sum does not exist.
fn add(t: Timestamp, by: SignedDuration) -> Timestamp {
    t.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A route, and when it carried messages lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSnapshot {
    /// Its name.
    pub name: String,
    /// It carries Escalations of this severity and above.
    pub min_severity: Severity,
    /// When it carried messages within [`RATE_WINDOW`], of any Escalation; oldest first.
    pub sent_at: Vec<Timestamp>,
}

/// Everything that decides about an Escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The severity in its spec.
    pub severity: Severity,
    /// When the object was created.
    pub created: Timestamp,
    /// A person has acknowledged it.
    pub acknowledged: bool,
    /// A person has closed it.
    pub closed: bool,
    /// The object that it is about does not exist any more, in a sentence. Absent where that is not
    /// known, or where the end of the object is not the end of the problem.
    pub missing: Option<String>,
    /// What has happened to it so far.
    pub state: EscalationState,
    /// The routes of the rig's Witness.
    pub routes: Vec<RouteSnapshot>,
}

/// One delivery attempt to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The route's name.
    pub route: String,
    /// The severity to send.
    pub severity: Severity,
    /// Which attempt at this severity it is, counted from 1.
    pub number: u32,
}

/// What to do with an Escalation now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its phase.
    pub phase: EscalationPhase,
    /// Its severity, raised where nobody has acknowledged it in time.
    pub severity: Severity,
    /// Its state before any attempt of this plan.
    pub state: EscalationState,
    /// The attempts to make.
    pub attempts: Vec<Attempt>,
    /// It has been closed for [`RETENTION`] and is to be deleted.
    pub delete: bool,
    /// When to decide again, if nothing changes before; not counting failures of these attempts.
    pub next: Option<Timestamp>,
}

/// The rules, in the order in which they apply.
pub fn decide(now: Timestamp, snapshot: &Snapshot) -> Plan {
    let mut state = snapshot.state.clone();
    if state.raises == 0 {
        // A person made it, or its state was lost.
        state = state.raise(snapshot.created);
    }
    if snapshot.closed && state.closed.is_none() {
        state.closed = Some(now);
    }
    let mut next = Vec::new();
    if let Some(why) = &snapshot.missing {
        match add(state.raised.unwrap_or(snapshot.created), MISSING_FOR) {
            due if due <= now => state = state.settle(now, why),
            due => next.push(due),
        }
    }
    let ends = [state.closed.filter(|_| snapshot.closed), state.settled.as_ref().map(|s| s.at)];
    if let Some(end) = ends.into_iter().flatten().min() {
        return closed(now, snapshot, state, end);
    }
    if snapshot.acknowledged {
        let severity = severity(snapshot.severity, &state);
        return Plan {
            phase: EscalationPhase::Acknowledged,
            severity,
            state,
            attempts: Vec::new(),
            delete: false,
            next: next.into_iter().min(),
        };
    }
    if state.stale.len() < STALE_RAISES && severity(snapshot.severity, &state) < Severity::Critical
    {
        let due = add(state.stale.last().copied().unwrap_or(snapshot.created), STALE_AFTER);
        if now >= due {
            state.stale.push(now);
            next.push(add(now, STALE_AFTER));
        } else {
            next.push(due);
        }
    }
    let severity = severity(snapshot.severity, &state);
    let (attempts, waits) = due_attempts(now, &snapshot.routes, &state, severity);
    next.extend(waits);
    let next = next.into_iter().min();
    Plan { phase: EscalationPhase::Open, severity, state, attempts, delete: false, next }
}

/// The attempts to make now at a severity, and when routes that have to wait may be tried.
fn due_attempts(
    now: Timestamp,
    routes: &[RouteSnapshot],
    state: &EscalationState,
    severity: Severity,
) -> (Vec<Attempt>, Vec<Timestamp>) {
    let (mut attempts, mut waits) = (Vec::new(), Vec::new());
    for route in routes.iter().filter(|r| r.min_severity <= severity) {
        let delivery =
            state.deliveries.iter().find(|d| d.route == route.name && d.severity >= severity);
        let number = match delivery {
            Some(DeliveryRecord { state: DeliveryState::Sent | DeliveryState::Failed, .. }) => {
                continue;
            }
            Some(DeliveryRecord { next: Some(due), .. }) if *due > now => {
                waits.push(*due);
                continue;
            }
            Some(delivery) => delivery.attempts.saturating_add(1),
            None => 1,
        };
        match rate_limited_until(now, &route.sent_at) {
            None => attempts.push(Attempt { route: route.name.clone(), severity, number }),
            Some(free) => waits.push(free),
        }
    }
    (attempts, waits)
}

/// The plan for an Escalation that ended at `end`: keep it for a while, then delete it.
fn closed(now: Timestamp, snapshot: &Snapshot, state: EscalationState, end: Timestamp) -> Plan {
    let expiry = add(end, RETENTION);
    let delete = now >= expiry;
    Plan {
        phase: EscalationPhase::Closed,
        severity: severity(snapshot.severity, &state),
        state,
        attempts: Vec::new(),
        delete,
        next: (!delete).then_some(expiry),
    }
}

/// When a route that has carried [`RATE_LIMIT`] messages may carry the next one; none when it may
/// now.
fn rate_limited_until(now: Timestamp, sent_at: &[Timestamp]) -> Option<Timestamp> {
    let recent: Vec<_> = sent_at.iter().filter(|t| add(**t, RATE_WINDOW) > now).collect();
    let blocking = recent.len().checked_sub(RATE_LIMIT)?;
    recent.get(blocking).map(|t| add(**t, RATE_WINDOW))
}

fn severity(raised: Severity, state: &EscalationState) -> Severity {
    state.stale.iter().take(STALE_RAISES).fold(raised, |s, _| s.raised())
}

#[cfg(test)]
#[path = "escalation_tests.rs"]
mod tests;
