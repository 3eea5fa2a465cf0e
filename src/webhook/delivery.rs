//! What goes into the deliverer and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use flowshift_proto::anomaly::{AnomalyEvent, EventType};

/// One committed outbox entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Derived from the content; becomes `webhook-id` and is the receiver's key for dropping repeats. Visible
    /// ASCII.
    pub id: String,
    /// The incident it tells about: entries of one incident stay in order.
    pub incident: String,
    /// The entry's number inside its incident, ascending; for logs only, order is the order of arrival.
    pub sequence: u64,
    /// Wall-clock time at which the entry was committed, milliseconds since 1970. It is what `max_age` counts from, so event
    /// time must not stand here: replayed history would be born expired.
    pub created_ms: i64,
    /// Its incident is muted: it goes to the endpoints that ask for such.
    pub muted: bool,
    /// Done with by an earlier owner: it is not sent, only remembered, so that what follows is told to those who know the
    /// beginning. No [`Outcome`] comes back.
    pub past: bool,
    /// The JSON body `{type, timestamp, data}`. UTF-8.
    pub body: Bytes,
    /// The event under `data`, for filters and formats; none for a test or what this version cannot read.
    pub event: Option<Arc<AnomalyEvent>>,
}

impl Delivery {
    /// What happened to the incident, where the entry tells an event.
    pub(super) fn kind(&self) -> Option<EventType> {
        self.event.as_ref().map(|event| event.kind)
    }
}

/// The end of an entry: it may leave the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every endpoint answered 2xx.
    Delivered {
        /// The entry's id.
        id: String,
    },
    /// At least one endpoint will never get it; the others are done with it.
    Dropped {
        /// The entry's id.
        id: String,
        /// Why; of several endpoints' reasons the one of the first configured.
        reason: DropReason,
    },
}

/// Why an entry is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Older than the endpoint's `max_age`.
    Expired,
    /// The endpoint answered 410 to this or an earlier entry.
    Disabled,
    /// The entry's id or body cannot be put into a request (not ASCII, not UTF-8).
    Unsendable,
}

impl DropReason {
    /// The reason as a metric label and log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Unsendable => "unsendable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::webhook::DELIVERIES;

    #[test]
    fn the_reasons_are_the_outcomes_that_metrics_show() {
        let reasons = [DropReason::Expired, DropReason::Disabled, DropReason::Unsendable].map(DropReason::as_str);
        assert_eq!(reasons, DELIVERIES[4..]);
    }
}
