use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const HOUR: i64 = 3600;

fn route(name: &str, least: Severity) -> RouteFacts {
    RouteFacts { name: name.into(), least, carried: Vec::new() }
}

fn facts(severity: Severity) -> Facts {
    Facts {
        severity,
        created: at(0),
        acknowledged: false,
        closed: false,
        ledger: Ledger::default().raise(at(0)),
        routes: vec![route("mayor", Severity::Low), route("pager", Severity::Critical)],
    }
}

fn fail() -> Outcome {
    Outcome::Failed { why: "503".into(), after: None }
}

#[test]
fn a_route_is_told_once_and_only_from_its_severity_on() {
    let mut facts = facts(Severity::High);
    let plan = decide(at(1), &facts);
    assert_eq!(plan.sends, [Send { route: "mayor".into(), severity: Severity::High, attempt: 1 }]);
    facts.ledger = plan.ledger.tried(&plan.sends[0], at(1), &Outcome::Sent);
    let after = decide(at(2), &facts);
    assert_eq!((after.sends, after.next), (vec![], Some(at(4 * HOUR))));
}

#[test]
fn what_nobody_acknowledges_becomes_worse_twice_and_is_told_again() {
    let mut facts = facts(Severity::Medium);
    let mut seen = Vec::new();
    for hour in 0..20 {
        let now = at(hour * HOUR);
        let plan = decide(now, &facts);
        for send in &plan.sends {
            seen.push((hour, send.route.clone(), send.severity));
        }
        facts.ledger = plan
            .sends
            .iter()
            .fold(plan.ledger, |ledger, send| ledger.tried(send, now, &Outcome::Sent));
    }
    let told = |hour, route: &str, severity| (hour, route.to_owned(), severity);
    let wanted = [
        told(0, "mayor", Severity::Medium),
        told(4, "mayor", Severity::High),
        told(8, "mayor", Severity::Critical),
        told(8, "pager", Severity::Critical),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(facts.ledger.stale, [at(4 * HOUR), at(8 * HOUR)]);
}

#[test]
fn a_low_one_never_becomes_more_than_high() {
    let mut facts = facts(Severity::Low);
    for hour in 0..100 {
        facts.ledger = decide(at(hour * HOUR), &facts).ledger;
    }
    assert_eq!(decide(at(100 * HOUR), &facts).severity, Severity::High);
}

#[test]
fn an_acknowledged_one_is_told_no_further() {
    let facts = Facts { acknowledged: true, ..facts(Severity::Low) };
    let plan = decide(at(50 * HOUR), &facts);
    assert_eq!(
        (plan.phase, plan.severity, plan.sends, plan.next),
        (EscalationPhase::Acknowledged, Severity::Low, vec![], None)
    );
}

#[test]
fn a_failing_route_is_tried_with_back_off_and_not_for_ever() {
    let mut facts = facts(Severity::Low);
    let (mut now, mut waits) = (at(1), Vec::new());
    for _ in 0..TRIES {
        let plan = decide(now, &facts);
        assert_eq!(plan.sends.len(), 1, "{plan:?}");
        facts.ledger = plan.ledger.tried(&plan.sends[0], now, &fail());
        let Some(next) = facts.ledger.told[0].next else { break };
        let early = decide(at(next.as_second() - 1), &facts);
        assert_eq!((early.sends, early.next), (vec![], Some(next)));
        waits.push(next.as_second() - now.as_second());
        now = next;
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600, 600, 600]);
    assert_eq!(facts.ledger.told[0].state, DeliveryState::Failed);
    assert_eq!(decide(later(now, SignedDuration::from_mins(20)), &facts).sends, []);
}

#[test]
fn a_wait_that_the_other_side_asks_for_is_kept_within_reason() {
    let send = Send { route: "slack".into(), severity: Severity::Low, attempt: 1 };
    let next = |seconds| {
        let outcome =
            Outcome::Failed { why: "429".into(), after: Some(SignedDuration::from_secs(seconds)) };
        Ledger::default().tried(&send, at(0), &outcome).told[0].next.unwrap().as_second()
    };
    assert_eq!((next(1), next(90), next(i64::MAX)), (30, 90, 3600));
}

#[test]
fn a_busy_route_makes_the_next_wait() {
    let mut facts = facts(Severity::Low);
    facts.routes[0].carried = (0..20).map(at).collect();
    let plan = decide(at(30), &facts);
    assert_eq!((plan.sends, plan.next), (vec![], Some(at(60))));
    assert_eq!(decide(at(60), &facts).sends.len(), 1);
}

#[test]
fn a_settled_one_is_closed_keeps_its_reason_and_goes_after_a_week() {
    let mut facts = facts(Severity::High);
    facts.ledger = facts.ledger.settle(at(9), "it works again").settle(at(10), "another");
    let plan = decide(at(20), &facts);
    assert_eq!((plan.phase, plan.delete), (EscalationPhase::Closed, false));
    assert_eq!(plan.ledger.settled.unwrap().why, "it works again");
    assert!(decide(at(9 + 7 * 24 * HOUR), &facts).delete);
}

#[test]
fn a_ledger_that_a_person_broke_counts_as_none() {
    for text in ["", "{", "[]", "{\"raises\":-1}"] {
        assert_eq!(Ledger::read(Some(text)), Ledger::default(), "{text}");
    }
    let ledger = Ledger::default().raise(at(1)).settle(at(2), "x");
    assert_eq!(Ledger::read(Some(&ledger.write())), ledger);
}

#[test]
fn names_are_names_and_tell_causes_and_occurrences_apart() {
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
    fn nobody_is_told_twice_at_one_severity(minutes in proptest::collection::vec(1_i64..200, 1..60), fails in proptest::collection::vec(any::<bool>(), 60)) {
        let mut facts = facts(Severity::Medium);
        let (mut now, mut sent) = (0, Vec::new());
        for (step, minutes) in minutes.into_iter().enumerate() {
            now += minutes * 60;
            let plan = decide(at(now), &facts);
            facts.ledger = plan.ledger;
            for send in &plan.sends {
                let outcome = if fails[step] { fail() } else { Outcome::Sent };
                if outcome == Outcome::Sent {
                    prop_assert!(!sent.contains(&(send.route.clone(), send.severity)));
                    sent.push((send.route.clone(), send.severity));
                }
                facts.ledger = facts.ledger.clone().tried(send, at(now), &outcome);
            }
            prop_assert!(facts.ledger.stale.len() <= STALE_RAISES);
        }
    }
}
