//! Carries out actions in a simulated world, and checks that no plan may harm it.

use jiff::{SignedDuration, Timestamp};

use gastown_api::{DesiredState, MergePhase};

use super::world::World;
use crate::polecat::drain::DEADLINE;
use crate::polecat::fixtures;
use crate::polecat::{
    Action, ClaimFacts, End, Failure, Ledger, MAX_BYTES, RequestFacts, Snapshot, UNHEALTHY,
};
use crate::retry::Delivery;

impl World {
    pub fn execute(&mut self, action: &Action, calls_work: bool) {
        let now = self.now;
        let known = self.s.ledger.clone().unwrap();
        self.record(action);
        let find = |s: &Snapshot, uid: &str| {
            s.pods.iter().position(|p| p.uid == uid).expect("a plan names pods that exist")
        };
        match action {
            Action::PatchMetadata { ledger, finalizer } => {
                if self.s.finalizer && !finalizer {
                    assert!(
                        self.s.live(now).next().is_none(),
                        "the finalizer goes only when nothing runs"
                    );
                }
                assert!(
                    !self.s.deleting || !finalizer || self.s.finalizer,
                    "nothing gets a finalizer while it is deleted"
                );
                self.s.finalizer = *finalizer;
                self.s.labelled = true;
                if let Some(ledger) = ledger {
                    let text = ledger.render();
                    assert!(text.len() <= MAX_BYTES);
                    let read = Ledger::parse(&text).expect("what is written can be read");
                    assert_eq!(&read, ledger.as_ref());
                    assert!(read.attempt >= known.attempt && read.usage.turns >= known.usage.turns);
                    self.assert_reported(&known, &read);
                    self.s.ledger = Ok(read);
                }
            }
            Action::Claim => {
                assert!(self.s.finalizer && !self.s.deleting, "what is claimed can be released");
                let mut bead = self.bead.borrow_mut();
                // the API server takes it from no Polecat that exists
                if bead.read(&self.s.uid, "web-1") == ClaimFacts::Free {
                    bead.holder = Some(self.s.uid.clone());
                }
            }
            Action::ReleaseClaim => {
                assert!(self.s.live(now).next().is_none(), "a working polecat keeps its claim");
                let queued = |r: &RequestFacts| {
                    matches!(r.phase, MergePhase::Queued | MergePhase::Testing | MergePhase::Landed)
                };
                assert!(
                    self.s.deleting || !self.s.requests.iter().any(queued),
                    "work that has landed or is to land is not started again"
                );
                let mut bead = self.bead.borrow_mut();
                bead.holder = bead.holder.take().filter(|h| *h != self.s.uid);
            }
            Action::Comment(inputs) => {
                let comment = &mut self.s.deliveries.comment;
                let (text, sent) = (inputs.text.clone(), comment.tries(&inputs.text));
                let acknowledged = Delivery::Acknowledged { request: text.clone(), answer: () };
                assert!(*comment != acknowledged, "a comment is sent once");
                if calls_work {
                    *comment = acknowledged;
                } else {
                    comment.fail(whole_second(now), text, (), |_| 5);
                    assert_eq!(comment.tries(&inputs.text), sent + 1);
                }
            }
            Action::Escalate(inputs) => {
                let deliveries = &mut self.s.deliveries;
                let lost = inputs.cause.ends_with("/lost");
                let escalation =
                    if lost { &mut deliveries.loss } else { &mut deliveries.escalation };
                let request = inputs.request.clone();
                let acknowledged = Delivery::Acknowledged { request: request.clone(), answer: () };
                assert!(*escalation != acknowledged, "a request is sent once");
                if calls_work {
                    *escalation = acknowledged;
                } else {
                    escalation.fail(whole_second(now), request, (), |_| 5);
                }
            }
            // the API server is asked once more before the pod is made
            Action::StartPod(_)
                if self.s.bead.is_some()
                    && self.bead.borrow().holder.as_ref() != Some(&self.s.uid) =>
            {
                assert!(self.stale, "a pod without the claim");
            }
            Action::StartPod(inputs) => {
                assert!(self.s.pods.iter().all(|p| p.over(now)), "two live pods");
                assert!(self.bead.borrow().working.is_empty(), "two polecats work on one bead");
                assert!(self.s.pods.iter().all(|p| p.name != inputs.name), "the name is taken");
                assert!(
                    self.s.finalizer && !self.s.deleting && self.s.desired == DesiredState::Working
                );
                assert!(
                    self.s.pods.iter().all(|p| known.accounts_for(&p.uid)),
                    "a start before the last end is written down"
                );
                let sent_back = known
                    .commit
                    .as_ref()
                    .and_then(|c| self.s.request_for(c))
                    .is_some_and(|r| r.phase == MergePhase::Rework);
                assert!(
                    !known.finished() || (known.end() == Some(End::Done) && sent_back),
                    "finished work is not repeated"
                );
                if !calls_work {
                    let until = now + SignedDuration::from_millis(1_493);
                    let error =
                        Failure { reason: "BeadUnavailable".to_owned(), message: String::new() };
                    self.s.deliveries.pod =
                        Delivery::Failed { request: (), error, tries: 1, until };
                    return;
                }
                self.s.deliveries.pod_created();
                assert!(inputs.attempt <= known.forgiven + 8, "attempts are bounded");
                if sent_back {
                    assert!(inputs.rework.is_some(), "a rework has the evidence");
                }
                self.highest_attempt = self.highest_attempt.max(inputs.attempt);
                self.pods_made += 1;
                let mut pod = fixtures::pod(inputs.attempt);
                pod.uid = format!("pod-{}", self.pods_made);
                pod.name.clone_from(&inputs.name);
                pod.asked = Some(inputs.spec.hash.clone());
                pod.created = now;
                pod.trace.begin = Some(inputs.begin.clone());
                self.s.pods.push(pod);
            }
            Action::DrainPod { uid, why, .. } => {
                let i = find(&self.s, uid);
                if *why == UNHEALTHY {
                    assert_eq!(
                        self.s.unhealthy.as_ref(),
                        Some(uid),
                        "the restart is wanted of this pod"
                    );
                }
                let pod = &mut self.s.pods[i];
                if *why == DEADLINE {
                    let ran = pod.seen.running.map_or(0, |t| now.duration_since(t).as_secs());
                    assert!(ran >= 3600 + 300, "its own agent ends it first");
                }
                // what counts is a save that begins after the drain
                pod.drain = Some(why.to_string());
                pod.saved = pod.saved.map(|_| false);
            }
            Action::RemovePodFinalizer { uid, .. } => {
                let i = find(&self.s, uid);
                let forced = self.s.deleting && self.s.force_delete;
                assert!(self.s.pods[i].over(now) || forced, "a live pod keeps its finalizer");
                assert!(known.accounts_for(uid) || forced, "its outcome is in the ledger first");
                self.s.pods[i].finalizer = false;
            }
            Action::DeletePod { uid, grace, .. } => self.delete_pod(uid, *grace),
            Action::Submit(inputs) => {
                assert!(
                    known.end() == Some(End::Done) && Some(&inputs.commit) == known.commit.as_ref()
                );
                assert!(self.s.request_for(&inputs.commit).is_none(), "a request is made once");
                if calls_work {
                    let name = format!("request-{}", self.s.requests.len());
                    let mut request = fixtures::request(0, inputs.attempt, MergePhase::Queued);
                    (request.name, request.commit) = (name, inputs.commit.clone());
                    self.s.requests.push(request);
                    self.s.deliveries.submission = Delivery::Untried;
                } else {
                    let error =
                        Failure { reason: "Unavailable".to_owned(), message: String::new() };
                    let commit = inputs.commit.clone();
                    self.s.deliveries.submission.fail(whole_second(now), commit, error, |_| 5);
                }
            }
            Action::DeletePolecat => {
                assert!(self.s.ttl_seconds.is_some() && self.s.live(now).next().is_none());
                self.s.deleting = true;
            }
        }
        self.collect();
    }

