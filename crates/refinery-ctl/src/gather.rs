//! Builds the snapshot of one decision from the watch caches and the train's memory. Judges nothing.

use std::collections::{HashMap, HashSet};

use gastown_api::{GateRunPurpose, Polecat};
use gastown_core::train::{
    EndedRun, History, Request, RequestId, Run, RunState, Snapshot, Verdict,
};
use gastown_runtime::own_writes::resource_version;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::context::{Context, is_merged};
use crate::gate::{self, OwnRun};
use crate::pass::Pass;
use crate::record::RequestRecord;
use crate::train::{Entry, Train};

/// The watch cache shows a Job that was created within this time; one that it does not show by then
/// was deleted.
const JOB_SHOWN_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// The snapshot of the target branch. Updates the train from the watch caches first.
pub(crate) fn snapshot(pass: &Pass<'_>, train: &mut Train) -> Snapshot {
    update_requests(pass, train);
    let now = Timestamp::now();
    let Runs { present, ended, controls } = update_runs(pass, train, now);
    Snapshot {
        now,
        target: train.target(),
        gate: gate::gate_id(&pass.refinery, &pass.gates),
        gates_may_start: train.gates_held.is_none(),
        delete_branches: pass.refinery.spec.delete_merged_branches,
        requests: train.entries.iter().map(|(id, e)| request(pass, id, e)).collect(),
        runs: present,
        controls,
        ended_runs: ended,
    }
}

/// Takes the newest versions of the requests. Those of namespaces that the rig does not admit are
/// left out.
fn update_requests(pass: &Pass<'_>, train: &mut Train) {
    let mut present = HashSet::new();
    for object in pass.ctx.requests_of(&pass.refinery) {
        let (Some(uid), Some(namespace)) = (object.uid(), object.namespace()) else { continue };
        if !pass.rig.spec.admits(&namespace) || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let id = RequestId(uid);
        present.insert(id.clone());
        if let Some(entry) = train.entries.get_mut(&id) {
            entry.update(&object);
        } else if let Some(entry) = Entry::new(object.clone()) {
            train.entries.insert(id, entry);
        } else {
            tracing::warn!(
                request = object.name_any(),
                "ignoring a request with an invalid branch or commit"
            );
        }
    }
    train.entries.retain(|id, _| present.contains(id));
}

/// The runs of a Refinery.
struct Runs {
    /// Those that have not ended or whose Job is still there.
    present: Vec<Run>,
    /// The others, the oldest first.
    ended: Vec<EndedRun>,
    /// The verdicts on the target alone, the oldest first.
    controls: Vec<Verdict>,
}

/// Reads the runs. Each request gets what its own come to.
fn update_runs(pass: &Pass<'_>, train: &mut Train, now: Timestamp) -> Runs {
    let mut runs: Vec<OwnRun> =
        pass.ctx.runs_of(&pass.refinery).into_iter().map(|(_, own)| own).collect();
    runs.sort_by(OwnRun::by_end);
    let mut of_request: HashMap<&RequestId, Vec<&OwnRun>> = HashMap::new();
    for run in &runs {
        of_request.entry(&run.request).or_default().push(run);
    }
    for (id, e) in &mut train.entries {
        let own = of_request.get(id).map(Vec::as_slice).unwrap_or_default();
        let stored = own.iter().map(|run| run.past.clone()).collect();
        e.cached.history = History::of(stored, e.durable.record.since);
        for run in own {
            e.note_run(run);
        }
    }
    let (mut present, mut ended, mut shown) = (Vec::new(), Vec::new(), HashSet::new());
    for run in &runs {
        let job = pass.job_of(run).filter(|job| {
            job.metadata.deletion_timestamp.is_none()
                && !job.uid().is_some_and(|uid| train.released_jobs.contains(&uid))
        });
        let state = match &job {
            Some(job) => {
                shown.insert(run.name.clone());
                gate::state(job, &pass.ctx.pods_of(job), now)
            }
            None if train.created_jobs.contains_key(&run.name) => {
                RunState::Running(gate::STARTING.to_owned())
            }
            None => RunState::Unstarted,
        };
        if let (Some(finished), None) = (run.finished, &job) {
            let (name, request) = (run.name.clone(), run.request.clone());
            ended.push(EndedRun { name, request, finished });
        } else {
            present.push(run.in_state(state));
        }
    }
    present.sort_by(|a, b| a.name.cmp(&b.name));
    let jobs = pass.ctx.stores.jobs.state();
    let uids: HashSet<String> = jobs.iter().filter_map(|job| job.uid()).collect();
    train.released_jobs.retain(|uid| uids.contains(uid));
    train.created_jobs.retain(|name, at| !shown.contains(name) && *at + JOB_SHOWN_WITHIN > now);
    let controls = runs.iter().filter(|run| run.past.purpose == GateRunPurpose::Control);
    let controls = controls.filter_map(|run| run.past.verdict()).collect();
    Runs { present, ended, controls }
}

/// Whether the request's Polecat has the condition `Merged`, or does not exist.
fn is_author_notified(ctx: &Context, e: &Entry) -> bool {
    let Some(author) = &e.object().spec.polecat_ref else { return true };
    let namespace = e.object().namespace().unwrap_or_default();
    let key = ObjectRef::<Polecat>::new(&author.name).within(&namespace);
    let cached = ctx.stores.polecats.get(&key);
    let Some(polecat) = cached.filter(|p| p.uid().as_deref() == Some(author.uid.as_str())) else {
        return true;
    };
    resource_version(polecat.as_ref()) <= e.cached.merged_version || is_merged(&polecat)
}

fn request(pass: &Pass<'_>, id: &RequestId, e: &Entry) -> Request {
    let Entry { durable, cached, scratch } = e;
    let (object, record) = (e.object(), &durable.record);
    let spec = &object.spec;
    let by_person = spec.rejected.as_ref().map(|r| format!("{}: {}", r.by, r.reason));
    let is_target = durable.branch == pass.target;
    let rejected =
        by_person.or(is_target.then(|| "the source branch is the target branch".to_owned()));
    Request {
        id: id.clone(),
        name: format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()),
        branch: durable.branch.clone(),
        commit: durable.commit.clone(),
        polecat: spec.polecat_ref.as_ref().map(|p| p.uid.clone()),
        previous: spec.previous.clone(),
        attempt: u32::try_from(spec.attempt).unwrap_or(1),
        priority: u8::try_from(spec.priority).unwrap_or(4),
        created: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        hold: spec.hold,
        rejected,
        retry: spec.retry,
        retried: record.retried,
        end: record.end.clone(),
        history: cached.history.clone(),
        not_before: scratch.not_before,
        failed_until: scratch.failed_until,
        retest_at: scratch.retest_at,
        source: cached.source,
        build: cached.build.clone(),
        landing: cached.landing.clone(),
        author: cached.author,
        author_notified: is_author_notified(pass.ctx, e),
        cleaned: record.cleaned,
        saved_until: saved_until(pass, record),
    }
}

/// Until when the rig keeps what was saved beside landed work, where something was.
fn saved_until(pass: &Pass<'_>, record: &RequestRecord) -> Option<Timestamp> {
    let end = record.end.as_ref().filter(|_| !record.saved.is_empty())?;
    let kept = SignedDuration::try_from(pass.rig.spec.settings.wip_retention()).ok()?;
    Some(end.at.checked_add(kept).unwrap_or(Timestamp::MAX))
}
