//! Pages: immutable pieces of a part's state, written once and read on demand.
//!
//! For what is large, changes rarely and is not always needed: it is neither saved with the part again and again nor
//! held in memory. A part's pages are listed by its index, a part of its own under `PART/pages`, so they move with
//! their lane. A changed page is a new version under a new key; the version before is deleted only after the commit
//! that no longer names it, and the index lists what is still to be deleted, so that a crash in between leaves no
//! garbage behind.
//!
//! Invariant: a key is never used twice for committed bytes. A version is one above the page's last; a name that was
//! dropped starts above `floor`, the highest version ever dropped of the part. A version that was put and never
//! committed (a crash) is overwritten by the next owner's under its higher fence. Deleting asks for the fence the
//! version was written under.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::chunk::Stamp;
use super::{ChunkError, Chunks, Fence, Form, Written, pack};

/// End of an index part's key.
const SUFFIX: &str = "/pages";

/// Name of a page within its part: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageName(String);

/// A page's name is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("page name {0:?}: expected 1 to 64 of a-z, 0-9, '-', '_' and '.'")]
pub struct PageNameError(String);

impl PageName {
    /// Checks a name.
    ///
    /// # Errors
    /// It is empty, too long, or holds other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, PageNameError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(PageNameError(name))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stored version of a page.
#[derive(Clone, PartialEq, Message)]
pub struct Page {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version, from 1.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// CRC-32 of its plain bytes.
    #[prost(uint32, tag = "3")]
    pub crc: u32,
    /// Length of its plain bytes.
    #[prost(uint64, tag = "4")]
    pub length: u64,
    /// Epoch of the fence it was written under.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// Counter of that fence.
    #[prost(sint64, tag = "6")]
    pub counter: i64,
}

impl Page {
    pub(super) fn place(&self) -> String {
        format!("page/{}/{}", self.name, self.version)
    }

    fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, counter: self.counter }
    }
}

/// The pages of one part.
#[derive(Clone, PartialEq, Message)]
pub struct PageIndex {
    /// Current versions, by name.
    #[prost(message, repeated, tag = "1")]
    pub pages: Vec<Page>,
    /// Versions that no longer count and may not be deleted yet.
    #[prost(message, repeated, tag = "2")]
    pub dropped: Vec<Page>,
    /// The highest version that a dropped name ever had.
    #[prost(uint64, tag = "3")]
    pub floor: u64,
}

/// Key of the index of a part's pages.
pub fn index_key(part: &str) -> String {
    format!("{part}{SUFFIX}")
}

/// The part whose pages an index part lists; `None`: it is no index.
pub fn indexed_part(key: &str) -> Option<&str> {
    key.strip_suffix(SUFFIX)
}

impl PageIndex {
    /// Reads an index part.
    ///
    /// # Errors
    /// The bytes are no index.
    pub fn read(key: &str, bytes: &Bytes) -> Result<Self, ChunkError> {
        Self::decode(bytes.clone()).map_err(|e| ChunkError::damaged(key, e))
    }

    fn get(&self, name: &PageName) -> Option<&Page> {
        self.pages.iter().find(|page| page.name == name.as_str())
    }
}

/// An owner's view of the pages of a shard's parts.
#[derive(Debug)]
pub struct Pages {
    chunks: Chunks,
    fence: Fence,
    /// By part.
    indexes: BTreeMap<String, PageIndex>,
    /// What the next save will have dropped, as of its index.
    staged: BTreeMap<String, PageIndex>,
}

impl Pages {
    /// For an owner that found these index parts.
    ///
    /// # Errors
    /// An index cannot be read.
    pub fn new(chunks: Chunks, fence: Fence, indexes: &[(String, Bytes)]) -> Result<Self, ChunkError> {
        let mut found = BTreeMap::new();
        for (key, bytes) in indexes {
            if let Some(part) = indexed_part(key) {
                found.insert(part.to_owned(), PageIndex::read(key, bytes)?);
            }
        }
        Ok(Self { chunks, fence, indexes: found, staged: BTreeMap::new() })
    }

    /// Reads a page and proves it; `None`: the part has no such page.
    ///
    /// # Errors
    /// The index names it and it is missing or damaged, or the table failed.
    pub async fn get(&self, part: &str, name: &PageName) -> Result<Option<Bytes>, ChunkError> {
        match self.indexes.get(part).and_then(|index| index.get(name)) {
            None => Ok(None),
            Some(page) => self.chunks.get_page(part, page).await.map(Some),
        }
    }

