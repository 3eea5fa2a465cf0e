//! What a lane says about a step, on its way from DETECT to CORRELATE.
//!
//! For: [`StepEvidence`] as one record and back; everything the correlator reads survives exactly.
//! Not for: the key that makes repeats harmless, nor the order of records; see [`flowshift_proto::evidence`].
//! Invariant: the bytes are a function of the evidence alone. A record above 64 KB loses its weakest rows, which are
//! counted in `rows_left_out`; sums over quiet pairs are never lost.
//! The wire orders signals by its own numbers; reading puts them back into the detector's order.

use flowshift_detector::evidence::{Effect, ElementSum, PairRow, PooledNats, PooledSum, SignalRow};
use flowshift_detector::{Element, ElementKind, FeedKind, Pair, Signal, Stage, StepEvidence, Subnet, Word};
use flowshift_proto::evidence as wire;
use flowshift_proto::flow::FeedKind as WireFeedKind;

use super::ConvertError;
use super::pane::{end_from_wire, feed_from_wire, feed_to_wire};
use super::word;

/// Encodes the evidence of `lane`; `topology_hash` is the content hash of the topology behind it.
pub fn encode(lane: u16, topology_hash: &[u8], evidence: &StepEvidence) -> Vec<u8> {
    let record = wire::StepEvidence {
        version: wire::VERSION,
        lane: u32::from(lane),
        feed: feed_to_wire(evidence.kind) as i32,
        first_step_start_s: evidence.step_start_s,
        step_s: evidence.step_s,
        step_count: evidence.steps,
        last: evidence.last,
        topology_hash: topology_hash.to_vec(),
        elements: evidence.elements.iter().map(|sum| sum_to_wire(sum, &evidence.pooled)).collect(),
        rows: evidence.rows.iter().map(row_to_wire).collect(),
        rows_left_out: evidence.rows_left_out,
        skip: false,
        word: None,
    };
    wire::encode(record, wire::MAX_BYTES)
}

/// Encodes that nobody waits for `lane` in the steps of `step_s` seconds that end by `until_s` (epoch s).
pub fn encode_skip(lane: u16, kind: FeedKind, step_s: u32, until_s: i64) -> Vec<u8> {
    let record = wire::StepEvidence {
        lane: u32::from(lane),
        feed: feed_to_wire(kind) as i32,
        first_step_start_s: until_s.saturating_sub(i64::from(step_s)),
        step_s,
        step_count: 1,
        skip: true,
        ..wire::StepEvidence::default()
    };
    wire::encode(record, wire::MAX_BYTES)
}

/// What stands in a record of the evidence stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A lane says something.
    Evidence(u16, StepEvidence),
    /// Nobody waits for a lane any more, up to here (end of a step, epoch s).
    Skip(u16, FeedKind, i64),
    /// An operator says something.
    Word(Word),
}

/// Who says what.
///
/// # Errors
/// When the bytes are no evidence of version 1, a number is outside its set or range, a part is missing, a list does not
/// ascend, evidence of several steps says something about one, or a word is longer than words can be.
pub fn decode(bytes: &[u8]) -> Result<Said, ConvertError> {
    let record = wire::decode(bytes)?;
    if let Some(said) = &record.word {
        return Ok(Said::Word(word::from_wire(said)?));
    }
    let lane = narrow::<u16>("lane", record.lane, u16::MAX)?;
    let evidence = StepEvidence {
        kind: feed_from_number(record.feed)?,
        step_start_s: record.first_step_start_s,
        step_s: record.step_s,
        steps: record.step_count,
        last: record.last,
        pooled: record.elements.iter().filter_map(|sum| pooled_from_wire(sum).transpose()).collect::<Result<_, _>>()?,
        elements: record.elements.iter().map(sum_from_wire).collect::<Result<_, _>>()?,
        rows: record.rows.iter().map(row_from_wire).collect::<Result<_, _>>()?,
        rows_left_out: record.rows_left_out,
    };
    if record.skip {
        return Ok(Said::Skip(lane, evidence.kind, evidence.end_s()));
    }
    ascending("sums", evidence.elements.iter().map(|sum| &sum.element))?;
    ascending("rows", evidence.rows.iter().map(|row| &row.pair))?;
    if evidence.steps != 1 && !evidence.is_empty() {
        let rows = evidence.elements.len().saturating_add(evidence.rows.len()) as u64;
        let rows = rows.saturating_add(u64::from(evidence.rows_left_out));
        return Err(ConvertError::RunNotEmpty { steps: evidence.steps, rows });
    }
    Ok(Said::Evidence(lane, evidence))
}

