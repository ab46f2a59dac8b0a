//! What each value of the chart changes.

use std::collections::BTreeSet;
use std::path::Path;

use gastown_api::names::annotation;
use gastown_api::rbac::Controller;
use serde_json::{Value, json};

use crate::{NAMESPACE, agent_image, env, helm, name, object, of_kind, render};

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Values, the kind and the name of an object, a place in it, and what is there as JSON; `null`: nothing.
type Row = (&'static [&'static str], &'static str, &'static str, &'static str, &'static str);

async fn check(rows: &[Row], at: &str) {
    for (set, kind, name, place, wanted) in rows {
        let objects = render(set).await;
        let found = object(&objects, kind, name).pointer(&format!("{at}{place}")).cloned();
        let wanted: Value = serde_json::from_str(wanted).unwrap();
        assert_eq!(found.unwrap_or_default(), wanted, "{set:?}: {kind} {name} {at}{place}");
    }
}

#[tokio::test]
async fn a_block_overrides_common_lists_replace_and_null_clears() {
    let rows: &[Row] = &[
        (&["common.replicas=2"], "Deployment", "rig-ctl", "/spec/replicas", "2"),
        (&["common.replicas=2", "rig.replicas=0"], "Deployment", "rig-ctl", "/spec/replicas", "0"),
        (&["rig.replicas=null"], "Deployment", "rig-ctl", "/spec/replicas", "null"),
        (
            &["common.revisionHistoryLimit=0"],
            "Deployment",
            "rig-ctl",
            "/spec/revisionHistoryLimit",
            "0",
        ),
        (
            &["common.deploymentAnnotations.a=x"],
            "Deployment",
            "rig-ctl",
            "/metadata/annotations",
            r#"{"a": "x"}"#,
        ),
        (
            &["networkPolicies.controllers.egress[0].ports[0].port=443"],
            "NetworkPolicy",
            "rig-ctl",
            "/spec/policyTypes",
            r#"["Ingress", "Egress"]"#,
        ),
        (
            &["rig.strategy.type=Recreate"],
            "Deployment",
            "rig-ctl",
            "/spec/strategy",
            r#"{"type": "Recreate"}"#,
        ),
        (
            &["commonLabels.team=a", "common.service.labels.net=b"],
            "Service",
            "rig-ctl",
            "/metadata/labels/team",
            r#""a""#,
        ),
    ];
    check(rows, "").await;
    let rows: &[Row] = &[
        (
            &["common.nodeSelector.a=x", "rig.nodeSelector.b=y"],
            "Deployment",
            "rig-ctl",
            "/nodeSelector",
            r#"{"a": "x", "b": "y"}"#,
        ),
        (
            &["common.nodeSelector.a=x", "rig.nodeSelector=null"],
            "Deployment",
            "rig-ctl",
            "/nodeSelector",
            "null",
        ),
        (
            &["common.topologySpreadConstraints[0].topologyKey=zone"],
            "Deployment",
            "rig-ctl",
            "/topologySpreadConstraints/0/labelSelector/matchLabels/app.kubernetes.io~1name",
            r#""rig-ctl""#,
        ),
        (
            &["common.podSecurityContext.runAsUser=1"],
            "Deployment",
            "rig-ctl",
            "/securityContext/runAsUser",
            "1",
        ),
        (
            &["rig.extraVolumes[0].name=x", "rig.extraVolumes[0].emptyDir.medium=Memory"],
            "Deployment",
            "rig-ctl",
            "/volumes",
            r#"[{"name": "x", "emptyDir": {"medium": "Memory"}}]"#,
        ),
        (
            &["rig.dnsPolicy=None", "common.schedulerName=s"],
            "Deployment",
            "rig-ctl",
            "/dnsPolicy",
            r#""None""#,
        ),
    ];
    check(rows, POD).await;
    let rows: &[Row] = &[
        (
            &["common.extraArgs={--a}", "rig.extraArgs={--b}"],
            "Deployment",
            "rig-ctl",
            "/args",
            r#"["--b"]"#,
        ),
        (
            &["common.resources.limits.memory=2Gi"],
            "Deployment",
            "refinery-ctl",
            "/resources/limits/memory",
            r#""2Gi""#,
        ),
        (
            &["refinery.resources.limits=null"],
            "Deployment",
            "refinery-ctl",
            "/resources/limits",
            "null",
        ),
        (
            &["refinery.resources.limits=null"],
            "Deployment",
            "refinery-ctl",
            "/resources/requests/memory",
            r#""64Mi""#,
        ),
        (
            &["rig.livenessProbe.periodSeconds=60"],
            "Deployment",
            "rig-ctl",
            "/livenessProbe/httpGet/path",
            r#""/livez""#,
        ),
        (&["rig.livenessProbe=null"], "Deployment", "rig-ctl", "/livenessProbe", "null"),
        (
            &["rig.startupProbe.failureThreshold=9"],
            "Deployment",
            "rig-ctl",
            "/startupProbe/httpGet/path",
            r#""/livez""#,
        ),
        (
            &["rig.extraVolumeMounts[0].name=x", "rig.extraVolumeMounts[0].mountPath=/x"],
            "Deployment",
            "rig-ctl",
            "/volumeMounts/0/mountPath",
            r#""/x""#,
        ),
        (
            &["rig.image.registry=r.io", "rig.image.tag=v1"],
            "Deployment",
            "rig-ctl",
            "/image",
            r#""r.io/rig-ctl:v1""#,
        ),
    ];
    check(rows, CONTAINER).await;
}

