//! Random operations on three nodes while faults come and go, and a checker over what was answered.
//!
//! The history keeps, for every credential, when its end was acknowledged and every time it was let in. Whatever order
//! things happened in: nobody is let in by a request that began after the acknowledgement (strict) or after the bound
//! (replicated); a refresh token has one successor; and nothing is answered but what is documented.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bartizan_testkit::{Client, Fleet, until};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fleet;

const BOUND: Duration = Duration::from_secs(1);

/// What became of one session.
#[derive(Debug, Default)]
struct Story {
    /// Every access token it was given, oldest first.
    access: Vec<String>,
    refresh: String,
    /// The successors that were answered for each refresh token.
    successors: HashMap<String, Vec<String>>,
    /// When the first 2xx of its end arrived.
    ended: Option<Instant>,
    /// When the last request that was let in began.
    let_in: Option<Instant>,
}

type History = Arc<Mutex<Vec<Story>>>;

/// Random numbers of a test that can be run again: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % most
    }
}

/// One who acts at random, on nodes at random, until told to stop. Says how many of his requests were answered.
async fn act(
    mut dice: Dice,
    clients: Vec<Client>,
    login: Value,
    history: History,
    stopped: watch::Receiver<bool>,
) -> u32 {
    let mut answered = 0;
    while !*stopped.borrow() {
        let client = &clients[dice.below(clients.len())];
        let post = async |client: &Client, path: &str, body: Value| {
            client.try_send(Method::POST, path, Some("application/json"), body.to_string()).await
        };
        let sessions = history.lock().unwrap().len();
        let pick = dice.below(sessions.max(1));
        let dealt = dice.below(20);
        let Some((access, refresh)) = history
            .lock()
            .unwrap()
            .get(pick)
            .map(|story| (story.access[dice.below(story.access.len())].clone(), story.refresh.clone()))
        else {
            log_in(post(client, "/v1/login", login.clone()).await, &history);
            continue;
        };
        let began = Instant::now();
        let bearer = client.bearer(&access);
        let answer = match dealt {
            0 => {
                log_in(post(client, "/v1/login", login.clone()).await, &history);
                continue;
            }
            1 => post(&bearer, "/v1/logout", json!({})).await,
            2 | 3 => post(client, "/v1/token/refresh", json!({ "refresh_token": refresh })).await,
            _ => bearer.try_get("/v1/whoami").await,
        };
        // A node that was killed answers nothing; that says nothing.
        let Ok(answer) = answer else { continue };
        answered += 1;
        assert!(matches!(answer.status, 200 | 204 | 401 | 503), "{}", String::from_utf8_lossy(&answer.body));
        assert!(answer.status != 503 || !answer.header("retry-after").is_empty(), "503 without Retry-After");
        let mut stories = history.lock().unwrap();
        let story = &mut stories[pick];
        match (dealt, answer.status) {
            (1, 204) => story.ended = Some(story.ended.unwrap_or_else(Instant::now)),
            (2 | 3, 200) => {
                let next = answer.text("refresh_token");
                story.access.push(answer.text("access_token"));
                story.refresh.clone_from(&next);
                let known = story.successors.entry(refresh).or_default();
                if !known.contains(&next) {
                    known.push(next);
                }
                story.let_in = story.let_in.max(Some(began));
            }
            (4.., 200) => story.let_in = story.let_in.max(Some(began)),
            _ => {}
        }
    }
    answered
}

fn log_in(answer: Result<bartizan_testkit::Answer, String>, history: &History) {
    if let Ok(answer) = answer
        && answer.status == 200
    {
        let (access, refresh) = (vec![answer.text("access_token")], answer.text("refresh_token"));
        history.lock().unwrap().push(Story { access, refresh, ..Story::default() });
    }
}

/// One fault after another, each taken back.
async fn harm(fleet: &mut Fleet, dice: &mut Dice, rounds: usize) {
    for _ in 0..rounds {
        let node = dice.below(3);
        let long = Duration::from_millis(200 + 100 * dice.below(15) as u64);
        match dice.below(6) {
            0 => {
                fleet.redis().pause();
                tokio::time::sleep(long).await;
                fleet.redis().resume();
            }
            1 => fleet.redis().restart().await,
            2 => {
                fleet.nodes[node].database.swallow();
                tokio::time::sleep(long).await;
                fleet.nodes[node].database.pass();
            }
            3 => {
                fleet.nodes[node].database.cut();
                fleet.nodes[node].state.as_ref().unwrap().cut();
                tokio::time::sleep(long).await;
                fleet.nodes[node].database.pass();
                fleet.nodes[node].state.as_ref().unwrap().pass();
            }
            4 => {
                fleet.on(node).pause();
                tokio::time::sleep(long).await;
                fleet.on(node).resume();
            }
            _ => drop(fleet.redis().cli(&["FLUSHALL"]).await),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn lived_through(strict: bool, seed: u64) {
    let plan = fleet().set("STATE__TIMEOUT", "150ms");
    let mut fleet = if strict { plan.strict() } else { plan }.start(3).await;
    let history: History = Arc::default();
    let login = json!({ "tenant": fleet.on(0).tenant, "email": fleet.on(0).email, "password": fleet.on(0).password });
    let clients: Vec<Client> = fleet.nodes.iter().map(|node| node.server.client()).collect();
    let (stop, stopped) = watch::channel(false);
    let mut acting = tokio::task::JoinSet::new();
    for actor in 0..6 {
        let dice = Dice(seed ^ (actor << 32));
        acting.spawn(act(dice, clients.clone(), login.clone(), Arc::clone(&history), stopped.clone()));
    }
    harm(&mut fleet, &mut Dice(seed), 12).await;
    for node in &fleet.nodes {
        until("the node is ready again", || async {
            matches!(node.server.ops().try_get("/readyz").await, Ok(answer) if answer.status == 200)
        })
        .await;
    }
    stop.send_replace(true);
    let answered: u32 = acting.join_all().await.into_iter().sum();
    let stories = history.lock().unwrap();
    let ended = stories.iter().filter(|story| story.ended.is_some()).count();
    for story in stories.iter() {
        for successors in story.successors.values() {
            assert_eq!(successors.len(), 1, "seed {seed}: a refresh token with two successors");
        }
        if let (Some(ended), Some(let_in)) = (story.ended, story.let_in) {
            let from = if strict { ended } else { ended + BOUND };
            assert!(let_in < from, "seed {seed}: let in {:?} too late", let_in - from);
        }
    }
    assert!(answered > 200 && ended > 3, "{answered} answers, {ended} sessions ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_lets_an_ended_session_in_past_the_bound() {
    lived_through(false, 0x5eed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_not_even_within_it() {
    lived_through(true, 0x5eed + 1).await;
}
