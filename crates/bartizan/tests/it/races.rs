//! Two engines on one PostgreSQL and one Redis: whatever runs at once on both, what has ended has ended on both.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use bartizan::clock::Clock;
use bartizan::engine::Engine;
use bartizan::settings::{Revocation, Settings};
use bartizan_core::principal::Tier;
use bartizan_keys::{FileKeyring, SecretSource};
use bartizan_testkit::{PostgresServer, Proxy, RedisServer};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::house::{Answer, Caller, passphrase, unhindered};

const ROUNDS: usize = 10_000;
/// Each has a tenant of its own: changes of one tenant happen one after another.
const LANES: usize = 16;

/// What engines share.
struct Shared {
    home: TempDir,
    postgres: PostgresServer,
    redis: RedisServer,
}

impl Shared {
    async fn start() -> Self {
        let home = TempDir::new().unwrap();
        let (postgres, redis) = (PostgresServer::start(), RedisServer::start().await);
        let mut password = OpenOptions::new();
        let mut password =
            password.write(true).create_new(true).mode(0o600).open(home.path().join("password")).unwrap();
        password.write_all(postgres.password().as_bytes()).unwrap();
        FileKeyring::create(&SecretSource::dir(home.path().join("secrets"))).unwrap();
        Self { home, postgres, redis }
    }

    /// The settings of one engine, which has a directory of its own and shares everything else.
    fn settings(&self, name: &str) -> Settings {
        let home = self.home.path();
        let mut settings = unhindered(&home.join(name));
        settings.secrets = SecretSource::dir(home.join("secrets"));
        settings.database = address(self.postgres.port());
        settings.database_server.password_file = Some(home.join("password"));
        settings.state.url = self.redis.url();
        settings.state.timeout = Duration::from_secs(5);
        settings.state.leases = false;
        settings.state.nodes = 2;
        settings.state.revocation = Revocation::Strict;
        // A machine that is busy for a second does not make the nodes refuse everybody.
        settings.state.revocation_bound = Duration::from_secs(5);
        settings.database_server.pool = 20;
        settings.database_server.acquire = Duration::from_secs(60);
        settings
    }
}

fn address(port: u16) -> String {
    format!("postgres://bartizan@127.0.0.1:{port}/bartizan")
}

/// One who comes in through this engine or that one.
struct Lane {
    nth: usize,
    doors: [Caller; 2],
    tenant: String,
    /// The owner's own session, which stays.
    owner: String,
}

impl Lane {
    async fn new(nth: usize, doors: [Caller; 2]) -> Self {
        let tenant = format!("lane{nth}");
        let body = json!({
            "tenant": tenant, "name": "Olive Owner", "email": "owner@same.example", "password": passphrase(&tenant)
        });
        drop(doors[0].post("/v1/signup", &body).await.expect(201));
        let mut lane = Self { nth, doors, tenant, owner: String::new() };
        lane.owner = lane.log_in(0).await.text("/access_token");
        lane
    }

    async fn log_in(&self, door: usize) -> Answer {
        let secret = passphrase(&self.tenant);
        let login = || self.doors[door].try_login(&self.tenant, "owner@same.example", &secret);
        for _ in 0..10 {
            let answer = login().await;
            // Nothing was changed: a client tries again.
            if answer.status != 503 {
                return answer.expect(200);
            }
        }
        login().await.expect(200)
    }

    /// Logs in, then refreshes on one engine while the session is ended on the other, in one of three ways. Whether the
    /// refresh was first.
    async fn round(&self, round: usize) -> bool {
        let (here, there) = (&self.doors[round % 2], &self.doors[(round + 1) % 2]);
        let login = self.log_in(round / 2 % 2).await;
        let (access, refresh) = (login.text("/access_token"), login.text("/refresh_token"));
        let ending = there.clone().bearer(&access);
        let owner = there.clone().bearer(&self.owner);
        let id = match (round + self.nth) % 3 {
            2 => ending.get("/v1/whoami").await.expect(200).text("/session"),
            _ => String::new(),
        };
        let end = async {
            match (round + self.nth) % 3 {
                0 => ending.post("/v1/logout", &json!({})).await.expect(204),
                1 => there.form("/oauth/revoke", &format!("token={refresh}")).await.expect(200),
                _ => owner.delete(&format!("/v1/sessions/{id}")).await.expect(204),
            }
        };
        // Each is the first to be begun in every other round.
        let renewed = if round % 8 < 4 {
            tokio::join!(here.refresh(&refresh), end).0
        } else {
            tokio::join!(end, here.refresh(&refresh)).1
        };
        if renewed.status != 200 {
            drop(here.clone().bearer(&access).get("/v1/whoami").await.expect(401));
            drop(renewed.refused(401, "auth.refresh_invalid"));
            return false;
        }
        let (access, refresh) = (renewed.text("/access_token"), renewed.text("/refresh_token"));
        for door in [here, there] {
            drop(door.clone().bearer(&access).get("/v1/whoami").await.expect(401));
        }
        drop(there.refresh(&refresh).await.refused(401, "auth.refresh_invalid"));
        true
    }
}

/// A node puts tiers into force in the database's order, its own among them: a read of one change that is late must not
/// undo the next. The answer waits for that, also where each statement takes long.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_tier_is_in_force_when_its_command_returns_whatever_is_read_meanwhile() {
    let ground = Shared::start().await;
    let proxy = Proxy::start(ground.postgres.port()).await;
    let mut settings = ground.settings("only");
    settings.database = address(proxy.port());
    settings.state.revocation = Revocation::Replicated;
    let engine = Engine::start_at(settings, Clock::system()).await.unwrap();
    let door = Caller::through(engine.router());
    let lane = Lane::new(0, [door.clone(), door.clone()]).await;
    let owner = door.bearer(&lane.owner);
    proxy.delay(Duration::from_millis(20));
    for round in 0..12 {
        let tier = Tier::ALL[round % Tier::ALL.len()];
        drop(engine.operator().set_tier(&lane.tenant, tier).await.unwrap());
        assert_eq!(owner.get("/v1/whoami").await.expect(200).text("/tier"), tier.to_string(), "round {round}");
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_refreshes_that_race_the_end_of_their_session_on_another_node_leave_nothing_alive() {
    let ground = Shared::start().await;
    let mut engines = Vec::new();
    for name in ["first", "second"] {
        engines.push(Engine::start_at(ground.settings(name), Clock::system()).await.unwrap());
    }
    let mut racing = JoinSet::new();
    for nth in 0..LANES {
        let doors = [0, 1].map(|engine: usize| Caller::through(engines[engine].router()));
        racing.spawn(async move {
            let lane = Lane::new(nth, doors).await;
            let mut first = 0;
            for round in 0..ROUNDS / LANES {
                first += usize::from(lane.round(round).await);
            }
            first
        });
    }
    let first: usize = racing.join_all().await.into_iter().sum();
    assert!((ROUNDS / 20..=ROUNDS - ROUNDS / 20).contains(&first), "{first} of {ROUNDS} were first: that is no race");
    let usable = "SELECT count(*) FROM refresh_tokens r JOIN sessions s ON s.tenant_id = r.tenant_id \
        AND s.id = r.session_id WHERE r.state = 'live' AND s.ended_at IS NULL";
    assert_eq!(ground.postgres.sql("bartizan", usable), LANES.to_string(), "only the owners' own sessions are left");
    for engine in &engines {
        engine.shutdown().await;
    }
}
