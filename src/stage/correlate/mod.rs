//! CORRELATE: the single owner of incidents.
//!
//! Takes the evidence of all lanes step by step ([`Correlator`] decides), turns what changed into events, and owns their
//! way out: an event enters the outbox in the same commit that moves the checkpoint past its evidence, and leaves it in
//! a commit after its delivery. Nothing goes out before its commit.

mod outbox;
mod skip;
mod stored;

use std::collections::BTreeSet;

use flowshift_consumer::log::Record;
use flowshift_consumer::shard::ShardId;
use flowshift_consumer::stage::{Stage, StageError, StatePart};
use flowshift_detector::{AnomalyEvent, Applied, Correlator, EventType, Outcome, Settings, Words};

pub use outbox::{Deliveries, Entry, Outbox, Outlet, Printer};
pub use skip::{feed_kind, skip_records};
pub use stored::{Body, PART, Stored, WEBHOOKS_PART, WORDS_PART, disabled, name, words};

use crate::convert::ConvertError;
use crate::convert::event::to_proto;
use crate::convert::evidence::{self, Said};
use crate::metrics::pipeline::{PipelineMetrics, Share};
use crate::webhook::{Board, DisabledEndpoints};

/// What became of a record of the evidence stream.
pub(in crate::stage) struct Heard {
    /// What the correlator did with it; a SKIP record that says nothing new is no evidence and counts as taken.
    applied: Applied,
    /// The lane that has ended with it.
    ended: Option<u16>,
    /// What an operator's word did.
    word: Option<Heeded>,
}

/// What became of an operator's word.
struct Heeded {
    verb: &'static str,
    outcome: Outcome,
    event: Option<AnomalyEvent>,
}

/// Gives the correlator one record of the evidence stream.
pub(in crate::stage) fn hear(correlator: &mut Correlator, record: &[u8]) -> Result<Heard, ConvertError> {
    Ok(match evidence::decode(record)? {
        Said::Evidence(lane, said) => {
            Heard { applied: correlator.apply(lane, &said), ended: said.last.then_some(lane), word: None }
        }
        Said::Word(word) => {
            let (verb, (outcome, event)) = (word.order.as_str(), correlator.hear(&word));
            tracing::info!(word = word.id(), verb, by = word.by, outcome = outcome.as_str(), "an operator said");
            Heard { applied: Applied::Taken, ended: None, word: Some(Heeded { verb, outcome, event }) }
        }
        Said::Skip(lane, kind, until_s) => {
            let applied = correlator.skip(lane, kind, until_s);
            if applied == Applied::Taken {
                tracing::warn!(lane, %kind, until_s, "going on without a lane: what it says later of these steps is dropped");
            }
            let applied = if applied == Applied::Foreign { applied } else { Applied::Taken };
            Heard { applied, ended: None, word: None }
        }
    })
}

/// The stage.
#[derive(Debug)]
pub struct Correlate {
    shard: ShardId,
    correlator: Correlator,
    settings: Settings,
    lanes: u16,
    outbox: Outbox,
    ended: BTreeSet<u16>,
    unreadable: u64,
    /// As they were saved last.
    saved_words: Words,
    /// Webhooks that get nothing more, as the last look found them.
    webhooks: DisabledEndpoints,
    /// As they were saved last.
    saved_webhooks: DisabledEndpoints,
    outlet: Outlet,
    metrics: PipelineMetrics,
    /// Incidents open here; gone with the stage, which goes when its lease does.
    open: Share,
    changed: bool,
    urgent: bool,
}

impl Correlate {
    /// For `shard` of the evidence of a job of `lanes` lanes, whose events leave by `outlet`.
    pub fn new(shard: ShardId, settings: Settings, lanes: u16, outlet: Outlet, metrics: PipelineMetrics) -> Self {
        Self {
            shard,
            correlator: Correlator::new(settings.clone(), lanes),
            settings,
            lanes,
            outbox: Outbox::default(),
            ended: BTreeSet::new(),
            unreadable: 0,
            saved_words: Words::default(),
            webhooks: DisabledEndpoints::new(),
            saved_webhooks: DisabledEndpoints::new(),
            outlet,
            open: Share::of(&metrics.incidents_open),
            metrics,
            changed: false,
            urgent: false,
        }
    }

