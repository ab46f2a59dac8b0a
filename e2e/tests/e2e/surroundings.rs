//! What a repository and a namespace may have: submodules and large files, the proxies of a mesh, a
//! quota, and users that the platform chooses.

use anyhow::{Context, Result, ensure};
use e2e::environment::{Environment, text};
use e2e::polecats::{
    LIMIT, await_landed, await_reason, check_described, command, first, pod, script, specify, task,
};
use e2e::refs::Remote;
use gastown_api::names::{condition, label, reason};
use gastown_cluster::http_client;
use gastown_cluster::install::SYSTEM;
use gastown_demo::{Plan, Scenario, Settings, clear, git};
use gastown_fakes::messages::Script;
use gastown_types::digest::sha256;
use http::Method;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Its repository has a submodule and a large file.
const MODULES: &str = "modules";
/// A container that does not end by itself is put into its pod.
const MESHED: &str = "meshed";
/// It meets a quota on limits, and runs as a user that it does not name.
const METERED: &str = "metered";

const POLICY: &str = "e2e-mesh";
/// Names of the policies that choose the users of METERED's pods and of gates.
const USERS: [&str; 2] = ["e2e-users", "e2e-gate-users"];
/// A user as OpenShift gives it to a namespace; its group is 0.
const USER: i64 = 1_000_650_000;
const QUOTA: &str = "limits";

/// The large file's content before and after.
const BEFORE: &str = "the first content\n";
const AFTER: &str = "the second content\n";

/// The gate runs as the user that the platform chose, and has the submodule's file, and the large file's content instead of its pointer.
const GATE: &str = "test $(id -u):$(id -g) = 1000650000:0 && grep -q books library/shelf && ! grep -q git-lfs asset.bin";

/// Three Polecats, each in other surroundings, land in one namespace.
pub async fn work_lands(env: &Environment) -> Result<()> {
    let settings = env.settings("surroundings", LIMIT);
    let mut plan = Plan::default_project().await?;
    GATE.clone_into(&mut plan.test);
    let library = TempDir::new()?;
    extend(&mut plan, &library).await?;
    let policies = policies(&settings);
    let file = library.path().join("policy.json");
    std::fs::write(&file, policies.to_string())?;
    let played = async {
        let scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts()).await?;
        env.kubectl.output(&["apply", "-f", text(&file)?]).await?;
        fill(&scenario, &library).await?;
        play(env, &scenario, &plan).await
    };
    let played = played.await;
    env.kubectl.output(&["delete", "--ignore-not-found", "-f", text(&file)?]).await?;
    played?;
    clear(&env.client, &settings).await
}

