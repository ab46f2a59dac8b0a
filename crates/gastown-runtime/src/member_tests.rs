//! Replicas in a world of their own: with clocks that drift, watches that are behind, requests that
//! come late or not at all, and replicas of version 0.1.0, which know one Lease.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;

/// The world goes on in steps of this length.
const STEP: Duration = Duration::from_millis(100);
/// A request is given up after this long; it may still have an effect.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A shard that nobody works on in a world where nothing goes wrong any more is taken within this.
const SETTLED: Duration = Duration::from_secs(150);

#[derive(Clone, Debug)]
enum Object {
    Rank(Option<Replica>, Option<usize>, bool),
    Table(Box<Owners>),
}

/// The API server.
#[derive(Default)]
struct Server {
    version: u64,
    objects: HashMap<u64, (u64, Object)>,
    /// Every change, by its version: the place, and what is there.
    log: BTreeMap<u64, (Place, Option<Object>)>,
}

fn key(place: Place) -> u64 {
    match place {
        Place::Rank(number) => number as u64,
        Place::Table => 99,
    }
}

impl Server {
    fn put(&mut self, place: Place, expected: Option<u64>, object: Object) -> Option<u64> {
        let present = self.objects.get(&key(place)).map(|(version, _)| *version);
        if present != expected {
            return None;
        }
        self.version += 1;
        self.objects.insert(key(place), (self.version, object.clone()));
        self.log.insert(self.version, (place, Some(object)));
        Some(self.version)
    }

    fn delete(&mut self, place: Place) {
        if self.objects.remove(&key(place)).is_some() {
            self.version += 1;
            self.log.insert(self.version, (place, None));
        }
    }

    fn rank(&self, number: usize) -> Option<Rank> {
        let (version, object) = self.objects.get(&(number as u64))?;
        rank(*version, object)
    }

    fn table(&self) -> Option<Table> {
        let (version, object) = self.objects.get(&key(Place::Table))?;
        table(*version, object)
    }
}

fn rank(version: u64, object: &Object) -> Option<Rank> {
    let Object::Rank(holder, shards, leaves) = object else { return None };
    Some(Rank { version, holder: holder.clone(), shards: *shards, leaves: *leaves })
}

fn table(version: u64, object: &Object) -> Option<Table> {
    let Object::Table(owners) = object else { return None };
    Some(Table { version, owners: Some(Owners::clone(owners)), watched: true })
}

/// A request on its way.
struct Flight {
    write: Write,
    sent: Instant,
    arrives: Duration,
    answered: Duration,
    answer: Option<u64>,
    /// Nobody waits for the answer any more.
    given_up: bool,
    arrived: bool,
}

/// A process of today's version.
struct Process {
    member: Member,
    /// How fast its clock is.
    rate: f64,
    /// Up to which version its watch has come; none before its first list.
    watched: Option<u64>,
    flights: Vec<Flight>,
    /// Until when it gets no event.
    deaf: Duration,
    /// Until when its requests are lost, or late.
    cut: Duration,
    late: Duration,
    busy: [Duration; SHARDS],
    leaving: Option<Duration>,
}

/// A process of version 0.1.0, which wants rank 0 and works for all rigs.
struct Old {
    name: String,
    seen: Option<(Option<Rank>, Duration)>,
    /// When the last successful renewal was sent.
    renewed: Option<Duration>,
    next: Duration,
    cut: Duration,
}

struct World {
    start: Instant,
    now: Duration,
    server: Server,
    processes: Vec<Process>,
    olds: Vec<Old>,
    random: fastrand::Rng,
    names: usize,
    unowned: [Duration; SHARDS],
    /// Work ends soon.
    calm: bool,
}

