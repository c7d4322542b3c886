//! Start-up with a million effects in force.

use std::time::Instant;

use bartizan_core::audit::Effect;
use bartizan_core::id::SessionId;
use sqlx::{Connection, SqliteConnection};

use crate::world::*;

on_both! { a_million_effects_are_loaded_in_order }

async fn a_million_effects_are_loaded_in_order(world: World) {
    let insert = "INSERT INTO effects (event_id, kind, subject, value, until)";
    if let Some(server) = &world.server {
        server.sql(
            "bartizan",
            &format!(
                "{insert} SELECT 'evt_' || lpad(to_hex(i), 32, '0'), 'session', 'ses_' || lpad(to_hex(i), 32, '0'), '', \
                 {} FROM generate_series(1, 1000000) AS n(i)",
                later(60).0
            ),
        );
    } else {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.db.path().unwrap());
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
             {insert} SELECT printf('evt_%032x', i), 'session', printf('ses_%032x', i), '', $1 FROM n"
        )))
        .bind(later(60).0)
        .execute(&mut conn)
        .await
        .unwrap();
    }
    let (begin, cpu) = (Instant::now(), cpu_millis());
    let all = world.db.load_effects(NOW).await.unwrap();
    let (wall, cpu) = (begin.elapsed(), cpu_millis().zip(cpu).map(|(after, before)| after - before));
    println!("1,000,000 effects loaded in {wall:?}, {cpu:?} ms of processor (debug: {})", cfg!(debug_assertions));
    assert_eq!((all.highest, all.effects.len()), (1_000_000, 1_000_000));
    for (n, (effect, until)) in all.effects.iter().enumerate() {
        assert_eq!((*effect, *until), (Effect::EndSession(SessionId::from_u128(n as u128 + 1)), later(60)));
    }
    let begin = Instant::now();
    assert_eq!(world.db.effects_after(all.highest, NOW).await.unwrap().effects, []);
    println!("nothing new: {:?}", begin.elapsed());
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
