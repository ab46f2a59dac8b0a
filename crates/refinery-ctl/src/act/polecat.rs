//! The author of a request: reading the Polecat, and its condition `Merged`.

use gastown_api::conditions::{self, Draft};
use gastown_api::names::{condition, manager};
use gastown_api::{MergeRequest, Polecat};
use gastown_runtime::apply::StatusOwner;
use gastown_runtime::own_writes::resource_version;
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::error::Error;

/// The part of a Polecat's status that is ours.
const MERGED: StatusOwner =
    StatusOwner { manager: manager::REFINERY, fields: &[], conditions: &[condition::MERGED] };

/// The Polecat that made a request, if it still exists.
pub(super) async fn author(
    client: &Client,
    request: &MergeRequest,
) -> Result<Option<Polecat>, Error> {
    let Some(author) = &request.spec.polecat_ref else { return Ok(None) };
    let namespace = request.namespace().unwrap_or_default();
    let api = Api::<Polecat>::namespaced(client.clone(), &namespace);
    let found = api.get_opt(&author.name).await;
    let found = found.map_err(Error::kube(format!("reading Polecat {}", author.name)))?;
    Ok(found.filter(|p| p.uid().as_deref() == Some(author.uid.as_str())))
}

/// Sets the condition `Merged` of a landed request's Polecat. Returns the resource version of the
/// Polecat that has it; the highest possible one when there is no Polecat any more.
pub(super) async fn mark_merged(
    client: &Client,
    request: &MergeRequest,
    message: &str,
) -> Result<u64, Error> {
    let Some(polecat) = author(client, request).await? else { return Ok(u64::MAX) };
    let present = polecat.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let mut merged: Vec<_> =
        conditions::find(present, condition::MERGED).cloned().into_iter().collect();
    let draft = Draft::new(condition::MERGED, true, "MergeComplete", message);
    conditions::merge(&mut merged, [draft], polecat.metadata.generation, Timestamp::now());
    let namespace = polecat.namespace().unwrap_or_default();
    let api = Api::<Polecat>::namespaced(client.clone(), &namespace);
    let written = MERGED.applied(&api, &polecat, &json!({"conditions": merged})).await;
    let written = written.map_err(|source| Error::Apply {
        doing: format!("setting the condition Merged of Polecat {}", polecat.name_any()),
        source,
    })?;
    Ok(resource_version(&written.unwrap_or(polecat)))
}
