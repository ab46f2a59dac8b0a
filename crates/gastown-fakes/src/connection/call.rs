//! What a request to the API server is about.

use axum::http::{Method, Uri};

/// A request, as far as faults and counts look at it.
pub(super) struct Call {
    /// Its method and resource: requests of one kind do the same to different objects.
    pub kind: String,
    /// Its method and object, if it changes one that counts: Events and reviews do not.
    pub write: Option<String>,
    pub is_watch: bool,
}

impl Call {
    /// The resource, if this is a watch.
    pub(super) fn watched(&self) -> Option<&str> {
        watched(&self.kind)
    }

    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        let object = object(uri.path());
        let mut parts = object.split('/');
        let resource = parts.next().unwrap_or_default().to_owned();
        let part = parts.nth(1).map(|part| format!("/{part}")).unwrap_or_default();
        let is_watch = uri.query().is_some_and(|q| q.contains("watch=true"));
        let verb = if is_watch { "WATCH" } else { method.as_str() };
        let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        let counts = !resource.is_empty() && resource != "events" && !resource.ends_with("reviews");
        Self {
            kind: format!("{verb} {resource}{part}"),
            write: (changes && counts).then(|| format!("{method} {object}")),
            is_watch,
        }
    }
}

/// The resource, if requests of this kind are watches.
pub(super) fn watched(kind: &str) -> Option<&str> {
    kind.strip_prefix("WATCH ")
}

/// The resource, name and subresource in a path; empty for what is none.
fn object(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.join("/"),
        rest => rest.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &Method, path: &'static str) -> Call {
        Call::of(method, &Uri::from_static(path))
    }

    #[test]
    fn a_write_is_named_after_its_object_in_any_namespace() {
        let one = of(&Method::PATCH, "/apis/g/v1/namespaces/a/polecats/x/status?force=true");
        assert_eq!(one.write.as_deref(), Some("PATCH polecats/x/status"));
        assert_eq!(one.kind, "PATCH polecats/status");
        let cluster = of(&Method::PATCH, "/apis/g/v1/rigs/web");
        assert_eq!(cluster.write.as_deref(), Some("PATCH rigs/web"));
        assert_eq!(of(&Method::POST, "/api/v1/namespaces/a/pods").kind, "POST pods");
    }

    #[test]
    fn reads_events_and_reviews_are_no_writes() {
        let events = of(&Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events");
        let review = of(&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews");
        let read = of(&Method::GET, "/api/v1/pods?watch=true");
        assert!(events.write.is_none() && review.write.is_none() && read.write.is_none());
        assert!(read.is_watch && read.kind == "WATCH pods");
    }
}
