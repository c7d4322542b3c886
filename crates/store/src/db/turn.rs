//! Whose turn it is: which changes exclude one another.

use std::fmt::Write as _;

use bartizan_core::id::TenantId;

/// What a change keeps others away from until it ends.
///
/// The services were written for one writer: what a change reads stays true until it is kept. SQLite has one writer.
/// On PostgreSQL changes of one tenant take turns, and a change across tenants has its turn when nobody else has one.
/// READ COMMITTED is then enough: each statement sees what was committed when it began, everything committed by
/// whoever had the turn before is visible before the turn passes on (a lock is released after its transaction has
/// become visible), and nobody else writes the rows concerned. A stricter level would only add failures to retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody else changes anything.
    Platform,
    /// Nobody else changes anything of these tenants.
    Tenants(Vec<TenantId>),
}

/// Advisory locks are numbers in the database; these begin with the letters `bart`. The effects' own is in the schema.
const PLATFORM: i64 = 0x6261_7274_0000_0001;
/// Held while the schema is made.
pub(super) const MIGRATION: i64 = 0x6261_7274_0000_0002;
/// Locks of tenants lie in the space of two numbers, where they cannot meet the others.
const TENANTS: i32 = 0x6261_7274;
/// A change of more tenants takes the platform's turn: locks are a table of limited size in the server.
const MANY: usize = 32;

impl Turn {
    /// A number that all changes of one tenant share, and few others; `None` for what concerns several.
    pub(super) fn crowd(&self) -> Option<u32> {
        match self {
            Turn::Tenants(tenants) => match tenants.as_slice() {
                [tenant] => Some(key(*tenant).cast_unsigned()),
                _ => None,
            },
            Turn::Platform => None,
        }
    }

    /// What begins a transaction on PostgreSQL and waits for the turn, in one message.
    ///
    /// Locks are taken in one order, the platform's first, then ascending: two changes cannot wait for each other.
    pub(super) fn begin(&self) -> String {
        let mut sql = String::from("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ");
        match self {
            Turn::Tenants(tenants) if tenants.len() <= MANY => {
                let mut keys: Vec<i32> = tenants.iter().map(|tenant| key(*tenant)).collect();
                keys.sort_unstable();
                keys.dedup();
                // Writing to a String cannot fail.
                let _ = write!(sql, "SELECT pg_advisory_xact_lock_shared({PLATFORM})");
                for key in keys {
                    let _ = write!(sql, "; SELECT pg_advisory_xact_lock({TENANTS}, {key})");
                }
            }
            Turn::Platform | Turn::Tenants(_) => {
                let _ = write!(sql, "SELECT pg_advisory_xact_lock({PLATFORM})");
            }
        }
        sql
    }
}

/// The tenant's lock. Two tenants that share one only wait for each other without need.
fn key(tenant: TenantId) -> i32 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = tenant.as_u128().to_be_bytes();
    let word = |bytes| i32::from_be_bytes(bytes);
    word([a, b, c, d]) ^ word([e, f, g, h]) ^ word([i, j, k, l]) ^ word([m, n, o, p])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_one_order_and_each_once() {
        let (one, two) = (TenantId::from_u128(1), TenantId::from_u128(2));
        let sql = Turn::Tenants(vec![two, one, two]).begin();
        assert_eq!(sql, Turn::Tenants(vec![one, two]).begin());
        assert!(sql.ends_with("lock(1650553460, 1); SELECT pg_advisory_xact_lock(1650553460, 2)"), "{sql}");
        let many = (0..40).map(TenantId::from_u128).collect();
        assert_eq!(Turn::Tenants(many).begin(), Turn::Platform.begin());
    }

    #[test]
    fn effects_have_a_lock_of_their_own_in_the_schema() {
        let schema = include_str!("../../migrations/postgres/0001_ground_floor.sql");
        assert!(schema.contains(&format!("pg_advisory_xact_lock({})", PLATFORM + 2)));
        assert_eq!(MIGRATION, PLATFORM + 1);
    }
}
