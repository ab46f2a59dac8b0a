//! Which replica works on which shard: decisions on what is seen of some Leases. Pure: objects and
//! times are given.
//!
//! Each replica renews a *rank*, one of [`RANKS`] Leases; its name there is the process's, with a
//! suffix that is new whenever the rank was lost. One more Lease, the *table*, names the owner of each
//! of [`SHARDS`] shards, and is written when a shard changes hands and never else. Every write is a
//! compare-and-swap.
//!
//! Nobody compares clocks. A replica acts for [`Times::trust`] after it *sent* the last renewal that its
//! own watch has shown to it, so neither a lost request nor a watch that is behind keeps it acting. A
//! replica whose rank was *seen unchanged* for [`Times::free`], which is longer, is taken out of its
//! rank first; its shards are taken after that.
//!
//! Replicas of version 0.1.0 know one Lease, rank 0: who holds it may work for all rigs. So rank 0 is
//! never left empty while a replica that knows shards acts: it is handed over by name. A replica in
//! another rank acts only while it knows that rank 0 was renewed, by one that knows shards, after a
//! renewal of its own.

mod decide;
mod seen;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Into how many shards the rigs are divided. Replicas must agree on it.
pub const SHARDS: usize = 16;
/// How many replicas may work at a time; more than there are shards would have nothing to do.
pub(crate) const RANKS: usize = 16;
/// How many renewals of one's own are remembered, to date renewals of rank 0.
const REMEMBERED: usize = 8;

/// The owner of each shard; empty where there is none.
pub(crate) type Owners = [String; SHARDS];

/// How fast replicas act.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// The time between two successful renewals.
    pub renew: Duration,
    /// A replica acts for this long after it sent a renewal. Less than `free`.
    pub trust: Duration,
    /// A rank that is unchanged for this long is free.
    pub free: Duration,
    /// A replica in another rank acts for this long after its own renewal that one of rank 0
    /// followed. Less than replicas of version 0.1.0 wait for an unchanged Lease.
    pub guard: Duration,
    /// Work on a shard that is to be handed over gets this long to end.
    pub drain: Duration,
    /// The time between two attempts of the same write.
    pub retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(10),
            trust: Duration::from_secs(15),
            free: Duration::from_secs(30),
            guard: Duration::from_secs(45),
            drain: Duration::from_secs(30),
            retry: Duration::from_millis(500),
        }
    }
}

/// One replica, as a rank names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    /// The process's name and a suffix.
    pub name: String,
    /// Where it serves.
    pub address: Option<IpAddr>,
}

/// What a rank's Lease has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// Who holds it.
    pub holder: Option<Replica>,
    /// How many shards its holder knows; none for a replica that knows no shards.
    pub shards: Option<usize>,
    /// Its holder hands its shards over, and takes no more.
    pub leaves: bool,
}

/// What the table's Lease has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// The owners; none where the Lease has no list of them.
    pub owners: Option<Owners>,
    /// Whether it has the label by which it is watched.
    pub watched: bool,
}

/// One of the Leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The rank of this number.
    Rank(usize),
    /// The table.
    Table,
}

/// A compare-and-swap of one Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// The version that is replaced; none creates the Lease.
    pub expected: Option<u64>,
    /// What is written.
    pub value: Value,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// The holder of this rank, and whether it leaves.
    Rank(usize, Option<Replica>, bool),
    /// The owners.
    Table(Box<Owners>),
}

impl Write {
    pub(crate) fn place(&self) -> Place {
        match self.value {
            Value::Rank(rank, ..) => Place::Rank(rank),
            Value::Table(_) => Place::Table,
        }
    }
}

/// What a replica is to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// It works on it; the term is another one each time it was taken.
    Ours(u64),
    /// It ends its running work, to hand the shard over.
    Draining(u64),
    /// Another replica does, which is known or not.
    Others(Option<Replica>),
}

/// An object as it was last seen, and since when it has been so.
#[derive(Clone, Debug)]
struct Seen<T> {
    value: Option<T>,
    since: Instant,
}

