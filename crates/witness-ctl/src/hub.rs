//! The pods that report: one stream a pod, and what is remembered of each. All of it may be lost: pods attach again.

use std::collections::HashMap;

use gastown_core::witness::{Answer, Beat, Memory, Order};
use gastown_proto::v1::{Command, command};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// So many orders may wait for one pod.
pub(crate) const QUEUE: usize = 4;
/// So many pods are remembered.
const PODS: usize = 50_000;
/// A pod without a stream is forgotten after this.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// Nobody was heard for so long: we were cut off.
const DEAF: SignedDuration = SignedDuration::from_mins(2);

/// What goes down a stream.
pub(crate) type Down = Result<Command, Status>;

struct Stream {
    number: u64,
    down: mpsc::Sender<Down>,
    stop: CancellationToken,
}

struct Pod {
    polecat: String,
    name: String,
    memory: Option<Memory>,
    stream: Option<Stream>,
}

#[derive(Default)]
struct State {
    pods: HashMap<String, Pod>,
    /// When each pod was first seen at work in its Polecat's status, by the Polecat's uid and the pod's name.
    seen: HashMap<(String, String), Timestamp>,
    heard: Option<(Timestamp, Timestamp)>,
    numbers: u64,
}

#[derive(Default)]
pub(crate) struct Hub(Mutex<State>);

/// What is known of a Polecat's pod.
pub(crate) struct Known {
    pub uid: String,
    pub memory: Option<Memory>,
    pub attached: bool,
}

/// The reader's side of a stream.
pub(crate) struct Seat {
    pub pod: String,
    pub number: u64,
    pub stop: CancellationToken,
}

impl Hub {
    /// Seats a pod; the stream that it had before ends.
    pub fn attach(&self, now: Timestamp, pod: &str, name: &str, polecat: &str, down: mpsc::Sender<Down>) -> Option<Seat> {
        let mut state = self.0.lock();
        let old = |p: &Pod| p.memory.as_ref().is_none_or(|m| now.duration_since(m.heard) > FORGOTTEN);
        state.pods.retain(|uid, p| uid == pod || p.stream.is_some() || !old(p));
        if state.pods.len() >= PODS && !state.pods.contains_key(pod) {
            return None;
        }
        state.numbers += 1;
        let number = state.numbers;
        let stop = CancellationToken::new();
        let fresh = || Pod { polecat: polecat.to_owned(), name: name.to_owned(), memory: None, stream: None };
        let entry = state.pods.entry(pod.to_owned()).or_insert_with(fresh);
        if let Some(older) = entry.stream.replace(Stream { number, down, stop: stop.clone() }) {
            let _ = older.down.try_send(Err(Status::aborted("a newer stream of this pod has taken over")));
            older.stop.cancel();
        }
        Some(Seat { pod: pod.to_owned(), number, stop })
    }

    /// The stream has ended; a newer one stays.
    pub fn detach(&self, seat: &Seat) {
        let mut state = self.0.lock();
        if let Some(pod) = state.pods.get_mut(&seat.pod)
            && pod.stream.as_ref().is_some_and(|s| s.number == seat.number)
        {
            pod.stream = None;
        }
    }

    /// A heartbeat came in.
    pub fn hear(&self, now: Timestamp, seat: &Seat, beat: &Beat, answers: &[Answer]) {
        let mut state = self.0.lock();
        let since = state.heard.filter(|(last, _)| now.duration_since(*last) < DEAF).map_or(now, |(_, since)| since);
        state.heard = Some((now, since));
        let Some(pod) = state.pods.get_mut(&seat.pod).filter(|p| p.stream.as_ref().is_some_and(|s| s.number == seat.number)) else {
            return;
        };
        match pod.memory.as_mut() {
            Some(memory) => memory.hear(now, beat),
            None => pod.memory = Some(Memory::new(now, beat)),
        }
        for answer in answers {
            if let Some(memory) = pod.memory.as_mut() {
                memory.answered(answer);
            }
        }
    }

