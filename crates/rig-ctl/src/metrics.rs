//! What this controller shows: the statuses of its Rigs, as the cache has them. What each metric means is
//! in `gastown_metrics::rig`.

use gastown_api::names::{condition, reason};
use gastown_api::{Rig, conditions};
use gastown_metrics::rig as catalogue;
use gastown_runtime::metrics::{Metrics, Value};
use gastown_runtime::shards::Shards;
use kube::runtime::reflector::Store;

/// Registers the gauges.
pub(crate) fn register(metrics: &Metrics, shards: &Shards, rigs: &Store<Rig>) {
    let (rigs, shards) = (rigs.clone(), shards.clone());
    metrics.view(&[&catalogue::READY.0, &catalogue::CONVOYS.0], move |view| {
        for rig in rigs.state() {
            let name = rig.metadata.name.clone().unwrap_or_default();
            let (Some(status), true) = (&rig.status, shards.held(&name).is_some()) else {
                continue;
            };
            let name = || Value::from(name.clone());
            if let Some(ready) = conditions::find(&status.conditions, condition::READY) {
                let (why, _) = reason::documented(ready.reason.clone(), "");
                let value = if ready.status == "True" { 1.0 } else { 0.0 };
                view.set(&catalogue::READY, [name(), why], value);
            }
            view.set(&catalogue::CONVOYS, [name()], f64::from(status.active_convoys));
        }
    });
}

#[cfg(test)]
mod tests {
    use gastown_fakes::stores::filled;
    use gastown_metrics::page;
    use serde_json::json;

    use super::*;

    #[test]
    fn rigs_are_shown_by_the_replica_that_works_for_them() {
        let spec = json!({"gitURL": "https://host/web.git", "beadsPrefix": "gt"});
        let mut rig = Rig::new("web", serde_json::from_value(spec).unwrap());
        let status = json!({"activeConvoys": 2, "conditions": [{
            "type": "Ready", "status": "False", "reason": "SomethingNew", "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }]});
        rig.status = Some(serde_json::from_value(status).unwrap());
        let rigs = filled([rig]);
        let shown = |shards: &Shards| {
            let metrics = Metrics::default();
            register(&metrics, shards, &rigs);
            page::read(&metrics.encode().unwrap()).unwrap()
        };
        let page = shown(&Shards::all());
        assert_eq!(page.differences("rig-ctl"), [""; 0]);
        let ready = [("rig", "web"), ("reason", "Other")];
        assert_eq!(page.value("gastown_rig_ready", &ready), Some(0.0));
        assert_eq!(page.value("gastown_rig_convoys", &[("rig", "web")]), Some(2.0));
        let elsewhere = shown(&Shards::elsewhere([10, 0, 0, 7].into()));
        assert_eq!(elsewhere.value("gastown_rig_convoys", &[("rig", "web")]), None);
    }
}
