use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams};

use super::*;

/// How a fake API server answers a request.
enum Answer {
    Status(u16),
    Broken(std::io::ErrorKind),
    Never,
}

/// A client whose `n`-th request (from 0) gets the `n`-th answer; the last one repeats.
fn client(metrics: &Metrics, answers: Vec<Answer>) -> (kube::Client, Arc<AtomicU32>) {
    let requests = Arc::new(AtomicU32::new(0));
    let (counter, answers) = (requests.clone(), Arc::new(answers));
    let fake = tower::service_fn(move |_: Request<Body>| {
        let n = counter.fetch_add(1, Ordering::SeqCst) as usize;
        let answers = answers.clone();
        async move {
            match &answers[n.min(answers.len() - 1)] {
                Answer::Status(200) => {
                    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "items": []});
                    Ok::<_, BoxError>(Response::new(Body::from(body.to_string().into_bytes())))
                }
                Answer::Status(code) => {
                    let body = serde_json::json!({"kind": "Status", "code": code, "status": "Failure", "message": "", "reason": ""});
                    Ok(Response::builder()
                        .status(*code)
                        .body(Body::from(body.to_string().into_bytes()))?)
                }
                Answer::Broken(kind) => Err(std::io::Error::from(*kind).into()),
                Answer::Never => std::future::pending().await,
            }
        }
    });
    let layer = CallLayer::new(metrics.clone(), DEADLINE);
    (ClientBuilder::new(fake, "default").with_layer(&layer).build(), requests)
}

fn count(metrics: &Metrics, verb: &'static str, code: &str) -> u64 {
    metrics.requests.get([verb.into(), "configmaps".into(), code.to_owned().into()])
}

#[tokio::test(start_paused = true)]
async fn a_request_to_an_overloaded_server_is_sent_again() {
    let metrics = Metrics::default();
    let (client, requests) =
        client(&metrics, vec![Answer::Status(429), Answer::Status(503), Answer::Status(200)]);
    Api::<ConfigMap>::namespaced(client, "ns").get("a").await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(count(&metrics, "get", "200"), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_are_limited() {
    let metrics = Metrics::default();
    let (client, requests) = client(&metrics, vec![Answer::Status(503)]);
    let refused = Api::<ConfigMap>::namespaced(client, "ns").get("a").await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 503), "{refused:?}");
    assert_eq!(requests.load(Ordering::SeqCst), MAX_RETRIES + 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_takes_the_deadline_and_no_longer() {
    let metrics = Metrics::default();
    let (client, _) = client(&metrics, vec![Answer::Never]);
    let started = tokio::time::Instant::now();
    let late = Api::<ConfigMap>::namespaced(client, "ns").list(&ListParams::default()).await;
    assert!(late.is_err());
    assert_eq!(started.elapsed().as_secs(), DEADLINE.as_secs());
    assert_eq!(count(&metrics, "list", "timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_on_a_broken_connection_is_sent_again_unless_it_may_have_created_something() {
    let metrics = Metrics::default();
    let broken = || vec![Answer::Broken(std::io::ErrorKind::ConnectionReset), Answer::Status(200)];
    let (client_get, requests) = client(&metrics, broken());
    Api::<ConfigMap>::namespaced(client_get, "ns").get("a").await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    let (client_post, requests) = client(&metrics, broken());
    let made = Api::<ConfigMap>::namespaced(client_post, "ns")
        .create(&PostParams::default(), &ConfigMap::default())
        .await;
    assert!(made.is_err());
    assert_eq!(requests.load(Ordering::SeqCst), 1);

    let refused = vec![Answer::Broken(std::io::ErrorKind::ConnectionRefused), Answer::Status(200)];
    let (client_refused, requests) = client(&metrics, refused);
    Api::<ConfigMap>::namespaced(client_refused, "ns")
        .create(&PostParams::default(), &ConfigMap::default())
        .await
        .unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_request_is_labelled_by_verb_and_resource_only() {
    let target = |method: &str, uri: &str| {
        let Target { verb, resource } =
            Target::of(&Request::builder().method(method).uri(uri).body(()).unwrap());
        format!("{verb} {resource}")
    };
    assert_eq!(
        target("GET", "/apis/gastown.gastown.io/v1alpha1/namespaces/a/polecats/b"),
        "get polecats"
    );
    assert_eq!(
        target(
            "PATCH",
            "/apis/gastown.gastown.io/v1alpha1/namespaces/a/polecats/b/status?force=true"
        ),
        "patch polecats/status"
    );
    assert_eq!(target("GET", "/apis/gastown.gastown.io/v1alpha1/rigs"), "list rigs");
    assert_eq!(target("GET", "/api/v1/pods?watch=true&resourceVersion=1"), "watch pods");
    assert_eq!(target("POST", "/api/v1/namespaces/a/pods"), "create pods");
    assert_eq!(target("GET", "/api/v1/namespaces/a"), "get namespaces");
    assert_eq!(target("PUT", "/api/v1/namespaces/a/finalize"), "update namespaces/finalize");
    assert_eq!(target("GET", "/version"), "get nonresource");
}
