//! Panes on their way from AGGREGATE to DETECT.
//!
//! For: one [`PaneCell`] as an exchange cell and back, exactly; subnets and feed kinds both ways.
//! Not for: batches, parts and their order; see [`flowshift_proto::exchange::Builder`].
//! Invariant: `from_exchange(to_exchange(cell)) == cell` for every cell that records and merges can make, also when its
//! counters are saturated. The wire has no "absent" for the extremes of the round-trip times: they are known exactly
//! when the pane has a round-trip time.

use flowshift_detector::pane::{AgentSample, ByState, Counters, PeerCounts, PeerSample, Quality, RttCell};
use flowshift_detector::{FeedKind, Pair, PaneCell, Subnet};
use flowshift_proto::exchange::{self as wire, PaneRef};
use flowshift_proto::flow::FeedKind as WireFeedKind;

use super::ConvertError;

/// The feed kind on the wire.
pub fn feed_to_wire(kind: FeedKind) -> WireFeedKind {
    match kind {
        FeedKind::Reports => WireFeedKind::Reports,
        FeedKind::FlowLogs => WireFeedKind::FlowLogs,
    }
}

/// The detector's feed kind.
pub fn feed_from_wire(kind: WireFeedKind) -> FeedKind {
    match kind {
        WireFeedKind::Reports => FeedKind::Reports,
        WireFeedKind::FlowLogs => FeedKind::FlowLogs,
    }
}

/// A subnet with the VPC it stands in (empty for an edge or when unknown). A zone without a name is an unknown zone.
pub fn subnet_to_wire(subnet: &Subnet, vpc: &str) -> wire::Subnet {
    wire::Subnet {
        id: subnet.id.to_string(),
        az: subnet.az.as_deref().unwrap_or_default().to_owned(),
        vpc: vpc.to_owned(),
        edge: subnet.edge,
    }
}

/// The detector's subnet; it does not know VPCs.
///
/// # Errors
/// [`ConvertError::Missing`] when the id is empty.
pub fn subnet_from_wire(subnet: &wire::Subnet) -> Result<Subnet, ConvertError> {
    end_from_wire(&subnet.id, &subnet.az, subnet.edge)
}

pub(super) fn end_from_wire(id: &str, az: &str, edge: bool) -> Result<Subnet, ConvertError> {
    if id.is_empty() {
        return Err(ConvertError::Missing { what: "id of an end of a pair" });
    }
    Ok(Subnet { id: id.into(), az: (!az.is_empty()).then(|| az.into()), edge })
}

/// The exchange form of one pane of one pair.
///
/// # Errors
/// [`ConvertError::RttTotals`] when the cell knows extremes without round-trip times or the other way round, which
/// recording and merging never make.
pub fn to_exchange(cell: &PaneCell) -> Result<wire::Cell, ConvertError> {
    let peers = cell.peers.iter().map(|(peer, counts)| wire::PeerRow {
        peer,
        flows: counts.flows,
        retransmits: counts.retransmits,
        rtt_sum_us: counts.rtt_sum_us,
        rtt_n: counts.rtt_n,
    });
    Ok(wire::Cell {
        counters: counters_to_wire(&cell.counters, cell.max_retransmits),
        rtt: rtt_to_wire(&cell.rtt)?,
        peers: peers.collect(),
        quality: wire::Quality {
            records: cell.quality.records,
            late: cell.quality.late,
            agent_hashes: cell.quality.agents.iter().collect(),
            truncated_hashes: cell.quality.truncated.iter().collect(),
        },
    })
}

/// One decoded pane as the detector takes it: pair, feed kind, start of the pane in epoch seconds, cell.
///
/// # Errors
/// When an end has no id, a bin is no bin of the detector's histogram, the number of round-trip times or their extremes
/// contradict the bins, or a sample is larger than its bound.
pub fn from_exchange(pane: &PaneRef<'_>) -> Result<(Pair, FeedKind, i64, PaneCell), ConvertError> {
    let pair = Pair { src: subnet_from_wire(pane.src)?, dst: subnet_from_wire(pane.dst)? };
    let quality = &pane.cell.quality;
    let cell = PaneCell {
        counters: counters_from_wire(&pane.cell.counters),
        max_retransmits: pane.cell.counters.max_retransmits,
        rtt: rtt_from_wire(&pane.cell.rtt)?,
        peers: peers_from_wire(&pane.cell.peers)?,
        quality: Quality {
            records: quality.records,
            late: quality.late,
            agents: agents_from_wire("agents", &quality.agent_hashes)?,
            truncated: agents_from_wire("truncated agents", &quality.truncated_hashes)?,
        },
    };
    Ok((pair, feed_from_wire(pane.feed), pane.pane_start_s, cell))
}

