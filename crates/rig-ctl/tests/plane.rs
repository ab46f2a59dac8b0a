//! rig-ctl as the chart runs it: its own service account, its own roles, a real API server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::{condition, finalizer, label};
use gastown_api::rbac::Controller;
use gastown_api::{
    BeadStore, BeadStoreTemplate, DesiredState, Polecat, PolecatPhase, PolecatSpec, Refinery,
    RefinerySpec, RefineryTemplate, Rig, RigPhase, RigSpec, Witness, conditions,
};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, Hosted, until};
use gastown_runtime::lease::Leadership;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::{NoArgs, Runtime, RuntimeArgs, client};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

/// Nothing here takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "rig-ctl";

/// Runs the controller for the whole of this test program, on a thread that outlives each test's
/// own runtime.
async fn serve() -> Result<((), ())> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::Rig, &[]).await?;
    let metrics = Metrics::default();
    let client = client::with_config(install::config(plane, Controller::Rig), ACCOUNT, &metrics)?;
    let args = RuntimeArgs { namespace: NAMESPACE.into(), ..RuntimeArgs::from_env()? };
    let runtime = Runtime::new(ACCOUNT, client, args, metrics, Leadership::always(ACCOUNT));
    let started = runtime.clone();
    tokio::spawn(rig_ctl::start(runtime, NoArgs {}));
    started.readiness.ready().await;
    Ok(((), ()))
}

static CONTROLLER: Hosted<()> = Hosted::new();

/// A client with all permissions, the controller at work, and a namespace for this test.
async fn ground() -> Result<(Client, String)> {
    install::hosted(&CONTROLLER, serve).await?;
    let plane = ControlPlane::shared().await?;
    Ok((plane.client()?, plane.namespace().await?))
}

fn rigs(client: &Client) -> Api<Rig> {
    Api::all(client.clone())
}

fn refineries(client: &Client, namespace: &str) -> Api<Refinery> {
    Api::namespaced(client.clone(), namespace)
}

fn spec() -> RigSpec {
    RigSpec {
        git_url: "https://example.com/a/b".into(),
        beads_prefix: "web".into(),
        ..RigSpec::default()
    }
}

async fn make(client: &Client, name: &str, spec: RigSpec) -> Result<Rig> {
    Ok(rigs(client).create(&PostParams::default(), &Rig::new(name, spec)).await?)
}

fn ready(rig: Option<&Rig>) -> Option<Condition> {
    conditions::find(&rig?.status.as_ref()?.conditions, condition::READY).cloned()
}

