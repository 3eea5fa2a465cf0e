//! Which form a save takes, and that it comes back.

use prost::Message as _;

use super::*;
use crate::commit::{Form, MAX_DELTAS};

fn saver(chunks: &Chunks) -> Saver {
    Saver::new(chunks.clone(), "shard-1", fence(1, 1), Vec::new(), None)
}

#[tokio::test]
async fn a_part_of_many_chunks_comes_back_and_an_empty_one_too() {
    let chunks = chunks();
    let (manifest, _) = save(&mut saver(&chunks), vec![("lane-1", noise(1, 500_000)), ("lane-2", Vec::new())]).await;
    let read = restore(&chunks, &manifest).await.unwrap();
    assert_eq!(read[0].1, noise(1, 500_000));
    assert_eq!(manifest.parts[0].chunks, 6);
    assert!(read[1].1.is_empty());
}

#[tokio::test]
async fn small_changes_are_stored_as_deltas_until_a_base_is_forced_before_48_of_them() {
    let (chunks, mut state) = (chunks(), noise(1, 100_000));
    let mut saver = saver(&chunks);
    let mut forms = Vec::new();
    for round in 0..100u8 {
        state[usize::from(round) * 7] ^= 0xff;
        let (manifest, written) = save(&mut saver, vec![("lane-1", state.clone())]).await;
        assert_eq!(restore(&chunks, &manifest).await.unwrap()[0].1, state, "round {round}");
        forms.push(written[0].form == Form::Delta);
    }
    let bases: Vec<usize> = (0..forms.len()).filter(|round| !forms[*round]).collect();
    assert_eq!(bases, [0, 48, 96]);
    assert_eq!(MAX_DELTAS, 47);
}

#[tokio::test]
async fn deltas_that_would_exceed_twice_the_base_make_way_for_a_base() {
    let chunks = chunks();
    let mut saver = saver(&chunks);
    let mut state = noise(1, 100_000);
    let mut forms = Vec::new();
    for round in 0..8u32 {
        let fresh = noise(round + 2, 40_000);
        state[..40_000].copy_from_slice(&fresh);
        let (manifest, written) = save(&mut saver, vec![("lane-1", state.clone())]).await;
        assert_eq!(restore(&chunks, &manifest).await.unwrap()[0].1, state);
        forms.push(written[0].form == Form::Delta);
    }
    assert_eq!(forms, [false, true, true, true, true, false, true, true]);
    let (_, written) = save(&mut saver, vec![("lane-1", noise(99, 100_000))]).await;
    assert_eq!(written[0].form, Form::Base, "a delta larger than half of it saves too little");
}

#[tokio::test]
async fn what_fits_one_write_unit_is_stored_whole_and_what_did_not_change_not_at_all() {
    let chunks = chunks();
    let mut saver = saver(&chunks);
    save(&mut saver, vec![("small", noise(1, 500))]).await;
    let (_, written) = save(&mut saver, vec![("small", noise(2, 500))]).await;
    assert_eq!(written[0].form, Form::Base);
    let (manifest, written) = save(&mut saver, vec![("small", noise(2, 500))]).await;
    assert!(written.is_empty());
    assert_eq!(restore(&chunks, &manifest).await.unwrap()[0].1, noise(2, 500));
}

#[tokio::test]
async fn many_parts_are_named_by_a_directory_so_that_the_row_stays_small() {
    let chunks = chunks();
    let mut saver = saver(&chunks);
    for lanes in [1usize, 8, 64, 8] {
        let keys: Vec<String> = (0..lanes).map(|lane| format!("lane-{lane:04}")).collect();
        let lane = |key: &String| (key.clone(), Bytes::from(format!("state of {key}")));
        let saved = keys.iter().map(lane).collect();
        let keeps = |key: &str| keys.iter().any(|kept| kept == key);
        let stop = CancellationToken::new();
        let (manifest, _) = saver.put("496".into(), saved, keeps, &stop).await.unwrap();
        saver.committed();
        assert!(manifest.encoded_len() <= Manifest::INLINE_BYTES, "{lanes} lanes: {}", manifest.encoded_len());
        assert_eq!(manifest.directory.is_some(), lanes == 64);
        assert_eq!(restore(&chunks, &manifest).await.unwrap().len(), lanes);
    }
}

#[tokio::test]
async fn a_new_owners_first_save_is_whole_and_leaves_what_is_committed_readable() {
    let chunks = chunks();
    let mut first = saver(&chunks);
    save(&mut first, vec![("lane-1", noise(1, 50_000)), ("lane-2", noise(7, 5_000))]).await;
    let mut state = noise(1, 50_000);
    state[5] ^= 1;
    let (committed, written) = save(&mut first, vec![("lane-1", state.clone())]).await;
    assert_eq!(written[0].form, Form::Delta);
    let mut second = Saver::new(chunks.clone(), "shard-1", fence(1, 2), committed.parts.clone(), None);
    let changed = noise(3, 50_000);
    let (next, written) = put(&mut second, vec![("lane-1", changed.clone())]).await.unwrap();
    assert_eq!(written[0].form, Form::Base);
    assert_eq!(restore(&chunks, &committed).await.unwrap()[0].1, state, "not committed yet");
    let read = restore(&chunks, &next).await.unwrap();
    assert_eq!((&read[0].1[..], &read[1].1[..]), (&changed[..], &noise(7, 5_000)[..]), "one saved, one kept");
}

#[tokio::test]
async fn deleting_a_finished_shard_takes_its_own_parts_and_leaves_the_lanes_that_moved_on() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut parent = saver(&chunks);
    let state = |lane: u32| noise(lane, 3_000);
    let keys: Vec<String> = (0..20).map(|lane| format!("lane-{lane:04}")).chain(["marks@shard-1".into()]).collect();
    let saved = (0..).zip(&keys).map(|(lane, key)| (key.as_str(), state(lane))).collect();
    let (finished, _) = save(&mut parent, saved).await;
    let lanes =
        chunks.parts(&finished).await.unwrap().into_iter().filter(|part| part.key.starts_with("lane")).collect();
    let living = Manifest::new("2".into(), lanes);
    let deleted = chunks.delete_parts(&finished, std::slice::from_ref(&living)).await.unwrap();
    assert_eq!(deleted, 2, "the marks and the directory");
    assert_eq!(restore(&chunks, &living).await.unwrap().len(), 20);
    assert_eq!(chunks.delete_parts(&finished, &[living]).await.unwrap(), 0, "again");
    let left = memory.scan(&state_table()).await.unwrap();
    assert_eq!(left.len(), 20);
}
