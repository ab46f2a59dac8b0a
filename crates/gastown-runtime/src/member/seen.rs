//! What a replica takes in: what its watch showed, and what its writes were answered.

use tokio::time::Instant;

use super::{
    Member, Own, Owners, RANKS, REMEMBERED, Rank, SHARDS, Seen, Table, Value, Write, suffixed,
};

impl Member {
    /// Takes in a list of all Leases at version `at`.
    pub(crate) fn listed(
        &mut self,
        at: u64,
        ranks: [Option<Rank>; RANKS],
        table: Option<Table>,
        now: Instant,
    ) {
        for (number, rank) in ranks.into_iter().enumerate() {
            let version = self.ranks[number].value.as_ref().map_or(0, |rank| rank.version);
            // A list that is older than an answer does not know what was written since.
            if rank.is_some() || version <= at {
                self.saw_rank(number, rank, now);
            }
        }
        if table.is_some() || self.table.value.as_ref().map_or(0, |table| table.version) <= at {
            self.saw_table(table, now);
        }
        self.listed = true;
        self.up_to(at);
    }

    /// Takes in what the watch shows of a rank; none: it was deleted, at version `at`.
    pub(crate) fn watched_rank(
        &mut self,
        at: u64,
        number: usize,
        rank: Option<Rank>,
        now: Instant,
    ) {
        self.saw_rank(number, rank, now);
        self.up_to(at);
    }

    /// Takes in what the watch shows of the table; none: it was deleted, at version `at`.
    pub(crate) fn watched_table(&mut self, at: u64, table: Option<Table>, now: Instant) {
        self.saw_table(table, now);
        self.up_to(at);
    }

    /// Everything up to this version was seen, so what we wrote before it counts.
    pub(crate) fn up_to(&mut self, at: u64) {
        self.seen_up_to = self.seen_up_to.max(at);
        if let Some(own) = &mut self.own {
            let shown = self.renewals.iter().rev().find(|(version, _)| *version <= self.seen_up_to);
            own.shown = shown.map(|(_, sent)| *sent).or(own.shown);
        }
    }

    fn saw_rank(&mut self, number: usize, rank: Option<Rank>, now: Instant) {
        let before = &self.ranks[number];
        let version = |rank: &Option<Rank>| rank.as_ref().map(|rank| rank.version);
        if rank.is_some() && version(&rank) <= version(&before.value) {
            return;
        }
        if rank.is_none() && before.value.is_none() {
            return;
        }
        let holder = |rank: &Option<Rank>| Some(rank.as_ref()?.holder.as_ref()?.name.clone());
        let (was, is) = (holder(&before.value), holder(&rank));
        // A deleted Lease proves nothing about its holder.
        if let Some(was) = was.filter(|was| rank.is_some() && is.as_ref() != Some(was)) {
            self.left.insert(was);
        }
        if number == 0
            && let Some(rank) = &rank
            && rank.shards.is_some()
        {
            let earlier = self.renewals.iter().rev().find(|(version, _)| *version < rank.version);
            self.guarded = earlier.map(|(_, sent)| *sent).or(self.guarded);
        }
        let is_ours = is.as_ref() == Some(&self.me.name);
        let version = version(&rank);
        self.ranks[number] = Seen { value: rank, since: now };
        match &mut self.own {
            Some(own) if own.rank == number && is_ours => {
                // A write of ours whose answer was lost: when it was sent is not known.
                own.version = version.unwrap_or(own.version);
            }
            Some(own) if own.rank == number => self.lose(),
            _ => {}
        }
    }

    fn saw_table(&mut self, table: Option<Table>, now: Instant) {
        let version = |table: &Option<Table>| table.as_ref().map(|table| table.version);
        if table.is_some() && version(&table) <= version(&self.table.value) {
            return;
        }
        if table.is_none() && self.table.value.is_none() {
            return;
        }
        self.table = Seen { value: table, since: now };
        self.count_terms();
    }

    /// The rank is another's: whatever this replica held under its name is not its own any more.
    pub(super) fn lose(&mut self) {
        self.own = None;
        self.renewals.clear();
        self.guarded = None;
        self.left.insert(self.me.name.clone());
        self.me.name = suffixed(&self.process, &mut self.random);
        self.count_terms();
    }

    pub(super) fn count_terms(&mut self) {
        for shard in 0..SHARDS {
            let ours = self.owner(shard) == Some(&self.me.name);
            match (ours, self.terms[shard]) {
                (true, None) => {
                    self.terms[shard] = Some(self.next_term);
                    self.next_term += 1;
                }
                (false, Some(_)) => {
                    self.terms[shard] = None;
                    self.draining[shard] = None;
                    self.given[shard] = false;
                }
                _ => {}
            }
        }
    }

    pub(super) fn owner(&self, shard: usize) -> Option<&String> {
        let owners = self.table.value.as_ref()?.owners.as_ref()?;
        Some(&owners[shard]).filter(|owner| !owner.is_empty())
    }

    /// Takes in the answer to a write that was sent at `sent`: its version, or none where it failed, or
    /// where it is not known whether it did.
    pub(crate) fn answered(
        &mut self,
        write: &Write,
        answer: Option<u64>,
        sent: Instant,
        now: Instant,
    ) {
        let place = write.place();
        let Some(version) = answer else {
            self.failed.insert(place, (write.expected, now + self.times.retry));
            return;
        };
        self.failed.remove(&place);
        match &write.value {
            Value::Rank(number, holder, leaves) => {
                let ours = holder.as_ref() == Some(&self.me);
                if ours {
                    let shown = self.own.as_ref().and_then(|own| own.shown);
                    self.own = Some(Own { rank: *number, version, sent, shown });
                    self.renewals.push_back((version, sent));
                    if self.renewals.len() > REMEMBERED {
                        self.renewals.pop_front();
                    }
                }
                let shards = holder.as_ref().map(|_| SHARDS);
                let written = Rank { version, holder: holder.clone(), shards, leaves: *leaves };
                self.saw_rank(*number, Some(written), now);
                self.up_to(0);
            }
            Value::Table(owners) => {
                self.saw_table(
                    Some(Table { version, owners: Some(Owners::clone(owners)), watched: true }),
                    now,
                );
            }
        }
    }
}
