//! What changed between two snapshots, in lines for the terminal.

use std::collections::BTreeMap;

use gastown_api::{
    Convoy, Escalation, MergePhase, MergeRequest, Polecat, PolecatPhase, conditions,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::snapshot::{Snapshot, is_merged};

/// Turns snapshots into lines, one for each thing that changed.
#[derive(Debug, Default)]
pub struct News {
    printed: BTreeMap<String, String>,
}

impl News {
    /// What is new in this snapshot.
    pub fn of(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let polecats = snapshot
            .polecats
            .iter()
            .map(|p| (format!("polecat {}", p.name_any()), polecat_state(p)));
        let requests = snapshot.requests.iter().map(|r| {
            let author = r.spec.polecat_ref.as_ref().map_or("nobody", |p| p.name.as_str());
            (format!("request {author}/{}", r.spec.attempt), request_state(r))
        });
        let convoys =
            snapshot.convoys.iter().map(|c| (format!("convoy {}", c.name_any()), convoy_state(c)));
        let escalations = snapshot
            .escalations
            .iter()
            .map(|e| (format!("escalation {}", e.name_any()), escalation_state(e)));
        let now: Vec<(String, String)> =
            polecats.chain(requests).chain(convoys).chain(escalations).collect();
        let mut lines = Vec::new();
        for (who, what) in now {
            if self.printed.get(&who) != Some(&what) {
                lines.push(format!("{who:<24} {what}"));
                self.printed.insert(who, what);
            }
        }
        lines
    }
}

pub(crate) fn convoy_state(convoy: &Convoy) -> String {
    let status = convoy.status.clone().unwrap_or_default();
    let phase = status.phase.map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    format!("{phase} {}", status.progress.unwrap_or_default()).trim_end().to_owned()
}

fn escalation_state(escalation: &Escalation) -> String {
    let phase = escalation
        .status
        .as_ref()
        .and_then(|s| s.phase)
        .map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    format!("{phase} {}: {}", escalation.spec.severity.as_str(), escalation.spec.summary)
}

pub(crate) fn polecat_state(polecat: &Polecat) -> String {
    let status = polecat.status.clone().unwrap_or_default();
    if is_merged(polecat) {
        return "Done, merged".to_owned();
    }
    let attempt =
        status.attempts.filter(|n| *n > 1).map_or_else(String::new, |n| format!(" (attempt {n})"));
    let phase = status.phase.map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    let why = match status.phase {
        Some(PolecatPhase::Working | PolecatPhase::Done) => None,
        _ => reason(&status.conditions),
    };
    format!("{phase}{attempt}{}", why.map_or_else(String::new, |w| format!(": {w}")))
}

pub(crate) fn request_state(request: &MergeRequest) -> String {
    let status = request.status.clone().unwrap_or_default();
    let phase = status.phase.map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    // While a gate runs the reason is about its pod, which comes and goes within a second.
    let is_news = |r: &String| !r.is_empty() && status.phase != Some(MergePhase::Testing);
    let why = status.reason.filter(is_news).map_or_else(String::new, |r| format!(": {r}"));
    let commit = status
        .landed_commit
        .map_or_else(String::new, |c| format!(" as {}", c.chars().take(12).collect::<String>()));
    format!("{phase}{why}{commit}")
}

/// The first condition that explains why something failed or waits.
fn reason(all: &[Condition]) -> Option<String> {
    if let Some(failed) = conditions::find(all, "Degraded").filter(|c| c.status == "True") {
        return Some(format!("{}: {}", failed.reason, failed.message));
    }
    let order = ["Admitted", "Submitted", "Merged", "Ready", "Available", "Working"];
    let of = |type_: &&str| {
        conditions::find(all, type_).filter(|c| c.status == "False" && !c.message.is_empty())
    };
    let found = order.iter().find_map(of)?;
    // The message has the place in the queue, which moves all the time.
    let alone = found.reason == "AtCapacity";
    Some(if alone { found.reason.clone() } else { format!("{}: {}", found.reason, found.message) })
}
