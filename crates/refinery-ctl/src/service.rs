//! The gRPC service MergeQueue: a Submit is acknowledged after the API server has the request.

use std::sync::Arc;

use gastown_api::names::{annotation, manager};
use gastown_api::{MergePhase, MergeRequest, MergeRequestSpec, Polecat, PolecatReference};
use gastown_core::train::{request_name, score};
use gastown_proto::v1::merge_queue_server::{MergeQueue, MergeQueueServer};
use gastown_proto::v1::{
    GetRequest, ListRequest, ListResponse, MergeRequestView, SubmitRequest, SubmitResponse,
};
use gastown_runtime::grpc::{self, Callers, Policy};
use gastown_trace::Life;
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::validate::active_for;

/// Which service accounts of the release namespace may call which method.
const CALLERS: Callers = &[
    ("Submit", &["polecat-ctl"]),
    ("Get", &["polecat-ctl", "rig-ctl", "convoy-ctl", "witness-ctl", "beadstore-ctl"]),
    ("List", &["polecat-ctl", "rig-ctl", "convoy-ctl", "witness-ctl", "beadstore-ctl"]),
];

/// The access rules of the service.
pub(crate) fn policy(release_namespace: &str) -> Policy {
    grpc::table("gastown.v1.MergeQueue", release_namespace, CALLERS)
}

/// The services that this controller serves.
pub(crate) fn routes(ctx: &Arc<Context>) -> Routes {
    Routes::new(MergeQueueServer::new(Queue(ctx.clone())))
}

struct Queue(Arc<Context>);

/// The gRPC status for an error of the API server.
fn status_of(error: &kube::Error, what: &str) -> Status {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => {
            Status::invalid_argument(format!("{what}: {}", status.message))
        }
        kube::Error::Api(status) if status.code == 404 => {
            Status::not_found(format!("{what}: {}", status.message))
        }
        kube::Error::Api(status) if status.code == 403 => {
            Status::failed_precondition(format!("Forbidden: {what}: {}", status.message))
        }
        error => Status::unavailable(format!("{what}: {error}")),
    }
}

/// The name and the spec of the MergeRequest for a Submit.
fn spec(r: &SubmitRequest) -> Result<(String, MergeRequestSpec), Status> {
    let wrong = |field: &str, why: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("{field}: {why}"))
    };
    let source: BranchName = r.source_branch.parse().map_err(|e| wrong("source_branch", &e))?;
    let target: BranchName = r.target_branch.parse().map_err(|e| wrong("target_branch", &e))?;
    let commit: CommitId = r.commit.parse().map_err(|e| wrong("commit", &e))?;
    if source == target {
        return Err(wrong("source_branch", &"it is the target branch"));
    }
    if r.namespace.is_empty()
        || r.rig.is_empty()
        || r.polecat.is_empty()
        || r.polecat_uid.is_empty()
    {
        return Err(Status::invalid_argument(
            "namespace, rig, polecat and polecat_uid must be set",
        ));
    }
    if r.attempt == 0 || r.priority > 4 {
        return Err(Status::invalid_argument("attempt must be at least 1, and priority at most 4"));
    }
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let spec = MergeRequestSpec {
        rig_ref: r.rig.clone(),
        source_branch: source.to_string(),
        commit: commit.to_string(),
        target_branch: target.to_string(),
        polecat_ref: Some(PolecatReference { name: r.polecat.clone(), uid: r.polecat_uid.clone() }),
        attempt: i32::try_from(r.attempt).unwrap_or(i32::MAX),
        previous: some(&r.previous),
        bead_id: some(&r.bead),
        priority: i32::try_from(r.priority).unwrap_or(4),
        hold: false,
        retry: 0,
        rejected: None,
    };
    Ok((request_name(&r.rig, &source, &commit, r.attempt), spec))
}