/// As refinery-ctl says it.
async fn say_ready(
    api: &Api<Refinery>,
    name: &str,
    is_ready: bool,
    reason: &str,
    message: &str,
) -> Result<()> {
    let generation = api.get(name).await?.metadata.generation;
    let status = if is_ready { "True" } else { "False" };
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = json!({"status": {"queueLength": 0, "conditions": [condition]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

async fn polecat(
    client: &Client,
    namespace: &str,
    name: &str,
    rig: &str,
    phase: Option<PolecatPhase>,
) -> Result<Polecat> {
    let api: Api<Polecat> = Api::namespaced(client.clone(), namespace);
    let spec = PolecatSpec { desired_state: DesiredState::Working, ..PolecatSpec::of_rig(rig) };
    let made = api.create(&PostParams::default(), &Polecat::new(name, spec)).await?;
    if let Some(phase) = phase {
        api.patch_status(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": phase}})),
        )
        .await?;
    }
    Ok(made)
}

#[tokio::test]
async fn a_rig_gets_its_children_and_is_ready_when_its_refinery_is() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("plain-{namespace}");
    let rig = make(&client, &name, spec()).await?;
    let own = format!("{name}-refinery");
    let api = refineries(&client, NAMESPACE);
    let refinery =
        until(PATIENCE, &api, &own, "the Refinery", |refinery| Some(refinery?.clone())).await?;
    let labels = BTreeMap::from([
        (label::RIG_OWNER.into(), name.clone()),
        (label::MANAGED_BY.into(), label::MANAGED_BY_RIG.into()),
    ]);
    ensure!(refinery.metadata.labels == Some(labels), "{:?}", refinery.metadata.labels);
    ensure!(
        refinery
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == rig.metadata.uid.as_ref())
    );
    ensure!(refinery.spec == RefinerySpec::of_rig(&name));
    let witnesses: Api<Witness> = Api::namespaced(client.clone(), NAMESPACE);
    until(PATIENCE, &witnesses, &format!("{name}-witness"), "the Witness", |witness| {
        witness.map(|_| ())
    })
    .await?;

    let unseen =
        |rig: Option<&Rig>| ready(rig).filter(|ready| ready.message.contains("not been looked at"));
    let waits = until(PATIENCE, &rigs(&client), &name, "a word about the wait", unseen).await?;
    ensure!(waits.status == "False" && waits.reason == "RefineryNotReady", "{waits:?}");
    say_ready(&api, &own, false, "SecretNotFound", "secret git-creds has no key ssh-privatekey")
        .await?;
    let broken = |rig: Option<&Rig>| {
        ready(rig).filter(|ready| ready.message.contains("SecretNotFound: secret git-creds"))
    };
    until(PATIENCE, &rigs(&client), &name, "the Refinery's trouble", broken).await?;
    say_ready(&api, &own, true, "Idle", "").await?;
    until(PATIENCE, &rigs(&client), &name, "readiness", |rig| {
        ready(rig).filter(|ready| ready.status == "True")
    })
    .await?;
    let status = rigs(&client).get(&name).await?.status.context("no status")?;
    ensure!(
        status.phase == Some(RigPhase::Ready) && status.refinery_created && status.witness_created
    );
    ensure!(status.child_namespace.as_deref() == Some(NAMESPACE));
    Ok(())
}

#[tokio::test]
async fn a_changed_template_reaches_the_child_and_a_deleted_child_returns() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("template-{namespace}");
    let template =
        RefineryTemplate { test_command: Some("make test".into()), ..RefineryTemplate::default() };
    make(&client, &name, RigSpec { refinery: Some(template), ..spec() }).await?;
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    let command = |wanted: Option<&'static str>| {
        move |refinery: Option<&Refinery>| {
            refinery.filter(|refinery| refinery.spec.test_command.as_deref() == wanted).cloned()
        }
    };
    let first = until(PATIENCE, &api, &own, "the gate", command(Some("make test"))).await?;
    let patch = json!({"spec": {"refinery": {"testCommand": "make check"}}});
    rigs(&client).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    until(PATIENCE, &api, &own, "the new gate", command(Some("make check"))).await?;
    rigs(&client)
        .patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"refinery": null}})))
        .await?;
    until(PATIENCE, &api, &own, "no gate", command(None)).await?;
    api.delete(&own, &DeleteParams::default()).await?;
    until(PATIENCE, &api, &own, "the Refinery's return", |refinery| {
        refinery.filter(|refinery| refinery.uid() != first.uid()).map(|_| ())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_refinery_that_a_person_wrote_is_used_wherever_it_is() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("adopting-{namespace}");
    let theirs = refineries(&client, &namespace);
    theirs
        .create(&PostParams::default(), &Refinery::new("mine", RefinerySpec::of_rig(&name)))
        .await?;
    say_ready(&theirs, "mine", true, "Idle", "").await?;
    make(&client, &name, spec()).await?;
    let ready = until(PATIENCE, &rigs(&client), &name, "readiness", |rig| {
        ready(rig).filter(|ready| ready.status == "True")
    })
    .await?;
    ensure!(ready.message == format!("Refinery {namespace}/mine is ready"), "{ready:?}");
    ensure!(
        refineries(&client, NAMESPACE).get_opt(&format!("{name}-refinery")).await?.is_none(),
        "none is made beside it"
    );

    rigs(&client).delete(&name, &DeleteParams::default()).await?;
    until(PATIENCE, &rigs(&client), &name, "the Rig's end", |rig| rig.is_none().then_some(()))
        .await?;
    ensure!(theirs.get_opt("mine").await?.is_some(), "what a person wrote stays");
    Ok(())
}

#[tokio::test]
async fn ours_withdraws_when_a_person_writes_one() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("withdrawing-{namespace}");
    make(&client, &name, spec()).await?;
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    until(PATIENCE, &api, &own, "ours", |refinery| refinery.map(|_| ())).await?;
    let theirs = refineries(&client, &namespace);
    theirs
        .create(&PostParams::default(), &Refinery::new("mine", RefinerySpec::of_rig(&name)))
        .await?;
    until(PATIENCE, &api, &own, "ours withdrawn", |refinery| refinery.is_none().then_some(()))
        .await?;
    theirs.delete("mine", &DeleteParams::default()).await?;
    until(PATIENCE, &api, &own, "ours again", |refinery| refinery.map(|_| ())).await?;
    Ok(())
}

#[tokio::test]
async fn a_foreign_object_of_the_childs_name_is_left_alone_and_named() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("taken-{namespace}");
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    let other = RefinerySpec { target_branch: "releases".into(), ..RefinerySpec::of_rig(&name) };
    let before = api.create(&PostParams::default(), &Refinery::new(&own, other)).await?;
    make(&client, &name, spec()).await?;
    let said = until(PATIENCE, &rigs(&client), &name, "the trouble", |rig| {
        ready(rig).filter(|ready| ready.reason == "ChildCreationFailed")
    })
    .await?;
    ensure!(said.message.contains(&own), "{said:?}");
    ensure!(api.get(&own).await?.resource_version() == before.resource_version());
    Ok(())
}