#[derive(Clone, Debug)]
enum Action {
    Start(f64),
    StartOld,
    Kill(usize),
    /// It is killed and starts again under the same process's name.
    Restart(usize),
    Leave(usize),
    EndOld,
    CutOff(usize, u64),
    Deaf(usize, u64),
    Late(usize, u64),
    CutOffOld(u64),
    DeleteRank(usize),
    DeleteTable,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            start: Instant::now(),
            now: Duration::from_secs(1000),
            server: Server::default(),
            processes: Vec::new(),
            olds: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            names: 0,
            unowned: [Duration::ZERO; SHARDS],
            calm: false,
        }
    }

    fn process(&mut self, name: &str, rate: f64) {
        let local = local(self.start, rate, self.now);
        let seed = self.random.u64(..);
        let member = Member::new(name, None, Times::default(), seed, local);
        self.processes.push(Process {
            member,
            rate,
            watched: None,
            flights: Vec::new(),
            deaf: Duration::ZERO,
            cut: Duration::ZERO,
            late: Duration::ZERO,
            busy: [Duration::ZERO; SHARDS],
            leaving: None,
        });
    }

    fn act(&mut self, action: &Action) {
        let now = self.now;
        let count = self.processes.len().max(1);
        match *action {
            Action::Start(rate) if self.processes.len() < 5 => {
                self.names += 1;
                let name = format!("ctl-{}", self.names);
                self.process(&name, rate);
            }
            Action::StartOld if self.olds.len() < 2 => {
                self.names += 1;
                let name = format!("old-{}", self.names);
                self.olds.push(Old {
                    name,
                    seen: None,
                    renewed: None,
                    next: now,
                    cut: Duration::ZERO,
                });
            }
            Action::Kill(one) if !self.processes.is_empty() => {
                self.processes.remove(one % count);
            }
            Action::Restart(one) if !self.processes.is_empty() => {
                let killed = self.processes.remove(one % count);
                let name = killed.member.process.clone();
                self.process(&name, killed.rate);
            }
            Action::Leave(one) => {
                if let Some(process) = self.processes.get_mut(one % count)
                    && process.leaving.is_none()
                {
                    process.leaving = Some(now);
                    process.member.leave();
                }
            }
            Action::EndOld => {
                if let Some(old) = self.olds.pop()
                    && old.renewed.is_some()
                    && let Some(rank) = self.server.rank(0)
                    && rank.holder.as_ref().is_some_and(|holder| holder.name == old.name)
                {
                    let free = Object::Rank(None, None, false);
                    self.server.put(Place::Rank(0), Some(rank.version), free);
                }
            }
            Action::CutOff(one, seconds) => {
                if let Some(process) = self.processes.get_mut(one % count) {
                    process.cut = now + Duration::from_secs(seconds);
                    process.deaf = process.cut;
                }
            }
            Action::Deaf(one, seconds) => {
                if let Some(process) = self.processes.get_mut(one % count) {
                    process.deaf = now + Duration::from_secs(seconds);
                }
            }
            Action::Late(one, seconds) => {
                if let Some(process) = self.processes.get_mut(one % count) {
                    process.late = now + Duration::from_secs(seconds);
                }
            }
            Action::CutOffOld(seconds) => {
                if let Some(old) = self.olds.first_mut() {
                    old.cut = now + Duration::from_secs(seconds);
                }
            }
            // An old process that starts just then takes an absent Lease at once: that is its fault.
            Action::DeleteRank(number) if self.olds.is_empty() || number % 4 > 0 => {
                self.server.delete(Place::Rank(number % 4));
            }
            Action::DeleteTable => self.server.delete(Place::Table),
            _ => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            self.step_olds();
            for one in 0..self.processes.len() {
                self.step(one);
            }
            self.processes
                .retain(|process| process.leaving.is_none() || !process.member.has_left());
            self.check();
        }
    }

    fn step(&mut self, one: usize) {
        let Self { start, now, server, processes, random, calm, .. } = self;
        let longest = if *calm { 2_000 } else { 40_000 };
        let (now, process) = (*now, &mut processes[one]);
        let clock = local(*start, process.rate, now);
        // Requests arrive and are answered.
        for flight in &mut process.flights {
            if !flight.arrived && now >= flight.arrives {
                flight.arrived = true;
                let place = flight.write.place();
                let object = match &flight.write.value {
                    Value::Rank(_, holder, leaves) => {
                        let shards = holder.as_ref().map(|_| SHARDS);
                        Object::Rank(holder.clone(), shards, *leaves)
                    }
                    Value::Table(owners) => Object::Table(owners.clone()),
                };
                flight.answer = server.put(place, flight.write.expected, object);
            }
        }
        let mut relist = process.watched.is_none();
        let waiting = process.flights.iter_mut().find(|flight| !flight.given_up);
        if let Some(flight) = waiting {
            let answered = flight.arrived && now >= flight.answered;
            let timed_out = clock >= flight.sent + TIMEOUT;
            if answered || timed_out {
                flight.given_up = true;
                let answer = flight.answer.filter(|_| answered);
                relist |= answered && answer.is_none();
                process.member.answered(&flight.write, answer, flight.sent, clock);
            }
        }
        process.flights.retain(|flight| !(flight.given_up && flight.arrived));
        let owed = process.member.unshown_since().is_some_and(|at| clock >= at + TIMEOUT * 2);
        if owed {
            process.member.asked_again(clock);
            relist = true;
        }
        if now >= process.deaf {
            if relist {
                let ranks = std::array::from_fn(|number| server.rank(number));
                process.member.listed(server.version, ranks, server.table(), clock);
                process.watched = Some(server.version);
            }
            let from = process.watched.unwrap_or_default() + 1;
            // The watch is now and then behind.
            let behind = u64::from(random.u8(..4) == 0);
            let to = server.version.saturating_sub(behind) + 1;
            for (version, (place, object)) in server.log.range(from..to.max(from)) {
                match place {
                    Place::Rank(number) => {
                        let rank = object.as_ref().and_then(|object| rank(*version, object));
                        process.member.watched_rank(*version, *number, rank, clock);
                    }
                    Place::Table => {
                        let table = object.as_ref().and_then(|object| table(*version, object));
                        process.member.watched_table(*version, table, clock);
                    }
                }
                process.watched = Some(*version);
            }
        }
        // Work comes and goes.
        let shares = process.member.shares(clock);
        let acts = process.member.valid_until(clock).is_some();
        for (shard, share) in shares.iter().enumerate() {
            match share {
                Share::Ours(_) if acts && random.u8(..100) == 0 => {
                    process.busy[shard] = now + Duration::from_millis(random.u64(..longest));
                }
                Share::Others(_) => process.busy[shard] = now,
                _ if !acts => process.busy[shard] = now,
                _ => {}
            }
            // Work that does not end is aborted.
            if process.leaving.is_some_and(|since| now >= since + Duration::from_secs(20)) {
                process.busy[shard] = now;
            }
        }
        if process.flights.iter().any(|flight| !flight.given_up) {
            return;
        }
        let idle = std::array::from_fn(|shard| process.busy[shard] <= now);
        if let Some(write) = process.member.decide(&idle, clock) {
            let slow = Duration::from_millis(random.u64(..60_000));
            let (arrives, answered) = if now < process.cut {
                (Duration::MAX, Duration::MAX)
            } else if now < process.late {
                (now + slow, now + slow)
            } else {
                let fast = Duration::from_millis(random.u64(..300));
                (now + fast / 2, now + fast)
            };
            process.flights.push(Flight {
                write,
                sent: clock,
                arrives,
                answered,
                answer: None,
                given_up: false,
                arrived: false,
            });
        }
    }

    /// Version 0.1.0: duration 15 s, renew deadline 10 s, renewal every 5 s, retry every 2 s; a Lease
    /// that promises more is waited for up to four times as long.
    fn step_olds(&mut self) {
        let Self { now, server, olds, .. } = self;
        let now = *now;
        for old in olds {
            if now < old.next || now < old.cut {
                continue;
            }
            let rank = server.rank(0);
            let version = |rank: &Option<Rank>| rank.as_ref().map(|rank| rank.version);
            if old.seen.as_ref().is_none_or(|(seen, _)| version(seen) != version(&rank)) {
                old.seen = Some((rank.clone(), now));
            }
            let since = old.seen.as_ref().map_or(now, |(_, since)| *since);
            let holder = rank.as_ref().and_then(|rank| rank.holder.clone());
            let promised = rank.as_ref().and_then(|rank| rank.shards).map_or(15, |_| 60);
            let is_free = holder.as_ref().is_none_or(|holder| holder.name == old.name)
                || now >= since + Duration::from_secs(promised);
            old.next = now + Duration::from_secs(2);
            if is_free {
                let me = Replica { name: old.name.clone(), address: None };
                let object = Object::Rank(Some(me), None, false);
                if server.put(Place::Rank(0), version(&rank), object).is_some() {
                    old.renewed = Some(now);
                    old.next = now + Duration::from_secs(5);
                    old.seen = Some((server.rank(0), now));
                }
            }
        }
    }

    fn acting(&self) -> [Vec<String>; SHARDS] {
        std::array::from_fn(|shard| {
            let mut acting = Vec::new();
            for process in &self.processes {
                let clock = local(self.start, process.rate, self.now);
                let holds = matches!(
                    process.member.shares(clock)[shard],
                    Share::Ours(_) | Share::Draining(_)
                );
                if holds && process.member.valid_until(clock).is_some() {
                    acting.push(process.member.name().to_owned());
                }
            }
            let deadline = Duration::from_secs(10);
            let old = |old: &&Old| old.renewed.is_some_and(|sent| self.now < sent + deadline);
            let still = |old: &&Old| match &old.seen {
                Some((Some(rank), _)) => rank.holder.as_ref().is_some_and(|h| h.name == old.name),
                _ => false,
            };
            acting.extend(self.olds.iter().filter(old).filter(still).map(|old| old.name.clone()));
            acting
        })
    }

    fn check(&mut self) {
        for (shard, acting) in self.acting().iter().enumerate() {
            assert!(acting.len() <= 1, "{:?}: shard {shard} has {acting:?}", self.now);
            if acting.is_empty() {
                self.unowned[shard] += STEP;
            } else {
                self.unowned[shard] = Duration::ZERO;
            }
        }
    }

    /// How many shards each process works on.
    fn loads(&self) -> Vec<usize> {
        let acting = self.acting();
        let of = |process: &Process| {
            acting.iter().filter(|names| names.iter().any(|n| n == process.member.name())).count()
        };
        self.processes.iter().map(of).collect()
    }
}

