//! How a stream is read: a choice per stream, made where the job is put together.

use crate::kpl::Kpl;

/// How records come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fetch {
    /// By asking, up to five times a second and shard, shared with everyone who polls the shard.
    #[default]
    Polling,
    /// By enhanced fan-out: pushed within some 70 ms, with 2 MB a second and shard of one's own, for a price.
    FanOut {
        /// Name of the registered consumer, one per job; registered when it is missing, never deregistered.
        consumer: String,
    },
}

/// How one stream is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// How records come.
    pub fetch: Fetch,
    /// Taking KPL aggregates apart; none: every record is passed on as it is.
    pub kpl: Option<Kpl>,
}

impl Reading {
    /// For a stream of foreign producers: aggregates are taken apart as KCL does.
    pub fn with_kpl() -> Self {
        Self { fetch: Fetch::default(), kpl: Some(Kpl::default()) }
    }
}