#[tokio::test]
async fn each_controller_has_its_own_log() {
    let objects =
        render(&["log.filter=warn", "rig.log.filter=debug", "rig.log.format=pretty"]).await;
    let of =
        |controller: &str, variable: &str| env(&objects, controller, variable).unwrap_or_default();
    assert_eq!(
        (of("rig-ctl", "GASTOWN_LOG"), of("rig-ctl", "GASTOWN_LOG_FORMAT")),
        ("debug".into(), "pretty".into())
    );
    assert_eq!(
        (of("convoy-ctl", "GASTOWN_LOG"), of("convoy-ctl", "GASTOWN_LOG_FORMAT")),
        ("warn".into(), "json".into())
    );
}

#[tokio::test]
async fn an_autoscaler_has_the_replicas() {
    let set = [
        "polecat.autoscaling.enabled=true",
        "polecat.autoscaling.minReplicas=2",
        "polecat.autoscaling.metrics[0].type=External",
    ];
    let objects = render(&set).await;
    assert!(object(&objects, "Deployment", "polecat-ctl")["spec"].get("replicas").is_none());
    let spec = &object(&objects, "HorizontalPodAutoscaler", "polecat-ctl")["spec"];
    assert_eq!(spec["scaleTargetRef"]["name"], "polecat-ctl");
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(3)));
    assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    assert_eq!(spec["metrics"][1]["type"], "External");
    assert_eq!(of_kind(&objects, "HorizontalPodAutoscaler").len(), 1);
    object(&objects, "PodDisruptionBudget", "polecat-ctl");
    let none =
        ["rig.autoscaling.enabled=true", "rig.autoscaling.targetCPUUtilizationPercentage=null"];
    assert!(refused(&none).await.contains("autoscaling of rig-ctl has no metric"));
}

