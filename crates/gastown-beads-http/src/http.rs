//! Sends one request at a time: no redirects, no proxies, no pool, and a bound on everything.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gastown_types::text;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::token::Token;
use crate::wire::{Code, MAX_TEXT, Problem};

/// The header with the id of the project that a request is for.
const PROJECT: &str = "bd-project-id";

/// The longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// Bounds of requests and answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long one request may take, from the connection to the last byte.
    pub deadline: Duration,
    /// The largest answer that is read, in bytes.
    pub max_answer: usize,
    /// The largest store that is read, in bytes of all its answers.
    pub max_store: usize,
    /// The most issues that are read.
    pub max_issues: usize,
    /// How many issues one page of the list holds.
    pub page: usize,
    /// The certificates to trust over https; those of the host where absent.
    pub trust: Option<Arc<rustls::RootCertStore>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            max_answer: 32 << 20,
            max_store: 256 << 20,
            max_issues: 200_000,
            page: 500,
            trust: None,
        }
    }
}

/// Sends requests to one server.
pub(crate) struct Transport {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: Options,
    token: Option<Token>,
    tls: Option<TlsConnector>,
}

/// One request.
pub(crate) struct Call<'a> {
    /// The operation, for messages.
    pub(crate) operation: &'static str,
    /// The path relative to `/v0/beads/`, encoded.
    pub(crate) path: &'a str,
    /// The body of a POST; absent for a GET.
    pub(crate) body: Option<Vec<u8>>,
    /// The id of the project that the request is for; absent before it is known.
    pub(crate) project: Option<&'a str>,
}

/// An answer with status 400, 404, 409 or 410, with its problem document where it has one.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) problem: Box<Problem>,
}

/// A complete answer.
struct Answer {
    status: StatusCode,
    wait: Option<Duration>,
    body: Bytes,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Transport {
    pub(crate) fn new(
        endpoint: Endpoint,
        token: Option<Token>,
        options: Options,
    ) -> Result<Self, Error> {
        let tls = if endpoint.is_secure() { Some(connector(options.trust.clone())?) } else { None };
        Ok(Self { endpoint, options, token, tls })
    }

    /// Sends a request once. The outer error concerns the connection, the server or the token; the
    /// inner one is the server's refusal of this request.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
    ) -> Result<Result<T, Refusal>, Error> {
        self.send_sized(call).await.map(|result| result.map(|(answer, _)| answer))
    }

    /// Sends a request once, and returns the size of the answer in bytes too.
    pub(crate) async fn send_sized<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
    ) -> Result<Result<(T, usize), Refusal>, Error> {
        let operation = call.operation;
        let answer = self.exchange(call).await?;
        tracing::trace!(
            operation,
            status = answer.status.as_u16(),
            bytes = answer.body.len(),
            "answered"
        );
        if answer.status.is_success() {
            let not_beads = |why: &str| Error::NotBeads { operation, why: self.clean(why) };
            // serde would read a list of the right length as the members of an answer, in order.
            if !answer.body.trim_ascii_start().starts_with(b"{") {
                return Err(not_beads("not a JSON object"));
            }
            let read = serde_json::from_slice(&answer.body)
                .map_err(|error| not_beads(&error.to_string()))?;
            return Ok(Ok((read, answer.body.len())));
        }
        let problem = self.problem(&answer.body);
        let code = Code::new(&problem.code);
        let status = answer.status.as_u16();
        match status {
            400 | 404 | 409 | 410 => {
                Ok(Err(Refusal { status: answer.status, problem: Box::new(problem) }))
            }
            300..400 => Err(Error::Redirected { operation, status }),
            401 => Err(Error::Unauthenticated { operation }),
            403 => Err(Error::Forbidden { operation }),
            429 | 503 => Err(Error::Unavailable { operation, code, retry_after: answer.wait }),
            402..500 => Err(Error::Refused {
                operation,
                code,
                param: problem.param,
                detail: problem.detail,
            }),
            _ => Err(Error::Server { operation, status, code }),
        }
    }

    /// The problem document of an answer, its texts cleaned for messages; an empty one where there is
    /// none.
    fn problem(&self, body: &[u8]) -> Problem {
        let mut problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        for text in [&mut problem.code, &mut problem.reason, &mut problem.detail] {
            *text = self.clean(text);
        }
        for text in [
            &mut problem.param,
            &mut problem.assignee,
            &mut problem.issue_status,
            &mut problem.server_project_id,
        ] {
            *text = text.take().map(|text| self.clean(&text));
        }
        problem
    }

    /// A text of the server, without the token and fit for a message.
    fn clean(&self, words: &str) -> String {
        let scrubbed =
            self.token.as_ref().map_or_else(|| words.to_owned(), |token| token.scrub(words));
        text::line(&scrubbed, MAX_TEXT)
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Answer, Error> {
        let operation = call.operation;
        let lost = |why: String| Error::AnswerLost { operation, why };
        let request = self.request(call)?;
        let until = Instant::now() + self.options.deadline;
        let late = || format!("no answer in {} s", self.options.deadline.as_secs_f32());
        let stream = self.connect(until).await?;
        let work = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| lost(error.to_string()))?;
            // The connection ends with this function, however it ends.
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let answer =
                sender.send_request(request).await.map_err(|error| lost(error.to_string()))?;
            let (parts, body) = answer.into_parts();
            let limit = self.options.max_answer;
            let body = Limited::new(body, limit).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Error::TooLarge { operation, limit }
                } else {
                    lost(error.to_string())
                }
            })?;
            let wait = retry_after(&parts.headers, Timestamp::now());
            Ok(Answer { status: parts.status, wait, body: body.to_bytes() })
        };
        within(until, work).await.unwrap_or_else(|| Err(lost(late())))
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>, Error> {
        let unusable = |error: hyper::http::Error| Error::NotBeads {
            operation: call.operation,
            why: error.to_string(),
        };
        let mut request = Request::builder()
            .method(if call.body.is_some() { Method::POST } else { Method::GET })
            .uri(self.endpoint.target(call.path))
            .header(header::HOST, self.endpoint.authority())
            .header(header::ACCEPT, "application/json, application/problem+json")
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, concat!("gastown-operator/", env!("CARGO_PKG_VERSION")));
        if let Some(project) = call.project {
            request = request.header(PROJECT, project);
        }
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::try_from(token.header()).map_err(|error| unusable(error.into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(call.body.unwrap_or_default().into())).map_err(unusable)
    }

    async fn connect(&self, until: Instant) -> Result<Box<dyn Stream>, Error> {
        let unreachable =
            |why: String| Error::Unreachable { endpoint: self.endpoint.to_string(), why };
        let (host, port) = self.endpoint.address();
        let work = async {
            let stream = TcpStream::connect((host.as_str(), port))
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            // Requests are small and each waits for its answer; without this the kernel may hold
            // the last of them back.
            stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            let Some(tls) = &self.tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            let name = ServerName::try_from(host.clone())
                .map_err(|error| unreachable(error.to_string()))?;
            let stream =
                tls.connect(name, stream).await.map_err(|error| unreachable(error.to_string()))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        within(until, work)
            .await
            .unwrap_or_else(|| Err(unreachable("no connection in time".to_owned())))
    }
}

