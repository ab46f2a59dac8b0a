//! The convoy under whatever can happen: stores, polecats and requests in any state, in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BEADS: usize = 6;

fn id(n: usize) -> String {
    format!("gt-{n}")
}

fn bead() -> impl Strategy<Value = BeadFact> {
    let status = prop_oneof![4 => Just("open"), 1 => Just("in_progress"), 2 => Just("closed"), 1 => Just("pinned")];
    let kind = prop_oneof![4 => Just("blocks"), 1 => Just("parent-child"), 1 => Just("related"), 1 => Just("waits-for")];
    let dependency =
        (0..BEADS + 1, kind).prop_map(|(on, kind)| Dependency { on: id(on), kind: kind.into() });
    (
        status,
        0..5u32,
        proptest::option::of(0..9i64),
        any::<bool>(),
        any::<bool>(),
        proptest::collection::vec(dependency, 0..3),
    )
        .prop_map(|(status, priority, created, blocked, ready, dependencies)| BeadFact {
            status: status.into(),
            priority,
            created,
            kind: "task".into(),
            assignee: String::new(),
            blocked,
            ready,
            dependencies,
        })
}

fn polecats() -> impl Strategy<Value = Vec<PolecatFact>> {
    let state = prop_oneof![
        Just(PolecatState::Active),
        Just(PolecatState::Paused),
        Just(PolecatState::Done),
        Just(PolecatState::Stuck),
        Just(PolecatState::Terminated)
    ];
    let polecat =
        state.prop_map(|state| PolecatFact { name: "p".into(), state, reason: String::new() });
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(polecat, 1..3)]
}

fn requests() -> impl Strategy<Value = Vec<RequestFact>> {
    let state = prop_oneof![
        Just(RequestState::Open),
        Just(RequestState::Past),
        Just(RequestState::Rejected),
        Just(RequestState::Landed)
    ];
    let request =
        state.prop_map(|state| RequestFact { name: "m".into(), state, reason: String::new() });
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(request, 1..3)]
}

prop_compose! {
    fn snapshot()(
        beads in proptest::collection::vec(proptest::option::weighted(0.95, bead()), BEADS),
        store in prop_oneof![6 => Just(2), 1 => Just(1), 1 => Just(0)],
        polecats in proptest::collection::vec(polecats(), BEADS),
        requests in proptest::collection::vec(requests(), BEADS),
        landed in proptest::collection::btree_set((0..BEADS).prop_map(id), 0..3),
        done in proptest::collection::btree_set((0..BEADS).prop_map(id), 0..3),
        (dispatch, suspended, stop) in (prop::bool::weighted(0.8), prop::bool::weighted(0.1), any::<bool>()),
        parallelism in proptest::option::of(0..4usize),
        (most, active) in (0..6usize, 0..6usize),
        tracked in proptest::collection::vec((0..BEADS).prop_map(id), 1..9),
    ) -> Snapshot {
        let store = match store {
            0 => Store::None,
            1 => Store::Unavailable("away".into()),
            _ => Store::Read(beads.into_iter().enumerate().filter_map(|(n, bead)| Some((id(n), bead?))).collect()),
        };
        let by_bead = |all: Vec<Vec<PolecatFact>>| -> BTreeMap<_, _> { all.into_iter().enumerate().map(|(n, all)| (id(n), all)).collect() };
        let rig = Rig { name: "web".into(), prefixes: vec!["gt".into()], allows: true, most, active, ..Rig::default() };
        Snapshot {
            namespace: "team".into(),
            deleting: false,
            tracked,
            rig: RigState::Present(rig),
            dispatch,
            policy: if stop { Policy::Stop } else { Policy::Continue },
            suspended,
            parallelism,
            store,
            polecats: by_bead(polecats),
            requests: requests.into_iter().enumerate().map(|(n, all)| (id(n), all)).collect(),
            taken: BTreeSet::new(),
            counted: Counted { landed, done },
            told: None,
        }
    }
}

/// The promise in its own words, not in the machine's.
fn is_through(s: &Snapshot, bead: &str) -> bool {
    let closed = matches!(&s.store, Store::Read(beads) if beads.get(bead).is_some_and(|bead| bead.status == "closed"));
    let landed = s
        .requests
        .get(bead)
        .is_some_and(|all| all.iter().any(|request| request.state == RequestState::Landed));
    let done = s
        .polecats
        .get(bead)
        .is_some_and(|all| all.iter().any(|polecat| polecat.state == PolecatState::Done));
    closed
        || landed
        || s.counted.landed.contains(bead)
        || (!s.dispatch && (done || s.counted.done.contains(bead)))
}

