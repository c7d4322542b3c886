//! Connections to PostgreSQL, kept and handed out.
//!
//! Not the driver's own pool, because that one keeps trying a server that refuses connections until its time is over:
//! while the server is away every request would hang for seconds and then read "busy". This one says at once that the
//! server is away, and tells that apart from having no connection free.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow, PgTypeInfo, types::Oid};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::session::{Session, enter};
use crate::error::{StoreError, StoreErrorKind};
use crate::value::Value;

/// A connection that rested longer is asked for a sign of life before it is used.
const RESTED: Duration = Duration::from_secs(1);

/// A connection is replaced after so long, so that the server's memory of it does not grow for ever.
const LIFE: Duration = Duration::from_secs(1800);

/// So many connections and no more, first come first served.
#[derive(Clone)]
pub(in crate::db) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    options: PgConnectOptions,
    session: Session,
    patience: Duration,
    size: u32,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Rested>>,
}

struct Rested {
    conn: PgConnection,
    born: Instant,
    since: Instant,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, session: Session, size: u32, patience: Duration) -> Self {
        let places = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1).max(1)));
        Self { inner: Arc::new(Inner { options, session, patience, size, places, idle: Mutex::default() }) }
    }

    /// A connection, kept or new.
    ///
    /// # Errors
    /// `Busy` when none came free in time, `Unreachable` when the server does not answer, `Closed`, and what the server
    /// says to a new connection.
    pub(in crate::db) async fn line(&self) -> Result<Line, StoreError> {
        let deadline = Instant::now() + self.inner.patience;
        let place = self.place(deadline).await?;
        if let Some(rested) = self.inner.rested(deadline).await {
            let Rested { conn, born, .. } = rested;
            return Ok(Line {
                conn: Some(conn),
                born,
                used: true,
                state: State::Idle,
                pool: self.clone(),
                pass: None,
                _place: place,
            });
        }
        let conn = self.inner.connect(deadline).await?;
        let born = Instant::now();
        Ok(Line {
            conn: Some(conn),
            born,
            used: false,
            state: State::Idle,
            pool: self.clone(),
            pass: None,
            _place: place,
        })
    }

    async fn place(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, StoreError> {
        let places = Arc::clone(&self.inner.places);
        match timeout_at(deadline, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(StoreError::new(StoreErrorKind::Closed)),
            Err(_) => Err(StoreError::new(StoreErrorKind::Busy)
                .detail(format!("all {} connections of the pool are in use", self.inner.size))),
        }
    }

    /// Lets nobody in any more, waits for those inside, and says goodbye to the server.
    pub(in crate::db) async fn close(&self) {
        let all = self.inner.size.max(1);
        // What runs may end; whoever waits behind this is told that the database is closed, because the places are kept
        // until then.
        let _all = timeout(self.inner.session.silence(), self.inner.places.acquire_many(all)).await;
        self.inner.places.close();
        for rested in self.inner.take_all() {
            let _ = timeout(RESTED, rested.conn.close()).await;
        }
    }
}

impl fmt::Debug for Pool {
    /// Without the options, which hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.inner.size).finish_non_exhaustive()
    }
}

impl Inner {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Rested>> {
        // A list of connections is whole between any two steps.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_all(&self) -> Vec<Rested> {
        std::mem::take(&mut *self.idle())
    }

    /// A kept connection that lives: the one used last, so that those not needed grow old and go.
    async fn rested(&self, deadline: Instant) -> Option<Rested> {
        let mut rested = self.idle().pop()?;
        if rested.since.elapsed() < RESTED {
            return Some(rested);
        }
        let alive = timeout_at(deadline.min(Instant::now() + RESTED), rested.conn.ping()).await;
        if matches!(alive, Ok(Ok(()))) {
            return Some(rested);
        }
        // One that died in its rest is seldom alone: the server was restarted.
        drop(self.take_all());
        None
    }

    async fn connect(&self, deadline: Instant) -> Result<PgConnection, StoreError> {
        let silent = || StoreError::new(StoreErrorKind::Unreachable).detail("no answer to a new connection");
        let entering = async {
            let mut conn = PgConnection::connect_with(&self.options).await.map_err(StoreError::postgres)?;
            enter(&mut conn, self.session).await?;
            Ok(conn)
        };
        timeout_at(deadline, entering).await.unwrap_or_else(|_| Err(silent()))
    }
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for the next statement.
    Idle,
    /// A statement was begun and its end not seen: its caller went away.
    Busy,
    /// Of no use any more.
    Broken,
}

/// A connection in use. Dropped, it goes back to the pool, unless something is wrong with it.
pub(in crate::db) struct Line {
    /// Empty only while being dropped.
    conn: Option<PgConnection>,
    born: Instant,
    /// Whether it has served before, so that its failure may be one of old age.
    used: bool,
    state: State,
    pool: Pool,
    /// Of the gate it came through, if any.
    pub(super) pass: Option<OwnedSemaphorePermit>,
    /// Given back last.
    _place: OwnedSemaphorePermit,
}

