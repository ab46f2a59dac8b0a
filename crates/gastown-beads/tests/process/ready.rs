//! Ready work and the graph against definitions written out without any index or order of
//! evaluation.

use std::sync::Arc;

use gastown_beads::{
    Dependency, DependencyKind, Dialect, Issue, IssueSet, Readiness, Standing, Status, ready,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::common::{at, graph, ids};

const NOW: &str = "2026-06-01T12:00:00Z";

fn edge(from: &str, to: &str, kind: &str, metadata: Option<&str>) -> Dependency {
    Dependency {
        issue_id: from.into(),
        depends_on_id: to.into(),
        kind: kind.to_owned().into(),
        metadata: metadata.map(Into::into),
    }
}

fn issue(id: &str, status: &str, edges: &[(&str, &str)]) -> Issue {
    let dependencies = edges.iter().map(|(to, kind)| edge(id, to, kind, None)).collect();
    Issue {
        id: id.into(),
        status: status.to_owned().into(),
        issue_type: "task".into(),
        dependencies,
        ..Issue::default()
    }
}

fn set(dialect: Dialect, issues: Vec<Issue>) -> IssueSet {
    IssueSet::new(dialect, issues.into_iter().map(Arc::new))
}

fn ready_ids(issues: &IssueSet) -> Vec<&str> {
    ready(issues, at(NOW)).into_iter().map(|issue| issue.id.as_str()).collect()
}

/// The definition of `is_blocked`, applied to all issues until nothing changes any more.
fn blocked_by_definition(issues: &[Issue]) -> Vec<bool> {
    let live: Vec<&Issue> =
        issues.iter().filter(|issue| issue.status != Status::Tombstone).collect();
    let find = |id: &str| live.iter().find(|issue| issue.id == id);
    let done = |issue: &Issue| matches!(issue.status, Status::Closed | Status::Pinned);
    let children = |id: &str| {
        let is_child = |issue: &&&Issue| {
            issue
                .dependencies
                .iter()
                .any(|edge| edge.kind == DependencyKind::ParentChild && edge.depends_on_id == id)
        };
        live.iter().filter(is_child).copied().collect::<Vec<&Issue>>()
    };
    let holds = |edge: &Dependency| match &edge.kind {
        DependencyKind::Blocks | DependencyKind::ConditionalBlocks => {
            find(&edge.depends_on_id).is_some_and(|target| !done(target))
        }
        DependencyKind::WaitsFor if find(&edge.depends_on_id).is_some() => {
            let children = children(&edge.depends_on_id);
            let any = edge.metadata.as_deref().is_some_and(|text| text.contains("any-children"));
            if any {
                !children.is_empty() && children.iter().all(|child| !done(child))
            } else {
                children.iter().any(|child| !done(child))
            }
        }
        _ => false,
    };
    let mut blocked = vec![false; issues.len()];
    loop {
        let before = blocked.clone();
        for (place, issue) in issues.iter().enumerate() {
            let inherits = |edge: &Dependency| {
                edge.kind == DependencyKind::ParentChild
                    && issues
                        .iter()
                        .position(|parent| parent.id == edge.depends_on_id)
                        .is_some_and(|parent| before[parent])
            };
            let live = issue.status != Status::Tombstone && !done(issue);
            blocked[place] =
                live && issue.dependencies.iter().any(|edge| holds(edge) || inherits(edge));
        }
        if blocked == before {
            return blocked;
        }
    }
}

fn ready_by_definition(issues: &[Issue], now: Timestamp) -> Vec<String> {
    let blocked = blocked_by_definition(issues);
    let deferred = |issue: &Issue| issue.defer_until.is_some_and(|until| until > now);
    let parent_deferred = |issue: &Issue| {
        let parents =
            issue.dependencies.iter().filter(|edge| edge.kind == DependencyKind::ParentChild);
        parents.into_iter().any(|edge| {
            issues.iter().any(|parent| {
                parent.id == edge.depends_on_id
                    && parent.status != Status::Tombstone
                    && deferred(parent)
            })
        })
    };
    let mut ready: Vec<&Issue> = Vec::new();
    for (place, issue) in issues.iter().enumerate() {
        let work = !issue.pinned
            && !issue.ephemeral
            && !issue.is_template
            && !["gate", "message", "rig"].contains(&issue.issue_type.as_str());
        if issue.status == Status::Open
            && work
            && !blocked[place]
            && !deferred(issue)
            && !parent_deferred(issue)
        {
            ready.push(issue);
        }
    }
    ready.sort_by(|one, other| {
        one.priority
            .cmp(&other.priority)
            .then(other.created_at.cmp(&one.created_at))
            .then(one.id.cmp(&other.id))
    });
    ready.into_iter().map(|issue| issue.id.clone()).collect()
}

const STATUSES: &[&str] = &[
    "open",
    "open",
    "open",
    "open",
    "in_progress",
    "blocked",
    "hooked",
    "deferred",
    "pinned",
    "closed",
    "closed",
    "tombstone",
    "in review",
];
const KINDS: &[&str] = &[
    "blocks",
    "blocks",
    "conditional-blocks",
    "parent-child",
    "parent-child",
    "waits-for",
    "waits-for",
    "related",
    "tracks",
];

/// Up to 12 issues with edges between any of them, to unknown ids and to other projects.
fn graphs() -> impl Strategy<Value = Vec<Issue>> {
    let issue = (
        0..STATUSES.len(),
        0..5_u8,
        0..4_i64,
        prop_oneof![8 => Just(""), 1 => Just("gate"), 1 => Just("epic")],
        0..40_u8,
        proptest::option::weighted(0.3, -2..3_i64),
    );
    let edge = (0..12_usize, 0..14_usize, 0..KINDS.len(), any::<bool>());
    (proptest::collection::vec(issue, 0..=12), proptest::collection::vec(edge, 0..40)).prop_map(
        move |(issues, edges)| {
            let mut out: Vec<Issue> = Vec::new();
            for (number, (status, priority, created, issue_type, flags, defer)) in
                issues.into_iter().enumerate()
            {
                let mut made = self::issue(&format!("a-{number}"), STATUSES[status], &[]);
                made.priority = priority;
                made.created_at =
                    (created > 0).then(|| at(NOW) - SignedDuration::from_hours(created * 30));
                made.defer_until = defer.map(|hours| at(NOW) + SignedDuration::from_hours(hours));
                made.issue_type =
                    if issue_type.is_empty() { "task".into() } else { issue_type.into() };
                made.pinned = flags == 0;
                made.ephemeral = flags == 1;
                made.is_template = flags == 2;
                out.push(made);
            }
            for (from, to, kind, any) in edges {
                let target = match to {
                    12 => "gone-1".to_owned(),
                    13 => "external:other:a-1".to_owned(),
                    _ => format!("a-{to}"),
                };
                if let Some(issue) = out.get_mut(from) {
                    let metadata = any.then_some(r#"{"gate":"any-children","spawner_id":"x"}"#);
                    let made = self::edge(&issue.id, &target, KINDS[kind], metadata);
                    issue.dependencies.push(made);
                }
            }
            out
        },
    )
}

/// An issue without the edges whose gates only `bd` evaluates.
fn without_gates(mut issue: Issue) -> Issue {
    issue.dependencies.retain(|edge| edge.kind != DependencyKind::WaitsFor);
    issue
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ready_and_blocked_are_as_defined(issues in graphs()) {
        let set = set(Dialect::Export, issues.clone());
        prop_assert_eq!(ready_ids(&set), ready_by_definition(&issues, at(NOW)));
        let readiness = Readiness::of(&set, at(NOW));
        for (issue, blocked) in issues.iter().zip(blocked_by_definition(&issues)) {
            prop_assert_eq!(readiness.is_blocked(&issue.id), blocked, "{}", &issue.id);
            if let Some(Standing::Blocked { by }) = readiness.standing(&issue.id) {
                prop_assert!(blocked && !by.is_empty());
            }
        }
    }

    #[test]
    fn a_graph_s_blockers_are_those_that_bd_sees(issues in graphs()) {
        let issues: Vec<Issue> = issues.into_iter().map(without_gates).collect();
        let set = set(Dialect::Export, issues.clone());
        let graph = graph(&set);
        for (issue, blocked) in issues.iter().zip(blocked_by_definition(&issues)) {
            // A parent that is done passes no blocks on in `bd`; in a graph it does.
            let blockers = graph.blockers(&issue.id);
            prop_assert!(!blocked || !blockers.is_empty(), "{} is blocked", issue.id);
            prop_assert!(blockers.iter().all(|id| set.get(id).is_some_and(|issue| !issue.is_done())));
        }
    }

    /// Doing all beads without blockers, again and again, ends with all beads done unless there is a
    /// cycle.
    #[test]
    fn a_cycle_is_found_exactly_when_something_can_never_be_done(issues in graphs()) {
        let before = set(Dialect::Export, issues.into_iter().map(without_gates).collect());
        let cycle = graph(&before).cycle(&ids(&before));
        let mut now = before.clone();
        loop {
            let graph = graph(&now);
            let is_free = |issue: &Issue| !issue.is_done() && graph.blockers(&issue.id).is_empty();
            let free: Vec<Issue> = now.iter().filter(|issue| is_free(issue)).map(|issue| Issue::clone(issue)).collect();
            if free.is_empty() {
                break;
            }
            let rest = now.iter().filter(|issue| free.iter().all(|done| done.id != issue.id)).map(|issue| Issue::clone(issue));
            let done = free.iter().map(|issue| Issue { status: Status::Closed, ..issue.clone() });
            now = set(Dialect::Export, rest.chain(done).collect());
        }
        prop_assert_eq!(cycle.is_some(), now.iter().any(|issue| !issue.is_done()));
        let Some(cycle) = cycle else { return Ok(()) };
        prop_assert_eq!(cycle.first(), cycle.last());
        prop_assert_eq!(cycle.first(), cycle.iter().min());
        for pair in cycle.windows(2) {
            prop_assert!(graph(&before).blockers(pair[0]).contains(&pair[1]), "{:?}", pair);
        }
    }
}

#[test]
fn bd_up_to_0_49_lists_what_is_young_by_priority_and_then_the_rest_by_age() {
    let made = |id: &str, priority: u8, hours: i64| Issue {
        priority,
        created_at: Some(at(NOW) - SignedDuration::from_hours(hours)),
        ..issue(id, "open", &[])
    };
    let issues = vec![
        made("old-0", 0, 100),
        made("old-4", 4, 200),
        made("young-3", 3, 48),
        made("young-1", 1, 1),
        made("young-1b", 1, 2),
    ];
    assert_eq!(
        ready_ids(&set(Dialect::Classic, issues.clone())),
        ["young-1b", "young-1", "young-3", "old-4", "old-0"]
    );
    assert_eq!(
        ready_ids(&set(Dialect::Export, issues)),
        ["old-0", "young-1", "young-1b", "young-3", "old-4"]
    );
}

#[test]
fn a_standing_names_the_blockers() {
    let issues = set(
        Dialect::Export,
        vec![
            issue(
                "a-1",
                "open",
                &[
                    ("a-2", "blocks"),
                    ("a-3", "blocks"),
                    ("gone-1", "blocks"),
                    ("external:x:y", "blocks"),
                ],
            ),
            issue("a-1.1", "open", &[("a-1", "parent-child")]),
            issue("a-2", "deferred", &[]),
            issue("a-3", "closed", &[]),
            Issue { assignee: Some("nux".into()), ..issue("a-4", "in_progress", &[]) },
            Issue { defer_until: Some(at("2027-01-01T00:00:00Z")), ..issue("a-5", "open", &[]) },
            issue("a-5.1", "open", &[("a-5", "parent-child")]),
            issue("a-5.1.1", "open", &[("a-5.1", "parent-child")]),
            Issue { issue_type: "gate".into(), ..issue("a-6", "open", &[]) },
        ],
    );
    let readiness = Readiness::of(&issues, at(NOW));
    let deferred = Some(Standing::Deferred { until: at("2027-01-01T00:00:00Z") });
    assert_eq!(readiness.standing("a-1"), Some(Standing::Blocked { by: vec!["a-2"] }));
    assert_eq!(readiness.standing("a-1.1"), Some(Standing::Blocked { by: vec!["a-2"] }));
    assert_eq!(readiness.standing("a-2"), Some(Standing::NotOpen { status: "deferred" }));
    assert_eq!(readiness.standing("a-3"), Some(Standing::Closed));
    assert_eq!(readiness.standing("a-4"), Some(Standing::Claimed { by: Some("nux") }));
    assert_eq!(
        (readiness.standing("a-5"), readiness.standing("a-5.1")),
        (deferred.clone(), deferred)
    );
    assert_eq!(readiness.standing("a-5.1.1"), Some(Standing::Ready), "one generation only");
    assert_eq!(readiness.standing("a-6"), Some(Standing::NotWork { what: "gate" }));
    assert_eq!(readiness.standing("a-7"), None);
}

#[test]
fn a_graph_finds_blockers_and_a_cycle_and_ignores_unknown_beads() {
    let issues = set(
        Dialect::Export,
        vec![
            issue(
                "a-1",
                "open",
                &[("gone-1", "blocks"), ("external:x:y", "blocks"), ("gone-2", "related")],
            ),
            issue("a-2", "open", &[("a-3", "blocks")]),
            issue("a-3", "open", &[("a-4", "conditional-blocks")]),
            issue("a-4", "open", &[("a-3", "blocks"), ("a-1", "blocks")]),
            issue("a-5", "open", &[("a-1", "blocks")]),
        ],
    );
    let found = graph(&issues);
    assert_eq!(found.cycle(&["a-1", "a-5"]), None);
    assert_eq!(found.cycle(&["a-2"]), Some(vec!["a-3", "a-4", "a-3"]));
    assert_eq!((found.blockers("a-4"), found.blockers("gone-1")), (vec!["a-3", "a-1"], vec![]));
    let targets = |id: &str| std::collections::BTreeSet::from([id.to_owned()]);
    assert!(found.waits_for_any("a-2", &targets("a-1")));
    assert!(!found.waits_for_any("a-1", &targets("a-2")));
}

#[test]
fn a_gate_of_any_children_opens_with_the_first_and_one_of_all_with_the_last() {
    let gate = |metadata| Issue {
        dependencies: vec![edge("w-1", "p-1", "waits-for", metadata)],
        ..issue("w-1", "open", &[])
    };
    let parent = issue("p-1", "closed", &[]);
    let child = |id: &str, status: &str| issue(id, status, &[("p-1", "parent-child")]);
    let any = Some(r#"{"gate":"any-children"}"#);
    for (metadata, one, other, waits) in [
        (any, "open", "open", vec!["p-1.1", "p-1.2"]),
        (any, "closed", "open", vec![]),
        (None, "closed", "open", vec!["p-1.2"]),
        (None, "closed", "closed", vec![]),
    ] {
        let issues = set(
            Dialect::Export,
            vec![gate(metadata), parent.clone(), child("p-1.1", one), child("p-1.2", other)],
        );
        let readiness = Readiness::of(&issues, at(NOW));
        let standing = readiness.standing("w-1");
        if waits.is_empty() {
            assert_eq!(standing, Some(Standing::Ready));
        } else {
            assert_eq!(standing, Some(Standing::Blocked { by: waits }));
        }
    }
    let alone = set(Dialect::Export, vec![gate(None), parent.clone()]);
    assert_eq!(ready_ids(&alone), ["w-1"], "a target without children does not block");
}

#[test]
fn a_parent_that_waits_for_its_own_child_is_a_cycle() {
    let issues = set(
        Dialect::Export,
        vec![
            issue("a-1", "open", &[("a-1.1", "blocks")]),
            issue("a-1.1", "open", &[("a-1", "parent-child")]),
        ],
    );
    assert_eq!(graph(&issues).cycle(&["a-1"]), Some(vec!["a-1.1", "a-1.1"]));
    assert!(ready_ids(&issues).is_empty(), "bd would list neither");
}

#[test]
fn an_edge_belongs_to_the_issue_that_it_names() {
    let mut one = issue("a-1", "open", &[]);
    one.dependencies.push(edge("a-2", "a-1", "blocks", None));
    assert_eq!(ready_ids(&set(Dialect::Export, vec![one, issue("a-2", "open", &[])])), ["a-1"]);
}

#[test]
fn many_issues_that_wait_for_the_same_many_cost_their_sum() {
    const MANY: usize = 20_000;
    let mut issues = vec![issue("p-1", "open", &[])];
    issues.extend(
        (0..MANY).map(|number| issue(&format!("c-{number}"), "open", &[("p-1", "parent-child")])),
    );
    issues.extend(
        (0..MANY).map(|number| issue(&format!("w-{number}"), "open", &[("p-1", "waits-for")])),
    );
    let issues = set(Dialect::Export, issues);
    assert_eq!(ready_ids(&issues).len(), MANY + 1);
}

#[test]
fn a_long_chain_does_not_recurse() {
    let mut issues = vec![issue("a-0", "open", &[])];
    for number in 1..20_000 {
        let before = format!("a-{}", number - 1);
        issues.push(issue(
            &format!("a-{number}"),
            "open",
            &[(&before, if number % 2 == 0 { "blocks" } else { "parent-child" })],
        ));
    }
    let issues = set(Dialect::Export, issues);
    assert_eq!((ready_ids(&issues).len(), graph(&issues).cycle(&["a-19999"])), (2, None));
}
