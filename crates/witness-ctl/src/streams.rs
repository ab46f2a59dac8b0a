//! The streams of pods, one for each, and the activity that they have reported. All of it may be
//! lost: pods attach again.

use std::collections::HashMap;

use gastown_core::witness::{self, CommandResult, Heartbeat, HeartbeatSpan, PodActivity};
use gastown_proto::v1::{Command, command};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::metrics::WitnessMetrics;

/// How many commands may wait for one pod.
pub(crate) const QUEUE: usize = 4;
/// How many pods are remembered.
const MAX_PODS: usize = 50_000;
/// A pod without a stream, and a Polecat that is not assessed, are forgotten after this long.
const RETENTION: SignedDuration = SignedDuration::from_hours(1);
/// How often entries to forget are searched for: that visits every entry.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Without a heartbeat from any pod for this long, this process was cut off.
const MAX_GAP: SignedDuration = SignedDuration::from_mins(2);

/// An item of the stream to a pod.
pub(crate) type StreamItem = Result<Command, Status>;

struct Stream {
    number: u64,
    commands: mpsc::Sender<StreamItem>,
    replaced: CancellationToken,
}

struct Pod {
    uid: String,
    name: String,
    activity: Option<PodActivity>,
    stream: Option<Stream>,
}

/// The pod that a Polecat's status names.
struct WorkingPod {
    name: String,
    /// When it was first seen at work.
    since: Timestamp,
    /// When it was assessed last.
    assessed: Timestamp,
}

/// The pods of one Polecat.
#[derive(Default)]
struct PolecatStreams {
    /// Usually one, or a few while one takes over from another; the one that attached last is at
    /// the end.
    pods: Vec<Pod>,
    working: Option<WorkingPod>,
    /// When the condition about its saving was written last.
    saving_written: Option<Timestamp>,
}

#[derive(Default)]
struct State {
    /// By the Polecat's uid: every question is about one Polecat, and there are thousands.
    polecats: HashMap<String, PolecatStreams>,
    /// How many pods they have together.
    pods: usize,
    swept: Option<Timestamp>,
    heartbeats: Option<HeartbeatSpan>,
    /// The last number given to a stream or a command.
    last_number: u64,
}

pub(crate) struct Streams {
    state: Mutex<State>,
    metrics: WitnessMetrics,
}

/// A pod of a Polecat.
pub(crate) struct PodView {
    pub uid: String,
    pub activity: Option<PodActivity>,
    pub attached: bool,
}

/// The reader's side of a stream.
pub(crate) struct StreamHandle {
    polecat: String,
    pod: String,
    number: u64,
    /// Cancelled when a newer stream of the pod has taken over.
    pub replaced: CancellationToken,
}

impl State {
    /// Forgets what nobody needs any more.
    fn sweep(&mut self, now: Timestamp) {
        let is_recent = |then: Timestamp| now.duration_since(then) <= RETENTION;
        self.polecats.retain(|_, polecat| {
            polecat.pods.retain(|p| {
                p.stream.is_some()
                    || p.activity.as_ref().is_some_and(|a| is_recent(a.last_heartbeat))
            });
            !polecat.pods.is_empty()
                || polecat.working.as_ref().is_some_and(|w| is_recent(w.assessed))
        });
        self.pods = self.polecats.values().map(|polecat| polecat.pods.len()).sum();
        self.swept = Some(now);
    }

    /// The pod of a stream, unless a newer stream has taken over.
    fn pod_of(&mut self, handle: &StreamHandle) -> Option<&mut Pod> {
        let pod = self.pod(&handle.polecat, &handle.pod)?;
        pod.stream.as_ref().is_some_and(|s| s.number == handle.number).then_some(pod)
    }

    fn pod(&mut self, polecat: &str, uid: &str) -> Option<&mut Pod> {
        self.polecats.get_mut(polecat)?.pods.iter_mut().find(|p| p.uid == uid)
    }

