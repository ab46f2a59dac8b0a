//! Carries out a [`Plan`]; no judgement.

use gastown_api::names::{annotation, finalizer, label, manager};
use gastown_api::{Convoy, MergeRequest, Polecat, PolecatSpec, Rig};
use gastown_core::convoy::{Announcement, Counted, End, NewPolecat, Plan, Snapshot};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use gastown_runtime::watch::Trim as _;
use gastown_types::is_label_value;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::bead_cache::ConvoyBeads;
use crate::context::Context;
use crate::error::Error;
use crate::gather::request_fact;
use crate::watches::OfBead;

/// Records which beads are done and whether that is the end, then creates Polecats. The first write
/// that fails ends it; the next reconcile does the rest. Returns whether a bead waits until a watch
/// has delivered what is known of it.
pub(crate) async fn act(
    convoy: &Convoy,
    snapshot: &Snapshot,
    beads: &ConvoyBeads,
    plan: &Plan,
    ctx: &Context,
) -> Result<bool, Error> {
    let Plan { counted, polecats, announcement, assessment: _ } = plan;
    record(convoy, counted.as_ref().map(Counted::write), announcement.as_ref(), ctx).await?;
    let rig = convoy.spec.rig_ref.as_deref().and_then(|rig| ctx.rigs.get(&ObjectRef::new(rig)));
    // A Rig that has gone since the snapshot is missing in the next one.
    let Some(rig) = rig else { return Ok(false) };
    let (mut created, mut waits) = (Vec::new(), false);
    let mut ended = Ok(());
    for new in polecats {
        match create_polecat(convoy, snapshot, &rig, new, beads.task(&new.bead), ctx).await {
            Ok(Creation::Done) => {
                ctx.metrics.dispatched(&rig.name_any());
                created.push(format!("{} for bead {}", new.name, new.bead));
            }
            Ok(Creation::Present) => {}
            Ok(Creation::Waits) => waits = true,
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
    }
    if !created.is_empty() {
        let message = format!("created Polecat {}", created.join(", "));
        ctx.runtime.events.publish(convoy, Note::normal("Dispatch", "PolecatCreated", message));
    }
    ended.map(|()| waits)
}

/// Records which beads are done, and the end, in one write. The Event of an end comes after it: a
/// crash between the two loses the Event, which is better than to publish it twice.
async fn record(
    convoy: &Convoy,
    counted: Option<String>,
    announcement: Option<&Announcement>,
    ctx: &Context,
) -> Result<(), Error> {
    let mut annotations = Vec::new();
    if let Some(counted) = &counted {
        annotations.push((annotation::CONVOY_COUNTED, Some(counted.as_str())));
    }
    match announcement {
        Some(Announcement::Publish { mark, .. }) => {
            annotations.push((annotation::CONVOY_ENDED, Some(mark.as_str())));
        }
        Some(Announcement::Clear) => annotations.push((annotation::CONVOY_ENDED, None)),
        None => {}
    }
    let namespace = convoy.namespace().unwrap_or_default();
    let api: Api<Convoy> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let written = apply::annotate(&api, manager::CONVOY, convoy, &annotations)
        .await
        .map_err(|source| Error::Annotate { convoy: convoy.name_any(), source })?;
    if let Some(written) = written {
        ctx.own.record(written);
    }
    if let Some(Announcement::Publish { end, message, .. }) = announcement {
        let note = match end {
            End::Complete => Note::normal("Complete", "Complete", message),
            End::Failed => Note::warning("Complete", "Failed", message),
        };
        ctx.runtime.events.publish(convoy, note);
    }
    Ok(())
}

/// What became of the creation of a Polecat.
enum Creation {
    Done,
    /// It exists already.
    Present,
    /// A watch has not delivered what is known of the bead.
    Waits,
}

/// Creates a Polecat, and records it so that it counts before the watch shows it.
async fn create_polecat(
    convoy: &Convoy,
    snapshot: &Snapshot,
    rig: &Rig,
    new: &NewPolecat,
    task: Option<&str>,
    ctx: &Context,
) -> Result<Creation, Error> {
    let unread = |source| Error::ReadRequests {
        convoy: convoy.name_any(),
        polecat: new.name.clone(),
        bead: new.bead.clone(),
        source: Box::new(source),
    };
    if is_behind(convoy, snapshot, &new.bead, ctx).await.map_err(unread)? {
        return Ok(Creation::Waits);
    }
    let failed = |source| Error::CreatePolecat {
        convoy: convoy.name_any(),
        polecat: new.name.clone(),
        source: Box::new(source),
    };
    let polecat = polecat(convoy, rig, new, task);
    let namespace = convoy.namespace().unwrap_or_default();
    let api: Api<Polecat> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let params =
        PostParams { field_manager: Some(manager::CONVOY.to_owned()), ..PostParams::default() };
    let (present, created) = match api.create(&params, &polecat).await {
        Ok(created) => (Some(created), Creation::Done),
        // The name follows from Rig and bead: somebody else was faster, and the watch is behind.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            (api.get_opt(&new.name).await.map_err(failed)?, Creation::Present)
        }
        Err(error) => return Err(failed(error)),
    };
    if let Some(mut present) = present {
        OfBead::trim(&mut present);
        ctx.own_polecats.record(present);
        ctx.worked.created(convoy, &new.bead);
    }
    Ok(created)
}

