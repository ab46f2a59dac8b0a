//! The cluster's name server: CoreDNS as a Deployment behind the address that every pod uses.

use std::path::Path;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use super::config::{DNS_ADDRESS, name_servers};

/// The image, which holds the program alone.
pub const IMAGE: &str = "ghcr.io/gastown-operator/coredns:1";

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";

/// The server's configuration: it answers for the cluster's names itself and forwards others to the
/// host's name servers, if there are any. Its plugins are those of the toolchain's CoreDNS.
fn corefile(upstream: &[String]) -> String {
    let mut text = String::from(
        ".:5353 {\n  errors\n  ready :8181\n  kubernetes cluster.local in-addr.arpa {\n    pods insecure\n    ttl 5\n  }\n  cache 5\n  loadbalance\n",
    );
    if !upstream.is_empty() {
        text.push_str("  forward . ");
        text.push_str(&upstream.join(" "));
        text.push('\n');
    }
    text.push_str("}\n");
    text
}

/// All objects of the server, in the order of applying.
fn objects(corefile: &str) -> Vec<Value> {
    let meta = json!({"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}});
    let labels = json!({"k8s-app": "kube-dns"});
    let subject = json!({"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE});
    let read = ["list", "watch"];
    let rules = json!([
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]);
    let container = json!({
        "name": NAME, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"name": "dns", "containerPort": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 5353}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "5m", "memory": "20Mi"}},
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
    });
    let pod = json!({
        "serviceAccountName": NAME, "priorityClassName": "system-cluster-critical", "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
    });
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"}, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}, "subjects": [subject]}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": corefile}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": labels},
        "spec": {"clusterIP": DNS_ADDRESS, "selector": labels, "ports": [
            {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "targetPort": 5353, "protocol": "TCP"},
        ]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}}),
    ]
}

/// Applies the server's objects.
pub async fn apply(client: &Client, resolv_conf: &Path) -> Result<()> {
    let upstream = name_servers(&std::fs::read_to_string(resolv_conf).unwrap_or_default());
    super::objects::apply(client, objects(&corefile(&upstream))).await
}

/// Waits until the server answers.
pub async fn wait(client: &Client) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let available = |found: Option<&Deployment>| {
        found
            .and_then(|d| d.status.as_ref())
            .and_then(|s| s.available_replicas)
            .is_some_and(|count| count > 0)
    };
    kube::runtime::wait::await_condition(api, NAME, available).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_forwarded_only_to_name_servers_that_exist() {
        assert!(!corefile(&[]).contains("forward"));
        assert!(
            corefile(&["192.0.2.1".into(), "192.0.2.2".into()])
                .contains("forward . 192.0.2.1 192.0.2.2\n")
        );
    }

    #[test]
    fn the_service_has_the_address_that_the_kubelet_gives_to_pods() {
        let all = objects("x");
        let service = all.iter().find(|o| o["kind"] == "Service").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "198.19.0.10");
    }
}
