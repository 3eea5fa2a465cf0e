//! A segment: consecutive frames in one file (or one buffer) with an index in memory, 8 bytes a record.
//!
//! Only the newest segment of a log is appended to. Invariant: the index covers exactly the frames whose bytes were
//! handed over completely; bytes behind them are cut on opening, and never acknowledged.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use super::frame::{self, FrameError};
use crate::ids::Position;

/// A file operation failed, or bytes at rest are not what was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("damaged record at position {position}")]
    Damaged { position: u64, source: FrameError },
    #[error("cannot write a record as a frame")]
    Encode(#[source] FrameError),
}

impl StorageError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Where in the segment a record is, and when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Offset of the frame in bytes.
    offset: u32,
    /// Arrival after the first record of the segment in milliseconds; the log rolls over long before 49 days.
    delay_ms: u32,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    /// `append` is open only while the segment is the newest.
    File {
        path: PathBuf,
        append: Option<File>,
    },
}

#[derive(Debug)]
pub(crate) struct Segment {
    first: Position,
    base_ms: u64,
    index: Vec<Entry>,
    len: u64,
    store: Store,
}

impl Segment {
    /// An empty segment; the file is made now, so that its name keeps the position after a restart.
    pub(crate) fn create(dir: Option<&Path>, first: Position) -> Result<Self, StorageError> {
        let store = match dir {
            None => Store::Memory(Vec::new()),
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(StorageError::io("create", dir))?;
                let path = dir.join(file_name(first));
                let file = OpenOptions::new().create(true).append(true).open(&path);
                let file = file.map_err(StorageError::io("create", &path))?;
                // A file of this name can only hold what was never acknowledged.
                file.set_len(0).map_err(StorageError::io("cut", &path))?;
                Store::File { path, append: Some(file) }
            }
        };
        Ok(Self { first, base_ms: 0, index: Vec::new(), len: 0, store })
    }

    /// Reads the index of an existing file. Frames from the first unsound one on, and those at or behind `limit`
    /// (the start of the next segment), are not taken; if this is the newest segment they are cut off.
    pub(crate) fn open(path: PathBuf, first: Position, limit: Option<Position>) -> Result<Self, StorageError> {
        let bytes = std::fs::read(&path).map_err(StorageError::io("read", &path))?;
        let mut segment = Self { first, base_ms: 0, index: Vec::new(), len: 0, store: Store::Memory(Vec::new()) };
        let mut rest = bytes.as_slice();
        while let Ok(frame) = frame::decode(rest) {
            let sound = frame.position == segment.end() && limit.is_none_or(|l| frame.position < l);
            if !sound || segment.push_entry(frame.arrival_ms, frame.encoded_len()).is_err() {
                break;
            }
            rest = &rest[frame.encoded_len()..];
        }
        if !rest.is_empty() {
            tracing::warn!(path = %path.display(), bytes = rest.len(), records = segment.index.len(), newest = limit.is_none(),
                "unsound bytes behind the last whole record of a segment");
        }
        let mut append = None;
        if limit.is_none() {
            let file = OpenOptions::new().append(true).open(&path).map_err(StorageError::io("open", &path))?;
            file.set_len(segment.len).map_err(StorageError::io("cut", &path))?;
            append = Some(file);
        }
        segment.store = Store::File { path, append };
        Ok(segment)
    }

    fn push_entry(&mut self, arrival_ms: u64, frame_len: usize) -> Result<(), FrameError> {
        if self.index.is_empty() {
            self.base_ms = arrival_ms;
        }
        let delay_ms = u32::try_from(arrival_ms.saturating_sub(self.base_ms)).unwrap_or(u32::MAX);
        let offset = u32::try_from(self.len).map_err(|_| FrameError::Damaged)?;
        self.index.push(Entry { offset, delay_ms });
        self.len += frame_len as u64;
        Ok(())
    }

    /// Writes frames (already encoded, of these lengths, all arrived at `arrival_ms`). On an error nothing is added.
    pub(crate) fn append(&mut self, bytes: &[u8], lens: &[usize], arrival_ms: u64) -> Result<(), StorageError> {
        match &mut self.store {
            Store::Memory(buffer) => buffer.extend_from_slice(bytes),
            Store::File { path, append } => {
                let missing = || std::io::Error::other("the segment is closed");
                let file = append.as_mut().ok_or_else(missing).map_err(StorageError::io("append to", path))?;
                if let Err(source) = file.write_all(bytes) {
                    if let Err(error) = file.set_len(self.len) {
                        tracing::error!(path = %path.display(), %error, "cannot take back a failed write, closing the segment");
                        *append = None;
                    }
                    return Err(StorageError::Io { action: "append to", path: path.clone(), source });
                }
            }
        }
        for len in lens {
            self.push_entry(arrival_ms, *len).map_err(StorageError::Encode)?;
        }
        Ok(())
    }

    /// The bytes of the frames of records `from..to`, counted from the start of the segment.
    pub(crate) fn read(&self, from: usize, to: usize) -> Result<Vec<u8>, StorageError> {
        let (start, end) = (self.offset(from), self.offset(to));
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        match &self.store {
            Store::Memory(buffer) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                Ok(buffer.get(start..start.saturating_add(len)).unwrap_or_default().to_vec())
            }
            Store::File { path, .. } => {
                let mut bytes = vec![0; len];
                let mut file = File::open(path).map_err(StorageError::io("open", path))?;
                file.seek(SeekFrom::Start(start)).map_err(StorageError::io("read", path))?;
                file.read_exact(&mut bytes).map_err(StorageError::io("read", path))?;
                Ok(bytes)
            }
        }
    }

    /// Makes the segment read-only and gives its file handle back.
    pub(crate) fn seal(&mut self) {
        if let Store::File { append, .. } = &mut self.store {
            *append = None;
        }
        self.index.shrink_to_fit();
    }

    /// Deletes the file.
    pub(crate) fn remove(self) {
        if let Store::File { path, .. } = &self.store
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a trimmed segment");
        }
    }

    pub(crate) fn is_writable(&self) -> bool {
        matches!(self.store, Store::Memory(_) | Store::File { append: Some(_), .. })
    }

    pub(crate) fn first(&self) -> Position {
        self.first
    }

    /// The position behind the last record.
    pub(crate) fn end(&self) -> Position {
        self.first.plus(self.index.len() as u64)
    }

    pub(crate) fn count(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.len
    }

    /// Offset of a record's frame in bytes; the end of the segment for the count of its records and above.
    pub(crate) fn offset(&self, record: usize) -> u64 {
        self.index.get(record).map_or(self.len, |e| u64::from(e.offset))
    }

    pub(crate) fn arrival_ms(&self, record: usize) -> Option<u64> {
        self.index.get(record).map(|e| self.base_ms.saturating_add(u64::from(e.delay_ms)))
    }

    pub(crate) fn last_arrival_ms(&self) -> Option<u64> {
        self.arrival_ms(self.index.len().checked_sub(1)?)
    }

    /// The first record that arrived at or after `ms`, counted from the start of the segment.
    pub(crate) fn first_at(&self, ms: u64) -> usize {
        self.index.partition_point(|e| self.base_ms.saturating_add(u64::from(e.delay_ms)) < ms)
    }
}

/// The name of the file of a segment that starts at `first`.
pub(crate) fn file_name(first: Position) -> String {
    format!("{:020}.log", first.0)
}

/// The start of the segment in a file of this name, if it is one.
pub(crate) fn parse_file_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok().map(Position)
    } else {
        None
    }
}
