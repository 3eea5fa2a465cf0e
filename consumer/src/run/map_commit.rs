//! What a mapper commits: the cut of the next batch with the state before it, or the end of the last one.
//!
//! Invariant: one conditional write of the lease row moves checkpoint, state and cut together; the state that the row
//! names is already stored by then.

use bytes::Bytes;

use super::map_run::{Computed, End, MapRun};
use super::task::with_children;
use super::{DriveError, crash_point};
use crate::commit::Cut;
use crate::exchange::Status;
use crate::kpl::Kpl;
use crate::lease::{Checkpoint, attribute};
use crate::log::Record;
use crate::shard::ShardId;
use crate::stage::Mapper;
use crate::table::{Condition, Update, Value};

impl<M: Mapper> MapRun<'_, M> {
    /// Commits the cut of the batch `computed`; refused when the leader meanwhile put a source of its kinds out.
    pub(super) async fn cut(
        &mut self,
        records: &[Record],
        at_tip: bool,
        end: &End,
        computed: &Computed<M::State>,
    ) -> Result<(), DriveError> {
        if self.n == 0 {
            self.task.epochs.speaks(self.task.lease.key()).await?;
        }
        let update = self.state_update(&self.checkpoint.clone()).await?;
        crash_point!("map::after_chunks");
        let sequence = |record: Option<&Record>| record.map(|r| r.sequence.to_string()).unwrap_or_default();
        let cut = Cut {
            epoch: self.fence.epoch,
            n: self.n + 1,
            first: sequence(records.first()),
            last: sequence(records.last()),
            records: records.len() as u64,
            snapshot: self.prepared.as_ref().map(|(s, _)| s.hash().to_owned()).unwrap_or_default(),
            semantics: self.mapper.semantics(),
            crc: computed.crc,
            watermarks: computed.reached.as_slice().to_vec(),
            end: !matches!(end, End::No),
            children: match end {
                End::Shard(children) => children.iter().map(|c| c.as_str().to_owned()).collect(),
                End::No | End::Input => Vec::new(),
            },
            lanes: u32::from(self.exchange.lanes.count()),
            kpl: Kpl::code(self.task.reading.kpl),
            first_sub: records.first().map_or(0, |r| r.sub_sequence),
            last_sub: records.last().map(|r| r.sub_sequence),
            trimmed: self.trimmed,
        };
        let (pending, pending_sub) = match (end, records.last()) {
            (End::Shard(_), _) => (Checkpoint::ShardEnd, 0),
            (_, Some(last)) => (Checkpoint::At(last.sequence.clone()), last.sub_sequence),
            (_, None) => (self.checkpoint.clone(), self.sub_sequence),
        };
        let n = Value::number(cut.n);
        let mut update = self
            .task
            .with_tip(update, self.tip)
            .set(attribute::PENDING, Value::string(pending.to_string()))
            .set(attribute::PENDING_SUB_SEQUENCE, Value::number(pending_sub))
            .remove(attribute::PENDING_STATE)
            .set(attribute::CUT, Value::B(cut.encode_bytes()))
            .set(attribute::TIP, Value::number(i64::from(at_tip)));
        let mut live = Vec::new();
        for kind in (0..computed.kinds.len()).filter(|kind| computed.kinds[*kind]) {
            update = update.set(attribute::DATA[kind], n.clone());
            let code = Value::number(Status::Live.code());
            let mut allowed = vec![Condition::Equals(attribute::STATUS[kind], code)];
            if Status::initial(kind) == Status::Live {
                allowed.push(Condition::Absent(attribute::STATUS[kind]));
            }
            live.push(Condition::Any(allowed));
        }
        let condition = if live.is_empty() { Condition::None } else { Condition::All(live) };
        self.task.lease.write(update, condition).await?;
        self.saver.committed();
        Ok(())
    }

    /// Puts the state as it is now (before the next batch) and names it in an update that also moves the checkpoint.
    async fn state_update(&mut self, checkpoint: &Checkpoint) -> Result<Update, DriveError> {
        let task = self.task;
        let saved = vec![(task.lease.key().to_owned(), Bytes::from(self.mapper.save(&self.state)?))];
        let put = self.saver.put(checkpoint.to_string(), saved, |_| true, task.lease.lost());
        let (manifest, written) = put.await?;
        written.iter().for_each(|written| task.metrics.state_written(task.stream(), written));
        let sub_sequence = if *checkpoint == Checkpoint::ShardEnd { 0 } else { self.sub_sequence };
        Ok(Update::new()
            .set(attribute::CHECKPOINT, Value::string(checkpoint.to_string()))
            .set(attribute::SUB_SEQUENCE, Value::number(sub_sequence))
            .set(attribute::SWITCHES, Value::number(0))
            .set(attribute::MANIFEST, Value::B(manifest.encode_bytes()))
            .remove(attribute::TROUBLE))
    }

    /// Every batch so far is emitted: moves the checkpoint behind the last one, without a cut pending.
    pub(super) async fn settle(&mut self) -> Result<(), DriveError> {
        let update = self.state_update(&self.checkpoint.clone()).await?;
        self.settle_as(update).await
    }

    /// Every batch is emitted, the END with these children last.
    pub(super) async fn settle_end(&mut self, children: &[ShardId]) -> Result<(), DriveError> {
        let update = self.state_update(&Checkpoint::ShardEnd).await?;
        self.settle_as(with_children(update, children)).await
    }

    async fn settle_as(&mut self, update: Update) -> Result<(), DriveError> {
        let update = update.remove(attribute::PENDING).remove(attribute::PENDING_SUB_SEQUENCE);
        self.task.lease.write(update, Condition::None).await?;
        self.saver.committed();
        self.unsettled = false;
        crash_point!("map::after_settle");
        Ok(())
    }
}
