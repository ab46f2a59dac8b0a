//! Alarms: raised once a cause, told along their routes until somebody acknowledges or ends them.
//!
//! What happened is in the [`Ledger`], an annotation of the Escalation, so that a lost status is
//! history only.

use gastown_api::{DeliveryState, EscalationPhase, Severity};
use gastown_types::digest::short_digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What nobody acknowledges for so long becomes one severity worse.
pub const STALE_AFTER: SignedDuration = SignedDuration::from_hours(4);
/// How often it does.
pub const STALE_RAISES: usize = 2;
/// How often one route is tried at one severity.
pub const TRIES: u32 = 10;
/// How many messages one route carries in [`RATE_WINDOW`]; what is more waits.
pub const RATE_LIMIT: usize = 20;
/// See [`RATE_LIMIT`].
pub const RATE_WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// A closed one is kept for so long.
pub const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Longest word of a ledger.
const WORDS: usize = 512;

/// The name of the Escalation of a cause: the first, or the one after `previous`.
pub fn name(cause: &str, previous: Option<&str>) -> String {
    let digest = short_digest(&[cause, previous.unwrap_or_default()], 12);
    let mut words = String::new();
    for c in cause.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            words.push(c);
        } else if !words.is_empty() && !words.ends_with('-') {
            words.push('-');
        }
        if words.len() >= 100 {
            break;
        }
    }
    let words = words.trim_end_matches('-');
    format!("{}-{digest}", if words.is_empty() { "escalation" } else { words })
}

/// How one try to tell a route ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Sent,
    /// Not; `after` is what the other side asks for.
    Failed {
        /// Why.
        why: String,
        /// When it may be tried again at the earliest.
        after: Option<SignedDuration>,
    },
}

/// What one route was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The route's name.
    pub route: String,
    /// The severity.
    pub severity: Severity,
    /// How it went.
    pub state: DeliveryState,
    /// How often it was tried at this severity.
    pub attempts: u32,
    /// When last.
    pub last: Timestamp,
    /// When next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// It went away by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

/// What happened to an Escalation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// How often it was raised.
    #[serde(default)]
    pub raises: u32,
    /// When last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Timestamp>,
    /// When nobody had acknowledged it for too long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<Timestamp>,
    /// It went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// When it was seen closed by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// Who was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
}

fn cut(text: &str) -> String {
    text.chars().take(WORDS).collect()
}

impl Ledger {
    /// Reads the annotation. One that a person wrote over counts as none: the worst is that
    /// something is told twice.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    }

    /// The annotation.
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One more raise.
    #[must_use]
    pub fn raise(mut self, now: Timestamp) -> Self {
        self.raises = self.raises.saturating_add(1);
        self.raised = Some(now);
        self
    }

    /// It went away; the first reason stays.
    #[must_use]
    pub fn settle(mut self, now: Timestamp, why: &str) -> Self {
        if self.settled.is_none() {
            self.settled = Some(Settled { at: now, why: cut(why) });
        }
        self
    }

    /// A route was tried.
    #[must_use]
    pub fn tried(mut self, send: &Send, now: Timestamp, outcome: &Outcome) -> Self {
        let (state, next, why) = match outcome {
            Outcome::Sent => (DeliveryState::Sent, None, None),
            Outcome::Failed { why, .. } if send.attempt >= TRIES => {
                (DeliveryState::Failed, None, Some(cut(why)))
            }
            Outcome::Failed { why, after } => {
                let delay = SignedDuration::from_secs(crate::retry::respawn_delay(send.attempt));
                let delay =
                    after.map_or(delay, |a| delay.max(a.min(SignedDuration::from_hours(1))));
                (DeliveryState::Pending, Some(later(now, delay)), Some(cut(why)))
            }
        };
        let told = Told {
            route: send.route.clone(),
            severity: send.severity,
            state,
            attempts: send.attempt,
            last: now,
            next,
            why,
        };
        match self.told.iter_mut().find(|t| t.route == send.route) {
            Some(place) => *place = told,
            None => self.told.push(told),
        }
        self
    }
}

