//! What this controller counts and shows; what each metric means is in `gastown_metrics::polecat`.

use std::collections::BTreeSet;
use std::sync::Arc;

use gastown_api::conditions;
use gastown_api::names::{condition, reason};
use gastown_api::{PolecatPhase, PolecatStatus, Rig};
use gastown_core::polecat::{self, ClaimFacts, End, Ledger, Snapshot};
use gastown_metrics::polecat as catalogue;
use gastown_runtime::metrics::{Amount, Counter, Histogram, Metrics, Tally, Value};
use gastown_runtime::shards::Shards;
use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use crate::admission::Admission;

/// So many models are counted by their name: an agent chooses what it states.
const MAX_MODELS: usize = 20;
/// The longest name of a model that is counted by it, in bytes.
const MAX_MODEL: usize = 64;

/// The metrics of this controller alone. Clones share.
#[derive(Clone, Debug)]
pub(crate) struct PolecatMetrics {
    claim_wait: Histogram<1>,
    slot_wait: Histogram<1>,
    attempts: Counter<3>,
    attempt_seconds: Histogram<2>,
    pending_seconds: Histogram<1>,
    respawns: Counter<2>,
    tokens: Counter<3>,
    cost: Amount<2>,
    saves: Counter<1>,
    lost: Counter<1>,
    models: Arc<Mutex<BTreeSet<String>>>,
    /// By rig and phase.
    phases: Tally<(String, &'static str)>,
    /// Those that are not ready, by rig and reason.
    waiting: Tally<(String, Value)>,
    /// Those whose work is not on the remote, by rig.
    unsaved: Tally<String>,
}

impl PolecatMetrics {
    /// Registers what is counted.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            claim_wait: metrics.histogram(&catalogue::CLAIM_WAIT),
            slot_wait: metrics.histogram(&catalogue::SLOT_WAIT),
            attempts: metrics.counter(&catalogue::ATTEMPTS),
            attempt_seconds: metrics.histogram(&catalogue::ATTEMPT_DURATION),
            pending_seconds: metrics.histogram(&catalogue::ATTEMPT_PENDING),
            respawns: metrics.counter(&catalogue::RESPAWNS),
            tokens: metrics.counter(&catalogue::TOKENS),
            cost: metrics.amount(&catalogue::COST),
            saves: metrics.counter(&catalogue::SAVES),
            lost: metrics.counter(&catalogue::LOST),
            models: Arc::default(),
            phases: Tally::default(),
            waiting: Tally::default(),
            unsaved: Tally::default(),
        }
    }

    /// Takes in the status that a Polecat is to have. What this costs does not grow with the rig.
    pub(crate) fn show(&self, s: &Snapshot, status: &PolecatStatus, now: Timestamp) {
        let rig = || s.rig.name().to_owned();
        let phase = status.phase.unwrap_or(PolecatPhase::Unknown);
        self.phases.set(&s.uid, (rig(), phase.as_str()), s.created);
        let ready = conditions::find(&status.conditions, condition::READY);
        let waits = ready.filter(|ready| {
            ready.status == "False" && phase != PolecatPhase::Terminated && !s.deleting
        });
        match waits {
            Some(ready) => {
                let (why, _) = reason::documented(ready.reason.clone(), "");
                self.waiting.set(&s.uid, (rig(), why), ready.last_transition_time.0);
            }
            None => self.waiting.remove(&s.uid),
        }
        if s.saving.is_some() {
            self.unsaved.set(&s.uid, rig(), now);
        } else {
            self.unsaved.remove(&s.uid);
        }
    }

    /// A Polecat is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.phases.remove(uid);
        self.waiting.remove(uid);
        self.unsaved.remove(uid);
    }

    /// The claim on the bead was taken.
    pub(crate) fn claimed(&self, s: &Snapshot, now: Timestamp) {
        let seconds = now.duration_since(s.created).as_secs_f64();
        let trace = polecat::life(s).trace();
        self.claim_wait.observe([s.rig.name().to_owned().into()], seconds, Some(trace));
    }

    /// The pod of an attempt was created.
    pub(crate) fn started(&self, s: &Snapshot, now: Timestamp) {
        let last = s.ledger.as_ref().ok().and_then(|ledger| ledger.last.as_ref());
        // A wait that was imposed, such as a back-off, is not one for a slot.
        let ended =
            last.and_then(|last| Timestamp::from_second(last.until.unwrap_or(last.at)).ok());
        let claimed = s.trace.claimed.filter(|_| s.claim == ClaimFacts::Held);
        let since = [Some(s.created), claimed, ended].into_iter().flatten().max();
        let seconds = since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        let trace = polecat::life(s).trace();
        self.slot_wait.observe([s.rig.name().to_owned().into()], seconds, Some(trace));
    }

    /// Counts what is new in a ledger, which was written just now.
    pub(crate) fn recorded(&self, s: &Snapshot, after: &Ledger) {
        let empty = Ledger::default();
        let before = s.ledger.as_ref().unwrap_or(&empty);
        let rig = || Value::from(s.rig.name().to_owned());
        let trace = Some(polecat::life(s).trace());
        let ended = after.pods.iter().filter(|pod| !before.accounts_for(pod)).count() as u64;
        if let Some(last) = after.last.as_ref().filter(|_| ended > 0) {
            let (why, _) = reason::documented(last.reason.clone(), "");
            self.attempts.add([rig(), end(last.end).into(), why], ended);
        }
        let marks = after
            .marks
            .as_ref()
            .filter(|marks| before.marks.as_ref().is_none_or(|before| before.pod != marks.pod));
        if let (Some(marks), Some(last)) = (marks, &after.last) {
            let seconds = marks.ended.saturating_sub(marks.created) as f64;
            self.attempt_seconds.observe([rig(), end(last.end).into()], seconds, trace);
            if let Some(agent) = marks.agent {
                let seconds = agent.saturating_sub(marks.created) as f64;
                self.pending_seconds.observe([rig()], seconds, trace);
            }
        }
        let (old, new) = (before.respawns, after.respawns);
        for (cause, old, new) in [
            ("infrastructure", old.infrastructure, new.infrastructure),
            ("oom", old.oom, new.oom),
            ("crashed", old.crashed, new.crashed),
        ] {
            if new > old {
                self.respawns.add([rig(), cause.into()], u64::from(new - old));
            }
        }
        self.used(before, after, &rig);
        let saved = after.saved.iter().filter(|work| {
            !before.saved.iter().any(|old| old.r#ref == work.r#ref && old.commit == work.commit)
        });
        self.saves.add([rig()], saved.count() as u64);
        self.lost.add([rig()], u64::from(after.lost.is_some() && after.lost != before.lost));
    }

    /// Counts tokens and dollars that were added to a ledger.
    fn used(&self, before: &Ledger, after: &Ledger, rig: &dyn Fn() -> Value) {
        let (old, new) = (before.usage, after.usage);
        if old == new {
            return;
        }
        let model = self.model(after.model.as_deref().unwrap_or("unknown"));
        for (kind, old, new) in [
            ("input", old.input_tokens, new.input_tokens),
            ("output", old.output_tokens, new.output_tokens),
            ("cache_read", old.cache_read_tokens, new.cache_read_tokens),
            ("cache_write", old.cache_write_tokens, new.cache_write_tokens),
        ] {
            let labels = [rig(), model.clone(), kind.into()];
            self.tokens.add(labels, new.saturating_sub(old));
        }
        self.cost.add([rig(), model], (new.cost_usd - old.cost_usd).max(0.0));
    }

    /// The label of a model.
    fn model(&self, name: &str) -> Value {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b);
        if name.is_empty() || name.len() > MAX_MODEL || !name.bytes().all(is_plain) {
            return "other".into();
        }
        let mut models = self.models.lock();
        if models.contains(name) || models.len() < MAX_MODELS {
            models.insert(name.to_owned());
            return name.to_owned().into();
        }
        "other".into()
    }
}

