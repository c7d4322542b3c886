//! The way of a revocation: from the transaction that commits it to the last node that could still say yes.
//!
//! Two nodes; node *n* ends credential *n* and both are asked about credential 0. Time passes in ticks of half the
//! bound, for all nodes alike; ages stop counting where nothing changes any more, so the state space is finite although
//! time is not limited. Nothing has to happen: a node that never reads is one cut off from SQL, a hint that gets lost.

use stateright::{Model, Property};

mod promises;
mod state;
mod tests;

use state::{Ending, Need, Node, Read, Row, Server, State, life_at};

/// The freshness bound, in ticks.
const BOUND: u8 = 2;
/// Announcements of a new life of the store, at most.
const ANNOUNCEMENTS: usize = 2;

/// What a node knows when a logout was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Every node within the bound.
    Replicated,
    /// Every node at once.
    Strict(Trust),
}

/// When the number in the store tells a node that it has missed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Always.
    Blind,
    /// Once SQL was read over since this node's connection was made.
    Reconnected,
    /// While the store lives the life that SQL announced last; a raise counts once that is older than the bound.
    Announced,
}

/// What can happen to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    /// It may be out of reach for any node at any time, nothing else.
    Steady,
    /// The primary dies; a replica, which may be behind, takes its place.
    Dies,
    /// The replica takes the place of a primary that lives on; each node moves over when it likes, or never.
    Splits,
}

/// What is assumed and which safeguards are in place.
#[derive(Clone, Debug)]
struct Revocation {
    mode: Mode,
    store: Store,
    /// How often all data of the primary may vanish while it serves.
    flushes: u8,
    /// Credentials that are being ended, one or two.
    endings: u8,
    /// Crashes of nodes, at most.
    crashes: u8,
    /// The answer leaves after the commit.
    commits_first: bool,
    /// The answer leaves after this node's own memory was changed.
    applies_first: bool,
    /// Sequence numbers are given out in the order of commits, under one lock.
    ordered: bool,
    /// A node's own change leaves its cursor alone: others' rows may lie between.
    cursor_only_reads: bool,
    /// Past the bound a node reads SQL before it decides.
    bounded: bool,
    /// What was read is as old as the moment the read began, not the moment it ended.
    dated_from_start: bool,
    /// A node reads SQL before it serves.
    loads_first: bool,
    /// A cache keeps what a signature says, never that a credential is in force.
    looks_up_each_time: bool,
    /// In strict mode the answer waits out the bound when the number could not be raised.
    waits_out: bool,
    /// In strict mode a request that the store did not answer reads SQL.
    reads_without_store: bool,
    /// In strict mode a request shares a read with others only if that read began after the request.
    joins_later_reads: bool,
    /// In strict mode a node that is past the bound believes nothing of the store either.
    doubts_with_age: bool,
    /// A raise counts only once the store's life was announced longer ago than the bound.
    settles: bool,
}

impl Revocation {
    fn replicated() -> Self {
        Self {
            mode: Mode::Replicated,
            store: Store::Steady,
            flushes: 0,
            endings: 2,
            crashes: 1,
            commits_first: true,
            applies_first: true,
            ordered: true,
            cursor_only_reads: true,
            bounded: true,
            dated_from_start: true,
            loads_first: true,
            looks_up_each_time: true,
            waits_out: true,
            reads_without_store: true,
            joins_later_reads: true,
            doubts_with_age: true,
            settles: true,
        }
    }

    fn strict(trust: Trust, store: Store) -> Self {
        Self { mode: Mode::Strict(trust), store, endings: 1, ..Self::replicated() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tick,
    TakeNumber(u8),
    Commit(u8),
    Apply(u8),
    Raise(u8),
    Answer(u8),
    ReadBegins(u8),
    ReadEnds(u8),
    /// A request for credential 0 comes to this node and must wait; the store answers it.
    Asked(u8),
    /// The same, and the store does not answer.
    AskedAlone(u8),
    /// A cache's look-up, and later its entry.
    LookUp(u8),
    Keep(u8),
    Crash(u8),
    Restart(u8),
    Replicate,
    FailOver,
    Move(u8),
    Flush,
    Announce(u8),
}

enum Said {
    Nothing,
    Yes,
    No,
    Wait(Need),
}

impl Revocation {
    /// The server that `node` talks to, if it can answer.
    fn server<'a>(&self, state: &'a State, node: &Node) -> Option<&'a Server> {
        let server = &state.servers[usize::from(node.link)];
        (server.alive && server.primary).then_some(server)
    }

