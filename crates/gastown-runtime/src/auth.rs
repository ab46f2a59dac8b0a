//! Who calls: a projected service-account token, checked by the API server and remembered for a
//! while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// A token found good is believed for this long without asking again.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// A token found bad is refused for this long without asking again.
const BAD_FOR: Duration = Duration::from_secs(10);
/// How many tokens are remembered; a stranger who sends many only makes us ask more often.
const REMEMBERED: usize = 4096;
/// No token is longer.
const TOKEN_MAX: usize = 16 * 1024;

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod_name: Option<String>,
    /// Its uid.
    pub pod_uid: Option<String>,
}

/// Why a call has no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller's fault.
    #[error("{0}")]
    Unauthenticated(String),
    /// Ours, or the API server's: the caller may try again.
    #[error("the token could not be checked: {0}")]
    Unavailable(String),
}

type Verdict = Result<Identity, Error>;
type Known = HashMap<[u8; 32], (Instant, Verdict)>;

/// Asks the API server about tokens. Clones share one memory.
#[derive(Clone)]
pub struct TokenReviewer {
    api: Api<TokenReview>,
    audience: Arc<str>,
    known: Arc<Mutex<Known>>,
}

impl TokenReviewer {
    /// A reviewer for tokens of an audience ([`crate::AUDIENCE`]).
    pub fn new(client: Client, audience: &str) -> Self {
        Self { api: Api::all(client), audience: audience.into(), known: Arc::default() }
    }

    /// Whose token it is.
    pub async fn review(&self, token: &str) -> Verdict {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Err(Error::Unauthenticated("no bearer token".to_owned()));
        }
        // The memory holds digests: a dump of it is no set of credentials.
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some((until, verdict)) = self.known.lock().get(&key)
            && Instant::now() < *until
        {
            return verdict.clone();
        }
        let verdict = self.ask(token).await;
        let keep = match &verdict {
            Ok(_) => GOOD_FOR,
            Err(Error::Unauthenticated(_)) => BAD_FOR,
            Err(Error::Unavailable(_)) => return verdict,
        };
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            let now = Instant::now();
            known.retain(|_, (until, _)| now < *until);
            if known.len() >= REMEMBERED {
                known.clear();
            }
        }
        known.insert(key, (Instant::now() + keep, verdict.clone()));
        verdict
    }

    /// The bearer token of a request's headers, and whose it is.
    pub async fn review_headers(&self, headers: &http::HeaderMap) -> Verdict {
        let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match token {
            Some((_, token)) => self.review(token.trim()).await,
            None => Err(Error::Unauthenticated("no bearer token".to_owned())),
        }
    }

    async fn ask(&self, token: &str) -> Verdict {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.to_string()]),
            },
            ..TokenReview::default()
        };
        let answer = self.api.create(&PostParams::default(), &review).await;
        let status = answer
            .map_err(|error| Error::Unavailable(error.to_string()))?
            .status
            .unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(Error::Unauthenticated(
                status.error.unwrap_or_else(|| "the token is not valid".to_owned()),
            ));
        }
        // An API server that knows no audiences answers without any: its word is not enough.
        if !status.audiences.iter().flatten().any(|audience| **audience == *self.audience) {
            return Err(Error::Unauthenticated(format!(
                "the token is not for audience {}",
                self.audience
            )));
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        let Some((namespace, service_account)) =
            name.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'))
        else {
            return Err(Error::Unauthenticated(format!("{name} is no service account")));
        };
        let extra = user.extra.unwrap_or_default();
        let claim = |name: &str| {
            extra
                .get(&format!("authentication.kubernetes.io/{name}"))
                .and_then(|values| values.first().cloned())
        };
        Ok(Identity {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            pod_name: claim("pod-name"),
            pod_uid: claim("pod-uid"),
        })
    }
}