impl Line {
    /// All rows of the answer.
    pub(in crate::db) async fn fetch(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<PgRow>, StoreError> {
        let answer = timeout(self.silence(), bound(sql, args).fetch_all(self.begin()?)).await;
        self.end(answer)
    }

    /// Runs a statement; returns the number of rows it changed.
    pub(in crate::db) async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, StoreError> {
        let answer = timeout(self.silence(), bound(sql, args).execute(self.begin()?)).await;
        Ok(self.end(answer)?.rows_affected())
    }

    /// Runs several statements, which are ours word for word, in one message.
    pub(in crate::db) async fn batch(&mut self, sql: String) -> Result<(), StoreError> {
        let answer = timeout(self.silence(), sqlx::raw_sql(AssertSqlSafe(sql)).execute(self.begin()?)).await;
        self.end(answer).map(drop)
    }

    fn silence(&self) -> Duration {
        self.pool.inner.session.silence()
    }

    /// From here until [`Line::end`] the connection counts as busy, so that a caller who goes away needs no care.
    fn begin(&mut self) -> Result<&mut PgConnection, StoreError> {
        match (&mut self.conn, self.state) {
            (Some(conn), State::Idle) => {
                self.state = State::Busy;
                Ok(conn)
            }
            _ => Err(StoreError::new(StoreErrorKind::Unreachable)),
        }
    }

    /// An answer may take as long as the server's own limits allow and a little more: a server that hangs or is cut
    /// off does not keep its callers for ever.
    fn end<T>(&mut self, answer: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, StoreError> {
        let Ok(answer) = answer else {
            (self.state, self.used) = (State::Broken, false);
            return Err(StoreError::new(StoreErrorKind::Unreachable).detail("no answer in time"));
        };
        let answer = answer.map_err(StoreError::postgres);
        self.state = match &answer {
            Err(error) if error.kind() == StoreErrorKind::Unreachable => State::Broken,
            _ => State::Idle,
        };
        self.used |= answer.is_ok();
        answer
    }

    /// Whether the last statement failed because the connection had died since it served last: then nothing was done,
    /// and what it was to do may be done on a new one.
    pub(in crate::db) fn died_resting(&self) -> bool {
        self.used && self.state == State::Broken
    }

    /// Puts a new connection in the place of this one.
    pub(in crate::db) async fn renew(&mut self) -> Result<(), StoreError> {
        drop(self.pool.inner.take_all());
        self.conn = None;
        let deadline = Instant::now() + self.pool.inner.patience;
        self.conn = Some(self.pool.inner.connect(deadline).await?);
        (self.born, self.used, self.state) = (Instant::now(), false, State::Idle);
        Ok(())
    }

    /// Brings the connection back to where nothing is going on: first what was begun must end. It is not simply cut,
    /// because the server does not notice that while a statement waits for its turn: each caller who goes away would
    /// leave one more connection there.
    pub(in crate::db) async fn settle(mut self, open: bool) {
        if self.state == State::Broken {
            return;
        }
        self.state = State::Broken;
        let silence = self.silence();
        let Some(conn) = &mut self.conn else { return };
        let ended = async {
            if open { sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await.map(drop) } else { conn.ping().await }
        };
        if matches!(timeout(silence, ended).await, Ok(Ok(()))) {
            self.state = State::Idle;
        }
    }

    /// Cuts the connection, with whatever it holds.
    pub(in crate::db) fn discard(mut self) {
        self.state = State::Broken;
    }

    /// Whether nothing is left to be brought to an end but a transaction.
    pub(in crate::db) fn resting(&self) -> bool {
        self.state != State::Busy
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        let fit = self.state == State::Idle && self.born.elapsed() < LIFE && !self.pool.inner.places.is_closed();
        if fit {
            self.pool.inner.idle().push(Rested { conn, born: self.born, since: Instant::now() });
        }
    }
}

fn bound(sql: &'static str, args: Vec<Value>) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    args.into_iter().fold(sqlx::query::<Postgres>(sql), |query, value| match value {
        Value::Null => query.bind(Nothing),
        Value::Int(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(bytes),
    })
}

/// A NULL of whatever type the statement needs there.
struct Nothing;

impl sqlx::Type<Postgres> for Nothing {
    fn type_info() -> PgTypeInfo {
        /// The type `unknown`, as a parameter: to be found out from the statement.
        const UNKNOWN: u32 = 705;
        PgTypeInfo::with_oid(Oid(UNKNOWN))
    }
}

impl sqlx::Encode<'_, Postgres> for Nothing {
    fn encode_by_ref(
        &self,
        _: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        Ok(sqlx::encode::IsNull::Yes)
    }
}
