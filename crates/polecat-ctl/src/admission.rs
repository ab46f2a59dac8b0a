//! The slots of all rigs: which Polecats hold one, which have been granted one, which wait.

use std::collections::{BTreeSet, HashMap};

use gastown_core::admission::{Candidate, Decision, admit, shown_position};
use parking_lot::Mutex;

/// What one Polecat has of its rig's slots.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// It has a live pod.
    live: bool,
    /// It was granted a slot and has not been observed since.
    granted: bool,
    /// The name of a pod of it that may exist: whether its creation succeeded is not known.
    promised: Option<String>,
    /// It waits for a slot.
    waits: Option<Candidate>,
    /// The position that its status shows.
    shown: Option<usize>,
}

impl Slot {
    fn held(&self) -> bool {
        self.live || self.granted || self.promised.is_some()
    }

    /// Its place in the queue, if it is in it.
    fn waiting(&self) -> Option<&Candidate> {
        self.waits.as_ref().filter(|_| !self.held())
    }
}

/// The slots of one rig. What a look at one Polecat costs does not grow with the rig.
#[derive(Debug, Default)]
struct RigSlots {
    /// By the Polecat's uid.
    slots: HashMap<String, Slot>,
    /// How many of them are held.
    held: usize,
    /// Those that wait, the first one first.
    queue: BTreeSet<Candidate>,
    cap: usize,
}

impl RigSlots {
    /// Changes what one Polecat has; one that has nothing any more is forgotten.
    fn change<T>(&mut self, uid: &str, change: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slot = self.slots.remove(uid).unwrap_or_default();
        self.held -= usize::from(slot.held());
        if let Some(candidate) = slot.waiting() {
            self.queue.remove(candidate);
        }
        let changed = change(&mut slot);
        self.held += usize::from(slot.held());
        self.queue.extend(slot.waiting().cloned());
        if slot.held() || slot.waits.is_some() {
            self.slots.insert(uid.to_owned(), slot);
        }
        changed
    }

    /// The first in the queue, as many as there are free slots.
    fn next(&self) -> Vec<String> {
        let free = self.cap.saturating_sub(self.held);
        self.queue.iter().take(free).map(|candidate| candidate.key.clone()).collect()
    }
}

/// The slots of all rigs. One Polecat is admitted at a time.
#[derive(Debug, Default)]
pub(crate) struct Admission(Mutex<HashMap<String, RigSlots>>);

impl Admission {
    /// Records what a Polecat's snapshot shows. A granted slot that it did not use is free again:
    /// a Polecat is reconciled by one task at a time. Returns the keys of the Polecats that may get
    /// a slot which became free.
    pub(crate) fn observe(
        &self,
        rig: &str,
        uid: &str,
        live: bool,
        waits: Option<Candidate>,
    ) -> Vec<String> {
        let mut rigs = self.0.lock();
        let slots = rigs.entry(rig.to_owned()).or_default();
        let freed = slots.change(uid, |slot| {
            let freed = slot.held() && slot.promised.is_none() && !live;
            if waits.is_none() {
                slot.shown = None;
            }
            (slot.live, slot.granted, slot.waits) = (live, false, waits);
            freed
        });
        let next = if freed { slots.next() } else { Vec::new() };
        if slots.slots.is_empty() {
            rigs.remove(rig);
        }
        next
    }

    /// Asks for a slot. A granted one is held until the Polecat is observed again.
    pub(crate) fn ask(&self, rig: &str, cap: usize, me: &Candidate) -> Decision {
        let mut rigs = self.0.lock();
        let slots = rigs.entry(rig.to_owned()).or_default();
        slots.cap = cap;
        let holds = slots.slots.get(&me.uid).is_some_and(Slot::held);
        let ahead = slots.queue.range(..me).count();
        let decision = admit(cap, slots.held, holds, ahead);
        slots.change(&me.uid, |slot| match decision {
            Decision::AtCapacity { used, cap, position } => {
                let shown = shown_position(slot.shown, position);
                slot.shown = Some(shown);
                Decision::AtCapacity { used, cap, position: shown }
            }
            Decision::Granted => {
                (slot.granted, slot.shown) = (true, None);
                Decision::Granted
            }
            Decision::NotAsked => Decision::NotAsked,
        })
    }

    /// How many slots of a rig are in use.
    pub(crate) fn used(&self, rig: &str) -> usize {
        self.0.lock().get(rig).map_or(0, |slots| slots.held)
    }

    /// A pod of this name is about to be created for a Polecat. Its slot is held until
    /// [`Admission::settle`].
    pub(crate) fn promise(&self, rig: &str, uid: &str, pod: &str) {
        let mut rigs = self.0.lock();
        let slots = rigs.entry(rig.to_owned()).or_default();
        slots.change(uid, |slot| slot.promised = Some(pod.to_owned()));
    }

    /// The name of the pod that may have been created for a Polecat.
    pub(crate) fn promised(&self, rig: &str, uid: &str) -> Option<String> {
        self.0.lock().get(rig)?.slots.get(uid)?.promised.clone()
    }

    /// It is known whether the promised pod exists.
    pub(crate) fn settle(&self, rig: &str, uid: &str) {
        if let Some(slots) = self.0.lock().get_mut(rig) {
            slots.change(uid, |slot| slot.promised = None);
        }
    }

    /// A Polecat is gone. Returns what [`Admission::observe`] does.
    pub(crate) fn forget(&self, rig: &str, uid: &str) -> Vec<String> {
        self.settle(rig, uid);
        self.observe(rig, uid, false, None)
    }

