//! Requests whose answers are read without `metadata.managedFields`: it is half of many objects, its
//! decoding takes more time and memory than that of the rest, and nobody reads it.

use std::collections::HashMap;
use std::fmt::Debug;

use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::{ObjectList, Request};
use kube::{Api, Resource};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

use crate::decode::Decoded;
use crate::watch::PAGE;

/// Like [`Api::create`].
pub async fn create<K>(api: &Api<K>, params: &PostParams, object: &K) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned,
{
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    answer(api, Request::new(api.resource_url()).create(params, body)).await
}

/// Like [`Api::patch`].
pub async fn patch<K, P>(
    api: &Api<K>,
    name: &str,
    params: &PatchParams,
    patch: &Patch<P>,
) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned,
    P: Serialize + Debug + Sync,
{
    answer(api, Request::new(api.resource_url()).patch(name, params, patch)).await
}

/// Like [`Api::patch_status`].
pub async fn patch_status<K, P>(
    api: &Api<K>,
    name: &str,
    params: &PatchParams,
    patch: &Patch<P>,
) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned,
    P: Serialize + Debug + Sync,
{
    let request = Request::new(api.resource_url());
    answer(api, request.patch_subresource("status", name, params, patch)).await
}

async fn answer<K>(
    api: &Api<K>,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned,
{
    let request = request.map_err(kube::Error::BuildRequest)?;
    let Decoded { object, .. } = api.clone().into_client().request::<Decoded<K>>(request).await?;
    object.map_err(|bad| kube::Error::SerdeError(serde_json::Error::custom(bad.error)))
}

/// The resource versions of all objects of a list, by their uid. The list is consistent: it has
/// everything that was written before the request.
pub async fn versions<K>(api: &Api<K>, labels: &str) -> kube::Result<HashMap<String, u64>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    let mut versions = HashMap::new();
    loop {
        let request = Request::new(api.resource_url())
            .list_metadata(&params)
            .map_err(kube::Error::BuildRequest)?;
        let page: ObjectList<Versioned> = api.clone().into_client().request(request).await?;
        let version = |object: Versioned| {
            let Identity { uid, resource_version } = object.metadata;
            (uid, resource_version.parse().unwrap_or(0))
        };
        versions.extend(page.items.into_iter().map(version));
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        let Some(token) = next else { return Ok(versions) };
        params = params.continue_token(&token);
    }
}

#[derive(Clone, Deserialize)]
struct Versioned {
    metadata: Identity,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
}
