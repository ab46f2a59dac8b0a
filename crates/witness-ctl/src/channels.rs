//! The channels that carry Escalations to people. Each makes one attempt and returns how it ended;
//! none keeps any state.

mod http;
mod mail;

use std::fmt::Write as _;

use gastown_api::{Channel, Escalation, Route, SecretKeyRef, Severity};
use gastown_core::escalation::Outcome;
use gastown_runtime::events::{Events, Note};
use gastown_types::text;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
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
    fn id(&self) -> String {
        format!("{}-{}", self.uid, self.severity)
    }

    /// The text for people. Summary and details may come from an agent.
    fn text(&self) -> String {
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

    fn headline(&self) -> String {
        let summary = text::line(&self.summary, MAX_HEADLINE);
        format!("[{}] {}: {summary}", self.severity, self.rig)
    }
}

pub(crate) struct Channels {
    client: Client,
    http: http::HttpClient,
}

impl Channels {
    pub fn new(client: Client) -> anyhow::Result<Self> {
        Ok(Self { client, http: http::HttpClient::new()? })
    }

    /// Makes one attempt along a route of a Witness in `namespace`.
    pub async fn send(
        &self,
        route: &Route,
        namespace: &str,
        notification: &Notification,
        object: &Escalation,
        events: &Events,
    ) -> Outcome {
        let outcome = match (route.channel, &route.webhook, &route.slack, &route.email) {
            (Channel::Mayor, ..) => {
                // One topic for each object: a higher severity is another message of it.
                events.publish(
                    object,
                    Note::warning("Escalation", "Escalated", notification.headline()),
                );
                Ok(Outcome::Sent)
            }
            (Channel::Webhook, Some(to), ..) => {
                self.post(
                    namespace,
                    &to.url_secret_ref,
                    notification,
                    &serde_json::json!(notification),
                )
                .await
            }
            (Channel::Slack, _, Some(to), _) => {
                self.post(namespace, &to.url_secret_ref, notification, &http::slack(notification))
                    .await
            }
            (Channel::Email, _, _, Some(to)) => match &to.credentials_secret_ref {
                None => Ok(mail::send(to, None, notification).await),
                Some(secret) => match self.credentials(namespace, &secret.name).await {
                    Ok(login) => Ok(mail::send(to, Some(login), notification).await),
                    Err(why) => Err(why),
                },
            },
            (channel, ..) => Err(format!("the route has no settings for channel {channel:?}")),
        };
        outcome.unwrap_or_else(|why| Outcome::Failed { why, after: None })
    }

    async fn post(
        &self,
        namespace: &str,
        url: &SecretKeyRef,
        notification: &Notification,
        body: &serde_json::Value,
    ) -> Result<Outcome, String> {
        let url = self.value(namespace, &url.name, &url.key).await?;
        Ok(self.http.post(url.trim(), &notification.id(), body).await)
    }

    async fn credentials(&self, namespace: &str, secret: &str) -> Result<(String, String), String> {
        Ok((
            self.value(namespace, secret, "username").await?,
            self.value(namespace, secret, "password").await?,
        ))
    }

    /// A value of a Secret, read again for each attempt.
    async fn value(&self, namespace: &str, name: &str, key: &str) -> Result<String, String> {
        let secret = Api::<Secret>::namespaced(self.client.clone(), namespace).get(name).await.map_err(|e| match e {
            kube::Error::Api(status) if status.code == 404 => format!("SecretNotFound: secret {name} is not in namespace {namespace}"),
            kube::Error::Api(status) if status.code == 403 => format!(
                "SecretForbidden: secret {name} in namespace {namespace} may not be read: add {namespace} to the chart's \
                 witness.secretNamespaces"
            ),
            error => format!("reading secret {name}: {error}"),
        })?;
        let value =
            secret.data.unwrap_or_default().remove(key).map(|v| v.0).filter(|v| !v.is_empty());
        let value =
            value.ok_or_else(|| format!("SecretNotFound: secret {name} has no key {key}"))?;
        String::from_utf8(value)
            .map_err(|_| format!("key {key} of secret {name} is not valid UTF-8"))
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
