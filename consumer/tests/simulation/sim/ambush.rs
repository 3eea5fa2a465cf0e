//! Faults placed at a moment rather than hoping that random ones hit it.
//!
//! A call that makes the moment is recognised by what it writes; every second one is struck, until the strikes are used
//! up: its process dies before or after it took effect, sleeps longer than a lease before it does, or never hears of
//! it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flowshift_consumer::exchange::{Envelope, Message};
use flowshift_consumer::lease::{LeaseRow, attribute};
use flowshift_consumer::log::Entry;
use flowshift_consumer::table::{Item, TableName, Update, Value};
use rand::Rng;
use rand::rngs::SmallRng;

/// Where to strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A source set is committed or put, by whoever leads: also the re-put of a new leader.
    Control,
    /// Between a child's first commit and the deletion of its parents' rows and chunks.
    Inheritance,
    /// A source's END is put, or SHARD_END committed.
    End,
}

/// What is done to the call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Strike {
    DieBefore,
    DieAfter,
    Sleep(Duration),
    AnswerLost,
    Late(Duration),
}

/// One moment, and how many strikes are left.
#[derive(Debug)]
pub(crate) struct Ambush {
    moment: Moment,
    strikes: u64,
    left: AtomicU64,
}

impl Ambush {
    pub(crate) fn new(moment: Moment, strikes: u64) -> Self {
        Self { moment, strikes, left: AtomicU64::new(strikes) }
    }

    fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Strikes used.
    pub(crate) fn used(&self) -> u64 {
        self.strikes - self.left()
    }

    /// Whether, and how, to strike a call that makes these moments.
    pub(crate) fn strike(&self, at: &[Moment], chance: &mut SmallRng) -> Option<Strike> {
        // The first one always: a story without any would show nothing.
        if !at.contains(&self.moment) || self.left() == 0 || self.used() > 0 && chance.random_bool(0.5) {
            return None;
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        Some(match chance.random_range(0..8) {
            0..2 => Strike::DieBefore,
            2..4 => Strike::DieAfter,
            4..6 => Strike::Sleep(Duration::from_secs(chance.random_range(12..40))),
            6 => Strike::AnswerLost,
            _ => Strike::Late(Duration::from_millis(chance.random_range(1..60_000))),
        })
    }
}

/// The moments that a put into the exchange stream makes.
pub(crate) fn of_append(entries: &[Entry]) -> Vec<Moment> {
    let moment = |entry: &Entry| match Envelope::decode(&entry.data) {
        Ok(Message::Control(_)) => Some(Moment::Control),
        Ok(Message::Batch(part)) if part.end => Some(Moment::End),
        _ => None,
    };
    entries.iter().filter_map(moment).collect()
}

/// The moments that an update of a row makes which stands as `row`.
pub(crate) fn of_update(table: &TableName, row: Option<&Item>, update: &Update) -> Vec<Moment> {
    if table.key != attribute::KEY {
        return Vec::new();
    }
    let ends = |(name, value): &(&str, Value)| *name == attribute::CHECKPOINT && *value == Value::string("SHARD_END");
    let commits = update.set.iter().any(|(name, _)| *name == attribute::MANIFEST);
    let row = row.and_then(|item| LeaseRow::read(item).ok().flatten());
    let first = row.is_some_and(|row| !row.parents.is_empty() && (row.manifest.is_none() || row.cut.is_none()));
    let end = update.set.iter().any(|(name, value)| ends(&(name, value.clone())));
    let moments = [(end, Moment::End), (commits && first, Moment::Inheritance)];
    moments.into_iter().filter_map(|(is, moment)| is.then_some(moment)).collect()
}

/// The moments that a put of an item makes.
pub(crate) fn of_put(table: &TableName, item: &Item) -> Vec<Moment> {
    if item.string(table.key) == Some("control") { vec![Moment::Control] } else { Vec::new() }
}
