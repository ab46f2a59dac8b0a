//! Who holds the claim on a bead. A claim is a Lease that holds the Polecat's uid: the API server
//! decides by who creates or swaps it, whatever any store holds. A pod for a bead starts only under
//! its claim, so two Polecats never work on one bead at the same time.

use gastown_api::MergePhase;
use gastown_api::names::reason;
use gastown_types::digest::short_digest;

/// What is known of the claim on a Polecat's bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimFacts {
    /// The Polecat has no bead.
    NotNeeded,
    /// This Polecat holds it.
    Held,
    /// Nobody holds it: it does not exist, or its holder is gone with its pods.
    Free,
    /// Another Polecat holds it.
    HeldBy {
        /// `namespace/name`.
        polecat: String,
        /// The holder's uid.
        uid: String,
    },
    /// Nobody holds it, but work on the bead is still to land: that of a Polecat which is gone, or
    /// a person's.
    ToLand {
        /// The MergeRequest, `namespace/name`.
        request: String,
    },
    /// The Lease is not a claim on this bead; the text gives the reason.
    Unknown(String),
}

/// A claim as its Lease holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The rig in its annotations.
    pub rig: String,
    /// The bead in its annotations.
    pub bead: String,
    /// The holder's uid; empty when nobody holds it.
    pub holder: String,
    /// The holder's `namespace/name`, for people.
    pub polecat: String,
    /// No Polecat has the holder's uid, and no pod of it may still work.
    pub abandoned: bool,
}

/// A MergeRequest for a bead, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeadRequest {
    /// `namespace/name`.
    pub key: String,
    /// The uid of the Polecat that made it; none where a person did.
    pub author: Option<String>,
    /// `status.phase`; without a status, `Queued`.
    pub phase: MergePhase,
    /// It is being deleted.
    pub deleting: bool,
}

impl BeadRequest {
    /// Whether its work is still to land: then nobody else begins the bead.
    pub fn is_to_land(&self) -> bool {
        // What a later version calls its state may be on the way to the target.
        let may_land =
            matches!(self.phase, MergePhase::Queued | MergePhase::Testing | MergePhase::Unknown);
        may_land && !self.deleting
    }
}

impl ClaimFacts {
    /// What a claim, or its absence, means to the Polecat of this uid. `requests` are those for the
    /// bead.
    pub fn read(
        uid: &str,
        rig: &str,
        bead: &str,
        record: Option<&ClaimRecord>,
        requests: &[BeadRequest],
    ) -> Self {
        match record {
            None => Self::free(uid, requests),
            Some(r) if (r.rig.as_str(), r.bead.as_str()) != (rig, bead) => Self::Unknown(format!(
                "Lease {} is for bead {:?} of rig {:?}",
                claim_name(rig, bead),
                r.bead,
                r.rig
            )),
            Some(r) if r.holder == uid => Self::Held,
            Some(r) if r.holder.is_empty() || r.abandoned => Self::free(uid, requests),
            Some(r) => Self::HeldBy { polecat: r.polecat.clone(), uid: r.holder.clone() },
        }
    }

    /// The reason of condition `Claimed`.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NotNeeded | Self::Free => reason::NOT_CLAIMED,
            Self::Held => reason::CLAIMED,
            Self::HeldBy { .. } => reason::ALREADY_CLAIMED,
            Self::ToLand { .. } => reason::WORK_TO_LAND,
            Self::Unknown(_) => reason::CLAIM_UNREADABLE,
        }
    }

    /// The message of condition `Claimed`.
    pub(super) fn message(&self, bead: &str) -> String {
        match self {
            Self::NotNeeded | Self::Free => format!("bead {bead} is not claimed"),
            Self::Held => format!("bead {bead} is claimed by this Polecat"),
            Self::HeldBy { polecat, .. } => {
                format!("bead {bead} is claimed by Polecat {polecat}")
            }
            Self::ToLand { request } => {
                format!("work on bead {bead} is already in the merge queue: MergeRequest {request}")
            }
            Self::Unknown(why) => format!("the claim on bead {bead} cannot be read: {why}"),
        }
    }

    /// Nobody holds the claim. The Polecat that made a request may be gone; its work is not.
    fn free(uid: &str, requests: &[BeadRequest]) -> Self {
        let others = |r: &&BeadRequest| r.is_to_land() && r.author.as_deref() != Some(uid);
        match requests.iter().find(others) {
            Some(request) => Self::ToLand { request: request.key.clone() },
            None => Self::Free,
        }
    }
}

