//! Pods whose creation got no clear answer: they keep their slot until the API server has stated
//! whether they exist.

use gastown_api::Polecat;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::{Error, api_error};
use crate::pod::{AgentPod, owner_uid};

/// Asks the API server about a pod of this Polecat that may have been created, if there is one.
pub(crate) async fn resolve(ctx: &Context, polecat: &Polecat) -> Result<(), Error> {
    let uid = polecat.uid().unwrap_or_default();
    let Some(name) = ctx.shared.admission.promised(&polecat.spec.rig, &uid) else {
        return Ok(());
    };
    let namespace = polecat.namespace().unwrap_or_default();
    let api: Api<AgentPod> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let found = api.get_opt(&name).await.map_err(api_error("reading pod", &name))?;
    if let Some(pod) = found.filter(|pod| owner_uid(pod) == Some(uid.as_str())) {
        ctx.shared.own_pods.record(pod);
    }
    ctx.shared.admission.settle(&polecat.spec.rig, &uid);
    Ok(())
}
