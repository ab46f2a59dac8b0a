//! What became of the work in a pod that is over: it is known to be on the remote, it is known to
//! be lost with the pod, or nothing is known. Only the sidecar's record decides.

use super::facts::PodFacts;
use super::saved_work::Lost;
use crate::report::{SyncReport, SyncResult};

/// What became of a pod's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of it is on the remote.
    Saved,
    /// Parts of it are gone with the pod.
    Lost(Lost),
    /// Nobody knows.
    Unknown,
}

/// What became of the work of a pod that is over.
pub(super) fn kept(pod: &PodFacts) -> Kept {
    let Some(sync) = &pod.sync else {
        // what never started had no work
        return if pod.agent_started { Kept::Unknown } else { Kept::Saved };
    };
    if let Some(lost) = lost(pod.attempt, sync) {
        return Kept::Lost(lost);
    }
    match sync.result {
        SyncResult::Pushed
        | SyncResult::NoChanges
        | SyncResult::PushRace
        | SyncResult::PushRejected
        | SyncResult::BadObjects
        | SyncResult::AmbiguousWork => Kept::Saved,
        SyncResult::RemoteUnreachable
        | SyncResult::AccessDenied
        | SyncResult::Internal
        | SyncResult::Unknown => Kept::Unknown,
    }
}

fn lost(attempt: u32, sync: &SyncReport) -> Option<Lost> {
    let mut what = sync.unsaved.clone();
    // the commits that could not be brought to the branch are lost where no other ref has them
    if let Some(commit) = sync.unpushed.as_ref().filter(|_| sync.wip.is_none())
        && !sync.saved.iter().any(|s| s.commit == *commit)
        && what.is_empty()
    {
        what.push(format!("the commits of the work branch up to {}", commit.short()));
    }
    (!what.is_empty() || sync.unsaved_more > 0)
        .then(|| Lost { attempt, what, more: sync.unsaved_more }.bounded())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{commit, pod, sync};
    use super::*;
    use crate::report::AgentExit;

    fn of(change: impl FnOnce(&mut SyncReport)) -> Kept {
        let mut report = sync(SyncResult::Pushed, Some(commit(1)), 1);
        change(&mut report);
        kept(&pod(1).ended(Some(AgentExit::Drained), Some(report)))
    }

    #[test]
    fn what_the_record_names_as_unsaved_is_lost() {
        assert_eq!(of(|_| ()), Kept::Saved);
        let unsaved: Vec<String> =
            (0..5).map(|n| format!("branch b{n}: {}", "x".repeat(200))).collect();
        let Kept::Lost(lost) = of(|r| (r.unsaved, r.unsaved_more) = (unsaved, 7)) else {
            panic!("not lost")
        };
        assert_eq!((lost.what.len(), lost.more), (3, 9));
        assert!(
            lost.text().starts_with("lost with the pod of attempt 1: branch b0: x"),
            "{lost:?}"
        );
        assert!(lost.text().ends_with("; and 9 more") && lost.text().len() < 400);
    }

    #[test]
    fn commits_that_no_ref_of_the_remote_holds_are_lost() {
        let unpushed = |r: &mut SyncReport| {
            (r.result, r.unpushed) = (SyncResult::PushRace, Some(commit(2)));
        };
        assert!(matches!(of(unpushed), Kept::Lost(_)));
        let on_wip = |r: &mut SyncReport| {
            unpushed(r);
            r.wip = Some("refs/gastown/wip/dev/toast/1".into());
        };
        assert_eq!(of(on_wip), Kept::Saved);
    }

    #[test]
    fn without_a_record_nothing_is_known_unless_nothing_ran() {
        let gone = || pod(1).ended(None, None);
        assert_eq!(kept(&gone()), Kept::Unknown);
        assert_eq!(kept(&PodFacts { agent_started: false, ..gone() }), Kept::Saved);
        assert_eq!(of(|r| r.result = SyncResult::Internal), Kept::Unknown);
    }
}
