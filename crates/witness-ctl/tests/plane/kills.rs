//! The process ends at each of its writes, once before the API server has the write and once before
//! the answer is back, and another one begins without memory: an agent is nudged once, and a cause has
//! one Escalation. So it is when the connection has faults.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::{condition, reason};
use gastown_api::rbac::Controller;
use gastown_api::{Escalation, EscalationPhase, Polecat, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, until};
use gastown_fakes::connection::Connection;
use gastown_fakes::kills::{self, Lives, Process};
use gastown_proto::v1::witness_client::WitnessClient;
use gastown_proto::v1::{Heartbeat, RaiseRequest, SettleRequest, command};
use gastown_runtime::grpc::AuthChannel;
use gastown_runtime::{Runtime, RuntimeArgs};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::fixture::{ACCOUNT, Fixture, Shared, TIMEOUT, healthy};
use crate::health::{HOUR, heartbeat};

const LIVES: Lives = Lives { parallel: 16, step: 1 };

/// The controller of the other tests does not see this one.
static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// What a life comes to.
#[derive(Debug, PartialEq)]
struct End {
    /// How often each agent was nudged: the one that woke, and the one that waited for a person.
    nudges: [usize; 2],
    /// All Escalations that there ever were: none is deleted so early.
    escalations: Vec<Value>,
    /// What was left of the assessments.
    assessed: Vec<bool>,
}

/// What an agent does.
#[derive(Clone, Copy)]
enum State {
    Silent,
    Waiting,
    Active,
}

/// An agent in its pod, which attaches again when its stream ends. It wakes when it is nudged.
struct Agent {
    name: &'static str,
    pod: Pod,
    state: Mutex<State>,
    nudges: AtomicUsize,
}

struct Life {
    fixture: Fixture,
    /// Where the present process listens.
    port: AtomicU16,
}

impl Life {
    async fn new(plane: &ControlPlane) -> Result<Self> {
        let tls = tempfile::tempdir()?.keep();
        install::certificates(&tls)?;
        let fixture = Fixture::on(plane, Shared { port: 0, tls }).await?;
        Ok(Self { fixture, port: 0.into() })
    }

    /// A Polecat at work, and its agent.
    async fn agent(&self, name: &'static str, state: State) -> Result<Agent> {
        let polecat = self.fixture.polecat(name).await?;
        let pod = format!("polecat-{name}");
        let status = json!({ "phase": "Working", "podName": pod, "podActive": true });
        let pod = self.fixture.pod(&pod, Some(&polecat)).await?;
        self.fixture.status(name, status).await?;
        Ok(Agent { name, pod, state: Mutex::new(state), nudges: 0.into() })
    }

    fn beat(&self, agent: &Agent) -> Result<Heartbeat> {
        let (ago, waiting) = match *agent.state.lock() {
            State::Silent => (HOUR, false),
            State::Waiting => (HOUR, true),
            State::Active => (0, false),
        };
        let beat = heartbeat(&self.fixture, ago)?;
        Ok(Heartbeat { polecat: agent.name.into(), waiting_for_human: waiting, ..beat })
    }

