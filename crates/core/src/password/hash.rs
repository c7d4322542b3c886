//! Password hashing: Argon2id (RFC 9106) with a pepper, and the one text form in which a hash is stored.
//!
//! `$argon2id$v=19$m=65536,t=3,p=1,keyid=<pepper id>$<salt>$<hash>`: the PHC string form. The pepper is a secret outside
//! the database, so a stolen table alone cannot be guessed against; its id is in the record so that it can be replaced.
//!
//! A record is input like any other: costs beyond [`Cost`]'s bounds are refused before any memory is taken, so that a
//! tampered row cannot exhaust the machine, and only the canonical spelling is read.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cipher::{Aad, CipherError, derive_key};
use crate::secret::Secret;

/// Bytes of a salt.
pub const SALT_LEN: usize = 16;
/// Bytes of a hash.
const HASH_LEN: usize = 32;
/// Longer than any record.
const MAX_RECORD: usize = 192;

/// What one hash costs: the parameters of Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Parameters of Argon2id outside the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id needs 8 KiB a lane to 1 GiB of memory, 1 to 16 passes and 1 to 16 lanes")]
pub struct CostOutOfRange;

impl Cost {
    /// 64 MiB, three passes, one lane: the second recommendation of RFC 9106 section 4 with one lane instead of four,
    /// because a server has other requests for its other cores.
    pub const DEFAULT: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    /// Checks the bounds: memory from 8 KiB a lane to 1 GiB, passes and lanes from 1 to 16.
    ///
    /// # Errors
    /// [`CostOutOfRange`].
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostOutOfRange> {
        let lanes_fit = lanes >= 1 && lanes <= 16;
        if lanes_fit && memory_kib >= 8 * lanes && memory_kib <= 1024 * 1024 && passes >= 1 && passes <= 16 {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            Err(CostOutOfRange)
        }
    }

    /// Memory in KiB.
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    fn params(self) -> Result<Params, HashError> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(HASH_LEN)).map_err(|_| HashError::Failed)
    }
}

/// Names a pepper: eight bytes derived from it, from which it cannot be found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PepperId(pub [u8; 8]);

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret that is mixed into every password hash.
#[derive(Clone, Debug)]
pub struct Pepper {
    id: PepperId,
    key: Secret<[u8; 32]>,
}

impl Pepper {
    /// Takes `key` and derives its id.
    ///
    /// # Errors
    /// [`CipherError::Refused`] when the cryptographic library fails; it has no reason to.
    pub fn new(key: Secret<[u8; 32]>) -> Result<Self, CipherError> {
        let id = derive_key(&key, &Aad::bind(*b"id1", &[b"password-pepper"])?)?;
        let id = id.expose().first_chunk::<8>().copied().ok_or(CipherError::Refused)?;
        Ok(Self { id: PepperId(id), key })
    }

    /// Its id.
    pub const fn id(&self) -> PepperId {
        self.id
    }
}

/// The pepper in force, and those that older records still need.
#[derive(Clone, Debug)]
pub struct Peppers {
    current: Pepper,
    older: Vec<Pepper>,
}

impl Peppers {
    /// `current` is used for new hashes; `older` only verify.
    pub const fn new(current: Pepper, older: Vec<Pepper>) -> Self {
        Self { current, older }
    }

    /// The pepper of new hashes.
    pub const fn current(&self) -> &Pepper {
        &self.current
    }

    fn find(&self, id: PepperId) -> Option<&Pepper> {
        std::iter::once(&self.current).chain(&self.older).find(|pepper| pepper.id == id)
    }
}

/// A stored password hash. Reads and prints its one canonical text.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordRecord {
    cost: Cost,
    pepper: PepperId,
    salt: [u8; SALT_LEN],
    hash: [u8; HASH_LEN],
}

/// A text that is not a password record this version accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Argon2id password record in canonical form within the bounds of its parameters")]
pub struct InvalidRecord;

impl PasswordRecord {
    /// A record no password matches, but whose verification costs what a real one does: for users who do not exist.
    /// `salt` and `hash` must be random.
    pub const fn decoy(cost: Cost, pepper: PepperId, salt: [u8; SALT_LEN], hash: [u8; 32]) -> Self {
        Self { cost, pepper, salt, hash }
    }

