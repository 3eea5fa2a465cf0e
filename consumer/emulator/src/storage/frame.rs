//! The format of one record at rest.
//!
//! ```text
//! u32 LE  length of the payload      u32 LE  CRC32 of the payload
//! payload: u64 LE position, u64 LE arrival (ms since 1970), u16 LE key length, key (UTF-8), data
//! ```
//! Invariant: [`decode`] returns only what [`encode`] wrote; any cut or flipped bit is a [`FrameError`].

use crate::ids::Position;

/// Bytes of a frame besides key and data.
pub(crate) const OVERHEAD: usize = HEADER + PAYLOAD_HEAD;
const HEADER: usize = 8;
const PAYLOAD_HEAD: usize = 18;

/// One stored record, borrowed from the bytes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) position: Position,
    /// Milliseconds since 1970; never falls within a shard.
    pub(crate) arrival_ms: u64,
    pub(crate) partition_key: &'a str,
    pub(crate) data: &'a [u8],
}

impl Frame<'_> {
    /// Length of the whole frame in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        OVERHEAD + self.partition_key.len() + self.data.len()
    }
}

/// Bytes that are not a whole, sound frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The bytes end inside the frame: the usual end of a file whose writer was killed.
    #[error("the frame is cut short")]
    Truncated,
    /// The checksum, or a length inside the payload, does not fit.
    #[error("the frame is damaged")]
    Damaged,
}

/// Appends a frame. The key is at most 64 KiB and the record below 4 GiB; the request checks refuse far less.
pub(crate) fn encode(out: &mut Vec<u8>, frame: &Frame<'_>) -> Result<(), FrameError> {
    let key_len = u16::try_from(frame.partition_key.len()).map_err(|_| FrameError::Damaged)?;
    let payload_len = u32::try_from(frame.encoded_len() - HEADER).map_err(|_| FrameError::Damaged)?;
    let start = out.len();
    out.extend_from_slice(&payload_len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&frame.position.0.to_le_bytes());
    out.extend_from_slice(&frame.arrival_ms.to_le_bytes());
    out.extend_from_slice(&key_len.to_le_bytes());
    out.extend_from_slice(frame.partition_key.as_bytes());
    out.extend_from_slice(frame.data);
    let crc = crc32fast::hash(&out[start + HEADER..]);
    out[start + 4..start + HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Reads the frame at the front of `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    let (crc, rest) = rest.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| FrameError::Damaged)?;
    let payload = rest.get(..len).ok_or(FrameError::Truncated)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*crc) {
        return Err(FrameError::Damaged);
    }
    let (position, rest) = payload.split_first_chunk::<8>().ok_or(FrameError::Damaged)?;
    let (arrival, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Damaged)?;
    let (key_len, rest) = rest.split_first_chunk::<2>().ok_or(FrameError::Damaged)?;
    let key_len = usize::from(u16::from_le_bytes(*key_len));
    let (key, data) = rest.split_at_checked(key_len).ok_or(FrameError::Damaged)?;
    Ok(Frame {
        position: Position(u64::from_le_bytes(*position)),
        arrival_ms: u64::from_le_bytes(*arrival),
        partition_key: std::str::from_utf8(key).map_err(|_| FrameError::Damaged)?,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_no_cut_or_flipped_bit_passes() {
        let frame =
            Frame { position: Position(77), arrival_ms: 1_700_000_000_123, partition_key: "schlüssel", data: b"abc" };
        let mut bytes = Vec::new();
        encode(&mut bytes, &frame).unwrap();
        assert_eq!(bytes.len(), frame.encoded_len());
        assert_eq!(decode(&bytes), Ok(frame));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(FrameError::Truncated));
        }
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&broken).is_err(), "bit {bit}");
        }
    }
}
