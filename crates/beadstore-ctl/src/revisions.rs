//! The revisions of all rigs' stores, as one stream: however many rigs there are, a caller holds one
//! call open.

use std::collections::HashMap;
use std::sync::Arc;

use futures::Stream;
use gastown_proto::v1::StoreRevision;
use gastown_types::CommitId;
use tokio::sync::watch;
use tonic::Status;

use crate::snapshot::StoreSnapshot;

/// The revision of each store that has been read and serves its rig. Clones share.
#[derive(Clone, Debug)]
pub struct Revisions(Arc<watch::Sender<HashMap<String, Shown>>>);

/// A rig's revision, and the uid of the BeadStore that it is of.
#[derive(Clone, Debug)]
struct Shown {
    uid: String,
    revision: StoreRevision,
}

impl Default for Revisions {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(HashMap::new())))
    }
}

impl Revisions {
    /// Shows the revision of the BeadStore with this uid.
    pub(crate) fn show(&self, uid: &str, revision: StoreRevision) {
        let shown = Shown { uid: uid.to_owned(), revision };
        self.0.send_if_modified(|all| {
            let before = all.insert(shown.revision.rig.clone(), shown.clone());
            before.is_none_or(|before| before.revision != shown.revision)
        });
    }

    /// The BeadStore with this uid does not serve its rig any more.
    pub(crate) fn hide(&self, uid: &str) {
        self.0.send_if_modified(|all| {
            let before = all.len();
            all.retain(|_, shown| shown.uid != uid);
            all.len() < before
        });
    }

    /// The present revision of each store, and then each newer one; of a store that does not serve its
    /// rig any more one without a number. A slow caller receives the newest revision, not every one.
    pub(crate) fn stream(&self) -> impl Stream<Item = Result<StoreRevision, Status>> + use<> {
        let caller = Caller { shown: self.0.subscribe(), sent: HashMap::new() };
        futures::stream::unfold(caller, |mut caller| async move {
            let next = caller.next().await?;
            Some((Ok(next), caller))
        })
    }
}

/// A caller, and what it has received.
struct Caller {
    shown: watch::Receiver<HashMap<String, Shown>>,
    sent: HashMap<String, StoreRevision>,
}

impl Caller {
    async fn next(&mut self) -> Option<StoreRevision> {
        loop {
            if let Some(newer) = self.newer() {
                return Some(newer);
            }
            self.shown.changed().await.ok()?;
        }
    }

    /// A revision that the caller does not have.
    fn newer(&mut self) -> Option<StoreRevision> {
        let shown = self.shown.borrow_and_update();
        if let Some(rig) = self.sent.keys().find(|rig| !shown.contains_key(*rig)).cloned() {
            self.sent.remove(&rig);
            return Some(StoreRevision { rig, ..StoreRevision::default() });
        }
        let is_newer = |shown: &&Shown| self.sent.get(&shown.revision.rig) != Some(&shown.revision);
        let newer = shown.values().find(is_newer)?.revision.clone();
        self.sent.insert(newer.rig.clone(), newer.clone());
        Some(newer)
    }
}

/// The revision of a rig's store.
pub(crate) fn of(rig: &str, snapshot: &StoreSnapshot) -> StoreRevision {
    let tips = snapshot.git().map(|branches| branches.tips()).unwrap_or_default();
    let text = |commit: Option<CommitId>| commit.map(|c| c.to_string()).unwrap_or_default();
    StoreRevision {
        rig: rig.to_owned(),
        number: snapshot.number(),
        target_commit: text(tips.target),
        write_commit: text(tips.write),
        authoritative: snapshot.is_authoritative(),
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn at(rig: &str, number: u64) -> StoreRevision {
        StoreRevision { rig: rig.to_owned(), number, ..StoreRevision::default() }
    }

    #[tokio::test]
    async fn a_caller_receives_what_is_new_of_every_rig_and_which_store_is_gone() {
        let revisions = Revisions::default();
        revisions.show("u1", at("web", 1));
        let stream = revisions.stream();
        let mut stream = std::pin::pin!(stream);
        let mut next = async || stream.next().await.and_then(Result::ok);
        assert_eq!(next().await, Some(at("web", 1)));
        for number in [1, 2] {
            revisions.show("u2", at("api", number));
        }
        assert_eq!(next().await, Some(at("api", 2)), "the newest one, and not every one");
        revisions.show("u2", at("api", 2));
        revisions.hide("u3");
        assert!(Box::pin(next()).now_or_never().is_none(), "nothing is new");
        // Another BeadStore serves the rig when the first one is hidden.
        revisions.show("u4", at("web", 7));
        revisions.hide("u1");
        assert_eq!(next().await, Some(at("web", 7)));
        revisions.hide("u2");
        assert_eq!(next().await, Some(at("api", 0)));
    }
}
