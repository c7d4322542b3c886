//! The database: a file, or a server that several nodes share.

use std::time::Duration;

use bartizan::settings::{self, Settings};
use bartizan_core::time::Millis;
use bartizan_keys::read_secret;
use bartizan_store::db::ServerFacts;
use bartizan_store::{Db, DbOptions, StoreErrorKind};

use super::{Line, fail, fine, warn};
use crate::wiring;

/// A statement that takes longer makes every change slow.
const NEAR: Duration = Duration::from_millis(10);

/// The findings, and the latest moment that the database has seen.
pub(super) async fn examine(settings: &Settings) -> (Vec<Line>, Option<Millis>) {
    if settings.database.starts_with("sqlite:") {
        let database = wiring::examine_database(settings).await;
        let line = match database.state {
            Ok(found) => fine("database", found),
            Err(found) => fail("database", found, "restore it from a backup, or start the version that wrote it"),
        };
        return (vec![line], database.seen);
    }
    let server = &settings.database_server;
    let password = match server.password_file.as_deref().map(read_secret).transpose() {
        Ok(password) => password,
        Err(fault) => {
            let mend = "write the password of the database's user into the file of database.password_file, mode 0600";
            return (vec![fail("database", fault.to_string(), mend)], None);
        }
    };
    let options = DbOptions { pool: server.pool, acquire: server.acquire, password, ..DbOptions::default() };
    match Db::survey(&settings.database, &options).await {
        Ok(facts) => (judge(&facts, server, settings.state.nodes), facts.seen),
        Err(error) => (vec![fail("database", error.to_string(), mend(error.kind()))], None),
    }
}

fn mend(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Unreachable => "see that PostgreSQL runs and that host and port in database.url are right",
        StoreErrorKind::Outdated { .. } => "upgrade the database server (pg_upgrade), then start again",
        StoreErrorKind::Access => "see pg_hba.conf, the user and database in database.url, and database.password_file",
        StoreErrorKind::Url => "correct database.url: bartizan config check shows the place",
        StoreErrorKind::Busy => "raise max_connections of the server, or lower database.pool of the nodes",
        _ => "see the log of the database server",
    }
}

fn judge(facts: &ServerFacts, server: &settings::DatabaseServer, nodes: u32) -> Vec<Line> {
    let found = format!("{} at {}, {} µs away", facts.version, facts.place, facts.round_trip.as_micros());
    let mut lines = vec![match facts {
        ServerFacts { standby: true, .. } => {
            fail("database", format!("{found}; a read-only standby"), "give the address of the primary in database.url")
        }
        ServerFacts { half_moved: true, .. } => {
            let mend = "run bartizan migrate embedded-to-cluster again: it goes on where it stopped";
            fail("database", format!("{found}; a database was moved here in part only"), mend)
        }
        facts if facts.round_trip > NEAR => {
            warn("database", found, "move nodes and database closer: each change waits for it several times")
        }
        _ => fine("database", found),
    }];
    lines.push(match (&facts.encryption, facts.local) {
        (Some(cipher), _) => fine("database tls", cipher.clone()),
        (None, true) => fine("database tls", "none, and none needed: it is on this machine"),
        (None, false) => {
            let mend = "set ssl = on at the server and sslmode=verify-full&sslrootcert=FILE in database.url";
            warn("database tls", "none: hashes and sealed data travel in the clear", mend)
        }
    });
    lines.push(match facts.reckless.first() {
        Some(name) => fail(
            "durability",
            format!("{} is off: a loss of power loses or damages what was confirmed", facts.reckless.join(" and ")),
            format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"),
        ),
        None if facts.synchronous_commit == "off" => fine(
            "durability",
            "fsync on, full_page_writes on; synchronous_commit is off there and on for Bartizan's connections",
        ),
        None => {
            let standbys = match facts.synchronous_standbys.as_str() {
                "" => "no standby is waited for",
                names => names,
            };
            let commit = &facts.synchronous_commit;
            fine("durability", format!("fsync on, full_page_writes on, synchronous_commit {commit}, {standbys}"))
        }
    });
    lines.push(clock("database clock", facts.clock_difference_ms));
    lines.push(connections(facts.connections, server.pool, nodes));
    lines.push(rights(facts));
    lines
}

