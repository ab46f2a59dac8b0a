//! What this controller shows: the statuses of the BeadStores of its rigs, as the caches have them. What
//! each metric means is in `gastown_metrics::beadstore`.

use gastown_api::conditions::is_true;
use gastown_api::names::condition;
use gastown_api::{BeadStore, Rig};
use gastown_metrics::beadstore as catalogue;
use gastown_runtime::metrics::{Metrics, Shown, Value};
use gastown_runtime::shards::Shards;
use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};

/// The statuses of beads that are shown by their name: a store may have any.
const STATUSES: [&str; 4] = ["open", "in_progress", "blocked", "closed"];

/// Registers the gauges.
pub(crate) fn register(
    metrics: &Metrics,
    shards: &Shards,
    stores: &Store<BeadStore>,
    rigs: &Store<Rig>,
) {
    let rigs = rigs.clone();
    metrics.keep_rigs(move |rig| rigs.get(&ObjectRef::new(rig)).is_some());
    let (stores, shards) = (stores.clone(), shards.clone());
    let gauges = [
        &catalogue::SYNCED.0,
        &catalogue::SYNC_AGE.0,
        &catalogue::PENDING.0,
        &catalogue::BEADS.0,
        &catalogue::READY.0,
    ];
    metrics.view(&gauges, move |view| {
        for store in stores.state() {
            if shards.held(&store.spec.rig_ref).is_some() && !store.spec.suspend {
                show(view, &store, Timestamp::now());
            }
        }
    });
}

/// What a BeadStore's status shows; one that has not been read yet shows only that it is not synced.
fn show(view: &mut Shown, store: &BeadStore, now: Timestamp) {
    let rig = || Value::from(store.spec.rig_ref.clone());
    let Some(status) = &store.status else {
        view.set(&catalogue::SYNCED, [rig()], 0.0);
        return;
    };
    let synced = is_true(&status.conditions, condition::SYNCED);
    view.raise(&catalogue::SYNCED, [rig()], if synced { 1.0 } else { 0.0 });
    if let Some(last) = &status.last_sync_time {
        let age = now.duration_since(last.0).as_secs_f64().max(0.0);
        view.raise(&catalogue::SYNC_AGE, [rig()], age);
    }
    let pending = status.pending_writes.unwrap_or_default();
    view.add(&catalogue::PENDING, [rig()], f64::from(pending));
    view.add(&catalogue::READY, [rig()], f64::from(status.ready_count.unwrap_or_default()));
    for (status, count) in &status.by_status {
        let shown = STATUSES.into_iter().find(|known| known == status).unwrap_or("other");
        view.add(&catalogue::BEADS, [rig(), shown.into()], f64::from(*count));
    }
}

#[cfg(test)]
mod tests {
    use gastown_fakes::stores::filled;
    use gastown_metrics::page;
    use serde_json::json;

    use super::*;

    #[test]
    fn stores_are_shown_by_the_replica_that_works_for_their_rig() {
        let read = |value: serde_json::Value| serde_json::from_value::<BeadStore>(value).unwrap();
        let synced = json!({"type": "Synced", "status": "True", "reason": "UpToDate", "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z"});
        let web = read(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "BeadStore",
            "metadata": {"name": "web", "namespace": "dev"},
            "spec": {"rigRef": "web", "prefix": "web"},
            "status": {"issueCount": 9, "lastSyncTime": "2026-01-02T03:04:05Z", "pendingWrites": 3,
                "readyCount": 4, "byStatus": {"open": 5, "tombstone": 1, "odd": 3},
                "conditions": [synced]},
        }));
        let spec = json!({"gitURL": "https://host/web.git", "beadsPrefix": "web"});
        let rigs = filled([Rig::new("web", serde_json::from_value(spec).unwrap())]);
        let stores = filled([web]);
        let shown = |shards: &Shards| {
            let metrics = Metrics::default();
            register(&metrics, shards, &stores, &rigs);
            page::read(&metrics.encode().unwrap()).unwrap()
        };
        let page = shown(&Shards::all());
        assert_eq!(page.differences("beadstore-ctl"), [""; 0]);
        let value = |series| page.value(series, &[("rig", "web")]);
        assert_eq!(value("gastown_beadstore_synced"), Some(1.0));
        assert_eq!(value("gastown_beadstore_pending_writes"), Some(3.0));
        assert_eq!(value("gastown_beadstore_ready_beads"), Some(4.0));
        assert!(value("gastown_beadstore_sync_age_seconds").unwrap() > 0.0);
        let beads =
            |status| page.value("gastown_beadstore_beads", &[("rig", "web"), ("status", status)]);
        assert_eq!((beads("open"), beads("other"), beads("odd")), (Some(5.0), Some(4.0), None));
        let elsewhere = shown(&Shards::elsewhere([10, 0, 0, 7].into()));
        assert_eq!(elsewhere.value("gastown_beadstore_synced", &[("rig", "web")]), None);
    }
}
