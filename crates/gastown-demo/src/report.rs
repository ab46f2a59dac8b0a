//! The result, as a table for a person and as JSON for a program.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use gastown_api::MergeRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::beads::BeadState;
use crate::git::{git, line};
use crate::objects::CONVOY;
use crate::plan::{Change, Plan};
use crate::scenario::Scenario;
use crate::snapshot::Snapshot;

/// A demo in which everything landed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The changes, in the plan's order.
    pub changes: Vec<ChangeReport>,
    /// The convoy that carried them.
    pub convoy: ConvoyReport,
    /// The changes that need a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalations: Vec<EscalationReport>,
    /// The target branch at the end.
    pub target: Target,
    /// Whether the target's tree is the one that the plan names; absent when it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree_as_planned: Option<bool>,
    /// From the first object to the last landed change.
    pub seconds: f64,
}

/// One landed change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReport {
    /// The plan's name for it.
    pub bead: String,
    /// The bead's status in the store.
    pub bead_status: String,
    /// Why the bead was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bead_close_reason: Option<String>,
    /// The Polecat that made it.
    pub polecat: String,
    /// The trace of its life.
    pub trace_id: String,
    /// The branch that it was pushed to.
    pub branch: String,
    /// The branch's commit that was submitted.
    pub commit: String,
    /// The commit that passed the gate.
    pub tested_commit: String,
    /// The commit that the target branch was moved to.
    pub landed_commit: String,
    /// The MergeRequest that landed.
    pub merge_request: String,
    /// How many attempts the Polecat needed.
    pub attempts: i32,
    /// How many of its requests were sent back.
    pub reworks: usize,
    /// How long its requests waited before their gates began, in seconds.
    pub waiting_seconds: f64,
    /// How long its gates took, in seconds.
    pub testing_seconds: f64,
}

/// An Escalation that was delivered to the webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EscalationReport {
    /// The bead that no change was made for.
    pub bead: String,
    /// Its Polecat.
    pub polecat: String,
    /// The Escalation.
    pub name: String,
    /// Its severity.
    pub severity: String,
    /// Its summary.
    pub summary: String,
}

/// The convoy at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConvoyReport {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: String,
    /// `done/total`.
    pub progress: String,
}

/// A branch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Its name.
    pub branch: String,
    /// Its commit.
    pub commit: String,
    /// The commit's tree.
    pub tree: String,
}

impl Report {
    /// Reads the result from the cluster and the git server.
    pub async fn new(
        scenario: &Scenario,
        plan: &Plan,
        snapshot: &Snapshot,
        beads: &BTreeMap<String, BeadState>,
    ) -> Result<Self> {
        let seconds = scenario.started.elapsed().as_secs_f64();
        let changes =
            plan.changes.iter().map(|c| change(c, snapshot, beads)).collect::<Result<Vec<_>>>()?;
        let convoy = snapshot.convoy(CONVOY).context("the convoy is gone")?;
        let status = convoy.status.clone().unwrap_or_default();
        let phase = status.phase.map(|p| format!("{p:?}")).unwrap_or_default();
        let convoy = ConvoyReport {
            name: convoy.name_any(),
            phase,
            progress: status.progress.unwrap_or_default(),
        };
        let dir = plan.path();
        let fetched = "refs/gastown-demo/landed";
        git(
            &dir,
            &[
                "fetch",
                "--quiet",
                &scenario.repository_here(),
                &format!("+refs/heads/main:{fetched}"),
            ],
        )
        .await?;
        let commit = line(&dir, &["rev-parse", fetched]).await?;
        let tree = line(&dir, &["rev-parse", &format!("{fetched}^{{tree}}")]).await?;
        for change in &changes {
            let inside =
                git(&dir, &["merge-base", "--is-ancestor", &change.landed_commit, &commit]).await;
            inside.with_context(|| {
                format!("{}: {} is not on main", change.bead, change.landed_commit)
            })?;
        }
        let escalations =
            plan.hopeless.iter().filter_map(|h| escalation(&h.bead, snapshot)).collect();
        let tree_as_planned = plan.tip_tree.as_ref().map(|planned| *planned == tree);
        Ok(Self {
            changes,
            convoy,
            escalations,
            target: Target { branch: "main".to_owned(), commit, tree },
            tree_as_planned,
            seconds,
        })
    }

    /// Checks the promises: every change landed as tested, every bead is closed with what landed, the
    /// convoy is complete, and the tree is the plan's.
    pub fn check(&self) -> Result<()> {
        if let Some(change) = self.changes.iter().find(|c| c.tested_commit != c.landed_commit) {
            bail!(
                "{}: tested {} but landed {}",
                change.bead,
                change.tested_commit,
                change.landed_commit
            );
        }
        for change in &self.changes {
            let reason = format!("merged {}", change.landed_commit);
            if change.bead_status != "closed"
                || change.bead_close_reason.as_deref() != Some(&reason)
            {
                let found = change.bead_close_reason.as_deref().unwrap_or_default();
                bail!(
                    "bead {} is {} with the reason {found:?} instead of {reason:?}",
                    change.bead,
                    change.bead_status
                );
            }
        }
        if self.convoy.phase != "Complete" {
            bail!(
                "everything landed, but convoy {} is {} ({})",
                self.convoy.name,
                self.convoy.phase,
                self.convoy.progress
            );
        }
        if self.tree_as_planned == Some(false) {
            bail!("everything landed, but the tree is {} and not the plan's", self.target.tree);
        }
        Ok(())
    }