#[tokio::test]
async fn a_controller_whose_mirrors_are_kept_is_a_stateful_set() {
    let set = [
        "refinery.mirrors.persistence.enabled=true",
        "refinery.mirrors.persistence.size=5Gi",
        "refinery.mirrors.persistence.storageClassName=fast",
        "refinery.mirrors.persistence.labels.tier=cache",
        "refinery.mirrors.persistence.retention.whenScaled=Retain",
        "refinery.autoscaling.enabled=true",
        "refinery.verticalPodAutoscaler.enabled=true",
    ];
    let objects = render(&set).await;
    let kinds = |kind| of_kind(&objects, kind).into_iter().map(name).collect::<Vec<_>>();
    assert_eq!(kinds("StatefulSet"), ["refinery-ctl"]);
    assert_eq!(kinds("Deployment").len(), 5);
    let spec = &object(&objects, "StatefulSet", "refinery-ctl")["spec"];
    let claims = json!([{
        "metadata": {"name": "mirrors", "labels": {"tier": "cache"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast",
            "resources": {"requests": {"storage": "5Gi"}},
        },
    }]);
    assert_eq!(spec["volumeClaimTemplates"], claims);
    let retention = json!({"whenDeleted": "Delete", "whenScaled": "Retain"});
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], retention);
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert!(spec.get("strategy").is_none() && spec.get("replicas").is_none());
    let pod = &spec["template"]["spec"];
    let named = |list: &Value| {
        let names = list.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    assert!(named(&pod["containers"][0]["volumeMounts"]).contains("mirrors"));
    assert!(!named(&pod["volumes"]).contains("mirrors"), "the claim is the volume");
    for kind in ["HorizontalPodAutoscaler", "VerticalPodAutoscaler"] {
        let spec = &object(&objects, kind, "refinery-ctl")["spec"];
        let target = spec.get("scaleTargetRef").unwrap_or(&spec["targetRef"]);
        assert_eq!(target["kind"], "StatefulSet", "{kind}");
    }
}

#[tokio::test]
async fn a_budget_is_there_when_it_is_wanted() {
    let rows: [(&[&str], Option<Value>); 6] = [
        (&[], None),
        (&["rig.replicas=2"], Some(json!({"minAvailable": 1}))),
        (&["rig.replicas=2", "rig.podDisruptionBudget.enabled=false"], None),
        (&["rig.podDisruptionBudget.enabled=true"], Some(json!({"minAvailable": 1}))),
        (
            &["rig.replicas=2", "common.podDisruptionBudget.maxUnavailable=50%"],
            Some(json!({"maxUnavailable": "50%"})),
        ),
        (
            &["rig.replicas=2", "rig.podDisruptionBudget.minAvailable=0"],
            Some(json!({"minAvailable": 0})),
        ),
    ];
    for (set, wanted) in rows {
        let objects = render(set).await;
        let found = of_kind(&objects, "PodDisruptionBudget").first().map(|budget| {
            let mut spec = budget["spec"].clone();
            spec.as_object_mut().unwrap().remove("selector");
            spec
        });
        assert_eq!(found, wanted, "{set:?}");
    }
}

#[tokio::test]
async fn an_account_of_another_name_is_named_everywhere() {
    let set = ["polecat.serviceAccount.create=false", "polecat.serviceAccount.name=agents"];
    let objects = render(&set).await;
    let accounts: Vec<&str> = of_kind(&objects, "ServiceAccount").into_iter().map(name).collect();
    assert!(!accounts.contains(&"polecat-ctl") && !accounts.contains(&"agents"), "{accounts:?}");
    let pod = &object(&objects, "Deployment", "polecat-ctl")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "agents");
    for (kind, name) in
        [("ClusterRoleBinding", "gastown-polecat-ctl"), ("RoleBinding", "polecat-ctl")]
    {
        assert_eq!(object(&objects, kind, name)["subjects"][0]["name"], "agents");
    }
    let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
    let text = serde_json::to_string(&policies).unwrap();
    assert!(text.contains("system:serviceaccount:gastown-system:agents'"));
    assert!(!text.contains("gastown-system:polecat-ctl") && !text.contains("RELEASE_NAMESPACE"));
    for (controller, is_server) in
        [("witness-ctl", true), ("refinery-ctl", true), ("beadstore-ctl", true), ("rig-ctl", false)]
    {
        let list = env(&objects, controller, "GASTOWN_SERVICE_ACCOUNTS");
        assert_eq!(list.as_deref(), is_server.then_some("polecat-ctl=agents"), "{controller}");
    }
    assert_eq!(env(&render(&[]).await, "witness-ctl", "GASTOWN_SERVICE_ACCOUNTS"), None);
    let shared = refused(&["common.serviceAccount.name=all"]).await;
    assert!(shared.contains("each needs one of its own"), "{shared}");
}

