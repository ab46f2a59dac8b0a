//! Writes of fields that we own, skipped when they would change nothing.

use std::fmt::Debug;
use std::time::Duration;

use gastown_types::digest::sha256;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::object::HasStatus;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::answers;
use crate::controller::{Class, Classify};
use crate::own_writes::OwnWrites;
use crate::pace::Pace;

/// Annotation on children: the digest of the manifest that they were applied from.
pub const APPLIED: &str = "gastown.io/applied";

/// How many attempts one status gets against conflicting writes of others.
const MAX_STATUS_ATTEMPTS: u32 = 4;
/// How many digits of a manifest's digest are kept.
const DIGEST_DIGITS: usize = 16;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused the request, or could not be reached.
    #[error("{verb} {kind} {name}")]
    Api {
        /// What was attempted, such as `applying`.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// The object's namespace and name.
        name: String,
        /// The answer of the API server, or the failure to get one.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object has a field missing that every object of the API server has.
    #[error("{kind} {name} has no {what}")]
    Incomplete {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// The missing field.
        what: &'static str,
    },
    /// The name is taken by an object that the parent does not control.
    #[error("creating {kind} {name}: an object with another controller has this name")]
    Taken {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// The object cannot be serialised.
    #[error("serialising {kind}")]
    Serialise {
        /// The object's kind.
        kind: String,
        /// Why it cannot.
        #[source]
        source: serde_json::Error,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => Class::of(source),
            // The cache was behind; the next reconcile finds the object.
            Self::Taken { .. } => Class::Conflict,
            Self::Incomplete { .. } | Self::Serialise { .. } => Class::Fatal,
        }
    }
}

impl Error {
    /// The API server's message, for a condition.
    pub fn refusal(&self) -> Option<&str> {
        self.status().map(|status| status.message.as_str())
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether somebody else has written the object first.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }
}

fn api_error<K: Resource<DynamicType = ()>>(
    verb: &'static str,
    object: &K,
) -> impl FnOnce(kube::Error) -> Error {
    error_about::<K>(verb, object.namespace().as_deref(), &object.name_any())
}

fn error_about<K: Resource<DynamicType = ()>>(
    verb: &'static str,
    namespace: Option<&str>,
    name: &str,
) -> impl FnOnce(kube::Error) -> Error + use<K> {
    let kind = K::kind(&()).into_owned();
    let name = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    move |source| Error::Api { verb, kind, name, source: Box::new(source) }
}

fn uid<K: Resource<DynamicType = ()>>(object: &K) -> Result<String, Error> {
    object.uid().ok_or_else(|| Error::Incomplete {
        kind: K::kind(&()).into_owned(),
        name: object.name_any(),
        what: "uid",
    })
}

fn to_value<K: Resource<DynamicType = ()>>(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value)
        .map_err(|source| Error::Serialise { kind: K::kind(&()).into_owned(), source })
}

/// Fields of a status.
type Part = Map<String, Value>;

/// The part of a status that a controller owns; the rest is neither written nor compared.
#[derive(Clone, Copy, Debug)]
pub struct StatusOwner {
    /// The field manager.
    pub manager: &'static str,
    /// The owned fields directly under `status`, named as in manifests, without `conditions`.
    pub fields: &'static [&'static str],
    /// The types of the owned conditions.
    pub conditions: &'static [&'static str],
}

/// What of a status may be written later than the rest: counts, and other fields that follow from
/// objects that are shown themselves. So may the messages of all conditions.
#[derive(Clone, Copy, Debug)]
pub struct Details {
    /// Fields directly under `status`, named as in manifests.
    pub fields: &'static [&'static str],
    /// The types of conditions that change with the daily work.
    pub conditions: &'static [&'static str],
    /// The types of conditions whose reason is a detail while they are True.
    pub reasons: &'static [&'static str],
}

impl Details {
    /// Nothing may wait.
    pub const NOTHING: Self = Self { fields: &[], conditions: &[], reasons: &[] };

