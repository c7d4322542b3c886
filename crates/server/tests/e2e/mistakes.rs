//! What operators get wrong about the servers that nodes share: the start says what it is and how to mend it, and so does
//! the doctor, before anybody starts anything.

use bartizan_testkit::{Launch, PostgresServer, RedisServer, old_postgres, old_redis, until};

use crate::doctor::{findings, installed};

/// One mistake, and what is said about it.
struct Mistake<'a> {
    /// The settings that hold it.
    settings: Vec<(&'a str, String)>,
    /// What the start and the doctor find.
    found: &'a str,
    /// What the start says is to be done.
    mend: &'a str,
    /// What the doctor says is to be done; `None` when it is the same.
    doctor: Option<&'a str>,
}

impl<'a> Mistake<'a> {
    fn new(settings: &[(&'a str, &str)], found: &'a str, mend: &'a str) -> Self {
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Self { settings, found, mend, doctor: None }
    }

    /// The doctor says it in other words.
    fn or(self, doctor: &'a str) -> Self {
        Self { doctor: Some(doctor), ..self }
    }

    /// Starts the program and asks the doctor; `check` is the doctor's name for it.
    async fn is_told(&self, good: &Launch, check: &str) {
        let bad = self.settings.iter().fold(good.clone(), |launch, (key, value)| launch.set(key, value));
        let config = good.home_dir().config();
        let started = bad.command(&["serve", "--config", config.to_str().unwrap()]).await;
        assert_eq!(started.code, Some(1), "{:?}: {started:?}", self.settings);
        for words in [self.found, self.mend] {
            assert!(started.stderr.contains(words), "{:?}: no {words:?} in {}", self.settings, started.stderr);
        }
        let (outcome, found, mend) = findings(&bad).await(check);
        assert_eq!(outcome, "fail", "{:?}: {found}", self.settings);
        assert!(found.contains(self.found), "{:?}: no {:?} in {found}", self.settings, self.found);
        let wanted = self.doctor.unwrap_or(self.mend);
        assert!(mend.contains(wanted), "{:?}: no {wanted:?} in {mend}", self.settings);
        for said in [&started.stdout, &started.stderr, &found, &mend] {
            assert!(!said.contains(WRONG), "a password is shown: {said}");
        }
    }
}

/// A password that nobody accepts, and that nobody may read either.
const WRONG: &str = "gravel-lantern-72-wrong";

/// The file of that password.
fn wrong_password(launch: &Launch) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = launch.home_dir().outer().join("wrong password");
    std::fs::write(&path, WRONG).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_address_that_is_none_is_told_with_the_way_to_write_it() {
    let launch = installed(&PostgresServer::start()).await;
    let config = launch.home_dir().config();
    let database = "`database.url` must be \"sqlite:\" followed by a path, such as \"sqlite:bartizan.db\", or \
                    \"postgres://USER@HOST/DATABASE\" without a password";
    let state = "`state.url` must be \"embedded\", or \"redis://HOST\", \"redis+sentinel://HOST,HOST,HOST/NAME\", \
                 \"redis+cluster://HOST,HOST,HOST\" (or rediss) without user and password";
    for (key, url, how) in [
        ("DATABASE__URL", "postgres//bartizan@h/x", database),
        ("DATABASE__URL", "mysql://bartizan@h/x", database),
        ("DATABASE__URL", &format!("postgres://bartizan:{WRONG}@h/x"), database),
        ("STATE__URL", "redis:/h", state),
        ("STATE__URL", "http://h", state),
        ("STATE__URL", "redis://a,b", state),
        ("STATE__URL", "redis+sentinel://a,b,c", state),
        ("STATE__URL", &format!("redis://bartizan:{WRONG}@h"), state),
    ] {
        let bad = launch.clone().set(key, url);
        for verb in [&["serve"][..], &["doctor"], &["config", "check"]] {
            let done = bad.command(&[verb, &["--config", config.to_str().unwrap()]].concat()).await;
            assert_eq!(done.code, Some(3), "{verb:?} {url}: {done:?}");
            assert!(done.stderr.contains(how) && done.stderr.contains(&format!("BARTIZAN__{key}")), "{}", done.stderr);
            assert!(!done.stderr.contains(WRONG) && !done.stdout.contains(WRONG), "a password is shown: {done:?}");
        }
    }
}

#[tokio::test]
async fn each_mistake_about_the_database_is_told_with_its_mend() {
    let database = PostgresServer::start();
    let good = installed(&database).await;
    let at = |port: u16, rest: &str| format!("postgres://bartizan@127.0.0.1:{port}/{rest}");
    let access = "see pg_hba.conf, the user and database in database.url, and database.password_file";
    for mistake in [
        Mistake::new(
            &[("DATABASE__URL", &at(1, "bartizan"))],
            "the database server does not answer",
            "see that it runs and can be reached from here",
        )
        .or("see that PostgreSQL runs and that host and port in database.url are right"),
        Mistake::new(
            &[("DATABASE__PASSWORD_FILE", &wrong_password(&good))],
            "the database server refuses the password",
            "write the right one into the file of `database.password_file`",
        )
        .or(access),
        Mistake::new(
            &[("DATABASE__URL", &at(database.port(), "missing"))],
            "there is no such database",
            "create it (`CREATE DATABASE … OWNER …`), or correct its name in the address",
        )
        .or(access),
        Mistake::new(
            &[("DATABASE__URL", &at(database.port(), "bartizan?sslmode=verify-full"))],
            "no encrypted connection to the database server",
            "switch TLS on there, name the authority of its certificate with `?sslrootcert=FILE`",
        )
        .or(access),
        Mistake::new(
            &[("DATABASE__URL", &at(old_postgres("12.22").await, "bartizan"))],
            "this is PostgreSQL 12, Bartizan needs 13 or newer",
            "upgrade the database server",
        )
        .or("upgrade the database server (pg_upgrade), then start again"),
    ] {
        mistake.is_told(&good, "database").await;
    }
}

#[tokio::test]
async fn a_database_that_may_lose_what_it_confirmed_is_not_used() {
    for setting in ["fsync", "full_page_writes"] {
        let database = PostgresServer::start_with(&[&format!("{setting}=off")]);
        let (found, mend) = (format!("{setting} is off"), format!("ALTER SYSTEM SET {setting} = on"));
        Mistake::new(&[], &found, &mend).is_told(&installed(&database).await, "durability").await;
        let tables = database.sql("bartizan", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
        assert_eq!(tables, "0", "what may be lost is not even begun");
    }
}

#[tokio::test]
async fn each_mistake_about_redis_is_told_with_its_mend() {
    let database = PostgresServer::start();
    let good = installed(&database).await.set("STATE__TIMEOUT", "2s");
    // The second address is not among the names of the certificate.
    let two = ["--bind", "127.0.0.1", "127.0.0.2"];
    let (plain, locked) = (RedisServer::start().await, RedisServer::with_password("the right word").await);
    let (tls, stranger) = (RedisServer::with_tls(&two).await, RedisServer::with_tls(&[]).await);
    let ca = |server: &RedisServer| server.ca().to_str().unwrap().to_owned();
    let elsewhere = tls.url().replace("127.0.0.1", "127.0.0.2");
    for mistake in [
        Mistake::new(
            &[("STATE__URL", &locked.url())],
            "demands a password",
            "write it into a file and name that in state.password_file",
        ),
        Mistake::new(
            &[("STATE__URL", &locked.url()), ("STATE__PASSWORD_FILE", &wrong_password(&good))],
            "refuses the user or password that is configured",
            "correct state.user and the file of state.password_file",
        ),
        Mistake::new(
            &[("STATE__URL", &tls.url()), ("STATE__CA_FILE", &ca(&stranger))],
            "invalid peer certificate",
            "name a PEM file with the certificate of the authority that signed the server's in state.ca_file",
        ),
        Mistake::new(
            &[("STATE__URL", &elsewhere), ("STATE__CA_FILE", &ca(&tls))],
            "certificate not valid for name",
            "write the host in state.url as it stands in the certificate",
        ),
        Mistake::new(
            &[("STATE__URL", &format!("redis://127.0.0.1:{}", old_redis("6.2.14").await))],
            "Redis 6.2.14 at 127.0.0.1",
            "upgrade it to Redis 7.0 or Valkey 7.2 at least",
        ),
        Mistake::new(
            &[("STATE__URL", &plain.url().replace("redis:", "redis+cluster:"))],
            "is not part of a cluster",
            "write redis:// or redis+sentinel:// in state.url",
        ),
    ] {
        mistake.is_told(&good, "state").await;
    }
}

/// These may be over in a moment, so the start waits for ten seconds.
#[tokio::test]
async fn a_redis_that_cannot_be_reached_is_told_with_what_to_try() {
    let (plain, tls) = (RedisServer::start().await, RedisServer::with_tls(&[]).await);
    let runs = "see that it runs, and that host and port in state.url are right";
    let clear = tls.url().replace("rediss:", "redis:");
    let (encrypted, ca) = (plain.url().replace("redis:", "rediss:"), tls.ca().display().to_string());
    let encrypted = [("STATE__URL", &*encrypted), ("STATE__CA_FILE", &*ca)];
    let nobody = Mistake::new(&[("STATE__URL", "redis://127.0.0.1:1")], "no connection to Redis: 127.0.0.1:1", runs);
    let clear = Mistake::new(&[("STATE__URL", &clear)], "if it expects TLS, write rediss in place of redis", runs);
    let encrypted = Mistake::new(&encrypted, "if it does not speak TLS there, write redis in place of rediss", runs);
    // At once, because each waits.
    let all = [nobody, clear, encrypted].map(|mistake| async move {
        let database = PostgresServer::start();
        mistake.is_told(&installed(&database).await.set("STATE__CONNECT", "500ms"), "state").await;
    });
    let [first, second, third] = all;
    tokio::join!(first, second, third);
}

#[tokio::test]
async fn a_redis_that_forgets_what_is_in_force_is_warned_of_and_used() {
    let database = PostgresServer::start();
    let forgetful = RedisServer::with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let launch = installed(&database).await.set("STATE__URL", &forgetful.url()).set("STATE__TIMEOUT", "2s");
    let (outcome, found, mend) = findings(&launch).await("state memory");
    assert!(outcome == "fail" && found.contains("allkeys-lru"), "{found}");
    assert!(mend.contains("CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"), "{mend}");
    let server = launch.start().await;
    until("the start warns", || async {
        server.log().contains(
            "Redis may evict limits, bans and the revocation sequence: CONFIG SET maxmemory-policy noeviction",
        )
    })
    .await;
    drop(server.owner().await.client.get("/v1/whoami").await.expect(200));
}