#[tokio::test]
async fn an_image_is_pinned_by_its_digest_and_the_version_is_the_images() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let pinned = format!("rig.image.digest={digest}");
    let version = |objects: &[Value], kind: &str, name: &str| {
        object(objects, kind, name)["metadata"]["labels"]["app.kubernetes.io/version"].clone()
    };
    let objects = render(&[&pinned, "convoy.image.tag=v9"]).await;
    let image = |name: &str| {
        object(&objects, "Deployment", name).pointer(&format!("{CONTAINER}/image")).cloned()
    };
    assert_eq!(image("rig-ctl"), Some(json!(format!("ghcr.io/gastown-operator/rig-ctl@{digest}"))));
    for kind in ["Deployment", "Service", "NetworkPolicy", "ServiceAccount"] {
        assert_eq!(version(&objects, kind, "rig-ctl"), "sha256-0123456789ab", "{kind}");
        assert_eq!(version(&objects, kind, "convoy-ctl"), "v9", "{kind}");
        assert_eq!(version(&objects, kind, "witness-ctl"), env!("CARGO_PKG_VERSION"), "{kind}");
    }
    let both = render(&[&pinned, "rig.image.tag=v9"]).await;
    let image =
        object(&both, "Deployment", "rig-ctl").pointer(&format!("{CONTAINER}/image")).cloned();
    assert_eq!(image, Some(json!(format!("ghcr.io/gastown-operator/rig-ctl:v9@{digest}"))));
}

/// The controllers whose pods differ between two sets of values: those that an upgrade restarts.
async fn restarted(before: &[&str], after: &[&str]) -> BTreeSet<&'static str> {
    let (before, after) = (render(before).await, render(after).await);
    let pod = |objects: &[Value], name: &str| {
        object(objects, "Deployment", name)["spec"]["template"].clone()
    };
    let all = Controller::ALL.map(Controller::name).into_iter();
    all.filter(|&name| pod(&before, name) != pod(&after, name)).collect()
}

#[tokio::test]
async fn a_change_restarts_those_controllers_alone_that_it_is_about() {
    let rows: [(&[&str], &[&str]); 8] = [
        (&["rig.image.tag=v2"], &["rig-ctl"]),
        (&["rig.log.filter=debug"], &["rig-ctl"]),
        (
            &["common.podLabels.a=b", "rig.podLabels=null"],
            &["beadstore-ctl", "convoy-ctl", "polecat-ctl", "refinery-ctl", "witness-ctl"],
        ),
        // They read it from a file.
        (&["agent.image.tag=v2"], &[]),
        (
            &["polecat.serviceAccount.name=a"],
            &["beadstore-ctl", "polecat-ctl", "refinery-ctl", "witness-ctl"],
        ),
        (&["commonLabels.a=b", "commonAnnotations.c=d"], &[]),
        (
            &[
                "rig.replicas=3",
                "rig.service.annotations.a=b",
                "monitoring.podMonitor.enabled=true",
            ],
            &[],
        ),
        (&["crds.install=false", "admissionPolicies.enabled=false", "rbac.aggregate=true"], &[]),
    ];
    for (set, wanted) in rows {
        assert_eq!(
            restarted(&[], set).await,
            wanted.iter().copied().collect::<BTreeSet<_>>(),
            "{set:?}"
        );
    }
    for deployment in of_kind(&render(&[]).await, "Deployment") {
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert!(
            labels.get("helm.sh/chart").is_none(),
            "the chart's version restarts {}",
            name(deployment)
        );
    }
}

