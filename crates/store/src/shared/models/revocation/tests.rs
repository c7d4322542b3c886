use super::super::{breaks, holds, keeps};
use super::promises::{ALL_NODES_AT_ONCE, ALL_NODES_LATER, DURABLE, OWN_NODE};
use super::*;

fn strict() -> Revocation {
    Revocation::strict(Trust::Reconnected, Store::Dies)
}

fn announced() -> Revocation {
    Revocation::strict(Trust::Announced, Store::Splits)
}

#[test]
fn after_the_bound_no_node_accepts_what_was_revoked() {
    let states = holds(Revocation { crashes: 2, ..Revocation::replicated() });
    assert!(states > 30_000, "{states}");
}

#[test]
fn in_strict_mode_no_node_accepts_after_the_answer_though_the_primary_dies() {
    let states = holds(strict());
    assert!(states > 20_000, "{states}");
    holds(Revocation { endings: 2, crashes: 0, ..Revocation::strict(Trust::Reconnected, Store::Steady) });
}

#[test]
fn with_announced_lives_strict_survives_split_brain_and_crash() {
    let states = holds(announced());
    assert!(states > 100_000, "{states}");
}

#[test]
fn with_announced_lives_strict_survives_split_brain_and_loss_of_all_data() {
    let states = holds(Revocation { flushes: 1, crashes: 0, ..announced() });
    assert!(states > 50_000, "{states}");
}

/// Whatever the store says or forgets, it takes at most the bound.
#[test]
fn a_store_that_lies_costs_strictness_and_never_the_bound() {
    for trust in [Trust::Blind, Trust::Reconnected] {
        keeps(Revocation::strict(trust, Store::Splits), &[DURABLE, OWN_NODE, ALL_NODES_LATER], ALL_NODES_AT_ONCE);
        let flushed = Revocation { flushes: 1, ..Revocation::strict(trust, Store::Steady) };
        keeps(flushed, &[DURABLE, OWN_NODE, ALL_NODES_LATER], ALL_NODES_AT_ONCE);
    }
}

#[test]
fn an_answer_before_the_commit_is_lost_with_its_node() {
    breaks(Revocation { commits_first: false, ..Revocation::replicated() }, OWN_NODE);
}

#[test]
fn an_answer_before_memory_changed_is_not_felt_by_its_own_node() {
    breaks(Revocation { applies_first: false, crashes: 0, ..Revocation::replicated() }, OWN_NODE);
}

#[test]
fn a_number_given_out_before_its_turn_is_skipped() {
    breaks(Revocation { ordered: false, crashes: 0, ..Revocation::replicated() }, ALL_NODES_LATER);
}

#[test]
fn a_cursor_moved_by_a_nodes_own_change_skips_what_others_committed() {
    breaks(Revocation { cursor_only_reads: false, crashes: 0, ..Revocation::replicated() }, ALL_NODES_LATER);
}

#[test]
fn without_the_bound_a_node_cut_off_says_yes_for_ever() {
    breaks(Revocation { bounded: false, crashes: 0, ..Revocation::replicated() }, ALL_NODES_LATER);
}

#[test]
fn a_slow_read_dated_by_its_end_looks_fresh() {
    breaks(Revocation { dated_from_start: false, crashes: 0, ..Revocation::replicated() }, ALL_NODES_LATER);
}

#[test]
fn a_node_that_serves_before_it_has_loaded_forgets() {
    breaks(Revocation { loads_first: false, ..Revocation::replicated() }, OWN_NODE);
}

#[test]
fn a_cached_yes_outlives_the_revocation_it_raced_with() {
    breaks(Revocation { looks_up_each_time: false, crashes: 0, ..Revocation::replicated() }, OWN_NODE);
}

#[test]
fn without_waiting_out_the_bound_a_number_nobody_could_raise_is_missed() {
    breaks(Revocation { waits_out: false, crashes: 0, ..strict() }, ALL_NODES_AT_ONCE);
}

#[test]
fn waiting_out_the_bound_is_worth_nothing_when_readers_have_none() {
    breaks(Revocation { bounded: false, crashes: 0, ..strict() }, ALL_NODES_AT_ONCE);
}

#[test]
fn a_node_without_the_store_that_does_not_read_is_only_replicated() {
    breaks(Revocation { reads_without_store: false, crashes: 0, ..strict() }, ALL_NODES_AT_ONCE);
}

#[test]
fn a_read_that_began_before_the_request_has_missed_the_commit() {
    breaks(Revocation { joins_later_reads: false, crashes: 0, ..strict() }, ALL_NODES_AT_ONCE);
}

#[test]
fn a_replica_that_lost_the_number_is_believed_without_a_new_read() {
    breaks(Revocation::strict(Trust::Blind, Store::Dies), ALL_NODES_AT_ONCE);
}

#[test]
fn a_new_read_after_reconnecting_does_not_help_while_two_primaries_live() {
    breaks(Revocation::strict(Trust::Reconnected, Store::Splits), ALL_NODES_AT_ONCE);
}

#[test]
fn a_new_read_after_reconnecting_does_not_help_when_the_data_vanish() {
    let flushed = Revocation { flushes: 1, ..Revocation::strict(Trust::Reconnected, Store::Steady) };
    breaks(flushed, ALL_NODES_AT_ONCE);
}

#[test]
fn a_life_announced_just_now_is_not_known_to_all() {
    breaks(Revocation { settles: false, crashes: 0, ..announced() }, ALL_NODES_AT_ONCE);
}

#[test]
fn an_old_belief_about_the_store_is_not_mended_by_an_old_read() {
    breaks(Revocation { doubts_with_age: false, crashes: 0, ..announced() }, ALL_NODES_AT_ONCE);
}
