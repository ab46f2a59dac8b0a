//! Whose a bead is. A claim is a Lease that holds the Polecat's uid: what creates or swaps it
//! decides, whatever any store says. A pod on a bead starts only under its claim, so two Polecats
//! on one bead never both work.

use gastown_api::names::reason;
use gastown_types::digest::short_digest;

use super::decide::{Next, Submission};
use super::facts::{Desired, RequestPhase, Snapshot};
use super::ledger::{End, Ledger};

/// What is known of the claim on a Polecat's bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimFacts {
    /// It has no bead.
    NotNeeded,
    /// It is this Polecat's.
    Held,
    /// Nobody's: there is none, or its holder is gone with its pods.
    Free,
    /// Another Polecat's.
    HeldBy {
        /// `namespace/name`.
        polecat: String,
        /// The holder's uid.
        uid: String,
    },
    /// Nobody's, but work on it is still to land: that of a Polecat which is gone, or a person's.
    ToLand {
        /// The MergeRequest, `namespace/name`.
        request: String,
    },
    /// What there is cannot be read as a claim on this bead; the text says why.
    Unknown(String),
}

/// A claim as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The rig that it says.
    pub rig: String,
    /// The bead that it says.
    pub bead: String,
    /// The holder's uid; empty when nobody holds it.
    pub holder: String,
    /// The holder's `namespace/name`, for people.
    pub polecat: String,
    /// There is no Polecat of the holder's uid, and no pod of it that may still work.
    pub abandoned: bool,
}

impl ClaimFacts {
    /// What a record, or its absence, means to the Polecat of this uid.
    pub fn read(uid: &str, rig: &str, bead: &str, record: Option<&ClaimRecord>) -> Self {
        match record {
            None => Self::Free,
            Some(r) if (r.rig.as_str(), r.bead.as_str()) != (rig, bead) => Self::Unknown(format!(
                "its Lease {} is of bead {:?} of rig {:?}",
                claim_name(rig, bead),
                r.bead,
                r.rig
            )),
            Some(r) if r.holder == uid => Self::Held,
            Some(r) if r.holder.is_empty() || r.abandoned => Self::Free,
            Some(r) => Self::HeldBy { polecat: r.polecat.clone(), uid: r.holder.clone() },
        }
    }
}

/// The Lease's name: `claim-<16 hex of sha256(rig, bead)>`.
pub fn claim_name(rig: &str, bead: &str) -> String {
    format!("claim-{}", short_digest(&[rig, bead], 16))
}

/// What a Polecat wants of its bead's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To have it: it works, is about to, or has work that is to land or has.
    Have,
    /// To keep it where it has it.
    Keep,
    /// No more.
    GiveBack,
}

/// The rules, in their order.
pub(super) fn wanted(
    s: &Snapshot,
    ledger: &Ledger,
    next: &Next,
    submit: &Submission,
    live: bool,
) -> Wanted {
    if live {
        return if s.deleting { Wanted::Keep } else { Wanted::Have };
    }
    if s.deleting {
        return Wanted::GiveBack;
    }
    if lands(s, ledger, submit) {
        return Wanted::Have;
    }
    match (s.desired, next) {
        // nothing of it is to land, and it will not go on by itself: the bead is free for others
        (Desired::Terminated, _) | (Desired::Working, Next::Stuck { spent: true, .. }) => {
            Wanted::GiveBack
        }
        (Desired::Working, Next::Claim | Next::Start | Next::Finished) => Wanted::Have,
        (Desired::Idle, _) | (Desired::Working, Next::Wait { .. } | Next::Stuck { .. }) => {
            Wanted::Keep
        }
    }
}

/// Whether work of it has landed, is in the queue, or is on its way there: then nobody may start
/// the bead again.
pub(super) fn lands(s: &Snapshot, ledger: &Ledger, submit: &Submission) -> bool {
    let queued = |phase| {
        matches!(phase, RequestPhase::Queued | RequestPhase::Testing | RequestPhase::Landed)
    };
    let submitted = match submit {
        Submission::Due(_) | Submission::Wait { .. } => ledger.end() == Some(End::Done),
        Submission::Made { phase, .. } => queued(*phase),
        Submission::Nothing | Submission::Never { .. } => false,
    };
    submitted || ledger.landed.is_some() || s.requests.iter().any(|r| queued(r.phase))
}

/// Why a bead that is nobody's is not begun.
pub(super) fn to_land(bead: &str, request: &str) -> String {
    format!("work on bead {bead} is in the merge queue already: MergeRequest {request}")
}

/// Nothing starts without the claim.
pub(super) fn gate(s: &Snapshot) -> Next {
    let bead = s.bead.as_deref().unwrap_or_default();
    let wait = |reason: &str, message: String| Next::Wait {
        reason: reason.to_owned(),
        message,
        until: None,
    };
    match &s.claim {
        ClaimFacts::NotNeeded | ClaimFacts::Held => Next::Start,
        ClaimFacts::Free => Next::Claim,
        ClaimFacts::HeldBy { polecat, .. } => {
            wait(reason::ALREADY_CLAIMED, format!("bead {bead} is claimed by Polecat {polecat}"))
        }
        ClaimFacts::ToLand { request } => wait(reason::WORK_TO_LAND, to_land(bead, request)),
        ClaimFacts::Unknown(why) => wait(
            reason::CLAIM_UNREADABLE,
            format!("the claim on bead {bead} cannot be read: {why}"),
        ),
    }
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
        ClaimFacts::read("me", "web", "web-1", Some(record))
    }

    #[test]
    fn a_claim_is_its_holders_until_the_holder_is_gone() {
        assert_eq!(ClaimFacts::read("me", "web", "web-1", None), ClaimFacts::Free);
        assert_eq!(
            read(&record()),
            ClaimFacts::HeldBy { polecat: "dev/a".into(), uid: "a".into() }
        );
        assert_eq!(read(&ClaimRecord { holder: "me".into(), ..record() }), ClaimFacts::Held);
        assert_eq!(read(&ClaimRecord { abandoned: true, ..record() }), ClaimFacts::Free);
        assert_eq!(read(&ClaimRecord { holder: String::new(), ..record() }), ClaimFacts::Free);
    }

    #[test]
    fn a_lease_of_another_bead_is_nobodys_to_take() {
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
    fn a_claims_name_tells_rig_and_bead_apart() {
        assert_eq!(claim_name("web", "web-1"), claim_name("web", "web-1"));
        assert_ne!(claim_name("web", "b-1"), claim_name("webb", "-1"));
        let name = claim_name("web", &"x".repeat(255));
        assert!(
            name.len() == 22
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{name}"
        );
    }
}
