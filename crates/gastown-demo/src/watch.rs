//! What the cluster shows: news for the terminal, patience, and a diagnosis when it ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use gastown_api::{
    Convoy, Escalation, MergePhase, MergeRequest, Polecat, PolecatPhase, conditions,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::scenario::Scenario;
use gastown_api::rbac::Controller;
use gastown_cluster::install::SYSTEM;

/// Nothing may stay unchanged for longer.
const QUIET: Duration = Duration::from_secs(600);
/// When only Stuck polecats are left, nothing more is awaited for longer.
const STUCK: Duration = Duration::from_secs(45);

/// All Convoys, Polecats, MergeRequests and Escalations of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Convoys.
    pub convoys: Vec<Convoy>,
    /// The Polecats.
    pub polecats: Vec<Polecat>,
    /// The MergeRequests.
    pub requests: Vec<MergeRequest>,
    /// The Escalations.
    pub escalations: Vec<Escalation>,
}

impl Snapshot {
    /// A Polecat by its name.
    pub fn polecat(&self, name: &str) -> Option<&Polecat> {
        self.polecats.iter().find(|p| p.name_any() == name)
    }

    /// A Convoy by its name.
    pub fn convoy(&self, name: &str) -> Option<&Convoy> {
        self.convoys.iter().find(|c| c.name_any() == name)
    }

    /// The Escalation about the Polecat that works on a bead.
    pub fn escalation(&self, bead: &str) -> Option<&Escalation> {
        let polecat = self.author(bead)?.name_any();
        let about = |e: &&Escalation| {
            e.spec.related_object.as_ref().is_some_and(|o| o.kind == "Polecat" && o.name == polecat)
        };
        self.escalations.iter().find(about)
    }

    /// The Polecat that works on a bead.
    pub fn author(&self, bead: &str) -> Option<&Polecat> {
        self.polecats.iter().find(|p| p.spec.bead_id.as_deref() == Some(bead))
    }

    /// A bead's requests, oldest attempt first.
    pub fn requests_for(&self, bead: &str) -> Vec<&MergeRequest> {
        let mut requests: Vec<&MergeRequest> =
            self.requests.iter().filter(|r| r.spec.bead_id.as_deref() == Some(bead)).collect();
        requests.sort_by_key(|r| r.spec.attempt);
        requests
    }

    /// A Polecat's requests, oldest attempt first.
    fn requests_of(&self, polecat: &str) -> Vec<&MergeRequest> {
        let of = |r: &&MergeRequest| r.spec.polecat_ref.as_ref().is_some_and(|p| p.name == polecat);
        let mut requests: Vec<&MergeRequest> = self.requests.iter().filter(of).collect();
        requests.sort_by_key(|r| r.spec.attempt);
        requests
    }

    /// The request that landed a bead.
    pub fn landed(&self, bead: &str) -> Option<&MergeRequest> {
        self.requests_for(bead).into_iter().find(|r| merge_phase(r) == Some(MergePhase::Landed))
    }

    /// Whether a bead's work has landed and its Polecat says so too.
    pub fn is_finished(&self, bead: &str) -> bool {
        self.author(bead).is_some_and(is_merged) && self.landed(bead).is_some()
    }
}

fn is_merged(polecat: &Polecat) -> bool {
    conditions::is_true(polecat_conditions(polecat), "Merged")
}

fn merge_phase(request: &MergeRequest) -> Option<MergePhase> {
    request.status.as_ref()?.phase
}

fn polecat_conditions(polecat: &Polecat) -> &[Condition] {
    polecat.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
}

/// Turns snapshots into lines, one for each thing that changed.
#[derive(Debug, Default)]
pub struct News {
    told: BTreeMap<String, String>,
}

impl News {
    /// What is new in this snapshot.
    pub fn of(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let polecats =
            snapshot.polecats.iter().map(|p| (format!("polecat {}", p.name_any()), say_polecat(p)));
        let requests = snapshot.requests.iter().map(|r| {
            let author = r.spec.polecat_ref.as_ref().map_or("nobody", |p| p.name.as_str());
            (format!("request {author}/{}", r.spec.attempt), say_request(r))
        });
        let convoys =
            snapshot.convoys.iter().map(|c| (format!("convoy {}", c.name_any()), say_convoy(c)));
        let escalations = snapshot
            .escalations
            .iter()
            .map(|e| (format!("escalation {}", e.name_any()), say_escalation(e)));
        let now: Vec<(String, String)> =
            polecats.chain(requests).chain(convoys).chain(escalations).collect();
        let mut lines = Vec::new();
        for (who, what) in now {
            if self.told.get(&who) != Some(&what) {
                lines.push(format!("{who:<24} {what}"));
                self.told.insert(who, what);
            }
        }
        lines
    }
}

fn say_convoy(convoy: &Convoy) -> String {
    let status = convoy.status.clone().unwrap_or_default();
    let phase = status.phase.map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    format!("{phase} {}", status.progress.unwrap_or_default()).trim_end().to_owned()
}

fn say_escalation(escalation: &Escalation) -> String {
    let phase = escalation
        .status
        .as_ref()
        .and_then(|s| s.phase)
        .map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    format!("{phase} {}: {}", escalation.spec.severity.as_str(), escalation.spec.summary)
}

