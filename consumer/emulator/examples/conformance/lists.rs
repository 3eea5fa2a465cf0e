//! Checks of streams and lists of shards.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::{
    primitives::DateTime,
    types::{ScalingType, ShardFilter, ShardFilterType, StreamMode, StreamModeDetails},
};

use crate::context::{Context, Outcome, Verdict, failed, refused, same, shard_id};

pub(crate) async fn create_provisioned(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        same("open shards", context.shards().await?.len(), 2)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

/// Cleans up and passes the outcome on.
pub(crate) async fn finish(context: &Context, outcome: Outcome) -> Verdict {
    context.delete().await;
    outcome.into()
}

pub(crate) async fn create_on_demand(context: Context) -> Verdict {
    let outcome = async {
        let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().map_err(|e| e.to_string())?;
        let create = context.client.create_stream().stream_name(&context.stream).stream_mode_details(mode);
        create.send().await.map_err(failed("CreateStream"))?;
        context.wait_active().await?;
        same("open shards", context.shards().await?.len(), 4)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn create_twice(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let again = context.client.create_stream().stream_name(&context.stream).shard_count(1).send().await;
        refused(again, &["ResourceInUseException"])
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn summary(context: Context) -> Verdict {
    let outcome = async {
        context.create(3).await?;
        let answer = context.client.describe_stream_summary().stream_name(&context.stream).send().await;
        let answer = answer.map_err(failed("DescribeStreamSummary"))?;
        let summary = answer.stream_description_summary().ok_or("no summary")?;
        same("name", summary.stream_name(), context.stream.as_str())?;
        same("OpenShardCount", summary.open_shard_count(), 3)?;
        same("RetentionPeriodHours", summary.retention_period_hours(), 24)?;
        same("ConsumerCount", summary.consumer_count(), Some(0))?;
        same("mode", summary.stream_mode_details().map(|m| m.stream_mode().clone()), Some(StreamMode::Provisioned))?;
        let created = summary.stream_creation_timestamp().to_millis().unwrap_or(0);
        let age = DateTime::from(SystemTime::now()).to_millis().unwrap_or(0) - created;
        same("created within a minute", (0..60_000).contains(&age), true)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

async fn ids(context: &Context, filter: ShardFilter) -> Result<Vec<String>, String> {
    let list = context.client.list_shards().stream_name(&context.stream).shard_filter(filter).send().await;
    Ok(list.map_err(failed("ListShards"))?.shards().iter().map(|s| s.shard_id().to_owned()).collect())
}

fn expected(ids: &[usize]) -> Vec<String> {
    ids.iter().map(|i| shard_id(*i)).collect()
}

pub(crate) async fn exclusive_start(context: Context) -> Verdict {
    let outcome = async {
        context.create(3).await?;
        let list = context.client.list_shards().stream_name(&context.stream).exclusive_start_shard_id(shard_id(0));
        let list = list.send().await.map_err(failed("ListShards"))?;
        let seen: Vec<_> = list.shards().iter().map(|s| s.shard_id().to_owned()).collect();
        same("shards", seen, expected(&[1, 2]))?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn pages(context: Context) -> Verdict {
    let outcome = async {
        context.create(5).await?;
        let first = context.client.list_shards().stream_name(&context.stream).max_results(2).send().await;
        let mut page = first.map_err(failed("ListShards"))?;
        let mut sizes = vec![page.shards().len()];
        while let Some(token) = page.next_token().map(str::to_owned) {
            let next = context.client.list_shards().next_token(token).max_results(2).send().await;
            page = next.map_err(failed("ListShards with a token"))?;
            sizes.push(page.shards().len());
        }
        same("pages", sizes, vec![2, 2, 1])?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn by_arn(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        let list = context.client.list_shards().stream_arn(context.arn().await?).send().await;
        same("shards", list.map_err(failed("ListShards"))?.shards().len(), 2)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

/// A stream that went from 2 shards (0, 1) to 4 (2 to 5); returns a time between.
async fn resharded(context: &Context) -> Result<DateTime, String> {
    context.create(2).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let between = DateTime::from(SystemTime::now());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let update = context.client.update_shard_count().stream_name(&context.stream).target_shard_count(4);
    let update = update.scaling_type(ScalingType::UniformScaling).send().await;
    update.map_err(failed("UpdateShardCount"))?;
    context.wait_active().await?;
    Ok(between)
}

fn filter(kind: ShardFilterType) -> aws_sdk_kinesis::types::builders::ShardFilterBuilder {
    ShardFilter::builder().r#type(kind)
}

async fn filtered(context: &Context, kind: ShardFilterType, want: &[usize]) -> Outcome {
    resharded(context).await?;
    let filter = filter(kind).build().map_err(|e| e.to_string())?;
    same("shards", ids(context, filter).await?, expected(want))?;
    Ok(String::new())
}

pub(crate) async fn filter_latest(context: Context) -> Verdict {
    finish(&context, filtered(&context, ShardFilterType::AtLatest, &[2, 3, 4, 5]).await).await
}

pub(crate) async fn filter_trim_horizon(context: Context) -> Verdict {
    finish(&context, filtered(&context, ShardFilterType::AtTrimHorizon, &[0, 1]).await).await
}

pub(crate) async fn filter_after(context: Context) -> Verdict {
    let outcome = async {
        context.create(4).await?;
        let filter = filter(ShardFilterType::AfterShardId).shard_id(shard_id(1)).build().map_err(|e| e.to_string())?;
        same("shards", ids(&context, filter).await?, expected(&[2, 3]))?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn filter_timestamp(context: Context) -> Verdict {
    let outcome = async {
        let between = resharded(&context).await?;
        let at = filter(ShardFilterType::AtTimestamp).timestamp(between).build().map_err(|e| e.to_string())?;
        same("AT", ids(&context, at).await?, expected(&[0, 1]))?;
        let from = filter(ShardFilterType::FromTimestamp).timestamp(between).build().map_err(|e| e.to_string())?;
        same("FROM", ids(&context, from).await?, expected(&[0, 1, 2, 3, 4, 5]))?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn delete(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        context.delete().await;
        for _ in 0..200 {
            let summary = context.client.describe_stream_summary().stream_name(&context.stream).send().await;
            if summary.is_err() {
                return refused(summary, &["ResourceNotFoundException"]);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("still there after 10 s".to_owned())
    };
    outcome.await.into()
}
