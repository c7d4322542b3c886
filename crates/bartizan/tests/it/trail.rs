//! The audit trail, and what may stand neither in it nor anywhere else on the disk.

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::house::{House, Session, all, passphrase};

/// A successful call of each `Write` row, and the one action it must leave. Nothing is left out: see the test.
async fn call(house: &House, owner: &Session, row: &str) -> Vec<&'static str> {
    let victim = |name: &'static str| house.user("acme", owner, "member", name);
    let password = passphrase("acme");
    let again = || house.login("acme", "owner@same.example", &password);
    let send = |path: String, body: Value| {
        let method = Method::from_bytes(row.split(' ').next().unwrap().as_bytes()).unwrap();
        async move {
            let (media, body) =
                if body.is_null() { (None, Vec::new()) } else { (Some("application/json"), body.to_string().into()) };
            owner.caller.send(method, &path, media, body).await
        }
    };
    let same = row.split(' ').next_back().unwrap().to_owned();
    let (answer, action): (_, &[&'static str]) = match row {
        "POST /v1/signup" => {
            let body = json!({ "tenant": "globex", "name": "G", "email": "g@g.example", "password": passphrase("g") });
            // It is the first row of the other tenant's trail.
            (send(same, body).await, &[])
        }
        "POST /v1/login" => {
            let body = json!({ "tenant": "acme", "email": "owner@same.example", "password": passphrase("acme") });
            (send(same, body).await, &["login.succeeded"])
        }
        "POST /v1/token/refresh" => {
            let token = again().await.refresh;
            (send(same, json!({ "refresh_token": token })).await, &["login.succeeded", "token.refreshed"])
        }
        "POST /v1/logout" => {
            let session = again().await;
            (session.caller.post(&same, &json!({})).await, &["login.succeeded", "session.logged_out"])
        }
        "POST /v1/me/password" => {
            let body = json!({ "current": passphrase("acme"), "new": passphrase("acme") });
            (send(same, body).await, &["password.changed"])
        }
        "DELETE /v1/sessions/{id}" => {
            let session = again().await;
            (send(format!("/v1/sessions/{}", session.id), Value::Null).await, &["login.succeeded", "session.revoked"])
        }
        "POST /v1/users" => {
            (send(same, json!({ "email": "u@u.example", "name": "U", "role": "member" })).await, &["user.created"])
        }
        "PATCH /v1/users/{id}" => {
            let user = victim("patched").await.user;
            let all = json!({ "name": "N", "role": "admin", "status": "disabled" });
            let actions = &["user.created", "login.succeeded", "user.updated", "user.role_changed", "user.disabled"];
            (send(format!("/v1/users/{user}"), all).await, actions)
        }
        "DELETE /v1/users/{id}" => {
            let user = victim("deleted").await.user;
            let actions = &["user.created", "login.succeeded", "user.deleted"];
            (send(format!("/v1/users/{user}"), Value::Null).await, actions)
        }
        "PATCH /v1/tenant" => (send(same, json!({ "name": "Acme" })).await, &["tenant.updated"]),
        "POST /oauth/revoke" => {
            let token = again().await.access;
            (house.caller().form(&same, &format!("token={token}")).await, &["login.succeeded", "token.revoked"])
        }
        // Asks and changes nothing, though it is a POST.
        "POST /oauth/introspect" => (owner.caller.form(&same, &format!("token={}", owner.access)).await, &[]),
        other => panic!("{other} is new: say here how it succeeds and what it leaves in the trail"),
    };
    assert!(answer.status.is_success(), "{row}: {answer:?}");
    action.to_vec()
}

#[tokio::test]
async fn every_write_that_succeeds_leaves_its_rows_and_no_others() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let writes: Vec<String> =
        house.engine().table().rows().iter().filter(|row| row.csrf.is_some()).map(|row| row.name()).collect();
    assert!(writes.len() >= 12);
    for row in &writes {
        let before = all(&owner.caller, "/v1/audit").await.len();
        let expected = call(&house, &owner, row).await;
        let rows = all(&owner.caller, "/v1/audit").await;
        let added: Vec<_> = rows[before..]
            .iter()
            .map(|row| row["action"].as_str().unwrap())
            .filter(|action| *action != "audit.read")
            .collect();
        assert_eq!(added, expected, "{row}");
    }
    assert_eq!(house.number("SELECT COUNT(*) FROM audit WHERE action = 'tenant.created'").await, 2);
}

#[tokio::test]
async fn every_read_leaves_nothing_but_the_reading_of_the_trail() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let before = house.number("SELECT COUNT(*) FROM audit").await;
    let mut reads = 0;
    for row in house.engine().table().rows().iter().filter(|row| row.csrf.is_none() && row.path != "/v1/audit") {
        drop(owner.caller.get(&row.path.replace("{id}", &owner.user)).await.expect(200));
        reads += 1;
    }
    assert!(reads >= 7);
    assert_eq!(house.number("SELECT COUNT(*) FROM audit").await, before);
    let page = owner.caller.get("/v1/audit?limit=2").await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let last = house.rows::<(String, String)>("SELECT action, details FROM audit ORDER BY seq DESC LIMIT 1").await;
    assert_eq!(last[0], ("audit.read".to_owned(), "{\"rows\":2}".to_owned()));
}

