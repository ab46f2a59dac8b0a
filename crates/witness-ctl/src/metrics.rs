//! What this controller counts and shows; what each metric means is in `gastown_metrics::witness`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gastown_api::{Escalation, EscalationPhase, Polecat, Witness};
use gastown_core::escalation::Outcome;
use gastown_core::witness::Command;
use gastown_metrics::witness as catalogue;
use gastown_runtime::index::Index;
use gastown_runtime::metrics::{Counter, Gauge, Metrics};
use gastown_runtime::shards::Shards;
use jiff::Timestamp;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;

/// The metrics of this controller alone. Clones share.
#[derive(Clone, Debug)]
pub(crate) struct WitnessMetrics {
    pub streams: Gauge<0>,
    pub heartbeats: Counter<0>,
    commands: Counter<2>,
    restarts: Counter<1>,
    raised: Counter<2>,
    deliveries: Counter<2>,
    /// By rig: how many agents are in each state.
    agents: Arc<Mutex<HashMap<String, BTreeMap<&'static str, usize>>>>,
}

impl WitnessMetrics {
    /// Registers what is counted.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            streams: metrics.gauge(&catalogue::STREAMS),
            heartbeats: metrics.counter(&catalogue::HEARTBEATS),
            commands: metrics.counter(&catalogue::COMMANDS),
            restarts: metrics.counter(&catalogue::RESTARTS),
            raised: metrics.counter(&catalogue::RAISED),
            deliveries: metrics.counter(&catalogue::DELIVERIES),
            agents: Arc::default(),
        }
    }

    /// Shows agents and Escalations of the rigs that this process works for.
    pub fn register_views(
        &self,
        (metrics, shards): (&Metrics, &Shards),
        witnesses: &Index<Witness>,
        polecats: &Index<Polecat>,
        escalations: &Store<Escalation>,
    ) {
        let (witnesses, polecats) = (witnesses.clone(), polecats.clone());
        let exists = move |rig: &str| witnesses.count(rig) > 0 || polecats.count(rig) > 0;
        metrics.keep_rigs(exists.clone());
        let (agents, held) = (self.agents.clone(), shards.clone());
        metrics.view(&[&catalogue::AGENTS.0], move |view| {
            let mut agents = agents.lock();
            agents.retain(|rig, _| exists(rig) && held.held(rig).is_some());
            for (rig, states) in agents.iter() {
                for (state, count) in states {
                    let labels = [rig.clone().into(), (*state).into()];
                    view.set(&catalogue::AGENTS, labels, *count as f64);
                }
            }
        });
        let (escalations, shards) = (escalations.clone(), shards.clone());
        let gauges = [&catalogue::ESCALATIONS.0, &catalogue::ESCALATIONS_OLDEST.0];
        metrics.view(&gauges, move |view| {
            let now = Timestamp::now();
            for escalation in escalations.state() {
                let (Some(phase), true) =
                    (phase(&escalation), shards.held(&escalation.spec.rig_ref).is_some())
                else {
                    continue;
                };
                let status = escalation.status.as_ref();
                let severity =
                    status.and_then(|s| s.severity).unwrap_or(escalation.spec.severity).as_str();
                let created = escalation.metadata.creation_timestamp.as_ref();
                let age = created.map_or(0.0, |at| now.duration_since(at.0).as_secs_f64());
                let rig = escalation.spec.rig_ref.clone();
                let labels = [rig.into(), severity.into(), phase.into()];
                view.add(&catalogue::ESCALATIONS, labels.clone(), 1.0);
                view.raise(&catalogue::ESCALATIONS_OLDEST, labels, age);
            }
        });
    }

    /// A pass over a rig's polecats found agents in these states.
    pub fn assessed(&self, rig: &str, states: BTreeMap<&'static str, usize>) {
        self.agents.lock().insert(rig.to_owned(), states);
    }

    /// A command was sent to an agent.
    pub fn commanded(&self, rig: &str, command: Command) {
        let command = match command {
            Command::Nudge => "nudge",
            Command::Checkpoint => "checkpoint",
        };
        self.commands.inc([rig.to_owned().into(), command.into()]);
    }

    /// A restart was asked for.
    pub fn restarted(&self, rig: &str) {
        self.restarts.inc([rig.to_owned().into()]);
    }

    /// An Escalation was created.
    pub fn raised(&self, rig: &str, severity: &'static str) {
        self.raised.inc([rig.to_owned().into(), severity.into()]);
    }

    /// An Escalation was sent along a route, or could not be.
    pub fn delivered(&self, rig: &str, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Sent => "delivered",
            Outcome::Failed { .. } => "failed",
        };
        self.deliveries.inc([rig.to_owned().into(), result.into()]);
    }
}

