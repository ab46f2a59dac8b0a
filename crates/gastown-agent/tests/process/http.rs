//! Remotes over HTTP, and `gt fetch` from refinery-ctl's endpoint.

use std::io::{Read, Write};
use std::net::TcpListener;

use gastown_core::report::{InitResult, SyncResult};
use gastown_fakes::git_http::{Config, GitHttp};
use tokio::runtime::Runtime;

use crate::pod::{Origin, Pod, git, until};

/// A server of the repository, with or without a login.
pub fn server(origin: &Origin, login: Option<(&str, &str)>) -> (Runtime, GitHttp) {
    let runtime = Runtime::new().unwrap();
    let login = login.map(|(u, p)| (u.to_owned(), p.to_owned()));
    let dir = origin.path().parent().unwrap().to_owned();
    let http = runtime.block_on(GitHttp::start_with(Config { dir, login })).unwrap();
    git(&origin.path(), &["config", "http.receivepack", "true"]);
    (runtime, http)
}

const COMMIT: &str = "echo w > w; git add w; git commit -q -m w\n";

#[test]
fn an_open_repository_needs_no_secret() {
    let origin = Origin::new();
    let (_runtime, http) = server(&origin, None);
    let pod = Pod::new(&http.repository("r"));
    pod.ready();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent(COMMIT));
    assert_eq!(code, Some(0), "{}", pod.log("sync"));
    assert_eq!(pod.end_sync(sync).result, SyncResult::Pushed);
}

#[test]
fn the_password_comes_from_the_secret_and_a_wrong_one_is_reported() {
    let origin = Origin::new();
    let (_runtime, http) = server(&origin, Some(("me", "p:w/%")));
    let mut pod = Pod::new(&http.repository("r"));
    assert_eq!(pod.init().result, InitResult::BadCredentials);
    pod.set("GASTOWN_GIT_SECRET", "forge");
    let report = pod.init();
    assert_eq!(
        (report.result, report.message.contains("secret forge not found")),
        (InitResult::SecretNotFound, true),
        "{report:?}"
    );
    pod.put("git-creds/username", "me\n").put("git-creds/password", "wrong");
    let report = pod.init();
    assert_eq!(
        (report.result, report.message.contains("secret forge")),
        (InitResult::BadCredentials, true),
        "{report:?}"
    );
    assert!(!report.message.contains("wrong"), "{report:?}");
    pod.put("git-creds/password", "p:w/%\n");
    pod.ready();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent(COMMIT));
    assert_eq!(code, Some(0), "{}", pod.log("sync"));
    assert_eq!(pod.end_sync(sync).result, SyncResult::Pushed);
    for container in ["init", "sync", "run"] {
        assert!(!pod.log(container).contains("p:w/%"), "{container} logs the password");
    }
}

#[test]
fn a_server_that_was_down_gets_the_work_after_the_agents_end() {
    let origin = Origin::new();
    let (runtime, mut http) = server(&origin, None);
    let mut pod = Pod::new(&http.repository("r"));
    pod.set("GASTOWN_DEADLINE_SECONDS", "1");
    pod.ready();
    let sync = pod.sync();
    runtime.block_on(http.down());
    let mut run = pod.agent(COMMIT);
    until("the sidecar has failed to connect", || pod.log("sync").contains("RemoteUnreachable"));
    // The agent's container is gone, the sidecar has its grace.
    run.child.kill().unwrap();
    run.wait();
    sync.signal(rustix::process::Signal::TERM);
    until("the last push has begun", || pod.log("sync").contains("pushing what is left"));
    runtime.block_on(http.up()).unwrap();
    let record = pod.end_sync_started(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(1)), "{}", pod.log("sync"));
}

#[test]
fn a_gate_gets_exactly_its_candidate() {
    let origin = Origin::new();
    let first = origin.at("main").unwrap();
    origin.another_writer("main");
    let (_runtime, http) = server(&origin, None);
    let mut pod = Pod::new("file:///unused");
    pod.set("GASTOWN_GIT_URL", &http.repository("r")).set("GASTOWN_CANDIDATE", &first);
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(0), "{}", pod.log("fetch"));
    assert_eq!(git(&pod.repo(), &["rev-parse", "HEAD"]), first);
    assert_eq!(git(&pod.repo(), &["status", "--porcelain"]), "");
    // A second start of the container begins again from nothing.
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(0), "{}", pod.log("fetch"));
    pod.set("GASTOWN_CANDIDATE", &"a".repeat(40));
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(1));
    assert!(pod.log("fetch").contains("CandidateNotFound"), "{}", pod.log("fetch"));
}

#[test]
fn the_gates_token_is_sent_as_a_header_and_is_not_logged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/git/rig/main", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut chunk = [0; 4096];
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            let n = stream.read(&mut chunk).unwrap();
            head.extend_from_slice(&chunk[..n]);
        }
        stream
            .write_all(
                b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        String::from_utf8(head).unwrap()
    });
    let mut pod = Pod::new("file:///unused");
    pod.put("token", "s3cret.token\n");
    let token = pod.path("token").display().to_string();
    pod.set("GASTOWN_GIT_URL", &url)
        .set("GASTOWN_CANDIDATE", &"a".repeat(40))
        .set("GASTOWN_TOKEN_FILE", &token);
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(1));
    let head = server.join().unwrap();
    assert!(head.contains("Authorization: Bearer s3cret.token"), "{head}");
    assert!(
        pod.log("fetch").contains("BadCredentials") && !pod.log("fetch").contains("s3cret"),
        "{}",
        pod.log("fetch")
    );
}
