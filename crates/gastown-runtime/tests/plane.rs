//! What the shell promises, on a real API server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::condition;
use gastown_api::{Rig, RigPhase, RigSpec, RigStatus, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_proto::v1::merge_queue_client::MergeQueueClient;
use gastown_proto::v1::merge_queue_server::{MergeQueue, MergeQueueServer};
use gastown_proto::v1::{
    GetRequest, ListRequest, ListResponse, MergeRequestView, SubmitRequest, SubmitResponse,
};
use gastown_runtime::apply::{self, StatusOwner};
use gastown_runtime::auth::{self, TokenReviewer};
use gastown_runtime::events::{Events, Note};
use gastown_runtime::grpc::{self, Remote};
use gastown_runtime::lease::{self, Leadership};
use gastown_runtime::metrics::Metrics;
use gastown_runtime::tls::Tls;
use gastown_runtime::watch::{self, Watch};
use gastown_runtime::{AUDIENCE, Runtime, RuntimeArgs, client};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Config, Resource, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

/// Nothing here takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("{what} did not happen"))
}

/// Looks again and again until there is something to see.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    within(what, async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The plane, our own kind of client for it, and a namespace.
async fn ground() -> Result<(&'static ControlPlane, Client, String)> {
    let plane = ControlPlane::shared().await?;
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = client::with_config(config, "runtime-test", &Metrics::default())?;
    Ok((plane, client, plane.namespace().await?))
}

fn runtime(client: Client) -> Result<Runtime> {
    Ok(Runtime::new(
        "runtime-test",
        client,
        RuntimeArgs::from_env()?,
        Metrics::default(),
        Leadership::always("test"),
    ))
}

const OWNER: StatusOwner = StatusOwner {
    manager: "gastown-rig-ctl",
    fields: &["phase", "polecatCount"],
    conditions: &[condition::READY],
};

async fn rig(plane: &ControlPlane, client: &Client, name: &str) -> Result<Rig> {
    plane.install_crds().await?;
    let spec = RigSpec {
        git_url: "https://example.com/a/b".into(),
        beads_prefix: "web".into(),
        ..RigSpec::default()
    };
    Ok(Api::all(client.clone()).create(&PostParams::default(), &Rig::new(name, spec)).await?)
}

fn ready_status(rig: &Rig) -> RigStatus {
    let mut all = rig.status.clone().unwrap_or_default().conditions;
    conditions::set(
        &mut all,
        condition::READY,
        true,
        "Ready",
        "all is well",
        rig.metadata.generation,
        Timestamp::now(),
    );
    RigStatus {
        phase: Some(RigPhase::Ready),
        polecat_count: 0,
        conditions: all,
        ..RigStatus::default()
    }
}

#[tokio::test]
async fn a_status_that_says_nothing_new_is_not_sent() -> Result<()> {
    let (plane, client, namespace) = ground().await?;
    let rigs: Api<Rig> = Api::all(client.clone());
    let fresh = rig(plane, &client, &format!("twice-{namespace}")).await?;
    ensure!(OWNER.apply(&rigs, &fresh, &ready_status(&fresh)).await?, "the first apply writes");
    let written = rigs.get(&fresh.name_any()).await?;
    ensure!(
        !OWNER.apply(&rigs, &written, &ready_status(&written)).await?,
        "the second has nothing to write"
    );
    // Even sent from a cache that has not seen the first, the same words are no write.
    ensure!(OWNER.apply(&rigs, &fresh, &ready_status(&written)).await?);
    ensure!(rigs.get(&fresh.name_any()).await?.resource_version() == written.resource_version());
    Ok(())
}

#[tokio::test]
async fn a_status_owner_leaves_the_conditions_of_others_alone() -> Result<()> {
    let (plane, client, namespace) = ground().await?;
    let rigs: Api<Rig> = Api::all(client.clone());
    let fresh = rig(plane, &client, &format!("shared-{namespace}")).await?;
    let other = StatusOwner { manager: "another", fields: &[], conditions: &["Merged"] };
    let mut theirs = RigStatus::default();
    conditions::set(
        &mut theirs.conditions,
        "Merged",
        true,
        "MergeComplete",
        "",
        None,
        Timestamp::now(),
    );
    other.apply(&rigs, &fresh, &theirs).await?;
    OWNER.apply(&rigs, &fresh, &ready_status(&fresh)).await?;
    let status = rigs.get(&fresh.name_any()).await?.status.context("no status")?;
    ensure!(
        conditions::is_true(&status.conditions, "Merged")
            && conditions::is_true(&status.conditions, condition::READY)
    );
    Ok(())
}

