//! What was measured of one size, and the tables of it.

use std::collections::BTreeMap;
use std::time::Duration;

use flowshift_consumer::table::metered::{Metered, Operation, Usage};
use serde_json::{Value, json};

use super::world::{Convergence, EVIDENCE, EXCHANGE, INPUT, Size};

/// Dollars per million on-demand units in us-east-1: the reference's for writes, AWS's list price for reads.
const WRITE_PRICE: f64 = 0.625;
const READ_PRICE: f64 = 0.125;
const HOURS_PER_MONTH: f64 = 720.0;

/// Units of one stretch of time, per hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    pub(crate) input_rows: f64,
    pub(crate) exchange_rows: f64,
    pub(crate) evidence_rows: f64,
    pub(crate) chunks: f64,
    /// The same by what the chunks belong to.
    pub(crate) kinds: BTreeMap<String, f64>,
    pub(crate) others: f64,
    pub(crate) scans: f64,
    pub(crate) other_reads: f64,
    pub(crate) chunk_bytes: f64,
}

impl Load {
    /// What the meter saw in `time`, scaled to an hour.
    pub(crate) fn of(meter: &Metered, time: Duration) -> Self {
        let per_hour = 3600.0 / time.as_secs_f64();
        let mut load = Self::default();
        for ((table, operation), usage) in meter.usage() {
            let Usage { bytes, read_units, write_units, .. } = usage;
            let written = write_units as f64 * per_hour;
            let place = match table.as_str() {
                t if t.ends_with(&format!("leases-{INPUT}")) => &mut load.input_rows,
                t if t.ends_with(&format!("leases-{EXCHANGE}")) => &mut load.exchange_rows,
                t if t.ends_with(&format!("leases-{EVIDENCE}")) => &mut load.evidence_rows,
                t if t.contains("#chunks") => &mut load.chunks,
                _ => &mut load.others,
            };
            *place += written;
            let reads = if operation == Operation::Scan { &mut load.scans } else { &mut load.other_reads };
            *reads += read_units as f64 * per_hour;
            if let Some((_, kind)) = table.split_once("#chunks ") {
                *load.kinds.entry(kind.to_owned()).or_default() += written;
            }
            if table.contains("#chunks") && operation == Operation::Put {
                load.chunk_bytes += bytes as f64 * per_hour;
            }
        }
        load
    }

    pub(crate) fn writes(&self) -> f64 {
        self.input_rows + self.exchange_rows + self.evidence_rows + self.chunks + self.others
    }

    pub(crate) fn reads(&self) -> f64 {
        self.scans + self.other_reads
    }

    /// On demand, per month.
    pub(crate) fn dollars(&self) -> f64 {
        (self.writes() * WRITE_PRICE + self.reads() * READ_PRICE) * HOURS_PER_MONTH / 1e6
    }

    fn json(&self) -> Value {
        json!({"write_units_per_hour": self.writes(), "input_rows": self.input_rows, "exchange_rows": self.exchange_rows,
            "evidence_rows": self.evidence_rows, "chunks": self.chunks, "chunks_of": self.kinds, "beats_and_others": self.others,
            "read_units_per_hour": self.reads(), "scans": self.scans, "chunk_bytes_per_hour": self.chunk_bytes,
            "dollars_per_month": self.dollars()})
    }
}

/// Everything of one size.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) size: Size,
    pub(crate) start: Convergence,
    pub(crate) loss: Convergence,
    pub(crate) lost_leases: usize,
    pub(crate) full: Load,
    pub(crate) idle: Load,
    /// Bytes standing in the lease tables and in the state table.
    pub(crate) lease_bytes: usize,
    pub(crate) state_bytes: usize,
    /// Reads that came too late for the memory streams; anything but 0 spoils the figures.
    pub(crate) late: u64,
    pub(crate) cpu: Duration,
}

impl Measured {
    pub(crate) fn json(&self) -> Value {
        let convergence = |c: &Convergence| {
            json!({"all_owned_s": c.owned.as_secs_f64(), "last_move_s": c.last_move.as_secs_f64(), "fewest": c.fewest,
                "most": c.most})
        };
        let size = &self.size;
        json!({"shards": size.shards, "exchange_shards": size.exchange, "workers": size.workers, "lanes": size.lanes,
            "pairs": size.pairs, "start": convergence(&self.start), "loss": convergence(&self.loss),
            "lost_leases": self.lost_leases, "full": self.full.json(), "idle": self.idle.json(),
            "lease_bytes": self.lease_bytes, "state_bytes": self.state_bytes, "late_reads": self.late,
            "run_s": self.cpu.as_secs_f64()})
    }
}

/// The tables, in Markdown.
pub(crate) fn print(all: &[Measured]) {
    println!(
        "| input shards | exchange shards | workers | pairs | start: all owned / last move | loss of one: all owned / last move | leases per worker | tables | run |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for m in all {
        let Size { shards, exchange, workers, pairs, .. } = m.size;
        let (start, loss) = (m.start, m.loss);
        let seconds = |d: Duration| format!("{:.1} s", d.as_secs_f64());
        println!(
            "| {shards} | {exchange} | {workers} | {pairs} | {} / {} | {} / {} ({} leases) | {}-{} | leases {:.1} KB, state {:.2} MB | {} |",
            seconds(start.owned),
            seconds(start.last_move),
            seconds(loss.owned),
            seconds(loss.last_move),
            m.lost_leases,
            start.fewest,
            start.most,
            m.lease_bytes as f64 / 1e3,
            m.state_bytes as f64 / 1e6,
            seconds(m.cpu),
        );
    }
    println!();
    println!(
        "| input shards | load | write units per shard-hour | of these: input rows | exchange + evidence rows | state | beats | write units/s, job | read units/s, job (scans) | state written | on demand |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for m in all {
        for (what, load) in [("idle", &m.idle), ("full", &m.full)] {
            let shards = f64::from(m.size.shards);
            let per_shard = |units: f64| format!("{:.0}", units / shards);
            println!(
                "| {} | {what} | {} | {} | {} | {} | {} | {:.1} | {:.1} ({:.1}) | {:.1} KB/s | ${:.2}/month |",
                m.size.shards,
                per_shard(load.writes()),
                per_shard(load.input_rows),
                per_shard(load.exchange_rows + load.evidence_rows),
                per_shard(load.chunks),
                per_shard(load.others),
                load.writes() / 3600.0,
                load.reads() / 3600.0,
                load.scans / 3600.0,
                load.chunk_bytes / 3600.0 / 1e3,
                load.dollars(),
            );
        }
    }
    if all.iter().any(|m| m.late > 0) {
        println!("\nsome reads came too late for the streams in memory: the figures do not count");
    }
}
