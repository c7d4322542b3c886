//! Whose request it is, when proxies stand between.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::prefix::{canonical, canonical_net};

/// Most hops of a forwarding header that are followed.
pub const MOST_HOPS: usize = 32;

/// The proxies whose forwarding headers are believed. None by default.
///
/// What it allows: a listed proxy names the address it received the request from, by appending it to
/// `X-Forwarded-For`; the walk goes from that end and stops at the first address that is not a listed proxy.
///
/// What it refuses: anything written before that address, whoever wrote it; anything at all when the peer itself is not
/// listed; anything that is not an address. A walk that meets such a thing ends at the last address that was vouched
/// for, so the request counts as the proxy's own: stricter, never free.
///
/// Deployment caveats: list only what *appends* to the header (a proxy that passes it through unchanged lets clients
/// choose their address), and list every hop, or all clients behind the missing one are limited as one.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Believes these networks.
    pub fn new(trusted: impl IntoIterator<Item = IpNet>) -> Self {
        Self(trusted.into_iter().map(canonical_net).collect())
    }

    /// Whether the address is one of them.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        self.0.iter().any(|net| net.contains(&ip))
    }

    /// The client's address: `peer`, or what the trusted proxies vouch for. `forwarded_for` are the lines of
    /// `X-Forwarded-For` in the order they came; they mean the same as one line joined with commas (RFC 9110 section
    /// 5.3). Reads at most [`MOST_HOPS`] entries, allocates nothing.
    pub fn client<'a, I>(&self, peer: IpAddr, forwarded_for: I) -> IpAddr
    where
        I: IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    {
        let mut known = canonical(peer);
        let entries = forwarded_for.into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries.take(MOST_HOPS) {
            if !self.trusts(known) {
                break;
            }
            let Some(next) = address(entry) else { break };
            known = next;
        }
        known
    }
}

/// An entry as proxies write it: an address, with a port or a zone perhaps, IPv6 in brackets perhaps.
fn address(entry: &[u8]) -> Option<IpAddr> {
    // The longest honest entry, a bracketed IPv6 address with zone and port, is well below this.
    let text = std::str::from_utf8(entry.trim_ascii()).ok().filter(|text| text.len() <= 96)?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(canonical(ip));
    }
    if let Some((inside, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = after.is_empty() || after.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        return port.then(|| without_zone(inside)).flatten();
    }
    if let Ok(SocketAddr::V4(socket)) = text.parse::<SocketAddr>() {
        return Some(IpAddr::V4(*socket.ip()));
    }
    without_zone(text)
}

/// An IPv6 address; a zone (RFC 4007 section 11) means something on the host that wrote it only, and is cut off.
fn without_zone(text: &str) -> Option<IpAddr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "none"));
    let named = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let ip = address.parse::<Ipv6Addr>().ok().filter(|_| named)?;
    Some(canonical(IpAddr::V6(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies() -> Proxies {
        Proxies::new(["10.0.0.0/8", "fd00::/8", "::ffff:172.16.0.0/108"].map(|net| net.parse().unwrap()))
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        proxies().client(ip(peer), lines.iter().map(|line| line.as_bytes())).to_string()
    }

    #[test]
    fn forwarding_headers_are_ignored_unless_the_peer_is_a_configured_proxy() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(Proxies::default().client(ip("10.0.0.1"), [b"198.51.100.7".as_slice()]), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn a_client_cannot_choose_its_address_by_writing_the_header_first() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7", "10.0.0.3", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7,10.0.0.3", "fd00::2"]), "198.51.100.7");
    }

    #[test]
    fn a_chain_of_proxies_alone_ends_at_the_farthest() {
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn garbage_stops_at_the_last_address_that_was_vouched_for() {
        for garbage in [
            "",
            " ",
            ",",
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "[::1",
            "[1.2.3.4]",
            "1.2.3.4:99999",
            "1.2.3.4%eth0",
            "::1%a]",
            "::1%",
            "[::1]x",
            "[::1]:",
            "300.1.1.1",
            "1.2.3.4 5",
            "\u{ff11}.2.3.4",
            "for=1.2.3.4",
        ] {
            assert_eq!(client("10.0.0.1", &["9.9.9.9", garbage, "10.0.0.2"]), "10.0.0.2", "{garbage:?}");
        }
        assert_eq!(proxies().client(ip("10.0.0.1"), [b"\xff\xfe".as_slice()]), ip("10.0.0.1"));
    }

    #[test]
    fn the_spellings_of_one_address_are_one_address() {
        for text in
            ["198.51.100.7", " 198.51.100.7\t", "198.51.100.7:443", "::ffff:198.51.100.7", "[::ffff:c633:6407]:80"]
        {
            assert_eq!(client("10.0.0.1", &[text]), "198.51.100.7", "{text}");
        }
        for text in [
            "2001:db8::1",
            "2001:DB8:0::1",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
            "2001:db8::1%eth0",
            "[2001:db8::1%1]:1",
        ] {
            assert_eq!(client("10.0.0.1", &[text]), "2001:db8::1", "{text}");
        }
        // A proxy that connects over a mapped address, or is configured as one, is still that proxy.
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("172.16.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn a_header_without_end_is_not_read_to_the_end() {
        let long = format!("9.9.9.9{}", ", 10.0.0.2".repeat(100_000));
        assert_eq!(client("10.0.0.1", &[&long]), "10.0.0.2");
    }

    proptest! {
        #[test]
        fn what_stands_left_of_the_first_foreign_address_never_matters(
            forged in prop::collection::vec(any::<u8>(), 0..60),
            hops in 0usize..5,
        ) {
            let mut line = forged;
            line.extend_from_slice(b", 198.51.100.7");
            for _ in 0..hops {
                line.extend_from_slice(b",10.0.0.2");
            }
            prop_assert_eq!(proxies().client(ip("10.0.0.1"), [line.as_slice()]), ip("198.51.100.7"));
            // And a peer that is no proxy stays what it is.
            prop_assert_eq!(proxies().client(ip("192.0.2.1"), [line.as_slice()]), ip("192.0.2.1"));
        }
    }
}
