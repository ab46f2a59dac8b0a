//! What does one rig do, and what keeps it from more?

use super::build::{dashboard, graph, number, table};
use super::model::Dashboard;

pub fn rig() -> Dashboard {
    dashboard(
        "gastown-rig",
        "Rig",
        "One rig, or several: its polecats, what they wait for, its beads and its convoys.",
        true,
        vec![
            vec![
                number(
                    "bool_yes_no",
                    "Is it ready?",
                    "Whether the condition Ready of all chosen rigs is True.",
                    "min(gastown_rig_ready{rig=~\"$rig\"})",
                )
                .red_below(1.0)
                .explained("Reasons", "reasons.md"),
                number(
                    "short",
                    "How many polecats has it?",
                    "Polecats of all phases.",
                    "sum(gastown_polecats{rig=~\"$rig\"})",
                )
                .leads_to("Agents", "gastown-agents"),
                number(
                    "short",
                    "How long is its merge queue?",
                    "Requests that wait or are being tested.",
                    "sum(gastown_refinery_queue_length{rig=~\"$rig\"})",
                )
                .leads_to("Merge queue", "gastown-merge-queue"),
                number(
                    "short",
                    "How many beads could be worked on?",
                    "Beads of its bead store that nothing blocks.",
                    "sum(gastown_beadstore_ready_beads{rig=~\"$rig\"})",
                )
                .explained("Metrics", "metrics.md"),
                number(
                    "s",
                    "When was its bead store read?",
                    "How long ago the bead store was read that was read longest ago.",
                    "max(gastown_beadstore_sync_age_seconds{rig=~\"$rig\"})",
                )
                .red_from(600.0)
                .explained("What to do", "runbooks/BeadStoreNotSynced.md"),
                number(
                    "short",
                    "Whose work is not saved?",
                    "Polecats whose pod has work that cannot be brought to the remote.",
                    "sum(gastown_polecat_unsaved{rig=~\"$rig\"})",
                )
                .red_from(1.0)
                .explained("What to do", "runbooks/WorkUnsaved.md"),
            ],
            vec![
                graph(
                    "short",
                    "What are its polecats doing?",
                    "Polecats by their phase.",
                    &[("sum by (phase) (gastown_polecats{rig=~\"$rig\"})", "{{phase}}")],
                )
                .stacked()
                .search("{ name = \"polecat\" && resource.service.namespace = \"gastown\" }"),
                graph(
                    "s",
                    "What has waited longest?",
                    "For how long the first polecat of each reason has not been ready.",
                    &[(
                        "max by (rig, reason) (gastown_polecat_waiting_oldest_seconds{rig=~\"$rig\"})",
                        "{{rig}} {{reason}}",
                    )],
                )
                .search("{ name = \"wait.slot\" || name = \"wait.claim\" }"),
            ],
            vec![
                graph(
                    "s",
                    "How long is the wait for a claim?",
                    "From a polecat's creation until it had the claim on its bead: nine tenths of an hour's waited at most this long.",
                    &[(
                        "histogram_quantile(0.9, sum by (le, rig) (increase(gastown_polecat_claim_wait_seconds_bucket{rig=~\"$rig\"}[1h])))",
                        "{{rig}}",
                    )],
                )
                .traces(),
                graph(
                    "s",
                    "How long is the wait for a slot?",
                    "Until the pod of an attempt was created: nine tenths of an hour's attempts waited at most this long.",
                    &[(
                        "histogram_quantile(0.9, sum by (le, rig) (increase(gastown_polecat_slot_wait_seconds_bucket{rig=~\"$rig\"}[1h])))",
                        "{{rig}}",
                    )],
                )
                .traces(),
            ],
            vec![
                table(
                    "short",
                    "Who waits for what?",
                    "Polecats that are not ready now, by rig and reason.",
                    "sum by (rig, reason) (gastown_polecat_waiting{rig=~\"$rig\"})",
                )
                .explained("Reasons", "reasons.md"),
                graph(
                    "short",
                    "How far are its beads?",
                    "Beads of its bead store by their status.",
                    &[("sum by (status) (gastown_beadstore_beads{rig=~\"$rig\"})", "{{status}}")],
                )
                .stacked()
                .explained("Metrics", "metrics.md"),
                graph(
                    "short",
                    "How far are its convoys?",
                    "Beads that convoys track: pending, completed or failed.",
                    &[("sum by (phase) (gastown_convoy_beads{rig=~\"$rig\"})", "{{phase}}")],
                )
                .stacked()
                .search("{ name = \"convoy\" && resource.service.namespace = \"gastown\" }"),
            ],
        ],
    )
}