    /// What a request for `credential` that comes to `node` now is told now.
    fn ask(&self, state: &State, node: usize, credential: u8, reached: bool) -> Said {
        let node = &state.nodes[node];
        if !node.serving {
            return Said::Nothing;
        }
        if node.kept && credential == 0 {
            return Said::Yes;
        }
        if node.known & (1 << credential) != 0 {
            return Said::No;
        }
        if let Mode::Strict(trust) = self.mode {
            // What this node believes of the store is as old as what it has read.
            if self.bounded && self.doubts_with_age && node.age >= BOUND {
                return Said::Wait(Need::Later);
            }
            match self.server(state, node).filter(|_| reached) {
                Some(server) => {
                    let trusted = match trust {
                        Trust::Blind => true,
                        Trust::Reconnected => node.checked,
                        Trust::Announced => server.life == life_at(&state.rows, node.cursor).0,
                    };
                    if !trusted {
                        return Said::Wait(Need::Later);
                    }
                    if server.number > node.cursor {
                        return Said::Wait(Need::Row(server.number));
                    }
                }
                None if self.reads_without_store => return Said::Wait(Need::Later),
                None => {}
            }
        }
        if self.bounded && node.age >= BOUND { Said::Wait(Need::Fresh) } else { Said::Yes }
    }

    fn may_commit(&self, state: &State, n: u8) -> bool {
        let ending = &state.endings[usize::from(n)];
        let numbered = self.ordered || ending.seq != 0;
        let in_turn = self.commits_first || ending.answered.is_some();
        numbered && in_turn && !ending.committed && !ending.lost && state.nodes[usize::from(n)].serving
    }

    fn may_raise(&self, state: &State, n: u8) -> bool {
        let ending = &state.endings[usize::from(n)];
        let Some(server) = self.server(state, &state.nodes[usize::from(n)]) else { return false };
        let counts = match self.mode {
            Mode::Replicated => false,
            Mode::Strict(Trust::Announced) => {
                let (life, age) = life_at(&state.rows, ending.seq);
                server.life == life && (age >= BOUND || !self.settles)
            }
            Mode::Strict(_) => true,
        };
        counts && ending.committed && !ending.raised && !ending.lost && ending.answered.is_none()
    }

    fn may_answer(&self, ending: &Ending) -> bool {
        let everywhere = self.mode == Mode::Replicated || ending.raised || ending.waited >= BOUND || !self.waits_out;
        (ending.committed || !self.commits_first)
            && (ending.applied || !self.applies_first)
            && everywhere
            && ending.answered.is_none()
            && !ending.lost
    }

    fn may_announce(&self, state: &State, node: &Node) -> bool {
        let announced = state.rows.iter().filter(|row| matches!(row, Row::Announce { .. })).count();
        let news = |server: &Server| server.life != life_at(&state.rows, u8::MAX).0;
        self.mode == Mode::Strict(Trust::Announced)
            && node.serving
            && announced < ANNOUNCEMENTS
            && self.server(state, node).is_some_and(news)
    }

    fn node_steps(&self, state: &State, n: u8, steps: &mut Vec<Step>) {
        let node = &state.nodes[usize::from(n)];
        if !node.up {
            steps.push(Step::Restart(n));
            return;
        }
        // Node 0 knows what it ended: its copy matters when it starts anew, and the age of it never. A read that fails
        // is one that never began.
        let learns = n == 1 || !node.serving;
        match node.read {
            None if learns => steps.push(Step::ReadBegins(n)),
            None => {}
            Some(_) => steps.push(Step::ReadEnds(n)),
        }
        // A request that breaks nothing by a yes need not be followed.
        if node.waits.is_none() && self.promised(state, usize::from(n), 0) != 0 {
            for (reached, step) in [(true, Step::Asked(n)), (false, Step::AskedAlone(n))] {
                if matches!(self.ask(state, usize::from(n), 0, reached), Said::Wait(_)) {
                    steps.push(step);
                }
            }
        }
        if !self.looks_up_each_time {
            steps.push(if node.keeping { Step::Keep(n) } else { Step::LookUp(n) });
        }
        if state.crashes > 0 {
            steps.push(Step::Crash(n));
        }
        let other = &state.servers[usize::from(1 - node.link)];
        if self.mode != Mode::Replicated && other.alive && other.primary {
            steps.push(Step::Move(n));
        }
        if self.may_announce(state, node) {
            steps.push(Step::Announce(n));
        }
    }

