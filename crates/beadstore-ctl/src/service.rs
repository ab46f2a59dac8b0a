//! The gRPC service Beads. Any replica answers: reads come from the last reading, and a write is safe
//! on every replica, since it is a compare-and-swap.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use gastown_beads::{Change, EditError, Issue, Readiness, Standing};
use gastown_core::beads::{Edit, History};
use gastown_proto::v1::beads_server::{Beads as Service, BeadsServer};
use gastown_proto::v1::{
    Bead, BeadChange, BeadComment, BeadDependency, BeadList, CommentRequest, GetBeadsRequest,
    StoreRevision, WatchBeadsRequest,
};
use gastown_runtime::grpc::{self, Callers, Policy};
use jiff::Timestamp;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::connection::{ConnectError, Connection};
use crate::context::{ActiveStore, Context};
use crate::error::StoreError;
use crate::snapshot::Reading;
use crate::validate::{self, Role};
use crate::{gather, revisions};

const READERS: &[&str] = &["polecat-ctl", "convoy-ctl", "witness-ctl", "refinery-ctl", "rig-ctl"];
/// The callers of each method, by the name of the service account, all in the release namespace.
/// Nobody claims, releases or closes a bead here: Leases and landings decide that.
const CALLERS: Callers = &[
    ("Get", READERS),
    ("Watch", READERS),
    ("Comment", &["polecat-ctl", "convoy-ctl", "witness-ctl", "refinery-ctl"]),
];

/// The longest id or author that a caller may send, in bytes.
const MAX_NAME: usize = 255;
/// The longest comment that a caller may send, in bytes.
const MAX_TEXT: usize = 64 << 10;
/// The most beads whose comments one request reads from a server.
const MAX_DETAILS: usize = 16;

/// The services of this controller.
pub(crate) fn routes(ctx: &Arc<Context>) -> Routes {
    Routes::new(BeadsServer::new(Beads(ctx.clone())))
}

/// Who may call which method.
pub(crate) fn policy(release_namespace: &str) -> Policy {
    grpc::table("gastown.v1.Beads", release_namespace, CALLERS)
}

struct Beads(Arc<Context>);

fn error_status(error: &StoreError) -> Status {
    let text = format!("{}: {}", error.reason(), error.message());
    match error {
        StoreError::Git(_) | StoreError::Http { .. } | StoreError::Intent(_) => {
            Status::unavailable(text)
        }
        StoreError::Contended { .. } => Status::aborted(text),
        StoreError::NotReadable(_)
        | StoreError::WriteBlocked(_)
        | StoreError::PushRejected { .. } => Status::failed_precondition(text),
    }
}

fn connect_status(error: &ConnectError) -> Status {
    match error {
        ConnectError::Store(error) => error_status(error),
        ConnectError::Kube(error) => Status::unavailable(format!("reading credentials: {error}")),
    }
}

fn refusal_status(error: &EditError) -> Status {
    match error {
        EditError::NotFound(_) => Status::not_found(format!("NotFound: {error}")),
        EditError::AlreadyClaimed { .. } => {
            Status::failed_precondition(format!("AlreadyClaimed: {error}"))
        }
        EditError::NotClaimable { .. } => {
            Status::failed_precondition(format!("NotClaimable: {error}"))
        }
        EditError::NotWritable(no) => Status::failed_precondition(no.to_string()),
        EditError::NotEditable { .. } => {
            Status::failed_precondition(format!("NotEditable: {error}"))
        }
        EditError::Empty(_) => Status::invalid_argument(error.to_string()),
    }
}

/// A short text without control characters.
fn name(field: &str, text: &str) -> Result<String, Status> {
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "{field} must be 1 to {MAX_NAME} bytes without control characters"
        )));
    }
    Ok(text.to_owned())
}

/// The active store of a rig.
fn active_store(ctx: &Context, rig: &str) -> Result<ActiveStore, Status> {
    let stores = ctx.bead_stores.state();
    let store = validate::active(&stores, rig).ok_or_else(|| {
        Status::failed_precondition(format!("NoBeadStore: rig {rig} has no BeadStore"))
    })?;
    match ctx.role(store) {
        Role::Active(valid) => Ok(ctx.active(Arc::new(store.clone()), valid)),
        Role::Inactive { reason, message } => {
            Err(Status::failed_precondition(format!("{reason}: {message}")))
        }
    }
}

