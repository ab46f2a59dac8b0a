//! What is sent to people about an Escalation.

use std::fmt::Write as _;

use gastown_api::{Escalation, Severity};
use gastown_types::text;
use kube::ResourceExt as _;
use serde::Serialize;

/// The longest headline that is made from a summary, in characters.
const MAX_HEADLINE: usize = 200;
/// The longest text that is sent of a summary or of details, in characters.
const MAX_TEXT: usize = 16_384;

/// What is sent about an Escalation; a webhook gets it as JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notification {
    namespace: String,
    name: String,
    uid: String,
    rig: String,
    severity: &'static str,
    cause: String,
    summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_object: Option<gastown_api::RelatedObject>,
    raises: u32,
}

impl Notification {
    pub fn new(object: &Escalation, severity: Severity, raises: u32) -> Self {
        let spec = object.spec.clone();
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            rig: spec.rig_ref,
            severity: severity.as_str(),
            cause: spec.cause,
            summary: spec.summary,
            details: spec.details,
            source: spec.source,
            related_object: spec.related_object,
            raises,
        }
    }

    /// The same for each attempt at one severity, so that a receiver can drop repetitions.
    pub fn id(&self) -> String {
        format!("{}-{}", self.uid, self.severity)
    }

    /// The text for people. Summary and details may come from an agent.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}\n\nrig {}, severity {}, raised by {}",
            text::block(&self.summary, MAX_TEXT),
            self.rig,
            self.severity,
            self.source
        );
        if let Some(about) = &self.related_object {
            let place = about.namespace.as_deref().map(|n| format!("{n}/")).unwrap_or_default();
            let _ = write!(text, "\nabout {} {place}{}", about.kind, about.name);
        }
        if let Some(details) = &self.details {
            text.push_str("\n\n");
            text.push_str(&text::block(details, MAX_TEXT));
        }
        let _ = write!(text, "\n\nkubectl -n {} describe escalation {}", self.namespace, self.name);
        text
    }

    /// One line for people.
    pub fn headline(&self) -> String {
        let summary = text::line(&self.summary, MAX_HEADLINE);
        format!("[{}] {}: {summary}", self.severity, self.rig)
    }
}

#[cfg(test)]
pub(crate) fn notification() -> Notification {
    let spec = gastown_api::EscalationSpec {
        severity: Severity::High,
        cause: "polecat/work/toast/AttemptsSpent".into(),
        summary: "Toast <gave> up & left.\r\nBcc: everybody@example.com".into(),
        details: Some("three tries".into()),
        source: "polecat-ctl".into(),
        rig_ref: "web".into(),
        related_object: Some(gastown_api::RelatedObject {
            kind: "Polecat".into(),
            namespace: Some("work".into()),
            name: "toast".into(),
        }),
        acknowledged: None,
        closed: None,
    };
    let mut object = Escalation::new("esc-1", spec);
    object.metadata.namespace = Some("work".into());
    object.metadata.uid = Some("uid-1".into());
    Notification::new(&object, Severity::High, 2)
}
