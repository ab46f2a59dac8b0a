//! `gt init`: checks the settings, the credentials and the repository before an agent costs
//! anything, and creates the workspace.

mod contents;
mod in_the_way;
mod layout;
mod restore;
mod stop;

use gastown_core::report::{InitReport, InitResult, VERSION};
use gastown_git::tags::{Tag, write_packed};
use gastown_git::{Class, Git, GitError, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_types::CommitId;

use self::stop::Stop;
use crate::credentials;
use crate::fence;
use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::state::State;
use crate::termination;

/// How often moving the fence is tried.
const FENCE_TRIES: u32 = 5;

/// Where the work begins.
struct Ready {
    /// The target branch's commit.
    base: CommitId,
    /// The work branch's commit on the remote, when the branch is continued.
    head: Option<CommitId>,
}

/// Runs `gt init` and writes the termination message; `true` when the workspace is ready.
pub async fn run(paths: &Paths) -> anyhow::Result<bool> {
    let mut report = match attempt(paths).await {
        Ok(ready) => {
            let (base, head) = (Some(ready.base), ready.head);
            InitReport { v: VERSION, result: InitResult::Ready, message: String::new(), base, head }
        }
        Err(stop) => InitReport {
            v: VERSION,
            result: stop.result,
            message: stop.message,
            base: None,
            head: None,
        },
    };
    let ready = report.result == InitResult::Ready;
    if ready {
        tracing::info!(base = ?report.base, head = ?report.head, "the workspace is ready");
    } else {
        tracing::error!(result = ?report.result, message = report.message, "the work cannot begin");
    }
    termination::write(paths, &mut report)?;
    Ok(ready)
}

async fn attempt(paths: &Paths) -> Result<Ready, Stop> {
    let settings = SyncSettings::from_env()?;
    layout::folders(paths).map_err(Stop::internal)?;
    tempfile::env::override_temp_dir(&paths.private_tmp()).ok();
    let remote = credentials::remote(&settings, paths)?;
    let git = Git::from_env();
    let found = list_refs(&settings, &remote, &git).await?;
    let tools = layout::tools(paths, settings.copy_agent);
    fetch(&settings, paths, &remote, &git, &found).await?;
    check_push(&settings, paths, &remote, &git, &found).await?;
    let saved =
        restore::fetch(&settings, paths, &remote, &git).await.map_err(|e| stop(&settings, &e))?;
    let fence = raise_fence(&settings, paths, &remote, &git, saved.fence.clone()).await?;
    let tags = fetch_tags(&settings, paths, &remote, &git).await?;
    layout::workspace(&settings, paths, &git, &found.base, found.work.as_ref(), &tags)
        .await
        .map_err(Stop::internal)?;
    let start = found.work.as_ref().unwrap_or(&found.base);
    contents::fill(paths, &remote, &git, start).await?;
    layout::share_modules(paths).map_err(Stop::internal)?;
    if settings.restore {
        restore::restore(&settings, paths, &git, &saved).await.map_err(Stop::internal)?;
    }
    tools.map_err(|e| Stop::new(InitResult::Internal, format!("copy the tools: {e}")))?;
    let own = saved.snapshots.get(&settings.who.attempt);
    let state = State {
        base: found.base.clone(),
        start: found.work.clone(),
        work: found.work.clone(),
        adopted: None,
        pushing: None,
        wip: own.or_else(|| saved.newest()).map(|snapshot| snapshot.commit.clone()),
        wip_exists: own.is_some(),
        wip_dirty: own.is_some_and(|snapshot| snapshot.dirty),
        fence: Some(fence),
        moving_fence: None,
    };
    state.save(&paths.state()).map_err(Stop::internal)?;
    Ok(Ready { base: found.base, head: found.work })
}

/// The commits of our refs on the remote.
struct Refs {
    base: CommitId,
    work: Option<CommitId>,
}

async fn list_refs(settings: &SyncSettings, remote: &Remote, git: &Git) -> Result<Refs, Stop> {
    let (target, work) = (settings.target.full(), settings.work.full());
    let mut names = vec![target.clone(), work.clone()];
    names.extend(in_the_way::names(&settings.work));
    let refs = remote.ls_remote(git, &names).await.map_err(|e| stop(settings, &e))?;
    let Some(base) = refs.get(&target).cloned() else {
        return Err(Stop::new(
            InitResult::BranchNotFound,
            format!("{} has no branch {}", settings.url, settings.target),
        ));
    };
    if let Some(other) = in_the_way::found(&settings.work, refs.keys()) {
        let message = format!(
            "the remote has a branch {other}, and beside it there can be no branch {}: delete {other}, \
             or choose another name as spec.kubernetes.workBranch",
            settings.work
        );
        return Err(Stop::new(InitResult::BranchExists, message));
    }
    let work = refs.get(&work).cloned();
    if let Some(there) = work.as_ref().filter(|_| !settings.resume) {
        let message = format!(
            "the branch {} exists on the remote already, at {}, and nothing shows that it is this \
             polecat's; delete it, choose another, or set spec.kubernetes.resumeBranch",
            settings.work,
            there.short()
        );
        return Err(Stop::new(InitResult::BranchExists, message));
    }
    Ok(Refs { base, work })
}

/// Fetches the target branch, and a work branch that is continued, into `upstream.git`.
async fn fetch(
    settings: &SyncSettings,
    paths: &Paths,
    remote: &Remote,
    git: &Git,
    found: &Refs,
) -> Result<(), Stop> {
    layout::repositories(paths, git, found.base.as_str().len() == 64)
        .await
        .map_err(Stop::internal)?;
    let mut refspecs = vec![format!("+{0}:{0}", settings.target.full())];
    if found.work.is_some() {
        refspecs.push(format!("+{}:{}", settings.work.full(), layout::RESUMED));
    }
    remote.fetch(git, &paths.upstream_repo(), &refspecs).await.map_err(|e| stop(settings, &e))?;
    // The branches may have moved since they were listed; the listed commits must be here anyway.
    for commit in std::iter::once(&found.base).chain(found.work.as_ref()) {
        let check = git
            .call(["cat-file", "-e", &format!("{commit}^{{commit}}")])
            .repo(&paths.upstream_repo())
            .output()
            .await;
        check.map_err(|_| {
            Stop::new(InitResult::RemoteUnreachable, "a branch was rewritten while it was fetched")
        })?;
    }
    Ok(())
}

/// Fetches the tags that lead into the fetched history into `upstream.git`.
async fn fetch_tags(
    settings: &SyncSettings,
    paths: &Paths,
    remote: &Remote,
    git: &Git,
) -> Result<Vec<Tag>, Stop> {
    let upstream = paths.upstream_repo();
    let listed = remote.ls_tags(git, layout::TAGS).await.map_err(|e| stop(settings, &e))?;
    let tags = remote.fetch_tags(git, &upstream, listed).await.map_err(|e| stop(settings, &e))?;
    write_packed(&upstream, layout::TAGS, &tags).map_err(Stop::internal)?;
    Ok(tags)
}

/// Checks by a dry run whether the remote accepts a push of our branch.
async fn check_push(
    settings: &SyncSettings,
    paths: &Paths,
    remote: &Remote,
    git: &Git,
    found: &Refs,
) -> Result<(), Stop> {
    let new = Some(found.work.clone().unwrap_or_else(|| found.base.clone()));
    let update = RefUpdate { name: settings.work.full(), expected: found.work.clone(), new };
    let outcomes =
        remote.push_dry_run(git, &paths.private_repo(), &[update]).await.map_err(|e| {
            match e.class {
                // The remote has just accepted the credentials for reading.
                Class::AuthFailed | Class::PermissionDenied | Class::RepositoryNotFound => {
                    Stop::new(
                        InitResult::PushDenied,
                        format!("{} allows reading but no push: {}", settings.url, e.detail),
                    )
                }
                _ => stop(settings, &e),
            }
        })?;
    match outcomes.into_iter().next() {
        Some(PushOutcome::Rejected(Refusal::Stale, message)) => Err(Stop::new(
            InitResult::BranchExists,
            format!("the branch {} moved while it was checked: {message}", settings.work),
        )),
        Some(PushOutcome::Rejected(_, message)) => Err(Stop::new(InitResult::PushDenied, message)),
        _ => Ok(()),
    }
}

/// Moves the fence to this attempt: a pod of an earlier one that still runs cannot push any more. It
/// also shows, before an agent is paid, that the remote takes the refs under which work is saved.
async fn raise_fence(
    settings: &SyncSettings,
    paths: &Paths,
    remote: &Remote,
    git: &Git,
    mut there: Option<CommitId>,
) -> Result<CommitId, Stop> {
    let name = fence::name(settings);
    let mut last = String::new();
    for _ in 0..FENCE_TRIES {
        let next = fence::next(&paths.private_repo(), settings, there.as_ref())
            .map_err(|e| Stop::new(InitResult::Internal, e.message))?;
        let update =
            RefUpdate { name: name.clone(), expected: there.clone(), new: Some(next.clone()) };
        let outcomes = remote
            .push(git, &paths.private_repo(), &[update])
            .await
            .map_err(|e| stop(settings, &e))?;
        match outcomes.into_iter().next() {
            Some(PushOutcome::Done | PushOutcome::UpToDate) => return Ok(next),
            // A pod that is about to lose the branch has just pushed to it.
            Some(PushOutcome::Rejected(Refusal::Stale | Refusal::Locked, message)) => {
                last = message;
                let names = std::slice::from_ref(&name);
                let refs = remote.ls_remote(git, names).await.map_err(|e| stop(settings, &e))?;
                there = refs.get(&name).cloned();
            }
            Some(PushOutcome::Rejected(_, message)) => {
                let message = format!(
                    "the remote refuses the ref {name}, below which work is saved that is not on \
                     the work branch: {message}; allow pushes to refs/gastown/*"
                );
                return Err(Stop::new(InitResult::PushDenied, message));
            }
            None => return Err(Stop::internal("git reported no result of the push")),
        }
    }
    Err(Stop::new(
        InitResult::RemoteUnreachable,
        format!("{name} moves all the time; another pod of this Polecat is at work: {last}"),
    ))
}

/// The result for a git error, and what to change.
fn stop(settings: &SyncSettings, e: &GitError) -> Stop {
    let secret =
        settings.secret.as_ref().map_or_else(|| "no secret".to_owned(), |s| format!("secret {s}"));
    let (result, hint) = match e.class {
        Class::AuthFailed | Class::PermissionDenied | Class::BadCredentials => {
            (InitResult::BadCredentials, format!(" [{secret}]"))
        }
        Class::UnknownHostKey => {
            let hint = "; add the host's key to the configmap of spec.kubernetes.sshKnownHostsConfigMapRef, or as known_hosts to the secret";
            (InitResult::UnknownHostKey, hint.to_owned())
        }
        Class::HostKeyMismatch => (InitResult::HostKeyMismatch, String::new()),
        Class::RepositoryNotFound => (InitResult::RepositoryNotFound, String::new()),
        Class::RefNotFound => (InitResult::BranchNotFound, String::new()),
        Class::Unreachable if e.detail.contains("certificate") => {
            let hint = "; add the authority's certificate as ca.crt to the secret, or name it in spec.kubernetes.caConfigMapRef";
            (InitResult::RemoteUnreachable, hint.to_owned())
        }
        Class::Unreachable | Class::Timeout => (InitResult::RemoteUnreachable, String::new()),
        Class::Rejected(Refusal::Http(_)) => (InitResult::RemoteRefused, String::new()),
        Class::Rejected(_) => (InitResult::PushDenied, String::new()),
        Class::Corrupt | Class::TooMuchOutput | Class::MissingProgram | Class::Local => {
            (InitResult::Internal, String::new())
        }
    };
    Stop::new(result, format!("{e}{hint}"))
}