#[tokio::test]
async fn an_erased_status_comes_back() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("erased-{namespace}");
    make(&client, &name, spec()).await?;
    polecat(&client, &namespace, "a", &name, Some(PolecatPhase::Working)).await?;
    let counted = |rig: Option<&Rig>| {
        rig?.status
            .clone()
            .filter(|status| status.polecats.is_some_and(|polecats| polecats.working == 1))
    };
    let before = until(PATIENCE, &rigs(&client), &name, "the count", counted).await?;
    rigs(&client)
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": null})))
        .await?;
    let after = until(PATIENCE, &rigs(&client), &name, "the count again", counted).await?;
    ensure!(
        (after.phase, after.polecat_count, after.refinery_created) == (before.phase, 1, true),
        "{after:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_child_that_the_server_refuses_is_shown_in_its_words() -> Result<()> {
    let (client, namespace) = ground().await?;
    // With its suffix the child's name is longer than a name may be.
    let name = format!("long-{namespace}-{}", "x".repeat(250))[..250].to_owned();
    make(&client, &name, spec()).await?;
    let degraded = until(PATIENCE, &rigs(&client), &name, "the refusal", |rig| {
        ready(rig).filter(|ready| ready.reason == "ChildCreationFailed")
    })
    .await?;
    ensure!(degraded.message.contains("must be no more than 253"), "{degraded:?}");
    ensure!(
        rigs(&client).get(&name).await?.status.and_then(|status| status.phase)
            == Some(RigPhase::Degraded)
    );
    Ok(())
}

#[tokio::test]
async fn polecats_are_counted_by_phase_in_all_namespaces() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("counting-{namespace}");
    make(&client, &name, RigSpec { suspend: true, ..spec() }).await?;
    let phases = [
        None,
        Some(PolecatPhase::Working),
        Some(PolecatPhase::Done),
        Some(PolecatPhase::Stuck),
        Some(PolecatPhase::Terminated),
    ];
    for (index, phase) in phases.into_iter().enumerate() {
        polecat(&client, &namespace, &format!("p{index}"), &name, phase).await?;
    }
    let plane = ControlPlane::shared().await?;
    polecat(&client, &plane.namespace().await?, "elsewhere", &name, Some(PolecatPhase::Done))
        .await?;
    let counted = |rig: Option<&Rig>| {
        let status = rig?.status.clone()?;
        let counts = status.polecats?;
        let seen = [
            status.polecat_count,
            counts.idle,
            counts.queued,
            counts.working,
            counts.done,
            counts.stuck,
        ];
        (seen == [6, 0, 1, 1, 2, 1]).then_some(status)
    };
    let status = until(PATIENCE, &rigs(&client), &name, "the counts", counted).await?;
    let available = |status: &gastown_api::RigStatus| {
        conditions::find(&status.conditions, condition::AVAILABLE).cloned()
    };
    ensure!(
        available(&status).is_some_and(|available| available.status == "False"),
        "not ready yet"
    );
    say_ready(&refineries(&client, NAMESPACE), &format!("{name}-refinery"), true, "Idle", "")
        .await?;
    let parked = |rig: Option<&Rig>| {
        available(rig?.status.as_ref()?).filter(|available| available.reason == "RigSuspended")
    };
    until(PATIENCE, &rigs(&client), &name, "parked", parked).await?;
    ensure!(
        ready(Some(&rigs(&client).get(&name).await?)).is_some_and(|ready| ready.status == "True"),
        "a parked rig is ready"
    );
    Ok(())
}

#[tokio::test]
async fn deletion_waits_for_polecats_at_work_and_takes_the_children_along() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("ending-{namespace}");
    make(&client, &name, spec()).await?;
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    until(PATIENCE, &api, &own, "the Refinery", |refinery| refinery.map(|_| ())).await?;
    polecat(&client, &namespace, "busy", &name, Some(PolecatPhase::Working)).await?;
    let counted =
        |rig: Option<&Rig>| rig?.status.as_ref()?.polecats.filter(|polecats| polecats.working == 1);
    until(PATIENCE, &rigs(&client), &name, "the count", counted).await?;

    rigs(&client).delete(&name, &DeleteParams::default()).await?;
    let waits = until(PATIENCE, &rigs(&client), &name, "the wait", |rig| {
        ready(rig).filter(|ready| ready.reason == "WaitingForPolecats")
    })
    .await?;
    ensure!(
        waits.message == format!("deletion waits for 1 polecat: {namespace}/busy"),
        "{waits:?}"
    );
    let held = rigs(&client).get(&name).await?;
    ensure!(held.finalizers() == [finalizer::RIG] && api.get_opt(&own).await?.is_some());

    let polecats: Api<Polecat> = Api::namespaced(client.clone(), &namespace);
    polecats
        .patch_status(
            "busy",
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": "Done"}})),
        )
        .await?;
    until(PATIENCE, &rigs(&client), &name, "the Rig's end", |rig| rig.is_none().then_some(()))
        .await?;
    ensure!(api.get_opt(&own).await?.is_none(), "the Refinery went before the Rig");
    ensure!(polecats.get_opt("busy").await?.is_some(), "polecats are their own");
    Ok(())
}

