//! The life of a Polecat: from its creation to its end, and what polecat-ctl knows of the phases
//! between.

use jiff::Timestamp;

use crate::ids::{Context, SpanId, TraceId, origin};
use crate::span::{Attribute, Span, Status, texts, whole};

/// Where the spans of a life belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    uid: String,
    trace: TraceId,
    /// The creator's span.
    creator: Option<SpanId>,
}

impl Life {
    /// The life of the Polecat with this uid. `traceparent` is its creator's, where it has one; one
    /// that cannot be read counts as none.
    pub fn of(uid: &str, traceparent: Option<&str>) -> Self {
        let (trace, creator) = origin(uid, traceparent.and_then(|text| text.parse().ok()));
        Self { uid: uid.to_owned(), trace, creator }
    }

    /// The trace of the life.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// The span of the whole life, which ends last.
    pub fn root(&self) -> Context {
        self.context("life", "")
    }

    /// The span of an attempt, by the uid of its pod: the parent of what happens in the pod.
    pub fn attempt(&self, pod_uid: &str) -> Context {
        self.context("attempt", pod_uid)
    }

    pub(crate) fn context(&self, phase: &str, key: &str) -> Context {
        Context { trace: self.trace, span: SpanId::of(&self.uid, phase, key) }
    }

    /// A phase of the life.
    fn phase(&self, name: &'static str, key: &str, times: (Timestamp, Timestamp)) -> Span {
        Span::new(self.context(name, key), Some(self.root().span), name, times)
    }
}

/// How the wait for an attempt began. It is kept on the attempt's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// When it began: the creation of the Polecat, or the end of what came before.
    pub since: Timestamp,
    /// When the claim on the bead was taken, of a first attempt with a bead.
    pub claimed: Option<Timestamp>,
    /// What sent the work back, of a rework: the red run of a gate.
    pub cause: Option<Context>,
}

/// One pod of the Polecat, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempt {
    /// Its number, from 1; several pods may have the same one.
    pub number: u32,
    /// The pod's uid.
    pub pod_uid: String,
    /// How the wait for it began, if that was kept.
    pub beginning: Option<Beginning>,
    /// When the pod was created.
    pub created: Timestamp,
    /// When its init container started.
    pub init: Option<Timestamp>,
    /// When the agent started.
    pub agent: Option<Timestamp>,
    /// When the agent ended.
    pub agent_ended: Option<Timestamp>,
    /// How the pod ended; none while it has not.
    pub end: Option<End>,
}

/// The end of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// When it ended.
    pub at: Timestamp,
    /// Why, in CamelCase.
    pub reason: String,
    /// Whether that is a failure, and in which words.
    pub failure: Option<String>,
    /// The agent's kind.
    pub agent: String,
    /// The model that answered.
    pub model: String,
}

/// What is known of a life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LifeFacts {
    /// The Polecat's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its rig.
    pub rig: String,
    /// Its bead; may be empty.
    pub bead: String,
    /// When it was created.
    pub created: Timestamp,
    /// The pods that are still known, in any order.
    pub attempts: Vec<Attempt>,
    /// The end of an attempt, and when the MergeRequest of its commit was created: its name and time.
    pub submitted: Option<(Timestamp, String, Timestamp)>,
    /// When its work landed, and when its bead was closed for that.
    pub closed: Option<(Timestamp, Timestamp)>,
    /// How the life ended, if it has: when, and as what (`landed`, `completed`, `deleted`).
    pub ended: Option<(Timestamp, &'static str)>,
    /// Why it failed, where it did not end as it should.
    pub failure: Option<String>,
    /// Tokens and money of all attempts, where any are known.
    pub usage: Option<Usage>,
}

/// Tokens and money, as the agent states them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
}

impl Life {
    /// The spans that are over, by what is known: each has the same content whenever it is made.
    pub fn spans(&self, facts: &LifeFacts) -> Vec<Span> {
        let created = whole(facts.created);
        let mut spans = vec![self.phase("dispatch", "", (created, created))];
        for attempt in &facts.attempts {
            self.add_attempt(attempt, &mut spans);
        }
        if let Some((from, request, at)) = &facts.submitted {
            let mut span = self.phase("submit", request, (whole(*from), whole(*at)));
            span.attributes = texts([("gastown.merge_request.name", request)]);
            spans.push(span);
        }
        if let Some((landed, closed)) = facts.closed {
            let mut span = self.phase("bead.close", "", (whole(landed), whole(closed)));
            span.attributes = texts([("gastown.bead.id", &facts.bead)]);
            spans.push(span);
        }
        for span in &mut spans {
            span.attributes.extend(of_polecat(facts));
        }
        spans.extend(facts.ended.map(|(at, result)| self.whole(facts, at, result)));
        spans
    }

