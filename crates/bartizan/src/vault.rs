//! The vault: seals and opens the fields that must not be readable in the database.
//!
//! 1. A tenant's data keys are made once ([`Vault::mint`]), stored wrapped, and unwrapped on first use
//!    ([`Vault::unlock`]). They stay in memory, for a bounded number of tenants.
//! 2. With them a value is sealed to its place, opened there, and indexed ([`TenantKeys`]). Every call names the place.
//! 3. The root key stays with the [`KeyProvider`]; the vault never sees it.
//!
//! **Refused**: a wrapped key of another tenant, purpose or id; a value from another place; a value whose key is unknown.
//! The reason is for the log; who asked for the data learns only that it failed.
//!
//! **Cost.** Sealing, opening and indexing take microseconds and no IO. `mint` and `unlock` ask the key provider, which
//! may be a hardware module: call them where waiting is allowed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;
use bartizan_core::cipher::{self, Aad, CipherError, FieldRef, NONCE_LEN, Purpose, SealingKey, WrappedKey};
use bartizan_core::id::TenantId;
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_keys::{KeyError, KeyProvider, Transience};

/// Revision of what the sealed columns mean; part of what every value is bound to.
const REVISION: u16 = 1;
/// Version of the rules that normalise a value before it is indexed.
const NORMALISER: u16 = 1;
/// How many tenants' keys are kept in memory: about two kilobytes each.
const MAX_TENANTS: usize = 10_000;

/// Why the vault did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The key provider refused or is away.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value cannot be sealed, or does not open here.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The stored keys of a tenant are not a usable set.
    #[error("the data keys of {tenant} cannot be used: {flaw}")]
    KeySet {
        /// Whose.
        tenant: TenantId,
        /// What is wrong with them.
        flaw: &'static str,
    },
    /// An opened value is not the text it should be.
    #[error("a sealed text is not UTF-8")]
    NotText,
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    NoRandomness,
}

impl VaultError {
    /// Whether asking again can help.
    pub const fn transience(&self) -> Transience {
        match self {
            VaultError::Key(error) => error.transience(),
            VaultError::NoRandomness => Transience::Transient,
            VaultError::Cipher(_) | VaultError::KeySet { .. } | VaultError::NotText => Transience::Permanent,
        }
    }
}

/// Makes and unwraps the data keys of tenants. Cheap to share behind an `Arc`; one for each engine.
#[derive(Debug)]
pub struct Vault {
    provider: Arc<dyn KeyProvider>,
    unlocked: Mutex<HashMap<TenantId, Arc<TenantKeys>>>,
    capacity: usize,
}