    fn advance(&mut self) -> Result<(), StageError> {
        for event in self.correlator.advance() {
            self.tell(&event)?;
        }
        Ok(())
    }

    fn tell(&mut self, event: &AnomalyEvent) -> Result<(), StageError> {
        self.count(event);
        self.metrics.outbox_dropped.inc_by(self.outbox.add(&to_proto(event))?);
        self.open.set(self.outbox.open_incidents());
        self.urgent = true;
        Ok(())
    }

    fn heed(&mut self, word: Heeded) -> Result<(), StageError> {
        self.metrics.operator_words.with_label_values(&[word.verb, word.outcome.as_str()]).inc();
        // Whoever said it waits to see it.
        self.urgent = true;
        word.event.map_or(Ok(()), |event| self.tell(&event))
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

    fn count(&self, event: &AnomalyEvent) {
        match event.event_type {
            EventType::Opened => {
                let event = to_proto(event);
                let labels = [event.signal.as_str(), event.verdict.as_str(), event.severity.as_str()];
                self.metrics.incidents_opened.with_label_values(&labels).inc();
            }
            EventType::Resolved => self.metrics.incidents_resolved.inc(),
            EventType::Updated => {}
        }
    }
}

impl Stage for Correlate {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        let stored = Stored::read(&parts)?;
        let begun = stored.as_ref().map(|stored| stored.webhooks.clone()).unwrap_or_default();
        // Before anything is handed out: who is disabled gets nothing of it.
        self.outlet.board().into_iter().for_each(|board| board.begin(&begun));
        let Some(Stored { body, words, webhooks }) = stored else { return Ok(()) };
        // What an older version or a parent shard left is not kept, but saved anew under this shard's keys.
        let moves = !parts.iter().all(|(key, _)| self.keeps(key));
        self.saved_words = if moves { Words::default() } else { words.clone() };
        self.saved_webhooks = if moves { DisabledEndpoints::new() } else { webhooks.clone() };
        self.webhooks = webhooks;
        self.correlator = Correlator::from_state(self.settings.clone(), body.correlator)
            .map_err(|e| StageError::with("correlate state", e))?
            .with_skips(body.skips)
            .with_together(body.together)
            .with_words(words);
        self.outbox = body.outbox;
        self.outbox.commit();
        self.ended = body.ended;
        self.unreadable = body.unreadable;
        self.open.set(self.outbox.open_incidents());
        // What an earlier owner committed and perhaps did not deliver goes out again, under the same ids.
        self.changed = self.outlet.send(&mut self.outbox) || moves;
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        self.changed = true;
        match hear(&mut self.correlator, &record.data) {
            Ok(Heard { applied, ended, word }) => {
                self.note(applied);
                self.ended.extend(ended);
                word.map_or(Ok(()), |word| self.heed(word))?;
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
        // After the outcomes: an endpoint is disabled before the entry that found it out is reported. It must not be forgotten
        // for want of records, and an operator who enables one waits for the commit.
        self.urgent |= self.outlet.board().is_some_and(|board| board.has_changed());
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
            together: self.correlator.together().clone(),
        };
        let mut parts = vec![body.part()?];
        if *self.correlator.words() != self.saved_words {
            self.saved_words = self.correlator.words().clone();
            parts.push(stored::words_part(&self.saved_words)?);
        }
        // Looked at after the outcomes that `body` holds.
        if let Some(board) = self.outlet.board() {
            self.webhooks = board.look();
        }
        if self.webhooks != self.saved_webhooks {
            self.saved_webhooks = self.webhooks.clone();
            parts.push(stored::disabled_part(&self.saved_webhooks)?);
        }
        Ok(parts.into_iter().map(|(name, bytes)| (format!("{}/{name}", self.shard), bytes)).collect())
    }

    fn keeps(&self, key: &str) -> bool {
        key.strip_prefix(self.shard.as_str()).is_some_and(|name| name.starts_with('/'))
    }

    fn urgent(&self) -> bool {
        self.urgent
    }

    fn committed(&mut self) {
        self.urgent = false;
        self.outbox.commit();
        self.outlet.board().into_iter().for_each(Board::commit);
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
