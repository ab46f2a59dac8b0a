//! One life of three requests: one lands, one conflicts with what has landed, the gate of one fails;
//! and what comes of it. refinery-ctl may be another process at any time.

use std::time::Duration;

use anyhow::{Result, ensure};
use gastown_api::names::annotation;
use gastown_api::{GateRun, GateRunPurpose, MergeRequest, Polecat, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_fakes::git_http::GitHttp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::fixture::{Fixture, TIMEOUT, git};

/// What a life comes to. Names and times that differ from life to life are left out. A landing that
/// another process finds has another reason, and no run of a gate is begun twice.
#[derive(Debug, PartialEq)]
pub struct End {
    /// The commits of the target, the oldest first, with the requests whose trailers they have.
    target: Vec<String>,
    /// The tree of the target.
    tree: String,
    /// All refs of the remote.
    refs: Vec<String>,
    /// What the requests show.
    requests: Vec<Value>,
    /// The runs of gates: for which request, why, and how each ended.
    runs: Vec<String>,
    /// The pods of gates that were ever started.
    started: Vec<String>,
    /// Jobs that are left.
    jobs: usize,
    /// What the author of the landed request shows.
    merged: Value,
    /// What the Refinery shows.
    refinery: Value,
}

impl End {
    /// The commits of the target, the oldest first.
    pub fn landed(&self) -> &[String] {
        &self.target
    }
}

pub struct Life {
    pub fixture: Fixture,
    pub git: GitHttp,
    started: Mutex<Vec<String>>,
}

impl Life {
    /// A namespace, a rig and a git server of its own.
    pub async fn new(plane: &ControlPlane) -> Result<Self> {
        let fixture = Fixture::without_rig(plane).await?;
        let git = GitHttp::start(fixture.dir.path()).await?;
        fixture.make_rig(&git.repository("remote")).await?;
        fixture.refinery(Some("run the tests")).await?;
        Ok(Self { fixture, git, started: Mutex::default() })
    }

    /// What authors and the kubelet do.
    pub async fn live(&self) -> End {
        tokio::select! {
            end = self.requests() => end.unwrap(),
            () = self.kubelet() => unreachable!("the kubelet does not end"),
        }
    }

    async fn requests(&self) -> Result<End> {
        let fixture = &self.fixture;
        let a = fixture.branch("feature/a", "file", "A\n2\n3\n");
        let b = fixture.branch("feature/b", "file", "B\n2\n3\n");
        let red = fixture.branch("feature/red", "red", "bad\n");
        fixture.commit("meanwhile", &[("other", "1\n")]);
        fixture.push("main");
        let toast = fixture.polecat("toast").await?;
        fixture.submit("mr-a", "feature/a", &a, Some(&toast)).await?;
        fixture.phase("mr-a", "Landed").await?;
        for (name, commit) in [("b", b), ("red", red)] {
            let author = fixture.polecat(name).await?;
            let branch = format!("feature/{name}");
            fixture.submit(&format!("mr-{name}"), &branch, &commit, Some(&author)).await?;
        }
        fixture.phase("mr-b", "Rework").await?;
        fixture.phase("mr-red", "Rework").await?;
        self.settled().await?;
        self.end(&toast).await
    }

    /// Ends each gate as what it tests deserves.
    async fn kubelet(&self) {
        let runs = Api::<GateRun>::namespaced(self.fixture.client.clone(), &self.fixture.namespace);
        let mut ended = Vec::new();
        loop {
            let Ok(pod) = self.fixture.gate(&ended).await else { continue };
            ended.push(pod.name_any());
            // Of a Job that was deleted meanwhile.
            let Ok(run) = runs.get(&run_of(&pod)).await else { continue };
            let request = run.spec.members[0].name.clone();
            let is_red = request == "mr-red" && run.spec.purpose != GateRunPurpose::Control;
            self.started.lock().push(format!("{request} {:?}", run.spec.purpose));
            let _ = self.fixture.gate_ends(&pod, i32::from(is_red), "E   assert 1 == 2").await;
        }
    }

    async fn all(&self) -> Result<Vec<MergeRequest>> {
        Ok(self.fixture.requests().list(&ListParams::default()).await?.items)
    }

    /// Waits until nothing is left to do. What a status shows may come later, or not at all: that is
    /// compared.
    async fn settled(&self) -> Result<()> {
        let is_shown = |request: &MergeRequest| {
            let status = request.status.clone().unwrap_or_default();
            !status.attempts.is_empty() && status.attempts.iter().all(|a| a.result.is_some())
        };
        let begun = tokio::time::Instant::now();
        loop {
            let all = self.all().await?;
            let is_clean = all.iter().any(|r| record(r)["cleaned"] == true)
                && self.fixture.remote_head("feature/a").is_none()
                && self.fixture.jobs().list(&ListParams::default()).await?.items.is_empty();
            let refinery = self.refinery().await?;
            let is_idle = refinery["queue"] == 0 && refinery["phase"] == "Idle";
            let all_shown = all.iter().all(is_shown) && refinery["tip"] == true;
            if is_clean && is_idle && (all_shown || begun.elapsed() > TIMEOUT) {
                return Ok(());
            }
            ensure!(begun.elapsed() < 2 * TIMEOUT, "it has not ended: {all:#?} {refinery}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(&self, toast: &Polecat) -> Result<End> {
        let (fixture, all) = (&self.fixture, self.all().await?);
        let remote = fixture.remote();
        let named = |text: String| {
            all.iter().fold(text, |t, r| t.replace(&r.uid().unwrap(), &r.name_any()))
        };
        let format = "--format=%s (%(trailers:key=Gastown-Request,valueonly,separator=%x2C))";
        let log = named(git(&remote, &["log", "--reverse", format, "main"]));
        let refs = git(&remote, &["for-each-ref", "--format=%(refname)"]);
        let runs = Api::<GateRun>::namespaced(fixture.client.clone(), &fixture.namespace);
        let run = |r: GateRun| {
            let end = r.end();
            format!("{} {:?} {end:?}", r.spec.members[0].name, r.spec.purpose)
        };
        let mut runs: Vec<_> =
            runs.list(&ListParams::default()).await?.into_iter().map(run).collect();
        runs.sort();
        let mut started = self.started.lock().clone();
        started.sort();
        let polecats = Api::<Polecat>::namespaced(fixture.client.clone(), &fixture.namespace);
        let shown = polecats.get(&toast.name_any()).await?.status.unwrap_or_default().conditions;
        let merged = conditions::find(&shown, "Merged");
        Ok(End {
            target: log.lines().map(|l| l.trim_end_matches(" ()").to_owned()).collect(),
            tree: git(&remote, &["rev-parse", "main^{tree}"]),
            refs: refs.lines().map(str::to_owned).collect(),
            requests: all.iter().map(|r| self.shown(r)).collect(),
            runs,
            started,
            jobs: fixture.jobs().list(&ListParams::default()).await?.items.len(),
            merged: json!(merged.map(|c| (&c.status, &c.reason))),
            refinery: self.refinery().await?,
        })
    }

    /// What a request shows, and what is recorded of it.
    fn shown(&self, request: &MergeRequest) -> Value {
        let status = request.status.clone().unwrap_or_default();
        let tip = self.fixture.remote_head("main");
        let attempt = |a: &gastown_api::MergeAttempt| {
            json!([a.result, a.reason, a.evidence.is_some(), a.job.is_some()])
        };
        let reason = |reason: Option<&str>| reason.map(|r| r.replace("FoundInTarget", "Merged"));
        let mut record = record(request);
        record["end"]["reason"] = json!(reason(record["end"]["reason"].as_str()));
        record["end"]["at"] = Value::Null;
        for differs in ["message", "tested", "landed"] {
            record["end"][differs] = json!(record["end"][differs].is_string());
        }
        if record["evidence"]["base"].is_string() {
            record["evidence"] = json!(record["evidence"]["text"].is_string());
        }
        json!({
            "name": request.name_any(), "phase": status.phase,
            "reason": reason(status.reason.as_deref()),
            "tested": status.tested_commit.map(|c| Some(c) == tip),
            "landed": status.landed_commit.map(|c| Some(c) == tip),
            "attempts": status.attempts.iter().map(attempt).collect::<Vec<_>>(),
            "position": status.position, "record": record,
        })
    }

    async fn refinery(&self) -> Result<Value> {
        let status = self.fixture.refineries().get("refinery").await?.status.unwrap_or_default();
        let tip = self.fixture.remote_head("main");
        Ok(json!({
            "phase": status.phase, "queue": status.queue_length,
            "tip": status.last_landed_commit == tip,
        }))
    }
}

/// The name of the run whose Job made a pod.
fn run_of(pod: &Pod) -> String {
    pod.owner_references().first().map(|owner| owner.name.clone()).unwrap_or_default()
}

fn record(request: &MergeRequest) -> Value {
    let text = request.annotations().get(annotation::REQUEST_RECORD);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
