//! A server that accepts connections and never answers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// It listens at every IPv4 address of this machine's loopback.
#[derive(Debug)]
pub struct BlackHole {
    port: u16,
    open: watch::Receiver<usize>,
    _accepting: AbortOnDropHandle<()>,
}

impl BlackHole {
    /// Starts it; it ends when it is dropped.
    pub async fn listen() -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let port = listener.local_addr()?.port();
        let (count, open) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut held = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => drop(held.spawn(until_closed(stream))),
                    Some(_) = held.join_next() => {}
                }
                count.send_replace(held.len());
            }
        });
        Ok(Self { port, open, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Host and port of a neighbour of its own, for `n` from 1 to 254.
    pub fn authority(&self, n: usize) -> String {
        format!("127.0.1.{n}:{}", self.port)
    }

    /// Waits until so many connections are open at one time.
    pub async fn connections(&self, wanted: usize, within: Duration) -> Result<()> {
        let mut open = self.open.clone();
        let reached = open.wait_for(|open| *open >= wanted);
        let ended = tokio::time::timeout(within, reached).await;
        let ended = ended.with_context(|| {
            format!("{} open connections, not {wanted}: some wait for others", *self.open.borrow())
        })?;
        ended.context("the server has ended")?;
        Ok(())
    }
}

/// Takes what comes, until the other side has given up.
async fn until_closed(mut stream: TcpStream) {
    let mut received = [0; 1024];
    while stream.read(&mut received).await.is_ok_and(|bytes| bytes > 0) {}
}
