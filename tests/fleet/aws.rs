//! Kinesis and DynamoDB for worker processes: the emulator with or without the real limits, dynoxide behind the door
//! that makes weather, and the administrator's calls (make, split, merge, scale).
//!
//! Both run on threads of the test's own process, so nothing that is done to a worker touches them.

use std::net::SocketAddr;
use std::path::Path;

use dynoxide::Database;
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, FaultRule, Limits};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::chance::Chance;
use crate::proxy::{Proxy, Weather};
use crate::support::http::Answer;
use crate::support::kinesis;
use crate::support::tools::until;

/// The running services; they end when dropped.
#[derive(Debug)]
pub(crate) struct Aws {
    emulator: Emulator,
    /// The Kinesis emulator's `host:port`.
    pub(crate) kinesis: String,
    /// `host:port` of the door before DynamoDB.
    pub(crate) dynamodb: String,
    /// The door.
    pub(crate) proxy: Proxy,
    /// Dropped last: it carries everything above.
    _runtime: Runtime,
}

/// An open shard, with its hash range.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) id: String,
    pub(crate) start: u128,
    pub(crate) end: u128,
}

impl Aws {
    /// Starts both; streams are kept in `folder`.
    pub(crate) fn start(folder: &Path, limits: Limits, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = EmulatorConfig {
            data_dir: Some(folder.to_owned()),
            limits,
            fault_seed: seed,
            transition_delay: std::time::Duration::from_millis(500),
            ..EmulatorConfig::default()
        };
        let (emulator, dynamodb, proxy) = runtime.block_on(async {
            let emulator = Emulator::start(config, loopback).await.unwrap();
            let listener = TcpListener::bind(loopback).await.unwrap();
            let upstream = listener.local_addr().unwrap().to_string();
            tokio::spawn(dynoxide::server::serve_on(listener, Database::memory().unwrap()));
            let listener = TcpListener::bind(loopback).await.unwrap();
            let door = listener.local_addr().unwrap().to_string();
            (emulator, door, Proxy::start(listener, upstream, Chance::new(seed, 1)))
        });
        let kinesis = emulator.addr().to_string();
        Self { emulator, kinesis, dynamodb, proxy, _runtime: runtime }
    }

    /// Makes a stream and waits until it can be used.
    pub(crate) fn create(&self, stream: &str, shards: usize) {
        let answer = self.call("CreateStream", &json!({ "StreamName": stream, "ShardCount": shards }));
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.active(stream);
    }

    /// Waits until the stream's last change is done.
    pub(crate) fn active(&self, stream: &str) {
        until("the stream is active", || {
            let answer = self.call("DescribeStreamSummary", &json!({ "StreamName": stream }));
            (answer.status == 200 && answer.json()["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")
                .then_some(())
        });
    }

    /// Its open shards by hash range.
    pub(crate) fn open(&self, stream: &str) -> Vec<Open> {
        let answer = until("shards are listed", || {
            let answer = self.call("ListShards", &json!({ "StreamName": stream, "MaxResults": 1000 }));
            (answer.status == 200).then(|| answer.json())
        });
        let number = |text: &Value| text.as_str().unwrap().parse::<u128>().unwrap();
        let shards = answer["Shards"].as_array().unwrap().iter();
        let open = shards.filter(|shard| shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null());
        let mut open: Vec<Open> = open
            .map(|shard| {
                let range = &shard["HashKeyRange"];
                let (start, end) = (number(&range["StartingHashKey"]), number(&range["EndingHashKey"]));
                Open { id: shard["ShardId"].as_str().unwrap().to_owned(), start, end }
            })
            .collect();
        open.sort_by_key(|shard| shard.start);
        open
    }

    /// Splits an open shard in its middle.
    pub(crate) fn split(&self, stream: &str, chance: &mut Chance) -> String {
        let open = self.open(stream);
        let shard = &open[chance.below(open.len())];
        let middle = shard.start + (shard.end - shard.start) / 2;
        let request =
            json!({ "StreamName": stream, "ShardToSplit": shard.id, "NewStartingHashKey": middle.to_string() });
        self.change(stream, "SplitShard", &request);
        format!("split {} of {stream}", shard.id)
    }

    /// Merges two neighbours.
    pub(crate) fn merge(&self, stream: &str, chance: &mut Chance) -> String {
        let open = self.open(stream);
        let at = chance.below(open.len() - 1);
        let (one, other) = (&open[at].id, &open[at + 1].id);
        let request = json!({ "StreamName": stream, "ShardToMerge": one, "AdjacentShardToMerge": other });
        self.change(stream, "MergeShards", &request);
        format!("merged {one} and {other} of {stream}")
    }

    /// `UpdateShardCount`.
    pub(crate) fn scale(&self, stream: &str, target: usize) -> String {
        let before = self.open(stream).len();
        let request = json!({ "StreamName": stream, "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING" });
        self.change(stream, "UpdateShardCount", &request);
        format!("scaled {stream} from {before} to {target} shards")
    }

    /// A change that must go through: faults may strike it too, and a change whose answer was lost shows in the shards.
    fn change(&self, stream: &str, operation: &str, request: &Value) {
        let before: Vec<String> = self.open(stream).into_iter().map(|shard| shard.id).collect();
        until("the stream is changed", || {
            self.active(stream);
            let now: Vec<String> = self.open(stream).into_iter().map(|shard| shard.id).collect();
            if now != before {
                return Some(());
            }
            let answer = self.call(operation, request);
            let transient = ["LimitExceeded", "ResourceInUse", "InternalFailure", "ThroughputExceeded", "cut"];
            let known = answer.status == 200 || transient.iter().any(|name| answer.body.contains(name));
            assert!(known, "{operation}: {}", answer.body);
            None
        });
    }

    fn call(&self, operation: &str, request: &Value) -> Answer {
        kinesis::try_call(&self.kinesis, operation, request).unwrap_or_else(|error| Answer {
            status: 0,
            retry_after: None,
            body: format!("cut: {error}"),
        })
    }

    /// Faults of Kinesis and weather before DynamoDB, from now on.
    pub(crate) fn weather(&self, rules: Vec<FaultRule>, weather: Weather) {
        self.emulator.faults().clear();
        self.emulator.faults().add_all(rules).unwrap();
        self.proxy.set(weather);
    }

    /// Answers of the emulator by operation and outcome, as JSON.
    pub(crate) fn stats(&self) -> Value {
        let answer = crate::support::http::get(&self.kinesis, "/_stats").unwrap();
        answer.json()
    }
}
