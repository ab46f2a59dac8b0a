//! Connections to stores, with credentials that are read again each time.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::BeadStore;
use gastown_beads_http::{Client as BeadsClient, Options, Token};
use gastown_credentials::Named;
use gastown_git::Remote;
use kube::{Client, ResourceExt as _};

use crate::error::{Operation, StoreError};
use crate::git::folder::NotReadable;
use crate::http::intent_store::IntentStore;
use crate::http::read::HttpConnection;
use crate::validate::{Repository, Source, ValidBeadStore};

/// How long one request to a server may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection to a store, with the credentials that its Secret holds now.
pub enum Connection {
    /// To a repository.
    Git(Box<Repository>, Remote),
    /// To a server.
    Http(HttpConnection),
}

/// Why the store cannot be reached.
pub(crate) enum ConnectError {
    /// The credentials are missing or wrong, as the conditions show.
    Store(StoreError),
    /// The API server refused to give the credentials, or could not be reached.
    Kube(kube::Error),
}

impl From<gastown_credentials::Error> for ConnectError {
    fn from(error: gastown_credentials::Error) -> Self {
        match error {
            gastown_credentials::Error::Condition(reason, message) => {
                Self::Store(NotReadable { reason, message }.into())
            }
            gastown_credentials::Error::Kube(error) => Self::Kube(error),
        }
    }
}

/// A connection to a store; `intents` is where the records of edits at a server are kept.
pub(crate) async fn connect(
    client: &Client,
    store: &BeadStore,
    valid: &ValidBeadStore,
    intents: impl FnOnce() -> Arc<dyn IntentStore>,
) -> Result<Connection, ConnectError> {
    let namespace = store.namespace().unwrap_or_default();
    let named = Named {
        namespace: &namespace,
        secret: None,
        known_hosts: None,
        ca: None,
        chart_value: "beadstore.secretNamespaces",
    };
    match &valid.source {
        Source::Git(repository) => {
            let secret = store.spec.git_secret_ref.as_ref().map(|r| r.name.as_str());
            let known_hosts =
                store.spec.ssh_known_hosts_config_map_ref.as_ref().map(|r| r.name.as_str());
            let ca = store.spec.ca_config_map_ref.as_ref();
            let named = Named { secret, known_hosts, ca, ..named };
            let remote = gastown_credentials::remote(client, named, &repository.url).await?;
            Ok(Connection::Git(Box::new(repository.clone()), remote))
        }
        Source::Http(server) => {
            let http = store.spec.http.as_ref();
            let secret =
                http.and_then(|http| http.token_secret_ref.as_ref()).map(|r| r.name.as_str());
            let bytes = gastown_credentials::token(client, Named { secret, ..named }).await?;
            let token = token(secret, bytes).map_err(ConnectError::Store)?;
            let options = Options { deadline: DEADLINE, ..Options::default() };
            let client = BeadsClient::new(server.endpoint.clone(), token, options)
                .map_err(|error| StoreError::http(Operation::Read, &server.url, error))
                .map_err(ConnectError::Store)?;
            Ok(Connection::Http(HttpConnection {
                server: server.clone(),
                client,
                intents: intents(),
            }))
        }
    }
}

/// The token in a Secret's value.
fn token(secret: Option<&str>, bytes: Option<Vec<u8>>) -> Result<Option<Token>, StoreError> {
    let Some(bytes) = bytes else { return Ok(None) };
    Token::parse(&bytes).map(Some).map_err(|error| {
        let message = format!("key token of secret {}: {error}", secret.unwrap_or_default());
        NotReadable { reason: "BadCredentials", message }.into()
    })
}