async fn connect(ctx: &Context, active: &ActiveStore) -> Result<Connection, ConnectError> {
    ctx.connect(active, gather::wanted(ctx, &active.valid.rig).claims).await
}

/// The last reading of a store, or a new one where the last is too old. Where the store cannot be
/// read, the last reading stays.
async fn read(ctx: &Context, active: &ActiveStore) -> Result<Reading, Status> {
    let ActiveStore { object, valid, handle } = active;
    let last = handle.reading(valid);
    let is_fresh = |last: &Reading| object.spec.suspend || last.at.elapsed() < valid.interval * 2;
    if let Some(last) = last.clone().filter(is_fresh) {
        return Ok(last);
    }
    if object.spec.suspend {
        return Err(Status::unavailable("Suspended: the store has not been read yet"));
    }
    let new = match connect(ctx, active).await {
        Ok(connection) => handle.read(valid, &connection, valid.interval).await,
        Err(ConnectError::Store(error)) => Err(error),
        Err(error @ ConnectError::Kube(_)) => return Err(connect_status(&error)),
    };
    new.or_else(|error| last.ok_or_else(|| error_status(&error)))
}

/// Beads with the text of their comments, which a server's list does not hold; empty where the
/// server does not answer.
async fn details(
    ctx: &Context,
    active: &ActiveStore,
    reading: &Reading,
    ids: &[String],
) -> HashMap<String, Arc<Issue>> {
    let issues = reading.snapshot.issues();
    let known: Vec<String> = ids.iter().filter(|id| issues.get(id).is_some()).cloned().collect();
    let is_complete = reading.snapshot.http().is_none();
    if is_complete || active.object.spec.suspend || known.len() > MAX_DETAILS {
        return HashMap::new();
    }
    let Ok(Connection::Http(connection)) = connect(ctx, active).await else {
        return HashMap::new();
    };
    match active.handle.details(&connection, &known).await {
        Ok(details) => details.into_iter().filter_map(|(id, issue)| Some((id, issue?))).collect(),
        Err(error) => {
            tracing::debug!(%error, "beads are shown without their comments");
            HashMap::new()
        }
    }
}

/// Makes one edit.
async fn write(ctx: &Context, rig: &str, edit: Edit) -> Result<BeadChange, Status> {
    let active = active_store(ctx, rig)?;
    if active.object.spec.suspend {
        return Err(Status::failed_precondition("Suspended: spec.suspend of the BeadStore is set"));
    }
    let connection = connect(ctx, &active).await.map_err(|error| connect_status(&error))?;
    let written = active.handle.write(&active.valid, &connection, |_| vec![edit.clone()]).await;
    let written = written.map_err(|error| error_status(&error))?;
    if let Some((_, error)) = written.applied.refused.first() {
        return Err(refusal_status(error));
    }
    let changed = written.applied.done.iter().any(|(_, change)| *change == Change::Made);
    let issues = written.snapshot.issues();
    let readiness = Readiness::of(issues, Timestamp::now());
    let history = written.snapshot.history();
    let bead = issues.get(edit.bead()).map(|issue| message(issue, &readiness, history));
    Ok(BeadChange { changed, bead, revision: Some(revisions::of(rig, &written.snapshot)) })
}

fn message(issue: &Issue, readiness: &Readiness<'_>, history: &History) -> Bead {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    Bead {
        id: issue.id.clone(),
        title: issue.title.clone(),
        description: issue.description.clone(),
        design: issue.design.clone(),
        acceptance_criteria: issue.acceptance_criteria.clone(),
        notes: issue.notes.clone(),
        status: issue.status.as_str().to_owned(),
        priority: issue.priority.into(),
        issue_type: issue.issue_type.clone(),
        assignee: issue.assignee.clone().unwrap_or_default(),
        created_at: time(issue.created_at),
        updated_at: time(issue.updated_at),
        close_reason: issue.close_reason.clone(),
        labels: issue.labels.clone(),
        dependencies: issue
            .dependencies
            .iter()
            .map(|edge| BeadDependency {
                depends_on: edge.depends_on_id.clone(),
                kind: edge.kind.as_str().to_owned(),
            })
            .collect(),
        comments: issue
            .comments
            .iter()
            .map(|comment| BeadComment {
                author: comment.author.clone(),
                text: comment.text.clone(),
                created_at: time(comment.created_at),
            })
            .collect(),
        ready: readiness.standing(&issue.id) == Some(Standing::Ready),
        blocked: !issue.is_done() && readiness.is_blocked(&issue.id),
        closed_for: history.closed_for(&issue.id).map(ToOwned::to_owned).collect(),
        closed_at: time(issue.closed_at),
    }
}

