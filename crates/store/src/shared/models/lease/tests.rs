use super::super::{breaks, holds, keeps};
use super::*;

#[test]
fn leases_never_over_admit_and_under_admit_by_no_more_than_themselves() {
    let mut states = holds(Lease::leases());
    for (burst, size, life) in [(5, 2, 1), (7, 2, 3), (9, 3, 3), (10, 3, 4)] {
        states += holds(Lease { burst, size, life, ..Lease::leases() });
    }
    assert!(states > 20_000, "{states}");
}

#[test]
fn a_failover_to_an_old_replica_costs_one_burst_at_most() {
    holds(Lease { failovers: 1, ..Lease::leases() });
    holds(Lease { failovers: 2, crashes: 0, ..Lease::leases() });
}

#[test]
fn without_the_store_all_nodes_stay_within_the_limit_and_its_edges_cost_one_burst() {
    let states = holds(Lease { outages: 1, ..Lease::outage() });
    assert!(states > 10_000, "{states}");
    holds(Lease { burst: 2, ..Lease::outage() });
    holds(Lease { burst: 2, outages: 1, crashes: 1, ..Lease::outage() });
    holds(Lease { burst: 4, outages: 1, concedes: 1, crashes: 0, ..Lease::leases() });
}

#[test]
fn a_lease_charged_beforehand_still_adds_to_a_bucket_that_drained_meanwhile() {
    breaks(Lease { reserve: Reserve::Nothing, ..Lease::leases() }, NEVER_OVER);
}

#[test]
fn a_lease_charged_afterwards_is_not_seen_by_others() {
    breaks(Lease { debits_first: false, ..Lease::leases() }, NEVER_OVER);
}

#[test]
fn a_lease_without_end_is_spent_by_a_node_thought_dead() {
    breaks(Lease { expires: false, ..Lease::leases() }, NEVER_OVER);
}

#[test]
fn a_newcomer_that_does_not_wait_is_one_node_more_than_was_reserved_for() {
    breaks(Lease { newcomers_wait: false, burst: 5, life: 6, ..Lease::leases() }, NEVER_OVER);
}

#[test]
fn leases_that_are_not_returned_refuse_what_was_promised() {
    breaks(Lease { returns: Return::Nothing, ..Lease::leases() }, LITTLE_UNDER);
}

/// The other way to hold back: safe without knowing the number of nodes, if no more is returned than is still
/// charged. Then an idle lease costs others what time gave back meanwhile.
#[test]
fn a_reserve_for_the_life_of_a_lease_needs_returns_less_what_drained() {
    let other = Lease { burst: 6, size: 4, reserve: Reserve::Life, ..Lease::leases() };
    breaks(other.clone(), NEVER_OVER);
    let undrained = Lease { returns: Return::Undrained, ..other };
    holds(undrained.clone());
    keeps(Lease { burst: 7, size: 2, ..undrained }, &[NEVER_OVER], LITTLE_UNDER);
}

#[test]
fn a_charge_taken_back_late_frees_what_others_used_meanwhile() {
    let charges = Lease { spends: false, crashes: 0, reserve: Reserve::Nothing, ..Lease::leases() };
    breaks(charges.clone(), NEVER_OVER);
    keeps(Lease { returns: Return::Undrained, ..charges }, &[NEVER_OVER], LITTLE_UNDER);
}

#[test]
fn a_count_of_nodes_that_is_too_low_multiplies_the_limit() {
    breaks(Lease { divides: false, ..Lease::outage() }, NEVER_OVER_ALONE);
}

#[test]
fn what_was_admitted_alone_and_never_charged_is_admitted_again() {
    breaks(Lease { replays: false, outages: 1, ..Lease::outage() }, NEVER_OVER);
}

#[test]
fn the_edges_of_an_outage_are_not_free() {
    breaks(Lease { concedes: 0, ..Lease::outage() }, NEVER_OVER);
}

#[test]
fn a_node_cut_off_alone_admits_its_share_beside_the_limit() {
    breaks(Lease { partitions: true, outages: 1, ..Lease::outage() }, NEVER_OVER);
}
