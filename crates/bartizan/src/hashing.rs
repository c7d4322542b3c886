//! Password hashing that cannot exhaust the machine.
//!
//! Every hash takes 64 MiB and a good part of a second of one core. [`HashingPool`] runs at most `workers` at once and
//! lets at most `queue` wait; who comes then is told to come again. Requests are served in the order in which they came,
//! but no network holds more than an eighth of the places: see [`HashingPool::for_client`].
//!
//! 1. A request that goes away while it waits gives its place back at once. One that goes away while its hash runs does
//!    not: the work goes on, so its worker stays taken until it is done.
//! 2. A user who does not exist, and a record that cannot be read, cost what a real comparison costs.
//! 3. Memory is handed from one hash to the next while requests wait, which saves the time to map it; when nobody waits
//!    it is given back, so that an idle server is small.
//!
//! **Caveat.** A record made at an older, cheaper cost is compared faster than the decoy until its owner's next login
//! renews it.

mod share;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use bartizan_core::error::{Code, Refusal};
use bartizan_core::password::{
    Cost, HashError, Memory, PasswordRecord, Peppers, SALT_LEN, Verified, hash_password, verify_password,
};
use bartizan_core::secret::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use share::{Share, Shares};

/// A pool of password hashers. Needs a Tokio runtime; clones share the pool.
#[derive(Clone)]
pub struct HashingPool {
    shared: Arc<Shared>,
    /// Whose share the hashes are taken from; `None` for nobody's.
    client: Option<IpAddr>,
}

struct Shared {
    cost: Cost,
    peppers: Arc<Peppers>,
    /// What a user who does not exist is compared with.
    decoy: PasswordRecord,
    /// One permit for each request that runs or waits.
    places: Arc<Semaphore>,
    /// One permit for each request that runs. Fair: first come, first served.
    workers: Arc<Semaphore>,
    /// Who holds how many of the places.
    shares: Arc<Shares>,
    sizes: Sizes,
    /// Memory for the next hash, while there is a next one.
    spare: Mutex<Vec<Memory>>,
    computed: AtomicU64,
    refused: AtomicU64,
    /// How long the last hash took, in microseconds: what `Retry-After` is estimated from.
    last: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    workers: usize,
    queue: usize,
}

/// Why there is no answer about a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashingError {
    /// Too many wait already.
    #[error("too many passwords are waiting to be hashed")]
    Busy {
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// The hash could not be computed, or its pepper is missing.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The stored record cannot be read: the database was damaged or changed.
    #[error("a stored password record cannot be read")]
    BadRecord,
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    NoRandomness,
    /// The hash was abandoned: a panic in the hashing library, or the runtime is stopping.
    #[error("a password hash was abandoned")]
    Abandoned,
}

impl From<HashingError> for Refusal {
    /// Busy is the caller's to wait out; the rest is ours, and says nothing of the password or the account.
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy { retry_after } => Refusal::new(Code::Busy).retry_after(retry_after),
            _ => Refusal::new(Code::Internal),
        }
    }
}

/// What the pool is doing: for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashingLoad {
    /// Hashes being computed now.
    pub running: usize,
    /// Requests waiting now.
    pub waiting: usize,
    /// Hashes computed since the start, decoys included.
    pub computed: u64,
    /// Requests refused since the start because the queue was full.
    pub refused: u64,
}

impl HashingPool {
    /// A pool for hashes of `cost`: `workers` at once (at least one), `queue` waiting. Takes no memory until it is used.
    ///
    /// # Errors
    /// [`HashingError::NoRandomness`].
    pub fn new(cost: Cost, peppers: Arc<Peppers>, workers: usize, queue: usize) -> Result<Self, HashingError> {
        // No password has this hash: it is random, and that is cheaper to make than a hash of something random.
        let decoy = PasswordRecord::decoy(cost, peppers.current().id(), random()?, random()?);
        let workers = workers.clamp(1, Semaphore::MAX_PERMITS / 2);
        let queue = queue.min(Semaphore::MAX_PERMITS / 2);
        Ok(Self {
            client: None,
            shared: Arc::new(Shared {
                cost,
                peppers,
                decoy,
                places: Arc::new(Semaphore::new(workers + queue)),
                workers: Arc::new(Semaphore::new(workers)),
                shares: Arc::new(Shares::of(workers + queue)),
                sizes: Sizes { workers, queue },
                spare: Mutex::default(),
                computed: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                last: AtomicU64::new(0),
            }),
        })
    }

