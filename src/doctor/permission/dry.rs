//! The calls themselves, each with arguments under which nothing is written.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType, StartingPosition};

use super::Told;
use crate::aws::Clients;
use crate::doctor::answer::Trouble;
use crate::doctor::part::{Call, Resource};

/// Key of the item that no condition lets be written.
const NOBODY: &str = "flowshift-doctor";
/// Holds of no item.
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";
/// 39 digits, as many as a hash key may have, and above 2^128 - 1.
const BEYOND: &str = "999999999999999999999999999999999999999";
/// Well formed, and of no stream.
const NO_SHARD: &str = "shardId-999999999999";

pub(super) async fn call(clients: &Clients, resource: &Resource, call: Call) -> Told {
    match resource {
        Resource::Table(table, key) => on_table(&clients.dynamodb, table, key, call).await,
        Resource::Stream(stream) => on_stream(&clients.kinesis, stream, call).await,
        Resource::Consumer(stream, name) => on_consumer(&clients.kinesis, stream, name, call).await,
    }
}

async fn on_table(dynamodb: &aws_sdk_dynamodb::Client, table: &str, key: &str, call: Call) -> Told {
    let nobody = AttributeValue::S(NOBODY.to_owned());
    match call {
        Call::DescribeTable => told(dynamodb.describe_table().table_name(table).send().await),
        Call::Scan => told(dynamodb.scan().table_name(table).limit(1).send().await),
        Call::GetItem => told(dynamodb.get_item().table_name(table).key(key, nobody).send().await),
        Call::PutItem => {
            let put = dynamodb.put_item().table_name(table).item(key, nobody);
            told(put.condition_expression(NEVER).expression_attribute_names("#k", key).send().await)
        }
        Call::UpdateItem => {
            let update = dynamodb.update_item().table_name(table).key(key, nobody).update_expression("REMOVE #n");
            let update = update.expression_attribute_names("#n", "nothing");
            told(update.condition_expression(NEVER).expression_attribute_names("#k", key).send().await)
        }
        Call::DeleteItem => {
            let delete = dynamodb.delete_item().table_name(table).key(key, nobody);
            told(delete.condition_expression(NEVER).expression_attribute_names("#k", key).send().await)
        }
        other => Told::Open(format!("{} is no call on a table", other.name())),
    }
}

async fn on_stream(kinesis: &aws_sdk_kinesis::Client, stream: &str, call: Call) -> Told {
    match call {
        Call::DescribeStreamSummary => told(kinesis.describe_stream_summary().stream_name(stream).send().await),
        Call::ListShards => told(kinesis.list_shards().stream_name(stream).max_results(1).send().await),
        Call::GetShardIterator => match a_shard(kinesis, stream).await {
            Ok(shard) => Told::of(iterator(kinesis, stream, &shard).await),
            Err(trouble) => without_a_shard(&trouble),
        },
        Call::GetRecords => match a_shard(kinesis, stream).await {
            Ok(shard) => match iterator(kinesis, stream, &shard).await {
                // An iterator names its stream to IAM; a made-up one would be refused before that.
                Ok(iterator) => told(kinesis.get_records().shard_iterator(iterator).limit(1).send().await),
                Err(trouble) => Told::Open(format!("no iterator: {}", trouble.text())),
            },
            Err(trouble) => without_a_shard(&trouble),
        },
        Call::PutRecords => {
            let entry = PutRecordsRequestEntry::builder().partition_key(NOBODY).explicit_hash_key(BEYOND);
            match entry.data(Blob::new(NOBODY)).build() {
                Ok(entry) => told(kinesis.put_records().stream_name(stream).records(entry).send().await),
                Err(error) => Told::Open(error.to_string()),
            }
        }
        other => Told::Open(format!("{} is no call on a stream", other.name())),
    }
}

async fn on_consumer(kinesis: &aws_sdk_kinesis::Client, stream: &str, name: &str, call: Call) -> Told {
    let summary = kinesis.describe_stream_summary().stream_name(stream).send().await;
    let arn = match summary.map_err(|error| Trouble::of(&error)) {
        Ok(answer) => answer.stream_description_summary.map(|summary| summary.stream_arn).unwrap_or_default(),
        Err(trouble) => return Told::Open(format!("the stream cannot be described: {}", trouble.text())),
    };
    let found = kinesis.describe_stream_consumer().stream_arn(arn).consumer_name(name).send().await;
    let found = found.map_err(|error| Trouble::of(&error));
    if call == Call::DescribeStreamConsumer {
        return match found {
            Err(Trouble::Missing(_)) => {
                Told::Open(format!("no such consumer: `run` registers {name} at its start if the role may"))
            }
            other => Told::of(other),
        };
    }
    let consumer = match found {
        Ok(answer) => answer.consumer_description.map(|consumer| consumer.consumer_arn).unwrap_or_default(),
        Err(trouble) => return Told::Open(format!("the consumer is not found: {}", trouble.text())),
    };
    let Ok(start) = StartingPosition::builder().r#type(ShardIteratorType::Latest).build() else {
        return Told::Open("no starting position".into());
    };
    let subscribe = kinesis.subscribe_to_shard().consumer_arn(consumer).shard_id(NO_SHARD).starting_position(start);
    match subscribe.send().await.map_err(|error| Trouble::of(&error)) {
        // The shard that does not exist, and not the consumer, which was just found.
        Err(Trouble::Missing(_)) => Told::Allowed,
        other => Told::of(other),
    }
}

/// An open or closed shard of the stream.
async fn a_shard(kinesis: &aws_sdk_kinesis::Client, stream: &str) -> Result<String, Trouble> {
    let answer = kinesis.list_shards().stream_name(stream).max_results(1).send().await;
    let shards = answer.map_err(|error| Trouble::of(&error))?.shards.unwrap_or_default();
    shards.into_iter().next().map(|shard| shard.shard_id).ok_or_else(|| Trouble::Unreachable("it has no shards".into()))
}

fn without_a_shard(trouble: &Trouble) -> Told {
    match trouble {
        Trouble::Missing(_) => Told::Open("it is not there".into()),
        other => Told::Open(format!("no shard: {}", other.text())),
    }
}

async fn iterator(kinesis: &aws_sdk_kinesis::Client, stream: &str, shard: &str) -> Result<String, Trouble> {
    let asked = kinesis.get_shard_iterator().stream_name(stream).shard_id(shard);
    let answer = asked.shard_iterator_type(ShardIteratorType::Latest).send().await;
    let iterator = answer.map_err(|error| Trouble::of(&error))?.shard_iterator;
    iterator.ok_or_else(|| Trouble::Unreachable("the answer has no iterator".into()))
}

fn told<T, E, R>(answer: Result<T, aws_sdk_kinesis::error::SdkError<E, R>>) -> Told
where
    E: aws_sdk_kinesis::error::ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    Told::of(answer.map_err(|error| Trouble::of(&error)))
}
