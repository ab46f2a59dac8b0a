//! The one place through which a store is read and written: one at a time for each, in one mirror a repository.
//!
//! A write is made on the newest tips, pushed by compare-and-swap, and made anew when somebody else was first; so any
//! replica may write, and none loses what another wrote.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_access::reason_of;
use gastown_git::files::Replacement;
use gastown_git::{Class, Git, GitError, Mirror, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_names::{BranchName, CommitId, GitUrl};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::folder::{self, Lack};
use crate::ledger::COMMITTER;
use crate::place::Setting;
use crate::plan::Deed;
use crate::view::{Applied, Tips, View};

/// How often a write is made anew when others push between.
const TRIES: u32 = 6;

/// Why a store could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The remote, or git here.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The repository holds no beads that may be read.
    #[error(transparent)]
    Lack(#[from] Lack),
    /// It may not be written: a condition's reason and message.
    #[error("{0}: {1}")]
    NotWritable(String, String),
    /// The remote refuses the push.
    #[error("the remote refuses the push to {branch}: {message}")]
    Refused {
        /// The branch.
        branch: BranchName,
        /// The remote's words.
        message: String,
    },
    /// Others pushed first, again and again.
    #[error("others pushed to {0} first, {TRIES} times in a row")]
    Contended(BranchName),
}

impl From<folder::Error> for Fault {
    fn from(error: folder::Error) -> Self {
        match error {
            folder::Error::Lack(lack) => Self::Lack(lack),
            folder::Error::Git(error) => Self::Git(error),
        }
    }
}

impl Fault {
    /// The condition's reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Git(error) => reason_of(error.class),
            Self::Lack(lack) => lack.reason,
            Self::NotWritable(reason, _) => reason,
            Self::Refused { .. } => "PushRejected",
            Self::Contended(_) => "Contended",
        }
    }

    /// The condition's message.
    pub fn message(&self) -> String {
        match self {
            Self::Lack(lack) => lack.message.clone(),
            Self::NotWritable(_, message) => message.clone(),
            other => other.to_string(),
        }
    }

    /// Whether reading worked, and only writing did not.
    pub fn is_of_writing(&self) -> bool {
        matches!(self, Self::NotWritable(..) | Self::Refused { .. } | Self::Contended(_))
    }
}

/// What a store says, and when that was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The setting that it was read under.
    under: String,
    /// What it says.
    pub view: Arc<View>,
    /// When both branches were asked for.
    pub at: Instant,
    /// The same for people.
    pub time: Timestamp,
}

/// What a write did.
#[derive(Debug)]
pub struct Written {
    /// The store after it.
    pub view: Arc<View>,
    /// What was done, and what was refused.
    pub applied: Applied,
    /// The commit that was pushed, if there was anything to push.
    pub commit: Option<CommitId>,
}

/// One store.
pub struct Desk {
    git: Git,
    root: PathBuf,
    mirrors: Arc<Locks>,
    /// Who is at work on it.
    turn: tokio::sync::Mutex<()>,
    seen: watch::Sender<Option<Seen>>,
}

/// One fetch at a time in each mirror.
type Locks = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// All stores, by uid.
pub struct Desks {
    git: Git,
    root: PathBuf,
    mirrors: Arc<Locks>,
    all: Mutex<HashMap<String, Arc<Desk>>>,
}

impl Desks {
    /// None yet; mirrors are kept under `root`.
    pub fn new(git: Git, root: PathBuf) -> Self {
        Self { git, root, mirrors: Arc::default(), all: Mutex::default() }
    }

    /// The desk of the BeadStore of this uid.
    pub fn of(&self, uid: &str) -> Arc<Desk> {
        let make = || Arc::new(Desk::new(self.git.clone(), self.root.clone(), self.mirrors.clone()));
        self.all.lock().entry(uid.to_owned()).or_insert_with(make).clone()
    }

    /// The BeadStore is gone.
    pub fn forget(&self, uid: &str) {
        self.all.lock().remove(uid);
    }
}

impl Desk {
    fn new(git: Git, root: PathBuf, mirrors: Arc<Locks>) -> Self {
        Self { git, root, mirrors, turn: tokio::sync::Mutex::default(), seen: watch::Sender::new(None) }
    }