#[tokio::test]
async fn a_status_never_lands_on_a_namesake() -> Result<()> {
    let (plane, client, namespace) = ground().await?;
    let rigs: Api<Rig> = Api::all(client.clone());
    let name = format!("namesake-{namespace}");
    let gone = rig(plane, &client, &name).await?;
    rigs.delete(&name, &DeleteParams::default()).await?;
    let namesake = rig(plane, &client, &name).await?;
    ensure!(!OWNER.apply(&rigs, &gone, &ready_status(&gone)).await?);
    ensure!(rigs.get(&name).await?.resource_version() == namesake.resource_version());
    Ok(())
}

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn a_child_is_written_once_and_again_when_its_manifest_or_the_child_changes() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let wanted = config_map("child", &[("a", "1"), ("b", "2")]);
    ensure!(apply::child(&maps, "test", None, &wanted).await?);
    let present = maps.get("child").await?;
    ensure!(!apply::child(&maps, "test", Some(&present), &wanted).await?, "nothing to do");

    maps.patch("child", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "edited"}})))
        .await?;
    ensure!(
        apply::child(&maps, "test", Some(&maps.get("child").await?), &wanted).await?,
        "an edit is put right"
    );

    let less = config_map("child", &[("a", "1")]);
    ensure!(apply::child(&maps, "test", Some(&maps.get("child").await?), &less).await?);
    ensure!(maps.get("child").await?.data == less.data, "what the manifest dropped is gone");

    maps.delete("child", &DeleteParams::default()).await?;
    let stale = apply::child(&maps, "test", Some(&present), &less).await;
    ensure!(
        stale.is_err() && maps.get_opt("child").await?.is_none(),
        "a deleted child is not made again half: {stale:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_child_never_overwrites_an_object_that_the_cache_has_not_shown_yet() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let parent = maps.create(&PostParams::default(), &config_map("parent", &[])).await?;
    let mut wanted = config_map("child", &[("a", "1")]);
    wanted.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: "parent".into(),
        uid: parent.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let foreign =
        maps.create(&PostParams::default(), &config_map("child", &[("a", "a person's")])).await?;
    let refused = apply::child(&maps, "test", None, &wanted).await;
    ensure!(matches!(refused, Err(apply::Error::Taken { .. })), "{refused:?}");
    ensure!(
        maps.get("child").await?.resource_version() == foreign.resource_version(),
        "it was touched"
    );
    // One of our own that the cache has not shown yet is brought to its manifest, not refused.
    maps.delete("child", &DeleteParams::default()).await?;
    ensure!(apply::child(&maps, "test", None, &wanted).await?);
    ensure!(!apply::child(&maps, "test", None, &wanted).await?, "it is there already");
    Ok(())
}

#[tokio::test]
async fn finalizers_and_annotations_are_guarded_and_written_once() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let first = maps.create(&PostParams::default(), &config_map("guarded", &[])).await?;
    let second =
        apply::add_finalizer(&maps, "test", &first, "gastown.io/test").await?.context("written")?;
    ensure!(apply::add_finalizer(&maps, "test", &second, "gastown.io/test").await?.is_none());
    let third = apply::annotate(&maps, "test", &second, &[("gastown.io/a", Some("1"))])
        .await?
        .context("written")?;
    ensure!(
        apply::annotate(&maps, "test", &third, &[("gastown.io/a", Some("1"))]).await?.is_none()
    );
    let stale = apply::annotate(&maps, "test", &second, &[("gastown.io/a", Some("2"))]).await;
    ensure!(
        matches!(&stale, Err(apply::Error::Api { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.is_conflict()))
    );
    ensure!(apply::delete(&maps, &third).await?);
    ensure!(
        apply::remove_finalizer(&maps, "test", &maps.get("guarded").await?, "gastown.io/test")
            .await?
    );
    ensure!(
        !apply::remove_finalizer(&maps, "test", &third, "gastown.io/test").await?,
        "gone is as wanted"
    );
    ensure!(!apply::delete(&maps, &third).await?, "gone is as wanted");
    Ok(())
}

