//! Flow records made by hand, as JSON lines.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::http::Answer;
use super::program::Program;

/// Milliseconds since 1970, by the machine's clock.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A healthy record of one second from subnet A to B. The source port makes it a record of its own.
pub(crate) fn flow(ts_ms: i64, src_port: u16) -> Value {
    json!({
        "ts_ms": ts_ms, "interval_ms": 1000, "src": "10.77.1.10", "dst": "10.77.2.10", "src_port": src_port,
        "dst_port": 443, "protocol": "tcp", "bytes": 1000, "packets": 10, "retransmits": 0, "timeouts": 0, "connects": 1,
        "connect_failures": 0, "rtt": { "count": 1, "min_us": 900, "max_us": 900, "sum_us": 900 }
    })
}

/// Records as JSON lines.
pub(crate) fn lines(flows: &[Value]) -> Vec<u8> {
    flows.iter().map(|flow| format!("{flow}\n")).collect::<String>().into_bytes()
}

/// POSTs records to `/v1/flows`.
pub(crate) fn send(program: &Program, flows: &[Value]) -> Answer {
    program.post("/v1/flows", &[("content-type", "application/x-ndjson")], &lines(flows)).unwrap()
}
