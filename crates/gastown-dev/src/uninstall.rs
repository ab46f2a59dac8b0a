//! `cargo xtask uninstall`: deletes the operator's objects in the order in which their finalizers go,
//! then the chart and the CRDs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_api::names::{condition, finalizer, label};
use gastown_api::{BeadStore, Convoy, Escalation, MergeRequest, Polecat, Refinery, Rig, Witness};
use gastown_cluster::toolchain;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use xtask::cli::UninstallArgs;

use crate::install::{self, RELEASE};
use crate::util;

/// How often what is left is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How often what is waited for is printed.
const REPORT: Duration = Duration::from_secs(15);

/// Runs it.
pub async fn run(args: UninstallArgs) -> Result<()> {
    let kubeconfig = match args.kubeconfig {
        Some(path) => path,
        None => install::find_kubeconfig().await?,
    };
    let client = install::client(&kubeconfig).await?;
    let all = Uninstall { client, force: args.force, timeout: Duration::from_secs(args.timeout) };
    if all.is_served().await? {
        // Convoys first: they create Polecats. A Rig waits for its Polecats and deletes its children.
        for kind in [
            ApiResource::erase::<Convoy>(&()),
            ApiResource::erase::<Polecat>(&()),
            ApiResource::erase::<Rig>(&()),
            ApiResource::erase::<MergeRequest>(&()),
            ApiResource::erase::<Escalation>(&()),
            ApiResource::erase::<Refinery>(&()),
            ApiResource::erase::<Witness>(&()),
            ApiResource::erase::<BeadStore>(&()),
        ] {
            all.delete_all(&kind).await?;
        }
    }
    // polecat-ctl removes it when it has read how the pod ended; with the Polecats gone nobody else
    // does.
    all.free_pods().await?;
    remove_chart(&kubeconfig, &args.namespace).await?;
    if args.keep_crds {
        return Ok(());
    }
    all.delete_crds().await
}

struct Uninstall {
    client: Client,
    force: bool,
    timeout: Duration,
}

impl Uninstall {
    /// Whether the API server knows our kinds.
    async fn is_served(&self) -> Result<bool> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let crd = api.get_opt("rigs.gastown.gastown.io").await.context("looking for the CRDs")?;
        Ok(crd.is_some())
    }

    /// Deletes all objects of a kind and waits until their finalizers are gone.
    async fn delete_all(&self, resource: &ApiResource) -> Result<()> {
        let kind = &resource.plural;
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let list = async || {
            let list = all.list(&ListParams::default()).await;
            Ok::<_, anyhow::Error>(list.with_context(|| format!("listing {kind}"))?.items)
        };
        let mut left = list().await?;
        if !left.is_empty() {
            println!("uninstall: deleting {} {kind}", left.len());
        }
        let (start, mut reported) = (Instant::now(), Instant::now());
        while !left.is_empty() {
            for object in left.iter().filter(|o| o.metadata.deletion_timestamp.is_none()) {
                let api = self.api(resource, object);
                let deleted = api.delete(&object.name_any(), &DeleteParams::default()).await;
                ignore_missing(deleted.map(drop))
                    .with_context(|| format!("deleting {}", name(object)))?;
            }
            if start.elapsed() > self.timeout {
                if !self.force {
                    bail!(
                        "{} {kind} were not deleted within {} s:\n{}Are the controllers running? \
                         With --force their finalizers are removed: what is not saved is lost then",
                        left.len(),
                        self.timeout.as_secs(),
                        describe(&left)
                    );
                }
                self.remove_finalizers(resource, &left).await?;
            }
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                print!("uninstall: waiting for\n{}", describe(&left));
            }
            tokio::time::sleep(POLL).await;
            left = list().await?;
        }
        Ok(())
    }

    async fn remove_finalizers(
        &self,
        resource: &ApiResource,
        left: &[DynamicObject],
    ) -> Result<()> {
        for object in left.iter().filter(|o| !o.finalizers().is_empty()) {
            println!("uninstall: removing the finalizers of {}", name(object));
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let api = self.api(resource, object);
            let patched = api.patch(&object.name_any(), &PatchParams::default(), &patch).await;
            ignore_missing(patched.map(drop))
                .with_context(|| format!("removing the finalizers of {}", name(object)))?;
        }
        Ok(())
    }

    /// Waits until no pod of an agent has our finalizer. After the timeout deletes those that have
    /// it, and removes it, if that was asked for.
    async fn free_pods(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let held = self.held_pods().await?;
            if held.is_empty() {
                return Ok(());
            }
            if start.elapsed() > self.timeout && self.force {
                return self.remove_pods(&held).await;
            }
            if start.elapsed() > self.timeout {
                let names: Vec<_> = held.iter().map(pod_name).collect();
                bail!(
                    "{} pods of agents have ended or are left, and nobody reads how they ended:\n  \
                     {}\nAre the controllers running? With --force their finalizer is removed: \
                     what is not saved is lost then",
                    held.len(),
                    names.join("\n  ")
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn held_pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let all = pods.list(&ListParams::default().labels(label::POLECAT)).await;
        let mut all = all.context("listing the pods of agents")?.items;
        all.retain(|pod| pod.finalizers().iter().any(|f| f == finalizer::OUTCOME));
        Ok(all)
    }

    async fn remove_pods(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            let (name, shown) = (pod.name_any(), pod_name(pod));
            println!("uninstall: deleting {shown} and removing its finalizer");
            let namespace = pod.namespace().unwrap_or_default();
            let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let deleted = api.delete(&name, &DeleteParams::default()).await;
            ignore_missing(deleted.map(drop)).with_context(|| format!("deleting {shown}"))?;
            let others: Vec<_> =
                pod.finalizers().iter().filter(|f| *f != finalizer::OUTCOME).collect();
            let patch = json!({"metadata": {"uid": pod.uid(), "finalizers": others}});
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            ignore_missing(patched.map(drop))
                .with_context(|| format!("removing the finalizer of {shown}"))?;
        }
        Ok(())
    }

    fn api(&self, resource: &ApiResource, object: &DynamicObject) -> Api<DynamicObject> {
        match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    async fn delete_crds(&self) -> Result<()> {
        println!("uninstall: CRDs");
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in gastown_api::crds() {
            let name = crd.name_any();
            ignore_missing(api.delete(&name, &DeleteParams::default()).await.map(drop))
                .with_context(|| format!("deleting CRD {name}"))?;
        }
        Ok(())
    }
}

fn ignore_missing(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

fn name(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| types.kind.as_str());
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

fn pod_name(pod: &Pod) -> String {
    format!("Pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// A line for each object: what its condition `Ready` states.
fn describe(left: &[DynamicObject]) -> String {
    let line = |object: &DynamicObject| {
        let conditions = object.data["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().find(|c| c["type"] == condition::READY);
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        let state = ready.map(|c| format!(": {}: {}", text(c, "reason"), text(c, "message")));
        format!("  {}{}\n", name(object), state.unwrap_or_default())
    };
    left.iter().map(line).collect()
}

/// Uninstalls the chart, if it is installed.
async fn remove_chart(kubeconfig: &Path, namespace: &str) -> Result<()> {
    println!("uninstall: chart, namespace {namespace}");
    let helm: PathBuf = toolchain::helm().await?;
    let mut command = Command::new(helm);
    command.args(["uninstall", RELEASE, "--ignore-not-found", "--wait"]);
    command.args(["--namespace", namespace]).arg("--kubeconfig").arg(kubeconfig);
    command.stdin(std::process::Stdio::null());
    tokio::task::spawn_blocking(move || util::output(&mut command)).await??;
    Ok(())
}