    /// The same pool for what the client at `ip` asks for. At once its network, an IPv4 address or an IPv6 /64, holds at
    /// most an eighth of the places, a /48 a quarter, and at least one; beyond that it is [`HashingError::Busy`], while
    /// others are served.
    #[must_use]
    pub fn for_client(&self, ip: IpAddr) -> Self {
        Self { shared: Arc::clone(&self.shared), client: Some(ip) }
    }

    /// Hashes `password` for storage.
    ///
    /// # Errors
    /// [`HashingError::Busy`] when the queue or the network's share of it is full, at once; otherwise our fault.
    pub async fn hash(&self, password: &str) -> Result<PasswordRecord, HashingError> {
        let salt: [u8; SALT_LEN] = random()?;
        self.run(password, move |shared, password, memory| {
            Ok(hash_password(password, shared.peppers.current(), shared.cost, salt, memory)?)
        })
        .await
    }

    /// Compares `password` with the stored `record`; `None` for a user who does not exist, which is wrong after the same
    /// work. After [`Rehash::Needed`](bartizan_core::password::Rehash::Needed) call [`HashingPool::hash`] and store the new record.
    ///
    /// # Errors
    /// [`HashingError::Busy`] when the queue is full, at once. [`HashingError::BadRecord`] and [`HashError::UnknownPepper`]
    /// after the same work: log them, and answer as for a wrong password.
    pub async fn verify(&self, password: &str, record: Option<&str>) -> Result<Verified, HashingError> {
        let record = record.map(str::parse::<PasswordRecord>).transpose();
        self.run(password, move |shared, password, memory| {
            let stored = record.as_ref().ok().and_then(Option::as_ref);
            let against = stored.unwrap_or(&shared.decoy);
            let verified = verify_password(password, against, &shared.peppers, shared.cost, memory)?;
            match (stored, record.is_err()) {
                (_, true) => Err(HashingError::BadRecord),
                // Not even by a miracle does a user who does not exist log in.
                (None, false) => Ok(Verified::Wrong),
                (Some(_), false) => Ok(verified),
            }
        })
        .await
    }

    /// What the pool is doing now.
    pub fn load(&self) -> HashingLoad {
        let shared = &self.shared;
        let running = shared.sizes.workers.saturating_sub(shared.workers.available_permits());
        let taken = (shared.sizes.workers + shared.sizes.queue).saturating_sub(shared.places.available_permits());
        HashingLoad {
            running,
            waiting: taken.saturating_sub(running),
            computed: shared.computed.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
        }
    }

    async fn run<T, F>(&self, password: &str, work: F) -> Result<T, HashingError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared, &str, &mut Memory) -> Result<T, HashingError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // All permits live in this future while it waits, and in the work while it runs: dropped with either.
        let Some(place) = shared.place(self.client) else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(HashingError::Busy { retry_after: shared.retry_after() });
        };
        let password = Secret::new(password.to_owned());
        let worker = Arc::clone(&shared.workers).acquire_owned().await.map_err(|_| HashingError::Abandoned)?;
        spawn_blocking(move || shared.work(&password, (worker, place), work))
            .await
            .unwrap_or(Err(HashingError::Abandoned))
    }
}

/// A place in the pool, and what it takes of its network's share.
type Place = (OwnedSemaphorePermit, Option<Share>);

impl Shared {
    fn place(&self, client: Option<IpAddr>) -> Option<Place> {
        let share = match client {
            Some(ip) => Some(self.shares.take(ip)?),
            None => None,
        };
        Some((Arc::clone(&self.places).try_acquire_owned().ok()?, share))
    }

