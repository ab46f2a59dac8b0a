//! The condition `Stalled`: what a controller does for an object fails, and that does not pass by
//! itself.

use std::fmt::Debug;

use gastown_api::conditions;
use gastown_api::names::{condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::json;

/// Where an object of a kind has its conditions.
pub type Conditions<K> = fn(&K) -> Option<&Vec<Condition>>;

/// The field manager of a controller's `Stalled`: another one than that of the rest of the status,
/// which is applied as a whole.
fn manager(controller: &str) -> String {
    format!("gastown-{controller}-stalled")
}

/// Applies the condition with this message, or takes it away where there is none. Nothing is sent
/// while the object shows what is wanted.
pub(crate) async fn show<K>(
    client: &Client,
    controller: &str,
    object: &K,
    present: Option<&Vec<Condition>>,
    message: Option<&str>,
) where
    K: Resource<DynamicType = ()> + Debug,
{
    let shown = present.and_then(|all| conditions::find(all, condition::STALLED));
    if shown.map(|c| c.message.as_str()) == message {
        return;
    }
    let mut all: Vec<Condition> = shown.cloned().into_iter().collect();
    let (generation, now) = (object.meta().generation, Timestamp::now());
    match message {
        Some(message) => conditions::set(
            &mut all,
            condition::STALLED,
            true,
            reason::ACTION_FAILED,
            message,
            generation,
            now,
        ),
        None => all.clear(),
    }
    let (resource, name) = (ApiResource::erase::<K>(&()), object.name_any());
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": name, "uid": object.meta().uid },
        "status": { "conditions": all },
    });
    let params = PatchParams::apply(&manager(controller)).force();
    match api.patch_status(&name, &params, &Patch::Apply(&body)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the condition Stalled could not be written"
            );
        }
    }
}
