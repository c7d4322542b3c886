//! Start-up with a million effects in force.

use std::time::Instant;

use bartizan_core::audit::Effect;
use bartizan_core::id::SessionId;
use sqlx::{Connection, SqliteConnection};

use crate::world::*;

#[tokio::test]
async fn a_million_effects_are_loaded_in_order() {
    let world = World::new().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.path());
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
         INSERT INTO effects (event_id, kind, subject, value, until) \
         SELECT printf('evt_%032x', i), 'session', printf('ses_%032x', i), '', $1 FROM n",
    )
    .bind(later(60).0)
    .execute(&mut conn)
    .await
    .unwrap();
    let (begin, cpu) = (Instant::now(), cpu_millis());
    let all = world.db.load_effects(NOW).await.unwrap();
    let (wall, cpu) = (begin.elapsed(), cpu_millis().zip(cpu).map(|(after, before)| after - before));
    println!("1,000,000 effects loaded in {wall:?}, {cpu:?} ms of processor (debug: {})", cfg!(debug_assertions));
    assert_eq!(all.len(), 1_000_000);
    for (n, (effect, until)) in all.iter().enumerate() {
        assert_eq!((*effect, *until), (Effect::EndSession(SessionId::from_u128(n as u128 + 1)), later(60)));
    }
}

/// Processor time of this process, which other work on the machine does not stretch. Alone in its process only this
/// test is counted.
fn cpu_millis() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name in parentheses; user and system time are fields 14 and 15, in hundredths of a second.
    let times: Vec<u64> =
        stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(times.iter().sum::<u64>() * 10)
}
