//! The pods that report: one stream a pod, and what is remembered of each. All of it may be lost:
//! pods attach again.

use std::collections::HashMap;

use gastown_core::witness::{Answer, Beat, Memory, Order};
use gastown_proto::v1::{Command, command};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::metrics::WitnessMetrics;

/// So many orders may wait for one pod.
pub(crate) const QUEUE: usize = 4;
/// So many pods are remembered.
const PODS: usize = 50_000;
/// A pod without a stream, and a Polecat that nobody asks for, are forgotten after this.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// How often is looked for what to forget: it takes a look at everything.
const SWEEP: SignedDuration = SignedDuration::from_mins(1);
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
    uid: String,
    name: String,
    memory: Option<Memory>,
    stream: Option<Stream>,
}

/// When a pod was first seen at work in its Polecat's status, and when it was asked for last.
struct Seen {
    pod: String,
    since: Timestamp,
    asked: Timestamp,
}

/// What is known of one Polecat.
#[derive(Default)]
struct Own {
    /// Its pods, the one that attached last at the end: one, or a few while one takes over from
    /// another.
    pods: Vec<Pod>,
    seen: Option<Seen>,
}

#[derive(Default)]
struct State {
    /// By the Polecat's uid: all that is asked is asked of one Polecat, and there are thousands.
    polecats: HashMap<String, Own>,
    /// How many pods they have.
    pods: usize,
    swept: Option<Timestamp>,
    heard: Option<(Timestamp, Timestamp)>,
    numbers: u64,
}

#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    metrics: WitnessMetrics,
}

/// What is known of a Polecat's pod.
pub(crate) struct Known {
    pub uid: String,
    pub memory: Option<Memory>,
    pub attached: bool,
}

/// The reader's side of a stream.
pub(crate) struct Seat {
    polecat: String,
    pod: String,
    number: u64,
    pub stop: CancellationToken,
}

impl State {
    /// Forgets what nobody needs any more.
    fn sweep(&mut self, now: Timestamp) {
        let young = |then: Timestamp| now.duration_since(then) <= FORGOTTEN;
        self.polecats.retain(|_, own| {
            own.pods.retain(|p| {
                p.stream.is_some() || p.memory.as_ref().is_some_and(|m| young(m.heard))
            });
            !own.pods.is_empty() || own.seen.as_ref().is_some_and(|s| young(s.asked))
        });
        self.pods = self.polecats.values().map(|own| own.pods.len()).sum();
        self.swept = Some(now);
    }

    /// The pod of a seat, unless a newer stream has taken its place.
    fn seated(&mut self, seat: &Seat) -> Option<&mut Pod> {
        let pod = self.pod(&seat.polecat, &seat.pod)?;
        pod.stream.as_ref().is_some_and(|s| s.number == seat.number).then_some(pod)
    }

    fn pod(&mut self, polecat: &str, uid: &str) -> Option<&mut Pod> {
        self.polecats.get_mut(polecat)?.pods.iter_mut().find(|p| p.uid == uid)
    }
}

impl Hub {
    /// A hub that counts its streams and what comes over them.
    pub fn new(metrics: WitnessMetrics) -> Self {
        Self { state: Mutex::default(), metrics }
    }

    /// Seats a pod; the stream that it had before ends.
    pub fn attach(
        &self,
        now: Timestamp,
        pod: &str,
        name: &str,
        polecat: &str,
        down: mpsc::Sender<Down>,
    ) -> Option<Seat> {
        let mut state = self.state.lock();
        let fresh = state.pod(polecat, pod).is_none();
        if state.swept.is_none_or(|then| now.duration_since(then) >= SWEEP)
            || (fresh && state.pods >= PODS)
        {
            state.sweep(now);
        }
        if state.pod(polecat, pod).is_none() {
            if state.pods >= PODS {
                return None;
            }
            state.pods += 1;
            let own = state.polecats.entry(polecat.to_owned()).or_default();
            own.pods.push(Pod {
                uid: pod.to_owned(),
                name: name.to_owned(),
                memory: None,
                stream: None,
            });
        }
        state.numbers += 1;
        let number = state.numbers;
        let stop = CancellationToken::new();
        let entry = state.pod(polecat, pod)?;
        match entry.stream.replace(Stream { number, down, stop: stop.clone() }) {
            Some(older) => {
                let _ = older
                    .down
                    .try_send(Err(Status::aborted("a newer stream of this pod has taken over")));
                older.stop.cancel();
            }
            None => {
                self.metrics.streams.inc();
            }
        }
        Some(Seat { polecat: polecat.to_owned(), pod: pod.to_owned(), number, stop })
    }

