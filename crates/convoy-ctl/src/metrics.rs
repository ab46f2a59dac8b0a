//! What this controller counts and shows; what each metric means is in `gastown_metrics::convoy`.

use gastown_api::{Convoy, Rig};
use gastown_metrics::convoy as catalogue;
use gastown_runtime::metrics::{Counter, Metrics, Value};
use gastown_runtime::shards::Shards;
use kube::runtime::reflector::{ObjectRef, Store};

/// The metrics of this controller alone. Clones share.
#[derive(Clone, Debug)]
pub(crate) struct ConvoyMetrics {
    dispatched: Counter<1>,
}

impl ConvoyMetrics {
    /// Registers the metrics.
    pub(crate) fn new(
        metrics: &Metrics,
        shards: &Shards,
        convoys: &Store<Convoy>,
        rigs: &Store<Rig>,
    ) -> Self {
        let rigs = rigs.clone();
        metrics.keep_rigs(move |rig| rigs.get(&ObjectRef::new(rig)).is_some());
        let (convoys, shards) = (convoys.clone(), shards.clone());
        metrics.view(&[&catalogue::CONVOYS.0, &catalogue::BEADS.0], move |view| {
            for convoy in convoys.state() {
                let rig = convoy.spec.rig_ref.clone().unwrap_or_default();
                let (Some(status), true) = (&convoy.status, shards.held(&rig).is_some()) else {
                    continue;
                };
                let rig = || Value::from(rig.clone());
                if let Some(phase) = status.phase {
                    view.add(&catalogue::CONVOYS, [rig(), phase.as_str().into()], 1.0);
                }
                for (phase, beads) in [
                    ("completed", &status.completed_beads),
                    ("pending", &status.pending_beads),
                    ("failed", &status.failed_beads),
                ] {
                    view.add(&catalogue::BEADS, [rig(), phase.into()], beads.len() as f64);
                }
            }
        });
        Self { dispatched: metrics.counter(&catalogue::DISPATCHED) }
    }

    /// A Polecat was created for a bead.
    pub(crate) fn dispatched(&self, rig: &str) {
        self.dispatched.inc([rig.to_owned().into()]);
    }
}

#[cfg(test)]
mod tests {
    use gastown_fakes::stores::filled;
    use gastown_metrics::page;
    use serde_json::json;

    use super::*;

    #[test]
    fn convoys_are_shown_by_rig_and_polecats_counted() {
        let convoy = json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Convoy",
            "metadata": {"name": "one", "namespace": "dev"},
            "spec": {"description": "one", "trackedBeads": ["web-1", "web-2", "web-3"], "rigRef": "web"},
            "status": {"phase": "InProgress", "completedBeads": ["web-1"],
                "pendingBeads": ["web-2", "web-3"]},
        });
        let convoys = filled([serde_json::from_value::<Convoy>(convoy).unwrap()]);
        let spec = json!({"gitURL": "https://host/web.git", "beadsPrefix": "web"});
        let rigs = filled([Rig::new("web", serde_json::from_value(spec).unwrap())]);
        let metrics = Metrics::default();
        let own = ConvoyMetrics::new(&metrics, &Shards::all(), &convoys, &rigs);
        own.dispatched("web");
        own.dispatched("gone");
        let page = page::read(&metrics.encode().unwrap()).unwrap();
        assert_eq!(page.differences("convoy-ctl"), [""; 0]);
        let beads = |phase| page.value("gastown_convoy_beads", &[("rig", "web"), ("phase", phase)]);
        assert_eq!(
            (beads("completed"), beads("pending"), beads("failed")),
            (Some(1.0), Some(2.0), Some(0.0))
        );
        let convoys = [("rig", "web"), ("phase", "InProgress")];
        assert_eq!(page.value("gastown_convoys", &convoys), Some(1.0));
        let created = |rig| page.value("gastown_convoy_dispatched_total", &[("rig", rig)]);
        assert_eq!((created("web"), created("gone")), (Some(1.0), None));
    }
}
