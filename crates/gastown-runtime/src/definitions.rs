//! Whether the CustomResourceDefinitions are new enough for this version: the API server drops fields
//! that a definition does not have, from what is read and from what is written, and nobody notices.
//!
//! Each definition has a number in its annotation `gastown.io/schema`. A process reads those that it
//! works with when it starts, and again while one of them is too old; until then it is not ready, and
//! `/readyz` names the definition.

use std::collections::BTreeMap;
use std::time::Duration;

use gastown_api::names::annotation;
use gastown_api::rbac::Controller;
use gastown_api::schema_number::{self, Needed};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _};

use crate::jitter::jittered;
use crate::runtime::Runtime;

/// What readiness waits for.
const WHAT: &str = "CustomResourceDefinitions";
/// The pause before definitions are read again, which doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
/// See [`FIRST`].
const LONGEST: Duration = Duration::from_secs(60);

/// Has readiness wait until every definition that the controller needs is new enough. It ends with the
/// runtime.
pub fn check(runtime: &Runtime, controller: Controller) {
    start(runtime, schema_number::needed(controller));
}

fn start(runtime: &Runtime, needed: Vec<Needed>) {
    runtime.readiness.wait_for(WHAT, "not read yet");
    let (runtime, stop) = (runtime.clone(), runtime.stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = until_new_enough(&runtime, needed) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn until_new_enough(runtime: &Runtime, mut needed: Vec<Needed>) {
    let api = Api::<CustomResourceDefinition>::all(runtime.client.clone());
    let mut pause = FIRST;
    loop {
        let mut problems = BTreeMap::new();
        for one in &needed {
            let found = match api.get_metadata(&one.definition).await {
                Ok(definition) => Found::Schema(number(definition.annotations())),
                Err(kube::Error::Api(status)) if status.is_not_found() => Found::Missing,
                Err(kube::Error::Api(status)) if status.is_forbidden() => Found::Forbidden,
                Err(error) => Found::Unreadable(crate::sentence::of(&error)),
            };
            if found == Found::Forbidden {
                tracing::warn!(
                    definition = one.definition,
                    "whether the CustomResourceDefinition is new enough is not known: there is no permission to read it"
                );
            }
            if let Some(problem) = problem(one, &found) {
                problems.insert(one.definition.clone(), problem);
            }
        }
        needed.retain(|one| problems.contains_key(&one.definition));
        if problems.is_empty() {
            return runtime.readiness.done(WHAT);
        }
        let why = problems.into_values().collect::<Vec<_>>().join("; ");
        tracing::warn!(why, "the controller waits for its CustomResourceDefinitions");
        runtime.readiness.wait_for(WHAT, &why);
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// What is known of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// It has this number.
    Schema(u32),
    /// There is none.
    Missing,
    /// We may not read it.
    Forbidden,
    /// The request failed for this reason.
    Unreadable(String),
}

/// The number in the annotation; 0 where it is absent or not a number, as in 0.1.0.
fn number(annotations: &BTreeMap<String, String>) -> u32 {
    annotations.get(annotation::SCHEMA).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Why the process must wait, as a sentence. A permission that is missing is no reason: the roles of an
/// installation may be older than its programs.
fn problem(needed: &Needed, found: &Found) -> Option<String> {
    let Needed { definition, minimum } = needed;
    match found {
        Found::Schema(schema) if schema < minimum => Some(format!(
            "the CustomResourceDefinition {definition} has schema {schema} and this version needs {minimum}: apply deploy/crds of this version"
        )),
        Found::Schema(_) | Found::Forbidden => None,
        Found::Missing => Some(format!(
            "the CustomResourceDefinition {definition} does not exist: apply deploy/crds of this version"
        )),
        Found::Unreadable(why) => {
            Some(format!("the CustomResourceDefinition {definition} cannot be read: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::Metrics;
    use crate::shards::Shards;

    fn needed(minimum: u32) -> Needed {
        Needed { definition: "polecats.gastown.gastown.io".into(), minimum }
    }

    fn answered(schema: Option<&str>) -> (u16, Value) {
        let annotations = schema.map(|n| json!({ annotation::SCHEMA: n })).unwrap_or_default();
        (
            200,
            json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": { "name": "polecats.gastown.gastown.io", "annotations": annotations } }),
        )
    }

    fn refused(code: u16, reason: &str) -> (u16, Value) {
        (
            code,
            json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason }),
        )
    }

    /// A runtime whose API server gives the last of these answers, and takes others in later.
    fn runtime(first: (u16, Value)) -> (Runtime, Arc<Mutex<(u16, Value)>>) {
        let answer = Arc::new(Mutex::new(first));
        let shared = answer.clone();
        let fake = tower::service_fn(move |_: Request<Body>| {
            let (code, body) = shared.lock().clone();
            async move {
                Response::builder()
                    .status(code)
                    .body(Body::from(body.to_string().into_bytes()))
                    .map_err(|error| -> tower::BoxError { error.into() })
            }
        });
        let client = kube::Client::new(fake, "ns");
        let shards = Shards::all();
        (crate::testing::with_client(client, shards, Metrics::default()), answer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_definition_that_is_too_old_is_named_until_it_is_new_enough() {
        for too_old in [answered(None), answered(Some("1")), answered(Some("one"))] {
            let (runtime, answer) = runtime(too_old);
            start(&runtime, vec![needed(2)]);
            tokio::time::sleep(Duration::from_secs(300)).await;
            let missing = runtime.readiness.missing().join("\n");
            assert!(
                missing.contains("polecats.gastown.gastown.io has schema")
                    && missing.contains("and this version needs 2: apply deploy/crds"),
                "{missing}"
            );
            *answer.lock() = answered(Some("2"));
            tokio::time::timeout(Duration::from_secs(120), runtime.readiness.ready())
                .await
                .unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_definition_is_enough_where_nothing_newer_is_needed() {
        let (runtime, _) = runtime(answered(None));
        start(&runtime, vec![needed(0)]);
        tokio::time::timeout(Duration::from_secs(1), runtime.readiness.ready()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_definition_that_does_not_exist_is_waited_for() {
        let (runtime, answer) = runtime(refused(404, "NotFound"));
        start(&runtime, vec![needed(0)]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let missing = runtime.readiness.missing().join("\n");
        assert!(missing.contains("does not exist: apply deploy/crds"), "{missing}");
        *answer.lock() = answered(None);
        tokio::time::timeout(Duration::from_secs(120), runtime.readiness.ready()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_permission_that_is_missing_blocks_nothing() {
        let (runtime, _) = runtime(refused(403, "Forbidden"));
        start(&runtime, vec![needed(2)]);
        tokio::time::timeout(Duration::from_secs(1), runtime.readiness.ready()).await.unwrap();
    }
}
