//! The gRPC service Witness.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::{EscalationSpec, Polecat, RelatedObject, Severity};
use gastown_core::witness::{Answer, Beat};
use gastown_proto::v1::witness_server::Witness;
use gastown_proto::v1::{Heartbeat, RaiseRequest, RaiseResponse, SettleRequest, SettleResponse};
use gastown_runtime::auth::Identity;
use gastown_runtime::controller::{Class, Classify as _};
use gastown_runtime::grpc;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::alarms::{self, Raiser};
use crate::context::Context;
use crate::hub::{Down, QUEUE, Seat};
use crate::policy;

/// A stream says who it is within this time.
const FIRST: Duration = Duration::from_secs(10);
/// So many Escalations of one agent may be open.
const OPEN_OF_AN_AGENT: usize = 5;
/// So many results a heartbeat may bring.
const RESULTS: usize = 32;

pub(crate) struct Service(pub Arc<Context>);

/// The Polecat whose pod calls.
struct Own {
    polecat: Arc<Polecat>,
    pod: String,
    pod_uid: String,
}

fn beat(heard: &Heartbeat) -> Beat {
    Beat {
        now_ms: heard.now_ms,
        last_event_ms: heard.last_event_ms,
        in_tool_since_ms: heard.in_tool_since_ms,
        tool: heard.tool.clone(),
        waiting_for_human: heard.waiting_for_human,
        cpu_seconds: heard.cpu_seconds,
        pushed_commit: heard.pushed_commit.clone(),
    }
}

fn answers(heard: &Heartbeat) -> Vec<Answer> {
    let results = heard.results.iter().take(RESULTS);
    results.map(|r| Answer { number: r.number, ok: r.ok, message: r.message.clone() }).collect()
}

fn refused(error: &alarms::Error) -> Status {
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
    /// Only the holder of the lease hears and answers.
    fn serving(&self) -> Result<(), Status> {
        let held =
            self.0.runtime.leadership.held().is_some() && !self.0.runtime.drain.is_cancelled();
        if held {
            Ok(())
        } else {
            Err(Status::unavailable("another replica of witness-ctl serves"))
        }
    }

    /// The Polecat that owns the pod which the caller's token is bound to.
    async fn own(&self, caller: &Identity) -> Result<Own, Status> {
        let (Some(name), Some(uid)) = (&caller.pod_name, &caller.pod_uid) else {
            return Err(Status::permission_denied("the token is not a pod's"));
        };
        let pods = Api::<Pod>::namespaced(self.0.runtime.client.clone(), &caller.namespace);
        let pod = pods
            .get_opt(name)
            .await
            .map_err(|e| Status::unavailable(format!("reading the pod: {e}")))?;
        let pod = pod
            .filter(|p| p.uid().as_ref() == Some(uid))
            .ok_or_else(|| Status::permission_denied("the token's pod is gone"))?;
        let version = format!("{}/{}", gastown_api::names::GROUP, gastown_api::names::VERSION);
        let owners = pod.owner_references();
        let owner = owners.iter().find(|o| {
            o.controller == Some(true) && o.kind == "Polecat" && o.api_version == version
        });
        let owner =
            owner.ok_or_else(|| Status::permission_denied("the token's pod is no polecat's"))?;
        let reference = ObjectRef::<Polecat>::new(&owner.name).within(&caller.namespace);
        let same = |p: &Polecat| p.uid().as_deref() == Some(owner.uid.as_str());
        let polecat = if let Some(polecat) = self.0.polecats.get(&reference).filter(|p| same(p)) {
            polecat
        } else {
            // The cache may not show it yet.
            let api = Api::<Polecat>::namespaced(self.0.runtime.client.clone(), &caller.namespace);
            let found = api
                .get_opt(&owner.name)
                .await
                .map_err(|e| Status::unavailable(format!("reading the polecat: {e}")))?;
            Arc::new(
                found
                    .filter(same)
                    .ok_or_else(|| Status::permission_denied("the pod's polecat is gone"))?,
            )
        };
        Ok(Own { polecat, pod: name.clone(), pod_uid: uid.clone() })
    }

    async fn read(ctx: Arc<Context>, seat: Seat, rig: String, mut incoming: Streaming<Heartbeat>) {
        loop {
            let heard = tokio::select! {
                () = seat.stop.cancelled() => break,
                () = ctx.runtime.drain.cancelled() => break,
                () = ctx.runtime.leadership.lost() => break,
                heard = incoming.message() => heard,
            };
            let Ok(Some(heard)) = heard else { break };
            let answers = answers(&heard);
            ctx.hub.hear(Timestamp::now(), &seat, &beat(&heard), &answers);
            if !answers.is_empty() {
                ctx.wake(&rig);
            }
        }
        ctx.hub.detach(&seat);
    }
}

