//! What is in the queue, how long do gates take, and what comes back?

use super::build::{dashboard, graph, number};
use super::model::Dashboard;

pub fn merge_queue() -> Dashboard {
    dashboard(
        "gastown-merge-queue",
        "Merge queue",
        "Requests from their creation to the target branch: what waits, what gates take, what is sent back.",
        true,
        vec![
            vec![
                number(
                    "short",
                    "How many wait?",
                    "Requests that wait or are being tested.",
                    "sum(gastown_refinery_queue_length{rig=~\"$rig\"})",
                )
                .search("{ name = \"queue\" && resource.service.namespace = \"gastown\" }"),
                number(
                    "s",
                    "How long has the oldest waited?",
                    "The age of the oldest request that has not ended.",
                    "max(gastown_refinery_queue_oldest_seconds{rig=~\"$rig\"})",
                )
                .red_from(7200.0)
                .explained("What to do", "runbooks/NothingLands.md"),
                number(
                    "short",
                    "What keeps everything from landing?",
                    "How many reasons there are: a target that fails its own gate, gates that do not run, a remote that does not answer.",
                    "sum(gastown_refinery_blocked{rig=~\"$rig\"})",
                )
                .red_from(1.0)
                .explained("What to do", "runbooks/TargetBroken.md"),
                number(
                    "percentunit",
                    "How much of what ends has landed?",
                    "Of the requests that ended within a day: how many of them landed.",
                    "sum(increase(gastown_refinery_merge_total{rig=~\"$rig\",result=\"success\"}[1d])) / sum(increase(gastown_refinery_merge_total{rig=~\"$rig\"}[1d]))",
                )
                .search("{ name = \"land\" && resource.service.namespace = \"gastown\" }"),
                number(
                    "short",
                    "How often is work sent back for one landing?",
                    "Requests that were sent back within a day, divided by those that landed.",
                    "sum(increase(gastown_refinery_ended_total{rig=~\"$rig\",phase=\"Rework\"}[1d])) / (sum(increase(gastown_refinery_merge_total{rig=~\"$rig\",result=\"success\"}[1d])) > 0)",
                )
                .search("{ name = \"verdict\" && resource.service.namespace = \"gastown\" }"),
                number(
                    "short",
                    "Did the remote lose a push?",
                    "Pushes after which the target did not have the commit, since the controllers started.",
                    "sum(gastown_refinery_landed_mismatches_total{rig=~\"$rig\"})",
                )
                .red_from(1.0)
                .explained("What to do", "runbooks/UntestedLanding.md"),
            ],
            vec![
                graph(
                    "short",
                    "How does the queue grow?",
                    "Requests that wait or are being tested, by rig.",
                    &[("sum by (rig) (gastown_refinery_queue_length{rig=~\"$rig\"})", "{{rig}}")],
                )
                .search("{ name = \"queue\" && resource.service.namespace = \"gastown\" }"),
                graph(
                    "short",
                    "How do requests end?",
                    "Requests that ended within the hour before, by phase and reason.",
                    &[(
                        "sum by (phase, reason) (increase(gastown_refinery_ended_total{rig=~\"$rig\"}[1h]))",
                        "{{phase}} {{reason}}",
                    )],
                )
                .stacked()
                .search("{ name = \"land\" || name = \"verdict\" }"),
            ],
            vec![
                graph(
                    "s",
                    "How long does a change take to merge?",
                    "From the creation of a request until it was on its target branch.",
                    &[
                        ("histogram_quantile(0.5, sum by (le) (increase(vcs_change_time_to_merge_seconds_bucket{rig=~\"$rig\"}[6h])))", "half"),
                        ("histogram_quantile(0.9, sum by (le) (increase(vcs_change_time_to_merge_seconds_bucket{rig=~\"$rig\"}[6h])))", "nine tenths"),
                    ],
                )
                .traces(),
                graph(
                    "s",
                    "How long do gates run, and wait for a node?",
                    "Nine tenths of the gate runs of six hours were pending and executing for at most this long, by their result.",
                    &[(
                        "histogram_quantile(0.9, sum by (le, cicd_pipeline_run_state, cicd_pipeline_result) (increase(cicd_pipeline_run_duration_seconds_bucket{rig=~\"$rig\"}[6h])))",
                        "{{cicd_pipeline_run_state}} {{cicd_pipeline_result}}",
                    )],
                )
                .traces(),
            ],
            vec![
                graph(
                    "short",
                    "How do gate runs end?",
                    "Gate runs of the hour before, by their result: error is broken infrastructure.",
                    &[(
                        "sum by (cicd_pipeline_result) (increase(cicd_pipeline_run_duration_seconds_count{rig=~\"$rig\",cicd_pipeline_run_state=\"executing\"}[1h]))",
                        "{{cicd_pipeline_result}}",
                    )],
                )
                .stacked()
                .search("{ name = \"gate run\" && resource.service.namespace = \"gastown\" }"),
                graph(
                    "short",
                    "What blocks it, and when?",
                    "1 while nothing can land, by rig and reason.",
                    &[(
                        "max by (rig, reason) (gastown_refinery_blocked{rig=~\"$rig\"})",
                        "{{rig}} {{reason}}",
                    )],
                )
                .explained("Reasons", "reasons.md"),
                graph(
                    "short",
                    "How often does infrastructure break gates?",
                    "Gate runs that broke within the hour before, and conflicts with the target.",
                    &[
                        ("sum by (rig) (increase(gastown_refinery_gate_faults_total{rig=~\"$rig\"}[1h]))", "{{rig}} broken"),
                        ("sum by (rig) (increase(gastown_refinery_conflicts_total{rig=~\"$rig\"}[1h]))", "{{rig}} conflicts"),
                    ],
                )
                .explained("What to do", "runbooks/GateInfrastructureBroken.md"),
            ],
        ],
    )
}
