use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const HOUR: i64 = 3600;

fn route(name: &str, min_severity: Severity) -> RouteSnapshot {
    RouteSnapshot { name: name.into(), min_severity, sent_at: Vec::new() }
}

fn snapshot(severity: Severity) -> Snapshot {
    Snapshot {
        severity,
        created: at(0),
        acknowledged: false,
        closed: false,
        missing: None,
        state: EscalationState::default().raise(at(0)),
        routes: vec![route("mayor", Severity::Low), route("pager", Severity::Critical)],
    }
}

fn fail() -> Outcome {
    Outcome::Failed { why: "503".into(), after: None }
}

#[test]
fn a_route_gets_one_message_and_only_from_its_severity_on() {
    let mut snapshot = snapshot(Severity::High);
    let plan = decide(at(1), &snapshot);
    assert_eq!(
        plan.attempts,
        [Attempt { route: "mayor".into(), severity: Severity::High, number: 1 }]
    );
    snapshot.state = plan.state.record(&plan.attempts[0], at(1), &Outcome::Sent);
    let after = decide(at(2), &snapshot);
    assert_eq!((after.attempts, after.next), (vec![], Some(at(4 * HOUR))));
}

#[test]
fn what_nobody_acknowledges_becomes_more_severe_twice_and_is_sent_again() {
    let mut snapshot = snapshot(Severity::Medium);
    let mut seen = Vec::new();
    for hour in 0..20 {
        let now = at(hour * HOUR);
        let plan = decide(now, &snapshot);
        for attempt in &plan.attempts {
            seen.push((hour, attempt.route.clone(), attempt.severity));
        }
        snapshot.state = plan
            .attempts
            .iter()
            .fold(plan.state, |state, attempt| state.record(attempt, now, &Outcome::Sent));
    }
    let sent = |hour, route: &str, severity| (hour, route.to_owned(), severity);
    let wanted = [
        sent(0, "mayor", Severity::Medium),
        sent(4, "mayor", Severity::High),
        sent(8, "mayor", Severity::Critical),
        sent(8, "pager", Severity::Critical),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(snapshot.state.stale, [at(4 * HOUR), at(8 * HOUR)]);
}

#[test]
fn a_low_escalation_never_becomes_more_than_high() {
    let mut snapshot = snapshot(Severity::Low);
    for hour in 0..100 {
        snapshot.state = decide(at(hour * HOUR), &snapshot).state;
    }
    assert_eq!(decide(at(100 * HOUR), &snapshot).severity, Severity::High);
}

#[test]
fn an_acknowledged_escalation_is_not_sent() {
    let snapshot = Snapshot { acknowledged: true, ..snapshot(Severity::Low) };
    let plan = decide(at(50 * HOUR), &snapshot);
    assert_eq!(
        (plan.phase, plan.severity, plan.attempts, plan.next),
        (EscalationPhase::Acknowledged, Severity::Low, vec![], None)
    );
}

#[test]
fn a_failing_route_is_tried_with_back_off_and_not_forever() {
    let mut snapshot = snapshot(Severity::Low);
    let (mut now, mut waits) = (at(1), Vec::new());
    for _ in 0..MAX_ATTEMPTS {
        let plan = decide(now, &snapshot);
        assert_eq!(plan.attempts.len(), 1, "{plan:?}");
        snapshot.state = plan.state.record(&plan.attempts[0], now, &fail());
        let Some(next) = snapshot.state.deliveries[0].next else { break };
        let early = decide(at(next.as_second() - 1), &snapshot);
        assert_eq!((early.attempts, early.next), (vec![], Some(next)));
        waits.push(next.as_second() - now.as_second());
        now = next;
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600, 600, 600]);
    assert_eq!(snapshot.state.deliveries[0].state, DeliveryState::Failed);
    assert_eq!(decide(add(now, SignedDuration::from_mins(20)), &snapshot).attempts, []);
}

#[test]
fn a_wait_that_the_other_side_asks_for_is_bounded() {
    let attempt = Attempt { route: "slack".into(), severity: Severity::Low, number: 1 };
    let next = |seconds| {
        let outcome =
            Outcome::Failed { why: "429".into(), after: Some(SignedDuration::from_secs(seconds)) };
        EscalationState::default().record(&attempt, at(0), &outcome).deliveries[0]
            .next
            .unwrap()
            .as_second()
    };
    assert_eq!((next(1), next(90), next(i64::MAX)), (30, 90, 3600));
}

#[test]
fn a_busy_route_delays_the_next_message() {
    let mut snapshot = snapshot(Severity::Low);
    snapshot.routes[0].sent_at = (0..20).map(at).collect();
    let plan = decide(at(30), &snapshot);
    assert_eq!((plan.attempts, plan.next), (vec![], Some(at(60))));
    assert_eq!(decide(at(60), &snapshot).attempts.len(), 1);
}

