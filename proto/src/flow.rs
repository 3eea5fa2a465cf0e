//! The one internal form of a flow record, and the limits every input is held to.
//!
//! Decoders fill one [`FlowRecord`] again and again and lend it to a sink; mapping addresses to subnets, panes and
//! lateness are for later stages. Invariant: a record handed to a sink has passed [`FlowRecord::check`]: times and
//! counts are so small that sums over a batch cannot overflow, and addresses are un-mapped from `::ffff:`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::decode::ValueError;

/// Largest count, byte sum or microsecond sum a record may carry: 2^53, up to where a double is exact.
pub const MAX_COUNT: u64 = 1 << 53;
/// Longest interval a record may cover: one hour.
pub const MAX_INTERVAL_MS: i64 = 3_600_000;
/// Latest time a record may carry: the end of the year 9999, in milliseconds. Whether a time is too far ahead of the
/// record's arrival is for the stage to say.
pub const MAX_TIME_MS: i64 = 253_402_300_799_999;
/// Most RTT samples in one record.
pub const MAX_RTT_SAMPLES: usize = 4096;
/// Most RTT buckets in one record.
pub const MAX_RTT_BUCKETS: usize = 512;

/// How a feed behaves in time: each kind has its own lateness and its own watermark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FeedKind {
    /// Agent reports and own producers.
    #[default]
    Reports = 0,
    /// VPC and Transit Gateway flow logs.
    FlowLogs = 1,
}

/// Which end of the flow measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reporter {
    /// The source host.
    #[default]
    Src = 0,
    /// The destination host.
    Dst = 1,
}

/// A count that may be split by the state of the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateCounts {
    /// Not measured.
    #[default]
    Unknown,
    /// Measured without the state.
    Total(u64),
    /// By state.
    ByState {
        /// Before the connection was established.
        syn: u64,
        /// While established.
        established: u64,
        /// While closing.
        close: u64,
    },
}

impl StateCounts {
    /// The sum over the states; `None` when not measured.
    pub fn total(&self) -> Option<u64> {
        match *self {
            StateCounts::Unknown => None,
            StateCounts::Total(total) => Some(total),
            StateCounts::ByState { syn, established, close } => {
                Some(syn.saturating_add(established).saturating_add(close))
            }
        }
    }

    /// (syn, established, close); a count without state goes to established, an unknown one is zero.
    pub fn split(&self) -> (u64, u64, u64) {
        match *self {
            StateCounts::Unknown => (0, 0, 0),
            StateCounts::Total(total) => (0, total, 0),
            StateCounts::ByState { syn, established, close } => (syn, established, close),
        }
    }
}

/// What a record counts, src to dst. `None` means unknown, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes sent.
    pub bytes: Option<u64>,
    /// TCP segments (or packets) sent, retransmits included.
    pub segments: Option<u64>,
    /// Retransmitted segments.
    pub retransmits: StateCounts,
    /// Retransmission timeouts.
    pub timeouts: StateCounts,
    /// Connections tried. From agents: connect attempts without SYN retransmits.
    pub connects: Option<u64>,
    /// Connections tried that were refused or not answered.
    pub connect_failures: Option<u64>,
    /// Connection attempts with SYN retransmits, as agents count them.
    pub connect_attempts_total: Option<u64>,
    /// Established connections that ended with RST.
    pub resets: Option<u64>,
    /// Connections or packets rejected by a security group or network ACL.
    pub rejects: Option<u64>,
}

impl Counters {
    /// Attempts a failure rate is over: connects, but never fewer than the failures; `None` when neither is known.
    pub fn attempts(&self) -> Option<u64> {
        self.connects.max(self.connect_failures)
    }

    fn each(&self) -> [(&'static str, Option<u64>); 9] {
        [
            ("bytes", self.bytes),
            ("segments", self.segments),
            ("retransmits", self.retransmits.total()),
            ("timeouts", self.timeouts.total()),
            ("connects", self.connects),
            ("connect_failures", self.connect_failures),
            ("connect_attempts_total", self.connect_attempts_total),
            ("resets", self.resets),
            ("rejects", self.rejects),
        ]
    }
}

/// RTT of one record as (count, min, max, sum), microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttSummary {
    /// Samples, at least 1.
    pub count: u64,
    /// Smallest sample.
    pub min_us: u64,
    /// Largest sample.
    pub max_us: u64,
    /// Sum of the samples.
    pub sum_us: u64,
}

impl RttSummary {
    /// Mean of the samples in whole microseconds, rounded down; 0 when there are none.
    pub fn mean_us(&self) -> u64 {
        self.sum_us.checked_div(self.count).unwrap_or(0)
    }
}

/// RTT samples above the previous bucket's bound and not above this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttBucket {
    /// Upper bound, inclusive, microseconds.
    pub le_us: u64,
    /// Samples in the bucket.
    pub count: u64,
}

/// What a record says about RTT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rtt {
    /// Not measured in the interval.
    #[default]
    Unknown,
    /// As (count, min, max, sum).
    Summary(RttSummary),
    /// As samples, microseconds, at least one.
    Samples(Vec<u32>),
    /// As buckets with ascending bounds, at least one with a count.
    Buckets(Vec<RttBucket>),
}

impl Rtt {
    /// The record's RTT as one summary, whatever its form; `None` when not measured. From buckets the smallest and
    /// largest samples and the sum are estimated by the buckets' upper bounds.
    pub fn summary(&self) -> Option<RttSummary> {
        match self {
            Rtt::Unknown => None,
            Rtt::Summary(summary) => Some(*summary),
            Rtt::Samples(samples) => {
                let mut parts = samples.iter().map(|us| (u64::from(*us), 1));
                fold(&mut parts)
            }
            Rtt::Buckets(buckets) => {
                let mut parts = buckets.iter().filter(|b| b.count > 0).map(|b| (b.le_us, b.count));
                fold(&mut parts)
            }
        }
    }