fn local(start: Instant, rate: f64, now: Duration) -> Instant {
    start + now.mul_f64(rate)
}

fn seconds(range: Range<u64>) -> impl Strategy<Value = u64> {
    range
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0.99..1.01).prop_map(Action::Start),
        1 => Just(Action::StartOld),
        2 => any::<usize>().prop_map(Action::Kill),
        2 => any::<usize>().prop_map(Action::Restart),
        3 => any::<usize>().prop_map(Action::Leave),
        1 => Just(Action::EndOld),
        2 => (any::<usize>(), seconds(1..90)).prop_map(|(one, time)| Action::CutOff(one, time)),
        2 => (any::<usize>(), seconds(1..90)).prop_map(|(one, time)| Action::Deaf(one, time)),
        2 => (any::<usize>(), seconds(1..90)).prop_map(|(one, time)| Action::Late(one, time)),
        1 => seconds(1..90).prop_map(Action::CutOffOld),
        1 => any::<usize>().prop_map(Action::DeleteRank),
        1 => Just(Action::DeleteTable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_shard_has_two_replicas_and_each_has_one_in_the_end(
        seed in any::<u64>(),
        actions in prop::collection::vec((action(), 0_u64..60), 1..25),
    ) {
        let mut world = World::new(seed);
        world.process("ctl-0", 1.0);
        for (action, wait) in &actions {
            world.act(action);
            world.pass(Duration::from_millis(wait * wait * 15));
        }
        while !world.olds.is_empty() {
            world.act(&Action::EndOld);
        }
        world.calm = true;
        for process in &mut world.processes {
            (process.cut, process.deaf, process.late) = Default::default();
        }
        if world.processes.iter().all(|process| process.leaving.is_some()) {
            world.act(&Action::Start(1.0));
        }
        world.pass(SETTLED);
        let loads = world.loads();
        prop_assert_eq!(loads.iter().sum::<usize>(), SHARDS, "{:?}", loads);
        let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
        prop_assert!(most - least <= 1, "{:?}", loads);
    }
}

