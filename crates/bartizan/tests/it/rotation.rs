//! Signing keys move along by themselves, and no token that should be accepted is refused on the way.

use std::time::Duration;

use serde_json::Value;

use crate::house::{House, passphrase};

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// The published key ids, once there are as many as wanted: the upkeep's first round comes right after the start.
async fn published(house: &House, wanted: usize) -> Vec<String> {
    let look = async {
        loop {
            let set = house.caller().get("/.well-known/jwks.json").await.expect(200).json();
            let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
            let kids: Vec<String> = set["keys"].as_array().unwrap().iter().map(kid).collect();
            if kids.len() == wanted {
                return kids;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.unwrap()
}

/// The key that signed a token: the `kid` of its header.
fn signer(token: &str) -> String {
    use base64::Engine as _;
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

async fn later(house: &mut House, by: Duration) {
    house.stop().await;
    house.clock.advance(by);
    house.start().await.unwrap();
}

#[tokio::test]
async fn a_signing_key_is_published_then_signs_then_only_verifies_then_goes() {
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    let first = published(&house, 1).await;
    assert_eq!(signer(&owner.access), first[0]);
    // Of age: the next one is published, and does not sign yet.
    later(&mut house, 90 * DAY).await;
    let both = published(&house, 2).await;
    let before = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    assert_eq!(signer(&before.access), first[0]);
    // Published for two max-ages: it signs, and what the old one signed is still accepted.
    house.clock.advance(9 * MINUTE);
    let renewed = house.caller().refresh(&before.refresh).await.expect(200).text("/access_token");
    later(&mut house, MINUTE).await;
    let second = both.iter().find(|kid| **kid != first[0]).unwrap();
    let look = async {
        loop {
            let session = house.login("acme", "owner@same.example", &passphrase("acme")).await;
            if signer(&session.access) == *second {
                return session;
            }
        }
    };
    let after = tokio::time::timeout(Duration::from_secs(20), look).await.unwrap();
    drop(house.caller().bearer(&renewed).get("/v1/whoami").await.expect(200));
    drop(after.caller.get("/v1/whoami").await.expect(200));
    assert_eq!(published(&house, 2).await.len(), 2);
    // When the last token it signed has ended, the old key goes.
    later(&mut house, 16 * MINUTE).await;
    assert_eq!(published(&house, 1).await, std::slice::from_ref(second));
    let moves = house.number("SELECT count(*) FROM audit WHERE action LIKE 'signing_key.%'").await;
    assert_eq!(moves, 4, "created, created, rotated, removed");
}
