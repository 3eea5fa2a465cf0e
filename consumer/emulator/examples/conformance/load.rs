//! Checks under concurrency: nothing acknowledged may be missing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_sdk_kinesis::types::ShardIteratorType;

use crate::{
    context::{Context, Outcome, Verdict, entry, same, shard_id},
    lists::finish,
    reshard::{merge_two, split_at_middle},
};

/// Puts batches of 10 (50 unless `--small`) and returns what was acknowledged.
async fn write(context: Context, writer: usize) -> Result<Vec<String>, String> {
    let (batches, size) = if context.small { (8, 10) } else { (40, 50) };
    let mut acknowledged = Vec::new();
    for batch in 0..batches {
        let texts: Vec<String> = (0..size).map(|i| format!("{writer}-{batch}-{i}")).collect();
        context.put_many(texts.iter().map(|t| entry(t, t.clone().into_bytes())).collect()).await?;
        acknowledged.extend(texts);
    }
    Ok(acknowledged)
}

async fn write_all(context: &Context, writers: usize) -> Result<Vec<String>, String> {
    let tasks: Vec<_> = (0..writers).map(|w| tokio::spawn(write(context.clone(), w))).collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.map_err(|e| e.to_string())??);
    }
    Ok(acknowledged)
}

fn compare(acknowledged: Vec<String>, read: Vec<String>) -> Outcome {
    let count = acknowledged.len();
    same("records read", read.len(), count)?;
    let (acknowledged, read): (BTreeSet<_>, BTreeSet<_>) =
        (acknowledged.into_iter().collect(), read.into_iter().collect());
    same("missing", acknowledged.difference(&read).count(), 0)?;
    Ok(format!("{count} records"))
}

async fn follow(context: Context, done: Arc<AtomicBool>, mut iterator: String) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    loop {
        let was_done = done.load(Ordering::Acquire);
        let page = context.get(&iterator).await?;
        all.extend(page.records().iter().map(|r| String::from_utf8_lossy(r.data().as_ref()).into_owned()));
        if was_done && page.records().is_empty() {
            return Ok(all);
        }
        iterator = page.next_shard_iterator().ok_or("the shard ended")?.to_owned();
    }
}

pub(crate) async fn tail(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let done = Arc::new(AtomicBool::new(false));
        let iterator = context.iterator(&shard_id(0), ShardIteratorType::Latest).await?;
        let reader = tokio::spawn(follow(context.clone(), Arc::clone(&done), iterator));
        let acknowledged = write_all(&context, 6).await;
        done.store(true, Ordering::Release);
        let read = reader.await.map_err(|e| e.to_string())??;
        compare(acknowledged?, read)
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn reshard(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        let load = tokio::spawn({
            let context = context.clone();
            async move { write_all(&context, 4).await }
        });
        split_at_middle(&context, 0).await?;
        merge_two(&context, 3, 1).await?;
        let acknowledged = load.await.map_err(|e| e.to_string())??;
        let mut read = Vec::new();
        for shard in context.shards().await? {
            read.extend(context.read(shard.shard_id()).await?.0);
        }
        compare(acknowledged, read)
    };
    finish(&context, outcome.await).await
}
