//! The audit trail: one row for each thing done, nothing personal in it, nobody else's.

use bartizan_testkit::{Client, passphrase};
use serde_json::{Value, json};

use crate::server;

/// All rows, oldest page first as the server gives them.
async fn rows(client: &Client, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/audit?limit=100{query}{cursor}")).await.expect(200);
        all.extend(page.items());
        match page.json()["next"].as_str() {
            Some(next) if !page.items().is_empty() => cursor = format!("&after={next}"),
            _ => return all,
        }
        assert!(all.len() < 10_000, "the pages never end");
    }
}

async fn count(client: &Client, action: &str) -> usize {
    rows(client, &format!("&action={action}")).await.len()
}

#[tokio::test]
async fn each_thing_done_leaves_exactly_one_row_of_its_name() {
    let server = server().await;
    let owner = server.owner().await;
    let steps: &[(&str, &str)] = &[
        ("user.created", "POST /v1/users"),
        ("user.updated", "name"),
        ("user.role_changed", "role"),
        ("user.disabled", "disable"),
        ("user.enabled", "enable"),
        ("login.succeeded", "login"),
        ("login.failed", "wrong"),
        ("token.refreshed", "refresh"),
        ("session.logged_out", "logout"),
        ("user.deleted", "delete"),
        ("tenant.updated", "tenant"),
        ("access.denied", "denied"),
    ];
    let password = passphrase("bob");
    let new = json!({ "email": "bob@acme.example", "name": "Bob", "role": "member", "password": password });
    let login = json!({ "tenant": server.tenant, "email": "bob@acme.example", "password": password });
    let (mut path, mut bob) = (String::new(), None);
    for (action, step) in steps {
        let before = count(&owner.client, action).await;
        match *step {
            "name" => drop(owner.client.patch(&path, json!({ "name": "Robert" })).await.expect(200)),
            "role" => drop(owner.client.patch(&path, json!({ "role": "auditor" })).await.expect(200)),
            "disable" => drop(owner.client.patch(&path, json!({ "status": "disabled" })).await.expect(200)),
            "enable" => drop(owner.client.patch(&path, json!({ "status": "active" })).await.expect(200)),
            "login" => bob = Some(server.login(&server.tenant, "bob@acme.example", &password).await),
            "wrong" => {
                let mut wrong = login.clone();
                wrong["password"] = passphrase("wrong").into();
                drop(server.client().post("/v1/login", wrong).await.expect(401));
            }
            "refresh" => {
                let refresh = json!({ "refresh_token": bob.as_ref().unwrap().refresh });
                drop(server.client().post("/v1/token/refresh", refresh).await.expect(200));
            }
            "logout" => drop(bob.as_ref().unwrap().client.post("/v1/logout", json!({})).await.expect(204)),
            "delete" => drop(owner.client.delete(&path).await.expect(204)),
            "tenant" => drop(owner.client.patch("/v1/tenant", json!({ "name": "Acme Two" })).await.expect(200)),
            "denied" => {
                let member = server.user(&owner, "member", "mem@acme.example").await.client;
                drop(member.get("/v1/users").await.expect(403));
            }
            _ => {
                let made = owner.client.post("/v1/users", new.clone()).await.expect(201);
                path = format!("/v1/users/{}", made.text("id"));
            }
        }
        // A refusal is written beside the answer, not before it: wait for it, with a bound on the number of looks.
        let mut looks = 0;
        while count(&owner.client, action).await == before && looks < 200 {
            looks += 1;
        }
        assert_eq!(count(&owner.client, action).await, before + 1, "{action}");
    }
}

#[tokio::test]
async fn a_row_says_who_what_when_and_from_where() {
    let server = server().await;
    let owner = server.owner().await;
    let who = owner.client.get("/v1/whoami").await.expect(200);
    let row = rows(&owner.client, "&action=login.succeeded").await.pop().expect("a login");
    let text = row.to_string();
    for part in
        [who.text("sub"), who.text("session"), "login.succeeded".to_owned(), "127.0.0.1".to_owned(), "req_".to_owned()]
    {
        assert!(text.contains(&part), "no {part} in {row:#}");
    }
    assert!(row["id"].as_str().unwrap().starts_with("evt_"));
    assert!(row["at"].as_str().unwrap().ends_with('Z'), "{row:#}");
}

#[tokio::test]
async fn nothing_personal_and_no_secret_is_in_it() {
    let server = server().await;
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let text = Value::Array(rows(&owner.client, "").await).to_string();
    let secrets = ["mem@acme.example", "Uma User", &passphrase("member"), &member.access, &member.refresh];
    for secret in secrets.into_iter().chain([server.email.as_str(), server.password.as_deref().unwrap()]) {
        assert!(!text.contains(secret), "{secret} is in the trail");
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_rows_only() {
    let server = server().await;
    let (acme, globex) = (server.owner().await.client, server.signup("globex").await.client);
    let tenant = acme.get("/v1/whoami").await.expect(200).text("tenant");
    let other = globex.get("/v1/whoami").await.expect(200).text("tenant");
    assert!(!Value::Array(rows(&globex, "").await).to_string().contains(&tenant));
    assert!(!Value::Array(rows(&acme, "").await).to_string().contains(&other));
}

#[tokio::test]
async fn it_can_be_searched_and_paged() {
    let server = server().await;
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let id = member.client.get("/v1/whoami").await.expect(200).text("sub");
    let mine = rows(&owner.client, &format!("&actor={id}")).await;
    assert!(!mine.is_empty() && mine.iter().all(|row| row.to_string().contains(&id)));
    let (one, all) = (owner.client.get("/v1/audit?limit=1").await.expect(200), rows(&owner.client, "").await);
    assert_eq!(one.items().len(), 1);
    let mut ids: Vec<String> = all.iter().map(|row| row["id"].to_string()).collect();
    let length = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), length, "a row came twice");
    let answer = owner.client.get("/v1/audit?action=no.such.action").await;
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
}