impl Vault {
    /// A vault whose root key `provider` holds.
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self { provider, unlocked: Mutex::default(), capacity: MAX_TENANTS }
    }

    /// Where the root key is.
    pub fn provider(&self) -> &Arc<dyn KeyProvider> {
        &self.provider
    }

    /// Makes the keys of a new tenant, one for each purpose, wrapped and ready to be stored. Nothing is kept: a
    /// transaction that rolls back leaves no trace.
    ///
    /// # Errors
    /// [`VaultError::Key`], [`VaultError::NoRandomness`].
    pub fn mint(&self, tenant: TenantId, now: Millis) -> Result<Vec<WrappedKey>, VaultError> {
        let mut minted: Vec<WrappedKey> = Vec::with_capacity(Purpose::ALL.len());
        for purpose in Purpose::ALL.iter().copied() {
            let id = loop {
                let id = u32::from_be_bytes(random()?);
                if id != 0 && minted.iter().all(|key| key.id != id) {
                    break id;
                }
            };
            let key = Secret::new(random()?);
            let aad = WrappedKey::binding(tenant, purpose, id, now)?;
            let wrapped = self.provider.wrap(aad.as_bytes(), &key)?;
            let kek = self.provider.kek_id().to_owned();
            minted.push(WrappedKey { tenant, id, purpose, kek, created: now, wrapped });
        }
        Ok(minted)
    }

    /// The keys of `tenant`, when they are in memory already.
    pub fn cached(&self, tenant: TenantId) -> Option<Arc<TenantKeys>> {
        self.table().get(&tenant).map(Arc::clone)
    }

    /// Unwraps the stored keys of `tenant` and keeps them in memory, in place of those that were there. All keys of the
    /// tenant must be given: the youngest of a purpose works, the others only open and find.
    ///
    /// # Errors
    /// [`VaultError::KeySet`] when they are not all of this tenant, not all different, or not of every purpose;
    /// [`VaultError::Key`] when one does not open.
    pub fn unlock(&self, tenant: TenantId, stored: &[WrappedKey]) -> Result<Arc<TenantKeys>, VaultError> {
        let keys = Arc::new(self.unwrap_all(tenant, stored)?);
        let mut table = self.table();
        if table.len() >= self.capacity && !table.contains_key(&tenant) {
            // Any will do: the map's order is random, and whoever is evicted costs one unwrap.
            let evicted = table.keys().next().copied();
            evicted.and_then(|tenant| table.remove(&tenant));
        }
        table.insert(tenant, Arc::clone(&keys));
        Ok(keys)
    }

    /// Forgets the keys of `tenant`: after a rotation elsewhere, or when the tenant is gone. They are wiped when the last
    /// request that uses them ends.
    pub fn forget(&self, tenant: TenantId) {
        self.table().remove(&tenant);
    }

    fn unwrap_all(&self, tenant: TenantId, stored: &[WrappedKey]) -> Result<TenantKeys, VaultError> {
        let flawed = |flaw| VaultError::KeySet { tenant, flaw };
        let mut youngest_first: Vec<&WrappedKey> = stored.iter().collect();
        youngest_first.sort_by_key(|key| std::cmp::Reverse((key.created, key.id)));
        let (mut fields, mut indexes) = (Vec::new(), Vec::new());
        for (at, key) in youngest_first.iter().enumerate() {
            if key.tenant != tenant {
                return Err(flawed("one belongs to another tenant"));
            }
            if key.id == 0 || youngest_first.iter().skip(at + 1).any(|other| other.id == key.id) {
                return Err(flawed("two have the same id, or one has none"));
            }
            let aad = WrappedKey::binding(tenant, key.purpose, key.id, key.created)?;
            let secret = self.provider.unwrap(&key.kek, aad.as_bytes(), &key.wrapped)?;
            match key.purpose {
                Purpose::Field => fields.push(SealingKey::new(key.id, &secret)?),
                Purpose::Index => indexes.push((key.id, secret)),
                _ => return Err(flawed("one has a purpose this version does not know")),
            }
        }
        let (mut fields, mut indexes) = (fields.into_iter(), indexes.into_iter());
        match (fields.next(), indexes.next()) {
            (Some(field), Some(index)) => Ok(TenantKeys {
                tenant,
                field,
                older_fields: fields.collect(),
                index,
                older_indexes: indexes.collect(),
            }),
            _ => Err(flawed("one for fields and one for indexes are needed")),
        }
    }

    /// A panic while the lock was held cannot have left the map half changed; its content stays good.
    fn table(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<TenantKeys>>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The unwrapped data keys of one tenant.
pub struct TenantKeys {
    tenant: TenantId,
    field: SealingKey,
    older_fields: Vec<SealingKey>,
    index: (u32, Secret<[u8; 32]>),
    older_indexes: Vec<(u32, Secret<[u8; 32]>)>,
}

/// A value as the blind index holds it: equal values of one column and tenant have equal tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IndexTag {
    /// The index key it was made with.
    pub key_id: u32,
    /// The tag.
    pub tag: [u8; 16],
}

impl TenantKeys {
    /// Whose keys these are.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Seals `plaintext` for `field` of the row with the id `row`. Two seals of one value differ.
    ///
    /// # Errors
    /// [`CipherError::TooLarge`] above 1 MiB.
    pub fn seal(&self, field: FieldRef, row: &str, plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
        let aad = Aad::field(self.tenant, field, row, REVISION)?;
        Ok(self.field.seal(&aad, plaintext, random::<NONCE_LEN>()?)?)
    }