#[tokio::test]
async fn the_operator_reads_the_trail_and_is_written_down_once_for_what_is_new() {
    let house = House::new().await;
    drop(house.tenant("acme").await);
    let readings = async || {
        let sql = "SELECT details FROM audit WHERE action = 'audit.read' AND actor_type = 'operator' ORDER BY seq";
        house.rows::<(String,)>(sql).await.into_iter().map(|(details,)| details).collect::<Vec<_>>()
    };
    let last = async || house.number("SELECT MAX(seq) FROM audit").await.unsigned_abs();
    assert_eq!(house.operator().audit_tail(None, 2).await.unwrap().len(), 2);
    assert_eq!(readings().await, ["{\"rows\":2}"]);
    // Whoever follows sees his own reading, and after that nothing.
    let seen = last().await;
    assert_eq!(house.operator().audit_tail(Some(seen - 1), 10).await.unwrap().len(), 1);
    assert!(house.operator().audit_tail(Some(seen), 10).await.unwrap().is_empty());
    assert_eq!((readings().await.len(), last().await), (1, seen));
    drop(house.login("acme", "owner@same.example", &passphrase("acme")).await);
    assert_eq!(house.operator().audit_tail(Some(seen), 10).await.unwrap().len(), 1);
    assert_eq!(readings().await.len(), 2);
}

