//! One limit, many nodes: exact takes, leases of several units, a store that fails, and what is never exceeded.
//!
//! Two nodes, one key, one unit given back each tick. The bucket is the real one: [`take`] and [`refund`] of the core
//! decide. Beside it stands an observer who knows nothing of buckets and sees only who was let in: `debt` is the most
//! that any stretch of time so far admitted beyond its length. "Never over-admit" is `debt <= burst`. No state holds a
//! moment, only distances, so time is not limited.

use std::time::Duration;

use bartizan_core::limit::{Quota, Tat, refund, take};
use bartizan_core::time::Millis;
use stateright::{Model, Property};

mod tests;

/// Now, in every state.
const NOW: Millis = Millis(1_000_000);
/// Where the observer stops counting: beyond all that is conceded.
const FAR: u8 = 16;
const NODES: u8 = 2;

/// What a node gives back of units it did not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Return {
    Nothing,
    /// All of them, however long it had them.
    All,
    /// All that have not been given back by time already.
    Undrained,
}

/// By how much the store's burst is shorter than what was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserve {
    Nothing,
    /// By what time gives back during the life of a lease.
    Life,
    /// By all units that can be out on lease.
    Leases,
}

/// What is assumed and which safeguards are in place.
#[derive(Clone, Debug)]
struct Lease {
    burst: u32,
    /// Units of a lease; none are given when it is 1.
    size: u32,
    /// Ticks a lease may be used.
    life: u8,
    /// Nodes that die, or are replaced and come back later, at most.
    crashes: u8,
    failovers: u8,
    /// How often the store goes and comes back.
    outages: u8,
    /// One node may lose the store while the other has it.
    partitions: bool,
    /// Bursts of over-admission conceded for each outage.
    concedes: u8,
    /// Units of a lease are used; else they are charges that are taken back, like those for a password that was right.
    spends: bool,
    /// A lease is charged when it is given.
    debits_first: bool,
    /// A lease ends.
    expires: bool,
    /// A new node takes no lease as long as one that it replaces could have one.
    newcomers_wait: bool,
    reserve: Reserve,
    returns: Return,
    /// Without the store a node counts to its share.
    divides: bool,
    /// What was charged without the store is charged there once it is back.
    replays: bool,
}

impl Lease {
    fn leases() -> Self {
        Self {
            burst: 7,
            size: 2,
            life: 2,
            crashes: 1,
            failovers: 0,
            outages: 0,
            partitions: false,
            concedes: 0,
            spends: true,
            debits_first: true,
            expires: true,
            newcomers_wait: true,
            reserve: Reserve::Leases,
            returns: Return::All,
            divides: true,
            replays: true,
        }
    }

    fn outage() -> Self {
        Self { burst: 4, size: 1, crashes: 0, outages: 2, concedes: 1, reserve: Reserve::Nothing, ..Self::leases() }
    }

    /// What the store enforces.
    fn shared(&self) -> Quota {
        let reserved = match self.reserve {
            Reserve::Nothing => 0,
            Reserve::Life => u32::from(self.life),
            Reserve::Leases => self.on_lease(),
        };
        Quota::new(1, Duration::from_millis(1), self.burst - reserved).unwrap()
    }

    /// Units that can be out on lease; of each lease one is used at once.
    fn on_lease(&self) -> u32 {
        u32::from(NODES) * (self.size - 1)
    }

    /// What a node enforces alone.
    fn share(&self) -> Quota {
        let nodes = if self.divides { NODES } else { 1 };
        let burst = (self.burst / u32::from(nodes)).max(1);
        Quota::new(1, Duration::from_millis(u64::from(nodes)), burst).unwrap()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    /// Units of its lease not used yet, and for how many ticks it has had them.
    left: u8,
    held: u8,
    /// Its own bucket, while it is without the store.
    own: Option<u8>,
    /// Units admitted alone and not charged in the store yet.
    owed: u8,
    cut: bool,
    /// Ticks until it may take leases.
    waits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Ticks until the shared bucket is empty; the same on the replica, which may be behind.
    level: u8,
    replica: u8,
    up: bool,
    nodes: [Node; NODES as usize],
    /// A node that was taken for dead: the rest of its lease and the age of it.
    ghost: (u8, u8),
    debt: u8,
    /// What was admitted alone, as an observer of that sees it.
    alone: u8,
    /// Units conceded so far.
    conceded: u8,
    /// Units that died with a node, could not be given back, or came back with an old replica; drained since.
    lost: u8,
    crashes: u8,
    failovers: u8,
    outages: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tick,
    Take(u8),
    TakeLease(u8),
    Spend(u8),
    Return(u8),
    Crash(u8),
    Replace(u8),
    GhostSpends,
    TakeAlone(u8),
    Replay(u8),
    Replicate,
    FailOver,
    StoreGoes,
    StoreIsBack,
    Cut(u8),
    Join(u8),
}

/// A bucket that is empty in so many ticks.
fn bucket(level: u8) -> Option<Tat> {
    // Milliseconds above 20 bits of parts of one; with one unit a millisecond there are no parts.
    if level == 0 { None } else { Tat::from_bits((NOW.0.unsigned_abs() + u64::from(level)) << 20) }
}

fn level(bucket: Option<Tat>) -> u8 {
    u8::try_from(bucket.map_or(0, |tat| tat.empty_at().0 - NOW.0)).unwrap()
}

/// Takes `cost` units; `None` when there are not as many.
fn charged(before: u8, quota: &Quota, cost: u32) -> Option<u8> {
    let (after, decision) = take(bucket(before), quota, cost, NOW);
    decision.verdict.admits().then(|| level(after))
}

impl Lease {
    fn reaches(&self, state: &State, n: u8) -> bool {
        state.up && !state.nodes[usize::from(n)].cut
    }

