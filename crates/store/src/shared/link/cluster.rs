//! Keeps a wire to each primary of a cluster, and the map of who holds which slot.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::task::JoinSet;

use super::Core;
use super::address::{Kind, Server, parse_server};
use super::connector::answered;
use super::error::{Door, Unavailable};
use super::info::no_cluster;
use super::routes::{Owners, Routes, SLOTS};
use super::standing::Pause;
use super::wire::Wire;

/// How often the map is read while all is well.
const INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two readings, however many calls are redirected.
const BREATH: Duration = Duration::from_millis(10);
/// How often to look while something is missing.
const RESTLESS: Duration = Duration::from_millis(100);
/// How long one node may take to tell the map.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a server that a call was redirected to is kept although the map does not name it: a new primary has no
/// slot until the first has moved there completely.
const WANTED: Duration = Duration::from_secs(60);

/// What one node knows about the cluster.
struct Map {
    owners: Owners,
    /// All nodes, replicas too: whom to ask when no primary answers.
    nodes: Vec<Server>,
}

struct Keeper {
    core: Arc<Core>,
    wires: HashMap<Server, Arc<Wire>>,
    opening: JoinSet<(Server, Result<Arc<Wire>, Unavailable>)>,
    /// For each server being connected to or waited for: its pause, and when it may be tried again (`None`: now being
    /// connected to).
    trying: HashMap<Server, (Pause, Option<Instant>)>,
    wanted: HashMap<Server, Instant>,
    nodes: Vec<Server>,
    map: Option<Map>,
    why: Unavailable,
}

/// Runs as long as the link.
pub(super) async fn keep(core: Arc<Core>) {
    let why = Unavailable::Disconnected("no node of the cluster answers".into());
    let mut keeper = Keeper {
        wires: HashMap::new(),
        opening: JoinSet::new(),
        trying: HashMap::new(),
        wanted: HashMap::new(),
        nodes: core.address.servers().to_vec(),
        map: None,
        why,
        core,
    };
    loop {
        keeper.read().await;
        keeper.connect();
        keeper.publish();
        let pause = if keeper.core.routes.load().missing().is_some() { RESTLESS } else { INTERVAL };
        keeper.wait(pause).await;
        tokio::time::sleep(BREATH).await;
    }
}

impl Keeper {
    /// Reads the map from a primary that is connected, otherwise from whichever node answers first. A server whose
    /// wire ended is not among those asked first, so one that was paused is not asked what it missed.
    async fn read(&mut self) {
        self.wires.retain(|_, wire| wire.over().is_none());
        let asked: FuturesUnordered<_> = self.wires.values().map(|wire| told(wire)).collect();
        let found = first(asked).await;
        let found = match found {
            Ok(map) => Ok(map),
            Err(_) => {
                let core = &self.core;
                first(self.nodes.iter().map(|node| inquire(core, node)).collect::<FuturesUnordered<_>>()).await
            }
        };
        match found {
            Ok(map) => {
                self.nodes = self.core.address.servers().to_vec();
                self.nodes.extend(map.nodes.iter().filter(|node| !self.core.address.servers().contains(node)).cloned());
                self.map = Some(map);
            }
            Err(why) => self.why = why,
        }
    }