    /// The owned part of a status without details.
    fn rest(&self, mut part: Part) -> Part {
        part.retain(|field, _| !self.fields.contains(&field.as_str()));
        if let Some(Value::Array(conditions)) = part.get_mut("conditions") {
            conditions.retain(|c| !self.conditions.iter().any(|kind| c["type"] == *kind));
            for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
                condition.remove("message");
                let is_true = condition.get("status").is_some_and(|status| status == "True");
                let of_type = condition.get("type").and_then(Value::as_str);
                if is_true && of_type.is_some_and(|kind| self.reasons.contains(&kind)) {
                    condition.remove("reason");
                }
            }
        }
        // None and no others are the same.
        part.retain(|_, value| value.as_array().is_none_or(|all| !all.is_empty()));
        part
    }
}

/// What became of a status.
#[derive(Debug)]
pub enum Applied<K> {
    /// Nothing was written: the object has it, or is gone.
    Unchanged,
    /// The object as it is now.
    Written(K),
    /// Only details differ, which are due after this time.
    Later(Duration),
}

impl<K> Applied<K> {
    /// When the rest is due: the object is to be reconciled again then.
    pub fn later(&self) -> Option<Duration> {
        if let Self::Later(wait) = self { Some(*wait) } else { None }
    }
}

impl<K: Resource> Applied<K> {
    /// Records what was written among this process's own writes. Returns as [`Applied::later`].
    pub fn record(self, own: &OwnWrites<K>) -> Option<Duration> {
        let later = self.later();
        if let Self::Written(written) = self {
            own.record(written);
        }
        later
    }
}

impl StatusOwner {
    /// All of it may wait.
    pub const fn everything(&self) -> Details {
        Details { fields: self.fields, conditions: self.conditions, reasons: &[] }
    }

    /// The owned part of a status.
    fn part(&self, status: &Value) -> Part {
        let mut part = Map::new();
        for field in self.fields {
            if let Some(value) = status.get(field).filter(|value| !value.is_null()) {
                part.insert((*field).to_owned(), value.clone());
            }
        }
        let ours =
            |condition: &&Value| self.conditions.iter().any(|kind| condition["type"] == *kind);
        let all = status.get("conditions").and_then(Value::as_array);
        let mut conditions: Vec<Value> = all.into_iter().flatten().filter(ours).cloned().collect();
        conditions.sort_by(|a, b| a["type"].as_str().cmp(&b["type"].as_str()));
        if !conditions.is_empty() {
            part.insert("conditions".to_owned(), Value::Array(conditions));
        }
        part
    }