impl Refusal {
    /// The error for a refusal that the operation itself does not handle; `expected` is the project
    /// of the request.
    pub(crate) fn error(self, operation: &'static str, expected: &str) -> Error {
        let Self { status, problem } = self;
        let code = Code::new(&problem.code);
        match status {
            StatusCode::BAD_REQUEST
                if [problem.reason.as_str(), problem.code.as_str()]
                    .contains(&"project_mismatch") =>
            {
                Error::WrongProject {
                    expected: expected.to_owned(),
                    found: problem.server_project_id.unwrap_or_default(),
                }
            }
            StatusCode::BAD_REQUEST => {
                Error::Refused { operation, code, param: problem.param, detail: problem.detail }
            }
            StatusCode::CONFLICT if code.as_str() == "events_journal_disabled" => {
                Error::JournalDisabled
            }
            StatusCode::CONFLICT => Error::Conflict { operation, code },
            StatusCode::GONE => Error::Gone { floor: problem.floor, head: problem.head },
            _ => Error::NotBeads { operation, why: format!("{} {code}", status.as_u16()) },
        }
    }

    /// Whether `bd serve` answers that the issue does not exist, rather than a proxy that the page
    /// does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.problem.code == "not_found"
    }

    /// The code of a 409; empty for other statuses.
    pub(crate) fn conflict(&self) -> &str {
        if self.status == StatusCode::CONFLICT { &self.problem.code } else { "" }
    }
}

/// The result of `work`; `None` when the deadline passes first.
async fn within<T>(until: Instant, work: impl Future<Output = T>) -> Option<T> {
    timeout_at(until, work).await.ok()
}

fn connector(trust: Option<Arc<rustls::RootCertStore>>) -> Result<TlsConnector, Error> {
    let roots = if let Some(roots) = trust {
        roots
    } else {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    if roots.is_empty() {
        return Err(Error::Tls("there are no trusted certificates".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The wait that `Retry-After` asks for (RFC 9110 §10.2.3): seconds, or a date. A date is counted
/// from the answer's own `Date`, so that clocks which differ do no harm.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is longer than the longest wait.
        return Some(value.parse().map_or(MAX_WAIT, Duration::from_secs).min(MAX_WAIT));
    }
    let date =
        |text: &str| jiff::fmt::rfc2822::parse(text.trim()).ok().map(|zoned| zoned.timestamp());
    let then = date(value)?;
    let from =
        headers.get(header::DATE).and_then(|value| date(value.to_str().ok()?)).unwrap_or(now);
    Some(Duration::try_from(then.duration_since(from)).unwrap_or_default().min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pairs: &[(&str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(
                header::HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        retry_after(&headers, "2026-11-25T12:00:00Z".parse().unwrap()).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        assert_eq!(waits(&[("retry-after", "7")]), Some(7));
        assert_eq!(waits(&[("retry-after", "Wed, 25 Nov 2026 12:00:30 GMT")]), Some(30));
        // The server's clock is an hour behind; its own dates agree with each other.
        assert_eq!(
            waits(&[
                ("retry-after", "Wed, 25 Nov 2026 11:00:20 GMT"),
                ("date", "Wed, 25 Nov 2026 11:00:00 GMT")
            ]),
            Some(20)
        );
        assert_eq!(waits(&[]), None);
    }

    #[test]
    fn a_wait_is_bounded_and_never_negative() {
        assert_eq!(waits(&[("retry-after", "99999999999999999999999999")]), Some(600));
        assert_eq!(waits(&[("retry-after", "86400")]), Some(600));
        assert_eq!(waits(&[("retry-after", "Wed, 25 Nov 2026 11:00:00 GMT")]), Some(0));
        for odd in ["", "-5", "soon", "1.5", "Wed, 99 Nov 2026"] {
            assert_eq!(waits(&[("retry-after", odd)]), None, "{odd}");
        }
    }
}
