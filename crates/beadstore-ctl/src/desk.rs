//! The one place through which a store is read and written: one at a time for each, wherever its
//! beads are kept.
//!
//! A write is made on what the store says now, and nothing is lost to a writer who was faster, so
//! any replica may write.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_beads::Issue;
use gastown_beads_http::{Class as HttpClass, Error as HttpError, Session};
use gastown_credentials::reason_of;
use gastown_git::{Class, Git, GitError, Remote};
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::branches::Branches;
use crate::deeds::Told;
use crate::folder::{self, Lack};
use crate::keeper::Unkept;
use crate::mirror::{Mirrors, News, Pushed};
use crate::place::{Repository, Setting};
use crate::plan::Deed;
use crate::served::{Line, Served, WRITING, look};
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
    /// A server, or the way to it.
    #[error("{doing} at {url}: {source}")]
    Served {
        /// What was attempted.
        doing: &'static str,
        /// The server.
        url: String,
        /// What went wrong.
        source: Box<HttpError>,
    },
    /// What is written into a server could not be remembered, so it was not written.
    #[error(transparent)]
    Unkept(#[from] Unkept),
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
            Self::Served { source, .. } => source.reason().unwrap_or("Refused"),
            Self::Unkept(_) => "RecordsNotKept",
        }
    }

    /// The condition's message.
    pub fn message(&self) -> String {
        match self {
            Self::Lack(lack) => lack.message.clone(),
            Self::NotWritable(_, message) => message.clone(),
            Self::Served { source, .. } => format!("{self}; {}", advice(source)),
            other => other.to_string(),
        }
    }

    /// Whether reading worked, and only writing did not.
    pub fn is_of_writing(&self) -> bool {
        match self {
            Self::NotWritable(..) | Self::Refused { .. } | Self::Contended(_) | Self::Unkept(_) => {
                true
            }
            Self::Served { doing, .. } => *doing == WRITING,
            Self::Git(_) | Self::Lack(_) => false,
        }
    }

    /// Whether only a change of the spec, a Secret or the store helps, all of which are looked at
    /// anyway.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Lack(_) | Self::NotWritable(..) => true,
            Self::Served { source, .. } => source.class() == HttpClass::Terminal,
            Self::Git(_) | Self::Refused { .. } | Self::Contended(_) | Self::Unkept(_) => false,
        }
    }

    /// How long the other side asks to be left alone.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Self::Served { source, .. } => match source.class() {
                HttpClass::Wait(wait) => Some(wait),
                HttpClass::Retry | HttpClass::Replan | HttpClass::Reread | HttpClass::Terminal => {
                    None
                }
            },
            _ => None,
        }
    }

    /// The same, asking for what is left of its time.
    fn for_now(&self, left: Duration) -> Self {
        let mut same = self.clone();
        if let Self::Served { source, .. } = &mut same
            && let HttpError::Unavailable { retry_after, .. } = source.as_mut()
        {
            *retry_after = Some(left);
        }
        same
    }
}

/// What a person can do about a server's fault.
fn advice(error: &HttpError) -> &'static str {
    match error.reason() {
        Some("RemoteUnreachable") => {
            "what was read last still serves and writes wait; it is tried again by itself: see whether bd serve runs there, and spec.http.url"
        }
        Some("RemoteBusy") => {
            "what was read last still serves and writes wait until the time that it names"
        }
        Some("AuthFailed") => {
            "put a token that it knows into key token of the Secret that spec.http.tokenSecretRef names"
        }
        Some("ProjectMismatch") => {
            "set spec.http.url to the server of the project that is meant, or spec.http.projectId to its project"
        }
        Some("SchemaUnsupported") => "run a bd serve there that offers it (bd 1.3 or later)",
        Some("NotBeads") => {
            "spec.http.url must lead to bd serve itself, with the path that a proxy before it wants"
        }
        Some("TooLarge") => "so large a store is not read",
        Some("TlsFailed") => "the image's certificates must know the server's",
        _ => "it is tried again by itself",
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
    Git(Box<Repository>, Remote),
    /// A server.
    Served(Line),
}

/// One store.
pub struct Desk {
    mirrors: Mirrors,
    /// Who is at work on it.
    turn: tokio::sync::Mutex<()>,
    seen: watch::Sender<Option<Seen>>,
    /// A fault with which the other side asked to be left alone, and until when it is.
    patience: Mutex<Option<(Instant, Fault)>>,
    /// Deeds in words that the store refused, and when.
    refused: Mutex<HashMap<String, Instant>>,
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
        Self {
            mirrors,
            turn: tokio::sync::Mutex::default(),
            seen: watch::Sender::new(None),
            patience: Mutex::default(),
            refused: Mutex::default(),
        }
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

    /// What the store says, read anew when the last time is longer than `age` ago or was under
    /// another setting.
    pub async fn read(&self, setting: &Setting, way: &Way, age: Duration) -> Result<Seen, Fault> {
        let _turn = self.turn.lock().await;
        match self.seen(setting).filter(|seen| seen.at.elapsed() < age) {
            Some(seen) => Ok(seen),
            None => self.ask(setting, way).await,
        }
    }

