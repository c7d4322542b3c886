//! Networks that are kept out.

use std::net::IpAddr;

use ipnet::IpNet;

use super::prefix::{canonical, canonical_net, span_v4, span_v6};
use crate::id::BlockId;

/// An immutable list of blocked networks. Change it by building a new one.
///
/// A look-up is one binary search: 17 comparisons among 100,000 networks. Of nested networks only the widest is kept,
/// and it is the one a look-up names; the inner ones come back when the list is built without it.
#[derive(Clone, Debug, Default)]
pub struct BlockList {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl BlockList {
    /// Builds the list; `n log n`. Of equal networks the first is named.
    pub fn new(blocks: impl IntoIterator<Item = (BlockId, IpNet)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (id, net) in blocks {
            match canonical_net(net) {
                IpNet::V4(net) => v4.push((span_v4(net), id)),
                IpNet::V6(net) => v6.push((span_v6(net), id)),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// The entry that blocks this address, if any.
    pub fn contains(&self, ip: IpAddr) -> Option<BlockId> {
        match canonical(ip) {
            IpAddr::V4(ip) => self.v4.find(ip.into()),
            IpAddr::V6(ip) => self.v6.find(ip.into()),
        }
    }

    /// Number of disjoint networks.
    pub fn len(&self) -> usize {
        self.v4.starts.len() + self.v6.starts.len()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Disjoint ranges in ascending order; the starts lie apart so that the search touches little memory.
#[derive(Clone, Debug, Default)]
struct Ranges<A> {
    starts: Vec<A>,
    ends: Vec<(A, BlockId)>,
}

impl<A: Copy + Ord> Ranges<A> {
    fn new(mut spans: Vec<((A, A), BlockId)>) -> Self {
        // By start, the wider first. Networks nest or are disjoint, so whatever begins before the last end lies inside.
        spans.sort_by(|((start, end), _), ((other_start, other_end), _)| {
            start.cmp(other_start).then(other_end.cmp(end))
        });
        let mut ranges = Self { starts: Vec::with_capacity(spans.len()), ends: Vec::with_capacity(spans.len()) };
        for ((start, end), id) in spans {
            if ranges.ends.last().is_none_or(|(last, _)| *last < start) {
                ranges.starts.push(start);
                ranges.ends.push((end, id));
            }
        }
        ranges
    }

    fn find(&self, address: A) -> Option<BlockId> {
        let before = self.starts.partition_point(|start| *start <= address).checked_sub(1)?;
        self.ends.get(before).filter(|(end, _)| address <= *end).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(nets: &[&str]) -> BlockList {
        BlockList::new(nets.iter().zip(1..).map(|(net, n)| (BlockId::from_u128(n), net.parse().unwrap())))
    }

    fn found(list: &BlockList, ip: &str) -> Option<u128> {
        list.contains(ip.parse().unwrap()).map(BlockId::as_u128)
    }

    #[test]
    fn a_blocked_network_is_blocked_to_its_edges() {
        let list = list(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32", "::ffff:203.0.113.0/120"]);
        for (ip, block) in [
            ("192.0.1.255", None),
            ("192.0.2.0", Some(1)),
            ("192.0.2.255", Some(1)),
            ("192.0.3.0", None),
            ("::ffff:192.0.2.9", Some(1)),
            ("2001:db8:ffff::1", Some(2)),
            ("2001:db9::", None),
            ("198.51.100.7", Some(3)),
            ("198.51.100.8", None),
            ("203.0.113.5", Some(4)),
            ("::1", None),
        ] {
            assert_eq!(found(&list, ip), block, "{ip}");
        }
        assert_eq!(found(&BlockList::default(), "192.0.2.1"), None);
    }

    #[test]
    fn nested_networks_are_named_by_the_widest() {
        let list = list(&["10.1.2.3/32", "10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!((list.len(), found(&list, "10.1.2.3"), found(&list, "255.255.255.255")), (1, Some(5), Some(5)));
    }

    #[test]
    fn the_whole_of_ipv6_can_be_blocked_without_touching_ipv4() {
        let list = list(&["::/0"]);
        assert_eq!(found(&list, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some(1));
        assert_eq!(found(&list, "1.2.3.4"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            probes in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            let nets: Vec<IpNet> = nets.into_iter()
                .map(|(ip, length)| IpNet::new(IpAddr::V4(ip.into()), length).unwrap())
                .collect();
            let list = BlockList::new(nets.iter().map(|net| (BlockId::from_u128(1), *net)));
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for ip in probes.into_iter().map(|ip| IpAddr::V4(ip.into())).chain(edges) {
                prop_assert_eq!(list.contains(ip).is_some(), nets.iter().any(|net| net.contains(&ip)), "{}", ip);
            }
        }
    }
}
