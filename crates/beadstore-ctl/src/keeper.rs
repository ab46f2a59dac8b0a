//! Where records of a server's store are kept: annotations of ours, each written by
//! compare-and-swap.

use gastown_api::names::{annotation, manager};
use gastown_api::{BeadStore, MergeRequest};
use gastown_runtime::apply;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt as _};

use crate::ledger::Record;
use crate::plan::Claim;
use crate::records::{Book, Closing};

/// How often a record is written against writes of others to its object.
const TRIES: u32 = 5;

/// Why a record could not be read or kept. Without its record nothing is written into the store.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing} {object}: {why}")]
pub struct Unkept {
    /// What was attempted.
    pub doing: &'static str,
    /// The object that it is on.
    pub object: String,
    /// Why not.
    pub why: String,
}

/// Keeps records over any loss of memory.
#[tonic::async_trait]
pub trait Keeper: Send + Sync {
    /// The claims that are held now.
    fn held(&self) -> Vec<Claim>;
    /// The closes that are known to be done; the newest may still be missing, so one that is not
    /// here is asked for.
    fn closed(&self) -> Vec<Record>;
    /// What is remembered of the store.
    async fn book(&self) -> Result<Book, Unkept>;
    /// Changes what is remembered of the store, on what it is now.
    async fn keep_book(
        &self,
        change: &(dyn for<'b> Fn(&'b mut Book) + Sync),
    ) -> Result<Book, Unkept>;
    /// How far the close for a request is.
    async fn closing(&self, request: &str) -> Result<Option<Closing>, Unkept>;
    /// Says how far it is now; refused where it is no longer as it was `before`, since then
    /// somebody else is at it.
    async fn keep_closing(
        &self,
        request: &str,
        before: Option<&Closing>,
        after: Option<&Closing>,
    ) -> Result<(), Unkept>;
}

/// Keeps records on BeadStores and MergeRequests.
pub(crate) struct Annotations {
    pub client: Client,
    /// As the cache shows it.
    pub store: BeadStore,
    pub requests: Store<MergeRequest>,
    pub held: Vec<Claim>,
}

impl Annotations {
    fn unkept(&self, doing: &'static str, why: &dyn std::fmt::Display) -> Unkept {
        let object = format!(
            "BeadStore {}/{}",
            self.store.namespace().unwrap_or_default(),
            self.store.name_any()
        );
        Unkept { doing, object, why: why.to_string() }
    }

    /// The store as it is now.
    async fn live(&self) -> Result<BeadStore, Unkept> {
        let api = Api::<BeadStore>::namespaced(
            self.client.clone(),
            &self.store.namespace().unwrap_or_default(),
        );
        let found = api
            .get(&self.store.name_any())
            .await
            .map_err(|error| self.unkept("reading the records on", &error))?;
        if found.uid() == self.store.uid() {
            Ok(found)
        } else {
            Err(self.unkept("reading the records on", &"it is another one by now"))
        }
    }

    /// The request of a uid as it is now.
    async fn request(&self, uid: &str) -> Result<(Api<MergeRequest>, MergeRequest), Unkept> {
        let doing = "reading the record on";
        let cached = self.requests.state_filter(|request| request.uid().as_deref() == Some(uid));
        let gone = || Unkept {
            doing,
            object: format!("the MergeRequest of uid {uid}"),
            why: "it is gone".to_owned(),
        };
        let cached = cached.first().ok_or_else(gone)?;
        let api = Api::<MergeRequest>::namespaced(
            self.client.clone(),
            &cached.namespace().unwrap_or_default(),
        );
        let found = api.get(&cached.name_any()).await;
        let found = found.map_err(|error| Unkept {
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

/// How far the close of a request's bead is, as its annotation says; another version's is none.
fn closing_of(request: &MergeRequest) -> Option<Closing> {
    serde_json::from_str(request.annotations().get(annotation::BEAD_CLOSED)?).ok()
}

/// The whole of an error, cause by cause.
fn words(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tonic::async_trait]
impl Keeper for Annotations {
    fn held(&self) -> Vec<Claim> {
        self.held.clone()
    }

    fn closed(&self) -> Vec<Record> {
        let ours =
            self.requests.state_filter(|request| request.spec.rig_ref == self.store.spec.rig_ref);
        let done = |request: &MergeRequest| {
            let closing = closing_of(request).filter(Closing::is_done)?;
            Some(Record::Closed { bead: closing.bead, request: request.uid()? })
        };
        ours.iter().filter_map(|request| done(request)).collect()
    }

    async fn book(&self) -> Result<Book, Unkept> {
        Ok(Book::read(
            self.live().await?.annotations().get(annotation::BEADS_SERVED).map(String::as_str),
        ))
    }

    async fn keep_book(
        &self,
        change: &(dyn for<'b> Fn(&'b mut Book) + Sync),
    ) -> Result<Book, Unkept> {
        let doing = "writing the records on";
        let api = Api::<BeadStore>::namespaced(
            self.client.clone(),
            &self.store.namespace().unwrap_or_default(),
        );
        for _ in 0..TRIES {
            let store = self.live().await?;
            let mut book =
                Book::read(store.annotations().get(annotation::BEADS_SERVED).map(String::as_str));
            change(&mut book);
            let full = || {
                self.unkept(
                    doing,
                    &format!("{} claims are more than an annotation holds", book.claims.len()),
                )
            };
            let text = book.text().ok_or_else(full)?;
            match apply::annotate(
                &api,
                manager::BEAD_STORE,
                &store,
                &[(annotation::BEADS_SERVED, Some(&text))],
            )
            .await
            {
                Ok(_) => return Ok(book),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(self.unkept(doing, &words(&error))),
            }
        }
        Err(self.unkept(doing, &format!("others wrote to it first, {TRIES} times in a row")))
    }

    async fn closing(&self, request: &str) -> Result<Option<Closing>, Unkept> {
        Ok(closing_of(&self.request(request).await?.1))
    }

    async fn keep_closing(
        &self,
        request: &str,
        before: Option<&Closing>,
        after: Option<&Closing>,
    ) -> Result<(), Unkept> {
        let doing = "writing the record on";
        let text = after.map(serde_json::to_string).transpose();
        let text = text.map_err(|error| Unkept {
            doing,
            object: request.to_owned(),
            why: error.to_string(),
        })?;
        for _ in 0..TRIES {
            let (api, present) = self.request(request).await?;
            let unkept = |why: String| Unkept { doing, object: named(&present), why };
            if closing_of(&present).as_ref() != before {
                return Err(unkept("another replica is at it".to_owned()));
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
                Err(error) => return Err(unkept(words(&error))),
            }
        }
        Err(Unkept {
            doing,
            object: request.to_owned(),
            why: format!("others wrote to it first, {TRIES} times in a row"),
        })
    }
}
