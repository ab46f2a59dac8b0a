//! What a life asks of the API server, in a crowd on nodes of kwok, is no more than what is committed.

use anyhow::Result;
use e2e::environment::xtask;

/// The crowd that the committed table is of.
const CROWD: [&str; 11] = [
    "bench",
    "fleet",
    "--polecats",
    "200",
    "--rigs",
    "4",
    "--spread",
    "20",
    "--phases",
    "burst,ends,delete",
    "--check",
];

pub async fn costs_no_more() -> Result<()> {
    xtask(&CROWD).await
}
