//! Slots move between the primaries of a Redis Cluster while nodes use their keys, as an operator's tool moves them when a
//! primary is added or one is too full. It is no outage: nobody decides alone, so nothing excuses a request too many.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bartizan_testkit::{Client, ClusterSet, Fleet, Hot, until};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admissions::{Promise, Span, Troubles, excess};
use crate::fleet;
use crate::fleet::BOUND;

const NODES: usize = 3;
/// What each limited user may.
const LIMIT: Promise = Promise { burst: 30.0, per_second: 20.0, nodes: 3.0 };
/// Tenants whose owners use that up.
const LIMITED: [&str; 3] = ["globex", "initech", "umbrella"];

/// What all who act share.
#[derive(Clone)]
struct World {
    begin: Instant,
    clients: Vec<Client>,
    strict: bool,
    stopped: watch::Receiver<bool>,
    /// For each limited user when he was let in, and how often he was refused.
    admitted: Arc<[Mutex<Vec<Span>>; LIMITED.len()]>,
    refused: Arc<[AtomicUsize; LIMITED.len()]>,
    /// Access tokens whose end was acknowledged.
    ended: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn of(fleet: &Fleet, strict: bool, stopped: watch::Receiver<bool>) -> Self {
        Self {
            begin: Instant::now(),
            clients: fleet.nodes.iter().map(|node| node.server.client()).collect(),
            strict,
            stopped,
            admitted: Arc::default(),
            refused: Arc::default(),
            ended: Arc::default(),
        }
    }

    fn stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    fn client(&self, turn: usize) -> &Client {
        &self.clients[turn % self.clients.len()]
    }

    /// How often each limited user was let in, and how many sessions ended.
    fn count(&self) -> Vec<usize> {
        let admitted = self.admitted.iter().map(|spans| spans.lock().unwrap().len());
        admitted.chain([self.ended.lock().unwrap().len()]).collect()
    }

    /// Waits until each limited user was let in again, and somebody logged out.
    async fn goes_on(&self) {
        let before = self.count();
        until("the load goes on", || async { self.count().iter().zip(&before).all(|(now, before)| now > before) })
            .await;
    }
}

/// Uses a limit up, on one node after another. Nothing but yes and no is an answer.
async fn hit(world: World, who: usize, access: String) {
    for turn in who.. {
        if world.stopped() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        let client = world.client(turn).bearer(&access);
        let began = world.begin.elapsed();
        let answer = client.get("/v1/whoami").await;
        if answer.status == 429 {
            world.refused[who].fetch_add(1, Ordering::SeqCst);
            continue;
        }
        drop(answer.expect(200));
        world.admitted[who].lock().unwrap().push((began, world.begin.elapsed()));
    }
}

