//! Properties of a convoy that hold for stores, polecats and requests in any state.

use std::collections::{BTreeMap, BTreeSet};

use gastown_api::{ConvoyPhase, FailurePolicy, MergePhase};
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
        prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(0..3u8, 1..3)],
    )
        .prop_map(|(status, priority, created, blocked, ready, dependencies, closed)| {
            BeadFact {
                status: status.into(),
                priority,
                created,
                kind: "task".into(),
                assignee: String::new(),
                blocked,
                ready,
                dependencies,
                closed_for: closed.into_iter().map(|uid| format!("u{uid}")).collect(),
            }
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
    let polecat = (state, any::<bool>()).prop_map(|(state, merged)| PolecatFact {
        name: "p".into(),
        state,
        reason: String::new(),
        merged,
    });
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(polecat, 1..3)]
}

fn requests() -> impl Strategy<Value = Vec<RequestFact>> {
    let phase = prop_oneof![
        Just(MergePhase::Testing),
        Just(MergePhase::Rework),
        Just(MergePhase::Rejected),
        Just(MergePhase::Landed)
    ];
    let request = (phase, 0..3u8).prop_map(|(phase, uid)| RequestFact {
        name: "m".into(),
        uid: format!("u{uid}"),
        phase,
        reason: String::new(),
    });
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
        closed in proptest::collection::btree_set((0..BEADS).prop_map(id), 0..2),
        (dispatch, suspended, stop) in (prop::bool::weighted(0.8), prop::bool::weighted(0.1), any::<bool>()),
        parallelism in proptest::option::of(0..4usize),
        (max_polecats, active) in (0..6usize, 0..6usize),
        tracked in proptest::collection::vec((0..BEADS).prop_map(id), 1..9),
    ) -> Snapshot {
        let store = match store {
            0 => StoreState::Missing,
            1 => StoreState::Unavailable("away".into()),
            _ => StoreState::Read(beads.into_iter().enumerate().filter_map(|(n, bead)| Some((id(n), bead?))).collect()),
        };
        let by_bead = |all: Vec<Vec<PolecatFact>>| -> BTreeMap<_, _> { all.into_iter().enumerate().map(|(n, all)| (id(n), all)).collect() };
        let rig = Rig { name: "web".into(), prefixes: vec!["gt".into()], allows_namespace: true, max_polecats, active, ..Rig::default() };
        Snapshot {
            namespace: "team".into(),
            deleting: false,
            tracked,
            rig: RigState::Present(rig),
            dispatch,
            failure_policy: if stop { FailurePolicy::Stop } else { FailurePolicy::Continue },
            suspended,
            parallelism,
            store,
            polecats: by_bead(polecats),
            requests: requests.into_iter().enumerate().map(|(n, all)| (id(n), all)).collect(),
            name_taken: BTreeSet::new(),
            counted: Counted { landed, done, closed },
            announced: None,
        }
    }
}

/// Whether a person reopened the bead: the rule written again.
fn is_reopened(s: &Snapshot, bead: &str) -> bool {
    let StoreState::Read(beads) = &s.store else { return false };
    let Some(fact) = beads.get(bead) else { return false };
    let was_closed = s.counted.closed.contains(bead) || !fact.closed_for.is_empty();
    let newer = s.requests.get(bead).into_iter().flatten().any(|request| {
        request.phase == MergePhase::Landed && !fact.closed_for.contains(&request.uid)
    });
    fact.status != "closed" && was_closed && !newer
}

/// The rule written again, independently of the code under test.
fn is_done(s: &Snapshot, bead: &str) -> bool {
    let closed = matches!(&s.store, StoreState::Read(beads) if beads.get(bead).is_some_and(|bead| bead.status == "closed"));
    let reopened = is_reopened(s, bead);
    let landed = s
        .requests
        .get(bead)
        .is_some_and(|all| all.iter().any(|request| request.phase == MergePhase::Landed));
    let done = s.polecats.get(bead).is_some_and(|all| {
        all.iter()
            .any(|polecat| polecat.state == PolecatState::Done && !(reopened && polecat.merged))
    });
    let before = s.counted.landed.contains(bead) || (!s.dispatch && s.counted.done.contains(bead));
    closed || (!reopened && (landed || before)) || (!s.dispatch && done)
}

