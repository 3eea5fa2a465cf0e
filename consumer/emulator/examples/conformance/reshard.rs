//! Checks of splitting, merging and scaling.

use std::collections::BTreeSet;

use aws_sdk_kinesis::types::{ScalingType, Shard};

use crate::{
    context::{Context, Outcome, Verdict, check_cover, failed, is_open, range, refused, same, shard_id},
    lists::finish,
};

pub(crate) async fn split_at_middle(context: &Context, shard: usize) -> Result<(), String> {
    let shards = context.shards().await?;
    let (start, end) = shards.get(shard).map(range).ok_or("no such shard")?;
    let middle = start + (end - start) / 2;
    let split = context.client.split_shard().stream_name(&context.stream).shard_to_split(shard_id(shard));
    split.new_starting_hash_key(middle.to_string()).send().await.map_err(failed("SplitShard"))?;
    context.wait_active().await
}

pub(crate) async fn merge_two(context: &Context, first: usize, second: usize) -> Result<(), String> {
    let merge = context.client.merge_shards().stream_name(&context.stream).shard_to_merge(shard_id(first));
    merge.adjacent_shard_to_merge(shard_id(second)).send().await.map_err(failed("MergeShards"))?;
    context.wait_active().await
}

fn number(shard: &Shard, start: bool) -> (usize, &str) {
    let range = shard.sequence_number_range();
    let text = if start {
        range.map(|r| r.starting_sequence_number())
    } else {
        range.and_then(|r| r.ending_sequence_number())
    };
    (text.unwrap_or("").len(), text.unwrap_or(""))
}

pub(crate) async fn split(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        context.put("k", b"x").await?;
        split_at_middle(&context, 0).await?;
        let shards = context.shards().await?;
        same("shards", shards.len(), 3)?;
        for child in &shards[1..] {
            same("parent", child.parent_shard_id(), Some(shard_id(0).as_str()))?;
            let above = number(child, true) > number(&shards[0], false);
            same("the child starts above the parent's end", above, true)
                .map_err(|e| format!("{e}: parent ends at {}", number(&shards[0], false).1))?;
        }
        check_cover(&shards)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn merge(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        merge_two(&context, 0, 1).await?;
        let shards = context.shards().await?;
        same("shards", shards.len(), 3)?;
        let parents: BTreeSet<_> = [shards[2].parent_shard_id(), shards[2].adjacent_parent_shard_id()].into();
        let (first, second) = (shard_id(0), shard_id(1));
        same("parents", parents, [Some(first.as_str()), Some(second.as_str())].into())?;
        check_cover(&shards)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn closed_ends(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        for _ in 0..5 {
            context.put("k", b"x").await?;
        }
        split_at_middle(&context, 0).await?;
        let (read, last) = context.read(&shard_id(0)).await?;
        same("records", read.len(), 5)?;
        same("NextShardIterator", last.and_then(|l| l.next_shard_iterator().map(|_| "present")), None)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

async fn children_at_end(context: &Context, shard: usize) -> Result<Vec<(String, usize)>, String> {
    let (_, last) = context.read(&shard_id(shard)).await?;
    let last = last.ok_or("nothing read")?;
    Ok(last.child_shards().iter().map(|c| (c.shard_id().to_owned(), c.parent_shards().len())).collect())
}

pub(crate) async fn children(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        split_at_middle(&context, 0).await?;
        merge_two(&context, 1, 2).await?;
        let mut split = children_at_end(&context, 0).await?;
        split.sort();
        same("after a split", split, vec![(shard_id(1), 1), (shard_id(2), 1)])?;
        same("after a merge", children_at_end(&context, 1).await?, vec![(shard_id(3), 2)])?;
        same("after a merge", children_at_end(&context, 2).await?, vec![(shard_id(3), 2)])?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn merge_closed(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        merge_two(&context, 0, 1).await?;
        let merge = context.client.merge_shards().stream_name(&context.stream).shard_to_merge(shard_id(0));
        let again = merge.adjacent_shard_to_merge(shard_id(1)).send().await;
        refused(
            again,
            &["InvalidArgumentException", "ValidationException", "ResourceInUseException", "ResourceNotFoundException"],
        )
    };
    finish(&context, outcome.await).await
}

async fn scale(context: &Context, target: i32) -> Outcome {
    let before: BTreeSet<String> = context.shards().await?.iter().map(|s| s.shard_id().to_owned()).collect();
    let update = context.client.update_shard_count().stream_name(&context.stream).target_shard_count(target);
    update.scaling_type(ScalingType::UniformScaling).send().await.map_err(failed("UpdateShardCount"))?;
    context.wait_active().await?;
    let shards = context.shards().await?;
    check_cover(&shards)?;
    same("open shards", shards.iter().filter(|s| is_open(s)).count(), usize::try_from(target).unwrap_or(0))?;
    let orphans = shards.iter().filter(|s| !before.contains(s.shard_id()) && s.parent_shard_id().is_none()).count();
    same("new shards without a parent", orphans, 0)?;
    Ok(String::new())
}

pub(crate) async fn update_count(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        scale(&context, 4).await?;
        scale(&context, 3).await
    };
    finish(&context, outcome.await).await
}
