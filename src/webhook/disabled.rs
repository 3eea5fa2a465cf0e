//! That an endpoint answered 410 and gets nothing more, as CORRELATE commits it.
//!
//! For: what a next owner has to know of it. Not for: who holds it while a deliverer runs; read `switch` next. Invariant: a
//! URL never stands here, because it may hold a token; its digest says whether the endpoint still is the one that answered.

use std::collections::BTreeMap;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The disabled endpoints by their configured names.
pub type DisabledEndpoints = BTreeMap<String, Disabled>;

/// One endpoint that gets nothing more. Stored: a change of its fields is a new version of the part that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Wall-clock time of the answer, epoch milliseconds.
    pub since_ms: i64,
    /// Id of the event that was answered so; none when what is open was told again.
    pub event: Option<String>,
    /// Of the URL that answered.
    pub url: UrlDigest,
}

/// The first half of a URL's SHA-256: tells one URL from another, and nothing of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlDigest([u8; 16]);

impl UrlDigest {
    /// The digest of a whole URL, path and query included.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(url.as_str())[..16]);
        Self(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_url_counts_and_the_stored_bytes_of_one_never_change() {
        let of = |text: &str| UrlDigest::of(&text.parse().unwrap());
        let known = of("https://hooks.test/services/T0KEN?key=K3Y");
        for other in ["http://hooks.test/services/T0KEN?key=K3Y", "https://hooks.test/services/T0KEN?key=K3Z"] {
            assert_ne!(of(other), known);
        }
        // `printf %s URL | sha256sum`
        let stored: String = known.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(stored, "cf6116f93086f2b09878ad296ede795b");
    }
}
