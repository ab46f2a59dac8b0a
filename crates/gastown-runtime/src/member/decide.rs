//! What a replica writes next, and when it looks again.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Member, Own, Owners, RANKS, Rank, Replica, SHARDS, Seen, Times, Value, Write};

impl Member {
    /// The next write; `idle`: whether no work runs on a shard that is drained. Call it again after
    /// each answer, after each change, and at [`Member::next`].
    pub(crate) fn decide(&mut self, idle: &[bool; SHARDS], now: Instant) -> Option<Write> {
        if !self.listed {
            return None;
        }
        self.note_absent(now);
        let write = self.rank_write(now).or_else(|| self.table_write(idle, now));
        if write.is_none() {
            self.drain_one(now);
        }
        write
    }

    /// Remembers since when an owner holds no rank.
    fn note_absent(&mut self, now: Instant) {
        let owners: HashSet<String> =
            (0..SHARDS).filter_map(|shard| self.owner(shard).cloned()).collect();
        let absent: Vec<String> = owners
            .iter()
            .filter(|owner| **owner != self.me.name && !self.is_holder(owner))
            .cloned()
            .collect();
        self.absent.retain(|owner, _| absent.contains(owner));
        for owner in absent {
            self.absent.entry(owner).or_insert(now);
        }
        self.left.retain(|owner| owners.contains(owner));
    }

    /// A write, unless the same one failed a moment ago.
    fn attempt(&self, value: Value, now: Instant) -> Option<Write> {
        let write = match &value {
            Value::Rank(number, ..) => {
                let expected = self.ranks[*number].value.as_ref().map(|rank| rank.version);
                Write { expected, value }
            }
            Value::Table(_) => {
                Write { expected: self.table.value.as_ref().map(|table| table.version), value }
            }
        };
        let again = self.failed.get(&write.place());
        let waits = again.is_some_and(|(expected, at)| *expected == write.expected && now < *at);
        (!waits).then_some(write)
    }

    fn rank_write(&self, now: Instant) -> Option<Write> {
        let hold = |number: usize| self.hold(number, now);
        let Some(own) = &self.own else {
            return if self.leaving { None } else { self.free_rank(now).and_then(hold) };
        };
        if self.leaving {
            return self.release(own, now);
        }
        if own.rank != 0 && self.may_move_to_first(now) {
            return hold(0);
        }
        if now >= own.sent + self.times.renew {
            return hold(own.rank);
        }
        let free = |number: usize| self.attempt(Value::Rank(number, None, false), now);
        let spare = (1..RANKS).find(|number| *number != own.rank && self.is_mine(*number));
        if let Some(write) = spare.and_then(free) {
            return Some(write);
        }
        let expired = |number: &usize| {
            *number != own.rank
                && self.holder(*number).is_some()
                && self.is_expired(&self.ranks[*number], now)
        };
        (1..RANKS).find(expired).and_then(free)
    }

    /// Takes or renews a rank.
    fn hold(&self, number: usize, now: Instant) -> Option<Write> {
        self.attempt(Value::Rank(number, Some(self.me.clone()), self.leaving), now)
    }

    fn is_mine(&self, number: usize) -> bool {
        self.holder(number) == Some(&self.me)
    }

    fn is_vacant(&self, number: usize, now: Instant) -> bool {
        self.holder(number).is_none() || self.is_expired(&self.ranks[number], now)
    }

    fn may_move_to_first(&self, now: Instant) -> bool {
        self.is_vacant(0, now) || self.is_mine(0)
    }

    /// The rank to take: that of this process's predecessor, else the first that nobody holds.
    fn free_rank(&self, now: Instant) -> Option<usize> {
        let of_predecessor = |number: &usize| {
            self.holder(*number).is_some_and(|holder| self.is_predecessor(&holder.name))
        };
        let vacant = |number: &usize| self.is_vacant(*number, now);
        (0..RANKS).find(of_predecessor).or_else(|| (0..RANKS).find(vacant))
    }

    /// The ranks are released when no shard is ours any more; the first goes to another replica.
    fn release(&self, own: &Own, now: Instant) -> Option<Write> {
        let heir = self.takers(now).into_iter().find(|replica| **replica != self.me);
        // The others are to know, so that they hand nothing over to this one.
        let is_known = self.ranks[own.rank].value.as_ref().is_some_and(|rank| rank.leaves);
        if now >= own.sent + self.times.renew || (heir.is_some() && !is_known) {
            return self.hold(own.rank, now);
        }
        if self.terms.iter().any(Option::is_some) {
            return None;
        }
        let spare = (0..RANKS).find(|number| *number != own.rank && self.is_mine(*number));
        let number = spare.unwrap_or(own.rank);
        let holder = heir.filter(|_| number == 0).cloned();
        self.attempt(Value::Rank(number, holder, false), now)
    }

