//! The control plane and the test kubelet, with real programs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_fakes::kubelet::{Exit, Outcome, TestKubelet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::json;

async fn fixture() -> Result<(&'static ControlPlane, Client, String)> {
    let plane = ControlPlane::shared().await?;
    Ok((plane, plane.client()?, plane.namespace().await?))
}

fn polecat_pod() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "polecat-a"},
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [
                {"name": "git-init", "image": "example/agent:1"},
                {"name": "git-sync", "image": "example/agent:1", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "claude", "image": "example/agent:1"}],
        },
    }))?)
}

/// A config map, with an owner if one is given.
fn owned(name: &str, owner: Option<&ConfigMap>) -> Result<ConfigMap> {
    let owners: Vec<_> = owner
        .iter()
        .map(|o| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o.name_any(), "uid": o.uid(), "controller": true}))
        .collect();
    Ok(serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}}))?)
}

#[tokio::test]
async fn the_server_has_the_version_of_its_program() -> Result<()> {
    let (_, client, _) = fixture().await?;
    let program =
        gastown_cluster::toolchain::control_plane_binaries().await?.join("kube-apiserver");
    let printed = String::from_utf8(Command::new(program).arg("--version").output()?.stdout)?;
    assert_eq!(
        printed.trim(),
        format!("Kubernetes {}", client.apiserver_version().await?.git_version)
    );
    Ok(())
}

#[tokio::test]
async fn a_service_account_without_a_role_is_refused() -> Result<()> {
    let (plane, client, namespace) = fixture().await?;
    Api::<Pod>::namespaced(client, &namespace).list(&ListParams::default()).await?;
    let nobody = plane.client_as(&format!("system:serviceaccount:{namespace}:nobody"))?;
    let refused = Api::<Pod>::namespaced(nobody, &namespace).list(&ListParams::default()).await;
    assert!(matches!(&refused, Err(kube::Error::Api(e)) if e.code == 403), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn owned_objects_are_deleted_with_their_owner() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let owner = maps.create(&PostParams::default(), &owned("owner", None)?).await?;
    let child = maps.create(&PostParams::default(), &owned("child", Some(&owner))?).await?;
    maps.delete("owner", &DeleteParams::default()).await?;
    await_condition(maps, "child", conditions::is_deleted(&child.uid().context("a uid")?)).await?;
    Ok(())
}

#[tokio::test]
async fn a_namespace_gets_its_service_account() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &namespace);
    await_condition(accounts, "default", |found: Option<&ServiceAccount>| found.is_some()).await?;
    Ok(())
}

#[tokio::test]
async fn a_finished_pod_shows_each_containers_message_where_the_kubelet_puts_it() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    pods.create(&PostParams::default(), &polecat_pod()?).await?;
    let kubelet = TestKubelet::new(client);
    let pod = kubelet.wait_pod(&namespace, |p| p.name_any() == "polecat-a").await?;
    let running = kubelet
        .running_after(&pod, &Outcome::new().with("git-init", Exit::new(0, "ready")))
        .await?;
    let status = running.status.context("a status")?;
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(
        status.init_container_statuses.unwrap_or_default()[1]
            .state
            .as_ref()
            .is_some_and(|s| s.running.is_some())
    );
    kubelet
        .finish(
            &pod,
            &Outcome::polecat(
                Exit::new(0, "ready"),
                Exit::new(0, "pushed"),
                Exit::new(3, "drained"),
            ),
        )
        .await?;
    let status = pods.get("polecat-a").await?.status.context("a status")?;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let message = |list: &[k8s_openapi::api::core::v1::ContainerStatus], at: usize| {
        list[at].state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.message.clone())
    };
    let inits = status.init_container_statuses.unwrap_or_default();
    assert_eq!(message(&inits, 0).as_deref(), Some("ready"));
    assert_eq!(message(&inits, 1).as_deref(), Some("pushed"));
    assert_eq!(
        message(&status.container_statuses.unwrap_or_default(), 0).as_deref(),
        Some("drained")
    );
    Ok(())
}

