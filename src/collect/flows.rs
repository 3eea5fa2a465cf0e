//! Own producers' bodies cut into records.
//!
//! Bytes are cut, never rewritten: JSON lines at line ends, a `FlowBatch` between its flows, the other fields repeated in front
//! of each piece. Bad lines and flows travel with the good ones, so that the pipeline counts them; a body in which nothing
//! is good is refused. Invariant: every record made here is recognised by the pipeline on its own.

use bytes::{Buf, Bytes, BytesMut};
use flowshift_proto::decode::{Decoded, Format, flow_batch, json_lines, sniff};

use super::request::Accepted;
use super::{MAX_RECORD_BYTES, PartitionKey, Record, Refusal};

/// A record is closed before it grows above this.
const PIECE_BYTES: usize = 512 << 10;
/// Most records of one body; only hostile bodies come near.
const MAX_RECORDS: usize = 500;
/// Most bytes of a batch's other fields: they are repeated in every piece.
const MAX_HEAD_BYTES: usize = 128 << 10;
/// `FlowBatch.flows`: its field number and length-delimited wire type.
const FLOWS_TAG: u64 = (4 << 3) | 2;

/// Cuts JSON lines.
///
/// # Errors
/// [`Refusal::Empty`] without a line, [`Refusal::Malformed`] when no line is a flow record, [`Refusal::RecordTooLarge`] when a
/// line is above a record.
pub(super) fn json_records(plain: &Bytes) -> Result<Accepted, Refusal> {
    let decoded = json_lines(plain, &mut |_| {})?;
    refuse_all_bad(&decoded, "lines")?;
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < plain.len() {
        let end = plain[at..].iter().position(|&byte| byte == b'\n').map_or(plain.len(), |found| at + found + 1);
        if start < at && end - start > PIECE_BYTES {
            pieces.push(plain.slice(start..at));
            start = at;
        }
        // The pipeline tells JSON lines by the first one: what does not look like one must not stand first.
        if start == at && sniff(&plain[at..end]) != Format::JsonLines {
            if !is_blank(&plain[at..end]) {
                pieces.push(plain.slice(at..end));
            }
            start = end;
        }
        if pieces.len() > MAX_RECORDS {
            return Err(Refusal::Malformed(format!("more than {MAX_RECORDS} lines that are no JSON objects in front")));
        }
        at = end;
    }
    if start < plain.len() {
        pieces.push(plain.slice(start..));
    }
    finish(plain, pieces, &decoded, "line")
}