fn counters_to_wire(counters: &Counters, max_retransmits: u64) -> wire::Counters {
    wire::Counters {
        flows: counters.flows,
        retransmit_flows: counters.retransmit_flows,
        segments: counters.segments,
        bytes: counters.bytes,
        retransmits_syn: counters.retransmits.syn,
        retransmits_established: counters.retransmits.est,
        retransmits_close: counters.retransmits.close,
        timeouts_syn: counters.timeouts.syn,
        timeouts_established: counters.timeouts.est,
        timeouts_close: counters.timeouts.close,
        connects: counters.connects,
        connect_failures: counters.connect_failures,
        resets: counters.resets,
        rejects: counters.rejects,
        max_retransmits,
    }
}

fn counters_from_wire(counters: &wire::Counters) -> Counters {
    Counters {
        flows: counters.flows,
        retransmit_flows: counters.retransmit_flows,
        segments: counters.segments,
        bytes: counters.bytes,
        retransmits: ByState {
            syn: counters.retransmits_syn,
            est: counters.retransmits_established,
            close: counters.retransmits_close,
        },
        timeouts: ByState {
            syn: counters.timeouts_syn,
            est: counters.timeouts_established,
            close: counters.timeouts_close,
        },
        connects: counters.connects,
        connect_failures: counters.connect_failures,
        resets: counters.resets,
        rejects: counters.rejects,
    }
}

fn rtt_to_wire(rtt: &RttCell) -> Result<wire::RttHistogram, ConvertError> {
    let bins = rtt.buckets().map(|(bucket, count)| (u32::from(bucket), count));
    let histogram = wire::RttHistogram {
        records: rtt.n(),
        min_us: rtt.min_us().unwrap_or(0),
        max_us: rtt.max_us().unwrap_or(0),
        samples: rtt.readings(),
        sum_us: rtt.sum_us(),
        ..wire::RttHistogram::from_bins(bins)?
    };
    let known = rtt.n() > 0;
    if rtt.min_us().is_some() != known || rtt.max_us().is_some() != known {
        return Err(totals(&histogram));
    }
    check_totals(&histogram)?;
    Ok(histogram)
}

fn rtt_from_wire(histogram: &wire::RttHistogram) -> Result<RttCell, ConvertError> {
    check_totals(histogram)?;
    let bad_bins = || ConvertError::Bins {
        bins: histogram.bin_deltas.len(),
        last: histogram.bins().last().map_or(0, |(bin, _)| bin),
    };
    let mut buckets = Vec::with_capacity(histogram.counts.len());
    for (bin, count) in histogram.bins() {
        buckets.push((u16::try_from(bin).map_err(|_| bad_bins())?, count));
    }
    let extremes = (histogram.records > 0).then_some((histogram.min_us, histogram.max_us));
    RttCell::from_parts(buckets, histogram.samples, histogram.sum_us, extremes).ok_or_else(bad_bins)
}

/// The number of values is the (saturating) sum of the bins, and without values there is nothing else.
fn check_totals(histogram: &wire::RttHistogram) -> Result<(), ConvertError> {
    let empty = histogram.min_us == 0 && histogram.max_us == 0 && histogram.samples == 0 && histogram.sum_us == 0;
    if histogram.records != counted(histogram) || (histogram.records == 0 && !empty) {
        return Err(totals(histogram));
    }
    Ok(())
}

fn counted(histogram: &wire::RttHistogram) -> u64 {
    histogram.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

fn totals(histogram: &wire::RttHistogram) -> ConvertError {
    ConvertError::RttTotals {
        records: histogram.records,
        counted: counted(histogram),
        min_us: histogram.min_us,
        max_us: histogram.max_us,
    }
}

fn peers_from_wire(rows: &[wire::PeerRow]) -> Result<PeerSample, ConvertError> {
    let mut sample = PeerSample::default();
    for row in rows {
        let counts =
            PeerCounts { flows: row.flows, retransmits: row.retransmits, rtt_n: row.rtt_n, rtt_sum_us: row.rtt_sum_us };
        sample.record(row.peer, &counts);
    }
    check_sample("peers", rows.len(), sample.len())?;
    Ok(sample)
}

fn agents_from_wire(what: &'static str, hashes: &[u64]) -> Result<AgentSample, ConvertError> {
    let mut sample = AgentSample::default();
    for hash in hashes {
        sample.record(*hash);
    }
    check_sample(what, hashes.len(), sample.iter().count())?;
    Ok(sample)
}

/// A writer sends what its own sample kept, so a repeated or surplus row was not written by one.
fn check_sample(what: &'static str, rows: usize, kept: usize) -> Result<(), ConvertError> {
    if rows == kept { Ok(()) } else { Err(ConvertError::Sample { what, rows, kept }) }
}

#[cfg(test)]
mod tests;
