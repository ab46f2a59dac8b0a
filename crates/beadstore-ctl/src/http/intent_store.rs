//! Stores the records of edits at a server: annotations, each written by compare-and-swap.

use gastown_api::names::{annotation, manager};
use gastown_api::{BeadStore, MergeRequest};
use gastown_core::beads::{Claim, Record};
use gastown_runtime::apply;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt as _};

use super::intents::{CloseIntent, Intents};

/// How many times a record is written when others write to its object meanwhile.
const TRIES: u32 = 5;

/// Why a record could not be read or written. Without its record an edit is not made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing} {object}: {why}")]
pub struct IntentError {
    /// What was attempted.
    pub doing: &'static str,
    /// The object that holds the record.
    pub object: String,
    /// The cause.
    pub why: String,
}

/// Stores records so that they outlive this process.
#[tonic::async_trait]
pub trait IntentStore: Send + Sync {
    /// The claims of the rig that are held now.
    fn held_claims(&self) -> Vec<Claim>;
    /// The closes that are known to be done. The newest may be missing, so a close that is not here
    /// is looked up before it is made.
    fn done_closes(&self) -> Vec<Record>;
    /// Reads the records of the store.
    async fn intents(&self) -> Result<Intents, IntentError>;
    /// Changes the newest records of the store; returns the changed ones.
    async fn update_intents(
        &self,
        change: &(dyn for<'b> Fn(&'b mut Intents) + Sync),
    ) -> Result<Intents, IntentError>;
    /// Reads the state of the close for the MergeRequest of this uid.
    async fn close_intent(&self, request: &str) -> Result<Option<CloseIntent>, IntentError>;
    /// Replaces the state of a close. Fails where the state is not `before` any more, since another
    /// replica is writing it then.
    async fn replace_close_intent(
        &self,
        request: &str,
        before: Option<&CloseIntent>,
        after: Option<&CloseIntent>,
    ) -> Result<(), IntentError>;
}

/// Stores records on BeadStores and MergeRequests.
pub(crate) struct Annotations {
    pub client: Client,
    /// The BeadStore, from the cache.
    pub store: BeadStore,
    pub requests: Store<MergeRequest>,
    pub held: Vec<Claim>,
}

impl Annotations {
    fn error(&self, doing: &'static str, why: &dyn std::fmt::Display) -> IntentError {
        let object = format!(
            "BeadStore {}/{}",
            self.store.namespace().unwrap_or_default(),
            self.store.name_any()
        );
        IntentError { doing, object, why: why.to_string() }
    }

    /// Reads the BeadStore from the API server.
    async fn live(&self) -> Result<BeadStore, IntentError> {
        let api = Api::<BeadStore>::namespaced(
            self.client.clone(),
            &self.store.namespace().unwrap_or_default(),
        );
        let found = api
            .get(&self.store.name_any())
            .await
            .map_err(|error| self.error("reading the records on", &error))?;
        if found.uid() == self.store.uid() {
            Ok(found)
        } else {
            Err(self.error("reading the records on", &"it was deleted and created again"))
        }
    }

    /// Reads the MergeRequest of a uid from the API server.
    async fn request(&self, uid: &str) -> Result<(Api<MergeRequest>, MergeRequest), IntentError> {
        let doing = "reading the record on";
        let cached = self.requests.state_filter(|request| request.uid().as_deref() == Some(uid));
        let gone = || IntentError {
            doing,
            object: format!("the MergeRequest of uid {uid}"),
            why: "it does not exist any more".to_owned(),
        };
        let cached = cached.first().ok_or_else(gone)?;
        let api = Api::<MergeRequest>::namespaced(
            self.client.clone(),
            &cached.namespace().unwrap_or_default(),
        );
        let found = api.get(&cached.name_any()).await;
        let found = found.map_err(|error| IntentError {
            doing,
            object: named(cached),
            why: error.to_string(),
        })?;
        if found.uid().as_deref() == Some(uid) { Ok((api, found)) } else { Err(gone()) }
    }
}

