//! Kubernetes Events: each said once, until something else is to be said about the same topic.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// How many events may wait to be sent; what comes on top is counted and dropped.
const QUEUE: usize = 256;
/// How many topics are remembered; beyond that all are forgotten, and said once more.
const REMEMBERED: usize = 20_000;
/// The longest note that the API server takes, in bytes.
const NOTE_MAX: usize = 1024;

/// What to say.
#[derive(Clone, Debug)]
pub struct Note {
    /// Whether somebody should worry.
    pub warning: bool,
    /// What it is about, e.g. a condition's type: one thing is said about a topic at a time.
    pub topic: &'static str,
    /// `PascalCase`.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Another object that it is about. Events of one object and reason are told apart by it:
    /// without one they are counted as the same event, with the first one's words.
    pub related: Option<ObjectReference>,
}

impl Note {
    /// Good news.
    pub fn normal(
        topic: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            warning: false,
            topic,
            reason: reason.into(),
            message: message.into(),
            related: None,
        }
    }

    /// Something to worry about.
    pub fn warning(
        topic: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { warning: true, ..Self::normal(topic, reason, message) }
    }

    /// The same about another object.
    #[must_use]
    pub fn about<K: Resource<DynamicType = ()>>(self, object: &K) -> Self {
        Self { related: Some(object.object_ref(&())), ..self }
    }
}

type Said = HashMap<(String, &'static str), (String, String)>;

/// The one recorder of a process. Clones share.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Note)>,
    said: Arc<Mutex<Said>>,
    metrics: Metrics,
}

impl Events {
    /// Starts the task that sends them; it ends when the last clone is gone.
    pub fn start(client: Client, controller: &str, instance: &str, metrics: &Metrics) -> Self {
        let reporter = Reporter {
            controller: format!("gastown.io/{controller}"),
            instance: Some(instance.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut waiting) = mpsc::channel::<(ObjectReference, Note)>(QUEUE);
        tokio::spawn(async move {
            while let Some((object, note)) = waiting.recv().await {
                let event = Event {
                    type_: if note.warning { EventType::Warning } else { EventType::Normal },
                    action: note.topic.to_owned(),
                    reason: note.reason,
                    note: Some(cut(note.message)),
                    secondary: note.related,
                };
                if let Err(error) = recorder.publish(&event, &object).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "an event was not published"
                    );
                }
            }
        });
        Self { queue, said: Arc::default(), metrics: metrics.clone() }
    }

    /// Says it, unless it was the last thing said about this topic of this object. Never waits,
    /// never fails.
    pub fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, note: Note) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        {
            let mut said = self.said.lock();
            if said.len() >= REMEMBERED {
                said.clear();
            }
            let words = (note.reason.clone(), note.message.clone());
            if said.insert((uid, note.topic), words.clone()) == Some(words) {
                return;
            }
        }
        if self.queue.try_send((object.object_ref(&()), note)).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > NOTE_MAX {
        let end = (0..=NOTE_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
