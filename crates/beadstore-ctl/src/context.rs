//! What every part of the controller is given.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::{BeadStore, MergeRequest, Refinery, Rig};
use gastown_beads_http::{Client as BeadsClient, Options, Token};
use gastown_credentials::Named;
use gastown_escalations::Escalations;
use gastown_runtime::Runtime;
use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::desk::{Desks, Fault, Way};
use crate::folder::Lack;
use crate::gather;
use crate::keeper::Annotations;
use crate::place::{Place, Setting, Source, place};
use crate::served::{self, Line, READING};

/// How long one request to a server may take.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Context {
    pub runtime: Runtime,
    pub stores: Store<BeadStore>,
    pub rigs: Store<Rig>,
    pub refineries: Store<Refinery>,
    pub requests: Store<MergeRequest>,
    /// Claims, of the release namespace.
    pub claims: Store<Lease>,
    pub escalations: Arc<Escalations>,
    pub desks: Desks,
}

/// Why a pass over a BeadStore failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be asked.
    #[error("reading the credentials of bead store {name}")]
    Credentials {
        /// The BeadStore.
        name: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// A write to the API server failed.
    #[error("{doing} bead store {name}")]
    Apply {
        /// What was attempted.
        doing: &'static str,
        /// The BeadStore.
        name: String,
        /// Why not.
        #[source]
        source: apply::Error,
    },
    /// The store could not be read or written; it is in the status too.
    #[error("serving bead store {name}")]
    Store {
        /// The BeadStore.
        name: String,
        /// Why not.
        #[source]
        source: Fault,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Credentials { source, .. } => Class::of(source),
            Self::Apply { source, .. } => source.class(),
            Self::Store { source: Fault::Contended(_), .. } => Class::Conflict,
            Self::Store { source, .. } => Class::Retry { after: source.patience() },
        }
    }
}

/// Why there is nobody to be asked.
pub(crate) enum NoWay {
    /// For conditions.
    Told(Fault),
    /// The API server could not be asked.
    Kube(kube::Error),
}

/// The token in a Secret's value.
fn token_of(secret: Option<&str>, bytes: Option<Vec<u8>>) -> Result<Option<Token>, Fault> {
    let Some(bytes) = bytes else { return Ok(None) };
    Token::parse(&bytes).map(Some).map_err(|error| {
        let message = format!("key token of secret {}: {error}", secret.unwrap_or_default());
        Lack { reason: "BadCredentials", message }.into()
    })
}

impl From<gastown_credentials::Error> for NoWay {
    fn from(error: gastown_credentials::Error) -> Self {
        match error {
            gastown_credentials::Error::Condition(reason, message) => {
                Self::Told(Fault::Lack(Lack { reason, message }))
            }
            gastown_credentials::Error::Kube(error) => Self::Kube(error),
        }
    }
}

impl Context {
    /// What a BeadStore is to do.
    pub(crate) fn place(&self, store: &BeadStore) -> Place {
        let rig = self.rigs.get(&ObjectRef::<Rig>::new(&store.spec.rig_ref));
        place(
            store,
            &self.stores.state(),
            rig.as_deref(),
            &self.refineries.state(),
            &self.rigs.state(),
        )
    }

    /// The way to a store, with credentials that are read anew each time.
    pub(crate) async fn way(&self, store: &BeadStore, setting: &Setting) -> Result<Way, NoWay> {
        let namespace = store.namespace().unwrap_or_default();
        let named = Named {
            namespace: &namespace,
            secret: None,
            known_hosts: None,
            chart_value: "beadstore.secretNamespaces",
        };
        let client = &self.runtime.client;
        match &setting.source {
            Source::Git(repository) => {
                let secret = store.spec.git_secret_ref.as_ref().map(|r| r.name.as_str());
                let known_hosts =
                    store.spec.ssh_known_hosts_config_map_ref.as_ref().map(|r| r.name.as_str());
                let remote = gastown_credentials::remote(
                    client,
                    Named { secret, known_hosts, ..named },
                    &repository.url,
                )
                .await?;
                Ok(Way::Git(Box::new(repository.clone()), remote))
            }
            Source::Served(server) => {
                let secret = store
                    .spec
                    .http
                    .as_ref()
                    .and_then(|http| http.token_secret_ref.as_ref())
                    .map(|r| r.name.as_str());
                let token = gastown_credentials::token(client, Named { secret, ..named }).await?;
                let options = Options { deadline: DEADLINE, ..Options::default() };
                let client = token_of(secret, token).and_then(|token| {
                    let endpoint = server.endpoint.clone();
                    BeadsClient::new(endpoint, token, options)
                        .map_err(|error| served::fault(READING, &server.url, error))
                });
                let keeper = Arc::new(self.keeper(store, &setting.rig));
                Ok(Way::Served(Line {
                    server: server.clone(),
                    client: client.map_err(NoWay::Told)?,
                    keeper,
                }))
            }
        }
    }

    fn keeper(&self, store: &BeadStore, rig: &str) -> Annotations {
        let (client, requests) = (self.runtime.client.clone(), self.requests.clone());
        Annotations {
            client,
            store: store.clone(),
            requests,
            held: gather::wanted(self, rig).claims,
        }
    }

    /// The stores that the beads of a rig may be in.
    pub(crate) fn of_rig(stores: &Store<BeadStore>, rig: &str) -> Vec<ObjectRef<BeadStore>> {
        stores
            .state()
            .iter()
            .filter(|store| store.spec.rig_ref == rig)
            .map(|store: &Arc<BeadStore>| ObjectRef::from_obj(store.as_ref()))
            .collect()
    }
}
