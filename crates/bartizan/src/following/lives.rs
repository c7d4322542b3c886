//! The lives of the shared state, as far as the database told of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bartizan_core::store_life::StoreLife;

/// Lives that are remembered. Only those just before a revocation that is being answered are asked for.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Begun {
    seq: i64,
    life: StoreLife,
    heard: Instant,
}

/// Each life with the number of its announcement and the moment at which it was known here.
#[derive(Debug, Default)]
pub(super) struct Lives(VecDeque<Begun>);

impl Lives {
    /// Takes over what a read brought that ended at `heard`. A life announced once more while it is the last is no news.
    pub(super) fn hear(&mut self, lives: &[(i64, StoreLife)], heard: Instant) {
        for (seq, life) in lives {
            if self.last() == Some(*life) {
                continue;
            }
            if self.0.len() == REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back(Begun { seq: *seq, life: *life, heard });
        }
    }

    /// The database went back: what it told may not be so.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// The life announced last.
    pub(super) fn last(&self) -> Option<StoreLife> {
        self.0.back().map(|begun| begun.life)
    }

    /// Whether `life` was the last announced before the revocation numbered `seq`, and has been known here for longer than
    /// `bound`: then every node that is within its bound knows it too, or refuses.
    pub(super) fn settled(&self, life: StoreLife, seq: i64, bound: Duration, now: Instant) -> bool {
        let before = self.0.iter().rev().find(|begun| begun.seq < seq);
        before.is_some_and(|begun| begun.life == life && now.saturating_duration_since(begun.heard) > bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    fn life(n: u8) -> StoreLife {
        StoreLife { process: [n; 20], birth: 1 }
    }

    #[test]
    fn a_raise_counts_in_the_life_announced_last_before_the_revocation_once_that_is_older_than_the_bound() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lives = Lives::default();
        assert!(!lives.settled(life(1), 5, BOUND, at(9)), "nothing was announced");
        lives.hear(&[(3, life(1))], at(0));
        assert!(lives.settled(life(1), 5, BOUND, at(2)));
        assert!(!lives.settled(life(1), 5, BOUND, at(1)), "too young");
        assert!(!lives.settled(life(1), 2, BOUND, at(2)), "announced after the revocation");
        assert!(!lives.settled(life(2), 5, BOUND, at(2)), "another life");
        lives.hear(&[(6, life(2))], at(5));
        assert_eq!(lives.last(), Some(life(2)));
        assert!(lives.settled(life(1), 5, BOUND, at(9)), "what came later changes nothing for it");
        assert!(!lives.settled(life(1), 7, BOUND, at(9)));
        // Announced again, by a node that did not know: no younger for it.
        lives.hear(&[(8, life(2))], at(8));
        assert!(lives.settled(life(2), 7, BOUND, at(8)) && lives.settled(life(2), 9, BOUND, at(8)));
        lives.forget();
        assert!(lives.last().is_none() && !lives.settled(life(2), 9, BOUND, at(99)));
    }

    #[test]
    fn what_is_forgotten_counts_for_nothing() {
        let start = Instant::now();
        let mut lives = Lives::default();
        let many: Vec<_> = (1..=100).map(|n: u8| (i64::from(n) * 10, life(n))).collect();
        lives.hear(&many, start);
        let later = start + 2 * BOUND;
        assert!(lives.settled(life(100), 1001, BOUND, later) && lives.settled(life(37), 371, BOUND, later));
        assert!(!lives.settled(life(36), 365, BOUND, later));
    }
}
