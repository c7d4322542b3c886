//! Tenants, users and passwords.

use std::time::{Duration, Instant};

use bartizan_testkit::{PostgresServer, RedisServer, passphrase};
use serde_json::json;

use crate::{launch, server};

#[tokio::test]
async fn signup_makes_a_free_tenant_and_its_owner() {
    let server = server().await;
    let body =
        json!({ "tenant": "globex", "name": "Gil Globe", "email": "gil@globex.example", "password": passphrase("g") });
    let answer = server.client().post("/v1/signup", body).await.expect(201);
    assert_eq!(answer.text("/tenant/slug"), "globex");
    assert_eq!(answer.text("/tenant/tier"), "free");
    assert!(answer.text("/tenant/id").starts_with("ten_"));
    assert!(answer.text("/user/id").starts_with("usr_"));
    assert_eq!(answer.text("/user/email"), "gil@globex.example");
    assert_eq!(answer.text("/user/name"), "Gil Globe");
    assert_eq!(answer.text("/user/role"), "owner");
    assert!(!String::from_utf8_lossy(&answer.body).contains("password"));
}

#[tokio::test]
async fn a_tenant_name_is_given_once() {
    let server = server().await;
    drop(server.signup("globex").await);
    let body = json!({ "tenant": "globex", "name": "Second", "email": "b@b.example", "password": passphrase("b") });
    drop(server.client().post("/v1/signup", body).await.refused(409, "tenant.slug_taken"));
}

#[tokio::test]
async fn whoami_and_me_say_who_one_is() {
    let server = server().await;
    let owner = server.owner().await;
    let who = owner.client.get("/v1/whoami").await.expect(200);
    assert!(who.text("sub").starts_with("usr_"));
    assert!(who.text("tenant").starts_with("ten_"));
    assert!(who.text("session").starts_with("ses_"));
    assert_eq!(who.text("role"), "owner");
    assert!(["free", "pro", "enterprise"].contains(&who.text("tier").as_str()));
    let me = owner.client.get("/v1/me").await.expect(200);
    assert!(String::from_utf8_lossy(&me.body).contains(&server.email));
    assert!(String::from_utf8_lossy(&me.body).contains(&who.text("sub")));
}