    fn table_write(&mut self, idle: &[bool; SHARDS], now: Instant) -> Option<Write> {
        let own = self.own.as_ref()?;
        // One that may be taken for dead soon begins nothing.
        if now >= own.sent + self.times.trust {
            return None;
        }
        let live = self.live(now);
        let present = self.table.value.as_ref().and_then(|table| table.owners.clone());
        let alone = live.iter().all(|replica| **replica == self.me);
        let is_old = now >= self.table.since + self.times.free;
        if present.is_none() && !(alone || is_old) {
            return None;
        }
        let present = present.unwrap_or_default();
        let mut wanted = present.clone();
        for shard in 0..SHARDS {
            let ours = wanted[shard] == self.me.name;
            if ours && (self.leaving || self.draining[shard].is_some()) && idle[shard] {
                wanted[shard] = String::new();
            }
        }
        let handed: Vec<usize> =
            (0..SHARDS).filter(|shard| wanted[*shard] != present[*shard]).collect();
        let takers = self.takers(now);
        let others: Vec<&Replica> =
            takers.iter().copied().filter(|replica| **replica != self.me).collect();
        let free = |shard: &usize| self.is_free(&wanted[*shard], now);
        let free: Vec<usize> = (0..SHARDS).filter(free).collect();
        // What is handed over goes to the others; what is free to whoever has least.
        let takers = if handed.is_empty() && !self.leaving { &takers } else { &others };
        for (shard, taker) in share_out(&wanted, &free, takers) {
            if taker == self.me.name || handed.contains(&shard) {
                wanted[shard] = taker;
            }
        }
        if wanted == present && self.table.value.as_ref().is_some_and(|table| table.watched) {
            return None;
        }
        let write = self.attempt(Value::Table(Box::new(wanted)), now)?;
        for shard in handed {
            self.given[shard] = true;
        }
        Some(write)
    }

    /// Begins to hand a shard over to the replica that has least, where that has two less than this one.
    fn drain_one(&mut self, now: Instant) {
        if self.leaving
            || self.draining.iter().any(Option::is_some)
            || self.valid_until(now).is_none()
        {
            return;
        }
        let ours = self.terms.iter().flatten().count();
        let held = |replica: &Replica| {
            (0..SHARDS).filter(|shard| self.owner(*shard) == Some(&replica.name)).count()
        };
        let least = self.takers(now).into_iter().map(held).min().unwrap_or(ours);
        let highest = self.terms.iter().rposition(Option::is_some);
        if let Some(shard) = highest.filter(|_| ours > least + 1) {
            self.draining[shard] = Some(now);
        }
    }

    /// The next time at which something is due though nothing changes.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let Times { renew, free, .. } = self.times;
        let own = self.own.as_ref().map(|own| own.sent + renew);
        let held = |rank: &&Seen<Rank>| {
            let holder = rank.value.as_ref().and_then(|rank| rank.holder.as_ref());
            holder.is_some_and(|holder| *holder != self.me)
        };
        let ranks = self.ranks.iter().filter(held).map(|rank| rank.since + free);
        let absent = self.absent.values().map(|since| *since + free);
        let again = self.failed.values().map(|(_, at)| *at);
        let table = self.table.value.is_none().then_some(self.table.since + free);
        let drained = self.draining.iter().flatten().map(|since| *since + self.times.drain);
        let times = own.into_iter().chain(ranks).chain(absent).chain(again).chain(table);
        let times = times.chain(drained);
        let valid = self.valid_until(now);
        times.chain(valid).filter(|at| *at > now).min()
    }
}

/// Who of the live replicas takes each free shard: always one that has least.
fn share_out(owners: &Owners, free: &[usize], live: &[&Replica]) -> Vec<(usize, String)> {
    let mut names: Vec<&str> = live.iter().map(|replica| replica.name.as_str()).collect();
    names.sort_unstable();
    let count = |name: &str| owners.iter().filter(|owner| *owner == name).count();
    let mut loads: Vec<(usize, &str)> = names.iter().map(|name| (count(name), *name)).collect();
    let mut taken = Vec::new();
    for shard in free {
        let Some(least) = loads.iter_mut().min_by_key(|(load, _)| *load) else { break };
        least.0 += 1;
        taken.push((*shard, least.1.to_owned()));
    }
    taken
}
