//! What an agent and a gate reach under the chart's network policies, what they do not, and that work
//! lands all the same. A pod without a policy shows that there is something to reach.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use e2e::polecats::{LIMIT, await_landed, command, first, script, task};
use e2e::refs::Remote;
use gastown_api::GateRun;
use gastown_demo::{Plan, Scenario, clear};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;
use tokio::net::TcpListener;

/// The namespace of somebody else.
const TENANT: &str = "e2e-network-tenant";
/// Its pod: a server over TCP, one for names over UDP, and no policy.
const SERVER: &str = "server";
const ATTACKER: &str = "attacker";
/// Where clouds have their metadata servers.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

const SERVE: &str = r#"
import socket, threading
def tcp():
    s = socket.create_server(("", 8080))
    while True:
        s.accept()[0].close()
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 53))
    while True:
        data, peer = s.recvfrom(512)
        s.sendto(data, peer)
threading.Thread(target=tcp).start()
udp()
"#;

/// Tries one address: `attempt NAME PROTOCOL HOST PORT`. Over UDP an answer counts.
const ATTEMPT: &str = r#"
reach() {
    timeout 3 bash -c "exec 3<>/dev/$1/$2/$3 && { [ $1 = tcp ] || { printf x >&3 && head -c 1 <&3 | grep -q x; }; }" 2>/dev/null
}
attempt() {
    if reach "$2" "$3" "$4"; then echo "$1: open"; else echo "$1: closed"; fi
}
"#;

/// One address, and who reaches it.
struct Target {
    name: &'static str,
    protocol: &'static str,
    host: String,
    port: u16,
    /// A pod that no policy is about.
    anybody: bool,
    agent: bool,
    gate: bool,
}

/// Whose attempts.
#[derive(Clone, Copy)]
enum Who {
    Anybody,
    Agent,
    Gate,
}

impl Target {
    fn is_open(&self, who: Who) -> bool {
        match who {
            Who::Anybody => self.anybody,
            Who::Agent => self.agent,
            Who::Gate => self.gate,
        }
    }
}

/// What the attempts print.
fn expected(targets: &[Target], who: Who) -> String {
    let word = |open: bool| if open { "open" } else { "closed" };
    let lines: Vec<String> =
        targets.iter().map(|t| format!("{}: {}\n", t.name, word(t.is_open(who)))).collect();
    lines.concat()
}

/// A script for bash that tries every address. Policies take effect a moment after the start of a pod:
/// it waits until the first address is closed, if it is to be.
fn attempts(targets: &[Target], who: Who) -> String {
    let first = &targets[0];
    let settled = if first.is_open(who) {
        String::new()
    } else {
        let Target { protocol, host, port, .. } = first;
        format!(
            "for i in $(seq 100); do reach {protocol} {host} {port} || break; sleep 0.1; done\n"
        )
    };
    let lines = targets.iter().map(|t| {
        let Target { name, protocol, host, port, .. } = t;
        format!("attempt \"{name}\" {protocol} {host} {port}\n")
    });
    let lines: Vec<String> = lines.collect();
    format!("{ATTEMPT}{settled}{}", lines.concat())
}

async fn targets(env: &Environment, tenant: Ipv4Addr) -> Result<Vec<Target>> {
    let services: Api<Service> = Api::namespaced(env.client.clone(), "default");
    let api = services.get("kubernetes").await?.spec.and_then(|s| s.cluster_ip);
    let slices: Api<EndpointSlice> = Api::namespaced(env.client.clone(), "default");
    let slice = slices.get("kubernetes").await?;
    let server = slice.endpoints.first().and_then(|e| e.addresses.first()).cloned();
    let port =
        slice.ports.iter().flatten().find_map(|p| p.port).context("the API server's port")?;
    let system = |name: &str| format!("{name}.gastown-system.svc");
    let target = |name, protocol, host: String, port, [anybody, agent, gate]: [bool; 3]| Target {
        name,
        protocol,
        host,
        port,
        anybody,
        agent,
        gate,
    };
    let (all, none) = ([true, false, false], [false; 3]);
    Ok(vec![
        target("another tenant's pod", "tcp", tenant.to_string(), 8080, all),
        target("the API server's Service", "tcp", api.context("its address")?, 443, all),
        target("the API server", "tcp", server.context("its address")?, u16::try_from(port)?, all),
        target("a metadata server", "tcp", METADATA.to_string(), 80, all),
        target("another DNS server", "udp", tenant.to_string(), 53, all),
        target("a metadata server over IPv6", "tcp", "fd00:ec2::254".into(), 80, none),
        target("refinery-ctl's gRPC", "tcp", system("refinery-ctl"), 9443, none),
        target("refinery-ctl's git", "tcp", system("refinery-ctl"), 9418, [false, false, true]),
        target("witness-ctl's gRPC", "tcp", system("witness-ctl"), 9443, [false, true, false]),
        target("beadstore-ctl's gRPC", "tcp", system("beadstore-ctl"), 9443, none),
        target("rig-ctl's metrics", "tcp", system("rig-ctl"), 8080, none),
    ])
}