fn later(t: Timestamp, by: SignedDuration) -> Timestamp {
    t.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A route, and when it carried something lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFacts {
    /// Its name.
    pub name: String,
    /// From which severity on.
    pub least: Severity,
    /// When it carried something lately, for any Escalation; oldest first.
    pub carried: Vec<Timestamp>,
}

/// All that decides about an Escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As it was raised.
    pub severity: Severity,
    /// When it was made.
    pub created: Timestamp,
    /// Somebody looks at it.
    pub acknowledged: bool,
    /// Somebody closed it.
    pub closed: bool,
    /// What happened.
    pub ledger: Ledger,
    /// Whom to tell.
    pub routes: Vec<RouteFacts>,
}

/// One message to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Along which route.
    pub route: String,
    /// As what.
    pub severity: Severity,
    /// Which try at this severity, from 1.
    pub attempt: u32,
}

/// What to do with an Escalation now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it is.
    pub phase: EscalationPhase,
    /// How bad it is by now.
    pub severity: Severity,
    /// The ledger before anything is sent.
    pub ledger: Ledger,
    /// What to send.
    pub sends: Vec<Send>,
    /// It is old enough to go.
    pub delete: bool,
    /// When to look again, if nothing happens before.
    pub next: Option<Timestamp>,
}

/// The rules, in the order in which they apply.
pub fn decide(now: Timestamp, facts: &Facts) -> Plan {
    let mut ledger = facts.ledger.clone();
    if ledger.raises == 0 {
        // A person made it, or its ledger was lost.
        ledger = ledger.raise(facts.created);
    }
    if facts.closed && ledger.closed.is_none() {
        ledger.closed = Some(now);
    }
    let over = [ledger.closed.filter(|_| facts.closed), ledger.settled.as_ref().map(|s| s.at)]
        .into_iter()
        .flatten()
        .min();
    if let Some(over) = over {
        let end = later(over, KEPT);
        let severity = severity(facts.severity, &ledger);
        let delete = now >= end;
        return Plan {
            phase: EscalationPhase::Closed,
            severity,
            ledger,
            sends: Vec::new(),
            delete,
            next: (!delete).then_some(end),
        };
    }
    let phase =
        if facts.acknowledged { EscalationPhase::Acknowledged } else { EscalationPhase::Open };
    if facts.acknowledged {
        let severity = severity(facts.severity, &ledger);
        return Plan { phase, severity, ledger, sends: Vec::new(), delete: false, next: None };
    }
    let mut next = Vec::new();
    if ledger.stale.len() < STALE_RAISES && severity(facts.severity, &ledger) < Severity::Critical {
        let due = later(ledger.stale.last().copied().unwrap_or(facts.created), STALE_AFTER);
        if now >= due {
            ledger.stale.push(now);
            next.push(later(now, STALE_AFTER));
        } else {
            next.push(due);
        }
    }
    let severity = severity(facts.severity, &ledger);
    let mut sends = Vec::new();
    for route in facts.routes.iter().filter(|r| r.least <= severity) {
        let told = ledger.told.iter().find(|t| t.route == route.name && t.severity >= severity);
        let attempt = match told {
            Some(Told { state: DeliveryState::Sent | DeliveryState::Failed, .. }) => continue,
            Some(Told { next: Some(due), .. }) if *due > now => {
                next.push(*due);
                continue;
            }
            Some(told) => told.attempts.saturating_add(1),
            None => 1,
        };
        match turn(now, &route.carried) {
            None => sends.push(Send { route: route.name.clone(), severity, attempt }),
            Some(free) => next.push(free),
        }
    }
    Plan { phase, severity, ledger, sends, delete: false, next: next.into_iter().min() }
}

/// When a route that carried much may carry more; nothing when at once.
fn turn(now: Timestamp, carried: &[Timestamp]) -> Option<Timestamp> {
    let lately: Vec<_> = carried.iter().filter(|t| later(**t, RATE_WINDOW) > now).collect();
    let full = lately.len().checked_sub(RATE_LIMIT)?;
    lately.get(full).map(|t| later(**t, RATE_WINDOW))
}

fn severity(raised: Severity, ledger: &Ledger) -> Severity {
    ledger.stale.iter().take(STALE_RAISES).fold(raised, |s, _| s.raised())
}

#[cfg(test)]
#[path = "escalation_tests.rs"]
mod tests;
