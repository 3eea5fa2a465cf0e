//! The owner's side of a shard's committed state: what is stored, and what the next save must write.
//!
//! A save is `put` (chunks, then the directory when the row has no room for the parts), then the caller's one write of
//! the row, then `committed`. Between put and commit nothing names the new chunks; a put that is never committed is
//! overtaken by the next, under a higher generation ([`super::part`] has the proof).
//!
//! The plain bytes of every part as last saved stay in memory, because deltas are made against them and bytes that did
//! not change are not written again: the cost is the size of the state once more.
//! A part is stored whole when its fence is new, it fits one write unit anyway, it has [`MAX_DELTAS`] deltas, this one
//! would be more than half of the base, or all together more than twice the base. Measured on a detector's lane of 58
//! pairs (177 KB packed, 17 KB per delta): bases at half of the base make 43 KB per save, at twice 24 KB, and deltas
//! against the base instead of the generation before would be 99 KB after a minute. A written kilobyte costs twenty
//! times a read one, and a restore happens once per hand-over, so it may read three times the base.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::chunk::Stamp;
use super::part::{MAX_DELTAS, delta_place};
use super::{ChunkError, Chunks, Directory, Fence, Manifest, Part, Slot, pack};
use crate::planted::planted;
use crate::stage::StatePart;

/// Parts in flight at once.
const PUTS: usize = 8;
/// A frame of at most this many bytes makes an item of 1 KB with its key and attributes: a delta saves nothing.
const WRITE_UNIT: usize = 900;

/// How a piece of state was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A part, whole.
    Base,
    /// A patch on the part as last committed.
    Delta,
    /// The list of the parts.
    Directory,
    /// An immutable page.
    Page,
}

impl Form {
    /// Its name, as in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Delta => "delta",
            Self::Directory => "directory",
            Self::Page => "page",
        }
    }
}

/// Deltas may take this many times the room of their base.
const DELTAS_PER_BASE: usize = 2;

/// What one put wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its form.
    pub form: Form,
    /// Bytes of the part's state.
    pub plain: u64,
    /// Bytes stored.
    pub packed: u64,
}

/// A part as committed, and what is known of it besides.
#[derive(Debug, Clone)]
struct Live {
    part: Part,
    /// Its bytes, when this owner saved them.
    plain: Option<Bytes>,
    base_packed: usize,
    deltas_packed: usize,
}

/// What `put` wrote and no commit names yet.
#[derive(Debug)]
struct Staged {
    parts: BTreeMap<String, Live>,
    directory: Option<Part>,
}

/// One frame to write.
struct Job {
    live: Live,
    place: String,
    stamp: Stamp,
    packed: Vec<u8>,
}

/// The state of one shard, for its owner.
#[derive(Debug)]
pub struct Saver {
    chunks: Chunks,
    shard: String,
    fence: Fence,
    live: BTreeMap<String, Live>,
    directory: Option<Part>,
    /// The highest generation this owner put, by part.
    put: BTreeMap<String, u64>,
    staged: Option<Staged>,
}

impl Saver {
    /// For an owner that found `parts` committed, its own or inherited, and `directory` as the row's own.
    pub fn new(chunks: Chunks, shard: &str, fence: Fence, parts: Vec<Part>, directory: Option<Part>) -> Self {
        let live = |part: Part| Live { part, plain: None, base_packed: 0, deltas_packed: 0 };
        let live = parts.into_iter().map(|part| (part.key.clone(), live(part))).collect();
        Self { chunks, shard: shard.to_owned(), fence, live, directory, put: BTreeMap::new(), staged: None }
    }

    /// The committed bytes of a part, as restored: they need not be saved again while they stay the same.
    pub fn know(&mut self, key: &str, plain: Bytes) {
        if let Some(live) = self.live.get_mut(key) {
            live.plain = Some(plain);
        }
    }

    /// Bytes of the committed state, before compression.
    pub fn held(&self) -> u64 {
        self.live.values().map(|live| live.part.length).sum()
    }

    /// Writes what changed and returns the manifest that names it together with all that `keeps` wants kept.
    ///
    /// # Errors
    /// [`ChunkError::Fenced`] when a later owner has been here, [`ChunkError::Cancelled`] once `stop` is; the table
    /// failed for good.
    pub async fn put(
        &mut self,
        checkpoint: String,
        saved: Vec<StatePart>,
        keeps: impl Fn(&str) -> bool,
        stop: &CancellationToken,
    ) -> Result<(Manifest, Vec<Written>), ChunkError> {
        let mut parts = self.live.clone();
        let mut jobs = Vec::new();
        for (key, plain) in saved {
            if self.live.get(&key).is_none_or(|live| live.plain.as_ref() != Some(&plain)) {
                jobs.push(self.job(&key, plain)?);
            }
        }
        let chunks = &self.chunks;
        let puts = futures::stream::iter(jobs).map(|job| put_job(chunks, job, stop));
        let done: Vec<Result<(Live, Written), ChunkError>> = puts.buffered(PUTS).collect().await;
        let mut written = Vec::new();
        for result in done {
            let (live, wrote) = result?;
            written.push(wrote);
            parts.insert(live.part.key.clone(), live);
        }
        parts.retain(|key, _| keeps(key));
        let named = parts.values().map(|live| live.part.clone()).collect();
        let mut manifest = Manifest::new(checkpoint, named);
        if manifest.encoded_len() > Manifest::INLINE_BYTES {
            let (directory, wrote) = self.put_directory(manifest.parts, stop).await?;
            written.push(wrote);
            manifest = Manifest::with_directory(manifest.checkpoint, directory);
        }
        self.staged = Some(Staged { parts, directory: manifest.directory.clone() });
        Ok((manifest, written))
    }