#[tokio::test]
async fn on_a_fake_node_a_pod_runs_until_it_is_drained_and_is_gone_when_it_is_deleted() -> Result<()>
{
    let plane = ControlPlane::start(Options { fake_nodes: 2, ..Options::default() }).await?;
    let client = plane.client()?;
    let namespace = plane.namespace().await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    await_condition(accounts, "default", |a: Option<&ServiceAccount>| a.is_some()).await?;
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    api.create(&PostParams::default(), &polecat_pod()?).await?;
    let is = |phase: &'static str| {
        move |pod: Option<&Pod>| {
            pod.and_then(|p| p.status.as_ref()).is_some_and(|s| s.phase.as_deref() == Some(phase))
        }
    };
    let running = await_condition(api.clone(), "polecat-a", is("Running")).await?;
    let status = running.and_then(|pod| pod.status).context("a status")?;
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    let runs: Vec<bool> =
        containers.map(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())).collect();
    assert_eq!(runs, [false, true, true], "git-init is done, git-sync and claude run");
    let drain = json!({"metadata": {"annotations": {"gastown.io/drain": "test"}}});
    api.patch("polecat-a", &PatchParams::default(), &Patch::Merge(&drain)).await?;
    let ended = await_condition(api.clone(), "polecat-a", is("Succeeded")).await?;
    let uid = ended.and_then(|pod| pod.uid()).context("a uid")?;
    api.delete("polecat-a", &DeleteParams::default()).await?;
    await_condition(api, "polecat-a", conditions::is_deleted(&uid)).await?;
    Ok(())
}

#[tokio::test]
async fn a_bound_pod_that_is_deleted_waits_for_its_kubelet() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pod = pods.create(&PostParams::default(), &polecat_pod()?).await?;
    let kubelet = TestKubelet::new(client);
    kubelet.running(&pod).await?;
    pods.delete("polecat-a", &DeleteParams::default()).await?;
    assert!(pods.get("polecat-a").await?.metadata.deletion_timestamp.is_some());
    kubelet.terminate(&pod, &Outcome::new()).await?;
    kubelet.wait_gone(&pod).await?;
    assert_eq!(kubelet.count(&namespace).await?, 0);
    Ok(())
}

#[tokio::test]
async fn eviction_and_a_lost_node_look_as_they_do_on_a_cluster() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pod = pods.create(&PostParams::default(), &polecat_pod()?).await?;
    let kubelet = TestKubelet::new(client.clone());
    kubelet.running(&pod).await?;
    let lost = kubelet.node_unreachable(&pod).await?;
    assert_eq!(lost.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Running"));
    assert_eq!(lost.status.and_then(|s| s.reason).as_deref(), Some("NodeLost"));
    let evicted = kubelet.evict(&pod).await?.status.context("a status")?;
    assert_eq!(
        (evicted.phase.as_deref(), evicted.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
    kubelet.node_lost(&pod).await?;
    let node =
        pods.get("polecat-a").await?.spec.and_then(|s| s.node_name).context("a node's name")?;
    assert!(Api::<Node>::all(client).get_opt(&node).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn the_projects_crds_are_served() -> Result<()> {
    let (plane, client, _) = fixture().await?;
    plane.install_crds().await?;
    let groups = client.list_api_groups().await?.groups;
    assert!(groups.iter().any(|g| g.name == "gastown.gastown.io"), "{groups:?}");
    // A second installation changes nothing and is not an error.
    plane.install_crds().await
}

#[tokio::test]
#[ignore = "the process that the next test kills"]
async fn a_process_with_a_plane() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    println!("pids {}", plane.pids().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    // Ends with the process that started it.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[tokio::test]
async fn a_plane_dies_with_the_process_that_started_it() -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--ignored", "--exact", "--nocapture", "a_process_with_a_plane"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let pids = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("pids ").map(|(_, pids)| pids.to_owned()));
    let pids = pids.context("the process started no plane")?;
    let pids: Vec<u32> = pids.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!(pids.len(), 3);
    // Field 3 of proc(5)'s stat: a zombie is dead, even before it is reaped.
    let running = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    assert!(pids.iter().all(running));
    child.kill()?;
    child.wait()?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while pids.iter().any(running) {
        assert!(Instant::now() < deadline, "of {pids:?} some still run");
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_plane_leaves_no_process() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let pids = plane.pids();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()));
    drop(plane);
    assert!(!pids.iter().any(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()));
    Ok(())
}
