//! A producer: several flow records in each Kinesis record, `PutRecords`, what was refused again until it is in.
//!
//! Event time never runs far ahead of what is acknowledged, so no record is late, whatever is throttled meanwhile. A
//! request whose answer was lost is sent again whole: those repeats are the producer's, and the job drops and counts
//! them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::kinesis::try_call;
use crate::support::tools::PATIENCE;

/// Flow records in one Kinesis record.
pub(crate) const PER_RECORD: usize = 50;
/// Kinesis records in a request, which is also all that may be unacknowledged: under a minute of event time.
const PER_REQUEST: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// What a producer has done so far.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    /// Kinesis records acknowledged.
    pub(crate) records: AtomicU64,
    /// Entries refused one by one, and put again.
    pub(crate) refused: AtomicU64,
    /// Requests that failed or had no answer, and were sent again whole.
    pub(crate) repeated: AtomicU64,
}

/// A running producer.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) produced: Arc<Produced>,
    thread: std::thread::JoinHandle<()>,
}

impl Producer {
    /// Puts the lines of a file into a stream, spread over about `span`: in bursts as fast as the shards take them, with
    /// pauses between.
    pub(crate) fn start(kinesis: &str, stream: &str, flows: &Path, span: Duration) -> Self {
        let produced = Arc::<Produced>::default();
        let (kinesis, stream, flows) = (kinesis.to_owned(), stream.to_owned(), flows.to_owned());
        let counts = Arc::clone(&produced);
        let thread = std::thread::spawn(move || produce(&kinesis, &stream, &flows, span, &counts));
        Self { produced, thread }
    }

    /// Whether everything is in.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the last record.
    pub(crate) fn finish(self) -> Arc<Produced> {
        self.thread.join().unwrap();
        self.produced
    }
}

fn produce(kinesis: &str, stream: &str, flows: &Path, span: Duration, counts: &Produced) {
    let total = std::fs::metadata(flows).unwrap().len().max(1);
    let (began, mut sent) = (Instant::now(), 0_u64);
    let mut entries = Vec::new();
    for lines in records(flows) {
        sent += lines.len() as u64;
        // The partition key of an agent or collector: its own name. Hosts of a few subnets make some shards hot.
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        entries.push(json!({ "PartitionKey": first["src"], "Data": STANDARD.encode(&lines) }));
        if entries.len() == PER_REQUEST {
            put(kinesis, stream, std::mem::take(&mut entries), counts);
            // Eight bursts: within one nothing waits, behind it time catches up.
            let behind = (sent * 8 / total) as f64 / 8.0;
            std::thread::sleep(span.mul_f64(behind).saturating_sub(began.elapsed()));
        }
    }
    put(kinesis, stream, entries, counts);
}

fn records(flows: &Path) -> impl Iterator<Item = String> {
    let mut lines = BufReader::new(File::open(flows).unwrap()).lines();
    std::iter::from_fn(move || {
        let mut record = String::new();
        for line in lines.by_ref().take(PER_RECORD) {
            record.push_str(&line.unwrap());
            record.push('\n');
        }
        (!record.is_empty()).then_some(record)
    })
}

/// Puts all of them, over any number of refusals.
fn put(kinesis: &str, stream: &str, entries: Vec<Value>, counts: &Produced) {
    let mut waiting: VecDeque<Value> = entries.into();
    let deadline = Instant::now() + PATIENCE;
    while !waiting.is_empty() {
        assert!(Instant::now() < deadline, "records not taken within {PATIENCE:?}");
        let request = json!({ "StreamName": stream, "Records": waiting });
        let answer = try_call(kinesis, "PutRecords", &request).ok().filter(|answer| answer.status == 200);
        let Some(answer) = answer else {
            counts.repeated.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
            continue;
        };
        let outcomes = answer.json();
        let refused = |outcome: &Value| !outcome["ErrorCode"].is_null();
        let outcomes = outcomes["Records"].as_array().unwrap();
        assert_eq!(outcomes.len(), waiting.len());
        let mut again = VecDeque::new();
        for (entry, outcome) in waiting.into_iter().zip(outcomes) {
            if refused(outcome) {
                again.push_back(entry);
            }
        }
        counts.records.fetch_add((outcomes.len() - again.len()) as u64, Ordering::Relaxed);
        counts.refused.fetch_add(again.len() as u64, Ordering::Relaxed);
        waiting = again;
        if !waiting.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
}
