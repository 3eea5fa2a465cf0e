//! Every call to AWS is counted by how it ended, and DynamoDB's capacity as the service charges it: over real HTTP, on
//! the Kinesis emulator with its faults and an embedded DynamoDB.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;
use flowshift_consumer::aws::CountCalls;
use flowshift_consumer::log::kinesis::KinesisLog;
use flowshift_consumer::log::{Entry, Log, LogError};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::shard::{Position, ShardId};
use flowshift_consumer::table::aws::DynamoTable;
use flowshift_consumer::table::metered::Metered;
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update, Value};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, FailedRecords, FaultKind, FaultRule};
use prometheus::Registry;
use tokio::net::TcpListener;

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

struct Counted {
    registry: Registry,
    metrics: EngineMetrics,
}

impl Counted {
    fn new() -> Self {
        let registry = Registry::new();
        let metrics = EngineMetrics::register(&registry, "t").unwrap();
        Self { registry, metrics }
    }

    /// The value of the one series of `name` that has all these label values; 0 without it.
    fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let families = self.registry.gather();
        let series = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        let fits = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|wanted| metric.get_label().iter().any(|label| label.value() == *wanted))
        };
        series.filter(fits).map(|metric| metric.get_counter().get_value()).sum()
    }

    fn calls(&self, operation: &str, outcome: &str) -> f64 {
        self.value("t_aws_calls_total", &[operation, outcome])
    }

    async fn kinesis(&self) -> (Emulator, aws_sdk_kinesis::Client) {
        let emulator = Emulator::start(EmulatorConfig::default(), SocketAddr::from(LOOPBACK)).await.unwrap();
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_initial_backoff(std::time::Duration::from_millis(1)))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .region(Region::new("us-east-1"))
            .endpoint_url(emulator.endpoint_url())
            .interceptor(CountCalls::new(self.metrics.clone()))
            .build();
        let client = aws_sdk_kinesis::Client::from_conf(config);
        client.create_stream().stream_name("flows").shard_count(1).send().await.unwrap();
        (emulator, client)
    }

    async fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let database = dynoxide::Database::memory().unwrap();
        let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()));
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .interceptor(CountCalls::new(self.metrics.clone()))
            .build();
        aws_sdk_dynamodb::Client::from_conf(config)
    }
}

fn entries(count: usize) -> Vec<Entry> {
    let entry = |i: usize| Entry { partition_key: i.to_string(), hash_key: None, data: Bytes::from_static(b"x") };
    (0..count).map(entry).collect()
}

#[tokio::test]
async fn calls_to_kinesis_are_counted_by_how_they_ended() {
    let counted = Counted::new();
    let (emulator, client) = counted.kinesis().await;
    let log = KinesisLog::new(client.clone()).with_metrics(counted.metrics.clone());
    let fault = |operation: &str, kind| FaultRule::new(kind).on(operation);

    log.identify("flows").await.unwrap();
    assert_eq!(counted.calls("DescribeStreamSummary", "ok"), 1.0);
    assert!(matches!(log.identify("nothing").await, Err(LogError::NotFound(_))));
    assert_eq!(counted.calls("DescribeStreamSummary", "not_found"), 1.0);

    // Throttled once, then through: one call, one retry.
    emulator.faults().add(fault("ListShards", FaultKind::Throttle).times(1)).unwrap();
    let shards = log.shards("flows").await.unwrap();
    assert_eq!(shards.len(), 1);
    assert_eq!(counted.calls("ListShards", "ok"), 1.0);
    assert_eq!(counted.value("t_aws_retries_total", &["ListShards"]), 1.0);

    // Throttled for good: three attempts of the SDK, one call.
    emulator.faults().add(fault("ListShards", FaultKind::Throttle)).unwrap();
    assert!(matches!(log.shards("flows").await, Err(LogError::Throttled)));
    assert_eq!(counted.calls("ListShards", "throttled"), 1.0);
    assert_eq!(counted.value("t_aws_retries_total", &["ListShards"]), 1.0 + 2.0);
    emulator.faults().clear();

    let token = log.seek("flows", &ShardId::new("shardId-000000000000"), &Position::TrimHorizon).await.unwrap();
    emulator.faults().add(fault("GetRecords", FaultKind::ExpireIterator).times(1)).unwrap();
    assert!(matches!(log.read("flows", &token).await, Err(LogError::Expired)));
    assert_eq!(counted.calls("GetRecords", "expired"), 1.0);

    let down = FaultKind::Status { status: 500, error_type: "InternalFailure".into() };
    emulator.faults().add(fault("GetRecords", down)).unwrap();
    assert!(matches!(log.read("flows", &token).await, Err(LogError::Unavailable(_))));
    assert_eq!(counted.calls("GetRecords", "unavailable"), 1.0);
    emulator.faults().clear();
    emulator.faults().add(fault("GetRecords", FaultKind::Latency { ms: 60_000 })).unwrap();
    let short = TimeoutConfig::builder().operation_timeout(std::time::Duration::from_millis(50)).build();
    let impatient = aws_sdk_kinesis::Client::from_conf(client.config().to_builder().timeout_config(short).build());
    assert!(matches!(KinesisLog::new(impatient).read("flows", &token).await, Err(LogError::Unavailable(_))));
    assert_eq!(counted.calls("GetRecords", "timeout"), 1.0);
    emulator.faults().clear();

    // Refused records inside an answered call.
    let some = FaultKind::PartialFailure(FailedRecords::Indices(vec![0, 2]));
    emulator.faults().add(fault("PutRecords", some).times(1)).unwrap();
    let answers = log.append("flows", &entries(3)).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 2);
    assert_eq!(counted.calls("PutRecords", "ok"), 1.0);
    assert_eq!(counted.value("t_put_failures_total", &["flows", "throttled"]), 2.0);
    emulator.shutdown().await;
}