    /// The entry of a pod, made if there is none; none when [`MAX_PODS`] are there already.
    fn pod_or_new(
        &mut self,
        now: Timestamp,
        polecat: &str,
        uid: &str,
        name: &str,
    ) -> Option<&mut Pod> {
        let is_new = self.pod(polecat, uid).is_none();
        if self.swept.is_none_or(|then| now.duration_since(then) >= SWEEP_EVERY)
            || (is_new && self.pods >= MAX_PODS)
        {
            self.sweep(now);
        }
        if self.pod(polecat, uid).is_none() {
            if self.pods >= MAX_PODS {
                return None;
            }
            self.pods += 1;
            self.polecats.entry(polecat.to_owned()).or_default().pods.push(Pod {
                uid: uid.to_owned(),
                name: name.to_owned(),
                activity: None,
                stream: None,
            });
        }
        self.pod(polecat, uid)
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Streams {
    /// No streams yet.
    pub fn new(metrics: WitnessMetrics) -> Self {
        Self { state: Mutex::default(), metrics }
    }

    /// Opens the stream of pod `pod` (a uid) of a Polecat; the stream that the pod had before ends.
    /// None when too many pods are attached.
    pub fn attach(
        &self,
        now: Timestamp,
        pod: &str,
        name: &str,
        polecat: &str,
        commands: mpsc::Sender<StreamItem>,
    ) -> Option<StreamHandle> {
        let mut state = self.state.lock();
        let number = state.next_number();
        let entry = state.pod_or_new(now, polecat, pod, name)?;
        let replaced = CancellationToken::new();
        match entry.stream.replace(Stream { number, commands, replaced: replaced.clone() }) {
            Some(older) => {
                let _ = older
                    .commands
                    .try_send(Err(Status::aborted("a newer stream of this pod has taken over")));
                older.replaced.cancel();
            }
            None => {
                self.metrics.streams.change([], 1);
            }
        }
        Some(StreamHandle { polecat: polecat.to_owned(), pod: pod.to_owned(), number, replaced })
    }

    /// The stream has ended. A newer one of the pod stays.
    pub fn detach(&self, handle: &StreamHandle) {
        if let Some(pod) = self.state.lock().pod_of(handle) {
            pod.stream = None;
            self.metrics.streams.change([], -1);
        }
    }

    /// Takes a heartbeat in. Returns whether the polecat is to be assessed soon: a command has ended,
    /// or its work has become saved or unsaved.
    pub fn heartbeat(
        &self,
        now: Timestamp,
        handle: &StreamHandle,
        heartbeat: &Heartbeat,
        results: &[CommandResult],
    ) -> bool {
        self.metrics.heartbeats.inc([]);
        let mut state = self.state.lock();
        let first = state
            .heartbeats
            .filter(|span| now.duration_since(span.last) < MAX_GAP)
            .map_or(now, |span| span.first);
        state.heartbeats = Some(HeartbeatSpan { first, last: now });
        let Some(pod) = state.pod_of(handle) else { return false };
        let saved_before = pod.activity.as_ref().is_none_or(|a| a.saving.is_empty());
        let activity = match pod.activity.as_mut() {
            Some(activity) => {
                activity.heartbeat(now, heartbeat);
                activity
            }
            None => pod.activity.insert(PodActivity::new(now, heartbeat)),
        };
        for result in results {
            activity.command_ended(result);
        }
        !results.is_empty() || saved_before != activity.saving.is_empty()
    }

    /// Why work of the pod `name` of a Polecat is not on the remote yet; empty when all of it is
    /// saved, none where the pod has sent no heartbeat. With it, when that was written last.
    pub fn saving(&self, polecat: &str, name: &str) -> (Option<String>, Option<Timestamp>) {
        let state = self.state.lock();
        let Some(polecat) = state.polecats.get(polecat) else { return (None, None) };
        let pod = polecat.pods.iter().rev().find(|p| p.name == name);
        let saving = pod.and_then(|p| p.activity.as_ref()).map(|a| a.saving.clone());
        (saving, polecat.saving_written)
    }

    /// Forgets what pods of a Polecat reported before another replica heard them; those that are attached
    /// here have reported anew.
    pub fn begin_term(&self, polecat: &str) {
        let mut state = self.state.lock();
        let Some(known) = state.polecats.get_mut(polecat) else { return };
        let before = known.pods.len();
        known.pods.retain(|pod| pod.stream.is_some());
        known.working = None;
        let gone = before - known.pods.len();
        state.pods -= gone;
    }

    /// The condition about a Polecat's saving was written.
    pub fn saving_written(&self, now: Timestamp, polecat: &str) {
        if let Some(polecat) = self.state.lock().polecats.get_mut(polecat) {
            polecat.saving_written = Some(now);
        }
    }

    /// The pod `name` of a Polecat, and when it was first seen at work.
    pub fn pod(&self, now: Timestamp, polecat: &str, name: &str) -> (Option<PodView>, Timestamp) {
        let mut state = self.state.lock();
        let polecat = state.polecats.entry(polecat.to_owned()).or_default();
        let since = polecat.working.as_ref().filter(|w| w.name == name).map_or(now, |w| w.since);
        polecat.working = Some(WorkingPod { name: name.to_owned(), since, assessed: now });
        let pod = polecat.pods.iter().rev().find(|p| p.name == name);
        let view = pod.map(|p| PodView {
            uid: p.uid.clone(),
            activity: p.activity.clone(),
            attached: p.stream.is_some(),
        });
        (view, since)
    }

    /// The Polecat has no pod at work.
    pub fn idle(&self, polecat: &str) {
        if let Some(polecat) = self.state.lock().polecats.get_mut(polecat) {
            polecat.working = None;
        }
    }

    /// The latest time in which heartbeats, of any pod, arrived without a gap of two minutes.
    pub fn heartbeats(&self) -> Option<HeartbeatSpan> {
        self.state.lock().heartbeats
    }

    /// Sends a command down the stream of pod `pod` (a uid) of a Polecat. False when there is no
    /// stream or its queue is full.
    pub fn send(
        &self,
        now: Timestamp,
        polecat: &str,
        pod: &str,
        command: witness::Command,
        text: &str,
    ) -> bool {
        let mut state = self.state.lock();
        let number = state.next_number();
        let Some(Pod { activity: Some(activity), stream: Some(stream), .. }) =
            state.pod(polecat, pod)
        else {
            return false;
        };
        let what = match command {
            witness::Command::Nudge => command::What::Nudge(text.to_owned()),
            witness::Command::Checkpoint => command::What::Checkpoint(text.to_owned()),
        };
        if stream.commands.try_send(Ok(Command { number, what: Some(what) })).is_err() {
            return false;
        }
        activity.command_sent(now, command, number);
        true
    }
}

#[cfg(test)]
mod tests {
    use gastown_runtime::metrics::Metrics;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat { now_ms: 10_000, last_event_ms: 10_000, ..Heartbeat::default() }
    }

    /// The stream of a pod that sent a heartbeat at that second, and the commands to it.
    fn attached(
        streams: &Streams,
        second: i64,
        pod: &str,
        name: &str,
        polecat: &str,
    ) -> (StreamHandle, mpsc::Receiver<StreamItem>) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let handle = streams.attach(at(second), pod, name, polecat, sender).unwrap();
        streams.heartbeat(at(second), &handle, &heartbeat(), &[]);
        (handle, commands)
    }

