//! One read for all who wait for it.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Shares reads of something that changes: whoever asks gets what a read said that began after he asked. At most one read
/// is on its way, so of many who ask at once most wait for the same.
#[derive(Debug)]
pub(super) struct Latest<T> {
    reading: Mutex<Reading<T>>,
    done: Notify,
}

#[derive(Debug)]
struct Reading<T> {
    /// When the last complete read began, and what it said.
    last: Option<(Instant, T)>,
    on_its_way: bool,
}

impl<T: Copy> Latest<T> {
    pub(super) fn new() -> Self {
        Self { reading: Mutex::new(Reading { last: None, on_its_way: false }), done: Notify::new() }
    }

    /// What `read` says, begun now by this caller or later than `asked` by another.
    pub(super) async fn get<F: Future<Output = T>>(&self, asked: Instant, read: impl FnOnce() -> F) -> T {
        loop {
            let done = self.done.notified();
            tokio::pin!(done);
            {
                let mut reading = self.lock();
                if let Some((began, said)) = reading.last
                    && began >= asked
                {
                    return said;
                }
                if !reading.on_its_way {
                    reading.on_its_way = true;
                    break;
                }
                // Before the lock is given back, or the end of the read could be missed.
                done.as_mut().enable();
            }
            done.await;
        }
        let mut turn = Turn { latest: self, read: None };
        // Whoever is ready to ask does so first: the read is theirs too.
        tokio::task::yield_now().await;
        let began = Instant::now();
        let said = read().await;
        turn.read = Some((began, said));
        said
    }

    fn lock(&self) -> MutexGuard<'_, Reading<T>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The read on its way. Ends it, complete or given up, and wakes all who wait: one of them reads next.
struct Turn<'a, T: Copy> {
    latest: &'a Latest<T>,
    read: Option<(Instant, T)>,
}

impl<T: Copy> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        {
            let mut reading = self.latest.lock();
            reading.on_its_way = false;
            if let Some(read) = self.read {
                reading.last = Some(read);
            }
        }
        self.latest.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn what_is_said_was_read_after_it_was_asked_for_and_most_wait_for_the_same_read() {
        let (latest, reads, value) = (Latest::new(), Cell::new(0), Cell::new(0));
        for round in 1..50 {
            value.set(round);
            let asking = (0..20).map(|_| {
                latest.get(Instant::now(), || async {
                    reads.set(reads.get() + 1);
                    let said = value.get();
                    tokio::task::yield_now().await;
                    said
                })
            });
            assert!(join_all(asking).await.iter().all(|said| *said == round));
        }
        assert!(reads.get() <= 100, "{} reads for 980 who asked", reads.get());
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_lets_the_next_one_read() {
        let latest = Latest::new();
        let asked = Instant::now() + Duration::from_secs(60);
        {
            let mut stuck = Box::pin(latest.get(asked, std::future::pending::<u8>));
            assert!(stuck.as_mut().now_or_never().is_none());
            let mut waiting = Box::pin(latest.get(asked, async || 7));
            assert!(waiting.as_mut().now_or_never().is_none());
            drop(stuck);
            assert_eq!(waiting.await, 7);
        }
        // Begun before it was asked for: not good enough.
        assert_eq!(latest.get(asked, async || 8).await, 8);
        assert_eq!(latest.get(Instant::now() - Duration::from_secs(60), async || 9).await, 8);
    }
}
