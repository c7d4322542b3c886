//! Small models of what many nodes promise each other, checked over their whole state space.
//!
//! Each safeguard of the real thing is a field of the model. With all of them the promise holds in every reachable
//! state; without any one of them the checker finds the shortest way to break it, and `docs/models.md` shows it. A test
//! keeps the page and the checker equal.

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

mod lease;
mod revocation;

/// The page that tells people what was found.
const PAGE: &str = include_str!("../../../../../docs/models.md");

/// Visits every state that can be reached: each promise holds in all, each example was met. Returns their number.
fn holds<M>(model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync + 'static,
    M::Action: Debug + Clone + PartialEq,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done());
    checker.unique_state_count()
}

/// Finds a shortest way to break `promise`, which must be on the page word for word.
fn breaks<M>(model: M, promise: &'static str)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync + 'static,
    M::Action: Debug + Clone + PartialEq,
{
    // The checker tells the last way it met, not the first; so it may look no further than it must.
    let way = (2..40).find_map(|depth| {
        let search =
            model.clone().checker().target_max_depth(depth).finish_when(HasDiscoveries::AnyOf([promise].into()));
        search.spawn_bfs().join().discovery(promise)
    });
    let steps = way.unwrap_or_else(|| panic!("{promise}: cannot be broken")).into_actions();
    let steps = steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>().join(" · ");
    assert!(PAGE.contains(&format!("`{steps}`")), "docs/models.md does not show this way: {promise}: `{steps}`");
}

/// Visits every state though `broken` does not hold, and finds that the other promises do.
fn keeps<M>(model: M, kept: &[&'static str], broken: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync + 'static,
    M::Action: Debug + Clone + PartialEq,
{
    let checker = model.checker().spawn_bfs().join();
    checker.assert_any_discovery(broken);
    kept.iter().for_each(|promise| checker.assert_no_discovery(promise));
    assert!(checker.is_done());
}
