//! Candidates and an API server that has one Lease with real optimistic concurrency, and can be cut
//! off.

use std::collections::HashSet;

use http::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    writes: Vec<String>,
    /// Candidates whose requests have no effect and get no answer.
    cut_off: HashSet<&'static str>,
    /// Candidates whose requests have an effect, but whose answers are lost.
    answers_lost: HashSet<&'static str>,
    /// Candidates whose answers take 1.5 s.
    slow: HashSet<&'static str>,
}

impl Server {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let wanted: Value = serde_json::from_slice(body).unwrap_or_default();
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
            )
        };
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => (200, lease.clone()),
            (&Method::GET | &Method::PUT, None) => failure(404, "NotFound"),
            (&Method::POST, Some(_)) => failure(409, "AlreadyExists"),
            (&Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"]
                    != wanted["metadata"]["resourceVersion"] =>
            {
                failure(409, "Conflict")
            }
            _ => {
                self.version += 1;
                let mut stored = wanted;
                stored["metadata"]["resourceVersion"] = json!(self.version.to_string());
                stored["metadata"]["uid"] = json!("uid");
                self.writes
                    .push(stored["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned());
                self.lease = Some(stored.clone());
                (200, stored)
            }
        }
    }
}

type Shared = Arc<Mutex<Server>>;

fn client(server: &Shared, who: &'static str) -> kube::Client {
    let server = server.clone();
    let fake = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.map_err(|error| error.to_string())?;
            if server.lock().cut_off.contains(who) {
                std::future::pending::<()>().await;
            }
            let (code, answer) = server.lock().answer(&parts.method, &body);
            if server.lock().answers_lost.contains(who) {
                std::future::pending::<()>().await;
            }
            if server.lock().slow.contains(who) {
                tokio::time::sleep(Duration::from_millis(1_500)).await;
            }
            Response::builder()
                .status(code)
                .body(Body::from(answer.to_string().into_bytes()))
                .map_err(|error| error.to_string())
        }
    });
    kube::Client::new(
        tower::ServiceBuilder::new()
            .map_err(|error: String| -> tower::BoxError { error.into() })
            .service(fake),
        "ns",
    )
}

/// A candidate, the token that stops it, and its task.
fn candidate(
    server: &Shared,
    who: &'static str,
) -> (Leadership, CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let config = Config::new("ns", "gastown-test", who);
    let (leadership, task) = spawn(client(server, who), config, &Metrics::default(), stop.clone());
    (leadership, stop, task)
}

/// The fencing token of a lease that is acquired within a minute; with paused time a test that
/// waits longer would spin forever.
async fn acquired(leadership: &Leadership) -> i32 {
    tokio::time::timeout(Duration::from_secs(60), leadership.acquired())
        .await
        .expect("not acquired within a minute")
}

/// Lets time pass in small steps, and checks at each that at most one candidate holds the lease.
async fn pass(seconds: u64, candidates: &[&Leadership]) {
    for _ in 0..seconds * 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let holders = candidates.iter().filter(|leadership| leadership.held().is_some()).count();
        assert!(holders <= 1, "{holders} candidates hold the lease");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_candidate_acquires_the_lease_and_the_second_waits() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    let (b, ..) = candidate(&server, "b");
    pass(60, &[&a, &b]).await;
    assert!(a.held().is_some() && b.held().is_none());
    assert_eq!(b.holder().as_deref(), Some("a"));
}

