//! Carries out deeds, one API call after another. Matches exhaustively, judges nothing.

use std::time::Duration;

use gastown_api::Polecat;
use gastown_api::names::{annotation, finalizer, manager};
use gastown_core::polecat::{Deed, Ledger, PodInputs, Snapshot, SubmitInputs};
use gastown_proto::v1::SubmitRequest;
use gastown_proto::v1::merge_queue_client::MergeQueueClient;
use gastown_runtime::controller::{Class, Classify};
use gastown_runtime::{apply, grpc};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use crate::context::Context;
use crate::{beads, claims, escalations, pod};

/// A call to refinery-ctl ends within this time.
pub const SUBMIT_DEADLINE: Duration = Duration::from_secs(10);

/// Why a deed was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be asked.
    #[error("{doing} {name}")]
    Api {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        name: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server takes no such pod.
    #[error("creating pod {name}: {message}")]
    Refused {
        /// The pod.
        name: String,
        /// Its words.
        message: String,
    },
    /// The claim on the bead is not as it was seen.
    #[error("claim {name}: {message}")]
    Claim {
        /// The Lease.
        name: String,
        /// One sentence.
        message: String,
    },
    /// The bead's text cannot be had, or forbids to begin.
    #[error("{reason}: {message}")]
    Bead {
        /// One word.
        reason: &'static str,
        /// One sentence.
        message: String,
    },
    /// The witness was not told.
    #[error("telling the witness of {cause}: {message}")]
    Alarm {
        /// What it is about.
        cause: String,
        /// One sentence.
        message: String,
    },
    /// The bead was not commented on.
    #[error("commenting on bead {bead}: {message}")]
    Comment {
        /// The bead.
        bead: String,
        /// Asking again soon changes nothing.
        refused: bool,
        /// One sentence.
        message: String,
    },
    /// A shared write failed.
    #[error(transparent)]
    Write(#[from] apply::Error),
    /// refinery-ctl did not take the request.
    #[error("submitting {commit}: {reason}: {message}")]
    Submit {
        /// The commit.
        commit: String,
        /// One word.
        reason: String,
        /// One sentence.
        message: String,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => Class::of(source),
            Self::Write(error) => error.class(),
            Self::Claim { .. } => Class::Conflict,
            Self::Refused { .. }
            | Self::Submit { .. }
            | Self::Bead { .. }
            | Self::Comment { .. }
            | Self::Alarm { .. } => Class::Retry { after: None },
        }
    }
}

pub(crate) fn api_error(doing: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Api { doing, name, source: Box::new(source) }
}

/// What a deed has changed beside the objects.
#[derive(Debug)]
pub enum Done {
    /// Nothing that is not seen in objects.
    Seen,
    /// refinery-ctl has acknowledged; the request's name.
    Submitted(String),
}

/// Does one deed.
pub async fn act(
    cx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    deed: &Deed,
) -> Result<Done, Error> {
    match deed {
        Deed::Record { ledger, finalizer } => {
            record(cx, polecat, s, ledger.as_deref(), *finalizer).await?
        }
        Deed::Claim => claims::take(cx, polecat).await?,
        Deed::ReleaseClaim => claims::release(cx, polecat, s).await?,
        Deed::Comment(inputs) => beads::comment(cx, inputs).await?,
        Deed::Alarm(inputs) => escalations::tell(cx, s, inputs).await?,
        Deed::Start(inputs) => start(cx, polecat, s, inputs).await?,
        Deed::Drain { pod, uid, why } => {
            patch_pod(
                cx,
                s,
                pod,
                uid,
                json!({ "annotations": { annotation::DRAIN: why } }),
                "draining pod",
            )
            .await?;
        }
        Deed::Release { pod, uid } => release(cx, s, pod, uid).await?,
        Deed::DeletePod { pod, uid, force } => delete_pod(cx, s, pod, uid, *force).await?,
        Deed::Submit(inputs) => return submit(cx, s, inputs).await.map(Done::Submitted),
        Deed::DeletePolecat => {
            apply::delete(&polecats(cx, s), polecat).await?;
        }
    }
    Ok(Done::Seen)
}

fn polecats(cx: &Context, s: &Snapshot) -> Api<Polecat> {
    Api::namespaced(cx.runtime.client.clone(), &s.namespace)
}

