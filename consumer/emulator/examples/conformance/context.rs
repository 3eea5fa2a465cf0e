//! What every check has: clients, a stream name of its own, and short ways to do common things.

use std::time::Duration;

use aws_sdk_kinesis::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::get_records::GetRecordsOutput,
    primitives::Blob,
    types::{ConsumerStatus, PutRecordsRequestEntry, Shard, ShardIteratorType, StreamStatus},
};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, Limits};

/// How a check ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// As AWS documents, perhaps with a number worth showing.
    Ok(String),
    /// What was seen instead.
    Differs(String),
    /// Not run, and why.
    Skipped(String),
}

impl From<Result<String, String>> for Verdict {
    fn from(result: Result<String, String>) -> Self {
        match result {
            Ok(note) => Self::Ok(note),
            Err(what) => Self::Differs(what),
        }
    }
}

pub(crate) type Outcome = Result<String, String>;

#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    /// Where limits apply and iterators expire soon; the same as `client` for an endpoint that is not ours.
    pub(crate) limited: Client,
    /// A name for the check's stream.
    pub(crate) stream: String,
    pub(crate) small: bool,
    /// How long to wait for an iterator to expire; `None` to leave it out.
    pub(crate) expiry: Option<Duration>,
}

fn client(endpoint: &str) -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_secs(60)).build();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .build();
    Client::from_conf(config)
}

async fn start(config: EmulatorConfig) -> Result<Emulator, String> {
    Emulator::start(config, ([127, 0, 0, 1], 0).into()).await.map_err(|e| e.to_string())
}

/// What the service said to a refused call, by name.
pub(crate) fn code<E: ProvideErrorMetadata, R: std::fmt::Debug>(error: &SdkError<E, R>) -> String {
    match (error.code(), error) {
        (Some(code), _) => code.to_owned(),
        (None, SdkError::TimeoutError(_)) => "no answer in 60 s".to_owned(),
        (None, SdkError::ServiceError(_)) => "an error the SDK cannot type".to_owned(),
        (None, SdkError::ResponseError(_)) => "an answer the SDK cannot read".to_owned(),
        (None, _) => "no connection".to_owned(),
    }
}

/// Names the step that failed.
pub(crate) fn failed<E: ProvideErrorMetadata, R: std::fmt::Debug>(
    step: &'static str,
) -> impl Fn(SdkError<E, R>) -> String {
    move |error| format!("{step}: {}", code(&error))
}

/// Wants a refusal of one of these names.
pub(crate) fn refused<T, E: ProvideErrorMetadata, R: std::fmt::Debug>(
    result: Result<T, SdkError<E, R>>,
    names: &[&str],
) -> Outcome {
    match result {
        Ok(_) => Err("accepted".to_owned()),
        Err(error) if names.contains(&code(&error).as_str()) => Ok(code(&error)),
        Err(error) => Err(format!("{} instead of {}", code(&error), names.join(" or "))),
    }
}

/// Wants two values equal.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:?}, expected {expected:?}")) }
}

pub(crate) fn shard_id(index: usize) -> String {
    format!("shardId-{index:012}")
}

/// A record to put: its key and its data.
pub(crate) fn entry(key: &str, data: Vec<u8>) -> (String, Vec<u8>) {
    (key.to_owned(), data)
}

/// Records as the SDK wants them.
pub(crate) fn entries(records: Vec<(String, Vec<u8>)>) -> Result<Vec<PutRecordsRequestEntry>, String> {
    let build = |(key, data)| PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build();
    records.into_iter().map(|record| build(record).map_err(|e| e.to_string())).collect()
}

impl Context {
    /// Clients for the endpoint, or for emulators started here (which live as long as the list returned).
    pub(crate) async fn new(endpoint: Option<&str>, small: bool, slow: bool) -> Result<(Self, Vec<Emulator>), String> {
        if let Some(endpoint) = endpoint {
            let client = client(endpoint);
            let expiry = slow.then_some(Duration::from_secs(305));
            return Ok((Self { limited: client.clone(), client, stream: String::new(), small, expiry }, Vec::new()));
        }
        let plain = start(EmulatorConfig::default()).await?;
        let iterator_ttl = Duration::from_secs(1);
        let limited = start(EmulatorConfig { limits: Limits::Aws, iterator_ttl, ..EmulatorConfig::default() }).await?;
        let (c, l) = (client(&plain.endpoint_url()), client(&limited.endpoint_url()));
        let expiry = Some(Duration::from_millis(1100));
        Ok((Self { client: c, limited: l, stream: String::new(), small, expiry }, vec![plain, limited]))
    }

    /// The context of check number `i`.
    pub(crate) fn named(&self, i: usize) -> Self {
        Self { stream: format!("conformance-{i}"), ..self.clone() }
    }

    /// The same, with limits.
    pub(crate) fn with_limits(self) -> Self {
        Self { client: self.limited.clone(), ..self }
    }

    pub(crate) async fn create(&self, shards: i32) -> Result<(), String> {
        let create = self.client.create_stream().stream_name(&self.stream).shard_count(shards);
        create.send().await.map_err(failed("CreateStream"))?;
        self.wait_active().await
    }

