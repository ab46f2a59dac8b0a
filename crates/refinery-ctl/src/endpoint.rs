//! The git endpoint: the pod of a gate's Job may fetch that Job's candidate with the tags of the
//! target branch, its submodules and LFS files, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use gastown_git::serve;
use gastown_runtime::auth::{self, TokenReviewer};
use gastown_runtime::forward::Forward;
use gastown_runtime::ours;
use gastown_types::CommitId;
use http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

use crate::candidates::ServedCandidate;
use crate::context::Context;

mod lfs;

/// How long a fetch may send nothing.
const QUIET: Duration = Duration::from_secs(300);
/// How many fetches are served at the same time.
const MAX_FETCHES: usize = 16;

#[derive(Clone)]
struct Server {
    ctx: Arc<Context>,
    reviewer: TokenReviewer,
    slots: Arc<Semaphore>,
    forward: Forward,
}

/// The routes: `/git/<rig>/<target>/info/refs` and `/git/<rig>/<target>/git-upload-pack`, the same
/// below `/git/<rig>/<target>/-/modules/<commit>/` for a submodule's commit, and the batch API of
/// git LFS below `/git/<rig>/<target>/info/lfs/`. A target may hold slashes. Of several replicas the one
/// that works for the rig has the candidates: the others send it what they are asked.
pub(crate) fn router(ctx: Arc<Context>, reviewer: TokenReviewer, forward: Forward) -> Router {
    let slots = Arc::new(Semaphore::new(MAX_FETCHES));
    let server = Server { ctx, reviewer, slots, forward };
    Router::new()
        .route("/git/{rig}/{*rest}", get(refs).post(pack))
        .layer(DefaultBodyLimit::max(serve::MAX_REQUEST))
        .layer(middleware::from_fn_with_state(server.clone(), at_the_holder))
        .with_state(server)
}

async fn at_the_holder(State(endpoint): State<Server>, request: Request, next: Next) -> Response {
    let rig = request.uri().path().split('/').nth(2).unwrap_or_default().to_owned();
    match endpoint.forward.or_here(&rig, request).await {
        Ok(request) => next.run(request).await,
        Err(answer) => answer,
    }
}

type Reply = Result<Response, (StatusCode, String)>;

fn refusal(status: StatusCode, why: impl Into<String>) -> (StatusCode, String) {
    (status, why.into())
}