#[tonic::async_trait]
impl Service for Beads {
    async fn get(&self, request: Request<GetBeadsRequest>) -> Result<Response<BeadList>, Status> {
        let GetBeadsRequest { rig, ids } = request.into_inner();
        let _work = grpc::enter(&self.0.runtime, &rig)?;
        let active = active_store(&self.0, &rig)?;
        let reading = read(&self.0, &active).await?;
        let issues = reading.snapshot.issues();
        let readiness = Readiness::of(issues, Timestamp::now());
        let history = reading.snapshot.history();
        let beads = if ids.is_empty() {
            issues.iter().map(|issue| message(issue, &readiness, history)).collect()
        } else {
            let details = details(&self.0, &active, &reading, &ids).await;
            let found = ids.iter().filter_map(|id| details.get(id).or_else(|| issues.get(id)));
            found.map(|issue| message(issue, &readiness, history)).collect()
        };
        Ok(Response::new(BeadList {
            beads,
            revision: Some(revisions::of(&rig, &reading.snapshot)),
        }))
    }

    async fn comment(
        &self,
        request: Request<CommentRequest>,
    ) -> Result<Response<BeadChange>, Status> {
        let CommentRequest { rig, id, author, text } = request.into_inner();
        let (bead, author) = (name("id", &id)?, name("author", &author)?);
        if text.trim().is_empty() || text.len() > MAX_TEXT {
            return Err(Status::invalid_argument(format!("text must be 1 to {MAX_TEXT} bytes")));
        }
        let _work = grpc::enter(&self.0.runtime, &rig)?;
        write(&self.0, &rig, Edit::Comment { bead, author, text }).await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StoreRevision, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<WatchBeadsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (revisions, runtime) = (self.0.stores.revisions.stream(), self.0.runtime.clone());
        let others = runtime.shards.others();
        // Each replica streams the stores of its own rigs; who wants all asks each.
        let ours = runtime.clone();
        let revisions = revisions.filter(move |revision| {
            let is_ours = revision.as_ref().is_ok_and(|r| ours.shards.held(&r.rig).is_some());
            futures::future::ready(is_ours || revision.is_err())
        });
        // The caller asks again then.
        let stream = revisions.take_until(async move { runtime.regrouped().await });
        let mut response: Response<Self::WatchStream> = Response::new(Box::pin(stream));
        grpc::set_others(response.metadata_mut(), &others);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use gastown_fakes::callers;
    use gastown_proto::v1::DESCRIPTORS;
    use gastown_runtime::auth::Identity;

    use super::*;

    #[test]
    fn each_method_allows_only_its_callers() {
        let policy = policy("gastown-system");
        // rig, polecat, convoy, witness, refinery, beadstore
        let rows = [("Get", "xxxxx-"), ("Watch", "xxxxx-"), ("Comment", "-xxxx-")];
        callers::check(
            DESCRIPTORS,
            "gastown.v1.Beads",
            &rows,
            "gastown-system",
            |method, namespace, account| {
                let (namespace, service_account) = (namespace.into(), account.into());
                policy(
                    &format!("/gastown.v1.Beads/{method}"),
                    &Identity { namespace, service_account, pod_name: None, pod_uid: None },
                )
                .is_ok()
            },
        );
    }

    #[test]
    fn names_of_callers_are_short_and_without_control_characters() {
        assert!(name("id", "gt-1").is_ok());
        for bad in ["", "a\nb", &"x".repeat(300)] {
            assert_eq!(name("id", bad).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
