//! The objects of a scenario at one moment.

use gastown_api::{Convoy, Escalation, MergePhase, MergeRequest, Polecat, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

/// All Convoys, Polecats, MergeRequests and Escalations of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Convoys.
    pub convoys: Vec<Convoy>,
    /// The Polecats.
    pub polecats: Vec<Polecat>,
    /// The MergeRequests.
    pub requests: Vec<MergeRequest>,
    /// The Escalations.
    pub escalations: Vec<Escalation>,
}

impl Snapshot {
    /// A Polecat by its name.
    pub fn polecat(&self, name: &str) -> Option<&Polecat> {
        self.polecats.iter().find(|p| p.name_any() == name)
    }

    /// A Convoy by its name.
    pub fn convoy(&self, name: &str) -> Option<&Convoy> {
        self.convoys.iter().find(|c| c.name_any() == name)
    }

    /// The Escalation about the Polecat that works on a bead.
    pub fn escalation(&self, bead: &str) -> Option<&Escalation> {
        let polecat = self.author(bead)?.name_any();
        let about = |e: &&Escalation| {
            e.spec.related_object.as_ref().is_some_and(|o| o.kind == "Polecat" && o.name == polecat)
        };
        self.escalations.iter().find(about)
    }

    /// The Polecat that works on a bead.
    pub fn author(&self, bead: &str) -> Option<&Polecat> {
        self.polecats.iter().find(|p| p.spec.bead_id.as_deref() == Some(bead))
    }

    /// A bead's requests, oldest attempt first.
    pub fn requests_for(&self, bead: &str) -> Vec<&MergeRequest> {
        let mut requests: Vec<&MergeRequest> =
            self.requests.iter().filter(|r| r.spec.bead_id.as_deref() == Some(bead)).collect();
        requests.sort_by_key(|r| r.spec.attempt);
        requests
    }

    /// A Polecat's requests, oldest attempt first.
    pub(crate) fn requests_of(&self, polecat: &str) -> Vec<&MergeRequest> {
        let of = |r: &&MergeRequest| r.spec.polecat_ref.as_ref().is_some_and(|p| p.name == polecat);
        let mut requests: Vec<&MergeRequest> = self.requests.iter().filter(of).collect();
        requests.sort_by_key(|r| r.spec.attempt);
        requests
    }

    /// The request that landed a bead.
    pub fn landed(&self, bead: &str) -> Option<&MergeRequest> {
        self.requests_for(bead).into_iter().find(|r| merge_phase(r) == Some(MergePhase::Landed))
    }

    /// Whether a bead's work has landed and its Polecat is done.
    pub fn is_finished(&self, bead: &str) -> bool {
        self.author(bead).is_some_and(is_merged) && self.landed(bead).is_some()
    }
}

pub(crate) fn is_merged(polecat: &Polecat) -> bool {
    conditions::is_true(polecat_conditions(polecat), "Merged")
}

fn merge_phase(request: &MergeRequest) -> Option<MergePhase> {
    request.status.as_ref()?.phase
}

pub(crate) fn polecat_conditions(polecat: &Polecat) -> &[Condition] {
    polecat.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
}