impl Queue {
    /// Fails with the reason why no Refinery takes requests of this namespace for this branch.
    fn check_admission(&self, r: &SubmitRequest) -> Result<(), Status> {
        let Some(rig) = self.0.rig(&r.rig) else {
            return Err(Status::failed_precondition(format!(
                "RigNotFound: Rig {} does not exist",
                r.rig
            )));
        };
        if !rig.spec.admits(&r.namespace) {
            let why = format!(
                "NamespaceNotAllowed: Rig {} does not admit namespace {}",
                r.rig, r.namespace
            );
            return Err(Status::failed_precondition(why));
        }
        if active_for(&self.0.stores.refineries.state(), &r.rig, &r.target_branch).is_none() {
            let why = format!(
                "NoRefinery: no Refinery is active for branch {} of rig {}",
                r.target_branch, r.rig
            );
            return Err(Status::failed_precondition(why));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl MergeQueue for Queue {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let r = request.into_inner();
        let (name, spec) = spec(&r)?;
        let _work = grpc::enter(&self.0.runtime, &r.rig)?;
        self.check_admission(&r)?;
        let client = &self.0.runtime.client;
        let polecat =
            Api::<Polecat>::namespaced(client.clone(), &r.namespace).get_opt(&r.polecat).await;
        let polecat = polecat.map_err(|e| status_of(&e, "reading the Polecat"))?;
        let Some(polecat) = polecat.filter(|p| p.uid().as_deref() == Some(r.polecat_uid.as_str()))
        else {
            return Err(Status::failed_precondition(format!(
                "PolecatNotFound: Polecat {}/{} with uid {} does not exist",
                r.namespace, r.polecat, r.polecat_uid
            )));
        };
        let api = Api::<MergeRequest>::namespaced(client.clone(), &r.namespace);
        let mut wanted = MergeRequest::new(&name, spec);
        let creator = polecat.annotations().get(annotation::TRACEPARENT);
        let life = Life::of(&r.polecat_uid, creator.map(String::as_str)).root().to_string();
        wanted.annotations_mut().insert(annotation::TRACEPARENT.to_owned(), life);
        let params =
            PostParams { field_manager: Some(manager::REFINERY.into()), ..PostParams::default() };
        let created = match api.create(&params, &wanted).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found =
                    api.get(&name).await.map_err(|e| status_of(&e, "reading the request"))?;
                let same = found.spec.commit == wanted.spec.commit
                    && found.spec.polecat_ref == wanted.spec.polecat_ref;
                if !same {
                    return Err(Status::failed_precondition(format!(
                        "NameTaken: MergeRequest {}/{name} belongs to another author or commit",
                        r.namespace
                    )));
                }
                false
            }
            Err(error) => return Err(status_of(&error, "creating the request")),
        };
        Ok(Response::new(SubmitResponse { namespace: r.namespace, name, created }))
    }

