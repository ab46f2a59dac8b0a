//! Keeps the network policy of agents' pods as it is to be, before any of them starts.

use gastown_api::names::manager;
use gastown_api::{Polecat, Rig};
use gastown_core::polecat::NetworkProblem;
use gastown_runtime::network;
use gastown_runtime::ours;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::context::Context;
use crate::error::Error;
use crate::pod::{policy, policy_name};

/// A policy that cannot be written is tried again after this time.
const RETRY: SignedDuration = SignedDuration::from_secs(20);

/// Brings the policy of the Polecat's namespace to what is wanted. Where that fails the reason is
/// remembered for every Polecat of the rig in the namespace: none of them starts until it is written.
pub(crate) async fn ensure(ctx: &Context, polecat: &Polecat, now: Timestamp) {
    let namespace = polecat.namespace().unwrap_or_default();
    // Without the rig nothing starts either.
    let rig = ctx.rig(&polecat.spec.rig).filter(|rig| has_policies(rig, &namespace));
    let Some(rig) = rig else { return };
    let failed = ctx.network_problem(&namespace, &rig.name_any());
    if failed.is_some_and(|failed| failed.until > now) {
        return;
    }
    let key = (namespace, rig.name_any());
    let written = write(ctx, &rig, &key.0).await;
    let problem = written.err().map(|error| {
        let message = format!(
            "no agent starts without its network policy, which cannot be written: {}",
            error.sentence()
        );
        NetworkProblem { message, until: now.checked_add(RETRY).unwrap_or(now) }
    });
    let mut problems = ctx.shared.network_problems.lock();
    match problem {
        Some(problem) => drop(problems.insert(key, problem)),
        None => drop(problems.remove(&key)),
    }
}

/// Whether the rig's Polecats may work in the namespace. A policy that is there already stays where they
/// may not: pods may still run.
fn has_policies(rig: &Rig, namespace: &str) -> bool {
    rig.metadata.deletion_timestamp.is_none() && rig.spec.admits(namespace)
}

async fn write(ctx: &Context, rig: &Rig, namespace: &str) -> Result<(), Error> {
    let key = ObjectRef::<NetworkPolicy>::new(&policy_name(&rig.name_any())).within(namespace);
    let present = ctx.stores.network_policies.get(&key);
    let present = present.filter(|policy| ours::controls(rig, policy.as_ref()));
    let wanted = policy(rig, namespace, &ctx.runtime.args.namespace, &ctx.network); // pure
    let client = ctx.runtime.client.clone();
    network::ensure(client, manager::POLECAT, present.as_deref(), wanted.as_ref()).await?;
    Ok(())
}
