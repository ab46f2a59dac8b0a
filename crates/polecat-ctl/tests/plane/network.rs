//! The network policy of agents' pods: written before the first of them starts, once, and again when
//! somebody deletes it.

use std::time::Duration;

use gastown_api::names::condition;
use gastown_types::digest::short_digest;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;

use crate::fixture::Fixture;
use crate::{is_terminal, reason};

const WRITES: &[&str] = &["networkpolicies"];

fn policies(fixture: &Fixture) -> Api<NetworkPolicy> {
    Api::namespaced(fixture.admin.clone(), &fixture.namespace)
}

fn name(fixture: &Fixture) -> String {
    format!("gastown-agents-{}-{}", fixture.rig, short_digest(&[&fixture.rig], 8))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_after_its_network_policy_which_is_written_once_and_kept() {
    let mut fixture = Fixture::start(3).await;
    let (api, name) = (policies(&fixture), name(&fixture));
    fixture.sling("one", |_| {}).await;
    fixture.pod("polecat-one", &[]).await;
    let policy = api.get(&name).await.expect("the policy is there before the pod");
    let spec = policy.spec.unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
    assert_eq!(spec.ingress, None, "nobody is let in");
    let selector = spec.pod_selector.unwrap().match_expressions.unwrap();
    assert_eq!(
        (selector[0].key.as_str(), selector[0].operator.as_str()),
        ("gastown.io/polecat", "Exists")
    );
    fixture.sling("two", |_| {}).await;
    fixture.pod("polecat-two", &[]).await;
    assert_eq!(fixture.writes(WRITES), 1, "nothing had changed");

    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let back = |found: Option<&NetworkPolicy>| {
        found.is_some_and(|found| found.metadata.uid != policy.metadata.uid)
    };
    await_condition(api.clone(), &name, back).await.unwrap();
    // It is counted when the controller has the answer, which the watch does not wait for.
    let counted = async {
        while fixture.writes(WRITES) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
    assert_eq!(fixture.writes(WRITES), 2);

    // the installation is changed to have none
    fixture.stop_controller().await;
    fixture.network_policies = false;
    fixture.start_controller();
    await_condition(api, &name, |found: Option<&NetworkPolicy>| found.is_none()).await.unwrap();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_starts_where_its_network_policy_cannot_be_written() {
    let mut fixture = Fixture::new().await;
    let (api, name) = (policies(&fixture), name(&fixture));
    // somebody else has the name, and lets everything through
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let open = NetworkPolicy { metadata, spec: Some(NetworkPolicySpec::default()) };
    api.create(&PostParams::default(), &open).await.unwrap();
    fixture.make_rig(3).await;
    fixture.start_server().await;
    fixture.start_controller();
    fixture.sling("toast", |_| {}).await;
    let waiting = fixture.wait_reason("toast", condition::READY, "NetworkPolicyFailed").await;
    let message = reason(&waiting, condition::READY).1;
    assert!(message.contains(&name), "{message}");
    assert!(fixture.all_pods().await.is_empty(), "an agent starts without its policy");

    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let pod = fixture.pod("polecat-toast", &[]).await;
    assert!(!is_terminal(&pod));
    fixture.close().await;
}
