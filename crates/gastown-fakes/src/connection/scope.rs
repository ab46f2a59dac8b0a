//! A part of the cluster that stands for the whole: several processes of one controller work side by
//! side, each in its own part.

use axum::http::Uri;

/// Kinds without a namespace.
const OF_CLUSTER: [&str; 5] =
    ["rigs", "namespaces", "nodes", "customresourcedefinitions", "validatingadmissionpolicies"];

pub(super) struct Scope {
    pub namespace: String,
    pub rig: String,
}

impl Scope {
    /// The same request about one namespace or one Rig, where it is about those of the whole
    /// cluster.
    pub(super) fn within(&self, uri: &Uri) -> Uri {
        let (folder, resource) = uri.path().rsplit_once('/').unwrap_or_default();
        let depth = folder.trim_start_matches('/').split('/').count();
        let is_list = match folder.trim_start_matches('/').split('/').next() {
            Some("api") => depth == 2,
            Some("apis") => depth == 3,
            _ => false,
        };
        let query = uri.query().unwrap_or_default();
        let path = if is_list && resource == "rigs" {
            format!("{folder}/rigs?{query}&fieldSelector=metadata.name%3D{}", self.rig)
        } else if is_list && !OF_CLUSTER.contains(&resource) && !resource.ends_with("reviews") {
            format!("{folder}/namespaces/{}/{resource}?{query}", self.namespace)
        } else {
            return uri.clone();
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = path.parse().ok();
        Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_whole_cluster_is_narrowed() {
        let scope = Scope { namespace: "a".into(), rig: "web".into() };
        let within = |path: &'static str| scope.within(&Uri::from_static(path)).to_string();
        assert_eq!(within("/api/v1/pods?watch=true"), "/api/v1/namespaces/a/pods?watch=true");
        assert_eq!(
            within("/apis/g/v1/rigs?limit=5"),
            "/apis/g/v1/rigs?limit=5&fieldSelector=metadata.name%3Dweb"
        );
        for other in [
            "/apis/g/v1/rigs/web",
            "/api/v1/namespaces/b/pods",
            "/api/v1/namespaces/b",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "/readyz",
        ] {
            assert_eq!(within(other), other);
        }
    }
}
