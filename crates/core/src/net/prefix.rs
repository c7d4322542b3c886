//! Addresses grouped by who can use them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The one spelling of an address: `::ffff:a.b.c.d` is the same host as `a.b.c.d`.
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The network an address counts as for limits and bans.
///
/// An IPv4 address stands alone. An IPv6 customer gets a /64 at least and often a /48, and can use a new address for
/// every request: so the /64 is what is limited, and the /48 beside it, at a higher limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// IPv4 addresses lie in their mapped form, so the length alone tells the families apart: 128 or less than 96.
    bits: u128,
    length: u8,
}

impl Prefix {
    /// The address itself for IPv4, its /64 for IPv6.
    pub fn narrow(ip: IpAddr) -> Self {
        match canonical(ip) {
            IpAddr::V4(ip) => Self { bits: u128::from(ip.to_ipv6_mapped()), length: 128 },
            IpAddr::V6(ip) => Self::cut(ip, 64),
        }
    }

    /// The /48 of an IPv6 address; `None` for IPv4.
    pub fn wide(ip: IpAddr) -> Option<Self> {
        match canonical(ip) {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(Self::cut(ip, 48)),
        }
    }

    /// What a limit's key is made from; no two prefixes have the same bytes.
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [self.length; 17];
        for (to, from) in bytes.iter_mut().zip(self.bits.to_be_bytes()) {
            *to = from;
        }
        bytes
    }

    /// The prefix as the key of a counter or a ban. No two prefixes share one, and none equals a UUID of version 7: the
    /// upper half is a small number, theirs is a time stamp.
    pub fn key(self) -> u128 {
        let telling = if self.length == 128 { self.bits & u128::from(u64::MAX) } else { self.bits >> 64 };
        (u128::from(self.length) << 64) | telling
    }

    fn cut(ip: Ipv6Addr, length: u8) -> Self {
        Self { bits: u128::from(ip) & (u128::MAX << (128 - u32::from(length))), length }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match canonical(IpAddr::V6(self.bits.into())) {
            IpAddr::V4(ip) if self.length == 128 => write!(f, "{ip}/32"),
            IpAddr::V4(_) | IpAddr::V6(_) => write!(f, "{}/{}", Ipv6Addr::from(self.bits), self.length),
        }
    }
}

/// A network as it is meant: host bits cut off, and a mapped IPv4 network as the IPv4 network it is.
pub(super) fn canonical_net(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, length)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

/// First and last address of an IPv6 network, as numbers.
pub(super) fn span_v6(net: Ipv6Net) -> (u128, u128) {
    (net.network().into(), net.broadcast().into())
}

/// First and last address of an IPv4 network, as numbers.
pub(super) fn span_v4(net: Ipv4Net) -> (u32, u32) {
    (net.network().into(), net.broadcast().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn two_hosts_of_one_64_share_a_prefix() {
        assert_eq!(Prefix::narrow(ip("2001:db8:1:2::1")), Prefix::narrow(ip("2001:db8:1:2:ffff::")));
        assert_ne!(Prefix::narrow(ip("2001:db8:1:2::1")), Prefix::narrow(ip("2001:db8:1:3::1")));
        assert_eq!(Prefix::wide(ip("2001:db8:1:2::1")), Prefix::wide(ip("2001:db8:1:3::1")));
        assert_ne!(Prefix::wide(ip("2001:db8:1:2::1")), Prefix::wide(ip("2001:db8:2:2::1")));
        assert_eq!(Prefix::wide(ip("192.0.2.1")), None);
    }

    #[test]
    fn a_hundred_thousand_addresses_of_one_network_are_one_key() {
        let base = u128::from("2001:db8:7:7::".parse::<Ipv6Addr>().unwrap());
        let prefixes: HashSet<_> = (0..100_000u128)
            .map(|n| Prefix::narrow(IpAddr::V6((base | n.wrapping_mul(0x9e37_79b9_7f4a)).into())))
            .collect();
        assert_eq!(prefixes.len(), 1);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert_eq!(Prefix::narrow(ip("::ffff:192.0.2.1")), Prefix::narrow(ip("192.0.2.1")));
        assert_eq!(Prefix::wide(ip("::ffff:192.0.2.1")), None);
        assert_ne!(Prefix::narrow(ip("192.0.2.1")), Prefix::narrow(ip("192.0.2.2")));
    }

    #[test]
    fn prefixes_have_distinct_bytes_and_readable_text() {
        let all = [
            Prefix::narrow(ip("192.0.2.1")),
            Prefix::narrow(ip("::")),
            Prefix::narrow(ip("::1")),
            Prefix::narrow(ip("2001:db8::")),
            Prefix::wide(ip("2001:db8::")).unwrap(),
            Prefix::narrow(ip("0.0.0.0")),
        ];
        let bytes: HashSet<_> = all.iter().map(|prefix| prefix.to_bytes()).collect();
        assert_eq!(bytes.len(), 5, "::/64 and ::1/64 are one network");
        assert_eq!(all.iter().map(|prefix| prefix.key()).collect::<HashSet<_>>().len(), 5);
        let texts: Vec<_> = all.iter().map(Prefix::to_string).collect();
        assert_eq!(texts, ["192.0.2.1/32", "::/64", "::/64", "2001:db8::/64", "2001:db8::/48", "0.0.0.0/32"]);
    }
}
