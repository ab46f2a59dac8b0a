//! Watches and readiness.

use std::time::Duration;

use anyhow::{Result, ensure};
use gastown_runtime::watch::{self, Wanted, Watch};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use serde_json::json;

use crate::fixture::{config_map, fixture, runtime, until, within};

/// A ConfigMap that must have a key `number`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
struct Numbered {
    metadata: ObjectMeta,
    data: Data,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
struct Data {
    number: String,
}

impl Resource for Numbered {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "ConfigMap".into()
    }
    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "configmaps".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_skipped_and_stops_no_other() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    maps.create(&PostParams::default(), &config_map("bad", &[("else", "x")])).await?;
    maps.create(&PostParams::default(), &config_map("good", &[("number", "1")])).await?;

    let runtime = runtime(client)?;
    let (trigger, mut triggers) = watch::triggers::<Numbered>();
    let store = Watch::<Numbered>::namespaced(&runtime, &namespace).notify_self(&trigger).start();
    within("the first list", runtime.readiness.ready()).await?;
    let number = |name: &str| {
        store.get(&ObjectRef::new(name).within(&namespace)).map(|map| map.data.number.clone())
    };
    ensure!(number("good").as_deref() == Some("1") && number("bad").is_none());
    ensure!(
        store.state().iter().all(|map| map
            .metadata
            .managed_fields
            .as_ref()
            .is_none_or(Vec::is_empty)),
        "managedFields are dropped"
    );
    ensure!(
        runtime.metrics.encode()?.contains("gastown_undecodable_objects{kind=\"ConfigMap\"} 1"),
        "{}",
        runtime.metrics.encode()?
    );

    maps.patch("bad", &PatchParams::default(), &Patch::Merge(json!({"data": {"number": "2"}})))
        .await?;
    until("the repaired object", || (number("bad").as_deref() == Some("2")).then_some(())).await?;
    maps.patch("good", &PatchParams::default(), &Patch::Merge(json!({"data": {"number": null}})))
        .await?;
    until("the error", || {
        runtime.metrics.encode().ok()?.contains("objects{kind=\"ConfigMap\"} 1").then_some(())
    })
    .await?;
    ensure!(number("good").as_deref() == Some("1"), "the last good version stays");

    maps.delete("good", &DeleteParams::default()).await?;
    until("the deletion", || number("good").is_none().then_some(())).await?;
    let mut last = None;
    while let Ok(Some(wanted)) = tokio::time::timeout(Duration::from_secs(1), triggers.recv()).await
    {
        last = Some(wanted);
    }
    let good = ObjectRef::new("good").within(&namespace);
    ensure!(
        matches!(&last, Some(Wanted::One(object, _)) if *object == good),
        "the deletion is notified: {last:?}"
    );
    runtime.shutdown();
    Ok(())
}

/// A kind whose definition is not installed.
#[derive(kube::CustomResource, Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[kube(
    group = "absent.example.com",
    version = "v1",
    kind = "Absent",
    schema = "disabled",
    derive = "PartialEq"
)]
struct AbsentSpec {}

#[tokio::test]
async fn readiness_names_a_definition_that_is_missing() -> Result<()> {
    let (_, client, _) = fixture().await?;
    let runtime = runtime(client)?;
    let _store = Watch::<Absent>::all(&runtime).start();
    until("the error", || {
        let missing = runtime.readiness.missing();
        missing
            .iter()
            .any(|line| line == "Absent: its CustomResourceDefinition is not installed")
            .then_some(())
    })
    .await?;
    runtime.shutdown();
    Ok(())
}
