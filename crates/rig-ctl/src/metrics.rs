//! Metrics: rig-ctl has none of its own. Those of [`gastown_runtime::metrics`] cover it:
//! `gastown_reconcile_total` and `gastown_reconcile_duration_seconds` with `controller="rig"`, and
//! `gastown_kube_requests_total` by verb and resource. The counts of a Rig are in its status.