fn sum_to_wire(sum: &ElementSum, pooled: &[PooledSum]) -> wire::ElementSum {
    let found = pooled.binary_search_by(|other| other.element.cmp(&sum.element)).ok();
    let found = found.and_then(|index| pooled.get(index));
    let numbers =
        |of: fn(&PooledSum) -> &PooledNats| found.map_or_else(Vec::new, |sum| of(sum).as_flattened().to_vec());
    wire::ElementSum {
        kind: kind_to_wire(sum.element.kind) as i32,
        id: sum.element.id.to_string(),
        pairs: sum.pairs,
        powered: sum.powered,
        against_mnats: sum.against_mn,
        loss_mnats: sum.loss_mn,
        latency_mnats: sum.latency_mn,
        step_mnats: numbers(|sum| &sum.sum_mn),
        step_top_mnats: numbers(|sum| &sum.top_mn),
    }
}

fn sum_from_wire(sum: &wire::ElementSum) -> Result<ElementSum, ConvertError> {
    if sum.id.is_empty() {
        return Err(ConvertError::Missing { what: "id of an element" });
    }
    Ok(ElementSum {
        element: element_from_wire(sum)?,
        pairs: sum.pairs,
        powered: sum.powered,
        against_mn: sum.against_mnats,
        loss_mn: sum.loss_mnats,
        latency_mn: sum.latency_mnats,
    })
}

fn element_from_wire(sum: &wire::ElementSum) -> Result<Element, ConvertError> {
    Ok(Element { kind: kind_from_number(sum.kind)?, id: sum.id.as_str().into() })
}

