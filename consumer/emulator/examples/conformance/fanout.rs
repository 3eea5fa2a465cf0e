//! Checks of `SubscribeToShard`.

use std::time::Duration;

use aws_sdk_kinesis::{
    operation::subscribe_to_shard::SubscribeToShardOutput,
    types::{ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream},
};

use crate::{
    context::{Context, Verdict, failed, refused, same, shard_id},
    lists::finish,
    reshard::split_at_middle,
};

async fn subscribe(context: &Context, arn: &str) -> Result<SubscribeToShardOutput, String> {
    let position = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build();
    let position = position.map_err(|e| e.to_string())?;
    let subscribe =
        context.client.subscribe_to_shard().consumer_arn(arn).shard_id(shard_id(0)).starting_position(position);
    subscribe.send().await.map_err(failed("SubscribeToShard"))
}

/// The next event within ten seconds; `None` at the end of the stream.
async fn next(output: &mut SubscribeToShardOutput) -> Result<Option<SubscribeToShardEvent>, String> {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), output.event_stream.recv()).await;
        match event.map_err(|_| "no event in 10 s")?.map_err(|e| format!("an event that is an error: {e}"))? {
            Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => return Ok(Some(event)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

pub(crate) async fn records(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let arn = context.consumer().await?;
        context.put("k", b"0").await?;
        let mut output = subscribe(&context, &arn).await?;
        for i in 1..21 {
            context.put("k", format!("{i}").as_bytes()).await?;
        }
        let mut seen = Vec::new();
        while seen.len() < 21 {
            let event = next(&mut output).await?.ok_or("the stream ended")?;
            same("continuation", event.continuation_sequence_number().is_empty(), false)?;
            seen.extend(event.records().iter().map(|r| String::from_utf8_lossy(r.data().as_ref()).into_owned()));
        }
        same("records", seen, (0..21).map(|i| i.to_string()).collect())?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn ends(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let arn = context.consumer().await?;
        context.put("k", b"0").await?;
        let mut output = subscribe(&context, &arn).await?;
        split_at_middle(&context, 0).await?;
        let mut children = 0;
        for _ in 0..20 {
            match next(&mut output).await? {
                Some(event) => children = children.max(event.child_shards().len()),
                None => {
                    same("children", children, 2)?;
                    return Ok(String::new());
                }
            }
        }
        Err(format!("no end after 20 events ({children} children seen)"))
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn second(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let arn = context.consumer().await?;
        let _first = subscribe(&context, &arn).await?;
        let position = StartingPosition::builder().r#type(ShardIteratorType::Latest).build();
        let position = position.map_err(|e| e.to_string())?;
        let second = context.client.subscribe_to_shard().consumer_arn(&arn).shard_id(shard_id(0));
        refused(second.starting_position(position).send().await, &["ResourceInUseException"])
    };
    finish(&context, outcome.await).await
}
