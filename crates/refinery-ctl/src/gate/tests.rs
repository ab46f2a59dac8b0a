use std::sync::Arc;

use gastown_api::{GateTemplate, RefinerySpec};
use gastown_runtime::network::{EgressRules, NetworkArgs};
use gastown_runtime::proxy::ProxyArgs;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

const NO_PODS: &[Arc<Pod>] = &[];
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn job(status: &Value) -> Job {
    serde_json::from_value(json!({"metadata": {"name": "gate-1"}, "status": status})).unwrap()
}

fn with_pod(status: &Value) -> RunState {
    with_pod_since("2026-01-01T00:00:00Z", status)
}

fn with_pod_since(created: &str, status: &Value) -> RunState {
    let pod = json!({"metadata": {"name": "p", "creationTimestamp": created}, "status": status});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    state(&job(&json!({})), &[Arc::new(pod)], now())
}

fn ended(name: &str, code: i32, reason: &str) -> Value {
    let terminated = json!({"exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z", "message": "text"});
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}})
}

fn waiting(name: &str, reason: &str) -> Value {
    let state = json!({"waiting": {"reason": reason}});
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn failed(more: &Value, fetch: i32, gate: Option<(i32, &str)>) -> RunState {
    let mut status = json!({
        "phase": "Failed",
        "initContainerStatuses": [ended("fetch", fetch, "")],
        "containerStatuses": gate.map(|(code, reason)| ended("gate", code, reason)).into_iter().collect::<Vec<_>>(),
    });
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with_pod(&status)
}

fn is_broken(state: &RunState) -> bool {
    matches!(state, RunState::Broken(_))
}

#[test]
fn only_the_gate_s_own_exit_code_blames_its_author() {
    let none = json!({});
    assert_eq!(with_pod(&json!({"phase": "Succeeded"})), RunState::Passed);
    assert_eq!(failed(&none, 0, Some((1, "Error"))), RunState::Failed);
    assert_eq!(failed(&none, 0, Some((137, "Error"))), RunState::Failed);
    assert!(is_broken(&failed(&none, 0, Some((137, "OOMKilled")))));
    assert!(is_broken(&failed(&none, 0, Some((128, "StartError")))));
    assert!(is_broken(&failed(&none, 0, Some((137, "ContainerStatusUnknown")))));
    assert!(is_broken(&failed(&none, 1, None)));
    assert!(is_broken(&failed(&none, 0, None)));
    assert!(is_broken(&failed(&json!({"reason": "Evicted"}), 0, Some((1, "Error")))));
    let disrupted = json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]});
    assert!(is_broken(&failed(&disrupted, 0, Some((1, "Error")))));
}

#[test]
fn a_deadline_blames_the_gate_only_if_it_had_started() {
    let late = json!({"reason": "DeadlineExceeded"});
    assert_eq!(failed(&late, 0, Some((137, "Error"))), RunState::Failed);
    assert!(is_broken(&failed(&late, 0, None)));
}