/// A world with this many processes that have divided the shards.
fn settled(count: usize) -> World {
    let mut world = World::new(7);
    for _ in 0..count {
        world.act(&Action::Start(1.0));
    }
    world.pass(SETTLED);
    assert_eq!(world.loads().iter().sum::<usize>(), SHARDS);
    world
}

#[test]
fn a_single_replica_works_at_once_and_renews_one_lease() {
    let mut world = World::new(7);
    world.act(&Action::Start(1.0));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.loads(), [SHARDS]);
    let before = world.server.version;
    world.pass(Duration::from_secs(100));
    let renewals = world.server.version - before;
    assert!((9..=11).contains(&renewals), "{renewals}");
}

#[test]
fn renewals_grow_with_the_replicas_alone() {
    let mut world = settled(4);
    let before = world.server.version;
    world.pass(Duration::from_secs(100));
    let renewals = world.server.version - before;
    assert!((36..=44).contains(&renewals), "{renewals}");
}

#[test]
fn a_replica_that_leaves_hands_its_shards_over_at_once() {
    let mut world = settled(3);
    for process in &mut world.processes {
        process.busy = [Duration::ZERO; SHARDS];
    }
    world.act(&Action::Leave(0));
    let mut longest = Duration::ZERO;
    while world.processes.len() > 2 {
        world.pass(STEP);
        longest = longest.max(*world.unowned.iter().max().unwrap());
        for process in &mut world.processes {
            process.busy = [Duration::ZERO; SHARDS];
        }
    }
    world.pass(Duration::from_secs(1));
    assert!(longest <= Duration::from_secs(1), "{longest:?}");
    assert_eq!(world.loads().iter().sum::<usize>(), SHARDS);
}

