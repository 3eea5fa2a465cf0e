//! Files of JSON lines, plain or gzip, with the number of the line that is being read.
//!
//! Gzip is known by its first two bytes, not by the name. Not here: what a line says. Invariant: a line is bounded, so
//! that a file without line ends does not fill the memory.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::BacktestError;

/// Longest line; one of the exam's has under 4 KB.
const MAX_LINE: u64 = 16 << 20;
const BUFFER: usize = 1 << 18;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file that is read line by line.
pub struct Input {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: u64,
    text: Vec<u8>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}

impl Input {
    /// Reads from `file`, the content of `path` as it lies on disk.
    ///
    /// # Errors
    /// [`BacktestError::Read`] when its beginning cannot be read.
    pub fn new(path: &Path, file: impl Read + 'static) -> Result<Self, BacktestError> {
        let mut raw = BufReader::with_capacity(BUFFER, file);
        let gzip = raw.fill_buf().map_err(|source| read(path, source))?.starts_with(&GZIP);
        let reader: Box<dyn BufRead> =
            if gzip { Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))) } else { Box::new(raw) };
        Ok(Self { path: path.to_owned(), reader, line: 0, text: Vec::new() })
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`BacktestError::Read`] when it cannot be opened or read.
    pub fn open(path: &Path) -> Result<Self, BacktestError> {
        Self::new(path, std::fs::File::open(path).map_err(|source| read(path, source))?)
    }

    /// Goes on to the next line that is not blank, without its end; `None` at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read on, or the line is longer than 16 MiB.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, BacktestError> {
        loop {
            self.text.clear();
            let limited = &mut self.reader.as_mut().take(MAX_LINE);
            let length = limited.read_until(b'\n', &mut self.text).map_err(|source| read(&self.path, source))?;
            if length == 0 {
                return Ok(None);
            }
            self.line += 1;
            if length as u64 == MAX_LINE && !self.text.ends_with(b"\n") {
                return Err(self.wrong(format!("longer than {} MiB", MAX_LINE >> 20)));
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(Some(self.text.trim_ascii()));
            }
        }
    }

    /// The number of the line that was read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Says that the line read last is wrong.
    pub fn wrong(&self, what: impl Into<String>) -> BacktestError {
        BacktestError::Line { path: self.path.clone(), line: self.line, what: what.into() }
    }

    /// Says that the line read last is no such object: serde's own words, which name the column, without its line 1.
    pub(super) fn no_object(&self, error: &serde_json::Error) -> BacktestError {
        let column = error.column();
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        self.wrong(format!("{what} (column {column})"))
    }

    /// Says that the file should not be empty.
    pub(super) fn empty(&self) -> BacktestError {
        BacktestError::Empty { path: self.path.clone() }
    }
}

fn read(path: &Path, source: io::Error) -> BacktestError {
    BacktestError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn lines(bytes: Vec<u8>) -> Result<Vec<(u64, String)>, String> {
        let mut input = Input::new(Path::new("w.jsonl"), Cursor::new(bytes)).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        while let Some(line) = input.next_line().map_err(|e| e.to_string())? {
            let text = String::from_utf8(line.to_vec()).unwrap();
            found.push((input.line(), text));
        }
        Ok(found)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_known_by_its_first_bytes_and_may_be_of_several_members() {
        let expected = vec![(1, "a".to_owned()), (3, "b".to_owned()), (4, "c".to_owned())];
        assert_eq!(lines(b"a\n\nb\r\nc".to_vec()), Ok(expected.clone()));
        let mut members = gzip("a\n\n");
        members.extend(gzip("b\nc\n"));
        assert_eq!(lines(members), Ok(expected));
        assert_eq!(lines(Vec::new()), Ok(vec![]));
    }

    #[test]
    fn a_gzip_file_that_breaks_off_is_an_error_and_not_its_end() {
        let mut cut = gzip(&"a line\n".repeat(10_000));
        cut.truncate(cut.len() - 9);
        let told = lines(cut).unwrap_err();
        assert!(told.starts_with("w.jsonl: "), "{told}");
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let told = lines(vec![b'x'; (MAX_LINE + 1) as usize]).unwrap_err();
        assert_eq!(told, "w.jsonl line 1: longer than 16 MiB");
    }
}