#[tokio::test]
async fn the_lease_has_one_holder_and_is_handed_over() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let candidate = |identity: &str| {
        let stop = CancellationToken::new();
        let config = lease::Config::new(&namespace, "gastown-test", identity);
        let (claims, task) =
            lease::spawn(client.clone(), config, &Metrics::default(), stop.clone());
        (claims, stop, task)
    };
    let (a, stop, task) = candidate("a");
    let first = within("a's claim", a.acquired()).await?;
    let (b, ..) = candidate("b");
    until("b seeing a", || (b.holder().as_deref() == Some("a")).then_some(())).await?;
    ensure!(b.held().is_none() && a.held().is_some());
    stop.cancel();
    task.await?;
    ensure!(a.held().is_none());
    ensure!(within("b's claim", b.acquired()).await? == first + 1, "the fencing token grows");
    Ok(())
}

/// A ConfigMap that must have a key `number`.
#[derive(Clone, Debug, serde::Deserialize)]
struct Numbered {
    metadata: ObjectMeta,
    data: Data,
}

#[derive(Clone, Debug, serde::Deserialize)]
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
async fn an_object_that_does_not_decode_is_skipped_and_stops_nobody() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    maps.create(&PostParams::default(), &config_map("bad", &[("else", "x")])).await?;
    maps.create(&PostParams::default(), &config_map("good", &[("number", "1")])).await?;

    let runtime = runtime(client)?;
    let (trigger, mut told) = watch::triggers::<Numbered>();
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
    until("the mended object", || (number("bad").as_deref() == Some("2")).then_some(())).await?;
    maps.patch("good", &PatchParams::default(), &Patch::Merge(json!({"data": {"number": null}})))
        .await?;
    until("the complaint", || {
        runtime.metrics.encode().ok()?.contains("objects{kind=\"ConfigMap\"} 1").then_some(())
    })
    .await?;
    ensure!(number("good").as_deref() == Some("1"), "the last good version stays");

    maps.delete("good", &DeleteParams::default()).await?;
    until("the deletion", || number("good").is_none().then_some(())).await?;
    let mut last = None;
    while let Ok(Some(reference)) = tokio::time::timeout(Duration::from_secs(1), told.recv()).await
    {
        last = Some(reference.name);
    }
    ensure!(last.as_deref() == Some("good"), "the deletion is told: {last:?}");
    runtime.shutdown();
    Ok(())
}

/// A kind that nobody has installed.
#[derive(kube::CustomResource, Clone, Debug, serde::Deserialize, serde::Serialize)]
#[kube(group = "absent.example.com", version = "v1", kind = "Absent", schema = "disabled")]
struct AbsentSpec {}

