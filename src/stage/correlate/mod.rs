//! CORRELATE: the single owner of incidents.
//!
//! Takes the evidence of all lanes step by step ([`Correlator`] decides), turns what changed into events, and owns their
//! way out: an event enters the outbox in the same commit that moves the checkpoint past its evidence, and leaves it in
//! a commit after its delivery. Nothing goes out before its commit.

mod outbox;
mod skip;

use std::collections::BTreeSet;

use bytes::Bytes;
use flowshift_consumer::log::Record;
use flowshift_consumer::stage::{Stage, StageError, StatePart};
use flowshift_detector::{Applied, Correlator, CorrelatorState, EventType, Settings, Skips};
use flowshift_proto::state::{Chunk, Kind};
use serde::{Deserialize, Serialize};

pub use outbox::{Deliveries, Entry, Outbox, Outlet, Printer};
pub use skip::{feed_kind, skip_records};

use crate::convert::ConvertError;
use crate::convert::event::to_proto;
use crate::convert::evidence::{self, Said};
use crate::metrics::pipeline::PipelineMetrics;

/// Key of the state part.
const PART: &str = "correlate";
/// Version of the stored state: 2 has skips, 1 had none.
const STATE_VERSION: u32 = 2;

/// The stored state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Body {
    /// Incidents and progress.
    pub correlator: CorrelatorState,
    /// Events on their way out, and those already out that are still kept.
    pub outbox: Outbox,
    /// Lanes whose input has ended.
    pub ended: BTreeSet<u16>,
    /// Evidence records that could not be read.
    pub unreadable: u64,
    /// Steps in which lanes are not waited for.
    pub skips: Skips,
}

/// Version 1 of [`Body`].
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct BodyV1 {
    correlator: CorrelatorState,
    outbox: Outbox,
    ended: BTreeSet<u16>,
    unreadable: u64,
}

impl From<BodyV1> for Body {
    fn from(v1: BodyV1) -> Self {
        let BodyV1 { correlator, outbox, ended, unreadable } = v1;
        Self { correlator, outbox, ended, unreadable, skips: Skips::default() }
    }
}

impl Body {
    /// Reads committed state.
    ///
    /// # Errors
    /// The bytes are not this stage's state, or of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, StageError> {
        let failed = "correlate state";
        let chunk = Chunk::decode(bytes, Kind::Correlate, STATE_VERSION).map_err(|e| StageError::with(failed, e))?;
        let body = match chunk.version {
            1 => postcard::from_bytes::<BodyV1>(&chunk.body).map(Self::from),
            _ => postcard::from_bytes(&chunk.body),
        };
        body.map_err(|e| StageError::with(failed, e))
    }
}

/// What became of a record of the evidence stream.
pub(in crate::stage) struct Heard {
    /// What the correlator did with it; a SKIP record that says nothing new is no evidence and counts as taken.
    applied: Applied,
    /// The lane that has ended with it.
    ended: Option<u16>,
}

/// Gives the correlator one record of the evidence stream.
pub(in crate::stage) fn hear(correlator: &mut Correlator, record: &[u8]) -> Result<Heard, ConvertError> {
    Ok(match evidence::decode(record)? {
        Said::Evidence(lane, said) => {
            Heard { applied: correlator.apply(lane, &said), ended: said.last.then_some(lane) }
        }
        Said::Skip(lane, kind, until_s) => {
            let applied = correlator.skip(lane, kind, until_s);
            if applied == Applied::Taken {
                tracing::warn!(lane, %kind, until_s, "going on without a lane: what it says later of these steps is dropped");
            }
            let applied = if applied == Applied::Foreign { applied } else { Applied::Taken };
            Heard { applied, ended: None }
        }
    })
}

/// The stage.
#[derive(Debug)]
pub struct Correlate {
    correlator: Correlator,
    settings: Settings,
    lanes: u16,
    outbox: Outbox,
    ended: BTreeSet<u16>,
    unreadable: u64,
    outlet: Outlet,
    metrics: PipelineMetrics,
    changed: bool,
    urgent: bool,
}

