//! What CORRELATE commits: incidents and outbox, and two parts that change rarely: what operators said, and the webhooks
//! that answered 410.
//!
//! For: reading and writing them, here and by the commands that look at a job. Not for: what they mean. Invariant:
//! parts of every released version can be read; what is new stands in new versions or parts.

use std::collections::BTreeSet;

use bytes::Bytes;
use flowshift_consumer::stage::{StageError, StatePart};
use flowshift_detector::{CorrelatorState, Skips, Together, Words};
use flowshift_proto::state::{Chunk, Kind};
use serde::{Deserialize, Serialize};

use super::Outbox;
use crate::webhook::DisabledEndpoints;

/// Name of the part with the incidents and the outbox. A part's key is `SHARD/NAME`; older versions had the name alone.
pub const PART: &str = "correlate";
/// Version of the stored state: 3 has what elements' pairs say together, 2 has skips, 1 had neither.
const STATE_VERSION: u32 = 3;
/// Name of the part with the operators' words; absent until the first.
pub const WORDS_PART: &str = "words";
/// Version of its stored form.
const WORDS_VERSION: u32 = 1;

/// Name of the part with the webhooks that get nothing more; absent until the first.
pub const WEBHOOKS_PART: &str = "webhooks";
/// Version of its stored form.
const WEBHOOKS_VERSION: u32 = 1;

/// All that is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Incidents, progress, the outbox.
    pub body: Body,
    /// What operators said.
    pub words: Words,
    /// Webhooks that get nothing more.
    pub webhooks: DisabledEndpoints,
}

impl Stored {
    /// Reads the committed parts of the stage; none before its first commit.
    ///
    /// # Errors
    /// The bytes are not this stage's state, or of a version this program does not know.
    pub fn read(parts: &[StatePart]) -> Result<Option<Self>, StageError> {
        // A parent's may stand beside a child's, whose shard is the later one, or what an older version left.
        let of = |wanted: &str| {
            let named = parts.iter().filter(|(key, _)| name(key) == wanted);
            named.max_by_key(|(key, _)| (key.contains('/'), key)).map(|(_, bytes)| bytes)
        };
        let Some(body) = of(PART) else { return Ok(None) };
        let said = of(WORDS_PART).map_or(Ok(Words::default()), |bytes| words(bytes))?;
        let webhooks = of(WEBHOOKS_PART).map_or_else(|| Ok(DisabledEndpoints::new()), |bytes| disabled(bytes))?;
        Ok(Some(Self { body: Body::decode(body)?, words: said, webhooks }))
    }
}

/// The name of a part, without its shard.
pub fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Reads the part with the operators' words.
///
/// # Errors
/// The bytes are not that, or of a version this program does not know.
pub fn words(bytes: &[u8]) -> Result<Words, StageError> {
    let failed = "operators' words";
    let chunk = Chunk::decode(bytes, Kind::Words, WORDS_VERSION).map_err(|e| StageError::with(failed, e))?;
    postcard::from_bytes(&chunk.body).map_err(|e| StageError::with(failed, e))
}

/// The stored form of the words.
pub(super) fn words_part(words: &Words) -> Result<StatePart, StageError> {
    let body = postcard::to_stdvec(words).map_err(|e| StageError::with("operators' words", e))?;
    let chunk = Chunk { version: WORDS_VERSION, kind: Kind::Words, body };
    Ok((WORDS_PART.to_owned(), Bytes::from(chunk.encode())))
}

/// Reads the part with the webhooks that get nothing more.
///
/// # Errors
/// The bytes are not that, or of a version this program does not know.
pub fn disabled(bytes: &[u8]) -> Result<DisabledEndpoints, StageError> {
    let failed = "disabled webhooks";
    let chunk = Chunk::decode(bytes, Kind::Webhooks, WEBHOOKS_VERSION).map_err(|e| StageError::with(failed, e))?;
    postcard::from_bytes(&chunk.body).map_err(|e| StageError::with(failed, e))
}

/// The stored form of the webhooks that get nothing more.
pub(super) fn disabled_part(webhooks: &DisabledEndpoints) -> Result<StatePart, StageError> {
    let body = postcard::to_stdvec(webhooks).map_err(|e| StageError::with("disabled webhooks", e))?;
    let chunk = Chunk { version: WEBHOOKS_VERSION, kind: Kind::Webhooks, body };
    Ok((WEBHOOKS_PART.to_owned(), Bytes::from(chunk.encode())))
}

/// Incidents, progress, the outbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Body {
    /// Incidents and progress.
    pub correlator: CorrelatorState,
    /// Events on their way out, and those already out that are still kept.
    pub outbox: Outbox,
    /// Lanes whose input has ended.
    pub ended: BTreeSet<u16>,
    /// Evidence records that could not be read.
    pub unreadable: u64,
    /// Steps in which lanes are not waited for.
    pub skips: Skips,
    /// What the pairs of each element say together.
    pub together: Together,
}

/// Version 1 of [`Body`].
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub(super) struct BodyV1 {
    pub(super) correlator: CorrelatorState,
    pub(super) outbox: Outbox,
    pub(super) ended: BTreeSet<u16>,
    pub(super) unreadable: u64,
}

impl From<BodyV1> for Body {
    fn from(v1: BodyV1) -> Self {
        let BodyV1 { correlator, outbox, ended, unreadable } = v1;
        Self { correlator, outbox, ended, unreadable, skips: Skips::default(), together: Together::default() }
    }
}

/// Version 2 of [`Body`].
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub(super) struct BodyV2 {
    pub(super) correlator: CorrelatorState,
    pub(super) outbox: Outbox,
    pub(super) ended: BTreeSet<u16>,
    pub(super) unreadable: u64,
    pub(super) skips: Skips,
}

impl From<BodyV2> for Body {
    fn from(v2: BodyV2) -> Self {
        let BodyV2 { correlator, outbox, ended, unreadable, skips } = v2;
        Self { correlator, outbox, ended, unreadable, skips, together: Together::default() }
    }
}

impl Body {
    /// Reads committed state.
    ///
    /// # Errors
    /// The bytes are not this stage's state, or of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, StageError> {
        let failed = "correlate state";
        let chunk = Chunk::decode(bytes, Kind::Correlate, STATE_VERSION).map_err(|e| StageError::with(failed, e))?;
        let body = match chunk.version {
            1 => postcard::from_bytes::<BodyV1>(&chunk.body).map(Self::from),
            2 => postcard::from_bytes::<BodyV2>(&chunk.body).map(Self::from),
            _ => postcard::from_bytes(&chunk.body),
        };
        body.map_err(|e| StageError::with(failed, e))
    }

    /// The stored form.
    pub(super) fn part(&self) -> Result<StatePart, StageError> {
        let body = postcard::to_stdvec(self).map_err(|e| StageError::with("correlate state", e))?;
        let chunk = Chunk { version: STATE_VERSION, kind: Kind::Correlate, body };
        Ok((PART.to_owned(), Bytes::from(chunk.encode())))
    }
}
