//! How many places of the pool one network holds, so that a flood from it leaves room for everybody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bartizan_core::net::Prefix;

/// What each network holds. As many entries as there are places in use, at most twice.
#[derive(Debug)]
pub(super) struct Shares {
    held: Mutex<HashMap<Prefix, usize>>,
    /// For an IPv4 address and an IPv6 /64.
    narrow: usize,
    /// For an IPv6 /48, which is one customer or some hundreds of them.
    wide: usize,
}

/// One place of a network's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    prefixes: [Option<Prefix>; 2],
}

impl Shares {
    /// An eighth of `places` for each network, a quarter for each wide one; at least one.
    pub(super) fn of(places: usize) -> Self {
        Self { held: Mutex::default(), narrow: (places / 8).max(1), wide: (places / 4).max(1) }
    }

    /// A place for the client at `ip`, or `None` when its network holds its share.
    pub(super) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Share> {
        let prefixes = [Some(Prefix::narrow(ip)), Prefix::wide(ip)];
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |prefix: &Option<Prefix>| prefix.and_then(|prefix| held.get(&prefix)).copied().unwrap_or_default();
        let [narrow, wide] = &prefixes;
        if taken(narrow) >= self.narrow || taken(wide) >= self.wide {
            return None;
        }
        for prefix in prefixes.iter().flatten() {
            *held.entry(*prefix).or_default() += 1;
        }
        Some(Share { shares: Arc::clone(self), prefixes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock().unwrap_or_else(PoisonError::into_inner);
        for prefix in self.prefixes.iter().flatten() {
            if let Some(count) = held.get_mut(prefix) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    held.remove(prefix);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gets_its_share_and_no_more_and_gives_it_back() {
        let shares = Arc::new(Shares::of(32));
        let take = |ip: &str| shares.take(ip.parse().unwrap());
        let held: Vec<_> = (0..4).map(|_| take("192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none());
        assert!(take("::ffff:192.0.2.1").is_none(), "another spelling of the address");
        assert!(take("192.0.2.2").is_some());
        drop(held);
        assert!(take("192.0.2.1").is_some());
        assert!(shares.held.lock().unwrap().is_empty());
    }

    #[test]
    fn networks_of_one_48_share_a_quarter() {
        let shares = Arc::new(Shares::of(32));
        let networks: Vec<_> = (0..16).map(|n| format!("2001:db8:7:{n}::1").parse().unwrap()).collect();
        let held: Vec<_> = networks.iter().filter_map(|ip| shares.take(*ip)).collect();
        assert_eq!(held.len(), 8);
        assert!(shares.take("2001:db8:8::1".parse().unwrap()).is_some());
    }

    #[test]
    fn a_small_pool_has_one_place_for_each() {
        let shares = Arc::new(Shares::of(1));
        let held = shares.take("2001:db8::1".parse().unwrap()).unwrap();
        assert!(shares.take("2001:db8::2".parse().unwrap()).is_none());
        drop(held);
    }
}