    /// What verifying it costs.
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("$argon2id$v=19$m=")?;
        let (memory_kib, rest) = rest.split_once(",t=")?;
        let (passes, rest) = rest.split_once(",p=")?;
        let (lanes, rest) = rest.split_once(",keyid=")?;
        let (pepper, rest) = rest.split_once('$')?;
        let (salt, hash) = rest.split_once('$')?;
        let cost = Cost::new(memory_kib.parse().ok()?, passes.parse().ok()?, lanes.parse().ok()?).ok()?;
        Some(Self { cost, pepper: PepperId(decode(pepper)?), salt: decode(salt)?, hash: decode(hash)? })
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

impl FromStr for PasswordRecord {
    type Err = InvalidRecord;
    fn from_str(text: &str) -> Result<Self, InvalidRecord> {
        if text.len() > MAX_RECORD {
            return Err(InvalidRecord);
        }
        // Printing it again is the test of canonical form: no leading zeros, signs, spaces or padding get through.
        Self::read(text).filter(|record| record.to_string() == text).ok_or(InvalidRecord)
    }
}

impl fmt::Display for PasswordRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { memory_kib, passes, lanes } = self.cost;
        write!(
            f,
            "$argon2id$v=19$m={memory_kib},t={passes},p={lanes},keyid={}${}${}",
            BASE64.encode(self.pepper.0),
            BASE64.encode(self.salt),
            BASE64.encode(self.hash)
        )
    }
}

impl fmt::Debug for PasswordRecord {
    /// Without salt and hash: a log is not the place for something to guess against.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordRecord").field("cost", &self.cost).field("pepper", &self.pepper).finish_non_exhaustive()
    }
}

/// Working memory of Argon2id, kept from one hash to the next: the kernel need not clear and map it again.
///
/// What is left in it after a hash is worth no more to a thief than the stored hash, and the next hash overwrites it.
#[derive(Default)]
pub struct Memory(Vec<Block>);

impl Memory {
    /// Takes the memory that `cost` needs.
    ///
    /// # Errors
    /// [`HashError::OutOfMemory`].
    pub fn reserve(cost: Cost) -> Result<Self, HashError> {
        let mut blocks = Vec::new();
        let wanted = cost.params()?.block_count();
        blocks.try_reserve_exact(wanted).map_err(|_| HashError::OutOfMemory)?;
        blocks.resize(wanted, Block::new());
        Ok(Self(blocks))
    }

    /// Whether a hash of `cost` fits.
    pub fn fits(&self, cost: Cost) -> bool {
        cost.params().is_ok_and(|params| params.block_count() <= self.0.len())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} KiB)", self.0.len())
    }
}

/// Why a hash was not computed. None of these says anything about the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The machine did not give the memory.
    #[error("not enough memory for a password hash")]
    OutOfMemory,
    /// The record was made with a pepper that is not in the secrets directory.
    #[error("a password was hashed with pepper {0}, which is not among the secrets: restore password-pepper.{0}.key")]
    UnknownPepper(PepperId),
    /// The hashing library refused; it has no reason to.
    #[error("the password hash could not be computed")]
    Failed,
}

/// What comparing a password with a record said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It is the password.
    Right(Rehash),
    /// It is not.
    Wrong,
}

/// Whether a record should be made anew, now that the password is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehash {
    /// Cost or pepper are no longer the ones in force.
    Needed,
    /// The record is up to date.
    NotNeeded,
}

/// Hashes `password` for storage. `salt` must come from the system's generator. `memory` is used when it is large
/// enough, else memory is taken for this hash alone. Cost: `cost`, by intention; never on a thread that serves requests.
///
/// # Errors
/// [`HashError::OutOfMemory`].
pub fn hash_password(
    password: &str,
    pepper: &Pepper,
    cost: Cost,
    salt: [u8; SALT_LEN],
    memory: &mut Memory,
) -> Result<PasswordRecord, HashError> {
    let hash = *compute(password, pepper, cost, &salt, memory)?;
    Ok(PasswordRecord { cost, pepper: pepper.id, salt, hash })
}

