//! Everything outside the records that changes results: the topology and the settings of the pure stages.
//!
//! Invariant: equal content has equal bytes and an equal hash, in whatever order it was given; the hash is the
//! snapshot's name in the state table and in cuts.

use prost::Message;

pub use crate::wire::flowshift::snapshot::v1::{Edge, Setting, Snapshot, Subnet};

/// The version written.
pub const VERSION: u32 = 1;

/// A snapshot cannot be encoded or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The protobuf encoding is broken.
    #[error("snapshot is broken: {0}")]
    Broken(String),
    /// It was written by a program that knows another version.
    #[error("snapshot has version {0}, known is 1")]
    UnknownVersion(u32),
    /// An id, name or key stands in it twice.
    #[error("snapshot has {0:?} twice")]
    Repeated(String),
    /// Its bytes are not those its name was made from.
    #[error("snapshot has hash {found} instead of {expected}")]
    Hash {
        /// Hash of the bytes.
        found: ContentHash,
        /// Hash expected.
        expected: ContentHash,
    },
}

/// The 128-bit xxh3 hash of a snapshot's canonical encoding, shown as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(u128);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    /// As 16 bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 bytes, most significant first.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Brings the snapshot into canonical form and encodes it; the hash is that of the bytes.
///
/// # Errors
/// When a subnet id, edge name or setting key stands in it twice.
pub fn encode(mut snapshot: Snapshot) -> Result<(Vec<u8>, ContentHash), SnapshotError> {
    snapshot.version = VERSION;
    for subnet in &mut snapshot.subnets {
        subnet.cidrs.sort();
        subnet.cidrs.dedup();
    }
    for edge in &mut snapshot.edges {
        edge.cidrs.sort();
        edge.cidrs.dedup();
    }
    snapshot.subnets.sort_by(|a, b| a.id.cmp(&b.id));
    snapshot.edges.sort_by(|a, b| a.name.cmp(&b.name));
    snapshot.settings.sort_by(|a, b| a.key.cmp(&b.key));
    unique(snapshot.subnets.iter().map(|subnet| &subnet.id))?;
    unique(snapshot.edges.iter().map(|edge| &edge.name))?;
    unique(snapshot.settings.iter().map(|setting| &setting.key))?;
    let bytes = snapshot.encode_to_vec();
    let hash = ContentHash::of(&bytes);
    Ok((bytes, hash))
}

/// Decodes a snapshot that was stored under `expected`.
///
/// # Errors
/// When the bytes are not those stored, are broken, or have an unknown version.
pub fn decode(bytes: &[u8], expected: ContentHash) -> Result<Snapshot, SnapshotError> {
    let found = ContentHash::of(bytes);
    if found != expected {
        return Err(SnapshotError::Hash { found, expected });
    }
    let snapshot = Snapshot::decode(bytes).map_err(|error| SnapshotError::Broken(error.to_string()))?;
    if snapshot.version != VERSION {
        return Err(SnapshotError::UnknownVersion(snapshot.version));
    }
    Ok(snapshot)
}

fn unique<'a>(sorted: impl Iterator<Item = &'a String>) -> Result<(), SnapshotError> {
    let mut last: Option<&String> = None;
    for id in sorted {
        if last == Some(id) {
            return Err(SnapshotError::Repeated(id.clone()));
        }
        last = Some(id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, cidrs: &[&str]) -> Subnet {
        Subnet { id: id.into(), cidrs: cidrs.iter().map(ToString::to_string).collect(), ..Default::default() }
    }

    fn setting(key: &str, value: &str) -> Setting {
        Setting { key: key.into(), value: value.into() }
    }

    #[test]
    fn the_hash_does_not_depend_on_the_order_of_the_parts_but_on_every_value() {
        let one = Snapshot {
            subnets: vec![subnet("b", &["10.1.0.0/16", "fd00::/64"]), subnet("a", &["10.0.0.0/16"])],
            settings: vec![setting("x", "1"), setting("a", "2")],
            ..Default::default()
        };
        let two = Snapshot {
            subnets: vec![subnet("a", &["10.0.0.0/16"]), subnet("b", &["fd00::/64", "10.1.0.0/16"])],
            settings: vec![setting("a", "2"), setting("x", "1")],
            ..Default::default()
        };
        let mut three = two.clone();
        three.settings[0].value = "3".into();
        let (bytes, hash) = encode(one).unwrap();
        assert_eq!(encode(two), Ok((bytes.clone(), hash)));
        assert_ne!(encode(three).unwrap().1, hash);
        assert_eq!(decode(&bytes, hash).unwrap().subnets[1].cidrs, ["10.1.0.0/16", "fd00::/64"]);
        assert_eq!(hash.to_string().len(), 32);
        assert_eq!(ContentHash::from_bytes(hash.to_bytes()), hash);
    }

    #[test]
    fn repeats_and_changed_bytes_are_refused() {
        let twice = Snapshot { subnets: vec![subnet("a", &[]), subnet("a", &[])], ..Default::default() };
        assert_eq!(encode(twice), Err(SnapshotError::Repeated("a".into())));
        let (mut bytes, hash) = encode(Snapshot::default()).unwrap();
        bytes.push(0);
        assert!(matches!(decode(&bytes, hash), Err(SnapshotError::Hash { .. })));
    }
}