fn works(s: &Snapshot, bead: &str) -> bool {
    let all = s.polecats.get(bead).map_or(&[][..], Vec::as_slice);
    all.iter().any(|polecat| matches!(polecat.state, PolecatState::Active | PolecatState::Paused))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn complete_means_that_all_work_is_through(s in snapshot()) {
        let all = s.tracked.iter().all(|bead| is_through(&s, bead));
        let plan = decide(&s);
        prop_assert_eq!(plan.verdict.phase == Phase::Complete, all);
        prop_assert_eq!(matches!(plan.tell, Some(Tell::End { end: End::Complete, .. })), all);
    }

    #[test]
    fn feeding_exceeds_no_cap_and_gives_no_bead_a_second_polecat(s in snapshot()) {
        let plan = decide(&s);
        let tracked: BTreeSet<&String> = s.tracked.iter().collect();
        let busy = tracked.iter().filter(|bead| !is_through(&s, bead) && works(&s, bead)).count();
        let RigState::Present(rig) = &s.rig else { unreachable!() };
        prop_assert!(plan.feed.is_empty() || s.parallelism.is_none_or(|most| busy + plan.feed.len() <= most));
        prop_assert!(plan.feed.is_empty() || rig.active + plan.feed.len() <= rig.most);
        prop_assert!(plan.feed.is_empty() || (s.dispatch && !s.suspended && matches!(s.store, Store::Read(_))));
        let names: BTreeSet<&String> = plan.feed.iter().map(|feed| &feed.polecat).collect();
        prop_assert_eq!(names.len(), plan.feed.len());
        for feed in &plan.feed {
            prop_assert!(tracked.contains(&feed.bead) && !is_through(&s, &feed.bead), "{:?}", feed);
            prop_assert!(s.polecats[&feed.bead].is_empty(), "{:?}", feed);
            let Store::Read(beads) = &s.store else { unreachable!() };
            for dependency in beads[&feed.bead].dependencies.iter().filter(|dependency| dependency.kind == "blocks") {
                let over = beads.get(&dependency.on).is_none_or(|on| ["closed", "pinned"].contains(&on.status.as_str()));
                prop_assert!(over || is_through(&s, &dependency.on), "{:?} waits for {:?}", feed, dependency);
            }
        }
    }

    #[test]
    fn failed_means_that_nothing_moves(s in snapshot()) {
        let plan = decide(&s);
        if plan.verdict.phase == Phase::Failed {
            prop_assert!(plan.feed.is_empty() && !plan.verdict.failed.is_empty());
            prop_assert!(s.tracked.iter().all(|bead| is_through(&s, bead) || !works(&s, bead)));
        }
    }

    #[test]
    fn what_counts_once_counts_for_ever(before in snapshot(), after in snapshot()) {
        let plan = decide(&before);
        let counted = plan.count.unwrap_or_else(|| before.counted.clone());
        let later = Snapshot { tracked: before.tracked.clone(), dispatch: before.dispatch, counted, ..after };
        let completed: BTreeSet<String> = decide(&later).verdict.completed.into_iter().collect();
        prop_assert!(plan.verdict.completed.iter().all(|bead| completed.contains(bead)));
    }

    #[test]
    fn deciding_again_after_the_annotation_is_written_changes_nothing(s in snapshot()) {
        let plan = decide(&s);
        if let Some(counted) = plan.count {
            let again = decide(&Snapshot { counted: Counted::read(Some(&counted.write())), ..s });
            prop_assert_eq!(again.count, None);
            prop_assert_eq!((again.feed, again.verdict, again.tell), (plan.feed, plan.verdict, plan.tell));
        }
    }

    #[test]
    fn feeding_to_the_end_lands_everything_that_can_land(s in snapshot()) {
        // Whatever is fed lands at once: the convoy ends, and starts no bead twice on the way.
        let mut s = s;
        let mut seen = BTreeSet::new();
        for _ in 0..=BEADS {
            let feed = decide(&s).feed;
            if feed.is_empty() { return Ok(()); }
            for Feed { bead, polecat, .. } in feed {
                prop_assert!(seen.insert(bead.clone()), "{} is started twice", bead);
                let done = PolecatFact { name: polecat, state: PolecatState::Done, reason: String::new() };
                s.polecats.entry(bead.clone()).or_default().push(done);
                let landed = RequestFact { name: "m".into(), state: RequestState::Landed, reason: String::new() };
                s.requests.entry(bead).or_default().push(landed);
            }
        }
        prop_assert!(decide(&s).feed.is_empty());
    }
}