    async fn get(
        &self,
        request: Request<GetRequest>,
    ) -> Result<Response<MergeRequestView>, Status> {
        let r = request.into_inner();
        let api = Api::<MergeRequest>::namespaced(self.0.runtime.client.clone(), &r.namespace);
        let found = api.get(&r.name).await.map_err(|e| status_of(&e, "reading the request"))?;
        Ok(Response::new(view(&found)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let r = request.into_inner();
        let _work = grpc::enter(&self.0.runtime, &r.rig)?;
        let fits = |m: &MergeRequest| {
            m.spec.rig_ref == r.rig
                && (r.target_branch.is_empty() || m.spec.target_branch == r.target_branch)
        };
        let all = self.0.stores.requests.state();
        let mut listed: Vec<_> = all.iter().filter(|m| fits(m.as_ref())).collect();
        let now = Timestamp::now();
        listed.sort_by_key(|m| sort_key(now, m));
        let requests = listed.into_iter().map(|m| view(m.as_ref())).collect();
        Ok(Response::new(ListResponse { requests }))
    }
}

/// The sort key of a request in a list: the one under test, then those that wait in the order of the
/// queue, then those that have ended. The position in its status is not used, since it may lag
/// behind.
fn sort_key(now: Timestamp, m: &MergeRequest) -> (u8, i64, Option<String>, String) {
    let kind = match m.status.as_ref().and_then(|s| s.phase).unwrap_or(MergePhase::Queued) {
        MergePhase::Testing => 0,
        MergePhase::Queued | MergePhase::Unknown => 1,
        MergePhase::Landed | MergePhase::Rework | MergePhase::Rejected | MergePhase::Superseded => {
            2
        }
    };
    let created = m.creation_timestamp().map_or(now, |t| t.0);
    let priority = u8::try_from(m.spec.priority).unwrap_or(4);
    (kind, -score(now, created, priority), m.namespace(), m.name_any())
}

fn view(m: &MergeRequest) -> MergeRequestView {
    let status = m.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or(MergePhase::Queued);
    MergeRequestView {
        namespace: m.namespace().unwrap_or_default(),
        name: m.name_any(),
        rig: m.spec.rig_ref.clone(),
        source_branch: m.spec.source_branch.clone(),
        commit: m.spec.commit.clone(),
        target_branch: m.spec.target_branch.clone(),
        phase: format!("{phase:?}"),
        reason: status.reason.unwrap_or_default(),
        position: status.position.and_then(|p| u32::try_from(p).ok()).unwrap_or_default(),
        tested_commit: status.tested_commit.unwrap_or_default(),
        landed_commit: status.landed_commit.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use gastown_fakes::callers;
    use gastown_proto::v1::DESCRIPTORS;
    use gastown_runtime::auth::Identity;

    use super::*;

    fn submission() -> SubmitRequest {
        SubmitRequest {
            namespace: "work".into(),
            rig: "web".into(),
            polecat: "toast".into(),
            polecat_uid: "u".into(),
            source_branch: "feature/bl-01".into(),
            commit: "a".repeat(40),
            target_branch: "main".into(),
            attempt: 1,
            ..SubmitRequest::default()
        }
    }

    #[test]
    fn the_name_follows_from_the_submission_and_its_attempt() {
        let name = |attempt| spec(&SubmitRequest { attempt, ..submission() }).unwrap().0;
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(2));
    }

    #[test]
    fn a_list_has_the_order_of_the_queue_whatever_position_is_shown() {
        let now: Timestamp = "2026-01-02T03:00:00Z".parse().unwrap();
        let request = |name: &str,
                       priority: i32,
                       age: i64,
                       status: serde_json::Value|
         -> MergeRequest {
            let created = now - jiff::SignedDuration::from_secs(age);
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "namespace": "work", "creationTimestamp": created.to_string()},
                "spec": {"rigRef": "r", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main", "priority": priority},
                "status": status,
            }))
            .unwrap()
        };
        let mut listed = [
            request("landed", 0, 900, serde_json::json!({"phase": "Landed"})),
            request("young", 2, 0, serde_json::json!({"phase": "Queued", "position": 1})),
            request("old", 2, 7200, serde_json::json!({"phase": "Queued", "position": 4})),
            request("urgent", 0, 0, serde_json::json!({"phase": "Queued", "position": 2})),
            request("new", 2, 3600, serde_json::Value::Null),
            request("tested", 4, 0, serde_json::json!({"phase": "Testing", "position": 1})),
        ];
        listed.sort_by_key(|m| sort_key(now, m));
        let names: Vec<String> = listed.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["tested", "urgent", "old", "new", "young", "landed"]);
    }

    #[test]
    fn invalid_submissions_are_refused() {
        for wrong in [
            SubmitRequest { source_branch: "main".into(), ..submission() },
            SubmitRequest { source_branch: "-D".into(), ..submission() },
            SubmitRequest { commit: "HEAD".into(), ..submission() },
            SubmitRequest { attempt: 0, ..submission() },
            SubmitRequest { priority: 5, ..submission() },
            SubmitRequest { polecat_uid: String::new(), ..submission() },
        ] {
            assert_eq!(spec(&wrong).unwrap_err().code(), tonic::Code::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn every_pair_of_caller_and_method_is_allowed_or_refused_as_listed() {
        let policy = policy("gastown-system");
        // rig, polecat, convoy, witness, refinery, beadstore
        let rows = [("Submit", "-x----"), ("Get", "xxxx-x"), ("List", "xxxx-x")];
        callers::check(
            DESCRIPTORS,
            "gastown.v1.MergeQueue",
            &rows,
            "gastown-system",
            |method, namespace, account| {
                let (namespace, service_account) = (namespace.into(), account.into());
                policy(
                    &format!("/gastown.v1.MergeQueue/{method}"),
                    &Identity { namespace, service_account, pod_name: None, pod_uid: None },
                )
                .is_ok()
            },
        );
    }
}