/// Shows what is counted by rig, of the rigs that this process works for.
pub(crate) fn register_views(
    own: &PolecatMetrics,
    (metrics, shards): (&Metrics, &Shards),
    rigs: &Store<Rig>,
    admission: &Arc<Admission>,
) {
    let known = rigs.clone();
    metrics.keep_rigs(move |rig| known.get(&ObjectRef::new(rig)).is_some());
    let (own, ours) = (own.clone(), shards.clone());
    let gauges = [
        &catalogue::POLECATS.0,
        &catalogue::WAITING.0,
        &catalogue::WAITING_OLDEST.0,
        &catalogue::UNSAVED.0,
        &catalogue::UNSAVED_OLDEST.0,
    ];
    metrics.view(&gauges, move |view| {
        let now = Timestamp::now();
        let age = |since: Timestamp| now.duration_since(since).as_secs_f64().max(0.0);
        let held = |rig: &str| ours.held(rig).is_some();
        // What was learnt of a rig is not kept while another replica works for it.
        own.phases.retain(|(rig, _)| held(rig));
        own.waiting.retain(|(rig, _)| held(rig));
        own.unsaved.retain(|rig| held(rig));
        for ((rig, phase), group) in own.phases.groups() {
            view.set(&catalogue::POLECATS, [rig.into(), phase.into()], group.count as f64);
        }
        for ((rig, why), group) in own.waiting.groups() {
            let labels: [Value; 2] = [rig.into(), why];
            view.set(&catalogue::WAITING, labels.clone(), group.count as f64);
            view.set(&catalogue::WAITING_OLDEST, labels, age(group.oldest));
        }
        for (rig, group) in own.unsaved.groups() {
            view.set(&catalogue::UNSAVED, [rig.clone().into()], group.count as f64);
            view.set(&catalogue::UNSAVED_OLDEST, [rig.into()], age(group.oldest));
        }
    });
    let (admission, rigs, shards) = (admission.clone(), rigs.clone(), shards.clone());
    metrics.view(&[&catalogue::SLOTS.0, &catalogue::SLOTS_USED.0], move |view| {
        for rig in rigs.state() {
            let name = rig.metadata.name.clone().unwrap_or_default();
            if shards.held(&name).is_none() {
                continue;
            }
            let used = admission.used(&name) as f64;
            view.set(&catalogue::SLOTS_USED, [name.clone().into()], used);
            let most = f64::from(rig.spec.settings.max_polecats);
            view.set(&catalogue::SLOTS, [name.into()], most);
        }
    });
}

