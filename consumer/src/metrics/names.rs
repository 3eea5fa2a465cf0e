//! Every metric of the engine: one line each.
//!
//! `field: kind = name [labels] help`. The macro makes the set's fields, the list and the registration from it.

use prometheus::{CounterVec, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::ages::AgeVec;
use super::kind::{Described, Metric};

macro_rules! engine_metrics {
    ($($field:ident: $kind:ty = $name:literal [$($label:literal),*] $help:literal;)+) => {
        /// One field per metric.
        #[derive(Debug, Clone)]
        pub(super) struct Set {
            $(pub(super) $field: $kind,)+
        }

        /// Every metric, by topic.
        pub(super) const ALL: &[Described] =
            &[$(Described { name: $name, help: $help, labels: &[$($label),*] },)+];

        impl Set {
            pub(super) fn register(registry: &Registry, prefix: &str) -> prometheus::Result<Self> {
                Ok(Self {
                    $($field: {
                        let described = Described { name: $name, help: $help, labels: &[$($label),*] };
                        let metric = <$kind as Metric>::make(&described, prefix)?;
                        registry.register(Box::new(metric.clone()))?;
                        metric
                    },)+
                })
            }
        }
    };
}

engine_metrics! {
    // Reading.
    records: IntCounterVec = "records_read_total" ["stream"] "Records read from a stream.";
    bytes: IntCounterVec = "read_bytes_total" ["stream"] "Bytes of records read from a stream.";
    iterator_age: GaugeVec = "iterator_age_seconds" ["stream", "shard"]
        "Age of the next unread record of a shard (Kinesis' MillisBehindLatest); 0 at the tip.";
    trimmed: IntCounterVec = "shard_trims_total" ["stream"]
        "Times reading went on behind records that had expired unread, or a shard had expired whole.";
    kpl_aggregates: IntCounterVec = "kpl_aggregates_total" ["stream"] "KPL aggregates taken apart.";
    kpl_plain: IntCounterVec = "kpl_undecodable_total" ["stream", "reason"]
        "Records that look like KPL aggregates but are none, passed on as they are, by reason.";
    kpl_dropped: IntCounterVec = "kpl_out_of_range_total" ["stream", "shard", "when"]
        "Sub-records of KPL aggregates outside their shard's hash range, dropped unless they are to be kept: soon after a reshard (KPL sends them again) or steady, which is loss.";

    // Leases.
    owned: IntGaugeVec = "leases_owned" ["stream"] "Leases this worker runs.";
    lost: IntCounterVec = "leases_lost_total" ["stream"] "Leases this worker lost without having given them up.";
    expired: IntCounterVec = "lease_expirations_total" ["stream"]
        "Leases this worker, as leader, took from an owner whose counter stood still.";
    conflicts: IntCounterVec = "commit_conflicts_total" ["stream"]
        "Writes to a lease row refused because it was not as this worker knew it.";
    spurious: IntCounterVec = "spurious_recoveries_total" ["stream"]
        "Refused writes to a lease row that turned out to be our own, whose answer was lost.";
    hand_over: HistogramVec = "hand_over_duration_seconds" ["stream"]
        "Time from seeing a lease assigned to this worker to the first read of its shard.";
    progress_age: AgeVec = "progress_age_seconds" ["stream", "shard"]
        "Time since an owned shard last committed or stood at its tip with nothing to commit; it grows when a shard is owned and makes no progress.";
    checkpoint_age: AgeVec = "checkpoint_age_seconds" ["stream", "shard"]
        "Time since an owned shard was last committed, or taken.";
    restarts: IntCounterVec = "shard_restarts_total" ["stream"]
        "Times a shard was started again from its commit after an error.";
    leader: IntGaugeVec = "leader" [] "1 while this worker leads the job.";
    holes: IntGaugeVec = "hash_range_holes" ["stream"] "Holes in the hash range that open leases cover, as the leader sees them.";

    // State.
    commits: IntCounterVec = "commits_total" ["stream"] "Commits of state and checkpoint together.";
    state_bytes: IntCounterVec = "state_written_bytes_total" ["stream"] "State written, before compression.";
    state_packed: IntCounterVec = "state_packed_bytes_total" ["stream", "form"]
        "State written as it is stored, by form: base, delta, page or directory.";
    state_parts: IntCounterVec = "state_parts_written_total" ["stream", "form"]
        "Parts of state written, by form: base, delta, page or directory.";
    state_held: GaugeVec = "state_held_bytes" ["stream", "shard"] "Committed state of an owned shard, before compression.";
    restore: HistogramVec = "restore_duration_seconds" ["stream"] "Time to read and prove a shard's committed state.";
    discarded: IntCounterVec = "state_discards_total" ["stream", "reason"]
        "Times committed state was given up on the setting state_mismatch = discard, by reason.";

    // Exchange.
    batches: IntCounterVec = "batches_total" ["stream"] "Numbered batches cut and emitted.";
    gaps: IntCounterVec = "batch_gaps_total" ["stream"]
        "Times a lane stopped its shard because batches were missing or differed; each retry counts.";
    incomplete: IntCounterVec = "lane_losses_total" ["stream", "reason"]
        "Losses after which a lane went on with incomplete windows, by reason: gap, expired, trimmed, diverged, partial (it keeps a part of an earlier emission) or discarded.";
    recomputed: IntCounterVec = "batches_recomputed_total" ["stream", "outcome"]
        "Cut batches computed again by a new owner, by outcome: same, expired (with fewer records), stopped or emitted (other bytes than its cut says, by the setting crc_mismatch).";
    watermark: GaugeVec = "source_watermark_timestamp_seconds" ["stream", "shard"]
        "Event time up to which an input shard is complete, Unix time; the lag is time() minus this.";
    lane_watermark: GaugeVec = "lane_watermark_timestamp_seconds" ["stream", "shard"]
        "Event time up to which the lanes of an exchange shard are complete (the slowest lane), Unix time.";
    skipped: IntGaugeVec = "lanes_skipped" []
        "Lanes of stuck exchange shards that nobody waits for, as the leader sees them.";
    skips: IntCounterVec = "lane_skips_total" ["stream"]
        "Records put by this worker, as leader, to go on without lanes that stand still; any is worth an alert.";
    sources: IntGaugeVec = "sources" ["status"] "Input shards by status, as the leader sees them.";

    // AWS.
    calls: IntCounterVec = "aws_calls_total" ["service", "operation", "outcome"]
        "Calls to AWS by how they ended, after the SDK's own retries.";
    call_seconds: HistogramVec = "aws_call_duration_seconds" ["service", "operation"]
        "Time of one call to AWS, with the SDK's own retries.";
    retries: IntCounterVec = "aws_retries_total" ["service", "operation"] "Attempts of the SDK after the first of a call.";
    put_failures: IntCounterVec = "put_failures_total" ["stream", "outcome"]
        "Records that Kinesis did not take inside an answered PutRecords call; they are put again.";
    read_units: CounterVec = "dynamodb_read_units_total" ["table"] "DynamoDB read capacity used.";
    write_units: CounterVec = "dynamodb_write_units_total" ["table"]
        "DynamoDB write capacity used, refused conditional writes included.";
}
