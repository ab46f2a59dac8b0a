//! Rules of the Polecat, and of the pod-shaped parts that a Refinery has too.

use serde_json::{Value, json};

use crate::fixture::{Fixture, polecat, refinery, rig, with, without};

#[tokio::test]
async fn a_polecat_has_a_rig_and_a_name_that_fits_a_pod() {
    let fixture = Fixture::new().await;
    fixture.refuses(&without(polecat(), "spec/rig"), &["spec.rig", "Required"]).await;
    fixture.refuses(&with(polecat(), "spec/rig", json!("")), &["spec.rig"]).await;
    fixture.accepts(&with(polecat(), "metadata/name", json!("p".repeat(55)))).await;
    fixture
        .refuses(
            &with(polecat(), "metadata/name", json!("p".repeat(56))),
            &["at most 55 characters"],
        )
        .await;
    fixture.accepts(&without(polecat(), "spec/kubernetes")).await;
    fixture
        .refuses(
            &without(polecat(), "spec/kubernetes/gitRepository"),
            &["gitRepository", "Required"],
        )
        .await;
}

#[tokio::test]
async fn enums_accept_their_values_only() {
    let fixture = Fixture::new().await;
    for (place, good, bad) in [
        ("spec/desiredState", &["Idle", "Working", "Terminated"][..], "Paused"),
        ("spec/executionMode", &["kubernetes"], "local"),
        ("spec/agent", &["claude-code"], "opencode"),
        ("spec/agentConfig/provider", &["litellm", "anthropic", "openai", "ollama"], "bedrock"),
        ("spec/kubernetes/sshStrictHostKeyChecking", &["yes"], "no"),
    ] {
        for word in good {
            fixture.accepts(&with(polecat(), place, json!(word))).await;
        }
        fixture
            .refuses(
                &with(polecat(), place, json!(bad)),
                &["Unsupported value", &place.replace('/', ".")],
            )
            .await;
    }
}

#[tokio::test]
async fn labels_and_annotations_of_the_pod_are_ones_that_a_pod_may_have() {
    let fixture = Fixture::new().await;
    let labels = |map: Value| with(polecat(), "spec/kubernetes/podLabels", map);
    let annotations = |map: Value| with(polecat(), "spec/kubernetes/podAnnotations", map);
    fixture.accepts(&labels(json!({ "app": "", "example.com/team": "a-b_c.1" }))).await;
    fixture.accepts(&annotations(json!({ "sidecar.istio.io/inject": "any text: {}" }))).await;
    for bad in [json!({ "a b": "x" }), json!({ "-a": "x" }), json!({ "a/b/c": "x" })] {
        fixture.refuses(&labels(bad.clone()), &["podLabels has a key"]).await;
        fixture.refuses(&annotations(bad), &["podAnnotations has a key"]).await;
    }
    for bad in ["a b", "-a", "a-"] {
        fixture.refuses(&labels(json!({ "app": bad })), &["podLabels has a value"]).await;
    }
    fixture.refuses(&labels(json!({ "app": "x".repeat(64) })), &["podLabels"]).await;
}

#[tokio::test]
async fn numbers_of_a_polecat_are_within_their_bounds() {
    let fixture = Fixture::new().await;
    for (place, good, bad) in [
        ("spec/ttlSecondsAfterFinished", &[0, 1][..], &[-1][..]),
        ("spec/maxIdleSeconds", &[0, 1], &[-1]),
        ("spec/priority", &[0, 4], &[-1, 5]),
        ("spec/maxRetries", &[0, 100], &[-1, 101]),
        ("spec/maxAttempts", &[1, 100], &[0, 101]),
        ("spec/kubernetes/activeDeadlineSeconds", &[1, 1_000_000], &[0, -1]),
        ("spec/budget/maxTokens", &[1], &[0]),
        ("spec/budget/maxTurns", &[1], &[0]),
    ] {
        for n in good {
            fixture.accepts(&with(polecat(), place, json!(n))).await;
        }
        for n in bad {
            fixture.refuses(&with(polecat(), place, json!(n)), &[&place.replace('/', ".")]).await;
        }
    }
    for cost in [json!(0.01), json!(5)] {
        fixture.accepts(&with(polecat(), "spec/budget/maxCostUSD", cost)).await;
    }
    for cost in [json!(0), json!(-0.5)] {
        fixture
            .refuses(
                &with(polecat(), "spec/budget/maxCostUSD", cost),
                &["budget.maxCostUSD must be more than 0"],
            )
            .await;
    }
}

