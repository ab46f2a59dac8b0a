//! The LFS server of the repositories: the batch API with basic transfers, and the objects.
//! An object of a repository is the file `lfs/objects/<oid>` in its folder.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The content type of the batch API.
const TYPE: &str = "application/vnd.git-lfs+json";
/// The largest object, in bytes.
const MAX: usize = 64 << 20;

/// Whether a path belongs to the LFS server.
pub fn is_request(path: &str) -> bool {
    path.contains("/info/lfs/")
}

/// Answers `/<repository>/info/lfs/objects/batch` and `/<repository>/info/lfs/objects/<oid>`.
pub async fn answer(dir: &Path, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some((repository, rest)) = parts.uri.path().split_once("/info/lfs/objects/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let Ok(bytes) = axum::body::to_bytes(body, MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let store = dir.join(repository.trim_matches('/')).join("lfs/objects");
    if rest == "batch" {
        let base = format!("http://{host}{repository}/info/lfs/objects");
        return batch(&store, &base, &bytes);
    }
    let plain = rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    let file = store.join(rest);
    match parts.method.as_str() {
        "GET" if plain && file.is_file() => match std::fs::read(&file) {
            Ok(bytes) => Body::from(bytes).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        "PUT" if plain => match write(&file, &bytes) {
            Ok(()) => StatusCode::OK.into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn write(file: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, bytes)
}

fn batch(store: &Path, base: &str, body: &[u8]) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let upload = request["operation"] == "upload";
    let one = |object: &Value| {
        let oid = object["oid"].as_str().unwrap_or_default();
        let there = oid.len() == 64 && store.join(oid).is_file();
        let mut answer = json!({"oid": oid, "size": object["size"]});
        match (upload, there) {
            (true, false) => {
                answer["actions"] = json!({"upload": {"href": format!("{base}/{oid}")}});
            }
            (false, true) => {
                answer["actions"] = json!({"download": {"href": format!("{base}/{oid}")}});
            }
            (false, false) => {
                answer["error"] = json!({"code": 404, "message": "Object does not exist"});
            }
            (true, true) => {}
        }
        answer
    };
    let objects: Vec<Value> =
        request["objects"].as_array().into_iter().flatten().map(one).collect();
    let answer = json!({"transfer": "basic", "objects": objects});
    ([(header::CONTENT_TYPE, TYPE)], answer.to_string()).into_response()
}
