//! Gzip with a limit: a few kilobytes can say they are gigabytes, so inflation stops at the limit and says so.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::error::DecodeError;

/// Default limit of a decompressed payload: 32 MiB.
pub const DEFAULT_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Whether the bytes start as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Inflates a gzip stream of at most `max` bytes (all members, if there are several).
///
/// # Errors
/// [`DecodeError::TooLarge`] names the limit; [`DecodeError::Gzip`] when the stream is broken or cut.
pub fn gunzip_limited(bytes: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    let mut plain = Vec::with_capacity(bytes.len().saturating_mul(4).min(max).min(1 << 20));
    MultiGzDecoder::new(bytes)
        .take(limit.saturating_add(1))
        .read_to_end(&mut plain)
        .map_err(|error| DecodeError::Gzip(error.to_string()))?;
    if plain.len() > max {
        return Err(DecodeError::TooLarge { limit: max });
    }
    Ok(plain)
}

/// The first bytes inside a gzip stream, as many as `max` or as can be read.
pub(super) fn peek(bytes: &[u8], max: usize) -> Vec<u8> {
    let mut plain = vec![0; max];
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut filled = 0;
    while filled < max {
        match decoder.read(&mut plain[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    plain.truncate(filled);
    plain
}

/// Compresses; equal bytes give equal bytes (no time stamp).
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::default());
    // Writing into a Vec cannot fail; an empty result would be refused by every reader.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_and_packing_is_deterministic() {
        let plain = b"flow".repeat(1000);
        assert_eq!(gunzip_limited(&gzip(&plain), plain.len()), Ok(plain.clone()));
        assert_eq!(gzip(&plain), gzip(&plain));
        assert_eq!(peek(&gzip(&plain), 6), b"flowfl");
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_the_error_names_it() {
        let bomb = gzip(&vec![0; 8 << 20]);
        assert!(bomb.len() < 16_384);
        let error = gunzip_limited(&bomb, 1 << 20).unwrap_err();
        assert_eq!(error, DecodeError::TooLarge { limit: 1 << 20 });
        assert!(error.to_string().contains("1048576"));
    }

    #[test]
    fn half_a_stream_is_an_error() {
        let packed = gzip(&b"flow".repeat(1000));
        assert!(matches!(gunzip_limited(&packed[..packed.len() / 2], 1 << 20), Err(DecodeError::Gzip(_))));
        assert!(matches!(gunzip_limited(&[0x1f, 0x8b], 1 << 20), Err(DecodeError::Gzip(_))));
    }
}
