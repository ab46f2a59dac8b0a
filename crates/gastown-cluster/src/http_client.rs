//! One HTTP request to a server of ours on this machine: no TLS, no redirects, no pool.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use axum::http::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Sends one request and returns the answer's body; an answer that is no success is an error that
/// holds what it said.
pub async fn send(method: Method, url: &str, body: Vec<u8>) -> Result<Vec<u8>> {
    let what = format!("{method} {url}");
    let asked = tokio::time::timeout(DEADLINE, exchange(method, url, body));
    asked
        .await
        .with_context(|| format!("{what}: no answer in {} s", DEADLINE.as_secs()))?
        .context(what)
}

/// Asks for a JSON document.
pub async fn get_json<T: DeserializeOwned>(url: &str) -> Result<T> {
    let body = send(Method::GET, url, Vec::new()).await?;
    serde_json::from_slice(&body).with_context(|| format!("{url}: not the expected JSON"))
}

async fn exchange(method: Method, url: &str, body: Vec<u8>) -> Result<Vec<u8>> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().context("no host in the URL")?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    let request =
        request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await?;
    connection.abort();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body.to_vec())
}
