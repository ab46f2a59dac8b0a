//! The identity of a caller: a projected service-account token, reviewed by the API server; reviews
//! are cached.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gastown_types::digest::sha256;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long the review of a valid token is cached.
const VALID_FOR: Duration = Duration::from_secs(60);
/// How long the review of an invalid token is cached.
const INVALID_FOR: Duration = Duration::from_secs(10);
/// How many reviews of valid tokens are cached, and of invalid ones: a stranger's many tokens push
/// none of the valid ones out.
const MAX_CACHED: usize = 4096;
/// How many reviews are under way at a time.
const MAX_REVIEWS: usize = 8;
/// The longest token that is reviewed, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account's name; of a controller's account the controller's ([`Account`]).
    pub service_account: String,
    /// The name of the pod that the token is bound to.
    pub pod_name: Option<String>,
    /// The uid of the pod that the token is bound to.
    pub pod_uid: Option<String>,
}

/// The service account of a controller, where it has another name than the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The controller's name, such as `polecat-ctl`.
    pub controller: String,
    /// The name of its service account in the release's namespace.
    pub account: String,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((controller, account)) if !controller.is_empty() && !account.is_empty() => {
                Ok(Self { controller: controller.to_owned(), account: account.to_owned() })
            }
            _ => Err(format!("{text:?} is not CONTROLLER=ACCOUNT")),
        }
    }
}

/// The controllers of one namespace whose service accounts have another name.
#[derive(Debug, Default)]
struct Accounts {
    release: String,
    renamed: Vec<Account>,
}

impl Accounts {
    /// The name by which policies know an account: that of its controller. An account with the name of a
    /// controller that has another account gets one that no policy knows.
    fn known_as(&self, namespace: &str, account: &str) -> String {
        if namespace != self.release {
            return account.to_owned();
        }
        if let Some(own) = self.renamed.iter().find(|a| a.account == account) {
            return own.controller.clone();
        }
        if self.renamed.iter().any(|a| a.controller == account) {
            return format!("serviceaccount/{account}");
        }
        account.to_owned()
    }
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
/// Reviews by the token's SHA-256: a dump of the memory holds no credentials.
type Cache<T> = Arc<Mutex<HashMap<String, (Instant, T)>>>;

/// Has tokens reviewed by the API server. Clones share the caches.
#[derive(Clone)]
pub struct TokenReviewer {
    api: Api<TokenReview>,
    audience: Arc<str>,
    accounts: Arc<Accounts>,
    valid: Cache<Identity>,
    invalid: Cache<String>,
    /// Reviews that are under way: a second caller with the same token waits for the first.
    running: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    slots: Arc<Semaphore>,
}

/// Keeps a review, in a cache of bounded size.
fn keep<T>(cache: &Cache<T>, key: &str, time: Duration, review: T) {
    let (now, mut cache) = (Instant::now(), cache.lock());
    if cache.len() >= MAX_CACHED {
        cache.retain(|_, (until, _)| now < *until);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
    }
    cache.insert(key.to_owned(), (now + time, review));
}

/// What a service account's token states of itself.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    sub: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Whether a text has the shape of a service account's token for the audience. It proves nothing: the
/// signature is not looked at, nor the time, since this machine's clock may be wrong.
fn may_be_valid(token: &str, audience: &str) -> bool {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(payload) = URL_SAFE_NO_PAD.decode(payload) else { return false };
    let Ok(claims) = serde_json::from_slice::<Claims>(&payload) else { return false };
    let is_for_us = match &claims.aud {
        Audiences::One(one) => one == audience,
        Audiences::Many(all) => all.iter().any(|one| one == audience),
    };
    is_for_us && claims.sub.starts_with("system:serviceaccount:")
}

impl TokenReviewer {
    /// A reviewer for tokens of an audience ([`crate::AUDIENCE`]).
    pub fn new(client: Client, audience: &str) -> Self {
        Self {
            api: Api::all(client),
            audience: audience.into(),
            accounts: Arc::default(),
            valid: Cache::default(),
            invalid: Cache::default(),
            running: Arc::default(),
            slots: Arc::new(Semaphore::new(MAX_REVIEWS)),
        }
    }

    /// Has these accounts of the release's namespace stand for their controllers.
    #[must_use]
    pub fn with_accounts(mut self, release: &str, renamed: &[Account]) -> Self {
        let (release, renamed) = (release.to_owned(), renamed.to_vec());
        self.accounts = Arc::new(Accounts { release, renamed });
        self
    }

