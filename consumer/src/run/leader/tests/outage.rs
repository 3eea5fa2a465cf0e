//! What a stream does while nobody looks, or while it cannot be looked at.

use super::*;
use crate::log::{LogError, Page, ReadToken, StreamId};
use crate::shard::{Position, SequenceNumber, Shard};

/// What comes of listing shards.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    #[default]
    Shards,
    Refusal,
    /// None, ever.
    Silence,
}

/// The streams, of which no shard can be listed for a while.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) log: Arc<MemoryLog>,
    pub(super) answer: Arc<Mutex<Answer>>,
}

#[async_trait::async_trait]
impl Log for Listing {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.log.identify(stream).await
    }
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        let answer = *self.answer.lock().unwrap();
        match answer {
            Answer::Shards => self.log.shards(stream).await,
            Answer::Refusal => Err(LogError::Invalid("not allowed to list shards".into())),
            Answer::Silence => std::future::pending().await,
        }
    }
    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        self.log.seek(stream, shard, position).await
    }
    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        self.log.read(stream, token).await
    }
    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        self.log.append(stream, entries).await
    }
}

/// No lease was assigned for as long as the shards of any one stream could not be listed: the shards of whoever died
/// meanwhile stood still.
#[tokio::test(start_paused = true)]
async fn leases_of_the_dead_go_on_while_shards_cannot_be_listed() {
    // Where no answer comes, every pass waits for one: the pass before the one that may act, and that one. For all streams
    // together: one after the other, they kept the leases waiting for more than a minute.
    for (answer, longest) in [(Answer::Refusal, 20_u64), (Answer::Silence, 40)] {
        let mut site = Site::new(6);
        site.quiet = &["quiet-1", "quiet-2"];
        site.quiet.iter().for_each(|stream| site.log.create(stream, 1));
        let mut fleet = settled(&site).await;
        *site.listing.lock().unwrap() = answer;
        // Longer than it takes until they are to be listed again.
        tokio::time::sleep(Timing::default().shard_sync * 2).await;
        let (dead, since) = (fleet.remove(0), Instant::now());
        let id = dead.id.clone();
        dead.kill();
        site.produce(200).await;
        let gap = site.longest_gap(&id, since);
        assert!(gap < Duration::from_secs(longest), "{answer:?}: {gap:?}");
    }
}

/// The child of two shards that came and went unseen overlaps one that was begun and is none of its parents: it was
/// taken for the row of a shard long consumed, and nobody ever read it. One that starts at its newest record skipped
/// what lay in it.
#[tokio::test(start_paused = true)]
async fn after_an_outage_longer_than_records_are_kept_what_is_there_is_read_from_its_oldest_record() {
    let id = |number: u32| ShardId::new(format!("shardId-{number:012}"));
    for starts in [None, Some(StartPosition::Latest)] {
        let mut site = Site::new(1);
        site.starts = starts;
        let worker = site.start("a");
        tokio::time::sleep(Duration::from_secs(5)).await;
        site.produce(3).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        worker.kill();
        site.log.split("flows", &id(0));
        site.log.merge("flows", &id(1), &id(2));
        (0..3).for_each(|gone| site.log.expire("flows", &id(gone)));
        let read = site.texts();
        site.produce(3).await;
        let _next = site.start("b");
        tokio::time::sleep(Duration::from_secs(120)).await;
        let new = site.texts().len() - read.len();
        assert_eq!(new, 3, "{starts:?}");
    }
}
