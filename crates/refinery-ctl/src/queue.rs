//! The gRPC service MergeQueue: every call that changes something ends in a write to the API
//! server.

use std::sync::Arc;

use gastown_api::names::manager;
use gastown_api::{MergePhase, MergeRequest, MergeRequestSpec, Polecat, PolecatReference, Rig};
use gastown_core::train::{request_name, score};
use gastown_proto::v1::merge_queue_server::MergeQueue;
use gastown_proto::v1::{
    GetRequest, ListRequest, ListResponse, MergeRequestView, SubmitRequest, SubmitResponse,
};
use gastown_runtime::grpc::{self, Callers, Policy};
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::gather::allows;
use crate::place::server;

/// Who may call what, by the service account's name; all of them in the release namespace.
const CALLERS: Callers = &[
    ("Submit", &["polecat-ctl"]),
    ("Get", &["polecat-ctl", "rig-ctl", "convoy-ctl", "witness-ctl", "beadstore-ctl"]),
    ("List", &["polecat-ctl", "rig-ctl", "convoy-ctl", "witness-ctl", "beadstore-ctl"]),
];

/// The table as the server asks it.
pub(crate) fn policy(release_namespace: &str) -> Policy {
    grpc::table("gastown.v1.MergeQueue", release_namespace, CALLERS)
}

pub(crate) struct Queue(pub Arc<Context>);

fn refused(error: &kube::Error, what: &str) -> Status {
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
            "namespace, rig, polecat and polecat_uid must be there",
        ));
    }
    if r.attempt == 0 || r.priority > 4 {
        return Err(Status::invalid_argument("attempt counts from 1, priority goes from 0 to 4"));
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
    /// Why no refinery takes work of this namespace for this branch; nothing when one does.
    fn admits(&self, r: &SubmitRequest) -> Result<(), Status> {
        let Some(rig) = self.0.rigs.get(&ObjectRef::<Rig>::new(&r.rig)) else {
            return Err(Status::failed_precondition(format!(
                "RigNotFound: Rig {} does not exist",
                r.rig
            )));
        };
        if !allows(&rig, &r.namespace) {
            let why = format!(
                "NamespaceNotAllowed: Rig {} does not admit namespace {}",
                r.rig, r.namespace
            );
            return Err(Status::failed_precondition(why));
        }
        if server(&self.0.refineries.state(), &r.rig, &r.target_branch).is_none() {
            let why = format!(
                "NoRefinery: no Refinery serves branch {} of rig {}",
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
        self.admits(&r)?;
        let client = &self.0.runtime.client;
        let polecat =
            Api::<Polecat>::namespaced(client.clone(), &r.namespace).get_opt(&r.polecat).await;
        let polecat = polecat.map_err(|e| refused(&e, "reading the polecat"))?;
        if polecat.and_then(|p| p.uid()).as_deref() != Some(r.polecat_uid.as_str()) {
            return Err(Status::failed_precondition(format!(
                "PolecatNotFound: {}/{} is not the one that submits",
                r.namespace, r.polecat
            )));
        }
        let api = Api::<MergeRequest>::namespaced(client.clone(), &r.namespace);
        let wanted = MergeRequest::new(&name, spec);
        let params =
            PostParams { field_manager: Some(manager::REFINERY.into()), ..PostParams::default() };
        let created = match api.create(&params, &wanted).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = api.get(&name).await.map_err(|e| refused(&e, "reading the request"))?;
                let same = found.spec.commit == wanted.spec.commit
                    && found.spec.polecat_ref == wanted.spec.polecat_ref;
                if !same {
                    return Err(Status::failed_precondition(format!(
                        "NameTaken: {}/{name} is another's request",
                        r.namespace
                    )));
                }
                false
            }
            Err(error) => return Err(refused(&error, "creating the request")),
        };
        Ok(Response::new(SubmitResponse { namespace: r.namespace, name, created }))
    }

    async fn get(
        &self,
        request: Request<GetRequest>,
    ) -> Result<Response<MergeRequestView>, Status> {
        let r = request.into_inner();
        let api = Api::<MergeRequest>::namespaced(self.0.runtime.client.clone(), &r.namespace);
        let found = api.get(&r.name).await.map_err(|e| refused(&e, "reading the request"))?;
        Ok(Response::new(view(&found)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let r = request.into_inner();
        let fits = |m: &MergeRequest| {
            m.spec.rig_ref == r.rig
                && (r.target_branch.is_empty() || m.spec.target_branch == r.target_branch)
        };
        let all = self.0.requests.state();
        let mut listed: Vec<_> = all.iter().filter(|m| fits(m.as_ref())).collect();
        let now = Timestamp::now();
        listed.sort_by_key(|m| place(now, m));
        let requests = listed.into_iter().map(|m| view(m.as_ref())).collect();
        Ok(Response::new(ListResponse { requests }))
    }
}

/// Where a request stands in a list: the one under test, those that wait in the order of the queue,
/// those that have ended. The status is not asked for the place, since the shown one may lag
/// behind.
fn place(now: Timestamp, m: &MergeRequest) -> (u8, i64, Option<String>, String) {
    let kind = match m.status.as_ref().and_then(|s| s.phase).unwrap_or(MergePhase::Queued) {
        MergePhase::Testing => 0,
        MergePhase::Queued => 1,
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

    fn asked() -> SubmitRequest {
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
    fn a_name_is_the_same_for_the_same_words_and_another_for_another_attempt() {
        let name = |attempt| spec(&SubmitRequest { attempt, ..asked() }).unwrap().0;
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(2));
    }

    #[test]
    fn a_list_has_the_order_of_the_queue_whatever_place_is_shown() {
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
        listed.sort_by_key(|m| place(now, m));
        let names: Vec<String> = listed.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["tested", "urgent", "old", "new", "young", "landed"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            SubmitRequest { source_branch: "main".into(), ..asked() },
            SubmitRequest { source_branch: "-D".into(), ..asked() },
            SubmitRequest { commit: "HEAD".into(), ..asked() },
            SubmitRequest { attempt: 0, ..asked() },
            SubmitRequest { priority: 5, ..asked() },
            SubmitRequest { polecat_uid: String::new(), ..asked() },
        ] {
            assert_eq!(spec(&wrong).unwrap_err().code(), tonic::Code::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn every_pair_of_caller_and_method_is_as_written() {
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
