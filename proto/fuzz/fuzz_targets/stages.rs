//! Exchange batches, evidence, chunks and snapshots: never a panic.
#![no_main]

use flowshift_proto::evidence;
use flowshift_proto::exchange::Batch;
use flowshift_proto::snapshot::{self, ContentHash};
use flowshift_proto::state::{Chunk, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = Batch::decode(bytes) {
        batch.panes().for_each(|pane| assert_eq!(pane.cell.rtt.bins().count(), pane.cell.rtt.counts.len()));
    }
    if let Ok(step) = evidence::decode(bytes) {
        evidence::encode(step, evidence::MAX_BYTES);
    }
    let _ = Chunk::decode(bytes, Kind::Lane, 1);
    let _ = snapshot::decode(bytes, ContentHash::of(bytes));
});
