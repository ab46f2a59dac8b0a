//! The channels that carry Escalations to people. Each makes one attempt and returns how it ended;
//! none keeps any state.

mod http;
mod mail;
mod notification;

use gastown_api::{Channel, Escalation, Route, SecretKeyRef};
use gastown_core::escalation::Outcome;
use gastown_runtime::events::{Events, Note};
use gastown_runtime::sentence;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

pub(crate) use notification::Notification;

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
                let note = Note::warning("Escalation", "Escalated", notification.headline());
                let sent = events.deliver(object, note).await;
                sent.map(|()| Outcome::Sent).map_err(|error| {
                    format!("creating an Event of the Escalation: {}", sentence::of(&error))
                })
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
            (Channel::Unknown, ..) => {
                Err("the route's channel is one that this version of witness-ctl does not know"
                    .to_owned())
            }
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
