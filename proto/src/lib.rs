//! Every format that crosses flowshift's process boundary, with its decoders. No I/O, no clock.
//!
//! In reading order:
//! * [`flow`]: the one internal form of a flow record, with the limits every input is held to;
//! * [`reason`]: the closed set of reasons why a record is not counted;
//! * [`decode`]: from bytes of unknown origin to flow records and agent reports;
//! * [`agent_report`]: a Network Flow Monitor agent's report, its mapping to flow records and its encoder;
//! * [`flow_batch`]: the encoder of our own protobuf form, for producers and re-chunking;
//! * [`exchange`], [`evidence`], [`state`], [`snapshot`]: what the stages tell each other and store;
//! * [`anomaly`]: the events receivers see, published as JSON Schema;
//! * [`wire`]: the types generated from the `.proto` files.
//!
//! Invariant: no input, however bad, makes a decoder panic or use memory beyond a small multiple of the stated
//! limits, and every record is either handed on or counted with a reason.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent_report;
pub mod anomaly;
pub mod decode;
pub mod evidence;
pub mod exchange;
pub mod flow;
pub mod flow_batch;
pub mod reason;
pub mod snapshot;
pub mod state;

/// Types generated from the `.proto` files of this crate, by package.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}
