//! Where a target is known to differ from what AWS documents, and why that is accepted.
//!
//! An entry excuses one check on one target; a difference that is not here fails the run. Ours has none.

const MOCK: &str = "kinesis-mock";

const KNOWN: &[(&str, &str, &str)] = &[
    (MOCK, "ShardFilter AT_TRIM_HORIZON", "it shows every shard"),
    (MOCK, "ShardFilter AT_TIMESTAMP, FROM_TIMESTAMP", "it shows shards opened after the time, too"),
    (MOCK, "PutRecords 501 is refused", "it does not count records"),
    (MOCK, "a record above 1 MiB is refused", "it takes the 10 MiB of streams reconfigured for large records"),
    (MOCK, "a request of 11 MB is refused", "it does not add up sizes"),
    (MOCK, "AT_TIMESTAMP in the future is refused", "it takes any time"),
    (MOCK, "a garbage iterator: InvalidArgument", "its error has no form the SDK knows"),
    (MOCK, "MillisBehindLatest when behind and at the tip", "it measures up to the newest record, AWS up to now"),
    (MOCK, "writes above the limit of a shard are throttled", "it has no limits"),
    (MOCK, "reads above 5 a second are throttled", "it has no limits"),
    (MOCK, "SubscribeToShard ends with ChildShards", "its subscription does not notice the end of the shard"),
    (MOCK, "a second SubscribeToShard within 5 s is refused", "it keeps both"),
];

/// Why `target` may differ in this check.
pub(crate) fn reason(target: &str, check: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(t, c, _)| *t == target && *c == check).map(|(_, _, reason)| *reason)
}
