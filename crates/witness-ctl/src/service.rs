//! The gRPC service Witness: streams of pods, and requests to raise and settle Escalations.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::{Escalation, EscalationSpec, Polecat, RelatedObject, Severity};
use gastown_core::witness;
use gastown_proto::v1::witness_server::{Witness, WitnessServer};
use gastown_proto::v1::{
    CommandResult, Heartbeat, RaiseRequest, RaiseResponse, SettleRequest, SettleResponse,
};
use gastown_runtime::auth::Identity;
use gastown_runtime::controller::{Class, Classify as _};
use gastown_runtime::{grpc, ours};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::context::Context;
use crate::error::Error;
use crate::escalations::{self, Raiser};
use crate::policy;
use crate::steps;
use crate::streams::{QUEUE, StreamHandle, StreamItem};

/// The largest message of ours, in bytes: a request to raise an Escalation.
const MAX_MESSAGE: usize = 64 * 1024;
/// A stream's first heartbeat arrives within this time.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(10);
/// How many Escalations of one agent may be open.
const MAX_OPEN_OF_AGENT: usize = 5;
/// How many command results one heartbeat may carry; further ones are ignored.
const MAX_RESULTS: usize = 32;
/// The longest details that the schema takes, in characters.
const MAX_DETAILS: usize = 16_384;

/// The gRPC services of this controller.
pub(crate) fn routes(ctx: &Arc<Context>) -> Routes {
    let service = Service { ctx: ctx.clone() };
    Routes::new(WitnessServer::new(service).max_decoding_message_size(MAX_MESSAGE))
}

struct Service {
    ctx: Arc<Context>,
}

/// The pod that makes a request, and the Polecat that owns it.
struct CallingPod {
    polecat: Arc<Polecat>,
    name: String,
    uid: String,
}

fn heartbeat(message: &Heartbeat) -> witness::Heartbeat {
    witness::Heartbeat {
        now_ms: message.now_ms,
        last_event_ms: message.last_event_ms,
        in_tool_since_ms: message.in_tool_since_ms,
        tool: message.tool.clone(),
        waiting_for_human: message.waiting_for_human,
        ended: message.ended,
        cpu_seconds: message.cpu_seconds,
        pushed_commit: message.pushed_commit.clone(),
        saving: message.saving.clone(),
    }
}

fn results(message: &Heartbeat) -> Vec<witness::CommandResult> {
    let results = message.results.iter().take(MAX_RESULTS);
    let result = |r: &CommandResult| witness::CommandResult {
        number: r.number,
        ok: r.ok,
        message: r.message.clone(),
    };
    results.map(result).collect()
}

fn status(error: &Error) -> Status {
    let text = std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    match error.class() {
        Class::InvalidSpec => Status::invalid_argument(text),
        Class::Missing => Status::not_found(text),
        Class::Forbidden => Status::failed_precondition(text),
        _ => Status::unavailable(text),
    }
}

impl Service {
    /// The pod that the caller's token is bound to, and the Polecat that owns it.
    async fn calling_pod(&self, caller: &Identity) -> Result<CallingPod, Status> {
        let (Some(name), Some(uid)) = (&caller.pod_name, &caller.pod_uid) else {
            return Err(Status::permission_denied("the token is not bound to a pod"));
        };
        let pods = Api::<Pod>::namespaced(self.ctx.runtime.client.clone(), &caller.namespace);
        let pod = pods
            .get_opt(name)
            .await
            .map_err(|e| Status::unavailable(format!("reading the pod: {e}")))?;
        let pod = pod
            .filter(|p| p.uid().as_ref() == Some(uid))
            .ok_or_else(|| Status::permission_denied("the token's pod does not exist any more"))?;
        let owner = ours::controller::<Polecat>(&pod).ok_or_else(|| {
            Status::permission_denied("the token's pod does not belong to a Polecat")
        })?;
        let reference = ObjectRef::<Polecat>::new(&owner.name).within(&caller.namespace);
        let same = |p: &Polecat| p.uid().as_deref() == Some(owner.uid.as_str());
        let polecat =
            if let Some(polecat) = self.ctx.stores.polecats.get(&reference).filter(|p| same(p)) {
                polecat
            } else {
                // The cache may not show it yet.
                let api =
                    Api::<Polecat>::namespaced(self.ctx.runtime.client.clone(), &caller.namespace);
                let found = api
                    .get_opt(&owner.name)
                    .await
                    .map_err(|e| Status::unavailable(format!("reading the Polecat: {e}")))?;
                Arc::new(found.filter(same).ok_or_else(|| {
                    Status::permission_denied("the pod's Polecat does not exist any more")
                })?)
            };
        Ok(CallingPod { polecat, name: name.clone(), uid: uid.clone() })
    }