impl Server {
    /// What the caller may fetch: its token names a pod, the pod has a Job, and the Job a candidate
    /// of this rig and target.
    async fn served(
        &self,
        headers: &HeaderMap,
        rig: &str,
        target: &str,
    ) -> Result<ServedCandidate, (StatusCode, String)> {
        let caller = self.reviewer.review_headers(headers).await.map_err(|e| match e {
            auth::Error::Unauthenticated(why) => refusal(StatusCode::UNAUTHORIZED, why),
            auth::Error::Unavailable(why) => refusal(StatusCode::SERVICE_UNAVAILABLE, why),
        })?;
        let (Some(name), Some(uid)) = (&caller.pod_name, &caller.pod_uid) else {
            return Err(refusal(StatusCode::FORBIDDEN, "the token does not belong to a pod"));
        };
        let same = |p: &Pod| p.uid().as_ref() == Some(uid);
        let cached = self.ctx.stores.pods.find(same).map(|pod| pod.as_ref().clone());
        let pod = if let Some(pod) = cached {
            pod
        } else {
            // The cache may not show it yet.
            let api = Api::<Pod>::namespaced(self.ctx.runtime.client.clone(), &caller.namespace);
            let found = api
                .get_opt(name)
                .await
                .map_err(|e| refusal(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
            found.filter(same).ok_or_else(|| {
                refusal(StatusCode::FORBIDDEN, "the pod of the token does not exist")
            })?
        };
        let job = ours::controller::<Job>(&pod);
        let found = job.and_then(|job| self.ctx.candidates.of_job(&job.uid));
        // A pod of another namespace may name the Job as well.
        let found = found.filter(|found| found.namespace == caller.namespace);
        // 503, so that the pod tries again: the candidate of a former process's Job is served as soon
        // as it is built again.
        let found = found.ok_or_else(|| {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "there is no candidate for this pod yet")
        })?;
        if found.rig == rig && found.target.as_str() == target {
            Ok(found)
        } else {
            Err(refusal(
                StatusCode::FORBIDDEN,
                "the candidate of this pod belongs to another rig or target",
            ))
        }
    }
}

/// The target in a path, and the submodule's commit where it names one.
fn module(path: &str) -> Result<(&str, Option<CommitId>), (StatusCode, String)> {
    let Some((target, commit)) = path.split_once("/-/modules/") else { return Ok((path, None)) };
    let commit = commit.parse().map_err(|_| refusal(StatusCode::NOT_FOUND, "unknown path"))?;
    Ok((target, Some(commit)))
}

fn reply(kind: &'static str, body: Body) -> Reply {
    let response = Response::builder()
        .header(header::CONTENT_TYPE, kind)
        .header(header::CACHE_CONTROL, "no-cache");
    response.body(body).map_err(|e| refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

async fn refs(
    State(endpoint): State<Server>,
    Path((rig, rest)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    if let Some((target, oid)) = rest.split_once(lfs::OBJECTS) {
        let served = endpoint.served(&headers, &rig, target).await?;
        return lfs::object(&served.mirror, oid).await;
    }
    let path = rest
        .strip_suffix("/info/refs")
        .ok_or_else(|| refusal(StatusCode::NOT_FOUND, "unknown path"))?;
    let (target, module) = module(path)?;
    if query.as_deref() != Some("service=git-upload-pack") {
        return Err(refusal(StatusCode::FORBIDDEN, "only git-upload-pack is supported"));
    }
    let served = endpoint.served(&headers, &rig, target).await?;
    let _slot = endpoint
        .slots
        .acquire()
        .await
        .map_err(|e| refusal(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    let offer = served.offer(module.as_ref());
    if !serve::is_there(&endpoint.ctx.git, &offer).await {
        return Err(refusal(StatusCode::NOT_FOUND, "the submodule could not be fetched"));
    }
    let body = serve::advertise(&endpoint.ctx.git, &offer).await;
    let body = body.map_err(|e| refusal(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    reply(serve::ADVERTISEMENT, Body::from(body))
}

async fn pack(
    State(endpoint): State<Server>,
    Path((rig, rest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    if let Some(target) = rest.strip_suffix(lfs::BATCH) {
        let served = endpoint.served(&headers, &rig, target).await?;
        let base = format!("{}/git/{rig}/{target}", endpoint.ctx.gates.git_endpoint);
        return lfs::batch(&served.mirror, &base, &headers, &body);
    }
    let path = rest
        .strip_suffix("/git-upload-pack")
        .ok_or_else(|| refusal(StatusCode::NOT_FOUND, "unknown path"))?;
    let (target, module) = module(path)?;
    let served = endpoint.served(&headers, &rig, target).await?;
    let gzip = headers.get(header::CONTENT_ENCODING).is_some_and(|e| e == "gzip" || e == "x-gzip");
    let request =
        serve::decode(&body, gzip).map_err(|e| refusal(StatusCode::BAD_REQUEST, e.to_string()))?;
    let slot = endpoint
        .slots
        .clone()
        .acquire_owned()
        .await
        .map_err(|e| refusal(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    let pack = serve::answer(&endpoint.ctx.git, &served.offer(module.as_ref()), request, QUIET);
    let pack = pack.map_err(|e| refusal(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    // The slot is free again when the stream ends.
    let stream =
        futures::StreamExt::map(ReaderStream::with_capacity(pack, 64 << 10), move |chunk| {
            let _ = &slot;
            chunk
        });
    reply(serve::RESULT, Body::from_stream(stream))
}
