//! An HTTPS server for an axum router.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::tls::{self, Connection, Tls};

struct Accepted {
    connections: mpsc::Receiver<io::Result<Connection>>,
    local: SocketAddr,
}

impl Listener for Accepted {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.connections.recv().await {
                Some(Ok(connection)) => {
                    let peer = connection.peer;
                    return (connection, peer);
                }
                Some(Err(_)) => {}
                // No more connections; the server ends by its drain.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// Serves until `drain` is cancelled and running responses have ended.
pub async fn serve(
    listener: TcpListener,
    tls: &Tls,
    router: Router,
    drain: CancellationToken,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    let connections = tls::accept(listener, tls, &[b"http/1.1"], drain.clone());
    axum::serve(Accepted { connections, local }, router)
        .with_graceful_shutdown(drain.cancelled_owned())
        .await
}

#[cfg(test)]
#[path = "https_tests.rs"]
mod tests;