#[tokio::test]
async fn the_crds_are_those_of_the_api_and_stay_unless_they_are_not_to() {
    let objects = render(&[]).await;
    let crds = of_kind(&objects, "CustomResourceDefinition");
    for wanted in gastown_api::crds() {
        let wanted = serde_json::to_value(wanted).unwrap();
        let found = crds.iter().find(|crd| name(crd) == name(&wanted)).unwrap();
        assert_eq!(found["spec"]["names"], wanted["spec"]["names"]);
        let mut annotations = wanted["metadata"]["annotations"].clone();
        assert!(annotations[annotation::SCHEMA].is_string());
        annotations["helm.sh/resource-policy"] = "keep".into();
        assert_eq!(found["metadata"]["annotations"], annotations);
    }
    assert_eq!(crds.len(), gastown_api::crds().len());
    let unkept = render(&["crds.keep=false"]).await;
    for crd in of_kind(&unkept, "CustomResourceDefinition") {
        let annotations = crd["metadata"]["annotations"].as_object().unwrap();
        assert!(annotations.keys().eq([annotation::SCHEMA]), "{annotations:?}");
    }
    assert!(of_kind(&render(&["crds.install=false"]).await, "CustomResourceDefinition").is_empty());
}

#[tokio::test]
async fn a_monitor_selects_the_six_controllers() {
    let kinds = [
        ("serviceMonitor", "ServiceMonitor", "endpoints", "Service", "/metadata/labels"),
        (
            "podMonitor",
            "PodMonitor",
            "podMetricsEndpoints",
            "Deployment",
            "/spec/template/metadata/labels",
        ),
    ];
    for (value, kind, endpoints, of, labels) in kinds {
        assert!(of_kind(&render(&[]).await, kind).is_empty());
        let set = [
            "enabled=true",
            "labels.release=prometheus",
            "interval=30s",
            "namespace=monitoring",
            "endpointAdditionalProperties.scheme=http",
        ];
        let set = set.map(|setting| format!("monitoring.{value}.{setting}"));
        let objects = render(&set.each_ref().map(String::as_str)).await;
        let monitor = object(&objects, kind, "gastown-operator");
        assert_eq!(monitor["metadata"]["namespace"], "monitoring");
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        let spec = &monitor["spec"];
        assert_eq!(spec["namespaceSelector"]["matchNames"], json!([NAMESPACE]));
        let endpoint = &spec[endpoints][0];
        assert_eq!((&endpoint["path"], &endpoint["interval"]), (&json!("/metrics"), &json!("30s")));
        assert_eq!(endpoint["scheme"], "http");
        let wanted = spec["selector"]["matchLabels"].as_object().unwrap();
        let found = of_kind(&objects, of);
        let is_selected = |object: &&&Value| {
            wanted
                .iter()
                .all(|(key, value)| object.pointer(labels).unwrap().get(key) == Some(value))
        };
        assert_eq!(found.iter().filter(is_selected).count(), 6, "{kind}");
    }
    let both = ["monitoring.podMonitor.enabled=true", "monitoring.serviceMonitor.enabled=true"];
    assert!(refused(&both).await.contains("not both"));
}

#[tokio::test]
async fn a_vertical_autoscaler_is_that_of_its_controller() {
    let set = [
        "common.verticalPodAutoscaler.enabled=true",
        "rig.verticalPodAutoscaler.enabled=false",
        "witness.verticalPodAutoscaler.maxAllowed.memory=1Gi",
    ];
    let objects = render(&set).await;
    assert_eq!(of_kind(&objects, "VerticalPodAutoscaler").len(), 5);
    let spec = &object(&objects, "VerticalPodAutoscaler", "witness-ctl")["spec"];
    assert_eq!(spec["targetRef"]["name"], "witness-ctl");
    let policy = &spec["resourcePolicy"]["containerPolicies"][0];
    assert_eq!(policy["maxAllowed"]["memory"], "1Gi");
}

