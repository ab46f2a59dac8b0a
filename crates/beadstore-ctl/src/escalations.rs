//! The problems of a store that need a person. Pure.

use gastown_api::{BeadStore, Severity};
use gastown_core::beads::{Edit, Plan};
use gastown_escalations::Problem;
use kube::ResourceExt as _;

use crate::error::StoreError;

/// The store and the cluster disagree about beads, or others always push first.
const CONTENDED: &str = "Contended";
/// Edits are waiting, and the store cannot be written.
const WRITES_REFUSED: &str = "WritesRefused";
/// The store cannot be read until a person does something.
const UNREADABLE: &str = "Unreadable";
/// The most beads or edits that the details of an Escalation list.
const MAX_LISTED: usize = 20;
/// All reasons of this controller.
pub(crate) const REASONS: [&str; 3] = [CONTENDED, WRITES_REFUSED, UNREADABLE];

/// The problems of a store, from the edits that are left to make and the last error.
pub(crate) fn problems(store: &BeadStore, left: &Plan, error: Option<&StoreError>) -> Vec<Problem> {
    let name = store.name_any();
    let mut all = Vec::new();
    let mut add = |reason, severity, summary, details: String| {
        all.push(Problem { reason, severity, summary, details })
    };
    if let Some(first) = left.conflicts.first() {
        let all: Vec<&str> =
            left.conflicts.iter().take(MAX_LISTED).map(|conflict| conflict.why.as_str()).collect();
        let more = match left.conflicts.len() - 1 {
            0 => String::new(),
            1 => " and 1 more bead".to_owned(),
            more => format!(" and {more} more beads"),
        };
        let summary =
            format!("bead store {name} disagrees with the cluster about {}{more}", first.bead);
        add(CONTENDED, Severity::Low, summary, all.join("\n"));
    } else if let Some(error @ StoreError::Contended { .. }) = error {
        let summary = format!("bead store {name} cannot be written: {error}");
        add(CONTENDED, Severity::Medium, summary, String::new());
    }
    match error {
        None | Some(StoreError::Contended { .. }) => {}
        Some(error) if error.is_write_error() && !left.edits.is_empty() => {
            let waiting: Vec<String> =
                left.edits.iter().take(MAX_LISTED).map(Edit::summary).collect();
            let summary = format!(
                "bead store {name} cannot be written: {}: {}",
                error.reason(),
                error.message()
            );
            let details = format!("These edits wait:\n{}", waiting.join("\n"));
            add(WRITES_REFUSED, Severity::Medium, summary, details);
        }
        Some(error) if !error.is_write_error() && error.is_permanent() => {
            let summary = format!(
                "bead store {name} cannot be read: {}: {}",
                error.reason(),
                error.message()
            );
            add(UNREADABLE, Severity::Medium, summary, String::new());
        }
        Some(_) => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use gastown_api::BeadStoreSpec;
    use gastown_core::beads::Conflict;

    use super::*;

    fn found(left: &Plan, error: Option<&StoreError>) -> Vec<Problem> {
        let spec: BeadStoreSpec =
            serde_json::from_value(serde_json::json!({"rigRef": "web", "prefix": "web"})).unwrap();
        let problems = problems(&BeadStore::new("beads", spec), left, error);
        assert!(problems.iter().all(|problem| REASONS.contains(&problem.reason)));
        problems
    }

    fn reasons(left: &Plan, error: Option<&StoreError>) -> Vec<&'static str> {
        found(left, error).iter().map(|problem| problem.reason).collect()
    }

    fn conflict(bead: &str) -> Conflict {
        Conflict { bead: bead.into(), why: format!("{bead} is assigned to ann in the store") }
    }

    #[test]
    fn only_problems_that_a_person_can_solve_are_reported() {
        let nothing = Plan::default();
        let comment = Edit::Comment { bead: "web-1".into(), author: "a".into(), text: "b".into() };
        let waiting = Plan { edits: vec![comment], ..Plan::default() };
        let conflicts = Plan { conflicts: vec![conflict("web-1")], ..Plan::default() };
        let branch = || "beads-sync".parse().unwrap();
        let contended = StoreError::Contended { branch: branch(), attempts: 6 };
        let rejected = StoreError::PushRejected { branch: branch(), message: "protected".into() };
        assert_eq!(reasons(&nothing, None), [] as [&str; 0]);
        assert_eq!(reasons(&conflicts, None), [CONTENDED]);
        assert_eq!(reasons(&waiting, Some(&contended)), [CONTENDED]);
        assert_eq!(reasons(&nothing, Some(&rejected)), [] as [&str; 0], "no edit waits");
        assert_eq!(reasons(&waiting, Some(&rejected)), [WRITES_REFUSED]);
    }

    #[test]
    fn a_summary_names_the_first_bead_and_counts_the_others() {
        let summary = |beads: &[&str]| {
            let conflicts = beads.iter().map(|bead| conflict(bead)).collect();
            found(&Plan { conflicts, ..Plan::default() }, None)[0].summary.clone()
        };
        assert_eq!(summary(&["web-1"]), "bead store beads disagrees with the cluster about web-1");
        assert_eq!(
            summary(&["web-1", "web-2", "web-3"]),
            "bead store beads disagrees with the cluster about web-1 and 2 more beads"
        );
    }
}