    /// Refuses an agent's Escalation while too many of its others are open.
    fn check_open(&self, namespace: &str, spec: &EscalationSpec) -> Result<(), Status> {
        let is_other = |e: &Escalation| {
            e.namespace().as_deref() == Some(namespace)
                && e.spec.source == spec.source
                && e.spec.related_object == spec.related_object
                && e.spec.cause != spec.cause
        };
        let others = |e: &Escalation| is_other(e) && escalations::is_open(e);
        let open = self.ctx.stores.escalations.state_filter(others).len();
        if open >= MAX_OPEN_OF_AGENT {
            return Err(Status::resource_exhausted(format!(
                "{open} Escalations of this agent are open"
            )));
        }
        Ok(())
    }

    /// Takes heartbeats in until the stream ends, is replaced, or this process stops to serve.
    async fn read(
        ctx: Arc<Context>,
        handle: StreamHandle,
        pod: CallingPod,
        mut incoming: Streaming<Heartbeat>,
    ) {
        let rig = pod.polecat.spec.rig.clone();
        loop {
            let message = tokio::select! {
                () = handle.replaced.cancelled() => break,
                () = ctx.runtime.retired(&rig) => break,
                message = incoming.message() => message,
            };
            let Ok(Some(message)) = message else { break };
            let (now, results) = (Timestamp::now(), results(&message));
            steps::export(&pod.polecat, &pod.uid, &message.steps, now);
            let news = ctx.streams.heartbeat(now, &handle, &heartbeat(&message), &results);
            if news {
                ctx.assess_soon(&rig);
            }
        }
        ctx.streams.detach(&handle);
    }
}

/// The Escalation that a request asks for, and its namespace. `own` is the agent's Polecat when an
/// agent asks.
fn spec(r: &RaiseRequest, own: Option<&Polecat>) -> Result<(String, EscalationSpec), Status> {
    let severity = Severity::parse(&r.severity).ok_or_else(|| {
        Status::invalid_argument("severity is empty: it is one of low, medium, high and critical")
    })?;
    check_length("summary", &r.summary, escalations::MAX_SUMMARY)?;
    if r.details.chars().count() > MAX_DETAILS {
        return Err(Status::invalid_argument(format!(
            "details are longer than {MAX_DETAILS} characters"
        )));
    }
    let (namespace, spec) = match own {
        Some(polecat) => agent_spec(r, severity, polecat)?,
        None => controller_spec(r, severity)?,
    };
    check_length("cause", &spec.cause, 512)?;
    Ok((namespace, spec))
}

