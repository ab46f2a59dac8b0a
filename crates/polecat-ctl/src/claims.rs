//! Claims on beads: Leases in the installation's namespace, named from rig and bead, holding the
//! Polecat's uid. The API server decides by create and compare-and-swap; what the cache shows is
//! only what is tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use gastown_api::names::{annotation, label, manager};
use gastown_api::{MergePhase, MergeRequest, Polecat};
use gastown_core::polecat::{ClaimFacts, ClaimRecord, Snapshot, claim_name, tame};
use gastown_runtime::Runtime;
use gastown_runtime::controller::resync;
use gastown_runtime::watch::{Trigger, Watch};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};

use crate::act::{Error, api_error};
use crate::context::{Context, reference};
use crate::index::Index;
use gastown_runtime::own_writes::OwnWrites;

/// What claims are selected by.
pub const SELECTOR: &str = "gastown.io/claim=true";

/// The Polecat's bead, unless there is none.
pub fn bead(polecat: &Polecat) -> Option<&str> {
    polecat.spec.bead_id.as_deref().filter(|bead| !bead.is_empty())
}

/// The name of the claim that a Polecat needs, if it needs one.
pub fn name_for(polecat: &Polecat) -> Option<String> {
    bead(polecat).map(|bead| claim_name(&polecat.spec.rig, bead))
}

/// Whose the Polecat's bead is, as far as the caches show.
pub fn facts(cx: &Context, polecat: &Polecat) -> ClaimFacts {
    let Some(bead) = bead(polecat) else { return ClaimFacts::NotNeeded };
    let record = cx.claim(&claim_name(&polecat.spec.rig, bead)).map(|lease| record(cx, &lease));
    let uid = polecat.uid().unwrap_or_default();
    let claim = ClaimFacts::read(&uid, &polecat.spec.rig, bead, record.as_ref());
    if claim != ClaimFacts::Free {
        return claim;
    }
    // Somebody else's request for the same bead: its Polecat may be gone, its work is not.
    let own = |r: &MergeRequest| r.spec.polecat_ref.as_ref().is_some_and(|p| p.uid == uid);
    let requests = cx.requests_of.of(&claim_name(&polecat.spec.rig, bead), &cx.requests);
    match requests.iter().find(|r| is_to_land(r) && !own(r)) {
        Some(r) => ClaimFacts::ToLand {
            request: format!("{}/{}", r.namespace().unwrap_or_default(), r.name_any()),
        },
        None => claim,
    }
}

/// Whether a request is still to land.
pub fn is_to_land(request: &MergeRequest) -> bool {
    let phase = request.status.as_ref().and_then(|s| s.phase).unwrap_or(MergePhase::Queued);
    matches!(phase, MergePhase::Queued | MergePhase::Testing)
        && request.metadata.deletion_timestamp.is_none()
}

/// The name of the claim on a request's bead, if it has one.
pub fn name_of(request: &MergeRequest) -> Option<String> {
    let bead = request.spec.bead_id.as_deref().filter(|bead| !bead.is_empty())?;
    Some(claim_name(&request.spec.rig_ref, bead))
}

fn record(cx: &Context, lease: &Lease) -> ClaimRecord {
    let said = |key| lease.annotations().get(key).cloned().unwrap_or_default();
    let (holder, polecat) = (holder(lease).to_owned(), said(annotation::CLAIM_POLECAT));
    ClaimRecord {
        rig: said(annotation::CLAIM_RIG),
        bead: said(annotation::CLAIM_BEAD),
        abandoned: !holder.is_empty() && !cx.knows(&polecat, &holder),
        polecat: tame(&polecat),
        holder,
    }
}

/// The holder's uid; empty when nobody holds it.
fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default()
}

fn leases(cx: &Context) -> Api<Lease> {
    Api::namespaced(cx.runtime.client.clone(), &cx.runtime.args.namespace)
}

fn lost(name: &str, message: &str) -> Error {
    Error::Claim { name: name.to_owned(), message: message.to_owned() }
}

