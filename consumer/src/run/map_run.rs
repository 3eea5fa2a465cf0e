//! Numbered batches of one input shard, each cut before it is emitted.
//!
//! The cycle: compute the batch, commit its cut together with the state *as it was before the batch* and the end of the
//! batch before it, emit, and only when every record is acknowledged go on. A new owner finds the cut, reads exactly
//! its range, recomputes, proves by the checksum that it says the same, and emits it again.
//! Invariant: batch n + 1 is cut only after every record of n was acknowledged.

use bytes::Bytes;
use tokio::time::Instant;

use super::fetch;
use super::found::find;
use super::map_back::Counted;
use super::map_claim::{Claim, claim, floor};
use super::map_cut::{Emission, Place, emission, own_cut};
use super::map_driver::Exchange;
use super::task::ShardTask;
use super::{CrcMismatch, DriveError, crash_point, map_check};
use crate::commit::{Cut, Fence, Saver, Snapshot};
use crate::exchange::{BatchPart, Envelope, LaneId, Lanes, Message, SourceId, Watermarks};
use crate::kpl::Kpl;
use crate::lease::{Checkpoint, LeaseError};
use crate::log::{Entry, Record, put_all};
use crate::planted::planted;
use crate::shard::{SequenceNumber, ShardId};
use crate::stage::{Batch, Mapped, Mapper, StageError};

/// How a source ends.
#[derive(Debug, Clone, Default)]
pub(super) enum End {
    /// It does not.
    #[default]
    No,
    /// The finite input is over.
    Input,
    /// The shard is closed; these go on.
    Shard(Vec<ShardId>),
}

/// One shard's way from batch to batch.
pub(super) struct MapRun<'a, M: Mapper> {
    pub(super) task: &'a ShardTask,
    pub(super) mapper: &'a M,
    pub(super) exchange: Exchange,
    source: SourceId,
    pub(super) state: M::State,
    pub(super) prepared: Option<(Snapshot, M::Prepared)>,
    pub(super) fence: Fence,
    /// Number of the last batch emitted whole.
    pub(super) n: u64,
    /// End of that batch.
    pub(super) checkpoint: Checkpoint,
    /// Place of the checkpoint's record inside its aggregate.
    pub(super) sub_sequence: u64,
    pub(super) saver: Saver,
    pub(super) cut_at: Instant,
    /// When the last read that came to the tip began; everything it gave is in the next batch or before it.
    pub(super) tip: Option<Instant>,
    /// Whether nothing behind the checkpoint can have expired before it was read.
    pub(super) complete: bool,
    /// Whether the row still shows a cut as pending.
    pub(super) unsettled: bool,
    /// Whether records before the next batch may have expired unread.
    pub(super) trimmed: bool,
    /// How far the records of all batches so far reach.
    reached: Watermarks,
    /// The floors that the state was raised to.
    pub(super) floor: Watermarks,
}

/// A computed batch, ready to be cut and emitted.
pub(super) struct Computed<S> {
    next: S,
    pub(super) kinds: [bool; 4],
    /// How far the records reach, which an END does not change.
    pub(super) reached: Watermarks,
    entries: Vec<Entry>,
    pub(super) crc: u32,
}

/// In what a second computation differs from the first, which is all zero.
#[derive(Debug, Default)]
struct Again {
    /// Records of the cut that the stream no longer has.
    expired: u64,
    /// The records are the same and their bytes are not.
    diverged: bool,
    /// Where the cut said they reach: some lanes may have been told so already.
    floor: Option<Watermarks>,
}

impl<'a, M: Mapper> MapRun<'a, M> {
    /// Takes over what the row and the committed state say, and emits again what was cut and perhaps not emitted.
    pub(super) async fn start(task: &'a ShardTask, mapper: &'a M, exchange: Exchange) -> Result<Self, DriveError> {
        let row = task.lease.row().await?;
        map_check::same_lanes(task, &row, exchange.lanes)?;
        let found = find(task, &row, |_| true).await?;
        let state = match (found.state.as_slice(), found.inherited) {
            ([(_, stored), ..], false) => mapper.load(stored)?,
            (parents, _) => {
                let parents: Result<Vec<_>, _> = parents.iter().map(|(_, bytes)| mapper.load(bytes)).collect();
                mapper.inherit(parents?)
            }
        };
        let usable = row.manifest.is_some() && !found.discarded;
        let own = own_cut(&row).filter(|_| usable);
        let claim = match own {
            Some(cut) => Claim {
                epoch: cut.epoch,
                checkpoint: row.checkpoint.clone(),
                sub_sequence: row.sub_sequence,
                floor: floor(&row),
            },
            None => claim(task, &row, found.discarded).await?,
        };
        let fence = Fence { epoch: claim.epoch, counter: task.lease.fence_counter() };
        let own_parts = if found.inherited { Vec::new() } else { found.parts };
        let mut saver = Saver::new(task.chunks.clone(), task.lease.key(), fence, own_parts, None);
        found.state.into_iter().for_each(|(key, stored)| saver.know(&key, stored));
        // A row that says otherwise was refused or discarded by `find`.
        let again = match own.map(|cut| (cut, emission(&row, cut))) {
            Some((cut, Ok(Emission::Perhaps(end)))) => Some((cut, end)),
            _ => None,
        };
        let mut run = Self {
            task,
            mapper,
            exchange,
            source: SourceId { stream: task.context.stream.clone(), shard: task.context.shard.clone() },
            state,
            prepared: None,
            fence,
            n: own.map_or(0, |cut| cut.n),
            checkpoint: claim.checkpoint,
            sub_sequence: claim.sub_sequence,
            saver,
            cut_at: Instant::now(),
            tip: None,
            complete: !found.discarded && task.nothing_expired(&row),
            unsettled: again.is_some(),
            trimmed: false,
            reached: own.map_or(Watermarks::NONE, |cut| Watermarks::from_slice(&cut.watermarks)),
            floor: claim.floor,
        };
        if let Some((cut, end)) = again {
            run.n = cut.n.saturating_sub(1);
            run.replay(cut, end).await?;
        }
        run.mapper.raise(&mut run.state, &run.floor);
        Ok(run)
    }