    fn node_steps(&self, state: &State, n: u8, steps: &mut Vec<Step>) {
        let node = &state.nodes[usize::from(n)];
        if self.reaches(state, n) {
            if node.owed > 0 && self.replays {
                // Before anything else is asked.
                steps.push(Step::Replay(n));
            } else {
                steps.push(Step::Take(n));
                if self.size > 1 && node.left == 0 && node.waits == 0 {
                    steps.push(Step::TakeLease(n));
                }
                if node.left > 0 {
                    steps.push(Step::Return(n));
                }
            }
        } else {
            steps.push(Step::TakeAlone(n));
        }
        if node.left > 0 && self.spends {
            steps.push(Step::Spend(n));
        }
        if state.crashes > 0 {
            steps.push(Step::Crash(n));
            if node.left > 0 {
                steps.push(Step::Replace(n));
            }
        }
        if self.partitions && state.up && state.outages > 0 && !node.cut {
            steps.push(Step::Cut(n));
        }
        if node.cut {
            steps.push(Step::Join(n));
        }
    }

    fn tick(&self, state: &mut State) {
        for n in 0..NODES {
            let node = state.nodes[usize::from(n)];
            if node.left == 0 || !self.expires || node.held < self.life {
                continue;
            }
            if self.reaches(state, n) {
                self.give_back(state, usize::from(n));
            } else {
                Self::lose(state, usize::from(n));
            }
        }
        state.ghost = match state.ghost {
            (0, _) => (0, 0),
            (_, held) if self.expires && held >= self.life => (0, 0),
            (left, held) => (left, (held + 1).min(self.life)),
        };
        let drained = |level: u8| level.saturating_sub(1);
        state.level = drained(state.level);
        state.replica = drained(state.replica);
        // One unit comes back: to those admitted first, else to those that were lost.
        state.lost = if state.debt == 0 { drained(state.lost) } else { state.lost };
        state.debt = drained(state.debt);
        state.alone = drained(state.alone);
        for node in &mut state.nodes {
            node.own = node.own.map(drained);
            node.waits = drained(node.waits);
            node.held = if node.left > 0 { (node.held + 1).min(self.life) } else { 0 };
        }
    }

    fn lose(state: &mut State, n: usize) {
        state.lost = (state.lost + state.nodes[n].left).min(FAR);
        (state.nodes[n].left, state.nodes[n].held) = (0, 0);
    }

    fn admit(state: &mut State) {
        state.debt = (state.debt + 1).min(FAR);
    }

    fn take_lease(&self, state: &mut State, n: usize) -> Option<()> {
        // As many as there are, at least the one that is wanted now.
        let (units, after) =
            (1..=self.size).rev().find_map(|units| Some((units, charged(state.level, &self.shared(), units)?)))?;
        if self.debits_first {
            state.level = after;
        }
        state.nodes[n].left = u8::try_from(units - 1).ok()?;
        state.nodes[n].held = 0;
        Self::admit(state);
        Some(())
    }

    fn give_back(&self, state: &mut State, n: usize) {
        let node = &mut state.nodes[n];
        let units = match self.returns {
            Return::Nothing => 0,
            Return::All => node.left,
            Return::Undrained => node.left.saturating_sub(node.held),
        };
        if self.debits_first {
            state.level = level(refund(bucket(state.level), &self.shared(), u32::from(units), NOW));
        } else {
            // Charged when it is over: what was used meanwhile.
            let used = u8::try_from(self.size).unwrap() - node.left;
            state.level = (state.level + used).min(u8::try_from(self.shared().burst()).unwrap());
        }
        (node.left, node.held) = (0, 0);
    }

    fn take_alone(&self, state: &mut State, n: usize) -> Option<()> {
        let share = self.share();
        let node = &mut state.nodes[n];
        // Nothing is known of others: the worst is that this node was not asked before.
        node.own = Some(charged(node.own.unwrap_or(0), &share, 1)?);
        node.owed = (node.owed + 1).min(FAR);
        state.alone = (state.alone + 1).min(FAR);
        Self::admit(state);
        Some(())
    }

