//! The chart as the real helm renders it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on ends here

mod monitoring;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use gastown_api::rbac::{self, Controller};
use serde_json::Value;

const NAMESPACE: &str = "gastown-system";

async fn helm(set: &[&str]) -> std::process::Output {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/gastown-operator");
    let mut command = Command::new(gastown_cluster::toolchain::helm().await.unwrap());
    command.args(["template", "gastown"]).arg(chart).args([
        "--namespace",
        NAMESPACE,
        "--kube-version",
        "1.36.0",
    ]);
    for value in set {
        command.args(["--set", value]);
    }
    command.output().unwrap()
}

async fn render(set: &[&str]) -> Vec<Value> {
    let out = helm(set).await;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn object<'a>(objects: &'a [Value], kind: &str, wanted: &str) -> &'a Value {
    of_kind(objects, kind)
        .into_iter()
        .find(|o| name(o) == wanted)
        .unwrap_or_else(|| panic!("no {kind} {wanted}"))
}

fn container<'a>(objects: &'a [Value], controller: &str) -> &'a Value {
    &object(objects, "Deployment", controller)["spec"]["template"]["spec"]["containers"][0]
}

fn env(objects: &[Value], controller: &str, variable: &str) -> Option<String> {
    let all = container(objects, controller)["env"].as_array().unwrap();
    all.iter()
        .find(|e| e["name"] == variable)
        .map(|e| e["value"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_pod_is_restricted_with_and_without_ids() {
    for (set, ids) in [(vec![], true), (vec!["openshift=true"], false)] {
        let objects = render(&set).await;
        // The pods that these make follow suit.
        for controller in ["polecat-ctl", "refinery-ctl"] {
            assert_eq!(env(&objects, controller, "GASTOWN_PLATFORM_IDS").is_none(), ids);
        }
        let deployments = of_kind(&objects, "Deployment");
        assert_eq!(deployments.len(), 6);
        for deployment in deployments {
            let spec = &deployment["spec"]["template"]["spec"];
            let pod = &spec["securityContext"];
            assert_eq!(pod["runAsNonRoot"], true);
            assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
            for id in ["runAsUser", "runAsGroup", "fsGroup"] {
                assert_eq!(pod[id].as_i64(), ids.then_some(65532), "{} {id}", name(deployment));
            }
            for container in spec["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["capabilities"]["drop"][0], "ALL");
                assert!(context["capabilities"].get("add").is_none());
                assert!(container["resources"]["limits"]["memory"].is_string());
            }
            for volume in spec["volumes"].as_array().into_iter().flatten() {
                assert!(volume.get("hostPath").is_none(), "{volume}");
            }
        }
    }
}

#[tokio::test]
async fn roles_are_the_tables_of_the_code_and_go_to_their_own_account() {
    let objects = render(&[]).await;
    for controller in Controller::ALL {
        let cluster_name = format!("gastown-{}", controller.name());
        let rules = |o: &Value| o["rules"].clone();
        assert_eq!(
            rules(object(&objects, "ClusterRole", &cluster_name)),
            serde_json::to_value(rbac::cluster_rules(controller)).unwrap()
        );
        assert_eq!(
            rules(object(&objects, "Role", controller.name())),
            serde_json::to_value(rbac::namespace_rules(controller)).unwrap()
        );
        for binding in [
            object(&objects, "ClusterRoleBinding", &cluster_name),
            object(&objects, "RoleBinding", controller.name()),
        ] {
            assert_eq!(binding["subjects"].as_array().unwrap().len(), 1);
            assert_eq!(binding["subjects"][0]["name"], controller.name());
            assert_eq!(binding["subjects"][0]["namespace"], NAMESPACE);
        }
        assert_eq!(
            object(&objects, "Deployment", controller.name())["spec"]["template"]["spec"]["serviceAccountName"],
            controller.name()
        );
    }
    // The others are for people, and for `helm test`.
    let others = ["gastown-install-check", "gastown-operator-edit", "gastown-operator-view"];
    let roles: BTreeSet<&str> = of_kind(&objects, "ClusterRole").into_iter().map(name).collect();
    assert!(others.iter().all(|other| roles.contains(other)), "{roles:?}");
    assert_eq!(roles.len(), Controller::ALL.len() + others.len());
    assert_eq!(of_kind(&objects, "Role").len(), Controller::ALL.len());
}

/// Which accounts may read Secrets, and where.
fn secret_readers(objects: &[Value]) -> BTreeSet<(String, String)> {
    let reads = |role: &Value| {
        let rules = role["rules"].as_array().unwrap();
        rules
            .iter()
            .any(|r| r["resources"].as_array().unwrap().iter().any(|x| x == "secrets" || x == "*"))
    };
    assert!(
        !of_kind(objects, "ClusterRole").into_iter().any(reads),
        "Secrets of the whole cluster"
    );
    let mut readers = BTreeSet::new();
    for role in of_kind(objects, "Role").into_iter().filter(|r| reads(r)) {
        let namespace = role["metadata"]["namespace"].as_str().unwrap();
        for binding in of_kind(objects, "RoleBinding") {
            if binding["roleRef"]["name"] == role["metadata"]["name"]
                && binding["metadata"]["namespace"] == namespace
            {
                readers.insert((
                    binding["subjects"][0]["name"].as_str().unwrap().to_owned(),
                    namespace.to_owned(),
                ));
            }
        }
    }
    readers
}

#[tokio::test]
async fn only_controllers_with_credentials_read_secrets_and_only_in_the_configured_namespaces() {
    let at = |all: &[(&str, &str)]| {
        all.iter().map(|(who, n)| ((*who).to_owned(), (*n).to_owned())).collect::<BTreeSet<_>>()
    };
    let (refinery, beads, witness) = ("refinery-ctl", "beadstore-ctl", "witness-ctl");
    let release = [(refinery, NAMESPACE), (beads, NAMESPACE), (witness, NAMESPACE)];
    assert_eq!(secret_readers(&render(&[]).await), at(&release));
    let set = [
        "refinery.secretNamespaces={team-a,team-b,gastown-system}",
        "beadstore.secretNamespaces={team-c}",
        "witness.secretNamespaces={team-d}",
    ];
    let further =
        [(refinery, "team-a"), (refinery, "team-b"), (beads, "team-c"), (witness, "team-d")];
    assert_eq!(secret_readers(&render(&set).await), at(&[release.as_slice(), &further].concat()));
}

#[tokio::test]
async fn each_controller_has_its_own_image_replicas_and_place() {
    let set = [
        "polecat.image.tag=v9",
        "polecat.replicas=3",
        "polecat.nodeSelector.pool=fast",
        "polecat.podAnnotations.why=test",
        "polecat.extraArgs={--concurrency=2}",
        "polecat.extraEnv[0].name=X",
        "polecat.extraEnv[0].value=y",
        "imageRegistry=registry.internal/gastown",
    ];
    let objects = render(&set).await;
    let polecat = object(&objects, "Deployment", "polecat-ctl");
    assert_eq!(polecat["spec"]["replicas"], 3);
    assert_eq!(polecat["spec"]["template"]["spec"]["nodeSelector"]["pool"], "fast");
    assert_eq!(polecat["spec"]["template"]["metadata"]["annotations"]["why"], "test");
    assert_eq!(
        container(&objects, "polecat-ctl")["image"],
        "registry.internal/gastown/polecat-ctl:v9"
    );
    assert_eq!(container(&objects, "polecat-ctl")["args"][0], "--concurrency=2");
    assert_eq!(env(&objects, "polecat-ctl", "X").as_deref(), Some("y"));
    assert_eq!(
        of_kind(&objects, "PodDisruptionBudget").into_iter().map(name).collect::<Vec<_>>(),
        ["polecat-ctl"]
    );
    for other in ["rig-ctl", "refinery-ctl", "convoy-ctl", "beadstore-ctl"] {
        let other_deployment = object(&objects, "Deployment", other);
        assert_eq!(other_deployment["spec"]["replicas"], 1);
        assert!(other_deployment["spec"]["template"]["spec"]["nodeSelector"].is_null());
        assert_eq!(
            container(&objects, other)["image"],
            format!("registry.internal/gastown/{other}:{}", env!("CARGO_PKG_VERSION"))
        );
        assert!(container(&objects, other)["args"].is_null());
    }
}

/// The image of agents, as polecat-ctl and refinery-ctl read it.
fn agent_image(objects: &[Value]) -> &str {
    object(objects, "ConfigMap", "gastown-agent")["data"]["image"].as_str().unwrap()
}

#[tokio::test]
async fn controllers_get_the_addresses_of_the_others_and_the_agents_image() {
    let objects = render(&[
        "agent.image.tag=a1",
        "agent.image.pullPolicy=Never",
        "telemetry.otlpEndpoint=http://c:4317",
        "telemetry.protocol=http/protobuf",
        "telemetry.headersSecret=collector",
        "telemetry.caConfigMap=authorities",
        "telemetry.clusterName=our cluster",
        "telemetry.metrics=true",
    ])
    .await;
    assert_eq!(agent_image(&objects), "ghcr.io/gastown-operator/polecat-agent:a1");
    for controller in ["polecat-ctl", "refinery-ctl"] {
        let of_it = container(&objects, controller);
        let variables = of_it["env"].as_array().unwrap();
        let image = variables.iter().find(|v| v["name"] == "GASTOWN_AGENT_IMAGE").unwrap();
        assert_eq!(image["valueFrom"]["configMapKeyRef"]["name"], "gastown-agent", "for 0.1.0");
        let file = env(&objects, controller, "GASTOWN_AGENT_IMAGE_FILE").unwrap();
        let mounts = of_it["volumeMounts"].as_array().unwrap();
        let folder = mounts.iter().find(|mount| mount["name"] == "agent").unwrap();
        assert_eq!(file, format!("{}/image", folder["mountPath"].as_str().unwrap()));
        assert_eq!(
            env(&objects, controller, "GASTOWN_AGENT_PULL_POLICY").as_deref(),
            Some("Never")
        );
        assert_eq!(
            env(&objects, controller, "OTEL_EXPORTER_OTLP_ENDPOINT").as_deref(),
            Some("http://c:4317")
        );
        let set = |name: &str| env(&objects, controller, name);
        assert_eq!(set("OTEL_EXPORTER_OTLP_PROTOCOL").as_deref(), Some("http/protobuf"));
        assert_eq!(set("OTEL_TRACES_SAMPLER_ARG").as_deref(), Some("0.01"));
        let attributes = set("OTEL_RESOURCE_ATTRIBUTES");
        assert_eq!(attributes.as_deref(), Some("k8s.cluster.name=our%20cluster"));
        assert_eq!(set("OTEL_METRICS_EXPORTER").as_deref(), Some("otlp"));
        assert_eq!(set("OTEL_LOGS_EXPORTER"), None);
        let file = set("OTEL_EXPORTER_OTLP_CERTIFICATE").unwrap();
        let mounts = container(&objects, controller)["volumeMounts"].as_array().unwrap().clone();
        let is_mounted = |m: &serde_json::Value| file.starts_with(m["mountPath"].as_str().unwrap());
        assert!(mounts.iter().any(|m| is_mounted(m) && m["name"] == "telemetry"));
    }
    let service = object(&objects, "Service", "refinery-ctl");
    let ports: BTreeMap<&str, i64> = service["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p["port"].as_i64().unwrap()))
        .collect();
    assert_eq!(ports, BTreeMap::from([("metrics", 8080), ("grpc", 9443), ("git", 9418)]));
    assert_eq!(
        env(&objects, "polecat-ctl", "GASTOWN_REFINERY_ENDPOINT").unwrap(),
        "https://refinery-ctl.gastown-system.svc:9443"
    );
    assert_eq!(
        env(&objects, "polecat-ctl", "GASTOWN_BEADSTORE_ENDPOINT").unwrap(),
        "https://beadstore-ctl.gastown-system.svc:9443"
    );
    assert_eq!(
        env(&objects, "refinery-ctl", "GASTOWN_GIT_ENDPOINT").unwrap(),
        "https://refinery-ctl.gastown-system.svc:9418"
    );
    assert_eq!(
        env(&objects, "convoy-ctl", "GASTOWN_BEADSTORE_ENDPOINT").unwrap(),
        "https://beadstore-ctl.gastown-system.svc:9443"
    );
    assert_eq!(env(&objects, "rig-ctl", "GASTOWN_AGENT_IMAGE"), None);
}

#[tokio::test]
async fn services_and_budgets_select_the_pods_of_their_controller() {
    let objects = render(&["rig.replicas=2"]).await;
    for controller in Controller::ALL.map(Controller::name) {
        let labels =
            object(&objects, "Deployment", controller)["spec"]["template"]["metadata"]["labels"]
                .as_object()
                .unwrap();
        let selector =
            object(&objects, "Service", controller)["spec"]["selector"].as_object().unwrap();
        assert!(selector.iter().all(|(k, v)| labels.get(k) == Some(v)), "{controller}");
        assert_eq!(selector["app.kubernetes.io/name"], controller);
    }
}

#[tokio::test]
async fn the_certificate_names_the_server_and_clients_do_not_get_its_key() {
    let objects = render(&[]).await;
    let secret = object(&objects, "Secret", "gastown-tls");
    assert_eq!(secret["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let pem = String::from_utf8(decode(secret["data"]["tls.crt"].as_str().unwrap())).unwrap();
    let der = decode(&pem.lines().filter(|l| !l.starts_with("-----")).collect::<String>());
    for server in ["refinery-ctl.gastown-system.svc", "beadstore-ctl.gastown-system.svc"] {
        assert!(der.windows(server.len()).any(|w| w == server.as_bytes()), "{server}");
    }
    let tls = |controller: &str| {
        let volumes =
            object(&objects, "Deployment", controller)["spec"]["template"]["spec"]["volumes"]
                .as_array()
                .cloned();
        volumes.into_iter().flatten().find(|v| v["name"] == "tls").map(|v| v["secret"].clone())
    };
    for client in ["polecat-ctl", "convoy-ctl"] {
        assert_eq!(
            tls(client).unwrap()["items"],
            serde_json::json!([{"key": "ca.crt", "path": "ca.crt"}]),
            "{client}"
        );
    }
    for server in ["refinery-ctl", "beadstore-ctl"] {
        assert!(tls(server).unwrap().get("items").is_none(), "{server}");
    }
    assert_eq!(tls("rig-ctl"), None);
}

/// Secrets and projected volumes are kept in memory by the kubelet; copies of what controllers read from
/// the API server are in the folder that the variable names.
#[tokio::test]
async fn keys_of_controllers_are_on_memory_backed_volumes() {
    let objects = render(&[]).await;
    for controller in Controller::ALL.map(Controller::name) {
        let spec = &object(&objects, "Deployment", controller)["spec"]["template"]["spec"];
        let volume = |name: &Value| {
            spec["volumes"].as_array().unwrap().iter().find(|v| v["name"] == *name).unwrap()
        };
        let mounts = container(&objects, controller)["volumeMounts"].as_array();
        let copies = env(&objects, controller, "GASTOWN_KEYS_DIR");
        // Those that run git with credentials.
        let runs_git = ["refinery-ctl", "beadstore-ctl"].contains(&controller);
        assert_eq!(copies.is_some(), runs_git, "{controller}");
        let mut is_there = copies.is_none();
        for mount in mounts.into_iter().flatten() {
            let (path, volume) = (mount["mountPath"].as_str().unwrap(), volume(&mount["name"]));
            if copies.as_deref() == Some(path) {
                assert_eq!(volume["emptyDir"]["medium"], "Memory", "{controller}");
                is_there = true;
            } else if path.starts_with("/var/run/gastown") {
                assert!(volume["secret"].is_object() || volume["projected"].is_object(), "{path}");
            }
        }
        assert!(is_there, "{controller} has no volume for {copies:?}");
    }
}

#[tokio::test]
async fn an_existing_secret_replaces_the_generated_one() {
    let objects = render(&["tls.existingSecret=from-cert-manager"]).await;
    assert!(of_kind(&objects, "Secret").is_empty());
    let volumes =
        &object(&objects, "Deployment", "refinery-ctl")["spec"]["template"]["spec"]["volumes"];
    assert!(
        volumes
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["secret"]["secretName"] == "from-cert-manager")
    );
}

#[tokio::test]
async fn an_unknown_or_invalid_value_is_refused() {
    for wrong in [
        "polecat.replica=2",
        "polecat.replicas=many",
        "log.format=xml",
        "refinery.secretNamespaces={Bad_Name}",
        "polecats.replicas=1",
        "common.replica=2",
        "common.image.repository=all",
        "rig.log.level=debug",
        "rig.image.digest=latest",
        "rig.secretNamespaces={team-a}",
        "rig.podDisruptionBudget.enabled=maybe",
        "rig.autoscaling.minimum=2",
        "crds.enabled=true",
        "commonLabels.app\\.kubernetes\\.io/name=mine",
    ] {
        let out = helm(&[wrong]).await;
        assert!(!out.status.success(), "{wrong} was taken");
    }
}