#[tokio::test]
async fn a_generic_agent_names_its_program() {
    let fixture = Fixture::new().await;
    let generic = with(polecat(), "spec/agent", json!("generic"));
    let words = ["spec.agentConfig.command is required"];
    fixture.refuses(&generic, &words).await;
    fixture.refuses(&with(generic.clone(), "spec/agentConfig", json!({})), &words).await;
    fixture.refuses(&with(generic.clone(), "spec/agentConfig/command", json!([])), &words).await;
    fixture.accepts(&with(generic, "spec/agentConfig/command", json!(["/bin/true"]))).await;
}

#[tokio::test]
async fn a_request_does_not_exceed_its_limit() {
    let fixture = Fixture::new().await;
    let places = [
        (polecat(), "spec/resources"),
        (polecat(), "spec/kubernetes/resources"),
        (with(refinery(), "spec/gateTemplate", json!({})), "spec/gateTemplate/resources"),
        (
            with(rig(), "spec/refinery", json!({ "gateTemplate": {} })),
            "spec/refinery/gateTemplate/resources",
        ),
    ];
    let resources = |name: &str, request: Value, limit: Value| json!({ "requests": { name: request }, "limits": { name: limit } });
    for (base, place) in places {
        for good in [
            json!({}),
            json!({ "requests": { "cpu": "4" } }),
            json!({ "limits": { "memory": "1Gi" } }),
            json!({ "requests": { "cpu": "4" }, "limits": { "memory": "1Gi" } }),
            resources("cpu", json!("500m"), json!(1)),
            resources("cpu", json!(2), json!("2000m")),
            resources("memory", json!("1024Mi"), json!("1Gi")),
            resources("nvidia.com/gpu", json!(1), json!(1)),
        ] {
            fixture.accepts(&with(base.clone(), place, good)).await;
        }
        for (name, request, limit) in [
            ("cpu", json!("1001m"), json!(1)),
            ("cpu", json!(3), json!("2")),
            ("memory", json!("2Gi"), json!("2G")),
            ("ephemeral-storage", json!("2Gi"), json!("1Gi")),
        ] {
            let bad = with(base.clone(), place, resources(name, request, limit));
            fixture
                .refuses(
                    &bad,
                    &[&format!("{name} request exceeds limit"), &place.replace('/', ".")],
                )
                .await;
        }
        for quantity in [json!("much"), json!("-1"), json!("1Xi"), json!(""), json!("1e1.5")] {
            fixture
                .refuses(
                    &with(base.clone(), place, json!({ "limits": { "cpu": quantity } })),
                    &["limits.cpu"],
                )
                .await;
        }
    }
}

#[tokio::test]
async fn volumes_are_of_kinds_that_give_no_access_to_the_node() {
    let fixture = Fixture::new().await;
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = json!("v");
        with(polecat(), "spec/kubernetes/volumes", json!([volume]))
    };
    for good in [
        json!({ "emptyDir": {} }),
        json!({ "configMap": { "name": "a", "items": [{ "key": "k", "path": "p" }] } }),
        json!({ "secret": { "secretName": "a" } }),
        json!({ "persistentVolumeClaim": { "claimName": "a" } }),
        json!({ "projected": { "sources": [{ "configMap": { "name": "a" } }, { "secret": { "name": "b" } }] } }),
    ] {
        fixture.accepts(&volume(good)).await;
    }
    fixture.refuses(&volume(json!({})), &["volumes[0]", "exactly one of emptyDir"]).await;
    fixture
        .refuses(&volume(json!({ "emptyDir": {}, "secret": {} })), &["exactly one of emptyDir"])
        .await;
}