/// The Lease's name: `claim-<16 hexadecimal digits of sha256(rig, bead)>`.
pub fn claim_name(rig: &str, bead: &str) -> String {
    format!("claim-{}", short_digest(&[rig, bead], 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ClaimRecord {
        ClaimRecord {
            rig: "web".into(),
            bead: "web-1".into(),
            holder: "a".into(),
            polecat: "dev/a".into(),
            abandoned: false,
        }
    }

    fn read(record: &ClaimRecord) -> ClaimFacts {
        ClaimFacts::read("me", "web", "web-1", Some(record), &[])
    }

    #[test]
    fn a_claim_is_its_holders_until_the_holder_is_gone() {
        assert_eq!(ClaimFacts::read("me", "web", "web-1", None, &[]), ClaimFacts::Free);
        assert_eq!(
            read(&record()),
            ClaimFacts::HeldBy { polecat: "dev/a".into(), uid: "a".into() }
        );
        assert_eq!(read(&ClaimRecord { holder: "me".into(), ..record() }), ClaimFacts::Held);
        assert_eq!(read(&ClaimRecord { abandoned: true, ..record() }), ClaimFacts::Free);
        assert_eq!(read(&ClaimRecord { holder: String::new(), ..record() }), ClaimFacts::Free);
    }

    #[test]
    fn a_bead_whose_work_is_still_to_land_is_not_free() {
        let request = BeadRequest {
            key: "dev/gone-1".into(),
            author: Some("gone".into()),
            phase: MergePhase::Testing,
            deleting: false,
        };
        let read = |record: Option<&ClaimRecord>, request: &BeadRequest| {
            ClaimFacts::read("me", "web", "web-1", record, std::slice::from_ref(request))
        };
        let to_land = ClaimFacts::ToLand { request: "dev/gone-1".into() };
        assert_eq!(read(None, &request), to_land);
        assert_eq!(read(None, &BeadRequest { author: None, ..request.clone() }), to_land);
        let newer = BeadRequest { phase: MergePhase::Unknown, ..request.clone() };
        assert_eq!(read(None, &newer), to_land, "a phase of a later version may be on the way");
        let abandoned = ClaimRecord { abandoned: true, ..record() };
        assert_eq!(read(Some(&abandoned), &request), to_land);
        assert!(matches!(read(Some(&record()), &request), ClaimFacts::HeldBy { .. }));
        for over in [
            BeadRequest { phase: MergePhase::Rejected, ..request.clone() },
            BeadRequest { deleting: true, ..request.clone() },
            BeadRequest { author: Some("me".into()), ..request.clone() },
        ] {
            assert_eq!(read(None, &over), ClaimFacts::Free, "{over:?}");
        }
    }

    #[test]
    fn a_lease_for_another_bead_is_not_taken() {
        for other in [
            ClaimRecord { bead: "web-2".into(), ..record() },
            ClaimRecord { rig: "api".into(), holder: "me".into(), ..record() },
        ] {
            assert!(
                matches!(read(&other), ClaimFacts::Unknown(why) if why.contains(&claim_name("web", "web-1")))
            );
        }
    }

    #[test]
    fn a_claims_name_is_unique_for_rig_and_bead() {
        assert_eq!(
            claim_name("web", "web-1"),
            "claim-fd3a82a1bbbffdb2",
            "Leases of this name exist"
        );
        assert_ne!(claim_name("web", "b-1"), claim_name("webb", "-1"));
        let name = claim_name("web", &"x".repeat(255));
        assert!(
            name.len() == 22
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{name}"
        );
    }
}
