//! A connection to one of our servers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::bearer::Bearer;

/// How long a lazy connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A channel whose requests carry our token and the trace context.
pub type AuthChannel = InterceptedService<Channel, Bearer>;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA's certificate cannot be read.
    #[error("reading {0}")]
    Ca(PathBuf, #[source] std::io::Error),
    /// The address is not valid, or the CA's certificate is not.
    #[error("preparing requests to {0}")]
    Endpoint(String, #[source] tonic::transport::Error),
    /// The server cannot be reached.
    #[error("connecting to {0}")]
    Connect(String, #[source] tonic::transport::Error),
}

/// Where the CA's certificate is, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// In this text.
    Text(String),
    /// In a file, which is read again for each channel.
    File(PathBuf),
}

/// One of our servers. It need not run yet: a channel connects when a request is made, and again
/// when the connection is lost.
#[derive(Debug)]
pub struct Remote {
    uri: String,
    ca: Ca,
    bearer: Bearer,
    deadline: Duration,
    current: Mutex<Option<(Vec<u8>, Channel)>>,
}

impl Remote {
    /// A server at `uri`, `https://host:port`; the host must be a name in the server's certificate.
    /// The CA's certificate is `ca.crt` in `tls_dir`; for `token_file` see [`Bearer::new`]. Each
    /// attempt of a request ends within `deadline`.
    pub fn new(uri: &str, tls_dir: &Path, token_file: &Path, deadline: Duration) -> Self {
        Self::with_ca(uri, Ca::File(tls_dir.join("ca.crt")), token_file, deadline)
    }

    /// Like [`Remote::new`], with a CA's certificate from anywhere.
    pub fn with_ca(uri: &str, ca: Ca, token_file: &Path, deadline: Duration) -> Self {
        let bearer = Bearer::new(token_file);
        Self { uri: uri.to_owned(), ca, bearer, deadline, current: Mutex::default() }
    }

    /// The channel, which is replaced when the CA's certificate has changed. Cheap: ask for it
    /// before each request. Must be called in the async runtime.
    pub fn channel(&self) -> Result<AuthChannel, Error> {
        let ca = self.certificate()?;
        let mut current = self.current.lock();
        let channel = match current.as_ref() {
            Some((same, channel)) if *same == ca => channel.clone(),
            _ => {
                let channel = self.endpoint(&ca, CONNECT_TIMEOUT)?.connect_lazy();
                *current = Some((ca, channel.clone()));
                channel
            }
        };
        Ok(InterceptedService::new(channel, self.bearer.clone()))
    }

    /// A new connection, made now within `timeout`: for a stream that lives as long as it.
    pub async fn connect(&self, timeout: Duration) -> Result<AuthChannel, Error> {
        let endpoint = self.endpoint(&self.certificate()?, timeout)?;
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|error| Error::Connect(self.uri.clone(), error))?;
        Ok(InterceptedService::new(channel, self.bearer.clone()))
    }

    fn certificate(&self) -> Result<Vec<u8>, Error> {
        match &self.ca {
            Ca::Text(text) => Ok(text.clone().into_bytes()),
            Ca::File(path) => std::fs::read(path).map_err(|error| Error::Ca(path.clone(), error)),
        }
    }

    fn endpoint(&self, ca: &[u8], connect_timeout: Duration) -> Result<Endpoint, Error> {
        let endpoint = || {
            Endpoint::from_shared(self.uri.clone())?
                .timeout(self.deadline)
                .connect_timeout(connect_timeout)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
        };
        endpoint().map_err(|error| Error::Endpoint(self.uri.clone(), error))
    }
}
