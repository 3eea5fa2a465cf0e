//! Kinesis and DynamoDB inside this process, and a stream whose records and reshards a test chooses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_types::retry::RetryConfig;
use flowshift_consumer::log::Log;
use flowshift_consumer::log::kinesis::KinesisLog;
use flowshift_consumer::shard::Shard;
use flowshift_consumer::table::{Table, aws::DynamoTable};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig};
use tokio::net::TcpListener;

/// The stream of every test.
pub(crate) const STREAM: &str = "flows";

/// Both services and their clients.
pub(crate) struct Services {
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) dynamodb_url: String,
    pub(crate) emulator: Emulator,
}

/// The id of the shard with this number.
pub(crate) fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// A record as the stream holds it: sequence number and text.
pub(crate) type Stored = (String, String);

impl Services {
    /// Starts both with a stream of `shards` shards.
    pub(crate) async fn start(shards: i32) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let emulator = Emulator::start(EmulatorConfig::default(), loopback).await.unwrap();
        let listener = TcpListener::bind(loopback).await.unwrap();
        let dynamodb_url = format!("http://{}", listener.local_addr().unwrap());
        let database = dynoxide::Database::memory().unwrap();
        tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()));
        let http = || aws_smithy_http_client::Builder::new().build_http();
        let nobody = || aws_sdk_dynamodb::config::Credentials::new("local", "local", None, None, "test");
        let kinesis = aws_sdk_kinesis::Config::builder()
            .behavior_version(aws_sdk_kinesis::config::BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .http_client(http())
            .credentials_provider(nobody())
            .region(aws_sdk_kinesis::config::Region::new("us-east-1"))
            .endpoint_url(emulator.endpoint_url())
            .build();
        let dynamodb = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .http_client(http())
            .credentials_provider(nobody())
            .region(aws_sdk_dynamodb::config::Region::new("us-east-1"))
            .endpoint_url(&dynamodb_url)
            .build();
        let services = Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
            dynamodb_url,
            emulator,
        };
        services.create(STREAM, shards).await;
        services
    }

    /// Makes a stream.
    pub(crate) async fn create(&self, stream: &str, shards: i32) {
        self.kinesis.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
    }

    pub(crate) fn kinesis_url(&self) -> String {
        self.emulator.endpoint_url()
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        Arc::new(KinesisLog::new(self.kinesis.clone()))
    }

    pub(crate) fn table(&self) -> Arc<dyn Table> {
        Arc::new(DynamoTable::new(self.dynamodb.clone()))
    }

    /// All shards, closed ones too, in the order of their ids.
    pub(crate) async fn shards(&self) -> Vec<Shard> {
        self.log().shards(STREAM).await.unwrap()
    }

    /// Puts `count` records, each with a text of its own, into the open shard with this id.
    pub(crate) async fn put(&self, shard: &str, count: u32, round: &str) {
        let shards = self.shards().await;
        let range = shards.iter().find(|s| s.id.as_str() == shard).unwrap().range;
        for n in 0..count {
            let text = format!("{shard} {round} {n}");
            let put = self.kinesis.put_record().stream_name(STREAM).partition_key("key");
            let put = put.explicit_hash_key(range.start.to_string()).data(Blob::new(text));
            assert_eq!(put.send().await.unwrap().shard_id(), shard);
        }
    }

    /// Splits a shard in the middle of its range.
    async fn split(&self, shard: &str) {
        let shards = self.shards().await;
        let range = shards.iter().find(|s| s.id.as_str() == shard).unwrap().range;
        let middle = range.start + (range.end - range.start) / 2 + 1;
        let split = self.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard);
        split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
    }

    /// Merges two adjacent shards.
    async fn merge(&self, first: &str, second: &str) {
        let merge = self.kinesis.merge_shards().stream_name(STREAM);
        merge.shard_to_merge(first).adjacent_shard_to_merge(second).send().await.unwrap();
    }

    /// 0 is split into 4 and 5; 2 and 3 are merged into 6; 1 stays.
    pub(crate) async fn reshard(&self) {
        self.split(&shard(0)).await;
        self.merge(&shard(2), &shard(3)).await;
    }

    /// Everything in the stream by shard, read without the engine.
    pub(crate) async fn stored(&self) -> BTreeMap<String, Vec<Stored>> {
        let mut stored = BTreeMap::new();
        for shard in self.shards().await {
            let id = shard.id.as_str();
            let seek = self.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(id);
            let seek = seek.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
            let (mut place, mut records) = (seek.shard_iterator, Vec::new());
            while let Some(iterator) = place {
                let page = self.kinesis.get_records().shard_iterator(iterator).send().await.unwrap();
                let text = |data: &Blob| String::from_utf8(data.as_ref().to_vec()).unwrap();
                records.extend(page.records.iter().map(|r| (r.sequence_number.clone(), text(&r.data))));
                place = page.next_shard_iterator.filter(|_| page.millis_behind_latest != Some(0));
            }
            stored.insert(id.to_owned(), records);
        }
        stored
    }
}