/// Where an Escalation is that is not over.
fn phase(escalation: &Escalation) -> Option<&'static str> {
    if escalation.spec.closed.is_some() || escalation.metadata.deletion_timestamp.is_some() {
        return None;
    }
    // It has no status before it is reconciled for the first time.
    let phase = escalation.status.as_ref().and_then(|status| status.phase);
    match phase.unwrap_or(EscalationPhase::Open) {
        EscalationPhase::Closed => None,
        phase => Some(phase.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use gastown_fakes::stores::filled;
    use gastown_metrics::page;
    use serde_json::json;

    use super::*;

    fn escalation(name: &str, spec: &serde_json::Value, status: &serde_json::Value) -> Escalation {
        let mut whole = json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Escalation",
            "metadata": {"name": name, "namespace": "dev", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"severity": "medium", "cause": name, "summary": name, "source": "test", "rigRef": "web"},
            "status": status,
        });
        if let (Some(all), Some(more)) = (whole["spec"].as_object_mut(), spec.as_object()) {
            all.extend(more.clone());
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn escalations_are_shown_by_what_they_are_now() {
        let metrics = Metrics::default();
        let own = WitnessMetrics::new(&metrics);
        let closing = json!({"closed": {"by": "me", "reason": "done"}});
        let escalations = filled([
            escalation("new", &json!({}), &json!(null)),
            escalation("risen", &json!({}), &json!({"phase": "Open", "severity": "high"})),
            escalation("seen", &json!({}), &json!({"phase": "Acknowledged", "severity": "medium"})),
            escalation("closed", &closing, &json!({"phase": "Open", "severity": "high"})),
            escalation("over", &json!({}), &json!({"phase": "Closed", "severity": "high"})),
        ]);
        let (witnesses, polecats) = (Index::default(), Index::default());
        own.register_views((&metrics, &Shards::all()), &witnesses, &polecats, &escalations);
        let page = page::read(&metrics.encode().unwrap()).unwrap();
        assert_eq!(page.differences("witness-ctl"), [""; 0]);
        let of = |series, severity, phase| {
            page.value(series, &[("rig", "web"), ("severity", severity), ("phase", phase)])
        };
        let open = |severity, phase| of("gastown_escalations_open", severity, phase);
        assert_eq!(open("medium", "Open"), Some(1.0));
        assert_eq!(open("high", "Open"), Some(1.0));
        assert_eq!(open("medium", "Acknowledged"), Some(1.0));
        assert_eq!(open("high", "Closed"), None);
        assert!(of("gastown_escalations_oldest_seconds", "high", "Open").unwrap() > 1.0);
        // Of a rig without a Witness and without polecats nothing is counted any more.
        own.commanded("web", Command::Nudge);
        own.assessed("web", [("Working", 3)].into());
        let page = page::read(&metrics.encode().unwrap()).unwrap();
        let working = [("rig", "web"), ("state", "Working")];
        assert_eq!(page.value("gastown_witness_agents", &working), None);
        let nudges = [("rig", "web"), ("command", "nudge")];
        assert_eq!(page.value("gastown_witness_commands_total", &nudges), None);
    }
}
