//! The servers: who may submit, and which pod may fetch which candidate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::{self, token};
use gastown_git::Git;
use gastown_proto::v1::SubmitRequest;
use gastown_proto::v1::merge_queue_client::MergeQueueClient;
use gastown_runtime::grpc::{self, Remote};
use gastown_runtime::metrics::Metrics;
use gastown_runtime::shards::Shards;
use gastown_runtime::{Runtime, RuntimeArgs, client};
use gastown_types::GitUrl;
use kube::ResourceExt as _;

use crate::fixture::{ACCOUNT, Fixture, NAMESPACE, Shared, own_args, shared};

fn submission(fixture: &Fixture, polecat: &gastown_api::Polecat, commit: &str) -> SubmitRequest {
    SubmitRequest {
        namespace: fixture.namespace.clone(),
        rig: fixture.rig.clone(),
        polecat: polecat.name_any(),
        polecat_uid: polecat.uid().unwrap_or_default(),
        source_branch: "feature/q".into(),
        commit: commit.into(),
        target_branch: "main".into(),
        attempt: 1,
        priority: 2,
        ..SubmitRequest::default()
    }
}

#[tokio::test]
async fn submitting_twice_makes_one_request_and_other_callers_are_refused() -> Result<()> {
    let (_, server) = shared().await?;
    let fixture = Fixture::new().await?;
    let polecat = fixture.polecat("capable").await?;
    let commit = fixture.branch("feature/q", "a", "1\n");
    let uri = format!("https://localhost:{}", server.grpc);
    let caller = async |account: &str| -> Result<_> {
        let file = fixture.dir.path().join(account);
        std::fs::write(&file, token(&fixture.client, NAMESPACE, account, None).await?)?;
        let remote = Remote::new(&uri, &server.tls, &file, Duration::from_secs(10));
        Ok(MergeQueueClient::new(remote.channel("")?))
    };
    let mut ours = caller("polecat-ctl").await?;
    let first = ours.submit(submission(&fixture, &polecat, &commit)).await?.into_inner();
    ensure!(first.created && fixture.requests().get(&first.name).await?.spec.commit == commit);
    let second = ours.submit(submission(&fixture, &polecat, &commit)).await?.into_inner();
    ensure!(!second.created && second.name == first.name);
    let elsewhere = SubmitRequest {
        target_branch: "release".into(),
        ..submission(&fixture, &polecat, &commit)
    };
    let refused = ours.submit(elsewhere).await.unwrap_err();
    ensure!(
        refused.code() == tonic::Code::FailedPrecondition
            && refused.message().starts_with("NoRefinery: "),
        "{refused:?}"
    );
    let unknown =
        SubmitRequest { rig: "nowhere".into(), ..submission(&fixture, &polecat, &commit) };
    ensure!(ours.submit(unknown).await.unwrap_err().message().starts_with("RigNotFound: "));
    let refused =
        caller("rig-ctl").await?.submit(submission(&fixture, &polecat, &commit)).await.unwrap_err();
    ensure!(refused.code() == tonic::Code::PermissionDenied, "{refused:?}");
    Ok(())
}

/// A stand-by of the shared controller at another address. It ends with its runtime.
async fn standby(server: &Shared, at: IpAddr) -> Result<Runtime> {
    let plane = ControlPlane::shared().await?;
    let args = RuntimeArgs {
        namespace: NAMESPACE.into(),
        tls_dir: server.tls.clone(),
        ..RuntimeArgs::from_env()?
    };
    let metrics = Metrics::default();
    let config = install::config(plane, Controller::Refinery);
    let client = client::with_config(config, ACCOUNT, &metrics)?;
    let leads = Shards::elsewhere(Ipv4Addr::LOCALHOST.into());
    let runtime = Runtime::new(ACCOUNT, client, args, metrics, leads);
    let grpc = grpc::listen(SocketAddr::new(at, 0)).await?;
    let git = grpc::listen(SocketAddr::new(at, server.git)).await?;
    let folder = tempfile::tempdir()?;
    let own = own_args(folder.path(), server.git);
    let started = runtime.clone();
    tokio::spawn(async move {
        let _folder = folder;
        Box::pin(refinery_ctl::serve(started, own, grpc, git)).await
    });
    runtime.readiness.ready().await;
    Ok(runtime)
}

