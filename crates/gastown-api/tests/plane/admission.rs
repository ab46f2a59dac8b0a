//! The admission policies on a real API server: a tenant with all rights in its namespace and each
//! controller's account try to write everything that is guarded, both ways.

use std::time::Duration;

use gastown_api::admission::{Guard, POLICIES, Part, Policy, policies};
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::{ControlPlane, Options};
use kube::Error;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::fixture::{self, install};

const RELEASE: &str = "gastown-system";

/// An object of each kind that policies are about.
fn sample(resource: &str, labels: &Value) -> (GroupVersionKind, Value) {
    let of_ours = |kind: &str, object: Value| {
        (GroupVersionKind::gvk("gastown.gastown.io", "v1alpha1", kind), object)
    };
    let container = json!([{"name": "c", "image": "example.com/i"}]);
    let (gvk, mut object) = match resource {
        "rigs" => of_ours("Rig", fixture::rig()),
        "polecats" => of_ours("Polecat", fixture::polecat()),
        "convoys" => of_ours("Convoy", fixture::convoy()),
        "witnesses" => of_ours("Witness", fixture::witness()),
        "refineries" => of_ours("Refinery", fixture::refinery()),
        "beadstores" => of_ours("BeadStore", fixture::bead_store()),
        "mergerequests" => of_ours("MergeRequest", fixture::merge_request()),
        "escalations" => of_ours(
            "Escalation",
            fixture::object(
                "Escalation",
                json!({"rigRef": "web", "source": "s", "cause": "c", "severity": "low", "summary": "t"}),
            ),
        ),
        "gateruns" => of_ours("GateRun", fixture::gate_run()),
        "pods" => {
            (GroupVersionKind::gvk("", "v1", "Pod"), json!({"spec": {"containers": container}}))
        }
        "configmaps" => (GroupVersionKind::gvk("", "v1", "ConfigMap"), json!({})),
        "jobs" => (
            GroupVersionKind::gvk("batch", "v1", "Job"),
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": container}}}}),
        ),
        "leases" => (GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"), json!({})),
        other => panic!("no sample of {other}"),
    };
    object["apiVersion"] = json!(gvk.api_version());
    object["kind"] = json!(gvk.kind);
    object["metadata"] = json!({"generateName": "x-", "labels": labels});
    (gvk, object)
}

struct Case<'a> {
    plane: &'a ControlPlane,
    namespace: &'a str,
    policy: &'a Policy,
    guard: &'a Guard,
    resource: &'static str,
    /// Whether it is about the status.
    status: bool,
}

