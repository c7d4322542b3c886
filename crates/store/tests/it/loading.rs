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
    let begin = Instant::now();
    let all = world.db.load_effects(NOW).await.unwrap();
    println!("1,000,000 effects loaded in {:?} (debug_assertions: {})", begin.elapsed(), cfg!(debug_assertions));
    assert_eq!(all.len(), 1_000_000);
    for (n, (effect, until)) in all.iter().enumerate() {
        assert_eq!((*effect, *until), (Effect::EndSession(SessionId::from_u128(n as u128 + 1)), later(60)));
    }
}