fn works(s: &Snapshot, bead: &str) -> bool {
    let all = s.polecats.get(bead).map_or(&[][..], Vec::as_slice);
    all.iter().any(|polecat| matches!(polecat.state, PolecatState::Active | PolecatState::Paused))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn complete_means_that_all_work_is_done(s in snapshot()) {
        let all = s.tracked.iter().all(|bead| is_done(&s, bead));
        let plan = decide(&s);
        prop_assert_eq!(plan.assessment.phase == ConvoyPhase::Complete, all);
        prop_assert_eq!(matches!(plan.announcement, Some(Announcement::Publish { end: End::Complete, .. })), all);
    }

    #[test]
    fn no_limit_is_exceeded_and_no_bead_gets_a_second_polecat(s in snapshot()) {
        let plan = decide(&s);
        let tracked: BTreeSet<&String> = s.tracked.iter().collect();
        let busy = tracked.iter().filter(|bead| !is_done(&s, bead) && works(&s, bead)).count();
        let RigState::Present(rig) = &s.rig else { unreachable!() };
        prop_assert!(plan.polecats.is_empty() || s.parallelism.is_none_or(|limit| busy + plan.polecats.len() <= limit));
        prop_assert!(plan.polecats.is_empty() || rig.active + plan.polecats.len() <= rig.max_polecats);
        prop_assert!(plan.polecats.is_empty() || (s.dispatch && !s.suspended && matches!(s.store, StoreState::Read(_))));
        let names: BTreeSet<&String> = plan.polecats.iter().map(|polecat| &polecat.name).collect();
        prop_assert_eq!(names.len(), plan.polecats.len());
        for new in &plan.polecats {
            prop_assert!(tracked.contains(&new.bead) && !is_done(&s, &new.bead), "{:?}", new);
            let spent = |polecat: &PolecatFact| polecat.state == PolecatState::Done && polecat.merged;
            let all_spent = is_reopened(&s, &new.bead) && s.polecats[&new.bead].iter().all(spent);
            prop_assert!(s.polecats[&new.bead].is_empty() || all_spent, "{:?}", new);
            let StoreState::Read(beads) = &s.store else { unreachable!() };
            for dependency in beads[&new.bead].dependencies.iter().filter(|dependency| dependency.kind == "blocks") {
                let over = beads.get(&dependency.on).is_none_or(|on| ["closed", "pinned"].contains(&on.status.as_str()));
                prop_assert!(over || is_done(&s, &dependency.on), "{:?} waits for {:?}", new, dependency);
            }
        }
    }

    #[test]
    fn failed_means_that_no_work_is_under_way(s in snapshot()) {
        let plan = decide(&s);
        if plan.assessment.phase == ConvoyPhase::Failed {
            prop_assert!(plan.polecats.is_empty() && !plan.assessment.failed.is_empty());
            prop_assert!(s.tracked.iter().all(|bead| is_done(&s, bead) || !works(&s, bead)));
        }
    }

    #[test]
    fn a_bead_that_was_done_once_stays_done_unless_it_is_reopened(before in snapshot(), after in snapshot()) {
        let plan = decide(&before);
        let counted = plan.counted.unwrap_or_else(|| before.counted.clone());
        let later = Snapshot { tracked: before.tracked.clone(), dispatch: before.dispatch, counted, ..after };
        let completed: BTreeSet<String> = decide(&later).assessment.completed.into_iter().collect();
        let is_kept = |bead: &String| completed.contains(bead) || is_reopened(&later, bead);
        prop_assert!(plan.assessment.completed.iter().all(is_kept));
    }

    #[test]
    fn deciding_again_after_the_annotation_is_written_changes_nothing(s in snapshot()) {
        let plan = decide(&s);
        if let Some(counted) = plan.counted {
            let again = decide(&Snapshot { counted: Counted::read(Some(&counted.write())), ..s });
            prop_assert_eq!(again.counted, None);
            prop_assert_eq!((again.polecats, again.assessment, again.announcement), (plan.polecats, plan.assessment, plan.announcement));
        }
    }

    #[test]
    fn starting_to_the_end_lands_everything_that_can_land(s in snapshot()) {
        // Whatever is started lands at once: the convoy ends, and starts no bead twice on the way.
        let mut s = s;
        let mut seen = BTreeSet::new();
        for _ in 0..=BEADS {
            let polecats = decide(&s).polecats;
            if polecats.is_empty() { return Ok(()); }
            for NewPolecat { name, bead, .. } in polecats {
                prop_assert!(seen.insert(bead.clone()), "{} is started twice", bead);
                let done = PolecatFact { name, state: PolecatState::Done, reason: String::new(), merged: true };
                s.polecats.entry(bead.clone()).or_default().push(done);
                let landed = RequestFact { name: "m".into(), uid: "new".into(), phase: MergePhase::Landed, reason: String::new() };
                s.requests.entry(bead).or_default().push(landed);
            }
        }
        prop_assert!(decide(&s).polecats.is_empty());
    }
}
