//! Tokens that clients carry for us: shard iterators and the tokens of paged lists.
//!
//! A token holds everything needed to go on, so it survives a restart, and a checksum, so that garbage is refused
//! instead of read. It is no secret and no protection against somebody who forges one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ids::{Position, ShardIndex};

/// Longest token taken, in characters; the longest made is about 350.
const MAX_LEN: usize = 1024;

/// Where a reader is in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardIterator {
    #[serde(rename = "n")]
    pub(crate) stream: String,
    /// Creation of the stream (ms): an iterator of a deleted stream does not fit its successor.
    #[serde(rename = "c")]
    pub(crate) created_ms: u64,
    #[serde(rename = "s")]
    pub(crate) shard: ShardIndex,
    #[serde(rename = "p")]
    pub(crate) position: Position,
    /// When the iterator was given out (ms).
    #[serde(rename = "t")]
    pub(crate) issued_ms: u64,
}

/// Where a `ListShards` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListToken {
    #[serde(rename = "n")]
    pub(crate) stream: String,
    #[serde(rename = "c")]
    pub(crate) created_ms: u64,
    /// The last shard of the page before.
    #[serde(rename = "a")]
    pub(crate) after: ShardIndex,
    /// The shards that the filter chose; fixed by the first page.
    #[serde(rename = "o")]
    pub(crate) filter: Option<crate::api::shards::Filter>,
    #[serde(rename = "t")]
    pub(crate) issued_ms: u64,
}

/// Writes a token: JSON behind its checksum, in base64.
pub(crate) fn encode<T: Serialize>(token: &T) -> Result<String, serde_json::Error> {
    let json = serde_json::to_vec(token)?;
    let mut bytes = crc32fast::hash(&json).to_le_bytes().to_vec();
    bytes.extend_from_slice(&json);
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads a token; `None` for anything that [`encode`] did not write.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Option<T> {
    if text.len() > MAX_LEN {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (crc, json) = bytes.split_first_chunk::<4>()?;
    if crc32fast::hash(json) != u32::from_le_bytes(*crc) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_a_changed_one_does_not() {
        let iterator = ShardIterator {
            stream: "s".repeat(128),
            created_ms: 1,
            shard: ShardIndex(7),
            position: Position(u64::MAX),
            issued_ms: 9,
        };
        let text = encode(&iterator).unwrap();
        assert!(text.len() <= 512, "AWS iterators have at most 512 characters");
        assert_eq!(decode(&text), Some(iterator));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(decode::<ShardIterator>(std::str::from_utf8(&changed).unwrap()), None);
        }
        assert_eq!(decode::<ShardIterator>(""), None);
        assert_eq!(decode::<ShardIterator>(&"A".repeat(5000)), None);
    }
}
