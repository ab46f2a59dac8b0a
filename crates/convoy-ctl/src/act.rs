//! Carries out a [`Plan`]; no judgement.

use std::collections::BTreeMap;

use gastown_api::names::{annotation, label, manager};
use gastown_api::{Convoy, Polecat, PolecatSpec, Rig};
use gastown_core::convoy::{End, Feed, Plan, Tell};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::expect::Made;
use crate::gather::Asked;
use crate::{Context, Error};

/// Writes what counts, then makes the Polecats. The first refusal ends it; the rest is tried again
/// with it. Returns the convoy as it is then.
pub async fn carry_out(
    convoy: &Convoy,
    asked: &Asked,
    plan: &Plan,
    context: &Context,
) -> Result<Convoy, Error> {
    let mut present = convoy.clone();
    if let Some(counted) = &plan.count {
        let written = counted.write();
        annotate(&mut present, annotation::CONVOY_COUNTED, Some(&written), context).await?;
    }
    let rig = convoy.spec.rig_ref.as_deref().and_then(|rig| context.rigs.get(&ObjectRef::new(rig)));
    // Without its rig nothing is fed; a rig that went since is seen by the next look.
    if let Some(rig) = rig {
        for feed in &plan.feed {
            make(convoy, &rig, asked, feed, context).await?;
        }
    }
    Ok(present)
}

/// Writes that it is told, then tells it: a crash between the two tells nothing rather than twice.
pub async fn tell(convoy: &Convoy, plan: &Plan, context: &Context) -> Result<(), Error> {
    let mut present = convoy.clone();
    match &plan.tell {
        Some(Tell::End { end, mark, message }) => {
            annotate(&mut present, annotation::CONVOY_TOLD, Some(mark), context).await?;
            let note = match end {
                End::Complete => Note::normal("Complete", "Complete", message),
                End::Failed => Note::warning("Complete", "Failed", message),
            };
            context.runtime.events.publish(convoy, note);
        }
        Some(Tell::Forget) => {
            annotate(&mut present, annotation::CONVOY_TOLD, None, context).await?
        }
        None => {}
    }
    Ok(())
}

/// The API server's own sentence about a Polecat that it would not take.
pub fn refusal(error: &Error) -> Option<String> {
    match error {
        Error::Feed { source, .. } => match source.as_ref() {
            kube::Error::Api(status) => Some(status.message.clone()),
            other => Some(other.to_string()),
        },
        Error::Act { .. } | Error::Report { .. } => None,
    }
}

async fn annotate(
    convoy: &mut Convoy,
    key: &str,
    value: Option<&str>,
    context: &Context,
) -> Result<(), Error> {
    let api: Api<Convoy> =
        Api::namespaced(context.runtime.client.clone(), &convoy.namespace().unwrap_or_default());
    let written = apply::annotate(&api, manager::CONVOY, convoy, &[(key, value)]).await;
    if let Some(written) =
        written.map_err(|source| Error::Act { convoy: convoy.name_any(), source })?
    {
        *convoy = written;
    }
    Ok(())
}

async fn make(
    convoy: &Convoy,
    rig: &Rig,
    asked: &Asked,
    feed: &Feed,
    context: &Context,
) -> Result<(), Error> {
    let namespace = convoy.namespace().unwrap_or_default();
    let task = asked
        .as_ref()
        .and_then(|asked| asked.as_ref().ok())
        .and_then(|known| known.tasks.get(&feed.bead));
    let polecat = polecat(convoy, rig, feed, task);
    let api: Api<Polecat> = Api::namespaced(context.runtime.client.clone(), &namespace);
    let params =
        PostParams { field_manager: Some(manager::CONVOY.to_owned()), ..PostParams::default() };
    let made = match api.create(&params, &polecat).await {
        Ok(_) => true,
        // Its name is made of rig and bead: somebody was faster, and the cache shows it soon.
        Err(kube::Error::Api(status)) if status.is_already_exists() => false,
        Err(error) => {
            return Err(Error::Feed { convoy: convoy.name_any(), source: Box::new(error) });
        }
    };
    context.expected.add(Made {
        namespace,
        name: feed.polecat.clone(),
        rig: rig.name_any(),
        bead: feed.bead.clone(),
    });
    if made {
        let message = format!("made Polecat {} for bead {}", feed.polecat, feed.bead);
        context
            .runtime
            .events
            .publish(convoy, Note::normal("Dispatch", "PolecatCreated", message).about(&polecat));
    }
    Ok(())
}

/// The Polecat of a bead. Nothing owns it: the end of a convoy must not end work.
fn polecat(convoy: &Convoy, rig: &Rig, feed: &Feed, task: Option<&String>) -> Polecat {
    let template = rig.spec.polecat_template.clone().unwrap_or_default();
    let branch = rig.spec.refinery.as_ref().and_then(|refinery| refinery.target_branch.as_deref());
    let spec =
        template.for_bead(&rig.name_any(), &feed.bead, task.cloned(), &rig.spec.git_url, branch);
    let spec = PolecatSpec {
        priority: spec.priority.or_else(|| i32::try_from(feed.priority.min(4)).ok()),
        ..spec
    };
    // A longer name is no label value.
    let labels = Some(convoy.name_any())
        .filter(|name| name.len() <= 63)
        .map(|name| BTreeMap::from([(label::CONVOY.to_owned(), name)]));
    let metadata = ObjectMeta {
        name: Some(feed.polecat.clone()),
        namespace: convoy.namespace(),
        labels,
        ..ObjectMeta::default()
    };
    Polecat { metadata, spec, status: None }
}