/// An agent and a gate try what they must not reach, and their work lands.
pub async fn attacks_reach_nothing(env: &Environment) -> Result<()> {
    let settings = env.settings("network", LIMIT);
    let _metadata = MetadataServer::start().await?;
    let tenant = tenant(env, &settings.gate_image).await?;
    let targets = targets(env, tenant).await?;
    let control = env
        .kubectl
        .output(&[
            "exec",
            "-n",
            TENANT,
            SERVER,
            "--",
            "bash",
            "-c",
            &attempts(&targets, Who::Anybody),
        ])
        .await?;
    println!("  a pod without a policy:\n{control}");
    ensure!(
        control == expected(&targets, Who::Anybody),
        "want:\n{}",
        expected(&targets, Who::Anybody)
    );

    let mut plan = Plan::default_project().await?;
    plan.test = gate(&targets, &plan.test);
    let agent = format!(
        "bash >attempts <<'END'\n{}END\ngit add attempts && git commit -qm 'Note what is reached'",
        attempts(&targets, Who::Agent)
    );
    let scripts = [script(ATTACKER, vec![first(vec![command(&agent)])])];
    let scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts).await?;
    scenario.start(ATTACKER, &task(ATTACKER)).await?;
    let landed = await_landed(&scenario, &[ATTACKER]).await;
    let runs = Api::<GateRun>::all(env.client.clone()).list(&ListParams::default()).await?;
    let runs = runs.items.iter().filter(|run| {
        run.metadata.labels.as_ref().is_some_and(|l| l.values().any(|v| *v == settings.rig))
    });
    for run in runs {
        let status = run.status.clone().unwrap_or_default();
        println!(
            "  gate {}: {:?} {}",
            run.name_any(),
            status.phase,
            status.evidence.unwrap_or_default()
        );
    }
    landed?;
    let noted = Remote::read(&scenario).await?.file("refs/heads/main", "attempts").await?;
    println!("  the agent:\n{noted}  the gate, which passed:\n{}", expected(&targets, Who::Gate));
    ensure!(noted == expected(&targets, Who::Agent), "want:\n{}", expected(&targets, Who::Agent));
    drop(scenario);
    Api::<Namespace>::all(env.client.clone()).delete(TENANT, &DeleteParams::default()).await?;
    clear(&env.client, &settings).await
}

/// The gate's command: it prints what it reaches, and passes when that is what it may, and the
/// project's own tests pass. Its failure has all attempts as its evidence.
fn gate(targets: &[Target], tests: &str) -> String {
    format!(
        "set -e\nbash >/tmp/found <<'END'\n{}END\ncat >/tmp/wanted <<'END'\n{}END\ncat /tmp/found\ndiff /tmp/wanted /tmp/found\n{tests}",
        attempts(targets, Who::Gate),
        expected(targets, Who::Gate)
    )
}

/// Starts the other tenant's pod and returns its address.
async fn tenant(env: &Environment, image: &str) -> Result<Ipv4Addr> {
    let client = env.client.clone();
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": TENANT}}))?;
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    env.kubectl
        .output(&["wait", "-n", TENANT, "--for=create", "--timeout=60s", "serviceaccount/default"])
        .await?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": SERVER},
        "spec": {
            "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": SERVER, "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-c", SERVE],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}],
        },
    }))?;
    let pods: Api<Pod> = Api::namespaced(client, TENANT);
    pods.create(&PostParams::default(), &pod).await?;
    let ready = await_condition(pods.clone(), SERVER, conditions::is_pod_running());
    tokio::time::timeout(LIMIT, ready).await.context("waiting for the other tenant's pod")??;
    env.kubectl
        .output(&["wait", "-n", TENANT, "--for=condition=Ready", "--timeout=120s", "pod/server"])
        .await?;
    let address = pods.get(SERVER).await?.status.and_then(|s| s.pod_ip);
    Ok(address.context("the pod has no address")?.parse()?)
}

/// What answers at the address of metadata servers, on the node.
struct MetadataServer;

impl MetadataServer {
    async fn start() -> Result<Self> {
        address("add")?;
        let server = Self;
        let listener =
            TcpListener::bind((METADATA, 80)).await.context("listening at the metadata address")?;
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        Ok(server)
    }
}

impl Drop for MetadataServer {
    fn drop(&mut self) {
        // It goes with the bridge at the latest.
        drop(address("del"));
    }
}

/// Adds or removes the address on the cluster's bridge.
fn address(what: &str) -> Result<()> {
    let address = format!("{METADATA}/32");
    let done = Command::new("ip").args(["address", what, &address, "dev", "gastown0"]).output()?;
    ensure!(done.status.success(), "ip address {what}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