    #[test]
    fn a_newer_stream_replaces_the_older_one_and_the_activity_stays() {
        let streams = Streams::new(WitnessMetrics::new(&Metrics::default()));
        let (older, mut older_commands) = attached(&streams, 0, "pod", "polecat-a", "a");
        let (sender, mut newer_commands) = mpsc::channel(QUEUE);
        let newer = streams.attach(at(1), "pod", "polecat-a", "a", sender).unwrap();
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        assert_eq!(older_commands.try_recv().unwrap().unwrap_err().code(), tonic::Code::Aborted);
        streams.detach(&older);
        let (pod, _) = streams.pod(at(1), "a", "polecat-a");
        assert!(pod.is_some_and(|p| p.attached && p.activity.is_some()));
        assert!(streams.send(at(2), "a", "pod", witness::Command::Nudge, "go on"));
        assert!(newer_commands.try_recv().unwrap().is_ok());
        assert_eq!(streams.metrics.streams.get([]), 1);
        streams.detach(&newer);
        assert!(!streams.send(at(3), "a", "pod", witness::Command::Nudge, "go on"));
        assert_eq!((streams.metrics.streams.get([]), streams.metrics.heartbeats.get([])), (0, 1));
    }

    #[test]
    fn a_pod_that_does_not_read_gets_no_more_commands_than_its_queue_holds() {
        let streams = Streams::new(WitnessMetrics::new(&Metrics::default()));
        let (_handle, _commands) = attached(&streams, 0, "pod", "polecat-a", "a");
        let sent = (0..10)
            .filter(|n| streams.send(at(*n), "a", "pod", witness::Command::Checkpoint, "save"))
            .count();
        assert_eq!(sent, QUEUE);
    }

