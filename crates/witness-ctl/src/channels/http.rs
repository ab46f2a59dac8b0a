//! Webhooks: one POST of JSON, no redirects. A URL is a secret and appears in no message.

use std::time::Duration;

use bytes::Bytes;
use gastown_core::escalation::Outcome;
use gastown_types::text;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::channels::notification::Notification;

const DEADLINE: Duration = Duration::from_secs(10);
/// The longest text that Slack shows, in characters.
const MAX_TEXT: usize = 3000;

pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub fn new() -> anyhow::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    pub async fn post(&self, url: &str, id: &str, body: &Value) -> Outcome {
        let failed = |why: String| Outcome::Failed { why, after: None };
        let Ok(uri) = url.parse::<Uri>() else {
            return failed("the value in the secret is not a URL".to_owned());
        };
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
        {
            return failed("the URL in the secret is not http:// or https://".to_owned());
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("gastown-operator/", env!("CARGO_PKG_VERSION")))
            .header("Idempotency-Key", id)
            .body(Full::new(Bytes::from(body.to_string())));
        let request = match request {
            Ok(request) => request,
            Err(error) => return failed(format!("the request cannot be made: {error}")),
        };
        let response = match tokio::time::timeout(DEADLINE, self.0.request(request)).await {
            Err(_) => return failed(format!("the server did not answer within {DEADLINE:?}")),
            Ok(Err(error)) => return failed(cause(&error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Outcome::Sent;
        }
        let after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.trim().parse::<u32>().ok());
        let is_busy =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let after = after.filter(|_| is_busy).map(|s| SignedDuration::from_secs(i64::from(s)));
        Outcome::Failed { why: format!("the server answered {status}"), after }
    }
}

/// The innermost cause: the outer ones add only that a connection failed.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    format!("the server cannot be reached: {inner}")
}

/// The body for an incoming webhook of Slack. Its three special characters are escaped, so that no
/// text mentions anybody.
pub(super) fn slack(notification: &Notification) -> Value {
    let text = format!("*{}*\n{}", notification.headline(), notification.text());
    let text = text::block(&text, MAX_TEXT);
    json!({ "text": text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;") })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use parking_lot::Mutex;

    use super::*;
    use crate::channels::notification::notification;

    type Got = Arc<Mutex<Vec<(String, Value)>>>;

    async fn server() -> (String, Got) {
        async fn take(
            State(got): State<Got>,
            headers: HeaderMap,
            axum::Json(body): axum::Json<Value>,
        ) -> &'static str {
            let id = headers
                .get("idempotency-key")
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            got.lock().push((id, body));
            "ok"
        }
        let got = Got::default();
        let busy = || async {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "90")], "later").into_response()
        };
        let moved = || async { (StatusCode::FOUND, [("location", "/take")], "").into_response() };
        let router = Router::new()
            .route("/take", post(take))
            .route("/busy", post(busy))
            .route("/moved", post(moved))
            .with_state(got.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, got)
    }

    #[tokio::test]
    async fn a_webhook_gets_json_and_slack_gets_harmless_text() {
        let (url, got) = server().await;
        let (client, notification) = (HttpClient::new().unwrap(), notification());
        assert_eq!(
            client.post(&format!("{url}/take"), &notification.id(), &json!(notification)).await,
            Outcome::Sent
        );
        assert_eq!(
            client.post(&format!("{url}/take"), &notification.id(), &slack(&notification)).await,
            Outcome::Sent
        );
        let got = got.lock().clone();
        let (id, body) = &got[0];
        assert_eq!(id, "uid-1-high");
        assert_eq!(
            (&body["severity"], &body["raises"], &body["relatedObject"]["name"]),
            (&json!("high"), &json!(2), &json!("toast"))
        );
        let text = got[1].1["text"].as_str().unwrap();
        assert!(text.starts_with("*[high] web: Toast &lt;gave&gt; up &amp; left."), "{text}");
        assert!(text.contains("kubectl -n work describe escalation esc-1"), "{text}");
    }

    #[tokio::test]
    async fn a_refusal_has_its_status_and_wait_and_no_redirect_is_followed() {
        let (url, got) = server().await;
        let client = HttpClient::new().unwrap();
        let busy = client.post(&format!("{url}/busy"), "id", &json!({})).await;
        let why = "the server answered 429 Too Many Requests".to_owned();
        assert_eq!(busy, Outcome::Failed { why, after: Some(SignedDuration::from_secs(90)) });
        assert!(matches!(
            client.post(&format!("{url}/moved"), "id", &json!({})).await,
            Outcome::Failed { after: None, .. }
        ));
        assert!(got.lock().is_empty());
    }

    #[tokio::test]
    async fn no_message_contains_the_url() {
        // Bound and dropped: nothing listens on it.
        let port = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let client = HttpClient::new().unwrap();
        let dead = format!("http://127.0.0.1:{port}/T0KEN");
        for url in [
            dead.as_str(),
            "ftp://example.com/T0KEN",
            "file:///etc/T0KEN",
            "T0KEN",
            "http:///T0KEN",
            "",
        ] {
            let Outcome::Failed { why, after: None } = client.post(url, "id", &json!({})).await
            else {
                panic!("{url}")
            };
            assert!(!why.contains("T0KEN"), "{why}");
        }
    }
}