/// What is raised, if it may be: `own` is the agent's Polecat when an agent raises.
fn spec(r: &RaiseRequest, own: Option<&Polecat>) -> Result<(String, EscalationSpec), Status> {
    let severity = Severity::parse(&r.severity);
    let severity = severity.ok_or_else(|| {
        Status::invalid_argument("severity is one of low, medium, high and critical")
    })?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let bounded = |name: &str, text: &str, most: usize| match text.chars().count() {
        0 => Err(Status::invalid_argument(format!("{name} must be there"))),
        n if n > most => {
            Err(Status::invalid_argument(format!("{name} is longer than {most} characters")))
        }
        _ => Ok(()),
    };
    bounded("summary", &r.summary, 1024)?;
    if r.details.chars().count() > 16_384 {
        return Err(Status::invalid_argument("details are longer than 16384 characters"));
    }
    let (namespace, rig, cause, source, related) = if let Some(polecat) = own {
        let (namespace, name) = (polecat.namespace().unwrap_or_default(), polecat.name_any());
        let wrong = |asked: &str, own: &str| !asked.is_empty() && asked != own;
        let foreign = wrong(&r.namespace, &namespace)
            || wrong(&r.rig, &polecat.spec.rig)
            || wrong(&r.related_kind, "Polecat");
        if foreign || wrong(&r.related_name, &name) || wrong(&r.related_namespace, &namespace) {
            return Err(Status::permission_denied("an agent raises for its own polecat only"));
        }
        let prefix = format!("polecat/{namespace}/{name}/agent");
        // Whatever an agent calls it, it cannot be taken for a cause of ours.
        let cause = if r.cause.is_empty() { prefix } else { format!("{prefix}/{}", r.cause) };
        let related =
            RelatedObject { kind: "Polecat".to_owned(), namespace: Some(namespace.clone()), name };
        (namespace, polecat.spec.rig.clone(), cause, "agent".to_owned(), Some(related))
    } else {
        bounded("namespace", &r.namespace, 63)?;
        bounded("rig", &r.rig, 253)?;
        bounded("source", &r.source, 253)?;
        let related = RelatedObject {
            kind: r.related_kind.clone(),
            namespace: some(&r.related_namespace),
            name: r.related_name.clone(),
        };
        let related = (!related.kind.is_empty() && !related.name.is_empty()).then_some(related);
        (r.namespace.clone(), r.rig.clone(), r.cause.clone(), r.source.clone(), related)
    };
    bounded("cause", &cause, 512)?;
    let spec = EscalationSpec {
        severity,
        cause,
        summary: r.summary.clone(),
        details: some(&r.details),
        source,
        rig_ref: rig,
        related_object: related,
        acknowledged: None,
        closed: None,
    };
    Ok((namespace, spec))
}

#[tonic::async_trait]
impl Witness for Service {
    type AttachStream = ReceiverStream<Down>;

