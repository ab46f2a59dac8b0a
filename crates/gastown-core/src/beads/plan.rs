//! Which edits a store needs, and what prevents the others.

use std::collections::BTreeSet;

use gastown_beads::{IssueSet, Status};

use super::edit::{Edit, Prefixes};
use super::history::History;

/// A Polecat holds this bead, by a Lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The bead.
    pub bead: String,
    /// The Polecat's uid.
    pub holder: String,
    /// The Polecat's name in the store: `<rig>/polecats/<name>`.
    pub assignee: String,
}

/// A MergeRequest that landed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Landed {
    /// The bead.
    pub bead: String,
    /// The MergeRequest's uid.
    pub request: String,
    /// The commit on the target branch.
    pub commit: String,
}

/// What the cluster wants of a rig's store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Claims, at most one for each bead.
    pub claims: Vec<Claim>,
    /// Landed MergeRequests that name a bead.
    pub landed: Vec<Landed>,
    /// Beads of MergeRequests that may still land: nobody else may begin them.
    pub to_land: BTreeSet<String>,
}

/// The edits to make, and the conflicts that prevent others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The edits, in this order: closes, releases, claims.
    pub edits: Vec<Edit>,
    /// The beads about which the store and the cluster disagree.
    pub conflicts: Vec<Conflict>,
}

/// A bead about which the store and the cluster disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The bead.
    pub bead: String,
    /// Why the edit cannot be made, as a sentence that names the bead.
    pub why: String,
}

/// The name of a rig's polecat in the store.
pub fn assignee(rig: &str, polecat: &str) -> String {
    format!("{rig}/polecats/{polecat}")
}

/// The edits that the store of `rig` needs.
pub fn plan(
    rig: &str,
    wanted: &Wanted,
    issues: &IssueSet,
    history: &History,
    prefixes: &Prefixes,
) -> Plan {
    let planner = Planner { rig, wanted, issues, history, prefixes };
    let mut plan = Plan::default();
    planner.closes(&mut plan);
    planner.releases(&mut plan);
    planner.claims(&mut plan);
    plan
}

struct Planner<'a> {
    rig: &'a str,
    wanted: &'a Wanted,
    issues: &'a IssueSet,
    history: &'a History,
    prefixes: &'a Prefixes,
}

/// What becomes of a claim that is not copied yet.
enum Copy {
    Make,
    /// The bead is closed already.
    Skip,
    Conflict(String),
}

impl Planner<'_> {
    /// A landing closes its bead once; a person's reopening stays.
    fn closes(&self, plan: &mut Plan) {
        for Landed { bead, request, commit } in &self.wanted.landed {
            if self.history.was_closed(bead, request) {
                continue;
            }
            match self.not_writable(bead) {
                Some(why) => plan.conflicts.push(Conflict { bead: bead.clone(), why }),
                None => plan.edits.push(Edit::Close {
                    bead: bead.clone(),
                    request: request.clone(),
                    reason: format!("merged {commit}"),
                }),
            }
        }
    }

    /// A copied claim is released when its Lease is gone, where the bead still shows it and no work
    /// on it may still land.
    fn releases(&self, plan: &mut Plan) {
        for (bead, copied) in self.history.claims() {
            let is_held = |claim: &Claim| {
                claim.bead == bead
                    && (claim.holder == copied.holder || claim.assignee == copied.assignee)
            };
            // Another rig's store may share the repository and its history.
            let is_of_this_rig = copied.assignee.starts_with(&assignee(self.rig, ""));
            if !is_of_this_rig
                || self.wanted.claims.iter().any(is_held)
                || self.wanted.to_land.contains(bead)
                || closes(plan, bead)
            {
                continue;
            }
            let Some(issue) = self.issues.get(bead).filter(|_| self.prefixes.allow(bead)) else {
                continue;
            };
            let shows_the_claim = matches!(issue.status, Status::InProgress | Status::Hooked)
                && issue.assignee.as_deref() == Some(&copied.assignee);
            if shows_the_claim {
                plan.edits.push(Edit::Release {
                    bead: bead.to_owned(),
                    holder: copied.holder.clone(),
                    assignee: copied.assignee.clone(),
                });
            }
        }
    }

    /// A claim is copied once; a person who takes it back in the store wins.
    fn claims(&self, plan: &mut Plan) {
        for claim in &self.wanted.claims {
            let Claim { bead, holder, assignee } = claim;
            let is_copied = self
                .history
                .claim(bead)
                .is_some_and(|copied| copied.is_confirmed && copied.holder == *holder);
            if is_copied || closes(plan, bead) {
                continue;
            }
            match self.copy(claim, releases(plan, bead)) {
                Copy::Make => plan.edits.push(Edit::Claim {
                    bead: bead.clone(),
                    holder: holder.clone(),
                    assignee: assignee.clone(),
                }),
                Copy::Skip => {}
                Copy::Conflict(why) => plan.conflicts.push(Conflict { bead: bead.clone(), why }),
            }
        }
    }

    /// Whether a claim can be copied; `is_released` where the plan releases the bead first.
    fn copy(&self, Claim { bead, assignee, .. }: &Claim, is_released: bool) -> Copy {
        if let Some(why) = self.not_writable(bead) {
            return Copy::Conflict(why);
        }
        let Some(issue) = self.issues.get(bead) else { return Copy::Make };
        let other = issue.assignee.as_deref().filter(|by| !by.is_empty() && *by != assignee);
        match (&issue.status, other) {
            (Status::Closed, _) => Copy::Skip,
            _ if is_released => Copy::Make,
            (_, Some(other)) => {
                Copy::Conflict(format!("{bead} is assigned to {other} in the store"))
            }
            (Status::Open, None) => Copy::Make,
            (Status::InProgress, None) if issue.assignee.is_some() => Copy::Make,
            (status, None) => Copy::Conflict(format!("{bead} is {status} in the store, not open")),
        }
    }

    /// Why a bead may not be written at all.
    fn not_writable(&self, bead: &str) -> Option<String> {
        if !self.prefixes.allow(bead) {
            return Some(format!(
                "{bead} has none of the store's prefixes (spec.prefix, spec.allowedPrefixes)"
            ));
        }
        self.issues.get(bead).is_none().then(|| format!("there is no bead {bead} in the store"))
    }
}

