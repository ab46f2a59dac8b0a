//! What happened in a pod while it ran, as the programs in it report it.

use jiff::Timestamp;

use crate::life::Life;
use crate::span::{Span, Status, texts};

/// What a step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A tool call of the agent, by the agent's word.
    Tool,
    /// The sidecar pushed the work branch.
    Push,
    /// The sidecar saved a snapshot of the workspace.
    Save,
}

/// Something that has ended. Its times are as exact as the pod's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it was.
    pub kind: StepKind,
    /// The tool's name, or the commit.
    pub name: String,
    /// When it began.
    pub begin: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Why it failed; empty when it did not.
    pub failure: String,
}

impl Life {
    /// The span of a step in the pod with this uid: a tool call is part of what the agent did, the others
    /// are part of the attempt.
    pub fn step(&self, pod_uid: &str, step: &Step) -> Span {
        let key = format!("{pod_uid} {}", step.begin.as_millisecond());
        let (name, parent, attributes) = match step.kind {
            StepKind::Tool => (
                "execute_tool",
                self.context("agent", pod_uid),
                texts([
                    ("gen_ai.operation.name", "execute_tool"),
                    ("gen_ai.tool.name", &step.name),
                ]),
            ),
            StepKind::Push => {
                ("push", self.attempt(pod_uid), texts([("vcs.ref.head.revision", &step.name)]))
            }
            StepKind::Save => {
                ("snapshot", self.attempt(pod_uid), texts([("vcs.ref.head.revision", &step.name)]))
            }
        };
        let times = (step.begin, step.end);
        let mut span = Span::new(self.context(name, &key), Some(parent.span), name, times);
        span.attributes = attributes;
        if !step.failure.is_empty() {
            span.status = Status::Error(step.failure.clone());
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attempt, End, LifeFacts};

    #[test]
    fn steps_are_below_the_agent_and_the_attempt_of_their_pod() {
        let life = Life::of("uid", None);
        let at = Timestamp::from_second;
        let (begin, end) = (at(20).unwrap(), at(21).unwrap());
        let span = |kind, failure: &str| {
            let (name, failure) = ("Bash".to_owned(), failure.to_owned());
            life.step("pod", &Step { kind, name, begin, end, failure })
        };
        let attempt = Attempt {
            pod_uid: "pod".into(),
            created: at(10).unwrap(),
            agent: at(12).ok(),
            end: Some(End { at: at(30).unwrap(), ..End::default() }),
            ..Attempt::default()
        };
        let facts = LifeFacts { attempts: vec![attempt], ..LifeFacts::default() };
        let spans = life.spans(&facts);
        let id = |name: &str| spans.iter().find(|span| span.name == name).map(|span| span.id);
        assert_eq!(span(StepKind::Tool, "").parent, id("agent"));
        assert_eq!(span(StepKind::Push, "").parent, id("attempt"));
        assert_eq!(span(StepKind::Save, "").parent, id("attempt"));
        assert_ne!(span(StepKind::Push, "").id, span(StepKind::Save, "").id);
        assert_eq!(span(StepKind::Push, "").status, Status::Unset);
        let failed = span(StepKind::Push, "no route");
        assert_eq!(failed.status, Status::Error("no route".into()));
    }
}