    #[test]
    fn a_gap_without_any_heartbeat_starts_a_new_span() {
        let streams = Streams::new(WitnessMetrics::new(&Metrics::default()));
        let (handle, _commands) = attached(&streams, 0, "pod", "polecat-a", "a");
        for second in [60, 100, 400, 410] {
            streams.heartbeat(at(second), &handle, &heartbeat(), &[]);
        }
        assert_eq!(streams.heartbeats(), Some(HeartbeatSpan { first: at(400), last: at(410) }));
    }

    #[test]
    fn a_pod_is_found_by_its_name_among_those_of_its_polecat_only() {
        let streams = Streams::new(WitnessMetrics::new(&Metrics::default()));
        let (_first, mut of_first) = attached(&streams, 0, "pod-1", "polecat-a", "a");
        let (_second, mut of_second) = attached(&streams, 1, "pod-2", "polecat-a-x-2", "a");
        let (_other, mut of_other) = attached(&streams, 2, "pod-3", "polecat-a", "b");
        let uid = |polecat: &str, name: &str| streams.pod(at(3), polecat, name).0.map(|p| p.uid);
        assert_eq!(uid("a", "polecat-a").as_deref(), Some("pod-1"));
        assert_eq!(uid("a", "polecat-a-x-2").as_deref(), Some("pod-2"));
        assert_eq!(uid("b", "polecat-a").as_deref(), Some("pod-3"));
        assert_eq!(uid("b", "polecat-a-x-2"), None);
        assert!(
            !streams.send(at(4), "b", "pod-2", witness::Command::Nudge, "go on"),
            "it belongs to another polecat"
        );
        assert!(streams.send(at(4), "a", "pod-2", witness::Command::Nudge, "go on"));
        assert!(
            of_second.try_recv().is_ok()
                && of_first.try_recv().is_err()
                && of_other.try_recv().is_err()
        );
    }

    #[test]
    fn a_pod_is_at_work_from_its_first_assessment_until_its_polecat_is_idle() {
        let streams = Streams::new(WitnessMetrics::new(&Metrics::default()));
        let since = |second: i64, name: &str| streams.pod(at(second), "a", name).1;
        assert_eq!((since(0, "polecat-a"), since(5, "polecat-a")), (at(0), at(0)));
        assert_eq!(since(6, "polecat-a-x-2"), at(6), "another pod starts over");
        streams.idle("b");
        assert_eq!(since(7, "polecat-a-x-2"), at(6), "another polecat is idle");
        streams.idle("a");
        assert_eq!(since(8, "polecat-a-x-2"), at(8));
    }

    #[test]
    fn what_is_neither_attached_nor_assessed_is_forgotten_in_time() {
        let streams = Streams::new(WitnessMetrics::new(&Metrics::default()));
        let (gone, _gone_commands) = attached(&streams, 0, "pod-1", "polecat-a", "a");
        let (_stays, _kept_commands) = attached(&streams, 0, "pod-2", "polecat-b", "b");
        streams.detach(&gone);
        streams.pod(at(0), "deleted", "polecat-deleted");
        streams.pod(at(1000), "silent", "polecat-silent");
        let (_fresh, _fresh_commands) = attached(&streams, 3601, "pod-3", "polecat-c", "c");
        let state = streams.state.lock();
        let mut left: Vec<&str> = state.polecats.keys().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!((left, state.pods), (vec!["b", "c", "silent"], 2));
    }
}