/// The clock of another machine against this one's.
pub(super) fn clock(check: &'static str, difference_ms: i64) -> Line {
    let found = format!("{difference_ms} ms from this machine's");
    let mend = "synchronise both machines (chronyc tracking, timedatectl): tokens and sessions end by these clocks";
    match difference_ms.unsigned_abs() {
        0..1_000 => fine(check, found),
        1_000..30_000 => warn(check, found, mend),
        _ => fail(check, found, mend),
    }
}

fn connections(allowed: u32, pool: u32, nodes: u32) -> Line {
    let nodes = nodes.max(1);
    let wanted = pool.saturating_mul(nodes);
    let found = format!("{allowed} for everybody, {wanted} for {nodes} node(s) of {pool}");
    let mend = "raise max_connections at the server (a restart), or lower database.pool; leave a few for operators";
    match allowed {
        _ if wanted > allowed => fail("connections", found, mend),
        // While one node replaces another both are there.
        _ if wanted.saturating_add(pool) > allowed => warn("connections", found, mend),
        _ => fine("connections", found),
    }
}

fn rights(facts: &ServerFacts) -> Line {
    match facts.denied.first() {
        Some(table) => fail(
            "permissions",
            format!("the user may not read and write {}", facts.denied.join(", ")),
            format!("make him their owner: ALTER TABLE {table} OWNER TO …"),
        ),
        None if facts.may_create => fine("permissions", "the user may create, read and write tables"),
        None => fail(
            "permissions",
            "the user may not create tables: neither the first start nor a newer version works",
            "GRANT CREATE ON SCHEMA public TO …, or make him the owner of the database",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn sound() -> ServerFacts {
        ServerFacts {
            place: "PostgreSQL, db.example:5432, database bartizan".into(),
            version: "15.4".into(),
            local: false,
            encryption: Some("TLSv1.3 TLS_AES_256_GCM_SHA384".into()),
            standby: false,
            reckless: Vec::new(),
            synchronous_commit: "on".into(),
            synchronous_standbys: String::new(),
            connections: 97,
            may_create: true,
            denied: Vec::new(),
            half_moved: false,
            seen: None,
            clock_difference_ms: 3,
            round_trip: Duration::from_micros(400),
        }
    }

    fn worst(facts: &ServerFacts, nodes: u32) -> Vec<(&'static str, Outcome)> {
        let lines = judge(facts, &settings::DatabaseServer::default(), nodes);
        assert!(lines.iter().all(|line| line.mend.is_some() == (line.outcome != Outcome::Ok)), "{lines:?}");
        lines.iter().filter(|line| line.outcome != Outcome::Ok).map(|line| (line.check, line.outcome)).collect()
    }

    #[test]
    fn a_sound_server_has_no_findings_and_each_fault_has_one_with_its_mend() {
        use Outcome::{Fail, Warn};
        assert_eq!(worst(&sound(), 2), []);
        let off = |change: fn(&mut ServerFacts)| {
            let mut facts = sound();
            change(&mut facts);
            worst(&facts, 2)
        };
        assert_eq!(off(|facts| facts.standby = true), [("database", Fail)]);
        assert_eq!(off(|facts| facts.half_moved = true), [("database", Fail)]);
        assert_eq!(off(|facts| facts.round_trip = Duration::from_millis(30)), [("database", Warn)]);
        assert_eq!(off(|facts| facts.encryption = None), [("database tls", Warn)]);
        assert_eq!(off(|facts| facts.reckless = vec!["fsync"]), [("durability", Fail)]);
        assert_eq!(off(|facts| facts.clock_difference_ms = -2_000), [("database clock", Warn)]);
        assert_eq!(off(|facts| facts.clock_difference_ms = 90_000), [("database clock", Fail)]);
        assert_eq!(off(|facts| facts.connections = 40), [("connections", Warn)]);
        assert_eq!(off(|facts| facts.connections = 30), [("connections", Fail)]);
        assert_eq!(off(|facts| facts.may_create = false), [("permissions", Fail)]);
        assert_eq!(off(|facts| facts.denied = vec!["audit".into()]), [("permissions", Fail)]);
    }
}