fn pods(cx: &Context, s: &Snapshot) -> Api<Pod> {
    Api::namespaced(cx.runtime.client.clone(), &s.namespace)
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(manager::POLECAT.to_owned()), ..PatchParams::default() }
}

/// Labels, finalizer and ledger in one patch of exactly the object that was decided about.
async fn record(
    cx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    ledger: Option<&Ledger>,
    wanted: bool,
) -> Result<(), Error> {
    let mut metadata = json!({ "uid": s.uid, "resourceVersion": polecat.resource_version() });
    if wanted != s.finalizer {
        let others =
            polecat.finalizers().iter().map(String::as_str).filter(|f| *f != finalizer::POLECAT);
        let all: Vec<&str> = others.chain(wanted.then_some(finalizer::POLECAT)).collect();
        metadata["finalizers"] = json!(all);
    }
    if !s.labelled {
        metadata["labels"] =
            json!(pod::wanted_labels(&s.name, &polecat.spec.rig, polecat.spec.bead_id.as_deref()));
    }
    if let Some(ledger) = ledger {
        metadata["annotations"] = json!({ annotation::LEDGER: ledger.render() });
    }
    let patch = json!({ "metadata": metadata });
    match polecats(cx, s).patch(&s.name, &params(), &Patch::Merge(&patch)).await {
        Ok(polecat) => cx.own_polecats.record(polecat),
        // the last finalizer of a deleted object: it is gone with it
        Err(kube::Error::Api(status)) if status.is_not_found() && s.deleting => {}
        Err(error) => return Err(api_error("recording the ledger of polecat", &s.name)(error)),
    }
    Ok(())
}

async fn start(
    cx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    inputs: &PodInputs,
) -> Result<(), Error> {
    let owner = apply::owner(polecat)?;
    let bead = beads::read(cx, polecat, inputs).await?;
    put_prompt(cx, s, &pod::prompt::config_map(s, inputs, bead.as_ref(), owner.clone())).await?;
    claims::confirm(cx, polecat).await?;
    let wanted = pod::build(s, inputs, &cx.images(), owner);
    let post =
        PostParams { field_manager: Some(manager::POLECAT.to_owned()), ..PostParams::default() };
    match pods(cx, s).create(&post, &wanted).await {
        Ok(pod) => {
            tracing::info!(
                pod = inputs.name,
                attempt = inputs.attempt,
                resume = inputs.resume,
                "started"
            );
            cx.own_pods.record(pod);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            adopt(cx, s, &inputs.name).await
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Err(Error::Refused { name: inputs.name.clone(), message: status.message.clone() })
        }
        Err(error) => Err(api_error("creating pod", &inputs.name)(error)),
    }
}

/// The name is taken: by our own call whose answer was lost, or by somebody else's pod, which is
/// left alone.
async fn adopt(cx: &Context, s: &Snapshot, name: &str) -> Result<(), Error> {
    let found = pods(cx, s).get(name).await.map_err(api_error("reading pod", name))?;
    if crate::gather::owner_uid(&found) == Some(s.uid.as_str()) {
        cx.own_pods.record(found);
        return Ok(());
    }
    Err(Error::Refused {
        name: name.to_owned(),
        message: format!("a pod {name} that is not this Polecat's is in the way: delete it"),
    })
}

async fn put_prompt(cx: &Context, s: &Snapshot, wanted: &ConfigMap) -> Result<(), Error> {
    let api: Api<ConfigMap> = Api::namespaced(cx.runtime.client.clone(), &s.namespace);
    let name = wanted.name_any();
    let post =
        PostParams { field_manager: Some(manager::POLECAT.to_owned()), ..PostParams::default() };
    match api.create(&post, wanted).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
            return Err(Error::Refused { name, message: status.message.clone() });
        }
        Err(error) => return Err(api_error("creating the prompt", &name)(error)),
    }
    let found = api.get(&name).await.map_err(api_error("reading the prompt", &name))?;
    if !found.owner_references().iter().any(|o| o.uid == s.uid) {
        return Err(Error::Refused {
            message: format!(
                "a ConfigMap {name} that is not this Polecat's is in the way: delete it"
            ),
            name,
        });
    }
    if found.data != wanted.data {
        let patch = json!({ "metadata": { "uid": found.uid() }, "data": wanted.data });
        api.patch(&name, &params(), &Patch::Merge(&patch))
            .await
            .map_err(api_error("writing the prompt", &name))?;
    }
    Ok(())
}