fn check_length(name: &str, text: &str, max: usize) -> Result<(), Status> {
    match text.chars().count() {
        0 => Err(Status::invalid_argument(format!("{name} is missing"))),
        n if n > max => {
            Err(Status::invalid_argument(format!("{name} is longer than {max} characters")))
        }
        _ => Ok(()),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// An Escalation that an agent asks for, which is about its own Polecat.
fn agent_spec(
    r: &RaiseRequest,
    severity: Severity,
    polecat: &Polecat,
) -> Result<(String, EscalationSpec), Status> {
    let (namespace, name) = (polecat.namespace().unwrap_or_default(), polecat.name_any());
    let is_other = |asked: &str, own: &str| !asked.is_empty() && asked != own;
    if is_other(&r.namespace, &namespace)
        || is_other(&r.rig, &polecat.spec.rig)
        || is_other(&r.related_kind, "Polecat")
        || is_other(&r.related_name, &name)
        || is_other(&r.related_namespace, &namespace)
    {
        return Err(Status::permission_denied(
            "an agent may raise Escalations about its own Polecat only",
        ));
    }
    // With the prefix, no cause that an agent chooses is the cause of a controller.
    let prefix = format!("polecat/{namespace}/{name}/agent");
    let spec = EscalationSpec {
        severity,
        cause: if r.cause.is_empty() { prefix } else { format!("{prefix}/{}", r.cause) },
        summary: r.summary.clone(),
        details: non_empty(&r.details),
        source: "agent".to_owned(),
        rig_ref: polecat.spec.rig.clone(),
        related_object: Some(RelatedObject {
            kind: "Polecat".to_owned(),
            namespace: Some(namespace.clone()),
            name,
        }),
        acknowledged: None,
        closed: None,
    };
    Ok((namespace, spec))
}

/// An Escalation that a controller asks for.
fn controller_spec(
    r: &RaiseRequest,
    severity: Severity,
) -> Result<(String, EscalationSpec), Status> {
    check_length("namespace", &r.namespace, 63)?;
    check_length("rig", &r.rig, 253)?;
    check_length("source", &r.source, 253)?;
    let related = RelatedObject {
        kind: r.related_kind.clone(),
        namespace: non_empty(&r.related_namespace),
        name: r.related_name.clone(),
    };
    let spec = EscalationSpec {
        severity,
        cause: r.cause.clone(),
        summary: r.summary.clone(),
        details: non_empty(&r.details),
        source: r.source.clone(),
        rig_ref: r.rig.clone(),
        related_object: (!related.kind.is_empty() && !related.name.is_empty()).then_some(related),
        acknowledged: None,
        closed: None,
    };
    Ok((r.namespace.clone(), spec))
}

#[tonic::async_trait]
impl Witness for Service {
    type AttachStream = ReceiverStream<StreamItem>;

    async fn attach(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let pod = self.calling_pod(grpc::caller(&request)?).await?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(FIRST_HEARTBEAT, incoming.message()).await;
        let first =
            first.map_err(|_| Status::deadline_exceeded("no heartbeat arrived in time"))??;
        let first = first.ok_or_else(|| {
            Status::invalid_argument("the stream ended before its first heartbeat")
        })?;
        let polecat = &pod.polecat;
        if Some(&first.namespace) != polecat.namespace().as_ref()
            || first.polecat != polecat.name_any()
            || first.rig != polecat.spec.rig
        {
            return Err(Status::permission_denied(
                "the pod belongs to another Polecat, or to another rig",
            ));
        }
        if !self.ctx.runtime.serves(&polecat.spec.rig) {
            return Err(grpc::elsewhere(&self.ctx.runtime, &polecat.spec.rig));
        }
        let (sender, commands) = mpsc::channel(QUEUE);
        let uid = polecat.uid().unwrap_or_default();
        let now = Timestamp::now();
        let handle = self.ctx.streams.attach(now, &pod.uid, &pod.name, &uid, sender);
        let handle =
            handle.ok_or_else(|| Status::resource_exhausted("too many pods are attached"))?;
        self.ctx.streams.heartbeat(now, &handle, &heartbeat(&first), &results(&first));
        steps::export(polecat, &pod.uid, &first.steps, now);
        self.ctx.assess_soon(&polecat.spec.rig);
        tokio::spawn(Self::read(self.ctx.clone(), handle, pod, incoming));
        Ok(Response::new(ReceiverStream::new(commands)))
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> Result<Response<RaiseResponse>, Status> {
        let caller = grpc::caller(&request)?.clone();
        let r = request.into_inner();
        let own = if policy::is_controller(&self.ctx.runtime.args.namespace, "Raise", &caller) {
            None
        } else {
            Some(self.calling_pod(&caller).await?)
        };
        let (namespace, spec) = spec(&r, own.as_ref().map(|o| o.polecat.as_ref()))?;
        let _work = grpc::enter(&self.ctx.runtime, &spec.rig_ref)?;
        if own.is_some() {
            self.check_open(&namespace, &spec)?;
        }
        let by = if own.is_some() { Raiser::Agent } else { Raiser::Controller };
        let (name, created) =
            escalations::raise(&self.ctx, &namespace, spec, by).await.map_err(|e| status(&e))?;
        Ok(Response::new(RaiseResponse { namespace, name, created }))
    }

    async fn settle(
        &self,
        request: Request<SettleRequest>,
    ) -> Result<Response<SettleResponse>, Status> {
        let r = request.into_inner();
        if r.namespace.is_empty() || r.cause.is_empty() {
            return Err(Status::invalid_argument("namespace or cause is missing"));
        }
        // A caller of an older version does not name the rig.
        let _work =
            if r.rig.is_empty() { None } else { Some(grpc::enter(&self.ctx.runtime, &r.rig)?) };
        let settled = escalations::settle(&self.ctx, &r.namespace, &r.cause, &r.why)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(SettleResponse { name: settled.unwrap_or_default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RaiseRequest {
        RaiseRequest {
            namespace: "work".into(),
            rig: "web".into(),
            severity: "high".into(),
            cause: "polecat/work/toast/AttemptsSpent".into(),
            summary: "It gave up.".into(),
            source: "polecat-ctl".into(),
            ..RaiseRequest::default()
        }
    }

    fn toast() -> Polecat {
        let mut polecat = Polecat::new("toast", gastown_api::PolecatSpec::of_rig("web"));
        polecat.metadata.namespace = Some("work".into());
        polecat
    }

    #[test]
    fn a_severity_that_only_a_later_version_knows_is_carried_by_every_route() {
        let newer = RaiseRequest { severity: "emergency".into(), ..request() };
        assert_eq!(spec(&newer, None).unwrap().1.severity, Severity::Critical);
    }

    #[test]
    fn invalid_requests_are_refused() {
        for wrong in [
            RaiseRequest { severity: String::new(), ..request() },
            RaiseRequest { summary: String::new(), ..request() },
            RaiseRequest { summary: "x".repeat(1025), ..request() },
            RaiseRequest { cause: String::new(), ..request() },
            RaiseRequest { cause: "x".repeat(513), ..request() },
            RaiseRequest { namespace: String::new(), ..request() },
            RaiseRequest { details: "x".repeat(16_385), ..request() },
        ] {
            assert_eq!(
                spec(&wrong, None).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{wrong:?}"
            );
        }
        assert_eq!(spec(&request(), None).unwrap().1.related_object, None);
    }

    #[test]
    fn an_agent_raises_only_about_its_own_polecat_and_under_a_cause_of_its_own() {
        let (namespace, made) =
            spec(&RaiseRequest { source: "polecat-ctl".into(), ..request() }, Some(&toast()))
                .unwrap();
        assert_eq!((namespace.as_str(), made.source.as_str()), ("work", "agent"));
        assert_eq!(made.cause, "polecat/work/toast/agent/polecat/work/toast/AttemptsSpent");
        for foreign in [
            RaiseRequest { namespace: "other".into(), ..request() },
            RaiseRequest { rig: "other".into(), ..request() },
            RaiseRequest {
                related_kind: "Polecat".into(),
                related_name: "other".into(),
                ..request()
            },
        ] {
            assert_eq!(
                spec(&foreign, Some(&toast())).unwrap_err().code(),
                tonic::Code::PermissionDenied,
                "{foreign:?}"
            );
        }
    }
}