    /// The pod of a Polecat, and when it was first seen at work.
    pub fn known(&self, now: Timestamp, polecat: &str, name: &str) -> (Option<Known>, Timestamp) {
        let mut state = self.0.lock();
        let since = *state.seen.entry((polecat.to_owned(), name.to_owned())).or_insert(now);
        let found = state.pods.iter().find(|(_, p)| p.polecat == polecat && p.name == name);
        let known = found.map(|(uid, p)| Known { uid: uid.clone(), memory: p.memory.clone(), attached: p.stream.is_some() });
        (known, since)
    }

    /// The Polecat has no pod at work.
    pub fn rested(&self, polecat: &str) {
        self.0.lock().seen.retain(|(uid, _), _| uid != polecat);
    }

    /// When anybody was heard last, and since when without a gap.
    pub fn heard(&self) -> Option<(Timestamp, Timestamp)> {
        self.0.lock().heard
    }

    /// Sends an order down a pod's stream. Says whether there was room for it: if not, it is given again.
    pub fn order(&self, now: Timestamp, pod: &str, order: Order, text: &str) -> bool {
        let mut state = self.0.lock();
        state.numbers += 1;
        let number = state.numbers;
        let Some(Pod { memory: Some(memory), stream: Some(stream), .. }) = state.pods.get_mut(pod) else { return false };
        let what = match order {
            Order::Nudge => command::What::Nudge(text.to_owned()),
            Order::Checkpoint => command::What::Checkpoint(text.to_owned()),
        };
        if stream.down.try_send(Ok(Command { number, what: Some(what) })).is_err() {
            return false;
        }
        memory.ordered(now, order, number);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn beat() -> Beat {
        Beat { now_ms: 10_000, last_event_ms: 10_000, ..Beat::default() }
    }

    #[test]
    fn a_newer_stream_replaces_the_older_one_and_the_memory_stays() {
        let hub = Hub::default();
        let (first, mut first_down) = mpsc::channel(QUEUE);
        let (second, mut second_down) = mpsc::channel(QUEUE);
        let older = hub.attach(at(0), "pod", "polecat-a", "a", first).unwrap();
        hub.hear(at(0), &older, &beat(), &[]);
        let newer = hub.attach(at(1), "pod", "polecat-a", "a", second).unwrap();
        assert!(older.stop.is_cancelled() && !newer.stop.is_cancelled());
        assert_eq!(first_down.try_recv().unwrap().unwrap_err().code(), tonic::Code::Aborted);
        hub.detach(&older);
        let (known, _) = hub.known(at(1), "a", "polecat-a");
        assert!(known.is_some_and(|k| k.attached && k.memory.is_some()));
        assert!(hub.order(at(2), "pod", Order::Nudge, "go on"));
        assert!(second_down.try_recv().unwrap().is_ok());
        hub.detach(&newer);
        assert!(!hub.order(at(3), "pod", Order::Nudge, "go on"));
    }

    #[test]
    fn a_pod_that_does_not_read_gets_no_more_than_fits() {
        let hub = Hub::default();
        let (down, _kept) = mpsc::channel(QUEUE);
        let seat = hub.attach(at(0), "pod", "polecat-a", "a", down).unwrap();
        hub.hear(at(0), &seat, &beat(), &[]);
        let given = (0..10).filter(|n| hub.order(at(*n), "pod", Order::Checkpoint, "save")).count();
        assert_eq!(given, QUEUE);
    }

    #[test]
    fn a_gap_in_which_nobody_was_heard_begins_anew() {
        let hub = Hub::default();
        let (down, _kept) = mpsc::channel(QUEUE);
        let seat = hub.attach(at(0), "pod", "polecat-a", "a", down).unwrap();
        for second in [0, 60, 100, 400, 410] {
            hub.hear(at(second), &seat, &beat(), &[]);
        }
        assert_eq!(hub.heard(), Some((at(410), at(400))));
    }
}