#[test]
fn a_settled_escalation_is_closed_keeps_its_reason_and_is_deleted_after_a_week() {
    let mut snapshot = snapshot(Severity::High);
    snapshot.state = snapshot.state.settle(at(9), "it works again").settle(at(10), "another");
    let plan = decide(at(20), &snapshot);
    assert_eq!((plan.phase, plan.delete), (EscalationPhase::Closed, false));
    assert_eq!(plan.state.settled.unwrap().why, "it works again");
    assert!(decide(at(9 + 7 * 24 * HOUR), &snapshot).delete);
}

#[test]
fn what_is_about_an_object_that_is_gone_is_closed_once_that_is_certain() {
    let mut snapshot = snapshot(Severity::High);
    snapshot.missing = Some("Polecat team/toast does not exist any more".to_owned());
    let plan = decide(at(59), &snapshot);
    assert_eq!((plan.phase, plan.next), (EscalationPhase::Open, Some(at(60))));
    for acknowledged in [false, true] {
        snapshot.acknowledged = acknowledged;
        let plan = decide(at(60), &snapshot);
        assert_eq!((plan.phase, plan.attempts.len()), (EscalationPhase::Closed, 0));
        let settled = plan.state.settled.unwrap();
        assert_eq!(settled.why, "Polecat team/toast does not exist any more");
    }
}

#[test]
fn a_state_that_a_person_broke_counts_as_empty() {
    for text in ["", "{", "[]", "{\"raises\":-1}"] {
        assert_eq!(EscalationState::read(Some(text)), EscalationState::default(), "{text}");
    }
    let state = EscalationState::default().raise(at(1)).settle(at(2), "x");
    assert_eq!(EscalationState::read(Some(&state.write())), state);
}

#[test]
fn the_annotation_keeps_its_format() {
    let text = r#"{"raises":2,"raised":"1970-01-01T00:00:02Z","stale":["1970-01-01T04:00:00Z"],"settled":{"at":"1970-01-01T05:00:00Z","why":"over"},"closed":"1970-01-01T06:00:00Z","told":[{"route":"mayor","severity":"high","state":"Pending","attempts":1,"last":"1970-01-01T00:00:03Z","next":"1970-01-01T00:00:33Z","why":"503"}]}"#;
    let state = EscalationState::read(Some(text));
    assert_eq!((state.raises, state.deliveries.len()), (2, 1));
    assert_eq!(state.write(), text);
}

#[test]
fn names_of_live_escalations_stay() {
    let long = format!("{}//b", "a".repeat(99));
    for (cause, previous, wanted) in [
        ("polecat/web/toast/AttemptsSpent", None, "polecat-web-toast-attemptsspent-1498ad776055"),
        (
            "polecat/web/toast/AttemptsSpent",
            Some("uid"),
            "polecat-web-toast-attemptsspent-e614307fafa9",
        ),
        ("日本", None, "escalation-cc3eef9e1650"),
        (&long, None, &format!("{}-a6b983e0a03a", "a".repeat(99))),
    ] {
        assert_eq!(name(cause, previous), wanted);
    }
}

#[test]
fn names_of_different_causes_and_occurrences_differ() {
    let first = name("polecat/web/toast/AttemptsSpent", None);
    assert!(first.starts_with("polecat-web-toast-attemptsspent-"), "{first}");
    assert_ne!(first, name("polecat/web/toast/AttemptsSpent", Some("uid")));
    assert_ne!(name("a/b", None), name("a-b", None));
}

proptest! {
    #[test]
    fn any_cause_makes_a_name_that_the_api_server_takes(cause in "\\PC{0,600}") {
        let name = name(&cause, None);
        prop_assert!(name.len() <= 253);
        prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        prop_assert!(!name.starts_with('-') && !name.ends_with('-'));
    }

    #[test]
    fn no_route_gets_two_messages_at_one_severity(minutes in proptest::collection::vec(1_i64..200, 1..60), fails in proptest::collection::vec(any::<bool>(), 60)) {
        let mut snapshot = snapshot(Severity::Medium);
        let (mut now, mut sent) = (0, Vec::new());
        for (step, minutes) in minutes.into_iter().enumerate() {
            now += minutes * 60;
            let plan = decide(at(now), &snapshot);
            snapshot.state = plan.state;
            for attempt in &plan.attempts {
                let outcome = if fails[step] { fail() } else { Outcome::Sent };
                if outcome == Outcome::Sent {
                    prop_assert!(!sent.contains(&(attempt.route.clone(), attempt.severity)));
                    sent.push((attempt.route.clone(), attempt.severity));
                }
                snapshot.state = snapshot.state.clone().record(attempt, at(now), &outcome);
            }
            prop_assert!(snapshot.state.stale.len() <= STALE_RAISES);
        }
    }
}