    /// The stream has ended; a newer one stays.
    pub fn detach(&self, seat: &Seat) {
        if let Some(pod) = self.state.lock().seated(seat) {
            pod.stream = None;
            self.metrics.streams.dec();
        }
    }

    /// A heartbeat came in.
    pub fn hear(&self, now: Timestamp, seat: &Seat, beat: &Beat, answers: &[Answer]) {
        self.metrics.heartbeats.inc();
        let mut state = self.state.lock();
        let since = state
            .heard
            .filter(|(last, _)| now.duration_since(*last) < DEAF)
            .map_or(now, |(_, since)| since);
        state.heard = Some((now, since));
        let Some(pod) = state.seated(seat) else { return };
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
        let mut state = self.state.lock();
        let own = state.polecats.entry(polecat.to_owned()).or_default();
        let since = own.seen.as_ref().filter(|s| s.pod == name).map_or(now, |s| s.since);
        own.seen = Some(Seen { pod: name.to_owned(), since, asked: now });
        let found = own.pods.iter().rev().find(|p| p.name == name);
        let known = found.map(|p| Known {
            uid: p.uid.clone(),
            memory: p.memory.clone(),
            attached: p.stream.is_some(),
        });
        (known, since)
    }

    /// The Polecat has no pod at work.
    pub fn rested(&self, polecat: &str) {
        if let Some(own) = self.state.lock().polecats.get_mut(polecat) {
            own.seen = None;
        }
    }

    /// When anybody was heard last, and since when without a gap.
    pub fn heard(&self) -> Option<(Timestamp, Timestamp)> {
        self.state.lock().heard
    }

