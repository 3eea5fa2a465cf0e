//! What bytes are that no decoder reads, as far as one can tell, and what to do about it.
//!
//! For the commonest mistakes: a flow log or a CloudWatch Logs subscription put straight into the stream. Pure.

use flowshift_proto::decode::{DEFAULT_MAX_BYTES, Format, gunzip_limited, is_gzip, sniff};

/// The fields of a flow log without which a record says nothing of a pair.
const NEEDED: [&str; 7] = ["srcaddr", "dstaddr", "protocol", "packets", "bytes", "start", "end"];
/// Fields of the default format, version 2.
const DEFAULT_FIELDS: usize = 14;
/// Records that begin no header are looked at up to here, bytes.
const START: usize = 4096;

/// Advice on a payload that cannot be read; none when there is nothing to say beyond the decoder's words.
pub(super) fn guess(payload: &[u8]) -> Option<String> {
    if sniff(payload) == Format::LogsSubscription {
        return Some(NOT_READ.replace("{}", "CloudWatch Logs subscriptions"));
    }
    let plain = if is_gzip(payload) { gunzip_limited(payload, DEFAULT_MAX_BYTES).ok()? } else { payload.to_vec() };
    let text = String::from_utf8_lossy(plain.get(..START.min(plain.len()))?).into_owned();
    let words: Vec<&str> = text.lines().next()?.split_whitespace().collect();
    let header = words.iter().filter(|word| NEEDED.contains(word) || **word == "account-id").count() >= 2;
    if header {
        let lacks: Vec<&str> = NEEDED.into_iter().filter(|field| !words.contains(field)).collect();
        let lacks = if lacks.is_empty() {
            String::new()
        } else {
            format!("; its format string lacks {} as well", lacks.join(", "))
        };
        return Some(format!("{}{lacks}", NOT_READ.replace("{}", "VPC Flow Logs")));
    }
    is_flow_log(&words).then(|| {
        let fields = words.len();
        let few = if fields < DEFAULT_FIELDS {
            format!(
                "; its lines have {fields} fields where the default format has {DEFAULT_FIELDS}: a format string \
                 needs {}",
                NEEDED.join(", ")
            )
        } else {
            String::new()
        };
        format!("{}{few}", NOT_READ.replace("{}", "VPC Flow Logs"))
    })
}

const NOT_READ: &str =
    "these are {}, which this version does not read: feed agent reports or own records (JSON lines, FlowBatch)";

/// Words of a line of a flow log: an interface, and a verdict or a status at the end.
fn is_flow_log(words: &[&str]) -> bool {
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
    words.iter().any(|word| word.starts_with("eni-")) && has(&["ACCEPT", "REJECT", "OK", "NODATA", "SKIPDATA"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_logs_are_known_by_their_header_or_by_their_lines() {
        let line = "2 123456789010 eni-1235b8ca1 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 \
                    ACCEPT OK";
        let told = guess(line.as_bytes()).unwrap();
        assert!(told.contains("VPC Flow Logs") && !told.contains("format string"), "{told}");
        let short = guess(b"eni-1235b8ca1 172.31.16.139 172.31.16.21 ACCEPT").unwrap();
        assert!(short.contains("4 fields") && short.contains("srcaddr"), "{short}");
        let header = guess(b"version account-id srcaddr dstaddr start end\n").unwrap();
        assert!(header.contains("lacks protocol, packets, bytes"), "{header}");
    }

    #[test]
    fn of_anything_else_nothing_is_guessed() {
        for bytes in [&b"\xff\xfe\x00"[..], b"{\"a\":1}", b"", b"hello world"] {
            assert_eq!(guess(bytes), None, "{bytes:?}");
        }
    }
}
