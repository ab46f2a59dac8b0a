//! Reads caches and the last reading of a store into one [`Snapshot`]; no judgement.

use std::collections::BTreeMap;

use gastown_api::names::annotation;
use gastown_api::{MergePhase, MergeRequest};
use gastown_core::beads::{Claim, Landed, Wanted, assignee};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

use crate::context::{ActiveStore, Context};
use crate::snapshot::Reading;

/// Everything that decides about an active store.
pub(crate) struct Snapshot {
    /// What the cluster wants of the rig's beads.
    pub(crate) wanted: Wanted,
    /// The last reading of the store; absent before the first one.
    pub(crate) reading: Option<Reading>,
}

/// The snapshot of an active store now.
pub(crate) fn snapshot(ctx: &Context, active: &ActiveStore) -> Snapshot {
    Snapshot {
        wanted: wanted(ctx, &active.valid.rig),
        reading: active.handle.reading(&active.valid),
    }
}

/// What the cluster wants of a rig's beads now.
pub(crate) fn wanted(ctx: &Context, rig: &str) -> Wanted {
    let claims = ctx.claims.state();
    let requests = ctx
        .requests
        .state_filter(|request| request.spec.rig_ref == rig && request.spec.bead_id.is_some());
    wanted_of(rig, claims.iter().map(AsRef::as_ref), requests.iter().map(AsRef::as_ref))
}

fn wanted_of<'a>(
    rig: &str,
    claims: impl Iterator<Item = &'a Lease>,
    requests: impl Iterator<Item = &'a MergeRequest>,
) -> Wanted {
    // A bead has one Lease; of several that name the same bead, the first by name counts.
    let mut all: BTreeMap<String, (String, Claim)> = BTreeMap::new();
    for claim in claims.filter_map(|lease| Some((lease.name_any(), claim(rig, lease)?))) {
        let first = all.entry(claim.1.bead.clone()).or_insert_with(|| claim.clone());
        if claim.0 < first.0 {
            *first = claim;
        }
    }
    let mut wanted =
        Wanted { claims: all.into_values().map(|(_, claim)| claim).collect(), ..Wanted::default() };
    let mut landed = Vec::new();
    for request in requests {
        let Some(bead) = request.spec.bead_id.clone().filter(|bead| !bead.is_empty()) else {
            continue;
        };
        let status = request.status.as_ref();
        match status.and_then(|status| status.phase) {
            Some(MergePhase::Landed) => {
                let Some(commit) = status.and_then(|status| status.landed_commit.clone()) else {
                    continue;
                };
                let at = status.and_then(|status| status.landed_at.as_ref()).map(|time| time.0);
                landed.push((
                    at,
                    Landed { bead, request: request.uid().unwrap_or_default(), commit },
                ));
            }
            Some(MergePhase::Rework | MergePhase::Rejected | MergePhase::Superseded) => {}
            // A status that was erased is written again, so the request may still land.
            // So may one in a phase of a later version.
            Some(MergePhase::Queued | MergePhase::Testing | MergePhase::Unknown) | None => {
                wanted.to_land.insert(bead);
            }
        }
    }
    landed.sort();
    wanted.landed = landed.into_iter().map(|(_, landed)| landed).collect();
    wanted
}

/// The claim of a Lease; `None` where it is of another rig or held by nobody.
fn claim(rig: &str, lease: &Lease) -> Option<Claim> {
    let text = |key: &str| lease.annotations().get(key).filter(|text| !text.is_empty());
    let holder =
        lease.spec.as_ref()?.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    let polecat = text(annotation::CLAIM_POLECAT)?;
    let name = polecat.split_once('/').map_or(polecat.as_str(), |(_, name)| name);
    let bead = text(annotation::CLAIM_BEAD)?.clone();
    let here = text(annotation::CLAIM_RIG)? == rig && lease.metadata.deletion_timestamp.is_none();
    here.then(|| Claim { bead, holder, assignee: assignee(rig, name) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(rig: &str, bead: &str, holder: &str) -> Lease {
        let annotations = json!({"gastown.io/claim-rig": rig, "gastown.io/claim-bead": bead, "gastown.io/claim-polecat": "team/nux"});
        let name = format!("claim-{rig}-{bead}");
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"holderIdentity": holder}})).unwrap()
    }

    fn request(bead: &str, phase: Option<&str>, commit: Option<&str>) -> MergeRequest {
        let spec = json!({"rigRef": "web", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main", "beadID": bead});
        let mut object = json!({"metadata": {"name": "mr", "uid": format!("uid-{bead}")}, "spec": spec, "apiVersion": "x", "kind": "y"});
        if let Some(phase) = phase {
            object["status"] = json!({"phase": phase, "landedCommit": commit});
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_held_lease_is_a_claim_of_its_rig() {
        let leases = [
            lease("web", "gt-1", "u1"),
            lease("web", "gt-2", ""),
            lease("api", "gt-3", "u3"),
            lease("web", "", "u4"),
        ];
        let wanted = wanted_of("web", leases.iter(), [].iter());
        assert_eq!(
            wanted.claims,
            [Claim {
                bead: "gt-1".into(),
                holder: "u1".into(),
                assignee: "web/polecats/nux".into()
            }]
        );
    }

    #[test]
    fn landed_requests_close_beads_and_open_ones_keep_them() {
        let requests = [
            request("gt-1", Some("Landed"), Some("abc")),
            request("gt-2", Some("Landed"), None),
            request("gt-3", Some("Testing"), None),
            request("gt-4", None, None),
            request("gt-5", Some("Rejected"), None),
        ];
        let wanted = wanted_of("web", [].iter(), requests.iter());
        assert_eq!(
            wanted.landed,
            [Landed { bead: "gt-1".into(), request: "uid-gt-1".into(), commit: "abc".into() }]
        );
        assert_eq!(wanted.to_land.into_iter().collect::<Vec<_>>(), ["gt-3", "gt-4"]);
    }
}
