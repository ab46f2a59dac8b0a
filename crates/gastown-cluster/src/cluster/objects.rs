//! Applying the cluster's own objects.

use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::Value;

/// Applies objects in their order.
pub async fn apply(client: &Client, objects: Vec<Value>) -> Result<()> {
    for object in objects {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.as_ref().context("an object without a kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object.name_any();
        let done = api
            .patch(&name, &PatchParams::apply("gastown-cluster").force(), &Patch::Apply(&object))
            .await;
        done.with_context(|| format!("applying {} {name}", resource.kind))?;
    }
    Ok(())
}
