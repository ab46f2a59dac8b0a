//! Kubernetes Events.

use std::time::Duration;

use anyhow::Result;
use gastown_runtime::events::{Events, Note};
use gastown_runtime::metrics::Metrics;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};

use crate::fixture::{config_map, fixture, within};

#[tokio::test]
async fn events_about_different_objects_keep_their_own_messages() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let mut made = Vec::new();
    for name in ["queue", "one", "two"] {
        made.push(maps.create(&PostParams::default(), &config_map(name, &[])).await?);
    }
    let events = Events::start(client.clone(), "test", "test-0", &Metrics::default());
    for about in &made[1..] {
        events.publish(
            &made[0],
            Note::normal("landing", "Landed", format!("landed {}", about.name_any())).about(about),
        );
    }
    let api: Api<Event> = Api::namespaced(client, &namespace);
    let all = ["landed one", "landed two"];
    let published = async {
        loop {
            let notes: Vec<String> = api
                .list(&ListParams::default())
                .await?
                .items
                .into_iter()
                .filter_map(|e| e.note)
                .collect();
            if all.iter().all(|note| notes.iter().any(|n| n == note)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("an Event of each", published).await?
}
