//! What a person would look at next when a run has failed.

use std::fmt::Write as _;

use gastown_api::rbac::Controller;
use gastown_cluster::install::SYSTEM;
use gastown_toolchain::tail;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::news::{convoy_state, polecat_state, request_state};
use crate::scenario::Scenario;
use crate::snapshot::{Snapshot, is_merged, polecat_conditions};

/// The error of a run that failed for the reason `what`: with the objects, their conditions, the
/// warnings and the ends of the logs.
pub async fn diagnose(what: &str, scenario: &Scenario, snapshot: &Snapshot) -> anyhow::Error {
    let (objects, cluster) = (objects(snapshot), cluster(scenario).await);
    anyhow::anyhow!("{what}{objects}{cluster}")
}

/// The convoys, and the polecats that are not merged with their requests.
fn objects(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for convoy in &snapshot.convoys {
        let _ = write!(text, "\n\nconvoy {}: {}", convoy.name_any(), convoy_state(convoy));
        text.push_str(&list(
            convoy.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default(),
        ));
    }
    for polecat in snapshot.polecats.iter().filter(|p| !is_merged(p)) {
        let _ = write!(text, "\n\npolecat {}: {}", polecat.name_any(), polecat_state(polecat));
        text.push_str(&list(polecat_conditions(polecat)));
        for request in snapshot.requests_of(&polecat.name_any()) {
            let _ = write!(text, "\n  request {}: {}", request.name_any(), request_state(request));
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
    text
}

/// What kubectl shows: all objects, warnings, and the ends of the controllers' logs.
async fn cluster(scenario: &Scenario) -> String {
    let mut text = String::new();
    let namespace = scenario.settings.namespace.as_str();
    let queries: [(&str, &[&str]); 4] = [
        ("all objects of the operator", &["get", "gastown", "-A", "-o", "wide"]),
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
    for (what, args) in queries {
        let output = scenario.kubectl.output(args).await.unwrap_or_else(|e| format!("{e:#}"));
        let _ = write!(text, "\n\n{what}:\n{}", tail(&output, 30));
    }
    for controller in Controller::ALL.map(Controller::name) {
        let selector = format!("app.kubernetes.io/component={controller}");
        let args = ["logs", "-n", SYSTEM, "-l", &selector, "--tail", "25", "--all-containers"];
        let output = scenario.kubectl.output(&args).await.unwrap_or_else(|e| format!("{e:#}"));
        let _ = write!(text, "\n\nlog of {controller}:\n{}", output.trim_end());
    }
    text
}

fn list(conditions: &[Condition]) -> String {
    conditions
        .iter()
        .map(|c| format!("\n    {}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect::<Vec<_>>()
        .concat()
}
