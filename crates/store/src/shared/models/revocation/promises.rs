//! What the model promises, and how a yes would break it.

use stateright::Property;

use super::{BOUND, Mode, Revocation, Said, State, Store};

pub(super) const DURABLE: &str = "what was answered is in SQL";
pub(super) const OWN_NODE: &str = "the node that answered refuses at once";
pub(super) const ALL_NODES_LATER: &str = "after the bound no node says yes";
pub(super) const ALL_NODES_AT_ONCE: &str = "after the answer no node says yes";

/// The promises, as bits.
const OWN: u8 = 1;
const WITHIN_BOUND: u8 = 2;
const AT_ONCE: u8 = 4;

impl Revocation {
    /// What a yes of `node` to a request that comes now would break.
    pub(super) fn promised(&self, state: &State, node: usize, credential: u8) -> u8 {
        match state.endings[usize::from(credential)].answered {
            None => 0,
            Some(age) => {
                let own = if node == usize::from(credential) { OWN } else { 0 };
                let bound = if age >= BOUND { WITHIN_BOUND } else { 0 };
                let strict = if self.mode == Mode::Replicated { 0 } else { AT_ONCE };
                own | bound | strict
            }
        }
    }

    /// Whether `promise` was broken, or would be by a request that comes now.
    fn broken(&self, state: &State, promise: u8) -> bool {
        state.broken & promise != 0
            || (0..2).any(|node| {
                self.promised(state, node, 0) & promise != 0
                    && [true, false].into_iter().any(|reached| matches!(self.ask(state, node, 0, reached), Said::Yes))
            })
    }

    /// What must hold in every state, and what must be seen in some, lest the model say nothing.
    pub(super) fn promises(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(DURABLE, |_, state: &State| {
                state.endings.iter().all(|ending| ending.answered.is_none() || ending.committed)
            }),
            Property::always(OWN_NODE, |model: &Self, state: &State| !model.broken(state, OWN)),
            Property::always(ALL_NODES_LATER, |model: &Self, state: &State| !model.broken(state, WITHIN_BOUND)),
            Property::sometimes("after a crash both nodes refuse", |model: &Self, state: &State| {
                let refuses = |n: usize| matches!(model.ask(state, n, 0, true), Said::No);
                state.crashes == 0 && state.endings[0].answered.is_some() && refuses(0) && refuses(1)
            }),
            Property::sometimes("a request waits for SQL", |_, state: &State| state.nodes[1].waits.is_some()),
        ];
        if self.mode == Mode::Replicated {
            all.push(Property::sometimes("another node says yes for a while", |model: &Self, state: &State| {
                state.endings[0].answered.is_some() && matches!(model.ask(state, 1, 0, true), Said::Yes)
            }));
        } else {
            all.extend([
                Property::always(ALL_NODES_AT_ONCE, |model: &Self, state: &State| !model.broken(state, AT_ONCE)),
                Property::sometimes("an answer leaves because the number was raised", |_, state: &State| {
                    state.endings[0].raised && state.endings[0].answered == Some(0)
                }),
                Property::sometimes("an answer leaves because the bound was waited out", |_, state: &State| {
                    !state.endings[0].raised && state.endings[0].answered == Some(0)
                }),
                Property::sometimes("the store lost the number", |model: &Self, state: &State| {
                    let [old, new] = &state.servers;
                    let behind = new.primary && new.number < old.number || old.life == 2 && old.number == 0;
                    (model.store == Store::Steady && model.flushes == 0)
                        || (behind && state.endings[0].answered.is_some())
                }),
            ]);
        }
        all
    }
}