impl Correlate {
    /// For a job of `lanes` lanes, whose events leave by `outlet`.
    pub fn new(settings: Settings, lanes: u16, outlet: Outlet, metrics: PipelineMetrics) -> Self {
        Self {
            correlator: Correlator::new(settings.clone(), lanes),
            settings,
            lanes,
            outbox: Outbox::default(),
            ended: BTreeSet::new(),
            unreadable: 0,
            outlet,
            metrics,
            changed: false,
            urgent: false,
        }
    }

    fn advance(&mut self) -> Result<(), StageError> {
        for event in self.correlator.advance() {
            self.count(&event);
            self.outbox.add(&to_proto(&event))?;
            self.urgent = true;
        }
        Ok(())
    }

    fn note(&self, applied: Applied) {
        match applied {
            Applied::Taken => {}
            Applied::Repeated => self.drop_for("repeated"),
            Applied::Skipped => self.drop_for("skipped"),
            Applied::Foreign => self.drop_for("foreign"),
        }
    }

    fn drop_for(&self, reason: &str) {
        self.metrics.evidence_dropped.with_label_values(&[reason]).inc();
    }

    fn count(&self, event: &flowshift_detector::AnomalyEvent) {
        match event.event_type {
            EventType::Opened => {
                let event = to_proto(event);
                let labels = [event.signal.as_str(), event.verdict.as_str(), event.severity.as_str()];
                self.metrics.incidents_opened.with_label_values(&labels).inc();
                self.metrics.incidents_open.inc();
            }
            EventType::Resolved => {
                self.metrics.incidents_resolved.inc();
                self.metrics.incidents_open.dec();
            }
            EventType::Updated => {}
        }
    }
}

impl Stage for Correlate {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        let Some((_, bytes)) = parts.into_iter().find(|(key, _)| key == PART) else { return Ok(()) };
        let body = Body::decode(&bytes)?;
        self.correlator = Correlator::from_state(self.settings.clone(), body.correlator)
            .map_err(|e| StageError::with("correlate state", e))?
            .with_skips(body.skips);
        self.outbox = body.outbox;
        self.outbox.commit();
        self.ended = body.ended;
        self.unreadable = body.unreadable;
        self.metrics.incidents_open.set(self.outbox.open_incidents());
        // What an earlier owner committed and perhaps did not deliver goes out again, under the same ids.
        self.changed = self.outlet.send(&mut self.outbox);
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        self.changed = true;
        match hear(&mut self.correlator, &record.data) {
            Ok(Heard { applied, ended }) => {
                self.note(applied);
                self.ended.extend(ended);
                self.advance()
            }
            Err(error) => {
                tracing::warn!(sequence = %record.sequence, error = %error, "evidence cannot be read");
                self.unreadable += 1;
                self.drop_for("unreadable");
                Ok(())
            }
        }
    }

    fn idle(&mut self) -> Result<(), StageError> {
        let judged = self.finished_judging();
        if judged && !self.urgent {
            self.outlet.drain();
        }
        let sent = self.outlet.send(&mut self.outbox);
        if self.outlet.collect(&mut self.outbox) || sent {
            self.changed = true;
            self.urgent |= judged;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        if !std::mem::take(&mut self.changed) && !self.urgent {
            return Ok(Vec::new());
        }
        let body = Body {
            correlator: self.correlator.state().clone(),
            outbox: self.outbox.clone(),
            ended: self.ended.clone(),
            unreadable: self.unreadable,
            skips: self.correlator.skips().clone(),
        };
        let body = postcard::to_stdvec(&body).map_err(|e| StageError::with("correlate state", e))?;
        let chunk = Chunk { version: STATE_VERSION, kind: Kind::Correlate, body };
        Ok(vec![(PART.to_owned(), Bytes::from(chunk.encode()))])
    }

    fn urgent(&self) -> bool {
        self.urgent
    }

    fn committed(&mut self) {
        self.urgent = false;
        self.outbox.commit();
        // That these are out is noted by the next commit; a crash before it sends them again under the same ids.
        self.changed |= self.outlet.send(&mut self.outbox);
    }

    fn finished(&self) -> bool {
        self.finished_judging() && (self.outbox.is_delivered() || self.outlet.gives_up())
    }
}

impl Correlate {
    fn finished_judging(&self) -> bool {
        self.ended.len() == usize::from(self.lanes)
    }
}

#[cfg(test)]
mod tests;
