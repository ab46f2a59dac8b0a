//! Claims on beads: Leases in the installation's namespace, named after rig and bead, that hold the
//! Polecat's uid. The API server decides by create and compare-and-swap; what the cache shows only
//! decides what is tried.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::{annotation, label, manager};
use gastown_api::{MergeRequest, Polecat};
use gastown_core::polecat::{ClaimRecord, Snapshot, claim_name, sanitize};
use gastown_runtime::answers;
use gastown_runtime::controller::{Action, resync};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, ResourceExt};

use crate::context::{Context, polecat_ref};
use crate::error::{Error, api_error};

/// What the API server answered this short a time ago is not read again. A process that was stopped for
/// longer reads.
pub(crate) const JUST_NOW: Duration = Duration::from_secs(1);

/// The label selector of claims.
pub(crate) const SELECTOR: &str = "gastown.io/claim=true";

/// The Polecat's bead, if it has one.
pub(crate) fn bead(polecat: &Polecat) -> Option<&str> {
    polecat.spec.bead_id.as_deref().filter(|bead| !bead.is_empty())
}

/// The name of the claim that a Polecat needs, if it needs one.
pub(crate) fn name_for(polecat: &Polecat) -> Option<String> {
    bead(polecat).map(|bead| claim_name(&polecat.spec.rig, bead))
}

/// The name of the claim on a MergeRequest's bead, if it has one.
pub(crate) fn name_of(request: &MergeRequest) -> Option<String> {
    let bead = request.spec.bead_id.as_deref().filter(|bead| !bead.is_empty())?;
    Some(claim_name(&request.spec.rig_ref, bead))
}

/// A Lease as a claim.
pub(crate) fn read(ctx: &Context, lease: &Lease) -> ClaimRecord {
    let value = |key| lease.annotations().get(key).cloned().unwrap_or_default();
    let (holder, polecat) = (holder(lease).to_owned(), value(annotation::CLAIM_POLECAT));
    ClaimRecord {
        rig: value(annotation::CLAIM_RIG),
        bead: value(annotation::CLAIM_BEAD),
        abandoned: !holder.is_empty() && !ctx.is_active(&holder),
        polecat: sanitize(&polecat),
        holder,
    }
}

/// The holder's uid; empty when nobody holds it.
pub(crate) fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default()
}

/// When the holder with this uid took the claim.
pub(crate) fn taken_at(lease: &Lease, uid: &str) -> Option<Timestamp> {
    let spec = lease.spec.as_ref().filter(|spec| spec.holder_identity.as_deref() == Some(uid))?;
    spec.acquire_time.as_ref().map(|time| time.0)
}

fn leases(ctx: &Context) -> Api<Lease> {
    Api::namespaced(ctx.runtime.client.clone(), &ctx.runtime.args.namespace)
}

fn changed(name: &str, message: &str) -> Error {
    Error::Claim { name: name.to_owned(), message: message.to_owned() }
}

/// The claim as this Polecat holds it, in place of the one before.
fn wanted(
    namespace: &str,
    name: &str,
    polecat: &Polecat,
    bead: &str,
    before: Option<&Lease>,
) -> Lease {
    let uid = polecat.uid().unwrap_or_default();
    let key = format!("{}/{}", polecat.namespace().unwrap_or_default(), polecat.name_any());
    let annotations = [
        (annotation::CLAIM_RIG, polecat.spec.rig.clone()),
        (annotation::CLAIM_BEAD, bead.to_owned()),
        (annotation::CLAIM_POLECAT, key),
    ];
    let annotations: BTreeMap<_, _> =
        annotations.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let transitions = before.map_or(0, |b| {
        b.spec.as_ref().and_then(|s| s.lease_transitions).unwrap_or(0).saturating_add(1)
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: before.and_then(ResourceExt::uid),
            resource_version: before.and_then(ResourceExt::resource_version),
            labels: Some(BTreeMap::from([(label::CLAIM.to_owned(), "true".to_owned())])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(uid),
            acquire_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }),
    }
}

