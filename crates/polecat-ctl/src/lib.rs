//! The polecat controller: one pod for each attempt at a task, until its branch is on the remote
//! and submitted.
//!
//! The rules are in `gastown_core::polecat`; here are the objects. It must not know how work is
//! tested or landed.

mod act;
mod beads;
mod claims;
mod context;
mod escalations;

mod gather;
mod index;
mod orphans;
pub mod pod;
mod reconcile;
mod report;
mod seats;

use std::sync::{Arc, OnceLock};

use gastown_api::names::label;
use gastown_api::{BeadStore, MergeRequest, Polecat, Rig};
use gastown_runtime::Runtime;
use gastown_runtime::controller::Controller;
use gastown_runtime::grpc::Remote;
use gastown_runtime::watch::{Triggers, Watch, triggers};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::claims::Links;
use crate::context::{Context, Memories, reference};
use crate::index::Index;
use crate::pod::Images;
use crate::seats::Seats;
use gastown_runtime::own_writes::OwnWrites;

/// What this controller alone is told.
#[derive(clap::Args, Clone, Debug)]
pub struct PolecatArgs {
    /// The image of agents and of the containers beside them
    #[arg(long, env = "GASTOWN_AGENT_IMAGE")]
    pub agent_image: String,
    /// Another image for git-init and git-sync
    #[arg(long, env = "GASTOWN_GIT_IMAGE")]
    pub git_image: Option<String>,
    /// Another image for agents that name none
    #[arg(long, env = "GASTOWN_CLAUDE_IMAGE")]
    pub claude_image: Option<String>,
    /// When images that the installation names are pulled
    #[arg(long, env = "GASTOWN_AGENT_PULL_POLICY")]
    pub agent_pull_policy: Option<String>,
    /// Where refinery-ctl serves the merge queue; by default its Service in the installation's
    /// namespace
    #[arg(long, env = "GASTOWN_REFINERY_ENDPOINT")]
    pub refinery_endpoint: Option<String>,
    /// Where beadstore-ctl serves beads; by default its Service in the installation's namespace
    #[arg(long, env = "GASTOWN_BEADSTORE_ENDPOINT")]
    pub beadstore_endpoint: Option<String>,
    /// Where witness-ctl is heard by agents' pods, such as
    /// https://witness-ctl.gastown-system.svc:9443; without it nobody is told what agents do
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
    /// Leave user and group ids of pods to the platform (OpenShift)
    #[arg(long, env = "GASTOWN_PLATFORM_IDS")]
    pub platform_ids: bool,
}

impl PolecatArgs {
    fn images(&self) -> Images {
        let image = |other: &Option<String>| {
            other.clone().filter(|i| !i.is_empty()).unwrap_or_else(|| self.agent_image.clone())
        };
        Images {
            git: image(&self.git_image),
            agent: image(&self.claude_image),
            pull: self.agent_pull_policy.clone().filter(|p| !p.is_empty()),
            fixed_ids: !self.platform_ids,
            // its authority's certificate is read for each pod
            witness: None,
        }
    }

    fn refinery(&self, namespace: &str) -> String {
        endpoint(self.refinery_endpoint.as_ref(), "refinery-ctl", namespace)
    }

    fn witness(&self) -> Option<String> {
        self.witness_endpoint.clone().filter(|u| !u.is_empty())
    }

    fn bead_store(&self, namespace: &str) -> String {
        endpoint(self.beadstore_endpoint.as_ref(), "beadstore-ctl", namespace)
    }
}

fn endpoint(said: Option<&String>, service: &str, namespace: &str) -> String {
    said.filter(|u| !u.is_empty())
        .cloned()
        .unwrap_or_else(|| format!("https://{service}.{namespace}.svc:9443"))
}

/// What is to be looked at.
struct Queues {
    polecats: Triggers<Polecat>,
    pods: Triggers<Pod>,
    claims: Triggers<Lease>,
}

/// Runs until the runtime drains.
pub async fn start(runtime: Runtime, args: PolecatArgs) -> anyhow::Result<()> {
    let (context, queues) = watch(&runtime, &args);
    let looks =
        Controller { name: "polecat", store: context.polecats.clone(), triggers: queues.polecats };
    let sweep =
        Controller { name: "polecat-orphans", store: context.pods.clone(), triggers: queues.pods };
    let claims = Controller {
        name: "polecat-claims",
        store: context.claims.clone(),
        triggers: queues.claims,
    };
    tokio::join!(
        looks.run(&runtime, context.clone(), reconcile::reconcile),
        sweep.run(&runtime, context.clone(), orphans::reconcile),
        claims.run(&runtime, context.clone(), claims::sweep),
    );
    Ok(())
}

