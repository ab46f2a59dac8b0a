//! One lock a Rig: two Convoys of one Rig must not count its free slots at the same time, or both
//! would fill them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// The locks under which Polecats of a Rig are counted and created, by the Rig's name.
#[derive(Default)]
pub(crate) struct RigLocks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl RigLocks {
    /// Waits for the lock of a Rig.
    pub(crate) async fn lock(&self, rig: &str) -> OwnedMutexGuard<()> {
        self.of(rig).lock_owned().await
    }

    fn of(&self, rig: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock();
        // Those that nobody holds or waits for are created again when they are needed.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(rig.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_convoy_of_a_rig_holds_its_lock_at_a_time() {
        let locks = RigLocks::default();
        let held = locks.lock("r").await;
        assert!(locks.of("r").try_lock_owned().is_err());
        assert!(locks.of("other").try_lock_owned().is_ok());
        drop(held);
        assert!(locks.of("r").try_lock_owned().is_ok());
    }
}
