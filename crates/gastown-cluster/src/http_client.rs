//! Single HTTP requests to servers of ours on this machine, without TLS, redirects and a pool.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use axum::http::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// The largest response that is read, in bytes.
const MAX_RESPONSE: usize = 64 << 20;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// Sends one request and returns the body of the response. A status that is not a success is an error
/// that holds the body.
pub async fn send(method: Method, url: &str, body: Vec<u8>) -> Result<Vec<u8>> {
    let what = format!("{method} {url}");
    let sent = tokio::time::timeout(DEADLINE, exchange(method, url, body));
    sent.await
        .with_context(|| format!("{what}: no response within {} s", DEADLINE.as_secs()))?
        .context(what)
}

/// Reads a JSON document.
pub async fn get_json<T: DeserializeOwned>(url: &str) -> Result<T> {
    let body = send(Method::GET, url, Vec::new()).await?;
    serde_json::from_slice(&body).with_context(|| format!("{url}: not the expected JSON"))
}

async fn exchange(method: Method, url: &str, body: Vec<u8>) -> Result<Vec<u8>> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().context("the URL has no host")?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    let request =
        request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_RESPONSE).await?;
    connection.abort();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body.to_vec())
}
