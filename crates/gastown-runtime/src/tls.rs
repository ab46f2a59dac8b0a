//! The server's certificate, read again when its files change, and TLS connections.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How often the files are read again.
const RELOAD_EVERY: Duration = Duration::from_secs(30);
/// A client that has not finished its handshake after this time is disconnected.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many handshakes run at a time.
const MAX_HANDSHAKES: usize = 64;

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file is not valid PEM of its kind.
    #[error("reading PEM from {0}")]
    Pem(PathBuf, #[source] rustls_pki_types::pem::Error),
    /// The key does not belong to the certificate, or is of an unsupported kind.
    #[error("using the certificate in {0}")]
    Use(PathBuf, #[source] rustls::Error),
}

/// The certificate of `tls.crt` and `tls.key` in a folder.
#[derive(Clone, Debug)]
pub struct Tls {
    resolver: Arc<Resolver>,
}

#[derive(Debug)]
struct Resolver {
    folder: PathBuf,
    /// The files' content, and the certificate made from it.
    current: RwLock<(Vec<u8>, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().1.clone())
    }
}

impl Tls {
    /// Reads the folder, and again every 30 s until `stop` is cancelled. When the files become
    /// unreadable or invalid, that is logged and the last good certificate stays.
    pub fn load(folder: &Path, stop: CancellationToken) -> Result<Self, Error> {
        let resolver =
            Arc::new(Resolver { folder: folder.to_owned(), current: RwLock::new(read(folder)?) });
        let watched = resolver.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(RELOAD_EVERY) => {}
                    () = stop.cancelled() => return,
                }
                watched.reload();
            }
        });
        Ok(Self { resolver })
    }

    /// When the certificate ends, in seconds since 1970; none where that cannot be read from it.
    pub fn expiry(&self) -> Option<i64> {
        let current = self.resolver.current.read().1.clone();
        let (_, certificate) = x509_parser::parse_x509_certificate(current.cert.first()?).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }

    /// Reads the folder now.
    pub fn reload(&self) {
        self.resolver.reload();
    }

    fn acceptor(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Resolver {
    fn reload(&self) {
        match read(&self.folder) {
            Ok(fresh) => {
                if self.current.read().0 != fresh.0 {
                    *self.current.write() = fresh;
                    tracing::info!(folder = %self.folder.display(), "the server's certificate has changed");
                }
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the server's certificate could not be reloaded"
            ),
        }
    }
}

fn read(folder: &Path) -> Result<(Vec<u8>, Arc<CertifiedKey>), Error> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path)
            .map(|bytes| (path.clone(), bytes))
            .map_err(|error| Error::Read(path, error))
    };
    let (chain_path, chain) = file("tls.crt")?;
    let (key_path, key) = file("tls.key")?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let certificates = certificates.map_err(|error| Error::Pem(chain_path, error))?;
    let private =
        PrivateKeyDer::from_pem_slice(&key).map_err(|error| Error::Pem(key_path, error))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(certificates, private, &provider)
        .map_err(|error| Error::Use(folder.to_owned(), error))?;
    let both = [chain, key].concat();
    Ok((both, Arc::new(certified)))
}

/// An accepted TLS connection.
#[derive(Debug)]
pub struct Connection {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    /// The client's address.
    pub peer: SocketAddr,
}

/// Accepts connections until `stop` is cancelled; handshakes run in parallel. `protocols` are
/// offered by ALPN.
pub fn accept(
    listener: TcpListener,
    tls: &Tls,
    protocols: &[&[u8]],
    stop: CancellationToken,
) -> mpsc::Receiver<io::Result<Connection>> {
    let acceptor = tls.acceptor(protocols);
    let (ready, accepted) = mpsc::channel(MAX_HANDSHAKES);
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let (slot, incoming) = tokio::select! {
                () = stop.cancelled() => return,
                () = ready.closed() => return,
                incoming = async { (slots.clone().acquire_owned().await, listener.accept().await) } => incoming,
            };
            let (stream, peer) = match incoming {
                Ok(incoming) => incoming,
                Err(error) => {
                    // Most likely no descriptors are left until some connections close.
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a connection could not be accepted"
                    );
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                let _slot = slot;
                let _ = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => drop(ready.send(Ok(Connection { stream, peer })).await),
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "a TLS handshake failed");
                    }
                    Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                }
            });
        }
    });
    accepted
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}
