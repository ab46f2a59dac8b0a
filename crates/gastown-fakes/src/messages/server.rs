//! The Messages API over HTTP: streamed and whole answers, token counts, and the administration of
//! scripts and log.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Action, Answer, Script, answer};

/// How many requests the log keeps; the oldest are dropped first.
const LOG_SIZE: usize = 4096;

/// The largest request that is read, in bytes: a conversation with long tool results.
const MAX_REQUEST: usize = 32 << 20;

/// One request to the model, as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The script's key; none for a request beside a task.
    pub key: Option<String>,
    /// The attempt that was chosen, from 1.
    pub attempt: Option<usize>,
    /// How many commands the conversation held.
    pub step: usize,
    /// Whether the prompt held the chosen attempt's evidence.
    pub evidence: bool,
    /// Whether the model called a tool.
    pub called: bool,
    /// The model that was asked for.
    pub model: String,
}

/// The scripts and the log of requests.
#[derive(Debug, Default)]
struct Data {
    scripts: Vec<Script>,
    log: VecDeque<Entry>,
}

#[derive(Clone, Debug)]
struct Shared {
    data: Arc<Mutex<Data>>,
    key: Option<String>,
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut Data) -> T) -> T {
        f(&mut self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A scripted Messages API on a free port of the loopback interface, gone when dropped.
#[derive(Debug)]
pub struct MessagesApi {
    address: SocketAddr,
    shared: Shared,
    task: JoinHandle<()>,
}

impl MessagesApi {
    /// Serves with these scripts; `key` is the API key that clients must show, if any.
    pub async fn start(scripts: Vec<Script>, key: Option<String>) -> Result<Self> {
        let shared =
            Shared { data: Arc::new(Mutex::new(Data { scripts, log: VecDeque::new() })), key };
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
        let address = listener.local_addr()?;
        let app = routes(shared.clone());
        let task = tokio::spawn(async move {
            if let Err(e) = axum::serve(listener, app).await {
                tracing::error!(error = %e, "the Messages API ended");
            }
        });
        Ok(Self { address, shared, task })
    }

    /// `http://127.0.0.1:PORT`, the value for `ANTHROPIC_BASE_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, oldest first.
    pub fn log(&self) -> Vec<Entry> {
        self.shared.with(|data| data.log.iter().cloned().collect())
    }
}

impl Drop for MessagesApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The API's routes, and `POST /admin/scripts` (a list; a script replaces the one of its key) and
/// `GET /admin/log`.
pub fn router(key: Option<String>) -> Router {
    routes(Shared { data: Arc::default(), key })
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/admin/scripts", post(put_scripts))
        .route("/admin/log", get(log))
        .route("/", get(async || "scripted Messages API\n"))
        .fallback(async || failure(StatusCode::NOT_FOUND, "not_found_error", "no such path"))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(shared)
}

async fn put_scripts(State(shared): State<Shared>, Json(scripts): Json<Vec<Script>>) -> StatusCode {
    shared.with(|data| {
        for script in scripts {
            data.scripts.retain(|s| s.key != script.key);
            data.scripts.push(script);
        }
    });
    StatusCode::NO_CONTENT
}

async fn log(State(shared): State<Shared>) -> Json<Vec<Entry>> {
    Json(shared.with(|data| data.log.iter().cloned().collect()))
}

async fn count_tokens(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    Json(json!({"input_tokens": tokens(body.len())})).into_response()
}

async fn messages(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return failure(StatusCode::BAD_REQUEST, "invalid_request_error", "the body is not JSON");
    };
    let model = request["model"].as_str().unwrap_or("scripted").to_owned();
    let answer = shared.with(|data| {
        let answer = answer(&data.scripts, &request);
        let entry = entry(&data.scripts, &answer, model.clone());
        if data.log.len() == LOG_SIZE {
            data.log.pop_front();
        }
        data.log.push_back(entry);
        answer
    });
    if matches!(answer, Answer::Turn { action: Action::Hang, .. }) {
        // Until the client disconnects, which drops this.
        std::future::pending::<()>().await;
    }
    let message = message(&answer, &model, body.len());
    if request["stream"] == true { streamed(&message) } else { Json(message).into_response() }
}

fn entry(scripts: &[Script], answer: &Answer, model: String) -> Entry {
    let Answer::Turn { key, attempt, step, action } = answer else {
        return Entry { key: None, attempt: None, step: 0, evidence: false, called: false, model };
    };
    let script = scripts.iter().find(|s| s.key == *key);
    let chosen = script.zip(*attempt).and_then(|(s, n)| s.attempts.get(n - 1));
    let evidence = chosen.is_some_and(|a| a.prompt_contains.is_some());
    let called = matches!(action, Action::Run(_));
    Entry { key: Some(key.clone()), attempt: *attempt, step: *step, evidence, called, model }
}

fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let expected = shared.key.as_deref()?;
    let given = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = given("authorization").and_then(|v| v.strip_prefix("Bearer "));
    let known = given("x-api-key") == Some(expected) || bearer == Some(expected);
    (!known).then(|| failure(StatusCode::UNAUTHORIZED, "authentication_error", "invalid x-api-key"))
}

fn failure(status: StatusCode, kind: &str, text: &str) -> Response {
    (status, Json(json!({"type": "error", "error": {"type": kind, "message": text}})))
        .into_response()
}

/// About the number of tokens of an English text of this many bytes.
fn tokens(bytes: usize) -> usize {
    bytes / 4
}

/// The whole answer, as the API gives it without streaming.
fn message(answer: &Answer, model: &str, request_bytes: usize) -> Value {
    let (block, stop, id) = match answer {
        Answer::Aside | Answer::Turn { action: Action::Hang, .. } => {
            (json!({"type": "text", "text": "Scripted task"}), "end_turn", "aside".to_owned())
        }
        Answer::Turn { action: Action::End(text), step, .. } => {
            (json!({"type": "text", "text": text}), "end_turn", step.to_string())
        }
        Answer::Turn { action: Action::Run(command), step, .. } => {
            let mut input =
                json!({"command": command.bash, "description": "The next step of the task"});
            if let Some(timeout) = command.timeout_ms {
                input["timeout"] = json!(timeout);
            }
            if command.background {
                input["run_in_background"] = json!(true);
            }
            let call = json!({"type": "tool_use", "id": format!("toolu_scripted_{step}"), "name": "Bash", "input": input});
            (call, "tool_use", step.to_string())
        }
    };
    let output = tokens(block.to_string().len()).max(1);
    json!({
        "id": format!("msg_scripted_{id}"), "type": "message", "role": "assistant", "model": model,
        "content": [block], "stop_reason": stop, "stop_sequence": null,
        "usage": {"input_tokens": tokens(request_bytes), "output_tokens": output,
                  "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    })
}

/// The answer as the events of a stream.
fn streamed(message: &Value) -> Response {
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let block = &message["content"][0];
    let (opened, delta) = if block["type"] == "text" {
        (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": block["text"]}))
    } else {
        let mut opened = block.clone();
        opened["input"] = json!({});
        (opened, json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}))
    };
    let events = [
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": opened}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": message["stop_reason"], "stop_sequence": null},
               "usage": {"output_tokens": message["usage"]["output_tokens"]}}),
        json!({"type": "message_stop"}),
    ];
    let shown = events
        .iter()
        .map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap_or_default()));
    let text = shown.collect::<Vec<_>>().concat();
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")], text)
        .into_response()
}