/// Adds a submodule and a large file to the plan's repository; `library` becomes the submodule's.
async fn extend(plan: &mut Plan, library: &TempDir) -> Result<()> {
    let dir = library.path().join("work");
    std::fs::create_dir(&dir)?;
    git(&dir, &["init", "--quiet", "--initial-branch=main"]).await?;
    std::fs::write(dir.join("shelf"), "books\n")?;
    git(&dir, &["add", "shelf"]).await?;
    git(&dir, &["commit", "--quiet", "--message", "Put up a shelf"]).await?;
    let commit = head(&dir).await?;

    let dir = plan.path();
    git(&dir, &["checkout", "--quiet", "--detach", &plan.base]).await?;
    let module = "[submodule \"library\"]\n\tpath = library\n\turl = ../library.git\n";
    std::fs::write(dir.join(".gitmodules"), module)?;
    std::fs::write(dir.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n")?;
    std::fs::write(dir.join("asset.bin"), pointer(BEFORE))?;
    git(&dir, &["add", ".gitmodules", ".gitattributes", "asset.bin"]).await?;
    let link = format!("160000,{commit},library");
    git(&dir, &["update-index", "--add", "--cacheinfo", &link]).await?;
    git(&dir, &["commit", "--quiet", "--message", "Use the library and an asset"]).await?;
    plan.base = head(&dir).await?;
    Ok(())
}

async fn head(dir: &std::path::Path) -> Result<String> {
    Ok(String::from_utf8(git(dir, &["rev-parse", "HEAD"]).await?)?.trim().to_owned())
}

fn pointer(content: &str) -> String {
    let (oid, size) = (sha256(content), content.len());
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
}

/// Pushes the submodule's repository and uploads the large file.
async fn fill(scenario: &Scenario, library: &TempDir) -> Result<()> {
    scenario.create_repository("library").await?;
    let url = scenario.url_here("library.git");
    git(&library.path().join("work"), &["push", "--quiet", &url, "HEAD:refs/heads/main"]).await?;
    http_client::send(Method::PUT, &object(scenario, BEFORE), BEFORE.into()).await?;
    Ok(())
}

/// The URL of a large file.
fn object(scenario: &Scenario, content: &str) -> String {
    scenario.url_here(&format!("project.git/info/lfs/objects/{}", sha256(content)))
}

fn scripts() -> Vec<Script> {
    let modules = format!(
        "set -e; test \"$(cat library/shelf)\" = books; test \"$(cat asset.bin)\" = '{}'; \
         echo '{}' >asset.bin; git add asset.bin; git commit -qm 'Change the asset'",
        BEFORE.trim(),
        AFTER.trim()
    );
    let plain =
        |name: &str| format!("echo >{name} && git add {name} && git commit -qm 'Add {name}'");
    let one = |name: &str, bash: &str| script(name, vec![first(vec![command(bash)])]);
    let metered = format!("test $(id -u):$(id -g) = {USER}:0 && {}", plain(METERED));
    vec![one(MODULES, &modules), one(MESHED, &plain(MESHED)), one(METERED, &metered)]
}

/// What a mesh and a platform do to pods as they are created.
fn policies(settings: &Settings) -> Value {
    let labels = json!({"gastown.io/polecat": MESHED});
    let mesh = matched(&settings.namespace, &labels);
    let mut items = policy(POLICY, &mesh, &sidecar(&settings.gate_image)).to_vec();
    let of_polecat = json!({"gastown.io/polecat": METERED});
    let polecat = matched(&settings.namespace, &of_polecat);
    let containers = ["containers/0", "initContainers/0", "initContainers/1"];
    items.extend(policy(USERS[0], &polecat, &users(&containers)));
    let of_gate =
        json!({"app.kubernetes.io/component": "gate", (label::RIG): settings.rig.as_str()});
    items.extend(policy(USERS[1], &matched(SYSTEM, &of_gate), &users(&[])));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Puts a container into a pod, as a service mesh does. Like a proxy it ends at SIGTERM, and not by
/// itself.
fn sidecar(image: &str) -> String {
    let container = format!(
        r#"Object.spec.containers{{
            name: "proxy", image: "{image}",
            command: ["sh", "-c", "trap 'exit 0' TERM; tail -f /dev/null & wait"],
            securityContext: Object.spec.containers.securityContext{{
                allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 65532,
                capabilities: Object.spec.containers.securityContext.capabilities{{drop: ["ALL"]}}
            }}
        }}"#
    );
    format!(r#"[JSONPatch{{op: "add", path: "/spec/containers/-", value: {container}}}]"#)
}

/// Sets the user and group of a pod and of these containers, as OpenShift does.
fn users(containers: &[&str]) -> String {
    let one = |path: &str, value: i64| {
        format!(r#"JSONPatch{{op: "add", path: "/spec/{path}", value: {value}}}"#)
    };
    let mut patches = vec![one("securityContext/fsGroup", USER)];
    let pod = std::iter::once("securityContext".to_owned());
    for context in pod.chain(containers.iter().map(|c| format!("{c}/securityContext"))) {
        patches.push(one(&format!("{context}/runAsUser"), USER));
        patches.push(one(&format!("{context}/runAsGroup"), 0));
    }
    format!("[{}]", patches.join(", "))
}

/// New pods of a namespace with these labels.
fn matched(namespace: &str, labels: &Value) -> Value {
    let pods = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["pods"]});
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "objectSelector": {"matchLabels": labels},
        "resourceRules": [pods],
    })
}