/// The rank that this replica holds.
#[derive(Clone, Debug)]
struct Own {
    rank: usize,
    version: u64,
    /// When the last successful renewal was sent.
    sent: Instant,
    /// When the last renewal was sent that the watch has shown.
    shown: Option<Instant>,
}

/// One replica's view, and its part in it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    times: Times,
    /// The process's name, without a suffix.
    process: String,
    me: Replica,
    random: fastrand::Rng,
    ranks: Vec<Seen<Rank>>,
    table: Seen<Table>,
    /// Whether the Leases have been listed once.
    listed: bool,
    /// The version up to which everything was seen.
    seen_up_to: u64,
    own: Option<Own>,
    /// Own renewals, the latest last: version, and when it was sent.
    renewals: VecDeque<(u64, Instant)>,
    /// When the latest renewal of our own was sent that one of rank 0 followed.
    guarded: Option<Instant>,
    /// When the watch was last begun anew because it owed a renewal.
    asked: Option<Instant>,
    /// Replicas that were seen to leave a rank.
    left: HashSet<String>,
    /// Owners that hold no rank and were not seen to leave one, and since when.
    absent: HashMap<String, Instant>,
    /// Writes that failed: the version that they expected, and when to try again.
    failed: HashMap<Place, (Option<u64>, Instant)>,
    terms: [Option<u64>; SHARDS],
    next_term: u64,
    /// Since when work on a shard ends, because another replica is to have it.
    draining: [Option<Instant>; SHARDS],
    /// A write that gives the shard away was sent, and may have had its effect.
    given: [bool; SHARDS],
    leaving: bool,
}

impl Member {
    /// A replica that holds nothing yet, and has seen nothing. `seed`: of its names' suffixes.
    pub(crate) fn new(
        process: &str,
        address: Option<IpAddr>,
        times: Times,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let name = suffixed(process, &mut random);
        Self {
            times,
            process: process.to_owned(),
            me: Replica { name, address },
            random,
            ranks: vec![Seen { value: None, since: now }; RANKS],
            table: Seen { value: None, since: now },
            listed: false,
            seen_up_to: 0,
            own: None,
            renewals: VecDeque::new(),
            guarded: None,
            asked: None,
            left: HashSet::new(),
            absent: HashMap::new(),
            failed: HashMap::new(),
            terms: [None; SHARDS],
            next_term: 1,
            draining: [None; SHARDS],
            given: [false; SHARDS],
            leaving: false,
        }
    }