/// Fetches as `gt fetch` does.
async fn fetch(
    into: &Path,
    url: &GitUrl,
    ca: &Path,
    token: &str,
    id: &str,
) -> Result<(), gastown_git::GitError> {
    fetch_at(into, url, ca, token, id, None).await
}

/// The same from the address in `resolve`, `host:port:address`.
async fn fetch_at(
    into: &Path,
    url: &GitUrl,
    ca: &Path,
    token: &str,
    id: &str,
    resolve: Option<&str>,
) -> Result<(), gastown_git::GitError> {
    let git = Git::from_env();
    std::fs::create_dir_all(into).unwrap();
    git.call(["init", "--bare", "--quiet", "."]).repo(into).output().await?;
    let call =
        git.call(["fetch", "--quiet", "--no-tags", "--", url.as_str(), id]).repo(into).allow(url);
    let call = call.config("http.sslCAInfo", ca.display().to_string());
    let call =
        call.config(format!("http.{url}.extraHeader"), format!("Authorization: Bearer {token}"));
    let call = match resolve {
        Some(resolve) => call.config("http.curloptResolve", resolve),
        None => call,
    };
    call.output().await.map(drop)
}

#[tokio::test]
async fn only_the_gate_s_pod_may_fetch_its_candidate() -> Result<()> {
    let (_, server) = shared().await?;
    let (fixture, other) = (Fixture::new().await?, Fixture::new().await?);
    let base = fixture.remote_head("main").context("main")?;
    let source = fixture.branch("feature/e", "a", "1\n");
    let foreign = other.branch("feature/f", "a", "1\n");
    fixture.submit("mr-e", "feature/e", &source, None).await?;
    other.submit("mr-f", "feature/f", &foreign, None).await?;
    let (pod, other_pod) = (fixture.gate(&[]).await?, other.gate(&[]).await?);
    let init = &pod.spec.as_ref().context("a spec")?.init_containers.as_ref().context("fetch")?[0];
    let env = |name: &str| {
        init.env
            .iter()
            .flatten()
            .find(|e| e.name == name)
            .and_then(|e| e.value.clone())
            .unwrap_or_default()
    };
    let url: GitUrl = env("GASTOWN_GIT_URL").parse()?;
    ensure!(url.as_str() == format!("https://localhost:{}/git/{}/main", server.git, fixture.rig));
    ensure!(env("GASTOWN_CANDIDATE") == source && env("GASTOWN_CA").contains("BEGIN CERTIFICATE"));
    let ca = server.tls.join("ca.crt");
    let mine = token(&fixture.client, &fixture.namespace, "default", Some(&pod)).await?;
    let into = fixture.dir.path().join("fetched.git");
    fetch(&into, &url, &ca, &mine, &source).await?;
    ensure!(crate::fixture::git(&into, &["cat-file", "-t", &source]) == "commit");
    // A replica that does not work for the rig sends what it is asked to the one that does.
    let there: IpAddr = "127.0.0.2".parse()?;
    let standby = standby(&server, there).await?;
    let resolve = format!("localhost:{}:{there}", server.git);
    let through = fixture.dir.path().join("through.git");
    fetch_at(&through, &url, &ca, &mine, &source, Some(&resolve)).await?;
    ensure!(crate::fixture::git(&through, &["cat-file", "-t", &source]) == "commit");
    let empty = fixture.dir.path().join("refused.git");
    let refused = fetch_at(&empty, &url, &ca, "not a token", &source, Some(&resolve)).await;
    ensure!(refused.unwrap_err().class == gastown_git::Class::AuthFailed);
    standby.shutdown();
    // Its base was fetched as history; by itself it is not offered.
    let elsewhere = fixture.dir.path().join("nothing.git");
    ensure!(fetch(&elsewhere, &url, &ca, &mine, &base).await.is_err(), "another commit was served");
    let theirs = token(&other.client, &other.namespace, "default", Some(&other_pod)).await?;
    ensure!(
        fetch(&elsewhere, &url, &ca, &theirs, &source).await.is_err(),
        "another pod was served"
    );
    let nobody = token(&fixture.client, &fixture.namespace, "default", None).await?;
    ensure!(
        fetch(&elsewhere, &url, &ca, &nobody, &source).await.is_err(),
        "a token without a pod was served"
    );
    ensure!(fetch(&elsewhere, &url, &ca, "junk", &source).await.is_err());
    Ok(())
}