#[test]
fn an_image_that_cannot_be_pulled_breaks_the_run_soon_and_a_missing_node_in_the_end() {
    let image = with_pod(
        &json!({"phase": "Pending", "containerStatuses": [waiting("gate", "ImagePullBackOff")]}),
    );
    assert!(is_broken(&image), "{image:?}");
    let starting = with_pod(
        &json!({"phase": "Pending", "containerStatuses": [waiting("gate", "PodInitializing")]}),
    );
    assert_eq!(starting, RunState::Running("its pod is starting".into()));
    let unscheduled = json!([{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu"}]);
    let unscheduled = json!({"phase": "Pending", "conditions": unscheduled});
    assert_eq!(
        with_pod_since("2026-01-01T00:50:01Z", &unscheduled),
        RunState::Running("its pod is not scheduled: 0/1 nodes: Insufficient cpu".into())
    );
    let broken = with_pod_since("2026-01-01T00:50:00Z", &unscheduled);
    assert!(is_broken(&broken), "{broken:?}");
}

#[test]
fn a_failed_job_without_a_pod_is_broken_and_not_failed() {
    let condition = |kind: &str, at: &str| {
        job(
            &json!({"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": at}]}),
        )
    };
    assert!(is_broken(&state(&condition("Failed", "2026-01-01T00:00:00Z"), NO_PODS, now())));
    assert!(matches!(
        state(&condition("Failed", "2026-01-01T00:59:58Z"), NO_PODS, now()),
        RunState::Running(_)
    ));
    assert_eq!(
        state(&condition("Complete", "2026-01-01T00:00:00Z"), NO_PODS, now()),
        RunState::Passed
    );
    assert!(matches!(state(&job(&json!({})), NO_PODS, now()), RunState::Running(_)));
}

fn refinery() -> Refinery {
    let mut r = Refinery::new(
        "r",
        RefinerySpec {
            test_command: Some("make 'te st'; $X".into()),
            ..RefinerySpec::of_rig("web")
        },
    );
    r.metadata.namespace = Some("ns".into());
    r.metadata.uid = Some("uid-r".into());
    r
}

fn settings() -> GateSettings {
    GateSettings {
        image: "agent:1".into(),
        pull_policy: "IfNotPresent".into(),
        git_endpoint: "https://refinery-ctl.gastown-system.svc:9418".into(),
        seconds: 60,
        fixed_ids: true,
        proxy: ProxyArgs {
            pod_https_proxy: Some("http://proxy:3128".into()),
            ..ProxyArgs::default()
        },
        network: NetworkArgs {
            network_policies: true,
            dns_egress: r#"[{"ports": [{"protocol": "UDP", "port": 53}]}]"#.parse().unwrap(),
        },
        release: "gastown-system".into(),
    }
}

fn made() -> GateRun {
    let commit = |c: &str| c.repeat(40).parse().unwrap();
    let car = Car { request: RequestId("uid-m".into()), base: commit("a"), commit: commit("c") };
    let request = json!({
        "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "MergeRequest",
        "metadata": {"name": "mr", "namespace": "team", "uid": "uid-m"},
        "spec": {"rigRef": "web", "sourceBranch": "b", "commit": "b".repeat(40), "targetBranch": "main"},
    });
    let request = serde_json::from_value(request).unwrap();
    let gate = gate_id(&refinery(), &settings()).unwrap();
    let mut made = run(&refinery(), &request, &car, &gate, 1, GateRunPurpose::Test);
    made.metadata.uid = Some("uid-run".into());
    made
}

/// A gate that is made today may run `gt` of the version before.
#[test]
fn the_variables_of_fetch_are_those_that_an_earlier_gt_reads() {
    let job =
        serde_json::to_value(super::job(&refinery(), &settings(), &made(), "PEM", PARENT).unwrap());
    let job = job.unwrap();
    let fetch = &job["spec"]["template"]["spec"]["initContainers"][0];
    let variables = fetch["env"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let today = variables.map(|e| (text(&e["name"]), text(&e["value"]))).collect();
    assert_eq!(gastown_compat::v0_1_0::problems_of_gt("fetch", &today), Vec::<String>::new());
    for (version, sample) in gastown_compat::variables("gate-variables.json") {
        let missing: Vec<_> =
            sample["fetch"].keys().filter(|name| !today.contains_key(*name)).collect();
        assert!(missing.is_empty(), "fetch of {version} had {missing:?}");
    }
}

#[test]
fn a_run_is_ours_only_where_we_control_it_and_its_name_follows_from_its_spec() {
    let own = OwnRun::of(&made(), &refinery()).unwrap();
    assert_eq!((own.request.0.as_str(), own.past.end), ("uid-m", None));
    let forgeries: [fn(&mut GateRun); 9] = [
        |run| run.metadata.name = Some("gate-0123456789abcdef".into()),
        |run| run.metadata.namespace = Some("tenant".into()),
        |run| run.metadata.owner_references = None,
        |run| run.spec.candidate = "d".repeat(40),
        |run| run.spec.gate_digest = "another".into(),
        |run| run.spec.members[0].uid = "another".into(),
        |run| run.spec.members.clear(),
        |run| run.spec.run = 2,
        |run| run.spec.refinery_ref = "another".into(),
    ];
    for forge in forgeries {
        let mut forged = made();
        forge(&mut forged);
        assert_eq!(OwnRun::of(&forged, &refinery()), None);
    }
    let mut other = refinery();
    other.metadata.uid = Some("another".into());
    assert_eq!(OwnRun::of(&made(), &other), None);
}

/// Names follow from digests, and times of ends are in whole seconds.
#[test]
fn runs_of_one_request_are_in_the_order_of_their_numbers() {
    let run = |number, name: &str, finished: Option<&str>| {
        let mut own = OwnRun::of(&made(), &refinery()).unwrap();
        own.past.number = number;
        own.name = name.into();
        own.finished = finished.map(|at| at.parse().unwrap());
        own
    };
    let (early, late) = (Some("2026-01-02T03:04:05Z"), Some("2026-01-02T03:04:06Z"));
    let mut runs = [
        run(2, "b", early),
        run(4, "a", late),
        run(3, "a", early),
        run(5, "c", None),
        run(1, "c", early),
    ];
    runs.sort_by(OwnRun::by_end);
    assert_eq!(runs.map(|run| run.past.number), [5, 1, 2, 3, 4]);
}

#[test]
fn of_several_pods_of_a_job_none_is_believed() {
    let pod: Pod = serde_json::from_value(json!({"status": {"phase": "Succeeded"}})).unwrap();
    let pod = Arc::new(pod);
    let of = |pods: &[Arc<Pod>]| state(&job(&json!({})), pods, now());
    assert_eq!(of(std::slice::from_ref(&pod)), RunState::Passed);
    assert!(matches!(of(&[pod.clone(), pod]), RunState::Broken(_)));
}

#[test]
fn the_gate_s_pod_is_restricted_and_has_no_token_beside_its_command() {
    let made = super::job(&refinery(), &settings(), &made(), "PEM", PARENT).unwrap();
    let spec = made.spec.unwrap();
    assert_eq!(spec.backoff_limit, Some(0));
    assert_eq!(spec.ttl_seconds_after_finished, None);
    let pod = spec.template.spec.unwrap();
    assert_eq!(
        (pod.automount_service_account_token, pod.active_deadline_seconds),
        (Some(false), Some(60))
    );
    let gate = &pod.containers[0];
    // The command is an argument of its own; no other command is built from it.
    assert_eq!(gate.command.as_ref().unwrap(), &["/bin/sh", "-c", "make 'te st'; $X"]);
    assert!(gate.volume_mounts.iter().flatten().all(|m| m.name != "token"));
    let security = gate.security_context.as_ref().unwrap();
    assert_eq!(
        (security.run_as_non_root, security.allow_privilege_escalation),
        (Some(true), Some(false))
    );
    let fetch = &pod.init_containers.as_ref().unwrap()[0];
    let env = |container: &k8s_openapi::api::core::v1::Container, name: &str| {
        let found = container.env.iter().flatten().find(|e| e.name == name);
        found.and_then(|e| e.value.clone()).unwrap_or_default()
    };
    assert_eq!(
        env(fetch, "GASTOWN_GIT_URL"),
        "https://refinery-ctl.gastown-system.svc:9418/git/web/main"
    );
    assert_eq!(env(fetch, "GASTOWN_BASE"), "a".repeat(40));
    assert_eq!(env(fetch, "GASTOWN_TARGET_BRANCH"), "main");
    for container in [fetch, gate] {
        assert_eq!(env(container, "HTTPS_PROXY"), "http://proxy:3128");
        assert!(env(container, "NO_PROXY").contains(".svc"));
    }
}

#[test]
fn a_gate_names_its_user_unless_the_platform_does() {
    for fixed_ids in [true, false] {
        let settings = GateSettings { fixed_ids, ..settings() };
        let made = super::job(&refinery(), &settings, &made(), "PEM", PARENT).unwrap();
        let pod = made.spec.unwrap().template.spec.unwrap().security_context.unwrap();
        let id = fixed_ids.then_some(65532);
        assert_eq!((pod.run_as_user, pod.run_as_group, pod.fs_group), (id, id, id));
        assert_eq!(pod.run_as_non_root, Some(true));
    }
}

#[test]
fn a_gate_fetches_all_history_unless_its_refinery_limits_it() {
    let depth = |refinery: &Refinery| {
        let made = super::job(refinery, &settings(), &made(), "PEM", PARENT).unwrap();
        let fetch = made.spec.unwrap().template.spec.unwrap().init_containers.unwrap().remove(0);
        let found = fetch.env.unwrap_or_default().into_iter();
        found.filter(|e| e.name == "GASTOWN_FETCH_DEPTH").find_map(|e| e.value)
    };
    let mut limited = refinery();
    limited.spec.gate_template =
        Some(GateTemplate { fetch_depth: Some(1), ..GateTemplate::default() });
    assert_eq!((depth(&refinery()), depth(&limited)), (None, Some("1".into())));
    assert_ne!(gate_id(&limited, &settings()), gate_id(&refinery(), &settings()));
}

#[test]
fn another_command_or_image_is_another_gate() {
    let mut other = refinery();
    other.spec.test_command = Some("make".into());
    assert_ne!(gate_id(&other, &settings()), gate_id(&refinery(), &settings()));
    other.spec.test_command = Some("  ".into());
    assert_eq!(gate_id(&other, &settings()), None);
    let own = |image: &str| {
        let mut refinery = refinery();
        let template = GateTemplate { image: Some(image.into()), ..GateTemplate::default() };
        refinery.spec.gate_template = Some(template);
        refinery
    };
    assert_ne!(gate_id(&own("a"), &settings()), gate_id(&own("b"), &settings()));
}

#[test]
fn another_image_of_agents_is_another_gate_only_where_the_gate_runs_in_it() {
    let later = GateSettings { image: "agent:2".into(), ..settings() };
    assert_ne!(gate_id(&refinery(), &later), gate_id(&refinery(), &settings()));
    let mut own = refinery();
    own.spec.gate_template =
        Some(GateTemplate { image: Some("python:3".into()), ..GateTemplate::default() });
    assert_eq!(gate_id(&own, &later), gate_id(&own, &settings()));
}

#[test]
fn evidence_is_the_cleaned_end_of_the_log() {
    assert_eq!(evidence("first\nlast \u{1b}[31mred\n", 8), "…[31mred");
    assert_eq!(evidence("\u{1b}[31mred\n", 99), "\u{fffd}[31mred");
}

#[test]
fn a_starting_run_has_one_message_and_not_one_for_each_step() {
    let fresh = |seconds: i64| {
        let at = Timestamp::from_second(now().as_second() - seconds).unwrap();
        let job = json!({"metadata": {"name": "gate-1", "creationTimestamp": at.to_string()}});
        state(&serde_json::from_value(job).unwrap(), NO_PODS, now())
    };
    let starts = RunState::Running("its pod is starting".into());
    assert_eq!(fresh(1), starts);
    assert_eq!(with_pod(&json!({"phase": "Pending"})), starts);
    assert_eq!(fresh(60), RunState::Running("it has no pod yet; see its events".into()));
    assert!(is_broken(&fresh(600)), "a quota, for example");
    // Its containers have ended, the pod's phase follows.
    let ending = json!({"phase": "Running", "containerStatuses": [ended("gate", 0, "Completed")]});
    assert_eq!(with_pod(&ending), RunState::Running(String::new()));
}

#[test]
fn gates_reach_the_candidate_s_server_and_dns_and_what_their_refinery_allows() {
    let rules =
        |refinery: &Refinery| policy(refinery, &settings()).unwrap().spec.unwrap().egress.unwrap();
    let plain = rules(&refinery());
    assert_eq!(plain.len(), 2, "{plain:?}");
    assert_eq!(plain[0], settings().network.dns_egress.0[0]);
    assert_eq!(
        serde_json::to_value(&plain[1]).unwrap(),
        json!({
            "ports": [{"protocol": "TCP", "port": 9418}],
            "to": [{
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gastown-system"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "refinery-ctl"}},
            }],
        })
    );
    let more: EgressRules = r#"[{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]"#.parse().unwrap();
    let mut open = refinery();
    open.spec.gate_template =
        Some(GateTemplate { egress: more.0.clone(), ..GateTemplate::default() });
    assert_eq!(rules(&open), [plain, more.0].concat());
}

#[test]
fn the_policy_selects_the_gates_of_its_own_refinery_and_lets_nobody_in() {
    let policy = policy(&refinery(), &settings()).unwrap();
    let spec = policy.spec.clone().unwrap();
    assert_eq!(spec.ingress, Some(Vec::new()));
    assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
    let selected = spec.pod_selector.unwrap().match_labels.unwrap();
    assert_eq!(selected["gastown.io/refinery-uid"], "uid-r");
    let run = made();
    let job = super::job(&refinery(), &settings(), &run, "PEM", PARENT).unwrap();
    let pod = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
    assert!(
        selected.iter().all(|(key, value)| pod.get(key) == Some(value)),
        "{selected:?} {pod:?}"
    );
    let owner = &policy.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Refinery", "uid-r"));
    assert_eq!(policy.metadata.namespace.as_deref(), Some("ns"));
}

#[test]
fn there_is_no_policy_where_the_installation_has_none() {
    let mut without = settings();
    without.network.network_policies = false;
    assert_eq!(policy(&refinery(), &without), None);
}