    /// The replica is to end: its shards go as their work ends, then its rank.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether this replica holds nothing any more that others would wait for.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving && self.own.is_none()
    }

    /// Why this replica must not take part.
    pub(crate) fn disagreement(&self, now: Instant) -> Option<String> {
        let other = |rank: &&Seen<Rank>| {
            let shards = rank.value.as_ref().and_then(|rank| rank.shards);
            shards.is_some_and(|shards| shards != SHARDS) && !self.is_expired(rank, now)
        };
        let rank = self.ranks.iter().find(other)?.value.as_ref()?;
        Some(format!(
            "replica {} divides the rigs into {} shards, and this one into {SHARDS}: end the replicas \
             of the other version first",
            rank.holder.as_ref().map_or("?", |holder| &holder.name),
            rank.shards.unwrap_or_default(),
        ))
    }

    fn is_expired(&self, rank: &Seen<Rank>, now: Instant) -> bool {
        now.saturating_duration_since(rank.since) >= self.times.free
    }

    fn holder(&self, number: usize) -> Option<&Replica> {
        self.ranks[number].value.as_ref()?.holder.as_ref()
    }

    /// Whether a replica of this name holds any rank.
    fn is_holder(&self, name: &str) -> bool {
        (0..RANKS).any(|rank| self.holder(rank).is_some_and(|holder| holder.name == name))
    }

    /// Whether the process that had this name is the predecessor of this one, and so dead.
    fn is_predecessor(&self, name: &str) -> bool {
        name != self.me.name
            && (name == self.process
                || name.rsplit_once('_').is_some_and(|(process, _)| process == self.process))
    }

    /// The replicas that know shards and renew their ranks, this one among them; each once.
    fn live(&self, now: Instant) -> Vec<&Replica> {
        let mut live: Vec<&Replica> = Vec::new();
        for (number, rank) in self.ranks.iter().enumerate() {
            let knows = rank.value.as_ref().is_some_and(|rank| rank.shards == Some(SHARDS));
            let Some(holder) = self.holder(number).filter(|_| knows) else { continue };
            let counts = *holder == self.me || !self.is_expired(rank, now);
            if counts && !live.iter().any(|other| other.name == holder.name) {
                live.push(holder);
            }
        }
        live
    }

    /// The live replicas that take shards.
    fn takers(&self, now: Instant) -> Vec<&Replica> {
        let leaves = |replica: &Replica| {
            let ranks = self.ranks.iter().filter_map(|rank| rank.value.as_ref());
            ranks.clone().any(|rank| rank.leaves && rank.holder.as_ref() == Some(replica))
        };
        self.live(now).into_iter().filter(|replica| !leaves(replica)).collect()
    }

    /// Whether a shard of this owner may be taken.
    fn is_free(&self, owner: &str, now: Instant) -> bool {
        let gone = self.left.contains(owner)
            || self.is_predecessor(owner)
            || self.absent.get(owner).is_some_and(|since| now >= *since + self.times.free);
        owner.is_empty() || (owner != self.me.name && !self.is_holder(owner) && gone)
    }

    /// Until when this replica may act; none when it may not.
    pub(crate) fn valid_until(&self, now: Instant) -> Option<Instant> {
        let own = self.own.as_ref().filter(|_| self.listed)?;
        let until = own.shown? + self.times.trust;
        let until = if own.rank == 0 { until } else { until.min(self.guarded_until()?) };
        Some(until).filter(|until| now < *until)
    }

    /// Until when no replica that knows no shards can have taken rank 0.
    fn guarded_until(&self) -> Option<Instant> {
        let first = self.ranks[0].value.as_ref()?;
        (first.holder.is_some() && first.shards.is_some())
            .then_some(self.guarded? + self.times.guard)
    }

    /// What this replica is to each shard, until [`Member::valid_until`]; after that it is nothing to any.
    pub(crate) fn shares(&self, now: Instant) -> [Share; SHARDS] {
        let too_long = |since: Instant| now >= since + self.times.drain;
        // One that knows no shards works for all rigs.
        let first = self.ranks[0].value.as_ref().filter(|rank| rank.shards.is_none());
        let for_all = first.and_then(|rank| rank.holder.clone());
        std::array::from_fn(|shard| match (self.terms[shard], self.draining[shard]) {
            _ if for_all.is_some() => Share::Others(for_all.clone()),
            (Some(_), _) if self.given[shard] => Share::Others(None),
            (Some(_), Some(since)) if too_long(since) => Share::Others(None),
            (Some(term), Some(_)) => Share::Draining(term),
            (Some(term), None) if self.leaving => Share::Draining(term),
            (Some(term), None) => Share::Ours(term),
            (None, _) => {
                let holders = (0..RANKS).filter_map(|rank| self.holder(rank));
                let owner = self.owner(shard);
                let owner = owner.and_then(|owner| holders.clone().find(|h| h.name == *owner));
                Share::Others(owner.cloned())
            }
        })
    }

    /// Since when the watch owes a renewal of our own; none when it has shown the last one.
    pub(crate) fn unshown_since(&self) -> Option<Instant> {
        let own = self.own.as_ref()?;
        (own.version > self.seen_up_to).then_some(own.sent.max(self.asked.unwrap_or(own.sent)))
    }

    /// The watch begins anew.
    pub(crate) fn asked_again(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// Whether this replica holds a rank.
    pub(crate) fn has_rank(&self) -> bool {
        self.own.is_some()
    }

    /// This replica's name.
    pub(crate) fn name(&self) -> &str {
        &self.me.name
    }

    /// Where others serve.
    pub(crate) fn others(&self, now: Instant) -> Vec<IpAddr> {
        let others = self.takers(now).into_iter().filter(|replica| **replica != self.me);
        others.filter_map(|replica| replica.address).collect()
    }
}

fn suffixed(process: &str, random: &mut fastrand::Rng) -> String {
    format!("{process}_{:08x}", random.u32(..))
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
