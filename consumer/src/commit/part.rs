//! Parts: how one keyed piece of state is stored, and proven when it is read.
//!
//! A part is a **base**, its bytes whole at place A or B, and up to [`MAX_DELTAS`] **deltas**, each a patch from one
//! generation's bytes to the next one's, in the delta slots 0, 1, 2, … All of them are written under one fence.
//! Restoring reads the base and every delta, and proves for each: the fence, that it patches the generation before it,
//! and length and CRC-32 of the bytes it leads to.
//!
//! # Why a committed part is never overwritten before the next commit
//!
//! 1. A base goes to the place that the live base is not at. A delta goes to the slot after the live deltas. So the
//!    next generation, whichever form it has, is put where the live manifest names nothing.
//! 2. The first base after a chain sits beside it; only when it is committed do deltas start again at slot 0, and by
//!    then nothing names the old ones.
//! 3. A new owner has a new fence and a part has one fence, so its first put of a part is a base: case 1.
//! 4. An older owner that wakes up can put only its one uncommitted generation, to places that (1) leaves free, and
//!    only until the new owner has been there: afterwards its fence is refused. Chunks it leaves are not named by
//!    anybody.
//! 5. Under one fence every put of a part has a higher generation than the one before, also when the commit in between
//!    was refused; so a request that was delayed on its way is refused too, instead of landing on later bytes.
//!
//! Deltas patch the generation before, not the base: measured on a lane of the detector they are six times smaller
//! after a minute ([`super::saver`] has the figures).

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;

use super::chunk::Stamp;
use super::{ChunkError, Chunks, Directory, Manifest, Part, pack};

/// Deltas on one base; the next save is a whole base.
pub const MAX_DELTAS: u32 = 47;
/// Reads of one part in flight at once.
const READS: usize = 8;

pub(super) fn delta_place(slot: u32) -> String {
    format!("d{slot:02}")
}

impl Chunks {
    /// Reads a committed part and proves it.
    ///
    /// # Errors
    /// [`ChunkError::Missing`] or [`ChunkError::Damaged`] when the state is not what the manifest names.
    pub async fn get(&self, part: &Part) -> Result<Bytes, ChunkError> {
        let place = part.base_slot().letter().to_string();
        let (stamp, frame) = self.read_frame(&part.key, &place, part.fence(), Some(part.chunks)).await?;
        let damaged = |what: String| ChunkError::damaged(&part.key, what);
        if stamp.generation != part.base_generation() {
            let (found, wanted) = (stamp.generation, part.base_generation());
            return Err(damaged(format!("base of generation {found}, expected {wanted}")));
        }
        if part.deltas > MAX_DELTAS {
            return Err(damaged(format!("{} deltas, at most {MAX_DELTAS} exist", part.deltas)));
        }
        // Version 1 said length and checksum in the manifest alone.
        let whole = Stamp { length: part.length, crc: part.crc, ..stamp };
        let mut before = if part.deltas == 0 { whole } else { stamp };
        let mut plain = unpack(&part.key, &[], &before, &frame)?;
        let slots = futures::stream::iter(0..part.deltas)
            .map(|slot| async move { self.read_frame(&part.key, &delta_place(slot), part.fence(), None).await });
        let mut frames = std::pin::pin!(slots.buffered(READS));
        while let Some(next) = frames.next().await {
            let (stamp, frame) = next?;
            if stamp.before != before.generation {
                return Err(damaged(format!("a delta on generation {} after {}", stamp.before, before.generation)));
            }
            plain = unpack(&part.key, &plain, &stamp, &frame)?;
            before = stamp;
        }
        if (before.generation, before.length, before.crc) != (part.generation, part.length, part.crc) {
            return Err(damaged("generation, length or checksum differs from the manifest".into()));
        }
        Ok(Bytes::from(plain))
    }

    /// Bytes of a committed part as it is stored: base and deltas, compressed.
    ///
    /// # Errors
    /// [`ChunkError::Missing`] or [`ChunkError::Damaged`] when a frame is not what the manifest names.
    pub async fn stored_bytes(&self, part: &Part) -> Result<u64, ChunkError> {
        let place = part.base_slot().letter().to_string();
        let (_, base) = self.read_frame(&part.key, &place, part.fence(), Some(part.chunks)).await?;
        let mut bytes = base.len() as u64;
        for slot in 0..part.deltas.min(MAX_DELTAS) {
            let (_, delta) = self.read_frame(&part.key, &delta_place(slot), part.fence(), None).await?;
            bytes += delta.len() as u64;
        }
        Ok(bytes)
    }

    /// The parts that a manifest names, from the row or from its directory.
    ///
    /// # Errors
    /// The directory is missing or damaged, or the table failed.
    pub async fn parts(&self, manifest: &Manifest) -> Result<Vec<Part>, ChunkError> {
        let Some(directory) = &manifest.directory else { return Ok(manifest.parts.clone()) };
        let bytes = self.get(directory).await?;
        Ok(Directory::decode(bytes).map_err(|e| ChunkError::damaged(&directory.key, e))?.parts)
    }
}

fn unpack(key: &str, before: &[u8], stamp: &Stamp, frame: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let plain = pack::unpack(before, frame, stamp.length).map_err(|e| ChunkError::damaged(key, e))?;
    if crc32fast::hash(&plain) == stamp.crc {
        return Ok(plain);
    }
    Err(ChunkError::damaged(key, format!("checksum of generation {} differs", stamp.generation)))
}
