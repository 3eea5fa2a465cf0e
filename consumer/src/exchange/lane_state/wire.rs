//! The stored form of a lane; field numbers are the format.
//!
//! A number is never given a second meaning: states of released versions stay readable. Kept apart from
//! [`LaneState`] so that the rules there can change without touching what is on disk.

use std::collections::BTreeMap;

use super::{Entry, FeedKinds, LaneState, Lows, SourceId, Status, Watermarks};
use crate::log::StreamId;
use crate::shard::ShardId;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Lane {
    #[prost(uint64, tag = "1")]
    control: u64,
    #[prost(message, repeated, tag = "2")]
    sources: Vec<Source>,
    #[prost(sint64, repeated, tag = "3")]
    reached: Vec<i64>,
    #[prost(uint64, tag = "4")]
    gaps: u64,
    #[prost(bool, tag = "5")]
    forgive_unknown: bool,
    #[prost(sint64, optional, tag = "6")]
    accept_until_ms: Option<i64>,
    #[prost(bool, tag = "7")]
    blind: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Source {
    #[prost(string, tag = "1")]
    stream: String,
    #[prost(sint64, tag = "2")]
    created_ms: i64,
    #[prost(string, tag = "3")]
    shard: String,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(uint64, tag = "5")]
    applied: u64,
    #[prost(uint32, tag = "6")]
    open_parts: u32,
    #[prost(uint32, repeated, tag = "7")]
    seen: Vec<u32>,
    #[prost(sint64, repeated, tag = "8")]
    watermarks: Vec<i64>,
    #[prost(uint32, repeated, tag = "9")]
    status: Vec<u32>,
    #[prost(bool, tag = "10")]
    in_set: bool,
    #[prost(bool, tag = "11")]
    ended: bool,
    #[prost(uint64, tag = "12")]
    open_expired: u64,
    #[prost(bool, tag = "13")]
    forgive: bool,
    #[prost(sint64, tag = "14")]
    ended_ms: i64,
    #[prost(bool, tag = "15")]
    open_diverged: bool,
    #[prost(bool, tag = "16")]
    named: bool,
    #[prost(bool, tag = "17")]
    heir: bool,
    #[prost(bool, tag = "18")]
    gone: bool,
}

impl Lane {
    pub(super) fn from_state(state: &LaneState) -> Self {
        let sources = state.sources.iter().map(|(id, entry)| Source {
            stream: id.stream.name.clone(),
            created_ms: id.stream.created_ms,
            shard: id.shard.as_str().to_owned(),
            epoch: entry.epoch,
            applied: entry.applied,
            open_parts: entry.open_parts,
            seen: entry.seen.clone(),
            watermarks: entry.watermarks.as_slice().to_vec(),
            status: entry.status.iter().map(|s| u32::from(s.code())).collect(),
            in_set: entry.in_set,
            ended: entry.ended,
            open_expired: entry.open_emission.0,
            open_diverged: entry.open_emission.1,
            forgive: entry.forgive,
            ended_ms: entry.ended_ms,
            named: entry.named,
            heir: entry.heir,
            gone: entry.gone,
        });
        Self {
            control: state.control,
            sources: sources.collect(),
            reached: state.reached.as_slice().to_vec(),
            gaps: state.gaps,
            forgive_unknown: state.forgive_unknown,
            accept_until_ms: (state.accept_until_ms != i64::MIN).then_some(state.accept_until_ms),
            blind: state.blind,
        }
    }

    pub(super) fn into_state(self, kinds: FeedKinds) -> LaneState {
        let sources = self.sources.into_iter().map(|s| {
            let stream = StreamId { name: s.stream, created_ms: s.created_ms };
            let id = SourceId { stream, shard: ShardId::new(s.shard) };
            let entry = Entry {
                epoch: s.epoch,
                applied: s.applied,
                open_parts: s.open_parts,
                seen: s.seen,
                watermarks: Watermarks::from_slice(&s.watermarks),
                status: s.status.iter().map(|code| Status::from_code(i64::from(*code))).collect(),
                in_set: s.in_set,
                ended: s.ended,
                open_emission: (s.open_expired, s.open_diverged),
                forgive: s.forgive,
                ended_ms: s.ended_ms,
                named: s.named,
                heir: s.heir,
                gone: s.gone,
            };
            (id, entry)
        });
        let sources: BTreeMap<SourceId, Entry> = sources.collect();
        LaneState {
            kinds,
            control: self.control,
            lows: Lows::of(kinds, sources.values()),
            sources,
            reached: Watermarks::from_slice(&self.reached),
            gaps: self.gaps,
            forgive_unknown: self.forgive_unknown,
            accept_until_ms: self.accept_until_ms.unwrap_or(i64::MIN),
            blind: self.blind,
        }
    }
}
