//! From bytes of unknown origin to flow records and agent reports.
//!
//! [`payload`] is the door for stream records: it looks at the bytes, decompresses, and hands every record and report
//! to a sink. The single decoders stand behind it for callers that know what they have. A decoder either takes a
//! payload, counting its bad records by reason in [`Decoded`], or refuses the whole of it with a [`DecodeError`] (then
//! the caller counts one record under [`DecodeError::reason`]). Nothing here knows topology, lateness or duplicates.

mod agent_json;
mod agent_otlp;
mod error;
mod flow_batch;
mod gzip;
mod json_lines;
mod payload;
mod protobuf;
mod sniff;
mod value;

pub use agent_otlp::{agent_report, agent_reports};
pub use error::{DecodeError, ValueError};
pub use flow_batch::flow_batch;
pub use gzip::{DEFAULT_MAX_BYTES, gunzip_limited, gzip, is_gzip};
pub use json_lines::json_lines;
pub use payload::{Decoded, InputFormat, Item, Options, Problem, payload};
pub use sniff::{Format, sniff};