    async fn attach(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.serving()?;
        let own = self.own(grpc::caller(&request)?).await?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(FIRST, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no heartbeat came"))??;
        let first = first.ok_or_else(|| {
            Status::invalid_argument("the stream ended before its first heartbeat")
        })?;
        let polecat = &own.polecat;
        if Some(&first.namespace) != polecat.namespace().as_ref()
            || first.polecat != polecat.name_any()
            || first.rig != polecat.spec.rig
        {
            return Err(Status::permission_denied(
                "the pod is not that polecat's, or not of that rig",
            ));
        }
        let (down, orders) = mpsc::channel(QUEUE);
        let uid = polecat.uid().unwrap_or_default();
        let now = Timestamp::now();
        let seat = self.0.hub.attach(now, &own.pod_uid, &own.pod, &uid, down);
        let seat = seat.ok_or_else(|| Status::resource_exhausted("too many pods are attached"))?;
        self.0.hub.hear(now, &seat, &beat(&first), &answers(&first));
        let rig = polecat.spec.rig.clone();
        self.0.wake(&rig);
        tokio::spawn(Self::read(self.0.clone(), seat, rig, incoming));
        Ok(Response::new(ReceiverStream::new(orders)))
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> Result<Response<RaiseResponse>, Status> {
        self.serving()?;
        let caller = grpc::caller(&request)?.clone();
        let r = request.into_inner();
        let own = if policy::is_controller(&self.0.runtime.args.namespace, "Raise", &caller) {
            None
        } else {
            Some(self.own(&caller).await?)
        };
        let (namespace, spec) = spec(&r, own.as_ref().map(|o| o.polecat.as_ref()))?;
        if own.is_some() {
            let of_agent = |e: &gastown_api::Escalation| {
                e.spec.source == spec.source && e.spec.related_object == spec.related_object
            };
            let here = |e: &gastown_api::Escalation| {
                e.namespace().as_deref() == Some(namespace.as_str()) && e.spec.cause != spec.cause
            };
            let open = self
                .0
                .escalations
                .state_filter(|e| here(e) && of_agent(e) && alarms::is_open(e))
                .len();
            if open >= OPEN_OF_AN_AGENT {
                return Err(Status::resource_exhausted(format!(
                    "{open} Escalations of this agent are open"
                )));
            }
        }
        let by = if own.is_some() { Raiser::Agent } else { Raiser::Controller };
        let (name, created) =
            alarms::raise(&self.0, &namespace, spec, by).await.map_err(|e| refused(&e))?;
        Ok(Response::new(RaiseResponse { namespace, name, created }))
    }

    async fn settle(
        &self,
        request: Request<SettleRequest>,
    ) -> Result<Response<SettleResponse>, Status> {
        self.serving()?;
        let r = request.into_inner();
        if r.namespace.is_empty() || r.cause.is_empty() {
            return Err(Status::invalid_argument("namespace and cause must be there"));
        }
        let settled = alarms::settle(&self.0, &r.namespace, &r.cause, &r.why)
            .await
            .map_err(|e| refused(&e))?;
        Ok(Response::new(SettleResponse { name: settled.unwrap_or_default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> RaiseRequest {
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
    fn what_cannot_be_is_refused() {
        for wrong in [
            RaiseRequest { severity: "urgent".into(), ..asked() },
            RaiseRequest { summary: String::new(), ..asked() },
            RaiseRequest { summary: "x".repeat(1025), ..asked() },
            RaiseRequest { cause: String::new(), ..asked() },
            RaiseRequest { cause: "x".repeat(513), ..asked() },
            RaiseRequest { namespace: String::new(), ..asked() },
            RaiseRequest { details: "x".repeat(16_385), ..asked() },
        ] {
            assert_eq!(
                spec(&wrong, None).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{wrong:?}"
            );
        }
        assert_eq!(spec(&asked(), None).unwrap().1.related_object, None);
    }

    #[test]
    fn an_agent_raises_for_its_own_polecat_and_under_a_cause_of_its_own() {
        let (namespace, made) =
            spec(&RaiseRequest { source: "polecat-ctl".into(), ..asked() }, Some(&toast()))
                .unwrap();
        assert_eq!((namespace.as_str(), made.source.as_str()), ("work", "agent"));
        assert_eq!(made.cause, "polecat/work/toast/agent/polecat/work/toast/AttemptsSpent");
        for foreign in [
            RaiseRequest { namespace: "other".into(), ..asked() },
            RaiseRequest { rig: "other".into(), ..asked() },
            RaiseRequest {
                related_kind: "Polecat".into(),
                related_name: "other".into(),
                ..asked()
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
