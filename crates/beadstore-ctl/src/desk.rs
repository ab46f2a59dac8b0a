//! The one place through which a store is read and written: one at a time for each, wherever its beads are kept.
//!
//! A write is made on what the store says now, and nothing is lost to a writer who was faster, so any replica may write.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_access::reason_of;
use gastown_git::{Class, Git, GitError, Remote};
use gastown_names::{BranchName, CommitId};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::branches::Branches;
use crate::folder::{self, Lack};
use crate::mirror::{Mirrors, News, Pushed};
use crate::place::{Repository, Setting};
use crate::plan::Deed;
use crate::view::{Applied, View};

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
    pub view: View,
    /// When the store was asked.
    pub at: Instant,
    /// The same for people.
    pub time: Timestamp,
}

/// What a write did.
#[derive(Debug)]
pub struct Written {
    /// The store after it.
    pub view: View,
    /// What was done, and what was refused.
    pub applied: Applied,
    /// The commit that was pushed, if there was anything to push.
    pub commit: Option<CommitId>,
}

/// How a store is reached, with what its Secret held just now.
pub enum Way {
    /// A repository.
    Git(Repository, Remote),
}

/// One store.
pub struct Desk {
    mirrors: Mirrors,
    /// Who is at work on it.
    turn: tokio::sync::Mutex<()>,
    seen: watch::Sender<Option<Seen>>,
}

/// All stores, by uid.
pub struct Desks {
    mirrors: Mirrors,
    all: Mutex<HashMap<String, Arc<Desk>>>,
}

impl Desks {
    /// None yet; mirrors are kept under `root`.
    pub fn new(git: Git, root: PathBuf) -> Self {
        Self { mirrors: Mirrors::new(git, root), all: Mutex::default() }
    }

    /// The desk of the BeadStore of this uid.
    pub fn of(&self, uid: &str) -> Arc<Desk> {
        let make = || Arc::new(Desk::new(self.mirrors.clone()));
        self.all.lock().entry(uid.to_owned()).or_insert_with(make).clone()
    }

    /// The BeadStore is gone.
    pub fn forget(&self, uid: &str) {
        self.all.lock().remove(uid);
    }
}

impl Desk {
    fn new(mirrors: Mirrors) -> Self {
        Self { mirrors, turn: tokio::sync::Mutex::default(), seen: watch::Sender::new(None) }
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
    pub async fn read(&self, setting: &Setting, way: &Way, age: Duration) -> Result<Seen, Fault> {
        let _turn = self.turn.lock().await;
        match self.seen(setting).filter(|seen| seen.at.elapsed() < age) {
            Some(seen) => Ok(seen),
            None => match way {
                Way::Git(repository, remote) => {
                    let view = self.branches(setting, repository, remote).await?;
                    Ok(self.publish(setting, View::Git(view)))
                }
            },
        }
    }

    /// Does what `deeds` makes of the newest view. Nothing is lost to a writer who was faster: the deeds are asked for
    /// again on what that one wrote.
    pub async fn write(&self, setting: &Setting, way: &Way, deeds: impl Fn(&View) -> Vec<Deed>) -> Result<Written, Fault> {
        let _turn = self.turn.lock().await;
        match way {
            Way::Git(repository, remote) => self.push(setting, repository, remote, deeds).await,
        }
    }

    async fn branches(&self, setting: &Setting, repository: &Repository, remote: &Remote) -> Result<Arc<Branches>, Fault> {
        let before = self.seen(setting).and_then(|seen| seen.view.branches().cloned());
        self.mirrors.read(repository, remote, before).await
    }

    async fn push(
        &self,
        setting: &Setting,
        repository: &Repository,
        remote: &Remote,
        deeds: impl Fn(&View) -> Vec<Deed>,
    ) -> Result<Written, Fault> {
        let mut contended = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(gastown_runtime::jittered(Duration::from_millis(50 << attempt))).await;
            }
            let branches = self.branches(setting, repository, remote).await?;
            let view = View::Git(branches.clone());
            self.publish(setting, view.clone());
            let asked = deeds(&view);
            if asked.is_empty() {
                return Ok(Written { view, applied: Applied::default(), commit: None });
            }
            let branch = branches.writable(setting.policy).map_err(|(reason, message)| Fault::NotWritable(reason, message))?.clone();
            let now = Timestamp::now();
            let (applied, bytes) = branches.apply(asked, &setting.prefixes, now);
            if !applied.is_news() {
                return Ok(Written { view, applied, commit: None });
            }
            let news = News { rig: &setting.rig, applied: &applied, bytes: &bytes, now };
            match self.mirrors.push(repository, remote, branches, branch, &news).await? {
                Pushed::Done(commit, branches) => {
                    let view = View::Git(branches);
                    self.publish(setting, view.clone());
                    return Ok(Written { view, applied, commit: Some(commit) });
                }
                Pushed::Late(branch) => contended = Some(branch),
            }
        }
        Err(contended.map_or_else(|| GitError::new(Class::Local, "push", "never tried").into(), Fault::Contended))
    }

    fn publish(&self, setting: &Setting, view: View) -> Seen {
        let seen = Seen { under: setting.key(), view, at: Instant::now(), time: Timestamp::now() };
        self.seen.send_replace(Some(seen.clone()));
        seen
    }
}