    /// Applies the owned part of `status` to `object`, as the cache has it. Returns whether a
    /// request was sent.
    ///
    /// A status is never applied to another object of the same name: the API server ignores a uid
    /// here, so the request has the resourceVersion, and when that is outdated the uid is compared
    /// before the next attempt. Nothing happens when the object does not exist any more. The status
    /// must keep its transition times while nothing changes (`gastown_api::conditions::merge`
    /// does), or every apply is a change.
    pub async fn apply<K>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &impl Serialize,
    ) -> Result<bool, Error>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + Debug
            + HasStatus<Status: Serialize>
            + DeserializeOwned,
    {
        self.applied(api, object, status).await.map(|written| written.is_some())
    }

    /// Like [`StatusOwner::apply`], but when only details changed they are written at the pace.
    pub async fn apply_paced<K>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &impl Serialize,
        details: &Details,
        pace: &Pace,
    ) -> Result<Applied<K>, Error>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + Debug
            + HasStatus<Status: Serialize>
            + DeserializeOwned,
    {
        let (present, wanted) = self.parts(object, status)?;
        if present != wanted
            && details.rest(present.clone()) == details.rest(wanted.clone())
            && let Some(wait) = pace.wait(object)
        {
            return Ok(Applied::Later(wait));
        }
        if present == wanted {
            return Ok(Applied::Unchanged);
        }
        let written = Self::write(self.manager, api, object, wanted).await?;
        if written.is_some() {
            pace.wrote(object);
        }
        Ok(written.map_or(Applied::Unchanged, Applied::Written))
    }

    /// The owned parts of the object's status and of the wanted one.
    fn parts<K: Resource<DynamicType = ()> + HasStatus<Status: Serialize>>(
        &self,
        object: &K,
        status: &impl Serialize,
    ) -> Result<(Part, Part), Error> {
        let present = self.part(&to_value::<K>(&object.status())?);
        Ok((present, self.part(&to_value::<K>(status)?)))
    }

    /// Like [`StatusOwner::apply`]; returns the object as it is afterwards, or none when nothing
    /// was sent or written.
    pub async fn applied<K>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &impl Serialize,
    ) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + Debug
            + HasStatus<Status: Serialize>
            + DeserializeOwned,
    {
        let (present, wanted) = self.parts(object, status)?;
        if present == wanted {
            return Ok(None);
        }
        Self::write(self.manager, api, object, wanted).await
    }

    /// Applies a part of the object's status. None when the object does not exist any more.
    async fn write<K>(
        manager: &str,
        api: &Api<K>,
        object: &K,
        wanted: Part,
    ) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let (name, expected) = (object.name_any(), uid(object)?);
        let params = PatchParams::apply(manager).force();
        let mut version = object.resource_version();
        for attempt in 1.. {
            let body = json!({
                "apiVersion": K::api_version(&()),
                "kind": K::kind(&()),
                "metadata": { "name": name, "resourceVersion": version },
                "status": wanted,
            });
            match answers::patch_status(api, &name, &params, &Patch::Apply(&body)).await {
                Ok(written) => return Ok(Some(written)),
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
                Err(kube::Error::Api(status))
                    if status.is_conflict() && attempt < MAX_STATUS_ATTEMPTS => {}
                Err(error) => return Err(api_error("applying the status of", object)(error)),
            }
            let present =
                api.get_metadata_opt(&name).await.map_err(api_error("reading", object))?;
            match present.filter(|present| present.metadata.uid.as_deref() == Some(&expected)) {
                Some(present) => version = present.metadata.resource_version,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// A controller's owner reference to `parent`, which must have a uid.
pub fn owner<K: Resource<DynamicType = ()>>(parent: &K) -> Result<OwnerReference, Error> {
    Ok(OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: parent.name_any(),
        uid: uid(parent)?,
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

/// Applies a child, unless `present` (from the cache) was applied from the same manifest and still
/// has all of it. Returns whether a request was sent. The caller sets owner references ([`owner`]).
///
/// With `present` the request has its uid, so that a child that was deleted meanwhile is not
/// created again by a partial apply; the next reconcile creates it. Without it the cache may be
/// behind: an object of that name with another controller is [`Error::Taken`] and is not changed.
pub async fn child<K>(
    api: &Api<K>,
    manager: &str,
    present: Option<&K>,
    wanted: &K,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut body = to_value::<K>(wanted)?;
    body["apiVersion"] = json!(K::api_version(&()));
    body["kind"] = json!(K::kind(&()));
    if let Some(body) = body.as_object_mut() {
        body.remove("status");
    }
    prune(&mut body);
    let mut digest = sha256(body.to_string());
    digest.truncate(DIGEST_DIGITS);
    if let Some(metadata) = body["metadata"].as_object_mut() {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[APPLIED] = json!(digest);
    }
    let live = match present {
        Some(_) => None,
        None => api.get_opt(&wanted.name_any()).await.map_err(api_error("reading", wanted))?,
    };
    if live.as_ref().is_some_and(|live| !same_controller(live, wanted)) {
        return Err(Error::Taken { kind: K::kind(&()).into_owned(), name: wanted.name_any() });
    }
    let mut params = PatchParams::apply(manager);
    if let Some(present) = present.or(live.as_ref()) {
        if contains(&to_value::<K>(present)?, &body) {
            return Ok(false);
        }
        body["metadata"]["uid"] = json!(uid(present)?);
        // A child that we control is brought to its manifest by force; one that somebody else
        // creates at this very moment is not.
        params = params.force();
    }
    answers::patch(api, &wanted.name_any(), &params, &Patch::Apply(&body))
        .await
        .map_err(api_error("applying", wanted))?;
    Ok(true)
}

/// Whether both have the same controller, by uid.
fn same_controller<K: Resource>(one: &K, other: &K) -> bool {
    let controller = |object: &K| {
        let owners = object.meta().owner_references.clone().unwrap_or_default();
        owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid)
    };
    controller(one).is_some() && controller(one) == controller(other)
}

/// Removes nulls: an apply would own them.
fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(prune);
        map.retain(|_, value| !value.is_null());
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(prune);
    }
}

/// Whether everything in `wanted` is in `present`, which may have more: the server's defaults. The
/// server leaves out what is empty.
fn contains(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let empty = wanted.as_object().is_some_and(Map::is_empty)
                || wanted.as_array().is_some_and(Vec::is_empty);
            present.get(key).map_or(empty, |present| contains(present, wanted))
        }),
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present.iter().zip(wanted).all(|(present, wanted)| contains(present, wanted))
        }
        (present, wanted) => present == wanted,
    }
}

