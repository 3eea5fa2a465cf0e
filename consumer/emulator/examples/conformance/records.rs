//! Checks of putting and getting records.

use std::time::{Duration, Instant, SystemTime};

use aws_sdk_kinesis::{
    primitives::{Blob, DateTime},
    types::ShardIteratorType,
};
use md5::Digest as _;

use crate::{
    context::{Context, Outcome, Verdict, code, entries, entry, failed, refused, same, shard_id},
    lists::finish,
};

const INVALID: &[&str] = &["InvalidArgumentException", "ValidationException"];

pub(crate) async fn routing(context: Context) -> Verdict {
    let outcome = async {
        context.create(4).await?;
        let keys: Vec<String> = (0..500).map(|i| format!("key-{}", i % 97)).collect();
        let answers = context.put_many(keys.iter().map(|k| entry(k, k.clone().into_bytes())).collect()).await?;
        let mut last = vec![String::new(); 4];
        for (key, (shard, number)) in keys.iter().zip(answers) {
            let hash: [u8; 16] = md5::Md5::digest(key.as_bytes()).into();
            let index = usize::try_from(u128::from_be_bytes(hash) >> 126).unwrap_or(0);
            same("shard", shard, shard_id(index))?;
            let grows = (number.len(), &number) > (last[index].len(), &last[index]);
            same("numbers grow", grows, true)?;
            last[index] = number;
        }
        let (read, _) = context.read(&shard_id(2)).await?;
        let hash = |k: &String| u128::from_be_bytes(md5::Md5::digest(k.as_bytes()).into()) >> 126;
        same("order", read, keys.into_iter().filter(|k| hash(k) == 2).collect())?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn explicit_hash(context: Context) -> Verdict {
    let outcome = async {
        context.create(2).await?;
        for (hash, shard) in [("0", 0), ("170141183460469231731687303715884105728", 1)] {
            let put = context.client.put_record().stream_name(&context.stream).partition_key("k").data(Blob::new("x"));
            let put = put.explicit_hash_key(hash).send().await.map_err(failed("PutRecord"))?;
            same("shard", put.shard_id(), &shard_id(shard))?;
        }
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

async fn put_size(context: &Context, records: usize, bytes: usize) -> Result<Result<(), String>, String> {
    context.create(1).await?;
    let records = (0..records).map(|i| entry(&format!("{i}"), vec![b'x'; bytes])).collect();
    let put =
        context.client.put_records().stream_name(&context.stream).set_records(Some(entries(records)?)).send().await;
    Ok(put.map(|_| ()).map_err(|e| code(&e)))
}

fn want_refused(seen: Result<(), String>) -> Outcome {
    match seen {
        Ok(()) => Err("accepted".to_owned()),
        Err(name) if INVALID.contains(&name.as_str()) => Ok(name),
        Err(name) => Err(name),
    }
}

pub(crate) async fn put_501(context: Context) -> Verdict {
    let outcome = put_size(&context, 501, 1).await.and_then(want_refused);
    finish(&context, outcome).await
}

pub(crate) async fn large_record(context: Context) -> Verdict {
    let outcome = put_size(&context, 1, (1 << 20) + 1).await.and_then(want_refused);
    finish(&context, outcome).await
}

pub(crate) async fn request_6mb(context: Context) -> Verdict {
    let outcome = put_size(&context, 6, 1_000_000).await.and_then(|seen| seen.map(|()| String::new()));
    finish(&context, outcome).await
}

pub(crate) async fn request_11mb(context: Context) -> Verdict {
    let outcome = put_size(&context, 11, 1_000_000).await.and_then(want_refused);
    finish(&context, outcome).await
}

async fn from_number(context: &Context, kind: ShardIteratorType, number: &str) -> Result<usize, String> {
    let get = context.client.get_shard_iterator().stream_name(&context.stream).shard_id(shard_id(0));
    let get = get.shard_iterator_type(kind).starting_sequence_number(number).send().await;
    let iterator = get.map_err(failed("GetShardIterator"))?.shard_iterator().unwrap_or("").to_owned();
    Ok(context.get(&iterator).await?.records().len())
}

pub(crate) async fn iterators(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let latest = context.iterator(&shard_id(0), ShardIteratorType::Latest).await?;
        let mut numbers = Vec::new();
        for i in 0..5 {
            numbers.push(context.put("k", format!("{i}").as_bytes()).await?);
        }
        same("AT", from_number(&context, ShardIteratorType::AtSequenceNumber, &numbers[3]).await?, 2)?;
        same("AFTER", from_number(&context, ShardIteratorType::AfterSequenceNumber, &numbers[3]).await?, 1)?;
        same("TRIM_HORIZON", context.read(&shard_id(0)).await?.0.len(), 5)?;
        same("LATEST taken before", context.get(&latest).await?.records().len(), 5)?;
        let latest = context.iterator(&shard_id(0), ShardIteratorType::Latest).await?;
        same("LATEST taken after", context.get(&latest).await?.records().len(), 0)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

async fn at_time(context: &Context, time: DateTime) -> Result<usize, String> {
    let get = context.client.get_shard_iterator().stream_name(&context.stream).shard_id(shard_id(0));
    let get = get.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(time).send().await;
    let iterator = get.map_err(failed("GetShardIterator"))?.shard_iterator().unwrap_or("").to_owned();
    Ok(context.get(&iterator).await?.records().len())
}

/// Two records with time between; returns a time between them and one after both.
async fn two_records(context: &Context) -> Result<(DateTime, DateTime), String> {
    context.create(1).await?;
    let pause = || tokio::time::sleep(Duration::from_millis(40));
    context.put("k", b"first").await?;
    pause().await;
    let between = DateTime::from(SystemTime::now());
    pause().await;
    context.put("k", b"second").await?;
    pause().await;
    Ok((between, DateTime::from(SystemTime::now())))
}

pub(crate) async fn timestamp_none(context: Context) -> Verdict {
    let outcome = async {
        let (_, after) = two_records(&context).await?;
        same("records", at_time(&context, after).await?, 0)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn timestamp_between(context: Context) -> Verdict {
    let outcome = async {
        let (between, _) = two_records(&context).await?;
        same("records", at_time(&context, between).await?, 1)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn timestamp_future(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let get = context.client.get_shard_iterator().stream_name(&context.stream).shard_id(shard_id(0));
        let future = DateTime::from(SystemTime::now() + Duration::from_secs(3600));
        refused(get.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(future).send().await, INVALID)
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn bad_sequence(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let get = context.client.get_shard_iterator().stream_name(&context.stream).shard_id(shard_id(0));
        let get = get.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).starting_sequence_number("123abc");
        refused(get.send().await, INVALID)
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn garbage_iterator(context: Context) -> Verdict {
    refused(context.client.get_records().shard_iterator("garbage").send().await, INVALID).into()
}

pub(crate) async fn arrival(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        for i in 0..8 {
            context.put("k", format!("{i}").as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        let page = context.get(&context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?).await?;
        let times: Vec<i64> =
            page.records().iter().filter_map(|r| r.approximate_arrival_timestamp()?.to_millis().ok()).collect();
        same("times", times.len(), 8)?;
        same("times grow", times.is_sorted(), true)?;
        same("milliseconds", times.iter().any(|t| t % 1000 != 0), true)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn behind(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        for _ in 0..3 {
            context.put("k", b"x").await?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let iterator = context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?;
        let first = context
            .client
            .get_records()
            .shard_iterator(iterator)
            .limit(1)
            .send()
            .await
            .map_err(failed("GetRecords"))?;
        let behind = first.millis_behind_latest().unwrap_or(-1);
        same("behind by 0.3 s to 60 s", (300..60_000).contains(&behind), true)
            .map_err(|e| format!("{e} ({behind} ms)"))?;
        let second = context.get(first.next_shard_iterator().unwrap_or("")).await?;
        same("at the tip", second.millis_behind_latest(), Some(0))?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn cap_records(context: Context) -> Verdict {
    if context.small {
        return Verdict::Skipped("volume".to_owned());
    }
    let outcome = async {
        context.create(1).await?;
        for batch in 0..24 {
            context.put_many((0..500).map(|i| entry(&format!("{batch}-{i}"), vec![b'x'])).collect()).await?;
        }
        let page = context.get(&context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?).await?;
        same("records of 12,000", page.records().len(), 10_000)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn cap_bytes(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        for i in 0..12 {
            context.put_many(vec![entry(&format!("{i}"), vec![b'x'; 1_000_000])]).await?;
        }
        let page = context.get(&context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?).await?;
        let bytes: usize = page.records().iter().map(|r| r.data().as_ref().len()).sum();
        same("at most 10 MiB", bytes <= 10 << 20, true).map_err(|e| format!("{e} ({bytes} bytes)"))?;
        Ok(format!("{} MB", bytes / 1_000_000))
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn limit_10001(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let iterator = context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?;
        refused(context.client.get_records().shard_iterator(iterator).limit(10_001).send().await, INVALID)
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn expiry(context: Context) -> Verdict {
    let Some(wait) = context.expiry else { return Verdict::Skipped("takes five minutes, see --slow".to_owned()) };
    let context = context.with_limits();
    let outcome = async {
        context.create(1).await?;
        let iterator = context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?;
        tokio::time::sleep(wait).await;
        refused(context.client.get_records().shard_iterator(iterator).send().await, &["ExpiredIteratorException"])
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn by_arn(context: Context) -> Verdict {
    let outcome = async {
        context.create(1).await?;
        let arn = context.arn().await?;
        let put = context.client.put_record().stream_arn(&arn).partition_key("k").data(Blob::new("x"));
        put.send().await.map_err(failed("PutRecord"))?;
        let get = context.client.get_shard_iterator().stream_arn(&arn).shard_id(shard_id(0));
        let get = get.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
        let iterator = get.map_err(failed("GetShardIterator"))?.shard_iterator().unwrap_or("").to_owned();
        let page = context.client.get_records().shard_iterator(iterator).stream_arn(&arn).send().await;
        same("records", page.map_err(failed("GetRecords"))?.records().len(), 1)?;
        Ok(String::new())
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn throttled_writes(context: Context) -> Verdict {
    let context = context.with_limits();
    let outcome = async {
        context.create(1).await?;
        // 4 MB in as little time as the target takes: more than 1 MB in any one second.
        let started = Instant::now();
        let mut failed_records = 0;
        for _ in 0..4 {
            let records = (0..4).map(|i| entry(&format!("{i}"), vec![b'x'; 250_000])).collect();
            let put = context.client.put_records().stream_name(&context.stream).set_records(Some(entries(records)?));
            failed_records += put.send().await.map_err(failed("PutRecords"))?.failed_record_count().unwrap_or(0);
        }
        let took = started.elapsed();
        match (failed_records, took.as_secs_f64()) {
            (0, seconds) if seconds > 3.0 => Err(format!("4 MB took {seconds:.1} s, so the limit was not reached")),
            (0, seconds) => Err(format!("4 MB in {seconds:.1} s accepted")),
            (failed, _) => Ok(format!("{failed} of 16 records refused")),
        }
    };
    finish(&context, outcome.await).await
}

pub(crate) async fn throttled_reads(context: Context) -> Verdict {
    let context = context.with_limits();
    let outcome = async {
        context.create(1).await?;
        let iterator = context.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await?;
        let mut refusals = 0;
        for _ in 0..40 {
            match context.client.get_records().shard_iterator(&iterator).send().await {
                Ok(_) => {}
                Err(e) if code(&e) == "ProvisionedThroughputExceededException" => refusals += 1,
                Err(e) => return Err(code(&e)),
            }
        }
        if refusals == 0 { Err("40 calls accepted".to_owned()) } else { Ok(format!("{refusals} of 40 calls refused")) }
    };
    finish(&context, outcome.await).await
}
