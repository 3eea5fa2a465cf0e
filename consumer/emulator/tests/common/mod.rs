//! A client of few lines that speaks the JSON protocol over a socket, so that the tests see the bytes themselves.
#![allow(dead_code, clippy::unwrap_used)]

use std::{collections::BTreeMap, io, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) sequence: String,
    pub(crate) key: String,
    pub(crate) data: Vec<u8>,
    pub(crate) arrival_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    pub(crate) next: Option<String>,
    pub(crate) behind_ms: u64,
    pub(crate) children: Vec<Value>,
}

pub(crate) async fn start(config: EmulatorConfig) -> (Emulator, Client) {
    let emulator = Emulator::start(config, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = Client { addr: emulator.addr() };
    (emulator, client)
}

pub(crate) fn shard_id(index: usize) -> String {
    format!("shardId-{index:012}")
}

impl Client {
    /// Sends one request and reads the answer to the end of the connection.
    pub(crate) async fn raw(&self, head: &str, body: &[u8]) -> io::Result<(u16, String, Vec<u8>)> {
        let mut socket = TcpStream::connect(self.addr).await?;
        let head = format!("{head}\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(body).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, head, answer[end + 4..].to_vec()))
    }

    pub(crate) async fn try_call(&self, operation: &str, body: &Value) -> io::Result<Result<Value, Refused>> {
        let head = format!(
            "POST / HTTP/1.1\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-target: Kinesis_20131202.{operation}"
        );
        let (status, head, body) = self.raw(&head, body.to_string().as_bytes()).await?;
        let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        if status == 200 {
            return Ok(Ok(value));
        }
        let kind = value["__type"].as_str().unwrap().to_owned();
        assert!(head.contains(&format!("x-amzn-errortype: {}", kind.to_lowercase())), "{head}");
        Ok(Err(Refused { status, kind, message: value["message"].as_str().unwrap().to_owned() }))
    }

    pub(crate) async fn call(&self, operation: &str, body: Value) -> Result<Value, Refused> {
        self.try_call(operation, &body).await.unwrap()
    }

    /// The exception of a call that must be refused.
    pub(crate) async fn refused(&self, operation: &str, body: Value) -> String {
        match self.call(operation, body.clone()).await {
            Ok(answer) => panic!("{operation} {body} was accepted: {answer}"),
            Err(refused) => refused.kind,
        }
    }

    pub(crate) async fn create(&self, name: &str, shards: usize) {
        self.call("CreateStream", json!({"StreamName": name, "ShardCount": shards})).await.unwrap();
    }

    pub(crate) async fn put(&self, stream: &str, key: &str, data: &[u8]) -> (String, String) {
        let request = json!({"StreamName": stream, "PartitionKey": key, "Data": STANDARD.encode(data)});
        let answer = self.call("PutRecord", request).await.unwrap();
        (answer["ShardId"].as_str().unwrap().to_owned(), answer["SequenceNumber"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn put_many(&self, stream: &str, records: &[(String, Vec<u8>)]) -> Result<Value, Refused> {
        let records: Vec<Value> =
            records.iter().map(|(key, data)| json!({"PartitionKey": key, "Data": STANDARD.encode(data)})).collect();
        self.call("PutRecords", json!({"StreamName": stream, "Records": records})).await
    }

    pub(crate) async fn iterator(&self, stream: &str, shard: &str, rest: Value) -> Result<String, Refused> {
        let mut request = json!({"StreamName": stream, "ShardId": shard});
        for (name, value) in rest.as_object().unwrap() {
            request[name] = value.clone();
        }
        let answer = self.call("GetShardIterator", request).await?;
        Ok(answer["ShardIterator"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn horizon(&self, stream: &str, shard: &str) -> String {
        self.iterator(stream, shard, json!({"ShardIteratorType": "TRIM_HORIZON"})).await.unwrap()
    }

    pub(crate) async fn get(&self, iterator: &str, limit: Option<u64>) -> Result<Page, Refused> {
        let mut request = json!({"ShardIterator": iterator});
        if let Some(limit) = limit {
            request["Limit"] = json!(limit);
        }
        let answer = self.call("GetRecords", request).await?;
        Ok(Page {
            records: records(&answer),
            next: answer["NextShardIterator"].as_str().map(str::to_owned),
            behind_ms: answer["MillisBehindLatest"].as_u64().unwrap(),
            children: answer["ChildShards"].as_array().cloned().unwrap_or_default(),
        })
    }

    /// Everything in a shard up to its end, or to the tip.
    pub(crate) async fn read_all(&self, stream: &str, shard: &str) -> (Vec<Record>, Vec<Value>) {
        let mut iterator = self.horizon(stream, shard).await;
        let mut all = Vec::new();
        loop {
            let page = self.get(&iterator, None).await.unwrap();
            all.extend(page.records);
            match page.next {
                Some(next) if page.behind_ms > 0 => iterator = next,
                _ => return (all, page.children),
            }
        }
    }

    pub(crate) async fn shards(&self, stream: &str) -> Vec<Value> {
        let answer = self.call("ListShards", json!({"StreamName": stream})).await.unwrap();
        answer["Shards"].as_array().unwrap().clone()
    }

    /// The ids of shards without an ending sequence number.
    pub(crate) async fn open_shards(&self, stream: &str) -> Vec<String> {
        let shards = self.shards(stream).await;
        let open = shards.iter().filter(|s| s["SequenceNumberRange"]["EndingSequenceNumber"].is_null());
        open.map(|s| s["ShardId"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn consumer_arn(&self, stream: &str, name: &str) -> String {
        let summary = self.call("DescribeStreamSummary", json!({"StreamName": stream})).await.unwrap();
        let arn = &summary["StreamDescriptionSummary"]["StreamARN"];
        let request = json!({"StreamARN": arn, "ConsumerName": name});
        let answer = self.call("RegisterStreamConsumer", request).await.unwrap();
        answer["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
    }
}

/// The records of a `GetRecords` answer or of a subscription's event.
pub(crate) fn records(answer: &Value) -> Vec<Record> {
    let records = answer["Records"].as_array().unwrap().iter();
    records
        .map(|r| Record {
            sequence: r["SequenceNumber"].as_str().unwrap().to_owned(),
            key: r["PartitionKey"].as_str().unwrap().to_owned(),
            data: STANDARD.decode(r["Data"].as_str().unwrap()).unwrap(),
            arrival_ms: (r["ApproximateArrivalTimestamp"].as_f64().unwrap() * 1000.0).round() as u64,
        })
        .collect()
}

/// How often each text occurs.
pub(crate) fn tally(texts: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    counts
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.data.clone()).unwrap()).collect()
}
