//! Lease rows as they stand in the table, attribute by attribute, and what differs between two programs' rows.
//!
//! A row is DynamoDB's JSON. What must differ between two runs (who owns, how often it was renewed, which sequence
//! number) is reduced to its kind by [`shape`]; everything else is compared as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Attribute name to `{"S": "text"}` and the like.
pub(crate) type Row = BTreeMap<String, Value>;

/// Stages of a row's life. Each has rules of its own for what stands in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Made, never owned.
    Created,
    /// Owned, perhaps renewed, without a checkpoint of its own.
    Owned,
    /// Checkpointed at a record.
    Checkpointed,
    /// Checkpointed at a record, and a later one prepared.
    Prepared,
    /// Its children named, its end not yet checkpointed: KCL's two writes, which are one of ours.
    Ending,
    /// Consumed to the end of a closed shard.
    Ended,
}

/// The stage that a row shows.
pub(crate) fn stage(row: &Row) -> Stage {
    let checkpoint = text(row, "checkpoint");
    if checkpoint == "SHARD_END" {
        Stage::Ended
    } else if row.contains_key("childShardIds") {
        Stage::Ending
    } else if row.contains_key("pendingCheckpoint") {
        Stage::Prepared
    } else if is_number(checkpoint) {
        Stage::Checkpointed
    } else if row.contains_key("leaseOwner") {
        Stage::Owned
    } else {
        Stage::Created
    }
}

/// A string or number attribute's text; empty when there is none.
pub(crate) fn text<'a>(row: &'a Row, name: &str) -> &'a str {
    let value = row.get(name).and_then(Value::as_object).and_then(|typed| typed.values().next());
    value.and_then(Value::as_str).unwrap_or_default()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A value with what differs from run to run reduced to its kind.
fn shape(name: &str, value: &Value) -> String {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let reduced = match name {
        "leaseOwner" => "a worker".to_owned(),
        "leaseCounter" if plain != "0" && is_number(&plain) => "above 0".to_owned(),
        "checkpoint" | "pendingCheckpoint" if is_number(&plain) => "a sequence number".to_owned(),
        // What it is to be depends on the row before: `rules` knows.
        "ownerSwitchesSinceCheckpoint" if is_number(&plain) => "a count".to_owned(),
        "throughputKBps" if plain.parse::<f64>().is_ok_and(|rate| rate >= 0.0) => "a rate".to_owned(),
        _ => plain,
    };
    format!("{kind} {reduced}")
}

/// Attributes whose shapes differ: name, in `theirs`, in `ours`.
pub(crate) fn differences(theirs: &Row, ours: &Row) -> Vec<(String, Option<String>, Option<String>)> {
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let shaped = |row: &Row, name: &String| row.get(name).map(|value| shape(name, value));
    let compared = names.into_iter().map(|name| (name.clone(), shaped(theirs, name), shaped(ours, name)));
    compared.filter(|(_, theirs, ours)| theirs != ours).collect()
}

/// All rows of a table, by lease key; none before the table is there.
pub(crate) async fn rows(dynamodb: &aws_sdk_dynamodb::Client, table: &str) -> BTreeMap<String, Row> {
    let scan = dynamodb.scan().table_name(table).consistent_read(true).send().await;
    let items = scan.map(|answer| answer.items.unwrap_or_default()).unwrap_or_default();
    items.into_iter().map(to_row).map(|row| (text(&row, "leaseKey").to_owned(), row)).collect()
}

/// A row as the SDK gives it.
pub(crate) fn to_row(item: HashMap<String, AttributeValue>) -> Row {
    item.into_iter().map(|(name, value)| (name, to_json(value))).collect()
}

fn to_json(value: AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(text) => json!({ "N": text }),
        AttributeValue::B(bytes) => json!({ "B": format!("{} bytes", bytes.as_ref().len()) }),
        AttributeValue::Ss(mut set) => {
            set.sort();
            json!({ "SS": set })
        }
        other => json!({ "other": format!("{other:?}") }),
    }
}

/// Versions of rows in the order they were seen, by lease key.
pub(crate) type Versions = BTreeMap<String, Vec<Row>>;

/// Adds a row's version unless it is the last one seen.
pub(crate) fn note(versions: &Mutex<Versions>, row: Row) {
    let mut versions = versions.lock().unwrap();
    let seen = versions.entry(text(&row, "leaseKey").to_owned()).or_default();
    if seen.last() != Some(&row) {
        seen.push(row);
    }
}

/// Watches a table and keeps every version of a row that it sees.
pub(crate) struct Recorder {
    versions: Arc<Mutex<Versions>>,
    watching: JoinHandle<()>,
}

impl Recorder {
    pub(crate) fn start(dynamodb: &aws_sdk_dynamodb::Client, table: &'static str) -> Self {
        let versions = Arc::new(Mutex::new(Versions::new()));
        let (kept, dynamodb) = (Arc::clone(&versions), dynamodb.clone());
        let watching = tokio::spawn(async move {
            loop {
                for row in rows(&dynamodb, table).await.into_values() {
                    note(&kept, row);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { versions, watching }
    }

    /// Everything seen so far.
    pub(crate) fn seen(&self) -> Versions {
        self.versions.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The last version of each row in each stage, after the first one with an owner.
pub(crate) fn by_stage(seen: &Versions) -> ByStage {
    let all = seen.iter().flat_map(|(key, versions)| versions.iter().map(move |row| (key, row)));
    let lived = all.filter(|(_, row)| stage(row) == Stage::Created || row.contains_key("leaseOwner"));
    let mut stages = ByStage::new();
    for (key, row) in lived {
        stages.entry(key.clone()).or_default().insert(stage(row), row.clone());
    }
    stages
}

/// Rows by lease key and stage.
pub(crate) type ByStage = BTreeMap<String, BTreeMap<Stage, Row>>;
