//! Writing the network policy of a Refinery's gates.

use gastown_api::names::{manager, reason};
use gastown_runtime::events::Note;
use gastown_runtime::{network, ours};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::error::Error;
use crate::gate;
use crate::pass::Pass;
use crate::train::{GatesHeld, Train, WaitReason, in_seconds};

/// A policy that cannot be written is tried again after this many seconds.
const RETRY: i64 = 20;

/// Brings the policy to what is wanted. Where that fails the train remembers why: no gate starts until
/// the policy is written.
pub(crate) async fn ensure_policy(pass: &Pass<'_>, train: &mut Train) {
    if train.gates_held.as_ref().is_some_and(|held| held.until > Timestamp::now()) {
        return;
    }
    let refinery = pass.refinery.as_ref();
    let name = gate::policy_name(refinery);
    let key = ObjectRef::new(&name).within(&refinery.namespace().unwrap_or_default());
    let present = pass.ctx.stores.policies.get(&key);
    let present = present.filter(|policy| ours::controls(refinery, policy.as_ref()));
    let wanted = gate::policy(refinery, &pass.gates); // pure
    let written =
        network::ensure(pass.client(), manager::REFINERY, present.as_deref(), wanted.as_ref());
    train.gates_held = written.await.err().map(|source| {
        let doing = "writing the network policy of gates, without which none starts".to_owned();
        let message = Error::Apply { doing, source }.sentence();
        tracing::warn!(message, "no gate starts");
        let why = WaitReason { reason: reason::NETWORK_POLICY_FAILED, message };
        let note = Note::warning("network", why.reason, why.message.clone());
        pass.ctx.runtime.events.publish(refinery, note);
        GatesHeld { why, until: in_seconds(RETRY) }
    });
}
