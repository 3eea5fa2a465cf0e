//! The engine's work: leases, commits, cuts and calls to AWS.
//!
//! The engine crate knows nothing of Prometheus; the program copies its counts here. A series of a shard is removed when
//! the shard's lease leaves this worker, so no worker shows the age of a shard that another one reads.

use prometheus::{GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::register::{MetricsError, Registrar};

/// Counts of the engine.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    /// Leases this worker holds, by stream.
    pub leases_owned: IntGaugeVec,
    /// Leases taken, by stream and reason (`assigned`, `handed_over`, `expired`).
    pub leases_taken: IntCounterVec,
    /// Lease renewals that failed.
    pub renewal_failures: IntCounterVec,
    /// 1 on the worker that leads the job.
    pub leader: IntGauge,
    /// Seconds since the newest record read from a shard arrived in Kinesis.
    pub iterator_age: GaugeVec,
    /// Seconds since the last commit of a shard.
    pub checkpoint_age: GaugeVec,
    /// Seconds a commit took, chunks and pointer swap together.
    pub commit_seconds: HistogramVec,
    /// Commits refused because the fence or the counter had moved on.
    pub commits_fenced: IntCounterVec,
    /// Cuts committed by AGGREGATE.
    pub cuts: IntCounter,
    /// Cuts re-emitted by a new owner.
    pub cuts_replayed: IntCounter,
    /// Batches that receivers dropped because a mark showed them as seen.
    pub batches_repeated: IntCounter,
    /// Gaps in a source's numbers that were accepted as loss.
    pub gaps: IntCounter,
    /// Bytes of state chunks written.
    pub state_written: IntCounter,
    /// Lanes this worker owns.
    pub lanes_owned: IntGauge,
    /// Stages stopped on an error and waiting to retry, by stream.
    pub shards_stopped: IntGaugeVec,
    /// Calls throttled by AWS, by service and operation.
    pub throttles: IntCounterVec,
}

impl EngineMetrics {
    /// Makes the metrics.
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(r: &mut Registrar) -> Result<Self, MetricsError> {
        Ok(Self {
            leases_owned: r.int_gauges("flowshift_leases_owned", "Leases this worker holds.", &["stream"])?,
            leases_taken: r.counters(
                "flowshift_leases_taken_total",
                "Leases this worker took, by how it got them.",
                &["stream", "reason"],
            )?,
            renewal_failures: r.counters(
                "flowshift_lease_renewal_failures_total",
                "Lease renewals that failed, spurious conditional failures left out.",
                &["stream"],
            )?,
            leader: r.int_gauge("flowshift_leader", "1 on the worker that leads the job, else 0.")?,
            iterator_age: r.gauges(
                "flowshift_iterator_age_seconds",
                "How far reading a shard is behind its tip, as Kinesis reports it.",
                &["stream", "shard"],
            )?,
            checkpoint_age: r.gauges(
                "flowshift_checkpoint_age_seconds",
                "Time since the last commit of a shard.",
                &["stream", "shard"],
            )?,
            commit_seconds: r.seconds_by(
                "flowshift_commit_duration_seconds",
                "Time of a commit: writing the chunks and swapping the pointer.",
                &["stream"],
            )?,
            commits_fenced: r.counters(
                "flowshift_commits_fenced_total",
                "Commits refused because another worker had taken the lease.",
                &["stream"],
            )?,
            cuts: r.counter("flowshift_cuts_total", "Cuts committed before their batch was put.")?,
            cuts_replayed: r.counter(
                "flowshift_cuts_replayed_total",
                "Cuts that a new owner read, computed and put again under the same number.",
            )?,
            batches_repeated: r.counter(
                "flowshift_batches_repeated_total",
                "Batch parts dropped by a lane because its marks showed them as taken.",
            )?,
            gaps: r
                .counter("flowshift_batch_gaps_total", "Gaps in a source's batch numbers accepted as proven loss.")?,
            state_written: r.counter("flowshift_state_written_bytes_total", "Bytes of state chunks written.")?,
            lanes_owned: r.int_gauge("flowshift_lanes_owned", "Lanes whose state this worker holds.")?,
            shards_stopped: r.int_gauges(
                "flowshift_shards_stopped",
                "Shards whose stage failed and waits to retry from its commit.",
                &["stream"],
            )?,
            throttles: r.counters(
                "flowshift_aws_throttles_total",
                "Calls that AWS throttled.",
                &["service", "operation"],
            )?,
        })
    }
}