    /// Checks also that it is as planned: each change landed with as many attempts and reworks as the plan
    /// has, a person is asked for the hopeless ones alone, and the tree is the planned one.
    pub fn check_plan(&self, plan: &Plan) -> Result<()> {
        self.check()?;
        let expected = |change: &Change| {
            let tries = change.tries.len();
            (change.bead.clone(), tries + usize::from(change.mute_first), tries - 1)
        };
        let planned: Vec<_> = plan.changes.iter().map(expected).collect();
        let found = self
            .changes
            .iter()
            .map(|c| (c.bead.clone(), usize::try_from(c.attempts).unwrap_or_default(), c.reworks));
        let found: Vec<_> = found.collect();
        ensure!(found == planned, "beads, attempts, reworks: {found:#?} instead of {planned:#?}");
        let hopeless = plan.hopeless.iter().map(|h| h.bead.as_str());
        let escalated = self.escalations.iter().map(|e| e.bead.as_str());
        ensure!(escalated.eq(hopeless), "escalations: {:#?}", self.escalations);
        Ok(())
    }

    /// A table for the terminal.
    pub fn table(&self) -> String {
        let head = [
            "BEAD", "STATUS", "POLECAT", "BRANCH", "COMMIT", "TESTED", "LANDED", "ATTEMPTS",
            "WAITING", "TESTING",
        ]
        .map(str::to_owned);
        let short = |c: &str| c.chars().take(10).collect::<String>();
        let rows = self.changes.iter().map(|c| {
            [
                c.bead.clone(),
                c.bead_status.clone(),
                c.polecat.clone(),
                c.branch.clone(),
                short(&c.commit),
                short(&c.tested_commit),
                short(&c.landed_commit),
                c.attempts.to_string(),
                format!("{:.0} s", c.waiting_seconds),
                format!("{:.0} s", c.testing_seconds),
            ]
        });
        let rows: Vec<[String; 10]> = std::iter::once(head).chain(rows).collect();
        let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..10).map(width).collect();
        let line = |row: &[String; 10]| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        let table: Vec<String> = rows.iter().map(line).collect();
        let planned =
            if self.tree_as_planned == Some(true) { ", the tree that the plan names" } else { "" };
        let Target { branch, commit, tree } = &self.target;
        let (count, convoy) = (self.changes.len(), &self.convoy);
        let convoy = format!("convoy {} is {} ({})", convoy.name, convoy.phase, convoy.progress);
        let escalated = |e: &EscalationReport| {
            format!("\nescalated: {} ({}, {}) {}", e.bead, e.polecat, e.severity, e.summary)
        };
        let escalated = self.escalations.iter().map(escalated).collect::<Vec<_>>().concat();
        format!(
            "{}\n{count} landed in {:.0} s; {convoy}; {branch} is {commit}, tree {tree}{planned}{escalated}",
            table.concat(),
            self.seconds
        )
    }
}

fn escalation(bead: &str, snapshot: &Snapshot) -> Option<EscalationReport> {
    let escalation = snapshot.escalation(bead)?;
    Some(EscalationReport {
        bead: bead.to_owned(),
        polecat: snapshot.author(bead)?.name_any(),
        name: escalation.name_any(),
        severity: escalation.spec.severity.as_str().to_owned(),
        summary: escalation.spec.summary.clone(),
    })
}

fn change(
    change: &Change,
    snapshot: &Snapshot,
    beads: &BTreeMap<String, BeadState>,
) -> Result<ChangeReport> {
    let bead = &change.bead;
    let landed = snapshot.landed(bead).with_context(|| format!("{bead} has not landed"))?;
    let status = landed.status.clone().unwrap_or_default();
    let requests = snapshot.requests_for(bead);
    let author = snapshot.author(bead).with_context(|| format!("{bead} has no Polecat"))?;
    let polecat = author.status.clone().unwrap_or_default();
    let state = beads.get(bead).cloned().unwrap_or_default();
    Ok(ChangeReport {
        bead: bead.clone(),
        bead_status: state.status,
        bead_close_reason: state.close_reason,
        polecat: author.name_any(),
        trace_id: polecat.trace_id.unwrap_or_default(),
        branch: landed.spec.source_branch.clone(),
        commit: landed.spec.commit.clone(),
        tested_commit: status.tested_commit.unwrap_or_default(),
        landed_commit: status.landed_commit.unwrap_or_default(),
        merge_request: landed.name_any(),
        attempts: polecat.attempts.unwrap_or(landed.spec.attempt),
        reworks: requests.len() - 1,
        waiting_seconds: requests.iter().map(|r| waiting(r)).sum(),
        testing_seconds: requests.iter().map(|r| testing(r)).sum(),
    })
}

fn waiting(request: &MergeRequest) -> f64 {
    let Some(status) = &request.status else { return 0.0 };
    let first = status.attempts.iter().find_map(|a| a.started_at.as_ref());
    seconds(status.queued_at.as_ref(), first.or(status.started_testing_at.as_ref()))
}

fn testing(request: &MergeRequest) -> f64 {
    let attempts = request.status.iter().flat_map(|s| &s.attempts);
    attempts.map(|a| seconds(a.started_at.as_ref(), a.finished_at.as_ref())).sum()
}

fn seconds(from: Option<&Time>, to: Option<&Time>) -> f64 {
    let span = from.zip(to).map(|(from, to)| to.0.duration_since(from.0));
    span.map_or(0.0, |s| s.as_secs_f64().max(0.0))
}