    /// Emits a batch that an earlier owner (perhaps this one) cut and may not have emitted whole.
    async fn replay(&mut self, cut: &Cut, behind: Place) -> Result<(), DriveError> {
        let ours = self.mapper.semantics();
        if cut.semantics != ours {
            return Err(DriveError::Semantics { n: cut.n, cut: cut.semantics, ours });
        }
        let (task, shard) = (self.task, &self.task.context.shard);
        let range = SequenceNumber::new(&cut.first).zip(SequenceNumber::new(&cut.last));
        let records = match range {
            None => Vec::new(),
            Some((first, last)) => {
                let kpl = Kpl::from_code(cut.kpl).map_err(|code| DriveError::Aggregation { n: cut.n, code })?;
                let first = (first, cut.first_sub);
                let range = fetch::Range { first, last, kpl, hashes: task.context.range };
                fetch::read_range(&*task.log, task.stream(), shard, &range, task.timing.poll).await?
            }
        };
        let expired = cut.records.saturating_sub(records.len() as u64);
        let end = match (cut.end, cut.children.is_empty()) {
            (false, _) => End::No,
            (true, true) if behind.checkpoint != Checkpoint::ShardEnd => End::Input,
            (true, _) => End::Shard(cut.children.iter().map(ShardId::new).collect()),
        };
        let snapshot = task.snapshots.load(&cut.snapshot).await?;
        self.prepare(snapshot)?;
        // Some lanes may have been told by the first emission how far the batch reaches.
        let floor = Watermarks::from_slice(&cut.watermarks);
        self.trimmed = cut.trimmed;
        let again = Again { expired, diverged: false, floor: (expired > 0).then_some(floor) };
        let mut computed = self.compute(&records, again, &end)?;
        if expired > 0 {
            task.metrics.recomputed(task.stream(), "expired");
            tracing::error!(shard = %shard, batch = cut.n, expired, "records of a cut batch expired before it was emitted");
        } else if computed.crc != cut.crc {
            self.diverged(cut, computed.crc)?;
            computed = self.compute(&records, Again { expired, diverged: true, floor: Some(floor) }, &end)?;
        } else {
            task.metrics.recomputed(task.stream(), "same");
        }
        tracing::info!(shard = %shard, batch = cut.n, records = records.len(), "emitting a cut batch again");
        self.emit(computed.entries).await?;
        self.state = computed.next;
        self.reached = computed.reached;
        self.n = cut.n;
        (self.checkpoint, self.sub_sequence) = (behind.checkpoint, behind.sub_sequence);
        self.trimmed = false;
        Ok(())
    }

    /// A batch is not what its cut says: stops, or goes on by policy.
    fn diverged(&self, cut: &Cut, ours: u32) -> Result<(), DriveError> {
        let task = self.task;
        let (stream, shard) = (task.stream().to_owned(), task.context.shard.clone());
        match task.crc_mismatch {
            CrcMismatch::Fail => {
                task.metrics.recomputed(task.stream(), "stopped");
                Err(DriveError::Diverged { stream, shard, n: cut.n, cut: cut.crc, ours })
            }
            CrcMismatch::Emit => {
                task.metrics.recomputed(task.stream(), "emitted");
                tracing::error!(
                    stream,
                    %shard,
                    batch = cut.n,
                    cut = format!("{:08x}", cut.crc),
                    ours = format!("{ours:08x}"),
                    "batch differs from its cut and is emitted by crc_mismatch = emit: lanes that had it keep what they had"
                );
                Ok(())
            }
        }
    }

