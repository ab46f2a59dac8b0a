//! Carries out a [`Plan`]; no judgement.

use std::collections::BTreeMap;

use gastown_api::names::{annotation, label, manager};
use gastown_api::{Convoy, Polecat, PolecatSpec, Rig};
use gastown_core::convoy::{Announcement, End, NewPolecat, Plan};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use gastown_types::is_label_value;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::bead_cache::ConvoyBeads;
use crate::context::Context;
use crate::error::Error;
use crate::watches::trim_polecat;

/// Records which beads are done, creates Polecats, then announces the end. The first write that
/// fails ends it; the next reconcile does the rest.
pub(crate) async fn act(
    convoy: &Convoy,
    beads: &ConvoyBeads,
    plan: &Plan,
    ctx: &Context,
) -> Result<(), Error> {
    let Plan { counted, polecats, announcement, assessment: _ } = plan;
    let mut convoy = convoy.clone();
    if let Some(counted) = counted {
        annotate(&mut convoy, annotation::CONVOY_COUNTED, Some(&counted.write()), ctx).await?;
    }
    let rig = convoy.spec.rig_ref.as_deref().and_then(|rig| ctx.rigs.get(&ObjectRef::new(rig)));
    // A Rig that has gone since the snapshot is missing in the next one.
    if let Some(rig) = rig {
        for new in polecats {
            create_polecat(&convoy, &rig, new, beads.task(&new.bead), ctx).await?;
        }
    }
    match announcement {
        Some(announcement) => announce(&mut convoy, announcement, ctx).await,
        None => Ok(()),
    }
}

/// Writes the annotation first, then publishes the Event: a crash between the two loses the Event,
/// which is better than to publish it twice.
async fn announce(
    convoy: &mut Convoy,
    announcement: &Announcement,
    ctx: &Context,
) -> Result<(), Error> {
    match announcement {
        Announcement::Publish { end, mark, message } => {
            annotate(convoy, annotation::CONVOY_TOLD, Some(mark), ctx).await?;
            let note = match end {
                End::Complete => Note::normal("Complete", "Complete", message),
                End::Failed => Note::warning("Complete", "Failed", message),
            };
            ctx.runtime.events.publish(convoy, note);
            Ok(())
        }
        Announcement::Clear => annotate(convoy, annotation::CONVOY_TOLD, None, ctx).await,
    }
}

/// Sets or removes an annotation; `convoy` is as the API server has it afterwards.
async fn annotate(
    convoy: &mut Convoy,
    key: &str,
    value: Option<&str>,
    ctx: &Context,
) -> Result<(), Error> {
    let namespace = convoy.namespace().unwrap_or_default();
    let api: Api<Convoy> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let written = apply::annotate(&api, manager::CONVOY, convoy, &[(key, value)])
        .await
        .map_err(|source| Error::Annotate { convoy: convoy.name_any(), source })?;
    if let Some(written) = written {
        *convoy = written;
    }
    Ok(())
}

/// Creates a Polecat, and records it so that it counts before the watch shows it.
async fn create_polecat(
    convoy: &Convoy,
    rig: &Rig,
    new: &NewPolecat,
    task: Option<&str>,
    ctx: &Context,
) -> Result<(), Error> {
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
    let present = match api.create(&params, &polecat).await {
        Ok(created) => {
            let message = format!("created Polecat {} for bead {}", new.name, new.bead);
            let note = Note::normal("Dispatch", "PolecatCreated", message).about(&polecat);
            ctx.runtime.events.publish(convoy, note);
            Some(created)
        }
        // The name follows from Rig and bead: somebody else was faster, and the watch is behind.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            api.get_opt(&new.name).await.map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    if let Some(mut present) = present {
        trim_polecat(&mut present);
        ctx.own_polecats.record(present);
    }
    Ok(())
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
    // A Convoy's name may be longer than a label value.
    let labels = Some(convoy.name_any())
        .filter(|name| is_label_value(name))
        .map(|name| BTreeMap::from([(label::CONVOY.to_owned(), name)]));
    let metadata = ObjectMeta {
        name: Some(new.name.clone()),
        namespace: convoy.namespace(),
        labels,
        ..ObjectMeta::default()
    };
    Polecat { metadata, spec, status: None }
}