/// Compares `password` with `record`, in constant time after the hash. `wanted` is the cost in force.
///
/// # Errors
/// [`HashError::UnknownPepper`], after the same work as for a known one, so that time does not tell; otherwise as
/// [`hash_password`].
pub fn verify_password(
    password: &str,
    record: &PasswordRecord,
    peppers: &Peppers,
    wanted: Cost,
    memory: &mut Memory,
) -> Result<Verified, HashError> {
    let pepper = peppers.find(record.pepper);
    let hash = compute(password, pepper.unwrap_or(&peppers.current), record.cost, &record.salt, memory)?;
    if pepper.is_none() {
        return Err(HashError::UnknownPepper(record.pepper));
    }
    if !bool::from(hash.ct_eq(&record.hash)) {
        return Ok(Verified::Wrong);
    }
    let current = record.cost == wanted && record.pepper == peppers.current.id;
    Ok(Verified::Right(if current { Rehash::NotNeeded } else { Rehash::Needed }))
}

fn compute(
    password: &str,
    pepper: &Pepper,
    cost: Cost,
    salt: &[u8; SALT_LEN],
    memory: &mut Memory,
) -> Result<Zeroizing<[u8; HASH_LEN]>, HashError> {
    let argon2 = Argon2::new_with_secret(pepper.key.expose(), Algorithm::Argon2id, Version::V0x13, cost.params()?)
        .map_err(|_| HashError::Failed)?;
    let mut hash = Zeroizing::new([0; HASH_LEN]);
    let result = if memory.fits(cost) {
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut *hash, &mut memory.0)
    } else {
        argon2.hash_password_into(password.as_bytes(), salt, &mut *hash)
    };
    match result {
        Ok(()) => Ok(hash),
        Err(argon2::Error::OutOfMemory) => Err(HashError::OutOfMemory),
        Err(_) => Err(HashError::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn pepper(n: u8) -> Pepper {
        Pepper::new(Secret::new([n; 32])).unwrap()
    }

    fn record() -> PasswordRecord {
        hash_password("correct horse battery", &pepper(1), CHEAP, [2; 16], &mut Memory::default()).unwrap()
    }

    fn verify(password: &str, record: &PasswordRecord, peppers: &Peppers, wanted: Cost) -> Result<Verified, HashError> {
        verify_password(password, record, peppers, wanted, &mut Memory::default())
    }

    /// RFC 9106 section 5.3. The associated data of the vector is the one input that Bartizan does not use.
    #[test]
    fn the_library_agrees_with_the_published_argon2id_vector() {
        let data = argon2::AssociatedData::new(&[4; 12]).unwrap();
        let params = argon2::ParamsBuilder::new().m_cost(32).t_cost(3).p_cost(4).data(data).build().unwrap();
        let argon2 = Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
        let mut tag = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        assert_eq!(hex::encode(tag), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
    }

    #[test]
    fn the_right_password_is_right_and_any_other_is_wrong() {
        let peppers = Peppers::new(pepper(1), vec![]);
        assert_eq!(verify("correct horse battery", &record(), &peppers, CHEAP), Ok(Verified::Right(Rehash::NotNeeded)));
        for wrong in ["", "Correct horse battery", "correct horse battery ", "correct horse batter"] {
            assert_eq!(verify(wrong, &record(), &peppers, CHEAP), Ok(Verified::Wrong));
        }
    }

    #[test]
    fn an_older_pepper_or_another_cost_asks_for_a_new_record() {
        let rotated = Peppers::new(pepper(9), vec![pepper(1)]);
        let stronger = Cost::new(16, 1, 1).unwrap();
        let password = "correct horse battery";
        assert_eq!(verify(password, &record(), &rotated, CHEAP), Ok(Verified::Right(Rehash::Needed)));
        let same = Peppers::new(pepper(1), vec![]);
        assert_eq!(verify(password, &record(), &same, stronger), Ok(Verified::Right(Rehash::Needed)));
    }

    #[test]
    fn without_its_pepper_a_record_is_a_fault_and_not_a_match() {
        let foreign = Peppers::new(pepper(9), vec![]);
        let answer = verify("correct horse battery", &record(), &foreign, CHEAP);
        assert_eq!(answer, Err(HashError::UnknownPepper(pepper(1).id())));
    }

    #[test]
    fn kept_memory_changes_nothing_but_the_time() {
        let mut memory = Memory::reserve(Cost::new(64, 1, 1).unwrap()).unwrap();
        for password in ["a", "b"] {
            let cost = Cost::new(32, 2, 2).unwrap();
            let fresh = hash_password(password, &pepper(1), cost, [7; 16], &mut Memory::default()).unwrap();
            let kept = hash_password(password, &pepper(1), cost, [7; 16], &mut memory).unwrap();
            assert_eq!(fresh, kept);
        }
        assert!(!memory.fits(Cost::new(128, 1, 1).unwrap()));
    }

    #[test]
    fn a_decoy_matches_nothing() {
        let peppers = Peppers::new(pepper(1), vec![]);
        let decoy = PasswordRecord::decoy(CHEAP, pepper(1).id(), [1; 16], [2; 32]);
        assert_eq!(verify("", &decoy, &peppers, CHEAP), Ok(Verified::Wrong));
    }

    #[test]
    fn a_record_does_not_show_its_hash_when_debugged() {
        let shown = format!("{:?}", record());
        assert!(!shown.contains(&BASE64.encode(record().hash)) && !shown.contains(&BASE64.encode(record().salt)));
    }

    #[test]
    fn only_the_canonical_text_within_bounds_is_a_record() {
        let good = record().to_string();
        assert!(good.starts_with("$argon2id$v=19$m=8,t=1,p=1,keyid="), "{good}");
        assert_eq!(good.parse(), Ok(record()));
        let bad = [
            good.replace("argon2id", "argon2i"),
            good.replace("argon2id", "argon2d"),
            good.replace("v=19", "v=16"),
            good.replace("v=19$", ""),
            good.replace("m=8,", "m=08,"),
            good.replace("m=8,", "m=+8,"),
            good.replace("m=8,", "m= 8,"),
            good.replace("m=8,", "m=7,"),
            good.replace("m=8,", "m=1048577,"),
            good.replace("m=8,", "m=4294967295,"),
            good.replace("m=8,", "m=4294967304,"),
            good.replace("m=8,", "m=-8,"),
            good.replace("t=1,", "t=0,"),
            good.replace("t=1,", "t=17,"),
            good.replace("t=1,", "t=1,t=1,"),
            good.replace("p=1,", "p=0,"),
            good.replace("p=1,", "p=17,"),
            good.replace("p=1,", "p=2,"),
            good.replace("m=8,t=1", "t=1,m=8"),
            good.replace("keyid=", "data=AA,keyid="),
            good.replace("keyid=", "keyid=A"),
            format!("{good}="),
            format!("{good}$"),
            format!("{good}\n"),
            format!(" {good}"),
            good[..good.len() - 1].to_owned(),
            "".to_owned(),
            "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
            "$".repeat(1000),
        ];
        for text in bad {
            assert_eq!(text.parse::<PasswordRecord>(), Err(InvalidRecord), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(
            (lanes, passes) in (1u32..=16, 1u32..=16),
            memory_kib in 128u32..=1_048_576,
            pepper: [u8; 8], salt: [u8; 16], hash: [u8; 32],
        ) {
            let cost = Cost::new(memory_kib, passes, lanes).unwrap();
            let record = PasswordRecord { cost, pepper: PepperId(pepper), salt, hash };
            prop_assert!(record.to_string().len() <= MAX_RECORD);
            prop_assert_eq!(record.to_string().parse(), Ok(record));
        }

        #[test]
        fn any_text_is_a_record_or_an_error(text in "\\PC{0,200}") {
            let _ = text.parse::<PasswordRecord>();
        }

        #[test]
        fn whatever_is_read_prints_as_it_was(mutation in "[$=,+ 0-9a-zA-Z/]{0,3}", at in 0usize..110) {
            let mut text = record().to_string();
            let at = at.min(text.len());
            text.insert_str(at, &mutation);
            if let Ok(read) = text.parse::<PasswordRecord>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}
