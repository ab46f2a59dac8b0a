//! The plan as a person writes it: a JSON file.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use gastown_fakes::messages::{Attempt, Script};
use serde::{Deserialize, Serialize};

/// A list of real commits of a repository that the model makes again.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanFile {
    /// The commit that the target branch begins at.
    pub base: String,
    /// The tree of the target branch when everything has landed, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tip_tree: Option<String>,
    /// The gate: a command for the shell.
    pub test: String,
    /// The changes, in the order in which they are started.
    pub changes: Vec<PlannedChange>,
    /// Tasks that the model does not know how to do; they end with an escalation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hopeless: Vec<Hopeless>,
}

/// A task that the model does not know how to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hopeless {
    /// Its name.
    pub bead: String,
    /// The task, in one line.
    pub title: String,
}

impl Hopeless {
    /// The line of the task by which the scripted model finds its script.
    fn key(&self) -> String {
        key(&self.bead)
    }

    /// The bead's description.
    pub fn description(&self) -> String {
        format!("{}\n", self.key())
    }

    /// What the model does for it.
    pub fn script(&self) -> Script {
        let text = "I do not know how to do that.".to_owned();
        Script { key: self.key(), attempts: vec![Attempt { text, ..Attempt::default() }] }
    }
}

/// The line of a task by which the scripted model finds its script.
pub fn key(bead: &str) -> String {
    format!("Change: {bead}")
}

/// One change of a [`PlanFile`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// Its name: lower-case letters, digits and hyphens.
    pub bead: String,
    /// The task, in one line.
    pub title: String,
    /// The commit whose difference to its parent the model makes.
    pub commit: String,
    /// The changes that must have landed before this one is started.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// A first try that the gate refuses; `commit` is then made on top of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub red_first: Option<RedFirst>,
    /// In the first attempt the model falls silent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mute_first: bool,
}

/// A first try that is wrong.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedFirst {
    /// The commit whose difference to its parent the model makes first.
    pub commit: String,
    /// What the gate prints; the model makes the right change only when the prompt of the rework
    /// holds it.
    pub evidence: String,
}

/// Refuses a plan that could not be played: it is a file that a person wrote.
pub fn check(plan: &PlanFile) -> Result<()> {
    let mut known = BTreeSet::new();
    if plan.changes.is_empty() {
        bail!("the plan has no changes");
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    for bead in plan.changes.iter().map(|c| &c.bead).chain(plan.hopeless.iter().map(|h| &h.bead)) {
        if !bead.starts_with(|c: char| c.is_ascii_lowercase())
            || bead.len() > 40
            || bead.ends_with('-')
            || !bead.chars().all(allowed)
        {
            bail!(
                "{bead:?} is not a name for a change: at most 40 lower-case letters, digits and hyphens, a letter first"
            );
        }
    }
    for change in &plan.changes {
        let bead = change.bead.as_str();
        if let Some(missing) = change.depends_on.iter().find(|d| !known.contains(d.as_str())) {
            bail!("{bead} depends on {missing}, which is not a change before it");
        }
        if !known.insert(bead) {
            bail!("{bead} is in the plan twice");
        }
    }
    if let Some(twice) = plan.hopeless.iter().find(|h| !known.insert(&h.bead)) {
        bail!("{} is in the plan twice", twice.bead);
    }
    let hexadecimal = |c: &str| c.len() >= 40 && c.chars().all(|c| c.is_ascii_hexdigit());
    let reds = plan.changes.iter().filter_map(|c| c.red_first.as_ref().map(|r| &r.commit));
    let mut commits = plan.changes.iter().map(|c| &c.commit).chain(reds).chain([&plan.base]);
    commits.find(|c| !hexadecimal(c)).map_or(Ok(()), |c| bail!("{c:?} is not a full commit id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> PlanFile {
        let change = |bead: &str, depends_on: &[&str]| PlannedChange {
            bead: bead.to_owned(),
            title: "t".to_owned(),
            commit: "a".repeat(40),
            depends_on: depends_on.iter().map(|&d| d.to_owned()).collect(),
            red_first: None,
            mute_first: false,
        };
        let changes = vec![change("a-1", &[]), change("a-2", &["a-1"])];
        PlanFile {
            base: "b".repeat(40),
            tip_tree: None,
            test: "true".to_owned(),
            changes,
            hopeless: Vec::new(),
        }
    }

    #[test]
    fn a_plan_that_cannot_be_played_is_refused() {
        check(&plan()).unwrap();
        let broken = |change: fn(&mut PlanFile)| {
            let mut plan = plan();
            change(&mut plan);
            check(&plan).unwrap_err().to_string()
        };
        assert!(broken(|p| p.changes.swap(0, 1)).contains("depends on a-1"));
        assert!(broken(|p| p.changes[1].bead = "a-1".to_owned()).contains("twice"));
        assert!(broken(|p| p.changes[0].bead = "A 1".to_owned()).contains("not a name"));
        assert!(broken(|p| p.base = "--output=x".to_owned()).contains("not a full commit id"));
        assert!(broken(|p| p.changes.clear()).contains("no changes"));
    }
}
