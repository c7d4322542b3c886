//! Which wire leads to which key.

use std::sync::Arc;

use super::address::Server;
use super::error::Unavailable;
use super::wire::Wire;

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// The wires there are, and for a cluster which slot belongs to which. Never changed: replaced.
pub(super) struct Routes {
    wires: Vec<Arc<Wire>>,
    /// For a cluster, the owner of each slot; `None` for a single primary.
    owners: Option<Owners>,
    /// Why a wire is missing, if one is.
    why: Option<Unavailable>,
}

/// Who holds which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    pub(super) servers: Vec<Server>,
    /// For each slot the place of its owner in `servers`.
    pub(super) slots: Vec<Option<u16>>,
}

impl Owners {
    fn of(&self, slot: u16) -> Option<&Server> {
        let place = self.slots.get(usize::from(slot)).copied().flatten()?;
        self.servers.get(usize::from(place))
    }
}

impl Routes {
    /// No way at all.
    pub(super) const fn none(why: Unavailable) -> Self {
        Self { wires: Vec::new(), owners: None, why: Some(why) }
    }

    /// One primary for all keys.
    pub(super) fn one(wire: Arc<Wire>) -> Self {
        Self { wires: vec![wire], owners: None, why: None }
    }

    /// A cluster: `why` says why an owner has no wire, if one has none.
    pub(super) fn spread(wires: Vec<Arc<Wire>>, owners: Owners, why: &Unavailable) -> Self {
        let mut routes = Self { wires, owners: None, why: None };
        let connected: Vec<bool> = owners.servers.iter().map(|server| routes.to(server).is_some()).collect();
        let covered =
            |slot: &Option<u16>| slot.and_then(|place| connected.get(usize::from(place)).copied()) == Some(true);
        if !owners.slots.iter().all(covered) {
            routes.why = Some(why.clone());
        }
        routes.owners = Some(owners);
        routes
    }

    pub(super) fn wires(&self) -> &[Arc<Wire>] {
        &self.wires
    }

    /// The wire to the owner of `slot`; for a single primary, to that.
    pub(super) fn of(&self, slot: u16) -> Option<&Arc<Wire>> {
        match &self.owners {
            None => self.wires.first(),
            Some(owners) => owners.of(slot).and_then(|server| self.to(server)),
        }
    }

    /// The wire to `server`.
    pub(super) fn to(&self, server: &Server) -> Option<&Arc<Wire>> {
        self.wires.iter().find(|wire| wire.server() == server)
    }

    /// Why `slot` has no wire.
    pub(super) fn why(&self, slot: u16) -> Unavailable {
        match (&self.owners, &self.why) {
            (Some(owners), _) if owners.of(slot).is_none() => {
                Unavailable::Disconnected("no server of the cluster holds this key".into())
            }
            (_, Some(why)) => why.clone(),
            (_, None) => Unavailable::Open,
        }
    }

    /// What is missing, if anything is.
    pub(super) const fn missing(&self) -> Option<&Unavailable> {
        self.why.as_ref()
    }

    /// How many wires `before` did not have.
    pub(super) fn new_since(&self, before: &Self) -> u64 {
        let known = |wire: &&Arc<Wire>| before.wires.iter().any(|old| Arc::ptr_eq(old, wire));
        self.wires.iter().filter(|wire| !known(wire)).map(|_| 1).sum()
    }
}

/// The slot of a key: CRC-16/XMODEM of the key, or of what stands between its first `{` and the next `}` if that is not
/// empty (Redis Cluster specification, "Key distribution model" and "Hash tags").
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of CRC-16/XMODEM.
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b""), 0);
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn only_the_first_tag_counts_and_only_if_it_is_not_empty() {
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"a{b}{c}"), slot(b"b"));
        assert_eq!(slot(b"a{{b}}"), slot(b"{b"));
        assert_ne!(slot(b"a{}{b}"), slot(b"b"));
        assert_ne!(slot(b"a{b"), slot(b"b"));
    }
}