#[tokio::test]
async fn unknown_user_unknown_tenant_and_wrong_password_get_the_same_answer() {
    let server = server().await;
    let client = server.client();
    let known = (server.tenant.as_str(), server.email.as_str());
    let cases = [known, (known.0, "nobody@acme.example"), ("no-such-tenant", known.1)];
    let mut bodies = Vec::new();
    for (tenant, email) in cases {
        let body = json!({ "tenant": tenant, "email": email, "password": passphrase("wrong") });
        let answer = client.post("/v1/login", body).await.refused(401, "auth.login_failed");
        let mut problem = answer.json();
        problem.as_object_mut().unwrap().remove("instance");
        let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        bodies.push((problem, names, answer.header("www-authenticate").to_owned()));
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(bodies[0], bodies[2]);
}

#[tokio::test]
async fn unknown_user_costs_as_much_as_wrong_password() {
    let server = crate::launch().set("PASSWORD__MEMORY", "64 MiB").set("PASSWORD__PASSES", "3").start().await;
    let client = server.client();
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..4 {
        // One account fails at most as often as its limit allows, so the comparison is hash against hash.
        for (side, email) in [server.email.as_str(), "nobody@acme.example"].into_iter().enumerate() {
            let body = json!({ "tenant": server.tenant, "email": email, "password": passphrase(&round.to_string()) });
            let begun = Instant::now();
            drop(client.post("/v1/login", body).await.expect(401));
            times[side].push(begun.elapsed());
        }
    }
    let least = |side: usize| times[side].iter().min().copied().unwrap_or(Duration::ZERO).as_secs_f64();
    let ratio = least(1) / least(0);
    assert!((0.5..2.0).contains(&ratio), "unknown user takes {ratio:.2} times as long");
}

#[tokio::test]
async fn an_admin_makes_reads_changes_and_deletes_users() {
    let server = server().await;
    let owner = server.owner().await;
    let admin = server.user(&owner, "admin", "ada@acme.example").await.client;
    let body = json!({ "email": "Bob@Acme.example", "name": "Bob", "role": "member", "password": passphrase("bob") });
    let made = admin.post("/v1/users", body.clone()).await.expect(201);
    let path = format!("/v1/users/{}", made.text("id"));
    assert_eq!(admin.get(&path).await.expect(200).text("role"), "member");
    drop(admin.post("/v1/users", body).await.refused(409, "user.email_taken"));
    let twin = json!({ "email": "bob@acme.EXAMPLE", "name": "B", "role": "member", "password": passphrase("twin") });
    drop(admin.post("/v1/users", twin).await.refused(409, "user.email_taken"));
    assert_eq!(admin.patch(&path, json!({ "name": "Robert" })).await.expect(200).text("name"), "Robert");
    assert_eq!(admin.patch(&path, json!({ "role": "auditor" })).await.expect(200).text("role"), "auditor");
    drop(admin.delete(&path).await.expect(204));
    drop(admin.get(&path).await.refused(404, "request.not_found"));
}

#[tokio::test]
async fn roles_may_what_they_may_and_no_more() {
    let server = server().await;
    let owner = server.owner().await;
    let owner_id = owner.client.get("/v1/whoami").await.expect(200).text("sub");
    let admin = server.user(&owner, "admin", "ada@acme.example").await.client;
    let member = server.user(&owner, "member", "mem@acme.example").await.client;
    let auditor = server.user(&owner, "auditor", "aud@acme.example").await.client;
    let new = |role: &str| json!({ "email": "n@acme.example", "name": "N", "role": role, "password": passphrase("n") });

    for client in [&member, &auditor] {
        drop(client.post("/v1/users", new("member")).await.refused(403, "access.denied"));
        drop(client.patch("/v1/tenant", json!({ "name": "Mine" })).await.refused(403, "access.denied"));
        drop(client.get("/v1/tenant").await.expect(200));
    }
    drop(member.get("/v1/users").await.refused(403, "access.denied"));
    drop(member.get("/v1/audit").await.refused(403, "access.denied"));
    drop(auditor.get("/v1/users").await.expect(200));
    drop(auditor.get("/v1/audit").await.expect(200));
    drop(admin.post("/v1/users", new("owner")).await.refused(403, "access.rank_too_low"));
    drop(admin.delete(&format!("/v1/users/{owner_id}")).await.refused(403, "access.rank_too_low"));
    drop(admin.patch(&format!("/v1/users/{owner_id}"), json!({ "role": "member" })).await.expect(403));
    drop(admin.patch("/v1/tenant", json!({ "name": "Mine" })).await.refused(403, "access.denied"));
    drop(owner.client.patch("/v1/tenant", json!({ "name": "Acme & Söhne" })).await.expect(200));
    assert_eq!(owner.client.get("/v1/tenant").await.expect(200).text("name"), "Acme & Söhne");
}

#[tokio::test]
async fn a_tenant_keeps_an_owner() {
    let server = server().await;
    let owner = server.owner().await.client;
    let path = format!("/v1/users/{}", owner.get("/v1/whoami").await.expect(200).text("sub"));
    drop(owner.delete(&path).await.refused(409, "access.last_owner"));
    drop(owner.patch(&path, json!({ "role": "member" })).await.refused(409, "access.last_owner"));
    drop(owner.patch(&path, json!({ "status": "disabled" })).await.refused(409, "access.last_owner"));
}

#[tokio::test]
async fn another_tenants_user_looks_like_one_that_never_was() {
    let server = server().await;
    let (acme, globex) = (server.owner().await.client, server.signup("globex").await.client);
    let foreign = globex.get("/v1/whoami").await.expect(200).text("sub");
    let never = "usr_0190a0a0a0a07000800000000000dead";
    let shape = |answer: bartizan_testkit::Answer| {
        let mut problem = answer.refused(404, "request.not_found").json();
        problem.as_object_mut().unwrap().remove("instance");
        problem
    };
    let paths = [format!("/v1/users/{foreign}"), format!("/v1/users/{never}"), "/v1/users/nonsense".to_owned()];
    let mut seen = Vec::new();
    for path in &paths {
        seen.push(shape(acme.get(path).await));
        seen.push(shape(acme.delete(path).await));
        seen.push(shape(acme.patch(path, json!({ "name": "Taken" })).await));
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
    assert_eq!(globex.get("/v1/me").await.expect(200).text("name"), "Olive Owner");
}

#[tokio::test]
async fn the_same_email_may_live_in_two_tenants() {
    let server = server().await;
    for tenant in ["one-tenant", "two-tenant"] {
        let body =
            json!({ "tenant": tenant, "name": "Sam", "email": "sam@same.example", "password": passphrase(tenant) });
        drop(server.client().post("/v1/signup", body).await.expect(201));
    }
    let swapped = json!({ "tenant": "two-tenant", "email": "sam@same.example", "password": passphrase("one-tenant") });
    drop(server.client().post("/v1/login", swapped).await.refused(401, "auth.login_failed"));
}

#[tokio::test]
async fn users_page_by_cursor_without_gap_or_repetition() {
    let server = server().await;
    let owner = server.owner().await;
    for n in 0..5 {
        let email = format!("u{n}@acme.example");
        let body = json!({ "email": email, "name": "U", "role": "member", "password": passphrase(&email) });
        drop(owner.client.post("/v1/users", body).await.expect(201));
    }
    let (mut seen, mut path, mut pages) = (Vec::new(), "/v1/users?limit=2".to_owned(), 0);
    loop {
        let page = owner.client.get(&path).await.expect(200);
        assert!(page.items().len() <= 2);
        seen.extend(page.items().iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        pages += 1;
        assert!(pages < 20, "the pages never end");
        match page.json()["next"].as_str() {
            Some(cursor) => path = format!("/v1/users?limit=2&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);
}

#[tokio::test]
async fn weak_passwords_are_refused_with_the_reason() {
    let server = server().await;
    let owner = server.owner().await.client;
    let weak = ["xkcd", "fourteen-chars", "passwordpassword", "aaaaaaaaaaaaaaaaaaaa", "123456789012345"];
    for password in weak {
        let body = json!({ "email": "w@acme.example", "name": "W", "role": "member", "password": password });
        let answer = owner.post("/v1/users", body).await.problem(422);
        assert!(!String::from_utf8_lossy(&answer.body).contains(password), "the password is echoed");
        assert_eq!(answer.text("/errors/0/pointer"), "/password");
    }
    // Spaces, other scripts and the full length are welcome.
    let long: String = (100..).flat_map(|n: u32| format!("{n:x}-").into_bytes()).map(char::from).take(257).collect();
    for (n, password) in ["four words and spaces", "пароль из многих слов", &long[..256]].iter().enumerate()
    {
        let email = format!("strong{n}@acme.example");
        let body = json!({ "email": email, "name": "S", "role": "member", "password": password });
        drop(owner.post("/v1/users", body).await.expect(201));
        drop(server.login(&server.tenant, &email, password).await);
    }
    let body = json!({ "email": "l@acme.example", "name": "L", "role": "member", "password": long });
    drop(owner.post("/v1/users", body).await.problem(422));
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one_and_ends_the_other_sessions() {
    let server = server().await;
    let (here, there) = (server.owner().await, server.owner().await);
    let current = server.password.clone().unwrap();
    let wrong = json!({ "current": passphrase("wrong"), "new": passphrase("new") });
    drop(here.client.post("/v1/me/password", wrong).await.refused(403, "auth.password_wrong"));
    let right = json!({ "current": current, "new": passphrase("new") });
    drop(here.client.post("/v1/me/password", right).await.expect(204));
    drop(here.client.get("/v1/whoami").await.expect(200));
    drop(there.client.get("/v1/whoami").await.expect(401));
    drop(server.client().post("/v1/token/refresh", json!({ "refresh_token": there.refresh })).await.expect(401));
    let old = json!({ "tenant": server.tenant, "email": server.email, "password": current });
    drop(server.client().post("/v1/login", old).await.refused(401, "auth.login_failed"));
    drop(server.login(&server.tenant, &server.email, &passphrase("new")).await);
}

#[tokio::test]
async fn personal_data_is_not_readable_on_the_disk() {
    let server = server().await;
    let owner = server.signup("globex").await;
    drop(owner.client.get("/v1/me").await.expect(200));
    let mut searched = 0;
    for file in crate::secrets::files(&server.home().dir()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        searched += bytes.len();
        for secret in ["owner@globex.example", "Olive Owner", &passphrase("globex"), &owner.access, &owner.refresh] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret:?} stands readable in {}", file.display());
        }
    }
    assert!(searched > 10_000, "the database was not among the files");
}

#[tokio::test]
async fn personal_data_is_not_readable_on_the_servers_disks() {
    let postgres = PostgresServer::start();
    // Whatever was ever written to Redis is in its log of writes, and what is there now in its dump.
    let plain = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--rdbcompression", "no"];
    let redis = RedisServer::with(&plain).await;
    let launch = launch().database(&postgres).set("STATE__URL", &redis.url()).set("STATE__TIMEOUT", "2s");
    let server = launch.set("REVOCATION__MODE", "strict").start().await;

    let owner = server.signup("globex").await;
    let user =
        json!({ "email": "uma@globex.example", "name": "Uma User", "role": "member", "password": passphrase("uma") });
    let once = owner.client.with("idempotency-key", "the-only-time");
    let made = once.post("/v1/users", user).await.expect(201);
    let path = format!("/v1/users/{}", made.text("id"));
    drop(owner.client.patch(&path, json!({ "name": "Úrsula User" })).await.expect(200));
    let wrong = json!({ "tenant": "globex", "email": "uma@globex.example", "password": passphrase("wrong") });
    drop(server.client().post("/v1/login", wrong).await.expect(401));
    let uma = server.login("globex", "uma@globex.example", &passphrase("uma")).await;
    let next = server.client().post("/v1/token/refresh", json!({ "refresh_token": uma.refresh })).await.expect(200);
    drop(uma.client.post("/v1/logout", json!({})).await.expect(204));
    drop(owner.client.get("/v1/users").await.expect(200));

    postgres.sql("bartizan", "CHECKPOINT");
    assert_eq!(redis.cli(&["SAVE"]).await, "OK");
    let refreshed = (next.text("access_token"), next.text("refresh_token"));
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_lowercase();
    let secrets = [
        ["@globex.example", "olive owner", "uma user", "úrsula"].map(str::to_owned).to_vec(),
        ["globex", "uma", "wrong"].map(passphrase).to_vec(),
        [&owner.access, &uma.access, &refreshed.0].map(|token| signature(token)).to_vec(),
        [&owner.refresh, &uma.refresh, &refreshed.1].map(|token| token.to_lowercase()).to_vec(),
    ]
    .concat();
    // What is no secret is found by the same search: the tenant's name, and the prefix of the keys.
    for (place, known) in [(postgres.socket_dir(), "globex"), (redis.dir(), "bz:")] {
        let mut files_with_known = 0;
        for file in crate::secrets::files(place) {
            let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).to_lowercase();
            files_with_known += usize::from(text.contains(known));
            for secret in &secrets {
                assert!(!text.contains(secret), "{secret:?} stands readable in {}", file.display());
            }
        }
        // The table and PostgreSQL's log of writes; the dump and Redis' log of writes.
        assert!(files_with_known >= 2, "{known:?} in {files_with_known} files of {}", place.display());
    }
}
