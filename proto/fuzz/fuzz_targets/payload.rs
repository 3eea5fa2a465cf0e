//! Any payload of a stream: what is taken is within the limits, what is refused was not handed on.
#![no_main]

use flowshift_proto::decode::{self, Item, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = Options { max_bytes: 1 << 20, arrival_ms: Some(1), ..Options::default() };
    let mut flows = 0u64;
    let decoded = decode::payload(bytes, &options, &mut |item| match item {
        Item::Flow(record) => {
            assert_eq!(record.check(), Ok(()));
            flows += 1;
        }
        Item::Report(report) => flows += report.flows.len() as u64,
    });
    assert_eq!(decoded.map_or(0, |decoded| decoded.records), flows);
});