    /// Begins to connect to each primary without a wire, and drops wires to servers that are none any more.
    fn connect(&mut self) {
        let now = Instant::now();
        let wanted = std::mem::take(&mut *self.core.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        self.wanted.extend(wanted.into_iter().map(|server| (server, now + WANTED)));
        self.wanted.retain(|_, until| *until > now);
        let owners = self.map.iter().flat_map(|map| &map.owners.servers);
        let needed: Vec<Server> = owners.chain(self.wanted.keys()).cloned().collect();
        self.wires.retain(|server, _| needed.contains(server));
        self.trying.retain(|server, (_, at)| at.is_none() || needed.contains(server));
        for server in needed {
            if self.wires.contains_key(&server) {
                continue;
            }
            let (_, at) = self.trying.entry(server.clone()).or_insert_with(|| (Pause::default(), Some(now)));
            if at.is_some_and(|at| at <= now) {
                *at = None;
                let core = Arc::clone(&self.core);
                self.opening.spawn(async move {
                    let wire = Wire::open(&core, &server, Kind::Cluster).await;
                    (server, wire)
                });
            }
        }
    }

    fn publish(&self) {
        let why = &self.why;
        self.core.publish(match &self.map {
            Some(map) => Routes::spread(self.wires.values().cloned().collect(), map.owners.clone(), why),
            None => Routes::none(why.clone()),
        });
    }

    /// Waits for a reason to read the map again; new wires are put to use at once.
    async fn wait(&mut self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        loop {
            let mut watched: FuturesUnordered<_> =
                self.wires.values().cloned().map(|wire| async move { wire.watch().await }).collect();
            tokio::select! {
                Some(opened) = self.opening.join_next() => {
                    self.opened(opened);
                    self.publish();
                }
                Some(why) = watched.next() => {
                    self.why = why;
                    return;
                }
                () = self.core.nudge.notified() => return,
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    fn opened(&mut self, opened: Result<(Server, Result<Arc<Wire>, Unavailable>), tokio::task::JoinError>) {
        let Ok((server, outcome)) = opened else { return };
        match outcome {
            Ok(wire) => {
                self.trying.remove(&server);
                self.wires.insert(server, wire);
            }
            Err(why) => {
                self.why = why;
                if let Some((pause, at)) = self.trying.get_mut(&server) {
                    *at = Some(Instant::now() + pause.next(Duration::ZERO));
                }
            }
        }
    }
}

async fn first(
    mut asked: FuturesUnordered<impl Future<Output = Result<Map, Unavailable>>>,
) -> Result<Map, Unavailable> {
    let mut why = Unavailable::Disconnected("no node of the cluster answers".into());
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(map) => return Ok(map),
            Err(refused) => why = refused,
        }
    }
    Err(why)
}

fn question() -> redis::Cmd {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

async fn told(wire: &Wire) -> Result<Map, Unavailable> {
    let answer =
        tokio::time::timeout(PATIENCE, wire.inquire(&question())).await.map_err(|_| Unavailable::Timeout)??;
    parse(&answer, wire.server())
}

/// Asks a node over a connection of its own.
async fn inquire(core: &Core, node: &Server) -> Result<Map, Unavailable> {
    let connector = core.connector()?;
    let late = |_| Unavailable::Disconnected(format!("{node} does not answer"));
    let answer = async {
        let connection = connector.data(node, || ()).await?;
        let answer = connection.pipe.clone().send_packed_command(&question()).await;
        answered(answer, node, Door::Data).map_err(|failure| match Unavailable::from(failure) {
            Unavailable::Script(_) => no_cluster(node),
            why => why,
        })
    };
    let answer = tokio::time::timeout(connector.within(), answer).await.map_err(late)??;
    parse(&answer, node)
}

/// Reads the answer to `CLUSTER SLOTS` of node `from`: ranges, each `[first, last, [host, port, …], …]` with the primary
/// first. An empty host is the one that was asked; `?` is one that the node does not know.
fn parse(answer: &Value, from: &Server) -> Result<Map, Unavailable> {
    let nonsense = || Unavailable::Disconnected(format!("{from}: not the map of a cluster"));
    let Value::Array(ranges) = answer else { return Err(nonsense()) };
    let mut map = Map { owners: Owners { servers: Vec::new(), slots: vec![None; SLOTS] }, nodes: Vec::new() };
    for range in ranges {
        let Value::Array(parts) = range else { return Err(nonsense()) };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else { return Err(nonsense()) };
        let mut nodes = nodes.iter().map(|node| place(node, from));
        let Some(owner) = nodes.next().flatten() else { continue };
        map.nodes.extend(nodes.flatten());
        map.nodes.push(owner.clone());
        let known = map.owners.servers.iter().position(|server| *server == owner);
        let nth = known.unwrap_or_else(|| {
            map.owners.servers.push(owner);
            map.owners.servers.len() - 1
        });
        let (first, last) = (usize::try_from(*first), usize::try_from(*last));
        let (Ok(first), Ok(last), Ok(nth)) = (first, last, u16::try_from(nth)) else { return Err(nonsense()) };
        map.owners.slots.get_mut(first..=last).ok_or_else(nonsense)?.fill(Some(nth));
    }
    if map.owners.servers.is_empty() {
        return Err(Unavailable::Disconnected(format!("{from}: no slot of the cluster has an owner")));
    }
    Ok(map)
}

fn place(node: &Value, from: &Server) -> Option<Server> {
    let Value::Array(parts) = node else { return None };
    let [host, Value::Int(port), ..] = parts.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) => host.clone(),
        Value::Nil => String::new(),
        _ => return None,
    };
    let host = if host.is_empty() { from.host.clone() } else { host };
    let server = Server { host, port: u16::try_from(*port).ok()? };
    parse_server(&server.to_string(), 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString("id".into())])
    }

    #[test]
    fn a_map_names_owners_replicas_and_the_node_itself() {
        let from = Server { host: "10.0.0.1".into(), port: 7000 };
        let answer = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(99), node("", 7000), node("10.0.0.2", 7001)]),
            Value::Array(vec![Value::Int(100), Value::Int(16_383), node("::1", 7002), node("?", 7003)]),
            Value::Array(vec![Value::Int(5), Value::Int(6), node("?", 7009)]),
        ]);
        let map = parse(&answer, &from).unwrap();
        assert_eq!(map.owners.servers, [from.clone(), Server { host: "::1".into(), port: 7002 }]);
        assert_eq!((map.owners.slots[99], map.owners.slots[100]), (Some(0), Some(1)));
        assert_eq!(map.nodes.len(), 3);
        let beyond = Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(16_384), node("h", 1)])]);
        assert!(parse(&beyond, &from).is_err());
        assert!(parse(&Value::Array(Vec::new()), &from).is_err());
    }
}
