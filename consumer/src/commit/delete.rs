//! Deleting what a finished shard leaves behind.
//!
//! A lane's chunks lie under the lane's key and go on with the child shard that owns the lane; only what no living row
//! names is deleted, and never what an owner later than the finished shard's last wrote.
//! Invariant: deleting twice, or half and then again, does no harm. The caller deletes the row, before or after its
//! state.

use std::collections::BTreeSet;

use super::part::{MAX_DELTAS, delta_place};
use super::{ChunkError, Chunks, Fence, Manifest, PageIndex, Part, Slot, indexed_part};

impl Chunks {
    /// Deletes the chunks of the parts that `finished`, the manifest of a consumed shard, names and none of `living`,
    /// the manifests of all other rows of the stream, does. Says how many chunks there were.
    ///
    /// # Errors
    /// A directory cannot be read, or the table failed: nothing more was deleted then, and the row must stay.
    pub async fn delete_parts(&self, finished: &Manifest, living: &[Manifest]) -> Result<u64, ChunkError> {
        let mut named = BTreeSet::new();
        for manifest in living {
            named.extend(self.parts(manifest).await?.into_iter().map(|part| part.key));
        }
        let parts = match self.parts(finished).await {
            Ok(parts) => parts,
            // An earlier call was cut short after the directory: nothing else was left by then.
            Err(ChunkError::Missing(_)) => return Ok(0),
            Err(e) => return Err(e),
        };
        // The last owner's: a part that did not change under it has an older one, what it put in vain has its own.
        let Some(fence) = parts.iter().chain(&finished.directory).map(Part::fence).max() else { return Ok(0) };
        let mut deleted = 0;
        for part in parts.iter().filter(|part| !named.contains(&part.key)) {
            // The pages go before the index that names them.
            if let Some(owner) = indexed_part(&part.key) {
                let index = PageIndex::read(&part.key, &self.get(part).await?)?;
                for page in index.pages.iter().chain(&index.dropped) {
                    deleted += self.delete_frame(owner, &page.place(), fence).await?;
                }
            }
            deleted += self.delete_bases(&part.key, fence).await?;
            for slot in 0..MAX_DELTAS {
                deleted += self.delete_frame(&part.key, &delta_place(slot), fence).await?;
            }
        }
        // Last, because it says what there is to delete.
        if let Some(directory) = &finished.directory {
            deleted += self.delete_bases(&directory.key, fence).await?;
        }
        Ok(deleted)
    }

    async fn delete_bases(&self, key: &str, fence: Fence) -> Result<u64, ChunkError> {
        let mut deleted = 0;
        for slot in [Slot::A, Slot::B] {
            deleted += self.delete_frame(key, &slot.letter().to_string(), fence).await?;
        }
        Ok(deleted)
    }
}
