//! The process ends at each of its writes, once before the API server has the write and once before
//! the answer is back, and another one begins without memory: the life of its Polecats comes to the
//! same.
//!
//! Each write is tried in one of the two ways by default, and in both with `GASTOWN_MATRIX=all`
//! (`cargo xtask test plane --all`).

use std::sync::Arc;

use futures::StreamExt as _;

use crate::cut::{Cut, Last};
use crate::fixture::Fixture;
use crate::life::{End, Life};
use crate::replica::{Replica, Settings};
use crate::wire::Wire;

/// Lives at a time.
const PARALLEL: usize = 16;

/// A process of polecat-ctl, with all its threads. It ends at once.
struct Process(Option<tokio::runtime::Runtime>);

impl Process {
    fn start(settings: &Settings, cut: Arc<Cut>) -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let entered = executor.enter();
        let wire = Arc::new(Wire::within(&settings.namespace, cut));
        drop(Replica::start(settings, wire, None));
        drop(entered);
        Self(Some(executor))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(executor) = self.0.take() {
            executor.shutdown_background();
        }
    }
}

/// One life, whose process ends at the cut.
async fn live(fixture: &Fixture, cut: Arc<Cut>) -> End {
    let life = Life::new(fixture).await;
    let processes = async {
        let first = Process::start(&life.settings(), cut.clone());
        cut.reached().await;
        drop(first);
        let second = Process::start(&life.settings(), Arc::new(Cut::new(0, Last::Unsent)));
        std::future::pending::<()>().await;
        drop(second);
    };
    let end = tokio::select! {
        end = life.live() => end,
        () = processes => unreachable!("the second process does not end"),
    };
    life.close().await;
    end
}

/// A life, and the write at which its process ended.
async fn case(fixture: &Fixture, at: usize, last: Last) -> (usize, Last, Option<String>, End) {
    let cut = Arc::new(Cut::new(at, last));
    let end = Box::pin(live(fixture, cut.clone())).await;
    (at, last, cut.ended_at(), end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_comes_to_the_same_at_whichever_write_its_process_ends() {
    let mut fixture = Fixture::new().await;
    fixture.start_server().await;
    let uncut = Arc::new(Cut::new(0, Last::Unsent));
    let wanted = Box::pin(live(&fixture, uncut.clone())).await;
    assert_eq!(wanted.most_live, 1, "the rig has one slot: {wanted:#?}");
    let writes = uncut.writes().len();
    println!("{writes} writes: {:#?}\n{wanted:#?}", uncut.writes());

    let all = std::env::var("GASTOWN_MATRIX").is_ok_and(|v| v == "all");
    let both = [Last::Unsent, Last::Unanswered];
    let cases = (1..=writes)
        .flat_map(|at| both.map(|last| (at, last)))
        .filter(|(at, last)| all || at % 2 == usize::from(*last == Last::Unsent));
    let mut seen: Vec<_> = futures::stream::iter(cases)
        .map(|(at, last)| case(&fixture, at, last))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    // A life that was slower may have written its statuses once more.
    while let Some((at, last, Some(_), _)) = seen.iter().max_by_key(|(at, ..)| *at) {
        let next = Box::pin(case(&fixture, at + 1, *last)).await;
        seen.push(next);
    }
    seen.sort_by_key(|(at, last, ..)| (*at, *last == Last::Unanswered));
    for (at, last, write, end) in &seen {
        println!("{at:3} {last:?}: {}", write.as_deref().unwrap_or("not reached"));
        assert_eq!(*end, wanted, "its process ended at {at} {last:?}: {write:?}");
    }
    fixture.close().await;
}
