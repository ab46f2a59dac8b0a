//! What of a store a person is to be told of. Pure.

use gastown_api::{BeadStore, Severity};
use gastown_escalations::Problem;
use kube::ResourceExt as _;

use crate::desk::Fault;
use crate::plan::Plan;

/// What the store says stands against what the town does, or others always write first.
const CONTENDED: &str = "Contended";
/// Claims and closes cannot be written, and some wait.
const WRITES_REFUSED: &str = "WritesRefused";
/// Beads cannot be read until a person does something.
const UNREADABLE: &str = "Unreadable";
/// All of them.
pub(crate) const REASONS: [&str; 3] = [CONTENDED, WRITES_REFUSED, UNREADABLE];

/// What problems a store, of what is wanted and not in it, and of what went wrong.
pub(crate) fn problems(store: &BeadStore, left: &Plan, fault: Option<&Fault>) -> Vec<Problem> {
    let name = store.name_any();
    let mut all = Vec::new();
    let mut add = |reason, severity, summary, details: String| {
        all.push(Problem { reason, severity, summary, details })
    };
    if let Some((bead, _)) = left.against.first() {
        let words: Vec<&str> = left.against.iter().take(20).map(|(_, why)| why.as_str()).collect();
        let summary = format!(
            "bead store {name} says otherwise than the town does, of {bead} and {} more",
            left.against.len() - 1
        );
        add(CONTENDED, Severity::Low, summary, words.join("\n"));
    } else if let Some(fault @ Fault::Contended(_)) = fault {
        add(
            CONTENDED,
            Severity::Medium,
            format!("bead store {name} is not written: {fault}"),
            String::new(),
        );
    }
    match fault {
        None | Some(Fault::Contended(_)) => {}
        Some(fault) if fault.is_of_writing() && !left.deeds.is_empty() => {
            let details = left
                .deeds
                .iter()
                .take(20)
                .map(crate::plan::Deed::words)
                .collect::<Vec<_>>()
                .join("\n");
            let summary = format!(
                "bead store {name} does not take what is written: {}: {}",
                fault.reason(),
                fault.message()
            );
            add(WRITES_REFUSED, Severity::Medium, summary, format!("These wait:\n{details}"));
        }
        Some(fault) if !fault.is_of_writing() && fault.is_lasting() => {
            let summary = format!(
                "bead store {name} cannot be read: {}: {}",
                fault.reason(),
                fault.message()
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

    use super::*;
    use crate::plan::Deed;

    fn reasons(left: &Plan, fault: Option<&Fault>) -> Vec<&'static str> {
        let spec: BeadStoreSpec =
            serde_json::from_value(serde_json::json!({"rigRef": "web", "prefix": "web"})).unwrap();
        let problems = problems(&BeadStore::new("beads", spec), left, fault);
        assert!(problems.iter().all(|t| REASONS.contains(&t.reason)));
        problems.iter().map(|t| t.reason).collect()
    }

    #[test]
    fn only_what_a_person_can_change_is_told() {
        let nothing = Plan::default();
        let waits = Plan {
            deeds: vec![Deed::Comment {
                bead: "web-1".into(),
                author: "a".into(),
                text: "b".into(),
            }],
            ..Plan::default()
        };
        let against =
            Plan { against: vec![("web-1".into(), "web-1 is ann's".into())], ..Plan::default() };
        let branch = || "beads-sync".parse().unwrap();
        let refused = Fault::Refused { branch: branch(), message: "protected".into() };
        assert_eq!(reasons(&nothing, None), [] as [&str; 0]);
        assert_eq!(reasons(&against, None), [CONTENDED]);
        assert_eq!(reasons(&waits, Some(&Fault::Contended(branch()))), [CONTENDED]);
        assert_eq!(reasons(&nothing, Some(&refused)), [] as [&str; 0], "nothing waits");
        assert_eq!(reasons(&waits, Some(&refused)), [WRITES_REFUSED]);
    }
}