    /// Sends an order down the stream of a Polecat's pod. Says whether there was room for it: if
    /// not, it is given again.
    pub fn order(
        &self,
        now: Timestamp,
        polecat: &str,
        pod: &str,
        order: Order,
        text: &str,
    ) -> bool {
        let mut state = self.state.lock();
        state.numbers += 1;
        let number = state.numbers;
        let Some(Pod { memory: Some(memory), stream: Some(stream), .. }) = state.pod(polecat, pod)
        else {
            return false;
        };
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

    /// A pod that was heard at that second, and what it would read.
    fn seated(
        hub: &Hub,
        second: i64,
        pod: &str,
        name: &str,
        polecat: &str,
    ) -> (Seat, mpsc::Receiver<Down>) {
        let (down, orders) = mpsc::channel(QUEUE);
        let seat = hub.attach(at(second), pod, name, polecat, down).unwrap();
        hub.hear(at(second), &seat, &beat(), &[]);
        (seat, orders)
    }

    #[test]
    fn a_newer_stream_replaces_the_older_one_and_the_memory_stays() {
        let hub = Hub::default();
        let (older, mut first_down) = seated(&hub, 0, "pod", "polecat-a", "a");
        let (second, mut second_down) = mpsc::channel(QUEUE);
        let newer = hub.attach(at(1), "pod", "polecat-a", "a", second).unwrap();
        assert!(older.stop.is_cancelled() && !newer.stop.is_cancelled());
        assert_eq!(first_down.try_recv().unwrap().unwrap_err().code(), tonic::Code::Aborted);
        hub.detach(&older);
        let (known, _) = hub.known(at(1), "a", "polecat-a");
        assert!(known.is_some_and(|k| k.attached && k.memory.is_some()));
        assert!(hub.order(at(2), "a", "pod", Order::Nudge, "go on"));
        assert!(second_down.try_recv().unwrap().is_ok());
        assert_eq!(hub.metrics.streams.get(), 1);
        hub.detach(&newer);
        assert!(!hub.order(at(3), "a", "pod", Order::Nudge, "go on"));
        assert_eq!((hub.metrics.streams.get(), hub.metrics.heartbeats.get()), (0, 1));
    }

    #[test]
    fn a_pod_that_does_not_read_gets_no_more_than_fits() {
        let hub = Hub::default();
        let (_seat, _kept) = seated(&hub, 0, "pod", "polecat-a", "a");
        let given =
            (0..10).filter(|n| hub.order(at(*n), "a", "pod", Order::Checkpoint, "save")).count();
        assert_eq!(given, QUEUE);
    }

    #[test]
    fn a_gap_in_which_nobody_was_heard_begins_anew() {
        let hub = Hub::default();
        let (seat, _kept) = seated(&hub, 0, "pod", "polecat-a", "a");
        for second in [60, 100, 400, 410] {
            hub.hear(at(second), &seat, &beat(), &[]);
        }
        assert_eq!(hub.heard(), Some((at(410), at(400))));
    }

    #[test]
    fn of_the_pods_of_a_polecat_the_one_of_that_name_is_meant_and_none_of_another_polecat() {
        let hub = Hub::default();
        let (_first, mut of_first) = seated(&hub, 0, "pod-1", "polecat-a", "a");
        let (_second, mut of_second) = seated(&hub, 1, "pod-2", "polecat-a-x-2", "a");
        let (_other, mut of_other) = seated(&hub, 2, "pod-3", "polecat-a", "b");
        let uid = |polecat: &str, name: &str| hub.known(at(3), polecat, name).0.map(|k| k.uid);
        assert_eq!(uid("a", "polecat-a").as_deref(), Some("pod-1"));
        assert_eq!(uid("a", "polecat-a-x-2").as_deref(), Some("pod-2"));
        assert_eq!(uid("b", "polecat-a").as_deref(), Some("pod-3"));
        assert_eq!(uid("b", "polecat-a-x-2"), None);
        assert!(
            !hub.order(at(4), "b", "pod-2", Order::Nudge, "go on"),
            "it is not of that polecat"
        );
        assert!(hub.order(at(4), "a", "pod-2", Order::Nudge, "go on"));
        assert!(
            of_second.try_recv().is_ok()
                && of_first.try_recv().is_err()
                && of_other.try_recv().is_err()
        );
    }

    #[test]
    fn a_pod_is_at_work_since_it_was_first_asked_for_until_its_polecat_rests() {
        let hub = Hub::default();
        let since = |second: i64, name: &str| hub.known(at(second), "a", name).1;
        assert_eq!((since(0, "polecat-a"), since(5, "polecat-a")), (at(0), at(0)));
        assert_eq!(since(6, "polecat-a-x-2"), at(6), "another pod begins anew");
        hub.rested("b");
        assert_eq!(since(7, "polecat-a-x-2"), at(6), "another polecat's rest is not its own");
        hub.rested("a");
        assert_eq!(since(8, "polecat-a-x-2"), at(8));
    }

    #[test]
    fn what_is_neither_attached_nor_asked_for_is_forgotten_in_time() {
        let hub = Hub::default();
        let (gone, _down) = seated(&hub, 0, "pod-1", "polecat-a", "a");
        let (_stays, _kept) = seated(&hub, 0, "pod-2", "polecat-b", "b");
        hub.detach(&gone);
        hub.known(at(0), "deleted", "polecat-deleted");
        hub.known(at(1000), "silent", "polecat-silent");
        let (_fresh, _new) = seated(&hub, 3601, "pod-3", "polecat-c", "c");
        let state = hub.state.lock();
        let mut left: Vec<&str> = state.polecats.keys().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!((left, state.pods), (vec!["b", "c", "silent"], 2));
    }
}