#[tokio::test]
async fn cert_manager_makes_the_secret_for_all_servers_by_an_authority_of_ours_or_yours() {
    let enabled = "tls.certManager.enabled=true";
    let objects = render(&[enabled]).await;
    assert!(of_kind(&objects, "Secret").is_empty());
    let certificate = &object(&objects, "Certificate", "gastown-tls")["spec"];
    assert_eq!(certificate["secretName"], "gastown-tls");
    let names = certificate["dnsNames"].as_array().unwrap();
    for server in ["refinery-ctl", "witness-ctl", "beadstore-ctl"] {
        assert!(names.contains(&json!(format!("{server}.{NAMESPACE}.svc"))), "{names:?}");
    }
    let issuer = certificate["issuerRef"]["name"].as_str().unwrap();
    let authority = &object(&objects, "Issuer", issuer)["spec"]["ca"]["secretName"];
    assert_eq!(&object(&objects, "Certificate", "gastown-ca")["spec"]["secretName"], authority);

    let theirs = render(&[enabled, "tls.certManager.issuerRef.name=ours"]).await;
    assert!(of_kind(&theirs, "Issuer").is_empty());
    let certificate = object(&theirs, "Certificate", "gastown-tls");
    assert_eq!(certificate["spec"]["issuerRef"]["name"], "ours");
}

#[tokio::test]
async fn roles_are_left_to_others_or_given_to_the_clusters_own() {
    let objects = render(&["rbac.create=false"]).await;
    let names: Vec<&str> = of_kind(&objects, "ClusterRole").into_iter().map(name).collect();
    // `helm test` has its own for as long as it runs.
    assert_eq!(names, ["gastown-install-check"]);
    assert!(of_kind(&objects, "Role").is_empty() && of_kind(&objects, "RoleBinding").is_empty());
    let aggregated = render(&["rbac.aggregate=true"]).await;
    let labels = &object(&aggregated, "ClusterRole", "gastown-operator-edit")["metadata"]["labels"];
    assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
    assert!(labels.get("rbac.authorization.k8s.io/aggregate-to-view").is_none());
}

#[tokio::test]
async fn further_objects_may_use_templates() {
    let set = [
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].metadata.name=more-{{ .Release.Name }}",
    ];
    object(&render(&set).await, "ConfigMap", "more-gastown");
}

/// What Artifact Hub shows.
#[tokio::test]
async fn the_chart_lists_its_images_and_kinds() {
    let chart =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/gastown-operator/Chart.yaml");
    let chart: Value = serde_saphyr::from_str(&std::fs::read_to_string(chart).unwrap()).unwrap();
    let listed = |list: &str, field: &str| -> BTreeSet<String> {
        let text = chart["annotations"][format!("artifacthub.io/{list}")].as_str().unwrap();
        let all: Vec<Value> = serde_saphyr::from_str(text).unwrap();
        all.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
    };
    let objects = render(&[]).await;
    let image = |deployment: &&Value| deployment.pointer(&format!("{CONTAINER}/image")).cloned();
    let deployments = of_kind(&objects, "Deployment");
    let images = deployments.iter().filter_map(image);
    let mut images: BTreeSet<String> =
        images.map(|image| image.as_str().unwrap().to_owned()).collect();
    images.insert(agent_image(&objects).to_owned());
    assert_eq!(listed("images", "image"), images);
    let crds = gastown_api::crds();
    let kinds: BTreeSet<String> = crds.iter().map(|crd| crd.spec.names.kind.clone()).collect();
    assert_eq!(listed("crds", "kind"), kinds);
}

/// Why these values are refused.
async fn refused(set: &[&str]) -> String {
    let out = helm(set).await;
    assert!(!out.status.success(), "{set:?} was taken");
    String::from_utf8(out.stderr).unwrap()
}