    /// Does what `deeds` makes of the newest view. Nothing is lost to a writer who was faster: the
    /// deeds are asked for again on what that one wrote.
    pub async fn write(
        &self,
        setting: &Setting,
        way: &Way,
        deeds: impl Fn(&View) -> Vec<Deed>,
    ) -> Result<Written, Fault> {
        let _turn = self.turn.lock().await;
        match way {
            Way::Git(repository, remote) => self.push(setting, repository, remote, deeds).await,
            Way::Served(line) => self.tell(setting, line, deeds).await,
        }
    }

    /// Whether the store refused this deed less than `age` ago: asked again at once, it would be
    /// refused again.
    pub fn is_refused(&self, deed: &Deed, age: Duration) -> bool {
        let mut refused = self.refused.lock();
        refused.retain(|_, at| at.elapsed() < age);
        refused.contains_key(&deed.words())
    }

    async fn ask(&self, setting: &Setting, way: &Way) -> Result<Seen, Fault> {
        match way {
            Way::Git(repository, remote) => {
                let view = self.branches(setting, repository, remote).await?;
                Ok(self.publish(setting, View::Git(view)))
            }
            Way::Served(line) => self.served(setting, line).await.map(|(_, _, seen)| seen),
        }
    }

    /// Reads a server's store, unless it asked to be left alone.
    async fn served(
        &self,
        setting: &Setting,
        line: &Line,
    ) -> Result<(Session, Arc<Served>, Seen), Fault> {
        self.is_patient()?;
        let before = self.seen(setting).and_then(|seen| seen.view.served().cloned());
        let (session, served) =
            line.read(before.as_deref()).await.map_err(|fault| self.heed(fault))?;
        let served = Arc::new(served);
        let seen = self.publish(setting, View::Served(served.clone()));
        Ok((session, served, seen))
    }

    /// These beads of a server with the text of their comments.
    pub async fn details(
        &self,
        line: &Line,
        ids: &[String],
    ) -> Result<HashMap<String, Option<Arc<Issue>>>, Fault> {
        self.is_patient()?;
        line.details(ids).await.map_err(|fault| self.heed(fault))
    }

    /// The fault with which the other side asked to be left alone, until the time that it named.
    fn is_patient(&self) -> Result<(), Fault> {
        let asked = self.patience.lock().clone();
        match asked.map(|(until, fault)| (until.saturating_duration_since(Instant::now()), fault)) {
            Some((left, fault)) if !left.is_zero() => Err(fault.for_now(left)),
            Some(_) | None => Ok(()),
        }
    }

    /// Remembers for how long the other side is to be left alone.
    fn heed(&self, fault: Fault) -> Fault {
        if let Some(wait) = fault.patience() {
            *self.patience.lock() = Some((Instant::now() + wait, fault.clone()));
        }
        fault
    }

    /// Does in a server's store what `deeds` makes of it.
    async fn tell(
        &self,
        setting: &Setting,
        line: &Line,
        deeds: impl Fn(&View) -> Vec<Deed>,
    ) -> Result<Written, Fault> {
        let (session, served, Seen { view, .. }) = self.served(setting, line).await?;
        let asked = deeds(&view);
        if asked.is_empty() {
            return Ok(Written { view, applied: Applied::default(), commit: None });
        }
        view.writable(setting.policy)
            .map_err(|(reason, message)| Fault::NotWritable(reason, message))?;
        let Told { applied, records, touched, fault } =
            line.carry_out(&session, &served, asked, &setting.prefixes).await;
        let now = Instant::now();
        self.refused.lock().extend(applied.refused.iter().map(|(deed, _)| (deed.words(), now)));
        // A look that fails leaves what was read; the next reading tells.
        let looks = look(&session, touched.iter().map(String::as_str)).await.unwrap_or_default();
        let view = View::Served(Arc::new(served.with(looks).after(records)));
        self.publish(setting, view.clone());
        let Some(fault) = fault else { return Ok(Written { view, applied, commit: None }) };
        for (deed, _) in &applied.done {
            tracing::info!(deed = deed.words(), "written before the fault");
        }
        Err(self.heed(fault))
    }

    async fn branches(
        &self,
        setting: &Setting,
        repository: &Repository,
        remote: &Remote,
    ) -> Result<Arc<Branches>, Fault> {
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
                tokio::time::sleep(gastown_runtime::jittered(Duration::from_millis(50 << attempt)))
                    .await;
            }
            let branches = self.branches(setting, repository, remote).await?;
            let view = View::Git(branches.clone());
            self.publish(setting, view.clone());
            let asked = deeds(&view);
            if asked.is_empty() {
                return Ok(Written { view, applied: Applied::default(), commit: None });
            }
            let branch = branches
                .writable(setting.policy)
                .map_err(|(reason, message)| Fault::NotWritable(reason, message))?
                .clone();
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
        Err(contended.map_or_else(
            || GitError::new(Class::Local, "push", "never tried").into(),
            Fault::Contended,
        ))
    }

    fn publish(&self, setting: &Setting, view: View) -> Seen {
        let seen = Seen { under: setting.key(), view, at: Instant::now(), time: Timestamp::now() };
        self.seen.send_replace(Some(seen.clone()));
        seen
    }
}