#[tokio::test]
async fn capacity_counted_from_the_answers_is_what_the_size_rule_computes() {
    let counted = Counted::new();
    let table = DynamoTable::new(counted.dynamodb().await).with_metrics(counted.metrics.clone());
    let metered = Metered::new(Arc::new(table));
    let name = TableName { name: "rows".into(), key: "k" };
    metered.ensure(&name).await.unwrap();
    let row = |bytes: usize| {
        let payload = Value::B(Bytes::from(vec![7; bytes]));
        Item::new().with("k", Value::string("a")).with("n", Value::number(-1_200)).with("d", payload)
    };
    for bytes in [10, 1_015, 1_016, 1_017, 5_000, 100] {
        metered.put(&name, row(bytes), Condition::None).await.unwrap();
    }
    let change = Update::new().set("v", Value::Ss(["p".to_owned(), "qq".to_owned()].into())).remove("d");
    metered.update(&name, "a", change, Condition::Equals("n", Value::number(-1_200))).await.unwrap();
    metered.put(&name, row(3_000), Condition::Exists("v")).await.unwrap();
    // Refused: the answer says what stands there, and it is charged.
    let refused = metered.put(&name, row(10), Condition::Absent("k")).await;
    assert!(matches!(refused, Err(TableError::Conflict { current: Some(item) }) if item == Box::new(row(3_000))));
    let refused = metered.update(&name, "a", Update::new().remove("d"), Condition::Exists("no")).await;
    assert!(matches!(refused, Err(TableError::Conflict { current: Some(_) })));
    let refused = metered.delete(&name, "a", Condition::Exists("no")).await;
    assert!(matches!(refused, Err(TableError::Conflict { current: Some(_) })));
    let refused = metered.delete(&name, "absent", Condition::Exists("k")).await;
    assert!(matches!(refused, Err(TableError::Conflict { current: None })));
    metered.get(&name, "a").await.unwrap();
    metered.get(&name, "absent").await.unwrap();
    metered.scan(&name).await.unwrap();
    metered.delete(&name, "a", Condition::None).await.unwrap();

    let usage = metered.by_table()["rows"];
    assert_eq!(counted.value("t_dynamodb_write_units_total", &["rows"]), usage.write_units as f64);
    // One more read: where nothing stands, a refused write cannot say so by itself and is read after.
    assert_eq!(counted.value("t_dynamodb_read_units_total", &["rows"]), usage.read_units as f64 + 1.0);
    assert_eq!(usage.refused, 4);
    assert_eq!(counted.calls("PutItem", "conflict"), 1.0);
    assert_eq!(counted.calls("PutItem", "ok"), 7.0);
    assert_eq!(counted.calls("DeleteItem", "conflict"), 2.0);
}
