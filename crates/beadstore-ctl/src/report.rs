//! From what was read and written to the BeadStore's status.

use std::collections::BTreeMap;

use gastown_api::conditions::{self, Status};
use gastown_api::names::{condition, manager, reason};
use gastown_api::{BeadStore, BeadStorePhase, BeadStoreStatus};
use gastown_beads::ready;
use gastown_runtime::apply::StatusOwner;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt as _};

use crate::branches::Branches;
use crate::context::{Context, Error};
use crate::desk::{Fault, Seen};
use crate::folder::Side;
use crate::place::{Repository, Setting, Source};
use crate::plan::Plan;
use crate::view::View;

const OWNER: StatusOwner = StatusOwner {
    manager: manager::BEAD_STORE,
    fields: &[
        "phase",
        "lastSyncTime",
        "issueCount",
        "readyCount",
        "byStatus",
        "dialect",
        "authoritative",
        "commit",
        "branch",
        "projectId",
        "malformedLines",
        "pendingWrites",
    ],
    conditions: &[
        condition::READY,
        condition::SYNCED,
        condition::AUTHORITATIVE,
        condition::WRITABLE,
    ],
};

/// A time that moved less than this is not worth a write of its own.
const TIMES_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// The most statuses that are told apart.
const MAX_STATUSES: usize = 32;

