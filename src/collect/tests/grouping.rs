//! Which records go into which call, and what becomes of refused ones; paused time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::*;

type CallResult = Result<Vec<Result<(), EntryError>>, CallError>;

/// Answers calls from a script; without one everything is taken after `delay`.
#[derive(Debug)]
struct Script {
    started: Instant,
    delay: Duration,
    answers: Mutex<VecDeque<CallResult>>,
    always: Option<CallError>,
    /// Milliseconds since the start, and the data of the call's records.
    calls: Mutex<Vec<(u128, Vec<Bytes>)>>,
}

impl Script {
    fn new(answers: Vec<CallResult>) -> Arc<Self> {
        Self::with(answers, Duration::from_millis(1), None)
    }

    fn with(answers: Vec<CallResult>, delay: Duration, always: Option<CallError>) -> Arc<Self> {
        let (answers, calls) = (Mutex::new(answers.into()), Mutex::default());
        Arc::new(Self { started: Instant::now(), delay, answers, always, calls })
    }

    fn sizes(&self) -> Vec<usize> {
        self.calls.lock().unwrap().iter().map(|(_, records)| records.len()).collect()
    }

    fn data(&self) -> Vec<Vec<Bytes>> {
        self.calls.lock().unwrap().iter().map(|(_, records)| records.clone()).collect()
    }
}

impl PutRecords for Arc<Script> {
    fn put_records(&self, records: Vec<Record>) -> BoxFuture<'static, CallResult> {
        let count = records.len();
        let data = records.into_iter().map(|record| record.data).collect();
        self.calls.lock().unwrap().push((self.started.elapsed().as_millis(), data));
        let answer = match (&self.always, self.answers.lock().unwrap().pop_front()) {
            (Some(error), _) => Err(error.clone()),
            (None, answer) => answer.unwrap_or_else(|| Ok(vec![Ok(()); count])),
        };
        let delay = self.delay;
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer
        })
    }
}

fn record(data: &'static str) -> Record {
    Record { partition_key: PartitionKey::of_agent("i-1"), data: Bytes::from_static(data.as_bytes()) }
}

fn start(script: &Arc<Script>) -> KinesisSink {
    KinesisSink::start(Arc::new(Arc::clone(script)), metrics(), SinkOptions::default())
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_share_a_call() {
    let script = Script::new(vec![]);
    let sink = start(&script);
    let puts = join_all((0..40).map(|_| sink.put(vec![record("a"), record("b")]))).await;
    assert!(puts.into_iter().all(|put| put.is_ok()));
    assert_eq!(script.sizes(), [80]);
    assert_eq!(script.started.elapsed().as_millis(), 11, "10 ms linger and the call");
}

#[tokio::test(start_paused = true)]
async fn calls_stay_within_the_limits_of_kinesis() {
    let script = Script::new(vec![]);
    let sink = start(&script);
    sink.put(vec![record("x"); 1_201]).await.unwrap();
    assert_eq!(script.sizes(), [500, 500, 201]);
    let large = Record { data: Bytes::from(vec![0; 1_000_000]), ..record("") };
    sink.put(vec![large; 12]).await.unwrap();
    assert_eq!(script.sizes()[3..], [5, 5, 2]);
}

#[tokio::test(start_paused = true)]
async fn only_refused_records_come_again_and_the_answer_waits_for_them() {
    let first =
        Ok(vec![Ok(()), Err(EntryError::Throttled), Ok(()), Err(EntryError::Internal("InternalFailure".into()))]);
    let script = Script::new(vec![first]);
    let sink = start(&script);
    let records = ["a", "b", "c", "d"].map(record).to_vec();
    sink.put(records).await.unwrap();
    let calls = script.data();
    assert_eq!(calls[0], ["a", "b", "c", "d"]);
    let mut again = calls[1..].concat();
    again.sort();
    assert_eq!(again, ["b", "d"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_too_few_entries_is_not_taken_for_success() {
    let script = Script::new(vec![Ok(vec![Ok(())])]);
    let sink = start(&script);
    sink.put(vec![record("a"), record("b")]).await.unwrap();
    assert_eq!(script.data(), [vec!["a", "b"], vec!["b"]]);
}

#[tokio::test(start_paused = true)]
async fn throttling_that_lasts_becomes_throttled_at_the_deadline() {
    let script = Script::with(vec![], Duration::from_millis(1), Some(CallError::Throttled));
    let sink = start(&script);
    let error = sink.put(vec![record("a")]).await.unwrap_err();
    assert_eq!(error, SinkError::Throttled { retry_after: Duration::from_secs(2) });
    let seconds = script.started.elapsed().as_secs();
    assert!((7..=10).contains(&seconds), "{seconds} s");
    let calls = script.sizes().len();
    assert!((8..=20).contains(&calls), "{calls} calls do not look like a doubling pause");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_answer_is_unavailable_and_later_puts_work() {
    let hanging = Script::with(vec![], Duration::from_secs(3_600), None);
    let error = start(&hanging).put(vec![record("a")]).await.unwrap_err();
    assert_eq!(error, SinkError::Unavailable { detail: "no answer in 5s".to_owned() });
    assert!(hanging.started.elapsed() <= Duration::from_secs(16), "{:?}", hanging.started.elapsed());
    let failing = Script::new(vec![Err(CallError::Unavailable("reset".to_owned()))]);
    start(&failing).put(vec![record("a")]).await.unwrap();
    assert_eq!(failing.sizes(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_is_not_repeated() {
    let script =
        Script::with(vec![], Duration::ZERO, Some(CallError::Rejected("ResourceNotFoundException".to_owned())));
    let sink = start(&script);
    let error = sink.put(vec![record("a"), record("b")]).await.unwrap_err();
    assert_eq!(error, SinkError::Unavailable { detail: "ResourceNotFoundException".to_owned() });
    assert_eq!(script.sizes(), [2]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_the_queue_is_throttled_at_once_and_room_comes_back() {
    let script = Script::with(vec![], Duration::from_secs(1), None);
    let metrics = metrics();
    let options = SinkOptions { queue_bytes: 8 << 10, ..SinkOptions::default() };
    let sink = KinesisSink::start(Arc::new(Arc::clone(&script)), metrics.clone(), options);
    let (full, over) = tokio::join!(sink.put(vec![record("x"); 8]), sink.put(vec![record("y")]));
    full.unwrap();
    assert_eq!(over, Err(SinkError::Throttled { retry_after: Duration::from_secs(1) }));
    sink.put(vec![record("y")]).await.unwrap();
    sink.close().await;
    assert_eq!(metrics.queue_bytes.get(), 0);
    assert_eq!(metrics.records_put.get(), 9);
}

#[tokio::test(start_paused = true)]
async fn close_puts_what_waits_and_takes_nothing_more() {
    let script = Script::new(vec![]);
    let sink = start(&script);
    let waiting = sink.put(vec![record("a")]);
    sink.close().await;
    waiting.await.unwrap();
    assert_eq!(script.sizes(), [1]);
    let late = sink.put(vec![record("b")]).await;
    assert_eq!(late, Err(SinkError::Unavailable { detail: "sink is closed".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_for_no_records() {
    let script = Script::new(vec![]);
    start(&script).put(vec![]).await.unwrap();
    assert!(script.sizes().is_empty());
}