    /// The row names what the last `put` returned.
    pub fn committed(&mut self) {
        if let Some(staged) = self.staged.take() {
            self.live = staged.parts;
            self.directory = staged.directory.or(self.directory.take());
        }
    }

    /// The generation of the next put of a part: above all that is committed and all that this owner ever put.
    fn next_generation(&mut self, key: &str, committed: u64) -> u64 {
        let put = self.put.entry(key.to_owned()).or_default();
        let reuse = planted("planted::reuse_a_generation");
        *put = committed.max(*put) + u64::from(!reuse || committed == 0);
        *put
    }

    fn job(&mut self, key: &str, plain: Bytes) -> Result<Job, ChunkError> {
        let live = self.live.get(key).cloned();
        let committed = live.as_ref().map_or(0, |live| live.part.generation);
        let generation = self.next_generation(key, committed);
        let failed = |e| ChunkError::damaged(key, e);
        if let Some(live) = &live
            && let Some(packed) = self.patch(live, &plain).map_err(failed)?
        {
            let stamp = Stamp::of(&plain, self.fence, generation, committed);
            let place = delta_place(live.part.deltas);
            let part = Part {
                generation,
                crc: stamp.crc,
                length: stamp.length,
                base: live.part.base_generation(),
                deltas: live.part.deltas + 1,
                ..live.part.clone()
            };
            let deltas_packed = live.deltas_packed + packed.len();
            let live = Live { part, plain: Some(plain), deltas_packed, ..*live };
            return Ok(Job { live, place, stamp, packed });
        }
        let packed = pack::pack(&plain).map_err(failed)?;
        let reuse = planted("planted::reuse_a_generation");
        let next = |slot: Slot| if reuse { slot } else { slot.other() };
        let slot = live.map_or(Slot::A, |live| next(live.part.base_slot()));
        let stamp = Stamp::of(&plain, self.fence, generation, 0);
        let part = self.whole(key, stamp, slot);
        let live = Live { part, plain: Some(plain), base_packed: packed.len(), deltas_packed: 0 };
        Ok(Job { live, place: slot.letter().to_string(), stamp, packed })
    }

    fn whole(&self, key: &str, stamp: Stamp, slot: Slot) -> Part {
        Part {
            key: key.to_owned(),
            generation: stamp.generation,
            chunks: 0,
            crc: stamp.crc,
            length: stamp.length,
            epoch: self.fence.epoch,
            counter: self.fence.counter,
            slot: slot.into(),
            base: 0,
            deltas: 0,
        }
    }

    /// The delta from the committed bytes, when it is to be stored instead of the whole part.
    fn patch(&self, live: &Live, plain: &Bytes) -> std::io::Result<Option<Vec<u8>>> {
        let Some(before) = live.plain.as_ref().filter(|_| live.part.fence() == self.fence) else { return Ok(None) };
        if live.base_packed <= WRITE_UNIT || live.part.deltas >= MAX_DELTAS {
            return Ok(None);
        }
        let packed = pack::pack_patch(before, plain)?;
        let small = packed.len() <= live.base_packed / 2;
        let few = live.deltas_packed + packed.len() <= live.base_packed * DELTAS_PER_BASE;
        Ok((small && few).then_some(packed))
    }

    async fn put_directory(
        &mut self,
        parts: Vec<Part>,
        stop: &CancellationToken,
    ) -> Result<(Part, Written), ChunkError> {
        let key = format!("directory@{}", self.shard);
        let plain = Bytes::from(Directory { parts }.encode_to_vec());
        let packed = pack::pack(&plain).map_err(|e| ChunkError::damaged(&key, e))?;
        let generation = self.next_generation(&key, self.directory.as_ref().map_or(0, |part| part.generation));
        let slot = self.directory.as_ref().map_or(Slot::A, |part| part.base_slot().other());
        let stamp = Stamp::of(&plain, self.fence, generation, 0);
        let part = self.whole(&key, stamp, slot);
        let live = Live { part, plain: None, base_packed: 0, deltas_packed: 0 };
        let job = Job { live, place: slot.letter().to_string(), stamp, packed };
        let (live, written) = put_job(&self.chunks, job, stop).await?;
        Ok((live.part, Written { form: Form::Directory, ..written }))
    }
}

async fn put_job(chunks: &Chunks, job: Job, stop: &CancellationToken) -> Result<(Live, Written), ChunkError> {
    let Job { mut live, place, stamp, packed } = job;
    let count = chunks.put_frame(&live.part.key, &place, stamp, &packed, stop).await?;
    let form = if live.part.deltas > 0 { Form::Delta } else { Form::Base };
    if form == Form::Base {
        live.part.chunks = count;
    }
    Ok((live, Written { form, plain: stamp.length, packed: packed.len() as u64 }))
}