    /// Opens what was sealed for `field` of `row`.
    ///
    /// # Errors
    /// [`CipherError::Refused`], whatever is wrong.
    pub fn open(&self, field: FieldRef, row: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, VaultError> {
        let id = cipher::key_id(sealed).ok_or(CipherError::Refused)?;
        let key = std::iter::once(&self.field).chain(&self.older_fields).find(|key| key.id() == id);
        let aad = Aad::field(self.tenant, field, row, REVISION)?;
        Ok(key.ok_or(CipherError::Refused)?.open(&aad, sealed)?)
    }

    /// Opens a text, such as an e-mail address or a name.
    ///
    /// # Errors
    /// As [`TenantKeys::open`], and [`VaultError::NotText`].
    pub fn open_text(&self, field: FieldRef, row: &str, sealed: &[u8]) -> Result<Secret<String>, VaultError> {
        let bytes = self.open(field, row, sealed)?;
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| VaultError::NotText)?;
        Ok(Secret::new(text.to_owned()))
    }

    /// Whether `sealed` is under an older key and should be sealed again when it is next written.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        cipher::key_id(sealed) != Some(self.field.id())
    }

    /// The tag under which the row is stored. The same rule must have normalised every value of the column.
    ///
    /// # Errors
    /// None in practice; [`VaultError::Cipher`] by type.
    pub fn index(&self, field: FieldRef, normalised: &[u8]) -> Result<IndexTag, VaultError> {
        self.tag(&self.index, field, normalised)
    }

    /// The tags under which a row may be stored, the newest first: more than one while an index key is being replaced.
    /// Look up with all of them, and check uniqueness with all of them.
    ///
    /// # Errors
    /// As [`TenantKeys::index`].
    pub fn index_all(&self, field: FieldRef, normalised: &[u8]) -> Result<Vec<IndexTag>, VaultError> {
        std::iter::once(&self.index).chain(&self.older_indexes).map(|key| self.tag(key, field, normalised)).collect()
    }

    fn tag(&self, key: &(u32, Secret<[u8; 32]>), field: FieldRef, value: &[u8]) -> Result<IndexTag, VaultError> {
        let (key_id, secret) = key;
        Ok(IndexTag { key_id: *key_id, tag: cipher::index_tag(secret, self.tenant, field, NORMALISER, value)? })
    }
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKeys").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| VaultError::NoRandomness)?;
    Ok(bytes)
}

/// A wrapped key as the database keeps it.
pub(crate) fn row(key: &WrappedKey) -> bartizan_store::data_keys::DataKeyRow {
    bartizan_store::data_keys::DataKeyRow {
        id: key.id,
        purpose: key.purpose.as_str().to_owned(),
        kek: key.kek.clone(),
        created_at: key.created,
        wrapped: key.wrapped.clone(),
    }
}