    fn delete_pod(&mut self, uid: &str, grace: Option<u32>) {
        let now = self.now;
        let known = self.s.ledger.clone().unwrap();
        let forced = self.s.deleting && self.s.force_delete;
        // with its finalizer a pod that was being deleted is gone already
        let Some(i) = self.s.pods.iter().position(|p| p.uid == uid) else { return };
        let pod = &mut self.s.pods[i];
        if pod.over(now) {
            assert!(known.accounts_for(uid) && !pod.finalizer);
            if pod.lost(now) {
                self.remote.give_up(uid);
            }
            self.s.pods.remove(i);
            return;
        }
        assert!(
            forced || self.remote.has_all_of(uid),
            "a pod with work that is nowhere else is never deleted"
        );
        assert!(forced || grace != Some(0), "a live pod has time to end");
        let saved = pod.saved == Some(true) && (pod.drain.is_some() || pod.agent_ended);
        assert!(forced || !pod.agent_started || saved, "a pod with work is drained, never deleted");
        if grace == Some(0) {
            self.remote.gone(uid);
            self.s.pods.remove(i);
        } else {
            (pod.deletion, pod.grace_seconds) = (Some(now), grace.unwrap_or(600).into());
        }
    }

    /// What the ledger states of a pod that it has just accounted for is true, and its times are ours.
    fn assert_reported(&mut self, before: &Ledger, after: &Ledger) {
        let Some(last) = &after.last else { return };
        if after.last != before.last
            && last.end == End::Retries
            && after.forgiven == before.forgiven
            && let Some(until) = last.until
        {
            let pause = until - self.now.as_second();
            assert!((30..=600).contains(&pause), "a clock of others counts: {pause}");
        }
        for uid in after.pods.iter().filter(|uid| !before.accounts_for(uid)) {
            let Some(commits) = self.remote.lost.get(uid) else { continue };
            let decided = after.pods.last() == Some(uid) && after.last != before.last;
            assert!(!decided || last.saved != Some(true), "{commits:?} are called saved");
            let named =
                self.s.pods.iter().any(|p| {
                    p.uid == *uid && p.sync.as_ref().is_some_and(|r| !r.unsaved.is_empty())
                });
            assert!(!named || after.lost.is_some(), "{commits:?} are lost and not reported");
            self.seen.insert(if named { "lost, reported" } else { "lost, unknown" }.to_owned());
        }
    }

    fn record(&mut self, action: &Action) {
        let name = match action {
            Action::PatchMetadata { ledger: Some(ledger), .. } => format!("{:?}", ledger.end()),
            Action::StartPod(inputs) if inputs.rework.is_some() => "rework".to_owned(),
            Action::DeletePod { grace, .. } => format!("delete, grace {grace:?}"),
            Action::DrainPod { why, .. } => {
                format!("DrainPod {}", why.split(':').next().unwrap_or_default())
            }
            other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
        };
        self.seen.insert(name);
    }
}

fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap()
}
