//! Owners of the past, damage, and rows that were made again.

use super::*;

fn saver(chunks: &Chunks, epoch: u64, counter: i64) -> Saver {
    Saver::new(chunks.clone(), "shard-1", fence(epoch, counter), Vec::new(), None)
}

#[tokio::test]
async fn an_older_owner_cannot_write_over_a_later_one() {
    let chunks = chunks();
    let put = async |epoch, counter| put(&mut saver(&chunks, epoch, counter), vec![("lane-1", b"x".to_vec())]).await;
    put(1, 5).await.unwrap();
    put(1, 5).await.unwrap();
    assert!(matches!(put(1, 4).await, Err(ChunkError::Fenced(_))), "older counter");
    put(2, 1).await.unwrap();
    assert!(matches!(put(1, 9).await, Err(ChunkError::Fenced(_))), "older epoch");
}

/// Was a bug: a cut that the row refused was put again under the same generation, so that a request of the first put
/// that was delayed on its way could land on the second one's bytes after their commit.
#[tokio::test]
async fn a_put_that_no_commit_followed_cannot_land_on_the_next_one() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = saver(&chunks, 1, 1);
    put(&mut owner, vec![("lane-1", b"refused".to_vec())]).await.unwrap();
    let delayed = memory.scan(&state_table()).await.unwrap().remove(0);
    let (manifest, _) = save(&mut owner, vec![("lane-1", b"committed".to_vec())]).await;
    let stored = memory.scan(&state_table()).await.unwrap();
    assert!(delayed.number("g") < stored[0].number("g"));
    assert_eq!(restore(&chunks, &manifest).await.unwrap()[0].1, "committed");
}

#[tokio::test]
async fn a_part_that_moved_on_is_not_taken_for_the_committed_one() {
    let chunks = chunks();
    let mut owner = saver(&chunks, 1, 1);
    let (first, _) = save(&mut owner, vec![("lane-1", b"one".to_vec())]).await;
    save(&mut owner, vec![("lane-1", b"two".to_vec())]).await;
    assert_eq!(restore(&chunks, &first).await.unwrap()[0].1, "one", "the generation before is still there");
    save(&mut owner, vec![("lane-1", b"three".to_vec())]).await;
    assert!(matches!(restore(&chunks, &first).await, Err(ChunkError::Damaged { .. })));
}

#[tokio::test]
async fn every_chunk_of_a_chain_is_missed_and_every_flipped_byte_seen() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = saver(&chunks, 1, 1);
    let mut state = noise(1, 150_000);
    let mut manifest = save(&mut owner, vec![("lane-1", state.clone())]).await.0;
    for round in 0..3 {
        state[round * 1000] ^= 1;
        manifest = save(&mut owner, vec![("lane-1", state.clone())]).await.0;
    }
    assert_eq!(manifest.parts[0].deltas, 3);
    let items = memory.scan(&state_table()).await.unwrap();
    assert_eq!(items.len(), 5, "two chunks of the base, three deltas");
    for item in items {
        let key = item.string(STATE_KEY).unwrap().to_owned();
        let none = crate::table::Condition::None;
        memory.delete(&state_table(), &key, none.clone()).await.unwrap();
        assert!(matches!(restore(&chunks, &manifest).await, Err(ChunkError::Missing(_))), "{key}");
        let mut damaged = item.clone();
        let mut bytes = item.bytes("d").unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        damaged.set("d", crate::table::Value::B(bytes.into()));
        memory.put(&state_table(), damaged, none.clone()).await.unwrap();
        assert!(matches!(restore(&chunks, &manifest).await, Err(ChunkError::Damaged { .. })), "{key}");
        memory.put(&state_table(), item, none).await.unwrap();
    }
    assert_eq!(restore(&chunks, &manifest).await.unwrap()[0].1, state);
}

#[tokio::test]
async fn a_row_made_again_under_a_raised_epoch_starts_over_whatever_lies_there() {
    let chunks = chunks();
    let mut before = saver(&chunks, 1, 900);
    for round in 0..5 {
        save(&mut before, vec![("lane-1", noise(round, 2_000))]).await;
    }
    // The row is gone and so is its manifest; the counter of the new one begins at 1.
    let mut again = saver(&chunks, 2, 1);
    for round in 10..15 {
        let (manifest, _) = save(&mut again, vec![("lane-1", noise(round, 2_000))]).await;
        assert_eq!(restore(&chunks, &manifest).await.unwrap()[0].1, noise(round, 2_000));
        assert!(
            matches!(put(&mut before, vec![("lane-1", noise(99, 2_000))]).await, Err(ChunkError::Fenced(_)))
                || round == 10
        );
    }
}
