//! What one process knows: stores, indices, own writes, seats, what submitting came to.

use std::collections::HashMap;
use std::sync::Arc;

use gastown_api::{BeadStore, MergeRequest, Polecat, Rig};
use gastown_core::polecat::{AlarmFacts, Refused, RemarkFacts, SubmitFacts};
use gastown_runtime::Runtime;
use gastown_runtime::grpc::Remote;
use gastown_runtime::watch::Trigger;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use crate::index::Index;
use crate::pod::{Images, Witness};
use crate::seats::Seats;
use gastown_runtime::own_writes::OwnWrites;

/// What this process remembers of one Polecat; losing it costs a repeated call.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Submitting.
    pub submit: SubmitFacts,
    /// How often in a row it failed.
    pub submit_failures: u32,
    /// A refused pod.
    pub refused: Option<Refused>,
    /// How often in a row.
    pub refusals: u32,
    /// Commenting on the bead.
    pub remark: RemarkFacts,
    /// Telling the witness.
    pub alarm: AlarmFacts,
}

/// What is remembered, by uid.
pub type Memories = Mutex<HashMap<String, Memory>>;

/// The Polecat of a key, `namespace/name`.
pub fn reference(key: &str) -> Option<ObjectRef<Polecat>> {
    let (namespace, name) = key.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

/// Shared by all reconciles.
pub struct Context {
    /// The common shell.
    pub runtime: Runtime,
    /// What pods are made of.
    pub images: Images,
    /// Where witness-ctl is, if there is one.
    pub witness: Option<String>,
    /// witness-ctl, if there is one.
    pub escalations: Option<Remote>,
    /// refinery-ctl.
    pub queue: Remote,
    /// beadstore-ctl.
    pub beads: Remote,
    /// Polecats.
    pub polecats: Store<Polecat>,
    /// Rigs.
    pub rigs: Store<Rig>,
    /// Agents' pods.
    pub pods: Store<Pod>,
    /// MergeRequests.
    pub requests: Store<MergeRequest>,
    /// BeadStores.
    pub bead_stores: Store<BeadStore>,
    /// Claims on beads.
    pub claims: Store<Lease>,
    /// Pods by the uid of their Polecat.
    pub pods_of: Index<Pod>,
    /// MergeRequests by the uid of their Polecat.
    pub requests_of: Index<MergeRequest>,
    /// Own writes of Polecats.
    pub own_polecats: OwnWrites<Polecat>,
    /// Own writes of pods.
    pub own_pods: Arc<OwnWrites<Pod>>,
    /// Own writes of claims, and what the API server said of others.
    pub own_claims: Arc<OwnWrites<Lease>>,
    /// Slots.
    pub seats: Arc<Seats>,
    /// For which holding of the lease the seats are complete.
    pub seated: Mutex<Option<i32>>,
    /// By uid.
    pub memory: Arc<Memories>,
    /// Has Polecats looked at.
    pub trigger: Trigger<Polecat>,
}

impl Context {
    /// The Polecat's pods as they are known to be.
    pub fn pods(&self, polecat_uid: &str) -> Vec<Arc<Pod>> {
        let cached = self.pods_of.of(polecat_uid, &self.pods);
        let seen: Vec<String> = cached.iter().filter_map(|p| p.uid()).collect();
        let mut pods: Vec<Arc<Pod>> =
            cached.into_iter().filter_map(|p| self.own_pods.newest(p)).collect();
        let ours = |p: &Pod| crate::gather::owner_uid(p) == Some(polecat_uid);
        pods.extend(self.own_pods.unseen(ours, |uid| seen.iter().any(|s| s == uid)));
        pods
    }

    /// One of them.
    pub fn pod(&self, polecat_uid: &str, pod_uid: &str) -> Option<Arc<Pod>> {
        self.pods(polecat_uid).into_iter().find(|p| p.uid().as_deref() == Some(pod_uid))
    }

    /// The rig of a name.
    pub fn rig(&self, name: &str) -> Option<Arc<Rig>> {
        self.rigs.get(&ObjectRef::new(name))
    }

    /// Whether a rig has beads to be read.
    pub fn has_beads(&self, rig: &str) -> bool {
        self.bead_stores
            .state()
            .iter()
            .any(|store| store.spec.rig_ref == rig && store.metadata.deletion_timestamp.is_none())
    }

    /// A claim as it is known to be.
    pub fn claim(&self, name: &str) -> Option<Arc<Lease>> {
        let cached = self.claims.get(&ObjectRef::new(name).within(&self.runtime.args.namespace));
        let seen = cached.as_ref().and_then(|lease| lease.uid());
        let known = cached.and_then(|lease| self.own_claims.newest(lease));
        known.or_else(|| {
            self.own_claims
                .unseen(|lease| lease.name_any() == name, |uid| seen.as_deref() == Some(uid))
                .pop()
        })
    }

    /// Whether there is a Polecat of this uid (at `key`, most likely), or a pod of it that may
    /// still work.
    pub fn knows(&self, key: &str, uid: &str) -> bool {
        let is = |polecat: &Arc<Polecat>| polecat.uid().as_deref() == Some(uid);
        let over = |pod: &Pod| {
            matches!(
                pod.status.as_ref().and_then(|s| s.phase.as_deref()),
                Some("Succeeded" | "Failed")
            )
        };
        reference(key).and_then(|at| self.polecats.get(&at)).as_ref().is_some_and(is)
            || self.polecats.state().iter().any(is)
            || self.pods(uid).iter().any(|pod| !over(pod))
    }

    /// What is remembered of a Polecat.
    pub fn recall(&self, uid: &str) -> Memory {
        self.memory.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered.
    pub fn remember(&self, uid: &str, change: impl FnOnce(&mut Memory)) {
        change(self.memory.lock().entry(uid.to_owned()).or_default());
    }

    /// Has the Polecats of these keys (`namespace/name`) looked at. A full queue drops them: the
    /// next look comes anyway.
    pub fn wake(&self, keys: &[String]) {
        for polecat in keys.iter().filter_map(|key| reference(key)) {
            self.trigger.try_send(polecat);
        }
    }
}

impl Context {
    /// What a pod is made of now. A witness whose authority cannot be told holds no pod back: the
    /// work comes first.
    pub fn images(&self) -> Images {
        let file = self.runtime.args.tls_dir.join("ca.crt");
        let witness = self.witness.as_ref().and_then(|endpoint| match std::fs::read_to_string(&file) {
            Ok(ca) => Some(Witness { endpoint: endpoint.clone(), ca }),
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "a pod is made that cannot tell the witness what its agent does");
                None
            }
        });
        Images { witness, ..self.images.clone() }
    }
}