    fn limit_step(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Take(_) => {
                state.level = charged(state.level, &self.shared(), 1)?;
                Self::admit(state);
            }
            Step::TakeLease(n) => self.take_lease(state, usize::from(n))?,
            Step::Spend(n) => {
                let node = &mut state.nodes[usize::from(n)];
                node.left -= 1;
                node.held = if node.left == 0 { 0 } else { node.held };
                Self::admit(state);
            }
            Step::Return(n) => self.give_back(state, usize::from(n)),
            _ => {}
        }
        Some(())
    }

    /// A node ends and another begins in its place. The one that is replaced may only have been slow.
    fn dies(&self, state: &mut State, step: Step) {
        state.crashes -= 1;
        match step {
            Step::Crash(n) => {
                Self::lose(state, usize::from(n));
                let node = &mut state.nodes[usize::from(n)];
                // What it admitted alone is forgotten with it: nobody will charge it any more.
                state.conceded += node.owed;
                // Begun without having seen the store, it assumes that its share is spent.
                let full = u8::try_from(self.share().drains_in().as_millis()).unwrap();
                *node = Node { cut: node.cut, own: (!state.up || node.cut).then_some(full), ..Node::default() };
            }
            Step::Replace(n) => {
                let node = &mut state.nodes[usize::from(n)];
                state.ghost = (node.left, node.held);
                let waits = if self.newcomers_wait { self.life + 1 } else { 0 };
                *node = Node { waits, ..Node::default() };
                state.lost = (state.lost + state.ghost.0).min(FAR);
            }
            _ => {}
        }
    }

    /// The store is there again for this node.
    fn joined(&self, node: &mut Node) {
        if !self.replays {
            node.owed = 0;
        }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            level: 0,
            replica: 0,
            up: true,
            nodes: [Node::default(); NODES as usize],
            ghost: (0, 0),
            debt: 0,
            alone: 0,
            conceded: 0,
            lost: 0,
            crashes: self.crashes,
            failovers: self.failovers,
            outages: self.outages,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Tick);
        (0..NODES).for_each(|n| self.node_steps(state, n, steps));
        if state.ghost.0 > 0 {
            steps.push(Step::GhostSpends);
        }
        if state.failovers > 0 {
            steps.extend([Step::FailOver, Step::Replicate]);
        }
        if !state.up {
            steps.push(Step::StoreIsBack);
        } else if state.outages > 0 && !self.partitions {
            steps.push(Step::StoreGoes);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        let burst = u8::try_from(self.burst).ok()?;
        match step {
            Step::Tick => self.tick(&mut state),
            Step::Take(_) | Step::TakeLease(_) | Step::Spend(_) | Step::Return(_) => {
                self.limit_step(&mut state, step)?;
            }
            Step::TakeAlone(n) => self.take_alone(&mut state, usize::from(n))?,
            Step::Replay(n) => {
                let full = u8::try_from(self.shared().burst()).ok()?;
                let node = &mut state.nodes[usize::from(n)];
                state.level = (state.level + node.owed).min(full);
                (node.owed, node.own) = (0, None);
            }
            Step::Crash(_) | Step::Replace(_) => self.dies(&mut state, step),
            Step::GhostSpends => {
                state.ghost.0 -= 1;
                Self::admit(&mut state);
            }
            Step::Replicate => state.replica = state.level,
            Step::FailOver => {
                state.lost = (state.lost + state.replica.saturating_sub(state.level)).min(FAR);
                state.level = state.replica;
                state.failovers -= 1;
                state.conceded += burst;
            }
            Step::StoreGoes => {
                (state.up, state.alone) = (false, 0);
                state.outages -= 1;
                state.conceded += self.concedes * burst;
            }
            Step::Cut(n) => {
                state.nodes[usize::from(n)].cut = true;
                state.outages -= 1;
                state.conceded += self.concedes * burst;
            }
            Step::StoreIsBack => {
                state.up = true;
                state.nodes.iter_mut().for_each(|node| self.joined(node));
            }
            Step::Join(n) => {
                let node = &mut state.nodes[usize::from(n)];
                node.cut = false;
                self.joined(node);
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(NEVER_OVER, |model: &Self, state: &State| {
                u32::from(state.debt) <= model.burst + u32::from(state.conceded)
            }),
            Property::sometimes("a whole burst is admitted at once", |model: &Self, state: &State| {
                u32::from(state.debt) == model.shared().burst()
            }),
        ];
        if self.outages > 0 && !self.partitions {
            all.push(Property::always(NEVER_OVER_ALONE, |model: &Self, state: &State| {
                u32::from(state.alone) <= model.burst
            }));
        }
        if self.size > 1 {
            all.push(Property::always(LITTLE_UNDER, |model: &Self, state: &State| {
                u32::from(state.level) <= u32::from(state.debt) + model.on_lease() + u32::from(state.lost)
            }));
        }
        all
    }
}

const NEVER_OVER: &str = "never more than promised";
const NEVER_OVER_ALONE: &str = "without the store all nodes together admit no more than promised";
const LITTLE_UNDER: &str = "less than promised by the leases at most";