/// Patches a pod's metadata; one that is gone, or another of the name, is no error: the next look
/// sees it.
async fn patch_pod(
    cx: &Context,
    s: &Snapshot,
    name: &str,
    uid: &str,
    mut metadata: Value,
    doing: &'static str,
) -> Result<(), Error> {
    metadata["uid"] = json!(uid);
    match pods(cx, s).patch(name, &params(), &Patch::Merge(&json!({ "metadata": metadata }))).await
    {
        Ok(pod) => note_pod(cx, pod),
        Err(kube::Error::Api(status)) if status.is_not_found() => cx.own_pods.record_deleted(uid),
        Err(error) => return Err(api_error(doing, name)(error)),
    }
    Ok(())
}

/// An object that is being deleted without grace or finalizer is no more.
fn note_pod(cx: &Context, pod: Pod) {
    let meta = pod.meta();
    let over = meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && pod.finalizers().is_empty();
    match pod.uid() {
        Some(uid) if over => cx.own_pods.record_deleted(&uid),
        _ => cx.own_pods.record(pod),
    }
}

async fn release(cx: &Context, s: &Snapshot, name: &str, uid: &str) -> Result<(), Error> {
    let Some(pod) = cx.pod(&s.uid, uid) else { return Ok(()) };
    let others: Vec<&str> =
        pod.finalizers().iter().map(String::as_str).filter(|f| *f != finalizer::OUTCOME).collect();
    // the list is replaced whole: only as we saw it
    let metadata = json!({ "finalizers": others, "resourceVersion": pod.resource_version() });
    patch_pod(cx, s, name, uid, metadata, "releasing pod").await
}

async fn delete_pod(
    cx: &Context,
    s: &Snapshot,
    name: &str,
    uid: &str,
    force: bool,
) -> Result<(), Error> {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        grace_period_seconds: force.then_some(0),
        ..DeleteParams::background()
    };
    match pods(cx, s).delete(name, &params).await {
        Ok(answer) => {
            if let Some(pod) = answer.left() {
                note_pod(cx, pod);
            } else {
                cx.own_pods.record_deleted(uid);
            }
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
            cx.own_pods.record_deleted(uid);
            Ok(())
        }
        Err(error) => Err(api_error("deleting pod", name)(error)),
    }
}

async fn submit(cx: &Context, s: &Snapshot, inputs: &SubmitInputs) -> Result<String, Error> {
    let fail = |reason: &str, message: String| Error::Submit {
        commit: inputs.commit.to_string(),
        reason: reason.to_owned(),
        message,
    };
    let channel = cx.queue.channel().map_err(|e| fail("RefineryUnreachable", e.to_string()))?;
    let request = SubmitRequest {
        namespace: s.namespace.clone(),
        rig: inputs.rig.clone(),
        polecat: s.name.clone(),
        polecat_uid: s.uid.clone(),
        source_branch: inputs.branch.to_string(),
        commit: inputs.commit.to_string(),
        target_branch: inputs.target.to_string(),
        attempt: inputs.attempt,
        previous: inputs.previous.clone(),
        bead: inputs.bead.clone(),
        priority: u32::from(inputs.priority),
    };
    let call = grpc::retry(2, || {
        let (mut client, request) = (MergeQueueClient::new(channel.clone()), request.clone());
        async move { client.submit(request).await }
    });
    let answer = match tokio::time::timeout(SUBMIT_DEADLINE, call).await {
        Err(_) => return Err(fail("RefineryUnreachable", "no answer in time".to_owned())),
        Ok(answer) => answer.map_err(|status| refusal(&status, &fail))?,
    };
    Ok(answer.into_inner().name)
}

/// `Reason: text` where refinery-ctl gives a reason; else what kept the call from it.
fn refusal(status: &tonic::Status, fail: &impl Fn(&str, String) -> Error) -> Error {
    let said = gastown_core::polecat::tame(status.message());
    match status.code() {
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => {
            match said.split_once(':') {
                Some((reason, text)) if is_reason(reason) => fail(reason, text.trim().to_owned()),
                _ => fail("SubmitRefused", said),
            }
        }
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
            fail("SubmitForbidden", said)
        }
        code => fail("RefineryUnreachable", format!("{code:?}: {said}")),
    }
}

fn is_reason(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.len() <= 64
        && word.chars().all(|c| c.is_ascii_alphanumeric())
}