fn pooled_from_wire(sum: &wire::ElementSum) -> Result<Option<PooledSum>, ConvertError> {
    let mut pooled = PooledSum::nothing(element_from_wire(sum)?);
    for (to, from) in [(&mut pooled.sum_mn, &sum.step_mnats), (&mut pooled.top_mn, &sum.step_top_mnats)] {
        to.as_flattened_mut().iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    Ok(Some(pooled).filter(|pooled| !pooled.is_zero()))
}

fn row_to_wire(row: &PairRow) -> wire::PairRow {
    wire::PairRow {
        src: Some(end_to_wire(&row.pair.src)),
        dst: Some(end_to_wire(&row.pair.dst)),
        flows: row.flows,
        segments: row.segments,
        top_flow_share_ppm: row.top_flow_share_ppm,
        late_share_ppm: row.late_share_ppm,
        truncated: row.truncated,
        stage: stage_to_wire(row.stage) as i32,
        signals: row.signals.iter().map(signal_row_to_wire).collect(),
    }
}

fn row_from_wire(row: &wire::PairRow) -> Result<PairRow, ConvertError> {
    let mut signals = row.signals.iter().map(signal_row_from_wire).collect::<Result<Vec<_>, _>>()?;
    signals.sort_by_key(|signal| signal.signal);
    if let Some(twice) = signals.windows(2).find(|two| two[0].signal == two[1].signal) {
        return Err(ConvertError::Order { what: "signals", at: format!("{:?}", twice[1].signal) });
    }
    Ok(PairRow {
        pair: Pair { src: end(row.src.as_ref())?, dst: end(row.dst.as_ref())? },
        flows: row.flows,
        segments: row.segments,
        top_flow_share_ppm: row.top_flow_share_ppm,
        late_share_ppm: row.late_share_ppm,
        truncated: row.truncated,
        stage: stage_from_number(row.stage)?,
        signals,
    })
}

fn end_to_wire(subnet: &Subnet) -> wire::End {
    let az = subnet.az.as_deref().unwrap_or_default().to_owned();
    wire::End { id: subnet.id.to_string(), az, edge: subnet.edge }
}

fn end(end: Option<&wire::End>) -> Result<Subnet, ConvertError> {
    let end = end.ok_or(ConvertError::Missing { what: "end of a pair" })?;
    end_from_wire(&end.id, &end.az, end.edge)
}

fn signal_row_to_wire(row: &SignalRow) -> wire::SignalRow {
    let effect = wire::Effect {
        baseline: row.effect.baseline,
        baseline_n: row.effect.baseline_n,
        baseline_age_s: row.effect.baseline_age_s,
        observed: row.effect.observed,
        observed_n: row.effect.observed_n,
        observed_s: row.effect.observed_s,
        quantile_pct: u32::from(row.effect.quantile_pct),
        low: row.effect.low,
        high: row.effect.high,
    };
    wire::SignalRow {
        signal: signal_to_wire(row.signal) as i32,
        score_mnats: row.score_mn,
        threshold_mnats: row.threshold_mn,
        alarmed: row.alarmed,
        new_normal: row.new_normal,
        since_s: row.since_s,
        // The lane does not tell and the correlator does not ask.
        learned: false,
        effect: Some(effect),
    }
}

fn signal_row_from_wire(row: &wire::SignalRow) -> Result<SignalRow, ConvertError> {
    let effect = row.effect.as_ref().ok_or(ConvertError::Missing { what: "effect of a signal" })?;
    Ok(SignalRow {
        signal: signal_from_number(row.signal)?,
        score_mn: row.score_mnats,
        threshold_mn: row.threshold_mnats,
        alarmed: row.alarmed,
        new_normal: row.new_normal,
        since_s: row.since_s,
        effect: Effect {
            baseline: effect.baseline,
            baseline_n: effect.baseline_n,
            baseline_age_s: effect.baseline_age_s,
            observed: effect.observed,
            observed_n: effect.observed_n,
            observed_s: effect.observed_s,
            quantile_pct: narrow::<u8>("quantile", effect.quantile_pct, u8::MAX)?,
            low: effect.low,
            high: effect.high,
        },
    })
}

fn feed_from_number(number: i32) -> Result<FeedKind, ConvertError> {
    [WireFeedKind::Reports, WireFeedKind::FlowLogs]
        .into_iter()
        .find(|kind| *kind as i32 == number)
        .map(feed_from_wire)
        .ok_or(ConvertError::UnknownNumber { what: "feed kind", number })
}

fn kind_to_wire(kind: ElementKind) -> wire::ElementKind {
    match kind {
        ElementKind::Pair => wire::ElementKind::Pair,
        ElementKind::Subnet => wire::ElementKind::Subnet,
        ElementKind::Az => wire::ElementKind::Az,
        ElementKind::AzPath => wire::ElementKind::AzPath,
        ElementKind::Internet => wire::ElementKind::Internet,
    }
}

fn kind_from_number(number: i32) -> Result<ElementKind, ConvertError> {
    match wire::ElementKind::try_from(number) {
        Ok(wire::ElementKind::Pair) => Ok(ElementKind::Pair),
        Ok(wire::ElementKind::Subnet) => Ok(ElementKind::Subnet),
        Ok(wire::ElementKind::Az) => Ok(ElementKind::Az),
        Ok(wire::ElementKind::AzPath) => Ok(ElementKind::AzPath),
        Ok(wire::ElementKind::Internet) => Ok(ElementKind::Internet),
        Ok(wire::ElementKind::Unspecified) | Err(_) => {
            Err(ConvertError::UnknownNumber { what: "kind of element", number })
        }
    }
}

pub(super) fn signal_to_wire(signal: Signal) -> wire::Signal {
    match signal {
        Signal::Connect => wire::Signal::Connect,
        Signal::Retransmit => wire::Signal::Retransmit,
        Signal::Latency => wire::Signal::Latency,
        Signal::Silence => wire::Signal::Silence,
    }
}

pub(super) fn signal_from_number(number: i32) -> Result<Signal, ConvertError> {
    match wire::Signal::try_from(number) {
        Ok(wire::Signal::Connect) => Ok(Signal::Connect),
        Ok(wire::Signal::Retransmit) => Ok(Signal::Retransmit),
        Ok(wire::Signal::Latency) => Ok(Signal::Latency),
        Ok(wire::Signal::Silence) => Ok(Signal::Silence),
        Ok(wire::Signal::Unspecified) | Err(_) => Err(ConvertError::UnknownNumber { what: "signal", number }),
    }
}

fn stage_to_wire(stage: Stage) -> wire::Stage {
    match stage {
        Stage::ClassPrior => wire::Stage::ClassPrior,
        Stage::PairRate => wire::Stage::PairRate,
        Stage::Settled => wire::Stage::Settled,
        Stage::DailySeason => wire::Stage::DailySeason,
    }
}

fn stage_from_number(number: i32) -> Result<Stage, ConvertError> {
    match wire::Stage::try_from(number) {
        Ok(wire::Stage::ClassPrior) => Ok(Stage::ClassPrior),
        Ok(wire::Stage::PairRate) => Ok(Stage::PairRate),
        Ok(wire::Stage::Settled) => Ok(Stage::Settled),
        Ok(wire::Stage::DailySeason) => Ok(Stage::DailySeason),
        Ok(wire::Stage::Unspecified) | Err(_) => {
            Err(ConvertError::UnknownNumber { what: "stage of a baseline", number })
        }
    }
}

fn narrow<T: TryFrom<u32>>(what: &'static str, value: u32, max: impl Into<u64>) -> Result<T, ConvertError> {
    T::try_from(value).map_err(|_| ConvertError::OutOfRange { what, value: value.into(), max: max.into() })
}

fn ascending<'a, T>(what: &'static str, rows: impl Iterator<Item = &'a T>) -> Result<(), ConvertError>
where
    T: Ord + std::fmt::Display + 'a,
{
    let mut last: Option<&T> = None;
    for row in rows {
        if last.is_some_and(|last| last >= row) {
            return Err(ConvertError::Order { what, at: row.to_string() });
        }
        last = Some(row);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