/// Takes the claim if it is free. Whether another Polecat was faster is seen in the next round.
pub(crate) async fn take(ctx: &Context, polecat: &Polecat, s: &Snapshot) -> Result<(), Error> {
    let Some(bead) = bead(polecat) else { return Ok(()) };
    let name = claim_name(&polecat.spec.rig, bead);
    let api = leases(ctx);
    let post =
        PostParams { field_manager: Some(manager::POLECAT.to_owned()), ..PostParams::default() };
    let before = ctx.claim(&name);
    if let Some(lease) = &before
        && holder_exists(ctx, lease).await?
    {
        return Err(changed(&name, "its holder exists after all"));
    }
    let wanted = wanted(&ctx.runtime.args.namespace, &name, polecat, bead, before.as_deref());
    let answer = match before {
        None => answers::create(&api, &post, &wanted).await,
        Some(_) => api.replace(&name, &post, &wanted).await,
    };
    match answer {
        Ok(lease) => {
            tracing::info!(bead, lease = name, "claimed");
            ctx.shared.own_claims.record(lease);
            ctx.shared.metrics.claimed(s, Timestamp::now());
            Ok(())
        }
        Err(kube::Error::Api(status))
            if status.is_already_exists() || status.is_conflict() || status.is_not_found() =>
        {
            fetch(ctx, &name).await.map(|_| ())
        }
        Err(error) => Err(api_error("claiming", &name)(error)),
    }
}

/// The claim as the API server has it; later rounds do not use an older one.
async fn fetch(ctx: &Context, name: &str) -> Result<Option<Lease>, Error> {
    let own = &ctx.shared.own_claims;
    let found = leases(ctx).get_opt(name).await.map_err(api_error("reading claim", name))?;
    let known = ctx.claim(name).and_then(|lease| lease.uid());
    if let Some(gone) =
        known.filter(|uid| found.as_ref().and_then(ResourceExt::uid).as_ref() != Some(uid))
    {
        own.record_deleted(&gone);
    }
    if let Some(lease) = &found {
        own.record(lease.clone());
    }
    Ok(found)
}

/// Makes sure that this Polecat holds the claim, the last step before its pod is created: asks the API
/// server, unless it answered just now.
pub(crate) async fn confirm(ctx: &Context, polecat: &Polecat) -> Result<(), Error> {
    let Some(name) = name_for(polecat) else { return Ok(()) };
    let known = ctx.claim(&name);
    let known = known.filter(|lease| ctx.shared.own_claims.is_answered(lease, JUST_NOW));
    let lease = match known {
        Some(lease) => Some(lease),
        None => fetch(ctx, &name).await?.map(Arc::new),
    };
    if lease.is_some_and(|lease| polecat.uid().as_deref() == Some(holder(&lease))) {
        Ok(())
    } else {
        Err(changed(&name, "this Polecat does not hold it any more"))
    }
}

/// Releases the claim.
pub(crate) async fn release(ctx: &Context, polecat: &Polecat, s: &Snapshot) -> Result<(), Error> {
    let Some(lease) = name_for(polecat).and_then(|name| ctx.claim(&name)) else { return Ok(()) };
    if holder(&lease) != s.uid {
        return Ok(());
    }
    delete(ctx, &lease).await
}

/// Deletes a claim exactly as the cache shows it.
async fn delete(ctx: &Context, lease: &Lease) -> Result<(), Error> {
    let own = &ctx.shared.own_claims;
    let (name, uid) = (lease.name_any(), lease.uid().unwrap_or_default());
    let preconditions =
        Preconditions { uid: Some(uid.clone()), resource_version: lease.resource_version() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match leases(ctx).delete(&name, &params).await {
        Ok(_) => own.record_deleted(&uid),
        Err(kube::Error::Api(status)) if status.is_not_found() => own.record_deleted(&uid),
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            fetch(ctx, &name).await?;
            return Err(changed(&name, "it was changed meanwhile"));
        }
        Err(error) => return Err(api_error("releasing claim", &name)(error)),
    }
    tracing::info!(lease = name, "released");
    Ok(())
}

/// Whether the holder exists. A cache may be behind, so the API server is asked before the answer
/// is no.
async fn holder_exists(ctx: &Context, lease: &Lease) -> Result<bool, Error> {
    let uid = holder(lease);
    if uid.is_empty() {
        return Ok(false);
    }
    if ctx.is_active(uid) {
        return Ok(true);
    }
    let key = lease.annotations().get(annotation::CLAIM_POLECAT);
    let Some(polecat) = key.and_then(|key| polecat_ref(key)) else { return Ok(false) };
    let api: Api<Polecat> = Api::namespaced(
        ctx.runtime.client.clone(),
        polecat.namespace.as_deref().unwrap_or_default(),
    );
    let found =
        api.get_opt(&polecat.name).await.map_err(api_error("reading polecat", &polecat.name))?;
    Ok(found.is_some_and(|p| p.uid().as_deref() == Some(uid)))
}

