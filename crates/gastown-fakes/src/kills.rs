//! A controller's process that ends at each of its writes in turn, and another one that begins
//! without memory: what comes of it must be the same as without an end. So must be what comes of
//! faults.
//!
//! By default a write is tried in one of two ways; with `GASTOWN_MATRIX=all` (`cargo xtask test plane
//! --all`) each write is tried in both.

use std::any::Any;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{Client, Config};

use crate::connection::{Connection, Fault, Last, Proxy};

/// A controller's process with all its threads, whose requests pass over a connection. It ends at
/// once when dropped.
pub struct Process {
    executor: Option<tokio::runtime::Runtime>,
    _proxy: Proxy,
}

impl Process {
    /// Starts the work of a controller. `server` is the API server, and `config` is that of the
    /// controller's account.
    pub async fn start<F>(
        connection: &Arc<Connection>,
        server: Client,
        config: Config,
        work: impl FnOnce(Config) -> F,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let proxy = connection.clone().serve(server).await?;
        let work = work(proxy.config(config)?);
        let log = connection.log().dispatch();
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            // For the whole life of the thread.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)))
            .build()
            .context("starting the threads of a process")?;
        executor.spawn(async move {
            if let Err(error) = work.await {
                eprintln!("the controller ended: {error:#}");
            }
        });
        Ok(Self { executor: Some(executor), _proxy: proxy })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }
}

/// Lives a life in which the first process has this connection, and the second one begins when the
/// first has ended. Errors are those of starting a process.
pub async fn live<E>(
    connection: Arc<Connection>,
    start: impl AsyncFn(Arc<Connection>) -> Result<Process>,
    life: impl Future<Output = E>,
) -> Result<E> {
    let processes = async {
        let first = start(connection.clone()).await?;
        connection.reached().await;
        drop(first);
        let _second = start(Arc::new(Connection::following(&connection))).await?;
        std::future::pending::<Result<E>>().await
    };
    tokio::select! {
        end = life => Ok(end),
        failed = processes => failed,
    }
}

/// How many lives there are.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// At a time.
    pub parallel: usize,
    /// The distance of the writes that are tried by default; 1 for each of them.
    pub step: usize,
}

impl Lives {
    /// The writes that are tried when a life has this many, and how. The last ones are those of
    /// lives that were slower and wrote their statuses once more.
    fn cases(self, writes: usize) -> impl Iterator<Item = (usize, Last)> {
        let all = std::env::var("GASTOWN_MATRIX").is_ok_and(|v| v == "all");
        let step = if all { 1 } else { self.step };
        let both = [Last::Unsent, Last::Unanswered];
        (step..=writes + step)
            .step_by(step)
            .flat_map(move |at| both.map(|last| (at, last)))
            .filter(move |(at, last)| all || (at / step) % 2 == usize::from(*last == Last::Unsent))
    }
}

/// Lives once without a cut, and then once for each write that is tried. Returns what the first life
/// came to; the others have come to the same.
///
/// # Panics
///
/// When a life has come to something else.
pub async fn at_every_write<E, F>(lives: Lives, life: impl Fn(Arc<Connection>) -> F) -> E
where
    E: PartialEq + Debug,
    F: Future<Output = E>,
{
    let uncut = Arc::<Connection>::default();
    let wanted = Box::pin(life(uncut.clone())).await;
    let writes = uncut.writes().len();
    println!("{writes} writes: {:?}", uncut.writes());

    let mut seen: Vec<_> = stream::iter(lives.cases(writes))
        .map(|(at, last)| cut_at(&life, at, last))
        .buffer_unordered(lives.parallel)
        .collect()
        .await;
    // Until one has no such write.
    while let Some(Cut { at, last, connection, .. }) = seen.iter().max_by_key(|cut| cut.at)
        && connection.ended_at().is_some()
    {
        let next = Box::pin(cut_at(&life, at + 1, *last)).await;
        seen.push(next);
    }
    seen.sort_by_key(|cut| (cut.at, cut.last));
    let mut different = Vec::new();
    for Cut { at, last, connection, end } in seen {
        let write = connection.ended_at();
        let name = format!("{at:3} {last:?}: {}", write.as_deref().unwrap_or("not reached"));
        println!("{name}");
        different.extend(difference(&name, &wanted, end, &connection));
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    wanted
}

/// A life whose first process ended at a write.
struct Cut<E> {
    at: usize,
    last: Last,
    connection: Arc<Connection>,
    end: Result<E, String>,
}

async fn cut_at<E, F>(life: impl Fn(Arc<Connection>) -> F, at: usize, last: Last) -> Cut<E>
where
    F: Future<Output = E>,
{
    let connection = Arc::new(Connection::cut(at, last));
    let end = Box::pin(caught(life(connection.clone()))).await;
    Cut { at, last, connection, end }
}

/// Lives once without a fault, and then once with each fault that is about all kinds of objects, and
/// once for each kind that is watched with its events late. The lives come to the same.
///
/// # Panics
///
/// When a life has come to something else, or a fault has not occurred.
pub async fn under_each_fault<E, F>(life: impl Fn(Arc<Connection>) -> F)
where
    E: PartialEq + Debug,
    F: Future<Output = E>,
{
    let without = Arc::<Connection>::default();
    let wanted = Box::pin(life(without.clone())).await;
    let late = without.watched().into_iter().map(Fault::LateEventsOf);
    let faulty = Fault::ALL.into_iter().chain(late).map(|fault| {
        let connection = Arc::new(Connection::with(fault.clone()));
        let life = Box::pin(caught(life(connection.clone())));
        async move { (fault, connection, life.await) }
    });
    let mut different = Vec::new();
    for (fault, connection, end) in futures::future::join_all(faulty).await {
        let name = format!("{fault:?}, {} times", connection.faults());
        println!("{name}");
        different.extend(difference(&name, &wanted, end, &connection));
        assert!(connection.faults() > 0, "{fault:?} has not occurred");
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

/// The end of a life; of one that panicked, the message.
async fn caught<E>(life: impl Future<Output = E>) -> Result<E, String> {
    AssertUnwindSafe(life).catch_unwind().await.map_err(|panic| message(panic.as_ref()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn difference<E: PartialEq + Debug>(
    name: &str,
    wanted: &E,
    end: Result<E, String>,
    connection: &Connection,
) -> Option<String> {
    let came_to = match end {
        Ok(end) if end == *wanted => return None,
        Ok(end) => changes(&format!("{wanted:#?}"), &format!("{end:#?}")),
        Err(panic) => panic,
    };
    Some(format!("{}\n{name}: it came to {came_to}", connection.log().end()))
}

/// The lines from the first that differs to the last one, each side's own after its sign.
fn changes(wanted: &str, came_to: &str) -> String {
    let (wanted, came_to): (Vec<_>, Vec<_>) = (wanted.lines().collect(), came_to.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let before = wanted.iter().zip(&came_to).take_while(same).count();
    let left = wanted.len().min(came_to.len()) - before;
    let after = wanted.iter().rev().zip(came_to.iter().rev()).take(left).take_while(same).count();
    let part = |sign: &str, lines: &[&str]| {
        let own = lines[before..lines.len() - after].iter();
        own.map(|line| format!("{sign} {}", line.trim())).collect::<Vec<_>>()
    };
    let changed = [part("-", &wanted), part("+", &came_to)].concat();
    format!("(- wanted, + seen, from line {before})\n{}", changed.join("\n"))
}
