//! An agent's report: what was read is written and read again without a change.
#![no_main]

use flowshift_proto::agent_report::encode;
use flowshift_proto::decode;
use flowshift_proto::reason::ReasonCounts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut report) = decode::agent_report(bytes) {
        report.rejected = ReasonCounts::default();
        report.first_problem = None;
        assert_eq!(decode::agent_report(&encode(&report)), Ok(report));
    }
});
