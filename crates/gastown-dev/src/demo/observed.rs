//! `cargo xtask demo --observe`: the demo's traces and metrics.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_cluster::cluster::Cluster;
use gastown_demo::Report;
use gastown_observe::{Jaeger, Prometheus, problems, tree};

use crate::install;

/// How long the last span of a life may be on its way after everything has landed.
const LAST_SPAN: Duration = Duration::from_mins(1);
/// How often it is looked for.
const INTERVAL: Duration = Duration::from_millis(500);

/// Jaeger and Prometheus beside the demo. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Observed {
    jaeger: Jaeger,
    prometheus: Prometheus,
}

impl Observed {
    /// Starts both on the node of a cluster.
    pub(super) async fn start(cluster: &Cluster) -> Result<Self> {
        let jaeger = Jaeger::start(cluster.address()).await?;
        let prometheus = Prometheus::start(cluster.client().await?, install::NAMESPACE).await?;
        Ok(Self { jaeger, prometheus })
    }

    /// The chart's values with which the controllers export to them.
    pub(super) fn chart_values(&self) -> Vec<String> {
        vec![
            format!("telemetry.otlpEndpoint={}", self.jaeger.otlp()),
            "telemetry.clusterName=demo".to_owned(),
        ]
    }

    /// Where they are, for people.
    pub(super) fn addresses(&self) -> String {
        format!(
            "traces: {}/api/v3/traces/ID (Jaeger's API); metrics: {} (Prometheus)",
            self.jaeger.query(),
            self.prometheus.address()
        )
    }

    /// Prints the trace of the life of a change that was reworked, or of the first one, as Jaeger returns
    /// it, and what Prometheus scrapes. A trace that is not whole is an error.
    pub(super) async fn show(&self, report: &Report) -> Result<()> {
        let reworked = report.changes.iter().find(|change| change.reworks > 0);
        let change = reworked.or(report.changes.first()).context("nothing has landed")?;
        let deadline = Instant::now() + LAST_SPAN;
        let (spans, wrong) = loop {
            let spans = self.jaeger.life(&change.trace_id).await?;
            let wrong = problems(&spans);
            if wrong.is_empty() || Instant::now() > deadline {
                break (spans, wrong);
            }
            tokio::time::sleep(INTERVAL).await;
        };
        let (polecat, trace) = (&change.polecat, &change.trace_id);
        println!("THE LIFE OF {polecat} ({}): trace {trace}\n{}\n", change.bead, tree(&spans));
        if !wrong.is_empty() {
            bail!("trace {trace} of {polecat} is not whole:\n{}", wrong.join("\n"));
        }
        for (labels, up) in self.prometheus.query("sum by (job) (up)").await? {
            let job = labels["job"].as_str().unwrap_or_default();
            println!("{job:<16} {up} scraped by Prometheus");
        }
        println!("{}\n", self.addresses());
        Ok(())
    }
}
