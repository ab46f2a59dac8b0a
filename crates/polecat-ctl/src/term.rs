//! The beginning of our work on a shard: nothing is decided on caches that are behind what the
//! process before has written.

use std::collections::HashMap;
use std::time::Duration;

use gastown_api::names::label;
use gastown_core::admission::Candidate;
use gastown_core::polecat::{Snapshot, assess};
use gastown_runtime::answers;
use gastown_runtime::own_writes::resource_version;
use gastown_runtime::shards::{self, SHARDS};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use crate::context::Context;
use crate::error::{Error, api_error};
use crate::gather;
use crate::pod::AgentPod;

/// How often the cache is compared with the list.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The list is read again after this long: a pod of it may have been deleted since.
const LIST_EVERY: Duration = Duration::from_secs(3);
/// A cache that is behind for longer than this fails the reconcile, which is tried again.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Before the first decision for a rig in a term the cache has all pods that exist, and all Polecats of
/// its shard that hold or want a slot are known. Later calls of the term return at once.
pub(crate) async fn begin(ctx: &Context, rig: &str) -> Result<(), Error> {
    let shards = &ctx.runtime.shards;
    let mut counted = ctx.counted_terms.lock().await;
    let Some(term) = shards.held(rig) else { return Ok(()) };
    if counted.get(&shards::of(rig)) == Some(&term) {
        return Ok(());
    }
    // Those that were taken at the same time begin together.
    let held = (0..SHARDS).filter_map(|shard| Some((shard, shards.term(shard)?)));
    let begins: Vec<(usize, u64)> =
        held.filter(|(shard, term)| counted.get(shard) != Some(term)).collect();
    reach_the_present(ctx).await?;
    let is_in = |rig: &str| begins.iter().any(|(shard, _)| *shard == shards::of(rig));
    count_slots(ctx, is_in);
    counted.extend(begins);
    Ok(())
}

/// Waits until the cache has every pod of a list that the API server reads from etcd, in that
/// version or a later one.
async fn reach_the_present(ctx: &Context) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let listed = list(ctx).await?;
        let since = Instant::now();
        loop {
            let behind = behind(&listed, &ctx.stores.pods.state());
            if behind == 0 {
                return Ok(());
            }
            if began.elapsed() >= MAX_WAIT {
                return Err(Error::Behind { pods: behind });
            }
            tokio::time::sleep(LOOK_EVERY).await;
            if since.elapsed() >= LIST_EVERY {
                break;
            }
        }
    }
}

/// The versions of all agents' pods by their uid.
async fn list(ctx: &Context) -> Result<HashMap<String, u64>, Error> {
    let api: Api<Pod> = Api::all(ctx.runtime.client.clone());
    answers::versions(&api, label::POLECAT).await.map_err(api_error("listing", "pods"))
}

/// How many pods of the list the cache does not have, or has in an earlier version.
fn behind(listed: &HashMap<String, u64>, cached: &[std::sync::Arc<AgentPod>]) -> usize {
    let cached: HashMap<String, u64> = cached
        .iter()
        .filter_map(|pod| Some((pod.uid()?, resource_version(pod.as_ref()))))
        .collect();
    listed.iter().filter(|(uid, version)| cached.get(*uid).is_none_or(|c| c < version)).count()
}

/// Before the first slot of a term is granted, all Polecats that hold or want one are known.
fn count_slots(ctx: &Context, rigs: impl Fn(&str) -> bool) {
    ctx.shared.admission.clear(&rigs);
    let now = Timestamp::now();
    for polecat in ctx.stores.polecats.state_filter(|polecat| rigs(&polecat.spec.rig)) {
        if let Some(polecat) = ctx.shared.own_polecats.newest(polecat) {
            let s = gather::snapshot(ctx, &polecat, now);
            observe_slot(ctx, &s, assess(now, &s).candidate(now, &s), now);
        }
    }
}

/// Records what a snapshot shows of its rig's slots, and has those reconciled that may get one now.
pub(crate) fn observe_slot(
    ctx: &Context,
    s: &Snapshot,
    candidate: Option<Candidate>,
    now: Timestamp,
) {
    let live = s.live(now).next().is_some();
    let next = ctx.shared.admission.observe(s.rig.name(), &s.uid, live, candidate);
    ctx.trigger(&next);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_cache_is_behind_while_a_pod_is_missing_or_older() {
        let pod = |uid: &str, version: &str| {
            let mut pod = AgentPod::default();
            (pod.metadata.uid, pod.metadata.resource_version) =
                (Some(uid.into()), Some(version.into()));
            Arc::new(pod)
        };
        let listed = HashMap::from([("a".to_owned(), 7), ("b".to_owned(), 12)]);
        assert_eq!(behind(&listed, &[]), 2);
        assert_eq!(behind(&listed, &[pod("a", "7"), pod("b", "9")]), 1);
        let more = [pod("a", "8"), pod("b", "12"), pod("c", "1")];
        assert_eq!(behind(&listed, &more), 0, "pods that were deleted since do no harm");
    }
}
