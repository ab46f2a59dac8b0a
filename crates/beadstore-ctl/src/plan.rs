//! What is to be written into a store, and what stands against it. Pure: the claims and landings of
//! the town, the beads as both branches say them, and what we wrote before, in; deeds out.
//!
//! Each deed is for one claim or one request and is done once. What a person says after it wins, so
//! a claim that was written and is not in the store any more is not written again, and neither is
//! the close of a bead that was reopened.

use std::collections::BTreeSet;

use gastown_beads::{IssueSet, Status, prefix_of};

use crate::ledger::{Ledger, Record};

/// A Polecat has this bead: a Lease says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The bead.
    pub bead: String,
    /// The Polecat's uid.
    pub holder: String,
    /// Who it is in the store: `<rig>/polecats/<name>`.
    pub assignee: String,
}

/// A request that landed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Landed {
    /// The bead.
    pub bead: String,
    /// The request's uid.
    pub request: String,
    /// The commit that it became on its target.
    pub commit: String,
}

/// What the town wants of a rig's store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Claims, one a bead.
    pub claims: Vec<Claim>,
    /// Landed requests that name a bead.
    pub landed: Vec<Landed>,
    /// Beads of requests that are still to land: nobody else may begin them.
    pub to_land: BTreeSet<String>,
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Make it `in_progress` with this assignee.
    Claim {
        /// The bead.
        bead: String,
        /// Whose claim it is; absent when a caller asked for it.
        holder: Option<String>,
        /// Who it is in the store.
        assignee: String,
    },
    /// Make it `open` again where the assignee is still this one.
    Release {
        /// The bead.
        bead: String,
        /// Whose claim it was; absent when a caller asked for it.
        holder: Option<String>,
        /// Who it was in the store.
        assignee: String,
    },
    /// Close it.
    Close {
        /// The bead.
        bead: String,
        /// The request that landed, by uid; absent when a caller knows of none.
        request: Option<String>,
        /// Why, for people.
        reason: String,
    },
    /// Say something.
    Comment {
        /// The bead.
        bead: String,
        /// Who.
        author: String,
        /// What.
        text: String,
    },
}

impl Deed {
    /// The bead that it is about.
    pub fn bead(&self) -> &str {
        match self {
            Self::Claim { bead, .. }
            | Self::Release { bead, .. }
            | Self::Close { bead, .. }
            | Self::Comment { bead, .. } => bead,
        }
    }

    /// For the commit's message and for events.
    pub fn words(&self) -> String {
        match self {
            Self::Claim { bead, assignee, .. } => format!("Claim {bead} for {assignee}"),
            Self::Release { bead, assignee, .. } => format!("Release {bead} of {assignee}"),
            Self::Close { bead, reason, .. } => format!("Close {bead}: {reason}"),
            Self::Comment { bead, author, .. } => format!("Comment on {bead} by {author}"),
        }
    }

    /// What the history is to remember of it.
    pub fn record(&self) -> Option<Record> {
        let bead = self.bead().to_owned();
        match self {
            Self::Claim { holder: Some(holder), assignee, .. } => {
                Some(Record::Claimed { bead, holder: holder.clone(), assignee: assignee.clone() })
            }
            Self::Release { holder: Some(holder), .. } => {
                Some(Record::Released { bead, holder: holder.clone() })
            }
            Self::Close { request: Some(request), .. } => {
                Some(Record::Closed { bead, request: request.clone() })
            }
            Self::Claim { .. }
            | Self::Release { .. }
            | Self::Close { .. }
            | Self::Comment { .. } => None,
        }
    }
}

/// What is to be done, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order: closes, releases, claims.
    pub deeds: Vec<Deed>,
    /// A bead each, and why the store cannot be made to say what the town says.
    pub against: Vec<(String, String)>,
}

/// The prefixes whose beads a store may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes(Vec<String>);

impl Prefixes {
    /// Of a spec, with or without their last hyphens.
    pub fn new<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> Self {
        Self(prefixes.into_iter().map(|prefix| prefix.trim_end_matches('-').to_owned()).collect())
    }

    /// Whether a bead has one of them.
    pub fn allow(&self, bead: &str) -> bool {
        self.0.iter().any(|prefix| {
            prefix_of(bead) == prefix
                || bead.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-'))
        })
    }
}

/// Who a rig's polecat is in the store.
pub fn assignee(rig: &str, polecat: &str) -> String {
    format!("{rig}/polecats/{polecat}")
}

