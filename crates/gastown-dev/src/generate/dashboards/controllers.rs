//! Are the controllers themselves well?

use super::build::{dashboard, graph, number};
use super::model::Dashboard;

pub fn controllers() -> Dashboard {
    dashboard(
        "gastown-controllers",
        "Controllers",
        "The six controllers: their replicas and shards, their work, their calls, their memory. The label job is the controller.",
        false,
        vec![
            vec![
                number(
                    "short",
                    "How many replicas run?",
                    "Processes of all controllers.",
                    "count(gastown_build_info)",
                )
                .explained("Scaling", "scaling.md"),
                number(
                    "short",
                    "Is every shard worked on?",
                    "The least number of shards that the replicas of a controller work on, of 16.",
                    "min(sum by (job) (gastown_shards_held))",
                )
                .red_below(16.0)
                .explained("What to do", "runbooks/ShardWithoutHolder.md"),
                number(
                    "short",
                    "How many versions run?",
                    "More than one while an upgrade is under way.",
                    "count(count by (version) (gastown_build_info))",
                )
                .explained("Upgrades", "upgrade.md"),
                number(
                    "dateTimeFromNow",
                    "When does the first certificate end?",
                    "The end of the certificate of the gRPC and git servers.",
                    "min(gastown_tls_certificate_expiry_timestamp_seconds) * 1000",
                )
                .explained("What to do", "runbooks/CertificateNearItsEnd.md"),
                number(
                    "short",
                    "Can all objects be read?",
                    "Objects that cannot be decoded and are skipped.",
                    "sum(max by (job, kind) (gastown_undecodable_objects))",
                )
                .red_from(1.0)
                .explained("Debugging", "debugging.md"),
                number(
                    "short",
                    "Was telemetry lost in the last hour?",
                    "Records that were dropped, or that the collector did not take.",
                    "sum(increase(gastown_telemetry_records_total{result!=\"sent\"}[1h]))",
                )
                .red_from(1.0)
                .explained("Observability", "observability.md"),
            ],
            vec![
                graph(
                    "reqps",
                    "How much do they reconcile?",
                    "Finished reconciles in a second, by kind and result.",
                    &[(
                        "sum by (controller, result) (rate(gastown_reconcile_total[$__rate_interval]))",
                        "{{controller}} {{result}}",
                    )],
                )
                .stacked()
                .search("{ name = \"reconcile\" }"),
                graph(
                    "s",
                    "How long does a reconcile take?",
                    "Ninety-nine of a hundred took at most this long.",
                    &[(
                        "histogram_quantile(0.99, sum by (le, controller) (rate(gastown_reconcile_duration_seconds_bucket[$__rate_interval])))",
                        "{{controller}}",
                    )],
                )
                .search("{ name = \"reconcile\" && duration > 1s }"),
            ],
            vec![
                graph(
                    "reqps",
                    "What do they ask the API server?",
                    "Requests in a second, by controller and verb.",
                    &[(
                        "sum by (job, verb) (rate(gastown_kube_requests_total[$__rate_interval]))",
                        "{{job}} {{verb}}",
                    )],
                )
                .stacked()
                .explained("Benchmarks", "benchmarks.md"),
                graph(
                    "reqps",
                    "Which of their requests fail?",
                    "Requests to the API server in a second that did not succeed, by status, and those that were sent again.",
                    &[
                        ("sum by (job, code) (rate(gastown_kube_requests_total{code!~\"2..|101\"}[$__rate_interval]))", "{{job}} {{code}}"),
                        ("sum by (job) (rate(gastown_kube_request_retries_total[$__rate_interval]))", "{{job}} sent again"),
                        ("sum by (job) (rate(gastown_watch_errors_total[$__rate_interval]))", "{{job}} watches"),
                    ],
                )
                .explained("Debugging", "debugging.md"),
                graph(
                    "s",
                    "How fast does the API server answer?",
                    "Ninety-nine of a hundred requests took at most this long, retries included.",
                    &[(
                        "histogram_quantile(0.99, sum by (le, job) (rate(gastown_kube_request_duration_seconds_bucket[$__rate_interval])))",
                        "{{job}}",
                    )],
                )
                .explained("Scaling", "scaling.md"),
            ],
            vec![
                graph(
                    "reqps",
                    "What do they ask each other?",
                    "gRPC calls in a second, by method and status, as their servers count them.",
                    &[(
                        "sum by (method, code) (rate(gastown_grpc_server_calls_total[$__rate_interval]))",
                        "{{method}} {{code}}",
                    )],
                )
                .stacked()
                .search("{ name =~ \"gastown.*\" && kind = server }"),
                graph(
                    "s",
                    "How fast do they answer each other?",
                    "Ninety-nine of a hundred calls took at most this long, for the caller and at the server.",
                    &[
                        ("histogram_quantile(0.99, sum by (le, method) (rate(gastown_grpc_client_call_duration_seconds_bucket[$__rate_interval])))", "{{method}} for the caller"),
                        ("histogram_quantile(0.99, sum by (le, method) (rate(gastown_grpc_server_call_duration_seconds_bucket[$__rate_interval])))", "{{method}} at the server"),
                    ],
                )
                .search("{ name =~ \"gastown.*\" && kind = client }"),
            ],
            vec![
                graph(
                    "short",
                    "Which replica works on how many shards?",
                    "Of the 16 shards into which rigs are divided, by replica.",
                    &[("sum by (job, instance) (gastown_shards_held)", "{{job}} {{instance}}")],
                )
                .stacked()
                .explained("Scaling", "scaling.md"),
                graph(
                    "s",
                    "How long does a hand-over take?",
                    "From when nothing new began on a shard until it was another's to take: the slowest tenth of an hour's took longer.",
                    &[(
                        "histogram_quantile(0.9, sum by (le, job) (increase(gastown_shard_handover_seconds_bucket[1h])))",
                        "{{job}}",
                    )],
                )
                .explained("Scaling", "scaling.md"),
                graph(
                    "bytes",
                    "How much memory do they use?",
                    "Memory of each process that is in RAM.",
                    &[("process_resident_memory_bytes{job=~\".*-ctl\"}", "{{job}} {{instance}}")],
                )
                .explained("Scaling", "scaling.md"),
                graph(
                    "short",
                    "How much CPU do they use?",
                    "Cores that each process used.",
                    &[("rate(process_cpu_seconds_total{job=~\".*-ctl\"}[$__rate_interval])", "{{job}} {{instance}}")],
                )
                .explained("Benchmarks", "benchmarks.md"),
            ],
        ],
    )
}