    /// Attaches until the process ends.
    async fn attach(&self, agent: &Agent) -> Result<()> {
        let (port, namespace) = (self.port.load(Ordering::SeqCst), &self.fixture.namespace);
        let pod = Some(&agent.pod);
        let mut client = self.fixture.caller_at(port, namespace, "agent", pod).await?;
        let (beats, stream) = mpsc::channel(4);
        beats.send(self.beat(agent)?).await?;
        let mut commands = client.attach(ReceiverStream::new(stream)).await?.into_inner();
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                command = commands.message() => {
                    let command = command?.context("the stream ended")?;
                    if let Some(command::What::Nudge(_)) = command.what {
                        agent.nudges.fetch_add(1, Ordering::SeqCst);
                        *agent.state.lock() = State::Active;
                    }
                }
                _ = tick.tick() => beats.send(self.beat(agent)?).await?,
            }
        }
    }

    async fn run(&self, agent: &Agent) {
        loop {
            // It attaches again.
            let _ = self.attach(agent).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Calls as polecat-ctl, until there is an answer.
    async fn call<T>(
        &self,
        call: impl AsyncFn(WitnessClient<AuthChannel>) -> Result<T, tonic::Status>,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let port = self.port.load(Ordering::SeqCst);
            let caller = self.fixture.caller_at(port, NAMESPACE, "polecat-ctl", None).await?;
            match call(caller).await {
                Ok(answer) => return Ok(answer),
                Err(error) => ensure!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn all(&self) -> Result<Vec<Escalation>> {
        Ok(self.fixture.api::<Escalation>().list(&ListParams::default()).await?.items)
    }

    /// Waits until an Escalation of a cause is as wanted.
    async fn escalation(&self, cause: &str, want: impl Fn(&Escalation) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let all = self.all().await?;
            if all.iter().any(|e| e.spec.cause.ends_with(cause) && want(e)) {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "{cause}: {all:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the reason of an agent's assessment.
    async fn assessed(&self, name: &str, reason: Option<&str>) -> Result<()> {
        let is_it = |p: Option<&Polecat>| {
            let shown = healthy(p?);
            (shown.as_ref().map(|c| c.reason.as_str()) == reason).then_some(())
        };
        let api = self.fixture.api::<Polecat>();
        until(TIMEOUT, &api, name, &format!("the assessment {reason:?}"), is_it).await
    }

    /// What agents, polecat-ctl and people do.
    async fn live(&self) -> Result<End> {
        self.fixture.witness(&self.fixture.namespace, "watch", json!({})).await?;
        let toast = self.agent("toast", State::Silent).await?;
        let nux = self.agent("nux", State::Waiting).await?;
        tokio::select! {
            end = self.happens([&toast, &nux]) => end,
            () = self.run(&toast) => unreachable!("an agent does not end"),
            () = self.run(&nux) => unreachable!("an agent does not end"),
        }
    }

    async fn happens(&self, agents: [&Agent; 2]) -> Result<End> {
        let raise = RaiseRequest {
            namespace: self.fixture.namespace.clone(),
            rig: self.fixture.rig.clone(),
            severity: "high".into(),
            cause: "polecat/toast/AttemptsSpent".into(),
            summary: "Toast gave up.".into(),
            source: "polecat-ctl".into(),
            ..RaiseRequest::default()
        };
        let settle = SettleRequest {
            namespace: raise.namespace.clone(),
            cause: raise.cause.clone(),
            why: "it was retried".into(),
            ..SettleRequest::default()
        };
        self.assessed("toast", Some(reason::HEALTHY)).await?;
        self.escalation("nux/WaitingForHuman", delivered).await?;
        self.call(async |mut caller| caller.raise(raise.clone()).await).await?;
        self.escalation(&raise.cause, delivered).await?;
        *agents[1].state.lock() = State::Active;
        self.escalation("nux/WaitingForHuman", closed).await?;
        self.call(async |mut caller| caller.settle(settle.clone()).await).await?;
        self.escalation(&raise.cause, closed).await?;
        for agent in agents {
            let pod = format!("polecat-{}", agent.name);
            let done = json!({ "phase": "Done", "podName": pod, "podActive": false });
            self.fixture.status(agent.name, done).await?;
            self.assessed(agent.name, None).await?;
        }
        let polecats = self.fixture.api::<Polecat>().list(&ListParams::default()).await?;
        let mut escalations: Vec<_> = self.all().await?.iter().map(|e| self.shown(e)).collect();
        escalations.sort_by_key(ToString::to_string);
        Ok(End {
            nudges: agents.map(|agent| agent.nudges.load(Ordering::SeqCst)),
            escalations,
            assessed: polecats.iter().map(|p| healthy(p).is_some()).collect(),
        })
    }

    /// An Escalation without what differs from life to life. How often it was raised may differ: a
    /// caller who gets no answer raises it again.
    fn shown(&self, escalation: &Escalation) -> Value {
        let status = escalation.status.clone().unwrap_or_default();
        let cause = escalation.spec.cause.replace(&self.fixture.namespace, "NS");
        let sent: Vec<_> = status.deliveries.iter().map(|d| json!([d.route, d.state])).collect();
        json!([cause, status.phase, status.closed_reason, sent])
    }
}

fn delivered(escalation: &Escalation) -> bool {
    let status = escalation.status.as_ref();
    status.is_some_and(|s| conditions::is_true(&s.conditions, condition::DELIVERED))
}

fn closed(escalation: &Escalation) -> bool {
    escalation.status.as_ref().is_some_and(|s| s.phase == Some(EscalationPhase::Closed))
}

/// One life, whose first process has this connection.
async fn live(connection: Arc<Connection>) -> End {
    let plane = install::apart(&PLANE, Controller::Witness, &["polecat-ctl"]).await.unwrap();
    let life = Life::new(plane).await.unwrap();
    let fixture = &life.fixture;
    let start = async |connection: Arc<Connection>| {
        connection.only(&fixture.namespace, &fixture.rig);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        life.port.store(listener.local_addr()?.port(), Ordering::SeqCst);
        let config = install::config(plane, Controller::Witness);
        let tls = fixture.shared.tls.clone();
        let work = |config| async move {
            let args = RuntimeArgs {
                namespace: NAMESPACE.into(),
                tls_dir: tls,
                ..RuntimeArgs::from_env()?
            };
            let runtime = Runtime::leading(ACCOUNT, config, args)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Box::pin(witness_ctl::serve(runtime, listener)).await
        };
        Process::start(&connection, fixture.client.clone(), config, work).await
    };
    Box::pin(kills::live(connection, start, life.live())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_nudged_once_at_whichever_write_the_process_ends() {
    let end = kills::at_every_write(LIVES, live).await;
    assert!(end.nudges == [1, 0] && end.escalations.len() == 2, "{end:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_nudged_once_whatever_the_connection_does() {
    kills::under_each_fault(live).await;
}
