//! The git endpoint: the pod of a gate's Job gets that Job's candidate, read-only, and nothing
//! else.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use gastown_git::serve;
use gastown_runtime::auth::{self, TokenReviewer};
use http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

use crate::context::{Context, Served};

/// One fetch takes at most this long.
const DEADLINE: Duration = Duration::from_secs(300);
/// So many are answered at a time.
const AT_A_TIME: usize = 16;

#[derive(Clone)]
struct Server {
    ctx: Arc<Context>,
    reviewer: TokenReviewer,
    turns: Arc<Semaphore>,
}

/// The routes: `/git/<rig>/<target>/info/refs` and `/git/<rig>/<target>/git-upload-pack`. A target
/// may hold slashes.
pub(crate) fn router(ctx: Arc<Context>, reviewer: TokenReviewer) -> Router {
    let server = Server { ctx, reviewer, turns: Arc::new(Semaphore::new(AT_A_TIME)) };
    Router::new()
        .route("/git/{rig}/{*rest}", get(refs).post(pack))
        .layer(DefaultBodyLimit::max(serve::MAX_REQUEST))
        .with_state(server)
}

type Answer = Result<Response, (StatusCode, String)>;

fn no(status: StatusCode, why: impl Into<String>) -> (StatusCode, String) {
    (status, why.into())
}

impl Server {
    /// What the caller may have: its token names a pod, the pod has a Job, the Job a candidate of
    /// this rig and target.
    async fn served(
        &self,
        headers: &HeaderMap,
        rig: &str,
        target: &str,
    ) -> Result<Served, (StatusCode, String)> {
        let caller = self.reviewer.review_headers(headers).await.map_err(|e| match e {
            auth::Error::Unauthenticated(why) => no(StatusCode::UNAUTHORIZED, why),
            auth::Error::Unavailable(why) => no(StatusCode::SERVICE_UNAVAILABLE, why),
        })?;
        let (Some(name), Some(uid)) = (&caller.pod_name, &caller.pod_uid) else {
            return Err(no(StatusCode::FORBIDDEN, "the token is not a pod's"));
        };
        let same = |p: &Pod| p.uid().as_ref() == Some(uid);
        let shown = self.ctx.pods.find(same).map(|pod| pod.as_ref().clone());
        let pod = if let Some(pod) = shown {
            pod
        } else {
            // The cache may not show it yet.
            let api = Api::<Pod>::namespaced(self.ctx.runtime.client.clone(), &caller.namespace);
            let found = api
                .get_opt(name)
                .await
                .map_err(|e| no(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
            found
                .filter(same)
                .ok_or_else(|| no(StatusCode::FORBIDDEN, "the token's pod is gone"))?
        };
        let owner = pod
            .owner_references()
            .iter()
            .find(|o| o.controller == Some(true) && o.kind == "Job")
            .map(|o| o.uid.clone());
        let found = owner.and_then(|uid| self.ctx.served.lock().get(&uid).cloned());
        // 503: a Job of a predecessor is served as soon as its candidate is built again.
        let found = found.ok_or_else(|| {
            no(StatusCode::SERVICE_UNAVAILABLE, "no candidate is kept for this pod")
        })?;
        if found.rig == rig && found.target == target {
            Ok(found)
        } else {
            Err(no(StatusCode::FORBIDDEN, "the candidate is of another rig or target"))
        }
    }
}

fn answer(kind: &'static str, body: Body) -> Answer {
    let response = Response::builder()
        .header(header::CONTENT_TYPE, kind)
        .header(header::CACHE_CONTROL, "no-cache");
    response.body(body).map_err(|e| no(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

async fn refs(
    State(endpoint): State<Server>,
    Path((rig, rest)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let target =
        rest.strip_suffix("/info/refs").ok_or_else(|| no(StatusCode::NOT_FOUND, "no such page"))?;
    if query.as_deref() != Some("service=git-upload-pack") {
        return Err(no(StatusCode::FORBIDDEN, "only fetching is served"));
    }
    let served = endpoint.served(&headers, &rig, target).await?;
    let _turn = endpoint
        .turns
        .acquire()
        .await
        .map_err(|e| no(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    let body = serve::advertise(&endpoint.ctx.git, &served.mirror, &served.candidate).await;
    let body = body.map_err(|e| no(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    answer(serve::ADVERTISEMENT, Body::from(body))
}

async fn pack(
    State(endpoint): State<Server>,
    Path((rig, rest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let target = rest
        .strip_suffix("/git-upload-pack")
        .ok_or_else(|| no(StatusCode::NOT_FOUND, "no such page"))?;
    let served = endpoint.served(&headers, &rig, target).await?;
    let gzip = headers.get(header::CONTENT_ENCODING).is_some_and(|e| e == "gzip" || e == "x-gzip");
    let request =
        serve::decode(&body, gzip).map_err(|e| no(StatusCode::BAD_REQUEST, e.to_string()))?;
    let turn = endpoint
        .turns
        .clone()
        .acquire_owned()
        .await
        .map_err(|e| no(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    let pack =
        serve::answer(&endpoint.ctx.git, &served.mirror, &served.candidate, request, DEADLINE);
    let pack = pack.map_err(|e| no(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    // The turn ends with the stream.
    let stream =
        futures::StreamExt::map(ReaderStream::with_capacity(pack, 64 << 10), move |chunk| {
            let _ = &turn;
            chunk
        });
    answer(serve::RESULT, Body::from_stream(stream))
}