#[tokio::test]
async fn what_a_role_may_not_is_refused_on_every_row_and_written_down() {
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    let member = house.user("acme", &owner, "member", "mem").await;
    let mut refused = Vec::new();
    for row in house.engine().table().rows().to_vec() {
        let bartizan::api::Access::Requires { action, roles } = row.access else { continue };
        if roles.contains(&bartizan_core::principal::Role::Member) {
            continue;
        }
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        // The body is no JSON at all: who may not, is not told that.
        let path = row.path.replace("{id}", &owner.user);
        let answer = member.caller.send(method, &path, Some("application/json"), b"{".to_vec()).await;
        drop(answer.refused(403, "access.denied"));
        refused.push(action.to_owned());
    }
    assert!(refused.len() >= 6, "{refused:?}");
    // In good order nothing of it is lost.
    house.stop().await;
    house.start().await.unwrap();
    let rows = all(&owner.caller, "/v1/audit?action=access.denied").await;
    let written: Vec<_> = rows.iter().map(|row| row["details"]["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(written, refused);
    assert!(rows.iter().all(|row| row["actor"]["id"] == member.user.as_str() && row["outcome"] == "denied"));
}

#[tokio::test]
async fn what_the_operator_does_stands_in_the_trail_of_whom_it_concerns() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let hand = house.operator();
    let secret = || bartizan_core::secret::Secret::new(passphrase("op"));
    drop(hand.set_tier("acme", bartizan_core::principal::Tier::Pro).await.unwrap());
    let role = bartizan_core::principal::Role::Member;
    drop(hand.add_user("acme", "op@same.example", "Op", role, secret()).await.unwrap());
    let session = house.login("acme", "op@same.example", &passphrase("op")).await;
    hand.revoke_session("acme", &session.id).await.unwrap();
    drop(hand.disable_user("acme", "op@same.example").await.unwrap());
    drop(hand.set_status("acme", bartizan_store::words::TenantStatus::Suspended).await.unwrap());
    drop(hand.set_status("acme", bartizan_store::words::TenantStatus::Active).await.unwrap());
    let block = hand.add_block("198.51.100.0/24".parse().unwrap(), None, "noise").await.unwrap();
    drop(house.caller().from("198.51.100.9").get("/v1/whoami").await.refused(403, "access.address_blocked"));
    let block = serde_json::to_value(&block).unwrap()["id"].as_str().unwrap().to_owned();
    hand.remove_block(&block).await.unwrap();
    drop(house.caller().from("198.51.100.9").get("/v1/whoami").await.expect(401));
    assert!(hand.remove_block(&block).await.is_err());
    // Of another tenant's session it finds nothing.
    assert!(hand.revoke_session("globex", &acme.id).await.is_err());

    let again = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    let mine = |rows: &[Value]| -> Vec<String> {
        let by_hand = rows.iter().filter(|row| row["actor"]["type"] == "operator");
        by_hand.map(|row| row["action"].as_str().unwrap().to_owned()).collect()
    };
    let done = [
        "tenant.tier_changed",
        "user.created",
        "session.revoked",
        "user.disabled",
        "tenant.suspended",
        "tenant.resumed",
    ];
    assert_eq!(mine(&all(&again.caller, "/v1/audit").await), done);
    assert_eq!(mine(&all(&globex.caller, "/v1/audit").await), Vec::<String>::new());
    let blocks = "SELECT COUNT(*) FROM audit WHERE tenant_id IS NULL AND action IN ('block.added', 'block.removed')";
    assert_eq!(house.number(blocks).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_of_a_tenant_have_no_gaps_however_many_write_at_once() {
    let house = House::new().await;
    let tenants = [house.tenant("acme").await, house.tenant("globex").await];
    let mut writing = JoinSet::new();
    for n in 0..120 {
        let owner = tenants[n % 2].clone();
        let stranger = house.caller();
        writing.spawn(async move {
            match n % 3 {
                0 => drop(owner.caller.patch("/v1/tenant", &json!({ "name": format!("T{n}") })).await.expect(200)),
                1 => drop(stranger.try_login("acme", "owner@same.example", "wrong").await.expect(401)),
                _ => drop(owner.caller.patch(&format!("/v1/users/{}", owner.user), &json!({ "role": "member" })).await),
            }
        });
    }
    drop(writing.join_all().await);
    for owner in &tenants {
        let rows = all(&owner.caller, "/v1/audit").await;
        let numbers: Vec<i64> = rows.iter().map(|row| row["seq"].as_i64().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    }
}

/// Plants a recognisable text in every field a person or client can fill, then looks for each of them, in every common
/// spelling, in every file of the data directory.
#[tokio::test]
async fn nothing_personal_and_no_secret_can_be_read_on_the_disk() {
    let mut house = House::new().await;
    let planted = json!({
        "tenant": "acme", "name": "Zaphod Planted", "email": "zaphod.planted@betelgeuse.example",
        "password": "planted-passphrase-forty-two"
    });
    drop(house.caller().once("planted-key-4711").post("/v1/signup", &planted).await.expect(201));
    let browser = house.caller().with("user-agent", "PlantedBrowser/4.2").from("203.0.113.200");
    let answer = browser.try_login("acme", "zaphod.planted@betelgeuse.example", "planted-passphrase-forty-two").await;
    let (access, refresh) = (answer.text("/access_token"), answer.text("/refresh_token"));
    let device = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    let device = device.split(['=', ';']).nth(1).unwrap().to_owned();
    let owner = browser.clone().bearer(&access);
    drop(owner.patch("/v1/tenant", &json!({ "name": "Planted Industries" })).await.expect(200));
    let new = json!({ "email": "trillian.planted@earth.example", "name": "Trillian Planted", "role": "member" });
    let made =
        owner.clone().once("planted-key-4712").post("/v1/users", &new).await.expect(201).text("/one_time_password");
    let renewed = browser.refresh(&refresh).await.expect(200);
    drop(browser.try_login("acme", "ford.planted@betelgeuse.example", "planted-wrong-password").await.expect(401));
    drop(owner.get("/v1/audit").await.expect(200));
    let secrets = [
        "Zaphod Planted",
        "zaphod.planted@betelgeuse.example",
        "zaphod.planted",
        "planted-passphrase-forty-two",
        "PlantedBrowser/4.2",
        "Planted Industries",
        "trillian.planted@earth.example",
        "Trillian Planted",
        "ford.planted@betelgeuse.example",
        "planted-wrong-password",
        "planted-key-4711",
        "planted-key-4712",
        access.as_str(),
        refresh.as_str(),
        &device,
        &made,
        &renewed.text("/access_token"),
        &renewed.text("/refresh_token"),
    ];
    let audit = house.rows::<(String, String)>("SELECT targets, details FROM audit").await;
    assert!(audit.len() >= 8);
    // While it runs (write-ahead log), and after a stop in good order (the file and the counters).
    for round in 0..2 {
        if round == 1 {
            house.stop().await;
            assert!(house.settings.data.join("limits.snapshot").exists());
        }
        let (mut searched, mut control) = (0, false);
        for entry in std::fs::read_dir(&house.settings.data).unwrap() {
            let path = entry.unwrap().path();
            let bytes = letters(&std::fs::read(&path).unwrap());
            searched += bytes.len();
            control |= bytes.contains("acme");
            for secret in secrets {
                for form in forms(secret) {
                    assert!(!bytes.contains(&form), "{secret:?} can be read in {}", path.display());
                }
            }
        }
        // The tenant's short name is public: it is found, so the search is one.
        assert!(searched > 50_000 && control, "{searched} bytes");
    }
}

/// Bytes as characters of one letter case, since texts can be searched fast.
fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// A text as it is, in UTF-16, in hexadecimal, in base64 (at each of three offsets, less its ragged ends).
fn forms(text: &str) -> Vec<String> {
    use base64::Engine as _;
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut forms = vec![letters(text.as_bytes()), letters(&wide), hex::encode(text)];
    for pad in 0..3 {
        let padded = [&b"   "[..pad], text.as_bytes()].concat();
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(padded);
        forms.push(letters(&encoded.as_bytes()[4..encoded.len() - 4]));
    }
    forms
}