#[tokio::test]
async fn a_volume_of_another_kind_is_refused_also_without_strict_validation() {
    let fixture = Fixture::new().await;
    let base = fixture.apply(&polecat()).await;
    let change = |volume: Value| json!({ "spec": { "kubernetes": { "volumes": [volume] } } });
    let token = json!({ "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "t", "audience": "gastown" } }] } });
    let kinds = [
        (json!({ "name": "v", "hostPath": { "path": "/" } }), "exactly one of emptyDir"),
        (json!({ "name": "v", "nfs": { "server": "s", "path": "/" } }), "exactly one of emptyDir"),
        (json!({ "name": "v", "csi": { "driver": "d" } }), "exactly one of emptyDir"),
        (json!({ "name": "v", "ephemeral": {} }), "exactly one of emptyDir"),
        (token, "service-account tokens are not allowed"),
    ];
    for (volume, words) in kinds {
        let error = fixture.change(&base, &change(volume)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_mount_shows_a_volume_of_the_user_and_hides_nothing_of_ours() {
    let fixture = Fixture::new().await;
    let mounted = |name: &str, path: &str| {
        let base =
            with(polecat(), "spec/kubernetes/volumes", json!([{ "name": "v", "emptyDir": {} }]));
        with(base, "spec/kubernetes/volumeMounts", json!([{ "name": name, "mountPath": path }]))
    };
    for good in [
        "/data",
        "/home/nonroot/.cargo",
        "/etc/settings",
        "/gastown-data",
        "/tmpfs",
        "/var/run/secrets/x",
    ] {
        fixture.accepts(&mounted("v", good)).await;
    }
    for bad in [
        "data",
        "/",
        "/gastown",
        "/gastown/tools/bin",
        "/workspace",
        "/workspace/repo",
        "/git-creds",
        "/claude-creds",
        "/ssh-known-hosts",
        "/tmp",
        "/tmp/x",
        "/home",
        "/home/nonroot",
        "/home/nonroot/",
        "/data/../gastown",
        "//gastown",
        "/./gastown",
        "/proc/1",
        "/dev",
        "/a:b",
        "/var/run/gastown",
    ] {
        fixture
            .refuses(
                &mounted("v", bad),
                &["volumeMounts[].mountPath must be an absolute path outside"],
            )
            .await;
    }
    for name in ["other", "git-creds", "private", "podinfo"] {
        fixture.refuses(&mounted(name, "/data"), &["must be one of kubernetes.volumes"]).await;
    }
    for name in [
        "git-creds",
        "private",
        "upstream",
        "workspace",
        "run",
        "tools",
        "podinfo",
        "prompt",
        "claude-creds",
        "home",
        "tmp",
    ] {
        let ours =
            with(polecat(), "spec/kubernetes/volumes", json!([{ "name": name, "emptyDir": {} }]));
        fixture.refuses(&ours, &["is one that the operator uses itself"]).await;
    }
    let twice = json!([{ "name": "v", "emptyDir": {} }, { "name": "v", "emptyDir": {} }]);
    fixture.refuses(&with(polecat(), "spec/kubernetes/volumes", twice), &["Duplicate"]).await;
}

#[tokio::test]
async fn an_environment_variable_has_one_name_and_one_source() {
    let fixture = Fixture::new().await;
    let templates = with(refinery(), "spec/gateTemplate", json!({}));
    for (base, place) in [
        (polecat(), "spec/kubernetes/env"),
        (with(polecat(), "spec/agentConfig", json!({})), "spec/agentConfig/env"),
        (templates, "spec/gateTemplate/env"),
    ] {
        let env = |list: Value| with(base.clone(), place, list);
        fixture.accepts(&env(json!([{ "name": "A" }, { "name": "b.c-d", "value": "" }]))).await;
        fixture.accepts(&env(json!([{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]))).await;
        fixture.refuses(&env(json!([{ "name": "A" }, { "name": "A" }])), &["Duplicate"]).await;
        fixture.refuses(&env(json!([{ "name": "1A" }])), &["must be a variable's name"]).await;
        fixture.refuses(&env(json!([{ "name": "A=B" }])), &["must be a variable's name"]).await;
        let both = json!([{ "name": "A", "value": "x", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]);
        fixture.refuses(&env(both), &["value or valueFrom, not both"]).await;
    }
}

#[tokio::test]
async fn lists_and_texts_have_an_end() {
    let fixture = Fixture::new().await;
    let many = |n: usize, item: &dyn Fn(usize) -> Value| Value::Array((0..n).map(item).collect());
    let env = |i: usize| json!({ "name": format!("V{i}") });
    let toleration = |_: usize| json!({ "operator": "Exists" });
    let secret = |i: usize| json!({ "name": format!("s{i}") });
    let volume = |i: usize| json!({ "name": format!("v{i}"), "emptyDir": {} });
    for (place, most, item) in [
        ("spec/kubernetes/env", 100, &env as &dyn Fn(usize) -> Value),
        ("spec/kubernetes/tolerations", 32, &toleration),
        ("spec/kubernetes/imagePullSecrets", 16, &secret),
        ("spec/kubernetes/volumes", 16, &volume),
    ] {
        fixture.accepts(&with(polecat(), place, many(most, item))).await;
        fixture
            .refuses(
                &with(polecat(), place, many(most + 1, item)),
                &["Too many", &place.replace('/', ".")],
            )
            .await;
    }
    for (place, most) in
        [("spec/taskDescription", 131_072), ("spec/rig", 253), ("spec/kubernetes/image", 1024)]
    {
        fixture.accepts(&with(polecat(), place, json!("x".repeat(most)))).await;
        fixture
            .refuses(
                &with(polecat(), place, json!("x".repeat(most + 1))),
                &["Too long", &place.replace('/', ".")],
            )
            .await;
    }
}