/// The claim as this Polecat holds it; over what was there, where something was.
fn wanted(
    namespace: &str,
    name: &str,
    polecat: &Polecat,
    bead: &str,
    before: Option<&Lease>,
) -> Lease {
    let uid = polecat.uid().unwrap_or_default();
    let key = format!("{}/{}", polecat.namespace().unwrap_or_default(), polecat.name_any());
    let said = [
        (annotation::CLAIM_RIG, polecat.spec.rig.clone()),
        (annotation::CLAIM_BEAD, bead.to_owned()),
        (annotation::CLAIM_POLECAT, key),
    ];
    let said: BTreeMap<_, _> = said.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let changes = before.map_or(0, |b| {
        b.spec.as_ref().and_then(|s| s.lease_transitions).unwrap_or(0).saturating_add(1)
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: before.and_then(ResourceExt::uid),
            resource_version: before.and_then(ResourceExt::resource_version),
            labels: Some(BTreeMap::from([(label::CLAIM.to_owned(), "true".to_owned())])),
            annotations: Some(said),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(uid),
            acquire_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(changes),
            ..LeaseSpec::default()
        }),
    }
}

/// Takes the claim where it is free. Who was faster is known afterwards: the next look sees it.
pub async fn take(cx: &Context, polecat: &Polecat) -> Result<(), Error> {
    let Some(bead) = bead(polecat) else { return Ok(()) };
    let name = claim_name(&polecat.spec.rig, bead);
    let api = leases(cx);
    let post =
        PostParams { field_manager: Some(manager::POLECAT.to_owned()), ..PostParams::default() };
    let before = cx.claim(&name);
    if let Some(lease) = &before
        && is_there(cx, lease).await?
    {
        return Err(lost(&name, "its holder is there after all"));
    }
    let wanted = wanted(&cx.runtime.args.namespace, &name, polecat, bead, before.as_deref());
    let answer = match before {
        None => api.create(&post, &wanted).await,
        Some(_) => api.replace(&name, &post, &wanted).await,
    };
    match answer {
        Ok(lease) => {
            tracing::info!(bead, lease = name, "claimed");
            cx.own_claims.record(lease);
            Ok(())
        }
        Err(kube::Error::Api(status))
            if status.is_already_exists() || status.is_conflict() || status.is_not_found() =>
        {
            reread(cx, &name).await.map(|_| ())
        }
        Err(error) => Err(api_error("claiming", &name)(error)),
    }
}

/// What the API server has; the next look does not know less.
async fn reread(cx: &Context, name: &str) -> Result<Option<Lease>, Error> {
    let found = leases(cx).get_opt(name).await.map_err(api_error("reading claim", name))?;
    let known = cx.claim(name).and_then(|lease| lease.uid());
    if let Some(gone) =
        known.filter(|uid| found.as_ref().and_then(ResourceExt::uid).as_ref() != Some(uid))
    {
        cx.own_claims.record_deleted(&gone);
    }
    if let Some(lease) = &found {
        cx.own_claims.record(lease.clone());
    }
    Ok(found)
}

/// Asks the API server whether the claim is this Polecat's: the last thing before its pod is made.
pub async fn confirm(cx: &Context, polecat: &Polecat) -> Result<(), Error> {
    let Some(name) = name_for(polecat) else { return Ok(()) };
    let ours = reread(cx, &name)
        .await?
        .is_some_and(|lease| polecat.uid().as_deref() == Some(holder(&lease)));
    if ours { Ok(()) } else { Err(lost(&name, "it is not this Polecat's any more")) }
}

/// Gives the claim back.
pub async fn release(cx: &Context, polecat: &Polecat, s: &Snapshot) -> Result<(), Error> {
    let Some(lease) = name_for(polecat).and_then(|name| cx.claim(&name)) else { return Ok(()) };
    if holder(&lease) != s.uid {
        return Ok(());
    }
    delete(cx, &lease).await
}

/// Deletes a claim exactly as it was seen.
async fn delete(cx: &Context, lease: &Lease) -> Result<(), Error> {
    let (name, uid) = (lease.name_any(), lease.uid().unwrap_or_default());
    let preconditions =
        Preconditions { uid: Some(uid.clone()), resource_version: lease.resource_version() };
    match leases(cx)
        .delete(
            &name,
            &DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() },
        )
        .await
    {
        Ok(_) => cx.own_claims.record_deleted(&uid),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            cx.own_claims.record_deleted(&uid)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            reread(cx, &name).await?;
            return Err(lost(&name, "it has changed"));
        }
        Err(error) => return Err(api_error("releasing claim", &name)(error)),
    }
    tracing::info!(lease = name, "released");
    Ok(())
}