fn named(request: &MergeRequest) -> String {
    format!("MergeRequest {}/{}", request.namespace().unwrap_or_default(), request.name_any())
}

/// The state of a close in a MergeRequest's annotation, without what only a later version knows; `None`
/// where it is not one.
fn close_intent_of(request: &MergeRequest) -> Option<CloseIntent> {
    serde_json::from_str(request.annotations().get(annotation::BEAD_CLOSED)?).ok()
}

/// An error and its causes, as one text.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tonic::async_trait]
impl IntentStore for Annotations {
    fn held_claims(&self) -> Vec<Claim> {
        self.held.clone()
    }

    fn done_closes(&self) -> Vec<Record> {
        let ours =
            self.requests.state_filter(|request| request.spec.rig_ref == self.store.spec.rig_ref);
        let done = |request: &MergeRequest| {
            let intent = close_intent_of(request).filter(CloseIntent::is_done)?;
            let (bead, request) = (intent.bead, request.uid()?);
            Some(if intent.left_open {
                Record::LeftOpen { bead, request }
            } else {
                Record::Closed { bead, request }
            })
        };
        ours.iter().filter_map(|request| done(request)).collect()
    }

    async fn intents(&self) -> Result<Intents, IntentError> {
        Ok(Intents::read(
            self.live().await?.annotations().get(annotation::BEADS_SERVED).map(String::as_str),
        ))
    }

    async fn update_intents(
        &self,
        change: &(dyn for<'b> Fn(&'b mut Intents) + Sync),
    ) -> Result<Intents, IntentError> {
        let doing = "writing the records on";
        let api = Api::<BeadStore>::namespaced(
            self.client.clone(),
            &self.store.namespace().unwrap_or_default(),
        );
        for _ in 0..TRIES {
            let store = self.live().await?;
            let mut intents = Intents::read(
                store.annotations().get(annotation::BEADS_SERVED).map(String::as_str),
            );
            change(&mut intents);
            let full = || {
                self.error(
                    doing,
                    &format!("an annotation cannot hold {} claims", intents.claims.len()),
                )
            };
            let text = intents.text().ok_or_else(full)?;
            match apply::annotate(
                &api,
                manager::BEAD_STORE,
                &store,
                &[(annotation::BEADS_SERVED, Some(&text))],
            )
            .await
            {
                Ok(_) => return Ok(intents),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(self.error(doing, &chain(&error))),
            }
        }
        Err(self.error(doing, &format!("others wrote to it first, {TRIES} times in a row")))
    }

    async fn close_intent(&self, request: &str) -> Result<Option<CloseIntent>, IntentError> {
        Ok(close_intent_of(&self.request(request).await?.1))
    }

    async fn replace_close_intent(
        &self,
        request: &str,
        before: Option<&CloseIntent>,
        after: Option<&CloseIntent>,
    ) -> Result<(), IntentError> {
        let doing = "writing the record on";
        let text = after.map(serde_json::to_string).transpose();
        let text = text.map_err(|error| IntentError {
            doing,
            object: request.to_owned(),
            why: error.to_string(),
        })?;
        for _ in 0..TRIES {
            let (api, present) = self.request(request).await?;
            let failed = |why: String| IntentError { doing, object: named(&present), why };
            if close_intent_of(&present).as_ref() != before {
                return Err(failed("another replica is writing it".to_owned()));
            }
            match apply::annotate(
                &api,
                manager::BEAD_STORE,
                &present,
                &[(annotation::BEAD_CLOSED, text.as_deref())],
            )
            .await
            {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(failed(chain(&error))),
            }
        }
        Err(IntentError {
            doing,
            object: request.to_owned(),
            why: format!("others wrote to it first, {TRIES} times in a row"),
        })
    }
}
