//! Kubernetes Events: each is published once, until there is another one about the same topic.

use std::collections::HashMap;
use std::sync::Arc;

use gastown_api::names::reason;
use gastown_types::text;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// How many events may wait to be sent; further ones are counted and dropped.
const QUEUE: usize = 256;
/// How many topics are remembered; beyond that all are forgotten, and published once more.
const MAX_TOPICS: usize = 20_000;
/// The longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;

/// The content of an Event.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its type is Warning, else Normal.
    pub warning: bool,
    /// What it is about, such as a condition's type: an Event is published only when it differs
    /// from the last one about the same topic of the object.
    pub topic: &'static str,
    /// The reason, one that has a documented meaning.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Another object that it is about. Without one, Events of one object with the same reason are
    /// counted as one Event, which keeps the first message.
    pub related: Option<ObjectReference>,
}

impl Note {
    /// An Event of type Normal.
    pub fn normal(
        topic: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (reason, message) = reason::documented(reason.into(), message);
        Self { warning: false, topic, reason: reason.into_owned(), message, related: None }
    }

    /// An Event of type Warning.
    pub fn warning(
        topic: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { warning: true, ..Self::normal(topic, reason, message) }
    }

    /// Adds another object that it is about.
    #[must_use]
    pub fn about<K: Resource<DynamicType = ()>>(self, object: &K) -> Self {
        Self { related: Some(object.object_ref(&())), ..self }
    }
}

/// The last reason and message, by the object's uid and the topic.
type Published = HashMap<(String, &'static str), (String, String)>;

/// The recorder of Events. Clones share.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    queue: mpsc::Sender<(ObjectReference, Note)>,
    published: Arc<Mutex<Published>>,
    metrics: Metrics,
}

impl Events {
    /// Starts the task that sends Events; it ends when the last clone is dropped.
    pub fn start(client: Client, controller: &str, instance: &str, metrics: &Metrics) -> Self {
        let reporter = Reporter {
            controller: format!("gastown.io/{controller}"),
            instance: Some(instance.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut waiting) = mpsc::channel::<(ObjectReference, Note)>(QUEUE);
        let sender = recorder.clone();
        tokio::spawn(async move {
            while let Some((object, note)) = waiting.recv().await {
                if let Err(error) = sender.publish(&event(note), &object).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "an Event could not be published"
                    );
                }
            }
        });
        Self { recorder, queue, published: Arc::default(), metrics: metrics.clone() }
    }

    /// Publishes an Event now, and returns once the API server has it.
    pub async fn deliver<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        note: Note,
    ) -> Result<(), kube::Error> {
        self.recorder.publish(&event(note), &object.object_ref(&())).await
    }

    /// Publishes an Event, unless it is the same as the last one about this topic of the object.
    /// Never waits, never fails.
    pub fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, note: Note) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        {
            let mut published = self.published.lock();
            if published.len() >= MAX_TOPICS {
                published.clear();
            }
            let new = (note.reason.clone(), note.message.clone());
            if published.insert((uid, note.topic), new.clone()) == Some(new) {
                return;
            }
        }
        if self.queue.try_send((object.object_ref(&()), note)).is_err() {
            self.metrics.events_dropped.inc([]);
        }
    }
}

fn event(note: Note) -> Event {
    Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        action: note.topic.to_owned(),
        reason: note.reason,
        note: Some(text::truncate(&note.message, MAX_NOTE).to_owned()),
        secondary: note.related,
    }
}
