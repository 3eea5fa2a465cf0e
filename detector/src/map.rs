//! Maps with structured keys, stored as lists.
//!
//! For: state whose keys are pairs or elements; JSON and other formats want text keys in maps.
//! Not for: maps keyed by numbers or ids, which serialise as they are.
//! Invariant: the list is in key order, so equal maps give equal bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a map as a sequence of (key, value).
pub(crate) fn serialize<K, V, S>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
where
    K: Serialize,
    V: Serialize,
    S: Serializer,
{
    serializer.collect_seq(map)
}

/// Reads a map from a sequence of (key, value); a repeated key keeps its last value.
pub(crate) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
}