    fn work<T>(
        &self,
        password: &Secret<String>,
        permits: (OwnedSemaphorePermit, Place),
        work: impl FnOnce(&Shared, &str, &mut Memory) -> Result<T, HashingError>,
    ) -> Result<T, HashingError> {
        let started = Instant::now();
        let mut memory = self.take_memory();
        let result = work(self, password.expose(), &mut memory);
        self.computed.fetch_add(1, Ordering::Relaxed);
        self.last.store(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.return_memory(memory);
        // Last, so that whoever gets the worker next finds the memory.
        drop(permits);
        result
    }

    /// Memory that a hash before this one left; new memory to be handed on when others wait; else none, and the hash
    /// takes its own, which is cheapest for a single one.
    fn take_memory(&self) -> Memory {
        if let Some(memory) = self.spare().pop() {
            return memory;
        }
        if self.someone_waits() { Memory::reserve(self.cost).unwrap_or_default() } else { Memory::default() }
    }

    fn return_memory(&self, memory: Memory) {
        if !self.someone_waits() {
            self.spare().clear();
        } else if memory.fits(self.cost) {
            self.spare().push(memory);
        }
    }

    /// Whether more requests hold a place than can run.
    fn someone_waits(&self) -> bool {
        self.places.available_permits() < self.sizes.queue
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Memory>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// About how long until the queue that is there now is done; at least a second, at most a minute.
    fn retry_after(&self) -> Duration {
        let last = Duration::from_micros(self.last.load(Ordering::Relaxed));
        let rounds = u32::try_from(self.sizes.queue / self.sizes.workers + 1).unwrap_or(u32::MAX);
        last.saturating_mul(rounds).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}

impl fmt::Debug for HashingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingPool")
            .field("cost", &self.shared.cost)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], HashingError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| HashingError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_core::password::{Pepper, Rehash};
    use futures_util::future::join_all;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Waker};

    const PASSWORD: &str = "correct horse battery staple";

    fn cheap() -> Cost {
        Cost::new(32, 1, 1).unwrap()
    }

    fn peppers() -> Arc<Peppers> {
        Arc::new(Peppers::new(Pepper::new(Secret::new([1; 32])).unwrap(), vec![]))
    }

    fn pool(workers: usize, queue: usize) -> HashingPool {
        HashingPool::new(cheap(), peppers(), workers, queue).unwrap()
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_hashed_password_verifies() {
        let pool = pool(2, 2);
        let record = pool.hash(PASSWORD).await.unwrap().to_string();
        assert_eq!(pool.verify(PASSWORD, Some(&record)).await, Ok(Verified::Right(Rehash::NotNeeded)));
        assert_eq!(pool.verify("wrong", Some(&record)).await, Ok(Verified::Wrong));
        assert_ne!(pool.hash(PASSWORD).await.unwrap().to_string(), record, "a new salt each time");
    }

    #[tokio::test]
    async fn a_user_who_does_not_exist_costs_one_hash_like_any_other() {
        let pool = pool(1, 1);
        let record = pool.hash(PASSWORD).await.unwrap();
        let text = record.to_string();
        let broken = text.replace("m=32", "m=4194304");
        let hashes = || pool.load().computed;
        for (stored, expected) in [
            (Some(&*text), Ok(Verified::Right(Rehash::NotNeeded))),
            (None, Ok(Verified::Wrong)),
            (Some(&*broken), Err(HashingError::BadRecord)),
            (Some(""), Err(HashingError::BadRecord)),
        ] {
            let before = hashes();
            assert_eq!(pool.verify(PASSWORD, stored).await, expected);
            assert_eq!(hashes(), before + 1, "{stored:?}");
        }
        assert_eq!(pool.shared.decoy.cost(), record.cost());
    }

    #[tokio::test]
    async fn an_outdated_record_asks_to_be_made_anew() {
        let old = HashingPool::new(Cost::new(16, 1, 1).unwrap(), peppers(), 1, 1).unwrap();
        let record = old.hash(PASSWORD).await.unwrap().to_string();
        assert_eq!(pool(1, 1).verify(PASSWORD, Some(&record)).await, Ok(Verified::Right(Rehash::Needed)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_more_than_the_workers_run_at_once() {
        let pool = pool(3, 200);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..100).map(|_| {
            let (pool, running, most) = (pool.clone(), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                pool.run(PASSWORD, move |_, _, _| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                })
                .await
            })
        });
        assert!(join_all(jobs).await.into_iter().all(|result| result.unwrap() == Ok(())));
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
        let load = HashingLoad { running: 0, waiting: 0, computed: 100, refused: 0 };
        assert_eq!(pool.load(), load);
    }

    #[tokio::test]
    async fn a_full_queue_answers_busy_at_once_and_serves_again_afterwards() {
        let pool = pool(1, 2);
        // The test is the one who works: it holds the worker and that request's place.
        let place = Arc::clone(&pool.shared.places).try_acquire_owned().unwrap();
        let worker = Arc::clone(&pool.shared.workers).try_acquire_owned().unwrap();
        let mut first = pin!(pool.verify(PASSWORD, None));
        let mut second = pin!(pool.verify(PASSWORD, None));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        assert_eq!(pool.load(), HashingLoad { running: 1, waiting: 2, computed: 0, refused: 0 });

        let error = pool.verify(PASSWORD, None).await.unwrap_err();
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, Code::Busy);
        assert!(refusal.retry_after >= Some(Duration::from_secs(1)));
        assert_eq!(pool.load().refused, 1);

        drop((place, worker));
        assert_eq!(first.await, Ok(Verified::Wrong));
        assert_eq!(second.await, Ok(Verified::Wrong));
        assert_eq!(pool.load(), HashingLoad { running: 0, waiting: 0, computed: 2, refused: 1 });
    }