    fn ending_steps(&self, state: &State, n: u8, steps: &mut Vec<Step>) {
        let (ending, node) = (&state.endings[usize::from(n)], &state.nodes[usize::from(n)]);
        if !node.serving || ending.lost {
            return;
        }
        if !self.ordered && ending.seq == 0 {
            steps.push(Step::TakeNumber(n));
        }
        if self.may_commit(state, n) {
            steps.push(Step::Commit(n));
        }
        if !ending.applied && (ending.committed || !self.commits_first) {
            steps.push(Step::Apply(n));
        }
        if self.may_raise(state, n) {
            steps.push(Step::Raise(n));
        }
        if self.may_answer(ending) {
            steps.push(Step::Answer(n));
        }
    }

    fn read_ends(&self, state: &mut State, n: usize) {
        let node = &mut state.nodes[n];
        let Some(read) = node.read.take() else { return };
        node.known |= read.ended;
        node.cursor = node.cursor.max(read.cursor);
        node.age = if self.dated_from_start { node.age.min(read.age) } else { 0 };
        node.checked |= read.since_link;
        node.serving = true;
        node.kept &= node.known & 1 == 0;
        let Some((need, promise)) = node.waits else { return };
        let enough = match need {
            Need::Fresh => node.age < BOUND || !self.bounded,
            Need::Row(seq) => node.cursor >= seq && node.age < BOUND,
            Need::Later => read.since_request || !self.joins_later_reads,
        };
        if enough {
            node.waits = None;
            if node.known & 1 == 0 {
                state.broken |= promise;
            }
        }
    }

    /// Whether nothing that comes can break a promise: credential 0 will never be answered for, or both nodes refuse it
    /// and none can forget it any more.
    fn settled(&self, state: &State) -> bool {
        let refuses = |node: &Node| node.serving && node.known & 1 != 0;
        let never = state.endings[0].lost && state.endings[0].answered.is_none();
        let known = state.crashes == 0 && self.looks_up_each_time && state.nodes.iter().all(refuses);
        never || (known && state.endings[0].answered.is_some())
    }

    fn tick(state: &mut State) {
        let older = |age: u8| (age + 1).min(BOUND);
        for row in &mut state.rows {
            if let Row::Announce { age, .. } = row {
                *age = older(*age);
            }
        }
        for ending in state.endings.iter_mut().filter(|ending| ending.committed || ending.answered.is_some()) {
            // How the answer came about tells nothing any more once it has left.
            ending.raised &= ending.answered.is_none();
            ending.waited = if ending.answered.is_some() { 0 } else { older(ending.waited) };
            ending.answered = ending.answered.map(older);
        }
        let reader = &mut state.nodes[1];
        if reader.up {
            reader.age = older(reader.age);
            reader.read = reader.read.map(|read| Read { age: older(read.age), ..read });
        }
    }

    fn commit(&self, state: &mut State, n: u8) {
        let row = Row::End { credential: n, committed: true };
        let ending = &mut state.endings[usize::from(n)];
        ending.committed = true;
        if self.ordered {
            state.rows.push(row);
            ending.seq = u8::try_from(state.rows.len()).unwrap();
        } else {
            state.rows[usize::from(ending.seq) - 1] = row;
        }
    }

    fn read_begins(state: &mut State, n: usize) {
        let (mut ended, mut cursor) = (0, 0);
        for (row, seq) in state.rows.iter().zip(1..) {
            match row {
                Row::End { committed: false, .. } => continue,
                // A follower that has passed a number never looks at it again.
                Row::End { credential, .. } if seq > state.nodes[n].cursor => ended |= 1 << credential,
                Row::End { .. } | Row::Announce { .. } => {}
            }
            cursor = seq;
        }
        state.nodes[n].read = Some(Read { ended, cursor, age: 0, since_link: true, since_request: true });
    }

    fn ending_step(&self, state: &mut State, step: Step) {
        match step {
            Step::TakeNumber(n) => {
                state.rows.push(Row::End { credential: n, committed: false });
                state.endings[usize::from(n)].seq = u8::try_from(state.rows.len()).unwrap();
            }
            Step::Commit(n) => self.commit(state, n),
            Step::Apply(n) => {
                let (ending, node) = (&mut state.endings[usize::from(n)], &mut state.nodes[usize::from(n)]);
                ending.applied = true;
                node.known |= 1 << n;
                node.kept &= node.known & 1 == 0;
                if !self.cursor_only_reads {
                    node.cursor = node.cursor.max(ending.seq);
                }
            }
            Step::Raise(n) => {
                let server = &mut state.servers[usize::from(state.nodes[usize::from(n)].link)];
                server.number = server.number.max(state.endings[usize::from(n)].seq);
                state.endings[usize::from(n)].raised = true;
            }
            Step::Answer(n) => state.endings[usize::from(n)].answered = Some(0),
            _ => {}
        }
    }