/// The body of an admin page and whether it is a 200, or nothing while nobody listens.
async fn page(port: u16, path: &str) -> Option<(bool, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.starts_with("HTTP/1.1 200"), body.to_owned()))
}

async fn until_page(port: u16, path: &str, want: impl Fn(bool, &str) -> bool) -> Result<String> {
    let look = async {
        loop {
            match page(port, path).await {
                Some((ok, body)) if want(ok, &body) => return body,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.with_context(|| format!("{path} never said so"))
}

#[tokio::test]
async fn the_program_waits_for_its_kinds_serves_its_pages_and_gives_its_lease_back() -> Result<()> {
    // A plane of its own: two rig controllers would work on the same rigs.
    let plane = ControlPlane::start(Options::default()).await?;
    let namespace = plane.namespace().await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_rig-ctl"))
        .env("KUBECONFIG", plane.kubeconfig())
        .env("GASTOWN_NAMESPACE", &namespace)
        .env("GASTOWN_ADMIN_ADDR", format!("127.0.0.1:{port}"))
        .env("GASTOWN_POD_NAME", "rig-ctl-0")
        .kill_on_drop(true)
        .spawn()?;
    let missing =
        until_page(port, "/readyz", |ok, body| !ok && body.contains("CustomResourceDefinition"))
            .await?;
    ensure!(missing.contains("Rig: its CustomResourceDefinition is not installed"), "{missing}");
    ensure!(page(port, "/livez").await.is_some_and(|(ok, _)| ok), "alive while it waits");

    plane.install_crds().await?;
    until_page(port, "/readyz", |ok, _| ok).await?;
    let client = plane.client()?;
    make(&client, "web", spec()).await?;
    until(PATIENCE, &refineries(&client, &namespace), "web-refinery", "the Refinery", |refinery| {
        refinery.map(|_| ())
    })
    .await?;
    let metrics = until_page(port, "/metrics", |_, body| {
        body.contains("gastown_reconcile_total{controller=\"rig\"")
    })
    .await?;
    ensure!(
        metrics.contains(
            "gastown_kube_requests_total{verb=\"apply\",resource=\"refineries\",code=\"201\"} 1"
        ),
        "{metrics}"
    );
    ensure!(page(port, "/version").await.is_some_and(|(_, body)| body.contains("rig-ctl")));

    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let holder = |lease: Option<&Lease>| lease?.spec.as_ref()?.holder_identity.clone();
    ensure!(
        until(PATIENCE, &leases, "gastown-rig-ctl", "the holder", holder).await? == "rig-ctl-0"
    );
    let pid = program.id().context("it runs")?;
    let memory = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    println!(
        "rig-ctl: {}",
        memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default()
    );
    ensure!(std::process::Command::new("kill").arg(pid.to_string()).status()?.success());
    let ended = tokio::time::timeout(PATIENCE, program.wait()).await??;
    ensure!(ended.success(), "{ended}");
    let free =
        |lease: Option<&Lease>| lease?.spec.as_ref()?.holder_identity.is_none().then_some(());
    until(PATIENCE, &leases, "gastown-rig-ctl", "the release", free).await
}

#[tokio::test]
async fn a_bead_store_comes_and_goes_with_the_wish_for_one() -> Result<()> {
    let (client, namespace) = ground().await?;
    let name = format!("{namespace}-beads");
    let beads =
        BeadStoreTemplate { sync_interval: Some("1m".into()), ..BeadStoreTemplate::default() };
    make(&client, &name, RigSpec { beads: Some(beads), ..spec() }).await?;
    let stores: Api<BeadStore> = Api::namespaced(client.clone(), NAMESPACE);
    let child = format!("{name}-beads");
    let made = until(PATIENCE, &stores, &child, "the store", |store| {
        store.map(|store| store.spec.clone())
    })
    .await?;
    ensure!(
        (made.rig_ref.as_str(), made.prefix.as_str(), made.sync_interval.as_str())
            == (name.as_str(), "web", "1m"),
        "{made:?}"
    );
    let unwanted = json!({"spec": {"beads": null}});
    rigs(&client).patch(&name, &PatchParams::default(), &Patch::Merge(&unwanted)).await?;
    until(PATIENCE, &stores, &child, "its end", |store| store.is_none().then_some(())).await
}