/// Reconciles one claim: one whose holder is gone without releasing it is deleted, whether or not a
/// Polecat waits for it.
pub(crate) async fn reconcile(lease: Arc<Lease>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(lease) = ctx.shared.own_claims.newest(lease) else {
        return Ok(Action::await_change());
    };
    let record = read(&ctx, &lease);
    // a Lease whose name does not follow from its annotations is not ours
    let ours = lease.name_any() == claim_name(&record.rig, &record.bead);
    let abandoned = record.holder.is_empty() || record.abandoned;
    if ours && abandoned && !holder_exists(&ctx, &lease).await? {
        delete(&ctx, &lease).await?;
        return Ok(Action::await_change());
    }
    Ok(resync())
}

#[cfg(test)]
mod tests {
    use gastown_api::PolecatSpec;

    use super::*;

    fn polecat(bead: &str) -> Polecat {
        let mut polecat = Polecat::new(
            "toast",
            PolecatSpec { bead_id: Some(bead.into()), ..PolecatSpec::of_rig("web") },
        );
        (polecat.metadata.uid, polecat.metadata.namespace) =
            (Some("0a1b".into()), Some("dev".into()));
        polecat
    }

    #[test]
    fn a_claim_of_an_earlier_version_is_read_and_today_s_is_read_by_it() {
        for sample in gastown_compat::samples("claim-lease.json") {
            let lease: Lease = serde_json::from_str(&sample.text).unwrap();
            let value = |key| lease.annotations().get(key).map(String::as_str);
            assert_eq!(holder(&lease), "0a1b2c3d-0000-0000-0000-000000000001");
            assert_eq!(value(annotation::CLAIM_RIG), Some("web"), "{}", sample.version);
            assert_eq!(value(annotation::CLAIM_BEAD), Some("ws-7k2p"), "{}", sample.version);
            assert_eq!(value(annotation::CLAIM_POLECAT), Some("team/toast"), "{}", sample.version);
            let selector: Vec<_> = SELECTOR.split('=').collect();
            assert_eq!(lease.labels()[selector[0]], selector[1], "{}", sample.version);
        }
        let lease = wanted("gastown-system", "claim-1", &polecat("web-1"), "web-1", None);
        let read = gastown_compat::v0_1_0::claim(&serde_json::json!(lease));
        assert_eq!(read, Ok(["web", "web-1", "0a1b", "dev/toast"].map(str::to_owned)));
    }

    #[test]
    fn a_claim_names_its_holder_for_programs_and_for_people() {
        let name = name_for(&polecat("web-1")).unwrap();
        let lease = wanted("gastown-system", &name, &polecat("web-1"), "web-1", None);
        assert_eq!((lease.name_any(), holder(&lease)), (claim_name("web", "web-1"), "0a1b"));
        assert_eq!(lease.annotations()["gastown.io/claim-polecat"], "dev/toast");
        assert_eq!(
            (
                lease.annotations()["gastown.io/claim-rig"].as_str(),
                lease.annotations()["gastown.io/claim-bead"].as_str()
            ),
            ("web", "web-1")
        );
        let (key, value) = SELECTOR.split_once('=').unwrap();
        assert_eq!((key, lease.labels()[key].as_str()), (label::CLAIM, value));
        assert_eq!(name_for(&polecat("")), None);
    }

    #[test]
    fn a_claim_that_is_taken_over_is_swapped_and_counted() {
        let mut before = wanted("gastown-system", "claim-x", &polecat("web-1"), "web-1", None);
        (before.metadata.resource_version, before.metadata.uid) =
            (Some("7".into()), Some("lease".into()));
        let after = wanted("gastown-system", "claim-x", &polecat("web-1"), "web-1", Some(&before));
        assert_eq!(
            (after.resource_version().as_deref(), after.uid().as_deref()),
            (Some("7"), Some("lease"))
        );
        assert_eq!(after.spec.unwrap().lease_transitions, Some(1));
    }
}
