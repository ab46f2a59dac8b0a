//! The demo's servers in one process: a git server, the scripted Messages API and a receiver of
//! webhooks.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use gastown_fakes::git_http;
use gastown_fakes::hooks;
use gastown_fakes::messages;
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(about, version)]
struct Args {
    /// The folder of the bare repositories; made when it is not there.
    #[arg(long, env = "GASTOWN_DEMO_DIR", default_value = "/data")]
    dir: PathBuf,
    /// Where git is served.
    #[arg(long, env = "GASTOWN_DEMO_GIT", default_value = "0.0.0.0:8080")]
    git: SocketAddr,
    /// Where the Messages API is served.
    #[arg(long, env = "GASTOWN_DEMO_MESSAGES", default_value = "0.0.0.0:8081")]
    messages: SocketAddr,
    /// Where webhooks are received.
    #[arg(long, env = "GASTOWN_DEMO_HOOKS", default_value = "0.0.0.0:8082")]
    hooks: SocketAddr,
    /// The API key that clients of the Messages API must show; any when absent.
    #[arg(long, env = "GASTOWN_DEMO_API_KEY")]
    api_key: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("making {}", args.dir.display()))?;
    let git =
        TcpListener::bind(args.git).await.with_context(|| format!("listening on {}", args.git))?;
    let api = TcpListener::bind(args.messages)
        .await
        .with_context(|| format!("listening on {}", args.messages))?;
    let received = TcpListener::bind(args.hooks)
        .await
        .with_context(|| format!("listening on {}", args.hooks))?;
    let git_router = git_http::router(git_http::Config { dir: args.dir, login: None });
    let api_router = messages::router(args.api_key);
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = async { axum::serve(git, git_router).await } => ended.context("the git server")?,
        ended = async { axum::serve(api, api_router).await } => ended.context("the Messages API")?,
        ended = async { axum::serve(received, hooks::router()).await } => ended.context("the receiver of webhooks")?,
        _ = term.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