    /// The span of the whole life.
    fn whole(&self, facts: &LifeFacts, at: Timestamp, result: &'static str) -> Span {
        let times = (whole(facts.created), whole(at));
        let mut span = Span::new(self.root(), self.creator, "polecat", times);
        span.remote_parent = self.creator.is_some();
        span.attributes = of_polecat(facts);
        span.attributes
            .extend(texts([("gastown.bead.id", &facts.bead), ("gastown.polecat.result", result)]));
        if let Some(usage) = facts.usage {
            let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).into();
            span.attributes.extend([
                ("gen_ai.usage.input_tokens", tokens(usage.input_tokens)),
                ("gen_ai.usage.output_tokens", tokens(usage.output_tokens)),
                ("gastown.usage.cost_usd", usage.cost_usd.into()),
            ]);
        }
        span.status = match &facts.failure {
            Some(why) => Status::Error(why.clone()),
            None => Status::Ok,
        };
        span
    }

    fn add_attempt(&self, attempt: &Attempt, spans: &mut Vec<Span>) {
        let key = attempt.pod_uid.as_str();
        // The clocks of a node and of the API server may differ: what follows begins no earlier.
        let since = attempt.beginning.as_ref().map(|beginning| whole(beginning.since));
        let created =
            since.map_or_else(|| whole(attempt.created), |since| whole(attempt.created).max(since));
        if let Some(Beginning { since, claimed, cause }) = &attempt.beginning {
            let since = whole(*since);
            let claimed = claimed.map(|claimed| whole(claimed).clamp(since, created));
            if let Some(claimed) = claimed {
                spans.push(self.phase("wait.claim", key, (since, claimed)));
            }
            let mut wait = self.phase("wait.slot", key, (claimed.unwrap_or(since), created));
            wait.attributes.push(("gastown.attempt.number", attempt.number.into()));
            wait.links.extend(*cause);
            spans.push(wait);
        }
        let Some(end) = &attempt.end else { return };
        let at = whole(end.at).max(created);
        let this = self.attempt(key);
        let mut whole_attempt = self.phase("attempt", key, (created, at));
        whole_attempt.attributes = attempt_attributes(attempt, end);
        whole_attempt.links.extend(attempt.beginning.as_ref().and_then(|b| b.cause));
        if let Some(why) = &end.failure {
            whole_attempt.status = Status::Error(why.clone());
        }
        spans.push(whole_attempt);
        let steps = [
            ("pending", Some(created)),
            ("init", attempt.init),
            ("agent", attempt.agent),
            ("save", attempt.agent_ended),
        ];
        let mut known: Vec<(&'static str, Timestamp)> = Vec::new();
        for (name, begin) in steps {
            let Some(begin) = begin else { continue };
            let before = known.last().map_or(created, |(_, begin)| *begin);
            known.push((name, whole(begin).clamp(before, at)));
        }
        for (i, (name, begin)) in known.iter().enumerate() {
            let end_of_step = known.get(i + 1).map_or(at, |(_, next)| *next);
            let times = (*begin, end_of_step);
            let mut span = Span::new(self.context(name, key), Some(this.span), name, times);
            if *name == "agent" {
                span.attributes = texts([
                    ("gen_ai.operation.name", "invoke_agent"),
                    ("gen_ai.agent.name", &end.agent),
                    ("gen_ai.response.model", &end.model),
                ]);
            }
            spans.push(span);
        }
    }
}

fn of_polecat(facts: &LifeFacts) -> Vec<Attribute> {
    texts([
        ("k8s.namespace.name", &facts.namespace),
        ("gastown.polecat.name", &facts.name),
        ("gastown.rig.name", &facts.rig),
    ])
}

fn attempt_attributes(attempt: &Attempt, end: &End) -> Vec<Attribute> {
    let mut all = texts([
        ("k8s.pod.uid", &attempt.pod_uid),
        ("gastown.attempt.end", &end.reason),
        ("gen_ai.agent.name", &end.agent),
        ("gen_ai.response.model", &end.model),
    ]);
    all.push(("gastown.attempt.number", attempt.number.into()));
    all
}
