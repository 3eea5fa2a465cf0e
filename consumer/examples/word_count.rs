//! Counts words, exactly, through kill -9. It starts Kinesis and DynamoDB inside the process, with their data in a
//! folder:
//!
//! ```text
//! yes 'to be or not to be' | head -200000 | cargo run -p flowshift-consumer --example word_count -- /tmp/words
//! (kill -9 it while it counts)
//! cargo run -p flowshift-consumer --example word_count -- /tmp/words </dev/null  # be 400000, to 400000
//! ```
//!
//! Set KINESIS_ENDPOINT and DYNAMODB_ENDPOINT to use services that run elsewhere.

mod support;

use std::collections::BTreeMap;

use flowshift_consumer::log::Record;
use flowshift_consumer::stage::{Stage, StageError, StatePart};

/// Counts of one shard. A restart goes on from the last commit: whatever was counted after it is counted again.
struct Words {
    shard: String,
    counts: BTreeMap<String, u64>,
}

impl Stage for Words {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        for (_, bytes) in parts {
            self.counts = support::decode(&bytes)?;
        }
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        for word in String::from_utf8_lossy(&record.data).split_whitespace() {
            *self.counts.entry(word.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.shard.clone(), support::encode(&self.counts))])
    }

    /// After a reshard a child starts at zero and its parent's counts stay with the parent; their sum is the answer.
    fn restores(&self, shard: &str) -> bool {
        shard == self.shard
    }

    fn keeps(&self, shard: &str) -> bool {
        shard == self.shard
    }

    fn finished(&self) -> bool {
        true
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let stage = |shard: &str| Words { shard: shard.to_owned(), counts: BTreeMap::new() };
    support::ended(support::run(move |context, _lease| stage(context.shard.as_str())).await)
}