    /// What was read last under this setting.
    pub fn seen(&self, setting: &Setting) -> Option<Seen> {
        let key = setting.key();
        self.seen.borrow().clone().filter(|seen| seen.under == key)
    }

    /// Hears of each new view.
    pub fn subscribe(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }

    /// What the store says, read anew when the last time is longer than `age` ago or was under another setting.
    pub async fn read(&self, setting: &Setting, remote: &Remote, age: Duration) -> Result<Seen, Fault> {
        let _turn = self.turn.lock().await;
        match self.seen(setting).filter(|seen| seen.at.elapsed() < age) {
            Some(seen) => Ok(seen),
            None => self.sync(setting, remote).await,
        }
    }

    /// Does what `deeds` makes of the newest view, and pushes it. Nothing is lost to a writer who was faster: the deeds are
    /// asked for again on what that one wrote.
    pub async fn write(&self, setting: &Setting, remote: &Remote, deeds: impl Fn(&View) -> Vec<Deed>) -> Result<Written, Fault> {
        let _turn = self.turn.lock().await;
        let mut contended = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(gastown_runtime::jittered(Duration::from_millis(50 << attempt))).await;
            }
            let view = self.sync(setting, remote).await?.view;
            let asked = deeds(&view);
            if asked.is_empty() {
                return Ok(Written { view, applied: Applied::default(), commit: None });
            }
            let branch = view.writable(setting.policy).map_err(|(reason, message)| Fault::NotWritable(reason, message))?.clone();
            let now = Timestamp::now();
            let applied = view.apply(asked, &setting.prefixes, now);
            if !applied.is_news() {
                return Ok(Written { view, applied, commit: None });
            }
            let commit = self.commit(setting, &view, &applied, now).await?;
            let update = RefUpdate { name: branch.full(), expected: view.tips().write, new: Some(commit.clone()) };
            let mirror = self.mirror(&setting.url);
            let outcome = remote.push(&self.git, mirror.path(), std::slice::from_ref(&update)).await?.into_iter().next();
            match outcome {
                Some(outcome) if outcome.is_ok() => {
                    let tips = Tips { write: Some(commit.clone()), ..view.tips() };
                    let view = self.load(setting, tips, view.branch.clone(), Some(view)).await?;
                    self.publish(setting, view.clone());
                    return Ok(Written { view, applied, commit: Some(commit) });
                }
                Some(PushOutcome::Rejected(Refusal::Stale, words)) => {
                    tracing::debug!(%branch, words, "somebody else pushed first");
                    contended = Some(branch);
                }
                Some(PushOutcome::Rejected(_, message)) => return Err(Fault::Refused { branch, message }),
                Some(_) | None => return Err(GitError::new(Class::Local, "push", "no answer about the branch").into()),
            }
        }
        Err(contended.map_or_else(|| GitError::new(Class::Local, "push", "never tried").into(), Fault::Contended))
    }

    fn mirror(&self, url: &GitUrl) -> Mirror {
        Mirror::at(self.git.clone(), &self.root.join("mirrors"), url)
    }

    fn lock(&self, url: &GitUrl) -> Arc<tokio::sync::Mutex<()>> {
        self.mirrors.lock().entry(url.normalised()).or_default().clone()
    }

    fn publish(&self, setting: &Setting, view: Arc<View>) -> Seen {
        let seen = Seen { under: setting.key(), view, at: Instant::now(), time: Timestamp::now() };
        self.seen.send_replace(Some(seen.clone()));
        seen
    }

    /// Asks the remote where both branches are and reads what moved.
    async fn sync(&self, setting: &Setting, remote: &Remote) -> Result<Seen, Fault> {
        let before = self.seen(setting).map(|seen| seen.view);
        let view = match self.look(setting, remote, before).await {
            // A mirror that lost objects is made again, once.
            Err(Fault::Git(error)) if matches!(error.class, Class::Corrupt | Class::RefNotFound) => {
                tracing::warn!(%error, url = %setting.url, "the mirror is thrown away and made again");
                self.discard(&setting.url).await?;
                self.look(setting, remote, None).await?
            }
            other => other?,
        };
        Ok(self.publish(setting, view))
    }

    async fn discard(&self, url: &GitUrl) -> Result<(), GitError> {
        let lock = self.lock(url);
        let _one = lock.lock().await;
        let mirror = self.mirror(url);
        if mirror.path().exists() { mirror.discard() } else { Ok(()) }
    }

    async fn look(&self, setting: &Setting, remote: &Remote, before: Option<Arc<View>>) -> Result<Arc<View>, Fault> {
        // The branch may be named by a file of the target that is still to be read; it seldom changes.
        let guess = before.as_ref().map_or_else(|| setting.write_branch(None), |view| view.branch.clone());
        let tips = self.tips(setting, remote, guess.as_ref().ok()).await?;
        let branch = self.branch(setting, &tips, before.as_deref()).await?;
        let tips = match &branch {
            same if *same == guess => tips,
            Ok(other) => self.tips(setting, remote, Some(other)).await?,
            Err(_) => Tips { write: None, ..tips },
        };
        self.load(setting, tips, branch, before).await
    }

    /// The branch to write, by the spec or by the target's config.yaml.
    async fn branch(&self, setting: &Setting, tips: &Tips, before: Option<&View>) -> Result<Result<BranchName, Lack>, Fault> {
        let Some(commit) = tips.target.clone().filter(|_| setting.branch.is_none()) else { return Ok(setting.write_branch(None)) };
        if let Some(side) = before.and_then(|view| view.target.as_ref()).filter(|side| side.commit == commit) {
            return Ok(setting.write_branch(side.config.sync_branch.as_deref()));
        }
        let (mirror, path) = (self.mirror(&setting.url), setting.path.clone());
        let config = blocking("read config.yaml", move || folder::config(&mirror.objects()?, &commit, &path)).await?;
        Ok(setting.write_branch(config.sync_branch.as_deref()))
    }

    async fn tips(&self, setting: &Setting, remote: &Remote, branch: Option<&BranchName>) -> Result<Tips, Fault> {
        let names: Vec<BranchName> = [Some(&setting.target), branch].into_iter().flatten().cloned().collect();
        let lock = self.lock(&setting.url);
        let _one = lock.lock().await;
        let there = self.mirror(&setting.url).refresh(remote, &names).await?;
        Ok(Tips { target: there.get(&setting.target).cloned(), write: branch.and_then(|branch| there.get(branch).cloned()) })
    }

    async fn load(
        &self,
        setting: &Setting,
        tips: Tips,
        branch: Result<BranchName, Lack>,
        before: Option<Arc<View>>,
    ) -> Result<Arc<View>, Fault> {
        if let Some(before) = before.as_ref().filter(|view| view.tips() == tips && view.branch == branch) {
            return Ok(before.clone());
        }
        // A repository without any of the branches has no mirror yet.
        if tips == Tips::default() {
            let message = format!("neither {} nor a branch of beads exists in {}", setting.target, setting.url);
            return Err(Lack { reason: "BranchNotFound", message }.into());
        }
        let (mirror, path) = (self.mirror(&setting.url), setting.path.clone());
        let work = move || View::load(&mirror.objects()?, &path, &tips, branch, before.as_deref());
        Ok(Arc::new(blocking("read the store", work).await?))
    }

    async fn commit(&self, setting: &Setting, view: &Arc<View>, applied: &Applied, now: Timestamp) -> Result<CommitId, Fault> {
        let nothing = || GitError::new(Class::Local, "write the store", "there is nothing to write on");
        let (folder, name) = view.place().ok_or_else(nothing)?;
        let parent = view.base().ok_or_else(nothing)?.commit.clone();
        let (folder, name, bytes) = (folder.to_owned(), name.to_owned(), applied.bytes.clone());
        let message = applied.message(&format!("{} {}", setting.rig, env!("CARGO_PKG_VERSION")));
        let author = setting.author.clone().unwrap_or_else(|| COMMITTER.to_owned());
        let mirror = self.mirror(&setting.url);
        let work = move || {
            let made = mirror.objects()?.replace(&Replacement {
                parent: &parent,
                folder: &folder,
                name: &name,
                bytes: &bytes,
                author: &author,
                committer: COMMITTER,
                second: now.as_second(),
                message: &message,
            })?;
            Ok(made)
        };
        blocking("write the store", work).await
    }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, folder::Error> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| GitError::new(Class::Local, doing, error.to_string()))??)
}
