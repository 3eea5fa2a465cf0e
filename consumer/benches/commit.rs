//! What saving and restoring a lane of 100 KB takes: whole, and as a delta when a thirtieth of it changed.
//!
//! `cargo bench -p flowshift-consumer --bench commit`. Tables in memory: the time is compression, checksums and
//! copying. The bytes each form stores are printed first.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use flowshift_consumer::commit::{Chunks, Fence, Manifest, STATE_KEY, Saver};
use flowshift_consumer::log::StreamId;
use flowshift_consumer::table::TableName;
use flowshift_consumer::table::memory::MemoryTable;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

const LANE_BYTES: usize = 100_000;
const DELTAS: u32 = 20;

/// A state that compresses about as well as a detector's: small numbers, some of which change from save to save.
fn states(count: u32) -> Vec<Bytes> {
    let mut chance = SmallRng::seed_from_u64(1);
    let mut state: Vec<u8> =
        (0..LANE_BYTES).map(|_| if chance.random_bool(0.6) { 0 } else { chance.random() }).collect();
    let mut states = Vec::new();
    for _ in 0..count {
        for _ in 0..LANE_BYTES / 30 / 10 {
            let at = chance.random_range(0..LANE_BYTES - 10);
            state[at..at + 10].iter_mut().for_each(|byte| *byte = chance.random());
        }
        states.push(Bytes::from(state.clone()));
    }
    states
}

fn saver() -> (Chunks, Saver) {
    let stream = StreamId { name: "exchange".into(), created_ms: 1 };
    let name = TableName { name: "state".into(), key: STATE_KEY };
    let chunks = Chunks::new(Arc::new(MemoryTable::default()), name, stream);
    (chunks.clone(), Saver::new(chunks, "s", Fence { epoch: 1, counter: 1 }, Vec::new(), None))
}

async fn save(saver: &mut Saver, state: &Bytes) -> (Manifest, u64) {
    let saved = vec![("lane-0000".to_owned(), state.clone())];
    let (manifest, written) = saver.put("1".into(), saved, |_| true, &CancellationToken::new()).await.unwrap();
    saver.committed();
    (manifest, written.iter().map(|written| written.packed).sum())
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let states = states(DELTAS + 1);
    let (chunks, mut chain) = saver();
    let mut stored = Vec::new();
    let mut manifests = Vec::new();
    for state in &states {
        let (manifest, packed) = runtime.block_on(save(&mut chain, state));
        stored.push(packed);
        manifests.push(manifest);
    }
    let last = manifests.pop().unwrap();
    let deltas = &stored[1..];
    println!("{LANE_BYTES} bytes: base {} bytes, delta {} bytes", stored[0], deltas.iter().sum::<u64>() / 20);
    assert_eq!(last.parts[0].deltas, DELTAS);

    c.bench_function("save a base", |b| {
        b.iter_batched(
            saver,
            |(_, mut saver)| runtime.block_on(save(&mut saver, black_box(&states[0]))),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("save a delta", |b| {
        b.iter_batched(
            || {
                let (_, mut saver) = saver();
                runtime.block_on(save(&mut saver, &states[0]));
                saver
            },
            |mut saver| runtime.block_on(save(&mut saver, black_box(&states[1]))),
            BatchSize::SmallInput,
        );
    });
    let (whole_chunks, mut whole) = saver();
    let (base, _) = runtime.block_on(save(&mut whole, &states[0]));
    c.bench_function("restore a base", |b| {
        b.iter(|| runtime.block_on(whole_chunks.get(black_box(&base.parts[0]))).unwrap());
    });
    c.bench_function("restore a base and 20 deltas", |b| {
        b.iter(|| runtime.block_on(chunks.get(black_box(&last.parts[0]))).unwrap());
    });
}

criterion_group!(commit, benches);
criterion_main!(commit);