/// What is to be written into the store of `rig`.
pub fn plan(
    rig: &str,
    wanted: &Wanted,
    issues: &IssueSet,
    ledger: &Ledger,
    prefixes: &Prefixes,
) -> Plan {
    let mut plan = Plan::default();
    let mut closing = BTreeSet::new();
    for landed in &wanted.landed {
        let Landed { bead, request, commit } = landed;
        if ledger.closed(bead, request) {
            continue;
        }
        if let Some(why) = not_ours(bead, issues, prefixes) {
            plan.against.push((bead.clone(), why));
            continue;
        }
        let (request, reason) = (Some(request.clone()), format!("merged {commit}"));
        plan.deeds.push(Deed::Close { bead: bead.clone(), request, reason });
        closing.insert(bead.as_str());
    }
    for (bead, standing) in ledger.claims() {
        let held = |claim: &&Claim| {
            claim.bead == bead
                && (claim.holder == standing.holder || claim.assignee == standing.assignee)
        };
        let ours = standing.assignee.starts_with(&assignee(rig, ""));
        if !ours
            || wanted.claims.iter().any(|claim| held(&claim))
            || wanted.to_land.contains(bead)
            || closing.contains(bead)
        {
            continue;
        }
        let Some(issue) = issues.get(bead).filter(|_| prefixes.allow(bead)) else { continue };
        let stands = matches!(issue.status, Status::InProgress | Status::Hooked)
            && issue.assignee.as_deref() == Some(&standing.assignee);
        if stands {
            let (holder, assignee) = (Some(standing.holder.clone()), standing.assignee.clone());
            plan.deeds.push(Deed::Release { bead: bead.to_owned(), holder, assignee });
        }
    }
    for Claim { bead, holder, assignee } in &wanted.claims {
        if ledger.claim(bead).is_some_and(|standing| standing.sure && standing.holder == *holder)
            || closing.contains(bead.as_str())
        {
            continue;
        }
        let why = not_ours(bead, issues, prefixes).or_else(|| {
            let issue = issues.get(bead)?;
            let mine = issue.assignee.as_deref().is_none_or(|by| by.is_empty() || by == assignee);
            let released = plan
                .deeds
                .iter()
                .any(|deed| matches!(deed, Deed::Release { bead: b, .. } if b == bead));
            match issue.status {
                // Done: there is nothing to tell it.
                Status::Closed => Some(String::new()),
                _ if released => None,
                _ if !mine => Some(format!(
                    "{bead} is assigned to {} in the store",
                    issue.assignee.as_deref().unwrap_or_default()
                )),
                Status::Open => None,
                Status::InProgress if issue.assignee.is_some() => None,
                ref status => Some(format!("{bead} is {status} in the store, not open")),
            }
        });
        match why {
            None => plan.deeds.push(Deed::Claim {
                bead: bead.clone(),
                holder: Some(holder.clone()),
                assignee: assignee.clone(),
            }),
            Some(why) if why.is_empty() => {}
            Some(why) => plan.against.push((bead.clone(), why)),
        }
    }
    plan
}

fn not_ours(bead: &str, issues: &IssueSet, prefixes: &Prefixes) -> Option<String> {
    if !prefixes.allow(bead) {
        return Some(format!(
            "{bead} has none of the store's prefixes (spec.prefix, spec.allowedPrefixes)"
        ));
    }
    issues.get(bead).is_none().then(|| format!("there is no bead {bead} in the store"))
}

#[cfg(test)]
mod tests {
    use gastown_beads::{Options, Store};

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

    fn ledger(records: &[Record]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.extend(records.iter().cloned());
        ledger
    }

    fn recorded(claim: &Claim) -> Record {
        Record::Claimed {
            bead: claim.bead.clone(),
            holder: claim.holder.clone(),
            assignee: claim.assignee.clone(),
        }
    }

    fn words(wanted: &Wanted, issues: &IssueSet, ledger: &Ledger) -> Vec<String> {
        let plan = plan("web", wanted, issues, ledger, &Prefixes::new(["gt-"]));
        plan.deeds
            .iter()
            .map(Deed::words)
            .chain(plan.against.into_iter().map(|(_, why)| format!("! {why}")))
            .collect()
    }

