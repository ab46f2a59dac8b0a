//! The identity of a caller: a projected service-account token, reviewed by the API server; reviews
//! are cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gastown_types::digest::sha256;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long the review of a valid token is cached.
const VALID_FOR: Duration = Duration::from_secs(60);
/// How long the review of an invalid token is cached.
const INVALID_FOR: Duration = Duration::from_secs(10);
/// How many reviews are cached. A stranger who sends many tokens only causes more reviews.
const MAX_CACHED: usize = 4096;
/// The longest token that is reviewed, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account's name.
    pub service_account: String,
    /// The name of the pod that the token is bound to.
    pub pod_name: Option<String>,
    /// The uid of the pod that the token is bound to.
    pub pod_uid: Option<String>,
}

/// Why a request has no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token is absent or invalid.
    #[error("{0}")]
    Unauthenticated(String),
    /// The API server did not review the token: the caller may try again.
    #[error("the token could not be reviewed: {0}")]
    Unavailable(String),
}

type Review = Result<Identity, Error>;
/// Until when a review counts, by the token's SHA-256: a dump of the memory holds no credentials.
type Cache = HashMap<String, (Instant, Review)>;

/// Has tokens reviewed by the API server. Clones share the cache.
#[derive(Clone)]
pub struct TokenReviewer {
    api: Api<TokenReview>,
    audience: Arc<str>,
    cache: Arc<Mutex<Cache>>,
}

impl TokenReviewer {
    /// A reviewer for tokens of an audience ([`crate::AUDIENCE`]).
    pub fn new(client: Client, audience: &str) -> Self {
        Self { api: Api::all(client), audience: audience.into(), cache: Arc::default() }
    }

    /// Reviews a token.
    pub async fn review(&self, token: &str) -> Review {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Error::Unauthenticated("the request has no bearer token".to_owned()));
        }
        let key = sha256(token);
        if let Some((until, review)) = self.cache.lock().get(&key)
            && Instant::now() < *until
        {
            return review.clone();
        }
        let review = self.request(token).await;
        let keep = match &review {
            Ok(_) => VALID_FOR,
            Err(Error::Unauthenticated(_)) => INVALID_FOR,
            Err(Error::Unavailable(_)) => return review,
        };
        let mut cache = self.cache.lock();
        if cache.len() >= MAX_CACHED {
            let now = Instant::now();
            cache.retain(|_, (until, _)| now < *until);
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
        }
        cache.insert(key, (Instant::now() + keep, review.clone()));
        review
    }

    /// Reviews the bearer token in a request's headers.
    pub async fn review_headers(&self, headers: &http::HeaderMap) -> Review {
        let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match token {
            Some((_, token)) => self.review(token.trim()).await,
            None => Err(Error::Unauthenticated("the request has no bearer token".to_owned())),
        }
    }

    async fn request(&self, token: &str) -> Review {
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
        // An API server that does not support audiences answers without any: that is not enough.
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
            return Err(Error::Unauthenticated(format!("{name} is not a service account")));
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
