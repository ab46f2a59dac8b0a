//! A witness over TLS that records what it receives, and the real agent with a scripted model.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use gastown_cluster::agents;
use gastown_proto::v1::command::What;
use gastown_proto::v1::witness_server::{Witness, WitnessServer};
use gastown_proto::v1::{
    Command, CommandResult, Heartbeat, RaiseRequest, RaiseResponse, SettleRequest, SettleResponse,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::pod::{Pod, until};

/// What the witness received.
#[derive(Default)]
pub struct Received {
    /// The heartbeats of each stream.
    pub streams: Vec<Vec<Heartbeat>>,
    /// The token of each gRPC call.
    pub tokens: Vec<String>,
    /// The escalations.
    pub raised: Vec<RaiseRequest>,
    commands: Option<mpsc::Sender<Result<Command, Status>>>,
}

type Shared = Arc<Mutex<Received>>;

struct Service(Shared);

impl Service {
    fn record_token<T>(&self, request: &Request<T>) {
        let token = request.metadata().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        self.0.lock().unwrap().tokens.push(token.unwrap_or_default());
    }
}

#[tonic::async_trait]
impl Witness for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<Command, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.record_token(&request);
        let (commands, down) = mpsc::channel(8);
        let received = self.0.clone();
        let number = {
            let mut received = received.lock().unwrap();
            received.commands = Some(commands);
            received.streams.push(Vec::new());
            received.streams.len() - 1
        };
        let mut heartbeats = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(heartbeat)) = heartbeats.message().await {
                received.lock().unwrap().streams[number].push(heartbeat);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(down))))
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> Result<Response<RaiseResponse>, Status> {
        self.record_token(&request);
        let escalation = request.into_inner();
        let mut received = self.0.lock().unwrap();
        let created = !received.raised.iter().any(|r| r.cause == escalation.cause);
        let namespace = escalation.namespace.clone();
        received.raised.push(escalation);
        Ok(Response::new(RaiseResponse { namespace, name: "esc-1".into(), created }))
    }

    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        Err(Status::unimplemented("agents settle nothing"))
    }
}

/// The witness.
pub struct FakeWitness {
    address: SocketAddr,
    ca: String,
    identity: (String, String),
    received: Shared,
    runtime: Option<Runtime>,
}

impl FakeWitness {
    pub fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
        let issuer = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let mut witness = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            ca: issuer.pem(),
            identity: (certificate.pem(), key.serialize_pem()),
            received: Shared::default(),
            runtime: None,
        };
        witness.start();
        witness
    }

    /// Serves, on the same port as before.
    pub fn start(&mut self) {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let tls =
            ServerTlsConfig::new().identity(Identity::from_pem(&self.identity.0, &self.identity.1));
        let mut server = Server::builder().tls_config(tls).unwrap();
        let serving = server
            .add_service(WitnessServer::new(Service(self.received.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        self.runtime = Some(runtime);
    }

    /// Stops, and closes all connections.
    pub fn stop(&mut self) {
        self.received().commands = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        until("the port is free", || std::net::TcpListener::bind(self.address).is_ok());
    }

    pub fn received(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().unwrap()
    }

    /// Has the pod's sidecar use this witness.
    pub fn configure(&self, pod: &mut Pod) {
        pod.put("token/token", "t-1\n");
        let token = pod.path("token").display().to_string();
        pod.set("GASTOWN_WITNESS_ENDPOINT", &format!("https://localhost:{}", self.address.port()));
        pod.set("GASTOWN_CA", &self.ca).set("GASTOWN_TOKEN_FILE", &token);
    }

    /// Sends a command to the pod that attached last.
    pub fn command(&self, number: u64, what: What) {
        let commands = self.received().commands.clone().unwrap();
        commands.try_send(Ok(Command { number, what: Some(what) })).unwrap();
    }

    /// Waits for a heartbeat of the present stream that meets the condition.
    pub fn heartbeat(&self, what: &str, condition: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let mut found = None;
        until(what, || {
            found = self
                .received()
                .streams
                .last()
                .and_then(|s| s.iter().find(|h| condition(h)).cloned());
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits for the result of a command of the present stream.
    pub fn result(&self, number: u64) -> CommandResult {
        let heartbeat = self.heartbeat("the command has a result", |h| {
            h.results.iter().any(|r| r.number == number)
        });
        heartbeat.results.into_iter().find(|r| r.number == number).unwrap()
    }
}

impl Drop for FakeWitness {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Has the pod run the real agent, with the scripted model at this address.
pub fn claude(pod: &mut Pod, model: &str) {
    let program = Runtime::new().unwrap().block_on(agents::claude_code()).unwrap();
    let path =
        format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    pod.set("PATH", &path).set("GASTOWN_AGENT", "claude-code");
    pod.set("ANTHROPIC_BASE_URL", model)
        .set("ANTHROPIC_API_KEY", "k")
        .set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    // A test may run as root, which the agent allows in a sandbox only.
    pod.set("IS_SANDBOX", "1");
}