    /// One whole cycle: compute, cut, emit. `false`: the lease is to go while the source waits for its floor; nothing
    /// was cut.
    pub(super) async fn batch(&mut self, records: &[Record], at_tip: bool, end: &End) -> Result<bool, DriveError> {
        let snapshot = self.exchange.snapshot.borrow().clone();
        if self.prepared.as_ref().is_none_or(|(s, _)| *s != snapshot) {
            self.task.snapshots.store(&snapshot).await?;
            self.prepare(snapshot)?;
        }
        loop {
            let computed = self.compute(records, Again::default(), end)?;
            match self.counted(&computed.kinds).await? {
                Counted::Yes => {}
                Counted::AboveFloor => continue,
                Counted::Left => return Ok(false),
            }
            if planted("planted::emit_before_the_cut") {
                self.emit(computed.entries.clone()).await?;
            }
            match self.cut(records, at_tip, end, &computed).await {
                // The leader put the source out meanwhile: come back first, under a floor.
                Err(DriveError::Lease(LeaseError::Refused)) => continue,
                other => other?,
            }
            crash_point!("map::after_cut");
            self.emit(computed.entries).await?;
            crash_point!("map::after_emit");
            let watermark = computed.reached.get(0);
            self.task.metrics.batch(self.task.stream(), self.task.lease.key(), watermark);
            self.state = computed.next;
            self.reached = computed.reached;
            self.n += 1;
            self.trimmed = false;
            if let Some(last) = records.last() {
                self.checkpoint = Checkpoint::At(last.sequence.clone());
                self.sub_sequence = last.sub_sequence;
            }
            self.cut_at = Instant::now();
            self.unsettled = true;
            return Ok(true);
        }
    }

    fn prepare(&mut self, snapshot: Snapshot) -> Result<(), StageError> {
        let prepared = self.mapper.prepare(&snapshot)?;
        self.prepared = Some((snapshot, prepared));
        Ok(())
    }

    fn compute(&self, records: &[Record], again: Again, end: &End) -> Result<Computed<M::State>, DriveError> {
        let Some((_, prepared)) = &self.prepared else {
            return Err(StageError::new("no snapshot prepared").into());
        };
        let mut next = self.state.clone();
        let batch = Batch { shard: &self.task.context, records, expired: again.expired };
        let mapped = self.mapper.map(&mut next, &batch, prepared)?;
        map_check::known_lanes(&mapped, self.exchange.lanes)?;
        if let Some(floor) = &again.floor {
            self.mapper.raise(&mut next, floor);
        }
        let reached = self.mapper.watermarks(&next).below_end_or(&self.reached);
        if matches!(end, End::Input) {
            self.mapper.raise(&mut next, &Watermarks::END);
        }
        let watermarks = self.mapper.watermarks(&next);
        let entries = self.envelopes(&mapped, watermarks, &again, end);
        map_check::fit(&entries)?;
        let mut crc = crc32fast::Hasher::new();
        entries.iter().for_each(|entry| crc.update(&entry.data));
        Ok(Computed { next, kinds: mapped.kinds, reached, entries, crc: crc.finalize() })
    }

    fn envelopes(&self, mapped: &Mapped, watermarks: Watermarks, again: &Again, end: &End) -> Vec<Entry> {
        let children = match end {
            End::Shard(children) => children.clone(),
            End::No | End::Input => Vec::new(),
        };
        let envelope = |part: u32, parts: usize, payload: &Bytes| {
            Envelope::encode(&Message::Batch(BatchPart {
                source: self.source.clone(),
                epoch: self.fence.epoch,
                n: self.n + 1,
                part,
                parts: u32::try_from(parts).unwrap_or(u32::MAX),
                watermarks,
                end: !matches!(end, End::No),
                children: children.clone(),
                expired: again.expired,
                diverged: again.diverged,
                trimmed: self.trimmed,
                payload: payload.clone(),
            }))
        };
        let lanes = self.exchange.lanes;
        // A part does not name its lane: all lanes share the bytes of the heartbeat.
        let heartbeat = envelope(0, 1, &Bytes::new());
        let mut entries = Vec::new();
        for lane in lanes.all() {
            match mapped.parts.get(&lane).filter(|parts| !parts.is_empty()) {
                None => entries.push(lane_entry(lanes, lane, heartbeat.clone())),
                Some(parts) => {
                    let data = (0u32..).zip(parts).map(|(index, payload)| envelope(index, parts.len(), payload));
                    entries.extend(data.map(|data| lane_entry(lanes, lane, data)));
                }
            }
        }
        entries
    }

    async fn emit(&self, entries: Vec<Entry>) -> Result<(), DriveError> {
        let stop = self.task.lease.lost();
        put_all(&*self.task.log, &self.exchange.stream, entries, stop, |_acknowledged| {
            crash_point_mid_emit();
        })
        .await?;
        Ok(())
    }
}

fn crash_point_mid_emit() {
    crash_point!("map::mid_emit");
}

/// The exchange record of a lane, of an envelope's bytes. The partition key names the lane; the explicit hash key
/// places it.
pub(crate) fn lane_entry(lanes: Lanes, lane: LaneId, data: Bytes) -> Entry {
    Entry { partition_key: lane.index().to_string(), hash_key: Some(lanes.hash_key(lane)), data }
}
