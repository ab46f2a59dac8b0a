//! Kubeconfig files that hold the certificates themselves, so that a file can be copied.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pki::Pair;

/// The kubeconfig of one user at one server.
pub fn render(server: &str, authority: &str, user: &Pair) -> String {
    let value: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gastown", "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(authority)}}],
        "users": [{"name": "gastown", "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate),
            "client-key-data": STANDARD.encode(&user.key),
        }}],
        "contexts": [{"name": "gastown", "context": {"cluster": "gastown", "user": "gastown", "namespace": "default"}}],
        "current-context": "gastown",
    });
    // JSON is YAML; a map of plain strings cannot fail to print.
    format!("{value:#}\n")
}

/// A kubeconfig of [`render`] whose user acts as `user`.
pub fn impersonating(kubeconfig: &str, user: &str) -> Result<String> {
    let mut value: Value =
        serde_json::from_str(kubeconfig).context("this kubeconfig is not ours")?;
    value["users"][0]["user"]["as"] = json!(user);
    Ok(format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_impersonates_the_user() {
        let pair = Pair { certificate: "C".into(), key: "K".into() };
        let text =
            impersonating(&render("https://127.0.0.1:1", "CA", &pair), "system:serviceaccount:a:b")
                .unwrap();
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let user = read.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.impersonate.as_deref(), Some("system:serviceaccount:a:b"));
        assert!(user.client_key_data.is_some());
    }

    #[test]
    fn a_client_reads_the_file_back() {
        let pair = Pair { certificate: "C".into(), key: "K".into() };
        let read = kube::config::Kubeconfig::from_yaml(&render("https://127.0.0.1:1", "CA", &pair))
            .unwrap();
        assert_eq!(read.current_context.as_deref(), Some("gastown"));
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:1"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Q0E="));
    }
}
