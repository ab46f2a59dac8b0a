//! The gRPC service Beads. Any replica answers: reads come from what was read last, and a write is
//! safe wherever it is made, since it is a compare-and-swap.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use gastown_api::{BeadStore, MergeRequest};
use gastown_beads::{EditError, Issue, Readiness};
use gastown_proto::v1::beads_server::Beads as Service;
use gastown_proto::v1::{
    Bead, BeadChange, BeadComment, BeadDependency, BeadList, ClaimRequest, CloseRequest,
    CommentRequest, GetBeadsRequest, ReadyRequest, ReleaseRequest, StoreRevision,
    WatchBeadsRequest,
};
use gastown_runtime::grpc::{self, Callers, Policy};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tonic::{Request, Response, Status};

use crate::context::{Context, NoWay};
use crate::desk::{Desk, Fault, Seen, Way};
use crate::gather;
use crate::place::{Place, Setting, server};
use crate::plan::Deed;
use crate::view::View;

const READERS: &[&str] = &["polecat-ctl", "convoy-ctl", "witness-ctl", "refinery-ctl", "rig-ctl"];
/// Who may call what, by the service account's name; all of them in the release namespace. A claim
/// is decided by a Lease that polecat-ctl writes, so nobody else asks for one here.
const CALLERS: Callers = &[
    ("Ready", READERS),
    ("Get", READERS),
    ("Watch", READERS),
    ("Claim", &["polecat-ctl"]),
    ("Release", &["polecat-ctl"]),
    ("Close", &["refinery-ctl", "convoy-ctl"]),
    ("Comment", &["polecat-ctl", "convoy-ctl", "witness-ctl", "refinery-ctl"]),
];

/// Bounds of what callers may write.
const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 64 << 10;
/// The most beads whose comments are asked for at once.
const MAX_DETAILS: usize = 16;

/// The table as the server asks it.
pub(crate) fn policy(release_namespace: &str) -> Policy {
    grpc::table("gastown.v1.Beads", release_namespace, CALLERS)
}

pub(crate) struct Beads(pub Arc<Context>);

/// The store that keeps a rig's beads.
struct Served {
    store: Arc<BeadStore>,
    setting: Setting,
    desk: Arc<Desk>,
}

fn status(fault: &Fault) -> Status {
    let text = format!("{}: {}", fault.reason(), fault.message());
    match fault {
        Fault::Git(_) | Fault::Served { .. } | Fault::Unkept(_) => Status::unavailable(text),
        Fault::Contended(_) => Status::aborted(text),
        Fault::Lack(_) | Fault::NotWritable(..) | Fault::Refused { .. } => {
            Status::failed_precondition(text)
        }
    }
}

fn refusal(error: &EditError) -> Status {
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

impl Context {
    fn served(&self, rig: &str) -> Result<Served, Status> {
        let none = || {
            Status::failed_precondition(format!(
                "NoBeadStore: no BeadStore keeps the beads of rig {rig}"
            ))
        };
        let store = server(&self.stores.state(), rig).cloned().ok_or_else(none)?;
        match self.place(&store) {
            Place::Serves(setting) => {
                let desk = self.desks.of(&store.uid().unwrap_or_default());
                Ok(Served { store, setting: *setting, desk })
            }
            Place::Stands { reason, message } => {
                Err(Status::failed_precondition(format!("{reason}: {message}")))
            }
        }
    }

    /// What the store says; read now when the last time is long ago. A remote that is down leaves
    /// what was read before.
    async fn read(&self, served: &Served) -> Result<Seen, Status> {
        let Served { store, setting, desk } = served;
        let seen = desk.seen(setting);
        if let Some(seen) = seen
            .clone()
            .filter(|seen| store.spec.suspend || seen.at.elapsed() < setting.interval * 2)
        {
            return Ok(seen);
        }
        if store.spec.suspend {
            return Err(Status::unavailable("Suspended: the store was not read yet"));
        }
        let fresh = match self.way(store, setting).await {
            Ok(way) => desk.read(setting, &way, setting.interval).await,
            Err(NoWay::Told(fault)) => Err(fault),
            Err(NoWay::Kube(error)) => {
                return Err(Status::unavailable(format!("reading credentials: {error}")));
            }
        };
        fresh.or_else(|fault| seen.ok_or_else(|| status(&fault)))
    }

    /// Beads with the text of their comments, which a server's lists leave out; without it where
    /// the server does not answer.
    async fn details(
        &self,
        served: &Served,
        seen: &Seen,
        ids: &[String],
    ) -> HashMap<String, Arc<Issue>> {
        let known: Vec<String> =
            ids.iter().filter(|id| seen.view.issues().get(id).is_some()).cloned().collect();
        if seen.view.served().is_none() || served.store.spec.suspend || known.len() > MAX_DETAILS {
            return HashMap::new();
        }
        let Ok(Way::Served(line)) = self.way(&served.store, &served.setting).await else {
            return HashMap::new();
        };
        match served.desk.details(&line, &known).await {
            Ok(details) => {
                details.into_iter().filter_map(|(id, issue)| Some((id, issue?))).collect()
            }
            Err(fault) => {
                tracing::debug!(%fault, "beads are shown without their comments");
                HashMap::new()
            }
        }
    }

    async fn write(
        &self,
        rig: &str,
        deeds: impl Fn(&View) -> Vec<Deed>,
    ) -> Result<BeadChange, Status> {
        let served = self.served(rig)?;
        let Served { store, setting, desk } = &served;
        if store.spec.suspend {
            return Err(Status::failed_precondition(
                "Suspended: spec.suspend of the BeadStore is set",
            ));
        }
        let way = self.way(store, setting).await.map_err(|error| match error {
            NoWay::Told(fault) => status(&fault),
            NoWay::Kube(error) => Status::unavailable(format!("reading credentials: {error}")),
        })?;
        let written = desk.write(setting, &way, deeds).await.map_err(|fault| status(&fault))?;
        if let Some((_, error)) = written.applied.refused.first() {
            return Err(refusal(error));
        }
        let changed =
            written.applied.done.iter().any(|(_, change)| *change == gastown_beads::Change::Made);
        let bead = written.applied.done.first().map(|(deed, _)| deed.bead().to_owned());
        let readiness = Readiness::of(written.view.issues(), Timestamp::now());
        let bead = bead
            .and_then(|id| written.view.issues().get(&id).map(|issue| shown(issue, &readiness)));
        Ok(BeadChange { changed, bead, revision: Some(revision(rig, &written.view)) })
    }
}

fn revision(rig: &str, view: &View) -> StoreRevision {
    let tips = view.branches().map(|branches| branches.tips()).unwrap_or_default();
    let text = |commit: Option<gastown_types::CommitId>| {
        commit.map(|commit| commit.to_string()).unwrap_or_default()
    };
    StoreRevision {
        rig: rig.to_owned(),
        number: view.number(),
        target_commit: text(tips.target),
        write_commit: text(tips.write),
        authoritative: view.is_authoritative(),
    }
}

fn shown(issue: &Issue, readiness: &Readiness<'_>) -> Bead {
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
        ready: readiness.standing(&issue.id) == Some(gastown_beads::Standing::Ready),
        blocked: !issue.is_done() && readiness.is_blocked(&issue.id),
    }
}