/// Whether a bead that a Polecat has worked on has a MergeRequest that was not known as it is when
/// the snapshot was taken.
async fn is_behind(
    convoy: &Convoy,
    snapshot: &Snapshot,
    bead: &str,
    ctx: &Context,
) -> Result<bool, kube::Error> {
    let Some(rig) = convoy.spec.rig_ref.as_deref().filter(|_| ctx.worked.has(convoy, bead)) else {
        return Ok(false);
    };
    let api: Api<DeserializeGuard<MergeRequest>> = Api::all(ctx.runtime.client.clone());
    let of_bead = format!("spec.rigRef={rig},spec.beadID={bead}");
    let present = api.list(&ListParams::default().fields(&of_bead)).await?;
    let known = snapshot.requests.get(bead).map_or(&[][..], Vec::as_slice);
    // One that cannot be decoded is never delivered.
    let mut present =
        present.items.into_iter().filter_map(|DeserializeGuard(request)| request.ok());
    Ok(present.any(|request| !known.contains(&request_fact(&request, &snapshot.namespace))))
}

/// The Polecat of a bead. It has no owner, so that deleting a Convoy ends no work.
fn polecat(convoy: &Convoy, rig: &Rig, new: &NewPolecat, task: Option<&str>) -> Polecat {
    let template = rig.spec.polecat_template.clone().unwrap_or_default();
    let branch = rig.spec.refinery.as_ref().and_then(|refinery| refinery.target_branch.as_deref());
    let task = task.map(ToOwned::to_owned);
    let spec = template.for_bead(&rig.name_any(), &new.bead, task, &rig.spec.git_url, branch);
    let spec = PolecatSpec {
        priority: spec.priority.or_else(|| i32::try_from(new.priority.min(4)).ok()),
        ..spec
    };
    let mut labels = label::of_polecat(&new.name, &spec.rig, spec.bead_id.as_deref());
    // A Convoy's name may be longer than a label value.
    if is_label_value(&convoy.name_any()) {
        labels.insert(label::CONVOY.to_owned(), convoy.name_any());
    }
    // With what polecat-ctl would have to add to it.
    let metadata = ObjectMeta {
        name: Some(new.name.clone()),
        namespace: convoy.namespace(),
        labels: Some(labels),
        finalizers: Some(vec![finalizer::POLECAT.to_owned()]),
        ..ObjectMeta::default()
    };
    Polecat { metadata, spec, status: None }
}
