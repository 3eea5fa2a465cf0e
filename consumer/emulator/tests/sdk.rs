//! Faults as the official SDK takes them: what it retries, and what it then wrote twice.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use aws_sdk_kinesis::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    error::ProvideErrorMetadata as _,
    primitives::Blob,
    types::ShardIteratorType,
};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, FaultKind, FaultRule};

async fn start() -> (Emulator, Client) {
    let emulator = Emulator::start(EmulatorConfig::default(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(1));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(emulator.endpoint_url())
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(retries)
        .build();
    let client = Client::from_conf(config);
    client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    (emulator, client)
}

async fn put(client: &Client) -> Result<(), String> {
    let put = client.put_record().stream_name("s").partition_key("k").data(Blob::new("x")).send().await;
    put.map(|_| ()).map_err(|e| e.code().unwrap_or("untyped").to_owned())
}

async fn read(client: &Client) -> Result<usize, String> {
    let get = client.get_shard_iterator().stream_name("s").shard_id("shardId-000000000000");
    let iterator = get.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let page = client.get_records().set_shard_iterator(iterator.shard_iterator).send().await;
    page.map(|p| p.records().len()).map_err(|e| e.code().unwrap_or("untyped").to_owned())
}

#[tokio::test]
async fn the_sdk_retries_throttles_and_server_errors_and_types_the_rest() {
    let (emulator, client) = start().await;
    let internal = FaultKind::Status { status: 500, error_type: "InternalFailure".to_owned() };
    for kind in [FaultKind::Throttle, internal] {
        emulator.faults().add(FaultRule::new(kind).on("PutRecord").times(3)).unwrap();
        put(&client).await.unwrap();
        emulator.faults().clear();
    }
    assert_eq!(emulator.stats().answers["PutRecord"]["injected"], 6);
    emulator.faults().add(FaultRule::new(FaultKind::ExpireIterator).times(1)).unwrap();
    assert_eq!(read(&client).await.unwrap_err(), "ExpiredIteratorException");
    assert_eq!(read(&client).await, Ok(2));
}

#[tokio::test]
async fn a_cut_answer_makes_the_sdk_write_twice() {
    let (emulator, client) = start().await;
    put(&client).await.unwrap();
    emulator.faults().add(FaultRule::new(FaultKind::CutAfterApply).on("PutRecord").times(1)).unwrap();
    put(&client).await.unwrap();
    assert_eq!(read(&client).await, Ok(3));
}