    fn check(&self) -> Result<(), ValueError> {
        match self {
            Rtt::Unknown => Ok(()),
            Rtt::Summary(s) => {
                for (field, value) in [("rtt.count", s.count), ("rtt.max_us", s.max_us), ("rtt.sum_us", s.sum_us)] {
                    check_count(field, value)?;
                }
                let sum = u128::from(s.sum_us);
                let count = u128::from(s.count);
                // One microsecond per sample is left for producers that round.
                let low = count * u128::from(s.min_us.saturating_sub(1));
                let high = count * (u128::from(s.max_us) + 1);
                if s.count == 0 || s.min_us > s.max_us || sum < low || sum > high {
                    return Err(ValueError::InconsistentRtt {
                        count: s.count,
                        min_us: s.min_us,
                        max_us: s.max_us,
                        sum_us: s.sum_us,
                    });
                }
                Ok(())
            }
            Rtt::Samples(samples) => check_len("rtt_samples_us", samples.len(), MAX_RTT_SAMPLES),
            Rtt::Buckets(buckets) => {
                check_len("rtt_buckets", buckets.len(), MAX_RTT_BUCKETS)?;
                for bucket in buckets {
                    check_count("rtt_buckets.le_us", bucket.le_us)?;
                    check_count("rtt_buckets.count", bucket.count)?;
                }
                match buckets.windows(2).find(|pair| pair[0].le_us >= pair[1].le_us) {
                    Some(pair) => Err(ValueError::UnsortedBuckets { le_us: pair[1].le_us }),
                    None => Ok(()),
                }
            }
        }
    }
}

fn fold(parts: &mut dyn Iterator<Item = (u64, u64)>) -> Option<RttSummary> {
    let (us, count) = parts.next()?;
    let mut sum = RttSummary { count, min_us: us, max_us: us, sum_us: us.saturating_mul(count) };
    for (us, count) in parts {
        sum.count = sum.count.saturating_add(count);
        sum.min_us = sum.min_us.min(us);
        sum.max_us = sum.max_us.max(us);
        sum.sum_us = sum.sum_us.saturating_add(us.saturating_mul(count));
    }
    Some(sum)
}

/// One directed flow in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Start of the interval, event time, milliseconds since 1970-01-01 UTC.
    pub start_ms: i64,
    /// End of the interval, exclusive; at most [`MAX_INTERVAL_MS`] after the start.
    pub end_ms: i64,
    /// Source address, un-mapped from `::ffff:`.
    pub src: IpAddr,
    /// Destination address, un-mapped from `::ffff:`.
    pub dst: IpAddr,
    /// Source port; 0 when ephemeral or unknown.
    pub src_port: u16,
    /// Destination port; 0 when ephemeral or unknown.
    pub dst_port: u16,
    /// IANA protocol number; 6 = TCP.
    pub protocol: u8,
    /// VPC of the reporter, when the record names it.
    pub vpc: Option<Arc<str>>,
    /// Sums over the interval.
    pub counters: Counters,
    /// RTT in the interval.
    pub rtt: Rtt,
    /// Which end measured.
    pub reporter: Reporter,
    /// Kind of feed.
    pub feed: FeedKind,
}

impl FlowRecord {
    /// A TCP record of the interval `[start_ms, end_ms)` that knows nothing else.
    pub fn new(start_ms: i64, end_ms: i64, src: IpAddr, dst: IpAddr) -> Self {
        Self {
            start_ms,
            end_ms,
            src: src.to_canonical(),
            dst: dst.to_canonical(),
            src_port: 0,
            dst_port: 0,
            protocol: PROTOCOL_TCP,
            vpc: None,
            counters: Counters::default(),
            rtt: Rtt::Unknown,
            reporter: Reporter::Src,
            feed: FeedKind::Reports,
        }
    }

    /// The last millisecond inside the interval; the start when the interval is empty. What cannot be split belongs
    /// to its pane.
    pub fn last_ms(&self) -> i64 {
        self.start_ms.max(self.end_ms.saturating_sub(1))
    }

    /// The address of the host that reported and of its peer.
    pub fn reporter_and_peer(&self) -> (IpAddr, IpAddr) {
        match self.reporter {
            Reporter::Src => (self.src, self.dst),
            Reporter::Dst => (self.dst, self.src),
        }
    }

    /// Checks every limit of this module.
    ///
    /// # Errors
    /// Names the first value out of range.
    pub fn check(&self) -> Result<(), ValueError> {
        let interval = self.end_ms.checked_sub(self.start_ms);
        match interval {
            Some(0..=MAX_INTERVAL_MS) => {}
            _ => return Err(ValueError::Interval { start_ms: self.start_ms, end_ms: self.end_ms }),
        }
        if self.start_ms < 0 || self.end_ms > MAX_TIME_MS {
            return Err(ValueError::Interval { start_ms: self.start_ms, end_ms: self.end_ms });
        }
        for (field, value) in self.counters.each() {
            check_count(field, value.unwrap_or(0))?;
        }
        self.rtt.check()
    }
}

/// IANA number of TCP.
pub const PROTOCOL_TCP: u8 = 6;

fn check_count(field: &'static str, value: u64) -> Result<(), ValueError> {
    if value > MAX_COUNT {
        return Err(ValueError::TooLarge { field, value });
    }
    Ok(())
}

fn check_len(field: &'static str, len: usize, max: usize) -> Result<(), ValueError> {
    if len > max {
        return Err(ValueError::TooMany { field, len, max });
    }
    Ok(())
}