#[test]
fn shards_of_a_killed_replica_are_taken_and_those_of_others_are_worked_on_meanwhile() {
    for killed in 0..3 {
        let mut world = settled(3);
        let lost = world.loads()[killed];
        world.act(&Action::Kill(killed));
        for _ in 0..360 {
            world.pass(STEP);
            let unowned = world.unowned.iter().filter(|time| **time > STEP).count();
            assert!(unowned <= lost, "{unowned} of {lost}");
        }
        assert_eq!(world.loads().iter().sum::<usize>(), SHARDS, "within 36 s");
    }
}

#[test]
fn a_replica_of_an_older_version_waits_until_all_others_have_gone() {
    let mut world = settled(3);
    world.act(&Action::StartOld);
    for _ in 0..3 {
        world.pass(Duration::from_secs(60));
        assert_eq!(world.olds[0].renewed, None);
        world.act(&Action::Leave(0));
        world.pass(Duration::from_secs(30));
    }
    assert!(world.processes.is_empty() && world.olds[0].renewed.is_some());
    world.act(&Action::Start(1.0));
    world.pass(Duration::from_secs(100));
    assert_eq!(world.loads(), [0], "it waits for the older one");
    world.act(&Action::EndOld);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.loads(), [SHARDS]);
}

#[test]
fn replicas_that_divide_the_rigs_differently_do_not_start() {
    let mut world = settled(1);
    let rank = world.server.rank(0).unwrap();
    let other = Object::Rank(rank.holder, Some(SHARDS * 2), false);
    world.server.put(Place::Rank(0), Some(rank.version), other);
    world.act(&Action::Start(1.0));
    world.processes.remove(0);
    world.pass(Duration::from_secs(1));
    let member = &world.processes[0].member;
    let clock = local(world.start, 1.0, world.now);
    let why = member.disagreement(clock).unwrap();
    assert!(why.contains("into 32 shards, and this one into 16"), "{why}");
}