    /// Reviews a token. A text that is no token for our audience costs no request.
    pub async fn review(&self, token: &str) -> Review {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Error::Unauthenticated("the request has no bearer token".to_owned()));
        }
        if !may_be_valid(token, &self.audience) {
            return Err(Error::Unauthenticated(format!(
                "the token is not a service account's for audience {}",
                self.audience
            )));
        }
        let key = sha256(token);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let own = self.running.lock().entry(key.clone()).or_default().clone();
        let review = {
            let _first = own.lock().await;
            match self.known(&key) {
                Some(known) => known,
                None => self.request(&key, token).await,
            }
        };
        // The last of those that wait removes it: the map and this function hold one each.
        let mut running = self.running.lock();
        if Arc::strong_count(&own) <= 2 {
            running.remove(&key);
        }
        review
    }

    fn known(&self, key: &str) -> Option<Review> {
        let now = Instant::now();
        if let Some((until, identity)) = self.valid.lock().get(key)
            && now < *until
        {
            return Some(Ok(identity.clone()));
        }
        let invalid = self.invalid.lock();
        let (_, why) = invalid.get(key).filter(|(until, _)| now < *until)?;
        Some(Err(Error::Unauthenticated(why.clone())))
    }

    async fn request(&self, key: &str, token: &str) -> Review {
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(Error::Unavailable("the server is ending".to_owned()));
        };
        let review = self.ask(token).await;
        match &review {
            Ok(identity) => keep(&self.valid, key, VALID_FOR, identity.clone()),
            Err(Error::Unauthenticated(why)) => keep(&self.invalid, key, INVALID_FOR, why.clone()),
            Err(Error::Unavailable(_)) => {}
        }
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

    async fn ask(&self, token: &str) -> Review {
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
            service_account: self.accounts.known_as(namespace, service_account),
            pod_name: claim("pod-name"),
            pod_uid: claim("pod-uid"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(payload: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    #[test]
    fn only_what_looks_like_a_token_for_us_is_worth_a_review() {
        let account = "system:serviceaccount:ns:default";
        for good in [json!("gastown"), json!(["other", "gastown"])] {
            assert!(may_be_valid(&token(&json!({"aud": good, "sub": account})), "gastown"));
        }
        for bad in [
            json!({"aud": "https://kubernetes.default.svc", "sub": account}),
            json!({"sub": account}),
            json!({"aud": "gastown", "sub": "somebody"}),
            json!({"aud": 7, "sub": account}),
            json!("gastown"),
        ] {
            assert!(!may_be_valid(&token(&bad), "gastown"), "{bad}");
        }
        let good = token(&json!({"aud": "gastown", "sub": account}));
        for bad in ["", "junk", "a.b", "a.b.c", "a.b.c.d", &format!("{good}.x"), &good[4..]] {
            assert!(!may_be_valid(bad, "gastown"), "{bad}");
        }
    }

    #[test]
    fn an_account_stands_for_its_controller_and_nobody_else_does() {
        let renamed = vec!["polecat-ctl=agents".parse().unwrap(), "a=b".parse().unwrap()];
        let accounts = Accounts { release: "system".to_owned(), renamed };
        let known_as = |namespace, account| accounts.known_as(namespace, account);
        assert_eq!(known_as("system", "agents"), "polecat-ctl");
        assert_eq!(known_as("system", "polecat-ctl"), "serviceaccount/polecat-ctl");
        assert_eq!(known_as("system", "rig-ctl"), "rig-ctl");
        assert_eq!(known_as("elsewhere", "agents"), "agents");
        assert_eq!(Accounts::default().known_as("system", "rig-ctl"), "rig-ctl");
        for wrong in ["", "polecat-ctl", "=a", "a="] {
            assert!(wrong.parse::<Account>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cache_is_bounded_and_strangers_do_not_empty_the_one_of_the_valid() {
        let (valid, invalid) = (Cache::default(), Cache::default());
        keep(&valid, "ours", VALID_FOR, "identity");
        for n in 0..3 * MAX_CACHED {
            keep(&invalid, &n.to_string(), INVALID_FOR, "why");
        }
        assert!(invalid.lock().len() <= MAX_CACHED);
        assert!(valid.lock().contains_key("ours"));
    }
}
