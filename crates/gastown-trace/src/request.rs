//! The way of a MergeRequest to the target branch: what refinery-ctl knows of a life.

use jiff::Timestamp;

use crate::ids::{Context, SpanId, TraceId, origin};
use crate::life::Life;
use crate::span::{Span, Status, texts, whole};

/// Where the spans of a request belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    uid: String,
    trace: TraceId,
    /// The life of its author, or its creator's span.
    parent: Option<SpanId>,
    /// It has no author: its whole way is a span of its own.
    is_root: bool,
}

impl Request {
    /// The request with this uid. `traceparent` is its annotation, `polecat` its author's uid.
    pub fn of(uid: &str, traceparent: Option<&str>, polecat: Option<&str>) -> Self {
        let given = traceparent.and_then(|text| text.parse::<Context>().ok());
        let life = polecat.map(|polecat| Life::of(polecat, None).root());
        let (trace, parent) = origin(uid, given.or(life));
        Self { uid: uid.to_owned(), trace, parent, is_root: polecat.is_none() }
    }

    /// The trace that it belongs to.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// The span of a gate's run on it, by the run's name.
    pub fn gate(&self, run: &str) -> Context {
        self.context("gate run", run)
    }

    fn context(&self, phase: &str, key: &str) -> Context {
        Context { trace: self.trace, span: SpanId::of(&self.uid, phase, key) }
    }

    /// The span that the phases are part of.
    fn whole_way(&self) -> Option<SpanId> {
        if self.is_root { Some(self.context("request", "").span) } else { self.parent }
    }

    fn phase(&self, name: &'static str, key: &str, times: (Timestamp, Timestamp)) -> Span {
        Span::new(self.context(name, key), self.whole_way(), name, times)
    }
}

/// One run of a gate that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Its name, and that of its Job.
    pub name: String,
    /// Its number among the runs of its request, from 1.
    pub number: u32,
    /// The gate's name.
    pub gate: String,
    /// The commit that was tested.
    pub candidate: String,
    /// Why it ran: `Test`, `Control`, `Retry`.
    pub purpose: String,
    /// When what it tests began to be built, if that was kept.
    pub building: Option<Timestamp>,
    /// When it was created.
    pub created: Timestamp,
    /// When its command started, if it did.
    pub started: Option<Timestamp>,
    /// When its end was recorded.
    pub finished: Timestamp,
    /// `Passed`, `Failed` or `Broken`.
    pub result: String,
}

impl Run {
    /// Its result in the words of the semantic conventions.
    fn result(&self) -> &'static str {
        match self.result.as_str() {
            "Passed" => "success",
            "Failed" => "failure",
            _ => "error",
        }
    }
}

/// What is known of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its rig.
    pub rig: String,
    /// Its branch.
    pub branch: String,
    /// Its commit.
    pub commit: String,
    /// The branch that it lands on.
    pub target: String,
    /// When it was created.
    pub created: Timestamp,
    /// The runs of gates on it that have ended, in any order.
    pub runs: Vec<Run>,
    /// When it ended, and in which phase (`Landed`, `Rework`, …) with which reason, if it has.
    pub ended: Option<(Timestamp, String, String)>,
}

impl Request {
    /// The spans that are over, by what is known: each has the same content whenever it is made, as
    /// long as the runs before it are known.
    pub fn spans(&self, facts: &RequestFacts) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut runs: Vec<&Run> = facts.runs.iter().collect();
        runs.sort_by_key(|run| run.number);
        let mut at = whole(facts.created);
        for run in &runs {
            at = self.add_run(run, at, &mut spans);
        }
        if let Some((ended, phase, reason)) = &facts.ended {
            let ended = whole(*ended).max(at);
            let key = ended.as_second().to_string();
            let name = match (phase.as_str(), runs.is_empty()) {
                ("Landed", _) => "land",
                (_, true) => "queue",
                (_, false) => "verdict",
            };
            let mut last = self.phase(name, &key, (at, ended));
            last.attributes = texts([
                ("gastown.merge_request.phase", phase),
                ("gastown.merge_request.reason", reason),
            ]);
            spans.push(last);
            if self.is_root {
                spans.push(self.whole(facts, (ended, phase, reason)));
            }
        }
        let about = texts([
            ("k8s.namespace.name", &facts.namespace),
            ("vcs.change.id", &facts.name),
            ("gastown.rig.name", &facts.rig),
        ]);
        for span in &mut spans {
            span.attributes.extend(about.iter().cloned());
        }
        spans
    }

    /// The span of a request that nobody's life is about.
    fn whole(&self, facts: &RequestFacts, (at, phase, reason): (Timestamp, &str, &str)) -> Span {
        let times = (whole(facts.created), at);
        let mut span = Span::new(self.context("request", ""), self.parent, "merge request", times);
        span.remote_parent = self.parent.is_some();
        span.attributes = texts([
            ("vcs.ref.head.name", &facts.branch),
            ("vcs.ref.head.revision", &facts.commit),
            ("vcs.ref.base.name", &facts.target),
            ("vcs.change.state", if phase == "Landed" { "merged" } else { "closed" }),
        ]);
        span.status = match phase {
            "Landed" => Status::Ok,
            _ => Status::Error(reason.to_owned()),
        };
        span
    }

    /// The phases up to the end of one run, of a request whose phases reach to `from`. A run that
    /// began while another one ran counts from the end of that one. Returns where they reach to.
    fn add_run(&self, run: &Run, from: Timestamp, spans: &mut Vec<Span>) -> Timestamp {
        let key = run.name.as_str();
        let created = whole(run.created).max(from);
        let building = run.building.map_or(created, whole).clamp(from, created);
        let finished = whole(run.finished).max(created);
        let started = run.started.map(|started| whole(started).clamp(created, finished));
        spans.push(self.phase("queue", key, (from, building)));
        let mut build = self.phase("build", key, (building, created));
        build.attributes = texts([
            ("cicd.pipeline.task.type", "build"),
            ("vcs.ref.head.revision", &run.candidate),
        ]);
        spans.push(build);
        let gate = self.gate(key);
        let mut whole_run = self.phase("gate run", key, (created, finished));
        whole_run.attributes = texts([
            ("cicd.pipeline.name", &run.gate),
            ("cicd.pipeline.run.id", &run.name),
            ("cicd.pipeline.result", run.result()),
            ("cicd.pipeline.task.type", "test"),
            ("vcs.ref.head.revision", &run.candidate),
            ("k8s.job.name", &run.name),
            ("gastown.gate.purpose", &run.purpose),
        ]);
        if run.result() != "success" {
            whole_run.status = Status::Error(run.result.clone());
        }
        spans.push(whole_run);
        let pending_until = started.unwrap_or(finished);
        let part = |name, times| Span::new(self.context(name, key), Some(gate.span), name, times);
        spans.push(part("gate pending", (created, pending_until)));
        if let Some(started) = started {
            spans.push(part("gate running", (started, finished)));
        }
        finished
    }
}