impl Case<'_> {
    fn labels(&self) -> Value {
        let labels = self.policy.labels.iter();
        labels
            .map(|(key, value)| ((*key).to_owned(), json!(value.unwrap_or("x"))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn api(&self, client: Client) -> (Api<DynamicObject>, Value) {
        let (gvk, object) = sample(self.resource, &self.labels());
        let resource = ApiResource::from_gvk_with_plural(&gvk, self.resource);
        if self.resource == "rigs" {
            (Api::all_with(client, &resource), object)
        } else {
            (Api::namespaced_with(client, self.namespace, &resource), object)
        }
    }

    fn tenant(&self) -> Client {
        self.plane.client_as("tenant").unwrap()
    }

    fn account(&self, controller: Controller) -> Client {
        let user = format!("system:serviceaccount:{RELEASE}:{}", controller.name());
        self.plane.client_as(&user).unwrap()
    }

    async fn create(&self, client: Client, metadata: &Value) -> Result<DynamicObject, Error> {
        let (api, mut object) = self.api(client);
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
    }

    async fn patch(
        &self,
        client: Client,
        name: &str,
        patch: &Value,
    ) -> Result<DynamicObject, Error> {
        let (api, _) = self.api(client);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        if self.status {
            api.patch_status(name, &params, &patch).await
        } else {
            api.patch(name, &params, &patch).await
        }
    }

    fn refused(&self, done: Result<DynamicObject, Error>, doing: &str) {
        let at = format!("{} {:?}: {doing}", self.resource, self.guard.part);
        match done {
            Ok(_) => panic!("{at}: it was not refused"),
            Err(Error::Api(status)) => {
                assert_eq!(status.code, 403, "{at}: {status:?}");
                assert!(status.message.contains(" is written by "), "{at}: {}", status.message);
            }
            Err(error) => panic!("{at}: {error}"),
        }
    }

    /// A write that makes the guarded part present, as a merge patch.
    fn forgery(&self) -> Value {
        match self.guard.part {
            Part::Annotation(key) => json!({"metadata": {"annotations": {key: "forged"}}}),
            Part::Finalizer(name) => json!({"metadata": {"finalizers": [name]}}),
            Part::Condition(kind) => {
                let condition = json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
                json!({"status": {"conditions": [condition]}})
            }
            Part::Whole if self.status => json!({"status": {"conditions": []}}),
            Part::Whole => json!({"metadata": {"annotations": {"example.com/any": "1"}}}),
        }
    }

    async fn run(&self) {
        let whole = self.guard.part == Part::Whole && !self.status;
        let (forgery, admin) = (self.forgery(), self.plane.client().unwrap());
        if whole {
            self.refused(self.create(self.tenant(), &json!({})).await, "a tenant creates one");
        } else if !self.status {
            let made = self.create(self.tenant(), &forgery["metadata"]).await;
            self.refused(made, "a tenant creates one that has it");
        }
        let owner = self.guard.by.first().map_or_else(|| admin.clone(), |c| self.account(*c));
        // The object without it is anybody's, unless all of it is ours.
        let creator = if whole { owner.clone() } else { self.tenant() };
        let creator = if self.resource == "gateruns" { owner.clone() } else { creator };
        let object = self.create(creator, &json!({})).await.unwrap();
        let name = object.name_any();
        for other in Controller::ALL.into_iter().filter(|c| !self.guard.by.contains(c)) {
            let done = self.patch(self.account(other), &name, &forgery).await;
            self.refused(done, other.name());
        }
        self.refused(self.patch(self.tenant(), &name, &forgery).await, "a tenant writes it");
        let written = self.patch(owner, &name, &forgery).await;
        written.unwrap_or_else(|e| panic!("{} {:?}: {e}", self.resource, self.guard.part));
        if let Part::Annotation(key) = self.guard.part {
            let removal = json!({"metadata": {"annotations": {key: null}}});
            self.refused(self.patch(self.tenant(), &name, &removal).await, "a tenant removes it");
        }
        if matches!(self.guard.part, Part::Annotation(_) | Part::Finalizer(_)) {
            let other = json!({"metadata": {"annotations": {"example.com/own": "1"}}});
            self.patch(self.tenant(), &name, &other).await.unwrap();
            let removal = json!({"metadata": {"finalizers": null}});
            self.patch(self.tenant(), &name, &removal).await.unwrap();
        }
        self.patch(admin.clone(), &name, &forgery).await.unwrap();
        let (api, _) = self.api(admin);
        api.patch(
            &name,
            &PatchParams::default(),
            &Patch::Merge(&json!({"metadata": {"finalizers": null}})),
        )
        .await
        .unwrap();
        let _ = api.delete(&name, &DeleteParams::default()).await;
    }
}

/// Lets everybody write everything that the policies are about.
async fn grant_all(client: &Client) {
    let resource = |kind: &str| {
        ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind))
    };
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let reference =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"});
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"});
    for (kind, rest) in [
        ("ClusterRole", json!({"rules": rules})),
        ("ClusterRoleBinding", json!({"roleRef": reference, "subjects": [subject]})),
    ] {
        let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "all"}});
        object.as_object_mut().unwrap().append(&mut rest.as_object().unwrap().clone());
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
        api.patch("all", &PatchParams::apply("tests"), &Patch::Apply(&object)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_its_controller_writes_what_is_believed() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let client = plane.client().unwrap();
    install(client.clone()).await;
    grant_all(&client).await;
    let namespace = plane.namespace().await.unwrap();
    for (policy, binding) in policies(RELEASE) {
        let params = PostParams::default();
        Api::all(client.clone()).create(&params, &policy).await.unwrap();
        Api::all(client.clone()).create(&params, &binding).await.unwrap();
    }
    for policy in POLICIES {
        for guard in policy.guards {
            for &resource in policy.resources {
                let (resource, status) = match resource.split_once('/') {
                    Some((resource, _)) => (resource, true),
                    None => (resource, false),
                };
                let namespace = &namespace;
                let case = Case { plane: &plane, namespace, policy, guard, resource, status };
                case.wait_in_force().await;
                case.run().await;
            }
        }
    }
}

impl Case<'_> {
    /// A policy comes into force some moments after it was created.
    async fn wait_in_force(&self) {
        let refused = async {
            loop {
                let (api, mut object) = self.api(self.tenant());
                let done = if self.status {
                    // An object to write the status of.
                    let owner = self.account(Controller::Refinery);
                    let made = self.create(owner, &json!({})).await.unwrap();
                    let done = self.patch(self.tenant(), &made.name_any(), &self.forgery()).await;
                    let _ = api.delete(&made.name_any(), &DeleteParams::default()).await;
                    done
                } else {
                    let forgery = self.forgery();
                    for (key, value) in forgery["metadata"].as_object().unwrap() {
                        object["metadata"][key] = value.clone();
                    }
                    let params = PostParams { dry_run: true, ..PostParams::default() };
                    api.create(&params, &serde_json::from_value(object).unwrap()).await
                };
                if matches!(done, Err(Error::Api(status)) if status.code == 403) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
    }
}
