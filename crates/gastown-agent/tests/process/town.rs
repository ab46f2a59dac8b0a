//! A witness over TLS that remembers what it hears, and the agents that it hears of.

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

/// What was heard.
#[derive(Default)]
pub struct Heard {
    /// The heartbeats of each stream.
    pub streams: Vec<Vec<Heartbeat>>,
    /// The token of each call.
    pub tokens: Vec<String>,
    /// The alarms.
    pub raised: Vec<RaiseRequest>,
    down: Option<mpsc::Sender<Result<Command, Status>>>,
}

type Shared = Arc<Mutex<Heard>>;

struct Ear(Shared);

impl Ear {
    fn note_token<T>(&self, request: &Request<T>) {
        let token = request.metadata().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        self.0.lock().unwrap().tokens.push(token.unwrap_or_default());
    }
}

#[tonic::async_trait]
impl Witness for Ear {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<Command, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.note_token(&request);
        let (down, commands) = mpsc::channel(8);
        let heard = self.0.clone();
        let number = {
            let mut heard = heard.lock().unwrap();
            heard.down = Some(down);
            heard.streams.push(Vec::new());
            heard.streams.len() - 1
        };
        let mut beats = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(beat)) = beats.message().await {
                heard.lock().unwrap().streams[number].push(beat);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(commands))))
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> Result<Response<RaiseResponse>, Status> {
        self.note_token(&request);
        let alarm = request.into_inner();
        let mut heard = self.0.lock().unwrap();
        let created = !heard.raised.iter().any(|r| r.cause == alarm.cause);
        let namespace = alarm.namespace.clone();
        heard.raised.push(alarm);
        Ok(Response::new(RaiseResponse { namespace, name: "esc-1".into(), created }))
    }

    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        Err(Status::unimplemented("no agent settles"))
    }
}

/// The witness.
pub struct Town {
    address: SocketAddr,
    ca: String,
    identity: (String, String),
    heard: Shared,
    runtime: Option<Runtime>,
}

impl Town {
    pub fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "the town");
        let issuer = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let mut town = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            ca: issuer.pem(),
            identity: (certificate.pem(), key.serialize_pem()),
            heard: Shared::default(),
            runtime: None,
        };
        town.back();
        town
    }

    /// It serves, where it served before.
    pub fn back(&mut self) {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let tls =
            ServerTlsConfig::new().identity(Identity::from_pem(&self.identity.0, &self.identity.1));
        let mut server = Server::builder().tls_config(tls).unwrap();
        let serving = server
            .add_service(WitnessServer::new(Ear(self.heard.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        self.runtime = Some(runtime);
    }

    /// It is gone, with all its connections.
    pub fn kill(&mut self) {
        self.heard().down = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        until("the port is free", || std::net::TcpListener::bind(self.address).is_ok());
    }

    pub fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    /// The pod's sidecar knows it.
    pub fn tell(&self, pod: &mut Pod) {
        pod.put("token/token", "t-1\n");
        let token = pod.path("token").display().to_string();
        pod.set("GASTOWN_WITNESS_ENDPOINT", &format!("https://localhost:{}", self.address.port()));
        pod.set("GASTOWN_CA", &self.ca).set("GASTOWN_TOKEN_FILE", &token);
    }

    /// Says something to the pod that attached last.
    pub fn command(&self, number: u64, what: What) {
        let down = self.heard().down.clone().unwrap();
        down.try_send(Ok(Command { number, what: Some(what) })).unwrap();
    }

    /// Waits for a heartbeat of the present stream.
    pub fn beat(&self, what: &str, so: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let mut found = None;
        until(what, || {
            found = self.heard().streams.last().and_then(|s| s.iter().find(|b| so(b)).cloned());
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits for the answer to a command of the present stream.
    pub fn result(&self, number: u64) -> CommandResult {
        let beat =
            self.beat("the command is answered", |b| b.results.iter().any(|r| r.number == number));
        beat.results.into_iter().find(|r| r.number == number).unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The real agent, its model scripted at this address.
pub fn claude(pod: &mut Pod, model: &str) {
    let program = Runtime::new().unwrap().block_on(agents::claude_code()).unwrap();
    let path =
        format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    pod.set("PATH", &path).set("GASTOWN_AGENT", "claude-code");
    pod.set("ANTHROPIC_BASE_URL", model)
        .set("ANTHROPIC_API_KEY", "k")
        .set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    // A test may run as root, which the agent allows nowhere but in a sandbox.
    pod.set("IS_SANDBOX", "1");
}
