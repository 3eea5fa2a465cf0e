//! An operator's door: the present incidents and mutes, and words about them.
//!
//! Queries are answered from committed state, with its age; they need no token and change nothing. Commands need the
//! bearer token. A command is put into the evidence stream as a record, where CORRELATE hears it in its order, and is
//! answered 202 with its id when Kinesis has it: from then on no crash loses it, and said twice it counts once.
//!
//! Not here: what a word does (`flowshift_detector`'s words), the command line that speaks to this.
//! Reading order: [`routes`], `fields` (what a body may say), `known` (whether what a mute names is there), `view` (what is answered), `webhooks`, `refusal`,
//! `token`.

mod fields;
mod known;
mod refusal;
mod routes;
mod token;
mod view;
mod webhooks;

use std::fmt;
use std::sync::Arc;

use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::log::{Log, kinesis::KinesisLog};
use flowshift_consumer::run::Tables;
use flowshift_consumer::table::{Table, aws::DynamoTable};
use flowshift_detector::Settings;
use prometheus::IntCounterVec;
use tokio::sync::{Mutex, watch};

pub use routes::routes;
use token::TokenStore;
pub use token::{Token, TokenError};

use crate::app;
use crate::aws::Clients;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::stage::rules;
use crate::webhook::Switches;
use known::Known;
use view::Kept;

/// All that the door needs; clones share it.
#[derive(Clone)]
pub struct Operator {
    inner: Arc<Inner>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("evidence", &self.inner.evidence).finish_non_exhaustive()
    }
}

struct Inner {
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    tables: Tables,
    /// The stream that words go into.
    evidence: String,
    settings: Settings,
    /// What a mute may name.
    known: Known,
    /// Without one no command is taken.
    token: Option<TokenStore>,
    clock: WallClock,
    requests: IntCounterVec,
    /// The webhooks this process delivers to.
    switches: Switches,
    /// The state as it was read a moment ago: queries need no token, so they must not cost a read each.
    kept: Mutex<Option<Kept>>,
}

impl Operator {
    /// The door of a configured job, whose topology is in `snapshot`.
    ///
    /// # Errors
    /// The token is named and cannot be read, or the detector's settings do not fit.
    pub fn open(
        config: &Config,
        clients: &Clients,
        metrics: &Metrics,
        switches: &Switches,
        snapshot: watch::Receiver<Snapshot>,
    ) -> anyhow::Result<Self> {
        let inner = Inner {
            table: Arc::new(DynamoTable::new(clients.dynamodb.clone())),
            log: Arc::new(KinesisLog::new(clients.kinesis.clone())),
            tables: app::tables(config),
            evidence: config.streams.evidence.clone(),
            settings: rules::detector_settings(config)?,
            known: Known::new(snapshot),
            token: TokenStore::configured(&config.admin)?,
            clock: WallClock::system(),
            requests: metrics.pipeline.operator_requests.clone(),
            switches: switches.clone(),
            kept: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}
