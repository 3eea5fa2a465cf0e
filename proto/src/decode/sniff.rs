//! What format are these bytes? Certain for our own forms, by the first bytes for the others.
//!
//! A flow batch starts with field 1 as fixed32 and a magic number; OTLP starts with field 1 as a message; JSON starts
//! with a brace. A wrong guess does no harm: the decoder of that format then refuses the bytes.

use super::gzip::{is_gzip, peek};
use super::protobuf::{Fields, Value};
use crate::flow_batch::MAGIC;

/// A known format, decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our protobuf `FlowBatch`.
    FlowBatch,
    /// An OTLP metrics request, as agents send.
    Otlp,
    /// JSON objects, one a line: flow records or agent reports.
    JsonLines,
    /// A CloudWatch Logs subscription envelope.
    LogsSubscription,
    /// A Kinesis Producer Library aggregate.
    KplAggregate,
    /// None of them.
    Unknown,
}

impl Format {
    /// The name used in messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::FlowBatch => "flow-batch",
            Format::Otlp => "otlp",
            Format::JsonLines => "json-lines",
            Format::LogsSubscription => "logs-subscription",
            Format::KplAggregate => "kpl-aggregate",
            Format::Unknown => "unknown",
        }
    }
}

const KPL_MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
/// How far a compressed payload is inflated to look at it.
const PEEK_BYTES: usize = 1024;

/// Tells the format by the first bytes; looks inside gzip (once, not at gzip within gzip).
pub fn sniff(bytes: &[u8]) -> Format {
    if is_gzip(bytes) {
        return sniff_plain(&peek(bytes, PEEK_BYTES));
    }
    sniff_plain(bytes)
}

pub(super) fn sniff_plain(bytes: &[u8]) -> Format {
    if bytes.starts_with(&KPL_MAGIC) {
        return Format::KplAggregate;
    }
    if let Some(Ok((1, Value::Fixed32(MAGIC)))) = Fields::new("FlowBatch", bytes).next() {
        return Format::FlowBatch;
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    if text.first() == Some(&b'{') {
        let head = &text[..text.len().min(PEEK_BYTES)];
        let is_envelope = contains(head, b"\"messageType\"") && contains(head, b"\"logGroup\"");
        return if is_envelope { Format::LogsSubscription } else { Format::JsonLines };
    }
    // The first field of an export request is a message; its length is not checked, since only a part may be here.
    if bytes.first() == Some(&0x0a)
        && bytes.len() > 2
        && (matches!(bytes.get(2), Some(0x0a | 0x12)) || bytes[1] >= 0x80)
    {
        return Format::Otlp;
    }
    Format::Unknown
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
