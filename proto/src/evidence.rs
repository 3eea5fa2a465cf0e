//! What DETECT sends to CORRELATE: one record per lane, feed kind and step.
//!
//! The rows are the generated types of [`crate::wire`]; the program converts the detector's own types. Invariant: the
//! bytes are canonical (rows sorted, the weakest left out and counted when a record would be too large), so that a
//! repeat after a crash is equal byte for byte.

use prost::Message;

pub use crate::wire::flowshift::evidence::v1::{
    Acknowledge, Effect, ElementKind, ElementSum, End, Mute, NotAnIssue, PairIds, PairRow, Signal, SignalRow, Stage,
    StepEvidence, Unmute, Word, mute, word,
};

/// The version written.
pub const VERSION: u32 = 1;
/// Largest record of one lane and step, bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// Evidence cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The protobuf encoding is broken.
    #[error("step evidence is broken: {0}")]
    Broken(String),
    /// It was written by a program that knows another version.
    #[error("step evidence has version {0}, known is 1")]
    UnknownVersion(u32),
    /// A value is out of range.
    #[error("step evidence is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Encodes in canonical form: version set, rows and sums sorted, and the weakest rows left out (and added to
/// `rows_left_out`) until the record has at most `max_bytes`. Alarmed rows are the last to go. Sums are never dropped.
pub fn encode(mut evidence: StepEvidence, max_bytes: usize) -> Vec<u8> {
    evidence.version = VERSION;
    evidence.elements.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    for row in &mut evidence.rows {
        row.signals.sort_by_key(|signal| signal.signal);
    }
    // Strongest first, so that the weakest can be cut off the end; ties by pair, so that the cut is deterministic.
    evidence.rows.sort_by(|a, b| strength(b).cmp(&strength(a)).then_with(|| pair_of(a).cmp(&pair_of(b))));
    let mut bytes = evidence.encoded_len();
    while bytes > max_bytes {
        let Some(row) = evidence.rows.pop() else { break };
        evidence.rows_left_out = evidence.rows_left_out.saturating_add(1);
        // The counter itself may grow by a few bytes; recomputing the length only at the end keeps this linear.
        let row_bytes = row.encoded_len();
        bytes = bytes.saturating_sub(1 + prost::length_delimiter_len(row_bytes) + row_bytes);
        if bytes <= max_bytes {
            bytes = evidence.encoded_len();
        }
    }
    evidence.rows.sort_by(|a, b| pair_of(a).cmp(&pair_of(b)));
    evidence.encode_to_vec()
}

fn pair_of(row: &PairRow) -> (Option<&str>, Option<&str>) {
    (row.src.as_ref().map(|end| end.id.as_str()), row.dst.as_ref().map(|end| end.id.as_str()))
}

fn strength(row: &PairRow) -> (bool, i64) {
    let alarmed = row.signals.iter().any(|signal| signal.alarmed);
    let score = row.signals.iter().map(|signal| signal.score_mnats).max().unwrap_or(i64::MIN);
    (alarmed, score)
}

/// Decodes and checks.
///
/// # Errors
/// When the bytes are no evidence of version 1, a step has no length, or a skip or a word is more than that.
pub fn decode(bytes: &[u8]) -> Result<StepEvidence, EvidenceError> {
    let evidence = StepEvidence::decode(bytes).map_err(|error| EvidenceError::Broken(error.to_string()))?;
    if evidence.version != VERSION {
        return Err(EvidenceError::UnknownVersion(evidence.version));
    }
    if let Some(word) = &evidence.word {
        let alone = StepEvidence { version: VERSION, word: Some(word.clone()), ..StepEvidence::default() };
        return if evidence == alone { Ok(evidence) } else { Err(EvidenceError::Inconsistent("a word says a step")) };
    }
    if evidence.step_s == 0 {
        return Err(EvidenceError::Inconsistent("the step has no length"));
    }
    if evidence.step_count == 0 && !evidence.last {
        return Err(EvidenceError::Inconsistent("no step is covered"));
    }
    let says = !evidence.elements.is_empty() || !evidence.rows.is_empty() || evidence.rows_left_out > 0;
    if evidence.skip && (says || evidence.last || evidence.step_count != 1) {
        return Err(EvidenceError::Inconsistent("a skip says something besides its step"));
    }
    if evidence.rows.iter().any(|row| row.src.is_none() || row.dst.is_none()) {
        return Err(EvidenceError::Inconsistent("a row has no pair"));
    }
    Ok(evidence)
}

/// The key that makes repeats harmless: lane, feed kind, start of the first step.
pub fn key(evidence: &StepEvidence) -> (u32, i32, i64) {
    (evidence.lane, evidence.feed, evidence.first_step_start_s)
}