#[tokio::test]
async fn readiness_names_a_definition_that_is_missing() -> Result<()> {
    let (_, client, _) = ground().await?;
    let runtime = runtime(client)?;
    let _store = Watch::<Absent>::all(&runtime).start();
    until("the complaint", || {
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

/// A token of a service account, made as the kubelet has it made.
async fn token(client: &Client, namespace: &str, account: &str, audience: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    if accounts.get_opt(account).await?.is_none() {
        let metadata = ObjectMeta { name: Some(account.to_owned()), ..ObjectMeta::default() };
        accounts
            .create(
                &PostParams::default(),
                &ServiceAccount { metadata, ..ServiceAccount::default() },
            )
            .await?;
    }
    let spec =
        TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("no token")?.token)
}

#[tokio::test]
async fn a_token_for_us_is_accepted_and_one_for_another_audience_is_not() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let reviewer = TokenReviewer::new(client.clone(), AUDIENCE);
    let good = token(&client, &namespace, "polecat-ctl", AUDIENCE).await?;
    for _ in 0..2 {
        let identity = reviewer.review(&good).await?;
        ensure!(
            (identity.namespace.as_str(), identity.service_account.as_str())
                == (namespace.as_str(), "polecat-ctl")
        );
    }
    let other = token(&client, &namespace, "polecat-ctl", "https://kubernetes.default.svc").await?;
    for bad in [other.as_str(), "no-token", ""] {
        let refused = reviewer.review(bad).await;
        ensure!(matches!(refused, Err(auth::Error::Unauthenticated(_))), "{refused:?}");
    }
    Ok(())
}

/// Answers a Submit with the caller's name.
struct Mirror;

#[tonic::async_trait]
impl MergeQueue for Mirror {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let caller = grpc::caller(&request)?;
        Ok(Response::new(SubmitResponse {
            namespace: caller.namespace.clone(),
            name: caller.service_account.clone(),
            created: true,
        }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<MergeRequestView>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tokio::test]
async fn a_call_needs_a_token_of_somebody_who_may() -> Result<()> {
    let (_, client, namespace) = ground().await?;
    let folder = tempfile::tempdir()?;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.path().join("ca.crt"), pair.cert.pem())?;
    std::fs::write(folder.path().join("tls.crt"), pair.cert.pem())?;
    std::fs::write(folder.path().join("tls.key"), pair.signing_key.serialize_pem())?;

    let drain = CancellationToken::new();
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let uri = format!("https://localhost:{}", listener.local_addr()?.port());
    let tls = Tls::load(folder.path(), drain.clone())?;
    let routes = tonic::service::Routes::new(MergeQueueServer::new(Mirror));
    let policy: grpc::Policy = Arc::new(|path, caller| {
        let may =
            path == "/gastown.v1.MergeQueue/Submit" && caller.service_account == "polecat-ctl";
        may.then_some(()).ok_or_else(|| format!("{} may not", caller.service_account))
    });
    let reviewer = TokenReviewer::new(client.clone(), AUDIENCE);
    let server = tokio::spawn({
        let drain = drain.clone();
        async move {
            grpc::serve(
                listener,
                &tls,
                routes,
                gastown_proto::v1::DESCRIPTORS,
                reviewer,
                policy,
                drain,
            )
            .await
        }
    });

    let token_file = folder.path().join("token");
    let remote = Remote::new(&uri, folder.path(), &token_file, Duration::from_secs(10));
    let submit = async |token: &str| -> Result<Result<SubmitResponse, Status>> {
        std::fs::write(&token_file, token)?;
        let queue = MergeQueueClient::new(remote.channel()?);
        Ok(grpc::retry(3, || {
            let mut queue = queue.clone();
            async move { queue.submit(SubmitRequest::default()).await }
        })
        .await
        .map(Response::into_inner))
    };
    let answer = submit(&token(&client, &namespace, "polecat-ctl", AUDIENCE).await?).await??;
    ensure!(
        (answer.namespace.as_str(), answer.name.as_str()) == (namespace.as_str(), "polecat-ctl")
    );
    let stranger = submit(&token(&client, &namespace, "stranger", AUDIENCE).await?).await?;
    ensure!(
        matches!(&stranger, Err(status) if status.code() == Code::PermissionDenied),
        "{stranger:?}"
    );
    let elsewhere = submit(&token(&client, &namespace, "polecat-ctl", "elsewhere").await?).await?;
    ensure!(
        matches!(&elsewhere, Err(status) if status.code() == Code::Unauthenticated),
        "{elsewhere:?}"
    );

    let channel = tonic::transport::Endpoint::from_shared(uri)?
        .tls_config(
            tonic::transport::ClientTlsConfig::new()
                .ca_certificate(tonic::transport::Certificate::from_pem(pair.cert.pem())),
        )?
        .connect_lazy();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let serving = health.check(tonic_health::pb::HealthCheckRequest::default()).await?.into_inner();
    ensure!(
        serving.status() == tonic_health::pb::health_check_response::ServingStatus::Serving,
        "health needs no token"
    );

    drop((health, remote));
    drain.cancel();
    within("the server's end", server).await???;
    Ok(())
}

#[tokio::test]
async fn events_about_different_objects_keep_their_own_words() -> Result<()> {
    let (_, client, namespace) = ground().await?;
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
    let said = async {
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
    within("an event of each", said).await?
}
