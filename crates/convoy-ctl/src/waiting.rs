//! The Convoys with beads that could be started if their Rig had a free slot.
//!
//! A change of a Polecat may free one slot, and one is of use to a few Convoys at most: the first ones in
//! line are looked at, not all of a crowd.

use std::collections::{HashMap, VecDeque};

use gastown_api::Convoy;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

/// How many Convoys are looked at when a slot may be free.
const WOKEN: usize = 4;

/// The waiting Convoys, by their Rig. Each is in line once.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<String, VecDeque<ObjectRef<Convoy>>>>);

impl Waiting {
    /// The Convoy waits from now on, behind those that do already.
    pub(crate) fn join(&self, convoy: &Convoy) {
        let Some(rig) = rig(convoy) else { return };
        let me = ObjectRef::from_obj(convoy);
        let mut all = self.0.lock();
        let line = all.entry(rig.to_owned()).or_default();
        if !line.contains(&me) {
            line.push_back(me);
        }
    }

    /// The Convoy does not wait any more.
    pub(crate) fn leave(&self, convoy: &Convoy) {
        let Some(rig) = rig(convoy) else { return };
        let me = ObjectRef::from_obj(convoy);
        let mut all = self.0.lock();
        if let Some(line) = all.get_mut(rig) {
            line.retain(|other| *other != me);
            if line.is_empty() {
                all.remove(rig);
            }
        }
    }

    /// A slot of the Rig may be free: takes those that are to be looked at out of the line. Who waits
    /// still joins it again.
    pub(crate) fn wake(&self, rig: &str) -> Vec<ObjectRef<Convoy>> {
        let mut all = self.0.lock();
        let Some(line) = all.get_mut(rig) else { return Vec::new() };
        let woken = line.drain(..line.len().min(WOKEN)).collect();
        if line.is_empty() {
            all.remove(rig);
        }
        woken
    }
}

fn rig(convoy: &Convoy) -> Option<&str> {
    convoy.spec.rig_ref.as_deref().filter(|_| convoy.spec.dispatch)
}

#[cfg(test)]
mod tests {
    use gastown_api::ConvoySpec;

    use super::*;

    fn convoy(name: &str, rig: &str, dispatch: bool) -> Convoy {
        let mut convoy = Convoy::new(name, ConvoySpec::default());
        (convoy.spec.rig_ref, convoy.spec.dispatch) = (Some(rig.to_owned()), dispatch);
        convoy
    }

    fn woken(waiting: &Waiting, rig: &str) -> Vec<String> {
        waiting.wake(rig).into_iter().map(|convoy| convoy.name).collect()
    }

    #[test]
    fn the_first_ones_in_line_of_the_rig_are_woken_once() {
        let waiting = Waiting::default();
        let names = ["a", "b", "c", "d", "e", "f"];
        for name in names.into_iter().chain(["a"]) {
            waiting.join(&convoy(name, "web", true));
        }
        waiting.join(&convoy("other", "app", true));
        waiting.join(&convoy("tracks", "web", false));
        assert_eq!(woken(&waiting, "web"), ["a", "b", "c", "d"]);
        waiting.join(&convoy("b", "web", true));
        waiting.leave(&convoy("e", "web", true));
        assert_eq!(woken(&waiting, "web"), ["f", "b"], "who joins again is behind the others");
        assert_eq!(woken(&waiting, "web"), [""; 0]);
        waiting.leave(&convoy("other", "app", true));
        assert!(waiting.0.lock().is_empty(), "empty lines are not kept");
    }
}