    /// Puts new versions (`None`: drops the page) and returns the index part to save with them. Nothing counts before
    /// the commit that names it.
    ///
    /// # Errors
    /// As [`Saver::put`](super::Saver::put).
    pub async fn put(
        &mut self,
        part: &str,
        changes: Vec<(PageName, Option<Bytes>)>,
        stop: &CancellationToken,
    ) -> Result<((String, Bytes), Vec<Written>), ChunkError> {
        let mut index = self.indexes.get(part).cloned().unwrap_or_default();
        let mut written = Vec::new();
        for (name, bytes) in changes {
            let at = index.pages.iter().position(|page| page.name == name.as_str());
            let last = at.map(|at| index.pages.remove(at));
            let version = last.as_ref().map_or(index.floor, |page| page.version) + 1;
            index.dropped.extend(last);
            match bytes {
                // The next version may stand there too, put by an owner that never committed it.
                None => index.floor = index.floor.max(version),
                Some(bytes) => {
                    let (page, wrote) = self.chunks.put_page(part, &name, version, self.fence, &bytes, stop).await?;
                    index.pages.push(page);
                    written.push(wrote);
                }
            }
        }
        index.pages.sort_by(|a, b| a.name.cmp(&b.name));
        let saved = (index_key(part), Bytes::from(index.encode_to_vec()));
        self.staged.insert(part.to_owned(), index);
        Ok((saved, written))
    }

    /// The row names what was put: deletes what no longer counts. An error leaves it to the next owner of the part.
    ///
    /// # Errors
    /// The table failed.
    pub async fn committed(&mut self) -> Result<(), ChunkError> {
        self.indexes.append(&mut self.staged);
        self.sweep_all().await
    }

    /// Deletes what the indexes list as dropped: an owner before may not have come to it.
    ///
    /// # Errors
    /// The table failed.
    pub async fn sweep_all(&mut self) -> Result<(), ChunkError> {
        for part in self.indexes.keys().cloned().collect::<Vec<_>>() {
            self.sweep(&part).await?;
        }
        Ok(())
    }

    /// What is deleted leaves the index in memory, and with its next save the stored one.
    async fn sweep(&mut self, part: &str) -> Result<(), ChunkError> {
        let Some(index) = self.indexes.get_mut(part) else { return Ok(()) };
        while let Some(page) = index.dropped.last() {
            self.chunks.delete_frame(part, &page.place(), page.fence()).await?;
            index.dropped.pop();
        }
        Ok(())
    }
}

impl Chunks {
    /// Reads one version of a page and proves it.
    ///
    /// # Errors
    /// It is missing or damaged, or the table failed.
    pub async fn get_page(&self, part: &str, page: &Page) -> Result<Bytes, ChunkError> {
        let (stamp, frame) = self.read_frame(part, &page.place(), page.fence(), None).await?;
        let key = format!("{part}/{}", page.place());
        if (stamp.generation, stamp.length, stamp.crc) != (page.version, page.length, page.crc) {
            return Err(ChunkError::damaged(&key, "version, length or checksum differs from the index"));
        }
        let plain = pack::unpack(&[], &frame, stamp.length).map_err(|e| ChunkError::damaged(&key, e))?;
        if crc32fast::hash(&plain) == page.crc {
            return Ok(Bytes::from(plain));
        }
        Err(ChunkError::damaged(&key, "checksum differs"))
    }

    async fn put_page(
        &self,
        part: &str,
        name: &PageName,
        version: u64,
        fence: Fence,
        plain: &Bytes,
        stop: &CancellationToken,
    ) -> Result<(Page, Written), ChunkError> {
        let stamp = Stamp::of(plain, fence, version, 0);
        let Fence { epoch, counter } = fence;
        let page = Page { name: name.0.clone(), version, crc: stamp.crc, length: stamp.length, epoch, counter };
        let packed = pack::pack(plain).map_err(|e| ChunkError::damaged(name.as_str(), e))?;
        self.put_frame(part, &page.place(), stamp, &packed, stop).await?;
        Ok((page, Written { form: Form::Page, plain: stamp.length, packed: packed.len() as u64 }))
    }
}
