//! What do agents do, how do their attempts end, and what do they cost?

use super::build::{dashboard, graph, number};
use super::model::Dashboard;

pub fn agents() -> Dashboard {
    dashboard(
        "gastown-agents",
        "Agents",
        "Agents at work: what they do, how their attempts end, tokens and dollars. Tokens and dollars are what they state.",
        true,
        vec![
            vec![
                number(
                    "short",
                    "How many are at work?",
                    "Agents that the last pass of witness-ctl found at work.",
                    "sum(gastown_witness_agents{rig=~\"$rig\"})",
                )
                .leads_to("Rig", "gastown-rig"),
                number(
                    "short",
                    "How many make no progress?",
                    "Agents that are wedged, dead, or wait for a person.",
                    "sum(gastown_witness_agents{rig=~\"$rig\",state!~\"Working|Quiet|Healthy\"})",
                )
                .red_from(1.0)
                .explained("Reasons", "reasons.md"),
                number(
                    "short",
                    "How many streams are open?",
                    "Pods that are connected with witness-ctl, of all rigs.",
                    "sum(gastown_witness_streams)",
                )
                .leads_to("Controllers", "gastown-controllers"),
                number(
                    "currencyUSD",
                    "What did they cost today?",
                    "Dollars of the attempts that ended within the last 24 hours.",
                    "sum(increase(gastown_polecat_cost_usd_total{rig=~\"$rig\"}[1d]))",
                )
                .explained("What to do", "runbooks/CostAboveBudget.md"),
                number(
                    "short",
                    "How much work was lost today?",
                    "Attempts within the last 24 hours whose work, or a part of it, went with the pod.",
                    "sum(increase(gastown_polecat_lost_total{rig=~\"$rig\"}[1d]))",
                )
                .red_from(1.0)
                .explained("What to do", "runbooks/WorkUnsaved.md"),
                number(
                    "short",
                    "How often was work saved beside a branch today?",
                    "Refs with work that is on the remote beside the work branch.",
                    "sum(increase(gastown_polecat_saves_total{rig=~\"$rig\"}[1d]))",
                )
                .search("{ name = \"save\" && resource.service.namespace = \"gastown\" }"),
            ],
            vec![
                graph(
                    "short",
                    "What are they doing?",
                    "Agents at work, by what witness-ctl found: Working, Quiet, WaitingForHuman, Wedged.",
                    &[("sum by (state) (gastown_witness_agents{rig=~\"$rig\"})", "{{state}}")],
                )
                .stacked()
                .search("{ name = \"agent\" && resource.service.namespace = \"gastown\" }"),
                graph(
                    "short",
                    "How do attempts end?",
                    "Attempts that ended within the hour before, by what follows and why.",
                    &[(
                        "sum by (end, reason) (increase(gastown_polecat_attempts_total{rig=~\"$rig\"}[1h]))",
                        "{{end}} {{reason}}",
                    )],
                )
                .stacked()
                .search("{ name = \"attempt\" && resource.service.namespace = \"gastown\" }"),
            ],
            vec![
                graph(
                    "s",
                    "How long does an attempt take?",
                    "From the creation of its pod to its end, of the attempts of six hours.",
                    &[
                        ("histogram_quantile(0.5, sum by (le) (increase(gastown_polecat_attempt_duration_seconds_bucket{rig=~\"$rig\"}[6h])))", "half"),
                        ("histogram_quantile(0.9, sum by (le) (increase(gastown_polecat_attempt_duration_seconds_bucket{rig=~\"$rig\"}[6h])))", "nine tenths"),
                    ],
                )
                .traces(),
                graph(
                    "s",
                    "How long until an agent starts?",
                    "From the creation of a pod until its agent started: scheduling, images, the clone.",
                    &[
                        ("histogram_quantile(0.5, sum by (le) (increase(gastown_polecat_attempt_pending_seconds_bucket{rig=~\"$rig\"}[6h])))", "half"),
                        ("histogram_quantile(0.9, sum by (le) (increase(gastown_polecat_attempt_pending_seconds_bucket{rig=~\"$rig\"}[6h])))", "nine tenths"),
                    ],
                )
                .traces(),
                graph(
                    "short",
                    "How often are they nudged, saved and replaced?",
                    "Nudges, checkpoints and restarts of the hour before, and attempts that another one replaces.",
                    &[
                        ("sum by (command) (increase(gastown_witness_commands_total{rig=~\"$rig\"}[1h]))", "{{command}}"),
                        ("sum(increase(gastown_witness_restarts_total{rig=~\"$rig\"}[1h]))", "restart"),
                        ("sum by (cause) (increase(gastown_polecat_respawns_total{rig=~\"$rig\"}[1h]))", "replaced: {{cause}}"),
                    ],
                )
                .explained("Reasons", "reasons.md"),
            ],
            vec![
                graph(
                    "currencyUSD",
                    "Which model costs what?",
                    "Dollars of the attempts that ended within the hour before, by model.",
                    &[("sum by (model) (increase(gastown_polecat_cost_usd_total{rig=~\"$rig\"}[1h]))", "{{model}}")],
                )
                .stacked()
                .explained("Metrics", "metrics.md"),
                graph(
                    "short",
                    "Which tokens are used?",
                    "Tokens of the attempts that ended within the hour before, by model and type.",
                    &[(
                        "sum by (model, type) (increase(gastown_polecat_tokens_total{rig=~\"$rig\"}[1h]))",
                        "{{model}} {{type}}",
                    )],
                )
                .stacked()
                .explained("Metrics", "metrics.md"),
                graph(
                    "currencyUSD",
                    "Which rig costs what?",
                    "Dollars of the attempts that ended within the day before, by rig.",
                    &[("sum by (rig) (increase(gastown_polecat_cost_usd_total{rig=~\"$rig\"}[1d]))", "{{rig}}")],
                )
                .leads_to("Rig", "gastown-rig"),
            ],
        ],
    )
}
