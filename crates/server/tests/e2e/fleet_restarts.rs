//! Nodes come and go.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bartizan_testkit::{Client, Fleet};
use http::Method;
use tokio::sync::watch;

use crate::fleet;

fn addresses(fleet: &Fleet) -> Vec<String> {
    fleet.nodes.iter().map(|node| node.server.api.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_all_nodes_one_after_another_fails_no_request() {
    let mut fleet = fleet().start(2).await;
    let session = fleet.on(0).owner().await;
    // What a load balancer knows.
    let known = Arc::new(RwLock::new(addresses(&fleet)));
    let (stop, stopped) = watch::channel(false);
    let mut running = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (known, stopped, access) = (Arc::clone(&known), stopped.clone(), session.access.clone());
        running.spawn(async move {
            let mut clients: Vec<Client> = Vec::new();
            let mut answered = 0;
            for turn in worker.. {
                if *stopped.borrow() {
                    break;
                }
                let all = known.read().unwrap().clone();
                // Connections are kept from one request to the next, as a load balancer does.
                for base in &all {
                    if !clients.iter().any(|client| client.base() == base) {
                        clients.push(Client::new(base).bearer(&access));
                    }
                }
                let ask = async |nth: usize| {
                    let client = clients.iter().find(|client| client.base() == all[nth % all.len()]).unwrap();
                    client.try_send(Method::GET, "/v1/whoami", None, "").await
                };
                let answer = match ask(turn).await {
                    Ok(answer) => answer,
                    Err(_) => ask(turn + 1).await.expect("one of two nodes"),
                };
                drop(answer.expect(200));
                answered += 1;
            }
            answered
        });
    }
    for node in 0..2 {
        // Told to stop under requests; the balancer hears of it a moment later. It has to before the port is free, which
        // another program may then take.
        fleet.nodes[node].server.sigterm();
        let gone = fleet.on(node).api.clone();
        known.write().unwrap().retain(|base| *base != gone);
        assert_eq!(fleet.nodes[node].server.ended().await, Some(0), "{}", fleet.on(node).log());
        fleet.restart(node).await;
        *known.write().unwrap() = addresses(&fleet);
        fleet.know_each_other().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send_replace(true);
    let answered: Vec<usize> = running.join_all().await;
    assert!(answered.iter().all(|count| *count > 20), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_node_is_good_on_the_other() {
    let fleet = fleet().start(2).await;
    let mut keys = Vec::new();
    for (here, there) in [(0, 1), (1, 0)] {
        let session = fleet.on(here).owner().await;
        drop(fleet.on(there).client().bearer(&session.access).get("/v1/whoami").await.expect(200));
        keys.push(fleet.on(here).client().get("/.well-known/jwks.json").await.expect(200).json());
    }
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_started_at_once_on_an_empty_database_make_one_schema_and_one_signing_key() {
    let fleet = fleet().start_at_once(3).await;
    assert_eq!(fleet.sql("SELECT count(*) FROM tenants"), "1");
    let mut keys = Vec::new();
    for node in &fleet.nodes {
        keys.push(node.server.client().get("/.well-known/jwks.json").await.expect(200).json());
    }
    assert!(keys.iter().all(|one| *one == keys[0]), "{keys:?}");
    assert_eq!(fleet.sql("SELECT count(*) FROM signing_keys WHERE state = 'active'"), "1");
    let session = fleet.on(0).owner().await;
    for node in &fleet.nodes {
        drop(node.server.client().bearer(&session.access).get("/v1/whoami").await.expect(200));
    }
}