    #[test]
    fn a_claim_is_written_once_and_a_person_who_takes_it_back_is_heeded() {
        let wanted = Wanted { claims: vec![claim("gt-1", "u1", "nux")], ..Wanted::default() };
        let open = issues(&[("gt-1", "open", "")]);
        assert_eq!(words(&wanted, &open, &Ledger::default()), ["Claim gt-1 for web/polecats/nux"]);
        assert_eq!(
            words(&wanted, &open, &ledger(&[recorded(&wanted.claims[0])])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_claim_whose_writing_is_not_known_is_written_again_or_given_back() {
        let wanted = Wanted { claims: vec![claim("gt-1", "u1", "nux")], ..Wanted::default() };
        let Claim { bead, holder, assignee } = wanted.claims[0].clone();
        let asked = ledger(&[Record::Asked { bead, holder, assignee }]);
        for lines in [[("gt-1", "open", "")], [("gt-1", "in_progress", "web/polecats/nux")]] {
            assert_eq!(
                words(&wanted, &issues(&lines), &asked),
                ["Claim gt-1 for web/polecats/nux"]
            );
        }
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        assert_eq!(words(&Wanted::default(), &taken, &asked), ["Release gt-1 of web/polecats/nux"]);
    }

    #[test]
    fn a_claim_that_ended_is_released_where_it_still_stands_and_nobody_s_else() {
        let record = recorded(&claim("gt-1", "u1", "nux"));
        let gone = Wanted::default();
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        assert_eq!(
            words(&gone, &taken, &ledger(std::slice::from_ref(&record))),
            ["Release gt-1 of web/polecats/nux"]
        );
        // Never claimed by us, though the name is one of ours: a person's tools use the same names.
        assert_eq!(words(&gone, &taken, &Ledger::default()), Vec::<String>::new());
        for other in [
            issues(&[("gt-1", "in_progress", "maya")]),
            issues(&[("gt-1", "closed", "web/polecats/nux")]),
            issues(&[]),
        ] {
            assert_eq!(
                words(&gone, &other, &ledger(std::slice::from_ref(&record))),
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
        assert_eq!(words(&Wanted::default(), &taken, &ledger(&[other])), Vec::<String>::new());
    }

    #[test]
    fn a_bead_whose_work_is_still_to_land_is_not_given_back() {
        let wanted = Wanted { to_land: BTreeSet::from(["gt-1".to_owned()]), ..Wanted::default() };
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        assert_eq!(
            words(&wanted, &taken, &ledger(&[recorded(&claim("gt-1", "u1", "nux"))])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_claim_that_changes_hands_is_released_and_claimed_anew() {
        let wanted = Wanted { claims: vec![claim("gt-1", "u2", "slit")], ..Wanted::default() };
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        let before = ledger(&[recorded(&claim("gt-1", "u1", "nux"))]);
        assert_eq!(
            words(&wanted, &taken, &before),
            ["Release gt-1 of web/polecats/nux", "Claim gt-1 for web/polecats/slit"]
        );
        // A new Polecat of the old name: only the record changes.
        let wanted = Wanted { claims: vec![claim("gt-1", "u2", "nux")], ..Wanted::default() };
        assert_eq!(words(&wanted, &taken, &before), ["Claim gt-1 for web/polecats/nux"]);
    }

    #[test]
    fn what_landed_is_closed_once_and_a_reopening_stays() {
        let wanted = Wanted {
            landed: vec![landed("gt-1", "mr1")],
            claims: vec![claim("gt-1", "u1", "nux")],
            ..Wanted::default()
        };
        let taken = issues(&[("gt-1", "in_progress", "web/polecats/nux")]);
        let claimed = recorded(&wanted.claims[0]);
        assert_eq!(
            words(&wanted, &taken, &ledger(std::slice::from_ref(&claimed))),
            ["Close gt-1: merged abc"]
        );
        let closed = Record::Closed { bead: "gt-1".into(), request: "mr1".into() };
        let reopened = issues(&[("gt-1", "open", "")]);
        assert_eq!(words(&wanted, &reopened, &ledger(&[claimed, closed])), Vec::<String>::new());
    }

    #[test]
    fn a_close_is_recorded_even_where_somebody_closed_first() {
        let wanted = Wanted { landed: vec![landed("gt-1", "mr1")], ..Wanted::default() };
        assert_eq!(
            words(&wanted, &issues(&[("gt-1", "closed", "")]), &Ledger::default()),
            ["Close gt-1: merged abc"]
        );
    }

    #[test]
    fn what_stands_against_a_write_is_named() {
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
            words(&wanted, &store, &Ledger::default()),
            [
                "! gt-1 is assigned to maya in the store",
                "! gt-2 is blocked in the store, not open",
                "! there is no bead gt-3 in the store",
                "! hq-1 has none of the store's prefixes (spec.prefix, spec.allowedPrefixes)",
            ]
        );
    }

    #[test]
    fn prefixes_match_with_and_without_their_hyphen() {
        let prefixes = Prefixes::new(["gt-", "bd-main"]);
        for (bead, allowed) in [
            ("gt-1", true),
            ("gt-a1b2.3", true),
            ("bd-main-idj", true),
            ("gtx-1", false),
            ("bd-1", false),
            ("hq-1", false),
        ] {
            assert_eq!(prefixes.allow(bead), allowed, "{bead}");
        }
    }
}
