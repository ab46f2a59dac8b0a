//! The servers of this crate, driven by the real clients: git and Claude Code.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on ends here

use std::path::Path;
use std::process::{Command, Output};

use gastown_cluster::agents;
use gastown_cluster::http_client;
use gastown_demo::{Plan, PlanFile};
use gastown_fakes::git_http::{Config, GitHttp};
use gastown_fakes::messages::{Attempt, MessagesApi, Script, Step};
use http::Method;
use tempfile::TempDir;

fn git(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "A Person")
            .env(format!("GIT_{role}_EMAIL"), "person@example.com");
    }
    command.args(args).output().expect("git runs")
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let out = git(dir, args);
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let out = git(dir, args);
    assert!(!out.status.success(), "git {args:?} did not fail");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A clone with one commit on `main` that is pushed.
fn seeded(url: &str) -> TempDir {
    let dir = TempDir::new().expect("a folder");
    ok(dir.path(), &["init", "-q", "-b", "main"]);
    std::fs::write(dir.path().join("a"), "1\n").expect("a file");
    ok(dir.path(), &["add", "-A"]);
    ok(dir.path(), &["commit", "-qm", "first"]);
    ok(dir.path(), &["remote", "add", "origin", url]);
    ok(dir.path(), &["push", "-q", "origin", "main"]);
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_pushed_cloned_moved_back_and_deleted() {
    let dir = TempDir::new().unwrap();
    let server = GitHttp::start(dir.path()).await.unwrap();
    http_client::send(Method::PUT, &format!("{}/admin/repos/web", server.url()), Vec::new())
        .await
        .unwrap();
    let work = seeded(&server.repository("web"));
    // Larger than git's post buffer, so that the request is chunked.
    let noise: Vec<u8> =
        (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(work.path().join("big"), noise).unwrap();
    ok(work.path(), &["add", "-A"]);
    ok(work.path(), &["commit", "-qm", "big"]);
    ok(work.path(), &["push", "-q", "origin", "HEAD:refs/heads/topic"]);
    let head = ok(work.path(), &["rev-parse", "HEAD"]);
    let clone = TempDir::new().unwrap();
    ok(clone.path(), &["clone", "-q", "--branch", "topic", &server.repository("web"), "."]);
    assert_eq!(ok(clone.path(), &["rev-parse", "HEAD"]), head);
    ok(work.path(), &["push", "-q", "-f", "origin", "HEAD~1:refs/heads/topic"]);
    ok(work.path(), &["push", "-q", "origin", ":refs/heads/topic"]);
    let before = (server.requests(), server.sessions());
    assert_eq!(ok(work.path(), &["ls-remote", "origin", "refs/heads/topic"]), "");
    assert_eq!(
        (server.requests() - before.0, server.sessions() - before.1),
        (2, 1),
        "which protocol, and which refs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_repository_and_a_protected_branch_are_refused() {
    let dir = TempDir::new().unwrap();
    let server = GitHttp::start(dir.path()).await.unwrap();
    server.create("web").await.unwrap();
    let work = seeded(&server.repository("web"));
    assert!(
        refused(work.path(), &["ls-remote", &server.repository("other")]).contains("not found")
    );
    server.refuse("web", &["refs/heads/main"]).unwrap();
    ok(work.path(), &["commit", "-q", "--allow-empty", "-m", "more"]);
    assert!(refused(work.path(), &["push", "origin", "HEAD:main"]).contains("hook declined"));
    ok(work.path(), &["push", "-q", "origin", "HEAD:other"]);
    server.refuse("web", &[]).unwrap();
    ok(work.path(), &["push", "-q", "origin", "HEAD:main"]);
    assert!(server.create("../up").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_requires_its_login_and_can_be_stopped_and_started() {
    let dir = TempDir::new().unwrap();
    let login = Some(("me".to_owned(), "secret".to_owned()));
    let mut server =
        GitHttp::start_with(Config { dir: dir.path().to_owned(), login }).await.unwrap();
    server.create("web").await.unwrap();
    let with = server.repository("web").replace("http://", "http://me:secret@");
    let work = seeded(&with);
    refused(work.path(), &["ls-remote", &server.repository("web")]);
    refused(work.path(), &["ls-remote", &with.replace("secret", "guess")]);
    server.down().await;
    let output = refused(work.path(), &["ls-remote", "origin"]);
    assert!(output.contains("Failed to connect") || output.contains("refused"), "{output}");
    server.up().await.unwrap();
    assert!(ok(work.path(), &["ls-remote", "origin"]).contains("refs/heads/main"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_fail_fsck_are_refused() {
    let dir = TempDir::new().unwrap();
    let server = GitHttp::start(dir.path()).await.unwrap();
    server.create("web").await.unwrap();
    let work = seeded(&server.repository("web"));
    let tree = ok(work.path(), &["rev-parse", "HEAD^{tree}"]);
    let bad = work.path().join("bad");
    std::fs::write(&bad, format!("tree {tree}\nauthor nobody\ncommitter nobody\n\nbad\n")).unwrap();
    let id = ok(work.path(), &["hash-object", "-t", "commit", "-w", "--literally", "bad"]);
    let output = refused(work.path(), &["push", "origin", &format!("{id}:refs/heads/bad")]);
    assert!(output.contains("fsck") || output.contains("unpacker error"), "{output}");
}

/// Runs the real agent on a prompt, in an empty repository, and returns the folder and what the
/// agent printed.
async fn claude(api: &MessagesApi, key: &str, prompt: &str) -> (TempDir, Vec<serde_json::Value>) {
    let home = TempDir::new().unwrap();
    let repo = home.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    ok(&repo, &["init", "-q", "-b", "main"]);
    ok(&repo, &["commit", "-q", "--allow-empty", "-m", "first"]);
    let lines = claude_in(home.path(), &repo, api, key, prompt).await;
    (home, lines)
}

/// Runs the real agent on a prompt in a repository and returns what it printed.
async fn claude_in(
    home: &Path,
    repo: &Path,
    api: &MessagesApi,
    key: &str,
    prompt: &str,
) -> Vec<serde_json::Value> {
    let program = agents::claude_code().await.expect("Claude Code");
    let mut command = tokio::process::Command::new(program);
    command
        .current_dir(repo)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home);
    command
        .env("ANTHROPIC_BASE_URL", api.url())
        .env("ANTHROPIC_API_KEY", key)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    // Else it would ask ten times, with pauses that double, before it reports a refusal.
    command.env("CLAUDE_CODE_MAX_RETRIES", "1");
    command.env("GIT_AUTHOR_NAME", "A Person").env("GIT_AUTHOR_EMAIL", "person@example.com");
    command.env("GIT_COMMITTER_NAME", "A Person").env("GIT_COMMITTER_EMAIL", "person@example.com");
    // It refuses to skip permission prompts as root; a test runs as anybody, so the one tool is
    // allowed by name.
    command.args([
        "-p",
        prompt,
        "--output-format",
        "stream-json",
        "--verbose",
        "--allowedTools",
        "Bash",
    ]);
    let deadline = std::time::Duration::from_mins(2);
    let out = tokio::time::timeout(deadline, command.kill_on_drop(true).output())
        .await
        .expect("Claude Code ends")
        .unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect()
}

fn script() -> Vec<Script> {
    let commit = "cat >note <<'END_OF_NOTE'\nit's $HOME\nEND_OF_NOTE\ngit add -A && git commit -qm 'Add a note'";
    let fix = "echo better >note && git add -A && git commit -qm 'Fix the note'";
    let step = |bash: &str| Step::bash(bash);
    let first = Attempt {
        prompt_contains: None,
        steps: vec![step(commit), step("git status --short")],
        text: "Done.".to_owned(),
    };
    let evidence = Some("assert 3 == 2.5".to_owned());
    let second =
        Attempt { prompt_contains: evidence, steps: vec![step(fix)], text: "Fixed.".to_owned() };
    vec![Script { key: "Change: note".to_owned(), attempts: vec![first, second] }]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_agent_runs_a_script() {
    let api = MessagesApi::start(script(), Some("k".to_owned())).await.unwrap();
    let (home, lines) = claude(&api, "k", "Write a note.\n\nChange: note\n").await;
    let repo = home.path().join("repo");
    let last = lines.last().expect("it printed its stream");
    assert_eq!(
        (&last["type"], &last["is_error"], &last["result"]),
        (&"result".into(), &false.into(), &"Done.".into()),
        "{lines:#?}"
    );
    assert_eq!(ok(&repo, &["log", "-1", "--format=%s"]), "Add a note");
    assert_eq!(ok(&repo, &["show", "HEAD:note"]), "it's $HOME");
    let turns: Vec<(usize, bool)> =
        api.log().iter().filter(|e| e.key.is_some()).map(|e| (e.step, e.called)).collect();
    assert_eq!(turns, [(0, true), (1, true), (2, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_agent_reworks_only_with_the_evidence() {
    let api = MessagesApi::start(script(), None).await.unwrap();
    let (home, _) = claude(&api, "any", "Change: note\n\n## Rework\nE   assert 3 == 2.5\n").await;
    assert_eq!(ok(&home.path().join("repo"), &["log", "-1", "--format=%s"]), "Fix the note");
    assert!(api.log().iter().any(|e| e.attempt == Some(2) && e.evidence));
    let (home, _) = claude(&api, "any", "Change: note\n\n## Rework\nIt did not work.\n").await;
    assert_eq!(ok(&home.path().join("repo"), &["log", "-1", "--format=%s"]), "first");
    assert!(api.log().iter().any(|e| e.key.is_some() && e.attempt.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_an_error_of_the_agent() {
    let api = MessagesApi::start(script(), Some("k".to_owned())).await.unwrap();
    let (_, lines) = claude(&api, "other", "Change: note").await;
    assert_eq!(lines.last().expect("its stream")["is_error"], true, "{lines:#?}");
    assert!(api.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_agent_makes_every_change_of_the_default_project() {
    let plan = Plan::default_project().await.unwrap();
    let api = MessagesApi::start(plan.scripts(), None).await.unwrap();
    for change in &plan.changes {
        let home = TempDir::new().unwrap();
        let repo = home.path().join("repo");
        ok(home.path(), &["clone", "-q", plan.path().to_str().unwrap(), "repo"]);
        ok(&repo, &["checkout", "-q", "-B", "work", &plan.base]);
        let mut prompt = format!("{}\n\n{}", change.title, change.description());
        if change.mute_first {
            prompt.push_str("\n# The attempt before\n\nIt fell silent.\n");
        }
        for (number, attempt) in change.tries.iter().enumerate() {
            if let Some(evidence) = &attempt.evidence {
                prompt = format!("{prompt}\n## Rework\nThe gate failed:\nE   {evidence}\n");
            }
            let lines = claude_in(home.path(), &repo, &api, "any", &prompt).await;
            assert_eq!(
                ok(&repo, &["log", "-1", "--format=%B"]),
                attempt.message,
                "{}/{number}: {lines:#?}",
                change.bead
            );
            assert_eq!(ok(&repo, &["status", "--porcelain"]), "");
        }
        assert_eq!(
            ok(&repo, &["rev-parse", "HEAD^{tree}"]),
            ok(&plan.path(), &["rev-parse", &format!("{}^{{tree}}", change.commit)])
        );
    }
    assert_eq!(
        api.log().iter().filter(|e| e.evidence && e.called).count(),
        2,
        "one change is reworked, one begun again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commands_second_run_changes_nothing() {
    let plan = Plan::default_project().await.unwrap();
    let script = &plan.scripts()[0];
    let repo = plan.path();
    ok(&repo, &["checkout", "-q", "-B", "work", &plan.base]);
    let run = || {
        let mut command = Command::new("bash");
        command
            .current_dir(&repo)
            .env("GIT_AUTHOR_NAME", "A")
            .env("GIT_AUTHOR_EMAIL", "a@example.com");
        command.env("GIT_COMMITTER_NAME", "A").env("GIT_COMMITTER_EMAIL", "a@example.com");
        let out = command.arg("-c").arg(&script.attempts[0].steps[0].bash).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        ok(&repo, &["rev-parse", "HEAD"])
    };
    assert_eq!(run(), run());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_a_real_repository_make_its_tree() {
    let Some(data) = gastown_fakes::outside_data("boltons") else { return };
    let plan = Plan::load(data.join("boltons.bundle").to_str().unwrap(), &data.join("replay.json"))
        .await
        .unwrap();
    let file: PlanFile =
        serde_json::from_slice(&std::fs::read(data.join("replay.json")).unwrap()).unwrap();
    let work = TempDir::new().unwrap();
    ok(work.path(), &["clone", "-q", plan.path().to_str().unwrap(), "."]);
    ok(work.path(), &["checkout", "-q", "-B", "work", &plan.base]);
    for script in plan.scripts() {
        let mut command = Command::new("bash");
        command
            .current_dir(work.path())
            .env("GIT_AUTHOR_NAME", "A")
            .env("GIT_AUTHOR_EMAIL", "a@example.com");
        command.env("GIT_COMMITTER_NAME", "A").env("GIT_COMMITTER_EMAIL", "a@example.com");
        let out = command.arg("-c").arg(&script.attempts[0].steps[0].bash).output().unwrap();
        assert!(out.status.success(), "{}: {}", script.key, String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(Some(ok(work.path(), &["rev-parse", "HEAD^{tree}"])), file.tip_tree);
}
