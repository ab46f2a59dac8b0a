//! The lease.

use anyhow::{Result, ensure};
use gastown_runtime::lease;
use gastown_runtime::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::fixture::{fixture, until, within};

#[tokio::test]
async fn the_lease_has_one_holder_and_is_handed_over() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let candidate = |identity: &str| {
        let stop = CancellationToken::new();
        let config = lease::Config::new(&namespace, "gastown-test", identity);
        let (leadership, task) =
            lease::spawn(client.clone(), config, &Metrics::default(), stop.clone());
        (leadership, stop, task)
    };
    let (a, stop, task) = candidate("a");
    let first = within("a acquiring the lease", a.acquired()).await?;
    let (b, ..) = candidate("b");
    until("b seeing a", || (b.holder().as_deref() == Some("a")).then_some(())).await?;
    ensure!(b.held().is_none() && a.held().is_some());
    stop.cancel();
    task.await?;
    ensure!(a.held().is_none());
    ensure!(
        within("b acquiring the lease", b.acquired()).await? == first + 1,
        "the fencing token grows"
    );
    Ok(())
}
