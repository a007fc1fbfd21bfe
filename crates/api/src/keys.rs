//! API keys: `tt_` and 256 random bits in hexadecimal. The store keeps SHA-256 of the key alone; with 256 random bits
//! there is nothing to guess, so no salt and no slow hash is needed.
//!
//! A verified key is remembered for a second, an unknown one too, so a revocation holds within two seconds and a flood
//! of calls costs one query a key and second. Without the database nothing is verified: the call is refused.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{Api, ApiError, Caller, ErrorKind, Role};

const REMEMBER: Duration = Duration::from_secs(1);
/// Keys remembered at once; when there are more (only a flood of guesses makes so many) all are forgotten.
const CACHE_LIMIT: usize = 10_000;

/// Verified keys of the last second, by hash.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<[u8; 32], Verified>>);

/// When a key was looked up, and whose it is.
type Verified = (Instant, Option<Caller>);

/// A key as it is listed: never the key itself.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    pub id: Uuid,
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// A new key. It is shown once.
pub fn generate() -> String {
    let bytes: [u8; 32] = rand::random();
    format!("tt_{}", HEXLOWER.encode(&bytes))
}

/// Whether it has the form of a key, so that anything else needs no query.
fn well_formed(key: &str) -> bool {
    key.strip_prefix("tt_")
        .is_some_and(|rest| (32..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// What is kept of a key, and what a session remembers instead of it.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn refused() -> ApiError {
    ApiError::new(
        ErrorKind::Unauthenticated,
        "no valid API key: expected `authorization: Bearer tt_…` with a key that is not revoked",
    )
}

impl Api {
    /// Who calls with this key.
    pub async fn key_verify(&self, key: &str) -> Result<Caller, ApiError> {
        if !well_formed(key) {
            return Err(refused());
        }
        self.key_verify_hash(hash(key)).await
    }

    /// Who calls with the key of this hash: a session that was opened with it ends when the key is revoked.
    pub async fn key_verify_hash(&self, hash: [u8; 32]) -> Result<Caller, ApiError> {
        if let Some(known) = self.keys.get(&hash) {
            return known.ok_or_else(refused);
        }
        let row = self.store.key_by_hash(&hash).await?;
        let caller = match row {
            Some(row) if row.revoked_at.is_none() => Some(Caller {
                role: row.role.parse()?,
                name: row.name,
            }),
            _ => None,
        };
        self.keys.put(hash, caller.clone());
        caller.ok_or_else(refused)
    }

    /// Who calls, from an `authorization` header's value.
    pub async fn authorize(&self, header: Option<&str>) -> Result<Caller, ApiError> {
        let key = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim())
            .ok_or_else(refused)?;
        self.key_verify(key).await
    }

    /// Makes a key and gives it back, the only time that it is seen.
    pub async fn key_create(&self, caller: &Caller, name: &str, role: Role) -> Result<(String, KeyInfo), ApiError> {
        caller.require(&[])?;
        check_name(name)?;
        let key = generate();
        let info = KeyInfo {
            id: Uuid::from_bytes(rand::random::<[u8; 16]>()),
            name: name.to_owned(),
            role,
            created_at: self.clock.now(),
            revoked_at: None,
        };
        let new = self
            .store
            .key_insert(info.id, name, &hash(&key), role.as_str(), info.created_at)
            .await?;
        if !new {
            return Err(ApiError {
                field: Some("name".into()),
                ..ApiError::conflict("a key of this name exists: choose another name")
            });
        }
        tracing::info!(key = name, role = %role, by = caller.name, "API key made");
        Ok((key, info))
    }

    pub async fn keys_list(&self, caller: &Caller) -> Result<Vec<KeyInfo>, ApiError> {
        caller.require(&[])?;
        self.store
            .keys_list()
            .await?
            .into_iter()
            .map(|row| {
                Ok(KeyInfo {
                    id: row.id,
                    name: row.name,
                    role: row.role.parse()?,
                    created_at: row.created_at,
                    revoked_at: row.revoked_at,
                })
            })
            .collect()
    }

    /// Revokes a key, for good; within two seconds every process refuses it.
    pub async fn key_revoke(&self, caller: &Caller, id: Uuid) -> Result<(), ApiError> {
        caller.require(&[])?;
        if !self.store.key_revoke(id, self.clock.now()).await? {
            return Err(ApiError::not_found("key"));
        }
        tracing::info!(%id, by = caller.name, "API key revoked");
        Ok(())
    }

    /// Makes `key` (from [`generate`]) an admin's, unless it is one already. The caller has written it to a file before,
    /// so that no crash in between leaves a key that nobody knows.
    pub async fn admin_key_ensure(&self, key: &str) -> Result<(), ApiError> {
        if !well_formed(key) {
            return Err(ApiError::invalid(
                "key",
                "expected an API key: `tt_` and 64 hexadecimal digits",
            ));
        }
        let hash = hash(key);
        match self.store.key_by_hash(&hash).await? {
            Some(row) if row.revoked_at.is_some() => {
                return Err(ApiError::new(
                    ErrorKind::Forbidden,
                    "this admin key was revoked: remove the file and start again to have a new one made",
                ));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let now = self.clock.now();
        // Another data directory on the same database has its own admin: the name tells them apart.
        let other = format!("admin-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]);
        for name in ["admin", &other] {
            let id = Uuid::from_bytes(rand::random::<[u8; 16]>());
            if self
                .store
                .key_insert(id, name, &hash, Role::Admin.as_str(), now)
                .await?
            {
                break;
            }
        }
        self.keys.forget(&hash);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if name.is_empty() || name.len() > 100 || !name.chars().all(good) {
        return Err(ApiError::invalid(
            "name",
            "expected 1 to 100 letters, digits, `-`, `_` or `.` (ASCII)",
        ));
    }
    Ok(())
}

impl Cache {
    fn get(&self, hash: &[u8; 32]) -> Option<Option<Caller>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, caller) = map.get(hash)?;
        (at.elapsed() < REMEMBER).then(|| caller.clone())
    }

    fn put(&self, hash: [u8; 32], caller: Option<Caller>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= CACHE_LIMIT {
            map.clear();
        }
        map.insert(hash, (Instant::now(), caller));
    }

    fn forget(&self, hash: &[u8; 32]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_form_and_is_never_the_same() {
        let key = generate();
        assert_eq!(key.len(), 67);
        assert!(well_formed(&key));
        assert_ne!(key, generate());
        for bad in [
            "",
            "tt_",
            "tt_short",
            "xx_0123456789012345678901234567890123456789",
            "tt_ü123456789012345678901234567890123",
        ] {
            assert!(!well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_named_roles_and_admins_pass() {
        let caller = |role| Caller { name: "x".into(), role };
        assert!(caller(Role::Admin).require(&[]).is_ok());
        assert!(caller(Role::Events).require(&[Role::Events]).is_ok());
        let refused = caller(Role::Read).require(&[Role::Events]).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Forbidden);
    }
}