    #[tokio::test]
    async fn one_network_holds_an_eighth_of_the_places_and_others_are_served_meanwhile() {
        let pool = pool(1, 15);
        let worker = Arc::clone(&pool.shared.workers).try_acquire_owned().unwrap();
        let (flood, other) = (pool.for_client([192, 0, 2, 1].into()), pool.for_client([192, 0, 2, 2].into()));
        let mut first = Box::pin(flood.verify(PASSWORD, None));
        let mut second = Box::pin(flood.verify(PASSWORD, None));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        let refusal = Refusal::from(flood.verify(PASSWORD, None).await.unwrap_err());
        assert_eq!(refusal.code, Code::Busy);
        assert!(refusal.retry_after >= Some(Duration::from_secs(1)));
        assert_eq!(pool.load().refused, 1);
        let mut served = Box::pin(other.verify(PASSWORD, None));
        assert!(poll_once(served.as_mut()).is_pending());
        // Who leaves gives his part of the share back.
        drop(first);
        let mut third = Box::pin(flood.verify(PASSWORD, None));
        assert!(poll_once(third.as_mut()).is_pending());
        drop(worker);
        for waiting in [second, served, third] {
            assert_eq!(waiting.await, Ok(Verified::Wrong));
        }
        assert!(flood.verify(PASSWORD, None).await.is_ok());
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_gives_the_place_back_at_once() {
        let pool = pool(1, 1);
        let place = Arc::clone(&pool.shared.places).try_acquire_owned().unwrap();
        let worker = Arc::clone(&pool.shared.workers).try_acquire_owned().unwrap();
        for _ in 0..10 {
            let mut gone = Box::pin(pool.verify(PASSWORD, None));
            assert!(poll_once(gone.as_mut()).is_pending());
            assert_eq!(pool.load().waiting, 1);
            drop(gone);
            assert_eq!(pool.load().waiting, 0);
        }
        drop((place, worker));
        assert_eq!(pool.verify(PASSWORD, None).await, Ok(Verified::Wrong));
        assert_eq!(pool.load().computed, 1, "nobody hashed for those who left");
    }

    #[tokio::test]
    async fn who_goes_away_while_hashing_keeps_the_worker_until_it_is_done() {
        let pool = pool(1, 0);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(PASSWORD, move |_, _, _| {
                    let _ = started.send(());
                    let _ = wait.recv();
                    Ok(())
                })
                .await
            }
        });
        has_started.await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert!(matches!(pool.hash(PASSWORD).await, Err(HashingError::Busy { .. })), "its work still takes the core");
        release.send(()).unwrap();
        // The worker comes back when the work ends: wait for its permit, not for a while.
        let back = pool.shared.places.acquire().await.unwrap();
        drop(back);
        assert!(pool.hash(PASSWORD).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_in_the_work_loses_no_worker() {
        let pool = pool(1, 0);
        for _ in 0..3 {
            let result: Result<(), _> = pool.run(PASSWORD, |_, _, _| panic!("as if the library had")).await;
            assert_eq!(result, Err(HashingError::Abandoned));
        }
        assert!(pool.hash(PASSWORD).await.is_ok());
    }

    #[tokio::test]
    async fn memory_is_handed_on_while_others_wait_and_given_back_when_idle() {
        let pool = pool(1, 3);
        let shared = &pool.shared;
        assert!(!shared.take_memory().fits(cheap()), "a single hash takes its own");
        let waiting = Arc::clone(&shared.places).try_acquire_many_owned(2).unwrap();
        let memory = shared.take_memory();
        assert!(memory.fits(cheap()));
        shared.return_memory(memory);
        assert_eq!(shared.spare().len(), 1);
        let memory = shared.take_memory();
        assert!(shared.spare().is_empty() && memory.fits(cheap()));
        shared.return_memory(memory);
        drop(waiting);
        shared.return_memory(Memory::default());
        assert!(shared.spare().is_empty(), "an idle pool holds nothing");
    }
}
