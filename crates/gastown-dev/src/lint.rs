//! `cargo xtask lint`: every check of the tree that runs none of it.

mod imports;
mod links;
mod named_tests;
mod skeleton;
mod words;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use xtask::cli::{GenArgs, LintArgs};

use crate::util;

/// Runs every check and stops at the first that fails.
pub async fn run(args: &LintArgs) -> Result<()> {
    step("rustfmt");
    let mut fmt = util::cargo();
    fmt.args(["fmt", "--all"]);
    if !args.fix {
        fmt.arg("--check");
    }
    util::run(&mut fmt)?;
    step("generated files");
    crate::generate::run(&GenArgs { check: !args.fix, baseline: false })?;
    step("tiers of tests");
    tiers()?;
    let listed =
        util::output(Command::new("git").args(["ls-files", "-z"]).current_dir(util::root()))?;
    let listed: Vec<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    step("files of each controller");
    skeleton::check(&util::root())?;
    step("circles of imports");
    imports::check(&util::root())?;
    step("baselines");
    crate::compat::check(&util::root())?;
    step("words");
    words::check(&util::root(), &listed)?;
    step("links of Markdown files");
    links::check(&util::root(), &listed)?;
    step("tests that documents name");
    named_tests::check(&util::root(), &listed)?;
    step("clippy");
    util::run(util::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    step("rustdoc");
    util::run(
        util::cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    step("cargo-machete");
    machete()?;
    step("cargo-deny");
    deny()?;
    step("advisories");
    advisories()?;
    step("shellcheck");
    shellcheck(&listed)?;
    step("helm lint");
    helm_lint().await?;
    println!("lint: all checks passed");
    Ok(())
}

fn step(name: &str) {
    println!("lint: {name}");
}

/// Every test program has the name of a tier: `cargo xtask test` would run no other one, and nobody
/// would notice.
fn tiers() -> Result<()> {
    let listed = util::output(util::cargo().args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--locked",
    ]))?;
    let listed: serde_json::Value =
        serde_json::from_str(&listed).context("reading cargo metadata")?;
    let targets = listed["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|p| p["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|t| {
        t["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    });
    let named = |t: &&serde_json::Value| {
        t["name"].as_str().is_some_and(|name| crate::test::PROGRAMS.contains(&name))
    };
    let strays: Vec<&str> =
        tests.filter(|t| !named(t)).filter_map(|t| t["src_path"].as_str()).collect();
    ensure!(
        strays.is_empty(),
        "tests of no tier, which nothing would run: {}; name them {}",
        strays.join(", "),
        crate::test::PROGRAMS.join(", ")
    );
    Ok(())
}

/// Installs a tool of cargo's when it is not on the path.
fn need_cargo_tool(name: &str) -> Result<()> {
    if util::has(name) {
        return Ok(());
    }
    println!("installing {name} (cargo install {name} --locked)");
    // Away from the workspace, so that its target and flags do not apply.
    util::run(util::cargo().current_dir("/").args(["install", name, "--locked", "--quiet"]))
}

/// Dependencies that no source file names.
fn machete() -> Result<()> {
    need_cargo_tool("cargo-machete")?;
    // With that variable, which `cargo run` sets, it does not see that cargo started it.
    util::run(util::cargo().args(["machete", "--skip-target-dir"]).env_remove("CARGO_PKG_NAME"))
}

/// Bans, licences and sources.
fn deny() -> Result<()> {
    need_cargo_tool("cargo-deny")?;
    // The whole graph is read, crates of other platforms too, which no build of ours has fetched.
    util::run(util::cargo().args(["fetch", "--locked", "--quiet"]))?;
    util::run(util::cargo().args([
        "deny",
        "--offline",
        "--log-level",
        "warn",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// The database of advisories.
const ADVISORIES: &str = "https://github.com/RustSec/advisory-db";
/// The variable with another place of it: a folder or a URL of a git repository.
const OTHER_ADVISORIES: &str = "GASTOWN_ADVISORY_DB";

/// Known faults of our dependencies. A closed network may have no database: then this states that nothing
/// was checked.
fn advisories() -> Result<()> {
    let other = std::env::var(OTHER_ADVISORIES).ok().filter(|place| !place.is_empty());
    let database = other.as_deref().unwrap_or(ADVISORIES);
    if let Err(error) = reach(database) {
        ensure!(other.is_none(), "{OTHER_ADVISORIES}: {error:#}");
        let why = error.to_string().lines().last().unwrap_or_default().to_owned();
        println!(
            "lint: advisories are not checked: {ADVISORIES} cannot be reached ({why}); {OTHER_ADVISORIES} may name a copy"
        );
        return Ok(());
    }
    need_cargo_tool("cargo-deny")?;
    let mut deny = util::cargo();
    deny.args(["deny", "--log-level", "warn", "check", "advisories"]);
    if let Some(other) = other {
        // cargo-deny fetches with git, which takes it from there instead.
        deny.env("GIT_CONFIG_COUNT", "1");
        deny.env("GIT_CONFIG_KEY_0", format!("url.{other}.insteadOf"));
        deny.env("GIT_CONFIG_VALUE_0", ADVISORIES);
    }
    util::run(&mut deny)
}

/// Whether git reads a repository, without a question and within half a minute.
fn reach(repository: &str) -> Result<()> {
    let mut git = Command::new("timeout");
    git.args(["30", "git", "ls-remote", "--exit-code", repository, "HEAD"]);
    util::output(git.env("GIT_TERMINAL_PROMPT", "0")).map(drop)
}

fn shellcheck(listed: &[&str]) -> Result<()> {
    util::need_debian(&[("shellcheck", "shellcheck")])?;
    let is_script = |name: &&&str| {
        let text = std::fs::read(util::root().join(name)).unwrap_or_default();
        text.starts_with(b"#!/bin/sh")
            || text.starts_with(b"#!/bin/bash")
            || text.starts_with(b"#!/usr/bin/env bash")
    };
    let scripts: Vec<&&str> = listed.iter().filter(is_script).collect();
    if scripts.is_empty() {
        return Ok(());
    }
    util::run(Command::new("shellcheck").args(&scripts).current_dir(util::root()))
}

async fn helm_lint() -> Result<()> {
    let helm = gastown_cluster::toolchain::helm().await.context("finding helm")?;
    util::run(
        Command::new(helm)
            .args(["lint", "--strict", "charts/gastown-operator"])
            .current_dir(util::root()),
    )
}
