//! Is everything all right?

use super::build::{dashboard, graph, number};
use super::model::Dashboard;

pub fn overview() -> Dashboard {
    dashboard(
        "gastown-overview",
        "Overview",
        "Whether work gets done, in all rigs: what lands, what waits and why, who is needed, what it costs.",
        false,
        vec![
            vec![
                number(
                    "short",
                    "How much landed today?",
                    "Requests that landed within the last 24 hours.",
                    "sum(increase(gastown_refinery_merge_total{result=\"success\"}[1d]))",
                )
                .leads_to("Merge queue", "gastown-merge-queue"),
                number(
                    "short",
                    "How many polecats work?",
                    "Polecats of phase Working, which have a pod.",
                    "sum(gastown_polecats{phase=\"Working\"})",
                )
                .leads_to("Agents", "gastown-agents"),
                number(
                    "short",
                    "How many are stuck?",
                    "Polecats of phase Stuck: a person is needed.",
                    "sum(gastown_polecats{phase=\"Stuck\"})",
                )
                .red_from(1.0)
                .leads_to("Rig", "gastown-rig"),
                number(
                    "short",
                    "How many problems has nobody looked at?",
                    "Escalations of phase Open. kubectl get escalations -A shows them.",
                    "sum(gastown_escalations_open{phase=\"Open\"})",
                )
                .red_from(1.0)
                .explained("What to do", "runbooks/EscalationUnacknowledged.md"),
                number(
                    "short",
                    "Did anything land that was not tested?",
                    "Landings of another commit than the tested one, since the controllers started. It is 0.",
                    "sum(gastown_refinery_untested_landings_total)",
                )
                .red_from(1.0)
                .explained("What to do", "runbooks/UntestedLanding.md"),
                number(
                    "currencyUSD",
                    "What did today cost?",
                    "Dollars that agents state they cost within the last 24 hours.",
                    "sum(increase(gastown_polecat_cost_usd_total[1d]))",
                )
                .leads_to("Agents", "gastown-agents"),
            ],
            vec![
                graph(
                    "short",
                    "How much lands in an hour?",
                    "Requests that landed within the hour before, by rig.",
                    &[("sum by (rig) (increase(gastown_refinery_merge_total{result=\"success\"}[1h]))", "{{rig}}")],
                )
                .stacked()
                .leads_to("Merge queue", "gastown-merge-queue"),
                graph(
                    "short",
                    "Why does work wait?",
                    "Polecats that are not ready, by the reason of their condition Ready.",
                    &[("sum by (reason) (gastown_polecat_waiting)", "{{reason}}")],
                )
                .stacked()
                .explained("Reasons", "reasons.md"),
            ],
            vec![
                graph(
                    "short",
                    "Are there enough slots?",
                    "Slots in use and slots that the rigs allow (spec.settings.maxPolecats).",
                    &[
                        ("sum by (rig) (gastown_polecat_slots_used)", "{{rig}} in use"),
                        ("sum by (rig) (gastown_polecat_slots)", "{{rig}} allowed"),
                    ],
                )
                .leads_to("Rig", "gastown-rig"),
                graph(
                    "short",
                    "Which problems are open?",
                    "Escalations that are not closed, by severity and by whether somebody looks at them.",
                    &[("sum by (severity, phase) (gastown_escalations_open)", "{{severity}} {{phase}}")],
                )
                .stacked()
                .explained("What to do", "runbooks/EscalationUnacknowledged.md"),
            ],
            vec![
                graph(
                    "currencyUSD",
                    "What does a landed change cost?",
                    "Dollars of all attempts within a day, divided by what landed in it.",
                    &[(
                        "sum by (rig) (increase(gastown_polecat_cost_usd_total[1d])) / (sum by (rig) (increase(gastown_refinery_merge_total{result=\"success\"}[1d])) > 0)",
                        "{{rig}}",
                    )],
                )
                .leads_to("Agents", "gastown-agents"),
                graph(
                    "s",
                    "How long does a change take to merge?",
                    "From the creation of a request until it was on its target branch: half, and nine tenths, of a day's took at most this long.",
                    &[
                        ("histogram_quantile(0.5, sum by (le) (increase(vcs_change_time_to_merge_seconds_bucket[1d])))", "half"),
                        ("histogram_quantile(0.9, sum by (le) (increase(vcs_change_time_to_merge_seconds_bucket[1d])))", "nine tenths"),
                    ],
                )
                .traces(),
            ],
        ],
    )
}