fn closes(plan: &Plan, bead: &str) -> bool {
    plan.edits.iter().any(|edit| matches!(edit, Edit::Close { bead: b, .. } if b == bead))
}

fn releases(plan: &Plan, bead: &str) -> bool {
    plan.edits.iter().any(|edit| matches!(edit, Edit::Release { bead: b, .. } if b == bead))
}

#[cfg(test)]
mod tests {
    use gastown_beads::{Options, Store};

    use super::super::history::Record;
    use super::*;

    fn issues(lines: &[(&str, &str, &str)]) -> IssueSet {
        let text: Vec<String> = lines
            .iter()
            .map(|(id, status, assignee)| {
                let time = "2026-01-02T03:04:05Z";
                format!(r#"{{"id":"{id}","title":"t","status":"{status}","priority":2,"assignee":"{assignee}","created_at":"{time}","updated_at":"{time}"}}"#)
            })
            .collect();
        Store::parse(text.join("\n"), &Options::default()).issues().clone()
    }

    fn claim(bead: &str, holder: &str, name: &str) -> Claim {
        Claim { bead: bead.into(), holder: holder.into(), assignee: assignee("web", name) }
    }

    fn landed(bead: &str, request: &str) -> Landed {
        Landed { bead: bead.into(), request: request.into(), commit: "abc".into() }
    }

    fn history(records: &[Record]) -> History {
        let mut history = History::default();
        history.extend(records.iter().cloned());
        history
    }

    fn recorded(claim: &Claim) -> Record {
        Record::Claimed {
            bead: claim.bead.clone(),
            holder: claim.holder.clone(),
            assignee: claim.assignee.clone(),
        }
    }

    fn summaries(wanted: &Wanted, issues: &IssueSet, history: &History) -> Vec<String> {
        let plan = plan("web", wanted, issues, history, &Prefixes::new(["gt-"]));
        plan.edits
            .iter()
            .map(Edit::summary)
            .chain(plan.conflicts.into_iter().map(|conflict| format!("! {}", conflict.why)))
            .collect()
    }

    #[test]
    fn a_claim_is_copied_once_and_a_person_who_takes_it_back_wins() {
        let wanted = Wanted { claims: vec![claim("gt-1", "u1", "nux")], ..Wanted::default() };
        let open = issues(&[("gt-1", "open", "")]);
        assert_eq!(
            summaries(&wanted, &open, &History::default()),
            ["Claim gt-1 for web/polecats/nux"]
        );
        assert_eq!(
            summaries(&wanted, &open, &history(&[recorded(&wanted.claims[0])])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_claim_whose_copy_is_uncertain_is_copied_again_or_released() {
        let wanted = Wanted { claims: vec![claim("gt-1", "u1", "nux")], ..Wanted::default() };
        let Claim { bead, holder, assignee } = wanted.claims[0].clone();
        let intended = history(&[Record::Intended { bead, holder, assignee }]);
        for lines in [[("gt-1", "open", "")], [("gt-1", "in_progress", "web/polecats/nux")]] {
            assert_eq!(
                summaries(&wanted, &issues(&lines), &intended),
                ["Claim gt-1 for web/polecats/nux"]
            );
        }
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        assert_eq!(
            summaries(&Wanted::default(), &taken, &intended),
            ["Release gt-1 of web/polecats/nux"]
        );
    }

    #[test]
    fn a_claim_that_ended_is_released_where_the_bead_still_shows_it_and_no_other_is() {
        let record = recorded(&claim("gt-1", "u1", "nux"));
        let gone = Wanted::default();
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        assert_eq!(
            summaries(&gone, &taken, &history(std::slice::from_ref(&record))),
            ["Release gt-1 of web/polecats/nux"]
        );
        // Never copied by us, although the name is one of ours: a person's tools use the same names.
        assert_eq!(summaries(&gone, &taken, &History::default()), Vec::<String>::new());
        for other in [
            issues(&[("gt-1", "in_progress", "maya")]),
            issues(&[("gt-1", "closed", "web/polecats/nux")]),
            issues(&[]),
        ] {
            assert_eq!(
                summaries(&gone, &other, &history(std::slice::from_ref(&record))),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn another_rig_s_claims_in_the_same_repository_are_left_alone() {
        let other = Record::Claimed {
            bead: "gt-1".into(),
            holder: "u".into(),
            assignee: "api/polecats/nux".into(),
        };
        let taken = issues(&[("gt-1", "in_progress", "api/polecats/nux")]);
        assert_eq!(summaries(&Wanted::default(), &taken, &history(&[other])), Vec::<String>::new());
    }

    #[test]
    fn a_bead_whose_work_may_still_land_is_not_released() {
        let wanted = Wanted { to_land: BTreeSet::from(["gt-1".to_owned()]), ..Wanted::default() };
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        assert_eq!(
            summaries(&wanted, &taken, &history(&[recorded(&claim("gt-1", "u1", "nux"))])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_claim_with_a_new_holder_is_released_and_claimed_again() {
        let wanted = Wanted { claims: vec![claim("gt-1", "u2", "slit")], ..Wanted::default() };
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        let before = history(&[recorded(&claim("gt-1", "u1", "nux"))]);
        assert_eq!(
            summaries(&wanted, &taken, &before),
            ["Release gt-1 of web/polecats/nux", "Claim gt-1 for web/polecats/slit"]
        );
        // A new Polecat of the old name: only the record changes.
        let wanted = Wanted { claims: vec![claim("gt-1", "u2", "nux")], ..Wanted::default() };
        assert_eq!(summaries(&wanted, &taken, &before), ["Claim gt-1 for web/polecats/nux"]);
    }

    #[test]
    fn a_landing_closes_its_bead_once_and_a_reopening_stays() {
        let wanted = Wanted {
            landed: vec![landed("gt-1", "mr1")],
            claims: vec![claim("gt-1", "u1", "nux")],
            ..Wanted::default()
        };
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        let claimed = recorded(&wanted.claims[0]);
        assert_eq!(
            summaries(&wanted, &taken, &history(std::slice::from_ref(&claimed))),
            ["Close gt-1: merged abc"]
        );
        let closed = Record::Closed { bead: "gt-1".into(), request: "mr1".into() };
        let reopened = issues(&[("gt-1", "open", "")]);
        assert_eq!(
            summaries(&wanted, &reopened, &history(&[claimed, closed])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_close_is_recorded_even_where_somebody_closed_first() {
        let wanted = Wanted { landed: vec![landed("gt-1", "mr1")], ..Wanted::default() };
        assert_eq!(
            summaries(&wanted, &issues(&[("gt-1", "closed", "")]), &History::default()),
            ["Close gt-1: merged abc"]
        );
    }

    #[test]
    fn a_conflict_names_its_bead_and_the_reason() {
        let wanted = Wanted {
            claims: vec![
                claim("gt-1", "u1", "nux"),
                claim("gt-2", "u2", "nux"),
                claim("gt-3", "u3", "nux"),
                claim("hq-1", "u4", "nux"),
            ],
            ..Wanted::default()
        };
        let store = issues(&[
            ("gt-1", "in_progress", "maya"),
            ("gt-2", "blocked", ""),
            ("gt-4", "open", ""),
            ("hq-1", "open", ""),
        ]);
        assert_eq!(
            summaries(&wanted, &store, &History::default()),
            [
                "! gt-1 is assigned to maya in the store",
                "! gt-2 is blocked in the store, not open",
                "! there is no bead gt-3 in the store",
                "! hq-1 has none of the store's prefixes (spec.prefix, spec.allowedPrefixes)",
            ]
        );
    }
}