fn say_polecat(polecat: &Polecat) -> String {
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

fn say_request(request: &MergeRequest) -> String {
    let status = request.status.clone().unwrap_or_default();
    let phase = status.phase.map_or_else(|| "new".to_owned(), |p| format!("{p:?}"));
    // While a gate runs the reason tells of its pod, which comes and goes within a second.
    let telling = |r: &String| !r.is_empty() && status.phase != Some(MergePhase::Testing);
    let why = status.reason.filter(telling).map_or_else(String::new, |r| format!(": {r}"));
    let commit = status
        .landed_commit
        .map_or_else(String::new, |c| format!(" as {}", c.chars().take(12).collect::<String>()));
    format!("{phase}{why}{commit}")
}

/// The first condition that says why something failed or waits.
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

/// How long it is worth waiting.
#[derive(Debug)]
pub struct Patience {
    end: Instant,
    last_news: Instant,
    limit: Duration,
}

impl Patience {
    /// Patience for so long in all.
    pub fn new(limit: Duration) -> Self {
        let now = Instant::now();
        Self { end: now + limit, last_news: now, limit }
    }

    /// Something happened.
    pub fn renew(&mut self) {
        self.last_news = Instant::now();
    }

    /// Why it makes no sense to wait longer.
    pub fn is_over(&self, snapshot: &Snapshot, landed: usize, all: usize) -> Option<Failure> {
        let quiet = self.last_news.elapsed();
        let stuck = snapshot
            .polecats
            .iter()
            .filter(|p| p.status.as_ref().and_then(|s| s.phase) == Some(PolecatPhase::Stuck));
        let stuck: Vec<String> = stuck.map(ResourceExt::name_any).collect();
        let why = if Instant::now() > self.end {
            format!("{} s are up", self.limit.as_secs())
        } else if quiet > QUIET {
            format!("nothing changed for {} s", QUIET.as_secs())
        } else if quiet > STUCK
            && !stuck.is_empty()
            && stuck.len() + landed >= snapshot.polecats.len()
        {
            format!("stuck: {}", stuck.join(", "))
        } else {
            return None;
        };
        Some(Failure { what: format!("{landed} of {all} landed; {why}") })
    }
}

/// Why the demo ended without success.
#[derive(Debug)]
pub struct Failure {
    /// In a sentence.
    pub what: String,
}

impl Failure {
    /// The error, with everything that a person would look at next.
    pub async fn diagnose(self, scenario: &Scenario, snapshot: &Snapshot) -> anyhow::Error {
        let mut text = self.what;
        for convoy in &snapshot.convoys {
            let _ = write!(text, "\n\nconvoy {}: {}", convoy.name_any(), say_convoy(convoy));
            text.push_str(&list(
                convoy.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default(),
            ));
        }
        for polecat in snapshot.polecats.iter().filter(|p| !is_merged(p)) {
            let _ = write!(text, "\n\npolecat {}: {}", polecat.name_any(), say_polecat(polecat));
            text.push_str(&list(polecat_conditions(polecat)));
            for request in snapshot.requests_of(&polecat.name_any()) {
                let _ =
                    write!(text, "\n  request {}: {}", request.name_any(), say_request(request));
                let status = request.status.clone().unwrap_or_default();
                text.push_str(&list(&status.conditions));
                for attempt in status.attempts {
                    let evidence = attempt.evidence.unwrap_or_default().replace('\n', "\n      ");
                    let _ = write!(
                        text,
                        "\n    {}: {}",
                        attempt.result.unwrap_or_default(),
                        tail(&evidence, 15)
                    );
                }
            }
        }
        let namespace = scenario.settings.namespace.as_str();
        let asked: [(&str, &[&str]); 4] = [
            ("the town", &["get", "gastown", "-A", "-o", "wide"]),
            ("pods and jobs", &["get", "pods,jobs", "-A", "-o", "wide"]),
            (
                "warnings",
                &[
                    "get",
                    "events",
                    "-n",
                    namespace,
                    "--field-selector",
                    "type=Warning",
                    "--sort-by=.lastTimestamp",
                ],
            ),
            (
                "warnings of gates",
                &[
                    "get",
                    "events",
                    "-n",
                    SYSTEM,
                    "--field-selector",
                    "type=Warning",
                    "--sort-by=.lastTimestamp",
                ],
            ),
        ];
        for (what, args) in asked {
            let said = scenario.kubectl.output(args).await.unwrap_or_else(|e| format!("{e:#}"));
            let _ = write!(text, "\n\n{what}:\n{}", tail(&said, 30));
        }
        for controller in Controller::ALL.map(Controller::name) {
            let selector = format!("app.kubernetes.io/component={controller}");
            let args = ["logs", "-n", SYSTEM, "-l", &selector, "--tail", "25", "--all-containers"];
            let said = scenario.kubectl.output(&args).await.unwrap_or_else(|e| format!("{e:#}"));
            let _ = write!(text, "\n\nlog of {controller}:\n{}", said.trim_end());
        }
        anyhow::anyhow!(text)
    }
}

fn list(conditions: &[Condition]) -> String {
    conditions
        .iter()
        .map(|c| format!("\n    {}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect::<Vec<_>>()
        .concat()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Why a pod is not ready, in the kubelet's words.
pub fn pod_says(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "it has no status".to_owned() };
    let containers = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref());
    let waiting = containers.map(|w| {
        format!(
            "{}: {}",
            w.reason.as_deref().unwrap_or("?"),
            w.message.as_deref().unwrap_or_default()
        )
    });
    let conditions = status
        .conditions
        .iter()
        .flatten()
        .filter(|c| c.status != "True")
        .filter_map(|c| c.message.clone());
    waiting.chain(conditions).collect::<Vec<_>>().join("; ")
}
