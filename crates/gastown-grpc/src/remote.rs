//! A connection to one of our servers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::bearer::Bearer;
use crate::holder::{Follow, Holder};

/// How long a lazy connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A channel whose requests carry our token and the trace context, and whose answers decide where
/// the next one goes.
pub type AuthChannel = InterceptedService<Follow, Bearer>;

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
/// when the connection is lost. Of several replicas the one is asked that works for the rig.
#[derive(Debug)]
pub struct Remote {
    uri: String,
    ca: Ca,
    bearer: Bearer,
    deadline: Duration,
    holder: Holder,
    /// The channels in use, by the replica at the other end.
    current: Mutex<HashMap<Option<IpAddr>, Current>>,
}

/// A channel, and what it was made of.
#[derive(Debug)]
struct Current {
    ca: Vec<u8>,
    channel: Channel,
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
        let (uri, holder, current) = (uri.to_owned(), Holder::default(), Mutex::default());
        Self { uri, ca, bearer, deadline, holder, current }
    }

    /// Shares with others what is known of the server's replicas.
    #[must_use]
    pub fn with_holder(mut self, holder: &Holder) -> Self {
        self.holder = holder.clone();
        self
    }

    /// The channel for requests about a rig, or about none (`""`). It is another one when the CA's
    /// certificate has changed, or another replica works for the rig. Cheap: ask for it before each
    /// request. Must be called in the async runtime.
    pub fn channel(&self, rig: &str) -> Result<AuthChannel, Error> {
        self.channel_to(rig, self.holder.address(rig))
    }

    /// The channel to the replica at this address, or to any.
    pub fn channel_at(&self, to: Option<IpAddr>) -> Result<AuthChannel, Error> {
        self.channel_to("", to)
    }

    fn channel_to(&self, rig: &str, to: Option<IpAddr>) -> Result<AuthChannel, Error> {
        let ca = self.certificate()?;
        let mut current = self.current.lock();
        let channel = match current.get(&to) {
            Some(same) if same.ca == ca => same.channel.clone(),
            _ => {
                // A replica that has gone needs no channel any more.
                current.retain(|at, _| at.is_none_or(|address| self.holder.knows(address)));
                let channel = self.endpoint(&ca, to, CONNECT_TIMEOUT)?.connect_lazy();
                current.insert(to, Current { ca, channel: channel.clone() });
                channel
            }
        };
        Ok(self.service(channel, rig, to))
    }

    fn service(&self, channel: Channel, rig: &str, to: Option<IpAddr>) -> AuthChannel {
        let follow = Follow::new(channel, rig, to, self.holder.clone());
        InterceptedService::new(follow, self.bearer.clone())
    }

    /// A new connection, made now within `timeout`: for a stream about a rig that lives as long as it.
    pub async fn connect(&self, rig: &str, timeout: Duration) -> Result<AuthChannel, Error> {
        let to = self.holder.address(rig);
        let endpoint = self.endpoint(&self.certificate()?, to, timeout)?;
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|error| {
            self.holder.failed(rig, to);
            Error::Connect(self.uri.clone(), error)
        })?;
        Ok(self.service(channel, rig, to))
    }

    fn certificate(&self) -> Result<Vec<u8>, Error> {
        match &self.ca {
            Ca::Text(text) => Ok(text.clone().into_bytes()),
            Ca::File(path) => std::fs::read(path).map_err(|error| Error::Ca(path.clone(), error)),
        }
    }

    /// A replica at an address proves that it is one by the server's name.
    fn endpoint(
        &self,
        ca: &[u8],
        to: Option<IpAddr>,
        connect_timeout: Duration,
    ) -> Result<Endpoint, Error> {
        let endpoint = || {
            let server = Endpoint::from_shared(self.uri.clone())?;
            let name = server.uri().host().unwrap_or_default().to_owned();
            let at = |address| {
                std::net::SocketAddr::new(address, server.uri().port_u16().unwrap_or(443))
            };
            let replica =
                to.map(|address| Endpoint::from_shared(format!("https://{}", at(address))));
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            replica
                .transpose()?
                .unwrap_or(server)
                .timeout(self.deadline)
                .connect_timeout(connect_timeout)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .tls_config(tls.domain_name(name))
        };
        endpoint().map_err(|error| Error::Endpoint(self.uri.clone(), error))
    }
}
