//! Compression of state: whole, or as a patch against bytes the reader already has.
//!
//! Both are zstd frames. A patch is a frame whose window begins with the other bytes (zstd calls it a reference
//! prefix), so what did not change costs a few bytes per run. Not here: where frames are stored ([`super::part`]).
//! Invariant: unpacking gives back exactly the bytes or an error; a length from outside is bounded before memory is
//! taken.

use std::io::{self, Read, Write};

/// A state larger than this is a fault, not a state.
pub(super) const MAX_PLAIN_BYTES: u64 = 1 << 30;
/// zstd's default. Level 1 without long-distance matches finds nothing in 430 KB of state (165 KB instead of 17 KB),
/// level 9 saves a tenth for many times the time: measured on a detector's lane.
const LEVEL: i32 = 3;

/// Bytes that the ordinary match tables of [`LEVEL`] remember.
const ORDINARY_BYTES: usize = 1 << 20;

/// Compresses whole bytes.
pub(super) fn pack(plain: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(plain, LEVEL)
}

/// Compresses bytes as a patch against `before`.
pub(super) fn pack_patch(before: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, before)?;
    encoder.window_log(window_log(before.len() + plain.len()))?;
    // Up to there the ordinary tables find the same matches in half the time; far beyond they forget the beginning.
    encoder.long_distance_matching(before.len() > ORDINARY_BYTES)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(plain.len() as u64))?;
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Reverses [`pack`] (`before` is empty) and [`pack_patch`].
pub(super) fn unpack(before: &[u8], packed: &[u8], length: u64) -> io::Result<Vec<u8>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if length > MAX_PLAIN_BYTES {
        return Err(invalid(format!("{length} bytes is beyond any state")));
    }
    let capacity = usize::try_from(length).map_err(|e| invalid(e.to_string()))?;
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(packed, before)?;
    decoder.window_log_max(31)?;
    let mut plain = Vec::with_capacity(capacity);
    decoder.take(length + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 == length {
        return Ok(plain);
    }
    Err(invalid(format!("more or fewer than {length} bytes")))
}

/// The smallest window that holds `bytes`, within zstd's limits.
fn window_log(bytes: usize) -> u32 {
    bytes.max(1 << 10).next_power_of_two().trailing_zeros().min(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64, lines: u64) -> Vec<u8> {
        let line = |i: u64| format!("{i}:{}\n", (i * 2_654_435_761 + seed) % 1_000_003);
        (0..lines).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn a_patch_gives_back_the_bytes_and_costs_little_when_little_changed() {
        let before = text(1, 40_000);
        let mut after = before.clone();
        after[200_000] ^= 1;
        after.splice(10_000..10_000, b"inserted".iter().copied());
        let patch = pack_patch(&before, &after).unwrap();
        assert!(patch.len() < 300, "{} bytes", patch.len());
        assert_eq!(unpack(&before, &patch, after.len() as u64).unwrap(), after);
    }

    #[test]
    fn empty_bytes_and_bytes_beyond_a_megabyte_come_back() {
        for (before, after) in
            [(vec![], vec![]), (vec![], text(1, 10)), (text(1, 10), vec![]), (text(1, 300_000), text(2, 300_000))]
        {
            let patch = pack_patch(&before, &after).unwrap();
            assert_eq!(unpack(&before, &patch, after.len() as u64).unwrap(), after);
            let whole = pack(&after).unwrap();
            assert_eq!(unpack(&[], &whole, after.len() as u64).unwrap(), after);
        }
    }

    #[test]
    fn a_wrong_length_or_a_wrong_prefix_is_an_error_or_other_bytes_and_never_a_panic() {
        let (before, after) = (text(1, 100), text(2, 100));
        let patch = pack_patch(&before, &after).unwrap();
        assert!(unpack(&before, &patch, after.len() as u64 - 1).is_err());
        assert!(unpack(&before, &patch, after.len() as u64 + 1).is_err());
        assert!(unpack(&before, &patch, u64::MAX).is_err());
        assert!(unpack(&before, &patch[..patch.len() / 2], after.len() as u64).is_err());
        assert_ne!(unpack(&text(3, 100), &patch, after.len() as u64).ok(), Some(after));
    }
}
