//! Requests that come together share a call of the store.
//!
//! Most of what a decision costs the store is the call around it, so whoever comes while calls are under way waits and goes
//! along with all others who do. The script decides them one after another in one step: nothing differs from calls of
//! their own but the price. A call begins after the last of its requests came, so what it tells is that of now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::scripts::{self, Doubles, Taken};
use super::{Inner, Unavailable};

/// Calls under way at once. With one, all would wait for the last of each round trip; with many, few would share.
const UNDER_WAY: usize = 2;
/// Where round trips are long there may be more: one for each of these that has passed since the last began, and one for
/// each full batch.
const LONG: Duration = Duration::from_millis(2);
/// But no more than these.
const MOST_UNDER_WAY: usize = 64;
/// Requests of one call: some hundred microseconds of the store, which does nothing else meanwhile.
const MOST: usize = 64;

/// What one request asks the store in one place.
pub(super) struct Call {
    /// Buckets, then ban records.
    pub(super) keys: Vec<String>,
    /// What the script is told of them.
    pub(super) numbers: Vec<u8>,
    pub(super) limits: usize,
    pub(super) groups: usize,
    /// Whether it asks for the revocation sequence.
    pub(super) sequence: bool,
}

impl Call {
    /// Asks for the revocation sequence alone.
    pub(super) fn reading() -> Self {
        let mut numbers = Doubles::default();
        numbers.push(&[0, 0]);
        Self { keys: Vec::new(), numbers: numbers.finish(), limits: 0, groups: 0, sequence: true }
    }
}

type Waiting = (Call, oneshot::Sender<Result<Taken, Unavailable>>);

/// Those who wait for the next call.
#[derive(Default)]
pub(super) struct Batches(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    under_way: usize,
    /// When the last call began.
    begun: Option<Instant>,
}

impl Batches {
    /// Waits with the others; says whether there must be one more to carry them.
    fn join(&self, one: Waiting) -> bool {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.push(one);
        let long = || queue.begun.is_none_or(|begun| begun.elapsed() > LONG);
        let begins = queue.under_way < UNDER_WAY || queue.under_way < MOST_UNDER_WAY && long();
        queue.under_way += usize::from(begins);
        begins
    }

    /// The next to go together; when there are none, whoever asked is done. And whether another must carry those left.
    fn next(&self) -> (Vec<Waiting>, bool) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever gave up meanwhile is not charged.
        queue.waiting.retain(|(_, hears)| !hears.is_closed());
        if queue.waiting.is_empty() {
            queue.under_way -= 1;
            return (Vec::new(), false);
        }
        queue.begun = Some(Instant::now());
        let many = queue.waiting.len().min(MOST);
        let more = queue.waiting.len() - many >= MOST && queue.under_way < MOST_UNDER_WAY;
        queue.under_way += usize::from(more);
        (queue.waiting.drain(..many).collect(), more)
    }
}

impl Inner {
    /// Asks, together with others where all keys are in one place. Who gives up waiting may have been charged.
    pub(super) async fn ask(self: &Arc<Self>, call: Call) -> Result<Taken, Unavailable> {
        let lost = || Err(Unavailable::Disconnected("the call was given up".into()));
        if self.link.is_cluster() && !call.keys.is_empty() {
            return Box::pin(self.send(vec![call])).await.pop().unwrap_or_else(lost);
        }
        let (said, hears) = oneshot::channel();
        if self.batches.join((call, said)) {
            Arc::clone(self).begin();
        }
        hears.await.unwrap_or_else(|_| lost())
    }

    /// Carries in a task of its own: whoever came first may give up, and the others must not lose their answers with him.
    fn begin(self: Arc<Self>) {
        tokio::spawn(self.carry());
    }

    async fn carry(self: Arc<Self>) {
        loop {
            // Whoever is ready to ask does so first.
            tokio::task::yield_now().await;
            let (batch, more) = self.batches.next();
            if more {
                Arc::clone(&self).begin();
            }
            let (calls, hearers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            if calls.is_empty() {
                return;
            }
            for (hearer, answer) in hearers.into_iter().zip(self.send(calls).await) {
                let _ = hearer.send(answer);
            }
        }
    }

    /// One call for all; an answer for each.
    async fn send(&self, mut calls: Vec<Call>) -> Vec<Result<Taken, Unavailable>> {
        let keys = calls.iter_mut().flat_map(|call| std::mem::take(&mut call.keys));
        let mut keys: Vec<String> = keys.collect();
        let answer = if keys.is_empty() {
            // Also answered when the store is full.
            let no: &[Vec<u8>] = &[];
            let answer = self.eval(&scripts::SEQUENCE, &[self.names.sequence()], no).await;
            answer.and_then(|answer| scripts::read(&answer, calls.len()))
        } else {
            if calls.iter().any(|call| call.sequence) {
                keys.push(self.names.sequence());
            }
            let bans = self.bans();
            let mut numbers = Doubles::default();
            // On a cluster the refusal is counted by a call of its own, since the record may be elsewhere.
            numbers.push(&[calls.len() as u64]).push_bans(Some(&bans).filter(|_| !self.link.is_cluster()));
            calls.iter().for_each(|call| numbers.extend(&call.numbers));
            let answer = self.eval(&scripts::TAKE, &keys, &[numbers.finish()]).await;
            answer.and_then(|answer| scripts::taken(answer, &calls))
        };
        match answer {
            Ok(taken) => taken.into_iter().map(Ok).collect(),
            Err(why) => calls.iter().map(|_| Err(why.clone())).collect(),
        }
    }
}
