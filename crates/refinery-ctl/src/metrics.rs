//! What this controller counts and shows; what each metric means is in `gastown_metrics::refinery`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gastown_api::names::reason;
use gastown_api::{MergePhase, Refinery, Rig};
use gastown_core::train::End;
use gastown_metrics::refinery as catalogue;
use gastown_runtime::metrics::{Counter, Histogram, Metrics, Value};
use gastown_runtime::shards::Shards;
use gastown_trace::TraceId;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

/// The metrics of this controller alone.
#[derive(Clone, Debug)]
pub(crate) struct RefineryMetrics {
    merges: Counter<2>,
    ended: Counter<3>,
    merge_seconds: Histogram<1>,
    time_to_merge: Histogram<1>,
    pub gate_seconds: Histogram<1>,
    gate_run_seconds: Histogram<3>,
    pub conflicts: Counter<1>,
    pub broken_runs: Counter<1>,
    pub mismatches: Counter<1>,
    untested: Counter<1>,
    queues: Queues,
}

/// The queue of each Refinery as its last pass left it, by the Refinery's uid.
type Queues = Arc<Mutex<HashMap<String, Queue>>>;

/// The queue of a Refinery.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Queue {
    /// How many requests wait or are being tested.
    pub length: usize,
    /// When the oldest of them was created.
    pub oldest: Option<Timestamp>,
    /// Why nothing can land.
    pub blocked: Vec<Value>,
}

impl RefineryMetrics {
    /// Registers the metrics.
    pub(crate) fn new(
        metrics: &Metrics,
        shards: &Shards,
        refineries: &Store<Refinery>,
        rigs: &Store<Rig>,
    ) -> Self {
        let (rigs, queues) = (rigs.clone(), Queues::default());
        metrics.keep_rigs(move |rig| rigs.get(&ObjectRef::new(rig)).is_some());
        let (shown, refineries, shards) = (queues.clone(), refineries.clone(), shards.clone());
        let gauges = [&catalogue::QUEUE.0, &catalogue::QUEUE_OLDEST.0, &catalogue::BLOCKED.0];
        metrics.view(&gauges, move |view| {
            let now = Timestamp::now();
            let mut queues = shown.lock();
            let all = refineries.state();
            let uids: HashSet<&str> =
                all.iter().filter_map(|r| r.metadata.uid.as_deref()).collect();
            queues.retain(|uid, _| uids.contains(uid.as_str()));
            for refinery in all.iter().filter(|r| shards.held(&r.spec.rig_ref).is_some()) {
                let Some(queue) = refinery.uid().and_then(|uid| queues.get(&uid)) else { continue };
                let rig = || Value::from(refinery.spec.rig_ref.clone());
                view.add(&catalogue::QUEUE, [rig()], queue.length as f64);
                let age = queue.oldest.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
                view.raise(&catalogue::QUEUE_OLDEST, [rig()], age);
                for why in &queue.blocked {
                    view.set(&catalogue::BLOCKED, [rig(), why.clone()], 1.0);
                }
            }
        });
        Self {
            merges: metrics.counter(&catalogue::MERGES),
            ended: metrics.counter(&catalogue::ENDED),
            merge_seconds: metrics.histogram(&catalogue::MERGE_DURATION),
            time_to_merge: metrics.histogram(&catalogue::TIME_TO_MERGE),
            gate_seconds: metrics.histogram(&catalogue::GATE_SECONDS),
            gate_run_seconds: metrics.histogram(&catalogue::PIPELINE_DURATION),
            conflicts: metrics.counter(&catalogue::CONFLICTS),
            broken_runs: metrics.counter(&catalogue::GATE_FAULTS),
            mismatches: metrics.counter(&catalogue::MISMATCHES),
            untested: metrics.counter(&catalogue::UNTESTED),
            queues,
        }
    }

    /// Shows the counters of a rig from its first pass on: a query does not see the step from no series to 1.
    pub(crate) fn begin(&self, rig: &str) {
        let rig = || Value::from(rig.to_owned());
        for result in ["success", "error"] {
            self.merges.add([rig(), result.into()], 0);
        }
        for counter in [&self.conflicts, &self.broken_runs, &self.mismatches, &self.untested] {
            counter.add([rig()], 0);
        }
    }

    /// Counts the end of a request, which was recorded just now.
    pub(crate) fn ended(&self, rig: &str, end: &End) {
        let rig = || Value::from(rig.to_owned());
        let (why, _) = reason::documented(end.reason.clone(), "");
        self.ended.inc([rig(), end.phase.as_str().into(), why]);
        let result = match end.phase {
            MergePhase::Landed => "success",
            MergePhase::Rework | MergePhase::Rejected => "error",
            MergePhase::Superseded
            | MergePhase::Queued
            | MergePhase::Testing
            | MergePhase::Unknown => return,
        };
        self.merges.inc([rig(), result.into()]);
        // What somebody else pushed was found there, and no run of ours tested it.
        if let (Some(tested), Some(landed)) = (&end.tested, &end.landed)
            && tested != landed
        {
            tracing::error!(%tested, %landed, "another commit than the tested one has landed");
            self.untested.inc([rig()]);
        }
    }

    /// A request has landed so many seconds after its creation.
    pub(crate) fn landed(&self, rig: &str, seconds: f64, trace: TraceId) {
        self.merge_seconds.observe([rig.to_owned().into()], seconds, Some(trace));
        self.time_to_merge.observe([rig.to_owned().into()], seconds, Some(trace));
    }

    /// A gate run was pending and running for so many seconds.
    pub(crate) fn gate_ran(
        &self,
        rig: &str,
        result: &'static str,
        (pending, running): (Option<i64>, Option<i64>),
        trace: Option<TraceId>,
    ) {
        for (state, seconds) in [("pending", pending), ("executing", running)] {
            if let Some(seconds) = seconds {
                let labels = [rig.to_owned().into(), state.into(), result.into()];
                self.gate_run_seconds.observe(labels, seconds as f64, trace);
            }
        }
    }

    /// A pass over the queue of a Refinery has ended.
    pub(crate) fn show(&self, refinery: &Refinery, queue: Queue) {
        self.queues.lock().insert(refinery.uid().unwrap_or_default(), queue);
    }

    /// A Refinery is not active.
    pub(crate) fn forget(&self, refinery: &Refinery) {
        self.queues.lock().remove(refinery.metadata.uid.as_deref().unwrap_or_default());
    }
}