fn end(end: End) -> &'static str {
    match end {
        End::Done => "Done",
        End::DoneWithoutChanges => "DoneWithoutChanges",
        End::Waits => "Waits",
        End::Drained => "Drained",
        End::Retries => "Retries",
        End::Later => "Later",
        End::Stuck => "Stuck",
        End::Unknown => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use gastown_api::{Polecat, PolecatSpec};
    use gastown_core::polecat::{Last, Marks};
    use gastown_core::report::Usage;
    use gastown_metrics::page::{self, Page};

    use super::*;
    use crate::gather::{Objects, facts};

    fn snapshot(name: &str) -> Snapshot {
        let mut polecat = Polecat::new(name, PolecatSpec::of_rig("web"));
        (polecat.metadata.uid, polecat.metadata.namespace) =
            (Some(format!("uid-{name}")), Some("dev".into()));
        facts(&polecat, Objects::default())
    }

    fn page(metrics: &Metrics) -> Page {
        page::read(&metrics.encode().unwrap()).unwrap()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add_pod("pod-1", &[]);
        ledger.last = Some(Last {
            end: End::Retries,
            reason: "OOMKilled".into(),
            message: String::new(),
            at: 1000,
            until: None,
            saved: Some(true),
        });
        ledger.marks = Some(Marks {
            attempt: 1,
            pod: "pod-1".into(),
            created: 400,
            agent: Some(430),
            ended: 1000,
            ..Marks::default()
        });
        ledger.respawns.oom = 1;
        ledger.model = Some("opus".into());
        ledger.usage =
            Usage { input_tokens: 700, output_tokens: 30, cost_usd: 0.25, ..Usage::default() };
        ledger
    }

    #[test]
    fn the_end_of_an_attempt_is_counted_once_with_what_it_cost() {
        let metrics = Metrics::default();
        let own = PolecatMetrics::new(&metrics);
        let (mut s, after) = (snapshot("toast"), ledger());
        own.recorded(&s, &after);
        // Written again for another reason.
        s.ledger = Ok(after.clone());
        own.recorded(&s, &Ledger { retry: Some("2".into()), ..after });
        let page = page(&metrics);
        let value = |series: &str, labels: &[(&str, &str)]| {
            let labels = [&[("rig", "web")], labels].concat();
            page.value(series, &labels).unwrap_or(f64::NAN).to_string()
        };
        let end = ("end", "Retries");
        assert_eq!(value("gastown_polecat_attempts_total", &[end, ("reason", "OOMKilled")]), "1");
        assert_eq!(value("gastown_polecat_respawns_total", &[("cause", "oom")]), "1");
        let of = |kind| [("model", "opus"), ("type", kind)];
        assert_eq!(value("gastown_polecat_tokens_total", &of("input")), "700");
        assert_eq!(value("gastown_polecat_tokens_total", &of("output")), "30");
        assert_eq!(value("gastown_polecat_cost_usd_total", &[("model", "opus")]), "0.25");
        assert_eq!(value("gastown_polecat_attempt_duration_seconds_sum", &[end]), "600");
        assert_eq!(value("gastown_polecat_attempt_duration_seconds_count", &[end]), "1");
        assert_eq!(value("gastown_polecat_attempt_pending_seconds_sum", &[]), "30");
        let bucket = page
            .sample(
                "gastown_polecat_attempt_pending_seconds_bucket",
                &[("rig", "web"), ("le", "30.0")],
            )
            .unwrap();
        let trace = polecat::life(&s).trace().to_string();
        assert_eq!(bucket.exemplar.as_ref().unwrap()["trace_id"], trace);
    }

    #[test]
    fn an_agent_cannot_make_up_labels() {
        let own = PolecatMetrics::new(&Metrics::default());
        assert_eq!(own.model("a b\n"), "other");
        assert_eq!(own.model(&"x".repeat(65)), "other");
        let names: BTreeSet<Value> = (0..100).map(|n| own.model(&format!("m-{n}"))).collect();
        assert_eq!(names.len(), MAX_MODELS + 1, "the last ones are other");
        assert_eq!(own.model("m-0"), "m-0");
    }

    #[test]
    fn a_polecat_is_in_the_group_of_its_status_until_it_is_gone() {
        let own = PolecatMetrics::new(&Metrics::default());
        let s = snapshot("toast");
        let ready = |status: &str, reason: &str, at: i64| {
            let time = Timestamp::from_second(at).unwrap().to_string();
            serde_json::json!({"type": "Ready", "status": status, "reason": reason, "message": "",
                "lastTransitionTime": time})
        };
        let status = |phase: &str, ready: serde_json::Value| -> PolecatStatus {
            serde_json::from_value(serde_json::json!({"phase": phase, "conditions": [ready]}))
                .unwrap()
        };
        let now = Timestamp::from_second(500).unwrap();
        own.show(&s, &status("Idle", ready("False", "AtCapacity", 100)), now);
        let group = |count, since| gastown_runtime::metrics::Group {
            count,
            oldest: Timestamp::from_second(since).unwrap(),
        };
        let waits = (("web".to_owned(), Value::from("AtCapacity")), group(1, 100));
        assert_eq!(own.waiting.groups(), [waits]);
        own.show(&s, &status("Working", ready("True", "PodRunning", 200)), now);
        assert_eq!(own.waiting.groups(), []);
        let phases: Vec<_> = own.phases.groups().into_iter().map(|(key, _)| key).collect();
        assert_eq!(phases, [("web".to_owned(), "Working")]);
        own.forget(&s.uid);
        assert_eq!(own.phases.groups(), []);
    }
}
