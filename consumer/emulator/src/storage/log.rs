//! The log of one shard: its segments in order, the next position and the last arrival time.
//!
//! Not thread-safe by itself; the shard's lock makes allocation, append and time one step. Invariants: positions
//! grow by one per record, arrival times never fall, and the newest segment's file name keeps the next position
//! when everything before it was trimmed.

use std::{collections::VecDeque, path::PathBuf};

use super::{
    frame::{self, Frame, OVERHEAD},
    segment::{self, Segment, StorageError},
};
use crate::ids::Position;

/// How a log cuts its segments.
#[derive(Debug, Clone)]
pub(crate) struct LogSettings {
    /// Folder of the shard; `None` keeps segments in memory.
    pub(crate) dir: Option<PathBuf>,
    /// A segment of at least this many bytes takes no further append.
    pub(crate) segment_bytes: u64,
    /// A segment whose first record is this old (ms) takes no further append, so that whole segments expire in time.
    pub(crate) segment_age_ms: u64,
}

/// A record to append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub(crate) partition_key: &'a str,
    pub(crate) data: &'a [u8],
}

/// Consecutive records read from a log.
#[derive(Debug)]
pub(crate) struct Batch {
    chunks: Vec<Vec<u8>>,
    /// How many records these are.
    pub(crate) count: usize,
    /// Bytes of keys and data.
    pub(crate) bytes: u64,
    /// Where reading goes on.
    pub(crate) next: Position,
}

impl Batch {
    /// The records in order; the first unsound frame ends them with an error.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Result<Frame<'_>, StorageError>> {
        self.chunks.iter().flat_map(|chunk| {
            let mut rest = chunk.as_slice();
            std::iter::from_fn(move || {
                if rest.is_empty() {
                    return None;
                }
                match frame::decode(rest) {
                    Ok(frame) => {
                        rest = &rest[frame.encoded_len()..];
                        Some(Ok(frame))
                    }
                    Err(source) => {
                        rest = &[];
                        Some(Err(StorageError::Damaged { position: 0, source }))
                    }
                }
            })
        })
    }
}

/// What trimming removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct ShardLog {
    settings: LogSettings,
    segments: VecDeque<Segment>,
    next: Position,
    last_arrival_ms: u64,
    bytes: u64,
}