/// A tag as the database looks for it.
pub(crate) fn tag(index: &IndexTag) -> bartizan_store::blind_index::Tag<'_> {
    bartizan_store::blind_index::Tag { key_id: index.key_id, tag: &index.tag }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_keys::{FileKeyring, SecretSource};

    const EMAIL: FieldRef = FieldRef::new("users", "email");
    const NAME: FieldRef = FieldRef::new("users", "name");
    const REFUSED: VaultError = VaultError::Cipher(CipherError::Refused);

    fn vault() -> Vault {
        let temp = tempfile::TempDir::new().unwrap();
        let source = SecretSource::dir(temp.path().join("secrets"));
        FileKeyring::create(&source).unwrap();
        Vault::new(Arc::new(FileKeyring::open(&source).unwrap()))
    }

    fn tenant(n: u128) -> TenantId {
        TenantId::from_u128(n)
    }

    fn unlocked(vault: &Vault, n: u128) -> Arc<TenantKeys> {
        vault.unlock(tenant(n), &vault.mint(tenant(n), Millis(1)).unwrap()).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_after_a_restart() {
        let vault = vault();
        let stored = vault.mint(tenant(1), Millis(1)).unwrap();
        let sealed = vault.unlock(tenant(1), &stored).unwrap().seal(EMAIL, "usr_1", b"ada@example.com").unwrap();
        let restarted = Vault::new(Arc::clone(vault.provider()));
        assert!(restarted.cached(tenant(1)).is_none());
        let keys = restarted.unlock(tenant(1), &stored).unwrap();
        assert_eq!(keys.open_text(EMAIL, "usr_1", &sealed).unwrap().expose(), "ada@example.com");
        assert!(Arc::ptr_eq(&keys, &restarted.cached(tenant(1)).unwrap()));
    }

    #[test]
    fn neither_plaintext_nor_keys_show_in_what_is_stored() {
        let vault = vault();
        let stored = vault.mint(tenant(1), Millis(1)).unwrap();
        let keys = vault.unlock(tenant(1), &stored).unwrap();
        let (one, two) = (keys.seal(EMAIL, "r", b"ada@example.com"), keys.seal(EMAIL, "r", b"ada@example.com"));
        assert_ne!(one, two, "equal values must not look equal");
        assert!(!one.unwrap().windows(3).any(|part| part == b"ada"));
        assert_eq!(format!("{keys:?}"), format!("TenantKeys {{ tenant: {}, .. }}", tenant(1)));
    }

    #[test]
    fn values_cannot_be_moved_between_tenants_rows_or_columns() {
        let vault = vault();
        let (one, two) = (unlocked(&vault, 1), unlocked(&vault, 2));
        let sealed = one.seal(EMAIL, "usr_1", b"ada@example.com").unwrap();
        assert_eq!(two.open(EMAIL, "usr_1", &sealed).err(), Some(REFUSED));
        assert_eq!(one.open(EMAIL, "usr_2", &sealed).err(), Some(REFUSED));
        assert_eq!(one.open(NAME, "usr_1", &sealed).err(), Some(REFUSED));
        assert_eq!(one.open(EMAIL, "usr_1", b"").err(), Some(REFUSED));
        assert_eq!(one.open(EMAIL, "usr_1", b"ada@example.com").err(), Some(REFUSED), "plaintext is not accepted");
    }

    #[test]
    fn wrapped_keys_cannot_be_passed_off_as_others() {
        let vault = vault();
        let (own, other) = (vault.mint(tenant(1), Millis(1)).unwrap(), vault.mint(tenant(2), Millis(1)).unwrap());
        let refused = |keys: &[WrappedKey]| vault.unlock(tenant(1), keys).err();
        let key_refused = Some(VaultError::Key(KeyError::Refused));

        let relabelled = other.iter().map(|key| WrappedKey { tenant: tenant(1), ..key.clone() }).collect::<Vec<_>>();
        assert_eq!(refused(&relabelled), key_refused, "another tenant's keys");

        let mut swapped = own.clone();
        swapped[0].purpose = own[1].purpose;
        swapped[1].purpose = own[0].purpose;
        assert_eq!(refused(&swapped), key_refused, "purposes exchanged");

        let mut swapped = own.clone();
        swapped[0].wrapped = own[1].wrapped.clone();
        assert_eq!(refused(&swapped), key_refused, "wraps exchanged");

        let mut renamed = own.clone();
        renamed[0].id ^= 2;
        assert_eq!(refused(&renamed), key_refused, "id changed");

        let mut younger = own.clone();
        younger[0].created = Millis(99);
        assert_eq!(refused(&younger), key_refused, "made to look younger");
        assert!(vault.cached(tenant(1)).is_none(), "nothing refused is kept");
    }

    #[test]
    fn an_incomplete_or_foreign_key_set_is_refused() {
        let vault = vault();
        let own = vault.mint(tenant(1), Millis(1)).unwrap();
        let key_set = |keys: &[WrappedKey]| matches!(vault.unlock(tenant(1), keys), Err(VaultError::KeySet { .. }));
        assert!(key_set(&[]));
        assert!(key_set(&own[..1]));
        assert!(key_set(&own[1..]));
        assert!(key_set(&[own[0].clone(), own[0].clone(), own[1].clone()]));
        assert!(key_set(&vault.mint(tenant(2), Millis(1)).unwrap()));
    }

    #[test]
    fn a_foreign_root_key_is_a_clear_error() {
        let stored = vault().mint(tenant(1), Millis(1)).unwrap();
        let error = vault().unlock(tenant(1), &stored).unwrap_err();
        assert!(matches!(error, VaultError::Key(KeyError::ForeignRoot { .. })), "{error}");
        assert!(error.to_string().contains(&stored[0].kek));
    }

    #[test]
    fn equal_values_are_found_again_and_only_in_their_own_column_and_tenant() {
        let vault = vault();
        let (one, two) = (unlocked(&vault, 1), unlocked(&vault, 2));
        let tag = one.index(EMAIL, b"ada@example.com").unwrap();
        assert_eq!(one.index(EMAIL, b"ada@example.com"), Ok(tag));
        assert_eq!(one.index_all(EMAIL, b"ada@example.com"), Ok(vec![tag]));
        assert_ne!(one.index(EMAIL, b"bob@example.com").unwrap().tag, tag.tag);
        assert_ne!(one.index(NAME, b"ada@example.com").unwrap().tag, tag.tag);
        assert_ne!(two.index(EMAIL, b"ada@example.com").unwrap().tag, tag.tag);
    }

    #[test]
    fn the_youngest_key_seals_and_the_older_ones_still_open_and_find() {
        let vault = vault();
        let old = vault.mint(tenant(1), Millis(1)).unwrap();
        let keys = vault.unlock(tenant(1), &old).unwrap();
        let (sealed, tag) = (keys.seal(EMAIL, "r", b"ada").unwrap(), keys.index(EMAIL, b"ada").unwrap());
        assert!(!keys.is_outdated(&sealed));
        let both = [old, vault.mint(tenant(1), Millis(2)).unwrap()].concat();
        let keys = vault.unlock(tenant(1), &both).unwrap();
        assert_eq!(keys.open(EMAIL, "r", &sealed).unwrap().expose(), b"ada");
        assert!(keys.is_outdated(&sealed) && !keys.is_outdated(&keys.seal(EMAIL, "r", b"ada").unwrap()));
        let all = keys.index_all(EMAIL, b"ada").unwrap();
        assert_eq!((all[0], all[1]), (keys.index(EMAIL, b"ada").unwrap(), tag));
    }

    #[test]
    fn memory_is_bounded_and_a_tenant_can_be_forgotten() {
        let mut vault = vault();
        vault.capacity = 3;
        for n in 1..=10 {
            unlocked(&vault, n);
            assert!(vault.cached(tenant(n)).is_some(), "the newest is kept");
            assert!(vault.table().len() <= 3);
        }
        unlocked(&vault, 10);
        assert_eq!(vault.table().len(), 3, "unlocking again evicts nobody");
        vault.forget(tenant(10));
        assert!(vault.cached(tenant(10)).is_none());
    }

    #[test]
    fn text_that_is_not_text_is_a_fault() {
        let vault = vault();
        let keys = unlocked(&vault, 1);
        let sealed = keys.seal(NAME, "r", &[0xFF]).unwrap();
        assert_eq!(keys.open_text(NAME, "r", &sealed).err(), Some(VaultError::NotText));
    }

    #[test]
    fn minted_ids_are_never_zero_and_differ() {
        let vault = vault();
        for _ in 0..100 {
            let minted = vault.mint(tenant(1), Millis(1)).unwrap();
            assert!(minted[0].id != 0 && minted[1].id != 0 && minted[0].id != minted[1].id);
        }
    }
}