#[tonic::async_trait]
impl Service for Beads {
    async fn ready(&self, request: Request<ReadyRequest>) -> Result<Response<BeadList>, Status> {
        let asked = request.into_inner();
        let seen = self.0.read(&self.0.served(&asked.rig)?).await?;
        let readiness = Readiness::of(seen.view.issues(), Timestamp::now());
        let limit = if asked.limit == 0 {
            usize::MAX
        } else {
            usize::try_from(asked.limit).unwrap_or(usize::MAX)
        };
        let beads = readiness
            .ready()
            .into_iter()
            .take(limit)
            .map(|issue| shown(issue, &readiness))
            .collect();
        Ok(Response::new(BeadList { beads, revision: Some(revision(&asked.rig, &seen.view)) }))
    }

    async fn get(&self, request: Request<GetBeadsRequest>) -> Result<Response<BeadList>, Status> {
        let asked = request.into_inner();
        let served = self.0.served(&asked.rig)?;
        let seen = self.0.read(&served).await?;
        let (issues, readiness) =
            (seen.view.issues(), Readiness::of(seen.view.issues(), Timestamp::now()));
        let beads = if asked.ids.is_empty() {
            issues.iter().map(|issue| shown(issue, &readiness)).collect()
        } else {
            let details = self.0.details(&served, &seen, &asked.ids).await;
            let found =
                asked.ids.iter().filter_map(|id| details.get(id).or_else(|| issues.get(id)));
            found.map(|issue| shown(issue, &readiness)).collect()
        };
        Ok(Response::new(BeadList { beads, revision: Some(revision(&asked.rig, &seen.view)) }))
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<BeadChange>, Status> {
        let asked = request.into_inner();
        let (bead, assignee) = (name("id", &asked.id)?, name("assignee", &asked.assignee)?);
        // The Lease decides, not the store.
        let claims = gather::wanted(&self.0, &asked.rig).claims;
        if let Some(other) =
            claims.iter().find(|claim| claim.bead == bead && claim.assignee != assignee)
        {
            return Err(Status::failed_precondition(format!(
                "AlreadyClaimed: {bead} is claimed by {}",
                other.assignee
            )));
        }
        let holder =
            claims.iter().find(|claim| claim.bead == bead).map(|claim| claim.holder.clone());
        let deed = Deed::Claim { bead, holder, assignee };
        self.0.write(&asked.rig, move |_| vec![deed.clone()]).await.map(Response::new)
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<BeadChange>, Status> {
        let asked = request.into_inner();
        let (bead, assignee) = (name("id", &asked.id)?, name("assignee", &asked.assignee)?);
        let deed = move |view: &View| {
            let holder = view
                .ledger()
                .claim(&bead)
                .filter(|claim| claim.assignee == assignee)
                .map(|claim| claim.holder.clone());
            vec![Deed::Release { bead: bead.clone(), holder, assignee: assignee.clone() }]
        };
        self.0.write(&asked.rig, deed).await.map(Response::new)
    }

    async fn close(&self, request: Request<CloseRequest>) -> Result<Response<BeadChange>, Status> {
        let asked = request.into_inner();
        let (bead, reason) = (name("id", &asked.id)?, asked.reason);
        if reason.len() > MAX_TEXT {
            return Err(Status::invalid_argument(format!(
                "reason is longer than {MAX_TEXT} bytes"
            )));
        }
        let request = if asked.request.is_empty() {
            None
        } else {
            Some(self.request(&asked.request, &asked.rig, &bead)?)
        };
        let deed = Deed::Close { bead: bead.clone(), request: request.clone(), reason };
        // Closed once for a request: what people made of the bead since is theirs.
        let deeds = move |view: &View| {
            let done = request.as_ref().is_some_and(|request| view.ledger().closed(&bead, request));
            if done { Vec::new() } else { vec![deed.clone()] }
        };
        self.0.write(&asked.rig, deeds).await.map(Response::new)
    }

    async fn comment(
        &self,
        request: Request<CommentRequest>,
    ) -> Result<Response<BeadChange>, Status> {
        let asked = request.into_inner();
        let (bead, author) = (name("id", &asked.id)?, name("author", &asked.author)?);
        if asked.text.trim().is_empty() || asked.text.len() > MAX_TEXT {
            return Err(Status::invalid_argument(format!("text must be 1 to {MAX_TEXT} bytes")));
        }
        let deed = Deed::Comment { bead, author, text: asked.text };
        self.0.write(&asked.rig, move |_| vec![deed.clone()]).await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StoreRevision, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchBeadsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let rig = request.into_inner().rig;
        self.0.served(&rig)?;
        let context = self.0.clone();
        let news =
            futures::stream::unfold((context, rig, None), |(context, rig, last)| async move {
                let next = next_revision(&context, &rig, last.as_ref()).await?;
                let item = next.clone();
                Some((next, (context, rig, item.ok())))
            });
        Ok(Response::new(Box::pin(news)))
    }
}

/// The first revision of a rig's store that is not `last`. Nothing when we drain; the caller asks
/// another replica.
async fn next_revision(
    context: &Context,
    rig: &str,
    last: Option<&StoreRevision>,
) -> Option<Result<StoreRevision, Status>> {
    loop {
        let served = match context.served(rig) {
            Ok(served) => served,
            // The store is gone or stands: told once, and the stream ends after it.
            Err(status) => return last.is_some().then_some(Err(status)),
        };
        // Before the reading, so that what comes between is heard.
        let mut news = served.desk.subscribe();
        news.mark_unchanged();
        match context.read(&served).await {
            Ok(seen) => {
                let revision = revision(rig, &seen.view);
                if last != Some(&revision) {
                    return Some(Ok(revision));
                }
            }
            Err(status) => {
                tracing::debug!(%status, rig, "a watcher waits for a store that cannot be read")
            }
        }
        tokio::select! {
            () = context.runtime.drain.cancelled() => return None,
            _ = news.changed() => {}
            () = tokio::time::sleep(served.setting.interval) => {}
        }
    }
}

impl Beads {
    /// The uid of the request `namespace/name`, which must be of this rig and bead.
    fn request(&self, full: &str, rig: &str, bead: &str) -> Result<String, Status> {
        let wrong = || Status::invalid_argument("request must be namespace/name of a MergeRequest");
        let (namespace, name) = full.split_once('/').ok_or_else(wrong)?;
        let found = self.0.requests.get(&ObjectRef::<MergeRequest>::new(name).within(namespace));
        let fits = |request: &Arc<MergeRequest>| {
            request.spec.rig_ref == rig && request.spec.bead_id.as_deref() == Some(bead)
        };
        let uid = found.filter(fits).and_then(|request| request.uid());
        uid.ok_or_else(|| {
            Status::failed_precondition(format!(
                "RequestNotFound: no MergeRequest {full} of rig {rig} names {bead}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use gastown_fakes::callers;
    use gastown_proto::v1::DESCRIPTORS;
    use gastown_runtime::auth::Identity;

    use super::*;

    #[test]
    fn every_pair_of_caller_and_method_is_as_written() {
        let policy = policy("gastown-system");
        // rig, polecat, convoy, witness, refinery, beadstore
        let rows = [
            ("Ready", "xxxxx-"),
            ("Get", "xxxxx-"),
            ("Watch", "xxxxx-"),
            ("Claim", "-x----"),
            ("Release", "-x----"),
            ("Close", "--x-x-"),
            ("Comment", "-xxxx-"),
        ];
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
    fn names_of_callers_are_short_and_tame() {
        assert!(name("id", "gt-1").is_ok());
        for bad in ["", "a\nb", &"x".repeat(300)] {
            assert_eq!(name("id", bad).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