    /// Forgets everything; the caller observes every Polecat next.
    pub(crate) fn clear(&self, rigs: impl Fn(&str) -> bool) {
        self.0.lock().retain(|rig, _| !rigs(rig));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, age: i64) -> Candidate {
        Candidate {
            priority: 2,
            created: Timestamp::from_second(1000 - age).unwrap(),
            key: format!("ns/{name}"),
            uid: name.into(),
        }
    }

    #[test]
    fn a_granted_slot_counts_until_the_next_snapshot_and_a_freed_one_goes_to_the_first_in_line() {
        let admission = Admission::default();
        let (a, b, c) = (candidate("a", 3), candidate("b", 2), candidate("c", 1));
        for one in [&a, &b, &c] {
            admission.observe("web", &one.uid, false, Some(one.clone()));
        }
        assert_eq!(
            admission.ask("web", 1, &b),
            Decision::AtCapacity { used: 0, cap: 1, position: 1 }
        );
        assert_eq!(admission.ask("web", 1, &a), Decision::Granted);
        assert_eq!(
            admission.ask("web", 1, &b),
            Decision::AtCapacity { used: 1, cap: 1, position: 1 }
        );
        assert_eq!((admission.used("web"), admission.used("docs")), (1, 0));
        assert!(admission.observe("web", "a", true, None).is_empty());
        assert_eq!(admission.observe("web", "a", false, None), ["ns/b"]);
        assert_eq!(
            admission.ask("web", 1, &c),
            Decision::AtCapacity { used: 0, cap: 1, position: 1 }
        );
    }

    #[test]
    fn a_pod_that_may_exist_keeps_its_slot_until_that_is_known() {
        let admission = Admission::default();
        let (a, b) = (candidate("a", 3), candidate("b", 2));
        admission.observe("web", "a", false, Some(a.clone()));
        admission.observe("web", "b", false, Some(b.clone()));
        assert_eq!(admission.ask("web", 1, &a), Decision::Granted);
        admission.promise("web", "a", "polecat-a");
        for _ in 0..3 {
            assert!(admission.observe("web", "a", false, Some(a.clone())).is_empty());
            assert!(matches!(admission.ask("web", 1, &b), Decision::AtCapacity { used: 1, .. }));
        }
        assert_eq!(admission.promised("web", "a").as_deref(), Some("polecat-a"));
        admission.settle("web", "a");
        admission.observe("web", "a", false, None);
        assert_eq!(admission.ask("web", 1, &b), Decision::Granted);
        admission.promise("web", "b", "polecat-b");
        admission.forget("web", "b");
        assert_eq!(admission.promised("web", "b"), None, "it is gone");
    }

    #[test]
    fn a_granted_slot_that_is_not_used_is_free_again() {
        let admission = Admission::default();
        let (a, b) = (candidate("a", 3), candidate("b", 2));
        admission.observe("web", "a", false, Some(a.clone()));
        admission.observe("web", "b", false, Some(b.clone()));
        assert_eq!(admission.ask("web", 1, &a), Decision::Granted);
        assert_eq!(admission.observe("web", "a", false, None), ["ns/b"]);
        assert_eq!(admission.ask("web", 1, &b), Decision::Granted);
    }

    /// What may happen to one of a few Polecats of a rig.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        Observe { live: bool, waits: bool },
        Ask,
        Promise,
        Settle,
        Forget,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            (any::<bool>(), any::<bool>())
                .prop_map(|(live, waits)| Happens::Observe { live, waits }),
            Just(Happens::Ask),
            Just(Happens::Promise),
            Just(Happens::Settle),
            Just(Happens::Forget),
        ]
    }

    /// The counters are those of a recount.
    fn recount(slots: &RigSlots) -> Result<(), TestCaseError> {
        prop_assert_eq!(slots.held, slots.slots.values().filter(|slot| slot.held()).count());
        let waiting: BTreeSet<_> =
            slots.slots.values().filter_map(Slot::waiting).cloned().collect();
        prop_assert_eq!(&slots.queue, &waiting);
        Ok(())
    }

    proptest! {
        #[test]
        fn counters_are_those_of_a_recount_and_no_slot_is_granted_beyond_the_cap(
            cap in 0_usize..4,
            steps in proptest::collection::vec((0_usize..6, happens()), 0..80),
        ) {
            let admission = Admission::default();
            for (who, what) in steps {
                let me = candidate(&format!("p{who}"), i64::try_from(who).unwrap());
                let held = |admission: &Admission| {
                    admission.0.lock().get("web").map_or(0, |slots| slots.held)
                };
                let (before, mut next) = (held(&admission), Vec::new());
                match what {
                    Happens::Observe { live, waits } => {
                        next = admission.observe("web", &me.uid, live, waits.then(|| me.clone()));
                    }
                    Happens::Ask => {
                        if admission.ask("web", cap, &me) == Decision::Granted {
                            prop_assert!(held(&admission) <= cap.max(before));
                        } else {
                            prop_assert_eq!(held(&admission), before);
                        }
                    }
                    Happens::Promise => admission.promise("web", &me.uid, "pod"),
                    Happens::Settle => admission.settle("web", &me.uid),
                    Happens::Forget => next = admission.forget("web", &me.uid),
                }
                if let Some(slots) = admission.0.lock().get("web") {
                    recount(slots)?;
                    prop_assert!(next.len() <= slots.cap.saturating_sub(slots.held));
                }
            }
        }
    }
}
