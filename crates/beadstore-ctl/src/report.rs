//! The status of a BeadStore, and Events about it.

use std::collections::BTreeMap;
use std::time::Duration;

use gastown_api::conditions::{self, Draft, Status};
use gastown_api::names::{condition, manager, reason};
use gastown_api::{BeadStore, BeadStorePhase, BeadStoreStatus};
use gastown_beads::ready;
use gastown_core::beads::Plan;
use gastown_runtime::apply::{Details, StatusOwner};
use gastown_runtime::events::Note;
use gastown_types::text;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::{Error, StoreError};
use crate::git::branches::Branches;
use crate::git::folder::Side;
use crate::snapshot::{Reading, StoreSnapshot};
use crate::validate::{Repository, Source, ValidBeadStore};

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

/// What follows from the beads.
const DETAILS: Details = Details {
    fields: &[
        "lastSyncTime",
        "issueCount",
        "readyCount",
        "byStatus",
        "commit",
        "malformedLines",
        "pendingWrites",
    ],
    conditions: &[],
    reasons: &[],
};

/// A reading that is newer by less than this is not worth a status write of its own.
const TIME_STEP: SignedDuration = SignedDuration::from_secs(60);
/// The most statuses that are counted separately.
const MAX_STATUSES: usize = 32;

/// The outcome of a reconcile.
pub(crate) enum Outcome<'a> {
    /// The BeadStore is not active.
    Inactive { reason: &'static str, message: String },
    /// A person suspended it.
    Suspended { reading: Option<Reading> },
    /// It is active; `left` are the edits that are still to be made.
    Active {
        valid: &'a ValidBeadStore,
        reading: Option<Reading>,
        left: Plan,
        error: Option<StoreError>,
    },
}

/// Publishes Events about an error, and about conflicts with the cluster.
pub(crate) fn events(ctx: &Context, store: &BeadStore, left: &Plan, error: Option<&StoreError>) {
    let events = &ctx.runtime.events;
    if let Some(error) = error {
        events.publish(store, Note::warning("Store", error.reason(), error.message()));
    }
    if !left.conflicts.is_empty() {
        let first: Vec<&str> =
            left.conflicts.iter().take(5).map(|conflict| conflict.why.as_str()).collect();
        events.publish(store, Note::warning("Contended", "Contended", first.join("; ")));
    }
}

/// Writes the status where it changed. When only details changed and it is too early to write them,
/// returns after which time to come back.
pub(crate) async fn publish(
    ctx: &Context,
    store: &BeadStore,
    outcome: &Outcome<'_>,
) -> Result<Option<Duration>, Error> {
    let status = status(store, outcome, Timestamp::now()); // pure
    let api = Api::<BeadStore>::namespaced(
        ctx.runtime.client.clone(),
        &store.namespace().unwrap_or_default(),
    );
    let applied = OWNER.apply_paced(&api, store, &status, &DETAILS, &ctx.pace).await; // client
    let applied = applied.map_err(|source| Error::Apply {
        doing: "writing the status of",
        name: store.name_any(),
        source,
    })?;
    Ok(applied.record(&ctx.own))
}