/// A policy that patches what it matches, and its binding.
fn policy(name: &str, matched: &Value, patch: &str) -> [Value; 2] {
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        })
    };
    let policy = object(
        "MutatingAdmissionPolicy",
        json!({
            "matchConstraints": matched, "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        }),
    );
    [policy, object("MutatingAdmissionPolicyBinding", json!({"policyName": name}))]
}

async fn play(env: &Environment, scenario: &Scenario, plan: &Plan) -> Result<()> {
    scenario.start(MODULES, &task(MODULES)).await?;
    await_policy(env, scenario).await?;
    scenario.start(MESHED, &task(MESHED)).await?;
    let meshed = pod(env, scenario, MESHED).await?;
    let names = meshed.spec.context("a pod has a spec")?.containers.into_iter().map(|c| c.name);
    let names: Vec<String> = names.collect();
    ensure!(names.iter().any(|n| n == "proxy"), "the containers of {MESHED}: {names:?}");
    pod(env, scenario, MODULES).await?;

    set_quota(env, scenario, "1m", "1Mi").await?;
    scenario.start(METERED, &task(METERED)).await?;
    let why = "must specify limits.cpu for: claude";
    let refused = reason::POD_CREATE_FAILED;
    let message = await_reason(scenario, METERED, condition::READY, refused, why).await?;
    check_described(scenario, METERED, &message).await?;
    let limit = json!({"kubernetes": {"resources": {"limits": {"cpu": "1"}}}});
    specify(env, scenario, METERED, &limit).await?;
    await_reason(scenario, METERED, condition::READY, refused, "exceeded quota: limits").await?;
    set_quota(env, scenario, "100", "100Gi").await?;

    let users = pod(env, scenario, METERED).await?.spec.and_then(|spec| spec.security_context);
    let user = users.and_then(|users| users.run_as_user);
    ensure!(user == Some(USER), "the user of {METERED}: {user:?}");
    await_landed(scenario, &[MODULES, MESHED, METERED]).await?;
    check(scenario, plan).await
}

/// Waits until the API server acts on the policy, which it learns of a moment later.
async fn await_policy(env: &Environment, scenario: &Scenario) -> Result<()> {
    let label = format!("--labels=gastown.io/polecat={MESHED}");
    let namespace = scenario.settings.namespace.as_str();
    let image = scenario.settings.servers_image.as_str();
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let container = json!({"name": "probe", "image": image, "securityContext": security});
    // The namespace admits no other kind.
    let restricted = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let probe = json!({"apiVersion": "v1",
        "spec": {"securityContext": restricted, "containers": [container]}});
    let overrides = format!("--overrides={probe}");
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let probe = env
            .kubectl
            .output(&[
                "run",
                "probe",
                "-n",
                namespace,
                "--image",
                image,
                &label,
                &overrides,
                "--dry-run=server",
                "-o",
                "jsonpath={.spec.containers[*].name}",
            ])
            .await?;
        if probe.contains("proxy") {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < end, "the policy has no effect: {probe:?}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Sets the quota and waits until it counts.
async fn set_quota(env: &Environment, scenario: &Scenario, cpu: &str, memory: &str) -> Result<()> {
    let quotas = Api::<ResourceQuota>::namespaced(env.client.clone(), &scenario.settings.namespace);
    let hard = json!({"limits.cpu": cpu, "limits.memory": memory});
    let quota = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": QUOTA},
        "spec": {"hard": hard},
    }));
    quotas.patch(QUOTA, &PatchParams::apply("e2e"), &quota).await?;
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let status = quotas.get(QUOTA).await?.status.unwrap_or_default();
        if serde_json::to_value(status.hard)? == hard {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < end, "the quota does not count");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

async fn check(scenario: &Scenario, plan: &Plan) -> Result<()> {
    let remote = Remote::read(scenario).await?;
    let mut landed = remote.subjects(&plan.base, "refs/heads/main").await?;
    landed.sort();
    let all = ["Add meshed", "Add metered", "Change the asset"];
    ensure!(landed == all, "landed: {landed:?}");
    let asset = remote.file("refs/heads/main", "asset.bin").await?;
    ensure!(asset == pointer(AFTER), "asset.bin on the target branch: {asset}");
    let content = http_client::send(Method::GET, &object(scenario, AFTER), Vec::new()).await?;
    ensure!(content == AFTER.as_bytes(), "the server has other content of asset.bin");
    Ok(())
}