/// Logs in on one node, is known on the next, logs out, and is let in nowhere from when it was promised.
async fn come_and_go(world: World, worker: usize, login: Value) {
    for turn in worker.. {
        if world.stopped() {
            return;
        }
        let (here, there) = (world.client(turn), world.client(turn + 1));
        let session = here.post("/v1/login", login.clone()).await.expect(200);
        let access = session.text("access_token");
        let there = there.bearer(&access);
        drop(there.get("/v1/whoami").await.expect(200));
        drop(here.bearer(&access).post("/v1/logout", json!({})).await.expect(204));
        let from = Instant::now() + if world.strict { Duration::ZERO } else { BOUND };
        world.ended.lock().unwrap().push(access);
        loop {
            let began = Instant::now();
            let answer = there.get("/v1/whoami").await;
            if answer.status == 401 {
                break;
            }
            drop(answer.expect(200));
            assert!(began < from, "let in {:?} too late", began - from);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How slots are moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As an operator's tool does it: at once.
    Quick,
    /// While one is open the load goes on, before its keys have moved and after.
    Slow,
}

/// Moves every slot in which there is a key to the next primary, one after another; which they were.
async fn move_all_used(set: &ClusterSet, world: &World, pace: Pace) -> BTreeSet<u16> {
    let mut moved = BTreeSet::new();
    for (slot, from) in set.used_slots().await {
        let to = (from + 1) % 3;
        set.begin_move(slot, from, to).await;
        if pace == Pace::Slow {
            world.goes_on().await;
            set.carry_keys(slot, from, to).await;
            world.goes_on().await;
        }
        set.finish_move(slot, from, to).await;
        assert!(set.keys_in(slot, from).await.is_empty(), "slot {slot} has keys where it was");
        moved.insert(slot);
    }
    moved
}

async fn start(strict: bool) -> Fleet {
    let mut plan = fleet()
        .hot(Hot::Cluster(ClusterSet::start(3, 1).await))
        .set("TOKENS__ACCESS", "15m")
        .set("LIMITS__TIERS__PRO__BURST", "30")
        .set("LIMITS__TIERS__PRO__PER_MINUTE", "1200");
    // The others are not used up, and what was taken comes back so slowly that their keys are there all the time.
    for table in ["ADDRESS__", "TIERS__FREE__", "TIERS__FREE__TENANT_", "TIERS__PRO__TENANT_"] {
        plan = plan.set(&format!("LIMITS__{table}BURST"), "1000000");
        plan = plan.set(&format!("LIMITS__{table}PER_MINUTE"), "600");
    }
    if strict { plan.strict() } else { plan }.start(NODES).await
}

#[allow(clippy::print_stderr, reason = "who looks at a failure wants to know what was tried")]
async fn slots_move_under_load(strict: bool) {
    let fleet = start(strict).await;
    let mut limited = Vec::new();
    for tenant in LIMITED {
        limited.push(fleet.on(0).signup(tenant).await.access);
        drop(fleet.on(0).operate(&["tenant", "set-tier", tenant, "pro"]).await.success());
    }
    let login = json!({ "tenant": fleet.on(0).tenant, "email": fleet.on(0).email, "password": fleet.on(0).password });
    // Every node has heard of the tiers.
    tokio::time::sleep(BOUND).await;
    let (stop, stopped) = watch::channel(false);
    let world = World::of(&fleet, strict, stopped);
    let mut load = JoinSet::new();
    for (who, access) in limited.iter().enumerate() {
        for _ in 0..2 {
            load.spawn(hit(world.clone(), who, access.clone()));
        }
    }
    for worker in 0..2 {
        load.spawn(come_and_go(world.clone(), worker, login.clone()));
    }
    world.goes_on().await;
    let Hot::Cluster(set) = &fleet.hot else { unreachable!() };
    let moved = move_all_used(set, &world, Pace::Slow).await;
    let again = move_all_used(set, &world, Pace::Quick).await;
    world.goes_on().await;
    stop.send_replace(true);
    load.join_all().await;
    eprintln!("{} slots moved, {} of them again; {:?}", moved.len(), moved.intersection(&again).count(), world.count());
    // The buckets of four users, of their tenants and of the address, and the list of the nodes. Two may share a slot.
    assert!(moved.intersection(&again).count() >= 9, "{moved:?} {again:?}");
    if strict {
        let sequence = set.nodes[0].cli(&["CLUSTER", "KEYSLOT", "bz:sequence"]).await.parse().unwrap();
        assert!(moved.contains(&sequence) && again.contains(&sequence));
        // Another primary is another life, whatever it was given.
        let began = fleet.sql("SELECT count(*) FROM audit WHERE action = 'state.life_began'");
        assert!(began.parse::<u32>().unwrap() >= 2, "{began}");
    }
    for (who, spans) in world.admitted.iter().enumerate() {
        let (more, span) = excess(LIMIT, &spans.lock().unwrap(), &Troubles::default());
        assert!(more <= 0.0, "{more} too many for {} in {span:?}", LIMITED[who]);
        assert!(world.refused[who].load(Ordering::SeqCst) > 50, "the limit was not used up");
    }
    let ended = world.ended.lock().unwrap().clone();
    for node in &fleet.nodes {
        for kind in ["decided_locally", "timeouts"] {
            let series = format!("bartizan_state_activity{{kind=\"{kind}\"}}");
            assert_eq!(node.server.metric(&series).await, Some(0.0), "{kind}: {}", node.server.log());
        }
        for access in &ended {
            drop(node.server.client().bearer(access).get("/v1/whoami").await.problem(401));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_under_load_fail_no_request_and_admit_no_more() {
    slots_move_under_load(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_they_bring_no_ended_session_back_either() {
    slots_move_under_load(true).await;
}
