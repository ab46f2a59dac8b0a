//! Steps that pods report, as spans of the lives of their Polecats.

use gastown_api::Polecat;
use gastown_api::names::annotation;
use gastown_proto::v1;
use gastown_runtime::telemetry;
use gastown_trace::{Life, Span, Step, StepKind};
use gastown_types::text;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

/// How many steps one heartbeat may carry; further ones are ignored.
const MAX_STEPS: usize = 32;
/// The longest name, in characters.
const MAX_NAME: usize = 256;
/// The longest failure, in characters.
const MAX_FAILURE: usize = 500;
/// A step that took longer is shown as one of this length.
const MAX_LENGTH: SignedDuration = SignedDuration::from_hours(24);

/// Exports the steps of a heartbeat of the pod with this uid.
pub(crate) fn export(polecat: &Polecat, pod_uid: &str, steps: &[v1::Step], now: Timestamp) {
    if steps.is_empty() || !telemetry::is_exported() {
        return;
    }
    let traceparent = polecat.annotations().get(annotation::TRACEPARENT);
    let uid = polecat.uid().unwrap_or_default();
    let life = Life::of(&uid, traceparent.map(String::as_str));
    telemetry::export(spans(&life, pod_uid, steps, now));
}

/// The spans of steps. What a pod reports is untrusted: times in the future and long texts are cut, and
/// kinds that only a later version knows are left out.
fn spans(life: &Life, pod_uid: &str, steps: &[v1::Step], now: Timestamp) -> Vec<Span> {
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or(now).min(now);
    let span = |step: &v1::Step| {
        let kind = match step.kind.as_str() {
            "tool" => StepKind::Tool,
            "push" => StepKind::Push,
            "save" => StepKind::Save,
            _ => return None,
        };
        let end = time(step.end_ms);
        let earliest = end.checked_sub(MAX_LENGTH).unwrap_or(end);
        let step = Step {
            kind,
            name: text::line(&step.name, MAX_NAME),
            begin: time(step.begin_ms).clamp(earliest, end),
            end,
            failure: text::line(&step.failure, MAX_FAILURE),
        };
        Some(life.step(pod_uid, &step))
    };
    steps.iter().take(MAX_STEPS).filter_map(span).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(kind: &str, begin_ms: i64, end_ms: i64) -> v1::Step {
        v1::Step { kind: kind.into(), begin_ms, end_ms, ..v1::Step::default() }
    }

    #[test]
    fn steps_become_spans_and_unknown_kinds_are_left_out() {
        let now = Timestamp::from_second(100).unwrap();
        let steps = [step("tool", 1_000, 2_500), step("dream", 1, 2), step("push", 3_000, 4_000)];
        let spans = spans(&Life::of("uid", None), "pod", &steps, now);
        let shown: Vec<(&str, i64, i64)> = spans
            .iter()
            .map(|span| (&*span.name, span.begin.as_millisecond(), span.end.as_millisecond()))
            .collect();
        assert_eq!(shown, [("execute_tool", 1_000, 2_500), ("push", 3_000, 4_000)]);
    }

    proptest! {
        #[test]
        fn no_report_makes_a_long_or_a_later_span(
            begin in any::<i64>(), end in any::<i64>(), name in ".{0,600}", count in 0usize..100,
        ) {
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            let one = v1::Step { name, ..step("tool", begin, end) };
            let spans = spans(&Life::of("uid", None), "pod", &vec![one; count], now);
            prop_assert!(spans.len() <= MAX_STEPS);
            for span in spans {
                prop_assert!(span.begin <= span.end && span.end <= now);
                prop_assert!(span.end.duration_since(span.begin) <= MAX_LENGTH);
            }
        }
    }
}