/// During an upgrade two versions compete for one lease.
#[tokio::test(start_paused = true)]
async fn a_lease_of_an_earlier_version_is_waited_for_and_today_s_is_read_by_it() {
    for sample in gastown_compat::samples("replica-lease.json") {
        let server = Shared::default();
        let mut lease: Value = serde_json::from_str(&sample.text).unwrap();
        (lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]) = (json!("u"), json!("1"));
        (server.lock().lease, server.lock().version) = (Some(lease), 1);
        let (a, ..) = candidate(&server, "a");
        pass(25, &[&a]).await;
        assert_eq!(a.holder().as_deref(), Some("polecat-ctl-5f6d-abcde"), "{}", sample.version);
        assert_eq!(acquired(&a).await, 5, "the next token after that of {}", sample.version);
        let written = server.lock().lease.clone().unwrap();
        assert_eq!(gastown_compat::v0_1_0::replica(&written), Ok(("a".to_owned(), 30, 5)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_hands_over_at_once_with_a_new_token() {
    let server = Shared::default();
    let (a, stop, task) = candidate(&server, "a");
    let first = acquired(&a).await;
    let (b, ..) = candidate(&server, "b");
    pass(5, &[&a, &b]).await;
    stop.cancel();
    task.await.unwrap();
    assert!(a.held().is_none());
    let released = Instant::now();
    let second = acquired(&b).await;
    assert!(released.elapsed() <= Duration::from_millis(2_300), "{:?}", released.elapsed());
    assert!(second > first);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_loses_the_lease_before_another_takes_over() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    let (b, ..) = candidate(&server, "b");
    pass(7, &[&a, &b]).await;
    server.lock().cut_off.insert("a");
    pass(40, &[&a, &b]).await;
    assert!(a.held().is_none() && b.held().is_some());
    server.lock().cut_off.clear();
    pass(40, &[&a, &b]).await;
    assert!(
        a.held().is_none() && b.held().is_some(),
        "a candidate that comes back does not replace the holder"
    );
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_does_not_extend_the_lease() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    server.lock().answers_lost.insert("a");
    pass(16, &[&a]).await;
    assert!(a.held().is_none());
    server.lock().answers_lost.clear();
    pass(5, &[&a]).await;
    assert!(a.held().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_does_not_change_the_holder() {
    let server = Shared::default();
    server.lock().slow.extend(["a", "b"]);
    let (a, ..) = candidate(&server, "a");
    let first = acquired(&a).await;
    let (b, ..) = candidate(&server, "b");
    pass(120, &[&a, &b]).await;
    assert_eq!(a.held(), Some(first));
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_at_once_one_is_the_holder() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    let (b, ..) = candidate(&server, "b");
    pass(30, &[&a, &b]).await;
    assert!(a.held().is_some() != b.held().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_has_one_holder_with_a_new_token() {
    // After each share of the time between two renewals.
    for tenths in 0..110 {
        let server = Shared::default();
        let (a, ..) = candidate(&server, "a");
        let first = acquired(&a).await;
        let (b, ..) = candidate(&server, "b");
        pass(5, &[&a, &b]).await;
        tokio::time::sleep(Duration::from_millis(100 * tenths)).await;
        server.lock().lease = None;
        pass(60, &[&a, &b]).await;
        let held = a.held().or(b.held());
        assert!(held.is_some_and(|second| second > first), "{held:?} after {first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_waits_for_a_holder_that_is_cut_off_when_its_lease_is_deleted() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    let (b, ..) = candidate(&server, "b");
    pass(12, &[&a, &b]).await;
    server.lock().cut_off.insert("a");
    server.lock().lease = None;
    pass(60, &[&a, &b]).await;
    assert!(a.held().is_none() && b.held().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_the_same_name_goes_on_at_once_with_a_new_token() {
    let server = Shared::default();
    let (a, _, task) = candidate(&server, "a");
    let first = acquired(&a).await;
    task.abort();
    let (again, ..) = candidate(&server, "a");
    let started = Instant::now();
    let second = acquired(&again).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(second > first);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_in_the_lease_does_not_matter() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    let (b, ..) = candidate(&server, "b");
    for _ in 0..30 {
        // As from a holder whose clock is years behind: b must not treat the lease as expired.
        if let Some(lease) = server.lock().lease.as_mut() {
            lease["spec"]["renewTime"] = json!("2001-01-01T00:00:00.000000Z");
        }
        pass(1, &[&a, &b]).await;
    }
    assert!(a.held().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_idle_holder_writes_six_times_a_minute() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    server.lock().writes.clear();
    pass(60, &[&a]).await;
    let writes = server.lock().writes.len();
    assert!((5..=7).contains(&writes), "{writes}");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_loss_ends_when_the_lease_runs_out() {
    let server = Shared::default();
    let (a, ..) = candidate(&server, "a");
    acquired(&a).await;
    server.lock().cut_off.insert("a");
    let cut = Instant::now();
    a.lost().await;
    assert!(cut.elapsed() <= Duration::from_millis(15_100), "{:?}", cut.elapsed());
}