    pub(crate) async fn wait_active(&self) -> Result<(), String> {
        for _ in 0..300 {
            let summary = self.client.describe_stream_summary().stream_name(&self.stream).send().await;
            let summary = summary.map_err(failed("DescribeStreamSummary"))?;
            if summary.stream_description_summary().is_some_and(|s| *s.stream_status() == StreamStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("not ACTIVE after 15 s".to_owned())
    }

    /// Deletes the check's stream; others are not disturbed by what is left.
    pub(crate) async fn delete(&self) {
        let delete = self.client.delete_stream().stream_name(&self.stream).enforce_consumer_deletion(true);
        if let Err(error) = delete.send().await {
            eprintln!("cannot delete {}: {}", self.stream, code(&error));
        }
    }

    pub(crate) async fn arn(&self) -> Result<String, String> {
        let summary = self.client.describe_stream_summary().stream_name(&self.stream).send().await;
        let summary = summary.map_err(failed("DescribeStreamSummary"))?;
        Ok(summary.stream_description_summary().map(|s| s.stream_arn().to_owned()).unwrap_or_default())
    }

    pub(crate) async fn consumer(&self) -> Result<String, String> {
        let arn = self.arn().await?;
        let register = self.client.register_stream_consumer().stream_arn(arn).consumer_name("reader");
        let consumer = register.send().await.map_err(failed("RegisterStreamConsumer"))?;
        let arn = consumer.consumer().map(|c| c.consumer_arn().to_owned()).unwrap_or_default();
        for _ in 0..200 {
            let described = self.client.describe_stream_consumer().consumer_arn(&arn).send().await;
            let described = described.map_err(failed("DescribeStreamConsumer"))?;
            if described.consumer_description().is_some_and(|c| *c.consumer_status() == ConsumerStatus::Active) {
                return Ok(arn);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the consumer is not ACTIVE after 10 s".to_owned())
    }

    pub(crate) async fn put(&self, key: &str, data: &[u8]) -> Result<String, String> {
        let put = self.client.put_record().stream_name(&self.stream).partition_key(key).data(Blob::new(data));
        Ok(put.send().await.map_err(failed("PutRecord"))?.sequence_number().to_owned())
    }

    pub(crate) async fn put_many(&self, records: Vec<(String, Vec<u8>)>) -> Result<Vec<(String, String)>, String> {
        let put = self.client.put_records().stream_name(&self.stream).set_records(Some(entries(records)?));
        let answer = put.send().await.map_err(failed("PutRecords"))?;
        same("failed records", answer.failed_record_count(), Some(0))?;
        let answers = answer.records().iter();
        Ok(answers
            .map(|r| (r.shard_id().unwrap_or("").to_owned(), r.sequence_number().unwrap_or("").to_owned()))
            .collect())
    }

    pub(crate) async fn iterator(&self, shard: &str, kind: ShardIteratorType) -> Result<String, String> {
        let get = self.client.get_shard_iterator().stream_name(&self.stream).shard_id(shard).shard_iterator_type(kind);
        Ok(get.send().await.map_err(failed("GetShardIterator"))?.shard_iterator().unwrap_or("").to_owned())
    }

    pub(crate) async fn get(&self, iterator: &str) -> Result<GetRecordsOutput, String> {
        self.client.get_records().shard_iterator(iterator).send().await.map_err(failed("GetRecords"))
    }

    /// Reads a shard from the start to its end, or to the tip; the last answer comes along.
    pub(crate) async fn read(&self, shard: &str) -> Result<(Vec<String>, Option<GetRecordsOutput>), String> {
        let mut iterator = Some(self.iterator(shard, ShardIteratorType::TrimHorizon).await?);
        let (mut all, mut last, mut empty) = (Vec::new(), None, 0);
        while let Some(next) = iterator.filter(|_| empty < 3) {
            let page = self.get(&next).await?;
            empty = if page.records().is_empty() { empty + 1 } else { 0 };
            all.extend(page.records().iter().map(|r| String::from_utf8_lossy(r.data().as_ref()).into_owned()));
            iterator = page.next_shard_iterator().map(str::to_owned);
            last = Some(page);
        }
        Ok((all, last))
    }

    pub(crate) async fn shards(&self) -> Result<Vec<Shard>, String> {
        let list = self.client.list_shards().stream_name(&self.stream).send().await.map_err(failed("ListShards"))?;
        Ok(list.shards().to_vec())
    }
}

/// Whether a shard takes records.
pub(crate) fn is_open(shard: &Shard) -> bool {
    shard.sequence_number_range().is_some_and(|r| r.ending_sequence_number().is_none())
}

/// The hash range of a shard.
pub(crate) fn range(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range();
    let end = |text: Option<&str>| text.and_then(|t| t.parse().ok()).unwrap_or(0);
    (end(range.map(|r| r.starting_hash_key())), end(range.map(|r| r.ending_hash_key())))
}

/// Open shards cover the hash space without gap or overlap.
pub(crate) fn check_cover(shards: &[Shard]) -> Result<(), String> {
    let mut ranges: Vec<_> = shards.iter().filter(|s| is_open(s)).map(range).collect();
    ranges.sort_unstable();
    let whole = ranges.first().is_some_and(|r| r.0 == 0) && ranges.last().is_some_and(|r| r.1 == u128::MAX);
    let tight = ranges.windows(2).all(|w| w[0].1.checked_add(1) == Some(w[1].0));
    if whole && tight { Ok(()) } else { Err(format!("open shards do not cover the hash space: {ranges:?}")) }
}
