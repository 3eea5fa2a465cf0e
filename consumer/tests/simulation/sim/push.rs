//! A worker's subscription as the network gives it: it ends early, fails, falls silent, and delivers to a process that
//! slept what was under way when it fell asleep.

use std::sync::Arc;

use flowshift_consumer::log::{Event, LogError, Subscription};
use flowshift_consumer::shard::ShardId;

use super::port::{Fate, Hindrance, Port};

/// One subscription of a worker.
pub(crate) struct Pushed {
    pub(crate) port: Arc<Port>,
    pub(crate) stream: String,
    pub(crate) shard: ShardId,
    pub(crate) inner: Box<dyn Subscription>,
}

#[async_trait::async_trait]
impl Subscription for Pushed {
    async fn next(&mut self) -> Option<Result<Event, LogError>> {
        // First the event, then the pause of the process: a zombie is given what was sent while it slept.
        let event = self.inner.next().await?;
        if self.port.hindrance(&self.stream, &self.shard) == Some(Hindrance::Fails) {
            return Some(Err(LogError::Unavailable("the shard cannot be read".into())));
        }
        match self.port.read_fate(&self.stream).await {
            Fate::Good => {}
            Fate::Refused => return Some(Err(LogError::Throttled)),
            Fate::AnswerLost => return None,
            // Cut off without knowing it.
            Fate::Late(_) => std::future::pending().await,
        }
        Some(event.map(|mut event| {
            event.records.retain(|record| self.port.holds(&self.stream, record));
            event
        }))
    }
}