    fn store_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Replicate => state.servers[1].number = state.servers[0].number,
            Step::FailOver => {
                state.servers[1].primary = true;
                state.servers[0].alive = self.store == Store::Splits;
            }
            Step::Move(n) => {
                let node = &mut state.nodes[usize::from(n)];
                node.link = 1 - node.link;
                if self.mode == Mode::Strict(Trust::Reconnected) {
                    node.checked = false;
                    node.read = node.read.map(|read| Read { since_link: false, ..read });
                }
            }
            Step::Flush => {
                state.servers[0].number = 0;
                state.servers[0].life = 2;
                state.flushes -= 1;
            }
            Step::Announce(n) => {
                let life = state.servers[usize::from(state.nodes[usize::from(n)].link)].life;
                state.rows.push(Row::Announce { life, age: 0 });
            }
            _ => {}
        }
    }

    fn asked(&self, state: &mut State, n: u8, reached: bool) {
        let Said::Wait(need) = self.ask(state, usize::from(n), 0, reached) else { return };
        let promised = self.promised(state, usize::from(n), 0);
        let node = &mut state.nodes[usize::from(n)];
        node.waits = Some((need, promised));
        node.read = node.read.map(|read| Read { since_request: false, ..read });
    }

    fn crash(&self, state: &mut State, n: usize) {
        let link = state.nodes[n].link;
        state.nodes[n] = Node { link, checked: self.mode != Mode::Strict(Trust::Reconnected), ..Node::default() };
        let ending = &mut state.endings[n];
        ending.lost = !(ending.committed && ending.answered.is_some());
        state.crashes -= 1;
    }
}

impl Model for Revocation {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let node = Node { up: true, serving: true, checked: true, ..Node::default() };
        let server = |n: u8| Server { alive: true, primary: n == 0, number: 0, life: n };
        let mut endings = [Ending::default(); 2];
        endings[1].lost = self.endings < 2;
        vec![State {
            rows: Vec::new(),
            endings,
            nodes: [node; 2],
            servers: [server(0), server(1)],
            crashes: self.crashes,
            flushes: self.flushes,
            broken: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if self.settled(state) {
            return;
        }
        steps.push(Step::Tick);
        for n in 0..2 {
            self.ending_steps(state, n, steps);
            self.node_steps(state, n, steps);
        }
        if self.store != Store::Steady && !state.servers[1].primary {
            steps.push(Step::FailOver);
            if state.servers[0].number != state.servers[1].number {
                steps.push(Step::Replicate);
            }
        }
        if state.flushes > 0 {
            steps.push(Step::Flush);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Tick => Self::tick(&mut state),
            Step::TakeNumber(_) | Step::Commit(_) | Step::Apply(_) | Step::Raise(_) | Step::Answer(_) => {
                self.ending_step(&mut state, step);
            }
            Step::Asked(n) => self.asked(&mut state, n, true),
            Step::AskedAlone(n) => self.asked(&mut state, n, false),
            Step::ReadBegins(n) => Self::read_begins(&mut state, usize::from(n)),
            Step::ReadEnds(n) => self.read_ends(&mut state, usize::from(n)),
            Step::LookUp(n) => {
                let said = self.ask(before, usize::from(n), 0, true);
                state.nodes[usize::from(n)].keeping = matches!(said, Said::Yes);
            }
            Step::Keep(n) => {
                let node = &mut state.nodes[usize::from(n)];
                (node.kept, node.keeping) = (true, false);
            }
            Step::Crash(n) => self.crash(&mut state, usize::from(n)),
            Step::Restart(n) => {
                let node = &mut state.nodes[usize::from(n)];
                node.up = true;
                node.serving = !self.loads_first;
                node.age = if self.loads_first { BOUND } else { 0 };
            }
            Step::Replicate | Step::FailOver | Step::Move(_) | Step::Flush | Step::Announce(_) => {
                self.store_step(&mut state, step);
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.promises()
    }
}
