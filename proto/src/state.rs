//! The container of every piece of committed state: a version and a kind around bytes.
//!
//! What the bytes mean belongs to the program. Invariant: chunks written by a released version stay readable (a golden
//! file in `tests/data` holds version 1), and a chunk of another kind or a newer version is refused by name, never
//! misread.

use prost::Message;

use crate::wire::flowshift::state::v1 as wire;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// AGGREGATE: the small state of one input shard.
    Aggregate,
    /// DETECT: the windows and scores of one lane.
    Lane,
    /// DETECT: one immutable page of baselines.
    BaselinePage,
    /// CORRELATE: open incidents.
    Correlate,
    /// CORRELATE: the webhook outbox.
    Outbox,
    /// CORRELATE: what operators said.
    Words,
    /// CORRELATE: webhooks that answered 410 and get nothing more.
    Webhooks,
}

impl Kind {
    const ALL: [Kind; 7] =
        [Kind::Aggregate, Kind::Lane, Kind::BaselinePage, Kind::Correlate, Kind::Outbox, Kind::Words, Kind::Webhooks];

    /// The name used in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Aggregate => "aggregate",
            Kind::Lane => "lane",
            Kind::BaselinePage => "baseline-page",
            Kind::Correlate => "correlate",
            Kind::Outbox => "outbox",
            Kind::Words => "words",
            Kind::Webhooks => "webhooks",
        }
    }

    const fn to_wire(self) -> wire::Kind {
        match self {
            Kind::Aggregate => wire::Kind::Aggregate,
            Kind::Lane => wire::Kind::Lane,
            Kind::BaselinePage => wire::Kind::BaselinePage,
            Kind::Correlate => wire::Kind::Correlate,
            Kind::Outbox => wire::Kind::Outbox,
            Kind::Words => wire::Kind::Words,
            Kind::Webhooks => wire::Kind::Webhooks,
        }
    }
}

/// A chunk cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The container is broken.
    #[error("state chunk is broken: {0}")]
    Broken(String),
    /// The kind number is not known.
    #[error("state chunk has unknown kind {0}")]
    UnknownKind(i32),
    /// It holds something else than expected.
    #[error("state chunk holds {} where {} is expected", found.as_str(), expected.as_str())]
    WrongKind {
        /// Kind found.
        found: Kind,
        /// Kind expected.
        expected: Kind,
    },
    /// It was written by a program that knows a newer version, or has no version.
    #[error("state chunk of kind {} has version {version}, known are 1 to {newest}", kind.as_str())]
    UnknownVersion {
        /// Its kind.
        kind: Kind,
        /// Its version.
        version: u32,
        /// Newest version the caller knows.
        newest: u32,
    },
}

/// One chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Version of the body's encoding for this kind, counted from 1.
    pub version: u32,
    /// What the body is.
    pub kind: Kind,
    /// The body.
    pub body: Vec<u8>,
}

impl Chunk {
    /// Encodes; equal chunks give equal bytes.
    pub fn encode(self) -> Vec<u8> {
        let chunk = wire::Chunk { version: self.version, kind: self.kind.to_wire() as i32, body: self.body };
        chunk.encode_to_vec()
    }

    /// Decodes a chunk of the kind expected, of a version from 1 to `newest`.
    ///
    /// # Errors
    /// When the container is broken, holds another kind, or its version is not known.
    pub fn decode(bytes: &[u8], expected: Kind, newest: u32) -> Result<Chunk, StateError> {
        let chunk = wire::Chunk::decode(bytes).map_err(|error| StateError::Broken(error.to_string()))?;
        let found = Kind::ALL.into_iter().find(|kind| kind.to_wire() as i32 == chunk.kind);
        let kind = found.ok_or(StateError::UnknownKind(chunk.kind))?;
        if kind != expected {
            return Err(StateError::WrongKind { found: kind, expected });
        }
        if !(1..=newest).contains(&chunk.version) {
            return Err(StateError::UnknownVersion { kind, version: chunk.version, newest });
        }
        Ok(Chunk { version: chunk.version, kind, body: chunk.body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_as_it_was_for_every_kind() {
        for kind in Kind::ALL {
            let chunk = Chunk { version: 3, kind, body: vec![1, 2, 3] };
            assert_eq!(Chunk::decode(&chunk.clone().encode(), kind, 3), Ok(chunk));
        }
    }

    #[test]
    fn an_unknown_version_is_named_and_another_kind_is_refused() {
        let bytes = Chunk { version: 9, kind: Kind::Lane, body: vec![] }.encode();
        let error = Chunk::decode(&bytes, Kind::Lane, 2).unwrap_err();
        assert_eq!(error.to_string(), "state chunk of kind lane has version 9, known are 1 to 2");
        let error = Chunk::decode(&bytes, Kind::Outbox, 9).unwrap_err();
        assert_eq!(error.to_string(), "state chunk holds lane where outbox is expected");
        assert_eq!(Chunk::decode(&[], Kind::Lane, 1), Err(StateError::UnknownKind(0)));
        assert!(matches!(Chunk::decode(&[0x1a, 9], Kind::Lane, 1), Err(StateError::Broken(_))));
    }
}
