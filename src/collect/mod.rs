//! The door for agents and own producers: HTTP in, Kinesis records out.
//!
//! `POST /v1/agent-reports` (alias `/publish`) takes a Network Flow Monitor agent's body as it sends it; `POST /v1/flows` takes
//! JSON lines or a protobuf `FlowBatch`. A body is checked, never changed in meaning, and answered 200 only when all of its
//! records are in Kinesis: a client that repeats what was not answered 200 loses nothing, and repeats are dropped later, in
//! AGGREGATE, because the same body gives the same records under the same partition key.
//!
//! Not here: mapping to subnets, de-duplication, authentication (the agent's SigV4 header is ignored; listen on loopback or
//! inside the VPC).
//!
//! Invariants: every answer is counted under one reason; memory is bounded by [`CollectOptions`], whatever clients send.
//!
//! Reading order: `server` (routes and life cycle), `request` (one POST), `body` (limits), `agent` and `flows` (bytes → records),
//! `refusal`, then `sink` (the seam), `batcher` and `grouping` (few calls for many
//! requests) and `kinesis` (the SDK).

mod agent;
mod batcher;
mod body;
mod flows;
mod grouping;
mod kinesis;
mod options;
mod refusal;
mod request;
mod server;
mod sink;

#[cfg(test)]
mod tests;

pub use batcher::{KinesisSink, SinkOptions};
pub use kinesis::{CallError, EntryError, KinesisStream, PutRecords};
pub use options::CollectOptions;
pub use refusal::Refusal;
pub use server::{Collector, serve};
pub use sink::{MAX_RECORD_BYTES, PartitionKey, Record, RecordSink, SinkError};