/// Cuts a `FlowBatch`.
///
/// # Errors
/// [`Refusal::Empty`] without a flow, [`Refusal::Malformed`] when it is no batch or no flow can be read,
/// [`Refusal::RecordTooLarge`] when a flow with the batch's other fields is above a record.
pub(super) fn batch_records(plain: &Bytes) -> Result<Accepted, Refusal> {
    let decoded = flow_batch(plain, &mut |_| {})?;
    refuse_all_bad(&decoded, "flows")?;
    if decoded.records == 0 {
        return Err(Refusal::Empty);
    }
    if sniff(plain) != Format::FlowBatch {
        return Err(Refusal::Malformed("the magic number of the flow batch is not its first field".to_owned()));
    }
    let pieces = if plain.len() <= PIECE_BYTES { vec![plain.clone()] } else { cut_batch(plain)? };
    finish(plain, pieces, &decoded, "flow")
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

fn refuse_all_bad(decoded: &Decoded, what: &str) -> Result<(), Refusal> {
    match &decoded.first_problem {
        Some(problem) if decoded.records == 0 => Err(Refusal::Malformed(format!(
            "none of {} {what} can be read, number {}: {}",
            decoded.rejected.total(),
            problem.position,
            problem.error
        ))),
        _ => Ok(()),
    }
}

fn finish(plain: &Bytes, pieces: Vec<Bytes>, decoded: &Decoded, what: &'static str) -> Result<Accepted, Refusal> {
    let partition_key = PartitionKey::of_content(plain);
    let record = |data| Record { partition_key: partition_key.clone(), data };
    let records = pieces.into_iter().map(record).collect::<Vec<_>>();
    if let Some(large) = records.iter().find(|record| record.size() > MAX_RECORD_BYTES) {
        return Err(Refusal::RecordTooLarge { what, bytes: large.size(), limit: MAX_RECORD_BYTES });
    }
    Ok(Accepted { records, accepted: decoded.records, malformed: decoded.rejected.total() })
}

/// Cuts between flows, in two walks and without a list of flows: two bytes can be a flow.
fn cut_batch(plain: &Bytes) -> Result<Vec<Bytes>, Refusal> {
    // The decoder checked the framing; what does not add up is refused all the same.
    let cut = || Refusal::Malformed("flow batch is cut".to_owned());
    let mut head = BytesMut::new();
    for field in Fields(plain.clone()) {
        match field.ok_or_else(cut)? {
            (FLOWS_TAG, _) => {}
            (_, other) => head.extend_from_slice(&other),
        }
    }
    if head.len() > MAX_HEAD_BYTES {
        return Err(Refusal::RecordTooLarge { what: "flow batch head", bytes: head.len(), limit: MAX_HEAD_BYTES });
    }
    let mut pieces = Vec::new();
    let mut piece = head.clone();
    for field in Fields(plain.clone()) {
        let (FLOWS_TAG, flow) = field.ok_or_else(cut)? else { continue };
        if piece.len() > head.len() && piece.len() + flow.len() > PIECE_BYTES {
            pieces.push(std::mem::replace(&mut piece, head.clone()).freeze());
        }
        piece.extend_from_slice(&flow);
    }
    pieces.push(piece.freeze());
    Ok(pieces)
}

/// The top-level fields of a message, each as its tag and all its bytes; `None` where the framing is broken.
struct Fields(Bytes);

impl Iterator for Fields {
    type Item = Option<(u64, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0.clear();
        }
        Some(field)
    }
}

impl Fields {
    fn field(&mut self) -> Option<(u64, Bytes)> {
        let mut rest = self.0.clone();
        let tag = varint(&mut rest)?;
        let skip = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        if skip > rest.len() {
            return None;
        }
        rest.advance(skip);
        Some((tag, self.0.split_to(self.0.len() - rest.len())))
    }
}

