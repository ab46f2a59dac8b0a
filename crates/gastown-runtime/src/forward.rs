//! Requests that another replica answers: one that does not work for the rig sends them on, for clients
//! that know a single address, such as git.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::shards::Shards;

/// Marks a request that was sent on: it is not sent on again.
const FORWARDED: HeaderName = HeaderName::from_static("gastown-forwarded");
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What belongs to one connection, and not to the request or its answer.
const OF_A_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// The way to the replica that works for a rig.
#[derive(Clone, Debug)]
pub struct Forward {
    shards: Shards,
    ca: PathBuf,
    name: ServerName<'static>,
    port: u16,
}

/// Why a request cannot be sent on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading the CA's certificate {0}")]
    Ca(PathBuf, #[source] rustls_pki_types::pem::Error),
    #[error("using the CA's certificate")]
    Roots(#[source] rustls::Error),
    #[error("connecting to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("{0} does not answer")]
    Timeout(SocketAddr),
    #[error("asking {0}")]
    Http(SocketAddr, #[source] hyper::Error),
}

impl Forward {
    /// All replicas serve at this port, with a certificate for `name` by the CA in `tls_dir`.
    pub fn new(shards: Shards, tls_dir: &Path, name: ServerName<'static>, port: u16) -> Self {
        Self { shards, ca: tls_dir.join("ca.crt"), name, port }
    }

    /// The answer of the replica that works for this rig, or 503; the request itself when that is this
    /// one.
    pub async fn or_here(
        &self,
        rig: &str,
        request: Request<Body>,
    ) -> Result<Request<Body>, Response<Body>> {
        if self.shards.held(rig).is_some() {
            return Ok(request);
        }
        let unavailable = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
        let (_, to) = self.shards.other(rig);
        let Some(to) = to.filter(|_| !request.headers().contains_key(FORWARDED)) else {
            let why = "this replica does not serve, and does not know which one does";
            return Err(unavailable(why.to_owned()));
        };
        Err(match self.send(to, request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a request could not be sent to the replica that serves"
                );
                unavailable(format!("the replica that serves cannot be asked: {error}"))
            }
        })
    }

    async fn send(&self, to: IpAddr, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        let to = SocketAddr::new(to, self.port);
        let connector = TlsConnector::from(Arc::new(self.trust()?));
        let connect = async {
            let stream = TcpStream::connect(to).await?;
            connector.connect(self.name.clone(), stream).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| Error::Timeout(to))?
            .map_err(|error| Error::Connect(to, error))?;
        let http = |error| Error::Http(to, error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // It ends with the answer.
        tokio::spawn(connection);
        strip(request.headers_mut());
        request.headers_mut().insert(FORWARDED, HeaderValue::from_static("1"));
        let mut answer = sender.send_request(request).await.map_err(http)?;
        strip(answer.headers_mut());
        Ok(answer.map(Body::new))
    }

    /// Trust in nobody but our CA.
    fn trust(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        let file = |error| Error::Ca(self.ca.clone(), error);
        for certificate in CertificateDer::pem_file_iter(&self.ca).map_err(file)? {
            roots.add(certificate.map_err(file)?).map_err(Error::Roots)?;
        }
        Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
}