impl ShardLog {
    /// Opens what is on disk; an empty log starts at `start`.
    pub(crate) fn open(settings: LogSettings, start: Position) -> Result<Self, StorageError> {
        let mut log = Self { settings, segments: VecDeque::new(), next: start, last_arrival_ms: 0, bytes: 0 };
        let mut files = Vec::new();
        if let Some(dir) = &log.settings.dir
            && dir.exists()
        {
            for entry in std::fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
                let entry = entry.map_err(StorageError::io("list", dir))?;
                if let Some(first) = entry.file_name().to_str().and_then(segment::parse_file_name) {
                    files.push((first, entry.path()));
                }
            }
        }
        files.sort();
        for i in 0..files.len() {
            let (first, path) = files[i].clone();
            let segment = Segment::open(path, first, files.get(i + 1).map(|(next, _)| *next))?;
            log.next = log.next.max(segment.end());
            log.last_arrival_ms = log.last_arrival_ms.max(segment.last_arrival_ms().unwrap_or(0));
            log.bytes += segment.bytes();
            log.segments.push_back(segment);
        }
        Ok(log)
    }

    /// Appends records in order and returns the position of the first. On an error none is added.
    pub(crate) fn append(&mut self, now_ms: u64, records: &[NewRecord<'_>]) -> Result<Position, StorageError> {
        let first = self.next;
        let arrival_ms = now_ms.max(self.last_arrival_ms);
        let mut bytes =
            Vec::with_capacity(records.iter().map(|r| OVERHEAD + r.partition_key.len() + r.data.len()).sum());
        let mut lens = Vec::with_capacity(records.len());
        for (i, record) in records.iter().enumerate() {
            let NewRecord { partition_key, data } = *record;
            let frame = Frame { position: first.plus(i as u64), arrival_ms, partition_key, data };
            frame::encode(&mut bytes, &frame).map_err(StorageError::Encode)?;
            lens.push(frame.encoded_len());
        }
        self.writable_segment(arrival_ms)?.append(&bytes, &lens, arrival_ms)?;
        self.bytes += bytes.len() as u64;
        self.next = first.plus(records.len() as u64);
        self.last_arrival_ms = arrival_ms;
        Ok(first)
    }

    fn writable_segment(&mut self, arrival_ms: u64) -> Result<&mut Segment, StorageError> {
        let settings = &self.settings;
        let fits = self.segments.back().is_some_and(|s| {
            let age_ms = arrival_ms.saturating_sub(s.arrival_ms(0).unwrap_or(arrival_ms));
            // A position gap can only follow a file whose end was cut; the new file's name records it.
            s.is_writable()
                && s.bytes() < settings.segment_bytes
                && age_ms < settings.segment_age_ms
                && s.end() == self.next
        });
        if !fits {
            let segment = Segment::create(self.settings.dir.as_deref(), self.next)?;
            // An empty one has the same name as its successor.
            self.segments.pop_back_if(|old| old.count() == 0);
            if let Some(old) = self.segments.back_mut() {
                old.seal();
            }
            self.segments.push_back(segment);
        }
        let missing = || std::io::Error::other("no segment");
        self.segments.back_mut().ok_or_else(|| StorageError::Io {
            action: "append to",
            path: PathBuf::new(),
            source: missing(),
        })
    }

    /// Reads up to `max_records` and `max_bytes` (keys and data; the first record always fits) from `from` on, or
    /// from the oldest record when that was trimmed.
    pub(crate) fn read(&self, from: Position, max_records: usize, max_bytes: u64) -> Result<Batch, StorageError> {
        let mut batch = Batch { chunks: Vec::new(), count: 0, bytes: 0, next: from };
        let skip = self.segments.partition_point(|s| s.end() <= from);
        for segment in self.segments.iter().skip(skip) {
            let start = usize::try_from(from.since(segment.first())).unwrap_or(usize::MAX);
            let mut end = start;
            while end < segment.count() && batch.count < max_records {
                let frame_len = segment.offset(end + 1).saturating_sub(segment.offset(end));
                let bytes = frame_len.saturating_sub(OVERHEAD as u64);
                if batch.count > 0 && batch.bytes.saturating_add(bytes) > max_bytes {
                    break;
                }
                batch.count += 1;
                batch.bytes = batch.bytes.saturating_add(bytes);
                end += 1;
            }
            if end > start {
                batch.chunks.push(segment.read(start, end)?);
                batch.next = segment.first().plus(end as u64);
            }
            if end < segment.count() {
                break;
            }
        }
        Ok(batch)
    }

    /// The position the next record gets.
    pub(crate) fn next(&self) -> Position {
        self.next
    }

    /// Makes sure that nothing at or before `position` is given out again.
    pub(crate) fn advance_to(&mut self, position: Position) {
        self.next = self.next.max(position);
    }

    /// The oldest stored position at or after `from`; the next one if there is none.
    pub(crate) fn first_from(&self, from: Position) -> Position {
        let skip = self.segments.partition_point(|s| s.end() <= from);
        let segment = self.segments.iter().skip(skip).find(|s| s.count() > 0);
        segment.map_or(self.next, |s| s.first().max(from))
    }

    /// The oldest stored position that arrived at or after `ms`; the next one if there is none.
    pub(crate) fn first_at(&self, ms: u64) -> Position {
        let segment = self.segments.iter().find(|s| s.last_arrival_ms().is_some_and(|last| last >= ms));
        segment.map_or(self.next, |s| s.first().plus(s.first_at(ms) as u64))
    }

    /// When the oldest record at or after `from` arrived.
    pub(crate) fn arrival_ms(&self, from: Position) -> Option<u64> {
        let skip = self.segments.partition_point(|s| s.end() <= from);
        let segment = self.segments.iter().skip(skip).find(|s| s.count() > 0)?;
        segment.arrival_ms(usize::try_from(from.since(segment.first())).unwrap_or(usize::MAX))
    }

    /// When the oldest stored record arrived.
    pub(crate) fn oldest_arrival_ms(&self) -> Option<u64> {
        self.arrival_ms(Position(0))
    }

    /// Removes every segment whose records all arrived before `ms`.
    pub(crate) fn trim_before(&mut self, ms: u64) -> Trimmed {
        let mut trimmed = Trimmed::default();
        while self.segments.front().is_some_and(|s| s.last_arrival_ms().is_none_or(|last| last < ms)) {
            match self.trim_oldest() {
                Some(more) => {
                    trimmed.records += more.records;
                    trimmed.bytes += more.bytes;
                }
                None => break,
            }
        }
        trimmed
    }

    /// Removes the oldest segment; the newest is replaced by an empty one. `None` when there is nothing to remove.
    pub(crate) fn trim_oldest(&mut self) -> Option<Trimmed> {
        self.segments.front().filter(|s| s.count() > 0 || self.segments.len() > 1)?;
        if self.segments.len() == 1 {
            // First the new name, then the removal: the next position must be on disk at every moment.
            match Segment::create(self.settings.dir.as_deref(), self.next) {
                Ok(segment) => self.segments.push_back(segment),
                Err(error) => {
                    tracing::warn!(%error, "cannot start a segment, keeping the old one");
                    return None;
                }
            }
        }
        let oldest = self.segments.pop_front()?;
        let trimmed = Trimmed { records: oldest.count() as u64, bytes: oldest.bytes() };
        self.bytes = self.bytes.saturating_sub(trimmed.bytes);
        oldest.remove();
        Some(trimmed)
    }

    /// Gives file handles back; called when the shard is closed for good.
    pub(crate) fn seal(&mut self) {
        if let Some(newest) = self.segments.back_mut() {
            newest.seal();
        }
    }

    /// Bytes of all frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Removes all segments.
    pub(crate) fn remove(&mut self) -> Trimmed {
        let mut trimmed = Trimmed::default();
        for segment in std::mem::take(&mut self.segments) {
            trimmed.records += segment.count() as u64;
            trimmed.bytes += segment.bytes();
            segment.remove();
        }
        self.bytes = 0;
        trimmed
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