fn varint(bytes: &mut Bytes) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.first().copied()?;
        bytes.advance(1);
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use flowshift_proto::decode::{Item, Options, payload};
    use flowshift_proto::flow::{FeedKind, FlowRecord};
    use flowshift_proto::flow_batch::encode;

    use super::*;

    fn line(number: usize) -> String {
        format!(r#"{{"ts_ms":{number},"interval_ms":1000,"src":"10.0.0.1","dst":"10.0.1.1","bytes":1,"new":"field"}}"#)
    }

    /// Records and refused records as the pipeline will count them, and the start of every record in order.
    fn pipeline(accepted: &Accepted) -> (u64, u64, Vec<i64>) {
        let (mut good, mut bad, mut starts) = (0, 0, Vec::new());
        for record in &accepted.records {
            let mut sink = |item: Item<'_>| {
                if let Item::Flow(flow) = item {
                    starts.push(flow.start_ms);
                }
            };
            match payload(&record.data, &Options::default(), &mut sink) {
                Ok(decoded) => {
                    good += decoded.records;
                    bad += decoded.rejected.total();
                }
                Err(_) => bad += 1,
            }
        }
        (good, bad, starts)
    }

    #[test]
    fn lines_are_cut_at_line_ends_and_all_arrive_in_order() {
        let text = Bytes::from((0..20_000).map(|n| line(n) + "\n").collect::<String>());
        let accepted = json_records(&text).unwrap();
        assert_eq!(accepted.records.len(), text.len().div_ceil(PIECE_BYTES));
        let joined = accepted.records.iter().flat_map(|record| record.data.to_vec()).collect::<Vec<_>>();
        assert_eq!(joined, text);
        assert!(accepted.records.iter().all(|record| record.data.len() <= PIECE_BYTES));
        assert!(accepted.records.iter().all(|r| r.partition_key == PartitionKey::of_content(&text)));
        assert_eq!(pipeline(&accepted), (20_000, 0, (0..20_000).collect()));
        assert_eq!((accepted.accepted, accepted.malformed), (20_000, 0));
    }

    #[test]
    fn bad_lines_travel_with_the_good_ones_wherever_they_stand() {
        for text in [
            format!("garbage\n{}\n", line(1)),
            format!("\n\ngarbage\r\n[1]\n{}\nmore garbage\n{}", line(1), line(2)),
            format!("{}\n{{\"ts_ms\":1e99}}\n", line(1)),
            format!("{}\n\u{1f}\n", line(1)),
        ] {
            let accepted = json_records(&Bytes::from(text.clone())).unwrap();
            let (good, bad, _) = pipeline(&accepted);
            assert_eq!((good, bad), (accepted.accepted, accepted.malformed), "{text:?}");
            assert!(good > 0 && bad > 0);
        }
    }

    #[test]
    fn a_body_without_any_good_line_is_refused_with_the_first_problem() {
        let refusal = json_records(&Bytes::from_static(b"x\ny\n")).unwrap_err();
        assert!(refusal.to_string().starts_with("none of 2 lines can be read, number 1: "), "{refusal}");
        assert_eq!(json_records(&Bytes::from_static(b"\n \n")).unwrap_err(), Refusal::Empty);
    }

    #[test]
    fn endless_lines_that_are_no_objects_do_not_become_endless_records() {
        let text = "x\n".repeat(100_000) + &line(1);
        assert_eq!(json_records(&Bytes::from(text)).unwrap_err().reason(), "malformed");
    }

    #[test]
    fn a_line_above_a_record_is_refused() {
        let text = format!("{}\n{{\"ts_ms\":1,\"x\":\"{}\"}}\n", line(1), "y".repeat(MAX_RECORD_BYTES));
        assert_eq!(json_records(&Bytes::from(text)).unwrap_err().reason(), "record_too_large");
    }

    fn flows(count: i64) -> Vec<FlowRecord> {
        let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.1.1".parse().unwrap());
        (0..count).map(|n| FlowRecord::new(n, n + 1_000, src, dst)).collect()
    }

    #[test]
    fn a_batch_is_cut_between_flows_and_every_piece_is_a_batch() {
        let plain = Bytes::from(encode(FeedKind::FlowLogs, &flows(60_000)));
        assert!(plain.len() > 2 * PIECE_BYTES);
        let accepted = batch_records(&plain).unwrap();
        assert!(accepted.records.len() > 2);
        assert!(accepted.records.iter().all(|record| record.data.len() <= PIECE_BYTES));
        assert_eq!(pipeline(&accepted), (60_000, 0, (0..60_000).collect()));
        for record in &accepted.records {
            let mut feeds = Vec::new();
            flow_batch(&record.data, &mut |flow| feeds.push(flow.feed)).unwrap();
            assert!(feeds.iter().all(|feed| *feed == FeedKind::FlowLogs));
        }
    }

    #[test]
    fn a_small_batch_goes_through_unchanged_and_an_empty_one_is_refused() {
        let plain = Bytes::from(encode(FeedKind::Reports, &flows(3)));
        assert_eq!(batch_records(&plain).unwrap().records[0].data, plain);
        let empty = Bytes::from(encode(FeedKind::Reports, &[]));
        assert_eq!(batch_records(&empty).unwrap_err(), Refusal::Empty);
        let late_magic = Bytes::from([&plain[5..], &plain[..5]].concat());
        assert_eq!(batch_records(&late_magic).unwrap_err().reason(), "malformed");
    }
}