fn status(store: &BeadStore, outcome: &Outcome<'_>, now: Timestamp) -> BeadStoreStatus {
    let before = store.status.clone().unwrap_or_default();
    let reading = match outcome {
        Outcome::Inactive { .. } => None,
        Outcome::Suspended { reading } | Outcome::Active { reading, .. } => reading.as_ref(),
    };
    let mut status = match (reading, outcome) {
        (Some(reading), _) => counts(&reading.snapshot, now),
        // The counts of an earlier process stay until this one has read the store.
        (None, Outcome::Active { .. } | Outcome::Suspended { .. }) => before.clone(),
        (None, Outcome::Inactive { .. }) => BeadStoreStatus::default(),
    };
    status.last_sync_time = reading
        .map(|reading| Time(reading.time))
        .or_else(|| before.last_sync_time.clone())
        .map(|time| conditions::time(time.0));
    status.pending_writes = match outcome {
        Outcome::Active { reading: Some(_), left, .. } => {
            Some(count(left.edits.len() + left.conflicts.len()))
        }
        _ => None,
    };
    status.phase = Some(phase(outcome, reading));
    status.conditions.clone_from(&before.conditions);
    let drafts = drafts(outcome, reading);
    conditions::merge(&mut status.conditions, drafts, store.metadata.generation, now);
    // A new time of the last reading alone is not worth a write.
    let is_unchanged =
        BeadStoreStatus { last_sync_time: before.last_sync_time.clone(), ..status.clone() }
            == before;
    let time_moved = match (&before.last_sync_time, &status.last_sync_time) {
        (Some(old), Some(new)) => new.0.duration_since(old.0) >= TIME_STEP,
        (old, new) => old.is_some() != new.is_some(),
    };
    if is_unchanged && !time_moved { before } else { status }
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn counts(snapshot: &StoreSnapshot, now: Timestamp) -> BeadStoreStatus {
    let mut by_status: BTreeMap<String, i32> = BTreeMap::new();
    for issue in snapshot.issues().iter() {
        let status = text::line(issue.status.as_str(), 64);
        // A hostile file may have as many statuses as beads.
        let status = if by_status.len() < MAX_STATUSES - 1 || by_status.contains_key(&status) {
            status
        } else {
            "other".to_owned()
        };
        *by_status.entry(status).or_default() += 1;
    }
    let branches = snapshot.git();
    BeadStoreStatus {
        issue_count: count(snapshot.issues().len()),
        ready_count: Some(count(ready(snapshot.issues(), now).len())),
        by_status,
        dialect: snapshot.dialect().map(|dialect| dialect.as_str().to_owned()),
        authoritative: Some(snapshot.is_authoritative()),
        commit: branches.and_then(|branches| branches.parent()).map(|side| side.commit.to_string()),
        branch: branches
            .and_then(|branches| branches.branch.as_ref().ok())
            .map(ToString::to_string),
        project_id: snapshot.project_id().map(|id| text::line(id, 255)),
        malformed_lines: Some(count(snapshot.malformed())),
        ..BeadStoreStatus::default()
    }
}

fn phase(outcome: &Outcome<'_>, reading: Option<&Reading>) -> BeadStorePhase {
    match outcome {
        Outcome::Inactive { .. } => BeadStorePhase::Error,
        Outcome::Active { error: Some(error), .. } if !error.is_write_error() => {
            BeadStorePhase::Error
        }
        Outcome::Active { .. } | Outcome::Suspended { .. } if reading.is_some() => {
            BeadStorePhase::Synced
        }
        Outcome::Active { .. } | Outcome::Suspended { .. } => BeadStorePhase::Pending,
    }
}

/// One draft for each of these types, with the same reason and message.
fn same(
    types: &[&'static str],
    status: Status,
    reason: &str,
    message: &str,
) -> impl Iterator<Item = Draft> {
    types.iter().map(move |type_| Draft::new(type_, status, reason.to_owned(), message))
}

fn drafts(outcome: &Outcome<'_>, reading: Option<&Reading>) -> Vec<Draft> {
    let reads_and_writes = [condition::READY, condition::SYNCED, condition::WRITABLE];
    match outcome {
        Outcome::Inactive { reason, message } => {
            same(&reads_and_writes, Status::False, reason, message)
                .chain(same(&[condition::AUTHORITATIVE], Status::Unknown, reason, message))
                .collect()
        }
        Outcome::Suspended { .. } => {
            let message =
                "spec.suspend is set: the last reading is still served, nothing is read or written";
            same(&reads_and_writes, Status::False, "Suspended", message)
                .chain(reading.map(|reading| authoritative(&reading.snapshot)))
                .collect()
        }
        Outcome::Active { valid, error, .. } => active_drafts(valid, error.as_ref(), reading),
    }
}

fn active_drafts(
    valid: &ValidBeadStore,
    error: Option<&StoreError>,
    reading: Option<&Reading>,
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    if let Some(error) = error.filter(|error| !error.is_write_error()) {
        let types = [condition::READY, condition::SYNCED];
        drafts.extend(same(&types, Status::False, error.reason(), &error.message()));
    } else {
        let source = reading.map(|reading| source(&reading.snapshot, valid)).unwrap_or_default();
        drafts.push(Draft::new(condition::READY, true, reason::READY, "the beads can be read"));
        drafts.push(Draft::new(condition::SYNCED, true, "UpToDate", source));
    }
    if let Some(reading) = reading {
        drafts.push(authoritative(&reading.snapshot));
        drafts.push(writable(&reading.snapshot, valid, error));
    } else {
        let types = [condition::AUTHORITATIVE, condition::WRITABLE];
        let reason = error.map_or(reason::NOT_READY, StoreError::reason);
        let message = "the store has not been read yet";
        drafts.extend(same(&types, Status::Unknown, reason, message));
    }
    drafts
}

fn writable(snapshot: &StoreSnapshot, valid: &ValidBeadStore, error: Option<&StoreError>) -> Draft {
    // A server that cannot be read cannot be written either; a repository can.
    let prevents_writes =
        |error: &&StoreError| error.is_write_error() || matches!(error, StoreError::Http { .. });
    let place = match (error.filter(prevents_writes), snapshot.writable(valid.policy)) {
        (Some(error), _) => Err((error.reason().to_owned(), error.message())),
        (None, Err(blocked)) => Err((blocked.reason, blocked.message)),
        (None, Ok(place)) => Ok(place),
    };
    match place {
        Ok(place) => {
            let message = format!("claims and closes are written to {place}");
            Draft::new(condition::WRITABLE, true, "Writable", message)
        }
        Err((reason, message)) => Draft::new(condition::WRITABLE, false, reason, message),
    }
}

fn authoritative(snapshot: &StoreSnapshot) -> Draft {
    if snapshot.http().is_some() {
        let message = "the server's database is authoritative: people's tools read and write it";
        Draft::new(condition::AUTHORITATIVE, true, "ServerIsTruth", message)
    } else if snapshot.is_authoritative() {
        let message = "the file is authoritative: people's tools read it";
        Draft::new(condition::AUTHORITATIVE, true, "FileIsTruth", message)
    } else {
        let message = "the file is an export of a database: edits reach people's tools only when they import it";
        Draft::new(condition::AUTHORITATIVE, false, "ExportOnly", message)
    }
}

/// The commits or the project that a reading is of, for people.
fn source(snapshot: &StoreSnapshot, valid: &ValidBeadStore) -> String {
    match (snapshot, &valid.source) {
        (StoreSnapshot::Git(branches), Source::Git(repository)) => commits(branches, repository),
        (StoreSnapshot::Http(http), _) => format!("project {} at {}", http.project, http.url),
        // A reading of another source is not used.
        (StoreSnapshot::Git(_), Source::Http(_)) => String::new(),
    }
}

fn commits(branches: &Branches, repository: &Repository) -> String {
    let part = |name: &str, side: Option<&Side>| match side {
        Some(side) => format!("{name} at {}", side.commit.short()),
        None => format!("{name} (does not exist yet)"),
    };
    let target = part(repository.target.as_str(), branches.target.as_ref());
    let read = match &branches.branch {
        Ok(branch) if *branch == repository.target => target,
        Ok(branch) => format!("{target}, {}", part(branch.as_str(), branches.write.as_ref())),
        Err(_) => target,
    };
    let parts: Vec<String> = [read].into_iter().chain(branches.not_read()).collect();
    parts.join("; ")
}
