//! The remote of a pass, with credentials that are read when a step needs them.

use gastown_api::ObjectName;
use gastown_credentials::Named;
use gastown_git::Remote;
use kube::ResourceExt as _;
use tokio::sync::OnceCell;

use crate::error::Error;
use crate::pass::Pass;

/// The remote of a pass. Its Secret is read at most once in a pass, and not at all in one that needs
/// no remote.
pub(crate) struct PassRemote<'a> {
    pass: &'a Pass<'a>,
    read: OnceCell<Remote>,
}

impl<'a> PassRemote<'a> {
    pub(crate) fn new(pass: &'a Pass<'a>) -> Self {
        Self { pass, read: OnceCell::new() }
    }

    /// The remote with its credentials.
    pub(crate) async fn get(&self) -> Result<&Remote, Error> {
        self.read.get_or_try_init(|| read(self.pass)).await
    }
}

async fn read(pass: &Pass<'_>) -> Result<Remote, Error> {
    fn name(reference: Option<&ObjectName>) -> Option<&str> {
        reference.map(|r| r.name.as_str())
    }
    let (spec, namespace) = (&pass.refinery.spec, pass.refinery.namespace().unwrap_or_default());
    let named = Named {
        namespace: &namespace,
        secret: name(spec.git_secret_ref.as_ref()),
        known_hosts: name(spec.ssh_known_hosts_config_map_ref.as_ref()),
        ca: spec.ca_config_map_ref.as_ref(),
        chart_value: "refinery.secretNamespaces",
    };
    gastown_credentials::remote(&pass.ctx.runtime.client, named, &pass.url).await.map_err(|error| {
        match error {
            gastown_credentials::Error::Kube(error) => Error::kube("reading credentials")(error),
            gastown_credentials::Error::Condition(reason, message) => {
                Error::Credentials { reason, message }
            }
        }
    })
}
