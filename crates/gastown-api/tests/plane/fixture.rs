//! What the tests of this binary share: one control plane, objects as JSON, and checks.

use gastown_cluster::control_plane::ControlPlane;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const API_VERSION: &str = "gastown.gastown.io/v1alpha1";

static CRDS: OnceCell<()> = OnceCell::const_new();

/// A namespace of the shared plane, with the CRDs of the code under test (not of the generated
/// files) on it.
pub struct Fixture {
    client: Client,
    namespace: String,
}

impl Fixture {
    pub async fn new() -> Self {
        let plane = ControlPlane::shared().await.unwrap();
        let client = plane.client().unwrap();
        CRDS.get_or_init(|| install(client.clone())).await;
        Self { client, namespace: plane.namespace().await.unwrap() }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A namespace of a plane of one's own, on which the caller installs the CRDs.
    pub async fn on(plane: &ControlPlane) -> Self {
        Self { client: plane.client().unwrap(), namespace: plane.namespace().await.unwrap() }
    }

    pub fn api(&self, object: &Value) -> Api<DynamicObject> {
        let kind = object["kind"].as_str().unwrap();
        let crd = gastown_api::crds().into_iter().find(|c| c.spec.names.kind == kind).unwrap();
        let gvk = GroupVersionKind::gvk("gastown.gastown.io", "v1alpha1", kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, &crd.spec.names.plural);
        if crd.spec.scope == "Cluster" {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        }
    }

    async fn send(&self, object: &Value, dry: bool) -> Result<Value, Error> {
        let mut params =
            PatchParams::apply("a-person").force().validation(ValidationDirective::Strict);
        params.dry_run = dry;
        let name = object["metadata"]["name"].as_str().unwrap();
        let answer = self.api(object).patch(name, &params, &Patch::Apply(object)).await?;
        Ok(serde_json::to_value(answer).unwrap())
    }

    /// Applies with strict field validation, so that a field that the schema does not know is an
    /// error.
    pub async fn apply(&self, object: &Value) -> Value {
        self.send(object, false).await.unwrap_or_else(|e| panic!("{e}\n{object:#}"))
    }

    /// What the object would be with its defaults.
    pub async fn defaulted(&self, object: &Value) -> Value {
        self.send(object, true).await.unwrap_or_else(|e| panic!("{e}\n{object:#}"))
    }

    /// Checks that the object is accepted.
    pub async fn accepts(&self, object: &Value) {
        self.defaulted(object).await;
    }

    /// Whether the object is accepted.
    pub async fn takes(&self, object: &Value) -> bool {
        match self.send(object, true).await {
            Ok(_) => true,
            Err(Error::Api(status)) if status.code == 422 => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// Checks that the object is refused with a message that contains all these words.
    pub async fn refuses(&self, object: &Value, words: &[&str]) {
        let message = self.refusal(object).await;
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}\n{object:#}");
        }
    }

    /// A plain create: an apply answers a repeated key of a list with an internal error before any
    /// rule is asked.
    async fn refusal(&self, object: &Value) -> String {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match self
            .api(object)
            .create(&params, &serde_json::from_value(object.clone()).unwrap())
            .await
        {
            Ok(taken) => panic!("accepted, and should be refused: {taken:#?}"),
            Err(Error::Api(status)) => {
                assert_eq!(status.code, 422, "{status:?}");
                status.message.clone()
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Writes the status and reads the object again.
    pub async fn apply_status(&self, object: &Value, status: &Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap();
        let body = json!({ "apiVersion": API_VERSION, "kind": object["kind"], "status": status });
        let params =
            PatchParams::apply("a-controller").force().validation(ValidationDirective::Strict);
        let answer = self.api(object).patch_status(name, &params, &Patch::Apply(&body)).await;
        serde_json::to_value(answer.unwrap_or_else(|e| panic!("{e}\n{body:#}"))).unwrap()
    }

    /// A change of what is there, as `kubectl patch --type merge` makes it.
    pub async fn change(&self, object: &Value, patch: &Value) -> Result<Value, Error> {
        let name = object["metadata"]["name"].as_str().unwrap();
        let answer =
            self.api(object).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(serde_json::to_value(answer).unwrap())
    }
}

/// Puts the CRDs of the code under test on a server and waits until they are served.
pub async fn install(client: Client) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::runtime::wait::{await_condition, conditions};
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in gastown_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        let params = PatchParams::apply("tests").force().validation(ValidationDirective::Strict);
        api.patch(&name, &params, &Patch::Apply(&crd))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        await_condition(api.clone(), &name, conditions::is_crd_established()).await.unwrap();
    }
}

/// An object of a kind.
pub fn object(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": format!("x-{}", kind.to_lowercase()) }, "spec": spec })
}

pub fn rig() -> Value {
    object("Rig", json!({ "gitURL": "git@host:org/repo.git", "beadsPrefix": "gt" }))
}

pub fn polecat() -> Value {
    object(
        "Polecat",
        json!({ "rig": "web", "kubernetes": { "gitRepository": "https://host/org/repo" } }),
    )
}

pub fn convoy() -> Value {
    object("Convoy", json!({ "description": "d", "trackedBeads": ["gt-1"] }))
}

pub fn witness() -> Value {
    object("Witness", json!({ "rigRef": "web" }))
}

pub fn refinery() -> Value {
    object("Refinery", json!({ "rigRef": "web" }))
}

pub fn bead_store() -> Value {
    object("BeadStore", json!({ "rigRef": "web", "prefix": "gt-" }))
}

pub fn merge_request() -> Value {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    object(
        "MergeRequest",
        json!({ "rigRef": "web", "sourceBranch": "polecat/a", "commit": commit, "targetBranch": "main" }),
    )
}

pub fn gate_run() -> Value {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let member = json!({ "namespace": "n", "name": "m", "uid": "u", "commit": commit });
    object(
        "GateRun",
        json!({
            "refineryRef": "r", "candidate": commit, "base": commit, "gate": "test", "gateDigest": "d",
            "purpose": "Test", "run": 1, "members": [member],
        }),
    )
}

/// The object with another value at a place (`spec/kubernetes/gitBranch`). Missing parents are
/// created.
pub fn with(mut object: Value, place: &str, value: Value) -> Value {
    let mut at = &mut object;
    for part in place.split('/') {
        at = &mut at[part];
    }
    *at = value;
    object
}

/// The object without what is at a place.
pub fn without(mut object: Value, place: &str) -> Value {
    let (parent, name) = place.rsplit_once('/').unwrap();
    object
        .pointer_mut(&format!("/{parent}"))
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(name)
        .unwrap();
    object
}
