//! The download half of git LFS's batch API, over the LFS files in a mirror.

use std::path::Path;

use axum::body::Body;
use axum::response::Response;
use gastown_git::lfs::object_in;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

/// What stands between a target and an object's id in a path.
pub(super) const OBJECTS: &str = "/info/lfs/objects/";
/// The end of the path of a batch request.
pub(super) const BATCH: &str = "/info/lfs/objects/batch";
/// The content type of the batch API.
const TYPE: &str = "application/vnd.git-lfs+json";
/// How many objects a batch may name.
const MAX_OBJECTS: usize = 1000;

type Reply = Result<Response, (StatusCode, String)>;

fn response(kind: &str, body: Body) -> Reply {
    let response = Response::builder().header(header::CONTENT_TYPE, kind);
    response.body(body).map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// The content of an object.
pub(super) async fn object(mirror: &Path, oid: &str) -> Reply {
    let missing = || (StatusCode::NOT_FOUND, "there is no such object".to_owned());
    let path = object_in(mirror, oid).ok_or_else(missing)?;
    let file = tokio::fs::File::open(path).await.map_err(|_| missing())?;
    let stream = ReaderStream::with_capacity(file, 64 << 10);
    response("application/octet-stream", Body::from_stream(stream))
}

/// Where the objects of a batch are downloaded: below `base`, with the caller's own token.
pub(super) fn batch(mirror: &Path, base: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
    let request: Value = serde_json::from_slice(body)
        .map_err(|e| (StatusCode::BAD_REQUEST, format!("not a batch request: {e}")))?;
    if request["operation"] != "download" {
        return Err((StatusCode::FORBIDDEN, "only downloads are supported".to_owned()));
    }
    let token = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
    let answer = |object: &Value| {
        let oid = object["oid"].as_str().unwrap_or_default();
        let mut answer = json!({"oid": oid, "size": object["size"], "authenticated": true});
        if object_in(mirror, oid).is_some() {
            let href = format!("{base}{OBJECTS}{oid}");
            let action = json!({"href": href, "header": {"Authorization": token}});
            answer["actions"] = json!({"download": action});
        } else {
            answer["error"] = json!({"code": 404, "message": "it could not be fetched"});
        }
        answer
    };
    let objects = request["objects"].as_array().into_iter().flatten().take(MAX_OBJECTS);
    let body = json!({"transfer": "basic", "objects": objects.map(answer).collect::<Vec<_>>()});
    response(TYPE, Body::from(body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_objects_of_the_mirror_are_given_and_nothing_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (oid, other) = ("0a".repeat(32), "0b".repeat(32));
        let folder = dir.path().join("lfs/objects/0a/0a");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(&oid), "content").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer t".parse().unwrap());
        let ask = |operation: &str| {
            let body = json!({"operation": operation, "objects": [{"oid": oid, "size": 7}, {"oid": other, "size": 1}]});
            batch(dir.path(), "https://h/git/web/main", &headers, body.to_string().as_bytes())
        };
        let body = axum::body::to_bytes(ask("download").unwrap().into_body(), 9999).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let action = &answer["objects"][0]["actions"]["download"];
        assert_eq!(action["href"], format!("https://h/git/web/main/info/lfs/objects/{oid}"));
        assert_eq!(action["header"]["Authorization"], "Bearer t");
        assert_eq!(answer["objects"][1]["error"]["code"], 404);
        assert_eq!(ask("upload").unwrap_err().0, StatusCode::FORBIDDEN);
        let given = object(dir.path(), &oid).await.unwrap();
        assert_eq!(axum::body::to_bytes(given.into_body(), 99).await.unwrap(), "content");
        for bad in [other.as_str(), "../../../etc/passwd", "", "0A"] {
            assert!(object(dir.path(), bad).await.is_err(), "{bad}");
        }
    }
}