/// Whether the holder exists, by the API server's own word: a cache may be behind.
async fn is_there(cx: &Context, lease: &Lease) -> Result<bool, Error> {
    let uid = holder(lease);
    if uid.is_empty() {
        return Ok(false);
    }
    let key =
        lease.annotations().get(annotation::CLAIM_POLECAT).map(String::as_str).unwrap_or_default();
    if cx.knows(key, uid) {
        return Ok(true);
    }
    let Some(polecat) = reference(key) else { return Ok(false) };
    let api: Api<Polecat> = Api::namespaced(
        cx.runtime.client.clone(),
        polecat.namespace.as_deref().unwrap_or_default(),
    );
    let found =
        api.get_opt(&polecat.name).await.map_err(api_error("reading polecat", &polecat.name))?;
    Ok(found.is_some_and(|p| p.uid().as_deref() == Some(uid)))
}

/// The claims that a Polecat of this uid left behind.
pub fn left_by(uid: &str, leases: &Store<Lease>) -> Vec<ObjectRef<Lease>> {
    leases
        .state()
        .iter()
        .filter(|lease| holder(lease) == uid)
        .map(|lease| ObjectRef::from_obj(lease.as_ref()))
        .collect()
}

/// What leads from claims to the Polecats that want them. Clones share.
#[derive(Clone)]
pub struct Links {
    /// Own writes of claims, and what the API server said of others.
    pub own_writes: Arc<OwnWrites<Lease>>,
    /// Polecats by the name of the claim that they need.
    wants: Index<Polecat>,
    trigger: Trigger<Lease>,
}

impl Links {
    /// Nothing is known yet. `trigger` has claims looked at.
    pub fn new(trigger: Trigger<Lease>) -> Self {
        Self { own_writes: Arc::default(), wants: Index::default(), trigger }
    }

    /// Notes which claim a Polecat needs. One that is gone from the store needs none; the name of
    /// its claim is returned.
    pub fn note(&self, polecat: &Polecat, gone: Option<&Store<Polecat>>) -> Option<String> {
        let name = name_for(polecat)?;
        match gone {
            None => self.wants.note(&name, polecat),
            Some(store) => drop(self.wants.of(&name, store)),
        }
        gone.map(|_| name)
    }

    /// The Polecats that need a claim.
    pub fn who_wants(&self, name: &str, polecats: &Store<Polecat>) -> Vec<ObjectRef<Polecat>> {
        self.wants.of(name, polecats).iter().map(|p| ObjectRef::from_obj(p.as_ref())).collect()
    }

    /// Starts the watch: a claim that changes or goes has all who want it looked at.
    pub fn watch(
        &self,
        runtime: &Runtime,
        polecats: &Store<Polecat>,
        trigger: &Trigger<Polecat>,
    ) -> Store<Lease> {
        let (links, polecats) = (self.clone(), polecats.clone());
        Watch::<Lease>::namespaced(runtime, &runtime.args.namespace)
            .labels(SELECTOR)
            .notify_self(&self.trigger)
            .notify(trigger, move |lease: &Lease| {
                links.own_writes.observe(lease);
                links.who_wants(&lease.name_any(), &polecats)
            })
            .start()
    }
}

/// Looks at one claim: one whose holder is gone without giving it back is taken away, whether or
/// not anybody waits for it.
pub async fn sweep(lease: Arc<Lease>, cx: Arc<Context>) -> Result<Action, Error> {
    let Some(lease) = cx.own_claims.newest(lease) else { return Ok(Action::await_change()) };
    let said = record(&cx, &lease);
    // a Lease of another name than its words have is none of ours
    let ours = lease.name_any() == claim_name(&said.rig, &said.bead);
    if ours && (said.holder.is_empty() || said.abandoned) && !is_there(&cx, &lease).await? {
        delete(&cx, &lease).await?;
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
    fn a_claim_says_whose_it_is_to_programs_and_to_people() {
        let name = name_for(&polecat("web-1")).unwrap();
        let lease = wanted("town", &name, &polecat("web-1"), "web-1", None);
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
        let mut before = wanted("town", "claim-x", &polecat("web-1"), "web-1", None);
        (before.metadata.resource_version, before.metadata.uid) =
            (Some("7".into()), Some("lease".into()));
        let after = wanted("town", "claim-x", &polecat("web-1"), "web-1", Some(&before));
        assert_eq!(
            (after.resource_version().as_deref(), after.uid().as_deref()),
            (Some("7"), Some("lease"))
        );
        assert_eq!(after.spec.unwrap().lease_transitions, Some(1));
    }
}
