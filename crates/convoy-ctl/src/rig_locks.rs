//! What was made and is not in the cache yet, and whose turn it is: without them two looks in a
//! row, or two convoys of one rig at a time, would fill the same places.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A Polecat that does not show up for this long was deleted at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Polecat that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its rig.
    pub rig: String,
    /// Its bead.
    pub bead: String,
}

/// The Polecats that were made and are not in the cache yet.
#[derive(Default)]
pub struct Expected {
    made: Mutex<Vec<(Instant, Made)>>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Expected {
    /// It was made, and the cache shows it later.
    pub fn add(&self, made: Made) {
        self.made.lock().push((Instant::now(), made));
    }

    /// What the cache does not show yet; `shown` says what it does.
    pub fn missing(&self, shown: impl Fn(&Made) -> bool) -> Vec<Made> {
        let mut made = self.made.lock();
        made.retain(|(when, made)| when.elapsed() < PATIENCE && !shown(made));
        made.iter().map(|(_, made)| made.clone()).collect()
    }

    /// The lock under which Polecats of a rig are counted and made.
    pub fn turn(&self, rig: Option<&str>) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut turns = self.turns.lock();
        // Those that nobody holds are made again when they are needed.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Some(turns.entry(rig?.to_owned()).or_default().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_expected_until_the_cache_shows_it() {
        let expected = Expected::default();
        let made =
            Made { namespace: "n".into(), name: "p".into(), rig: "r".into(), bead: "b".into() };
        expected.add(made.clone());
        assert_eq!(expected.missing(|_| false), std::slice::from_ref(&made));
        assert_eq!(expected.missing(|shown| *shown == made), []);
        assert_eq!(expected.missing(|_| false), [], "what was shown once is expected no more");
    }

    #[tokio::test]
    async fn a_rig_has_one_turn_at_a_time() {
        let expected = Expected::default();
        let held = expected.turn(Some("r")).unwrap().lock_owned().await;
        assert!(expected.turn(Some("r")).unwrap().try_lock_owned().is_err());
        assert!(expected.turn(Some("other")).unwrap().try_lock_owned().is_ok());
        assert!(expected.turn(None).is_none());
        drop(held);
        assert!(expected.turn(Some("r")).unwrap().try_lock_owned().is_ok());
    }
}
