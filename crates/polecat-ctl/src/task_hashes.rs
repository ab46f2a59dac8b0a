//! The hashes of tasks, each made once for each generation of its Polecat.

use std::collections::HashMap;

use gastown_api::Polecat;
use gastown_core::polecat::task_hash;
use parking_lot::Mutex;

/// The generation and its hash, by the Polecat's uid.
#[derive(Default)]
pub(crate) struct TaskHashes(Mutex<HashMap<String, (Option<i64>, String)>>);

impl TaskHashes {
    /// The hash of a Polecat's task.
    pub(crate) fn of(&self, polecat: &Polecat) -> String {
        let (uid, generation) = (polecat.metadata.uid.as_deref(), polecat.metadata.generation);
        let uid = uid.unwrap_or_default();
        if let Some((of, hash)) = self.0.lock().get(uid)
            && *of == generation
        {
            return hash.clone();
        }
        let hash = task_hash(&polecat.spec);
        self.0.lock().insert(uid.to_owned(), (generation, hash.clone()));
        hash
    }

    /// The Polecat is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use gastown_api::PolecatSpec;

    use super::*;

    #[test]
    fn another_generation_has_its_own_hash() {
        let hashes = TaskHashes::default();
        let mut polecat = Polecat::new("toast", PolecatSpec::of_rig("web"));
        (polecat.metadata.uid, polecat.metadata.generation) = (Some("u".into()), Some(1));
        let first = hashes.of(&polecat);
        polecat.spec.task_description = Some("something else".into());
        assert_eq!(hashes.of(&polecat), first, "a spec changes with its generation");
        polecat.metadata.generation = Some(2);
        assert_eq!(hashes.of(&polecat), task_hash(&polecat.spec));
        assert_ne!(hashes.of(&polecat), first);
        hashes.forget("u");
        assert!(hashes.0.lock().is_empty());
    }
}
