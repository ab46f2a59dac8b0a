//! Back-off, and controllers whose API server never answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;

use super::*;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::shards::Shards;
use crate::testing;
use crate::watch::{Trigger, triggers};

#[test]
fn back_off_doubles_to_a_limit() {
    let class = Class::Retry { after: None };
    let waits: Vec<_> = (1..=10).map(|failures| class.back_off(failures).as_millis()).collect();
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    assert_eq!(class.back_off(u32::MAX), Duration::from_secs(60));
}

#[test]
fn a_given_wait_is_kept() {
    let class = Class::Retry { after: Some(Duration::from_secs(7)) };
    assert_eq!(class.back_off(9), Duration::from_secs(7));
}

/// A controller of ConfigMaps, its store and its trigger.
struct World {
    writer: Writer<ConfigMap>,
    trigger: Trigger<ConfigMap>,
    runtime: Runtime,
}

impl World {
    /// Starts to reconcile these objects.
    fn start<F, Fut>(names: &[&str], reconcile: F) -> Self
    where
        F: Fn(Arc<ConfigMap>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, kube::Error>> + Send + 'static,
    {
        let (mut writer, (trigger, triggers)) = (Writer::default(), triggers());
        for name in names {
            writer.apply_watcher_event(&Event::Apply(testing::config_map(name, 1)));
        }
        let runtime = testing::runtime(Shards::all(), Metrics::default());
        let controller = Controller {
            name: "test",
            store: writer.as_reader(),
            own: Arc::default(),
            triggers,
            rig: |object| object.name_any().into(),
            conditions: None,
        };
        let running = runtime.clone();
        tokio::spawn(async move {
            controller.run(&running, Arc::new(()), move |object, _| reconcile(object)).await;
        });
        Self { writer, trigger, runtime }
    }

    async fn change(&mut self, name: &str, generation: i64) {
        let object = testing::config_map(name, generation);
        self.writer.apply_watcher_event(&Event::Apply(object.clone()));
        self.trigger.send(ObjectRef::from_obj(&object)).await;
    }
}

fn refused() -> kube::Error {
    let status = kube::core::Status::failure("a quota", "Forbidden").with_code(403);
    kube::Error::Api(status.boxed())
}

async fn until(count: &AtomicUsize, wanted: usize) {
    let reached = async {
        while count.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap();
}

#[tokio::test]
async fn a_back_off_is_ended_by_a_change_of_the_object_and_by_no_other() {
    let tried: Arc<AtomicUsize> = Arc::default();
    let counter = tried.clone();
    let mut world = World::start(&["a"], move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Err(refused()))
    });
    until(&tried, 1).await;
    for _ in 0..1_000 {
        world.change("a", 1).await;
    }
    // The changes before this one have been received: the queue is in order.
    world.change("a", 2).await;
    until(&tried, 2).await;
    assert_eq!(tried.load(Ordering::SeqCst), 2);
    world.runtime.shutdown();
}

#[tokio::test]
async fn objects_whose_neighbour_does_not_answer_keep_no_other_from_their_turn() {
    let places = Arc::new(Places::new(2));
    let (waiting, done): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let (waits, counter) = (waiting.clone(), done.clone());
    let names: Vec<String> = (0..40).map(|n| format!("silent-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::start(&names, move |object| {
        let (places, waits, counter) = (places.clone(), waits.clone(), counter.clone());
        async move {
            if object.metadata.name.as_deref() == Some("healthy") {
                counter.fetch_add(1, Ordering::SeqCst);
            } else {
                waits.fetch_add(1, Ordering::SeqCst);
                places.call("silent", std::future::pending::<()>()).await;
            }
            Ok(Action::await_change())
        }
    });
    until(&waiting, 40).await;
    world.change("healthy", 1).await;
    until(&done, 1).await;
    world.runtime.shutdown();
}

#[tokio::test]
async fn a_reconcile_that_panics_is_tried_again_and_ends_no_other() {
    let (tried, done): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let (counter, others) = (tried.clone(), done.clone());
    let mut world = World::start(&["bad"], move |object| {
        let (counter, others) = (counter.clone(), others.clone());
        async move {
            if object.metadata.name.as_deref() == Some("bad") {
                counter.fetch_add(1, Ordering::SeqCst);
                panic!("a defect");
            }
            others.fetch_add(1, Ordering::SeqCst);
            Ok(Action::await_change())
        }
    });
    until(&tried, 1).await;
    world.change("good", 1).await;
    until(&done, 1).await;
    world.change("bad", 2).await;
    until(&tried, 2).await;
    world.runtime.shutdown();
}