fn watch(runtime: &Runtime, args: &PolecatArgs) -> (Arc<Context>, Queues) {
    let (trigger, triggered) = triggers::<Polecat>();
    let (sweep, swept) = triggers::<Pod>();
    let (claim, claimed) = triggers::<Lease>();
    let links = Links::new(claim.clone());
    let (pods_of, requests_of) = (Index::<Pod>::default(), Index::<MergeRequest>::default());

    let (seats, memory) = (Arc::<Seats>::default(), Arc::<Memories>::default());
    let store = Arc::<OnceLock<Store<Polecat>>>::default();
    let (gone, slots, memories) = (store.clone(), seats.clone(), memory.clone());
    let (who, wants, town) = (store.clone(), links.clone(), runtime.args.namespace.clone());
    let polecats = Watch::<Polecat>::all(runtime)
        .notify_self(&trigger)
        .notify(&claim, move |polecat: &Polecat| {
            let there = who.get().and_then(|s| s.get(&ObjectRef::from_obj(polecat)));
            let gone = who.get().filter(|_| there.is_none_or(|p| p.uid() != polecat.uid()));
            wants.note(polecat, gone).map(|name| ObjectRef::<Lease>::new(&name).within(&town))
        })
        .notify(&trigger, move |polecat: &Polecat| {
            let there = gone.get().and_then(|s| s.get(&ObjectRef::from_obj(polecat)));
            let uid = polecat.uid().unwrap_or_default();
            if gone.get().is_none() || there.is_some_and(|p| p.uid().as_deref() == Some(&uid)) {
                return Vec::new();
            }
            memories.lock().remove(&uid);
            slots.forget(&polecat.spec.rig, &uid).iter().filter_map(|key| reference(key)).collect()
        })
        .start();
    // set before anything can be deleted: the list comes first
    let _ = store.set(polecats.clone());
    let by_rig = polecats.clone();
    let rigs = Watch::<Rig>::all(runtime)
        .notify(&trigger, move |rig: &Rig| {
            let name = rig.name_any();
            let of_rig = |p: &Arc<Polecat>| p.spec.rig == name;
            by_rig
                .state()
                .iter()
                .filter(|p| of_rig(p))
                .map(|p| ObjectRef::from_obj(p.as_ref()))
                .collect::<Vec<_>>()
        })
        .start();
    let claims = links.watch(runtime, &polecats, &trigger);
    let own_pods = Arc::<OwnWrites<Pod>>::default();
    let (index, shown) = (pods_of.clone(), own_pods.clone());
    let (authors, leases) = (polecats.clone(), claims.clone());
    let pods = Watch::<Pod>::all(runtime)
        .labels(label::POLECAT)
        .notify(&trigger, move |pod: &Pod| {
            shown.observe(pod);
            polecat_of(pod, &index)
        })
        .notify(&sweep, |pod: &Pod| [ObjectRef::from_obj(pod)])
        .notify(&claim, move |pod: &Pod| {
            let orphan = polecat_at(pod).is_none_or(|at| authors.get(&at).is_none());
            let uid = gather::owner_uid(pod).filter(|_| orphan);
            uid.map(|uid| claims::left_by(uid, &leases)).unwrap_or_default()
        })
        .start();
    let (index, by_bead, wanting, all) =
        (requests_of.clone(), requests_of.clone(), links.clone(), polecats.clone());
    let requests = Watch::<MergeRequest>::all(runtime)
        .notify(&trigger, move |request: &MergeRequest| {
            request.spec.polecat_ref.as_ref().map(|author| {
                index.note(&author.uid, request);
                ObjectRef::<Polecat>::new(&author.name)
                    .within(&request.namespace().unwrap_or_default())
            })
        })
        .notify(&trigger, move |request: &MergeRequest| {
            let Some(claim) = claims::name_of(request) else { return Vec::new() };
            by_bead.note(&claim, request);
            if claims::is_to_land(request) { Vec::new() } else { wanting.who_wants(&claim, &all) }
        })
        .start();
    let bead_stores =
        Watch::<BeadStore>::all(runtime).trim(|store: &mut BeadStore| store.status = None).start();

    let remote = |uri: &str, deadline| {
        Remote::new(uri, &runtime.args.tls_dir, &runtime.args.token_file, deadline)
    };
    let beads = remote(&args.bead_store(&runtime.args.namespace), beads::DEADLINE);
    let queue = remote(&args.refinery(&runtime.args.namespace), act::SUBMIT_DEADLINE);
    let context = Context {
        runtime: runtime.clone(),
        images: args.images(),
        escalations: args.witness().map(|uri| remote(&uri, gastown_escalations::DEADLINE)),
        witness: args.witness(),
        queue,
        beads,
        polecats,
        rigs,
        pods,
        requests,
        bead_stores,
        claims,
        pods_of,
        requests_of,
        own_polecats: OwnWrites::default(),
        own_pods,
        own_claims: links.own_writes,
        seats,
        seated: parking_lot::Mutex::default(),
        memory,
        trigger,
    };
    (Arc::new(context), Queues { polecats: triggered, pods: swept, claims: claimed })
}

/// The Polecat whose pod this is; notes the pod under it.
fn polecat_of(pod: &Pod, index: &Index<Pod>) -> Option<ObjectRef<Polecat>> {
    index.note(gather::owner_uid(pod)?, pod);
    polecat_at(pod)
}

fn polecat_at(pod: &Pod) -> Option<ObjectRef<Polecat>> {
    let uid = gather::owner_uid(pod)?;
    let owner = pod.owner_references().iter().find(|o| o.uid == uid)?;
    Some(ObjectRef::new(&owner.name).within(&pod.namespace()?))
}