/// A metadata patch with uid and resourceVersion: it applies to the object as we know it, or fails
/// with a conflict.
fn guard<K: Resource<DynamicType = ()>>(object: &K, mut metadata: Value) -> Result<Value, Error> {
    metadata["uid"] = json!(uid(object)?);
    metadata["resourceVersion"] = json!(object.resource_version());
    Ok(json!({ "metadata": metadata }))
}

async fn patch_metadata<K>(
    api: &Api<K>,
    manager: &str,
    object: &K,
    metadata: Value,
    verb: &'static str,
) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = guard(object, metadata)?;
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    answers::patch(api, &object.name_any(), &params, &Patch::Merge(&patch))
        .await
        .map_err(api_error(verb, object))
}

/// Sets annotations, or removes those whose value is `None`. Returns the object as it is
/// afterwards, or none when there was nothing to change.
pub async fn annotate<K>(
    api: &Api<K>,
    manager: &str,
    object: &K,
    annotations: &[(&str, Option<&str>)],
) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let changed: Map<String, Value> = annotations
        .iter()
        .filter(|(key, value)| object.annotations().get(*key).map(String::as_str) != *value)
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    if changed.is_empty() {
        return Ok(None);
    }
    patch_metadata(api, manager, object, json!({ "annotations": changed }), "annotating")
        .await
        .map(Some)
}

/// Adds a finalizer. Returns the object as it is afterwards, or none when it had the finalizer.
pub async fn add_finalizer<K>(
    api: &Api<K>,
    manager: &str,
    object: &K,
    finalizer: &str,
) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if object.finalizers().iter().any(|present| present == finalizer) {
        return Ok(None);
    }
    let finalizers: Vec<_> =
        object.finalizers().iter().map(String::as_str).chain([finalizer]).collect();
    patch_metadata(
        api,
        manager,
        object,
        json!({ "finalizers": finalizers }),
        "adding a finalizer to",
    )
    .await
    .map(Some)
}

/// Removes a finalizer. Returns whether the object had it and still existed.
pub async fn remove_finalizer<K>(
    api: &Api<K>,
    manager: &str,
    object: &K,
    finalizer: &str,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if !object.finalizers().iter().any(|present| present == finalizer) {
        return Ok(false);
    }
    let finalizers: Vec<_> =
        object.finalizers().iter().filter(|present| *present != finalizer).collect();
    match patch_metadata(
        api,
        manager,
        object,
        json!({ "finalizers": finalizers }),
        "removing a finalizer from",
    )
    .await
    {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub enum Deletion<K> {
    /// The object is being deleted, and is there until it has ended.
    Going(K),
    /// This request has deleted it.
    Done,
    /// It did not exist any more.
    Absent,
}

/// Deletes exactly this object, by uid. False when it does not exist any more, also when another
/// object has its name.
pub async fn delete<K>(api: &Api<K>, object: &K) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let deletion = delete_by(api, &object.name_any(), &uid(object)?, None).await?;
    Ok(!matches!(deletion, Deletion::Absent))
}

/// Deletes exactly the object with this uid. `grace`: its grace period in seconds, where that is not
/// its own.
pub async fn delete_by<K>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    grace: Option<u32>,
) -> Result<Deletion<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        grace_period_seconds: grace,
        ..DeleteParams::background()
    };
    let error = |verb| error_about::<K>(verb, api.namespace(), name);
    match api.delete(name, &params).await {
        Ok(answer) => Ok(answer.left().map_or(Deletion::Done, Deletion::Going)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Deletion::Absent),
        // Another object has the name by now, or this one was being written.
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            let present = api.get_opt(name).await.map_err(error("reading"))?;
            if present.is_some_and(|present| present.uid().as_deref() == Some(uid)) {
                return Err(error("deleting")(kube::Error::Api(status)));
            }
            Ok(Deletion::Absent)
        }
        Err(source) => Err(error("deleting")(source)),
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
