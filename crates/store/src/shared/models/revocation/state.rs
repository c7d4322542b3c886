//! What there is: rows in SQL, changes on their way, nodes, servers of the store.

use super::BOUND;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Row {
    /// The end of a credential. Not committed yet only when numbers are given out too early.
    End { credential: u8, committed: bool },
    /// The life whose numbers count from here on, and for how long that has been so.
    Announce { life: u8, age: u8 },
}

/// One change on its way to the 2xx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ending {
    /// The number of its row; none yet is zero.
    pub(super) seq: u8,
    pub(super) committed: bool,
    /// Since the commit, up to the bound.
    pub(super) waited: u8,
    pub(super) applied: bool,
    pub(super) raised: bool,
    /// Since the 2xx left, up to the bound.
    pub(super) answered: Option<u8>,
    /// Its node died before it was done.
    pub(super) lost: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) serving: bool,
    /// Credentials this node refuses, one bit each.
    pub(super) known: u8,
    /// The cursor: rows up to here were read.
    pub(super) cursor: u8,
    /// Since the read began whose result is known.
    pub(super) age: u8,
    /// A read under way; one at a time.
    pub(super) read: Option<Read>,
    /// A request that waits for a read, and what would be broken by a yes.
    pub(super) waits: Option<(Need, u8)>,
    /// The server of the store it talks to.
    pub(super) link: u8,
    /// SQL was read over since the link was made.
    pub(super) checked: bool,
    /// A yes that is kept, and one about to be kept.
    pub(super) kept: bool,
    pub(super) keeping: bool,
}

/// What a read saw when it began; the earliest moment is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Read {
    pub(super) ended: u8,
    pub(super) cursor: u8,
    pub(super) age: u8,
    /// Begun after the link was made.
    pub(super) since_link: bool,
    /// Begun after the waiting request.
    pub(super) since_request: bool,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// Any read that is younger than the bound.
    Fresh,
    /// That, and all rows up to this one.
    Row(u8),
    /// A read that began after the request.
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) alive: bool,
    pub(super) primary: bool,
    pub(super) number: u8,
    pub(super) life: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) rows: Vec<Row>,
    pub(super) endings: [Ending; 2],
    pub(super) nodes: [Node; 2],
    pub(super) servers: [Server; 2],
    pub(super) crashes: u8,
    pub(super) flushes: u8,
    /// What was broken by a yes to a request that had waited.
    pub(super) broken: u8,
}

/// The life announced last among the first rows.
pub(super) fn life_at(rows: &[Row], upto: u8) -> (u8, u8) {
    let announced = |row: &Row| match row {
        Row::Announce { life, age } => Some((*life, *age)),
        Row::End { .. } => None,
    };
    rows.iter().take(usize::from(upto)).rev().find_map(announced).unwrap_or((0, BOUND))
}