/// How a store stands.
pub(crate) enum State<'a> {
    /// It does nothing.
    Stands { reason: &'static str, message: String },
    /// A person stopped it.
    Suspended { seen: Option<Seen> },
    /// It serves, or would.
    Serves { setting: &'a Setting, seen: Option<Seen>, left: Plan, fault: Option<Fault> },
}

/// (condition, status, reason, message).
type Verdict = (&'static str, Status, String, String);

/// Writes the status if it says anything new.
pub(crate) async fn publish(
    context: &Context,
    store: &BeadStore,
    state: &State<'_>,
) -> Result<(), Error> {
    let status = status(store, state, Timestamp::now());
    let api = Api::<BeadStore>::namespaced(
        context.runtime.client.clone(),
        &store.namespace().unwrap_or_default(),
    );
    let applied = OWNER.apply(&api, store, &status).await;
    applied.map(drop).map_err(|source| Error::Apply {
        doing: "writing the status of",
        name: store.name_any(),
        source,
    })
}

fn status(store: &BeadStore, state: &State<'_>, now: Timestamp) -> BeadStoreStatus {
    let before = store.status.clone().unwrap_or_default();
    let seen = match state {
        State::Stands { .. } => None,
        State::Suspended { seen, .. } | State::Serves { seen, .. } => seen.as_ref(),
    };
    let mut status = match (seen, state) {
        (Some(seen), _) => counts(&seen.view, now),
        // What an earlier process read is not forgotten before this one has read.
        (None, State::Serves { .. } | State::Suspended { .. }) => before.clone(),
        (None, State::Stands { .. }) => BeadStoreStatus::default(),
    };
    status.last_sync_time = seen
        .map(|seen| Time(seen.time))
        .or_else(|| before.last_sync_time.clone())
        .map(|time| conditions::time(time.0));
    status.pending_writes = match state {
        State::Serves { seen: Some(_), left, .. } => {
            Some(small(left.deeds.len() + left.against.len()))
        }
        _ => None,
    };
    let verdicts = verdicts(state, seen);
    status.phase = Some(phase(state, seen));
    status.conditions.clone_from(&before.conditions);
    for (kind, holds, reason, message) in verdicts {
        conditions::set(
            &mut status.conditions,
            kind,
            holds,
            &reason,
            &message,
            store.metadata.generation,
            now,
        );
    }
    // Alone, the time of the last reading is not news.
    let quiet = BeadStoreStatus { last_sync_time: before.last_sync_time.clone(), ..status.clone() }
        == before;
    let moved = match (&before.last_sync_time, &status.last_sync_time) {
        (Some(old), Some(new)) => new.0.duration_since(old.0) >= TIMES_EVERY,
        (old, new) => old.is_some() != new.is_some(),
    };
    if quiet && !moved { before } else { status }
}

fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn counts(view: &View, now: Timestamp) -> BeadStoreStatus {
    let mut by_status: BTreeMap<String, i32> = BTreeMap::new();
    for issue in view.issues().iter() {
        let word: String =
            issue.status.as_str().chars().filter(|c| !c.is_control()).take(64).collect();
        // A hostile file may have as many statuses as beads.
        let word = if by_status.len() < MAX_STATUSES - 1 || by_status.contains_key(&word) {
            word
        } else {
            "other".to_owned()
        };
        *by_status.entry(word).or_default() += 1;
    }
    let branches = view.branches();
    BeadStoreStatus {
        issue_count: small(view.issues().len()),
        ready_count: Some(small(ready(view.issues(), now).len())),
        by_status,
        dialect: view.dialect().map(|dialect| dialect.as_str().to_owned()),
        authoritative: Some(view.is_authoritative()),
        commit: branches.and_then(|branches| branches.base()).map(|side| side.commit.to_string()),
        branch: branches
            .and_then(|branches| branches.branch.as_ref().ok())
            .map(ToString::to_string),
        project_id: view
            .project_id()
            .map(|id| id.chars().filter(|c| !c.is_control()).take(255).collect()),
        malformed_lines: Some(small(view.malformed())),
        ..BeadStoreStatus::default()
    }
}

fn phase(state: &State<'_>, seen: Option<&Seen>) -> BeadStorePhase {
    match state {
        State::Stands { .. } => BeadStorePhase::Error,
        State::Serves { fault: Some(fault), .. } if !fault.is_of_writing() => BeadStorePhase::Error,
        State::Serves { .. } | State::Suspended { .. } if seen.is_some() => BeadStorePhase::Synced,
        State::Serves { .. } | State::Suspended { .. } => BeadStorePhase::Pending,
    }
}

fn verdicts(state: &State<'_>, seen: Option<&Seen>) -> Vec<Verdict> {
    let same = |kinds: &[&'static str], status: Status, reason: &str, message: &str| {
        kinds
            .iter()
            .map(|kind| (*kind, status, reason.to_owned(), message.to_owned()))
            .collect::<Vec<Verdict>>()
    };
    let (setting, fault) = match state {
        State::Stands { reason, message } => {
            let mut all = same(
                &[condition::READY, condition::SYNCED, condition::WRITABLE],
                Status::False,
                reason,
                message,
            );
            all.extend(same(&[condition::AUTHORITATIVE], Status::Unknown, reason, message));
            return all;
        }
        State::Suspended { .. } => {
            let message =
                "spec.suspend is set: what was read last still serves, nothing is read or written";
            let mut all = same(
                &[condition::READY, condition::SYNCED, condition::WRITABLE],
                Status::False,
                "Suspended",
                message,
            );
            all.extend(seen.map(|seen| authoritative(&seen.view)));
            return all;
        }
        State::Serves { setting, fault, .. } => (setting, fault.as_ref()),
    };
    let mut all = if let Some(fault) = fault.filter(|fault| !fault.is_of_writing()) {
        same(
            &[condition::READY, condition::SYNCED],
            Status::False,
            fault.reason(),
            &fault.message(),
        )
    } else {
        let message = seen.map(|seen| words(&seen.view, setting)).unwrap_or_default();
        let mut all = same(&[condition::READY], Status::True, reason::READY, "beads are read");
        all.extend(same(&[condition::SYNCED], Status::True, "UpToDate", &message));
        all
    };
    let Some(seen) = seen else {
        let reason = fault.map_or(reason::NOT_READY, Fault::reason).to_owned();
        all.extend(same(
            &[condition::AUTHORITATIVE, condition::WRITABLE],
            Status::Unknown,
            &reason,
            "the store was not read yet",
        ));
        return all;
    };
    all.push(authoritative(&seen.view));
    // A server that cannot be read cannot be written either; a repository may be the other way
    // round.
    let stops = |fault: &&Fault| fault.is_of_writing() || matches!(fault, Fault::Served { .. });
    let refused = fault.filter(stops).map(|fault| (fault.reason().to_owned(), fault.message()));
    all.push(
        match seen.view.writable(setting.policy).map_err(|no| refused.clone().unwrap_or(no)) {
            Err((reason, message)) => (condition::WRITABLE, Status::False, reason, message),
            Ok(place) => match refused {
                Some((reason, message)) => (condition::WRITABLE, Status::False, reason, message),
                None => (
                    condition::WRITABLE,
                    Status::True,
                    "Writable".to_owned(),
                    format!("claims and closes go to {place}"),
                ),
            },
        },
    );
    all
}

fn authoritative(view: &View) -> Verdict {
    if view.served().is_some() {
        let message = "the server's database is what people's tools read and write";
        return (
            condition::AUTHORITATIVE,
            Status::True,
            "ServerIsTruth".to_owned(),
            message.to_owned(),
        );
    }
    if view.is_authoritative() {
        return (
            condition::AUTHORITATIVE,
            Status::True,
            "FileIsTruth".to_owned(),
            "the file is what people's tools read".to_owned(),
        );
    }
    let message = "the file is an export of a database: what is written here reaches people's tools only when they import it";
    (condition::AUTHORITATIVE, Status::False, "ExportOnly".to_owned(), message.to_owned())
}

fn words(view: &View, setting: &Setting) -> String {
    match (view, &setting.source) {
        (View::Git(branches), Source::Git(repository)) => commits(branches, repository),
        (View::Served(served), _) => format!("project {} at {}", served.project, served.url),
        // What was read under another setting is not shown.
        (View::Git(_), Source::Served(_)) => String::new(),
    }
}

fn commits(branches: &Branches, repository: &Repository) -> String {
    let part = |name: &str, side: Option<&Side>| match side {
        Some(side) => format!("{name} at {}", side.commit.short()),
        None => format!("{name} (not there yet)"),
    };
    let target = part(repository.target.as_str(), branches.target.as_ref());
    match &branches.branch {
        Ok(branch) if *branch == repository.target => target,
        Ok(branch) => format!("{target}, {}", part(branch.as_str(), branches.write.as_ref())),
        Err(_) => target,
    }
}
